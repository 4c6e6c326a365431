"""Thresholds without labels: the tangent and where it bends, steps left out of its curve, and the quantile of healthy maps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator
from scipy.optimize import least_squares

from anomri.errors import BadCall
from anomri.scoring.thresholds import (
    KEPT,
    R2_LEAST,
    R2_STEPS,
    TAU_LIMIT,
    Bend,
    bend,
    between,
    healthy_curve,
    healthy_threshold,
    left_out,
    on_curve,
    stop,
    stride,
)

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


# --- steps left out ------------------------------------------------------------------------------------------------


@st.composite
def measured(draw, least: int = 2):
    """Some steps of a whole curve, both ends among them, and a tau for each: `(taus, steps)`."""
    steps = draw(st.integers(max(least, 3), 120))
    some = draw(st.sets(st.integers(1, steps), min_size=least - 2, max_size=30))
    at = sorted(some | {1, steps})
    values = draw(st.lists(st.floats(0, 20, allow_subnormal=False), min_size=len(at), max_size=len(at)))
    return dict(zip(at, values, strict=True)), steps


def walk(tau: np.ndarray, gamma: float) -> list[int]:
    """The steps that are measured on a known curve."""
    steps = len(tau)
    known = {1: float(tau[0])}
    while max(known) < steps:
        t = min(steps, max(known) + stride(known, gamma, steps))
        known[t] = float(tau[t - 1])
    return sorted(known)


@pytest.mark.parametrize(("steps", "first"), [(2, 1), (3, 1), (5, 1), (9, 1), (10, 2), (100, 20), (250, 50)])
def test_the_first_stride_is_a_fifth_of_the_curve(steps, first):
    assert stride({1: 0.3}, 0.01, steps) == first


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        ({1: 0.0, 21: 0.02}, 15),  # 0.001 a step: 15 steps rise by 1.5 gamma
        ({1: 0.0, 21: 0.02, 31: 0.05}, 5),  # 0.003 a step, over the last 10
        ({1: 0.0, 21: 0.02, 23: 0.09}, 2),  # 2 steps are too few: 0.0041 over 22 would let 3 be made, the last were 2
        ({1: 0.0, 11: 0.1, 20: 0.1}, 9),  # flat: as long as the last
        ({1: 0.5, 21: 0.3}, 20),  # falls
        ({1: 0.0, 21: 0.0, 41: 0.0, 61: 0.0, 70: 0.081}, 1),  # 0.009 a step: 1.67 steps, that is 1
        ({1: 0.0, 21: 0.0, 41: 0.0, 61: 0.0, 70: 0.063}, 2),
        ({1: 0.0, 21: 0.0, 41: 0.0, 61: 0.0, 70: 6.0}, 1),
        ({1: 0.0, 21: 0.0, 41: 0.0, 61: 0.0, 70: 0.1, 72: 0.1, 74: 0.124}, 2),  # 0.006 over the last 4, not 0.012
        ({1: 0.0, 21: 0.2}, 3),  # 0.01 a step: 38 measurements are left for 79 steps
        ({1: 0.0, 21: 5.0, 24: 5.0}, 3),
    ],
)
def test_a_stride_by_hand(tau, expected):
    assert stride(tau, 0.01, 100) == expected


@settings(max_examples=80)
@given(measured(), st.floats(1e-4, 1), st.integers(1, 100))
def test_a_stride_is_at_least_one_and_never_longer_than_the_last(known, gamma, left):
    tau, last = known
    at = sorted(tau)
    found = stride(tau, gamma, last + left)
    assert type(found) is int
    assert 1 <= found <= at[-1] - at[-2]
    assert stride(dict(reversed(list(tau.items()))), gamma, last + left) == found, "in any order"


@settings(max_examples=80)
@given(measured(), st.floats(1e-3, 0.1), st.floats(1, 10), st.floats(0, 5), st.integers(1, 100))
def test_a_stride_is_shorter_for_a_smaller_gamma_and_a_steeper_rise(known, gamma, factor, more, left):
    tau, last = known
    found = stride(tau, gamma, last + left)
    assert stride(tau, gamma * factor, last + left) >= found
    assert stride({**tau, last: tau[last] + more}, gamma, last + left) <= found


@settings(max_examples=60)
@given(measured(), st.floats(1e-3, 0.1), st.integers(1, 100))
def test_where_tau_rises_as_fast_as_gamma_every_step_is_made_that_may_be(known, gamma, left):
    """Every step, where two fifths of all steps last to the end; as many as those let, where not, up to a third of the rest."""
    tau, last = known
    at, steps = sorted(tau), last + left
    steep = {t: v + gamma * 1.001 * t for t, v in zip(at, sorted(tau.values()), strict=True)}
    may = max(1, round(0.4 * steps) - len(at))
    assert stride(steep, gamma, steps) == min(math.ceil(left / may), at[-1] - at[-2], max(1, left // 3))


@settings(max_examples=60)
@given(st.lists(st.floats(0, 5), min_size=20, max_size=250), st.booleans(), st.sampled_from([0.002, 0.01, 0.05]))
def test_no_curve_needs_much_more_than_two_fifths_of_its_steps(values, rising, gamma):
    tau = np.sort(values) if rising else np.array(values)
    at = walk(tau, gamma)
    assert (at[0], at[-1]) == (1, len(tau))
    # Towards the end a stride is a third of what is left at most, which takes a few steps more.
    assert len(at) <= round(0.4 * len(tau)) + 8
    assert (np.diff(np.diff(at)) <= 0).all()


@pytest.mark.parametrize("share", [0.97, 0.985, 0.999])
def test_near_the_bend_of_a_tangent_every_step_is_made(share):
    tau = tangent(0.1, share)
    at = walk(tau, 0.01)
    first = int(np.flatnonzero(np.diff(tau) > 0.015)[0]) + 1
    assert 60 < first < 90
    assert set(range(first, 101)) <= set(at)
    assert len(walk(np.full(100, 0.3), 0.01)) < 20


def test_one_noisy_fall_does_not_lengthen_the_strides():
    """Near the bend tau falls once: that is noise, and every step is still made; where it is flat, strides stay as they are."""
    tau = tangent(0.1, 0.985)
    at = walk(tau, 0.01)
    noisy = tau.copy()
    noisy[89] = noisy[80]
    assert at[-20:] == walk(noisy, 0.01)[-20:] == list(range(81, 101))
    early = at[3]
    noisy = tau.copy()
    noisy[early - 1] *= 0.8
    seen = walk(noisy, 0.01)
    assert seen[:4] == at[:4]
    assert (np.diff(np.diff(seen)) <= 0).all()
    assert seen[-20:] == at[-20:]


@settings(max_examples=80)
@given(measured())
def test_between_is_exact_at_measured_steps_and_stays_between_its_neighbours(known):
    tau, steps = known
    whole = between(tau, steps)
    assert whole.shape == (steps,)
    assert whole.dtype == np.float64
    at = sorted(tau)
    assert [whole[t - 1] for t in at] == [tau[t] for t in at]
    for a, b in itertools.pairwise(at):
        part, low, high = whole[a - 1 : b], *sorted((tau[a], tau[b]))
        assert (part >= low * (1 - 1e-9)).all()
        # A tau of 0 has no logarithm: 1e-12 stands for it between steps.
        assert (part <= high * (1 + 1e-9) + 1.1e-12).all()
        turn = np.diff(part) * np.sign(tau[b] - tau[a])
        assert (turn >= -1.1e-12 - 1e-9 * high).all()


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1e3), min_size=2, max_size=120))
def test_a_whole_curve_comes_back_as_it_is(values):
    tau = dict(enumerate(values, start=1))
    assert between(tau, len(values)).tolist() == values
    assert left_out(tau) == 0


def test_between_is_pchip_in_the_logarithm():
    at, tau = np.array([1, 16, 31, 44, 54, 62, 70, 75, 80]), tangent(0.2, 0.95)
    whole = between({int(t): tau[t - 1] for t in at}, 80)
    slow = np.exp(PchipInterpolator(at, np.log(tau[at - 1]))(np.arange(1, 81)))
    np.testing.assert_allclose(whole, slow)
    np.testing.assert_allclose(whole[20:], tau[20:80], rtol=0.03)
    grows = 0.003 * np.exp(0.04 * T)
    np.testing.assert_allclose(between({t: grows[t - 1] for t in (1, 21, 41, 77, 100)}, 100), grows, rtol=1e-12)


@pytest.mark.parametrize("tau", [{1: 0.0, 100: 0.0}, {1: 0.0, 21: 0.0, 41: 0.5, 100: 2.0}, {1: 0.3, 50: 0.0, 100: 0.3}])
def test_a_tau_of_zero_breaks_nothing(tau):
    whole = between(tau, 100)
    assert np.isfinite(whole).all()
    assert whole.min() >= 0
    assert np.isfinite(left_out(tau))
    assert np.isfinite(bend(whole).slope).all()
    if not any(tau.values()):
        assert whole.max() <= 1e-11
        assert stop(whole, bend(whole).slope, 1e-6).tau is None


def test_left_out_is_small_for_a_smooth_curve_and_larger_for_a_kinked_one():
    at = (1, 21, 41, 61, 81, 100)
    grows, smooth = 0.003 * np.exp(0.04 * T), 0.01 + 0.00002 * T**2
    kinked = smooth + 0.05 * np.maximum(0, T - 50)
    off = [left_out({t: tau[t - 1] for t in at}) for tau in (grows, smooth, kinked)]
    assert off[0] == pytest.approx(0, abs=1e-12)
    assert off[0] < off[1] < 0.1 < 0.2 < off[2]


@settings(max_examples=60)
@given(measured(), st.floats(1e-3, 0.1), st.integers(3, 100))
def test_a_stride_is_a_third_of_what_is_left_at_most(known, gamma, left):
    tau, last = known
    assert 1 <= stride(tau, gamma, last + left) <= max(1, left // 3)


def test_left_out_by_hand():
    """The middle one of three steps is judged by a straight line in the logarithm; those without a gap are not judged."""
    assert left_out({1: 1.0, 3: 3.0, 5: 4.0}) == pytest.approx(1.0)
    assert left_out({1: 1.0, 2: 3.0, 3: 4.0}) == 0
    whole = dict(enumerate([1.0, 9.0, 2.0, 8.0, 3.0, 7.0], start=1))
    assert left_out(whole) == 0
    # Step 1 to 5 is a gap on one side of step 5 alone: 5 counts, 6 and 7 do not.
    tau = {1: 1.0, 5: 2.0, 6: 40.0, 7: 3.0, 8: 4.0}
    rest = {t: v for t, v in tau.items() if t != 5}
    assert left_out(tau) == pytest.approx(abs(between(rest, 8)[4] - 2.0))
    assert left_out({1: 1.0, 3: 1.0, 5: 1.0, 7: 5.0, 9: 9.0}) > 1, "the worst place counts"


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


def test_a_curve_holds_the_threshold_of_every_share():
    rng = np.random.default_rng(0)
    scans = [rng.gamma(2, size=n) for n in (50, 700, 2000)]
    curve = healthy_curve(scans)
    assert len(curve) == KEPT
    assert curve == sorted(curve, reverse=True)
    assert (curve[0], curve[-1]) == (max(scan.max() for scan in scans), 0.0)
    for n in (1, 25, 500, 999):
        assert curve[n] == healthy_threshold(scans, n / 1000) == on_curve(curve, n / 1000)
    assert on_curve(curve, 0.0255) == pytest.approx((curve[25] + curve[26]) / 2)
    with pytest.raises(BadCall, match="no healthy scan"):
        healthy_curve([])
