"""A run over a cohort: what it writes lies on the input, is skipped when it may be, and done again when it must be."""

from __future__ import annotations

import errno
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from anomri import files, preprocess, run
from anomri.cohort import Cohort, Entry
from anomri.cohorts import open_cohort
from anomri.errors import BadCall, BadInput
from anomri.method import Method
from anomri.methods import load
from anomri.report import case
from anomri.run import results
from anomri.scan import Detection, Scan
from conftest import brain_at, grid, lesion_at, world
from small import MM, fitted, mask_file, scan_file, tree

NAME = "MUELLER^HANS"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted model, a scan with a lesion, and the results of one detect."""
    home = tmp_path_factory.mktemp("run")
    fitted(home)
    scan_file(home / "in" / "a.nii.gz", 1, lesion=True, descrip=NAME, db_name=NAME, intent_name=NAME, aux_file=NAME)
    detect(home / "model", home / "in" / "a.nii.gz", home / "out", page=case.write)
    return home


@pytest.fixture
def work(home: Path, tmp_path: Path) -> Path:
    """A copy of all that to change."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    return tmp_path


def detect(model: Method | Path, scan: Path | Entry, out: Path, **more: Any) -> dict[str, Any]:
    method = load(model) if isinstance(model, Path) else model
    entry = scan if isinstance(scan, Entry) else Entry("sub-a", {"T1w": str(scan)})
    (row,) = run.detect(method, Cohort([entry]), out, **more)
    return row


def again(work: Path, scan: str = "in/a.nii.gz", change: dict[str, Any] | None = None, **more: Any) -> str:
    """The status of another run over the same scan."""
    method = load(work / "model")
    for name, value in (change or {}).items():
        setattr(method, name, value)
    row = detect(method, work / scan, work / "out", **{"page": case.write, **more})
    return str(row["status"])


def volume(out: Path, part: str, suffix: str = "T1w", label: str = "sub-a") -> Any:
    return nib.load(out / label / "anat" / f"{label}_space-orig_{part}_{suffix}.nii.gz")


# --- what is written -----------------------------------------------------------------------------------------------


PARTS = [
    ("desc-itermask3dAnomaly", "T1w"), ("desc-itermask3dRecon", "T1w"), ("desc-itermask3dOrder", "T1w"),
    ("desc-brain", "mask"), ("label-lesion_desc-itermask3d", "mask"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "suffix"), PARTS)
def test_every_image_lies_on_the_input(home, part, suffix):
    raw, image = nib.load(home / "in" / "a.nii.gz"), volume(home / "out", part, suffix)
    assert image.shape == raw.shape
    np.testing.assert_allclose(image.affine, raw.affine, atol=1e-5)
    assert nib.aff2axcodes(image.affine) == nib.aff2axcodes(raw.affine) == ("L", "A", "S")
    for code in ("sform_code", "qform_code", "xyzt_units"):
        assert image.header[code] == raw.header[code]
    np.testing.assert_allclose(image.get_qform(), raw.get_qform(), atol=1e-4)
    kind = np.uint8 if suffix == "mask" or "Order" in part else np.int16
    assert image.get_data_dtype() == kind
    assert (home / "out/sub-a/anat" / f"sub-a_space-orig_{part}_{suffix}.nii.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_images_mean_what_they_say(home):
    out = home / "out"
    raw = nib.load(home / "in" / "a.nii.gz").get_fdata()
    parts = [np.asarray(volume(out, *p).dataobj) for p in PARTS]
    anomaly, healthy, order, brain, mask = parts
    truth = brain_at(world(grid("LAS", oblique=12.0)))
    assert (brain.astype(bool) == truth).mean() > 0.97
    outside = brain == 0
    for part in (anomaly, healthy, order, mask):
        assert not part[outside].any()
        assert part.any()
    assert anomaly.min() == 0
    assert set(np.unique(mask)) == {0, 1}
    # Away from what is marked, the healthy image is the scan in the file's own intensities (resampled twice, at 6 mm).
    deep = binary_erosion((mask == 0) & (brain == 1))
    assert deep.sum() > 1000
    assert np.corrcoef(healthy[deep], raw[deep])[0, 1] > 0.95
    assert abs(healthy[deep].mean() / raw[deep].mean() - 1) < 0.02


def test_the_order_at_t_is_the_mask_of_step_t(home):
    """On the method's own grid `order >= t` is that step's mask; the file holds just that order, moved and not mixed."""
    method = load(home / "model")
    scan = preprocess.run(method.pipeline(), files.read_scan({"T1w": home / "in" / "a.nii.gz"}))
    found = method.detect(scan)
    order = np.asarray(volume(home / "out", "desc-itermask3dOrder").dataobj)
    assert found.trace is not None
    assert set(np.unique(order)) <= set(np.unique(found.trace.order))
    voxel = abs(np.linalg.det(volume(home / "out", "desc-brain", "mask").affine[:3, :3])) / 1000
    for t in (1, 5, 12, 18):
        here, there = float((order >= t).sum()) * voxel, float((found.trace.order >= t).sum()) * scan.voxel_ml
        assert here == pytest.approx(there, rel=0.12)
    assert [(order >= t).sum() for t in range(1, 20)] == sorted(
        [(order >= t).sum() for t in range(1, 20)], reverse=True
    )


class Marker(Method):
    """Marks what is far above the brain's mean: a method whose right answer is known."""

    name, title, paper, year, dimensions, map_unit = "marker", "Marker", "none", 2026, "3D", "SD"

    def __init__(self, channels: int = 1, empty: bool = False) -> None:
        self.channels, self.empty = channels, empty
        self.data = {"spacing_mm": [MM] * 3, "sequences": ["T1w", "FLAIR"][:channels], "scans": 1}
        self.preset_arguments = {"spacing": MM}

    def learn(self, *_: Any) -> Any:
        raise NotImplementedError

    def find(self, scan: Scan, rng: Any) -> Any:
        from anomri.scan import Finding

        x = np.maximum(scan.image[0], 0)
        mask = np.zeros_like(scan.brain) if self.empty else x > 2.6
        return Finding(map=x, mask=mask, scores={"volume_ml": float(mask.sum())}, healthy=scan.image)


@pytest.mark.parametrize("codes", ["LAS", "PIR"])
@pytest.mark.parametrize("oblique", [0.0, 20.0])
def test_a_lesion_is_marked_where_it_lies(tmp_path, codes, oblique):
    path = scan_file(tmp_path / "a.nii.gz", 1, codes=codes, oblique=oblique, lesion=True)
    assert detect(Marker(), path, tmp_path / "out")["status"] == "done"
    raw = nib.load(path)
    truth = lesion_at(nib.affines.apply_affine(raw.affine, np.stack(np.indices(raw.shape), axis=-1)))
    mask = np.asarray(volume(tmp_path / "out", "label-lesion_desc-marker", "mask").dataobj) > 0
    anomaly = np.asarray(volume(tmp_path / "out", "desc-markerAnomaly").dataobj)
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.7
    assert truth[np.unravel_index(anomaly.argmax(), anomaly.shape)]


def test_each_sequence_gets_its_own_intensities_back(tmp_path):
    first = scan_file(tmp_path / "a_T1w.nii.gz", 1)
    image = nib.load(first)
    second = tmp_path / "a_FLAIR.nii.gz"
    # Other units: a tenth, and turned around.
    x = image.get_fdata()
    nib.save(nib.Nifti1Image(np.where(x > 0, 200 - x / 10, 0).astype(np.float32), image.affine), second)
    entry = Entry("a", {"T1w": str(first), "FLAIR": str(second)})
    assert detect(Marker(channels=2), entry, tmp_path / "out")["status"] == "done"
    for sequence in ("T1w", "FLAIR"):
        raw = nib.load(tmp_path / f"a_{sequence}.nii.gz").get_fdata()
        healthy = volume(tmp_path / "out", "desc-markerRecon", sequence).get_fdata()
        both = (healthy != 0) & (raw != 0)
        assert abs(healthy[both].mean() / raw[both].mean() - 1) < 0.03
        assert abs(healthy[both].std() / raw[both].std() - 1) < 0.25
        assert np.corrcoef(healthy[both], raw[both])[0, 1] > 0.85


def test_sidecars_say_how_it_came_about(home):
    path = home / "out/sub-a/anat/sub-a_space-orig_label-lesion_desc-itermask3d_mask.json"
    said = json.loads(path.read_text())
    assert said["WeightsSha256"] == files.sha256(home / "model" / "weights.safetensors")
    assert said["Method"] == "itermask3d"
    assert said["Seed"] == 0
    assert said["Versions"]["anomri"]
    assert said["Seconds"]["detect"] > 0
    assert said["Preprocessing"][0] == "reorient()"
    assert said["Arguments"]["width"] == 2
    assert said["Score"] == said["Scores"]["volume_ml"]
    assert len(said["TauCurve"]) == 20
    assert {"Tau", "Gamma", "Fit", "R2", "StopStep", "Slope", "Device", "Precision"} <= said.keys()
    assert said["Sources"] == ["a.nii.gz"]


def test_no_path_and_no_name_of_a_patient_gets_out(work):
    """Not from the header, not from the folders: results are shared."""
    private = work / NAME
    scan_file(private / "a.nii.gz", 1, descrip=NAME, db_name=NAME, intent_name=NAME, aux_file=NAME)
    mask_file(private / "brain.nii.gz")
    (private / "empty.nii.gz").touch()
    entries = [
        Entry("sub-x", {"T1w": str(private / "a.nii.gz")}, str(private / "brain.nii.gz")),
        Entry("sub-y", {"T1w": str(private / "empty.nii.gz")}),
        Entry("sub-z", {"T1w": str(private / "none.nii.gz")}),
    ]
    out = work / "fresh"
    rows = run.detect(load(work / "model"), Cohort(entries), out, page=case.write)
    run.write_group(out, run.gather(out))
    run.prepare_scans(Cohort(entries), out, preprocess.preset("itermask3d", spacing=MM), overwrite=True)
    assert [r["status"] for r in rows] == ["done", "failed", "failed"]
    for name, content in tree(out).items():
        text = gzip.decompress(content) if name.endswith(".gz") else content
        for private_word in (NAME, str(work), str(Path.home())):
            assert private_word.encode() not in text, name


def test_an_empty_mask_is_a_result(tmp_path):
    path = scan_file(tmp_path / "in.nii.gz", 1)
    row = detect(Marker(empty=True), path, tmp_path / "out", page=case.write)
    assert (row["status"], row["mask_ml"]) == ("done", 0)
    found = run.read(tmp_path / "out", "sub-a", images=path)
    assert found.mask is not None
    assert not found.mask.any()


# --- reading it back -----------------------------------------------------------------------------------------------


def test_results_can_be_read_again(home):
    method = load(home / "model")
    scan = preprocess.run(method.pipeline(), files.read_scan({"T1w": home / "in" / "a.nii.gz"}))
    before = method.detect(scan)
    found = run.read(home / "out", "sub-a", images=home, spacing=MM)
    assert dict(found.scores) == pytest.approx(dict(before.scores))
    assert found.facts["weights_sha256"] == method.weights_sha256
    assert found.trace is not None
    assert found.healthy is not None
    np.testing.assert_allclose(found.trace.tau, before.trace.tau, rtol=1e-6)
    assert found.trace.facts["stops"] == files.plain(before.trace.facts["stops"])
    assert found.mask.sum() * found.scan.voxel_ml == pytest.approx(before.mask.sum() * scan.voxel_ml, rel=0.2)
    assert not found.map[~found.scan.brain].any()
    case.write(found, home / "again.html")


def test_the_input_is_known_by_its_content(work):
    scan_file(work / "elsewhere" / "a.nii.gz", 2)
    with pytest.raises(BadInput, match=r"'a.nii.gz' has another content.*--images"):
        run.read(work / "out", "sub-a", images=work / "elsewhere")
    with pytest.raises(BadInput, match=r"'a.nii.gz' is not there.*--images"):
        run.read(work / "out", "sub-a")
    shutil.copy(work / "in/a.nii.gz", work / "elsewhere/zz_a.nii.gz")
    (work / "elsewhere/deep").mkdir()
    shutil.move(work / "elsewhere/zz_a.nii.gz", work / "elsewhere/deep/a.nii.gz")
    assert run.read(work / "out", "sub-a", images=work / "elsewhere").scan.id == "sub-a"


def test_a_page_drawn_anew_is_part_of_what_is_complete(work):
    (work / "out/sub-a.html").unlink()
    run.draw(work / "out", "sub-a", lambda d, p: files.write_text(p, "short"), images=work)
    assert again(work) == "skipped"
    (work / "out/sub-a.html").write_text("longer than that")
    assert again(work) == "done"


# --- skipping and doing again --------------------------------------------------------------------------------------


def test_what_is_done_is_skipped(work):
    before = tree(work / "out")
    assert again(work) == "skipped"
    assert again(work, page=None) == "skipped"
    # A copy of the input elsewhere is the same input.
    shutil.copy(work / "in/a.nii.gz", work / "a.nii.gz")
    assert again(work, "a.nii.gz") == "skipped"
    assert tree(work / "out") == before


CHANGES: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "overwrite": {"overwrite": True},
    "argument": {"change": {"gamma_mask": 0.25}},
    "threshold": {"change": {"threshold": 0.5}},
    "precision": {"change": {"precision": "bfloat16"}},
    "weights": {"change": {"weights_sha256": "other"}},
    "preprocessing": {"steps": preprocess.preset("itermask3d", spacing=MM, k=2.0)},
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_configuration_is_done_again(work, what):
    assert again(work, **CHANGES[what]) == "done"


def test_unsaved_weights_count_too(work):
    method = load(work / "model")
    method.weights_sha256 = None
    scan = work / "in/a.nii.gz"
    assert detect(method, scan, work / "new")["status"] == "done"
    assert detect(method, scan, work / "new")["status"] == "skipped"
    next(method.net.parameters()).data[0] += 0.1
    assert detect(method, scan, work / "new")["status"] == "done"


def test_another_version_is_another_configuration(work, monkeypatch):
    monkeypatch.setattr(run, "versions", lambda: {"anomri": "99.0"})
    assert again(work) == "done"


def test_another_input_under_the_same_name_is_done_again(work):
    scan_file(work / "in/a.nii.gz", 3)
    assert again(work) == "done"


def test_a_given_brain_mask_is_part_of_the_input(work):
    mask_file(work / "brain.nii.gz")
    method = load(work / "model")
    entry = Entry("sub-a", {"T1w": str(work / "in/a.nii.gz")}, str(work / "brain.nii.gz"))
    assert detect(method, entry, work / "out")["status"] == "done"
    assert detect(method, entry, work / "out")["status"] == "skipped"


@pytest.mark.parametrize("part", [*(f"sub-a/anat/sub-a_space-orig_{p}_{s}.nii.gz" for p, s in PARTS), "sub-a.html"])
@pytest.mark.parametrize("how", ["missing", "short"])
def test_a_damaged_output_is_made_again(work, part, how):
    path = work / "out" / part
    before = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(before[:-20])
    assert again(work) == "done"
    if path.suffix != ".html":
        assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", "{", '{"row": null}', '{"configuration": 3}'])
def test_a_damaged_log_is_no_excuse(work, content):
    (work / "out/logs/sub-a.json").write_text(content)
    assert run.gather(work / "out")[0]["status"] == "failed"
    assert again(work) == "done"


def test_two_runs_give_the_same_bytes(work):
    detect(work / "model", work / "in/a.nii.gz", work / "second", page=case.write)
    first, second = tree(work / "out"), tree(work / "second")
    assert first.keys() == second.keys()
    images = [name for name in first if name.endswith(".nii.gz")]
    assert len(images) == 5
    assert all(first[name] == second[name] for name in images)


def test_results_of_two_runs_never_mix(work):
    """A scan that is now called FLAIR leaves no T1w results behind; neither does one that now fails half way."""
    entry = Entry("sub-a", {"FLAIR": str(work / "in/a.nii.gz")})
    assert detect(load(work / "model"), entry, work / "out")["status"] == "done"
    assert not [name for name in tree(work / "out") if "_T1w." in name or name.endswith(".html")]


@pytest.mark.parametrize("nth", [1, 4, 9])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
def test_killed_in_the_middle(work, monkeypatch, nth, kind):
    """No half file, nothing that passes for done, and the next run completes."""
    whole = tree(work / "out")
    real, calls = files.opening.os.replace, []

    def replace(source: Any, target: Any) -> None:
        if "/anat/" in str(target):
            calls.append(target)
            if len(calls) == nth:
                raise kind(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(files.opening.os, "replace", replace)
    if kind is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            again(work, overwrite=True)
        assert not (work / "out/logs/sub-a.json").exists()
    else:
        row = detect(work / "model", work / "in/a.nii.gz", work / "out", overwrite=True, page=case.write)
        assert row["status"] == "failed"
        assert "no space left" in row["message"]
        # What a failed scan has left is taken away.
        assert not [name for name in tree(work / "out") if name.startswith("sub-a")]
    monkeypatch.undo()
    left = tree(work / "out")
    assert not [name for name in left if ".part" in name]
    assert all(content == whole[name] for name, content in left.items() if name.endswith(".nii.gz"))
    assert again(work) == "done"
    assert {k: v for k, v in tree(work / "out").items() if k.endswith(".gz")} == {
        k: v for k, v in whole.items() if k.endswith(".gz")
    }


# --- failures ------------------------------------------------------------------------------------------------------


def test_one_failure_is_not_the_end(work):
    def boom(detection: Detection, path: Path) -> None:
        if detection.scan.id == "sub-b":
            raise ZeroDivisionError(f"in '{work}/secret/page.html'")
        files.write_text(path, "page")

    ids = ("sub-b", "sub-c")
    entries = [Entry(id, {"T1w": str(work / "in/a.nii.gz")}) for id in ids]
    entries.insert(1, Entry("sub-none", {"T1w": str(work / "none.nii.gz")}))
    rows = run.detect(load(work / "model"), Cohort(entries), work / "fresh", page=boom)
    assert [r["status"] for r in rows] == ["failed", "failed", "done"]
    assert "unexpected ZeroDivisionError" in rows[0]["message"]
    assert "logs/sub-b.json" in rows[0]["message"]
    assert "no such file" in rows[1]["message"]
    log = json.loads((work / "fresh/logs/sub-b.json").read_text())
    assert "Traceback" in log["traceback"]
    assert "run/__init__.py" in log["traceback"]
    assert str(work) not in log["traceback"]
    assert "traceback" not in json.loads((work / "fresh/logs/sub-none.json").read_text())
    table = files.read_table(run.write_group(work / "fresh", run.gather(work / "fresh")))
    assert {r["id"]: r["status"] for r in table} == {"sub-b": "failed", "sub-none": "failed", "sub-c": "done"}
    assert [r["id"] for r in table[:2]] == ["sub-b", "sub-none"]
    assert "Traceback" not in "".join(str(r) for r in table)
    # What failed is tried again, what is done is not.
    rows = run.detect(
        load(work / "model"), Cohort(entries), work / "fresh", page=lambda d, p: files.write_text(p, "page")
    )
    assert [r["status"] for r in rows] == ["done", "failed", "skipped"]


def test_another_sequence_of_a_scan_does_not_take_its_results_away(work):
    other, before = scan_file(work / "in/other.nii.gz", 5), tree(work / "out")
    for more in ({}, {"overwrite": True}):
        row = detect(work / "model", Entry("sub-a", {"T2w": str(other)}), work / "out", **more)
        assert row["status"] == "failed"
        assert "results of its T1w lie there, those of its T2w would replace them; name another --out" in row["message"]
        assert tree(work / "out") == before
    assert again(work) == "skipped"


def test_no_place_for_the_log_either(work, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run.detect(load(work / "model"), Cohort([Entry("sub-a", {"T1w": "none"})]), work / "fresh")
    monkeypatch.setattr(files.opening.os, "replace", full)
    row = detect(work / "model", work / "in/a.nii.gz", work / "fresh")
    assert row["status"] == "failed"
    assert row["message"].count("no space left") == 2
    assert "nor could its log be written" in row["message"]


# --- cohorts -------------------------------------------------------------------------------------------------------


def marked(n: int, folder: Path) -> Cohort:
    path = scan_file(folder / "in" / "x.nii.gz")
    return Cohort([Entry(f"sub-{k:02d}", {"T1w": str(path)}) for k in range(n)])


def test_shards_are_disjoint_and_complete(tmp_path):
    cohort = marked(7, tmp_path)
    parts = [run.detect(Marker(), cohort, tmp_path / "out", shard=(i, 3)) for i in (3, 1, 2)]
    done = [row["id"] for part in parts for row in part]
    assert sorted(done) == list(cohort.ids)
    assert sorted(map(len, parts)) == [2, 2, 3]
    assert [row["id"] for row in run.gather(tmp_path / "out")] == list(cohort.ids)
    assert run.detect(Marker(), cohort, tmp_path / "out", shard=(9, 9)) == []


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (1, 0), (-1, 2)])
def test_a_shard_that_there_is_not(tmp_path, shard):
    with pytest.raises(BadCall, match="shard"):
        run.detect(Marker(), marked(1, tmp_path), tmp_path / "out", shard=shard)


@pytest.mark.parametrize(
    ("id", "label", "folder"),
    [
        ("scan", "sub-scan", "sub-scan/anat"),
        ("sub-01", "sub-01", "sub-01/anat"),
        ("sub-01_ses-2", "sub-01_ses-2", "sub-01/ses-2/anat"),
        ("sub-01_ses-2_run-1", "sub-01_ses-2_run-1", "sub-01/ses-2/anat"),
        ("sub-01_acq-mp2_run-1", "sub-01_acq-mp2_run-1", "sub-01/anat"),
        ("sub-01_run-1_ses-2", "sub-01run1ses2", "sub-01run1ses2/anat"),
        ("sub-01_ses-2_ses-3", "sub-01ses2ses3", "sub-01ses2ses3/anat"),
        ("sub-01_foo-2", "sub-01foo2", "sub-01foo2/anat"),
        ("Scan 3 (copy)", "sub-Scan3copy", "sub-Scan3copy/anat"),
        ("../../etc", "sub-etc", "sub-etc/anat"),
    ],
)
def test_ids_become_bids_names(id, label, folder):
    assert run.Place.of(id) == run.Place(label, folder)


def test_an_id_that_names_nothing():
    with pytest.raises(BadCall, match="--id"):
        run.Place.of("sub-??")


def test_two_ids_of_one_name_are_refused_before_anything_is_written(tmp_path):
    path = str(scan_file(tmp_path / "x.nii.gz"))
    cohort = Cohort([Entry("a b", {"T1w": path}), Entry("A-b", {"T1w": path})])
    with pytest.raises(BadCall, match="'a b' and 'A-b'"):
        run.detect(Marker(), cohort, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scans_in_memory_and_steps_of_a_cohort(tmp_path):
    scan = files.read_scan({"T1w": scan_file(tmp_path / "x.nii.gz")}, id="x")
    assert detect_many(Cohort([scan]), tmp_path) == ["done"]
    assert detect_many(Cohort([scan]), tmp_path) == ["skipped"]
    assert detect_many(Cohort([scan]).map(preprocess.space.reorient), tmp_path) == ["done"]


def detect_many(cohort: Cohort, folder: Path) -> list[str]:
    return [row["status"] for row in run.detect(Marker(), cohort, folder / "out")]


def test_gather_needs_results(tmp_path):
    with pytest.raises(BadInput, match="holds no results"):
        run.gather(tmp_path)


# --- preprocessed folders ------------------------------------------------------------------------------------------


def test_a_preprocessed_folder_is_a_cohort_again(tmp_path):
    table = tmp_path / "scans.tsv"
    image = scan_file(tmp_path / "a.nii.gz", 1, lesion=True)
    truth = mask_file(tmp_path / "lesion.nii.gz", "lesion")
    table.write_text(
        f"id\tT1w\tlesion\nsub-01_ses-1\t{image}\t{truth}\nplain\t{image}\t{truth}\nbad\tnone.nii.gz\t{truth}\n"
    )
    steps = preprocess.preset("itermask3d", spacing=MM)
    cohort, out = open_cohort(table), tmp_path / "ready"
    assert [r["status"] for r in run.prepare_scans(cohort, out, steps)] == ["done", "done", "failed"]
    before = tree(out)
    assert [r["status"] for r in run.prepare_scans(cohort, out, steps)] == ["skipped", "skipped", "failed"]
    assert tree(out) == before
    opened = open_cohort(out)
    assert opened.ids == ("sub-01_ses-1", "sub-plain")
    direct, reopened = preprocess.run(steps, cohort[0]), opened[0]
    np.testing.assert_allclose(reopened.affine, direct.affine, atol=1e-4)
    np.testing.assert_array_equal(reopened.brain, direct.brain)
    np.testing.assert_array_equal(reopened.lesion, direct.lesion)
    assert reopened.lesion.any()
    np.testing.assert_allclose(reopened.image, direct.image, atol=1e-3)
    # Preprocessing what is preprocessed changes nothing to speak of.
    twice = preprocess.run(steps, reopened)
    assert twice.image.shape == direct.image.shape
    np.testing.assert_allclose(twice.image, direct.image, atol=0.02)
    assert detect_many(opened, tmp_path) == ["done", "done"]
    assert again_prepared(cohort, out, MM + 1) == ["done", "done", "failed"]
    assert not [name for name in tree(out) if "res-6mm" in name]


def again_prepared(cohort: Cohort, out: Path, mm: float) -> list[str]:
    return [r["status"] for r in run.prepare_scans(cohort, out, preprocess.preset("itermask3d", spacing=mm))]


def test_an_unexpected_error_in_preprocessing(tmp_path):
    def boom(scan: Scan) -> Scan:
        raise KeyError("deep inside")

    (row,) = run.prepare_scans(marked(1, tmp_path), tmp_path / "out", (boom,))
    assert row["status"] == "failed"
    assert "unexpected KeyError" in row["message"]


def test_the_layout_is_written_once(tmp_path):
    results.prepare(tmp_path)
    (tmp_path / ".bidsignore").write_text("mine\n")
    results.prepare(tmp_path)
    assert (tmp_path / ".bidsignore").read_text() == "mine\n"


def test_a_scan_that_looks_like_another_sequence_is_looked_at_and_says_so(work, monkeypatch):
    monkeypatch.setattr(run.sequence, "other_than_said", lambda scan: {"T1w": "FLAIR"})
    out, told = work / "new", "is called T1w and looks like FLAIR"
    row = detect(work / "model", work / "in/a.nii.gz", out, page=case.write)
    assert (row["status"], row["message"]) == ("done", told)
    again = detect(work / "model", work / "in/a.nii.gz", out, page=case.write)
    assert (again["status"], again["message"]) == ("skipped", told)
    for drawn in (False, True):
        if drawn:
            run.draw(out, "sub-a", case.write, images=work)
        assert f"This scan {told}" in (out / "sub-a.html").read_text()
    assert files.read_table(run.write_group(out, run.gather(out)))[0]["message"] == told
