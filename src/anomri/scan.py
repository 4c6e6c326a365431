"""One brain on one grid, what was done to it, and what a method says of it.

A voxel index `(i, j, k)` becomes world coordinates in mm (RAS+) by the affine of its grid. What preprocessing did is kept
in `Scan.history`, newest last, so that every result can be taken back to the file it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomri.errors import BadInput

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie: `shape (I, J, K)` and `affine (4, 4)`, voxel index to world mm."""

    shape: tuple[int, int, int]
    affine: Matrix

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", frozen(np.asarray(self.affine, dtype=np.float64)))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel in mm."""
        i, j, k = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(i), float(j), float(k)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def apart(self, other: Grid) -> float:
        """How far apart two grids lie at their farthest corner, in mm; infinite where their shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], [1], indexing="ij")).reshape(4, -1)
        return float(np.linalg.norm(((self.affine - other.affine) @ corners)[:3], axis=0).max())

    def same(self, other: Grid) -> bool:
        """Whether two grids agree in shape and, to a twentieth of a voxel at every corner, in place: other tools round affines."""
        return self.apart(other) <= 0.05 * min(self.spacing)


@dataclass(frozen=True, eq=False)
class Moved:
    """The image was put on another grid. `world (4, 4)` takes new world coordinates to those of `source`."""

    source: Grid
    world: Matrix = field(default_factory=lambda: np.eye(4))


@dataclass(frozen=True, eq=False)
class Scaled:
    """Intensities inside the brain became `(before - offset) / gain`, per channel."""

    gain: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Divided:
    """Intensities were divided by a smooth positive field `(C, I, J, K)` on the grid of that moment (N4)."""

    by: Array


@dataclass(frozen=True, eq=False)
class Curved:
    """Intensities inside the brain went along a rising line of straight pieces, per channel: from `before` to `after`, both rising.

    Beyond the first and the last knot it goes on at the slope `beyond`.
    """

    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]
    beyond: tuple[float, ...]

    def __call__(self, x: NDArray[Any], channel: int) -> Array:
        """Intensities along the line."""
        return _along(x, self.before[channel], self.after[channel], self.beyond[channel])

    def back(self, y: NDArray[Any], channel: int) -> Array:
        """What they were before."""
        return _along(y, self.after[channel], self.before[channel], 1 / self.beyond[channel])


def _along(x: NDArray[Any], start: tuple[float, ...], end: tuple[float, ...], slope: float) -> Array:
    within = np.interp(x, start, end)
    out = within + slope * (np.minimum(x - start[0], 0) + np.maximum(x - start[-1], 0))
    return np.asarray(out, dtype=np.float32)


Change = Moved | Scaled | Divided | Curved


@dataclass(frozen=True, eq=False)
class Origin:
    """What the file said besides voxels: paths, and the NIfTI conventions to write results back with.

    Parameters
    ----------
    qform : `(4, 4)`, the file's own qform on `grid`, which may differ from its sform; None where it has none
    version : 1 or 2, NIfTI-1 or NIfTI-2
    """

    paths: tuple[str, ...] = ()
    sform_code: int = 1
    qform_code: int = 1
    xyzt_units: int = 10
    grid: Grid | None = None
    qform: Matrix | None = None
    version: int = 1


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view of an array (no copy)."""
    view = array.view()
    view.setflags(write=False)
    return view


@dataclass(frozen=True, eq=False, repr=False)
class Scan:
    """One brain on one grid; read-only.

    Parameters
    ----------
    image : `(C, I, J, K)` float32, one channel a sequence; `(I, J, K)` is taken as one channel
    affine : `(4, 4)`, voxel index to world mm (RAS+)
    brain : `(I, J, K)` bool; the whole grid where nobody has said better yet
    lesion : `(I, J, K)` bool or None, the truth, for evaluation and supervised methods only
    history : what preprocessing did, oldest first

    Raises `BadInput` where the parts do not lie on one grid, or the image is not finite.
    """

    image: Array
    affine: Matrix
    id: str = "scan"
    brain: Mask = None  # type: ignore[assignment]
    sequences: tuple[str, ...] = ("T1w",)
    lesion: Mask | None = None
    history: tuple[Change, ...] = ()
    origin: Origin = Origin()

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            image = np.asarray(self.image, dtype=np.float32)
        if image.ndim == 3:
            image = image[None]
        if image.ndim != 4:
            raise BadInput(f"scan '{self.id}': image has {image.ndim} axes, needs (C, I, J, K) or (I, J, K)")
        if image.shape[0] != len(self.sequences):
            named = ", ".join(self.sequences)
            raise BadInput(
                f"scan '{self.id}': {image.shape[0]} channels, but sequences name {len(self.sequences)}: {named}"
            )
        if not np.isfinite(image).all():
            bad = int((~np.isfinite(image)).sum())
            raise BadInput(
                f"scan '{self.id}': {bad} of {image.size} voxels are NaN or infinite; repair or exclude the scan"
            )
        grid = image.shape[1:]
        brain = np.ones(grid, dtype=bool) if self.brain is None else np.asarray(self.brain, dtype=bool)
        for name, part in (("brain", brain), ("lesion", self.lesion)):
            if part is not None and np.shape(part) != grid:
                raise BadInput(
                    f"scan '{self.id}': {name} has grid {np.shape(part)}, image has {grid}; "
                    "resample one to the other first (preprocess.space.onto)"
                )
        object.__setattr__(self, "image", frozen(image))
        object.__setattr__(self, "brain", frozen(brain))
        object.__setattr__(self, "affine", frozen(np.asarray(self.affine, dtype=np.float64)))
        if self.lesion is not None:
            object.__setattr__(self, "lesion", frozen(np.asarray(self.lesion, dtype=bool)))

    def __repr__(self) -> str:
        shape, spacing = " x ".join(map(str, self.grid.shape)), " x ".join(f"{s:.3g}" for s in self.spacing)
        return f"Scan('{self.id}', {'+'.join(self.sequences)}, {shape} at {spacing} mm)"

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        shape = self.image.shape
        return Grid((shape[1], shape[2], shape[3]), self.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel in mm."""
        return self.grid.spacing

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml."""
        return self.grid.voxel_ml

    @property
    def native(self) -> Grid:
        """The grid of the file that the scan came from."""
        for change in self.history:
            if isinstance(change, Moved):
                return change.source
        return self.grid

    @property
    def stripped(self) -> bool:
        """Whether a brain mask is known (it is not the whole grid)."""
        return not bool(self.brain.all())

    def with_(self, **changes: Any) -> Scan:
        """A copy with some parts replaced."""
        return replace(self, **changes)


@dataclass(frozen=True, eq=False)
class Trace:
    """How a mask came to be (IterMask3D).

    `order (I, J, K)` uint8: the last step at which a voxel was in the mask, 0 outside the brain; inside it, `order >= t` is
    what is masked at step t or comes back later: the mask of step t itself where no voxel comes back. `tau`: the threshold of each step, squared normalised intensity. `facts`: fit, R2, stops.
    """

    order: NDArray[np.uint8]
    tau: Array
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Finding:
    """What a method's `find` returns; `Method.detect` makes a `Detection` of it.

    `map (I, J, K)`: higher is more abnormal. `mask`, `scores`, `healthy (C, I, J, K)`, `trace`: where the method has them.
    """

    map: Array
    mask: Mask | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    healthy: Array | None = None
    trace: Trace | None = None


@dataclass(frozen=True, eq=False)
class Detection:
    """What a method says of one scan, on the grid of `scan`.

    Parameters
    ----------
    scan : the preprocessed scan that was looked at
    map : `(I, J, K)` float32, higher is more abnormal, 0 outside the brain
    scores : named case scores, higher is more abnormal; the first one is the method's own
    mask : `(I, J, K)` bool or None (a method without a mask of its own that was not calibrated)
    healthy : `(C, I, J, K)` float32 or None, the scan as the method would have it if it were healthy
    facts : what was used: method, arguments, seed, seconds, weights' hash
    """

    scan: Scan
    map: Array
    scores: Mapping[str, float]
    mask: Mask | None = None
    healthy: Array | None = None
    trace: Trace | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The method's own case score; higher is more abnormal."""
        return next(iter(self.scores.values()))
