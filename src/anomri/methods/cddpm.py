"""Context-conditioned diffusion (Behrendt et al., 2025; thesis, section 3.4.3, chapter 8.3): the network is told what the scan is like.

Noise takes away how bright a slice is and where, and what comes back differs from the scan for that alone. An encoder makes a short vector
of the slice without noise, `c = F_enc(x_0)`, that scales and shifts the channels of every block beside the time: enough to tell of
intensities, too little to copy a lesion. The encoder learns with the UNet; before that it can be pre-trained to paint hidden cells back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomri.cohort import Cohort
from anomri.diffuser import Diffuser, intensity_range
from anomri.errors import BadCall
from anomri.nets.diffusion_unet import ConditionedUNet, DiffusionUNet, conditions
from anomri.nets.layers import SHORT
from anomri.nets.resnet import REDUCTION, ResNet
from anomri.nets.spark import Spark, masked_loss, staying, visible
from anomri.restorer import largest, validating
from anomri.train import Job, Recipe, Sample, Trained, processes, train


class CDDPM(Diffuser):
    """Context-conditioned diffusion.

    Parameters
    ----------
    dims : 2 for axial slices; 3 for volumes, which the thesis names as future work
    size : channels and blocks of the UNet: "cddpm", 128, 256 and 256 (section 4.4); "pddpm", 128, 128 and 256; "small", for CPUs, ours
    width : channels of its first level; None is the size's
    encoder : "resnet50", as in the published code, of which the paper says "ResNet", "resnet18", or "small", ours; None is "small" for
        the small size, else "resnet50"
    context : length d of the vector; 128 is the paper's
    pretrained : whether the encoder is trained by itself first, to paint hidden cells back ("SSL"; SparK)
    noise : "simplex", the paper's, or "gaussian"
    schedule : "linear", or "cosine", which is the published code's
    prediction : what the network says, "x0", the paper's, or "noise"
    t_test : time that scans are noised to, of 1000; of several, the mean of what comes back: (250, 500, 750) is the paper's ensemble
    sampler : the way back: "one_step", the paper's; "ddpm", through all times; "ddim", through `ddim_steps` of them
    ddim_steps : how many times "ddim" goes through, evenly spaced
    augmented : whether training images are augmented (`corruptions.augment`), as the paper's are
    score, sign, sigma, cleaning : see `Restorer`
    n : reconstructions a scan, each with noise of its own; None is 10 for the Mahalanobis scores, else 1
    final : share of the rate that is left at the end; 1 is the paper's
    pretraining_steps : optimiser steps of the encoder by itself, AdamW at 1e-4; 1,200 epochs of 358 slices in the published code
    steps, batch, lr : optimiser steps, samples a step, Adam's rate; the paper trains 1,600 epochs of 358 slices at 1e-4
    """

    name = "cddpm"
    title = "Context-conditioned diffusion"
    paper = "Behrendt et al., Guided reconstruction with conditioned diffusion models for unsupervised anomaly detection in brain MRIs"
    year = 2025
    dimensions = "2D, 3D"
    map_unit = "normalised intensity"

    def __init__(
        self,
        *,
        dims: int = 2,
        size: str = "cddpm",
        width: int | None = None,
        encoder: str | None = None,
        context: int = 128,
        pretrained: bool = False,
        noise: str = "simplex",
        schedule: str = "linear",
        prediction: str = "x0",
        t_test: int | Sequence[int] = 500,
        sampler: str = "one_step",
        ddim_steps: int = 50,
        augmented: bool = True,
        score: str = "l1",
        sign: str = "both",
        sigma: float = 1.0,
        cleaning: str = "none",
        n: int | None = None,
        pretraining_steps: int = 13_200,
        steps: int = 17_600,
        batch: int = 32,
        lr: float = 1e-4,
        final: float = 1.0,
    ) -> None:
        if context < 1:
            raise BadCall(f"context is a vector of {context} numbers, needs at least 1")
        self.dims, self.size, self.width, self.encoder, self.context = dims, size, width, encoder, context
        self.pretrained, self.pretraining_steps = pretrained, pretraining_steps
        self.noise, self.schedule, self.prediction = noise, schedule, prediction
        self.t_test, self.sampler, self.ddim_steps = t_test, sampler, ddim_steps
        self.augmented, self.steps, self.batch, self.lr, self.final = augmented, steps, batch, lr, final
        self.scored(score, sign, sigma, cleaning, n, several=True)
        self.checked()

    def network(self, channels: int, edges: tuple[int, ...]) -> nn.Module:
        kind = self.encoder or ("small" if self.size == "small" else "resnet50")
        unet = DiffusionUNet(self.dims, channels, channels, self.size, self.width, self.context)
        return ConditionedUNet(unet, ResNet(self.dims, channels, self.context, kind))

    @property
    def unet(self) -> DiffusionUNet:
        assert isinstance(self.net, ConditionedUNet)
        return self.net.unet

    def predicted(self, net: nn.Module, batch: Sample) -> Tensor:
        y: Tensor = net(batch["input"], conditions(batch["t"], self.features), batch["clean"])
        return y

    def told(self, clean: Tensor) -> Tensor:
        assert isinstance(self.net, ConditionedUNet)
        return self.run(self.net.encoder, clean)

    # --- pre-training ---

    def learn(self, healthy: Cohort, validation: Cohort | None, rng: torch.Generator, job: Job) -> Mapping[str, Any]:
        pretrained = self.pretrained and not job.warm
        box = largest((*healthy, *(validation or ())), self.dims, self.reduction)
        self._check_batch(box, pretrained)
        if not pretrained:
            return super().learn(healthy, validation, rng, job)
        begun = time.monotonic()
        seed = int(torch.randint(2**31, (1,), generator=rng))
        self.range = intensity_range(healthy)
        about = {"box": box, "sequences": list(healthy[0].sequences)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.build(about)
            assert isinstance(self.net, ConditionedUNet)
            assert isinstance(self.net.encoder, ResNet)
            spark = Spark(self.net.encoder, self.dims, len(about["sequences"]))
        # What makes the context learns nothing here, and processes that train together wait for each gradient.
        self.net.encoder.last.requires_grad_(False)
        done = self._pretrain(spark, healthy, validation, seed, job)
        self.net.encoder.last.requires_grad_(True)
        told = {"steps": self.pretraining_steps, "best_step": done.best_step, "finished": done.done, "log": done.log}
        if not done.done:
            return {**about, "finished": False, "log": [], "range": self.range, "pretraining": told}
        left = None if job.minutes is None else max(0.0, job.minutes - (time.monotonic() - begun) / 60)
        facts = super().learn(healthy, validation, rng, replace(job, warm=True, minutes=left))
        return {**facts, "pretraining": told}

    def _check_batch(self, edges: Sequence[int], pretrained: bool) -> None:
        """Raises `BadCall` where the encoder's batch norm would have one value to learn from."""
        cells, images = math.prod(math.ceil(edge / REDUCTION) for edge in edges), self.batch // processes()[1]
        if images * (staying(cells) if pretrained else cells) == 1:
            grid = " x ".join(map(str, edges))
            raise BadCall(
                f"batch is {self.batch}: of one image on a grid of {grid} the encoder sees one cell of {REDUCTION} voxels, "
                "which has no variance; take 2 or more for each process"
            )

    def _pretrain(self, spark: Spark, healthy: Cohort, validation: Cohort | None, seed: int, job: Job) -> Trained:
        """Trains the encoder to paint hidden cells of healthy images back, together with what is thrown away."""
        edges = largest((*healthy, *(validation or ())), self.dims, self.reduction)
        # Cells of 32 voxels: what is missing of the last ones is background.
        spare = [-edge % REDUCTION for edge in edges]
        beyond = [n for more in reversed(spare) for n in (0, more)]
        if min(edge + more for edge, more in zip(edges, spare, strict=True)) <= SHORT * REDUCTION:
            job = replace(job, precision="float32")

        def sample(index: int, rng: torch.Generator, of: Cohort = healthy, at: float | None = None) -> Sample:
            x, _ = self.example(of[index], edges, rng, at)
            x = self.scaled(F.pad(x, beyond))
            return {"x": x, "seen": visible(x.shape[1:], rng)}

        def draw(index: int, rng: torch.Generator, at: float) -> Sample:
            assert validation is not None
            return sample(index, rng, validation, at)

        def loss(net: nn.Module, batch: Sample) -> Tensor:
            return masked_loss(net, batch["x"], batch["seen"])

        recipe = Recipe(self.pretraining_steps, self.batch, 1e-4, optimiser="adamw", weight_decay=0.05)
        done = train(
            spark, sample, loss, len(healthy), recipe, seed=seed, validate=validating(validation, self.dims, draw, loss),
            settings={**self.settings(healthy, validation, None), "network": "encoder"},
            job=replace(job, folder=job.folder / "encoder" if job.folder else None),
        )  # fmt: skip
        spark.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return done
