"""What diffusion methods share, and how they differ: the same noise, other parts, the same way back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from anomri.cohort import Cohort
from anomri.diffuser import Diffuser, intensity_range
from anomri.errors import BadCall
from anomri.methods.anoddpm import AnoDDPM
from anomri.methods.cddpm import CDDPM
from anomri.methods.ddpm import DDPM
from anomri.methods.pddpm import PDDPM
from anomri.nets.patches import anywhere, cover, starts, stitched
from anomri.preprocess.space import cut
from anomri.restorer import place
from anomri.scan import Scan
from anomri.train import Job
from helpers import SHAPE, phantom, phantoms
from networks import trained

pytestmark = pytest.mark.usefixtures("seeded")
TINY = {"size": "small", "width": 4, "steps": 2, "batch": 2}
JOB = Job(device="cpu", precision="float32")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ready(cls: type[Diffuser], **arguments) -> Diffuser:
    """With a network that says something: not learned, but each weight counts."""
    method = cls(**TINY, **arguments)
    method.device, method.precision, method.engine = "cpu", "float32", "torch"
    method.build({"sequences": ["T1w"], "box": [32, 40], "range": [[-1.0, 3.0]]})
    method.net = trained(method.net)
    return method


def with_net_of(method: Diffuser, other: Diffuser) -> Diffuser:
    method.net = other.net
    return method


class Perfect(nn.Module):
    """A network that knows what one image was."""

    vector, width = 6, 6

    def __init__(self, clean: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("clean", clean)

    def forward(self, x, given):
        return self.clean.expand_as(x)


# --- learning -------------------------------------------------------------------------------------------------------


def test_intensities_are_scaled_by_what_healthy_brains_hold():
    dim = [phantom(n).with_(image=phantom(n).image * 20 + 100) for n in (0, 1)]
    method = DDPM(**TINY, dims=3).fit(Cohort(dim), job=JOB)
    ((low, high),) = method.data["range"]
    inside = [np.percentile(scan.image[0, scan.brain], (1, 99)) for scan in dim]
    assert [low, high] == pytest.approx(np.mean(inside, axis=0).tolist())
    scaled = method.scaled(torch.tensor([low, high, 100.0]).reshape(1, 3, 1, 1))
    assert scaled.flatten()[:2].tolist() == pytest.approx([-1, 1], abs=1e-5)
    assert method.scaled(scaled, back=True).flatten()[2].item() == pytest.approx(100, rel=1e-5)
    two = phantom(0).with_(image=np.concatenate([phantom(0).image, 5 * phantom(0).image]), sequences=("T1w", "FLAIR"))
    (a, b) = intensity_range([two])
    assert b == pytest.approx([5 * v for v in a], rel=1e-4)


def test_what_a_batch_holds():
    method = ready(AnoDDPM)
    x, brain = torch.randn(1, 32, 40), torch.ones(32, 40, dtype=torch.bool)
    times = [int(method.shown(x, brain, (2.0, 2.0), rng(seed))["t"]) for seed in range(200)]
    assert min(times) >= 1
    assert max(times) <= 1000
    assert np.mean(times) == pytest.approx(500, abs=60)
    one = method.shown(x, brain, (2.0, 2.0), rng(3))
    torch.testing.assert_close(one["clean"], method.scaled(x))
    again = method.plan.noised(one["clean"][None], one["t"][None], one["noise"][None])[0]
    torch.testing.assert_close(one["input"], again)
    with torch.inference_mode():
        batch = {name: part[None] for name, part in {**one, "x": x}.items()}
        off = method.predicted(method.net, batch)
        assert float(method.loss(method.net, batch)) == pytest.approx(float((off - one["clean"]).abs().mean()))
        method.prediction = "noise"
        assert float(method.loss(method.net, batch)) == pytest.approx(float((off - one["noise"]).square().mean()))


def test_a_patch_is_noised_and_what_the_loss_is_of():
    method = ready(PDDPM, patch=12)
    x, brain = torch.randn(1, 32, 40), torch.ones(32, 40, dtype=torch.bool)
    grid = cover((32, 40), 12)
    seen = set()
    for seed in range(60):
        one = method.shown(x, brain, (2.0, 2.0), rng(seed))
        mask = one["patch"][0]
        assert mask.sum() == 144
        seen.add(next(n for n, part in enumerate(grid) if torch.equal(part, mask)))
        assert torch.equal(one["input"][:, ~mask], one["clean"][:, ~mask])
        assert (one["input"] - one["clean"])[:, mask].abs().mean() > 0.01
        assert not one["noise"][:, ~mask].any()
    assert seen == set(range(len(grid)))
    batch = {name: part[None] for name, part in {**one, "x": x}.items()}
    with torch.inference_mode():
        off = (method.predicted(method.net, batch) - one["clean"]).abs()[0]
        assert float(method.loss(method.net, batch)) == pytest.approx(float(off[:, mask].mean()), rel=1e-4)
        method.objective = "image"
        assert float(method.loss(method.net, batch)) == pytest.approx(float(off.mean()), rel=1e-4)
    method.sampling = "random"
    places = {
        tuple(method.shown(x, brain, (2.0, 2.0), rng(seed))["patch"][0].nonzero()[0].tolist()) for seed in range(60)
    }
    assert len(places) > 30


# --- where a scan lies ----------------------------------------------------------------------------------------------


def shrunk(number: int, shape: tuple[int, int, int]) -> Scan:
    """A phantom whose brain is smaller, on the grid of the others."""
    about, small = phantom(number), phantom(number, shape=shape)
    low = [(a - b) // 2 for a, b in zip(SHAPE, shape, strict=True)]
    inside = tuple(slice(a, a + n) for a, n in zip(low, shape, strict=True))
    image, brain = np.zeros_like(about.image), np.zeros_like(about.brain)
    image[(0, *inside)], brain[inside] = small.image[0], small.brain
    return about.with_(id=f"small-{number}", image=image, brain=brain)


@pytest.mark.parametrize("cls", [AnoDDPM, PDDPM, CDDPM])
def test_a_small_brain_is_shown_in_the_box_of_training(cls):
    """What is learned of the whole box (norms, a context, where patches lie) is not asked about another."""
    more = {"augmented": False, "context": 6} if cls is CDDPM else {}
    small = shrunk(1, (10, 12, 24))
    method = cls(**TINY, **more).fit(Cohort([phantom(0), small]), job=JOB)
    method.device, method.precision, method.engine = "cpu", "float32", "torch"
    seen = []
    real = method.denoiser
    method.denoiser = lambda clean: seen.append(clean) or real(clean)
    method.detect(small)
    heights = np.flatnonzero(small.brain.any(axis=(0, 1)))
    assert torch.cat(seen).shape[2:] == tuple(method.data["box"])
    for k in (0, 5, len(heights) - 1):
        x, _ = method.example(small, method.data["box"], rng(), at=(k + 0.5) / len(heights))
        torch.testing.assert_close(torch.cat(seen)[k], method.scaled(x))


def test_a_brain_larger_than_the_box_of_training_has_a_larger_one_along_those_axes():
    method = AnoDDPM(**TINY)
    low, high = method._place(phantom(2), [16, 48])
    assert (high - low)[:2].tolist() == [24, 48]
    where = np.argwhere(phantom(2).brain)
    assert (low <= where.min(axis=0)).all()
    assert (high > where.max(axis=0)).all()


def test_context_of_a_slice_is_that_of_training():
    """The encoder's last step is a mean over its grid, so that background counts."""
    small, method = shrunk(1, (20, 26, 24)), ready(CDDPM, context=6)
    method.data = {"box": [32, 40], "sequences": ["T1w"], "range": [[-1.0, 3.0]]}
    x, _ = method.example(small, (32, 40), rng(), at=0.5)
    low, high = place(small, (32, 40), 2, method.reduction)
    k = np.flatnonzero(small.brain.any(axis=(0, 1)))
    tight = cut(torch.tensor(small.image), low, high)[..., int(0.5 * len(k))]
    told = method.told(method.scaled(x)[None])
    seen, real = [], method.told
    method.told = lambda clean: seen.append(real(clean)) or seen[-1]
    method.restore(small, rng())
    torch.testing.assert_close(torch.cat(seen)[int(0.5 * len(k))], told[0])
    assert (method.told(method.scaled(tight)[None]) - told).abs().mean() > 1e-3, "a tight box tells another"


# --- patches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edge", "patch", "expected"),
    [(96, 48, [0, 48]), (96, 60, [0, 36]), (80, 48, [0, 32]), (100, 40, [0, 30, 60]), (40, 48, [0]), (48, 48, [0])],
)
def test_patches_are_evenly_spaced_and_cover_an_edge(edge, patch, expected):
    assert starts(edge, patch) == expected


def test_patches_cover_a_slice_and_overlaps_are_averaged():
    masks = cover((20, 12), 8)
    assert masks.shape == (3 * 2, 20, 12)
    assert masks.any(dim=0).all()
    made = torch.arange(6.0).reshape(6, 1, 1, 1, 1).expand(6, 2, 1, 20, 12)
    one = stitched(made, masks)
    assert one.shape == (2, 1, 20, 12)
    # Rows 6 and 7 are in the first two of three, columns 4 to 7 in both.
    assert one[0, 0, 0, 0] == 0
    assert one[0, 0, 6, 0] == (0 + 2) / 2
    assert one[0, 0, 6, 5] == (0 + 1 + 2 + 3) / 4
    assert one[1, 0, 19, 11] == 5
    assert anywhere((5, 6), 9, rng()).all()
    with pytest.raises(BadCall, match="a patch of 0 voxels"):
        starts(4, 0)


# --- looking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [{}, {"sampler": "ddim", "ddim_steps": 4}, {"sampler": "ddpm", "t_test": 6}, {"t_test": (250, 500)}]
)
@pytest.mark.parametrize("prediction", ["x0", "noise"])
def test_patched_diffusion_is_plain_where_the_patch_is_the_slice(arguments, prediction):
    plain = ready(AnoDDPM, prediction=prediction, **arguments)
    x = torch.randn(3, 1, 32, 40)
    whole = plain.restored(x, rng())
    for patch in (40, 96):
        patched = with_net_of(ready(PDDPM, patch=patch, prediction=prediction, **arguments), plain)
        torch.testing.assert_close(patched.restored(x, rng()), whole, atol=1e-4, rtol=1e-4)
    parts = with_net_of(ready(PDDPM, patch=20, prediction=prediction, **arguments), plain).restored(x, rng())
    assert (parts - whole).abs().mean() > 1e-3
    # In training too: the same draws, the same loss.
    patched, brain = ready(PDDPM, patch=40), torch.ones(32, 40, dtype=torch.bool)
    a, b = (one.shown(x[0], brain, (2.0, 2.0), rng(1)) for one in (plain, patched))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_patched_diffusion_in_the_plain_way():
    """Patch by patch, slice by slice."""
    method = ready(PDDPM, patch=20, noise="gaussian", t_test=300)
    x = torch.randn(2, 1, 32, 40)
    clean, noise = method.scaled(x), method.drawn(x.shape, rng(5))
    total, times = torch.zeros_like(x), torch.zeros(32, 40)
    for mask in cover((32, 40), 20):
        times += mask
        for n in range(2):
            x_t = torch.where(
                mask, method.plan.noised(clean[n : n + 1], torch.tensor([300]), noise[n : n + 1]), clean[n]
            )
            total[n] += torch.where(mask, method.denoiser(x_t)(x_t, torch.tensor([300]))[0], 0)
    expected = method.scaled(total / times, back=True)
    torch.testing.assert_close(method.restored(x, rng(5)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampler", ["one_step", "ddpm", "ddim"])
@pytest.mark.parametrize("cls", [DDPM, AnoDDPM, PDDPM])
def test_a_perfect_network_gives_the_scan_back(cls, sampler, monkeypatch):
    method = ready(cls, sampler=sampler, t_test=9, ddim_steps=3)
    x = torch.randn(1, 1, 32, 40)
    method.net = Perfect(method.scaled(x))
    monkeypatch.setattr(Diffuser, "unet", property(lambda self: self.net))
    torch.testing.assert_close(method.restored(x, rng()), x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("cls", "arguments", "expected"),
    [
        (DDPM, {}, (0.9931, 0.734, 1.7397, 0.4695)),
        (AnoDDPM, {}, (0.9921, 0.7391, 1.3129, 0.8224)),
        (PDDPM, {"patch": 20}, (0.9886, 0.6695, 1.3761, -0.6698)),
        (CDDPM, {"context": 6}, (0.9922, 0.7223, 0.9671, -0.028)),
    ],
)
def test_golden(cls, arguments, expected):
    method = ready(cls, **arguments)
    for n, (name, p) in enumerate(method.net.named_parameters()):
        wave = torch.sin(torch.arange(p.numel()) * (0.7 + 0.01 * n)).reshape(p.shape)
        p.data = wave * p[0].numel() ** -0.5 if p.ndim > 1 else 0.1 * wave + name.endswith("weight")
    for part in method.net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
    x = torch.sin(torch.arange(2 * 32 * 40) * 0.05).reshape(2, 1, 32, 40)
    y = method.restored(x, rng())
    found = (y.mean().item(), y.std().item(), y[1, 0, 3, 5].item(), y[0, 0, 20, 30].item())
    assert found == pytest.approx(expected, abs=5e-4)


def test_an_ensemble_is_the_mean_of_its_levels():
    method = ready(DDPM, t_test=(200, 600), schedule="cosine")
    x = torch.randn(2, 1, 32, 40)
    both = method.restored(x, rng())
    noise, clean = method.drawn((4, *x.shape[1:]), rng()), method.scaled(x)
    alone = []
    for n, t in enumerate((200, 600)):
        x_t = method.plan.noised(clean, torch.tensor([t] * 2), noise[2 * n : 2 * n + 2])
        alone.append(method.denoiser(clean)(x_t, torch.tensor([t] * 2)))
    torch.testing.assert_close(both, method.scaled((alone[0] + alone[1]) / 2, back=True), atol=1e-4, rtol=1e-4)


def test_a_few_images_at_a_time_are_the_same(monkeypatch):
    method, x = ready(AnoDDPM, t_test=(250, 500, 750)), torch.randn(3, 1, 32, 40)
    whole = method.restored(x, rng())
    monkeypatch.setattr("anomri.diffuser.MOST", {"cpu": 2 * 32 * 40})
    torch.testing.assert_close(method.restored(x, rng()), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("width", "expected"), [(4, [4, 3]), (64, [2, 2, 2, 1])])
def test_images_go_to_the_network_in_batches_of_one_size(width, expected, monkeypatch):
    """Fewer of a wider network; a kind of device that nobody has measured is as a CPU."""
    monkeypatch.setattr("anomri.diffuser.MOST", {"cpu": 5 * 32 * 40})
    method = DDPM(**{**TINY, "width": width})
    method.device, method.precision, method.engine = "cpu", "float32", "torch"
    method.build({"sequences": ["T1w"], "box": [32, 40]})
    sizes = []
    monkeypatch.setattr("anomri.diffuser.engine", lambda *_: lambda x, y: sizes.append((len(x), len(y))) or x + y)
    x = torch.randn(7, 1, 32, 40)
    assert torch.equal(method.run(method.net, x, 2 * x), 3 * x)
    assert sizes == [(n, n) for n in expected]


@pytest.mark.parametrize("cls", [DDPM, PDDPM, CDDPM])
def test_reconstructions_and_levels_are_batched(cls, monkeypatch):
    """What comes of all together is what comes of each alone; a slice is run once for each, and its context is found once."""
    more = {DDPM: {}, PDDPM: {"patch": 20}, CDDPM: {"context": 6}}[cls]
    method, x = ready(cls, n=3, t_test=(200, 600), **more), torch.randn(4, 1, 32, 40)
    method.data = {"box": [32, 40], "sequences": ["T1w"], "range": [[-1.0, 3.0]]}
    noise = torch.randn(3, 2, 4, 1, 32, 40)
    monkeypatch.setattr(Diffuser, "drawn", lambda self, shape, rng: noise.reshape(-1, 1, 32, 40)[: shape[0]].clone())
    together = method.several(x, 3, rng())
    assert together.shape == (3, *x.shape)
    for n in range(3):
        monkeypatch.setattr(Diffuser, "drawn", lambda self, shape, rng, n=n: noise[n].reshape(shape))
        torch.testing.assert_close(together[n], method.restored(x, rng()), atol=1e-4, rtol=1e-4)
    monkeypatch.undo()
    calls = []
    real = Diffuser.run
    monkeypatch.setattr(Diffuser, "run", lambda self, net, x, *y: calls.append((net, len(x))) or real(self, net, x, *y))
    scan = phantom(2)
    count = int(scan.brain.any(axis=(0, 1)).sum())
    made = method.restore(scan, rng())
    assert made.shape == (3, *scan.image.shape)
    patches = len(cover((32, 40), 20)) if cls is PDDPM else 1
    images = [number for net, number in calls if net is method.unet]
    assert images == [3 * 2 * count * patches], "none that fills up"
    assert [number for net, number in calls if net is not method.unet] == ([count] if cls is CDDPM else [])
    # Where all at once would be too many, some at once.
    monkeypatch.setattr("anomri.diffuser.TOGETHER", 5 * 2 * count * 32 * 40 // 2)
    calls.clear()
    assert method.restore(scan, rng()).shape == made.shape
    assert [number // (2 * count * patches) for net, number in calls if net is method.unet] == [2, 1]


def test_volumes_are_batched_too():
    method = ready(AnoDDPM, dims=3, n=2, t_test=(200, 600))
    method.build({"sequences": ["T1w"], "box": [32, 40, 32], "range": [[-1.0, 3.0]]})
    method.net, method.data = trained(method.net), {"box": [32, 40, 32], "range": [[-1.0, 3.0]]}
    a, b = method.restore(phantom(2), rng())
    assert a.shape == phantom(2).image.shape
    assert np.abs(a - b).mean() > 1e-3


def test_reconstructions_have_noise_of_their_own():
    method = AnoDDPM(**TINY, n=3).fit(phantoms(0, 1), job=JOB)
    method.device, method.precision = "cpu", "float32"
    found = method.restore(phantom(2), rng())
    assert found.shape == (3, *phantom(2).image.shape)
    inside = phantom(2).brain
    assert all((found[a][:, inside] != found[b][:, inside]).mean() > 0.9 for a, b in ((0, 1), (1, 2), (0, 2)))
    assert np.array_equal(found, method.restore(phantom(2), rng()))
    assert not np.array_equal(found, method.restore(phantom(2), rng(1)))


def test_arguments_of_the_way_back_say_nothing_of_the_weights():
    learned = set(PDDPM().learning)
    assert learned.isdisjoint({"t_test", "sampler", "ddim_steps", "n", "score"})
    assert {"schedule", "prediction", "noise", "patch", "objective", "size"} <= learned


def test_times_may_be_any_whole_numbers():
    method = DDPM(t_test=np.int64(300))
    assert (method.t_test, type(method.t_test)) == (300, int)
    assert DDPM(t_test=np.array([250, 500])).levels() == [250, 500]
    assert json.dumps(DDPM(t_test=[np.int32(250), 500]).arguments["t_test"]) == "[250, 500]"


def test_noise_that_cannot_be_drawn_is_said_before_training():
    method = AnoDDPM(**TINY, dims=3, frequency=0.05)
    with pytest.raises(BadCall, match="take fewer octaves"):
        method.build({"sequences": ["T1w"], "box": [32, 40, 40]})
    DDPM(**TINY, dims=3).build({"sequences": ["T1w"], "box": [1024, 1024, 1024]})


@pytest.mark.parametrize(
    ("cls", "arguments", "words"),
    [
        (DDPM, {"noise": "pink"}, "unknown noise 'pink'; known: gaussian, simplex"),
        (DDPM, {"prediction": "v"}, "unknown prediction 'v'; known: noise, x0"),
        (DDPM, {"schedule": "sine"}, "unknown schedule 'sine'"),
        (DDPM, {"size": "huge"}, "unknown size 'huge'; known: autoddpm, cddpm, pddpm, small"),
        (DDPM, {"dims": 4}, "a network of 4 axes"),
        (DDPM, {"sampler": "euler"}, "unknown sampler 'euler'"),
        (AnoDDPM, {"t_test": 0}, "t_test is 0, needs to be times from 1 to 1000"),
        (AnoDDPM, {"t_test": (250, 1001)}, "times from 1 to 1000"),
        (AnoDDPM, {"t_test": ()}, "times from 1 to 1000"),
        (AnoDDPM, {"t_test": True}, "t_test is True, needs to be times from 1 to 1000"),
        (AnoDDPM, {"t_test": (250, 500.0)}, "times from 1 to 1000"),
        (AnoDDPM, {"octaves": 0}, "needs 1 octave or more"),
        (DDPM, {"sampler": "ddim", "ddim_steps": 0}, "0 steps from t = 500"),
        (PDDPM, {"patch": 0}, "patch is 0 voxels"),
        (PDDPM, {"sampling": "grid"}, "unknown sampling 'grid'; known: fixed, random"),
        (PDDPM, {"objective": "both"}, "unknown objective 'both'; known: image, patch"),
    ],
)
def test_what_cannot_be_asked_for(cls, arguments, words):
    with pytest.raises(BadCall, match=words):
        cls(**arguments)
