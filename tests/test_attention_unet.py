"""The UNet with attention: the published sizes, what its parts compute, and an engine that computes the same."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from anomri.errors import BadCall, BadInput
from anomri.nets.attention_unet import NORMS, Attention, AttentionUNet, ResidualBlock, divisible
from anomri.nets.engine import channels_last, engine
from networks import CPU, count, overfit, same, trained

pytestmark = pytest.mark.usefixtures("seeded")

PDDPM = {"c_in": 1, "c_out": 1, "width": 128, "multiples": (1, 2, 2), "blocks": 3, "dropout": 0.0}
PDDPM |= {"attention": (), "norm": "group", "head": 64}


def test_published_number_of_parameters():
    assert count(AttentionUNet()) == 5_919_041
    assert count(AttentionUNet()) == pytest.approx(6.60e6 - 0.68e6, rel=0.02), (
        "the published one, without its time embedding"
    )
    assert sum(isinstance(part, Attention) for part in AttentionUNet().modules()) == 16


def test_number_of_parameters_of_the_diffusion_models():
    """Theirs count what makes the embedding, too: a perceptron of the time, and in cDDPM one of the image."""
    time = nn.Sequential(nn.Linear(128, 512), nn.Linear(512, 512))
    image = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 512))
    with torch.device("meta"):
        plain, conditioned = AttentionUNet(**PDDPM, embedding=512), AttentionUNet(**PDDPM, embedding=1024)
    assert count(plain) + count(time) == pytest.approx(37.5e6, rel=0.001)
    assert count(conditioned) + count(time) + count(image) == pytest.approx(44.07e6, rel=0.001)
    assert [part.heads for part in plain.modules() if isinstance(part, Attention)] == [4], "in the middle alone"


@settings(max_examples=8)
@given(st.permutations((1, 2, 3)), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.sampled_from([*NORMS]))
def test_output_lies_on_the_input_grid(edges, batch, c_in, c_out, norm):
    shape = [16 * n for n in edges[:2]]
    net = trained(AttentionUNet(c_in, c_out, width=2, norm=norm))
    with torch.inference_mode():
        assert net(torch.zeros(batch, c_in, *shape)).shape == (batch, c_out, *shape)


@pytest.mark.parametrize("embedding", [None, 5])
def test_an_untrained_network_gives_zero(embedding):
    net = AttentionUNet(2, 1, width=4, embedding=embedding).eval()
    y = net(torch.randn(1, 2, 16, 48), None if embedding is None else torch.randn(1, embedding))
    assert y.abs().max() == 0
    blocks = [part for part in net.modules() if isinstance(part, ResidualBlock)]
    assert all(block.last[-1].weight.abs().max() == 0 for block in blocks)


def test_grids_where_there_is_attention():
    net = trained(AttentionUNet(1, 1, width=4))
    seen = []
    for part in net.modules():
        if isinstance(part, Attention):
            part.register_forward_hook(lambda _, x, __: seen.append(tuple(x[0].shape[2:])))
    with torch.inference_mode():
        net(torch.zeros(1, 1, 32, 64))
    down, middle, up = (
        [(8, 16)] * 2 + [(4, 8)] * 2 + [(2, 4)] * 2,
        [(2, 4)],
        [(2, 4)] * 3 + [(4, 8)] * 3 + [(8, 16)] * 3,
    )
    assert seen == down + middle + up


def test_every_skip_counts():
    net = trained(AttentionUNet(1, 1, width=4, multiples=(1, 2), blocks=1, attention=()))
    x = torch.randn(1, 1, 8, 12)
    with torch.inference_mode():
        whole = net(x)
        assert net.joins == [True, True, False, True, True]
        for block, joins, skip in zip(net.up, net.joins, (8, 4, 0, 4, 4), strict=True):

            def without(
                _: nn.Module, args: tuple[Tensor, Tensor | None], skip: int = skip
            ) -> tuple[Tensor, Tensor | None]:
                y = args[0].clone()
                y[:, -skip:] = 0
                return y, args[1]

            if joins:
                hook = block.register_forward_pre_hook(without)
                assert not torch.allclose(net(x), whole, atol=1e-4)
                hook.remove()


@pytest.mark.parametrize("resample", ["down", "up", None])
def test_the_way_round_a_block_is_resampled_too(resample):
    """Before training a block gives its input: means of 2 x 2, or each voxel 4 times."""
    x = torch.randn(2, 3, 4, 6)
    y = ResidualBlock(3, 3, 0.0, "batch", resample=resample).eval()(x)
    if resample == "down":
        expected = x.reshape(2, 3, 2, 2, 3, 2).mean(dim=(3, 5))
    else:
        expected = x if resample is None else x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(y, expected)


@settings(max_examples=10)
@given(st.sampled_from([None, 2, 3, 6]), st.integers(0, 2**31))
def test_attention_is_the_mean_that_similarity_weighs(head, seed):
    torch.manual_seed(seed)
    layer = trained(Attention(6, head, "batch")).double()
    x = torch.randn(2, 6, 2, 3, dtype=torch.double)
    size = head or 6
    with torch.inference_mode():
        asked, found = layer.ask(x).flatten(2), torch.zeros(2, 6, 6, dtype=torch.double)
        for b in range(2):
            for first in range(0, 6, size):
                own = slice(first, first + size)
                q, k, v = (asked[b, 6 * n : 6 * n + 6][own] for n in range(3))
                for place in range(6):
                    weights = torch.tensor([math.exp(float(q[:, place] @ k[:, at]) / size**0.5) for at in range(6)])
                    found[b, own, place] = (v * weights).sum(dim=1) / weights.sum()
        expected = x + layer.last(found.reshape(2, 6, 2, 3))
        torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-6)


def test_what_flows_stays_channels_last():
    net = channels_last(trained(AttentionUNet(2, 1, width=4)))
    strides = []
    for part in net.modules():
        if isinstance(part, ResidualBlock | Attention):
            part.register_forward_hook(
                lambda _, __, y: strides.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    with torch.inference_mode():
        net(torch.randn(2, 2, 32, 48).contiguous(memory_format=torch.channels_last))
    assert len(strides) == 51
    assert all(strides)


@pytest.mark.parametrize("norm", NORMS)
def test_a_vector_scales_and_shifts_after_the_second_norm(norm):
    block = trained(ResidualBlock(4, 6, 0.0, norm, embedding=3))
    x, e = torch.randn(2, 4, 5, 7), torch.randn(2, 3)
    scale, shift = block.turn[1](nn.functional.silu(e)).split(6, dim=1)
    expected = block.short(x) + block.last(block.first(x) * (1 + scale[..., None, None]) + shift[..., None, None])
    torch.testing.assert_close(block(x, e), expected)
    nn.init.zeros_(block.turn[1].weight)
    nn.init.zeros_(block.turn[1].bias)
    block_without = ResidualBlock(4, 6, 0.0, norm).eval()
    block_without.load_state_dict({k: v for k, v in block.state_dict().items() if not k.startswith("turn")})
    torch.testing.assert_close(block(x, e), block_without(x))


def test_each_image_is_conditioned_by_its_own_vector():
    net = trained(AttentionUNet(1, 1, width=4, multiples=(1, 2), attention=(), norm="group", embedding=3))
    x, e = torch.randn(2, 1, 4, 6), torch.randn(2, 3)
    with torch.inference_mode():
        both = net(x, e)
        torch.testing.assert_close(net(x[1:], e[1:]), both[1:], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(net(x, e.flip(0)), both, atol=1e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_engine_computes_what_the_network_does(norm):
    x = torch.randn(2, 2, 32, 48)
    same(trained(AttentionUNet(2, 1, width=8, norm=norm), x), x)


def test_engine_in_bfloat16_is_near():
    x = torch.randn(2, 2, 32, 48)
    same(trained(AttentionUNet(2, 1, width=16), x), x, 0.03, torch.bfloat16)


def test_openvino_runs_it_on_any_grid():
    pytest.importorskip("openvino", reason="OpenVINO is an extra: pip install 'anomri[openvino]'")
    x = torch.randn(2, 2, 16, 48)
    net = trained(AttentionUNet(2, 1, width=4), x)
    with torch.inference_mode():
        torch.testing.assert_close(engine(net, CPU, torch.float32, "openvino")(x), net(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_it_overfits(norm):
    net = AttentionUNet(1, 1, width=4, multiples=(1, 2), blocks=1, dropout=0.0, attention=(2,), norm=norm)
    assert overfit(net, torch.randn(2, 1, 8, 12), torch.randn(2, 1, 8, 12)) < 0.1


def test_it_says_what_does_not_fit():
    net = AttentionUNet(1, 1, width=2)
    with pytest.raises(BadInput, match=r"16 voxels are one.*grid \(32, 24\).*multiples of 16"):
        net(torch.zeros(1, 1, 32, 24))
    with pytest.raises(BadCall, match=r"takes none.*\(1, 4\) was given"):
        net(torch.zeros(1, 1, 16, 32), torch.zeros(1, 4))
    with pytest.raises(BadCall, match=r"takes vectors of 4.*none was given"):
        AttentionUNet(1, 1, width=2, embedding=4)(torch.zeros(1, 1, 16, 32))
    with pytest.raises(BadCall, match=r"unknown norm 'layer'; known: batch, group"):
        AttentionUNet(norm="layer")
    with pytest.raises(BadCall, match=r"heads of 5 channels do not divide the 4 "):
        AttentionUNet(width=2, head=5)
    with pytest.raises(BadCall, match=r"attention \(32, 16, 8\).*1 to 16 times coarser"):
        AttentionUNet(width=2, attention=(32, 16, 8))
    divisible(torch.zeros(1, 1, 4, 6, 8), 2)
    with pytest.raises(BadInput, match=r"\(4, 6, 9\)"):
        divisible(torch.zeros(1, 1, 4, 6, 9), 2)
