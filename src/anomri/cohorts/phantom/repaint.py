"""Real T1w brains as another sequence and another scanner would show them: folds, vessels and texture that no label map has.

On T1w, fluid is darkest and white matter brightest. A curve of intensities that takes the three tissues onto the means of another
sequence paints a brain of that sequence; between tissues it passes through what lies between them on T1w, so on FLAIR a thin bright
rim lies about the ventricles, as caps do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import ClusterError, kmeans2
from torch import Tensor

from anomri.cohorts.phantom import variety
from anomri.cohorts.phantom.scanner import UNIT, anatomy, means
from anomri.corruptions.contrast import bias_field
from anomri.corruptions.spatial import warp
from anomri.errors import BadInput
from anomri.scan import Array, Scan

SPREAD = 0.04
"""SD by which the means of tissues differ between scanners, beside what they differ between subjects."""
BEYOND = 0.5
"""Share of the slope between grey and white matter at which intensities above white matter go on."""


def subject(scan: Scan, sequences: Sequence[str], rng: torch.Generator) -> Scan:
    """A T1w brain, stripped, in another anatomy near its own and in other sequences.

    Parameters
    ----------
    scan : one channel `(1, I, J, K)`, T1w in any unit, with its brain mask; its grid stays

    Returns `(len(sequences), I, J, K)`, 0 or more inside the brain and 0 outside, and the brain mask that goes with it. Source: ours. Raises `BadInput` where it has several channels, or no three tissues can be told apart in it.
    """
    if len(scan.sequences) != 1:
        raise BadInput(f"scan '{scan.id}' has {len(scan.sequences)} channels; a T1w alone is repainted")
    knots = tissues(scan.image[0][scan.brain], scan.id)
    parts = torch.cat([torch.tensor(scan.image * scan.brain), torch.tensor(scan.brain)[None].float()])
    x, share = warp(parts, anatomy(scan.grid.shape, scan.spacing, rng), scan.spacing)
    inside = share >= 0.5
    x = torch.where(inside, x / share.clamp(min=0.5), 0.0)
    channels = []
    for name in sequences:
        onto = (means(name, rng) + SPREAD * torch.randn(3, generator=rng)).clamp(min=0.02)
        y = torch.where(inside, recoloured(x, knots, onto.tolist()), 0.0)
        y = y * bias_field(y.shape, scan.spacing, rng, sd=0.05 + 0.1 * float(torch.rand(1, generator=rng)))
        channels.append(variety.rescanned(UNIT * y, scan.spacing, rng))
    brain = variety.shaved(inside.numpy(), scan.spacing, rng)
    image, brain = variety.rimmed(torch.stack(channels).numpy(), brain, scan.spacing, rng)
    return scan.with_(image=image, brain=brain, sequences=tuple(sequences), history=())


def tissues(values: Array, id: str = "") -> NDArray[np.float64]:
    """`(3,)`: the middle intensities of fluid, grey and white matter of a T1w brain, rising: k-means from its 10th, 45th and 80th percentiles.

    Raises `BadInput` where they do not rise.
    """
    values = values.astype(np.float64)
    begin = np.percentile(values, (10, 45, 80)) if values.size else np.zeros(3)
    try:
        low, high = np.percentile(values, (0.5, 99.5)) if values.size else (0.0, 0.0)
        found = np.sort(kmeans2(values.clip(low, high), begin, iter=20, minit="matrix", missing="raise")[0])
    except (ClusterError, ValueError):
        found = np.zeros(3)
    if not (np.diff(begin) > 0).all() or not (np.diff(found) > 0).all():
        raise BadInput(
            f"scan '{id}': no three tissues can be told apart in its brain; check the image and the brain mask"
        )
    return np.asarray(found, dtype=np.float64)


def recoloured(x: Tensor, knots: Sequence[float] | NDArray[np.float64], onto: Sequence[float]) -> Tensor:
    """`x`, of any shape, along straight lines that take three rising knots onto three values; below the first as at it, above the last at `BEYOND` of the
    last slope, never below 0."""
    (a, b, c), (p, q, r) = map(float, knots), onto
    below = p + (x.clamp(a, b) - a) * ((q - p) / (b - a))
    above = (x.clamp(b, c) - b) * ((r - q) / (c - b))
    far = (x - c).clamp(min=0) * (BEYOND * (r - q) / (c - b))
    return (below + above + far).clamp(min=0)
