"""Seconds of PSNR and SSIM of a 192^3 reconstruction, against MONAI and scikit-image in the same run, and their values.

Command:  python benchmarks/reconstruction.py    (half a minute on two cores; needs scikit-image and monai)

All take the mean over the same voxels, so the values agree: for SSIM those whose window lies inside the grid. "Of the brain" is
over an ellipsoid's voxels; no peer gives the SSIM of those alone, so the peer's time is the whole box's.

PSNR is one pass over memory, for scikit-image too: a tenth slower is let pass as noise.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.metrics.regression import PSNRMetric, SSIMMetric
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from anomri.metrics.reconstruction import psnr, ssim
from anomri.scoring.ssim import radius
from side_by_side import Goal, Work, main, quickest

SIGMA = 1.5
WIDTH = 2 * radius(SIGMA) + 1


def scans(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """An image in [0, 1], a noisy copy, the voxels whose window lies inside the grid, and an ellipsoid brain."""
    rng = np.random.default_rng(0)
    x = rng.random((size,) * 3, dtype=np.float32)
    y = x + 0.1 * rng.standard_normal(x.shape, dtype=np.float32)
    inner = np.zeros(x.shape, bool)
    reach = radius(SIGMA)
    inner[(slice(reach, -reach),) * 3] = True
    axes = np.array([70, 85, 65]).reshape(3, 1, 1, 1) * size / 192
    brain = (((np.indices(x.shape) - (size - 1) / 2) / axes) ** 2).sum(axis=0) <= 1
    return x, y, inner, brain


def goals(size: int = 192, turns: int = 3) -> list[Goal]:
    """No metric slower than its peers."""
    x, y, inner, brain = scans(size)
    everywhere = np.ones(x.shape, bool)
    a, b = torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None]
    inside = torch.from_numpy(brain)
    monai_psnr, monai_ssim = PSNRMetric(1.0), SSIMMetric(3, data_range=1.0, win_size=WIDTH, kernel_sigma=SIGMA)

    def similarity() -> float:
        smooth = {"gaussian_weights": True, "sigma": SIGMA, "use_sample_covariance": False}
        return float(structural_similarity(x, y, data_range=1.0, **smooth))

    rows: list[tuple[str, Work, Work]] = [
        (
            "PSNR, scikit-image",
            lambda: psnr(x, y, everywhere, data_range=1.0),
            lambda: peak_signal_noise_ratio(x, y, data_range=1.0),
        ),
        ("PSNR, MONAI", lambda: psnr(x, y, everywhere, data_range=1.0), lambda: monai_psnr(a, b)),
        (
            "PSNR of the brain, scikit-image",
            lambda: psnr(x, y, brain, data_range=1.0),
            lambda: peak_signal_noise_ratio(x[brain], y[brain], data_range=1.0),
        ),
        (
            "PSNR of the brain, MONAI",
            lambda: psnr(x, y, brain, data_range=1.0),
            lambda: monai_psnr(a[:, :, inside][None], b[:, :, inside][None]),
        ),
        ("SSIM, scikit-image", lambda: ssim(x, y, inner, data_range=1.0, sigma=SIGMA), similarity),
        ("SSIM, MONAI", lambda: ssim(x, y, inner, data_range=1.0, sigma=SIGMA), lambda: monai_ssim(a, b)),
        (
            "SSIM of the brain, whole box by scikit-image",
            lambda: ssim(x, y, brain, data_range=1.0, sigma=SIGMA),
            similarity,
        ),
    ]
    found = []
    for name, ours, theirs in rows:
        (taken, value), (other, reference) = quickest((ours, theirs), turns)
        wanted = 0.9 if "PSNR" in name else 1.0
        found.append(Goal(name, taken, other, wanted, note=f"{float(value):.6f} and {float(reference):.6f}"))
    return found


if __name__ == "__main__":
    main(goals, __doc__)
