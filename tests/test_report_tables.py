"""Tables of studies: what is laid out where, which values are bold, and that every format says the same."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomri.report import tables
from anomri.report.layout import WIDE, Sheet, Shown
from anomri.study import METRICS, Metric, Record, Study, Table, summarise
from test_report_plots import NASTY, rows_of, study

AUROC, DICE, ASSD = METRICS["AUROC"], METRICS["dice"], METRICS["assd_mm"]
BEST = METRICS["dice_best_scan_oracle"]
LABELLED = METRICS["dice_labelled_validation"]


def record(
    entrant: str, group: str = "spike", metric: Metric = AUROC, value: float | None = None, **rest: Any
) -> Record:
    return Record((entrant,), (group,), metric.name, value, **{**({"n": 12} if value is not None else {}), **rest})


def table(*metrics: Metric, **rest: Any) -> Table:
    return Table("t", "A table", [metric.name for metric in metrics or (AUROC,)], **rest)


def lay_out(records: Sequence[Record], *metrics: Metric, absent: Mapping[str, str] | None = None, **rest: Any) -> Sheet:
    return tables.lay_out(table(*metrics, **rest), records, METRICS, absent or {})


def lines(sheet: Sheet) -> list[tuple[str, list[str]]]:
    """First names and values of all lines."""
    return [(line.names[0], [cell.value for cell in line.cells]) for block in sheet.blocks for line in block.lines]


def bold(sheet: Sheet) -> set[tuple[str, str]]:
    return {
        (line.names[0], cell.value)
        for block in sheet.blocks
        for line in block.lines
        for cell in line.cells
        if cell.best
    }


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# --- what stands where ---------------------------------------------------------------------------------------------


def test_a_cell_has_its_value_interval_and_mark():
    sheet = lay_out([record("A", value=95.46, low=88.06, high=99.0, p=0.004), record("B", value=70.0)])
    (block,) = sheet.blocks
    assert block.lines[0].cells == (Shown("95.5", "[88.1, 99.0]", "**", best=True),)
    assert (block.title, block.columns) == ("spike", ("AUROC (%) ↑",))


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        (AUROC, 95.449, "95.4"), (AUROC, 100.0, "100.0"), (ASSD, 3.2249, "3.22"), (METRICS["psnr_db"], 31.27, "31.3"), (METRICS["l1"], 0.012349, "0.0123"),
        (AUROC, -0.01, "0.0"), (ASSD, math.inf, "inf"), (METRICS["mask_ml"], 12.345, "12.3"),
    ],
)  # fmt: skip
def test_numbers_have_the_decimals_of_their_unit(metric: Metric, value: float, shown: str):
    assert lines(lay_out([record("A", metric=metric, value=value)], metric)) == [("A", [shown])]


@pytest.mark.parametrize("missing", [None, math.nan])
def test_what_is_missing_is_a_dash_and_never_a_number(missing: float | None):
    sheet = lay_out([record("A", value=missing), record("A", "zipper", value=50.0), record("B", value=40.0)])
    assert lines(sheet) == [("A", ["", "50.0"]), ("B", ["40.0", ""])]
    assert "| A | – | 50.0 |" in tables.markdown(sheet)
    assert "A & -- & 50.0" in tables.latex(sheet)
    assert re.search(r"A +– +50\.0", plain(tables.text(sheet)))


def test_the_standard_deviation_stands_in_for_a_missing_interval():
    (line,) = lay_out([record("A", value=50.0, sd=3.14)]).blocks[0].lines
    assert line.cells[0].spread == "± 3.1"


def test_a_group_of_one_metric_is_a_column_and_of_several_a_heading():
    one = lay_out([record("A", g, value=50.0) for g in ("spike", "zipper")])
    assert (one.blocks[0].title, one.blocks[0].columns, one.blocks[0].groups) == (
        "AUROC (%) ↑",
        ("spike", "zipper"),
        (),
    )
    two = lay_out([record("A", g, m, value=50.0) for g in ("spike", "zipper") for m in (AUROC, DICE)], AUROC, DICE)
    assert two.blocks[0].groups == (("spike", 2), ("zipper", 2))
    assert "spike: AUROC (%) ↑" in tables.markdown(two)
    assert r"\multicolumn{2}{c}{spike} & \multicolumn{2}{c}{zipper}" in tables.latex(two)
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){4-5}" in tables.latex(two)


def test_a_wide_table_has_a_block_for_each_artefact():
    metrics = [METRICS[name] for name in ("AUROC", "AUPRC", "FPR@TPR80", "FPR@TPR90", "FNR@FPR20", "FNR@FPR10")]
    artefacts = [f"artefact {n}" for n in range(8)]
    records = [record(f"M{e}", g, m, value=50.0 + e) for e in range(7) for g in artefacts for m in metrics]
    sheet = lay_out(records, *metrics)
    assert [block.title for block in sheet.blocks] == artefacts
    assert all(len(block.columns) == 6 and len(block.lines) == 7 for block in sheet.blocks)


@pytest.mark.parametrize(("metrics", "widths"), [(3, [6]), (4, [4, 4]), (8, [8, 8]), (9, [5, 4, 5, 4])])
def test_two_groups_stand_side_by_side_only_where_both_are_narrow(metrics: int, widths: list[int]):
    names = list(METRICS)[:metrics]
    made = [Record(("A",), (g,), name, 50.0, n=3) for g in "xy" for name in names]
    assert [len(block.columns) for block in tables.lay_out(Table("t", "T", names), made, METRICS).blocks] == widths


@pytest.mark.parametrize("groups", [40, 1])
def test_forty_columns_are_cut_into_blocks_that_lose_none(groups: int):
    metrics = {f"m{n}": Metric(f"m{n}", f"M{n}", "scan") for n in range(40 // groups)}
    records = [
        Record(("A",), (f"g{g}",), m, float(10 * g + n), n=3) for g in range(groups) for n, m in enumerate(metrics)
    ]
    sheet = tables.lay_out(Table("t", "T", list(metrics)), records, metrics)
    assert all(len(block.columns) <= WIDE for block in sheet.blocks)
    assert [v for _, values in lines(sheet) for v in values] == [f"{r.value:.1f}" for r in records]
    for text in (tables.markdown(sheet), tables.latex(sheet), plain(tables.text(sheet, 60))):
        assert all(f"{r.value:.1f}" in text for r in records)
    assert max(map(len, plain(tables.text(sheet, 60)).splitlines())) <= 60


def test_lines_keep_the_order_of_the_table_and_group_by_their_first_column():
    made = [Record((a, s), ("g",), "AUROC", 50.0, n=3) for s in (1.0, 2.0) for a in ("B", "A")]
    sheet = lay_out(made, rows=("entrant", "severity"), entrants=("A", "B"))
    assert [line.names for line in sheet.blocks[0].lines] == [("A", "1"), ("A", "2"), ("B", "1"), ("B", "2")]
    assert sheet.headings == ("method", "severity")


def test_a_bare_number_of_a_group_is_said_with_what_it_is():
    made = [Record(("A",), (ml,), "AUROC", 50.0, n=3) for ml in (2.0, 10.0)]
    assert lay_out(made, across=("size_ml",)).blocks[0].columns == ("size 2 ml", "size 10 ml")


# --- honesty -------------------------------------------------------------------------------------------------------


def test_the_best_of_our_values_is_bold_and_ties_are_all():
    assert bold(lay_out([record("A", value=90.0), record("B", value=95.01), record("C", value=94.99)])) == {
        ("B", "95.0"),
        ("C", "95.0"),
    }
    lower = [record("A", metric=ASSD, value=3.0), record("B", metric=ASSD, value=5.0)]
    assert bold(lay_out(lower, ASSD)) == {("A", "3.00")}


def test_a_value_of_fewer_scans_than_a_rivals_is_not_bold():
    assert not bold(lay_out([record("A", value=95.0, n=11), record("B", value=90.0)]))
    assert bold(lay_out([record("A", value=95.0), record("B", value=90.0, n=11)])) == {("A, n = 12", "95.0")}


def test_a_single_entrant_is_never_best():
    assert not bold(lay_out([record("A", value=90.0), record("B", value=None, expected=50.0)]))


def test_neither_better_nor_worse_is_never_best():
    volume = METRICS["mask_ml"]
    assert not bold(lay_out([record("A", metric=volume, value=3.0), record("B", metric=volume, value=5.0)], volume))


@pytest.mark.parametrize("metric", [BEST, LABELLED])
def test_what_labels_helped_to_find_is_never_bold_beside_what_none_did(metric: Metric):
    made = [record(e, metric=m, value=v) for e, v in (("A", 60.0), ("B", 50.0)) for m in (DICE, metric)]
    sheet = lay_out(
        [replace(r, value=r.value + 20) if r.metric == metric.name and r.value else r for r in made], DICE, metric
    )
    assert bold(sheet) == {("A", "60.0")}
    assert any("label-free" in note for note in sheet.notes)


def test_an_oracle_says_so_in_every_format():
    sheet = lay_out([record("A", metric=m, value=60.0) for m in (DICE, BEST)], DICE, BEST)
    assert sheet.blocks[0].columns == ("Dice, own mask (%) ↑", "Dice, best threshold of each scan (oracle, %) ↑")
    for text in (tables.markdown(sheet), tables.latex(sheet), plain(tables.text(sheet))):
        assert "(oracle," in text
        assert "an upper bound" in text
    rows = list(csv.DictReader(io.StringIO(tables.csv(sheet))))
    assert {row["metric"]: row["oracle"] for row in rows} == {"dice": "0", "dice_best_scan_oracle": "1"}


def test_best_is_among_entrants_under_one_condition_only():
    made = [Record((e, a), ("g",), "AUROC", v, n=3) for e, a, v in (("A", "easy", 99.0), ("B", "easy", 98.0), ("A", "hard", 60.0), ("B", "hard", 70.0))]  # fmt: skip
    found = lay_out(made, rows=("entrant", "artefact"))
    assert {line.names for line in found.blocks[0].lines for cell in line.cells if cell.best} == {
        ("A", "easy"),
        ("B", "hard"),
    }
    across = [Record((a,), (e,), "AUROC", v, n=3) for e, a, v in (("A", "easy", 99.0), ("B", "easy", 98.0))]
    assert bold(lay_out(across, rows=("artefact",), across=("entrant",))) == {("easy", "99.0")}
    assert not bold(lay_out([Record((a,), (), "AUROC", v, n=3) for a, v in (("x", 1.0), ("y", 2.0))], rows=("artefact",), across=()))  # fmt: skip


def test_the_papers_numbers_stand_on_their_own_line_as_it_printed_them():
    sheet = lay_out([record("A", value=90.0, expected=99.3), record("B", value=80.0, expected=18.13)])
    assert lines(sheet) == [("A", ["90.0"]), ("paper", ["99.3"]), ("B", ["80.0"]), ("paper", ["18.13"])]
    assert [line.paper for line in sheet.blocks[0].lines] == [False, True, False, True]
    assert bold(sheet) == {("A", "90.0")}
    assert "| *paper* | *99.3* |" in tables.markdown(sheet)
    assert r"\textcolor{gray}{paper} & \textcolor{gray}{99.3}" in tables.latex(sheet)
    assert any(note.startswith("paper: ") for note in sheet.notes)


def test_who_was_not_run_has_the_papers_line_alone_and_the_reason():
    made = [record("A", value=90.0), record("B", expected=50.0), record("C", expected=40.0), record("D")]
    sheet = lay_out(made, absent={"B": "not in the tool yet", "D": "every scan failed"})
    names = ["A", "B: paper (not in the tool yet)", "C: paper (not run)"]
    assert [name for name, _ in lines(sheet)] == names
    assert "No number for: D (every scan failed)." in sheet.notes
    for text in (tables.markdown(sheet), tables.latex(sheet), plain(tables.text(sheet))):
        assert all(name in text for name in names[1:])


def test_expected_numbers_without_a_record_are_shown_all_the_same():
    expected = {("A", "spike", "AUROC"): 99.3, ("New", "spike", "AUROC"): 12.5, ("A", "zipper", "AUROC"): 1.5}
    sheet = lay_out([record("A", value=90.0)], expected=expected)
    assert lines(sheet) == [("A", ["90.0", ""]), ("paper", ["99.3", "1.5"]), ("New: paper (not run)", ["12.5", ""])]


def test_the_number_of_scans_is_said_once_and_where_it_differs():
    same = lay_out([record("A", value=90.0), record("B", value=80.0)])
    assert "n = 12 anomalous scans." in same.notes
    assert "n = " not in same.blocks[0].title + "".join(name for name, _ in lines(same))
    groups = lay_out([replace(record(e, g, value=50.0), n=n) for g, n in (("x", 5), ("y", 7)) for e in "AB"])
    assert groups.blocks[0].columns == ("x (n = 5)", "y (n = 7)")
    by_line = lay_out([replace(record(e, g, value=50.0), n=n) for e, n in (("A", 5), ("B", 7)) for g in "xy"])
    assert [name for name, _ in lines(by_line)] == ["A, n = 5", "B, n = 7"]
    odd = lay_out([replace(record(e, g, value=50.0), n=11 if (e, g) == ("B", "y") else 12) for e in "AB" for g in "xy"])
    assert [cell.n for line in odd.blocks[0].lines for cell in line.cells] == ["", "", "", "n = 11"]


def test_p_values_are_marks_with_a_legend_that_names_the_test():
    made = [record("A", metric=DICE, value=60.0)]
    made += [record(e, metric=DICE, value=50.0, p=p) for e, p in (("B", 0.2), ("C", 0.049), ("D", 0.01), ("E", 0.0009))]
    sheet = lay_out(made, DICE, reference="A")
    assert [line.cells[0].mark for line in sheet.blocks[0].lines] == ["", "", "*", "*", "***"]
    (note,) = (note for note in sheet.notes if "p <" in note)
    assert "differs from A; paired permutation test, Holm-corrected" in note
    assert r"| E | 50.0\*\*\* |" in tables.markdown(sheet)
    assert r"E & 50.0\textsuperscript{***}" in tables.latex(sheet)


def test_an_interval_without_width_is_explained():
    assert any("without width" in note for note in lay_out([record("A", value=100.0, low=100.0, high=100.0)]).notes)


def test_nothing_measured_and_nothing_expected_gives_no_block_and_says_so():
    for made in ([], [record("A"), record("B", value=math.nan)]):
        sheet = lay_out(made)
        assert sheet.blocks == ()
        assert tables.markdown(sheet).startswith("### A table")
        assert tables.csv(sheet)
    assert "No number for: A (not run); B (not run); spike." in sheet.notes


# --- formats -------------------------------------------------------------------------------------------------------


def nasty() -> Sheet:
    made = [record(f"{NASTY} {n}", f"{NASTY} g", m, value=50.0 + n, low=40.0, high=60.0, expected=1.5) for n in range(2) for m in (DICE, BEST)]  # fmt: skip
    return lay_out(made, DICE, BEST, note=NASTY)


def test_markdown_escapes_names_and_every_line_has_all_cells():
    text = tables.markdown(nasty())
    assert r"a\|b \& c\_d % \#1 \<i\>\$x\$\</i\>" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 6
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


def test_latex_escapes_names_and_every_line_has_all_cells():
    text = tables.latex(nasty())
    assert r"a\textbar{}b \& c\_d \% \#1 \textless{}i\textgreater{}\$x\$" in text
    assert text.count("{") == text.count("}") + text.count(r"\{") - text.count(r"\}")
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if line.endswith(r"\\")} == {2}
    assert re.search(r"\\begin\{tabular\}\{@\{\}lrr@\{\}\}", text)
    # What TeX would take for a command, a comment or mathematics is ours or escaped.
    bare = re.sub(r"\\[a-zA-Z]+|\\.|\$\\[a-z]+\$", "", text.partition("\n")[2])
    assert not set("%#$_^~") & set(bare)
    assert [
        text.count(rf"\{end}{{{kind}}}") for kind in ("table", "tabular", "adjustbox") for end in ("begin", "end")
    ] == [1] * 6


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30))
def test_no_name_breaks_a_table(name: str):
    sheet = lay_out([record(name, value=50.0), record("other", value=60.0)])
    rows = [line for line in tables.markdown(sheet).split("\n") if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows} == {3}
    (row,) = (line for line in tables.latex(sheet).split("\n") if line.endswith(r"50.0 \\"))
    assert len(re.findall(r"(?<!\\)&", row)) == 1
    assert re.sub(r"\\[{}]", "", row).count("{") == re.sub(r"\\[{}]", "", row).count("}")
    (line, *_) = csv.DictReader(io.StringIO(tables.csv(sheet), newline=""))
    assert line["entrant"] == name


def test_csv_is_tidy_and_has_all_digits():
    made = [
        record("A, B", value=95.123456789, low=1.5, high=2.5, sd=0.25, p=0.03, expected=99.3),
        record("C", value=math.nan),
    ]
    rows = list(csv.DictReader(io.StringIO(tables.csv(lay_out(made)))))
    assert len(rows) == 2
    wanted = {"entrant": "A, B", "case": "spike", "metric": "AUROC", "unit": "%", "value": "95.123456789", "sd": "0.25", "low": "1.5",
              "high": "2.5", "n": "12", "p": "0.03", "paper": "99.3", "oracle": "0", "note": ""}  # fmt: skip
    assert rows[0] == wanted
    assert rows[1]["value"] == ""


def test_text_fits_the_terminal_and_dims_the_paper():
    made = [
        record(f"Method {n}", g, value=50.0, low=40.0, high=60.0, expected=1.5) for n in range(3) for g in "abcdefgh"
    ]
    sheet = lay_out(made)
    for width in (50, 80, 200):
        text = tables.text(sheet, width)
        assert max(map(len, plain(text).splitlines())) <= width
        assert plain(text).count("50.0 [40.0, 60.0]") == 24
    assert re.search(r"\x1b\[2m  paper", tables.text(sheet))


# --- from a study --------------------------------------------------------------------------------------------------


def made_up(**rest: Any) -> tuple[Study, list[dict[str, Any]]]:
    found = study(("IterMask3D", "DAE", "AE"), **rest)
    return found, rows_of(found, 6, entrants=("IterMask3D",))


def test_a_study_says_why_its_entrants_are_absent():
    found, rows = made_up()
    failed = [{**row, "entrant": "AE", "status": "failed"} for row in rows]
    assert tables.absent(found, rows) == {"DAE": "not in the tool yet", "AE": "not run"}
    assert tables.absent(found, [*rows, *failed]) == {"DAE": "not in the tool yet", "AE": "every scan failed"}


def test_a_table_of_a_study_is_the_summary_laid_out():
    found, rows = made_up()
    records = summarise(found, found.tables[0], rows, lambda row: None)
    sheet = tables.lay_out(found.tables[0], records, METRICS, tables.absent(found, rows))
    shown = [v for name, values in lines(sheet) for v in values if name.startswith("IterMask3D")]
    known = {r.group[0]: f"{r.value:.1f}" for r in records if r.value is not None and r.metric == "AUROC"}
    assert len(known) == 23
    assert set(known.values()) <= set(shown)
    assert any("healthy" in note and "DAE (not in the tool yet)" in note for note in sheet.notes)
