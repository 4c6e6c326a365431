"""Real T1w scans shown as other sequences would show them: tissues found, curves that keep their order, brains that stay brains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st

from anomri import files
from anomri.cohort import Cohort
from anomri.cohorts import open_cohort
from anomri.cohorts.phantom import healthy, repaint, repainted
from anomri.cohorts.phantom.repaint import recoloured, tissues
from anomri.errors import BadCall, BadInput
from test_phantom import ask, refused, same

MM = 4.0


@pytest.fixture(scope="module")
def real() -> Cohort:
    """Made T1w brains in the place of real ones, in memory."""
    return Cohort([scan.with_(id=f"sub-{n}") for n, scan in enumerate(healthy(2, spacing=MM))])


def test_three_tissues_are_found_whatever_their_shares():
    rng = np.random.default_rng(0)
    for shares in ((0.2, 0.4, 0.4), (0.1, 0.5, 0.4), (0.25, 0.25, 0.5)):
        parts = [rng.normal(m, 20, int(40000 * s)) for m, s in zip((200, 500, 800), shares, strict=True)]
        np.testing.assert_allclose(tissues(np.concatenate([*parts, [5000.0]])), (200, 500, 800), atol=15)


@pytest.mark.parametrize("values", [np.zeros(100), np.array([]).reshape(-1), np.array([1.0, 2.0])])
def test_what_has_no_three_tissues_is_told(values):
    with pytest.raises(BadInput, match="scan 'x': no three tissues can be told apart in its brain"):
        tissues(values, "x")


@given(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3))
def test_knots_go_where_they_are_told_and_straight_in_between(onto):
    knots = (-1.5, 0.25, 1.0)
    x = torch.tensor([-9.0, -1.5, -0.625, 0.25, 0.625, 1.0])
    p, q, r = onto
    np.testing.assert_allclose(recoloured(x, knots, onto), [p, p, (p + q) / 2, q, (q + r) / 2, r], atol=1e-5)
    far = recoloured(torch.tensor([1.75, 100.0]), knots, onto)
    assert float(far[0]) == pytest.approx(max(0.0, r + 0.5 * (r - q)), abs=1e-5)
    assert (far >= 0).all()


def test_a_brain_is_shown_in_the_order_of_its_sequence(real):
    scan = real[0]
    shown = repainted(real, sequences=("T1w", "T2w", "FLAIR"), spacing=MM, seed=3)[0]
    assert shown.sequences == ("T1w", "T2w", "FLAIR")
    assert shown.grid.same(scan.grid)
    both = shown.brain & scan.brain
    assert both.sum() > 0.75 * scan.brain.sum()
    assert not shown.image[:, ~shown.brain].any()
    assert shown.image.min() >= 0
    # Anatomies are near enough to ask what is shown where fluid, grey and white matter were.
    low, middle, high = tissues(scan.image[0][scan.brain])
    x = scan.image[0]
    fluid, white = both & (x < low), both & (x > high)
    grey = both & (abs(x - middle) < 0.15 * (high - low))
    t1, t2, flair = ([float(np.median(channel[part])) for part in (fluid, grey, white)] for channel in shown.image)
    assert t1[0] < t1[1] < t1[2]
    assert t2[0] > t2[1] > t2[2]
    assert flair[0] < flair[2]
    assert flair[0] < flair[1]


def test_the_same_seed_shows_the_same_and_another_another(real):
    one, again, other = (repainted(real, sequences=("T2w",), spacing=MM, seed=s) for s in (0, 0, 1))
    assert same(one[1], again[1])
    assert not same(one[1], other[1])
    assert not same(one[0], one[1])
    assert real[0].history == one[0].history == ()


def test_what_cannot_be_repainted_is_told(real):
    with pytest.raises(BadCall, match="no scan to repaint"):
        repainted(real[:0])
    with pytest.raises(BadCall, match="scan 'a b' cannot be a phantom's name"):
        repainted(Cohort([real[0].with_(id="a b")]))
    with pytest.raises(BadCall, match="cannot be 90 mm"):
        repainted(real, spacing=90.0)
    two = real[0].with_(image=np.concatenate([real[0].image] * 2), sequences=("T1w", "T2w"))
    with pytest.raises(BadInput, match="has 2 channels; a T1w alone is repainted"):
        repaint.subject(two, ("T2w",), torch.Generator())


def test_a_scan_that_cannot_be_read_is_left_out(tmp_path, real, capsys):
    for scan in real:
        files.write_image(tmp_path / f"in/{scan.id}/anat/{scan.id}_T1w.nii.gz", scan.image[0], scan.grid)
    broken = tmp_path / "in/sub-0/anat/sub-0_T1w.nii.gz"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(typer.Exit) as ended:
        ask(tmp_path / "out", n=None, scans=tmp_path / "in", sequence="T2w", quiet=False)
    assert ended.value.exit_code == 3
    assert any(line.startswith("Left out: ") and broken.name in line for line in capsys.readouterr().err.splitlines())
    assert open_cohort(tmp_path / "out", sequence="T2w").ids == ("sub-1",)


def test_the_verb_repaints_a_folder_and_goes_on(tmp_path, real, capsys):
    for scan in real:
        files.write_image(tmp_path / f"in/{scan.id}/anat/{scan.id}_T1w.nii.gz", scan.image[0], scan.grid)
    files.write_json(tmp_path / "in/dataset_description.json", {"Name": "x", "BIDSVersion": "1.10.0"})
    ask(tmp_path / "out", n=1, scans=tmp_path / "in", sequence="T2w,FLAIR")
    ask(tmp_path / "all", n=None, scans=tmp_path / "in", sequence="T2w,FLAIR")
    assert open_cohort(tmp_path / "out", sequence="FLAIR").ids == ("sub-0",)
    about = files.read_json(tmp_path / "all/dataset_description.json")
    assert about["Name"] == "Phantoms: real scans, repainted"
    whole = open_cohort(tmp_path / "all", sequence="T2w,FLAIR")
    assert whole.ids == ("sub-0", "sub-1")
    wanted = repainted(open_cohort(tmp_path / "in"), sequences=("T2w", "FLAIR"), spacing=MM)[1]
    np.testing.assert_allclose(whole[1].image, wanted.image, atol=wanted.image.max() / 30000)
    np.testing.assert_array_equal(whole[1].brain, wanted.brain)
    assert "--label-maps and --varied are of subjects that are made" in refused(
        capsys, tmp_path / "no", scans=tmp_path / "in", varied=True
    )
