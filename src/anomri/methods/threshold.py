"""Intensity threshold (Meissen et al., 2022, "Challenging current semi-supervised anomaly segmentation methods for brain MRI"): the honest floor.

The histogram of the brain is equalised: a voxel's score says how few are as bright. A method that does not beat this has not learned
anatomy (thesis, section 3.3, "Thresh").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from anomri.cohort import Cohort
from anomri.errors import BadCall, unknown
from anomri.method import Method
from anomri.scan import Array, Finding, Scan
from anomri.scoring.cleaning import cleaning as cleaning_of
from anomri.train import Job

SIGNS = ("positive", "negative", "both")
REFERENCES = ("scan", "healthy")
POINTS = 10_001


class Histogram(nn.Module):
    """Evenly spaced quantiles of each channel's intensities, `(C, POINTS)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.quantiles: torch.Tensor
        self.register_buffer("quantiles", torch.zeros(channels, POINTS))


class Threshold(Method):
    """Equalised intensity.

    Parameters
    ----------
    sign : "positive", bright is abnormal (lesions in FLAIR and T2w); "negative", dark is (stroke in T1w); "both"
    reference : whose histogram is equalised. "scan", its own, is the papers': every scan then has the same histogram, so that a
        threshold from healthy scans marks the same share of any brain, and the mean error is the same for all; "healthy", that of
        the healthy scans
    cleaning : of the map and the mask, one of `scoring.cleaning.CLEANINGS`

    The map is minus the decimal logarithm of the share of the histogram that is as bright (as dark) or more: 2 for the last percent;
    mean over channels.
    """

    name = "threshold"
    title = "Intensity threshold"
    paper = "Meissen et al., Challenging current semi-supervised anomaly segmentation methods for brain MRI"
    year = 2022
    dimensions = "3D"
    needs = "no training"
    map_unit = "-log10 share"

    def __init__(self, *, sign: str = "positive", reference: str = "scan", cleaning: str = "none") -> None:
        if sign not in SIGNS:
            raise unknown("sign", sign, SIGNS)
        if reference not in REFERENCES:
            raise unknown("reference", reference, REFERENCES)
        cleaning_of(cleaning)
        self.sign, self.reference, self.cleaning = sign, reference, cleaning

    def build(self, data: Mapping[str, Any]) -> None:
        if self.reference == "healthy":
            self.histogram = Histogram(len(data["sequences"]))

    def learn(self, healthy: Cohort, validation: Cohort | None, rng: torch.Generator, job: Job) -> Mapping[str, Any]:
        self.build({"sequences": healthy[0].sequences})
        if self.reference == "healthy":
            each = np.mean([_quantiles(scan) for scan in healthy], axis=0)
            self.histogram.quantiles.copy_(torch.from_numpy(each))
        return {}

    def find(self, scan: Scan, rng: torch.Generator) -> Finding:
        own = self.reference == "scan"
        known = _quantiles(scan) if own else self.histogram.quantiles.double().numpy()
        if len(known) != len(scan.image):
            raise BadCall(f"the histogram has {len(known)} channels, scan '{scan.id}' {len(scan.image)}")
        shares = np.linspace(0, 1, known.shape[1])
        pairs = [(x[scan.brain], q) for x, q in zip(scan.image, known, strict=True)]
        # Of equal intensities, all count as bright as any, and as dark.
        bright = np.array([1 - np.interp(x, _rising(q, first=True), shares) for x, q in pairs])
        dark = np.array([np.interp(x, _rising(q, first=False), shares) for x, q in pairs])
        share = {"positive": bright, "negative": dark, "both": np.minimum(1, 2 * np.minimum(dark, bright))}[self.sign]
        map: Array = np.zeros(scan.grid.shape, dtype=np.float32)
        map[scan.brain] = -np.log10(np.maximum(share, 1 / POINTS)).mean(axis=0)
        return Finding(map)


def _quantiles(scan: Scan) -> NDArray[np.float64]:
    inside = scan.image[:, scan.brain].astype(np.float64)
    found: NDArray[np.float64] = np.quantile(inside, np.linspace(0, 1, POINTS), axis=1).T
    return found


def _rising(quantiles: NDArray[Any], *, first: bool) -> NDArray[np.float64]:
    """Quantiles that rise, for interpolation: of equal ones the first, or the last, stands for their share."""
    step = 1e-9 * max(1.0, float(np.abs(quantiles).max()))
    aside = np.arange(len(quantiles)) - (0 if first else len(quantiles) - 1)
    rising: NDArray[np.float64] = quantiles.astype(np.float64) + step * aside
    return rising
