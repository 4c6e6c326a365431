"""AnoDDPM (Wyatt et al., 2022): diffusion with structured noise, which is coarse as well as fine, as anatomy is.

Gaussian noise hides what is fine first; a large lesion shows through it. Simplex noise of several octaves hides both alike, so a scan need
not be noised as far. The defaults are those of the thesis's comparison (section 3.3; pDDPM, section 4.2), one step from half way; the
paper's own are `prediction="noise", sampler="ddpm", t_test=250`, on slices of 256 x 256.
"""

from __future__ import annotations

from collections.abc import Sequence

from anomri.corruptions.simplex import FREQUENCY, OCTAVES, PERSISTENCE
from anomri.diffuser import Diffuser


class AnoDDPM(Diffuser):
    """Diffusion with simplex noise.

    Parameters
    ----------
    dims : 2 for axial slices, 3 for volumes
    size : channels and blocks of the network: "cddpm", 128, 256 and 256 (cDDPM, section 4.4); "pddpm", 128, 128 and 256 (pDDPM, section
        4.2); "small", for CPUs, ours
    width : channels of its first level; None is the size's
    octaves, persistence, frequency : of the noise, see `corruptions.simplex`; 6, 0.8 and 64 voxels are the paper's
    schedule : "linear", the paper's, or "cosine" (Nichol and Dhariwal 2021)
    prediction : what the network says, "x0", the image, by the absolute error (the thesis), or "noise", by the squared one (the paper)
    t_test : time that scans are noised to, of 1000; of several, the mean of what comes back
    sampler : the way back: "one_step" (the thesis); "ddpm", through all times (the paper); "ddim", through `ddim_steps` of them
    ddim_steps : how many times "ddim" goes through, evenly spaced
    augmented : whether training images are augmented (`corruptions.augment`)
    score, sign, sigma, cleaning : see `Restorer`
    n : reconstructions a scan, each with noise of its own; None is 10 for the Mahalanobis scores, else 1
    final : share of the rate that is left at the end; 1 is the papers'
    steps, batch, lr : optimiser steps, samples a step, Adam's rate; the thesis trains 1,600 epochs of 358 slices at 1e-4, pDDPM's paper
        at 1e-5
    """

    name = "anoddpm"
    title = "AnoDDPM"
    paper = "Wyatt et al., AnoDDPM: anomaly detection with denoising diffusion probabilistic models using simplex noise"
    year = 2022
    dimensions = "2D, 3D"
    map_unit = "normalised intensity"

    def __init__(
        self,
        *,
        dims: int = 2,
        size: str = "cddpm",
        width: int | None = None,
        octaves: int = OCTAVES,
        persistence: float = PERSISTENCE,
        frequency: float = FREQUENCY,
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
        self.dims, self.size, self.width, self.schedule = dims, size, width, schedule
        self.octaves, self.persistence, self.frequency = octaves, persistence, frequency
        self.prediction, self.t_test, self.sampler, self.ddim_steps = prediction, t_test, sampler, ddim_steps
        self.augmented, self.steps, self.batch, self.lr, self.final = augmented, steps, batch, lr, final
        self.scored(score, sign, sigma, cleaning, n, several=True)
        self.checked()
