"""Lesion by lesion: which were found, how well each was outlined, and how that depends on its size.

A lesion is a connected component of the truth, a component one of the mask. They *touch* where they share a voxel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from anomri.errors import BadCall
from anomri.metrics.voxel import Counts, box, inside_brain

PIXELS = (200.0, 800.0)
"""IterMask2's sizes of a tumour in a slice, in pixels ("Human-AI collaboration"): small below, medium between, large above."""
ML = (1.0, 10.0)
"""Sizes of a lesion in 3D, in ml. Ours, about balls of 12 and 27 mm across: no paper here names any."""


def components(mask: ArrayLike) -> tuple[NDArray[np.int32], int]:
    """Connected components of a mask: labels from 1 on (0 outside it), and how many there are.

    Voxels that share a corner are connected: 26 neighbours in 3D, 8 in a slice.
    """
    whole = np.asarray(mask, dtype=bool)
    labels = np.zeros(whole.shape, dtype=np.int32)
    inside = box(whole)
    n = ndimage.label(whole[inside], np.ones((3,) * whole.ndim), output=labels[inside])
    return labels, int(n)


def detection(
    mask: ArrayLike,
    lesion: ArrayLike,
    spacing: Sequence[float],
    brain: ArrayLike | None = None,
    *,
    overlap: float = 0.0,
) -> dict[str, float]:
    """Lesions found and missed, and components of the mask that are no lesion.

    Parameters
    ----------
    mask, lesion : `(I, J, K)` bool; a slice is `(I, J, 1)`
    spacing : mm
    brain : bool, where to look; everywhere if None
    overlap : a lesion is found where more than this share of its own voxels is marked, all components taken together, and a
        component is true where more than this share of its own voxels is lesion; 0, any voxel, in [0, 1)

    Returns the counts `lesions` (`found` + `missed`) and `components` (`false` among them), `false_ml`, and `sensitivity` =
    found / lesions (NaN without a lesion), `precision` = true / components (NaN without a component) and `f1`, their harmonic
    mean: 1 where there is neither a lesion nor a component, else 0 where nothing was found. Raises `BadCall` where the shapes
    differ or `overlap` is out of its range. The form of F1 is that of Commowick et al. 2018 (MSSEG);
    the rule for a hit is simpler than theirs.
    """
    if not 0 <= overlap < 1:
        raise BadCall(f"overlap is {overlap}, needs to be a share in [0, 1)")
    pairs = _Pairs.of(mask, lesion, brain)
    found = pairs.per_lesion(pairs.voxels) > overlap * pairs.lesions
    false = pairs.per_component(pairs.voxels) <= overlap * pairs.components
    sensitivity = float(found.mean()) if len(found) else float("nan")
    precision = float((~false).mean()) if len(false) else float("nan")
    if len(found) and len(false):
        total = sensitivity + precision
        f1 = 2 * sensitivity * precision / total if total else 0.0
    else:
        f1 = 1.0 if len(found) == len(false) else 0.0
    return {
        "lesions": len(found),
        "found": int(found.sum()),
        "missed": int((~found).sum()),
        "components": len(false),
        "false": int(false.sum()),
        "false_ml": int(pairs.components[false].sum()) * _voxel_ml(spacing),
        "sensitivity": sensitivity,
        "precision": precision,
        "f1": f1,
    }


def by_size(
    mask: ArrayLike,
    lesion: ArrayLike,
    spacing: Sequence[float],
    brain: ArrayLike | None = None,
    *,
    edges_ml: tuple[float, float] = ML,
    edges_voxels: tuple[float, float] = PIXELS,
) -> list[dict[str, float | str | bool]]:
    """One row per lesion: how large it is, whether it was found, and its Dice.

    Each row holds `lesion` (from 1), `voxels` and `ml`, their classes `size_voxels` and `size_ml` (see `size_class`), `found` (any
    voxel of it is marked) and `dice`: of the lesion against all components that touch it, whole; 0 where none does. A component
    that spans two lesions counts in both rows. Parameters and errors: see `detection`; for the classes by pixel, give a slice,
    `(I, J, 1)`.
    """
    pairs = _Pairs.of(mask, lesion, brain)
    hits = pairs.per_lesion(pairs.voxels)
    marked = pairs.per_lesion(pairs.components[pairs.component])
    return [
        {
            "lesion": n + 1,
            **_size(int(voxels), spacing, edges_ml, edges_voxels),
            "found": bool(hits[n] > 0),
            "dice": float(2 * hits[n] / (voxels + marked[n])),
        }
        for n, voxels in enumerate(pairs.lesions)
    ]


def scan_size(
    lesion: ArrayLike,
    spacing: Sequence[float],
    brain: ArrayLike | None = None,
    *,
    edges_ml: tuple[float, float] = ML,
    edges_voxels: tuple[float, float] = PIXELS,
) -> dict[str, float | str | bool]:
    """How large all lesions of a scan are together, as in the rows of `by_size`: to look at a scan's Dice by its size.

    IterMask2 classes its slices so, and Bengs et al. 2021 draw DICE_S over it. A scan without a lesion has class "none".
    """
    _, truth = inside_brain(lesion, lesion, brain)
    return _size(int(np.count_nonzero(truth)), spacing, edges_ml, edges_voxels)


def size_class(size: float, edges: tuple[float, float] = PIXELS) -> str:
    """The class of a size: "small" below the first edge, "large" above the second, "medium" from edge to edge; 0 is "none"."""
    if size == 0:
        return "none"
    return "small" if size < edges[0] else "large" if size > edges[1] else "medium"


def pooled_dice(masks: Iterable[ArrayLike], lesions: Iterable[ArrayLike]) -> float:
    """DICE_D: Dice over all voxels of a data set as one, masks and truths in the same order; 1 where all are empty.

    Both are read one by one, so they may be made on the way. The mean of each scan's Dice is DICE_S. Raises `BadCall` where two
    shapes differ, `ValueError` where one runs out first. Source: Bengs et al. 2021, "Training and evaluation".
    """
    hits = total = 0
    for mask, lesion in zip(masks, lesions, strict=True):
        a, b = inside_brain(mask, lesion)
        hits += int(np.count_nonzero(a & b))
        total += int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * hits / total if total else 1.0


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Which lesion touches which component.

    `lesions`, `components`: voxels of each. `lesion (n,)`, `component (n,)`: the pairs that touch, numbered from 0, and `voxels
    (n,)`: how many each shares.
    """

    lesions: Counts
    components: Counts
    lesion: Counts
    component: Counts
    voxels: Counts

    @classmethod
    def of(cls, mask: ArrayLike, lesion: ArrayLike, brain: ArrayLike | None) -> _Pairs:
        a, b = inside_brain(mask, lesion, brain)
        (marked, n_marked), (truth, n_truth) = components(a), components(b)
        both = a & b
        code, voxels = np.unique((truth[both].astype(np.int64) - 1) * n_marked + marked[both] - 1, return_counts=True)
        return cls(
            lesions=np.bincount(truth[b], minlength=n_truth + 1)[1:],
            components=np.bincount(marked[a], minlength=n_marked + 1)[1:],
            lesion=code // max(n_marked, 1),
            component=code % max(n_marked, 1),
            voxels=voxels,
        )

    def per_lesion(self, amount: Counts) -> Counts:
        """The sum of an amount `(n,)` over the pairs of each lesion."""
        return np.bincount(self.lesion, weights=amount, minlength=len(self.lesions)).astype(np.int64)

    def per_component(self, amount: Counts) -> Counts:
        """The sum of an amount `(n,)` over the pairs of each component."""
        return np.bincount(self.component, weights=amount, minlength=len(self.components)).astype(np.int64)


def _size(
    voxels: int, spacing: Sequence[float], edges_ml: tuple[float, float], edges_voxels: tuple[float, float]
) -> dict[str, float | str | bool]:
    ml = voxels * _voxel_ml(spacing)
    return {
        "voxels": voxels,
        "ml": ml,
        "size_voxels": size_class(voxels, edges_voxels),
        "size_ml": size_class(ml, edges_ml),
    }


def _voxel_ml(spacing: Sequence[float]) -> float:
    return math.prod(spacing) / 1000
