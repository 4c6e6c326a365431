"""What the studies of papers share: parts of cohorts, a table's lines, printed numbers; and a module for each group's protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from anomri.cohort import Cohort
from anomri.preprocess import brain, space
from anomri.study.plan import Entrant

Models = Mapping[str, tuple[str, Mapping[str, Any]]]
"""A table's lines: of each its method and arguments."""
Printed = Mapping[str, Mapping[str, Sequence[float | None]]]
"""A table's numbers: group of columns to line to values; None where nothing was printed."""


def robex(cohort: Cohort) -> Cohort:
    """The scans stripped by ROBEX; one that has a brain mask keeps it."""
    return cohort.map(space.reorient, partial(brain.extract, how="robex"))


def part(
    index: int, *sizes: int, seed: int = 0, skull: bool = False, facts: Mapping[str, str] | None = None
) -> Callable[[Cohort], Cohort]:
    """One part of a split by subject, of each the scan whose id is first; the last part is what the sizes leave.

    Parameters
    ----------
    sizes, seed : as in `Cohort.split`
    skull : the scans have one, that ROBEX takes off
    facts : column to value; only those scans

    What it gives raises `BadCall` for a cohort of fewer subjects than the sizes together.
    """

    def taken(cohort: Cohort) -> Cohort:
        cohort = cohort.where(**facts) if facts else cohort
        # By ids, not by order: the split depends on them.
        scans = sorted(zip(cohort.ids, cohort.subjects, range(len(cohort)), strict=True), reverse=True)
        cohort = cohort.subset(sorted({subject: index for _, subject, index in scans}.values()))
        chosen = cohort.split(*sizes, max(0, len(cohort) - sum(sizes)), seed=seed)[index]
        return robex(chosen) if skull else chosen

    return taken


def lines(
    models: Models,
    group: str,
    *,
    shares: Mapping[str, str] = {},
    fit: str | None = None,
    validate: str | None = None,
    calibrate: str | None = None,
    pipeline: str = "itermask3d",
) -> dict[str, Entrant]:
    """The entrants "line, group" of a table's lines, all of one group, such as a sequence.

    Parameters
    ----------
    models : line to method and arguments
    shares : line to the line whose weights it takes; it sets the arguments in which the two differ, and fits nothing
    fit, validate, calibrate, pipeline : as in `Entrant`
    """
    found = {}
    for line, (method, arguments) in models.items():
        if line in shares:
            own = models[shares[line]][1]
            differ = {name: value for name, value in arguments.items() if name not in own or own[name] != value}
            entrant = Entrant(method, shares=f"{shares[line]}, {group}", set=differ, calibrate=calibrate)
        else:
            entrant = Entrant(method, arguments, fit=fit, validate=validate, calibrate=calibrate, pipeline=pipeline)
        found[f"{line}, {group}"] = entrant
    return found


def expected(printed: Printed, metrics: Sequence[str | None]) -> dict[tuple[str, str, str], float]:
    """Printed numbers as a `Table` expects them: (line, group, metric) to value.

    Parameters
    ----------
    metrics : what the values are; None for one that no metric measures
    """
    return {
        (line, group, metric): value
        for group, lines in printed.items()
        for line, values in lines.items()
        for metric, value in zip(metrics, values, strict=True)
        if value is not None and metric is not None
    }
