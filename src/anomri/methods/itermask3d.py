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
from numpy.typing import NDArray
from torch import Tensor, nn

from anomri.cohort import Cohort
from anomri.corruptions.contrast import restain, thicken
from anomri.corruptions.frequency import CUTOFF, high_pass
from anomri.corruptions.masks import gaussian_mask
from anomri.corruptions.spatial import blur, flip, rotate
from anomri.corruptions.spots import spots as spotted
from anomri.errors import BadCall, BadInput, unknown
from anomri.method import Method
from anomri.nets.engine import engine
from anomri.nets.layers import SHORT
from anomri.nets.unet import REDUCTION, ResidualUNet, StridedUNet
from anomri.preprocess.space import box, cut, paste
from anomri.scan import Array, Finding, Mask, Scan, Trace
from anomri.scoring.thresholds import SCHEDULES, bend, between, left_out, stop, stride
from anomri.train import Job, Recipe, Sample, generator, train

NETWORKS = {"residual": ResidualUNet, "strided": StridedUNet}
NEARLY = 0.03
"""A mask that shrinks by less than this a round is refined in float32: it ends at 1 %, which bfloat16's error can miss by a round."""


class IterMask3D(Method):
    """IterMask3D.

    Parameters
    ----------
    network : residual, the paper's, or strided, which works on half the grid: half the time with twice the width
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
    thick : probability that a training scan is shown in thick slices (`corruptions.contrast.thicken`); 0 is the paper's
    spots : probability that a training scan is shown with spots that are not its own (`corruptions.spots`), to be painted without them;
        0 is the paper's. Without any, a network can read a lesion from the edges that the high frequencies have of it, and paints it
    moved : probability that a training scan lies anywhere in the network's box, instead of in its middle; 0 is the paper's
    steps, batch, lr, final : optimiser steps, samples a step, Adam's rate, and the share of it left after a cosine over the
        second half; the paper trains 200 epochs of its 750 to 960 scans at a constant 1e-3
    gamma_mask, gamma_score : slope of tau, in squared normalised intensity per step, at which the mask and the case score stop
    step_percent : share of the brain, in percent, that the mask shrinks by a step
    smooth_mm : SD of the Gaussian under which errors are averaged inside the brain before anything is made of them; 0 is the paper's.
        What is abnormal is a region, where the network paints badly is often one voxel wide
    schedule : "exact" makes every step; "adaptive" several at once where tau is flat, about 25 passes instead of 100 for the
        same stop, and interpolates tau(t) there
    """

    name = "itermask3d"
    title = "IterMask3D"
    paper = "Liang et al., IterMask3D: unsupervised anomaly detection and segmentation with test-time iterative mask refinement in 3D brain MRI"
    year = 2025
    dimensions = "3D"
    map_unit = "squared normalised intensity"
    weightless = frozenset({"refine", "tau", "gamma_mask", "gamma_score", "step_percent", "smooth_mm", "schedule"})

    def __init__(
        self,
        *,
        network: str = "residual",
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
        thick: float = 0.0,
        spots: float = 0.0,
        moved: float = 0.0,
        steps: int = 100_000,
        batch: int = 2,
        lr: float = 1e-3,
        final: float = 1.0,
        gamma_mask: float = 0.05,
        gamma_score: float = 0.01,
        step_percent: float = 1.0,
        smooth_mm: float = 0.0,
        schedule: str = "adaptive",
    ) -> None:
        if network not in NETWORKS:
            raise unknown("network", network, NETWORKS)
        self.network, self.width, self.dropout, self.channels, self.cutoff = network, width, dropout, channels, cutoff
        self.frequency, self.refine, self.tau = frequency, refine, tau
        self.whole_brain, self.rotation, self.flip = whole_brain, rotation, flip
        self.contrast, self.thick, self.spots, self.moved = contrast, thick, spots, moved
        self.steps, self.batch, self.lr, self.final = steps, batch, lr, final
        self.gamma_mask, self.gamma_score, self.step_percent = gamma_mask, gamma_score, step_percent
        if not 0.4 <= step_percent <= 50:
            raise BadCall(
                f"step_percent is {step_percent:g}, needs to be from 0.4 to 50 (a step is counted in one byte)"
            )
        if schedule not in SCHEDULES:
            raise unknown("schedule", schedule, SCHEDULES)
        if not smooth_mm >= 0:
            raise BadCall(f"smooth_mm is {smooth_mm:g}, needs to be 0 or more")
        self.schedule, self.smooth_mm = schedule, smooth_mm
        self.net: nn.Module = self._network()

    def _network(self) -> nn.Module:
        return NETWORKS[self.network](2 * self.channels, self.channels, self.width, self.dropout)

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
        if min(size) <= SHORT * REDUCTION:
            job = replace(job, precision="float32")

        def sample(index: int, rng: torch.Generator, mask: str = "random") -> Sample:
            scan: Scan = (healthy if mask == "random" else validation)[index]  # type: ignore[index]
            x, brain = torch.tensor(scan.image), torch.tensor(scan.brain)
            chance = torch.rand(3, generator=rng)
            if mask == "random":
                x, brain = flip(x, brain) if chance[0] < self.flip else (x, brain)
                x, brain = rotate(x, brain, rng) if chance[1] < self.rotation else (x, brain)
                x = restain(x, brain, rng) if _chosen(self.contrast, rng) else x
                x = thicken(x, brain, scan.spacing, rng) if _chosen(self.thick, rng) else x
            whole = mask == "whole" or (mask == "random" and float(chance[2]) < self.whole_brain)
            m = brain if whole else gaussian_mask(brain, scan.spacing, rng)
            low, high = box(brain.numpy(), size=size)
            if mask == "random" and _chosen(self.moved, rng):
                # No further than its box is larger than it.
                spare = np.maximum(0, size - np.subtract(*box(brain.numpy())[::-1]))
                low = low + (torch.rand(3, generator=rng).numpy() * (spare + 1)).astype(int) - spare // 2
                high = low + size
            given = spotted(x, brain, scan.spacing, rng) if mask == "random" and _chosen(self.spots, rng) else x
            x, given, x_f, m, brain = (cut(part, low, high) for part in (x, given, self._high(given, scan), m, brain))
            x_m = torch.where(m, torch.randn(x.shape, generator=rng), given)
            return {"input": torch.cat([x_m, x_f]), "x": x, "brain": brain[None]}

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
            **self.learning,
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
        return {"best_step": done.best_step, "finished": done.done, "log": done.log, "box": [int(n) for n in size]}

    def _high(self, x: Tensor, scan: Scan) -> Tensor:
        return high_pass(x, scan.spacing, self.cutoff) if self.frequency else torch.zeros_like(x)

    def find(self, scan: Scan, rng: torch.Generator) -> Finding:
        look = _Look(self, scan, rng)
        everything = np.ones(look.voxels, dtype=bool)
        if not self.refine:
            return look.finding(everything)
        if self.tau is not None:
            mask = self._refine(look, look.errors(everything, "step", 0), self.tau)
            found = look.finding(mask)
            return replace(found, mask=look.whole(mask), scores={"volume_ml": float(mask.sum()) * scan.voxel_ml})
        return self._adaptive(look, scan)

    def _adaptive(self, look: _Look, scan: Scan) -> Finding:
        """Section 3.4: the scan's own tau, found while its mask shrinks to nothing."""
        n, steps, gamma = look.voxels, round(100 / self.step_percent), min(self.gamma_mask, self.gamma_score)
        ranks = np.maximum(1, np.round(n * np.arange(1, steps + 1) / steps)).astype(int) - 1
        # Phase 1: the mask shrinks by a share of the brain a step; tau(t) is what that takes.
        order, everything = np.zeros(n, dtype=np.uint8), np.ones(n, dtype=bool)
        first = error = look.errors(everything, "step", 0)
        taus: dict[int, float] = {}
        masks = {1: np.packbits(everything)}
        t = 0
        while True:
            levels = np.sort(error)[ranks]
            taus[t + 1] = float(levels[t])
            after = t + (1 if self.schedule == "exact" else stride(taus, gamma, steps))
            # The steps up to the next are ranked by this pass.
            hidden = np.searchsorted(levels[t : min(after, steps - 1)], error)
            order = np.where(hidden > 0, t + hidden, order).astype(np.uint8)
            if t + 1 == steps:
                break
            t = min(after, steps - 1)
            masks[t + 1] = np.packbits(error > levels[t - 1])
            error = look.errors(look.unpacked(masks[t + 1]), "step", t)
        tau = between(taus, steps)
        # Phase 2: from the whole brain once more, at the tau where the curve bends.
        # The curve of averaged errors does not begin at 0, as a tangent does: of no region is the mean that small.
        curve = bend(tau - tau.min() if self.smooth_mm else tau)
        ends = {
            name: stop(tau, curve.slope, gamma)
            for name, gamma in (("mask", self.gamma_mask), ("score", self.gamma_score))
        }
        # What the mask depends on is looked at in float32: bfloat16 moves tau by a hundredth.
        if look.mixed and ends["mask"].step in taus:
            at = int(ends["mask"].step)
            error = look.errors(look.unpacked(masks[at]), "step", at - 1, sure=True)
            ends["mask"] = replace(ends["mask"], tau=float(np.sort(error)[ranks[at - 1]]))
        finals, refining = {}, {}
        for name, end in ends.items():
            before = look.passes
            finals[name] = self._refine(look, first, end.tau, sure=name == "mask" and look.mixed)
            refining[name] = look.passes - before
        found = look.finding(finals["mask"])
        ml = {name: float(m.sum()) * scan.voxel_ml for name, m in finals.items()}
        facts = {
            "fit": curve.fit, "a": curve.a, "b": curve.b, "T": curve.points, "r2": curve.r2, "slope": curve.slope,
            "stops": {name: {"gamma": e.gamma, "t": e.step, "tau": e.tau, "ml": ml[name]} for name, e in ends.items()},
            "schedule": self.schedule, "measured": sorted(taus), "curve_error": left_out(taus), "passes": look.passes, "refining": refining,
        }  # fmt: skip
        trace = Trace(look.whole(order), tau.astype(np.float32), facts)
        return replace(found, mask=look.whole(finals["mask"]), scores={"volume_ml": ml["score"]}, trace=trace)

    @staticmethod
    def _refine(look: _Look, first: Array, tau: float | None, *, sure: bool = False) -> Mask:
        """Algorithm 1: shrink from the whole brain at one tau until the mask shrinks by less than 1 %; empty without a tau.

        `sure`: in float32 from where the mask shrinks by less than `NEARLY`, whatever `first` is in.
        """
        mask = np.ones(look.voxels, dtype=bool)
        if tau is None:
            return ~mask
        error, exact = first, not sure
        key: tuple[str, int] = ("step", 0)
        for i in range(100):
            if not exact and int((error > tau).sum()) > (1 - NEARLY) * int(mask.sum()):
                error, exact = look.errors(mask, *key, sure=True), True
            before, mask = mask, error > tau
            if not mask.any() or int(before.sum()) - int(mask.sum()) < 0.01 * int(before.sum()):
                break
            key = ("refine", i)
            error = look.errors(mask, *key, sure=sure and exact)
        return mask


def _chosen(share: float, rng: torch.Generator) -> bool:
    """Whether a sample is one of that share; nothing is drawn for none, so that what follows stays as it was."""
    return share > 0 and float(torch.rand(1, generator=rng)) < share


class _Look:
    """One scan in the box of its brain, and the network that paints it. Masks and errors are rows of the brain's n voxels."""

    def __init__(self, method: IterMask3D, scan: Scan, rng: torch.Generator) -> None:
        self.scan = scan
        # Where the brain lies on the network's coarse grids is as in training: it has seen no other.
        self.low, self.high = box(scan.brain, REDUCTION, like=method.data.get("box"))
        x = torch.tensor(scan.image)
        self.brain = cut(torch.tensor(scan.brain), self.low, self.high)
        self.inside = self.brain.flatten().nonzero()[:, 0]
        self.voxels, self.channels, self.passes = len(self.inside), len(x), 0
        # What the network is given: only the first channels' brain changes from pass to pass.
        self.given = cut(torch.cat([x, method._high(x, scan)]), self.low, self.high)[None]
        self.x = self.given[0, : self.channels].flatten(1)[:, self.inside]
        self.seed = int(torch.randint(2**62, (1,), generator=rng))
        self.sigma = [method.smooth_mm / mm for mm in scan.spacing]
        self.weight = blur(self.brain[None, None].float(), self.sigma).flatten()[self.inside]
        device, dtype, name = method.runtime()
        self.net = engine(method.net, device, dtype, name)
        # A precision that the user chose is that of every pass.
        self.mixed = dtype != torch.float32 and method.precision == "auto"
        self.sure = engine(method.net, device, torch.float32, name) if self.mixed else self.net

    def paint(self, mask: Mask, *key: object, sure: bool = False) -> tuple[Tensor, Array]:
        """The image painted back under a mask `(C, I, J, K)`, and its squared error `(n,)`, mean over channels (eq. 5).

        The noise depends on the scan's seed and the key alone: passes that are left out do not change that of others. `sure`: in
        float32, whatever the others are in.
        """
        self.passes += 1
        noise = torch.randn(self.x.shape, generator=generator(self.seed, *key))
        self.given[0, : self.channels].flatten(1)[:, self.inside] = torch.where(torch.from_numpy(mask), noise, self.x)
        painted = (self.sure if sure else self.net)(self.given)[0].cpu()
        error = np.asarray(self._smooth((painted.flatten(1)[:, self.inside] - self.x).square().mean(dim=0)))
        if not np.isfinite(error).all():
            raise BadInput(
                f"scan '{self.scan.id}': the network painted NaN or infinite values; check the scan's intensities"
            )
        return painted, error

    def _smooth(self, error: Tensor) -> Tensor:
        """A row of errors, averaged over their neighbours inside the brain."""
        if not any(self.sigma):
            return error
        volume = torch.zeros(1, 1, *self.brain.shape)
        volume[0, 0, self.brain] = error
        return blur(volume, self.sigma).flatten()[self.inside] / self.weight

    def errors(self, mask: Mask, *key: object, sure: bool = False) -> Array:
        """What `paint` gives, without the image."""
        return self.paint(mask, *key, sure=sure)[1]

    def unpacked(self, bits: NDArray[np.uint8]) -> Mask:
        """A mask from `np.packbits`."""
        return np.unpackbits(bits, count=self.voxels).astype(bool)

    def finding(self, mask: Mask) -> Finding:
        """The map and the healthy image of the last pass, under the final mask."""
        painted, error = self.paint(mask, "last", sure=True)
        back = paste(painted, self.low, self.scan.grid.shape).numpy()
        healthy = np.where(self.whole(mask), back, self.scan.image)
        return Finding(self.whole(error), healthy=healthy)

    def whole(self, row: NDArray[Any]) -> NDArray[Any]:
        """A row of the brain's voxels on the scan's grid, 0 elsewhere."""
        volume = np.zeros(self.scan.grid.shape, dtype=row.dtype)
        volume[self.scan.brain] = row
        return volume


def healthy_tau(method: IterMask3D, healthy: Cohort, *, percentile: float = 80.0, seed: int = 0) -> float:
    """A threshold for every scan, from preprocessed healthy ones: a percentile of the errors under random masks.

    Parameters
    ----------
    healthy : validation scans, neither fitted nor tested on
    percentile : of all masked voxels' squared errors; 80 is IterMask2's, 70 its value for ATLAS (IterMask3D, v2)

    Returns squared normalised intensity, for `IterMask3D(tau=...)`. Source: IterMask2, section 3, "Sensitivity Analysis"; "fixed" in v2, Table 6 and 7.
    """
    errors = []
    for index, scan in enumerate(healthy):
        rng = generator(seed, "tau", index)
        look = _Look(method, scan, rng)
        mask = gaussian_mask(look.brain, scan.spacing, rng)[look.brain].numpy()
        errors.append(look.errors(mask, "random")[mask])
    return float(np.percentile(np.concatenate(errors), percentile))
