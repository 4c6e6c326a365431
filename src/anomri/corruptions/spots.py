"""Spots that are not a healthy brain's: what a network is shown that shall learn to leave them out.

As coarse noise for a denoising autoencoder (`corruptions.noise`), for networks that see an image's high frequencies: coarse noise has
none, the edge of a spot has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from anomri.corruptions.lesions import blob
from anomri.corruptions.masks import random_voxel
from anomri.corruptions.spatial import blur
from anomri.errors import BadInput

MOST = 3
"""Spots of an image, at most."""
ML = (0.1, 60.0)
"""Volume of a spot, from and to."""
CHANGE = (0.5, 3.0)
"""How far a spot lies from what was there, from and to, in SD of the brain."""
EDGE_MM = 4.0
"""Width over which a spot's edge fades, at most."""


def spots(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
    """An image with one to `MOST` smooth blobs, brighter or darker than what was there, anywhere in the brain.

    Parameters
    ----------
    x : `(C, I, J, K)` intensities, raw or normalised
    brain : `(I, J, K)` bool
    spacing : mm

    A blob's volume is drawn evenly in its logarithm from `ML`, its change of each channel evenly from `CHANGE`, SD of the brain, up or
    down; its edge fades over up to `EDGE_MM`, and a share of the texture inside is left. Returns a new tensor like `x`, the same beside
    the brain. Raises `BadInput` where the brain is empty. Source: ours; the idea is that of the denoising autoencoder.
    """
    if not brain.any():
        raise BadInput("no spot can be drawn: the brain mask is empty; check the brain extraction of the scan")
    out, sd = x.clone(), x[:, brain].std(dim=1, correction=0)
    for _ in range(1 + int(torch.randint(MOST, (1,), generator=rng))):
        drawn = torch.rand(3, generator=rng).tolist()
        ml = ML[0] * (ML[1] / ML[0]) ** drawn[0]
        sigma = [drawn[1] * EDGE_MM / 2 / mm for mm in spacing]
        size = CHANGE[0] + (CHANGE[1] - CHANGE[0]) * torch.rand(len(x), generator=rng)
        change = size * (2.0 * torch.randint(2, (len(x),), generator=rng) - 1)
        centre = random_voxel(brain.numpy(), rng)
        # A blob reaches half as far again as a ball of its volume, and its edge twice its sigma further.
        reach = [1.6 * (750 * ml / math.pi) ** (1 / 3) / mm + 2 * s + 2 for mm, s in zip(spacing, sigma, strict=True)]
        low = np.maximum(0, np.floor(centre - reach)).astype(int)
        high = np.minimum(brain.shape, np.ceil(centre + reach + 1).astype(int))
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        shape = blob([int(n) for n in high - low], (centre - low).tolist(), ml, spacing, rng)
        soft = blur(shape[None, None].to(x.dtype), sigma)[0] * brain[box]
        part = out[(slice(None), *box)]
        mean = (part * soft).sum(dim=(1, 2, 3)) / soft.sum().clamp(min=1e-6)
        levels, shift = mean[:, None, None, None], (change * sd)[:, None, None, None]
        out[(slice(None), *box)] = part + soft * ((1 - drawn[2]) * (levels - part) + shift)
    return out
