"""IterMask3D as the paper's text and its published code have it: what the benchmarks measure ours against.

float32, eager, the whole field of view, one step after another; no box, no folding, no layout, no engine. Facts of the published code
alone, written anew.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from anomri.methods import load
from anomri.methods.itermask3d import IterMask3D
from anomri.nets.layers import Dropout, UpConv3d
from anomri.nets.unet import REDUCTION, ResidualUNet
from anomri.preprocess.space import box, cut, paste
from anomri.scan import Scan
from anomri.scoring.thresholds import Bend, bend, stop
from anomri.train import generator
from masks import plain_high_pass


def shipped() -> IterMask3D:
    """The package's weights for T1w, without the averaging of errors, which the plain loop has not, and with the paper's slope."""
    method = load("itermask3d-t1w-2mm")
    assert isinstance(method, IterMask3D)
    method.smooth_mm, method.gamma_mask = 0.0, 0.05
    return method


def network(net: nn.Module) -> nn.Module:
    """The same network made of torch's own layers: up-sampling, then a convolution of 27 taps; torch's dropout."""
    plain = copy.deepcopy(net)
    for part in list(plain.modules()):
        for name, layer in part.named_children():
            if isinstance(layer, UpConv3d):
                conv = nn.Conv3d(layer.in_channels, layer.out_channels, 3, padding=1)
                conv.load_state_dict(layer.state_dict())
                part._modules[name] = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv)
            elif isinstance(layer, Dropout):
                part._modules[name] = nn.Dropout(layer.p)
    return plain


class AtOneMillimetre(nn.Module):
    """A network that costs what the paper's does at 1 mm, and paints as the one of 2 mm that it is made of.

    Random weights, or weights of another grid, make a threshold curve that no trained network makes, and the curve decides how many
    passes a scan takes. So the small network paints every other voxel, what is finer comes from the high-frequency image, and the large
    one is run for what it costs: a millionth of its output is added.
    """

    def __init__(self, known: ResidualUNet) -> None:
        super().__init__()
        self.known, self.costly = known, widened(known)

    def forward(self, x: Tensor) -> Tensor:
        x_f = x[:, 1:]
        coarse = F.avg_pool3d(x_f, 2)
        edges = coarse.shape[2:]
        spare = [pad for n in reversed(edges) for pad in (0, -n % 16)]
        painted = self.known(F.pad(torch.cat([x[:, :1, ::2, ::2, ::2], coarse], dim=1), spare))
        low = painted[..., : edges[0], : edges[1], : edges[2]] - coarse
        return F.interpolate(low, scale_factor=2, mode="nearest") + x_f + 1e-6 * self.costly(x)


def widened(net: ResidualUNet) -> ResidualUNet:
    """A network of twice the width that computes the same: new channels are zero. For networks whose weights mean something."""
    c_in, c_out = net.down[0].body[0][0].in_channels, net.up[-1][-1].out_channels
    width = net.down[0].body[0][0].out_channels
    wide = ResidualUNet(c_in, c_out, 2 * width, 0.0).eval()
    c = [width * 2**level for level in range(5)]
    below = c[4]
    sources: dict[str, list[int]] = {}
    for at in range(4):
        skip = c[3 - at]
        # What comes from below, then the skip: each keeps the first half of its new place.
        sources[f"up.{at}"] = [*range(below), *range(2 * below, 2 * below + skip)]
        below = c[2 - at] if at < 3 else c_out
    for name, layer in wide.named_modules():
        old = dict(net.named_modules())[name]
        if isinstance(layer, nn.Conv3d):
            stage = name[:4] if name.startswith("up") else ""
            first = name.endswith("1.0") and stage
            taken = sources[stage] if stage else list(range(old.in_channels))
            given = taken if first else list(range(old.out_channels))
            layer.weight.data.zero_()
            layer.bias.data.zero_()  # type: ignore[union-attr]
            layer.weight.data[np.ix_(given, taken)] = old.weight.data
            layer.bias.data[given] = old.bias.data  # type: ignore[union-attr]
        elif isinstance(layer, nn.BatchNorm3d):
            stage = name[:4] if name.startswith("up") else ""
            given = sources[stage] if stage and name.endswith("1.1") else list(range(old.num_features))
            for part, empty in (("weight", 0), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
                tensor = getattr(layer, part).data
                tensor.fill_(empty)
                tensor[given] = getattr(old, part).data
        elif isinstance(layer, nn.PReLU):
            layer.weight.data = old.weight.data.clone()
    return wide


@dataclass(frozen=True)
class Found:
    """What the plain loop finds: the final mask and the error under it `(I, J, K)`, tau(t), where it stopped."""

    mask: NDArray[np.bool_]
    map: NDArray[np.float32]
    tau: list[float]
    curve: Bend
    step: int | None
    passes: int


class Plain:
    """One scan and a network of `network`; `step` is one of the hundred, so that a few can be timed."""

    def __init__(self, method: IterMask3D, scan: Scan, seed: int = 0) -> None:
        self.method, self.scan = method, scan
        self.net = network(method.net).eval()
        # The whole field of view, moved so that the brain lies on the coarse grids as in training.
        low, high = box(scan.brain, REDUCTION, like=method.data.get("box"))
        spare = (np.array(scan.grid.shape) - (high - low)) // (2 * REDUCTION) * REDUCTION
        self.low = low - spare
        self.high = self.low + scan.grid.shape
        x_f = torch.tensor(plain_high_pass(scan.image[0], scan.spacing[0]).astype(np.float32))
        self.x, self.x_f = (cut(part, self.low, self.high)[None] for part in (torch.tensor(scan.image), x_f[None]))
        self.brain = cut(torch.tensor(scan.brain), self.low, self.high)
        # The same draws as ours: two seeds differ in them, two ways of computing do not.
        rng = generator(seed, "detect")
        self.seed = int(torch.randint(2**62, (1,), generator=rng))
        self.passes = 0

    @torch.inference_mode()
    def error(self, mask: Tensor, *key: object) -> Tensor:
        """Eq. 5, squared, of a pass under a mask `(I, J, K)`."""
        self.passes += 1
        drawn = torch.randn((self.x.shape[1], int(self.brain.sum())), generator=generator(self.seed, *key))
        noise = torch.zeros_like(self.x[0])
        noise[:, self.brain] = drawn
        x_m = torch.where(mask, noise, self.x[0])
        painted = self.net(torch.cat([x_m[None], self.x_f], dim=1))
        off: Tensor = (painted - self.x).square().mean(dim=1)[0] * self.brain
        return off

    def threshold(self, error: Tensor, t: int, steps: int = 100) -> float:
        """The error that (100 - t) % of the brain exceeds, found among all voxels of the grid as published."""
        n = int(self.brain.sum())
        return float(error.flatten().kthvalue(error.numel() - n + max(1, round(n * t / steps))).values)

    def step(self, error: Tensor, t: int) -> tuple[float, Tensor]:
        """Step t: tau, and the error under the mask that it leaves."""
        tau = self.threshold(error, t)
        mask = (error > tau) & self.brain
        return tau, self.error(mask, "step", t) if t < 100 else error

    def detect(self) -> Found:
        """All of it: a hundred steps, the bend, the refinement (Algorithm 1), a last pass."""
        first = error = self.error(self.brain, "step", 0)
        taus = []
        for t in range(1, 101):
            tau, error = self.step(error, t)
            taus.append(tau)
        curve = bend(taus)
        end = stop(taus, curve.slope, self.method.gamma_mask)
        mask = self.brain if end.tau is not None else torch.zeros_like(self.brain)
        error = first
        for i in range(100):
            if end.tau is None:
                break
            before, mask = mask, (error > end.tau) & self.brain
            if not mask.any() or int(before.sum()) - int(mask.sum()) < 0.01 * int(before.sum()):
                break
            error = self.error(mask, "refine", i)
        map = self.error(mask, "last")
        mask, map = (paste(part, self.low, self.scan.grid.shape) for part in (mask, map))
        return Found(mask.numpy(), map.numpy(), taus, curve, end.step, self.passes)
