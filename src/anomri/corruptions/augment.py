"""Other contrasts of the same brain, to train with: gamma, bias field, blur, ghosts (Behrendt et al., cDDPM and later).

The papers name TorchIO's transforms and how often each is drawn; ranges are TorchIO's defaults. They act on a signal
that is 0 outside the brain and at the brain's darkest voxel, so that an image and its z-scored copy are augmented
alike. TorchIO takes values as they are: its power of a z-scored image bends it about the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anomri.corruptions import spatial
from anomri.corruptions.artefacts import fields, intensity, kspace
from anomri.corruptions.erasing import check_shapes
from anomri.errors import BadCall

LOG_GAMMA = 0.3
"""Exponents are from exp(-0.3) to exp(0.3)."""
COEFFICIENT = 0.5
"""Each of the 20 coefficients of a bias field of order 3 is from -0.5 to 0.5."""
SIGMA_MM = 2.0
"""A blur's SD is from 0 to 2 mm, along each axis its own."""
GHOSTS = (4, 10)
GHOST_INTENSITY = (0.5, 1.0)
"""How many copies, along one of the axes at random, and how strong."""


def augment(
    x: Tensor,
    brain: Tensor,
    spacing: Sequence[float],
    rng: torch.Generator,
    *,
    gamma: float = 0.5,
    bias: float = 0.25,
    blur: float = 0.25,
    ghosting: float = 0.5,
) -> Tensor:
    """A brain as another scanner might show it; each change is drawn with its own probability, in this order.

    Parameters
    ----------
    x, brain : `(C, I, J, K)` and `(I, J, K)` bool, raw or normalised; or a slice, `(C, I, J)` and `(I, J)`, which is a
        volume of one slice: nothing is blurred and no ghosts lie across it
    spacing : mm per voxel along each axis of the brain mask
    gamma, bias, blur, ghosting : probabilities. Each channel has its own exponent; bias field, blur and ghosts are
        those of all channels

    Returns a new tensor like `x`, the same outside the brain, not normalised again. What is outside counts as air, a
    head too. One generator draws the same of each change, whether or not the others are made. Source: Behrendt
    et al., cDDPM, section 4.4; ghosts leave those lines of k-space alone that `kspace.ghosting` does.
    Raises `BadCall` for shapes that do not go together and for probabilities beyond 0 and 1. Where the brain is empty
    nothing changes.
    """
    check_shapes(x, brain, "augmentation")
    if len(spacing) != brain.ndim:
        raise BadCall(
            f"augmentation needs {brain.ndim} spacings for a brain mask {tuple(brain.shape)}, got {len(spacing)}"
        )
    chances = {"gamma": gamma, "bias": bias, "blur": blur, "ghosting": ghosting}
    for name, chance in chances.items():
        if not 0 <= chance <= 1:
            raise BadCall(f"the probability of {name} is 0 to 1, got {chance:g}")
    if not brain.any():
        return x.clone()
    if brain.ndim == 2:
        # Any thickness does: nothing lies beside the slice.
        mm = (*spacing, 1.0)
        return augment(x[..., None], brain[..., None], mm, rng, **chances)[..., 0]

    made = torch.rand(4, generator=rng) < torch.tensor(list(chances.values()))
    log_gamma = LOG_GAMMA * (2 * torch.rand(len(x), generator=rng) - 1)
    coefficients = COEFFICIENT * (2 * torch.rand(20, generator=rng) - 1)
    sigma = SIGMA_MM * torch.rand(3, generator=rng)
    ghosts = int(torch.randint(GHOSTS[0], GHOSTS[1] + 1, (1,), generator=rng))
    axes = [axis for axis in range(3) if brain.shape[axis] > 1] or [0]
    axis = axes[int(torch.randint(len(axes), (1,), generator=rng))]
    strong = GHOST_INTENSITY[0] + (GHOST_INTENSITY[1] - GHOST_INTENSITY[0]) * float(torch.rand((), generator=rng))

    if not made.any():
        return x.clone()
    image = x.float()
    floor = image[:, brain].amin(dim=1)[:, None, None, None]
    signal = torch.where(brain, image - floor, 0.0)
    if made[0]:
        curves = zip(signal, log_gamma.tolist(), strict=True)
        signal = torch.cat([intensity.gamma(channel[None], log) for channel, log in curves])
    if made[1]:
        signal = signal * fields.bias_field(brain.shape, coefficients.to(x.device))
    if made[2]:
        signal = _blurred(signal, [float(s) / mm for s, mm in zip(sigma, spacing, strict=True)])
    if made[3]:
        signal = kspace.ghosting(signal, spacing, ghosts=ghosts, intensity=strong, axis=axis)
    return torch.where(brain, (signal + floor).to(x.dtype), x)


def _blurred(signal: Tensor, sigma: Sequence[float]) -> Tensor:
    """Blurred by `sigma` voxels along each axis, without loss at the grid's faces."""
    held = spatial.blur(torch.cat([signal, torch.ones_like(signal[:1])])[None], sigma)[0]
    return held[:-1] / held[-1:]
