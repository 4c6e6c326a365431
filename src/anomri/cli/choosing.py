"""Options that several verbs share, and what they mean: which scans, which preprocessing."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from importlib.abc import InspectLoader
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomri.errors import BadCall, BadInput, unknown

if TYPE_CHECKING:
    from anomri.cohort import Cohort, Step
    from anomri.method import Method

SCANS, PREPARING, RUNNING = "Which scans", "Preprocessing", "How it runs"
PARTS = ("fit", "validate", "test")
ENDINGS = {"t1w": "T1w", "t1": "T1w", "t2w": "T2w", "t2": "T2w", "flair": "FLAIR"}
"""Endings of file names that tell a sequence."""
GIVES = {
    "strip": ("--strip",),
    "spacing": ("--spacing",),
    "n4": ("--n4",),
    "register": ("--register", "--template"),
    "register_by": ("--register-by",),
}
"""The arguments of presets that the command line gives, and by which options."""


def option(*names: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """A typer option; a default of None is not shown."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def _presets() -> str:
    """The names of `anomri.preprocess.PRESETS`, read off its source: to import it takes seconds, and help answers at once."""
    spec = find_spec("anomri.preprocess")
    source = spec.loader.get_source(spec.name) if spec and isinstance(spec.loader, InspectLoader) else None
    for node in ast.parse(source or "").body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.value, ast.Dict)
            and ast.unparse(node.target) == "PRESETS"
        ):
            return ", ".join(ast.literal_eval(key) for key in node.value.keys if key)
    return "an unknown name lists them"


PRESET_NAMES = _presets()

CohortOption = Annotated[
    Path | None,
    option(
        "--cohort", metavar="PATH", panel=SCANS, show_default=False,
        help="Many scans: a folder of NIfTI files, a BIDS data set, or a .csv or .tsv table (columns id, one per sequence, optional brain, lesion, group).",
    ),
]  # fmt: skip
DatasetOption = Annotated[
    str | None,
    option(
        "--dataset", metavar="NAME", panel=SCANS, show_default=False,
        help="The cohort is a data set in its owners' layout: 'anomri cohort list' names those that are known, such as brats2021.",
    ),
]  # fmt: skip
SequenceOption = Annotated[
    str | None,
    option(
        "--sequence", metavar="NAME", panel=SCANS, show_default=False,
        help="MRI sequence: T1w, T2w, FLAIR. Default: as the file's name ends, else T1w.",
    ),
]  # fmt: skip
WhereOption = Annotated[
    list[str] | None,
    option(
        "--where", metavar="COLUMN=VALUE", panel=SCANS, show_default=False,
        help="Only scans of which participants.tsv, or the table, says so. May be repeated.",
    ),
]  # fmt: skip
BrainOption = Annotated[
    Path | None,
    option(
        "--brain", metavar="FILE", panel=SCANS, show_default=False,
        help="Brain mask of the one scan, on its grid: above 0.5 is inside.",
    ),
]  # fmt: skip
IdOption = Annotated[
    str | None,
    option("--id", metavar="NAME", panel=SCANS, show_default=False, help="Name of the one scan in the results. Default: its file's name."),
]  # fmt: skip
StripOption = Annotated[
    str,
    option(
        "--strip", metavar="HOW", panel=PREPARING,
        help="How the brain is found: auto (a scan without its skull is taken as it is, others go through deepbet, T1w only), deepbet, robex (any sequence; pip install 'anomri\\[strip]'), or stripped.",
    ),
]  # fmt: skip
N4Option = Annotated[
    bool | None,
    option("--n4/--no-n4", panel=PREPARING, show_default=False, help="Correct the bias field by N4. Default: as the model, or else the paper, has it."),
]  # fmt: skip
RegisterOption = Annotated[
    bool | None,
    option(
        "--register/--no-register", panel=PREPARING, show_default=False,
        help="Register affinely to MNI152, or to --template. Default: as the model, or else the paper, has it.",
    ),
]  # fmt: skip
TemplateOption = Annotated[
    Path | None,
    option(
        "--template", metavar="FILE", panel=PREPARING, show_default=False,
        help="Skull-stripped template to register to, instead of MNI152.",
    ),
]  # fmt: skip
RegisterByOption = Annotated[
    str | None,
    option(
        "--register-by", metavar="NAME", panel=PREPARING, show_default=False,
        help="simpleitk (default), or greedy (faster; pip install 'anomri\\[reg]').",
    ),
]  # fmt: skip
SpacingOption = Annotated[
    float | None,
    option(
        "--spacing", metavar="MM", panel=PREPARING, show_default=False,
        help="Edge of a voxel in mm, where the preset leaves it open: 1 is the paper's, 2 takes an eighth of the time and memory. Default: 1.",
    ),
]  # fmt: skip
PrepareOption = Annotated[
    list[str] | None,
    option(
        "--prepare", metavar="NAME=VALUE", panel=PREPARING, show_default=False,
        help="Any other argument of the preset, such as clip=-3,4 (z-scores beyond are set to these). May be repeated.",
    ),
]  # fmt: skip
SplitOption = Annotated[
    Path | None,
    option(
        "--split", metavar="TABLE", panel=SCANS, show_default=False,
        help="Table with columns id and split (fit, validate or test; train is fit), as 'anomri cohort split' writes it. Scans of test are never read.",
    ),
]  # fmt: skip
FoldOption = Annotated[
    int | None,
    option(
        "--fold", metavar="N", panel=SCANS, show_default=False,
        help="The fold of the --split that is held out, for a table with folds.",
    ),
]  # fmt: skip
SeedOption = Annotated[
    int, option("--seed", metavar="N", panel=RUNNING, min=0, max=2**63 - 1, help="The same seed gives the same result.")
]
DeviceOption = Annotated[
    str,
    option("--device", metavar="NAME", panel=RUNNING, help="auto (a GPU where there is one), cpu, cuda, cuda:1, ..."),
]
JobsOption = Annotated[
    int,
    option("--jobs", "-j", metavar="N", panel=RUNNING, min=1, help="So many scans at a time, sharing the processor."),
]
ShardOption = Annotated[
    str,
    option(
        "--shard", metavar="I/N", panel=RUNNING,
        help="Only the I-th of N parts of the cohort, for array jobs; 'anomri report' gathers them.",
    ),
]  # fmt: skip
OverwriteOption = Annotated[bool, option("--overwrite", panel=RUNNING, help="Do scans again that are done already.")]
QuietOption = Annotated[bool, option("--quiet", "-q", panel=RUNNING, help="Print errors only.")]
JsonOption = Annotated[bool, option("--json", panel=RUNNING, help="Print the result as JSON on stdout.")]


def scans_of(
    paths: list[Path] | None,
    images: list[str] | None,
    cohort: Path | None,
    sequence: str | None,
    brain: Path | None,
    id: str | None,
    where: list[str] | None,
    dataset: str | None = None,
) -> Cohort:
    """The scans that a command line names; a file that it names and that is not there is a bad call."""
    from anomri.cohort import Cohort

    given = [name for name, value in (("files", paths), ("--image", images), ("--cohort", cohort)) if value]
    if len(given) != 1:
        raise BadCall(
            f"name what to look at in one way: files, --image SEQUENCE=FILE, or --cohort; got {' and '.join(given) or 'none'}"
        )
    if cohort is not None:
        if brain is not None or id is not None:
            raise BadCall(
                "--brain and --id are for one scan; in a cohort, masks and ids come from the table or the BIDS names"
            )
        return opened(cohort, sequence, where, dataset)
    if dataset is not None:
        raise BadCall("--dataset says how a --cohort is laid out; there is none")
    if where:
        raise BadCall("--where selects from a --cohort; there is none")
    if images:
        if sequence is not None:
            raise BadCall("--sequence is for files; --image SEQUENCE=FILE names the sequence itself")
        named = pairs_of(images, "--image")
        if len(named) < len(images):
            raise BadCall("--image names a sequence twice; each of a scan's sequences has one file")
        return Cohort([_entry({name: Path(path) for name, path in named.items()}, brain, id)])
    paths = paths or []
    if len(paths) > 1 and (brain is not None or id is not None):
        raise BadCall(
            f"--brain and --id are for one scan, {len(paths)} were given; use a --cohort table with a column brain"
        )
    entries = [_entry({sequence or _sequence(path): path}, brain, id) for path in paths]
    called: dict[str, Path] = {}
    for entry, path in zip(entries, paths, strict=True):
        if called.setdefault(entry.id, path) != path:
            raise BadCall(
                f"'{called[entry.id]}' and '{path}' are both scan '{entry.id}'; look at one sequence at a time, each with its own --out"
            )
    return Cohort(entries)


def _entry(images: dict[str, Path], brain: Path | None, id: str | None) -> Any:
    from anomri import files
    from anomri.cohort import Entry

    for path in (*images.values(), *([brain] if brain else [])):
        if path.is_dir():
            raise BadCall(f"'{path}' is a folder, not an image; look at all scans in it with --cohort")
        if not path.exists():
            raise BadCall(f"there is no file '{path}'; check the path")
    name = files.stem(next(iter(images.values())))
    base, _, ending = name.rpartition("_")
    plain = base if base and (ending in images or ending.lower() in ENDINGS) else name
    return Entry(id or plain, {k: str(p) for k, p in images.items()}, str(brain) if brain else None)


def _sequence(path: Path) -> str:
    from anomri import files

    return ENDINGS.get(files.stem(path).rpartition("_")[2].lower(), "T1w")


def opened(cohort: Path, sequence: str | None, where: list[str] | None, dataset: str | None = None) -> Cohort:
    """The scans of a --cohort."""
    from anomri.cohorts import open_cohort

    said = pairs_of(where, "--where") or None
    return open_cohort(cohort, sequence=sequence or "T1w", where=said, dataset=dataset)


def parts_of(whole: Cohort, split: Path | None, validate: int, seed: int, fold: int | None = None) -> dict[str, Cohort]:
    """The cohort's parts fit, validate and test, from a table or drawn by the seed."""
    if split is None:
        fit, held = whole.split(len(set(whole.subjects)) - validate, validate, seed=seed)
        return {"fit": fit, "validate": held}
    from anomri.cohorts import splits

    table = splits.read(split)
    parts: dict[str, list[str]] = {name: [] for name in PARTS}
    for said, ids in table.parts(fold).items():
        if said == splits.LEFT_OUT:
            continue
        name = "fit" if said == splits.TRAIN else said
        if name not in PARTS:
            raise BadInput(
                f"split table '{split}': scan '{ids[0]}' is in '{said}'; it needs columns id and split, "
                f"and each scan in one of {', '.join(PARTS)}"
            )
        parts[name] += ids
    return {name: whole.only(ids) for name, ids in parts.items()}


def pipeline_of(method: Method, strip: str, **changes: Any) -> tuple[Step, ...]:
    """The preprocessing that a method needs, with what the command line changes; `changes` as in `given_to`."""
    return method.pipeline(**given_to(method.preset, strip, **changes))


def given_to(preset: str, strip: str, **options: Any) -> dict[str, Any]:
    """A preset's arguments from the command line: what was not given (None, and the strip "auto") is left to the preset.

    Parameters
    ----------
    options : spacing, n4, and what `registration_of` and `prepared_by` give

    Raises `BadCall` for an unknown preset, an unknown strip, and an option that the preset does not take.
    """
    from anomri.method import NO_PRESET, presets
    from anomri.preprocess import PRESETS

    if preset not in presets():
        raise unknown("preset", preset, presets())
    takes = () if preset == NO_PRESET else tuple(inspect.signature(PRESETS[preset]).parameters)
    options = {"strip": None if checked_strip(strip) == "auto" else strip, **options}
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name not in takes:
            # A template is registered to by the argument "register", too.
            said = "--template" if name == "register" and isinstance(value, str) else GIVES[name][0]
            known = ", ".join(said for name, names in GIVES.items() if name in takes for said in names)
            raise BadCall(f"preset '{preset}' does not take {said}; it takes {known or 'no option of preprocessing'}")
    return given


def registration_of(register: bool | None, template: Path | None, by: str | None) -> dict[str, Any]:
    """A preset's arguments for --register, --template and --register-by; raises `BadCall` where they do not go together."""
    from anomri.preprocess.space import REGISTRATIONS

    if template is not None and register is False:
        raise BadCall("--template registers to a file, --no-register does not register; leave one out")
    if template is not None and not template.is_file():
        raise BadCall(f"template '{template}' does not exist; name a skull-stripped NIfTI image")
    if by is not None and by not in REGISTRATIONS:
        raise unknown("registration", by, REGISTRATIONS)
    where = str(template) if template is not None else register
    return {name: value for name, value in (("register", where), ("register_by", by)) if value is not None}


def checked_strip(strip: str) -> str:
    """A known way to find the brain; raises `BadCall` for another, before any scan is read."""
    from anomri.preprocess.brain import HOWS

    if strip not in HOWS:
        raise unknown("--strip", strip, HOWS)
    return strip


def shard_of(text: str) -> tuple[int, int]:
    """I and N of I/N."""
    i, sign, n = text.partition("/")
    if not (sign and i.isdecimal() and n.isdecimal()):
        raise BadCall(f"--shard '{text}' is not I/N, such as 3/16")
    return int(i), int(n)


def pairs_of(texts: list[str] | None, option: str) -> dict[str, str]:
    """Names and values of an option NAME=VALUE that may be repeated; the last of a name counts. Raises `BadCall`."""
    found: dict[str, str] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        if not name or not value:
            raise BadCall(f"{option} '{text}' is not NAME=VALUE")
        found[name] = value
    return found


def settings_of(method: str, pairs: list[str] | None) -> dict[str, Any]:
    """The arguments that --set gives to a method, in the types of its own defaults."""
    from anomri.methods import method_class

    return _arguments_of(method, inspect.signature(method_class(method)).parameters, pairs, "--set")


def prepared_by(preset: str, pairs: list[str] | None) -> dict[str, Any]:
    """The arguments that --prepare gives to a preset, in the types of its own defaults; for `given_to`."""
    from anomri.method import NO_PRESET, presets
    from anomri.preprocess import PRESETS

    if preset not in presets():
        raise unknown("preset", preset, presets())
    known = {} if preset == NO_PRESET else dict(inspect.signature(PRESETS[preset]).parameters)
    found = _arguments_of(f"preset '{preset}'", known, pairs, "--prepare")
    for name, ways in GIVES.items():
        if name in found:
            raise BadCall(f"--prepare {name}=...: {name} has an option of its own, {' and '.join(ways)}; use that")
    return found


def _arguments_of(
    whose: str, known: Mapping[str, inspect.Parameter], pairs: list[str] | None, way: str
) -> dict[str, Any]:
    """Arguments of NAME=VALUE, in the types of their defaults; raises `BadCall` for an unknown name and another type."""
    found: dict[str, Any] = {}
    for name, said in pairs_of(pairs, way).items():
        if name not in known:
            raise unknown(f"argument of {whose}", name, known)
        try:
            value = ast.literal_eval(said)
        except (ValueError, SyntaxError):
            value = said
        default = known[name].default
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if default not in (None, inspect.Parameter.empty) and type(value) is not type(default):
            raise BadCall(f"{way} {name}={said}: {name} needs {_type(default)}, such as {default}")
        found[name] = value
    return found


def _type(value: Any) -> str:
    return {bool: "True or False", int: "a whole number", float: "a number", str: "a word"}.get(
        type(value), type(value).__name__
    )
