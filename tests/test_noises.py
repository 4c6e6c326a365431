"""Coarse noise: grid, roll, SD, signs; inside the brain whatever the intensities are. Unequal axes throughout."""

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
from helpers import ellipsoid

SHAPES = [(2, 40, 56), (3, 18, 26, 22)]
both = pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_noise(shape: tuple[int, ...], cells: tuple[int, ...], sd: float, rng: torch.Generator) -> np.ndarray:
    """The same draws; each voxel asks SciPy where on the coarse grid it lies."""
    coarse = sd * torch.randn(1, shape[0], *cells, generator=rng)[0].numpy().astype(np.float64)
    steps = [(c - 1) / max(n - 1, 1) for c, n in zip(cells, shape[1:], strict=True)]
    index = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape[1:], steps, strict=True)), indexing="ij")
    channels = [ndimage.map_coordinates(channel, index, order=1, mode="nearest") for channel in coarse]
    shifts = [int(torch.randint(n, (1,), generator=rng)) for n in shape[1:]]
    return np.stack([np.roll(channel, shifts, range(len(shifts))) for channel in channels])


@given(
    st.lists(st.tuples(st.integers(1, 24), st.integers(1, 9)), min_size=2, max_size=3),
    st.integers(1, 3),
    st.floats(0, 3),
    st.integers(0, 10**6),
)
def test_the_quick_way_is_the_slow_one(axes, channels, sd, seed):
    shape, cells = (channels, *(n for n, _ in axes)), tuple(c for _, c in axes)
    quick = coarse_noise(shape, seeded(seed), cell=cells, sd=sd)
    np.testing.assert_allclose(quick.numpy(), slow_noise(shape, cells, sd, seeded(seed)), atol=1e-5)


@both
def test_a_seed_says_all(shape):
    first = coarse_noise(shape, seeded(3))
    torch.manual_seed(7)
    assert torch.equal(first, coarse_noise(shape, seeded(3)))
    assert not torch.equal(first, coarse_noise(shape, seeded(4)))
    assert first.shape == shape
    assert first.dtype == torch.float32


@both
def test_signs_have_one_magnitude(shape):
    drawn, positive, negative = (coarse_noise(shape, seeded(1), sign=sign) for sign in SIGNS)
    assert torch.equal(positive, drawn.abs())
    assert torch.equal(negative, -drawn.abs())
    assert drawn.min() < 0 < drawn.max()


@both
def test_mean_and_sd_over_draws(shape):
    """SD 0.2 at points of the coarse grid; linear weights between them leave 2/3 of the variance, on average, an axis."""
    drawn = torch.stack([coarse_noise(shape, seeded(s), cell=5) for s in range(200)])
    axes = len(shape) - 1
    assert float(drawn.mean()) == pytest.approx(0, abs=0.01)
    assert float(drawn.std()) == pytest.approx(0.2 * (2 / 3) ** (axes / 2), rel=0.1)
    # As many cells as voxels: nothing is between.
    plain = coarse_noise((1, 60, 70), seeded(), cell=(60, 70), sd=1.2)
    assert float(plain.std()) == pytest.approx(1.2, rel=0.05)
    channels = torch.corrcoef(drawn.transpose(0, 1).flatten(1))
    assert float(channels[0, 1].abs()) < 0.1, "each channel by itself"


@both
def test_noise_is_as_coarse_as_its_cells(shape):
    """Between neighbours the change is small, save at the seam where the rolled faces meet: one plane an axis."""
    noise = coarse_noise(shape, seeded(2), cell=4, sd=1.0)
    for axis in range(1, len(shape)):
        steps = noise.diff(dim=axis).abs().movedim(axis, 0).flatten(1).amax(dim=1)
        # Steps of one voxel are at most the coarse grid's, over the voxels between its points.
        limit = 8.0 / ((shape[axis] - 1) / 3)
        assert int((steps > limit).sum()) <= 1
        assert float(steps.median()) < limit


def test_every_roll_happens():
    """With one cell set the face that was first tells the shift; over draws, all of them."""
    shape = (1, 5, 7)
    shifts = set()
    for seed in range(300):
        rolled = coarse_noise(shape, seeded(seed), cell=(5, 7))[0]
        plain = 0.2 * torch.randn(1, 1, 5, 7, generator=seeded(seed))[0, 0]
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
    out = add_coarse_noise(x, brain, seeded(6), sd=1.2)
    assert torch.equal(x, before)
    assert torch.equal(out[:, ~brain], x[:, ~brain])
    torch.testing.assert_close(out[:, brain], (x + coarse_noise(shape, seeded(6), sd=1.2))[:, brain])
    changed = (out != x)[:, brain].float().mean()
    assert changed > 0.99
    for dtype in (torch.float64, torch.float16):
        assert add_coarse_noise(x.to(dtype), brain, seeded(6)).dtype == dtype
    empty = torch.zeros_like(brain)
    assert torch.equal(add_coarse_noise(x, empty, seeded(6)), x)


def test_a_slice_may_be_a_volume_of_one():
    noise = coarse_noise((1, 12, 15, 1), seeded())
    assert noise.shape == (1, 12, 15, 1)
    assert noise.std() > 0


GOLDEN = {"both": -0.0055, "positive": 0.1048, "negative": -0.1048}
"""Means of one draw on (2, 40, 56)."""


@pytest.mark.parametrize("sign", SIGNS)
def test_golden(sign):
    assert float(coarse_noise((2, 40, 56), seeded(11), sign=sign).mean()) == pytest.approx(GOLDEN[sign], abs=2e-4)


def test_wrong_calls_are_refused_in_words():
    with pytest.raises(BadCall, match="unknown sign 'up'; known: both, negative, positive"):
        coarse_noise((1, 8, 9), seeded(), sign="up")
    for shape in ((1, 8), (1, 8, 9, 7, 6)):
        with pytest.raises(BadCall, match="coarse noise is for a shape"):
            coarse_noise(shape, seeded())
    for cell in (0, (4, 5, 6), (4, 0), (4,)):
        with pytest.raises(BadCall, match="1 cell or more along each of 2 axes"):
            coarse_noise((1, 8, 9), seeded(), cell=cell)
    for sd in (-0.1, math.nan, math.inf):
        with pytest.raises(BadCall, match="SD of coarse noise"):
            coarse_noise((1, 8, 9), seeded(), sd=sd)
    x = torch.zeros(1, 8, 9)
    for brain in (torch.zeros(9, 8, dtype=torch.bool), torch.zeros(8, 9), torch.zeros(1, 8, 9, dtype=torch.bool)):
        with pytest.raises(BadCall, match="coarse noise needs an image"):
            add_coarse_noise(x, brain, seeded())
