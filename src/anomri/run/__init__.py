"""A method over a cohort: results as BIDS derivatives, resumable, one failure never the end of the others.

Results lie in the input's own space. `logs/<label>.json` is written last for each scan: it says what was done under which
configuration, so that a second run skips what is complete, and any shard or machine can gather the table. Results hold
names and hashes of input files, never where they lie: results folders are shared.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomri import files, preprocess
from anomri.cohort import Cohort, Entry, Step
from anomri.errors import AnomriError, BadCall, BadInput
from anomri.method import Method, versions
from anomri.preprocess import sequence
from anomri.run.flow import Flow
from anomri.run.results import Place, Sizes, prepare, read, write, write_prepared
from anomri.scan import Detection, Scan

__all__ = [
    "Flow",
    "Place",
    "detect",
    "draw",
    "gather",
    "hashed",
    "inputs",
    "places",
    "prepare_scans",
    "public",
    "read",
    "sharded",
    "weights_hash",
    "write_group",
]

Row = dict[str, Any]
Page = Callable[[Detection, Path], None]
Work = Callable[[Callable[[], Scan], Place, Sizes], tuple[Row, dict[str, Any]]]
"""What is done with one scan: reads it, notes what it writes, returns its row's cells and what else its log keeps."""

COLUMNS = (
    "id", "status", "score", "mask_ml", "mean_error", "tau", "gamma", "fit", "r2", "brain_ml", "seconds", "sequence", "message",
)  # fmt: skip


def detect(
    method: Method,
    cohort: Cohort,
    out: str | Path,
    *,
    steps: Iterable[Step] | None = None,
    seed: int = 0,
    jobs: int = 1,
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
    jobs : so many scans are looked at at a time, sharing the processor's threads. Even with one, the next scan is read and
        preprocessed meanwhile, and what was found in the last is written
    page : writes a page for a detection to a path; several threads may call it at once
    progress : called in this thread with each scan's row as it ends
    shard : (i, n), from 1: only every n-th scan, beginning with the i-th

    Returns a row per scan of this shard, in order: status is done, skipped or failed, with the reason in `message`, which also
    says where a scan looks like another sequence than it is called.
    """
    out, flow = Path(out), Flow(jobs)
    pipeline = tuple(method.pipeline() if steps is None else steps)
    described = preprocess.describe(pipeline)
    device, dtype, engine = method.runtime()
    about = {
        "method": method.name,
        "arguments": method.arguments,
        "weights": method.weights_sha256 or weights_hash(method),
        "threshold": method.threshold,
        "precision": method.precision,
        "engine": method.engine,
        "preprocessing": described,
        "seed": seed,
    }

    def look(read: Callable[[], Scan], place: Place, written: Sizes) -> tuple[Row, dict[str, Any]]:
        seconds: dict[str, float] = {}
        with flow.reading:
            scan = read()
            with _timed(seconds, "preprocess"):
                scan = preprocess.run(pipeline, scan)

        def detected() -> Detection:
            with _timed(seconds, "detect"):
                return method.detect(scan, seed=seed)

        found = flow.compute(detected)
        odd = sequence.told(sequence.other_than_said(scan))
        more = {
            "preprocessing": described,
            "seconds": seconds,
            "device": str(device),
            "precision": str(dtype)[6:],
            "engine": engine,
            **({"called": odd} if odd else {}),
        }
        facts = {**found.facts, **more}
        found = Detection(scan, found.map, found.scores, found.mask, found.healthy, found.trace, facts)
        with _timed(seconds, "write"):
            _forget(out, place)
            write(found, place, out, written)
        if page is not None:
            with _timed(seconds, "page"):
                written[place.page] = -1
                page(found, out / place.page)
                written[place.page] = (out / place.page).stat().st_size
        trace = found.trace and {"tau": found.trace.tau, "facts": found.trace.facts}
        row = {**_summary(found, sum(seconds.values())), "message": odd}
        return row, {"scores": found.scores, "facts": facts, "trace": trace}

    run = _Run(cohort, out, about, look, flow, overwrite, needs_page=page is not None)
    return run.rows(shard, progress)


def prepare_scans(
    cohort: Cohort,
    out: str | Path,
    steps: Iterable[Step],
    *,
    jobs: int = 1,
    overwrite: bool = False,
    progress: Callable[[Row], None] | None = None,
    shard: tuple[int, int] = (1, 1),
) -> list[Row]:
    """Writes every scan of a cohort preprocessed, with its masks, as BIDS derivatives; returns a row per scan.

    What is there already is skipped. The folder can be opened as a cohort again (`open_cohort`). With `jobs`, so many scans are
    preprocessed at a time; the next is read and the last is written meanwhile.
    """
    out, pipeline, flow = Path(out), tuple(steps), Flow(jobs)
    described = preprocess.describe(pipeline)

    def work(read: Callable[[], Scan], place: Place, written: Sizes) -> tuple[Row, dict[str, Any]]:
        seconds: dict[str, float] = {}
        with flow.reading:
            scan = read()

        def prepared() -> Scan:
            with _timed(seconds, "preprocess"):
                return preprocess.run(pipeline, scan)

        ready = flow.compute(prepared)
        with _timed(seconds, "write"):
            _forget(out, place)
            write_prepared(ready, place, out, described, written)
        brain = float(ready.brain.sum()) * ready.voxel_ml
        return {"brain_ml": brain, "seconds": sum(seconds.values())}, {}

    return _Run(cohort, out, {"preprocessing": described}, work, flow, overwrite).rows(shard, progress)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - begun


@dataclass(frozen=True)
class _Run:
    """A work over a cohort: what is done already is skipped, what fails is told in its row and log."""

    cohort: Cohort
    out: Path
    about: Mapping[str, Any]
    work: Work
    flow: Flow
    overwrite: bool
    needs_page: bool = False

    def rows(self, shard: tuple[int, int], progress: Callable[[Row], None] | None) -> list[Row]:
        """Does a shard's scans; their rows, in the cohort's order. Raises as `places` does."""
        mine, where = sharded(len(self.cohort), shard), places(self.cohort)
        steps = preprocess.describe(self.cohort.steps)
        about = {**self.about, "steps": steps, "version": versions()["anomri"]}
        prepare(self.out)
        rows: dict[int, Row] = {}

        def told(made: tuple[int, Row]) -> None:
            rows[made[0]] = made[1]
            if progress:
                progress(made[1])

        self.flow.run(mine, lambda k: [(k, self._one(k, where[k], about))], told, ahead=True)
        return [rows[k] for k in mine]

    def _one(self, k: int, place: Place, about: Mapping[str, Any]) -> Row:
        entry, log = self.cohort.entries[k], self.out / place.log
        sequences = entry.images if isinstance(entry, Entry) else entry.sequences
        row: Row = {"id": entry.id, "label": place.label, "sequence": "+".join(sequences)}
        written: Sizes = {}
        try:
            with self.flow.reading:
                read = inputs(entry)
                if (other := _taken(log, row, read)) is not None:
                    said = f"scan '{entry.id}': results of its {other} lie there, those of its {row['sequence']} would replace them; name another --out"
                    # No log: that of the other stays.
                    return {**row, "status": "failed", "message": said}
                key = hashed({**about, "inputs": read})
                old = None if self.overwrite else complete(self.out, place, key)
            if old is not None and (place.page in old["outputs"] or not self.needs_page):
                return {**old["row"], "status": "skipped"}
            cells, more = self.work(lambda: self.cohort[k], place, written)
            row |= {"status": "done", "message": "", **cells}
            files.write_json(log, {"row": row, "configuration": key, "inputs": read, "outputs": written, **more})
        except AnomriError as error:
            _fail(row, str(error), None, entry, self.out, place, written)
        except Exception as error:  # One scan's trouble must not end a cohort; the log keeps the whole story.
            said = " ".join(str(error).split())[:200]
            text = f"unexpected {type(error).__name__}: {said} (details in {place.log}; please report it)"
            _fail(row, text, traceback.format_exc(), entry, self.out, place, written)
        return row


def places(cohort: Cohort) -> list[Place]:
    """Where the results of each scan go; raises `BadCall` where two would be written as one."""
    found = [Place.of(id) for id in cohort.ids]
    first: dict[str, str] = {}
    for id, place in zip(cohort.ids, found, strict=True):
        # Some file systems do not tell capitals.
        other = first.setdefault(place.label.lower(), id)
        if other != id:
            raise BadCall(
                f"scans '{other}' and '{id}' would both be written as '{place.label}'; rename one (only letters and digits count)"
            )
    return found


def _fail(
    row: Row, text: str, details: str | None, entry: Entry | Scan, out: Path, place: Place, written: Iterable[str]
) -> None:
    """Marks a row failed, takes away what the scan has left half done, and notes the reason in its log."""
    message = public(text, entry)
    row |= {"status": "failed", "message": message}
    try:
        for path in written:
            (out / path).unlink(missing_ok=True)
        files.write_json(out / place.log, {"row": row, **({"traceback": public(details, entry)} if details else {})})
    except (AnomriError, OSError) as error:
        row["message"] = f"{message}; nor could its log be written: {public(str(error), entry)}"


def public(text: str, entry: Entry | Scan) -> str:
    """A message without the folders that it names: they may tell who somebody is, and results folders are shared."""
    if isinstance(entry, Entry):
        for path in entry.paths:
            text = text.replace(str(path), Path(path).name)
    text = re.sub(r'File "[^"\n]*?([^"/\\\n]+[/\\][^"/\\\n]+)"', r'File "\1"', text)
    return re.sub(r"'[^'\n]*[/\\]([^'/\\\n]+)'", r"'\1'", text)


def inputs(entry: Entry | Scan) -> dict[str, dict[str, str]]:
    """Name and hash of what is read for a scan, by sequence, and its brain mask."""
    if isinstance(entry, Scan):
        parts = (entry.image, entry.affine, entry.brain)
        content = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
        return {"+".join(entry.sequences): {"file": entry.id, "sha256": content}}
    read = {**entry.images, **({"brain": entry.brain} if entry.brain else {})}
    return {name: {"file": Path(path).name, "sha256": files.sha256(path)} for name, path in read.items()}


def weights_hash(method: Method) -> str:
    """The hash of weights that have not been saved yet."""
    digest = hashlib.sha256()
    for part, net in method.networks().items():
        for name, tensor in net.state_dict().items():
            digest.update(f"{part}.{name}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def sharded(count: int, shard: tuple[int, int]) -> range:
    """Which of so many scans are of shard (i, n): every n-th, from the i-th. Raises `BadCall` where there is no such shard."""
    i, n = shard
    if not 1 <= i <= n:
        raise BadCall(
            f"shard {i}/{n} does not exist; use 1/{n} to {n}/{n}" if n >= 1 else "there must be 1 shard or more"
        )
    return range(i - 1, count, n)


def hashed(content: Mapping[str, Any]) -> str:
    """A hash of what a result depends on."""
    return hashlib.sha256(json.dumps(files.plain(content), sort_keys=True).encode()).hexdigest()


def complete(out: Path, place: Place, key: str) -> dict[str, Any] | None:
    """A scan's log where it is done under this configuration and every output is there in its full size; else None."""
    if not (out / place.log).exists():
        return None
    try:
        about = files.read_json(out / place.log)
        whole = all((out / name).stat().st_size == size for name, size in about["outputs"].items())
        return about if about["configuration"] == key and about["row"]["status"] == "done" and whole else None
    except (AnomriError, KeyError, TypeError, AttributeError, OSError):
        return None


def _taken(log: Path, row: Row, read: Mapping[str, Mapping[str, str]]) -> str | None:
    """The other sequence of a scan of the same name, another file, whose results lie there and would be lost."""
    try:
        old = files.read_json(log) if log.exists() else {}
        there, inputs = old["row"]["sequence"], {file["sha256"] for file in old["inputs"].values()}
    except (AnomriError, AttributeError, KeyError, TypeError):
        return None
    known = inputs & {file["sha256"] for file in read.values()}
    return None if known or there == row["sequence"] else str(there)


def _forget(out: Path, place: Place) -> None:
    """Takes a scan's earlier results away before others are written, so that those of two runs never mix."""
    log = out / place.log
    if log.exists():
        try:
            old = files.read_json(log).get("outputs", {})
        except AnomriError:
            old = {}
        log.unlink()
        for name in old:
            (out / name).unlink(missing_ok=True)


def _summary(detection: Detection, seconds: float) -> Row:
    scan, trace = detection.scan, detection.trace
    facts: Mapping[str, Any] = trace.facts if trace else {}
    end = (facts.get("stops") or {}).get("mask") or {}
    return {
        "score": detection.score,
        "mask_ml": None if detection.mask is None else float(detection.mask.sum()) * scan.voxel_ml,
        **detection.scores,
        "tau": end.get("tau"),
        "gamma": end.get("gamma"),
        "fit": facts.get("fit"),
        "r2": facts.get("r2"),
        "brain_ml": float(scan.brain.sum()) * scan.voxel_ml,
        "seconds": seconds,
    }


def gather(out: str | Path) -> list[Row]:
    """The rows of every scan that was run into a folder, from their logs, failures first.

    Raises `BadInput` where there are none.
    """
    logs = sorted((Path(out) / "logs").glob("*.json"))
    if not logs:
        raise BadInput(f"'{out}' holds no results (no logs/*.json); name the --out folder of 'anomri detect'")
    rows = []
    for log in logs:
        try:
            rows.append(dict(files.read_json(log)["row"]))
        except (AnomriError, KeyError, TypeError, ValueError):
            message = f"its log '{log.name}' is damaged; run 'anomri detect' again"
            rows.append({"id": log.stem, "label": log.stem, "status": "failed", "message": message})
    return sorted(rows, key=lambda row: (row.get("status") != "failed", str(row.get("id"))))


def write_group(out: str | Path, rows: Sequence[Row]) -> Path:
    """Writes the cohort's table, a row per scan, named by the sequences of a scan that is done; returns its path."""
    named = [str(row["sequence"]) for row in rows if row.get("sequence")]
    sequence = re.sub(r"[^A-Za-z0-9]", "", named[-1] if named else "scans")
    more = [name for name in dict.fromkeys(k for row in rows for k in row) if name not in COLUMNS]
    path = Path(out) / f"group_{sequence}.tsv"
    files.write_table(path, rows, [*COLUMNS, *more])
    return path


def draw(out: str | Path, label: str, page: Page, *, images: str | Path | None = None) -> Path:
    """Writes a done scan's page anew and notes it in the scan's log; returns its path. For `images` see `read`."""
    out, place = Path(out), Place.of(label)
    page(read(out, label, images=images), out / place.page)
    about = files.read_json(out / place.log)
    about["outputs"][place.page] = (out / place.page).stat().st_size
    files.write_json(out / place.log, about)
    return out / place.page
