"""The folder of a study: its files, and a page that says what is ours, what the paper's, what failed and what was not run."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from anomri.errors import BadInput
from anomri.report import study as pages
from anomri.study import Plot, Study, Table, summarise
from test_report_plots import NASTY, rows_of, study

TABLES = (
    Table(
        "table_1", "Table 1", ("AUROC", "AUPRC"), cases=["spike 1", "spike 4"],
        expected={("DAE", "spike 1", "AUROC"): 97.3, ("IterMask3D", "spike 1", "AUROC"): 99.25},
    ),
    Table("lesions", "Lesions", ("dice", "dice_best_scan_oracle"), across=("size_ml",), cases=["tumour 2 ml", "tumour 10 ml"]),
)  # fmt: skip
PLOTS = (
    Plot("roc", "ROC of the spikes", "roc", cases=["spike 1", "spike 4"]),
    Plot("dice_volume", "Dice against volume", "scatter", y="dice", x="lesion_ml"),
)
REMARKS = ["DAE waits: method 'not_there' is not in the tool yet", "ADNI is not here: set ADNI"]


class Page(HTMLParser):
    """What a browser would take from a page: its words, its tags, and where it points."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.tags, self.links, self.images, self.inside = "", [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.inside = tag
        given = dict(attrs)
        if tag == "a":
            self.links.append(given["href"])
        if tag == "img":
            self.images.append(given["src"])

    def handle_data(self, data: str) -> None:
        if self.inside != "style":
            self.words += data


def written(
    out: Path, entrants: tuple[str, ...] = ("IterMask3D", "DAE"), ran: tuple[str, ...] = ("IterMask3D",), **rest: Any
) -> tuple[Page, Study]:
    found = study(entrants, **{"tables": TABLES, "plots": PLOTS, **rest})
    rows = rows_of(found, 5, entrants=ran) if ran else []
    records = {table.name: summarise(found, table, rows, lambda row: None) for table in found.tables}
    path = pages.write(found, rows, records, out, REMARKS)
    assert path == out / "index.html"
    return Page(path.read_text(encoding="utf-8")), found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Path]:
    out = tmp_path_factory.mktemp("study")
    return written(out)[0], out


def test_every_table_and_plot_has_its_files_and_no_other(made: tuple[Page, Path]):
    _, out = made
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    tables = {f"tables/{name}.{ending}" for name in ("table_1", "lesions") for ending in ("csv", "md", "tex")}
    assert files == {"index.html", *tables, *(f"plots/{p}.{e}" for p in ("roc", "dice_volume") for e in ("png", "svg"))}
    assert (out / "plots/roc.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (out / "plots/roc.svg").read_text(encoding="utf-8")


def test_the_page_points_only_to_files_beside_it_and_needs_no_network(made: tuple[Page, Path]):
    page, out = made
    assert len(page.links) == 10
    assert all((out / link).is_file() for link in page.links)
    assert len(page.images) == 2
    assert all(image.startswith("data:image/svg+xml;base64,") for image in page.images)
    assert "script" not in page.tags
    assert not re.search(r"https?://", (out / "index.html").read_text(encoding="utf-8"))


def test_the_page_says_what_it_reproduces_how_and_what_is_missing(made: tuple[Page, Path]):
    page, _ = made
    for words in (
        "A study",
        "A paper, table 1",
        *REMARKS,
        "anomri study run studies/made_up.py --out made_up",
        "Seed 0.",
        "torch ",
    ):
        assert words in page.words
    assert re.search(r"methods run\s*1\s*of 2", page.words)


def test_the_papers_numbers_are_named_so_and_whoever_did_not_run_too(made: tuple[Page, Path]):
    page, out = made
    text = (out / "index.html").read_text(encoding="utf-8")
    lines = re.findall(r'<tr class="(paper[^"]*)">\s*<td>([^<]*)</td>(.*?)</tr>', text, re.S)
    assert [(kind, name) for kind, name, _ in lines] == [
        ("paper", "paper"),
        ("paper alone", "DAE: paper (not in the tool yet)"),
    ]
    assert "99.25" in lines[0][2]
    assert "97.3" in lines[1][2]
    assert not any("<strong>" in cells for *_, cells in lines)
    assert "Dice, best threshold of each scan (oracle, %)" in page.words


def test_failures_are_told_once_for_all_alike(made: tuple[Page, Path]):
    page, _ = made
    failed = [row for row in rows_of(study(), 5, entrants=("IterMask3D",)) if row["status"] == "failed"]
    assert f"{len(failed)} failed" in page.words
    assert page.words.count("BadInput: the brain is empty") == 1
    assert f"{len(failed)} times: {failed[0]['scan']} ({failed[0]['case']})" in page.words


def test_csv_has_a_row_per_record(made: tuple[Page, Path]):
    _, out = made
    with (out / "tables/table_1.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2
    assert {row["paper"] for row in rows if row["metric"] == "AUROC" and row["case"] == "spike 1"} == {"99.25", "97.3"}


def test_without_rows_there_is_a_page_with_the_papers_numbers(tmp_path: Path):
    page, _ = written(tmp_path, ran=())
    assert "IterMask3D: paper (not run)" in page.words
    assert "Nothing was measured yet, and no number is expected." in page.words
    assert "strong" not in page.tags


def test_nothing_in_a_study_can_become_markup(tmp_path: Path):
    hostile = f"</title><script>alert(1)</script>{NASTY}"
    tables = (replace(TABLES[0], title=hostile, note=hostile, expected={(hostile, "spike 1", "AUROC"): 50.0}),)
    plots = (Plot("box / of\\all", hostile, "box", y="score", cases=["spike 1"]),)
    page, _ = written(
        tmp_path, entrants=(hostile,), ran=(hostile,), tables=tables, plots=plots, title=hostile, paper=hostile
    )
    assert "script" not in page.tags
    assert page.tags.count("title") == 1
    assert page.words.count(hostile) >= 6
    assert (tmp_path / "plots/box-of-all.svg").is_file()


def test_the_rows_are_linked_where_they_lie_beside_the_page(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("entrant\n", encoding="utf-8")
    page, _ = written(tmp_path, tables=(), plots=())
    assert page.links == ["rows.csv"]


def test_the_same_study_gives_the_same_page(tmp_path: Path):
    for name in ("a", "b"):
        written(tmp_path / name)
    assert (tmp_path / "a/index.html").read_bytes() == (tmp_path / "b/index.html").read_bytes()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput):
        written(tmp_path / "file")
