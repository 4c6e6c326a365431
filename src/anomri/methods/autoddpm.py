"""AutoDDPM (Bercea et al., 2023): mask what comes back otherwise, stitch it into the scan, sample again until it fits.

A slice is noised to t = 200 and brought back, step by step. How much that differs from the slice, and how unlike it looks, is a first map;
where it is high the slice is masked, and what came back is stitched in. From t = 50 the stitched slice is painted again inside the mask
alone, each step several times over, which lets it fit what is around ("joint noised distribution re-sampling"). The map is the residual of
the slice and its healed form, times the first map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from anomri.cohort import Cohort
from anomri.diffuser import SAMPLING, Diffuser, branch
from anomri.errors import BadCall, unknown
from anomri.nets.diffusion import path
from anomri.nets.perceptual import PerceptualDistance
from anomri.restorer import SCORING
from anomri.scan import Finding, Scan
from anomri.scoring.thresholds import healthy_curve, healthy_threshold, on_curve, quantile
from anomri.train import Job, generator

SCALES = ("slice", "healthy")
MASKINGS = ("threshold", "share")
LARGEST = 0.95
"""Share of a slice's brain whose residuals lie below the one that counts as 1."""

Distance = Callable[[Tensor, Tensor, Tensor], Tensor]


class AutoDDPM(Diffuser):
    """AutoDDPM.

    Parameters
    ----------
    size : channels and blocks of the network: "autoddpm", the published code's 128, 256 and 256 with attention in the coarser two levels;
        "cddpm" and "pddpm", Behrendt's; "small", for CPUs, ours
    width : channels of its first level; None is the size's
    schedule : of the noise, "linear", the published code's, or "cosine"
    prediction : what the network says, "noise", the published code's, by the squared error; or "x0", the image, by the absolute one
    t_test : time that slices are noised to first, of 1000
    sampler : the way back from there: "ddpm", the published code's, through all times; "ddim", through `ddim_steps`; "one_step"
    ddim_steps : how many times "ddim" goes through, evenly spaced
    scale : what the residuals of the first map are divided by, their 95th percentile in the "slice" itself (published code), or in
        "healthy" scans. With the first, a large lesion makes all else in its slice look healthier, and a healthy slice ill
    masking : where the first map becomes the mask: above a "threshold" that healthy scans set (published code; the change that
        IterMask3D, section 4.4, makes), or the highest "share" of each slice, healthy or not
    mask_share : of healthy brain above that threshold, or of each slice's brain; 0.05 is the published code's
    t_inpaint : time that the stitched slice is noised to
    inpaint_steps : steps from there; None is one for each time, the published code's
    resamples : times that each of these steps is made
    augmented : whether training images are augmented (`corruptions.augment`); the published code turns, scales and flips them
    score, sign, sigma, cleaning : see `Restorer`; the residual that the first map is multiplied with
    final : share of the rate that is left at the end; 1 is the published code's
    steps, batch, lr : optimiser steps, samples a step, Adam's rate; 3,000 epochs in the published code, here of 358 slices

    The threshold is found at the end of `fit` on the validation scans, or where there are none on those that it learned from, and anew by
    `calibrate`, which a change of `t_test` or of the way back asks for. That is the way back of up to 16 scans, 8 slices of each, as long as
    it takes for two or three scans, and comes after the minutes of a `Job`.
    """

    name = "autoddpm"
    title = "AutoDDPM"
    paper = "Bercea et al., Mask, stitch, and re-sample: enhancing robustness and generalizability in anomaly detection through automatic diffusion models"
    year = 2023
    dimensions = "2D"
    map_unit = "normalised intensity times perceptual distance"
    weightless = frozenset(
        {*SCORING, *SAMPLING, "scale", "masking", "mask_share", "t_inpaint", "inpaint_steps", "resamples"}
    )
    noise = "gaussian"

    def __init__(
        self,
        *,
        size: str = "autoddpm",
        width: int | None = None,
        schedule: str = "linear",
        prediction: str = "noise",
        t_test: int = 200,
        sampler: str = "ddpm",
        ddim_steps: int = 50,
        scale: str = "slice",
        masking: str = "threshold",
        mask_share: float = 0.05,
        t_inpaint: int = 50,
        inpaint_steps: int | None = None,
        resamples: int = 5,
        augmented: bool = False,
        score: str = "l1",
        sign: str = "both",
        sigma: float = 1.0,
        cleaning: str = "none",
        steps: int = 67_200,
        batch: int = 16,
        lr: float = 1e-4,
        final: float = 1.0,
    ) -> None:
        if scale not in SCALES:
            raise unknown("scale", scale, SCALES)
        if masking not in MASKINGS:
            raise unknown("masking", masking, MASKINGS)
        if not 0 < mask_share < 1:
            raise BadCall(f"mask_share is {mask_share:g}, needs to be between 0 and 1")
        if resamples < 1:
            raise BadCall(f"resamples is {resamples}, each step is made at least once")
        self.size, self.width, self.schedule, self.prediction = size, width, schedule, prediction
        self.t_test, self.sampler, self.ddim_steps = t_test, sampler, ddim_steps
        self.scale, self.masking, self.mask_share = scale, masking, mask_share
        self.t_inpaint, self.inpaint_steps, self.resamples = t_inpaint, inpaint_steps, resamples
        self.augmented, self.steps, self.batch, self.lr, self.final = augmented, steps, batch, lr, final
        self.scored(score, sign, sigma, cleaning)
        self.checked()
        if not isinstance(self.t_test, int):
            raise BadCall(f"t_test is {t_test}, {self.name} has one first reconstruction; give one time")
        if not 1 <= t_inpaint <= self.plan.times:
            raise BadCall(f"t_inpaint is {t_inpaint}, needs to be a time from 1 to {self.plan.times}")
        self.times(1)

    def times(self, images: int) -> Tensor:
        """The times that so many stitched slices go through, `(S + 1, B)`; raises `BadCall` for more steps than times."""
        steps = self.t_inpaint if self.inpaint_steps is None else self.inpaint_steps
        return path("ddim", [self.t_inpaint] * images, steps)

    # --- the mask's threshold ---

    def learn(self, healthy: Cohort, validation: Cohort | None, rng: torch.Generator, job: Job) -> Mapping[str, Any]:
        facts = super().learn(healthy, validation, rng, job)
        seed = int(torch.randint(2**31, (1,), generator=rng))
        return self.settled(facts, validation or healthy, seed, job)

    def settle(self, healthy: Cohort, seed: int) -> None:
        """Finds what the mask's threshold is a quantile of on healthy scans."""
        self.data = {**self.data, **self._healthy(healthy, seed)}

    def _healthy(self, healthy: Cohort, seed: int) -> dict[str, Any]:
        """Of the brain in healthy slices, by the name "healthy": the residual that counts as 1, and what shares of it exceed."""
        distance, found = self._distance(), []
        for index, image, brain in self.healthy_parts(healthy):
            _, off, far = self._compared(self.scaled(image), brain, distance, generator(seed, "mask", index))
            found.append((off, far, brain))
        large = healthy_threshold([off[brain].numpy() for off, _, brain in found], 1 - LARGEST)
        firsts = [self._first(*one, large)[one[-1]].numpy() for one in found]
        return {"healthy": {"large": large, "firsts": healthy_curve(firsts)}}

    @property
    def mask_threshold(self) -> float:
        """What the first map of a masked voxel exceeds, from healthy scans; raises `NotFitted` where none was found."""
        return on_curve(self.found("firsts"), self.mask_share)

    # --- looking ---

    def find(self, scan: Scan, rng: torch.Generator) -> Finding:
        return self.weighted(scan, *self._healed(scan, rng))

    def restore(self, scan: Scan, rng: torch.Generator) -> NDArray[np.float32]:
        return self._healed(scan, rng)[0][None]

    def _healed(self, scan: Scan, rng: torch.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A scan with what looks abnormal painted `(C, I, J, K)`, and its first map `(I, J, K)`."""
        distance = self._distance()
        return self.painted_in_part(scan, lambda x, brain: self.healed(x, brain, distance, rng))

    def healed(self, x: Tensor, brain: Tensor, distance: Distance, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Slices `(B, C, I, J)` with what looks abnormal painted, and their first maps `(B, 1, I, J)`; `brain (B, I, J)`."""
        clean = self.scaled(x)
        draws = branch(rng)
        painted, first = self.first(clean, brain, distance, rng)
        if self.masking == "threshold":
            mask = first > self.mask_threshold
        else:
            mask = first > _levels(first, brain, 1 - self.mask_share)
        mask = F.max_pool2d(mask[:, None].float(), 3, stride=1, padding=1) > 0
        made = self.painted_where(clean, torch.where(mask, painted, clean), mask, self.times, draws)
        healed = torch.where(mask, self.scaled(made, back=True), x)
        return healed, first[:, None]

    def first(self, clean: Tensor, brain: Tensor, distance: Distance, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """What slices `(B, C, I, J)`, scaled, are brought back to, and the first map of each `(B, I, J)`, 0 outside the brain.

        That is the residual over its 95th percentile, at most 1, times the perceptual distance.
        """
        painted, off, far = self._compared(clean, brain, distance, rng)
        return painted, self._first(off, far, brain, self.found("large") if self.scale == "healthy" else 0.0)

    def _compared(
        self, clean: Tensor, brain: Tensor, distance: Distance, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What slices, scaled, are brought back to, by how much that is off and how unlike it looks `(B, I, J)`."""
        device = self.runtime()[0]
        noise, t = self.drawn(clean.shape, rng), torch.tensor(self.levels()).expand(len(clean))
        painted = self.painted(clean.to(device), noise.to(device), t, rng).cpu()
        return painted, (painted - clean).abs().mean(dim=1), distance(clean, painted, brain[:, None])[:, 0].cpu()

    def _first(self, off: Tensor, far: Tensor, brain: Tensor, large: float) -> Tensor:
        """The first map, of what `_compared` found; `large` is the residual in healthy scans that counts as 1."""
        most = torch.tensor(large) if self.scale == "healthy" else _levels(off, brain, LARGEST)
        # Of what came back as it was nothing is large.
        return torch.nan_to_num(off / most).clamp(max=1) * far * brain

    def _distance(self) -> Distance:
        """How unlike two batches of slices look, by the network's own features."""
        net = PerceptualDistance(self.unet)
        return lambda a, b, brain: self.run(net, a, b, brain, name="torch")


def _levels(values: Tensor, brain: Tensor, share: float) -> Tensor:
    """Of each slice the value that a share of its brain does not exceed, `(B, 1, 1)`."""
    return torch.stack([quantile(v[b], share) for v, b in zip(values, brain, strict=True)])[:, None, None]
