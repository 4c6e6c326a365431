"""BIDS data sets: `sub-*/[ses-*/]anat/*_<sequence>.nii.gz`, with what `participants.tsv` says of each subject."""

from __future__ import annotations

from pathlib import Path

from anomri import files
from anomri.cohort import Cohort, Entry
from anomri.errors import BadInput

OWN_SPACE = ("orig", "T1w")
"""Labels of `space-` for derivatives that lie where the raw image lies."""


def read(root: Path, sequences: list[str]) -> Cohort:
    """The scans of a BIDS data set that have every one of the sequences.

    A subject's sessions and runs are scans of their own, named by file: `sub-01_ses-2_run-1`. Of derivatives, preprocessed
    images (`desc-preproc`) in the subject's own space are taken where there is no raw image. A brain or lesion mask with the
    same name otherwise (`desc-brain_mask`, `label-lesion_mask`) comes along.
    """
    people: dict[str, dict[str, str]] = {}
    if (root / "participants.tsv").exists():
        people = {row.get("participant_id", ""): row for row in files.read_table(root / "participants.tsv")}
    first, *others = sequences
    paths = sorted(p for end in files.NIFTI for p in root.glob(f"sub-*/**/anat/*_{first}{end}"))
    raw = [p for p in paths if not _entities(p, "desc", "space")]
    ready = [
        p for p in paths if _entities(p, "desc") == ["preproc"] and all(s in OWN_SPACE for s in _entities(p, "space"))
    ]
    entries = []
    for path in raw or ready:
        stem = files.stem(path).removesuffix(f"_{first}")
        images = {first: str(path)} | {other: found for other in others if (found := _beside(path, f"{stem}_{other}"))}
        if len(images) < len(sequences):
            continue
        id = (
            stem
            if raw
            else "_".join(part for part in stem.split("_") if part.split("-")[0] not in ("desc", "space", "res"))
        )
        stem = stem.removesuffix("_desc-preproc")
        masks = [_beside(path, f"{stem}_{kind}_mask") for kind in ("desc-brain", "label-lesion")]
        subject = id.split("_")[0]
        entries.append(Entry(id, images, masks[0], masks[1], {**people.get(subject, {}), "subject": subject}))
    if not entries:
        raise BadInput(
            f"BIDS data set '{root}' has no scan with {', '.join(sequences)} (sub-*/anat/*_{first}.nii.gz); name another --sequence"
        )
    return Cohort(entries)


def _entities(path: Path, *keys: str) -> list[str]:
    parts = [part.partition("-") for part in path.name.split("_")]
    return [value for key, _, value in parts if key in keys]


def _beside(path: Path, name: str) -> str | None:
    found = (path.with_name(f"{name}{end}") for end in files.NIFTI)
    return next((str(p) for p in found if p.exists()), None)
