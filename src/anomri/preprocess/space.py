"""Grids: reorient, resample, crop, register, and the way back. Every step appends what it did to `Scan.history`.

All of them are one thing: an affine map from the voxels of a new grid to those of an old one. So a run of them is undone by
one interpolation from the last grid straight to the first, however many there were.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from torch import Tensor

from anomri import files
from anomri.errors import BadCall, BadInput, unknown
from anomri.preprocess.brain import stripped_mask
from anomri.scan import Array, Curved, Grid, Mask, Matrix, Moved, Scaled, Scan

Kind = Literal["map", "mask", "label", "image"]
REGISTER_MM = 2.0
"""Grid that registration looks at; finer ones cost eight times as much and gain little."""
MOST_VOXELS = 1e9
TRUNCATE = 3.0
"""SDs at which a Gaussian is cut off."""


def _warp(volume: NDArray[Any], matrix: Matrix, shape: Sequence[int], *, nearest: bool = False) -> Array:
    """`out[o] = volume[matrix @ o]`, linear, 0 outside; `matrix (4, 4)` takes output to input voxel indices."""
    # ITK's x is the last axis of an array: the axes of the matrix are turned instead of the voxels.
    image = sitk.GetImageFromArray(np.asarray(volume, dtype=np.float32))
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3][::-1, ::-1].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3][::-1].tolist())
    how = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    size = [int(n) for n in reversed(shape)]
    out = sitk.Resample(image, size, transform, how, [0.0] * 3, [1.0] * 3, np.eye(3).ravel().tolist(), 0.0)
    return np.asarray(sitk.GetArrayFromImage(out), dtype=np.float32)


def _matrix(source: Grid, target: Grid, world: Matrix) -> Matrix:
    """Target to source voxel indices, `(4, 4)`."""
    matrix: Matrix = np.linalg.inv(source.affine) @ world @ target.affine
    return matrix


def _whole(matrix: Matrix) -> bool:
    """Whether a map takes voxels onto voxels: axes swapped or flipped, shifted by whole voxels."""
    whole = np.round(matrix[:3])
    turns = np.abs(whole[:, :3])
    return bool(
        np.allclose(matrix[:3], whole, atol=1e-4) and (turns.sum(axis=0) == 1).all() and (turns.sum(axis=1) == 1).all()
    )


def _exact(volume: NDArray[Any], matrix: Matrix, shape: Sequence[int]) -> NDArray[Any]:
    """The same as `_warp` where `matrix` takes voxels onto voxels, without interpolation and in the volume's own type."""
    whole = np.round(matrix).astype(int)
    axes = [int(np.flatnonzero(whole[:3, o])[0]) for o in range(3)]
    turned = volume.transpose(axes)
    out = np.zeros(shape, dtype=volume.dtype)
    to, of = [], []
    for o, axis in enumerate(axes):
        sign, shift, n = int(whole[axis, o]), int(whole[axis, 3]), turned.shape[o]
        # Where sign * o + shift lies in 0 to n - 1.
        ends = sorted((-shift * sign, (n - 1 - shift) * sign))
        first, last = max(0, ends[0]), min(shape[o] - 1, ends[1])
        if last < first:
            return out
        start, stop = sign * first + shift, sign * last + shift + sign
        to.append(slice(first, last + 1))
        of.append(slice(start, stop if stop >= 0 else None, sign))
    out[tuple(to)] = turned[tuple(of)]
    return out


def between(volume: NDArray[Any], source: Grid, target: Grid, kind: Kind, world: Matrix | None = None) -> NDArray[Any]:
    """A volume of one grid on another.

    Parameters
    ----------
    volume : `(I, J, K)` on `source`
    kind : "image" and "map" are interpolated linearly (after smoothing where the target is coarser), "mask" is linear and
        cut at one half, "label" is nearest
    world : `(4, 4)`, target world coordinates to source world coordinates; identity where None

    Returns `(I, J, K)` on `target`, 0 where the source does not reach.
    """
    matrix = _matrix(source, target, np.eye(4) if world is None else world)
    if _whole(matrix):
        return _exact(volume, matrix, target.shape)
    if kind == "label":
        return _warp(volume, matrix, target.shape, nearest=True).astype(volume.dtype)
    coarser = np.linalg.norm(matrix[:3, :3], axis=1)
    smooth = np.asarray(volume, dtype=np.float32)
    if (coarser > 1.05).any():
        # A box of `coarser` voxels has the variance of a Gaussian of this width; without it, fine detail aliases.
        smooth = _blur(smooth, np.sqrt(np.maximum(coarser**2 - 1, 0) / 12))
    out = _warp(smooth, matrix, target.shape)
    return out >= 0.5 if kind == "mask" else out


def _blur(volume: Array, sigma: Sequence[float] | NDArray[Any]) -> Array:
    from scipy.ndimage import gaussian_filter

    # A kernel one voxel wide smooths nothing.
    sigma = [s if int(TRUNCATE * s + 0.5) else 0.0 for s in sigma]
    if not any(sigma):
        return volume
    return np.asarray(gaussian_filter(volume, sigma, mode="nearest", truncate=TRUNCATE), dtype=np.float32)


def _inside(
    volumes: Iterable[NDArray[Any]], brain: Mask, source: Grid, target: Grid, world: Matrix
) -> tuple[list[Array], Mask]:
    """Volumes, and the brain that they live in, on another grid. The background, which is 0 on both, does not bleed in: a
    voxel is the mean of what the brain has of it."""
    share = between(brain, source, target, "map", world)
    inside = share >= 0.5
    held = (between(np.where(brain, volume, np.float32(0)), source, target, "map", world) for volume in volumes)
    return [np.divide(h, share, out=np.zeros(target.shape, np.float32), where=inside) for h in held], inside


def _move(scan: Scan, target: Grid, world: Matrix | None = None) -> Scan:
    """The scan on another grid."""
    world = np.eye(4) if world is None else world
    if scan.stripped and not _whole(_matrix(scan.grid, target, world)):
        moved, brain = _inside(scan.image, scan.brain, scan.grid, target, world)
    else:
        moved = [between(channel, scan.grid, target, "image", world) for channel in scan.image]
        brain = (
            between(scan.brain, scan.grid, target, "mask", world)
            if scan.stripped
            else np.ones(target.shape, dtype=bool)
        )
    lesion = None if scan.lesion is None else between(scan.lesion, scan.grid, target, "mask", world)
    image = np.stack(moved) if len(moved) > 1 else moved[0]
    history = (*scan.history, Moved(scan.grid, world))
    return scan.with_(image=image, affine=target.affine, brain=brain, lesion=lesion, history=history)


def onto(scan: Scan, target: Grid) -> Scan:
    """The scan resampled to a given grid; where its brain is known, the background becomes 0."""
    return _move(scan, target)


def reorient(scan: Scan) -> Scan:
    """The scan with its axes permuted and flipped to the nearest RAS; voxels keep their values. Exact to undo."""
    turn = nib.io_orientation(scan.affine)
    if np.isnan(turn).any():
        raise BadInput(f"scan '{scan.id}': its affine does not tell which axis is which; write the orientation anew")
    shape = [scan.grid.shape[axis] for axis in np.argsort(turn[:, 0])]
    return _move(scan, _grid(shape, scan.affine @ nib.orientations.inv_ornt_aff(turn, scan.grid.shape)))


def _grid(shape: Sequence[int] | NDArray[Any], affine: Matrix) -> Grid:
    i, j, k = (int(n) for n in shape)
    return Grid((i, j, k), affine)


def resample(scan: Scan, spacing: float = 1.0) -> Scan:
    """The scan on an isotropic grid of `spacing` mm over the same field of view, the first voxel's outer corner kept.

    Where its brain is known, the background becomes 0. Raises `BadCall` for a spacing that no brain scan has, or that makes more
    than a billion voxels of this one.
    """
    low, high = files.SPACING_MM
    if not low <= spacing <= high:
        raise BadCall(f"cannot resample to {spacing:g} mm; use {low:g} to {high:g} mm, such as 1 or 2")
    old = np.array(scan.spacing)
    if np.allclose(old, spacing, rtol=1e-3):
        return scan
    # A sliver of a voxel at the far end, from rounding in the header, is no voxel.
    shape = np.maximum(1, np.ceil(np.array(scan.grid.shape) * old / spacing - 1e-3))
    if shape.prod() > MOST_VOXELS:
        raise BadCall(
            f"scan '{scan.id}' at {spacing:g} mm would have {' x '.join(f'{n:.0f}' for n in shape)} voxels; take a larger spacing, such as 1 or 2"
        )
    return _scaled(scan, spacing / old, shape)


def resize(scan: Scan, voxels: Sequence[int] = (64, 64, 64)) -> Scan:
    """The scan's field of view in so many voxels along each axis, whatever their edges become.

    Where its brain is known, the background becomes 0. Raises `BadCall` for less than 2 voxels.
    """
    if len(voxels) != 3 or min(voxels) < 2:
        raise BadCall(f"cannot resize to {' x '.join(map(str, voxels))} voxels; needs three numbers of 2 or more")
    return _scaled(scan, np.array(scan.grid.shape) / np.array(voxels), voxels)


def _scaled(scan: Scan, step: NDArray[Any], shape: Sequence[int] | NDArray[Any]) -> Scan:
    """The scan on voxels `step` times as long along each axis, the first voxel's outer corner kept."""
    affine = scan.affine.copy()
    affine[:3, :3] *= step
    affine[:3, 3] += scan.affine[:3, :3] @ (0.5 * step - 0.5)
    return _move(scan, _grid(shape, affine))


def crop_or_pad(scan: Scan, size_mm: Sequence[float] = (192.0, 192.0, 192.0)) -> Scan:
    """The scan cropped or padded with 0 to a field of view in mm, the middle of the brain's box in its centre.

    Raises `BadInput` where the brain is larger than the field of view by more than a tenth: something is wrong with it.
    """
    spacing = np.array(scan.spacing)
    shape = np.round(np.array(size_mm) / spacing).astype(int)
    low, high = box(scan.brain if scan.stripped else (scan.image != scan.image.flat[0]).any(axis=0))
    if scan.stripped and ((high - low) > 1.1 * shape).any():
        extent, field = (" x ".join(f"{e:.0f}" for e in size) for size in ((high - low) * spacing, size_mm))
        raise BadInput(
            f"scan '{scan.id}': its brain spans {extent} mm, more than the field of view of {field} mm; "
            "check the brain mask and the voxel size"
        )
    return _cut(scan, (low + high - shape) // 2, shape)


def crop_slices(scan: Scan, bottom: int = 15, top: int = 15) -> Scan:
    """The scan without its lowest and highest axial slices (last axis). Raises `BadCall` where none would be left."""
    i, j, k = scan.grid.shape
    if k <= bottom + top:
        raise BadCall(f"scan '{scan.id}' has {k} axial slices, cannot take {bottom} and {top} off")
    return _cut(scan, (0, 0, bottom), (i, j, k - bottom - top))


def pick_slices(scan: Scan, first: int = 70, last: int = 89) -> Scan:
    """The axial slices (last axis) `first` to `last`, counted from 0 at the bottom. Raises `BadCall` where there are not as many."""
    i, j, k = scan.grid.shape
    if not 0 <= first <= last < k:
        raise BadCall(
            f"scan '{scan.id}' has {k} axial slices, cannot take {first} to {last}; name others, or none to keep all"
        )
    return _cut(scan, (0, 0, first), (i, j, last - first + 1))


def resize_slices(scan: Scan, pixels: int = 128, field_mm: float = 240.0) -> Scan:
    """The scan with axial slices of `pixels` x `pixels` over a square field of view around the brain; slices stay where they are.

    Where its brain is known, the background becomes 0. Raises `BadInput` as `crop_or_pad` does.
    """
    square = crop_or_pad(scan, (field_mm, field_mm, scan.grid.shape[2] * scan.spacing[2]))
    # Cropped around the brain along the last axis too: that is taken back.
    shift = np.round(np.linalg.solve(square.affine, scan.affine)[:3, 3]).astype(int)[2]
    square = _cut(square, (0, 0, shift), (*square.grid.shape[:2], scan.grid.shape[2]))
    step = np.array([*(field_mm / pixels / np.array(square.spacing[:2])), 1.0])
    return _scaled(square, step, (pixels, pixels, square.grid.shape[2]))


def _cut(scan: Scan, low: Sequence[int] | NDArray[Any], shape: Sequence[int] | NDArray[Any]) -> Scan:
    affine = scan.affine.copy()
    affine[:3, 3] += scan.affine[:3, :3] @ np.asarray(low)
    return _move(scan, _grid(shape, affine))


def halve(scan: Scan) -> Scan:
    """The scan at twice the spacing of its first axis."""
    return resample(scan, 2 * scan.spacing[0])


def box(
    mask: Mask,
    multiple: int = 1,
    size: Sequence[int] | NDArray[Any] | None = None,
    like: Sequence[int] | NDArray[Any] | None = None,
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """First and one-past-last indices of a box around a mask, in its middle; they may lie outside the grid.

    Parameters
    ----------
    mask : `(I, J, K)` bool; the whole grid counts where nothing is in it
    multiple : edges are grown to multiples of this
    size : the box's edges, instead of the smallest that hold the mask
    like : edges of another box around the mask, from which this one's corner lies whole multiples away: a network that halves its
        grid again and again sees the mask in both alike
    """
    where = [
        np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis))) for axis in range(mask.ndim)
    ]
    low = np.array([w[0] if len(w) else 0 for w in where])
    high = np.array([w[-1] + 1 if len(w) else n for w, n in zip(where, mask.shape, strict=True)])
    edges = np.ceil((high - low) / multiple).astype(int) * multiple if size is None else np.asarray(size)
    if like is None:
        low = low - (edges - (high - low)) // 2
    else:
        corner = low - (np.asarray(like) - (high - low)) // 2
        low = corner + (low - corner) // multiple * multiple
        edges = np.ceil((high - low) / multiple).astype(int) * multiple
    return low, low + edges


def cut(volume: Tensor, low: Sequence[int] | NDArray[Any], high: Sequence[int] | NDArray[Any]) -> Tensor:
    """The box `[low, high)` of the last axes of a tensor, 0 where it reaches outside."""
    start, stop, shape = [int(a) for a in low], [int(b) for b in high], volume.shape[-len(low) :]
    out = volume.new_zeros(*volume.shape[: -len(low)], *(b - a for a, b in zip(start, stop, strict=True)))
    inside = [(max(a, 0), min(b, n)) for a, b, n in zip(start, stop, shape, strict=True)]
    if all(b > a for a, b in inside):
        to: list[Any] = [slice(b0 - a, b1 - a) for (b0, b1), a in zip(inside, start, strict=True)]
        of: list[Any] = [slice(*edges) for edges in inside]
        out[(..., *to)] = volume[(..., *of)]
    return out


def paste(part: Tensor, low: Sequence[int] | NDArray[Any], shape: Sequence[int]) -> Tensor:
    """The inverse of `cut`: the box back in a grid of `shape`, 0 elsewhere."""
    return cut(part, [-int(a) for a in low], [int(n) - int(a) for a, n in zip(low, shape, strict=True)])


def register(scan: Scan, template: Scan | str | Path | None = None, by: str = "simpleitk") -> Scan:
    """The scan on the grid of a template, by a 12-parameter affine. The same scan gives the same answer.

    Parameters
    ----------
    template : a stripped scan, or the path of one; MNI152 T1 at 1 mm (nilearn's packaged one) where None
    by : "simpleitk" (mutual information), or "greedy" (normalised mutual information; faster and a little closer; needs the
        extra `anomri[reg]`)

    Raises `BadInput` where the scan or the template has no brain mask: with a skull on, the fit to a brain-only image fails.
    """
    if by not in REGISTRATIONS:
        raise unknown("registration", by, REGISTRATIONS)
    template = mni152() if template is None else template if isinstance(template, Scan) else _template(str(template))
    for part in (scan, template):
        if not part.stripped:
            raise BadInput(
                f"scan '{part.id}': registration needs the brain alone; extract it first (--brain, or --strip)"
            )
    parts = [resample(reorient(part), REGISTER_MM) for part in (template, scan)]
    fixed, moving = (np.where(part.brain, part.image[0], np.float32(0)) for part in parts)
    try:
        matrix = REGISTRATIONS[by](fixed, moving)
    except RuntimeError as error:
        raise BadInput(f"scan '{scan.id}': it cannot be registered to '{template.id}'; check its brain mask") from error
    return _move(scan, template.grid, parts[1].affine @ matrix @ np.linalg.inv(parts[0].affine))


def _by_simpleitk(fixed: Array, moving: Array) -> Matrix:
    """`(4, 4)`, voxel indices of `fixed` to those of `moving`."""
    images = [sitk.GetImageFromArray(part) for part in (fixed, moving)]
    kind = sitk.CenteredTransformInitializerFilter.MOMENTS
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(48)
    method.SetMetricSamplingStrategy(method.REGULAR)
    # ITK jitters even regular samples, by default with a seed from the clock, and sums in the order that threads end.
    method.SetMetricSamplingPercentage(0.25, seed=1)
    method.SetNumberOfWorkUnits(1)
    method.SetInterpolator(sitk.sitkLinear)
    # Steps in voxels; gradients of mutual information are so small that only the step tells when to stop.
    method.SetOptimizerAsRegularStepGradientDescent(
        0.5, 1e-3, 200, relaxationFactor=0.5, gradientMagnitudeTolerance=1e-8
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([0.5, 0.0])
    method.SetInitialTransform(sitk.CenteredTransformInitializer(*images, sitk.AffineTransform(3), kind))
    found = method.Execute(*images)
    # Voxel indices of ITK, last axis first: where the corners of a unit cube go tells the matrix.
    origin = np.array(found.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(found.TransformPoint(unit)) - origin for unit in np.eye(3).tolist()]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.stack(columns, axis=1)[::-1, ::-1], origin[::-1]
    return matrix


def _by_greedy(fixed: Array, moving: Array) -> Matrix:
    """`(4, 4)`, voxel indices of `fixed` to those of `moving`."""
    try:
        from picsl_greedy import Greedy3D
    except ImportError as error:
        raise BadInput("greedy is not installed: pip install 'anomri[reg]', or use --register-by simpleitk") from error
    images = [sitk.GetImageFromArray(np.ascontiguousarray(part.T)) for part in (fixed, moving)]
    greedy, unread = Greedy3D(), io.StringIO()
    # No jitter and one thread: the clock and the order of sums would make the last digits differ from run to run.
    call = "-i fixed moving -a -dof 12 -m NMI -n 100x50 -ia-image-centers -jitter 0 -threads 1 -o affine"
    greedy.execute(call, out=unread, err=unread, fixed=images[0], moving=images[1], affine=None)
    # Greedy speaks RAS, ITK images are LPS: two axes change sign on both sides.
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    return np.asarray(lps @ np.asarray(greedy["affine"], dtype=np.float64) @ lps)


REGISTRATIONS: dict[str, Callable[[Array, Array], Matrix]] = {"simpleitk": _by_simpleitk, "greedy": _by_greedy}


@lru_cache(maxsize=1)
def _template(path: str) -> Scan:
    scan = files.read_scan({"T1w": path})
    found = stripped_mask(scan)
    return scan if found is None else scan.with_(brain=found)


@lru_cache(maxsize=1)
def mni152() -> Scan:
    """The MNI152 T1 template at 1 mm, stripped, from nilearn's package (ICBM 2009, resampled)."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    image = load_mni152_template(resolution=1)
    brain = np.asarray(load_mni152_brain_mask(resolution=1).dataobj) > 0
    volume = np.where(brain, np.asarray(image.dataobj, dtype=np.float32), np.float32(0))
    return Scan(volume, np.asarray(image.affine), id="mni152", brain=brain)


def to_native(scan: Scan, volume: NDArray[Any], kind: Kind, channel: int = 0) -> NDArray[Any]:
    """A result on the grid of the file that the scan came from.

    Parameters
    ----------
    volume : `(I, J, K)` on `scan`'s grid
    kind : "map" and "image" live inside the brain and are 0 outside it; "image" also gets its intensities back; "mask" and
        "label" keep their values
    channel : the sequence whose intensities an "image" has

    Returns `(I, J, K)` on `scan.native`.
    """
    grid, target, world = scan.grid, scan.grid, np.eye(4)
    out, brain = volume, scan.brain

    def settle() -> None:
        """Runs the moves gathered so far as one interpolation."""
        nonlocal grid, world, out, brain
        if target is grid:
            return
        if kind in ("map", "image"):
            (out,), brain = _inside([out], brain, grid, target, world)
        else:
            out = between(out, grid, target, kind, world)
        grid, world = target, np.eye(4)

    for change in reversed(scan.history):
        if isinstance(change, Moved):
            # Back: from old world coordinates to new ones.
            target, world = change.source, world @ np.linalg.inv(change.world)
        elif kind == "image":
            settle()
            if isinstance(change, Scaled):
                scaled = out * np.float32(change.gain[channel]) + np.float32(change.offset[channel])
                out = np.where(brain, scaled, np.float32(0))
            elif isinstance(change, Curved):
                out = np.where(brain, change.back(out, channel), np.float32(0))
            else:
                out = out * change.by[channel]
    settle()
    return out
