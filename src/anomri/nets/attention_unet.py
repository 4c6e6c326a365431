"""The UNet of IterMask2, which diffusion models use too (Dhariwal and Nichol 2021), of slices or volumes: residual blocks, attention where
the grid is coarse, blocks that halve and double the grid, and a last convolution that starts at zero, so that an untrained network gives 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomri.errors import BadCall, BadInput, unknown
from anomri.nets.layers import Dropout, GroupNorm

LAYERS = {2: (nn.Conv2d, nn.AvgPool2d), 3: (nn.Conv3d, nn.AvgPool3d)}
NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "batch": lambda channels, axes: (nn.BatchNorm2d if axes == 2 else nn.BatchNorm3d)(channels),
    "group": lambda channels, axes: GroupNorm(math.gcd(32, channels), channels),
}
"""By name: of a number of channels and of axes; groups are 32, or as many as divide the channels."""


def divisible(x: Tensor, by: int) -> None:
    """Raises `BadInput` where an edge of `(B, C, I, J[, K])` is not a multiple of `by`."""
    if any(edge % by for edge in x.shape[2:]):
        raise BadInput(
            f"the network halves its grid until {by} voxels are one, the input has grid {tuple(x.shape[2:])}; "
            f"pad or crop its edges to multiples of {by}"
        )


def _zero(conv: nn.Module) -> nn.Module:
    for part in conv.parameters():
        nn.init.zeros_(part)
    return conv


class Attention(nn.Module):
    """Each place of `(B, C, I, J[, K])` looks at all others; what it finds is added. It adds 0 before training.

    Parameters
    ----------
    head : channels of a head; one head of all where None
    norm : name of the norm before it, "batch" or "group"
    axes : 2 for slices, 3 for volumes
    """

    def __init__(self, channels: int, head: int | None, norm: str, axes: int = 2) -> None:
        super().__init__()
        if head is not None and channels % head:
            raise BadCall(f"heads of {head} channels do not divide the {channels} of the network; take another 'head'")
        conv = LAYERS[axes][0]
        self.heads = 1 if head is None else channels // head
        self.ask = nn.Sequential(NORMS[norm](channels, axes), conv(channels, 3 * channels, 1))
        self.last = _zero(conv(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, *edges = x.shape
        # Channels last all the way: (B, 3 C, I, J) is read as (B, I J, 3, heads, C / heads) where it lies.
        asked = self.ask(x).movedim(1, -1)
        q, k, v = asked.reshape(batch, math.prod(edges), 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        y: Tensor = self.last(found.reshape(batch, *edges, channels).movedim(-1, 1))
        return x + y


class ResidualBlock(nn.Module):
    """Two convolutions, each after a norm and SiLU, added to the input; the second starts at zero.

    Parameters
    ----------
    resample : "down" halves the grid by averaging, "up" doubles it by repeating, before the first convolution and on the way round
    embedding : length of a vector that scales and shifts the channels after the second norm; none where None
    attend : comes last; nothing where None
    axes : 2 for slices, 3 for volumes
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        dropout: float,
        norm: str,
        *,
        resample: str | None = None,
        embedding: int | None = None,
        attend: nn.Module | None = None,
        axes: int = 2,
    ) -> None:
        super().__init__()
        conv, pool = LAYERS[axes]
        between: list[nn.Module] = []
        if resample is not None:
            between = [pool(2) if resample == "down" else nn.Upsample(scale_factor=2, mode="nearest")]
        first = conv(c_in, c_out, 3, padding=1)
        self.first = nn.Sequential(NORMS[norm](c_in, axes), nn.SiLU(), *between, first, NORMS[norm](c_out, axes))
        self.last = nn.Sequential(nn.SiLU(), Dropout(dropout), _zero(conv(c_out, c_out, 3, padding=1)))
        self.short = nn.Sequential(*between, *([conv(c_in, c_out, 1)] if c_in != c_out else []))
        self.turn = None if embedding is None else nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * c_out))
        self.attend = nn.Identity() if attend is None else attend

    def forward(self, x: Tensor, e: Tensor | None = None) -> Tensor:
        y: Tensor = self.first(x)
        if self.turn is not None:
            scale, shift = self.turn(e)[(..., *[None] * (x.ndim - 2))].chunk(2, dim=1)
            y = torch.addcmul(shift, y, 1 + scale)
        y = self.attend(self.short(x) + self.last(y))
        return y


class AttentionUNet(nn.Module):
    """`(B, c_in, I, J)` to `(B, c_out, I, J)`, or volumes with `axes=3`; edges are multiples of 2^(levels - 1), 16 as published.

    Parameters
    ----------
    width, multiples : channels of level n are `width * multiples[n]`, on a grid 2^n times coarser than the input
    blocks : residual blocks of a level on the way down; one more on the way up
    dropout : probability of dropping an element in each block
    attention : how many times coarser the grids are that have attention: 4, 8 and 16 are 32², 16² and 8² of an input of 128².
        The middle of the network always has it
    norm : "batch" or "group"
    embedding : length of the vectors that condition the blocks, `(B, embedding)`; None for a network without
    head : channels of a head of attention; one head of all where None
    axes : 2 for slices, 3 for volumes

    The defaults are IterMask2's, 5.9 M parameters (without the time embedding that its code makes and does not use). pDDPM's as
    published in code is `AttentionUNet(1, 1, 128, (1, 2, 2), 3, 0.0, (), "group", 512, 64)`; its paper (chapter 8.2 of Behrendt's thesis,
    section 4.2) has channels 128, 128, 256.
    Raises `BadCall` for an unknown norm, heads that do not divide the channels, or vectors given to a network without; `BadInput`
    for edges that do not halve so often.

    Source: IterMask2, Methods, "Spatial Random Masking for Training"; the layers are those of Dhariwal and Nichol 2021.
    """

    def __init__(
        self,
        c_in: int = 2,
        c_out: int = 1,
        width: int = 32,
        multiples: Sequence[int] = (1, 1, 2, 3, 4),
        blocks: int = 2,
        dropout: float = 0.1,
        attention: Sequence[int] = (4, 8, 16),
        norm: str = "batch",
        embedding: int | None = None,
        head: int | None = None,
        axes: int = 2,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise unknown("norm", norm, NORMS)
        if axes not in LAYERS:
            raise BadCall(f"a network of {axes} axes; 2 are slices, 3 are volumes")
        conv = LAYERS[axes][0]
        self.reduction, self.embedding = 2 ** (len(multiples) - 1), embedding
        if not {*attention} <= {2**level for level in range(len(multiples))}:
            raise BadCall(
                f"attention {tuple(attention)}: the grids are 1 to {self.reduction} times coarser, by powers of 2"
            )

        def block(c_in: int, c_out: int, level: int | None = None, resample: str | None = None) -> ResidualBlock:
            """With attention where a level has it; without where it belongs to none."""
            there = level is not None and 2**level in attention
            attend = Attention(c_out, head, norm, axes) if there else None
            return ResidualBlock(
                c_in, c_out, dropout, norm, resample=resample, embedding=embedding, attend=attend, axes=axes
            )

        self.enter = conv(c_in, width, 3, padding=1)
        channels, now, skips = [width * multiple for multiple in multiples], width, [width]
        down: list[ResidualBlock] = []
        for level, wide in enumerate(channels):
            for _ in range(blocks):
                down.append(block(now, wide, level))
                now = wide
                skips.append(now)
            if level < len(channels) - 1:
                down.append(block(now, now, resample="down"))
                skips.append(now)
        self.down = nn.ModuleList(down)
        attend = Attention(now, head, norm, axes)
        middle = ResidualBlock(now, now, dropout, norm, embedding=embedding, attend=attend, axes=axes)
        self.middle = nn.ModuleList([middle, block(now, now)])
        up: list[ResidualBlock] = []
        self.joins: list[bool] = []
        for level, wide in reversed([*enumerate(channels)]):
            for _ in range(blocks + 1):
                up.append(block(now + skips.pop(), wide, level))
                self.joins.append(True)
                now = wide
            if level > 0:
                up.append(block(now, now, resample="up"))
                self.joins.append(False)
        self.up = nn.ModuleList(up)
        self.leave = nn.Sequential(NORMS[norm](now, axes), nn.SiLU(), _zero(conv(now, c_out, 3, padding=1)))

    def maps(self, x: Tensor, e: Tensor | None = None) -> list[Tensor]:
        """What each level makes of an input on the way down, the finest first: `(B, width * multiples[n], I / 2^n, J / 2^n)`.

        Arguments and errors as of `forward`.
        """
        skips = self._down(x, e)
        # A level's last is what the next one halves.
        return [a for a, b in itertools.pairwise(skips) if a.shape[2:] != b.shape[2:]] + skips[-1:]

    def forward(self, x: Tensor, e: Tensor | None = None) -> Tensor:
        skips = self._down(x, e)
        x = skips[-1]
        for block in self.middle:
            x = block(x, e)
        for block, joins in zip(self.up, self.joins, strict=True):
            x = block(torch.cat([x, skips.pop()], dim=1) if joins else x, e)
        y: Tensor = self.leave(x)
        return y

    def _down(self, x: Tensor, e: Tensor | None) -> list[Tensor]:
        """What every block makes on the way down."""
        if (e is None) != (self.embedding is None):
            takes = "takes none" if self.embedding is None else f"takes vectors of {self.embedding}"
            given = "none was" if e is None else f"{tuple(e.shape)} was"
            raise BadCall(f"the network {takes} to condition it, {given} given; set 'embedding' when it is made")
        divisible(x, self.reduction)
        x = self.enter(x)
        skips = [x]
        for block in self.down:
            x = block(x, e)
            skips.append(x)
        return skips
