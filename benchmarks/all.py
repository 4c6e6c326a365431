"""Every goal of every benchmark, as one table.

Command:  python benchmarks/all.py                (or some of them: python benchmarks/all.py masks metrics)

The exit code is 1 where a goal is missed or a benchmark failed; one that fails is a line that says so, and the others go on.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from side_by_side import Goal, machine, table

NAMES = (
    "masks",
    "preprocessing",
    "metrics",
    "reconstruction",
    "mahalanobis",
    "ssim_ensemble",
    "diffusion",
    "cohort",
    "detect",
    "training",
    "agreement",
)
COLUMNS = ("benchmark", "goal", "ours", "theirs", "unit", "ratio", "wanted", "met", "note", "machine")


def goals_of(name: str) -> list[Goal]:
    """What a benchmark found; one missed goal that says why, where it failed."""
    begun = time.perf_counter()
    try:
        found = list(importlib.import_module(name).goals())
    except (Exception, SystemExit) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        found = [Goal(name, float("nan"), float("nan"), 1.0, note=f"failed: {said}")]
    print(f"{name}: {len(found)} goals in {time.perf_counter() - begun:.0f} s", flush=True)
    return found


def tsv(found: dict[str, list[Goal]]) -> str:
    """A line for each goal under `COLUMNS`, amounts as they were measured."""
    said = machine()
    lines = [COLUMNS]
    for name, goals in found.items():
        for g in goals:
            amounts = (f"{g.ours:.6g}", f"{g.theirs:.6g}", g.unit, f"{g.ratio:.6g}", f"{g.wanted:g}")
            lines.append((name, g.name, *amounts, "yes" if g.met else "no", g.note, said))
    return "".join("\t".join(line) + "\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of: {', '.join(NAMES)}; all where none is given")
    parser.add_argument("--out", type=Path, help="write the table there too, as TSV")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown benchmark '{unknown[0]}'; known: {', '.join(NAMES)}")
    found = {name: goals_of(name) for name in given.names or NAMES}
    goals = [goal for of_one in found.values() for goal in of_one]
    print(f"\n{machine()}\n\n{table(goals)}")
    missed = [goal.name for goal in goals if not goal.met]
    print(
        f"\n{len(goals) - len(missed)} of {len(goals)} goals met" + (f"; missed: {', '.join(missed)}" if missed else "")
    )
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(tsv(found))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
