"""Seconds of PSNR and SSIM of a 192^3 reconstruction, against MONAI and scikit-image in the same run, and their values.

Command:  python benchmarks/reconstruction.py    (half a minute on two cores; needs scikit-image and monai)

Each time is the best of a few runs. All take the mean over the same voxels, so the values agree: for SSIM those whose window
lies inside the grid. "brain" is over an ellipsoid's voxels; no peer gives the SSIM of those alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from monai.metrics.regression import PSNRMetric, SSIMMetric
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from anomri.metrics.reconstruction import psnr, ssim
from anomri.scoring.ssim import radius

SIGMA = 1.5
WIDTH = 2 * radius(SIGMA) + 1


def best(work: Callable[[], float], runs: int) -> tuple[float, float]:
    """The shortest of some runs, in seconds, and what they return."""
    seconds = []
    for _ in range(runs):
        begun = time.perf_counter()
        value = float(work())
        seconds.append(time.perf_counter() - begun)
    return min(seconds), value


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


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    x, y, inner, brain = scans(given.size)
    everywhere = np.ones(x.shape, bool)
    a, b = torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None]
    inside = torch.from_numpy(brain)
    monai_ssim = SSIMMetric(3, data_range=1.0, win_size=WIDTH, kernel_sigma=SIGMA)
    rows: dict[str, Callable[[], float]] = {
        "PSNR anomri": lambda: psnr(x, y, everywhere, data_range=1.0),
        "PSNR scikit-image": lambda: peak_signal_noise_ratio(x, y, data_range=1.0),
        "PSNR MONAI": lambda: float(PSNRMetric(1.0)(a, b)),
        "PSNR anomri, brain": lambda: psnr(x, y, brain, data_range=1.0),
        "PSNR scikit-image, brain": lambda: peak_signal_noise_ratio(x[brain], y[brain], data_range=1.0),
        "PSNR MONAI, brain": lambda: float(PSNRMetric(1.0)(a[:, :, inside][None], b[:, :, inside][None])),
        "SSIM anomri": lambda: ssim(x, y, inner, data_range=1.0, sigma=SIGMA),
        "SSIM scikit-image": lambda: structural_similarity(
            x, y, data_range=1.0, gaussian_weights=True, sigma=SIGMA, use_sample_covariance=False
        ),
        "SSIM MONAI": lambda: float(monai_ssim(a, b)),
        "SSIM anomri, brain": lambda: ssim(x, y, brain, data_range=1.0, sigma=SIGMA),
    }
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {given.size}^3")
    print(f"{'':26}{'seconds':>10}{'value':>12}")
    for name, work in rows.items():
        seconds, value = best(work, given.runs)
        print(f"{name:26}{seconds:>10.3f}{value:>12.6f}")


if __name__ == "__main__":
    main()
