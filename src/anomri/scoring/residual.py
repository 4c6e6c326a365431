"""What differs between a scan and its healthy reconstructions, as a map: higher is more abnormal.

- `l1`, `l2`: the absolute and the squared difference from the mean of the reconstructions;
- `ssim`: 1 - SSIM of scan and mean reconstruction (Behrendt's thesis, section 3.4.4);
- `ssim_ens`: the same over windows of eight widths, the less alike the more weight (the same section);
- `mhd_diag`, `mhd_full`: `ssim`, times how far each voxel lies from the distribution of the reconstructions, with its own variance
  or the covariance of all (section 3.4.5; `scoring.mahalanobis`).
"""

from __future__ import annotations

import numpy as np
import torch

from anomri.errors import BadCall, BadInput, unknown
from anomri.scan import Array, Mask
from anomri.scoring import mahalanobis
from anomri.scoring.cleaning import around
from anomri.scoring.ssim import ENSEMBLE, radius, ssim_ensemble, ssim_map

SCORES = ("l1", "l2", "ssim", "ssim_ens", "mhd_diag", "mhd_full")
SIGNED = ("l1", "l2")
SIGNS = ("both", "positive", "negative")
RECONSTRUCTIONS = 10
"""N of the Mahalanobis scores (paper, section 3: more did not help)."""


def check_score(score: str, sign: str = "both") -> None:
    """Raises `BadCall` for a score or sign that is not known, and for a sign with a score that has none."""
    if score not in SCORES:
        raise unknown("score", score, SCORES)
    if sign not in SIGNS:
        raise unknown("sign", sign, SIGNS)
    if sign != "both" and score not in SIGNED:
        raise BadCall(f"sign '{sign}' is for {' and '.join(SIGNED)}, score is '{score}'; leave sign at 'both'")


def reconstructions(score: str) -> int:
    """How many reconstructions of a scan a score is made for: 10 for the Mahalanobis distances, else 1."""
    check_score(score)
    return RECONSTRUCTIONS if score.startswith("mhd") else 1


def residual(
    score: str,
    x: Array,
    healthy: Array,
    brain: Mask,
    *,
    sign: str = "both",
    sigma: float = 1.0,
    slicewise: bool = False,
) -> Array:
    """How much each voxel of the brain differs from its healthy reconstructions.

    Parameters
    ----------
    score : one of `SCORES`
    x : `(C, I, J, K)`, a scan
    healthy : `(N, C, I, J, K)`, N reconstructions of it; at least 2 for the Mahalanobis scores
    brain : `(I, J, K)` bool; what lies outside is never looked at, and is 0 for the windows that reach into it
    sign : for l1 and l2, "positive": only what is brighter than the mean reconstruction counts; "negative": only what is darker
    sigma : of SSIM's 3D Gaussian window in voxels, `2 int(3.5 sigma + 0.5) + 1` wide, its edges mirrored at those of the grid;
        1 in the papers; `ssim_ens` has its own
    slicewise : for mhd_full, the covariance of each axial slice (last axis) by itself, as in the paper; else of the whole brain,
        which the thesis names as future work

    SSIM's data range is the larger one of the ranges inside the brain, x's and the mean reconstruction's, a channel at a time
    (published code; over the whole box there). SSIM is made for intensities of 0 or more with a background of 0: where a channel
    has negative ones in the brain, as z-scored ones do, both images are raised until the lowest is 0. Their range is then some 6
    to 10 SD. `mahalanobis.EPS`, though, is meant for intensities in [0, 1]: on z-scored ones it adds less.

    Returns `(I, J, K)` float32, 0 outside the brain, the mean over channels: l1 in the unit of x, l2 in its square, 1 - SSIM from
    0 to 2, and the Mahalanobis scores in the same range. Raises `BadCall` for an unknown score, a sign with a score that has
    none, other shapes, a sigma out of its range or too few reconstructions, `BadInput` for NaN or infinite values in the brain.
    """
    check_score(score, sign)
    if x.ndim != 4 or healthy.ndim != 5 or healthy.shape[1:] != x.shape or brain.shape != x.shape[1:]:
        raise BadCall(
            f"scan {x.shape}, reconstructions {healthy.shape}, brain {brain.shape}; "
            "needs (C, I, J, K), (N, C, I, J, K) and (I, J, K)"
        )
    if not sigma > 0:
        raise BadCall(f"sigma is {sigma} voxels, needs to be above 0")
    least = 1 if reconstructions(score) == 1 else 2
    if len(healthy) < least:
        raise BadCall(
            f"score '{score}' needs {least} reconstructions or more, got {len(healthy)}; make {reconstructions(score)}"
        )
    out = np.zeros(brain.shape, np.float32)
    if not brain.any():
        return out
    values, others = x[:, brain], healthy[:, :, brain]
    for name, found in (("the scan", values), ("its reconstruction", others)):
        bad = int((~np.isfinite(found)).sum())
        if bad:
            raise BadInput(f"{name} has {bad} values NaN or infinite inside the brain; check the scan's intensities")
    mean = others.mean(axis=0)
    if score in SIGNED:
        out[brain] = _difference(values - mean, score, sign).mean(axis=0)
        return out
    unlike = _unlike(values, mean, brain, ENSEMBLE if score == "ssim_ens" else (sigma,))
    if score.startswith("mhd"):
        out[brain] = _distance(score, values, others, brain, slicewise)
        return unlike * mahalanobis.as_weight(out, brain)
    return unlike


def _difference(d: Array, score: str, sign: str) -> Array:
    """`|d|` or `d^2`, of one sign or both."""
    if sign != "both":
        d = np.maximum(d if sign == "positive" else -d, 0)
    found: Array = np.abs(d) if score == "l1" else d * d
    return found


def _unlike(x: Array, mean: Array, brain: Mask, sigmas: tuple[float, ...]) -> Array:
    """1 - SSIM `(I, J, K)`, 0 outside the brain, the mean over channels; `x` and `mean` `(C, P)` inside the brain."""
    # SSIM is not asked outside the brain, so no window reaches farther than this.
    where = around(brain, max(radius(sigma) for sigma in sigmas))
    inside = brain[where]
    low = np.minimum(np.minimum(x.min(axis=1), mean.min(axis=1)), 0)[:, None]
    images = torch.zeros(2, len(x), *inside.shape)
    images.numpy()[:, :, inside] = np.stack([x - low, mean - low])
    span = torch.from_numpy(np.maximum(np.ptp(x, axis=1), np.ptp(mean, axis=1))).to(images)[:, None, None, None]
    # Two flat images: any range will do.
    span = torch.where(span > 0, span, torch.ones_like(span))
    a, b = images
    if len(sigmas) == 1:
        found = ssim_map(a, b, data_range=span, sigma=sigmas[0])
    else:
        found = ssim_ensemble(a, b, data_range=span, sigmas=sigmas)
    out = np.zeros(brain.shape, np.float32)
    out[where] = np.where(inside, 1 - found.mean(dim=0).numpy(), 0)
    return out


def _distance(score: str, x: Array, healthy: Array, brain: Mask, slicewise: bool) -> Array:
    """Mahalanobis distance `(P,)` of the brain's voxels, the mean over channels; `x (C, P)`, `healthy (N, C, P)`."""
    if score == "mhd_diag":
        found = mahalanobis.diagonal(x.ravel(), healthy.reshape(len(healthy), -1)).reshape(x.shape)
    elif not slicewise:
        found = mahalanobis.full(x.ravel(), healthy.reshape(len(healthy), -1)).reshape(x.shape)
    else:
        found = np.empty(x.shape)
        slices = np.nonzero(brain)[2]
        for k in np.unique(slices):
            one = slices == k
            part, others = x[:, one], healthy[:, :, one]
            found[:, one] = mahalanobis.full(part.ravel(), others.reshape(len(others), -1)).reshape(part.shape)
    mean: Array = found.mean(axis=0).astype(np.float32)
    return mean
