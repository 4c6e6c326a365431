"""Which scan is for what: a table with a line per scan, drawn from a cohort, written, and read back.

Columns are `id`, `subject`, `split` (the part: fit, validate, test, or any other name) and, for cross-validation, `fold`: the fold
that a scan is held out in. Tables of others are read too, where they name scans in `img_name` or `participant_id`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from anomri import files
from anomri.cohort import Cohort
from anomri.cohorts.datasets import subject_of
from anomri.errors import BadCall, BadInput

IDS = ("id", "img_name", "participant_id")
"""Columns that name a scan, the first that is there."""
TRAIN, HELD = "train", ("validate", "test")
"""Parts that a fold's scans are in: trained on, and held out (for tests where the table has none already)."""


@dataclass(frozen=True)
class Member:
    """A line of a split: a scan, whose it is, its part, and the fold that holds it out."""

    id: str
    subject: str
    part: str = ""
    fold: int | None = None


@dataclass(frozen=True)
class Split:
    """The lines of one or several tables, in order."""

    members: tuple[Member, ...]

    def parts(self, fold: int | None = None) -> dict[str, tuple[str, ...]]:
        """The ids of each part.

        Parameters
        ----------
        fold : of a table with folds, the one that is held out: as 'test', or, where the table has such a part already, as
            'validate'; the other folds are 'train'

        Raises `BadCall` where a fold is needed, not wanted, or not there.
        """
        folds = sorted({m.fold for m in self.members if m.fold is not None})
        if folds and fold is None:
            raise BadCall(f"the split has folds {folds[0]} to {folds[-1]}; say which one is held out (--fold)")
        if fold is not None and fold not in folds:
            raise BadCall(f"the split has no fold {fold}; it has {', '.join(map(str, folds)) or 'none'}")
        held = HELD[0] if any(m.part == HELD[1] for m in self.members) else HELD[1]
        parts: dict[str, list[str]] = {}
        for m in self.members:
            part = m.part if m.fold is None else held if m.fold == fold else TRAIN
            parts.setdefault(part, []).append(m.id)
        return {name: tuple(ids) for name, ids in parts.items()}


LEFT_OUT = "left out"
"""The part of scans that a fit could not use, in the table that it writes; nobody reads them."""


def draw(
    cohort: Cohort, sizes: Mapping[str, int], *, folds: int = 0, seed: int = 0, stratify: str | None = None
) -> Split:
    """Draws parts of so many subjects each, and cuts what is left into folds, by the rules of `Cohort.split` and `Cohort.folds`.

    Without folds, scans in no part are left out. Raises `BadCall` where there are too few subjects.
    """
    found: dict[str, tuple[str, int | None]] = {}
    parts = cohort.split(*sizes.values(), seed=seed, stratify=stratify)
    for name, part in zip(sizes, parts, strict=True):
        found |= dict.fromkeys(part.ids, (name, None))
    if folds:
        rest = cohort.subset(i for i, id in enumerate(cohort.ids) if id not in found)
        for number, (_, test) in enumerate(rest.folds(folds, seed=seed, stratify=stratify), start=1):
            found |= dict.fromkeys(test.ids, ("", number))
    pairs = zip(cohort.ids, cohort.subjects, strict=True)
    return Split(tuple(Member(id, subject, *found[id]) for id, subject in pairs if id in found))


def write(path: str | Path, split: Split) -> None:
    """Writes a split as a table: id, subject, split, and fold where there are folds."""
    columns = ["id", "subject", "split", *(["fold"] if any(m.fold is not None for m in split.members) else [])]
    rows = [{"id": m.id, "subject": m.subject, "split": m.part, "fold": m.fold} for m in split.members]
    files.write_table(path, rows, columns)


def read(path: str | Path, part: str | None = None) -> Split:
    """Reads a split table.

    Parameters
    ----------
    part : of a table without a column split, the part that all its scans are in

    A scan's subject is what a column subject says, else what its name tells (`IXI002` of `IXI002-Guys-0828`), else the scan
    itself. Raises `BadInput` where a line says no scan or no part.
    """
    rows = files.read_table(path)
    names = list(rows[0]) if rows else []
    id = next((name for name in IDS if name in names), None)
    if id is None:
        raise BadInput(
            f"split table '{path}' has no column id; it needs columns id and split, and has {', '.join(names) or 'no lines'}"
        )
    if part is None and not {"split", "fold"} & {*names}:
        raise BadInput(
            f"split table '{path}' has no column split; it needs columns id and split, or the name of the part that it is: train={path}"
        )
    return Split(tuple(_member(path, row, id, part) for row in rows))


def _member(path: str | Path, row: Mapping[str, str], column: str, part: str | None) -> Member:
    name = row[column] if column == "id" else files.stem(row[column]) if _is_file(row[column]) else row[column]
    fold, said = row.get("fold", ""), part or row.get("split", "")
    if fold and not fold.isdecimal():
        raise BadInput(f"split table '{path}': scan '{name}' has fold '{fold}'; it needs a whole number")
    if not name or not (said or fold):
        raise BadInput(f"split table '{path}': scan '{name}' is in '{said}'; each line needs a scan and its part")
    subject = row.get("subject") or row.get("participant_id") or subject_of(name)
    return Member(name, subject, said, int(fold) if fold and part is None else None)


def _is_file(name: str) -> bool:
    return name.lower().endswith(files.NIFTI)


def merged(splits: Iterable[Split]) -> Split:
    """Several tables as one."""
    return Split(tuple(m for split in splits for m in split.members))
