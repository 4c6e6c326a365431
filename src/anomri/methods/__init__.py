"""One paper, one file. `METHODS` lists them; `load` gives back a saved one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomri import files
from anomri.errors import BadCall, BadInput, unknown
from anomri.method import FORMAT, Method
from anomri.methods.ae import AE
from anomri.methods.anoddpm import AnoDDPM
from anomri.methods.autoddpm import AutoDDPM
from anomri.methods.cddpm import CDDPM
from anomri.methods.covariance_model import CovarianceModel
from anomri.methods.dae import DAE
from anomri.methods.ddpm import DDPM
from anomri.methods.itermask2 import IterMask2
from anomri.methods.itermask3d import IterMask3D
from anomri.methods.latent_ddpm import LatentDDPM
from anomri.methods.pddpm import PDDPM
from anomri.methods.spatial_erasing import SpatialErasing
from anomri.methods.threshold import Threshold
from anomri.methods.vae import VAE

METHODS: list[type[Method]] = [
    IterMask3D, IterMask2, AE, VAE, SpatialErasing, DAE, DDPM, AnoDDPM, PDDPM, CDDPM, AutoDDPM, LatentDDPM, Threshold, CovarianceModel,
]  # fmt: skip

DEFAULTS: dict[tuple[str, ...], str] = {
    ("T1w",): "itermask3d-t1w-2mm",
    ("T2w",): "itermask3d-t2w-2mm",
    ("FLAIR",): "itermask3d-flair-2mm",
}
"""The shipped model of scans of each sequence."""

WEIGHTS = Path(__file__).parent.parent / "weights"
"""Model folders that the package ships."""


def method_class(name: str) -> type[Method]:
    """The method of that name; raises `BadCall` for an unknown one."""
    known = {m.name: m for m in METHODS}
    if name not in known:
        raise unknown("method", name, known)
    return known[name]


def make(name: str, /, **arguments: Any) -> Method:
    """A method by name and constructor arguments; raises `BadCall` where they are not its own."""
    cls = method_class(name)
    try:
        return cls(**arguments)
    except TypeError as error:
        raise BadCall(f"method '{name}' does not take these arguments: {', '.join(arguments)} ({error})") from error


def load(folder: str | Path) -> Method:
    """A saved method, ready to `detect`. Runs no code from the folder.

    Parameters
    ----------
    folder : a model folder, or the name of one that the package ships (`shipped()` lists them)

    Raises `BadInput` where it is not a model folder, or one of another format or method.
    """
    place = Path(folder)
    if not place.exists() and str(folder) in shipped():
        place = WEIGHTS / str(folder)
    if not (place / "model.json").is_file():
        raise BadInput(
            f"'{folder}' is not a model folder (no model.json); name one that 'anomri fit' wrote, or a shipped one: {', '.join(shipped()) or 'none'}"
        )
    about = files.read_json(place / "model.json")
    if about.get("format", FORMAT) != FORMAT:
        raise BadInput(
            f"'{place / 'model.json'}' has format {about['format']}, this version reads {FORMAT}; update anomri"
        )
    missing = [
        key
        for key in ("format", "method", "arguments", "preset", "preset_arguments", "threshold", "data")
        if key not in about
    ]
    if missing:
        raise BadInput(
            f"'{place / 'model.json'}' lacks {', '.join(missing)}; it was not written by anomri, or is damaged"
        )
    if not isinstance(about["arguments"], dict):
        raise BadInput(
            f"'{place / 'model.json'}': arguments are {about['arguments']!r}, need an object of names and values"
        )
    try:
        return make(about["method"], **about["arguments"]).take(place, about)
    except BadCall as error:
        raise BadInput(f"'{place / 'model.json'}': {error}") from error


def default_for(sequences: Sequence[str]) -> str:
    """Name of the shipped model that has learned these sequences; that of T1w where none has."""
    return DEFAULTS.get(tuple(sequences), DEFAULTS[("T1w",)])


def shipped() -> list[str]:
    """Names of the model folders in the package."""
    return sorted(p.parent.name for p in WEIGHTS.glob("*/model.json"))
