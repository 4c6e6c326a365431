"""The verb that makes scans: phantom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from anomri.cli.choosing import RUNNING, DeviceOption, JobsOption, JsonOption, QuietOption, SeedOption, option
from anomri.cli.terminal import SOME_FAILED, print_json, progress, remarks
from anomri.errors import BadCall, BadInput

LESIONS = "Lesions"


def phantom(
    out: Annotated[Path, option("--out", "-o", metavar="FOLDER", help="Folder for the scans, a BIDS data set.")] = Path(
        "phantoms"
    ),
    n: Annotated[
        int | None,
        option("--n", metavar="N", show_default=False, help="How many subjects. Default: 10, or all of --scans."),
    ] = None,
    sequence: Annotated[
        str,
        option(
            "--sequence",
            metavar="NAME",
            help="T1w, T2w, FLAIR, or random (any contrast); several, joined by commas, for each subject.",
        ),
    ] = "T1w",
    spacing: Annotated[float, option("--spacing", metavar="MM", help="Edge of a voxel in mm, 0.5 to 20.")] = 1.0,
    label_maps: Annotated[
        Path | None,
        option(
            "--label-maps",
            metavar="FOLDER",
            show_default=False,
            help="Label maps with FreeSurfer's numbers to paint. Default: the MNI152 tissue maps of nilearn's package.",
        ),
    ] = None,
    scans: Annotated[
        Path | None,
        option(
            "--scans",
            metavar="FOLDER",
            show_default=False,
            help="Healthy T1w scans, as for --cohort, to show as --sequence and other scanners would, instead of making subjects.",
        ),
    ] = None,
    varied: Annotated[
        bool,
        option(
            "--varied",
            help="Subjects of all ages and scanners of all kinds: wide ventricles, thin caps, thick slices, other contrasts. For label maps.",
        ),
    ] = False,
    lesion: Annotated[
        str | None,
        option(
            "--lesion",
            metavar="KIND",
            panel=LESIONS,
            show_default=False,
            help="Plant one in every subject: tumour, stroke or white_matter. Default: all are healthy.",
        ),
    ] = None,
    contrast: Annotated[
        str | None,
        option(
            "--contrast",
            metavar="NAME",
            panel=LESIONS,
            show_default=False,
            help="hyper, hypo or iso (another texture only); several, joined by commas, one for each sequence. Default: hyper.",
        ),
    ] = None,
    ml: Annotated[
        float | None,
        option("--ml", metavar="ML", panel=LESIONS, show_default=False, help="Its volume in ml. Default: 10."),
    ] = None,
    mass_effect: Annotated[
        float | None,
        option(
            "--mass-effect",
            metavar="MM",
            panel=LESIONS,
            show_default=False,
            help="How far it pushes the tissue at its edge outwards, in mm. Default: 0.",
        ),
    ] = None,
    seed: SeedOption = 0,
    jobs: JobsOption = 1,
    device: DeviceOption = "auto",
    overwrite: Annotated[
        bool, option("--overwrite", panel=RUNNING, help="Delete other phantoms that the folder holds.")
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make scans of healthy subjects, with lesions planted in them if asked for; or show real ones in other sequences. No downloads.

    Every subject differs in anatomy, contrast, shading and noise. Its brain mask and the truth of its lesion lie beside it, and
    'detect --cohort' and 'fit --cohort' read the folder. They are phantoms: good for trying things out, no measure of how a
    method does on patients. A run that is stopped goes on with the same command. Exit code 3 if some of --scans could
    not be used.
    """
    from anomri.cohorts import open_cohort
    from anomri.cohorts import phantom as phantoms
    from anomri.cohorts.phantom import dataset
    from anomri.run.flow import Flow

    with remarks(quiet) as say:
        contrasts = contrast and [name.strip() for name in contrast.split(",")]
        said = {"contrast": contrasts, "ml": ml, "mass_effect_mm": mass_effect}
        given: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        if given and lesion is None:
            raise BadCall("--contrast, --ml and --mass-effect are a lesion's; name its kind with --lesion")
        sequences = [name.strip() for name in sequence.split(",") if name.strip()]
        if scans is not None:
            if label_maps is not None or varied:
                raise BadCall(
                    "--label-maps and --varied are of subjects that are made; --scans repaints those that are there"
                )
            real = open_cohort(scans)
            made = phantoms.repainted(real[:n], sequences=sequences, seed=seed, spacing=spacing)
        else:
            made = phantoms.healthy(
                10 if n is None else n,
                sequences=sequences,
                seed=seed,
                spacing=spacing,
                label_maps=label_maps,
                varied=varied,
                device=device,
            )
        n = len(made)
        if contrasts and len(contrasts) not in (1, len(sequences)):
            raise BadCall(
                f"--contrast names {len(contrasts)}, --sequence {len(sequences)}; give one contrast for all, or one for each sequence"
            )
        if lesion is not None:
            made = made.map(phantoms.planted(kind=lesion, seed=seed, **given))
        recipe = {
            "sequences": sequences,
            "seed": seed,
            "spacing": spacing,
            "label_maps": label_maps and label_maps.name,
            **({"varied": True} if varied else {}),
            **({"scans": real.digest()} if scans is not None else {}),
        }
        dataset.begin(out, {**recipe, "n": n, "lesion": lesion, **given}, overwrite=overwrite)
        rows = {} if overwrite else dataset.made(out)
        left_out: list[str] = []
        with progress(quiet, "Making", n) as told:

            def make(index: int) -> list[dict[str, Any] | str]:
                try:
                    return [dataset.store(made[index], out)]
                except BadInput as error:
                    return [str(error)]

            def kept(row: dict[str, Any] | str) -> None:
                if isinstance(row, str):
                    left_out.append(row)
                    told(len(rows) + len(left_out), "left out")
                    return
                # After each: a run that is stopped goes on with the next.
                rows[row["participant_id"]] = row
                dataset.finish(out, [rows[id] for id in made.ids if id in rows])
                told(len(rows) + len(left_out), row["participant_id"])

            todo = [index for index, id in enumerate(made.ids) if id not in rows]
            Flow(jobs).run(todo, make, kept)
        for line in left_out:
            say(f"Left out: {line}")
        say(
            f"Phantoms made: {len(rows)} ({', '.join(sequences)}), in {out}; detect, fit and calibrate take it as --cohort"
        )
        if as_json:
            print_json({"out": str(out), "subjects": [rows[id] for id in made.ids if id in rows]})
        if left_out:
            raise typer.Exit(SOME_FAILED)
