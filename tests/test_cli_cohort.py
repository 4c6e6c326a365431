"""The verbs `anomri cohort check|split|list`: what they print where, and how they end."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anomri import files
from anomri.cli import main
from anomri.cohorts import datasets, open_cohort, splits
from small import mask_file, scan_file


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs `anomri cohort ...` in an empty folder; gives exit code, stdout, and the lines of stderr."""
    monkeypatch.chdir(tmp_path)

    def ask(*words: str | Path) -> tuple[int, str, list[str]]:
        capfd.readouterr()
        code = main(["cohort", *map(str, words)])
        out, err = capfd.readouterr()
        return code, out, err.splitlines()

    return ask


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A BIDS data set of four subjects, one of them with two sessions, with ages; each has a lesion."""
    names = ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "sub-03_ses-1", "sub-04_ses-1")
    for n, name in enumerate(names):
        folder = tmp_path / "bids" / name[:6] / name[7:] / "anat"
        scan_file(folder / f"{name}_T1w.nii.gz", n, lesion=True)
        mask_file(folder / f"{name}_desc-brain_mask.nii.gz")
    rows = [{"participant_id": f"sub-0{n}", "age": 20 + 10 * n, "sex": "MF"[n % 2]} for n in range(1, 5)]
    files.write_table(tmp_path / "bids/participants.tsv", rows)
    return tmp_path


# --- check ---------------------------------------------------------------------------------------------------------


def test_a_good_cohort(home, ask):
    code, out, err = ask("check", "bids")
    assert (code, out, err) == (0, "", ["Scans checked: 5. Problems: 0. Remarks: 0"])
    assert ask("check", "bids", "--quiet") == (0, "", [])


def test_problems_are_lines_a_table_and_json(home, ask):
    (home / "bids/sub-05/anat").mkdir(parents=True)
    shutil.copy(home / "bids/sub-03/ses-1/anat/sub-03_ses-1_T1w.nii.gz", home / "bids/sub-05/anat/sub-05_T1w.nii.gz")
    scan_file(home / "bids/sub-06/anat/sub-06_T1w.nii.gz", 60, codes="RPS")
    code, out, err = ask("check", "bids", "--out", "problems.tsv")
    assert code == 3
    assert out.splitlines()[0] == "problem: duplicate: the same image twice: 'sub-03_ses-1' (T1w) and 'sub-05' (T1w)"
    assert [line.split(":")[0] for line in out.splitlines()] == ["problem", "remark"]
    assert err == ["Scans checked: 7. Problems: 1. Remarks: 1"]
    rows = files.read_table("problems.tsv")
    assert [(r["level"], r["kind"], r["ids"]) for r in rows] == [("problem", "duplicate", "sub-03_ses-1,sub-05"), ("remark", "odd grid", "sub-06")]  # fmt: skip
    code, out, err = ask("check", "bids", "--json", "-q")
    told = json.loads(out)
    assert (code, err, told["problems"], told["remarks"], told["found"]) == (3, [], 1, 1, rows)


def test_missing_sequences(home, ask):
    anat = home / "bids/sub-02/ses-1/anat"
    scan_file(anat / "sub-02_ses-1_FLAIR.nii.gz", 70)
    assert ask("check", "bids")[0] == 0
    code, out, _ = ask("check", "bids", "--sequence", "T1w, FLAIR")
    assert code == 3
    assert re.findall(r"scan '(.*?)' has no (\w+)", out) == [(s, "FLAIR") for s in ("sub-01_ses-1", "sub-01_ses-2", "sub-03_ses-1", "sub-04_ses-1")]  # fmt: skip
    code, out, _ = ask("check", "bids", "--sequence", "T1w,T2w")
    assert code == 3
    assert out.startswith("problem: missing: BIDS data set 'bids' has no scan with T2w")
    code, out, err = ask("check", "bids", "--sequence", "PDw")
    assert (code, out) == (2, "")
    assert "has no scan with PDw" in err[0]


def test_splits_with_and_without_images(home, ask):
    (home / "train.csv").write_text(",img_name,age\n0,sub-01_ses-1,3\n1,sub-02_ses-1,4\n2,sub-02_ses-1,4\n")
    (home / "test.csv").write_text(",img_name,age\n0,sub-01_ses-2,3\n1,sub-03_ses-1,4\n")
    code, out, err = ask("check", "--split", "train=train.csv", "--split", "test=test.csv")
    assert code == 3
    assert out.splitlines() == [
        "problem: twice: scan 'sub-02_ses-1' is listed 2 times in train",
        "problem: leak: subject 'sub-01' is in train (sub-01_ses-1) and in test (sub-01_ses-2)",
    ]
    assert err == ["Lines checked: 5. Problems: 2. Remarks: 0"]
    code, out, _ = ask("check", "bids", "--split", "train=train.csv", "--split", "test=test.csv")
    assert code == 3
    assert out.splitlines()[-1] == "remark: unused: of 5 scans, 1 in no part of the split: sub-04_ses-1"
    assert ask("split", "bids", "--out", "s.tsv", "--parts", "fit=2,test=2", "-q") == (0, "", [])
    assert ask("check", "bids", "--split", "s.tsv")[:2] == (0, "")
    assert ask("check", "--split", "s.tsv")[:2] == (0, "")
    code, _, err = ask("check", "--split", "test.csv")
    assert code == 2
    assert (
        "no column split; it needs columns id and split, or the name of the part that it is: train=test.csv" in err[0]
    )


def test_several_cohorts(home, ask):
    shutil.copytree(home / "bids/sub-02", home / "two/sub-02")
    scan_file(home / "two/sub-09/anat/sub-09_T1w.nii.gz", 90)
    code, out, err = ask("check", "bids", "two")
    assert code == 3
    assert out.splitlines() == [
        "problem: duplicate: the same image twice: 'bids/sub-02_ses-1' (T1w) and 'two/sub-02_ses-1' (T1w)",
        "remark: shared: subject 'sub-02' is in bids and in two",
    ]
    assert err == ["Scans checked: 7. Problems: 1. Remarks: 1"]
    # Ids that only one of them has stay as they are, so that a split knows them.
    (home / "s.csv").write_text("id,split\nsub-09,test\nsub-01_ses-1,fit\n")
    assert "unknown" not in ask("check", "bids", "two", "--split", "s.csv")[1]


def test_a_data_set_is_checked_in_all_its_sequences(tmp_path, ask):
    for n, kinds in enumerate((("flair", "t1"), ("flair",))):
        id = f"BraTS2021_{n:05d}"
        for k, kind in enumerate(kinds):
            scan_file(tmp_path / f"brats/{id}/{id}_{kind}.nii.gz", 10 * n + k)
        mask_file(tmp_path / f"brats/{id}/{id}_seg.nii.gz", "lesion")
    code, out, _ = ask("check", "brats", "--dataset", "brats2021")
    assert (code, out) == (3, "problem: missing: scan 'BraTS2021_00001' has no T1w; others have\n")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("check", "name a cohort to check, or a split table"),
        ("check none", "'none' does not exist"),
        ("check . --dataset brats", "unknown data set 'brats'; known: adni"),
        ("check --split none.tsv", "none.tsv"),
        ("split bids --out s.tsv", "say which parts to draw"),
        ("split bids --out s.tsv --parts fit", "--parts 'fit' is not NAME=N"),
        ("split bids --out s.tsv --parts fit=1,fit=2", "with different names"),
        ("split bids --out s.tsv --parts fit=0", "fit has no subject; leave it out"),
        ("split bids --out . --folds 2", "'.' is a folder; name a table in it, such as table.tsv"),
        ("split bids --out s.xlsx --folds 2", "'s.xlsx' is not a .tsv"),
        ("check bids --out s.csv", "'s.csv' is not a .tsv"),
        ("check --split none.tsv --sequence T1w", "and there is none; name one"),
        ("list --where sex=F", "and there is none; name one"),
        ("list --sequence FLAIR", "and there is none; name one"),
        ("split bids --out s.tsv --parts fit=3,test=2", "a cohort of 4 subjects (5 scans) cannot be split into 3 + 2"),
        ("split bids --out s.tsv --folds 5", "cannot be cut into 5 folds; use 2 to 4"),
        ("split bids --out s.tsv --folds 2 --stratify iq", "no column 'iq'"),
        ("list --dataset brats", "unknown data set 'brats'"),
        ("list none", "'none' does not exist"),
    ],
)
def test_bad_calls_are_one_line(home, ask, call, said):
    code, out, err = ask(*call.split())
    assert (code, out, len(err)) == (2, "", 1)
    assert said in err[0]
    assert err[0].startswith("anomri: ")
    assert not (home / "s.tsv").exists()


# --- split ---------------------------------------------------------------------------------------------------------


def test_split_writes_what_it_draws(home, ask):
    code, out, err = ask(
        "split", "bids", "--out", "s.tsv", "--parts", "fit=2, test=1", "--seed", "3", "--stratify", "age"
    )
    whole = open_cohort(home / "bids")
    assert splits.read(home / "s.tsv") == splits.draw(whole, {"fit": 2, "test": 1}, seed=3, stratify="age")
    assert (code, out) == (0, "")
    assert re.fullmatch(r"Scans in (fit: \d, test: \d|test: \d, fit: \d); in no part: \d\. Wrote s\.tsv", err[0])
    first = (home / "s.tsv").read_bytes()
    ask("split", "bids", "--out", "s.tsv", "--parts", "fit=2,test=1", "--seed", "3", "--stratify", "age")
    assert (home / "s.tsv").read_bytes() == first


def test_split_into_folds_with_what_table_says_chosen(home, ask):
    code, out, _ = ask("split", "bids", "--out", "s.tsv", "--folds", "2", "--where", "sex=F", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["scans"].keys() == {"fold 1", "fold 2"}
    assert {m.subject for m in splits.read(home / "s.tsv").members} == {"sub-01", "sub-03"}
    assert sum(told["scans"].values()) == 3


# --- list ----------------------------------------------------------------------------------------------------------


def test_list_of_data_sets(ask):
    code, out, err = ask("list")
    assert (code, err) == (0, [])
    assert [line.split(":")[0] for line in out.splitlines()] == [d.name for d in datasets.DATASETS]
    told = json.loads(ask("list", "--json")[1])["datasets"]
    assert [row["variable"] for row in told] == [d.variable for d in datasets.DATASETS]
    code, out, _ = ask("list", "--dataset", "brats2020")
    assert "W39_1998.09.19_Segm" in out
    assert "sequences: T1w, T2w, FLAIR, T1ce\n" in out
    assert "BraTS20_Training_001/BraTS20_Training_001_flair.nii\n        (and" in out


def test_list_of_scans(home, ask):
    code, out, err = ask("list", "bids", "--where", "sex=F")
    assert (code, err) == (0, [])
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0] == ["id", "subject", "T1w", "brain", "lesion", "participant_id", "age", "sex"]
    assert [line[:2] for line in lines[1:]] == [["sub-01_ses-1", "sub-01"], ["sub-01_ses-2", "sub-01"], ["sub-03_ses-1", "sub-03"]]  # fmt: skip
    assert lines[1][4:] == ["n/a", "sub-01", "30", "F"]
    told = json.loads(ask("list", "bids", "--json")[1])["scans"]
    assert [row["age"] for row in told] == ["30", "30", "40", "50", "60"]
