"""Seconds of the full Mahalanobis distance of one slice, against the inverse of its covariance in the same run, and its values.

Command:  python benchmarks/mahalanobis.py        (a minute on two cores)

The slice is Behrendt's: 96 x 96, a brain of some 4250 voxels, 10 reconstructions. The peer makes the covariance of all voxels and inverts it
by NumPy in double precision, as the paper's formula says. Values are compared as the squared distance of each voxel, relative to
the largest. Timed too: what `residual` takes for a volume of 96 x 96 x 50 such voxels, slice by slice and at once.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from anomri.scoring.mahalanobis import EPS, contributions
from anomri.scoring.residual import residual
from side_by_side import Goal, main, quickest

N = 10
Values = NDArray[np.float64]


def brain(size: int = 96, half: tuple[float, float] = (33.2, 40.8)) -> NDArray[np.bool_]:
    """`(size, size)`: an ellipse of some 4250 pixels for the size of 96."""
    at = np.arange(size) - (size - 1) / 2
    axes = [h * size / 96 for h in half]
    return np.asarray((at[:, None] / axes[0]) ** 2 + (at / axes[1]) ** 2 <= 1)


def images(shape: tuple[int, ...], seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A scan in [0, 1] and N reconstructions that differ by waves and noise, `shape` and `(N, *shape)`."""
    rng = np.random.default_rng(seed)
    x = rng.random(shape)
    waves = np.stack([np.sin(np.arange(x.size) / rng.uniform(20, 400)) for _ in range(4)]).reshape(4, *shape)
    healthy = x + np.tensordot(0.05 * rng.normal(size=(N, 4)), waves, 1) + 0.02 * rng.normal(size=(N, *shape))
    return (x + 0.1 * rng.normal(size=shape)).astype(np.float32), healthy.astype(np.float32)


def dense(x: NDArray[np.float32], healthy: NDArray[np.float32]) -> Values:
    """Each voxel's term of the squared distance, by the inverse of the covariance `(P, P)`."""
    d = x - healthy.mean(axis=0, dtype=float)
    covariance = np.cov(healthy.T.astype(float))
    found: Values = d * (np.linalg.inv(covariance + EPS * np.eye(len(d))) @ d)
    return found


def goals(size: int = 96, turns: int = 3) -> list[Goal]:
    """A hundred times quicker than the inverse, and the same values."""
    inside = brain(size)
    x, healthy = images((int(inside.sum()),))
    (taken, value), (other, reference) = quickest((lambda: contributions(x, healthy), lambda: dense(x, healthy)), turns)
    apart = float(np.abs(value - reference).max() / np.abs(reference).max())
    what = f"{len(x)} voxels, {N} reconstructions"
    return [
        Goal("full Mahalanobis distance of a slice, NumPy's inverse", taken, other, 100.0, note=what),
        Goal("its values, largest difference from the inverse's", apart, 1e-4, 1.0, unit="", note="relative"),
    ]


def volume(size: int = 96, depth: int = 50) -> None:
    """Prints the seconds of whole maps."""
    inside = np.repeat(brain(size)[..., None], depth, axis=2)
    x, healthy = images(inside.shape)
    for slicewise in (True, False):
        begun = time.perf_counter()
        residual("mhd_full", x[None], healthy[:, None], inside, slicewise=slicewise)
        print(
            f"mhd_full of {inside.shape}, {'slices' if slicewise else 'at once'}: {time.perf_counter() - begun:.2f} s"
        )


if __name__ == "__main__":
    volume()
    main(goals, __doc__)
