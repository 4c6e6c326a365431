"""Means, intervals and tests, against SciPy, plain loops and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anomri.errors import BadCall
from anomri.metrics.case import CASE_METRICS, auroc
from anomri.metrics.statistics import (
    Summary,
    auroc_interval,
    benjamini_hochberg,
    bootstrap,
    case_interval,
    holm,
    mean_interval,
    mean_sd,
    over_folds,
    permutation_test,
    summary,
)

VALUES = st.lists(st.one_of(st.floats(-100, 100), st.just(math.nan)), max_size=12)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(deadline=None)
@given(VALUES)
def test_mean_and_sd_leave_nan_out_and_count_it(values):
    kept = [v for v in values if not math.isnan(v)]
    mean, sd = mean_sd(values)
    found = summary(values)
    assert (found.count, found.missing) == (len(kept), len(values) - len(kept))
    if kept:
        assert mean == pytest.approx(math.fsum(kept) / len(kept))
    else:
        assert math.isnan(mean)
    if len(kept) > 1:
        assert sd == pytest.approx(math.sqrt(math.fsum((v - mean) ** 2 for v in kept) / (len(kept) - 1)), abs=1e-9)
    else:
        assert math.isnan(sd)


def test_an_infinite_value_has_a_mean_and_no_sd():
    found = summary([1.0, np.inf])
    assert found.mean == np.inf
    assert math.isnan(found.sd)


def test_folds_are_averaged_first_and_subjects_before_them():
    values = [1.0, 3.0, 5.0, 10.0, np.nan, 20.0]
    found = over_folds(values, ["a", "a", "a", "b", "b", "b"], subjects=[1, 1, 2, 3, 4, 5])
    # Fold a: subject 1 is (1 + 3) / 2, subject 2 is 5. Fold b: 10 and 20; subject 4 has none.
    assert found.within == {
        "a": Summary(3.5, pytest.approx(math.sqrt(4.5)), 2, 0),
        "b": Summary(15.0, pytest.approx(math.sqrt(50)), 2, 1),
    }
    assert found.over == Summary(9.25, pytest.approx(abs(15 - 3.5) / math.sqrt(2)), 2, 0)
    # Without subjects each value counts once, and every fold still alike.
    assert over_folds(values, [2, 2, 2, 7, 7, 7]).over.mean == pytest.approx((3 + 15) / 2)


def test_a_fold_keeps_subjects_apart_from_other_folds():
    found = over_folds([1.0, 2.0, 9.0], [0, 1, 1], subjects=["s", "s", "t"])
    assert found.within[0].mean == 1
    assert found.within[1].mean == 5.5


# --- bootstrap -----------------------------------------------------------------------------------------------------


def skewed(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=n)


def test_the_mean_s_interval_is_scipys_and_the_slow_one():
    values = skewed(37, 1)
    low, high = mean_interval(values)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=3).confidence_interval
    error = values.std() / math.sqrt(37)
    assert low == pytest.approx(theirs.low, abs=0.05 * error)
    assert high == pytest.approx(theirs.high, abs=0.05 * error)
    # The same draws, one by one.
    assert bootstrap(np.mean, values, rounds=500) == pytest.approx(mean_interval(values, rounds=500))
    assert mean_interval([*values, np.nan], rounds=500) == mean_interval(values, rounds=500)


def test_every_resample_of_a_short_sample_is_as_likely_as_all_others():
    """Three values have 27 resamples: the interval is read off their exact distribution."""
    values = np.array([0.0, 1.0, 5.0])
    means = np.sort([np.mean(pick) for pick in itertools.product(values, repeat=3)])
    low, high = bootstrap(np.mean, values, level=0.6)
    assert low in means
    assert (low, high) == pytest.approx((np.quantile(means, 0.2), np.quantile(means, 0.8)))


def test_samples_are_drawn_apart_unless_paired():
    a = skewed(23, 2)
    b = a + 0.01 * skewed(23, 3)

    def gap(u, v):
        return float(np.mean(v) - np.mean(u))

    wide, tight = bootstrap(gap, a, b, rounds=400), bootstrap(gap, a, b, paired=True, rounds=400)
    assert tight == pytest.approx(mean_interval(b - a, rounds=400))
    assert wide[1] - wide[0] > 20 * (tight[1] - tight[0])
    seen = []
    bootstrap(lambda u, v: seen.append((len(u), len(v))) or 0.0, a, b[:7], rounds=5)
    assert seen == [(23, 7)] * 5


def test_a_subject_brings_all_of_its_values():
    """Healthy and corrupted scans of the same subjects, and healthy scans of others alone."""
    healthy, ill = np.array([0.0, 1.0, 2.0, 50.0, 60.0]), np.array([100.0, 101.0, 102.0, 102.5])
    seen = []

    def look(h, i):
        seen.append((sorted(h), sorted(i)))
        return 0.0

    bootstrap(look, healthy, ill, groups=[["a", "b", "c", "x", "y"], ["a", "b", "c", "c"]], rounds=200)
    for h, i in seen:
        pairs, alone = [v for v in h if v < 50], [v for v in h if v >= 50]
        assert len(pairs) == 3
        assert len(alone) == 2
        assert sorted([v + 100 for v in pairs] + [102.5] * pairs.count(2)) == i
    assert len({tuple(h) for h, _ in seen}) > 20


def test_auroc_s_interval_is_the_slow_one_in_strata():
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat([False, True], [19, 31]))
    scores = np.round(rng.normal(size=50) + 1.2 * truth, 1)
    slow = case_interval(auroc, scores, truth, rounds=300)
    assert auroc_interval(scores, truth, rounds=300) == pytest.approx(slow)
    low, high = auroc_interval(scores, truth)
    assert low < auroc(scores, truth) < high
    # Hanley and McNeil's SE, from the pairs of scans.
    area = auroc(scores, truth)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    se = math.sqrt((area * (1 - area) + 30 * (q1 - area**2) + 18 * (q2 - area**2)) / (19 * 31))
    assert (high - low) / (2 * 1.96 * se) == pytest.approx(1, abs=0.2)


def test_pairs_of_a_subject_stay_together_in_auroc():
    rng = np.random.default_rng(5)
    subject = 10 * rng.normal(size=30)
    scores, truth = np.concatenate([subject, subject + 2]), np.repeat([False, True], 30)
    groups = np.tile(np.arange(30), 2)
    assert auroc_interval(scores, truth, groups, rounds=300) == pytest.approx(
        case_interval(auroc, scores, truth, groups, rounds=300)
    )
    paired, apart = auroc_interval(scores, truth, groups), auroc_interval(scores, truth)
    assert paired[1] - paired[0] < 0.5 * (apart[1] - apart[0])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.sampled_from(sorted(CASE_METRICS)))
def test_every_case_metric_has_an_interval(seed, name):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat([False, True], [5, 8]))
    low, high = case_interval(CASE_METRICS[name], rng.normal(size=13) + truth, truth, rounds=60)
    assert 0 <= low <= high <= 1


def test_an_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(11)
    covered = 0
    for seed in range(200):
        low, high = mean_interval(rng.normal(size=40), rounds=400, level=0.8, seed=seed)
        covered += low <= 0 <= high
    assert 0.72 <= covered / 200 <= 0.86


def test_seed_and_chunks_decide_nothing_else(monkeypatch):
    values = skewed(30, 4)
    assert mean_interval(values, rounds=300) == mean_interval(values, rounds=300)
    assert mean_interval(values, rounds=300) != mean_interval(values, rounds=300, seed=1)
    whole = mean_interval(values, rounds=300)
    paired = permutation_test(values, values[::-1] + 0.2, rounds=300)
    monkeypatch.setattr("anomri.metrics.statistics.CHUNK", 70)
    assert mean_interval(values, rounds=300) == pytest.approx(whole)
    assert permutation_test(values, values[::-1] + 0.2, rounds=300) == pytest.approx(paired)


def test_intervals_at_the_edges():
    assert all(map(math.isnan, mean_interval([np.nan, np.nan])))
    assert all(map(math.isnan, auroc_interval([1.0, 2.0], [True, True])))
    assert all(map(math.isnan, case_interval(auroc, [1.0, 2.0], [False, False])))
    assert all(map(math.isnan, mean_interval([1.0, np.inf])))
    assert mean_interval([3.0]) == (3.0, 3.0)
    assert auroc_interval([1.0, 2.0, 3.0, 4.0], [False, False, True, True]) == (1.0, 1.0)
    assert math.isnan(bootstrap(lambda v: math.nan, [1.0, 2.0], rounds=5)[0])


# --- permutation test ----------------------------------------------------------------------------------------------


def plain_p(a, b) -> float:
    """Over every pattern of signs, by loops."""
    d = [x - y for x, y in zip(a, b, strict=True)]
    seen = abs(sum(d))
    patterns = list(itertools.product([1, -1], repeat=len(d)))
    return sum(abs(sum(s * v for s, v in zip(signs, d, strict=True))) >= seen - 1e-9 for signs in patterns) / len(
        patterns
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=7))
def test_few_pairs_are_tried_in_every_way(pairs):
    a, b = [float(x) for x, _ in pairs], [float(y) / 3 for _, y in pairs]
    p = permutation_test(a, b)
    assert p == pytest.approx(plain_p(a, b))
    assert p == permutation_test(b, a)
    assert 0 < p <= 1


def test_the_exact_p_is_scipys():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=11), rng.normal(size=11) + 0.6
    theirs = stats.permutation_test(
        (a, b),
        lambda u, v, axis: (u - v).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert permutation_test(a, b) == pytest.approx(theirs.pvalue)


def test_many_pairs_are_drawn_and_near_the_exact_p():
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=13), rng.normal(size=13) + 0.5
    exact = permutation_test(a, b, rounds=2**13)
    drawn = permutation_test(a, b, rounds=2**13 - 1)
    assert exact * 2**13 == pytest.approx(round(exact * 2**13))
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 2**13))
    assert drawn != exact
    assert drawn * 2**13 == pytest.approx(round(drawn * 2**13))


def test_p_is_never_0():
    a, b = np.arange(40.0), np.arange(40.0) + 100
    assert permutation_test(a, b) == 1 / 10_001
    assert permutation_test(a[:10], b[:10]) == 2 / 1024


def test_p_is_uniform_where_nothing_differs():
    rng = np.random.default_rng(10)
    found = [permutation_test(*rng.normal(size=(2, 16)), rounds=199, seed=s) for s in range(300)]
    assert stats.kstest(found, "uniform").pvalue > 0.001
    assert np.mean(np.array(found) <= 0.05) <= 0.09


def test_pairs_with_nan_are_left_out_and_equal_ones_say_nothing():
    a, b = np.array([1.0, np.nan, 4.0, 2.5]), np.array([0.0, 7.0, 1.0, np.nan])
    assert permutation_test(a, b) == permutation_test(a[[0, 2]], b[[0, 2]]) == 0.5
    assert permutation_test([1.0, 2.0], [1.0, 2.0]) == 1
    assert permutation_test(np.full(20, 0.1) * 3, np.full(20, 0.3)) == 1
    assert math.isnan(permutation_test([np.nan], [1.0]))
    assert math.isnan(permutation_test([1.0, np.inf], [1.0, np.inf]))


# --- many comparisons ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(P_VALUES)
def test_holm_steps_down(p):
    order = np.argsort(p, kind="stable")
    slow, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        slow[i] = highest
    np.testing.assert_allclose(holm(p), slow)
    assert (holm(p) >= p).all()
    assert (holm(p) <= np.minimum(np.array(p) * len(p), 1) + 1e-12).all()


@settings(deadline=None)
@given(P_VALUES)
def test_benjamini_hochberg_is_scipys(p):
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p), atol=1e-12)
    assert (benjamini_hochberg(p) <= holm(p) + 1e-12).all()


def test_adjusted_values_by_hand():
    p = [0.01, 0.04, np.nan, 0.03]
    np.testing.assert_allclose(holm(p), [0.03, 0.06, np.nan, 0.06])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.03, 0.04, np.nan, 0.04])
    assert len(holm([])) == len(benjamini_hochberg([])) == 0
    np.testing.assert_array_equal(holm([np.nan]), [np.nan])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: over_folds([1.0, 2.0], [0]), r"values has shape \(2,\), folds has shape \(1,\)"),
        (lambda: bootstrap(np.mean, []), r"needs values, samples have \[0\]"),
        (lambda: bootstrap(np.mean), "needs values"),
        (lambda: bootstrap(np.mean, [1.0], [1.0, 2.0], paired=True), r"sample 0 has shape \(1,\)"),
        (lambda: bootstrap(np.mean, [1.0], paired=True, groups=[[0]]), "not both"),
        (lambda: bootstrap(np.mean, [1.0, 2.0], groups=[[0]]), r"\[2\] values, groups \[1\]"),
        (lambda: bootstrap(np.mean, [1.0], level=95), "level is 95"),
        (lambda: bootstrap(np.mean, [1.0], rounds=0), "rounds of 1 or more, got 0"),
        (lambda: mean_interval([[1.0]]), r"\(1, 1\), needs one axis"),
        (lambda: mean_interval([1.0, 2.0], [0]), r"groups has shape \(1,\)"),
        (lambda: auroc_interval([1.0, np.nan], [True, False]), "1 of 2 scores are NaN"),
        (lambda: permutation_test([1.0], [1.0, 2.0]), r"a has shape \(1,\), b has shape \(2,\)"),
        (lambda: holm([0.5, 1.5]), "from 0.5 to 1.5"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(BadCall, match=said):
        call()


@pytest.mark.parametrize("name", ["AUROC", "AUPRC"])
def test_the_interval_of_paired_scans_holds_what_was_seen(name):
    """Each scan scores a little higher than its own control: resamples that hold one subject twice would overrate that."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        controls = rng.permutation(8) + rng.uniform(-0.1, 0.1, 8)
        scores, subjects = np.concatenate([controls, controls + 0.3]), [*range(8), *range(8)]
        truth = np.repeat([False, True], 8)
        seen = CASE_METRICS[name](scores, truth)
        low, high = case_interval(CASE_METRICS[name], scores, truth, subjects, rounds=1000)
        assert low < seen < high
        if name == "AUROC":
            assert auroc_interval(scores, truth, subjects, rounds=1000) == pytest.approx((low, high), abs=1e-9)
        assert low >= 0
        assert high <= 1


def test_a_centred_interval_is_the_plain_one_moved_by_its_bias():
    values = np.random.default_rng(1).exponential(size=30)
    low, high = bootstrap(np.var, values, rounds=2000)
    moved = bootstrap(np.var, values, rounds=2000, centred=True)
    assert moved[1] - moved[0] == pytest.approx(high - low)
    # A resample's variance is smaller by 1/n on average.
    assert moved[0] - low == pytest.approx(np.var(values) / 30, rel=0.5)
