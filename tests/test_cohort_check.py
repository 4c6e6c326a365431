"""The check finds what is wrong, one kind at a time, and nothing where nothing is."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anomri.cohort import Cohort, Entry
from anomri.cohorts import open_cohort, splits
from anomri.cohorts.check import Problem, check, check_split, shared, together
from anomri.cohorts.splits import Member, Split
from conftest import brain_at, grid, image_at, lesion_at, phantom, world

ON = grid("LAS", oblique=9.0)
BRAIN = brain_at(world(ON))
LESION = lesion_at(world(ON))


def healthy(number: int, *, skull: bool = False) -> Any:
    """A scan of its own; with skull, its background is noise."""
    rng = np.random.default_rng(number)
    x = image_at(world(ON)) + rng.normal(0, 20, ON.shape)
    return np.where(BRAIN, x, rng.uniform(1, 300, ON.shape) if skull else 0).astype(np.float32)


def save(path: Path, data: Any, affine: Any = None, **header: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.asarray(data), ON.affine if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)
    return str(path)


def kinds(problems: list[Problem]) -> list[tuple[str, tuple[str, ...], bool]]:
    return [(p.kind, p.ids, p.remark) for p in problems]


@pytest.fixture
def cohort(tmp_path: Path) -> list[Entry]:
    """Three good scans with everything."""
    made = []
    for n in range(3):
        images = {s: save(tmp_path / f"s{n}_{s}.nii.gz", healthy(2 * n + k)) for k, s in enumerate(("T1w", "FLAIR"))}
        brain = save(tmp_path / f"s{n}_brain.nii.gz", BRAIN.astype(np.uint8))
        lesion = save(tmp_path / f"s{n}_lesion.nii.gz", (LESION & BRAIN).astype(np.uint8))
        made.append(Entry(f"s{n}", images, brain, lesion))
    return made


def test_nothing_is_wrong(cohort):
    told: list[tuple[int, str]] = []
    assert check(Cohort(cohort), progress=lambda done, id: told.append((done, id))) == []
    assert told == [(1, "s0"), (2, "s1"), (3, "s2")]
    assert check(Cohort([])) == []
    split = Split(tuple(Member(e.id, e.id, part) for e, part in zip(cohort, ("fit", "fit", "test"), strict=True)))
    assert check(Cohort(cohort), split) == []


# --- the same image under two names --------------------------------------------------------------------------------


def same_voxels(path: Path, how: str) -> str:
    """Scan s1's T1w again, written in another way."""
    x = healthy(2)
    affine = ON.affine.copy()
    if how == "copy":
        return save(path, x)
    if how == "other gzip":
        content = gzip.decompress(Path(save(path, x)).read_bytes())
        path.write_bytes(gzip.compress(content, 1, mtime=12345))
        return str(path)
    if how == "unzipped":
        return save(path.with_name("copy.nii"), x)
    if how == "float64":
        return save(path, x.astype(np.float64))
    if how == "description and codes":
        return save(path, x, descrip=b"another", sform_code=4, qform_code=0)
    if how == "moved":
        affine[:3, 3] += 3
        return save(path, x, affine)
    if how == "other voxel size":
        return save(path, x, np.diag([1.0, 1.1, 1.2, 1.0]))
    if how == "padded":
        return save(path, np.pad(x * BRAIN, ((0, 3), (2, 1), (0, 0))))
    if how == "mirrored":
        return save(path, x[::-1])
    turned = nib.as_closest_canonical(nib.Nifti1Image(x, affine))
    return save(path, np.asarray(turned.dataobj).transpose(2, 0, 1), turned.affine)


@pytest.mark.parametrize(
    "how",
    [
        "copy",
        "other gzip",
        "unzipped",
        "float64",
        "description and codes",
        "moved",
        "other voxel size",
        "mirrored",
        "padded",
        "axes swapped",
    ],
)
def test_the_same_image_under_two_names(cohort, tmp_path, how):
    cohort.append(Entry("other", {"FLAIR": same_voxels(tmp_path / "copy.nii.gz", how)}))
    found = [p for p in check(Cohort(cohort)) if p.kind == "duplicate"]
    assert kinds(found) == [("duplicate", ("s1", "other"), False)]
    assert found[0].text == "the same image twice: 's1' (T1w) and 'other' (FLAIR)"


def test_nearly_the_same_is_not_the_same(cohort, tmp_path):
    x = healthy(2)
    x[10, 11, 12] += 1
    cohort.append(
        Entry("other", {"T1w": save(tmp_path / "x.nii.gz", x), "FLAIR": save(tmp_path / "y.nii.gz", healthy(77))})
    )
    assert check(Cohort(cohort)) == []


def test_a_duplicate_over_two_parts_says_so(cohort, tmp_path):
    cohort.append(
        Entry(
            "other",
            {"T1w": same_voxels(tmp_path / "x.nii.gz", "copy"), "FLAIR": save(tmp_path / "y.nii.gz", healthy(77))},
        )
    )
    split = Split(tuple(Member(e.id, e.id, "test" if e.id == "other" else "fit") for e in cohort))
    (problem,) = check(Cohort(cohort), split)
    assert problem.text == "the same image twice: 's1' (T1w, fit) and 'other' (T1w, test)"


def test_one_file_as_two_sequences(cohort):
    path = cohort[0].images["T1w"]
    cohort[0] = Entry("s0", {"T1w": path, "FLAIR": path})
    assert kinds(check(Cohort(cohort))) == [("duplicate", ("s0",), False)]


# --- files -----------------------------------------------------------------------------------------------------------


def test_files_that_cannot_be_used(cohort, tmp_path):
    (tmp_path / "text.nii.gz").write_text("no image")
    full = Path(cohort[1].images["T1w"]).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(full[: len(full) // 2])
    cohort += [
        Entry("gone", {"T1w": str(tmp_path / "gone.nii.gz"), "FLAIR": save(tmp_path / "a.nii.gz", healthy(50))}),
        Entry("text", {"T1w": str(tmp_path / "text.nii.gz"), "FLAIR": str(tmp_path / "cut.nii.gz")}),
        Entry("flat", {"T1w": save(tmp_path / "f.nii.gz", np.full(ON.shape, 7.0, np.float32)), "FLAIR": save(tmp_path / "b.nii.gz", healthy(51))}),
    ]  # fmt: skip
    found = check(Cohort(cohort))
    assert kinds(found) == [
        ("unreadable", ("gone",), False), ("unreadable", ("text",), False), ("unreadable", ("text",), False), ("constant", ("flat",), False),
    ]  # fmt: skip
    assert "scan 'gone', T1w: cannot read" in found[0].text
    assert "cut short" in found[2].text
    assert found[3].text == "scan 'flat', T1w: every voxel is 7"


def test_missing_sequences(tmp_path):
    for name, n in (("a_T1w", 1), ("a_FLAIR", 2), ("b_T1w", 3), ("c_FLAIR", 4)):
        save(tmp_path / f"{name}.nii.gz", healthy(n))
    whole = together({s: open_cohort(tmp_path, sequence=s) for s in ("T1w", "FLAIR")})
    assert {e.id: list(e.images) for e in whole.entries if isinstance(e, Entry)} == {"a": ["T1w", "FLAIR"], "b": ["T1w"], "c": ["FLAIR"]}  # fmt: skip
    found = check(whole)
    assert kinds(found) == [("missing", ("b",), False), ("missing", ("c",), False)]
    assert found[0].text == "scan 'b' has no FLAIR; others have"


def test_parts_of_a_scan_on_other_grids(cohort, tmp_path):
    other = grid("LAS", shape=(30, 36, 28))
    moved = ON.affine.copy()
    moved[:3, 3] += 4
    small = brain_at(world(other)).astype(np.uint8)
    cohort[0] = Entry(
        "s0", {**cohort[0].images, "FLAIR": save(tmp_path / "f.nii.gz", healthy(60)[1:])}, cohort[0].brain
    )
    cohort[1] = Entry("s1", cohort[1].images, save(tmp_path / "b.nii.gz", small, other.affine), cohort[1].lesion)
    cohort[2] = Entry(
        "s2", cohort[2].images, cohort[2].brain, save(tmp_path / "l.nii.gz", LESION.astype(np.uint8), moved)
    )
    found = check(Cohort(cohort))
    assert kinds(found) == [("grid", ("s0",), False), ("brain", ("s1",), False), ("lesion", ("s2",), False)]
    assert "FLAIR lies on 33 x 38 x 30 voxels of 5 x 5.5 x 6 mm, LAS, T1w on 34 x 38 x 30" in found[0].text
    assert "another affine" in found[2].text


# --- masks -----------------------------------------------------------------------------------------------------------


def test_lesions_outside_the_brain(cohort, tmp_path):
    outside = np.argwhere(~BRAIN)
    count = int(BRAIN.sum())
    extra = [int(0.009 * count), int(0.3 * count)]
    for n in (0, 1):
        mask = BRAIN.copy()
        mask[tuple(outside[: extra[n]].T)] = True
        path = save(tmp_path / f"l{n}.nii.gz", mask.astype(np.uint8))
        cohort[n] = Entry(f"s{n}", cohort[n].images, cohort[n].brain, path)
    assert extra[0] > 10
    found = check(Cohort(cohort))
    assert kinds(found) == [("outside", ("s1",), False)]
    assert f"scan 's1': {100 * extra[1] / (count + extra[1]):.3g} % of the lesion" in found[0].text
    assert f"({extra[1] * 0.165:.3g} of {(count + extra[1]) * 0.165:.3g} ml) lies outside the brain" in found[0].text


def test_lesions_outside_a_brain_that_no_mask_tells(tmp_path):
    lesion = save(tmp_path / "l.nii.gz", (~BRAIN).astype(np.uint8))
    entries = [Entry(f"{skull}", {"T1w": save(tmp_path / f"{skull}.nii.gz", healthy(1 + skull, skull=skull))}, None, lesion) for skull in (False, True)]  # fmt: skip
    # Of a stripped image the brain is known; of one with its skull it is not, so nothing is said.
    assert kinds(check(Cohort(entries))) == [("outside", ("False",), False)]


def test_empty_masks(cohort, tmp_path):
    nothing = save(tmp_path / "none.nii.gz", np.zeros(ON.shape, np.uint8))
    everything = save(tmp_path / "all.nii.gz", np.ones(ON.shape, np.uint8))
    cohort[0] = Entry("s0", cohort[0].images, cohort[0].brain, nothing)
    cohort[1] = Entry("s1", cohort[1].images, nothing, cohort[1].lesion)
    cohort[2] = Entry("s2", cohort[2].images, everything)
    # Problems come before remarks: an empty lesion may be right.
    assert kinds(check(Cohort(cohort))) == [
        ("brain", ("s1",), False),
        ("brain", ("s2",), False),
        ("empty", ("s0",), True),
    ]


def test_labels_count_and_several_masks_are_one_lesion(cohort, tmp_path):
    two = save(tmp_path / "two.nii.gz", 2 * (LESION & BRAIN).astype(np.uint8))
    outside = save(tmp_path / "out.nii.gz", (~BRAIN).astype(np.uint8))
    cohort[0] = Entry("s0", cohort[0].images, cohort[0].brain, two, lesion_labels=(1,))
    cohort[1] = Entry("s1", cohort[1].images, cohort[1].brain, (str(cohort[1].lesion), outside))
    assert kinds(check(Cohort(cohort))) == [("outside", ("s1",), False), ("empty", ("s0",), True)]


# --- grids -----------------------------------------------------------------------------------------------------------


def test_odd_grids_are_remarks(tmp_path):
    entries = []
    for n, codes in enumerate(("RAS", "RAS", "RAS", "LPI", "RAS")):
        on = grid(codes, spacing=(5.0, 5.5, 5.0 if n == 4 else 6.0))
        x = image_at(world(on)) + np.random.default_rng(n).normal(size=on.shape)
        entries.append(Entry(f"s{n}", {"T1w": save(tmp_path / f"{n}.nii.gz", x.astype(np.float32), on.affine)}))
    found = check(Cohort(entries))
    assert kinds(found) == [("odd grid", ("s4",), True), ("odd grid", ("s3",), True)]
    assert found[0].text == "spacing is 5 x 5.5 x 6 in 4 of 5 scans; 5 x 5.5 x 5 in 1: s4"
    assert found[1].text == "orientation is RAS in 4 of 5 scans; LPI in 1: s3"


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SRA", "PIR", "AIL"])
def test_orientation_is_nibabel_s(tmp_path, codes):
    from anomri.cohorts.check import _axes

    assert _axes(grid(codes, oblique=15)) == "".join(nib.aff2axcodes(grid(codes, oblique=15).affine)) == codes


def test_scans_in_memory():
    scans = [phantom(grid(), id="a"), phantom(grid("LPS"), id="b"), phantom(grid(shape=(30, 38, 34)), id="c")]
    scans[2] = scans[2].with_(lesion=~scans[2].brain)
    found = check(Cohort(scans))
    assert ("outside", ("c",), False) in kinds(found)
    # The third is the first one on a grid with the same voxels and other borders.
    assert ("duplicate", ("a", "b", "c"), False) in kinds(found)


# --- splits ----------------------------------------------------------------------------------------------------------


def test_leaks_of_a_split():
    lines = [("a1", "a", "fit"), ("a2", "a", "test"), ("b1", "b", "fit"), ("b2", "b", "fit"), ("c", "c", "fit"), ("c", "c", "test"),
             ("d", "d", "fit"), ("d", "d", "fit")]  # fmt: skip
    found = check_split(Split(tuple(Member(*line) for line in lines)))
    assert kinds(found) == [("twice", ("d",), False), ("leak", ("c",), False), ("leak", ("a1", "a2"), False)]
    assert [p.text for p in found] == [
        "scan 'd' is listed 2 times in fit",
        "scan 'c' is in fit and in test",
        "subject 'a' is in fit (a1) and in test (a2)",
    ]


def test_leaks_between_folds():
    lines = [Member("a1", "a", "", 1), Member("a2", "a", "", 2), Member("b", "b", "", 1), Member("c", "c", "test")]
    assert [p.text for p in check_split(Split(tuple(lines)))] == ["subject 'a' is in fold 1 (a1) and in fold 2 (a2)"]


def test_tables_like_the_published_folds_of_ixi(tmp_path):
    """Their training table repeats lines and shares subjects with the test table."""
    head = ",img_name,age,label,img_path,mask_path,seg_path\n"

    def line(n: int, site: str = "Guys") -> str:
        name = f"IXI{n:03d}-{site}-{800 + n:04d}_t1.nii.gz"
        return f"{n},{name},{20 + n}.5,0,/Train/ixi/t1/{name},/Train/ixi/mask/{name},\n"

    (tmp_path / "IXI_train_fold0.csv").write_text(head + "".join(map(line, [2, 12, 13, 13, 14, 15, 33])))
    (tmp_path / "IXI_val_fold0.csv").write_text(head + "".join(map(line, [16, 17])))
    (tmp_path / "IXI_test.csv").write_text(head + "".join([*map(line, [12, 20, 33]), line(15, "HH")]))
    read = [splits.read(tmp_path / f"IXI_{name}.csv", part) for name, part in (("train_fold0", "train"), ("val_fold0", "val"), ("test", "test"))]  # fmt: skip
    found = check_split(splits.merged(read))
    leaks = [p for p in found if p.kind == "leak"]
    assert sorted({p.ids[0][:6] for p in leaks}) == ["IXI012", "IXI015", "IXI033"]
    assert len(leaks) == 3
    assert [p.text for p in found if p.kind == "twice"] == ["scan 'IXI013-Guys-0813_t1' is listed 2 times in train"]
    assert check_split(splits.merged(read[1:2])) == []


def test_a_split_against_its_cohort(cohort):
    split = Split((Member("s0", "s0", "fit"), Member("s1", "s1", "test"), Member("x", "x", "test")))
    found = check(Cohort(cohort), split)
    assert kinds(found) == [("unknown", ("x",), False), ("unused", ("s2",), True)]
    assert found[0].text == "of the split's 3 scans, 1 not in the cohort: x"
    # Only the cohort knows that two of its scans show one person.
    people = [Entry(e.id, e.images, e.brain, e.lesion, {"subject": "one" if e.id != "s2" else "two"}) for e in cohort]
    split = Split((Member("s0", "s0", "fit"), Member("s1", "s1", "test"), Member("s2", "s2", "test")))
    assert [p.text for p in check(Cohort(people), split)] == [
        "subject 'one' of the cohort: 's0' in fit and 's1' in test"
    ]


def test_what_a_split_draws_has_no_leak(cohort):
    drawn = splits.draw(Cohort(cohort), {"fit": 1, "test": 2})
    assert check(Cohort(cohort), drawn) == []


def test_subjects_of_one_name_in_two_cohorts():
    one, two = (Cohort([Entry(id, {}) for id in ids]) for ids in (("sub-01_ses-1", "sub-02"), ("sub-01_ses-2",)))
    (found,) = shared({"a": one, "b": two})
    assert found == Problem(
        "shared", ("a/sub-01_ses-1", "b/sub-01_ses-2"), "subject 'sub-01' is in a and in b", remark=True
    )
