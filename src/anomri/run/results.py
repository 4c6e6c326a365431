"""Where a scan's results lie, as BIDS derivatives, and how they are written there and read back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomri import files
from anomri.errors import BadCall, BadInput
from anomri.method import versions
from anomri.preprocess import space
from anomri.scan import Detection, Scan, Trace

Sizes = dict[str, int]
"""What was written: path below the output folder to its bytes."""

ENTITIES = ("ses", "task", "acq", "ce", "rec", "dir", "run", "echo", "flip", "inv", "mt", "part")


@dataclass(frozen=True)
class Place:
    """Where a scan's results lie: `label` such as `sub-01_ses-02`, and the folder of its images."""

    label: str
    folder: str

    @classmethod
    def of(cls, id: str) -> Place:
        """From a scan's id; what is not a BIDS name becomes `sub-<letters and digits>`."""
        if not _is_bids(id):
            plain = re.sub(r"[^A-Za-z0-9]", "", id.removeprefix("sub-"))
            if not plain:
                raise BadCall(f"scan id '{id}' has no letter or digit to name results by; give it another with --id")
            id = f"sub-{plain}"
        parts = id.split("_")
        session = [p for p in parts[1:2] if p.startswith("ses-")]
        return cls(id, "/".join([parts[0], *session, "anat"]))

    def image(self, entities: str, suffix: str) -> str:
        """An image's path below the output folder."""
        return f"{self.folder}/{self.label}_{entities}_{suffix}.nii.gz"

    @property
    def page(self) -> str:
        """The page's path below the output folder."""
        return f"{self.label}.html"

    @property
    def log(self) -> str:
        """The log's path below the output folder."""
        return f"logs/{self.label}.json"


def _is_bids(id: str) -> bool:
    """Whether an id is a subject with BIDS entities, each at most once and in BIDS order."""
    if not re.fullmatch(rf"sub-[A-Za-z0-9]+(_({'|'.join(ENTITIES)})-[A-Za-z0-9]+)*", id):
        return False
    places = [ENTITIES.index(part.split("-")[0]) for part in id.split("_")[1:]]
    return all(a < b for a, b in pairwise(places))


def prepare(out: Path) -> None:
    """Makes a BIDS derivative data set of a folder: its description, and what a validator shall ignore."""
    about = {
        "Name": "anomri results",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "anomri", "Version": versions()["anomri"]}],
    }
    if not (out / "dataset_description.json").exists():
        files.write_json(out / "dataset_description.json", about)
    if not (out / ".bidsignore").exists():
        files.write_text(out / ".bidsignore", "*.html\ngroup_*.tsv\nlogs/\n")


def put(out: Path, path: str, volume: NDArray[Any], scan: Scan, about: Mapping[str, Any], written: Sizes) -> None:
    """Writes an image on the scan's native grid with its sidecar, and notes both in `written`."""
    names = [Path(p).name for p in scan.origin.paths]
    side = path.removesuffix(".nii.gz") + ".json"
    for each in (path, side):
        # Noted first, so that what a failure leaves can be taken away.
        written[each] = -1
    files.write_image(out / path, volume, scan.native, scan.origin)
    files.write_json(out / side, {**about, "Sources": names, "SpatialReference": "orig"})
    for each in (path, side):
        written[each] = (out / each).stat().st_size


def write(detection: Detection, place: Place, out: Path, written: Sizes) -> None:
    """Writes a detection's images in the input's own space, with sidecars, and notes them in `written` as it goes."""
    scan, name = detection.scan, str(detection.facts.get("method", "method"))
    brain = space.to_native(scan, scan.brain, "mask")
    facts = {_camel(k): v for k, v in detection.facts.items()}
    story = {"Score": detection.score, "Scores": dict(detection.scores), **_shrinking(detection.trace), **facts}
    unit = detection.facts.get("map_unit", "arbitrary")
    first = scan.sequences[0]

    def save(entities: str, suffix: str, volume: NDArray[Any], **about: Any) -> None:
        put(out, place.image(f"space-orig_{entities}", suffix), volume, scan, about, written)

    anomaly = np.where(brain, space.to_native(scan, detection.map, "map"), 0)
    told = "Anomaly map: higher is more abnormal, 0 outside the brain"
    save(f"desc-{name}Anomaly", first, anomaly, Description=told, Units=unit, SkullStripped=True, **story)
    save("desc-brain", "mask", brain, Description="Brain, as it was used", Type="Brain")
    if detection.mask is not None:
        mask = space.to_native(scan, detection.mask, "mask") & brain
        told = "What the method calls abnormal; not a diagnosis"
        save(f"label-lesion_desc-{name}", "mask", mask, Description=told, Type="Lesion", **story)
    if detection.healthy is not None:
        told = "The scan as it would be if it were healthy, in the input's intensities, 0 outside the brain"
        for channel, sequence in enumerate(scan.sequences):
            healthy = np.where(brain, space.to_native(scan, detection.healthy[channel], "image", channel), 0)
            save(f"desc-{name}Recon", sequence, healthy, Description=told, SkullStripped=True)
    if detection.trace is not None:
        order = np.where(brain, space.to_native(scan, detection.trace.order, "label"), 0).astype(np.uint8)
        told = "The last step at which a voxel was still masked; thresholding it at t gives the mask of step t"
        save(f"desc-{name}Order", first, order, Description=told, SkullStripped=True)


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _shrinking(trace: Trace | None) -> dict[str, Any]:
    """What a sidecar says of a trace."""
    if trace is None:
        return {}
    facts = trace.facts
    end = (facts.get("stops") or {}).get("mask") or {}
    names = {
        "fit": "Fit",
        "r2": "R2",
        "a": "TangentA",
        "b": "TangentB",
        "T": "FitPoints",
        "slope": "Slope",
        "stops": "Stops",
    }
    return {
        "Tau": end.get("tau"),
        "Gamma": end.get("gamma"),
        "StopStep": end.get("t"),
        **{said: facts.get(key) for key, said in names.items()},
        "TauCurve": trace.tau,
    }


def read(out: str | Path, label: str, *, images: str | Path | None = None, spacing: float = 2.0) -> Detection:
    """A detection as it was written, on a RAS grid of `spacing` mm in the input's field of view.

    Parameters
    ----------
    images : where the input lies: a file, or a folder that is searched with all its subfolders; the results folder where None.
        Results name their inputs, but never say where those lie: the hash of the content tells the right one

    Raises `BadInput` where the scan's log, its outputs or the input are not there.
    """
    out, place = Path(out), Place.of(label)
    about = files.read_json(out / place.log)
    if about["row"].get("status") != "done" or "facts" not in about:
        raise BadInput(f"scan '{label}' has no results: {about['row'].get('message') or 'it was only preprocessed'}")
    name, row = str(about["facts"]["method"]), about["row"]
    where = Path(images) if images is not None else out
    found = {sequence: find_input(where, source) for sequence, source in about["inputs"].items() if sequence != "brain"}
    brain = out / place.image("space-orig_desc-brain", "mask")
    scan = files.read_scan(found, id=str(row["id"]), brain=brain)
    moved = space.resample(space.reorient(scan), spacing)

    def onto(entities: str, suffix: str, kind: space.Kind) -> Any:
        path = place.image(f"space-orig_{entities}", suffix)
        if path not in about["outputs"]:
            return None
        volume: NDArray[Any] = files.read_image(out / path)[0]
        volume = volume > 0.5 if kind == "mask" else volume
        return space.between(volume, scan.grid, moved.grid, kind)

    first = scan.sequences[0]
    healthy = [onto(f"desc-{name}Recon", sequence, "image") for sequence in scan.sequences]
    order, trace = onto(f"desc-{name}Order", first, "label"), None
    if order is not None:
        trace = Trace(
            order.astype(np.uint8), np.array(about["trace"]["tau"], dtype=np.float32), about["trace"]["facts"]
        )
    return Detection(
        moved.with_(image=np.where(moved.brain, moved.image, 0)),
        np.where(moved.brain, onto(f"desc-{name}Anomaly", first, "map"), 0).astype(np.float32),
        about["scores"],
        onto(f"label-lesion_desc-{name}", "mask", "mask"),
        None if healthy[0] is None else np.where(moved.brain, np.stack(healthy), 0).astype(np.float32),
        trace,
        about["facts"],
    )


def find_input(where: Path, source: Mapping[str, str]) -> Path:
    """The input file of that name and content at or below a path; raises `BadInput` where there is none."""
    near = [where] if where.is_file() else sorted(where.rglob(source["file"]))
    for path in near:
        if path.is_file() and files.sha256(path) == source["sha256"]:
            return path
    said = "has another content than the one that was looked at" if near else "is not there"
    raise BadInput(
        f"input '{source['file']}' {said} (looked in '{where}'); name the folder that holds it with --images FOLDER"
    )


def write_prepared(scan: Scan, place: Place, out: Path, steps: list[str], written: Sizes) -> None:
    """Writes a preprocessed scan on its own grid, with its brain and, where it has one, its lesion mask."""
    on = "space-orig_res-" + f"{scan.spacing[0]:.3g}mm".replace(".", "p")
    spacing = " x ".join(f"{s:.3g}" for s in scan.spacing)
    about = {"Resolution": f"{spacing} mm", "Steps": steps}
    # Without a history its native grid is its own.
    scan = scan.with_(history=())
    for channel, sequence in enumerate(scan.sequences):
        said = {**about, "SkullStripped": scan.stripped}
        put(out, place.image(f"{on}_desc-preproc", sequence), scan.image[channel], scan, said, written)
    put(out, place.image(f"{on}_desc-brain", "mask"), scan.brain, scan, {**about, "Type": "Brain"}, written)
    if scan.lesion is not None:
        put(out, place.image(f"{on}_label-lesion", "mask"), scan.lesion, scan, {**about, "Type": "Lesion"}, written)
