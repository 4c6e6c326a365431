"""Diffusion in the latents of an autoencoder (Pinaya et al., 2022): what is unlikely is masked, painted in the latents, and decoded.

An autoencoder presses slices into a small grid of vectors, and a diffusion network learns which of them are healthy. Where the divergences
of its steps, `KL(q(z_(t-1) | z_t, z_0) || p(z_(t-1) | z_t))`, are high on average over t = 400 ... 600, a latent is unlikely: above what
2.5 % of healthy ones exceed it is masked. From t = 500 the masked latents are brought back among the others, which are the slice's own,
noised as far as each step asks. What that decodes to is the healthy slice; the map is the residual, where the mask is.

The paper itself was not at hand: what is said of it here is from memory, and docs/decisions/0009 says what of it we could not check.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from anomri.cohort import Cohort
from anomri.diffuser import SAMPLING, Diffuser, branch, intensity_range
from anomri.errors import BadCall
from anomri.nets.autoencoder import Autoencoder, Decoder, Encoder
from anomri.nets.diffusion import path, surprise
from anomri.nets.diffusion_unet import DiffusionUNet
from anomri.nets.layers import SHORT
from anomri.restorer import SCORING, evidence, largest, validating
from anomri.scan import Finding, Scan
from anomri.scoring.thresholds import healthy_curve, on_curve
from anomri.train import Job, Recipe, Sample, Trained, generator, train

POOL = {2: F.max_pool2d, 3: F.max_pool3d}
LINEAR = {2: "bilinear", 3: "trilinear"}


class LatentDDPM(Diffuser):
    """Diffusion in the latents of an autoencoder.

    Parameters
    ----------
    dims : 2 for axial slices, the paper's; 3 for volumes
    size : channels and blocks of the diffusion network: "cddpm", 128, 256 and 256, in the place of the paper's, which could not be checked;
        "pddpm", "autoddpm"; "small", for CPUs, ours
    width : channels of its first level; None is the size's
    factor : voxels of a latent along each axis, a power of 2
    latent : channels of the latents
    autoencoder_width : channels of the autoencoder's first level
    beta : weight of the latents' divergence from N(0, 1), summed over them, beside the mean absolute error of the slice
    schedule : of the noise, "linear", or "cosine"
    prediction : what the network says, "noise", by the squared error (Ho et al.); or "x0", the latents, by the absolute one
    t_low, t_high : the first and the last of the times whose divergences are averaged, of 2 to 1000
    t_every : how far apart these times are
    mask_share : of healthy latents, those that hold brain, that lie above the mask's threshold; 0.025 is the 97.5th percentile
    t_test : time that masked latents are noised to, of 1000
    inpaint_steps : steps from there, each of them drawing noise; None is one for each time
    resamples : times that each of these steps is made; the paper's are made once, more is RePaint's
    augmented : whether training images are augmented (`corruptions.augment`)
    score, sign, sigma, cleaning : see `Restorer`; of the residual, which counts where the mask is
    final : share of the rate that is left at the end, of each training
    autoencoder_steps : optimiser steps of the autoencoder, which is trained first
    steps, batch, lr : optimiser steps of the diffusion network, samples a step and Adam's rate of both

    The threshold is found at `fit` on the validation scans, or where there are none on those that it learned from, and anew by `calibrate`,
    which a change of `t_low`, `t_high` or `t_every` asks for. Arguments that are not allowed raise `BadCall`.
    """

    name = "latent_ddpm"
    title = "Latent diffusion"
    paper = "Pinaya et al., Fast unsupervised brain anomaly detection and segmentation with diffusion models"
    year = 2022
    dimensions = "2D, 3D"
    map_unit = "normalised intensity"
    weightless = frozenset(
        {*SCORING, *SAMPLING, "t_low", "t_high", "t_every", "mask_share", "inpaint_steps", "resamples"}
    )
    noise = "gaussian"
    autoencoder: Autoencoder
    #: Of each channel of the latents the mean and the SD in healthy scans, as `fit` found them; else they are in `data`.
    latents: Sequence[Sequence[float]] = ()

    def __init__(
        self,
        *,
        dims: int = 2,
        size: str = "cddpm",
        width: int | None = None,
        factor: int = 8,
        latent: int = 8,
        autoencoder_width: int = 64,
        beta: float = 1e-7,
        schedule: str = "linear",
        prediction: str = "noise",
        t_low: int = 400,
        t_high: int = 600,
        t_every: int = 1,
        mask_share: float = 0.025,
        t_test: int = 500,
        inpaint_steps: int | None = None,
        resamples: int = 1,
        augmented: bool = False,
        score: str = "l1",
        sign: str = "both",
        sigma: float = 1.0,
        cleaning: str = "none",
        autoencoder_steps: int = 17_600,
        steps: int = 17_600,
        batch: int = 32,
        lr: float = 1e-4,
        final: float = 1.0,
    ) -> None:
        if factor < 2 or factor & (factor - 1):
            raise BadCall(f"factor is {factor}, needs to be a power of 2: 2, 4, 8 ...")
        if latent < 1 or autoencoder_width < 1:
            raise BadCall(f"latent is {latent}, autoencoder_width {autoencoder_width}; each is at least 1")
        if beta < 0:
            raise BadCall(f"beta is {beta:g}, a weight of 0 or more")
        if not 0 < mask_share < 1:
            raise BadCall(f"mask_share is {mask_share:g}, needs to be between 0 and 1")
        if t_every < 1 or resamples < 1:
            raise BadCall(f"t_every is {t_every}, resamples {resamples}; each is at least 1")
        self.dims, self.size, self.width, self.schedule, self.prediction = dims, size, width, schedule, prediction
        self.factor, self.latent, self.autoencoder_width, self.beta = factor, latent, autoencoder_width, beta
        self.t_low, self.t_high, self.t_every, self.mask_share = t_low, t_high, t_every, mask_share
        self.t_test, self.inpaint_steps, self.resamples = t_test, inpaint_steps, resamples
        self.augmented, self.autoencoder_steps = augmented, autoencoder_steps
        self.steps, self.batch, self.lr, self.final = steps, batch, lr, final
        self.scored(score, sign, sigma, cleaning)
        self.checked()
        self.reduction *= factor
        if not isinstance(t_test, int):
            raise BadCall(f"t_test is {t_test}, latents are painted from one time; give one")
        if not 2 <= t_low <= t_high <= self.plan.times:
            raise BadCall(f"divergences of t = {t_low} to {t_high}; give times from 2 to {self.plan.times}, rising")
        self.painting(1)

    def painting(self, images: int) -> Tensor:
        """The times that so many slices' latents go through, `(S + 1, B)`; raises `BadCall` for more steps than times."""
        assert isinstance(self.t_test, int)
        steps = self.t_test if self.inpaint_steps is None else self.inpaint_steps
        return path("ddim", [self.t_test] * images, steps)

    # --- networks ---

    def network(self, channels: int, edges: tuple[int, ...]) -> nn.Module:
        return DiffusionUNet(self.dims, self.latent, self.latent, self.size, self.width)

    def build(self, data: Mapping[str, Any]) -> None:
        halvings = self.factor.bit_length() - 1
        self.autoencoder = Autoencoder(
            self.dims,
            len(data["sequences"]),
            self.autoencoder_width,
            halvings,
            self.latent,
            dense=False,
            variational=True,
        )
        self.latents = data.get("latents", self.latents)
        super().build(data)

    def standardised(self, z: Tensor, *, back: bool = False) -> Tensor:
        """Latents `(B, latent, ...)` with mean 0 and SD 1 in healthy scans, or `back` as the autoencoder has them."""
        mean, sd = torch.tensor(self.latents or self.data["latents"], device=z.device).mT[(..., *[None] * self.dims)]
        made: Tensor = z * sd + mean if back else (z - mean) / sd
        return made

    def encoded(self, x: Tensor) -> Tensor:
        """The latents `(B, latent, I / factor, ...)` of images `(B, C, ...)`, standardised."""
        return self.standardised(self.run(Encoder(self.autoencoder), self.scaled(x)))

    def decoded(self, z: Tensor) -> Tensor:
        """The images of standardised latents."""
        return self.scaled(self.run(Decoder(self.autoencoder), self.standardised(z, back=True)).cpu(), back=True)

    def cells(self, brain: Tensor) -> Tensor:
        """Which latents hold brain: `(B, ...)` bool to `(B, 1, I / factor, ...)`."""
        return POOL[self.dims](brain[:, None].float(), self.factor) > 0

    # --- learning ---

    def shown(self, x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Sample:
        t = torch.randint(1, self.plan.times + 1, (1,), generator=rng)
        noise = self.drawn((1, self.latent, *(edge // self.factor for edge in x.shape[1:])), rng)
        return {"clean": self.scaled(x), "t": t[0], "noise": noise[0]}

    def loss(self, net: nn.Module, batch: Sample) -> Tensor:
        with torch.no_grad():
            z = self.standardised(self.autoencoder.to(batch["t"].device).eval().encode(batch["clean"])[0])
        return super().loss(net, {**batch, "clean": z, "input": self.plan.noised(z, batch["t"], batch["noise"])})

    def learn(self, healthy: Cohort, validation: Cohort | None, rng: torch.Generator, job: Job) -> Mapping[str, Any]:
        begun, everyone = time.monotonic(), (*healthy, *(validation or ()))
        about = {"box": largest(everyone, self.dims, self.reduction), "sequences": list(healthy[0].sequences)}
        # Of the coarsest grid of either network.
        if min(about["box"]) <= SHORT * self.reduction:
            job = replace(job, precision="float32")
        done, told = True, {}
        if not job.warm:
            seed = int(torch.randint(2**31, (1,), generator=rng))
            self.range = intensity_range(healthy)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.build(about)
            first = self._compress(healthy, validation, about["box"], seed, job)
            done, told = first.done, {"steps": self.autoencoder_steps, "best_step": first.best_step, "log": first.log}
            self.data = {**about, "range": self.range}
            self.latents = self._statistics(healthy)
        facts: Mapping[str, Any] = {**about, "finished": False, "log": [], "range": self.range}
        if done:
            left = None if job.minutes is None else max(0.0, job.minutes - (time.monotonic() - begun) / 60)
            facts = super().learn(healthy, validation, rng, replace(job, warm=True, minutes=left))
            self.autoencoder.to("cpu")
        facts = {**facts, "latents": self.latents, "autoencoder": {**told, "finished": done}}
        return self.settled(facts, validation or healthy, int(torch.randint(2**31, (1,), generator=rng)), job)

    def _compress(
        self, healthy: Cohort, validation: Cohort | None, size: Sequence[int], seed: int, job: Job
    ) -> Trained:
        """Trains the autoencoder, on the slices that the diffusion network is trained on later."""

        def sample(index: int, rng: torch.Generator, of: Cohort = healthy, at: float | None = None) -> Sample:
            x = self.scaled(self.example(of[index], size, rng, at)[0])
            # Of the whole slice, since latents at the rim hold what is beside the brain as well.
            return {"input": x, "x": x, "brain": torch.ones_like(x[:1])}

        def draw(index: int, rng: torch.Generator, at: float) -> Sample:
            assert validation is not None
            return sample(index, rng, validation, at)

        def loss(net: nn.Module, batch: Sample) -> Tensor:
            return evidence(net, batch, self.beta)

        done = train(
            self.autoencoder, sample, loss, len(healthy), Recipe(self.autoencoder_steps, self.batch, self.lr, self.final, clip=0.5),
            seed=seed, validate=validating(validation, self.dims, draw, loss),
            settings={**self.settings(healthy, validation, None), "network": "autoencoder"},
            job=replace(job, folder=job.folder / "autoencoder" if job.folder else None),
        )  # fmt: skip
        self.autoencoder.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return done

    def _statistics(self, healthy: Cohort) -> list[list[float]]:
        """Mean and SD of each channel of the latents."""
        self.latents = [[0.0, 1.0]] * self.latent
        z = torch.cat([self.encoded(x).movedim(1, 0).flatten(1) for _, x, _ in self.healthy_parts(healthy)], dim=1)
        # A channel that the autoencoder has no use for stays as it is.
        return [
            [float(mean), float(sd) if sd > 1e-6 else 1.0] for mean, sd in zip(z.mean(dim=1), z.std(dim=1), strict=True)
        ]

    def settle(self, healthy: Cohort, seed: int) -> None:
        """Finds what the mask's threshold is a quantile of on healthy scans: how unlikely latents are that hold brain."""
        found = []
        for index, x, brain in self.healthy_parts(healthy):
            nats = self.unlikely(self.encoded(x), generator(seed, "mask", index))
            found.append(nats.cpu()[self.cells(brain)].numpy())
        self.data = {**self.data, "healthy": {"nats": healthy_curve(found)}}

    @property
    def mask_threshold(self) -> float:
        """Nats that a masked latent exceeds, from healthy scans; raises `NotFitted` where none was found."""
        return on_curve(self.found("nats"), self.mask_share)

    # --- looking ---

    def unlikely(self, z: Tensor, rng: torch.Generator) -> Tensor:
        """The mean divergence of a denoising step for each latent of `(B, latent, ...)`, standardised: `(B, 1, ...)` nats."""
        times = range(self.t_low, self.t_high + 1, self.t_every)
        at_once = max(1, self.most(z) // len(z))
        return surprise(self.plan, self.denoiser(z), z, times, lambda: self.drawn(z.shape, rng), at_once)

    def find(self, scan: Scan, rng: torch.Generator) -> Finding:
        return self.weighted(scan, *self._healed(scan, rng))

    def restore(self, scan: Scan, rng: torch.Generator) -> NDArray[np.float32]:
        return self._healed(scan, rng)[0][None]

    def _healed(self, scan: Scan, rng: torch.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The healthy form of a scan `(C, I, J, K)`, and how much of each voxel is in the mask `(I, J, K)`."""
        return self.painted_in_part(scan, lambda x, brain: self.healed(x, brain, rng))

    def healed(self, x: Tensor, brain: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The healthy forms of images `(B, C, ...)`, and the mask up-sampled `(B, 1, ...)`, from 0 to 1; `brain (B, ...)` bool."""
        z = self.encoded(x)
        mask = (self.unlikely(z, rng) > self.mask_threshold) & self.cells(brain).to(z.device)
        painted = self.decoded(self.painted_latents(z, mask, rng))
        return painted, F.interpolate(mask.float(), size=x.shape[2:], mode=LINEAR[self.dims], align_corners=False).cpu()

    def painted_latents(self, z: Tensor, mask: Tensor, rng: torch.Generator) -> Tensor:
        """Latents `(B, latent, ...)`, standardised, brought back from `t_test` where a mask `(B, 1, ...)` is, among the others as they are."""
        return self.painted_where(z, z, mask, self.painting, branch(rng))
