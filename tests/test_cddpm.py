"""Conditioned diffusion: what its encoder is told, that it learns with the UNet, and what is pre-trained."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from anomri import files
from anomri.cohort import Cohort
from anomri.errors import BadCall
from anomri.methods import cddpm as methods
from anomri.methods.cddpm import CDDPM
from anomri.nets.resnet import ResNet
from anomri.train import Job
from helpers import free_port, phantom, phantoms
from networks import trained

pytestmark = pytest.mark.usefixtures("seeded")
TINY = {"size": "small", "width": 4, "context": 6, "augmented": False, "steps": 3, "pretraining_steps": 3, "batch": 2}
JOB = Job(device="cpu", precision="float32", every=1)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ready(**arguments) -> CDDPM:
    method = CDDPM(**TINY, **arguments)
    method.device, method.precision, method.engine = "cpu", "float32", "torch"
    method.build({"sequences": ["T1w"], "box": [32, 40], "range": [[-1.0, 3.0]]})
    method.net = trained(method.net, *())
    return method


def weights(method: CDDPM, part: str = "net") -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in method.net.state_dict().items() if k.startswith(part) or part == "net"}


def test_encoders_by_size():
    def depth(**arguments) -> int:
        method = CDDPM(**arguments)
        with torch.device("meta"):
            return sum(len(stage) for stage in method.network(1, ()).encoder.stages)

    assert depth() == 16
    assert depth(size="small") == 4
    assert depth(size="small", encoder="resnet18") == 8
    method = CDDPM()
    with torch.device("meta"):
        net = method.network(2, ())
    assert (net.unet.context, net.unet.vector) == (128, 256)
    assert isinstance(net.encoder, ResNet)


@pytest.mark.parametrize("levels", [500, (250, 750)])
def test_each_image_is_told_of_by_itself_alone(levels):
    method = ready(t_test=levels)
    x = torch.randn(3, 1, 32, 40)
    seen = []
    real = method.told
    method.told = lambda clean: seen.append(clean) or real(clean)
    whole = method.restored(x, rng())
    (clean,) = seen
    torch.testing.assert_close(clean[:3], method.scaled(x))
    told = real(clean)
    assert told.shape == (len(clean), 6)
    # Another context, the same noise: the image that it is of changes, and no other.
    method.told = lambda clean: torch.where(torch.arange(len(clean))[:, None] % 3 == 1, -real(clean), real(clean))
    other = method.restored(x, rng())
    assert torch.equal(other[0], whole[0])
    assert torch.equal(other[2], whole[2])
    assert (other[1] - whole[1]).abs().mean() > 1e-3


def test_the_encoder_sees_the_image_without_noise_and_learns():
    method = ready()
    x, brain = torch.randn(1, 32, 40), torch.ones(32, 40, dtype=torch.bool)
    drawn = [method.shown(x, brain, (2.0, 2.0), rng(n)) for n in range(3)]
    batch = {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}
    seen = []
    method.net.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method.loss(method.net.train(), batch).backward()
    torch.testing.assert_close(seen[0], batch["clean"])
    grads = [p.grad.abs().max() for p in method.net.encoder.parameters()]
    assert sum(float(g) > 0 for g in grads) > 0.9 * len(grads)


def test_pre_training_is_where_the_encoder_starts(monkeypatch):
    starts = []
    real = CDDPM.recipe
    monkeypatch.setattr(CDDPM, "recipe", lambda self: starts.append(weights(self, "encoder")) or real(self))
    plain = CDDPM(**TINY).fit(phantoms(0, 1), job=JOB)
    first = CDDPM(**TINY, pretrained=True).fit(phantoms(0, 1), validation=phantoms(2), job=JOB)
    assert plain.data.get("pretraining") is None
    told = first.data["pretraining"]
    assert (told["steps"], told["finished"]) == (3, True)
    assert [row["step"] for row in told["log"]] == [1, 2, 3]
    convs = [k for k, v in starts[0].items() if v.ndim == 4]
    assert all(not torch.equal(starts[0][k], starts[1][k]) for k in convs), "pre-training moved them"
    assert any(not torch.equal(starts[1][k], first.net.state_dict()[k]) for k in convs), "and they learn on"
    assert all(name.startswith(("unet.", "encoder.")) for name in first.net.state_dict()), "the decoder is thrown away"
    # A warm start has an encoder already.
    again = CDDPM(**TINY, pretrained=True).begin_with(first)
    again.fit(phantoms(0, 1), job=Job(device="cpu", precision="float32", warm=True))
    assert "pretraining" not in again.data
    assert len(starts) == 3


def test_a_training_that_was_stopped_goes_on(tmp_path):
    whole = CDDPM(**TINY, pretrained=True).fit(phantoms(0, 1), job=Job(device="cpu", precision="float32"))
    found = []
    for stop in (2, None):
        method = CDDPM(**TINY, pretrained=True)
        job = Job(device="cpu", precision="float32", folder=tmp_path, stop_at=stop)
        found.append(method.fit(phantoms(0, 1), job=job))
    assert not found[0].data["finished"]
    assert not found[0].data["pretraining"]["finished"]
    assert found[1].data["finished"]
    assert all(torch.equal(a, b) for a, b in zip(weights(found[1]).values(), weights(whole).values(), strict=True))


def test_pre_training_asks_for_every_gradient_that_it_makes(monkeypatch):
    """What has none stops processes that train together."""
    real, lacking = methods.train, []

    def spy(net, *given, **more):
        done = real(net, *given, **more)
        lacking.append([name for name, p in net.named_parameters() if p.requires_grad and p.grad is None])
        return done

    monkeypatch.setattr(methods, "train", spy)
    method = CDDPM(**TINY, pretrained=True).fit(phantoms(0, 1), job=JOB)
    assert lacking == [[]]
    assert all(p.requires_grad for p in method.net.parameters()), "all of it is learned afterwards"


def test_two_processes_pre_train_and_end_alike(tmp_path):
    port, running = free_port(), []
    for rank in range(2):
        about = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        environment = {**os.environ, **{name: str(value) for name, value in about.items()}}
        command = [sys.executable, str(Path(__file__).parent / "pretraining.py"), str(tmp_path)]
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        for process in running:
            said = process.communicate(timeout=100)[1]
            assert process.returncode == 0, said[-3000:]
    finally:
        for process in running:
            process.kill()
    first, second = (files.read_tensors(tmp_path / f"rank-{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("pretrained", "shape", "cells"), [(False, (20, 24, 12), 1), (True, (64, 40, 12), 2)])
def test_a_batch_of_one_cell_has_no_variance(pretrained, shape, cells):
    cohort = Cohort([phantom(n, shape=shape) for n in (0, 1)])
    alone = {**TINY, "batch": 1, "pretrained": pretrained}
    words = "batch is 1: of one image on a grid of .* the encoder sees one cell of 32 voxels"
    with pytest.raises(BadCall, match=words):
        CDDPM(**alone).fit(cohort, job=JOB)
    CDDPM(**{**alone, "batch": 2}).fit(cohort, job=JOB)
    if cells > 1:
        CDDPM(**{**alone, "pretrained": False}).fit(cohort, job=JOB)


def test_volumes_too():
    method = CDDPM(**TINY, dims=3, pretrained=True, n=2).fit(phantoms(0, 1), job=JOB)
    method.device, method.precision = "cpu", "float32"
    healthy = method.restore(phantom(3), rng())
    assert healthy.shape == (2, *phantom(3).image.shape)
    assert np.isfinite(healthy).all()
    assert not np.array_equal(healthy[0], healthy[1])


def test_what_cannot_be_asked_for():
    with pytest.raises(BadCall, match="context is a vector of 0 numbers"):
        CDDPM(context=0)
    with pytest.raises(BadCall, match="unknown encoder 'vit'"):
        CDDPM(encoder="vit")
