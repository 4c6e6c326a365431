"""A small training for the tests of the loop; as a program, the same one in a process of its own, to be killed or shared.

python training.py FOLDER OUT [STOP_AT [SLOW_SECONDS]]
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomri import files
from anomri.train import Job, Recipe, Sample, Trained, processes, train

SIZE = 7
STEPS = 24


def network(seed: int = 0) -> nn.Module:
    """With all that could make resuming inexact: batch norm, dropout, shapes of several ranks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1),
            nn.BatchNorm3d(4),
            nn.Dropout(0.2),
            nn.PReLU(),
            nn.Conv3d(4, 1, (1, 3, 3), padding=(0, 1, 1)),
        )


def sample(index: int, rng: torch.Generator) -> Sample:
    """Item `index` with noise of its own."""
    where = torch.linspace(0, 1, 4)[:, None, None] + torch.linspace(0, 2, 6)[:, None] + torch.linspace(0, 1, 5)
    x = torch.sin(where + index)[None]
    return {"x": x, "noisy": x + 0.3 * torch.randn(x.shape, generator=rng)}


def loss(net: nn.Module, batch: Sample) -> Tensor:
    return (net(batch["noisy"]) - batch["x"]).square().mean()


def validate(net: nn.Module) -> float:
    parts = [sample(100 + i, torch.Generator().manual_seed(i)) for i in range(2)]
    return float(loss(net, {k: torch.stack([p[k] for p in parts]) for k in parts[0]}))


def run(net: nn.Module, folder: Path | None = None, *, slow: float = 0.0, **changes: Any) -> Trained:
    """Trains `net` the standard way, with changes to any of the arguments, `Recipe` or `Job`."""

    def draw(index: int, rng: torch.Generator) -> Sample:
        time.sleep(slow)
        return sample(index, rng)

    recipe = {"steps": STEPS, "batch": 2, "lr": 1e-2, "final": 0.1}
    recipe |= {k: changes.pop(k) for k in list(changes) if k in recipe}
    job = {"device": "cpu", "precision": "float32", "every": 5}
    job |= {k: changes.pop(k) for k in list(changes) if k in Job.__dataclass_fields__}
    arguments: dict[str, Any] = {"sample": draw, "loss": loss, "size": SIZE, "seed": 3, "validate": validate} | changes
    drawn, objective, size = arguments.pop("sample"), arguments.pop("loss"), arguments.pop("size")
    return train(net, drawn, objective, size, Recipe(**recipe), job=Job(folder=folder, **job), **arguments)


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    stop_at = int(sys.argv[3]) if len(sys.argv) > 3 else None
    wrote: list[str] = []
    write = files.write_tensors
    files.write_tensors = lambda path, tensors: (wrote.append(Path(path).stem), write(path, tensors))[1]
    net = network(processes()[0])  # each process begins with other weights: the first one's count
    done = run(net, folder, stop_at=stop_at, slow=float(sys.argv[4]) if len(sys.argv) > 4 else 0.0)
    rank, world = processes()
    files.write_tensors(out / f"rank-{rank}.safetensors", net.state_dict())
    files.write_json(
        out / f"rank-{rank}.json",
        {
            "best_step": done.best_step,
            "log": done.log,
            "world": world,
            "wrote": [name for name in wrote if name.startswith("checkpoint")],
            "training": net.training,
        },
    )
    # A second training in the same processes.
    if world > 1:
        run(network(rank), None, steps=2)
