"""What is measured on one scan: from a detection and its truth to the columns of its row.

Everything is measured on the grid that the method saw, inside the brain. A column that needs labels to be found says `oracle`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from anomri.metrics import case as cases
from anomri.metrics import lesion as lesions
from anomri.metrics import oracle, reconstruction, surface, voxel
from anomri.metrics.histogram import VoxelHistogram
from anomri.scan import Detection, Mask
from anomri.study.plan import SIZES

Columns = dict[str, Any]


def _overlap(found: Detection, mask: Mask, truth: Mask) -> Columns:
    both = mask & truth & found.scan.brain
    return {
        **voxel.overlap(mask, truth, found.scan.brain),
        "both_ml": float(both.sum()) * found.scan.voxel_ml,
        "missed": float(not both.any()),
    }


def _surface(found: Detection, mask: Mask, truth: Mask) -> Columns:
    distances = surface.surface_distances(mask, truth, found.scan.spacing, found.scan.brain)
    return {"assd_mm": surface.assd(distances), "hd95_mm": surface.hd95(distances)}


def _region(found: Detection, mask: Mask, truth: Mask) -> Columns:
    return {"region_distance_mm": surface.region_distance(mask, truth, found.scan.spacing, found.scan.brain)}


def _lesions(found: Detection, mask: Mask, truth: Mask) -> Columns:
    said = lesions.detection(mask, truth, found.scan.spacing, found.scan.brain)
    return {f"lesion_{name}": value for name, value in said.items()}


def _voxel(found: Detection, truth: Mask) -> Columns:
    brain = found.scan.brain
    return {
        "voxel_auroc": voxel.auroc(found.map, truth, brain),
        "voxel_auprc": voxel.auprc(found.map, truth, brain),
    }


def _oracle(found: Detection, truth: Mask) -> Columns:
    best, at = oracle.best_dice_scan_oracle(found.map, truth, found.scan.brain)
    said: Columns = {"dice_best_scan_oracle": best, "threshold_best_scan_oracle": at}
    if found.trace is not None:
        best, at = oracle.best_iteration_oracle(found.trace.order, truth, found.scan.brain)
        said |= {"dice_best_iteration_oracle": best, "iteration_best_oracle": at}
    return said


def _slices(found: Detection, truth: Mask) -> Columns:
    """Which axial slices have a lesion, by their mean map."""
    scores, anomalous = cases.by_slice(found.map, truth)
    return {"slice_auprc": cases.slice_auprc([scores], [anomalous])}


def _size(found: Detection, truth: Mask) -> Columns:
    """How large the scan's lesions are together, in classes that tables can have lines for (`plan.SIZES`)."""
    said = lesions.scan_size(truth, found.scan.spacing)
    return {name: said[name.removeprefix("lesion_")] for name in SIZES}


def _healthy(found: Detection) -> Columns:
    """How well healthy tissue is given back; `data_range` is that of the scan's healthy tissue."""
    scan = found.scan
    if found.healthy is None:
        return {}
    truth = np.zeros_like(scan.brain) if scan.lesion is None else scan.lesion
    where = scan.brain & ~truth
    x, healthy = scan.image, found.healthy
    spread = float(np.ptp(x[:, where]))
    said: Columns = {
        "psnr_db": reconstruction.psnr(x, healthy, where, data_range=spread),
        "ssim": reconstruction.ssim(x, healthy, where, data_range=spread),
        "l1": reconstruction.l1(x, healthy, where),
    }
    if truth.any():
        said["l1_ratio"] = reconstruction.l1_ratio(x, healthy, truth, scan.brain)
    return said


WITH_MASK: dict[str, Callable[[Detection, Mask, Mask], Columns]] = {
    "overlap": _overlap, "surface": _surface, "region": _region, "lesions": _lesions,
}  # fmt: skip
WITH_TRUTH: dict[str, Callable[[Detection, Mask], Columns]] = {
    "voxel": _voxel, "oracle": _oracle, "slices": _slices, "size": _size,
}  # fmt: skip
WITHOUT: dict[str, Callable[[Detection], Columns]] = {"healthy": _healthy}
MEASURES = (*WITH_MASK, *WITH_TRUTH, *WITHOUT)
"""Names that a study's `measures` take: overlap, surface, region and lesions need a mask and a truth, voxel, oracle, slices and size a truth."""


def measure(found: Detection, names: tuple[str, ...]) -> tuple[Columns, VoxelHistogram | None]:
    """The columns of a detection, and, where `oracle` is asked for and a truth is known, its map as a histogram.

    Volumes are always told. What needs a mask or a truth that is not there is left out.
    """
    scan, mask = found.scan, found.mask
    truth = scan.lesion & scan.brain if scan.lesion is not None else None
    said: Columns = {
        "brain_ml": float(scan.brain.sum()) * scan.voxel_ml,
        "mask_ml": None if mask is None else float(mask.sum()) * scan.voxel_ml,
        "lesion_ml": None if truth is None else float(truth.sum()) * scan.voxel_ml,
    }
    for name in names:
        if name in WITHOUT:
            said |= WITHOUT[name](found)
        elif truth is not None and truth.any():
            if name in WITH_TRUTH:
                said |= WITH_TRUTH[name](found, truth)
            elif mask is not None:
                said |= WITH_MASK[name](found, mask, truth)
    if "oracle" in names and truth is not None and truth.any():
        return said, VoxelHistogram.of(found.map, truth, scan.brain)
    return said, None
