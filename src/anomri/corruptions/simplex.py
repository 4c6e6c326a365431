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
NODES = 1 << 22
"""Nodes of an octave that are drawn at most: float32 counts them exactly, and no image of a brain needs more."""


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
    weights = [persistence**n for n in range(octaves)]
    sd = _sd(axes) * math.sqrt(sum(w * w for w in weights))
    images, edges = math.prod(shape[:2]), shape[2:]
    made = torch.zeros(math.prod(edges), images)
    for n, weight in enumerate(weights):
        _add_octave(made, edges, frequency / 2**n, weight / sd, rng)
    return made.T.reshape(*shape)


def _add_octave(to: Tensor, edges: Sequence[int], step: float, amplitude: float, rng: torch.Generator) -> None:
    """Adds an octave to images `(voxels, B)`; `step` is its wavelength in voxels."""
    axes = len(edges)
    skew = (math.sqrt(axes + 1) - 1) / axes
    where = [
        (torch.arange(edge) / step).reshape([-1 if axis == at else 1 for at in range(axes)])
        for axis, edge in enumerate(edges)
    ]
    # The skewed lattice's cells are cubes of edge 1, in one of which it lies anywhere; the order of a point's coordinates in its cube
    # says in which simplex it is.
    lean, shift = sum(where[1:], where[0]) * skew, torch.rand(axes, generator=rng).tolist()
    skewed = [place + lean + by for place, by in zip(where, shift, strict=True)]
    cell = [place.floor() for place in skewed]
    inside = [place - corner for place, corner in zip(skewed, cell, strict=True)]
    sizes = [int(corner.max()) + 2 for corner in cell]
    stride = [math.prod(sizes[axis + 1 :]) for axis in range(axes)]
    g = _directions(math.prod(sizes), axes, to.shape[1], rng)
    ranks, back = _ranks(inside), skew / (1 + axes * skew)
    for corner in range(axes + 1):
        # The first node of a simplex is its cube's; each further one is a step along an axis away, the largest coordinate's first.
        taken = [(rank < corner).float() for rank in ranks]
        d = [own - one for own, one in zip(inside, taken, strict=True)]
        straight = sum(d[1:], d[0]) * back
        d = [own - straight for own in d]
        falls = (REACH2[axes] - sum((own * own for own in d[1:]), d[0] * d[0])).clamp_(min=0) ** 4 * amplitude
        places = [(own + one) * by for own, one, by in zip(cell, taken, stride, strict=True)]
        node = sum(places[1:], places[0]).long().flatten()
        for own, part in zip(d, g, strict=True):
            to.addcmul_((falls * own).reshape(-1, 1), part.index_select(0, node))


def _ranks(inside: Sequence[Tensor]) -> list[Tensor]:
    """How many coordinates of a point are larger than each, ties broken by the axis."""
    found = []
    for axis, own in enumerate(inside):
        larger = [other > own if at > axis else other >= own for at, other in enumerate(inside) if at != axis]
        found.append(sum((one.to(torch.uint8) for one in larger[1:]), larger[0].to(torch.uint8)))
    return found


def _directions(n: int, axes: int, images: int, rng: torch.Generator) -> list[Tensor]:
    """Directions at `n` nodes of each image, each as likely: their parts along the axes, `(n, images)`."""
    if n > NODES:
        raise BadCall(f"simplex noise with {n} nodes in an octave, at most {NODES} are drawn; take fewer octaves")
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
