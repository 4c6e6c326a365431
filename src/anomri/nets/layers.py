"""Layers that compute the same as torch's, in fewer operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)
SHORT = 2
"""Edges up to this are not trained on in bfloat16: torch 2.13 on a CPU reads unset memory there, in weight gradients and, with AMX, in
strided convolutions whose last axis comes out as one voxel."""


class UpConv3d(nn.Conv3d):
    """Nearest up-sampling by 2 and a convolution of 3 voxels, on the coarse grid: 8 products a voxel instead of 27.

    Of the 3 fine voxels that a tap sees along an axis, two lie in one coarse voxel: their taps are added beforehand. What is left is
    a transposed convolution of 4 voxels and stride 2; it is exact. Weights are those of the 3-voxel convolution.
    `(B, c_in, I, J, K)` to `(B, c_out, 2I, 2J, 2K)`.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.conv_transpose3d(x, self.coarse(), self.bias, stride=2, padding=1)
        return y

    def coarse(self) -> Tensor:
        """The weights on the coarse grid, `(c_in, c_out, 4, 4, 4)`."""
        weight, sums = self.weight, self.weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        with torch.autocast(weight.device.type, enabled=False):
            for axis in (2, 3, 4):
                weight = torch.tensordot(weight, sums, dims=([axis], [1])).movedim(-1, axis)
        return weight.transpose(0, 1).contiguous(memory_format=torch.channels_last_3d)

    def fixed(self) -> nn.ConvTranspose3d:
        """A layer that computes the same with weights added once."""
        layer = nn.ConvTranspose3d(self.in_channels, self.out_channels, 4, 2, 1, bias=self.bias is not None)
        layer.weight.data = self.coarse().detach()
        if self.bias is not None:
            layer.bias.data = self.bias.detach().clone()  # type: ignore[union-attr]
        return layer


class MeanPool3d(nn.Module):
    """The mean of 3^3 voxels at every other voxel, zeros outside: `AvgPool3d(3, 2, padding=1)`, exact to rounding.

    On a CPU torch's own takes longer than the convolutions beside it; there it is a convolution of each channel by itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            if x.device.type != "cpu":
                return F.avg_pool3d(F.pad(x, [1] * 6), 3, 2)
            channels = x.shape[1]
            y: Tensor = F.conv3d(x, x.new_full((channels, 1, 3, 3, 3), 1 / 27), None, 2, 1, 1, channels)
            return y


class PReLU(nn.PReLU):
    """`nn.PReLU` of one slope for all channels, whose gradients take a third of the time on a CPU."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not (torch.is_grad_enabled() and x.requires_grad):
            return super().forward(x)
        y: Tensor = _Bent.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return y


class _Bent(torch.autograd.Function):
    """What is below 0 times a slope, and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.leaky_relu(x, float(slope))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (dy,) = grads
        x, slope = ctx.saved_tensors
        above = torch.ops.aten.threshold_backward(dy, x, 0)
        below = dy - above
        return above.add_(below, alpha=float(slope)), below.mul_(x).sum(dtype=torch.float32).reshape(1)


class Dropout(nn.Module):
    """Drops each element with a probability, and scales the others up, in training; as `nn.Dropout`.

    torch draws a float for each element on a CPU, which takes longer than the convolutions; here an element takes 16 random bits,
    so that the probability is a multiple of 1/65536.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        dropped = round(self.p * 65536)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        dense = x.contiguous(memory_format=layout(x))
        kept = words.view(torch.int16).as_strided(x.shape, dense.stride()) >= dropped - 32768
        return (dense * kept).mul_(65536 / (65536 - dropped))


def layout(x: Tensor) -> torch.memory_format:
    """The layout that is fast for a tensor of so many axes: channels last for images and volumes."""
    return {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim, torch.contiguous_format)
