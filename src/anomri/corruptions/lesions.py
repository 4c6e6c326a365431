"""Lesions with a truth: a change of intensity pasted into a healthy scan where a mask says so."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from anomri.corruptions.spatial import blur


def paste(
    x: Tensor, brain: Tensor, lesion: Tensor, change: float, spacing: Sequence[float], *, edge_mm: float = 2.0
) -> tuple[Tensor, Tensor]:
    """A lesion of one mean intensity in a scan, with soft edges and what is left of the tissue's texture.

    Parameters
    ----------
    x : `(C, I, J, K)` intensities
    brain, lesion : `(I, J, K)` bool
    change : how far the lesion lies from the brain's mean, in SD of the brain (positive is brighter), per channel alike
    edge_mm : width over which the edge fades

    Returns the new image and the truth, `(I, J, K)` bool: the part of `lesion` inside the brain.
    """
    inside, out = lesion & brain, x.clone()
    if not inside.any():
        return out, inside
    where = inside.nonzero()
    reach = torch.tensor([math.ceil(2 * edge_mm / mm) for mm in spacing])
    low, high = (where.amin(dim=0) - reach).clamp(min=0).tolist(), (where.amax(dim=0) + reach + 1).tolist()
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    soft = blur(inside[box][None, None].float(), [edge_mm / 2 / mm for mm in spacing])[0, 0] * brain[box]
    soft = torch.maximum(soft, 0.5 * inside[box].float())
    for channel in range(x.shape[0]):
        values, part = x[channel][brain], x[channel][box]
        target = values.mean() + change * values.std()
        texture = 0.25 * (part - values.mean())
        out[channel][box] = part + soft * (target + texture - part)
    return out, inside


def blob(
    shape: Sequence[int],
    centre: Sequence[float],
    ml: float,
    spacing: Sequence[float],
    rng: torch.Generator,
    *,
    rough: float = 0.35,
) -> Tensor:
    """A random smooth shape of a given volume: a ball whose surface is moved in and out by smooth noise.

    Parameters
    ----------
    shape : `(I, J, K)`
    centre : voxel coordinates
    ml : volume; the ball's edge is where this volume is reached, so it is met to a voxel
    rough : how far the surface moves, as a share of the radius; below 2/3

    Returns `(I, J, K)` bool.
    """
    axes = [(torch.arange(n) - c) * mm for n, c, mm in zip(shape, centre, spacing, strict=True)]
    away = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    distance = away.norm(dim=-1)
    # The noise is a function of direction alone, so that the shape is one piece.
    noise = torch.randn(1, 1, 4, 4, 4, generator=rng).clamp(-1.5, 1.5)
    direction = (away / distance.clamp(min=1e-6)[..., None])[None]
    field = distance / (1 + rough * F.grid_sample(noise, direction, align_corners=True)[0, 0])
    voxels = max(1, round(1000 * ml / math.prod(spacing)))
    level = field.flatten().kthvalue(min(voxels, field.numel())).values
    lesion: Tensor = field < level
    # Of voxels that are equally far, only as many as the volume wants.
    ties = (field == level).flatten().nonzero()[:, 0]
    lesion.view(-1)[ties[: voxels - int(lesion.sum())]] = True
    return lesion
