"""Autoencoders: the shapes of latents, what is drawn from them, and that everything passes through them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from anomri.errors import BadCall, BadInput
from anomri.nets.autoencoder import Autoencoder, Decoder, Encoder, SkiplessUNet, draw, kl
from anomri.nets.unet import ResidualUNet
from networks import count, overfit, same, trained

pytestmark = pytest.mark.usefixtures("seeded")

EDGES = {2: (8, 12), 3: (8, 4, 12)}


def small(axes: int, dense: bool = True, variational: bool = True, c_in: int = 2) -> Autoencoder:
    edges = EDGES[axes] if dense else None
    return Autoencoder(axes, c_in, 4, 2, 5, dense, variational, edges)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("axes", EDGES)
def test_shapes_of_the_latent_and_of_the_image(axes, dense, variational):
    net, x = trained(small(axes, dense, variational)), torch.randn(3, 2, *EDGES[axes])
    mean, logvar = net.encode(x)
    assert mean.shape == ((3, 5) if dense else (3, 5, *(n // 4 for n in EDGES[axes])))
    assert (logvar is None) if not variational else (logvar.shape == mean.shape)
    assert net.decode(mean).shape == net(x).shape == x.shape
    assert torch.equal(net(x), net.decode(mean)), "in eval mode the mean is decoded"


def test_the_published_latents():
    """64³ to 512 numbers (Bengs et al.), 128² by 8 x 8 to 128 (Baur et al.); the first convolution already halves."""
    with torch.device("meta"):
        volumes = Autoencoder(3, 1, latent=512, variational=True, edges=(64, 64, 64))
        slices = Autoencoder(2, 1, latent=128, edges=(128, 128), dropout=0.1)
        assert volumes.encode(torch.zeros(1, 1, 64, 64, 64))[0].shape == (1, 512)
        assert volumes.encoder[0](torch.zeros(1, 1, 64, 64, 64)).shape == (1, 32, 32, 32, 32)
        assert slices.encoder(torch.zeros(1, 1, 128, 128)).shape == (1, 256, 8, 8)
        assert slices(torch.zeros(1, 1, 128, 128)).shape == (1, 1, 128, 128)
    assert [block[0].stride[0] for block in volumes.encoder] == [2] * 4


def test_a_volume_and_a_slice_have_the_same_architecture():
    """Only the operations differ (thesis, chapter 8.1): as many layers and channels."""
    nets = [Autoencoder(axes, 1, 4, 3, 6, edges=(8, 16, 24)[:axes]) for axes in (2, 3)]
    channels = [[(m.in_channels, m.out_channels) for m in net.modules() if hasattr(m, "in_channels")] for net in nets]
    assert channels[0] == channels[1] == [(1, 4), (4, 8), (8, 16), (16, 8), (8, 4), (4, 1)]


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("axes", EDGES)
def test_a_draw_follows_its_generator_alone(axes, dense):
    net, x = trained(small(axes, dense)), torch.randn(2, 2, *EDGES[axes])
    first = net.sample(x, rng(3))
    state = torch.get_rng_state()
    assert torch.equal(net.sample(x, rng(3)), first)
    assert torch.equal(torch.get_rng_state(), state), "torch's own generator is left alone"
    assert not torch.allclose(net.sample(x, rng(4)), first, atol=1e-3)
    assert not torch.allclose(net(x), first, atol=1e-3)
    generator = rng(3)
    assert torch.equal(net.sample(x, generator), first)
    assert not torch.equal(net.sample(x, generator), first), "the next of N draws is another"


def test_training_decodes_a_draw_by_the_global_generator():
    net, x = trained(small(2)), torch.randn(2, 2, *EDGES[2])
    for part in net.train().modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.eval()
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(net(x))
    assert torch.equal(made[0], made[1])
    assert not torch.allclose(made[0], made[2], atol=1e-3)
    plain = small(2, variational=False).eval()
    plain.training = True
    assert torch.equal(plain(x), plain(x)), "nothing is drawn where there is no variance"


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=6))
def test_kl_is_the_divergence_of_torch(latent):
    mean, logvar = torch.tensor(latent, dtype=torch.double).T[:, None]
    given = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    expected = torch.distributions.kl_divergence(given, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(kl(mean, logvar), expected)
    assert (kl(mean, logvar) > -1e-15).all()


def test_kl_golden_values_and_shapes():
    torch.testing.assert_close(kl(torch.zeros(3, 7), torch.zeros(3, 7)), torch.zeros(3))
    torch.testing.assert_close(kl(torch.ones(1, 4), torch.zeros(1, 4)), torch.tensor([2.0]))
    expected = torch.tensor([0.5 * (4 - 1 - math.log(4))])
    torch.testing.assert_close(kl(torch.zeros(1, 1), torch.full((1, 1), math.log(4.0))), expected)
    mean, logvar = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 3, 4, 5, 6)
    torch.testing.assert_close(kl(mean, logvar), kl(mean.flatten(1), logvar.flatten(1)))


def test_a_draw_has_the_mean_and_the_variance_and_passes_gradients():
    mean, logvar = torch.full((20_000,), 2.0, requires_grad=True), torch.full((20_000,), -1.0, requires_grad=True)
    z = draw(mean, logvar, rng(0))
    assert float(z.detach().mean()) == pytest.approx(2, abs=0.02)
    assert float(z.detach().var()) == pytest.approx(math.exp(-1), rel=0.03)
    z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(20_000))
    torch.testing.assert_close(logvar.grad, (z - mean).detach() / 2)


def test_a_plain_autoencoder_has_nothing_to_draw():
    with pytest.raises(BadCall, match="variational=True"):
        small(2, variational=False).sample(torch.zeros(1, 2, *EDGES[2]), rng(0))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("axes", EDGES)
def test_engine_computes_what_the_network_does(axes, dense):
    x = torch.randn(2, 2, *EDGES[axes])
    same(trained(small(axes, dense), x), x)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("axes", EDGES)
def test_it_overfits(axes, dense):
    net = Autoencoder(axes, 1, 8, 2, 16, dense, edges=EDGES[axes] if dense else None)
    x = torch.randn(2, 1, *(1 + n // 4 for n in EDGES[axes]))
    x = nn.functional.interpolate(x, EDGES[axes])
    assert overfit(net, x, x, steps=100) < 0.1


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("axes", [2, 3])
def test_the_halves_are_what_the_whole_is_made_of(axes, variational):
    net = trained(small(axes, dense=False, variational=variational), x := torch.randn(2, 2, *EDGES[axes]))
    with torch.inference_mode():
        z = net.encode(x)[0]
        torch.testing.assert_close(Encoder(net)(x), z)
        torch.testing.assert_close(Decoder(net)(z), net(x))
    same(Encoder(net).eval(), x)
    same(Decoder(net).eval(), z.clone())


def test_latents_are_float32_in_bfloat16_too():
    net, x = small(2), torch.randn(1, 2, *EDGES[2])
    with torch.autocast("cpu", torch.bfloat16):
        mean, logvar = net.eval().encode(x)
    assert mean.dtype == logvar.dtype == torch.float32


def test_dropout_is_of_what_a_dense_latent_is_made_of():
    net = Autoencoder(2, 1, 4, 2, 5, edges=EDGES[2], dropout=0.5).eval()
    x = torch.randn(1, 1, *EDGES[2])
    assert torch.equal(net(x), net(x))
    net.narrow.train()
    assert not torch.equal(net(x), net(x))


def test_it_says_what_does_not_fit():
    with pytest.raises(BadCall, match="4 axes; 2 are slices"):
        Autoencoder(4, 1, dense=False)
    with pytest.raises(BadCall, match=r"give 'edges', or dense=False"):
        Autoencoder(2, 1)
    with pytest.raises(BadCall, match=r"edges \(16, 24\) for 2 axes and 4 levels; give 2 multiples of 16"):
        Autoencoder(2, 1, edges=(16, 24))
    with pytest.raises(BadCall, match=r"give 3 multiples"):
        Autoencoder(3, 1, edges=(16, 32))
    with pytest.raises(BadInput, match=r"made for grid \(8, 12\), the input has \(12, 8\)"):
        small(2)(torch.zeros(1, 2, 12, 8))
    with pytest.raises(BadInput, match=r"multiples of 4"):
        small(2, dense=False)(torch.zeros(1, 2, 12, 10))


# --- IterMask3D's comparison ---------------------------------------------------------------------------------------


def test_skipless_has_the_backbone_of_itermask3d():
    ours, theirs = SkiplessUNet(), ResidualUNet(c_in=1)
    assert count(ours) == 5_963_442
    assert {k: v.shape for k, v in ours.down.state_dict().items()} == {
        k: v.shape for k, v in theirs.down.state_dict().items()
    }
    ups = [block[0] if isinstance(block, nn.Sequential) else block for block in ours.up]
    assert [(up.in_channels, up.out_channels) for up in ups] == [
        (256, 256),
        (256, 64),
        (64, 64),
        (64, 32),
        (32, 32),
        (32, 16),
        (16, 16),
        (16, 1),
    ]
    assert isinstance(ours.up[-1], nn.Conv3d), "the last convolution has no norm and no activation"


@pytest.mark.parametrize("c_out", [1, 2])
def test_everything_passes_through_the_latent(c_out):
    net = trained(SkiplessUNet(2, c_out, width=2))
    x = torch.randn(2, 2, 16, 48, 32)
    seen: list[tuple[int, ...]] = []
    net.up.register_forward_pre_hook(lambda _, z: seen.append(tuple(z[0].shape)))
    with torch.inference_mode():
        y = net(x)
        assert y.shape == (2, c_out, 16, 48, 32)
        assert seen == [(2, 32, 1, 3, 2)]
        assert torch.equal(net.decode(net.encode(x)), y)

        def nothing(_: nn.Module, __: tuple[Tensor, ...], z: Tensor) -> Tensor:
            return torch.zeros_like(z)

        net.down.register_forward_hook(nothing)
        assert torch.equal(net(x), net(torch.zeros_like(x))), "no way around"
    with pytest.raises(BadInput, match="multiples of 16"):
        net(torch.zeros(1, 2, 16, 24, 32))


def test_skipless_in_the_engine_and_in_training():
    x = torch.randn(2, 1, 16, 32, 48)
    same(trained(SkiplessUNet(1, 1, width=4), x), x)
    x = nn.functional.interpolate(torch.randn(2, 1, 2, 1, 2), (32, 16, 32))
    assert overfit(SkiplessUNet(width=4, dropout=0.0), x, x, steps=40) < 0.1
