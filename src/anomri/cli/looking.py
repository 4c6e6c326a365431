"""Verbs that read scans and write results: detect, report, demo, preprocess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomri.cli.choosing import (
    PREPARING,
    PRESET_NAMES,
    RUNNING,
    SCANS,
    BrainOption,
    CohortOption,
    DatasetOption,
    DeviceOption,
    IdOption,
    JobsOption,
    JsonOption,
    N4Option,
    OverwriteOption,
    PrepareOption,
    QuietOption,
    RegisterByOption,
    RegisterOption,
    SeedOption,
    SequenceOption,
    ShardOption,
    SpacingOption,
    StripOption,
    TemplateOption,
    WhereOption,
    given_to,
    option,
    pipeline_of,
    prepared_by,
    registration_of,
    scans_of,
    shard_of,
)
from anomri.cli.terminal import SOME_FAILED, Say, print_json, progress, remarks, tell_failed
from anomri.errors import BadCall, unknown

if TYPE_CHECKING:
    from anomri.cohort import Cohort
    from anomri.method import Method

ScanArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[SCAN]...", help="A scan (.nii or .nii.gz), or several.", show_default=False),
]


def detect(
    scan: ScanArgument = None,
    out: Annotated[
        Path, option("--out", "-o", metavar="FOLDER", help="Folder for the results, as BIDS derivatives.")
    ] = Path("results"),
    model: Annotated[
        str | None,
        option(
            "--model",
            "-m",
            metavar="MODEL",
            show_default=False,
            help="A folder that 'anomri fit' wrote, or a model of the package ('anomri methods' lists them). Default: the package's for the scan's sequence.",
        ),
    ] = None,
    page: Annotated[bool, option("--page/--no-page", help="Write an HTML page for each scan.")] = True,
    cohort: CohortOption = None,
    dataset: DatasetOption = None,
    image: Annotated[
        list[str] | None,
        option(
            "--image",
            metavar="SEQUENCE=FILE",
            panel=SCANS,
            show_default=False,
            help="One scan made of several sequences; once for each, for models that take several.",
        ),
    ] = None,
    sequence: SequenceOption = None,
    brain: BrainOption = None,
    id: IdOption = None,
    where: WhereOption = None,
    strip: StripOption = "auto",
    n4: N4Option = None,
    register: RegisterOption = None,
    template: TemplateOption = None,
    register_by: RegisterByOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: Annotated[
        str,
        option(
            "--precision",
            metavar="TYPE",
            panel=RUNNING,
            help="auto (bfloat16 where the processor has it), float32 or bfloat16.",
        ),
    ] = "auto",
    engine: Annotated[
        str,
        option(
            "--engine",
            metavar="NAME",
            panel=RUNNING,
            help="auto, torch, openvino. auto is torch, or openvino on a CPU that has no bfloat16 arithmetic (pip install 'anomri\\[openvino]').",
        ),
    ] = "auto",
    schedule: Annotated[
        str | None,
        option(
            "--schedule",
            metavar="NAME",
            panel=RUNNING,
            show_default=False,
            help="For methods that shrink a mask: adaptive (few steps where little changes), or exact (every step of the paper, 2 to 4 times slower). Default: as the model was made, which is adaptive.",
        ),
    ] = None,
    jobs: JobsOption = 1,
    shard: ShardOption = "1/1",
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find what is abnormal in one scan, or in every scan of a cohort.

    Writes, on each scan's own grid, an anomaly map, a lesion mask, the scan as it would be if it were healthy, and the order in
    which the mask shrank; an HTML page for each scan; and a table and a page of all scans. What is done already is skipped.

    Exit code: 0 if all went well; 2 if the call is wrong (a file or model that is not there, an unknown option), and nothing
    was done; 3 if some scans failed: each is named on stderr and in the table, with the reason, and the others are done.
    """
    from anomri import run
    from anomri.methods import load
    from anomri.report import case
    from anomri.report import cohort as cohort_page

    with remarks(quiet) as say:
        part = shard_of(shard)
        scans = scans_of(scan, image, cohort, sequence, brain, id, where, dataset)
        run.places(scans)
        mine = run.sharded(len(scans), part)
        looks = []
        for name, indices in _by_model(model, scans, mine).items():
            method = load(name)
            method.device, method.precision, method.engine = device, precision, engine
            _schedule(method, schedule)
            pipeline = pipeline_of(method, strip, n4=n4, **registration_of(register, template, register_by))
            _tell_odd(method, scans.subset(indices), say)
            looks.append((method, pipeline, indices))
        with progress(quiet, "Looking", len(mine)) as told:
            done = 0

            def step(row: Mapping[str, Any]) -> None:
                nonlocal done
                done += 1
                tell_failed(row)
                told(done, str(row["id"]))

            at: dict[int, Mapping[str, Any]] = {}
            for method, pipeline, indices in looks:
                found = run.detect(
                    method, scans.subset(indices), out, steps=pipeline, seed=seed, jobs=jobs, overwrite=overwrite,
                    page=case.write if page else None, progress=step,
                )  # fmt: skip
                at |= dict(zip(indices, found, strict=True))
            rows = [at[index] for index in mine]
        everything = run.gather(out)
        table = run.write_group(out, everything)
        cohort_page.write(everything, table.with_suffix(".html"))
        if as_json:
            print_json({"out": str(out), "table": str(table), "scans": rows})
        if len(rows) == 1:
            _tell_one(rows[0], out, page, say)
        else:
            counts = {s: sum(r["status"] == s for r in rows) for s in ("done", "skipped", "failed")}
            say(
                f"{counts['done']} done, {counts['skipped']} skipped (done before), {counts['failed']} failed. Table: {table}"
            )
            odd = [row["id"] for row in rows if row["status"] != "failed" and row["message"]]
            if odd:
                say(
                    f"Note: {len(odd)} look like another sequence than they are called, such as '{odd[0]}'; the table says which"
                )
            say(f"Page: {table.with_suffix('.html').resolve()}")
        _end(rows)


def _by_model(model: str | None, scans: Cohort, mine: Sequence[int]) -> dict[str, list[int]]:
    """Which scans each model looks at: the given one at all, else the package's own for each sequence."""
    from anomri.cohort import Entry
    from anomri.methods import default_for

    found: dict[str, list[int]] = {}
    for index in mine:
        entry = scans.entries[index]
        shown = entry.images if isinstance(entry, Entry) else entry.sequences
        found.setdefault(model or default_for([*shown]), []).append(index)
    return found


def _schedule(method: Method, name: str | None) -> None:
    """Sets the schedule of a method that has one; raises `BadCall` for another method, or a name that it does not know."""
    if name is None:
        return
    if "schedule" not in method.arguments:
        raise BadCall(f"--schedule is for methods that shrink a mask; {method.name} does not, leave it out")
    # Making another one checks the name.
    method.schedule = type(method)(**{**method.arguments, "schedule": name}).arguments["schedule"]  # type: ignore[attr-defined]


def _tell_odd(method: Method, scans: Cohort, say: Say) -> None:
    """Says so where a model is shown another sequence than it has learned."""
    from anomri.cohort import Entry

    for entry in scans.entries:
        shown = list(entry.images if isinstance(entry, Entry) else entry.sequences)
        if len(shown) == len(method.learned) and any(
            name not in names for name, names in zip(shown, method.learned, strict=True)
        ):
            learned = ", ".join(" or ".join(names) for names in method.learned)
            say(
                f"Note: the model has learned {learned}, '{entry.id}' is {', '.join(shown)} (of a file, --sequence says what it is)"
            )
            return


def _tell_one(row: Mapping[str, Any], out: Path, page: bool, say: Say) -> None:
    if row["status"] == "failed":
        return
    before = " (done before)" if row["status"] == "skipped" else ""
    marked = "no mask" if row.get("mask_ml") is None else f"{row['mask_ml']:.1f} ml marked as abnormal"
    say(
        f"{row['id']}{before}: {marked}, score {row['score']:.3g} (higher is more abnormal), {row['seconds']:.0f} s. Results: {out}"
    )
    if row["message"]:
        say(f"Note: it {row['message']}; check its name, or say --sequence of a file")
    if page:
        say(f"Page: {(out / (row['label'] + '.html')).resolve()}")


def _end(rows: Sequence[Mapping[str, Any]]) -> None:
    if any(row["status"] == "failed" for row in rows):
        raise typer.Exit(SOME_FAILED)


def report(
    results: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that 'anomri detect' wrote.")],
    pages: Annotated[bool, option("--pages", help="Write every scan's page anew, too.")] = False,
    images: Annotated[
        Path | None,
        option(
            "--images",
            metavar="FOLDER",
            show_default=False,
            help="For --pages: where the input scans lie now; searched with all its subfolders. Default: the results folder.",
        ),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Gather a folder's results, of all shards, into the table and the page of all scans."""
    from anomri import run
    from anomri.report import case
    from anomri.report import cohort as cohort_page

    with remarks(quiet) as say:
        rows = run.gather(results)
        done = [row for row in rows if row["status"] == "done"] if pages else []
        with progress(quiet, "Drawing", len(done)) as told:
            for number, row in enumerate(done, start=1):
                run.draw(results, row["label"], case.write, images=images)
                told(number, row["id"])
        table = run.write_group(results, rows)
        cohort_page.write(rows, table.with_suffix(".html"))
        failed = sum(row["status"] == "failed" for row in rows)
        say(f"{len(rows)} scans, {failed} failed. Table: {table}")
        say(f"Page: {table.with_suffix('.html').resolve()}")
        if as_json:
            print_json({"out": str(results), "table": str(table), "scans": rows})


def demo(
    out: Annotated[Path, option("--out", "-o", metavar="FOLDER", help="Folder for the results.")] = Path("demo"),
    overwrite: OverwriteOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Plant a lesion in the MNI152 template, look for it with the model of the package, and write the page. No downloads."""
    from anomri import files, run
    from anomri.cohort import Cohort, Entry
    from anomri.cohorts import phantom
    from anomri.methods import default_for, load
    from anomri.metrics.voxel import dice
    from anomri.report import case

    with remarks(quiet) as say:
        method = load(default_for(["T1w"]))
        method.device = device
        method.runtime()
        say(
            "The MNI152 template (a healthy brain, the mean of many), with a lesion planted in its right frontal white matter"
        )
        scan = phantom.template_with_lesion(seed=seed)
        assert scan.lesion is not None
        place = out / "sourcedata" / "template_T1w.nii.gz"
        files.write_image(place, scan.image[0], scan.grid)
        files.write_image(out / "sourcedata" / "template_lesion.nii.gz", scan.lesion, scan.grid)
        say("Looking; this takes some seconds")
        template = Cohort([Entry("sub-template", {"T1w": str(place)})])
        (row,) = run.detect(method, template, out, seed=seed, overwrite=overwrite, page=case.write)
        tell_failed(row)
        _end([row])
        found = run.Place.of(row["label"]).image(f"space-orig_label-lesion_desc-{method.name}", "mask")
        mask = files.read_mask(out / found, scan.grid, "lesion")
        overlap, page = dice(mask, scan.lesion), (out / f"{row['label']}.html").resolve()
        planted, marked = (float(m.sum()) * scan.voxel_ml for m in (scan.lesion, mask))
        say(f"Planted {planted:.1f} ml, marked {marked:.1f} ml, Dice {overlap:.2f} (the method saw no label)")
        say(f"Page: {page}")
        if as_json:
            print_json({**row, "planted_ml": planted, "marked_ml": marked, "dice": overlap, "page": str(page)})


def preprocess(
    scan: ScanArgument = None,
    out: Annotated[
        Path, option("--out", "-o", metavar="FOLDER", help="Folder for the preprocessed scans, as BIDS derivatives.")
    ] = Path("preprocessed"),
    cohort: CohortOption = None,
    dataset: DatasetOption = None,
    image: Annotated[
        list[str] | None,
        option(
            "--image",
            metavar="SEQUENCE=FILE",
            panel=SCANS,
            show_default=False,
            help="One scan made of several sequences; once for each.",
        ),
    ] = None,
    sequence: SequenceOption = None,
    brain: BrainOption = None,
    id: IdOption = None,
    where: WhereOption = None,
    preset: Annotated[
        str, option("--preset", metavar="NAME", panel=PREPARING, help=f"What these papers do: {PRESET_NAMES}.")
    ] = "itermask3d",
    spacing: SpacingOption = None,
    strip: StripOption = "auto",
    n4: N4Option = None,
    register: RegisterOption = None,
    template: TemplateOption = None,
    register_by: RegisterByOption = None,
    prepare: PrepareOption = None,
    jobs: JobsOption = 1,
    shard: ShardOption = "1/1",
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring scans into a paper's format: orientation, brain, grid, field of view, intensities.

    'detect', 'fit' and 'calibrate' do this themselves; do it once beforehand to look at it, or to fit many times. The folder
    can be given to them as --cohort. Exit codes as in 'detect'.
    """
    from anomri import preprocess as steps
    from anomri import run

    with remarks(quiet) as say:
        part = shard_of(shard)
        if preset not in steps.PRESETS:
            raise unknown("preset", preset, steps.PRESETS)
        registered = registration_of(register, template, register_by)
        more = {**registered, **prepared_by(preset, prepare)}
        pipeline = steps.preset(preset, **given_to(preset, strip, spacing=spacing, n4=n4, **more))
        scans = scans_of(scan, image, cohort, sequence, brain, id, where, dataset)
        with progress(quiet, "Preprocessing", len(scans)) as told:
            done = 0

            def step(row: Mapping[str, Any]) -> None:
                nonlocal done
                done += 1
                tell_failed(row)
                told(done, str(row["id"]))

            rows = run.prepare_scans(scans, out, pipeline, jobs=jobs, overwrite=overwrite, progress=step, shard=part)
        table = run.write_group(out, run.gather(out))
        failed = sum(row["status"] == "failed" for row in rows)
        say(f"{len(rows) - failed} of {len(rows)} scans are in {out}. Table: {table}")
        if as_json:
            print_json({"out": str(out), "table": str(table), "scans": rows})
        _end(rows)
