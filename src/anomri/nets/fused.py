"""Layers of networks that only infer, on a CPU: what torch's own compute, in fewer operations and less memory."""

from __future__ import annotations

import itertools
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomri.nets.layers import CONVOLUTIONS, TRANSPOSED, layout

LARGE_BYTES = 24 * 2**20
"""What is between two layers is computed in pieces where it is larger: memory of such a size is new at every pass."""
PIECE_ROWS = 4
"""Coarse rows of a piece: few, so that it stays in the cache; enough for the library's quick kernels."""
MANY = 256
"""Channels from which a transposed convolution is quicker as one convolution for each of the 8 places in a coarse voxel."""


def _doubles(conv: nn.Module) -> TypeGuard[nn.ConvTranspose3d]:
    """Whether it is a transposed convolution of 4 voxels that makes 2 of each voxel."""
    if not isinstance(conv, TRANSPOSED):
        return False
    how = (conv.kernel_size, conv.stride, conv.padding, conv.output_padding, conv.dilation)
    return tuple(map(set, how)) == ({4}, {2}, {1}, {0}, {1})


class FusedConv(nn.Module):
    """A convolution, transposed or not, and what rectifies it, as one operation of the CPU's library; for inference.

    Computes in its weights' precision, and gives that. The activation would otherwise read and write the result once more, which
    takes as long as the convolution where channels are few.

    Parameters
    ----------
    conv : 2D or 3D, one that `suits`
    slope : of the rectifier below 0; 1 is none
    dtype : to compute in; the convolution's own where None
    """

    def __init__(self, conv: nn.Module, slope: float = 1.0, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        assert isinstance(conv, (*CONVOLUTIONS, *TRANSPOSED))
        weight = conv.weight.detach().to(dtype)
        self.weight = nn.Parameter(weight.contiguous(memory_format=layout(weight)), requires_grad=False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().to(dtype), requires_grad=False)
        activation = ("none", []) if slope == 1 else ("leaky_relu", [slope])
        self.how = ([*conv.stride], [*conv.dilation], conv.groups, *activation, "")
        self.padding = [*conv.padding]
        self.outputs: int = conv.out_channels
        self.output_padding = [*conv.output_padding] if isinstance(conv, TRANSPOSED) else None

    @staticmethod
    def suits(conv: nn.Module) -> bool:
        """Whether a layer can be computed so, by this build of torch."""
        return (
            torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and hasattr(torch.ops.mkldnn, "_convolution_transpose_pointwise")
            and isinstance(conv, (*CONVOLUTIONS, *TRANSPOSED))
            and conv.padding_mode == "zeros"
            and not isinstance(conv.padding, str)
        )

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """`first` is the padding of the first axis, where it is not the convolution's own."""
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        own = self.padding if first is None else [first, *self.padding[1:]]
        wanted = weight.dtype
        if self.output_padding is None and x.shape[-1] <= self.how[0][-1] > 1:
            # One voxel comes out along the last axis: see SHORT.
            weight, bias = weight.float(), None if bias is None else bias.float()
        x = x.to(weight.dtype, memory_format=layout(x))
        if self.output_padding is None:
            y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, own, *self.how)
        else:
            padding = (own, self.output_padding)
            y = torch.ops.mkldnn._convolution_transpose_pointwise(x, weight, bias, *padding, *self.how)
        return y.to(wanted)


class SlabConv(nn.Module):
    """A convolution of stride 1 with few outputs, for 16 of them along the last axis at once.

    Processors multiply 16 output channels in the time of 1. Here the 16 are neighbours along the last axis: a convolution of stride 16
    whose kernels are the given one, shifted. Exact; computes in its weights' precision, and gives that.
    """

    def __init__(self, conv: nn.Module, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        assert isinstance(conv, CONVOLUTIONS)
        self.outputs = conv.out_channels
        self.slab = 16 // self.outputs
        weight, taps = conv.weight.detach().to(dtype), conv.kernel_size[-1]
        shifted = weight.new_zeros(self.slab, *weight.shape[:-1], taps + self.slab - 1)
        for place in range(self.slab):
            shifted[place, ..., place : place + taps] = weight
        shifted = shifted.flatten(0, 1)
        self.weight = nn.Parameter(shifted.contiguous(memory_format=layout(shifted)), requires_grad=False)
        bias = weight.new_zeros(self.outputs) if conv.bias is None else conv.bias.detach().to(dtype)
        self.bias = nn.Parameter(bias.repeat(self.slab), requires_grad=False)
        self.padding, self.convolve = conv.padding, F.conv2d if weight.ndim == 4 else F.conv3d

    @staticmethod
    def suits(conv: nn.Module) -> bool:
        """Whether a layer can be computed so, and gains by it."""
        return (
            isinstance(conv, nn.Conv2d | nn.Conv3d)
            and conv.out_channels <= 4
            and conv.groups == 1
            and conv.padding_mode == "zeros"
            and set(conv.stride) == set(conv.dilation) == {1}
            and conv.padding == tuple(k // 2 for k in conv.kernel_size)
            and conv.kernel_size[-1] % 2 == 1
            # torch 2.13 gets slabs of one voxel wrong in bfloat16.
            and conv.kernel_size[-1] > 1
        )

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """`first` is the padding of the first axis, where it is not the convolution's own."""
        own = self.padding if first is None else (first, *self.padding[1:])
        stride, edge = (*[1] * (x.ndim - 3), self.slab), x.shape[-1]
        x = x.to(self.weight.dtype, memory_format=layout(x))
        # Two slabs at least: see SHORT.
        spare = max(2 * self.slab - edge, -edge % self.slab)
        if spare:
            x = F.pad(x, (0, spare))
        y: Tensor = self.convolve(x, self.weight, self.bias, stride=stride, padding=own)
        # (B, slab x outputs, ..., K / slab) to (B, outputs, ..., K).
        y = y.reshape(len(y), self.slab, self.outputs, *y.shape[2:]).movedim(1, -1).flatten(-2)
        return y[..., :edge]


class UpByPlaces(nn.Module):
    """A transposed convolution of 4 voxels, stride 2 and padding 1, as a convolution of 2 voxels for each place in a coarse voxel.

    Exact. For many channels on a small grid, where the library's transposed convolution is slow.
    """

    def __init__(self, conv: nn.Module, slope: float = 1.0, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        assert isinstance(conv, TRANSPOSED)
        weight, axes = conv.weight.detach().transpose(0, 1), conv.weight.ndim - 2
        self.outputs, self.dtype, self.convs = conv.out_channels, dtype or weight.dtype, nn.ModuleList()
        self.places = list(itertools.product((0, 1), repeat=axes))
        for place in self.places:
            # Voxel 2n sees coarse voxels n - 1 and n by taps 3 and 1, voxel 2n + 1 sees n and n + 1 by taps 2 and 0.
            taps = np.ix_(
                range(weight.shape[0]), range(weight.shape[1]), *([3, 1] if at == 0 else [2, 0] for at in place)
            )
            made = (nn.Conv3d if axes == 3 else nn.Conv2d)(conv.in_channels, conv.out_channels, 2, padding=1)
            made.weight.data = weight[taps]
            made.bias = conv.bias
            self.convs.append(FusedConv(made, slope, dtype))

    @staticmethod
    def suits(conv: nn.Module) -> bool:
        """Whether a layer can be computed so, and gains by it."""
        return _doubles(conv) and FusedConv.suits(conv) and conv.groups == 1 and conv.out_channels >= MANY

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype, memory_format=layout(x))
        shape = (len(x), self.outputs, *(2 * n for n in x.shape[2:]))
        y = torch.empty(shape, dtype=self.dtype, memory_format=layout(x))
        for place, conv in zip(self.places, self.convs, strict=True):
            made: Tensor = conv(x)
            fine, taken = y, made
            for axis, (at, n) in enumerate(zip(place, x.shape[2:], strict=True), 2):
                fine = fine[(*[slice(None)] * axis, slice(at, None, 2))]
                taken = taken.narrow(axis, at, n)
            fine.copy_(taken)
        return y


class UpInPieces(nn.Module):
    """A transposed convolution of stride 2 and the convolution after it, a few rows of the first axis at a time; exact.

    What is between them is the largest tensor of a network that paints volumes, hundreds of MB that are written once and read once. In
    pieces it takes a few MB, in the cache, and no new memory, which the system would clear first.

    Parameters
    ----------
    up : with its rectifier, 4 voxels and padding 1
    last : of stride 1, padded to keep its edges
    slope : of the rectifier after `last`; 1 is none
    """

    def __init__(self, up: FusedConv, last: FusedConv | SlabConv, slope: float = 1.0) -> None:
        super().__init__()
        self.up, self.last, self.slope = up, last, slope
        # Added once, at the end: pieces overlap by what the convolution reaches.
        bias = last.bias
        self.bias = None if bias is None else nn.Parameter(bias[: last.outputs].clone(), requires_grad=False)
        last.bias = None
        self.reach = int(last.padding[0])

    @staticmethod
    def suits(up: nn.Module, last: nn.Module) -> bool:
        """Whether two layers, one after the other, can be computed so."""
        return (
            FusedConv.suits(up)
            and _doubles(up)
            and FusedConv.suits(last)
            and isinstance(last, CONVOLUTIONS)
            and set(last.stride) == set(last.dilation) == {1}
            and [k // 2 for k in last.kernel_size] == [*last.padding]
            and all(k % 2 == 1 for k in last.kernel_size)
        )

    def forward(self, x: Tensor) -> Tensor:
        rows, reach = x.shape[2], self.reach
        between = x[0, 0].numel() * (4 if x.ndim == 4 else 8) * self.up.outputs * self.up.weight.element_size()
        bias = None if self.bias is None else self.bias.view(-1, *[1] * (x.ndim - 2))
        # In float32 the library has no quick kernel for a few rows of few channels.
        if between <= LARGE_BYTES or len(x) > 1 or self.up.weight.dtype == torch.float32:
            y = self.last(self.up(x))
            if bias is not None:
                y += bias
        else:
            x = x.to(self.up.weight.dtype, memory_format=layout(x))
            shape = (1, self.last.outputs, *(2 * n for n in x.shape[2:]))
            y = torch.empty(shape, dtype=x.dtype, memory_format=layout(x)).copy_(
                x.new_zeros(1) if bias is None else bias
            )
            for start in range(0, rows, PIECE_ROWS):
                end = min(start + PIECE_ROWS, rows)
                # Of fine rows, these coarse ones make all from the second to the one before the last; and those at the edges.
                begin, stop = (2 * start - 1 if start else 0), (2 * end - 1 if end < rows else 2 * rows)
                if start and end < rows:
                    fine = self.up(x[:, :, start - 1 : end], 2)
                else:
                    low = max(start - 1, 0)
                    fine = self.up(x[:, :, low:end])[:, :, begin - 2 * low : stop - 2 * low]
                part = self.last(fine, 2 * reach)
                first, after = max(begin - reach, 0), min(stop + reach, 2 * rows)
                y[:, :, first:after] += part[:, :, first - (begin - reach) : part.shape[2] - (stop + reach - after)]
        return y if self.slope == 1 else F.leaky_relu_(y, self.slope)
