"""How a table of a study is laid out, before it is Markdown, LaTeX or a page.

A layout is made of blocks. A block holds as many groups of columns as a page carries; a table of 8 artefacts and 6 metrics
becomes 8 blocks. What a paper printed stands on a line of its own, named so, as the study's file writes it. Bold is the best of
our own values, and only where no label was used to find it: a metric that is an oracle says so in its heading, and neither it nor one
whose threshold labelled validation scans gave is ever bold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from anomri.files import plain
from anomri.methods import METHODS
from anomri.report.page import named, number
from anomri.study.plan import Cell, Row, Study, Table
from anomri.study.summary import Metric, Record

WIDE, JOINED = 8, 6
"""The most columns of a block: of one group, and of several."""
MISSING = "–"
DECIMALS = {"%": 1, "mm": 2, "dB": 1, "ml": 1, "s": 1}
LEVELS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))

Place = tuple[Cell, ...]


@dataclass(frozen=True)
class Shown:
    """A cell as text: the value, its interval or SD, the mark of its test, and its own number of scans where it differs."""

    value: str = ""
    spread: str = ""
    mark: str = ""
    n: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a block: its names, one per heading of the sheet, and a cell per column; ours, or what the paper printed."""

    names: tuple[str, ...]
    cells: tuple[Shown, ...]
    paper: bool = False


@dataclass(frozen=True)
class Block:
    """A part of a table: `groups` are (heading, number of columns), empty where the block's title says it."""

    title: str
    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Sheet:
    """A table laid out; `tidy` has a row per record with all its numbers."""

    name: str
    title: str
    headings: tuple[str, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    tidy: tuple[dict[str, Any], ...]


def lay_out(
    table: Table,
    records: Sequence[Record],
    metrics: Mapping[str, Metric],
    absent: Mapping[str, str] = {},
) -> Sheet:
    """The table of a study from its records.

    Parameters
    ----------
    records : the cells that were measured, and those of which only the paper's number is known
    metrics : what the table's metrics are, by name
    absent : why an entrant has no values, such as "not in the tool yet"; "not run" where nothing is said
    """
    cells = {(r.line, r.group, r.metric): r for r in _completed(table, records)}
    lines, without = _parted(_ordered((key[0] for key in cells), table.rows, table), cells, 0)
    groups, empty = _parted(_ordered((key[1] for key in cells), table.across, table), cells, 1)
    counts = _Counts.of(cells, groups)
    layout = _Layout(table, metrics, absent, cells, lines, counts)
    made = (layout.block(part) for part in _packed(groups, table.metrics))
    blocks = tuple(block for block in made if block.lines)
    nothing = [*layout.reasons(without), *(words(group, table.across) for group in empty)]
    notes = tuple(_notes(table, metrics, list(cells.values()), blocks, counts, nothing))
    tidy = tuple(_tidy(table, metrics, record) for record in cells.values())
    headings = tuple(_heading(column) for column in table.rows) or ("",)
    return Sheet(table.name, table.title, headings, blocks, notes, tidy)


def absent(study: Study, rows: Sequence[Row]) -> dict[str, str]:
    """Why an entrant of a study has no values, for `lay_out`: its method is not there, it was not run, or every scan failed."""
    known, why = {method.name for method in METHODS}, {}
    for name, entrant in study.entrants.items():
        status = {row.get("status") for row in rows if row.get("entrant") == name}
        if status and "done" not in status:
            why[name] = "every scan failed"
        elif not status:
            why[name] = "not run" if entrant.method in known else "not in the tool yet"
    return why


# --- what there is -------------------------------------------------------------------------------------------------


def _completed(table: Table, records: Sequence[Record]) -> Iterable[Record]:
    """The records, and one without a value for each of the paper's numbers that none of them carries."""
    left = dict(table.expected)
    lines, groups = {_label(r.line): r.line for r in records}, {_label(r.group): r.group for r in records}
    for record in records:
        key = (_label(record.line), _label(record.group), record.metric)
        paper = left.pop(key, record.expected)
        yield record if record.expected is not None else replace(record, expected=paper)
    for (line, group, metric), paper in left.items():
        yield Record(
            lines.get(line, _split(line, table.rows)),
            groups.get(group, _split(group, table.across)),
            metric,
            None,
            expected=paper,
        )


def _label(place: Place) -> str:
    return ", ".join(str(cell) for cell in place)


def _split(label: str, columns: Sequence[str]) -> Place:
    parts: list[Cell] = [*label.split(", ", max(len(columns) - 1, 0))]
    return tuple((parts + [""] * len(columns))[: len(columns)])


def _ordered(places: Iterable[Place], columns: Sequence[str], table: Table) -> list[Place]:
    """Each place once: entrants and cases as the table names them, the rest as it first appears, column by column."""
    found = list(dict.fromkeys(places))
    ranks: list[dict[Cell, int]] = []
    for n, column in enumerate(columns):
        known = {"entrant": table.entrants, "case": table.cases}.get(column) or ()
        ranks.append({cell: at for at, cell in enumerate(dict.fromkeys([*known, *(place[n] for place in found)]))})
    return sorted(found, key=lambda place: [rank[cell] for rank, cell in zip(ranks, place, strict=True)])


_Cells = dict[tuple[Place, Place, str], Record]


def _parted(places: list[Place], cells: _Cells, at: int) -> tuple[list[Place], list[Place]]:
    """The lines (`at` 0) or groups (1) with a number of ours or of the paper, and those without."""
    full = {key[at] for key, record in cells.items() if _known(record.value) or _known(record.expected)}
    return [place for place in places if place in full], [place for place in places if place not in full]


@dataclass(frozen=True)
class _Counts:
    """How many scans stand behind the values, said once: for the whole table, by line, or by group.

    `most` is the largest of each group: a cell with fewer says so itself, save where the lines do.
    """

    table: int | None = None
    lines: Mapping[Place, int] = field(default_factory=dict)
    most: Mapping[Place, int] = field(default_factory=dict)

    @classmethod
    def of(cls, cells: _Cells, groups: Sequence[Place]) -> _Counts:
        told = [(line, group, r.n) for (line, group, _), r in cells.items() if r.n and _known(r.value)]
        if len({n for *_, n in told}) == 1:
            return cls(table=told[0][2])
        most = {group: max((n for _, g, n in told if g == group), default=0) for group in groups}
        by_line: dict[Place, set[int]] = {}
        for line, _, n in told:
            by_line.setdefault(line, set()).add(n)
        if any(n != most[group] for _, group, n in told) and all(len(ns) == 1 for ns in by_line.values()):
            return cls(lines={line: ns.pop() for line, ns in by_line.items()})
        return cls(most=most)

    def group(self, group: Place) -> str:
        return f" (n = {self.most[group]})" if self.most.get(group) else ""

    def line(self, line: Place) -> str:
        return f", n = {self.lines[line]}" if line in self.lines else ""

    def cell(self, group: Place, record: Record) -> str:
        most = self.most.get(group, 0)
        return f"n = {record.n}" if most and record.n != most else ""


def _packed(groups: Sequence[Place], metrics: Sequence[str]) -> list[list[tuple[Place, str]]]:
    """Columns block by block: groups stay whole; one that alone is too wide is cut evenly."""
    parts: list[list[tuple[Place, str]]] = []
    size = math.ceil(len(metrics) / max(1, math.ceil(len(metrics) / WIDE))) or 1
    for group in groups:
        for at in range(0, len(metrics), size):
            columns = [(group, metric) for metric in metrics[at : at + size]]
            if parts and len(parts[-1]) + len(columns) <= JOINED and not at:
                parts[-1] += columns
            else:
                parts.append(columns)
    return parts


# --- how it is shown -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    table: Table
    metrics: Mapping[str, Metric]
    absent: Mapping[str, str]
    cells: _Cells
    lines: Sequence[Place]
    counts: _Counts

    def block(self, columns: Sequence[tuple[Place, str]]) -> Block:
        spans: dict[Place, int] = {}
        for group, _ in columns:
            spans[group] = spans.get(group, 0) + 1
        titles = {group: words(group, self.table.across) + self.counts.group(group) for group in spans}
        one = self.metrics[self.table.metrics[0]] if len(self.table.metrics) == 1 else None
        heads = [_title(self.metrics[metric]) for _, metric in columns]
        lines = tuple(line for place in self.lines for line in self._pair(place, columns))
        if len(spans) == 1:
            return Block(next(iter(titles.values())).strip(), (), tuple(heads), lines)
        if one is not None:
            return Block(_title(one), (), tuple(titles[group].strip() for group, _ in columns), lines)
        return Block("", tuple((titles[group].strip(), span) for group, span in spans.items()), tuple(heads), lines)

    def _pair(self, place: Place, columns: Sequence[tuple[Place, str]]) -> Iterable[Line]:
        """Our line, and the paper's where it printed one; what has no value of ours anywhere has the paper's alone."""
        found = [self.cells.get((place, group, metric)) for group, metric in columns]
        if not any(found):
            return
        ours = [self._cell(place, *column) for column in columns]
        counted = self.counts.line(place)
        if len({cell.n for cell in ours if cell.value}) == 1 and len({group for group, _ in columns}) == 1:
            # All of the line's cells lack the same scans: said once, by its name.
            counted = next(f", {cell.n}" if cell.n else counted for cell in ours if cell.value)
            ours = [replace(cell, n="") for cell in ours]
        paper = tuple(Shown(_printed(record.expected if record else None)) for record in found)
        names = tuple(said(cell) for cell in place) or ("",)
        ran = any(_known(record.value) for (line, *_), record in self.cells.items() if line == place)
        printed = any(cell.value for cell in paper)
        if ran:
            yield Line((*names[:-1], names[-1] + counted), tuple(ours))
            if printed:
                yield Line((*("" for _ in names[:-1]), "paper"), paper, paper=True)
        elif printed:
            yield Line((*names[:-1], f"{names[-1]}: paper ({self._why(place)})"), paper, paper=True)

    def reasons(self, places: Sequence[Place]) -> list[str]:
        """Lines without any number, and why: an entrant once, whatever else its lines are named."""
        at = self.table.rows.index("entrant") if "entrant" in self.table.rows else None
        ran = {line[at] for line in self.lines} if at is not None else set()
        named = [
            f"{said(place[at])} ({self._why(place)})"
            if at is not None and place[at] not in ran
            else words(place, self.table.rows)
            for place in places
        ]
        return list(dict.fromkeys(named))

    def _why(self, place: Place) -> str:
        notes = [r.note for (line, *_), r in self.cells.items() if line == place and r.note]
        named = [self.absent[str(cell)] for cell in place if str(cell) in self.absent]
        return (*named, *notes, "not run")[0]

    def _cell(self, place: Place, group: Place, metric: str) -> Shown:
        record, about = self.cells.get((place, group, metric)), self.metrics[metric]
        if record is None or not _known(record.value):
            return Shown()
        return Shown(
            _value(record.value, about.unit),
            _spread(record, about.unit),
            _mark(record.p),
            self.counts.cell(group, record),
            self._best(place, group, about),
        )

    def _best(self, place: Place, group: Place, metric: Metric) -> bool:
        """Is it the best of at least two entrants under the same condition, as printed?

        Ties are all best; what labels helped to find never is, nor what fewer scans gave than a rival's: it may be the easier ones.
        """
        if _labelled(metric) or not metric.better or "entrant" not in (*self.table.rows, *self.table.across):
            return False
        condition = self._condition(place, group)
        rivals = [
            record
            for (line, other, name), record in self.cells.items()
            if name == metric.name and record.value is not None and _known(record.value) and self._condition(line, other) == condition
        ]  # fmt: skip
        own, top = self.cells[place, group, metric.name], max(rivals, key=lambda r: metric.better * (r.value or 0.0))
        best = _value(own.value, metric.unit) == _value(top.value, metric.unit)
        return best and len(rivals) > 1 and own.n == max(r.n for r in rivals)

    def _condition(self, line: Place, group: Place) -> Place:
        """All that a cell is of, save the entrant."""
        columns = (*self.table.rows, *self.table.across)
        return tuple(cell for cell, column in zip((*line, *group), columns, strict=True) if column != "entrant")


def _notes(
    table: Table,
    metrics: Mapping[str, Metric],
    records: Sequence[Record],
    blocks: Sequence[Block],
    counts: _Counts,
    nothing: Sequence[str],
) -> Iterable[str]:
    ours, told = [record for record in records if _known(record.value)], [metrics[name] for name in table.metrics]
    if table.note:
        yield table.note
    which = "anomalous scans" if all(metric.kind == "case" for metric in told) else "scans"
    if counts.table:
        yield f"n = {counts.table} {which}."
    elif ours:
        yield f"n: number of {which}."
    intervals = [(r.low, r.high) for r in ours if _known(r.low) and _known(r.high)]
    if intervals:
        yield "In brackets: 95 % bootstrap interval over subjects."
    if any(low == high for low, high in intervals):
        yield "An interval without width says that no resample differed, not that the value is certain."
    if any(_spread(r, "").startswith("±") for r in ours):
        yield "±: standard deviation over subjects."
    if any(_known(r.expected) for r in records):
        yield "paper: the number that the paper printed; never counted among ours."
    if any(metric.oracle for metric in told):
        yield "oracle: found with the labels of the very scans that it is told of; an upper bound, not a result, and never bold."
    if any(_labelled(metric) and not metric.oracle for metric in told):
        yield "Labelled validation scans gave a threshold: not label-free, and never bold."
    if any(cell.best for block in blocks for line in block.lines for cell in line.cells):
        yield f"Bold: the best of our own{' label-free' if any(map(_labelled, told)) else ''} values."
    if any(_known(r.p) for r in ours):
        against = f" from {table.reference}" if table.reference else ""
        yield f"* p < 0.05, ** p < 0.01, *** p < 0.001: differs{against}; paired permutation test, Holm-corrected over the table."
    if nothing:
        yield f"No number for: {'; '.join(filter(None, nothing))}."


def _labelled(metric: Metric) -> bool:
    """Did labels help to find it: those of the same scans, or of validation scans?"""
    return metric.oracle or metric.labelled


def _tidy(table: Table, metrics: Mapping[str, Metric], record: Record) -> dict[str, Any]:
    about = metrics[record.metric]
    return {
        **dict(zip(table.rows, record.line, strict=True)),
        **dict(zip(table.across, record.group, strict=True)),
        "metric": record.metric, "unit": about.unit, "oracle": int(about.oracle), "value": record.value, "sd": record.sd, "low": record.low,
        "high": record.high, "n": record.n, "p": record.p, "paper": record.expected, "note": record.note,
    }  # fmt: skip


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _value(value: float | None, unit: str) -> str:
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = f"{value:.{DECIMALS[unit]}f}" if unit in DECIMALS else number(value)
    return text.removeprefix("-") if re.fullmatch(r"-0\.0*", text) else text


def _printed(value: float | None) -> str:
    # As the study's file writes it: more decimals would be digits that the paper never gave.
    return "" if value is None or math.isnan(value) else f"{value:.7g}" if len(repr(value)) > 8 else repr(value)


def _spread(record: Record, unit: str) -> str:
    if _known(record.low) and _known(record.high):
        return f"[{_value(record.low, unit)}, {_value(record.high, unit)}]"
    return f"± {_value(record.sd, unit)}" if _known(record.sd) else ""


def _mark(p: float | None) -> str:
    return "" if p is None else next((mark for level, mark in LEVELS if p < level), "")


def said(cell: Cell) -> str:
    if cell is None:
        return MISSING
    return number(cell) if isinstance(cell, float) else " ".join(str(plain(cell)).split())


def words(place: Place, columns: Sequence[str]) -> str:
    """A group in words: a bare number is said with its column, as in "severity 2"."""
    parts = []
    for cell, column in zip(place, columns, strict=True):
        name, unit = named(column)
        bare = isinstance(cell, float | int)
        parts.append(f"no {name}" if cell is None else f"{name} {said(cell)} {unit}".strip() if bare else said(cell))
    return ", ".join(parts)


def _heading(column: str) -> str:
    name, unit = named(column)
    return "method" if column == "entrant" else f"{name} ({unit})" if unit else name


def called(metric: Metric) -> str:
    """A metric's name with its unit, and "oracle" where it is one: "Dice (oracle, %)"."""
    oracle = "oracle" if metric.oracle and "oracle" not in metric.title.lower() else ""
    inside = ", ".join(part for part in (oracle, metric.unit) if part)
    return f"{metric.title} ({inside})" if inside else metric.title


def _title(metric: Metric) -> str:
    return called(metric) + {1: " ↑", -1: " ↓"}.get(metric.better, "")


def flat(block: Block) -> list[str]:
    """Headings of columns that say their group too."""
    groups = [title for title, span in block.groups for _ in range(span)] or [""] * len(block.columns)
    return [f"{group}: {column}" if group else column for group, column in zip(groups, block.columns, strict=True)]
