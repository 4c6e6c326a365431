"""Structural similarity, voxel by voxel (Wang et al. 2004, "Image quality assessment", eq. 13).

`SSIM = (2 mu_x mu_y + C1) (2 s_xy + C2) / ((mu_x^2 + mu_y^2 + C1) (s_xx + s_yy + C2))`, `C1 = (0.01 L)^2`, `C2 = (0.03 L)^2`,
where means, variances and the covariance are taken under a Gaussian window around each voxel and L is the data range. It is 1
where both images agree and falls towards -1. It is made for intensities of 0 or more: where the means have opposite signs, as
z-scored ones can, the first factor turns the sign of the second.

The window is separable, and along one axis it is a band matrix, the mirrored edge folded into it: multiplying by the blocks of
its band is several times faster than a convolution.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomri.errors import BadCall

K1, K2 = 0.01, 0.03
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
    if x.shape != y.shape or dims not in (2, 3) or x.ndim < dims:
        raise BadCall(
            f"SSIM over {dims} axes: x has shape {tuple(x.shape)}, y {tuple(y.shape)}; needs one shape, 2 or 3 axes"
        )
    if not sigma > 0 or not bool((torch.as_tensor(data_range) > 0).all()):
        raise BadCall(f"SSIM needs sigma and data_range above 0, got {sigma} and {data_range}")
    kind = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    x, y = x.to(kind), y.to(kind)
    # Variances do not change with the origin; near zero their differences of squares are exact.
    origin = x.detach().mean()
    blocks = []
    with torch.autocast(x.device.type, enabled=False):
        for rows, seen in _blocks(x.shape[-dims], sigma):
            a, b = (image.narrow(-dims, seen.start, seen.stop - seen.start) - origin for image in (x, y))
            # The formula needs only the sum of both variances, so four images are blurred, not five.
            moments = _times_band(torch.stack([a, b, a * a + b * b, a * b]), -dims, sigma, rows, seen, x.shape[-dims])
            for axis in range(1 - dims, 0):
                moments = _windowed(moments, axis, sigma)
            blocks.append(_similarity(moments, origin, data_range))
    return torch.cat(blocks, dim=-dims)


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
