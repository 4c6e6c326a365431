"""2D networks over volumes: axial slices, those of the last axis, as the images of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anomri.errors import BadCall


def slices_of(x: Tensor) -> Tensor:
    """The axial slices of a volume: `(C, I, J, K)` to `(K, C, I, J)`; a view."""
    return x.permute(3, 0, 1, 2)


def volume_of(slices: Tensor) -> Tensor:
    """The volume of axial slices: `(K, C, I, J)` to `(C, I, J, K)`; a view."""
    return slices.permute(1, 2, 3, 0)


def slicewise(run: Callable[[Tensor], Tensor], x: Tensor, *, batch: int = 16, keep: Tensor | None = None) -> Tensor:
    """What a 2D network makes of each axial slice: `(C, I, J, K)` to `(C', I, J, K)`, on the device that `run` gives.

    Every call of `run` gets `batch` slices; the last is filled up with the last slice. Kernels differ by the size of a batch, in the
    last digits: so what a slice becomes depends neither on its place nor on how many others there are. Between batch sizes it
    agrees to rounding.

    Parameters
    ----------
    run : `(B, C, I, J)` to `(B, C', I, J)`, each image by itself: an engine, or a network in eval mode. What draws at random draws for
        the slices that fill up as well, and so by the batch size
    batch : slices at once
    keep : `(K,)` bool, the slices to run, those that hold brain; the others become 0, which need not be their background

    Raises `BadCall` for shapes that do not fit, a batch of none, or no slice to keep.
    """
    if x.ndim != 4 or batch < 1:
        raise BadCall(
            f"a volume of shape {tuple(x.shape)} in batches of {batch}; give (C, I, J, K), at least 1 at once"
        )
    if keep is not None and (keep.shape != x.shape[3:] or keep.dtype != torch.bool):
        raise BadCall(
            f"keep has shape {tuple(keep.shape)} ({keep.dtype}), the volume {x.shape[3]} slices; give a bool each"
        )
    places = torch.arange(x.shape[3]) if keep is None else keep.nonzero().flatten().cpu()
    if len(places) == 0:
        raise BadCall(f"none of {x.shape[3]} slices is to be run; keep those that hold brain")
    slices, made = slices_of(x), None
    for start in range(0, len(places), batch):
        own = places[start : start + batch]
        full = torch.cat([own, own[-1:].expand(batch - len(own))])
        y = run(slices[full.to(x.device)])
        if made is None:
            made = y.new_zeros(x.shape[3], *y.shape[1:])
        made[own.to(y.device)] = y[: len(own)]
    assert made is not None
    return volume_of(made)
