"""LPIPS: how far two images are apart for a network that looks at them (Zhang et al. 2018, eq. 1).

`d(x, y) = sum_l mean_(h,w) sum_c w_lc (f_lc(x) - f_lc(y))^2`, where the features f of every layer l are scaled to unit length
along their channels. The network and the weights w are the caller's, and a value means nothing without their names: the
original is an AlexNet with w learned from human judgements of photographs, Behrendt's a ResNet trained on 3D medical images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomri.errors import BadCall

TINY = 1e-10
"""Added to a feature's length, so that a feature of zeros stays zeros."""


def lpips(x: Tensor, y: Tensor, encoder: nn.Module, weights: Sequence[Tensor] | None = None) -> float:
    """LPIPS of two images, 0 for equal ones; lower is nearer.

    Parameters
    ----------
    x, y : `(B, C, I, J)` for a 2D encoder, `(B, C, I, J, K)` for a 3D one, scaled as the encoder expects. The slices of a
        volume are a batch: `x.permute(3, 0, 1, 2)` are the axial ones of `(C, I, J, K)`
    encoder : maps a batch to a list of feature maps `(B, channels, ...)`, one per layer; it runs in evaluation mode
    weights : per layer `(channels,)`, not negative; None weighs every channel 1

    Returns the mean over the batch. Raises `BadCall` where shapes, layers or weights do not match. Source: Zhang et al.
    2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", eq. 1 (its w squared is `weights` here, as
    in the published linear layers).
    """
    if x.shape != y.shape or x.ndim not in (4, 5) or not len(x):
        raise BadCall(
            f"LPIPS: x has shape {tuple(x.shape)}, y {tuple(y.shape)}; needs (B, C, I, J) or (B, C, I, J, K) twice"
        )
    modes = [(part, part.training) for part in encoder.modules()]
    encoder.eval()
    try:
        with torch.no_grad():
            # One image at a time: the features of a whole volume's slices would not fit.
            found = [_distance(encoder(a[None]), encoder(b[None]), weights) for a, b in zip(x, y, strict=True)]
    finally:
        for part, training in modes:
            part.training = training
    return sum(found) / len(found)


def _distance(of_x: Sequence[Tensor], of_y: Sequence[Tensor], weights: Sequence[Tensor] | None) -> float:
    """The sum over layers, for one image."""
    if isinstance(of_x, Tensor):
        raise BadCall(
            f"LPIPS: the encoder returned one tensor, {tuple(of_x.shape)}; it needs to return a list, one a layer"
        )
    used = [torch.ones(f.shape[1]) for f in of_x] if weights is None else list(weights)
    if [f.shape[1] for f in of_x] != [w.numel() for w in used]:
        raise BadCall(
            f"LPIPS: the encoder's layers have {[f.shape[1] for f in of_x]} channels, "
            f"the weights {[w.numel() for w in used]}; give one weight a channel and one tensor a layer"
        )
    if any(bool((w < 0).any()) for w in used):
        raise BadCall("LPIPS: a weight is negative, so the distance could be too; use weights of 0 or more")
    total = 0.0
    for f, g, w in zip(of_x, of_y, used, strict=True):
        gap = (_unit(f) - _unit(g)).square()
        total += float((gap * w.to(gap).reshape(1, -1, *[1] * (f.ndim - 2))).sum(dim=1).mean())
    return total


def _unit(f: Tensor) -> Tensor:
    """Features of length 1 along their channels."""
    return f / (f.square().sum(dim=1, keepdim=True).sqrt() + TINY)
