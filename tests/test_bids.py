"""What a run writes is BIDS: the validator's word, without a network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anomri import preprocess, run
from anomri.cohort import Cohort, Entry
from anomri.methods import load
from anomri.report import case
from anomri.report import cohort as cohort_page
from small import MM, fitted, mask_file, scan_file

BESIDE = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
VALIDATOR = BESIDE or shutil.which("bids-validator-deno")
pytestmark = pytest.mark.skipif(
    VALIDATOR is None, reason="bids-validator-deno is not installed (pip install -e '.[dev]')"
)


def issues(folder: Path) -> list[dict[str, Any]]:
    """What the validator says against a folder."""
    assert VALIDATOR is not None
    ran = subprocess.run([VALIDATOR, "--format", "json", str(folder)], capture_output=True, text=True, timeout=120)
    assert ran.stdout, ran.stderr
    found = json.loads(ran.stdout)["issues"]["issues"]
    return [i for i in found if i["severity"] == "error"]


def told(found: list[dict[str, Any]]) -> str:
    return "\n".join(f"{i['code']}: {i.get('location')}" for i in found)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bids")
    fitted(folder)
    return folder / "model"


def written(model: Path, entries: list[Entry], out: Path) -> list[str]:
    rows = run.detect(load(model), Cohort(entries), out, page=case.write)
    table = run.write_group(out, run.gather(out))
    cohort_page.write(run.gather(out), table.with_suffix(".html"))
    return [row["status"] for row in rows]


def test_single_files_subjects_and_sessions_and_a_failed_scan(model, tmp_path):
    image = str(scan_file(tmp_path / "x.nii.gz", 1, lesion=True))
    ids = ("scan", "sub-01", "sub-01_acq-mp2_run-1", "sub-02_ses-a", "sub-02_ses-b_run-2", "IXI012-HH-1211")
    entries = [Entry(id, {"T1w": image}) for id in ids]
    entries.append(Entry("sub-bad", {"T1w": str(tmp_path / "none.nii.gz")}))
    assert written(model, entries, tmp_path / "out") == ["done"] * len(ids) + ["failed"]
    found = issues(tmp_path / "out")
    assert not found, told(found)
    # The validator is awake: it would have said so.
    (tmp_path / "out" / "sub-01" / "figures").mkdir()
    (tmp_path / "out" / "sub-01" / "figures" / "a.svg").write_text("<svg/>")
    assert issues(tmp_path / "out")


def test_several_sequences_and_input_beside_the_results(tmp_path):
    fitted(tmp_path, ("T1w", "FLAIR"))
    out = tmp_path / "out"
    images = {s: str(scan_file(out / "sourcedata" / f"a_{s}.nii.gz", n)) for n, s in enumerate(("T1w", "FLAIR"))}
    entry = Entry("sub-01_ses-1", images, str(mask_file(out / "sourcedata" / "brain.nii.gz")))
    assert written(tmp_path / "model", [entry], out) == ["done"]
    found = issues(out)
    assert not found, told(found)


def test_preprocessed_scans(tmp_path):
    image = str(scan_file(tmp_path / "x.nii.gz", 1, lesion=True))
    lesion = str(mask_file(tmp_path / "lesion.nii.gz", "lesion"))
    entries = [
        Entry("a", {"FLAIR": image}, None, lesion),
        Entry("sub-1_ses-1", {"FLAIR": image}),
        Entry("no", {"FLAIR": "no"}),
    ]
    rows = run.prepare_scans(Cohort(entries), tmp_path / "out", preprocess.preset("itermask3d", spacing=MM + 0.5))
    assert [row["status"] for row in rows] == ["done", "done", "failed"]
    run.write_group(tmp_path / "out", rows)
    found = issues(tmp_path / "out")
    assert not found, told(found)
