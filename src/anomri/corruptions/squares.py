"""Random masks of square patches on slices (IterMask2, section 2, "Spatial Random Masking for Training").

A centre is drawn in the brain, and around it a 2D normal density; patches with sides of 4, 8 and 16 pixels lie at
pixels drawn with the density's probability, `p(x, y) / sum p`. Their union inside the brain is the mask. The pixel
counts as one: row and column are drawn together. The published code draws them apart, and its patches do not follow the
density where the two are correlated.

Sizes are physical: the paper's slices are 128 pixels over 240 mm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomri.errors import BadCall, BadInput

Mask = NDArray[np.bool_]

SLICE_MM = 240.0
"""Width of the paper's slices, of 128 pixels."""
PIXEL_MM = SLICE_MM / 128
"""Width of a pixel of theirs, in which the numbers here are given."""
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
    spacing: Sequence[float],
    rng: torch.Generator,
    *,
    sides: Sequence[int] = SIDES,
    spreads: Sequence[Spread] = SPREADS,
) -> Tensor:
    """A random union of squares inside the brain.

    Parameters
    ----------
    brain : `(I, J)` bool, with at least one pixel inside
    spacing : mm per pixel along each axis
    sides : of the small, medium and large squares, in pixels of `PIXEL_MM`. On another grid each axis has its own
        number of pixels, the nearest one, 1 or more
    spreads : to draw one from, in such pixels too

    Returns `(I, J)` bool, a part of `brain`, never empty. Source: IterMask2, section 2; where it is silent, the numbers
    of its code: variances c11, c22 from U(0.3, 10) squared units, how many squares of each side. These numbers make
    500 squares in all on average, with a median of 430, and 1000 or more in one mask of seven; the paper says "around
    1000". The correlation, from U(-0.99, 0.99), is ours. The probabilities sum to 1 over the array given, or over the
    240 mm about its middle where it is smaller, as in the paper's slices: the box of a brain has the same masks as its
    slice, as long as the brain is in the middle.

    Raises `BadInput` where the brain is empty, `BadCall` for another number of axes or sides, and for a spacing that is
    not two numbers above 0.
    """
    if brain.ndim != 2 or len(sides) != 3 or min(sides) < 1 or len(spreads) < 1:
        raise BadCall(
            f"a mask of squares needs a brain mask (I, J), three sides and a spread; got {tuple(brain.shape)}, "
            f"{tuple(sides)} and {len(spreads)}"
        )
    if len(spacing) != 2 or not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise BadCall(f"a mask of squares needs a spacing of two numbers above 0, in mm; got {tuple(spacing)}")
    inside = brain.numpy()
    listed = np.flatnonzero(inside)
    if not len(listed):
        raise BadInput("a mask cannot be drawn: the brain mask is empty; check the brain extraction of the scan")
    centre = divmod(int(listed[_from(0, len(listed) - 1, rng)]), inside.shape[1])
    spread = spreads[_from(0, len(spreads) - 1, rng)]
    scale = [PIXEL_MM / mm for mm in spacing]
    # About the box of a brain, as much as in a slice: squares that fall there would else fall in the brain too.
    beside = [max(0, round(SLICE_MM / mm) - n) for mm, n in zip(spacing, inside.shape, strict=True)]
    low = [-(n // 2) for n in beside]
    high = [first + n + more for first, n, more in zip(low, inside.shape, beside, strict=True)]
    c11, c22, lean, share = torch.rand(4, dtype=torch.float64, generator=rng).tolist()
    c11, c22 = 0.3 + 9.7 * c11, 0.3 + 9.7 * c22
    c12 = CORRELATION * (2 * lean - 1) * (c11 * c22) ** 0.5
    small = round((c11 * c22) ** 0.5 * (spread.least + (spread.most - spread.least) * share))
    counts = [max(1, small), *(_from(least, most, rng) for least, most in (MEDIUM, LARGE))]
    covariance = np.array([[c11, c12], [c12, c22]]) * spread.unit**2 * np.outer(scale, scale)
    side = np.repeat([[max(1, round(s * times)) for times in scale] for s in sides], counts, axis=0)
    mask = _painted(inside.shape, _places(low, high, centre, covariance, len(side), rng), side) & inside
    if not mask.any():
        # All fell beside a brain of a few pixels.
        mask = _painted(inside.shape, np.array([centre]), side[:1]) & inside
    return torch.from_numpy(mask)


def _from(low: int, high: int, rng: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (1,), generator=rng))


def _places(
    low: Sequence[int],
    high: Sequence[int],
    centre: Sequence[int],
    covariance: NDArray[np.float64],
    n: int,
    rng: torch.Generator,
) -> NDArray[np.int64]:
    """Pixels `(n, 2)` from `low` to below `high`, drawn with the probability of a normal density over them."""
    # In NumPy: so little work each is not worth torch's threads.
    (a, b), (_, c) = np.linalg.inv(covariance)
    i, j = (np.arange(first, stop) - at for first, stop, at in zip(low, high, centre, strict=True))
    upto = np.exp((-0.5 * a * i**2)[:, None] - b * np.outer(i, j) - 0.5 * c * j**2).cumsum()
    drawn = torch.rand(n, dtype=torch.float64, generator=rng).numpy() * upto[-1]
    # A pixel of probability 0 ends where the one before it did, and is passed over.
    pixel = np.searchsorted(upto, drawn, side="right")
    places: NDArray[np.int64] = np.stack(np.divmod(pixel.clip(max=len(upto) - 1), len(j)), axis=1) + np.array(low)
    return places


def _painted(shape: Sequence[int], places: NDArray[np.int64], side: NDArray[np.int64]) -> Mask:
    """The union of squares about places `(n, 2)`, with sides along each axis `(n, 2)`, clipped; places may lie
    past the array.

    An even one has one pixel more before its place than after.
    """
    first = places - side // 2
    first, stop = first.clip(0, shape), (first + side).clip(0, shape)
    # Corners with signs, whose running sums along both axes count the squares over each pixel.
    rows, columns = shape[0] + 1, shape[1] + 1
    plus = np.concatenate([first[:, 0] * columns + first[:, 1], stop[:, 0] * columns + stop[:, 1]])
    minus = np.concatenate([first[:, 0] * columns + stop[:, 1], stop[:, 0] * columns + first[:, 1]])
    signed = np.bincount(plus, minlength=rows * columns) - np.bincount(minus, minlength=rows * columns)
    over = signed.reshape(rows, columns).cumsum(axis=0).cumsum(axis=1)
    painted: Mask = over[:-1, :-1] > 0
    return painted
