"""What is wrong with a cohort or a split, before it costs a training: leaks, duplicates, files that cannot be used.

Images are compared by the values that they hold, whatever their header, file name, compression, order of voxels or padding with
zeros. Values must agree exactly: an image that was resampled or rescaled is another one. Scans are read one by one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anomri import files
from anomri.cohort import Cohort, Entry, few
from anomri.cohorts.splits import Split
from anomri.errors import BadInput
from anomri.preprocess.brain import stripped_mask
from anomri.scan import Array, Grid, Mask, Scan

OUTSIDE = 0.01
"""Share of a lesion that may lie outside the brain."""
ODD = 5
"""How many unusual grids a remark names."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with scans; a remark is odd, but may be right.

    `kind`: duplicate, leak, twice, unknown, missing, unreadable, constant, grid, brain, lesion, outside, empty, unused, shared, odd grid.
    """

    kind: str
    ids: tuple[str, ...]
    text: str
    remark: bool = False


@dataclass
class _Seen:
    """What is kept of the scans that were read: a few words each."""

    grids: dict[str, Grid] = field(default_factory=dict)
    contents: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


def check(
    cohort: Cohort, split: Split | None = None, *, progress: Callable[[int, str], None] | None = None
) -> list[Problem]:
    """Reads every file of a cohort and says what is wrong, problems before remarks.

    Found are: images that are the same, missing sequences, files that cannot be read, parts on different grids, lesions outside
    the brain, empty masks, grids that differ from most; and, with a split, what `check_split` finds, and scans that it does not know.

    Parameters
    ----------
    progress : told the number of scans done, and the last one's id
    """
    seen = _Seen()
    problems = _missing(cohort.entries)
    for number, entry in enumerate(cohort.entries, start=1):
        problems += _scan(entry, seen)
        if progress:
            progress(number, entry.id)
    problems += _duplicates(seen, split)
    problems += _odd_grids(seen.grids)
    if split is not None:
        problems += [*check_split(split), *_against(cohort, split)]
    return sorted(problems, key=lambda problem: problem.remark)


def check_split(split: Split) -> list[Problem]:
    """What is wrong with a split by itself: a scan listed twice, a scan or a subject in two parts or in two folds."""
    counts = Counter((m.id, _place(m.part, m.fold)) for m in split.members)
    problems = [
        Problem("twice", (id,), f"scan '{id}' is listed {count} times in {place}")
        for (id, place), count in counts.items()
        if count > 1
    ]
    places: dict[str, list[str]] = {}
    for id, place in counts:
        places.setdefault(id, []).append(place)
    problems += [
        Problem("leak", (id,), f"scan '{id}' is in {' and in '.join(where)}")
        for id, where in places.items()
        if len(where) > 1
    ]
    people: dict[str, dict[str, list[str]]] = {}
    for m in split.members:
        people.setdefault(m.subject, {}).setdefault(_place(m.part, m.fold), []).append(m.id)
    for subject, where in people.items():
        ids = tuple(dict.fromkeys(id for scans in where.values() for id in scans))
        if len(where) > 1 and len(ids) > 1:
            told = " and in ".join(f"{place} ({few(list(dict.fromkeys(scans)))})" for place, scans in where.items())
            problems.append(Problem("leak", ids, f"subject '{subject}' is in {told}"))
    return problems


def together(cohorts: Mapping[str, Cohort]) -> Cohort:
    """The scans of several sequences' cohorts, with all images that each has: one that some lack is missing, not refused."""
    entries: dict[str, Entry] = {}
    for cohort in cohorts.values():
        for entry in cohort.entries:
            assert isinstance(entry, Entry)
            old = entries.get(entry.id, entry)
            images = {**old.images, **entry.images}
            entries[entry.id] = Entry(
                entry.id,
                images,
                old.brain or entry.brain,
                old.lesion or entry.lesion,
                {**entry.facts, **old.facts},
                old.lesion_labels,
            )
    return Cohort(entries.values())


def shared(cohorts: Mapping[str, Cohort]) -> list[Problem]:
    """Remarks on subjects of one name that several cohorts have: their names may mean different people."""
    where: dict[str, dict[str, list[str]]] = {}
    for name, cohort in cohorts.items():
        for id, subject in zip(cohort.ids, cohort.subjects, strict=True):
            where.setdefault(subject, {}).setdefault(name, []).append(id)
    return [
        Problem(
            "shared",
            tuple(f"{name}/{id}" for name, ids in places.items() for id in ids),
            f"subject '{subject}' is in {' and in '.join(places)}",
            remark=True,
        )
        for subject, places in where.items()
        if len(places) > 1
    ]


def _place(part: str, fold: int | None) -> str:
    return part if fold is None else f"fold {fold}"


# --- one scan --------------------------------------------------------------------------------------------------------


def _scan(entry: Entry | Scan, seen: _Seen) -> Iterator[Problem]:
    """What is wrong with a scan's own files."""
    if isinstance(entry, Scan):
        for name, channel in zip(entry.sequences, entry.image, strict=True):
            seen.contents.setdefault(_content(channel), []).append((entry.id, name))
        seen.grids[entry.id] = entry.grid
        yield from _masks(entry.id, entry.image[0], entry.grid, entry.brain if entry.stripped else None, entry.lesion)
        return
    first: tuple[Array, Grid] | None = None
    for name, path in entry.images.items():
        try:
            volume, grid, _ = files.read_image(path)
        except BadInput as error:
            yield Problem("unreadable", (entry.id,), f"scan '{entry.id}', {name}: {error}")
            continue
        if volume.min() == volume.max():
            yield Problem("constant", (entry.id,), f"scan '{entry.id}', {name}: every voxel is {volume.flat[0]:g}")
            continue
        seen.contents.setdefault(_content(volume), []).append((entry.id, name))
        if first is None:
            first = volume, grid
            seen.grids[entry.id] = grid
        elif not grid.same(first[1]):
            told = f"{name} lies on {_told(grid)}, {next(iter(entry.images))} on {_told(first[1])}"
            yield Problem("grid", (entry.id,), f"scan '{entry.id}': {told}; resample one to the other")
    if first is not None:
        volume, grid = first
        brain, said = _read([entry.brain] if entry.brain else [], grid, "brain", ())
        lesion, more = _read(entry.lesions, grid, "lesion", entry.lesion_labels)
        for kind, text in (*(("brain", t) for t in said), *(("lesion", t) for t in more)):
            yield Problem(kind, (entry.id,), f"scan '{entry.id}': {text}")
        yield from _masks(entry.id, volume, grid, brain, lesion)


def _read(paths: Sequence[str], grid: Grid, kind: str, labels: Sequence[int]) -> tuple[Mask | None, list[str]]:
    """The union of masks, and what is wrong with those that cannot be used."""
    union: Mask | None = None
    said = []
    for path in paths:
        try:
            mask = files.read_mask(path, grid, kind, labels)
        except BadInput as error:
            said.append(str(error))
            continue
        union = mask if union is None else union | mask
    return union, said


def _masks(id: str, volume: Array, grid: Grid, brain: Mask | None, lesion: Mask | None) -> Iterator[Problem]:
    """An empty lesion, and one outside the brain: its mask, or what a stripped image leaves."""
    if lesion is None:
        return
    size = int(lesion.sum())
    if not size:
        yield Problem("empty", (id,), f"scan '{id}': the lesion mask is empty", remark=True)
        return
    if brain is None:
        brain = stripped_mask(Scan(volume, grid.affine, id=id))
    outside = 0 if brain is None else int((lesion & ~brain).sum())
    if outside > OUTSIDE * size:
        told = f"{100 * outside / size:.3g} % of the lesion ({outside * grid.voxel_ml:.3g} of {size * grid.voxel_ml:.3g} ml)"
        yield Problem("outside", (id,), f"scan '{id}': {told} lies outside the brain")


def _content(volume: Array) -> str:
    """A hash of an image's values, in order of size, without zeros: neither headers, flips nor more background change it."""
    return hashlib.sha256(np.sort(volume[volume != 0]).tobytes()).hexdigest()


# --- scans among each other --------------------------------------------------------------------------------------------


def _missing(entries: Iterable[Entry | Scan]) -> list[Problem]:
    has = {e.id: set(e.images if isinstance(e, Entry) else e.sequences) for e in entries}
    known = dict.fromkeys(s for e in entries for s in (e.images if isinstance(e, Entry) else e.sequences))
    return [
        Problem("missing", (id,), f"scan '{id}' has no {', '.join(s for s in known if s not in own)}; others have")
        for id, own in has.items()
        if len(own) < len(known)
    ]


def _duplicates(seen: _Seen, split: Split | None) -> Iterator[Problem]:
    parts: dict[str, str] = {m.id: _place(m.part, m.fold) for m in split.members} if split else {}
    for images in seen.contents.values():
        if len(images) > 1:
            ids = tuple(dict.fromkeys(id for id, _ in images))
            told = " and ".join(f"'{id}' ({name}{', ' + parts[id] if id in parts else ''})" for id, name in images)
            yield Problem("duplicate", ids, f"the same image twice: {told}")


def _odd_grids(grids: Mapping[str, Grid]) -> Iterator[Problem]:
    """Remarks on scans that differ from most in spacing, shape or orientation."""
    views: dict[str, Callable[[Grid], Any]] = {
        "spacing": _spacing,
        "shape": lambda grid: grid.shape,
        "orientation": _axes,
    }
    for what, view in views.items():
        groups: dict[Any, list[str]] = {}
        for id, grid in grids.items():
            groups.setdefault(view(grid), []).append(id)
        if len(groups) < 2:
            continue
        usual, *others = sorted(groups.items(), key=lambda group: -len(group[1]))
        ids = tuple(id for _, some in others for id in some)
        told = "; ".join(f"{_plain(value)} in {len(some)}: {few(some)}" for value, some in others[:ODD])
        more = f"; and {len(others) - ODD} more" if len(others) > ODD else ""
        yield Problem(
            "odd grid",
            ids,
            f"{what} is {_plain(usual[0])} in {len(usual[1])} of {len(grids)} scans; {told}{more}",
            remark=True,
        )


def _against(cohort: Cohort, split: Split) -> Iterator[Problem]:
    """Scans of the split that the cohort lacks, scans in no part, and subjects of the cohort that the split's table hides."""
    parts = {m.id: _place(m.part, m.fold) for m in split.members}
    unknown = [id for id in parts if id not in set(cohort.ids)]
    if unknown:
        yield Problem(
            "unknown",
            tuple(unknown),
            f"of the split's {len(parts)} scans, {len(unknown)} not in the cohort: {few(unknown)}",
        )
    unused = [id for id in cohort.ids if id not in parts]
    if unused:
        yield Problem(
            "unused",
            tuple(unused),
            f"of {len(cohort.ids)} scans, {len(unused)} in no part of the split: {few(unused)}",
            remark=True,
        )
    told = {m.id: m.subject for m in split.members}
    people: dict[str, list[str]] = {}
    for id, subject in zip(cohort.ids, cohort.subjects, strict=True):
        if id in parts:
            people.setdefault(subject, []).append(id)
    for subject, ids in people.items():
        if len({parts[id] for id in ids}) > 1 and len({told[id] for id in ids}) > 1:
            where = " and ".join(f"'{id}' in {parts[id]}" for id in ids)
            yield Problem("leak", tuple(ids), f"subject '{subject}' of the cohort: {where}")


def _told(grid: Grid) -> str:
    return f"{_plain(grid.shape)} voxels of {_plain(_spacing(grid))} mm, {_axes(grid)}"


def _plain(value: Any) -> str:
    return " x ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def _spacing(grid: Grid) -> tuple[float, ...]:
    return tuple(round(s, 2) for s in grid.spacing)


def _axes(grid: Grid) -> str:
    """Where each axis of a grid points to, in letters: RAS, LPS."""
    axes = np.abs(grid.affine[:3, :3]).argmax(axis=0)
    return "".join("LPIRAS"[axis + 3 * bool(grid.affine[axis, i] > 0)] for i, axis in enumerate(axes))
