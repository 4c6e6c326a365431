"""A study: what it runs, what it keeps, what it says of what it cannot run, and the cells of its tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomri import files, methods, study
from anomri.cohort import Cohort
from anomri.errors import AnomriError, BadCall, BadInput
from anomri.method import Method
from anomri.scan import Scan
from anomri.study import Case, Entrant, Source, Study, Table, engine, kept, plan, summarise
from anomri.train import generator
from stand_in import Brightness, brains, brighten


def fails(scan: Scan, rng: torch.Generator) -> Scan:
    raise BadInput(f"scan '{scan.id}' cannot be changed")


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "METHODS", [*methods.METHODS, Brightness])
    Brightness.looked = []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brains(tmp_path_factory.mktemp("data"))


def source(data: Path | None = None, **changes: Any) -> Source:
    given = {"title": "Tiny", "variable": "TINY", "offered": "nowhere", "layout": "a folder"}
    return Source(**{**given, **changes})


def first(cohort: Cohort) -> Cohort:
    return cohort[:2]


def last(cohort: Cohort) -> Cohort:
    return cohort[2:]


BRIGHT = Entrant("brightness", fit="healthy", preset={"spacing": 6.0})
PLAIN = Case("plain", "test", anomalous=False)
BALL = Case("ball", "test", brighten(4.0), against="plain", facts={"size": "big"})
FAINT = Case("faint", "test", brighten(0.1), against="plain", facts={"size": "big"})
NOISE = Case("noise", "test", brighten(1.5, noise=True), prepared=True, against="plain", facts={"severity": 1.0})


def tiny(**changes: Any) -> Study:
    given: dict[str, Any] = {
        "name": "tiny",
        "title": "A tiny study",
        "paper": "none",
        "entrants": {"Bright": BRIGHT},
        "sources": {"healthy": source(part=first), "test": source(part=last)},
        "cases": [PLAIN, BALL, NOISE],
        "measures": ("overlap", "voxel", "oracle", "surface", "lesions", "healthy"),
        "tables": [Table("all", "All", ("AUROC", "dice"), expected={("Bright", "ball", "dice"): 80.0})],
    }
    return Study(**{**given, **changes})


def rows_of(result: study.Result, case: str) -> list[dict[str, Any]]:
    return [row for row in result.rows if row["case"] == case]


@pytest.fixture(scope="module")
def ran(data: Path, tmp_path_factory: pytest.TempPathFactory) -> study.Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "METHODS", [*methods.METHODS, Brightness])
        return study.run(tiny(), tmp_path_factory.mktemp("out"), places={"TINY": str(data)})


# --- what a run does ------------------------------------------------------------------------------------------------


def test_a_row_per_entrant_case_and_scan_in_the_studys_order(ran):
    assert [(r["entrant"], r["case"], r["scan"]) for r in ran.rows] == [
        ("Bright", case, f"s{n}") for case in ("plain", "ball", "noise") for n in (2, 3, 4)
    ]
    assert all(r["status"] == "done" for r in ran.rows)
    assert {r["case"]: (r["anomalous"], r["against"]) for r in ran.rows} == {
        "plain": (0, ""), "ball": (1, "plain"), "noise": (1, "plain")
    }  # fmt: skip
    assert {r["severity"] for r in rows_of(ran, "noise")} == {1.0}


def test_what_is_measured_fits_what_is_there(ran):
    plain, ball = rows_of(ran, "plain")[0], rows_of(ran, "ball")[0]
    assert "dice" not in plain
    assert plain["lesion_ml"] is None
    assert plain["psnr_db"] > 0
    assert ball["dice"] > 0.5
    assert ball["dice"] <= ball["dice_best_scan_oracle"] + 1e-9
    assert ball["voxel_auroc"] > 0.95
    assert 0 <= ball["assd_mm"] < ball["hd95_mm"] + 1e-9
    assert ball["lesion_ml"] == pytest.approx(14.1, rel=0.15)
    assert ball["missed"] == 0


def test_the_histogram_of_a_row_gives_its_best_dice(ran):
    row = rows_of(ran, "ball")[1]
    _, dice = ran.histogram(row).dice()
    assert dice.max() == pytest.approx(row["dice_best_scan_oracle"], abs=0.01)
    assert ran.histogram(rows_of(ran, "plain")[0]) is None


def test_methods_never_see_the_truth_nor_the_scans_that_others_fit_on(ran, data, tmp_path):
    study.run(tiny(), tmp_path, places={"TINY": str(data)})
    assert set(Brightness.looked) == {"s2", "s3", "s4"}


def test_a_second_run_does_nothing_again(data, tmp_path):
    once = study.run(tiny(), tmp_path, places={"TINY": str(data)})
    Brightness.looked = []
    told: list[tuple[int, str, int]] = []
    again = study.run(tiny(), tmp_path, places={"TINY": str(data)}, progress=lambda *a: told.append(a))
    assert Brightness.looked == []
    assert again.rows == once.rows
    assert told[-1][0] == told[-1][2] == 9
    study.run(tiny(), tmp_path, places={"TINY": str(data)}, overwrite=True)
    assert len(Brightness.looked) == 9


@pytest.mark.parametrize(
    "change",
    [
        {"cases": [PLAIN, replace(BALL, change=brighten(5.0)), NOISE]},
        {"cases": [PLAIN, replace(BALL, facts={"size": "small"}), NOISE]},
        {"cases": [PLAIN, replace(BALL, prepared=True), NOISE]},
    ],
)
def test_what_a_row_depends_on_makes_it_anew(data, tmp_path, change):
    study.run(tiny(), tmp_path, places={"TINY": str(data)})
    Brightness.looked = []
    study.run(tiny(**change), tmp_path, places={"TINY": str(data)})
    assert len(Brightness.looked) == 3


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"measures": ("overlap",)}, {"entrants": {"Bright": replace(BRIGHT, set={"cut": 3.0})}}]
)
def test_another_seed_measure_or_method_makes_all_rows_anew(data, tmp_path, change):
    study.run(tiny(), tmp_path, places={"TINY": str(data)})
    Brightness.looked = []
    study.run(tiny(**change), tmp_path, places={"TINY": str(data)})
    assert len(Brightness.looked) == 9


def test_jobs_and_shards_give_the_same_rows(ran, data, tmp_path):
    def plain(rows):
        return [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in rows]

    places = {"TINY": str(data)}
    assert plain(study.run(tiny(), tmp_path / "jobs", places=places, jobs=3).rows) == plain(ran.rows)
    part = study.run(tiny(), tmp_path / "shards", places=places, shard=(1, 2))
    assert {r["scan"] for r in part.rows} == {"s2", "s4"}
    both = study.run(tiny(), tmp_path / "shards", places=places, shard=(2, 2))
    assert plain(both.rows) == plain(ran.rows)
    with pytest.raises(BadCall, match="3/2"):
        study.run(tiny(), tmp_path, places=places, shard=(3, 2))


def test_a_change_draws_the_same_for_every_case_of_a_scan_and_another_for_another_scan(data, tmp_path):
    twin = replace(NOISE, name="twin")
    result = study.run(tiny(cases=[PLAIN, NOISE, twin]), tmp_path, places={"TINY": str(data)})
    assert [r["score"] for r in rows_of(result, "noise")] == [r["score"] for r in rows_of(result, "twin")]
    assert len({r["score"] for r in rows_of(result, "noise")}) == 3


def test_prepared_changes_the_preprocessed_scan_and_raw_the_one_before(data, tmp_path):
    seen = []

    def spy(scan: Scan, rng: torch.Generator) -> Scan:
        seen.append((scan.spacing, float(scan.image.max()), scan.stripped))
        return scan

    cases = [
        PLAIN,
        Case("raw", "test", spy, against="plain"),
        Case("done", "test", spy, prepared=True, against="plain"),
    ]
    study.run(tiny(cases=cases), tmp_path, places={"TINY": str(data)}, limit=1)
    (raw_mm, raw_top, raw_stripped), (mm, top, stripped) = seen
    assert raw_mm == pytest.approx((5.0, 5.5, 6.0))
    assert mm == pytest.approx((6.0, 6.0, 6.0))
    assert raw_top > 500
    assert top < 10
    assert raw_stripped
    assert stripped


def test_one_failure_ends_nothing_and_is_tried_again(data, tmp_path):
    bad = tiny(cases=[PLAIN, replace(BALL, change=fails), NOISE])
    result = study.run(bad, tmp_path, places={"TINY": str(data)})
    assert [r["status"] for r in rows_of(result, "ball")] == ["failed"] * 3
    assert rows_of(result, "ball")[0]["message"] == "scan 's2' cannot be changed"
    assert {r["status"] for r in rows_of(result, "noise")} == {"done"}
    Brightness.looked = []
    mended = study.run(tiny(), tmp_path, places={"TINY": str(data)})
    assert [r["status"] for r in rows_of(mended, "ball")] == ["done"] * 3
    assert len(Brightness.looked) == 3


def test_an_error_that_nobody_foresaw_is_a_failed_row_too(data, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for n in range(3):
        (folder / f"a{n}.nii.gz").write_bytes((data / f"s{n}.nii.gz").read_bytes())
    (folder / "broken.nii.gz").write_bytes((data / "s3.nii.gz").read_bytes())
    result = study.run(tiny(cases=[PLAIN]), tmp_path / "out", places={"TINY": str(folder)})
    assert {r["scan"]: r["message"] for r in result.rows} == {"a2": "", "broken": "RuntimeError: the network fell over"}


def test_limit_and_only(data, tmp_path):
    result = study.run(tiny(), tmp_path, places={"TINY": str(data)}, limit=1, only=["ball"])
    assert [(r["case"], r["scan"]) for r in result.rows] == [("plain", "s2"), ("ball", "s2")]
    with pytest.raises(BadCall, match=r"unknown entrant or case 'balls'; known: Bright, ball, noise, plain"):
        study.run(tiny(), tmp_path, places={"TINY": str(data)}, only=["balls"])


def test_a_model_that_is_named_takes_the_entrants_place(data, tmp_path):
    study.run(tiny(), tmp_path / "one", places={"TINY": str(data)}, limit=1)
    model = tmp_path / "one" / "models" / "Bright"
    waiting = tiny(entrants={"Bright": Entrant("brightness")})
    with pytest.raises(BadInput, match=r"Bright cannot compete: it has no model; give --model 'Bright=FOLDER'"):
        study.run(waiting, tmp_path / "two", places={"TINY": str(data)})
    assert (
        len(study.run(waiting, tmp_path / "two", places={"TINY": str(data)}, models={"Bright": str(model)}).rows) == 9
    )


def test_a_fitted_entrant_is_fitted_once_and_then_loaded(data, tmp_path, monkeypatch):
    fits = []
    real = Brightness.learn
    monkeypatch.setattr(Brightness, "learn", lambda self, *a: fits.append(1) or real(self, *a))
    for _ in range(2):
        study.run(tiny(), tmp_path, places={"TINY": str(data)}, limit=1)
    assert len(fits) == 1
    study.run(
        tiny(entrants={"Bright": replace(BRIGHT, arguments={"cut": 1.0})}),
        tmp_path,
        places={"TINY": str(data)},
        limit=1,
    )
    assert len(fits) == 2


def test_entrants_that_share_weights_are_fitted_once(data, tmp_path, monkeypatch):
    fits = []
    real = Brightness.learn
    monkeypatch.setattr(Brightness, "learn", lambda self, *a: fits.append(1) or real(self, *a))
    entrants = {"Bright": BRIGHT, "Brighter": Entrant("brightness", shares="Bright", set={"cut": 3.0})}
    result = study.run(tiny(entrants=entrants), tmp_path, places={"TINY": str(data)}, limit=1)
    assert len(fits) == 1
    own, other = ([r["mask_ml"] for r in result.rows if r["entrant"] == name] for name in entrants)
    assert all(a > b for a, b in zip(own, other, strict=True))
    assert len(list((tmp_path / "models").iterdir())) == 1
    # The other one's model in the place of the one that is shared is for both.
    models = {"Bright": str(next((tmp_path / "models").iterdir()))}
    study.run(tiny(entrants=entrants), tmp_path / "two", places={"TINY": str(data)}, models=models, limit=1)
    assert len(fits) == 1


def test_a_training_begins_with_the_weights_of_another_which_is_fitted_first(data, tmp_path, monkeypatch):
    seen: list[Any] = []
    learn, begin = Brightness.learn, Brightness.begin_with
    monkeypatch.setattr(Brightness, "learn", lambda self, *a: seen.append((self.cut, a[-1].warm)) or learn(self, *a))
    monkeypatch.setattr(Brightness, "begin_with", lambda self, o: seen.append(o.cut) or begin(self, o))
    entrants = {"Later": replace(BRIGHT, arguments={"cut": 3.0}, start="First"), "First": BRIGHT}
    for only in (["Later"], []):
        study.run(tiny(entrants=entrants), tmp_path, places={"TINY": str(data)}, limit=1, only=only)
        assert seen == [(2.0, False), 2.0, (3.0, True)], "both are there the second time"
    # What it begins with is part of what was asked for: from random weights it is another training.
    entrants["Later"] = replace(entrants["Later"], start=None)
    study.run(tiny(entrants=entrants), tmp_path, places={"TINY": str(data)}, limit=1)
    assert seen[3:] == [(3.0, False)]


def test_a_source_that_is_named_twice_counts_twice(data, tmp_path, monkeypatch):
    seen: list[list[str]] = []
    learn = Brightness.learn
    monkeypatch.setattr(Brightness, "learn", lambda self, *a: seen.append(list(a[0].ids)) or learn(self, *a))
    once, twice = (replace(BRIGHT, fit=fit) for fit in ("healthy", ["healthy", "healthy"]))
    for entrant in (once, twice):
        study.run(tiny(entrants={"Bright": entrant}), tmp_path, places={"TINY": str(data)}, limit=1)
    assert seen == [["s0", "s1"], ["healthy: s0", "healthy: s1", "healthy, 2: s0", "healthy, 2: s1"]]


def test_then_calibrate_and_set(data, tmp_path):
    opened = []

    def then(method: Method, open_source: Any) -> None:
        opened.extend(open_source("healthy").ids)
        assert open_source("healthy")[0].spacing == pytest.approx((6.0,) * 3)

    entrant = replace(BRIGHT, then=then, calibrate="healthy", set={"cut": 2.5})
    study.run(tiny(entrants={"Bright": entrant}), tmp_path, places={"TINY": str(data)}, limit=1)
    assert opened == ["s0", "s1"]
    about = files.read_json(tmp_path / "study.json")["entrants"]["Bright"]
    assert about["arguments"] == {"cut": 2.5, "gain": 1.0}
    assert about["threshold"] is not None
    with pytest.raises(BadInput, match=r"unknown argument of method 'brightness': 'cup'; known: cut, gain"):
        study.run(tiny(entrants={"Bright": replace(BRIGHT, set={"cup": 1})}), tmp_path, places={"TINY": str(data)})


def test_what_is_missing_is_said_and_the_rest_is_run(data, tmp_path, monkeypatch):
    monkeypatch.delenv("ELSEWHERE", raising=False)
    more = tiny(
        entrants={"Bright": BRIGHT, "GAN": Entrant("fanogan")},
        sources={
            "healthy": source(part=first),
            "test": source(part=last),
            "else": source(title="Other", variable="ELSEWHERE"),
        },
        cases=[PLAIN, Case("other", "else")],
    )
    result = study.run(more, tmp_path, places={"TINY": str(data)})
    assert {r["case"] for r in result.rows} == {"plain"}
    assert result.remarks == [
        "Other is not here: set ELSEWHERE, or give --data ELSEWHERE=FOLDER. Offered: nowhere. Layout: a folder",
        "GAN waits: method 'fanogan' is not in the tool yet",
    ]
    monkeypatch.setenv("ELSEWHERE", str(data))
    assert {r["case"] for r in study.run(more, tmp_path, places={"TINY": str(data)}).rows} == {"plain", "other"}


def test_nothing_to_run_is_one_error(tmp_path, monkeypatch):
    monkeypatch.delenv("TINY", raising=False)
    with pytest.raises(BadInput, match="nothing of this study can be run here: Tiny is not here: set TINY"):
        study.run(tiny(), tmp_path)


def test_a_study_that_costs_too_much_does_not_begin(data, tmp_path):
    with pytest.raises(BadCall, match=r"would cost 'Bright' 9 detections, its limit is 8"):
        study.run(tiny(most=8), tmp_path, places={"TINY": str(data)})
    assert Brightness.looked == []


def test_results_hold_no_place_of_the_machine(data, tmp_path):
    study.run(tiny(), tmp_path, places={"TINY": str(data)})
    for path in (tmp_path / "rows").rglob("*.json"):
        assert str(data) not in path.read_text()
    assert str(data) not in (tmp_path / "study.json").read_text()


# --- what a study file may say --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cases": [PLAIN, PLAIN]}, "two cases named 'plain'"),
        ({"cases": [replace(PLAIN, source="tests")]}, r"source in study 'tiny': 'tests'; known: healthy, test"),
        (
            {"cases": [PLAIN, replace(BALL, facts={"score": 1})]},
            "case 'ball' has a fact 'score', which is a column of every row",
        ),
        ({"cases": [replace(BALL, against="plane")]}, r"case in study 'tiny': 'plane'"),
        ({"cases": [PLAIN, replace(BALL, threshold_from="x")]}, r"case in study 'tiny': 'x'"),
        ({"cases": [replace(PLAIN, only=("Dark",))]}, r"entrant in study 'tiny': 'Dark'"),
        ({"entrants": {"Bright": replace(BRIGHT, shares="Dark")}}, r"entrant in study 'tiny': 'Dark'"),
        ({"entrants": {"Bright": replace(BRIGHT, start="Dark")}}, r"entrant in study 'tiny': 'Dark'"),
        (
            {"entrants": {"Bright": replace(BRIGHT, start="Bright")}},
            "the training of 'Bright' begins with its own weights",
        ),
        (
            {"entrants": {"Bright": replace(BRIGHT, start="B"), "B": replace(BRIGHT, start="Bright")}},
            "the training of 'Bright' begins with its own weights",
        ),
        ({"entrants": {"Bright": replace(BRIGHT, fit="x")}}, r"source in study 'tiny': 'x'"),
        (
            {"entrants": {"Bright": replace(BRIGHT, pipeline="x")}},
            "unknown preset 'x'; known: behrendt, bengs, itermask2, itermask3d, none",
        ),
        ({"entrants": {"Bright": replace(BRIGHT, pipeline="bengs")}}, "preset 'bengs' does not take .*: spacing"),
        ({"entrants": {"Bright": replace(BRIGHT, pipeline="none")}}, "preset 'none' leaves scans as they are"),
        ({"tables": [Table("a", "A", ("dice",), cases=["x"])]}, r"case in study 'tiny': 'x'"),
        ({"tables": [Table("a", "A", ("dice",), reference="x")]}, r"entrant in study 'tiny': 'x'"),
    ],
)
def test_names_that_do_not_fit_are_told_at_once(changes, said):
    with pytest.raises(BadCall, match=said):
        tiny(**changes)


def test_load(tmp_path):
    good = tmp_path / "good.py"
    good.write_text(
        "from anomri.study import *\nfrom anomri.study import Study, Source, Entrant\n"
        "STUDY = Study('s', 'S', '', {'a': Entrant('x')}, {}, [], (), [])\n"
    )
    assert study.load(good).name == "s"
    for name, text, said in (
        ("none.py", None, "is not a study"),
        ("data.txt", "STUDY = 1", "is not a study"),
        ("empty.py", "x = 1", "defines no STUDY"),
        ("bad.py", "1 / 0", "cannot be run: ZeroDivisionError"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(BadInput, match=said):
            study.load(tmp_path / name)


def test_a_data_set_brings_its_own_words():
    own = Source(dataset="brats2021", sequence="FLAIR")
    assert own.title == "BraTS 2021"
    assert own.variable == "BRATS2021"
    assert "BraTS2021_" in str(own.layout)
    with pytest.raises(BadCall, match="needs its title"):
        Source()


# --- cells ----------------------------------------------------------------------------------------------------------


def row(case: str, scan: str, score: float, entrant: str = "Bright", **more: Any) -> dict[str, Any]:
    return {"entrant": entrant, "case": case, "scan": scan, "subject": scan, "status": "done", "anomalous": int(case != "plain"), "against": "" if case == "plain" else "plain", "score": score, **more}  # fmt: skip


def none(row: Any) -> None:
    return None


ROWS = [
    *(row("plain", f"s{i}", s, mask_ml=1.0 + i) for i, s in enumerate((1.0, 2.0, 3.0, 4.0))),
    *(row("ball", f"s{i}", s, dice=d, mask_ml=2.0, lesion_ml=2.0, both_ml=b) for i, (s, d, b) in enumerate([(3.5, 0.2, 0.4), (5.0, 0.4, 0.8), (6.0, 0.6, 1.2), (2.5, 0.4, 0.8)])),
]  # fmt: skip


def cell(records: list[study.Record], metric: str, group: str = "ball") -> study.Record:
    (found,) = [r for r in records if r.metric == metric and r.group == (group,)]
    return found


def test_cells_are_what_a_pencil_gives():
    table = Table("t", "T", ("AUROC", "dice", "mask_ml", "dice_pooled"), expected={("Bright", "ball", "AUROC"): 95.5})
    records = summarise(tiny(), table, ROWS, none)
    assert len(records) == 3 * 4
    area = cell(records, "AUROC")
    # Of 16 pairs, 3.5 beats three controls, 5 and 6 all four, 2.5 two.
    assert area.value == pytest.approx(100 * 13 / 16)
    assert (area.n, area.expected) == (4, 95.5)
    assert area.low < area.value < area.high <= 100
    dice = cell(records, "dice")
    assert dice.value == pytest.approx(40.0)
    assert dice.sd == pytest.approx(100 * np.std([0.2, 0.4, 0.6, 0.4], ddof=1))
    assert dice.low < 40 < dice.high
    assert cell(records, "mask_ml", "plain").value == pytest.approx(2.5)
    assert cell(records, "dice_pooled").value == pytest.approx(100 * 2 * 3.2 / 16)
    assert cell(records, "AUROC", "plain").value is None
    assert cell(records, "dice", "noise").value is None


def test_a_subject_counts_once_however_many_scans_it_has():
    rows = [dict(r, subject="s0" if r["scan"] in ("s0", "s1") else r["scan"]) for r in ROWS]
    dice = cell(summarise(tiny(), Table("t", "T", ("dice",)), rows, none), "dice")
    assert dice.value == pytest.approx(100 * (0.3 + 0.6 + 0.4) / 3)
    assert dice.n == 4


def test_failed_rows_do_not_count_and_the_score_can_be_another_column():
    rows = [*ROWS, dict(row("ball", "s9", 0.0, dice=0.0), status="failed")]
    assert cell(summarise(tiny(), Table("t", "T", ("dice",)), rows, none), "dice").value == pytest.approx(40.0)
    by_mask = summarise(tiny(), Table("t", "T", ("AUROC",), score="mask_ml"), ROWS, none)
    assert cell(by_mask, "AUROC").value == pytest.approx(100 * (1 + 0.5) / 4)


def test_lines_and_groups_come_from_facts():
    table = Table("t", "T", ("dice",), rows=("size",), across=(), cases=["ball"], expected={("big", "", "dice"): 1.0})
    (only,) = summarise(tiny(), table, ROWS, none)
    assert (only.line, only.group, only.expected) == (("big",), (), 1.0)
    both = summarise(
        tiny(cases=[PLAIN, BALL, FAINT]),
        Table("t", "T", ("dice",), across=("size",), cases=["ball", "faint"]),
        ROWS,
        none,
    )
    assert [(r.line, r.group, r.n) for r in both] == [(("Bright",), ("big",), 4)]


def test_tests_against_the_reference_are_paired_and_corrected():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(10):
        base = rng.uniform(0.3, 0.6)
        rows.append(row("ball", f"s{i}", 1.0, dice=base, jaccard=base))
        rows.append(
            row(
                "ball",
                f"s{i}",
                1.0,
                "Better",
                dice=base + 0.05 + 0.01 * rng.normal(),
                jaccard=base + 0.01 * rng.normal(),
            )
        )
    both = tiny(entrants={"Bright": BRIGHT, "Better": BRIGHT})
    records = summarise(both, Table("t", "T", ("dice", "jaccard"), cases=["ball"], reference="Bright"), rows, none)
    found = {(r.line[0], r.metric): r.p for r in records}
    assert found["Bright", "dice"] is None
    # All ten differences have one sign: 2 of the 1,024 sign patterns are as far, times two comparisons.
    assert found["Better", "dice"] == pytest.approx(2 * 2 / 1024)
    assert found["Better", "jaccard"] > 0.05


def test_one_threshold_for_a_data_set_and_one_from_labelled_validation():
    from anomri.metrics.histogram import VoxelHistogram
    from anomri.metrics.oracle import best_dice_dataset_oracle, dice_at, labelled_validation_threshold, overlap_at

    rng = np.random.default_rng(1)
    made = {}
    for case in ("ball", "faint"):
        for i in range(3):
            truth = rng.random((6, 7, 8)) < 0.2
            made[case, f"s{i}"] = VoxelHistogram.of(rng.random((6, 7, 8)) + truth * rng.uniform(0.2, 0.9), truth)
    # The labelled scans are of other subjects.
    rows = [row(case, scan, 1.0) | {"subject": f"{case} {scan}"} for case, scan in made]
    cases = [PLAIN, replace(BALL, threshold_from="faint"), FAINT]
    metrics = [name for name, metric in study.METRICS.items() if metric.kind == "dataset" and name != "dice_pooled"]
    table = Table("t", "T", metrics, cases=["ball", "faint"])
    records = summarise(tiny(cases=cases), table, rows, lambda r: made[r["case"], r["scan"]])
    own = [h for (case, _), h in made.items() if case == "ball"]
    threshold = labelled_validation_threshold([h for (case, _), h in made.items() if case == "faint"])
    assert cell(records, "dice_best_dataset_oracle").value == pytest.approx(100 * best_dice_dataset_oracle(own)[0])
    assert cell(records, "dice_labelled_validation").value == pytest.approx(
        100 * np.mean([dice_at(h, threshold) for h in own])
    )
    assert cell(records, "dice_labelled_validation").value <= cell(records, "dice_best_dataset_oracle").value + 1e-9
    assert cell(records, "dice_labelled_validation", "faint").value is None
    pooled = own[0] + own[1] + own[2]
    assert cell(records, "dice_pooled_labelled_validation").value == pytest.approx(100 * dice_at(pooled, threshold))
    assert cell(records, "voxel_auroc_pooled").value == pytest.approx(100 * pooled.auroc())
    assert cell(records, "voxel_auprc_pooled").value == pytest.approx(100 * pooled.auprc())
    best = best_dice_dataset_oracle(own)[1]
    for name in ("sensitivity", "precision", "jaccard"):
        found = cell(records, f"{name}_best_dataset_oracle")
        assert (found.value, found.n) == (pytest.approx(100 * np.mean([overlap_at(h, best)[name] for h in own])), 3)


def test_every_metric_that_needs_the_truth_to_be_found_says_oracle():
    for name, metric in study.METRICS.items():
        assert metric.oracle == name.endswith("_oracle"), name
        assert metric.labelled == ("labelled" in name), name
    with pytest.raises(BadCall, match="unknown metric 'dise'"):
        summarise(tiny(), Table("t", "T", ("dise",)), ROWS, none)


def test_unknown_measures_fail_before_anything_is_looked_at(data, tmp_path):
    with pytest.raises(AnomriError, match="unknown measure 'dice'"):
        study.run(tiny(measures=("dice",)), tmp_path, places={"TINY": str(data)})
    assert Brightness.looked == []


def test_a_row_that_is_damaged_is_made_again(data, tmp_path):
    study.run(tiny(cases=[PLAIN]), tmp_path, places={"TINY": str(data)})
    path = tmp_path / "rows" / "Bright" / "plain" / "s3.json"
    path.write_text("{")
    Brightness.looked = []
    assert len(study.run(tiny(cases=[PLAIN]), tmp_path, places={"TINY": str(data)}).rows) == 3
    assert Brightness.looked == ["s3"]
    assert json.loads(path.read_text())["row"]["scan"] == "s3"


def test_names_become_file_names_that_differ():
    assert kept.slug("IterMask3D") == "IterMask3D"
    assert len({kept.slug(name) for name in ("a b", "a/b", "a-b", "a  b")}) == 4
    assert "/" not in kept.slug("../x")


def test_what_a_change_is_does_not_depend_on_where_it_lies_in_memory():
    assert engine._named(brighten(2.0)) == "brighten(by=2.0, noise=False)"
    assert engine._named(fails) == "<function fails>"
    assert engine._named(None) == ""
    assert plan.Change is not None
    assert generator(0, "a").initial_seed() == generator(0, "a").initial_seed()
