"""Whole scans: how well one score per scan tells anomalous scans from healthy ones.

A higher score is more abnormal, and anomalous is the positive class throughout, so TPR is the share of anomalous scans called
anomalous (sensitivity), FPR the share of healthy scans called anomalous, FNR = 1 - TPR. A threshold calls `score >= threshold`;
tied scores are called together. Every rate is a share in [0, 1], and every metric is nan where a class has no scan.

The papers print FPR80, FPR90, FNR80 and FNR90, and mean three things by them. Each is here under its own name:

- *v2* (IterMask3D, second version, section 4.2): anomalous is positive; FPR and FNR where the TPR is fixed at 80 %. Taken at
  its word FNR80 is 1 - TPR and cannot exceed 20 %, yet Table 1 prints 43.5.
- *published code* (of IterMask3D): FPR80 as in v2; FNR80 is 1 - TPR at the first point of a thinned ROC curve whose TPR is at
  least **20 %**: how many anomalous scans are missed where almost no false alarm is allowed. With 23 anomalous scans, 13 of
  them above every healthy one, that is 10/23 = 43.5 %. These are the numbers that the tables print.
- *v1* (first version, section 4.2): **normal** is positive; FPR80 is the share of anomalous scans called normal where 80 % of
  the normal ones are, and FNR80 the share of normal scans not called normal there, again at most 20 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomri.errors import BadCall

Curve = NDArray[np.float64]
CaseMetric = Callable[[ArrayLike, ArrayLike], float]
SLACK = 1e-12
"""A rate may miss its level by this much, so that 1 - 0.8 and 0.2 are one level."""


def auroc(scores: ArrayLike, anomalous: ArrayLike) -> float:
    """Area under the ROC curve: how often an anomalous scan scores higher than a healthy one; a tie counts half.

    Parameters
    ----------
    scores, anomalous : `(n,)` float and bool, one of each per scan

    Raises `BadCall` where their shapes differ or a score is NaN. Source: Hanley and McNeil 1982 (the rank statistic).
    """
    tp, fp, _ = _counts(scores, anomalous)
    return float(np.sum(np.diff(fp) * (tp[1:] + tp[:-1]) / 2) / (tp[-1] * fp[-1])) if tp[-1] and fp[-1] else np.nan


def auprc(scores: ArrayLike, anomalous: ArrayLike) -> float:
    """Average precision `sum (R_i - R_(i-1)) P_i` over thresholds, from the highest down; nothing is interpolated.

    A score without skill gets the share of anomalous scans, so compare it only between cohorts with the same share.
    Arguments and errors as in `auroc`. Source: Behrendt et al. 2024 (cDDPM), section 4.5.3.
    """
    tp, fp, _ = _counts(scores, anomalous)
    if not tp[-1] or not fp[-1]:
        return np.nan
    return float(np.sum(np.diff(tp) * tp[1:] / (tp[1:] + fp[1:])) / tp[-1])


def roc(scores: ArrayLike, anomalous: ArrayLike) -> tuple[Curve, Curve, Curve]:
    """The ROC curve: `(fpr, tpr, thresholds)`, one point per distinct score, from (0, 0) at an infinite threshold to (1, 1).

    A rate of a class without scans is nan. Arguments and errors as in `auroc`.
    """
    tp, fp, thresholds = _counts(scores, anomalous)
    return _share(fp, fp[-1]), _share(tp, tp[-1]), thresholds


def pr(scores: ArrayLike, anomalous: ArrayLike) -> tuple[Curve, Curve, Curve]:
    """The precision-recall curve: `(recall, precision, thresholds)`, from recall 0 and precision 1, as recall rises.

    Recall is nan without an anomalous scan. Arguments and errors as in `auroc`.
    """
    tp, fp, thresholds = _counts(scores, anomalous)
    precision = np.ones_like(tp)
    precision[1:] = tp[1:] / (tp[1:] + fp[1:])
    return _share(tp, tp[-1]), precision, thresholds


def fpr_at_tpr(scores: ArrayLike, anomalous: ArrayLike, tpr: float) -> float:
    """The lowest FPR of any threshold whose TPR is at least `tpr`, in [0, 1]. Arguments and errors as in `auroc`."""
    x, y = _rates(scores, anomalous, tpr)
    return float(x[_first(y >= tpr - SLACK)])


def fnr_at_fpr(scores: ArrayLike, anomalous: ArrayLike, fpr: float) -> float:
    """The lowest FNR of any threshold whose FPR is at most `fpr`, in [0, 1]. Arguments and errors as in `auroc`."""
    x, y = _rates(scores, anomalous, fpr)
    return float(1 - y[::-1][_first(x[::-1] <= fpr + SLACK)])


def fnr_at_tpr_v2(scores: ArrayLike, anomalous: ArrayLike, tpr: float) -> float:
    """FNR80 (`tpr=0.8`) of IterMask3D v2 at its word: 1 - TPR where the TPR first reaches `tpr`; at most 1 - `tpr`.

    It measures only how finely the scores divide the anomalous scans. Arguments and errors as in `auroc`.
    """
    _, y = _rates(scores, anomalous, tpr)
    return float(1 - y[_first(y >= tpr - SLACK)])


def fpr_published_code(scores: ArrayLike, anomalous: ArrayLike, tpr: float) -> float:
    """FPR80 (`tpr=0.8`) as IterMask3D's published code takes it: at the first point of the thinned ROC with that TPR.

    The same as `fpr_at_tpr`, except where runs of ties let the thinning drop that point. Arguments and errors as in `auroc`.
    """
    x, y = _rates(scores, anomalous, tpr, thinned=True)
    return float(x[_first(y >= tpr - SLACK)])


def fnr_published_code(scores: ArrayLike, anomalous: ArrayLike, tpr: float) -> float:
    """FNR80 (`tpr=0.8`) as IterMask3D's published code takes it: 1 - TPR at the first point of the thinned ROC whose TPR is
    at least **1 - `tpr`**.

    Thinning drops the points inside a straight run, so it is 1 - TPR at the end of the run, not right at 20 %: a perfect
    detector gets 0. Arguments and errors as in `auroc`.
    """
    _, y = _rates(scores, anomalous, tpr, thinned=True)
    return float(1 - y[_first(y >= 1 - tpr - SLACK)])


def fpr_v1(scores: ArrayLike, anomalous: ArrayLike, tpr: float) -> float:
    """FPR80 (`tpr=0.8`) of IterMask3D v1, where normal is the positive class: the share of anomalous scans called normal
    where at least `tpr` of the normal ones are.

    It is `fnr_at_fpr(scores, anomalous, 1 - tpr)`. Arguments and errors as in `auroc`.
    """
    return fpr_at_tpr(-np.asarray(scores, dtype=np.float64), ~np.asarray(anomalous, dtype=bool), tpr)


def fnr_v1(scores: ArrayLike, anomalous: ArrayLike, tpr: float) -> float:
    """FNR80 (`tpr=0.8`) of IterMask3D v1 at its word, where normal is the positive class: the share of normal scans called
    anomalous where at least `tpr` of them are called normal; at most 1 - `tpr`. Arguments and errors as in `auroc`.
    """
    return fnr_at_tpr_v2(-np.asarray(scores, dtype=np.float64), ~np.asarray(anomalous, dtype=bool), tpr)


PRINTED: dict[str, CaseMetric] = {
    f"{name}{percent} ({source})": partial(metric, tpr=percent / 100)
    for name, source, metric in (
        ("FPR", "v2", fpr_at_tpr),
        ("FNR", "v2", fnr_at_tpr_v2),
        ("FPR", "published code", fpr_published_code),
        ("FNR", "published code", fnr_published_code),
        ("FPR", "v1, normal is positive", fpr_v1),
        ("FNR", "v1, normal is positive", fnr_v1),
    )
    for percent in (80, 90)
}
"""What IterMask3D's papers call FPR80, FPR90, FNR80 and FNR90, each by whose definition it is."""

CASE_METRICS: dict[str, CaseMetric] = {
    "AUROC": auroc,
    "AUPRC": auprc,
    "FPR@TPR80": partial(fpr_at_tpr, tpr=0.8),
    "FPR@TPR90": partial(fpr_at_tpr, tpr=0.9),
    "FNR@FPR20": partial(fnr_at_fpr, fpr=0.2),
    "FNR@FPR10": partial(fnr_at_fpr, fpr=0.1),
    **PRINTED,
}
"""Every metric of one score per scan, by the name that tables print."""


def by_slice(map: ArrayLike, lesion: ArrayLike, axis: int = 2) -> tuple[Curve, NDArray[np.bool_]]:
    """Each slice's score, its mean map, and whether its lesion has any voxel there.

    Parameters
    ----------
    map, lesion : `(I, J, K)` float (the l1 residual, to follow the paper) and bool
    axis : the slices' axis in RAS: 0 sagittal, 1 coronal, 2 axial

    Returns `(scores, anomalous)` for `slice_auprc`. Raises `BadCall` where the shapes differ. Source: Bengs et al. 2021
    (spatial erasing), whose slices are abnormal where any voxel is annotated.
    """
    values, truth = np.asarray(map, dtype=np.float64), np.asarray(lesion, dtype=bool)
    if values.shape != truth.shape:
        raise BadCall(f"map has shape {values.shape}, lesion {truth.shape}; resample one to the other first")
    others = tuple(a for a in range(values.ndim) if a != axis % values.ndim)
    return np.asarray(values.mean(axis=others), dtype=np.float64), np.asarray(truth.any(axis=others))


def slice_auprc(slice_scores: Iterable[ArrayLike], slice_anomalous: Iterable[ArrayLike]) -> float:
    """Slice-wise AUPRC: the average precision over the slices of all scans together.

    Parameters
    ----------
    slice_scores, slice_anomalous : per scan, `(slices,)` float and bool; scans may differ in their number of slices

    Raises `BadCall` where a scan has more of the one than of the other. Source: Bengs et al. 2021 (spatial erasing), Fig. 6.
    """
    scores, truth = [np.asarray(s) for s in slice_scores], [np.asarray(a) for a in slice_anomalous]
    if [s.shape for s in scores] != [a.shape for a in truth]:
        raise BadCall(
            f"slices per scan: scores {[s.size for s in scores]}, anomalous {[a.size for a in truth]}; give one of each a slice"
        )
    return auprc(np.concatenate(scores), np.concatenate(truth)) if scores else np.nan


def _counts(scores: ArrayLike, anomalous: ArrayLike) -> tuple[Curve, Curve, Curve]:
    """True and false positives at each distinct score from the highest down, after (0, 0); and those thresholds."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(anomalous, dtype=bool)
    if values.shape != truth.shape or values.ndim != 1:
        raise BadCall(f"scores have shape {values.shape}, anomalous {truth.shape}; give one of each per scan")
    if np.isnan(values).any():
        raise BadCall(
            f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN; leave those scans out, and say so"
        )
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    last = np.append(values[1:] != values[:-1], True) if len(values) else np.zeros(0, dtype=bool)
    tp, fp = np.cumsum(truth)[last], np.cumsum(~truth)[last]
    return (
        np.concatenate([[0.0], tp]),
        np.concatenate([[0.0], fp]),
        np.concatenate([[np.inf], values[last]]),
    )


def _rates(scores: ArrayLike, anomalous: ArrayLike, level: float, thinned: bool = False) -> tuple[Curve, Curve]:
    """FPR and TPR along the ROC curve, or one nan of each where a class has no scan.

    `thinned` drops the points inside straight runs as scikit-learn's `roc_curve` does: where the counts rise by the same
    steps before and after; its first and last threshold stay.
    """
    if not 0 <= level <= 1:
        raise BadCall(f"a rate to hold is {level}, needs to be between 0 and 1")
    tp, fp, _ = _counts(scores, anomalous)
    if not tp[-1] or not fp[-1]:
        return np.full(1, np.nan), np.full(1, np.nan)
    if thinned and len(tp) > 3:
        turns = (np.diff(fp[1:], 2) != 0) | (np.diff(tp[1:], 2) != 0)
        keep = np.concatenate([[True, True], turns, [True]])
        tp, fp = tp[keep], fp[keep]
    return fp / fp[-1], tp / tp[-1]


def _share(counts: Curve, of: float) -> Curve:
    return counts / of if of else np.full_like(counts, np.nan)


def _first(reached: NDArray[np.bool_]) -> int:
    return int(np.argmax(reached))
