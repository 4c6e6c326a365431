"""The Mahalanobis distance, against the dense inverse of NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anomri.errors import BadCall
from anomri.scoring import mahalanobis
from anomri.scoring.mahalanobis import EPS, as_weight, contributions, diagonal, full
from helpers import ellipsoid


def drawn(p: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A scan's values and reconstructions that vary together."""
    rng = np.random.default_rng(seed)
    base, ways = rng.random(p), rng.normal(size=(3, p))
    healthy = base + 0.05 * rng.normal(size=(n, 3)) @ ways + 0.02 * rng.normal(size=(n, p))
    return base + 0.2 * rng.normal(size=p), healthy


def dense(x: np.ndarray, healthy: np.ndarray, eps: float) -> np.ndarray:
    """The definition: the covariance made and inverted."""
    d = x - healthy.mean(axis=0)
    return d * (np.linalg.inv(np.atleast_2d(np.cov(healthy.T)) + eps * np.eye(len(x))) @ d)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(2, 12), st.sampled_from([1e-5, 1e-2, 1.0]), st.integers(0, 999))
def test_it_is_the_dense_inverse(p, n, eps, seed):
    """More voxels than reconstructions, and fewer."""
    x, healthy = drawn(p, n, seed)
    found, expected = contributions(x, healthy, eps), dense(x, healthy, eps)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(full(x, healthy, eps), np.sqrt(expected.clip(0)), atol=1e-4 * np.sqrt(found.max()))
    variance = healthy.var(axis=0, ddof=1)
    np.testing.assert_allclose(
        diagonal(x, healthy, eps), np.abs(x - healthy.mean(axis=0)) / np.sqrt(variance + eps), rtol=1e-9
    )


def test_golden_values():
    """By hand: mu = (1, 2), S = [[1, 1], [1, 4]], d = (2, -1), S^-1 d = (3, -1); no eps to speak of."""
    healthy = np.array([[0.0, 2.0], [2.0, 4.0], [1.0, 0.0]])
    np.testing.assert_allclose(np.cov(healthy.T), [[1, 1], [1, 4]])
    x = np.array([3.0, 1.0])
    np.testing.assert_allclose(contributions(x, healthy, 1e-7), [6, 1], rtol=1e-6)
    np.testing.assert_allclose(full(x, healthy, 1e-7), [np.sqrt(6), 1], rtol=1e-6)
    np.testing.assert_allclose(diagonal(x, healthy, 1e-7), [2, 0.5], rtol=1e-6)
    # Differing together, as the reconstructions do, is less abnormal than differing apart.
    np.testing.assert_allclose(contributions(np.array([2.0, 4.0]), healthy, 1e-7), [2 / 3, 2 / 3], rtol=1e-6)


def test_a_negative_term_counts_as_0_and_never_as_nan():
    """d = (1, 8) with S = [[1, 1], [1, 4]]: S^-1 d = (-4, 7) / 3."""
    healthy = np.array([[0.0, 2.0], [2.0, 4.0], [1.0, 0.0]])
    x = np.array([2.0, 10.0])
    np.testing.assert_allclose(contributions(x, healthy, 1e-7), [-4 / 3, 56 / 3], rtol=1e-6)
    np.testing.assert_allclose(full(x, healthy, 1e-7), [0, np.sqrt(56 / 3)], rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(2, 9), st.integers(0, 999))
def test_what_a_distance_must_obey(p, n, seed):
    x, healthy = drawn(p, n, seed)
    terms = contributions(x, healthy)
    assert terms.sum() >= 0
    scale = np.abs(terms).max() * 1e-7
    order = np.random.default_rng(seed).permutation(p)
    np.testing.assert_allclose(contributions(x[order], healthy[::-1, order]), terms[order], atol=scale)
    np.testing.assert_allclose(contributions(x + 3, healthy + 3), terms, atol=scale)
    np.testing.assert_allclose(contributions(7 * x, 7 * healthy, 49 * EPS), terms, atol=scale)
    np.testing.assert_allclose(full(healthy.mean(axis=0), healthy), 0, atol=1e-9)
    np.testing.assert_allclose(diagonal(healthy.mean(axis=0), healthy), 0, atol=1e-9)


def test_one_voxel_has_no_other_to_vary_with():
    x, healthy = drawn(1, 10)
    np.testing.assert_allclose(full(x, healthy), diagonal(x, healthy))


def test_voxels_in_chunks_are_the_same(monkeypatch):
    x, healthy = drawn(50, 6)
    whole = contributions(x, healthy), diagonal(x, healthy)
    monkeypatch.setattr(mahalanobis, "CHUNK", 7)
    np.testing.assert_allclose(contributions(x, healthy), whole[0], rtol=1e-9)
    np.testing.assert_allclose(diagonal(x, healthy), whole[1])


def test_single_precision_is_taken_and_calculated_in_double():
    x, healthy = (values.astype(np.float32) for values in drawn(40, 10))
    found = contributions(x, healthy)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, contributions(x.astype(float), healthy.astype(float)))


def test_reconstructions_that_are_all_the_same():
    x, healthy = drawn(30, 1)
    healthy = np.repeat(healthy, 10, axis=0)
    expected = (x - healthy[0]) ** 2 / EPS
    np.testing.assert_allclose(contributions(x, healthy), expected, rtol=1e-7)
    np.testing.assert_allclose(diagonal(x, healthy), np.sqrt(expected), rtol=1e-7)


def test_intensities_of_thousands_stay_finite():
    """Variances 12 orders of magnitude above eps: the system is singular but for eps."""
    x, healthy = drawn(5000, 10)
    found = full(4000 * x, 4000 * healthy)
    assert np.isfinite(found).all()
    assert found.any()


def test_the_voxel_that_differs_stands_out():
    x, healthy = drawn(200, 10)
    x = healthy.mean(axis=0) + 0.01
    x[57] += 1
    assert full(x, healthy).argmax() == 57
    assert diagonal(x, healthy).argmax() == 57


@pytest.mark.parametrize("distance", [diagonal, full, contributions])
def test_what_cannot_be_is_refused(distance):
    x, healthy = drawn(5, 4)
    with pytest.raises(BadCall, match=r"2 reconstructions or more, got 1; make several"):
        distance(x, healthy[:1])
    with pytest.raises(BadCall, match=r"values \(4,\) from \(4, 5\)"):
        distance(x[:4], healthy)
    for eps in (0.0, -1.0, np.nan):
        with pytest.raises(BadCall, match="eps is"):
            distance(x, healthy, eps)


def test_the_weight_is_the_filter_of_the_whole_grid():
    shape = (12, 15, 9)
    brain = ellipsoid(shape, (5, 6.5, 4.6))
    distance = np.random.default_rng(0).random(shape).astype(np.float32) * 30 + 4
    low, high = distance[brain].min(), distance[brain].max()
    expected = ndimage.gaussian_filter(np.where(brain, (distance - low) / (high - low), 0), 1.0)
    found = as_weight(distance, brain)
    np.testing.assert_allclose(found, np.where(brain, expected, 0), atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(as_weight(5 * distance + 2, brain), found, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_the_weight_of_a_constant_prefers_no_voxel(value):
    shape = (12, 15, 9)
    found = as_weight(np.full(shape, value, np.float32), np.ones(shape, bool))
    np.testing.assert_allclose(found, 1, atol=1e-6)
    assert not as_weight(np.full(shape, value, np.float32), np.zeros(shape, bool)).any()
