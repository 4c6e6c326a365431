"""Overlap of a mask with the truth, voxel by voxel."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def dice(mask: ArrayLike, lesion: ArrayLike) -> float:
    """Dice coefficient `2 |A and B| / (|A| + |B|)` of two bool arrays of one shape; 1 where both are empty."""
    a, b = np.asarray(mask, dtype=bool), np.asarray(lesion, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"mask has shape {a.shape}, lesion {b.shape}")
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def best_dice(map: ArrayLike, lesion: ArrayLike) -> tuple[float, float]:
    """[DICE]: the best Dice that any threshold on a map gives, and that threshold (`map >= threshold`).

    An oracle: the threshold is found with the labels of the very scan, so it is an upper bound and never a result.
    """
    values, truth = np.asarray(map, dtype=np.float64).ravel(), np.asarray(lesion, dtype=bool).ravel()
    if values.shape != truth.shape:
        raise ValueError(f"map has {values.size} voxels, lesion {truth.size}")
    if not truth.any():
        return (1.0, float("inf"))
    order = np.argsort(-values, kind="stable")
    hits = np.cumsum(truth[order])
    scores = 2.0 * hits / (np.arange(1, len(hits) + 1) + int(truth.sum()))
    ordered = values[order]
    # Only where the next value is smaller can a threshold cut.
    cuts = np.append(ordered[1:] < ordered[:-1], True)
    at = int(np.argmax(np.where(cuts, scores, -1.0)))
    return float(scores[at]), float(ordered[at])
