"""The training loop: what is drawn, how it resumes, how processes share it, and what it says when something is wrong."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from anomri import files
from anomri.errors import BadCall, BadInput
from anomri.nets.device import pick_device, pick_precision
from anomri.train import Job, Recipe, generator, order
from helpers import free_port
from training import SIZE, STEPS, loss, network, run, sample

PROGRAM = Path(__file__).with_name("training.py")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in net.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Weights and log of a training that nobody stopped, on one thread as its rivals."""
    torch.set_num_threads(1)
    net, folder = network(), tmp_path_factory.mktemp("whole")
    done = run(net, folder)
    return weights(net), done, folder


# --- what it does --------------------------------------------------------------------------------------------------


def test_loss_falls():
    done = run(network(), steps=80, every=20, batch=4)
    assert done.log[-1]["loss"] < 0.5 * done.log[0]["loss"]
    assert done.log[-1]["validation"] < done.log[0]["validation"]
    assert [row["step"] for row in done.log] == [20, 40, 60, 80]
    assert done.done


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(uninterrupted):
    net, other = network(), network()
    torch.manual_seed(99)
    run(net)
    run(other, seed=4)
    assert same(weights(net), uninterrupted[0])
    assert not same(weights(other), uninterrupted[0])


def test_global_generators_are_given_back_as_they_were():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(network(), steps=2)
    assert torch.equal(torch.rand(3), expected)


def test_the_best_weights_by_validation_are_left_in_the_network():
    scores = iter([5.0, 2.0, 3.0, 2.0, 9.0])
    seen = []

    def judge(net):
        assert not net.training
        assert not torch.is_grad_enabled()
        seen.append(weights(net))
        return next(scores)

    net = network()
    done = run(net, validate=judge)
    assert done.best_step == 10, "the first of two equals"
    assert same(weights(net), seen[1])
    assert [row["validation"] for row in done.log] == [5, 2, 3, 2, 9]
    assert not net.training, "ready to be used"


def test_a_validation_that_is_nan_is_never_the_best():
    scores = iter([math.nan, 2.0, math.nan, 3.0, 4.0])
    assert run(network(), validate=lambda net: next(scores)).best_step == 10


def test_without_validation_the_last_weights_are_kept():
    seen = []
    net = network()
    done = run(net, validate=None, progress=lambda row: seen.append(weights(net)))
    assert done.best_step == STEPS
    assert same(weights(net), seen[-1])
    assert "validation" not in done.log[0]


def test_log_is_the_mean_loss_since_the_last_row(tmp_path):
    seen = []
    done = run(network(), tmp_path, progress=lambda row: seen.append(row["loss"]))
    expected = [sum(seen[a : a + 5]) / len(seen[a : a + 5]) for a in range(0, STEPS, 5)]
    assert [row["loss"] for row in done.log] == pytest.approx(expected)
    table = files.read_table(tmp_path / "log.tsv")
    assert list(table[0]) == ["step", "loss", "validation"]
    assert [int(row["step"]) for row in table] == [5, 10, 15, 20, 24]
    assert [float(row["loss"]) for row in table] == pytest.approx(expected, rel=1e-4)


def test_progress_is_told_every_step():
    rows = []
    run(network(), progress=rows.append)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(row["steps"] == STEPS and row["seconds_per_step"] > 0 and math.isfinite(row["loss"]) for row in rows)
    assert rows[-1]["seconds_left"] == 0
    assert rows[0]["validation"] is None
    assert rows[4]["validation"] > 0


def test_rate_is_flat_and_then_a_cosine():
    recipe = Recipe(steps=100, lr=0.2, final=0.1, decay=0.5)
    assert [recipe.rate(step) for step in (0, 25, 50)] == pytest.approx([0.2] * 3)
    assert recipe.rate(75) == pytest.approx(0.2 * 0.55, rel=1e-5)
    assert recipe.rate(100) == pytest.approx(0.02, rel=1e-5)
    falls = [recipe.rate(step) for step in range(50, 101)]
    assert all(a > b for a, b in itertools.pairwise(falls))
    assert {Recipe(steps=100, lr=0.2).rate(step) for step in range(100)} == {0.2}
    assert Recipe(steps=10, decay=1.0, final=0.0).rate(5) == pytest.approx(5e-4, rel=1e-5)


def test_the_optimiser_uses_the_rate():
    """At a rate of 0 after the first half, nothing moves any more."""
    net, seen = network(), []
    run(net, steps=40, final=0.0, validate=None, progress=lambda row: seen.append(net[0].weight.detach().clone()))
    first, last = (seen[1] - seen[0]).abs().max(), (seen[39] - seen[38]).abs().max()
    assert last < 0.02 * first


# --- what is drawn -------------------------------------------------------------------------------------------------


def test_every_epoch_is_a_new_permutation():
    epochs = [[order(0, 9, 9 * e + place) for place in range(9)] for e in range(6)]
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert [order(1, 9, place) for place in range(9)] != epochs[0]


def test_keys_give_generators_of_their_own():
    draws = {
        key: float(torch.rand(1, generator=generator(*key)))
        for key in ((0, "a", 1), (0, "a", 2), (1, "a", 1), (0, "b", 1))
    }
    assert len(set(draws.values())) == 4
    assert float(torch.rand(1, generator=generator(0, "a", 1))) == draws[0, "a", 1]


def drawn(**changes) -> list[tuple[int, float]]:
    """Items and noises in the order in which the network saw them."""
    seen = []

    def tagged(index, rng):
        made = dict(sample(index, rng))
        return made | {"tag": torch.tensor([float(index), float(made["noisy"].sum())], dtype=torch.float64)}

    def spy(net, batch):
        seen.extend((int(i), float(n)) for i, n in batch["tag"])
        return loss(net, batch)

    run(network(), sample=tagged, loss=spy, **changes)
    return seen


def test_each_item_comes_once_an_epoch_with_new_noise_every_time():
    seen = drawn()
    assert len(seen) == 2 * STEPS
    for epoch in range(len(seen) // SIZE):
        assert sorted(i for i, _ in seen[epoch * SIZE : (epoch + 1) * SIZE]) == list(range(SIZE))
    assert len({n for _, n in seen}) == len(seen)


def test_draws_depend_on_nothing_but_seed_step_and_place(tmp_path):
    """Not on what runs beside, on global generators, on validation, or on being stopped."""
    whole = drawn()
    torch.manual_seed(1)
    assert drawn(validate=None, every=7) == whole
    parts = drawn(folder=tmp_path, stop_at=9) + drawn(folder=tmp_path)
    assert parts == whole
    assert drawn(batch=4, steps=STEPS // 2) == whole, "larger batches are the same samples in the same order"
    assert drawn(seed=8) != whole


def test_samples_are_drawn_ahead_in_a_thread_and_no_further_than_needed():
    threads, drawn_items = set(), []

    def spy(index, rng):
        threads.add(threading.current_thread().name)
        drawn_items.append(index)
        return sample(index, rng)

    run(network(), sample=spy, steps=6)
    assert len(drawn_items) == 12
    assert any(name != threading.main_thread().name for name in threads)
    assert not [t for t in threading.enumerate() if t.name in threads and t is not threading.main_thread()], (
        "the thread is ended"
    )


def test_an_error_while_drawing_reaches_the_caller():
    def broken(index, rng):
        raise BadInput("scan 'sub-07' vanished")

    with pytest.raises(BadInput, match="sub-07"):
        run(network(), sample=broken)


# --- resuming ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [(1,), (5,), (7, 8, 19), (23,)])
def test_a_resumed_run_ends_with_the_same_weights_to_the_bit(tmp_path, uninterrupted, stops):
    for stop_at in stops:
        part = run(network(), tmp_path, stop_at=stop_at)
        assert not part.done
        assert files.read_json(tmp_path / "checkpoint.json")["step"] == stop_at
    net = network(seed=11)  # whatever it begins with
    done = run(net, tmp_path)
    assert done.done
    assert same(weights(net), uninterrupted[0])
    assert done.log == uninterrupted[1].log
    assert done.best_step == uninterrupted[1].best_step
    assert len(list(tmp_path.glob("*.safetensors"))) == 1, "old checkpoints are removed"


def test_a_killed_process_resumes_to_the_same_weights(tmp_path, uninterrupted):
    """A real SIGKILL in the middle of a step."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(tmp_path / "run"), str(tmp_path / "out"), str(STEPS), "0.15"]
    )
    about = tmp_path / "run" / "checkpoint.json"
    deadline = time.monotonic() + 60
    while not about.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was still running"
    reached = files.read_json(about)["step"]
    assert 5 <= reached < STEPS
    net = network(seed=11)
    done = run(net, tmp_path / "run")
    assert same(weights(net), uninterrupted[0])
    assert done.log == uninterrupted[1].log


def test_a_finished_run_is_not_run_again(uninterrupted):
    rows: list[object] = []
    net = network(seed=11)
    done = run(net, uninterrupted[2], progress=rows.append)
    assert not rows
    assert done.done
    assert same(weights(net), uninterrupted[0])


def test_minutes_pause_a_run(tmp_path):
    part = run(network(), tmp_path, minutes=0.0)
    assert not part.done
    assert not (tmp_path / "checkpoint.json").exists(), "nothing was done, nothing is kept"
    assert not run(network(), tmp_path, stop_at=0).done
    assert not run(network(), tmp_path, slow=0.02, minutes=0.1 / 60).done
    assert 0 < files.read_json(tmp_path / "checkpoint.json")["step"] < STEPS


def test_checkpoint_format_is_the_first_versions(uninterrupted):
    """Folders of older runs must stay resumable: file names, JSON fields and tensor names."""
    folder = uninterrupted[2]
    about = files.read_json(folder / "checkpoint.json")
    assert {"key", "tensors", "step", "best_step", "best", "log", "losses"} <= about.keys()
    assert json.loads(about["key"]) == {
        "recipe": {"batch": 2, "decay": 0.5, "final": 0.1, "lr": 0.01, "steps": 24},
        "seed": 3,
    }
    assert about["tensors"] == "checkpoint-24.safetensors"
    names = files.read_tensors(folder / about["tensors"]).keys()
    assert {
        "net.0.weight",
        "best.0.weight",
        "net.1.running_mean",
        "adam.0.exp_avg",
        "adam.0.exp_avg_sq",
        "adam.0.step",
    } <= names


def test_a_checkpoint_without_settings_is_still_taken(tmp_path, uninterrupted):
    run(network(), tmp_path, stop_at=8)
    about = files.read_json(tmp_path / "checkpoint.json")
    del about["settings"]
    files.write_json(tmp_path / "checkpoint.json", about)
    net = network()
    run(net, tmp_path, settings={"width": 8})
    assert same(weights(net), uninterrupted[0])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lr": 0.02}, "recipe.lr: 0.01 there, 0.02 here"),
        ({"steps": 30}, "recipe.steps: 24 there, 30 here"),
        ({"seed": 4}, "seed: 3 there, 4 here"),
        ({"size": 6}, "size: 7 there, 6 here"),
        ({"settings": {"width": 8}}, "width: 4 there, 8 here"),
    ],
)
def test_other_settings_are_refused_in_one_line(tmp_path, changes, named):
    run(network(), tmp_path, stop_at=3, settings={"width": 4})
    with pytest.raises(BadInput) as error:
        run(network(), tmp_path, **({"settings": {"width": 4}} | changes))
    assert named in str(error.value)
    assert "another folder" in str(error.value)
    assert "\n" not in str(error.value)


def test_another_network_is_refused_in_one_line(tmp_path):
    run(network(), tmp_path, stop_at=3)
    other = torch.nn.Sequential(torch.nn.Conv3d(1, 6, 3, padding=1), torch.nn.Conv3d(6, 1, 1))
    with pytest.raises(BadInput, match="another network") as error:
        run(other, tmp_path)
    assert "\n" not in str(error.value)


def test_a_damaged_checkpoint_is_said_in_one_line(tmp_path):
    run(network(), tmp_path, stop_at=3)
    tensors = tmp_path / "checkpoint-3.safetensors"
    whole, about = tensors.read_bytes(), (tmp_path / "checkpoint.json").read_text()

    def refused(match: str) -> None:
        with pytest.raises(BadInput, match=match) as error:
            run(network(), tmp_path)
        assert "\n" not in str(error.value)
        assert "begin anew" in str(error.value) or "JSON" in str(error.value)

    tensors.write_bytes(whole[: len(whole) // 2])
    refused("damaged")
    tensors.write_bytes(b"")
    refused("damaged")
    tensors.unlink()
    refused("no such file")
    tensors.write_bytes(whole)
    (tmp_path / "checkpoint.json").write_text(about[: len(about) // 2])
    refused("not valid JSON")
    (tmp_path / "checkpoint.json").write_text('{"key": "x"}')
    refused("lacks tensors")
    (tmp_path / "checkpoint.json").write_text(about)
    assert run(network(), tmp_path).done


# --- processes -----------------------------------------------------------------------------------------------------


def launch(folder: Path, out: Path, *more: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command += ["--master-port", str(free_port()), str(PROGRAM), str(folder), str(out), *more]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said = process.communicate(timeout=100)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # torchrun ends its processes
        raise
    assert process.returncode == 0, said[-3000:]
    assert "Warning" not in said


def test_two_processes_end_alike_and_the_first_alone_writes(tmp_path):
    """Weights, batch norm's means and the choice of the best; stopped and resumed on the way."""
    launch(tmp_path / "run", tmp_path / "part", "8")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "checkpoint-8.safetensors",
        "checkpoint.json",
        "log.tsv",
    ]
    launch(tmp_path / "run", tmp_path / "out")
    first, second = (files.read_tensors(tmp_path / "out" / f"rank-{rank}.safetensors") for rank in range(2))
    assert same(first, second)
    about = [files.read_json(tmp_path / "out" / f"rank-{rank}.json") for rank in range(2)]
    assert about[0]["best_step"] == about[1]["best_step"]
    assert [row["validation"] for row in about[0]["log"]] == [row["validation"] for row in about[1]["log"]]
    assert about[0]["world"] == 2
    assert [process["wrote"] for process in about] == [
        ["checkpoint-10", "checkpoint-15", "checkpoint-20", "checkpoint-24"],
        [],
    ]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "checkpoint-24.safetensors",
        "checkpoint.json",
        "log.tsv",
    ]
    assert not torch.equal(first["0.weight"], network()[0].weight)


def test_two_processes_see_the_samples_that_one_would(monkeypatch):
    """Each draws its share of every batch; together they are the batch of one process."""
    from anomri.train import _Ahead, _Group

    def batches(rank: int, world: int) -> list[torch.Tensor]:
        ahead = _Ahead(sample, SIZE, 4, 3, 5, _Group(rank, world), torch.device("cpu"))
        got = [ahead.get(step)["noisy"] for step in range(5)]
        ahead.close()
        return got

    for one, a, b in zip(batches(0, 1), batches(0, 2), batches(1, 2), strict=True):
        assert torch.equal(one, torch.cat([a, b]))


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(BadInput, match="multiple of 2"):
        run(network(), batch=3)


# --- what can be wrong ---------------------------------------------------------------------------------------------


def test_a_loss_that_is_nan_is_said_in_words():
    def broken(net, batch):
        return loss(net, batch) * (math.nan if float(batch["x"][0, 0, 0, 0, 0]) > -9 else 1)

    with pytest.raises(BadInput, match=r"loss is nan at step 1; lower the learning rate \(now 0.01\)"):
        run(network(), loss=broken)
    with pytest.raises(BadInput, match="loss is inf"):
        run(network(), loss=lambda net, batch: loss(net, batch) * math.inf)


@pytest.mark.parametrize("changes", [{"size": 0}, {"batch": 0}, {"steps": 0}])
def test_nothing_to_train_is_refused(changes):
    with pytest.raises(BadCall, match="at least 1"):
        run(network(), **changes)


def test_devices_and_precisions():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda")
    for name in ("cuda:97", "abacus"):
        with pytest.raises(BadInput, match=f"'{name}' is not available"):
            pick_device(name)
    assert pick_precision("float32", torch.device("cpu")) == torch.float32
    assert pick_precision("bfloat16", torch.device("cpu")) == torch.bfloat16
    assert pick_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    with pytest.raises(BadCall, match="unknown precision 'half'; known: auto, bfloat16, float32"):
        pick_precision("half", torch.device("cpu"))


def test_bfloat16_trains_too():
    done = run(network(), steps=40, every=20, batch=4, precision="bfloat16")
    assert done.log[-1]["loss"] < done.log[0]["loss"]


def test_other_networks_than_3d_ones_train():
    """Any network: one with 2D convolutions, one with none."""
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1))
    run(net, loss=lambda n, b: (n(b["noisy"][:, 0]) - b["x"][:, 0]).square().mean(), validate=None, steps=2)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    run(torch.nn.Linear(5, 5), steps=2, validate=None)


def test_a_job_is_a_plain_value():
    assert Job() == Job()
    with pytest.raises(AttributeError):
        Job().every = 3  # type: ignore[misc]
