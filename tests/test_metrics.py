"""Metrics with truth, against slow plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anomri.metrics.voxel import best_dice, dice

SHAPE = (3, 4, 2)
MASKS = hnp.arrays(bool, SHAPE)
# Few values, so that ties are many.
MAPS = hnp.arrays(np.float32, SHAPE, elements=st.sampled_from([-1.0, 0.0, 0.25, 0.5, 3.0]))


def slow_dice(a, b):
    both = total = 0
    for index in np.ndindex(a.shape):
        both += bool(a[index] and b[index])
        total += bool(a[index]) + bool(b[index])
    return 2 * both / total if total else 1.0


@given(MASKS, MASKS)
def test_dice_is_the_slow_one_and_symmetric(a, b):
    assert dice(a, b) == pytest.approx(slow_dice(a, b))
    assert dice(a, b) == dice(b, a)
    assert 0 <= dice(a, b) <= 1
    assert dice(a, a) == 1


def test_dice_of_known_masks():
    a, b = np.zeros((2, SHAPE[1], 3), bool), np.zeros((2, SHAPE[1], 3), bool)
    assert dice(a, b) == 1.0
    a[0, 0] = True
    assert dice(a, b) == 0.0
    b[0, 0, :2] = True
    assert dice(a, b) == pytest.approx(4 / 5)
    assert dice(a.astype(np.uint8), b.astype(float)) == pytest.approx(4 / 5)


@given(MAPS, MASKS)
def test_best_dice_is_the_best_over_every_threshold(values, lesion):
    score, threshold = best_dice(values, lesion)
    tried = [dice(values >= t, lesion) for t in (*np.unique(values), np.inf)]
    assert score == pytest.approx(max(tried))
    assert dice(values >= threshold, lesion) == pytest.approx(score)


@given(MAPS, MASKS)
def test_best_dice_knows_ranks_alone(values, lesion):
    assert best_dice(np.arctan(values) * 7 - 2, lesion)[0] == pytest.approx(best_dice(values, lesion)[0])


def test_best_dice_at_the_edges():
    lesion = np.zeros(SHAPE, bool)
    assert best_dice(np.ones(SHAPE), lesion) == (1.0, float("inf"))
    lesion[1, 2, 0] = True
    assert best_dice(lesion * 5.0, lesion) == (1.0, 5.0)
    # A constant map can only mark everything.
    assert best_dice(np.ones(SHAPE), lesion) == (pytest.approx(2 / 25), 1.0)


@pytest.mark.parametrize("metric", [dice, best_dice])
def test_other_shapes_are_refused(metric):
    with pytest.raises(ValueError, match=r"\(3, 4, 2\).*\(3, 2, 4\)"):
        metric(np.zeros(SHAPE), np.zeros((3, 2, 4)))
