"""The variety of healthy people and of scanners: what age moves and paints, what a scanner changes, and what stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, label

from anomri.cohorts.phantom import healthy, labels, variety
from anomri.cohorts.phantom.variety import SPOT, VENTRICLES, WHITE, Age, aged, rescanned, rimmed, shaved, sinuses
from anomri.errors import BadCall
from test_phantom import maps  # noqa: F401, a fixture

SHAPE = (60, 80, 56)
MM = (2.0, 2.0, 2.0)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brain() -> torch.Tensor:
    """Cortex about white matter about two ventricles, at 2 mm."""
    i, j, k = np.indices(SHAPE)
    radius = np.sqrt(((i - 29.5) / 26) ** 2 + ((j - 39.5) / 34) ** 2 + ((k - 27.5) / 24) ** 2)
    numbers = np.zeros(SHAPE, dtype=np.int64)
    numbers[radius < 1] = 3
    numbers[radius < 0.85] = 2
    inner = np.sqrt(((np.abs(i - 29.5) - 5) / 4) ** 2 + ((j - 39.5) / 15) ** 2 + ((k - 27.5) / 6) ** 2)
    numbers[inner < 1] = np.where(i < 30, 4, 43)[inner < 1]
    return torch.from_numpy(numbers)


def fluid(numbers: torch.Tensor) -> int:
    return int(np.isin(numbers.numpy(), VENTRICLES).sum())


def test_ventricles_become_wider_or_narrower_and_nothing_else_moves_far():
    plain = brain()
    volumes = [fluid(aged(plain, MM, Age(mm, 0.0, 0), rng())) for mm in (-2.0, 0.0, 2.0, 4.0)]
    assert volumes == sorted(volumes)
    assert volumes[0] < 0.85 * volumes[1]
    assert volumes[3] > 1.4 * volumes[1]
    wide = aged(plain, MM, Age(4.0, 0.0, 0), rng())
    assert torch.equal(aged(plain, MM, Age(0.0, 0.0, 0), rng()), plain)
    # The outline of the brain, 30 mm away, is where it was.
    assert int(((wide > 0) != (plain > 0)).sum()) < 0.01 * int((plain > 0).sum())
    assert set(wide.unique().tolist()) == set(plain.unique().tolist())


def test_caps_are_white_matter_beside_ventricles_and_thicker_at_their_horns():
    plain = brain()
    capped = aged(plain, MM, Age(0.0, 3.0, 0), rng())
    spots = (capped == SPOT).numpy()
    assert spots.any()
    assert np.isin(plain.numpy()[spots], WHITE).all()
    assert torch.equal(capped[~torch.from_numpy(spots)], plain[~torch.from_numpy(spots)])
    away = distance_transform_edt(~np.isin(plain.numpy(), VENTRICLES), sampling=MM)
    assert away[spots].max() <= 3.0
    along = np.flatnonzero(np.isin(plain.numpy(), VENTRICLES).any(axis=(0, 2)))
    middle = np.abs(np.indices(SHAPE)[1] - along.mean()) < 0.2 * (along[-1] - along[0])
    assert away[spots & middle].size == 0 or away[spots & middle].max() <= 1.5
    assert away[spots & ~middle].max() > 1.5


def test_dots_are_small_and_lie_deep_in_white_matter():
    plain = brain()
    dotted = aged(plain, (1.0, 1.0, 1.0), Age(0.0, 0.0, 5), rng(1))
    spots = dotted == SPOT
    assert 5 <= int(spots.sum()) <= 5 * 27
    assert np.isin(plain[spots].numpy(), WHITE).all()
    assert torch.equal(dotted, aged(plain, (1.0, 1.0, 1.0), Age(0.0, 0.0, 5), rng(1)))
    assert not torch.equal(dotted, aged(plain, (1.0, 1.0, 1.0), Age(0.0, 0.0, 5), rng(2)))


def test_a_map_without_ventricles_or_white_matter_keeps_what_it_lacks():
    grey = torch.where(brain() > 0, 3, 0)
    assert torch.equal(aged(grey, MM, Age(4.0, 3.0, 5), rng()), grey)


def test_most_people_are_young():
    ages = [variety.age(rng(seed)) for seed in range(300)]
    wide, caps, dots = (np.array([getattr(a, name) for a in ages]) for name in ("wide_mm", "caps_mm", "dots"))
    assert -0.8 < wide.min() < 0
    assert 3.5 < wide.max() < 5.3
    assert (caps >= 0).all()
    assert caps.max() <= 3
    assert np.median(dots) <= 1
    assert 3 <= dots.max() <= 6
    assert np.corrcoef(wide, dots)[0, 1] > 0.3, "the old have more of each"


def test_spots_are_bright_where_fluid_is_bright_or_hidden_and_dark_on_t1w():
    drawn = {name: [variety.spot_contrast(name, rng(seed)) for seed in range(40)] for name in ("T1w", "T2w", "FLAIR")}
    assert max(drawn["T1w"]) < 0
    assert min(drawn["T2w"]) > 0
    assert min(drawn["FLAIR"]) > 0


def test_scanners_differ_in_slices_curve_and_noise():
    x = 900 * torch.rand(24, 30, 20, generator=rng(9)) + 50
    made = [rescanned(x, (1.0, 1.0, 1.0), rng(seed)) for seed in range(60)]
    assert torch.equal(made[0], rescanned(x, (1.0, 1.0, 1.0), rng(0)))
    assert all(float(one.min()) >= 0 and one.shape == x.shape for one in made)
    # How much neighbours differ along each axis, as in the original: thick slices are smooth along one of them.
    rough = np.array(
        [[float(one.diff(dim=axis).abs().mean() / x.diff(dim=axis).abs().mean()) for axis in range(3)] for one in made]
    )
    thick = rough.min(axis=1) < 0.6 * rough.max(axis=1)
    assert 0.3 < thick.mean() < 0.7
    axes = np.bincount(rough[thick].argmin(axis=1), minlength=3) / thick.sum()
    assert axes[2] > 0.4
    assert (axes > 0).all()
    thin = [one for one, is_thick in zip(made, thick, strict=True) if not is_thick]
    middles = [float(one.median() / one.max()) for one in thin]
    assert max(middles) - min(middles) > 0.15, "curves"
    assert float(rescanned(torch.zeros(8, 8, 8), (1.0, 1.0, 1.0), rng()).abs().max()) == 0


def test_half_of_the_masks_are_cut_closer_but_stay_one_piece():
    whole = (brain() > 0).numpy()
    made = [shaved(whole, MM, rng(seed)) for seed in range(40)]
    assert np.array_equal(made[3], shaved(whole, MM, rng(3)))
    cut = [one for one in made if not np.array_equal(one, whole)]
    assert 10 <= len(cut) <= 30
    deep = distance_transform_edt(whole, sampling=MM)
    for one in cut:
        assert not (one & ~whole).any()
        assert one[deep > 12].all(), "the depth of the brain is kept"
        assert label(one)[1] == 1
    lost = [1 - one.sum() / whole.sum() for one in cut]
    assert max(lost) > 0.05
    nothing = np.zeros(SHAPE, dtype=bool)
    assert not any(shaved(nothing, MM, rng(seed)).any() for seed in range(4))


def test_a_brain_of_which_shaving_leaves_nothing_stays_as_it_is():
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[4:8, 4:8, 4:8] = True
    kept = [shaved(mask, (1.0, 1.0, 1.0), rng(seed)) for seed in range(40)]
    assert all(0 < k.sum() <= mask.sum() for k in kept)
    assert min(int(k.sum()) for k in kept) < mask.sum()


def test_a_varied_cohort_is_another_and_the_plain_one_stays(maps):  # noqa: F811
    plain = healthy(2, spacing=5.0, label_maps=maps)
    varied = healthy(2, spacing=5.0, label_maps=maps, varied=True)
    assert plain.entries[0].image.tobytes() != varied.entries[0].image.tobytes()
    assert not np.array_equal(plain[0].image, varied[0].image)
    assert np.array_equal(varied[0].image, healthy(2, spacing=5.0, label_maps=maps, varied=True)[0].image)
    with pytest.raises(BadCall, match="the packaged template has no structures to vary; give a folder of label maps"):
        healthy(2, varied=True)


def test_means_move_apart_in_all_structures_and_spots_follow_white_matter(maps):  # noqa: F811
    table = labels._intensities("FLAIR", maps, rng())[0]
    spread = []
    for seed in range(80):
        mean = table.clone()
        labels._spread(mean, "FLAIR", rng(seed))
        spread.append(mean)
        assert 0.08 <= float(mean[SPOT] - mean[2]) <= 0.25 + 1e-6
        assert torch.equal(mean[2], mean[41])
    drawn = torch.stack(spread)
    assert float(drawn[:, 3].std()) == pytest.approx(labels.SPREAD, rel=0.3)
    assert not drawn[:, 0].any()


def test_iron_darkens_the_pallidum_of_t2w_and_flair_and_the_putamen_less(maps):  # noqa: F811
    """Pallidum and stem are painted alike but for iron and what is each structure's own."""
    for name, rich in (("T2w", True), ("FLAIR", True), ("T1w", False)):
        mean = labels._intensities(name, maps, rng())[0]
        mean[[13, 12, 3]], taken = mean[[16, 11, 3]], []
        for seed in range(60):
            drawn = mean.clone()
            labels._spread(drawn, name, rng(seed))
            taken.append([1 - float(drawn[13] / drawn[16]), 1 - float(drawn[12] / drawn[11])])
        pallidum, putamen = np.array(taken).T
        if rich:
            assert (pallidum >= -1e-6).all()
            assert pallidum.max() < labels.IRON + 1e-6
            assert pallidum.mean() == pytest.approx(labels.IRON / 2, abs=0.05)
            assert np.corrcoef(pallidum, putamen)[0, 1] > 0.9
            assert 0.02 < putamen.mean() < pallidum.mean()
        else:
            assert np.abs(pallidum).max() < 1e-6


def test_sinuses_lie_on_the_midline_above_and_behind_half_of_the_brains():
    inside = (brain() > 0).numpy()
    drawn = [sinuses(inside, MM, rng(seed)) for seed in range(60)]
    kept = [veins for veins in drawn if veins.any()]
    assert 18 <= len(kept) <= 42
    away = distance_transform_edt(~inside, sampling=MM)
    for veins in kept:
        assert not (veins & inside).any()
        assert label(inside | veins)[1] == 1
        i, j, k = np.argwhere(veins).T * 2.0
        assert np.abs(i - 59).max() <= 1.5 * 11 + 1e-6
        # Nothing before the brain's front below its upper quarter, nothing under it.
        assert (k[j > 79] >= 55 + 0.25 * 94 - 2).all()
        assert k.min() > 55 - 0.15 * 94 - 12
        assert away[veins].max() <= 11 + 2
        assert 0.5 < veins.sum() * 8e-3 < 20
    assert np.ptp([veins.sum() for veins in kept]) > 200
    empty = np.zeros(SHAPE, dtype=bool)
    assert not any(sinuses(empty, MM, rng(seed)).any() for seed in range(6))


def test_a_third_of_the_scans_have_a_rim_that_is_mixed_with_the_background():
    inside = (brain() > 0).numpy()
    image = np.full((2, *SHAPE), 100, dtype=np.float32)
    image[1] = 40
    rims = 0
    for seed in range(60):
        made, mask = rimmed(image, inside, (1.0, 1.0, 1.0), rng(seed))
        assert not made[:, ~mask].any()
        deep = distance_transform_edt(inside) > 4
        np.testing.assert_array_equal(made[:, deep], image[:, deep])
        if (mask == inside).all():
            np.testing.assert_array_equal(made, image * inside)
            continue
        rims += 1
        assert (inside <= mask).all()
        assert distance_transform_edt(~inside)[mask].max() <= 3
        new = made[:, mask & ~inside]
        assert (new > 0).all()
        assert (new < 0.6 * np.array([[100], [40]])).all()
    assert 12 <= rims <= 31
