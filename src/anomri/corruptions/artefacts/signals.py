"""What artefacts share: the signal behind an image's values, the scanner's axes, places, and distances.

A scanner measures a signal that is 0 in air. An image may be that signal, or normalised: shifted, scaled, and set to another
value outside the brain. Artefacts of the acquisition act on the signal, so that a scan and its normalised copy get the same
artefact. The value of no signal is taken to be the image's minimum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from anomri.errors import BadInput

PARTITION, PHASE, READOUT = 0, 1, 2
"""Axes of a sagittal 3D acquisition, the usual one for MPRAGE and 3D FLAIR: partitions go left to right, phase encoding back to
front, the readout (frequency encoding) bottom to top."""
FIELD_MM = 192.0
"""The papers' field of view. Their constants are in voxels of 1 mm, or per this field; ours are in mm."""
SPATIAL = (-3, -2, -1)
EMPTY = "an artefact cannot be made: the brain mask is empty; check the brain extraction of the scan"


def stripped(x: Tensor, brain: Tensor) -> bool:
    """Whether an image `(C, I, J, K)` has one value everywhere outside the brain, per channel."""
    outside = x[:, ~brain]
    return outside.shape[1] > 0 and bool((outside == outside[:, :1]).all())


def signal_of(x: Tensor, brain: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The signal that an image shows, and the function that makes an image of a signal again.

    Parameters
    ----------
    x, brain : `(C, I, J, K)`, and `(I, J, K)` bool

    The signal is `x - min(x)`, and 0 outside the brain where the image is stripped (one value there). Such an image keeps that
    value outside, as if the brain had been extracted after the artefact; an image with a head is changed everywhere.
    """
    floor = x.amin(dim=SPATIAL, keepdim=True)
    air = ~brain if stripped(x, brain) else torch.zeros_like(brain)
    return torch.where(air, 0.0, x - floor), lambda signal: torch.where(air, x, signal + floor)


def background(x: Tensor, brain: Tensor) -> Tensor:
    """The value of what is not in the image, `(C, 1, 1, 1)`: the median over the grid's faces, outside the brain.

    0 in a stripped image of the usual kind, raw or z-scored; air where the head is in it; the minimum where the brain fills the grid.
    """
    faces = [x.select(axis, end).flatten(1) for axis in (1, 2, 3) for end in (0, -1)]
    inside = [brain.select(axis, end).flatten() for axis in (0, 1, 2) for end in (0, -1)]
    values = torch.cat(faces, dim=1)[:, ~torch.cat(inside)]
    found = values.median(dim=1).values if values.shape[1] else x.flatten(1).amin(dim=1)
    return found[:, None, None, None]


def level(signal: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and SD of the signal inside the brain, each `(C, 1, 1, 1)`; raises `BadInput` where it is empty."""
    if not brain.any():
        raise BadInput(EMPTY)
    values = signal[:, brain]
    return values.mean(dim=1)[:, None, None, None], values.std(dim=1)[:, None, None, None]


def extent(brain: Tensor, axis: int) -> tuple[int, int]:
    """First and last index of the brain along an axis; raises `BadInput` where it is empty."""
    where = brain.any(dim=tuple(a for a in range(3) if a != axis)).nonzero()
    if len(where) == 0:
        raise BadInput(EMPTY)
    return int(where[0]), int(where[-1])


def along(brain: Tensor, spacing: Sequence[float], axis: int) -> Tensor:
    """Position of each voxel along an axis, in mm from the middle of the brain's box; `(n, 1, 1)`, `(n, 1)` or `(n,)`."""
    first, last = extent(brain, axis)
    index = torch.arange(brain.shape[axis], device=brain.device, dtype=torch.float32)
    return ((index - (first + last) / 2) * spacing[axis]).reshape(-1, *[1] * (2 - axis))


def away(shape: Sequence[int], spacing: Sequence[float], centre: Tensor) -> Tensor:
    """Vectors `(I, J, K, 3)` in mm from a place, given in voxels, to each voxel."""
    axes = [(torch.arange(n, device=centre.device) - c) * mm for n, c, mm in zip(shape, centre, spacing, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def surface_voxel(brain: Tensor, rng: torch.Generator) -> Tensor:
    """A random voxel of the brain's surface, `(3,)`; where the grid cuts the brain is no surface.

    Raises `BadInput` where there is none: the mask is empty, or the whole grid.
    """
    # Padding never wins a maximum, so the grid's faces do not count as outside.
    outside_near = F.max_pool3d((~brain).float()[None], 3, stride=1, padding=1)[0] > 0
    where = (brain & outside_near).nonzero()
    if len(where) == 0:
        raise BadInput("the artefact lies at the brain's surface, and there is none: give a brain mask (--brain)")
    return where[int(torch.randint(len(where), (1,), generator=rng))]


def distance(mask: Tensor, spacing: Sequence[float], reach_mm: float) -> Tensor:
    """Distance in mm to the nearest voxel of a mask, centre to centre; exact up to a reach, infinite or exact beyond.

    Parameters
    ----------
    mask : `(I, J, K)` bool
    """
    squared = torch.where(mask, 0.0, torch.inf)
    for axis, mm in enumerate(spacing):
        n, nearest = mask.shape[axis], squared.clone()
        for step in range(1, min(n - 1, int(reach_mm / mm + 1e-6)) + 1):
            for here, there in ((0, step), (step, 0)):
                part = nearest.narrow(axis, here, n - step)
                part.copy_(torch.minimum(part, squared.narrow(axis, there, n - step) + (step * mm) ** 2))
        squared = nearest
    return squared.sqrt()
