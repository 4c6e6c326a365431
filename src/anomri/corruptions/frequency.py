"""High-frequency images: the phase of every frequency is kept, the amplitude below a cut-off is zeroed.

`x_f = F^-1(A * N * exp(i * phi))`, `N = 1` where the radial frequency exceeds the cut-off (IterMask3D, section 3.3, eq. 7 to
12). The paper's radius 15 on a 192 mm field of view is `15/192` cycles per mm; stated so, it holds on any grid.
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
    axes = list(range(-len(spacing), 0))
    squared = torch.zeros((), device=x.device)
    for axis, (n, mm) in enumerate(zip(shape, spacing, strict=True)):
        last = axis == len(shape) - 1
        f = (torch.fft.rfftfreq if last else torch.fft.fftfreq)(n, d=mm, device=x.device)
        squared = squared[..., None] + f**2
    spectrum = torch.fft.rfftn(x.float(), dim=axes)
    spectrum = spectrum * (squared > cutoff**2 * (1 + 1e-6))
    kept: Tensor = torch.fft.irfftn(spectrum, s=list(shape), dim=axes)
    return kept.to(x.dtype)
