"""Denoising autoencoder (Kascenas et al., 2022): remove coarse noise, and what looks like it.

Gaussian noise on a coarse grid, up-sampled, makes blobs as bright or as dark as lesions are; a UNet with skips learns to take them away
from healthy images, and takes lesions away at test time, when nothing is added. IterMask3D's comparison has its own network and noise
levels for z-scored scans (IterMask3D, second version, section 4.4; first version, sections 4.1.3 and 4.5). Two things differ: in 3D
there is no dropout, where IterMask3D's network has 0.2, and the rate falls along its cosine once, where in the DAE's published code it
falls and rises again, over and over.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomri.corruptions.noise import add_coarse_noise
from anomri.nets.denoising import DenoisingUNet
from anomri.nets.unet import ResidualUNet
from anomri.restorer import Restorer
from anomri.train import Recipe, Sample


class DAE(Restorer):
    """Denoising autoencoder.

    Parameters
    ----------
    dims : 2, axial slices and the paper's UNet; 3, volumes and IterMask3D's network
    noise : SD of the noise, in the scan's intensity; for z-scored scans IterMask3D takes 1.2 (as the paper's 0.2 of the 99th
        percentile) and 3 (tuned)
    noise_sign : "both" adds it as drawn; "positive" clips it so that it only brightens, "negative" so that it only darkens
    cell_mm : mm between the points of the coarse grid; None is the papers' 15 for slices, 16 points over 240 mm, and 12 for volumes, as
        many over 192 mm (IterMask3D does not say its number, the DAE's own is taken)
    width : channels of the first level; None is the papers' 64 for slices and 16 for volumes
    augmented : whether training images are augmented (`corruptions.augment`)
    score, sign, sigma, cleaning : see `Restorer`
    steps, batch, lr : optimiser steps, samples a step, rate of Adam (AMSGrad, weight decay 1e-5, gradients cut at 0.5), which falls
        along a cosine; the paper trains 67,200 steps of 16 slices at 1e-4
    """

    name = "dae"
    title = "Denoising autoencoder"
    paper = "Kascenas et al., Denoising autoencoders for unsupervised anomaly detection in brain MRI"
    year = 2022
    dimensions = "2D, 3D"
    map_unit = "normalised intensity"

    def __init__(
        self,
        *,
        dims: int = 2,
        noise: float = 1.2,
        noise_sign: str = "both",
        cell_mm: float | None = None,
        width: int | None = None,
        augmented: bool = False,
        score: str = "l1",
        sign: str = "both",
        sigma: float = 1.0,
        cleaning: str = "none",
        steps: int = 67_200,
        batch: int = 16,
        lr: float = 1e-4,
    ) -> None:
        self.dims, self.noise, self.noise_sign, self.cell_mm, self.width = dims, noise, noise_sign, cell_mm, width
        self.augmented, self.steps, self.batch, self.lr = augmented, steps, batch, lr
        self.scored(score, sign, sigma, cleaning)

    def corrupt(self, x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
        cell_mm = (15.0 if self.dims == 2 else 12.0) if self.cell_mm is None else self.cell_mm
        return add_coarse_noise(x, brain, spacing, rng, cell_mm=cell_mm, sd=self.noise, sign=self.noise_sign)

    def network(self, channels: int, edges: tuple[int, ...]) -> nn.Module:
        if self.dims == 3:
            return ResidualUNet(channels, channels, self.width or 16, dropout=0.0)
        return DenoisingUNet(2, channels, channels, self.width or 64)

    def recipe(self) -> Recipe:
        return Recipe(
            self.steps, self.batch, self.lr, final=0.0, decay=1.0, optimiser="amsgrad", weight_decay=1e-5, clip=0.5
        )

    def loss(self, net: nn.Module, batch: Sample) -> Tensor:
        off = (net(batch["input"]).float() - batch["x"]).square() * batch["brain"]
        # A batch may be slices without brain, in the gap of a mask.
        mean: Tensor = off.sum() / (batch["brain"].sum().clamp(min=1) * off.shape[1])
        return mean
