"""Folders, BIDS data sets and tables become cohorts of the right scans, with the right masks, none of them read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from anomri.cohort import Cohort, Entry
from anomri.cohorts import open_cohort
from anomri.errors import BadCall, BadInput


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(cohort: Cohort) -> dict[str, list[str | None]]:
    """Names of each scan's images, brain and lesion."""
    listed: dict[str, list[str | None]] = {}
    for entry in cohort.entries:
        assert isinstance(entry, Entry)
        paths = [*entry.images.values(), entry.brain, entry.lesion]
        assert all(p is None or Path(p).exists() for p in paths)
        listed[entry.id] = [p and Path(p).name for p in paths]
    return listed


def refused(said: str, *arguments: Any, **named: Any) -> None:
    with pytest.raises(BadInput, match=said) as error:
        open_cohort(*arguments, **named)
    assert "\n" not in str(error.value)


# --- BIDS ----------------------------------------------------------------------------------------------------------


def bids(root: Path) -> Path:
    (root / "participants.tsv").write_text("participant_id\tgroup\tage\nsub-01\tcontrol\t30\nsub-02\tpatient\tn/a\n")
    return tree(
        root,
        "sub-02/anat/sub-02_T1w.nii",
        "sub-02/anat/sub-02_FLAIR.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_run-10_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_run-10_desc-brain_mask.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_label-lesion_mask.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_desc-preproc_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_space-MNI152_T1w.nii.gz",
        "sub-01/ses-b/func/sub-01_ses-b_task-rest_bold.nii.gz",
    )


def test_bids_sessions_runs_and_masks(tmp_path: Path) -> None:
    cohort = open_cohort(bids(tmp_path))
    assert found(cohort) == {
        "sub-01_ses-a_run-1": ["sub-01_ses-a_run-1_T1w.nii.gz", None, None],
        "sub-01_ses-a_run-10": ["sub-01_ses-a_run-10_T1w.nii.gz", "sub-01_ses-a_run-10_desc-brain_mask.nii.gz", None],
        "sub-01_ses-b": ["sub-01_ses-b_T1w.nii.gz", None, "sub-01_ses-b_label-lesion_mask.nii.gz"],
        "sub-02": ["sub-02_T1w.nii", None, None],
    }
    assert cohort.subjects == ("sub-01",) * 3 + ("sub-02",)
    assert open_cohort(tmp_path, where={"group": "patient"}).ids == ("sub-02",)
    assert len(open_cohort(tmp_path, where={"subject": "sub-01"})) == 3
    refused("no column 'site'", tmp_path, where={"site": "1"})
    assert all(part.subjects[0] != "sub-01" or len(part) == 3 for part in cohort.split(1, 1))


def test_bids_of_several_sequences(tmp_path: Path) -> None:
    cohort = open_cohort(bids(tmp_path), sequence="T1w, FLAIR")
    assert found(cohort) == {"sub-02": ["sub-02_T1w.nii", "sub-02_FLAIR.nii.gz", None, None]}
    refused("has no scan with T2w", tmp_path, sequence="T2w")


def test_bids_derivatives_are_named_as_their_source(tmp_path: Path) -> None:
    """What `anomri preprocess` writes can be opened again."""
    tree(
        tmp_path,
        "dataset_description.json",
        "sub-01/anat/sub-01_space-orig_res-2mm_desc-preproc_T1w.nii.gz",
        "sub-01/anat/sub-01_space-orig_res-2mm_desc-brain_mask.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_desc-preproc_T1w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_desc-brain_mask.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_space-orig_desc-itermask3dAnomaly_T1w.nii.gz",
    )
    assert found(open_cohort(tmp_path)) == {
        "sub-01": [
            "sub-01_space-orig_res-2mm_desc-preproc_T1w.nii.gz",
            "sub-01_space-orig_res-2mm_desc-brain_mask.nii.gz",
            None,
        ],
        "sub-02_ses-1": ["sub-02_ses-1_desc-preproc_T1w.nii.gz", "sub-02_ses-1_desc-brain_mask.nii.gz", None],
    }


def test_bids_scan_that_is_there_twice(tmp_path: Path) -> None:
    tree(tmp_path, "sub-01/anat/sub-01_T1w.nii", "sub-01/anat/sub-01_T1w.nii.gz")
    with pytest.raises(BadCall, match="'sub-01' occurs twice"):
        open_cohort(tmp_path)


# --- folder --------------------------------------------------------------------------------------------------------


def test_folder_of_any_names(tmp_path: Path) -> None:
    folder = tree(
        tmp_path / "mit Leerzeichen ü",
        "anna b.nii.gz", "anna b_brain.nii.gz", "anna b_lesion.nii.gz", "c_brain.nii", "d_T1w.nii.gz", "d_FLAIR.nii.gz",
        "d_brain.nii.gz", "e_T1w.nii.gz", "e_T1w_brain_mask.nii.gz", "f_x.NII.GZ", "orphan_lesion.nii.gz", ".hidden.nii.gz", "a.txt",
    )  # fmt: skip
    assert found(open_cohort(folder)) == {
        "anna b": ["anna b.nii.gz", "anna b_brain.nii.gz", "anna b_lesion.nii.gz"],
        "c_brain": ["c_brain.nii", None, None],
        "d": ["d_T1w.nii.gz", "d_brain.nii.gz", None],
        "e": ["e_T1w.nii.gz", "e_T1w_brain_mask.nii.gz", None],
        "f_x": ["f_x.NII.GZ", None, None],
    }


def test_folder_of_several_sequences(tmp_path: Path) -> None:
    tree(tmp_path, "a_FLAIR.nii.gz", "a_T1w.nii.gz", "a_mask.nii.gz", "b_T1w.nii.gz", "c.nii.gz")
    assert found(open_cohort(tmp_path, sequence="T1w,FLAIR")) == {
        "a": ["a_T1w.nii.gz", "a_FLAIR.nii.gz", "a_mask.nii.gz", None]
    }
    refused(r"no scan with T1w, T2w.*<id>_<sequence>", tmp_path, sequence="T1w,T2w")


def test_folder_with_two_files_for_one_scan(tmp_path: Path) -> None:
    refused("'a.nii' and 'a.nii.gz' for one scan", tree(tmp_path, "a.nii", "a.nii.gz"))


# --- table ---------------------------------------------------------------------------------------------------------


def test_table_with_paths_below_it_or_absolute(tmp_path: Path) -> None:
    tree(tmp_path, "data/a 1.nii.gz", "b.nii", "m.nii", "l.nii")
    table = tmp_path / "scans.csv"
    table.write_text(
        f"id,T1w,brain,lesion,subject,group\nx,data/a 1.nii.gz,m.nii,l.nii,s1,A\ny,{tmp_path}/b.nii,,n/a,s1,B\n"
    )
    cohort = open_cohort(table)
    assert found(cohort) == {"x": ["a 1.nii.gz", "m.nii", "l.nii"], "y": ["b.nii", None, None]}
    assert cohort.subjects == ("s1", "s1")
    assert open_cohort(table, where={"group": "B"}).ids == ("y",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,T1w\n", "no line below its header"),
        ("name,T1w\na,b\n", "no column 'id'; it has name, T1w"),
        ("id,T1\na,b\n", "no column 'T1w'; it has id, T1"),
        ("id,T1w\na,b\nb,\n", "scan 2 has no T1w"),
        ("id,T1w\n,b\n", "scan 1 has no id"),
        ("id,T1w\na,b,c\n", "line 2: 3 cells"),
    ],
)
def test_tables_that_do_not_say_enough(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.tsv").write_text(text)
    refused(said, tmp_path / "t.tsv")


def test_table_with_one_id_twice(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,T1w\na,b\na,c\n")
    with pytest.raises(BadCall, match="'a' occurs twice"):
        open_cohort(tmp_path / "t.csv")


# --- what is no cohort ---------------------------------------------------------------------------------------------


def test_what_is_no_cohort(tmp_path: Path) -> None:
    refused("does not exist", tmp_path / "none")
    refused("holds no scan", tmp_path)
    refused("is one image, not a cohort", tree(tmp_path, "a.nii.gz") / "a.nii.gz")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    refused("not UTF-8", tmp_path / "t.csv")
    with pytest.raises(BadCall, match="no sequence"):
        open_cohort(tmp_path, sequence=" , ")


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> Any:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "iterdir", denied)
    refused("cannot read.*permission denied", tmp_path)
