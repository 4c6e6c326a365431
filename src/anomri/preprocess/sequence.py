"""Which MRI sequence a brain looks like: T1w, T2w or FLAIR.

Names of files are wrong now and then, and a model that has learned one sequence marks half of another. What tells them apart is where the
brain is bright: T1w in its depth, T2w in its fluid, FLAIR least of all there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from anomri import files
from anomri.errors import BadInput
from anomri.scan import Mask, Scan

TABLE = Path(__file__).with_name("sequences.json")
"""What was learned of each sequence; benchmarks/sequences.py learned it, and says of which scans."""
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
SHELLS_MM = (0.0, 3.0, 6.0, 12.0, 20.0, 30.0, np.inf)
"""Depths below the brain's surface; the median in each shell counts."""
GRID_MM = 2.0
"""The grid that the table was learned on; a distance to the surface on a finer one takes seconds and tells no more."""
LIMITS = (-3.0, 4.0)
"""Median absolute deviations, times 1.4826, from the median: what lies beyond counts as there. `intensity.robust` and `clip` by these change nothing."""
CUT = 0.1
"""A brain whose first or last slice has more than this share of its largest one's area is cut by the grid."""
FREEDOM = 5.0
"""Degrees of freedom of each sequence's distribution of features."""
SURE = 0.95
"""A scan is said to look like another sequence than it is called from this probability of that sequence."""

Values = NDArray[np.float64]


def features(scan: Scan, channel: int = 0) -> Values:
    """`(16,)`: percentiles of the brain's intensities, medians by depth, and skewness, of intensities cut at `LIMITS` and then at mean 0 and SD 1.

    So a scan has the same ones whether it was z-scored, or scaled by its median and clipped. Of a finer grid than `GRID_MM` the means of so many voxels are looked at. A shell that a brain has not takes that of the one above it. Raises
    `BadInput` for a brain that is empty or constant.
    """
    steps = [max(1, round(GRID_MM / mm)) for mm in scan.spacing]
    share = _sums(scan.brain.astype(np.float64), steps)
    brain, spacing = share >= np.prod(steps) / 2, [mm * step for mm, step in zip(scan.spacing, steps, strict=True)]
    values = _sums(np.where(scan.brain, scan.image[channel], 0).astype(np.float64), steps)[brain] / share[brain]
    if not values.size or not values.std() > 0:
        raise BadInput(f"scan '{scan.id}': its brain is empty or constant; check the image and the brain mask")
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle)) or values.std()
    values = ((values - middle) / spread).clip(*LIMITS)
    values = (values - values.mean()) / values.std()
    # Of a voxel's middle: at the surface, half a voxel.
    depth = distance_transform_edt(brain, sampling=spacing)[brain] - min(spacing) / 2
    medians: list[float] = []
    for above, below in pairwise(SHELLS_MM):
        shell = values[(depth > above) & (depth <= below)]
        medians.append(float(np.median(shell)) if shell.size else medians[-1] if medians else 0.0)
    skewness = float((values.clip(-3, 3) ** 3).mean())
    return np.array([*np.percentile(values, PERCENTILES), *medians, skewness])


def _sums(volume: Values, steps: Sequence[int]) -> Values:
    """Sums over blocks of so many voxels; what is left over at the end of an axis is a block, too."""
    for axis, step in enumerate(steps):
        if step > 1:
            volume = np.add.reduceat(volume, np.arange(0, volume.shape[axis], step), axis=axis)
    return volume


def learn(scans: Mapping[str, Iterable[Scan]], *, shrink: float = 0.1) -> dict[str, Any]:
    """What `likeness` goes by, from preprocessed scans of known sequences: linear discriminants with one covariance, all sequences as
    frequent, `shrink` of that covariance replaced by its diagonal. Written as JSON, it is `TABLE`."""
    seen = {name: np.stack([features(scan) for scan in of]) for name, of in scans.items()}
    means = {name: x.mean(axis=0) for name, x in seen.items()}
    off = np.concatenate([x - means[name] for name, x in seen.items()])
    covariance = off.T @ off / max(1, len(off) - len(seen))
    covariance = (1 - shrink) * covariance + shrink * np.diag(np.diag(covariance))
    return {
        "scans": {name: len(x) for name, x in seen.items()},
        "means": {name: mean.tolist() for name, mean in means.items()},
        "covariance": covariance.tolist(),
    }


def likeness(scan: Scan, channel: int = 0, table: Mapping[str, Any] | None = None) -> dict[str, float]:
    """The probability of each known sequence, as a channel of a preprocessed scan looks; `table` as `learn` gives it, else the package's.

    Raises as `features` does.
    """
    known = _shipped() if table is None else table
    x, covariance = features(scan, channel), np.asarray(known["covariance"])
    far = {name: x - np.asarray(mean) for name, mean in known["means"].items()}
    squared = np.array([off @ np.linalg.solve(covariance, off) for off in far.values()])
    # Student's t, not a normal: of two sequences that a scan is far from, the nearer is not sure.
    log = -0.5 * (FREEDOM + len(x)) * np.log1p(squared / FREEDOM)
    share = np.exp(log - log.max())
    return dict(zip(far, (share / share.sum()).tolist(), strict=True))


def other_than_said(scan: Scan) -> dict[str, str]:
    """Channels that are called one of the known sequences and surely look like another: their names, and what they look like.

    Nothing is said of a brain that the grid cuts, whose depths are not those of a whole one, nor of one that has no features.
    """
    found: dict[str, str] = {}
    if _cut(scan.brain):
        return found
    for channel, name in enumerate(scan.sequences):
        if name in _shipped()["means"]:
            try:
                like = likeness(scan, channel)
            except BadInput:
                continue
            best = max(like, key=lambda one: like[one])
            if best != name and like[best] >= SURE:
                found[name] = best
    return found


def told(found: Mapping[str, str]) -> str:
    """`other_than_said` as a line; empty for nothing."""
    return "; ".join(f"is called {name} and looks like {other}" for name, other in found.items())


def _cut(brain: Mask) -> bool:
    """Whether the grid ends where the brain is still wide."""
    for axis in range(3):
        areas = brain.sum(axis=tuple(a for a in range(3) if a != axis))
        if max(areas[0], areas[-1]) > CUT * areas.max():
            return True
    return False


@cache
def _shipped() -> dict[str, Any]:
    return files.read_json(TABLE)
