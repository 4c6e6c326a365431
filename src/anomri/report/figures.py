"""Figures for papers, READMEs and the documentation; matplotlib's Agg, imported where it is needed.

Figures are made without pyplot: nothing is shown, and no state is left behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anomri.files import replacing
from anomri.report.page import named, number
from anomri.report.turn import Turn, middle
from anomri.scan import Detection, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, TEAL, AMBER, RED, CYAN = "#1c2733", "#5a6875", "#0b6b86", "#9a5b00", "#c2452d", "#3fd8ff"
# The bright part of inferno: its lightness rises evenly, so that the order survives any colour vision.
HEAT = ("#57106e", "#88226a", "#bc3754", "#e35933", "#f98e09", "#f9c932", "#fcffa4")


def save(figure: Figure, path: str | Path, dpi: int = 160) -> None:
    """Writes a figure atomically, in the format of the path's ending (png, svg, pdf).

    Raises `BadInput` where the file cannot be written.
    """
    with replacing(path) as part:
        figure.savefig(part, dpi=dpi, facecolor=figure.get_facecolor())


def tau_curve(trace: Trace) -> Figure:
    """The threshold tau of each step, the fitted curve, and the steps at which mask and score stop.

    The axis ends a little above the stops: the last steps, where only the anomaly is left, have tau many times larger.
    """
    from matplotlib.figure import Figure

    tau, facts = np.asarray(trace.tau, dtype=np.float64), trace.facts
    steps = np.arange(1, len(tau) + 1)
    stops = {name: stop for name, stop in dict(facts.get("stops") or {}).items() if stop and stop.get("t") is not None}
    top = float(tau.max())
    cut = 2.5 * max((float(stop["tau"]) for stop in stops.values()), default=float(np.quantile(tau, 0.9)) / 2)
    clipped = 0 < cut < top
    top = cut if clipped else 1.05 * top or 1.0

    figure = Figure(figsize=(6.4, 3.8), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.plot(steps, tau, ".", color="#8593a0", markersize=5, label="tau of each step", clip_on=True)
    a, b = facts.get("a"), facts.get("b")
    if facts.get("fit") == "tangent" and a and b:
        t = np.linspace(0, min(float(facts.get("T") or len(tau)), 0.999 * np.pi / 2 / b), 600)
        curve = a * np.tan(b * t)
        axes.plot(t[curve <= top], curve[curve <= top], color=RED, linewidth=1.6, label=f"{a:.3g} tan({b:.3g} t)")
    for n, (name, colour) in enumerate((("score", AMBER), ("mask", TEAL))):
        if name not in stops:
            continue
        stop = stops[name]
        left = stop["t"] > 0.6 * len(tau)
        axes.axvline(stop["t"], color=colour, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{name} stops at step {stop['t']} ($\\gamma$ = {stop['gamma']:g})",
            (stop["t"], 1 - 0.075 * n), (-6 if left else 6, -4), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="right" if left else "left", va="top", color=colour, fontsize=9, bbox={"fc": "white", "ec": "none", "pad": 1},
        )  # fmt: skip
    axes.set(xlim=(0, len(tau)), ylim=(0, top), xlabel="step t (mask shrinks by an equal share of the brain)")
    axes.set_ylabel("threshold tau\n(squared normalised intensity)")
    if clipped:
        axes.annotate(f"the last steps go up to {number(float(tau.max()))}", (1, 1), (0, 4), xycoords="axes fraction", textcoords="offset points",
                      ha="right", va="bottom", color=SOFT, fontsize=8)  # fmt: skip
    axes.legend(frameon=False, fontsize=9, loc="center left")
    _quiet(axes)
    return figure


def training_curve(log: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss and healthy validation error of a training, from its log (rows with step, loss, and where there is one, validation).

    The step whose weights are kept, the one with the lowest validation error, is marked.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    steps = [row["step"] for row in log]
    axes.plot(steps, [row["loss"] for row in log], color="#8593a0", linewidth=1.3, label="training")
    judged = [(row["step"], row["validation"]) for row in log if row.get("validation") is not None]
    if judged:
        axes.plot(*zip(*judged, strict=True), color=TEAL, linewidth=1.6, label="validation (healthy scans)")
        step, best = min(judged, key=lambda pair: pair[1])
        axes.plot([step], [best], "o", color=TEAL, markersize=6)
        axes.annotate(
            f"kept: step {step}, {number(best)}",
            (step, best),
            (0, 10),
            textcoords="offset points",
            ha="right",
            color=TEAL,
            fontsize=9,
        )
    axes.set(yscale="log", xlabel="step", ylabel="loss")
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    _quiet(axes)
    return figure


def mosaic(detection: Detection, slices: int = 6) -> Figure:
    """Axial slices from bottom to top: the scan, the healthy image, the map, and the outline of the mask, where there are such.

    Radiological convention: the patient's right is at the left. One of the slices goes through the middle of the mask's
    largest component.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    scan = detection.scan
    turn = Turn.to_ras(scan.affine)
    brain = turn(scan.brain) if scan.brain.any() else np.ones_like(turn(scan.brain))
    box = tuple(slice(max(0, int(n.min()) - 1), int(n.max()) + 2) for n in np.nonzero(brain))
    brain = brain[box]
    image = turn(scan.image[0])[box]
    values = turn(detection.map)[box]
    mask = None if detection.mask is None else turn(detection.mask)[box]
    spacing = np.sqrt((turn.affine(scan.affine, scan.grid.shape)[:3, :3] ** 2).sum(axis=0))
    black, white = np.percentile(image[brain], (0.2, 99.8))
    top = float(np.percentile(values[brain], 99.9))
    floor = _drawn_from(detection, values[brain])

    layers = np.linspace(0.18, 0.9, slices) * brain.shape[2]
    shown = [int(k) for k in layers]
    if mask is not None and mask.any():
        k = middle(mask, values)[2]
        shown[int(np.abs(np.asarray(shown) - k).argmin())] = k

    rows = [
        "scan",
        *(["healthy"] if detection.healthy is not None else []),
        "map",
        *(["mask"] if mask is not None else []),
    ]
    tall = brain.shape[1] * spacing[1] / (brain.shape[0] * spacing[0])
    # Inches: slices that touch, with room for words at the left and above, and for the colour bar at the right.
    side, left, right, above, below = 1.5, 0.35, 0.75, 0.36, 0.1
    wide, high = left + side * slices + right, above + side * tall * len(rows) + below
    figure = Figure(figsize=(wide, high), facecolor="#0e1216")
    grid = figure.subplots(len(rows), slices, squeeze=False, gridspec_kw={
        "left": left / wide, "right": 1 - right / wide, "bottom": below / high, "top": 1 - above / high, "wspace": 0, "hspace": 0,
    })  # fmt: skip
    heat = LinearSegmentedColormap.from_list("heat", HEAT)
    drawn: Any = None
    for row, kind in enumerate(rows):
        back = turn(detection.healthy[0])[box] if kind == "healthy" and detection.healthy is not None else image
        for column, k in enumerate(shown):
            axes = grid[row, column]
            axes.set_axis_off()
            look: dict[str, Any] = {"origin": "lower", "aspect": float(spacing[1] / spacing[0])}
            grey = np.where(brain[:, :, k] | (back[:, :, k] != 0), back[:, :, k], black)
            axes.imshow(_flat(grey), cmap="gray", vmin=black, vmax=white, interpolation="bilinear", **look)
            if kind == "map":
                over = np.ma.masked_where(
                    ~(brain[:, :, k] & (values[:, :, k] >= floor)), np.sqrt(np.maximum(values[:, :, k], 0))
                )
                drawn = axes.imshow(
                    _flat(over), cmap=heat, vmin=0, vmax=top**0.5 or 1, alpha=0.85, interpolation="nearest", **look
                )
            if kind == "mask" and mask is not None:
                _outline(axes, _flat(mask[:, :, k]))
            axes.set(xlim=(-0.5, brain.shape[0] - 0.5), ylim=(-0.5, brain.shape[1] - 0.5))
            if column == 0:
                axes.text(
                    -0.08,
                    0.5,
                    kind,
                    rotation=90,
                    color="#c9d3da",
                    fontsize=10,
                    ha="center",
                    va="center",
                    transform=axes.transAxes,
                )
            if row == 0 and column == 0:
                axes.text(
                    0.02, 0.5, "R", color="#ffd479", fontsize=8, weight="bold", va="center", transform=axes.transAxes
                )
            if row == 0 and column == slices - 1:
                axes.text(
                    0.98,
                    0.5,
                    "L",
                    color="#ffd479",
                    fontsize=8,
                    weight="bold",
                    va="center",
                    ha="right",
                    transform=axes.transAxes,
                )
    if drawn is not None:
        place = grid[rows.index("map"), -1].get_position()
        bar = figure.colorbar(
            drawn,
            cax=figure.add_axes(
                (1 - (right - 0.12) / wide, place.y0 + 0.08 * place.height, 0.11 / wide, 0.84 * place.height)
            ),
        )
        ticks = np.linspace(0, top**0.5 or 1, 4)
        bar.set_ticks(list(ticks), labels=[f"{t * t:.2g}" for t in ticks])
        bar.ax.tick_params(colors="#c9d3da", labelsize=8, length=2)
        bar.outline.set_visible(False)
    figure.text(left / wide, 1 - 0.18 / high, _caption(detection), color="#e8edf0", fontsize=10, va="center")
    return figure


def _drawn_from(detection: Detection, values: NDArray[Any]) -> float:
    stops = dict(detection.trace.facts.get("stops") or {}) if detection.trace is not None else {}
    told = (stops.get("mask") or {}).get("tau") or detection.facts.get("threshold")
    return float(told) if isinstance(told, int | float) else float(np.percentile(values, 95))


def _flat(slice_: NDArray[Any]) -> NDArray[Any]:
    """`(I, J)` as rows from posterior to anterior and columns from right to left."""
    return np.asanyarray(slice_[::-1].T)


def _outline(axes: Axes, mask: NDArray[np.bool_]) -> None:
    """Lines along the edges of voxels, so that what is drawn is the mask itself."""
    from matplotlib.collections import LineCollection

    padded = np.pad(mask, 1)
    lines = [((x - 1.5, y - 0.5), (x - 0.5, y - 0.5)) for y, x in np.argwhere(padded[1:] != padded[:-1])]
    lines += [((x - 0.5, y - 1.5), (x - 0.5, y - 0.5)) for y, x in np.argwhere(padded[:, 1:] != padded[:, :-1])]
    for colour, width in (("black", 2.2), (CYAN, 1.1)):
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, capstyle="projecting"))


def _caption(detection: Detection) -> str:
    parts = [
        " ".join((*named(name)[:1], number(value), named(name)[1])).strip() for name, value in detection.scores.items()
    ]
    if detection.mask is not None:
        parts.append(f"mask {number(float(detection.mask.sum()) * detection.scan.voxel_ml)} ml")
    return f"{detection.scan.id}:  {',  '.join(parts)}".replace("$", r"\$")


def _quiet(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9aa7b0")
    axes.tick_params(colors=SOFT, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis="y", color="#e6ebee", linewidth=0.8)
    axes.set_axisbelow(True)
