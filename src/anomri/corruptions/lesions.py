"""Lesions with a truth: planted in a healthy scan, in a shape that is given or drawn, so that every voxel of them is known.

`plant` makes three kinds of them, as bright, dark or only differently textured, as asked; `paste` changes the intensity of a
mask and nothing more. Each returns the new image and the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from anomri.corruptions.spatial import blur, foldless, smooth_field, warp
from anomri.errors import BadCall, BadInput, unknown

CONTRASTS = {"hyper": 1.0, "hypo": -1.0, "iso": 0.0}
"""Brighter or darker than the place where the lesion lies, or of its mean intensity, with another texture."""
CHANGE = 2.0
"""How far a lesion's intensity lies from its place's where nothing is said, in SD of the brain."""


@dataclass(frozen=True)
class Filling:
    """What the inside of a kind of lesion looks like.

    Parameters
    ----------
    zones : how strong the change is along the way from the edge (0) to the deepest voxel (1): places and strengths
    keep : share of the tissue's own texture that is left
    texture : SD of the lesion's own texture, in SD of the brain
    """

    zones: tuple[tuple[float, float], ...]
    keep: float
    texture: float


def paste(
    x: Tensor, brain: Tensor, lesion: Tensor, change: float, spacing: Sequence[float], *, edge_mm: float = 2.0
) -> tuple[Tensor, Tensor]:
    """A lesion of one mean intensity in a scan, with soft edges and what is left of the tissue's texture.

    Parameters
    ----------
    x : `(C, I, J, K)` intensities
    brain, lesion : `(I, J, K)` bool
    change : how far the lesion lies from the brain's mean, in SD of the brain (positive is brighter), per channel alike
    edge_mm : width over which the edge fades

    Returns the new image and the truth, `(I, J, K)` bool: the part of `lesion` inside the brain.
    """
    inside, out = lesion & brain, x.clone()
    if not inside.any():
        return out, inside
    where = inside.nonzero()
    reach = torch.tensor([math.ceil(2 * edge_mm / mm) for mm in spacing])
    low, high = (where.amin(dim=0) - reach).clamp(min=0).tolist(), (where.amax(dim=0) + reach + 1).tolist()
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    soft = blur(inside[box][None, None].float(), [edge_mm / 2 / mm for mm in spacing])[0, 0] * brain[box]
    soft = torch.maximum(soft, 0.5 * inside[box].float())
    for channel in range(x.shape[0]):
        values, part = x[channel][brain], x[channel][box]
        target = values.mean() + change * values.std()
        texture = 0.25 * (part - values.mean())
        out[channel][box] = part + soft * (target + texture - part)
    return out, inside


def blob(
    shape: Sequence[int],
    centre: Sequence[float],
    ml: float,
    spacing: Sequence[float],
    rng: torch.Generator,
    *,
    rough: float = 0.35,
) -> Tensor:
    """A random smooth shape of a given volume: a ball whose surface is moved in and out by smooth noise.

    Parameters
    ----------
    shape : `(I, J, K)`
    centre : voxel coordinates
    ml : volume; the ball's edge is where this volume is reached, so it is met to a voxel
    rough : how far the surface moves, as a share of the radius; below 2/3

    Returns `(I, J, K)` bool.
    """
    field = _ball(shape, centre, spacing, rng, rough)
    return _lowest(field, max(1, round(1000 * ml / math.prod(spacing))))


def _ball(
    shape: Sequence[int], centre: Sequence[float], spacing: Sequence[float], rng: torch.Generator, rough: float
) -> Tensor:
    """`(I, J, K)`: distance from a centre in mm, longer or shorter by a share that is a smooth function of direction."""
    away = _away(shape, centre, spacing)
    distance: Tensor = away.norm(dim=-1)
    return distance / (1 + rough * _bumps(away, rng))


def _away(shape: Sequence[int], centre: Sequence[float], spacing: Sequence[float]) -> Tensor:
    """`(I, J, K, 3)`: the way from a centre to each voxel, in mm."""
    axes = [(torch.arange(n) - c) * mm for n, c, mm in zip(shape, centre, spacing, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def _bumps(away: Tensor, rng: torch.Generator) -> Tensor:
    """Smooth noise, `(I, J, K)` between -1.5 and 1.5, that depends on direction alone, so that a shape is one piece."""
    noise = torch.randn(1, 1, 4, 4, 4, generator=rng).clamp(-1.5, 1.5)
    direction = (away / away.norm(dim=-1).clamp(min=1e-6)[..., None])[None]
    bumps: Tensor = F.grid_sample(noise, direction, align_corners=True)[0, 0]
    return bumps


def _lowest(field: Tensor, voxels: int) -> Tensor:
    """`(I, J, K)` bool: so many voxels, where a field is lowest."""
    level = field.flatten().kthvalue(min(voxels, field.numel())).values
    lesion: Tensor = field < level
    # Of voxels that are equally far, only as many as the volume wants.
    ties = (field == level).flatten().nonzero()[:, 0]
    lesion.view(-1)[ties[: voxels - int(lesion.sum())]] = True
    return lesion


def plant(
    x: Tensor,
    brain: Tensor,
    spacing: Sequence[float],
    rng: torch.Generator,
    *,
    kind: str = "tumour",
    contrast: str | Sequence[str] = "hyper",
    ml: float = 10.0,
    lesion: Tensor | None = None,
    change: float | None = None,
    edge_mm: float = 2.0,
    mass_effect_mm: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """A lesion of a kind and contrast in a healthy scan, in a random place and shape or where a mask says.

    The image is new inside the truth, up to half of `edge_mm` around it, and, with a mass effect, within
    `reach_mm(mass_effect_mm)` of it; a voxel's diagonal apart, everything else is left as it is.

    Parameters
    ----------
    x : `(C, I, J, K)` intensities, raw or normalised
    brain : `(I, J, K)` bool
    spacing : mm
    kind : tumour (bright rim about a weaker core, oedema around it), stroke (one even wedge that reaches the cortex),
        white_matter (foci of 2 to 8 mm away from the cortex)
    contrast : hyper, hypo or iso; or one for each channel
    ml : volume of a random shape; it is met to a voxel, and all of it lies in the brain
    lesion : `(I, J, K)` bool, the shape, of which what lies in the brain is taken; then `kind` only says how it is filled
    change : how far its intensity lies from its place's mean, in SD of the brain; 2 where None. No lesion gets darker than
        the brain's darkest voxel
    edge_mm : width over which the edge fades
    mass_effect_mm : how far tissue at the lesion's edge is pushed outwards; less where the lesion is so small, or the brain's
        edge so near, that tissue would fold

    Returns the new image and the truth, `(I, J, K)` bool. Raises `BadCall` for an unknown kind or contrast, `BadInput` where
    the volume does not fit into the brain, or the shape misses it.
    """
    if kind not in KINDS:
        raise unknown("lesion", kind, KINDS)
    signs = _signs(contrast, x.shape[0])
    change = CHANGE if change is None else change
    check_sizes(mass_effect_mm, ml=ml, change=change, edge_mm=edge_mm)
    if lesion is not None and lesion.shape != brain.shape:
        raise BadInput(f"the lesion has grid {tuple(lesion.shape)}, the brain {tuple(brain.shape)}; resample one first")
    truth = _drawn(kind, ml, x[0], brain, spacing, rng) if lesion is None else lesion & brain
    if not truth.any():
        raise BadInput("the lesion has no voxel inside the brain; give one that has, or none for a random one")
    reach = max(edge_mm, reach_mm(mass_effect_mm)) + 2 * max(spacing)
    box = _box(truth, reach, spacing)
    depth = _signed(truth[box], spacing)
    sd, darkest = x[:, brain].std(dim=1), x[:, brain].amin(dim=1)
    out = x.clone()
    part, inside = out[(slice(None), *box)], brain[box]
    if mass_effect_mm:
        part = _pushed(part, inside, depth, mass_effect_mm, spacing)
    soft = (0.5 + depth / edge_mm).clamp(0, 1) * inside
    look = (FILLINGS[kind], signs * change, sd, darkest)
    out[(slice(None), *box)] = _filled(part, truth[box], depth, soft, *look, spacing, rng)
    return out, truth


def check_sizes(mass_effect_mm: float = 0.0, **sizes: float) -> None:
    """Raises `BadCall` where a lesion's mass effect is negative, or another size of it is not above 0."""
    for name, value in sizes.items():
        if not 0 < value < math.inf:
            raise BadCall(f"a lesion's {name} is {value:g}, it must be above 0 (its contrast says brighter or darker)")
    if not 0 <= mass_effect_mm < math.inf:
        raise BadCall(f"mass_effect_mm is {mass_effect_mm:g}; tissue can only be pushed outwards, give 0 or more")


def reach_mm(mass_effect_mm: float) -> float:
    """How far around a lesion its mass effect is felt, in mm."""
    return 5 * mass_effect_mm


def _signs(contrast: str | Sequence[str], channels: int) -> Tensor:
    names = [contrast] * channels if isinstance(contrast, str) else list(contrast)
    if len(names) != channels:
        raise BadCall(
            f"there are {len(names)} contrasts, the image has {channels} sequences; give one, or one for each"
        )
    for name in names:
        if name not in CONTRASTS:
            raise unknown("contrast", name, CONTRASTS)
    return torch.tensor([CONTRASTS[name] for name in names])


def _filled(
    x: Tensor, truth: Tensor, depth: Tensor, soft: Tensor, filling: Filling, change: Tensor, sd: Tensor, darkest: Tensor,
    spacing: Sequence[float], rng: torch.Generator,
) -> Tensor:  # fmt: skip
    """`x` with the lesion in it: `soft (I, J, K)` is its share of a voxel; `change`, `sd` and `darkest (C,)` are the brain's."""
    own = smooth_field(truth.shape, spacing, TEXTURE_MM, rng)[0]
    places, strengths = zip(*filling.zones, strict=True)
    way = (depth / depth.max().clamp(min=1e-3)).clamp(0, 1).numpy()
    strength = torch.from_numpy(np.interp(way, places, strengths)).to(x.dtype)
    out = x.clone()
    for channel, tissue in enumerate(x):
        iso, place = change[channel] == 0, tissue[truth].mean()
        texture = sd[channel] * (max(filling.texture, ISO_TEXTURE) if iso else filling.texture)
        new = place + change[channel] * sd[channel] * strength + filling.keep * (tissue - place) + texture * own
        added = soft * (new.clamp(min=float(darkest[channel])) - tissue)
        if iso:
            added = added - soft * (added[truth].mean() / soft[truth].mean())
        out[channel] = tissue + added
    return out


def _pushed(x: Tensor, brain: Tensor, depth: Tensor, mm: float, spacing: Sequence[float]) -> Tensor:
    """The tissue around a lesion moved outwards: by `mm` at its edge, less and less to `reach_mm` and to the brain's edge."""
    smooth = blur(depth[None, None], [mm / 2 / s for s in spacing])[0, 0]
    slopes = torch.stack(torch.gradient(smooth, spacing=list(map(float, spacing))))
    inwards = slopes / slopes.norm(dim=0).clamp(min=1e-3)
    away = torch.where(depth > 0, depth / depth.max().clamp(min=1e-3), -depth / reach_mm(mm)).clamp(max=1)
    fade = 0.5 * (1 + torch.cos(math.pi * away))
    room = (_to_outside(brain, spacing) / (3 * mm)).clamp(max=1)
    shift = foldless(mm * fade * room * inwards, spacing)
    # Where nothing moves, interpolation would still round.
    return torch.where((shift != 0).any(dim=0) & brain, warp(x, shift, spacing), x)


def _signed(mask: Tensor, spacing: Sequence[float]) -> Tensor:
    """Distance to a mask's edge in mm, above 0 inside; the edge runs between voxels."""
    half = 0.5 * math.prod(spacing) ** (1 / 3)
    inner, outer = _depth(mask, spacing), _to_outside(~mask, spacing)
    return torch.where(mask, (inner - half).clamp(min=0), (half - outer).clamp(max=0))


def _depth(mask: Tensor, spacing: Sequence[float]) -> Tensor:
    """Distance of each voxel of a mask to the nearest one outside it, in mm; what is beyond the array is outside."""
    return _to_outside(F.pad(mask, [1] * 6), spacing)[1:-1, 1:-1, 1:-1]


def _to_outside(mask: Tensor, spacing: Sequence[float]) -> Tensor:
    """Distance of each voxel of a mask to the nearest one outside it, in mm; infinite where none is."""
    if mask.all():
        return torch.full(mask.shape, math.inf)
    return torch.from_numpy(distance_transform_edt(mask.numpy(), sampling=tuple(spacing))).float()


def _box(mask: Tensor, margin_mm: float, spacing: Sequence[float]) -> tuple[slice, ...]:
    where = mask.nonzero()
    edges = zip(where.amin(dim=0).tolist(), where.amax(dim=0).tolist(), spacing, strict=True)
    return tuple(slice(max(0, a - math.ceil(margin_mm / mm)), b + math.ceil(margin_mm / mm) + 1) for a, b, mm in edges)


# --- random shapes -------------------------------------------------------------------------------------------------


def _drawn(
    kind: str, ml: float, tissue: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator
) -> Tensor:
    """A random shape of a kind, `(I, J, K)` bool, inside the brain."""
    voxels, room = max(1, round(1000 * ml / math.prod(spacing))), int(brain.sum())
    if voxels > room:
        raise BadInput(
            f"a lesion of {ml:g} ml does not fit into a brain of {room * math.prod(spacing) / 1000:.4g} ml; ask for a smaller one"
        )
    box = _box(brain, max(spacing), spacing)
    depth = _depth(brain[box], spacing)
    truth = torch.zeros_like(brain)
    truth[box] = SHAPES[kind](tissue[box], depth, voxels, spacing, rng)
    return truth


def _one_of(mask: Tensor, rng: torch.Generator) -> Tensor:
    """A voxel of a mask, `(3,)`, each as likely."""
    where = mask.nonzero()
    return where[int(torch.randint(len(where), (1,), generator=rng))]


def _round(_: Tensor, depth: Tensor, voxels: int, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
    """One round shape, about a voxel that is as far from the brain's edge as the shape is wide, if there is one."""
    radius = (0.75 * voxels * math.prod(spacing) / math.pi) ** (1 / 3)
    centre = _one_of(depth >= min(1.2 * radius, float(depth.max())), rng)
    field = _ball(depth.shape, centre.tolist(), spacing, rng, rough=0.35)
    return _lowest(field.masked_fill(depth == 0, math.inf), voxels)


def _wedge(_: Tensor, depth: Tensor, voxels: int, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
    """One wedge whose broad end is the cortex, in one hemisphere if it fits: all directions near one, seen from a deep point."""
    inside, mm = depth > 0, torch.tensor(spacing)
    surface = _one_of(inside & (depth <= 1.01 * max(spacing)), rng)
    middle = inside.nonzero().float().mean(dim=0)
    sides = torch.arange(depth.shape[0]) > middle[0]
    half = inside & (sides == (surface[0] > middle[0]))[:, None, None]
    inside = half if int(half.sum()) >= voxels else inside
    # A cone with a half angle of 30 degrees has this height; a larger lesion becomes wider.
    height = (9 * voxels * math.prod(spacing) / math.pi) ** (1 / 3)
    inwards = (middle - surface) * mm
    inwards = inwards * min(1.0, height / float(inwards.norm().clamp(min=1e-3)))
    away = _away(depth.shape, (surface + inwards / mm).tolist(), spacing)
    along = -(away @ inwards) / (away.norm(dim=-1) * inwards.norm()).clamp(min=1e-6)
    uneven = torch.exp(0.15 * smooth_field(depth.shape, spacing, 12.0, rng)[0])
    field = torch.arccos(along.clamp(-1, 1)) * uneven / (1 + 0.35 * _bumps(away, rng))
    return _lowest(field.masked_fill(~inside, math.inf), voxels)


def _foci(tissue: Tensor, depth: Tensor, voxels: int, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
    """Foci of 2 to 8 mm, so many as the volume wants, none near the cortex; where there are many they merge.

    They begin where the intensity is that most voxels deep in the brain have: there, nothing is as common as white matter.
    """
    allowed = depth > min(CORTEX_MM, 0.4 * float(depth.max()))
    if voxels > int(allowed.sum()):
        ml, room = (n * math.prod(spacing) / 1000 for n in (voxels, int(allowed.sum())))
        raise BadInput(
            f"white-matter foci of {ml:.4g} ml do not fit into the {room:.4g} ml away from the cortex; ask for fewer"
        )
    deep = tissue[allowed]
    counts, edges = torch.histogram(deep, 32)
    most, width = edges[int(counts.argmax())], edges[1] - edges[0]
    white = allowed & (tissue >= most - width) & (tissue <= most + 2 * width)
    places = torch.cat(
        [part.nonzero()[torch.randperm(int(part.sum()), generator=rng)] for part in (white, allowed & ~white)]
    )
    field, covered = torch.full(depth.shape, math.inf), 0
    for row in range(len(places)):
        place = places[row].tolist()
        if covered >= voxels:
            break
        if field[tuple(place)] < 1:
            continue
        radius_mm = float(torch.exp(torch.rand((), generator=rng) * math.log(4)))
        low = [max(0, p - math.ceil(2 * radius_mm / mm)) for p, mm in zip(place, spacing, strict=True)]
        box = tuple(slice(a, 2 * p - a + 1) for a, p in zip(low, place, strict=True))
        ball = _ball(field[box].shape, [p - a for p, a in zip(place, low, strict=True)], spacing, rng, rough=0.35)
        before = int((field[box] < 1).sum())
        field[box] = torch.minimum(field[box], (ball / radius_mm).masked_fill(~allowed[box], math.inf))
        covered += int((field[box] < 1).sum()) - before
    return _lowest(field, voxels)


Shape = Callable[[Tensor, Tensor, int, Sequence[float], torch.Generator], Tensor]
SHAPES: dict[str, Shape] = {"tumour": _round, "stroke": _wedge, "white_matter": _foci}
FILLINGS = {
    "tumour": Filling(
        zones=((0.0, 0.5), (0.3, 0.5), (0.4, 1.0), (0.6, 1.0), (0.7, 0.6), (1.0, 0.6)), keep=0.3, texture=0.25
    ),
    "stroke": Filling(zones=((0.0, 1.0), (1.0, 1.0)), keep=0.25, texture=0.05),
    "white_matter": Filling(zones=((0.0, 1.0), (1.0, 1.0)), keep=0.25, texture=0.05),
}
KINDS = tuple(FILLINGS)
"""The kinds of lesions."""
ISO_TEXTURE = 0.4
"""The least texture of a lesion that differs in nothing else, in SD of the brain."""
TEXTURE_MM = 4.0
"""How far apart the points are that a lesion's own texture runs through."""
CORTEX_MM = 15.0
"""White-matter foci keep this far from the brain's edge, less in a small brain."""
