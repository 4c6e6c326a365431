"""Thresholds found with labels, against every threshold tried."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anomri.errors import BadCall
from anomri.metrics import oracle
from anomri.metrics.histogram import VoxelHistogram
from anomri.metrics.lesion import pooled_dice
from anomri.metrics.oracle import best_dice_scan_oracle, dice_at
from anomri.metrics.voxel import dice

SHAPE = (3, 4, 2)
VALUES = [-1.0, 0.0, 0.25, 0.5, 3.0]
SCANS = st.tuples(hnp.arrays(np.float32, SHAPE, elements=st.sampled_from(VALUES)), hnp.arrays(bool, SHAPE))
COHORTS = st.lists(SCANS, min_size=1, max_size=4)


@given(SCANS, hnp.arrays(bool, SHAPE))
def test_the_best_of_a_scan_is_the_best_over_every_threshold(scan, brain):
    values, lesion = scan
    score, threshold = best_dice_scan_oracle(values, lesion, brain)
    tried = {t: dice((values >= t) & brain, lesion & brain) for t in (*VALUES, np.inf)}
    assert score == pytest.approx(max(tried.values()))
    assert tried[threshold] == pytest.approx(score)
    assert threshold == max(t for t, s in tried.items() if s == pytest.approx(score))


@given(SCANS)
def test_the_best_of_a_scan_knows_ranks_alone(scan):
    values, lesion = scan
    moved = best_dice_scan_oracle(np.arctan(values) * 7 - 2, lesion)
    assert moved[0] == pytest.approx(best_dice_scan_oracle(values, lesion)[0])


def test_the_best_of_a_scan_at_the_edges():
    lesion = np.zeros(SHAPE, bool)
    assert best_dice_scan_oracle(np.ones(SHAPE), lesion) == (1.0, math.inf)
    lesion[1, 2, 0] = True
    assert best_dice_scan_oracle(lesion * 5.0, lesion) == (1.0, 5.0)
    # A constant map can only mark everything.
    assert best_dice_scan_oracle(np.ones(SHAPE), lesion) == (pytest.approx(2 / 25), 1.0)
    with pytest.raises(BadCall, match=r"\(3, 4, 2\).*\(3, 2, 4\)"):
        best_dice_scan_oracle(np.ones(SHAPE), np.ones((3, 2, 4)))


@given(COHORTS)
def test_one_threshold_for_a_data_set_is_the_best_over_every_threshold(cohort):
    histograms = [VoxelHistogram.of(*scan) for scan in cohort]
    by_scan = {t: np.mean([dice(m >= t, lesion) for m, lesion in cohort]) for t in (*VALUES, math.inf)}
    pooled = {
        t: pooled_dice([m >= t for m, _ in cohort], [lesion for _, lesion in cohort]) for t in (*VALUES, math.inf)
    }
    for found, tried in (
        (oracle.best_dice_dataset_oracle(histograms), by_scan),
        (oracle.best_pooled_dice_oracle(histograms), pooled),
    ):
        score, threshold = found
        assert score == pytest.approx(max(tried.values()))
        # The best lies at a value of a map, or marks nothing; a threshold just above a value marks what the next value does.
        assert tried[min(t for t in tried if t >= threshold)] == pytest.approx(score)


@given(COHORTS)
def test_no_threshold_for_all_beats_one_for_each(cohort):
    together = oracle.best_dice_dataset_oracle([VoxelHistogram.of(*scan) for scan in cohort])[0]
    assert together <= np.mean([best_dice_scan_oracle(*scan)[0] for scan in cohort]) + 1e-12


def test_a_large_lesion_counts_most_when_pooled():
    small, large = np.zeros((4, 5, 3), bool), np.zeros((4, 5, 3), bool)
    small[0, 0, 0], large[:3] = True, True
    low, high = np.where(small, 4.0, 1.0), np.where(large, 2.0, 0.5)
    histograms = [VoxelHistogram.of(low, small), VoxelHistogram.of(high, large)]
    # At 4 only the small lesion is marked, at 2 both, and nothing else.
    assert oracle.best_dice_dataset_oracle(histograms) == (1.0, 2.0)
    faint = VoxelHistogram.of(np.where(small, 0.25, 0.125), small)
    score, threshold = oracle.best_pooled_dice_oracle([faint, histograms[1]])
    assert (score, threshold) == (pytest.approx(2 * 45 / (45 + 46)), 2.0)
    assert oracle.labelled_validation_threshold([faint, histograms[1]]) == 2.0
    assert oracle.best_dice_dataset_oracle([faint] * 5 + histograms[1:])[1] == 0.25


@given(SCANS, st.sampled_from([*VALUES, -math.inf, math.inf]))
def test_dice_at_a_threshold(scan, threshold):
    values, lesion = scan
    assert dice_at(VoxelHistogram.of(values, lesion), threshold) == pytest.approx(dice(values >= threshold, lesion))


def test_dice_at_a_threshold_within_a_bin_is_that_of_its_edge():
    lesion = np.array([True, True, False, False])
    counts = VoxelHistogram.of(np.array([1.0, 2.0, 0.5, 1.002]), lesion)
    assert dice_at(counts, 1.003) == dice_at(counts, 1.0) == pytest.approx(4 / 5)
    assert dice_at(counts, 1.004) == pytest.approx(2 / 3)


def test_a_threshold_from_other_scans_is_no_better_than_the_oracle():
    rng = np.random.default_rng(0)
    scans = []
    for _ in range(6):
        lesion = rng.random((9, 7, 11)) < 0.1
        scans.append(VoxelHistogram.of(rng.gamma(2, 1, lesion.shape) + 2 * lesion, lesion))
    threshold = oracle.labelled_validation_threshold(scans[:3])
    reached = np.mean([dice_at(h, threshold) for h in scans[3:]])
    assert 0.3 < reached <= oracle.best_dice_dataset_oracle(scans[3:])[0]


@pytest.mark.parametrize(
    "find", ["best_dice_dataset_oracle", "best_pooled_dice_oracle", "labelled_validation_threshold"]
)
def test_no_scan_is_refused(find):
    with pytest.raises(BadCall, match="no scan"):
        getattr(oracle, find)([])


def test_no_threshold_is_refused():
    with pytest.raises(BadCall, match="NaN"):
        dice_at(VoxelHistogram.of(np.ones(SHAPE), np.zeros(SHAPE)), math.nan)
