"""Patched diffusion (Behrendt et al., 2023, MIDL; thesis, section 3.4.2, chapter 8.2): noise in one patch, the rest of the slice as it is.

Noise over a whole slice takes away contrast and intensity that the healthy image should have. Here the network sees the noised patch and
all of what is around it, `x~_t = x_t M_p + x_0 (1 - M_p)`; every patch of a grid is noised and brought back in its turn, and the slice is
stitched together, the mean where patches overlap.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomri.diffuser import Diffuser, repeated
from anomri.errors import BadCall, unknown
from anomri.nets.patches import anywhere, cover, stitched
from anomri.train import Sample

SAMPLINGS = ("fixed", "random")
OBJECTIVES = ("patch", "image")


class PDDPM(Diffuser):
    """Patched diffusion.

    Parameters
    ----------
    patch : edge of a patch in voxels; 48 is that of the paper's Table 1, 60 was best for tumours. One as large as the slice is `anoddpm`
    sampling : patches of training, "fixed", one of the grid's, or "random", anywhere; at test time they are the grid's
    objective : the loss is of the "patch", L_p, or of the whole "image", L_rec
    size : channels and blocks of the network: "pddpm", 128, 128 and 256 (pDDPM, section 4.2); "cddpm", 128, 256 and 256 (cDDPM, section
        4.4, for this method too); "small", for CPUs, ours
    width : channels of its first level; None is the size's
    noise : "simplex", the paper's, or "gaussian"
    schedule : "linear", the paper's; its code has "cosine"
    prediction : what the network says, "x0", the paper's, or "noise"
    t_test : time that patches are noised to, of 1000: 500, or 400, which was best for tumours; of several, the mean of what comes back
    sampler : the way back: "one_step", the paper's; "ddpm", through all times; "ddim", through `ddim_steps` of them
    ddim_steps : how many times "ddim" goes through, evenly spaced
    augmented : whether training images are augmented (`corruptions.augment`)
    score, sign, sigma, cleaning : see `Restorer`
    n : reconstructions a scan, each with noise of its own; None is 10 for the Mahalanobis scores, else 1
    final : share of the rate that is left at the end; 1 is the papers'
    steps, batch, lr : optimiser steps, samples a step, Adam's rate; 1,600 epochs of 358 slices at 1e-4 (cDDPM) or 1e-5 (pDDPM)
    """

    name = "pddpm"
    title = "Patched diffusion"
    paper = "Behrendt et al., Patched diffusion models for unsupervised anomaly detection in brain MRI"
    year = 2023
    dimensions = "2D"
    map_unit = "normalised intensity"

    def __init__(
        self,
        *,
        patch: int = 48,
        sampling: str = "fixed",
        objective: str = "patch",
        size: str = "cddpm",
        width: int | None = None,
        noise: str = "simplex",
        schedule: str = "linear",
        prediction: str = "x0",
        t_test: int | Sequence[int] = 500,
        sampler: str = "one_step",
        ddim_steps: int = 50,
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
        if patch < 1:
            raise BadCall(f"patch is {patch} voxels, needs at least 1")
        if sampling not in SAMPLINGS:
            raise unknown("sampling", sampling, SAMPLINGS)
        if objective not in OBJECTIVES:
            raise unknown("objective", objective, OBJECTIVES)
        self.patch, self.sampling, self.objective, self.size, self.width = patch, sampling, objective, size, width
        self.noise, self.schedule, self.prediction = noise, schedule, prediction
        self.t_test, self.sampler, self.ddim_steps = t_test, sampler, ddim_steps
        self.augmented, self.steps, self.batch, self.lr, self.final = augmented, steps, batch, lr, final
        self.scored(score, sign, sigma, cleaning, n, several=True)
        self.checked()

    def shown(self, x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Sample:
        whole = super().shown(x, brain, spacing, rng)
        edges = x.shape[1:]
        if self.sampling == "fixed":
            grid = cover(edges, self.patch)
            mask = grid[int(torch.randint(len(grid), (1,), generator=rng))]
        else:
            mask = anywhere(edges, self.patch, rng)
        given = torch.where(mask, whole["input"], whole["clean"])
        # Beside the patch there is no noise to tell of.
        return {**whole, "input": given, "noise": whole["noise"] * mask, "patch": mask[None]}

    def loss(self, net: nn.Module, batch: Sample) -> Tensor:
        if self.objective == "image":
            return super().loss(net, batch)
        off = self.off(net, batch)
        of = off.abs() if self.prediction == "x0" else off.square()
        mean: Tensor = (of * batch["patch"]).sum() / (batch["patch"].sum() * of.shape[1])
        return mean

    def painted(self, clean: Tensor, noise: Tensor, t: Tensor, rng: torch.Generator) -> Tensor:
        masks = cover(clean.shape[2:], self.patch).to(clean.device)
        count, images, run = len(masks), len(t), self.denoiser(clean)
        # All patches of all slices at once; each slice has one noise, of which each patch takes its part.
        clean, noise, t = (repeated(part, count * images) for part in (clean, noise, t))
        inside = masks.repeat_interleave(images, dim=0)[:, None]

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return run(torch.where(inside, x_t, clean), t)

        made = self.backward(denoise, self.plan.noised(clean, t, noise), t, rng)
        return stitched(made.reshape(count, images, *made.shape[1:]), masks)
