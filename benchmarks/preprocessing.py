"""Seconds of preprocessing a scan at 1 mm, step by step, without brain extraction, N4 and registration.

Command:  python benchmarks/preprocessing.py     (about half a minute on two cores)

A healthy phantom, stripped, 288 x 288 x 181 voxels of 0.87 x 0.87 x 1 mm in a .nii.gz file stored in LPS order, as a scanner's
often is, goes through IterMask3D's pipeline; "stripped" looks for the brain in the constant background. Reading is counted. The
promise is 3 s.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from anomri import files, preprocess
from anomri.cohorts import phantom
from anomri.preprocess import space
from anomri.scan import Grid, Scan
from side_by_side import Goal, main, quickest

SHAPE, SPACING = (288, 288, 181), (0.87, 0.87, 1.0)
LIMIT = 3.0


def write(path: Path) -> None:
    """The phantom, on its scanner's grid."""
    scan = phantom.healthy(1)[0]
    middle = scan.affine @ [*((np.array(scan.grid.shape) - 1) / 2), 1]
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    grid = Grid(SHAPE, affine)
    moved = space.onto(scan, grid)
    files.write_image(path, np.rint(moved.image[0] * (1000 / moved.image.max())).astype(np.int16), grid)


def goals(turns: int = 3) -> list[Goal]:
    """The whole within its limit; its steps without one of their own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan_T1w.nii.gz"
        write(path)
        steps = preprocess.preset("itermask3d", spacing=1.0, strip="stripped")

        def whole() -> Scan:
            return preprocess.run(steps, files.read_scan({"T1w": path}))

        ((taken, done),) = quickest([whole], turns)
        found = [Goal("preprocessing", taken, LIMIT, 1.0, note=f"to {' x '.join(map(str, done.grid.shape))}")]
        ((taken, scan),) = quickest([lambda: files.read_scan({"T1w": path})], turns)
    parts = {"read": taken}
    for step, said in zip(steps, preprocess.describe(steps), strict=True):
        ((parts[said.split("(")[0]], scan),) = quickest([partial(step, scan)], turns)
    return found + [
        Goal(f"preprocessing, {name}", taken, LIMIT, 1.0, note="of the same 3 s") for name, taken in parts.items()
    ]


if __name__ == "__main__":
    main(goals, __doc__)
