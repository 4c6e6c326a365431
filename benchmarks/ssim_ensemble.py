"""Seconds of SSIM under eight windows, joined to one map, against eight of MONAI's in the same run, and the values of both.

Command:  python benchmarks/ssim_ensemble.py      (some minutes on two cores, nearly all of them MONAI's; needs monai)

MONAI's windows are of three axes, ours go axis by axis. MONAI gives voxels whose window lies inside the grid, we give all; values
are compared where both have them. MONAI computes in single precision whatever it is given, and rounds more than ours: so ours is held
against itself in double precision, and the note has how far MONAI's lies from that and from ours. Joining MONAI's eight maps is not counted. A whole box is scored: within `residual` it is the box of the brain.
"""

from __future__ import annotations

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor

from anomri.scoring.ssim import ENSEMBLE, radius, ssim_ensemble
from side_by_side import Goal, main, quickest

SHAPES = ((96, 96, 50), (192, 192, 192))
REACH = radius(max(ENSEMBLE))


def images(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """An image in [0, 1] and a noisy copy."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=rng)
    return x, x + 0.1 * torch.randn(shape, generator=rng)


def eight(x: Tensor, y: Tensor) -> list[Tensor]:
    """MONAI's map of each sigma, as far as its window stays inside."""
    found = []
    for sigma in ENSEMBLE:
        width = (2 * radius(sigma) + 1,) * 3
        found.append(compute_ssim_and_cs(x[None, None], y[None, None], 3, width, (sigma,) * 3, 1.0)[0][0, 0])
    return found


def joined(maps: list[Tensor]) -> Tensor:
    """The mean of maps under a softmax of their negatives, over the voxels that all of them have."""
    inner = [
        found[tuple(slice(REACH - radius(sigma), n - REACH + radius(sigma)) for n in found.shape)]
        for sigma, found in zip(ENSEMBLE, maps, strict=True)
    ]
    found = torch.stack(inner)
    return ((-found).softmax(0) * found).sum(0)


def goals(shapes: tuple[tuple[int, ...], ...] = SHAPES, turns: int = 3) -> list[Goal]:
    """Ten times quicker than eight calls of MONAI's, the same values."""
    found = []
    for shape in shapes:
        x, y = images(shape)
        # Minutes a turn at 192^3.
        often = turns if x.numel() < 1e6 else 1
        with torch.inference_mode():
            ssim_ensemble(x[:32], y[:32], data_range=1.0)
            (taken, value), (other, maps) = quickest(
                (lambda x=x, y=y: ssim_ensemble(x, y, data_range=1.0), lambda x=x, y=y: eight(x, y)), often
            )
            theirs, inner = joined(maps), (slice(REACH, -REACH),) * 3
            exact = ssim_ensemble(x.double(), y.double(), data_range=1.0)[inner]
        off, monai, apart = (
            float((a - b).abs().max()) for a, b in ((value[inner], exact), (theirs, exact), (value[inner], theirs))
        )
        size = " x ".join(str(n) for n in shape)
        note = f"MONAI's: {monai:.1e}, from ours {apart:.1e}"
        found += [
            Goal(f"SSIM ensemble of {size}, eight of MONAI's", taken, other, 10.0),
            Goal(f"its values at {size}, largest difference from double precision", off, 1e-4, 1.0, "", note),
        ]
    return found


if __name__ == "__main__":
    main(goals, __doc__)
