"""Where a study keeps its rows, and the maps' histograms beside them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import torch

from anomri import files
from anomri.metrics.histogram import BINS, VoxelHistogram


def place(out: Path, entrant: str, case: str, scan: str) -> Path:
    """The file of a row."""
    return out / "rows" / slug(entrant) / slug(case) / f"{slug(scan)}.json"


def slug(name: str) -> str:
    """A name as a file name: letters, digits, `_`, `-`; names that would be the same get a piece of their hash."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def write_histogram(row: Path, histogram: VoxelHistogram | None) -> None:
    """Keeps the histogram of a row, or none: one of an earlier row would pass for this one's. A few kB."""
    path = row.with_suffix(".safetensors")
    if histogram is None:
        path.unlink(missing_ok=True)
        return
    kept: dict[str, torch.Tensor] = {}
    for name in ("lesion", "healthy"):
        counts = getattr(histogram, name)
        bins = np.flatnonzero(counts).astype(np.int32)
        kept |= {
            f"{name}_bins": torch.from_numpy(bins),
            f"{name}_counts": torch.from_numpy(counts[bins].astype(np.int32)),
        }
    files.write_tensors(path, kept)


def read_histogram(row: Path) -> VoxelHistogram | None:
    """The histogram of a row; None where none was kept."""
    path = row.with_suffix(".safetensors")
    if not path.is_file():
        return None
    kept = files.read_tensors(path)
    whole = {name: np.zeros(BINS, dtype=np.int64) for name in ("lesion", "healthy")}
    for name, counts in whole.items():
        counts[kept[f"{name}_bins"].numpy()] = kept[f"{name}_counts"].numpy()
    return VoxelHistogram(**whole)
