"""Thresholds found without labels.

*Subject-specific* (IterMask3D, section 3.4): while a mask shrinks by a fixed share a step, the threshold `tau(t)` that makes it
shrink rises slowly over normal tissue and abruptly at the anomaly. `a * tan(b * t)` is fitted to it (eq. 13), and the
threshold is the observed tau where the slope of the fit first exceeds gamma (eq. 14).

*From healthy scans*: the quantile of their maps that leaves a wanted false-positive rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator
from scipy.optimize import minimize_scalar
from torch import Tensor

from anomri.errors import BadCall

Curve = NDArray[np.float64]
TAU_LIMIT = 10.0
"""Points from the first tau above this on are left out of the fit (published code)."""
KEPT = 1001
"""Thresholds of a `healthy_curve`."""
R2_STEPS = 80
R2_LEAST = 0.85
RISE_STEPS = 4
MOST_MEASURED = 0.4


@dataclass(frozen=True)
class Bend:
    """What was made of a threshold curve of n steps.

    `slope (n,)`: change of tau per step, squared normalised intensity; `fit`: "tangent", or "differences" where the tangent
    does not fit; `a`, `b`, `points`: the tangent and how many points it was fitted to; `r2`: over the first 80 steps.
    """

    slope: Curve
    fit: str
    a: float
    b: float
    points: int
    r2: float


@dataclass(frozen=True)
class Stop:
    """Where a curve's slope first exceeds gamma: `step` (from 1) and `tau`, or None for both where it never does."""

    gamma: float
    step: int | None
    tau: float | None


def bend(tau: ArrayLike, *, limit: float = TAU_LIMIT, r2_least: float = R2_LEAST, smooth: int = 5) -> Bend:
    """Slope of a threshold curve, from a tangent where one fits.

    Parameters
    ----------
    tau : `(n,)`, thresholds of steps 1 to n, non-negative
    limit : the fit uses the points before tau first exceeds this, T of them, with 0 < b * T < pi / 2
    r2_least : below this R2 over the first 80 steps the slope is the finite differences (tau_0 = 0) under a centred mean
    smooth : width of that mean, odd; it is cut short at both ends

    Raises `BadCall` for fewer than 2 thresholds, or one that is negative or not finite. Source: IterMask3D, eq. 13 and 14,
    and section 3.4 of its second version (the fallback).
    """
    tau = np.asarray(tau, dtype=np.float64)
    if tau.ndim != 1 or len(tau) < 2 or not np.isfinite(tau).all() or tau.min() < 0:
        bad = int((~np.isfinite(tau) | (tau < 0)).sum())
        raise BadCall(
            f"a threshold curve needs at least 2 values in one row, finite and not negative; "
            f"it has shape {tau.shape}, {bad} of them NaN, infinite or negative"
        )
    if smooth % 2 == 0:
        raise BadCall(f"a centred mean needs an odd width, smooth is {smooth}")
    t = np.arange(1, len(tau) + 1, dtype=np.float64)
    over = np.flatnonzero(tau > limit)
    points = int(over[0]) if len(over) else len(tau)
    a = b = r2 = float("nan")
    if points >= 2 and tau[:points].any():
        a, b = _fit_tangent(t[:points], tau[:points])
        early = slice(0, R2_STEPS)
        fitted = _tangent(a, b, t[early])
        spread = float(((tau[early] - tau[early].mean()) ** 2).sum())
        r2 = 1 - float(((tau[early] - fitted) ** 2).sum()) / spread if spread > 0 else float("nan")
    if r2 >= r2_least:
        angle = b * t
        with np.errstate(over="ignore"):
            slope = np.where(angle < np.pi / 2, a * b / np.cos(np.minimum(angle, np.pi / 2 - 1e-9)) ** 2, np.inf)
        return Bend(slope, "tangent", a, b, points, r2)
    differences = np.diff(tau, prepend=0.0)
    half = smooth // 2
    mean = np.array([differences[max(0, i - half) : i + half + 1].mean() for i in range(len(tau))])
    return Bend(mean, "differences", a, b, points, r2)


def stop(tau: ArrayLike, slope: ArrayLike, gamma: float) -> Stop:
    """The observed tau at the first step whose slope exceeds gamma; no step and no tau where none does.

    gamma is in squared normalised intensity per step (IterMask3D: 0.05 for a 3D mask, 0.01 for detection and in 2D).
    """
    found = np.flatnonzero(np.asarray(slope) > gamma)
    if len(found) == 0:
        return Stop(gamma, None, None)
    return Stop(gamma, int(found[0]) + 1, float(np.asarray(tau)[found[0]]))


SCHEDULES = ("adaptive", "exact")
"""How a mask is shrunk while a threshold curve is looked for: several steps at once where it is flat (`stride`), or every step."""


def stride(tau: Mapping[int, float], gamma: float, steps: int) -> int:
    """How many steps can be made at once: as many as let tau rise by half as much again as gamma, going on as it did last.

    Parameters
    ----------
    tau : threshold of each measured step, from 1
    gamma : the slope that is looked for, per step
    steps : of the whole curve; a fifth of them is the most, and the first stride

    Returns 1 where tau rises as fast as gamma or faster: near the bend every step is made. A stride is never longer than the
    last (tau bends upwards, what looks flat again is noise; for the same reason the rise is taken over 4 steps or more), nor than a
    third of what is left (a small lesion is a bend at the very end). Where tau rises fast from the beginning, strides are long
    enough for about two fifths of the steps to do for the whole curve.
    """
    at = sorted(tau)
    if len(at) < 2:
        return max(1, steps // 5)
    last = at[-1]
    before = max((t for t in at if t <= last - RISE_STEPS), default=at[0])
    rise = (tau[last] - tau[before]) / (last - before)
    left = max(1, round(MOST_MEASURED * steps) - len(at))
    least = -(-(steps - last) // left)
    most = min(last - at[-2], max(1, (steps - last) // 3))
    return int(np.clip(1.5 * gamma / max(rise, 1e-12), min(least, most), most))


def between(tau: Mapping[int, float], steps: int) -> Curve:
    """A whole threshold curve `(steps,)` from the steps that were measured, the first and the last among them.

    Monotone cubic (PCHIP) in log tau, which is near a straight line where tau is flat.
    """
    at = sorted(tau)
    if len(at) == steps:
        return np.array([tau[t] for t in at])
    log = np.log(np.maximum([tau[t] for t in at], 1e-12))
    curve: Curve = np.exp(PchipInterpolator(at, log)(np.arange(1, steps + 1)))
    curve[np.array(at) - 1] = [tau[t] for t in at]
    return curve


def left_out(tau: Mapping[int, float]) -> float:
    """How far an interpolated threshold is off at most: the largest `|between without it - tau|` of the measured steps.

    Squared normalised intensity. Only steps next to ones that were left out count; 0 where none was.
    """
    at = sorted(tau)
    off = [
        abs(between({t: v for t, v in tau.items() if t != b}, at[-1])[b - 1] - tau[b])
        for a, b, c in zip(at, at[1:], at[2:], strict=False)
        if c - a > 2
    ]
    return float(max(off, default=0.0))


def _tangent(a: float, b: float, t: Curve) -> Curve:
    """`a * tan(b * t)` up to the pole; past it a huge value, so that a fit that misses early points shows it."""
    angle = b * t
    return np.where(angle < np.pi / 2, a * np.tan(np.minimum(angle, np.pi / 2 - 1e-9)), 1e12)


def _fit_tangent(t: Curve, tau: Curve) -> tuple[float, float]:
    """Least squares over a and b: for each b the best a is known, so one search over b finds the global minimum."""
    pole = np.pi / 2 / t[-1]

    def best_a(b: float) -> float:
        basis = np.tan(b * t)
        return float(basis @ tau / (basis @ basis))

    def misfit(share: float) -> float:
        b = share * pole
        return float(((tau - best_a(b) * np.tan(b * t)) ** 2).sum())

    shares = np.concatenate([np.linspace(0.01, 0.98, 98), 1 - np.geomspace(0.019, 1e-6, 40)])
    losses = [misfit(s) for s in shares]
    at = int(np.argmin(losses))
    low, high = shares[max(0, at - 1)], shares[min(len(shares) - 1, at + 1)]
    found = minimize_scalar(misfit, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    share = float(found.x) if found.fun <= losses[at] else float(shares[at])
    return best_a(share * pole), share * pole


def healthy_threshold(values: Iterable[ArrayLike], rate: float) -> float:
    """The lowest threshold that at most a share `rate` of healthy voxels exceed, each scan counting alike.

    Parameters
    ----------
    values : per healthy scan, its map's values inside the brain
    rate : wanted false-positive rate per voxel, in (0, 1)

    So the false-positive rate, its mean over these scans, is `rate` to within one voxel. Raises `BadCall` for a rate
    outside (0, 1) or no values.
    """
    if not 0 < rate < 1:
        raise BadCall(f"false-positive rate is {rate}, needs to be between 0 and 1")
    return float(_exceeded(values, np.array([rate]))[0])


def healthy_curve(values: Iterable[ArrayLike]) -> list[float]:
    """The thresholds that healthy voxels exceed by every share, in steps of 1/1000 from 0 to 1: `KEPT` of them, falling to 0.

    What a method keeps so that the share can be changed after `fit` (`on_curve`). Parameters, and errors, are those of
    `healthy_threshold`; values are 0 or more.
    """
    return [*_exceeded(values, np.arange(KEPT - 1) / (KEPT - 1)).tolist(), 0.0]


def _exceeded(values: Iterable[ArrayLike], rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lowest threshold that at most each share of healthy voxels exceed, each scan counting alike."""
    scans = [np.asarray(v).ravel() for v in values]
    if not scans:
        raise BadCall("no healthy scan to find a threshold from")
    if not all(len(v) for v in scans):
        raise BadCall("a healthy scan has no voxel inside the brain; leave it out of the calibration")
    pooled = np.concatenate(scans)
    weight = np.concatenate([np.full(len(v), 1 / (len(v) * len(scans))) for v in scans])
    rank = np.argsort(pooled, kind="stable")
    # Counted from the top, where the small shares are exact: how much lies above each value, which falls to 0.
    above = np.cumsum(weight[rank][::-1])[::-1] - weight[rank]
    above[-1] = 0
    enough = np.searchsorted(-above, -rates * (1 + 1e-9))
    found: NDArray[np.float64] = pooled[rank[enough]].astype(np.float64)
    return found


def on_curve(curve: Sequence[float], share: float) -> float:
    """The threshold that a share of healthy voxels exceeds, from a `healthy_curve`; between two of its shares, linear."""
    return float(np.interp(share, np.linspace(0, 1, len(curve)), curve))


def quantile(values: Tensor, share: float) -> Tensor:
    """The value of `(n,)` that a share of them do not exceed, one of them; 0 of none."""
    if len(values) == 0:
        return values.new_zeros(())
    return values.kthvalue(max(1, round(share * len(values)))).values
