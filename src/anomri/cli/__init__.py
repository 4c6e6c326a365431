"""The command line: thin verbs over the library. Heavy imports happen inside them, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from anomri.cli import cohorts, studying
from anomri.cli.corrupting import corrupt
from anomri.cli.learning import calibrate, fit, methods
from anomri.cli.looking import demo, detect, preprocess, report
from anomri.cli.making import phantom
from anomri.cli.terminal import BAD_CALL, complain

__all__ = ["app", "main"]

INTERRUPTED = 130
# typer's own copy of click's ClickException; its module has moved between versions.
WrongCall: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="anomri",
    help="Find what is abnormal in a brain MRI scan, having learned only from healthy ones. For research use only: not a diagnosis.",
    epilog="Begin with: anomri demo\n\nThen look at a scan of yours: anomri detect scan.nii.gz --out results/\n\nEach command has its own help, such as: anomri detect --help",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

VERBS: dict[Callable[..., None], tuple[str, ...]] = {
    detect: (
        "anomri detect scan.nii.gz --out results/",
        "anomri detect scan.nii.gz --brain brain_mask.nii.gz --id 01 --out results/",
        "anomri detect --image T1w=t1.nii.gz --image FLAIR=flair.nii.gz --model mine/ --out results/",
        "anomri detect --cohort bids/ --where group=patient --out results/",
    ),
    report: ("anomri report results/", "anomri report results/ --pages --images scans/"),
    demo: ("anomri demo --out demo/",),
    preprocess: (
        "anomri preprocess scan.nii.gz --spacing 2 --out preprocessed/",
        "anomri preprocess --cohort bids/ --preset behrendt --out preprocessed/",
    ),
    fit: (
        "anomri fit itermask3d --cohort healthy/ --validate 12 --spacing 2 --out mine/",
        "anomri fit itermask3d --cohort healthy/ --spacing 2 --set width=8 --set steps=4000 --out mine/",
    ),
    calibrate: (
        "anomri calibrate mine/ --cohort other_healthy/",
        "anomri calibrate mine/ --cohort healthy/ --split mine/split.tsv",
    ),
    methods: ("anomri methods",),
    corrupt: (
        "anomri corrupt --list",
        "anomri corrupt scan.nii.gz --artefact ghosting --severity 0.5 --out ghosting.nii.gz",
        "anomri corrupt scan.nii.gz --artefact ring --out ring.nii.gz --truth ring_mask.nii.gz",
    ),
    phantom: (
        "anomri phantom --n 10 --spacing 2 --out phantoms/",
        "anomri phantom --n 5 --sequence T1w,FLAIR --lesion stroke --contrast hypo,hyper --ml 10 --out strokes/",
    ),
}
"""Each command, and examples of its use."""
GROUPS: dict[str, tuple[str, dict[Callable[..., None], tuple[str, ...]]]] = {
    "cohort": (cohorts.HELP, cohorts.VERBS),
    "study": (studying.HELP, studying.VERBS),
}
"""Commands of commands: what each is about, its commands, and examples of their use."""


def _add(to: typer.Typer, verbs: dict[Callable[..., None], tuple[str, ...]]) -> None:
    for verb, examples in verbs.items():
        to.command(
            verb.__name__.rstrip("_"),
            help="\n\n".join(" ".join(part.split()) for part in str(verb.__doc__).split("\n\n")),
            epilog="\n\n".join(("Examples:" if len(examples) > 1 else "Example:", *examples)),
        )(verb)


_add(app, VERBS)
for _name, (_help, _verbs) in GROUPS.items():
    _group = typer.Typer(name=_name, help=_help, no_args_is_help=True)
    _add(_group, _verbs)
    app.add_typer(_group)


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from anomri import __version__

        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, `sys.argv` where no arguments are given; returns the exit code."""
    # Before torch is loaded, which reads it once: large tensors take large pages, on Linux. A network's pass takes memory anew, and
    # clearing small pages takes as long as the convolutions do.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            code = app(args=None if arguments is None else list(arguments), prog_name="anomri", standalone_mode=False)
        if code == INTERRUPTED:
            # Newer versions of typer turn Ctrl-C into this code, older ones raise.
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except WrongCall as error:
        said = " ".join(error.format_message().replace("Value error, ", "").split()).removesuffix(".")
        path = getattr(getattr(error, "ctx", None), "command_path", "anomri")
        complain(f"{said[:1].lower()}{said[1:]}" + (" See" if said.endswith("?") else "; see") + f" '{path} --help'")
        return BAD_CALL
    except OSError as error:
        complain(f"{error.strerror or error}" + (f": '{error.filename}'" if error.filename else ""))
        return BAD_CALL
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted; run the same command again to go on")
        return INTERRUPTED
