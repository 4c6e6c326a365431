"""Means, intervals and tests over subjects and folds.

The subject is the unit: scans of one subject are not independent, so intervals resample subjects (`groups`), and a
comparison of two methods is paired by subject. An interval resamples what was drawn: healthy and anomalous scans apart,
because a study fixes how many of each it has.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomri.errors import BadCall

Values = NDArray[np.float64]
Counts = NDArray[np.int64]
ROUNDS = 10_000
CHUNK = 4_000_000
"""Values held at once while resampling: about 32 MB."""


@dataclass(frozen=True)
class Summary:
    """`mean`, `sd` (n - 1; nan for fewer than two values), how many values made them, and how many were NaN and left out."""

    mean: float
    sd: float
    count: int
    missing: int


@dataclass(frozen=True)
class Folds:
    """`over`: of the folds' means, which is the "mean and SD over folds" of tables; `within`: each fold's own, over subjects."""

    over: Summary
    within: dict[Hashable, Summary]


def summary(values: ArrayLike) -> Summary:
    """Mean and SD of the values that are not NaN, and how many of each there are."""
    given = np.asarray(values, dtype=np.float64).ravel()
    kept = given[~np.isnan(given)]
    mean = float(kept.mean()) if len(kept) else np.nan
    sd = float(kept.std(ddof=1)) if len(kept) > 1 and np.isfinite(kept).all() else np.nan
    return Summary(mean, sd, len(kept), len(given) - len(kept))


def mean_sd(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample SD (n - 1), NaN left out; `summary` says how many were."""
    found = summary(values)
    return found.mean, found.sd


def over_folds(values: ArrayLike, folds: ArrayLike, subjects: ArrayLike | None = None) -> Folds:
    """Mean and SD over subjects within each fold, then over the folds' means.

    Parameters
    ----------
    values : `(n,)`, NaN left out
    folds : `(n,)`, which fold each value is of
    subjects : `(n,)`; a subject's values within a fold (several scans or lesions) are averaged first, so that each
        subject counts once

    Raises `BadCall` where the lengths differ.
    """
    given, fold = _column("values", values), np.asarray(folds)
    subject = np.arange(len(given)) if subjects is None else np.asarray(subjects)
    _same_length(values=given, folds=fold, subjects=subject)
    within: dict[Hashable, Summary] = {}
    for name in _distinct(fold):
        here = fold == name
        per_subject = [mean_sd(given[here & (subject == one)])[0] for one in _distinct(subject[here])]
        within[name] = summary(per_subject)
    return Folds(summary([one.mean for one in within.values()]), within)


def bootstrap(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    paired: bool = False,
    groups: Sequence[ArrayLike] | None = None,
    rounds: int = ROUNDS,
    level: float = 0.95,
    seed: int = 0,
    centred: bool = False,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic.

    Parameters
    ----------
    statistic : takes the samples, resampled, as arrays; returns a number
    samples : each `(n,)`; each is drawn from on its own, with replacement, to its own length
    paired : the values at one place of all samples stay together (two methods on the same scans)
    groups : one `(n,)` per sample, the subject of every value; subjects are drawn, and with a subject all of its values in
        all samples. Subjects that occur in the same samples are drawn among themselves, so no sample runs empty
    rounds, level, seed : how often, the share inside the interval, and the seed of numpy's generator
    centred : shift the interval by the resamples' mean less the statistic of the samples themselves, its bootstrap bias

    The interval is a point where no resample differs (an AUROC of 1), which says nothing about how sure it is. nan where the
    statistic is nan in any round. Raises `BadCall` for no values, lengths that do not match, or a level outside (0, 1).
    Source: Efron and Tibshirani 1993, chapter 13.
    """
    columns = [_column("sample", s) for s in samples]
    found = [
        statistic(*(np.repeat(column, times) for column, times in zip(columns, once, strict=True)))
        for counts in _resamples(_subjects(columns, paired, groups), rounds, seed)
        for once in zip(*counts, strict=True)
    ]
    values = np.asarray(found, dtype=np.float64)
    return _interval(_centred(values, statistic(*columns)) if centred else values, level)


def mean_interval(
    values: ArrayLike, groups: ArrayLike | None = None, *, rounds: int = ROUNDS, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """`bootstrap` of the mean, NaN left out; all rounds at once. nan for no values or an infinite one."""
    column = _column("values", values)
    kept = ~np.isnan(column)
    subject = None if groups is None else np.asarray(groups)
    if subject is not None:
        _same_length(values=column, groups=subject)
        subject = subject[kept]
    column = column[kept]
    if not len(column) or not np.isfinite(column).all():
        return np.nan, np.nan
    drawn = _resamples(_subjects([column], False, None if subject is None else [subject]), rounds, seed)
    means = [counts @ column / counts.sum(axis=1) for (counts,) in drawn]
    return _interval(np.concatenate(means), level)


def auroc_interval(
    scores: ArrayLike,
    anomalous: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    rounds: int = ROUNDS,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """`bootstrap` of the AUROC, healthy and anomalous scans drawn apart; all rounds at once.

    Parameters
    ----------
    scores, anomalous : `(n,)` float and bool, one of each per scan
    groups : `(n,)`, each scan's subject, where one subject has several scans (a healthy one and its corrupted copy): they
        are drawn together

    Where subjects are in both classes the interval is centred (`bootstrap`), and cut at 0 and 1: a subject that is drawn twice
    is compared with itself four times, and with others twice, so that resamples overrate how it compares with itself.

    (nan, nan) where a class has no scan. Errors as in `bootstrap`; it holds healthy x anomalous pairs in memory.
    """
    split = _split(scores, anomalous, groups)
    if split is None:
        return np.nan, np.nan
    (healthy, ill), subjects = split
    wins = (ill > healthy[:, None]) + 0.5 * (ill == healthy[:, None])
    areas = [
        ((h @ wins) * a).sum(axis=1) / (h.sum(axis=1) * a.sum(axis=1))
        for h, a in _resamples(_subjects([healthy, ill], False, subjects), rounds, seed)
    ]
    found = np.concatenate(areas)
    if _shared(subjects):
        found = _centred(found, float(wins.mean())).clip(0, 1)
    return _interval(found, level)


def case_interval(
    metric: Callable[[ArrayLike, ArrayLike], float],
    scores: ArrayLike,
    anomalous: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    rounds: int = ROUNDS,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """`bootstrap` of any metric of `metrics.case.CASE_METRICS`; arguments and answer as in `auroc_interval`."""
    split = _split(scores, anomalous, groups)
    if split is None:
        return np.nan, np.nan

    def of_both(healthy: Values, ill: Values) -> float:
        return metric(np.concatenate([healthy, ill]), np.repeat([False, True], [len(healthy), len(ill)]))

    low, high = bootstrap(
        of_both, *split[0], groups=split[1], rounds=rounds, level=level, seed=seed, centred=_shared(split[1])
    )
    return max(low, 0.0), min(high, 1.0)


def permutation_test(a: ArrayLike, b: ArrayLike, *, rounds: int = ROUNDS, seed: int = 0) -> float:
    """p of the paired, two-sided permutation test on the mean difference.

    Parameters
    ----------
    a, b : `(n,)`, two methods' values on the same subjects in the same order; a pair with a NaN is left out
    rounds : sign patterns tried; all 2^n of them where these are no more (then p is exact)
    seed : of numpy's generator

    p is the share of sign patterns whose mean difference is at least as far from 0 as the one seen; drawn patterns count the
    one seen among them, so p is never 0. nan without a pair or with an infinite value. Raises `BadCall` where the lengths
    differ. Sources: 10,000 rounds at 5 %, Behrendt's thesis, section 3.2 (which leaves open whether its pairs are kept;
    here they are); the one added, Phipson and Smyth 2010.
    """
    x, y = _column("a", a), _column("b", b)
    _same_length(a=x, b=y)
    kept = ~np.isnan(x) & ~np.isnan(y)
    x, y = x[kept], y[kept]
    if not len(x) or not np.isfinite([x, y]).all():
        return np.nan
    n, difference = len(x), x - y
    # Equal values can differ by rounding, and so can equal sums.
    seen = abs(difference.sum()) - 1e-12 * (np.abs(x) + np.abs(y)).sum()
    exact = 2**n <= rounds
    total = 2**n if exact else rounds
    rng, far, step = np.random.default_rng(seed), 0, max(1, CHUNK // n)
    for start in range(0, total, step):
        size = min(step, total - start)
        if exact:
            flipped = np.arange(start, start + size)[:, None] >> np.arange(n) & 1
        else:
            flipped = rng.integers(0, 2, (size, n), dtype=np.int8)
        far += int((np.abs((1 - 2 * flipped) @ difference) >= seen).sum())
    return far / total if exact else (far + 1) / (total + 1)


def holm(p_values: ArrayLike) -> Values:
    """p values adjusted so that the chance of any false finding is held (family-wise), in the order given.

    NaN stays NaN and is not counted as a comparison. Raises `BadCall` for a p outside [0, 1]. Source: Holm 1979.
    """
    return _adjusted(p_values, lambda p: np.maximum.accumulate(p * np.arange(len(p), 0, -1)))


def benjamini_hochberg(p_values: ArrayLike) -> Values:
    """p values adjusted so that the expected share of false findings is held (false discovery rate), in the order given.

    For independent or positively dependent tests. NaN and errors as in `holm`. Source: Benjamini and Hochberg 1995.
    """
    return _adjusted(p_values, lambda p: np.minimum.accumulate((p * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1])


def _adjusted(p_values: ArrayLike, rule: Callable[[Values], Values]) -> Values:
    """A rule for p values in rising order, put back in the order given."""
    p = _column("p values", p_values)
    known = np.flatnonzero(~np.isnan(p))
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise BadCall(f"p values lie in [0, 1], these from {np.nanmin(p):g} to {np.nanmax(p):g}")
    order = known[np.argsort(p[known], kind="stable")]
    out = np.full(len(p), np.nan)
    out[order] = np.minimum(rule(p[order]), 1.0)
    return out


def _subjects(columns: list[Values], paired: bool, groups: Sequence[ArrayLike] | None) -> list[NDArray[np.intp]]:
    """Per sample, the subject number of each value; values of one subject are drawn together."""
    if not columns or not all(len(c) for c in columns):
        raise BadCall(f"a bootstrap needs values, samples have {[len(c) for c in columns]}")
    if groups is not None and paired:
        raise BadCall("give groups or paired, not both: groups say which values stay together")
    if groups is None and paired:
        groups = [np.arange(len(c)) for c in columns]
        _same_length(**{f"sample {i}": c for i, c in enumerate(columns)})
    if groups is None:
        ends = np.cumsum([len(c) for c in columns])
        groups = np.split(np.arange(ends[-1]), ends[:-1])
    named = [np.asarray(g) for g in groups]
    if [g.shape for g in named] != [c.shape for c in columns]:
        raise BadCall(
            f"samples have {[len(c) for c in columns]} values, groups {[g.size for g in named]}; give one each"
        )
    number = np.unique(np.concatenate(named), return_inverse=True)[1]
    return np.split(number, np.cumsum([len(c) for c in columns])[:-1])


def _resamples(subjects: list[NDArray[np.intp]], rounds: int, seed: int) -> Iterator[list[Counts]]:
    """Per chunk of rounds, for each sample `(rounds, n)`: how often each value is drawn."""
    if rounds < 1:
        raise BadCall(f"a bootstrap needs rounds of 1 or more, got {rounds}")
    count = 1 + max(int(s.max()) for s in subjects)
    # Which samples a subject occurs in: those of one pattern are exchangeable.
    pattern = np.zeros(count, dtype=np.int64)
    for bit, sample in enumerate(subjects):
        pattern[np.unique(sample)] |= 1 << bit
    strata = [np.flatnonzero(pattern == p) for p in np.unique(pattern)]
    rng, step = np.random.default_rng(seed), max(1, CHUNK // max(count, *(len(s) for s in subjects)))
    for start in range(0, rounds, step):
        size = min(step, rounds - start)
        drawn = np.empty((size, count), dtype=np.int64)
        for stratum in strata:
            n = len(stratum)
            picks = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
            drawn[:, stratum] = np.bincount(picks.ravel(), minlength=size * n).reshape(size, n)
        yield [drawn[:, sample] for sample in subjects]


def _split(
    scores: ArrayLike, anomalous: ArrayLike, groups: ArrayLike | None
) -> tuple[list[Values], list[NDArray[Any]] | None] | None:
    """Scores of healthy and of anomalous scans, and their subjects; None where a class has no scan."""
    values, truth = _column("scores", scores), np.asarray(anomalous, dtype=bool)
    subject = None if groups is None else np.asarray(groups)
    _same_length(scores=values, anomalous=truth, **({} if subject is None else {"groups": subject}))
    if np.isnan(values).any():
        raise BadCall(
            f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN; leave those scans out, and say so"
        )
    if truth.all() or not truth.any():
        return None
    return [values[~truth], values[truth]], None if subject is None else [subject[~truth], subject[truth]]


def _shared(subjects: Sequence[NDArray[Any]] | None) -> bool:
    """Is a subject both among the healthy and the anomalous scans?"""
    return subjects is not None and bool(np.isin(subjects[0], subjects[1]).any())


def _centred(found: Values, seen: float) -> Values:
    moved: Values = found - (found.mean() - seen)
    return moved


def _interval(found: Values, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise BadCall(f"level is {level}, needs to be between 0 and 1, such as 0.95")
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _column(name: str, values: ArrayLike) -> Values:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise BadCall(f"{name} has shape {column.shape}, needs one axis")
    return column


def _same_length(**columns: NDArray[Any]) -> None:
    if len({c.shape for c in columns.values()}) > 1:
        raise BadCall(", ".join(f"{name} has shape {c.shape}" for name, c in columns.items()) + "; give one of each")


def _distinct(names: NDArray[Any]) -> list[Any]:
    """Each name once, in order of first appearance."""
    return list(dict.fromkeys(names.tolist()))
