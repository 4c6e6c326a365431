"""Random masks: the quick way against a slow one on the same draws, and their law against the plain one with SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from anomri.corruptions import masks
from anomri.corruptions.masks import CELLS_MM, gaussian_mask, random_rotation
from helpers import ellipsoid

POINTS = 100_000
FAR = 4.0
"""Standard errors that two means may lie apart: one pair of 16,000 does by chance. Seeds are fixed."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_mask(brain: Tensor, spacing: tuple[float, ...], rng: torch.Generator, points: int) -> NDArray[np.bool_]:
    """The same draws in the same order; every voxel asks whether its cell was hit."""
    cell = CELLS_MM[int(torch.randint(len(CELLS_MM), (1,), generator=rng))]
    inside = brain.nonzero()
    voxel = inside[int(torch.randint(len(inside), (1,), generator=rng))]
    size = torch.tensor([mm / cell for mm in spacing])
    centre = torch.floor((voxel + 0.5) * size) + 0.5
    sd = (0.3 + 9.7 * torch.rand(3, generator=rng)).sqrt()
    r = torch.randn(points, 3, generator=rng)
    a, b, c = (random_rotation(rng) * sd).T
    # Summed in this order, since another could round a point into the next cell.
    places = r[:, :1] * a + r[:, 1:2] * b + r[:, 2:] * c + centre
    hit = {tuple(at) for at in places.floor().int().tolist()}
    mask = np.zeros(brain.shape, dtype=bool)
    for at in inside.tolist():
        mask[tuple(at)] = tuple(((torch.tensor(at) + 0.5) * size).floor().int().tolist()) in hit
    return mask


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 11), st.integers(1, 7)),
    st.tuples(*[st.sampled_from([0.7, 1.0, 2.0, 3.3, 9.0])] * 3),
    st.floats(0.05, 1.0),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_the_quick_way_is_the_slow_one(shape, spacing, filled, turned, seed):
    brain = torch.rand(*shape, generator=seeded(seed)) < filled
    brain[tuple(n // 2 for n in shape)] = True
    brain = brain.permute(2, 0, 1) if turned else brain
    before = brain.clone()
    mask = gaussian_mask(brain, spacing, seeded(seed + 1), points=200)
    np.testing.assert_array_equal(mask.numpy(), slow_mask(brain, spacing, seeded(seed + 1), 200))
    assert torch.equal(brain, before)


def test_every_voxel_of_the_brain_is_as_likely_a_centre():
    brain = torch.rand(4, 6, 5, generator=seeded(0)) < 0.3
    brain[1] = False
    count = {tuple(at): 0 for at in brain.nonzero().tolist()}
    rng, per_voxel = seeded(1), 200
    for _ in range(per_voxel * len(count)):
        count[tuple(int(at) for at in masks.random_voxel(brain.numpy(), rng))] += 1
    assert stats.chisquare(list(count.values())).pvalue > 1e-3


def plain_mask(
    brain: NDArray[np.bool_], voxel: NDArray[np.int_], factors: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Eq. 15 and 16 as they stand, around a given voxel; a cell is `factors` voxels wide along each axis."""
    centre = voxel // np.array(factors) + 0.5
    turn = stats.ortho_group.rvs(3, random_state=rng)
    covariance = turn @ np.diag(rng.uniform(0.3, 10, 3)) @ turn.T
    points = np.floor(stats.multivariate_normal.rvs(centre, covariance, POINTS, random_state=rng)).astype(int)
    shape = np.array(brain.shape) // factors
    points = points[((points >= 0) & (points < shape)).all(axis=1)]
    cells = np.zeros(shape, dtype=bool)
    cells[tuple(points.T)] = True
    return np.kron(cells, np.ones(factors, dtype=bool)) & brain


def moments(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> list[float]:
    """Covered share, mean position in mm, eigenvalues and diagonal of the covariance in mm^2, how correlated the axes are."""
    at = np.argwhere(mask) * spacing
    # A mask of one voxel has a correlation too.
    covariance = np.cov(at.T, ddof=0) + 0.1 * np.eye(3)
    sd = np.sqrt(covariance.diagonal())
    correlation = np.abs(covariance / np.outer(sd, sd))[np.triu_indices(3, 1)]
    return [float(mask.mean()), *at.mean(axis=0), *np.linalg.eigvalsh(covariance), *sd**2, *correlation]


def assert_same_law(ours: list[list[float]], theirs: list[list[float]]) -> None:
    a, b = np.array(ours), np.array(theirs)
    error = np.sqrt(a.var(axis=0) / len(a) + b.var(axis=0) / len(b))
    apart = np.abs(a.mean(axis=0) - b.mean(axis=0)) / error
    assert apart.max() < FAR, apart
    p = [stats.ks_2samp(x, y).pvalue for x, y in zip(a.T, b.T, strict=True)]
    assert min(p) > 1e-4, p


@pytest.mark.parametrize(("spacing", "cell"), [((1.0, 2.0, 4.0), 4.0), ((2.0, 1.0, 2.0), 2.0)])
def test_around_one_voxel_masks_have_the_plain_ways_law(monkeypatch, spacing, cell):
    """Centre, covered share and covariance: with the place fixed, half a cell stands out."""
    n = 150
    factors = tuple(round(cell / mm) for mm in spacing)
    shape = tuple(f * cells for f, cells in zip(factors, (30, 34, 26), strict=True))
    # Off the middle, so that the nearest face cuts some masks.
    voxel = np.array([shape[0] // 3, shape[1] // 2, shape[2] * 3 // 5])
    brain = np.ones(shape, dtype=bool)
    monkeypatch.setattr(masks, "random_voxel", lambda brain, rng: voxel.astype(np.float32))
    rng, drawn = np.random.default_rng(0), seeded(0)
    inside = torch.from_numpy(brain)
    ours = [moments(gaussian_mask(inside, spacing, drawn, cells_mm=(cell,)).numpy(), spacing) for _ in range(n)]
    theirs = [moments(plain_mask(brain, voxel, factors, rng), spacing) for _ in range(n)]
    assert_same_law(ours, theirs)


def test_in_a_brain_masks_have_the_plain_ways_law():
    """The whole draw: place, cells of all widths, points past the brain."""
    n, spacing = 160, (2.0, 1.0, 2.0)
    brain = ellipsoid((40, 96, 48), (16.0, 41.0, 20.0))
    inside = np.argwhere(brain)
    rng, drawn = np.random.default_rng(1), seeded(1)
    ours, theirs = [], []
    for turn in range(n):
        cell = CELLS_MM[turn % len(CELLS_MM)]
        factors = tuple(round(cell / mm) for mm in spacing)
        ours.append(moments(gaussian_mask(torch.from_numpy(brain), spacing, drawn, cells_mm=(cell,)).numpy(), spacing))
        theirs.append(moments(plain_mask(brain, inside[rng.integers(len(inside))], factors, rng), spacing))
    assert_same_law(ours, theirs)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_nothing(threads):
    brain = torch.from_numpy(ellipsoid((30, 44, 36), (12.0, 18.0, 15.0)))
    before, expected = torch.get_num_threads(), gaussian_mask(brain, (2.0,) * 3, seeded(3))
    try:
        torch.set_num_threads(threads)
        assert torch.equal(gaussian_mask(brain, (2.0,) * 3, seeded(3)), expected)
    finally:
        torch.set_num_threads(before)
