"""Metrics of one score per scan, against plain loops and scikit-learn; and the papers' own, on lists that tell them apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomri.errors import BadCall
from anomri.metrics.case import (
    CASE_METRICS,
    PRINTED,
    auprc,
    auroc,
    by_slice,
    fnr_at_fpr,
    fnr_at_tpr_v2,
    fnr_published_code,
    fnr_v1,
    fpr_at_tpr,
    fpr_published_code,
    fpr_v1,
    pr,
    roc,
    slice_auprc,
)

# Few values, so that ties are many; both classes are there.
SCORES = st.lists(
    st.tuples(st.sampled_from([-2.0, 0.0, 0.5, 1.0, 4.0, 7.0]), st.booleans()), min_size=2, max_size=24
).filter(lambda rows: len({truth for _, truth in rows}) == 2)
LEVELS = st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.5, 0.8, 0.9, 1.0])


def columns(rows):
    return np.array([s for s, _ in rows]), np.array([t for _, t in rows])


def slow_points(scores, anomalous):
    """(fpr, tpr) of every threshold, from above all scores down, by counting."""
    points = []
    for t in [math.inf, *sorted(set(scores), reverse=True)]:
        called = [s >= t for s in scores]
        tp = sum(c and a for c, a in zip(called, anomalous, strict=True))
        fp = sum(c and not a for c, a in zip(called, anomalous, strict=True))
        points.append((fp / sum(not a for a in anomalous), tp / sum(anomalous)))
    return points


@settings(deadline=None)
@given(st.data(), SCORES)
def test_auroc_is_how_often_anomalous_scores_higher(data, rows):
    scores, truth = columns(rows)
    wins = [(a > h) + 0.5 * (a == h) for a in scores[truth] for h in scores[~truth]]
    assert auroc(scores, truth) == pytest.approx(np.mean(wins))
    assert auroc(scores * 8 - 3, truth) == pytest.approx(auroc(scores, truth))
    assert auroc(-scores, truth) == pytest.approx(1 - auroc(scores, truth))
    assert auroc(scores, ~truth) == pytest.approx(1 - auroc(scores, truth))
    order = data.draw(st.permutations(range(len(scores))))
    for metric in CASE_METRICS.values():
        assert metric(scores[order], truth[order]) == metric(scores, truth)


@settings(deadline=None)
@given(SCORES)
def test_auprc_is_the_sum_over_thresholds(rows):
    scores, truth = columns(rows)
    total, recall_before = 0.0, 0.0
    for t in sorted(set(scores), reverse=True):
        hits = truth[scores >= t]
        recall = hits.sum() / truth.sum()
        total += (recall - recall_before) * hits.mean()
        recall_before = recall
    assert auprc(scores, truth) == pytest.approx(total)


@settings(deadline=None)
@given(SCORES, LEVELS)
def test_rates_are_the_best_over_every_threshold(rows, level):
    scores, truth = columns(rows)
    points = slow_points(scores, truth)
    assert fpr_at_tpr(scores, truth, level) == pytest.approx(min(f for f, t in points if t >= level - 1e-9))
    assert fnr_at_fpr(scores, truth, level) == pytest.approx(min(1 - t for f, t in points if f <= level + 1e-9))


@settings(deadline=None)
@given(SCORES)
def test_curves_are_scikit_learns(rows):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is an oracle here, not needed otherwise")
    scores, truth = columns(rows)
    assert auroc(scores, truth) == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert auprc(scores, truth) == pytest.approx(metrics.average_precision_score(truth, scores))
    for own, theirs in zip(roc(scores, truth), metrics.roc_curve(truth, scores, drop_intermediate=False), strict=True):
        np.testing.assert_allclose(own, theirs)
    precision, recall, thresholds = metrics.precision_recall_curve(truth, scores)
    for own, theirs in zip(pr(scores, truth), (recall, precision, np.append(thresholds, np.inf)), strict=True):
        np.testing.assert_allclose(own, theirs[::-1])


@settings(deadline=None)
@given(SCORES, st.sampled_from([0.8, 0.9]))
def test_the_published_codes_rates_are_read_off_scikit_learns_thinned_curve(rows, tpr):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is an oracle here, not needed otherwise")
    scores, truth = columns(rows)
    x, y, _ = metrics.roc_curve(truth, scores)
    first = {level: next(i for i, t in enumerate(y) if t >= level - 1e-9) for level in (tpr, 1 - tpr)}
    assert fpr_published_code(scores, truth, tpr) == pytest.approx(x[first[tpr]])
    assert fnr_published_code(scores, truth, tpr) == pytest.approx(1 - y[first[1 - tpr]])


@settings(deadline=None)
@given(SCORES, st.sampled_from([0.8, 0.9]))
def test_taken_at_its_word_fnr80_cannot_exceed_20(rows, tpr):
    scores, truth = columns(rows)
    points = slow_points(scores, truth)
    assert fnr_at_tpr_v2(scores, truth, tpr) == pytest.approx(1 - min(t for _, t in points if t >= tpr - 1e-9))
    assert fnr_at_tpr_v2(scores, truth, tpr) <= 1 - tpr + 1e-9
    assert fnr_v1(scores, truth, tpr) <= 1 - tpr + 1e-9


@settings(deadline=None)
@given(SCORES, st.sampled_from([0.8, 0.9]))
def test_v1_counts_from_the_normal_side(rows, tpr):
    scores, truth = columns(rows)
    healthy, ill = scores[~truth], scores[truth]
    # A threshold calls normal what does not exceed it; the first that keeps enough normal scans.
    t = next(t for t in sorted(set(scores)) if np.mean(healthy <= t) >= tpr - 1e-9)
    assert fpr_v1(scores, truth, tpr) == pytest.approx(np.mean(ill <= t))
    assert fnr_v1(scores, truth, tpr) == pytest.approx(np.mean(healthy > t))
    assert fpr_v1(scores, truth, tpr) == pytest.approx(fnr_at_fpr(scores, truth, 1 - tpr))


def toy() -> tuple[np.ndarray, np.ndarray]:
    """23 healthy and 23 anomalous scans: 13 anomalous above all, 3 healthy, 6 anomalous, 17 healthy, the rest."""
    truth = np.repeat([True, False, True, False, True, False], [13, 3, 6, 17, 4, 3])
    return np.arange(len(truth), 0, -1.0), truth


def test_the_printed_43_5_is_the_published_codes():
    """IterMask3D v2, Table 1, "chunk missing (top)": FNR80 = FNR90 = 43.5. Only one of the definitions can give that."""
    scores, truth = toy()
    found = {name: round(100 * metric(scores, truth), 1) for name, metric in PRINTED.items()}
    assert found == {
        "FPR80 (v2)": 13.0,
        "FPR90 (v2)": 87.0,
        "FNR80 (v2)": 17.4,
        "FNR90 (v2)": 8.7,
        "FPR80 (published code)": 13.0,
        "FPR90 (published code)": 87.0,
        "FNR80 (published code)": 43.5,
        "FNR90 (published code)": 43.5,
        "FPR80 (v1, normal is positive)": 17.4,
        "FPR90 (v1, normal is positive)": 43.5,
        "FNR80 (v1, normal is positive)": 17.4,
        "FNR90 (v1, normal is positive)": 8.7,
    }


def test_other_printed_values_are_the_published_codes():
    """Table 1's 78.3 and 82.6 (AE, chunk missing in the middle) are 18 and 19 of 23; a perfect detector's row is 0.0."""
    truth = np.repeat([True, False, True, False, True, False], [4, 5, 1, 10, 18, 8])
    scores = np.arange(len(truth), 0, -1.0)
    assert round(100 * fnr_published_code(scores, truth, 0.8), 1) == 78.3
    assert round(100 * fnr_published_code(scores, truth, 0.9), 1) == 82.6
    perfect = np.repeat([True, False], 23)
    assert fnr_published_code(perfect - np.arange(46) * 1e-3, perfect, 0.8) == 0


def test_a_perfect_a_blind_and_a_wrong_score():
    truth = np.array([False, True, False, True, True])
    for scores, area, precision in ((truth * 2.0, 1.0, 1.0), (np.ones(5), 0.5, 0.6), (truth * -2.0, 0.0, 0.6)):
        assert auroc(scores, truth) == area
        assert auprc(scores, truth) == pytest.approx(precision)
    assert fpr_at_tpr(np.ones(5), truth, 0.8) == 1
    assert fnr_at_fpr(np.ones(5), truth, 0.2) == 1
    assert fpr_at_tpr(truth * 2.0, truth, 0.8) == 0
    assert fnr_at_fpr(truth * 2.0, truth, 0.0) == 0


@pytest.mark.parametrize("truth", [[], [True], [False], [True, True, True], [False, False]])
@pytest.mark.parametrize("name", CASE_METRICS)
def test_one_class_is_nan(name, truth):
    assert math.isnan(CASE_METRICS[name](np.arange(float(len(truth))), truth))


def test_curves_of_one_class():
    fpr, tpr, thresholds = roc([3.0, 1.0], [True, True])
    np.testing.assert_array_equal(fpr, [np.nan] * 3)
    np.testing.assert_array_equal(tpr, [0, 0.5, 1])
    np.testing.assert_array_equal(thresholds, [np.inf, 3, 1])
    recall, precision, _ = pr([3.0, 1.0], [False, False])
    np.testing.assert_array_equal(recall, [np.nan] * 3)
    np.testing.assert_array_equal(precision, [1, 0, 0])


def test_infinite_scores_are_only_the_highest():
    assert auroc([np.inf, np.inf, 1.0], [True, False, False]) == 0.75


def test_slices_of_all_scans_are_pooled():
    lesion = np.zeros((3, 4, 5), bool)
    lesion[1, 2, 3] = lesion[0, 2, 1] = True
    values = np.arange(60.0).reshape(3, 4, 5)
    scores, anomalous = by_slice(values, lesion)
    np.testing.assert_allclose(scores, [values[:, :, k].mean() for k in range(5)])
    np.testing.assert_array_equal(anomalous, [False, True, False, True, False])
    np.testing.assert_array_equal(by_slice(values, lesion, axis=0)[1], [True, True, False])
    np.testing.assert_array_equal(by_slice(values, lesion, axis=-2)[1], [False, False, True, False])
    more = np.array([9.0, 80.0, 70.0]), np.array([False, True, False])
    found = slice_auprc([scores, more[0]], [anomalous, more[1]])
    assert found == pytest.approx(auprc(np.r_[scores, more[0]], np.r_[anomalous, more[1]]))
    assert found != pytest.approx(np.mean([auprc(scores, anomalous), auprc(*more)]))
    assert math.isnan(slice_auprc([], []))
    assert math.isnan(slice_auprc([scores], [np.zeros(5, bool)]))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: auroc([1.0, 2.0], [True]), r"\(2,\), anomalous \(1,\)"),
        (lambda: auroc([[1.0, 2.0]], [[True, False]]), r"\(1, 2\)"),
        (lambda: auprc([1.0, np.nan, 2.0], [True, False, True]), "1 of 3 scores are NaN"),
        (lambda: fpr_v1([1.0, np.nan], [True, False], 0.8), "1 of 2 scores are NaN"),
        (lambda: fpr_at_tpr([1.0, 2.0], [True, False], 80), "is 80, needs to be between 0 and 1"),
        (lambda: fnr_at_fpr([1.0, 2.0], [True, False], -0.1), "is -0.1"),
        (lambda: by_slice(np.ones((3, 4, 5)), np.ones((3, 5, 4))), r"\(3, 4, 5\), lesion \(3, 5, 4\)"),
        (lambda: slice_auprc([[1.0, 2.0]], [[True]]), r"scores \[2\], anomalous \[1\]"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(BadCall, match=said):
        call()
