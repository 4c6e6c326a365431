"""A run of a study: what it checks before it begins, what it never does for nothing, and what a changed study leaves behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anomri import files, methods, preprocess, study
from anomri.cohort import Entry
from anomri.errors import BadCall, BadInput
from anomri.scan import Detection, Scan, Trace
from anomri.study import Case, Entrant, Plot, Table, engine
from stand_in import Brightness, brains, brighten
from test_study import BALL, BRIGHT, FAINT, NOISE, PLAIN, first, last, rows_of, source, tiny


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "METHODS", [*methods.METHODS, Brightness])
    Brightness.looked = []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brains(tmp_path_factory.mktemp("data"))


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    done: list[int] = []
    real = Brightness.learn
    monkeypatch.setattr(Brightness, "learn", lambda self, *a: done.append(1) or real(self, *a))
    return done


@pytest.mark.parametrize(
    ("changes", "models", "said"),
    [
        ({"tables": [Table("t", "T", ("dise",))]}, {}, "unknown metric 'dise'"),
        ({"plots": [Plot("p", "P", "curve", y="dise", x="severity")]}, {}, "unknown metric 'dise'"),
        ({}, {"Brigth": "x"}, "unknown entrant of --model 'Brigth'; known: Bright"),
        ({"most": 8}, {}, "would cost 'Bright' 9 detections"),
    ],
)
def test_what_cannot_end_well_is_told_before_anything_is_fitted(data, tmp_path, fits, changes, models, said):
    with pytest.raises(BadCall, match=said):
        study.run(tiny(**changes), tmp_path, places={"TINY": str(data)}, models=models)
    assert (fits, Brightness.looked) == ([], [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tables": [Table("t", "T", ("dice",), rows=("entrants",))]}, "column of table 't': 'entrants'; known: case"),
        ({"tables": [Table("t", "T", ("dice",), across=("sizes",))]}, "column of table 't': 'sizes'"),
        ({"tables": [Table("t", "T", ("dice",), rows=("size",), across=("entrant",), reference="Bright")]}, "needs 'entrant' among its rows"),
        ({"plots": [Plot("p", "P", "bocks")]}, "kind of plot 'p': 'bocks'; known: box"),
        ({"plots": [Plot("p", "P", "curve", y="dice", x="sizes")]}, "fact of plot 'p': 'sizes'"),
    ],
)  # fmt: skip
def test_a_table_or_plot_of_what_no_case_has_is_refused(changes, said):
    with pytest.raises(BadCall, match=said):
        tiny(**changes)


def test_an_entrant_that_looks_at_nothing_is_not_fitted(data, tmp_path, fits):
    entrants = {"Bright": BRIGHT, "Idle": replace(BRIGHT, arguments={"cut": 3.0})}
    cases = [PLAIN, replace(BALL, only=["Idle"])]
    more = tiny(entrants=entrants, cases=[replace(PLAIN, only=["Bright"]), *cases[1:]])
    study.run(more, tmp_path, places={"TINY": str(data)}, only=["plain"])
    assert len(fits) == 1


def test_an_entrant_that_shares_weights_can_be_given_its_own_model(data, tmp_path):
    study.run(tiny(), tmp_path / "one", places={"TINY": str(data)}, limit=1)
    model = str(tmp_path / "one" / "models" / "Bright")
    entrants = {"GAN": Entrant("fanogan"), "Own": Entrant("fanogan", shares="GAN")}
    result = study.run(tiny(entrants=entrants), tmp_path / "two", places={"TINY": str(data)}, models={"Own": model})
    assert {r["entrant"] for r in result.rows} == {"Own"}
    assert result.remarks == ["GAN waits: method 'fanogan' is not in the tool yet"]


def test_a_part_of_a_study_says_that_it_is_one(data, tmp_path):
    places = {"TINY": str(data)}
    part = study.run(tiny(), tmp_path, places=places, shard=(1, 2), only=["ball"], limit=2)
    assert part.remarks == [
        "scans after the first 2 of each source (--limit 2)",
        "entrants and cases other than ball (--only)",
        "2 detections are left for other shards; run once more without --shard to gather them",
    ]
    assert study.run(tiny(), tmp_path, places=places).remarks == []


def test_a_place_of_the_machine_is_in_no_remark(data, tmp_path):
    more = tiny(sources={"healthy": source(part=first), "test": source(part=last), "else": source(variable="ELSE")})
    more = replace(more, cases=[PLAIN, Case("other", "else")])
    result = study.run(more, tmp_path, places={"TINY": str(data), "ELSE": str(tmp_path / "secret")}, limit=1)
    assert "source 'else' cannot be read: cohort '$ELSE' does not exist" in result.remarks[0]
    assert not any(str(tmp_path) in remark for remark in result.remarks)


def test_a_histogram_goes_with_the_row_that_it_was_of(data, tmp_path):
    places = {"TINY": str(data)}
    once = study.run(tiny(cases=[PLAIN, BALL]), tmp_path, places=places)
    assert once.histogram(rows_of(once, "ball")[0]) is not None
    again = study.run(tiny(cases=[PLAIN, BALL], measures=("overlap",)), tmp_path, places=places)
    assert again.histogram(rows_of(again, "ball")[0]) is None


def test_a_scan_that_cannot_be_opened_fails_alone(data, tmp_path, monkeypatch):
    hashes, read = files.sha256, Entry.read

    def torn_hash(path: str | Path) -> str:
        if "s3" in str(path):
            raise BadInput(f"cannot read '{path}'")
        return hashes(path)

    def torn(entry: Entry) -> Scan:
        if entry.id == "s3":
            raise BadInput(f"cannot read '{next(iter(entry.images.values()))}'")
        return read(entry)

    monkeypatch.setattr(files, "sha256", torn_hash)
    monkeypatch.setattr(Entry, "read", torn)
    result = study.run(tiny(cases=[PLAIN]), tmp_path, places={"TINY": str(data)})
    assert {r["scan"]: r["status"] for r in result.rows} == {"s2": "done", "s3": "failed", "s4": "done"}
    assert str(data) not in rows_of(result, "plain")[1]["message"]


def test_what_failed_is_tried_again_under_the_same_key_and_what_is_done_is_not(data, tmp_path, monkeypatch):
    places, find = {"TINY": str(data)}, Brightness.find
    monkeypatch.setattr(Brightness, "find", lambda self, scan, rng: 1 / 0 if scan.id == "s3" else find(self, scan, rng))
    failed = study.run(tiny(cases=[PLAIN]), tmp_path, places=places)
    assert [r["status"] for r in failed.rows] == ["done", "failed", "done"]
    monkeypatch.setattr(Brightness, "find", find)
    Brightness.looked = []
    assert {r["status"] for r in study.run(tiny(cases=[PLAIN]), tmp_path, places=places).rows} == {"done"}
    assert Brightness.looked == ["s3"]


def test_an_interrupted_run_keeps_its_rows_and_goes_on(data, tmp_path):
    def stop(done: int, text: str, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    places = {"TINY": str(data)}
    with pytest.raises(KeyboardInterrupt):
        study.run(tiny(), tmp_path, places=places, progress=stop)
    kept = len(list((tmp_path / "rows").rglob("*.json")))
    assert 4 <= kept < 9
    Brightness.looked = []
    assert len(study.run(tiny(), tmp_path, places=places).rows) == 9
    assert len(Brightness.looked) == 9 - kept


@pytest.mark.parametrize(
    "change",
    [
        {"cases": [PLAIN, replace(BALL, against=None), NOISE]},
        {"cases": [PLAIN, replace(BALL, anomalous=False), NOISE]},
    ],
)
def test_a_row_depends_on_what_its_case_says_is_true(data, tmp_path, change):
    study.run(tiny(), tmp_path, places={"TINY": str(data)})
    Brightness.looked = []
    study.run(tiny(**change), tmp_path, places={"TINY": str(data)})
    assert len(Brightness.looked) == 3


def test_a_scan_of_other_content_is_looked_at_again(tmp_path):
    folder = brains(tmp_path / "data")
    study.run(tiny(cases=[PLAIN]), tmp_path / "out", places={"TINY": str(folder)})
    (folder / "s3.nii.gz").write_bytes((folder / "s0.nii.gz").read_bytes())
    Brightness.looked = []
    study.run(tiny(cases=[PLAIN]), tmp_path / "out", places={"TINY": str(folder)})
    assert Brightness.looked == ["s3"]


def test_a_change_does_not_reach_the_next_case(data, tmp_path):
    alone = study.run(tiny(cases=[PLAIN, FAINT]), tmp_path / "a", places={"TINY": str(data)}, limit=1)
    after = study.run(tiny(cases=[PLAIN, BALL, NOISE, FAINT]), tmp_path / "b", places={"TINY": str(data)}, limit=1)
    one, other = (rows_of(result, "faint")[0] for result in (alone, after))
    assert {**one, "seconds": 0, "seconds_detect": 0} == {**other, "seconds": 0, "seconds_detect": 0}


def test_what_a_case_makes_of_a_scan_serves_all_entrants(data, tmp_path):
    made = []

    def change(scan: Scan, rng: torch.Generator) -> Scan:
        made.append(scan.id)
        return brighten(4.0)(scan, rng)

    entrants = {
        "Bright": BRIGHT,
        "Again": Entrant("brightness", shares="Bright"),
        "Coarse": replace(BRIGHT, preset={"spacing": 8.0}),
    }
    of = tiny(entrants=entrants, cases=[PLAIN, replace(BALL, change=change)])
    result = study.run(of, tmp_path, places={"TINY": str(data)})
    # Twice each: for the two entrants of one preprocessing, and for the third of another.
    assert sorted(made) == ["s2", "s2", "s3", "s3", "s4", "s4"]
    alone = study.run(
        replace(of, entrants={"Coarse": entrants["Coarse"]}), tmp_path / "alone", places={"TINY": str(data)}
    )
    both = [{r["case"]: r["score"] for r in rows if r["entrant"] == "Coarse"} for rows in (result.rows, alone.rows)]
    assert both[0] == both[1]


def test_a_score_that_a_method_does_not_give_fails_its_rows(data, tmp_path):
    unknown = {"Bright": replace(BRIGHT, score="vol")}
    result = study.run(tiny(entrants=unknown, cases=[PLAIN]), tmp_path, places={"TINY": str(data)}, limit=1)
    assert result.rows[0]["message"] == "unknown score 'vol'; known: mean_error, volume_ml"


def test_a_prepared_change_is_of_its_own_seed(data, tmp_path):
    once = study.run(tiny(cases=[PLAIN, NOISE]), tmp_path / "a", places={"TINY": str(data)}, limit=1)
    other = study.run(tiny(cases=[PLAIN, NOISE], seed=7), tmp_path / "b", places={"TINY": str(data)}, limit=1)
    assert rows_of(once, "noise")[0]["score"] != rows_of(other, "noise")[0]["score"]


def test_a_calibration_is_kept_and_made_anew_where_anything_differs(data, tmp_path, monkeypatch):
    looked = []
    real = Brightness.calibrate
    monkeypatch.setattr(Brightness, "calibrate", lambda self, *a, **k: looked.append(1) or real(self, *a, **k))
    calibrated = replace(BRIGHT, calibrate="healthy")
    first = study.run(tiny(entrants={"Bright": calibrated}), tmp_path, places={"TINY": str(data)}, limit=1)
    again = study.run(tiny(entrants={"Bright": calibrated}), tmp_path, places={"TINY": str(data)}, limit=1)
    assert len(looked) == 1
    assert again.rows == first.rows
    study.run(tiny(entrants={"Bright": calibrated}, seed=1), tmp_path, places={"TINY": str(data)}, limit=1)
    assert len(looked) == 2
    # Other settings of shared weights have thresholds of their own.
    both = {
        "Bright": calibrated,
        "Brighter": Entrant("brightness", shares="Bright", set={"cut": 3.0}, calibrate="healthy"),
    }
    study.run(tiny(entrants=both, seed=1), tmp_path, places={"TINY": str(data)}, limit=1)
    assert len(looked) == 3


def test_seconds_of_detection_are_apart_from_all_else(data, tmp_path):
    for row in study.run(tiny(), tmp_path, places={"TINY": str(data)}, limit=1).rows:
        assert 0 < row["seconds_detect"] < row["seconds"]


# --- which preprocessing, and what a fitted model depends on --------------------------------------------------------


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that checkpoints went to, one a fit."""
    folders: list[Path] = []
    real = Brightness.learn

    def learn(self, healthy, validation, rng, job):
        folders.append(job.folder)
        return real(self, healthy, validation, rng, job)

    monkeypatch.setattr(Brightness, "learn", learn)
    return folders


def fitted_with(**changes):
    return tiny(entrants={"Bright": replace(BRIGHT, **changes)}, cases=[PLAIN])


def test_an_entrant_is_fitted_and_looks_with_the_preset_that_it_names(data, tmp_path):
    seen = []
    entrants = {
        "Bengs": replace(
            BRIGHT, preset={}, pipeline="bengs", then=lambda method, opened: seen.append(opened("healthy")[0])
        ),
        "Shares": Entrant("brightness", shares="Bengs", set={"cut": 3.0}),
    }
    study.run(tiny(entrants=entrants, cases=[PLAIN]), tmp_path, places={"TINY": str(data)}, limit=1)
    assert [scan.grid.shape for scan in seen] == [(64, 64, 64)]
    model = methods.load(tmp_path / "models" / "Bengs")
    assert (model.preset, model.preset_arguments) == ("bengs", {})
    np.testing.assert_allclose(model.data["spacing_mm"], seen[0].spacing, rtol=1e-3)
    for about in files.read_json(tmp_path / "study.json")["entrants"].values():
        assert about["preprocessing"] == preprocess.describe(preprocess.preset("bengs"))


def test_a_scan_that_cannot_be_learned_from_is_left_out_and_told(tmp_path):
    folder = brains(tmp_path / "data")
    path = sorted(folder.rglob("*.nii.gz"))[0]
    path.write_bytes(path.read_bytes()[:1000])
    said: list[str] = []
    study.run(fitted_with(), tmp_path / "out", places={"TINY": str(folder)}, limit=1, say=said.append)
    told = [line for line in said if line.startswith("Left out of Bright: ")]
    assert len(told) == 1
    assert path.name in told[0]
    data = methods.load(tmp_path / "out/models/Bright").data
    assert (data["scans"], len(data["left_out"])) == (1, 1)
    study.run(fitted_with(), tmp_path / "out", places={"TINY": str(folder)}, limit=1, say=said.append)
    assert f"Bright was fitted without {data['left_out'][0]}; take " in said[-1]


def test_a_file_to_fit_and_to_validate_on_is_refused(data, tmp_path):
    with pytest.raises(BadInput, match="is both to fit and to validate on"):
        study.run(fitted_with(validate=("healthy", "test")), tmp_path, places={"TINY": str(data)}, limit=1)


def test_a_source_that_is_empty_is_told(data, tmp_path):
    nobody = tiny(
        entrants={"Bright": BRIGHT},
        cases=[PLAIN],
        sources={"healthy": source(part=lambda c: c[:0]), "test": source(part=last)},
    )
    with pytest.raises(BadInput, match=r"Tiny: none of the 5 scans at '.*' is of the part that is asked for"):
        study.run(nobody, tmp_path, places={"TINY": str(data)}, limit=1)


def test_scans_that_are_preprocessed_already_are_left_as_they_are(data, tmp_path):
    study.run(fitted_with(preset={}, pipeline="none"), tmp_path, places={"TINY": str(data)}, limit=1)
    assert files.read_json(tmp_path / "study.json")["entrants"]["Bright"]["preprocessing"] == []
    assert methods.load(tmp_path / "models" / "Bright").data["spacing_mm"] == pytest.approx([5.0, 5.5, 6.0])


def test_another_preset_is_fitted_anew_and_takes_no_checkpoint_of_the_first(data, tmp_path, trainings):
    places = {"TINY": str(data)}
    for changes in ({"pipeline": "bengs"}, {"pipeline": "bengs"}, {"pipeline": "none"}):
        study.run(fitted_with(preset={}, **changes), tmp_path, places=places, limit=1)
    assert len(trainings) == 2
    assert trainings[0] != trainings[1]
    assert methods.load(tmp_path / "models" / "Bright").preset == "none"
    # Other arguments of a preset may give the same grid.
    study.run(fitted_with(preset={"spacing": 6.0, "k": 3.0}), tmp_path, places=places, limit=1)
    study.run(fitted_with(preset={"spacing": 6.0, "k": 2.0}), tmp_path, places=places, limit=1)
    assert len(set(trainings)) == 4


def test_a_training_that_was_stopped_goes_on_in_its_folder(data, tmp_path, trainings, monkeypatch):
    places, save = {"TINY": str(data)}, Brightness.save

    def stop(self, folder, half):
        raise KeyboardInterrupt

    monkeypatch.setattr(Brightness, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        study.run(fitted_with(), tmp_path, places=places, limit=1)
    monkeypatch.setattr(Brightness, "save", save)
    study.run(fitted_with(), tmp_path, places=places, limit=1)
    assert trainings[0] == trainings[1]
    assert trainings[0].parent == tmp_path / "models" / "Bright"


def test_what_weights_do_not_depend_on_is_not_trained_anew_and_is_the_entrants_own(data, tmp_path, trainings):
    places, scores = {"TINY": str(data)}, []
    for gain in (2.0, 5.0, 1.0):
        changed = fitted_with(arguments={"gain": gain}, calibrate="healthy", score="mean_error")
        result = study.run(changed, tmp_path, places=places, limit=1)
        about = files.read_json(tmp_path / "study.json")["entrants"]["Bright"]
        assert about["arguments"] == {"cut": 2.0, "gain": gain}
        scores.append((result.rows[0]["score"] / gain, about["threshold"] / gain))
    assert len(trainings) == 1
    assert scores[1:] == [pytest.approx(scores[0])] * 2
    # What they do depend on is.
    study.run(fitted_with(arguments={"cut": 3.0, "gain": 2.0}), tmp_path, places=places, limit=1)
    assert len(trainings) == 2


def test_an_argument_that_an_earlier_version_had_not_counts_at_its_default(data, tmp_path, trainings):
    places = {"TINY": str(data)}
    study.run(fitted_with(), tmp_path, places=places, limit=1)
    path = tmp_path / "models" / "Bright" / "asked.json"
    asked = files.read_json(path)
    assert "cut" in asked["arguments"]
    files.write_json(path, {**asked, "arguments": {}})
    study.run(fitted_with(), tmp_path, places=places, limit=1)
    assert len(trainings) == 1
    study.run(fitted_with(arguments={"cut": 3.0}), tmp_path, places=places, limit=1)
    assert len(trainings) == 2


def test_several_sources_are_fitted_on_together_and_weights_can_be_kept_at_half_size(data, tmp_path, monkeypatch):
    learned, halves = [], []
    real, save = Brightness.learn, Brightness.save

    def learn(self, healthy, validation, rng, job):
        learned.append((healthy.ids, validation.ids))
        return real(self, healthy, validation, rng, job)

    monkeypatch.setattr(Brightness, "learn", learn)
    monkeypatch.setattr(
        Brightness, "save", lambda self, folder, half=False: halves.append(half) or save(self, folder, half=half)
    )
    sources = {"healthy": source(part=first), "test": source(part=last), "more": source(part=last)}

    def both(**changes):
        asked = replace(BRIGHT, fit=("test", "more"), validate="healthy", **changes)
        return tiny(entrants={"Bright": asked}, cases=[PLAIN], sources=sources)

    for _ in range(2):
        study.run(both(half=True), tmp_path, places={"TINY": str(data)}, limit=1)
    ids = tuple(f"{name}: s{n}" for name in ("test", "more") for n in (2, 3, 4))
    assert learned == [(ids, ("s0", "s1"))]
    assert halves == [True]
    study.run(both(), tmp_path, places={"TINY": str(data)}, limit=1)
    assert halves == [True, False]
    with pytest.raises(BadCall, match=r"source in study 'tiny': 'x'"):
        fitted_with(fit=("healthy", "x"))


def test_a_model_of_the_first_version_is_not_fitted_again(data, tmp_path, trainings):
    places = {"TINY": str(data)}
    study.run(fitted_with(), tmp_path, places=places, limit=1)
    path = tmp_path / "models" / "Bright" / "asked.json"
    asked = files.read_json(path)
    del asked["pipeline"]
    files.write_json(path, {**asked, "arguments": {**asked["arguments"], "gain": 1.0}})
    study.run(fitted_with(), tmp_path, places=places, limit=1)
    assert len(trainings) == 1
    # It was of the one pipeline that there was.
    study.run(fitted_with(preset={}, pipeline="none"), tmp_path, places=places, limit=1)
    files.write_json(path, {key: value for key, value in files.read_json(path).items() if key != "pipeline"})
    study.run(fitted_with(preset={}, pipeline="none"), tmp_path, places=places, limit=1)
    assert len(trainings) == 3


def test_what_a_method_settles_on_healthy_scans_is_kept_with_its_threshold(data, tmp_path, monkeypatch):
    settled, seen = [], []

    def settle(self, healthy, seed):
        settled.append(seed)
        self.data = {**self.data, "tau": 0.25, "seen": -1}

    monkeypatch.setattr(Brightness, "settle", settle)
    calibrated = fitted_with(calibrate="healthy", then=lambda method, opened: seen.append(files.plain(method.data)))
    for _ in range(2):
        study.run(calibrated, tmp_path, places={"TINY": str(data)}, limit=1)
    assert settled == [0]
    assert seen[0] == seen[1]
    assert (seen[1]["tau"], seen[1]["seen"], seen[1]["scans"]) == (0.25, -1, 2)
    kept = files.read_json(tmp_path / "models" / "Bright" / "calibration.json")
    assert set(kept["data"]) == {"tau", "seen", "calibration"}


def test_a_threshold_is_of_one_preprocessing(data, tmp_path):
    """The stand-in has no weights by which a model of another preset would differ."""
    thresholds = []
    for changes in ({"pipeline": "bengs"}, {"pipeline": "none"}):
        study.run(fitted_with(preset={}, calibrate="healthy", **changes), tmp_path, places={"TINY": str(data)}, limit=1)
        thresholds.append(files.read_json(tmp_path / "study.json")["entrants"]["Bright"]["threshold"])
    # In SD of the brain, and in the units of the file.
    assert thresholds[0] < 10 < 500 < thresholds[1]


def test_an_entrant_without_a_model_says_how_to_make_one(data, tmp_path):
    waiting = tiny(entrants={"Bright": Entrant("brightness", pipeline="itermask2")})
    with pytest.raises(BadInput, match="with one that 'anomri fit brightness --preset itermask2' wrote"):
        study.run(waiting, tmp_path, places={"TINY": str(data)})


def test_a_row_says_of_a_threshold_what_its_method_says():
    scan = Scan(np.ones((4, 4, 4), dtype=np.float32), np.eye(4), brain=np.ones((4, 4, 4), dtype=bool))
    order, tau = np.ones((4, 4, 4), dtype=np.uint8), np.ones(1, dtype=np.float32)
    map = np.zeros((4, 4, 4), dtype=np.float32)
    for facts, said in (
        ({"tau": 0.3, "rounds": 2}, {"tau": 0.3}),
        ({"fit": "tangent", "r2": 0.9, "stops": {"mask": {"tau": 0.2}}}, {"fit": "tangent", "r2": 0.9, "tau": 0.2}),
        (None, {}),
    ):
        trace = None if facts is None else Trace(order, tau, facts)
        found = Detection(scan, map, {"volume_ml": 1.0}, trace=trace, facts={"seconds": {"detect": 2.0}})
        row = engine._cells(found, None)
        assert row == {"score": 1.0, "volume_ml": 1.0, "seconds_detect": 2.0, **said}
