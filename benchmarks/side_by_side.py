"""Ours and theirs side by side: they take turns in one process, and the quickest turn of each counts.

The quickest, since whatever else a machine does only ever adds time, and it adds it to both.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], Any]
COLUMNS = ("goal", "ours", "theirs or limit", "ratio", "wanted", "met", "note")


@dataclass(frozen=True)
class Goal:
    """A speed that was promised.

    Parameters
    ----------
    ours, theirs : in `unit`, less is better; a limit ("under 3 s") is `theirs` too, with 1 wanted
    wanted : how many times ours goes into theirs, at least
    """

    name: str
    ours: float
    theirs: float
    wanted: float
    unit: str = "s"
    note: str = ""

    @property
    def ratio(self) -> float:
        """`theirs / ours`: how many times better ours is."""
        return self.theirs / self.ours if self.ours else float("inf")

    @property
    def met(self) -> bool:
        """Whether the ratio is as wanted; NaN never is."""
        return self.ratio >= self.wanted

    def row(self) -> tuple[str, ...]:
        """Under `COLUMNS`, as text."""
        ours, theirs = (f"{amount:.3g} {self.unit}".strip() for amount in (self.ours, self.theirs))
        met = "yes" if self.met else "NO"
        return self.name, ours, theirs, f"{self.ratio:.2f}", f"{self.wanted:g}", met, self.note


def quickest(works: Sequence[Work], turns: int = 5) -> list[tuple[float, Any]]:
    """The least seconds of each work, which take turns, and what it returned last."""
    best, value = [float("inf")] * len(works), [None] * len(works)
    for _ in range(turns):
        for at, work in enumerate(works):
            begun = time.perf_counter()
            value[at] = work()
            best[at] = min(best[at], time.perf_counter() - begun)
    return list(zip(best, value, strict=True))


def alternate(ours: Work, theirs: Work, turns: int = 5) -> tuple[float, float]:
    """The least seconds of ours and of theirs, which take turns."""
    (a, _), (b, _) = quickest((ours, theirs), turns)
    return a, b


def table(goals: Sequence[Goal]) -> str:
    """Goals as plain aligned text, a line each."""
    rows = [COLUMNS, *(goal.row() for goal in goals)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    left = ("goal", "note")
    lines = (
        [cell.ljust(w) if name in left else cell.rjust(w) for name, cell, w in zip(COLUMNS, row, widths, strict=True)]
        for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def machine() -> str:
    """What it ran on, in words."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    capable = any("avx512_bf16" in line or "amx_bf16" in line for line in lines)
    return (
        f"{cpu}, {os.cpu_count()} cores, {'with' if capable else 'without'} bfloat16 arithmetic; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )


def main(goals: Callable[[], Sequence[Goal]], about: str | None) -> None:
    """A benchmark by itself: its goals as a table; the exit code is 1 where one is missed."""
    argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(machine())
    found = goals()
    print(table(found))
    sys.exit(not all(goal.met for goal in found))
