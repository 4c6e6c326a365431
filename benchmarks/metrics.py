"""Seconds of each metric at 192^3 against the library that has it, in the same run, and both values.

Command:  python benchmarks/metrics.py            (about a minute on two cores; needs scikit-learn, monai and surface-distance)

A map of noise in a ball of brain (1.8 million voxels), brighter in two lesions; the mask is the map cut at its best Dice, its
specks removed. Ours and theirs take turns, and the quickest of several turns counts. scikit-learn is given the brain's voxels,
sorted out beforehand; ours sorts them out itself. surface-distance weighs surfaces by area and lays them between voxels, so its
values are its own: its time is shown beside ours, its value says how far the definitions lie apart.
"""

from __future__ import annotations

import argparse
import time
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

SIDE = 192
SPACING = (1.0, 1.2, 0.9)
TOLERANCE_MM = 2.0

Work = Callable[[], Any]


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


def turns(works: tuple[Work, Work], n: int) -> list[tuple[float, float]]:
    """The value and the least seconds of each work, which take turns."""
    best, value = [float("inf")] * len(works), [0.0] * len(works)
    for _ in range(n):
        for at, work in enumerate(works):
            begun = time.perf_counter()
            value[at] = float(work())
            best[at] = min(best[at], time.perf_counter() - begun)
    return list(zip(value, best, strict=True))


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    # Those of the libraries about themselves.
    warnings.simplefilter("ignore")
    print(f"{'':20}{'against':18}{'ours':>12}{'theirs':>12}{'ours, ms':>12}{'theirs, ms':>12}{'times faster':>14}")
    for name, peer, ours, theirs in pairs(case(0)):
        (a, seconds), (b, others) = turns((ours, theirs), given.turns)
        print(f"{name:20}{peer:18}{a:12.6f}{b:12.6f}{1e3 * seconds:12.2f}{1e3 * others:12.2f}{others / seconds:14.1f}")


if __name__ == "__main__":
    main()
