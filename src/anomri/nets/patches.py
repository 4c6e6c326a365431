"""Patches that cover a grid, and one image of what was made of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from anomri.errors import BadCall


def starts(edge: int, patch: int) -> list[int]:
    """Where the fewest patches that cover an edge begin, evenly spaced; patches as long as the edge at most."""
    if patch < 1:
        raise BadCall(f"a patch of {patch} voxels, needs at least 1")
    count, last = math.ceil(edge / patch), max(0, edge - patch)
    return [round(last * n / (count - 1)) for n in range(count)] if count > 1 else [0]


def cover(edges: Sequence[int], patch: int) -> Tensor:
    """The patches of `starts` along all axes, as masks `(N, *edges)` bool: every voxel lies in one at least.

    pDDPM's section 3.2 counts them by a sum, `ceil((W - w) / w) + ceil((H - h) / h) + 2`; their number is the product of
    `ceil(W / w)` and `ceil(H / h)`, and so it is in the published code.
    """
    places = itertools.product(*(starts(edge, patch) for edge in edges))
    return torch.stack([at(place, edges, patch) for place in places])


def at(place: Sequence[int], edges: Sequence[int], patch: int) -> Tensor:
    """The patch that begins at a place, as a mask of the grid, `edges` bool."""
    mask = torch.zeros(*edges, dtype=torch.bool)
    mask[tuple(slice(first, first + patch) for first in place)] = True
    return mask


def anywhere(edges: Sequence[int], patch: int, rng: torch.Generator) -> Tensor:
    """A patch inside the grid, each place as likely, as a mask, `edges` bool."""
    place = [int(torch.randint(max(0, edge - patch) + 1, (1,), generator=rng)) for edge in edges]
    return at(place, edges, patch)


def stitched(made: Tensor, masks: Tensor) -> Tensor:
    """One image of what was made of each patch: `(N, B, C, *edges)` and masks `(N, *edges)` to `(B, C, *edges)`.

    Where patches overlap it is their mean (pDDPM, section 3.2).
    """
    inside = masks[:, None, None]
    total: Tensor = torch.where(inside, made, 0).sum(dim=0)
    return total / masks.sum(dim=0)
