"""Intensities inside the brain; the background is exactly 0 afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from anomri.errors import BadCall, BadInput
from anomri.scan import Curved, Divided, Scaled, Scan

LANDMARKS = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)
"""Percentiles of the brain that stand for its histogram."""
LOG_FIELD = float(np.log(100.0))
"""No bias field changes intensities by more than this, as a logarithm."""


def zscore(scan: Scan, k: float = 3.0, rounds: int = 4) -> Scan:
    """The scan with mean 0 and SD 1 inside the brain, outliers kept out of both by iteration.

    After the first z-score, mean and SD are taken anew, `rounds` times, from the voxels within `k` SD of the last
    estimate (IterMask3D, section 4.1; k is 3 in the second version of the paper, 2 in the first).

    Raises `BadInput` where a channel is constant inside the brain.
    """
    if k <= 0 or rounds < 0:
        raise BadCall(f"zscore needs k above 0 and rounds of 0 or more, got k={k:g}, rounds={rounds}")
    image = np.zeros(scan.image.shape, dtype=np.float32)
    gains, offsets = [], []
    for channel, values in enumerate(_inside(scan)):
        mean, sd = values.mean(), values.std()
        for _ in range(rounds):
            near = values[np.abs(values - mean) <= k * sd]
            if not near.size:
                raise BadCall(
                    f"zscore: no voxel of scan '{scan.id}' lies within k = {k:g} SD of the mean; use a larger k"
                )
            mean, sd = near.mean(), near.std()
        if not sd > 1e-6 * abs(mean):
            raise BadInput(
                f"scan '{scan.id}': {scan.sequences[channel]} is constant ({mean:g}) inside the brain; "
                "check the image and the brain mask"
            )
        image[channel, scan.brain] = (values - mean) / sd
        gains.append(float(sd))
        offsets.append(float(mean))
    return scan.with_(image=image, history=(*scan.history, Scaled(tuple(gains), tuple(offsets))))


def robust(scan: Scan) -> Scan:
    """The scan with median 0 and median absolute deviation 1/1.4826 inside the brain, which makes a normal distribution's SD 1.

    `zscore` keeps fluid in its mean and SD or not, by how much of it there is; here it matters little, as long as most of the brain is tissue.

    Raises `BadInput` where more than half of a channel has one value. Source: ours.
    """
    image = np.zeros(scan.image.shape, dtype=np.float32)
    gains, offsets = [], []
    for channel, values in enumerate(_inside(scan)):
        middle = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - middle)))
        if not spread > 1e-6 * abs(middle):
            raise BadInput(
                f"scan '{scan.id}': more than half of {scan.sequences[channel]} inside the brain is {middle:g}; "
                "check the image and the brain mask"
            )
        image[channel, scan.brain] = (values - middle) / spread
        gains.append(spread)
        offsets.append(middle)
    return scan.with_(image=image, history=(*scan.history, Scaled(tuple(gains), tuple(offsets))))


SCALES = {"zscore": zscore, "robust": robust}
"""Ways to give intensities their unit."""


def percentile(scan: Scan, q: float = 99.0, low: float = 0.0, high: float = 1.0) -> Scan:
    """The scan with 0 at `low` and the q-th percentile inside the brain at `high`, cut to that range, 0 outside the brain.

    [0, 1] is the thesis's (section 3.1.1); IterMask2's is [-3, 3] with the 90th. Raises `BadInput` where that percentile is not above 0.
    """
    image = np.zeros(scan.image.shape, dtype=np.float32)
    gains = []
    for channel, values in enumerate(_inside(scan)):
        top = float(np.percentile(values, q))
        if not top > 0:
            raise BadInput(
                f"scan '{scan.id}': the {q:g}th percentile of {scan.sequences[channel]} inside the brain is {top:g}, "
                "needs to be above 0; check the image and the brain mask"
            )
        image[channel, scan.brain] = low + (high - low) * (values / top).clip(0, 1)
        gains.append(top / (high - low))
    offsets = tuple(-low * gain + 0.0 for gain in gains)
    return scan.with_(image=image, history=(*scan.history, Scaled(tuple(gains), offsets)))


def clip(scan: Scan, low: float, high: float) -> Scan:
    """The scan with intensities inside the brain no lower and no higher than these, in the image's own unit (SD, of a z-scored one).

    Of a z-scored FLAIR or T2w, fluid lies 2.5 SD from the mean where the z-score counted it and 7 where it did not, which depends on how
    much of it there is: that is no contrast between tissues. What was clipped stays clipped where the scan goes back to its own intensities.

    Raises `BadCall` where `low` is not below `high`. Source: ours.
    """
    low, high = limits((low, high))
    image = scan.image.copy()
    np.clip(image, low, high, out=image, where=scan.brain)
    return scan.with_(image=image)


def limits(clip: Sequence[float]) -> tuple[float, float]:
    """What `clip` clips to; raises `BadCall` for anything but two numbers, the lower one first."""
    numbers = [x for x in clip if isinstance(x, int | float)] if isinstance(clip, list | tuple) else []
    if len(numbers) != 2 or len(clip) != 2 or not numbers[0] < numbers[1]:
        raise BadCall(f"clip is {clip!r}; needs two numbers, the lower one first, such as (-3, 4)")
    return float(numbers[0]), float(numbers[1])


def landmarks(scan: Scan, onto: Sequence[float] | Sequence[Sequence[float]]) -> Scan:
    """The scan with the percentiles `LANDMARKS` of each channel's brain moved onto given values, straight in between.

    Beyond them it goes on at the slope between the second and the last but one: what is far out, such as a lesion, stays far out.

    Parameters
    ----------
    onto : rising, one for each of `LANDMARKS`; `landmarks_of` finds them on healthy scans. Of several channels, such a row for each

    Raises `BadCall` where they do not rise or are too few, `BadInput` where two percentiles of the scan are the same. Source: Nyul and
    Udupa, On standardizing the MR image intensity scale (1999); the slope beyond is ours.
    """
    after = rows(onto)
    if len(after) != len(scan.sequences):
        raise BadCall(
            f"landmarks of {len(after)} channels, scan '{scan.id}' has {len(scan.sequences)}; give a row for each"
        )
    before = [tuple(float(value) for value in np.percentile(values, LANDMARKS)) for values in _inside(scan)]
    for channel, knots in enumerate(before):
        if not all(a < b for a, b in pairwise(knots)):
            raise BadInput(
                f"scan '{scan.id}': two of the percentiles {', '.join(f'{q:g}' for q in LANDMARKS)} of {scan.sequences[channel]} inside "
                "the brain are the same; check the image and the brain mask"
            )
    slopes = tuple((row[-2] - row[1]) / (knots[-2] - knots[1]) for row, knots in zip(after, before, strict=True))
    curve = Curved(tuple(before), tuple(after), slopes)
    moved = np.stack([np.where(scan.brain, curve(x, channel), np.float32(0)) for channel, x in enumerate(scan.image)])
    return scan.with_(image=moved, history=(*scan.history, curve))


def rows(onto: Sequence[float] | Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    """What `landmarks` moves onto, a row for each channel; raises `BadCall` for rows that do not rise or have not one for each of `LANDMARKS`."""
    try:
        found = [tuple(map(float, row)) for row in (onto if np.ndim(onto) == 2 else [onto])]  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise BadCall(f"landmarks are {onto!r}; needs {len(LANDMARKS)} numbers that rise") from error
    for row in found:
        if len(row) != len(LANDMARKS) or not all(a < b for a, b in pairwise(row)):
            raise BadCall(
                f"landmarks: {len(row)} values, needs {len(LANDMARKS)} that rise; 'landmarks_of' finds them on healthy scans"
            )
    return found


def landmarks_of(scans: Iterable[Scan], channel: int = 0) -> list[float]:
    """Means over healthy scans, z-scored, of the percentiles `LANDMARKS` of a channel's brain; for `landmarks`. Raises `BadCall` for none."""
    found = [np.percentile(scan.image[channel][scan.brain], LANDMARKS) for scan in scans]
    if not found:
        raise BadCall("landmarks of no scan; give healthy ones, z-scored")
    return [round(float(value), 4) for value in np.mean(found, axis=0)]


def _inside(scan: Scan) -> Iterator[NDArray[np.float64]]:
    """Each channel's values inside the brain."""
    if not scan.brain.any():
        raise BadInput(f"scan '{scan.id}': its brain mask is empty; extract the brain first (--brain, or --strip)")
    return (channel[scan.brain].astype(np.float64) for channel in scan.image)


def n4(scan: Scan, shrink: int = 4) -> Scan:
    """The scan without its bias field, by N4 (SimpleITK) estimated on a grid `shrink` times coarser.

    Raises `BadInput` where N4 cannot work on it.
    """
    fields = []
    mask = _as_itk(scan, scan.brain.astype(np.uint8))
    for channel, values in zip(scan.image, _inside(scan), strict=True):
        # N4 works on logarithms: values must be positive.
        lift = np.float32(1e-3 - min(values.min(), 0))
        image = _as_itk(scan, np.where(scan.brain, channel + lift, np.float32(0)))
        corrector = sitk.N4BiasFieldCorrectionImageFilter()
        corrector.SetMaximumNumberOfIterations([50] * 4)
        try:
            corrector.Execute(sitk.Shrink(image, [shrink] * 3), sitk.Shrink(mask, [shrink] * 3))
        except RuntimeError as error:
            raise BadInput(
                f"scan '{scan.id}': its grid {scan.grid.shape} is too small for N4 on a {shrink}-fold coarser one; "
                "use a smaller shrink, or no N4"
            ) from error
        log = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image))
        # Far from the brain its splines run away.
        fields.append(np.exp(log.clip(-LOG_FIELD, LOG_FIELD), dtype=np.float32))
    by = np.stack(fields)
    return scan.with_(image=scan.image / by, history=(*scan.history, Divided(by)))


def _as_itk(scan: Scan, volume: NDArray[Any]) -> sitk.Image:
    """A volume as ITK's image. ITK's x is the last axis of an array: so left, nothing is copied twice."""
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(scan.spacing[::-1])
    return image
