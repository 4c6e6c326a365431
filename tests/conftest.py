"""Tiny brains and trees of NIfTI files, written by the tests; axes are unequal everywhere, since equal ones hide swaps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import settings
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from numpy.typing import NDArray

from anomri.scan import Grid, Scan

# How long an example takes is a matter of the machine, and no promise.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

CENTRE = np.array([4.0, -11.0, 7.0])
RADII = np.array([62.0, 80.0, 54.0])
LESION, LESION_RADIUS = CENTRE + np.array([30.0, 25.0, -16.0]), 15.0
SHAPE, SPACING = (34, 38, 30), (5.0, 5.5, 6.0)


def grid(
    codes: str = "RAS", *, oblique: float = 0.0, shape: tuple[int, int, int] = SHAPE, spacing: Any = SPACING
) -> Grid:
    """A grid around the phantom with axes as in `codes`, turned by `oblique` degrees about an odd axis; `shape` in RAS order."""
    affine = np.diag([*spacing, 1.0])
    angle = np.radians(oblique)
    axis = np.array([0.5, -0.7, 0.51])
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    affine[:3, :3] = (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross) @ affine[:3, :3]
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    wanted = axcodes2ornt(codes)
    own = [shape[int(axis)] for axis, _ in wanted]
    turn = inv_ornt_aff(wanted, own)
    return Grid((own[0], own[1], own[2]), affine @ np.linalg.inv(turn))


def world(on: Grid) -> NDArray[np.float64]:
    """World coordinates of each voxel, `(I, J, K, 3)`."""
    index = np.stack(np.meshgrid(*map(np.arange, on.shape), indexing="ij"), axis=-1)
    return index @ on.affine[:3, :3].T + on.affine[:3, 3]


def brain_at(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """An ellipsoid of 1.1 l that lacks a corner: no flip or swap of axes maps it onto itself."""
    part = (points - CENTRE) / RADII
    return ((part**2).sum(axis=-1) < 1) & (part @ np.array([0.6, 0.8, 0.5]) < 0.75)


def image_at(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth intensities around 800, the same nowhere on both sides."""
    x, y, z = np.moveaxis((points - CENTRE) / RADII, -1, 0)
    return 800 + 220 * x - 130 * y + 90 * z + 60 * np.sin(2 * x + 3 * y) * np.cos(2 * z)


def lesion_at(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A ball of 14 ml off the centre."""
    return np.linalg.norm(points - LESION, axis=-1) < LESION_RADIUS


def phantom(on: Grid, **parts: Any) -> Scan:
    """The phantom sampled on a grid, stripped; its background is 0."""
    points = world(on)
    brain = brain_at(points)
    image = np.where(brain, image_at(points), 0).astype(np.float32)
    return Scan(image, on.affine, **{"id": "phantom", "brain": brain, **parts})


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes an array with nibabel (not with our own writer) and returns its path."""

    def write(name: str, data: Any, affine: Any = None, *, kind: Any = nib.Nifti1Image, **header: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = kind(data, np.diag([2.0, 2.5, 3.0, 1.0]) if affine is None else affine)
        for field, value in header.items():
            image.header[field] = value
        nib.save(image, path)
        return path

    return write


@pytest.fixture
def seeded():
    """One thread and torch's global seed, as they were before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(before)
