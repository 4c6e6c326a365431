"""Seconds of one `detect` at 2 mm and 1 mm, and of each of its parts, on the MNI152 template with a planted lesion.

Command:  python benchmarks/detect.py            (about 2 minutes on two cores; --paper adds the paper's width, 16)

Networks have random weights: what a pass costs does not depend on them. The number of passes does, by a few of about 105, so
the time per pass is printed too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from anomri import files, preprocess, run
from anomri.cohorts import phantom
from anomri.methods.itermask3d import IterMask3D
from anomri.report import case
from anomri.run import results
from anomri.scan import Detection, Scan


def timed(times: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    """What `work` returns; its seconds go to `times[name]`."""
    begun = time.perf_counter()
    out = work()
    times[name] = time.perf_counter() - begun
    return out


def once(width: int, spacing: float, folder: Path) -> dict[str, float]:
    """Seconds of each part of one detect."""
    torch.manual_seed(0)
    method = IterMask3D(width=width)
    method.preset_arguments = {"spacing": spacing}
    method.data = {"spacing_mm": [spacing] * 3, "sequences": ["T1w"]}
    path = folder / "template_T1w.nii.gz"
    if not path.exists():
        scan = phantom.template_with_lesion()
        files.write_image(path, scan.image[0], scan.grid)
    times: dict[str, float] = {}
    scan: Scan = timed(times, "read", lambda: files.read_scan({"T1w": path}))
    for step in method.pipeline():
        name = preprocess.describe([step])[0].split("(")[0]
        scan = timed(times, name, partial(step, scan))
    found: Detection = timed(times, "detect", partial(method.detect, scan))
    timed(times, "write", partial(results.write, found, run.Place.of("template"), folder, {}))
    timed(times, "page", partial(case.write, found, folder / "page.html"))
    times["whole"] = sum(times.values())
    assert found.trace is not None
    times["passes"] = found.trace.facts["passes"]
    times["seconds a pass"] = times["detect"] / times["passes"]
    return times


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", help="the paper's width, 16, too")
    parser.add_argument("--spacing", type=float, nargs="*", default=[2.0, 1.0])
    given = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        for width in (8, 16) if given.paper else (8,):
            for spacing in given.spacing:
                columns[f"width {width}, {spacing:g} mm"] = once(width, spacing, Path(folder))
    print(f"{'seconds':>16}" + "".join(f"{name:>18}" for name in columns))
    for part in next(iter(columns.values())):
        print(f"{part:>16}" + "".join(f"{times[part]:>18.3f}" for times in columns.values()))


if __name__ == "__main__":
    main()
