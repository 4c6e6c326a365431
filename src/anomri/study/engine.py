"""Runs a study: every entrant looks at every scan of every case; a file a row, so that any run goes on where one stopped.

`rows/<entrant>/<case>/<scan>.json` is written last for each detection, under a key of all that the row depends on: the method, its
weights and preprocessing, the case and its change, the scan's files, the seed. Another key, another row. One failure never ends
the others; what failed is tried again by the next run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomri import files, preprocess
from anomri.cohort import Cohort, Entry
from anomri.errors import AnomriError, BadCall, BadInput, unknown
from anomri.method import versions
from anomri.metrics.histogram import VoxelHistogram
from anomri.preprocess import brain, space
from anomri.run import Flow, hashed, inputs, public, sharded
from anomri.scan import Detection, Scan
from anomri.study.entrants import Ready, make_ready, waits
from anomri.study.kept import place, read_histogram, write_histogram
from anomri.study.measures import MEASURES, measure
from anomri.study.plan import Case, Row, Study
from anomri.study.summary import METRICS
from anomri.train import generator

Told = Callable[[int, str, int], None]
"""Progress: detections done, what was done last, detections in all."""


@dataclass(frozen=True)
class Result:
    """What a run gives: rows in the study's order, where each row's histogram lies, and what was not run, and why."""

    rows: list[Row]
    remarks: list[str]
    out: Path

    def histogram(self, row: Row) -> VoxelHistogram | None:
        """A row's map as a histogram; None where none was kept."""
        return read_histogram(place(self.out, row["entrant"], row["case"], row["scan"]))


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
    here = [name for name in names if not waits(study, name, models, remarks)]
    todo = {name: [c for c in study.cases_of(name) if c.name in wanted and c.source in cohorts] for name in here}
    for name, looked in todo.items():
        cost = sum(len(cohorts[c.source]) for c in looked)
        if study.most is not None and cost > study.most:
            raise BadCall(
                f"study '{study.name}' would cost '{name}' {cost} detections, its limit is {study.most}; "
                "take cases away, or give --limit"
            )
    made = (
        make_ready(study, n, out, places, models, device, precision, remarks, say)
        for n, looked in todo.items()
        if looked
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
    metrics += [plot.y for plot in study.plots if plot.kind in ("curve", "forest")]
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

        def told(row: Row) -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, f"{row['case']}, {row['scan']}", total)

        Flow(jobs).run(mine, self._scan, told)
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
        path = place(self.out, ready.name, case.name, scan)
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

    def _scan(self, which: tuple[str, int]) -> Iterator[Row]:
        """The rows of one scan."""
        source, index = which
        cohort = self.cohorts[source]
        name, subject, digest = cohort.ids[index], cohort.subjects[index], self._digest(source, index)
        read: dict[str, Scan] = {}
        for case in (case for case in self.study.cases if case.source == source):
            # What a case makes of the scan serves all entrants.
            changed: dict[str, Scan] = {}
            for ready in (ready for ready in self.ready if case in self.todo[ready.name]):
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
                    found = self._look(ready, case, name, lambda: cohort[index], read, changed)
                    row |= {**_cells(found, ready.score), "parameters_million": ready.about["parameters"] / 1e6}
                    columns, histogram = measure(found, tuple(self.study.measures))
                    row |= columns
                except Exception as error:
                    said = str(error) if isinstance(error, AnomriError) else f"{type(error).__name__}: {error}"
                    row |= {"status": "failed", "message": public(" ".join(said.split()), cohort.entries[index])}
                row["seconds"] = time.perf_counter() - begun
                at = place(self.out, ready.name, case.name, name)
                write_histogram(at, histogram)
                files.write_json(at, {"key": self._key(ready, case, digest), "row": row})
                yield files.plain(row)

    def _look(
        self,
        ready: Ready,
        case: Case,
        name: str,
        read: Callable[[], Scan],
        kept: dict[str, Scan],
        changed: dict[str, Scan],
    ) -> Detection:
        """A detection on the changed scan. What is read and preprocessed once serves all cases, what is changed all entrants."""
        prepared = f"{ready.about['preprocessing']}"
        if prepared not in changed:
            # The same draws for every case of a scan: severities, sizes and contrasts differ in nothing else.
            rng = generator(self.study.seed, "change", name)
            if case.change is not None and not case.prepared:
                if "raw" not in kept:
                    kept["raw"] = brain.extract(space.reorient(read()))
                changed[prepared] = preprocess.run(ready.steps, case.change(kept["raw"], rng))
            else:
                if prepared not in kept:
                    kept[prepared] = preprocess.run(ready.steps, read())
                scan = kept[prepared]
                changed[prepared] = scan if case.change is None else case.change(scan, rng)
        return ready.method.detect(changed[prepared], seed=self.study.seed)


def _cells(found: Detection, score: str | None) -> Row:
    """The scores of a detection, and how its threshold came to be."""
    scores = dict(found.scores)
    if score is not None and score not in scores:
        raise unknown("score", score, scores)
    row: Row = {"score": scores[score] if score else found.score, **scores}
    row["seconds_detect"] = found.facts["seconds"]["detect"]
    facts = found.trace.facts if found.trace is not None else {}
    stops = {"tau": facts["stops"]["mask"]["tau"]} if "stops" in facts else {}
    return row | {name: facts[name] for name in ("fit", "r2", "tau") if name in facts} | stops


def _named(change: object) -> str:
    """What a change is: its repr, without where it lies in memory, which differs from run to run."""
    if change is None:
        return ""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(change))


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
