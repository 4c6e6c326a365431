"""Seconds of a random mask and of a high-frequency image, against the plain way with SciPy and NumPy, at 1 mm and 2 mm.

Command:  python benchmarks/masks.py             (about half a minute on two cores)

The plain mask: 100,000 points of SciPy's multivariate normal, the cells that they hit, `scipy.ndimage.zoom` of order 0 up to the
grid, cut at the brain. Both take the mean over the same cells: 4, 4, 2 and 8 mm. The other way up is `numpy.repeat`, which the
published code of IterMask3D takes. The plain high-frequency image: NumPy's complex transform of the
volume, amplitude and phase apart, and back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats

from anomri.corruptions.frequency import CUTOFF, high_pass
from anomri.corruptions.masks import CELLS_MM, gaussian_mask
from side_by_side import Goal, alternate, main

Mask = NDArray[np.bool_]
AXES_MM = (70.0, 85.0, 65.0)
FIELD_MM = 192
POINTS = 100_000


def ellipsoid(side: int) -> Mask:
    """A brain `(side, side, side)` in a field of view of 192 mm."""
    at = (np.indices((side,) * 3) - (side - 1) / 2) * FIELD_MM / side
    brain: Mask = ((at / np.reshape(AXES_MM, (3, 1, 1, 1))) ** 2).sum(axis=0) <= 1
    return brain


def plain_mask(brain: Mask, factor: int, rng: np.random.Generator, grow: Callable[[Mask, int], Mask]) -> Mask:
    """Eq. 15 and 16 as they stand, cells of `factor` voxels."""
    inside = np.argwhere(brain)
    centre = inside[rng.integers(len(inside))] // factor + 0.5
    turn = stats.ortho_group.rvs(3, random_state=rng)
    covariance = turn @ np.diag(rng.uniform(0.3, 10, 3)) @ turn.T
    points = np.floor(stats.multivariate_normal.rvs(centre, covariance, POINTS, random_state=rng)).astype(int)
    shape = np.array(brain.shape) // factor
    points = points[((points >= 0) & (points < shape)).all(axis=1)]
    cells = np.zeros(shape, dtype=bool)
    cells[tuple(points.T)] = True
    return grow(cells, factor) & brain


def zoomed(cells: Mask, factor: int) -> Mask:
    """By SciPy."""
    grown: Mask = ndimage.zoom(cells, factor, order=0, grid_mode=True, mode="grid-constant")
    return grown


def repeated(cells: Mask, factor: int) -> Mask:
    """By NumPy."""
    for axis in range(3):
        cells = cells.repeat(factor, axis)
    return cells


def plain_high_pass(x: NDArray[Any], spacing: float) -> NDArray[np.float64]:
    """Eq. 7 to 12 as they stand."""
    spectrum = np.fft.fftshift(np.fft.fftn(x))
    amplitude, phase = np.abs(spectrum), np.angle(spectrum)
    f = [np.fft.fftshift(np.fft.fftfreq(n, spacing)) for n in x.shape]
    i, j, k = np.ix_(*f)
    amplitude = amplitude * (i**2 + j**2 + k**2 > CUTOFF**2 * (1 + 1e-9))
    return np.fft.ifftn(np.fft.ifftshift(amplitude * np.exp(1j * phase))).real


def goals() -> list[Goal]:
    """What is wanted of masks and high-frequency images."""
    found = []
    rng, drawn = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for side in (FIELD_MM, FIELD_MM // 2):
        mm = FIELD_MM / side
        brain = ellipsoid(side)
        inside = torch.from_numpy(brain)

        def ours(inside: torch.Tensor = inside, mm: float = mm) -> None:
            for cell in CELLS_MM:
                gaussian_mask(inside, (mm,) * 3, drawn, cells_mm=(cell,))

        def theirs(grow: Callable[[Mask, int], Mask], brain: Mask = brain, mm: float = mm) -> None:
            for cell in CELLS_MM:
                plain_mask(brain, round(cell / mm), rng, grow)

        n = len(CELLS_MM)
        # The promise is about zoom; against repeat there is none, but slower would be odd.
        for name, grow, wanted in (("SciPy zoom", zoomed, 5.0), ("NumPy repeat", repeated, 1.0)):
            a, b = alternate(ours, partial(theirs, grow))
            found.append(Goal(f"mask, {mm:g} mm, {name}", a / n, b / n, wanted))
        x = rng.normal(size=brain.shape).astype(np.float32) * brain
        a, b = alternate(partial(high_pass, torch.from_numpy(x), (mm,) * 3), partial(plain_high_pass, x, mm), 3)
        found.append(Goal(f"high frequencies, {mm:g} mm, NumPy fftn", a, b, 5.0))
    return found


if __name__ == "__main__":
    main(goals, __doc__)
