"""Latent diffusion: what is unlikely, what is painted of it, and that two networks are trained one after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomri.errors import BadCall, NotFitted
from anomri.methods.latent_ddpm import LatentDDPM
from anomri.scoring.thresholds import KEPT
from anomri.train import Job, generator
from helpers import phantom, phantoms
from networks import trained

pytestmark = pytest.mark.usefixtures("seeded")
TINY = {
    "size": "small",
    "width": 4,
    "factor": 2,
    "latent": 3,
    "autoencoder_width": 4,
    "t_every": 100,
    "inpaint_steps": 3,
    "autoencoder_steps": 3,
    "steps": 3,
    "batch": 2,
}
JOB = Job(device="cpu", precision="float32", every=1)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def on_cpu(method: LatentDDPM) -> LatentDDPM:
    method.device, method.precision, method.engine = "cpu", "float32", "torch"
    return method


def ready(nats: float = 0.01, **arguments) -> LatentDDPM:
    """With networks that say something, and healthy latents unlikely by up to so many nats, evenly spread."""
    method = on_cpu(LatentDDPM(**{**TINY, **arguments}))
    method.data = {
        "sequences": ["T1w"],
        "box": [32, 48],
        "range": [[-1.0, 3.0]],
        "latents": [[0.1, 0.5], [0.0, 2.0], [-0.3, 1.0]],
        "healthy": {"nats": np.linspace(nats, 0, KEPT).tolist()},
    }
    method.build(method.data)
    method.net, method.autoencoder = trained(method.net), trained(method.autoencoder)
    return method


def slices() -> torch.Tensor:
    return 1 + torch.sin(torch.arange(3 * 32 * 48) * 0.05).reshape(3, 1, 32, 48)


def everywhere() -> torch.Tensor:
    return torch.ones(3, 32, 48, dtype=torch.bool)


def knowing(method: LatentDDPM, clean: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Gives it a denoiser that says these latents, whatever it is shown; which it is asked about, is kept."""
    asked: list[torch.Tensor] = []

    def denoiser(self, z):
        asked.append(z)
        which = [int((clean - one).abs().flatten(1).sum(dim=1).argmin()) for one in z]
        return lambda x_t, t: clean[which].repeat(len(t) // len(z), 1, 1, 1)

    monkeypatch.setattr(LatentDDPM, "denoiser", denoiser)
    return asked


def weights(method: LatentDDPM) -> dict[str, torch.Tensor]:
    return {f"{part}.{k}": v.clone() for part, net in method.networks().items() for k, v in net.state_dict().items()}


# --- latents --------------------------------------------------------------------------------------------------------


def test_latents_are_standardised_and_come_back():
    method, x = ready(), slices()
    z = method.encoded(x)
    assert z.shape == (3, 3, 16, 24)
    with torch.inference_mode():
        raw = method.autoencoder.encode(method.scaled(x))[0]
    torch.testing.assert_close(z[:, 1], raw[:, 1] / 2)
    torch.testing.assert_close(method.standardised(z, back=True), raw)
    with torch.inference_mode():
        torch.testing.assert_close(method.decoded(z), method.scaled(method.autoencoder(method.scaled(x)), back=True))


def test_latents_of_healthy_scans_have_mean_0_and_sd_1():
    method = on_cpu(LatentDDPM(**TINY)).fit(phantoms(0, 1), job=JOB)
    z = torch.cat([method.encoded(x).movedim(1, 0).flatten(1) for _, x, _ in method.healthy_parts(phantoms(0, 1))], 1)
    assert z.mean(dim=1).abs().max() < 1e-3
    assert z.std(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    assert len(method.data["latents"]) == 3


def test_a_latent_holds_brain_where_any_of_its_voxels_does():
    brain = torch.zeros(1, 32, 48, dtype=torch.bool)
    brain[0, 5, 7] = brain[0, 20:24, 30:33] = True
    found = ready().cells(brain)
    assert found.shape == (1, 1, 16, 24)
    assert found[0, 0].nonzero().tolist() == [[2, 3], [10, 15], [10, 16], [11, 15], [11, 16]]


# --- what is masked and painted -------------------------------------------------------------------------------------


def test_what_lies_outside_the_mask_comes_back_as_it_was(monkeypatch):
    method, z = ready(), torch.randn(3, 3, 16, 24)
    mask = torch.zeros(3, 1, 16, 24, dtype=torch.bool)
    mask[1, :, 4:7, 5:9] = True
    outside = ~mask.expand_as(z)
    asked = knowing(method, z + 7 * ~outside, monkeypatch)
    made = method.painted_latents(z, mask, rng())
    assert torch.equal(made[outside], z[outside]), "to the bit"
    torch.testing.assert_close(made[~outside], z[~outside] + 7)
    assert [len(one) for one in asked] == [1], "a slice without a mask is not painted"
    assert method.painted_latents(z, mask & False, rng()) is z


def test_painting_starts_from_noised_latents_and_sees_them_at_every_step(monkeypatch):
    method, z = ready(t_test=400, inpaint_steps=4, resamples=2), torch.randn(1, 3, 16, 24)
    mask = torch.zeros(1, 1, 16, 24, dtype=torch.bool)
    mask[..., 3:9, 4:12] = True
    seen = []

    def denoiser(self, z):
        return lambda x_t, t: seen.append((x_t.clone(), t)) or torch.zeros_like(x_t)

    monkeypatch.setattr(LatentDDPM, "denoiser", denoiser)
    made = method.painted_latents(z, mask, rng())
    assert not made[mask.expand_as(z)].any()
    assert [int(t) for _, t in seen] == [400, 400, 300, 300, 200, 200, 100, 100]
    for x_t, t in seen:
        noise = method.plan.noise_of(x_t, t, z)[~mask.expand_as(z)]
        assert noise.std().item() == pytest.approx(1, abs=0.1)
        assert abs(noise.mean().item()) < 0.1


def test_what_a_slice_is_painted_to_does_not_depend_on_which_others_are():
    method, z = ready(inpaint_steps=3), torch.randn(3, 3, 16, 24)
    both = torch.zeros(3, 1, 16, 24, dtype=torch.bool)
    both[0, :, 2:9, 3:8] = both[2, :, 3:9, 4:12] = True
    last = both.clone()
    last[0] = False
    after = [rng(), rng()]
    painted = [method.painted_latents(z, mask, r) for mask, r in zip((both, last), after, strict=True)]
    torch.testing.assert_close(painted[0][2], painted[1][2])
    assert not torch.equal(painted[0][0], painted[1][0])
    assert torch.equal(*(torch.rand(1, generator=r) for r in after)), "nor does what comes after it"


def test_unlikely_latents_are_masked_and_only_they_are_painted(monkeypatch):
    method, x = ready(nats=0.05), slices()
    z = method.encoded(x)
    healthy = z.clone()
    healthy[2, :, 6:8, 10:13] += 8
    knowing(method, healthy, monkeypatch)
    brain = everywhere()
    brain[2, 12:14] = False
    painted, weight = method.healed(x, brain, rng())
    cells = torch.nn.functional.avg_pool2d(weight, 2)[:, 0]
    inside = torch.zeros(3, 16, 24, dtype=torch.bool)
    inside[2, 7, 10:13] = True
    assert weight.shape == (3, 1, 32, 48)
    assert weight.min() >= 0
    assert weight.max() <= 1
    assert cells[inside].min() > 0.5, "but not the row without brain"
    assert not cells[:2].any()
    assert not cells[2, :5].any()
    torch.testing.assert_close(painted[:2], method.decoded(z)[:2])
    expected = z.clone()
    expected[2, :, 7, 10:13] += 8
    torch.testing.assert_close(painted, method.decoded(expected), atol=1e-4, rtol=1e-4)


def test_a_perfect_network_masks_nothing(monkeypatch):
    method, x = ready(nats=0.0), slices()
    z = method.encoded(x)
    knowing(method, z, monkeypatch)
    assert not method.unlikely(z, rng()).any()
    painted, weight = method.healed(x, everywhere(), rng())
    assert not weight.any()
    assert torch.equal(painted, method.decoded(z))


def test_times_of_the_divergences(monkeypatch):
    method, z, seen = ready(t_low=300, t_high=400, t_every=50), torch.randn(2, 3, 16, 24), []
    monkeypatch.setattr(
        LatentDDPM, "denoiser", lambda self, z: lambda x_t, t: seen.extend(t.tolist()) or torch.zeros_like(x_t)
    )
    whole = method.unlikely(z, rng())
    assert seen == [300, 300, 350, 350, 400, 400]
    monkeypatch.setattr("anomri.diffuser.MOST", {"cpu": 1})
    torch.testing.assert_close(method.unlikely(z, rng()), whole)


# --- the threshold --------------------------------------------------------------------------------------------------


def test_the_wanted_share_of_healthy_latents_exceeds_the_threshold():
    method = ready()
    healthy = phantoms(3, 4, 5)
    method.data |= {"box": [32, 32]}
    method.settle(healthy, seed=5)
    found = []
    for index, x, brain in method.healthy_parts(healthy):
        found.append(method.unlikely(method.encoded(x), generator(5, "mask", index))[method.cells(brain)])
    for share in (0.025, 0.2):
        method.mask_share = share
        above = [float((nats > method.mask_threshold).float().mean()) for nats in found]
        assert np.mean(above) == pytest.approx(share, abs=2e-3)


def test_the_threshold_is_of_validation_scans_and_anew_of_calibrate():
    fitted = on_cpu(LatentDDPM(**TINY)).fit(phantoms(0, 1), validation=phantoms(2), job=JOB)
    alone = on_cpu(LatentDDPM(**TINY)).fit(phantoms(0, 1), job=JOB)
    curve = fitted.data["healthy"]["nats"]
    assert len(curve) == KEPT
    assert curve != alone.data["healthy"]["nats"]
    before = fitted.mask_threshold
    assert 0 < before < fitted.data["healthy"]["nats"][0]
    assert fitted.calibrate(phantoms(4)).mask_threshold != before


# --- learning -------------------------------------------------------------------------------------------------------


def test_the_loss_is_of_noised_latents():
    method = ready()
    x, brain = slices(), torch.ones(32, 48, dtype=torch.bool)
    drawn = [method.shown(one, brain, (2.0, 2.0), rng(n)) for n, one in enumerate(x)]
    batch = {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}
    assert batch["noise"].shape == (3, 3, 16, 24)
    z = method.encoded(x)
    x_t = method.plan.noised(z, batch["t"], batch["noise"])
    with torch.inference_mode():
        said = method.predicted(method.net, {**batch, "input": x_t})
        off = (said - batch["noise"]).square().mean()
        assert float(method.loss(method.net, batch)) == pytest.approx(float(off), rel=1e-4)
        method.prediction = "x0"
        assert float(method.loss(method.net, batch)) == pytest.approx(float((said - z).abs().mean()), rel=1e-4)
    method.loss(method.net.train(), batch).backward()
    assert all(p.grad is None for p in method.autoencoder.parameters()), "it learns no more"
    assert all(p.grad is not None for p in method.net.parameters())


def test_the_autoencoder_is_trained_first_and_stays_as_it_is(monkeypatch):
    starts = []
    real = LatentDDPM.recipe
    monkeypatch.setattr(LatentDDPM, "recipe", lambda self: starts.append(weights(self)) or real(self))
    method = on_cpu(LatentDDPM(**TINY)).fit(phantoms(0, 1), validation=phantoms(2), job=JOB)
    told = method.data["autoencoder"]
    assert (told["steps"], told["finished"]) == (3, True)
    assert [row["step"] for row in told["log"]] == [row["step"] for row in method.data["log"]] == [1, 2, 3]
    after = weights(method)
    assert {name.split(".")[0] for name in after} == {"net", "autoencoder"}
    assert all(torch.equal(starts[0][k], after[k]) for k in after if k.startswith("autoencoder"))
    assert any(not torch.equal(starts[0][k], after[k]) for k in after if k.startswith("net"))
    # A warm start has an autoencoder already, and its latents.
    again = on_cpu(LatentDDPM(**TINY)).begin_with(method)
    again.fit(phantoms(0, 3), job=Job(device="cpu", precision="float32", warm=True))
    assert again.data["autoencoder"] == {"finished": True}
    assert again.data["latents"] == method.data["latents"]
    assert all(torch.equal(v, weights(again)[k]) for k, v in after.items() if k.startswith("autoencoder"))


def test_the_autoencoder_learns_the_whole_slice():
    """Also what is beside the brain, which latents at its rim hold."""
    few = {**TINY, "autoencoder_steps": 40, "lr": 1e-2, "steps": 1, "batch": 4}
    method = on_cpu(LatentDDPM(**few)).fit(phantoms(0, 1), validation=phantoms(2), job=JOB)
    log = method.data["autoencoder"]["log"]
    assert log[-1]["validation"] < 0.6 * log[0]["validation"]
    _, x, brain = next(method.healthy_parts(phantoms(2)))
    off = (method.decoded(method.encoded(x)) - x).abs()[:, 0]
    assert off[brain].mean() < 0.6
    assert off[~brain].mean() < 0.05


def test_a_training_that_was_stopped_goes_on(tmp_path):
    whole = on_cpu(LatentDDPM(**TINY)).fit(phantoms(0, 1), job=JOB)
    found = []
    for stop in (2, None):
        method = on_cpu(LatentDDPM(**TINY))
        job = Job(device="cpu", precision="float32", every=1, folder=tmp_path, stop_at=stop)
        found.append(method.fit(phantoms(0, 1), job=job))
    assert not found[0].data["finished"]
    assert not found[0].data["autoencoder"]["finished"]
    with pytest.raises(NotFitted, match=r"stopped; go on with it, or call calibrate"):
        found[0].detect(phantom(2))
    found[0].calibrate(phantoms(0, 1))
    assert np.isfinite(found[0].detect(phantom(2)).map).all()
    assert found[1].data["finished"]
    assert all(torch.equal(a, b) for a, b in zip(weights(found[1]).values(), weights(whole).values(), strict=True))
    assert found[1].data["healthy"] == whole.data["healthy"]
    assert (tmp_path / "autoencoder").is_dir()


def test_a_lesion_is_unlikely_after_a_short_training():
    few = {**TINY, "prediction": "x0", "autoencoder_steps": 20, "steps": 40, "lr": 8e-3}
    method = on_cpu(LatentDDPM(**few)).fit(phantoms(0, 1, 2), job=Job(device="cpu", precision="float32"))
    ill, well = phantom(8, lesion=4.0), phantom(8)
    k = int(ill.lesion.sum(axis=(0, 1)).argmax())
    # Of 40 voxels the 32 of the training's box.
    nats = [
        method.unlikely(method.encoded(torch.tensor(scan.image[:, :, 4:36, k])[None]), rng())[0, 0]
        for scan in (ill, well)
    ]
    inside = method.cells(torch.tensor(ill.lesion[None, :, 4:36, k]))[0, 0]
    rest = method.cells(torch.tensor(ill.brain[None, :, 4:36, k]))[0, 0] & ~inside
    assert nats[0][inside].mean() > 5 * nats[1][inside].mean()
    assert nats[0][inside].mean() > 5 * nats[0][rest].mean()
    assert nats[0][inside].mean() > method.mask_threshold


# --- the whole method -----------------------------------------------------------------------------------------------


def test_restored_is_what_is_found():
    method = on_cpu(LatentDDPM(**TINY)).fit(phantoms(0, 1), job=JOB)
    healthy, found = method.restore(phantom(2), rng()), method.find(phantom(2), rng())
    brain = phantom(2).brain
    assert healthy.shape == (1, *phantom(2).image.shape)
    assert np.array_equal(healthy[0][:, brain], found.healthy[:, brain])
    off = np.abs(phantom(2).image - healthy[0])[0]
    assert np.all(found.map[brain] <= off[brain] + 1e-6)
    assert 0 < (found.map[brain] > 0).mean() < 0.5, "where the mask is alone"


def test_volumes_too():
    method = on_cpu(LatentDDPM(**{**TINY, "dims": 3, "batch": 1})).fit(phantoms(0, 1), job=JOB)
    found = method.detect(phantom(3))
    assert found.map.shape == phantom(3).grid.shape
    assert found.map[phantom(3).brain].max() > 0


def test_golden():
    method = ready(nats=0.026)
    for net in (method.net, method.autoencoder):
        for n, (name, p) in enumerate(net.named_parameters()):
            wave = torch.sin(torch.arange(p.numel()) * (0.7 + 0.01 * n)).reshape(p.shape)
            p.data = wave * p[0].numel() ** -0.5 if p.ndim > 1 else 0.1 * wave + name.endswith("weight")
        for part in net.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.reset_running_stats()
    x = slices()
    nats = method.unlikely(method.encoded(x), rng())
    made, weight = method.healed(x, everywhere(), rng())
    found = (nats.mean().item(), nats[1, 0, 5, 9].item(), weight.mean().item(), made.mean().item(), made.std().item())
    assert found == pytest.approx((0.020886, 0.029449, 0.29427, 1.0182, 3.8614), rel=1e-3)


def test_what_says_nothing_of_the_weights():
    assert set(LatentDDPM().learning) == {
        "dims", "size", "width", "factor", "latent", "autoencoder_width", "beta", "schedule", "prediction", "augmented",
        "autoencoder_steps", "steps", "batch", "lr", "final",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"factor": 6}, "factor is 6, needs to be a power of 2"),
        ({"factor": 1}, "factor is 1, needs to be a power of 2"),
        ({"latent": 0}, "latent is 0, autoencoder_width 64; each is at least 1"),
        ({"beta": -1.0}, "beta is -1, a weight of 0 or more"),
        ({"mask_share": 0.0}, "mask_share is 0, needs to be between 0 and 1"),
        ({"t_every": 0}, "t_every is 0, resamples 1; each is at least 1"),
        ({"resamples": 0}, "t_every is 1, resamples 0; each is at least 1"),
        ({"t_low": 1}, "t = 1 to 600; give times from 2 to 1000"),
        ({"t_low": 601}, "t = 601 to 600; give times from 2 to 1000, rising"),
        ({"t_high": 1001}, "t = 400 to 1001"),
        ({"t_test": 0}, "t_test is 0, needs to be times from 1 to 1000"),
        ({"t_test": (100, 200)}, "painted from one time; give one"),
        ({"inpaint_steps": 501}, "501 steps from t = 500 to 0"),
        ({"size": "huge"}, "unknown size 'huge'"),
        ({"prediction": "v"}, "unknown prediction 'v'; known: noise, x0"),
        ({"score": "mhd_diag"}, "needs several reconstructions"),
    ],
)
def test_what_cannot_be_asked_for(arguments, words):
    with pytest.raises(BadCall, match=words):
        LatentDDPM(**arguments)
