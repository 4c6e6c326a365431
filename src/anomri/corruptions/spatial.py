"""Where voxels go: flips and rotations with the brain mask, smooth displacements that do not fold; and Gaussian blur."""

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
    """Gaussian blur of `(B, C, I, J, K)`, each channel alike, sigma in voxels along each axis (0 leaves it as it is); 0 outside."""
    for axis, s in enumerate(sigma, start=2):
        if s <= 0:
            continue
        n, reach = x.shape[axis], max(1, int(3 * s + 0.5))
        t = torch.arange(-reach, reach + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (t / s) ** 2)
        weights = (kernel / kernel.sum()).tolist()
        out = x * weights[reach]
        # Sums of shifted volumes: a tenth of the time of a convolution of one channel.
        for off in range(1, min(reach, n - 1) + 1):
            left, right = x.narrow(axis, 0, n - off), x.narrow(axis, off, n - off)
            out.narrow(axis, off, n - off).add_(left, alpha=weights[reach + off])
            out.narrow(axis, 0, n - off).add_(right, alpha=weights[reach + off])
        x = out
    return x


def smooth_field(
    shape: Sequence[int],
    spacing: Sequence[float],
    every_mm: float,
    rng: torch.Generator,
    *,
    channels: int = 1,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Smooth random fields `(channels, I, J, K)`: normal values on points `every_mm` apart, joined by cubic B-splines.

    Every voxel has mean 0 and SD 1 over draws. They are drawn on the CPU, so that each device gives the same field.
    """
    bases = [_spline(n, mm / every_mm) for n, mm in zip(shape, spacing, strict=True)]
    field = torch.randn(channels, *(len(basis[0]) for basis in bases), generator=rng).to(device)
    for axis, basis in enumerate(bases, start=1):
        field = (field.movedim(axis, -1) @ basis.T.to(device)).movedim(-1, axis)
    return field.contiguous()


def _spline(n: int, step: float) -> Tensor:
    """`(n, points)`: uniform cubic B-splines at places `step` apart, in units of their knots; each row of length 1."""
    place = torch.arange(n, dtype=torch.float64) * step
    first = place.floor().long()
    t = place - first
    weights = torch.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], dim=1)
    basis = torch.zeros(n, int(first[-1]) + 4, dtype=torch.float64)
    basis.scatter_(1, first[:, None] + torch.arange(4), weights)
    unit: Tensor = basis / basis.norm(dim=1, keepdim=True)
    return unit.float()


def foldless(shift: Tensor, spacing: Sequence[float], *, slope: float = 0.7) -> Tensor:
    """A displacement made weaker as a whole, if need be, until it neither folds nor tears.

    Where the gradient of a displacement is shorter than 1, `p + shift(p)` is one to one.

    Parameters
    ----------
    shift : `(3, I, J, K)` in mm along I, J and K
    slope : the longest gradient (Frobenius norm) that is let be
    """
    squared = torch.zeros_like(shift[0])
    for axis, mm in enumerate(spacing, start=1):
        steps = (shift.diff(dim=axis) / mm).square().sum(dim=0)
        squared.narrow(axis - 1, 0, steps.shape[axis - 1]).add_(steps)
    return shift * min(1.0, slope / max(float(squared.max().sqrt()), 1e-6))


def warp(x: Tensor, shift: Tensor, spacing: Sequence[float], *, nearest: bool = False) -> Tensor:
    """`out(p) = x(p + shift(p))`: linear, or the nearest voxel for labels; 0 where it reaches outside.

    Parameters
    ----------
    x : `(C, I, J, K)`
    shift : `(3, I, J, K)` in mm along I, J and K
    """
    places = []
    for axis, (n, mm) in enumerate(zip(x.shape[1:], spacing, strict=True)):
        edges = [1, 1, 1]
        edges[axis] = n
        index = torch.arange(n, dtype=x.dtype, device=x.device).reshape(edges)
        places.append((index + shift[axis] / mm) * (2 / max(n - 1, 1)) - 1)
    # grid_sample counts axes from the last.
    grid = torch.stack(places[::-1], dim=-1)[None]
    mode = "nearest" if nearest else "bilinear"
    out: Tensor = F.grid_sample(x[None], grid, mode=mode, padding_mode="zeros", align_corners=True)[0]
    return out
