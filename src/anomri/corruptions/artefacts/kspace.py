"""Artefacts of k-space, the spectrum that a scanner measures: noise, a spike, ghosts, truncation, blur, motion.

`x' = Re F^-1(F(x) changed)`. The real part is kept, not the magnitude: all but motion are linear in the image, and a normalised
image has a sign. Arrays are signals `(..., I, J, K)`, 0 in air (`signals.signal_of`); every voxel of the grid is touched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from anomri.corruptions.artefacts.signals import FIELD_MM, PARTITION, PHASE, SPATIAL


def gaussian_noise(x: Tensor, spacing: Sequence[float], rng: torch.Generator, *, share: float = 0.003) -> Tensor:
    """Complex noise in the 2D k-space of every axial slice.

    Parameters
    ----------
    x : `(..., I, J, K)` signal
    share : bound of the published run's uniform noise, as a share of the largest value of the slice's k-space, which is the
        sum over the slice, at 1 mm in a 192 mm field

    White noise in k-space is white, and normal, in the image; so it is drawn there, with the SD that the bound comes to: `share /
    sqrt(3) * sum / 192`, the sum over mm^2. It is the same on any grid. IterMask3D v2, section 5.1, eq. 20 to 22, says Gaussian with
    0.2; its code, which Table 1 comes from, has 0.003. It leaves the two central rows alone, we do not.
    """
    total = x.sum(dim=(-3, -2), keepdim=True) * (spacing[0] * spacing[1])
    noise = torch.randn(x.shape, generator=rng).to(x.device)
    return x + share / math.sqrt(3) * total / FIELD_MM * noise


def spike(
    x: Tensor,
    spacing: Sequence[float],
    *,
    intensity: float = 4.0,
    cycles_per_mm: Sequence[float] = (-10 / FIELD_MM,) * 3,
) -> Tensor:
    """One k-space point far too large: a wave over the whole image (herringbone).

    Parameters
    ----------
    x : `(..., I, J, K)` signal, each leading index by itself
    intensity : what is added, over the largest magnitude of the k-space of a 192 mm field
    cycles_per_mm : where in k-space, along each axis. The published place (0.45, 0.45, 0.45) of a 192^3 k-space is 10 cycles a field
        from its centre

    Source: IterMask3D v2, section 5.1, eq. 23 to 25, Table 1: one spike of intensity 4; after TorchIO.
    """
    largest: Tensor = torch.fft.rfftn(x, dim=SPATIAL).abs().amax(dim=SPATIAL, keepdim=True)
    phase = torch.zeros((), device=x.device)
    for n, mm, f in zip(x.shape[-3:], spacing, cycles_per_mm, strict=True):
        phase = phase[..., None] + 2 * torch.pi * f * mm * torch.arange(n, device=x.device)
    return x + intensity * largest * math.prod(spacing) / FIELD_MM**3 * torch.cos(phase)


def ghosting(
    x: Tensor, spacing: Sequence[float], *, ghosts: int = 4, intensity: float = 2.0, axis: int = PHASE
) -> Tensor:
    """Every so many lines of k-space are changed: copies of the head along the phase encoding.

    Parameters
    ----------
    x : `(..., I, J, K)` signal
    ghosts : copies over the grid's field of view; every `ghosts`-th line, counted from the centre, is multiplied by `1 - intensity`
    axis : 0, 1 or 2

    Lines within 1 cycle per 192 mm of the centre stay, so that the mean stays: the published `restore` of 0.01 of 192 lines. TorchIO
    counts lines from the edge of k-space, and rounds what it restores down to nothing below 100 lines; the mean then is lost.
    Source: IterMask3D v2, section 5.1, eq. 26 to 28, Table 1: 4 ghosts of intensity 2.
    """
    n, axis = x.shape[axis - 3], axis - 3
    line = torch.fft.fftfreq(n, d=1 / n, device=x.device).round()
    near = line.abs() <= n * spacing[axis] / FIELD_MM * (1 + 1e-6)
    factor = torch.where((line % ghosts == 0) & ~near, 1 - intensity, 1.0)
    return _filtered(x, factor, axis)


def gibbs(
    x: Tensor, spacing: Sequence[float], voxel_mm: Sequence[float], *, axes: Sequence[int] = (PARTITION, PHASE)
) -> Tensor:
    """K-space that ends too early: ringing beside edges, and less sharpness.

    Parameters
    ----------
    x : `(..., I, J, K)` signal
    voxel_mm : edge of the voxel that was acquired, for each of `axes`; frequencies above `1 / (2 voxel_mm)` are 0
    """
    for axis, voxel in zip(axes, voxel_mm, strict=True):
        f = torch.fft.fftfreq(x.shape[axis - 3], d=spacing[axis], device=x.device)
        x = _filtered(x, (f.abs() <= 0.5 / voxel * (1 + 1e-6)).to(x.dtype), axis - 3)
    return x


def blur(x: Tensor, spacing: Sequence[float], sigma_mm: float = 2.0) -> Tensor:
    """A signal `(C, I, J, K)` blurred by a Gaussian of the same width along each axis; the grid's edge goes on outside.

    In k-space it is exact for a width far below a voxel too, where a sampled kernel is not. 2 mm is the upper end of TorchIO's
    `RandomBlur`, by which Behrendt's thesis augments.
    """
    for dim, mm in zip(SPATIAL, spacing, strict=True):
        n, pad, pads = x.shape[dim], math.ceil(4 * sigma_mm / mm), [0] * 6
        pads[2 * (-1 - dim)] = pads[2 * (-1 - dim) + 1] = pad
        f = torch.fft.fftfreq(n + 2 * pad, d=mm, device=x.device)
        factor = torch.exp(-2 * (torch.pi * sigma_mm * f) ** 2)
        x = _filtered(F.pad(x[None], pads, mode="replicate")[0], factor, dim).narrow(dim, pad, n)
    return x


def motion(
    x: Tensor,
    spacing: Sequence[float],
    degrees: Tensor,
    shift_mm: Tensor,
    *,
    still: float = 1 / 3,
    axis: int = PHASE,
) -> Tensor:
    """A head that lies still while the centre of k-space is measured, and elsewhere before and after.

    Parameters
    ----------
    x : `(C, I, J, K)` signal
    degrees, shift_mm : `(2, 3)`, the poses before and after: rotations about I, J and K through the grid's centre, and translations
    still : the central share of the lines along `axis` that sees the head in its place

    Shaw et al. 2019, as in TorchIO, whose two movements at a third and two thirds of the time are the default.
    """
    n, dim = x.shape[axis - 3], axis - 3
    first = min(int(n * (1 - still) / 2), n // 2)
    last = max(int(n * (1 + still) / 2), n // 2 + 1)
    spectrum = torch.fft.fftshift(torch.fft.fft(x, dim=dim), dim=dim)
    for (start, stop), angles, shift in zip(((0, first), (last, n)), degrees, shift_mm, strict=True):
        if stop > start:
            moved = torch.fft.fftshift(torch.fft.fft(_moved(x, spacing, angles, shift), dim=dim), dim=dim)
            spectrum.narrow(dim, start, stop - start).copy_(moved.narrow(dim, start, stop - start))
    return _image(torch.fft.ifftshift(spectrum, dim=dim), dim)


def _moved(x: Tensor, spacing: Sequence[float], degrees: Tensor, shift_mm: Tensor) -> Tensor:
    """`x'(r) = x(R r + t)`, r in mm from the grid's centre; linear, 0 outside. `R = R_k R_i R_j`, as ITK's Euler angles."""
    c, s = torch.cos(torch.deg2rad(degrees)).tolist(), torch.sin(torch.deg2rad(degrees)).tolist()
    about_i = x.new_tensor([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]])
    about_j = x.new_tensor([[c[1], 0, s[1]], [0, 1, 0], [-s[1], 0, c[1]]])
    about_k = x.new_tensor([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    # affine_grid counts axes from the last and from -1 to 1 along each, so half lengths come in.
    half = x.new_tensor([n * mm / 2 for n, mm in zip(x.shape[-3:], spacing, strict=True)])
    turn = (about_k @ about_i @ about_j) * half[None] / half[:, None]
    theta = torch.cat([turn.flip(0, 1), (shift_mm.to(x) / half).flip(0)[:, None]], dim=1)
    grid = F.affine_grid(theta[None], [1, 1, *x.shape[-3:]], align_corners=False)
    return F.grid_sample(x[None], grid, padding_mode="zeros", align_corners=False)[0]


def _filtered(x: Tensor, factor: Tensor, dim: int) -> Tensor:
    """The image with its spectrum along one axis multiplied by `factor`, which is even, so that the image stays real."""
    shape = [-1, *[1] * (-1 - dim)]
    return _image(torch.fft.fft(x, dim=dim) * factor.reshape(shape), dim)


def _image(spectrum: Tensor, dim: int) -> Tensor:
    image: Tensor = torch.fft.ifft(spectrum, dim=dim).real
    return image
