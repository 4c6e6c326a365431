"""What every method promises, whatever it is made of: the same tests for all of `METHODS`, tiny, on brains of unequal axes.

A new method adds one line to `SMALL`.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch

from anomri import files
from anomri.cohort import Cohort
from anomri.errors import AnomriError, BadCall, BadInput, NotFitted
from anomri.method import Method
from anomri.methods import METHODS, load, make, method_class
from anomri.scan import Detection, Finding, Scan
from anomri.train import Job
from helpers import phantom, phantoms

SMALL = {
    "itermask3d": {
        "width": 2, "dropout": 0.0, "steps": 80, "batch": 2, "lr": 1e-2, "step_percent": 5.0, "gamma_mask": 1.0, "gamma_score": 0.5
    },
    "itermask2": {"width": 4, "dropout": 0.0, "steps": 30, "batch": 4, "lr": 3e-3},
    "ae": {"latent": 16, "width": 4, "levels": 3, "steps": 60, "batch": 4, "lr": 3e-3},
    "vae": {"dims": 3, "latent": 16, "width": 4, "levels": 3, "steps": 60, "batch": 2, "lr": 3e-3, "n": 2},
    "spatial_erasing": {"latent": 16, "width": 4, "levels": 3, "steps": 60, "batch": 2, "lr": 3e-3},
    "dae": {"width": 4, "steps": 60, "batch": 4, "lr": 3e-3},
    "ddpm": {"dims": 3, "size": "small", "width": 2, "steps": 60, "batch": 2, "lr": 3e-3, "n": 2},
    "anoddpm": {"size": "small", "width": 4, "t_test": 400, "steps": 60, "batch": 4, "lr": 3e-3},
    "pddpm": {"size": "small", "width": 4, "patch": 20, "steps": 60, "batch": 4, "lr": 3e-3},
    "cddpm": {
        "size": "small", "width": 4, "context": 8, "pretrained": True, "pretraining_steps": 3, "augmented": False, "t_test": 400, "steps": 60,
        "batch": 4, "lr": 3e-3,
    },
    "autoddpm": {
        "size": "small", "width": 8, "sampler": "ddim", "ddim_steps": 4, "inpaint_steps": 4, "resamples": 2, "steps": 80, "batch": 4,
        "lr": 5e-3,
    },
    "latent_ddpm": {
        "size": "small", "width": 4, "factor": 2, "latent": 4, "autoencoder_width": 4, "t_every": 100, "mask_share": 0.1, "inpaint_steps": 2,
        "prediction": "x0", "autoencoder_steps": 20, "steps": 40, "batch": 4, "lr": 8e-3,
    },
    "threshold": {"reference": "healthy"},
    "covariance_model": {},
}  # fmt: skip
"""Constructor arguments with which a method fits in seconds, and whose scores speak of a lesion of a percent of the brain."""

FIT, VALIDATE, CALIBRATE, TEST = range(6), (6, 7), (10, 11, 12), (8, 9)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(cls: type[Method], **changes) -> Method:
    method = cls(**(SMALL[cls.name] | changes))
    method.device, method.precision, method.engine = "cpu", "float32", "torch"
    return method


def job(**changes) -> Job:
    return Job(**({"device": "cpu", "precision": "float32", "every": 20} | changes))


@contextlib.contextmanager
def spied(cls: type[Method], name: str, seen: list):
    """Keeps the arguments that a method's `learn` or `find` is called with."""
    real = getattr(cls, name)

    def spy(self, *arguments, **more):
        seen.append(arguments)
        return real(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, name, spy)
        yield


@pytest.fixture(scope="module", params=METHODS, ids=lambda cls: cls.name)
def cls(request) -> type[Method]:
    return request.param


@pytest.fixture(scope="module")
def fitted(cls) -> Method:
    torch.set_num_threads(1)
    return small(cls).fit(phantoms(*FIT), validation=phantoms(*VALIDATE), job=job())


@pytest.fixture(scope="module")
def untouched(fitted) -> list[Detection]:
    torch.set_num_threads(1)
    return [fitted.detect(phantom(n)) for n in TEST]


def alike(a: Detection, b: Detection) -> bool:
    same = np.array_equal(a.map, b.map) and dict(a.scores) == dict(b.scores)
    masks = (a.mask is None and b.mask is None) or np.array_equal(a.mask, b.mask)  # type: ignore[arg-type]
    painted = (a.healthy is None and b.healthy is None) or np.array_equal(a.healthy, b.healthy)  # type: ignore[arg-type]
    return same and masks and painted


def one_line(error: pytest.ExceptionInfo) -> str:
    assert isinstance(error.value, AnomriError)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) > 20
    return text


# --- what it is ----------------------------------------------------------------------------------------------------


def test_says_what_it_is(cls):
    assert cls.name == cls.name.lower()
    assert cls.name.isidentifier()
    assert method_class(cls.name) is cls
    for said in (cls.title, cls.paper, cls.needs):
        assert isinstance(said, str)
        assert said
    assert 1990 < cls.year < 2100
    assert str(cls.year) in inspect.getmodule(cls).__doc__
    assert cls.dimensions in ("2D", "3D", "2D, 3D")
    assert cls.map_unit
    assert not inspect.isabstract(cls)
    assert not cls.__subclasses__(), "a class that can be built is never subclassed"


def test_docstrings_name_source_and_arguments(cls):
    module = inspect.getmodule(cls).__doc__ or ""
    assert cls.paper.split(",")[0].split()[0] in module, "the first author"
    names = inspect.signature(cls).parameters
    assert names
    said = inspect.getdoc(cls) or ""
    assert "Parameters" in said
    assert [name for name in names if name not in said] == []


def test_arguments_are_kept_under_their_own_names(cls):
    parameters = inspect.signature(cls).parameters
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters.values())
    method = cls(**SMALL[cls.name])
    expected = {name: SMALL[cls.name].get(name, p.default) for name, p in parameters.items()}
    assert method.arguments == expected
    assert json.loads(json.dumps(method.arguments)) == method.arguments
    again = make(cls.name, **method.arguments)
    assert again.arguments == method.arguments


def test_unknown_names_list_the_known_ones(cls):
    with pytest.raises(BadCall) as error:
        method_class("nonesuch")
    assert cls.name in one_line(error)
    with pytest.raises(BadCall) as error:
        make(cls.name, nonesuch=3)
    assert "nonesuch" in one_line(error)


# --- fit -----------------------------------------------------------------------------------------------------------


def test_before_fit_it_says_what_to_do(cls, tmp_path):
    method = small(cls)
    assert not method.fitted
    for act in (
        lambda: method.detect(phantom(0)),
        lambda: method.save(tmp_path),
        lambda: method.calibrate(phantoms(0)),
    ):
        with pytest.raises(NotFitted, match="fit") as error:
            act()
        one_line(error)
    assert not list(tmp_path.iterdir())


def test_training_lowers_the_loss(fitted):
    log = fitted.data.get("log")
    if not log:
        pytest.skip("does not learn by a loss")
    assert fitted.fitted
    assert log[-1]["loss"] < log[0]["loss"]
    assert min(row["validation"] for row in log) <= log[0]["validation"]


def test_what_it_learned_from_is_kept(fitted):
    data = fitted.data
    assert (data["scans"], data["validation_scans"], data["seed"]) == (len(FIT), len(VALIDATE), 0)
    assert data["spacing_mm"] == [5.0, 5.0, 5.0]
    assert data["sequences"] == ["T1w"]
    assert data["digest"] == phantoms(*FIT).digest() != phantoms(*VALIDATE).digest()
    json.dumps(files.plain(data))


def test_the_same_seed_gives_the_same_weights(cls):
    def learned(seed: int, state: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(state)
        np.random.seed(state)  # noqa: NPY002
        quick = {"steps": 3} if "steps" in SMALL[cls.name] else {}
        method = small(cls, **quick).fit(phantoms(*FIT), seed=seed, job=job())
        return {f"{part}.{k}": v for part, net in method.networks().items() for k, v in net.state_dict().items()}

    first, again, other = learned(0, 1), learned(0, 2), learned(1, 1)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[k], again[k]) for k in first)
    if "steps" in SMALL[cls.name]:
        assert any(not torch.equal(first[k], other[k]) for k in first)


def test_a_scan_to_fit_on_may_not_validate(cls):
    with pytest.raises(BadCall) as error:
        small(cls).fit(phantoms(0, 1, 2), validation=phantoms(2, 3))
    assert "phantom-02" in one_line(error)


def test_scans_that_do_not_fit_together_are_refused(cls):
    coarse = phantom(1, shape=(28, 36, 32), spacing=6.0)
    two = phantom(1).with_(image=np.concatenate([phantom(1).image] * 2), sequences=("T1w", "FLAIR"))
    empty = phantom(1).with_(brain=np.zeros(phantom(1).brain.shape, dtype=bool))
    for odd, words in ((coarse, "6 x 6 x 6 mm"), (two, "2 channels"), (empty, "brain mask is empty")):
        for cohorts in (([phantom(0), odd], []), ([phantom(0)], [odd])):
            with pytest.raises(BadInput) as error:
                small(cls).fit(Cohort(cohorts[0]), validation=Cohort(cohorts[1]) if cohorts[1] else None)
            text = one_line(error)
            assert words in text
            assert "phantom-01" in text
    with pytest.raises(BadCall, match="empty"):
        small(cls).fit(Cohort([]))


def test_the_lesion_reaches_neither_learn_nor_find(cls, fitted):
    """The truth is for evaluation: it is taken off before a method sees a scan."""
    held: list = []
    quick = {"steps": 1} if "steps" in SMALL[cls.name] else {}
    ill = [phantom(n, lesion=4.0) for n in (0, 1, 2)]
    with spied(cls, "learn", held):
        small(cls, **quick).fit(Cohort(ill[:2]), validation=Cohort(ill[2:]), job=job())
    healthy, validation = held[0][:2]
    assert all(scan.lesion is None for scan in (*healthy, *validation))
    seen: list = []
    with spied(cls, "find", seen):
        with_truth = fitted.detect(ill[0])
    assert seen[0][0].lesion is None
    assert with_truth.scan.lesion is not None
    assert alike(with_truth, fitted.detect(ill[0].with_(lesion=None)))


# --- detect --------------------------------------------------------------------------------------------------------


def test_map_lies_on_the_scan_is_finite_and_zero_outside_the_brain(untouched):
    for n, found in zip(TEST, untouched, strict=True):
        scan = phantom(n)
        assert found.map.shape == scan.grid.shape
        assert found.map.dtype == np.float32
        assert np.isfinite(found.map).all()
        assert not found.map[~scan.brain].any()
        assert found.map[scan.brain].std() > 0
        if found.mask is not None:
            assert found.mask.shape == scan.grid.shape
            assert found.mask.dtype == bool
            assert not (found.mask & ~scan.brain).any()
        if found.healthy is not None:
            assert found.healthy.shape == scan.image.shape
            assert np.isfinite(found.healthy).all()
            assert not found.healthy[:, ~scan.brain].any()
        if found.trace is not None:
            assert found.trace.order.shape == scan.grid.shape
            assert np.isfinite(found.trace.tau).all()


def test_what_find_returns_outside_the_brain_is_cut_off(cls, fitted, monkeypatch):
    scan = phantom(8)
    everywhere = Finding(np.full(scan.grid.shape, 2.0, dtype=np.float32), np.ones(scan.grid.shape, dtype=bool))
    monkeypatch.setattr(cls, "find", lambda self, scan, rng: everywhere)
    found = fitted.detect(scan)
    assert np.array_equal(found.map, np.where(scan.brain, 2.0, 0.0))
    assert np.array_equal(found.mask, scan.brain)
    assert found.score == found.scores["mean_error"] == 2.0
    everywhere.map[3, 4, 5] = np.nan  # outside the brain: no harm
    fitted.detect(scan)
    everywhere.map[16, 20, 18] = np.nan
    with pytest.raises(BadInput, match=r"phantom-08.*NaN"):
        fitted.detect(scan)


def test_scores_are_finite_and_say_what_was_used(fitted, untouched):
    for found in untouched:
        assert np.isfinite(list(found.scores.values())).all()
        assert found.score == next(iter(found.scores.values()))
        assert found.scores["mean_error"] == pytest.approx(float(found.map[found.scan.brain].mean()))
        assert found.facts["method"] == fitted.name
        assert found.facts["arguments"] == fitted.arguments
        assert found.facts["seed"] == 0
        assert found.facts["versions"].keys() >= {"anomri", "torch", "python"}


def test_the_scan_is_left_as_it_was(fitted):
    scan, copy = phantom(8, lesion=4.0), phantom(8, lesion=4.0)
    found = fitted.detect(scan)
    assert found.scan is scan
    for name in ("image", "brain", "lesion", "affine"):
        assert np.array_equal(getattr(scan, name), getattr(copy, name))
        assert not getattr(scan, name).flags.writeable
    with pytest.raises(FrozenInstanceError):
        scan.id = "other"  # type: ignore[misc]


def test_same_scan_and_seed_same_answer_whatever_ran_before(fitted, untouched):
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002
    for n, before in reversed(list(zip(TEST, untouched, strict=True))):
        assert alike(fitted.detect(phantom(n)), before)


def test_another_seed_is_another_draw_at_most(fitted, untouched):
    other = fitted.detect(phantom(TEST[0]), seed=5)
    assert other.facts["seed"] == 5
    assert np.isfinite(other.map).all()
    assert other.scores["mean_error"] == pytest.approx(untouched[0].scores["mean_error"], rel=0.5)


def test_global_generators_are_left_alone(fitted):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    fitted.detect(phantom(TEST[0]))
    assert torch.equal(torch.rand(2), expected)


def test_scores_differ_between_scans(untouched):
    for name in untouched[0].scores:
        assert len({found.scores[name] for found in untouched}) == len(untouched), name


def test_a_planted_lesion_scores_higher_and_shows_on_the_map(fitted, untouched):
    for n, healthy in zip(TEST, untouched, strict=True):
        ill = phantom(n, lesion=4.0)
        found = fitted.detect(ill)
        for name in healthy.scores:
            assert found.scores[name] > healthy.scores[name], name
        assert found.map[ill.lesion].mean() > 3 * found.map[ill.brain & ~ill.lesion].mean()
        if found.mask is not None:
            assert found.mask[ill.lesion].mean() > 0.5


def test_detect_refuses_what_was_not_preprocessed_alike(fitted):
    scan = phantom(8)
    coarse = phantom(8, shape=(28, 36, 32), spacing=6.0)
    two = scan.with_(image=np.concatenate([scan.image] * 2), sequences=("T1w", "FLAIR"))
    empty = scan.with_(brain=np.zeros(scan.brain.shape, dtype=bool))
    for odd, words in (
        (coarse, ("6 x 6 x 6 mm", "5 x 5 x 5 mm", "pipeline")),
        (two, ("2 channels", "T1w")),
        (empty, ("empty",)),
    ):
        with pytest.raises(BadInput) as error:
            fitted.detect(odd)
        assert all(word in one_line(error) for word in ("phantom-08", *words))


def test_a_scan_on_another_box_is_taken(fitted):
    """A brain that was none of the training's: smaller, off the centre, at the grid's edge."""
    scan = phantom(9)
    i, j, k = (slice(None, -3), slice(6, None), slice(1, None, None))
    cut = Scan(scan.image[:, i, j, k], scan.affine, id="cut", brain=scan.brain[i, j, k])
    found = fitted.detect(cut)
    assert found.map.shape == cut.grid.shape
    assert np.isfinite(found.map).all()


def test_openvino_finds_what_torch_finds(fitted, untouched, monkeypatch):
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    monkeypatch.setattr(fitted, "engine", "openvino")
    assert fitted.runtime() == (torch.device("cpu"), torch.float32, "openvino")
    for n, by_torch in zip(TEST, untouched, strict=True):
        found = fitted.detect(phantom(n))
        assert np.abs(found.map - by_torch.map).mean() < 0.01 * by_torch.map.mean()
        assert found.scores == pytest.approx(by_torch.scores, rel=0.01)
        if found.mask is not None:
            both, either = found.mask & by_torch.mask, found.mask.sum() + by_torch.mask.sum()
            assert 2 * both.sum() > 0.98 * either > 0
        assert alike(fitted.detect(phantom(n)), found), "the same scan and seed, the same answer"


# --- calibrate -----------------------------------------------------------------------------------------------------


def test_calibrate_leaves_the_wanted_rate(cls, fitted):
    method = small(cls)
    for name, part in fitted.networks().items():
        setattr(method, name, part)
    method.data = fitted.data
    assert method.calibrate(phantoms(*CALIBRATE), rate=0.03) is method
    found = [method.detect(phantom(n)) for n in CALIBRATE]
    above = [float((f.map[f.scan.brain] > method.threshold).mean()) for f in found]
    assert np.mean(above) == pytest.approx(0.03, abs=2e-4)
    if found[0].trace is None:
        assert np.array_equal(found[0].mask, found[0].map > method.threshold)
    kept = method.data["calibration"]
    assert (kept["scans"], kept["rate"]) == (len(CALIBRATE), 0.03)
    assert kept["healthy_scores"]["mean_error"] == sorted(f.scores["mean_error"] for f in found)
    assert kept["healthy_scores"].keys() == found[0].scores.keys()
    assert "calibration" not in fitted.data


def test_calibrate_refuses_nothing_and_odd_rates(fitted):
    with pytest.raises(BadCall, match="empty"):
        fitted.calibrate(Cohort([]))
    with pytest.raises(BadCall, match="between 0 and 1"):
        fitted.calibrate(phantoms(10), rate=1.5)
    assert fitted.threshold is None


# --- save and load -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(fitted, tmp_path_factory) -> Path:
    return fitted.save(tmp_path_factory.mktemp("model") / "folder")


def back(folder: Path) -> Method:
    method = load(folder)
    method.device, method.precision, method.engine = "cpu", "float32", "torch"
    return method


def test_saved_and_loaded_gives_the_same_answer(fitted, folder, untouched, tmp_path):
    method = back(folder)
    assert type(method) is type(fitted)
    assert method.arguments == fitted.arguments
    assert files.plain(method.data) == files.plain(fitted.data)
    assert method.threshold == fitted.threshold
    found = method.detect(phantom(TEST[0]))
    assert alike(found, untouched[0])
    assert found.facts["weights_sha256"] == files.sha256(folder / "weights.safetensors")
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert back(method.save(tmp_path / "again")).detect(phantom(TEST[0])).scores == found.scores


def other(value: object) -> object:
    """A value of the same type that differs, where the type allows for one that every argument takes."""
    return not value if isinstance(value, bool) else value * 0.5 if isinstance(value, float) else value


def test_arguments_are_saved_and_loaded(cls, fitted, tmp_path):
    """Also those that differ from the default and say nothing of the networks."""
    schedules = {"adaptive": "exact", "linear": "cosine"}
    changed = {n: schedules[v] if n == "schedule" else other(v) for n, v in fitted.arguments.items()}
    method = cls(**changed)
    method.data = fitted.data
    method.build(method.data)
    assert back(method.save(tmp_path)).arguments == changed == method.arguments


def test_a_model_that_is_older_than_an_argument_takes_its_default(cls, fitted, folder, untouched, tmp_path):
    about = files.read_json(folder / "model.json")["arguments"]
    for name, parameter in inspect.signature(cls).parameters.items():
        if about[name] == parameter.default:
            older = {n: v for n, v in about.items() if n != name}
            method = back(damage(folder, tmp_path / "older", arguments=older))
            assert method.arguments == fitted.arguments, name
    assert alike(method.detect(phantom(TEST[0])), untouched[0])


def test_half_the_size_gives_nearly_the_same_answer(fitted, folder, untouched, tmp_path):
    method = back(fitted.save(tmp_path, half=True))
    assert (tmp_path / "weights.safetensors").stat().st_size < 0.75 * (folder / "weights.safetensors").stat().st_size
    assert all(p.dtype != torch.bfloat16 for net in method.networks().values() for p in net.state_dict().values())
    found = method.detect(phantom(TEST[0]))
    assert found.scores["mean_error"] == pytest.approx(untouched[0].scores["mean_error"], rel=0.1)
    assert np.corrcoef(found.map.ravel(), untouched[0].map.ravel())[0, 1] > 0.95
    fitted.save(folder)


def damage(folder: Path, into: Path, **changes) -> Path:
    """A copy of a model folder with other entries in its JSON."""
    into.mkdir(exist_ok=True)
    (into / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    about = files.read_json(folder / "model.json") | changes
    files.write_json(into / "model.json", {k: v for k, v in about.items() if v != "drop"})
    return into


def test_a_model_json_that_is_wrong_is_said_in_one_line(cls, folder, tmp_path):
    arguments = files.read_json(folder / "model.json")["arguments"]
    for changes, words in (
        ({"method": "nonesuch"}, ("nonesuch", cls.name)),
        ({"method": "os.system"}, ("os.system", cls.name)),
        ({"arguments": arguments | {"nonesuch": 1}}, ("nonesuch",)),
        ({"arguments": arguments | {"name": "x"}}, ("name",)),
        ({"arguments": [1, 2]}, ("arguments",)),
        ({"format": 99}, ("99", "update")),
        ({"format": 99, "data": "drop"}, ("99", "update")),
        ({"data": "drop", "preset": "drop"}, ("data", "preset")),
        ({"weights_sha256": "0" * 64}, ("hash", "0" * 12)),
    ):
        with pytest.raises(BadInput) as error:
            load(damage(folder, tmp_path / "model", **changes))
        assert all(word in one_line(error) for word in words), changes


def test_damaged_weights_are_said_in_one_line(folder, tmp_path):
    place = damage(folder, tmp_path / "model", weights_sha256=None)
    whole = (place / "weights.safetensors").read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1], b"", b"\x80\x04\x95 a pickle"):
        (place / "weights.safetensors").write_bytes(content)
        with pytest.raises(BadInput, match="weights") as error:
            load(place)
        one_line(error)
    (place / "weights.safetensors").unlink()
    with pytest.raises(BadInput, match="weights") as error:
        load(place)
    one_line(error)


def test_weights_of_another_network_are_said_in_one_line(cls, fitted, folder, tmp_path):
    if "width" not in fitted.arguments:
        pytest.skip("has no width")
    with pytest.raises(BadInput, match="do not fit") as error:
        load(damage(folder, tmp_path / "model", arguments=fitted.arguments | {"width": fitted.arguments["width"] + 2}))
    one_line(error)


def test_what_is_no_model_folder_is_said_in_one_line(tmp_path):
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BadInput, match=r"model\.json") as error:
            load(place)
        one_line(error)
    (tmp_path / "model.json").write_text("{ not json")
    with pytest.raises(BadInput, match="not valid JSON") as error:
        load(tmp_path)
    one_line(error)


def test_loading_runs_no_code(folder, tmp_path):
    """Nothing in the folder but numbers and JSON: no pickle, no names that are imported."""
    for name in ("weights.safetensors", "model.json"):
        assert b"torch._utils" not in (folder / name).read_bytes()
    header = (folder / "weights.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert set(json.loads(header[8 : 8 + length])) >= {"__metadata__"} or json.loads(header[8 : 8 + length])
    place = damage(folder, tmp_path / "model", method="__import__('pathlib').Path('ran').touch()")
    with pytest.raises(BadInput):
        load(place)
    assert not Path("ran").exists()


def test_fitting_anew_forgets_the_old_threshold(cls, fitted):
    quick = {"steps": 1} if "steps" in SMALL[cls.name] else {}
    method = small(cls, **quick)
    method.threshold, method.weights_sha256 = 0.3, "old"
    method.fit(phantoms(0, 1), job=job())
    assert method.threshold is None
    assert method.weights_sha256 is None
    assert "calibration" not in method.data
