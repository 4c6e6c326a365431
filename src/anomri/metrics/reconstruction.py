"""How well a healthy reconstruction keeps what is healthy: PSNR, SSIM, L1, and what it does to intensities.

`x` is the scan and `healthy` its reconstruction, `(I, J, K)` or `(C, I, J, K)`; `where` is the healthy tissue, brain without
lesion, `(I, J, K)` bool. Channels count alike. A restoration that copies its input scores best here: read these beside
`l1_ratio` and the metrics of segmentation. Every metric is nan where `where` is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from anomri.errors import BadCall
from anomri.scoring import ssim as structural

Image = NDArray[np.float32] | NDArray[np.float64]
Mask = NDArray[np.bool_]
BINS = 500
"""Bins of the histograms (Behrendt et al. 2024, section 4.5.2)."""
CHUNK = 32_768
CONTRAST_SHIFTS = (0.3, 0.7, 1.0, 1.5, 2.0)
"""Exponents of the contrast-shift sweep (Behrendt et al. 2024, section 4.5.2)."""


def l1(x: ArrayLike, healthy: ArrayLike, where: ArrayLike) -> float:
    """Mean absolute difference over `where`, in the scan's intensities; lower is better. Raises `BadCall` for other shapes.

    Source: l1-error, Behrendt's thesis, section 3.2.
    """
    a, b, inside = _inputs(x, healthy, where)
    return _mean(np.abs(_difference(a, b, inside)))


def l1_ratio(x: ArrayLike, healthy: ArrayLike, lesion: ArrayLike, brain: ArrayLike) -> float:
    """`l1` over the lesion divided by `l1` over the rest of the brain; higher is better: healed there, kept elsewhere.

    Parameters
    ----------
    lesion, brain : `(I, J, K)` bool; of the lesion the part inside the brain counts

    nan where either part is empty or both errors are 0, infinite where only the healthy error is 0. Raises `BadCall` for
    other shapes. Source: Behrendt's thesis, section 3.2.
    """
    ill, inside = np.asarray(lesion, dtype=bool), np.asarray(brain, dtype=bool)
    if ill.shape != inside.shape:
        raise BadCall(f"lesion has shape {ill.shape}, brain {inside.shape}; resample one to the other first")
    above, below = l1(x, healthy, ill & inside), l1(x, healthy, inside & ~ill)
    if below == 0:
        return np.inf if above > 0 else np.nan
    return above / below


def psnr(x: ArrayLike, healthy: ArrayLike, where: ArrayLike, *, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB: `10 log10(data_range^2 / mean squared error over where)`; higher is better.

    Parameters
    ----------
    data_range : the span of intensities that counts as the peak. It shifts every value alike, and the papers do not agree
        on it (1 for intensities in [0, 1]; IterMask3D's published code takes the highest healthy intensity of the whole test
        set), so it has no default

    Infinite where both agree. Raises `BadCall` for other shapes or a data range that is not above 0.
    """
    a, b, inside = _inputs(x, healthy, where)
    _above_zero(data_range)
    error = _mean_square_difference(a, b, inside)
    return np.inf if error == 0 else float(10 * np.log10(data_range**2 / error))


def ssim(x: ArrayLike, healthy: ArrayLike, where: ArrayLike, *, data_range: float, sigma: float = 1.5) -> float:
    """Mean over `where` of the 3D SSIM map (`scoring.ssim.ssim_map`), in [-1, 1]; higher is better.

    Parameters
    ----------
    data_range : the span of intensities, as in `psnr`
    sigma : of the Gaussian window in voxels

    A window around a voxel of `where` reaches `int(3.5 * sigma + 0.5)` voxels past its edge, into background and lesion.
    Raises `BadCall` as `psnr` does. Source: Wang et al. 2004; over healthy tissue alone, IterMask2, section 4.
    """
    a, b, inside = _inputs(x, healthy, where)
    _above_zero(data_range)
    box = _box(inside, structural.radius(sigma))
    if box is None:
        return np.nan
    images = (torch.from_numpy(np.ascontiguousarray(image[(slice(None), *box)])) for image in (a, b))
    found = structural.ssim_map(*images, data_range=data_range, sigma=sigma).numpy()
    return _mean(_within(found, inside[box]))


def entropy_difference(
    x: ArrayLike,
    healthy: ArrayLike,
    where: ArrayLike,
    *,
    bins: int = BINS,
    limits: tuple[float, float] | None = None,
) -> float:
    """`(-sum p log p) - (-sum q log q)` of the histograms over `where`, p of the scan and q of its reconstruction.

    What Behrendt et al. print as Kullback-Leibler divergence, which it is not: it is a difference of entropies, is 0 for any
    two histograms that are equally spread, and can be negative. `kl_divergence` is the divergence.

    Parameters
    ----------
    bins, limits : equal bins from the one limit to the other, by default the lowest and highest intensity of both images over
        `where`; values outside go to the outermost bins

    p and q are densities, counts over their total and the bin's width, as printed; natural logarithm. Raises `BadCall` for
    other shapes. Source: Behrendt et al. 2024 (cDDPM), section 4.5.2; in the thesis, chapter 8.3.
    """
    p, q, width = _histograms(x, healthy, where, bins, limits)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(d > 0, d * np.log(d), 0.0 * d) for d in (p / width, q / width)]
    return float(terms[1].sum() - terms[0].sum())


def kl_divergence(
    x: ArrayLike,
    healthy: ArrayLike,
    where: ArrayLike,
    *,
    bins: int = BINS,
    limits: tuple[float, float] | None = None,
    pseudo_count: float = 0.0,
) -> float:
    """Kullback-Leibler divergence `sum P log(P / Q)` in nats of the histograms over `where`; 0 for equal ones, never negative.

    Parameters
    ----------
    bins, limits : as in `entropy_difference`
    pseudo_count : added to every bin of both. At 0 the divergence is infinite wherever the scan has an intensity that its
        reconstruction lacks, which is common at 500 bins; 0.5 (Krichevsky and Trofimov 1981) makes it finite

    P is the scan's, Q its reconstruction's. Raises `BadCall` for other shapes. Source: Kullback and Leibler 1951.
    """
    p, q, _ = _histograms(x, healthy, where, bins, limits, pseudo_count)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / q), 0.0 * p)
    return float(max(terms.sum(), 0.0)) if not np.isnan(p).any() else np.nan


def contrast_shift(x: ArrayLike, cl: float) -> Image:
    """`x^cl`: another scanner's contrast; above 1 darker, below 1 brighter, 0 and 1 stay.

    Parameters
    ----------
    x : intensities scaled to [0, 1], as the preset "behrendt" gives them
    cl : the contrast level, above 0

    Raises `BadCall` for intensities outside [0, 1] or a level that is not above 0. Source: Behrendt et al. 2024 (cDDPM),
    section 4.5.2.
    """
    image = _floating(x)
    if not cl > 0:
        raise BadCall(f"contrast level is {cl:g}, needs to be above 0")
    if image.size and not (image.min() >= 0 and image.max() <= 1):
        raise BadCall(
            f"contrast shift: intensities go from {image.min():g} to {image.max():g}; scale them to [0, 1] first"
        )
    shifted: Image = image ** image.dtype.type(cl)
    return shifted


def contrast_sweep(
    x: ArrayLike,
    restore: Callable[[Image], ArrayLike],
    measure: Callable[[Image, ArrayLike], float],
    shifts: Sequence[float] = CONTRAST_SHIFTS,
) -> dict[float, float]:
    """A measure of restorations under other contrasts, by contrast level.

    Parameters
    ----------
    x : as in `contrast_shift`
    restore : a shifted image to its healthy reconstruction
    measure : of the shifted image and its reconstruction, such as `kl_divergence` over the healthy tissue

    Source: Behrendt et al. 2024 (cDDPM), Fig. 4.
    """
    shifted = {cl: contrast_shift(x, cl) for cl in shifts}
    return {cl: measure(image, restore(image)) for cl, image in shifted.items()}


def _histograms(
    x: ArrayLike,
    healthy: ArrayLike,
    where: ArrayLike,
    bins: int,
    limits: tuple[float, float] | None,
    pseudo_count: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Shares per bin of both images over `where`, nan where it is empty, and the bins' width."""
    a, b, inside = _inputs(x, healthy, where)
    if bins < 1 or pseudo_count < 0:
        raise BadCall(
            f"a histogram needs bins of 1 or more and a pseudo-count of 0 or more, got {bins}, {pseudo_count}"
        )
    values = [_within(image, inside).astype(np.float64) for image in (a, b)]
    if not values[0].size:
        return np.full(bins, np.nan), np.full(bins, np.nan), np.nan
    low, high = limits or (min(v.min() for v in values), max(v.max() for v in values))
    if limits is None and low == high:
        high = low + 1
    if not low < high:
        raise BadCall(f"a histogram's limits need to rise, got {low} and {high}")
    width = (high - low) / bins
    counts = []
    for v in values:
        place = np.clip(np.floor((v - low) / width), 0, bins - 1).astype(np.int64)
        counts.append(np.bincount(place, minlength=bins) + pseudo_count)
    return counts[0] / counts[0].sum(), counts[1] / counts[1].sum(), float(width)


def _inputs(x: ArrayLike, healthy: ArrayLike, where: ArrayLike) -> tuple[Image, Image, Mask]:
    """Both images as `(C, I, J, K)` float, and the mask."""
    a, b, inside = _floating(x), _floating(healthy), np.asarray(where, dtype=bool)
    if a.shape != b.shape or inside.ndim != 3 or a.shape[-3:] != inside.shape or a.ndim > 4:
        raise BadCall(
            f"the scan has shape {a.shape}, its reconstruction {b.shape}, the mask {inside.shape}; "
            "needs (I, J, K) or (C, I, J, K) twice, and (I, J, K)"
        )
    kind = np.result_type(a, b)
    return (
        a.reshape(-1, *inside.shape).astype(kind, copy=False),
        b.reshape(-1, *inside.shape).astype(kind, copy=False),
        inside,
    )


def _floating(x: ArrayLike) -> Image:
    """float32 stays, everything else becomes float64."""
    image = np.asarray(x)
    return image if image.dtype == np.float32 else image.astype(np.float64)


def _difference(a: Image, b: Image, inside: Mask) -> Image:
    """`a - b` over the mask; what lies outside may be infinite."""
    with np.errstate(invalid="ignore"):
        return _within([np.subtract(*channels) for channels in zip(a, b, strict=True)], inside)


def _within(image: Iterable[Image], inside: Mask) -> Image:
    """The values inside, of all channels; channel by channel is several times faster than at once."""
    if inside.all():
        return np.concatenate([channel.ravel() for channel in image])
    return np.concatenate([channel[inside] for channel in image])


def _mean(values: Image) -> float:
    """In double precision: a scan has too many voxels for single."""
    return float(values.mean(dtype=np.float64)) if values.size else np.nan


def _mean_square_difference(a: Image, b: Image, inside: Mask) -> float:
    """In double precision, piece by piece, so that nothing of the images' size is held; what lies outside may be infinite."""
    total, count = 0.0, 0
    with np.errstate(invalid="ignore"):
        for p, q in zip(a, b, strict=True):
            for piece in _pieces(p, q, inside):
                exact = piece.astype(np.float64)
                count += piece.size
                total += float(exact @ exact)
    return total / count if count else np.nan


def _pieces(p: NDArray[Any], q: NDArray[Any], inside: Mask) -> Iterator[NDArray[Any]]:
    """`p - q` of one channel over the mask, a piece at a time that stays in the processor's cache."""
    if inside.all():
        yield from (p.ravel()[k : k + CHUNK] - q.ravel()[k : k + CHUNK] for k in range(0, p.size, CHUNK))
    else:
        yield from (np.subtract(*planes)[m] for *planes, m in zip(p, q, inside, strict=True) if m.any())


def _box(inside: Mask, margin: int) -> tuple[slice, slice, slice] | None:
    """The mask's bounding box and a margin around it, cut at the grid; None for an empty mask."""
    if not inside.any():
        return None
    spans = []
    for axis in range(3):
        seen = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        spans.append(slice(max(0, int(seen[0]) - margin), int(seen[-1]) + 1 + margin))
    return spans[0], spans[1], spans[2]


def _above_zero(data_range: float) -> None:
    if not data_range > 0:
        raise BadCall(f"data_range is {data_range}, needs to be above 0: the span of the intensities")
