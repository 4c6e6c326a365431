"""Parts of the image that are not there, or noise: a chunk, a ring, regular lines, a zipper.

Their edges lie anywhere between voxels: a voxel changes by the share of it that is covered, on any grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from anomri.corruptions.artefacts.signals import PHASE, READOUT, along, background, extent

Place = Literal["top", "middle"]
ZIPPER_MM = (3.5, 33.5, -26.5, 18.5, -11.5, 48.5, -41.5, 11.0, 26.0, -4.0, -19.0, 41.0, -34.0, 56.0, -49.0, 63.5, -56.5)
"""Where stripes lie, in mm above the middle of the brain's box: first the three of the published run (rows 60 to 64, 90 to 94 and 120 to 124
of 192, counted from the top), 30 mm apart, then those between them."""


def chunk(brain: Tensor, spacing: Sequence[float], axis: int, place: Place, width_mm: float) -> Tensor:
    """The voxels of a missing chunk, `(I, J, K)` bool: a slab across the whole grid, cut to voxel centres.

    Parameters
    ----------
    brain : `(I, J, K)` bool
    place : "top" is the brain's last `width_mm` along the axis, and all beyond; "middle" lies around the middle of the brain's box
    """
    at = along(brain, spacing, axis)
    if place == "middle":
        gone = (at >= -width_mm / 2) & (at < width_mm / 2)
    else:
        first, last = extent(brain, axis)
        top = ((last - first) / 2 + 0.5) * spacing[axis]
        gone = at > top - width_mm
    return gone.expand(brain.shape)


def missing_chunk(
    x: Tensor,
    brain: Tensor,
    spacing: Sequence[float],
    axis: int = READOUT,
    place: Place = "top",
    width_mm: float = 30.0,
) -> Tensor:
    """The image without a slab of it, as if the field of view had ended there.

    Parameters
    ----------
    x, brain : `(C, I, J, K)`, and `(I, J, K)` bool; head and all are gone, and the brain mask is not changed
    axis, place, width_mm : as in `chunk`

    What is missing has the image's background value (`signals.background`), as the paper says ("resembling the background"); its code
    takes the minimum, which in a z-scored image may lie below that. Axis 2 and "top" are superior, as the paper's "top part of the
    brain"; its code has a fixed array axis. Source: IterMask3D v2, section 5.1, Table 1: 30 mm, at the top and in the middle.
    """
    return torch.where(chunk(brain, spacing, axis, place, width_mm), background(x, brain), x)


def ring(brain: Tensor, spacing: Sequence[float], *, radius_mm: float = 40.0, width_mm: float = 3.0) -> Tensor:
    """How much of each voxel a ring covers, `(I, J, 1)`, 0 to 1: a circle in every axial slice, around the middle of the brain.

    IterMask3D v1, section 4.2, has a ring without signal; it states no numbers, these are ours.
    """
    radius = (along(brain, spacing, 0) ** 2 + along(brain, spacing, 1) ** 2).sqrt()
    return _covered((radius - radius_mm).abs(), width_mm, (spacing[0] + spacing[1]) / 2)


def periodic_line(
    brain: Tensor, spacing: Sequence[float], *, period_mm: float = 20.0, width_mm: float = 2.0, axis: int = PHASE
) -> Tensor:
    """How much of each voxel regular lines cover, 0 to 1, one axis long: parallel planes at right angles to an axis.

    IterMask3D v1, section 4.2, has lines without signal; it states no numbers, these are ours.
    """
    at = along(brain, spacing, axis)
    off = (torch.remainder(at + period_mm / 2, period_mm) - period_mm / 2).abs()
    return _covered(off, width_mm, spacing[axis])


def zipper(brain: Tensor, spacing: Sequence[float], *, stripes: float = 3.0, width_mm: float = 5.0) -> Tensor:
    """How much of each voxel is noise of a zipper, 0 to 1, `(K,)`: stripes at fixed places of the readout, across the whole grid.

    Parameters
    ----------
    stripes : how many; a part of one is a fainter one, up to all of `ZIPPER_MM`

    Source: IterMask3D v2, section 5.1, eq. 29 and 30, Table 1: three stripes of 5 mm.
    """
    at = along(brain, spacing, READOUT)
    share = torch.zeros_like(at)
    for number, mm in enumerate(ZIPPER_MM):
        share = share + min(max(stripes - number, 0.0), 1.0) * _covered((at - mm).abs(), width_mm, spacing[READOUT])
    return share.clamp(max=1)


def interference(x: Tensor, rng: torch.Generator) -> Tensor:
    """What a zipper shows: noise between 0 and the largest value of the image, `(C, I, J, K)`, as in the published run."""
    return torch.rand(x.shape, generator=rng).to(x.device) * x.amax(dim=(-3, -2, -1), keepdim=True)


def _covered(off_mm: Tensor, width_mm: float, voxel_mm: float) -> Tensor:
    """The share of a voxel that lies within a band, by its centre's distance from the band's middle."""
    return ((width_mm + voxel_mm) / 2 - off_mm).clamp(0, min(width_mm, voxel_mm)) / voxel_mm
