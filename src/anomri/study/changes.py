"""What a case does to a scan: an artefact, a lesion, several things in turn. A change tells by its `repr` what it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

from anomri import files
from anomri.corruptions.artefacts import corrupt_scan
from anomri.corruptions.lesions import plant
from anomri.errors import BadInput
from anomri.preprocess import space
from anomri.scan import Matrix, Moved, Scan
from anomri.study.plan import Change


@dataclass(frozen=True)
class artefact:
    """An artefact of `corruptions.artefacts`, at a severity (1 is the papers' Table 1)."""

    name: str
    severity: float = 1.0

    def __call__(self, scan: Scan, rng: torch.Generator) -> Scan:
        changed: Scan = corrupt_scan(scan, self.name, rng, self.severity)
        return changed


@dataclass(frozen=True)
class lesion:
    """A random lesion of `corruptions.lesions.plant`; the scan comes back with its truth.

    Parameters
    ----------
    kind, contrast : of `lesions.KINDS` and `lesions.CONTRASTS`
    ml : volume
    change : SD of the brain that it lies from the tissue of its place; None for the kind's own
    mass_effect_mm : how far tissue is pushed away
    """

    kind: str = "stroke"
    contrast: str = "hyper"
    ml: float = 10.0
    change: float | None = None
    mass_effect_mm: float = 0.0

    def __call__(self, scan: Scan, rng: torch.Generator) -> Scan:
        image, truth = plant(
            torch.tensor(scan.image),
            torch.tensor(scan.brain),
            scan.spacing,
            rng,
            kind=self.kind,
            contrast=self.contrast,
            ml=self.ml,
            change=self.change,
            mass_effect_mm=self.mass_effect_mm,
        )
        return scan.with_(image=image.numpy(), lesion=truth.numpy())


@dataclass(frozen=True)
class mask_of_mni:
    """A real lesion's mask of MNI space, drawn from a folder, put where it lies in this brain by an affine registration.

    Parameters
    ----------
    variable : the environment variable with the folder of masks, `*.nii.gz`, all on MNI152
    ml : the least and the largest volume, in MNI space
    contrast, change : as in `lesion`
    """

    variable: str
    ml: tuple[float, float]
    contrast: str = "hyper"
    change: float | None = None

    def __call__(self, scan: Scan, rng: torch.Generator) -> Scan:
        folder = os.environ.get(self.variable)
        if not folder:
            raise BadInput(
                f"{self.variable} is not set; give --data {self.variable}=FOLDER, with lesion masks of MNI space"
            )
        fitting = [path for path, ml in _volumes(folder) if self.ml[0] <= ml <= self.ml[1]]
        if not fitting:
            raise BadInput(f"no lesion mask of {self.ml[0]:g} to {self.ml[1]:g} ml (*.nii.gz) in '{folder}'")
        chosen = fitting[int(torch.randint(len(fitting), (1,), generator=rng))]
        data, grid, _ = files.read_image(chosen)
        # The registration takes MNI coordinates to the scan's; here the scan's grid is filled from MNI space.
        inside = (
            space.between(data > 0.5, grid, scan.grid, "mask", np.linalg.inv(_world(scan)).astype(np.float64))
            & scan.brain
        )
        if not inside.any():
            raise BadInput(f"scan '{scan.id}': lesion mask '{chosen.name}' lies outside its brain")
        image, truth = plant(
            torch.tensor(scan.image),
            torch.tensor(scan.brain),
            scan.spacing,
            rng,
            kind="stroke",
            contrast=self.contrast,
            lesion=torch.tensor(inside),
            change=self.change,
        )
        return scan.with_(image=image.numpy(), lesion=truth.numpy())


@lru_cache(maxsize=4)
def _world(scan: Scan) -> Matrix:
    """MNI coordinates to a scan's own, in mm; found once for all that is put into the scan."""
    moved = space.register(scan).history[-1]
    assert isinstance(moved, Moved)
    return moved.world


@cache
def _volumes(folder: str) -> list[tuple[Path, float]]:
    """Every mask of a folder, and its volume in ml."""
    found = []
    for path in sorted(Path(folder).glob("*.nii.gz")):
        data, grid, _ = files.read_image(path)
        found.append((path, float((data > 0.5).sum()) * grid.voxel_ml))
    return found


@dataclass(frozen=True)
class both:
    """Several changes, one after another."""

    changes: Sequence[Change]

    def __call__(self, scan: Scan, rng: torch.Generator) -> Scan:
        for change in self.changes:
            scan = change(scan, rng)
        return scan
