"""Planted lesions: of the volume asked for, where they were asked for, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anomri.cohorts.phantom import template_with_lesion
from anomri.corruptions.lesions import blob, paste
from anomri.preprocess.space import mni152

SHAPE = (40, 46, 34)
SPACING = (2.0, 1.5, 2.5)
CENTRE = (18.0, 25.0, 15.0)


def ball(ml: float = 6.0, seed: int = 0) -> torch.Tensor:
    return blob(SHAPE, CENTRE, ml, SPACING, torch.Generator().manual_seed(seed))


@pytest.fixture
def scan() -> tuple[torch.Tensor, torch.Tensor]:
    """An image of two channels with texture, and its brain, which ends near the lesion's middle."""
    x = 100 + 10 * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    x[1] *= 3
    brain = torch.zeros(SHAPE, dtype=torch.bool)
    brain[4:36, 5:27, 3:31] = True
    return x, brain


@settings(max_examples=25, deadline=None)
@given(ml=st.floats(0.01, 20), seed=st.integers(0, 1000))
def test_a_blob_has_its_volume(ml, seed):
    voxels = max(1, round(1000 * ml / 7.5))
    assert int(ball(ml, seed).sum()) == voxels


def test_a_blob_larger_than_the_grid_fills_it():
    assert bool(ball(1e6).all())


def test_a_blob_is_one_smooth_piece_about_its_centre():
    for seed in range(8):
        lesion = ball(seed=seed).numpy()
        labels, _ = ndimage.label(lesion)
        assert np.bincount(labels.ravel())[1:].max() == lesion.sum()
        where = np.argwhere(lesion) * SPACING
        assert np.linalg.norm(where.mean(axis=0) - np.multiply(CENTRE, SPACING)) < 5
        # Extents in mm are alike: the spacing is heard.
        extent = np.ptp(where, axis=0) + SPACING
        assert extent.max() / extent.min() < 2


def test_blobs_follow_the_seed():
    assert torch.equal(ball(seed=3), ball(seed=3))
    assert not torch.equal(ball(seed=3), ball(seed=4))


def test_a_smooth_ball_without_roughness():
    lesion = blob(SHAPE, CENTRE, 6.0, SPACING, torch.Generator(), rough=0.0)
    away = np.linalg.norm((np.stack(np.indices(SHAPE), -1) - CENTRE) * SPACING, axis=-1)
    assert away[lesion.numpy()].max() <= away[~lesion.numpy()].min()


@pytest.mark.parametrize("change", [3.0, -2.0])
def test_a_lesion_has_its_intensity_in_each_channel(scan, change):
    x, brain = scan
    out, truth = paste(x, brain, ball(), change, SPACING)
    core = torch.tensor(ndimage.binary_erosion(truth.numpy(), iterations=2))
    assert core.any()
    for channel in range(2):
        values = x[channel][brain]
        assert float(out[channel][core].mean()) == pytest.approx(float(values.mean() + change * values.std()), rel=0.05)
        # A quarter of the texture is left.
        assert float(out[channel][core].std() / x[channel][core].std()) == pytest.approx(0.25, rel=0.15)


def test_nothing_else_is_touched(scan):
    x, brain = scan
    before = x.clone()
    lesion = ball()
    out, truth = paste(x, brain, lesion, 3.0, SPACING, edge_mm=2.0)
    assert torch.equal(x, before)
    assert torch.equal(truth, lesion & brain)
    assert 0 < int(truth.sum()) < int(lesion.sum())
    assert torch.equal(out[:, ~brain], x[:, ~brain])
    far = torch.tensor(ndimage.distance_transform_edt(~truth.numpy(), sampling=SPACING) > 8)
    assert torch.equal(out[:, far], x[:, far])


def test_the_edge_fades(scan):
    _, brain = scan
    flat = torch.full((1, *SHAPE), 100.0)
    flat[0, ::2] = 101.0
    out, truth = paste(flat, brain, ball(), 50.0, SPACING, edge_mm=6.0)
    gain = (out - flat)[0] / (out - flat).max()
    inside = ndimage.distance_transform_edt(truth.numpy(), sampling=SPACING)
    outside = ndimage.distance_transform_edt(~truth.numpy(), sampling=SPACING)
    rim_in, rim_out = (inside > 0) & (inside < 2.1), (outside > 0) & (outside < 2.1) & brain.numpy()
    core = inside > 5
    assert float(gain[core].mean()) > 0.9
    assert 0.45 < float(gain[rim_in].mean()) < 0.9
    assert 0.05 < float(gain[rim_out].mean()) < 0.55
    # The truth is where the lesion prevails.
    assert float(gain[truth].min()) > 0.45


def test_no_lesion_and_a_lesion_outside(scan):
    x, brain = scan
    for lesion in (torch.zeros(SHAPE, dtype=torch.bool), ~brain):
        out, truth = paste(x, brain, lesion, 3.0, SPACING)
        assert torch.equal(out, x)
        assert not truth.any()


def test_the_template_with_a_lesion():
    scan, healthy = template_with_lesion(), mni152()
    assert scan.lesion is not None
    assert scan.lesion.sum() * scan.voxel_ml == pytest.approx(12.0, abs=0.01)
    assert not (scan.lesion & ~scan.brain).any()
    np.testing.assert_array_equal(scan.image[0][~scan.brain], healthy.image[0][~scan.brain])
    centre = scan.affine @ [*np.argwhere(scan.lesion).mean(axis=0), 1]
    np.testing.assert_allclose(centre[:3], (26, 34, 22), atol=4)
    values = healthy.image[0][healthy.brain]
    core = ndimage.binary_erosion(scan.lesion, iterations=3)
    assert scan.image[0][core].mean() == pytest.approx(values.mean() + 2.5 * values.std(), rel=0.1)
    assert (template_with_lesion(seed=1).lesion != scan.lesion).any()
