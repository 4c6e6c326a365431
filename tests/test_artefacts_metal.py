"""Metal in the field: the dipole, what it does to signal, and what it leaves; unequal axes throughout."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from anomri.corruptions.artefacts import fields

SHAPE, SPACING = (30, 38, 34), (3.0, 2.5, 3.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_dipole_is_the_field_of_a_magnetised_sphere():
    """At a pole twice, at the equator minus once what theory gives; harmonic; its gradient as by differences."""
    metal = {"chi": 900e-6, "radius_mm": 5.0, "tesla": 3.0}
    pole, equator = (fields.dipole(torch.tensor([r]), **metal)[0] for r in ((0.0, 0.0, 10.0), (0.0, 10.0, 0.0)))
    hz = 42.577e6 * 3 * 900e-6 / 3 / 8
    assert float(pole) == pytest.approx(2 * hz, rel=1e-5)
    assert float(equator) == pytest.approx(-hz, rel=1e-5)
    at = 20 * torch.rand(50, 3, generator=seeded(), dtype=torch.float64) + 8
    step = 0.01
    value, slope = fields.dipole(at, **metal)
    sides = [[fields.dipole(at + s * step * torch.eye(3).double()[a], **metal)[0] for s in (1, -1)] for a in range(3)]
    gradient = torch.stack([(up - down) / (2 * step) for up, down in sides]).norm(dim=0)
    torch.testing.assert_close(slope, gradient, rtol=1e-4, atol=0)
    laplace = sum(up + down - 2 * value for up, down in sides) / step**2
    assert float((laplace / slope).abs().max()) < 1e-3


def uniform_block(n: int = 61) -> Tensor:
    return torch.full((1, n, n + 2, n + 20), 100.0)


def test_metal_moves_signal_and_makes_none():
    """Without dephasing, what is lost is the metal's own volume; lines of the readout keep their sum."""
    x, spacing = uniform_block(), (1.0, 1.0, 1.0)
    centre = torch.tensor([30.0, 31.0, 40.0])
    out = fields.susceptibility(x, spacing, centre, chi=20e-6, radius_mm=4.0, echo_ms=0.0)
    lost = float((x - out).sum() / 100)
    assert lost == pytest.approx(4 / 3 * math.pi * 4**3, rel=0.05)
    # A line through the equator, away from the metal, is displaced but whole.
    lines = (out - x).sum(dim=3)[0]
    assert float(lines[10, 31].abs()) < 5
    assert float(out.max()) > 120
    assert float(out.min()) >= 0


def test_there_is_no_seam_where_the_distortion_ends():
    """Far from the metal the image of something even is even: no bright or dark planes."""
    x = torch.full((1, 61, 63, 81), 100.0)
    centre = torch.tensor([30.0, 31.0, 40.0])
    out = fields.susceptibility(x, (1.0, 1.0, 1.0), centre, chi=20e-6, radius_mm=4.0, echo_ms=0.0)[0]
    away = torch.stack(torch.meshgrid(*(torch.arange(n) - c for n, c in zip(x.shape[1:], centre, strict=True)), indexing="ij")).norm(dim=0)  # fmt: skip
    assert float((out - 100).abs()[away > 16].max()) < 5
    assert float((out - 100).abs()[away > 30].max()) < 1e-3


def test_metal_that_is_no_magnet_leaves_all_but_itself():
    x = 300 * torch.rand(2, *SHAPE, generator=seeded(1))
    out = fields.susceptibility(x, SPACING, torch.tensor([15.0, 19.0, 17.0]), chi=1e-9, radius_mm=1e-3)
    torch.testing.assert_close(out, x)


def test_a_void_with_a_bright_rim():
    x = uniform_block()
    centre = torch.tensor([30.0, 31.0, 40.0])
    out = fields.susceptibility(x, (1.0, 1.0, 1.0), centre, radius_mm=5.0)[0]
    away = torch.stack(
        torch.meshgrid(*(torch.arange(n) - c for n, c in zip(x.shape[1:], centre, strict=True)), indexing="ij")
    ).norm(dim=0)
    assert float(out[away < 8].max()) < 20
    rim = (away > 10) & (away < 35)
    assert float(out[rim].max()) > 150
    far = (away > 35)[..., 4:-4]
    assert float(out[..., 4:-4][far].std()) < 5
    # The field has an axis: what it does along the readout is not what it does across.
    assert not torch.allclose(out[30, 31, 41:71], out[30, 32:62, 40][: len(out[30, 31, 41:71])], atol=5)


def test_a_displacement_is_hz_over_the_readout_gradient():
    """A bright plane across the readout, above the pole, moves up by 2 f / gradient."""
    x = torch.zeros(1, 41, 41, 81)
    x[..., 60] = 100
    centre = torch.tensor([20.0, 20.0, 40.0])
    for hz_per_mm in (100.0, 400.0):
        out = fields.susceptibility(x, (1.0, 1.0, 1.0), centre, radius_mm=5.0, echo_ms=0.0, hz_per_mm=hz_per_mm)[
            0, 20, 20
        ]
        moved = float((out * torch.arange(81)).sum() / out.sum()) - 60
        hz = 2 * 42.577e6 * 3 * 900e-6 / 3 * (5 / 20) ** 3
        assert moved == pytest.approx(hz / hz_per_mm, rel=0.12)
        assert float(out[45:].sum()) == pytest.approx(100, rel=0.15)


def test_metal_is_the_same_on_a_coarser_grid_and_dephasing_grows_the_void():
    centre = torch.tensor([30.0, 31.0, 40.0])
    fine = fields.susceptibility(uniform_block(), (1.0, 1.0, 1.0), centre, radius_mm=5.0)
    coarse = fields.susceptibility(uniform_block()[:, ::2, ::2, ::2], (2.0, 2.0, 2.0), centre / 2, radius_mm=5.0)
    voids = [float((v < 30).sum()) * mm**3 for v, mm in ((fine, 1.0), (coarse, 2.0))]
    assert voids[1] == pytest.approx(voids[0], rel=0.1)
    longer = fields.susceptibility(uniform_block(), (1.0, 1.0, 1.0), centre, radius_mm=5.0, echo_ms=9.0)
    spin = fields.susceptibility(uniform_block(), (1.0, 1.0, 1.0), centre, radius_mm=5.0, echo_ms=0.0)
    assert (longer < 30).sum() > 1.5 * (fine < 30).sum()
    assert (fine < 30).sum() > (spin < 30).sum()


def test_metal_at_the_edge_of_the_grid():
    x = 300 * torch.rand(2, *SHAPE, generator=seeded(1))
    out = fields.susceptibility(x, SPACING, torch.tensor([0, 37, 33]))
    assert out.isfinite().all()
    assert not torch.equal(out, x)
