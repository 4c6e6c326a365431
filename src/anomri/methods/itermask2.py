"""IterMask2 (Liang et al., 2024): IterMask3D's forerunner on axial slices, with a threshold from healthy scans.

A first network paints a whole slice from its high frequencies `x_f` alone; the 60 % of the brain that came back worst stay hidden. A second
network paints what is hidden from what is not, and from `x_f`; what comes back with an error below tau is unhidden, never hidden again,
until the mask shrinks by less than 1 %. tau is the 80th percentile of the errors under random masks on healthy scans that were not learned
from (section 3, "Sensitivity Analysis").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anomri.cohort import Cohort
from anomri.corruptions.frequency import high_pass
from anomri.corruptions.squares import square_mask
from anomri.errors import BadCall, NotFitted, unknown
from anomri.method import Method
from anomri.nets.attention_unet import AttentionUNet
from anomri.nets.engine import engine
from anomri.nets.slices import slices_of, slicewise, volume_of
from anomri.preprocess.space import cut, paste
from anomri.restorer import SLICES, largest, place, runtime_of
from anomri.scan import Array, Finding, Scan, Trace
from anomri.scoring.thresholds import SCHEDULES, bend, between, quantile, stop, stride
from anomri.train import Job, Recipe, Sample, Trained, generator, train

FIELD_MM = 240.0
"""Field of view of the papers' slices, 128 pixels: a radius of 15 is 15 cycles in 240 mm."""
BATCH = 16
"""Slices that are painted at once."""
NETWORKS = ("first", "later")
REDUCTION = 16
ROUNDS = 100
RAISE = 1.1
STEPS = 100
"""Of a slice's threshold curve: a percent of its brain each."""


class IterMask2(Method):
    """IterMask2.

    Parameters
    ----------
    width : channels of the networks' first level; 32 is the published one's
    dropout : of the networks; 0.1 is the published one's
    radius : of the frequency mask, cycles in 240 mm; 15 is the paper's
    frequency : show the second network the high-frequency image; False is the ablation "-freq", in which the first step alone has it
    refine : shrink the mask step by step; False is the ablation "-spat": a map of the first network's error, and no mask of its own
    percentile : of healthy errors under random masks, which is tau, above 0 and up to 100; 80 is the paper's, 70 its value for ATLAS
    adaptive : take each slice's own tau instead, where its threshold curve bends (IterMask3D, section 3.4; "+thres")
    gamma : slope of that curve, squared normalised intensity a step
    schedule : of that curve: "exact" makes each of its 100 steps, "adaptive" several at once where a slice's tau is flat, at most about
        40, and interpolates tau there; as IterMask3D's
    explore : go on past the result, tau raised by a tenth a round until nothing is hidden, so that a reader may take another iteration
        (section 3, "Human-AI collaboration"): `trace.order` has them all, the result stays as it is
    first_share : share of the brain, in percent, that the first step unhides
    final : share of the rate that is left at the end; 1 is the paper's
    steps, batch, lr : AdamW's steps for each of the two networks, slices a step, and its rate
    """

    name = "itermask2"
    title = "IterMask2"
    paper = "Liang et al., IterMask2: iterative unsupervised anomaly segmentation via spatial and frequency masking for brain lesions in MRI"
    year = 2024
    dimensions = "2D"
    map_unit = "squared normalised intensity"
    weightless = frozenset({"refine", "percentile", "adaptive", "gamma", "schedule", "explore", "first_share"})

    def __init__(
        self,
        *,
        width: int = 32,
        dropout: float = 0.1,
        radius: float = 15.0,
        frequency: bool = True,
        refine: bool = True,
        percentile: float = 80.0,
        adaptive: bool = False,
        gamma: float = 0.01,
        schedule: str = "adaptive",
        explore: bool = False,
        first_share: float = 40.0,
        steps: int = 90_000,
        batch: int = 32,
        lr: float = 1e-4,
        final: float = 1.0,
    ) -> None:
        if not 0 < percentile <= 100:
            raise BadCall(f"percentile is {percentile:g}, needs to be above 0 and at most 100")
        if not 0 < first_share < 100:
            raise BadCall(f"first_share is {first_share:g}, needs to be between 0 and 100")
        if schedule not in SCHEDULES:
            raise unknown("schedule", schedule, SCHEDULES)
        self.width, self.dropout, self.radius, self.frequency = width, dropout, radius, frequency
        self.refine, self.percentile, self.adaptive, self.gamma = refine, percentile, adaptive, gamma
        self.explore, self.first_share, self.steps, self.batch, self.lr = explore, first_share, steps, batch, lr
        self.final, self.schedule = final, schedule

    def build(self, data: Mapping[str, Any]) -> None:
        channels = len(data["sequences"])
        self.first: nn.Module = AttentionUNet(channels, channels, self.width, dropout=self.dropout)
        self.later: nn.Module = AttentionUNet(2 * channels, channels, self.width, dropout=self.dropout)

    # --- learning ---

    def learn(self, healthy: Cohort, validation: Cohort | None, rng: torch.Generator, job: Job) -> Mapping[str, Any]:
        seed = int(torch.randint(2**31, (1,), generator=rng))
        size = largest((*healthy, *(validation or ())), 2, REDUCTION)
        about = {"box": size, "sequences": list(healthy[0].sequences)}
        if not job.warm:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.build(about)
        settings = {
            **self.learning,
            "start": self.weights_sha256 if job.warm else None,
            "spacing": [round(s, 4) for s in healthy[0].spacing],
            "healthy": healthy.digest(),
            "validation": validation.digest() if validation else None,
        }
        done: dict[str, Trained] = {}
        begun = time.monotonic()
        for name in NETWORKS:
            net = getattr(self, name)
            masked = name == "later"

            def sample(index: int, rng: torch.Generator, masked: bool = masked) -> Sample:
                return self._sample(healthy[index], size, rng, masked)

            def validate(net: nn.Module, masked: bool = masked) -> float:
                losses = []
                for index, scan in enumerate(validation or ()):
                    keyed = [generator("validate", index, at) for at in range(SLICES)]
                    drawn = [self._sample(scan, size, key, masked, (at + 0.5) / SLICES) for at, key in enumerate(keyed)]
                    device = next(net.parameters()).device
                    losses.append(
                        float(_loss(net, {k: torch.stack([d[k] for d in drawn]).to(device) for k in drawn[0]}))
                    )
                return float(np.mean(losses))

            left = None if job.minutes is None else max(0.0, job.minutes - (time.monotonic() - begun) / 60)
            part = replace(job, folder=job.folder / name if job.folder else None, minutes=left)
            done[name] = train(
                net, sample, _loss, len(healthy), Recipe(self.steps, self.batch, self.lr, self.final, optimiser="adamw"),
                seed=seed, validate=validate if validation else None, settings={**settings, "network": name}, job=part,
            )  # fmt: skip
            net.to("cpu", memory_format=torch.contiguous_format)
            if not done[name].done:
                break
        finished = len(done) == 2 and all(one.done for one in done.values())
        facts = {
            "trained": list(done),
            "best_step": {name: one.best_step for name, one in done.items()},
            "finished": finished,
            "log": [{"network": name, **row} for name, one in done.items() for row in one.log],
            "box": size,
        }
        self.data = {**about, **facts}
        return {**facts, "healthy_errors": self._healthy_errors(validation, seed) if validation and finished else None}

    def _sample(
        self, scan: Scan, size: list[int], rng: torch.Generator, masked: bool, at: float | None = None
    ) -> Sample:
        """A slice, drawn with replacement, or that at a share `at` of the brain's height."""
        low, high = place(scan, size, 2, REDUCTION, fixed=True)
        share = float(torch.rand(1, generator=rng)) if at is None else at
        k = min(int(low[2] + share * (high[2] - low[2])), int(high[2]) - 1)
        low[2], high[2] = k, k + 1
        x, x_f, brain = (part[0] for part in self._given(scan, low, high))
        given = x_f
        if masked:
            m = _mask(brain, scan.spacing, rng)
            noise = torch.randn(x.shape, generator=rng)
            given = torch.cat([torch.where(m, noise, x), x_f if self.frequency else torch.zeros_like(x_f)])
        return {"input": given, "x": x, "brain": brain[None]}

    def _given(self, scan: Scan, low: NDArray[np.int_], high: NDArray[np.int_]) -> tuple[Tensor, Tensor, Tensor]:
        """Axial slices of a part of a scan and of its high frequencies `(B, C, I, J)`, and of its brain `(B, I, J)`."""
        axial = slice(int(low[2]), int(high[2]))
        image, brain = torch.tensor(scan.image[..., axial]), torch.tensor(scan.brain[..., axial])
        # Slices are transformed whole, before the box is cut.
        x_f = high_pass(image.movedim(-1, 1), scan.spacing[:2], self.radius / FIELD_MM).movedim(1, -1)
        low, high = np.array([*low[:2], 0]), np.array([*high[:2], axial.stop - axial.start])
        x, x_f = (slices_of(cut(part, low, high)) for part in (image, x_f))
        return x, x_f, slices_of(cut(brain[None], low, high))[:, 0]

    def settle(self, healthy: Cohort, seed: int) -> None:
        """Finds what tau is a percentile of on healthy scans."""
        self.data = {**self.data, "healthy_errors": self._healthy_errors(healthy, seed)}

    def _healthy_errors(self, healthy: Cohort, seed: int) -> list[float]:
        """Percentiles 0 to 100 of the errors under random masks, of all masked voxels together (section 3, "Sensitivity Analysis")."""
        errors = []
        for index, scan in enumerate(healthy):
            rng = generator(seed, "tau", index)
            look = _Slices(self, scan, rng)
            m = torch.stack([_mask(brain, scan.spacing, rng) for brain in look.brain])
            error = look.error(m, "random")
            errors.append(error[m].numpy())
        return [float(value) for value in np.percentile(np.concatenate(errors), range(101))]

    @property
    def tau(self) -> float:
        """The threshold of every scan, squared normalised intensity; raises `NotFitted` before healthy scans have given it."""
        if self.data.get("healthy_errors") is None:
            raise NotFitted(
                f"{self.name} has no threshold yet; call calibrate(other_healthy), or fit with validation scans"
            )
        return float(np.interp(self.percentile, range(101), self.data["healthy_errors"]))

    # --- looking ---

    def find(self, scan: Scan, rng: torch.Generator) -> Finding:
        look = _Slices(self, scan, rng)
        error = look.first()
        if not self.refine:
            return Finding(look.whole(error[:, None])[0], healthy=look.healthy(look.brain))
        if self.adaptive:
            tau, mask, curve = self._own(look, error)
        else:
            tau, mask, curve = self._fixed(look, error)
        order, seen = look.brain.to(torch.uint8), torch.zeros_like(mask)
        active, rounds = mask.flatten(1).any(dim=1), 0
        while active.any() and rounds < ROUNDS:
            # What is done stays as it was painted last.
            error = look.error(mask, "refine", rounds, only=active)
            rounds += 1
            hidden = mask & active[:, None, None]
            order[hidden] = rounds + 1
            seen = torch.where(active[:, None, None], mask, seen)
            after = torch.where(active[:, None, None], mask & (error > tau), mask)
            before, left = (m.flatten(1).sum(dim=1) for m in (mask, after))
            active = active & (before - left >= 0.01 * before) & (left > 0)
            mask = after
        # What stays hidden does to the end, also in slices that ended earlier than others.
        order[mask] = rounds + 1
        found = look.whole(mask[:, None])[0] > 0
        map, healthy = look.whole((error * seen)[:, None])[0], look.healthy(seen)
        facts = {"tau": None if self.adaptive else self.tau, "rounds": rounds, "passes": look.passes}
        while self.explore and mask.any() and rounds < ROUNDS:
            rounds, tau = rounds + 1, tau * RAISE
            order[mask] = rounds + 1
            mask = mask & (look.error(mask, "explore", rounds, only=mask.flatten(1).any(dim=1)) > tau)
        trace = Trace(look.whole(order[:, None])[0].astype(np.uint8), curve, facts)
        ml = float(found.sum()) * scan.voxel_ml
        return Finding(map, mask=found, scores={"volume_ml": ml}, healthy=healthy, trace=trace)

    def _fixed(self, look: _Slices, first: Tensor) -> tuple[Tensor, Tensor, Array]:
        """tau from healthy scans for every slice, and the mask after the first step: what came back worst, a share of the brain."""
        tau = self.tau
        levels = [quantile(e[b], self.first_share / 100) for e, b in zip(first, look.brain, strict=True)]
        mask = (first > torch.stack(levels)[:, None, None]) & look.brain
        return torch.full((len(first), 1, 1), tau), mask, np.array([tau], dtype=np.float32)

    def _own(self, look: _Slices, first: Tensor) -> tuple[Tensor, Tensor, Array]:
        """Each slice's own tau (IterMask3D, section 3.4), and its mask there: hidden less by a percent of its brain a step."""
        error, mask, rounds = first, look.brain.clone(), 0
        taus: list[dict[int, float]] = [{} for _ in first]
        masks: list[dict[int, Tensor]] = [{} for _ in first]
        at, active = [1] * len(first), torch.ones(len(first), dtype=torch.bool)
        while True:
            for i in active.nonzero().flatten().tolist():
                step, e, b = at[i], error[i], look.brain[i]
                taus[i][step] = float(quantile(e[b], step / STEPS))
                masks[i][step] = (e > taus[i][step]) & b
                active[i] = step < STEPS
                if active[i]:
                    ahead = stride(taus[i], self.gamma, STEPS) if self.schedule == "adaptive" else 1
                    at[i] = min(STEPS, step + ahead)
                    # Up to the next step, this error says what came back best.
                    mask[i] = (e > quantile(e[b], (at[i] - 1) / STEPS)) & b
            if not active.any():
                break
            rounds += 1
            error = look.error(mask, "step", rounds, only=active)
        curves = np.stack([between(one, STEPS) for one in taus])
        tau, found = torch.full((len(first), 1, 1), torch.inf), torch.zeros_like(look.brain)
        for i, curve in enumerate(curves):
            end = stop(curve, bend(curve).slope, self.gamma)
            if end.step is not None and end.tau is not None:
                tau[i], found[i] = end.tau, masks[i][max(t for t in masks[i] if t <= end.step)]
        return tau, found, curves.mean(axis=0).astype(np.float32)


class _Slices:
    """The slices of one scan that hold brain, and the networks that paint them."""

    def __init__(self, method: IterMask2, scan: Scan, rng: torch.Generator) -> None:
        if method.data.get("trained", NETWORKS)[-1] != NETWORKS[-1]:
            raise NotFitted(
                f"the training of {method.name} was paused before its second network had begun; call fit again with the same job"
            )
        self.scan, self.method, self.passes = scan, method, 0
        size = method.data["box"]
        self.low, high = place(scan, size, 2, REDUCTION)
        self.x, self.x_f, self.brain = method._given(scan, self.low, high)
        self.seed = int(torch.randint(2**62, (1,), generator=rng))
        device, dtype, name = runtime_of(method)
        self.nets: dict[str, Callable[[Tensor], Tensor]] = {
            part: engine(net, device, dtype, name) for part, net in method.networks().items()
        }
        self.painted = torch.zeros_like(self.x)

    def first(self) -> Tensor:
        """Squared error `(B, I, J)` of what the first network paints from high frequencies alone, mean over channels."""
        return self._paint("first", self.x_f, torch.ones(len(self.x), dtype=torch.bool))

    def error(self, m: Tensor, *key: object, only: Tensor | None = None) -> Tensor:
        """Squared error `(B, I, J)` under masks; slices that are not among `only` keep theirs from before."""
        noise = torch.randn(self.x.shape, generator=generator(self.seed, *key))
        x_m = torch.where(m[:, None], noise, self.x)
        x_f = self.x_f if self.method.frequency else torch.zeros_like(self.x_f)
        return self._paint(
            "later", torch.cat([x_m, x_f], dim=1), torch.ones(len(m), dtype=torch.bool) if only is None else only
        )

    def _paint(self, net: str, given: Tensor, only: Tensor) -> Tensor:
        painted = slices_of(slicewise(self.nets[net], volume_of(given), batch=BATCH, keep=only)).cpu()
        self.painted = torch.where(only[:, None, None, None], painted, self.painted)
        self.passes += 1
        return (self.painted - self.x).square().mean(dim=1) * self.brain

    def healthy(self, m: Tensor) -> Array:
        """The scan with what is masked painted."""
        slices = torch.where(m[:, None], self.painted, self.x)
        return self.whole(slices, self.scan.image)

    def whole(self, slices: Tensor, around: Array | None = None) -> Array:
        """Slices `(B, C, I, J)` on the scan's grid `(C, I, J, K)`, with what is around them."""
        volume = paste(volume_of(slices.float()), self.low, self.scan.grid.shape).numpy()
        if around is None:
            return volume
        inside = paste(volume_of(torch.ones_like(slices)), self.low, self.scan.grid.shape).numpy() > 0
        return np.where(inside, volume, around)


def _loss(net: nn.Module, batch: Sample) -> Tensor:
    off = (net(batch["input"]).float() - batch["x"]).square() * batch["brain"]
    mean: Tensor = off.sum() / (batch["brain"].sum().clamp(min=1) * off.shape[1])
    return mean


def _mask(brain: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
    """A random mask of squares; none in a slice without brain."""
    return square_mask(brain, spacing[:2], rng) if brain.any() else brain
