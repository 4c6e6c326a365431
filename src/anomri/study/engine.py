"""Runs a study: every entrant looks at every scan of every case; a file a row, so that any run goes on where one stopped.

`rows/<entrant>/<case>/<scan>.json` is written last for each detection, under a key of all that the row depends on: the method, its
weights and preprocessing, the case and its change, the scan's files, the seed. Another key, another row. One failure never ends
the others; what failed is tried again by the next run.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomri import files, methods, preprocess
from anomri.cohort import Cohort, Entry, Step
from anomri.errors import AnomriError, BadCall, BadInput, unknown
from anomri.method import Method, versions
from anomri.metrics.histogram import BINS, VoxelHistogram
from anomri.preprocess import brain, space
from anomri.run import hashed, inputs, public, sharded, weights_hash
from anomri.scan import Detection, Scan
from anomri.study.measures import MEASURES, measure
from anomri.study.plan import Case, Entrant, Row, Study
from anomri.study.summary import METRICS
from anomri.train import Job, generator

Told = Callable[[int, str, int], None]
"""Progress: detections done, what was done last, detections in all."""


@dataclass(frozen=True)
class Ready:
    """An entrant that can look: its method, its preprocessing, and what its rows depend on."""

    name: str
    method: Method
    steps: tuple[Step, ...]
    score: str | None
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What a run gives: rows in the study's order, where each row's histogram lies, and what was not run, and why."""

    rows: list[Row]
    remarks: list[str]
    out: Path

    def histogram(self, row: Row) -> VoxelHistogram | None:
        """A row's map as a histogram; None where none was kept."""
        path = _place(self.out, row["entrant"], row["case"], row["scan"]).with_suffix(".safetensors")
        if not path.is_file():
            return None
        kept = files.read_tensors(path)
        whole = {name: np.zeros(BINS, dtype=np.int64) for name in ("lesion", "healthy")}
        for name, counts in whole.items():
            counts[kept[f"{name}_bins"].numpy()] = kept[f"{name}_counts"].numpy()
        return VoxelHistogram(**whole)


def run(
    study: Study,
    out: str | Path,
    *,
    places: Mapping[str, str] = {},
    models: Mapping[str, str] = {},
    only: Iterable[str] = (),
    limit: int | None = None,
    jobs: int = 1,
    device: str = "auto",
    precision: str = "auto",
    overwrite: bool = False,
    shard: tuple[int, int] = (1, 1),
    progress: Told | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Result:
    """Runs what is not done yet of a study, and gives all its rows.

    Parameters
    ----------
    places : variable of a source to the path of its data; else the environment says
    models : entrant to a model folder, or a shipped model's name, instead of the study's own
    only : names of entrants and cases; where it names some of a kind, the others of that kind are left out
    limit : only the first so many scans of each source that is looked at; what is fitted or calibrated takes all
    jobs : so many scans at a time, sharing the processor's threads
    shard : (i, n), from 1: only every n-th scan; another machine does the others in the same folder
    progress, say : told of each detection, and of what else happens

    Raises `BadCall` where a name is unknown or the study would cost more than its `most`, before anything is fitted; `BadInput` where
    nothing can be run.
    """
    out = Path(out)
    only = tuple(only)
    _check(study, only, models)
    names = [n for n in study.entrants if n in only] or list(study.entrants)
    chosen = [c for c in study.cases if c.name in only] or list(study.cases)
    wanted = {c.name for c in chosen} | {n for c in chosen for n in (c.against, c.threshold_from) if n}
    remarks: list[str] = []
    cohorts = _sources(study, [c for c in study.cases if c.name in wanted], places, limit, remarks)
    here = [name for name in names if not _waits(study, name, models, remarks)]
    todo = {name: [c for c in study.cases_of(name) if c.name in wanted and c.source in cohorts] for name in here}
    for name, looked in todo.items():
        cost = sum(len(cohorts[c.source]) for c in looked)
        if study.most is not None and cost > study.most:
            raise BadCall(
                f"study '{study.name}' would cost '{name}' {cost} detections, its limit is {study.most}; "
                "take cases away, or give --limit"
            )
    made = (
        _entrant(study, n, out, places, models, device, precision, remarks, say) for n, looked in todo.items() if looked
    )
    ready = [entrant for entrant in made if entrant]
    todo = {entrant.name: todo[entrant.name] for entrant in ready}
    if not any(todo.values()):
        raise BadInput("nothing of this study can be run here: " + "; ".join(remarks or ["it has no case"]))
    files.write_json(out / "study.json", _described(study, ready, cohorts))
    work = _Work(study, out, cohorts, ready, todo, overwrite)
    rows = work.rows(jobs, shard, progress)
    if limit is not None:
        remarks.append(f"scans after the first {limit} of each source (--limit {limit})")
    if only:
        remarks.append(f"entrants and cases other than {', '.join(only)} (--only)")
    if left := sum(len(cohorts[case.source]) for cases in todo.values() for case in cases) - len(rows):
        remarks.append(f"{left} detections are left for other shards; run once more without --shard to gather them")
    return Result(rows, remarks, out)


def _check(study: Study, only: Sequence[str], models: Mapping[str, str]) -> None:
    """Raises `BadCall` for the first name that nobody knows: hours later would be too late."""
    cases = [case.name for case in study.cases]
    metrics = [name for table in study.tables for name in table.metrics]
    metrics += [plot.y for plot in study.plots if plot.kind == "curve"]
    for kind, names, known in (
        ("measure", study.measures, MEASURES), ("metric", metrics, METRICS),
        ("entrant or case", only, (*study.entrants, *cases)), ("entrant of --model", models, study.entrants),
    ):  # fmt: skip
        for name in names:
            if name not in known:
                raise unknown(kind, name, known)


def _sources(
    study: Study, cases: Sequence[Case], places: Mapping[str, str], limit: int | None, remarks: list[str]
) -> dict[str, Cohort]:
    """The sources of some cases that this machine has."""
    found = {}
    for name in dict.fromkeys(case.source for case in cases):
        source = study.sources[name]
        if source.path(places) is None:
            remarks.append(source.missing())
            continue
        try:
            found[name] = source.open(places)[:limit]
        except AnomriError as error:
            # The page has the remarks, and is shared.
            said = str(error).replace(str(source.path(places)), f"${source.variable}")
            remarks.append(f"source '{name}' cannot be read: {said}")
    return found


def _model(study: Study, name: str, models: Mapping[str, str]) -> str | None:
    """The model that an entrant takes: the one named for it, or for the one whose weights it shares, or the study's."""
    origin = study.weights_of(name)
    return models.get(name) or models.get(origin) or study.entrants[origin].model


def _waits(study: Study, name: str, models: Mapping[str, str], remarks: list[str]) -> bool:
    """Is an entrant's method not in the tool, and no model named in its place? Then a remark says so."""
    origin = study.weights_of(name)
    method = study.entrants[origin].method
    waits = not {name, origin} & set(models) and method not in [m.name for m in methods.METHODS]
    if waits:
        remarks.append(f"{name} waits: method '{method}' is not in the tool yet")
    return waits


def _entrant(
    study: Study,
    name: str,
    out: Path,
    places: Mapping[str, str],
    models: Mapping[str, str],
    device: str,
    precision: str,
    remarks: list[str],
    say: Callable[[str], None],
) -> Ready | None:
    """An entrant's method, loaded or fitted; None, and a remark, where that cannot be."""
    entrant, origin, chosen = study.entrants[name], study.weights_of(name), _model(study, name, models)
    learned = study.entrants[origin]
    try:

        def opened(source: str) -> Cohort:
            return study.sources[source].open(places).map(*method.pipeline())

        if chosen is not None:
            method = methods.load(chosen)
        else:
            method = methods.make(learned.method, **learned.arguments)
            method.preset_arguments = dict(learned.preset)
            method = _fitted(origin, learned, method, opened, out, study.seed, device, say)
        method.device, method.precision = device, precision
        for attribute, value in entrant.set.items():
            if not hasattr(method, attribute):
                raise unknown(f"argument of method '{method.name}':", attribute, method.arguments)
            setattr(method, attribute, value)
        if entrant.calibrate and method.threshold is None:
            say(f"Calibrating {name} on {entrant.calibrate}")
            method.calibrate(opened(entrant.calibrate), seed=study.seed)
        if entrant.then is not None:
            entrant.then(method, opened)
    except AnomriError as error:
        remarks.append(f"{name} cannot compete: {error}")
        return None
    steps = tuple(method.pipeline())
    about = {
        "method": method.name,
        "arguments": method.arguments,
        "weights": method.weights_sha256 or weights_hash(method),
        "threshold": method.threshold,
        "precision": method.precision,
        "preprocessing": preprocess.describe(steps),
        "score": entrant.score,
        "version": versions()["anomri"],
    }
    return Ready(name, method, steps, entrant.score, files.plain(about))


def _fitted(
    name: str,
    entrant: Entrant,
    method: Method,
    opened: Callable[[str], Cohort],
    out: Path,
    seed: int,
    device: str,
    say: Callable[[str], None],
) -> Method:
    """A method fitted on the study's scans, or the one that an earlier run has fitted."""
    if entrant.fit is None:
        raise BadInput(
            f"it has no model; give --model '{name}=FOLDER' with one that 'anomri fit {entrant.method}' wrote"
        )
    folder = out / "models" / _slug(name)
    healthy = opened(entrant.fit)
    validation = opened(entrant.validate) if entrant.validate else None
    asked = files.plain({
        "arguments": method.arguments, "preset": dict(entrant.preset), "seed": seed, "healthy": healthy.digest(),
        "validation": validation.digest() if validation else None,
    })  # fmt: skip
    if (folder / "asked.json").is_file() and files.read_json(folder / "asked.json") == asked:
        return methods.load(folder)
    say(f"Fitting {name} on {len(healthy)} scans of {entrant.fit}; a run that is stopped goes on")
    method.fit(healthy, validation=validation, seed=seed, job=Job(folder / "training", device=device))
    method.save(folder)
    files.write_json(folder / "asked.json", asked)
    return method


class _Work:
    """The detections of a study, grouped by scan: a scan is read once for all that is done with it."""

    def __init__(
        self,
        study: Study,
        out: Path,
        cohorts: Mapping[str, Cohort],
        ready: Sequence[Ready],
        todo: Mapping[str, Sequence[Case]],
        overwrite: bool,
    ) -> None:
        self.study, self.out, self.cohorts, self.overwrite = study, out, cohorts, overwrite
        self.ready, self.todo = ready, todo
        self.digests: dict[tuple[str, int], str] = {}

    def rows(self, jobs: int, shard: tuple[int, int], progress: Told | None) -> list[Row]:
        """Does what is not done, `jobs` scans at a time; all rows, in the study's order."""
        scans = [(s, i) for s, cohort in self.cohorts.items() for i in range(len(cohort))]
        mine = [scans[k] for k in sharded(len(scans), shard)]
        total = sum(self._cost(source) for source, _ in mine)
        done = 0
        before = torch.get_num_threads()
        torch.set_num_threads(max(1, before // jobs))
        try:
            with ThreadPoolExecutor(
                jobs, initializer=torch.set_num_threads, initargs=(max(1, before // jobs),)
            ) as pool:
                for row in _flowing(pool, self._scan, mine):
                    done += 1
                    if progress is not None:
                        progress(done, f"{row['case']}, {row['scan']}", total)
        finally:
            torch.set_num_threads(before)
        return list(self._kept(scans))

    def _cost(self, source: str) -> int:
        return sum(case.source == source for cases in self.todo.values() for case in cases)

    def _kept(self, scans: Iterable[tuple[str, int]]) -> Iterator[Row]:
        """The rows that are done, of this run and of others."""
        scans = list(scans)
        for ready in self.ready:
            for case in self.todo[ready.name]:
                for source, index in scans:
                    if source == case.source:
                        cohort = self.cohorts[source]
                        row = self._old(ready, case, cohort.ids[index], self._digest(source, index))
                        if row is not None:
                            yield row

    def _digest(self, source: str, index: int) -> str:
        """What a scan's files hold, read once a run."""
        if (source, index) not in self.digests:
            entry = self.cohorts[source].entries[index]
            truth: dict[str, Any] = {}
            try:
                if isinstance(entry, Entry):
                    truth = {"lesions": [files.sha256(path) for path in entry.lesions], "labels": entry.lesion_labels}
                self.digests[source, index] = hashed({"read": inputs(entry), **truth})
            except AnomriError:
                # Its rows fail where they read it, and say why.
                self.digests[source, index] = "unreadable"
        return self.digests[source, index]

    def _old(self, ready: Ready, case: Case, scan: str, digest: str) -> Row | None:
        """The row that an earlier run wrote, if it depends on the same."""
        path = _place(self.out, ready.name, case.name, scan)
        if not path.is_file():
            return None
        try:
            kept = files.read_json(path)
        except BadInput:
            return None
        row: Row | None = kept.get("row") if kept.get("key") == self._key(ready, case, digest) else None
        return row

    def _key(self, ready: Ready, case: Case, digest: str) -> str:
        said = {
            "entrant": ready.about, "case": case.name, "facts": dict(case.facts), "change": _named(case.change), "prepared": case.prepared,
            "scan": digest, "seed": self.study.seed, "measures": sorted(self.study.measures), "anomalous": case.anomalous,
            "against": case.against,
        }  # fmt: skip
        return hashed(said)

    def _scan(self, at: tuple[str, int]) -> Iterator[Row]:
        """The rows of one scan."""
        source, index = at
        cohort = self.cohorts[source]
        name, subject, digest = cohort.ids[index], cohort.subjects[index], self._digest(source, index)
        read: dict[str, Scan] = {}
        for ready in self.ready:
            for case in self.todo[ready.name]:
                if case.source != source:
                    continue
                old = None if self.overwrite else self._old(ready, case, name, digest)
                if old is not None and old["status"] == "done":
                    yield old
                    continue
                row: Row = {
                    "entrant": ready.name, "case": case.name, "scan": name, "subject": subject, "status": "done", "message": "",
                    "anomalous": int(case.anomalous), "against": case.against or "", **case.facts,
                }  # fmt: skip
                histogram = None
                begun = time.perf_counter()
                try:
                    found = self._look(ready, case, name, lambda: cohort[index], read)
                    row |= _cells(found, ready.score)
                    columns, histogram = measure(found, tuple(self.study.measures))
                    row |= columns
                except Exception as error:
                    said = str(error) if isinstance(error, AnomriError) else f"{type(error).__name__}: {error}"
                    row |= {"status": "failed", "message": public(" ".join(said.split()), cohort.entries[index])}
                row["seconds"] = time.perf_counter() - begun
                place = _place(self.out, ready.name, case.name, name)
                if histogram is not None:
                    files.write_tensors(place.with_suffix(".safetensors"), _sparse(histogram))
                else:
                    # One of an earlier key would pass for this row's.
                    place.with_suffix(".safetensors").unlink(missing_ok=True)
                files.write_json(place, {"key": self._key(ready, case, digest), "row": row})
                yield files.plain(row)

    def _look(self, ready: Ready, case: Case, name: str, read: Callable[[], Scan], kept: dict[str, Scan]) -> Detection:
        """A detection on the changed scan. What is read and preprocessed for one case serves the next."""
        # The same draws for every case of a scan: severities, sizes and contrasts differ in nothing else.
        rng = generator(self.study.seed, "change", name)
        prepared = f"{ready.about['preprocessing']}"
        if case.change is not None and not case.prepared:
            if "raw" not in kept:
                kept["raw"] = brain.extract(space.reorient(read()))
            scan = preprocess.run(ready.steps, case.change(kept["raw"], rng))
        else:
            if prepared not in kept:
                kept[prepared] = preprocess.run(ready.steps, read())
            scan = kept[prepared] if case.change is None else case.change(kept[prepared], rng)
        return ready.method.detect(scan, seed=self.study.seed)


def _cells(found: Detection, score: str | None) -> Row:
    """The scores of a detection, and how its threshold came to be."""
    scores = dict(found.scores)
    if score is not None and score not in scores:
        raise unknown("score", score, scores)
    row: Row = {"score": scores[score] if score else found.score, **scores}
    if found.trace is not None:
        facts = found.trace.facts
        row |= {"fit": facts["fit"], "r2": facts["r2"], "tau": facts["stops"]["mask"]["tau"]}
    return row


def _flowing(
    pool: ThreadPoolExecutor, each: Callable[[tuple[str, int]], Iterator[Row]], scans: Sequence[tuple[str, int]]
) -> Iterator[Row]:
    """The rows of all scans as they are done, a scan a thread; the first error that is not a row's ends all."""
    import queue

    ready: queue.SimpleQueue[Row | BaseException | None] = queue.SimpleQueue()
    stopped = False

    def work(at: tuple[str, int]) -> None:
        try:
            for row in each(at):
                if stopped:
                    return
                ready.put(row)
        except BaseException as error:
            ready.put(error)
        finally:
            ready.put(None)

    for at in scans:
        pool.submit(work, at)
    left = len(scans)
    try:
        while left:
            got = ready.get()
            if got is None:
                left -= 1
            elif isinstance(got, BaseException):
                raise got
            else:
                yield got
    finally:
        stopped = True
        pool.shutdown(wait=True, cancel_futures=True)


def _sparse(histogram: VoxelHistogram) -> dict[str, torch.Tensor]:
    """The bins that hold something, and how much: a few kB."""
    kept: dict[str, torch.Tensor] = {}
    for name in ("lesion", "healthy"):
        counts = getattr(histogram, name)
        bins = np.flatnonzero(counts).astype(np.int32)
        kept |= {
            f"{name}_bins": torch.from_numpy(bins),
            f"{name}_counts": torch.from_numpy(counts[bins].astype(np.int32)),
        }
    return kept


def _place(out: Path, entrant: str, case: str, scan: str) -> Path:
    return out / "rows" / _slug(entrant) / _slug(case) / f"{_slug(scan)}.json"


def _slug(name: str) -> str:
    """A name as a file name: letters, digits, `_`, `-`; names that would be the same get a piece of their hash."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _named(change: object) -> str:
    """What a change is: its repr where that is the same in every run, else its name."""
    if change is None:
        return ""
    said = repr(change)
    return getattr(change, "__qualname__", type(change).__qualname__) if " at 0x" in said else said


def _described(study: Study, ready: Sequence[Ready], cohorts: Mapping[str, Cohort]) -> dict[str, Any]:
    """What a folder of results is of, for whoever finds it."""
    return {
        "study": study.name,
        "title": study.title,
        "paper": study.paper,
        "seed": study.seed,
        "entrants": {r.name: r.about for r in ready},
        "sources": {name: {"scans": len(cohort), "digest": cohort.digest()} for name, cohort in cohorts.items()},
        "versions": versions(),
    }
