"""AutoDDPM: what is masked, what is painted, and what stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from anomri.diffuser import Diffuser
from anomri.errors import BadCall, NotFitted
from anomri.methods.autoddpm import AutoDDPM
from anomri.nets.diffusion import inpaint, path, schedule
from anomri.nets.diffusion_unet import DiffusionUNet
from anomri.nets.perceptual import PerceptualDistance, unlike
from anomri.scoring.thresholds import KEPT
from anomri.train import Job
from helpers import phantom, phantoms
from networks import trained

pytestmark = pytest.mark.usefixtures("seeded")
TINY = {
    "size": "small",
    "width": 4,
    "sampler": "ddim",
    "ddim_steps": 3,
    "inpaint_steps": 3,
    "resamples": 2,
    "steps": 2,
    "batch": 2,
}
JOB = Job(device="cpu", precision="float32")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ready(firsts: float = 0.5, **arguments) -> AutoDDPM:
    """With a network that says something, and healthy maps evenly spread up to a value."""
    method = AutoDDPM(**{**TINY, **arguments})
    method.device, method.precision, method.engine = "cpu", "float32", "torch"
    spread = np.linspace(firsts, 0, KEPT).tolist()
    method.data = {
        "sequences": ["T1w"],
        "box": [32, 40],
        "range": [[-1.0, 3.0]],
        "healthy": {"large": 1.0, "firsts": spread},
    }
    method.build(method.data)
    method.net = trained(method.net)
    return method


def square() -> torch.Tensor:
    """Three slices, a bright square in the second."""
    x = 1 + 0.2 * torch.sin(torch.arange(3 * 32 * 40) * 0.05).reshape(3, 1, 32, 40)
    x[1, 0, 10:16, 20:26] += 2
    return x


class Healthy(nn.Module):
    """A network that knows what images are without the square."""

    def __init__(self, clean: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("clean", clean)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.clean[: len(x)]


def knowing(method: AutoDDPM, clean: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> AutoDDPM:
    """With a denoiser that gives images of the mean intensity of what it was asked about, for all of a batch."""
    scaled = method.scaled(clean)

    def denoiser(self, images):
        # Which of the slices these are: they differ beside the square.
        which = [int((scaled[:, 0, 0] - one[0, 0]).abs().sum(dim=1).argmin()) for one in images]
        return lambda x_t, t: scaled[which]

    monkeypatch.setattr(Diffuser, "denoiser", denoiser)
    return method


def distance(a: torch.Tensor, b: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
    return (a - b).abs().mean(dim=1, keepdim=True)


# --- ingredients ----------------------------------------------------------------------------------------------------


def test_painting_within_a_mask_leaves_the_rest_to_the_bit():
    plan, known = schedule(), torch.randn(2, 1, 8, 12)
    mask = torch.zeros(2, 1, 8, 12, dtype=torch.bool)
    mask[0, :, 2:5, 3:7] = True
    calls = []

    def denoise(x_t, t):
        calls.append(t.tolist())
        return torch.full_like(x_t, 7)

    generator = rng()
    made = inpaint(
        plan, denoise, torch.randn(2, 1, 8, 12), path("ddpm", [5, 5]), known, mask,
        lambda: torch.randn(2, 1, 8, 12, generator=generator), resamples=3,
    )  # fmt: skip
    assert torch.equal(made[~mask], known[~mask])
    assert (made[mask] == 7).all()
    assert calls == [[t, t] for t in (5, 4, 3, 2, 1) for _ in range(3)]


def test_noise_added_later_is_that_of_the_later_time():
    plan, x = schedule(), torch.full((1, 1, 100, 100), 3.0)
    s, t = torch.tensor([100]), torch.tensor([300])
    x_t = plan.later(
        plan.noised(x, s, torch.randn(x.shape, generator=rng())), s, t, torch.randn(x.shape, generator=rng(1))
    )
    a = plan.kept[300]
    assert x_t.mean().item() == pytest.approx(3 * a**0.5, abs=0.02)
    assert x_t.var().item() == pytest.approx(1 - a, rel=0.05)
    torch.testing.assert_close(plan.later(x, t, t, torch.randn(x.shape)), x)


def test_how_unlike_images_look():
    net = trained(DiffusionUNet(2, 1, 1, "small", 8))
    far = PerceptualDistance(net)
    maps = net.maps(torch.randn(2, 1, 16, 24), torch.zeros(2, net.vector))
    assert [tuple(level.shape[1:]) for level in maps] == [(8, 16, 24), (16, 8, 12), (16, 4, 6), (32, 2, 3)]
    a = torch.randn(2, 1, 16, 24)
    b = a.clone()
    b[1, 0, 4:8, 4:8] += 2
    all_of_it = torch.ones(2, 1, 16, 24, dtype=torch.bool)
    with torch.inference_mode():
        found = far(a, b, all_of_it)
        assert found.shape == (2, 1, 16, 24)
        assert not far(a, a, all_of_it).any()
        assert not found[0].any()
        assert found[1, 0, 4:8, 4:8].mean() > 2 * found[1, 0, 12:, 16:].mean()
        torch.testing.assert_close(far(a[1:], b[1:], all_of_it[1:]), found[1:], atol=1e-4, rtol=1e-4)
    one, other = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1), torch.tensor([3.0, 0.0]).reshape(1, 2, 1, 1)
    assert unlike([(one, other)], all_of_it[:1, :, :1, :1]).item() == pytest.approx(16 / 25)


def test_background_does_not_count_in_how_unlike_images_look():
    """Neither how much of it there is nor how long its features are; a coarse voxel counts by its share of brain."""
    brain = torch.zeros(2, 1, 8, 12, dtype=torch.bool)
    brain[0, :, :2, :4], brain[1, :, :7, :10] = True, True
    fine = torch.where(brain, 2.0, torch.tensor([0.0, 9.0]).reshape(2, 1, 1, 1)).expand(2, 3, 8, 12)
    coarse = torch.nn.functional.avg_pool2d(torch.where(brain, 3.0, 0.0), 2)
    found = unlike([(fine, fine + 1), (coarse, coarse + 1)], brain)
    share = torch.nn.functional.avg_pool2d(brain.float(), 2)
    sizes = (coarse.square() * share).sum(dim=(1, 2, 3)) / share.sum(dim=(1, 2, 3))
    torch.testing.assert_close(found, ((1 / 4 + 1 / sizes) / 2)[:, None, None, None].expand(2, 1, 8, 12))
    assert unlike([(fine, fine + 1)], torch.zeros_like(brain)).isfinite().all()


def test_a_patch_looks_as_unlike_in_a_slice_with_little_brain():
    far = PerceptualDistance(trained(DiffusionUNet(2, 1, 1, "small", 8)))
    x, found = 5 * torch.nn.functional.avg_pool2d(torch.randn(1, 1, 96, 96, generator=rng(3)), 5, 1, 2), []
    for edge in (32, 48, 80):
        inside = torch.zeros(1, 1, 96, 96, dtype=torch.bool)
        low = 48 - edge // 2
        inside[..., low : low + edge, low : low + edge] = True
        a = torch.where(inside, x + 0.5, 0)
        b = a.clone()
        b[..., 45:51, 45:51] += 1
        with torch.inference_mode():
            found.append([float(far(a, b, of)[..., 45:51, 45:51].mean()) for of in (inside, torch.ones_like(inside))])
    of_brain, of_slice = zip(*found, strict=True)
    assert max(of_brain) < 1.6 * min(of_brain)
    assert max(of_slice) > 2.5 * min(of_slice), "of all features of the slice it would be another"


# --- what is masked and painted -------------------------------------------------------------------------------------


def test_a_planted_square_is_masked_and_painted_and_nothing_else_is_touched(monkeypatch):
    ill, healthy = square(), square()
    healthy[1, 0, 10:16, 20:26] -= 2
    method = knowing(ready(firsts=0.4, scale="healthy"), healthy, monkeypatch)
    brain = torch.ones(3, 32, 40, dtype=torch.bool)
    made, first = method.healed(ill, brain, distance, rng())
    inside = torch.zeros(3, 32, 40, dtype=torch.bool)
    inside[1, 10:16, 20:26] = True
    assert first.shape == (3, 1, 32, 40)
    assert first[:, 0][inside].min() > 0.5
    assert first[:, 0][~inside].max() < 1e-5
    grown = torch.zeros_like(inside)
    grown[1, 9:17, 19:27] = True
    assert torch.equal(made[:, 0][~grown], ill[:, 0][~grown]), "to the bit"
    torch.testing.assert_close(made, healthy, atol=1e-5, rtol=1e-5)


def test_what_is_stitched_is_the_scan_outside_the_mask(monkeypatch):
    """Before any of it is painted again."""
    method = ready(masking="share", t_inpaint=1, inpaint_steps=1, resamples=1)
    seen = []
    monkeypatch.setattr("anomri.diffuser.inpaint", lambda *given: seen.append(given) or given[4])
    x, brain = square(), torch.ones(3, 32, 40, dtype=torch.bool)
    method.healed(x, brain, method._distance(), rng())
    ((plan, _, x_t, times, known, mask, *_),) = seen
    torch.testing.assert_close(known, method.scaled(x))
    assert mask.shape == known.shape
    assert 0.05 < mask.float().mean() < 0.5
    off = (x_t - plan.kept[1] ** 0.5 * known) / (1 - plan.kept[1]) ** 0.5
    assert off[~mask].std().item() == pytest.approx(1, rel=0.1), "noise alone"
    assert off[mask].abs().mean() > 3
    assert times.tolist() == [[1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("scale", ["slice", "healthy"])
@pytest.mark.parametrize("masking", ["threshold", "share"])
def test_a_perfect_network_masks_nothing(scale, masking, monkeypatch):
    x = square()
    method = knowing(ready(firsts=0.0, scale=scale, masking=masking), x, monkeypatch)
    monkeypatch.setattr("anomri.diffuser.inpaint", lambda *given: pytest.fail("nothing is to be painted"))
    made, first = method.healed(x, torch.ones(3, 32, 40, dtype=torch.bool), method._distance(), rng())
    assert not first.any()
    assert torch.equal(made, x)


def test_a_share_of_each_slice_is_masked_whatever_it_holds():
    seen = []
    for share in (0.05, 0.2):
        method = ready(firsts=1e9, masking="share", mask_share=share)
        brain = torch.zeros(3, 32, 40, dtype=torch.bool)
        brain[:, 4:28, 4:36] = True
        made, first = method.healed(square(), brain, method._distance(), rng())
        assert not first[:, 0][~brain].any()
        touched = (made != square())[:, 0]
        seen.append([float((t & b).sum() / b.sum()) for t, b in zip(touched, brain, strict=True)])
    assert all(a > 0.05 for a in seen[0])
    assert all(b > max(0.2, a) for a, b in zip(*seen, strict=True))
    # Above a threshold that no healthy scan reaches, none is.
    method = ready(firsts=1e9)
    assert torch.equal(method.healed(square(), brain, method._distance(), rng())[0], square())


def test_the_threshold_is_that_of_healthy_scans():
    method = ready(firsts=2.0)
    assert method.mask_threshold == pytest.approx(2 * 0.95)
    method.mask_share = 0.5
    assert method.mask_threshold == pytest.approx(1.0)
    fitted = AutoDDPM(**TINY).fit(phantoms(0, 1), validation=phantoms(2), job=JOB)
    alone = AutoDDPM(**TINY).fit(phantoms(0, 1), job=JOB)
    firsts = fitted.data["healthy"]["firsts"]
    assert len(firsts) == KEPT
    assert firsts == sorted(firsts, reverse=True)
    assert firsts != alone.data["healthy"]["firsts"]
    before = fitted.mask_threshold
    assert fitted.calibrate(phantoms(4)).mask_threshold != before


def test_a_slice_is_painted_alike_whatever_else_is_in_its_scan():
    """In the batch after another's, and in the same: a lesion elsewhere takes no draw from it."""
    method, brain = ready(scale="healthy"), torch.ones(2, 32, 40, dtype=torch.bool)
    base = 1 + 0.2 * torch.sin(torch.arange(4 * 32 * 40) * 0.05).reshape(4, 1, 32, 40)
    base[2:, 0, 20:26, 5:11] += 9

    def healed(x: torch.Tensor, level: float) -> list[torch.Tensor]:
        """Two slices, then two more by the same generator."""
        drawn = rng()
        method.data["healthy"]["firsts"] = [level] * KEPT
        return [part for n in (0, 2) for part in method.healed(x[n : n + 2], brain, method._distance(), drawn)]

    top = healed(base, 1e9)[1].flatten(1).max(dim=1).values
    dull, level = int(top.argmin()), float(top.mean())
    ill = base.clone()
    ill[dull, 0, 10:16, 20:26] += 9
    for of, masked in ((level, 1), (float(top.max()) * 1.001, 0)):
        a, b = healed(base, of), healed(ill, of)
        assert [int((made[:2] != x[:2]).flatten(1).any(dim=1).sum()) for made, x in ((a[0], base), (b[0], ill))] == [
            masked,
            masked + 1,
        ]
        torch.testing.assert_close(a[0][1 - dull], b[0][1 - dull], atol=1e-4, rtol=1e-4)
        assert torch.equal(a[3], b[3])
        torch.testing.assert_close(a[2], b[2], atol=1e-4, rtol=1e-4)
    assert not torch.equal(healed(base, level)[2], base[2:]), "the later ones are painted too"


def test_the_threshold_waits_for_the_end_of_training(monkeypatch):
    seen = []
    real = AutoDDPM._healthy
    monkeypatch.setattr(AutoDDPM, "_healthy", lambda self, *given: seen.append(self.device) or real(self, *given))
    stopped = AutoDDPM(**TINY).fit(phantoms(0, 1), job=Job(device="cpu", precision="float32", stop_at=1))
    assert not seen
    assert "healthy" not in stopped.data
    with pytest.raises(NotFitted, match=r"no threshold for its mask.*or call calibrate\(healthy\)"):
        stopped.detect(phantom(2))
    monkeypatch.setenv("RANK", "1")
    AutoDDPM(**TINY).fit(phantoms(0, 1), job=JOB)
    assert not seen, "the first process finds it"
    monkeypatch.delenv("RANK")
    method = AutoDDPM(**TINY).fit(phantoms(0, 1), job=JOB)
    assert seen == ["cpu"], "the job's device"
    assert method.device == "auto"


def test_golden():
    method = ready(firsts=2.0)
    for n, (name, p) in enumerate(method.net.named_parameters()):
        wave = torch.sin(torch.arange(p.numel()) * (0.7 + 0.01 * n)).reshape(p.shape)
        p.data = wave * p[0].numel() ** -0.5 if p.ndim > 1 else 0.1 * wave + name.endswith("weight")
    made, first = method.healed(square(), torch.ones(3, 32, 40, dtype=torch.bool), method._distance(), rng())
    found = (made.mean().item(), made.std().item(), first.mean().item(), first.max().item(), first[1, 0, 12, 22].item())
    assert found == pytest.approx((1.0116, 0.9908, 0.6647, 6.6589, 0.3772), abs=5e-4)


def test_what_says_nothing_of_the_weights():
    learned = set(AutoDDPM().learning)
    assert learned == {"size", "width", "schedule", "prediction", "augmented", "steps", "batch", "lr", "final"}


def test_restored_is_what_is_found():
    method = AutoDDPM(**TINY).fit(phantoms(0, 1), job=JOB)
    method.device, method.precision = "cpu", "float32"
    healthy = method.restore(phantom(2), rng())
    found = method.find(phantom(2), rng())
    assert healthy.shape == (1, *phantom(2).image.shape)
    assert np.array_equal(healthy[0][:, phantom(2).brain], found.healthy[:, phantom(2).brain])
    assert np.array_equal(found.healthy, method.find(phantom(2), rng()).healthy)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"masking": "mean"}, "unknown masking 'mean'; known: share, threshold"),
        ({"scale": "scan"}, "unknown scale 'scan'; known: healthy, slice"),
        ({"mask_share": 0.0}, "mask_share is 0, needs to be between 0 and 1"),
        ({"resamples": 0}, "resamples is 0, each step is made at least once"),
        ({"t_test": 0}, "t_test is 0, needs to be times from 1 to 1000"),
        ({"t_test": (100, 200)}, "has one first reconstruction; give one time"),
        ({"t_inpaint": 1001}, "t_inpaint is 1001, needs to be a time from 1 to 1000"),
        ({"inpaint_steps": 51}, "51 steps from t = 50 to 0"),
        ({"score": "mhd_diag"}, "needs several reconstructions"),
    ],
)
def test_what_cannot_be_asked_for(arguments, words):
    with pytest.raises(BadCall, match=words):
        AutoDDPM(**arguments)
