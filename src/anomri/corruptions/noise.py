"""Coarse noise, which a denoising autoencoder learns to remove (Kascenas et al. 2022).

Normal values on a coarse grid are interpolated to the image: blotches of the size of lesions. Voxel noise would teach
to smooth, not to take away what does not belong. The coarse grid is physical, so that the blotches are as large whatever
part of a scan is given: the published code has 16 points along 128 pixels, 240 mm; ours lie 240 / 16 = 15 mm apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from anomri.corruptions.erasing import check_shapes
from anomri.errors import BadCall, unknown

SIGNS = ("both", "positive", "negative")
"""The noise as it is drawn; clipped to what is above 0; to what is below 0."""


def coarse_noise(
    shape: Sequence[int],
    spacing: Sequence[float],
    rng: torch.Generator,
    *,
    cell_mm: float = 15.0,
    sd: float = 0.2,
    sign: str = "both",
) -> Tensor:
    """Smooth noise over a whole grid, each channel by itself.

    Parameters
    ----------
    shape : `(C, I, J, K)`, or `(C, I, J)` for a slice
    spacing : mm per voxel along each axis
    cell_mm : mm between points of the coarse grid, wherever the array ends. 15 is the paper's 16 points over 240 mm; the
        same 16 over IterMask3D's volumes of 192 mm are 12
    sd : of the values on the coarse grid; between its points it is less. 0.2 is the paper's, for intensities between 0
        and 1; IterMask3D (v1, section 4.5) has 1.2 for z-scored images, and 3 where it is tuned on the test set
    sign : one of `SIGNS`. "both" is what the published code draws; IterMask2 (Table 1) and IterMask3D (v1, Table 3)
        compare all three and take "positive" for the original, "clipped to positive values" (v1, section 4.4; v2,
        section 5.4): 0 in half of the image. With one seed the two halves sum to the noise with both signs

    Returns float32 of that shape, on the CPU. The first voxel lies on the first point, the last one on the last point or
    before it; then the noise is rolled by a random number of voxels along each axis, so that there is a seam where its
    faces meet. Source: Kascenas et al. 2022, with the numbers of its code, which differs: its first and last points lie
    on the first and last pixel of a slice, so that 127 pixels have 15 steps of 15.9 mm (12.7 in IterMask3D's volumes);
    and it rolls over the whole slice, so that the seam often misses the brain, where in a brain's box it crosses it.
    Raises `BadCall` for an unknown sign, a wrong number of axes, a spacing or distance that is not above 0, a negative
    sd.
    """
    axes = len(shape) - 1
    if sign not in SIGNS:
        raise unknown("sign", sign, SIGNS)
    if axes not in (2, 3):
        raise BadCall(f"coarse noise is for a shape (C, I, J, K) or (C, I, J), got {tuple(shape)}")
    if len(spacing) != axes or not all(math.isfinite(mm) and mm > 0 for mm in (*spacing, cell_mm)):
        raise BadCall(
            f"coarse noise needs a spacing along each of {axes} axes and a distance of its points, in mm and above 0; "
            f"got {tuple(spacing)} and {cell_mm:g}"
        )
    if not (math.isfinite(sd) and sd >= 0):
        raise BadCall(f"the SD of coarse noise is 0 or more, got {sd:g}")
    steps = [mm / cell_mm for mm in spacing]
    # Rounding must not add a point to an array that ends on one.
    points = [max(2, math.ceil((n - 1) * step - 1e-6) + 1) for n, step in zip(shape[1:], steps, strict=True)]
    noise = sd * torch.randn(shape[0], *points, generator=rng)
    # From the last axis to the first: all but the last copies are small.
    for axis in range(axes, 0, -1):
        noise = _between(noise, axis, shape[axis], steps[axis - 1])
    shifts = [int(torch.randint(n, (1,), generator=rng)) for n in shape[1:]]
    noise = noise.roll(shifts, dims=list(range(1, axes + 1)))
    if sign == "both":
        return noise
    return noise.clamp(min=0) if sign == "positive" else noise.clamp(max=0)


def _between(points: Tensor, axis: int, n: int, step: float) -> Tensor:
    """`n` values along an axis, linear between points, at 0, `step`, 2 `step`, ... of the points' distance."""
    at = torch.arange(n, dtype=torch.float64) * step
    before = at.long().clamp(max=points.shape[axis] - 2)
    weight = (at - before).to(points).reshape(-1, *[1] * (points.ndim - axis - 1))
    return torch.lerp(points.index_select(axis, before), points.index_select(axis, before + 1), weight)


def add_coarse_noise(
    x: Tensor,
    brain: Tensor,
    spacing: Sequence[float],
    rng: torch.Generator,
    *,
    cell_mm: float = 15.0,
    sd: float = 0.2,
    sign: str = "both",
) -> Tensor:
    """An image with coarse noise in its brain.

    Parameters
    ----------
    x, brain : `(C, I, J, K)` and `(I, J, K)` bool, or a slice, `(C, I, J)` and `(I, J)`
    spacing, cell_mm, sd, sign : as in `coarse_noise`

    Returns a new tensor like `x`, the same outside the brain. The published code adds it where the intensity is above
    0.01, which in a z-scored image is half of the brain. Source and errors as in `coarse_noise`; `BadCall` where the
    shapes do not go together.
    """
    check_shapes(x, brain, "coarse noise")
    noise = coarse_noise(x.shape, spacing, rng, cell_mm=cell_mm, sd=sd, sign=sign).to(x)
    return torch.where(brain, x + noise, x)
