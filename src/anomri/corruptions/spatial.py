"""Flips and rotations of an image together with its brain mask, and Gaussian blur."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def flip(x: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Left and right swapped: `x (C, I, J, K)` and `brain (I, J, K)` along I of a RAS array."""
    return x.flip(-3), brain.flip(-3)


def rotate(x: Tensor, brain: Tensor, rng: torch.Generator, degrees: float = 10.0) -> tuple[Tensor, Tensor]:
    """A random rotation about the grid's centre, each axis up to `degrees`; linear, 0 outside the brain.

    Parameters
    ----------
    x, brain : `(C, I, J, K)` float and `(I, J, K)` bool on an isotropic grid
    """
    angles = (2 * torch.rand(3, generator=rng) - 1) * torch.pi * degrees / 180
    turn = torch.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        one = torch.eye(3)
        one[a, a] = one[b, b] = torch.cos(angle)
        one[a, b], one[b, a] = -torch.sin(angle), torch.sin(angle)
        turn = turn @ one
    # affine_grid counts axes from the last and from -1 to 1 along each, so lengths come in.
    size = torch.tensor(brain.shape).flip(0).float()
    theta = torch.cat([turn * size[None] / size[:, None], torch.zeros(3, 1)], dim=1)
    grid = F.affine_grid(theta[None], [1, 1, *brain.shape], align_corners=False)
    both = torch.cat([x * brain, brain[None].float()])[None]
    moved = F.grid_sample(both, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    share = moved[-1]
    inside = share >= 0.5
    return torch.where(inside, moved[:-1] / share.clamp(min=0.5), 0.0), inside


def blur(x: Tensor, sigma: Sequence[float]) -> Tensor:
    """Gaussian blur of `(B, C, I, J, K)`, each channel alike, sigma in voxels along each axis; 0 outside."""
    shape = x.shape
    x = x.reshape(-1, 1, *shape[2:])
    for axis, s in enumerate(sigma):
        reach = max(1, int(3 * s + 0.5))
        t = torch.arange(-reach, reach + 1, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (t / max(s, 1e-3)) ** 2)
        edges, pad = [1] * 5, [0] * 6
        edges[2 + axis] = len(t)
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = reach
        x = F.conv3d(F.pad(x, pad), (kernel / kernel.sum()).reshape(edges))
    return x.reshape(shape)
