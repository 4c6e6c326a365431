"""What a data set is: who offers it, and which file in its owners' tree is which image of which scan."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from anomri import files
from anomri.cohort import Cohort, Entry
from anomri.errors import BadCall, BadInput

Rows = list[dict[str, str]]
SEQUENCES = ("T1w", "T2w", "FLAIR", "T1ce", "PDw", "DWI")
"""Names of sequences: BIDS suffixes, and T1ce for T1w with contrast agent."""


@dataclass(frozen=True)
class DataSet:
    """A data set as its owners publish it.

    Parameters
    ----------
    name : such as "brats2021"
    offered : where its owners offer it, and what that takes
    sequences : which it has, in our names
    layout : its tree, a few lines
    variable : the environment variable that says where it lies, for studies
    quirks : what to know before one uses it
    open : folder and sequences to the scans that have all of these
    """

    name: str
    title: str
    offered: str
    licence: str
    sequences: tuple[str, ...]
    layout: str
    variable: str
    quirks: str
    open: Callable[[Path, tuple[str, ...]], Cohort]


@dataclass(frozen=True)
class Layout:
    """Which file is what, by its path; calling it with a folder and sequences gives their cohort.

    Parameters
    ----------
    example : the path of one image
    pattern : a regular expression for the end of a path, without the NIfTI ending. Its group `kind` says which image it is,
        `id` (several are joined: id, id2) names the scan; other groups become facts
    kinds : kind to sequence, or to "brain" or "lesion"
    labels : values that are lesion, where not all are
    earliest : take the first by name where a scan has several images of one sequence, instead of refusing
    about : facts of a scan from its own facts and what lies in the folder (tables)
    """

    example: str
    pattern: str
    kinds: Mapping[str, str]
    labels: tuple[int, ...] = ()
    earliest: bool = False
    about: Callable[[Path], Callable[[str, Mapping[str, str]], Mapping[str, str]]] | None = None
    ended: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ended", re.compile(rf"(?:^|/){self.pattern}$"))

    @property
    def sequences(self) -> tuple[str, ...]:
        """The sequences that it knows."""
        return tuple(s for s in SEQUENCES if s in self.kinds.values())

    def __call__(self, root: Path, sequences: tuple[str, ...]) -> Cohort:
        """The scans below a folder that have all of the sequences, sorted by id.

        Raises `BadCall` for a sequence that the data set does not have, `BadInput` where no scan is found.
        """
        for name in sequences:
            if name not in self.sequences:
                raise BadCall(f"this data set has no sequence '{name}'; it has {', '.join(self.sequences)}")
        entries = [
            replace(e, images={s: e.images[s] for s in sequences})
            for e in self.entries(root)
            if {*sequences} <= {*e.images}
        ]
        return found(entries, root, sequences, self.example)

    def entries(self, root: Path) -> Iterator[Entry]:
        """Every scan below a folder with all that belongs to it."""
        scans: dict[str, dict[str, list[Path]]] = {}
        facts: dict[str, dict[str, str]] = {}
        for path, match in self.matches(root):
            groups = {name: text for name, text in match.groupdict().items() if text}
            id = "_".join(groups.pop(name) for name in ("id", "id2") if name in groups)
            what = self.kinds.get(groups.pop("kind"))
            if what is None:
                continue
            scans.setdefault(id, {}).setdefault(what, []).append(path)
            facts.setdefault(id, {"subject": id}).update(groups)
        about = self.about(root) if self.about else None
        for id in sorted(scans):
            if about:
                facts[id] |= about(id, facts[id])
            yield self._entry(root, id, scans[id], facts[id])

    def matches(self, root: Path) -> Iterator[tuple[Path, re.Match[str]]]:
        """The NIfTI files that the pattern fits, sorted by name."""
        for path in images_below(root):
            if match := self.ended.search(place_of(path)):
                yield path, match

    def _entry(self, root: Path, id: str, parts: dict[str, list[Path]], facts: dict[str, str]) -> Entry:
        for what, paths in parts.items():
            if len(paths) > 1 and what != "lesion" and not self.earliest:
                raise BadInput(
                    f"'{root}' holds {what} of scan '{id}' twice: '{paths[0].relative_to(root)}' and "
                    f"'{paths[1].relative_to(root)}'; name the folder of one copy"
                )
        images = {s: str(parts[s][0]) for s in self.sequences if s in parts}
        brain, lesions = parts.get("brain"), tuple(map(str, parts.get("lesion", ())))
        lesion = lesions if len(lesions) > 1 else next(iter(lesions), None)
        return Entry(id, images, str(brain[0]) if brain else None, lesion, facts, self.labels)


def images_below(root: Path) -> list[Path]:
    """The NIfTI files below a folder, sorted by name; hidden ones are left out."""
    below = (p for p in root.rglob("*") if p.name.lower().endswith(files.NIFTI) and not p.name.startswith("."))
    return sorted((p for p in below if p.is_file()), key=lambda p: (p.name, p))


def place_of(path: Path) -> str:
    """A whole path without the NIfTI ending: what tells a scan may be the folder that was named, or one above it."""
    return (path.absolute().parent / files.stem(path)).as_posix()


def found(entries: Iterable[Entry], root: Path, sequences: tuple[str, ...], example: str) -> Cohort:
    """A cohort of the entries; raises `BadInput` where there are none."""
    cohort = Cohort(entries)
    if not len(cohort):
        raise BadInput(
            f"'{root}' holds no scan with {', '.join(sequences)}; it needs files such as {example}; "
            "name the folder that holds these, or another --sequence"
        )
    return cohort


def tables(root: Path, *columns: str) -> Rows:
    """The rows of the tables (.csv, .tsv) in a folder, or above it, that have all these columns; of the nearer place only."""
    for folder in (root, root.absolute().parent):
        rows = []
        for path in sorted(p for p in folder.glob("*") if p.suffix.lower() in (".csv", ".tsv")):
            try:
                read = files.read_table(path)
            except BadInput:
                # Somebody else's table: what it holds is not known, so neither is whether it matters.
                continue
            if read and {*columns} <= {*read[0]}:
                rows += read
        if rows:
            return rows
    return []
