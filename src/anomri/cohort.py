"""An ordered set of scans, read when they are asked for."""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from anomri import files
from anomri.errors import BadCall, BadInput
from anomri.scan import Scan

Step = Callable[[Scan], Scan]
BINS = 5
"""Classes that a column of numbers is cut into for a stratified split."""


@dataclass(frozen=True)
class Entry:
    """A scan that has not been read yet: files by sequence, masks, and what its table says of it.

    The fact `subject` (or `participant_id`) says whose scan it is; without one, an id such as `sub-01_ses-2` does.

    Parameters
    ----------
    lesion : its mask, or several that are merged
    lesion_labels : the values in these masks that are lesion; where there are none, whatever is above 0.5
    """

    id: str
    images: Mapping[str, str]
    brain: str | None = None
    lesion: str | tuple[str, ...] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    lesion_labels: tuple[int, ...] = ()

    @property
    def lesions(self) -> tuple[str, ...]:
        """The lesion masks, which are merged into one."""
        return (self.lesion,) if isinstance(self.lesion, str) else self.lesion or ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file of the scan: images, brain, lesions."""
        return (*self.images.values(), *([self.brain] if self.brain else []), *self.lesions)

    def read(self) -> Scan:
        """Reads the files; raises `BadInput`."""
        return files.read_scan(
            self.images, id=self.id, brain=self.brain, lesion=self.lesions or None, lesion_labels=self.lesion_labels
        )


class Cohort(Sequence[Scan]):
    """An ordered set of scans; each is read, and its steps are run, when it is asked for.

    Parameters
    ----------
    entries : what to read, or scans that are already in memory
    steps : preprocessing, `Scan -> Scan`, run in order after reading
    keep : keep every scan in memory, preprocessed, once it was asked for

    Raises `BadCall` where two entries have the same id.
    """

    def __init__(self, entries: Iterable[Entry | Scan], steps: Iterable[Step] = (), *, keep: bool = False) -> None:
        self.entries: tuple[Entry | Scan, ...] = tuple(entries)
        self.steps = tuple(steps)
        self._kept: dict[int, Scan] | None = {} if keep else None
        self._digest: str | None = None
        seen: set[str] = set()
        for entry in self.entries:
            if entry.id in seen:
                raise BadCall(f"scan id '{entry.id}' occurs twice in the cohort; ids must differ")
            seen.add(entry.id)

    @property
    def ids(self) -> tuple[str, ...]:
        """The scans' names, in order."""
        return tuple(entry.id for entry in self.entries)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whose scan each is, in order; a scan that nothing is said of is a subject of its own."""
        return tuple(_subject(entry) for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: Any) -> Any:
        """The scan at an index, read now; or, for a slice, a smaller cohort."""
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        index = range(len(self))[index]
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        entry = self.entries[index]
        scan = entry if isinstance(entry, Scan) else entry.read()
        for step in self.steps:
            scan = step(scan)
        if self._kept is not None:
            self._kept[index] = scan
        return scan

    def __iter__(self) -> Iterator[Scan]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Cohort({len(self)} scans, {len(self.steps)} steps)"

    def map(self, *steps: Step) -> Cohort:
        """The cohort with steps added; nothing is read yet."""
        return self._like(Cohort(self.entries, (*self.steps, *steps)))

    def kept(self) -> Cohort:
        """The cohort with every scan kept in memory, preprocessed, once it was asked for."""
        return self._like(Cohort(self.entries, self.steps, keep=True))

    def _like(self, same: Cohort) -> Cohort:
        """The same entries, under the digest that they have here."""
        same._digest = self._digest
        return same

    def usable(self, told: Callable[[int, str], None] | None = None) -> tuple[Cohort, dict[str, str]]:
        """The scans that can be read and preprocessed, in memory; and of each other one, by its id, what is wrong with it.

        `told` is called with how many were tried, and the id of the last. Raises `BadInput` where none can be used.
        """
        scans: list[Scan] = []
        wrong: dict[str, str] = {}
        for index, name in enumerate(self.ids):
            try:
                scans.append(self[index])
            except BadInput as error:
                wrong[name] = str(error)
            if told is not None:
                told(index + 1, name)
        if wrong and not scans:
            first = next(iter(wrong.values()))
            raise BadInput(f"none of the {len(self)} scans can be used; the first: {first}")
        found = Cohort(scans)
        # What a training depends on is told as files tell it, whatever the last digits of their preprocessing.
        found._digest = self.subset(i for i, name in enumerate(self.ids) if name not in wrong).digest()
        return found, wrong

    @classmethod
    def joined(cls, parts: Mapping[str, Cohort]) -> Cohort:
        """All scans of several cohorts, in order; where parts share an id, all ids and subjects become "name of the part: id".

        Raises `BadCall` where their steps differ: join first, then `map`.
        """
        steps = {part.steps for part in parts.values()}
        if len(steps) > 1:
            raise BadCall(
                f"cohorts {', '.join(parts)} have different steps and cannot be joined; join them first, then map"
            )
        apart = len({id for part in parts.values() for id in part.ids}) == sum(map(len, parts.values()))
        entries: list[Entry | Scan] = []
        for name, part in parts.items():
            for entry in part.entries:
                if not apart:
                    id, whose = f"{name}: {entry.id}", f"{name}: {_subject(entry)}"
                    if isinstance(entry, Scan):
                        entry = entry.with_(id=id)
                    else:
                        entry = replace(entry, id=id, facts={**entry.facts, "subject": whose})
                entries.append(entry)
        return cls(entries, next(iter(steps), ()))

    def subset(self, indices: Iterable[int]) -> Cohort:
        """The scans at some indices, in that order."""
        return Cohort([self.entries[i] for i in indices], self.steps)

    def only(self, ids: Iterable[str]) -> Cohort:
        """The scans with these ids, in that order; raises `BadInput` where one is missing."""
        place = {name: i for i, name in enumerate(self.ids)}
        ids = list(ids)
        missing = [name for name in ids if name not in place]
        if missing:
            raise BadInput(
                f"no scan '{missing[0]}' in the cohort ({len(missing)} of {len(ids)} ids are missing); it has {few(self.ids)}"
            )
        return self.subset(place[name] for name in ids)

    def column(self, name: str) -> tuple[str | None, ...]:
        """What the table says of each scan in one column, in order; raises `BadInput` for a column that no scan has."""
        said = tuple(_facts(entry).get(name) for entry in self.entries)
        if not any(s is not None for s in said):
            known = sorted({k for entry in self.entries for k in _facts(entry)})
            raise BadInput(f"no column '{name}' in the cohort's table; it has {', '.join(known) or 'none'}")
        return said

    def where(self, **facts: str) -> Cohort:
        """The scans whose table says so, such as `where(group="control")`.

        Raises `BadInput` for a column that no scan has, or where no scan is left.
        """
        chosen = list(range(len(self)))
        for name, value in facts.items():
            said = self.column(name)
            if value not in said:
                raise BadInput(f"no scan with {name} '{value}'; {name} has {few(sorted({s for s in said if s}))}")
            chosen = [i for i in chosen if said[i] == value]
        if not chosen:
            raise BadInput(
                f"no scan with {' and '.join(f'{k} {v!r}' for k, v in facts.items())}; take a condition away"
            )
        return self.subset(chosen)

    def split(self, *sizes: int, seed: int = 0, stratify: str | None = None) -> tuple[Cohort, ...]:
        """Disjoint parts of so many subjects each, drawn by a seeded rule that depends on the ids, not on their order.

        Sizes count subjects, and all scans of a subject go to one part: where each subject has one scan, that is scans. The
        draw orders subjects by the SHA-256 of "seed/id", id being the subject's first in the alphabet.

        Parameters
        ----------
        stratify : a column whose values each part shall have nearly in the cohort's proportions. Numbers (more than five
            different ones) are cut at their quantiles into five classes; a missing value is a class of its own

        Raises `BadCall` where there are fewer subjects than the sizes together, `BadInput` for a column that no scan has.
        """
        order = self._drawn(seed, stratify)
        if min(sizes, default=0) < 0 or sum(sizes) > len(order):
            raise BadCall(
                f"a cohort of {len(order)} subjects ({len(self)} scans) cannot be split into "
                + " + ".join(map(str, sizes))
                + (f" = {sum(sizes)}" if len(sizes) > 1 else "")
            )
        ends = accumulate(sizes, initial=0)
        return tuple(self.subset(sorted(i for scans in order[a:b] for i in scans)) for a, b in pairwise(ends))

    def folds(self, k: int, *, seed: int = 0, stratify: str | None = None) -> list[tuple[Cohort, Cohort]]:
        """K pairs (train, test): the test parts hold every subject once, in sizes that differ by one at most.

        Drawn as in `split`, with the same `stratify`. Raises `BadCall` where k is below 2 or above the number of subjects.
        """
        n = len(set(self.subjects))
        if not 2 <= k <= n:
            raise BadCall(f"a cohort of {n} subjects ({len(self)} scans) cannot be cut into {k} folds; use 2 to {n}")
        tests = self.split(*(n // k + (i < n % k) for i in range(k)), seed=seed, stratify=stratify)
        pairs = []
        for test in tests:
            held = set(test.ids)
            pairs.append((self.subset(i for i, id in enumerate(self.ids) if id not in held), test))
        return pairs

    def _drawn(self, seed: int, stratify: str | None) -> list[list[int]]:
        """The scans of each subject, subjects in the order in which a split takes them.

        Stratified, it is systematic sampling: the r-th of a class of n subjects stands at (r + u) / n, u drawn once for a class.
        Any run of subjects in that order then has the classes in proportion.
        """
        members: dict[str, list[int]] = {}
        for i, subject in enumerate(self.subjects):
            members.setdefault(subject, []).append(i)
        firsts = {scans[0]: min(scans, key=lambda i: self.ids[i]) for scans in members.values()}

        def drawn(scans: list[int]) -> str:
            return _hash(seed, self.ids[firsts[scans[0]]])

        order = sorted(members.values(), key=drawn)
        if stratify is None:
            return order
        classes = _classes(self.column(stratify))
        strata: dict[str, list[list[int]]] = {}
        for scans in order:
            strata.setdefault(classes[firsts[scans[0]]], []).append(scans)
        placed = []
        for name, stratum in strata.items():
            start = int(_hash(seed, f"{stratify}={name}")[:8], 16) / 16**8
            placed += [((r + start) / len(stratum), drawn(scans), scans) for r, scans in enumerate(stratum)]
        return [scans for _, _, scans in sorted(placed)]

    def batches(self, size: int) -> Iterator[list[Scan]]:
        """Lists of `size` scans in order; the last may be shorter."""
        for start in range(0, len(self), size):
            yield [self[i] for i in range(start, min(start + size, len(self)))]

    def digest(self) -> str:
        """A hash of what the cohort is made of: ids, names and sizes of files (contents of scans in memory)."""
        if self._digest is not None:
            return self._digest
        h = hashlib.sha256()
        for entry in self.entries:
            h.update(f"{entry.id}\n".encode())
            if isinstance(entry, Scan):
                h.update(entry.image.tobytes())
            else:
                for path in map(Path, entry.images.values()):
                    h.update(f"{path.name} {path.stat().st_size if path.exists() else -1}\n".encode())
        return h.hexdigest()


def _facts(entry: Entry | Scan) -> Mapping[str, str]:
    return entry.facts if isinstance(entry, Entry) else {}


def _subject(entry: Entry | Scan) -> str:
    facts = _facts(entry)
    named = re.match(r"(.*: )?sub-[A-Za-z0-9]+(?=_|$)", entry.id)
    return facts.get("subject") or facts.get("participant_id") or (named[0] if named else entry.id)


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _classes(values: Sequence[str | None]) -> list[str]:
    """Each value's class: itself; or, of many different numbers, the fifth of them that it lies in."""
    numbers = [_number(value) for value in values]
    known = [n for n in numbers if n is not None]
    told = sum(bool(value) for value in values)
    if len(known) < told or len(set(known)) <= BINS:
        return [value or "" for value in values]
    edges = [float(e) for e in np.quantile(known, np.arange(1, BINS) / BINS)]
    return ["" if n is None else str(bisect_right(edges, n)) for n in numbers]


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def few(names: Sequence[str]) -> str:
    """The first five of some names, and how many there are."""
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")
