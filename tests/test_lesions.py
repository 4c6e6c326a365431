"""Planted lesions: of the volume asked for, where they were asked for, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anomri.cohorts.phantom import template_with_lesion
from anomri.corruptions.lesions import KINDS, blob, paste, plant, reach_mm
from anomri.errors import BadCall, BadInput
from anomri.preprocess.space import mni152

SHAPE = (40, 46, 34)
SPACING = (2.0, 1.5, 2.5)
CENTRE = (18.0, 25.0, 15.0)


def ball(ml: float = 6.0, seed: int = 0) -> torch.Tensor:
    return blob(SHAPE, CENTRE, ml, SPACING, torch.Generator().manual_seed(seed))


@pytest.fixture
def scan() -> tuple[torch.Tensor, torch.Tensor]:
    """An image of two channels with texture, and its brain, which ends near the lesion's middle."""
    x = 100 + 10 * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    x[1] *= 3
    brain = torch.zeros(SHAPE, dtype=torch.bool)
    brain[4:36, 5:27, 3:31] = True
    return x, brain


@settings(max_examples=25, deadline=None)
@given(ml=st.floats(0.01, 20), seed=st.integers(0, 1000))
def test_a_blob_has_its_volume(ml, seed):
    voxels = max(1, round(1000 * ml / 7.5))
    assert int(ball(ml, seed).sum()) == voxels


def test_a_blob_larger_than_the_grid_fills_it():
    assert bool(ball(1e6).all())


def test_a_blob_is_one_smooth_piece_about_its_centre():
    for seed in range(8):
        lesion = ball(seed=seed).numpy()
        labels, _ = ndimage.label(lesion)
        assert np.bincount(labels.ravel())[1:].max() == lesion.sum()
        where = np.argwhere(lesion) * SPACING
        assert np.linalg.norm(where.mean(axis=0) - np.multiply(CENTRE, SPACING)) < 5
        # Extents in mm are alike: the spacing is heard.
        extent = np.ptp(where, axis=0) + SPACING
        assert extent.max() / extent.min() < 2


def test_blobs_follow_the_seed():
    assert torch.equal(ball(seed=3), ball(seed=3))
    assert not torch.equal(ball(seed=3), ball(seed=4))


def test_a_smooth_ball_without_roughness():
    lesion = blob(SHAPE, CENTRE, 6.0, SPACING, torch.Generator(), rough=0.0)
    away = np.linalg.norm((np.stack(np.indices(SHAPE), -1) - CENTRE) * SPACING, axis=-1)
    assert away[lesion.numpy()].max() <= away[~lesion.numpy()].min()


@pytest.mark.parametrize("change", [3.0, -2.0])
def test_a_lesion_has_its_intensity_in_each_channel(scan, change):
    x, brain = scan
    out, truth = paste(x, brain, ball(), change, SPACING)
    core = torch.tensor(ndimage.binary_erosion(truth.numpy(), iterations=2))
    assert core.any()
    for channel in range(2):
        values = x[channel][brain]
        assert float(out[channel][core].mean()) == pytest.approx(float(values.mean() + change * values.std()), rel=0.05)
        # A quarter of the texture is left.
        assert float(out[channel][core].std() / x[channel][core].std()) == pytest.approx(0.25, rel=0.15)


def test_nothing_else_is_touched(scan):
    x, brain = scan
    before = x.clone()
    lesion = ball()
    out, truth = paste(x, brain, lesion, 3.0, SPACING, edge_mm=2.0)
    assert torch.equal(x, before)
    assert torch.equal(truth, lesion & brain)
    assert 0 < int(truth.sum()) < int(lesion.sum())
    assert torch.equal(out[:, ~brain], x[:, ~brain])
    far = torch.tensor(ndimage.distance_transform_edt(~truth.numpy(), sampling=SPACING) > 8)
    assert torch.equal(out[:, far], x[:, far])


def test_the_edge_fades(scan):
    _, brain = scan
    flat = torch.full((1, *SHAPE), 100.0)
    flat[0, ::2] = 101.0
    out, truth = paste(flat, brain, ball(), 50.0, SPACING, edge_mm=6.0)
    gain = (out - flat)[0] / (out - flat).max()
    inside = ndimage.distance_transform_edt(truth.numpy(), sampling=SPACING)
    outside = ndimage.distance_transform_edt(~truth.numpy(), sampling=SPACING)
    rim_in, rim_out = (inside > 0) & (inside < 2.1), (outside > 0) & (outside < 2.1) & brain.numpy()
    core = inside > 5
    assert float(gain[core].mean()) > 0.9
    assert 0.45 < float(gain[rim_in].mean()) < 0.9
    assert 0.05 < float(gain[rim_out].mean()) < 0.55
    # The truth is where the lesion prevails.
    assert float(gain[truth].min()) > 0.45


def test_no_lesion_and_a_lesion_outside(scan):
    x, brain = scan
    for lesion in (torch.zeros(SHAPE, dtype=torch.bool), ~brain):
        out, truth = paste(x, brain, lesion, 3.0, SPACING)
        assert torch.equal(out, x)
        assert not truth.any()


def test_the_template_with_a_lesion():
    scan, healthy = template_with_lesion(), mni152()
    assert scan.lesion is not None
    assert scan.lesion.sum() * scan.voxel_ml == pytest.approx(12.0, abs=0.01)
    assert not (scan.lesion & ~scan.brain).any()
    np.testing.assert_array_equal(scan.image[0][~scan.brain], healthy.image[0][~scan.brain])
    centre = scan.affine @ [*np.argwhere(scan.lesion).mean(axis=0), 1]
    np.testing.assert_allclose(centre[:3], (26, 34, 22), atol=4)
    values = healthy.image[0][healthy.brain]
    core = ndimage.binary_erosion(scan.lesion, iterations=3)
    assert scan.image[0][core].mean() == pytest.approx(values.mean() + 2.5 * values.std(), rel=0.1)
    assert (template_with_lesion(seed=1).lesion != scan.lesion).any()


# --- plant ---------------------------------------------------------------------------------------------------------

GRID, MM = (60, 76, 44), (2.0, 1.5, 2.5)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def head() -> tuple[torch.Tensor, torch.Tensor]:
    """A brain of 0.55 l, off the grid's centre: a grey shell about a white core, two channels with texture; raw units."""
    away = (np.stack(np.indices(GRID), -1) - (31.0, 36.0, 21.0)) * MM / np.array([54.0, 52.0, 47.0])
    radius = np.linalg.norm(away, axis=-1)
    brain = torch.tensor(radius < 1)
    white = torch.tensor(radius < 0.75)
    x = torch.stack([400 + 200.0 * white, 300 - 100.0 * white]) * brain
    return x + 12 * torch.randn(2, *GRID, generator=rng(5)) * brain, brain


def apart(mask: torch.Tensor) -> torch.Tensor:
    """Distance to a mask in mm."""
    return torch.tensor(ndimage.distance_transform_edt(~mask.numpy(), sampling=MM))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), ml=st.floats(0.1, 40), seed=st.integers(0, 1000), edge=st.floats(0.5, 6))
def test_a_planted_lesion_has_its_volume_inside_the_brain_and_nothing_else_is_touched(head, kind, ml, seed, edge):
    x, brain = head
    before = x.clone()
    out, truth = plant(x, brain, MM, rng(seed), kind=kind, ml=ml, edge_mm=edge)
    assert torch.equal(x, before)
    assert truth.dtype == torch.bool
    assert int(truth.sum()) == max(1, round(1000 * ml / 7.5))
    assert not (truth & ~brain).any()
    untouched = (apart(truth) > edge / 2 + np.linalg.norm(MM)) | ~brain
    assert torch.equal(out[:, untouched], x[:, untouched])
    assert float((out != x)[0][truth].float().mean()) > 0.99
    assert torch.isfinite(out).all()


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 1000), push=st.floats(1, 5))
def test_a_mass_effect_stays_in_its_zone_and_leaves_the_truth_alone(head, kind, seed, push):
    x, brain = head
    flat, still = plant(x, brain, MM, rng(seed), kind=kind, ml=4.0)
    out, truth = plant(x, brain, MM, rng(seed), kind=kind, ml=4.0, mass_effect_mm=push)
    assert torch.equal(truth, still)
    untouched = (apart(truth) > reach_mm(push) + np.linalg.norm(MM)) | ~brain
    assert torch.equal(out[:, untouched], x[:, untouched])
    assert not torch.equal(out, flat)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lesion_follows_the_seed(head, kind):
    one, two, other = (plant(*head, MM, rng(seed), kind=kind, ml=3.0) for seed in (1, 1, 2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[1], other[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ml", [0.05, 2.0])
def test_raw_and_normalised_scans_get_the_same_lesion(head, kind, ml):
    x, brain = head
    z = (x - 370) / 80
    out, truth = plant(x, brain, MM, rng(4), kind=kind, contrast=("hypo", "iso"), ml=ml, mass_effect_mm=2.0)
    normal, same = plant(z, brain, MM, rng(4), kind=kind, contrast=("hypo", "iso"), ml=ml, mass_effect_mm=2.0)
    # A voxel on the edge of a bin of intensities may change sides, and a focus its place.
    assert float((truth ^ same).sum()) <= (0 if kind != "white_matter" else 0.1 * float(truth.sum()))
    if torch.equal(truth, same):
        inside = brain & (apart(~brain) > 6)
        torch.testing.assert_close(normal[:, inside] * 80 + 370, out[:, inside], atol=0.1, rtol=0)


@pytest.mark.parametrize(("contrast", "signs"), [("hyper", (1, 1)), ("hypo", (-1, -1)), (("hypo", "hyper"), (-1, 1))])
def test_a_stroke_lies_as_far_from_its_place_as_asked(head, contrast, signs):
    x, brain = head
    x = x + 1000 * brain
    out, truth = plant(x, brain, MM, rng(2), kind="stroke", contrast=contrast, ml=20.0, change=1.5)
    core = torch.tensor(ndimage.binary_erosion(truth.numpy(), iterations=2))
    for channel, sign in enumerate(signs):
        place, values = x[channel][truth].mean(), x[channel][brain]
        wanted = place + sign * 1.5 * values.std()
        floor = float(values.min())
        # What is left of the tissue's own texture moves the core's mean a little.
        assert float(out[channel][core].mean()) == pytest.approx(
            max(float(wanted), floor), abs=0.2 * float(values.std())
        )


@pytest.mark.parametrize("kind", KINDS)
def test_an_iso_lesion_keeps_the_mean_of_its_place_and_has_another_texture(head, kind):
    x, brain = head
    white = apart(~brain) > 18
    out, truth = plant(x, brain, MM, rng(3), kind=kind, contrast="iso", lesion=white, edge_mm=1.0)
    for channel in range(2):
        before, after = x[channel][truth], out[channel][truth]
        assert float(after.mean()) == pytest.approx(float(before.mean()), rel=1e-4)
        assert float((before - after).std()) > 0.3 * float(x[channel][brain].std())


def test_an_iso_texture_is_smooth(head):
    x, brain = head
    white = apart(~brain) > 15
    out, truth = plant(x, brain, MM, rng(3), contrast="iso", lesion=white)
    rough = [float(y[0].diff(dim=1)[truth[:, 1:] & truth[:, :-1]].std() / y[0][truth].std()) for y in (x, out)]
    assert rough[1] < 0.8 * rough[0]


def test_a_dark_lesion_is_no_darker_than_the_brain(head):
    x, brain = head
    out, truth = plant(x, brain, MM, rng(), kind="stroke", contrast="hypo", change=50.0)
    for channel in range(2):
        darkest = float(x[channel][brain].min())
        assert float(out[channel][brain].min()) == pytest.approx(darkest, abs=1e-3)
        assert float(out[channel][truth].mean()) < darkest + 120


def test_a_given_shape_is_the_truth_and_the_kind_fills_it(head):
    x, brain = head
    given = torch.zeros(GRID, dtype=torch.bool)
    given[20:60, 30:44, 15:30] = True
    made = [plant(x, brain, MM, rng(), kind=kind, lesion=given, ml=1e9) for kind in KINDS]
    assert all(torch.equal(truth, given & brain) for _, truth in made)
    assert int((given & brain).sum()) < int(given.sum())
    assert not torch.equal(made[0][0], made[1][0])


def test_a_tumour_has_oedema_a_bright_rim_and_a_weaker_core():
    brain = torch.zeros(GRID, dtype=torch.bool)
    brain[3:57, 3:73, 2:42] = True
    x = 100 + torch.randn(1, *GRID, generator=rng(9))
    shape = blob(GRID, (30.0, 38.0, 22.0), 60.0, MM, rng(), rough=0.0)
    out, truth = plant(x, brain, MM, rng(), lesion=shape, change=20.0)
    depth = torch.tensor(ndimage.distance_transform_edt(truth.numpy(), sampling=MM))
    way = depth / depth.max()
    lift = ((out - x)[0] / 20.0 / x[0][brain].std()).numpy()
    oedema, rim, core = (
        float(np.mean(lift[(truth & (way > a) & (way < b)).numpy()]))
        for a, b in ((0.2, 0.3), (0.45, 0.58), (0.75, 1.0))
    )
    assert (oedema, rim, core) == pytest.approx((0.5, 1.0, 0.6), abs=0.06)


@pytest.mark.parametrize("seed", range(6))
def test_a_stroke_is_one_even_piece_of_one_hemisphere_that_reaches_the_cortex(head, seed):
    x, brain = head
    out, truth = plant(x, brain, MM, rng(seed), kind="stroke", ml=25.0)
    pieces, _ = ndimage.label(truth.numpy())
    assert np.bincount(pieces.ravel())[1:].max() > 0.97 * int(truth.sum())
    depth = torch.tensor(ndimage.distance_transform_edt(brain.numpy(), sampling=MM))
    # Broad at the cortex, narrow in the deep.
    assert int((truth & (depth < 6)).sum()) > 1.5 * int((truth & (depth > 0.6 * depth[truth].max())).sum()) > 0
    sides = truth[:31].any(), truth[32:].any()
    assert sum(map(bool, sides)) == 1
    core = torch.tensor(ndimage.binary_erosion(truth.numpy(), iterations=2))
    assert float(out[0][core].std()) < 0.5 * float(x[0][brain].std())


def test_a_stroke_larger_than_a_hemisphere_crosses_the_middle(head):
    x, brain = head
    ml = 0.7 * float(brain.sum()) * 7.5e-3
    _, truth = plant(x, brain, MM, rng(), kind="stroke", ml=ml)
    assert int(truth.sum()) == round(1000 * ml / 7.5)
    assert truth[:31].any()
    assert truth[32:].any()


@pytest.mark.parametrize("seed", range(4))
def test_white_matter_foci_are_many_small_and_away_from_the_cortex(head, seed):
    x, brain = head
    _, truth = plant(x, brain, MM, rng(seed), kind="white_matter", ml=1.5)
    pieces, n = ndimage.label(truth.numpy(), np.ones((3, 3, 3)))
    assert n >= 4
    where = [np.argwhere(pieces == i + 1) * MM for i in range(n)]
    assert all(np.ptp(w, axis=0).max() <= 18 for w in where)
    # Alone, a focus is no wider than 8 mm and its bumps.
    assert np.median([np.ptp(w, axis=0).max() + 2 for w in where]) < 10
    depth = torch.tensor(ndimage.distance_transform_edt(brain.numpy(), sampling=MM))
    assert float(depth[truth].min()) > 15


def test_white_matter_foci_begin_where_most_of_the_deep_tissue_is_alike(head):
    x, brain = head
    ventricle = torch.zeros(GRID, dtype=torch.bool)
    ventricle[26:36, 26:46, 16:26] = True
    seen = x.clone()
    seen[:, ventricle] = 50.0
    hit = [float((plant(seen, brain, MM, rng(s), kind="white_matter", ml=0.5)[1] & ventricle).sum()) for s in range(5)]
    missed = [float((plant(x, brain, MM, rng(s), kind="white_matter", ml=0.5)[1] & ventricle).sum()) for s in range(5)]
    assert sum(hit) < 0.35 * sum(missed)


def test_tissue_is_pushed_outwards_and_less_so_farther_away():
    shape, mm = (62, 70, 66), (1.0, 1.0, 1.0)
    brain = torch.zeros(shape, dtype=torch.bool)
    brain[1:-1, 1:-1, 1:-1] = True
    centre = np.array([30.0, 36.0, 32.0])
    radius = torch.tensor(np.linalg.norm(np.stack(np.indices(shape), -1) - centre, axis=-1)).float()
    ball = radius < 10
    out, truth = plant(radius[None], brain, mm, rng(), lesion=ball, edge_mm=0.5, mass_effect_mm=3.0)
    # The image tells how far from the centre the tissue came from.
    pushed = (radius - out[0])[30:, 36, 32].numpy()
    assert pushed[11] == pytest.approx(3.0, abs=0.7)
    assert (np.diff(pushed[12:26]) < 0.02).all()
    assert pushed[16] > 1.0
    np.testing.assert_allclose(pushed[27:], 0, atol=1e-3)
    # Nothing folds: what lay farther out still does.
    assert (np.diff(out[0][41:, 36, 32].numpy()) > 0).all()
    assert torch.equal(truth, ball)


def test_a_push_gives_way_where_tissue_would_fold_and_at_the_brain_s_edge():
    shape, mm = (62, 50, 46), (1.0, 1.0, 1.0)
    brain = torch.zeros(shape, dtype=torch.bool)
    brain[1:40, 1:-1, 1:-1] = True
    radius = torch.tensor(np.linalg.norm(np.stack(np.indices(shape), -1) - (30.0, 24.0, 22.0), axis=-1)).float()
    out, _ = plant(radius[None], brain, mm, rng(), lesion=radius < 4, edge_mm=0.5, mass_effect_mm=5.0)
    assert (np.diff(out[0][1:27, 24, 22].numpy()) < 0).all()
    out, _ = plant(radius[None], brain, mm, rng(), lesion=radius < 8, edge_mm=0.5, mass_effect_mm=3.0)
    pushed = radius - out[0]
    # The brain ends 9 mm to the right of the middle, and far away on the left.
    assert float(pushed[39, 24, 22]) < 0.5
    assert float(pushed[21, 24, 22]) > 1.2


@pytest.mark.parametrize("kind", KINDS)
def test_a_brain_that_fills_the_grid_takes_a_lesion(kind):
    x = torch.randn(1, 20, 26, 16, generator=rng())
    brain = torch.ones(20, 26, 16, dtype=torch.bool)
    out, truth = plant(x, brain, MM, rng(), kind=kind, ml=1.0, mass_effect_mm=2.0)
    assert int(truth.sum()) == round(1000 / 7.5)
    assert torch.isfinite(out).all()
    out, truth = plant(x, brain, MM, rng(), kind=kind, lesion=brain, mass_effect_mm=2.0)
    assert truth.all()
    assert torch.isfinite(out).all()
    # Nor does it need an image with anything in it.
    out, _ = plant(torch.zeros_like(x), brain, MM, rng(), kind=kind, ml=1.0, mass_effect_mm=2.0)
    assert not out.any()


@pytest.mark.parametrize("kind", ["tumour", "stroke"])
def test_a_lesion_may_be_as_large_as_the_brain_and_no_larger(head, kind):
    x, brain = head
    whole = float(brain.sum()) * 7.5e-3
    out, truth = plant(x, brain, MM, rng(), kind=kind, ml=whole)
    assert torch.equal(truth, brain)
    assert torch.isfinite(out).all()
    with pytest.raises(BadInput, match=r"900 ml does not fit into a brain of 55\d\.\d ml"):
        plant(x, brain, MM, rng(), kind=kind, ml=900.0)


def test_what_cannot_be_planted_is_said(head):
    x, brain = head
    none = torch.zeros_like(brain)
    for error, words, asked in (
        (BadCall, "unknown lesion 'cyst'; known: stroke, tumour, white_matter", {"kind": "cyst"}),
        (BadCall, "unknown contrast 'bright'; known: hyper, hypo, iso", {"contrast": "bright"}),
        (BadCall, "there are 3 contrasts, the image has 2 sequences", {"contrast": ["iso"] * 3}),
        (BadCall, "ml is 0,", {"ml": 0.0}),
        (BadCall, "ml is nan,", {"ml": float("nan")}),
        (BadCall, "ml is inf,", {"ml": float("inf")}),
        (BadCall, "change is inf,", {"change": float("inf")}),
        (BadCall, "mass_effect_mm is inf;", {"mass_effect_mm": float("inf")}),
        (BadCall, "change is -2,", {"change": -2.0}),
        (BadCall, "edge_mm is 0,", {"edge_mm": 0.0}),
        (BadCall, "mass_effect_mm is -1;", {"mass_effect_mm": -1.0}),
        (BadInput, "has no voxel inside the brain", {"lesion": none}),
        (BadInput, "has no voxel inside the brain", {"lesion": ~brain}),
        (BadCall, "mass_effect_mm is nan;", {"mass_effect_mm": float("nan")}),
        (BadInput, r"the lesion has grid \(44, 60, 76\), the brain \(60, 76, 44\)", {"lesion": none.permute(2, 0, 1)}),
        (BadInput, "300 ml do not fit into the", {"kind": "white_matter", "ml": 300.0}),
    ):
        with pytest.raises(error, match=words) as raised:
            plant(x, brain, MM, rng(), **asked)
        assert "\n" not in str(raised.value)
    with pytest.raises(BadInput, match="does not fit into a brain of 0 ml"):
        plant(x, none, MM, rng())
