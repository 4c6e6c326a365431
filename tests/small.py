"""A tiny model and tiny scan files for the tests of runs, results and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from anomri.cohort import Cohort, Entry
from anomri.methods.itermask3d import IterMask3D
from anomri.preprocess import preset, run
from conftest import brain_at, grid, image_at, lesion_at, world

MM = 6.0


def scan_file(
    path: Path, number: int = 0, *, codes: str = "LAS", oblique: float = 12.0, lesion: bool = False, **header: Any
) -> Path:
    """A stripped brain of its own with unequal axes, written by nibabel as scaled int16."""
    on = grid(codes, oblique=oblique)
    points = world(on)
    x = image_at(points) + np.random.default_rng(number).normal(0, 20, on.shape)
    x = np.where(brain_at(points), x + 400 * (lesion & lesion_at(points)), 0)
    image = nib.Nifti1Image((x * 4).round().astype(np.int16), on.affine)
    image.header.set_slope_inter(0.25, 0)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(on.affine, code=2)
    image.set_qform(on.affine, code=1)
    for name, value in header.items():
        image.header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def mask_file(path: Path, kind: str = "brain", *, codes: str = "LAS", oblique: float = 12.0) -> Path:
    """The brain's or the lesion's mask of `scan_file`."""
    on = grid(codes, oblique=oblique)
    inside = (brain_at if kind == "brain" else lesion_at)(world(on))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), on.affine), path)
    return path


def fitted(folder: Path, sequences: tuple[str, ...] = ("T1w",), **arguments: Any) -> IterMask3D:
    """A model of two channels' width that has seen two scans for a few steps; at such a slope it marks a fifth of a brain."""
    given = {"width": 2, "steps": 4, "batch": 1, "step_percent": 5.0, "gamma_mask": 0.3, "gamma_score": 0.1}
    method = IterMask3D(channels=len(sequences), **{**given, **arguments})
    method.preset_arguments = {"spacing": MM}
    entries = []
    for n in (90, 91):
        images = {s: str(scan_file(folder / f"healthy-{n}_{s}.nii.gz", n + i)) for i, s in enumerate(sequences)}
        entries.append(Entry(f"healthy-{n}", images))
    steps = preset("itermask3d", spacing=MM)
    method.fit(Cohort([run(steps, e.read()) for e in entries]))
    method.save(folder / "model")
    return method


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
