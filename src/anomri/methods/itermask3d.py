"""IterMask3D (Liang et al., 2025): hide the brain, paint it back, unhide what came back right, repeat.

A network `f` learns to paint masked parts of healthy brains from what is around them and from the image's high frequencies,
`x' = f(m * noise + (1 - m) * x, x_f)` (eq. 17 to 19). At test time the mask starts as the whole brain and shrinks by 1 % of
it a step; the threshold `tau(t)` on the error `e = (x' - x)^2` that does so bends upwards where only the anomaly is left, and
the tau at that bend refines the mask from the whole brain once more (section 3.2 and 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anomri.cohort import Cohort
from anomri.corruptions.contrast import restain
from anomri.corruptions.frequency import CUTOFF, high_pass
from anomri.corruptions.masks import gaussian_mask
from anomri.corruptions.spatial import flip, rotate
from anomri.errors import BadCall, BadInput
from anomri.method import Method
from anomri.nets.engine import engine
from anomri.nets.unet import REDUCTION, ResidualUNet
from anomri.preprocess.space import box, cut, paste
from anomri.scan import Finding, Scan, Trace
from anomri.scoring.thresholds import bend, stop
from anomri.train import Job, Recipe, Sample, generator, train


class IterMask3D(Method):
    """IterMask3D.

    Parameters
    ----------
    width : channels of the UNet's first level; 16 is the paper's
    dropout : of the UNet; 0.2 is the published one's
    channels : sequences a scan has
    cutoff : of the high-frequency image, cycles per mm; 15/192 is the paper's
    frequency : show the network the high-frequency image; False is the ablation "spatial masking only" (v2, Table 5)
    refine : shrink the mask step by step; False paints the whole brain once and has a map but no mask of its own, with
        `whole_brain=1` the ablation "frequency masking only" (v2, Table 5)
    tau : a threshold for every scan, such as `healthy_tau` finds on healthy ones, in squared normalised intensity; None finds
        each scan's own (section 3.4)
    whole_brain : share of training masks that are the whole brain, as the first test step's is; 0 is the paper's
    rotation : probability of a random rotation in training, up to 10 degrees about each axis
    flip : probability of a left-right flip in training; 0 is the paper's
    contrast : probability that a training scan is shown as another scanner might (`corruptions.contrast`); 0 is the paper's
    steps, batch, lr, final : optimiser steps, samples a step, Adam's rate, and the share of it left after a cosine over the
        second half; the paper trains 200 epochs of its 750 to 960 scans at a constant 1e-3
    gamma_mask, gamma_score : slope of tau, in squared normalised intensity per step, at which the mask and the case score stop
    step_percent : share of the brain, in percent, that the mask shrinks by a step
    """

    name = "itermask3d"
    title = "IterMask3D"
    paper = "Liang et al., IterMask3D: unsupervised anomaly detection and segmentation with test-time iterative mask refinement in 3D brain MRI"
    year = 2025
    dimensions = "3D"
    map_unit = "squared normalised intensity"

    def __init__(
        self,
        *,
        width: int = 16,
        dropout: float = 0.2,
        channels: int = 1,
        cutoff: float = CUTOFF,
        frequency: bool = True,
        refine: bool = True,
        tau: float | None = None,
        whole_brain: float = 0.0,
        rotation: float = 0.1,
        flip: float = 0.0,
        contrast: float = 0.0,
        steps: int = 100_000,
        batch: int = 2,
        lr: float = 1e-3,
        final: float = 1.0,
        gamma_mask: float = 0.05,
        gamma_score: float = 0.01,
        step_percent: float = 1.0,
    ) -> None:
        self.width, self.dropout, self.channels, self.cutoff = width, dropout, channels, cutoff
        self.frequency, self.refine, self.tau = frequency, refine, tau
        self.whole_brain, self.rotation, self.flip, self.contrast = whole_brain, rotation, flip, contrast
        self.steps, self.batch, self.lr, self.final = steps, batch, lr, final
        self.gamma_mask, self.gamma_score, self.step_percent = gamma_mask, gamma_score, step_percent
        if not 0.4 <= step_percent <= 50:
            raise BadCall(
                f"step_percent is {step_percent:g}, needs to be from 0.4 to 50 (a step is counted in one byte)"
            )
        self.net: nn.Module = self._network()

    def _network(self) -> ResidualUNet:
        return ResidualUNet(2 * self.channels, self.channels, self.width, self.dropout)

    def learn(self, healthy: Cohort, validation: Cohort | None, rng: torch.Generator, job: Job) -> Mapping[str, Any]:
        names = healthy[0].sequences
        if len(names) != self.channels:
            raise BadInput(
                f"scan '{healthy[0].id}' has {len(names)} channels ({', '.join(names)}), {self.name} was made for {self.channels}; "
                f"make it with channels={len(names)}"
            )
        seed = int(torch.randint(2**31, (1,), generator=rng))
        if not job.warm:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.net = self._network()
        size = np.max([np.subtract(*box(s.brain, REDUCTION)[::-1]) for s in (*healthy, *(validation or ()))], axis=0)
        if size[0] <= 2 * REDUCTION:
            # torch 2.13 on a CPU reads unset memory for a bfloat16 convolution's weight gradient where the first axis has 2 voxels.
            job = replace(job, precision="float32")

        def sample(index: int, rng: torch.Generator, mask: str = "random") -> Sample:
            scan: Scan = (healthy if mask == "random" else validation)[index]  # type: ignore[index]
            x, brain = torch.tensor(scan.image), torch.tensor(scan.brain)
            chance = torch.rand(3, generator=rng)
            if mask == "random":
                x, brain = flip(x, brain) if chance[0] < self.flip else (x, brain)
                x, brain = rotate(x, brain, rng) if chance[1] < self.rotation else (x, brain)
                x = restain(x, brain, rng) if self.contrast and torch.rand(1, generator=rng) < self.contrast else x
            whole = mask == "whole" or (mask == "random" and float(chance[2]) < self.whole_brain)
            m = brain if whole else gaussian_mask(brain, scan.spacing, rng)
            x_f = self._high(x, scan)
            low, high = box(brain.numpy(), size=size)
            noise = torch.randn(x.shape, generator=rng)
            x_m = torch.where(m, noise, x)
            return {
                "input": cut(torch.cat([x_m, x_f]), low, high),
                "x": cut(x, low, high),
                "brain": cut(brain[None], low, high),
            }

        def loss(net: nn.Module, batch: Sample) -> Tensor:
            off = (net(batch["input"]).float() - batch["x"]).square() * batch["brain"]
            mean: Tensor = off.sum() / (batch["brain"].sum() * self.channels)
            return mean

        def validate(net: nn.Module) -> float:
            device = next(net.parameters()).device
            losses = []
            for index in range(len(validation or ())):
                for mask in ("blob", "whole"):
                    one = sample(index, generator("validate", index, mask), mask)
                    losses.append(float(loss(net, {k: v[None].to(device) for k, v in one.items()})))
            return float(np.mean(losses))

        recipe = Recipe(self.steps, self.batch, self.lr, self.final)
        settings = {
            **{
                name: getattr(self, name)
                for name in (
                    "width",
                    "dropout",
                    "channels",
                    "cutoff",
                    "frequency",
                    "whole_brain",
                    "rotation",
                    "flip",
                    "contrast",
                )
            },
            "start": self.weights_sha256 if job.warm else None,
            "spacing": [round(s, 4) for s in healthy[0].spacing],
            "healthy": healthy.digest(),
            "validation": validation.digest() if validation else None,
        }
        judge = validate if validation else None
        done = train(
            self.net, sample, loss, len(healthy), recipe, seed=seed, validate=judge, settings=settings, job=job
        )
        self.net.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return {"best_step": done.best_step, "finished": done.done, "log": done.log}

    def _high(self, x: Tensor, scan: Scan) -> Tensor:
        return high_pass(x, scan.spacing, self.cutoff) if self.frequency else torch.zeros_like(x)

    def find(self, scan: Scan, rng: torch.Generator) -> Finding:
        look = _Look(self, scan, rng)
        if not self.refine:
            return look.finding(look.brain)
        if self.tau is not None:
            mask = self._refine(look, look.error(look.brain), self.tau)
            found = look.finding(mask)
            return replace(
                found, mask=look.whole(mask).numpy(), scores={"volume_ml": float(mask.sum()) * scan.voxel_ml}
            )
        return self._adaptive(look, scan)

    def _adaptive(self, look: _Look, scan: Scan) -> Finding:
        """Section 3.4: the scan's own tau, found while its mask shrinks to nothing."""
        brain = look.brain
        n = int(brain.sum())
        steps = round(100 / self.step_percent)
        # Phase 1: the mask shrinks by a fixed share of the brain a step; tau(t) is what that takes.
        mask, taus = brain, []
        order = torch.zeros(brain.shape, dtype=torch.uint8)
        first = error = look.error(brain)
        for t in range(1, steps + 1):
            inside = error[brain].sort().values
            tau = inside[max(1, round(n * t / steps)) - 1]
            taus.append(float(tau))
            mask = (error > tau) & brain
            if t < steps:
                order[mask] = t
                error = look.error(mask)
        # Phase 2: from the whole brain once more, at the tau where the curve bends.
        curve = bend(taus)
        ends = {
            name: stop(taus, curve.slope, gamma)
            for name, gamma in (("mask", self.gamma_mask), ("score", self.gamma_score))
        }
        masks = {name: self._refine(look, first, end.tau) for name, end in ends.items()}
        found = look.finding(masks["mask"])
        ml = {name: float(m.sum()) * scan.voxel_ml for name, m in masks.items()}
        facts = {
            "fit": curve.fit, "a": curve.a, "b": curve.b, "T": curve.points, "r2": curve.r2, "slope": curve.slope,
            "stops": {name: {"gamma": e.gamma, "t": e.step, "tau": e.tau, "ml": ml[name]} for name, e in ends.items()},
            "passes": look.passes,
        }  # fmt: skip
        trace = Trace(look.whole(order).numpy(), np.array(taus, dtype=np.float32), facts)
        final = look.whole(masks["mask"]).numpy()
        return replace(found, mask=final, scores={"volume_ml": ml["score"]}, trace=trace)

    @staticmethod
    def _refine(look: _Look, first: Tensor, tau: float | None) -> Tensor:
        """Algorithm 1: shrink from the whole brain at one tau until the mask shrinks by less than 1 %; empty without a tau."""
        if tau is None:
            return torch.zeros_like(look.brain)
        mask, error = look.brain, first
        for _ in range(100):
            before, mask = mask, (error > tau) & look.brain
            if not mask.any() or int(before.sum()) - int(mask.sum()) < 0.01 * int(before.sum()):
                break
            error = look.error(mask)
        return mask


class _Look:
    """One scan in the box of its brain, and the network that paints it."""

    def __init__(self, method: IterMask3D, scan: Scan, rng: torch.Generator) -> None:
        x = torch.tensor(scan.image)
        self.scan, self.shape = scan, scan.grid.shape
        self.low, self.high = box(scan.brain, REDUCTION)
        x_f = method._high(x, scan)
        self.x, self.x_f = cut(x, self.low, self.high), cut(x_f, self.low, self.high)
        self.brain = cut(torch.tensor(scan.brain), self.low, self.high)
        self.rng, self.passes = rng, 0
        self.net = engine(method.net, *method.runtime())

    def paint(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The image painted back under a mask `(C, ...)`, and its squared error per voxel, mean over channels."""
        self.passes += 1
        noise = torch.randn(self.x.shape, generator=self.rng)
        painted = self.net(torch.cat([torch.where(mask, noise, self.x), self.x_f])[None])[0].cpu()
        return painted, (painted - self.x).square().mean(dim=0) * self.brain

    def error(self, mask: Tensor) -> Tensor:
        """Eq. 5, squared."""
        return self.paint(mask)[1]

    def finding(self, mask: Tensor) -> Finding:
        """The map and the healthy image of the last pass, under the final mask."""
        painted, error = self.paint(mask)
        healthy = np.where(self.whole(mask).numpy(), self.whole(painted).numpy(), self.scan.image)
        return Finding(self.whole(error).numpy(), healthy=healthy)

    def whole(self, part: Tensor) -> Tensor:
        """Back from the box to the scan's grid."""
        return paste(part, self.low, self.shape)


def healthy_tau(method: IterMask3D, healthy: Cohort, *, percentile: float = 80.0, seed: int = 0) -> float:
    """A threshold for every scan, from preprocessed healthy ones: a percentile of the errors under random masks.

    Parameters
    ----------
    healthy : validation scans, neither fitted nor tested on
    percentile : of all masked voxels' squared errors; 80 is IterMask2's, 70 its value for ATLAS (IterMask3D, v2)

    Returns squared normalised intensity, for `IterMask3D(tau=...)`. Source: IterMask2, section 2.3; "fixed" in v2, Table 6 and 7.
    """
    errors = []
    for index, scan in enumerate(healthy):
        rng = generator(seed, "tau", index)
        look = _Look(method, scan, rng)
        mask = gaussian_mask(look.brain, scan.spacing, rng)
        errors.append(look.error(mask)[mask])
    return float(np.percentile(torch.cat(errors).numpy(), percentile))
