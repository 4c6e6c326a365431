"""How far a mask's surface lies from the truth's, in mm.

The surface of a mask is made of its voxels with a face neighbour outside it; beyond the array's edge, or the brain, is outside. Distances are measured once, between voxel centres, by `surface_distances`; every metric is a function of them.

Two empty masks have no surface: distances are NaN, surface Dice is 1 as Dice is. If one is empty, the other is infinitely far:
distances are infinite, surface Dice is 0. Leave such scans out of a mean, and say how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from anomri.errors import BadCall
from anomri.metrics.voxel import box, inside_brain
from anomri.scan import Mask

Lengths = NDArray[np.float64]


class Distances(NamedTuple):
    """From each surface voxel to the other surface, mm.

    `from_mask (n,)`: of the mask, to the lesion's; `from_lesion (m,)`: of the lesion, to the mask's.
    """

    from_mask: Lengths
    from_lesion: Lengths


def surface_distances(
    mask: ArrayLike, lesion: ArrayLike, spacing: Sequence[float], brain: ArrayLike | None = None
) -> Distances:
    """Both directed distances between two surfaces.

    Parameters
    ----------
    mask, lesion : bool, of one shape
    spacing : mm, one per axis
    brain : bool, where to look; everywhere if None

    Where only one of the two is empty, every distance from the other is infinite. Raises `BadCall` where the shapes differ, or
    the spacing has another number of axes or is not above 0.
    """
    a, b = inside_brain(mask, lesion, brain)
    mm = _spacing(spacing, a.ndim)
    of_mask, of_lesion = _surface(a) * mm, _surface(b) * mm
    return Distances(_nearest(of_mask, of_lesion), _nearest(of_lesion, of_mask))


def assd(distances: Distances) -> float:
    """Average symmetric surface distance, mm: the mean over the voxels of both surfaces, pooled.

    MONAI's `SurfaceDistanceMetric(symmetric=True)` is the same. The mean of the two directed means, which other tools give, differs
    where one surface is larger; what the published IterMask3D code calls ASSD is `region_distance`.
    """
    pooled = np.concatenate(distances)
    return float(pooled.mean()) if len(pooled) else float("nan")


def hd95(distances: Distances) -> float:
    """Hausdorff distance at 95 %, mm: the larger of the two directed 95th percentiles, interpolated linearly.

    MONAI's `HausdorffDistanceMetric(percentile=95)` is the same; a percentile of both pooled is another number.
    """
    if not all(len(d) for d in distances):
        return float("inf") if any(len(d) for d in distances) else float("nan")
    return max(float(np.percentile(d, 95)) for d in distances)


def surface_dice(distances: Distances, tolerance_mm: float) -> float:
    """Normalised surface Dice: the share of the voxels of both surfaces, pooled, within a tolerance of the other; in [0, 1].

    MONAI's `SurfaceDiceMetric(use_subvoxels=False)` is the same. Raises `BadCall` for a negative tolerance. Source: Nikolov et
    al. 2018, "Deep learning to achieve clinically applicable segmentation of head and neck anatomy", who weigh by area.
    """
    if not tolerance_mm >= 0:
        raise BadCall(f"tolerance is {tolerance_mm} mm, needs to be 0 or more")
    pooled = np.concatenate(distances)
    # A distance that is the tolerance is within it: what rounding adds does not count.
    return float((pooled <= tolerance_mm * (1 + 1e-9)).mean()) if len(pooled) else 1.0


def region_distance(
    mask: ArrayLike, lesion: ArrayLike, spacing: Sequence[float], brain: ArrayLike | None = None
) -> float:
    """How far each region lies from the other, mm: the mean of two directed means over all voxels, 0 for those they share.

    Not a surface distance, and smaller: it falls with the interior. It is what the published IterMask3D code computes as "ASSD"
    (SimpleITK's `GetAverageHausdorffDistance`), here to compare with tables made so; that code leaves the spacing at its default of
    1 mm, and gives NaN where either mask is empty. Parameters, empty masks and errors as in `surface_distances` and `assd`.
    """
    a, b = inside_brain(mask, lesion, brain)
    mm = _spacing(spacing, a.ndim)
    if not (a.any() and b.any()):
        return float("inf") if a.any() or b.any() else float("nan")
    # The nearest voxel of a region, seen from outside it, lies on its surface.
    directed = [
        _nearest(np.argwhere(m & ~other) * mm, _surface(other) * mm).sum() / np.count_nonzero(m)
        for m, other in ((a, b), (b, a))
    ]
    return float(np.mean(directed))


def _surface(mask: Mask) -> NDArray[np.intp]:
    """`(n, axes)`: indices of the voxels of a mask that have a face neighbour outside it."""
    inside = box(mask)
    padded = np.pad(mask[inside], 1)
    core = (slice(1, -1),) * mask.ndim
    buried = padded[core].copy()
    for axis in range(mask.ndim):
        for side in (slice(None, -2), slice(2, None)):
            buried &= padded[(*core[:axis], side, *core[axis + 1 :])]
    start = np.array([edge.start for edge in inside])
    return start + np.argwhere(padded[core] & ~buried)


def _nearest(points: Lengths, others: Lengths) -> Lengths:
    """`(n,)`: from each of n points to the nearest of the others; infinite where there is none."""
    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    # Built for one query, a tree is quickest when it is not balanced.
    tree = cKDTree(others, leafsize=32, compact_nodes=False, balanced_tree=False)
    return np.asarray(tree.query(points)[0], dtype=np.float64)


def _spacing(spacing: Sequence[float], axes: int) -> Lengths:
    mm = np.asarray(spacing, dtype=np.float64)
    if mm.shape != (axes,) or not ((mm > 0) & (mm < np.inf)).all():
        raise BadCall(f"spacing is {tuple(spacing)}, needs {axes} lengths in mm above 0")
    return mm
