"""The verb corrupt: a scan with an artefact whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anomri.cli.choosing import SCANS, BrainOption, JsonOption, QuietOption, SeedOption, option
from anomri.cli.terminal import print_json, remarks
from anomri.errors import BadCall


def corrupt(
    scan: Annotated[
        Path | None, typer.Argument(metavar="[SCAN]", help="A scan (.nii or .nii.gz).", show_default=False)
    ] = None,
    name: Annotated[
        str | None, option("--artefact", "-a", metavar="NAME", show_default=False, help="Which one; --list names them.")
    ] = None,
    severity: Annotated[
        float,
        option("--severity", "-s", metavar="S", help="0 changes nothing, 1 is the paper's constant, more is worse."),
    ] = 1.0,
    out: Annotated[
        Path | None, option("--out", "-o", metavar="FILE", show_default=False, help="Where the result goes.")
    ] = None,
    truth: Annotated[
        Path | None,
        option(
            "--truth", metavar="FILE", show_default=False,
            help="Where a mask of the artefact goes, for those that lie somewhere.",
        ),
    ] = None,
    brain: BrainOption = None,
    show: Annotated[bool, option("--list", panel=SCANS, help="List the artefacts.")] = False,
    seed: SeedOption = 0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Put an artefact into a scan: missing tissue, noise, ghosts, metal, a failed brain extraction, and others.

    The result has the file's own grid and orientation, and 32-bit floats. Without --brain, an image without its skull is its own mask;
    artefacts of the brain's surface, and missing chunks, need a mask.
    """
    with remarks(quiet) as say:
        if show:
            _list(as_json)
            return
        if scan is None or name is None or out is None:
            raise BadCall("name a scan, an --artefact and the file --out; 'anomri corrupt --list' lists the artefacts")
        import torch

        from anomri import files
        from anomri.corruptions.artefacts import artefact, corrupt_scan
        from anomri.preprocess.brain import stripped_mask
        from anomri.preprocess.space import reorient, to_native

        chosen = artefact(name)
        if truth is not None and chosen.local is None:
            raise BadCall(f"{name} is everywhere in the image, so there is no --truth to write; leave it out")
        _check_files(scan, brain, out, truth)
        own = files.read_scan({"T1w": scan}, brain=brain)
        found = None if own.stripped else stripped_mask(own)
        healthy = reorient(own if found is None else own.with_(brain=found))
        if chosen.local is not None and not healthy.stripped:
            raise BadCall(f"{name} is placed by the brain, and '{scan}' has its skull on; give its mask with --brain")
        made = corrupt_scan(healthy, name, torch.Generator().manual_seed(seed), severity)
        # A label keeps its values; an image would lose its background, and the tissue left on by a failed extraction.
        files.write_image(out, to_native(made, made.image[0], "label"), own.grid, own.origin)
        told = f"{chosen.title}, severity {severity:g}: {out}"
        if truth is not None and made.lesion is not None:
            files.write_image(truth, to_native(made, made.lesion, "label"), own.grid, own.origin)
            told += f". Truth ({float(made.lesion.sum()) * made.voxel_ml:.1f} ml): {truth}"
        if (made.brain != healthy.brain).any() and (made.image == healthy.image).all():
            told += ". The image is as it was: with its head on, only the brain mask changes, by the truth"
        say(told)
        if as_json:
            where = {"out": str(out), "truth": None if truth is None else str(truth)}
            print_json({"artefact": name, "severity": severity, "seed": seed, **where})


def _check_files(scan: Path, brain: Path | None, out: Path, truth: Path | None) -> None:
    from anomri import files

    given = [path for path in (scan, brain) if path is not None]
    for path in given:
        if path.is_dir():
            raise BadCall(f"'{path}' is a folder, not an image; name a file (.nii or .nii.gz)")
        if not path.is_file():
            raise BadCall(f"there is no file '{path}'; check the path")
    made = [path for path in (out, truth) if path is not None]
    for path in made:
        if not path.name.endswith(files.NIFTI):
            raise BadCall(f"'{path}' has no NIfTI ending; use .nii.gz or .nii")
    places = [path.resolve() for path in (*given, *made)]
    if len(set(places)) < len(places):
        raise BadCall("the scan, --brain, --out and --truth are not all different files; a scan is never written over")


def _list(as_json: bool) -> None:
    from anomri.corruptions.artefacts import ARTEFACTS

    rows = [
        {"name": a.name, "title": a.title, "truth": "mask" if a.local else "whole image", "source": a.source}
        for a in ARTEFACTS
    ]
    if as_json:
        print_json({"artefacts": rows})
        return
    typer.echo("Artefacts, for 'anomri corrupt --artefact':")
    for row in rows:
        typer.echo(f"  {row['name']}: {row['title']}, {row['truth']}. {row['source']}")
