"""IterMask2: what its masks do, given networks whose errors are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from anomri.cohort import Cohort
from anomri.errors import BadCall, NotFitted
from anomri.methods import itermask2
from anomri.methods.itermask2 import BATCH, IterMask2
from anomri.metrics.oracle import best_iteration_oracle
from anomri.scan import Finding, Scan
from anomri.scoring.thresholds import SCHEDULES

SHAPE = (32, 48, 5)
LESION = (slice(10, 16), slice(20, 26))


def scan() -> Scan:
    """A brain of five slices in which every intensity is 0, so that the error is the square of what is painted."""
    brain = np.zeros(SHAPE, dtype=bool)
    brain[4:28, 6:42] = True
    return Scan(
        np.zeros((1, *SHAPE), dtype=np.float32),
        np.diag([2.0, 2.0, 2.0, 1.0]),
        brain=brain,
        id="known",
        sequences=("T1w",),
    )


def field() -> Tensor:
    """What every network paints of every slice `(I, J)`: little, rising from left to right, and much in the lesion."""
    off = torch.linspace(0.1, 0.5, SHAPE[0])[:, None].expand(SHAPE[:2]).clone()
    off[LESION] = 2.0
    return off


class Painter:
    """Stands in for a network; keeps what it was given."""

    def __init__(self, off: Tensor) -> None:
        self.off, self.given = off, []

    def __call__(self, given: Tensor) -> Tensor:
        self.given.append(given.clone())
        return self.off.expand(len(given), 1, *self.off.shape).clone()


def look(monkeypatch, tau: float | None = 0.09, of: Scan | None = None, **arguments) -> tuple[Finding, list[Painter]]:
    painters = [Painter(field()), Painter(field())]
    turns = iter(painters)
    monkeypatch.setattr(itermask2, "engine", lambda net, device, dtype, name: next(turns))
    method = IterMask2(width=2, **arguments)
    method.data = {"sequences": ["T1w"], "box": [32, 48], "healthy_errors": None if tau is None else [tau] * 101}
    method.build(method.data)
    return method.find(of or scan(), torch.Generator().manual_seed(0)), painters


def test_the_mask_is_what_stays_above_tau(monkeypatch):
    found, (first, later) = look(monkeypatch)
    squared = field().square().numpy()
    brain = scan().brain
    # The first step hides the worst 60 %, and masks only shrink: what is above tau among those.
    worst = squared[..., None] > np.quantile(squared[brain[..., 0]], 0.4, method="inverted_cdf")
    assert np.array_equal(found.mask, brain & worst & (squared[..., None] > 0.09))
    assert np.allclose(found.map[found.mask], np.broadcast_to(squared[..., None], SHAPE)[found.mask])
    assert not found.map[~brain].any()
    assert [len(given) for given in (*first.given, *later.given)] == [BATCH] * (1 + len(later.given)), (
        "always full batches"
    )
    assert first.given[0].shape[1] == 1
    assert later.given[0].shape[1] == 2
    assert found.scores["volume_ml"] == pytest.approx(found.mask.sum() * 0.008)


def test_masks_shrink_and_never_grow(monkeypatch):
    """A second network that is wrong elsewhere unhides, but never hides again."""
    painters = [Painter(field()), Painter(field().flip(0))]
    turns = iter(painters)
    monkeypatch.setattr(itermask2, "engine", lambda net, device, dtype, name: next(turns))
    method = IterMask2(width=2)
    method.data = {"sequences": ["T1w"], "box": [32, 48], "healthy_errors": [0.09] * 101}
    method.build(method.data)
    found = method.find(scan(), torch.Generator().manual_seed(0))
    masks = [(given[:, 0] != 0) for given in painters[1].given]
    for before, after in itertools.pairwise(masks):
        assert not (after & ~before).any()
    order = found.trace.order
    assert (order[found.mask] == order.max()).all()
    assert (order[~scan().brain] == 0).all()
    assert (order[scan().brain] >= 1).all()


def test_what_is_hidden_at_the_end_is_hidden_at_every_step_of_the_trace(monkeypatch):
    # Of slices 3 and 4 the lesion is the worst 60 %: their mask does not shrink, and they are done before the others.
    brain = scan().brain.copy()
    brain[..., 3:] = False
    brain[(*LESION, slice(3, None))] = brain[4:8, 20:26, 3:] = True
    found, _ = look(monkeypatch, of=scan().with_(brain=brain))
    order = found.trace.order
    assert found.mask[..., 4].any()
    assert found.trace.facts["rounds"] > 1
    assert np.array_equal(order == order.max(), found.mask)
    for t in range(1, int(order.max())):
        assert not (found.mask & (order < t)).any()


@pytest.mark.parametrize("adaptive", [False, True])
def test_exploring_goes_on_to_an_empty_mask_and_leaves_the_result(monkeypatch, adaptive):
    plain, _ = look(monkeypatch, adaptive=adaptive)
    told, _ = look(monkeypatch, adaptive=adaptive, explore=True)
    for part in ("map", "mask", "healthy"):
        assert np.array_equal(getattr(told, part), getattr(plain, part))
    assert told.scores == plain.scores
    assert told.trace.facts == plain.trace.facts
    order, last = told.trace.order, plain.trace.order.max()
    assert np.array_equal(np.minimum(order, last), plain.trace.order), "the way to the result is the same"
    # What is most abnormal stays longest: a reader finds the lesion alone among the iterations.
    lesion = np.zeros(SHAPE, dtype=bool)
    lesion[LESION] = True
    assert best_iteration_oracle(order, lesion, scan().brain)[0] == 1
    assert (order >= best_iteration_oracle(order, lesion, scan().brain)[1]).sum() == lesion.sum()


def test_slices_that_are_done_are_left_alone(monkeypatch):
    """The other slices' painting does not change what was found in one."""
    found, _ = look(monkeypatch)
    assert all(np.array_equal(found.mask[..., 0], found.mask[..., k]) for k in range(SHAPE[2]))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_slice_may_have_its_own_tau(monkeypatch, schedule):
    found, _ = look(monkeypatch, tau=None, adaptive=True, gamma=0.05, schedule=schedule)
    lesion = np.zeros(SHAPE, dtype=bool)
    lesion[LESION] = True
    assert (found.mask & lesion).sum() == lesion.sum(), "where the curve bends"
    assert found.mask.sum() < 2 * lesion.sum()
    assert len(found.trace.tau) == 100
    assert found.trace.facts["passes"] >= 100 if schedule == "exact" else 5 < found.trace.facts["passes"] < 50
    assert found.trace.facts["tau"] is None


def test_steps_that_are_left_out_change_the_curve_and_the_mask_little(monkeypatch):
    exact, fast = (look(monkeypatch, tau=None, adaptive=True, gamma=0.05, schedule=s)[0] for s in ("exact", "adaptive"))
    assert np.array_equal(exact.mask, fast.mask)
    assert np.abs(exact.trace.tau - fast.trace.tau)[:90].max() < 0.02 * exact.trace.tau.max()
    with pytest.raises(BadCall, match=r"unknown schedule 'quick'.*adaptive, exact"):
        IterMask2(schedule="quick")


def test_one_step_is_a_map_alone(monkeypatch):
    found, (first, later) = look(monkeypatch, tau=None, refine=False)
    assert found.mask is None
    assert len(first.given) == 1
    assert not later.given
    inside = scan().brain
    assert np.allclose(found.map[inside], np.broadcast_to(field().square().numpy()[..., None], SHAPE)[inside])


def test_without_frequencies_the_second_network_sees_none(monkeypatch):
    _, (_, later) = look(monkeypatch, frequency=False)
    assert all(not given[:, 1].any() for given in later.given)


def test_without_a_threshold_it_says_what_to_do(monkeypatch):
    with pytest.raises(NotFitted, match="calibrate"):
        look(monkeypatch, tau=None)


def test_tau_is_the_percentile_of_healthy_errors_that_is_asked_for(monkeypatch):
    painters = iter([Painter(field()) for _ in range(2)])
    monkeypatch.setattr(itermask2, "engine", lambda net, device, dtype, name: next(painters))
    method = IterMask2(width=2, percentile=80.0)
    method.data = {"sequences": ["T1w"], "box": [32, 48]}
    method.build(method.data)
    method.settle(Cohort([scan()]), 0)
    squared = np.unique(field().square().numpy()[scan().brain[..., 0]])
    assert squared[0] < method.tau < squared[-1]
    taus = []
    for percentile in (1.0, 10.0, 20.0, 100.0):
        # Of a method that is fitted, too: a study sets it on weights that others share.
        method.percentile = percentile
        taus.append(method.tau)
    assert taus == sorted(set(taus))
    assert taus[-1] <= squared[-1]


def test_a_training_that_was_paused_before_the_second_network_is_not_used(monkeypatch):
    method = IterMask2(width=2, adaptive=True)
    method.data = {"sequences": ["T1w"], "box": [32, 48], "trained": ["first"]}
    method.build(method.data)
    with pytest.raises(NotFitted, match="paused before its second network had begun; call fit again"):
        method.find(scan(), torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("argument", "value"), [("percentile", 0.0), ("percentile", 100.1), ("first_share", 0.0), ("first_share", 100.0)]
)
def test_shares_are_between_0_and_100(argument, value):
    with pytest.raises(BadCall, match=argument):
        IterMask2(**{argument: value})
    assert IterMask2(percentile=100.0).percentile == 100
