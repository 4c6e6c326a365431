"""Erasing: sizes within limits, halves of the brain's box, fills from the image. Unequal axes throughout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from anomri.corruptions import erasing
from anomri.corruptions.erasing import ERASINGS, FILLS, erase, erasing_mask
from anomri.errors import BadCall, BadInput
from helpers import ellipsoid

SLICE = torch.tensor(ellipsoid((38, 46), (14.0, 17.6), (1.0, -2.0)))
VOLUME = torch.tensor(ellipsoid((20, 26, 23), (7.0, 9.6, 8.0), (1.0, -1.0, 0.5)))
CASES = [("patch", SLICE), ("multi", SLICE), ("half", SLICE), ("cube", VOLUME), ("multi", VOLUME), ("half", VOLUME)]
every = pytest.mark.parametrize(("how", "brain"), CASES, ids=[f"{how}-{brain.ndim}d" for how, brain in CASES])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(brain: Tensor, channels: int = 2) -> Tensor:
    """Every value of its own, z-scored like; 0 outside the brain."""
    x = torch.randn(channels, *brain.shape, generator=seeded(9)) + 5 * torch.arange(channels).reshape(
        -1, *[1] * brain.ndim
    )
    return torch.where(brain, x, 0.0)


def box(mask: Tensor) -> list[tuple[int, int]]:
    at = mask.nonzero()
    return [(int(a), int(b) + 1) for a, b in zip(at.amin(0), at.amax(0), strict=True)]


# --- promises of all -----------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("fill", FILLS)
def test_a_seed_says_all_and_the_input_stays(how, brain, fill):
    x = image(brain)
    before, inside = x.clone(), brain.clone()
    first = erase(x, brain, how, seeded(4), fill=fill, p=1.0)
    torch.manual_seed(99)
    assert torch.equal(first, erase(x, brain, how, seeded(4), fill=fill, p=1.0))
    assert any(not torch.equal(first, erase(x, brain, how, seeded(s), fill=fill, p=1.0)) for s in range(5, 15))
    assert torch.equal(x, before)
    assert torch.equal(brain, inside)
    assert first.shape == x.shape
    for dtype in (torch.float64, torch.float16):
        assert erase(x.to(dtype), brain, how, seeded(), fill=fill, p=1.0).dtype == dtype


@every
def test_only_the_mask_is_erased_and_it_is_zero(how, brain):
    x = image(brain) + 1
    for seed, zero in enumerate((0.0, -2.5)):
        rng = seeded(seed)
        torch.rand((), generator=rng)
        mask = erasing_mask(brain, how, rng)
        out = erase(x, brain, how, seeded(seed), p=1.0, zero=zero)
        assert (out[:, mask] == zero).all()
        assert torch.equal(out[:, ~mask], x[:, ~mask])
        assert mask.any()
        assert not mask.all()


@every
def test_noise_is_from_the_brain_of_each_channel(how, brain):
    x = torch.where(brain, image(brain), 100.0)
    rng = seeded(1)
    torch.rand((), generator=rng)
    mask = erasing_mask(brain, how, rng, least=0.2)
    out = erase(x, brain, how, seeded(1), fill="noise", p=1.0, least=0.2)
    for channel in range(2):
        assert torch.isin(out[channel][mask], x[channel][brain]).all(), "never the background's 100"
        assert not torch.equal(out[channel][mask & brain], x[channel][mask & brain])
    assert torch.equal(out[:, ~mask], x[:, ~mask])


def test_noise_has_the_images_distribution():
    x = image(SLICE)
    drawn = [erase(x, SLICE, "patch", seeded(s), fill="noise", p=1.0, least=0.2) for s in range(6)]
    for channel in range(2):
        values = torch.cat([y[channel][y[channel] != x[channel]] for y in drawn])
        assert stats.ks_2samp(values.numpy(), x[channel][SLICE].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_so_many_images_are_erased(p):
    x = image(SLICE)
    out = [erase(x, SLICE, "half", seeded(s), p=p) for s in range(400)]
    assert all(y is not x for y in out)
    erased = sum(not torch.equal(y, x) for y in out)
    assert erased in (0, 400) if p in (0, 1) else abs(erased - 400 * p) < 4 * (400 * p * (1 - p)) ** 0.5


# --- sizes ---------------------------------------------------------------------------------------------------------


@settings(max_examples=120)
@given(
    st.sampled_from(["one", "multi"]),
    st.lists(st.integers(9, 30), min_size=2, max_size=3),
    st.tuples(st.floats(0.01, 0.3), st.floats(0.1, 0.4)),
    st.integers(0, 10**6),
)
def test_never_more_than_the_limit_and_one_voxel_or_more(how, shape, limits, seed):
    least, most = limits[0], limits[0] + limits[1]
    how = {"one": "patch" if len(shape) == 2 else "cube"}.get(how, how)
    mask = erasing_mask(torch.zeros(*shape, dtype=torch.bool), how, seeded(seed), least=least, most=most)
    assert 1 <= int(mask.sum()) <= most * mask.numel() + 1


@pytest.mark.parametrize(("how", "shape"), [("patch", (64, 80)), ("cube", (40, 48, 32))])
def test_one_region_that_the_border_does_not_cut_is_a_cube_with_a_size_within_limits(how, shape):
    brain = torch.zeros(*shape, dtype=torch.bool)
    whole = 0
    for seed in range(300):
        mask = erasing_mask(brain, how, seeded(seed))
        sides = [b - a for a, b in box(mask)]
        assert int(mask.sum()) == torch.tensor(sides).prod(), "a box"
        if all(a > 0 and b < n for (a, b), n in zip(box(mask), shape, strict=True)):
            whole += 1
            assert len(set(sides)) == 1
            assert 0.01 <= mask.float().mean() <= 0.25
    assert whole > 25


def counted(how: str, shape: tuple[int, ...], seed: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Voxels of each region before it is clipped."""
    sizes, real = [], erasing._side

    def side(counts: Tensor, wanted: float, least: float, most: float) -> int:
        found = real(counts, wanted, least, most)
        sizes.append(int(counts[found - 1]))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(erasing, "_side", side)
        erasing_mask(torch.zeros(*shape, dtype=torch.bool), how, seeded(seed))
    return sizes


@pytest.mark.parametrize("shape", [(64, 80), (30, 36, 28), (60, 70, 3)])
def test_before_clipping_sizes_are_uniform_between_the_limits(shape, monkeypatch):
    """In a thin volume too: its short axis is spanned, and the others make up for it."""
    one = "patch" if len(shape) == 2 else "cube"
    n = torch.tensor(shape).prod().item()
    for how in (one, "multi"):
        drawn = [counted(how, shape, seed, monkeypatch) for seed in range(300)]
        shares = torch.tensor([sum(sizes) / n for sizes in drawn])
        assert shares.min() >= 0.01
        assert shares.max() <= 0.25
        assert stats.kstest(shares.numpy(), stats.uniform(0.01, 0.24).cdf).pvalue > 1e-3
        regions = {len(sizes) for sizes in drawn}
        assert regions == {1} if how == one else regions == set(range(2, 11))


def test_regions_of_multi_differ_in_size_and_place():
    mask = erasing_mask(torch.zeros(120, 130, dtype=torch.bool), "multi", seeded(3))
    (a, b), (c, d) = box(mask)
    assert int(mask.sum()) < (b - a) * (d - c)


def test_every_voxel_of_the_image_is_as_likely_a_centre():
    """With one pixel erased, its place is the centre."""
    brain, rng = torch.zeros(4, 5, dtype=torch.bool), seeded(1)
    count = torch.zeros(4, 5)
    for _ in range(2000):
        count += erasing_mask(brain, "patch", rng, least=0.05, most=0.05)
    assert count.sum() == 2000
    assert stats.chisquare(count.flatten().numpy()).pvalue > 1e-3


# --- halves --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("brain", [SLICE, VOLUME], ids=["2d", "3d"])
def test_both_halves_of_the_brains_box_happen(brain):
    (first, stop), *others = box(brain)
    width = (stop - first + 1) // 2
    sides = {"left": 0, "right": 0}
    depths = set()
    for seed in range(300):
        (a, b), *rest = box(mask := erasing_mask(brain, "half", seeded(seed)))
        assert int(mask.sum()) == torch.tensor([y - x for x, y in ((a, b), *rest)]).prod()
        assert b - a == width
        assert (a == first) != (b == stop)
        assert rest[0] == others[0], "back to front all of it"
        sides["left" if a == first else "right"] += 1
        if brain.ndim == 3:
            assert others[1][0] <= rest[1][0]
            assert rest[1][1] <= others[1][1]
            depths.add(rest[1][1] - rest[1][0])
    assert min(sides.values()) > 110
    if brain.ndim == 3:
        assert depths == set(range(1, others[1][1] - others[1][0] + 1))


def test_a_half_has_no_more_slices_than_said_and_reaches_all():
    seen = torch.zeros(VOLUME.shape[2], dtype=torch.bool)
    for seed in range(200):
        mask = erasing_mask(VOLUME, "half", seeded(seed), slices=3).any(dim=0).any(dim=0)
        assert 1 <= int(mask.sum()) <= 3
        seen |= mask
    assert torch.equal(seen, VOLUME.any(dim=0).any(dim=0))


def test_the_two_halves_of_an_even_box_are_the_box_and_share_nothing():
    brain = torch.zeros(9, 7, dtype=torch.bool)
    brain[2:8, 1:4] = True
    halves = [erasing_mask(brain, "half", seeded(s)) for s in range(20)]
    one = halves[0]
    other = next(h for h in halves if not torch.equal(h, one))
    assert torch.equal(one | other, brain)
    assert not (one & other).any()


def test_a_brain_of_one_voxel_is_halved_to_itself():
    for shape in ((5, 7), (5, 7, 6)):
        brain = torch.zeros(*shape, dtype=torch.bool)
        brain[(4,) * len(shape)] = True
        assert torch.equal(erasing_mask(brain, "half", seeded()), brain)


# --- refusals ------------------------------------------------------------------------------------------------------


def test_wrong_calls_are_refused_in_words():
    x = image(SLICE)
    assert set(ERASINGS) == {"patch", "cube", "multi", "half"}
    with pytest.raises(BadCall, match="unknown erasing 'hole'; known: cube, half, multi, patch"):
        erase(x, SLICE, "hole", seeded())
    with pytest.raises(BadCall, match="unknown fill 'grey'; known: noise, zero"):
        erase(x, SLICE, "patch", seeded(), fill="grey")
    with pytest.raises(BadCall, match=r"'cube' is for volumes.*take 'patch'"):
        erase(x, SLICE, "cube", seeded())
    with pytest.raises(BadCall, match=r"'patch' is for slices.*take 'cube'"):
        erase(image(VOLUME), VOLUME, "patch", seeded())
    for least, most in ((0.3, 0.2), (0.0, 0.2), (0.1, 1.1)):
        with pytest.raises(BadCall, match="share above 0"):
            erase(x, SLICE, "patch", seeded(), least=least, most=most)
    with pytest.raises(BadCall, match=r"p = 1\.5"):
        erase(x, SLICE, "patch", seeded(), p=1.5)
    with pytest.raises(BadCall, match="1 slice or more"):
        erase(image(VOLUME), VOLUME, "half", seeded(), slices=0)
    with pytest.raises(BadCall, match="brain mask"):
        erasing_mask(VOLUME[None], "multi", seeded())
    for wrong in (SLICE.T, SLICE[None], SLICE.float()):
        with pytest.raises(BadCall, match="erasing needs an image"):
            erase(x, wrong, "patch", seeded())


@every
@pytest.mark.parametrize("fill", FILLS)
def test_an_image_without_brain_stays_as_it_is(how, brain, fill):
    """A slice in a gap of the brain mask must not end a training."""
    x, empty = image(brain), torch.zeros_like(brain)
    for seed in range(4):
        out = erase(x, empty, how, seeded(seed), fill=fill, p=1.0)
        assert torch.equal(out, x)
        assert out is not x


def test_a_half_of_no_brain_is_refused():
    for brain in (SLICE, VOLUME):
        with pytest.raises(BadInput, match="brain mask is empty"):
            erasing_mask(torch.zeros_like(brain), "half", seeded())


GOLDEN = {
    ("patch", 2): 256,
    ("multi", 2): 245,
    ("half", 2): 504,
    ("cube", 3): 1008,
    ("multi", 3): 1660,
    ("half", 3): 1120,
}
"""Voxels erased of an image with brain, by what and its axes, with seed 4."""


@every
def test_golden(how, brain):
    x = image(brain) + 100
    erased = int((erase(x, brain, how, seeded(4), p=1.0)[0] == 0).sum())
    assert erased == GOLDEN[how, brain.ndim]
