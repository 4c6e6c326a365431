"""The residual UNet of IterMask3D's 3D experiments (section 4.3; the same structure as Xu et al. 2024), and one that does its work
on half the grid.

Five residual levels, the first of which already halves the grid, so no skip reaches full resolution: what comes out at full
resolution was made from half of it, and cannot be copied through.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomri.nets.layers import Dropout, MeanPool3d, PReLU, UpConv3d

REDUCTION = 16
"""Edge lengths of an input must be multiples of this."""


def _block(conv: nn.Conv3d, dropout: float) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm3d(conv.out_channels), Dropout(dropout), PReLU())


def _conv(c_in: int, c_out: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(c_in, c_out, 3, stride=stride, padding=1)


class ResidualUnit(nn.Module):
    """Two convolution blocks; the input, average-pooled where the unit strides, is added to the first channels."""

    def __init__(self, c_in: int, c_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(_block(_conv(c_in, c_out, stride), dropout), _block(_conv(c_out, c_out), dropout))
        self.short: nn.Module = MeanPool3d() if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        # A slice of all channels has a gradient all the same, and a slow one.
        short: Tensor = self.short(x if x.shape[1] <= y.shape[1] else x[:, : y.shape[1]])
        if torch.is_inference_mode_enabled():
            y[:, : short.shape[1]] += short
            return y
        return y + F.pad(short, [0] * 6 + [0, y.shape[1] - short.shape[1]])


class _UNet(nn.Module):
    """The way down, which all have alike; then up, a stage for each level but the last, the finest last."""

    def __init__(self, c_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.channels = [width * 2**level for level in range(5)]
        ends = zip([c_in, *self.channels[:4]], self.channels, (2, 2, 2, 2, 1), strict=True)
        self.down = nn.ModuleList(ResidualUnit(a, b, stride, dropout) for a, b, stride in ends)
        self.up = nn.ModuleList()

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for unit in self.down:
            x = unit(x)
            skips.append(x)
        skips.pop()
        for stage in self.up:
            x = stage(torch.cat([x, skips.pop()], dim=1))
        return x


class ResidualUNet(_UNet):
    """`(B, c_in, I, J, K)` to `(B, c_out, I, J, K)`; edges are multiples of 16.

    Parameters
    ----------
    width : channels of the first level, doubled at each of the four below; 16 is the paper's (8.9 M parameters)
    dropout : probability of dropping an element in each block; the published network uses 0.2

    Source: IterMask3D, section 4.3.
    """

    def __init__(self, c_in: int = 2, c_out: int = 1, width: int = 16, dropout: float = 0.2) -> None:
        super().__init__(c_in, width, dropout)
        c, below = self.channels, self.channels[4]
        for level in (3, 2, 1, 0):
            wide = below + c[level]
            below = c[level - 1] if level > 0 else c_out
            up, last = _block(UpConv3d(wide, wide), dropout), _conv(wide, below)
            # Called 1 and 2: up-sampling was a layer of its own, 0, when the first weights were saved.
            self.up.append(nn.Sequential(OrderedDict({"1": up, "2": _block(last, dropout) if level > 0 else last})))


class Places(nn.Module):
    """What eight channels hold of a voxel becomes its eight halves: `(B, 8 C, I, J, K)` to `(B, C, 2I, 2J, 2K)`.

    Source: the sub-pixel layer of Shi et al., Real-time single image and video super-resolution (CVPR 2016), in 3D.
    """

    def forward(self, x: Tensor) -> Tensor:
        b, c, i, j, k = x.shape
        fine = x.reshape(b, c // 8, 2, 2, 2, i, j, k).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return fine.reshape(b, c // 8, 2 * i, 2 * j, 2 * k)


class StridedUNet(_UNet):
    """`(B, c_in, I, J, K)` to `(B, c_out, I, J, K)`; edges are multiples of 16. No layer works on the full grid.

    The way up narrows as it doubles the grid, and its last layer makes the eight halves of a voxel at once: with twice the width of a
    `ResidualUNet` a training step takes half as long.

    Parameters
    ----------
    width : channels of the first level, doubled at each of the four below; 16 makes 4.5 M parameters
    dropout : as in `ResidualUNet`

    Source: ours, after the residual UNet of Kerfoot et al. (STACOM 2018), whose skips begin below full resolution, too.
    """

    def __init__(self, c_in: int = 2, c_out: int = 1, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__(c_in, width, dropout)
        c, below = self.channels, self.channels[4]
        for level in (3, 2, 1):
            wide, below = below + c[level], c[level - 1]
            up, last = _block(UpConv3d(wide, below), dropout), _block(_conv(below, below), dropout)
            self.up.append(nn.Sequential(up, last))
        last = _block(_conv(2 * c[0], c[0]), dropout)
        self.up.append(nn.Sequential(last, _conv(c[0], 8 * c_out), Places()))
