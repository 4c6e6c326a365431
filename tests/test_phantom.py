"""Phantoms: made when asked for, the same for a seed, with tissues in a sequence's order, and read back from disk as made."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anomri.cli.making import phantom as verb
from anomri.cohort import Cohort
from anomri.cohorts import open_cohort
from anomri.cohorts.phantom import dataset, healthy, labels, planted, scanner, template
from anomri.errors import BadCall, BadInput
from anomri.scan import Scan
from test_spatial import jacobian

MM = 4.0
T1W, T2W, FLAIR = "T1w", "T2w", "FLAIR"


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def made() -> Cohort:
    """Three subjects of three sequences."""
    return healthy(3, sequences=(T1W, T2W, FLAIR), spacing=MM).kept()


# --- a cohort of subjects ------------------------------------------------------------------------------------------


def test_nothing_is_made_before_it_is_asked_for(monkeypatch):
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(template, "subject", lambda *words: asked.append(words))
    cohort = healthy(1200, sequences=(T1W, FLAIR))
    assert (len(cohort), cohort.ids[0], cohort.ids[-1]) == (1200, "sub-0001", "sub-1200")
    assert cohort.subjects == cohort.ids
    assert not asked


def same(one: Scan, other: Scan) -> bool:
    return np.array_equal(one.image, other.image) and np.array_equal(one.brain, other.brain)


def test_a_subject_follows_from_the_seed_and_its_name_alone(made):
    again = healthy(2, sequences=(T1W, T2W, FLAIR), spacing=MM)
    assert same(again[1], made[1])
    assert same(pickle.loads(pickle.dumps(again))[0], made[0])
    assert again[0].id == "sub-01"
    assert not same(made[0], made[1])
    other = healthy(2, sequences=(T1W, T2W, FLAIR), spacing=MM, seed=1)
    assert not same(other[0], made[0])
    # Its anatomy is the same in other sequences.
    assert np.array_equal(healthy(1, sequences=(T2W,), spacing=MM)[0].brain, made[0].brain)


def test_hashes_of_inputs_differ_where_scans_do():
    cohorts = [healthy(2), healthy(2, seed=1), healthy(2, spacing=2.0), healthy(2, sequences=(T2W,)), healthy(3)]
    assert len({cohort.digest() for cohort in cohorts}) == 5
    assert healthy(2).digest() == cohorts[0].digest()
    assert len({entry.image.tobytes() for entry in cohorts[4].entries}) == 3


def test_what_cannot_be_made_is_said(tmp_path):
    for error, words, asked in (
        (BadCall, "a cohort of 0 subjects", {"n": 0}),
        (BadCall, "unknown sequence 'T1'; known: FLAIR, T1w, T2w, random", {"sequences": ("T1",)}),
        (BadCall, "name one or several, each once", {"sequences": (T1W, T1W)}),
        (BadCall, "name one or several, each once", {"sequences": ()}),
        (BadCall, "has no skull", {"stripped": False}),
        (BadInput, "no such file or folder", {"label_maps": tmp_path / "none"}),
        (BadInput, "holds no label map", {"label_maps": tmp_path}),
    ):
        with pytest.raises(error, match=words):
            healthy(**{"n": 1, **asked})
    for spacing in (0.0, 0.4, 21.0, float("nan")):
        with pytest.raises(BadCall, match=f"voxels cannot be {spacing:g} mm"):
            healthy(1, spacing=spacing)
    with pytest.raises(BadInput, match="device 'gpu' is not available"):
        healthy(1, device="gpu")


# --- the template's subjects ---------------------------------------------------------------------------------------


def test_a_subject_is_a_stripped_brain_in_raw_units(made):
    for scan in made:
        assert scan.sequences == (T1W, T2W, FLAIR)
        assert scan.spacing == pytest.approx((MM,) * 3)
        assert 1300 < scan.brain.sum() * scan.voxel_ml < 2400
        assert not scan.image[:, ~scan.brain].any()
        assert 0 <= scan.image.min() < scan.image.max() < 4000
        assert scan.history == ()
        assert scan.lesion is None
        pieces, _ = ndimage.label(scan.brain)
        assert np.bincount(pieces.ravel())[1:].max() > 0.995 * scan.brain.sum()


def test_subjects_differ_in_anatomy_and_overlap(made):
    one, two = made[0].brain, made[1].brain
    overlap = 2 * (one & two).sum() / (one.sum() + two.sum())
    assert 0.85 < overlap < 0.985


def test_tissues_are_in_their_sequence_s_order(made):
    # Means over subjects, where the template's tissue is sure; what is left of the anatomy differs a little.
    maps = template.tissues(MM)
    grey, white = maps.image
    deep = ndimage.binary_erosion(maps.brain, iterations=3)
    places = [deep & (grey + white < 0.2), maps.brain & (grey > 0.9), deep & (white > 0.95)]
    csf, gm, wm = np.array([[np.mean([s.image[c][p].mean() for s in made]) for c in range(3)] for p in places])
    assert csf[0] < gm[0] < wm[0]
    assert wm[1] < gm[1] < csf[1]
    assert csf[2] < wm[2] < gm[2]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_drawn_means_keep_the_order(seed):
    csf, gm, wm = scanner.means(T1W, rng(seed))
    assert csf < gm < wm
    csf, gm, wm = scanner.means(T2W, rng(seed))
    assert wm < gm < csf
    csf, gm, wm = scanner.means(FLAIR, rng(seed))
    assert csf < wm < gm


def test_signals_are_those_of_the_equations():
    # By hand: grey matter at 1.5 T, 0.82 (1 - exp(-4000 / 1124)) exp(-100 / 95).
    assert float(scanner.signal("T2w", 1.5, 100.0, 4000.0)[1]) == pytest.approx(0.2780, abs=1e-4)
    # White matter at 3 T: TI = 4300 (ln 2 - ln(1 + exp(-9000 / 4300))) = 2480.5 ms,
    # 0.70 (1 - 2 exp(-2480.5 / 832) + exp(-9000 / 832)) exp(-100 / 79.6).
    assert float(scanner.signal("FLAIR", 3.0, 100.0, 9000.0)[2]) == pytest.approx(0.1791, abs=1e-4)
    between = scanner.signal("T2w", 2.25, 100.0, 4000.0)
    ends = torch.stack([scanner.signal("T2w", tesla, 100.0, 4000.0) for tesla in (1.5, 3.0)])
    assert (between > ends.min(dim=0).values - 1e-6).all()
    assert (between < ends.max(dim=0).values + 1e-6).all()


@settings(max_examples=50, deadline=None)
@given(tesla=st.floats(1.5, 3), te=st.floats(60, 130), tr=st.floats(6000, 11000), missed=st.floats(0.01, 0.03))
def test_flair_nulls_fluid_and_an_inversion_that_misses_does_not(tesla, te, tr, missed):
    csf, gm, wm = scanner.signal("FLAIR", tesla, te, tr).tolist()
    assert csf < 1e-4 < wm < gm
    off = [float(scanner.signal("FLAIR", tesla, te, tr, missed=sign * missed)[0]) for sign in (-1, 1)]
    assert min(off) > 1e-3
    longer = scanner.signal("T2w", tesla, te + 20, tr)
    assert float(longer[0] / longer[2]) > float(torch.divide(*scanner.signal("T2w", tesla, te, tr)[[0, 2]]))


def test_random_means_come_from_anywhere():
    drawn = torch.stack([scanner.means("random", rng(s)) for s in range(300)])
    assert drawn.min() < 0.13
    assert drawn.max() > 0.87
    assert torch.allclose(drawn.mean(dim=0), torch.tensor(0.5), atol=0.05)
    assert float(torch.corrcoef(drawn.T)[0, 1].abs()) < 0.15


@pytest.mark.parametrize("seed", range(6))
def test_an_anatomy_moves_millimetres_and_does_not_fold(seed):
    shape, spacing = (50, 58, 44), (4.0, 4.0, 4.5)
    shift = scanner.anatomy(shape, spacing, rng(seed))
    assert jacobian(shift, spacing).min() > 0.05
    assert 1.0 < float(shift.abs().mean()) < 10


def test_shares_of_tissue_sum_to_one_and_are_sharper_than_the_mean_s():
    maps = torch.rand(3, 12, 14, 10, generator=rng())
    maps = maps / maps.sum(dim=0)
    own = template._own(maps, (MM,) * 3, rng(1))
    torch.testing.assert_close(own.sum(dim=0), torch.ones(12, 14, 10))
    assert float(own.min()) >= 0
    assert float(own.max(dim=0).values.mean()) > float(maps.max(dim=0).values.mean()) + 0.05


def test_each_scanner_is_its_own():
    x = torch.full((20, 24, 18), 0.8)
    one, again, two = (scanner.scanned(x, (MM,) * 3, rng(s)) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
    middle = one[5:-5, 5:-5, 5:-5] / scanner.UNIT
    assert 0.4 < float(middle.min()) < float(middle.max()) < 1.4
    assert 0.01 < float(middle.std()) < 0.25


# --- label maps ----------------------------------------------------------------------------------------------------

GRID = (40, 48, 36)


def head() -> np.ndarray[Any, Any]:
    """A head of nested ellipsoids with a few of FreeSurfer's numbers, in RAS; left is where I is low."""
    i, j, k = np.indices(GRID)
    radius = np.sqrt(((i - 19.5) / 15) ** 2 + ((j - 23.5) / 18) ** 2 + ((k - 18.5) / 13) ** 2)
    left = i < 20
    numbers = np.zeros(GRID, dtype=np.int16)
    numbers[radius < 1.15] = 507
    numbers[radius < 1.06] = 24
    numbers[radius < 1] = np.where(left, 3, 42)[radius < 1]
    numbers[radius < 0.8] = np.where(left, 2, 41)[radius < 0.8]
    numbers[radius < 0.3] = np.where(left, 4, 43)[radius < 0.3]
    numbers[8:14, 20:28, 14:22] = 10
    return numbers


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Two label maps, stored in other orientations than RAS, at 4 x 4 x 5 mm."""
    folder = tmp_path / "maps"
    folder.mkdir()
    spacing = np.diag([4.0, 4.0, 5.0, 1.0])
    flipped = np.diag([-4.0, 4.0, 5.0, 1.0])
    flipped[0, 3] = 4.0 * (GRID[0] - 1)
    nib.save(nib.Nifti1Image(head()[::-1], flipped), folder / "a.nii.gz")
    turned = nib.Nifti1Image(head(), spacing).as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    nib.save(turned, folder / "b.nii.gz")
    return folder


def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anatomies stay the map's, so that places are known."""
    monkeypatch.setattr(labels, "anatomy", lambda shape, *_, **__: torch.zeros(3, *shape))


def cropped(numbers: np.ndarray[Any, Any], scan: Scan) -> np.ndarray[Any, Any]:
    """The head on a scan's grid, from world coordinates."""
    index = np.stack(np.indices(scan.grid.shape), -1) @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    index = np.rint(index / (4.0, 4.0, 5.0)).astype(int)
    inside = ((index >= 0) & (index < GRID)).all(axis=-1)
    return np.where(inside, numbers[tuple(np.moveaxis(np.where(inside[..., None], index, 0), -1, 0))], 0)


def test_structures_are_painted_where_they_lie(maps, monkeypatch):
    quiet(monkeypatch)
    cohort = healthy(3, sequences=(T1W, T2W), spacing=5.0, label_maps=maps)
    for scan in (cohort[0], cohort[2]):
        numbers = cropped(head(), scan)
        means = {n: scan.image[:, numbers == n].mean(axis=1) for n in (2, 41, 43, 10)}
        assert means[43][0] < means[10][0] < means[2][0]
        assert means[43][1] > means[10][1] > means[2][1]
        np.testing.assert_allclose(means[2], means[41], rtol=0.15)
        assert not scan.image[:, ~scan.brain].any()
        tissue = np.isin(numbers, [2, 3, 41, 42, 4, 43, 10])
        assert (scan.brain & tissue).sum() > 0.9 * tissue.sum()
        assert not (scan.brain & (numbers == 0)).any()
    assert not same(cohort[0], cohort[2])


def test_a_map_s_own_orientation_does_not_matter(maps, monkeypatch):
    quiet(monkeypatch)
    one, two = (labels._read(path) for path in labels.found(maps))
    np.testing.assert_array_equal(one.image[0], head())
    np.testing.assert_array_equal(two.image[0], head())


def test_maps_are_used_in_turn(maps, monkeypatch, made):
    used: list[str] = []
    monkeypatch.setattr(labels, "subject", lambda path, *_, **__: used.append(path.name) or made[0])
    assert [scan.id for scan in healthy(3, label_maps=maps)] == ["sub-01", "sub-02", "sub-03"]
    assert used == ["a.nii.gz", "b.nii.gz", "a.nii.gz"]


def test_the_head_comes_along_unless_it_is_stripped(maps, monkeypatch):
    quiet(monkeypatch)
    whole = healthy(1, spacing=4.5, label_maps=maps, stripped=False)[0]
    bare = healthy(1, spacing=4.5, label_maps=maps)[0]
    assert whole.stripped
    skull = cropped(head(), whole) == 507
    assert whole.image[0][skull].mean() > 30
    assert whole.brain.sum() == pytest.approx(bare.brain.sum(), rel=0.1)
    assert whole.spacing == pytest.approx((4.5,) * 3)
    assert np.prod(whole.grid.shape) > bare.brain.sum()


def test_subjects_of_one_map_differ_in_anatomy_and_keep_their_numbers(maps):
    cohort = healthy(3, spacing=5.0, label_maps=maps)
    assert not np.array_equal(cohort[0].brain, cohort[2].brain)
    for scan in cohort:
        assert 400 < scan.brain.sum() * scan.voxel_ml < 2000


def test_a_brain_longer_than_any_is_drawn_again(maps, monkeypatch):
    drawn: list[float] = []

    def anatomy(shape, spacing, *_, **__):
        """Brains of 144 mm, of which the first two are drawn longer by a half."""
        drawn.append(-1 / 3 if len(drawn) < 2 else 0.0)
        j = (torch.arange(shape[1]) - (shape[1] - 1) / 2) * spacing[1]
        shift = torch.zeros(3, *shape)
        shift[1] = drawn[-1] * j[None, :, None]
        return shift

    def longest() -> float:
        scan = healthy(1, spacing=4.0, label_maps=maps)[0]
        return float(np.max(np.ptp(np.argwhere(scan.brain), axis=0) + 1)) * 4.0

    monkeypatch.setattr(labels, "anatomy", anatomy)
    assert longest() == pytest.approx(144.0, abs=8.0)
    assert len(drawn) == 3
    # A map that is too long whatever is drawn is painted all the same.
    monkeypatch.setattr(labels, "LONGEST_MM", 1.0)
    assert longest() == pytest.approx(144.0, abs=8.0)
    assert len(drawn) == 3 + labels.DRAWS


def test_fluid_between_folds_is_brain_and_that_around_it_is_not():
    tissue = np.zeros((60, 40, 50), dtype=bool)
    tissue[10:50, 8:32, 10:47] = True
    tissue[28:31, 8:32, 30:47] = False
    tissue[2, 2, 2] = True
    brain = labels._brain(tissue, (1.0, 1.0, 1.0))
    assert brain[29, 20, 35]
    assert not brain[2, 2, 2]
    # The fold's open end is a little hollow.
    assert 40 * 24 * 37 - 3 * 3 * 24 < brain.sum() <= 40 * 24 * 37


def priors(folder: Path, classes: list[int], columns: int, name: str = "generation_classes") -> None:
    np.save(folder / "generation_labels.npy", np.array([0, 24, 507, 2, 3, 4, 10, 41, 42, 43], dtype=np.int32))
    np.save(folder / f"{name}.npy", np.array(classes))
    means = np.stack([np.arange(columns) * 20.0 + 10, np.full(columns, 0.5)])
    np.save(folder / "prior_means_t1.npy", means)
    np.save(folder / "prior_stds_t1.npy", np.stack([np.full(columns, 4.0), np.full(columns, 0.1)]))


def test_priors_beside_the_maps_are_used_where_they_belong_to_the_classes(maps):
    own = labels._intensities(T1W, maps, rng())
    priors(maps, [0, 1, 2, 3, 4, 5, 6, 3, 4, 5], 7)
    mean, sd = labels._intensities(T1W, maps, rng())
    assert float(mean[42]) == pytest.approx((4 * 20 + 10) / labels.PRIORS_UNIT, abs=0.02)
    assert float(mean[0]) == pytest.approx(10 / labels.PRIORS_UNIT, abs=0.02)
    assert float(sd[10]) == pytest.approx(4 / labels.PRIORS_UNIT, abs=0.005)
    assert torch.equal(mean[[2, 3, 4]], mean[[41, 42, 43]])
    # Not for another sequence, nor where columns and classes differ, unless the other file of classes fits.
    assert torch.equal(labels._intensities(FLAIR, maps, rng())[0][:1], torch.zeros(1))
    priors(maps, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 7)
    assert torch.equal(labels._intensities(T1W, maps, rng())[0], own[0])
    priors(maps, [0, 1, 2, 3, 4, 5, 6, 3, 4, 5], 7, "generation_classes_contrast_specific")
    assert float(labels._intensities(T1W, maps, rng())[0][3]) == pytest.approx(90 / labels.PRIORS_UNIT, abs=0.02)
    (maps / "prior_means_t1.npy").write_text("no array")
    with pytest.raises(BadInput, match=r"prior_means_t1.npy' is no array"):
        labels._intensities(T1W, maps, rng())


def test_random_contrasts_paint_structures_alike_on_both_sides(maps):
    drawn = torch.stack([labels._intensities("random", maps, rng(s))[0] for s in range(60)])
    assert torch.equal(drawn[:, 2], drawn[:, 41])
    assert float(drawn[:, 2].std()) > 0.15
    assert abs(float(torch.corrcoef(drawn[:, [2, 3]].T)[0, 1])) < 0.4
    assert not drawn[:, 0].any()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: x + 0.5, "is no label map: it holds 0.5 to 507.5"),
        (lambda x: x * 100, "is no label map"),
        (lambda x: -x, "is no label map: it holds -507 to 0"),
        (lambda x: 600 * (x > 0), "none of FreeSurfer's numbers of the brain"),
    ],
)
def test_what_is_no_label_map_is_said(tmp_path, spoil: Callable[[Any], Any], words):
    nib.save(nib.Nifti1Image(np.asarray(spoil(head()), dtype=np.float32), np.eye(4)), tmp_path / "x.nii.gz")
    with pytest.raises(BadInput, match=words):
        healthy(1, label_maps=tmp_path)[0]


# --- lesions, and a data set on disk -------------------------------------------------------------------------------


def test_a_lesion_is_planted_with_its_truth(made):
    ill = made.map(planted(kind="stroke", contrast=("hypo", "hyper", "iso"), ml=15.0))
    for before, scan in zip(made, ill, strict=True):
        assert scan.lesion.sum() * scan.voxel_ml == pytest.approx(15.0, abs=scan.voxel_ml)
        assert not (scan.lesion & ~scan.brain).any()
        lift = (scan.image - before.image)[:, scan.lesion].mean(axis=1)
        assert lift[0] < -50
        assert lift[1] > 50
        assert abs(lift[2]) < 1
        assert np.array_equal(scan.brain, before.brain)
    step, scan = planted(ml=2.0), made[0]
    for other in (step(scan.with_(id="other")), planted(ml=2.0, seed=1)(scan)):
        assert not np.array_equal(step(scan).lesion, other.lesion)
    assert np.array_equal(ill[0].lesion, made.map(planted(kind="stroke", ml=15.0))[0].lesion)
    for words, asked in (
        ("unknown lesion 'cyst'", {"kind": "cyst"}),
        ("unknown contrast 'dark'", {"contrast": ["dark"]}),
    ):
        with pytest.raises(BadCall, match=words):
            planted(**asked)


def test_a_data_set_is_read_back_as_it_was_made(made, tmp_path):
    ill = made.map(planted(ml=12.0))
    dataset.begin(tmp_path, {"seed": 0})
    rows = [dataset.store(made[0], tmp_path), dataset.store(ill[1], tmp_path)]
    dataset.finish(tmp_path, rows)
    back = open_cohort(tmp_path, sequence="T1w,FLAIR")
    assert back.ids == ("sub-01", "sub-02")
    for scan, truth in zip(back, (made[0], ill[1]), strict=True):
        assert scan.grid.same(truth.grid)
        np.testing.assert_allclose(scan.image, truth.image[[0, 2]], atol=truth.image.max() / 60000)
        np.testing.assert_array_equal(scan.brain, truth.brain)
    assert back[0].lesion is None
    np.testing.assert_array_equal(back[1].lesion, ill[1].lesion)
    patient = open_cohort(tmp_path, where={"group": "patient"})
    assert patient.ids == ("sub-02",)
    assert float(patient.entries[0].facts["lesion_ml"]) == pytest.approx(12.0, abs=0.07)
    assert json.loads((tmp_path / "sub-01/anat/sub-01_T1w.json").read_text()) == {"SkullStripped": True}
    assert json.loads((tmp_path / "sub-02/anat/sub-02_label-lesion_mask.json").read_text())["Type"] == "Lesion"


def ask(out: Path, **words: Any) -> None:
    verb(out=out, **{"n": 2, "spacing": MM, "quiet": True, "device": "cpu", **words})


def refused(capsys: pytest.CaptureFixture[str], out: Path, **words: Any) -> str:
    capsys.readouterr()
    with pytest.raises(typer.Exit) as ended:
        ask(out, **words)
    assert ended.value.exit_code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_phantoms_of_another_recipe_leave_nothing_that_counts_as_made(made, tmp_path, monkeypatch):
    dataset.begin(tmp_path, {"seed": 0})
    dataset.finish(tmp_path, [dataset.store(made[0], tmp_path)])
    assert list(dataset.made(tmp_path)) == ["sub-01"]
    dataset.begin(tmp_path, {"seed": 1}, overwrite=True)
    # A run that is stopped within the first subject.
    dataset.store(made[0], tmp_path)
    assert dataset.made(tmp_path) == {}
    dataset.finish(tmp_path, [])
    # Painted otherwise, the same recipe is another one.
    monkeypatch.setattr(dataset, "REVISION", dataset.REVISION + 1)
    with pytest.raises(BadCall, match="holds other phantoms"):
        dataset.begin(tmp_path, {"seed": 1})


def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch, capsys):
    out, stored = tmp_path / "phantoms", dataset.store

    def stopped(scan, root):
        if scan.id == "sub-03":
            raise KeyboardInterrupt
        return stored(scan, root)

    monkeypatch.setattr(dataset, "store", stopped)
    with pytest.raises((typer.Exit, KeyboardInterrupt)):
        ask(out, n=4, seed=7)
    again: list[str] = []
    monkeypatch.setattr(dataset, "store", lambda scan, root: again.append(scan.id) or stored(scan, root))
    # What was half written, its line still missing, is made anew.
    (out / "sub-02" / "anat" / "sub-02_desc-brain_mask.json").unlink()
    ask(out, n=4, seed=7, jobs=2)
    assert sorted(again) == ["sub-02", "sub-03", "sub-04"]
    whole = tmp_path / "whole"
    monkeypatch.setattr(dataset, "store", stored)
    ask(whole, n=4, seed=7)
    assert (out / "participants.tsv").read_text() == (whole / "participants.tsv").read_text()
    for image in sorted(whole.glob("sub-*/anat/*.nii.gz")):
        assert (out / image.relative_to(whole)).read_bytes() == image.read_bytes()


def test_the_verb_writes_what_the_library_makes(tmp_path, capsys):
    out = tmp_path / "phantoms"
    ask(out, sequence="T1w, FLAIR", lesion="white_matter", contrast="hypo,hyper", ml=3.0, seed=4, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [row["participant_id"] for row in told["subjects"]] == ["sub-01", "sub-02"]
    assert told["subjects"][0]["lesion_ml"] == pytest.approx(3.0, abs=0.07)
    made = healthy(2, sequences=("T1w", "FLAIR"), spacing=MM, seed=4)
    ill = made.map(planted(kind="white_matter", contrast=("hypo", "hyper"), ml=3.0, seed=4))
    back = open_cohort(out, sequence="T1w,FLAIR")
    np.testing.assert_array_equal(back[1].lesion, ill[1].lesion)
    np.testing.assert_allclose(back[1].image, ill[1].image, atol=0.1)
    lines = (out / "participants.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["participant_id", "group", "brain_ml", "lesion_ml"]
    assert len(lines) == 3


def test_the_verb_goes_on_where_it_ended_and_deletes_only_when_told_to(tmp_path, capsys):
    out = tmp_path / "phantoms"
    ask(out, lesion="stroke")
    before = (out / "sub-02/anat/sub-02_T1w.nii.gz").read_bytes()
    (out / "sub-02/anat/sub-02_T1w.nii.gz").unlink()
    (out / "participants.tsv").unlink()
    ask(out, lesion="stroke")
    assert (out / "sub-02/anat/sub-02_T1w.nii.gz").read_bytes() == before
    assert "holds other phantoms; name another, or --overwrite" in refused(capsys, out, n=1)
    assert len(open_cohort(out)) == 2
    ask(out, n=1, overwrite=True)
    (scan,) = open_cohort(out)
    assert scan.lesion is None
    other = tmp_path / "mine"
    (other / "sub-01").mkdir(parents=True)
    (other / "sub-01" / "notes.txt").write_text("mine")
    assert "holds something else than phantoms" in refused(capsys, other, overwrite=True)
    assert (other / "sub-01" / "notes.txt").exists()


def test_the_verb_says_what_is_wrong_before_it_writes(tmp_path, capsys):
    out = tmp_path / "phantoms"
    for words, asked in (
        ("unknown sequence 'T1'", {"sequence": "T1"}),
        ("unknown lesion 'cyst'; known: stroke, tumour, white_matter", {"lesion": "cyst"}),
        ("unknown contrast 'dark'", {"lesion": "stroke", "contrast": "dark"}),
        ("--contrast names 2, --sequence 1", {"lesion": "stroke", "contrast": "iso,hyper"}),
        ("ml is -3,", {"lesion": "stroke", "ml": -3.0}),
        ("mass_effect_mm is inf;", {"lesion": "stroke", "mass_effect": float("inf")}),
        ("voxels cannot be 0.05 mm", {"spacing": 0.05}),
        ("device 'gpu' is not available", {"device": "gpu"}),
        ("are a lesion's; name its kind with --lesion", {"ml": 3.0}),
        ("are a lesion's; name its kind with --lesion", {"contrast": "iso"}),
        ("a cohort of 0 subjects", {"n": 0}),
        ("no such file or folder", {"label_maps": tmp_path / "none"}),
    ):
        assert words in refused(capsys, out, **asked)
    assert not out.exists()
    ask(out, lesion="stroke", contrast="iso")
