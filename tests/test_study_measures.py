"""The columns of a row, against plain numpy on a detection whose mask, lesion and brain overlap in part only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from anomri.metrics import reconstruction, surface, voxel
from anomri.scan import Detection, Trace
from anomri.study.measures import MEASURES, measure
from conftest import grid, phantom


@pytest.fixture(scope="module")
def found() -> Detection:
    """A lesion and a mask that both reach out of the brain, where they meet as well; unequal spacing."""
    scan = phantom(grid("RAS"))
    i, j, _ = (round(c) for c in np.argwhere(scan.brain).mean(axis=0))
    top = int(np.flatnonzero(scan.brain[i, j])[-1])
    lesion, mask = np.zeros((2, *scan.brain.shape), dtype=bool)
    lesion[i - 2 : i + 2, j - 1 : j + 2, top - 3 :] = True
    mask[i - 1 : i + 4, j - 1 : j + 3, top - 2 :] = True
    assert (lesion & mask & ~scan.brain).any()
    rng = np.random.default_rng(4)
    image = scan.image.copy()
    image[:, lesion & scan.brain] *= 9
    map = (np.where(lesion, 1.0, 0.0) + rng.normal(0, 0.5, lesion.shape)).astype(np.float32) * scan.brain
    healthy = (scan.image + rng.normal(0, 3, scan.image.shape)).astype(np.float32)
    return Detection(scan.with_(image=image, lesion=lesion), map, {"x": 1.0}, mask, healthy)


def test_every_column_is_of_the_brain_only_and_in_its_unit(found):
    scan, brain = found.scan, found.scan.brain
    said, histogram = measure(found, MEASURES)
    lesion, ml = scan.lesion & brain, scan.voxel_ml
    both = (lesion & found.mask).sum()
    assert said["brain_ml"] == pytest.approx(brain.sum() * ml)
    assert said["mask_ml"] == pytest.approx(found.mask.sum() * ml)
    assert said["lesion_ml"] == pytest.approx(lesion.sum() * ml)
    assert said["both_ml"] == pytest.approx(both * ml)
    assert said["sensitivity"] == pytest.approx(both / lesion.sum())
    assert said["precision"] == pytest.approx(both / (found.mask & brain).sum())
    distances = surface.surface_distances(found.mask, lesion, scan.spacing, brain)
    assert said["hd95_mm"] == pytest.approx(surface.hd95(distances))
    assert said["region_distance_mm"] == pytest.approx(surface.region_distance(found.mask, lesion, scan.spacing, brain))
    assert said["voxel_auprc"] == pytest.approx(voxel.auprc(found.map, lesion, brain))
    assert said["voxel_auroc"] == pytest.approx(voxel.auroc(found.map, lesion, brain))
    assert said["lesion_sensitivity"] == 1
    assert histogram.lesion.sum() + histogram.healthy.sum() == brain.sum()


def test_what_is_given_back_is_measured_on_healthy_tissue(found):
    x, healthy, brain, lesion = found.scan.image, found.healthy, found.scan.brain, found.scan.lesion
    said, _ = measure(found, ("healthy",))
    where = brain & ~lesion
    spread = np.ptp(x[:, where])
    assert spread < np.ptp(x)
    assert said["l1"] == pytest.approx(np.abs(x - healthy)[:, where].mean(), rel=1e-5)
    assert said["psnr_db"] == pytest.approx(20 * np.log10(spread) - 10 * np.log10(((x - healthy)[:, where] ** 2).mean()), rel=1e-5)  # fmt: skip
    assert said["l1_ratio"] == pytest.approx(reconstruction.l1_ratio(x, healthy, lesion, brain))


def test_a_mask_beside_the_lesion_has_missed_it_and_one_that_meets_it_outside_the_brain_too(found):
    outside = found.mask & ~found.scan.brain
    beside = Detection(found.scan, found.map, found.scores, outside | np.roll(found.scan.lesion, 6, axis=0))
    said, _ = measure(beside, ("overlap",))
    assert (said["missed"], said["both_ml"], said["dice"]) == (1, 0, 0)
    assert measure(found, ("overlap",))[0]["missed"] == 0


def test_what_is_not_there_is_left_out(found):
    no_mask = Detection(found.scan, found.map, found.scores)
    assert set(measure(no_mask, MEASURES)[0]) == {
        "brain_ml", "mask_ml", "lesion_ml", "voxel_auroc", "voxel_auprc", "dice_best_scan_oracle", "threshold_best_scan_oracle",
        "slice_auprc", "lesion_size_ml", "lesion_size_voxels"
    }  # fmt: skip
    no_truth = Detection(found.scan.with_(lesion=None), found.map, found.scores, found.mask, found.healthy)
    said, histogram = measure(no_truth, MEASURES)
    assert set(said) == {"brain_ml", "mask_ml", "lesion_ml", "psnr_db", "ssim", "l1"}
    assert histogram is None


def test_the_best_iteration_is_an_oracle_of_methods_with_a_trace(found):
    brain, lesion = found.scan.brain, found.scan.lesion
    order = brain.astype(np.uint8)
    order[brain & (found.mask | lesion)] = 2
    order[brain & lesion] = 3
    order[np.unravel_index(np.flatnonzero(brain & lesion)[0], brain.shape)] = 4
    traced = replace(found, trace=Trace(order, np.ones(4, dtype=np.float32)))
    said, _ = measure(traced, ("oracle",))
    assert (said["dice_best_iteration_oracle"], said["iteration_best_oracle"]) == (1, 3)
    assert said["dice_best_scan_oracle"] < 1


def test_slices_and_sizes(found):
    said, _ = measure(found, ("slices", "size"))
    lesion = found.scan.lesion & found.scan.brain
    means, ill = found.map.mean(axis=(0, 1)), lesion.any(axis=(0, 1))
    order = np.argsort(-means)
    hits = np.cumsum(ill[order])
    assert said["slice_auprc"] == pytest.approx((hits / np.arange(1, len(hits) + 1))[ill[order]].mean())
    ml = lesion.sum() * found.scan.voxel_ml
    assert said["lesion_size_ml"] == ("small" if ml < 1 else "large" if ml > 10 else "medium")
    assert said["lesion_size_voxels"] == (
        "small" if lesion.sum() < 200 else "large" if lesion.sum() > 800 else "medium"
    )
