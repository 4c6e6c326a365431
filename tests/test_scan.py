"""Scan, Grid and the errors that they give."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from anomri.cohort import Entry
from anomri.errors import AnomriError, BadCall, BadInput, NotFitted, unknown
from anomri.scan import Detection, Divided, Finding, Grid, Moved, Scaled, Scan
from conftest import grid, phantom

AFFINE = np.diag([2.0, 2.5, 3.0, 1.0])


def test_scan_fills_in_what_it_is_not_told() -> None:
    scan = Scan(np.ones((3, 4, 5)), AFFINE)
    assert scan.image.shape == (1, 3, 4, 5)
    assert scan.image.dtype == np.float32
    assert scan.brain.all()
    assert not scan.stripped
    assert scan.spacing == (2.0, 2.5, 3.0)
    assert scan.voxel_ml == pytest.approx(0.015)
    assert scan.native.same(scan.grid)
    assert "3 x 4 x 5 at 2 x 2.5 x 3 mm" in repr(scan)
    assert len(repr(scan)) < 100


def test_scan_is_read_only_and_does_not_freeze_what_it_was_given() -> None:
    given = np.ones((1, 3, 4, 5), dtype=np.float32)
    scan = Scan(given, AFFINE)
    for part in (scan.image, scan.brain, scan.affine):
        with pytest.raises(ValueError, match="read-only"):
            part[...] = 0
    given[0, 0, 0, 0] = 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"image": np.ones((4, 5))}, "2 axes"),
        ({"image": np.ones((2, 3, 4, 5))}, "2 channels, but sequences name 1: T1w"),
        ({"image": np.full((3, 4, 5), np.nan)}, "60 of 60 voxels are NaN"),
        ({"image": np.full((3, 4, 5), 1e300)}, "NaN or infinite"),
        (
            {"image": np.ones((3, 4, 5)), "brain": np.ones((3, 5, 4))},
            r"brain has grid \(3, 5, 4\), image has \(3, 4, 5\)",
        ),
        ({"image": np.ones((3, 4, 5)), "lesion": np.ones((4, 3, 5))}, r"lesion has grid \(4, 3, 5\)"),
    ],
)
def test_scan_refuses_parts_that_do_not_fit(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said) as error:
        Scan(affine=AFFINE, id="sub-07", **arguments)  # type: ignore[arg-type]
    assert "sub-07" in str(error.value)
    assert "\n" not in str(error.value)


def test_spacing_is_that_of_an_oblique_grid() -> None:
    assert np.allclose(grid("PIR", oblique=25, spacing=(1.0, 2.0, 3.0)).spacing, (2.0, 3.0, 1.0))
    assert grid("LAS", oblique=40).voxel_ml == pytest.approx(5 * 5.5 * 6 / 1000)


def test_same_grid_forgives_rounding_only() -> None:
    one = grid("LAS", oblique=10)
    near, far, turned = one.affine.copy(), one.affine.copy(), one.affine.copy()
    near[0, 3] += 0.2
    far[0, 3] += 0.3
    turned[:3, :3] *= 1.002
    assert one.same(Grid(one.shape, near))
    assert not one.same(Grid(one.shape, far)), "a shift"
    assert not one.same(Grid(one.shape, turned)), "a scale that shows at the far corner only"
    assert not one.same(Grid((34, 38, 31), one.affine))
    assert one.apart(Grid(one.shape, far)) == pytest.approx(0.3)


def test_native_is_the_first_grid() -> None:
    scan, first = phantom(grid()), grid("LPS")
    moved = scan.with_(history=(Scaled((1.0,), (0.0,)), Moved(first), Moved(grid("PIR"))))
    assert moved.native is first


def test_what_holds_facts_can_go_to_another_process() -> None:
    scan = phantom(grid())
    volume = scan.image[0]
    detection = Detection(scan, volume, {"own": 2.0, "mean_error": 1.0})
    for thing in (scan, Entry("a", {"T1w": "a.nii"}), Finding(volume), detection, Divided(scan.image)):
        pickle.loads(pickle.dumps(thing))
    assert detection.score == 2.0


def test_errors_are_of_one_kind_and_list_what_is_known() -> None:
    assert all(issubclass(kind, AnomriError) for kind in (BadInput, BadCall, NotFitted))
    assert str(unknown("preset", "x", {"b": 1, "a": 2})) == "unknown preset 'x'; known: a, b"
