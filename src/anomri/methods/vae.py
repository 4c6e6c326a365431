"""Variational autoencoder (Baur et al., 2021; the baseline of Behrendt et al., 2024): an autoencoder whose latent is a distribution.

`L = |x - x'| + beta * KL(q(z | x) || N(0, 1))`; the healthy image is what the mean of `q` decodes to, or several draws of it (thesis,
sections 2.4.2 and 3.3, chapter 8.2).
"""

from __future__ import annotations

from anomri.restorer import Variational


class VAE(Variational):
    """Variational autoencoder.

    Parameters
    ----------
    dims : 2 for axial slices, 3 for volumes
    latent : numbers of the latent; None is the papers' 128 for slices and 512 for volumes
    beta : weight of the divergence from N(0, 1), summed over the latent, beside the mean absolute error of the brain's voxels; 0.001
        is that of chapter 8.2, for slices, chapter 8.1 (volumes) names none
    width : channels of the first level
    levels : each halves the grid
    augmented : whether training images are augmented (`corruptions.augment`)
    score, sign, sigma, cleaning : see `Restorer`
    n : reconstructions a scan; 1 is that of the mean, more are draws; None is 10 for the Mahalanobis scores, else 1
    final : share of the rate that is left at the end; 1 is the papers'
    steps, batch, lr : optimiser steps, samples a step, Adam's rate; the papers train 1,600 epochs of 358 slices at 1e-4
    """

    name = "vae"
    title = "Variational autoencoder"
    paper = "Baur et al., Autoencoders for unsupervised anomaly segmentation in brain MR images: a comparative study"
    year = 2021
    dimensions = "2D, 3D"
    map_unit = "normalised intensity"

    def __init__(
        self,
        *,
        dims: int = 2,
        latent: int | None = None,
        beta: float = 0.001,
        width: int = 32,
        levels: int = 4,
        augmented: bool = False,
        score: str = "l1",
        sign: str = "both",
        sigma: float = 1.0,
        cleaning: str = "none",
        n: int | None = None,
        steps: int = 17_600,
        batch: int = 32,
        lr: float = 1e-4,
        final: float = 1.0,
    ) -> None:
        self.dims, self.latent, self.beta, self.width, self.levels = dims, latent, beta, width, levels
        self.augmented, self.steps, self.batch, self.lr, self.final = augmented, steps, batch, lr, final
        self.scored(score, sign, sigma, cleaning, n, several=True)
        self.reduction = 2**levels
