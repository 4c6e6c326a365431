"""The streaming histogram: its bins, its counts, and that the exact values lie within its bounds."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anomri.errors import BadCall
from anomri.metrics.histogram import BINS, THRESHOLDS, VoxelHistogram
from anomri.metrics.oracle import best_dice_scan_oracle
from anomri.metrics.voxel import auprc, auroc, dice

SHAPE = (3, 5, 2)
MASKS = hnp.arrays(bool, SHAPE)
COARSE = hnp.arrays(np.float32, SHAPE, elements=st.sampled_from([-1.0, -0.0, 0.0, 0.25, 0.5, 3.0]))
# Values that share bins, or nearly: 1/256 is a bin at 1.
FINE = hnp.arrays(np.float32, SHAPE, elements=st.integers(-600, 600).map(lambda n: n / 512))
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def scan(seed, shape=(23, 17, 31), lift=0.6):
    rng = np.random.default_rng(seed)
    lesion = rng.random(shape) < 0.05
    return (rng.gamma(2, 0.5, shape) + lift * lesion).astype(np.float32), lesion


def bin_of(value):
    counts = VoxelHistogram.of(np.array([value], np.float32), [False]).healthy
    assert counts.sum() == 1
    return int(counts.argmax())


@given(FLOATS)
@settings(max_examples=300)
def test_a_value_lies_between_the_edges_of_its_bin(value):
    at = bin_of(value)
    assert THRESHOLDS[at] <= np.float32(value) < THRESHOLDS[at + 1]


@given(st.floats(2**-32, 2**32, width=32, exclude_max=True), st.sampled_from([1, -1]))
def test_a_bin_is_narrow(size, sign):
    at = bin_of(sign * size)
    if 0 < at < BINS - 1:
        assert THRESHOLDS[at + 1] - THRESHOLDS[at] <= size / 256 * (1 + 1e-6)


def test_the_edges():
    assert len(THRESHOLDS) == BINS + 1
    assert (np.diff(THRESHOLDS) > 0).all()
    assert bin_of(0.0) == bin_of(-0.0) == bin_of(1e-30) == bin_of(-1e-40) == BINS // 2
    assert bin_of(2.0**-32) == BINS // 2 + 1
    assert bin_of(-(2.0**-32)) == BINS // 2 - 1
    assert bin_of(3e38) == bin_of(2.0**32) == BINS - 1
    assert bin_of(-3e38) == bin_of(-(2.0**32)) == 0
    # A float64 that no float32 holds.
    assert VoxelHistogram.of(np.array([1e300, -1e300]), [True, False]).lesion[-1] == 1
    # A change of these would make histograms that were kept unreadable.
    assert BINS == 32769
    assert THRESHOLDS[bin_of(1.0)] == 1
    assert THRESHOLDS[bin_of(1.0) + 1] == 1 + 1 / 256


@given(COARSE, MASKS, MASKS)
def test_on_values_with_bins_of_their_own_it_is_exact(values, lesion, brain):
    counts = VoxelHistogram.of(values, lesion, brain)
    assert counts.lesion.sum() == (lesion & brain).sum()
    assert counts.healthy.sum() == (~lesion & brain).sum()
    assert counts.auroc() == pytest.approx(auroc(values, lesion, brain), nan_ok=True)
    recall, precision = counts.pr()
    if counts.lesion.any() and counts.healthy.any():
        area = (np.diff(recall, prepend=0) * precision).sum()
        assert area == pytest.approx(auprc(values, lesion, brain))


@given(
    hnp.arrays(np.float32, SHAPE, elements=st.sampled_from([-2.0, 0.0, 1.0, 5.0])),
    st.permutations([True, True, False, False]),
)
def test_where_no_bin_holds_both_classes_the_order_is_known(values, sides):
    lesion = np.select([values == v for v in (-2.0, 0.0, 1.0, 5.0)], sides)
    assume(0 < lesion.sum() < lesion.size)
    counts = VoxelHistogram.of(values, lesion)
    low, high = counts.auroc_bounds()
    assert low == high == pytest.approx(auroc(values, lesion))
    assert counts.auprc_bounds()[1] == pytest.approx(auprc(values, lesion))
    low, high = counts.best_dice_bounds()
    assert low == high == pytest.approx(best_dice_scan_oracle(values, lesion)[0])


@given(FINE, MASKS)
def test_the_exact_values_lie_within_the_bounds(values, lesion):
    assume(0 < lesion.sum() < lesion.size)
    counts = VoxelHistogram.of(values, lesion)
    for exact, at, (low, high) in (
        (auroc(values, lesion), counts.auroc(), counts.auroc_bounds()),
        (auprc(values, lesion), counts.auprc(), counts.auprc_bounds()),
    ):
        assert low - 1e-12 <= exact <= high + 1e-12
        assert low - 1e-12 <= at <= high + 1e-12
    low, high = counts.best_dice_bounds()
    assert low - 1e-12 <= best_dice_scan_oracle(values, lesion)[0] <= high + 1e-12


def test_the_bounds_are_tight_on_a_scan_and_the_values_closer():
    values, lesion = scan(0, (64, 80, 72))
    counts = VoxelHistogram.of(values, lesion)
    best = counts.best_dice_bounds()
    for exact, at, (low, high), off in (
        (auroc(values, lesion), counts.auroc(), counts.auroc_bounds(), 2e-5),
        (auprc(values, lesion), counts.auprc(), counts.auprc_bounds(), 2e-5),
        (best_dice_scan_oracle(values, lesion)[0], best[0], best, 5e-4),
    ):
        assert low <= exact <= high
        assert high - low < 2e-3
        assert at == pytest.approx(exact, abs=off)


@pytest.mark.parametrize("order", ["lesion first", "healthy first"])
def test_the_auroc_bounds_are_reached(order):
    # One bin, in which either class lies highest.
    values = np.array([1.0, 1.0001, 1.0002, 1.0003], np.float32)
    lesion = np.array([False, False, True, True]) ^ (order == "healthy first")
    assert VoxelHistogram.of(values, lesion).auroc_bounds() == (0, 1)
    assert auroc(values, lesion) == (1 if order == "lesion first" else 0)


@given(FINE, MASKS)
def test_dice_is_exact_at_every_threshold(values, lesion):
    thresholds, scores = VoxelHistogram.of(values, lesion).dice()
    assert thresholds.shape == scores.shape == (BINS + 1,)
    for at in {*np.searchsorted(thresholds, values.ravel()).tolist(), 0, BINS // 2, BINS}:
        assert scores[at] == pytest.approx(dice(values >= thresholds[at], lesion))


def test_histograms_add_as_their_voxels_do():
    (a, in_a), (b, in_b) = scan(1), scan(2, (11, 13, 7), lift=0.1)
    both = VoxelHistogram.of(a, in_a) + VoxelHistogram.of(-b, in_b)
    one = VoxelHistogram.of(np.concatenate([a.ravel(), -b.ravel()]), np.concatenate([in_a.ravel(), in_b.ravel()]))
    assert (both.lesion == one.lesion).all()
    assert (both.healthy == one.healthy).all()


def test_curves():
    values = np.array([3.0, 2.0, 2.0, 1.0, -1.0], np.float32)
    counts = VoxelHistogram.of(values, np.array([True, True, False, False, True]))
    false, true = counts.roc()
    assert false.tolist() == [0, 0, 0.5, 1, 1]
    assert true == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])
    recall, precision = counts.pr()
    assert recall == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1])
    assert precision == pytest.approx([1, 2 / 3, 2 / 4, 3 / 5])


@given(COARSE, MASKS)
def test_the_auroc_lies_under_the_curve(values, lesion):
    assume(0 < lesion.sum() < lesion.size)
    counts = VoxelHistogram.of(values, lesion)
    false, true = counts.roc()
    assert counts.auroc() == pytest.approx(np.trapezoid(true, false))


@pytest.mark.parametrize("lesion", [True, False])
def test_one_class_has_no_area(lesion):
    counts = VoxelHistogram.of(np.ones(SHAPE), np.full(SHAPE, lesion))
    assert math.isnan(counts.auroc())
    assert math.isnan(counts.auprc())
    assert all(math.isnan(v) for v in (*counts.auroc_bounds(), *counts.auprc_bounds()))
    assert np.isnan(counts.roc()[int(not lesion)]).all()
    assert np.isnan(counts.pr()[0]).all() != lesion
    _thresholds, scores = counts.dice()
    assert scores[-1] == (0 if lesion else 1)
    assert counts.best_dice_bounds() == (1, 1)


def test_an_empty_histogram():
    counts = VoxelHistogram.of(np.ones(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE))
    assert math.isnan(counts.auroc())
    assert (counts.dice()[1] == 1).all()
    assert len(counts.pr()[0]) == 0


def test_kept_and_read_again_it_is_small_and_the_same():
    values, lesion = scan(3, (64, 80, 72))
    counts = VoxelHistogram.of(values**4 * 1e-3, lesion)
    kept = io.BytesIO()
    np.savez_compressed(kept, lesion=counts.lesion, healthy=counts.healthy)
    assert kept.tell() < 100_000
    kept.seek(0)
    with np.load(kept) as read:
        again = VoxelHistogram(read["lesion"], read["healthy"])
    assert again.auprc_bounds() == counts.auprc_bounds()


@pytest.mark.parametrize("counts", [np.zeros(7), np.full(BINS, -1)])
def test_other_counts_are_refused(counts):
    with pytest.raises(BadCall, match=f"need \\({BINS},\\)"):
        VoxelHistogram(np.zeros(BINS), counts)
