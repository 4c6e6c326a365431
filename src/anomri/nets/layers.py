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


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, whose gradients in bfloat16 take a quarter of the time on a CPU: torch's own are slow where channels come last.

    The gradient of a norm is `a dy + c x + b` with an `a`, a `b` and a `c` for each channel of each image, made of sums over the channel.
    In float32 it takes as long as torch's, which is left to it.
    """

    def forward(self, x: Tensor) -> Tensor:
        quick = x.device.type == "cpu" and x.dtype == torch.bfloat16 and self.weight.dtype == torch.float32
        if not (quick and torch.is_grad_enabled() and x.requires_grad):
            return super().forward(x)
        y: Tensor = _Normed.apply(x, self.weight, self.bias, self.num_groups, self.eps)  # type: ignore[no-untyped-call]
        return y


class _Normed(torch.autograd.Function):
    """Group norm by torch, and its gradients; sums are float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels = x.shape[:2]
        y, mean, rstd = torch.native_group_norm(x, weight, bias, batch, channels, x[0, 0].numel(), groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = grads
        x, weight, mean, rstd = ctx.saved_tensors
        grid, groups = list(range(2, x.ndim)), mean.shape[1]
        each = (..., *[None] * len(grid))
        n, size = x[0, 0].numel() * (x.shape[1] // groups), x.shape[1] // groups
        mean, rstd = (of.repeat_interleave(size, dim=1) for of in (mean, rstd))
        # About the mean, lest a large one swallow the sums in bfloat16; what it is rounded by is put right afterwards.
        about = mean.to(x.dtype)
        off, slip = x - about[each], mean - about
        plain = dy.sum(dim=grid, dtype=torch.float32)
        # Of dy and the normed x.
        along = ((dy * off).sum(dim=grid, dtype=torch.float32) - slip * plain) * rstd

        def grouped(of: Tensor) -> Tensor:
            share: Tensor = (of * weight).reshape(len(of), groups, -1).sum(dim=2) / n
            return share.repeat_interleave(size, dim=1)

        a, c = rstd * weight, -grouped(along) * rstd * rstd
        b = -grouped(plain) * rstd - c * slip
        dx = torch.addcmul(b[each].to(x.dtype), off, c[each].to(x.dtype)).addcmul_(dy, a[each].to(x.dtype))
        return dx, along.sum(dim=0), plain.sum(dim=0), None, None


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
