"""Masked pre-training of a convolutional network (Tian et al. 2023, SparK): most cells of an image are hidden, and painted back.

The network sees the other cells alone, by sparse convolutions (`nets.resnet`). A light decoder is given what each of its stages makes,
the hidden places filled with a learned vector, and paints the image; the loss is of what was hidden. The decoder is thrown away.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomri.nets.resnet import LAYERS, REDUCTION, ResNet, fine

HIDDEN = 0.65
"""Share of the cells that is hidden (cDDPM, section 4.4)."""


def visible(edges: Sequence[int], rng: torch.Generator, hidden: float = HIDDEN) -> Tensor:
    """Cells of 32 voxels that stay, drawn anew: `(1, I / 32, ...)` bool; a share `hidden` does not, one at least does."""
    count = [math.ceil(edge / REDUCTION) for edge in edges]
    total = math.prod(count)
    seen = torch.zeros(total, dtype=torch.bool)
    seen[torch.randperm(total, generator=rng)[: staying(total, hidden)]] = True
    return seen.reshape(1, *count)


def staying(cells: int, hidden: float = HIDDEN) -> int:
    """How many of so many cells stay."""
    return max(1, int(cells * (1 - hidden)))


class Spark(nn.Module):
    """A residual network and what paints the image back: `(B, C, I, J[, K])`, and cells `(B, 1, I / 32, ...)` that are seen, to the same grid.

    Edges are multiples of 32. Source: SparK, section 3.2, for the way the stages are filled and joined; the decoder's layers are ours.
    """

    def __init__(self, encoder: ResNet, axes: int, channels: int) -> None:
        super().__init__()
        conv, norm, _ = LAYERS[axes]
        self.encoder = encoder
        wide = encoder.channels[::-1]
        self.filler = nn.ParameterList(nn.Parameter(0.02 * torch.randn(1, c, *[1] * axes)) for c in wide)
        own = [max(8, min(512, wide[0]) // 2**level) for level in range(6)]
        self.joins = nn.ModuleList(conv(c, own[level], 1) for level, c in enumerate(wide))
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv(a, b, 3, padding=1), norm(b), nn.ReLU())
            for a, b in itertools.pairwise(own)
        )
        self.last = conv(own[-1], channels, 1)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        maps = self.encoder.maps(x, seen)[::-1]
        y: Tensor | None = None
        for level, up in enumerate(self.ups):
            if level < len(maps):
                there = fine(seen, maps[level])
                filled = maps[level] * there + self.filler[level] * (1 - there)
                joined: Tensor = self.joins[level](filled)
                y = joined if y is None else y + joined
            y = up(y)
        made: Tensor = self.last(y)
        return made


def masked_loss(net: nn.Module, x: Tensor, seen: Tensor) -> Tensor:
    """Mean squared error of the voxels that were hidden; `x (B, C, ...)`, `seen (B, 1, ...)` of cells."""
    hidden = 1 - fine(seen, x.float())
    off = (net(x, seen).float() - x).square() * hidden
    mean: Tensor = off.sum() / (hidden.sum().clamp(min=1) * x.shape[1])
    return mean
