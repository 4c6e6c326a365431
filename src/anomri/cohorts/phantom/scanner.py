"""How a brain of known tissues looks in a scanner: tissue means for each sequence, then all that a scanner adds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anomri.corruptions.contrast import bias_field, rician
from anomri.corruptions.spatial import blur, foldless, smooth_field
from anomri.errors import BadCall, unknown

MEANS = {"T1w": (0.22, 0.56, 0.82), "T2w": (0.95, 0.55, 0.38), "FLAIR": (0.14, 0.66, 0.52)}
"""Mean intensity of CSF, grey and white matter, by sequence; 1 is the brightest. Their order is the sequence's, values are ours."""
MEANS_SD = 0.02
"""How much these means differ between subjects (SD)."""
RANDOM = "random"
"""The sequence whose tissue means are drawn anew, from anywhere, for each subject."""
UNIT = 1000.0
"""Intensity in the image of what is 1 here."""


def checked(sequences: Sequence[str]) -> tuple[str, ...]:
    """Known sequences, each once; raises `BadCall`."""
    for name in sequences:
        if name not in (*MEANS, RANDOM):
            raise unknown("sequence", name, (*MEANS, RANDOM))
    if not sequences or len(set(sequences)) < len(sequences):
        raise BadCall(f"sequences '{', '.join(sequences)}': name one or several, each once")
    return tuple(sequences)


def means(sequence: str, rng: torch.Generator) -> Tensor:
    """`(3,)`: this subject's means of CSF, grey and white matter."""
    if sequence == RANDOM:
        return 0.1 + 0.8 * torch.rand(3, generator=rng)
    return torch.tensor(MEANS[sequence]) + MEANS_SD * torch.randn(3, generator=rng)


def anatomy(
    shape: Sequence[int], spacing: Sequence[float], rng: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """A subject's way from the template, `(3, I, J, K)` in mm: its size along each axis, broad and fine differences."""
    grown = 0.04 * torch.randn(3, generator=rng)
    axes = [(torch.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True)]
    shift = torch.stack(torch.meshgrid(*axes, indexing="ij")).to(device) * grown[:, None, None, None].to(device)
    for sd_mm, every_mm in ((3.0, 60.0), (1.0, 25.0)):
        shift += sd_mm * smooth_field(shape, spacing, every_mm, rng, channels=3, device=device)
    return foldless(shift, spacing)


def scanned(x: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
    """An image `(I, J, K)` of tissue means as a scanner of its own would show it, in raw units: texture, resolution, shading,
    curve, noise. Source: the steps of Billot et al., SynthSeg (2023), section 3.2; noise is Rician, the ranges are ours."""
    drawn = torch.rand(4, generator=rng).tolist()
    x = x * (1 + 0.03 * smooth_field(x.shape, spacing, 5.0, rng, device=x.device)[0])
    width_mm = 0.4 + 0.4 * drawn[0]
    x = blur(x[None, None], [width_mm / mm for mm in spacing])[0, 0].clamp(min=0)
    x = x * bias_field(x.shape, spacing, rng, sd=0.05 + 0.1 * drawn[1], device=x.device)
    x = x ** float(torch.exp(torch.tensor(0.3 * (drawn[2] - 0.5))))
    return UNIT * rician(x, 0.01 + 0.02 * drawn[3], rng)
