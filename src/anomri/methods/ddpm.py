"""Denoising diffusion (Ho et al., 2020), as a way to restore scans: noised in part, and brought back (Behrendt, thesis, section 2.4.3).

A scan is noised to `t_test`, half way, which hides what is small, and the network says in one step what it was; or it goes back through
all times, or through some.
"""

from __future__ import annotations

from collections.abc import Sequence

from anomri.diffuser import Diffuser


class DDPM(Diffuser):
    """Denoising diffusion probabilistic model.

    Parameters
    ----------
    dims : 2 for axial slices; 3 for volumes, which the thesis names as future work
    size : channels and blocks of the network: "cddpm", 128, 256 and 256 (cDDPM, section 4.4); "pddpm", 128, 128 and 256 (pDDPM, section
        4.2); "small", for CPUs, ours
    width : channels of its first level; None is the size's
    noise : "gaussian"; "simplex" is AnoDDPM's
    schedule : "linear" (Ho et al.; pDDPM) or "cosine" (Nichol and Dhariwal 2021)
    prediction : what the network says, "x0", the image, by the absolute error (the thesis), or "noise", by the squared one (Ho et al.)
    t_test : time that scans are noised to, of 1000; of several, the mean of what comes back
    sampler : the way back: "one_step" (the thesis); "ddpm", through all times (Ho et al.); "ddim", through `ddim_steps` of them
    ddim_steps : how many times "ddim" goes through, evenly spaced
    augmented : whether training images are augmented (`corruptions.augment`)
    score, sign, sigma, cleaning : see `Restorer`
    n : reconstructions a scan, each with noise of its own; None is 10 for the Mahalanobis scores, else 1
    final : share of the rate that is left at the end; 1 is the papers'
    steps, batch, lr : optimiser steps, samples a step, Adam's rate; the thesis trains 1,600 epochs of 358 slices at 1e-4, pDDPM's paper
        at 1e-5
    """

    name = "ddpm"
    title = "Denoising diffusion"
    paper = "Ho et al., Denoising diffusion probabilistic models"
    year = 2020
    dimensions = "2D, 3D"
    map_unit = "normalised intensity"

    def __init__(
        self,
        *,
        dims: int = 2,
        size: str = "cddpm",
        width: int | None = None,
        noise: str = "gaussian",
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
        self.dims, self.size, self.width, self.noise, self.schedule = dims, size, width, noise, schedule
        self.prediction, self.t_test, self.sampler, self.ddim_steps = prediction, t_test, sampler, ddim_steps
        self.augmented, self.steps, self.batch, self.lr, self.final = augmented, steps, batch, lr, final
        self.scored(score, sign, sigma, cleaning, n, several=True)
        self.checked()
