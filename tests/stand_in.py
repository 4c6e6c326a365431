"""A method that costs nothing, a change with a truth, and a few brains in files: for the tests of studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from anomri import files
from anomri.cohort import Cohort
from anomri.method import Method
from anomri.scan import Finding, Scan
from anomri.train import Job
from conftest import grid, lesion_at, phantom, world


class Brightness(Method):
    """Stands in for a method: the map is how bright a voxel is, times `gain`, the mask what is above 2 SD. It is as if weights depended
    on `cut`."""

    name, title, paper, year, dimensions, map_unit = "brightness", "Brightness", "none", 2026, "3D", "SD"
    weightless = frozenset({"gain"})
    looked: ClassVar[list[str]] = []

    def __init__(self, *, cut: float = 2.0, gain: float = 1.0) -> None:
        self.cut, self.gain = cut, gain

    def learn(self, healthy: Cohort, validation: Cohort | None, rng: torch.Generator, job: Job) -> Mapping[str, Any]:
        return {"seen": len(healthy)}

    def find(self, scan: Scan, rng: torch.Generator) -> Finding:
        assert scan.lesion is None
        Brightness.looked.append(scan.id)
        if "broken" in scan.id:
            raise RuntimeError("the network fell over")
        map = np.clip(scan.image[0], 0, None)
        return Finding(
            self.gain * map,
            map > self.cut,
            {"volume_ml": float((map > self.cut).sum()) * scan.voxel_ml},
            scan.image * 0.5,
        )


@dataclass(frozen=True)
class brighten:
    """Adds so much of the brain's SD to the ball of `lesion_at`, or, as an artefact, noise everywhere."""

    by: float
    noise: bool = False

    def __call__(self, scan: Scan, rng: torch.Generator) -> Scan:
        ball = lesion_at(world(scan.grid)) & scan.brain
        more = torch.randn(scan.image.shape, generator=rng).numpy() if self.noise else ball[None]
        image = scan.image + np.float32(self.by * scan.image[0][scan.brain].std()) * more
        return scan.with_(image=image * scan.brain, lesion=None if self.noise else ball)


def brains(folder: Path, count: int = 5) -> Path:
    """So many stripped brains, files of a plain folder: s0, s1, ..."""
    for number in range(count):
        scan = phantom(grid("LAS", oblique=7.0))
        noise = np.random.default_rng(number).normal(0, 30, scan.image.shape[1:])
        volume = np.where(scan.brain, scan.image[0] + noise, 0).astype(np.float32)
        files.write_image(folder / f"s{number}.nii.gz", volume, scan.grid)
    return folder
