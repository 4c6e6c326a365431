"""Covariance model (Saase et al., 2020): how far a scan is from healthy ones, voxel by voxel, in their covariance.

`d^T (S + epsilon I)^-1 d`, with `d` the scan less the mean of the healthy training scans and `S` their covariance, as the root of what
each voxel adds to it (thesis, chapter 8.5, the baseline "CM"). Voxels are compared where they lie: scans are to be registered. S is
never built, its rank is below the number of scans (`scoring.mahalanobis`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from anomri.cohort import Cohort
from anomri.errors import BadCall, BadInput, unknown
from anomri.method import Method
from anomri.preprocess.space import box, cut, paste
from anomri.scan import Finding, Scan
from anomri.scoring.cleaning import cleaning as cleaning_of
from anomri.scoring.mahalanobis import full
from anomri.train import Job

ALIGNS = ("brain", "world")
MARGIN = 8
"""Voxels by which a brain may be larger than any healthy one on each side: there it is compared with background."""


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
    align : which voxels of two scans are compared. "brain", those as far from the middle of the brain's box; "world", those at the same
        millimetres, for scans that were registered to one template (`preprocess.preset(..., register=True)`), as the source has them
    epsilon : added to the covariance's diagonal, squared normalised intensity; ours, the source names none
    cleaning : of the map and the mask, one of `scoring.cleaning.CLEANINGS`
    """

    name = "covariance_model"
    title = "Covariance model"
    paper = "Saase et al., Simple statistical methods for unsupervised brain anomaly detection on MRI are competitive to deep learning methods"
    year = 2020
    dimensions = "3D"
    needs = "registered healthy scans"
    map_unit = "Mahalanobis distance"

    weightless = frozenset({"epsilon", "cleaning"})

    def __init__(self, *, align: str = "brain", epsilon: float = 1e-2, cleaning: str = "none") -> None:
        if align not in ALIGNS:
            raise unknown("alignment", align, ALIGNS)
        if not epsilon > 0:
            raise BadCall(f"epsilon is {epsilon:g}, needs to be above 0: the covariance of a few scans has no inverse")
        cleaning_of(cleaning)
        self.align, self.epsilon, self.cleaning = align, epsilon, cleaning

    def build(self, data: Mapping[str, Any]) -> None:
        self.reference = Reference(data["scans"], len(data["sequences"]), tuple(data["box"]))

    def learn(self, healthy: Cohort, validation: Cohort | None, rng: torch.Generator, job: Job) -> Mapping[str, Any]:
        if len(healthy) < 2:
            raise BadInput(f"a covariance needs 2 healthy scans or more, {len(healthy)} is given; add scans to fit on")
        if self.align == "world":
            corners = [np.array(box(scan.brain)) + _origin(scan, healthy[0]) for scan in healthy]
            first = np.min([low for low, _ in corners], axis=0) - MARGIN
            size = np.max([high for _, high in corners], axis=0) + MARGIN - first
            where = {"first": [int(n) for n in first], "affine": healthy[0].affine.tolist()}
        else:
            size, where = np.max([np.subtract(*box(scan.brain)[::-1]) for scan in healthy], axis=0) + 2 * MARGIN, {}
        self.data = {"box": [int(n) for n in size], **where}
        self.build({"scans": len(healthy), "sequences": list(healthy[0].sequences), **self.data})
        for index, scan in enumerate(healthy):
            self.reference.scans[index] = cut(torch.tensor(scan.image * scan.brain), *self._place(scan))
        return self.data

    def _place(self, scan: Scan) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """The part of a scan's grid that is compared; raises `BadInput` for a brain that reaches past it."""
        size = np.array(self.data["box"])
        if self.align == "world":
            low = np.array(self.data["first"]) - _origin(scan, np.array(self.data["affine"]))
            high = low + size
        else:
            low, high = box(scan.brain, size=size)
        first, last = box(scan.brain)
        if (first < low).any() or (last > high).any():
            raise BadInput(
                f"scan '{scan.id}': its brain reaches past the healthy ones by more than {MARGIN} voxels; check its registration and brain mask"
            )
        return low, high

    def find(self, scan: Scan, rng: torch.Generator) -> Finding:
        low, high = self._place(scan)
        brain = cut(torch.tensor(scan.brain), low, high)
        x, known = cut(torch.tensor(scan.image), low, high), self.reference.scans
        inside = brain.expand(x.shape)
        per_channel = np.zeros(x.shape, dtype=np.float32)
        per_channel[inside.numpy()] = full(x[inside].numpy(), known[:, inside].numpy(), self.epsilon)
        map = torch.from_numpy(per_channel.mean(axis=0))
        healthy = np.where(scan.brain, paste(known.mean(dim=0), low, scan.grid.shape).numpy(), scan.image)
        return Finding(paste(map, low, scan.grid.shape).numpy(), healthy=healthy)


def _origin(scan: Scan, reference: Scan | NDArray[Any]) -> NDArray[np.int_]:
    """Where a scan's first voxel lies on a reference's grid, in voxels; raises `BadInput` where the axes differ."""
    affine = reference.affine if isinstance(reference, Scan) else reference
    if not np.allclose(scan.affine[:3, :3], affine[:3, :3], atol=1e-3):
        raise BadInput(
            f"scan '{scan.id}' lies on other axes than the healthy scans; preprocess all alike, or take align='brain'"
        )
    return np.round(np.linalg.solve(affine, scan.affine)[:3, 3]).astype(int)
