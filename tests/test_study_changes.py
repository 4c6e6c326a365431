"""What a case does to a scan: it draws by the generator, keeps the scan, and brings the truth along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomri import files
from anomri.errors import BadInput
from anomri.scan import Grid, Moved, Scan
from anomri.study import changes
from anomri.study.changes import artefact, both, lesion, mask_of_mni
from anomri.train import generator
from conftest import grid, phantom

SHIFT = np.array([12.0, -7.0, 5.0])


@pytest.fixture
def scan() -> Scan:
    return phantom(grid("RAS", oblique=5.0), id="s")


def turned(scan: Scan, change, seed: int = 0) -> Scan:
    return change(scan, generator(seed, "change"))


@pytest.mark.parametrize(
    "change",
    [artefact("ghosting"), lesion("stroke", "hyper", 20.0), both((artefact("blur"), lesion(ml=20.0)))],
    ids=repr,
)
def test_a_change_is_drawn_by_the_generator_and_leaves_the_scan_alone(scan, change):
    before = scan.image.copy()
    once, again = turned(scan, change), turned(scan, change)
    np.testing.assert_array_equal(once.image, again.image)
    np.testing.assert_array_equal(scan.image, before)
    assert not np.array_equal(once.image, scan.image)
    assert (once.id, once.grid.shape) == (scan.id, scan.grid.shape)


def test_a_lesion_has_its_volume_and_contrast(scan):
    for contrast, sign in (("hyper", 1), ("hypo", -1)):
        changed = turned(scan, lesion("stroke", contrast, 20.0))
        assert changed.lesion.sum() * scan.voxel_ml == pytest.approx(20.0, abs=scan.voxel_ml)
        assert sign * (changed.image - scan.image)[0][changed.lesion].mean() > 0
    bright, brighter = (turned(scan, lesion("stroke", "hyper", 20.0, change)) for change in (1.0, 3.0))
    np.testing.assert_array_equal(bright.lesion, brighter.lesion)
    assert (brighter.image - bright.image)[0][bright.lesion].mean() > 0


def test_an_artefact_at_no_severity_is_none(scan):
    np.testing.assert_array_equal(turned(scan, artefact("spike", 0.0)).image, scan.image)


def test_both_are_done_in_turn(scan):
    changed = turned(scan, both((lesion(ml=20.0), artefact("chunk_top"))))
    assert changed.lesion is not None
    rng = generator(0, "change")
    np.testing.assert_array_equal(changed.image, artefact("chunk_top")(lesion(ml=20.0)(scan, rng), rng).image)


@pytest.fixture
def masks(tmp_path: Path, scan: Scan, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two masks of "MNI space", which lies `SHIFT` mm away from the scan's: a ball of 5 ml and one of 40."""
    on = Grid((50, 55, 45), np.array([[4.0, 0, 0, -100], [0, 4, 0, -120], [0, 0, 4, -80], [0, 0, 0, 1]]))
    points = np.stack(np.meshgrid(*map(np.arange, on.shape), indexing="ij"), axis=-1) * 4.0 + on.affine[:3, 3]
    for name, radius in (("small", 10.6), ("large", 21.2)):
        ball = np.linalg.norm(points - (np.array([4.0, -11.0, 7.0]) - SHIFT), axis=-1) < radius
        files.write_image(tmp_path / f"{name}.nii.gz", ball.astype(np.uint8), on)
    world = np.eye(4)
    world[:3, 3] = SHIFT
    monkeypatch.setattr(changes.space, "register", lambda s: s.with_(history=(Moved(s.grid, world),)))
    monkeypatch.setenv("MASKS", str(tmp_path))
    changes._world.cache_clear()
    changes._volumes.cache_clear()
    return tmp_path


@pytest.mark.parametrize(("size", "ml"), [((3.0, 8.0), 5.0), ((30.0, 50.0), 40.0)])
def test_a_mask_of_mni_lies_where_the_registration_says(scan, masks, size, ml):
    changed = turned(scan, mask_of_mni("MASKS", size, "hypo"))
    assert changed.lesion.sum() * scan.voxel_ml == pytest.approx(ml, rel=0.25)
    where = np.argwhere(changed.lesion).mean(axis=0) @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    np.testing.assert_allclose(where, [4.0, -11.0, 7.0], atol=3.0)
    assert (changed.image - scan.image)[0][changed.lesion].mean() < 0


def test_a_brain_is_registered_once(scan, masks, monkeypatch):
    real, calls = changes.space.register, []
    monkeypatch.setattr(changes.space, "register", lambda s: calls.append(s.id) or real(s))
    for size in ((3.0, 8.0), (30.0, 50.0)):
        turned(scan, mask_of_mni("MASKS", size))
    assert calls == ["s"]


def test_masks_that_are_not_there_are_told(scan, masks, monkeypatch):
    with pytest.raises(BadInput, match=r"no lesion mask of 100 to 200 ml"):
        turned(scan, mask_of_mni("MASKS", (100.0, 200.0)))
    away = scan.with_(brain=np.zeros_like(scan.brain))
    with pytest.raises(BadInput, match=r"lesion mask 'small.nii.gz' lies outside its brain"):
        turned(away, mask_of_mni("MASKS", (3.0, 8.0)))
    monkeypatch.delenv("MASKS")
    with pytest.raises(BadInput, match=r"MASKS is not set; give --data MASKS=FOLDER"):
        turned(scan, mask_of_mni("MASKS", (3.0, 8.0)))
