"""Phantoms as a BIDS data set on disk, masks and all, as `cohorts.open_cohort` reads it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from anomri import files
from anomri.errors import BadCall
from anomri.scan import Scan

MAKER = "anomri phantom"
COLUMNS = {
    "group": "control, or patient: a lesion was planted",
    "brain_ml": "volume of the brain in ml",
    "lesion_ml": "volume of the planted lesion in ml",
}
Row = dict[str, Any]
REVISION = 3
"""Of how phantoms are painted: raised whenever the same recipe paints others, so that those of two revisions never mix."""


def begin(root: Path, recipe: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Makes a folder ready for phantoms of a recipe; where it holds some of the same recipe, these are kept (`made`).

    Raises `BadCall` where it holds anything else, unless these are phantoms and `overwrite` says to delete them.
    """
    about = {
        "Name": "Phantoms: real scans, repainted" if recipe.get("scans") else "Phantoms: made, not measured",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": MAKER, "Version": version("anomri"), "Recipe": {**files.plain(recipe), "revision": REVISION}}
        ],
    }
    with files.reading(root):
        holds = root.exists() and any(root.iterdir())
    if holds:
        old = files.read_json(root / "dataset_description.json") if (root / "dataset_description.json").exists() else {}
        made = old.get("GeneratedBy") or [{}]
        if made[0].get("Name") != MAKER:
            raise BadCall(f"folder '{root}' holds something else than phantoms; name another")
        if made != about["GeneratedBy"] and any(root.glob("sub-*/")):
            if not overwrite:
                raise BadCall(f"folder '{root}' holds other phantoms; name another, or --overwrite deletes them")
            # Their table first: what it names counts as made.
            (root / "participants.tsv").unlink(missing_ok=True)
            for subject in root.glob("sub-*/"):
                shutil.rmtree(subject)
    files.write_json(root / "dataset_description.json", about)


def store(scan: Scan, root: Path) -> Row:
    """Writes a scan and its masks; returns its line of participants.tsv."""
    place, names = root / scan.id / "anat", [f"{scan.id}_{name}" for name in scan.sequences]
    for name, channel in zip(names, scan.image, strict=True):
        files.write_image(place / f"{name}.nii.gz", channel, scan.grid)
        files.write_json(place / f"{name}.json", {"SkullStripped": _bare(scan)})
    for name, mask in (("desc-brain", scan.brain), ("label-lesion", scan.lesion)):
        if mask is not None:
            files.write_image(place / f"{scan.id}_{name}_mask.nii.gz", mask, scan.grid)
            kind = name.partition("-")[2].capitalize()
            sources = [f"bids::{scan.id}/anat/{image}.nii.gz" for image in names]
            files.write_json(place / f"{scan.id}_{name}_mask.json", {"Type": kind, "Sources": sources})
    ill = scan.lesion is not None and bool(scan.lesion.any())
    return {
        "participant_id": scan.id,
        "group": "patient" if ill else "control",
        "brain_ml": float(scan.brain.sum()) * scan.voxel_ml,
        "lesion_ml": float(scan.lesion.sum()) * scan.voxel_ml if scan.lesion is not None else 0.0,
    }


def _bare(scan: Scan) -> bool:
    """Whether nothing but the brain is shown."""
    return not scan.image[:, ~scan.brain].any()


def made(root: Path) -> dict[str, Row]:
    """The lines of participants.tsv, by subject, of what a run that was stopped has written whole."""
    with files.reading(root):
        lines = files.read_table(root / "participants.tsv") if (root / "participants.tsv").exists() else []
    there = [line for line in lines if any((root / line["participant_id"] / "anat").glob("*_desc-brain_mask.json"))]
    return {
        line["participant_id"]: {**line, **{name: float(line[name]) for name in COLUMNS if name.endswith("_ml")}}
        for line in there
    }


def finish(root: Path, rows: Sequence[Row]) -> None:
    """Writes the table of subjects."""
    files.write_table(root / "participants.tsv", rows, ["participant_id", *COLUMNS])
    files.write_json(root / "participants.json", {name: {"Description": text} for name, text in COLUMNS.items()})
