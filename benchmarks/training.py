"""Seconds of a training step of IterMask3D, against the plain float32 loop; and how long the network waits for samples.

Command:  python benchmarks/training.py            (about 4 minutes on two cores)

Plain is the published way: the whole field of view, float32, torch's own layers, masks drawn by SciPy and frequencies by numpy, a
sample after the other, no thread ahead; the paper's network (width 16, dropout 0.2) and Adam. Ours is `anomri.train` as `fit` calls
it. At 1 mm a batch has one sample, for the memory that plain needs (about 8 GB); at 2 mm it has two, as in the paper. Steps are those
after the first, which makes what later ones reuse.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from anomri import preprocess
from anomri.cohort import Cohort
from anomri.cohorts import phantom
from anomri.corruptions.masks import CELLS_MM
from anomri.methods.itermask3d import IterMask3D
from anomri.nets.unet import ResidualUNet
from anomri.scan import Scan
from anomri.train import Job
from masks import plain_high_pass, plain_mask, zoomed
from plain import network
from side_by_side import Goal
from side_by_side import main as alone

WANTED, WAITED = 3.0, 0.05
STEPS = 4


def scans(spacing: float, count: int = 2) -> list[Scan]:
    """Phantoms on the paper's field of view."""
    method = IterMask3D(width=1)
    method.preset_arguments = {"spacing": spacing}
    return [preprocess.run(method.pipeline(), scan) for scan in phantom.healthy(count)]


def plain(healthy: list[Scan], batch: int) -> float:
    """Seconds of a step of the published loop."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = network(ResidualUNet()).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    best = float("inf")
    for _ in range(2):
        begun = time.perf_counter()
        given, wanted = [], []
        for place in range(batch):
            scan = healthy[place % len(healthy)]
            x, brain = torch.tensor(scan.image), scan.brain
            cell = rng.choice(CELLS_MM)
            mask = torch.tensor(plain_mask(brain, round(cell / scan.spacing[0]), rng, zoomed))
            x_f = torch.tensor(plain_high_pass(scan.image[0], scan.spacing[0]).astype(np.float32))[None]
            given.append(torch.cat([torch.where(mask, torch.randn(x.shape), x), x_f]))
            wanted.append(x)
        loss = (net(torch.stack(given)) - torch.stack(wanted)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        best = min(best, time.perf_counter() - begun)
    return best


def ours(healthy: list[Scan], batch: int) -> tuple[float, float]:
    """Seconds of a step, and the share of the time that the network waited, after the first step."""
    told: list[tuple[float, dict[str, Any]]] = []
    job = Job(every=10**6, stop_at=STEPS, progress=lambda at: told.append((time.perf_counter(), dict(at))))
    IterMask3D(batch=batch).fit(Cohort(healthy), job=job)
    seconds = (told[-1][0] - told[0][0]) / (len(told) - 1)
    begun = told[0][1]["seconds_per_step"]
    waited = told[-1][1]["waited"] * told[-1][1]["seconds_per_step"] * STEPS - told[0][1]["waited"] * begun
    return seconds, waited / (told[-1][0] - told[0][0])


def goals() -> list[Goal]:
    """At 1 mm and at 2 mm: the step, and the waiting."""
    found = []
    for spacing, batch in ((1.0, 1), (2.0, 2)):
        healthy = scans(spacing)
        theirs = plain(healthy, batch)
        mine, waited = ours(healthy, batch)
        where = f"{spacing:g} mm, batch {batch}"
        found += [
            Goal(f"training step, {where}", mine, theirs, WANTED),
            Goal(f"share of time waiting for samples, {where}", waited, WAITED, 1.0, unit=""),
        ]
    return found


if __name__ == "__main__":
    alone(goals, __doc__)
