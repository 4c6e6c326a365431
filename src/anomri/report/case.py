"""The page of one scan: its images, map and mask in three planes, how the mask shrank, and what that means.

One HTML file that works without a network. The volumes travel in it as base64 of gzip'd bytes, `(I, J, K)` in C order, RAS+,
cut to the brain's box. Each volume is coded in 8 bits:

- image, healthy: `1 + 254 (x - low) / (high - low)`, 0 where there is nothing to show; one window for both, so that they compare
- map: `1 + 254 sqrt((e - low) / (top - low))` inside the brain, 0 outside: squared errors crowd near 0
- order: the step; mask: 0 or 1

Image codes are kept as differences along k before they are packed, which makes them smaller. All volumes in ml are
counted here, before any coarsening.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomri.files import plain, write_text
from anomri.report.page import named, number, render
from anomri.report.turn import Turn, middle
from anomri.scan import Detection

LIMIT_BYTES = 8_000_000
MARGIN_MM = 4.0
# What a run may know of a file can name a patient; a page names the scan by its id only.
PRIVATE = ("path", "paths", "file", "files", "folder", "origin", "input", "inputs", "output")

Bytes = NDArray[np.uint8]


def write(detection: Detection, path: str | Path) -> None:
    """Writes the page of a detection, atomically: one HTML file of at most 8 MB that works offline.

    Where the page would pass 8 MB, the volumes are drawn at half the resolution, and the page says so. A detection
    without a mask, a healthy image or a trace gets a page without these parts. Raises `BadInput` where the file cannot
    be written.
    """
    view = _view(detection)
    text = _text(detection, view)
    while len(text.encode()) > LIMIT_BYTES and min(view.shape) > 8:
        view = _halved(view)
        text = _text(detection, view)
    write_text(path, text)


# --- what the viewer is given --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """Coded volumes `(I, J, K)` uint8 in RAS order, where they lie, and what was counted on the full grid."""

    volumes: Mapping[str, Bytes]
    affine: NDArray[np.float64]
    facts: Mapping[str, Any]
    factor: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        return next(iter(self.volumes.values())).shape

    @property
    def spacing(self) -> list[float]:
        return [float(n) for n in np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))]


def _view(detection: Detection) -> _View:
    scan, trace = detection.scan, detection.trace
    turned = Turn.to_ras(scan.affine)
    brain = turned(scan.brain)
    image = np.stack([turned(channel) for channel in scan.image])
    healthy = None if detection.healthy is None else np.stack([turned(channel) for channel in detection.healthy])
    affine = turned.affine(scan.affine, scan.grid.shape)
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    inside = brain if brain.any() else np.ones_like(brain)

    box = tuple(
        slice(max(0, int(n.min()) - pad), int(n.max()) + 1 + pad)
        for n, pad in zip(np.nonzero(inside), np.ceil(MARGIN_MM / spacing).astype(int), strict=True)
    )
    affine[:3, 3] = affine[:3, :3] @ [b.start for b in box] + affine[:3, 3]

    volumes: dict[str, Bytes] = {}
    windows = []
    for c, channel in enumerate(image):
        low, high = (float(q) for q in np.percentile(channel[inside], (0.2, 99.8)))
        high = high if high > low else low + 1.0
        windows.append([low, high])
        volumes[f"image{c}"] = _coded(channel, inside | (channel != 0), low, high)[box]
        if healthy is not None:
            volumes[f"healthy{c}"] = _coded(healthy[c], inside | (healthy[c] != 0), low, high)[box]

    values = turned(detection.map)
    low, top = min(0.0, float(values[inside].min())), float(values[inside].max())
    top = top if top > low else low + 1.0
    volumes["map"] = _coded(np.sqrt(np.clip((values - low) / (top - low), 0, 1)), inside, 0.0, 1.0)[box]
    counts = np.bincount(volumes["map"].ravel(), minlength=256)
    counts[0] = 0
    above = np.cumsum(counts[::-1])[::-1] * scan.voxel_ml

    facts: dict[str, Any] = {
        "id": scan.id,
        "sequences": list(scan.sequences),
        "windows": windows,
        "map": {
            "low": low,
            "top": top,
            "unit": _unit(detection),
            "above_ml": [round(float(v), 3) for v in above],
            "bright": int(np.percentile(volumes["map"][volumes["map"] > 0], 99.9)),
        },
        "mask": None,
        "trace": None,
    }
    at = tuple(int(n) for n in np.unravel_index(np.where(inside, values, -np.inf).argmax(), inside.shape))
    if detection.mask is not None:
        mask = turned(detection.mask)
        volumes["mask"] = mask.astype(np.uint8)[box]
        facts["mask"] = {"ml": float(mask.sum() * scan.voxel_ml)}
        if mask.any():
            at = middle(mask, values)
    if trace is not None:
        order = np.where(inside, turned(trace.order), 0).astype(np.uint8)
        volumes["order"] = order[box]
        left = np.bincount(order[inside], minlength=len(trace.tau) + 1)
        known = {name: trace.facts.get(name) for name in ("fit", "a", "b", "T", "r2", "measured")}
        stops = {
            name: stop
            for name, stop in dict(trace.facts.get("stops") or {}).items()
            if stop and stop.get("t") is not None
        }
        facts["trace"] = plain(
            {
                **known,
                "stops": stops,
                "tau": np.asarray(trace.tau, dtype=np.float64),
                "ml": np.round(np.cumsum(left[::-1])[::-1][: len(trace.tau) + 1] * scan.voxel_ml, 3),
            }
        )
    facts["threshold"] = _first_threshold(detection, facts)
    facts["start"] = [int(n) - b.start for n, b in zip(at, box, strict=True)]
    return _View(volumes, affine, facts)


def _coded(x: NDArray[Any], shown: NDArray[np.bool_], low: float, high: float) -> Bytes:
    code = 1 + np.rint(254 * np.clip((x - low) / (high - low), 0, 1))
    return np.where(shown, code, 0).astype(np.uint8)


def _unit(detection: Detection) -> str:
    unit = detection.facts.get("map_unit")
    if isinstance(unit, str):
        return unit
    return "squared normalised intensity" if detection.trace is not None else "the method's own unit"


def _first_threshold(detection: Detection, facts: Mapping[str, Any]) -> int:
    """The code from which the map is drawn at first: the method's own threshold, else the brightest twentieth of the brain."""
    low, top = facts["map"]["low"], facts["map"]["top"]
    stop = (facts["trace"] or {"stops": {}})["stops"].get("mask", {})
    value = stop.get("tau") or detection.facts.get("threshold")
    if isinstance(value, int | float) and low < value < top:
        return int(np.clip(np.rint(1 + 254 * np.sqrt((value - low) / (top - low))), 2, 255))
    above = np.asarray(facts["map"]["above_ml"])
    return int(np.clip(np.argmax(above <= 0.05 * above[1]), 2, 255))


def _halved(view: _View) -> _View:
    """Half the resolution: means of images, and the largest of map, mask and order, so that nothing small vanishes."""

    def blocks(volume: Bytes) -> Bytes:
        volume = np.pad(volume, [(0, n % 2) for n in volume.shape])
        i, j, k = (n // 2 for n in volume.shape)
        return volume.reshape(i, 2, j, 2, k, 2).transpose(0, 2, 4, 1, 3, 5).reshape(i, j, k, 8)

    volumes = {}
    for name, volume in view.volumes.items():
        eight = blocks(volume)
        if name.startswith(("image", "healthy")):
            seen = np.maximum((eight > 0).sum(axis=-1), 1)
            volumes[name] = np.rint(eight.sum(axis=-1) / seen).astype(np.uint8)
        else:
            volumes[name] = eight.max(axis=-1)
    affine = view.affine.copy()
    affine[:3, 3] += view.affine[:3, :3] @ [0.5, 0.5, 0.5]
    affine[:3, :3] *= 2
    facts = {**view.facts, "start": [n // 2 for n in view.facts["start"]]}
    return _View(volumes, affine, facts, view.factor * 2)


def _packed(name: str, volume: Bytes) -> str:
    # mtime 0 and a fixed level: the same detection gives the same page.
    if name.startswith(("image", "healthy")):
        volume = np.diff(volume, axis=2, prepend=np.uint8(0))
    return base64.b64encode(gzip.compress(np.ascontiguousarray(volume).tobytes(), 9, mtime=0)).decode()


# --- what the reader is told ---------------------------------------------------------------------------------------


def _text(detection: Detection, view: _View) -> str:
    trace = view.facts["trace"]
    empty = detection.mask is not None and not bool(detection.mask.any())
    data = {
        **view.facts,
        "shape": list(view.shape),
        "spacing": view.spacing,
        "affine": view.affine.tolist(),
        "factor": view.factor,
        "healthy": "healthy0" in view.volumes,
    }
    scores = [(*named(name), number(value)) for name, value in detection.scores.items()]
    return render(
        "case.html.j2",
        ("viewer.js",),
        id=detection.scan.id,
        method=str(detection.facts.get("method", "")),
        scores=scores,
        mask_ml=None if detection.mask is None else number(view.facts["mask"]["ml"]),
        empty=empty,
        called=detection.facts.get("called", ""),
        healthy=data["healthy"],
        supervised=bool(detection.facts.get("supervised")),
        stop=(trace or {"stops": {}})["stops"].get("mask"),
        trace=trace,
        sequences=detection.scan.sequences,
        drawn="" if view.factor == 1 else " x ".join(f"{s:.2g}" for s in view.spacing),
        facts=_rows(detection),
        data=plain(data),
        volumes={name: _packed(name, volume) for name, volume in view.volumes.items()},
    )


def _rows(detection: Detection) -> list[tuple[str, list[tuple[str, str]]]]:
    """Facts as rows of a table: a name, then one or more (name, value)."""
    scan = detection.scan
    rows: list[tuple[str, list[tuple[str, str]]]] = [
        ("sequences", [("", ", ".join(scan.sequences))]),
        (
            "grid",
            [
                (
                    "",
                    f"{' x '.join(map(str, scan.grid.shape))} voxels of {' x '.join(f'{s:.3g}' for s in scan.spacing)} mm",
                )
            ],
        ),
    ]
    if scan.stripped:
        rows.append(("brain", [("", f"{number(float(scan.brain.sum()) * scan.voxel_ml)} ml")]))
    words = {"weights_sha256": "weights (SHA-256)"}
    for name, value in plain(detection.facts).items():
        if name in PRIVATE:
            continue
        if isinstance(value, Mapping):
            cells = [(k.replace("_", " "), _cell(v)) for k, v in value.items() if k not in PRIVATE]
        else:
            cells = [("", _cell(value))]
        label = words.get(name, name.replace("_", " "))
        rows.append((label, cells or [("", "none")]))
    return rows


def _cell(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_cell(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(v) for v in value)
    return str(value)
