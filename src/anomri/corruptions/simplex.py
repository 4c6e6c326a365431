"""Structured noise of simplex gradients (Perlin 2001), as coarse and as fine as anatomy is (Wyatt et al. 2022, AnoDDPM).

Each octave lays a lattice of triangles (tetrahedra in volumes) over the image and draws a direction of unit length at each of its nodes;
a voxel has the sum over the nodes around it of `max(0, 1/2 - d^2)^4 (g . d)`, where d is the way there from the node and g the node's
direction (in volumes 0.6 for 1/2). Octaves are summed: each has half the wavelength of the one before it and `persistence` times its
amplitude. Every octave has a lattice at a place that is drawn anew, so that no voxel is special; the sum is divided by its SD.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from anomri.errors import BadCall

OCTAVES, PERSISTENCE, FREQUENCY = 6, 0.8, 64.0
REACH2 = {2: 0.5, 3: 0.6}
"""Square of how far a node reaches, in units in which an octave's frequency is 1."""
NODES = 1 << 25
"""Nodes of an octave that are drawn at most, 400 MB of directions in volumes: as many as 256^3 voxels need for AnoDDPM's octaves."""
PIECE = 1 << 16
"""Voxels of all octaves that are computed at once: few, that they stay in the cache; not fewer, as each operation takes its time."""


def simplex_noise(
    shape: Sequence[int],
    rng: torch.Generator,
    *,
    octaves: int = OCTAVES,
    persistence: float = PERSISTENCE,
    frequency: float = FREQUENCY,
) -> Tensor:
    """Noise `(B, C, I, J)` or `(B, C, I, J, K)` float32 with mean 0 and variance 1, directions drawn for each channel of each image.

    Parameters
    ----------
    shape : of the noise
    octaves : 6 in AnoDDPM
    persistence : amplitude of an octave over that of the one before it; 0.8 in AnoDDPM
    frequency : of the first octave, voxels a unit of its lattice; each octave halves it. 64 in AnoDDPM, whose slices have 256 voxels,
        and in pDDPM and cDDPM, whose slices have 96

    The variance is that of many draws; the mean and the variance over one image differ from it, as waves as long as the image do.
    Images of one call have their lattices at the same places, which makes their noise no more alike and drawing it six times as fast.
    Raises `BadCall` for other axes or numbers out of their range. Source: AnoDDPM, section 3.3, for octaves, persistence and frequency.
    That the variance is 1 and that each image has noise of its own is ours: published code adds one noise, whose SD is 0.54, to a whole
    batch.
    """
    axes = len(shape) - 2
    if axes not in REACH2:
        raise BadCall(f"simplex noise of shape {tuple(shape)}; give (B, C, I, J) or (B, C, I, J, K)")
    if octaves < 1 or not persistence > 0 or not frequency > 0:
        raise BadCall(
            f"simplex noise of {octaves} octaves, persistence {persistence:g}, frequency {frequency:g}; needs 1 octave or more, the others above 0"
        )
    images, edges = math.prod(shape[:2]), shape[2:]
    drawable(edges, octaves=octaves, frequency=frequency)
    steps = frequency / 2 ** torch.arange(octaves)
    weights = persistence ** torch.arange(octaves, dtype=torch.float64)
    amplitudes = (weights / (_sd(axes) * weights.square().sum().sqrt())).float()
    shifts = torch.rand(octaves, axes, generator=rng)
    made = torch.zeros(math.prod(edges), images)
    together = max(1, PIECE // len(made))
    for first in range(0, octaves, together):
        some = slice(first, first + together)
        _add_octaves(made, edges, steps[some], amplitudes[some], shifts[some], rng)
    return made.T.reshape(*shape)


def drawable(edges: Sequence[int], *, octaves: int = OCTAVES, frequency: float = FREQUENCY) -> None:
    """Raises `BadCall` where an octave of noise on a grid of these edges has more than `NODES` nodes."""
    skew = (math.sqrt(len(edges) + 1) - 1) / len(edges)
    # The last octave's is the finest lattice.
    places = [(edge - 1) / (frequency / 2 ** (octaves - 1)) for edge in edges]
    n = math.prod(int(place + sum(places) * skew) + 3 for place in places)
    if n > NODES:
        grid = " x ".join(map(str, edges))
        raise BadCall(
            f"simplex noise of {octaves} octaves has {n} nodes on a grid of {grid}, at most {NODES} are drawn; take fewer octaves"
        )


def _add_octaves(
    to: Tensor, edges: Sequence[int], steps: Tensor, amplitudes: Tensor, shifts: Tensor, rng: torch.Generator
) -> None:
    """Adds octaves to images `(voxels, B)`; of each its wavelength in voxels, its amplitude `(N,)`, and where it lies `(N, axes)`."""
    axes, images = len(edges), to.shape[1]
    skew = (math.sqrt(axes + 1) - 1) / axes
    back = skew / (1 + axes * skew)

    def each(of: Tensor) -> Tensor:
        """One number for each octave, for all voxels."""
        return of.reshape(-1, *[1] * axes)

    def skewed(places: Sequence[Tensor]) -> list[Tensor]:
        """Skewed, the lattice's cells are cubes of edge 1, in one of which it lies anywhere."""
        lean = sum(places[1:], places[0]) * skew
        return [(place + each(by)).add(lean) for place, by in zip(places, shifts.T, strict=True)]

    sizes = torch.stack(skewed([each((edge - 1) / steps) for edge in edges])).flatten(1).int() + 2
    nodes = sizes.prod(dim=0)
    strides = [each(sizes[axis + 1 :].prod(dim=0).int()) for axis in range(axes)]
    first = each((nodes.cumsum(dim=0) - nodes).int())
    g = _directions(int(nodes.sum()), axes, images, rng)
    rows = max(1, PIECE // (len(steps) * math.prod(edges[1:])))
    for begin in range(0, edges[0], rows):
        ranges = [torch.arange(begin, min(begin + rows, edges[0])), *(torch.arange(edge) for edge in edges[1:])]
        where = skewed(
            [
                own.reshape([-1 if at == axis else 1 for at in range(axes)]) / each(steps)
                for axis, own in enumerate(ranges)
            ]
        )
        cell = [place.floor() for place in where]
        inside = [place.sub_(corner) for place, corner in zip(where, cell, strict=True)]
        node = sum((own.int() * by for own, by in zip(cell, strides, strict=True)), first)
        # The order of a point's coordinates in its cube says in which simplex it is.
        ranks, straight = _ranks(inside), sum(inside[1:], inside[0]) * back
        d = [own.sub_(straight) for own in inside]
        part = to[begin * math.prod(edges[1:]) :][: node[0].numel()]
        for corner in range(axes + 1):
            # The first node of a simplex is its cube's; each further one is a step along an axis away, the largest coordinate's first.
            taken = [rank < corner for rank in ranks]
            off = [own.sub(one.float()).add_(corner * back) for own, one in zip(d, taken, strict=True)]
            place = sum((one * by for one, by in zip(taken, strides, strict=True)), node)
            falls = (REACH2[axes] - sum((own * own for own in off[1:]), off[0] * off[0])).clamp_(min=0)
            falls = falls.square_().square_().mul_(each(amplitudes))
            _add(part, off, falls, place, g)


def _add(to: Tensor, off: Sequence[Tensor], falls: Tensor, place: Tensor, g: Sequence[Tensor]) -> None:
    """Adds what nodes give to voxels of images `(voxels, B)`; the others are of octaves, `(N, ...)`."""
    if to.shape[1] == 1:
        # Of one image all octaves at once.
        at = place.flatten()
        along = [own * one[:, 0].index_select(0, at).view_as(own) for own, one in zip(off, g, strict=True)]
        to[:, 0] += falls.mul_(sum(along[1:], along[0])).sum(dim=0).flatten()
        return
    for own, one in zip(off, g, strict=True):
        for weight, at in zip((falls * own).flatten(1), place.flatten(1), strict=True):
            to.addcmul_(weight[:, None], one.index_select(0, at))


def _ranks(inside: Sequence[Tensor]) -> list[Tensor]:
    """How many coordinates of a point are larger than each, ties broken by the axis."""
    found = []
    for axis, own in enumerate(inside):
        larger = [other > own if at > axis else other >= own for at, other in enumerate(inside) if at != axis]
        found.append(sum((one.to(torch.uint8) for one in larger[1:]), larger[0].to(torch.uint8)))
    return found


def _directions(n: int, axes: int, images: int, rng: torch.Generator) -> list[Tensor]:
    """Directions at `n` nodes of each image, each as likely: their parts along the axes, `(n, images)`."""
    angle = torch.rand(n, images, generator=rng) * (2 * math.pi)
    if axes == 2:
        return [angle.cos(), angle.sin()]
    # Archimedes: heights on a sphere are uniform.
    height = torch.rand(n, images, generator=rng) * 2 - 1
    wide = (1 - height * height).clamp(min=0).sqrt()
    return [wide * angle.cos(), wide * angle.sin(), height]


@lru_cache
def _sd(axes: int) -> float:
    """SD of an octave of amplitude 1, over all places in the lattice.

    Directions are independent, of mean 0 and variance 1 / axes a part, so a node's share of the variance at distance d is
    `max(0, r^2 - d^2)^8 d^2 / axes`; what a voxel sees of all nodes is on average the integral over space, times the nodes in a unit of it.
    """
    reach, sphere = REACH2[axes], {2: 2 * math.pi, 3: 4 * math.pi}[axes]
    d = torch.linspace(0, math.sqrt(reach), 20_001, dtype=torch.float64)
    share = (reach - d * d) ** 8 * d**2 * d ** (axes - 1) * sphere / axes
    # The skewed cube of a node has volume 1: unskewing divides it by this.
    density = 1 + axes * (math.sqrt(axes + 1) - 1) / axes
    return math.sqrt(float(torch.trapezoid(share, d)) * density)
