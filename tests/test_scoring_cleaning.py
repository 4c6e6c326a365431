"""Cleaning of maps and masks, against SciPy's filter of the whole grid and plain loops."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anomri.errors import BadCall, BadInput
from anomri.scoring.cleaning import CHUNK, CLEANINGS, Cleaning, around, cleaning
from helpers import ellipsoid

SHAPE = (14, 17, 11)


def noise(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def plain_erosion(brain: np.ndarray, rounds: int) -> np.ndarray:
    """A voxel stays while its four neighbours within the axial slice are brain too; past the grid nothing is."""
    for _ in range(rounds):
        left = np.zeros_like(brain)
        for i, j, k in zip(*np.nonzero(brain), strict=True):
            near = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
            left[i, j, k] = all(0 <= a < brain.shape[0] and 0 <= b < brain.shape[1] and brain[a, b, k] for a, b in near)
        brain = left
    return brain


def plain_components(mask: np.ndarray, least: int) -> np.ndarray:
    """Voxels joined by face, edge or corner, gathered by walking."""
    left, todo = np.zeros_like(mask), {tuple(at) for at in np.argwhere(mask)}
    while todo:
        one = [todo.pop()]
        for at in one:
            for step in itertools.product((-1, 0, 1), repeat=mask.ndim):
                near = tuple(a + s for a, s in zip(at, step, strict=True))
                if near in todo:
                    todo.remove(near)
                    one.append(near)
        if len(one) >= least:
            left[tuple(np.transpose(one))] = True
    return left


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 3), st.sampled_from([1, 3, 5, 7]), st.integers(0, 99))
def test_the_median_is_scipys_of_the_whole_grid(shape, edge, seed):
    error, brain = noise(shape, seed), noise(shape, seed + 1) < 0.3
    found = Cleaning(median=edge).map(error, brain)
    np.testing.assert_array_equal(found, np.where(brain, ndimage.median_filter(error, edge), 0))
    assert found.dtype == error.dtype


def test_the_median_of_more_than_a_chunk_is_scipys():
    shape = (23, 31, 25)
    error, brain = noise(shape), ellipsoid(shape, (12, 16, 13))
    assert brain.sum() > CHUNK
    found = Cleaning(median=5).map(error, brain)
    np.testing.assert_array_equal(found, np.where(brain, ndimage.median_filter(error, 5), 0))


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(3, 9)] * 3), st.integers(1, 3), st.integers(0, 99))
def test_the_erosion_is_the_plain_one(shape, rounds, seed):
    brain = noise(shape, seed) < 0.97
    expected = plain_erosion(brain, rounds)
    if expected.any():
        np.testing.assert_array_equal(Cleaning(erode=rounds).inside(brain), expected)
    else:
        with pytest.raises(BadInput, match="leave nothing"):
            Cleaning(erode=rounds).inside(brain)


def test_erosion_stays_within_axial_slices():
    """A column along the last axis keeps its ends; along another axis it would lose them."""
    brain = np.zeros(SHAPE, bool)
    brain[4:7, 5:8, 2:9] = True
    left = Cleaning(erode=1).inside(brain)
    assert np.argwhere(left).tolist() == [[5, 6, k] for k in range(2, 9)]


def test_the_median_comes_first_and_the_rim_is_0():
    """Eroding first would let zeros of the rim into the median."""
    error, brain = noise() + 1, ellipsoid(SHAPE, (6.2, 7.7, 5))
    found = Cleaning(median=3, erode=2).map(error, brain)
    inside = plain_erosion(brain, 2)
    np.testing.assert_array_equal(found, np.where(inside, ndimage.median_filter(error, 3), 0))
    other = ndimage.median_filter(np.where(inside, error, 0), 3)
    assert not np.array_equal(found[inside], other[inside])
    assert brain.sum() > inside.sum() > 0


def test_a_single_bright_voxel_goes_and_a_block_stays():
    error, brain = np.zeros(SHAPE, np.float32), np.ones(SHAPE, bool)
    error[3, 3, 3] = 9
    error[6:12, 8:14, 3:9] = 5
    found = cleaning("median").map(error, brain)
    assert found[3, 3, 3] == 0
    assert (found[8:10, 10:12, 5:7] == 5).all()


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 7)] * 3), st.integers(0, 9), st.floats(0.02, 0.4), st.integers(0, 99))
def test_components_are_the_plain_ones(shape, least, share, seed):
    mask = noise(shape, seed) < share
    found = Cleaning(least=least).mask(mask)
    np.testing.assert_array_equal(found, plain_components(mask, least))
    np.testing.assert_array_equal(Cleaning(least=least).mask(found), found)


def test_seven_voxels_stay_and_six_go():
    """ "Fewer than seven voxels" (thesis, section 3.1.2); corners join."""
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 1:4, 1] = True
    mask[7:9, 7:10, 3] = True
    mask[9, 10, 4] = True
    found = cleaning("behrendt").mask(mask)
    assert found.sum() == 7
    assert not found[:4].any()


def test_what_is_given_stays_as_it_was():
    error, brain, mask = noise(), ellipsoid(SHAPE, (5, 7, 4)), noise(seed=3) < 0.1
    before = error.copy(), brain.copy(), mask.copy()
    for clean in CLEANINGS.values():
        map, inside, left = clean.map(error, brain), clean.inside(brain), clean.mask(mask)
        map[:], inside[:], left[:] = 1, False, False
    for now, then in zip((error, brain, mask), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("name", CLEANINGS)
def test_every_cleaning_gives_a_map_that_is_0_outside_the_brain(name):
    error, brain = noise() + 1, ellipsoid(SHAPE, (5.2, 7, 4))
    found = cleaning(name).map(error, brain)
    assert found.shape == error.shape
    assert not found[~brain].any()
    assert found.any()
    assert not cleaning(name).map(error, np.zeros(SHAPE, bool)).any()
    assert not cleaning(name).mask(np.zeros(SHAPE, bool)).any()


def test_none_does_nothing_within_the_brain():
    error, brain, mask = noise(), ellipsoid(SHAPE, (5, 7, 4)), noise(seed=1) < 0.05
    error[7, 8, 5] = np.nan
    np.testing.assert_array_equal(cleaning("none").map(error, brain), np.where(brain, error, 0))
    np.testing.assert_array_equal(cleaning("none").mask(mask), mask)


def test_the_named_one_of_the_thesis():
    assert CLEANINGS["behrendt"] == Cleaning(median=5, erode=3, least=7)


def test_a_brain_that_erosion_would_empty_is_refused_and_a_thin_slice_is_lost():
    brain = np.zeros(SHAPE, bool)
    brain[3:9, 3:9, 4] = True
    with pytest.raises(BadInput, match="3 rounds of erosion leave nothing of a brain of 36 voxels"):
        cleaning("behrendt").map(noise(), brain)
    brain[2:10, 2:12, 5] = True
    left = cleaning("behrendt").inside(brain)
    assert left[..., 5].any()
    assert not left[..., 4].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_median_does_not_hide_what_is_not_finite(bad):
    error = noise()
    error[7, 8, 5] = bad
    with pytest.raises(BadInput, match="1 voxels NaN or infinite"):
        cleaning("median").map(error, ellipsoid(SHAPE, (5, 7, 4)))


def test_what_cannot_be_is_refused():
    with pytest.raises(BadCall, match="unknown cleaning 'soap'; known: behrendt, components, erosion, median, none"):
        cleaning("soap")
    for wrong in ({"median": 4}, {"erode": -1}, {"least": -2}, {"median": -3}):
        with pytest.raises(BadCall, match="0 or more and an odd median"):
            Cleaning(**wrong)
    with pytest.raises(BadCall, match=r"map of \(14, 17, 11\) and a brain of \(14, 11, 17\)"):
        Cleaning().map(noise(), np.ones((14, 11, 17), bool))
    with pytest.raises(dataclasses.FrozenInstanceError):
        CLEANINGS["none"].median = 3


def test_the_box_around_a_mask():
    mask = np.zeros(SHAPE, bool)
    assert mask[around(mask)].size == 0
    mask[3, 5:9, 10] = True
    assert around(mask) == (slice(3, 4), slice(5, 9), slice(10, 11))
    assert around(mask, 4) == (slice(0, 8), slice(1, 13), slice(6, 11))


def test_names_are_joined():
    assert cleaning("median+erosion+components") == cleaning("behrendt")
    assert cleaning("none+components") == cleaning("components")
    for odd in ("median+", "median erosion", "erosion+nonesuch", ""):
        with pytest.raises(BadCall, match="cleaning"):
            cleaning(odd)
