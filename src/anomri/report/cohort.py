"""The page of a cohort: what failed and why, how the scores lie, and a sortable row for each scan with a link to its page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from anomri.files import plain, write_text
from anomri.report.page import named, number, render

DONE = ("", "ok", "done", "success", "skipped", "kept")
# Numbers that are no scores: not drawn as strips.
NOT_SCORES = ("id", "index", "seed", "seconds", "shard", "attempt", "age", "tau", "gamma", "r2", "brain_ml")
STRIPS = 4
WIDE, LEFT, RIGHT, AXIS = 430.0, 14.0, 416.0, 78.0

Row = Mapping[str, Any]


def write(rows: Sequence[Row], path: str | Path) -> None:
    """Writes the page of a cohort, atomically: one HTML file that works offline.

    Parameters
    ----------
    rows : one mapping a scan, such as `id`, `status`, `message`, `mask_ml`, `seconds` and scores (higher is more abnormal);
        values are numbers or text as a TSV has them, and unknown names are shown too. A row whose status is none of `ok`,
        `done`, `success`, `skipped`, `kept` has failed and comes first. The page of a scan is expected beside this one, at
        `<label>.html`, or `<id>.html` where a row has no label

    Raises `BadInput` where the file cannot be written.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    if all(_text(row.get("label")) in ("", _text(row.get("id"))) for row in rows):
        names = [name for name in names if name != "label"]
    failed = [row for row in rows if _failed(row)]
    done = [row for row in rows if not _failed(row)]
    numeric = {name for name in names if _is_number(name, rows)}
    scores = _scores(names, numeric, done)
    if scores:
        done = sorted(done, key=lambda row: -_order(row.get(scores[0])))
    seconds = [value for row in done if (value := _float(row.get("seconds"))) is not None]
    text = render(
        "cohort.html.j2",
        ("cohort.js",),
        total=len(rows),
        done=len(done),
        failures=[(_text(row.get("id")), _text(row.get("message")) or "no reason was given") for row in failed],
        seconds=number(float(np.median(seconds))) if seconds else None,
        columns=[(*named(name), name in numeric) for name in names],
        rows=[(_failed(row), [_cell(name, row, name in numeric) for name in names]) for row in (*failed, *done)],
        strips=[strip for name in scores[:STRIPS] if (strip := _strip(name, done)) is not None],
        axis=AXIS,
        left=LEFT,
        right=RIGHT,
        wide=WIDE,
    )
    write_text(path, text)


def _failed(row: Row) -> bool:
    return _text(row.get("status")).lower() not in DONE


def _text(value: Any) -> str:
    value = plain(value)
    return "" if value is None or value == "n/a" else str(value)


def _float(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        x = float(value)
    except (TypeError, ValueError):
        return None
    return x if math.isfinite(x) else None


def _order(value: Any) -> float:
    x = _float(value)
    return -math.inf if x is None else x


def _is_number(name: str, rows: Sequence[Row]) -> bool:
    told = [row.get(name) for row in rows if _text(row.get(name))]
    return name not in ("id", "label") and bool(told) and all(_float(value) is not None for value in told)


def _scores(names: Sequence[str], numeric: set[str], rows: Sequence[Row]) -> list[str]:
    """Columns to draw: those named score first, and no column twice, since `score` repeats the method's own."""
    able = [name for name in names if name in numeric and name not in NOT_SCORES and not name.endswith("_s")]
    first = [name for name in able if name.startswith("score")]
    seen: dict[tuple[float | None, ...], str] = {}
    for name in (*first, *(name for name in able if name not in first)):
        seen.setdefault(tuple(_float(row.get(name)) for row in rows), name)
    return list(seen.values())


@dataclass(frozen=True)
class _Cell:
    text: str
    value: float | None = None
    link: str | None = None
    numeric: bool = False


def _page(row: Row) -> str | None:
    # Quoted whole, so that no id can leave the folder or name a scheme.
    name = _text(row.get("label")) or _text(row.get("id"))
    return None if _failed(row) or not name else f"./{quote(name, safe='')}.html"


def _cell(name: str, row: Row, numeric: bool) -> _Cell:
    value = row.get(name)
    if name == "id":
        return _Cell(_text(value), link=_page(row))
    x = _float(value)
    if numeric:
        return _Cell("" if x is None else number(x), x, numeric=True)
    return _Cell(_text(value))


# --- strips --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Dot:
    x: float
    y: float
    id: str
    told: str
    link: str | None


@dataclass(frozen=True)
class _Strip:
    name: str
    unit: str
    dots: list[_Dot]
    ticks: list[tuple[float, str]]
    median: float
    median_told: str


def _strip(name: str, rows: Sequence[Row]) -> _Strip | None:
    cases = sorted(
        ((value, row) for row in rows if (value := _float(row.get(name))) is not None), key=lambda case: case[0]
    )
    if not cases:
        return None
    ticks = _ticks(cases[0][0], cases[-1][0])
    low, high = ticks[0], ticks[-1]

    def across(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - low) / (high - low)

    placed: list[tuple[float, float]] = []
    dots = []
    words, unit = named(name)
    for value, row in cases:
        x = across(value)
        near = [y for other, y in placed[-200:] if abs(other - x) < 7]
        # Stacked upwards: the height of a pile says how many scans lie there.
        y = next((y for n in range(10) if (y := AXIS - 7 - 7 * n) not in near), AXIS - 70)
        placed.append((x, y))
        dots.append(_Dot(x, y, _text(row.get("id")), f"{number(value)} {unit}".strip(), _page(row)))
    median = float(np.median([value for value, _ in cases]))
    return _Strip(
        words, unit, dots, [(across(t), number(t)) for t in ticks], across(median), f"{number(median)} {unit}".strip()
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that hold the range, about five of them."""
    if high <= low:
        low, high = low - (abs(low) or 1.0) * 0.5, high + (abs(high) or 1.0) * 0.5
    raw = (high - low) / 5
    ten = 10.0 ** math.floor(math.log10(raw))
    step = next(m * ten for m in (1, 2, 2.5, 5, 10) if m * ten >= raw)
    first = math.floor(low / step)
    return [float(f"{n * step:.12g}") for n in range(first, math.ceil(high / step) + 1)]
