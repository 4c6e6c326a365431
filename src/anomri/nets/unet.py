"""The residual UNet of IterMask3D's 3D experiments (section 4.3; the same structure as Xu et al. 2024).

Five residual levels, the first of which already halves the grid, so no skip reaches full resolution: what comes out at full
resolution was made from half of it, and cannot be copied through.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from anomri.nets.layers import Dropout, MeanPool3d, UpConv3d

REDUCTION = 16
"""Edge lengths of an input must be multiples of this."""


def _block(conv: nn.Conv3d, dropout: float) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm3d(conv.out_channels), Dropout(dropout), nn.PReLU())


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
        short: Tensor = self.short(x[:, : y.shape[1]])
        if torch.is_inference_mode_enabled():
            y[:, : short.shape[1]] += short
            return y
        return torch.cat([y[:, : short.shape[1]] + short, y[:, short.shape[1] :]], dim=1)


class ResidualUNet(nn.Module):
    """`(B, c_in, I, J, K)` to `(B, c_out, I, J, K)`; edges are multiples of 16.

    Parameters
    ----------
    width : channels of the first level, doubled at each of the four below; 16 is the paper's (8.9 M parameters)
    dropout : probability of dropping an element in each block; the published network uses 0.2

    Source: IterMask3D, section 4.3.
    """

    def __init__(self, c_in: int = 2, c_out: int = 1, width: int = 16, dropout: float = 0.2) -> None:
        super().__init__()
        c = [width * 2**level for level in range(5)]
        strides = (2, 2, 2, 2, 1)
        self.down = nn.ModuleList(
            ResidualUnit(a, b, stride, dropout) for a, b, stride in zip([c_in, *c[:4]], c, strides, strict=True)
        )
        stages, below = [], c[4]
        for level in (3, 2, 1, 0):
            wide = below + c[level]
            below = c[level - 1] if level > 0 else c_out
            up, last = _block(UpConv3d(wide, wide), dropout), _conv(wide, below)
            # Called 1 and 2: up-sampling was a layer of its own, 0, when the first weights were saved.
            stages.append(nn.Sequential(OrderedDict({"1": up, "2": _block(last, dropout) if level > 0 else last})))
        self.up = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for unit in self.down:
            x = unit(x)
            skips.append(x)
        skips.pop()
        for stage in self.up:
            x = stage(torch.cat([x, skips.pop()], dim=1))
        return x
