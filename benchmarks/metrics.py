"""Seconds of all metrics of one case at 192^3, and of each against the library that has it, in the same run, and both values.

Command:  python benchmarks/metrics.py            (about a minute on two cores; needs scikit-learn, monai and surface-distance)

One case is what a study measures of a scan: Dice, sensitivity, precision, Jaccard, AUROC, AUPRC, ASSD, PSNR and SSIM (with them
come HD95 and L1); the promise is 1.5 s.

A map of noise in a ball of brain (1.8 million voxels), brighter in two lesions; the mask is the map cut at its best Dice, its
specks removed. Ours and theirs take turns, and the quickest of several turns counts. scikit-learn is given the brain's voxels,
sorted out beforehand; ours sorts them out itself. surface-distance weighs surfaces by area and lays them between voxels, so its
values are its own: its time is shown beside ours, its value says how far the definitions lie apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from anomri.metrics import lesion as lesions
from anomri.metrics import oracle, surface, voxel
from anomri.metrics.histogram import VoxelHistogram
from anomri.scan import Detection, Scan
from anomri.study.measures import measure
from side_by_side import Goal, Work, main, quickest

SIDE = 192
SPACING = (1.0, 1.2, 0.9)
TOLERANCE_MM = 2.0
LIMIT = 1.5
WANTED = {("components", "SimpleITK"): 0.5}
"""SimpleITK labels on all cores at once, ours on one."""
NINE = ("overlap", "surface", "voxel", "healthy")


def ball(centre: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    """`(SIDE, SIDE, SIDE)` bool."""
    i, j, k = np.ogrid[:SIDE, :SIDE, :SIDE]
    return (i - centre[0]) ** 2 + (j - centre[1]) ** 2 + (k - centre[2]) ** 2 < radius**2


def case(seed: int) -> dict[str, NDArray[Any]]:
    """Map, lesion, brain and mask."""
    rng = np.random.default_rng(seed)
    brain = ball((96, 96, 96), 75)
    lesion = ball((70, 90, 100), 18) | ball((125, 110, 80), 9)
    noise = ndimage.gaussian_filter(rng.normal(size=brain.shape).astype(np.float32), 2)
    map = (np.abs(noise / noise.std() + 2.5 * lesion) * brain).astype(np.float32)
    _, threshold = oracle.best_dice_scan_oracle(map, lesion, brain)
    mask = ndimage.binary_opening(map >= threshold, iterations=2)
    return {"map": map, "lesion": lesion, "brain": brain, "mask": mask}


def pairs(c: dict[str, NDArray[Any]]) -> list[tuple[str, str, Work, Work]]:
    """Each metric's name, its peer, our work and theirs."""
    import monai.metrics as monai
    import surface_distance as deepmind

    map, lesion, brain, mask = c["map"], c["lesion"], c["brain"], c["mask"]
    truth, values = lesion[brain], map[brain]
    batch = [torch.from_numpy(m)[None, None] for m in (mask, lesion)]
    mm: dict[str, Any] = {"include_background": True, "spacing": SPACING}

    def ours(metric: Callable[..., float], *more: float) -> Work:
        return lambda: metric(surface.surface_distances(mask, lesion, SPACING), *more)

    def measured(metric: Callable[..., Any], *more: float) -> Work:
        return lambda: np.mean(metric(deepmind.compute_surface_distances(mask, lesion, SPACING), *more))

    def best_of_curve() -> float:
        precision, recall, _ = precision_recall_curve(truth, values)
        return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())

    def region() -> float:
        images = [sitk.GetImageFromArray(m.astype(np.uint8).T) for m in (mask, lesion)]
        for image in images:
            image.SetSpacing(SPACING)
        measure = sitk.HausdorffDistanceImageFilter()
        measure.Execute(*images)
        return float(measure.GetAverageHausdorffDistance())

    histogram = VoxelHistogram.of(map, lesion, brain)
    return [
        ("dice", "MONAI", lambda: voxel.dice(mask, lesion), lambda: monai.compute_dice(*batch).item()),
        (
            "jaccard",
            "MONAI",
            lambda: voxel.overlap(mask, lesion)["jaccard"],
            lambda: monai.compute_iou(*batch).item(),
        ),
        (
            "dice",
            "surface-distance",
            lambda: voxel.dice(mask, lesion),
            lambda: deepmind.compute_dice_coefficient(lesion, mask),
        ),
        ("auroc", "scikit-learn", lambda: voxel.auroc(map, lesion, brain), lambda: roc_auc_score(truth, values)),
        (
            "auprc",
            "scikit-learn",
            lambda: voxel.auprc(map, lesion, brain),
            lambda: average_precision_score(truth, values),
        ),
        (
            "best dice (oracle)",
            "scikit-learn",
            lambda: oracle.best_dice_scan_oracle(map, lesion, brain)[0],
            best_of_curve,
        ),
        (
            "auroc, histogram",
            "scikit-learn",
            lambda: VoxelHistogram.of(map, lesion, brain).auroc(),
            lambda: roc_auc_score(truth, values),
        ),
        (
            "auprc, histogram",
            "scikit-learn",
            lambda: VoxelHistogram.of(map, lesion, brain).auprc(),
            lambda: average_precision_score(truth, values),
        ),
        ("auprc, kept", "scikit-learn", histogram.auprc, lambda: average_precision_score(truth, values)),
        (
            "lesions",
            "SciPy label",
            lambda: lesions.components(lesion)[1],
            lambda: ndimage.label(lesion, np.ones((3, 3, 3)))[1],
        ),
        (
            "components",
            "SimpleITK",
            lambda: lesions.components(mask)[1],
            lambda: int(
                sitk.GetArrayFromImage(
                    sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
                ).max()
            ),
        ),
        (
            "assd",
            "MONAI",
            ours(surface.assd),
            lambda: monai.compute_average_surface_distance(*batch, symmetric=True, **mm).item(),
        ),
        (
            "hd95",
            "MONAI",
            ours(surface.hd95),
            lambda: monai.compute_hausdorff_distance(*batch, percentile=95, **mm).item(),
        ),
        (
            "surface dice",
            "MONAI",
            ours(surface.surface_dice, TOLERANCE_MM),
            lambda: monai.compute_surface_dice(*batch, class_thresholds=[TOLERANCE_MM], **mm).item(),
        ),
        ("assd", "surface-distance", ours(surface.assd), measured(deepmind.compute_average_surface_distance)),
        ("hd95", "surface-distance", ours(surface.hd95), measured(deepmind.compute_robust_hausdorff, 95)),
        (
            "surface dice",
            "surface-distance",
            ours(surface.surface_dice, TOLERANCE_MM),
            measured(deepmind.compute_surface_dice_at_tolerance, TOLERANCE_MM),
        ),
        ("region distance", "SimpleITK", lambda: surface.region_distance(mask, lesion, SPACING), region),
    ]


def whole(c: dict[str, NDArray[Any]]) -> Detection:
    """The case as a detection: a noisy scan, and its reconstruction off by the map."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=c["brain"].shape).astype(np.float32) * c["brain"]
    scan = Scan(x, np.diag([*SPACING, 1.0]), brain=c["brain"], lesion=c["lesion"])
    return Detection(scan, c["map"], {"score": 0.0}, mask=c["mask"], healthy=(x - 0.1 * c["map"])[None])


def goals(turns: int = 3) -> list[Goal]:
    """The whole case within its limit, and no metric slower than its peer, save one."""
    c = case(0)
    found = whole(c)
    ((taken, (said, _)),) = quickest([lambda: measure(found, NINE)], turns)
    rows = [Goal("metrics of one case", taken, LIMIT, 1.0, note=f"{len(said)} columns")]
    with warnings.catch_warnings():
        # Those of the libraries about themselves.
        warnings.simplefilter("ignore")
        for name, peer, ours, theirs in pairs(c):
            (a, value), (b, other) = quickest((ours, theirs), turns)
            wanted = WANTED.get((name, peer), 1.0)
            rows.append(Goal(f"{name}, {peer}", a, b, wanted, note=f"{float(value):.6g} and {float(other):.6g}"))
    return rows


if __name__ == "__main__":
    main(goals, __doc__)
