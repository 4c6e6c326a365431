"""Lesion by lesion, against plain flooding, pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anomri.errors import BadCall
from anomri.metrics.lesion import ML, PIXELS, by_size, components, detection, pooled_dice, scan_size, size_class
from anomri.metrics.voxel import dice

SHAPE = (4, 6, 3)
MASKS = hnp.arrays(bool, SHAPE, elements=st.sampled_from([False, False, False, True]))
SPACING = (1.0, 2.0, 5.0)


def flooded(mask):
    """Sets of voxels, each a connected component, found by flooding."""
    left, parts = set(map(tuple, np.argwhere(mask).tolist())), []
    while left:
        part, edge = set(), [min(left)]
        left.discard(edge[0])
        while edge:
            here = edge.pop()
            part.add(here)
            near = {v for v in left if max(abs(a - b) for a, b in zip(v, here, strict=True)) == 1}
            left -= near
            edge.extend(near)
        parts.append(part)
    return parts


@given(MASKS)
def test_components_are_those_of_flooding(mask):
    labels, n = components(mask)
    assert set(np.unique(labels[mask]).tolist()) == set(range(1, n + 1))
    assert not labels[~mask].any()
    found = [set(map(tuple, np.argwhere(labels == i).tolist())) for i in range(1, n + 1)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, flooded(mask)))


def test_corners_connect():
    mask = np.zeros(SHAPE, bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 5, 2] = True
    assert components(mask)[1] == 2
    assert components(np.eye(3, 5))[1] == 1
    assert components(np.zeros(SHAPE))[1] == 0


@given(MASKS, MASKS, MASKS, st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_detection_is_the_slow_one(mask, lesion, brain, overlap):
    got = detection(mask, lesion, SPACING, ~brain, overlap=overlap)
    parts, lesions = flooded(mask & ~brain), flooded(lesion & ~brain)
    marked, true = set().union(*parts), set().union(*lesions)
    found = [len(part & marked) / len(part) > overlap for part in lesions]
    false = [part for part in parts if len(part & true) / len(part) <= overlap]
    assert (got["lesions"], got["found"], got["missed"]) == (len(lesions), sum(found), len(lesions) - sum(found))
    assert (got["components"], got["false"]) == (len(parts), len(false))
    assert got["false_ml"] == pytest.approx(sum(map(len, false)) * 10 / 1000)
    sensitivity = sum(found) / len(lesions) if lesions else math.nan
    precision = 1 - len(false) / len(parts) if parts else math.nan
    assert got["sensitivity"] == pytest.approx(sensitivity, nan_ok=True)
    assert got["precision"] == pytest.approx(precision, nan_ok=True)
    if lesions and parts:
        both = sensitivity + precision
        assert got["f1"] == pytest.approx(2 * sensitivity * precision / both if both else 0)
    else:
        assert got["f1"] == (1 if not lesions and not parts else 0)


@given(MASKS, MASKS)
def test_by_size_is_the_slow_one(mask, lesion):
    rows = by_size(mask, lesion, SPACING)
    parts, lesions = flooded(mask), flooded(lesion)
    expected = []
    for one in lesions:
        touching = set().union(*(part for part in parts if part & one))
        expected.append((len(one), bool(touching), 2 * len(one & touching) / (len(one) + len(touching))))
    got = [(row["voxels"], row["found"], row["dice"]) for row in rows]
    for a, b in zip(sorted(got), sorted(expected), strict=True):
        assert a == pytest.approx(b)
    assert [row["lesion"] for row in rows] == list(range(1, len(lesions) + 1))
    assert all(row["ml"] == pytest.approx(row["voxels"] * 10 / 1000) for row in rows)


def test_two_lesions_and_three_components():
    lesion, mask = np.zeros((9, 7, 5), bool), np.zeros((9, 7, 5), bool)
    lesion[0:2, 0:2, 0:2] = True
    lesion[6:9, 5:7, 3:5] = True
    mask[0:2, 0:2, 0:1] = True
    mask[0:1, 1:4, 1:2] = True
    mask[4, 3, 4] = mask[4, 3, 3] = True
    got = detection(mask, lesion, (2, 2, 2.5))
    assert got == pytest.approx(
        {
            "lesions": 2,
            "found": 1,
            "missed": 1,
            "components": 2,
            "false": 1,
            "false_ml": 0.02,
            "sensitivity": 0.5,
            "precision": 0.5,
            "f1": 0.5,
        }
    )
    # 5 of 8 voxels of the first lesion are marked, and 5 of the 7 that touch it are right.
    rows = by_size(mask, lesion, (2, 2, 2.5), edges_ml=(0.1, 0.2), edges_voxels=(8, 11))
    assert rows == [
        {
            "lesion": 1,
            "voxels": 8,
            "ml": pytest.approx(0.08),
            "size_voxels": "medium",
            "size_ml": "small",
            "found": True,
            "dice": pytest.approx(10 / 15),
        },
        {
            "lesion": 2,
            "voxels": 12,
            "ml": pytest.approx(0.12),
            "size_voxels": "large",
            "size_ml": "medium",
            "found": False,
            "dice": 0.0,
        },
    ]
    assert detection(mask, lesion, (1, 1, 1), overlap=0.62)["found"] == 1
    assert detection(mask, lesion, (1, 1, 1), overlap=5 / 8)["found"] == 0
    assert detection(mask, lesion, (1, 1, 1), overlap=5 / 7)["false"] == 2


def test_a_component_over_two_lesions_finds_both():
    lesion, mask = np.zeros((3, 8, 2), bool), np.zeros((3, 8, 2), bool)
    lesion[1, 0] = lesion[1, 6:] = True
    mask[1] = True
    assert detection(mask, lesion, (1, 1, 1))["f1"] == 1
    assert [row["dice"] for row in by_size(mask, lesion, (1, 1, 1))] == [pytest.approx(4 / 18), pytest.approx(8 / 20)]


def test_nothing_outside_the_brain_counts():
    lesion, mask, brain = (np.zeros((5, 6, 7), bool) for _ in range(3))
    brain[:, :3] = True
    lesion[0, 0:5, 0] = mask[4, 2:6, 6] = True
    lesion[2, 5, 2] = mask[2, 5, 4] = True
    got = detection(mask, lesion, (10, 10, 10), brain)
    assert (got["lesions"], got["components"], got["false_ml"]) == (1, 1, 1)
    assert by_size(mask, lesion, (10, 10, 10), brain)[0]["voxels"] == 3
    assert scan_size(lesion, (10, 10, 10), brain)["ml"] == 3


def test_size_classes():
    assert [size_class(n) for n in (0, 1, 199, 200, 800, 801)] == [
        "none",
        "small",
        "small",
        "medium",
        "medium",
        "large",
    ]
    assert PIXELS == (200, 800)
    lesion = np.zeros((40, 30, 1), bool)
    assert scan_size(lesion, (1, 1, 1)) == {"voxels": 0, "ml": 0, "size_voxels": "none", "size_ml": "none"}
    lesion[:30, :20] = True
    assert scan_size(lesion, (1, 1, 5)) == {
        "voxels": 600,
        "ml": pytest.approx(3),
        "size_voxels": "medium",
        "size_ml": "medium",
    }
    assert scan_size(lesion, (1, 1, 5), edges_ml=(4, 5), edges_voxels=(1, 2))["size_ml"] == "small"
    assert [size_class(ml, ML) for ml in (0.9, 1, 10, 10.1)] == ["small", "medium", "medium", "large"]


@given(st.lists(st.tuples(MASKS, MASKS), max_size=4))
def test_pooled_dice_is_that_of_one_array(cohort):
    masks, lesions = [a for a, _ in cohort], [b for _, b in cohort]
    expected = dice(np.concatenate(masks), np.concatenate(lesions)) if cohort else 1
    assert pooled_dice(iter(masks), iter(lesions)) == pytest.approx(expected)


def test_pooled_dice_weighs_by_size():
    small, large = np.zeros((2, 5, 3), bool), np.zeros((7, 5, 3), bool)
    small[0, 0, 0], large[:4] = True, True
    assert pooled_dice([~small, large], [small, large]) == pytest.approx(2 * 60 / (30 + 120))


def test_what_does_not_fit_is_refused():
    one, other = np.zeros((2, 3, 4)), np.zeros((2, 4, 3))
    for call in (detection, by_size):
        with pytest.raises(BadCall, match=r"\(2, 3, 4\).*\(2, 4, 3\)"):
            call(one, other, (1, 1, 1))
    with pytest.raises(BadCall, match=r"\(2, 3, 4\).*\(2, 4, 3\)"):
        pooled_dice([one], [other])
    with pytest.raises(ValueError, match="shorter"):
        pooled_dice([one, one], [one])
    for overlap in (-0.1, 1.0, math.nan):
        with pytest.raises(BadCall, match="share"):
            detection(one, one, (1, 1, 1), overlap=overlap)
