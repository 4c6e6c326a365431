"""A table of scans, CSV or TSV: columns id, one per sequence, and where there are any, brain, lesion, subject, group, others."""

from __future__ import annotations

from pathlib import Path

from anomri import files
from anomri.cohort import Cohort, Entry
from anomri.errors import BadInput


def read(path: Path, sequences: list[str]) -> Cohort:
    """The scans of a table; relative paths are taken from its folder. Raises `BadInput` for a missing column or cell."""
    rows = files.read_table(path)
    if not rows:
        raise BadInput(f"table '{path}' has no line below its header; it needs one per scan")
    missing = [name for name in ("id", *sequences) if name not in rows[0]]
    if missing:
        raise BadInput(f"table '{path}' has no column '{missing[0]}'; it has {', '.join(rows[0])}")

    def place(cell: str | None) -> str | None:
        return str(path.parent / cell) if cell else None

    entries = []
    for number, row in enumerate(rows, start=1):
        empty = [name for name in ("id", *sequences) if not row[name]]
        if empty:
            raise BadInput(f"table '{path}', scan {number} has no {empty[0]}; fill it in or take the line out")
        facts = {name: cell for name, cell in row.items() if name not in (*sequences, "brain", "lesion")}
        images = {s: str(path.parent / row[s]) for s in sequences}
        entries.append(Entry(row["id"], images, place(row.get("brain")), place(row.get("lesion")), facts))
    return Cohort(entries)
