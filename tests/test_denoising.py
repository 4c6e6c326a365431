"""The denoising autoencoder's UNet: its layers, its shapes, and an engine that computes the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from anomri.errors import BadCall, BadInput
from anomri.nets.denoising import DenoisingUNet, Standardised, _block
from anomri.nets.engine import engine
from networks import CPU, count, overfit, same, trained

pytestmark = pytest.mark.usefixtures("seeded")

SHAPES = {2: (24, 32), 3: (8, 24, 16)}


def test_channels_by_level_are_the_published_ones():
    net = DenoisingUNet(2, 4, 4)
    assert [block[1].out_channels for block in net.down] == [64, 128, 256, 512]
    assert [block[1].in_channels for block in net.up] == [512, 256, 128]
    assert count(net) == 7_703_748


@settings(max_examples=8)
@given(st.sampled_from([2, 3]), st.permutations((1, 2, 3)), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3))
def test_output_lies_on_the_input_grid(axes, edges, depth, c_in, c_out):
    shape = [2**depth * n for n in edges[:axes]]
    with torch.inference_mode():
        y = DenoisingUNet(axes, c_in, c_out, width=2, depth=depth)(torch.zeros(2, c_in, *shape))
    assert y.shape == (2, c_out, *shape)


@settings(max_examples=15)
@given(
    st.sampled_from([(5, 3, 3, 3), (2, 4, 3, 3, 3), (1, 7, 3, 3)]),
    st.floats(0.1, 10),
    st.floats(-3, 3),
    st.integers(0, 2**31),
)
def test_standardised_weights_forget_their_scale_and_mean(shape, scale, mean, seed):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    made = Standardised()(weight)
    rows = made.flatten(1)
    zero = torch.zeros(shape[0], dtype=torch.double)
    torch.testing.assert_close(rows.mean(dim=1), zero)
    torch.testing.assert_close(rows.square().sum(dim=1), zero + 1, atol=1e-4, rtol=0)
    torch.testing.assert_close(Standardised()(scale * weight + mean), made, atol=1e-3, rtol=0)


@pytest.mark.parametrize("axes", SHAPES)
def test_convolutions_are_standardised_and_keep_the_size_of_what_flows(axes):
    block = _block(axes, 6, 8)
    x = torch.randn(2, 6, *SHAPES[axes])
    y = block[1](block[0](x))
    assert y.shape[2:] == x.shape[2:]
    assert 0.7 < float(y.detach().std()) < 1.4
    with torch.no_grad():
        block[1].parametrizations.weight.original.mul_(3).add_(1)
    torch.testing.assert_close(block[1](block[0](x)), y, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("axes", SHAPES)
def test_borders_are_reflected(axes):
    """What is constant stays constant up to the border; zeros around it would show."""
    block = _block(axes, 1, 4)
    y = block[:2](torch.full((1, 1, *SHAPES[axes]), 3.0))
    assert float((y.detach().flatten(2).max(dim=2).values - y.detach().flatten(2).min(dim=2).values).max()) < 1e-5
    conv, x = block[1], torch.randn(1, 1, *SHAPES[axes])
    padded = nn.functional.pad(x, (1,) * (2 * axes), mode="reflect")
    convolve = nn.functional.conv2d if axes == 2 else nn.functional.conv3d
    torch.testing.assert_close(
        block[:2](x), convolve(padded, Standardised()(conv.parametrizations.weight.original), conv.bias)
    )


@pytest.mark.parametrize("axes", SHAPES)
def test_every_skip_counts(axes):
    net = trained(DenoisingUNet(axes, 1, 2, width=4))
    x = torch.randn(1, 1, *(2 * n for n in SHAPES[axes]))
    with torch.inference_mode():
        whole = net(x)
        for block in net.up:

            def without(_: nn.Module, args: tuple[Tensor]) -> Tensor:
                y = args[0].clone()
                y[:, y.shape[1] // 2 :] = 0
                return y

            hook = block.register_forward_pre_hook(without)
            assert not torch.allclose(net(x), whole, atol=1e-3)
            hook.remove()


@pytest.mark.parametrize("axes", SHAPES)
def test_engine_computes_what_the_network_does(axes):
    x = torch.randn(2, 2, *(2 * n for n in SHAPES[axes]))
    same(trained(DenoisingUNet(axes, 2, 1, width=4)), x)


def test_engine_in_bfloat16_is_near():
    same(trained(DenoisingUNet(2, 2, 1, width=32)), torch.randn(2, 2, 32, 48), 0.05, torch.bfloat16)


@pytest.mark.parametrize("axes", SHAPES)
def test_openvino_runs_it_on_any_grid(axes):
    pytest.importorskip("openvino", reason="OpenVINO is an extra: pip install 'anomri[openvino]'")
    net, x = trained(DenoisingUNet(axes, 2, 1, width=4, depth=3)), torch.randn(2, 2, *SHAPES[axes])
    with torch.inference_mode():
        torch.testing.assert_close(engine(net, CPU, torch.float32, "openvino")(x), net(x), atol=1e-4, rtol=1e-4)


def test_engine_standardises_weights_once():
    """What it convolves by are the standardised weights, and it follows when the raw ones change."""
    net = DenoisingUNet(2, 1, 5, width=4, depth=2)
    x = torch.randn(1, 1, 4, 6)
    before = engine(net, CPU, torch.float32)(x)
    with torch.no_grad():
        net.down[0][1].parametrizations.weight.original.normal_()
    assert not torch.allclose(engine(net, CPU, torch.float32)(x), before, atol=1e-3)
    same(net.eval(), x)


@pytest.mark.parametrize("axes", SHAPES)
def test_weights_are_loaded_as_they_were_saved(axes):
    net, other = (DenoisingUNet(axes, 1, 1, width=2, depth=3) for _ in range(2))
    x = torch.randn(1, 1, *SHAPES[axes])
    with torch.inference_mode():
        assert not torch.equal(net(x), other(x))
        other.load_state_dict(net.state_dict())
        assert torch.equal(net(x), other(x))


@pytest.mark.parametrize("axes", SHAPES)
def test_it_overfits(axes):
    net = DenoisingUNet(axes, 1, 1, width=8, depth=2)
    shape = (1, 1, 4, 8, 6)[: axes + 2]
    assert overfit(net, torch.randn(shape), torch.randn(shape)) < 0.1


def test_it_says_what_does_not_fit():
    with pytest.raises(BadCall, match="4 axes; 2 are slices, 3 are volumes"):
        DenoisingUNet(4, 1, 1)
    with pytest.raises(BadInput, match=r"grid \(16, 20\).*multiples of 8"):
        DenoisingUNet(2, 1, 1, width=2)(torch.zeros(1, 1, 16, 20))
