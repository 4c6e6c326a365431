"""Parts of an image erased, to be filled in again (Bengs et al. 2021; Behrendt's thesis, sections 3.4.1 and 8.1).

`x' = x (1 - m) + m f`: the mask m is a square or cube, several of them, or half of the brain; f is zero, or noise from
the image's own values. In training half of the images are erased, and the loss is against the image as it was.

The size of a square or cube is its share of all voxels of the image, background too, before what lies past the border
is clipped and before regions overlap. Sides are equal in voxels, as in the papers, whose grids are isotropic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from anomri.errors import BadCall, BadInput, unknown

ERASINGS = ("patch", "cube", "multi", "half")
"""A square of a slice; a cube of a volume; several of either; the left or right half of the brain."""
FILLS = ("zero", "noise")
REGIONS = 10
"""The most regions of "multi"."""
SLICES = 32
"""The most slices that "half" erases in a volume; the paper's have 64."""


def erase(
    x: Tensor,
    brain: Tensor,
    how: str,
    rng: torch.Generator,
    *,
    fill: str = "zero",
    least: float = 0.01,
    most: float = 0.25,
    p: float = 0.5,
    zero: float = 0.0,
    slices: int = SLICES,
) -> Tensor:
    """An image of which a part is erased, or, with probability `1 - p`, as it was.

    Parameters
    ----------
    x, brain : `(C, I, J, K)` and `(I, J, K)` bool, or a slice, `(C, I, J)` and `(I, J)`
    how, least, most, slices : as in `erasing_mask`
    fill : "zero", or "noise": in each voxel and channel the value of a random voxel of the brain, of that channel
    zero : the value that "zero" stands for

    Returns a new tensor like `x`; where there is no brain, as in a slice above it, `x` as it was. Source: Bengs et al.
    2021, "Deep learning methods": fills, and p. Raises `BadCall` for shapes that do not go together, unknown names and
    shares out of order.
    """
    check_shapes(x, brain, "erasing")
    if fill not in FILLS:
        raise unknown("fill", fill, FILLS)
    if not 0 <= p <= 1:
        raise BadCall(f"the probability of erasing is 0 to 1, got p = {p:g}")
    _check_how(brain, how, least, most, slices)
    if not brain.any():
        return x.clone()
    if float(torch.rand((), generator=rng)) >= p:
        return x.clone()
    mask = erasing_mask(brain, how, rng, least=least, most=most, slices=slices)
    if fill == "zero":
        return x.masked_fill(mask, zero)
    out, values = x.clone(), x[:, brain]
    drawn = torch.randint(values.shape[1], (len(x), int(mask.sum())), generator=rng).to(x.device)
    out[:, mask] = values.gather(1, drawn)
    return out


def erasing_mask(
    brain: Tensor,
    how: str,
    rng: torch.Generator,
    *,
    least: float = 0.01,
    most: float = 0.25,
    slices: int = SLICES,
) -> Tensor:
    """Where an image is erased.

    Parameters
    ----------
    brain : `(I, J, K)` or `(I, J)` bool on a RAS grid; only "half" looks at its values
    how : one of `ERASINGS`. "patch" (slices) and "cube" (volumes): one region, centred at any voxel of the image.
        "multi": 2 to 10, each as in "patch" or "cube", that share one size at random. "half": the left or right half of
        the brain's bounding box, in a volume of 1 to `slices` consecutive axial slices of it; the middle plane of an
        odd box belongs to both halves
    least, most : size of the region, of all of them in "multi", as a share of the image's voxels; not for "half". The
        side is the whole number that comes nearest to the drawn size; in an image so small that none lies between, the
        nearest there is, 1 or more
    slices : the most slices of "half"

    Returns a bool tensor like `brain`; it may reach outside the brain, but "half" not outside its box. Source: Bengs et
    al. 2021, "Deep learning methods"; how a size is shared in "multi", and what lies at the border, is ours. Raises
    `BadCall` as `erase`; `BadInput` for "half" where the brain is empty.
    """
    _check_how(brain, how, least, most, slices)
    if how == "half":
        return _half(brain, rng, slices)
    n, mask = brain.numel(), torch.zeros_like(brain)
    size = n * (least + (most - least) * float(torch.rand((), generator=rng)))
    parts = [1.0]
    if how == "multi":
        regions = int(torch.randint(2, REGIONS + 1, (1,), generator=rng))
        # Shares of uniform cuts: each way to split is as likely.
        cuts = torch.rand(regions - 1, generator=rng).sort().values.tolist()
        parts = [b - a for a, b in zip([0.0, *cuts], [*cuts, 1.0], strict=True)]
    counts = _counts(brain.shape)
    upto, used = 0.0, 0
    for number, part in enumerate(parts, start=1):
        upto += part * size
        wanted, last = upto - used, number == len(parts)
        # What rounding gave one region too much is taken from the next; the last makes sure that the limits hold.
        if wanted < 0.5 and not (last and used < max(1, least * n)):
            continue
        side = _side(counts, wanted, least * n - used if last else 1, most * n - used)
        used += int(counts[side - 1])
        box = []
        for edge in brain.shape:
            first = int(torch.randint(edge, (1,), generator=rng)) - side // 2
            box.append(slice(max(0, first), max(0, first + side)))
        mask[tuple(box)] = True
    return mask


def check_shapes(x: Tensor, brain: Tensor, doing: str) -> None:
    """Raises `BadCall` unless `x` is a slice or volume with channels, and `brain` its bool mask."""
    if brain.ndim not in (2, 3) or x.shape[1:] != brain.shape or brain.dtype != torch.bool:
        raise BadCall(
            f"{doing} needs an image (C, I, J, K) or (C, I, J) and its brain mask without C, bool; "
            f"got {tuple(x.shape)} and {tuple(brain.shape)}, {brain.dtype}"
        )


def _check_how(brain: Tensor, how: str, least: float, most: float, slices: int) -> None:
    if how not in ERASINGS:
        raise unknown("erasing", how, ERASINGS)
    if brain.ndim not in (2, 3):
        raise BadCall(f"erasing needs a brain mask (I, J, K) or (I, J), got {tuple(brain.shape)}")
    if brain.ndim != {"patch": 2, "cube": 3}.get(how, brain.ndim):
        other, kind = ("cube", "slices") if how == "patch" else ("patch", "volumes")
        raise BadCall(f"erasing '{how}' is for {kind}, the brain mask is {tuple(brain.shape)}; take '{other}'")
    if not 0 < least <= most <= 1:
        raise BadCall(f"what is erased is from a share above 0 to one of at most 1, got {least:g} to {most:g}")
    if slices < 1:
        raise BadCall(f"'half' erases 1 slice or more, got at most {slices}")


def _counts(shape: Sequence[int]) -> Tensor:
    """Voxels of a square or cube with side 1, 2, ...; it spans an axis that is shorter."""
    side = torch.arange(1, max(shape) + 1)
    counts = torch.ones_like(side)
    for edge in shape:
        counts = counts * side.clamp(max=edge)
    return counts


def _side(counts: Tensor, wanted: float, least: float, most: float) -> int:
    """The side whose number of voxels is nearest to the wanted one, within limits if one is."""
    off = (counts - wanted).abs().double()
    allowed = (counts >= math.ceil(least - 1e-6)) & (counts <= math.floor(most + 1e-6))
    return 1 + int((torch.where(allowed, off, math.inf) if allowed.any() else off).argmin())


def _half(brain: Tensor, rng: torch.Generator, slices: int) -> Tensor:
    if not brain.any():
        raise BadInput("nothing can be erased: the brain mask is empty; check the brain extraction of the scan")
    box = []
    for axis in range(brain.ndim):
        where = brain.any(dim=tuple(a for a in range(brain.ndim) if a != axis)).nonzero()
        box.append([int(where[0]), int(where[-1]) + 1])
    first, stop = box[0]
    width = (stop - first + 1) // 2
    left = bool(torch.randint(2, (1,), generator=rng))
    box[0] = [first, first + width] if left else [stop - width, stop]
    if brain.ndim == 3:
        first, stop = box[2]
        deep = 1 + int(torch.randint(min(slices, stop - first), (1,), generator=rng))
        first += int(torch.randint(stop - first - deep + 1, (1,), generator=rng))
        box[2] = [first, first + deep]
    mask = torch.zeros_like(brain)
    mask[tuple(slice(a, b) for a, b in box)] = True
    return mask
