"""What a study file writes down: who competes, on which scans, under which conditions, and how the paper lays its table out.

A study is data: nothing is read and no method is made until it is run. Numbers that a paper printed stand in its tables as
`expected`, beside ours, never mixed with them.
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from anomri.cohort import Cohort
from anomri.cohorts import open_cohort
from anomri.cohorts.datasets import dataset
from anomri.errors import AnomriError, BadCall, BadInput, unknown
from anomri.method import Method, steps_of
from anomri.scan import Scan

Change = Callable[[Scan, torch.Generator], Scan]
"""What is done to a scan: an artefact, a lesion. Same scan and generator, same answer."""

Cell = str | float | int | None
SIZES = {"lesion_size_ml": ("small", "medium", "large"), "lesion_size_voxels": ("small", "medium", "large")}
"""Columns that are measured on each scan and may still make a table's lines: the measure "size", by `metrics.lesion.scan_size`."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """Scans that a study needs, and where a machine has them.

    Parameters
    ----------
    dataset : one of `cohorts.datasets`, which knows its layout; or None for BIDS, a folder or a table, with the rest given
    sequence : as in `open_cohort`
    part : what of it is taken: `Cohort -> Cohort`, such as the test part of a split
    title, variable, offered, layout : the data's name, the environment variable with its path, where its owners offer it and
        how it is to be laid out; a data set's own where None
    """

    dataset: str | None = None
    sequence: str = "T1w"
    part: Callable[[Cohort], Cohort] | None = None
    title: str | None = None
    variable: str | None = None
    offered: str | None = None
    layout: str | None = None

    def __post_init__(self) -> None:
        for name in ("title", "variable", "offered", "layout"):
            if getattr(self, name) is None:
                if self.dataset is None:
                    raise BadCall(f"a source without a data set needs its {name}")
                object.__setattr__(self, name, getattr(dataset(self.dataset), name))

    def path(self, places: Mapping[str, str] = {}) -> Path | None:
        """Where the data lie: `places[variable]`, or the environment variable; None where neither says so."""
        said = places.get(str(self.variable)) or os.environ.get(str(self.variable))
        return Path(said) if said else None

    def missing(self) -> str:
        """What to do where a machine lacks the data: one line."""
        return (
            f"{self.title} is not here: set {self.variable}, or give --data {self.variable}=FOLDER. "
            f"Offered: {self.offered}. Layout: {' '.join(str(self.layout).split())}"
        )

    def open(self, places: Mapping[str, str] = {}) -> Cohort:
        """The scans; raises `BadInput` where the machine lacks them, with what to do."""
        path = self.path(places)
        if path is None:
            raise BadInput(self.missing())
        cohort = open_cohort(path, sequence=self.sequence, dataset=self.dataset)
        found = self.part(cohort) if self.part else cohort
        if len(found) == 0:
            raise BadInput(
                f"{self.title}: none of the {len(cohort)} scans at '{path}' is of the part that is asked for; it is another data set, or not whole"
            )
        return found


@dataclass(frozen=True)
class Entrant:
    """A method that competes: loaded from a model, or fitted on a source of the study.

    Parameters
    ----------
    method : its name in `METHODS`; a name that is not there yet waits, and the paper's numbers stand alone
    arguments : of its constructor, where it is fitted
    model : a shipped model or a model folder; None where it is fitted
    shares : name of the entrant whose weights it takes; then that one's `method`, `arguments`, `model`, `fit`, `validate`, `preset` and
        `pipeline` are what is loaded or fitted, once for both
    fit, validate : names of sources to fit and to pick the best weights on; of several, all scans together, and those of a source that is
        named more than once as often
    preset : arguments of its preprocessing, where it is fitted
    pipeline : name of the preset of its preprocessing, where it is fitted; "none" for scans that are preprocessed already. A model that
        is given brings its own
    start : name of an entrant with the weights that its training begins with, instead of random ones; that one is fitted first
    half : keep its weights as bfloat16, half the size, as those of the package are
    calibrate : name of a source of healthy scans that sets its threshold and places its scores; never test scans
    set : attributes that are set on the loaded method, such as `gamma_mask`
    then : what is done with the method before it looks, with a function that opens the study's sources, preprocessed
    score : the case score that its tables use; None for the method's own (the first)
    """

    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    shares: str | None = None
    fit: str | Sequence[str] | None = None
    validate: str | Sequence[str] | None = None
    preset: Mapping[str, Any] = field(default_factory=dict)
    pipeline: str = "itermask3d"
    start: str | None = None
    half: bool = False
    calibrate: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    then: Callable[[Method, Callable[[str], Cohort]], Any] | None = None
    score: str | None = None


@dataclass(frozen=True)
class Case:
    """A condition under which the scans of a source are looked at.

    Parameters
    ----------
    name : unique in the study
    source : name of the source
    change : what is done to each scan; None leaves it as it is
    prepared : the change works on the preprocessed scan, as the published runs do; else on the raw one, in RAS and with its
        brain mask, as an artefact in the scanner does
    anomalous : the truth of a scan of this case: is there something to find?
    against : name of the case whose scans are the healthy controls of this one; None for controls themselves
    facts : columns of its rows, such as `{"artefact": "spike", "severity": 1.0}`
    only : names of the entrants that look at it; None for all
    threshold_from : name of a case of labelled scans of other subjects, whose best threshold is used on this one's maps
        ("dice_labelled_validation", the thesis' protocol); where a subject is in both, no such number is given
    """

    name: str
    source: str
    change: Change | None = None
    prepared: bool = False
    anomalous: bool = True
    against: str | None = None
    facts: Mapping[str, Cell] = field(default_factory=dict)
    only: Sequence[str] | None = None
    threshold_from: str | None = None


@dataclass(frozen=True)
class Table:
    """A table as a paper lays it out.

    Parameters
    ----------
    name, title : a file name and a heading
    metrics : what the cells are, names of `study.summary.METRICS`
    rows, across : columns of the rows that make the table's lines and its groups of columns; "entrant" and "case", facts, or `SIZES`
    cases : names of cases; None for all
    entrants : names; None for all, in the study's order
    expected : the paper's numbers: (line, group, metric) to value in the unit that the metric prints in; a line or a group
        of several columns is their values joined by ", "
    score : the column that case metrics take as the scan's score: "score" is the entrant's own
    reference : the entrant that others are tested against (permutation test paired by subject, Holm); None for no test; "entrant"
        must be among `rows`
    note : a sentence below the table
    """

    name: str
    title: str
    metrics: Sequence[str]
    rows: Sequence[str] = ("entrant",)
    across: Sequence[str] = ("case",)
    cases: Sequence[str] | None = None
    entrants: Sequence[str] | None = None
    expected: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    score: str = "score"
    reference: str | None = None
    note: str = ""


def named(sources: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of sources, none, one or several."""
    return (sources,) if isinstance(sources, str) else tuple(sources or ())


PlotKind = Literal["box", "roc", "pr", "curve", "scatter", "forest"]


@dataclass(frozen=True)
class Plot:
    """A figure.

    Parameters
    ----------
    kind : box (`y` per case and entrant), roc or pr (cases against their controls, with bands), curve (a metric `y` over the
        fact `x`, such as a severity), scatter (`y` against `x` per scan, such as Dice against lesion volume), forest (a metric `y` of many entrants below
        each other, a panel for each case)
    y : a metric of `METRICS`, or a column of the rows for box and scatter
    x : a fact or a column; box groups by it where given
    by : a fact that makes lines or colours, "entrant" by default
    cases, entrants : names; None for all
    """

    name: str
    title: str
    kind: PlotKind
    y: str = ""
    x: str = ""
    by: str = "entrant"
    cases: Sequence[str] | None = None
    entrants: Sequence[str] | None = None


@dataclass(frozen=True)
class Study:
    """Methods x cases -> one tidy table, a row per method, case and scan.

    Parameters
    ----------
    name, title, paper : a file name, a heading, what it reproduces
    entrants, sources : by the names that tables print and cases use
    measures : what is measured on each scan, names of `study.measures.MEASURES`
    most : the most detections that a method may cost; a study that would cost more does not begin

    Raises `BadCall` where names do not fit together.
    """

    name: str
    title: str
    paper: str
    entrants: Mapping[str, Entrant]
    sources: Mapping[str, Source]
    cases: Sequence[Case]
    measures: Sequence[str]
    tables: Sequence[Table]
    plots: Sequence[Plot] = ()
    most: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        cases = [case.name for case in self.cases]
        twice = {name for name in cases if cases.count(name) > 1}
        if twice:
            raise BadCall(f"study '{self.name}' has two cases named '{min(twice)}'; names must differ")
        for kind, names, known in (
            ("source", [c.source for c in self.cases], self.sources),
            (
                "source",
                [s for e in self.entrants.values() for part in (e.fit, e.validate, e.calibrate) for s in named(part)],
                self.sources,
            ),
            ("case", [n for c in self.cases for n in (c.against, c.threshold_from) if n], cases),
            ("case", [n for t in self.tables for n in t.cases or ()], cases),
            ("case", [n for p in self.plots for n in p.cases or ()], cases),
            ("entrant", [n for c in self.cases for n in c.only or ()], self.entrants),
            ("entrant", [n for p in self.plots for n in p.entrants or ()], self.entrants),
            ("entrant", [n for e in self.entrants.values() for n in (e.shares, e.start) if n], self.entrants),
            (
                "entrant",
                [n for t in self.tables for n in (*(t.entrants or ()), *filter(None, [t.reference]))],
                self.entrants,
            ),
        ):
            for name in names:
                if name not in known:
                    raise unknown(f"{kind} in study '{self.name}':", str(name), known)
        for name, entrant in self.entrants.items():
            steps_of(entrant.pipeline, entrant.preset)
            before, earlier = [name], entrant.start
            while earlier is not None:
                if earlier in before:
                    raise BadCall(
                        f"study '{self.name}': the training of '{name}' begins with its own weights; name another 'start'"
                    )
                before.append(earlier)
                earlier = self.entrants[self.weights_of(earlier)].start
        for case in self.cases:
            for name in {"entrant", "case", "scan", "subject", "status", "message", "score", *SIZES} & set(case.facts):
                raise BadCall(f"case '{case.name}' has a fact '{name}', which is a column of every row; rename it")
        # A column that no case has would put all methods into one line.
        facts = {"entrant", "case", *SIZES}.union(*(case.facts for case in self.cases))
        for table in self.tables:
            for name in (*table.rows, *table.across):
                if self.cases and name not in facts:
                    raise unknown(f"column of table '{table.name}':", name, facts)
            if table.reference is not None and "entrant" not in table.rows:
                raise BadCall(f"table '{table.name}' has a reference, needs 'entrant' among its rows")
        for plot in self.plots:
            if plot.kind not in get_args(PlotKind):
                raise unknown(f"kind of plot '{plot.name}':", plot.kind, get_args(PlotKind))
            if plot.kind == "curve" and self.cases and plot.x not in facts:
                raise unknown(f"fact of plot '{plot.name}':", plot.x, facts)

    def weights_of(self, entrant: str) -> str:
        """The entrant whose weights an entrant takes: its own, unless it shares."""
        return self.entrants[entrant].shares or entrant

    def case(self, name: str) -> Case:
        """The case of that name; raises `BadCall`."""
        for case in self.cases:
            if case.name == name:
                return case
        raise unknown("case", name, [c.name for c in self.cases])

    def cases_of(self, entrant: str) -> list[Case]:
        """The cases that an entrant looks at."""
        return [c for c in self.cases if c.only is None or entrant in c.only]


def load(path: str | Path) -> Study:
    """The study of a Python file: runs the file, which is code, and takes its `STUDY`. Run only files that you trust.

    Raises `BadInput` where there is no such file, it cannot be run, or it defines no study.
    """
    path = Path(path)
    if not path.is_file() or path.suffix != ".py":
        raise BadInput(f"'{path}' is not a study (a Python file that defines STUDY)")
    try:
        found = runpy.run_path(str(path)).get("STUDY")
    except AnomriError:
        raise
    except Exception as error:
        raise BadInput(f"study '{path}' cannot be run: {type(error).__name__}: {error}") from error
    if not isinstance(found, Study):
        raise BadInput(f"'{path}' defines no STUDY (anomri.study.Study); it defines {type(found).__name__}")
    return found
