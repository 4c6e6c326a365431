"""IterMask3D with a painter whose error is known, against the paper's text written out slowly; and what it learns from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from anomri.cohort import Cohort
from anomri.corruptions.frequency import high_pass
from anomri.errors import BadCall, BadInput
from anomri.methods import itermask3d
from anomri.methods.itermask3d import IterMask3D
from anomri.nets.unet import StridedUNet
from anomri.preprocess.space import box
from anomri.scoring.thresholds import SCHEDULES
from anomri.train import Job, Trained, generator
from helpers import phantom, phantoms
from painter import BRAIN, FIXED, LESION, SHAPE, Error, N, Painter, agree, find, fixed, moody, plain, scan, squared

GOLDEN = json.loads((Path(__file__).parent / "golden" / "itermask3d.json").read_text())

# --- against the paper's text --------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [fixed, moody])
@pytest.mark.parametrize("steps", [100, 20, 2])
@pytest.mark.parametrize("channels", [1, 2])
def test_find_is_the_papers_algorithm(monkeypatch, off, steps, channels):
    subject, gammas = scan(channels), {"mask": 0.05 * 100 / steps, "score": 0.01 * 100 / steps}
    found, painter = find(
        monkeypatch, off, subject, step_percent=100 / steps, gamma_mask=gammas["mask"], gamma_score=gammas["score"]
    )
    agree(found, painter, plain(subject, off, gammas, steps, range(1, steps + 1)))
    assert found.trace.facts["measured"] == list(range(1, steps + 1))
    assert found.trace.facts["curve_error"] == 0
    assert found.trace.facts["schedule"] == "exact"


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_golden(monkeypatch, schedule):
    """Numbers that were computed once: a change of any of them is a change of the method.

    Those of "exact" are older than the schedule; they are what every step under a painter always gave.
    """
    found, _ = find(monkeypatch, moody, schedule=schedule)
    facts = found.trace.facts
    now = {
        "tau": [float(found.trace.tau[t - 1]) for t in (1, 25, 50, 75, 90, 100)],
        "fit": facts["fit"],
        "T": facts["T"],
        "stops": [facts["stops"][name]["t"] for name in ("mask", "score")],
        "ml": [facts["stops"][name]["ml"] for name in ("mask", "score")],
        "passes": facts["passes"],
        "measured": len(facts["measured"]),
        "order": int(found.trace.order.astype(int).sum()),
        "mean_map": float(found.map[BRAIN].mean()),
        "curve_error": facts["curve_error"],
    }
    assert now.keys() == GOLDEN[schedule].keys()
    for key, value in GOLDEN[schedule].items():
        assert now[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-6)), key


def test_mask_of_step_t_has_so_many_voxels(monkeypatch):
    found, painter = find(monkeypatch, moody)
    assert np.array_equal(painter.masks[0], BRAIN)
    for t in range(1, 100):
        assert int(painter.masks[t].sum()) == N - round(N * t / 100)
        assert not (painter.masks[t] & ~BRAIN).any()
    assert len(found.trace.tau) == 100


def test_tau_is_a_percentile_of_the_brains_errors_alone(monkeypatch):
    """Huge differences outside the brain change nothing."""
    found, _ = find(monkeypatch, fixed)
    loud, _ = find(monkeypatch, lambda mask, number: np.where(BRAIN, FIXED, 1000.0))
    np.testing.assert_array_equal(found.trace.tau, loud.trace.tau)
    np.testing.assert_array_equal(found.map, loud.map)
    inside = np.sort(squared(scan(), FIXED)[BRAIN])
    for t in (1, 37, 99, 100):
        assert found.trace.tau[t - 1] == inside[round(N * t / 100) - 1]
    assert found.map[~BRAIN].max() == 0


def test_voxels_may_come_back_and_order_keeps_the_last_step(monkeypatch):
    found, painter = find(monkeypatch, moody)
    masks = np.stack(painter.masks[1:100])
    back = (masks[1:] & ~masks[:-1]).any(axis=0)
    assert back.sum() > 50
    steps = np.arange(1, 100)[:, None, None, None]
    np.testing.assert_array_equal(found.trace.order, (masks * steps).max(axis=0))
    assert found.trace.order.dtype == np.uint8
    assert found.trace.order[~BRAIN].max() == 0


def test_order_gives_every_mask_where_none_comes_back(monkeypatch):
    found, painter = find(monkeypatch, fixed)
    for t in (1, 30, 99):
        np.testing.assert_array_equal(found.trace.order >= t, painter.masks[t])


# --- what must come out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_scan_painted_without_error_has_nothing_abnormal(monkeypatch, schedule):
    """The published code calls such a scan wholly abnormal (its first bug of test time)."""
    found, _ = find(monkeypatch, lambda mask, number: np.zeros((1, *SHAPE)), schedule=schedule)
    assert not found.mask.any()
    assert found.scores["volume_ml"] == 0
    assert np.abs(found.map).max() == 0
    np.testing.assert_array_equal(found.healthy, scan().image)
    assert [s["tau"] for s in found.trace.facts["stops"].values()] == [None, None]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_small_errors_everywhere_are_nothing_abnormal(monkeypatch, schedule):
    """A slope that never exceeds gamma: an empty mask."""
    found, _ = find(monkeypatch, lambda mask, number: 0.02 * FIXED, schedule=schedule)
    assert found.trace.tau[-1] > 0
    assert found.trace.facts["stops"]["mask"]["t"] is None
    assert not found.mask.any()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_two_clear_levels_give_the_lesion(monkeypatch, schedule):
    found, _ = find(monkeypatch, lambda mask, number: 0.1 + 2.4 * LESION[None], schedule=schedule)
    np.testing.assert_array_equal(found.mask, LESION)
    assert found.scores["volume_ml"] == pytest.approx(LESION.sum() * 0.008)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_lesion_in_noise_is_found_nearly(monkeypatch, schedule):
    found, _ = find(monkeypatch, lambda mask, number: 0.1 * FIXED + 2.4 * LESION[None] * mask, schedule=schedule)
    assert found.mask[LESION].all()
    # The centred mean over 5 steps sees the bend two steps early: so many voxels too many, and no more.
    assert found.mask.sum() <= LESION.sum() + 3 * N / 100


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_the_smaller_gamma_gives_the_larger_mask(monkeypatch, factor, schedule):
    """Where errors do not depend on the mask, tau rises, so the mask of the smaller gamma holds the other."""
    found, _ = find(monkeypatch, lambda mask, number: factor * FIXED, schedule=schedule)
    low, high = (found.trace.facts["stops"][name] for name in ("score", "mask"))
    assert low["t"] < high["t"]
    assert low["tau"] < high["tau"]
    assert low["ml"] > high["ml"] > 0
    swapped, _ = find(
        monkeypatch, lambda mask, number: factor * FIXED, schedule=schedule, gamma_mask=0.01, gamma_score=0.05
    )
    assert (swapped.mask | ~found.mask).all()
    assert swapped.mask.sum() * 0.008 == pytest.approx(low["ml"])


def refining(shrink: list[int]) -> Error:
    """After the first 100 passes, the k-th pass leaves just `shrink[k]` of the brain's voxels in the mask."""
    voxels = np.argwhere(BRAIN)

    def off(mask: np.ndarray, number: int) -> np.ndarray:
        if number <= 100:
            return FIXED
        keep = shrink[min(number - 101, len(shrink) - 1)]
        out = np.zeros((1, *SHAPE))
        out[(0, *voxels[:keep].T)] = 50.0
        return out

    return off


@pytest.mark.parametrize(
    ("left", "ends"),
    [
        ([300, 200, 100], 100),  # shrinks three times, then stands still
        ([300, 298, 100], 298),  # by 0.7 %: ends, at the smaller mask
        ([300, 296, 293, 100], 100),  # by 1.3 %, 1.01 %, ...: goes on
        ([300, 900, 100], 900),  # grows: ends at once, at the larger mask
    ],
)
def test_refinement_ends_below_one_percent(monkeypatch, left, ends):
    first = squared(scan(), FIXED)
    off = refining(left)
    found, painter = find(monkeypatch, off, gamma_score=1e9)
    tau = found.trace.facts["stops"]["mask"]["tau"]
    start = int((first > np.float32(tau)).sum())
    assert 310 < start < 0.9 * N
    sizes = [int(mask.sum()) for mask in painter.masks[100:]]
    expected = [start, *left, left[-1]]
    for k in range(1, len(expected)):
        if expected[k - 1] - expected[k] < 0.01 * expected[k - 1]:
            expected = expected[: k + 1]
            break
    assert expected[-1] == ends
    assert sizes[:-1] == expected[:-1], "what each refining pass hid"
    assert sizes[-1] == expected[-1] == found.mask.sum(), (
        "and one pass more, of the final mask, for map and healthy image"
    )
    assert found.trace.facts["passes"] == 100 + len(sizes)


def test_refinement_that_empties_the_mask_ends(monkeypatch):
    off = refining([0])
    found, painter = find(monkeypatch, off, gamma_score=1e9)
    assert not found.mask.any()
    assert len(painter.masks) == 102


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_healthy_is_painted_inside_the_mask_alone(monkeypatch, schedule):
    found, _ = find(monkeypatch, lambda mask, number: 0.1 + 2.4 * LESION[None], schedule=schedule)
    subject = scan()
    np.testing.assert_array_equal(found.healthy[:, ~found.mask], subject.image[:, ~found.mask])
    np.testing.assert_allclose(found.healthy[:, LESION], subject.image[:, LESION] + 2.5, rtol=1e-5)


def test_channels_count_alike(monkeypatch):
    """Two sequences: the error is their mean, and the painter sees both masked and both high-frequency images."""
    subject = scan(2)
    off = np.stack([FIXED[0], 3 * FIXED[0]])
    found, painter = find(monkeypatch, lambda mask, number: off, subject)
    np.testing.assert_allclose(found.map, squared(subject, off), rtol=1e-6)
    assert painter.inputs[0].shape[0] == 4
    np.testing.assert_allclose(found.map[BRAIN], 5 * squared(scan(), FIXED)[BRAIN], rtol=1e-3, atol=1e-5)


def test_what_the_network_is_shown(monkeypatch):
    """Noise in the mask, the scan elsewhere, and high frequencies of the whole grid at the scan's spacing; new noise every pass."""
    subject = scan()
    _, painter = find(monkeypatch, fixed)
    x_f = high_pass(torch.tensor(subject.image), subject.spacing).numpy()
    hidden = []
    for given, mask in zip(painter.inputs, painter.masks, strict=True):
        np.testing.assert_allclose(
            painter.back(given[1:]), x_f * (painter.back(np.ones_like(given[1:])) > 0), atol=1e-6
        )
        np.testing.assert_array_equal(painter.back(given[:1])[:, ~mask], subject.image[:, ~mask])
        hidden.append(painter.back(given[:1])[0][mask])
    noise = np.concatenate(hidden)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert len(np.unique(noise)) > 0.99 * noise.size
    other = find(monkeypatch, fixed, seed=1)[1]
    assert not np.array_equal(other.inputs[0], painter.inputs[0])
    assert np.array_equal(find(monkeypatch, fixed)[1].inputs[7], painter.inputs[7])


def test_a_cutoff_of_its_own(monkeypatch):
    _, painter = find(monkeypatch, fixed, cutoff=0.2)
    x_f = high_pass(torch.tensor(scan().image), (2.0,) * 3, 0.2).numpy()
    np.testing.assert_allclose(painter.inputs[0][1:], painter.cut(x_f), atol=1e-6)


# --- the ablations --------------------------------------------------------------------------------------------------


def test_without_the_frequencies_the_network_sees_none(monkeypatch):
    _, painter = find(monkeypatch, fixed, frequency=False)
    assert all(not given[1:].any() for given in painter.inputs)
    one = learning(monkeypatch, frequency=False)["sample"](0, generator("none", 0))
    assert not one["input"][1:].any()
    assert one["input"][:1].any()
    assert learning(monkeypatch, frequency=False)["settings"]["frequency"] is False


def test_without_refinement_the_whole_brain_is_painted_once(monkeypatch):
    found, painter = find(monkeypatch, fixed, refine=False)
    assert [mask.sum() for mask in painter.masks] == [N]
    np.testing.assert_allclose(found.map, squared(scan(), FIXED), rtol=1e-6)
    np.testing.assert_allclose(found.healthy[:, BRAIN], (scan().image + FIXED)[:, BRAIN], rtol=1e-5)
    np.testing.assert_array_equal(found.healthy[:, ~BRAIN], scan().image[:, ~BRAIN])
    assert found.mask is None
    assert found.trace is None


def test_a_given_tau_refines_and_no_curve_is_looked_for(monkeypatch):
    found, painter = find(monkeypatch, fixed, tau=0.4)
    np.testing.assert_array_equal(found.mask, squared(scan(), FIXED) > np.float32(0.4))
    # The whole brain, the mask after it, which stays, and the last pass under it.
    assert len(painter.masks) == 3
    np.testing.assert_array_equal(painter.masks[-1], found.mask)
    assert found.scores == {"volume_ml": pytest.approx(found.mask.sum() * 0.008)}
    assert found.trace is None
    assert found.mask.any()
    assert not find(monkeypatch, fixed, tau=1e9)[0].mask.any()


def test_the_healthy_tau_is_a_percentile_of_errors_under_random_masks(monkeypatch):
    # Voxels so wide that no blob covers the brain.
    wide = scan().with_(affine=np.diag([5.0, 6.0, 4.0, 1.0]))
    subjects = [wide, wide.with_(image=wide.image * 2, id="other")]
    painters = [Painter(s, fixed) for s in subjects]
    turns = iter(painters * 3)
    monkeypatch.setattr(itermask3d, "engine", lambda net, device, dtype, name: next(turns))
    method = IterMask3D(width=2)
    method.precision = "float32"
    found = [itermask3d.healthy_tau(method, Cohort(subjects), percentile=p) for p in (80, 50)]
    errors = [squared(s, FIXED)[p.masks[0]] for s, p in zip(subjects, painters, strict=True)]
    assert found == [pytest.approx(np.percentile(np.concatenate(errors), p), rel=1e-5) for p in (80, 50)]
    assert all(0 < p.masks[0].sum() < N for p in painters)
    assert not np.array_equal(painters[0].masks[0], painters[1].masks[0])
    assert itermask3d.healthy_tau(method, Cohort(subjects), percentile=80) == found[0]


def test_errors_are_averaged_over_their_neighbours_inside_the_brain(monkeypatch):
    # Voxels of 2 mm: 3 mm are 1.5 of them. What is outside counts for nothing.
    blurred = [
        ndimage.gaussian_filter(v * BRAIN, 1.5, mode="constant", radius=5) for v in (squared(scan(), FIXED), 1.0)
    ]
    wanted = np.divide(*blurred, where=BRAIN, out=np.zeros(SHAPE))
    found, _ = find(monkeypatch, fixed, refine=False, smooth_mm=3.0)
    np.testing.assert_allclose(found.map, wanted, rtol=1e-4, atol=1e-6)
    found, _ = find(monkeypatch, fixed, tau=0.3, smooth_mm=3.0)
    np.testing.assert_array_equal(found.mask, (wanted > 0.3) & BRAIN)
    assert 0 < found.mask.sum() < N
    even, _ = find(monkeypatch, lambda mask, number: np.full((1, *SHAPE), 0.5), refine=False, smooth_mm=3.0)
    np.testing.assert_allclose(even.map[BRAIN], 0.25, rtol=1e-5)


@pytest.mark.parametrize("floor", [0.02, 0.5])
def test_where_averaged_errors_bend_does_not_depend_on_their_floor(monkeypatch, floor):
    def raised(mask: np.ndarray, number: int) -> np.ndarray:
        return np.sqrt(moody(mask, number) ** 2 + floor)

    def stops(off):
        found, _ = find(monkeypatch, off, smooth_mm=2.0)
        return found.trace.tau, [found.trace.facts["stops"][name]["t"] for name in ("mask", "score")]

    (low, before), (high, after) = stops(moody), stops(raised)
    np.testing.assert_allclose(high - low, floor, rtol=1e-3)
    assert before == after
    assert min(before) > 1


def test_a_negative_smoothing_is_refused():
    with pytest.raises(BadCall, match="smooth_mm is -1"):
        IterMask3D(width=2, smooth_mm=-1)


@pytest.mark.parametrize("step_percent", [0.0, 0.2, 60, -1])
def test_steps_that_make_no_curve_are_refused(step_percent):
    with pytest.raises(BadCall, match="step_percent"):
        IterMask3D(width=2, step_percent=step_percent)


# --- what it learns from -------------------------------------------------------------------------------------------


def learning(monkeypatch, cohort=None, validation=None, **arguments):
    """The sample and loss functions, and all else, that `learn` hands to the training loop."""
    held = {}

    def spy(net, sample, loss, size, recipe, **more):
        held.update(net=net, sample=sample, loss=loss, size=size, recipe=recipe, **more)
        return Trained()

    monkeypatch.setattr(itermask3d, "train", spy)
    method = IterMask3D(width=2, **arguments)
    method.learn(cohort or phantoms(0, 1, 2), validation, generator(0), Job())
    return held


def test_a_sample_is_noise_in_a_blob(monkeypatch):
    sample = learning(monkeypatch, rotation=0.0)["sample"]
    for seed in range(4):
        one = sample(1, generator(seed))
        x, given, brain = one["x"], one["input"], one["brain"]
        assert given.shape == (2, *x.shape[1:])
        assert brain.shape == x.shape
        assert all(n % 16 == 0 for n in x.shape[1:])
        hidden = given[:1] != x
        assert hidden.any()
        assert not (hidden & ~brain).any()
        assert hidden.sum() < brain.sum()
        low, high = box(phantom(1).brain, size=x.shape[1:])
        edges = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        expected = high_pass(torch.tensor(phantom(1).image), (5.0,) * 3)[(slice(None), *edges)]
        torch.testing.assert_close(given[1:], expected)
        torch.testing.assert_close(x, torch.tensor(phantom(1).image)[(slice(None), *edges)])
    assert torch.equal(sample(1, generator(9))["input"], sample(1, generator(9))["input"])
    assert not torch.equal(sample(1, generator(9))["input"], sample(1, generator(8))["input"])


def test_all_samples_have_one_shape_that_holds_every_brain(monkeypatch):
    held = learning(monkeypatch, phantoms(0, 1, 2), phantoms(3))
    shapes = {tuple(held["sample"](i, generator(i))["x"].shape) for i in range(3)}
    assert len(shapes) == 1
    assert all(
        int(held["sample"](i, generator("a", i))["brain"].sum()) > 0.98 * phantom(i).brain.sum() for i in range(3)
    )


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_masks_is_the_whole_brain(monkeypatch, share):
    sample = learning(monkeypatch, whole_brain=share, rotation=0.0)["sample"]
    whole = []
    for seed in range(60):
        one = sample(0, generator("share", seed))
        whole.append(bool(((one["input"][:1] != one["x"]) == one["brain"]).all()))
    assert abs(np.mean(whole) - share) < 0.2
    assert share != 1 or all(whole)
    assert share != 0 or not any(whole)


def test_flips_and_rotations_come_as_often_as_asked(monkeypatch):
    plainly = learning(monkeypatch, rotation=0.0)["sample"](0, generator(0))["x"]
    for name in ("flip", "rotation", "contrast", "thick", "moved"):
        for chance in (0.0, 0.4, 1.0):
            sample = learning(monkeypatch, **{"rotation": 0.0, name: chance})["sample"]
            changed = [not torch.equal(sample(0, generator(name, s))["x"], plainly) for s in range(40)]
            assert abs(np.mean(changed) - chance) < 0.25, (name, chance)


def test_spots_are_shown_and_not_asked_for(monkeypatch):
    plain = learning(monkeypatch, rotation=0.0)["sample"](0, generator(0))
    seen = 0
    for seed in range(20):
        one = learning(monkeypatch, rotation=0.0, spots=1.0)["sample"](0, generator("spots", seed))
        assert torch.equal(one["x"], plain["x"]), "what is to be painted is the healthy scan"
        image, high = one["input"]
        off = (image != one["x"][0]) & one["brain"][0]
        # Beside the mask, which is one blob of noise, the spot is in the image; its edge is in the frequencies.
        assert not torch.equal(high, plain["input"][1])
        seen += bool(off.any())
    assert seen == 20
    share = learning(monkeypatch, rotation=0.0, spots=0.4)["sample"]
    spotted = [not torch.equal(share(0, generator("share", s))["input"][1], plain["input"][1]) for s in range(40)]
    assert abs(np.mean(spotted) - 0.4) < 0.25
    seen = [
        learning(monkeypatch, phantoms(0, 1), phantoms(2), spots=chance)["sample"](0, generator(0), "whole")["input"]
        for chance in (0.0, 1.0)
    ]
    assert torch.equal(*seen), "what is validated on has none"


def test_a_moved_brain_is_whole_and_lies_anywhere_in_its_box(monkeypatch):
    sample = learning(monkeypatch, rotation=0.0, moved=1.0)["sample"]
    middle = learning(monkeypatch, rotation=0.0)["sample"](0, generator(0))
    corners = set()
    for seed in range(40):
        one = sample(0, generator("moved", seed))
        assert one["x"].shape == middle["x"].shape
        assert int(one["brain"].sum()) == int(middle["brain"].sum())
        corners.add(tuple(int(n) for n in one["brain"][0].nonzero().amin(dim=0)))
    low, high = box(phantom(0).brain)
    spare = np.subtract(middle["x"].shape[1:], high - low)
    for axis in range(3):
        assert {corner[axis] for corner in corners} <= set(range(spare[axis] + 1))
    assert len(corners) > 5


def test_a_network_of_another_kind_learns_and_looks(monkeypatch):
    method = IterMask3D(network="strided", width=2, steps=2, batch=1)
    method.fit(phantoms(0, 1))
    assert isinstance(method.net, StridedUNet)
    again = method.detect(phantom(2))
    assert again.map.shape == phantom(2).grid.shape
    assert learning(monkeypatch, network="strided")["settings"]["network"] == "strided"
    with pytest.raises(BadCall, match=r"unknown network 'wide'.*residual, strided"):
        IterMask3D(network="wide")


def test_loss_counts_the_brain_alone(monkeypatch):
    loss = learning(monkeypatch)["loss"]
    brain = torch.zeros(2, 1, 2, 3, 4, dtype=torch.bool)
    brain[0, 0, 0, 1] = True
    brain[1, 0, 1, 2, :2] = True
    x = torch.zeros(2, 1, 2, 3, 4)
    off = torch.where(brain, 2.0, 100.0)
    assert float(loss(lambda given: off, {"input": x, "x": x, "brain": brain})) == pytest.approx(4.0)
    assert float(loss(lambda given: torch.where(brain, 0.0, 9.0), {"input": x, "x": x, "brain": brain})) == 0


def test_validation_is_the_same_every_time_and_looks_at_both_kinds_of_masks(monkeypatch):
    held = learning(monkeypatch, phantoms(0, 1), phantoms(2, 3))
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, given):
            seen.append(given.clone())
            return given[:, :1]

    with torch.inference_mode():
        first = held["validate"](Spy())
        torch.manual_seed(4)
        assert held["validate"](Spy()) == first
    assert len(seen) == 8
    assert all(torch.equal(a, b) for a, b in zip(seen[:4], seen[4:], strict=True))
    brains = [int(phantom(n).brain.sum()) for n in (2, 3)]
    sizes = [int((given[0, 0] != 0).sum()) for given in seen[:4]]
    assert sizes[0] > 0
    assert sizes[1] >= 0.98 * brains[0]
    assert learning(monkeypatch)["validate"] is None


def test_recipe_and_settings_are_the_arguments(monkeypatch):
    held = learning(monkeypatch, steps=77, batch=3, lr=0.02, final=0.3)
    recipe = held["recipe"]
    assert (recipe.steps, recipe.batch, recipe.lr, recipe.final) == (77, 3, 0.02, 0.3)
    assert held["size"] == 3
    assert held["settings"]["width"] == 2
    assert held["settings"]["spacing"] == [5.0, 5.0, 5.0]


def test_small_boxes_are_not_trained_in_bfloat16(monkeypatch):
    """torch's CPU kernel reads unset memory there: weights would be random, or NaN."""
    assert learning(monkeypatch)["job"].precision == "float32"
    wide = [phantom(n, shape=(64, 64, 64)) for n in range(2)]
    assert learning(monkeypatch, Cohort(wide))["job"].precision == "auto"


def test_a_scan_with_more_channels_than_the_network_is_refused():
    both = phantom(0)
    two = both.with_(image=np.concatenate([both.image] * 2), sequences=("T1w", "FLAIR"))
    with pytest.raises(BadInput, match="channels=2"):
        IterMask3D(width=2).fit(Cohort([two]))
