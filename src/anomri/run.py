"""A method over a cohort: results as BIDS derivatives, resumable, one failure never the end of the others.

Results lie in the input's own space. `logs/<label>.json` is written last for each scan: it says what was done under which
configuration, so that a second run skips what is complete, and any shard or machine can gather the table.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomri import files, preprocess
from anomri.cohort import Cohort, Entry, Step
from anomri.errors import AnomriError, BadCall, BadInput
from anomri.method import Method, versions
from anomri.preprocess import space
from anomri.scan import Detection, Grid, Scan, Trace

Row = dict[str, Any]
Page = Callable[[Detection, Path], None]

ENTITIES = ("ses", "task", "acq", "ce", "rec", "dir", "run", "echo", "flip", "inv", "mt", "part")
COLUMNS = ("id", "status", "score", "mask_ml", "mean_error", "tau", "gamma", "fit", "r2", "brain_ml", "seconds", "message")


@dataclass(frozen=True)
class Place:
    """Where a scan's results lie: `label` such as `sub-01_ses-02`, and the folder of its images."""

    label: str
    folder: str

    @classmethod
    def of(cls, id: str) -> Place:
        """From a scan's id; what is not a BIDS name becomes `sub-<letters and digits>`."""
        pattern = rf"sub-[A-Za-z0-9]+(_({'|'.join(ENTITIES)})-[A-Za-z0-9]+)*"
        if not re.fullmatch(pattern, id):
            plain = re.sub(r"[^A-Za-z0-9]", "", id.removeprefix("sub-"))
            if not plain:
                raise BadCall(f"scan id '{id}' has no letter or digit to name results by; give it another with --id")
            id = f"sub-{plain}"
        parts = id.split("_")
        session = [p for p in parts[1:2] if p.startswith("ses-")]
        return cls(id, "/".join([parts[0], *session, "anat"]))

    def image(self, entities: str, suffix: str) -> str:
        """A result's path below the output folder."""
        return f"{self.folder}/{self.label}_{entities}_{suffix}.nii.gz"


def detect(
    method: Method,
    cohort: Cohort,
    out: str | Path,
    *,
    steps: Iterable[Step] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    page: Page | None = None,
    progress: Callable[[Row], None] | None = None,
    shard: tuple[int, int] = (1, 1),
) -> list[Row]:
    """Runs `method.detect` on every scan of a cohort that is not done yet, and writes what it finds.

    Parameters
    ----------
    cohort : raw scans, as read from files
    steps : preprocessing; the method's own where None
    page : writes a page for a detection to a path
    progress : called with each scan's row as it ends
    shard : (i, n), from 1: only every n-th scan, beginning with the i-th

    Returns a row per scan of this shard, in order: status is done, skipped or failed, with the reason in `message`.
    """
    out = Path(out)
    i, n = shard
    if not 1 <= i <= n:
        raise BadCall(f"shard {i}/{n} does not exist; use 1/{n} to {n}/{n}")
    pipeline = tuple(method.pipeline() if steps is None else steps)
    places = [Place.of(id) for id in cohort.ids]
    twice = [p.label for k, p in enumerate(places) if p in places[:k]]
    if twice:
        raise BadCall(f"two scans of the cohort would both be written as '{twice[0]}'; rename one (ids keep only letters and digits)")
    prepare(out)
    rows = []
    for k in range(i - 1, len(cohort), n):
        row = _one(method, cohort, k, places[k], out, pipeline, seed, overwrite, page)
        rows.append(row)
        if progress:
            progress(row)
    return rows


def _one(method: Method, cohort: Cohort, k: int, place: Place, out: Path, pipeline: Sequence[Step], seed: int, overwrite: bool, page: Page | None) -> Row:
    log = out / "logs" / f"{place.label}.json"
    row: Row = {"id": cohort.ids[k], "label": place.label}
    try:
        key = _configuration(method, cohort.entries[k], pipeline, seed)
        if not overwrite and (old := complete(out, log, key)) is not None and (page is None or (out / f"{place.label}.html").exists()):
            return {**old["row"], "status": "skipped"}
        begun = time.perf_counter()
        scan = preprocess.run(pipeline, cohort[k])
        prepared = time.perf_counter()
        detection = method.detect(scan, seed=seed)
        detected = time.perf_counter()
        seconds = {"preprocess": prepared - begun, "detect": detected - prepared}
        facts = {**detection.facts, "preprocessing": preprocess.describe(pipeline), "configuration": key, "seconds": seconds}
        detection = Detection(scan, detection.map, detection.scores, detection.mask, detection.healthy, detection.trace, facts)
        written = write(detection, place, out)
        seconds["write"] = time.perf_counter() - detected
        if page is not None:
            page(detection, out / f"{place.label}.html")
            seconds["page"] = time.perf_counter() - detected - seconds["write"]
        row |= _summary(detection, sum(seconds.values()))
        files.write_json(log, {"row": row, "configuration": key, "outputs": written, "sources": _names(cohort.entries[k]), "facts": facts, "trace": _trace_facts(detection)})
    except AnomriError as error:
        row |= {"status": "failed", "message": str(error)}
        _note_failure(log, row, None)
    except Exception as error:  # noqa: BLE001 - one scan's trouble must not end a cohort; the log keeps the whole story
        row |= {"status": "failed", "message": f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:200]} (details in {log.name}; please report it)"}
        _note_failure(log, row, traceback.format_exc())
    return row


def _note_failure(log: Path, row: Row, details: str | None) -> None:
    try:
        files.write_json(log, {"row": row, **({"traceback": details} if details else {})})
    except AnomriError as error:
        row["message"] += f" (and its log was not written: {error})"


def _names(entry: Entry | Scan) -> list[str]:
    return [str(p) for p in (entry.images.values() if isinstance(entry, Entry) else entry.origin.paths)]


def _configuration(method: Method, entry: Entry | Scan, pipeline: Sequence[Step], seed: int) -> str:
    """A hash of all that a result depends on: method, weights, preprocessing, seed, version, and the inputs' content."""
    if isinstance(entry, Entry):
        inputs = [files.sha256(p) for p in (*entry.images.values(), *([entry.brain] if entry.brain else []))]
    else:
        inputs = [hashlib.sha256(entry.image.tobytes()).hexdigest()]
    about = {
        "method": method.name,
        "arguments": method.arguments,
        "weights": method.weights_sha256,
        "threshold": method.threshold,
        "preprocessing": preprocess.describe(pipeline),
        "seed": seed,
        "version": versions()["anomri"],
        "inputs": inputs,
    }
    return hashlib.sha256(json.dumps(files.plain(about), sort_keys=True).encode()).hexdigest()


def complete(out: Path, log: Path, key: str) -> dict[str, Any] | None:
    """A scan's log where it is done under this configuration and every output is there in its full size; else None."""
    if not log.exists():
        return None
    try:
        about = files.read_json(log)
        whole = all((out / name).stat().st_size == size for name, size in about["outputs"].items())
        return about if about["configuration"] == key and about["row"]["status"] == "done" and whole else None
    except (AnomriError, KeyError, OSError):
        return None


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
        files.write_text(out / ".bidsignore", "*.html\ngroup_*.tsv\ngroup_*.json\nlogs/\n")


def write(detection: Detection, place: Place, out: Path) -> dict[str, int]:
    """Writes a detection's images in the input's own space, with sidecars; returns path below `out` and size of each."""
    scan, name = detection.scan, str(detection.facts.get("method", "method"))
    native, sizes = scan.native, {}
    brain = space.to_native(scan, scan.brain, "mask")
    shared = {"Sources": [Path(p).name for p in scan.origin.paths], "SpatialReference": "orig"}
    story = {**_trace_facts(detection), "Scores": dict(detection.scores), **{_camel(k): v for k, v in detection.facts.items()}}

    def put(entities: str, suffix: str, volume: Any, about: Mapping[str, Any]) -> None:
        path = place.image(f"space-orig_{entities}", suffix)
        files.write_image(out / path, volume, native, scan.origin)
        side = path.removesuffix(".nii.gz") + ".json"
        files.write_json(out / side, {**about, **shared})
        for each in (path, side):
            sizes[each] = (out / each).stat().st_size

    sequence = scan.sequences[0]
    anomaly = np.where(brain, space.to_native(scan, detection.map, "map"), 0)
    put(f"desc-{name}Anomaly", sequence, anomaly, {"Description": "Anomaly map: higher is more abnormal, 0 outside the brain", "Units": "squared normalised intensity", "SkullStripped": True, **story})
    put("desc-brain", "mask", brain, {"Description": "Brain, as it was used", "Type": "Brain"})
    if detection.mask is not None:
        mask = space.to_native(scan, detection.mask, "mask") & brain
        put(f"label-lesion_desc-{name}", "mask", mask, {"Description": "What the method calls abnormal; not a diagnosis", "Type": "Lesion", **story})
    if detection.healthy is not None:
        for channel, sequence in enumerate(scan.sequences):
            healthy = np.where(brain, space.to_native(scan, detection.healthy[channel], "image"), 0)
            put(f"desc-{name}Recon", sequence, healthy, {"Description": "The scan as it would be if it were healthy, in the input's intensities", "SkullStripped": True})
    if detection.trace is not None:
        order = space.to_native(scan, detection.trace.order, "label")
        put(f"desc-{name}Order", scan.sequences[0], order, {"Description": "The last step at which a voxel was still masked; thresholding it at t gives the mask of step t", "SkullStripped": True})
    return sizes


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _trace_facts(detection: Detection) -> dict[str, Any]:
    if detection.trace is None:
        return {}
    facts = detection.trace.facts
    end = facts["stops"]["mask"]
    return {
        "Tau": end["tau"], "Gamma": end["gamma"], "StopStep": end["t"], "Fit": facts["fit"], "R2": facts["r2"], "TangentA": facts["a"],
        "TangentB": facts["b"], "Stops": facts["stops"], "TauCurve": detection.trace.tau, "Slope": facts["slope"], "FitPoints": facts["T"],
    }  # fmt: skip


def _summary(detection: Detection, seconds: float) -> Row:
    scan, trace = detection.scan, _trace_facts(detection)
    return {
        "status": "done",
        "score": detection.score,
        "mask_ml": None if detection.mask is None else float(detection.mask.sum()) * scan.voxel_ml,
        **{name: value for name, value in detection.scores.items()},
        "tau": trace.get("Tau"),
        "gamma": trace.get("Gamma"),
        "fit": trace.get("Fit"),
        "r2": trace.get("R2"),
        "brain_ml": float(scan.brain.sum()) * scan.voxel_ml,
        "seconds": seconds,
        "message": "",
    }


def prepare_scans(cohort: Cohort, out: str | Path, steps: Iterable[Step], *, overwrite: bool = False, progress: Callable[[Row], None] | None = None) -> list[Row]:
    """Writes every scan of a cohort preprocessed, with its brain mask, as BIDS derivatives; returns a row per scan.

    What is there already is skipped. The folder can be opened as a cohort again (`open_cohort`).
    """
    out, pipeline, rows = Path(out), tuple(steps), []
    prepare(out)
    for k, id in enumerate(cohort.ids):
        row: Row = {"id": id, "status": "done", "message": ""}
        try:
            place = Place.of(id)
            log = out / "logs" / f"{place.label}.json"
            entry = cohort.entries[k]
            inputs = [files.sha256(p) for p in _names(entry)] if isinstance(entry, Entry) else []
            key = hashlib.sha256(json.dumps([preprocess.describe(pipeline), inputs]).encode()).hexdigest()
            if not overwrite and complete(out, log, key) is not None:
                row["status"] = "skipped"
            else:
                scan = preprocess.run(pipeline, cohort[k])
                sizes = _write_prepared(scan, place, out, preprocess.describe(pipeline))
                files.write_json(log, {"row": row, "configuration": key, "outputs": sizes})
        except AnomriError as error:
            row |= {"status": "failed", "message": str(error)}
        rows.append(row)
        if progress:
            progress(row)
    return rows


def _write_prepared(scan: Scan, place: Place, out: Path, described: list[str]) -> dict[str, int]:
    entities = f"res-{scan.spacing[0]:g}mm".replace(".", "p")
    about = {
        "Sources": [Path(p).name for p in scan.origin.paths],
        "SpatialReference": "orig",
        "Resolution": f"{' x '.join(f'{s:g}' for s in scan.spacing)} mm",
        "Steps": described,
    }
    parts: list[tuple[str, Any, dict[str, Any]]] = [
        (place.image(f"space-orig_{entities}_desc-preproc", sequence), scan.image[channel], {"SkullStripped": scan.stripped})
        for channel, sequence in enumerate(scan.sequences)
    ]
    parts.append((place.image(f"space-orig_{entities}_desc-brain", "mask"), scan.brain, {"Type": "Brain"}))
    sizes = {}
    for path, volume, said in parts:
        side = path.removesuffix(".nii.gz") + ".json"
        files.write_image(out / path, volume, scan.grid, scan.origin)
        files.write_json(out / side, {**about, **said})
        sizes |= {each: (out / each).stat().st_size for each in (path, side)}
    return sizes


def sequence_of(out: str | Path) -> str:
    """The sequence of a folder's results, from the first scan that is done; T1w where none is."""
    for log in sorted((Path(out) / "logs").glob("*.json")):
        for name in files.read_json(log).get("outputs", {}):
            if "Anomaly_" in name:
                return str(name).rsplit("_", 1)[1].split(".")[0]
    return "T1w"


def gather(out: str | Path) -> list[Row]:
    """The rows of every scan that was run into a folder, from their logs, failures first; raises `BadInput` where there are none."""
    out = Path(out)
    logs = sorted((out / "logs").glob("*.json"))
    if not logs:
        raise BadInput(f"'{out}' holds no results (no logs/*.json); name the --out folder of 'anomri detect'")
    rows = [files.read_json(log)["row"] for log in logs]
    return sorted(rows, key=lambda row: (row.get("status") != "failed", str(row.get("id"))))


def write_group(out: str | Path, rows: Sequence[Row], sequence: str) -> Path:
    """Writes the cohort's table, a row per scan, and returns its path."""
    path = Path(out) / f"group_{re.sub(r'[^A-Za-z0-9]', '', sequence)}.tsv"
    more = [name for name in dict.fromkeys(k for row in rows for k in row) if name not in COLUMNS]
    files.write_table(path, rows, [*COLUMNS, *more])
    return path


def read(out: str | Path, label: str, *, spacing: float = 2.0) -> Detection:
    """A detection as it was written, on a RAS grid of `spacing` mm in the input's field of view.

    Raises `BadInput` where the scan's log, its outputs or the input image are no longer there.
    """
    out = Path(out)
    place, about = Place.of(label), files.read_json(out / "logs" / f"{label}.json")
    if about["row"].get("status") == "failed":
        raise BadInput(f"scan '{label}' failed: {about['row'].get('message')}")
    name, sources = str(about["facts"]["method"]), about["sources"]
    sequence = next(k for k in about["outputs"] if "Anomaly_" in k).rsplit("_", 1)[1].split(".")[0]
    scan = files.read_scan({sequence: sources[0]}, id=str(about["row"]["id"]), brain=out / place.image("space-orig_desc-brain", "mask"))

    def volume(entities: str, suffix: str) -> Any:
        path = place.image(f"space-orig_{entities}", suffix)
        return files.read_image(out / path)[0] if path in about["outputs"] else None

    moved = space.resample(space.reorient(scan), spacing)

    def onto(data: Any, kind: space.Kind) -> Any:
        return None if data is None else space.between(data, scan.grid, moved.grid, kind)

    healthy = onto(volume(f"desc-{name}Recon", sequence), "image")
    order, mask = volume(f"desc-{name}Order", sequence), _mask_or_none(out / place.image(f"space-orig_label-lesion_desc-{name}", "mask"), scan.grid)
    trace = None
    if order is not None:
        t = about["trace"]
        facts = {"fit": t["Fit"], "r2": t["R2"], "a": t["TangentA"], "b": t["TangentB"], "T": t["FitPoints"], "slope": t["Slope"], "stops": t["Stops"]}
        trace = Trace(onto(order, "label").astype(np.uint8), np.array(t["TauCurve"], dtype=np.float32), facts)
    row = about["row"]
    scores = {"volume_ml": row["volume_ml"]} if "volume_ml" in row else {}
    return Detection(
        moved.with_(image=np.where(moved.brain, moved.image, 0)),
        np.where(moved.brain, onto(volume(f"desc-{name}Anomaly", sequence), "map"), 0).astype(np.float32),
        {**scores, "mean_error": row["mean_error"]},
        None if mask is None else onto(mask, "mask"),
        None if healthy is None else np.where(moved.brain, healthy, 0)[None].astype(np.float32),
        trace,
        about["facts"],
    )


def _mask_or_none(path: Path, grid: Grid) -> Any:
    # An empty mask is a constant image, which read_image refuses for scans.
    if not path.exists():
        return None
    return files.read_mask(path, grid, "lesion")
