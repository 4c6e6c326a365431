"""Coarse noise, which a denoising autoencoder learns to remove (Kascenas et al. 2022).

Normal values on a grid of 16 cells an axis are interpolated to the image: blotches of the size of lesions. Voxel noise
would teach to smooth, not to take away what does not belong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from anomri.corruptions.erasing import check_shapes
from anomri.errors import BadCall, unknown

SIGNS = ("both", "positive", "negative")
"""The noise as it is drawn; its magnitude; minus its magnitude."""


def coarse_noise(
    shape: Sequence[int],
    rng: torch.Generator,
    *,
    cell: int | Sequence[int] = 16,
    sd: float = 0.2,
    sign: str = "both",
) -> Tensor:
    """Smooth noise over a whole grid, each channel by itself.

    Parameters
    ----------
    shape : `(C, I, J, K)`, or `(C, I, J)` for a slice
    cell : cells of the coarse grid along each axis, or one number for all
    sd : of the values on the coarse grid; between its points it is less. 0.2 is the paper's, for intensities between 0
        and 1; IterMask3D (v1, section 4.5) has 1.2 for z-scored images, and 3 where it is tuned on the test set
    sign : one of `SIGNS`. "both" is what the published code draws; IterMask2 (Table 1) and IterMask3D (v1, Table 3)
        compare all three and take "positive" for the original. The same seed has the same magnitudes with each

    Returns float32 of that shape, on the CPU. The corners of both grids meet; then the noise is rolled by a random
    number of voxels along each axis, so that there is a seam where its faces meet. Source: Kascenas et al. 2022, with
    the numbers of its code. Raises `BadCall` for an unknown sign, a wrong number of cells or axes, a negative sd.
    """
    axes = len(shape) - 1
    cells = [cell] * axes if isinstance(cell, int) else list(cell)
    if sign not in SIGNS:
        raise unknown("sign", sign, SIGNS)
    if axes not in (2, 3):
        raise BadCall(f"coarse noise is for a shape (C, I, J, K) or (C, I, J), got {tuple(shape)}")
    if len(cells) != axes or min(cells) < 1:
        raise BadCall(f"coarse noise needs 1 cell or more along each of {axes} axes, got {cells}")
    if not (math.isfinite(sd) and sd >= 0):
        raise BadCall(f"the SD of coarse noise is 0 or more, got {sd:g}")
    coarse = sd * torch.randn(1, shape[0], *cells, generator=rng)
    mode = "bilinear" if axes == 2 else "trilinear"
    noise = F.interpolate(coarse, size=list(shape[1:]), mode=mode, align_corners=True)[0]
    shifts = [int(torch.randint(n, (1,), generator=rng)) for n in shape[1:]]
    noise = noise.roll(shifts, dims=list(range(1, axes + 1)))
    if sign == "both":
        return noise
    return noise.abs() if sign == "positive" else -noise.abs()


def add_coarse_noise(
    x: Tensor,
    brain: Tensor,
    rng: torch.Generator,
    *,
    cell: int | Sequence[int] = 16,
    sd: float = 0.2,
    sign: str = "both",
) -> Tensor:
    """An image with coarse noise in its brain.

    Parameters
    ----------
    x, brain : `(C, I, J, K)` and `(I, J, K)` bool, or a slice, `(C, I, J)` and `(I, J)`
    cell, sd, sign : as in `coarse_noise`

    Returns a new tensor like `x`, the same outside the brain. The published code adds it where the intensity is above
    0.01, which in a z-scored image is half of the brain. Source and errors as in `coarse_noise`; `BadCall` where the
    shapes do not go together.
    """
    check_shapes(x, brain, "coarse noise")
    noise = coarse_noise(x.shape, rng, cell=cell, sd=sd, sign=sign).to(x)
    return torch.where(brain, x + noise, x)
