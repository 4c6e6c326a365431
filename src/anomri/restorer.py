"""Methods whose map is the residual between a scan and its healthy reconstruction.

Such a method says what its network is (`network`), how it learns (`loss`, and `corrupt` where it learns from spoilt images) and how it
restores (`restored`). Where scans lie in the network's grid, slices of volumes, validation, scoring and cleaning are done here, the
same for all.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anomri.cohort import Cohort
from anomri.corruptions.augment import augment
from anomri.errors import BadCall, BadInput
from anomri.method import Method
from anomri.nets.autoencoder import Autoencoder, kl
from anomri.nets.engine import engine
from anomri.nets.layers import SHORT
from anomri.nets.slices import slicewise
from anomri.preprocess.space import box, cut, paste
from anomri.scan import Finding, Mask, Scan
from anomri.scoring.cleaning import cleaning
from anomri.scoring.residual import check_score, reconstructions, residual
from anomri.train import Job, Recipe, Sample, generator, train

SCORING = ("score", "sign", "sigma", "cleaning", "n")
"""Arguments that weights do not depend on."""
MARGIN = 4
"""Voxels that a grid of one fixed size is larger than the largest brain of `fit`, in all."""
SLICES = 8
"""Of a validation scan that a 2D network is judged by."""


class Restorer(Method):
    """A method that paints a healthy image; its map is the residual.

    Arguments that every one of them takes:

    - score : how image and reconstruction are compared, one of `scoring.residual.SCORES`
    - sign : "both", or what is brighter ("positive") or darker ("negative") than the reconstruction only; for l1 and l2
    - sigma : of SSIM's window, voxels
    - cleaning : of the map and the mask, one of `scoring.cleaning.CLEANINGS`

    Those that can paint several take `n`, reconstructions of a scan; None is what the score needs: 10 for the Mahalanobis distances,
    else 1, that of the mean.
    """

    needs = "healthy scans"
    weightless = frozenset(SCORING)
    #: 2 for axial slices, 3 for volumes.
    dims: int = 3
    #: Edges of the network's grid are multiples of this.
    reduction: int = 16
    #: Whether the network has one size of grid for all scans (a dense latent), found at `fit`.
    fixed: bool = False
    #: Whether training scans are augmented (`corruptions.augment`).
    augmented: bool = False
    score: str = "l1"
    sign: str = "both"
    sigma: float = 1.0
    cleaning: str = "none"
    n: int | None = None
    net: nn.Module

    map_units: ClassVar[Mapping[str, str]] = {"l1": "normalised intensity", "l2": "squared normalised intensity"}

    @abstractmethod
    def network(self, channels: int, edges: tuple[int, ...]) -> nn.Module:
        """The network for scans of so many channels, on a grid of these edges."""

    @abstractmethod
    def recipe(self) -> Recipe:
        """How it is trained."""

    @abstractmethod
    def loss(self, net: nn.Module, batch: Sample) -> Tensor:
        """Loss of a batch: `input` and `x` `(B, C, ...)`, `brain (B, 1, ...)`."""

    def corrupt(self, x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
        """What the network is shown of a healthy image `(C, ...)` in training; the image itself by default."""
        return x

    def shown(self, x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Sample:
        """What a batch holds of a healthy image `(C, ...)` beside `x` and `brain`: `input`, and whatever else the loss asks for."""
        return {"input": self.corrupt(x, brain, spacing, rng)}

    def restored(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """One healthy reconstruction of images `(B, C, ...)` on the network's grid; by default what the network makes of them."""
        device, dtype, name = runtime_of(self)
        return engine(self.net, device, dtype, name)(x).cpu()

    # --- what is the same for all ---

    def scored(
        self, score: str, sign: str, sigma: float, cleaned: str, n: int | None = None, *, several: bool = False
    ) -> None:
        """Takes the arguments of scoring; `several` says whether the method can paint more than one image of a scan.

        Raises `BadCall` for one that is not known.
        """
        check_score(score, sign)
        cleaning(cleaned)
        if sigma <= 0:
            raise BadCall(f"sigma is {sigma:g} voxels, needs to be above 0")
        self.score, self.sign, self.sigma, self.cleaning, self.n = score, sign, sigma, cleaned, n
        if reconstructions(score) > 1 and not several:
            raise BadCall(
                f"score '{score}' needs several reconstructions of a scan, {self.name} makes one; take l1, l2, ssim or ssim_ens"
            )
        self.paintings()

    def paintings(self) -> int:
        """Reconstructions of a scan: `n`, or what the score needs; raises `BadCall` where that is too few."""
        needed = reconstructions(self.score)
        n = needed if self.n is None else self.n
        if n < min(2, needed):
            raise BadCall(f"score '{self.score}' needs 2 reconstructions or more, n is {n}")
        return n

    def build(self, data: Mapping[str, Any]) -> None:
        self.net = self.network(len(data["sequences"]), tuple(data["box"]))

    def learn(self, healthy: Cohort, validation: Cohort | None, rng: torch.Generator, job: Job) -> Mapping[str, Any]:
        seed = int(torch.randint(2**31, (1,), generator=rng))
        everyone = (*healthy, *(validation or ()))
        size = largest(everyone, self.dims, self.reduction, MARGIN if self.fixed else 0)
        about = {"box": size, "sequences": list(healthy[0].sequences)}
        if self.dims == 3 and min(size) <= SHORT * self.reduction:
            job = replace(job, precision="float32")
        if not job.warm:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.build(about)

        def sample(index: int, rng: torch.Generator, of: Cohort = healthy, at: float | None = None) -> Sample:
            scan = of[index]
            x, brain = self.example(scan, size, rng, at)
            return {**self.shown(x, brain, scan.spacing[: self.dims], rng), "x": x, "brain": brain[None]}

        def draw(index: int, rng: torch.Generator, at: float) -> Sample:
            assert validation is not None
            return sample(index, rng, validation, at)

        settings = self.settings(healthy, validation, self.weights_sha256 if job.warm else None)
        done = train(
            self.net, sample, self.loss, len(healthy), self.recipe(),
            seed=seed, validate=validating(validation, self.dims, draw, self.loss), settings=settings, job=job,
        )  # fmt: skip
        self.net.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return {"best_step": done.best_step, "finished": done.done, "log": done.log, "box": size}

    def settings(self, healthy: Cohort, validation: Cohort | None, start: str | None) -> dict[str, Any]:
        """What a training depends on beside its recipe: one that goes on where it stopped must have the same."""
        return {
            **self.learning,
            "start": start,
            "spacing": [round(s, 4) for s in healthy[0].spacing],
            "healthy": healthy.digest(),
            "validation": validation.digest() if validation else None,
        }

    def example(
        self, scan: Scan, size: Sequence[int], rng: torch.Generator, at: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """What training takes of a healthy scan: an image `(C, ...)` on a grid of these edges, and its brain.

        Parameters
        ----------
        at : share of the brain's height at which a slice lies; drawn where None, and then the image is augmented
        """
        # Of one size for all, that they make a batch.
        low, high = place(scan, size, self.dims, self.reduction, fixed=True)
        x, brain = (cut(part, low, high) for part in (torch.tensor(scan.image), torch.tensor(scan.brain)))
        if self.dims == 2:
            share = float(torch.rand(1, generator=rng)) if at is None else at
            k = min(int(share * x.shape[-1]), x.shape[-1] - 1)
            x, brain = x[..., k].contiguous(), brain[..., k].contiguous()
        if self.augmented and at is None:
            x = augment(x, brain, scan.spacing[: self.dims], rng)
        return x, brain

    def find(self, scan: Scan, rng: torch.Generator) -> Finding:
        healthy = self.restore(scan, rng)
        map = residual(
            self.score, scan.image, healthy, scan.brain, sign=self.sign, sigma=self.sigma, slicewise=self.dims == 2
        )
        return Finding(map, healthy=np.where(scan.brain, healthy.mean(axis=0), scan.image))

    def restore(self, scan: Scan, rng: torch.Generator) -> NDArray[np.float32]:
        """`n` healthy reconstructions of a scan, `(n, C, I, J, K)`; the scan itself where the network's grid does not reach."""
        low, high = self._place(scan, self.data["box"])
        x = cut(torch.tensor(scan.image), low, high)
        inside = paste(torch.ones_like(x[0], dtype=torch.bool), low, scan.grid.shape).numpy()
        made = self.reconstructed(x, self.paintings(), rng)
        return np.stack([np.where(inside, paste(one, low, scan.grid.shape).numpy(), scan.image) for one in made])

    def reconstructed(self, x: Tensor, n: int, rng: torch.Generator) -> Iterable[Tensor]:
        """`n` reconstructions of what the network sees of a scan, `(C, I, J, K)`; by default one after the other."""
        for _ in range(n):
            yield (
                slicewise(lambda slices: self.restored(slices, rng), x)
                if self.dims == 2
                else self.restored(x[None], rng)[0]
            )

    def _place(self, scan: Scan, size: Sequence[int] | NDArray[Any]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        return place(scan, size, self.dims, self.reduction, fixed=self.fixed)


class Variational(Restorer):
    """A restorer whose network is a variational autoencoder with a dense latent; subclasses store its arguments, by the names below."""

    fixed = True
    latent: int | None
    beta: float
    width: int
    levels: int
    steps: int
    batch: int
    lr: float
    final: float

    def network(self, channels: int, edges: tuple[int, ...]) -> nn.Module:
        return Autoencoder(self.dims, channels, self.width, self.levels, self.latent, variational=True, edges=edges)

    def recipe(self) -> Recipe:
        # Gradients are cut, which no paper says: in 3D the divergence runs away in the first steps otherwise.
        return Recipe(self.steps, self.batch, self.lr, self.final, clip=0.5)

    def loss(self, net: nn.Module, batch: Sample) -> Tensor:
        return evidence(net, batch, self.beta)

    def restored(self, x: Tensor, rng: torch.Generator) -> Tensor:
        if self.paintings() == 1:
            return super().restored(x, rng)
        device, *_ = runtime_of(self)
        net = self.net.to(device).eval()
        assert isinstance(net, Autoencoder)
        try:
            with torch.inference_mode():
                return net.sample(x.to(device), rng).cpu()
        finally:
            self.net.to("cpu")


def validating(
    validation: Cohort | None,
    dims: int,
    draw: Callable[[int, torch.Generator, float], Sample],
    loss: Callable[[nn.Module, Sample], Tensor],
) -> Callable[[nn.Module], float] | None:
    """The mean loss of a network over validation scans, the same draws each time; None without any.

    Parameters
    ----------
    dims : 2, slices at heights evenly spaced; 3, whole volumes
    draw : of a scan's index, a generator and a share of the brain's height, what a batch holds of it
    """
    if not validation:
        return None
    places = [0.5] if dims == 3 else [(i + 0.5) / SLICES for i in range(SLICES)]

    def validate(net: nn.Module) -> float:
        device, losses = next(net.parameters()).device, []
        for index in range(len(validation)):
            drawn = [draw(index, generator("validate", index, at), at) for at in places]
            batch = {name: torch.stack([one[name] for one in drawn]).to(device) for name in drawn[0]}
            losses.append(float(loss(net, batch)))
        return float(np.mean(losses))

    return validate


def runtime_of(method: Method) -> tuple[torch.device, torch.dtype, str]:
    """Device, precision and engine that a reconstruction is painted in: float32, unless the user names another."""
    device, dtype, name = method.runtime()
    return device, torch.float32 if method.precision == "auto" else dtype, name


def largest(scans: Iterable[Scan], dims: int, multiple: int, margin: int = 0) -> list[int]:
    """Edges of a grid that holds every brain, in voxels: volumes, or axial slices for 2 dimensions."""
    size = np.max([np.subtract(*box(_seen(scan.brain, dims))[::-1]) + margin for scan in scans], axis=0)
    # No margin beyond the scans themselves: a preset of 64 voxels along each axis has a network of 64.
    size = np.minimum(size, np.max([scan.grid.shape[:dims] for scan in scans], axis=0))
    return [int(edge) for edge in np.ceil(size / multiple).astype(int) * multiple]


def place(
    scan: Scan, size: Sequence[int] | NDArray[Any], dims: int, multiple: int, *, fixed: bool = False
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """The part of a scan's grid that a network sees, `[low, high)`: a box around the brain; for 2 dimensions its axial slices.

    Parameters
    ----------
    size : the box of training, `largest`; another box lies on the network's coarse grids as that one does
    multiple : edges are multiples of this
    fixed : whether the box must be of just that size; raises `BadInput` for a brain that it does not hold
    """
    seen = _seen(scan.brain, dims)
    low, high = box(seen, size=size) if fixed else box(seen, multiple, like=size)
    first, last = box(seen)
    if (first < low).any() or (last > high).any():
        edges, most = (" x ".join(str(int(n)) for n in pair) for pair in (last - first, size))
        raise BadInput(
            f"scan '{scan.id}': its brain takes {edges} voxels, the network holds {most}; "
            "fit with scans as large, or use a method without a dense latent"
        )
    if dims == 2:
        axial = np.flatnonzero(scan.brain.any(axis=(0, 1)))
        low, high = np.append(low, axial[0]), np.append(high, axial[-1] + 1)
    return low, high


def _seen(brain: Mask, dims: int) -> Mask:
    """The brain, or what of it any axial slice shows."""
    return brain if dims == 3 else np.asarray(brain.any(axis=2))


def absolute(painted: Tensor, batch: Sample) -> Tensor:
    """Mean absolute error of a batch in the brain: a loss of images `(B, C, ...)`."""
    off = (painted.float() - batch["x"]).abs() * batch["brain"]
    mean: Tensor = off.sum() / (batch["brain"].sum().clamp(min=1) * painted.shape[1])
    return mean


def evidence(net: nn.Module, batch: Sample, beta: float) -> Tensor:
    """Loss of a variational autoencoder: mean absolute error in the brain, and `beta` times the divergence of a scan's latent from
    N(0, 1), summed over the latent (thesis, section 2.4.2; chapter 8.2)."""
    painted, mean, logvar = net(batch["input"], full=True)
    return absolute(painted, batch) + beta * kl(mean.float(), logvar.float()).mean()
