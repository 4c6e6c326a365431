"""Masks of squares: the quick union against a slow one, places against the density, shares. Unequal axes throughout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from anomri.corruptions import squares
from anomri.corruptions.squares import SIDES, SPREADS, Spread, square_mask
from anomri.errors import BadCall, BadInput
from helpers import ellipsoid

SHAPE = (112, 128)
BRAIN = torch.tensor(ellipsoid(SHAPE, (43.0, 54.0), (1.0, -2.0)))
FAR = 4.0
"""Standard errors that a mean may lie off; seeds are fixed."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- promises ------------------------------------------------------------------------------------------------------


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 50)),
    st.floats(0.0, 1.0),
    st.integers(0, 10**6),
)
def test_inside_the_brain_and_never_empty(shape, filled, seed):
    brain = torch.rand(*shape, generator=seeded(seed)) < filled
    brain[shape[0] // 2, shape[1] // 3] = True
    before = brain.clone()
    mask = square_mask(brain, seeded(seed + 1))
    assert mask.dtype == torch.bool
    assert mask.shape == brain.shape
    assert mask.any()
    assert not (mask & ~brain).any()
    assert torch.equal(brain, before)


def test_a_brain_of_one_pixel_is_masked_even_if_all_squares_miss_it(monkeypatch):
    brain = torch.zeros(64, 80, dtype=torch.bool)
    brain[63, 0] = True
    assert torch.equal(square_mask(brain, seeded()), brain)
    monkeypatch.setattr(squares, "_places", lambda shape, centre, covariance, n, rng: np.full((n, 2), 20))
    assert torch.equal(square_mask(brain, seeded()), brain)


def test_a_seed_says_all():
    first = square_mask(BRAIN, seeded(3))
    torch.manual_seed(8)
    np.random.seed(8)  # noqa: NPY002
    assert torch.equal(first, square_mask(BRAIN, seeded(3)))
    assert not torch.equal(first, square_mask(BRAIN, seeded(4)))


def test_wrong_calls_are_refused_in_words():
    with pytest.raises(BadInput, match="brain mask is empty"):
        square_mask(torch.zeros(5, 6, dtype=torch.bool), seeded())
    for wrong in ({"sides": (4, 8)}, {"sides": (0, 8, 16)}, {"edge": 0}, {"spreads": ()}):
        with pytest.raises(BadCall, match="mask of squares needs"):
            square_mask(BRAIN, seeded(), **wrong)
    with pytest.raises(BadCall, match="mask of squares needs"):
        square_mask(BRAIN[None], seeded())


# --- painting ------------------------------------------------------------------------------------------------------


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 15)),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(1, 9)), min_size=1, max_size=6),
)
def test_the_quick_union_is_the_slow_one(shape, drawn):
    places = np.array([[int(a * (shape[0] - 1)), int(b * (shape[1] - 1))] for a, b, _ in drawn])
    side = np.array([s for *_, s in drawn])
    expected = np.zeros(shape, dtype=bool)
    for (i, j), s in zip(places, side, strict=True):
        expected[max(0, i - s // 2) : i - s // 2 + s, max(0, j - s // 2) : j - s // 2 + s] = True
    np.testing.assert_array_equal(squares._painted(shape, places, side), expected)


def drawn_squares(
    brain: Tensor, seed: int, monkeypatch: pytest.MonkeyPatch, **arguments: object
) -> tuple[NDArray[np.int_], NDArray[np.int_], tuple[int, int], NDArray[np.float64]]:
    """Places, sides, centre and covariance of one mask."""
    seen, paint, place = {}, squares._painted, squares._places

    def painted(shape, places, side):
        seen.setdefault("places", places)
        seen.setdefault("side", side)
        return paint(shape, places, side)

    def placed(shape, centre, covariance, n, rng):
        seen["centre"], seen["covariance"] = centre, covariance
        return place(shape, centre, covariance, n, rng)

    with monkeypatch.context() as patch:
        patch.setattr(squares, "_painted", painted)
        patch.setattr(squares, "_places", placed)
        square_mask(brain, seeded(seed), **arguments)
    return seen["places"], seen["side"], seen["centre"], seen["covariance"]


# --- places --------------------------------------------------------------------------------------------------------


def correlated(places: NDArray[np.int_], covariance: NDArray[np.float64]) -> bool:
    """Whether places have a covariance, by whitening: what is left is the identity within four standard errors."""
    white = np.linalg.solve(np.linalg.cholesky(covariance), (places - places.mean(axis=0)).T)
    error = np.sqrt(2 / len(places))
    return bool(np.abs(np.cov(white) - np.eye(2)).max() < FAR * error)


@pytest.mark.parametrize("rho", [-0.9, -0.5, 0.0, 0.7, 0.95])
def test_row_and_column_are_drawn_together(rho):
    """Drawn apart, as in the published code, they are not correlated, and the same check fails."""
    sd = np.array([9.0, 6.0])
    covariance = np.array([[1, rho], [rho, 1]]) * np.outer(sd, sd)
    centre = (70, 50)
    places = squares._places((150, 110), centre, covariance, 4000, seeded(1))
    assert np.abs((places.mean(axis=0) - centre) / sd).max() < FAR / np.sqrt(4000)
    assert float(np.corrcoef(places.T)[0, 1]) == pytest.approx(rho, abs=0.06)
    assert correlated(places, covariance)
    apart = places.copy()
    np.random.default_rng(0).shuffle(apart[:, 1])
    assert correlated(apart, covariance) == (rho == 0.0)


def test_places_have_the_densitys_probabilities():
    """Pixel by pixel, cut by the border: `p(x, y) / sum p` over the slice."""
    shape, centre = (9, 12), (2, 9)
    covariance = np.array([[6.0, -4.0], [-4.0, 8.0]])
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    p = stats.multivariate_normal(centre, covariance).pdf(at)
    n = 200_000
    places = squares._places(shape, centre, covariance, n, seeded(2))
    count = np.zeros(shape)
    np.add.at(count, tuple(places.T), 1)
    expected = n * p / p.sum()
    often = expected > 5
    observed = [*count[often], count[~often].sum()]
    assert stats.chisquare(observed, [*expected[often], expected[~often].sum()]).pvalue > 1e-3


def test_the_narrowest_line_stays_on_the_grid():
    covariance = np.array([[1.0, 0.99], [0.99, 1.0]]) * 0.3 * 2.5**2 / 64
    for centre in ((0, 0), (6, 4)):
        places = squares._places((7, 5), centre, covariance, 500, seeded())
        assert places.min() >= 0
        assert (places < (7, 5)).all()


# --- the law of masks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [SPREADS[0], SPREADS[-1]], ids=["wide", "narrow"])
def test_sides_and_numbers_are_the_published_ones(spread, monkeypatch):
    counts, variances, correlations = [], [], []
    for seed in range(200):
        _, side, centre, covariance = drawn_squares(BRAIN, seed, monkeypatch, spreads=(spread,))
        assert BRAIN[centre]
        assert set(side.tolist()) == set(SIDES)
        counts.append([int((side == s).sum()) for s in SIDES])
        c11, c22 = np.diag(covariance) / spread.unit**2
        variances += [c11, c22]
        correlations.append(covariance[0, 1] / spread.unit**2 / np.sqrt(c11 * c22))
        limits = np.sqrt(c11 * c22) * np.array([spread.least, spread.most])
        assert max(1, limits[0] - 0.5) <= counts[-1][0] <= max(1, limits[1] + 0.5)
    _, medium, large = zip(*counts, strict=True)
    assert set(medium) == set(range(5, 10))
    assert set(large) == set(range(3, 10))
    assert stats.kstest(variances, stats.uniform(0.3, 9.7).cdf).pvalue > 1e-3
    assert stats.kstest(correlations, stats.uniform(-0.99, 1.98).cdf).pvalue > 1e-3
    if spread.unit == 10:
        assert 500 < np.sum(counts, axis=1).mean() < 1000, "the paper: around 1000"


def test_spreads_are_drawn_uniformly_and_wide_is_there_twice(monkeypatch):
    assert [s.unit for s in SPREADS] == [10, 10, 2.5]
    spreads = [Spread(unit, 1.0, 1.0) for unit in (0.1, 1.0, 10.0)]
    found = []
    for seed in range(300):
        covariance = drawn_squares(BRAIN, seed, monkeypatch, spreads=spreads)[3]
        found.append(next(n for n, s in enumerate(spreads) if np.diag(covariance).max() <= 10.001 * s.unit**2))
    # The widest's variances may look like a narrower one's, one time in a thousand.
    assert stats.chisquare(np.bincount(found)).pvalue > 1e-3


def test_every_pixel_of_the_brain_is_as_likely_a_centre(monkeypatch):
    brain = torch.rand(5, 7, generator=seeded()) < 0.4
    inside = brain.nonzero().tolist()
    centres = [list(drawn_squares(brain, seed, monkeypatch)[2]) for seed in range(80 * len(inside))]
    assert stats.chisquare([centres.count(at) for at in inside]).pvalue > 1e-3


def shares(brain: Tensor, n: int = 300, **arguments: object) -> NDArray[np.float64]:
    rng = seeded(0)
    return np.array([float(square_mask(brain, rng, **arguments).sum() / brain.sum()) for _ in range(n)])


def test_covered_shares():
    """Golden: of all masks, of wide ones, of narrow ones; never the whole brain."""
    drawn = shares(BRAIN)
    assert drawn.min() > 0.01
    assert drawn.max() < 0.9
    np.testing.assert_allclose(np.quantile(drawn, [0.05, 0.5, 0.95]), [0.06, 0.26, 0.62], atol=0.04)
    wide, narrow = shares(BRAIN, 150, spreads=SPREADS[:1]), shares(BRAIN, 150, spreads=SPREADS[2:])
    assert np.median(wide) > 3 * np.median(narrow)


@pytest.mark.parametrize("times", [2, 3])
def test_on_a_larger_slice_masks_are_larger_alike(times):
    """Sides, spread and covered share go with the edge; with `edge` of the slice itself, they are in pixels."""
    large = torch.tensor(ellipsoid(tuple(n * times for n in SHAPE), (43.0 * times, 54.0 * times), (1.0, -2.0)))
    assert shares(large, 100).mean() == pytest.approx(shares(BRAIN, 100).mean(), abs=0.06)
    in_pixels = shares(large, 100, edge=128 * times).mean()
    assert in_pixels < 0.6 * shares(BRAIN, 100).mean()


def test_sides_are_scaled_and_at_least_one_pixel(monkeypatch):
    assert set(drawn_squares(torch.ones(64, 40, dtype=torch.bool), 0, monkeypatch)[1].tolist()) == {2, 4, 8}
    assert set(drawn_squares(torch.ones(9, 12, dtype=torch.bool), 0, monkeypatch)[1].tolist()) == {1, 2}
    own = drawn_squares(torch.ones(64, 40, dtype=torch.bool), 0, monkeypatch, sides=(3, 5, 7), edge=64)
    assert set(own[1].tolist()) == {3, 5, 7}


def test_another_spread(monkeypatch):
    _, side, _, covariance = drawn_squares(BRAIN, 1, monkeypatch, spreads=(Spread(1.0, 1.0, 1.0),))
    assert np.diag(covariance).max() <= 10
    assert int((side == 4).sum()) <= 10
