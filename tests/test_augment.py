"""Augmentation: each change against its formula, how often it is made, what stays. Unequal axes throughout."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anomri.corruptions.artefacts import fields, kspace
from anomri.corruptions.augment import GHOSTS, augment
from anomri.errors import BadCall
from helpers import ellipsoid

SHAPE, SPACING = (18, 24, 21), (4.0, 3.5, 5.0)
BRAIN = torch.tensor(ellipsoid(SHAPE, (7.0, 9.6, 8.0), (0.4, -0.7, 0.3)))
OFF = {"gamma": 0.0, "bias": 0.0, "blur": 0.0, "ghosting": 0.0}
CHANGES = tuple(OFF)
every = pytest.mark.parametrize("name", CHANGES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def raw(brain: Tensor = BRAIN) -> Tensor:
    """Two channels of tissue with texture between 200 and 900; 0 outside the brain."""
    waves = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in brain.shape), indexing="ij")
    tissue = 500 + 150 * torch.sin(7 * waves[0]) * torch.cos(6 * waves[1])
    x = torch.stack([tissue, 900 - 0.8 * tissue]) * (1 + 0.05 * torch.randn(2, *brain.shape, generator=seeded(5)))
    return torch.where(brain, x, 0.0)


def zscored(x: Tensor, brain: Tensor = BRAIN) -> Tensor:
    values = x[:, brain]
    mean, sd = (v.reshape(-1, *[1] * brain.ndim) for v in (values.mean(1), values.std(1)))
    return torch.where(brain, (x - mean) / sd, 0.0)


def alone(name: str, x: Tensor, seed: int = 0, brain: Tensor = BRAIN, spacing: tuple[float, ...] = SPACING) -> Tensor:
    return augment(x, brain, spacing, seeded(seed), **{**OFF, name: 1.0})


def signal(x: Tensor) -> Tensor:
    """0 in the brain's darkest voxel and outside."""
    return torch.where(BRAIN, x - x[:, BRAIN].amin(1)[:, None, None, None], 0.0)


# --- promises of all -----------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("x", [raw(), zscored(raw())], ids=["raw", "zscored"])
def test_a_seed_says_all_the_input_stays_and_so_does_the_background(name, x):
    before, inside = x.clone(), BRAIN.clone()
    for background in (0.0, -7.0):
        shown = torch.where(BRAIN, x, background)
        first = alone(name, shown, 3)
        torch.manual_seed(4)
        assert torch.equal(first, alone(name, shown, 3))
        assert not torch.equal(first, alone(name, shown, 5))
        assert (first[:, ~BRAIN] == background).all()
        assert first.isfinite().all()
        assert float((first - shown)[:, BRAIN].abs().mean()) > 1e-3 * float(shown[:, BRAIN].std())
    assert torch.equal(x, before)
    assert torch.equal(BRAIN, inside)


@every
def test_what_is_outside_the_brain_is_not_looked_at(name):
    """A head, or any other background, changes nothing in the brain, and is not changed."""
    x = zscored(raw())
    head = torch.where(BRAIN, x, 3 * torch.randn(x.shape, generator=seeded(8)))
    out = alone(name, head, 2)
    assert torch.equal(out[:, BRAIN], alone(name, x, 2)[:, BRAIN])
    assert torch.equal(out[:, ~BRAIN], head[:, ~BRAIN])


@given(st.integers(0, 10**6), st.floats(0.01, 30), st.floats(-50, 50))
def test_an_image_and_its_normalised_copy_are_augmented_alike(seed, scale, shift):
    """TorchIO's power of a z-scored image, sign by sign, bends it about its mean: that fails here."""
    x = zscored(raw())
    other = torch.where(BRAIN, scale * x + shift, 0.0)
    out, same = (augment(y, BRAIN, SPACING, seeded(seed)) for y in (x, other))
    back = torch.where(BRAIN, (same - shift) / scale, 0.0)
    tolerance = 1e-4 * float(out.abs().max()) * (1 + abs(shift) / scale / 10)
    torch.testing.assert_close(back, out, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_dtype_is_kept(dtype):
    x = zscored(raw())
    on = dict.fromkeys(CHANGES, 1.0)
    out = augment(x.to(dtype), BRAIN, SPACING, seeded(), **on)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), augment(x, BRAIN, SPACING, seeded(), **on), atol=0.03, rtol=0.01)


def test_without_any_change_it_is_a_copy():
    x = raw()
    out = augment(x, BRAIN, SPACING, seeded(), **OFF)
    assert torch.equal(out, x)
    assert out is not x
    empty = torch.zeros_like(BRAIN)
    out = augment(x, empty, SPACING, seeded())
    assert torch.equal(out, x)
    assert out is not x


def test_each_is_made_as_often_as_said():
    """The published probabilities are the defaults; each is drawn by itself."""
    x = zscored(raw())
    alone_of = {}
    made = torch.zeros(240, 4)
    for seed in range(len(made)):
        out = augment(x, BRAIN, SPACING, seeded(seed))
        hits = torch.rand(4, generator=seeded(seed)) < torch.tensor([0.5, 0.25, 0.25, 0.5])
        if int(hits.sum()) == 1:
            name = CHANGES[int(hits.nonzero())]
            assert torch.equal(out, alone(name, x, seed)), "as by itself: the others draw nothing from it"
            alone_of[name] = alone_of.get(name, 0) + 1
        assert torch.equal(out, x) == (not hits.any())
        made[seed] = hits
    assert set(alone_of) == set(CHANGES)
    torch.testing.assert_close(made.mean(0), torch.tensor([0.5, 0.25, 0.25, 0.5]), atol=0.1, rtol=0)
    assert torch.corrcoef(made.T).triu(1).abs().max() < 0.2


# --- each by itself ------------------------------------------------------------------------------------------------


def test_gamma_is_a_power_of_the_brains_own_range():
    """Each channel has its exponent; darkest and brightest stay; exponents go from exp(-0.3) to exp(0.3)."""
    x = zscored(raw())
    logs = []
    for seed in range(60):
        out = alone("gamma", x, seed)
        for before, after in zip(x, out, strict=True):
            low, high = before[BRAIN].min(), before[BRAIN].max()
            t, u = ((y[BRAIN] - low) / (high - low) for y in (before, after))
            middle = (t > 0.2) & (t < 0.8)
            exponent = u[middle].log() / t[middle].log()
            assert float(exponent.std()) < 1e-3
            logs.append(math.log(float(exponent.mean())))
            assert float(u.min()) == pytest.approx(0, abs=1e-5)
            assert float(u.max()) == pytest.approx(1, abs=1e-5)
    drawn = torch.tensor(logs)
    assert -0.3005 < drawn.min() < -0.27
    assert 0.27 < drawn.max() < 0.3005
    assert float(torch.corrcoef(drawn.reshape(-1, 2).T)[0, 1].abs()) < 0.5


def test_bias_is_a_smooth_positive_factor_of_the_signal_for_all_channels():
    x = zscored(raw())
    coefficients = []
    for seed in range(40):
        before, after = signal(x), alone("bias", x, seed) - x[:, BRAIN].amin(1)[:, None, None, None]
        bright = BRAIN & (before > 0.5).all(dim=0)
        field = after[:, bright] / before[:, bright]
        torch.testing.assert_close(field[0], field[1], rtol=1e-3, atol=1e-4)
        at = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))[:, bright].double()
        powers = [(a, b, c) for a in range(4) for b in range(4 - a) for c in range(4 - a - b)]
        basis = torch.stack([at[0] ** a * at[1] ** b * at[2] ** c for a, b, c in powers], dim=1)
        solved = torch.linalg.lstsq(basis, field[0].double().log()[:, None]).solution[:, 0]
        assert float((basis @ solved - field[0].double().log()).abs().max()) < 1e-3, "the logarithm is a cubic"
        coefficients.append(solved)
    drawn = torch.stack(coefficients)
    assert drawn.abs().max() < 0.51
    assert drawn.abs().max() > 0.48
    assert drawn.mean().abs() < 0.05


def test_blur_is_a_gaussian_of_up_to_2_mm_along_each_axis_its_own():
    """A bright point in a dark brain that fills the grid: its moments are the variances."""
    shape, spacing = (33, 37, 41), (0.8, 1.0, 0.6)
    brain = torch.ones(*shape, dtype=torch.bool)
    x = torch.zeros(1, *shape)
    x[0, 16, 18, 20] = 1000.0
    found, drawn = [], []
    for seed in range(20):
        rng = seeded(seed)
        # The draws, in their order.
        torch.rand(4, generator=rng), torch.rand(1, generator=rng), torch.rand(20, generator=rng)
        drawn.append(2 * torch.rand(3, generator=rng))
        out = alone("blur", x, seed, brain, spacing)[0]
        assert float(out.sum()) == pytest.approx(1000, rel=1e-3)
        for axis, mm in enumerate(spacing):
            t = (torch.arange(shape[axis]) - shape[axis] // 2) * mm
            profile = out.sum(dim=[a for a in range(3) if a != axis])
            found.append(float((profile * t**2).sum() / 1000) ** 0.5)
    sigma, sd = torch.stack(drawn), torch.tensor(found).reshape(-1, 3)
    # The kernel ends at three SDs; of one far below a voxel a sample says little.
    wide = sigma > 0.6
    torch.testing.assert_close(sd[wide], sigma[wide], rtol=0.05, atol=0.02)
    assert (sd[sigma < 0.1] < 0.05).all()
    assert sigma.max() > 1.9
    assert sigma.min() < 0.1


def test_blur_loses_nothing_at_the_grids_faces():
    brain = torch.ones(*SHAPE, dtype=torch.bool)
    x = torch.full((1, *SHAPE), 5.0)
    x[0, 0, 0, 0] = 4.0
    out = alone("blur", x, 1, brain, (1.0, 1.0, 1.0))
    assert out.min() > 4
    assert float(out[0, -1].min()) == pytest.approx(5, abs=1e-5)


def test_ghosts_are_of_the_signal_along_any_axis_and_of_the_published_strength():
    x = zscored(raw())
    floor = x[:, BRAIN].amin(1)[:, None, None, None]
    ghosts, axes, strengths = set(), set(), []
    for seed in range(40):
        out = alone("ghosting", x, seed)
        rng = seeded(seed)
        # The draws, in their order.
        torch.rand(4, generator=rng), torch.rand(2, generator=rng), torch.rand(20, generator=rng)
        torch.rand(3, generator=rng)
        n, axis = int(torch.randint(4, 11, (1,), generator=rng)), int(torch.randint(3, (1,), generator=rng))
        strong = 0.5 + 0.5 * float(torch.rand((), generator=rng))
        expected = kspace.ghosting(signal(x), SPACING, ghosts=n, intensity=strong, axis=axis) + floor
        torch.testing.assert_close(out[:, BRAIN], expected[:, BRAIN])
        ghosts.add(n)
        axes.add(axis)
        strengths.append(strong)
    assert (min(ghosts), max(ghosts)) == GHOSTS == (4, 10)
    assert axes == {0, 1, 2}
    assert min(strengths) < 0.55
    assert max(strengths) > 0.95


def test_changes_are_made_in_order():
    """Bias after gamma, blur after both: with all of them on, undoing the field gives gamma back."""
    x = zscored(raw())
    floor = x[:, BRAIN].amin(1)[:, None, None, None]
    both = augment(x, BRAIN, SPACING, seeded(6), **{**OFF, "gamma": 1.0, "bias": 1.0})
    rng = seeded(6)
    torch.rand(4, generator=rng), torch.rand(2, generator=rng)
    field = fields.bias_field(SHAPE, 0.5 * (2 * torch.rand(20, generator=rng) - 1))
    torch.testing.assert_close(
        ((both - floor) / field + floor)[:, BRAIN], alone("gamma", x, 6)[:, BRAIN], atol=1e-4, rtol=1e-4
    )


# --- slices --------------------------------------------------------------------------------------------------------


@every
def test_a_slice_is_a_volume_of_one_slice(name):
    brain = BRAIN[..., 10]
    x = zscored(raw(brain), brain)
    for seed in range(6):
        out = alone(name, x, seed, brain, SPACING[:2])
        assert out.shape == x.shape
        assert (out[:, ~brain] == 0).all()
        assert not torch.equal(out, x)
        for thick in (0.5, 6.0):
            volume = alone(name, x[..., None], seed, brain[..., None], (*SPACING[:2], thick))
            torch.testing.assert_close(volume[..., 0], out, atol=2e-5, rtol=1e-4)


def test_no_ghosts_lie_across_an_axis_of_one_voxel():
    """Across it there is one line of k-space, the mean, which stays: the image would not change."""
    x = zscored(raw())[:, :, 11:12]
    for seed in range(20):
        change = alone("ghosting", x, seed, BRAIN[:, 11:12]) - x
        assert float(change.abs().mean()) > 0.01


def test_wrong_calls_are_refused_in_words():
    x = raw()
    with pytest.raises(BadCall, match="augmentation needs an image"):
        augment(x, BRAIN[1:], SPACING, seeded())
    with pytest.raises(BadCall, match="augmentation needs 3 spacings"):
        augment(x, BRAIN, SPACING[:2], seeded())
    for chance in (-0.1, 1.1, math.nan):
        with pytest.raises(BadCall, match="the probability of blur is 0 to 1"):
            augment(x, BRAIN, SPACING, seeded(), blur=chance)
