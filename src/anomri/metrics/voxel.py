"""How a mask, or a map, agrees with the truth voxel by voxel, inside the brain only.

Both areas and the best Dice need a map's ranks alone, and only at the values that it takes in the lesion: between two of those a
falling threshold adds false positives and no hit. So a map is looked at once, as a `Ranking`.

Undefined is NaN, never a made-up number: sensitivity without a lesion, precision without a mask, an area with one class only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomri.errors import BadCall
from anomri.scan import Mask

Counts = NDArray[np.int64]


def dice(mask: ArrayLike, lesion: ArrayLike) -> float:
    """Dice coefficient `2 |A and B| / (|A| + |B|)` of two bool arrays; 1 where both are empty.

    Raises `BadCall` where their shapes differ.
    """
    return overlap(mask, lesion)["dice"]


def overlap(mask: ArrayLike, lesion: ArrayLike, brain: ArrayLike | None = None) -> dict[str, float]:
    """Dice, sensitivity, precision and Jaccard of a mask inside the brain; all in [0, 1], higher is better.

    Parameters
    ----------
    mask, lesion : bool, of one shape
    brain : bool, where to count; everywhere if None

    With TP, FP and FN counted in voxels: dice `2 TP / (2 TP + FP + FN)`, sensitivity `TP / (TP + FN)`, precision
    `TP / (TP + FP)`, jaccard `TP / (TP + FP + FN)`. Both empty: dice and jaccard are 1; one empty: 0. Sensitivity is NaN without
    a lesion, precision NaN without a mask. Raises `BadCall` where the shapes differ.
    """
    a, b = inside_brain(mask, lesion, brain)
    return shares(*(int(np.count_nonzero(m)) for m in (a & b, a, b)))


def shares(hits: int, marked: int, true: int) -> dict[str, float]:
    """`overlap` from counts of voxels: lesion that is marked, marked, lesion."""
    union = marked + true - hits
    return {
        "dice": 2 * hits / (marked + true) if union else 1.0,
        "sensitivity": hits / true if true else float("nan"),
        "precision": hits / marked if marked else float("nan"),
        "jaccard": hits / union if union else 1.0,
    }


def auroc(map: ArrayLike, lesion: ArrayLike, brain: ArrayLike | None = None) -> float:
    """Area under the ROC curve: the chance that a lesion voxel has a higher value than a healthy one, ties counting half.

    Exact; 0.5 is chance. NaN where either class is missing. Parameters and errors: see `ranking`. Background counted as healthy
    lifts it towards 1, so a brain matters: the published IterMask3D code counts the whole box.
    """
    ranks = ranking(map, lesion, brain)
    if not ranks.lesion or not ranks.healthy:
        return float("nan")
    wrong = int((ranks.new * (ranks.false + ranks.above)).sum())
    return 1 - wrong / (2 * ranks.lesion * ranks.healthy)


def auprc(map: ArrayLike, lesion: ArrayLike, brain: ArrayLike | None = None) -> float:
    """Area under the precision-recall curve as average precision, `sum over r of (R(r) - R(r - 1)) P(r)`.

    Exact; tied values are one rank r. Chance is the lesion's share of the brain. NaN where either class is missing. Parameters
    and errors: see `ranking`. Source: Behrendt's thesis, section 3.2, and cDDPM, section 4.5.3.
    """
    ranks = ranking(map, lesion, brain)
    if not ranks.lesion or not ranks.healthy:
        return float("nan")
    return float((ranks.new * (ranks.hits / (ranks.hits + ranks.false))).sum()) / ranks.lesion


@dataclass(frozen=True, eq=False)
class Ranking:
    """Voxel counts at each value that a map takes in the lesion, highest first.

    `value (n,)`; `hits (n,)`: lesion voxels with `map >= value`; `false (n,)`: healthy voxels with `map >= value`; `above (n,)`:
    healthy voxels with `map > value`; `lesion`, `healthy`: all voxels of each class.
    """

    value: NDArray[np.floating[Any]]
    hits: Counts
    false: Counts
    above: Counts
    lesion: int
    healthy: int

    @property
    def new(self) -> Counts:
        """`(n,)`: lesion voxels at just this value."""
        return np.diff(self.hits, prepend=0)


def ranking(map: ArrayLike, lesion: ArrayLike, brain: ArrayLike | None = None) -> Ranking:
    """A map's `Ranking` inside the brain.

    Parameters
    ----------
    map : float, any shape; higher is more abnormal
    lesion : bool, of the same shape
    brain : bool, where to count; everywhere if None

    Raises `BadCall` where the shapes differ, or the map has NaN or infinite values inside the brain.
    """
    inside, healthy = (np.sort(v) for v in values(map, lesion, brain))
    starts = np.ones(len(inside), dtype=bool)
    starts[1:] = inside[1:] != inside[:-1]
    first = np.flatnonzero(starts)
    value = inside[first]
    from_top = slice(None, None, -1)
    return Ranking(
        value=value[from_top],
        hits=(len(inside) - first)[from_top],
        false=(len(healthy) - np.searchsorted(healthy, value, side="left"))[from_top],
        above=(len(healthy) - np.searchsorted(healthy, value, side="right"))[from_top],
        lesion=len(inside),
        healthy=len(healthy),
    )


def values(
    map: ArrayLike, lesion: ArrayLike, brain: ArrayLike | None = None
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """A map's values in the lesion and in the healthy rest of the brain, each `(n,)`. Parameters and errors: see `ranking`."""
    found = np.asarray(map)
    if found.dtype not in (np.float32, np.float64):
        found = found.astype(np.float64)
    truth = np.asarray(lesion, dtype=bool)
    _alike("map", found, truth)
    if brain is not None:
        inside = np.asarray(brain, dtype=bool)
        _alike("brain", inside, truth)
        found, truth = found[inside], truth[inside]
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).sum())
        raise BadCall(f"map has {bad} of {found.size} voxels in the brain NaN or infinite; set them before measuring")
    return found[truth], found[~truth]


def inside_brain(mask: ArrayLike, lesion: ArrayLike, brain: ArrayLike | None = None) -> tuple[Mask, Mask]:
    """A mask and the truth as bool arrays, both False outside the brain. Raises `BadCall` where the shapes differ."""
    a, b = np.asarray(mask, dtype=bool), np.asarray(lesion, dtype=bool)
    _alike("mask", a, b)
    if brain is None:
        return a, b
    inside = np.asarray(brain, dtype=bool)
    _alike("brain", inside, b)
    return a & inside, b & inside


def box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds a mask, one slice per axis; empty slices where the mask is empty."""
    edges = []
    for axis in range(mask.ndim):
        at = np.flatnonzero(mask.any(axis=tuple(n for n in range(mask.ndim) if n != axis)))
        edges.append(slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0))
    return tuple(edges)


def _alike(name: str, a: NDArray[Any], lesion: NDArray[Any]) -> None:
    if a.shape != lesion.shape:
        raise BadCall(f"{name} has shape {a.shape}, lesion {lesion.shape}; resample one to the other first")
