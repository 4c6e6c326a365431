"""The command line: thin verbs over the library. Heavy imports happen inside them, so that `--help` answers at once."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomri.errors import AnomriError, BadCall

if TYPE_CHECKING:
    from anomri.cohort import Cohort, Step
    from anomri.method import Method

DEFAULT_MODEL = "itermask3d-t1w-2mm"
BAD_CALL, SOME_FAILED = 2, 3

app = typer.Typer(
    name="anomri",
    help="Find what is abnormal in a brain MRI scan, having learned only from healthy ones. Research use only: not a diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Strip(str, Enum):
    """How the brain is found."""

    auto = "auto"
    deepbet = "deepbet"
    robex = "robex"
    stripped = "stripped"


CohortOption = Annotated[Path | None, typer.Option("--cohort", help="Many scans: a folder of NIfTI files, a BIDS data set, or a .csv/.tsv table (columns id, one per sequence, optional brain, lesion, group).", show_default=False)]
SequenceOption = Annotated[str | None, typer.Option("--sequence", help="MRI sequence: T1w, T2w, FLAIR. Default: from the file's name, else T1w.", show_default=False)]
WhereOption = Annotated[list[str] | None, typer.Option("--where", metavar="COLUMN=VALUE", help="Only scans whose participants.tsv (or table) says so. May be repeated.", show_default=False)]
StripOption = Annotated[Strip, typer.Option("--strip", help="Skull stripping: auto takes a stripped scan as it is and strips others by deepbet (T1w); robex needs anomri[strip].")]
N4Option = Annotated[bool | None, typer.Option("--n4/--no-n4", help="Correct the bias field (N4). Default: as the model was trained.", show_default=False)]
RegisterOption = Annotated[bool | None, typer.Option("--register/--no-register", help="Affine registration to MNI152. Default: as the model was trained.", show_default=False)]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
SeedOption = Annotated[int, typer.Option("--seed", help="Same seed, same result.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and no remarks; errors still go to stderr.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
BrainOption = Annotated[Path | None, typer.Option("--brain", help="Brain mask of the scan (above 0.5 is inside), on the scan's grid.", show_default=False)]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Do scans again that are done already.")]


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False) -> None:
    if version:
        from anomri import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def detect(
    scan: Annotated[list[Path] | None, typer.Argument(help="A scan (.nii or .nii.gz), or several.", show_default=False)] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results (BIDS derivatives).")] = Path("results"),
    image: Annotated[list[str] | None, typer.Option("--image", metavar="SEQUENCE=FILE", help="One scan made of several sequences, such as --image T1w=a.nii.gz --image FLAIR=b.nii.gz.", show_default=False)] = None,
    cohort: CohortOption = None,
    model: Annotated[str, typer.Option("--model", "-m", help="A folder that 'anomri fit' wrote, or a shipped model ('anomri methods').")] = DEFAULT_MODEL,
    sequence: SequenceOption = None,
    brain: BrainOption = None,
    id: Annotated[str | None, typer.Option("--id", help="Name of the scan in the results; default: its file's name.", show_default=False)] = None,
    where: WhereOption = None,
    strip: StripOption = Strip.auto,
    n4: N4Option = None,
    register: RegisterOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option("--precision", help="auto (bfloat16 where the processor has it), float32 or bfloat16.")] = "auto",
    shard: Annotated[str, typer.Option("--shard", metavar="I/N", help="Only the I-th of N parts of the cohort, for array jobs.")] = "1/1",
    overwrite: OverwriteOption = False,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Write an HTML page for each scan.")] = True,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find what is abnormal in one scan, or in every scan of a cohort.

    Writes, in each scan's own space, an anomaly map, a lesion mask, the scan as it would be if healthy, the order in which
    the mask shrank, and an HTML page; for a cohort also a table and a page. What is done already is skipped.
    """
    from anomri import run
    from anomri.methods import load
    from anomri.report import case
    from anomri.report import cohort as cohort_page

    with _remarks(quiet) as say:
        scans = _scans(scan, image, cohort, sequence, brain, id, where)
        method = load(model)
        method.device, method.precision = device, _one_of("precision", precision, ("auto", "float32", "bfloat16"))
        with _bar(quiet, "Looking", len(scans)) as step:

            def told(row: Mapping[str, Any]) -> None:
                step(1, str(row["id"]))
                if row["status"] == "failed":
                    _complain(f"{row['id']}: {row['message']}")

            rows = run.detect(
                method, scans, out, steps=_pipeline(method, strip, n4, register), seed=seed, overwrite=overwrite,
                page=case.write if page else None, progress=told, shard=_shard(shard),
            )  # fmt: skip
        if all(row["status"] == "failed" for row in rows) and len(rows) == len(scans) == 1:
            raise typer.Exit(SOME_FAILED)
        table = run.write_group(out, gathered := run.gather(out), sequence or _sequence_of(scans))
        if page:
            cohort_page.write(gathered, out / f"{table.stem}.html")
        if as_json:
            _print_json({"out": str(out), "table": str(table), "scans": rows})
        elif len(rows) == 1:
            _tell_one(rows[0], out, page, say)
        else:
            counts = {s: sum(r["status"] == s for r in rows) for s in ("done", "skipped", "failed")}
            say(f"{counts['done']} done, {counts['skipped']} skipped (done before), {counts['failed']} failed. Table: {table}")
        if any(row["status"] == "failed" for row in rows):
            raise typer.Exit(SOME_FAILED)


@app.command()
def fit(
    method: Annotated[str, typer.Argument(help="Name of a method ('anomri methods' lists them).")],
    cohort: Annotated[Path, typer.Option("--cohort", help="Healthy scans: a folder, a BIDS data set, or a table.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model folder to write; a killed run resumes from it.")],
    spacing: Annotated[float, typer.Option("--spacing", help="Grid in mm.")] = 1.0,
    split: Annotated[Path | None, typer.Option("--split", help="Table with columns id and split (fit, validate, test): only fit and validate are used.", show_default=False)] = None,
    validate: Annotated[int, typer.Option("--validate", help="Without --split: how many scans, drawn by --seed, pick the best weights.")] = 0,
    sequence: SequenceOption = None,
    where: WhereOption = None,
    option: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An argument of the method, such as --set width=8 --set steps=6000. May be repeated.", show_default=False)] = None,
    strip: StripOption = Strip.auto,
    n4: Annotated[bool, typer.Option("--n4", help="Correct the bias field (N4).")] = False,
    register: Annotated[bool, typer.Option("--register", help="Affine registration to MNI152.")] = False,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Stop, resumably, after so long.", show_default=False)] = None,
    half: Annotated[bool, typer.Option("--half", help="Store weights as bfloat16, half the size.")] = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Learn what is normal from healthy scans, and write a model folder.

    Checkpoints and a log (loss, validation) lie in OUT/training; the same command goes on from there. On several devices or
    machines start it with torchrun.
    """
    from anomri import files
    from anomri.cohort import Cohort
    from anomri.cohorts import open_cohort
    from anomri.methods import make
    from anomri.train import Job, processes

    with _remarks(quiet) as say:
        built = make(method, **_settings(option))
        built.preset_arguments = {"spacing": spacing, **({"n4": True} if n4 else {}), **({"register": True} if register else {})}
        whole = open_cohort(cohort, sequence=sequence or "T1w", where=_where(where))
        parts = _parts(whole, split, validate, seed)
        rank, _ = processes()
        if rank == 0:
            files.write_table(out / "split.tsv", [{"id": i, "split": name} for name, part in parts.items() for i in part.ids], ["id", "split"])
        pipeline = _pipeline(built, strip, None, None)
        say(f"Fitting {built.title} on {len(parts['fit'])} scans, validating on {len(parts['validate'])}, at {spacing:g} mm")
        used = {name: part.map(*pipeline) for name, part in parts.items() if name != "test"}
        with _bar(quiet or rank > 0, "Reading", sum(map(len, used.values()))) as step:
            ready = {name: Cohort([(scan, step(1, scan.id))[0] for scan in part]) for name, part in used.items()}
        with _bar(quiet or rank > 0, "Training", None) as step:

            def told(r: Mapping[str, Any]) -> None:
                best = "" if r["validation"] is None else f", validation {r['validation']:.4f}"
                step(r["step"], f"loss {r['loss']:.4f}{best}, {r['seconds_per_step']:.2f} s a step", r["steps"])

            built.fit(ready["fit"], validation=ready["validate"] if len(ready["validate"]) else None, seed=seed, job=Job(out / "training", device, minutes=minutes, progress=told))
        if rank == 0:
            built.save(out, half=half)
            say(f"Wrote {out} (best weights: step {built.data['best_step']}; {'finished' if built.data['finished'] else 'not finished, run again to go on'})")
            if as_json:
                _print_json({"out": str(out), **built.data})


@app.command()
def calibrate(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    cohort: Annotated[Path, typer.Option("--cohort", help="Healthy scans that were not fitted on.")],
    rate: Annotated[float, typer.Option("--rate", help="Share of healthy brain voxels that may exceed the map's threshold.")] = 0.01,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write; default: into the model folder.", show_default=False)] = None,
    split: Annotated[Path | None, typer.Option("--split", help="Table with columns id and split: only 'validate' scans are used.", show_default=False)] = None,
    sequence: SequenceOption = None,
    where: WhereOption = None,
    strip: StripOption = Strip.auto,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set a model's threshold, and its healthy range of scores, from other healthy scans; no labels."""
    from anomri.cohorts import open_cohort
    from anomri.methods import load

    with _remarks(quiet) as say:
        method = load(model)
        method.device = device
        scans = open_cohort(cohort, sequence=sequence or "T1w", where=_where(where))
        if split is not None:
            scans = _parts(scans, split, 0, seed)["validate"]
        with _bar(quiet, "Calibrating", len(scans)) as step:
            method.calibrate(scans.map(*_pipeline(method, strip, None, None), lambda s: (step(1, s.id), s)[1]), rate=rate, seed=seed)
        method.save(out or model)
        say(f"{method.title}: a share {rate:g} of the voxels of {len(scans)} healthy scans exceeds {method.threshold:.4g}. Wrote {out or model}")
        if as_json:
            _print_json({"threshold": method.threshold, **method.data["calibration"]})


@app.command()
def preprocess(
    scan: Annotated[list[Path] | None, typer.Argument(help="A scan (.nii or .nii.gz), or several.", show_default=False)] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the preprocessed scans (BIDS derivatives).")] = Path("preprocessed"),
    cohort: CohortOption = None,
    preset: Annotated[str, typer.Option("--preset", help="itermask3d or behrendt: what these papers do.")] = "itermask3d",
    spacing: Annotated[float | None, typer.Option("--spacing", help="Grid in mm (itermask3d; default 1).", show_default=False)] = None,
    sequence: SequenceOption = None,
    brain: BrainOption = None,
    where: WhereOption = None,
    strip: StripOption = Strip.auto,
    n4: N4Option = None,
    register: RegisterOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring scans into a paper's format: orientation, brain, grid, field of view, intensities."""
    from anomri import preprocess as steps
    from anomri import run

    with _remarks(quiet) as say:
        scans = _scans(scan, None, cohort, sequence, brain, None, where)
        given = {"strip": strip.value, "spacing": spacing, "n4": n4, "register": register}
        pipeline = steps.preset(preset, **{k: v for k, v in given.items() if v is not None})
        with _bar(quiet, "Preprocessing", len(scans)) as step:
            rows = run.prepare_scans(scans, out, pipeline, overwrite=overwrite, progress=lambda row: step(1, str(row["id"])))
        for row in rows:
            if row["status"] == "failed":
                _complain(f"{row['id']}: {row['message']}")
        failed = sum(row["status"] == "failed" for row in rows)
        say(f"{len(rows) - failed} of {len(rows)} scans are in {out}")
        if as_json:
            _print_json({"out": str(out), "scans": rows})
        if failed:
            raise typer.Exit(SOME_FAILED)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="A folder that 'anomri detect' wrote.")],
    pages: Annotated[bool, typer.Option("--pages/--no-pages", help="Write every scan's page anew, too (needs the input images).")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Gather a folder's results (from all shards) into the table and the cohort's page."""
    from anomri import run
    from anomri.report import case
    from anomri.report import cohort as cohort_page

    with _remarks(quiet) as say:
        rows = run.gather(results)
        table = run.write_group(results, rows, run.sequence_of(results))
        cohort_page.write(rows, results / f"{table.stem}.html")
        done = [row for row in rows if row["status"] == "done"] if pages else []
        with _bar(quiet, "Drawing", len(done)) as step:
            for row in done:
                case.write(run.read(results, row["label"]), results / f"{row['label']}.html")
                step(1, row["id"])
        failed = sum(row["status"] == "failed" for row in rows)
        say(f"{len(rows)} scans, {failed} failed. Table: {table}. Page: {table.with_suffix('.html')}")
        if as_json:
            _print_json({"table": str(table), "scans": rows})


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("demo"),
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Plant a lesion in the MNI152 template, find it with the shipped weights, and show the page. No downloads."""
    from anomri import files, run
    from anomri.cohort import Cohort, Entry
    from anomri.cohorts import phantom
    from anomri.methods import load
    from anomri.metrics.voxel import dice
    from anomri.report import case

    with _remarks(quiet) as say:
        say("The MNI152 template with a lesion planted in its right frontal white matter")
        scan = phantom.template_with_lesion(seed=seed)
        files.write_image(out / "input" / "template_T1w.nii.gz", scan.image[0], scan.grid)
        files.write_image(out / "input" / "template_lesion.nii.gz", scan.lesion, scan.grid)  # type: ignore[arg-type]
        method = load(DEFAULT_MODEL)
        method.device = device
        entry = Entry("sub-template", {"T1w": str(out / "input" / "template_T1w.nii.gz")})
        with _bar(quiet, "Looking", 1) as step:
            rows = run.detect(method, Cohort([entry]), out, seed=seed, overwrite=overwrite, page=case.write, progress=lambda row: step(1, row["id"]))
        row = rows[0]
        if row["status"] == "failed":
            raise BadCall(row["message"])
        place = run.Place.of("sub-template")
        mask = files.read_mask(out / place.image(f"space-orig_label-lesion_desc-{method.name}", "mask"), scan.grid, "lesion")
        overlap = dice(mask, scan.lesion)
        page = (out / "sub-template.html").resolve()
        say(f"Planted {scan.lesion.sum() * scan.voxel_ml:.1f} ml, marked {mask.sum() * scan.voxel_ml:.1f} ml, Dice {overlap:.2f} (the method saw no label)")  # type: ignore[union-attr]
        say(f"Page: {page}")
        if as_json:
            _print_json({**row, "dice": overlap, "page": str(page)})


@app.command()
def methods(as_json: JsonOption = False) -> None:
    """List the methods, and the models that come with the package."""
    from anomri.methods import METHODS, load, shipped

    rows = [{"name": m.name, "title": m.title, "year": m.year, "dimensions": m.dimensions, "needs": m.needs, "paper": m.paper} for m in METHODS]
    models = [{"name": n, "method": (m := load(n)).name, "scans": m.data["scans"], "spacing_mm": m.data["spacing_mm"], "sequences": m.data["sequences"]} for n in shipped()]
    if as_json:
        _print_json({"methods": rows, "models": models})
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("name", "paper", "year", "2D/3D", "needs", title="Methods", title_justify="left")
    for r in rows:
        table.add_row(*(str(r[k]) for k in ("name", "paper", "year", "dimensions", "needs")))
    console.print(table)
    table = Table("name", "method", "healthy scans seen", "grid", "sequences", title="Models in the package", title_justify="left")
    for m in models:
        table.add_row(m["name"], m["method"], str(m["scans"]), " x ".join(f"{s:g}" for s in m["spacing_mm"]) + " mm", ", ".join(m["sequences"]))
    console.print(table)


# --- what the verbs share ------------------------------------------------------------------------------------------


def _scans(
    paths: list[Path] | None, images: list[str] | None, cohort: Path | None, sequence: str | None, brain: Path | None, id: str | None, where: list[str] | None
) -> Cohort:
    from anomri import files
    from anomri.cohort import Cohort, Entry
    from anomri.cohorts import open_cohort

    given = [name for name, value in (("files", paths), ("--image", images), ("--cohort", cohort)) if value]
    if len(given) != 1:
        raise BadCall(f"name what to look at in one way: files, --image SEQUENCE=FILE, or --cohort; got {' and '.join(given) or 'none'}")
    if cohort is not None:
        if brain is not None or id is not None:
            raise BadCall("--brain and --id are for one scan; in a cohort, masks and ids come from the table or the BIDS names")
        return open_cohort(cohort, sequence=sequence or "T1w", where=_where(where))
    if where:
        raise BadCall("--where selects from a --cohort; there is none")
    if images:
        named = dict(_pair(text, "--image") for text in images)
        return Cohort([Entry(id or files.stem(next(iter(named.values()))), named, str(brain) if brain else None)])
    assert paths is not None
    if len(paths) > 1 and (brain is not None or id is not None):
        raise BadCall(f"--brain and --id are for one scan, {len(paths)} were given; use a --cohort table with a column brain")
    entries = []
    for path in paths:
        stem = files.stem(path)
        found = sequence or next((s for s in ("T1w", "T2w", "FLAIR") if stem.endswith(f"_{s}")), "T1w")
        entries.append(Entry(id or stem.removesuffix(f"_{found}"), {found: str(path)}, str(brain) if brain else None))
    return Cohort(entries)


def _sequence_of(scans: Cohort) -> str:
    from anomri.cohort import Entry

    first = scans.entries[0]
    return next(iter(first.images)) if isinstance(first, Entry) else first.sequences[0]


def _pipeline(method: Method, strip: Strip, n4: bool | None, register: bool | None) -> tuple[Step, ...]:
    return method.pipeline(strip=strip.value, **{k: v for k, v in (("n4", n4), ("register", register)) if v is not None})


def _parts(whole: Cohort, split: Path | None, validate: int, seed: int) -> dict[str, Cohort]:
    """The cohort's parts: fit, validate and test, from a table or drawn by the seed."""
    from anomri import files
    from anomri.errors import BadInput

    if split is None:
        fit, held = whole.split(len(whole) - validate, validate, seed=seed)
        return {"fit": fit, "validate": held}
    rows = files.read_table(split)
    names = ("fit", "validate", "test")
    for row in rows:
        if row.get("split") not in names:
            raise BadInput(f"split table '{split}': scan '{row.get('id')}' is in '{row.get('split')}'; each must be in {', '.join(names)}")
    return {name: whole.only(row["id"] for row in rows if row["split"] == name) for name in names}


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name or not value:
        raise BadCall(f"{option} '{text}' is not NAME=VALUE")
    return name, value


def _where(pairs: list[str] | None) -> dict[str, str] | None:
    return dict(_pair(text, "--where") for text in pairs) if pairs else None


def _settings(pairs: list[str] | None) -> dict[str, Any]:
    found = {}
    for text in pairs or ():
        name, value = _pair(text, "--set")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def _one_of(kind: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise BadCall(f"unknown {kind} '{value}'; known: {', '.join(known)}")
    return value


def _shard(text: str) -> tuple[int, int]:
    i, sign, n = text.partition("/")
    if not (sign and i.isdigit() and n.isdigit()):
        raise BadCall(f"--shard '{text}' is not I/N, such as 3/16")
    return int(i), int(n)


def _tell_one(row: Mapping[str, Any], out: Path, page: bool, say: Callable[[str], None]) -> None:
    if row["status"] == "failed":
        return
    before = " (done before)" if row["status"] == "skipped" else ""
    mask = "no mask" if row.get("mask_ml") is None else f"mask {row['mask_ml']:.1f} ml"
    say(f"{row['id']}{before}: {mask}, score {row['score']:.4g}, {row['seconds']:.0f} s. Results: {out}")
    if page:
        say(f"Page: {(out / (row['label'] + '.html')).resolve()}")


def _complain(text: str) -> None:
    typer.echo(f"anomri: {text}", err=True)


def _print_json(content: Mapping[str, Any]) -> None:
    from anomri.files import plain

    typer.echo(json.dumps(plain(content), indent=2))


@contextmanager
def _remarks(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Gives a function for remarks on stderr; what anomri foresaw goes wrong in one line, with exit code 2."""
    try:
        yield lambda text: None if quiet else typer.echo(text, err=True)
    except AnomriError as error:
        _complain(str(error))
        raise typer.Exit(BAD_CALL) from error


@contextmanager
def _bar(quiet: bool, what: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr. Its function takes an advance (or, where `total` is None, a position), a text and a total."""
    if quiet:
        yield lambda *args: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task(what, total=total, text="")

        def step(amount: float, text: str = "", of: int | None = None) -> None:
            if total is None:
                bar.update(task, completed=amount, total=of, text=text)
            else:
                bar.update(task, advance=amount, text=text)

        yield step


def main() -> None:
    """The entry point."""
    try:
        app()
    except KeyboardInterrupt:
        _complain("interrupted; run the same command again to go on")
        sys.exit(130)
