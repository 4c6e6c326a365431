"""Figures of a study: box plots, ROC and PR curves, curves over a severity, and scans as dots.

They are as wide as a page or a column of a paper prints them. Bands and brackets are 95 % bootstrap intervals over subjects, as in
the tables, whose numbers the legends repeat.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anomri.metrics import case as cases
from anomri.report.canvas import (
    COLUMN,
    GREY,
    GUIDE,
    PAGE,
    SIZE,
    TITLE,
    Style,
    axis_name,
    canvas,
    comparable,
    legend,
    legend_below,
    limits,
    nothing,
    plain_log,
    scale,
)
from anomri.report.drawing import Drawing, as_float, counted, span
from anomri.report.figures import INK, SOFT
from anomri.report.forest import forest
from anomri.report.layout import called, said, words
from anomri.study.plan import Cell, Plot, Row, Study
from anomri.study.summary import METRICS, Histograms, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = NDArray[np.float64]
Truth = NDArray[np.bool_]

BOXES, GROUPS = 36, 12
"""The most boxes, and groups of boxes, in a row."""
BANDS = 4
"""With more lines than this, bands hide each other: a curve gets bars instead, a ROC its numbers alone."""
ROUNDS = 1000


def draw(plot: Plot, rows: Sequence[Row], study: Study, histograms: Histograms = lambda row: None) -> Figure:
    """A figure of a study from its rows; says so where there is nothing to draw.

    Where the lines or colours are not entrants, each entrant has a panel of its own: numbers of two methods are never pooled.
    `histograms` gives the maps of rows, which metrics of whole data sets need.
    """
    names = {case.name for case in study.cases} if plot.cases is None else set(plot.cases)
    chosen = study.entrants if plot.entrants is None else plot.entrants
    done = [row for row in rows if row.get("status") == "done" and row["entrant"] in chosen]
    return KINDS[plot.kind](Drawing(plot, done, [row for row in done if row["case"] in names], study, histograms))


def svg(figure: Figure) -> str:
    """A figure as SVG text: the same figure, the same text."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "anomri"}):
        figure.savefig(file, format="svg", facecolor=figure.get_facecolor(), metadata={"Date": None})
    return file.getvalue()


# --- boxes ---------------------------------------------------------------------------------------------------------


def _box(drawing: Drawing) -> Figure:
    """A box per group and hue, a dot per scan; healthy controls are grey.

    Entrants share a panel only where their values have a common unit.
    """
    plot = drawing.plot
    cells: dict[tuple[str | None, str, Cell], list[float]] = {}
    controls: dict[str, bool] = {}
    for row in drawing.rows:
        value = as_float(row.get(plot.y))
        if value is None:
            continue
        group = _group(plot, row)
        key = (None if plot.by == "entrant" else row["entrant"], group, row.get(plot.by))
        cells.setdefault(key, []).append(value * scale(plot.y))
        controls[group] = controls.get(group, True) and not row["anomalous"]
    if not cells:
        return nothing()
    # Controls have no fact to be coloured by; they are drawn in grey all the same.
    hues = [hue for hue in (*drawing.hues, None) if any(key[2] == hue for key in cells)]
    apart = plot.by == "entrant" and not comparable(plot.y)
    parts: list[tuple[str | None, list[Cell], list[str]]] = []
    for panel in drawing.panels:
        for own in [[hue] for hue in hues] if apart else [hues]:
            groups = [group for group in controls if any((panel, group, hue) in cells for hue in own)]
            parts += [(panel, own, part) for part in _shared_out(groups, max(1, min(GROUPS, BOXES // len(own))))]
    boxes = max(len(own) * len(groups) for _, own, groups in parts)
    figure, grid = canvas(COLUMN if boxes <= 6 else PAGE, 2.3 * len(parts) + 0.3, len(parts))
    for axes, (panel, own, groups) in zip(grid, parts, strict=True):
        for x, group in enumerate(groups):
            there = [hue for hue in own if (panel, group, hue) in cells]
            wide = 0.8 / len(own)
            for hue in there:
                # A group with one hue only stands in the middle, such as controls where the hue is a severity.
                aside = 0.0 if len(there) == 1 else (own.index(hue) - (len(own) - 1) / 2) * wide
                look = drawing.style(hue)
                _one_box(axes, cells[panel, group, hue], x + aside, 0.84 * wide, look, controls[group])
        counts = [{len(cells[panel, group, hue]) for hue in own if (panel, group, hue) in cells} for group in groups]
        _group_ticks(axes, groups, counts, figure.get_figwidth() - 0.8)
        axes.set_ylabel(axis_name(plot.y))
        limits(axes, plot.y, [v for (p, _, hue), vs in cells.items() if p == panel and hue in own for v in vs])
        alone = drawing.name(own[0]) if apart and len(hues) > 1 else ""
        axes.set_title(panel or alone, **TITLE)
    rows: dict[tuple[Cell, ...], list[Axes]] = {}
    for axes, (panel, own, _) in zip(grid, parts, strict=True):
        rows.setdefault((panel, *own), []).append(axes)
    for same in rows.values():
        _same_height(same)
    legend(figure, _box_keys(drawing, [] if apart or len(hues) < 2 else hues, any(controls.values())))
    return figure


def _one_box(axes: Axes, values: Sequence[float], place: float, width: float, look: Style, control: bool) -> None:
    line = {"color": look.colour, "linewidth": 0.9}
    if len(values) >= 5:
        axes.boxplot(
            [list(values)], positions=[place], widths=width, patch_artist=True, manage_ticks=False, showfliers=False, zorder=2,
            boxprops={"facecolor": GREY if control else look.light, "edgecolor": look.colour, "linewidth": 0.9},
            medianprops={"color": INK, "linewidth": 1.3}, whiskerprops=line, capprops=line,
        )  # fmt: skip
    else:
        median = float(np.median(values))
        axes.plot([place - width / 2, place + width / 2], [median, median], color=INK, linewidth=1.3, zorder=2)
    # The golden ratio spreads neighbours without chance, so that the same rows give the same figure.
    aside = np.asarray([((n * 0.618034 + 0.5) % 1 - 0.5) * 0.7 * width for n in range(len(values))])
    size = 4.0 if len(values) < 5 else 2.6
    colour = SOFT if control else look.colour
    axes.plot(
        place + aside, values, look.marker, color=colour, markersize=size, markeredgewidth=0, alpha=0.75, zorder=3
    )


def _group(plot: Plot, row: Row) -> str:
    value = row.get(plot.x) if plot.x else None
    return str(row["case"]) if value is None else words((value,), (plot.x,))


def _shared_out(groups: Sequence[str], most: int) -> Iterable[list[str]]:
    """The groups in as few rows as hold them, evenly."""
    size = math.ceil(len(groups) / max(1, math.ceil(len(groups) / most)))
    return [list(groups[at : at + size]) for at in range(0, len(groups), size)]


def _group_ticks(axes: Axes, groups: Sequence[str], counts: Sequence[set[int]], wide: float) -> None:
    room = max(5, int(wide / len(groups) * 72 / (0.56 * SIZE)))
    names = [textwrap.wrap(group.replace("_", " "), room, break_long_words=False) or [group] for group in groups]
    names = [[*lines, counted(ns)] for lines, ns in zip(names, counts, strict=True)]
    turned = any(len(line) > room for lines in names for line in lines)
    labels = ["\n".join(lines) for lines in names]
    axes.set_xticks(range(len(groups)), labels, rotation=40 if turned else 0, ha="right" if turned else "center")
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(groups) - 0.4)


def _same_height(rows: Sequence[Axes]) -> None:
    """Gives rows of one panel one range, so that their boxes compare."""
    low, high = zip(*(axes.get_ylim() for axes in rows), strict=True)
    for axes in rows:
        axes.set_ylim(min(low), max(high))


def _box_keys(drawing: Drawing, hues: Sequence[Cell], controls: bool) -> list[Any]:
    from matplotlib.patches import Patch

    looks = [(drawing.style(hue), drawing.name(hue)) for hue in hues if hue is not None]
    keys = [Patch(facecolor=look.light, edgecolor=look.colour, label=label) for look, label in looks]
    return keys + ([Patch(facecolor=GREY, edgecolor=SOFT, label="healthy controls")] if controls else [])


# --- ROC and PR ----------------------------------------------------------------------------------------------------


def _rates(drawing: Drawing) -> Figure:
    """ROC or PR: a panel per case with a line per entrant, or a panel per entrant with a line per hue, against their controls."""
    kind, entrants = drawing.plot.kind, drawing.plot.by == "entrant"
    metric = {"roc": "AUROC", "pr": "AUPRC"}[kind]
    panels: dict[Cell, list[Record]] = {}
    for record in drawing.records(metric, ("case",) if entrants else ()):
        panels.setdefault(record.group[0] if entrants else record.line[0], []).append(record)
    if not panels:
        return nothing("No anomalous scans with controls to compare them with")
    labels = {id(r): _wrapped(drawing.name(r.line[-1]), _interval(r)) for records in panels.values() for r in records}
    across, most = (
        min(3, len(panels)),
        max(sum(labels[id(r)].count("\n") + 1 for r in records) for records in panels.values()),
    )
    down = math.ceil(len(panels) / across)
    figure, grid = canvas(2.35 * across + 0.05, (2.85 + 0.165 * most) * down, down, across)
    for axes, (panel, records) in zip(grid, panels.items(), strict=False):
        sizes = []
        for record in records:
            scores, truth, subjects = _scores(drawing, record.line[0], panel if entrants else None, record.line[-1])
            look = drawing.style(record.line[-1])
            _rate(axes, kind, scores, truth, subjects, look, len(records) <= BANDS)
            axes.lines[-1].set_label(labels[id(record)])
            sizes.append((int(truth.sum()), int((~truth).sum())))
        _rate_axes(axes, kind, sizes)
        ill, healthy = ({pair[n] for pair in sizes} for n in (0, 1))
        compared = f"{span(ill)} anomalous, {span(healthy)} healthy"
        axes.set_title(
            f"{textwrap.shorten(said(panel), 34, placeholder='…')}\n{compared}", **{**TITLE, "fontsize": SIZE - 0.5}
        )
        look_of: dict[str, Any] = {"title": f"{metric} (%)", "title_fontsize": SIZE - 1, "handlelength": 1.8}
        legend_below(axes, 0.43, **look_of)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


def _scores(drawing: Drawing, entrant: Cell, case: Cell, hue: Cell) -> tuple[Values, Truth, list[str]]:
    """Scores, truth and subjects of an entrant's anomalous scans, of one case or of one hue, and of their controls."""
    plot, names = drawing.plot, {row["case"] for row in drawing.rows}
    ours = [row for row in drawing.done if row["entrant"] == entrant]
    ill = [row for row in ours if row["anomalous"] and row["case"] in names]
    ill = [row for row in ill if (row["case"] == case if plot.by == "entrant" else row.get(plot.by) == hue)]
    against = {row["against"] for row in ill}
    both = [*(row for row in ours if row["case"] in against and not row["anomalous"]), *ill]
    scores = np.asarray([float(row["score"]) for row in both])
    return scores, np.asarray([bool(row["anomalous"]) for row in both]), [str(row["subject"]) for row in both]


def _rate(
    axes: Axes, kind: str, scores: Values, truth: Truth, subjects: Sequence[str], look: Style, band: bool
) -> None:
    if band and min(truth.sum(), (~truth).sum()) > 1:
        x, low, high = curve_band(kind, scores, truth, subjects)
        axes.fill_between(100 * x, 100 * low, 100 * high, color=look.colour, alpha=0.15, linewidth=0)
    line: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "linewidth": 1.5}
    x, y = _curve_of(kind, scores, truth)
    axes.plot(100 * x, 100 * y, drawstyle="default" if kind == "roc" else "steps-pre", **line)


def _curve_of(kind: str, scores: Values, truth: Truth) -> tuple[Values, Values]:
    """Points of a ROC; or the staircase whose area is the average precision: the best precision at each recall reached."""
    if kind == "roc":
        return cases.roc(scores, truth)[:2]
    recall, precision, _ = cases.pr(scores, truth)
    first = np.flatnonzero(np.diff(recall, prepend=0) > 0)
    return np.concatenate([[0], recall[first]]), np.concatenate([precision[first[:1]], precision[first]])


def curve_band(
    kind: str, scores: Values, truth: Truth, subjects: Sequence[str], rounds: int = ROUNDS, seed: int = 0
) -> tuple[Values, Values, Values]:
    """95 % bootstrap band of a ROC ("roc") or PR curve ("pr"), point by point: `(x, low, high)`, each `(101,)`, shares.

    Subjects are drawn with all of their scans; those with scans of one class only are drawn among themselves, so that no class
    runs empty. A ROC is interpolated between its points, a PR curve is a staircase, as the average precision takes it.
    """
    x, rng = np.linspace(0, 1, 101), np.random.default_rng(seed)
    _, whose = np.unique(np.asarray(subjects), return_inverse=True)
    classes = np.zeros(whose.max() + 1, dtype=int)
    np.bitwise_or.at(classes, whose, np.where(truth, 1, 2))
    strata = [np.flatnonzero(classes == one) for one in np.unique(classes)]
    found = np.empty((rounds, len(x)))
    for once in range(rounds):
        picks = np.concatenate([rng.choice(members, len(members)) for members in strata])
        drawn = np.repeat(np.arange(len(scores)), np.bincount(picks, minlength=len(classes))[whose])
        at, y = _curve_of(kind, scores[drawn], truth[drawn])
        if kind == "roc":
            found[once] = np.interp(x, at, y)
        else:
            found[once] = y[np.searchsorted(at, x - 1e-12).clip(max=len(at) - 1)]
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    return x, low, high


def _rate_axes(axes: Axes, kind: str, sizes: Sequence[tuple[int, int]]) -> None:
    if kind == "roc":
        axes.plot([0, 100], [0, 100], **GUIDE)
        axes.set(xlabel="False positive rate (%)", ylabel="True positive rate (%)")
    else:
        # Without skill, the precision is the share of anomalous scans.
        for share in {round(100 * ill / (ill + healthy), 1) for ill, healthy in sizes}:
            axes.axhline(share, **GUIDE)
        axes.set(xlabel="Recall (%)", ylabel="Precision (%)")
    axes.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal")
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_yticks([0, 25, 50, 75, 100])


# --- curves --------------------------------------------------------------------------------------------------------


def _curve(drawing: Drawing) -> Figure:
    """A metric over a fact, a line per hue; bands, or bars where there are many lines."""
    plot, metric = drawing.plot, METRICS[drawing.plot.y]
    records = [record for record in drawing.records(plot.y, (plot.x,)) if record.group[0] is not None]
    panels = [panel for panel in drawing.panels if any(panel in (None, record.line[0]) for record in records)]
    if not panels or not records:
        return nothing()
    at, numeric = _places([record.group[0] for record in records])
    hues = [hue for hue in drawing.hues if any(record.line[-1] == hue for record in records)]
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    figure, grid = canvas(PAGE if across > 1 or len(hues) > BANDS else COLUMN, 2.6 * down + 0.3, down, across)
    for axes, panel in zip(grid, panels, strict=False):
        own = [record for record in records if panel in (None, record.line[0])]
        for n, hue in enumerate(hues):
            mine = sorted((r for r in own if r.line[-1] == hue), key=lambda record: at[record.group[0]])
            aside = None if len(hues) <= BANDS else 2.2 * (n - (len(hues) - 1) / 2)
            _line(axes, mine, [at[record.group[0]] for record in mine], drawing.style(hue), aside)
        if metric.name in ("AUROC", "voxel_auroc"):
            axes.axhline(50, **GUIDE)
        _ticks(axes, at, numeric)
        axes.set(xlabel=axis_name(plot.x), ylabel=textwrap.fill(called(metric), 34))
        limits(axes, plot.y, [v for r in own for v in (r.value, r.low, r.high) if v is not None], whole=False)
        points = f"{counted({record.n for record in own})} at each point"
        axes.set_title(f"{panel}, {points}" if panel else points, **TITLE)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    legend(figure, _line_keys([(drawing.style(hue), drawing.name(hue)) for hue in hues]))
    return figure


def _places(values: Sequence[Cell]) -> tuple[dict[Cell, float], bool]:
    """Where the values of a fact lie on an axis, and whether that is by their number or by their order."""
    numbers = {value: number for value in values if (number := as_float(value)) is not None}
    numeric = len(numbers) == len(set(values))
    return (numbers if numeric else {value: float(n) for n, value in enumerate(dict.fromkeys(values))}), numeric


def _line(axes: Axes, records: Sequence[Record], x: Sequence[float], look: Style, aside: float | None) -> None:
    """A line and its band; or, so many points aside, with bars that do not hide each other."""
    from matplotlib.transforms import ScaledTranslation

    y, low, high = (
        np.asarray([np.nan if (value := getattr(record, side)) is None else value for record in records])
        for side in ("value", "low", "high")
    )
    line: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "marker": look.marker}
    assert axes.figure is not None
    moved = axes.transData + ScaledTranslation((aside or 0) / 72, 0, axes.figure.dpi_scale_trans)
    axes.plot(x, y, markersize=3.6, linewidth=1.4, zorder=3, transform=moved, **line)
    if aside is not None:
        axes.vlines(x, low, high, color=look.colour, linewidth=0.8, alpha=0.7, transform=moved)
    else:
        axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)


def _ticks(axes: Axes, at: Mapping[Cell, float], numeric: bool) -> None:
    places = sorted(at.values())
    if numeric and places[0] > 0 and places[-1] / places[0] >= 8:
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xlim(places[0] / 1.15, places[-1] * 1.15)
    else:
        room = 0.05 * (places[-1] - places[0] or 1)
        axes.set_xlim(places[0] - room, places[-1] + room)
    if len(places) <= 9 or not numeric:
        labels = [said(cell) for cell, _ in sorted(at.items(), key=lambda pair: pair[1])]
        axes.set_xticks(places, labels, rotation=0 if sum(map(len, labels)) < 45 else 40)


def _line_keys(looks: Iterable[tuple[Style, str]], **changes: Any) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], **{"color": look.colour, "linestyle": look.dash, "marker": look.marker, "markersize": 4, "label": label, **changes})
        for look, label in looks
    ]  # fmt: skip


# --- dots ----------------------------------------------------------------------------------------------------------


def _scatter(drawing: Drawing) -> Figure:
    """A dot per scan; an axis in ml is logarithmic."""
    plot, log = drawing.plot, drawing.plot.x.endswith("_ml")
    dots: list[tuple[Row, float, float]] = []
    for row in drawing.rows:
        x, y = as_float(row.get(plot.x)), as_float(row.get(plot.y))
        if x is not None and y is not None and (x > 0 or not log) and row.get(plot.by) is not None:
            dots.append((row, x * scale(plot.x), y * scale(plot.y)))
    panels = [panel for panel in drawing.panels if any(panel in (None, row["entrant"]) for row, *_ in dots)]
    if not panels or not dots:
        return nothing()
    across = min(2, len(panels))
    hues = [hue for hue in drawing.hues if any(row[plot.by] == hue for row, *_ in dots)]
    down = math.ceil(len(panels) / across)
    figure, grid = canvas(PAGE if across > 1 else COLUMN, (2.7 + 0.165 * len(hues)) * down, down, across)
    for axes, panel in zip(grid, panels, strict=False):
        for hue in hues:
            own = [(x, y) for row, x, y in dots if row[plot.by] == hue and panel in (None, row["entrant"])]
            look, label = drawing.style(hue), f"{drawing.name(hue)}, n = {len(own)}"
            axes.plot(
                [x for x, _ in own], [y for _, y in own], look.marker, markersize=4, markerfacecolor=look.light,
                markeredgecolor=look.colour, markeredgewidth=0.8, alpha=0.85, label=label,
            )  # fmt: skip
        if log:
            axes.set_xscale("log")
            plain_log(axes.xaxis, min(x for _, x, _ in dots), max(x for _, x, _ in dots))
        axes.set(xlabel=axis_name(plot.x), ylabel=axis_name(plot.y))
        limits(axes, plot.y, [y for _, _, y in dots])
        axes.set_title(panel or "", **TITLE)
        legend_below(axes, 0.4)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


# --- words ---------------------------------------------------------------------------------------------------------


def _wrapped(name: str, value: str, room: int = 30) -> str:
    """A name and a value in as many lines as a panel's legend needs; the value is not broken."""
    return textwrap.fill(f"{name} {value.replace(' ', chr(0xA0))}", room).replace(chr(0xA0), " ")


def _interval(record: Record) -> str:
    value = f"{record.value:.1f}"
    return value if record.low is None or record.high is None else f"{value} [{record.low:.1f}, {record.high:.1f}]"


KINDS: dict[str, Callable[[Drawing], Figure]] = {
    "box": _box, "roc": _rates, "pr": _rates, "curve": _curve, "scatter": _scatter, "forest": forest,
}  # fmt: skip
