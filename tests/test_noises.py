"""Coarse noise: grid in mm, roll, SD, signs; inside the brain whatever the intensities are. Unequal axes throughout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from anomri.corruptions.noise import SIGNS, add_coarse_noise, coarse_noise
from anomri.errors import BadCall
from anomri.methods.dae import DAE
from helpers import ellipsoid

SHAPES = [(2, 40, 56), (3, 18, 26, 22)]
both = pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
MM = (1.9, 2.3, 2.0)
"""Spacing along each axis; the first two on slices."""


def of(shape: tuple[int, ...]) -> tuple[float, ...]:
    return MM[: len(shape) - 1]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_noise(
    shape: tuple[int, ...], spacing: tuple[float, ...], cell_mm: float, sd: float, rng: torch.Generator
) -> np.ndarray:
    """The same draws; each voxel asks SciPy where on the coarse grid it lies, from its place in mm."""
    ends = [(n - 1) * mm for n, mm in zip(shape[1:], spacing, strict=True)]
    points = [max(2, 1 + math.ceil(round(end / cell_mm, 6))) for end in ends]
    coarse = sd * torch.randn(shape[0], *points, generator=rng).numpy().astype(np.float64)
    places = [np.arange(n) * mm / cell_mm for n, mm in zip(shape[1:], spacing, strict=True)]
    index = np.meshgrid(*places, indexing="ij")
    channels = [ndimage.map_coordinates(channel, index, order=1, mode="nearest") for channel in coarse]
    shifts = [int(torch.randint(n, (1,), generator=rng)) for n in shape[1:]]
    return np.stack([np.roll(channel, shifts, range(len(shifts))) for channel in channels])


@given(
    st.lists(st.tuples(st.integers(1, 24), st.floats(0.3, 9)), min_size=2, max_size=3),
    st.integers(1, 3),
    st.floats(1, 40),
    st.floats(0, 3),
    st.integers(0, 10**6),
)
def test_the_quick_way_is_the_slow_one(axes, channels, cell_mm, sd, seed):
    shape, spacing = (channels, *(n for n, _ in axes)), tuple(mm for _, mm in axes)
    quick = coarse_noise(shape, spacing, seeded(seed), cell_mm=cell_mm, sd=sd)
    np.testing.assert_allclose(quick.numpy(), slow_noise(shape, spacing, cell_mm, sd, seeded(seed)), atol=1e-4)


@both
def test_a_seed_says_all(shape):
    first = coarse_noise(shape, of(shape), seeded(3))
    torch.manual_seed(7)
    assert torch.equal(first, coarse_noise(shape, of(shape), seeded(3)))
    assert not torch.equal(first, coarse_noise(shape, of(shape), seeded(4)))
    assert first.shape == shape
    assert first.dtype == torch.float32


@both
def test_signs_clip_one_noise(shape):
    """Not its magnitude: half of the image stays as it is."""
    drawn, positive, negative = (coarse_noise(shape, of(shape), seeded(1), sign=sign) for sign in SIGNS)
    assert drawn.min() < 0 < drawn.max()
    assert positive.min() == 0 == negative.max()
    assert torch.equal(positive + negative, drawn)
    assert torch.equal(positive[drawn > 0], drawn[drawn > 0])
    assert not positive[drawn < 0].any()
    several = torch.stack([coarse_noise(shape, of(shape), seeded(s), sign="positive") for s in range(60)])
    assert float((several == 0).float().mean()) == pytest.approx(0.5, abs=0.05)


@both
def test_mean_and_sd_over_draws(shape):
    """SD 0.2 at points of the coarse grid; between them, linear weights leave 2/3 of the variance an axis on average."""
    axes = len(shape) - 1
    # Eight voxels from point to point: w^2 + (1 - w)^2 is 2/3 + 1 / (3 * 8^2) on average over them.
    whole = (shape[0], *(8 * n for n in (4, 5, 3)[:axes]))
    drawn = torch.stack([coarse_noise(whole, of(whole), seeded(s), cell_mm=8 * MM[0]) for s in range(100)])
    assert float(drawn.mean()) == pytest.approx(0, abs=0.02)
    even = torch.stack([coarse_noise(whole, [1.5] * axes, seeded(s), cell_mm=12.0) for s in range(100)])
    assert float(even.std()) == pytest.approx(0.2 * (2 / 3 + 1 / 192) ** (axes / 2), rel=0.04)
    # A point in each voxel: nothing is between.
    plain = coarse_noise((1, 60, 70), (1.5, 1.5), seeded(), cell_mm=1.5, sd=1.2)
    assert float(plain.std()) == pytest.approx(1.2, rel=0.05)
    channels = torch.corrcoef(drawn.transpose(0, 1).flatten(1))
    assert float(channels[0, 1].abs()) < 0.1, "each channel by itself"


@both
def test_blotches_are_as_wide_in_mm_whatever_the_array_and_the_spacing_are(shape):
    """The mean squared step from voxel to voxel tells how far points lie apart: `2 sd^2 (mm / cell_mm)^2`, times what the
    other axes leave of the variance. With so many cells an array, an array of half the size has steps of twice the size."""
    axes, cell_mm, channels = len(shape) - 1, 12.0, 150
    for edges, spacing in (
        ((48, 40, 24), (1.0, 1.0, 1.0)),
        ((32, 27, 25), (1.0, 1.0, 1.0)),
        ((24, 32, 25), (2.0, 1.5, 3.0)),
    ):
        edges, spacing = edges[:axes], spacing[:axes]
        noise = coarse_noise((channels, *edges), spacing, seeded(4), cell_mm=cell_mm, sd=1.0)
        for axis in range(axes):
            step = noise.diff(dim=axis + 1).square().movedim(axis + 1, 0).flatten(1).mean(dim=1)
            # The seam is the largest of the steps.
            found = float(step.sort().values[:-1].mean())
            expected = 2 * (spacing[axis] / cell_mm) ** 2
            for other, mm in enumerate(spacing):
                if other != axis:
                    w = np.arange(edges[other]) * mm / cell_mm % 1
                    expected *= (w**2 + (1 - w) ** 2).mean()
            assert found == pytest.approx(expected, rel=0.15)


@both
def test_values_lie_on_lines_between_points_so_many_mm_apart(shape):
    """Bends are where points are: on this grid in every eighth voxel, and on both sides of the seam."""
    axes = len(shape) - 1
    whole = (1, *(8 * n + 3 for n in (4, 5, 3)[:axes]))
    noise = coarse_noise(whole, [1.5] * axes, seeded(2), cell_mm=12.0, sd=1.0)
    for axis in range(1, axes + 1):
        bends = noise.diff(n=2, dim=axis).abs().movedim(axis, 0).flatten(1).amax(dim=1)
        at = (bends > 1e-4).nonzero().flatten() + 1
        n = whole[axis]
        # Both voxels at the seam bend, of which one may be the array's own end.
        phases = {(int(a) - int(b)) % n for a in at for b in at if a != b}
        assert 8 in phases
        assert len(at) <= n // 8 + 2


@both
def test_the_seam_is_one_plane_an_axis(shape):
    """Between neighbours the change is small, save where the rolled faces meet."""
    noise = coarse_noise(shape, of(shape), seeded(2), cell_mm=18.0, sd=1.0)
    for axis in range(1, len(shape)):
        steps = noise.diff(dim=axis).abs().movedim(axis, 0).flatten(1).amax(dim=1)
        # Steps of one voxel are at most the coarse grid's, over the voxels between its points.
        limit = 8.0 * MM[axis - 1] / 18.0
        assert int((steps > limit).sum()) <= 1
        assert float(steps.median()) < limit


def test_every_roll_happens():
    """The voxel that was first tells the shift; over draws, all of them."""
    shape = (1, 5, 7)
    shifts = set()
    for seed in range(300):
        rolled = coarse_noise(shape, (2.0, 2.0), seeded(seed), cell_mm=2.0)[0]
        plain = 0.2 * torch.randn(1, 5, 7, generator=seeded(seed))[0]
        at = (rolled - plain[0, 0]).abs().flatten().argmin()
        shifts.add((int(at) // 7, int(at) % 7))
    assert len(shifts) > 33


@pytest.mark.parametrize("shift", [0.0, -3.0, 5.0])
@both
def test_in_the_brain_whatever_the_intensities_are(shape, shift):
    """The published code keys on intensity > 0.01: z-scored, half of the brain would stay as it was."""
    axes = tuple(n * 0.4 for n in shape[1:])
    brain = torch.tensor(ellipsoid(shape[1:], axes, (0.5,) * len(axes)))
    x = torch.randn(shape, generator=seeded(5)) + shift
    before = x.clone()
    out = add_coarse_noise(x, brain, of(shape), seeded(6), sd=1.2)
    assert torch.equal(x, before)
    assert torch.equal(out[:, ~brain], x[:, ~brain])
    torch.testing.assert_close(out[:, brain], (x + coarse_noise(shape, of(shape), seeded(6), sd=1.2))[:, brain])
    changed = (out != x)[:, brain].float().mean()
    assert changed > 0.99
    for dtype in (torch.float64, torch.float16):
        assert add_coarse_noise(x.to(dtype), brain, of(shape), seeded(6)).dtype == dtype
    empty = torch.zeros_like(brain)
    assert torch.equal(add_coarse_noise(x, empty, of(shape), seeded(6)), x)


def test_a_slice_may_be_a_volume_of_one():
    noise = coarse_noise((1, 12, 15, 1), MM, seeded())
    assert noise.shape == (1, 12, 15, 1)
    assert noise.std() > 0


GOLDEN = {"both": -0.0032, "positive": 0.0515, "negative": -0.0547}
"""Means of one draw on (2, 40, 56)."""


@pytest.mark.parametrize("sign", SIGNS)
def test_golden(sign):
    assert float(coarse_noise((2, 40, 56), (1.875, 1.875), seeded(11), sign=sign).mean()) == pytest.approx(
        GOLDEN[sign], abs=2e-4
    )


def test_wrong_calls_are_refused_in_words():
    with pytest.raises(BadCall, match="unknown sign 'up'; known: both, negative, positive"):
        coarse_noise((1, 8, 9), (2.0, 2.0), seeded(), sign="up")
    for shape in ((1, 8), (1, 8, 9, 7, 6)):
        with pytest.raises(BadCall, match="coarse noise is for a shape"):
            coarse_noise(shape, [2.0] * (len(shape) - 1), seeded())
    for spacing in ((2.0,), (2.0, 2.0, 2.0), (2.0, 0.0), (2.0, -1.0), (math.nan, 2.0)):
        with pytest.raises(BadCall, match="spacing along each of 2 axes"):
            coarse_noise((1, 8, 9), spacing, seeded())
    for cell_mm in (0.0, -15.0, math.nan, math.inf):
        with pytest.raises(BadCall, match="distance of its points"):
            coarse_noise((1, 8, 9), (2.0, 2.0), seeded(), cell_mm=cell_mm)
    for sd in (-0.1, math.nan, math.inf):
        with pytest.raises(BadCall, match="SD of coarse noise"):
            coarse_noise((1, 8, 9), (2.0, 2.0), seeded(), sd=sd)
    x = torch.zeros(1, 8, 9)
    for brain in (torch.zeros(9, 8, dtype=torch.bool), torch.zeros(8, 9), torch.zeros(1, 8, 9, dtype=torch.bool)):
        with pytest.raises(BadCall, match="coarse noise needs an image"):
            add_coarse_noise(x, brain, (2.0, 2.0), seeded())


# --- the method that learns from it --------------------------------------------------------------------------------


@pytest.mark.parametrize(("dims", "expected"), [(2, 15.0), (3, 12.0)])
def test_dae_has_the_papers_distance_of_points_and_the_scans_spacing(dims, expected):
    shape = (1, 20, 24, 18)[: dims + 1]
    x, brain, spacing = torch.randn(shape, generator=seeded()), torch.ones(shape[1:], dtype=torch.bool), MM[:dims]
    for cell_mm, meant in ((None, expected), (7.0, 7.0)):
        method = DAE(dims=dims, cell_mm=cell_mm, noise=0.7, noise_sign="negative")
        out = method.corrupt(x, brain, spacing, seeded(5))
        noise = coarse_noise(shape, spacing, seeded(5), cell_mm=meant, sd=0.7, sign="negative")
        torch.testing.assert_close(out, x + noise)


def test_dae_learns_nothing_from_slices_without_brain():
    """0 / 0 would end a training."""
    net, x = torch.nn.Identity(), torch.randn(2, 1, 8, 9)
    batch = {"input": x + 1, "x": x, "brain": torch.zeros(2, 1, 8, 9, dtype=torch.bool)}
    assert float(DAE().loss(net, batch)) == 0
    batch["brain"][0, 0, 2, 3] = True
    assert float(DAE().loss(net, batch)) == pytest.approx(1, abs=1e-5)
