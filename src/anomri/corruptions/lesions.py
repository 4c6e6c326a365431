"""Lesions with a truth: a change of intensity pasted into a healthy scan where a mask says so."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def paste(x: Tensor, brain: Tensor, lesion: Tensor, change: float, spacing: Sequence[float], *, edge_mm: float = 2.0) -> tuple[Tensor, Tensor]:
    """A lesion of one mean intensity in a scan, with soft edges and what is left of the tissue's texture.

    Parameters
    ----------
    x : `(C, I, J, K)` intensities
    brain, lesion : `(I, J, K)` bool
    change : how far the lesion lies from the brain's mean, in SD of the brain (positive is brighter), per channel alike
    edge_mm : width over which the edge fades

    Returns the new image and the truth, `(I, J, K)` bool: the part of `lesion` inside the brain.
    """
    inside = lesion & brain
    soft = _blur(inside[None, None].float(), [edge_mm / 2 / mm for mm in spacing])[0] * brain
    soft = torch.maximum(soft, 0.5 * inside[None].float())
    out = x.clone()
    for channel in range(x.shape[0]):
        values = x[channel][brain]
        target = values.mean() + change * values.std()
        texture = 0.25 * (x[channel] - values.mean())
        out[channel] = torch.where(brain, x[channel] + soft[0] * (target + texture - x[channel]), x[channel])
    return out, inside


def blob(shape: Sequence[int], centre: Sequence[float], ml: float, spacing: Sequence[float], rng: torch.Generator, *, rough: float = 0.35) -> Tensor:
    """A random smooth shape of a given volume: a ball whose surface is moved in and out by smooth noise.

    Parameters
    ----------
    shape : `(I, J, K)`
    centre : voxel coordinates
    ml : volume; the ball's edge is where this volume is reached, so it is met to a voxel
    rough : how far the surface moves, as a share of the radius

    Returns `(I, J, K)` bool.
    """
    radius = (3000 * ml / 4 / torch.pi) ** (1 / 3)
    axes = [(torch.arange(n) - c) * mm for n, c, mm in zip(shape, centre, spacing, strict=True)]
    distance = torch.sqrt(sum(a.square().reshape([-1 if i == j else 1 for j in range(3)]) for i, a in enumerate(axes)))  # type: ignore[arg-type]
    coarse = [max(2, round(n * mm / radius)) for n, mm in zip(shape, spacing, strict=True)]
    noise = F.interpolate(torch.randn(1, 1, *coarse, generator=rng), size=list(shape), mode="trilinear")[0, 0]
    field = distance * (1 + rough * noise.clamp(-1.5, 1.5))
    voxels = max(1, round(1000 * ml / float(torch.tensor(spacing).prod())))
    return field <= field.flatten().kthvalue(min(voxels, field.numel())).values


def _blur(x: Tensor, sigma: Sequence[float]) -> Tensor:
    """Gaussian blur of `(B, C, I, J, K)`, sigma in voxels; 0 outside."""
    for axis, s in enumerate(sigma):
        reach = max(1, int(3 * s + 0.5))
        t = torch.arange(-reach, reach + 1, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (t / max(s, 1e-3)) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(t)
        pad = [0] * 6
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = reach
        x = F.conv3d(F.pad(x, pad), (kernel / kernel.sum()).reshape(shape))
    return x
