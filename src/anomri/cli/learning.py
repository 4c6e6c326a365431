"""Verbs that make models: fit, calibrate, and the list of methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomri.cli.choosing import (
    PREPARING,
    PRESET_NAMES,
    RUNNING,
    SCANS,
    DatasetOption,
    DeviceOption,
    FoldOption,
    JsonOption,
    N4Option,
    PrepareOption,
    QuietOption,
    RegisterByOption,
    RegisterOption,
    SeedOption,
    SequenceOption,
    SpacingOption,
    SplitOption,
    StripOption,
    TemplateOption,
    WhereOption,
    given_to,
    opened,
    option,
    parts_of,
    pipeline_of,
    prepared_by,
    registration_of,
    settings_of,
)
from anomri.cli.terminal import print_json, progress, remarks
from anomri.errors import BadCall, unknown

if TYPE_CHECKING:
    from anomri.cohort import Cohort
    from anomri.method import Method

HealthyOption = Annotated[
    Path,
    option(
        "--cohort",
        metavar="PATH",
        panel=SCANS,
        help="Healthy scans: a folder of NIfTI files, a BIDS data set, or a .csv or .tsv table.",
    ),
]


def fit(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="Name of a method; 'anomri methods' lists them.")],
    cohort: HealthyOption,
    out: Annotated[
        Path,
        option(
            "--out", "-o", metavar="FOLDER", help="Model folder to write. The same command goes on from what is there."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        option(
            "--set",
            metavar="NAME=VALUE",
            show_default=False,
            help="An argument of the method, such as width=8. May be repeated.",
        ),
    ] = None,
    validate: Annotated[
        int,
        option(
            "--validate",
            metavar="N",
            panel=SCANS,
            min=0,
            help="Hold out N healthy subjects, drawn by --seed, to pick the best weights.",
        ),
    ] = 0,
    split: SplitOption = None,
    fold: FoldOption = None,
    dataset: DatasetOption = None,
    sequence: SequenceOption = None,
    where: WhereOption = None,
    preset: Annotated[
        str,
        option(
            "--preset",
            metavar="NAME",
            panel=PREPARING,
            help=f"What is done to the scans first, as these papers do it: {PRESET_NAMES}; or none, for scans that 'anomri preprocess' wrote.",
        ),
    ] = "itermask3d",
    spacing: SpacingOption = None,
    strip: StripOption = "auto",
    n4: N4Option = None,
    register: RegisterOption = None,
    template: TemplateOption = None,
    register_by: RegisterByOption = None,
    prepare: PrepareOption = None,
    minutes: Annotated[
        float | None,
        option(
            "--minutes",
            metavar="N",
            panel=RUNNING,
            show_default=False,
            help="Pause after so long; the same command goes on.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        option(
            "--start",
            metavar="MODEL",
            panel=RUNNING,
            show_default=False,
            help="Begin with this model's weights instead of random ones.",
        ),
    ] = None,
    half: Annotated[bool, option("--half", panel=RUNNING, help="Store weights as bfloat16: half the size.")] = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Learn what is normal from healthy scans, and write a model folder.

    Checkpoints and a log of the losses lie in the model folder, under training/. A run that was killed or paused goes on with the same
    command; one that is finished is left as it is. For several devices or machines start it with torchrun.
    """
    from anomri import files
    from anomri.cohorts.splits import LEFT_OUT
    from anomri.methods import load
    from anomri.nets.device import pick_device
    from anomri.report import figures
    from anomri.run import public
    from anomri.train import Job, processes

    with remarks(quiet) as say:
        built = _built(method, settings)
        if start is not None:
            built.begin_with(load(start))
        registered = registration_of(register, template, register_by)
        more = {**registered, **prepared_by(preset, prepare)}
        built.preset, built.preset_arguments = preset, given_to(preset, "auto", spacing=spacing, n4=n4, **more)
        pipeline = pipeline_of(built, strip)
        pick_device(device)
        parts = parts_of(opened(cohort, sequence, where, dataset), split, validate, seed, fold)
        asked = _asked(built, parts, strip, half, seed)
        if (old := _finished(out, asked)) is not None:
            say(f"{out} is fitted already, on the same scans with the same settings; nothing to do")
            if as_json:
                print_json({"out": str(out), **old})
            return
        rank, _ = processes()
        silent = quiet or rank > 0
        used = {name: part.map(*pipeline) for name, part in parts.items() if name != "test"}
        ready: dict[str, Cohort] = {}
        left_out: dict[str, str] = {}
        for name, part in used.items():
            with progress(silent, f"Reading ({name})", len(part)) as told:
                ready[name], wrong = part.usable(told)
            left_out |= {id: public(said, part.entries[part.ids.index(id)]) for id, said in wrong.items()}
        if rank == 0:
            for said in left_out.values():
                say(f"Left out: {said}")
            counts = f"{len(ready['fit'])} scans, choosing the weights on {len(ready['validate'])} others"
            say(f"Fitting {built.title} on {counts}{_grid_of(ready['fit'])}")
        with progress(silent, "Training") as told:

            def step(at: Mapping[str, Any]) -> None:
                best = "" if at["validation"] is None else f", best validation {at['validation']:.4f}"
                left = (
                    f"{at['seconds_left'] / 60:.0f} min left"
                    if at["seconds_left"] >= 90
                    else f"{at['seconds_left']:.0f} s left"
                )
                told(
                    at["step"],
                    f"loss {at['loss']:.4f}{best}, {at['seconds_per_step']:.2f} s a step, {left}",
                    at["steps"],
                )

            job = Job(out / "training", device, minutes=minutes, warm=start is not None, progress=step)
            built.fit(
                ready["fit"], validation=ready["validate"] if len(ready["validate"]) else None, seed=seed, job=job
            )
        if rank == 0:
            built.data = {**built.data, "left_out": left_out, "asked": asked}
            rows = [
                {"id": id, "split": LEFT_OUT if id in left_out else name}
                for name, part in parts.items()
                for id in part.ids
            ]
            files.write_table(out / "split.tsv", rows, ["id", "split"])
            built.save(out, half=half)
            if built.data.get("log"):
                figures.save(figures.training_curve(built.data["log"]), out / "training" / "curve.png")
            state = "finished" if built.data.get("finished", True) else "paused; the same command goes on"
            say(f"Wrote {out} ({state}; which scans were used for what: {out / 'split.tsv'})")
            if as_json:
                print_json({"out": str(out), **built.data})


def _grid_of(scans: Cohort) -> str:
    """The size of a voxel of the first scan in mm, in words; nothing of no scan."""
    if not len(scans):
        return ""
    edges = [f"{edge:.3g}" for edge in scans[0].spacing]
    return f", at {edges[0] if len(set(edges)) == 1 else ' x '.join(edges)} mm"


def _built(method: str, settings: list[str] | None) -> Method:
    from anomri.methods import make

    arguments = settings_of(method, settings)
    try:
        return make(method, **arguments)
    except BadCall:
        raise
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        said = " ".join(f"--set {name}={value}" for name, value in arguments.items())
        raise BadCall(f"method '{method}' cannot be made with {said} ({str(error).splitlines()[0]})") from error


def _asked(method: Method, parts: Mapping[str, Cohort], strip: str, half: bool, seed: int) -> str:
    """A hash of all that a fit depends on, without reading a scan."""
    import hashlib
    import json

    from anomri import files
    from anomri.method import versions

    about = {
        "method": method.name,
        "arguments": method.arguments,
        "preset": [method.preset, method.preset_arguments, strip],
        "scans": {name: part.digest() for name, part in parts.items()},
        "half": half,
        "seed": seed,
        "start": method.weights_sha256,
        "version": versions()["anomri"],
    }
    return hashlib.sha256(json.dumps(files.plain(about), sort_keys=True).encode()).hexdigest()


def _finished(out: Path, asked: str) -> Mapping[str, Any] | None:
    """What is known of a model that a finished fit with the same settings left in a folder; else None."""
    from anomri.methods import load

    if not (out / "model.json").exists():
        return None
    data = load(out).data
    return data if data.get("asked") == asked and data.get("finished", True) else None


def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder.")],
    cohort: HealthyOption,
    rate: Annotated[
        float,
        option("--rate", metavar="SHARE", help="Share of healthy brain voxels that may exceed the map's threshold."),
    ] = 0.01,
    out: Annotated[
        Path | None,
        option(
            "--out",
            "-o",
            metavar="FOLDER",
            show_default=False,
            help="Where to write the calibrated model. Default: into its own folder.",
        ),
    ] = None,
    split: SplitOption = None,
    fold: FoldOption = None,
    dataset: DatasetOption = None,
    sequence: SequenceOption = None,
    where: WhereOption = None,
    strip: StripOption = "auto",
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set a model's threshold, and its healthy range of scores, from healthy scans that it was not fitted on. Needs no labels.

    With --split, the scans of 'validate' are used.
    """
    from anomri.methods import WEIGHTS, load
    from anomri.run import public

    with remarks(quiet) as say:
        method = load(model)
        method.device = device
        method.runtime()
        if out is None and not Path(model).exists():
            raise BadCall(
                f"'{model}' comes with the package ('{WEIGHTS.name}'), which is left as it is; name a folder with --out"
            )
        if not 0 < rate < 1:
            raise BadCall(f"--rate is {rate:g}, needs to be between 0 and 1, such as 0.01")
        scans = opened(cohort, sequence, where, dataset)
        if split is not None:
            scans = parts_of(scans, split, 0, seed, fold)["validate"]
        with progress(quiet, "Reading", len(scans)) as told:
            healthy, wrong = scans.map(*pipeline_of(method, strip)).usable(told)
        for id, why in wrong.items():
            say(f"Left out: {public(why, scans.entries[scans.ids.index(id)])}")
        done = 0
        with progress(quiet, "Calibrating", len(healthy)) as told:

            def counted(scan: Any) -> Any:
                nonlocal done
                done += 1
                told(done, scan.id)
                return scan

            method.calibrate(healthy.map(counted), rate=rate, seed=seed)
        folder = method.save(out or model)
        say(
            f"In {len(healthy)} healthy scan{'s' * (len(healthy) != 1)}, a share of {rate:g} of the brain exceeds {method.threshold:.4g}. Wrote {folder}"
        )
        if as_json:
            print_json({"out": str(folder), "threshold": method.threshold, **method.data["calibration"]})


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", show_default=False, help="One of them, to read more about it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the methods, and the models that come with the package; or tell more of one: a method's arguments, a model's card."""
    from anomri.methods import METHODS, WEIGHTS, load, method_class, shipped

    with remarks(False):
        rows = [
            {name: getattr(m, name) for name in ("name", "title", "year", "dimensions", "needs", "paper")}
            for m in METHODS
        ]
        loaded = {one: load(one) for one in shipped()}
        models = [{"name": one, "method": m.name, **m.data} for one, m in loaded.items()]
        if name is not None:
            rows, models = ([one for one in some if one["name"] == name] for some in (rows, models))
            if not rows and not models:
                raise unknown("method or model", name, [*(m.name for m in METHODS), *loaded])
        if as_json:
            print_json({"methods": rows, "models": models})
            return
        if name is not None:
            card = WEIGHTS / name / "README.md"
            typer.echo(_arguments(method_class(name)) if rows else card.read_text(encoding="utf-8").rstrip())
            return
        typer.echo("Methods, for 'anomri fit': name, dimensions, year, what it needs, paper")
        columns = ("name", "dimensions", "year", "needs", "paper")
        wide = [max(len(str(row[column])) for row in rows) for column in columns]
        for row in rows:
            typer.echo("  " + "  ".join(f"{row[name]!s:{n}}" for name, n in zip(columns, wide, strict=True)).rstrip())
        typer.echo("Models in the package, for 'anomri detect --model':")
        for model in models:
            grid = " x ".join(f"{s:g}" for s in model["spacing_mm"]) + " mm"
            shown = ", ".join(" or ".join(names) for names in loaded[model["name"]].learned)
            typer.echo(
                f"  {model['name']}: {model['method']}, fitted on {model['scans']} healthy {shown} scans at {grid}"
            )
        typer.echo("More of one, such as its arguments or its card: anomri methods NAME")


def _arguments(method: type[Method]) -> str:
    """What a method says of itself: its paper, and each argument with its default, for --set."""
    import inspect

    said = inspect.getdoc(method) or method.title
    defaults = {
        name: one.default
        for name, one in inspect.signature(method).parameters.items()
        if one.default is not inspect.Parameter.empty
    }
    given = "\n".join(f"  --set {name}={value}" for name, value in defaults.items())
    return f"{method.paper} ({method.year})\n\n{said}\n\nDefaults\n{given}"
