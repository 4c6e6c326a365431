"""Random masks to learn reconstruction from (IterMask3D, section 3.5, eq. 15 and 16).

A centre is drawn in the brain, and 100,000 points from an anisotropic normal around it; the cells that they hit are the mask.
A cell is 2, 4 or 8 mm wide (the paper's up-sampling factors at 1 mm), so that sizes are physical on any grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomri.errors import BadInput

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

CELLS_MM = (4.0, 4.0, 2.0, 8.0)
"""Cell widths in mm, drawn uniformly: 4 mm half of the time."""

HALF = np.float32(0.5)


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
    cell = float(cells_mm[int(torch.randint(len(cells_mm), (1,), generator=rng))])
    size = np.array([mm / cell for mm in spacing], dtype=np.float32)
    inside = brain.numpy()
    centre = np.floor((random_voxel(inside, rng) + HALF) * size) + HALF
    sd = (0.3 + 9.7 * torch.rand(3, generator=rng)).sqrt()
    r = torch.randn(points, 3, generator=rng)
    # In NumPy from here on: so little work each is not worth torch's threads, which wait for each other every time.
    hit = np.floor(_turned(r.numpy(), (random_rotation(rng) * sd).numpy()) + centre[:, None]).astype(np.int32)
    # A box around what was hit, a few dozen cells wide; what lies past the grid drops out of it.
    low, high = hit.min(axis=1), hit.max(axis=1) + 1
    i, j, k = hit - low[:, None]
    shape = high - low
    cells = (np.bincount((i * shape[1] + j) * shape[2] + k, minlength=shape.prod()) > 0).reshape(shape)
    box = [slice(0)] * 3
    # From the last axis to the first: all but the last copy are small.
    for axis in (2, 1, 0):
        cell_of = ((np.arange(inside.shape[axis], dtype=np.float32) + HALF) * size[axis]).astype(np.int32)
        first, last = np.searchsorted(cell_of, [low[axis], high[axis]])
        box[axis] = slice(first, last)
        cells = cells.take(cell_of[first:last] - low[axis], axis)
    mask = np.zeros_like(inside)
    mask[tuple(box)] = cells & inside[tuple(box)]
    return torch.from_numpy(mask)


def _turned(r: Array, matrix: Array) -> Array:
    """`matrix (3, 3)` times points `(n, 3)`, as `(3, n)`; in one order of sums on every machine."""
    x, y, z = np.ascontiguousarray(r.T)
    return np.stack([a * x + b * y + c * z for a, b, c in matrix])


def random_voxel(brain: Mask, rng: torch.Generator) -> Array:
    """Indices `(3,)` of a voxel of the brain, each as likely: the n-th in their order, n drawn uniformly.

    Counted plane by plane, so that only one plane's voxels are listed.
    """
    upto = np.cumsum([np.count_nonzero(plane) for plane in brain])
    if not upto[-1]:
        raise BadInput("a mask cannot be drawn: the brain mask is empty; check the brain extraction of the scan")
    n = int(torch.randint(int(upto[-1]), (1,), generator=rng))
    i = int(np.searchsorted(upto, n, side="right"))
    # From the plane's end, where the count is known.
    j, k = np.argwhere(brain[i])[n - upto[i]]
    return np.array([i, j, k], dtype=np.float32)


def random_rotation(rng: torch.Generator) -> Tensor:
    """A `(3, 3)` orthogonal matrix, uniform over all of them (Haar), from the QR of a normal matrix."""
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=rng))
    rotation: Tensor = q * r.diagonal().sign()
    return rotation
