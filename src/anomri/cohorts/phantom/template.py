"""Subjects from the MNI152 tissue maps that nilearn's package ships (ICBM 2009a, 1 mm).

They are means over many brains, so their folds are blurred; a subject's own are drawn: shares of tissue are moved by smooth
noise and sharpened.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from anomri.cohorts.phantom.scanner import anatomy, means, scanned
from anomri.corruptions.spatial import smooth_field, warp
from anomri.preprocess.space import mni152, resample
from anomri.scan import Scan


@lru_cache(maxsize=2)
def tissues(spacing: float) -> Scan:
    """The shares of grey and white matter, two channels between 0 and 1, with the brain mask, on a grid of `spacing` mm."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    brain = mni152()
    maps = (load_mni152_gm_template(resolution=1), load_mni152_wm_template(resolution=1))
    shares = np.stack([np.asarray(image.dataobj, dtype=np.float32) for image in maps])
    whole = Scan(shares * brain.brain, brain.affine, id="mni152", brain=brain.brain, sequences=("GM", "WM"))
    return resample(whole, spacing).with_(history=())


def subject(sequences: Sequence[str], spacing: float, rng: torch.Generator) -> Scan:
    """A healthy subject, stripped."""
    maps = tissues(spacing)
    shape = maps.grid.shape
    parts = torch.cat([torch.tensor(maps.image), torch.tensor(maps.brain)[None].float()])
    grey, white, inside = warp(parts, anatomy(shape, maps.spacing, rng), maps.spacing)
    brain = inside >= 0.5
    shares = _own(torch.stack([inside - grey - white, grey, white]), maps.spacing, rng)
    channels = []
    for sequence in sequences:
        x = torch.einsum("t,tijk->ijk", means(sequence, rng), shares)
        channels.append(scanned(x, maps.spacing, rng) * brain)
    return Scan(torch.stack(channels).numpy(), maps.affine, brain=brain.numpy(), sequences=tuple(sequences))


def _own(shares: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
    """Shares of CSF, grey and white matter `(3, I, J, K)` of one brain, from the mean's."""
    noise = 0.6 * smooth_field(shares.shape[1:], spacing, 6.0, rng, channels=3)
    own = shares.clamp(min=1e-3) ** 2 * torch.exp(noise)
    return own / own.sum(dim=0)
