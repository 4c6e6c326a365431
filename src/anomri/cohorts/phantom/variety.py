"""The variety of healthy people and of scanners that weights for a stranger's scan must have seen.

Age is no anomaly: ventricles are narrow or wide, thin caps lie about their horns, and a few small dots in the deep white matter. A scanner
may have thick slices, another curve of intensities and more noise, and whoever stripped the scan may have cut closer to the brain. Ranges are ours; what is drawn is the subject's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from torch import Tensor
from torch.nn import functional as F

from anomri.corruptions.contrast import rician, thick_slices, thickness
from anomri.corruptions.spatial import blur, foldless, smooth_field, warp

VENTRICLES = (4, 43)
WHITE = (2, 41)
SPOT = 77
"""The number of what caps and dots are painted as: white-matter hypointensities in FreeSurfer's table."""
SINUS = 262
"""The number of the large veins outside the brain in FreeSurfer's table."""
SINUS_SHARE = 0.5
VEIN = {"T1w": (0.1, 0.35), "T2w": (0.02, 0.2), "FLAIR": (0.02, 0.2)}
"""How bright they are: blood that flows is dark; 1 is the brightest tissue."""
REACH_MM = 10.0
"""How far from a ventricle its widening is felt: to 1/e."""
DEEP_MM = 3.0
"""Dots lie at least so far inside the white matter."""
CONTRAST = {"T1w": (-0.12, -0.03), "T2w": (0.08, 0.25), "FLAIR": (0.08, 0.25)}
"""How much brighter than white matter caps and dots are; 1 is the brightest tissue."""
THICK_SHARE = 0.5
SHAVED_MM = 2.5
SHAVED_SHARE = 0.5
RIM_SHARE = 0.35
GAMMA = 0.35
"""Exponents are from exp(-0.35) to exp(0.35)."""


@dataclass(frozen=True)
class Age:
    """What years have done to a healthy brain: mm by which its ventricles are wider than the map's, mm of caps, a number of dots."""

    wide_mm: float
    caps_mm: float
    dots: int


def age(rng: torch.Generator) -> Age:
    """A draw: most are young. Caps are up to 3 mm, dots up to a few."""
    old, wide, caps, dots = torch.rand(4, generator=rng).tolist()
    return Age(4.5 * old**2 + 1.5 * (wide - 0.5), 3.0 * old * caps, int(7 * old**2 * dots))


def aged(labels: Tensor, spacing: Sequence[float], years: Age, rng: torch.Generator) -> Tensor:
    """A label map `(I, J, K)` of FreeSurfer's numbers at that age: ventricles wider, caps and dots as `SPOT`.

    A map without lateral ventricles, or without white matter, keeps what it lacks.
    """
    numbers = _widened(labels, spacing, years.wide_mm)
    spots = _caps(numbers, spacing, years.caps_mm) | _dots(numbers, spacing, years.dots, rng)
    return numbers.masked_fill(torch.from_numpy(spots).to(labels.device), SPOT)


def _widened(labels: Tensor, spacing: Sequence[float], mm: float) -> Tensor:
    """Ventricles so many mm wider on each side (narrower where below 0), what is around them pushed away."""
    # Every second voxel is enough for a smooth displacement.
    fluid = np.isin(labels[::2, ::2, ::2].cpu().numpy(), VENTRICLES)
    if not fluid.any() or fluid.all() or mm == 0:
        return labels
    coarse = [2 * s for s in spacing]
    shift, rim = np.zeros((3, *fluid.shape), dtype=np.float32), np.zeros(fluid.shape, dtype=bool)
    for inside, reach in ((False, REACH_MM), (True, REACH_MM / 2)):
        here = fluid if inside else ~fluid
        away, nearest = distance_transform_edt(here, sampling=coarse, return_indices=True)
        rim |= here & (away <= max(coarse))
        strength = mm * np.exp(-away / reach) / np.maximum(away, 1e-3) * here
        # A voxel beside the fluid shows what lies nearer to it, one inside what lies deeper.
        way = -1.0 if inside else 1.0
        for axis in range(3):
            at = np.arange(fluid.shape[axis]).reshape([-1 if a == axis else 1 for a in range(3)])
            shift[axis] += way * strength * (nearest[axis] - at) * coarse[axis]
    smooth = np.stack([gaussian_filter(part, [3.0 / c for c in coarse]) for part in shift])
    # Smoothed, it moves the rim by less than it was to.
    smooth *= min(3.0, abs(mm) / max(float(np.linalg.norm(smooth, axis=0)[rim].mean()), 1e-3))
    fine = F.interpolate(torch.from_numpy(smooth)[None], size=list(labels.shape), mode="trilinear")[0].to(labels.device)
    moved = warp(labels[None].float(), foldless(fine, spacing), spacing, nearest=True)
    return moved[0].to(labels.dtype)


def _caps(numbers: Tensor, spacing: Sequence[float], mm: float) -> NDArray[np.bool_]:
    """White matter within so many mm of the front or the back fifth of the ventricles, and half as far elsewhere."""
    known = numbers.cpu().numpy()
    fluid, white = np.isin(known, VENTRICLES), np.isin(known, WHITE)
    none = np.zeros(known.shape, dtype=bool)
    if mm <= 0 or not fluid.any():
        return none
    away = distance_transform_edt(~fluid, sampling=tuple(spacing))
    # RAS: the second axis runs from the back to the front.
    along = np.flatnonzero(fluid.any(axis=(0, 2)))
    fifth = (along[-1] - along[0]) / 5
    at = np.arange(known.shape[1])[:, None]
    horn = (at <= along[0] + fifth) | (at >= along[-1] - fifth)
    found: NDArray[np.bool_] = white & (away <= np.where(horn, mm, mm / 2))
    return found


def _dots(numbers: Tensor, spacing: Sequence[float], n: int, rng: torch.Generator) -> NDArray[np.bool_]:
    """Balls of 0.7 to 1.6 mm radius in deep white matter."""
    known = numbers.cpu().numpy()
    found = np.zeros(known.shape, dtype=bool)
    deep = np.argwhere(distance_transform_edt(np.isin(known, WHITE), sampling=tuple(spacing)) >= DEEP_MM)
    for _ in range(n if len(deep) else 0):
        centre = deep[int(torch.randint(len(deep), (1,), generator=rng))]
        radius = 0.7 + 0.9 * float(torch.rand(1, generator=rng))
        reach = [int(np.ceil(radius / s)) for s in spacing]
        box = tuple(slice(max(0, c - r), c + r + 1) for c, r in zip(centre, reach, strict=True))
        at = np.meshgrid(
            *(np.arange(b.start, min(b.stop, m)) for b, m in zip(box, known.shape, strict=True)), indexing="ij"
        )
        off = sum(((a - c) * s) ** 2 for a, c, s in zip(at, centre, spacing, strict=True))
        found[box] |= off <= radius**2
    return found


def spot_contrast(sequence: str, rng: torch.Generator) -> float:
    """How much brighter than white matter this subject's caps and dots are in a sequence."""
    low, high = CONTRAST.get(sequence, (-0.2, 0.2))
    return low + (high - low) * float(torch.rand(1, generator=rng))


def sinuses(brain: NDArray[np.bool_], spacing: Sequence[float], rng: torch.Generator) -> NDArray[np.bool_]:
    """The large veins that stripping leaves beside a brain `(I, J, K)` in RAS half of the time, none of it inside: the superior sagittal sinus, 3 to 8 mm
    deep and 6 to 12 wide over the midline, and the confluence at its lower end, a ball of 5 to 11 mm radius, half as wide again."""
    some, deep, wide, round = torch.rand(4, generator=rng).tolist()
    found = np.zeros(brain.shape, dtype=bool)
    if some >= SINUS_SHARE or not brain.any():
        return found
    half = 3.0 + 3.0 * wide
    i, j, k = (np.arange(n) * mm for n, mm in zip(brain.shape, spacing, strict=True))
    weight = [brain.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    middle, front, height = (float(np.average(at, weights=w)) for at, w in zip((i, j, k), weight, strict=True))
    tall = float(np.ptp(k[weight[2] > 0]))
    slab = np.flatnonzero(np.abs(i - middle) <= half + 2 * spacing[0])
    near = distance_transform_edt(~brain[slab], sampling=tuple(spacing)) <= 3.0 + 5.0 * deep
    near &= (np.abs(i[slab] - middle) <= half)[:, None, None]
    # Above the front half, and down the back to a little below its middle.
    near &= k[None, None, :] >= np.where(j < front, height - 0.15 * tall, height + 0.25 * tall)[None, :, None]
    found[slab] = near
    behind = brain[slab].any(axis=(0, 2))
    if behind.any():
        last = int(behind.argmax())
        low = float(k[brain[slab][:, last].any(axis=0)].mean())
        ball = ((i - middle) / 1.5)[:, None, None] ** 2 + (j - j[last])[:, None] ** 2 + (k - low) ** 2
        found |= ball <= (5.0 + 6.0 * round) ** 2
    found &= ~brain
    return found


def vein(sequence: str, rng: torch.Generator) -> float:
    """How bright this subject's sinuses are in a sequence."""
    low, high = VEIN.get(sequence, (0.0, 1.0))
    return low + (high - low) * float(torch.rand(1, generator=rng))


def shaved(brain: NDArray[np.bool_], spacing: Sequence[float], rng: torch.Generator) -> NDArray[np.bool_]:
    """A brain mask as another tool strips: half of the time up to `SHAVED_MM` of the fluid and cortex at its surface are missing, in places up to
    twice as much. What is cut off it is left out."""
    some, mm = torch.rand(2, generator=rng).tolist()
    field = smooth_field(brain.shape, spacing, 40.0, rng)[0].numpy()
    if some >= SHAVED_SHARE or not brain.any():
        return brain
    # An edge voxel lies as deep as its own edge is long.
    depth = distance_transform_edt(np.pad(brain, 1), sampling=tuple(spacing))[1:-1, 1:-1, 1:-1] - min(spacing)
    pieces, _ = label(depth >= np.maximum(0.0, SHAVED_MM * mm * (1 + 0.5 * field)))
    sizes = np.bincount(pieces[brain])
    if len(sizes) < 2:
        return brain
    found: NDArray[np.bool_] = brain & (pieces == 1 + sizes[1:].argmax())
    return found


def rimmed(
    image: NDArray[np.float32], brain: NDArray[np.bool_], spacing: Sequence[float], rng: torch.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A stripped scan `(C, I, J, K)` and its mask as they are after an interpolation, a third of the time: voxels at the edge are mixed with the
    background's 0, and the mask, of what is not 0, holds some that were outside."""
    some, wide = torch.rand(2, generator=rng).tolist()
    if some >= RIM_SHARE or not brain.any():
        return image * brain, brain
    sigma = [(0.4 + 0.5 * wide) / mm for mm in spacing]
    parts = torch.from_numpy(np.concatenate([image * brain, brain[None]]).astype(np.float32))
    *mixed, share = blur(parts[None], sigma)[0].numpy()
    return np.where(share > 0.95, image, np.stack(mixed)) * (share > 0.05), share > 0.05


def rescanned(x: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
    """An image `(I, J, K)` of 0 or more as another scanner has it: thick slices half of the time, another curve, more noise.

    Thick slices are means over 2 to 6 mm along one axis (axial two times in three), set as far apart, and interpolated back.
    """
    thick, curve, grain = torch.rand(3, generator=rng).tolist()
    top = float(x.max())
    axis, mm = thickness(rng)
    if thick < THICK_SHARE:
        x = thick_slices(x[None], spacing, axis, mm)[0]
    if top > 0:
        x = top * (x / top).clamp(min=0) ** float(np.exp(GAMMA * (2 * curve - 1)))
    return rician(x, 0.03 * grain**2 * top, rng)
