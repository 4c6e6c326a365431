"""What the figures of studies share: sizes of a paper, colours, axes and their names.

Colours stay apart for any colour vision; markers and dashes repeat what they say, for a print in grey.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anomri.report.figures import INK, SOFT, TEAL, _quiet
from anomri.report.layout import called
from anomri.report.page import named, number
from anomri.study.summary import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE, COLUMN = 7.1, 3.5
"""Width in inches of a page of two columns, and of one column."""
SIZE = 8.0
TITLE: dict[str, Any] = {"fontsize": SIZE + 0.5, "color": INK, "loc": "left"}
COLOURS = (TEAL, "#e69f00", "#3d2b56", "#cc79a7", "#56b4e9", "#a32020", "#7a9a01", INK)
MARKERS = "osD^vPX*"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
GREY = "#d5dbe0"
GUIDE: dict[str, Any] = {"color": "#9aa7b0", "linewidth": 0.8, "linestyle": (0, (2, 2)), "zorder": 1}
"""A line that is no result, such as chance."""


@dataclass(frozen=True)
class Style:
    """How one of several lines, boxes or clouds of dots looks."""

    colour: str
    marker: str
    dash: Any

    @property
    def light(self) -> tuple[float, float, float]:
        from matplotlib.colors import to_rgb

        red, green, blue = (0.35 * c + 0.65 for c in to_rgb(self.colour))
        return red, green, blue


NEUTRAL = Style(SOFT, "o", "-")


def style(n: int) -> Style:
    """The n-th style, from 0; no two of the first 32 are alike."""
    return Style(COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)], DASHES[(n + n // len(COLOURS)) % len(DASHES)])


def canvas(wide: float, high: float, down: int = 1, across: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches, and its axes row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(wide, high), layout="constrained", facecolor="white")
    grid: list[Axes] = list(figure.subplots(down, across, squeeze=False).ravel())
    for axes in grid:
        _quiet(axes)
        axes.tick_params(labelsize=SIZE - 0.5)
        axes.xaxis.label.set_fontsize(SIZE)
        axes.yaxis.label.set_fontsize(SIZE)
    return figure, grid


def nothing(why: str = "Nothing was measured that this figure shows") -> Figure:
    """A figure that says why it is empty."""
    figure, (axes,) = canvas(COLUMN, 1.2)
    axes.set_axis_off()
    look: dict[str, Any] = {"ha": "center", "va": "center", "color": SOFT, "fontsize": SIZE}
    axes.text(0.5, 0.5, textwrap.fill(why, 40), transform=axes.transAxes, **look)
    return figure


def legend(figure: Figure, keys: Sequence[Any]) -> None:
    """One legend for all panels, above them."""
    if not keys:
        return
    longest = max(len(str(key.get_label())) for key in keys)
    room = int(figure.get_figwidth() * 72 / (0.55 * SIZE * (longest + 7)))
    look: dict[str, Any] = {"frameon": False, "fontsize": SIZE - 0.5, "columnspacing": 1.4}
    figure.legend(
        handles=keys,
        loc="outside upper center",
        ncols=math.ceil(len(keys) / math.ceil(len(keys) / max(1, room))),
        **look,
    )


def legend_below(axes: Axes, inches: float, **look: Any) -> None:
    """A legend so far below the axes that it clears the ticks and the axis' name, whatever the size of the axes."""
    from matplotlib.transforms import ScaledTranslation

    assert axes.figure is not None
    down = axes.transAxes + ScaledTranslation(0, -inches, axes.figure.dpi_scale_trans)
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "bbox_transform": down}
    axes.legend(frameon=False, fontsize=SIZE - 1, borderaxespad=0, **place, **look)


def axis_name(column: str, room: int = 34) -> str:
    """A column's name on an axis, in lines of `room` letters: with its unit, and "oracle" where labels of the scan found it."""
    if column in METRICS:
        return textwrap.fill(called(METRICS[column]), room)
    if column == "score":
        return "Score (higher is more abnormal)"
    words, unit = named(column)
    return textwrap.fill(f"{words[:1].upper()}{words[1:]}" + (f" ({unit})" if unit else ""), room)


def scale(column: str) -> float:
    """What a column of the rows is multiplied by to be shown: shares become percent."""
    return 100.0 if column in METRICS and METRICS[column].unit == "%" else 1.0


def comparable(column: str) -> bool:
    """Does a number mean the same for every method? A score or an error in the method's own unit does not."""
    return bool(METRICS[column].unit) if column in METRICS else bool(named(column)[1])


def limits(axes: Axes, column: str, values: Sequence[float], whole: bool = True) -> None:
    """The range of the values that are drawn, and a little room.

    Shares run from 0 to 100 where `whole`, and never far past; what spreads over decades has a log axis.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    if scale(column) == 100:
        low, high = (0.0, 100.0) if whole else (low, high)
        room = 0.04 * ((high - low) or 10)
        axes.set_ylim(max(low - room, -4), min(high + room, 104))
    elif low > 0 and high / float(np.median(values)) > 30:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
        plain_log(axes.yaxis, low, high)
    else:
        room = 0.05 * ((high - low) or abs(high) or 1.0)
        axes.set_ylim(low - room, high + room)


def plain_log(axis: Any, low: float, high: float) -> None:
    """Ticks of a log axis in plain numbers, at 1, 2 and 5 where there are few decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = np.log10(high / low) if low > 0 else 9
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_formatter(NullFormatter())
