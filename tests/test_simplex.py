"""Simplex noise: unit variance everywhere, each image its own, coarse and fine; and what a lattice's equation says, slowly."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from anomri.corruptions import simplex
from anomri.corruptions.simplex import simplex_noise
from anomri.errors import BadCall

SHAPES = [(300, 1, 40, 28), (200, 1, 16, 22, 12)]
both = pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def called(shape: tuple[int, ...], calls: int, **how) -> torch.Tensor:
    """Noise of many calls, each with lattices at places of their own."""
    rng = seeded()
    return torch.cat([simplex_noise((1, *shape[1:]), rng, **how) for _ in range(calls)])


@both
@pytest.mark.parametrize("how", [{}, {"octaves": 1, "frequency": 8.0}, {"octaves": 3, "persistence": 0.5}])
def test_mean_and_variance_of_every_voxel(shape, how):
    made = called(shape, 400, **how)
    assert made.dtype == torch.float32
    assert abs(float(made.mean())) < 0.1
    assert float(made.square().mean()) == pytest.approx(1, abs=0.1)
    # 400 draws tell an SD to 4 %; the many voxels' extremes lie farther out.
    assert 0.7 < float(made.std(dim=0).min()) < float(made.std(dim=0).max()) < 1.35


@both
def test_images_and_channels_have_noise_of_their_own(shape):
    a = simplex_noise((40, 2, *shape[2:]), seeded()).flatten(2)
    fine = simplex_noise((40, 2, *shape[2:]), seeded(), octaves=1, frequency=3.0).flatten(2)
    for made, most in ((a, 0.35), (fine, 0.1)):
        flat = made.flatten(0, 1)
        alike = torch.corrcoef(flat) - torch.eye(len(flat))
        assert float(alike.square().mean().sqrt()) < most
        assert abs(float(alike.mean())) < 0.05


@both
def test_neighbours_are_alike_as_far_as_a_wave_reaches(shape):
    coarse = called(shape, 60, octaves=1, frequency=8.0)

    def alike(lag: int) -> float:
        a, b = coarse[:, :, lag:], coarse[:, :, : shape[2] - lag]
        return float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt())

    assert alike(1) > 0.8
    assert alike(4) < 0.5
    assert abs(alike(12)) < 0.1
    # No direction is another's: a lag along the last axis says the same.
    a, b = coarse[..., 2:], coarse[..., :-2]
    assert float((a * b).mean() / (a * a).mean()) == pytest.approx(alike(2), abs=0.1)


def test_each_octave_adds_its_share_of_the_spectrum():
    """Of 0.8^n amplitude and half the wavelength each: power falls with frequency, over the whole range."""
    made = called((1, 1, 128, 128), 40).squeeze(1)
    power = torch.fft.fft2(made).abs().square().mean(dim=0)
    f = torch.fft.fftfreq(128)
    radius = (f[:, None] ** 2 + f[None] ** 2).sqrt()
    bands = [power[(radius >= low) & (radius < 2 * low)].mean() for low in (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)]
    assert all(a > 1.5 * b for a, b in itertools.pairwise(bands))
    assert bands[-1] > 3e-4 * bands[0]


def test_the_same_generator_draws_the_same_and_no_other_is_touched():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b, c = (simplex_noise((2, 1, 12, 9), seeded(s)) for s in (4, 4, 5))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("axes", [2, 3])
def test_the_quick_way_is_the_slow_one(axes, images, monkeypatch):
    """Voxel by voxel over all nodes in reach, with the same directions; their places from the definition. The quick way is in pieces."""
    monkeypatch.setattr(simplex, "PIECE", 45)
    edges, step, skew = (7, 5, 4)[:axes], 3.0, (math.sqrt(axes + 1) - 1) / axes
    kept = {}
    real = simplex._directions

    def directions(n, axes, images, rng):
        kept["g"] = real(n, axes, images, rng)
        return kept["g"]

    monkeypatch.setattr(simplex, "_directions", directions)
    made = torch.zeros(math.prod(edges), images)
    shifts = torch.rand(1, axes, generator=seeded(2))
    simplex._add_octaves(made, edges, torch.tensor([step]), torch.ones(1), shifts, seeded(2))
    shift = shifts[0].double().numpy()
    places = np.stack(np.meshgrid(*(np.arange(n) / step for n in edges), indexing="ij"), axis=-1).reshape(-1, axes)
    skewed = places + skew * places.sum(axis=1, keepdims=True) + shift
    sizes = np.floor(skewed).max(axis=0).astype(int) + 2
    expected, back = np.zeros(len(places)), skew / (1 + axes * skew)
    for number, node in enumerate(itertools.product(*(range(n) for n in sizes))):
        d = skewed - np.array(node)
        d = d - back * d.sum(axis=1, keepdims=True)
        falls = np.maximum(0, (0.5 if axes == 2 else 0.6) - (d * d).sum(axis=1)) ** 4
        expected += falls * sum(d[:, a] * float(kept["g"][a][number, -1]) for a in range(axes))
    scale = np.abs(expected).max()
    # In volumes a node reaches a little beyond its simplices, which is left out there by all who make this noise.
    off = np.abs(made[:, -1].numpy() - expected) / scale
    assert off.max() < (1e-4 if axes == 2 else 0.05)
    assert np.median(off) < 1e-4


@both
def test_octaves_together_are_octaves_one_by_one(shape, monkeypatch):
    edges, how = (
        shape[2:],
        (torch.tensor([8.0, 4.0, 2.0]), torch.tensor([1.0, 0.7, 0.5]), torch.rand(3, len(shape) - 2)),
    )
    drawn = []
    real = simplex._directions
    monkeypatch.setattr(simplex, "_directions", lambda *given: drawn.append(real(*given)) or drawn[-1])
    for images in (1, 3):
        together, alone = torch.zeros(math.prod(edges), images), torch.zeros(math.prod(edges), images)
        simplex._add_octaves(together, edges, *how, seeded())
        left = list(drawn[-1])

        def taken(n, axes, images, rng, left=left):
            parts = [part[:n] for part in left]
            left[:] = [part[n:] for part in left]
            return parts

        with monkeypatch.context() as inner:
            inner.setattr(simplex, "_directions", taken)
            for n in range(3):
                simplex._add_octaves(alone, edges, *(part[n : n + 1] for part in how), seeded())
        assert not len(left[0]), "all nodes are used"
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_golden():
    assert simplex_noise((1, 1, 2, 3), seeded()).flatten().tolist() == pytest.approx(GOLDEN_2D, abs=1e-4)
    assert simplex_noise((1, 1, 2, 1, 2), seeded()).flatten().tolist() == pytest.approx(GOLDEN_3D, abs=1e-4)


GOLDEN_2D = [0.1238, 0.3537, -0.0526, -0.66249, -0.10928, 0.23233]
GOLDEN_3D = [0.58447, 0.86218, 0.73218, 0.95245]


def test_what_cannot_be_drawn():
    for shape in ((1, 2, 3), (1, 1, 2, 3, 4, 5)):
        with pytest.raises(BadCall, match=r"give \(B, C, I, J\) or"):
            simplex_noise(shape, seeded())
    for how in ({"octaves": 0}, {"persistence": 0.0}, {"frequency": float("nan")}):
        with pytest.raises(BadCall, match="needs 1 octave or more"):
            simplex_noise((1, 1, 4, 4), seeded(), **how)
    with pytest.raises(BadCall, match=r"16 octaves has .* nodes on a grid of 8 x 8, at most .*; take fewer octaves"):
        simplex_noise((1, 1, 8, 8), seeded(), octaves=16)


def test_heads_at_a_millimetre_can_be_drawn():
    simplex.drawable((192, 224, 192))
    simplex.drawable((256, 256, 256))
    with pytest.raises(BadCall, match="nodes on a grid of 400 x 400 x 400"):
        simplex.drawable((400, 400, 400))
