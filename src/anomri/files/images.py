"""NIfTI images and masks, and the scans that they make."""

from __future__ import annotations

import gzip
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import array_from_file
from numpy.typing import NDArray

from anomri.errors import BadCall, BadInput
from anomri.files.opening import NIFTI, reading, replacing, short
from anomri.scan import Array, Grid, Mask, Origin, Scan

SPACING_MM = (0.05, 20.0)
"""Voxel edges that a brain scan may have."""
FORMS_APART = (60.0, 1.5)
"""How far sform and qform may disagree: degrees between axes (beyond it, sides may be swapped), ratio of voxel edges."""
TINY = float(np.finfo(np.float32).tiny)
HEADERS: tuple[Any, Any] = (nib.Nifti1Header, nib.Nifti2Header)
_QUIET = logging.getLogger("anomri.files.nifti")
_QUIET.disabled = True


def read_image(path: str | Path) -> tuple[Array, Grid, Origin]:
    """Reads one 3D volume from NIfTI-1 or NIfTI-2 (.nii, .nii.gz), in the file's own orientation.

    The sform says where voxels lie, else the qform, else the voxel size alone. Returns `(I, J, K)` float32 with the header's
    scaling applied, its grid, and the file's conventions. Raises `BadInput` for anything that is not one finite 3D volume with
    a usable geometry.
    """
    with reading(path) as file:
        if file.is_dir():
            raise BadInput(f"'{path}' is a folder, not an image; name a file, or use --cohort for a folder of scans")
        with file.open("rb") as raw:
            zipped = raw.peek(2)[:2] == b"\x1f\x8b"
            stream: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if zipped else raw
            header = _header(file, stream)
            shape = _shape(file, header)
            grid, origin = _geometry(file, header, shape)
            try:
                data = array_from_file(shape, header.get_data_dtype(), stream, header.get_data_offset(), mmap=False)
                # The end of a gzip stream holds its checksum.
                stream.read(1)
            except OSError as error:
                if error.errno:
                    raise
                raise EOFError(short(error)) from error
    slope, inter = header.get_slope_inter()
    with np.errstate(over="ignore", invalid="ignore"):
        volume = np.array(data, dtype=np.float32, order="C")
        if slope is not None and (slope, inter) != (1.0, 0.0):
            volume *= np.float32(slope)
            volume += np.float32(inter)
    if not np.isfinite(volume).all():
        bad = int((~np.isfinite(volume)).sum())
        raise BadInput(
            f"'{path}': {bad} of {volume.size} voxels are NaN or infinite; repair it (fslmaths in -nan out) or leave it out"
        )
    return volume, grid, origin


def _header(path: Path, stream: io.BufferedIOBase) -> Any:
    """The header of a single-file NIfTI, its voxel size checked as it is written: nibabel would silently turn 0 into 1 mm."""
    block = stream.read(348)
    if not block:
        raise BadInput(f"'{path}' is empty (0 bytes); copy or convert it again")
    sizes = [int.from_bytes(block[:4], order) for order in ("little", "big")]
    kind = next((k for k in HEADERS if k.sizeof_hdr in sizes), None)
    if kind is None:
        raise BadInput(f"'{path}' is not a NIfTI image; convert it to .nii or .nii.gz (for DICOM: dcm2niix)")
    block += stream.read(kind.sizeof_hdr - len(block))
    if len(block) < kind.sizeof_hdr:
        raise EOFError(f"{len(block)} bytes, a header has {kind.sizeof_hdr}")
    header = kind(block, check=False)
    if header["magic"].item()[:2] != b"n+":
        raise BadInput(f"'{path}' is half of a NIfTI or Analyze pair (.hdr, .img); convert it to .nii.gz")
    sizes_mm = [float(z) for z in header["pixdim"][1:4]]
    if not all(abs(z) > 0 for z in sizes_mm):
        told = " x ".join(f"{z:.4g}" for z in sizes_mm)
        raise BadInput(f"'{path}': voxel size {told} mm has a zero; set the true size in the header")
    if not 0 <= float(header["vox_offset"]) < 2**40:
        raise BadInput(
            f"'{path}': its header is damaged (voxels begin at byte {header['vox_offset']}); convert it again"
        )
    try:
        header.check_fix(logger=_QUIET)
        header.get_slope_inter()
    except HeaderDataError as error:
        raise BadInput(f"'{path}': its header is damaged ({short(error)}); convert it again") from error
    return header


def _shape(path: Path, header: Any) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        volumes = int(np.prod(shape[3:]))
        raise BadInput(f"'{path}' holds {volumes} volumes, shape {shape}; split it and pass one 3D volume (fslsplit)")
    if len(shape) < 3 or min(shape) < 2:
        raise BadInput(f"'{path}' has shape {shape}: not a volume; a 3D image is needed")
    dtype = header.get_data_dtype()
    if dtype.fields is not None or dtype.kind == "c":
        raise BadInput(f"'{path}' stores colour or complex values; save the magnitude as one number per voxel")
    return shape[0], shape[1], shape[2]


@np.errstate(all="ignore")
def _geometry(path: Path, header: Any, shape: tuple[int, int, int]) -> tuple[Grid, Origin]:
    """Where the voxels lie; raises `BadInput` where that cannot be told."""
    try:
        affine, qform = header.get_best_affine(), header.get_qform(coded=True)[0]
    except (HeaderDataError, ValueError) as error:
        raise BadInput(f"'{path}': its qform is damaged ({short(error)}); write the orientation anew") from error
    if not np.isfinite(affine).all():
        raise BadInput(f"'{path}': the affine holds NaN or infinite values; write the orientation anew")
    grid = Grid(shape, affine)
    spacing, (low, high) = np.array(grid.spacing), SPACING_MM
    told = " x ".join(f"{s:.4g}" for s in spacing)
    if spacing.min() == 0 or abs(np.linalg.det(affine[:3, :3])) < 1e-3 * float(np.prod(spacing)):
        raise BadInput(
            f"'{path}': the affine is singular (voxel size {told} mm, or two axes along one line); write the orientation anew"
        )
    if spacing.min() < low or spacing.max() > high:
        raise BadInput(
            f"'{path}': voxel size {told} mm is outside {low:g} to {high:g} mm; set the true size in the header (in mm)"
        )
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code and qform is not None:
        other = np.sqrt((qform[:3, :3] ** 2).sum(axis=0))
        angle = float(
            np.degrees(
                np.arccos(np.clip(((affine[:3, :3] / spacing) * (qform[:3, :3] / other)).sum(axis=0), -1, 1))
            ).max()
        )
        ratio = float(np.maximum(spacing / other, other / spacing).max())
        if angle > FORMS_APART[0] or ratio > FORMS_APART[1]:
            raise BadInput(
                f"'{path}': sform and qform contradict each other (axes {angle:.0f} degrees apart, voxel sizes {ratio:.3g}-fold), so left "
                "and right are not certain; keep the true one (fslorient -copysform2qform or -copyqform2sform)"
            )
    version = 2 if isinstance(header, nib.Nifti2Header) else 1
    return grid, Origin((str(path),), sform_code, qform_code, int(header["xyzt_units"]), grid, qform, version)


def read_mask(path: str | Path, grid: Grid, kind: str, labels: Sequence[int] = ()) -> Mask:
    """Reads a mask that must lie on `grid`: above 0.5 is inside, or, where they are named, the voxels with these labels.

    `kind` names it in errors: brain, lesion. A lesion mask may be empty. Raises `BadInput` for a brain mask that says nothing: no voxel, or every one.
    """
    data, own, _ = read_image(path)
    if not own.same(grid):
        raise BadInput(f"{kind} mask '{path}' {_differs(own, grid)}")
    mask = np.isin(np.rint(data), labels) if labels else data > 0.5
    if kind == "brain" and not mask.any():
        raise BadInput(f"brain mask '{path}' is empty (no voxel above 0.5); give another one, or none")
    if kind == "brain" and mask.all():
        raise BadInput(f"brain mask '{path}' covers the whole image; give another one, or none")
    return mask


def _differs(own: Grid, grid: Grid) -> str:
    if own.shape != grid.shape:
        return (
            f"has grid {own.shape}, the image has {grid.shape}; resample one to the other first (preprocess.space.onto)"
        )
    return (
        f"has the image's grid {grid.shape}, but another affine (up to {own.apart(grid):.3g} mm apart); "
        "resample one to the other first (preprocess.space.onto)"
    )


def read_scan(
    images: Mapping[str, str | Path],
    *,
    id: str | None = None,
    brain: str | Path | None = None,
    lesion: str | Path | Sequence[str | Path] | None = None,
    lesion_labels: Sequence[int] = (),
) -> Scan:
    """Reads a scan from one file per sequence, with its masks where given.

    Parameters
    ----------
    images : sequence to path, such as `{"T1w": "a.nii.gz", "FLAIR": "b.nii.gz"}`, all on one grid
    id : the scan's name; the first file's name without its ending where it is None
    lesion : a mask, or several that are merged
    lesion_labels : their values that are lesion; above 0.5 where there are none

    Raises `BadInput` where a file cannot be used, an image is constant, or the parts lie on different grids.
    """
    if not images:
        raise BadCall("a scan needs at least one image")
    read = {name: read_image(path) for name, path in images.items()}
    _, grid, origin = next(iter(read.values()))
    for name, (volume, own, _) in read.items():
        if not own.same(grid):
            raise BadInput(f"{name} image '{images[name]}' {_differs(own, grid)}")
        if volume.min() == volume.max():
            raise BadInput(f"'{images[name]}' is constant (every voxel is {volume.flat[0]:g}): there is no image in it")
    volumes = [volume for volume, _, _ in read.values()]
    masks = [lesion] if isinstance(lesion, str | Path) else lesion or []
    lesions = [read_mask(path, grid, "lesion", lesion_labels) for path in masks]
    paths = tuple(str(path) for path in images.values())
    return Scan(
        np.stack(volumes) if len(volumes) > 1 else volumes[0],
        grid.affine,
        id=id or stem(paths[0]),
        brain=None if brain is None else read_mask(brain, grid, "brain"),  # type: ignore[arg-type]
        sequences=tuple(images),
        lesion=np.logical_or.reduce(lesions) if lesions else None,
        origin=replace(origin, paths=paths),
    )


def stem(path: str | Path) -> str:
    """A file's name without its NIfTI ending."""
    name = Path(path).name
    for end in NIFTI:
        if name.lower().endswith(end):
            return name[: -len(end)]
    return Path(path).stem


def write_image(path: str | Path, volume: NDArray[Any], grid: Grid, origin: Origin | None = None) -> None:
    """Writes a 3D volume as NIfTI, atomically; gzip level 1; the same volume gives the same bytes.

    bool and uint8 are stored as uint8, everything else as int16 with a slope: 0 stays exactly 0, any value is off by at most
    the largest magnitude / 65534.

    Parameters
    ----------
    volume : `(I, J, K)`
    grid : its grid
    origin : the file that it belongs to. On that file's grid the result gets its sform, qform, codes and units; on another
        grid both forms are the grid's affine

    Raises `BadInput` for values that are not finite, `BadCall` where volume and grid differ in shape.
    """
    if volume.shape != grid.shape:
        raise BadCall(f"cannot write '{path}': the volume has shape {volume.shape}, its grid {grid.shape}")
    origin = origin or Origin()
    header = HEADERS[origin.version - 1]()
    if volume.dtype in (np.bool_, np.uint8):
        data, slope = volume.astype(np.uint8), None
    else:
        peak = max(abs(float(volume.min())), abs(float(volume.max())))
        if not np.isfinite(peak):
            raise BadInput(f"cannot write '{path}': it holds NaN or infinite values")
        exact = volume.dtype.kind in "iu" and peak <= 32767
        slope = np.float32(1 if exact else max(peak / 32767, TINY))
        # Symmetric about zero, so that a background of 0 is 0 again after reading.
        data = np.rint(volume / slope).clip(-32767, 32767).astype(np.int16)
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_slope_inter(slope, None if slope is None else 0)
    sform_code, qform_code, qform = origin.sform_code, origin.qform_code, grid.affine
    if origin.grid is not None and grid.same(origin.grid):
        qform = grid.affine if origin.qform is None else origin.qform
    elif not sform_code and not qform_code:
        # Such a file's place follows from its shape and voxel size alone, which would be another on this grid.
        sform_code = qform_code = 1
    header.set_zooms(grid.spacing)
    if qform_code:
        # A qform cannot hold shears; the sform, which every reader prefers, then carries the truth.
        header.set_qform(qform, code=qform_code, strip_shears=True)
    if sform_code:
        header.set_sform(grid.affine, code=sform_code)
    header["xyzt_units"] = origin.xyzt_units if origin.xyzt_units & 7 else 10
    header["descrip"] = b"anomri"
    header["vox_offset"] = header.sizeof_hdr + 4
    content = header.binaryblock + bytes(4) + data.tobytes(order="F")
    with replacing(path) as part:
        part.write_bytes(gzip.compress(content, compresslevel=1, mtime=0) if part.name.endswith(".gz") else content)
