"""Verbs about cohorts: `anomri cohort check`, `split` and `list`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomri.cli.choosing import (
    SCANS,
    DatasetOption,
    JsonOption,
    QuietOption,
    SeedOption,
    WhereOption,
    opened,
    option,
)
from anomri.cli.terminal import SOME_FAILED, print_json, progress, remarks
from anomri.errors import BadCall, BadInput

if TYPE_CHECKING:
    from anomri.cohort import Cohort
    from anomri.cohorts.check import Problem
    from anomri.cohorts.splits import Split

HELP = "Look at cohorts: what is wrong with one, which parts it is split into, which data sets are known."

SequencesOption = Annotated[
    str | None,
    option(
        "--sequence", metavar="NAMES", panel=SCANS, show_default=False,
        help="MRI sequences, joined by commas: T1w,FLAIR. Default: T1w; of a --dataset, all that it has.",
    ),
]  # fmt: skip


def check(
    cohort: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[COHORT]...", help="A cohort, or several that should share nothing.", show_default=False
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        option(
            "--split",
            metavar="[NAME=]TABLE",
            panel=SCANS,
            show_default=False,
            help="A split table; or one part's table, with the part's name: train=train.csv. May be repeated. Can be checked without a cohort.",
        ),
    ] = None,
    dataset: DatasetOption = None,
    sequence: SequencesOption = None,
    where: WhereOption = None,
    out: Annotated[
        Path | None,
        option("--out", "-o", metavar="TABLE", show_default=False, help="Write the problems as a table (.tsv)."),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with a cohort or a split: one line for each problem.

    Finds the same image under two names, a subject in two parts of a split, scans listed twice, missing sequences, files that cannot be
    read, masks on another grid, lesions outside the brain, empty masks, and, as remarks, grids unlike the others'.

    Exit code: 0 if there is no problem (remarks do not count); 2 if the call is wrong; 3 if there are problems.
    """
    from anomri import files
    from anomri.cohorts import check as checks

    with remarks(quiet) as say:
        if not cohort and not split:
            raise BadCall("name a cohort to check, or a split table with --split")
        if not cohort and (dataset or sequence or where):
            raise BadCall("--dataset, --sequence and --where say what of a cohort is read, and there is none; name one")
        _check_table(out)
        table = _split(split) if split else None
        if cohort:
            whole, problems = _whole(cohort, sequence, where, dataset)
            with progress(quiet, "Checking", len(whole)) as told:
                problems += checks.check(whole, table, progress=told)
        else:
            assert table is not None
            problems = checks.check_split(table)
        rows = [_row(problem) for problem in sorted(problems, key=lambda problem: problem.remark)]
        if out is not None:
            files.write_table(out, rows, ["level", "kind", "ids", "text"])
        found = sum(not problem.remark for problem in problems)
        if as_json:
            print_json({"problems": found, "remarks": len(problems) - found, "found": rows})
        else:
            for row in rows:
                typer.echo(f"{row['level']}: {row['kind']}: {row['text']}")
        counted = f"Scans checked: {len(whole)}" if cohort else f"Lines checked: {len(table.members) if table else 0}"
        say(f"{counted}. Problems: {found}. Remarks: {len(problems) - found}")
        if found:
            raise typer.Exit(SOME_FAILED)


def _check_table(out: Path | None) -> None:
    """Raises `BadCall` before any work is done, where the result could not be a table there."""
    if out is None:
        return
    if out.is_dir():
        raise BadCall(f"--out '{out}' is a folder; name a table in it, such as {out / 'table.tsv'}")
    if out.suffix.lower() != ".tsv":
        raise BadCall(f"--out '{out}' is not a .tsv; the table is written as that, name it so")


def _row(problem: Problem) -> dict[str, Any]:
    level = "remark" if problem.remark else "problem"
    return {"level": level, "kind": problem.kind, "ids": ",".join(problem.ids), "text": problem.text}


def _split(tables: list[str]) -> Split:
    """Split tables, each a path or NAME=path."""
    from anomri.cohorts import splits

    def one(text: str) -> Split:
        name, sign, path = text.partition("=")
        return splits.read(path, name) if sign and not Path(text).exists() else splits.read(text)

    return splits.merged(one(text) for text in tables)


def _whole(
    paths: list[Path], sequence: str | None, where: list[str] | None, dataset: str | None
) -> tuple[Cohort, list[Problem]]:
    """All scans of some cohorts, with the sequences that each has; and what is wrong with cohorts as a whole."""
    from collections import Counter
    from dataclasses import replace

    from anomri.cohort import Cohort
    from anomri.cohorts.check import Problem, shared, together

    whole, problems = {}, []
    for path in paths:
        read: dict[str, Cohort] = {}
        failed: dict[str, BadInput] = {}
        for name in _sequences(sequence, dataset):
            try:
                read[name] = opened(path, name, where, dataset)
            except BadInput as error:
                failed[name] = error
        if not read:
            raise next(iter(failed.values()))
        if sequence is not None:
            problems += [Problem("missing", (), str(error)) for error in failed.values()]
        whole[str(path)] = together(read)
    if len(whole) == 1:
        return next(iter(whole.values())), problems
    problems += shared(whole)
    times = Counter(id for part in whole.values() for id in part.ids)
    entries = [
        replace(e, id=f"{name}/{e.id}") if times[e.id] > 1 else e for name, part in whole.items() for e in part.entries
    ]
    return Cohort(entries), problems


def _sequences(said: str | None, dataset: str | None) -> list[str]:
    from anomri.cohorts.datasets import dataset as known

    if said is not None:
        return [name for name in dict.fromkeys(s.strip() for s in said.split(",")) if name]
    return list(known(dataset).sequences) if dataset is not None else ["T1w"]


def split(
    cohort: Annotated[Path, typer.Argument(metavar="COHORT", help="The cohort to split.", show_default=False)],
    out: Annotated[Path, option("--out", "-o", metavar="TABLE", help="The table to write: id, subject, split, fold.")],
    parts: Annotated[
        str | None,
        option(
            "--parts",
            metavar="NAME=N,...",
            show_default=False,
            help="Parts and how many subjects each has: fit=34,validate=12,test=12. Without --folds, the others are left out.",
        ),
    ] = None,
    folds: Annotated[
        int,
        option(
            "--folds",
            metavar="K",
            show_default=False,
            help="Cut what is in no part into K folds, for cross-validation.",
        ),
    ] = 0,
    stratify: Annotated[
        str | None,
        option(
            "--stratify",
            metavar="COLUMN",
            show_default=False,
            help="Let each part have this column's values in proportion: age (cut into fifths), scanner, group.",
        ),
    ] = None,
    dataset: DatasetOption = None,
    sequence: SequencesOption = None,
    where: WhereOption = None,
    seed: SeedOption = 0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Draw a split by subject, and write it as a table that 'fit' and 'calibrate' take as --split.

    The same cohort, parts and seed give the same split, in whatever order the scans come.
    """
    from anomri.cohorts import splits

    with remarks(quiet) as say:
        sizes = _sizes(parts)
        if not sizes and not folds:
            raise BadCall("say which parts to draw (--parts fit=34,validate=12,test=12), or how many --folds")
        _check_table(out)
        whole = opened(cohort, sequence, where, dataset)
        drawn = splits.draw(whole, sizes, folds=folds, seed=seed, stratify=stratify)
        splits.write(out, drawn)
        counts: dict[str, int] = {}
        for member in drawn.members:
            name = member.part or f"fold {member.fold}"
            counts[name] = counts.get(name, 0) + 1
        if as_json:
            print_json({"out": str(out), "scans": counts, "left_out": len(whole) - len(drawn.members)})
        told = ", ".join(f"{name}: {count}" for name, count in counts.items())
        say(f"Scans in {told}; in no part: {len(whole) - len(drawn.members)}. Wrote {out}")


def _sizes(text: str | None) -> dict[str, int]:
    sizes = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, _, n = (word.strip() for word in part.partition("="))
        if n.isdecimal() and int(n) == 0:
            raise BadCall(f"--parts '{text}': {name} has no subject; leave it out, or give it 1 or more")
        if not name or not n.isdecimal() or name in sizes:
            raise BadCall(
                f"--parts '{text}' is not NAME=N,NAME=N with different names, such as fit=34,validate=12,test=12"
            )
        sizes[name] = int(n)
    return sizes


def list_(
    cohort: Annotated[
        Path | None, typer.Argument(metavar="[COHORT]", help="A cohort whose scans to list.", show_default=False)
    ] = None,
    dataset: DatasetOption = None,
    sequence: SequencesOption = None,
    where: WhereOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the data sets that are known by name; or, with --dataset alone, how one is laid out; or the scans of a cohort."""
    from anomri.cohort import Entry
    from anomri.cohorts.datasets import DATASETS
    from anomri.cohorts.datasets import dataset as known

    with remarks(False):
        if cohort is None and (sequence or where):
            raise BadCall("--sequence and --where choose scans of a cohort, and there is none; name one")
        if cohort is not None:
            whole = opened(cohort, sequence, where, dataset)
            pairs = zip(whole.entries, whole.subjects, strict=True)
            rows = [_listed(entry, subject) for entry, subject in pairs if isinstance(entry, Entry)]
            if as_json:
                print_json({"scans": rows})
            else:
                _print_table(rows)
            return
        chosen = DATASETS if dataset is None else (known(dataset),)
        told = [{name: getattr(d, name) for name in FIELDS} for d in chosen]
        if as_json:
            print_json({"datasets": told})
        elif dataset is not None:
            for name, value in told[0].items():
                text = ", ".join(value) if isinstance(value, tuple) else str(value)
                typer.echo(f"{name}: " + text.replace("\n", "\n" + " " * (len(name) + 2)))
        else:
            for row in told:
                typer.echo(f"{row['name']}: {row['title']}, {', '.join(row['sequences'])}. {row['offered']}")


FIELDS = ("name", "title", "sequences", "offered", "licence", "layout", "variable", "quirks")


def _listed(entry: Any, subject: str) -> dict[str, str]:
    said = {
        "id": entry.id,
        "subject": subject,
        **entry.images,
        "brain": entry.brain or "",
        "lesion": ",".join(entry.lesions),
    }
    return {**said, **{name: value for name, value in entry.facts.items() if name not in said}}


def _print_table(rows: list[dict[str, str]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    for line in (names, *([row.get(name) or "n/a" for name in names] for row in rows)):
        typer.echo("\t".join(line))


VERBS: dict[Callable[..., None], tuple[str, ...]] = {
    check: (
        "anomri cohort check bids/ --sequence T1w,FLAIR --split split.tsv",
        "anomri cohort check brats/ --dataset brats2021 --out problems.tsv",
        "anomri cohort check --split train=train.csv --split test=test.csv",
    ),
    split: (
        "anomri cohort split ixi/ --dataset ixi --parts fit=400,validate=40,test=140 --stratify age --out split.tsv",
        "anomri cohort split bids/ --parts test=20 --folds 5 --seed 1 --out folds.tsv",
    ),
    list_: (
        "anomri cohort list",
        "anomri cohort list --dataset brats2021",
        "anomri cohort list bids/ --sequence FLAIR",
    ),
}
"""Each verb, and examples of its use."""
