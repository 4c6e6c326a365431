"""The pictures of docs/ that are made of phantoms: what phantoms look like, and what each model of the package does with some.

Command (a minute)
    python benchmarks/pictures.py --out docs/images
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from anomri import methods, preprocess
from anomri.cohorts import phantom
from anomri.report import figures
from anomri.scan import Scan

INK, PAPER, LINE = "white", "black", "#e34948"
LESIONS: tuple[tuple[str, str, float, tuple[str, str]], ...] = (
    ("tumour", "tumour", 40.0, ("hypo", "hyper")),
    ("stroke", "stroke", 40.0, ("hypo", "hyper")),
    ("foci", "white_matter", 4.0, ("hypo", "hyper")),
)
CASES: tuple[tuple[str, str | None, str], ...] = (
    ("nothing done", None, ""),
    ("bright tumour, 20 ml", "tumour", "hyper"),
    ("dark stroke, 20 ml", "stroke", "hypo"),
)


def shown(axes: Axes, volume: NDArray[Any], k: int, title: str = "", **how: Any) -> None:
    """An axial slice, anterior up and left on the right."""
    axes.imshow(np.rot90(volume[:, :, k])[:, ::-1], cmap="gray", **how)
    axes.set_title(title, color=INK, fontsize=7, pad=2)
    axes.set_axis_off()


def outlined(axes: Axes, mask: NDArray[np.bool_], k: int, colour: str) -> None:
    if mask[:, :, k].any():
        axes.contour(np.rot90(mask[:, :, k])[:, ::-1].astype(float), [0.5], colors=colour, linewidths=0.8)


def sheet(rows: int, columns: int) -> tuple[Figure, NDArray[Any]]:
    figure = Figure(figsize=(1.5 * columns, 1.75 * rows), facecolor=PAPER, layout="constrained")
    return figure, np.atleast_2d(figure.subplots(rows, columns))


def slice_of(scan: Scan, share: float = 0.55) -> int:
    """The slice with most of the lesion, or one at a share of the brain's height."""
    if scan.lesion is not None and scan.lesion.any():
        return int(scan.lesion.sum(axis=(0, 1)).argmax())
    at = np.flatnonzero(scan.brain.any(axis=(0, 1)))
    return int(at[0] + share * (at[-1] - at[0]))


def phantoms() -> Figure:
    """Two made subjects in three sequences, and a planted tumour, stroke and white-matter foci."""
    figure, axes = sheet(2, 6)
    for n, scan in enumerate(phantom.healthy(2, sequences=("T1w", "T2w", "FLAIR"), seed=2, spacing=1.0)):
        for c, name in enumerate(scan.sequences):
            shown(axes[0, 3 * n + c], scan.image[c], slice_of(scan), f"{scan.id} {name}")
    healthy = phantom.healthy(3, sequences=("T1w", "FLAIR"), seed=7, spacing=1.0)
    for n, (title, kind, ml, contrast) in enumerate(LESIONS):
        scan = healthy.map(phantom.planted(kind=kind, contrast=contrast, ml=ml))[n]
        for c, name in enumerate(scan.sequences):
            shown(axes[1, 2 * n + c], scan.image[c], slice_of(scan), f"{title}, {contrast[c]} {name}")
        outlined(axes[1, 2 * n], scan.lesion, slice_of(scan), LINE)
    return figure


def card(name: str, sequences: Sequence[str]) -> Figure:
    """What a model does with phantoms of the sequences that it knows: scan, healthy image, map with the outline of the mask."""
    method = methods.load(name)
    figure, axes = sheet(3, len(CASES) * len(sequences))
    for s, sequence in enumerate(sequences):
        healthy = phantom.healthy(1, sequences=(sequence,), seed=11, spacing=1.0)
        for n, (title, kind, contrast) in enumerate(CASES):
            planted = [phantom.planted(kind=kind, contrast=contrast, ml=20.0)] if kind else []
            scan = preprocess.run(method.pipeline(), healthy.map(*planted)[0])
            found = method.detect(scan)
            assert found.mask is not None
            assert found.healthy is not None
            k, column = slice_of(scan), len(CASES) * s + n
            window = {"vmin": -3, "vmax": 3}
            for row, image, said in ((0, scan.image[0], f"{sequence}, {title}"), (1, found.healthy[0], "healthy")):
                shown(axes[row, column], np.where(scan.brain, image, -3), k, said, **window)
            shown(axes[2, column], found.map, k, f"{found.mask.sum() * scan.voxel_ml:.0f} ml marked", vmin=0, vmax=2)
            if scan.lesion is not None:
                outlined(axes[0, column], scan.lesion, k, LINE)
            outlined(axes[2, column], found.mask, k, LINE)
    return figure


def main() -> None:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--out", type=Path, default=Path("docs/images"))
    out = about.parse_args().out
    matplotlib.use("Agg")
    figures.save(phantoms(), out / "phantoms.png", dpi=100)
    for name in methods.shipped():
        (names,) = methods.load(name).learned
        figures.save(card(name, names), out / f"{name}.png", dpi=100)


if __name__ == "__main__":
    main()
