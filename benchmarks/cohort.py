"""Seconds that `detect` takes for a cohort: one part after the other, with reading and writing overlapped, and two scans at once.

Command:  python benchmarks/cohort.py            (about a minute on two cores; --spacing 1 for the papers' grid, 8 times that)

Scans are phantoms in files of 1 mm, looked at by the shipped model, or by one of its size with random weights. Maps and pages are
written to a temporary folder. "Plain" reads, preprocesses, looks, writes and draws, one scan after the other. The three take
turns, and the best of each counts, since other work on the machine only ever adds to a time. "Waited" is the share of the time
at which the network had nothing to do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from anomri import files, preprocess, run
from anomri.cohort import Cohort, Entry
from anomri.cohorts import phantom
from anomri.method import Method
from anomri.methods import load, shipped
from anomri.methods.itermask3d import IterMask3D
from anomri.report import case
from anomri.run import results
from side_by_side import Goal

JOBS = {"overlap, jobs=1": 1, "overlap, jobs=2": 2}


def model(spacing: float) -> Method:
    """The shipped model, or one of its size that has learned nothing, told that it knows such a grid."""
    torch.manual_seed(0)
    method = load(shipped()[0]) if shipped() else IterMask3D()
    method.preset_arguments = {**method.preset_arguments, "spacing": spacing}
    method.data = {**method.data, "spacing_mm": [spacing] * 3, "sequences": ["T1w"]}
    return method


def scans(count: int, folder: Path) -> Cohort:
    """So many healthy phantoms, in files."""
    entries = []
    for scan in phantom.healthy(count):
        path = folder / f"{scan.id}_T1w.nii.gz"
        files.write_image(path, scan.image[0], scan.grid)
        entries.append(Entry(scan.id, {"T1w": str(path)}))
    return Cohort(entries)


def plain(method: Method, cohort: Cohort, out: Path) -> float:
    """Looks at one scan after the other; gives the seconds that the network worked."""
    steps, worked = method.pipeline(), 0.0
    for id, scan in zip(cohort.ids, cohort, strict=True):
        found = method.detect(preprocess.run(steps, scan))
        results.write(found, run.Place.of(id), out, {})
        case.write(found, out / f"{id}.html")
        worked += found.facts["seconds"]["detect"]
    return worked


def overlapped(method: Method, cohort: Cohort, out: Path, jobs: int) -> float:
    """Looks at so many scans at once; gives the seconds that a network worked, in the mean of the jobs."""
    rows = run.detect(method, cohort, out, jobs=jobs, page=case.write)
    assert all(row["status"] == "done" for row in rows), rows
    logs = [files.read_json(out / run.Place.of(id).log) for id in cohort.ids]
    return sum(float(log["facts"]["seconds"]["detect"]) for log in logs) / jobs


def measure(count: int, spacing: float, rounds: int) -> dict[str, tuple[float, float]]:
    """Best seconds of each way, and the share of them at which the network waited."""
    method = model(spacing)
    ways: dict[str, Callable[[Cohort, Path], float]] = {"plain": lambda cohort, out: plain(method, cohort, out)}
    for name, jobs in JOBS.items():
        ways[name] = lambda cohort, out, jobs=jobs: overlapped(method, cohort, out, jobs)  # type: ignore[misc]
    best: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cohort = scans(count, Path(folder))
        # The first look of a process sets libraries up.
        plain(method, cohort[:1], Path(folder) / "first")
        for turn in range(rounds):
            for name, way in ways.items():
                begun = time.perf_counter()
                worked = way(cohort, Path(folder) / f"{name} {turn}")
                seconds = time.perf_counter() - begun
                best[name] = min(best.get(name, (float("inf"), 0.0)), (seconds, max(0.0, 1 - worked / seconds)))
    return best


def goals(count: int = 6, spacing: float = 2.0, rounds: int = 2) -> list[Goal]:
    """What is wanted of each way, against plain."""
    best = measure(count, spacing, rounds)
    before, waited = best["plain"]
    note = f"{count} phantoms at {spacing:g} mm; the network waited {{:.0%}} of the time, plain {waited:.0%}"
    return [Goal(f"cohort, {name}", best[name][0], before, 1.0, note=note.format(best[name][1])) for name in JOBS]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=6)
    parser.add_argument("--spacing", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {given.scans} scans, {given.spacing:g} mm")
    print(f"{'':>18}{'seconds':>10}{'a scan':>10}{'plain / it':>12}{'waited':>9}")
    best = measure(given.scans, given.spacing, given.rounds)
    for name, (seconds, waited) in best.items():
        ratio = best["plain"][0] / seconds
        print(f"{name:>18}{seconds:>10.2f}{seconds / given.scans:>10.2f}{ratio:>12.3f}{waited:>9.1%}")


if __name__ == "__main__":
    main()
