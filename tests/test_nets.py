"""Networks: the published sizes, the shape of what flows through them, and an engine that computes the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from anomri.errors import BadCall, BadInput
from anomri.nets import engine as engines
from anomri.nets import fused
from anomri.nets.engine import ENGINES, channels_last, engine, fold, pick_engine
from anomri.nets.fused import FusedConv, SlabConv, UpByPlaces, UpInPieces
from anomri.nets.layers import Dropout, MeanPool3d, PReLU, UpConv3d, layout
from anomri.nets.unet import REDUCTION, Places, ResidualUNet, ResidualUnit, StridedUNet
from networks import CPU, count

pytestmark = pytest.mark.usefixtures("seeded")


def trained(net: nn.Module) -> nn.Module:
    """With batch norm that has seen data, and a slope and scale of its own in every layer, so that a fold shows."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.3, 2.0)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
        if isinstance(part, nn.PReLU):
            nn.init.uniform_(part.weight, 0.1, 0.6)
    return net


@pytest.mark.parametrize("channels", [1, 2])
def test_weights_are_channels_last_for_one_channel_too(channels):
    # Strides of one channel fit both layouts; torch goes by them, and is half as fast in the other.
    for convolution, axes in ((nn.Conv2d, 2), (nn.Conv3d, 3)):
        weight = channels_last(convolution(channels, 8, 3)).weight
        assert weight.stride() == (channels * 3**axes, 1, *(channels * 3**n for n in reversed(range(axes))))


def test_published_number_of_parameters():
    assert count(ResidualUNet()) == 8_902_626


def test_a_strided_network_is_twice_as_wide_for_half_as_many_parameters_and_works_on_half_the_grid():
    net = StridedUNet(width=16)
    assert count(net) == 4_500_841
    assert count(net) < 0.6 * count(ResidualUNet(width=16))
    small, grids = StridedUNet(3, 2, width=2).eval(), {}
    for name, part in small.named_modules():
        part.register_forward_hook(lambda part, given, y, name=name: grids.update({name: (part, y.shape)}))
    with torch.inference_mode():
        assert small(torch.zeros(1, 3, 32, 16, 48)).shape == (1, 2, 32, 16, 48)
    whole = {type(part) for part, shape in grids.values() if shape[-1] == 48}
    assert whole == {Places, nn.Sequential, StridedUNet}, "what makes the full grid is the last layer and what holds it"


def test_eight_channels_become_the_eight_halves_of_a_voxel():
    x = torch.arange(2 * 16 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 16, 3, 4, 5)
    y = Places()(x)
    assert y.shape == (2, 2, 6, 8, 10)
    for c, i, j, k in ((0, 0, 0, 0), (1, 5, 3, 8), (0, 4, 7, 9), (1, 1, 1, 1)):
        place = 4 * (i % 2) + 2 * (j % 2) + k % 2
        assert torch.equal(y[:, c, i, j, k], x[:, 8 * c + place, i // 2, j // 2, k // 2])


def test_width_scales_every_level():
    for width in (2, 4, 8):
        net = ResidualUNet(width=width)
        assert [unit.body[1][0].out_channels for unit in net.down] == [width * 2**level for level in range(5)]
        assert [stage[1][0].out_channels for stage in list(net.up)[:3]] == [4 * width, 2 * width, width]


def test_strides_norms_and_last_layer_are_the_published_ones():
    net = ResidualUNet(dropout=0.3)
    assert [unit.body[0][0].stride[0] for unit in net.down] == [2, 2, 2, 2, 1]
    assert all(unit.body[1][0].stride == (1, 1, 1) for unit in net.down)
    block = net.down[0].body[0]
    assert [type(part) for part in block] == [nn.Conv3d, nn.BatchNorm3d, Dropout, PReLU]
    assert {part.p for part in net.modules() if isinstance(part, Dropout)} == {0.3}
    assert all(part.weight.numel() == 1 for part in net.modules() if isinstance(part, nn.PReLU))
    assert isinstance(net.up[-1][1], nn.Conv3d), "the last convolution has no norm and no activation"
    assert [stage[0][0].in_channels for stage in net.up] == [384, 128, 64, 32]


@pytest.mark.parametrize("slope", [0.25, 0.0, -0.5, 1.0])
def test_a_slope_and_its_gradients_are_torchs(slope):
    ours, theirs = PReLU(), nn.PReLU()
    x = channels_last(nn.Conv3d(2, 4, 3))(torch.randn(2, 2, 7, 6, 8))
    x.data[0, 0, 0, 0, :3] = torch.tensor([0.0, -0.0, 1e-30])
    dy = torch.randn_like(x)
    found = []
    for one in (ours, theirs):
        one.weight.data.fill_(slope)
        given = x.detach().clone().requires_grad_()
        y = one(given)
        y.backward(dy)
        found.append((y.detach(), given.grad, one.weight.grad))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_a_unit_adds_its_input_to_the_first_channels():
    unit = ResidualUnit(3, 5, 1, 0.0).eval()
    x = torch.randn(2, 3, 4, 6, 5)
    grown = unit.body(x)
    grown[:, :3] += x
    assert torch.equal(unit(x), grown)
    with torch.inference_mode():
        assert torch.equal(unit(x), grown), "in place, without gradients"


@settings(max_examples=6, deadline=None)
@given(st.permutations((1, 2, 3)), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3))
def test_output_lies_on_the_input_grid(edges, batch, c_in, c_out):
    shape = [REDUCTION * n for n in edges]
    net = ResidualUNet(c_in, c_out, width=1).eval()
    with torch.inference_mode():
        assert net(torch.zeros(batch, c_in, *shape)).shape == (batch, c_out, *shape)


def test_no_skip_reaches_full_resolution():
    """What an output voxel knows of the input went through half the grid: the skips begin after the first unit."""
    net = ResidualUNet(width=1).eval()
    grids: list[tuple[int, ...]] = []
    hooks = [unit.register_forward_hook(lambda _, __, y: grids.append(tuple(y.shape[2:]))) for unit in net.down]
    ups: list[tuple[int, ...]] = []
    hooks += [stage.register_forward_pre_hook(lambda _, x: ups.append(tuple(x[0].shape[2:]))) for stage in net.up]
    net(torch.zeros(1, 2, 32, 48, 64))
    for hook in hooks:
        hook.remove()
    assert grids == [(16, 24, 32), (8, 12, 16), (4, 6, 8), (2, 3, 4), (2, 3, 4)]
    assert ups == [(2, 3, 4), (4, 6, 8), (8, 12, 16), (16, 24, 32)], "each skip is joined before the grid is doubled"


def test_every_skip_counts():
    """Zeroing what a level hands across changes the output: no skip is forgotten."""
    net = trained(ResidualUNet(width=2)).eval()
    x = torch.randn(1, 2, 16, 32, 48)
    with torch.inference_mode():
        whole = net(x)
        for stage in net.up:
            skip = stage[0][0].in_channels // 3  # below + c[level], of which the skip is the smaller third

            def without(_: nn.Module, args: tuple[Tensor], skip: int = skip) -> Tensor:
                y = args[0].clone()
                y[:, -skip:] = 0
                return y

            hook = stage.register_forward_pre_hook(without)
            assert not torch.allclose(net(x), whole, atol=1e-4)
            hook.remove()


@pytest.mark.parametrize(("stride", "c_in", "c_out"), [(2, 2, 5), (2, 3, 4), (1, 3, 6)])
def test_residual_path_adds_the_pooled_input_to_the_first_channels(stride, c_in, c_out):
    unit = ResidualUnit(c_in, c_out, stride, 0.0).eval()
    x = torch.randn(2, c_in, 4, 6, 8)
    with torch.inference_mode():
        added = unit(x) - unit.body(x)
    if stride == 1:
        expected = x
    else:
        padded = nn.functional.pad(x, (1,) * 6)
        expected = torch.zeros(2, c_in, 2, 3, 4)
        for i in range(2):
            for j in range(3):
                for k in range(4):
                    at = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, 2 * k : 2 * k + 3]
                    expected[:, :, i, j, k] = at.mean(dim=(2, 3, 4))
    torch.testing.assert_close(added[:, :c_in], expected, atol=1e-5, rtol=0)
    assert added[:, c_in:].abs().max() == 0


@pytest.mark.parametrize("network", [ResidualUNet, StridedUNet])
def test_engine_computes_what_the_network_does(network):
    net = trained(network(width=4)).eval()
    x = torch.randn(2, 2, 16, 32, 48)
    with torch.inference_mode():
        slow = net(x)
    fast = engine(net, CPU, torch.float32)(x)
    torch.testing.assert_close(fast, slow, atol=1e-5 * float(slow.abs().max()), rtol=1e-5)
    assert fast.dtype == torch.float32
    assert not fast.requires_grad


def test_engine_in_bfloat16_is_near():
    net = trained(ResidualUNet(width=4)).eval()
    x = torch.randn(1, 2, 48, 32, 16)
    with torch.inference_mode():
        slow = net(x)
    fast = engine(net, CPU, torch.bfloat16)(x)
    assert fast.dtype == torch.float32
    assert 0 < (fast - slow).abs().mean() / slow.abs().mean() < 0.02


def test_engine_leaves_the_network_as_it_is():
    net = trained(ResidualUNet(width=2, dropout=0.4)).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    layout = [p.stride() for p in net.parameters()]
    x = torch.randn(1, 2, 16, 32, 16)
    run = engine(net, CPU, torch.float32)
    assert torch.equal(run(x), run(x)), "no dropout, no running means"
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert [p.stride() for p in net.parameters()] == layout
    with torch.no_grad():
        next(net.parameters()).zero_()
    assert torch.equal(run(x), engine_of(before)(x)), "an engine keeps the weights that it was made of"


def engine_of(state: dict[str, Tensor]):
    net = ResidualUNet(width=2, dropout=0.4)
    net.load_state_dict(state)
    return engine(net, CPU, torch.float32)


def test_fold_leaves_no_norm_behind():
    net = trained(ResidualUNet(width=2)).eval()
    fold(net)
    assert not [part for part in net.modules() if isinstance(part, nn.BatchNorm3d)]
    assert all(part.bias is not None for part in net.modules() if isinstance(part, nn.Conv3d))


def test_fold_and_engine_take_2d_networks_too():
    net = trained(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)))
    net.eval()
    x = torch.randn(3, 2, 7, 9)
    with torch.inference_mode():
        slow = net(x)
    torch.testing.assert_close(engine(net, CPU, torch.float32)(x), slow, atol=1e-5, rtol=1e-5)
    fold(net)
    assert isinstance(net[1], nn.Identity)
    assert isinstance(net[3], nn.BatchNorm2d), "a norm that follows no convolution stays"


def test_channels_last_changes_the_layout_alone():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(3, 4, (1, 2, 3)), nn.Linear(3, 2))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert channels_last(net) is net
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert net[1].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


# --- layers that are faster than torch's ---------------------------------------------------------------------------


def slow_up(layer: UpConv3d) -> nn.Sequential:
    conv = nn.Conv3d(layer.in_channels, layer.out_channels, 3, padding=1)
    conv.load_state_dict(layer.state_dict())
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv)


@settings(max_examples=10)
@given(st.permutations((1, 2, 5)), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**31))
def test_a_convolution_after_upsampling_is_done_on_the_coarse_grid(shape, c_in, c_out, seed):
    torch.manual_seed(seed)
    layer = UpConv3d(c_in, c_out).double()
    x = torch.randn(2, c_in, *shape, dtype=torch.double)
    expected = slow_up(layer).double()(x)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.fixed()(x), expected)


def test_gradients_of_the_coarse_grid_are_those_of_the_fine_one():
    layer = UpConv3d(3, 2).double()
    slow = slow_up(layer).double()
    x = torch.randn(1, 3, 2, 4, 3, dtype=torch.double, requires_grad=True)
    z = x.detach().clone().requires_grad_()
    weigh = torch.randn(1, 2, 4, 8, 6, dtype=torch.double)
    (layer(x) * weigh).sum().backward()
    (slow(z) * weigh).sum().backward()
    torch.testing.assert_close(x.grad, z.grad)
    torch.testing.assert_close(layer.weight.grad, slow[1].weight.grad)
    torch.testing.assert_close(layer.bias.grad, slow[1].bias.grad)


def test_the_coarse_grid_learns_in_bfloat16_too():
    layer = UpConv3d(3, 2)
    x = torch.randn(1, 3, 3, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert layer.weight.grad.dtype == torch.float32
    expected = slow_up(layer)(x)
    assert (y.float() - expected).abs().mean() / expected.abs().mean() < 0.02


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(3, 5, 7, 11, 13), (2, 3, 41, 43), (12345,)])
def test_dropout_drops_its_share_and_keeps_the_mean(p, shape):
    x = torch.ones(shape).contiguous(memory_format=layout(torch.empty(shape)))
    y = Dropout(p)(x)
    n = x.numel()
    dropped = int((y == 0).sum()) / n
    assert abs(dropped - p) < 5 * (p * (1 - p) / n) ** 0.5
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / (1 - p)), rtol=1e-4, atol=0)
    assert y.stride() == x.stride()
    # Neighbours share a random word, not a fate.
    flat = (y != 0).flatten().float() - (1 - p)
    for apart in (1, 2, 3, 4):
        assert abs(float((flat[apart:] * flat[:-apart]).mean())) < 5 * p * (1 - p) / (n - apart) ** 0.5


def test_dropout_gives_gradients_to_what_it_kept():
    x = torch.ones(1, 2, 8, 6, 4, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_does_nothing_in_eval_mode_or_at_zero_and_follows_the_seed():
    x = torch.randn(2, 3, 4, 5, 6)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(Dropout(0.5)(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert Dropout(0.5)(x.bfloat16()).dtype == torch.bfloat16


@settings(max_examples=15)
@given(
    st.sampled_from([((3, 4, 16), 3), ((2, 5, 21), 3), ((4, 3, 48), 5), ((6, 7), 3), ((5, 33), 5)]),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_a_convolution_with_few_outputs_makes_sixteen_at_once(where, outputs, bias, seed):
    torch.manual_seed(seed)
    shape, taps = where
    conv = (nn.Conv3d if len(shape) == 3 else nn.Conv2d)(3, outputs, taps, padding=taps // 2, bias=bias).double()
    assert SlabConv.suits(conv)
    x = torch.randn(2, 3, *shape, dtype=torch.double)
    y = SlabConv(conv)(x)
    torch.testing.assert_close(y, conv(x))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(2, 5, 3, padding=1),
        nn.Conv3d(2, 1, 3),
        nn.Conv3d(2, 1, 1),
        nn.Conv3d(2, 1, 3, padding=1, padding_mode="replicate"),
        nn.Conv3d(2, 1, 3, padding=1, stride=2),
        nn.Conv3d(2, 1, 3, padding=1, dilation=2),
        nn.Conv3d(2, 2, 3, padding=1, groups=2),
        nn.Conv3d(2, 1, 2, padding=1),
        nn.ConvTranspose3d(2, 1, 3, padding=1),
        nn.Linear(2, 1),
    ],
    ids=str,
)
def test_other_layers_stay_as_they_are(layer):
    assert not SlabConv.suits(layer)


@settings(max_examples=25)
@given(
    st.sampled_from([(5, 6, 7), (3, 4, 2), (8, 6, 1), (6, 4), (32, 2)]),
    st.sampled_from([("conv", 1), ("conv", 2), ("transposed", 2)]),
    st.sampled_from([1.0, 0.25, 0.0]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_a_fused_convolution_is_the_convolution_and_what_rectifies_it(shape, how, slope, bias, seed):
    torch.manual_seed(seed)
    (kind, stride), volume = how, len(shape) == 3
    if kind == "conv":
        conv = (nn.Conv3d if volume else nn.Conv2d)(16, 32, 3, stride, 1, bias=bias)
    else:
        conv = (nn.ConvTranspose3d if volume else nn.ConvTranspose2d)(16, 8, 4, stride, 1, bias=bias)
    assert FusedConv.suits(conv)
    x = torch.randn(2, 16, *shape)
    with torch.inference_mode():
        wanted = nn.functional.leaky_relu(conv(x), slope)
        torch.testing.assert_close(FusedConv(conv, slope)(x), wanted, atol=1e-5, rtol=1e-5)
        fast = FusedConv(conv, slope, torch.bfloat16)(x)
    assert fast.dtype == torch.bfloat16
    assert (fast.float() - wanted).abs().max() < 0.02 * wanted.abs().max()


UPS = {"2D": (nn.ConvTranspose2d, nn.Conv2d, (6, 5)), "3D": (nn.ConvTranspose3d, nn.Conv3d, (3, 5, 4))}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axes", UPS)
def test_a_doubling_by_places_is_the_transposed_convolution(monkeypatch, axes, bias):
    monkeypatch.setattr(fused, "MANY", 4)
    transposed, _, shape = UPS[axes]
    conv = transposed(3, 4, 4, 2, 1, bias=bias)
    assert UpByPlaces.suits(conv)
    x = torch.randn(2, 3, *shape)
    with torch.inference_mode():
        wanted = nn.functional.leaky_relu(conv(x), 0.2)
        torch.testing.assert_close(UpByPlaces(conv, 0.2)(x), wanted, atol=1e-5, rtol=1e-5)
    assert not UpByPlaces.suits(transposed(3, 3, 4, 2, 1)), "few channels"
    assert not UpByPlaces.suits(transposed(3, 4, 3, 2, 1))
    assert not UpByPlaces.suits(transposed(3, 4, 4, 2, 1, output_padding=1))


@settings(max_examples=25)
@given(
    st.integers(1, 23),
    st.sampled_from([(1, 3), (1, 5), (8, 3), (8, 1)]),
    st.booleans(),
    st.sampled_from([1.0, 0.2]),
    st.integers(0, 2**31),
)
def test_doubling_and_convolving_in_pieces_is_the_same(rows, how, bias, slope, seed):
    """Whatever the number of rows leaves for the last piece, however far the convolution reaches."""
    torch.manual_seed(seed)
    outputs, taps = how
    up, last = nn.ConvTranspose3d(4, 4, 4, 2, 1), nn.Conv3d(4, outputs, taps, padding=taps // 2, bias=bias)
    assert UpInPieces.suits(up, last)
    x = torch.randn(1, 4, rows, 3, 16)
    with torch.inference_mode():
        wanted = nn.functional.leaky_relu(last(nn.functional.leaky_relu(up(x), 0.3)), slope)
    second = SlabConv(last, torch.bfloat16) if outputs == 1 else FusedConv(last, dtype=torch.bfloat16)
    layer = UpInPieces(FusedConv(up, 0.3, torch.bfloat16), second, slope)
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        whole = layer(x)
        patch.setattr(fused, "LARGE_BYTES", 0)
        fast = layer(x)
        twice = layer(torch.cat([x, x]))
    for made in (whole, fast, twice[:1], twice[1:]):
        assert made.shape == wanted.shape
        assert (made.float() - wanted).abs().max() < 0.03 * wanted.abs().max()
    # The bias of the last convolution is added once.
    assert (fast.float() - wanted).mean().abs() < 0.01 * wanted.abs().max()


def test_padding_by_other_than_zeros_is_not_fused():
    assert not FusedConv.suits(nn.Conv3d(2, 2, 3, padding=1, padding_mode="replicate"))
    assert not FusedConv.suits(nn.Conv2d(2, 2, 3, padding="same"))
    assert not FusedConv.suits(nn.Linear(2, 2))


@pytest.mark.parametrize("shape", [(4, 6, 8), (2, 2, 2), (3, 5, 7), (1, 2, 9)])
def test_mean_pooling_is_torchs(shape):
    x = torch.randn(2, 3, *shape, dtype=torch.double, requires_grad=True)
    wanted = nn.functional.avg_pool3d(nn.functional.pad(x, [1] * 6), 3, 2)
    torch.testing.assert_close(MeanPool3d()(x), wanted)
    assert torch.autograd.gradcheck(MeanPool3d(), x)


# --- engines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_openvino_computes_what_the_network_does_on_any_grid(dtype, off):
    pytest.importorskip("openvino", reason="OpenVINO is an extra: pip install 'anomri[openvino]'")
    net = trained(ResidualUNet(width=4)).eval()
    run = engine(net, CPU, dtype, "openvino")
    for shape in ((16, 32, 48), (48, 32, 48), (16, 16, 32)):
        x = torch.randn(1, 2, *shape)
        before = x.clone()
        with torch.inference_mode():
            slow = net(x)
        fast = run(x)
        assert fast.dtype == torch.float32
        assert (fast - slow).abs().mean() / slow.abs().mean() < off
        assert torch.equal(x, before)
        kept = fast.clone()
        run(torch.randn(1, 2, *shape))
        assert torch.equal(fast, kept), "a result stays as it is when the next one is made"


def test_an_engine_is_remembered_until_the_weights_change(monkeypatch):
    made = []
    monkeypatch.setattr(engines, "_made", lambda *args: made.append(args) or (lambda x: x))
    net = ResidualUNet(width=1).eval()
    assert engine(net, CPU, torch.float32) is engine(net, CPU, torch.float32)
    assert len(made) == 1
    engine(net, CPU, torch.bfloat16)
    assert len(made) == 2, "another precision is another engine"
    with torch.no_grad():
        next(net.parameters()).add_(1)
    engine(net, CPU, torch.bfloat16)
    assert len(made) == 3
    net.load_state_dict(ResidualUNet(width=1).state_dict())
    engine(net, CPU, torch.bfloat16)
    assert len(made) == 4
    net.down[0].body[0][1].running_mean.add_(1)
    engine(net, CPU, torch.bfloat16)
    assert len(made) == 5, "norms count too"


def test_an_engine_that_cannot_run_a_network_gives_way_to_torch(monkeypatch):
    def fails(*args):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(engines, "_graph", fails)
    net = trained(ResidualUNet(width=1)).eval()
    x = torch.randn(1, 2, 16, 16, 32)
    with pytest.warns(UserWarning, match="openvino cannot run this network, torch does .*no such operation"):
        run = engine(net, CPU, torch.float32, "openvino")
    assert torch.equal(run(x), engine(net, CPU, torch.float32, "torch")(x))


@pytest.mark.parametrize("there", [True, False])
def test_auto_takes_openvino_where_it_is_and_faster(monkeypatch, there):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: object() if there else None)
    assert pick_engine("auto", CPU, torch.float32) == ("openvino" if there else "torch")
    assert pick_engine("auto", CPU, torch.bfloat16) == "torch"
    assert pick_engine("auto", torch.device("meta"), torch.float32) == "torch"
    assert pick_engine("torch", CPU, torch.float32) == "torch"
    if there:
        assert pick_engine("openvino", CPU, torch.bfloat16) == "openvino"
        with pytest.raises(BadInput, match="runs on a CPU, not on 'meta'"):
            pick_engine("openvino", torch.device("meta"), torch.float32)
    else:
        with pytest.raises(BadInput, match=r"not installed; pip install 'anomri\[openvino\]'"):
            pick_engine("openvino", CPU, torch.float32)
    with pytest.raises(BadCall, match=r"onnx.*auto, openvino, torch"):
        pick_engine("onnx", CPU, torch.float32)
    assert set(ENGINES) == {"auto", "torch", "openvino"}
