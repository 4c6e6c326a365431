"""Thresholds without labels: the tangent and where it bends, and the quantile of healthy maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from anomri.errors import BadCall
from anomri.scoring.thresholds import R2_LEAST, R2_STEPS, TAU_LIMIT, Bend, bend, healthy_threshold, stop

T = np.arange(1, 101, dtype=float)


def tangent(a: float, share: float, n: int = 100, of: int = 100) -> np.ndarray:
    """`a * tan(b * t)`, b a share of the pole of `of` steps."""
    return a * np.tan(share * np.pi / 2 / of * np.arange(1, n + 1))


def plain_smooth(tau: list[float], width: int) -> list[float]:
    """Differences (the first from 0) under a centred mean, cut at both ends, by loops."""
    differences = [tau[i] - (tau[i - 1] if i else 0.0) for i in range(len(tau))]
    out = []
    for i in range(len(tau)):
        near = [differences[j] for j in range(i - width // 2, i + width // 2 + 1) if 0 <= j < len(tau)]
        out.append(sum(near) / len(near))
    return out


def plain_r2(tau: np.ndarray, a: float, b: float) -> float:
    """R2 over the first 80 steps."""
    seen = tau[:80]
    residual = sum((v - a * math.tan(b * (i + 1))) ** 2 for i, v in enumerate(seen))
    return 1 - residual / sum((v - sum(seen) / len(seen)) ** 2 for v in seen)


# --- bend ----------------------------------------------------------------------------------------------------------


def test_the_papers_numbers():
    assert (TAU_LIMIT, R2_STEPS, R2_LEAST) == (10.0, 80, 0.85)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 5), st.floats(0.1, 0.999), st.integers(5, 140))
def test_an_exact_tangent_is_recovered(a, share, n):
    tau = tangent(a, share, n, of=n)
    found = bend(tau, limit=math.inf)
    b = share * np.pi / 2 / n
    assert found.fit == "tangent"
    assert found.points == n
    assert found.a == pytest.approx(a, rel=1e-3)
    assert found.b == pytest.approx(b, rel=1e-4)
    assert found.r2 == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found.slope, a * b / np.cos(b * np.arange(1, n + 1)) ** 2, rtol=5e-3)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 2), st.floats(0.05, 0.98), st.integers(0, 10**6))
def test_the_fit_is_the_least_squares_one(a, share, seed):
    """Nothing that a general solver finds, from many starts, lies lower."""
    rng = np.random.default_rng(seed)
    tau = np.clip(tangent(a, share) * (1 + 0.05 * rng.normal(size=100)), 0, 9)
    found = bend(tau)

    def misfit(p: np.ndarray) -> np.ndarray:
        return tau - p[0] * np.tan(p[1] * np.pi / 200 * T)

    own = float((misfit(np.array([found.a, found.b / (np.pi / 200)])) ** 2).sum())
    for start in (0.3, 0.7, 0.95):
        other = least_squares(misfit, (a, start), bounds=((0, 0), (np.inf, 1 - 1e-6)))
        assert own <= 2 * other.cost * 1.001 + 1e-9


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 30), min_size=2, max_size=120), st.booleans())
def test_the_pole_lies_past_the_last_point_that_was_fitted(values, rising):
    tau = np.sort(values) if rising else np.array(values)
    found = bend(tau)
    over = [i for i, v in enumerate(tau) if v > 10]
    assert found.points == (over[0] if over else len(tau))
    assert found.slope.shape == tau.shape
    if found.points >= 2 and tau[: found.points].any():
        assert 0 < found.b * found.points < np.pi / 2
        assert found.a >= 0
    else:
        assert math.isnan(found.a)
        assert math.isnan(found.b)
        assert found.fit == "differences"


def test_points_from_the_first_above_the_limit_on_are_left_out():
    """What comes after changes neither a nor b: not a return below the limit, not how far it goes."""
    tau = tangent(1.0, 0.97)
    first = int(np.flatnonzero(tau > 10)[0])
    assert 80 < first < 99
    found = bend(tau)
    assert found.points == first
    for after in (3.0, 11.0, 4000.0):
        changed = tau.copy()
        changed[first + 1 :] = after
        other = bend(changed)
        assert (other.a, other.b, other.points, other.r2) == (found.a, found.b, found.points, found.r2)
    exactly = tau.copy()
    exactly[first] = 10.0
    assert bend(exactly).points == first + 1, "10 itself does not exceed 10"


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 1.5), st.floats(0.3, 0.93), st.floats(0, 0.4), st.integers(0, 10**6))
def test_r2_is_that_of_the_first_80_steps(a, share, noise, seed):
    tau = np.abs(tangent(a, share) + noise * np.random.default_rng(seed).normal(size=100))
    assume(tau.max() < 10)
    found = bend(tau)
    assert found.r2 == pytest.approx(plain_r2(tau, found.a, found.b), abs=1e-9)
    assert found.fit == ("tangent" if found.r2 >= 0.85 else "differences")
    if found.fit == "tangent":
        np.testing.assert_allclose(found.slope, found.a * found.b / np.cos(found.b * T) ** 2)
    else:
        np.testing.assert_allclose(found.slope, plain_smooth(list(tau), 5), atol=1e-12)


def test_what_comes_after_step_80_does_not_count_for_r2():
    """The last points pull the fit, but are not judged by it."""
    tau = tangent(0.5, 0.9)
    tau[80:] *= 1.2
    found = bend(tau)
    assert found.r2 == pytest.approx(plain_r2(tau, found.a, found.b))
    assert found.r2 != pytest.approx(
        1 - ((tau - found.a * np.tan(found.b * T)) ** 2).sum() / ((tau - tau.mean()) ** 2).sum()
    )


def test_a_pole_between_the_last_fitted_point_and_step_80_falls_back():
    """tau leaves the fitted range at step 40: a tangent of those 40 says nothing of the first 80."""
    tau = np.concatenate([np.linspace(0.1, 9, 39), np.full(61, 11.0)])
    found = bend(tau)
    assert found.points == 39
    assert found.r2 < 0.85
    assert found.fit == "differences"


def test_a_curve_that_is_no_tangent_falls_back_to_smoothed_differences():
    tau = np.concatenate([np.linspace(0, 4, 30), np.full(70, 4.0)])
    found = bend(tau)
    assert found.fit == "differences"
    assert found.r2 < 0.85
    np.testing.assert_allclose(found.slope, plain_smooth(list(tau), 5), atol=1e-12)
    assert bend(tau, r2_least=-99).fit == "tangent"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 50), min_size=2, max_size=12), st.sampled_from([1, 3, 5, 7, 21]))
def test_the_fallback_is_a_centred_mean_of_any_odd_width(values, width):
    found = bend(values, r2_least=2, smooth=width)
    assert found.fit == "differences"
    assert found.slope.shape == (len(values),)
    np.testing.assert_allclose(found.slope, plain_smooth(values, width), atol=1e-9)


@pytest.mark.parametrize("tau", [[11.0, 12.0, 13.0], [3.0, 10.5, 2.0, 1.0], [0.0] * 100])
def test_too_few_points_fall_back(tau):
    found = bend(tau)
    assert found.fit == "differences"
    assert math.isnan(found.a)
    assert math.isnan(found.r2)
    np.testing.assert_allclose(found.slope, plain_smooth(tau, 5))


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 2), st.floats(0.2, 0.98), st.floats(0.01, 100), st.integers(0, 10**6))
def test_units_do_not_matter(a, share, factor, seed):
    """tau, limit and slope carry the same unit: all scaled alike, all come out scaled alike."""
    tau = np.sort(np.abs(tangent(a, share) * (1 + 0.1 * np.random.default_rng(seed).normal(size=100))))
    one, other = bend(tau), bend(factor * tau, limit=factor * TAU_LIMIT)
    assert other.points == one.points
    assert other.b == pytest.approx(one.b, rel=1e-4)
    assert other.a == pytest.approx(factor * one.a, rel=1e-3)
    assert other.fit == one.fit
    np.testing.assert_allclose(other.slope[:80], factor * one.slope[:80], rtol=5e-3, atol=1e-9)


def test_golden():
    """A curve with noise; the steps follow from cos(b * t) = sqrt(a * b / gamma) by hand."""
    tau = np.round(tangent(0.4, 0.95) + 0.02 * np.sin(T), 6)
    found = bend(tau)
    assert (found.fit, found.points) == ("tangent", 100)
    assert found.a == pytest.approx(0.4, abs=0.004)
    assert found.b == pytest.approx(0.95 * np.pi / 200, abs=1e-5)
    assert [stop(tau, found.slope, gamma).step for gamma in (0.01, 0.05, 0.2)] == [47, 82, 94]


@pytest.mark.parametrize(
    "tau",
    [[], [1.0], [[1.0, 2.0]], [1.0, math.nan], [1.0, math.inf], [0.1, -0.2, 0.3]],
    ids=["none", "one", "2d", "nan", "inf", "negative"],
)
def test_bad_curves_are_refused(tau):
    with pytest.raises(BadCall, match="threshold curve"):
        bend(tau)


def test_a_mean_of_even_width_is_refused():
    with pytest.raises(BadCall, match="odd"):
        bend([0.1, 0.2, 0.3], smooth=4)


# --- stop ----------------------------------------------------------------------------------------------------------


def test_stop_is_the_first_step_above_gamma_and_the_observed_tau():
    tau, slope = [0.1, 0.2, 0.4, 0.3, 9.0], [0.01, 0.05, 0.06, 0.01, 0.9]
    found = stop(tau, slope, 0.05)
    assert (found.gamma, found.step, found.tau) == (0.05, 3, 0.4), "0.05 itself does not exceed 0.05"
    assert stop(tau, slope, 0.0).step == 1
    assert stop(tau, slope, 0.5).tau == 9.0


def test_where_nothing_exceeds_gamma_there_is_no_stop():
    found = stop([0.1, 0.2], [0.01, 0.02], 0.02)
    assert found.step is None
    assert found.tau is None
    flat = bend([0.0] * 100)
    assert stop([0.0] * 100, flat.slope, 0.01).tau is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 12), min_size=5, max_size=100), st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_gamma_never_stops_later(values, one, other):
    tau = np.sort(values)
    slope = bend(tau).slope
    early, late = (stop(tau, slope, g) for g in sorted((one, other)))
    if late.step is not None:
        assert early.step is not None
        assert early.step <= late.step
        assert early.tau <= late.tau


def test_a_bend_says_what_it_is():
    found = bend(tangent(0.3, 0.9))
    assert isinstance(found, Bend)
    assert (found.slope[1:] > found.slope[:-1]).all(), "the slope of a tangent rises"
    past = bend(tangent(1.0, 0.97))
    assert past.slope[-1] > 0.5
    assert (past.slope > 0).all(), "past the pole a slope is infinite, never negative"


# --- from healthy scans --------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.002, 0.6), st.lists(st.integers(20, 400), min_size=1, max_size=5), st.integers(0, 10**6), st.booleans()
)
def test_healthy_threshold_leaves_the_wanted_rate(rate, sizes, seed, ties):
    rng = np.random.default_rng(seed)
    scans = [rng.gamma(2, rng.uniform(0.3, 3), size=n).astype(np.float32) for n in sizes]
    if ties:
        scans = [np.round(v) for v in scans]
    threshold = healthy_threshold(scans, rate)
    above = float(np.mean([(v > threshold).mean() for v in scans]))
    assert above <= rate * (1 + 1e-6)
    lower = [v[v < threshold].max() for v in scans if (v < threshold).any()]
    if lower:
        assert float(np.mean([(v > max(lower)).mean() for v in scans])) > rate * (1 - 1e-6), (
            "a lower one would leave too many"
        )
    if not ties:
        assert above >= rate - 2 / min(sizes)


def test_healthy_scans_count_alike_whatever_their_size():
    small, large = np.linspace(0, 1, 100), np.linspace(10, 11, 10_000)
    assert healthy_threshold([small, large], 0.5) == pytest.approx(1, abs=1e-9)
    assert healthy_threshold([small, large], 0.25) == pytest.approx(10.5, abs=1e-3)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 5.0])
def test_a_rate_outside_0_to_1_is_refused(rate):
    with pytest.raises(BadCall, match="between 0 and 1"):
        healthy_threshold([[1.0, 2.0]], rate)


def test_no_scan_and_an_empty_scan_are_refused():
    with pytest.raises(BadCall, match="no healthy scan"):
        healthy_threshold([], 0.01)
    with pytest.raises(BadCall, match="no voxel"):
        healthy_threshold([[1.0], []], 0.01)
