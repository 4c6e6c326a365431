"""The quick ways of preprocessing against slow ones: voxels moved whole, a stripped image's brain, no blur too narrow to do any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from anomri.preprocess import brain, space
from anomri.scan import Scan

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 7))


@settings(max_examples=150, deadline=None)
@given(
    SHAPES,
    SHAPES,
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
    st.tuples(*[st.integers(-8, 8)] * 3),
)
def test_voxels_moved_whole_go_where_the_matrix_says(shape, target, turn, signs, shift):
    volume = np.arange(1, np.prod(shape) + 1).reshape(shape)
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag(signs) @ np.eye(3)[list(turn)]
    matrix[:3, 3] = shift
    expected = np.zeros(target, dtype=volume.dtype)
    for at in np.ndindex(*target):
        of = (matrix @ [*at, 1])[:3].astype(int)
        if ((of >= 0) & (of < shape)).all():
            expected[at] = volume[tuple(of)]
    np.testing.assert_array_equal(space._exact(volume, matrix, target), expected)


def slow_stripped(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part of the whole grid, its holes filled by SciPy."""
    labels, n = ndimage.label(inside)
    sizes = [(labels == label).sum() for label in range(1, n + 1)]
    return ndimage.binary_fill_holes(labels == int(np.argmax(sizes)) + 1)


@pytest.mark.parametrize("touching", [False, True])
def test_the_brain_of_a_stripped_image_is_its_largest_part_filled(touching):
    rng, found = np.random.default_rng(0), 0
    for _ in range(60):
        shape = rng.integers(12, 18, 3)
        low, high = rng.integers(1, 4, 3), shape - rng.integers(1, 4, 3)
        if touching:
            # A box that ends where the grid does: what is open there is no hole.
            low[rng.integers(3)] = 0
            high[rng.integers(3)] = shape[rng.integers(3)]
        inside = np.zeros(shape, dtype=bool)
        block = inside[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        block[:] = rng.random(block.shape) > 0.35
        image = np.where(inside, 5.0, 0.0)
        scan = Scan(image, np.diag([10.0, 9.0, 11.0, 1.0]))
        mask = brain.stripped_mask(scan)
        expected = slow_stripped(inside)
        if mask is not None:
            found += 1
            np.testing.assert_array_equal(mask, expected)
        else:
            ml = expected.sum() * scan.voxel_ml
            assert inside.mean() > 0.8 or not brain.BRAIN_ML[0] <= ml <= brain.BRAIN_ML[1]
    assert found > 30


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.sampled_from([0.0, 0.1, 0.166, 0.167, 0.3, 1.2])] * 3), st.integers(0, 99))
def test_a_blur_is_scipys(sigma, seed):
    volume = np.random.default_rng(seed).random((6, 9, 7), dtype=np.float32)
    before = volume.copy()
    expected = ndimage.gaussian_filter(volume, sigma, mode="nearest", truncate=3.0)
    np.testing.assert_array_equal(space._blur(volume, sigma), expected)
    np.testing.assert_array_equal(volume, before)
