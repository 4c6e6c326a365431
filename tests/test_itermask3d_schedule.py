"""IterMask3D's two schedules: "adaptive" leaves steps out where tau is flat, and must find what "exact" finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from anomri.corruptions.frequency import high_pass
from anomri.errors import BadCall, BadInput
from anomri.methods import itermask3d
from anomri.methods.itermask3d import IterMask3D
from anomri.scoring.thresholds import SCHEDULES, left_out, stride
from helpers import ellipsoid
from painter import (
    BENDS,
    BRAIN,
    FIXED,
    LESION,
    SHAPE,
    N,
    Painter,
    agree,
    curve,
    find,
    fixed,
    moody,
    plain,
    scan,
    squared,
)

GAMMA = 0.01
"""gamma_score, the smaller one: it says how many steps are left out."""


def shown(painter: Painter, measured: list[int]) -> dict[int, np.ndarray]:
    """The mask that the network was shown at each measured step."""
    return dict(zip(measured, painter.masks[: len(measured)], strict=True))


def test_schedules_are_two_and_others_are_refused():
    assert SCHEDULES == ("adaptive", "exact")
    assert IterMask3D(width=2).schedule == "adaptive"
    with pytest.raises(BadCall, match="unknown schedule 'fast'; known: adaptive, exact"):
        IterMask3D(width=2, schedule="fast")


# --- against the slow reference --------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [fixed, moody])
@pytest.mark.parametrize("step_percent", [0.4, 1, 2, 34, 50])
@pytest.mark.parametrize("channels", [1, 2])
def test_find_is_the_papers_algorithm_with_steps_left_out(monkeypatch, off, step_percent, channels):
    subject, steps = scan(channels), round(100 / step_percent)
    gammas = {"mask": 0.05 * step_percent, "score": 0.01 * step_percent}
    found, painter = find(
        monkeypatch, off, subject, schedule="adaptive", step_percent=step_percent,
        gamma_mask=gammas["mask"], gamma_score=gammas["score"],
    )  # fmt: skip
    facts = found.trace.facts
    agree(found, painter, plain(subject, off, gammas, steps, facts["measured"]))
    assert len(found.trace.tau) == steps
    assert facts["schedule"] == "adaptive"
    if steps >= 50:
        assert len(facts["measured"]) < 0.55 * steps


def test_a_brain_of_fewer_voxels_than_steps(monkeypatch):
    few = ellipsoid(SHAPE, (1.2, 1.7, 1.2))
    subject = scan().with_(brain=few, image=scan().image * few)
    gammas = {"mask": 0.05, "score": 0.01}
    assert 1 < few.sum() < 40
    for schedule in SCHEDULES:
        found, painter = find(monkeypatch, moody, subject, schedule=schedule)
        agree(found, painter, plain(subject, moody, gammas, 100, found.trace.facts["measured"]))


def test_the_steps_that_are_measured_are_those_of_stride(monkeypatch):
    for off in (*BENDS.values(), moody):
        facts = (found := find(monkeypatch, off, schedule="adaptive")[0]).trace.facts
        known, t = {1: found.trace.tau[0]}, 1
        while t < 100:
            t = min(100, t + stride(known, GAMMA, 100))
            known[t] = found.trace.tau[t - 1]
        assert facts["measured"] == sorted(known)


# --- beside the exact schedule ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BENDS)
def test_tau_of_a_measured_step_is_the_exact_one(monkeypatch, name):
    """Where errors do not depend on the mask, what is left out changes nothing."""
    found, painter = find(monkeypatch, BENDS[name], schedule="adaptive")
    exact, slow = find(monkeypatch, BENDS[name])
    measured = found.trace.facts["measured"]
    at = np.array(measured) - 1
    np.testing.assert_array_equal(found.trace.tau[at], exact.trace.tau[at])
    np.testing.assert_allclose(found.trace.tau, exact.trace.tau, rtol=0.02, atol=GAMMA)
    np.testing.assert_array_equal(found.trace.order, exact.trace.order)
    for t, mask in shown(painter, measured).items():
        np.testing.assert_array_equal(mask, slow.masks[t - 1])
        np.testing.assert_array_equal(mask, (found.trace.order >= t - 1) & BRAIN)


@pytest.mark.parametrize("off", [*BENDS.values(), moody], ids=[*BENDS, "moody"])
def test_strides_never_grow_and_both_ends_are_measured(monkeypatch, off):
    facts = find(monkeypatch, off, schedule="adaptive")[0].trace.facts
    measured = facts["measured"]
    strides = np.diff(measured)
    assert (measured[0], measured[-1]) == (1, 100)
    assert strides[0] == 20
    assert (strides > 0).all()
    # The last may be cut short by the end.
    assert (np.diff(strides[:-1]) <= 0).all()
    assert strides[-1] <= strides[-2]


@pytest.mark.parametrize("name", BENDS)
def test_every_step_is_made_once_tau_rises(monkeypatch, name):
    tau = find(monkeypatch, BENDS[name])[0].trace.tau
    measured = find(monkeypatch, BENDS[name], schedule="adaptive")[0].trace.facts["measured"]
    rises = np.diff(tau)
    t = int(np.flatnonzero(rises > 1.5 * GAMMA)[0]) + 1
    assert t < 90
    assert measured[measured.index(t) :] == list(range(t, 101))


@pytest.mark.parametrize("name", ["tangent", "exponential"])
def test_a_curve_that_bends_has_the_same_stop_and_mask_in_far_fewer_passes(monkeypatch, name):
    exact, fast = (find(monkeypatch, BENDS[name], schedule=s)[0] for s in ("exact", "adaptive"))
    assert exact.trace.facts["passes"] > 100
    assert fast.trace.facts["passes"] < 45
    assert fast.trace.facts["fit"] == exact.trace.facts["fit"]
    for end in ("mask", "score"):
        a, b = (f.trace.facts["stops"][end] for f in (exact, fast))
        assert (a["t"], a["tau"], a["ml"]) == (b["t"], b["tau"], b["ml"])
    assert exact.mask.any()
    np.testing.assert_array_equal(fast.mask, exact.mask)
    np.testing.assert_array_equal(fast.map, exact.map)
    assert fast.scores == exact.scores


def test_fewer_steps_are_left_out_for_a_smaller_gamma(monkeypatch):
    """The smaller of the two, whichever it is."""

    def measured(one: float, other: float) -> list[int]:
        found, _ = find(monkeypatch, fixed, schedule="adaptive", gamma_mask=one, gamma_score=other)
        return found.trace.facts["measured"]

    few, some, many = (measured(5 * g, g) for g in (0.1, 0.03, 0.01))
    assert len(few) < len(some) < len(many)
    assert measured(0.03, 0.15) == some


def test_a_painter_that_changes_its_mind(monkeypatch):
    """Errors that depend on mask and pass: the curve is another one, its parts still fit together."""
    found, painter = find(monkeypatch, moody, schedule="adaptive")
    exact, _ = find(monkeypatch, moody)
    masks = shown(painter, found.trace.facts["measured"])
    for t, mask in masks.items():
        assert int(mask.sum()) == N - round(N * (t - 1) / 100)
        assert not (mask & ~BRAIN).any()
        assert (found.trace.order[mask] >= t - 1).all()
    assert found.trace.order[~BRAIN].max() == 0
    assert found.trace.order.dtype == np.uint8
    # All steps but the last are somebody's last.
    assert set(range(100)) == set(np.unique(found.trace.order))
    for part in (found.map, found.healthy, found.trace.tau):
        assert np.isfinite(part).all()
    assert not (found.mask & ~BRAIN).any()
    assert found.mask[LESION].mean() > 0.9
    for end in ("mask", "score"):
        a, b = (f.trace.facts["stops"][end] for f in (exact, found))
        assert abs(a["t"] - b["t"]) <= 2
        assert a["ml"] == pytest.approx(b["ml"], rel=0.15)


@pytest.mark.parametrize("level", [0.0, 0.3, 3.0])
def test_a_curve_that_is_constant(monkeypatch, level):
    exact, fast = (find(monkeypatch, lambda m, n: level * BRAIN[None], schedule=s)[0] for s in SCHEDULES)
    np.testing.assert_allclose(fast.trace.tau, exact.trace.tau, rtol=1e-5, atol=1e-11)
    np.testing.assert_array_equal(fast.mask, exact.mask)
    np.testing.assert_array_equal(fast.map, exact.map)
    assert fast.scores == pytest.approx(exact.scores)
    assert [s["t"] for s in fast.trace.facts["stops"].values()] == [s["t"] for s in exact.trace.facts["stops"].values()]


@pytest.mark.parametrize("arguments", [{"tau": 0.4}, {"refine": False}])
def test_without_a_curve_the_schedule_is_no_matter(monkeypatch, arguments):
    (a, one), (b, other) = (find(monkeypatch, fixed, schedule=s, **arguments) for s in SCHEDULES)
    np.testing.assert_array_equal(a.map, b.map)
    np.testing.assert_array_equal(np.array(one.inputs), np.array(other.inputs))


def test_the_error_of_the_interpolation_is_told(monkeypatch):
    for off in BENDS.values():
        found = find(monkeypatch, off, schedule="adaptive")[0]
        facts = found.trace.facts
        known = {t: float(found.trace.tau[t - 1]) for t in facts["measured"]}
        assert facts["curve_error"] == pytest.approx(left_out(known), rel=1e-3)
        assert 0 < facts["curve_error"] < 0.01
        assert find(monkeypatch, off)[0].trace.facts["curve_error"] == 0


# --- what the network is shown ---------------------------------------------------------------------------------------


def inside(painter: Painter, number: int) -> np.ndarray:
    """The first channel that a pass was given, on the scan's grid."""
    return painter.back(painter.inputs[number][:1])[0]


def test_noise_belongs_to_the_step(monkeypatch):
    """Leaving passes out does not change the noise of others, nor do other masks."""
    found, fast = find(monkeypatch, moody, schedule="adaptive")
    slow = find(monkeypatch, moody)[1]
    for number, t in enumerate(found.trace.facts["measured"][:-1]):
        both = fast.masks[number] & slow.masks[t - 1]
        assert both.any()
        np.testing.assert_array_equal(inside(fast, number)[both], inside(slow, t - 1)[both])


def test_every_pass_has_noise_of_its_own(monkeypatch):
    """Of the steps, of the refinement after them, and of the last pass."""
    found, painter = find(monkeypatch, moody, schedule="adaptive", gamma_score=1e9)
    assert found.trace.facts["passes"] >= len(found.trace.facts["measured"]) + 2
    for a, b in itertools.combinations(range(len(painter.masks)), 2):
        both = painter.masks[a] & painter.masks[b]
        assert not (inside(painter, a)[both] == inside(painter, b)[both]).any(), (a, b)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_network_sees_nothing_of_what_is_hidden(monkeypatch, schedule):
    """All channels are hidden alike; in a mask there is noise that knows nothing of the scan; all else is as it was."""
    subject = scan(2)
    found, painter = find(monkeypatch, fixed, subject, schedule=schedule)
    x_f = high_pass(torch.tensor(subject.image), subject.spacing).numpy()
    error = squared(subject, np.broadcast_to(FIXED, subject.image.shape))
    ranked = np.sort(error[BRAIN])
    for given, t in zip(painter.inputs, found.trace.facts["measured"], strict=False):
        hidden = BRAIN if t == 1 else BRAIN & (error > ranked[round(N * (t - 1) / 100) - 1])
        image = painter.back(given[:2])
        np.testing.assert_array_equal((image != subject.image).all(axis=0), hidden)
        np.testing.assert_array_equal(image[:, ~hidden], subject.image[:, ~hidden])
        np.testing.assert_allclose(given[2:], painter.cut(x_f), atol=1e-6)
    brighter = subject.with_(image=subject.image * 3)
    other = find(monkeypatch, fixed, brighter, schedule=schedule)[1]
    np.testing.assert_array_equal(
        other.back(other.inputs[0][:2])[:, BRAIN], painter.back(painter.inputs[0][:2])[:, BRAIN]
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_network_that_paints_no_numbers_is_said_in_one_line(monkeypatch, schedule, bad, everywhere):
    off = np.full((1, *SHAPE), bad) if everywhere else np.where(LESION, bad, FIXED)
    with pytest.raises(BadInput, match=r"scan 'known': .*NaN or infinite") as error:
        find(monkeypatch, lambda mask, number: off, schedule=schedule)
    assert "\n" not in str(error.value)


KINKS = {
    "late": curve(lambda s: 0.01 + 0.02 * s + 200 * np.maximum(0, s - 0.975)),
    "levels": lambda mask, number: 0.1 + 2.4 * LESION[None],
    "lesion in noise": lambda mask, number: 0.1 * FIXED + 2.4 * LESION[None] * mask,
}


@pytest.mark.parametrize("off", KINKS.values(), ids=KINKS)
def test_a_small_lesion_on_a_flat_curve_is_not_strode_over(monkeypatch, off):
    """The curve is flat up to the last steps, where it jumps: strides get shorter towards the end."""
    exact, fast = (find(monkeypatch, off, schedule=s)[0] for s in ("exact", "adaptive"))
    np.testing.assert_array_equal(fast.mask, exact.mask)
    for end in ("mask", "score"):
        a, b = (f.trace.facts["stops"][end] for f in (exact, fast))
        assert (a["t"], a["tau"], a["ml"]) == (b["t"], b["tau"], b["ml"])
    assert fast.trace.facts["passes"] < 25


def test_what_the_mask_depends_on_is_looked_at_in_float32(monkeypatch):
    """bfloat16 gives the curve; its tau at the stop, the refinement of the mask and the last pass are float32's."""
    subject = scan()
    rough, fine = (Painter(subject, lambda mask, number, by=by: by * FIXED) for by in (1.1, 1.0))
    by = {torch.bfloat16: rough, torch.float32: fine}
    monkeypatch.setattr(itermask3d, "engine", lambda net, device, dtype, name: by[dtype])
    monkeypatch.setattr(
        IterMask3D, "runtime", lambda self: (torch.device("cpu"), torch.bfloat16, "torch"), raising=True
    )
    method = IterMask3D(width=2, gamma_score=0.005)
    found = method.find(subject, torch.Generator().manual_seed(0))
    facts = found.trace.facts
    end, score = facts["stops"]["mask"], facts["stops"]["score"]
    assert end["tau"] == pytest.approx(found.trace.tau[end["t"] - 1] / 1.1**2, rel=1e-5)
    assert score["tau"] == pytest.approx(found.trace.tau[score["t"] - 1], rel=1e-5), "the score is the curve's alone"
    np.testing.assert_array_equal(found.mask, (squared(subject, FIXED) > np.float32(end["tau"])) & BRAIN)
    np.testing.assert_allclose(found.map, squared(subject, FIXED), rtol=1e-5)
    # The stop's, the refinement's once the mask hardly shrinks (its first round takes most of the brain away), the last.
    assert len(fine.masks) == 1 + (facts["refining"]["mask"] - 1) + 1
    assert facts["passes"] == len(fine.masks) + len(rough.masks)
    # A precision that was asked for is that of every pass.
    fine.masks.clear()
    method.precision = "bfloat16"
    method.find(subject, torch.Generator().manual_seed(0))
    assert not fine.masks
