"""3D VAE with spatial erasing (Bengs et al., 2021; Behrendt's thesis, section 3.4.1 and chapter 8.1).

A variational autoencoder that is shown healthy images with a part taken away, and must give back the whole: it learns to use what is
around. `L = |x - x'| + beta * KL(q(z | x_erased) || N(0, 1))`; nothing is erased at test time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anomri.corruptions.erasing import ERASINGS, FILLS, erase
from anomri.errors import BadCall, unknown
from anomri.restorer import Variational


class SpatialErasing(Variational):
    """VAE with spatial erasing.

    Parameters
    ----------
    dims : 2 for axial slices, 3 for volumes
    erase : what is taken away, of `corruptions.erasing.ERASINGS`; None is "cube" for volumes, "patch" for slices. "patch" and "cube" are one region of 1 to 25 % of the image,
        "multi" up to ten of as much together, "half" one side of the brain, in 3D in 1 to 32 axial slices
    fill : "zero", or "noise" from the image's own distribution
    p : probability that a training image is erased
    latent : numbers of the latent; None is the paper's 128 for slices and 512 for volumes
    beta : weight of the divergence from N(0, 1)
    width : channels of the first level
    levels : each halves the grid
    score, sign, sigma, cleaning : see `Restorer`
    n : reconstructions a scan; 1 is that of the mean, more are draws; None is 10 for the Mahalanobis scores, else 1
    final : share of the rate that is left at the end; 1 is the papers'
    steps, batch, lr : optimiser steps, samples a step, Adam's rate; the paper's batch is 32 at 1e-3
    """

    name = "spatial_erasing"
    title = "3D VAE with spatial erasing"
    paper = "Bengs et al., Three-dimensional deep learning with spatial erasing for unsupervised anomaly segmentation in brain MRI"
    year = 2021
    dimensions = "2D, 3D"
    map_unit = "normalised intensity"
    fixed = True

    def __init__(
        self,
        *,
        dims: int = 3,
        erase: str | None = None,
        fill: str = "noise",
        p: float = 0.5,
        latent: int | None = None,
        beta: float = 0.001,
        width: int = 32,
        levels: int = 4,
        score: str = "l1",
        sign: str = "both",
        sigma: float = 1.0,
        cleaning: str = "none",
        n: int | None = None,
        steps: int = 20_000,
        batch: int = 32,
        lr: float = 1e-3,
        final: float = 1.0,
    ) -> None:
        if erase not in (None, *ERASINGS):
            raise unknown("erasing", str(erase), ERASINGS)
        if erase == "cube" and dims == 2:
            raise BadCall("erasing 'cube' is of volumes; take 'patch' for slices")
        if fill not in FILLS:
            raise unknown("fill", fill, FILLS)
        self.dims, self.erase, self.fill, self.p = dims, erase, fill, p
        self.latent, self.beta, self.width, self.levels = latent, beta, width, levels
        self.steps, self.batch, self.lr, self.final = steps, batch, lr, final
        self.scored(score, sign, sigma, cleaning, n, several=True)
        self.reduction = 2**levels

    def corrupt(self, x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
        how = self.erase or ("cube" if self.dims == 3 else "patch")
        return erase(x, brain, how, rng, fill=self.fill, p=self.p)
