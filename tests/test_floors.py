"""The floors: an intensity threshold, and the covariance model."""

from __future__ import annotations

import numpy as np
import pytest

from anomri.cohort import Cohort
from anomri.errors import BadCall, BadInput
from anomri.methods.covariance_model import MARGIN, CovarianceModel
from anomri.methods.threshold import Threshold
from anomri.scan import Scan

SHAPE = (40, 44, 40)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def scan(image: np.ndarray, brain: np.ndarray, id: str = "one", affine: np.ndarray = AFFINE) -> Scan:
    return Scan((image * brain)[None].astype(np.float32), affine, brain=brain, id=id, sequences=("T1w",))


def ball() -> np.ndarray:
    at = np.indices(SHAPE) - np.reshape([20, 22, 20], (3, 1, 1, 1))
    brain: np.ndarray = (at**2).sum(axis=0) < 10**2
    return brain


# --- intensity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", ["positive", "negative", "both"])
def test_intensities_that_many_share_are_not_rare(sign):
    rng = np.random.default_rng(0)
    brain, image = ball(), rng.normal(size=SHAPE)
    inside = np.argwhere(brain)
    # A third at the floor, as where values were clipped at 0, a third at the ceiling.
    image[tuple(inside[::3].T)], image[tuple(inside[1::3].T)] = -9.0, 9.0
    of = scan(image, brain)
    found = Threshold(sign=sign).fit(Cohort([of])).detect(of).map
    third = -np.log10(1 / 3)
    wanted = {"positive": (0.0, third), "negative": (third, 0.0), "both": (-np.log10(2 / 3),) * 2}[sign]
    assert found[of.brain & (of.image[0] == -9)] == pytest.approx(wanted[0], abs=0.01)
    assert found[of.brain & (of.image[0] == 9)] == pytest.approx(wanted[1], abs=0.01)


def test_a_threshold_ranks_by_rarity_on_the_side_that_is_asked_for():
    rng = np.random.default_rng(1)
    of = scan(rng.normal(size=SHAPE), ball())
    order = np.argsort(of.image[0][of.brain])
    bright, dark, both = (
        Threshold(sign=sign).fit(Cohort([of])).detect(of).map[of.brain][order]
        for sign in ("positive", "negative", "both")
    )
    assert (np.diff(bright) >= 0).all()
    assert (np.diff(dark) <= 0).all()
    middle = len(order) // 2
    assert both[middle] < 0.01
    assert min(both[0], both[-1]) == pytest.approx(max(both), rel=0.1)


# --- covariance model -------------------------------------------------------------------------------------------------


def people(n: int = 6, seed: int = 0) -> list[Scan]:
    """Scans of one template each voxel of which varies between people, registered: the same millimetres are the same place."""
    rng = np.random.default_rng(seed)
    template, spread = rng.normal(0, 3, SHAPE), rng.uniform(0.1, 0.5, SHAPE)
    return [scan(template + spread * rng.normal(size=SHAPE), ball(), id=f"s{i}") for i in range(n)]


def test_registered_scans_are_compared_at_the_same_millimetres():
    *healthy, other = people()
    method = CovarianceModel(align="world").fit(Cohort(healthy))
    whole = method.detect(other).map
    # Another grid of the same world, and a brain whose box has another middle.
    low = (3, 1, 0)
    moved = AFFINE.copy()
    moved[:3, 3] = AFFINE[:3, :3] @ low
    cut = other.brain[3:, 1:].copy()
    cut[:14] = False
    part = scan(other.image[0, 3:, 1:], cut, affine=moved)
    found = method.detect(part).map
    # Less of the brain, less of the distance's covariance: ranks stay, not values.
    assert np.corrcoef(found[cut], whole[3:, 1:][cut])[0, 1] > 0.95
    by_brain = CovarianceModel(align="brain").fit(Cohort(healthy)).detect(part).map
    assert np.median(by_brain[cut]) > 2 * np.median(found[cut]), "compared with other places"


def test_brains_without_registration_are_compared_from_their_middle():
    *healthy, other = people()
    method = CovarianceModel().fit(Cohort(healthy))
    low = np.array([2, 0, 1])
    elsewhere = scan(np.roll(other.image[0], low, (0, 1, 2)), np.roll(other.brain, low, (0, 1, 2)), affine=AFFINE + 0)
    assert np.allclose(np.roll(method.detect(other).map, low, (0, 1, 2)), method.detect(elsewhere).map, atol=1e-5)


@pytest.mark.parametrize("align", ["brain", "world"])
def test_a_brain_past_the_margin_is_refused_and_one_within_is_not(align):
    healthy = people()
    method = CovarianceModel(align=align).fit(Cohort(healthy))
    for more, refused in ((MARGIN - 1, False), (MARGIN + 1, True)):
        brain = ball()
        both = [-1] if align == "world" else [-1, 1]
        for side in both:
            brain |= np.roll(brain, side * more, axis=0)
        large = scan(healthy[0].image[0], brain)
        if refused:
            with pytest.raises(
                BadInput, match=f"scan 'one': its brain reaches past the healthy ones by more than {MARGIN}"
            ):
                method.detect(large)
        else:
            assert np.isfinite(method.detect(large).map).all()


def test_other_axes_and_alignments_are_refused(tmp_path):
    healthy = people()
    turned = AFFINE[[1, 0, 2, 3]]
    method = CovarianceModel(align="world").fit(Cohort(healthy))
    with pytest.raises(BadInput, match="lies on other axes"):
        method.detect(scan(healthy[0].image[0], ball(), affine=turned))
    with pytest.raises(BadCall, match="unknown alignment 'up'; known: brain, world"):
        CovarianceModel(align="up")
