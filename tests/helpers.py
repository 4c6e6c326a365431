"""Small brains that are made, not downloaded, for the tests of networks, training and methods. Every axis has its own length."""

from __future__ import annotations

import socket

import numpy as np
from numpy.typing import NDArray

from anomri.cohort import Cohort
from anomri.scan import Scan

SHAPE = (32, 40, 36)
SPACING = 5.0


def ellipsoid(
    shape: tuple[int, ...] = SHAPE,
    axes: tuple[float, ...] = (12.6, 15.4, 11.2),
    shift: tuple[float, ...] = (0.0, 0.0, 0.0),
) -> NDArray[np.bool_]:
    """`(I, J, K)` bool: an ellipsoid with half axes in voxels, about the grid's centre."""
    where = np.meshgrid(*(np.arange(n) - (n - 1) / 2 - s for n, s in zip(shape, shift, strict=True)), indexing="ij")
    return np.asarray(sum((w / a) ** 2 for w, a in zip(where, axes, strict=True)) <= 1)


def phantom(number: int, *, shape: tuple[int, int, int] = SHAPE, spacing: float = SPACING, lesion: float = 0.0) -> Scan:
    """A healthy "brain": bright core, dark ventricle, darker shell, a little of its own in every one; normalised.

    Parameters
    ----------
    number : which one; the same number is the same scan
    lesion : SDs that a ball of 3 voxels radius, off the centre, is brightened by; it becomes the scan's lesion
    """
    rng = np.random.default_rng(number)
    size = np.array(shape) / np.array(SHAPE)
    axes = np.array((12.6, 15.4, 11.2)) * size * rng.uniform(0.95, 1.0, 3)
    brain = ellipsoid(shape, tuple(axes))
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum((w * n / 2 / a) ** 2 for w, n, a in zip((i, j, k), shape, axes, strict=True)))
    x = 1.0 - 0.9 * (radius > rng.uniform(0.72, 0.8))
    x = x - 1.6 * (((i * 4) ** 2 + ((j - 0.1) * 2.6) ** 2 + (k * 3.4) ** 2) < rng.uniform(0.8, 1.1))
    for _ in range(4):
        wave = rng.normal(size=3) * 3
        x = x + 0.12 * np.cos(wave[0] * i + wave[1] * j + wave[2] * k + rng.uniform(0, 6))
    x = x + 0.03 * rng.normal(size=shape)
    x = np.where(brain, (x - x[brain].mean()) / x[brain].std(), 0)
    truth = None
    if lesion:
        ball = ellipsoid(shape, (3.0, 3.0, 3.0), (5.0, -6.0, 1.0)) & brain
        x, truth = x + lesion * ball, ball
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (-80.0, -95.0, -60.0)
    return Scan(x.astype(np.float32), affine, id=f"phantom-{number:02d}", brain=brain, lesion=truth)


def phantoms(*numbers: int) -> Cohort:
    """A cohort of healthy phantoms."""
    return Cohort([phantom(n) for n in numbers])


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
