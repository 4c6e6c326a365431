"""Residual networks (He et al. 2016) that make a few numbers of an image, and can be shown a part of it alone.

Where only some cells of an image are to be seen, what a layer makes of the others is set to 0, and batch norm counts those that are seen:
what sparse convolutions compute (Tian et al. 2023, SparK, section 3.1).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomri.errors import BadCall, unknown
from anomri.nets.layers import SHORT

REDUCTION = 32
"""How many times coarser than its input the last stage is."""
LAYERS = {
    2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d),
    3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d),
}


class Kind(NamedTuple):
    """Channels of the first stage, doubled at each further one; blocks of each; how many times as many channels a block gives as it
    works with."""

    width: int
    blocks: tuple[int, int, int, int]
    expansion: int


KINDS = {
    "small": Kind(16, (1, 1, 1, 1), 1),
    "resnet18": Kind(64, (2, 2, 2, 2), 1),
    "resnet50": Kind(64, (3, 4, 6, 3), 4),
}
"""By name; "small" is ours."""


def shown(x: Tensor, seen: Tensor | None) -> Tensor:
    """`(B, C, ...)` with zeros where it is not to be seen; `seen (B, 1, ...)` bool is on a coarser grid."""
    return x if seen is None else x * fine(seen, x)


def fine(seen: Tensor, like: Tensor) -> Tensor:
    """A mask of cells on the grid of `like`, in its type."""
    return F.interpolate(seen.to(like.dtype), size=like.shape[2:], mode="nearest")


def normed(norm: nn.Module, x: Tensor, seen: Tensor | None) -> Tensor:
    """Batch norm over what is seen; 0 elsewhere."""
    if seen is None:
        y: Tensor = norm(x)
        return y
    assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
    where = fine(seen, x)[:, 0].bool()
    values = x.movedim(1, -1)[where]
    mean, var = norm.running_mean, norm.running_var
    found = F.batch_norm(values, mean, var, norm.weight, norm.bias, norm.training, norm.momentum or 0.0, norm.eps)
    out = torch.zeros_like(x, dtype=found.dtype)
    out.movedim(1, -1)[where] = found
    return out


class Block(nn.Module):
    """Convolutions of 3 voxels, or of 1, 3 and 1 where it expands; added to the input, which is strided and widened as they are."""

    def __init__(self, axes: int, c_in: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        conv, norm, _ = LAYERS[axes]
        c_out = width * expansion
        if expansion == 1:
            plan = [(c_in, width, 3, stride), (width, c_out, 3, 1)]
        else:
            plan = [(c_in, width, 1, 1), (width, width, 3, stride), (width, c_out, 1, 1)]
        self.convs = nn.ModuleList(conv(a, b, k, s, k // 2, bias=False) for a, b, k, s in plan)
        self.norms = nn.ModuleList(norm(b) for _, b, _, _ in plan)
        same = stride == 1 and c_in == c_out
        self.short = nn.Identity() if same else conv(c_in, c_out, 1, stride, bias=False)
        self.short_norm = nn.Identity() if same else norm(c_out)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        y = x
        for at, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = normed(norm, conv(y), seen)
            if at < len(self.convs) - 1:
                y = y.relu()
        short = x if isinstance(self.short, nn.Identity) else normed(self.short_norm, self.short(x), seen)
        return (y + short).relu()


class ResNet(nn.Module):
    """`(B, c_in, I, J)` or `(B, c_in, I, J, K)` to `(B, c_out)`.

    Parameters
    ----------
    axes : 2 for slices, 3 for volumes
    kind : name of one of `KINDS`

    Raises `BadCall` for an unknown kind or other axes. Source: He et al. 2016, table 1.
    """

    def __init__(self, axes: int, c_in: int, c_out: int, kind: str = "resnet50") -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("encoder", kind, KINDS)
        if axes not in LAYERS:
            raise BadCall(f"a network of {axes} axes; 2 are slices, 3 are volumes")
        conv, norm, pool = LAYERS[axes]
        width, blocks, expansion = KINDS[kind]
        self.enter, self.norm, self.pool = conv(c_in, width, 7, 2, 3, bias=False), norm(width), pool(3, 2, 1)
        stages, now = [], width
        for level, count in enumerate(blocks):
            wide = width * 2**level
            stage = []
            for n in range(count):
                stage.append(Block(axes, now, wide, 2 if n == 0 and level > 0 else 1, expansion))
                now = wide * expansion
            stages.append(nn.ModuleList(stage))
        self.stages = nn.ModuleList(stages)
        #: Channels of each stage.
        self.channels = [width * 2**level * expansion for level in range(4)]
        self.last = nn.Linear(now, c_out)

    def maps(self, x: Tensor, seen: Tensor | None = None) -> list[Tensor]:
        """What each stage gives, on grids 4, 8, 16 and 32 times coarser.

        Parameters
        ----------
        seen : `(B, 1, I / 32, ...)` bool, the cells that are seen; all where None
        """
        # In bfloat16 torch does not train where an edge is so short.
        precise = min(x.shape[2:]) <= SHORT * REDUCTION
        with torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and not precise):
            x = shown(x, seen)
            x = shown(self.pool(normed(self.norm, self.enter(x), seen).relu()), seen)
            found = []
            for stage in self.stages:
                assert isinstance(stage, nn.ModuleList)
                for block in stage:
                    x = block(x, seen)
                found.append(x)
            return found

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.maps(x)[-1].flatten(2).mean(dim=2))
        return y
