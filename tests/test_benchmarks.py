"""What the benchmarks share: goals, turns, the table, and the run of them all."""

from __future__ import annotations

import importlib
import math
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def side_by_side(monkeypatch):
    return imported(monkeypatch, "side_by_side")


@pytest.fixture
def every(monkeypatch, side_by_side):
    return imported(monkeypatch, "all")


def imported(monkeypatch, name: str) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


def stub(monkeypatch, name: str, goals) -> None:
    module = ModuleType(name)
    module.goals = goals
    monkeypatch.setitem(sys.modules, name, module)


def test_a_goal_is_met_where_the_ratio_is_as_wanted(side_by_side):
    goal = side_by_side.Goal
    assert goal("masks", 2.0, 10.0, 5.0).ratio == 5.0
    assert goal("masks", 2.0, 10.0, 5.0).met
    assert not goal("masks", 2.1, 10.0, 5.0).met
    assert goal("a limit", 2.9, 3.0, 1.0).met
    assert not goal("a limit", 3.1, 3.0, 1.0).met
    assert goal("no time", 0.0, 3.0, 1.0).met
    assert not goal("failed", math.nan, math.nan, 1.0).met


def test_turns_alternate_and_the_quickest_counts(side_by_side, monkeypatch):
    now, called = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def work(name, lengths):
        lengths = iter(lengths)

        def run():
            called.append(name)
            now[0] += next(lengths)
            return name

        return run

    assert side_by_side.alternate(work("a", [5, 1, 3]), work("b", [4, 6, 7]), 3) == (1.0, 4.0)
    assert called == ["a", "b"] * 3
    assert side_by_side.quickest([work("c", [2, 1])], 2) == [(1.0, "c")]


def test_the_table_is_aligned(side_by_side):
    goal = side_by_side.Goal
    text = side_by_side.table(
        [goal("masks", 0.002, 0.025, 5.0, note="1 mm"), goal("metrics of one case", 2.0, 1.5, 1.0)]
    )
    head, first, second = text.splitlines()
    assert head.split() == ["goal", "ours", "theirs", "or", "limit", "ratio", "wanted", "met", "note"]
    assert first.startswith("masks  ")
    assert second.startswith("metrics of one case  ")
    assert first.split() == ["masks", "0.002", "s", "0.025", "s", "12.50", "5", "yes", "1", "mm"]
    assert second.split()[-4:] == ["s", "0.75", "1", "NO"]
    ends = {line.index(word) + len(word) for line, word in ((head, "met"), (first, "yes"), (second, "NO"))}
    assert len(ends) == 1, "columns of numbers end together"


def test_one_that_fails_is_a_line_and_the_others_go_on(every, side_by_side, monkeypatch, tmp_path, capsys):
    good = side_by_side.Goal("quick", 1.0, 7.0, 5.0, unit="ms")

    def breaks():
        raise RuntimeError("no such\npeer")

    def leaves():
        sys.exit("not here")

    stub(monkeypatch, "breaks", breaks)
    stub(monkeypatch, "leaves", leaves)
    stub(monkeypatch, "works", lambda: [good])
    monkeypatch.setattr(every, "NAMES", ("breaks", "leaves", "absent_benchmark", "works"))
    out = tmp_path / "new" / "table.tsv"
    assert every.main(["--out", str(out)]) == 1
    said = capsys.readouterr().out
    assert "failed: RuntimeError: no such peer" in said
    assert "failed: SystemExit: not here" in said
    assert "failed: ModuleNotFoundError" in said
    assert "1 of 4 goals met; missed: breaks, leaves, absent_benchmark" in said
    assert side_by_side.machine() in said
    lines = [line.split("\t") for line in out.read_text().splitlines()]
    assert [len(line) for line in lines] == [len(every.COLUMNS)] * 5
    assert lines[-1][:8] == ["works", "quick", "1", "7", "ms", "7", "5", "yes"]
    assert lines[1][7] == "no"


def test_only_those_named_run_and_a_missed_goal_is_exit_code_1(every, side_by_side, monkeypatch, capsys):
    goal, ran = side_by_side.Goal, []
    monkeypatch.setattr(every, "NAMES", ("one", "two"))
    stub(monkeypatch, "one", lambda: ran.append("one") or [goal("met", 1.0, 2.0, 1.0)])
    stub(monkeypatch, "two", lambda: ran.append("two") or [goal("slow", 2.0, 1.0, 1.0)])
    assert every.main(["one"]) == 0
    assert ran == ["one"]
    assert every.main(["two"]) == 1
    assert every.main([]) == 1
    with pytest.raises(SystemExit):
        every.main(["three"])
    assert "unknown benchmark 'three'; known: one, two" in capsys.readouterr().err


def test_the_plain_masks_of_the_benchmark_are_alike(monkeypatch, side_by_side):
    """SciPy's zoom and NumPy's repeat grow the same cells."""
    import numpy as np

    masks = imported(monkeypatch, "masks")
    cells = np.random.default_rng(0).random((3, 5, 4)) < 0.4
    for factor in (1, 2, 4):
        np.testing.assert_array_equal(masks.zoomed(cells, factor), masks.repeated(cells, factor))
