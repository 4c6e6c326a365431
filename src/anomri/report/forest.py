"""A forest plot: a metric of many methods below each other, with intervals, a panel for each case."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from anomri.report.canvas import GUIDE, PAGE, SIZE, TITLE, axis_name, canvas, nothing, scale
from anomri.report.drawing import Drawing, counted
from anomri.report.figures import INK, SOFT
from anomri.study.summary import METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE = 0.19
"""Inches of a method's line."""
LEAST = 1.1
ACROSS = 3


def forest(drawing: Drawing) -> Figure:
    """The metric `y`, a dot and a 95 % interval for each entrant, in the study's order; what was not measured has an empty line."""
    records = drawing.records(drawing.plot.y, ("case",))
    cases = [case.name for case in drawing.study.cases if any(record.group == (case.name,) for record in records)]
    names = [name for name in drawing.study.entrants if any(record.line[0] == name for record in records)]
    if not cases:
        return nothing()
    across = min(ACROSS, len(cases))
    down = -(-len(cases) // across)
    figure, grid = canvas(PAGE, (max(LINE * len(names), LEAST) + 0.75) * down, down, across)
    places = {name: float(n) for n, name in enumerate(names)}
    metric = METRICS[drawing.plot.y]
    ends = [v for r in records for v in (r.value, r.low, r.high) if v is not None]
    low, high = (0.0, 100.0) if scale(metric.name) == 100 else (min(0.0, *ends), max(ends))
    room = 0.04 * ((high - low) or 1.0)
    for n, (axes, case) in enumerate(zip(grid, cases, strict=False)):
        own = [record for record in records if record.group == (case,)]
        for record in own:
            at = places[str(record.line[0])]
            if record.low is not None and record.high is not None:
                axes.hlines(at, record.low, record.high, color=SOFT, linewidth=1.3)
            assert record.value is not None
            axes.plot([record.value], [at], "o", color=INK, markersize=3.4, zorder=3)
        for at in places.values():
            axes.axhline(at, **{**GUIDE, "alpha": 0.35})
        if metric.name in ("AUROC", "voxel_auroc"):
            axes.axvline(50, **GUIDE)
        first = n % across == 0
        axes.set_yticks(
            list(places.values()), [textwrap.shorten(name, 34, placeholder="…") if first else "" for name in names]
        )
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(low - room, high + room), ylim=(len(names) - 0.4, -0.6))
        axes.set_xlabel(axis_name(metric.name))
        said = textwrap.shorten(case, 30, placeholder="…")
        axes.set_title(f"{said}, {counted({record.n for record in own})}", **{**TITLE, "fontsize": SIZE - 0.5})
    for axes in grid[len(cases) :]:
        axes.set_axis_off()
    return figure
