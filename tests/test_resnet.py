"""Residual networks and their masked pre-training: the published sizes, what is hidden stays hidden, what is seen is normed alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anomri.errors import BadCall
from anomri.nets.engine import engine
from anomri.nets.resnet import KINDS, ResNet, fine, normed
from anomri.nets.spark import Spark, masked_loss, visible
from networks import CPU, count, trained

pytestmark = pytest.mark.usefixtures("seeded")
GRIDS = {2: (64, 96), 3: (32, 64, 64)}
axes_each = pytest.mark.parametrize("axes", [2, 3])


def some(axes: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, and cells of which the first is seen in the first image, all but it in the second."""
    x = torch.randn(batch, 1, *GRIDS[axes])
    seen = torch.zeros(batch, 1, *(n // 32 for n in GRIDS[axes]), dtype=torch.bool)
    seen[0].view(-1)[0] = True
    seen[1:].view(batch - 1, -1)[:, 1:] = True
    return x, seen


def test_published_number_of_parameters():
    """He et al. 2016, of three channels and a thousand classes."""
    with torch.device("meta"):
        assert count(ResNet(2, 3, 1000, "resnet18")) == 11_689_512
        assert count(ResNet(2, 3, 1000, "resnet50")) == 25_557_032
        assert count(ResNet(2, 1, 128, "small")) < 0.5e6


@axes_each
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_the_stages_and_of_the_answer(axes, kind):
    if kind == "resnet50" and axes == 3:
        pytest.skip("slow, and no other code")
    net = ResNet(axes, 1, 7, kind).eval()
    x, _ = some(axes)
    with torch.inference_mode():
        maps = net.maps(x)
        assert net(x).shape == (2, 7)
        assert net(x[..., :-10]).shape == (2, 7), "any grid"
    for found, coarser, channels in zip(maps, (4, 8, 16, 32), net.channels, strict=True):
        assert found.shape == (2, channels, *(n // coarser for n in GRIDS[axes]))


@axes_each
def test_what_is_hidden_is_never_seen(axes):
    net = trained(ResNet(axes, 1, 4, "small"), some(axes)[0])
    x, seen = some(axes)
    hidden = fine(seen, x) == 0
    with torch.inference_mode():
        maps, other = net.maps(x, seen), net.maps(torch.where(hidden, 100 + torch.randn_like(x), x), seen)
        plain = net.maps(x)
    for a, b, whole in zip(maps, other, plain, strict=True):
        assert torch.equal(a, b)
        there = fine(seen, a).bool().expand_as(a)
        assert not a[~there].any()
        assert a[there].abs().mean() > 0.01
        assert not torch.allclose(a[there], whole[there], atol=1e-3), "without its neighbours a cell is another"


@axes_each
def test_all_seen_is_the_plain_network(axes):
    x, seen = some(axes)
    net = trained(ResNet(axes, 1, 4, "small"), x)
    for mode in (True, False):
        net.train(mode)
        with torch.no_grad():
            torch.testing.assert_close(net.maps(x, torch.ones_like(seen)), net.maps(x), atol=1e-3, rtol=1e-3)


def test_the_norm_counts_what_is_seen():
    x, seen = torch.randn(2, 3, 8, 4) * 3 + 5, torch.tensor([[[[1], [0]]], [[[1], [1]]]]).bool()
    norm = nn.BatchNorm2d(3, momentum=1.0)
    y = normed(norm, x, seen)
    where = fine(seen, x)[:, 0].bool()
    values = x.movedim(1, -1)[where]
    torch.testing.assert_close(norm.running_mean, values.mean(dim=0))
    torch.testing.assert_close(
        y.movedim(1, -1)[where], (values - values.mean(0)) / values.std(0, correction=0), atol=1e-3, rtol=1e-3
    )
    assert not y.movedim(1, -1)[~where].any()


def test_an_engine_computes_the_same():
    x, _ = some(2)
    net = trained(ResNet(2, 1, 5, "small"), x)
    with torch.inference_mode():
        slow = net(x)
    torch.testing.assert_close(engine(net, CPU, torch.float32)(x), slow, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("edges", "kept"), [((96, 96), 3), ((96, 128), 4), ((32, 32), 1), ((64, 64, 96), 4)])
def test_cells_that_stay(edges, kept):
    rng = torch.Generator().manual_seed(0)
    drawn = torch.stack([visible(edges, rng) for _ in range(200)])
    assert drawn.shape == (200, 1, *(n // 32 for n in edges))
    assert drawn.flatten(1).sum(dim=1).tolist() == [kept] * 200, "65 % are hidden: of nine, three stay, as published"
    share = drawn.float().mean(dim=0)
    assert torch.allclose(share, share.mean().expand_as(share), atol=0.15), "each cell as often"


@axes_each
def test_the_loss_is_of_what_is_hidden(axes):
    x, seen = some(axes)
    net = trained(Spark(ResNet(axes, 1, 4, "small"), axes, 1), *())
    with torch.inference_mode():
        made, hidden = net(x, seen), fine(seen, x) == 0
        assert made.shape == x.shape
        expected = (made - x).square()[hidden].mean()
        torch.testing.assert_close(masked_loss(net, x, seen), expected)
        spoilt = torch.where(hidden, x, x + 1)
        torch.testing.assert_close(
            ((net(spoilt, seen) - spoilt) - (made - x))[hidden].abs().mean() > 1e-4, torch.tensor(True)
        )


def test_it_learns_to_paint_what_is_hidden():
    """Images of one brightness each: a seen cell tells of all others."""
    net, rng = Spark(ResNet(2, 1, 4, "small"), 2, 1), torch.Generator().manual_seed(1)
    optimiser, losses = torch.optim.Adam(net.parameters(), lr=3e-3), []
    for _ in range(100):
        x = torch.randn(8, 1, 1, 1, generator=rng).expand(8, 1, 64, 64).contiguous()
        loss = masked_loss(net.train(), x, torch.stack([visible((64, 64), rng) for _ in range(8)]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    assert all(p.grad is not None for name, p in net.named_parameters() if not name.startswith("encoder.last"))


def test_networks_that_cannot_be():
    with pytest.raises(BadCall, match="unknown encoder 'vgg'; known: resnet18, resnet50, small"):
        ResNet(2, 1, 4, "vgg")
    with pytest.raises(BadCall, match="a network of 4 axes"):
        ResNet(4, 1, 4)
