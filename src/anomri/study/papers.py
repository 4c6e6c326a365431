"""What the studies of papers share: parts of cohorts, the slice of a 2D test, printed numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from anomri.cohort import Cohort
from anomri.errors import BadInput
from anomri.preprocess import brain, space
from anomri.scan import Scan


def robex(cohort: Cohort) -> Cohort:
    """The scans stripped by ROBEX; one that has a brain mask keeps it."""
    return cohort.map(space.reorient, partial(brain.extract, how="robex"))


def part(
    index: int, *sizes: int, seed: int = 0, skull: bool = False, facts: Mapping[str, str] | None = None
) -> Callable[[Cohort], Cohort]:
    """One part of a split by subject, one scan each; the last part is what the sizes leave.

    Parameters
    ----------
    sizes, seed : as in `Cohort.split`
    skull : the scans have one, that ROBEX takes off
    facts : column to value; only those scans
    """

    def taken(cohort: Cohort) -> Cohort:
        cohort = cohort.where(**facts) if facts else cohort
        subjects = cohort.subjects
        cohort = cohort.subset(subjects.index(subject) for subject in dict.fromkeys(subjects))
        chosen = cohort.split(*sizes, len(cohort) - sum(sizes), seed=seed)[index]
        return robex(chosen) if skull else chosen

    return taken


def largest_slice(scan: Scan, rng: torch.Generator) -> Scan:
    """Of the axial slices 70 to 89 of BraTS' grid the one with the most lesion, alone (IterMask2's test)."""
    if scan.lesion is None:
        raise BadInput(f"scan '{scan.id}' has no lesion mask; the slice is chosen by it")
    k = 70 + int(scan.lesion[:, :, 70:90].sum(axis=(0, 1)).argmax())
    return space.crop_slices(scan, bottom=k, top=scan.grid.shape[2] - k - 1)


def expected(
    printed: Mapping[str, Mapping[str, Sequence[float | None]]], metrics: Sequence[str]
) -> dict[tuple[str, str, str], float]:
    """Printed numbers, by group, line and metric, as a `Table` expects them; None where nothing was printed."""
    return {
        (line, group, metric): value
        for group, lines in printed.items()
        for line, values in lines.items()
        for metric, value in zip(metrics, values, strict=True)
        if value is not None
    }
