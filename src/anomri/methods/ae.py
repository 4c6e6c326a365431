"""Autoencoder (Baur et al., 2021, "Autoencoders for unsupervised anomaly segmentation in brain MR images: a comparative study").

A network that must press an image through few numbers, and has seen healthy ones only, gives back a healthy image: what differs is
the anomaly. The latent is a vector (dense) or a small grid of vectors (spatial). IterMask3D's comparison is a spatial one: its own
network without skips (IterMask3D v2, section 4.4).
"""

from __future__ import annotations

from torch import Tensor, nn

from anomri.errors import BadCall, unknown
from anomri.nets.autoencoder import Autoencoder, SkiplessUNet
from anomri.restorer import Restorer, absolute
from anomri.train import Recipe, Sample

BACKBONES = ("convolutional", "residual")


class AE(Restorer):
    """Autoencoder.

    Parameters
    ----------
    dims : 2 for axial slices, 3 for volumes
    latent : numbers of a dense latent, or channels of a spatial one; 128 is the papers' for slices
    dense : whether the latent is a vector
    backbone : "convolutional", strided convolutions and transposed ones; "residual", IterMask3D's network without skips, whose
        latent is spatial, its 16 x `width` channels (`latent` and `dense` are not used)
    width : channels of the first level
    levels : of the convolutional one, each halves the grid
    dropout : probability of dropping an element; None is the paper's of the backbone: none (Baur's has 0.1), or IterMask3D's 0.2
    augmented : whether training images are augmented (`corruptions.augment`)
    score, sign, sigma, cleaning : see `Restorer`
    final : share of the rate that is left at the end; 1 is the papers'
    steps, batch, lr : optimiser steps, samples a step, Adam's rate; Behrendt's baseline trains 1,600 epochs of 358 slices at 1e-4, which
        are the defaults. IterMask3D's comparison (`backbone="residual"`) a batch of 2 at 1e-3
    """

    name = "ae"
    title = "Autoencoder"
    paper = "Baur et al., Autoencoders for unsupervised anomaly segmentation in brain MR images: a comparative study"
    year = 2021
    dimensions = "2D, 3D"
    map_unit = "normalised intensity"

    def __init__(
        self,
        *,
        dims: int = 2,
        latent: int = 128,
        dense: bool = True,
        backbone: str = "convolutional",
        width: int = 32,
        levels: int = 4,
        dropout: float | None = None,
        augmented: bool = False,
        score: str = "l1",
        sign: str = "both",
        sigma: float = 1.0,
        cleaning: str = "none",
        steps: int = 17_600,
        batch: int = 32,
        lr: float = 1e-4,
        final: float = 1.0,
    ) -> None:
        if backbone not in BACKBONES:
            raise unknown("backbone", backbone, BACKBONES)
        if backbone == "residual" and dims != 3:
            raise BadCall(
                f"backbone 'residual' is IterMask3D's network, for volumes; dims is {dims}, take 3 or backbone 'convolutional'"
            )
        self.dims, self.latent, self.dense, self.backbone = dims, latent, dense, backbone
        self.width, self.levels, self.dropout = width, levels, dropout
        self.augmented, self.steps, self.batch, self.lr, self.final = augmented, steps, batch, lr, final
        self.scored(score, sign, sigma, cleaning)
        self.fixed = dense and backbone == "convolutional"
        self.reduction = 16 if backbone == "residual" else 2**levels

    def network(self, channels: int, edges: tuple[int, ...]) -> nn.Module:
        if self.backbone == "residual":
            return SkiplessUNet(channels, channels, self.width, 0.2 if self.dropout is None else self.dropout)
        return Autoencoder(
            self.dims,
            channels,
            self.width,
            self.levels,
            self.latent,
            dense=self.dense,
            edges=edges if self.dense else None,
            dropout=self.dropout or 0.0,
        )

    def recipe(self) -> Recipe:
        return Recipe(self.steps, self.batch, self.lr, self.final)

    def loss(self, net: nn.Module, batch: Sample) -> Tensor:
        return absolute(net(batch["input"]), batch)
