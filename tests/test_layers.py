"""Layers that compute the same as torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from anomri.nets.layers import GroupNorm, _Normed, layout

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("shift", [0.0, 30.0])
@pytest.mark.parametrize("edges", [(9, 14), (5, 6, 7)])
def test_group_norm_has_the_gradients_of_torchs(edges, shift):
    """In float32 to its precision, in bfloat16 as near to them as torch's own; also where the mean is many SDs."""
    ours, theirs = GroupNorm(4, 12), nn.GroupNorm(4, 12)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    with torch.no_grad():
        ours.weight.uniform_(0.5, 1.5)
        ours.bias.uniform_(-0.5, 0.5)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 12, *edges) * torch.rand(12).reshape(12, *[1] * len(edges)) + shift
    x, dy = (one.bfloat16().float().contiguous(memory_format=layout(one)) for one in (x, torch.randn_like(x)))

    def gradients(norm, dtype: torch.dtype) -> list[Tensor]:
        of = x.to(dtype, memory_format=torch.preserve_format).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = norm(of)
        assert y.dtype == dtype
        return [y.detach(), *torch.autograd.grad(y, (of, ours.weight, ours.bias), dy.to(dtype))]

    def plain(of: Tensor) -> Tensor:
        return nn.functional.group_norm(of, 4, ours.weight, ours.bias)

    def quick(of: Tensor) -> Tensor:
        return _Normed.apply(of, ours.weight, ours.bias, 4, ours.eps)

    exact = gradients(plain, torch.float32)
    for one, other in zip(gradients(quick, torch.float32), exact, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3 if shift else 1e-4, rtol=1e-3)
    for one, other, true in zip(gradients(ours, torch.bfloat16), gradients(plain, torch.bfloat16), exact, strict=True):
        off, most = ((part.float() - true).abs().mean() for part in (one, other))
        assert off < 1.2 * most + 4e-3 * true.abs().mean()
        assert one.stride() == other.stride()


def test_group_norm_is_torchs_where_it_is_no_quicker(monkeypatch):
    norm = GroupNorm(2, 4)
    monkeypatch.setattr(_Normed, "apply", lambda *_: pytest.fail("not here"))
    x = torch.randn(1, 4, 5, 6)
    for of in (x.requires_grad_(), x.detach().bfloat16()):
        norm(of)
    with torch.inference_mode():
        norm(x.bfloat16())
    with pytest.raises(pytest.fail.Exception, match="not here"):
        norm(x.bfloat16())
