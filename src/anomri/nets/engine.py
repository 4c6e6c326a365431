"""How a trained network is run: batch norm folded, channels last, in the processor's fast precision."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def engine(net: nn.Module, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A fast function, float32 to float32, that computes what `net` computes in eval mode; `net` itself stays as it is.

    Parameters
    ----------
    dtype : the precision that the convolutions run in; bfloat16 differs from float32 by about half a percent
    """
    model = copy.deepcopy(net).eval().requires_grad_(False)
    fold(model)
    channels_last(model.to(device))

    @torch.inference_mode()
    def run(x: Tensor) -> Tensor:
        # Autocast, not a cast of the network: some layers have no bfloat16 kernel on a CPU.
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            y: Tensor = model(x.to(device, memory_format=_layout(x)))
        return y.float()

    return run


def channels_last(net: nn.Module) -> nn.Module:
    """The network with its 2D and 3D convolution weights laid out channels last, in place; gives it back."""
    for tensor in (*net.parameters(), *net.buffers()):
        tensor.data = tensor.data.contiguous(memory_format=_layout(tensor))
    return net


def _layout(tensor: Tensor) -> torch.memory_format:
    return {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.ndim, torch.contiguous_format)


def fold(module: nn.Module) -> None:
    """Folds every batch norm that follows a convolution in a `Sequential` into it, in place; exact in eval mode."""
    for child in module.children():
        fold(child)
    if isinstance(module, nn.Sequential):
        names = list(module._modules)
        for first, second in itertools.pairwise(names):
            conv, norm = module._modules[first], module._modules[second]
            if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
                module._modules[first] = fuse_conv_bn_eval(conv, norm)
                module._modules[second] = nn.Identity()
