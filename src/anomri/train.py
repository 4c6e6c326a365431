"""The one training loop: any network, any loss; resumable to the bit, on one process or many.

What is drawn at a step depends on the seed, the step and the place in the batch alone, never on workers, processes or how
often a run was killed. So every epoch sees new masks, and a resumed run ends with the weights of one that was not stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomri import files
from anomri.errors import BadCall, BadInput, unknown
from anomri.nets.device import autocast, pick_device, pick_precision
from anomri.nets.engine import channels_last

Sample = Mapping[str, Tensor]
Progress = Callable[[Mapping[str, Any]], None]

OPTIMISERS = ("adam", "adamw", "amsgrad")
BEGIN_ANEW = "name another folder, or delete this one to begin anew"


@dataclass(frozen=True)
class Job:
    """How to train, as opposed to what: where, how often to validate (the best weights are picked among those), when to pause.

    Parameters
    ----------
    folder : where checkpoints and the log go; a run with the same folder goes on where the last one stopped
    device : "auto", "cpu", "cuda", "cuda:1", ...
    precision : "auto" (bf16 where the processor has it), "float32", "bfloat16"
    every : steps between two validations, each of which also writes a checkpoint
    stop_at : stop (resumably) once this many steps are done
    minutes : stop (resumably) after so much time
    warm : begin with the weights that the method has, instead of random ones
    progress : called after each step with step, steps, loss, seconds_left, seconds_per_step, validation, and waited, the share of
        the time in which the network had no samples to learn from
    """

    folder: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    every: int = 250
    stop_at: int | None = None
    minutes: float | None = None
    warm: bool = False
    progress: Progress | None = None


@dataclass(frozen=True)
class Recipe:
    """What a training is made of: part of a method's configuration.

    Parameters
    ----------
    steps : optimiser steps
    batch : samples a step, over all processes together
    lr : learning rate
    final : share of `lr` that is left at the end; it falls along a cosine over the last `decay` share of the steps
    optimiser : "adam", "adamw" or "amsgrad"
    weight_decay : of the optimiser; decoupled from the gradient for adamw
    clip : largest norm of the gradient, of all weights together; None leaves it as it is

    Raises `BadCall` for an unknown optimiser.
    """

    steps: int
    batch: int = 2
    lr: float = 1e-3
    final: float = 1.0
    decay: float = 0.5
    optimiser: str = "adam"
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise unknown("optimiser", self.optimiser, OPTIMISERS)

    def make(self, net: nn.Module) -> torch.optim.Adam:
        """The optimiser of a network's weights."""
        amsgrad = self.optimiser == "amsgrad"
        cls = torch.optim.AdamW if self.optimiser == "adamw" else torch.optim.Adam
        return cls(net.parameters(), lr=self.lr, weight_decay=self.weight_decay, amsgrad=amsgrad)

    def rate(self, step: int) -> float:
        """Learning rate at a step, counted from 0."""
        start = self.steps * (1 - self.decay)
        part = min(1.0, max(0.0, (step - start) / max(1.0, self.steps - start)))
        share = self.final + (1 - self.final) * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * part))))
        return self.lr * share


@dataclass(frozen=True)
class Trained:
    """What came of it: the log (a row per validation), and the step whose weights were kept."""

    log: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = 0
    done: bool = True


def generator(*key: object) -> torch.Generator:
    """A CPU generator seeded by a key such as `(seed, step, place)`: the same key, the same draws, anywhere."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def order(seed: int, size: int, place: int) -> int:
    """Which of `size` items is the `place`-th one drawn: a new permutation every epoch."""
    epoch, within = divmod(place, size)
    return int(torch.randperm(size, generator=generator(seed, "order", epoch))[within])


def processes() -> tuple[int, int]:
    """This process's rank, and how many there are (torchrun's variables; 0 and 1 without it)."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def train(
    net: nn.Module,
    sample: Callable[[int, torch.Generator], Sample],
    loss: Callable[[nn.Module, Sample], Tensor],
    size: int,
    recipe: Recipe,
    *,
    seed: int = 0,
    validate: Callable[[nn.Module], float] | None = None,
    settings: Mapping[str, Any] | None = None,
    job: Job | None = None,
) -> Trained:
    """Trains a network in place and leaves in it the weights that were best on the healthy validation scans.

    Parameters
    ----------
    sample : item index and a generator to one sample, tensors without a batch axis; called in a thread ahead of its need
    loss : network and batch to a scalar; run under autocast
    size : how many items there are
    validate : network (in eval mode) to a number, lower is better; the last weights are kept where it is None
    settings : what else the weights depend on (a method's arguments, its data); a folder with others is refused

    Under `torchrun` every process trains on its share of each batch (DDP), and only the first writes. Raises `BadInput`
    where the folder holds another training or a damaged one, or the loss is not finite.
    """
    job = job or Job()
    device = pick_device(job.device)
    dtype = pick_precision(job.precision, device)
    rank, world = processes()
    if recipe.batch % world:
        raise BadInput(f"a batch of {recipe.batch} cannot be shared by {world} processes; use a multiple of {world}")
    for name, number in (("scans to train on", size), ("batch", recipe.batch), ("steps", recipe.steps)):
        if number < 1:
            raise BadCall(f"{name}: {number}, needs at least 1")
    if world > 1 and device.type == "cuda" and device.index is None:
        # Each process its own GPU, or all of them would share the first.
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
    # What layers draw comes from the global generators, which are pinned below, and given back as they were.
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        _group(device) as together,
        warnings.catch_warnings(),
    ):
        # Of weights of one input channel, whose strides fit both layouts.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return _train(net, sample, loss, size, recipe, seed, validate, settings, job, device, dtype, together)


def _train(
    net: nn.Module,
    sample: Callable[[int, torch.Generator], Sample],
    loss: Callable[[nn.Module, Sample], Tensor],
    size: int,
    recipe: Recipe,
    seed: int,
    validate: Callable[[nn.Module], float] | None,
    settings: Mapping[str, Any] | None,
    job: Job,
    device: torch.device,
    dtype: torch.dtype,
    together: _Group,
) -> Trained:
    rank = together.rank
    model = channels_last(net.to(device))
    wrapped = nn.parallel.DistributedDataParallel(model) if together.world > 1 else model
    optimiser = recipe.make(model)
    state = _State(model, optimiser, job.folder, recipe, seed, {"size": size, **(settings or {})}, together)
    state.resume()
    begun, first = time.monotonic(), state.step
    last = recipe.steps if job.stop_at is None else min(recipe.steps, job.stop_at)
    drawing = _Ahead(sample, size, recipe.batch, seed, last, together, device)
    with contextlib.closing(drawing):
        while state.step < last:
            if job.minutes is not None and together.first(time.monotonic() - begun > 60 * job.minutes):
                break
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(state.step)
            wrapped.train()
            # Dropout and other layers draw from the global generators: pin them to the step, so that resuming is exact.
            torch.manual_seed(int(generator(seed, "layers", state.step, rank).initial_seed()))
            batch = drawing.get(state.step)
            with autocast(device, dtype):
                value = loss(wrapped, batch)
            latest = float(value.detach())
            if not math.isfinite(latest):
                raise BadInput(
                    f"the loss is {latest} at step {state.step + 1}; lower the learning rate (now {recipe.rate(state.step):g}), "
                    "or look for a scan with extreme intensities"
                )
            optimiser.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            if recipe.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimiser.step()
            state.step += 1
            state.losses.append(latest)
            if state.step % job.every == 0 or state.step == recipe.steps:
                state.checkpoint(validate)
            if job.progress and rank == 0:
                rate = (time.monotonic() - begun) / (state.step - first)
                job.progress(
                    {
                        "step": state.step,
                        "steps": recipe.steps,
                        "loss": latest,
                        "seconds_left": rate * (recipe.steps - state.step),
                        "seconds_per_step": rate,
                        "validation": state.best,
                        "waited": drawing.waited / (time.monotonic() - begun),
                    }
                )
        if first < state.step < recipe.steps and state.step % job.every:
            state.save()
    state.restore_best()
    return Trained(state.log, state.best_step, state.step >= recipe.steps)


class _Group:
    """The processes that train together: one, or as many as torchrun started."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world

    def first(self, value: Any) -> Any:
        """The first process's value, for all: what is decided from it is decided alike."""
        if self.world == 1:
            return value
        held = [value]
        torch.distributed.broadcast_object_list(held, src=0)
        return held[0]

    def share(self, net: nn.Module) -> None:
        """The first process's buffers (batch norm's means) for all; gradients keep parameters alike, but not these."""
        if self.world > 1:
            for buffer in net.buffers():
                torch.distributed.broadcast(buffer, src=0)


@contextlib.contextmanager
def _group(device: torch.device) -> Iterator[_Group]:
    rank, world = processes()
    own = world > 1 and not torch.distributed.is_initialized()
    if own:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # torchrun holds the store itself; without it the first process does. Each training has names of its own in it.
        host = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        if not _STORES:
            _STORES.append(torch.distributed.TCPStore(address, port, world, host))  # type: ignore[attr-defined]
        store = torch.distributed.PrefixStore(f"anomri-{next(_TRAININGS)}", _STORES[0])  # type: ignore[attr-defined]
        torch.distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=world
        )
    yield _Group(rank, world)
    if own:
        # All leave together, and while the interpreter is whole: gloo aborts a process that ends with its threads alive.
        # Not after an error, which ends the process anyway: the others may still wait in the group.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


_STORES: list[Any] = []
_TRAININGS = itertools.count()


class _Ahead:
    """Draws batches in a thread while the network works."""

    def __init__(
        self,
        sample: Callable[[int, torch.Generator], Sample],
        size: int,
        batch: int,
        seed: int,
        last: int,
        together: _Group,
        device: torch.device,
    ) -> None:
        self.sample, self.size, self.batch, self.seed, self.device = sample, size, batch, seed, device
        self.last, rank, world = last, together.rank, together.world
        self.places = range(rank * batch // world, (rank + 1) * batch // world)
        self.pool = ThreadPoolExecutor(1)
        self.next: tuple[int, Future[Sample]] | None = None
        self.waited = 0.0

    def draw(self, step: int) -> Sample:
        drawn = []
        for place in self.places:
            nth = step * self.batch + place
            drawn.append(self.sample(order(self.seed, self.size, nth), generator(self.seed, "sample", nth)))
        return {name: torch.stack([s[name] for s in drawn]) for name in drawn[0]}

    def get(self, step: int) -> Sample:
        begun = time.monotonic()
        batch = self.next[1].result() if self.next and self.next[0] == step else self.draw(step)
        self.waited += time.monotonic() - begun
        self.next = (step + 1, self.pool.submit(self.draw, step + 1)) if step + 1 < self.last else None
        return {name: t.to(self.device, non_blocking=True) for name, t in batch.items()}

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


class _State:
    """All that a resumed run needs: weights, Adam's moments, step, log, and the best weights so far."""

    def __init__(
        self,
        net: nn.Module,
        optimiser: torch.optim.Adam,
        folder: Path | None,
        recipe: Recipe,
        seed: int,
        settings: Mapping[str, Any],
        together: _Group,
    ) -> None:
        self.net, self.optimiser, self.folder, self.together = (
            net,
            optimiser,
            Path(folder) if folder else None,
            together,
        )
        # What a recipe did not have when the first runs were begun is named where it is used: those runs stay resumable.
        new = {f.name: f.default for f in fields(Recipe) if f.name in ("optimiser", "weight_decay", "clip")}
        said = {name: value for name, value in asdict(recipe).items() if name not in new or value != new[name]}
        self.key = json.dumps({"recipe": said, "seed": seed}, sort_keys=True)
        self.settings = json.dumps(files.plain(settings), sort_keys=True)
        self.step, self.best_step = 0, 0
        self.best: float | None = None
        self.log: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self.kept: dict[str, Tensor] | None = None

    @contextlib.contextmanager
    def eval_mode(self) -> Iterator[None]:
        self.net.eval()
        try:
            yield
        finally:
            self.net.train()

    def checkpoint(self, validate: Callable[[nn.Module], float] | None) -> None:
        self.together.share(self.net)
        row: dict[str, Any] = {"step": self.step, "loss": sum(self.losses) / max(1, len(self.losses))}
        self.losses.clear()
        if validate is not None:
            with self.eval_mode(), torch.inference_mode():
                row["validation"] = self.together.first(float(validate(self.net)))
        self.log.append(row)
        score = row.get("validation")
        # A NaN is never the best, and never stands in the way of a better one.
        if score is None or (score == score and (self.best is None or score < self.best)):
            self.best, self.best_step = score, self.step
            self.kept = {k: v.detach().to("cpu", copy=True) for k, v in self.net.state_dict().items()}
        self.save()

    def save(self) -> None:
        if self.folder is None or self.together.rank != 0:
            return
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in (self.kept or {}).items()}
        for i, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{k}": torch.as_tensor(v) for k, v in moments.items()}
        # One file for the tensors, named by its step; the JSON that points to it is replaced last, so the pair is never mixed.
        name = f"checkpoint-{self.step}.safetensors"
        files.write_tensors(self.folder / name, tensors)
        about = {
            "key": self.key,
            "settings": self.settings,
            "tensors": name,
            "step": self.step,
            "best_step": self.best_step,
            "best": self.best,
            "log": self.log,
            "losses": self.losses,
        }
        files.write_json(self.folder / "checkpoint.json", about)
        files.write_table(self.folder / "log.tsv", self.log, ["step", "loss", "validation"])
        for old in self.folder.glob("checkpoint-*.safetensors"):
            if old.name != name:
                old.unlink(missing_ok=True)

    def resume(self) -> None:
        """Goes on from the folder's checkpoint where there is one."""
        if self.folder is None:
            return
        if (self.folder / "checkpoint.json").exists():
            about = files.read_json(self.folder / "checkpoint.json")
            lacks = [k for k in ("key", "tensors", "step", "best_step", "best", "log", "losses") if k not in about]
            if lacks:
                raise BadInput(f"'{self.folder / 'checkpoint.json'}' lacks {', '.join(lacks)}; {BEGIN_ANEW}")
            # Checkpoints of the first version say nothing of other settings.
            for there, here in ((about["key"], self.key), (about.get("settings", self.settings), self.settings)):
                if there != here:
                    raise BadInput(
                        f"'{self.folder}' holds a training with other settings ({_differing(there, here)}); "
                        "use another folder or the same settings"
                    )
            try:
                self._take(about, files.read_tensors(self.folder / about["tensors"]))
            except BadInput as error:
                raise BadInput(f"{error}; {BEGIN_ANEW}") from error
            except (RuntimeError, ValueError, KeyError, IndexError) as error:
                why = str(error).splitlines()[-1].strip()
                raise BadInput(
                    f"'{self.folder}' holds a checkpoint of another network ({why}); {BEGIN_ANEW}"
                ) from error
        if self.together.first(self.step) != self.step:
            raise BadInput(f"'{self.folder}' is not the same folder for every process; use one that all machines share")

    def _take(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.net.load_state_dict(part("net."))
        self.kept = part("best.") or None
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in part("adam.").items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({"state": moments, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.step, self.best_step, self.best = about["step"], about["best_step"], about["best"]
        self.log, self.losses = about["log"], about["losses"]

    def restore_best(self) -> None:
        self.together.share(self.net)
        if self.kept is not None:
            self.net.load_state_dict(self.kept)
        self.net.eval()


def _differing(there: str, here: str) -> str:
    """Which settings differ, of two JSON objects."""

    def flat(value: Any, name: str = "") -> dict[str, Any]:
        if isinstance(value, dict):
            return {
                k: v for key, inner in value.items() for k, v in flat(inner, f"{name}.{key}" if name else key).items()
            }
        return {name: value}

    a, b = flat(json.loads(there)), flat(json.loads(here))
    names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
    return ", ".join(f"{name}: {a.get(name)} there, {b.get(name)} here" for name in names)
