"""Artefacts of magnetic fields: a bias field of the coils, and metal that bends the main field."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from anomri.corruptions.artefacts.signals import READOUT, away
from anomri.errors import BadCall

HZ_PER_TESLA = 42.577e6
"""Gyromagnetic ratio of hydrogen over 2 pi."""
STILL_MM = 0.1
"""Farther from the metal than where it displaces by this at most, the image is left as it is."""
PARTS = 8
"""A voxel's signal is moved in so many parts along the readout."""


def bias_field(shape: Sequence[int], coefficients: Tensor, order: int = 3) -> Tensor:
    """A smooth positive field `(I, J, K)`: the exponential of a polynomial.

    Parameters
    ----------
    coefficients : of `i^a j^b k^c`, `a + b + c <= order`, the last exponent running fastest; i, j and k go from -1 to 1 over the
        grid, so the field is the same on any grid. The published run has 0.1 for each of the 20, the constant too

    Multiply a signal by it, not a normalised image: the published run, too, takes the minimum off and puts it back. Source: Van Leemput
    1999, as in TorchIO; IterMask3D v2, section 5.1, Table 1. Raises `BadCall` for another number of coefficients.
    """
    powers = [(a, b, c) for a in range(order + 1) for b in range(order + 1 - a) for c in range(order + 1 - a - b)]
    if len(coefficients) != len(powers):
        raise BadCall(f"a bias field of order {order} has {len(powers)} coefficients, got {len(coefficients)}")
    at = [torch.linspace(-1, 1, n, device=coefficients.device) for n in shape]
    total = torch.zeros(*shape, device=coefficients.device)
    for (a, b, c), weight in zip(powers, coefficients, strict=True):
        total += weight * (at[0] ** a)[:, None, None] * (at[1] ** b)[:, None] * at[2] ** c
    return total.exp()


def dipole(r: Tensor, *, chi: float, radius_mm: float, tesla: float) -> tuple[Tensor, Tensor]:
    """The field of a magnetised sphere outside of it: shift of frequency in Hz, and length of its gradient in Hz per mm.

    Parameters
    ----------
    r : `(..., 3)` mm from the sphere's centre; the main field points along the last coordinate, head to foot
    chi : susceptibility above the tissue's (SI)

    `f = gamma B0 chi / 3 (a / r)^3 (3 cos^2 - 1)`, `|grad f| = gamma B0 chi a^3 / r^4 sqrt(5 cos^4 - 2 cos^2 + 1)`.
    """
    length = r.norm(dim=-1).clamp(min=radius_mm)
    cos2 = (r[..., 2] / length) ** 2
    hz = HZ_PER_TESLA * tesla * chi / 3 * (radius_mm / length) ** 3
    return hz * (3 * cos2 - 1), 3 * hz / length * (5 * cos2**2 - 2 * cos2 + 1).sqrt()


def susceptibility(
    x: Tensor,
    spacing: Sequence[float],
    centre: Tensor,
    *,
    chi: float = 900e-6,
    radius_mm: float = 7.0,
    tesla: float = 3.0,
    echo_ms: float = 3.0,
    hz_per_mm: float = 200.0,
    voxel_mm: float = 1.0,
) -> Tensor:
    """A piece of metal: a void, a bright rim where signal piles up, and distortion along the readout.

    Parameters
    ----------
    x : `(C, I, J, K)` signal
    centre : `(3,)` voxel coordinates of a sphere of metal; it has no signal itself
    chi, radius_mm : its susceptibility above the tissue's, and its size; by default cobalt-chromium, as large as a shunt valve.
        Titanium has 0.18e-3
    echo_ms : echo time of a gradient echo; 0 is a spin echo, which distorts but does not dephase
    hz_per_mm : readout gradient; the signal moves up by `f / hz_per_mm` mm
    voxel_mm : edge of the acquired voxel, over which the signal dephases by `exp(-(pi |grad f| voxel TE)^2 / 6)`, which is the
        sinc of a linear phase up to fourth order

    Signal is moved, not made: where displacements crowd it piles up, by the inverse of the Jacobian. Ours, from the field of a
    dipole (Jackson, section 5.10; Schenck 1996). IterMask3D v2, section 5.2, has real scans ("missing brain region, hyper-intense signal spikes
    at the boundary"), no simulation.
    """
    metal = {"chi": chi, "radius_mm": radius_mm, "tesla": tesla}
    reach = radius_mm * (2 * HZ_PER_TESLA * tesla * chi / 3 / hz_per_mm / STILL_MM) ** (1 / 3)
    edges = [
        (max(0, math.floor(c - reach / mm)), min(n, math.ceil(c + reach / mm) + 1))
        for c, mm, n in zip(centre.tolist(), spacing, x.shape[-3:], strict=True)
    ]
    box = (slice(None), *(slice(low, high) for low, high in edges))
    part = x[box]
    n, mm = part.shape[-1], spacing[READOUT]
    r = away(part.shape[1:], spacing, centre - centre.new_tensor([low for low, _ in edges])).to(x)
    moved = torch.zeros_like(part)
    for part_of_voxel in range(PARTS):
        off = (part_of_voxel + 0.5) / PARTS - 0.5
        at = r.clone()
        at[..., 2] += off * mm
        hz, slope = dipole(at, **metal)
        away_mm = at.norm(dim=-1)
        # Displacements shortened by up to STILL_MM, to none at the box's edge: there is no seam.
        move = hz / hz_per_mm / mm * (1 - (away_mm / reach) ** 3).clamp(min=0)
        kept = torch.exp(-((torch.pi * slope * voxel_mm * echo_ms / 1000) ** 2) / 6)
        signal = part * (kept * (away_mm > radius_mm) / PARTS)
        _splat(moved, signal, torch.arange(n, device=x.device) + off + move)
    out = x.clone()
    out[box] = moved
    return out


def _splat(onto: Tensor, signal: Tensor, target: Tensor) -> None:
    """Adds `signal (C, I, J, K)`, `1 / PARTS` of a voxel long, around fractional positions `target (I, J, K)` of the last axis."""
    n = onto.shape[-1]
    start = target + 0.5 - 0.5 / PARTS
    lower = start.floor()
    above = ((start - lower - 1) * PARTS + 1).clamp(min=0)
    for index, weight in ((lower, 1 - above), (lower + 1, above)):
        inside = (index >= 0) & (index < n)
        where = index.clamp(0, n - 1).long().expand(signal.shape)
        onto.scatter_add_(-1, where, signal * (weight * inside))
