"""Covariance model (Saase et al., 2020): how far a scan is from healthy ones, voxel by voxel, in their covariance.

`d^T (S + epsilon I)^-1 d`, with `d` the scan less the mean of the healthy training scans and `S` their covariance, as the root of what
each voxel adds to it (thesis, chapter 8.5, the baseline "CM"). Voxels are compared where they lie: scans need to be registered. S is
never built, its rank is below the number of scans (`scoring.mahalanobis`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from anomri.cohort import Cohort
from anomri.errors import BadCall, BadInput
from anomri.method import Method
from anomri.preprocess.space import box, cut, paste
from anomri.scan import Finding, Scan
from anomri.scoring.cleaning import cleaning as cleaning_of
from anomri.scoring.mahalanobis import full
from anomri.train import Job


class Reference(nn.Module):
    """The healthy scans, `(N, C, *edges)`."""

    def __init__(self, scans: int, channels: int, edges: tuple[int, ...]) -> None:
        super().__init__()
        self.scans: torch.Tensor
        self.register_buffer("scans", torch.zeros(scans, channels, *edges))


class CovarianceModel(Method):
    """Covariance model.

    Parameters
    ----------
    epsilon : added to the covariance's diagonal, squared normalised intensity
    cleaning : of the map and the mask, one of `scoring.cleaning.CLEANINGS`
    """

    name = "covariance_model"
    title = "Covariance model"
    paper = "Saase et al., Simple statistical methods for unsupervised brain anomaly detection on MRI are competitive to deep learning methods"
    year = 2020
    dimensions = "3D"
    needs = "registered healthy scans"
    map_unit = "Mahalanobis distance"

    def __init__(self, *, epsilon: float = 1e-2, cleaning: str = "none") -> None:
        if not epsilon > 0:
            raise BadCall(f"epsilon is {epsilon:g}, needs to be above 0: the covariance of a few scans has no inverse")
        cleaning_of(cleaning)
        self.epsilon, self.cleaning = epsilon, cleaning

    def build(self, data: Mapping[str, Any]) -> None:
        self.reference = Reference(data["scans"], len(data["sequences"]), tuple(data["box"]))

    def learn(self, healthy: Cohort, validation: Cohort | None, rng: torch.Generator, job: Job) -> Mapping[str, Any]:
        if len(healthy) < 2:
            raise BadInput(f"a covariance needs 2 healthy scans or more, {len(healthy)} is given; add scans to fit on")
        size = np.max([np.subtract(*box(scan.brain)[::-1]) for scan in healthy], axis=0)
        about = {"scans": len(healthy), "sequences": list(healthy[0].sequences), "box": [int(n) for n in size]}
        self.build(about)
        for index, scan in enumerate(healthy):
            self.reference.scans[index] = cut(torch.tensor(scan.image * scan.brain), *box(scan.brain, size=size))
        return {"box": about["box"]}

    def find(self, scan: Scan, rng: torch.Generator) -> Finding:
        low, high = box(scan.brain, size=self.data["box"])
        brain = cut(torch.tensor(scan.brain), low, high)
        x, known = cut(torch.tensor(scan.image), low, high), self.reference.scans
        inside = brain.expand(x.shape)
        per_channel = np.zeros(x.shape, dtype=np.float32)
        per_channel[inside.numpy()] = full(x[inside].numpy(), known[:, inside].numpy(), self.epsilon)
        map = torch.from_numpy(per_channel.mean(axis=0))
        healthy = np.where(scan.brain, paste(known.mean(dim=0), low, scan.grid.shape).numpy(), scan.image)
        return Finding(paste(map, low, scan.grid.shape).numpy(), healthy=healthy)
