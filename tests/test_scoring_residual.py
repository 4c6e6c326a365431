"""Residual maps, put together from SciPy's filters and dense inverses."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anomri.errors import BadCall, BadInput
from anomri.scoring.residual import SCORES, check_score, reconstructions, residual
from anomri.scoring.ssim import ENSEMBLE, radius, ssim_ensemble, ssim_map
from helpers import ellipsoid

SHAPE = (13, 16, 11)
BRAIN = ellipsoid(SHAPE, (5.2, 6.8, 4.4))


def drawn(channels: int = 1, n: int = 4, seed: int = 0, z: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A scan in [0, 1], or z-scored, and its reconstructions, 0 outside the brain."""
    rng = np.random.default_rng(seed)
    base = rng.random((channels, *SHAPE))
    x = base + 0.15 * rng.normal(size=base.shape)
    healthy = base + 0.05 * rng.normal(size=(n, *base.shape))
    if z:
        x, healthy = 4 * x - 2, 4 * healthy - 2
    else:
        x, healthy = np.abs(x), np.abs(healthy)
    return (x * BRAIN).astype(np.float32), (healthy * BRAIN).astype(np.float32)


def plain_ssim(x: np.ndarray, y: np.ndarray, sigma: float, span: float) -> np.ndarray:
    """Of the whole grid, five Gaussian filters."""

    def mean(image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image.astype(float), sigma, truncate=3.5, mode="mirror")

    x, y = x.astype(float), y.astype(float)
    mx, my = mean(x), mean(y)
    sxx, syy, sxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return (2 * mx * my + c1) * (2 * sxy + c2) / ((mx**2 + my**2 + c1) * (sxx + syy + c2))


def span_of(x: np.ndarray, mean: np.ndarray) -> float:
    return max(np.ptp(x[BRAIN]), np.ptp(mean[BRAIN]))


def plain_ensemble(x: np.ndarray, y: np.ndarray, span: float) -> np.ndarray:
    maps = np.stack([plain_ssim(x, y, sigma, span) for sigma in (0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7)])
    weights = np.exp(-maps) / np.exp(-maps).sum(axis=0)
    return 1 - (weights * maps).sum(axis=0)


def dense(d: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    return np.sqrt((d * (np.linalg.inv(covariance + 1e-5 * np.eye(len(d))) @ d)).clip(0))


def plain_mahalanobis(score: str, x: np.ndarray, healthy: np.ndarray, slicewise: bool) -> np.ndarray:
    """One channel: the covariance made and inverted, min-max, Gaussian filter, times 1 - SSIM."""
    x, healthy = x[0].astype(float), healthy[:, 0].astype(float)
    mean, distance = healthy.mean(axis=0), np.zeros(SHAPE)
    parts = [BRAIN & (np.arange(SHAPE[2]) == k) for k in range(SHAPE[2])] if slicewise else [BRAIN]
    for part in parts:
        if part.any():
            covariance = np.atleast_2d(np.cov(healthy[:, part].T))
            if score == "mhd_diag":
                covariance = np.diag(np.diag(covariance))
            distance[part] = dense((x - mean)[part], covariance)
    inside = distance[BRAIN]
    weight = np.where(BRAIN, (distance - inside.min()) / np.ptp(inside), 0)
    unlike = 1 - plain_ssim(x, mean, 1.0, span_of(x, mean))
    return np.where(BRAIN, ndimage.gaussian_filter(weight, 1.0) * unlike, 0)


def test_golden_values_of_l1_and_l2():
    x = np.array([3.0, -1.0, 2.0], np.float32).reshape(1, 3, 1, 1)
    healthy = np.array([[1.0, 0.0, 0.0], [3.0, 1.0, 0.0]], np.float32).reshape(2, 1, 3, 1, 1)
    brain = np.array([True, True, False]).reshape(3, 1, 1)
    for score, sign, expected in (
        ("l1", "both", [1, 1.5, 0]),
        ("l1", "positive", [1, 0, 0]),
        ("l1", "negative", [0, 1.5, 0]),
        ("l2", "both", [1, 2.25, 0]),
        ("l2", "positive", [1, 0, 0]),
        ("l2", "negative", [0, 2.25, 0]),
    ):
        np.testing.assert_array_equal(residual(score, x, healthy, brain, sign=sign).ravel(), expected)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from(["l1", "l2"]), st.integers(0, 99))
def test_both_signs_together_are_the_whole(channels, n, score, seed):
    x, healthy = drawn(channels, n, seed)
    one, other, both = (residual(score, x, healthy, BRAIN, sign=sign) for sign in ("positive", "negative", "both"))
    np.testing.assert_allclose(one + other, both, rtol=1e-5)
    d = x - healthy.mean(axis=0)
    np.testing.assert_allclose(both, (np.abs(d) if score == "l1" else d**2).mean(axis=0) * BRAIN, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.7])
def test_ssim_is_that_of_the_whole_grid_with_a_background_of_0(sigma):
    x, healthy = drawn()
    mean = healthy.mean(axis=0)[0]
    expected = 1 - plain_ssim(x[0], mean, sigma, span_of(x[0], mean))
    np.testing.assert_allclose(
        residual("ssim", x, healthy, BRAIN, sigma=sigma), np.where(BRAIN, expected, 0), atol=1e-4
    )


def test_the_ensemble_is_the_softmax_of_eight_windows():
    x, healthy = drawn()
    mean = healthy.mean(axis=0)[0]
    expected = np.where(BRAIN, plain_ensemble(x[0], mean, span_of(x[0], mean)), 0)
    np.testing.assert_allclose(residual("ssim_ens", x, healthy, BRAIN), expected, atol=1e-4)
    np.testing.assert_array_equal(
        residual("ssim_ens", x, healthy, BRAIN, sigma=3.0), residual("ssim_ens", x, healthy, BRAIN)
    )


@pytest.mark.parametrize("score", ["mhd_diag", "mhd_full"])
@pytest.mark.parametrize("slicewise", [False, True])
def test_mahalanobis_is_the_dense_one(score, slicewise):
    x, healthy = drawn(n=6)
    found = residual(score, x, healthy, BRAIN, slicewise=slicewise)
    np.testing.assert_allclose(found, plain_mahalanobis(score, x, healthy, slicewise), atol=2e-4)


def test_slices_matter_to_the_full_covariance_alone():
    x, healthy = drawn(n=6)
    for score in SCORES:
        whole, apart = (residual(score, x, healthy, BRAIN, slicewise=s) for s in (False, True))
        assert np.array_equal(whole, apart) == (score != "mhd_full")


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("z", [False, True])
def test_what_every_score_must_obey(score, z):
    x, healthy = drawn(2, 5, z=z)
    before = x.copy(), healthy.copy(), BRAIN.copy()
    found = residual(score, x, healthy, BRAIN)
    for now, then in zip((x, healthy, BRAIN), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert found.shape == SHAPE
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert not found[~BRAIN].any()
    assert found[BRAIN].std() > 0
    np.testing.assert_array_equal(residual(score, x, healthy, BRAIN), found)
    np.testing.assert_allclose(residual(score, x, healthy[::-1], BRAIN), found, atol=1e-4)
    # What lies outside the brain is never looked at.
    far = np.where(BRAIN, 0, np.nan).astype(np.float32)
    np.testing.assert_array_equal(residual(score, x + far, healthy + far, BRAIN), found)
    # Mirrored brains have mirrored maps.
    flipped = residual(score, x[:, ::-1], healthy[:, :, ::-1], BRAIN[::-1])[::-1]
    np.testing.assert_allclose(flipped, found, atol=1e-4)


@pytest.mark.parametrize("score", SCORES)
def test_a_planted_lesion_scores_higher(score):
    x, healthy = drawn(n=8, z=True)
    ball = ellipsoid(SHAPE, (2, 2, 2), (1, -2, 0))
    x = np.where(ball, x + 3, healthy.mean(axis=0) + 0.1 * x).astype(np.float32) * BRAIN
    found = residual(score, x, healthy, BRAIN)
    assert found[ball].mean() > 2 * found[BRAIN & ~ball].mean()


@pytest.mark.parametrize("score", SCORES)
def test_nothing_differs_from_itself(score):
    x, _ = drawn()
    found = residual(score, x, np.stack([x, x]), BRAIN)
    np.testing.assert_allclose(found, 0, atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(("value", "other"), [(1.0, 1.0), (2.0, 0.5), (-1.0, 1.0), (0.0, 0.0)])
def test_flat_images_give_no_nan(score, value, other):
    x = np.full((1, *SHAPE), value, np.float32)
    found = residual(score, x, np.full((3, 1, *SHAPE), other, np.float32), BRAIN)
    assert np.isfinite(found).all()
    assert (found.max() > 1e-3) == (value != other)


@pytest.mark.parametrize("score", SCORES)
def test_a_brain_of_one_voxel_and_of_none(score):
    x, healthy = drawn()
    brain = np.zeros(SHAPE, bool)
    assert not residual(score, x, healthy, brain).any()
    brain[6, 7, 5] = True
    found = residual(score, x, healthy, brain)
    assert np.isfinite(found).all()
    assert not found[~brain].any()


@pytest.mark.parametrize("score", ["ssim", "ssim_ens"])
def test_the_zero_of_a_z_score_does_not_matter_to_ssim(score):
    """Means of opposite signs would turn SSIM over: two images near 0 differ no more than two near 5."""
    x, healthy = drawn(z=True)
    found = residual(score, x, healthy, BRAIN)
    assert found[BRAIN].max() < 1.2
    np.testing.assert_allclose(residual(score, 3 * x - 1, 3 * healthy - 1, BRAIN), found, atol=1e-4)
    raised = min(x[:, BRAIN].min(), healthy.mean(axis=0)[:, BRAIN].min())
    up = residual(score, (x - raised) * BRAIN, (healthy - raised) * BRAIN, BRAIN)
    np.testing.assert_allclose(found, up, atol=1e-4)


@pytest.mark.parametrize("score", SCORES[:4])
def test_channels_count_alike(score):
    """Each has a data range of its own; the covariance alone joins them."""
    x, healthy = drawn(2)
    x[1] *= 50
    healthy[:, 1] *= 50
    both = residual(score, x, healthy, BRAIN)
    each = [residual(score, x[c : c + 1], healthy[:, c : c + 1], BRAIN) for c in range(2)]
    np.testing.assert_allclose(both, np.mean(each, axis=0), rtol=1e-3, atol=1e-4)


def test_one_slice_is_a_volume_too():
    x, healthy = drawn(n=5)
    x, healthy, brain = x[..., 5:6], healthy[..., 5:6], BRAIN[..., 5:6]
    for score in SCORES:
        found = residual(score, x, healthy, brain, slicewise=True)
        assert found.shape == (*SHAPE[:2], 1)
        np.testing.assert_allclose(found, residual(score, x, healthy, brain), atol=1e-5)


def test_the_ensemble_leans_to_what_is_least_alike():
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(2, 19, 9, 7, generator=rng, dtype=torch.float64)
    y = x + 0.3 * torch.randn(x.shape, generator=rng, dtype=torch.float64)
    maps = torch.stack([ssim_map(x, y, data_range=1.0, sigma=s) for s in ENSEMBLE])
    found = ssim_ensemble(x, y, data_range=1.0)
    torch.testing.assert_close(found, ((-maps).softmax(0) * maps).sum(0))
    assert (found < maps.mean(0)).all()
    assert (found > maps.amin(0)).all()
    torch.testing.assert_close(ssim_ensemble(x, y, data_range=1.0, sigmas=[1.1]), maps[4])
    torch.testing.assert_close(
        ssim_ensemble(x, y, data_range=1.0, dims=2),
        torch.stack([torch.stack([ssim_ensemble(a, b, data_range=1.0, dims=2) for a, b in zip(c, d, strict=True)]) for c, d in zip(x, y, strict=True)]),
    )  # fmt: skip
    torch.testing.assert_close(ssim_ensemble(x.float(), y.float(), data_range=1.0).double(), found, atol=5e-5, rtol=0)
    with pytest.raises(BadCall, match="at least one sigma"):
        ssim_ensemble(x, y, data_range=1.0, sigmas=[])
    with pytest.raises(BadCall, match=r"above 0, got 1\.0, -1\.0 and 1\.0"):
        ssim_ensemble(x, y, data_range=1.0, sigmas=[1.0, -1.0])


def test_monai_agrees_with_the_ensemble_inside():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = pytest.importorskip(
            "monai.metrics.regression", reason="MONAI is an oracle here, not needed otherwise"
        )
        rng = torch.Generator().manual_seed(0)
        x = torch.rand(17, 19, 15, generator=rng)
        y = x + 0.1 * torch.randn(x.shape, generator=rng)
        reach, maps = radius(max(ENSEMBLE)), []
        for sigma in ENSEMBLE:
            width = (2 * radius(sigma) + 1,) * 3
            theirs = metrics.compute_ssim_and_cs(x[None, None], y[None, None], 3, width, (sigma,) * 3)[0][0, 0]
            cut = reach - radius(sigma)
            maps.append(theirs[tuple(slice(cut, n - cut) for n in theirs.shape)])
    theirs = torch.stack(maps)
    expected = ((-theirs).softmax(0) * theirs).sum(0)
    found = ssim_ensemble(x, y, data_range=1.0)[(slice(reach, -reach),) * 3]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_how_many_reconstructions_a_score_is_made_for():
    assert {score: reconstructions(score) for score in SCORES} == {
        **dict.fromkeys(("l1", "l2", "ssim", "ssim_ens"), 1),
        **dict.fromkeys(("mhd_diag", "mhd_full"), 10),
    }


def test_what_cannot_be_is_refused():
    x, healthy = drawn()
    known = "known: l1, l2, mhd_diag, mhd_full, ssim, ssim_ens"
    for call in (check_score, reconstructions, lambda score: residual(score, x, healthy, BRAIN)):
        with pytest.raises(BadCall, match=f"unknown score 'l3'; {known}"):
            call("l3")
    with pytest.raises(BadCall, match="unknown sign 'up'; known: both, negative, positive"):
        residual("l1", x, healthy, BRAIN, sign="up")
    with pytest.raises(BadCall, match="sign 'positive' is for l1 and l2, score is 'ssim'"):
        residual("ssim", x, healthy, BRAIN, sign="positive")
    for score in ("mhd_diag", "mhd_full"):
        with pytest.raises(BadCall, match=f"score '{score}' needs 2 reconstructions or more, got 1; make 10"):
            residual(score, x, healthy[:1], BRAIN)
    with pytest.raises(BadCall, match="got 0"):
        residual("l1", x, healthy[:0], BRAIN)
    for wrong in (
        (x[0], healthy, BRAIN),
        (x, healthy[0], BRAIN),
        (x, healthy, BRAIN[1:]),
        (x, healthy[:, :, 1:], BRAIN),
    ):
        with pytest.raises(BadCall, match=r"needs \(C, I, J, K\), \(N, C, I, J, K\) and \(I, J, K\)"):
            residual("l1", *wrong)
    for sigma in (0.0, -1.0, np.nan):
        with pytest.raises(BadCall, match="sigma is"):
            residual("ssim", x, healthy, BRAIN, sigma=sigma)
    holed = x.copy()
    holed[0, 6, 7, 5] = np.nan
    with pytest.raises(BadInput, match="the scan has 1 values NaN or infinite inside the brain"):
        residual("mhd_full", holed, healthy, BRAIN)
    with pytest.raises(BadInput, match="its reconstruction has 4 values"):
        residual("ssim", x, healthy + (holed - x), BRAIN)
