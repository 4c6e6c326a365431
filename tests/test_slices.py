"""2D networks over volumes: axes stay where they are, whatever the batch, and each slice is on its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anomri.errors import BadCall
from anomri.nets.attention_unet import AttentionUNet
from anomri.nets.engine import engine
from anomri.nets.slices import slices_of, slicewise, volume_of
from networks import trained

pytestmark = pytest.mark.usefixtures("seeded")

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 20))


def slanted(x: Tensor) -> Tensor:
    """Of `(B, C, I, J)`, one channel more: no swap or turn of the axes gives the same."""
    ramp = torch.arange(x.shape[2])[:, None] + 0.1 * torch.arange(x.shape[3])
    return torch.cat([x.flip(2) * ramp, x.sum(dim=1, keepdim=True)], dim=1)


@given(SHAPES)
def test_slices_are_axial_and_go_back(shape):
    x = torch.rand(shape)
    slices = slices_of(x)
    assert slices.shape == (shape[3], *shape[:3])
    assert all(torch.equal(slices[k], x[..., k]) for k in range(shape[3]))
    assert torch.equal(volume_of(slices), x)


@given(SHAPES, st.integers(1, 25))
def test_each_slice_becomes_what_it_would_alone(shape, batch):
    x = torch.rand(shape)
    y = slicewise(slanted, x, batch=batch)
    assert y.shape == (shape[0] + 1, *shape[1:])
    for k in range(shape[3]):
        assert torch.equal(y[..., k], slanted(x[None, ..., k])[0])
    assert torch.equal(y, slicewise(slanted, x, batch=1))


@given(st.integers(1, 40), st.integers(1, 16))
def test_every_call_gets_a_full_batch(slices, batch):
    sizes = []

    def run(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x

    slicewise(run, torch.rand(1, 2, 3, slices), batch=batch)
    assert sizes == [batch] * -(-slices // batch)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_slice_does_not_know_its_place_nor_how_many_there_are(batch):
    x = torch.randn(1, 8, 12, 19)
    net = trained(AttentionUNet(1, 2, width=4, multiples=(1, 2), attention=()), slices_of(x))
    run = engine(net, torch.device("cpu"), torch.float32)
    whole = slicewise(run, x, batch=batch)
    for first, last in ((0, 19), (4, 19), (7, 8), (0, 18)):
        assert torch.equal(slicewise(run, x[..., first:last], batch=batch), whole[..., first:last])
    assert torch.equal(slicewise(run, x.flip(3), batch=batch).flip(3), whole)
    torch.testing.assert_close(whole, slicewise(run, x, batch=7), atol=1e-5, rtol=1e-5)


@given(st.lists(st.booleans(), min_size=1, max_size=20).filter(any), st.integers(1, 7))
def test_slices_that_are_not_kept_become_zero(keep, batch):
    wanted, x = torch.tensor(keep), torch.rand(2, 3, 4, len(keep)) + 1
    ran = []

    def run(slices: Tensor) -> Tensor:
        ran.extend(slices[:, 0, 0, 0].tolist())
        return slanted(slices)

    y = slicewise(run, x, batch=batch, keep=wanted)
    assert torch.equal(y, torch.where(wanted, slicewise(slanted, x), torch.zeros(())))
    assert {*ran} == {*x[0, 0, 0, wanted].tolist()}, "no other slice is run"


def test_the_volume_stays_as_it_is():
    x = torch.rand(1, 3, 4, 5)
    before = x.clone()
    slicewise(lambda slices: slices.add_(1), x, batch=2)
    assert torch.equal(x, before)


def test_it_says_what_does_not_fit():
    x = torch.zeros(1, 2, 3, 5)
    with pytest.raises(BadCall, match=r"shape \(2, 3, 5\) in batches of 16; give \(C, I, J, K\)"):
        slicewise(slanted, x[0])
    with pytest.raises(BadCall, match="batches of 0"):
        slicewise(slanted, x, batch=0)
    with pytest.raises(BadCall, match=r"keep has shape \(3,\).*the volume 5 slices"):
        slicewise(slanted, x, keep=torch.ones(3, dtype=torch.bool))
    with pytest.raises(BadCall, match=r"torch\.float32"):
        slicewise(slanted, x, keep=torch.ones(5))
    with pytest.raises(BadCall, match="none of 5 slices"):
        slicewise(slanted, x, keep=torch.zeros(5, dtype=torch.bool))
