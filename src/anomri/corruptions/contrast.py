"""What a scanner does to a brain's intensities: smooth shading, another curve, less sharpness, thick slices, noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from anomri.corruptions.spatial import blur, smooth_field

THICK_MM = (2.0, 6.0)
"""Thickness of slices in clinical scans, from and to."""


def restain(
    x: Tensor, brain: Tensor, rng: torch.Generator, *, shade: float = 0.25, gamma: float = 0.3, sigma: float = 0.7
) -> Tensor:
    """A z-scored brain as another scanner might show it, z-scored again.

    Parameters
    ----------
    x, brain : `(C, I, J, K)` z-scored inside the brain and 0 outside, and `(I, J, K)` bool
    shade : SD of a smooth field that is added, and, halved, of one that stretches the contrast locally
    gamma : intensities between -3 and 3 SD go along a power curve with an exponent from exp(-gamma) to exp(gamma)
    sigma : one time in four the image is blurred, by up to this many voxels

    Returns a tensor like `x`, mean 0 and SD 1 inside the brain, 0 outside. Sources: bias fields and gamma as in
    Behrendt's thesis, section 3.2 (augmentation); the ranges are ours.
    """
    inside = brain[None].to(x.dtype)
    drawn = torch.rand(3, generator=rng)
    add, stretch = (_smooth(x, rng) for _ in range(2))
    out = x * (1 + 0.5 * shade * stretch) + shade * add
    low, high = -3.0, 3.0
    share = ((out - low) / (high - low)).clamp(min=1e-3)
    out = low + (high - low) * share ** torch.exp(gamma * (2 * drawn[0] - 1))
    if drawn[1] < 0.25:
        width = float(sigma * drawn[2])
        held = blur(torch.cat([out * inside, inside])[None], [width] * 3)[0]
        out = held[:-1] / held[-1:].clamp(min=0.1)
    return _standard(out, brain)


def thicken(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
    """A z-scored brain as seen in thick slices (`thick_slices`), of a thickness in `THICK_MM` that is drawn, z-scored again.

    `x, brain` as in `restain`, spacing in mm. Thickness is drawn evenly, but no thinner than the grid's own.
    """
    axis, mm = thickness(rng)
    inside = brain[None].to(x.dtype)
    held = thick_slices(torch.cat([x * inside, inside]), spacing, axis, max(mm, spacing[axis]))
    return _standard(held[:-1] / held[-1:].clamp(min=0.1), brain)


def thick_slices(x: Tensor, spacing: Sequence[float], axis: int, mm: float) -> Tensor:
    """`(C, I, J, K)` as slices of `mm` along an axis show it: means over their thickness, as far apart, interpolated back."""
    sigma = [mm / 2.355 / spacing[a] if a == axis else 0.0 for a in range(3)]
    shape = [max(2, round(n * spacing[a] / mm)) if a == axis else n for a, n in enumerate(x.shape[1:])]
    few = F.interpolate(blur(x[None], sigma), size=shape, mode="trilinear")
    return F.interpolate(few, size=list(x.shape[1:]), mode="trilinear")[0]


def thickness(rng: torch.Generator) -> tuple[int, float]:
    """An axis, axial two times in three, and a thickness in mm."""
    axial, width = torch.rand(2, generator=rng).tolist()
    return 2 if axial < 2 / 3 else int(axial < 5 / 6), THICK_MM[0] + (THICK_MM[1] - THICK_MM[0]) * width


def _standard(x: Tensor, brain: Tensor) -> Tensor:
    """Mean 0 and SD 1 inside the brain for each channel, 0 outside."""
    values = x[:, brain]
    mean, sd = values.mean(dim=1), values.std(dim=1).clamp(min=1e-6)
    return torch.where(brain, (x - mean[:, None, None, None]) / sd[:, None, None, None], 0.0)


def bias_field(
    shape: Sequence[int],
    spacing: Sequence[float],
    rng: torch.Generator,
    *,
    sd: float = 0.1,
    every_mm: float = 80.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A smooth positive field `(I, J, K)` about 1, to multiply with: the exponential of `sd` times a smooth normal field.

    Source: the bias field of Billot et al., SynthSeg (2023), section 3.2.
    """
    return torch.exp(sd * smooth_field(shape, spacing, every_mm, rng, device=device)[0])


def rician(x: Tensor, sd: float, rng: torch.Generator) -> Tensor:
    """The magnitude of `x`, in whose real and imaginary part there is normal noise of `sd`; never below 0.

    Source: Gudbjartsson and Patz, The Rician distribution of noisy MRI data (1995).
    """
    real, imaginary = (sd * torch.randn(x.shape, generator=rng).to(x.device) for _ in range(2))
    return torch.hypot(x + real, imaginary)


def _smooth(x: Tensor, rng: torch.Generator) -> Tensor:
    """A smooth random field `(1, I, J, K)` of mean 0 and SD 1: normal values on 3 to 5 points an axis, interpolated."""
    points = int(torch.randint(3, 6, (1,), generator=rng))
    coarse = torch.randn(1, 1, points, points, points, generator=rng)
    field = F.interpolate(coarse, size=list(x.shape[1:]), mode="trilinear", align_corners=True)[0]
    return (field - field.mean()) / field.std().clamp(min=1e-6)
