"""Structural similarity, voxel by voxel (Wang et al. 2004, "Image quality assessment", eq. 13).

`SSIM = (2 mu_x mu_y + C1) (2 s_xy + C2) / ((mu_x^2 + mu_y^2 + C1) (s_xx + s_yy + C2))`, `C1 = (0.01 L)^2`, `C2 = (0.03 L)^2`,
where means, variances and the covariance are taken under a Gaussian window around each voxel and L is the data range. It is 1
where both images agree and falls towards -1. It is made for intensities of 0 or more: where the means have opposite signs, as
z-scored ones can, the first factor turns the sign of the second.

The window is separable, and along one axis it is a band matrix, the mirrored edge folded into it: multiplying by the blocks of
its band is several times faster than a convolution.

The ensemble (Behrendt et al., "Ensembled structure-based anomaly scoring") takes windows of several widths and weighs them,
voxel by voxel, by how much they disagree: `sum_s w_s SSIM_s`, `w_s = exp(-SSIM_s) / sum_r exp(-SSIM_r)`. All widths share the
products of the images, made once for a block of rows, so that no more than a block is ever held for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomri.errors import BadCall

K1, K2 = 0.01, 0.03
ENSEMBLE = (0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7)
"""Sigmas of the ensemble in voxels (thesis, chapter 8.4, section 3.2)."""
BLOCK = 16
"""Rows of the band matrix multiplied at once: small enough that little is multiplied by zero."""


def ssim_map(x: Tensor, y: Tensor, *, data_range: float | Tensor, sigma: float = 1.5, dims: int = 3) -> Tensor:
    """SSIM around every voxel of two images.

    Parameters
    ----------
    x, y : `(..., I, J, K)`, or `(..., I, J)` for `dims=2`; float, of one shape
    data_range : L, the span of intensities, above 0; a tensor `(..., 1, 1, 1)` gives each image its own
    sigma : of the Gaussian window, in voxels, which is cut at `int(3.5 * sigma + 0.5)` voxels; 1.5 is Wang's (11 wide)
    dims : how many trailing axes the window spans

    Returns a tensor like `x` of values in [-1, 1]. Edges are mirrored about the outermost voxel. Raises `BadCall` where the
    shapes differ or an argument is out of its range. Source: Wang et al. 2004; the window's width, Behrendt's thesis,
    section 3.4.4.
    """
    return _blockwise(x, y, data_range, (sigma,), dims, next)


def ssim_ensemble(
    x: Tensor, y: Tensor, *, data_range: float | Tensor, sigmas: Sequence[float] = ENSEMBLE, dims: int = 3
) -> Tensor:
    """SSIM around every voxel under several windows, the less alike the more weight: `sum_s w_s SSIM_s`.

    Parameters
    ----------
    x, y, data_range, dims : as for `ssim_map`
    sigmas : of the Gaussian windows, in voxels

    Returns a tensor like `x` of values in [-1, 1], at most the plain mean over the windows: `w` is a softmax of -SSIM over the
    windows, voxel by voxel. Raises `BadCall` as `ssim_map` does, and for no sigma. Source: Behrendt's thesis, section 3.4.4.
    """
    return _blockwise(x, y, data_range, tuple(sigmas), dims, _weighed)


def _weighed(maps: Iterator[Tensor]) -> Tensor:
    """The mean of maps under a softmax of their negatives, one map held at a time."""
    first = next(maps)
    weight = torch.exp(-first)
    weights, total = weight, weight * first
    for found in maps:
        weight = torch.exp(-found)
        weights, total = weights + weight, torch.addcmul(total, weight, found)
    return (total / weights).clamp(-1, 1)


def _blockwise(
    x: Tensor,
    y: Tensor,
    data_range: float | Tensor,
    sigmas: tuple[float, ...],
    dims: int,
    join: Callable[[Iterator[Tensor]], Tensor],
) -> Tensor:
    """Block by block of rows along the first axis: the SSIM map of each sigma, in turn, made one by `join`."""
    if x.shape != y.shape or dims not in (2, 3) or x.ndim < dims:
        raise BadCall(
            f"SSIM over {dims} axes: x has shape {tuple(x.shape)}, y {tuple(y.shape)}; needs one shape, 2 or 3 axes"
        )
    if not sigmas:
        raise BadCall("SSIM under no window; give at least one sigma, in voxels")
    if not all(sigma > 0 for sigma in sigmas) or not bool((torch.as_tensor(data_range) > 0).all()):
        given = ", ".join(f"{sigma}" for sigma in sigmas)
        raise BadCall(f"SSIM needs sigma and data_range above 0, got {given} and {data_range}")
    kind = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    x, y = x.to(kind), y.to(kind)
    # Variances do not change with the origin; near zero their differences of squares are exact.
    origin = x.detach().mean()
    n, blocks = x.shape[-dims], []
    with torch.autocast(x.device.type, enabled=False):
        for rows, seen in _blocks(n, max(sigmas)):
            a, b = (image.narrow(-dims, seen.start, seen.stop - seen.start) - origin for image in (x, y))
            # The formula needs only the sum of both variances, so four images are blurred, not five.
            products = torch.stack([a, b, a * a + b * b, a * b])
            maps = (_similarity(_moments(products, dims, sigma, rows, seen, n), origin, data_range) for sigma in sigmas)
            blocks.append(join(maps))
    return torch.cat(blocks, dim=-dims)


def _moments(products: Tensor, dims: int, sigma: float, rows: slice, seen: slice, n: int) -> Tensor:
    """The windowed rows of a block, from the products of the rows `seen`, of which a narrow window takes but some."""
    own = slice(max(seen.start, rows.start - radius(sigma)), min(seen.stop, rows.stop + radius(sigma)))
    moments = products.narrow(-dims, own.start - seen.start, own.stop - own.start)
    moments = _times_band(moments, -dims, sigma, rows, own, n)
    for axis in range(1 - dims, 0):
        moments = _windowed(moments, axis, sigma)
    return moments


def radius(sigma: float) -> int:
    """Voxels from the window's centre to its edge: `int(3.5 * sigma + 0.5)`."""
    return int(3.5 * sigma + 0.5)


def _similarity(moments: Tensor, origin: Tensor, data_range: float | Tensor) -> Tensor:
    """SSIM from the windowed x, y, x^2 + y^2 and x y, both images less `origin`."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mu_x, mu_y, squares, product = moments
    spread = squares - mu_x * mu_x - mu_y * mu_y
    shared = product - mu_x * mu_y
    mu_x, mu_y = mu_x + origin, mu_y + origin
    means = (2 * mu_x * mu_y + c1) / (mu_x * mu_x + mu_y * mu_y + c1)
    found: Tensor = means * (2 * shared + c2) / (spread.clamp(min=0) + c2)
    return found.clamp(-1, 1)


def _windowed(x: Tensor, axis: int, sigma: float) -> Tensor:
    """The mean under the window along one axis, counted from the end."""
    n = x.shape[axis]
    return torch.cat(
        [
            _times_band(x.narrow(axis, seen.start, seen.stop - seen.start), axis, sigma, rows, seen, n)
            for rows, seen in _blocks(n, sigma)
        ],
        dim=axis,
    )


def _blocks(n: int, sigma: float) -> list[tuple[slice, slice]]:
    """Rows of the band matrix, block by block, and the columns in which they are not zero (mirroring stays among them)."""
    starts = range(0, n, BLOCK)
    ends = [min(n, start + BLOCK) for start in starts]
    reach = radius(sigma)
    return [
        (slice(start, end), slice(max(0, start - reach), min(n, end + reach)))
        for start, end in zip(starts, ends, strict=True)
    ]


def _times_band(x: Tensor, axis: int, sigma: float, rows: slice, seen: slice, n: int) -> Tensor:
    """A block of the band matrix of an axis of n voxels, times the part of `x` that it sees."""
    part = torch.from_numpy(_band(n, sigma)[rows, seen]).to(x)
    flat = x.reshape(-1, x.shape[axis], x.shape[x.ndim + axis + 1 :].numel())
    out = flat[..., 0] @ part.T if axis == -1 else torch.bmm(part.expand(len(flat), -1, -1), flat)
    return out.reshape(*x.shape[:axis], len(part), *x.shape[x.ndim + axis + 1 :])


@lru_cache(maxsize=64)
def _band(n: int, sigma: float) -> NDArray[np.float64]:
    """`(n, n)`: each row the Gaussian weights around one voxel, those past the edge mirrored back."""
    reach = radius(sigma)
    steps = np.arange(-reach, reach + 1)
    weight = np.exp(-((steps / sigma) ** 2) / 2)
    at = np.abs(np.arange(n)[:, None] + steps) % max(1, 2 * (n - 1))
    band = np.zeros((n, n))
    np.add.at(band, (np.arange(n)[:, None], np.minimum(at, 2 * (n - 1) - at)), weight / weight.sum())
    return band
