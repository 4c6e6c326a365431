"""Brain extraction that failed: tissue left on, brain taken off, and how far several extractions disagree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from anomri.corruptions.artefacts.signals import (
    away,
    background,
    distance,
    level,
    signal_of,
    stripped,
    surface_voxel,
)
from anomri.corruptions.lesions import blob
from anomri.corruptions.spatial import smooth_field
from anomri.errors import BadCall

GAP_MM = 3.0
"""Fluid and inner skull between brain and what shines: nearly no signal."""


def failed_strip(
    x: Tensor,
    brain: Tensor,
    spacing: Sequence[float],
    rng: torch.Generator,
    *,
    residual_mm: float = 0.0,
    missing_ml: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """A scan as a failed brain extraction leaves it: image and mask both changed.

    Parameters
    ----------
    x, brain : `(C, I, J, K)` stripped, or with its head; `(I, J, K)` bool
    residual_mm : thickness of the tissue left on, a lens four times as wide around a random place of the surface; 0 is none
    missing_ml : volume of a rough ball around such a place; what of it lies in the brain is taken off, 0 is none

    Returns the image, and the mask as the failed extraction has it. In a stripped image the tissue is made up: a dark gap of 3 mm (fluid and
    bone), then scalp as bright as white matter, with texture; an image with its head shows its own, and only the mask grows. Missing
    brain has the background's value. Ours, after the failures that IterMask3D v2, section 5.2, collects. Raises `BadInput`
    where the brain has no surface: a mask of the whole grid.
    """
    if residual_mm > 0:
        x, brain = _with_residue(x, brain, spacing, rng, residual_mm)
    if missing_ml > 0:
        centre = surface_voxel(brain, rng)
        bite = blob(brain.shape, centre.tolist(), missing_ml, spacing, rng).to(brain.device) & brain
        x, brain = torch.where(bite, background(x, brain), x), brain & ~bite
    return x, brain


def _with_residue(
    x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, thick_mm: float
) -> tuple[Tensor, Tensor]:
    centre = surface_voxel(brain, rng)
    near = away(brain.shape, spacing, centre).norm(dim=-1) / (4 * thick_mm)
    depth = distance(brain, spacing, thick_mm)
    shell = ~brain & (depth <= thick_mm * (1 - near**2).clamp(min=0).sqrt())
    if not stripped(x, brain):
        return x, brain | shell
    signal, _ = signal_of(x, brain)
    mean, sd = level(signal, brain)
    lumps = smooth_field(brain.shape, spacing, 8.0, rng, channels=len(x), device=x.device)
    texture = 1 + 0.2 * lumps + 0.1 * torch.randn(x.shape, generator=rng).to(x.device)
    tissue = torch.where(depth <= GAP_MM, 0.15 * mean, mean + 1.5 * sd) * texture.clamp(min=0)
    return torch.where(shell, tissue + x.amin(dim=(-3, -2, -1), keepdim=True), x), brain | shell


def strip_disagreement(masks: Sequence[Tensor]) -> float:
    """How far several brain extractions of one scan disagree: 1 - the mean Dice over all pairs; higher is worse, 0 is agreement.

    Parameters
    ----------
    masks : two or more `(I, J, K)` bool, on one grid; two empty ones agree

    IterMask3D v2, section 5.2, takes the scans with the lowest mean pairwise Dice as its failed extractions. Raises `BadCall` for fewer than
    two masks, or masks of different shapes.
    """
    shapes = [tuple(mask.shape) for mask in masks]
    if len(masks) < 2 or len(set(shapes)) > 1:
        told = f"got {len(masks)}" if len(masks) < 2 else f"got {' and '.join(map(str, dict.fromkeys(shapes)))}"
        raise BadCall(f"disagreement needs two or more masks of one shape, {told}")
    overlaps = []
    for a, b in combinations([mask.bool() for mask in masks], 2):
        both, total = int((a & b).sum()), int(a.sum()) + int(b.sum())
        overlaps.append(2 * both / total if total else 1.0)
    return 1 - sum(overlaps) / len(overlaps)
