"""Methods that add noise to a scan and let a network take it away: what diffusion methods share.

A healthy image is noised to a random time; the network learns what it was, or what the noise was (`nets.diffusion` has the equations).
At test time a scan is noised to `t_test` and brought back: what the noise hid comes back as healthy anatomy. A method says which noise,
which parts are noised and what else its network knows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anomri.cohort import Cohort
from anomri.corruptions.simplex import FREQUENCY, OCTAVES, PERSISTENCE, drawable, simplex_noise
from anomri.errors import BadCall, NotFitted, unknown
from anomri.nets.diffusion import PREDICTIONS, Denoise, Schedule, T, inpaint, path, reverse, schedule
from anomri.nets.diffusion_unet import SIZES, DiffusionUNet, conditions, reduction
from anomri.nets.engine import engine
from anomri.nets.layers import SHORT
from anomri.nets.slices import slices_of, volume_of
from anomri.preprocess.space import cut, paste
from anomri.restorer import SCORING, SLICES, Restorer, largest, place
from anomri.scan import Finding, Scan
from anomri.scoring.residual import residual
from anomri.train import Job, Recipe, Sample, processes

NOISES = ("gaussian", "simplex")
SAMPLING = ("t_test", "sampler", "ddim_steps")
"""Arguments that weights do not depend on, beside those of scoring."""
MOST = {"cpu": 1 << 18, "cuda": 1 << 23}
"""Voxels that a network of the small size's width is given at once, by the kind of device: 28 slices of 96 x 96 on a CPU, where more are no
faster, and as many on kinds that are not named; a wider network is given as many fewer."""
TOGETHER = 1 << 23
"""Voxels of all reconstructions that are drawn and brought back at once: noise and images take memory, beside the network."""
SCANS = 16
"""Healthy scans that the threshold of a mask is found on, at most."""


class Diffuser(Restorer):
    """A restorer by diffusion; subclasses store its arguments, by these names.

    - dims : 2 for axial slices, 3 for volumes
    - size : of the network, one of `nets.diffusion_unet.SIZES`; "small" is ours, for CPUs
    - width : channels of its first level; None is the size's
    - schedule : of the noise, one of `nets.diffusion.SCHEDULES`
    - prediction : what the network says, the image ("x0", learned by the absolute error) or the noise ("noise", by the squared one)
    - t_test : time that scans are noised to, of 1000; of several, the mean of their reconstructions is the healthy image
    - sampler : the way back, one of `nets.diffusion.SAMPLERS`: "one_step"; "ddpm", step by step, drawing noise; "ddim", `ddim_steps` steps
    - resamples : times that each step is made where a part of an image is painted alone
    - steps, batch, lr, final : optimiser steps, samples a step, Adam's rate, and the share of it that is left at the end

    Intensities are scaled so that the 1st and 99th percentiles of the healthy brains that it learned from are -1 and 1. The loss is of
    the whole image, with what is beside the brain. Noise at test time depends on the seed of `detect` and not on the scan: two scans are
    looked at through the same noise, as far as their slices are of one number and size.
    """

    weightless = frozenset({*SCORING, *SAMPLING})
    dims: int = 2
    size: str = "cddpm"
    width: int | None = None
    noise: str = "simplex"
    octaves: int = OCTAVES
    persistence: float = PERSISTENCE
    frequency: float = FREQUENCY
    schedule: str = "linear"
    prediction: str = "x0"
    t_test: int | Sequence[int] = 500
    sampler: str = "one_step"
    ddim_steps: int = 50
    resamples: int = 1
    steps: int
    batch: int
    lr: float
    final: float
    #: Of each channel, the intensities that become -1 and 1, as `fit` found them; a model that was not fitted here has them in `data`.
    range: Sequence[Sequence[float]] = ()

    def checked(self) -> None:
        """Looks at the arguments, sets what the network's grid must be; raises `BadCall` for one that is not known or out of its range."""
        if self.noise not in NOISES:
            raise unknown("noise", self.noise, NOISES)
        if self.prediction not in PREDICTIONS:
            raise unknown("prediction", self.prediction, PREDICTIONS)
        self.reduction = reduction(self.size)
        levels = self.levels()
        self.t_test = tuple(levels) if isinstance(self.t_test, Iterable) else levels[0]
        path(self.sampler, levels, self.ddim_steps)
        self.drawn((1, 1, *[1] * self.dims), torch.Generator())
        with torch.device("meta"):
            self.network(1, ())

    def levels(self) -> list[int]:
        """The times that scans are noised to; raises `BadCall` for one that the schedule has not."""
        asked = list(self.t_test) if isinstance(self.t_test, Iterable) else [self.t_test]
        whole = all(hasattr(t, "__index__") and not isinstance(t, bool | np.bool) for t in asked)
        if not asked or not whole or not all(1 <= t <= self.plan.times for t in asked):
            raise BadCall(f"t_test is {self.t_test}, needs to be times from 1 to {self.plan.times}")
        return [operator.index(t) for t in asked]

    @property
    def plan(self) -> Schedule:
        """How much noise there is at each time."""
        return schedule(self.schedule, T)

    # --- learning ---

    def network(self, channels: int, edges: tuple[int, ...]) -> nn.Module:
        return DiffusionUNet(self.dims, channels, channels, self.size, self.width)

    def recipe(self) -> Recipe:
        return Recipe(self.steps, self.batch, self.lr, self.final)

    def build(self, data: Mapping[str, Any]) -> None:
        self.range = data.get("range", self.range)
        if self.noise == "simplex":
            drawable(data["box"], octaves=self.octaves, frequency=self.frequency)
        super().build(data)

    def learn(self, healthy: Cohort, validation: Cohort | None, rng: torch.Generator, job: Job) -> Mapping[str, Any]:
        if not job.warm:
            self.range = intensity_range(healthy)
        return {**super().learn(healthy, validation, rng, job), "range": self.range}

    def drawn(self, shape: Sequence[int], rng: torch.Generator) -> Tensor:
        """Noise of unit variance for images `(B, C, ...)`."""
        if self.noise == "gaussian":
            return torch.randn(list(shape), generator=rng)
        how = {"octaves": self.octaves, "persistence": self.persistence, "frequency": self.frequency}
        return simplex_noise(shape, rng, **how)  # type: ignore[arg-type]

    def shown(self, x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Sample:
        clean = self.scaled(x)[None]
        t = torch.randint(1, self.plan.times + 1, (1,), generator=rng)
        noise = self.drawn(clean.shape, rng)
        return {"input": self.plan.noised(clean, t, noise)[0], "t": t[0], "clean": clean[0], "noise": noise[0]}

    def predicted(self, net: nn.Module, batch: Sample) -> Tensor:
        """What the network says of a batch."""
        y: Tensor = net(batch["input"], conditions(batch["t"], self.features))
        return y

    def loss(self, net: nn.Module, batch: Sample) -> Tensor:
        off = self.off(net, batch)
        return off.abs().mean() if self.prediction == "x0" else off.square().mean()

    def off(self, net: nn.Module, batch: Sample) -> Tensor:
        """By how much what the network says is off `(B, C, ...)`, in scaled intensity or in the noise's."""
        return self.predicted(net, batch).float() - batch["clean" if self.prediction == "x0" else "noise"]

    # --- looking ---

    @property
    def unet(self) -> DiffusionUNet:
        """The network that denoises."""
        assert isinstance(self.net, DiffusionUNet)
        return self.net

    @property
    def features(self) -> int:
        """How many numbers a time is embedded to before the network."""
        return self.unet.width

    def told(self, clean: Tensor) -> Tensor | None:
        """What the network knows of the images `(B, C, ...)` beside their noised ones, `(B, d)`; nothing by default."""
        return None

    def denoiser(self, clean: Tensor) -> Denoise:
        """What the network says that the noised forms of images `(B, C, ...)` were, on their device, a few at a time.

        It can be asked about `(m B, C, ...)`, noised forms of all images m times over.
        """
        context, plan = self.told(clean), self.plan

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            known = None if context is None else repeated(context, len(x_t))
            y = self.run(self.unet, x_t, conditions(t.to(x_t.device), self.features, known))
            return y if self.prediction == "x0" else plan.clean_of(x_t, t, y)

        return denoise

    def run(self, net: nn.Module, x: Tensor, *given: Tensor, name: str | None = None) -> Tensor:
        """What a network makes of images and of what it is given with each, a few at a time; `name` is another engine than the method's."""
        device, dtype, own = self.runtime()
        if min(x.shape[2:]) <= SHORT * getattr(net, "reduction", 1):
            dtype = torch.float32
        made = engine(net, device, dtype, name or own)
        # Of one size, give or take an image.
        parts = zip(*(one.tensor_split(-(-len(x) // self.most(x))) for one in (x, *given)), strict=True)
        return torch.cat([made(*part) for part in parts])

    def most(self, x: Tensor) -> int:
        """How many images like those of `(B, C, ...)` the network is given at once."""
        voxels = MOST.get(self.runtime()[0].type, MOST["cpu"]) * min(1, SIZES["small"].width / self.unet.width)
        return max(1, int(voxels) // x[0, 0].numel())

    def reconstructed(self, x: Tensor, n: int, rng: torch.Generator) -> list[Tensor]:
        images = slices_of(x).contiguous() if self.dims == 2 else x[None]
        most = max(1, TOGETHER // (len(self.levels()) * images.numel()))
        sizes = [len(part) for part in torch.arange(n).tensor_split(-(-n // most))]
        made = torch.cat([self.several(images, size, rng) for size in sizes])
        return [volume_of(one) if self.dims == 2 else one[0] for one in made]

    def restored(self, x: Tensor, rng: torch.Generator) -> Tensor:
        return self.several(x, 1, rng)[0]

    def several(self, x: Tensor, n: int, rng: torch.Generator) -> Tensor:
        """Reconstructions of images `(B, C, ...)`, each with noise of its own, `(n, B, C, ...)`."""
        device, *_ = self.runtime()
        levels, clean = self.levels(), self.scaled(x)
        t = torch.tensor(levels * n).repeat_interleave(len(x))
        noise = self.drawn((len(t), *clean.shape[1:]), rng)
        painted = self.painted(clean.to(device), noise.to(device), t, rng)
        return self.scaled(painted.reshape(n, len(levels), *x.shape).mean(dim=1).cpu(), back=True)

    def painted(self, clean: Tensor, noise: Tensor, t: Tensor, rng: torch.Generator) -> Tensor:
        """Images `(B, C, ...)`, scaled, each m times: noised to times `(m B,)` by noise `(m B, C, ...)` and brought back."""
        return self.backward(self.denoiser(clean), self.plan.noised(repeated(clean, len(t)), t, noise), t, rng)

    def backward(self, denoise: Denoise, x_t: Tensor, t: Tensor, rng: torch.Generator) -> Tensor:
        """Noisy images at times `(B,)` brought back as `sampler` says."""
        draw = (lambda: self.drawn(x_t.shape, rng)) if self.sampler == "ddpm" else None
        return reverse(self.plan, denoise, x_t, path(self.sampler, t.tolist(), self.ddim_steps), draw)

    def _place(self, scan: Scan, size: Sequence[int] | NDArray[Any]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """The box of training about a scan's brain, larger along the axes where the brain is.

        The network's norms and attention, a context and the grid of patches are of all that it is shown: a tight box would have another
        share of background than those of training.
        """
        own = np.maximum(size, largest([scan], self.dims, self.reduction))
        return place(scan, own, self.dims, self.reduction, fixed=True)

    # --- for methods that paint a part of a scan alone ---

    def settled(self, facts: Mapping[str, Any], healthy: Cohort, seed: int, job: Job) -> Mapping[str, Any]:
        """The facts of a training, and under "healthy" what `settle` finds on healthy scans.

        Of a training that goes on later it would be found in vain, and by other processes than the first for nobody.
        """
        if not facts["finished"] or processes()[0] > 0:
            return facts
        self.data = {"sequences": list(healthy[0].sequences), **facts}
        device, self.device = self.device, job.device
        try:
            self.settle(healthy, seed)
        finally:
            self.device = device
        return {**facts, "healthy": self.data["healthy"]}

    def found(self, name: str) -> Any:
        """What `settle` found, by name; raises `NotFitted` where the training was stopped before."""
        if "healthy" not in self.data:
            raise NotFitted(
                f"{self.name} has no threshold for its mask, since its training was stopped; go on with it, or call calibrate(healthy)"
            )
        return self.data["healthy"][name]

    def healthy_parts(self, healthy: Cohort) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Of up to `SCANS` healthy scans the place in the cohort, images `(B, C, ...)`, `SLICES` slices or a volume, and brains `(B, ...)`."""
        for index in np.unique(np.linspace(0, len(healthy) - 1, SCANS).round().astype(int)):
            scan = healthy[int(index)]
            low, high = self._place(scan, self.data["box"])
            image, brain = (cut(torch.tensor(part), low, high) for part in (scan.image, scan.brain[None]))
            if self.dims == 3:
                yield int(index), image[None], brain
            else:
                heights = np.unique(((np.arange(SLICES) + 0.5) / SLICES * (high[2] - low[2])).astype(int))
                yield int(index), slices_of(image)[heights], slices_of(brain)[heights, 0]

    def painted_in_part(
        self, scan: Scan, heal: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A scan as it was painted `(C, I, J, K)`, the scan itself beyond the network's grid, and a weight of each voxel `(I, J, K)`.

        Parameters
        ----------
        heal : of images `(B, C, ...)` and their brains `(B, ...)` bool, what they are painted to and weights `(B, 1, ...)`
        """
        low, high = self._place(scan, self.data["box"])
        image, brain = (cut(torch.tensor(part), low, high) for part in (scan.image, scan.brain[None]))

        def run(parts: Tensor) -> Tensor:
            return torch.cat(heal(parts[:, :-1], parts[:, -1] > 0), dim=1)

        both = torch.cat([image, brain.float()])
        made = volume_of(run(slices_of(both).contiguous())) if self.dims == 2 else run(both[None])[0]
        there = paste(made, low, scan.grid.shape).numpy()
        inside = paste(torch.ones_like(brain), low, scan.grid.shape).numpy()
        return np.where(inside, there[:-1], scan.image), there[-1]

    def painted_where(
        self, clean: Tensor, start: Tensor, mask: Tensor, times: Callable[[int], Tensor], draws: torch.Generator
    ) -> Tensor:
        """Images `(B, C, ...)`, scaled, painted where masks `(B, 1, ...)` are; outside them, and without one, as they were.

        Parameters
        ----------
        start : what is noised to the first of the times inside the mask, shaped as `clean`
        times : that so many images go through, `(S + 1, b)`
        draws : of the noise, `branch` of a generator: it is drawn for all images, so that what one is painted to does not depend on
            which others have a mask
        """
        some = mask.flatten(1).any(dim=1)
        if not some.any():
            return clean
        device = self.runtime()[0]
        known, where = clean[some].to(device), mask[some].to(device)
        way = times(len(known))

        def draw() -> Tensor:
            return self.drawn(clean.shape, draws)[some.cpu()].to(device)

        x_t = self.plan.noised(start[some].to(device), way[0], draw())
        painted = clean.clone()
        painted[some] = inpaint(self.plan, self.denoiser(known), x_t, way, known, where, draw, self.resamples).to(clean)
        return painted

    def weighted(self, scan: Scan, healthy: NDArray[np.float32], weight: NDArray[np.float32]) -> Finding:
        """The residual of a scan and its healthy form `(C, I, J, K)`, times a weight of each voxel `(I, J, K)`."""
        off = residual(
            self.score,
            scan.image,
            healthy[None],
            scan.brain,
            sign=self.sign,
            sigma=self.sigma,
            slicewise=self.dims == 2,
        )
        return Finding(off * weight, healthy=np.where(scan.brain, healthy, scan.image))

    def scaled(self, x: Tensor, *, back: bool = False) -> Tensor:
        """Intensities of `(..., C, *grid)` on the network's scale, or `back` on the scan's."""
        low, high = torch.tensor(self.range or self.data["range"]).mT[(..., *[None] * self.dims)]
        half = (high - low) / 2
        made: Tensor = x * half + (low + half) if back else (x - (low + half)) / half
        return made


def repeated(x: Tensor, times: int) -> Tensor:
    """All of `(B, ...)` over and over, `(times, ...)`, a multiple of B."""
    return x.repeat(times // len(x), *[1] * (x.ndim - 1))


def branch(rng: torch.Generator) -> torch.Generator:
    """A generator of its own, from the next number of another: what is drawn from either does not move the other."""
    return torch.Generator().manual_seed(int(torch.randint(2**31, (1,), generator=rng)))


def intensity_range(scans: Iterable[Scan]) -> list[list[float]]:
    """The 1st and 99th percentiles of brain intensities, of each channel: the mean over scans, each as `[low, high]`."""
    found = [np.percentile(scan.image[:, scan.brain], (1, 99), axis=1).T for scan in scans]
    mean = np.mean(found, axis=0)
    # Of a flat image any range will do.
    return [[float(low), float(max(high, low + 1e-6))] for low, high in mean]
