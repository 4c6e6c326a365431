"""`anomri corrupt`: a file goes in and comes out on its own grid, with the artefact where it belongs in the body."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anomri.cli import main, terminal
from anomri.corruptions.artefacts import ARTEFACTS
from conftest import brain_at, grid, world
from small import mask_file, scan_file


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs the verb in an empty folder; gives exit code, stdout, and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def ask(*words: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(["corrupt", *map(str, words)])
        out, err = capfd.readouterr()
        return code, out, err

    return ask


def test_the_list(ask):
    code, out, err = ask("--list")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == len(ARTEFACTS) + 1
    assert "  zipper: Zipper, mask. IterMask3D v2, section 5.1" in out
    assert "  spike: Spike, whole image." in out
    rows = json.loads(ask("--list", "--json")[1])["artefacts"]
    assert [row["name"] for row in rows] == [a.name for a in ARTEFACTS]


@pytest.mark.parametrize("codes", ["LAS", "PIR", "SAL"])
def test_the_chunk_is_gone_from_the_top_of_the_head_in_any_orientation(ask, codes):
    path = scan_file(Path("scan.nii.gz"), 1, codes=codes, oblique=0.0)
    code, out, err = ask(path, "--artefact", "chunk_top", "--out", "bad.nii.gz", "--truth", "truth.nii.gz")
    assert (code, out) == (0, "")
    before, after, truth = (nib.load(name) for name in (path, "bad.nii.gz", "truth.nii.gz"))
    for made in (after, truth):
        assert made.shape == before.shape
        np.testing.assert_allclose(made.affine, before.affine, atol=1e-4)
        assert (int(made.header["sform_code"]), int(made.header["qform_code"])) == (2, 1)
    up = world(grid(codes))[..., 2]
    x, y, where = before.get_fdata(), after.get_fdata(), truth.get_fdata() > 0
    brain = brain_at(world(grid(codes)))
    # 30 mm below the brain's highest voxel, 6 mm a voxel.
    gone = brain & (up > up[brain].max() + 3 - 30)
    assert 0.9 < where[gone].mean() <= 1
    assert not where[~gone].any()
    assert (y[where] == 0).all()
    np.testing.assert_allclose(y[~where], x[~where], atol=0.05)
    assert err == f"Missing chunk (top), severity 1: bad.nii.gz. Truth ({where.sum() * 0.165:.1f} ml): truth.nii.gz\n"


@pytest.mark.parametrize("name", [a.name for a in ARTEFACTS])
def test_every_artefact_on_a_file(ask, name):
    path = scan_file(Path("scan.nii.gz"), 1, codes="PIR")
    assert ask(path, "-a", name, "-o", "bad.nii", "--severity", 0, "--quiet") == (0, "", "")
    x = nib.load(path).get_fdata()
    np.testing.assert_allclose(nib.load("bad.nii").get_fdata(), x, atol=0.03)
    files = []
    for seed, severity in ((3, 1), (3, 1), (4, 1), (3, 2)):
        code, out, _ = ask(path, "-a", name, "-o", "bad.nii", "-s", severity, "--seed", seed, "--json")
        assert code == 0
        assert json.loads(out) == {
            "artefact": name,
            "severity": severity,
            "seed": seed,
            "out": "bad.nii",
            "truth": None,
        }
        files.append(Path("bad.nii").read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[3]
    y = nib.load("bad.nii").get_fdata()
    assert np.abs(y - x).max() > 50
    brain = brain_at(world(grid("PIR", oblique=12.0)))
    # Stripped before, and stripped after; only tissue that is left on lies outside.
    assert (y[~brain] != 0).any() == (name == "residual_tissue")


def test_a_scan_with_its_skull_needs_a_mask_where_the_brain_says_where(ask, write):
    x = np.random.default_rng(0).normal(500, 60, grid("LAS", oblique=12.0).shape).astype(np.float32)
    path, mask = write("head.nii.gz", x, grid("LAS", oblique=12.0).affine), mask_file(Path("mask.nii.gz"))
    code, _, err = ask(path, "-a", "susceptibility", "-o", "bad.nii.gz")
    assert (code, err.count("\n")) == (terminal.BAD_CALL, 1)
    assert "has its skull on; give its mask with --brain" in err
    assert not Path("bad.nii.gz").exists()
    assert ask(path, "-a", "susceptibility", "-o", "bad.nii.gz", "--brain", mask)[0] == 0
    assert ask(path, "-a", "ghosting", "-o", "ghost.nii.gz")[0] == 0
    outside = nib.load(mask).get_fdata() == 0
    assert (np.abs(nib.load("ghost.nii.gz").get_fdata() - x)[outside] > 1).mean() > 0.5
    # Tissue that is left on is there already: the mask is what fails.
    told = ask(path, "-a", "residual_tissue", "-o", "left.nii.gz", "--brain", mask)[2]
    assert "The image is as it was: with its head on, only the brain mask changes" in told
    assert np.allclose(nib.load("left.nii.gz").get_fdata(), x, atol=0.1)
    assert "as it was" not in ask(path, "-a", "ring", "-s", "0", "-o", "same.nii.gz", "--brain", mask)[2]
    # An artefact that is local leaves the head elsewhere as it was.
    same = np.abs(nib.load("bad.nii.gz").get_fdata() - x) < 0.1
    assert same.mean() > 0.3


BAD = {
    "": "name a scan, an --artefact and the file --out",
    "scan.nii.gz -a spike": "name a scan, an --artefact and the file --out",
    "scan.nii.gz -a sparkle -o b.nii.gz": "unknown artefact 'sparkle'; known: bias_field",
    "scan.nii.gz -a spike -o b.nii.gz --truth t.nii.gz": "spike is everywhere in the image, so there is no --truth",
    "gone.nii.gz -a spike -o b.nii.gz": "there is no file 'gone.nii.gz'",
    "scan.nii.gz -a spike -o b.png": "'b.png' has no NIfTI ending",
    "scan.nii.gz -a ring -o b.nii.gz --truth t": "'t' has no NIfTI ending",
    "scan.nii.gz -a spike -o ./scan.nii.gz": "are not all different files",
    "scan.nii.gz -a ring -o b.nii.gz --truth b.nii.gz": "are not all different files",
    "scan.nii.gz -a spike -o b.nii.gz --brain gone.nii.gz": "there is no file 'gone.nii.gz'",
    "scan.nii.gz -a spike -o b.nii.gz --severity=-1": "severity -1 is not 0 to 100",
    "scan.nii.gz -a blur -o b.nii.gz -s 1e6": "severity 1e+06 is not 0 to 100",
    "scan.nii.gz -a spike -o b.nii.gz -s inf": "severity inf is not 0 to 100",
    "scan.nii.gz -a spike -o b.nii.gz --seed 9223372036854775808": "less than or equal to 9223372036854775807",
    ". -a spike -o b.nii.gz": "'.' is a folder, not an image",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_calls_end_in_one_line(ask, words):
    path = scan_file(Path("scan.nii.gz"), 1)
    before = path.read_bytes()
    code, out, err = ask(*words.split())
    assert (code, out, err.count("\n")) == (terminal.BAD_CALL, "", 1)
    assert err.startswith("anomri: ")
    assert BAD[words] in err
    assert path.read_bytes() == before
    assert sorted(p.name for p in Path().iterdir()) == ["scan.nii.gz"]
