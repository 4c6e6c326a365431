"""A plain folder of NIfTI files: each is a scan, named by its file; masks beside it end in `_brain_mask` or `_lesion`."""

from __future__ import annotations

from pathlib import Path

from anomri import files
from anomri.cohort import Cohort, Entry
from anomri.errors import BadInput

BRAIN = ("_brain_mask", "_brainmask", "_brain", "_mask")
LESION = ("_lesion_mask", "_lesion")
SUFFIXES = ("T1w", "T2w", "FLAIR", "PDw", "T2star", "T1", "T2", "PD", "bold", "dwi", "T1ce", "T1c")
"""Endings that name a sequence: a file that has another one than those asked for is not taken."""


def read(root: Path, sequences: list[str]) -> Cohort:
    """The scans of a folder.

    With several sequences, files are `<id>_<sequence>.nii.gz`; with one, any name will do that does not end in another
    sequence. A file `<id>_brain.nii.gz` is a mask where there is an `<id>.nii.gz`, else a scan.
    """
    paths = sorted(p for p in root.iterdir() if p.name.lower().endswith(files.NIFTI) and not p.name.startswith("."))
    stems = {files.stem(p): p for p in paths}
    bases = {name.removesuffix(f"_{s}") for name in stems for s in ("", *sequences)} | {*stems}
    scans: dict[str, dict[str, str]] = {}
    for stem, path in ((files.stem(p), p) for p in paths):
        base = next((stem.removesuffix(e) for e in (*BRAIN, *LESION) if stem.endswith(e)), None)
        if base is not None and (base in bases or not stem.endswith("_brain")):
            continue
        id, _, ending = stem.rpartition("_")
        if id and ending in sequences:
            images = scans.setdefault(id, {})
        elif len(sequences) == 1 and ending not in SUFFIXES:
            id, ending = stem, sequences[0]
            images = scans.setdefault(id, {})
        else:
            continue
        if ending in images:
            raise BadInput(
                f"folder '{root}' holds '{Path(images[ending]).name}' and '{path.name}' for one scan; take one away"
            )
        images[ending] = str(path)

    def mask(id: str, endings: tuple[str, ...]) -> str | None:
        names = (f"{base}{ending}" for base in (id, f"{id}_{sequences[0]}") for ending in endings)
        return next((str(stems[name]) for name in names if name in stems), None)

    entries = [
        Entry(id, {s: images[s] for s in sequences}, mask(id, BRAIN), mask(id, LESION))
        for id, images in scans.items()
        if len(images) == len(sequences)
    ]
    if not entries:
        raise BadInput(
            f"folder '{root}' holds no scan with {', '.join(sequences)} (.nii or .nii.gz); "
            "with several sequences, name files <id>_<sequence>.nii.gz"
        )
    return Cohort(entries)
