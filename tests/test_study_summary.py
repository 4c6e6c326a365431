"""Cells of tables where rows are not as neat as hoped: missing scores, NaN, several scans of a subject, subjects in two parts."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from anomri.metrics.histogram import VoxelHistogram
from anomri.study import METRICS, Source, Table, summarise
from test_study import BALL, BRIGHT, FAINT, PLAIN, ROWS, cell, first, none, row, source, tiny


@pytest.mark.parametrize("score", [None, float("nan")])
def test_a_scan_without_a_score_is_left_out_and_not_counted(score):
    rows = [dict(r, score=score) if (r["case"], r["scan"]) in {("ball", "s3"), ("plain", "s0")} else r for r in ROWS]
    area = cell(summarise(tiny(), Table("t", "T", ("AUROC",)), rows, none), "AUROC")
    # 3.5 beats two of three controls, 5 and 6 all.
    assert (area.value, area.n) == (pytest.approx(100 * 8 / 9), 3)


def test_a_score_that_no_row_has_gives_an_empty_cell():
    area = cell(summarise(tiny(), Table("t", "T", ("AUROC",), score="volume"), ROWS, none), "AUROC")
    assert (area.value, area.n) == (None, 0)


def test_values_that_are_no_number_are_not_counted():
    more = [row("ball", f"n{i}", 1.0, dice=value) for i, value in enumerate((None, float("nan")))]
    dice = cell(summarise(tiny(), Table("t", "T", ("dice",)), [*ROWS, *more], none), "dice")
    assert (dice.value, dice.n) == (pytest.approx(40.0), 4)


def test_a_quantile_is_over_subjects_and_is_not_tested():
    ml = {"a": 1.0, "b": 2.0, "c": 9.0, "d": 4.0}
    rows = [row("plain", name, 1.0, mask_ml=value) for name, value in ml.items()]
    rows += [row("plain", "d again", 1.0, mask_ml=8.0) | {"subject": rows[-1]["subject"]}]
    rows += [row("plain", name, 1.0, "Better", mask_ml=value + 1) for name, value in ml.items()]
    both = tiny(entrants={"Bright": BRIGHT, "Better": BRIGHT})
    table = Table("t", "T", ("mask_ml", "mask_ml_median", "mask_ml_p95"), cases=["plain"], reference="Better")
    found = {record.metric: record for record in summarise(both, table, rows, none) if record.line == ("Bright",)}
    # Subjects: 1, 2, 9, and 6 of two scans.
    assert found["mask_ml"].value == pytest.approx(4.5)
    assert found["mask_ml_median"].value == pytest.approx(4.0)
    assert found["mask_ml_p95"].value == pytest.approx(np.quantile([1, 2, 6, 9], 0.95))
    assert found["mask_ml"].p is not None
    assert found["mask_ml_median"].p is None
    assert found["mask_ml_median"].n == 5


def test_one_subject_has_no_interval_however_many_scans():
    rows = [dict(r, subject="same") for r in ROWS]
    records = summarise(tiny(), Table("t", "T", ("AUROC", "FNR@FPR10", "dice")), rows, none)
    assert all((cell(records, name).low, cell(records, name).high) == (None, None) for name in ("AUROC", "dice"))
    assert cell(records, "FNR@FPR10").low is None


def test_a_test_is_paired_by_subject_not_by_scan():
    """Five subjects of four scans each: 2 of 32 sign patterns are as far as five differences of one sign."""
    rng = np.random.default_rng(3)
    rows = []
    for subject, scan in product(range(5), range(4)):
        base = rng.uniform(0.3, 0.6)
        for entrant, better in (("Bright", 0.0), ("Better", 0.05)):
            made = row("ball", f"{subject}-{scan}", 1.0, entrant, dice=base + better)
            rows.append(made | {"subject": f"p{subject}"})
    both = tiny(entrants={"Bright": BRIGHT, "Better": BRIGHT})
    records = summarise(both, Table("t", "T", ("dice",), cases=["ball"], reference="Bright"), rows, none)
    (better,) = [r for r in records if r.line == ("Better",)]
    assert better.p == pytest.approx(2 / 32)


def test_a_scan_that_one_of_two_lacks_is_in_neither_side_of_the_test():
    rows = []
    for i in range(6):
        rows += [row("ball", f"s{i}", 1.0, dice=0.5), row("ball", f"s{i}", 1.0, "Better", dice=0.6)]
    rows[0] = row("ball", "s9", 1.0, dice=0.0)
    both = tiny(entrants={"Bright": BRIGHT, "Better": BRIGHT})
    records = summarise(both, Table("t", "T", ("dice",), cases=["ball"], reference="Bright"), rows, none)
    (better,) = [r for r in records if r.line == ("Better",)]
    assert better.p == pytest.approx(2 / 32)


@pytest.mark.parametrize(("theirs", "given"), [("s", False), ("v", True)])
def test_a_threshold_of_the_test_subjects_own_labels_gives_no_labelled_number(theirs, given):
    rng = np.random.default_rng(2)
    maps = {(case, i): VoxelHistogram.of(rng.random((5, 6, 7)), rng.random((5, 6, 7)) < 0.2) for case, i in product(("ball", "faint"), range(3))}  # fmt: skip
    rows = [row(case, f"{case} {i}", 1.0) | {"subject": f"{'s' if case == 'ball' else theirs}{i}"} for case, i in maps]
    cases = [PLAIN, replace(BALL, threshold_from="faint"), FAINT]
    table = Table("t", "T", ("dice_labelled_validation", "dice_pooled_labelled_validation"), cases=["ball"])

    def histogram(r: dict[str, Any]) -> VoxelHistogram:
        return maps[r["case"], int(r["scan"].split()[1])]

    def numbers(**changes: Any) -> set[bool]:
        return {r.value is not None for r in summarise(tiny(cases=cases, **changes), table, rows, histogram)}

    assert numbers() == {given}
    # The same name in another data set is somebody else.
    other: dict[str, Source] = {"healthy": source(part=first), "test": source(), "else": source(variable="ELSE")}
    cases[-1] = replace(FAINT, source="else")
    assert numbers(sources=other) == {True}


def test_controls_are_those_of_the_same_entrant_and_none_that_are_anomalous():
    rows = [
        *ROWS,
        *(row("plain", f"s{i}", 9.0, "Other") for i in range(4)),
        row("plain", "odd", 99.0) | {"anomalous": 1, "against": ""},
    ]
    area = cell(summarise(tiny(), Table("t", "T", ("AUROC",)), rows, none), "AUROC")
    assert area.value == pytest.approx(100 * 13 / 16)


@pytest.mark.parametrize("name", ["AUROC", "AUPRC"])
def test_an_interval_keeps_the_scans_of_a_subject_together(name):
    """Two subjects of ten scans each, one found and one not: as unsure as two scans, not as twenty."""
    rows = [row("plain", f"{s}{i}", 1.0 + i / 100) | {"subject": s} for s in "ab" for i in range(10)]
    rows += [row("ball", f"{s}{i}", 0.0 if s == "a" else 9.0) | {"subject": s} for s in "ab" for i in range(10)]
    area = cell(summarise(tiny(), Table("t", "T", (name,)), rows, none), name)
    assert area.high - area.low > 49


def test_lower_is_better_for_distances_and_wrong_rates_only():
    lower = {name for name, metric in METRICS.items() if metric.better < 0}
    assert lower == {name for name in METRICS if name.startswith(("FPR", "FNR"))} | {
        "missed", "assd_mm", "hd95_mm", "region_distance_mm", "l1", "seconds_detect"
    }  # fmt: skip
    assert any(name.startswith("FNR") for name in lower)


def test_a_tables_lines_can_be_sizes_of_lesions():
    sizes = ("small", "large", "large", "none")
    rows = [
        row("ball", f"s{i}", 5.0 + i, dice=d, lesion_size_ml=size)
        for i, (d, size) in enumerate(zip((0.1, 0.5, 0.7, 1.0), sizes, strict=True))
    ]
    rows += [row("plain", f"s{i}", float(i)) for i in range(4)]
    table = Table("t", "T", ("dice", "AUROC"), rows=("entrant", "lesion_size_ml"), across=(), cases=["ball"])
    found = {(r.line[1], r.metric): r for r in summarise(tiny(), table, rows, none)}
    assert list(dict.fromkeys(line for line, _ in found)) == ["small", "medium", "large"]
    assert [(found[size, "dice"].value, found[size, "dice"].n) for size in ("small", "medium", "large")] == [
        (pytest.approx(10), 1),
        (None, 0),
        (pytest.approx(60), 2),
    ]
    assert found["large", "AUROC"].value == 100
