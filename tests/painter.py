"""A stand-in for IterMask3D's network, whose error is known; and the method written out slowly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anomri.methods import itermask3d
from anomri.methods.itermask3d import IterMask3D
from anomri.preprocess.space import box
from anomri.scan import Finding, Scan
from anomri.scoring.thresholds import bend, between, stop
from helpers import ellipsoid

SHAPE = (21, 30, 26)
BRAIN = ellipsoid(SHAPE, (8.0, 12.0, 9.0), (1.0, -2.0, 1.5))
LESION = ellipsoid(SHAPE, (2.5, 2.5, 2.0), (3.0, 2.0, -1.0)) & BRAIN
N = int(BRAIN.sum())
Error = Callable[[np.ndarray, int], np.ndarray]
"""Mask `(I, J, K)` and the pass's number, from 1, to the difference of painted and true image `(C, I, J, K)`."""


def scan(channels: int = 1) -> Scan:
    image = np.random.default_rng(0).normal(size=(channels, *SHAPE)).astype(np.float32) * BRAIN
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    return Scan(image, affine, id="known", brain=BRAIN, sequences=("T1w", "FLAIR")[:channels])


class Painter:
    """Stands in for the network: paints the true image with a known difference, and keeps the masks that it was shown."""

    def __init__(self, subject: Scan, off: Error) -> None:
        self.scan, self.off, self.masks, self.inputs = subject, off, [], []
        self.low, self.high = box(subject.brain, 16)
        edge = [max(0, -int(a)) for a in self.low]
        far = [max(0, int(b) - n) for b, n in zip(self.high, subject.grid.shape, strict=True)]
        self.pad = [(0, 0), *zip(edge, far, strict=True)]
        self.at = (
            slice(None),
            *(slice(int(a) + e, int(b) + e) for a, b, e in zip(self.low, self.high, edge, strict=True)),
        )

    def cut(self, volume: np.ndarray) -> np.ndarray:
        return np.pad(volume, self.pad)[self.at]

    def back(self, part: np.ndarray) -> np.ndarray:
        whole = np.zeros_like(np.pad(np.zeros((part.shape[0], *SHAPE), dtype=part.dtype), self.pad))
        whole[self.at] = part
        return whole[(slice(None), *(slice(a, a + n) for (a, _), n in zip(self.pad[1:], SHAPE, strict=True)))]

    def __call__(self, x: Tensor) -> Tensor:
        assert x.shape[0] == 1
        assert all(n % 16 == 0 for n in x.shape[2:])
        channels = len(self.scan.image)
        given = x[0].numpy().copy()  # the method writes into one tensor, pass after pass
        self.inputs.append(given)
        mask = (self.back(given[:channels]) != self.scan.image).any(axis=0)
        self.masks.append(mask)
        off = self.off(mask, len(self.masks)).astype(np.float32)
        return torch.tensor(self.cut(self.scan.image + np.broadcast_to(off, self.scan.image.shape)))[None]


def squared(subject: Scan, off: np.ndarray) -> np.ndarray:
    """The error that a painter's difference makes, rounded as float32 does; 0 outside the brain."""
    painted = subject.image + np.broadcast_to(off.astype(np.float32), subject.image.shape)
    return np.asarray(((painted - subject.image) ** 2).mean(axis=0) * subject.brain)


def find(
    monkeypatch: pytest.MonkeyPatch, off: Error, subject: Scan | None = None, seed: int = 0, **arguments: Any
) -> tuple[Finding, Painter]:
    """What the method finds with a painter in the network's place; with every step, if nothing else is said."""
    subject = subject or scan()
    painter = Painter(subject, off)
    monkeypatch.setattr(itermask3d, "engine", lambda net, device, dtype, name: painter)
    method = IterMask3D(**{"width": 2, "channels": len(subject.image), "schedule": "exact", **arguments})
    # One precision for all passes, whatever the processor has.
    method.precision = "float32"
    return method.find(subject, torch.Generator().manual_seed(seed)), painter


FIXED = np.random.default_rng(1).gamma(1.0, 0.35, size=(1, *SHAPE))
"""A difference that does not depend on the mask; every voxel has its own."""


def fixed(mask: np.ndarray, number: int) -> np.ndarray:
    return FIXED


def moody(mask: np.ndarray, number: int) -> np.ndarray:
    """A difference that changes with every pass, so that voxels come back; smaller where less is hidden."""
    own = np.random.default_rng(number).uniform(0.7, 1.3, size=(1, *SHAPE))
    return np.asarray(FIXED * own * (0.4 + 0.6 * mask.sum() / N) + 2.0 * LESION * mask)


def curve(tau: Callable[[np.ndarray], np.ndarray]) -> Error:
    """A painter with a threshold curve: whatever is hidden, a share `s` of the brain has errors of at most `tau(s)`."""
    share = np.zeros(SHAPE)
    share[BRAIN] = (np.random.default_rng(2).permutation(N) + 1) / N
    off = np.sqrt(tau(share))[None] * BRAIN
    return lambda mask, number: off


BENDS = {
    "fixed": fixed,
    "tangent": curve(lambda s: 0.1 * np.tan(0.985 * np.pi / 2 * s)),
    "exponential": curve(lambda s: 0.01 * np.exp(3 * s) + 3 * np.exp((s - 1) * 25)),
}
"""Painters whose threshold curve is flat and then bends."""


def plain(subject: Scan, off: Error, gammas: dict[str, float], steps: int, measured: Sequence[int]) -> SimpleNamespace:
    """Section 3.2, 3.4 and Algorithm 1, voxel by voxel and without cleverness.

    Steps that are not measured are ranked by the last pass. `masks`: what the network was shown, pass by pass.
    """
    masks: list[np.ndarray] = []
    errors: list[np.ndarray] = []

    def error(mask: np.ndarray) -> np.ndarray:
        masks.append(mask)
        errors.append(squared(subject, off(mask, len(masks))))
        return errors[-1]

    brain = subject.brain
    n = int(brain.sum())
    voxels = [tuple(v) for v in np.argwhere(brain)]
    order = np.zeros(brain.shape, dtype=int)
    taus = {}
    mask = brain
    for t in range(1, steps + 1):
        if t in measured:
            e = error(mask)
        values = np.sort([e[at] for at in voxels])
        tau = values[max(1, round(n * t / steps)) - 1]
        if t in measured:
            taus[t] = float(tau)
        mask = np.zeros_like(brain)
        for at in voxels:
            if e[at] > tau:
                mask[at] = True
                order[at] = t
    whole = between(taus, steps)
    slope = bend(whole).slope
    finals, stops = {}, {}
    for name, gamma in gammas.items():
        stops[name] = stop(whole, slope, gamma)
        finals[name] = np.zeros_like(brain)
        if stops[name].tau is None:
            continue
        m, e = brain, errors[0]
        while True:
            after = (e > np.float32(stops[name].tau)) & brain
            shrunk = (int(m.sum()) - int(after.sum())) / int(m.sum())
            m = after
            if not m.any() or shrunk < 0.01:
                break
            e = error(m)
        finals[name] = m
    last = error(finals["mask"])
    return SimpleNamespace(tau=whole, masks=masks, order=order, stops=stops, finals=finals, map=last)


def agree(found: Finding, painter: Painter, expected: SimpleNamespace) -> None:
    """That a finding is what `plain` says, pass by pass."""
    np.testing.assert_allclose(found.trace.tau, expected.tau, rtol=1e-6)
    assert len(painter.masks) == len(expected.masks)
    assert all(np.array_equal(a, b) for a, b in zip(painter.masks, expected.masks, strict=True))
    np.testing.assert_array_equal(found.trace.order, expected.order)
    np.testing.assert_array_equal(found.mask, expected.finals["mask"])
    np.testing.assert_allclose(found.map, expected.map, rtol=1e-6)
    voxel_ml = painter.scan.voxel_ml
    assert found.scores["volume_ml"] == pytest.approx(expected.finals["score"].sum() * voxel_ml)
    for name, end in expected.stops.items():
        said = found.trace.facts["stops"][name]
        assert (said["gamma"], said["t"]) == (end.gamma, end.step)
        assert said["tau"] == pytest.approx(end.tau)
        assert said["ml"] == pytest.approx(expected.finals[name].sum() * voxel_ml)
    assert found.trace.facts["passes"] == len(painter.masks)
    # First every measured step, then the two refinements, then the pass that map and healthy image are of.
    assert len(painter.masks) == len(found.trace.facts["measured"]) + sum(found.trace.facts["refining"].values()) + 1
