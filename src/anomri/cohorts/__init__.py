"""Where scans come from: a folder, a BIDS data set, a table, a data set of the papers. Nothing is read until a scan is asked for."""

from __future__ import annotations

from pathlib import Path

from anomri import files
from anomri.cohort import Cohort
from anomri.cohorts import bids, datasets, folder, table
from anomri.errors import BadCall, BadInput

__all__ = ["open_cohort"]


def open_cohort(
    path: str | Path, *, sequence: str = "T1w", where: dict[str, str] | None = None, dataset: str | None = None
) -> Cohort:
    """A cohort from what lies at a path: a table (.tsv, .csv), a BIDS data set, or a plain folder of NIfTI files.

    Parameters
    ----------
    sequence : the BIDS suffix to take: T1w, T2w, FLAIR; several, joined by commas, become channels
    where : column to value; only those scans (participants.tsv, or the table)
    dataset : name of a data set of `anomri.cohorts.datasets`, in whose owners' layout the folder is

    Raises `BadInput` where nothing usable is there, `BadCall` where no sequence is named or the data set is unknown.
    """
    sequences = list(dict.fromkeys(s.strip() for s in sequence.split(",") if s.strip()))
    if not sequences:
        raise BadCall("no sequence is named; use T1w, or several joined by commas: T1w,FLAIR")
    with files.reading(path) as place:
        if not place.exists():
            raise BadInput(f"cohort '{place}' does not exist; name a folder, a BIDS data set or a .tsv or .csv table")
        if dataset is not None:
            known = datasets.dataset(dataset)
            if place.is_file():
                raise BadInput(f"'{place}' is a file; name the folder that {known.title} lies in")
            found = known.open(place, tuple(sequences))
        elif place.is_file():
            if place.name.lower().endswith(files.NIFTI):
                raise BadInput(f"'{place}' is one image, not a cohort; name its folder, or a .tsv or .csv table")
            found = table.read(place, sequences)
        else:
            found = _below(place, sequences)
    return found.where(**where) if where else found


def _below(place: Path, sequences: list[str]) -> Cohort:
    """The scans of a folder, BIDS or plain; where there are none, the error names the data set that it looks like."""
    is_bids = (place / "dataset_description.json").exists() or any(place.glob("sub-*/"))
    try:
        return bids.read(place, sequences) if is_bids else folder.read(place, sequences)
    except BadInput as error:
        like = datasets.looks_like(place)
        if like is None:
            raise
        raise BadInput(f"{error}; it looks like {like.title}: use --dataset {like.name}") from error
