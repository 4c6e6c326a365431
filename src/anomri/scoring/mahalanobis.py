"""How far a scan lies from a distribution of its own healthy reconstructions (Behrendt's thesis, section 3.4.5).

N reconstructions of one scan have the mean `mu` and the covariance `S`, taken with N - 1, over P voxels; `d = x - mu`.

- diagonal (eq. 2 of the paper): `|d_i| / sqrt(S_ii + eps)`, voxel by voxel;
- full (eq. 3): `MHD^2 = d^T (S + eps I)^-1 d = sum_i d_i ((S + eps I)^-1 d)_i`. The paper speaks of one distance per voxel: its
  published code takes the root of each voxel's term of that sum. So do we.

A term can be negative, where a voxel differs the other way than its neighbours let expect: it makes the whole distance shorter.
Its root is set to 0. So does the published code, which makes NaN of it and then 0.

`S = A^T A` with `A = (reconstructions - mu) / sqrt(N - 1)`, `(N, P)`, has a rank of N - 1 at most. It is never made: by the
identity of Woodbury `(A^T A + eps I)^-1 d = (d - A^T (A A^T + eps I)^-1 A d) / eps`, exactly, with a system of N x N.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anomri.errors import BadCall
from anomri.scan import Array, Mask
from anomri.scoring.cleaning import around

Values = NDArray[np.float64]
Real = NDArray[np.float32] | NDArray[np.float64]
EPS = 1e-5
"""Variance added to each voxel's, squared intensity, for intensities in [0, 1] (paper, section 2.4; its code takes 0.01)."""
CHUNK = 1 << 17
"""Voxels taken to double precision at once."""


def diagonal(x: Real, healthy: Real, eps: float = EPS) -> Values:
    """Distance of each voxel in its own SDs, `|x - mu| / sqrt(var + eps)`.

    Parameters
    ----------
    x : `(P,)` values of a scan's voxels
    healthy : `(N, P)` values of its reconstructions, N at least 2
    eps : variance added, squared intensity, above 0

    Returns `(P,)`, 0 or more. Raises `BadCall` for a single reconstruction, other shapes or `eps` out of its range. Source:
    Behrendt et al. 2024, eq. 2.
    """
    out = np.empty(_checked(x, healthy, eps))
    for part, d, a in _centred(x, healthy):
        out[part] = np.abs(d) / np.sqrt((a * a).sum(axis=0) + eps)
    return out


def full(x: Real, healthy: Real, eps: float = EPS) -> Values:
    """Distance of each voxel under the covariance of all: the root of its `contributions`, of negative ones 0.

    Parameters, shapes and errors as `diagonal`. Source: Behrendt et al. 2024, eq. 3.
    """
    return np.sqrt(np.maximum(contributions(x, healthy, eps), 0))


def contributions(x: Real, healthy: Real, eps: float = EPS) -> Values:
    """Each voxel's term `d_i ((S + eps I)^-1 d)_i` of the squared Mahalanobis distance, which is their sum.

    Parameters, shapes and errors as `diagonal`; terms can be negative. In double precision, and exact to about 1e-16 times the
    largest eigenvalue of S over `eps`; memory is some chunks of (N, P), never (P, P).
    """
    p, n = _checked(x, healthy, eps), len(healthy)
    gram, seen = np.zeros((n, n)), np.zeros(n)
    for _, d, a in _centred(x, healthy):
        gram += a @ a.T
        seen += a @ d
    # Rows of A sum to 0, so one eigenvalue is 0: what rounding makes of it must not get below eps.
    values, vectors = np.linalg.eigh(gram)
    weights = vectors @ ((vectors.T @ seen) / (np.maximum(values, 0) + eps))
    out = np.empty(p)
    for part, d, a in _centred(x, healthy):
        out[part] = d * (d - weights @ a) / eps
    return out


def as_weight(distance: Array, brain: Mask, sigma: float = 1.0) -> Array:
    """A map of distances as a weight for another map: from 0 to 1 over the brain (min-max), then a Gaussian filter.

    Parameters
    ----------
    distance, brain : `(I, J, K)`, bool
    sigma : of the filter, in voxels; 0 outside the brain is part of it, so weights fall off at the rim

    Returns `(I, J, K)` float32, 0 outside the brain. A map that is the same everywhere weighs 1 before the filter: it prefers no
    voxel. Source: the filter, paper, section 2.4; min-max, published code.
    """
    out = np.zeros(brain.shape, np.float32)
    if not brain.any():
        return out
    inside = distance[brain].astype(np.float64)
    low, high = inside.min(), inside.max()
    out[brain] = (inside - low) / (high - low) if high > low else 1.0
    where = around(brain, int(4 * sigma + 0.5))
    out[where] = ndimage.gaussian_filter(out[where], sigma)
    return np.where(brain, out, np.float32(0))


def _checked(x: Real, healthy: Real, eps: float) -> int:
    """P, after a look at the arguments."""
    if healthy.ndim != 2 or x.shape != healthy.shape[1:]:
        raise BadCall(f"a Mahalanobis distance of values {x.shape} from {healthy.shape}; needs (P,) and (N, P)")
    if len(healthy) < 2:
        raise BadCall(
            f"a Mahalanobis distance needs 2 reconstructions or more, got {len(healthy)}; "
            "make several (n=10 in the paper) or take another score"
        )
    if not eps > 0:
        raise BadCall(f"eps is {eps}, needs to be above 0 for the covariance to have an inverse")
    return len(x)


def _centred(x: Real, healthy: Real) -> Iterator[tuple[slice, Values, Values]]:
    """Chunk by chunk of voxels: which they are, `d (p,)` and `A (N, p)`, double precision."""
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        some = healthy[:, part].astype(np.float64)
        mean = some.mean(axis=0)
        yield part, x[part] - mean, (some - mean) / np.sqrt(len(healthy) - 1)
