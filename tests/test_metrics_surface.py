"""Surface distances, against plain loops, MONAI, SimpleITK, and distances worked out by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anomri.errors import BadCall
from anomri.metrics.surface import Distances, assd, hd95, region_distance, surface_dice, surface_distances
from helpers import ellipsoid

SHAPE = (4, 5, 3)
MASKS = hnp.arrays(bool, SHAPE)
SPACING = (1.0, 2.5, 0.7)


@pytest.fixture(scope="module")
def monai():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("monai.metrics", reason="MONAI is the oracle; pip install monai -c constraints.txt")


def slow_surface(mask):
    found = []
    for index in map(tuple, np.argwhere(mask).tolist()):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                beside = list(index)
                beside[axis] += step
                if not 0 <= beside[axis] < mask.shape[axis] or not mask[tuple(beside)]:
                    found.append(index)
    return sorted(set(found))


def slow_directed(points, others, spacing):
    return [
        min((math.dist(np.multiply(p, spacing), np.multiply(q, spacing)) for q in others), default=math.inf)
        for p in points
    ]


def blobs(spacing=SPACING):
    """Two overlapping ellipsoids, one of which leaves the box, and a speck beside them."""
    shape = (22, 31, 26)
    a = ellipsoid(shape, (6, 9, 5), (2, -1, 0))
    b = ellipsoid(shape, (8, 6, 6), (6, 2, -1))
    b[1, 2, 3] = True
    return a, b


@given(MASKS, MASKS)
@settings(max_examples=50)
def test_distances_are_the_slow_ones(mask, lesion):
    got = surface_distances(mask, lesion, SPACING)
    a, b = slow_surface(mask), slow_surface(lesion)
    assert got.from_mask.tolist() == pytest.approx(slow_directed(a, b, SPACING))
    assert got.from_lesion.tolist() == pytest.approx(slow_directed(b, a, SPACING))


@given(MASKS, MASKS)
def test_metrics_mirrored(a, b):
    one, other = surface_distances(a, b, SPACING), surface_distances(b, a, SPACING)
    for metric in (assd, hd95, lambda d: surface_dice(d, 1.0)):
        assert metric(one) == pytest.approx(metric(other), nan_ok=True)
    assert region_distance(a, b, SPACING) == pytest.approx(region_distance(b, a, SPACING), nan_ok=True)


@given(MASKS)
def test_a_mask_agrees_with_itself(mask):
    same = surface_distances(mask, mask, SPACING)
    assert surface_dice(same, 0) == 1
    if mask.any():
        assert assd(same) == hd95(same) == region_distance(mask, mask, SPACING) == 0


@given(MASKS, MASKS, st.sampled_from([0.5, 3.0]))
def test_distances_grow_with_the_spacing(a, b, scale):
    one, other = surface_distances(a, b, SPACING), surface_distances(a, b, [mm * scale for mm in SPACING])
    assert assd(other) == pytest.approx(scale * assd(one), nan_ok=True)
    assert hd95(other) == pytest.approx(scale * hd95(one), nan_ok=True)


def test_two_points():
    a, b = np.zeros((5, 9, 7), bool), np.zeros((5, 9, 7), bool)
    a[1, 1, 1] = b[1, 5, 4] = True
    apart = surface_distances(a, b, (9, 2, 2))
    assert assd(apart) == hd95(apart) == region_distance(a, b, (9, 2, 2)) == 10
    assert [surface_dice(apart, mm) for mm in (9.99, 10)] == [0, 1]


@given(st.integers(0, 30), st.sampled_from([0.1, 0.4, 0.7, 1.1]))
def test_a_distance_that_is_the_tolerance_is_within_it(start, mm):
    a, b = np.zeros((40, 3, 2), bool), np.zeros((40, 3, 2), bool)
    a[start, 1, 0] = b[start + 5, 1, 0] = True
    assert surface_dice(surface_distances(a, b, (mm, 1, 1)), 5 * mm) == 1


def test_a_box_within_a_box():
    outer, inner = np.zeros((11, 13, 12), bool), np.zeros((11, 13, 12), bool)
    outer[2:9, 3:10, 2:9] = True
    inner[3:8, 4:9, 3:8] = True
    apart = surface_distances(outer, inner, (1, 1, 1))
    assert len(apart.from_mask) == 7**3 - 5**3
    assert len(apart.from_lesion) == 5**3 - 3**3
    assert (apart.from_lesion == 1).all()
    # Faces of the outer are 1 away from the inner, edges sqrt 2, corners sqrt 3.
    expected = (6 * 25 * 1 + 12 * 5 * math.sqrt(2) + 8 * math.sqrt(3) + 98 * 1) / (218 + 98)
    assert assd(apart) == pytest.approx(expected)
    assert surface_dice(apart, 1) == pytest.approx((150 + 98) / (218 + 98))
    # Of the outer's voxels the shell is as far away, and the inner's lie in it.
    assert region_distance(outer, inner, (1, 1, 1)) == pytest.approx((expected * 316 - 98) / 343 / 2)


def test_hd95_is_the_larger_directed_percentile():
    apart = Distances(np.arange(101.0), np.full(5, 7.0))
    assert hd95(apart) == 95
    assert hd95(Distances(*apart[::-1])) == 95
    assert assd(apart) == pytest.approx((5050 + 35) / 106)
    assert surface_dice(apart, 7) == pytest.approx((8 + 5) / 106)


def test_beyond_the_array_and_the_brain_is_outside():
    full = np.ones((5, 6, 7), bool)
    middle = np.zeros((5, 6, 7), bool)
    middle[2, 2:4, 2:5] = True
    apart = surface_distances(full, middle, (1, 1, 1))
    assert len(apart.from_mask) == 5 * 6 * 7 - 3 * 4 * 5
    brain = np.zeros((5, 6, 7), bool)
    brain[1:4, 1:5, 1:6] = True
    assert surface_distances(full, middle, (1, 1, 1), brain).from_mask.max() == pytest.approx(math.sqrt(3))
    assert region_distance(full, middle, (1, 1, 1), brain) == region_distance(brain, middle, (1, 1, 1))


def test_empty_masks():
    none, some = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    some[1, 2, 1] = True
    neither = surface_distances(none, none, SPACING)
    assert math.isnan(assd(neither))
    assert math.isnan(hd95(neither))
    assert math.isnan(region_distance(none, none, SPACING))
    assert surface_dice(neither, 1) == 1
    for a, b in ((none, some), (some, none)):
        one = surface_distances(a, b, SPACING)
        assert assd(one) == hd95(one) == region_distance(a, b, SPACING) == math.inf
        assert surface_dice(one, 1e9) == 0


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("spacing", [SPACING, (1.0, 1.0, 1.0), (3.0, 0.4, 2.0)])
def test_they_are_those_of_monai(monai, spacing):
    import torch

    a, b = blobs()
    apart = surface_distances(a, b, spacing)
    batch = [torch.from_numpy(m)[None, None] for m in (a, b)]
    options = {"include_background": True, "spacing": spacing}
    theirs = monai.compute_average_surface_distance(*batch, symmetric=True, **options)
    assert assd(apart) == pytest.approx(float(theirs), rel=1e-6)
    theirs = monai.compute_hausdorff_distance(*batch, percentile=95, **options)
    assert hd95(apart) == pytest.approx(float(theirs), rel=1e-6)
    theirs = monai.compute_surface_dice(*batch, class_thresholds=[2.0], **options)
    assert surface_dice(apart, 2) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize("spacing", [SPACING, (1.0, 1.0, 1.0), (3.0, 0.4, 2.0)])
def test_the_region_distance_is_that_of_simpleitk(spacing):
    a, b = blobs()
    images = [sitk.GetImageFromArray(m.astype(np.uint8).T) for m in (a, b)]
    for image in images:
        image.SetSpacing(spacing)
    measure = sitk.HausdorffDistanceImageFilter()
    measure.Execute(*images)
    assert region_distance(a, b, spacing) == pytest.approx(measure.GetAverageHausdorffDistance(), rel=1e-4)
    assert region_distance(a, b, spacing) < assd(surface_distances(a, b, spacing))


def test_golden():
    a, b = blobs()
    apart = surface_distances(a, b, SPACING)
    got = [assd(apart), hd95(apart), surface_dice(apart, 2), region_distance(a, b, SPACING)]
    assert got == pytest.approx([2.922520, 13.124405, 0.509271, 1.823925], rel=1e-5)


def test_what_does_not_fit_is_refused():
    one, other = np.zeros((2, 3, 4)), np.zeros((2, 4, 3))
    for call in (surface_distances, region_distance):
        with pytest.raises(BadCall, match=r"\(2, 3, 4\).*\(2, 4, 3\)"):
            call(one, other, (1, 1, 1))
        for spacing in ((1, 1), (1, 1, 0), (1, math.inf, 1), (1, 1, math.nan)):
            with pytest.raises(BadCall, match="spacing is"):
                call(one, one, spacing)
    for tolerance in (-1, math.nan):
        with pytest.raises(BadCall, match="tolerance"):
            surface_dice(Distances(np.ones(2), np.ones(2)), tolerance)
