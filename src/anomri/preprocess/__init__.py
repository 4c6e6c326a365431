"""Steps `Scan -> Scan`: space, brain, intensity; and the pipelines of the papers, by name.

>>> steps = preset("itermask3d", spacing=2.0)
>>> scan = run(steps, scan)                            # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from anomri import files
from anomri.errors import BadCall, unknown
from anomri.preprocess import brain, intensity, space
from anomri.scan import Scan

Step = Callable[[Scan], Scan]


def run(steps: Iterable[Step], scan: Scan) -> Scan:
    """The scan after every step, in order."""
    for step in steps:
        scan = step(scan)
    return scan


def itermask3d(
    *,
    spacing: float = 1.0,
    strip: brain.How = "auto",
    n4: bool = False,
    register: bool | str = False,
    register_by: str = "simpleitk",
    k: float = 3.0,
    field_mm: float = 192.0,
    scale: str = "zscore",
    clip: Sequence[float] | None = None,
    landmarks: Sequence[float] | Sequence[Sequence[float]] | None = None,
) -> tuple[Step, ...]:
    """IterMask3D, section 4.1: brain alone, isotropic grid, 192 mm field of view around the brain, iterative z-score.

    Parameters
    ----------
    spacing : mm; 1 is the paper's, 2 an eighth of the work
    strip : how the brain is found, where no mask is given (`brain.extract`)
    n4 : correct the bias field
    register : to MNI152, or to the stripped template at this path
    register_by : "simpleitk" or "greedy" (`space.register`)
    k : voxels within `k` SD make mean and SD: 3 in the paper's second version, 2 in its first
    field_mm : edge of the field of view
    scale : "zscore", iterative, the paper's; or "robust", by median and median absolute deviation (`intensity.robust`)
    clip : lowest and highest z-score, such as (-3, 4): what lies beyond is set to them (`intensity.clip`); not the paper's
    landmarks : values that percentiles of the brain are moved onto at last, a row for each of several channels (`intensity.landmarks`);
        not the paper's

    Raises `BadCall` for a `scale`, `clip` or `landmarks` that cannot be.
    """
    if scale not in intensity.SCALES:
        raise unknown("scale", scale, intensity.SCALES)
    low, high = (0.0, 0.0) if clip is None else intensity.limits(clip)
    if landmarks is not None:
        intensity.rows(landmarks)
    return (
        space.reorient,
        partial(brain.extract, how=strip),
        *((intensity.n4,) if n4 else ()),
        *_registered(register, register_by),
        partial(space.resample, spacing=spacing),
        partial(space.crop_or_pad, size_mm=(field_mm,) * 3),
        partial(intensity.zscore, k=k) if scale == "zscore" else intensity.SCALES[scale],
        *((partial(intensity.clip, low=low, high=high),) if clip is not None else ()),
        *((partial(intensity.landmarks, onto=landmarks),) if landmarks is not None else ()),
    )


def behrendt(
    *, strip: brain.How = "auto", n4: bool = True, register: bool | str = True, register_by: str = "simpleitk"
) -> tuple[Step, ...]:
    """Behrendt's thesis, section 3.1.1: 1 mm, registered, stripped, N4, 192 x 192 x 160, 99th percentile to [0, 1], halved,
    15 slices off top and bottom: 96 x 96 x 50 at 2 mm. The template is MNI152 here, SRI24 in the thesis.

    Parameters
    ----------
    strip, n4, register, register_by : as in `itermask3d`
    """
    return (
        space.reorient,
        partial(brain.extract, how=strip),
        *_registered(register, register_by),
        partial(space.resample, spacing=1.0),
        *((intensity.n4,) if n4 else ()),
        partial(space.crop_or_pad, size_mm=(192.0, 192.0, 160.0)),
        intensity.percentile,
        space.halve,
        partial(space.crop_slices, bottom=15, top=15),
    )


def bengs(*, strip: brain.How = "auto") -> tuple[Step, ...]:
    """Spatial erasing (Bengs et al. 2021; thesis, chapter 8.1): stripped, mean 0 and SD 1 in the brain, 158 x 191 x 163 mm around it
    in 64 x 64 x 64 voxels (2.5 x 3.0 x 2.5 mm). The paper's axes are not named, these hold a brain; its denoising is not described
    and left out.

    Parameters
    ----------
    strip : as in `itermask3d`
    """
    return (
        space.reorient,
        partial(brain.extract, how=strip),
        partial(space.resample, spacing=1.0),
        partial(intensity.zscore, rounds=0),
        partial(space.crop_or_pad, size_mm=(158.0, 191.0, 163.0)),
        partial(space.resize, voxels=(64, 64, 64)),
    )


def itermask2(
    *,
    strip: brain.How = "auto",
    slices: Sequence[int] | None = (70, 89),
    pixels: int = 128,
    field_mm: float = 240.0,
    q: float = 90.0,
) -> tuple[Step, ...]:
    """IterMask2, for scans in BraTS space (240 x 240 x 155 at 1 mm): slices 70 to 89, 128 x 128, 0 and the 90th percentile of the
    brain in these slices at -3 and 3. The background is 0 here, as in all presets, and lies in the middle of that range.

    Parameters
    ----------
    strip : as in `itermask3d`
    slices : the first and the last axial one, from 0 at the bottom; None keeps all, for scans in another space
    pixels, field_mm : of a slice
    q : percentile
    """
    return (
        space.reorient,
        partial(brain.extract, how=strip),
        partial(space.resample, spacing=1.0),
        *((partial(space.pick_slices, first=slices[0], last=slices[1]),) if slices is not None else ()),
        partial(space.resize_slices, pixels=pixels, field_mm=field_mm),
        partial(intensity.percentile, q=q, low=-3.0, high=3.0),
    )


def _registered(register: bool | str, by: str) -> tuple[Step, ...]:
    if not register:
        return ()
    arguments: dict[str, Any] = {"template": register} if isinstance(register, str) else {}
    if by != "simpleitk":
        arguments["by"] = by
    return (partial(space.register, **arguments) if arguments else space.register,)


PRESETS: dict[str, Callable[..., tuple[Step, ...]]] = {
    "itermask3d": itermask3d,
    "behrendt": behrendt,
    "bengs": bengs,
    "itermask2": itermask2,
}


def preset(name: str, **arguments: Any) -> tuple[Step, ...]:
    """The pipeline of a paper by name; raises `BadCall` for an unknown name or argument."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    try:
        return PRESETS[name](**arguments)
    except TypeError as error:
        raise BadCall(f"preset '{name}' does not take these arguments: {', '.join(arguments)} ({error})") from error


def describe(steps: Iterable[Step]) -> list[str]:
    """Each step with its arguments, as text: what a result depends on. A file is told by its name and content, not its place."""
    said = []
    for step in steps:
        function = step.func if isinstance(step, partial) else step
        arguments = dict(step.keywords) if isinstance(step, partial) else {}
        if "template" in arguments:
            path = Path(arguments["template"])
            arguments["template"] = f"{path.name} {files.sha256(path)[:12]}" if path.is_file() else path.name
        inner = ", ".join(f"{k}={v!r}" for k, v in sorted(arguments.items()))
        said.append(f"{function.__name__}({inner})")
    return said
