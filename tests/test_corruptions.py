"""Corruptions: frequencies in cycles per mm, masks in mm, rotations about the right axis. Unequal axes throughout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anomri.corruptions import masks
from anomri.corruptions import spots as spots_module
from anomri.corruptions.contrast import restain, thick_slices, thicken
from anomri.corruptions.frequency import CUTOFF, high_pass
from anomri.corruptions.masks import CELLS_MM, gaussian_mask, random_rotation
from anomri.corruptions.spatial import blur, flip, rotate
from anomri.corruptions.spots import spots
from anomri.errors import BadInput
from helpers import ellipsoid


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- frequencies ---------------------------------------------------------------------------------------------------


def slow_high_pass(x: np.ndarray, spacing: tuple[float, ...], cutoff: float) -> np.ndarray:
    """Eq. 7 to 12 as they stand: amplitude and phase apart, every frequency looked at by itself."""
    spectrum = np.fft.fftn(x.astype(np.float64))
    amplitude, phase = np.abs(spectrum), np.angle(spectrum)
    for at in np.ndindex(*x.shape):
        folded = [min(a, n - a) for a, n in zip(at, x.shape, strict=True)]
        squared = sum((a / (n * mm)) ** 2 for a, n, mm in zip(folded, x.shape, spacing, strict=True))
        if not math.sqrt(squared) > cutoff + 1e-9:
            amplitude[at] = 0
    return np.fft.ifftn(amplitude * np.exp(1j * phase)).real


def wave(shape: tuple[int, ...], index: tuple[int, ...], phase: float = 0.4) -> Tensor:
    """A plane wave with whole numbers of periods along each axis."""
    where = np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij")
    return torch.tensor(
        np.cos(2 * np.pi * sum(i * w for i, w in zip(index, where, strict=True)) + phase), dtype=torch.float32
    )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(3, 9), min_size=2, max_size=3),
    st.lists(st.sampled_from([0.9, 1.0, 1.7, 2.0, 3.3]), min_size=3, max_size=3),
    st.floats(0.02, 0.3),
    st.integers(0, 99),
)
def test_high_pass_is_the_papers_equation(shape, spacing, cutoff, seed):
    x = torch.randn(*shape, generator=seeded(seed))
    mm = tuple(spacing[: len(shape)])
    expected = slow_high_pass(x.numpy(), mm, cutoff)
    np.testing.assert_allclose(high_pass(x, mm, cutoff).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((24, 32, 40), (4.0, 2.0, 3.0)), ((25, 31, 40), (4.0, 3.0, 2.5)), ((48, 40), (2.0, 3.0))]
)
def test_a_wave_at_or_below_the_cutoff_goes_and_one_above_stays(shape, spacing):
    checked = {True: 0, False: 0}
    for index in np.ndindex(*(5,) * len(shape)):
        x = wave(shape, index)
        frequency = math.sqrt(sum((i / (n * mm)) ** 2 for i, n, mm in zip(index, shape, spacing, strict=True)))
        for cutoff, stays in ((frequency, False), (frequency * 0.999, True), (frequency * 1.001, False)):
            out = high_pass(x, spacing, cutoff)
            stays = stays and frequency > 0
            torch.testing.assert_close(out, x if stays else torch.zeros_like(x), atol=1e-5, rtol=0)
            checked[stays] += 1
    assert min(checked.values()) >= 24


def test_the_published_radius_of_15_goes_and_16_stays():
    for axis in range(3):
        shape = [8, 8, 8]
        shape[axis] = 192
        for cycles, left in ((15, 0.0), (16, 1.0)):
            index = [0, 0, 0]
            index[axis] = cycles
            x = wave(tuple(shape), tuple(index))
            assert float(high_pass(x, (1.0, 1.0, 1.0)).norm() / x.norm()) == pytest.approx(left, abs=1e-5)
    assert pytest.approx(15 / 192) == CUTOFF


def test_the_cutoff_is_physical():
    """A wave of so many cycles per mm is treated alike on a fine and a coarse grid, in a small and a large box."""
    for shape, mm in (((96, 16, 24), 1.0), ((48, 20, 16), 2.0), ((192, 8, 12), 1.0), ((32, 12, 8), 3.0)):
        for cycles_per_96mm, stays in ((7, False), (8, True)):
            periods = round(cycles_per_96mm * shape[0] * mm / 96)
            out = high_pass(wave(shape, (periods, 0, 0)), (mm,) * 3, 7.5 / 96)
            assert (float(out.abs().max()) > 0.9) == stays


def test_high_pass_is_linear_and_leaves_no_mean():
    x, y = torch.randn(2, 21, 16, 30, generator=seeded(1)), torch.randn(2, 21, 16, 30, generator=seeded(2))
    mm = (2.0, 3.0, 1.5)
    both = high_pass(2 * x - 3 * y + 7, mm)
    torch.testing.assert_close(both, 2 * high_pass(x, mm) - 3 * high_pass(y, mm), atol=1e-4, rtol=0)
    assert both.mean(dim=(1, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(high_pass(high_pass(x, mm), mm), high_pass(x, mm), atol=1e-5, rtol=0)


def test_leading_axes_are_kept_apart_and_the_type_is_kept():
    x = torch.randn(2, 3, 9, 12, 10, generator=seeded(3))
    out = high_pass(x, (2.0, 2.5, 3.0))
    torch.testing.assert_close(out[1, 2], high_pass(x[1, 2], (2.0, 2.5, 3.0)))
    for dtype in (torch.float64, torch.bfloat16):
        assert high_pass(x.to(dtype), (2.0, 2.5, 3.0)).dtype == dtype
    slices = high_pass(x, (2.5, 3.0))
    torch.testing.assert_close(slices[0, 1, 4], high_pass(x[0, 1, 4], (2.5, 3.0)))
    assert not torch.allclose(slices, out)


# --- masks ---------------------------------------------------------------------------------------------------------

BRAIN = torch.tensor(ellipsoid((70, 88, 76), (31.0, 40.0, 33.0)))
"""A brain at 2 mm: 124 x 160 x 132 mm."""


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(2.0, 2.0, 2.0), (1.0, 3.0, 4.5), (5.0, 5.0, 5.0)]))
def test_a_mask_is_a_part_of_the_brain_and_never_empty(seed, spacing):
    brain = torch.tensor(ellipsoid((20, 28, 24), (8.0, 9.0, 7.0), (3.0, -4.0, 2.0)))
    mask = gaussian_mask(brain, spacing, seeded(seed), points=5000)
    assert mask.shape == brain.shape
    assert mask.dtype == torch.bool
    assert mask.any()
    assert not (mask & ~brain).any()


def test_same_seed_same_mask_and_another_seed_another():
    drawn = [gaussian_mask(BRAIN, (2.0,) * 3, seeded(seed), points=20_000) for seed in range(20)]
    again = [gaussian_mask(BRAIN, (2.0,) * 3, seeded(seed), points=20_000) for seed in range(20)]
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert len({m.numpy().tobytes() for m in drawn}) == 20
    rng = seeded(0)
    assert not torch.equal(gaussian_mask(BRAIN, (2.0,) * 3, rng), gaussian_mask(BRAIN, (2.0,) * 3, rng))


def test_nothing_comes_from_global_generators():
    drawn = []
    for state in (1, 2):
        torch.manual_seed(state)
        np.random.seed(state)  # noqa: NPY002
        drawn.append(gaussian_mask(BRAIN, (2.0,) * 3, seeded(5)))
    assert torch.equal(*drawn)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 4.0)])
def test_points_outside_the_grid_are_discarded(spacing):
    """Room around the grid changes nothing: no point wraps to the opposite face, none is moved onto the border."""
    brain = torch.ones(12, 20, 16, dtype=torch.bool)
    room = [round(16 / mm) for mm in spacing]
    roomy = torch.zeros(*(n + 2 * r for n, r in zip(brain.shape, room, strict=True)), dtype=torch.bool)
    inner = tuple(slice(r, r + n) for n, r in zip(brain.shape, room, strict=True))
    roomy[inner] = brain
    shares = []
    for seed in range(40):
        mask = gaussian_mask(brain, spacing, seeded(seed), points=4000)
        assert torch.equal(gaussian_mask(roomy, spacing, seeded(seed), points=4000)[inner], mask)
        shares.append(float(mask.float().mean()))
    assert min(shares) < 0.9, "some masks leave a part of this small brain"


def test_a_mask_at_one_corner_does_not_reach_the_opposite_one():
    brain = torch.zeros(60, 72, 66, dtype=torch.bool)
    brain[:4, :4, :4] = True
    brain[-4:, -4:, -4:] = True
    for seed in range(20):
        mask = gaussian_mask(brain, (1.0, 1.0, 1.0), seeded(seed), cells_mm=(2.0,))
        assert mask[:4, :4, :4].any() != mask[-4:, -4:, -4:].any()


def test_sizes_are_physical():
    """The same cell width covers as many mm^3 at 1 mm as at 2 mm."""
    fine = torch.tensor(ellipsoid((140, 176, 152), (62.0, 80.0, 66.0)))
    for cell in (2.0, 4.0, 8.0):
        volumes = [
            float(
                np.mean(
                    [
                        gaussian_mask(brain, (mm,) * 3, seeded(s), cells_mm=(cell,), points=30_000).sum() * mm**3
                        for s in range(16)
                    ]
                )
            )
            for brain, mm in ((fine, 1.0), (BRAIN, 2.0))
        ]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.3), cell


def test_spacing_counts_along_its_own_axis():
    """On a grid of 1 x 2 x 4 mm the mask is on average as long in mm along every axis."""
    brain = torch.ones(120, 60, 30, dtype=torch.bool)
    spreads = []
    for seed in range(40):
        where = gaussian_mask(brain, (1.0, 2.0, 4.0), seeded(seed), cells_mm=(4.0,), points=3000).nonzero().float()
        spreads.append(where.std(dim=0) * torch.tensor([1.0, 2.0, 4.0]))
    mean = torch.stack(spreads).mean(dim=0)
    assert float(mean.max() / mean.min()) < 1.25


@pytest.mark.parametrize(
    ("cell", "low", "high", "middle"), [(2.0, 0.2, 4, (0.6, 2)), (4.0, 1, 24, (5, 12)), (8.0, 5, 80, (25, 48))]
)
def test_covered_share_is_the_published_one(cell, low, high, middle):
    """Measured from the published code at 1 mm: 0.4 to 1.9 % (median 1.1), 3 to 20 % (8), 10 to 70 % (35)."""
    shares = [
        100 * float(gaussian_mask(BRAIN, (2.0,) * 3, seeded(s), cells_mm=(cell,)).sum() / BRAIN.sum())
        for s in range(30)
    ]
    assert low < min(shares)
    assert max(shares) < high
    assert middle[0] < np.median(shares) < middle[1]


def test_half_of_the_cells_are_4_mm(monkeypatch):
    assert sorted(CELLS_MM) == [2.0, 4.0, 4.0, 8.0]
    # With 3 points the cells lie apart, so that their width shows.
    brain = torch.ones(64, 64, 64, dtype=torch.bool)
    monkeypatch.setattr(masks, "random_rotation", lambda rng: torch.eye(3))
    seen, drawn = [], 0
    for seed in range(300):
        mask = gaussian_mask(brain, (1.0, 1.0, 1.0), seeded(seed), points=3)
        if not mask.any():
            continue
        drawn += 1
        first = mask.nonzero()[0]
        for cell in (8, 4, 2):
            start = first // cell * cell
            block = mask[start[0] : start[0] + cell, start[1] : start[1] + cell, start[2] : start[2] + cell]
            if bool(block.all()):
                seen.append(cell)
                break
    assert len(seen) == drawn > 200, "every cell that is hit is masked whole"
    counts = [seen.count(cell) / drawn for cell in (2, 4, 8)]
    np.testing.assert_allclose(counts, [0.25, 0.5, 0.25], atol=0.1)


def test_points_have_the_published_covariance(monkeypatch):
    """Eigenvalues from U(0.3, 10) in squared cells, each along its own axis of the rotation."""
    variances = []
    brain = torch.ones(90, 90, 90, dtype=torch.bool)
    monkeypatch.setattr(masks, "random_rotation", lambda rng: torch.eye(3))
    for seed in range(120):
        rng = seeded(seed)
        # The draws, in their order: cell, voxel, three variances, points.
        torch.randint(1, (1,), generator=rng)
        torch.randint(int(brain.sum()), (1,), generator=rng)
        expected = 0.3 + 9.7 * torch.rand(3, generator=rng)
        variances.append(expected)
        if seed < 12:
            voxels = gaussian_mask(brain, (1.0,) * 3, seeded(seed), cells_mm=(1.0,), points=40).nonzero().float()
            inside = ((voxels > 0) & (voxels < 89)).all()
            if inside and len(voxels) > 20:
                ratio = voxels.var(dim=0) / expected
                assert float(ratio.min()) > 0.2
                assert float(ratio.max()) < 3.5
    drawn = torch.cat(variances)
    assert 0.3 <= float(drawn.min()) < 0.7
    assert 9.6 < float(drawn.max()) <= 10
    assert float(drawn.mean()) == pytest.approx(5.15, abs=0.5)


def test_rotations_are_uniform():
    """Orthogonal, of both handednesses, and with the moments of the Haar measure: E q_ij = 0, q_ij^2 = 1/3, q_ij^4 = 1/5."""
    rng = seeded(0)
    q = torch.stack([random_rotation(rng) for _ in range(4000)])
    torch.testing.assert_close(q @ q.transpose(1, 2), torch.eye(3).expand(4000, 3, 3), atol=1e-5, rtol=0)
    assert q.mean(dim=0).abs().max() < 0.04
    assert (q.square().mean(dim=0) - 1 / 3).abs().max() < 0.03
    assert (q.pow(4).mean(dim=0) - 1 / 5).abs().max() < 0.03
    assert float((torch.linalg.det(q) > 0).float().mean()) == pytest.approx(0.5, abs=0.05)
    # Traces of uniform orthogonal matrices: mean 0, variance 1. QR without its sign fix has another.
    traces = q.diagonal(dim1=1, dim2=2).sum(dim=1)
    assert float(traces.mean()) == pytest.approx(0, abs=0.07)
    assert float(traces.var()) == pytest.approx(1, abs=0.1)


def test_a_brain_of_one_voxel_is_masked_whole():
    for spacing in ((1.0, 1.0, 1.0), (3.0, 1.5, 6.0)):
        brain = torch.zeros(7, 9, 8, dtype=torch.bool)
        brain[6, 0, 3] = True
        for seed in range(8):
            assert torch.equal(gaussian_mask(brain, spacing, seeded(seed)), brain)


def test_an_empty_brain_is_refused_in_words():
    with pytest.raises(BadInput, match="brain mask is empty"):
        gaussian_mask(torch.zeros(4, 5, 6, dtype=torch.bool), (1.0,) * 3, seeded(0))


# --- flips and rotations -------------------------------------------------------------------------------------------


def blob(shape: tuple[int, int, int], centre: Tensor, sd: float = 1.6) -> Tensor:
    """A smooth ball about a point in voxels."""
    where = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"), dim=-1)
    return torch.exp(-(where - centre).square().sum(dim=-1) / (2 * sd**2))


def test_flip_swaps_left_and_right_and_twice_is_nothing():
    x, brain = torch.randn(2, 5, 7, 6), torch.rand(5, 7, 6) > 0.4
    once = flip(x, brain)
    assert torch.equal(once[0][:, 0], x[:, 4])
    assert torch.equal(once[1][1], brain[3])
    assert not torch.equal(once[0], x)
    again = flip(*once)
    assert torch.equal(again[0], x)
    assert torch.equal(again[1], brain)


def test_rotation_by_nothing_is_nothing():
    brain = torch.tensor(ellipsoid((17, 24, 20), (7.0, 10.0, 8.0)))
    x = torch.randn(2, 17, 24, 20, generator=seeded(0)) * brain
    moved, inside = rotate(x, brain, seeded(1), degrees=0.0)
    assert torch.equal(inside, brain)
    torch.testing.assert_close(moved, x, atol=1e-4, rtol=0)


def turning(seed: int, degrees: float, only: int | None = None) -> np.ndarray:
    """The rotation that `rotate` draws: about each array axis in turn, by an angle of its own."""
    angles = ((2 * torch.rand(3, generator=seeded(seed)) - 1) * math.pi * degrees / 180).numpy()
    about = []
    for axis, angle in enumerate(angles):
        c, s = math.cos(angle), math.sin(angle)
        turn = np.eye(3)
        a, b = [i for i in range(3) if i != axis]
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
        about.append(turn)
    return about[0] @ about[1] @ about[2]


@pytest.mark.parametrize("seed", range(4))
def test_a_point_goes_where_the_rotation_takes_it(seed):
    """In voxels of an isotropic grid with unequal axes: a rotation, not a shear, about the grid's centre."""
    shape = (36, 52, 44)
    centre = (torch.tensor(shape) - 1) / 2
    brain = torch.ones(shape, dtype=torch.bool)
    offsets = [torch.tensor(v) for v in ((11.0, 0, 0), (0, 16.0, 0), (0, 0, 13.0), (7.0, -9.0, 6.0))]
    x = torch.stack([blob(shape, centre + o) for o in offsets])
    moved, _ = rotate(x, brain, seeded(seed), degrees=25.0)
    where = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))
    # Grid axes are counted from the last: the drawn matrix acts on (k, j, i), and takes output to input.
    reverse = np.eye(3)[::-1]
    forward = reverse @ turning(seed, 25.0).T @ reverse
    landed = []
    for image, offset in zip(moved, offsets, strict=True):
        weight = image * (image > 0.05)
        mean = (where * weight).sum(dim=(1, 2, 3)) / weight.sum() - centre
        np.testing.assert_allclose(mean.numpy(), forward @ offset.numpy(), atol=0.15)
        assert float(mean.norm()) == pytest.approx(float(offset.norm()), abs=0.15)
        landed.append(mean)
    angle = math.acos((np.trace(forward) - 1) / 2)
    assert angle > 0.05
    assert float(landed[0] @ landed[1]) == pytest.approx(0, abs=3), "right angles stay right"


def test_rotation_keeps_the_mass_and_the_brain_moves_with_the_image():
    brain = torch.tensor(ellipsoid((40, 52, 46), (14.0, 19.0, 16.0), (1.0, -2.0, 0.0)))
    x = (3 + blob((40, 52, 46), torch.tensor([20.0, 30.0, 25.0]), 5.0))[None] * brain
    for seed in range(4):
        moved, inside = rotate(x, brain, seeded(seed))
        assert float(inside.sum()) == pytest.approx(float(brain.sum()), rel=0.02)
        assert float(moved.sum()) == pytest.approx(float(x.sum()), rel=0.02)
        assert moved[:, ~inside].abs().max() == 0
        assert float(moved[:, inside].min()) > 2.9, "no dark rim where background was interpolated in"
        assert not torch.equal(inside, brain)


def test_rotation_ignores_what_is_outside_the_brain_and_draws_from_its_generator():
    brain = torch.tensor(ellipsoid((20, 28, 24), (7.0, 10.0, 8.0)))
    x = torch.randn(1, 20, 28, 24, generator=seeded(0))
    first = rotate(x, brain, seeded(3))
    torch.manual_seed(9)
    second = rotate(torch.where(brain, x, 50.0), brain, seeded(3))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], rotate(x, brain, seeded(4))[0])


def test_rotation_stays_within_its_degrees():
    for seed in range(30):
        angle = math.degrees(math.acos(min(1.0, (np.trace(turning(seed, 10.0)) - 1) / 2)))
        assert angle <= math.sqrt(3) * 10.001


# --- contrast ------------------------------------------------------------------------------------------------------


def stained(seed: int, **ranges: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A z-scored ellipsoid with two tissues, and how another scanner shows it."""
    i, j, k = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in (20, 26, 22)), indexing="ij")
    brain = ((i - 10) / 8) ** 2 + ((j - 13) / 10) ** 2 + ((k - 11) / 9) ** 2 < 1
    tissue = torch.where(j > 12, 1.0, -1.0) + 0.2 * torch.randn(brain.shape, generator=torch.Generator().manual_seed(1))
    x = torch.where(brain, (tissue - tissue[brain].mean()) / tissue[brain].std(), 0.0)[None]
    return x, brain, restain(x, brain, torch.Generator().manual_seed(seed), **ranges)


@pytest.mark.parametrize("seed", range(12))
def test_another_contrast_is_z_scored_in_the_brain_and_zero_outside(seed: int) -> None:
    x, brain, y = stained(seed)
    before = x.clone()
    assert y.shape == x.shape
    assert (y[:, ~brain] == 0).all()
    assert abs(float(y[:, brain].mean())) < 1e-5
    assert abs(float(y[:, brain].std()) - 1) < 1e-5
    assert not torch.equal(x, y)
    assert torch.equal(x, before)
    assert torch.equal(y, stained(seed)[2])
    tissues = y[0][brain & (x[0] > 0.5)].mean() - y[0][brain & (x[0] < -0.5)].mean()
    assert tissues > 1, "what is brighter stays brighter"


def test_without_shade_gamma_and_blur_nothing_changes() -> None:
    x, brain, y = stained(3, shade=0.0, gamma=0.0, sigma=0.0)
    assert torch.allclose(x[:, brain], y[:, brain], atol=1e-3)


def test_shade_is_smooth_and_gamma_keeps_the_order() -> None:
    x, brain, y = stained(5, gamma=0.0, sigma=0.0)
    change = (y - x)[0]
    along = (change[1:] - change[:-1])[brain[1:] & brain[:-1]]
    assert float(along.abs().mean()) < 0.35 * float(change[brain].std()) + 0.05
    x, brain, y = stained(6, shade=0.0, sigma=0.0)
    order = x[0][brain].argsort()
    assert (y[0][brain][order].diff() >= -1e-5).all()


def test_a_brain_in_thick_slices_is_z_scored_and_smooth_along_one_axis() -> None:
    x, brain, _ = stained(0)
    axes = set()
    for seed in range(30):
        y = thicken(x, brain, (2.0, 2.0, 2.0), torch.Generator().manual_seed(seed))
        assert (y[:, ~brain] == 0).all()
        assert abs(float(y[:, brain].mean())) < 1e-5
        assert abs(float(y[:, brain].std()) - 1) < 1e-5
        inside = [brain.narrow(a, 1, n - 1) & brain.narrow(a, 0, n - 1) for a, n in enumerate(brain.shape)]
        rough = [
            float(y[0].diff(dim=a)[inside[a]].abs().mean() / x[0].diff(dim=a)[inside[a]].abs().mean()) for a in range(3)
        ]
        axes.add(int(np.argmin(rough)))
        assert min(rough) < 0.95
    assert axes == {0, 1, 2}


def test_a_slice_that_is_as_thick_as_the_grid_changes_little_and_a_constant_nothing() -> None:
    x = torch.full((2, 4, 40, 5), 3.0)
    y = thick_slices(x, (1.0, 1.0, 1.0), 1, 4.0)
    assert y.shape == x.shape
    assert torch.allclose(y[:, :, 8:-8], x[:, :, 8:-8], atol=1e-4)
    step = torch.zeros(1, 4, 40, 4)
    step[:, :, 20:] = 1.0
    soft = thick_slices(step, (1.0, 1.0, 1.0), 1, 6.0)[0, 2, :, 2]
    edge = (soft[5:35] > 0.1) & (soft[5:35] < 0.9)
    assert 6 <= int(edge.sum()) <= 12, "an edge is spread over a slice or two"


def test_blur_keeps_a_constant_in_the_middle_and_each_channel_apart() -> None:
    x = torch.zeros(1, 2, 15, 17, 19)
    x[:, 1] = 2.0
    y = blur(x, [1.0, 1.5, 0.5])
    assert (y[:, 0] == 0).all()
    assert torch.allclose(y[0, 1, 7, 8, 9], torch.tensor(2.0))
    point = torch.zeros(1, 1, 15, 17, 19)
    point[0, 0, 7, 8, 9] = 1.0
    spread = blur(point, [1.0, 1.5, 0.5])[0, 0]
    for axis, sigma in enumerate((1.0, 1.5, 0.5)):
        profile = spread.sum(dim=[a for a in range(3) if a != axis])
        t = torch.arange(len(profile)) - (7, 8, 9)[axis]
        assert abs(float((profile * t**2).sum()) ** 0.5 - sigma) < 0.12


# --- spots ---------------------------------------------------------------------------------------------------------

SPOTTED = torch.as_tensor(ellipsoid((40, 36, 44)))


def two_channels() -> Tensor:
    return torch.where(SPOTTED, torch.randn(2, *SPOTTED.shape, generator=seeded(1)), 0.0)


@pytest.mark.parametrize("seed", range(8))
def test_spots_lie_in_the_brain_and_change_as_much_as_they_say(seed: int) -> None:
    x = two_channels()
    y = spots(x, SPOTTED, (2.0, 2.5, 2.0), seeded(seed))
    assert torch.equal(y[:, ~SPOTTED], x[:, ~SPOTTED])
    assert torch.equal(x, two_channels()), "the image that was given stays"
    changed = (y - x).abs()
    for channel in changed:
        assert 0 < int((channel > 0).sum()) < int(SPOTTED.sum()) + 1
        # Three spots in one place at most, each of up to 3 SD and with the texture drawn to its mean.
        assert channel.max() < spots_module.MOST * (spots_module.CHANGE[1] + 4)
    again = spots(x, SPOTTED, (2.0, 2.5, 2.0), seeded(seed))
    assert torch.equal(again, y)
    assert not torch.equal(spots(x, SPOTTED, (2.0, 2.5, 2.0), seeded(seed + 100)), y)


def test_spots_are_bright_and_dark_small_and_large_and_of_each_channel_by_itself(monkeypatch) -> None:
    monkeypatch.setattr(spots_module, "MOST", 1)
    x, means, sizes, apart = two_channels(), [], [], 0
    for seed in range(60):
        off = spots(x, SPOTTED, (2.0, 2.5, 2.0), seeded(seed)) - x
        inside = off[0] != 0
        mean = [float(channel[inside].mean()) for channel in off]
        means.append(mean[0])
        sizes.append(float(inside.sum()) * 2 * 2.5 * 2 / 1000)
        apart += mean[0] * mean[1] < 0
    assert 15 < sum(mean > 0 for mean in means) < 45
    assert 15 < apart < 45
    assert min(sizes) < 1 < 30 < max(sizes)
    assert 1.5 < max(map(abs, means)) < 3.2, "from half an SD to three, what texture is left on average"


def test_a_spot_of_a_brain_of_one_voxel_and_of_none() -> None:
    brain = torch.zeros(5, 4, 6, dtype=torch.bool)
    brain[4, 0, 5] = True
    y = spots(brain[None].float(), brain, (2.0, 2.0, 2.0), seeded(0))
    assert torch.equal(y[0] != 0, brain) or torch.equal(y[0], torch.zeros(5, 4, 6))
    assert torch.isfinite(y).all()
    with pytest.raises(BadInput, match="brain mask is empty"):
        spots(torch.zeros(1, 5, 4, 6), torch.zeros(5, 4, 6, dtype=torch.bool), (2.0, 2.0, 2.0), seeded(0))
