"""Each artefact against the physics, the published constants, and TorchIO where it has the same; unequal axes throughout."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anomri.corruptions.artefacts import bands, corrupt, fields, intensity, kspace
from anomri.errors import BadCall
from helpers import ellipsoid

FIELD = ((24, 32, 48), (8.0, 6.0, 4.0))
"""A grid over the papers' field of view, 192 mm along each axis."""
SHAPE, SPACING = (30, 38, 34), (3.0, 2.5, 3.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def signal(shape: tuple[int, ...] = FIELD[0], seed: int = 0, channels: int = 2) -> Tensor:
    """A textured brain in air, a channel each of its own."""
    inside = torch.tensor(ellipsoid(shape, tuple(0.36 * n for n in shape), (0.7, -1.2, 0.4)))
    return torch.where(inside, 300 + 80 * torch.randn(channels, *shape, generator=seeded(seed)), 0.0).clamp(min=0)


@pytest.fixture(scope="module")
def tio():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torchio", reason="TorchIO is the oracle of these artefacts")


def by_torchio(tio, transform, x: Tensor, spacing=(1.0, 1.0, 1.0)) -> Tensor:
    """TorchIO's answer; the grid's centre is the world's origin."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * np.array(x.shape[1:]) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transform(tio.ScalarImage(tensor=x.clone(), affine=affine)).data


# --- spike ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intensity", [4.0, 0.3])
def test_a_spike_is_torchios(tio, intensity):
    shape, spacing = FIELD
    x = signal()
    # The published place, 0.45 of 192 points, is 10 cycles off the centre; on this grid another share is.
    place = np.array([[(n // 2 - 10 + 0.5) / n for n in shape]])
    expected = by_torchio(tio, tio.transforms.Spike(place, intensity), x)
    found = kspace.spike(x, spacing, intensity=intensity)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert math.floor(0.45 * 192) - 96 == -10


def test_a_spike_is_the_same_on_any_grid():
    wave = []
    for shape, spacing in (((96, 96, 96), (2.0,) * 3), ((48, 48, 48), (4.0,) * 3), ((56, 48, 48), (4.0,) * 3)):
        x = torch.zeros(1, *shape)
        corner = slice(0, round(96 / spacing[0]))
        x[0, corner, corner, corner] = 100
        wave.append(kspace.spike(x, spacing) - x)
    torch.testing.assert_close(wave[0][:, ::2, ::2, ::2], wave[1], atol=1e-3, rtol=0)
    # A larger grid is the same k-space, not a stronger spike.
    torch.testing.assert_close(wave[2][:, :48], wave[1], atol=1e-3, rtol=0)
    assert float(wave[1].abs().max()) == pytest.approx(4 * 100 / 8, rel=1e-4)


def test_the_spikes_height_is_that_of_the_z_scored_brain():
    brain = torch.tensor(ellipsoid(FIELD[0], (8.0, 11.0, 15.0)))
    x = torch.where(brain, signal(seed=3).clamp(min=20), 0.0)
    values = x[:, brain]
    mean, sd = values.mean(1)[:, None, None, None], values.std(1)[:, None, None, None]
    z = torch.where(brain, (x - mean) / sd, 0.0)
    out = corrupt(x, brain, FIELD[1], "spike", seeded())
    expected = torch.where(brain, kspace.spike(z, FIELD[1]) * sd + mean, 0.0)
    torch.testing.assert_close(out, expected, atol=0.02, rtol=0)


# --- ghosting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("ghosts", "strength"), [(4, 2.0), (2, 0.7), (3, 0.5)])
def test_ghosts_are_torchios_where_it_counts_from_the_centre_too(tio, axis, ghosts, strength):
    shape = [20, 26, 22]
    shape[axis] = 24 * ghosts
    x = signal(tuple(shape))
    # At this spacing the field is below 192 mm along the axis, and only the mean is restored; so it is by TorchIO without `restore`.
    spacing = [2.0, 2.0, 2.0]
    spacing[axis] = 191 / shape[axis]
    expected = by_torchio(tio, tio.transforms.Ghosting(ghosts, axis, strength, None), x)
    found = kspace.ghosting(x, spacing, ghosts=ghosts, intensity=strength, axis=axis)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0.02)


def test_at_192_mm_what_is_restored_is_the_published_share(tio):
    x = signal((10, 192, 12))
    expected = by_torchio(tio, tio.transforms.Ghosting(4, 1, 2.0, 0.01), x)
    torch.testing.assert_close(kspace.ghosting(x, (1.0, 1.0, 1.0)), expected, rtol=1e-4, atol=0.02)


@pytest.mark.parametrize("n", [96, 50, 53, 46])
def test_ghosts_keep_the_mean_where_torchio_loses_it(tio, n):
    """A twin of TorchIO's issue 206: below 100 lines, 0.01 of them rounds to none."""
    x = signal((10, n, 12))
    found = kspace.ghosting(x, (2.0, 2.0, 2.0))
    torch.testing.assert_close(found.mean(dim=(1, 2, 3)), x.mean(dim=(1, 2, 3)))
    if n == 96:
        lost = by_torchio(tio, tio.transforms.Ghosting(4, 1, 2.0, 0.01), x)
        torch.testing.assert_close(lost.mean(dim=(1, 2, 3)), -x.mean(dim=(1, 2, 3)))


def test_a_ghost_is_the_head_moved_by_a_share_of_the_field():
    x = signal((12, 48, 14))
    out = kspace.ghosting(x, (1.0, 1.0, 1.0), ghosts=4, intensity=0.8, axis=1)
    copies = sum(x.roll(12 * step, dims=2) for step in range(4)) / 4
    expected = x - 0.8 * (copies - x.mean(dim=2, keepdim=True))
    torch.testing.assert_close(out, expected, atol=1e-2, rtol=1e-4)


# --- noise ---------------------------------------------------------------------------------------------------------


def test_noise_is_that_of_uniform_noise_in_the_published_k_space():
    """SD and shape of the distribution, against the published recipe done literally on a slice of 192 x 192 mm."""
    x = torch.zeros(1, 192, 192, 2)
    x[0, 40:150, 30:160] = torch.tensor([600.0, 150.0]) + 30 * torch.randn(110, 130, 2, generator=seeded(1))
    spectrum = torch.fft.fft2(x[0], dim=(0, 1))
    bound = 0.003 * torch.maximum(spectrum.real.abs(), spectrum.imag.abs()).amax(dim=(0, 1))
    drawn = torch.complex(*(bound * (2 * torch.rand(192, 192, 2, generator=seeded(s)) - 1) for s in (2, 3)))
    published = torch.fft.ifft2(spectrum + drawn, dim=(0, 1)).real - x[0]
    found = (kspace.gaussian_noise(x, (1.0, 1.0, 1.0), seeded(4)) - x)[0]
    torch.testing.assert_close(found.std(dim=(0, 1)), published.std(dim=(0, 1)), rtol=0.03, atol=0)
    for noise in (found, published):
        part = noise[..., 0] / noise[..., 0].std()
        assert float((part**4).mean()) == pytest.approx(3, abs=0.15)
        assert abs(float(part.mean())) < 0.02


def test_noise_is_the_same_on_a_coarser_or_larger_grid():
    for shape, spacing in (
        ((96, 96, 3), (2.0, 2.0, 5.0)),
        ((64, 48, 2), (3.0, 4.0, 1.0)),
        ((120, 96, 3), (2.0, 2.0, 5.0)),
    ):
        x = torch.zeros(1, *shape)
        x[0, : round(96 / spacing[0]), : round(96 / spacing[1])] = 400
        sd = (kspace.gaussian_noise(x, spacing, seeded()) - x).std()
        assert float(sd) == pytest.approx(0.003 / math.sqrt(3) * 192 * 100, rel=0.03)


# --- truncation, blur ----------------------------------------------------------------------------------------------


def test_gibbs_ends_k_space_at_the_acquired_voxel():
    shape, spacing = (36, 40, 30), (2.0, 1.5, 2.0)
    where = torch.meshgrid(*(torch.arange(n) * mm for n, mm in zip(shape, spacing, strict=True)), indexing="ij")
    for axis, periods, other in itertools.product((0, 1), range(1, 15), (0, 4)):
        f = periods / (shape[axis] * spacing[axis])
        wave = torch.cos(2 * torch.pi * (f * where[axis] + other / 60 * where[2]) + 0.3)[None]
        out = kspace.gibbs(wave, spacing, [5.0, 4.0])
        stays = f <= 0.5 / (5.0, 4.0)[axis] + 1e-9
        torch.testing.assert_close(out, wave if stays else torch.zeros_like(wave), atol=1e-4, rtol=0)


def test_gibbs_rings_by_nine_percent_beside_an_edge():
    x = torch.zeros(1, 4, 400, 4)
    x[:, :, 100:300] = 1
    out = kspace.gibbs(x, (1.0, 1.0, 1.0), [8.0], axes=[1])
    assert float(out.max()) == pytest.approx(1.0895, abs=0.01)
    assert float(out.mean()) == pytest.approx(0.5, abs=1e-4)


def test_blur_is_torchios(tio):
    x, spacing = signal((40, 34, 44)), (1.0, 1.5, 2.0)
    expected = by_torchio(tio, tio.transforms.Blur((2.5, 2.5, 2.5)), x, spacing)
    # SciPy cuts its kernel at 4 SD, and so is off by 6e-5 of it.
    inner = (slice(None), slice(8, -8), slice(8, -8), slice(8, -8))
    torch.testing.assert_close(kspace.blur(x, spacing, 2.5)[inner], expected[inner], atol=0.1, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 6.0), st.sampled_from([(1.0, 1.5, 2.0), (3.0, 1.0, 4.0)]))
def test_blur_spreads_a_point_by_its_sigma_and_keeps_what_there_is(sigma, spacing):
    x = torch.zeros(1, 45, 51, 39)
    x[0, 22, 25, 19] = 1000
    out = kspace.blur(x, spacing, sigma)[0].double()
    assert float(out.sum()) == pytest.approx(1000, rel=1e-3)
    for axis, mm in enumerate(spacing):
        if sigma > 4 * mm or 6 * sigma > 19 * mm:
            continue
        profile = out.sum(dim=[a for a in range(3) if a != axis])
        at = (torch.arange(len(profile)) - [22, 25, 19][axis]) * mm
        if sigma > 0.7 * mm:
            assert float((profile * at**2).sum() / 1000) == pytest.approx(sigma**2, rel=0.05)


def test_blur_leaves_a_constant_and_the_grids_edge():
    x = torch.full((2, 12, 17, 14), 7.0)
    torch.testing.assert_close(kspace.blur(x, (2.0, 1.0, 3.0), 4.0), x)


# --- motion --------------------------------------------------------------------------------------------------------

LPS = torch.tensor([-1.0, -1.0, 1.0])
"""TorchIO's angles and shifts are ITK's, whose first two axes point the other way."""


@pytest.mark.parametrize(
    ("degrees", "shift"),
    [
        (((0, 0, 0), (0, 0, 0)), ((4, -6, 8), (-2, 3, -4))),
        (((9, 0, 0), (0, -7, 0)), ((0, 0, 0), (0, 0, 0))),
        (((0, 0, 8), (5, -6, 7)), ((1.3, -2.2, 0.7), (-3.1, 0.4, 2.5))),
    ],
)
@pytest.mark.parametrize("still", [1 / 3, 0.15])
def test_motion_is_torchios(tio, degrees, shift, still):
    shape, spacing = (24, 30, 42), (2.0, 3.0, 2.0)
    x = signal(shape)
    turned, moved = torch.tensor(degrees, dtype=torch.float32), torch.tensor(shift, dtype=torch.float32)
    times = np.array([(1 - still) / 2, (1 + still) / 2])
    # TorchIO turns about the world's origin; half a voxel of `by_torchio`'s corner makes that the grid's centre.
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    theirs = tio.transforms.Motion((turned * LPS).numpy(), (moved * LPS).numpy(), times, "linear")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs(tio.ScalarImage(tensor=x.clone(), affine=affine)).data
    found = kspace.motion(x, spacing, turned, moved, still=still, axis=2)
    inner = (slice(None), slice(4, -4), slice(4, -4))
    torch.testing.assert_close(found[inner], expected[inner], atol=0.05, rtol=0)
    assert float((found - x).abs().mean()) > 1


def test_motion_keeps_the_centre_of_k_space_and_axis_of_its_own():
    x = signal(SHAPE)
    none, far = torch.zeros(2, 3), torch.full((2, 3), 9.0)
    torch.testing.assert_close(kspace.motion(x, SPACING, none, none), x, atol=1e-3, rtol=0)
    torch.testing.assert_close(kspace.motion(x, SPACING, none, far, still=1.0), x, atol=1e-3, rtol=0)
    for axis, still in itertools.product(range(3), (0.5, 1e-4)):
        out = kspace.motion(x, SPACING, none, far, still=still, axis=axis)
        spectra = [torch.fft.fftshift(torch.fft.fft(v, dim=axis + 1), dim=axis + 1) for v in (x, out)]
        middle = SHAPE[axis] // 2
        same = [s.select(axis + 1, middle) for s in spectra]
        torch.testing.assert_close(same[1].real, same[0].real, atol=0.05, rtol=1e-3)
        other = [s.select(axis + 1, middle + SHAPE[axis] // 3) for s in spectra]
        assert float((other[1] - other[0]).abs().mean()) > 1


# --- bias field, gamma, other sequence -----------------------------------------------------------------------------


@pytest.mark.parametrize("order", [3, 1])
@pytest.mark.parametrize("shape", [(9, 12, 16), (8, 13, 11)])
def test_a_bias_field_is_torchios(tio, shape, order):
    n = {1: 4, 3: 20}[order]
    coefficients = torch.linspace(-0.4, 0.5, n)
    expected = tio.transforms.BiasField.generate_bias_field(torch.zeros(1, *shape), order, coefficients.tolist())
    torch.testing.assert_close(
        fields.bias_field(shape, coefficients, order), torch.as_tensor(expected), rtol=1e-5, atol=1e-6
    )


def test_the_default_bias_field_is_the_published_run(tio):
    brain = torch.tensor(ellipsoid(FIELD[0], (8.0, 11.0, 15.0)))
    x = torch.where(brain, signal(), 0.0)
    field = torch.as_tensor(tio.transforms.BiasField.generate_bias_field(x, 3, [0.1] * 20))
    torch.testing.assert_close(corrupt(x, brain, FIELD[1], "bias_field", seeded()), x * field, rtol=1e-5, atol=1e-3)
    z = torch.where(brain, (x - 300) / 80, 0.0)
    expected = torch.where(brain, (z - z.amin((1, 2, 3), True)) * field + z.amin((1, 2, 3), True), 0.0)
    torch.testing.assert_close(corrupt(z, brain, FIELD[1], "bias_field", seeded()), expected, rtol=1e-4, atol=1e-4)


def test_a_bias_field_with_too_few_coefficients_is_refused():
    with pytest.raises(BadCall, match="order 3 has 20 coefficients, got 19"):
        fields.bias_field(SHAPE, torch.zeros(19))


def test_gamma_is_torchios_on_an_image_from_0_to_1(tio):
    x = signal(SHAPE)
    x = x / x.amax((1, 2, 3), True)
    expected = by_torchio(tio, tio.transforms.Gamma(math.exp(0.3)), x)
    torch.testing.assert_close(intensity.gamma(x, 0.3), expected)
    torch.testing.assert_close(intensity.gamma(500 * x, 0.3), 500 * expected)
    assert not intensity.gamma(torch.zeros(1, *SHAPE)).any()


def test_the_other_sequence_turns_the_order_of_tissues_round():
    """Fluid, grey and white matter of a T1: fluid becomes brightest, white matter darkest, air stays black."""
    x = torch.zeros(1, *SHAPE)
    x[0, 5:10], x[0, 10:18], x[0, 18:25] = 150, 420, 600
    brain = x[0] > 0
    out = intensity.other_sequence(x, brain)
    air, fluid, grey, white = (float(out[0, i].mean()) for i in (0, 6, 12, 20))
    assert air == 0
    assert fluid > 1.3 * grey > 1.3 * 1.2 * white > 0
    assert fluid < 800
    shown = corrupt(x, brain, SPACING, "other_sequence", seeded())
    torch.testing.assert_close(shown, out)
    # Exaggerated, white matter has no signal left, and no less than none.
    far = corrupt(x, brain, SPACING, "other_sequence", seeded(), 4.0)
    assert float(far.min()) == float(far[0, 20].max()) == 0


# --- bands ---------------------------------------------------------------------------------------------------------


def box(shape: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> Tensor:
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return inside


def test_a_chunk_is_30_mm_from_the_top_down():
    brain = box((8, 10, 192), (2, 3, 20), (6, 8, 160))
    gone = bands.chunk(brain, (1.0, 1.0, 1.0), 2, "top", 30.0)
    assert gone.shape == brain.shape
    assert gone[0, 0].nonzero().flatten().tolist() == list(range(130, 192))
    assert int((gone & brain)[4, 4].sum()) == 30
    coarse = box((8, 10, 96), (2, 3, 10), (6, 8, 80))
    assert int((bands.chunk(coarse, (2.0, 2.0, 2.0), 2, "top", 30.0) & coarse)[4, 4].sum()) == 15


@pytest.mark.parametrize(("low", "high"), [(20, 160), (20, 161)])
def test_a_chunk_in_the_middle_is_30_mm_of_the_brain(low, high):
    brain = box((8, 10, 192), (2, 3, low), (6, 8, high))
    gone = bands.chunk(brain, (1.0, 1.0, 1.0), 2, "middle", 30.0)[4, 4].nonzero().flatten()
    assert len(gone) == 30
    assert float(gone.float().mean()) == pytest.approx((low + high - 1) / 2, abs=0.5)
    other = bands.chunk(brain.permute(2, 0, 1), (1.0, 1.0, 1.0), 0, "middle", 30.0)
    assert int(other.any(dim=(1, 2)).sum()) == 30


def test_the_published_middle_is_that_of_a_field_with_the_brain_in_its_centre():
    brain = box((4, 4, 192), (0, 0, 26), (4, 4, 166))
    gone = bands.chunk(brain, (1.0, 1.0, 1.0), 2, "middle", 30.0)[0, 0].nonzero().flatten()
    # Rows 80 to 109 counted from the top are 82 to 111 from below.
    assert abs(int(gone[0]) - 82) <= 1


def test_a_missing_chunk_has_the_background_value():
    brain = box(SHAPE, (6, 7, 5), (24, 30, 28))
    for background in (0.0, -5.0):
        x = torch.where(brain, signal(SHAPE) - 250, background)
        out = bands.missing_chunk(x, brain, SPACING)
        gone = bands.chunk(brain, SPACING, 2, "top", 30.0)
        assert (out[:, gone] == background).all()
        assert torch.equal(out[:, ~gone], x[:, ~gone])


@pytest.mark.parametrize("mm", [0.5, 1.0, 2.0, 3.3])
def test_bands_are_as_wide_on_any_grid(mm):
    n = round(160 / mm)
    brain = torch.ones(1, 1, n, dtype=torch.bool)
    at = (np.arange(n) - (n - 1) / 2) * mm
    share = bands.zipper(brain, (1.0, 1.0, mm)).numpy()
    assert share.sum() * mm == pytest.approx(15, rel=1e-4)
    for centre in (3.5, 33.5, -26.5):
        near = np.abs(at - centre) < 10
        assert (share * at)[near].sum() / share[near].sum() == pytest.approx(centre, abs=0.01 + mm / 4)
    for stripes in (0.4, 1.0, 2.6, 12.0):
        assert bands.zipper(brain, (1.0, 1.0, mm), stripes=stripes).sum() * mm == pytest.approx(5 * stripes, rel=1e-3)
    for width in (2.0, 0.4):
        lines = bands.periodic_line(brain.permute(0, 2, 1), (1.0, mm, 1.0), width_mm=width)
        inner = lines.flatten().numpy()[np.abs(at) < 70]
        assert inner.sum() * mm == pytest.approx(7 * width, rel=1e-3)
        assert inner.max() <= min(1, width / mm) + 1e-6


def test_the_zippers_stripes_are_the_published_rows():
    """Rows 60 to 64, 90 to 94 and 120 to 124 of 192, counted from the top."""
    share = bands.zipper(torch.ones(1, 1, 192, dtype=torch.bool), (1.0, 1.0, 1.0))
    rows = (191 - share.nonzero().flatten()).sort().values
    expected = [*range(60, 65), *range(90, 95), *range(120, 125)]
    # The field's middle lies between voxels, the rows' middle on one: a stripe's half voxel spills to the next.
    assert set(expected) <= {r + d for r in rows.tolist() for d in (-1, 0, 1)}
    assert abs(float(rows.float().mean()) - np.mean(expected)) <= 1


def test_a_zipper_is_noise_up_to_the_largest_value():
    brain = torch.ones(SHAPE, dtype=torch.bool)
    x = signal(SHAPE) + 50
    noise = bands.interference(x, seeded())
    for channel in range(2):
        share = noise[channel] / x[channel].max()
        assert 0 <= float(share.min()) < 0.01
        assert 0.99 < float(share.max()) <= 1
        assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert brain.any()


def test_a_ring_is_a_circle_in_mm():
    spacing = (1.0, 2.0, 3.0)
    brain = torch.ones(121, 61, 3, dtype=torch.bool)
    share = bands.ring(brain, spacing, radius_mm=40.0, width_mm=6.0)
    assert share.shape == (121, 61, 1)
    assert float(share.sum()) * 2 == pytest.approx(2 * math.pi * 40 * 6, rel=0.03)
    i, j, _ = (share > 0.5).nonzero().T
    radius = torch.hypot((i - 60) * 1.0, (j - 30) * 2.0)
    assert 36 < float(radius.min()) < float(radius.max()) < 44
