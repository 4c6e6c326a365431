"""The network of the diffusion methods: a UNet whose every residual block is scaled and shifted by the time, and by what else is known.

`f' = f (1 + gamma) + beta` where a layer of each block makes gamma and beta from `c' = [c_t, c]`: the time, embedded by sines and a
perceptron, and, where the network is conditioned, a context vector (cDDPM, section 3.2). The layers are those of Dhariwal and Nichol 2021,
with attention in the middle alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from anomri.errors import BadCall, unknown
from anomri.nets.attention_unet import AttentionUNet
from anomri.nets.diffusion import time_features

HEAD = 64
"""Channels of a head of attention, where they divide the network's."""


class Size(NamedTuple):
    """Channels of the first level, how many times as many each level has, residual blocks of a level, and how many times coarser the
    grids are that have attention, beside the middle."""

    width: int
    multiples: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...] = ()


SIZES = {
    "small": Size(32, (1, 2, 2, 4), 1),
    "pddpm": Size(128, (1, 1, 2), 3),
    "cddpm": Size(128, (1, 2, 2), 3),
    "autoddpm": Size(128, (1, 2, 2), 1, (2, 4)),
}
"""By name: "small", ours, for CPUs, 3.5 M parameters; pDDPM's, 128, 128 and 256 channels (section 4.2); cDDPM's, 128, 256 and 256 (section 4.4);
AutoDDPM's published ones, the same channels, fewer blocks and more attention."""


def reduction(size: str) -> int:
    """Edges of what a network takes are multiples of this; raises `BadCall` for an unknown size."""
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    return int(2 ** (len(SIZES[size].multiples) - 1))


class DiffusionUNet(nn.Module):
    """`(B, c_in, I, J)` or `(B, c_in, I, J, K)`, and vectors of `conditions`, to `c_out` channels on the same grid; 0 before training.

    Parameters
    ----------
    axes : 2 for slices, 3 for volumes
    size : name of one of `SIZES`
    width : channels of the first level; None is the size's
    context : length d of a context vector; 0 for a network that knows the time alone. The time is embedded to as many numbers where
        there is a context (cDDPM, section 3.2), else to four times the width (Dhariwal and Nichol 2021)

    Raises `BadCall` for an unknown size, an odd width or other axes, `BadInput` for edges that are not multiples of `reduction`.
    """

    def __init__(
        self, axes: int, c_in: int, c_out: int, size: str = "cddpm", width: int | None = None, context: int = 0
    ) -> None:
        super().__init__()
        self.reduction, about = reduction(size), SIZES[size]
        width = about.width if width is None else width
        if width < 2 or width % 2:
            raise BadCall(f"a diffusion network of width {width}; give an even number")
        self.width, self.context, self.axes = width, context, axes
        #: Length of the vectors that it is given beside an image.
        self.vector = width + context
        embedded = context or 4 * width
        self.time = nn.Sequential(nn.Linear(width, embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        head = HEAD if width * about.multiples[-1] % HEAD == 0 else None
        self.unet = AttentionUNet(
            c_in,
            c_out,
            width,
            about.multiples,
            about.blocks,
            0.0,
            about.attention,
            "group",
            embedding=embedded + context,
            head=head,
            axes=axes,
        )

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        y: Tensor = self.unet(x, self._known(given))
        return y

    def maps(self, x: Tensor, given: Tensor) -> list[Tensor]:
        """What each level makes of images on the way down, the finest first."""
        return self.unet.maps(x, self._known(given))

    def _known(self, given: Tensor) -> Tensor:
        """What the blocks are conditioned by."""
        time, context = given[:, : self.width], given[:, self.width :]
        return torch.cat([self.time(time), context.to(time.dtype)], dim=1)


class ConditionedUNet(nn.Module):
    """A `DiffusionUNet` whose context an encoder makes of the image without noise: what is learned together (cDDPM, section 3.2)."""

    def __init__(self, unet: DiffusionUNet, encoder: nn.Module) -> None:
        super().__init__()
        self.unet, self.encoder = unet, encoder

    def forward(self, x: Tensor, features: Tensor, clean: Tensor) -> Tensor:
        """What the network says of noised images, given `conditions` of their times alone and the images themselves."""
        y: Tensor = self.unet(x, torch.cat([features, self.encoder(clean).float()], dim=1))
        return y


def conditions(t: Tensor, width: int, context: Tensor | None = None) -> Tensor:
    """What a `DiffusionUNet` of that width is given beside images: `(B, width)` features of the times `(B,)`, and contexts `(B, d)`.

    They are made outside the network: a time is exact in float32 alone, and a context is that of many times.
    """
    features = time_features(t, width)
    return features if context is None else torch.cat([features, context.to(features)], dim=1)
