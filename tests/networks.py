"""What the tests of networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from anomri.nets.engine import engine

CPU = torch.device("cpu")


def trained(net: nn.Module, *seen: Tensor) -> nn.Module:
    """In eval mode, nothing left at zero, and norms that have seen data, so that whatever is forgotten shows.

    Without the data that they have seen what flows grows from block to block, and rounding with it.
    """
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)]
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d) and not parametrize.is_parametrized(part):
            nn.init.normal_(part.weight, 0, part.weight[0].numel() ** -0.5)
        if part in norms or isinstance(part, nn.GroupNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    for norm in norms:
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.3, 2.0)
        norm.momentum = 0.9
    with torch.no_grad():
        for x in seen:
            net.train()(x)
    return net.eval()


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def overfit(net: nn.Module, x: Tensor, target: Tensor, steps: int = 60, rate: float = 1e-2) -> float:
    """The loss after a few steps on one batch, as a share of the first."""
    optimiser = torch.optim.Adam(net.train().parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = (net(x) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses[-1] / losses[0]


def same(net: nn.Module, x: Tensor, off: float = 1e-4, dtype: torch.dtype = torch.float32) -> None:
    """The engine computes what the network does."""
    with torch.inference_mode():
        slow = net(x)
    fast = engine(net, CPU, dtype)(x)
    assert slow.abs().mean() > 0.01, "nothing to compare"
    assert (fast - slow).abs().mean() / slow.abs().mean() < off
    if dtype == torch.float32:
        torch.testing.assert_close(fast, slow, atol=off, rtol=off)
