"""Seconds and peak memory of one `detect` on a 192^3 scan at 1 mm, against the plain loop of the paper, with what is left of it by part.

Command:  python benchmarks/detect.py            (about 5 minutes on two cores; --scan FILE for a stripped T1w of one's own)

The network costs what the paper's does (width 16, 8.9 M parameters) and paints as the shipped one does at 2 mm
(`plain.AtOneMillimetre`), for both alike: there are no weights of 1 mm yet, and random ones would make a curve that no scan has. The
plain loop (`plain.py`) is timed on a few of its steps and multiplied: a hundred steps, as many refining passes as ours made for
the mask, and a last one.

Ours runs in a process of its own, so that its memory is its own; the time is that of the second detect of the process, as in a
cohort; the first one's is printed too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import plain
from anomri import files, preprocess, run
from anomri.cohorts import phantom
from anomri.methods.itermask3d import IterMask3D
from anomri.report import case
from anomri.run import results
from anomri.scan import Scan
from side_by_side import Goal, machine, quickest, table

WANTED, MEMORY_GB, MINUTE = 25.0, 2.5, 60.0
ENGINES = ("torch", "openvino")


def model(engine: str = "auto") -> IterMask3D:
    """The shipped model in a network of the paper's cost, told that it knows scans of 1 mm."""
    small = plain.shipped()
    method = IterMask3D(**small.arguments)
    method.net = plain.AtOneMillimetre(small.net)  # type: ignore[arg-type]
    method.preset_arguments = {**small.preset_arguments, "spacing": 1.0}
    method.data = {**small.data, "spacing_mm": [1.0] * 3, "box": None}
    method.engine = engine
    return method


def raw(path: Path | None, folder: Path) -> Path:
    """The file to look at: one's own, or the template with a planted lesion."""
    if path is not None:
        return path
    scan = phantom.template_with_lesion()
    files.write_image(folder / "template_T1w.nii.gz", scan.image[0], scan.grid)
    return folder / "template_T1w.nii.gz"


def ready(method: IterMask3D, path: Path) -> Scan:
    """The scan on the paper's 192^3."""
    scan = preprocess.run(method.pipeline(), files.read_scan({"T1w": path}))
    assert scan.grid.shape == (192, 192, 192)
    return scan


def peak_gb() -> float:
    """The most memory that this process has held; not by `getrusage`, which counts the process that started it too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6


def ours(engine: str, path: Path) -> dict[str, Any]:
    """Seconds of each part, passes and peak memory, of this process."""
    method = model(engine)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Any) -> Any:
        begun = time.perf_counter()
        out = work()
        seconds[name] = time.perf_counter() - begun
        return out

    scan: Scan = timed("read", lambda: files.read_scan({"T1w": path}))
    scan = timed("preprocess", lambda: preprocess.run(method.pipeline(), scan))
    timed("first detect", partial(method.detect, scan))
    found = timed("detect", partial(method.detect, scan))
    peak = peak_gb()
    with tempfile.TemporaryDirectory() as folder:
        timed("write", partial(results.write, found, run.Place.of("template"), Path(folder), {}))
        timed("page", partial(case.write, found, Path(folder) / "page.html"))
    facts = found.trace.facts
    noted = {name: facts[name] for name in ("passes", "fit", "measured", "curve_error")}
    return {"seconds": seconds, "peak_gb": peak, **noted, "refining": facts["refining"]["mask"]}


def apart(engine: str, path: Path) -> dict[str, Any]:
    """`ours` in a process of its own, with large pages as the command line asks for."""
    command = [sys.executable, __file__, "--one", engine, "--scan", str(path)]
    env = {**os.environ, "THP_MEM_ALLOC_ENABLE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def plain_seconds(path: Path) -> tuple[float, float]:
    """Of one of the plain loop's steps, and of a pass alone."""
    slow = plain.Plain(model(), ready(model(), path))
    error = slow.error(slow.brain, "step", 0)
    (step, _), (one, _) = quickest((lambda: slow.step(error, 50), lambda: slow.error(slow.brain, "last")), turns=2)
    return step, one


def goals(path: Path | None = None) -> list[Goal]:
    """The engine that `auto` takes against the plain loop, and its memory; any other is told beside it."""
    found, chosen = [], model().runtime()[2]
    with tempfile.TemporaryDirectory() as folder:
        path = raw(path, Path(folder))
        step, one = plain_seconds(path)
        print(f"plain: {step:.2f} s a step, {one:.2f} s a pass alone")
        for engine in ENGINES:
            if engine != "torch" and importlib.util.find_spec(engine) is None:
                print(f"{engine} is not installed")
                continue
            fast = apart(engine, path)
            theirs = 100 * step + (1 + fast["refining"]) * one
            mine = fast["seconds"]["detect"]
            print(f"{engine}: " + ", ".join(f"{name} {s:.2f} s" for name, s in fast["seconds"].items()))
            if engine != chosen:
                print(
                    f"{engine}: {theirs / mine:.1f} times plain, {fast['peak_gb']:.2f} GB; not what `auto` takes here"
                )
                continue
            note = f"{fast['passes']} passes of {mine / fast['passes']:.2f} s against {101 + fast['refining']}"
            found += [
                Goal(f"detect at 192^3, {engine}", mine, theirs, WANTED, note=note),
                Goal(f"detect at 192^3 under a minute, {engine}", mine, MINUTE, 1.0),
                Goal(f"memory of detect at 192^3, {engine}", fast["peak_gb"], MEMORY_GB, 1.0, "GB"),
            ]
    return found


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, help="a skull-stripped T1w instead of the template")
    parser.add_argument("--one", choices=ENGINES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(ours(given.one, given.scan)))
        return
    print(machine())
    found = goals(given.scan)
    print(table(found))
    sys.exit(not all(goal.met for goal in found))


if __name__ == "__main__":
    main()
