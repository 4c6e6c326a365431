"""The UNet of the denoising autoencoder (Kascenas et al. 2022): weight-standardised convolutions, group norm and Swish, grids halved
by averaging and doubled by transposed convolutions. Its skips reach full resolution: what keeps it from copying is the noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from anomri.errors import BadCall
from anomri.nets.attention_unet import divisible

LAYERS = {
    2: (nn.Conv2d, nn.ConvTranspose2d, nn.AvgPool2d, nn.ReflectionPad2d),
    3: (nn.Conv3d, nn.ConvTranspose3d, nn.AvgPool3d, nn.ReflectionPad3d),
}


class Standardised(nn.Module):
    """Weights with mean 0 and variance 1 / n over the n inputs of each output (Qiao et al. 2019).

    The division by n, which group norm undoes, keeps the size of what a convolution gives that of its input.
    """

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight.flatten(1)
        variance, mean = torch.var_mean(rows, dim=1, correction=0)
        shape = (-1, *[1] * (weight.ndim - 1))
        scale = (rows.shape[1] * variance + 1e-5).rsqrt()
        return (weight - mean.view(shape)) * scale.view(shape)


def _block(axes: int, c_in: int, c_out: int) -> nn.Sequential:
    """Twice: reflect, convolve, norm, Swish."""
    conv, _, _, reflect = LAYERS[axes]
    parts: list[nn.Module] = []
    for channels in (c_in, c_out):
        # The padding is a layer of its own: an engine then sees a plain convolution, whose weights it reads standardised.
        layer = conv(channels, c_out, 3)
        parametrize.register_parametrization(layer, "weight", Standardised())
        parts += [reflect(1), layer, nn.GroupNorm(math.gcd(8, c_out), c_out), nn.SiLU()]
    return nn.Sequential(*parts)


class DenoisingUNet(nn.Module):
    """`(B, c_in, I, J)` or `(B, c_in, I, J, K)` to `c_out` channels on the same grid.

    Edges are multiples of 2^(depth - 1), and twice that at least, since a grid of one voxel has nothing to reflect.

    Parameters
    ----------
    axes : 2 for slices, 3 for volumes
    width : channels of the finest level, doubled at each below
    depth : levels; the published network has 64, 128, 256 and 512 channels

    Raises `BadCall` for other axes, `BadInput` for edges that do not halve so often.

    Source: Kascenas et al. 2022 (MIDL) for the layers and widths. Ours, because our notes on it do not say: 8 groups, two convolutions
    a level, the norm before the Swish, transposed convolutions of 2 voxels, a last convolution of 1.
    """

    def __init__(self, axes: int, c_in: int, c_out: int, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        if axes not in LAYERS:
            raise BadCall(f"a network of {axes} axes; 2 are slices, 3 are volumes")
        conv, transposed, pool, _ = LAYERS[axes]
        self.reduction = 2 ** (depth - 1)
        c = [width * 2**level for level in range(depth)]
        self.down = nn.ModuleList(_block(axes, a, b) for a, b in zip([c_in, *c[:-1]], c, strict=True))
        self.pool = pool(2)
        self.rise = nn.ModuleList(transposed(2 * wide, wide, 2, 2) for wide in reversed(c[:-1]))
        self.up = nn.ModuleList(_block(axes, 2 * wide, wide) for wide in reversed(c[:-1]))
        self.last = conv(width, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        divisible(x, self.reduction)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        skips.pop()
        for rise, block in zip(self.rise, self.up, strict=True):
            x = block(torch.cat([rise(x), skips.pop()], dim=1))
        y: Tensor = self.last(x)
        return y
