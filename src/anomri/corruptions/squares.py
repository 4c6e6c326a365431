"""Random masks of square patches on slices (IterMask2, section 2, "Spatial Random Masking for Training").

A centre is drawn in the brain, and around it a 2D normal density; patches with sides of 4, 8 and 16 pixels lie at
pixels drawn with the density's probability, `p(x, y) / sum p`. Their union inside the brain is the mask. The pixel
counts as one: row and column are drawn together. The published code draws them apart, and its patches do not follow the
density where the two are correlated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomri.errors import BadCall, BadInput

Mask = NDArray[np.bool_]

EDGE = 128
"""Pixels along the papers' slices, in which the numbers here are given."""
SIDES = (4, 8, 16)
"""Sides of the patches: many small ones, a few of the others."""
MEDIUM, LARGE = (5, 9), (3, 9)
"""How many patches of the second and the third side, each number as likely."""
CORRELATION = 0.99
"""Rows and columns are correlated by up to this, either way, so that the density never is a line."""


class Spread(NamedTuple):
    """How wide patches lie: pixels per unit of the density; range of the number of small ones over `sqrt(c11 c22)`."""

    unit: float
    least: float
    most: float


SPREADS = (Spread(10.0, 100.0, 200.0), Spread(10.0, 100.0, 200.0), Spread(2.5, 5.0, 20.0))
"""Drawn uniformly: wide two times in three. SDs are 5 to 32 pixels, or 1 to 8. That the many patches go with the wide
density is our reading of the code's numbers: so either fills its middle."""


def square_mask(
    brain: Tensor,
    rng: torch.Generator,
    *,
    sides: Sequence[int] = SIDES,
    edge: int = EDGE,
    spreads: Sequence[Spread] = SPREADS,
) -> Tensor:
    """A random union of squares inside the brain.

    Parameters
    ----------
    brain : `(I, J)` bool, with at least one pixel inside
    sides : of the small, medium and large squares, in pixels of a slice whose longer edge is `edge`
    edge : pixels along the longer edge of such a slice; on another slice sides and the density's units grow or shrink
        with it
    spreads : to draw one from, in such pixels too

    Returns `(I, J)` bool, a part of `brain`, never empty. Source: IterMask2, section 2; where it is silent, the numbers
    of its code: variances c11, c22 from U(0.3, 10) squared units, how many squares of each side (the paper: "around
    1000" in all). The correlation, from U(-0.99, 0.99), is ours. Raises `BadInput` where the brain is empty, `BadCall`
    for another number of axes or sides.
    """
    if brain.ndim != 2 or len(sides) != 3 or min(sides) < 1 or edge < 1 or len(spreads) < 1:
        raise BadCall(
            f"a mask of squares needs a brain mask (I, J), three sides, an edge and a spread; got "
            f"{tuple(brain.shape)}, {tuple(sides)}, {edge} and {len(spreads)}"
        )
    inside = brain.numpy()
    listed = np.flatnonzero(inside)
    if not len(listed):
        raise BadInput("a mask cannot be drawn: the brain mask is empty; check the brain extraction of the scan")
    centre = divmod(int(listed[_from(0, len(listed) - 1, rng)]), inside.shape[1])
    spread = spreads[_from(0, len(spreads) - 1, rng)]
    scale = max(inside.shape) / edge
    c11, c22, lean, share = torch.rand(4, dtype=torch.float64, generator=rng).tolist()
    c11, c22 = 0.3 + 9.7 * c11, 0.3 + 9.7 * c22
    c12 = CORRELATION * (2 * lean - 1) * (c11 * c22) ** 0.5
    small = round((c11 * c22) ** 0.5 * (spread.least + (spread.most - spread.least) * share))
    counts = [max(1, small), *(_from(low, high, rng) for low, high in (MEDIUM, LARGE))]
    covariance = np.array([[c11, c12], [c12, c22]]) * (spread.unit * scale) ** 2
    side = np.repeat([max(1, round(s * scale)) for s in sides], counts)
    mask = _painted(inside.shape, _places(inside.shape, centre, covariance, len(side), rng), side) & inside
    if not mask.any():
        # All fell beside a brain of a few pixels.
        mask = _painted(inside.shape, np.array([centre]), side[:1]) & inside
    return torch.from_numpy(mask)


def _from(low: int, high: int, rng: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (1,), generator=rng))


def _places(
    shape: Sequence[int], centre: Sequence[int], covariance: NDArray[np.float64], n: int, rng: torch.Generator
) -> NDArray[np.int64]:
    """Pixels `(n, 2)` of a slice, drawn with the probability of a normal density over its pixels."""
    # In NumPy: so little work each is not worth torch's threads.
    (a, b), (_, c) = np.linalg.inv(covariance)
    i, j = (np.arange(edge) - at for edge, at in zip(shape, centre, strict=True))
    upto = np.exp((-0.5 * a * i**2)[:, None] - b * np.outer(i, j) - 0.5 * c * j**2).cumsum()
    drawn = torch.rand(n, dtype=torch.float64, generator=rng).numpy() * upto[-1]
    # A pixel of probability 0 ends where the one before it did, and is passed over.
    pixel = np.searchsorted(upto, drawn, side="right")
    return np.stack(np.divmod(pixel.clip(max=len(upto) - 1), shape[1]), axis=1)


def _painted(shape: Sequence[int], places: NDArray[np.int64], side: NDArray[np.int64]) -> Mask:
    """The union of squares about places, clipped; an even one has one pixel more before its place than after."""
    first = places - side[:, None] // 2
    stop = np.minimum(first + side[:, None], shape)
    first = first.clip(min=0)
    # Corners with signs, whose running sums along both axes count the squares over each pixel.
    rows, columns = shape[0] + 1, shape[1] + 1
    plus = np.concatenate([first[:, 0] * columns + first[:, 1], stop[:, 0] * columns + stop[:, 1]])
    minus = np.concatenate([first[:, 0] * columns + stop[:, 1], stop[:, 0] * columns + first[:, 1]])
    signed = np.bincount(plus, minlength=rows * columns) - np.bincount(minus, minlength=rows * columns)
    over = signed.reshape(rows, columns).cumsum(axis=0).cumsum(axis=1)
    painted: Mask = over[:-1, :-1] > 0
    return painted
