"""Seconds of a 96 x 96 x 50 volume by each diffusion method, against the plain loop, slice after slice in float32, and their maps.

Command:  python benchmarks/diffusion.py      (ten minutes on two cores)

The plain loop is eager torch: of each slice and noise level (of pDDPM: and patch) one pass of the network as it was trained, channels
first, with the same noise as ours, so that maps can be compared. AutoDDPM's and latent diffusion's own loops, with few of their hundreds
of passes, are held against themselves with one slice at a time in float32. Networks are of the size "small" and learned two phantoms for
60 steps: enough for maps that mean something, and no speed depends on it. Also: what noise, and what the Mahalanobis distance of ten
reconstructions, take beside the network.
"""

from __future__ import annotations

import copy
import sys
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomri import preprocess
from anomri.cohort import Cohort
from anomri.cohorts import phantom
from anomri.corruptions.simplex import simplex_noise
from anomri.diffuser import Diffuser
from anomri.methods import make
from anomri.methods.autoddpm import AutoDDPM
from anomri.methods.cddpm import CDDPM
from anomri.methods.latent_ddpm import LatentDDPM
from anomri.methods.pddpm import PDDPM
from anomri.nets.diffusion import reverse
from anomri.nets.diffusion_unet import ConditionedUNet, conditions
from anomri.nets.patches import cover, stitched
from anomri.preprocess.space import box, cut
from anomri.scoring.residual import residual
from anomri.train import generator
from side_by_side import Goal, main, quickest

SHAPE = (96, 96, 50)
N = 10
METHODS: dict[str, dict[str, Any]] = {
    "ddpm": {},
    "anoddpm": {},
    "pddpm": {},
    "cddpm": {"t_test": (250, 500, 750)},
    "autoddpm": {"sampler": "ddim", "ddim_steps": 5, "inpaint_steps": 2, "resamples": 2},
    "latent_ddpm": {"t_every": 40, "inpaint_steps": 5, "autoencoder_width": 16, "autoencoder_steps": 60},
}


def engines() -> dict[str, float]:
    """Engines that are here, and how many times faster than the plain loop each shall be."""
    try:
        import openvino  # noqa: F401
    except ImportError:
        return {"torch": 2.4}
    return {"torch": 2.4, "openvino": 3.5}


def scans() -> Cohort:
    """Two phantoms."""
    return Cohort([preprocess.run(preprocess.preset("itermask3d", spacing=2.0), scan) for scan in phantom.healthy(2)])


def trained(name: str, healthy: Cohort, steps: int) -> Diffuser:
    """A method of the size "small", with its arguments of `METHODS`."""
    made = make(name, size="small", steps=steps, batch=8, **METHODS[name])
    made.fit(healthy)
    assert isinstance(made, Diffuser)
    return made


def volume(healthy: Cohort) -> tuple[Tensor, NDArray[np.bool_]]:
    """A phantom on a grid of `SHAPE`, `(1, 96, 96, 50)`, and its brain."""
    scan = healthy[0]
    low, high = box(scan.brain, size=SHAPE)
    return cut(torch.tensor(scan.image), low, high), cut(torch.tensor(scan.brain), low, high).numpy()


def ours(method: Diffuser, x: Tensor) -> Tensor:
    """One reconstruction of a volume."""
    if isinstance(method, AutoDDPM | LatentDDPM):
        return part_by_part(method, x, len(x[0, 0, 0]))
    return method.reconstructed(x, 1, generator("benchmark"))[0]


def part_by_part(method: AutoDDPM | LatentDDPM, x: Tensor, few: int) -> Tensor:
    """A volume painted by a method that paints parts of slices, so many slices at a time."""
    slices, rng = x.movedim(-1, 0), generator("benchmark")
    painted = [
        method.healed(some, torch.ones_like(some[:, 0], dtype=torch.bool), *extra(method), rng)[0]
        for some in slices.split(few)
    ]
    return torch.cat(painted).movedim(0, -1)


def extra(method: AutoDDPM | LatentDDPM) -> tuple[Any, ...]:
    """What painting needs beside slices."""
    return (method._distance(),) if isinstance(method, AutoDDPM) else ()


def plain(method: Diffuser, x: Tensor) -> Tensor:
    """The same reconstruction, slice after slice."""
    if isinstance(method, AutoDDPM | LatentDDPM):
        before, method.precision = method.precision, "float32"
        made = part_by_part(method, x, 1)
        method.precision = before
        return made
    net = copy.deepcopy(method.net).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    unet = net.unet if isinstance(net, ConditionedUNet) else net
    levels, plan, clean = method.levels(), method.plan, method.scaled(x.movedim(-1, 0))
    noise = method.drawn((len(levels) * len(clean), *clean.shape[1:]), generator("benchmark"))
    masks = cover(SHAPE[:2], method.patch) if isinstance(method, PDDPM) else torch.ones(1, *SHAPE[:2], dtype=torch.bool)
    painted = torch.zeros_like(clean)
    with torch.inference_mode():
        for at in range(len(clean)):
            one = clean[at : at + 1].contiguous()
            context = net.encoder(one) if isinstance(method, CDDPM) else None
            for index, level in enumerate(levels):
                t, own = torch.tensor([level]), noise[index * len(clean) + at][None]
                patches = []
                for mask in masks:
                    given = torch.where(mask, plan.noised(one, t, own), one)
                    said = unet(given, conditions(t, method.features, context))
                    patches.append(said if method.prediction == "x0" else plan.clean_of(given, t, said))
                painted[at] += stitched(torch.stack(patches), masks)[0] / len(levels)
    return method.scaled(painted, back=True).movedim(0, -1)


def timed(method: Diffuser, x: Tensor, brain: NDArray[np.bool_], name: str, turns: int) -> list[Goal]:
    """Goals of one method: seconds by each engine, and how its map agrees with the plain one's."""
    found = []
    for engine, wanted in engines().items():
        method.engine, method.precision = engine, "auto"
        (taken, fast), (other, slow) = quickest((lambda: ours(method, x), lambda: plain(method, x)), turns)
        note = f"{len(x[0, 0, 0])} slices"
        found.append(Goal(f"{name}, a volume, {engine}", taken, other, wanted, note=note))
        if not isinstance(method, AutoDDPM | LatentDDPM):
            maps = [(x - one)[0].abs().numpy()[brain] for one in (fast, slow)]
            apart = 1 - float(np.corrcoef(*maps)[0, 1])
            found.append(Goal(f"{name}, 1 - correlation of maps, {engine}", apart, 1e-3, 1.0, ""))
    return found


def beside(method: Diffuser, x: Tensor, brain: NDArray[np.bool_], turns: int) -> list[Goal]:
    """What noise, and the Mahalanobis distance of `N` reconstructions, take beside the network's tenth."""
    method.engine, method.precision = "torch", "auto"
    clean = x.movedim(-1, 0).contiguous()
    (noise, _), (network, _) = quickest(
        (lambda: simplex_noise(clean.shape, generator("noise")), lambda: reverse_alone(method, clean)), turns
    )
    begun = time.perf_counter()
    painted = torch.stack(method.reconstructed(x, N, generator("many"))).numpy()
    sampled = time.perf_counter() - begun
    begun = time.perf_counter()
    residual("mhd_full", x.numpy(), painted, brain, slicewise=True)
    scored = time.perf_counter() - begun
    return [
        Goal("simplex noise of a volume, a tenth of one pass", noise, network / 10, 1.0),
        Goal(f"Mahalanobis distance of {N}, a tenth of their sampling", scored, sampled / 10, 1.0),
    ]


def reverse_alone(method: Diffuser, clean: Tensor) -> Tensor:
    """One pass of the network over slices, with noise that is there already."""
    t = torch.full((len(clean),), 500)
    return reverse(method.plan, method.denoiser(clean), clean, torch.stack([t, torch.zeros_like(t)]))


def goals(steps: int = 60, turns: int = 3) -> list[Goal]:
    """2.4 times faster than the plain loop in torch, 3.5 with OpenVINO; noise and scoring each under a tenth."""
    healthy = scans()
    x, brain = volume(healthy)
    found = []
    for name in METHODS:
        method = trained(name, healthy, steps)
        found += timed(method, x, brain, name, turns)
        if name == "anoddpm":
            found += beside(method, x, brain, turns)
        print(f"{name}: done, {len(found)} goals so far", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main(goals, __doc__)
