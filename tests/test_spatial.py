"""Smooth fields, displacements and warps: what they are over draws, that nothing folds, and that axes and mm are heard."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates

from anomri.corruptions.contrast import bias_field, rician
from anomri.corruptions.spatial import _spline, foldless, smooth_field, warp

SHAPE = (17, 23, 13)
SPACING = (2.0, 1.5, 3.0)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def jacobian(shift: torch.Tensor, spacing: tuple[float, ...] = SPACING) -> NDArray[np.float64]:
    """The determinant of `p + shift(p)` at every voxel, forward differences."""
    matrix = np.zeros((*(n - 1 for n in shift.shape[1:]), 3, 3))
    for component in range(3):
        for axis in range(3):
            slope = np.diff(shift[component].numpy(), axis=axis) / spacing[axis]
            matrix[..., component, axis] = slope[tuple(slice(0, n - 1) for n in shift.shape[1:])]
    return np.linalg.det(matrix + np.eye(3))


# --- smooth fields -------------------------------------------------------------------------------------------------


def test_a_spline_s_rows_are_scipy_s_basis():
    basis = _spline(20, 0.37).double().numpy()
    element = BSpline.basis_element(np.arange(5.0), extrapolate=False)
    place = np.arange(20)[:, None] * 0.37
    slow = np.nan_to_num(element(place - np.arange(basis.shape[1]) + 3))
    np.testing.assert_allclose(basis, slow / np.linalg.norm(slow, axis=1, keepdims=True), atol=1e-6)


def test_a_field_has_mean_0_and_sd_1_at_every_voxel():
    fields = smooth_field(SHAPE, SPACING, 7.0, rng(), channels=3000)
    assert fields.shape == (3000, *SHAPE)
    assert float(fields.mean(dim=0).abs().max()) < 0.1
    assert float((fields.std(dim=0) - 1).abs().max()) < 0.08


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), every=st.floats(3, 60))
def test_a_field_is_the_same_on_a_finer_grid(seed, every):
    coarse = smooth_field(SHAPE, SPACING, every, rng(seed))
    fine = smooth_field([2 * n - 1 for n in SHAPE], [mm / 2 for mm in SPACING], every, rng(seed))
    torch.testing.assert_close(fine[:, ::2, ::2, ::2], coarse, atol=1e-4, rtol=1e-4)
    assert float(fine.diff(dim=1).abs().max()) < float(coarse.diff(dim=1).abs().max()) * 0.9


def test_neighbours_on_the_scale_of_the_points_are_alike_and_farther_ones_are_not():
    fields = smooth_field((61, 2, 2), (1.0, 1.0, 1.0), 10.0, rng(), channels=2000)[:, :, 0, 0]
    alike = [float(torch.corrcoef(fields[:, [5, 5 + d]].T)[0, 1]) for d in (1, 5, 40)]
    assert alike[0] > 0.97
    assert 0.4 < alike[1] < 0.95
    assert abs(alike[2]) < 0.1


# --- displacements -------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), mm=st.floats(0.1, 50), every=st.floats(5, 40))
def test_nothing_folds(seed, mm, every):
    shift = foldless(mm * smooth_field(SHAPE, SPACING, every, rng(seed), channels=3), SPACING)
    assert jacobian(shift).min() > 0
    assert float(shift.abs().max()) > 0


def test_a_mild_displacement_is_let_be_and_a_strong_one_keeps_its_direction():
    shift = smooth_field(SHAPE, SPACING, 20.0, rng(), channels=3)
    assert torch.equal(foldless(0.5 * shift, SPACING), 0.5 * shift)
    assert jacobian(100 * shift).min() < 0
    tamed = foldless(100 * shift, SPACING)
    torch.testing.assert_close(tamed, shift * float(tamed.norm() / shift.norm()))
    slope = np.sqrt(sum((np.diff(tamed.numpy(), axis=a + 1) / SPACING[a]).max() ** 2 for a in range(3)))
    assert slope <= 3 * 0.7


def test_the_steepest_voxel_sets_the_slope_in_mm():
    shift = torch.zeros(3, *SHAPE)
    shift[1, 8:] = 4.0
    # A jump of 4 mm over 2 mm becomes one of 0.5 mm a mm.
    assert float(foldless(shift, SPACING, slope=0.5)[1, 8].max()) == pytest.approx(1.0)


@pytest.mark.parametrize("nearest", [False, True])
def test_a_warp_is_scipy_s(nearest):
    x = torch.randn(2, *SHAPE, generator=rng(1))
    shift = 4.0 * smooth_field(SHAPE, SPACING, 15.0, rng(2), channels=3)
    out = warp(x, shift, SPACING, nearest=nearest)
    places = np.indices(SHAPE) + shift.numpy() / np.reshape(SPACING, (3, 1, 1, 1))
    within = ((places >= 0) & (places <= np.reshape(SHAPE, (3, 1, 1, 1)) - 1)).all(axis=0)
    sure = within & (np.abs(places % 1 - 0.5).min(axis=0) > 1e-3) if nearest else within
    assert sure.mean() > 0.5
    for channel in range(2):
        slow = map_coordinates(x[channel].numpy(), places, order=0 if nearest else 1)
        np.testing.assert_allclose(out[channel].numpy()[sure], slow[sure], atol=1e-4)


def test_no_shift_is_no_change_and_whole_voxels_move_whole():
    x = torch.randn(1, *SHAPE, generator=rng())
    still = torch.zeros(3, *SHAPE)
    torch.testing.assert_close(warp(x, still, SPACING), x, atol=1e-4, rtol=0)
    still[2] = 2 * SPACING[2]
    torch.testing.assert_close(warp(x, still, SPACING)[..., :-2], x[..., 2:], atol=1e-4, rtol=0)
    assert not warp(x, still, SPACING)[..., -1].any()


# --- what a scanner adds -------------------------------------------------------------------------------------------


def test_a_bias_field_is_smooth_positive_and_about_1():
    field = bias_field((40, 50, 30), (4.0, 4.0, 4.0), rng(3), sd=0.2)
    assert field.shape == (40, 50, 30)
    assert 0.3 < float(field.min()) < float(field.max()) < 3
    assert float(field.log().std()) == pytest.approx(0.2, abs=0.12)
    assert float(field.diff(dim=0).abs().max()) < 0.08


def test_rician_noise_has_the_moments_of_its_distribution():
    for level in (0.0, 1.0, 4.0):
        noisy = rician(torch.full((200_000,), level), 0.5, rng())
        assert float(noisy.min()) >= 0
        assert float(noisy.square().mean()) == pytest.approx(level**2 + 2 * 0.25, rel=0.02)
    # Of nothing but noise: a Rayleigh distribution.
    assert float(rician(torch.zeros(200_000), 0.5, rng()).mean()) == pytest.approx(0.5 * np.sqrt(np.pi / 2), rel=0.01)
