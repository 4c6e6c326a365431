"""Random masks to learn reconstruction from (IterMask3D, section 3.5, eq. 15 and 16).

A centre is drawn in the brain, and 100,000 points from an anisotropic normal around it; the cells that they hit are the mask.
A cell is 2, 4 or 8 mm wide (the paper's up-sampling factors at 1 mm), so that sizes are physical on any grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anomri.errors import BadInput

CELLS_MM = (4.0, 4.0, 2.0, 8.0)
"""Cell widths in mm, drawn uniformly: 4 mm half of the time."""


def gaussian_mask(
    brain: Tensor,
    spacing: Sequence[float],
    rng: torch.Generator,
    *,
    cells_mm: Sequence[float] = CELLS_MM,
    points: int = 100_000,
) -> Tensor:
    """A random blob inside the brain.

    Parameters
    ----------
    brain : `(I, J, K)` bool, with at least one voxel inside
    spacing : mm per voxel along each axis
    cells_mm : widths of a cell to draw from
    points : how many points are drawn from the normal; those outside the brain are discarded, nothing wraps

    Returns `(I, J, K)` bool, a part of `brain`. Source: IterMask3D, eq. 15 (points), eq. 16 (covariance; eigenvalues from
    U(0.3, 10) in squared cells). Raises `BadInput` where the brain is empty.
    """
    inside = brain.nonzero()
    if len(inside) == 0:
        raise BadInput("a mask cannot be drawn: the brain mask is empty; check the brain extraction of the scan")
    cell = float(cells_mm[int(torch.randint(len(cells_mm), (1,), generator=rng))])
    size = torch.tensor([mm / cell for mm in spacing])
    voxel = inside[torch.randint(len(inside), (1,), generator=rng)][0]
    centre = torch.floor((voxel + 0.5) * size) + 0.5
    variance = 0.3 + 9.7 * torch.rand(3, generator=rng)
    r = torch.randn(points, 3, generator=rng)
    hit = torch.floor(centre + (r * variance.sqrt()) @ random_rotation(rng).T).long()
    shape = [int(torch.ceil(n * s)) for n, s in zip(brain.shape, size, strict=True)]
    hit = hit[((hit >= 0) & (hit < torch.tensor(shape))).all(dim=1)]
    cells = torch.zeros(shape, dtype=torch.bool)
    cells[hit[:, 0], hit[:, 1], hit[:, 2]] = True
    i, j, k = ((torch.arange(n) + 0.5).mul(s).long() for n, s in zip(brain.shape, size, strict=True))
    return cells[i][:, j][:, :, k] & brain


def random_rotation(rng: torch.Generator) -> Tensor:
    """A `(3, 3)` orthogonal matrix, uniform over all of them (Haar), from the QR of a normal matrix."""
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=rng))
    rotation: Tensor = q * r.diagonal().sign()
    return rotation
