"""Cleaning of maps and masks after scoring, which most papers of this field do and few ablate.

A map is smoothed by a median over a cube of voxels, and what lies in the rim of the brain is set to 0, since reconstructions are
poor at the sharp edge of a stripped brain. Of a mask, components of few voxels are removed. Source: Behrendt's thesis, section
3.1.2 (median of 5 x 5 x 5, three rounds of erosion, components under seven voxels), there on a grid of 2 mm: sizes are in voxels.

It costs lesions: whatever lies within the rim, or is thinner than half of the cube, is lost without a trace.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from anomri.errors import BadCall, BadInput, unknown
from anomri.scan import Array, Mask

CROSS = ndimage.generate_binary_structure(2, 1)[..., None]
"""A voxel and its four neighbours in its axial slice."""
CHUNK = 8192
"""Cubes sorted at once."""


@dataclass(frozen=True)
class Cleaning:
    """What is done to a map (`median`, then `erode`) and to the mask cut from it (`least`); 0 leaves a step out.

    Parameters
    ----------
    median : edge of the median's cube in voxels, odd
    erode : rounds by which the brain is eroded, each a cross of four neighbours within every axial slice (last axis), as in the
        published code; the top and bottom of the brain keep their slices, unless these are thin
    least : components (26 neighbours) of fewer voxels than this are removed. 7 is the papers' "fewer than seven"; the published
        code removes those of 7 too, and fills holes before it counts

    Raises `BadCall` for a negative number or an even median.
    """

    median: int = 0
    erode: int = 0
    least: int = 0

    def __post_init__(self) -> None:
        if min(self.median, self.erode, self.least) < 0 or (self.median and self.median % 2 == 0):
            raise BadCall(
                f"cleaning needs numbers of 0 or more and an odd median, got median {self.median}, erode {self.erode}, "
                f"least {self.least}"
            )

    def map(self, error: Array, brain: Mask) -> Array:
        """A cleaned map: the median of each voxel's cube, then 0 outside the eroded brain.

        Parameters
        ----------
        error : `(I, J, K)`; what it holds outside the brain (0 as a rule) is part of cubes at its rim
        brain : `(I, J, K)` bool

        Returns a new array of the type of `error`. Edges of the grid are mirrored for the median, and count as outside the
        brain for the erosion. Raises `BadCall` where the shapes differ, `BadInput` where the median meets NaN or infinity (it
        could hide them), and as `inside` does.
        """
        if error.shape != brain.shape or error.ndim != 3:
            raise BadCall(f"a map of {error.shape} and a brain of {brain.shape} voxels; needs one shape (I, J, K)")
        inside = self.inside(brain)
        if self.median > 1:
            bad = int((~np.isfinite(error[around(brain, self.median // 2)])).sum())
            if bad:
                raise BadInput(
                    f"a map has {bad} voxels NaN or infinite, no median is taken; check the scan's intensities"
                )
            return _median(error, inside, self.median)
        return np.where(inside, error, error.dtype.type(0))

    def inside(self, brain: Mask) -> Mask:
        """The eroded brain, `(I, J, K)` bool.

        Slices, or parts of them, that are thinner than `2 * erode + 1` voxels are lost. Raises `BadInput` where nothing is
        left of a brain: then there would be no map.
        """
        if not self.erode or not brain.any():
            return brain.copy()
        where = around(brain)
        left = np.zeros_like(brain)
        left[where] = ndimage.binary_erosion(brain[where], CROSS, iterations=self.erode)
        if not left.any():
            raise BadInput(
                f"{self.erode} rounds of erosion leave nothing of a brain of {int(brain.sum())} voxels; "
                "use fewer rounds or a finer grid, or cleaning without erosion"
            )
        return left

    def mask(self, mask: Mask) -> Mask:
        """A new mask of the same shape without components of fewer voxels than `least`."""
        left = mask.copy()
        if self.least > 1 and mask.any():
            where = around(mask)
            labels, _ = ndimage.label(mask[where], np.ones((3,) * mask.ndim))
            small = np.bincount(labels.ravel()) < self.least
            left[where] &= ~small[labels]
        return left


CLEANINGS = {
    "none": Cleaning(),
    "median": Cleaning(median=5),
    "erosion": Cleaning(erode=3),
    "components": Cleaning(least=7),
    "behrendt": Cleaning(median=5, erode=3, least=7),
}
"""Cleanings by name: each step of Behrendt's thesis, section 3.1.2, alone and together."""


def cleaning(name: str) -> Cleaning:
    """One of `CLEANINGS`, or several, joined: "median+erosion". Raises `BadCall` for another name."""
    made = Cleaning()
    for part in name.split("+"):
        if part not in CLEANINGS:
            raise unknown("cleaning", part, CLEANINGS)
        steps = {step: size for step, size in asdict(CLEANINGS[part]).items() if size}
        made = replace(made, **steps)
    return made


def around(mask: Mask, margin: int = 0) -> tuple[slice, ...]:
    """The smallest box that holds a mask, `margin` voxels more on each side as far as the grid reaches; empty where it is."""
    found = []
    for axis, n in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        found.append(slice(max(0, hit[0] - margin), min(n, hit[-1] + 1 + margin)) if len(hit) else slice(0, 0))
    return tuple(found)


def _median(error: Array, inside: Mask, edge: int) -> Array:
    """The median over cubes, of the voxels inside only: sorting parts of their cubes is quicker than SciPy's filter of all."""
    out = np.zeros_like(error)
    if not inside.any():
        return out
    reach = edge // 2
    where = around(inside, reach)
    cubes = sliding_window_view(np.pad(error[where], reach, mode="symmetric"), (edge,) * 3)
    places = np.argwhere(inside[where])
    values = np.empty(len(places), error.dtype)
    for start in range(0, len(places), CHUNK):
        rows = cubes[tuple(places[start : start + CHUNK].T)].reshape(-1, edge**3)
        rows.partition(edge**3 // 2, axis=1)
        values[start : start + CHUNK] = rows[:, edge**3 // 2]
    out[inside] = values
    return out
