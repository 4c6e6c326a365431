"""What the studies of papers share: parts of cohorts, the slice of a 2D test, a table's lines, printed numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from anomri.cohort import Cohort
from anomri.errors import BadInput
from anomri.preprocess import brain, space
from anomri.scan import Scan
from anomri.study.plan import Entrant


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


def largest_slice(scan: Scan, rng: torch.Generator) -> Scan:
    """Of the axial slices 70 to 89 of BraTS' grid the one with the most lesion, alone (IterMask2's test).

    Raises `BadInput` where there is no lesion mask, or the grid has no such slices.
    """
    if scan.lesion is None:
        raise BadInput(f"scan '{scan.id}' has no lesion mask; the slice is chosen by it")
    if scan.grid.shape[2] < 90:
        raise BadInput(
            f"scan '{scan.id}' has {scan.grid.shape[2]} axial slices, the slice is one of 70 to 89; give it as BraTS has it (155 slices)"
        )
    k = 70 + int(scan.lesion[:, :, 70:90].sum(axis=(0, 1)).argmax())
    return space.crop_slices(scan, bottom=k, top=scan.grid.shape[2] - k - 1)


def lines(
    models: Mapping[str, tuple[str, Mapping[str, Any]]],
    group: str,
    *,
    shares: Mapping[str, str] = {},
    fit: str | None = None,
    validate: str | None = None,
    calibrate: str | None = None,
) -> dict[str, Entrant]:
    """The entrants "line, group" of a table's lines, all of one group, such as a sequence.

    Parameters
    ----------
    models : line to method and arguments
    shares : line to the line whose weights it takes; it sets the arguments in which the two differ, and fits nothing
    fit, validate, calibrate : as in `Entrant`
    """
    found = {}
    for line, (method, arguments) in models.items():
        if line in shares:
            own = models[shares[line]][1]
            differ = {name: value for name, value in arguments.items() if name not in own or own[name] != value}
            entrant = Entrant(method, shares=f"{shares[line]}, {group}", set=differ, calibrate=calibrate)
        else:
            entrant = Entrant(method, arguments, fit=fit, validate=validate, calibrate=calibrate)
        found[f"{line}, {group}"] = entrant
    return found


def expected(
    printed: Mapping[str, Mapping[str, Sequence[float | None]]], metrics: Sequence[str | None]
) -> dict[tuple[str, str, str], float]:
    """Printed numbers as a `Table` expects them: (line, group, metric) to value.

    Parameters
    ----------
    printed : group to line to values; None where nothing was printed
    metrics : what the values are; None for one that no metric measures
    """
    return {
        (line, group, metric): value
        for group, lines in printed.items()
        for line, values in lines.items()
        for metric, value in zip(metrics, values, strict=True)
        if value is not None and metric is not None
    }
