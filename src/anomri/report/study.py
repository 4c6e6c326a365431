"""A study as a folder to hand on: its tables, its figures, and a page with all of it that works offline."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomri.files import write_text
from anomri.method import versions
from anomri.report import figures, plots, tables
from anomri.report.page import render
from anomri.study.plan import Row, Study
from anomri.study.summary import METRICS, Histograms, Record

FAILURES = 100
"""The most kinds of failure that the page lists; the rows have all."""
DPI = 300


def write(
    study: Study,
    rows: Sequence[Row],
    records: Mapping[str, Sequence[Record]],
    out: Path,
    remarks: Sequence[str],
    histograms: Histograms = lambda row: None,
) -> Path:
    """Writes a study's tables, figures and page into a folder, each file atomically, and gives the page's path.

    Parameters
    ----------
    rows : a mapping per entrant, case and scan, done or failed
    records : the cells of each table, by its name
    remarks : what was not run, and why
    histograms : the map of a row, for curves of metrics that need whole data sets

    Files: `tables/<name>.csv`, `.md`, `.tex`, `plots/<name>.png`, `.svg`, `index.html`. Raises `BadInput` where one cannot be written.
    """
    out = Path(out)
    absent = tables.absent(study, rows)
    sheets = [tables.lay_out(table, records.get(table.name, ()), METRICS, absent) for table in study.tables]
    failed = [row for row in rows if row.get("status") == "failed"]
    page = render(
        "study.html.j2",
        (),
        study=study,
        done=len(rows) - len(failed),
        scans=len({row["scan"] for row in rows}),
        entrants=(len(study.entrants) - len(absent), len(study.entrants)),
        remarks=remarks,
        tables=[_written(sheet, out) for sheet in sheets],
        plots=list(_drawn(study, rows, out, histograms)),
        failed=len(failed),
        failures=_failures(failed),
        rows="rows.csv" if (out / "rows.csv").is_file() else None,
        versions=versions(),
        missing=tables.MISSING,
    )
    write_text(out / "index.html", page)
    return out / "index.html"


def _written(sheet: tables.Sheet, out: Path) -> tuple[tables.Sheet, str]:
    """Writes a table's files; the sheet and the link to them, without their endings."""
    link = f"tables/{_file(sheet.name)}"
    for ending, text in (("csv", tables.csv), ("md", tables.markdown), ("tex", tables.latex)):
        write_text(out / f"{link}.{ending}", text(sheet))
    return sheet, link


@dataclass(frozen=True)
class _Drawn:
    title: str
    link: str
    image: str
    width: int


def _drawn(study: Study, rows: Sequence[Row], out: Path, histograms: Histograms) -> Iterable[_Drawn]:
    for plot in study.plots:
        figure = plots.draw(plot, rows, study, histograms)
        link, text = f"plots/{_file(plot.name)}", plots.svg(figure)
        write_text(out / f"{link}.svg", text)
        figures.save(figure, out / f"{link}.png", dpi=DPI)
        image = f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}"
        # A little larger than in print: 8 points are small on a screen.
        yield _Drawn(plot.title, link, image, round(figure.get_figwidth() * 96 * 1.25))


def _failures(failed: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """Entrant, message, and where: one line for all that failed alike."""
    alike: dict[tuple[str, str], list[str]] = {}
    for row in failed:
        key = (str(row["entrant"]), str(row.get("message") or "no reason was given"))
        alike.setdefault(key, []).append(f"{row['scan']} ({row['case']})")
    return [(entrant, message, places) for (entrant, message), places in alike.items()][:FAILURES]


def _file(name: str) -> str:
    """A name as a file's."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"
