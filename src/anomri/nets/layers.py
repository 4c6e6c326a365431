"""Layers that compute the same as torch's, in fewer operations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


class SlabConv(nn.Module):
    """A convolution of stride 1 with few outputs, for 16 of them along the last axis at once.

    Processors multiply 16 output channels in the time of 1. Here the 16 are neighbours along the last axis: a convolution of stride 16
    whose kernels are the given one, shifted. Exact; takes and gives what the given convolution does.
    """

    def __init__(self, conv: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.outputs = conv.out_channels
        self.slab = 16 // self.outputs
        weight, taps = conv.weight.detach(), conv.kernel_size[-1]
        shifted = weight.new_zeros(self.slab, *weight.shape[:-1], taps + self.slab - 1)
        for place in range(self.slab):
            shifted[place, ..., place : place + taps] = weight
        self.weight = nn.Parameter(shifted.flatten(0, 1), requires_grad=False)
        bias = weight.new_zeros(self.outputs) if conv.bias is None else conv.bias.detach()
        self.bias = nn.Parameter(bias.repeat(self.slab), requires_grad=False)
        self.padding, self.convolve = conv.padding, F.conv2d if weight.ndim == 4 else F.conv3d

    @staticmethod
    def suits(conv: nn.Module) -> bool:
        """Whether a layer can be computed so, and gains by it."""
        return (
            isinstance(conv, nn.Conv2d | nn.Conv3d)
            and conv.out_channels <= 4
            and conv.groups == 1
            and set(conv.stride) == set(conv.dilation) == {1}
            and conv.padding == tuple(k // 2 for k in conv.kernel_size)
            and conv.kernel_size[-1] % 2 == 1
        )

    def forward(self, x: Tensor) -> Tensor:
        stride, edge = (*[1] * (x.ndim - 3), self.slab), x.shape[-1]
        if edge % self.slab:
            x = F.pad(x, (0, -edge % self.slab))
        y: Tensor = self.convolve(x, self.weight, self.bias, stride=stride, padding=self.padding)
        # (B, slab x outputs, ..., K / slab) to (B, outputs, ..., K).
        y = y.reshape(len(y), self.slab, self.outputs, *y.shape[2:]).movedim(1, -1).flatten(-2)
        return y[..., :edge]


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
