"""Overlap of a mask with the truth, voxel by voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomri.errors import BadCall


def dice(mask: ArrayLike, lesion: ArrayLike) -> float:
    """Dice coefficient `2 |A and B| / (|A| + |B|)` of two bool arrays; 1 where both are empty.

    Raises `BadCall` where their shapes differ.
    """
    a, b = np.asarray(mask, dtype=bool), np.asarray(lesion, dtype=bool)
    _alike("mask", a, b)
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def best_dice(map: ArrayLike, lesion: ArrayLike) -> tuple[float, float]:
    """[DICE]: the best Dice that any threshold on a map gives, and that threshold (`map >= threshold`).

    An oracle: the threshold is found with the labels of the very scan, so it is an upper bound and never a result.
    Without a lesion it is 1, at an infinite threshold. Raises `BadCall` where the shapes differ.
    """
    values, truth = np.asarray(map, dtype=np.float64), np.asarray(lesion, dtype=bool)
    _alike("map", values, truth)
    values, truth = values.ravel(), truth.ravel()
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


def _alike(name: str, a: NDArray[Any], lesion: NDArray[Any]) -> None:
    if a.shape != lesion.shape:
        raise BadCall(f"{name} has shape {a.shape}, lesion {lesion.shape}; resample one to the other first")
