"""What every figure of a study draws from: its rows, the hues of its lines, and numbers as they are said."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anomri.report.canvas import NEUTRAL, Style, style
from anomri.report.layout import words
from anomri.study.plan import Cell, Plot, Row, Study, Table
from anomri.study.summary import Histograms, Record, summarise


@dataclass(frozen=True)
class Drawing:
    """A plot and the rows that it may use: `done` of the whole study, `rows` of the plot's cases."""

    plot: Plot
    done: Sequence[Row]
    rows: Sequence[Row]
    study: Study
    histograms: Histograms

    @property
    def panels(self) -> list[str | None]:
        """None for one panel of all entrants, or the entrants that have a panel each."""
        if self.plot.by == "entrant":
            return [None]
        return [name for name in self.study.entrants if any(row["entrant"] == name for row in self.rows)]

    @property
    def hues(self) -> list[Cell]:
        """What lines and colours stand for, in the study's order, so that an entrant has one colour in all figures."""
        if self.plot.by == "entrant":
            return list(self.study.entrants)
        facts = [{"case": case.name, **case.facts}.get(self.plot.by) for case in self.study.cases]
        found = [row.get(self.plot.by) for row in self.rows]
        return [hue for hue in dict.fromkeys([*facts, *found]) if hue is not None]

    def style(self, hue: Cell) -> Style:
        return style(self.hues.index(hue)) if hue in self.hues else NEUTRAL

    def name(self, hue: Cell) -> str:
        """A hue in words: a bare number with what it is, as in "severity 2"."""
        return words((hue,), (self.plot.by,))

    def records(self, metric: str, across: Sequence[str]) -> list[Record]:
        """The cells that a table of lines (entrant, hue) and groups `across` would have."""
        lines = ("entrant",) if self.plot.by == "entrant" else ("entrant", self.plot.by)
        table = Table(self.plot.name, self.plot.title, (metric,), lines, across, self.plot.cases, self.plot.entrants)
        found = summarise(self.study, table, self.done, self.histograms)
        return [record for record in found if record.value is not None and record.line[-1] is not None]


def span(counts: Iterable[int]) -> str:
    """The smallest and the largest."""
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}–{high}"


def counted(counts: Iterable[int]) -> str:
    """How many scans a part of a figure is of."""
    return f"n = {span(counts)}"


def as_float(value: Any) -> float | None:
    """A cell of a row as a finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    return float(value) if math.isfinite(value) else None
