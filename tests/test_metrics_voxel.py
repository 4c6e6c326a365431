"""Metrics per voxel, against slow plain loops, scikit-learn, and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, roc_auc_score

from anomri.errors import BadCall
from anomri.metrics.voxel import auprc, auroc, box, dice, overlap, ranking

SHAPE = (3, 4, 2)
MASKS = hnp.arrays(bool, SHAPE)
# Few values, so that ties are many; both zeros, which are equal.
MAPS = hnp.arrays(np.float32, SHAPE, elements=st.sampled_from([-1.0, -0.0, 0.0, 0.25, 0.5, 3.0]))


def slow_counts(mask, lesion, brain):
    tp = fp = fn = 0
    for index in np.ndindex(mask.shape):
        if brain[index]:
            tp += bool(mask[index] and lesion[index])
            fp += bool(mask[index] and not lesion[index])
            fn += bool(not mask[index] and lesion[index])
    return tp, fp, fn


def slow_auroc(values, truth):
    """The share of pairs that are ranked right."""
    wins = [(a > b) + (a == b) / 2 for a in values[truth] for b in values[~truth]]
    return sum(wins) / len(wins)


def slow_auprc(values, truth):
    total = reached = 0.0
    for threshold in sorted(set(values.ravel().tolist()), reverse=True):
        marked = values >= threshold
        recall, precision = marked[truth].mean(), truth[marked].mean()
        total += (recall - reached) * precision
        reached = recall
    return total


@given(MASKS, MASKS, MASKS)
def test_overlap_is_the_slow_one(mask, lesion, brain):
    tp, fp, fn = slow_counts(mask, lesion, brain)
    got = overlap(mask, lesion, brain)
    assert got["dice"] == (pytest.approx(2 * tp / (2 * tp + fp + fn)) if tp + fp + fn else 1)
    assert got["jaccard"] == (pytest.approx(tp / (tp + fp + fn)) if tp + fp + fn else 1)
    assert got["sensitivity"] == pytest.approx(tp / (tp + fn) if tp + fn else math.nan, nan_ok=True)
    assert got["precision"] == pytest.approx(tp / (tp + fp) if tp + fp else math.nan, nan_ok=True)
    assert all(0 <= v <= 1 for v in got.values() if not math.isnan(v))


@given(MASKS, MASKS)
def test_overlap_mirrored(a, b):
    one, other = overlap(a, b), overlap(b, a)
    assert dice(a, b) == dice(b, a) == one["dice"]
    assert one["sensitivity"] == pytest.approx(other["precision"], nan_ok=True)
    assert one["jaccard"] == pytest.approx(one["dice"] / (2 - one["dice"]))
    assert dice(a, a) == 1


@given(MASKS, MASKS, MASKS, MAPS)
def test_nothing_outside_the_brain_counts(mask, lesion, brain, values):
    inside = (mask[brain], lesion[brain])
    assert overlap(mask, lesion, brain) == pytest.approx(overlap(*inside), nan_ok=True)
    for metric in (auroc, auprc):
        assert metric(values, lesion, brain) == pytest.approx(metric(values[brain], lesion[brain]), nan_ok=True)


def test_overlap_of_known_masks():
    a, b = np.zeros((2, 4, 3), bool), np.zeros((2, 4, 3), bool)
    assert overlap(a, b) == pytest.approx(
        {"dice": 1, "sensitivity": math.nan, "precision": math.nan, "jaccard": 1}, nan_ok=True
    )
    a[0, 0] = True
    assert overlap(a, b) == pytest.approx(
        {"dice": 0, "sensitivity": math.nan, "precision": 0, "jaccard": 0}, nan_ok=True
    )
    assert overlap(b, a) == pytest.approx(
        {"dice": 0, "sensitivity": 0, "precision": math.nan, "jaccard": 0}, nan_ok=True
    )
    b[0, 0, :2] = b[1, 3, 1] = True
    expected = {"dice": 4 / 6, "sensitivity": 2 / 3, "precision": 2 / 3, "jaccard": 2 / 4}
    assert overlap(a, b) == pytest.approx(expected)
    assert dice(a.astype(np.uint8), b.astype(float)) == pytest.approx(4 / 6)


@given(MAPS, MASKS)
def test_areas_are_the_slow_ones_and_those_of_scikit_learn(values, lesion):
    assume(0 < lesion.sum() < lesion.size)
    assert auroc(values, lesion) == pytest.approx(slow_auroc(values, lesion))
    assert auroc(values, lesion) == pytest.approx(roc_auc_score(lesion.ravel(), values.ravel()))
    assert auprc(values, lesion) == pytest.approx(slow_auprc(values, lesion))
    assert auprc(values, lesion) == pytest.approx(average_precision_score(lesion.ravel(), values.ravel()))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_areas_of_many_voxels_are_those_of_scikit_learn(dtype):
    rng = np.random.default_rng(0)
    lesion = rng.random((31, 17, 23)) < 0.05
    values = (rng.gamma(2, 1, lesion.shape) + 0.7 * lesion).astype(dtype)
    assert auroc(values, lesion) == pytest.approx(roc_auc_score(lesion.ravel(), values.ravel()), abs=1e-12)
    assert auprc(values, lesion) == pytest.approx(average_precision_score(lesion.ravel(), values.ravel()), abs=1e-12)


@given(MAPS, MASKS)
def test_areas_know_ranks_alone(values, lesion):
    for metric in (auroc, auprc):
        assert metric(np.arctan(values) * 7 - 2, lesion) == pytest.approx(metric(values, lesion), nan_ok=True)
    assert auroc(-values, lesion) == pytest.approx(1 - auroc(values, lesion), nan_ok=True)


def test_areas_at_the_edges():
    lesion = np.zeros(SHAPE, bool)
    for metric in (auroc, auprc):
        assert math.isnan(metric(np.ones(SHAPE), lesion))
        assert math.isnan(metric(np.ones(SHAPE), ~lesion))
    lesion[1, 2, :] = True
    assert auroc(lesion, lesion) == auprc(lesion, lesion) == 1
    assert auroc(np.ones(SHAPE), lesion) == 0.5
    assert auprc(np.ones(SHAPE), lesion) == pytest.approx(2 / 24)
    assert auroc(-lesion.astype(int), lesion) == 0
    # Infinity is far above any float32, and the difference of two such values is not a float.
    assert auroc(np.where(lesion, 1e308, -1e308), lesion) == 1


@given(MAPS, MASKS)
def test_ranking_counts(values, lesion):
    ranks = ranking(values, lesion)
    assert ranks.lesion == lesion.sum()
    assert ranks.healthy == (~lesion).sum()
    assert ranks.value.tolist() == sorted(set(values[lesion].tolist()), reverse=True)
    for n, value in enumerate(ranks.value):
        assert ranks.hits[n] == (values[lesion] >= value).sum()
        assert ranks.new[n] == (values[lesion] == value).sum()
        assert ranks.false[n] == (values[~lesion] >= value).sum()
        assert ranks.above[n] == (values[~lesion] > value).sum()


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)))
def test_box_is_the_smallest(mask):
    inside = box(mask)
    assert mask[inside].sum() == mask.sum()
    for axis, n in enumerate(mask[inside].shape):
        assert not n or (mask[inside].take(0, axis).any() and mask[inside].take(-1, axis).any())


@pytest.mark.parametrize("metric", [dice, overlap, auroc, auprc])
def test_other_shapes_are_refused(metric):
    with pytest.raises(BadCall, match=r"\(3, 4, 2\).*\(3, 2, 4\)"):
        metric(np.zeros(SHAPE), np.zeros((3, 2, 4)))


@pytest.mark.parametrize("metric", [overlap, auroc, auprc])
def test_a_brain_of_another_shape_is_refused(metric):
    with pytest.raises(BadCall, match=r"brain has shape \(3, 4, 1\)"):
        metric(np.zeros(SHAPE), np.zeros(SHAPE), np.ones((3, 4, 1)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", [auroc, auprc])
def test_values_that_are_not_finite_are_refused_in_the_brain_alone(metric, bad):
    values, lesion, brain = np.arange(24.0).reshape(SHAPE), np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    lesion[0], values[2, 3, 1], brain[2, 3, 1] = True, bad, False
    assert metric(values, lesion, brain) < 1
    with pytest.raises(BadCall, match="1 of 24 voxels"):
        metric(values, lesion)
