"""Diffusion: what noise is added, how it is taken away, and the network that does it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomri.errors import BadCall, BadInput
from anomri.nets.attention_unet import Attention, ResidualBlock
from anomri.nets.diffusion import SAMPLERS, SCHEDULES, T, path, reverse, schedule, surprise, time_features
from anomri.nets.diffusion_unet import SIZES, DiffusionUNet, conditions
from networks import CPU, count, trained

pytestmark = pytest.mark.usefixtures("seeded")
SHAPES = [(3, 2, 12, 8), (2, 1, 8, 16, 24)]
both = pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
each_schedule = pytest.mark.parametrize("name", SCHEDULES)


def times(t: int, n: int) -> torch.Tensor:
    return torch.full((n,), t)


def seeded_noise(seed: int = 0):
    rng = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=rng)


# --- schedules and the forward process ------------------------------------------------------------------------------


def test_what_is_left_is_counted_in_double_precision_on_the_cpu():
    """Not every device has it; what is made of an image stays on the image's."""
    plan, x, t = schedule(), torch.empty(2, 1, 4, 6, device="meta"), torch.tensor([3, 900])
    assert (plan.at(t, x).device.type, plan.at(t, x).dtype) == ("cpu", torch.float64)
    for made in (plan.noised(x, t, x), plan.clean_of(x, t, x), plan.later(x, t, t, x), plan.earlier(x, t, t - 1, x, x)):
        assert (made.device.type, made.dtype, made.shape) == ("meta", torch.float32, x.shape)


def test_golden_schedules():
    """By a loop over the definitions, in double precision."""
    left, linear = 1.0, [1.0]
    for n in range(1000):
        left *= 1 - (1e-4 + (2e-2 - 1e-4) * n / 999)
        linear.append(left)
    np.testing.assert_allclose(schedule("linear").kept, linear, rtol=1e-10)
    curve = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    np.testing.assert_allclose(schedule("cosine").kept[:999], [c / curve[0] for c in curve[:999]], rtol=1e-10)
    assert schedule("cosine").kept[1000] == pytest.approx(0.001 * schedule("cosine").kept[999])
    golden = {"linear": (0.52409, 0.07859, 4.036e-05), "cosine": (0.84701, 0.49384, 2.429e-09)}
    for name, (at250, at500, at1000) in golden.items():
        kept = schedule(name).kept
        assert (kept[250], kept[500]) == pytest.approx((at250, at500), rel=1e-4)
        assert kept[1000] == pytest.approx(at1000, rel=1e-3)


@each_schedule
@pytest.mark.parametrize("n", [10, 50, T])
def test_less_and_less_is_left(name, n):
    kept = schedule(name, n).kept
    assert len(kept) == n + 1
    assert kept[0] == 1
    assert all(a > b > 0 for a, b in itertools.pairwise(kept))
    assert kept[-1] < 0.005


@each_schedule
@pytest.mark.parametrize("t", [1, 250, 999])
def test_the_forward_process_has_the_stated_mean_and_variance(name, t):
    x0 = torch.linspace(-1, 1, 12).reshape(1, 1, 4, 3)
    many = schedule(name).noised(x0.expand(20_000, -1, -1, -1), times(t, 20_000), seeded_noise()((20_000, 1, 4, 3)))
    a = schedule(name).kept[t]
    torch.testing.assert_close(many.mean(dim=0, keepdim=True), math.sqrt(a) * x0, atol=0.03, rtol=0)
    torch.testing.assert_close(many.var(dim=0), torch.full((1, 4, 3), 1 - a), atol=0.04 * (1 - a), rtol=0)


@both
@each_schedule
@given(seed=st.integers(0, 10**6), data=st.data())
@settings(max_examples=15)
def test_noise_and_image_are_each_found_from_the_other(shape, name, seed, data):
    draw, plan = seeded_noise(seed), schedule(name)
    t = torch.tensor(data.draw(st.lists(st.integers(1, 900), min_size=shape[0], max_size=shape[0])))
    x0, noise = draw(shape), draw(shape)
    x_t = plan.noised(x0, t, noise)
    torch.testing.assert_close(plan.clean_of(x_t, t, noise), x0, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(plan.noise_of(x_t, t, x0), noise, atol=1e-3, rtol=1e-3)
    for n, one in enumerate(t):
        alone = plan.noised(x0[n : n + 1], one[None], noise[n : n + 1])
        assert torch.equal(alone[0], x_t[n]), "each image has its own time"
    assert torch.equal(plan.noised(x0, times(0, len(x0)), noise), x0)


def test_times_and_schedules_that_are_none():
    with pytest.raises(BadCall, match="unknown schedule 'sine'; known: cosine, linear"):
        schedule("sine")
    with pytest.raises(BadCall, match="a schedule of 0 times"):
        schedule("linear", 0)
    x = torch.zeros(2, 1, 4, 4)
    for t in (torch.tensor([1]), torch.tensor([-1, 3]), torch.tensor([3, 1001])):
        with pytest.raises(BadCall, match="for 2 images; give one each, from 0 to 1000"):
            schedule().noised(x, t, x)


# --- the way back ---------------------------------------------------------------------------------------------------


def test_paths():
    assert path("one_step", [500, 7]).tolist() == [[500, 7], [0, 0]]
    assert path("ddpm", [3, 1]).tolist() == [[3, 1], [2, 1], [1, 1], [0, 0]]
    assert path("ddim", [500, 250], 5)[:, 0].tolist() == [500, 400, 300, 200, 100, 0]
    assert path("ddim", [500, 250], 5)[:, 1].tolist() == [250, 200, 150, 100, 50, 0]
    assert path("ddim", [7], 7)[:, 0].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    for wrong, words in (
        (("leap", [5]), "unknown sampler 'leap'; known: ddim, ddpm, one_step"),
        (("one_step", []), "t = none"),
        (("ddpm", [0, 4]), "t = 0, 4; give 1 or more"),
        (("ddim", [9, 5], 6), "6 steps from t = 5 to 0; give 1 to 5"),
    ):
        with pytest.raises(BadCall, match=words):
            path(*wrong)


@both
@each_schedule
def test_all_ways_agree_for_a_perfect_denoiser(shape, name):
    plan, draw = schedule(name), seeded_noise()
    x0, t = draw(shape), [60 + n for n in range(shape[0])]
    x_t = plan.noised(x0, torch.tensor(t), draw(shape))
    for sampler in SAMPLERS:
        for new in (None, lambda: draw(shape)):
            assert torch.equal(reverse(plan, lambda *_: x0, x_t, path(sampler, t, 10), new), x0)


def test_an_ancestral_step_is_a_draw_of_the_posterior():
    """Its mean and variance by Ho et al. 2020, equations 6 and 7."""
    plan, t = schedule("linear", 100), 40
    a, b = plan.kept[t], plan.kept[t - 1]
    beta = 1 - a / b
    x0, x_t = torch.tensor([[[[0.3]]]]), torch.tensor([[[[-0.8]]]])
    n = 200_000
    drawn = plan.earlier(
        x_t.expand(n, 1, 1, 1), times(t, n), times(t - 1, n), x0.expand(n, 1, 1, 1), seeded_noise()((n, 1, 1, 1))
    )
    mean = math.sqrt(b) * beta / (1 - a) * 0.3 + math.sqrt(1 - beta) * (1 - b) / (1 - a) * -0.8
    assert float(drawn.mean()) == pytest.approx(mean, abs=2e-3)
    assert float(drawn.var()) == pytest.approx((1 - b) / (1 - a) * beta, rel=0.02)


def test_a_ddim_keeps_the_noise_that_it_sees():
    """Without new noise each image on the way is the same mixture of image and noise."""
    plan, draw = schedule("cosine"), seeded_noise()
    x0, noise = draw((2, 1, 4, 6)), draw((2, 1, 4, 6))
    x_t = plan.noised(x0, torch.tensor([600, 300]), noise)
    on_the_way = plan.earlier(x_t, torch.tensor([600, 300]), torch.tensor([200, 300]), x0)
    torch.testing.assert_close(on_the_way, plan.noised(x0, torch.tensor([200, 300]), noise), atol=1e-5, rtol=1e-5)


def test_the_way_back_from_gaussian_data_has_their_spread():
    """Of N(0, 0.5^2) the best denoiser is known: an ancestral walk from pure noise ends with that spread."""
    plan, rng = schedule("linear"), torch.Generator().manual_seed(3)
    seen = []

    def denoise(x_t, t):
        seen.append(int(t[0]))
        a = plan.at(t, x_t).float()
        return 0.25 * a.sqrt() / (0.25 * a + 1 - a) * x_t

    def draw():
        return torch.randn(8_000, 1, 1, 1, generator=rng)

    made = reverse(plan, denoise, draw(), path("ddpm", [1000] * 8_000), draw)
    assert seen == list(range(1000, 0, -1))
    assert float(made.std()) == pytest.approx(0.5, rel=0.03)
    assert abs(float(made.mean())) < 0.02


# --- the network ----------------------------------------------------------------------------------------------------


# --- how likely an image is ------------------------------------------------------------------------------------------


@both
@each_schedule
def test_a_divergence_is_that_of_the_two_gaussians_of_a_step(shape, name):
    """By the posterior as Ho et al. write it (equations 6 and 7), and torch's own divergence of Gaussians."""
    plan, draw = schedule(name), seeded_noise()
    x0, said, x_t = draw(shape), draw(shape), draw(shape)
    t = torch.tensor([2, 450, 999])[: shape[0]]
    expected = []
    for n, at in enumerate(t.tolist()):
        a, b = plan.kept[at], plan.kept[at - 1]
        beta = 1 - a / b
        q, p = (b**0.5 * beta / (1 - a) * x + (a / b) ** 0.5 * (1 - b) / (1 - a) * x_t[n] for x in (x0[n], said[n]))
        sd = torch.tensor(((1 - b) / (1 - a) * beta) ** 0.5)
        normal = torch.distributions.Normal
        expected.append(torch.distributions.kl_divergence(normal(q, sd), normal(p, sd)))
    torch.testing.assert_close(plan.divergence(x0, t, said), torch.stack(expected), rtol=1e-3, atol=1e-6)


def test_a_divergence_golden():
    """Of an error of 2 at t = 500 and 600: half the fall of the signal-to-noise ratio, times 4."""
    plan, zero = schedule(), torch.zeros(2, 1, 1, 1)
    found = plan.divergence(zero, torch.tensor([500, 600]), zero + 2).flatten().tolist()
    ratio = [a / (1 - a) for a in plan.kept[1:601]]
    assert found == pytest.approx([2 * (ratio[498] - ratio[499]), 2 * (ratio[598] - ratio[599])], rel=1e-5)
    assert found == pytest.approx([0.00187918, 0.00066450], rel=1e-4)


def test_an_image_is_unlikely_where_the_network_is_wrong_and_nowhere_else():
    plan, draw, x = schedule(), seeded_noise(), torch.randn(2, 3, 6, 8)
    at = [400, 450, 600]
    assert not surprise(plan, lambda x_t, t: x.repeat(len(t) // 2, 1, 1, 1), x, at, lambda: draw(x.shape)).any()

    def wrong(x_t, t):
        said = x.repeat(len(t) // 2, 1, 1, 1).clone()
        said[1::2, :2, 4, 5] += 3
        return said

    found = surprise(plan, wrong, x, at, lambda: draw(x.shape))
    assert found.shape == (2, 1, 6, 8)
    weight = np.mean([(plan.kept[t - 1] / (1 - plan.kept[t - 1]) - plan.kept[t] / (1 - plan.kept[t])) / 2 for t in at])
    assert found[1, 0, 4, 5].item() == pytest.approx(2 * 9 * weight, rel=1e-4), (
        "summed over channels, the mean over times"
    )
    found[1, 0, 4, 5] = 0
    assert not found.any()


def test_steps_have_noise_of_their_own_however_many_are_asked_at_once():
    plan, x, seen = schedule(), torch.randn(2, 1, 4, 6), []

    def denoise(x_t, t):
        seen.append((x_t.clone(), t.tolist()))
        return 0.5 * x_t

    made = []
    for at_once in (1, 2, 9):
        draw = seeded_noise(3)
        made.append(surprise(plan, denoise, x, range(400, 601, 50), lambda draw=draw: draw(x.shape), at_once))
    assert made[0].min() > 0
    torch.testing.assert_close(made[1], made[0])
    torch.testing.assert_close(made[2], made[0])
    assert [len(t) // 2 for _, t in seen] == [1] * 5 + [2, 2, 1] + [5]
    whole, t = seen[-1]
    assert t == [at for at in range(400, 601, 50) for _ in range(2)]
    noise = plan.noise_of(whole, torch.tensor(t), x.repeat(5, 1, 1, 1))
    assert noise.std().item() == pytest.approx(1, abs=0.15)
    assert len({round(float(one.sum()), 4) for one in noise}) == 10


def test_likelihoods_that_cannot_be_asked_for():
    plan, x = schedule(), torch.zeros(1, 1, 2, 2)
    with pytest.raises(BadCall, match=r"divergences at times \[1\]; give times from 2 to 1000"):
        plan.divergence(x, torch.tensor([1]), x)
    with pytest.raises(BadCall, match="divergences at 0 times"):
        surprise(plan, lambda x_t, t: x_t, x, [], lambda: x)


def test_time_features_golden():
    found = time_features(torch.tensor([0, 500]), 6)
    assert found.dtype == torch.float32
    rates = [1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)]
    expected = [math.cos(500 * r) for r in rates] + [math.sin(500 * r) for r in rates]
    assert found[0].tolist() == [1, 1, 1, 0, 0, 0]
    assert found[1].tolist() == pytest.approx(expected, abs=1e-4)
    with pytest.raises(BadCall, match="of 5 numbers; give an even number"):
        time_features(torch.tensor([1]), 5)


def test_sizes_of_the_papers():
    with torch.device("meta"):
        nets = {size: DiffusionUNet(2, 1, 1, size) for size in SIZES}
        conditioned = DiffusionUNet(2, 1, 1, "cddpm", context=128)
    channels = {size: [w * net.width for w in SIZES[size].multiples] for size, net in nets.items()}
    assert channels["pddpm"] == [128, 128, 256]
    assert channels["cddpm"] == [128, 256, 256]
    assert count(nets["cddpm"]) == pytest.approx(37.5e6, rel=0.002), "as published in code"
    assert count(nets["small"]) < 4e6
    assert conditioned.vector == 256
    assert all(b.turn[1].in_features == 256 for b in conditioned.modules() if isinstance(b, ResidualBlock))
    attentions = {size: sum(isinstance(part, Attention) for part in net.modules()) for size, net in nets.items()}
    # Of AutoDDPM, a block down and two up in each of two levels, and the middle.
    assert attentions == {"small": 1, "pddpm": 1, "cddpm": 1, "autoddpm": 7}


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("context", [0, 6])
def test_time_and_context_change_what_it_says_of_that_image_alone(axes, context):
    net = trained(DiffusionUNet(axes, 2, 1, "small", 4, context))
    x = torch.randn(2, 2, *(16, 8, 24)[:axes])
    c = torch.randn(2, context) if context else None
    with torch.inference_mode():
        y = net(x, conditions(torch.tensor([300, 300]), 4, c))
        assert y.shape == (2, 1, *x.shape[2:])
        later = net(x, conditions(torch.tensor([300, 700]), 4, c))
        torch.testing.assert_close(later[0], y[0])
        assert (later[1] - y[1]).abs().mean() > 0.01 * y[1].abs().mean()
        if c is not None:
            other = net(x, conditions(torch.tensor([300, 300]), 4, torch.stack([c[0], -c[1]])))
            torch.testing.assert_close(other[0], y[0])
            assert (other[1] - y[1]).abs().mean() > 0.01 * y[1].abs().mean()


@pytest.mark.parametrize("axes", [2, 3])
def test_an_untrained_network_says_nothing(axes):
    net = DiffusionUNet(axes, 1, 2, "small", 4).eval()
    assert net(torch.randn(1, 1, *(16, 8, 24)[:axes]), conditions(torch.tensor([5]), 4)).abs().max() == 0


@pytest.mark.parametrize("axes", [2, 3])
def test_an_engine_takes_times_and_contexts(axes):
    from anomri.nets.engine import engine

    net = trained(DiffusionUNet(axes, 1, 1, "small", 8, context=5))
    x, v = torch.randn(3, 1, *(24, 16, 8)[:axes]), conditions(torch.tensor([1, 500, 999]), 8, torch.randn(3, 5))
    with torch.inference_mode():
        slow = net(x, v)
    for dtype, off in ((torch.float32, 1e-4), (torch.bfloat16, 0.03)):
        fast = engine(net, CPU, dtype)(x, v)
        assert fast.dtype == torch.float32
        assert (fast - slow).abs().mean() < off * slow.abs().mean()
    assert not torch.allclose(engine(net, CPU, torch.float32)(x, v.flip(0)), slow, atol=1e-3)


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_openvino_takes_times_and_contexts_of_shapes_old_and_new(dtype, off):
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    from anomri.nets.engine import SHAPES, engine

    net = trained(DiffusionUNet(2, 1, 1, "small", 8, context=5))
    run = engine(net, torch.device("cpu"), dtype, "openvino")
    shapes = [(3, 24, 16), (1, 16, 40), (2, 24, 16), (3, 16, 16), (1, 40, 40), (5, 48, 32)]
    assert len(shapes) > SHAPES
    for batch, *edges in [*shapes, *shapes, *shapes[::-1]]:
        x, v = torch.randn(batch, 1, *edges), conditions(torch.full((batch,), 500), 8, torch.randn(batch, 5))
        with torch.inference_mode():
            slow = net(x, v)
        for _ in range(3):
            assert (run(x, v) - slow).abs().mean() < off * slow.abs().mean()


def test_networks_that_cannot_be():
    for wrong, words in (
        ((2, 1, 1, "tiny"), "unknown size 'tiny'; known: autoddpm, cddpm, pddpm, small"),
        ((2, 1, 1, "small", 5), "width 5; give an even number"),
        ((1, 1, 1, "small"), "a network of 1 axes"),
    ):
        with pytest.raises(BadCall, match=words):
            DiffusionUNet(*wrong)
    net = DiffusionUNet(2, 1, 1, "small", 4)
    with pytest.raises(BadInput, match="multiples of 8"):
        net(torch.zeros(1, 1, 12, 16), conditions(torch.tensor([1]), 4))
