"""Volumes turned to RAS order for drawing, and the place to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomri.scan import Array, Mask


@dataclass(frozen=True)
class Turn:
    """A reordering and flipping of axes: call it on a volume `(I, J, K)`."""

    axes: tuple[int, ...]
    flips: tuple[int, ...]

    @classmethod
    def to_ras(cls, affine: NDArray[np.float64]) -> Turn:
        """The turn that brings axes closest to right, anterior, superior."""
        from nibabel.orientations import io_orientation

        told = io_orientation(affine)
        axes = tuple(int(n) for n in np.argsort(told[:, 0]))
        return cls(axes, tuple(n for n, axis in enumerate(axes) if told[axis, 1] < 0))

    def __call__(self, volume: NDArray[Any]) -> NDArray[Any]:
        return np.flip(np.transpose(volume, self.axes), self.flips)

    def affine(self, affine: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
        """The affine `(4, 4)` of the turned volume, where `affine` and `shape` are those of the volume before."""
        back = np.zeros((4, 4))
        back[3, 3] = 1.0
        for new, old in enumerate(self.axes):
            back[old, new] = -1.0 if new in self.flips else 1.0
            back[old, 3] = shape[old] - 1.0 if new in self.flips else 0.0
        return np.asarray(affine @ back)


def middle(mask: Mask, map: Array) -> tuple[int, ...]:
    """The voxel that lies deepest in the component of a mask whose map adds up to most; the mask must not be empty.

    Not the largest component: where much is marked faintly, it is the bright lesion that one wants to see first.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    most = labels == int(np.bincount(labels[mask], weights=np.maximum(map[mask], 0) + 1e-9).argmax())
    deep = ndimage.distance_transform_cdt(np.pad(most, 1), metric="chessboard")[1:-1, 1:-1, 1:-1]
    place = np.argwhere(deep == deep.max())
    nearest = ((place - place.mean(axis=0)) ** 2).sum(axis=1).argmin()
    return tuple(int(n) for n in place[nearest])
