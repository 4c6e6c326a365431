"""The verbs of a study: run one, or say what it needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomri.cli.choosing import (
    RUNNING,
    DeviceOption,
    JobsOption,
    JsonOption,
    OverwriteOption,
    QuietOption,
    option,
    pairs_of,
    shard_of,
)
from anomri.cli.terminal import SOME_FAILED, Say, complain, print_json, progress, remarks

if TYPE_CHECKING:
    from anomri.study import Result, Source, Study

HELP = "Compare methods on cohorts, and lay the tables out as the papers do. A study is a Python file; the repository's studies/ has the papers'."

StudyArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="A Python file that defines STUDY. It is run: only files that you trust.")
]
DataOption = Annotated[
    list[str] | None,
    option("--data", metavar="VARIABLE=PATH", show_default=False, help="Where a source of the study lies; else the environment variable says. May be repeated."),
]  # fmt: skip


def run(
    file: StudyArgument,
    out: Annotated[
        Path | None,
        option(
            "--out",
            "-o",
            metavar="FOLDER",
            show_default=False,
            help="Folder for rows, tables, plots and the page. Default: the study's name.",
        ),
    ] = None,
    data: DataOption = None,
    model: Annotated[
        list[str] | None,
        option(
            "--model",
            "-m",
            metavar="ENTRANT=MODEL",
            show_default=False,
            help="Let an entrant be this model folder, or shipped model. May be repeated.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        option(
            "--only",
            metavar="NAME",
            show_default=False,
            help="Only this entrant, or this case (with its controls). May be repeated.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        option("--limit", metavar="N", min=1, show_default=False, help="Only the first N scans of each source."),
    ] = None,
    jobs: JobsOption = 1,
    parquet: Annotated[
        bool, option("--parquet", help="Write the rows as Parquet, too (pip install 'anomri\\[parquet]').")
    ] = False,
    shard: Annotated[
        str,
        option(
            "--shard",
            metavar="I/N",
            panel=RUNNING,
            help="Only the I-th of N parts of the scans, for array jobs; a run without --shard gathers them.",
        ),
    ] = "1/1",
    device: DeviceOption = "auto",
    precision: Annotated[
        str, option("--precision", metavar="TYPE", panel=RUNNING, help="auto, float32 or bfloat16.")
    ] = "auto",
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run what is not done yet of a study, and write its table, as the paper lays it out, with plots and a page.

    A run that is stopped goes on with the same command. What cannot be run here (data that are missing, methods that are not in
    the tool yet) is said, with what to do; the rest is run. Exit code 3 if some scans failed.
    """
    from anomri import files
    from anomri.report import study as pages
    from anomri.report import tables
    from anomri.study import METRICS, load, summarise
    from anomri.study import run as run_study

    with remarks(quiet) as say:
        # Changes look there, too: a folder of lesion masks is no source.
        os.environ.update(pairs_of(data, "--data"))
        study = load(file)
        place = out or Path(study.name)
        with progress(quiet, study.title) as told:
            result = run_study(
                study, place, models=pairs_of(model, "--model"), only=only or (), limit=limit,
                jobs=jobs, device=device, precision=precision, overwrite=overwrite, shard=shard_of(shard), progress=told, say=say,
            )  # fmt: skip
        files.write_rows(place / "rows.csv", result.rows)
        if parquet:
            files.write_rows(place / "rows.parquet", result.rows)
        records = {table.name: summarise(study, table, result.rows, result.histogram) for table in study.tables}
        page = pages.write(study, result.rows, records, place, result.remarks, result.histogram)
        absent = tables.absent(study, result.rows)
        for table in study.tables:
            if not quiet:
                sheet = tables.lay_out(table, records[table.name], METRICS, absent)
                typer.echo(tables.text(sheet, get_terminal_size((120, 24)).columns), err=as_json)
        _tell(study, result, place, page, say)
        if as_json:
            print_json(
                {
                    "study": study.name,
                    "out": str(place),
                    "page": str(page),
                    "remarks": result.remarks,
                    "rows": result.rows,
                }
            )
        if any(row["status"] == "failed" for row in result.rows):
            raise typer.Exit(SOME_FAILED)


def _tell(study: Study, result: Result, out: Path, page: Path, say: Say) -> None:
    failed = [row for row in result.rows if row["status"] == "failed"]
    for row in failed[:5]:
        complain(f"{row['entrant']}, {row['case']}, {row['scan']}: {row['message']}")
    if len(failed) > 5:
        complain(f"{len(failed) - 5} more failed; {out / 'rows.csv'} names them")
    for text in result.remarks:
        say(f"Not run: {text}")
    say(f"{len(result.rows)} detections, {len(failed)} failed. Rows: {out / 'rows.csv'}")
    say(f"Page: {page.resolve()}")


def show(file: StudyArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Say what a study asks, which data and methods it needs, and which of them are here."""
    from anomri.methods import METHODS
    from anomri.study import load

    with remarks(False):
        os.environ.update(pairs_of(data, "--data"))
        study = load(file)
        known = {method.name for method in METHODS}
        sources: dict[str, Any] = {
            name: {"data": source.title, "here": _here(source), "variable": source.variable, "missing": source.missing()}
            for name, source in study.sources.items()
        }  # fmt: skip
        entrants = {name: {"method": e.method, "here": e.method in known} for name, e in study.entrants.items()}
        if as_json:
            print_json(
                {
                    "study": study.name,
                    "title": study.title,
                    "paper": study.paper,
                    "sources": sources,
                    "entrants": entrants,
                }
            )
            return
        typer.echo(f"{study.title}\n{study.paper}\n\nData")
        for name, said in sources.items():
            typer.echo(f"  {name}: {said['data']}, here" if said["here"] else f"  {name}: {said['missing']}")
        typer.echo("\nMethods")
        for name, said in entrants.items():
            typer.echo(f"  {name} ({said['method']}): {'here' if said['here'] else 'not in the tool yet'}")
        typer.echo(f"\nCases: {', '.join(case.name for case in study.cases)}")
        typer.echo(f"Tables: {', '.join(table.title for table in study.tables)}")


def _here(source: Source) -> bool:
    path = source.path()
    return path is not None and path.exists()


VERBS: dict[Callable[..., None], tuple[str, ...]] = {
    run: (
        "anomri study run studies/controlled.py --data HEALTHY_T1=ds002748/ --out controlled/ --jobs 2",
        "anomri study run studies/controlled.py --only Spike --limit 2",
    ),
    show: ("anomri study show studies/itermask3d_table1.py",),
}
"""Each verb, and examples of its use."""
