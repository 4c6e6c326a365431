"""Thresholds found with labels, and the Dice that they give.

None of these is a result of a method that learns from healthy scans alone. A name that ends in `_oracle` found its threshold on the
very labels that it is measured against: an upper bound. `labelled_validation_threshold` found it on other scans, but with labels.
[DICE], the "best possible Dice" of many tables, is an oracle. Sources: Behrendt's thesis, section 3.2 (DICE and [DICE]); Bengs et
al. 2021, "Three-dimensional deep learning with spatial erasing" (DICE_D and DICE_S). They search in ten halvings of an interval,
which can miss the best; here every value of a scan's map, and every edge of a histogram's bins, is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import ArrayLike

from anomri.errors import BadCall
from anomri.metrics.histogram import THRESHOLDS, Curve, VoxelHistogram
from anomri.metrics.voxel import ranking, shares


def best_dice_scan_oracle(map: ArrayLike, lesion: ArrayLike, brain: ArrayLike | None = None) -> tuple[float, float]:
    """[DICE] of one scan: the best Dice that any threshold on its map gives, and that threshold (`map >= threshold`).

    Exact. Of equally good thresholds it is the highest. Without a lesion the Dice is 1, at an infinite threshold. Parameters and
    errors: `anomri.metrics.voxel.ranking`.
    """
    ranks = ranking(map, lesion, brain)
    if not ranks.lesion:
        return 1.0, float("inf")
    scores = 2 * ranks.hits / (ranks.hits + ranks.false + ranks.lesion)
    at = int(np.argmax(scores))
    return float(scores[at]), float(ranks.value[at])


def best_iteration_oracle(order: ArrayLike, lesion: ArrayLike, brain: ArrayLike | None = None) -> tuple[float, float]:
    """The best Dice of any mask on the way of an iterative method, and its iteration: what a clinician would have to pick.

    Parameters
    ----------
    order : `(I, J, K)`, the last iteration at which a voxel was hidden (`scan.Trace.order`); iteration t hides `order >= t`

    Source: IterMask2, section 3 ("Human-AI collaboration": tau is raised, and the best iteration of each image taken). Else as
    `best_dice_scan_oracle`.
    """
    return best_dice_scan_oracle(order, lesion, brain)


def best_dice_dataset_oracle(histograms: Sequence[VoxelHistogram]) -> tuple[float, float]:
    """[DICE] of a data set: the best mean Dice over scans (DICE_S) that one threshold for all gives, and that threshold.

    Each scan counts alike. One without a lesion has Dice 1 where nothing of it is marked, else 0. The threshold is an edge of the
    histograms' bins, where Dice is exact; of equally good ones it is the highest. The published code of IterMask3D prints this as
    its Dice, over 200 thresholds. Raises `BadCall` without a scan.
    """
    _some(histograms)
    return _best(reduce(add, (h.dice()[1] for h in histograms)) / len(histograms))


def best_pooled_dice_oracle(histograms: Sequence[VoxelHistogram]) -> tuple[float, float]:
    """The best Dice over all voxels of a data set as one (DICE_D) that any threshold gives, and that threshold.

    Large lesions count most. The threshold is as in `best_dice_dataset_oracle`. Raises `BadCall` without a scan.
    """
    _some(histograms)
    return _best(reduce(add, histograms).dice()[1])


def labelled_validation_threshold(histograms: Sequence[VoxelHistogram]) -> float:
    """The threshold for a test set that an unhealthy validation set with labels gives: the best of its pooled Dice.

    The Dice at it on the test set is Behrendt's DICE, without brackets; pooled, as in the published code of pDDPM. Not label-free:
    a threshold that `calibrate` sets is. Raises `BadCall` without a scan.
    """
    return best_pooled_dice_oracle(histograms)[1]


def dice_at(histogram: VoxelHistogram, threshold: float) -> float:
    """Dice of `map >= threshold`, from wherever that threshold came.

    Exact for the thresholds of this module; another is first lowered to the edge of its bin, by at most 1/256 of its size.
    Raises `BadCall` for NaN.
    """
    return overlap_at(histogram, threshold)["dice"]


def overlap_at(histogram: VoxelHistogram, threshold: float) -> dict[str, float]:
    """Dice, sensitivity, precision and Jaccard of `map >= threshold`, as in `voxel.overlap`; the threshold as in `dice_at`."""
    if np.isnan(threshold):
        raise BadCall("threshold is NaN; a method without a threshold has no Dice")
    at = int(np.searchsorted(THRESHOLDS, threshold, side="right")) - 1
    hits, false = int(histogram.lesion[at:].sum()), int(histogram.healthy[at:].sum())
    return shares(hits, hits + false, int(histogram.lesion.sum()))


def _best(scores: Curve) -> tuple[float, float]:
    """The highest score, and the highest threshold that gives it."""
    at = len(scores) - 1 - int(np.argmax(scores[::-1]))
    return float(scores[at]), float(THRESHOLDS[at])


def _some(histograms: Sequence[VoxelHistogram]) -> None:
    if not histograms:
        raise BadCall("no scan to find a threshold on; give the histograms of at least one")
