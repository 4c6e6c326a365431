"""Artefacts: what all of them promise. Raw and z-scored, stripped or with a head, one scan or a batch; unequal axes throughout."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from anomri.corruptions.artefacts import ARTEFACTS, SWEEP, artefact, corrupt, corrupt_scan, strip_disagreement
from anomri.corruptions.artefacts.signals import background, distance, signal_of, stripped, surface_voxel
from anomri.errors import BadCall, BadInput
from anomri.scan import Scan
from helpers import ellipsoid

SHAPE, SPACING = (38, 46, 42), (4.0, 4.5, 3.8)
NAMES = [a.name for a in ARTEFACTS]
LOCAL = {"chunk_top", "chunk_middle", "zipper", "ring", "periodic_line", "susceptibility", "residual_tissue", "missing_brain"}  # fmt: skip
STRIP = {"residual_tissue", "missing_brain"}
every = pytest.mark.parametrize("name", NAMES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


BRAIN = torch.tensor(ellipsoid(SHAPE, (15.5, 17.6, 15.0), (0.4, -0.7, 0.3)))


def head() -> Tensor:
    """Two channels of a head: brain of three tissues with texture, dark gap, bright scalp, air with a little noise."""
    i, j, k = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    texture = 0.08 * torch.randn(2, *SHAPE, generator=seeded(5))
    tissue = (
        500 + 150 * torch.sin(7 * i + 3 * k) * torch.cos(6 * j) - 250 * ((3 * i) ** 2 + (2 * j) ** 2 + (4 * k) ** 2 < 1)
    )
    x = torch.stack([tissue, 900 - 0.8 * tissue]) * (1 + texture)
    away = distance(BRAIN, SPACING, 20.0)
    scalp = torch.where((away > 5) & (away < 12), 700.0, torch.where(away < 12, 60.0, 3.0)) * (1 + texture)
    return torch.where(BRAIN, x, scalp).clamp(min=0)


RAW = torch.where(BRAIN, head(), 0.0)


def zscored(x: Tensor = RAW, brain: Tensor = BRAIN) -> Tensor:
    values = x[:, brain]
    mean, sd = (v[:, None, None, None] for v in (values.mean(1), values.std(1)))
    return torch.where(brain, (x - mean) / sd, 0.0)


def changed(name: str, x: Tensor, severity: float, seed: int = 3) -> float:
    """Mean absolute change over the old brain and the new one, over the old one's voxels."""
    chosen, brain = artefact(name), BRAIN
    if chosen.local is not None:
        out = chosen.local(x, brain, SPACING, seeded(seed), severity)
        brain = brain | out.brain
        image = out.image
    else:
        image = corrupt(x, brain, SPACING, name, seeded(seed), severity)
    return float((image - x).abs()[:, brain].sum() / BRAIN.sum())


# --- the list ------------------------------------------------------------------------------------------------------


def test_the_list():
    assert len(set(NAMES)) == len({a.title for a in ARTEFACTS}) == len(ARTEFACTS) == 17
    assert {a.name for a in ARTEFACTS if a.local is not None} == LOCAL
    assert all(a.source for a in ARTEFACTS)
    assert artefact("spike").title == "Spike"
    assert SWEEP == (0.25, 0.5, 1.0, 2.0, 4.0)


def test_an_unknown_artefact_lists_the_known_ones():
    with pytest.raises(BadCall, match="unknown artefact 'sparkle'; known: bias_field, blur"):
        corrupt(RAW, BRAIN, SPACING, "sparkle", seeded())


@pytest.mark.parametrize("name", ["blur", "ring"])
def test_wrong_severities_and_shapes_are_refused(name):
    for severity in (-1.0, 100.1, math.nan, math.inf):
        with pytest.raises(BadCall, match="is not 0 to 100; 0 changes nothing"):
            corrupt(RAW, BRAIN, SPACING, name, seeded(), severity)
    for x, brain, spacing in ((RAW[0], BRAIN, SPACING), (RAW, BRAIN[None], SPACING), (RAW, BRAIN[1:], SPACING), (RAW, BRAIN, SPACING[:2])):  # fmt: skip
        with pytest.raises(BadCall, match="needs an image"):
            corrupt(x, brain, spacing, name, seeded())


# --- promises of all -----------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("x", [RAW, zscored(), head()], ids=["raw", "zscored", "head"])
def test_severity_0_changes_nothing_and_more_is_worse(name, x):
    still = corrupt(x, BRAIN, SPACING, name, seeded(), 0.0)
    assert torch.equal(still, x)
    assert still is not x
    growth = [changed(name, x, s) for s in SWEEP]
    if name == "residual_tissue" and x[:, ~BRAIN].any():
        # An image with its head has its own tissue: only the mask grows.
        assert growth == [0.0] * len(SWEEP)
        place = artefact(name).local
        growth = [float((place(x, BRAIN, SPACING, seeded(3), s).brain ^ BRAIN).sum()) for s in SWEEP]
    assert growth[0] > 0
    assert all(b > 1.05 * a for a, b in itertools.pairwise(growth)), growth
    tiny = changed(name, x, 0.01)
    assert tiny <= growth[0]


GOLDEN = {
    "chunk_top": 0.2356, "chunk_middle": 0.7383, "gaussian_noise": 0.5367, "spike": 0.2744, "bias_field": 0.9277,
    "ghosting": 1.1296, "zipper": 0.6388, "other_sequence": 3.0101, "ring": 0.3607, "periodic_line": 0.6022,
    "susceptibility": 0.2585, "residual_tissue": 0.0688, "missing_brain": 0.0265, "blur": 0.5923, "gamma": 1.3404,
    "motion": 0.7679, "gibbs": 0.5001,
}  # fmt: skip
"""Mean absolute change at severity 1, in SD of the brain."""


@every
def test_severity_1_is_as_strong_as_it_was(name):
    assert changed(name, zscored(), 1.0) == pytest.approx(GOLDEN[name], rel=0.01)


@every
def test_a_scan_is_left_alone_and_the_same_seed_is_the_same_artefact(name):
    x, brain, before = RAW.clone(), BRAIN.clone(), RAW.clone()
    one, two = (corrupt(x, brain, SPACING, name, seeded(7)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(x, before)
    assert torch.equal(brain, BRAIN)
    assert one.shape == x.shape
    assert one.dtype == x.dtype
    assert one.isfinite().all()
    assert not torch.equal(one, x)


RANDOM = {"gaussian_noise", "zipper", "susceptibility", "residual_tissue", "missing_brain", "motion"}


@every
def test_another_seed_is_another_artefact_where_there_is_chance(name):
    one, two = (corrupt(RAW, BRAIN, SPACING, name, seeded(seed)) for seed in (7, 8))
    assert torch.equal(one, two) == (name not in RANDOM)


@every
def test_a_batch_is_its_scans_one_after_the_other(name):
    other = BRAIN.flip(2).roll(1, 1)
    x, brain = torch.stack([RAW, RAW.flip(3).roll(1, 2) * 1.3]), torch.stack([BRAIN, other])
    together = corrupt(x, brain, SPACING, name, seeded(9), 0.7)
    rng = seeded(9)
    for a, b, out in zip(x, brain, together, strict=True):
        torch.testing.assert_close(corrupt(a, b, SPACING, name, rng, 0.7), out)


@every
def test_a_stripped_image_stays_stripped_and_a_head_does_not(name):
    """Outside the brain a stripped image keeps its value, save for tissue that is left on; everything else may go on in a head."""
    for x, value in ((RAW, 0.0), (zscored(), 0.0), (RAW - 4.0, -4.0)):
        out = corrupt(x, BRAIN, SPACING, name, seeded(1))
        same = (out[:, ~BRAIN] == value).all()
        assert same == (name != "residual_tissue")
    x = head()
    touched = (corrupt(x, BRAIN, SPACING, name, seeded(1)) != x)[:, ~BRAIN].any()
    assert touched == (name not in STRIP)


@every
def test_how_intensities_were_normalised_does_not_matter(name):
    """A scan and its z-scored copy get the same artefact, where the signal's zero is known: here the brain has one such voxel."""
    raw = RAW.clone()
    raw[:, 19, 23, 21] = 0
    z = zscored(raw)
    values = raw[:, BRAIN]
    mean, sd = (v[:, None, None, None] for v in (values.mean(1), values.std(1)))
    kept = BRAIN
    place = artefact(name).local
    if place is not None:
        kept = BRAIN | place(raw, BRAIN, SPACING, seeded(2), 1.0).brain
    expected = torch.where(kept, (corrupt(raw, BRAIN, SPACING, name, seeded(2)) - mean) / sd, 0.0)
    if name.startswith("chunk") or name == "missing_brain":
        # What is not there has each image's own background.
        expected = torch.where(place(raw, BRAIN, SPACING, seeded(2), 1.0).where, 0.0, expected)
    torch.testing.assert_close(corrupt(z, BRAIN, SPACING, name, seeded(2)), expected, atol=2e-4, rtol=1e-4)


@every
def test_half_precision_comes_back_as_it_went(name):
    out = corrupt(zscored().bfloat16(), BRAIN, SPACING, name, seeded())
    assert out.dtype == torch.bfloat16


@every
def test_nothing_is_made_on_another_device(name):
    """Every tensor follows the image's device: with another default, one that did not would not combine with it."""
    if name == "missing_brain":
        pytest.skip("its shape is drawn on the CPU and then moved")
    expected = corrupt(RAW, BRAIN, SPACING, name, seeded(4))
    real_rand, real_randn, real_randint = torch.rand, torch.randn, torch.randint
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        # Draws are on the CPU by convention, and moved.
        for draw, real in (("rand", real_rand), ("randn", real_randn), ("randint", real_randint)):
            patch.setattr(torch, draw, lambda *a, _real=real, **k: _real(*a, **k, device="cpu"))
        patch.setattr("anomri.corruptions.artefacts.strip.smooth_field", _flat)
        found = corrupt(RAW, BRAIN, SPACING, name, seeded(4))
    assert found.device.type == "cpu"
    if name != "residual_tissue":
        torch.testing.assert_close(found, expected)


def _flat(shape, spacing, every_mm, rng, *, channels, device):
    return torch.zeros(channels, *shape, device=device)


# --- local ones: truth, and scans ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LOCAL))
def test_the_truth_is_where_the_image_changed(name):
    place = artefact(name).local
    for x in (RAW, head()):
        out = place(x, BRAIN, SPACING, seeded(6), 1.0)
        assert torch.equal(out.image, corrupt(x, BRAIN, SPACING, name, seeded(6)))
        assert out.where.any()
        assert not (out.where & ~(BRAIN | out.brain)).any()
        assert torch.equal(out.brain, BRAIN) == (name not in STRIP)
        if name in STRIP:
            assert torch.equal(out.where, out.brain ^ BRAIN)
        diff = (out.image - x).abs().amax(dim=0)
        if name == "susceptibility":
            assert float(diff[BRAIN & out.where].min()) > float(diff[BRAIN & ~out.where].mean())
        else:
            elsewhere = BRAIN & ~out.where
            assert float(diff[elsewhere].max()) < 1e-3
            if not (name == "residual_tissue" and x is not RAW):
                assert float((diff[out.where] > 0).float().mean()) > 0.95
    nothing = place(RAW, BRAIN, SPACING, seeded(6), 0.0)
    assert not nothing.where.any()
    assert torch.equal(nothing.brain, BRAIN)


def scan(**parts) -> Scan:
    return Scan(RAW.numpy(), np.diag([*SPACING, 1.0]), **{"brain": BRAIN.numpy(), "sequences": ("T1w", "T2w"), **parts})


@every
def test_a_scan_carries_the_artefact_its_mask_and_its_truth(name):
    before = scan()
    out = corrupt_scan(before, name, seeded(2), 1.5)
    assert np.array_equal(out.image, corrupt(RAW, BRAIN, SPACING, name, seeded(2), 1.5).numpy())
    assert (out.lesion is not None) == (name in LOCAL)
    assert np.array_equal(out.brain, before.brain) == (name not in STRIP)
    assert (out.id, out.sequences, out.history) == (before.id, before.sequences, before.history)
    lesion = np.zeros(SHAPE, dtype=bool)
    lesion[20, 22, 19:21] = True
    both = corrupt_scan(scan(lesion=lesion), name, seeded(2), 1.5)
    assert np.array_equal(both.lesion, lesion if out.lesion is None else lesion | out.lesion)


def test_a_brain_without_a_surface_is_refused():
    everything, nothing = torch.ones(SHAPE, dtype=torch.bool), torch.zeros(SHAPE, dtype=torch.bool)
    for name in ("susceptibility", *STRIP):
        for brain in (everything, nothing):
            with pytest.raises(BadInput, match="give a brain mask"):
                corrupt(RAW, brain, SPACING, name, seeded())
    for name in ("chunk_top", "chunk_middle", "ring", "periodic_line", "zipper", "spike", "other_sequence"):
        with pytest.raises(BadInput, match="brain mask is empty"):
            corrupt(RAW, nothing, SPACING, name, seeded())


# --- failed brain extraction ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_residual_tissue_lies_on_the_brain_dark_then_bright(seed):
    out = artefact("residual_tissue").local(RAW, BRAIN, SPACING, seeded(seed), 1.0)
    new = out.where
    assert not (new & BRAIN).any()
    away = distance(BRAIN, SPACING, 30.0)
    assert float(away[new].max()) <= 10
    # A lens of 40 mm radius and 10 mm thickness, on a curved brain.
    ml = float(new.sum()) * math.prod(SPACING) / 1000
    assert 10 < ml < 60
    white = RAW[:, BRAIN].mean(1) + 1.5 * RAW[:, BRAIN].std(1)
    bright = out.image[:, new & (away > 3)].mean(1)
    torch.testing.assert_close(bright, white, rtol=0.25, atol=0)
    fine = torch.tensor(ellipsoid((76, 92, 84), (31.0, 35.0, 30.0)))
    small = artefact("residual_tissue").local(fine[None] * 500.0 + 10, fine, (2.0, 2.25, 1.9), seeded(seed), 1.0)
    gap = small.where & (distance(fine, (2.0, 2.25, 1.9), 10.0) <= 3)
    assert float(small.image[:, gap].mean()) == pytest.approx(0.15 * 500 + 10, rel=0.1)
    assert float(gap.sum() / small.where.sum()) > 0.1


def test_missing_brain_is_a_bite_from_the_surface():
    out = artefact("missing_brain").local(zscored(), BRAIN, SPACING, seeded(1), 1.0)
    assert not (out.brain & ~BRAIN).any()
    assert (out.image[:, out.where] == 0).all()
    ml = float(out.where.sum()) * math.prod(SPACING) / 1000
    assert 5 < ml < 30
    assert float(distance(~BRAIN, SPACING, 60.0)[out.where].min()) < 6


def test_disagreement_of_masks():
    a = torch.zeros(6, 7, 8, dtype=torch.bool)
    b, c = a.clone(), a.clone()
    a[:4], b[2:], c[0] = True, True, True
    # Dice: a and b 2*2/(4+4), a and c 2*1/(4+1), b and c 0.
    assert strip_disagreement([a, b, c]) == pytest.approx(1 - (0.5 + 0.4 + 0) / 3)
    assert strip_disagreement([c, a, b]) == pytest.approx(strip_disagreement([a, b, c]))
    assert strip_disagreement([a, a, a]) == 0
    assert strip_disagreement([a, ~a]) == 1
    assert strip_disagreement([a & ~a, b & ~b]) == 0
    failed = artefact("residual_tissue").local(RAW, BRAIN, SPACING, seeded(1), 4.0).brain
    slightly = artefact("residual_tissue").local(RAW, BRAIN, SPACING, seeded(1), 0.5).brain
    assert strip_disagreement([BRAIN, BRAIN, failed]) > strip_disagreement([BRAIN, BRAIN, slightly]) > 0
    for masks in ([a], [], [a, a[1:]]):
        with pytest.raises(BadCall, match="two or more masks"):
            strip_disagreement(masks)


# --- what they share -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_distance_is_scipys(seed):
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = torch.rand(9, 14, 11, generator=seeded(seed)) > 0.993
    mask[4, 5, 6] = True
    spacing = (1.0, 2.5, 0.7)
    expected = torch.tensor(ndimage.distance_transform_edt(~mask.numpy(), sampling=spacing), dtype=torch.float32)
    torch.testing.assert_close(distance(mask, spacing, 100.0), expected)
    near = distance(mask, spacing, 4.0)
    torch.testing.assert_close(near[expected <= 4], expected[expected <= 4])
    assert (near[expected > 4] > 4).all()


def test_signal_and_background():
    assert stripped(RAW, BRAIN)
    assert not stripped(head(), BRAIN)
    assert not stripped(RAW, torch.ones_like(BRAIN))
    for x in (RAW, zscored(), RAW - 4, head()):
        signal, image_of = signal_of(x, BRAIN)
        assert float(signal.min()) == 0
        torch.testing.assert_close(image_of(signal), x, atol=1e-4, rtol=0)
        assert (signal[:, ~BRAIN] == 0).all() == stripped(x, BRAIN)
    for x, value in ((RAW, 0.0), (zscored(), 0.0), (RAW - 4, -4.0)):
        assert (background(x, BRAIN) == value).all()
    assert (background(head(), BRAIN) < 10).all()
    assert torch.equal(background(RAW + 7, torch.ones_like(BRAIN)).flatten(), RAW.flatten(1).amin(1) + 7)


def test_the_surface_is_where_the_brain_ends_not_where_the_grid_does():
    cut = BRAIN[12:, :, :30]
    seen = torch.zeros_like(cut)
    for seed in range(200):
        i, j, k = surface_voxel(cut, seeded(seed)).tolist()
        seen[i, j, k] = True
        near = cut[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2, max(k - 1, 0) : k + 2]
        assert cut[i, j, k]
        assert not near.all()
    assert int(seen.sum()) > 150
