"""High-frequency images: the phase of every frequency is kept, the amplitude below a cut-off is zeroed.

`x_f = F^-1(A * N * exp(i * phi))`, `N = 1` where the radial frequency exceeds the cut-off (IterMask3D, section 3.3, eq. 7 to
12). The paper's radius 15 on a 192 mm field of view is `15/192` cycles per mm; stated so, it holds on any grid.

What is zeroed is the small part: along the last axis, frequencies above the cut-off are dropped after the first transform, and
the image of what is left is subtracted. That is several times cheaper than to transform all of it along every axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CUTOFF = 15 / 192
"""Cycles per mm: the paper's radius of 15 in a 192 mm field of view."""


def high_pass(x: Tensor, spacing: Sequence[float], cutoff: float = CUTOFF) -> Tensor:
    """The part of an image above a radial frequency.

    Parameters
    ----------
    x : `(..., I, J, K)` or `(..., I, J)`, as many trailing axes as `spacing` has values
    spacing : mm per voxel along each of those axes
    cutoff : cycles per mm; frequencies at or below it are zeroed

    Returns a tensor like `x`. Source: IterMask3D, eq. 10 to 12.
    """
    shape = x.shape[-len(spacing) :]
    frequencies = [torch.fft.fftfreq(n, d=mm, device=x.device) for n, mm in zip(shape[:-1], spacing[:-1], strict=True)]
    last = torch.fft.rfftfreq(shape[-1], d=spacing[-1], device=x.device)
    limit = cutoff**2 * (1 + 1e-6)
    last = last[last**2 <= limit]
    squared = torch.zeros((), device=x.device)
    for f in (*frequencies, last):
        squared = squared[..., None] + f**2
    whole, others = x.float(), list(range(-len(shape), -1))
    low = torch.fft.rfft(whole)[..., : len(last)]
    low = torch.fft.ifftn(torch.fft.fftn(low, dim=others) * (squared <= limit), dim=others)
    kept: Tensor = whole - torch.fft.irfft(low, n=shape[-1])
    return kept.to(x.dtype)
