"""Which sequence a brain looks like: features that do not depend on scale, discriminants that tell made brains apart, silence where unsure."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from anomri import preprocess
from anomri.cohorts.phantom import healthy
from anomri.errors import BadInput
from anomri.preprocess import intensity, sequence
from anomri.preprocess.sequence import TABLE, features, learn, likeness, other_than_said, told
from anomri.preprocess.space import mni152
from anomri.scan import Scan

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
#: How bright the surface, the depth and the fluid in the middle are.
BRIGHT = {"T1w": (-0.8, 0.9, -1.5), "T2w": (0.8, -0.6, 2.0), "FLAIR": (0.5, 0.1, -2.0)}


def brain(name: str, seed: int, shape: tuple[int, int, int] = (36, 44, 36)) -> Scan:
    """Cortex about white matter about fluid, with noise and means of its own."""
    rng = np.random.default_rng(seed)
    i, j, k = np.indices(shape)
    middle = [(n - 1) / 2 for n in shape]
    radius = np.sqrt(((i - middle[0]) / 16) ** 2 + ((j - middle[1]) / 20) ** 2 + ((k - middle[2]) / 16) ** 2)
    rim, deep, fluid = (value + 0.2 * rng.standard_normal() for value in BRIGHT[name])
    image = np.where(radius > 0.75, rim, np.where(radius > 0.3, deep, fluid)) + 0.3 * rng.standard_normal(shape)
    inside = radius < 1
    return Scan((image * inside)[None].astype(np.float32), AFFINE, id=f"{name}-{seed}", brain=inside, sequences=(name,))


@pytest.fixture(scope="module")
def table():
    return learn({name: [brain(name, seed) for seed in range(20)] for name in BRIGHT})


def test_features_are_what_they_say_and_do_not_depend_on_scale_or_offset():
    scan = brain("T1w", 0)
    found = features(scan)
    values = scan.image[0][scan.brain].astype(np.float64)
    robust = (values - np.median(values)) / (1.4826 * np.median(np.abs(values - np.median(values))))
    z = robust.clip(-3, 4)
    z = (z - z.mean()) / z.std()
    np.testing.assert_allclose(found[:9], np.percentile(z, (1, 5, 10, 25, 50, 75, 90, 95, 99)), atol=1e-6)
    depth = distance_transform_edt(scan.brain, sampling=scan.spacing)[scan.brain] - 2
    assert found[11] == pytest.approx(np.median(z[(depth > 6) & (depth <= 12)]))
    moved = scan.with_(image=np.where(scan.brain, 70 * scan.image + 300, 0).astype(np.float32))
    np.testing.assert_allclose(features(moved), found, atol=1e-4)


@pytest.mark.parametrize("name", ["T1w", "T2w", "FLAIR"])
def test_features_are_those_of_the_scan_whatever_its_scale_was(name):
    scan = brain(name, 3)
    scan = scan.with_(image=scan.image**3)
    plain, clipped = intensity.zscore(scan), intensity.clip(intensity.robust(scan), -3.0, 4.0)
    assert np.abs(clipped.image).max() == 4
    np.testing.assert_allclose(features(clipped), features(plain), atol=1e-4)


def test_of_a_finer_grid_means_of_blocks_count():
    scan = brain("T2w", 1)
    fine = scan.with_(
        image=scan.image.repeat(2, 1).repeat(2, 2).repeat(2, 3),
        brain=scan.brain.repeat(2, 0).repeat(2, 1).repeat(2, 2),
        affine=np.diag([1.0, 1.0, 1.0, 1.0]),
    )
    coarse = scan.with_(affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    np.testing.assert_allclose(features(fine), features(coarse))
    # Noise that 2 mm average away does not count, and a block that is outside by more than half is outside.
    noisy = fine.with_(image=fine.image + np.resize([3.0, -3.0], fine.image.shape).astype(np.float32))
    np.testing.assert_allclose(features(noisy), features(coarse), atol=1e-4)
    thin = fine.brain.copy()
    thin[::2] = False
    thin[1::2, ::2] = False
    with pytest.raises(BadInput, match="its brain is empty"):
        features(fine.with_(brain=thin))
    assert other_than_said(fine.with_(brain=thin)) == {}


def test_brains_that_were_not_learned_from_are_told_apart(table):
    for name in BRIGHT:
        for seed in range(100, 106):
            like = likeness(brain(name, seed), table=table)
            assert max(like, key=lambda one: like[one]) == name
            assert sum(like.values()) == pytest.approx(1)
    assert json.loads(json.dumps(table))["scans"] == dict.fromkeys(BRIGHT, 20)


def test_a_wrong_name_is_told_and_a_right_one_or_an_unknown_one_is_not(monkeypatch, table):
    monkeypatch.setattr(sequence, "_shipped", lambda: table)
    scan = brain("FLAIR", 50)
    assert other_than_said(scan) == {}
    assert other_than_said(scan.with_(sequences=("T1w",))) == {"T1w": "FLAIR"}
    assert told({"T1w": "FLAIR"}) == "is called T1w and looks like FLAIR"
    assert told({}) == ""
    assert other_than_said(scan.with_(sequences=("DWI",))) == {}
    both = scan.with_(image=np.concatenate([scan.image, brain("T2w", 51).image]), sequences=("FLAIR", "T1w"))
    assert other_than_said(both) == {"T1w": "T2w"}


def test_nothing_is_said_of_a_brain_that_the_grid_cuts(monkeypatch, table):
    monkeypatch.setattr(sequence, "_shipped", lambda: table)
    scan = brain("FLAIR", 50).with_(sequences=("T1w",))
    half = Scan(scan.image[..., :18], AFFINE, id="half", brain=scan.brain[..., :18], sequences=("T1w",))
    assert other_than_said(scan)
    assert other_than_said(half) == {}


def test_a_large_lesion_makes_no_other_sequence_of_a_scan(monkeypatch, table):
    monkeypatch.setattr(sequence, "_shipped", lambda: table)
    for name in BRIGHT:
        scan = brain(name, 60)
        i, j, k = np.indices(scan.brain.shape)
        lesion = ((i - 12) ** 2 + (j - 22) ** 2 + (k - 22) ** 2 < 49) & scan.brain
        for change in (-3.0, 3.0):
            ill = scan.with_(image=scan.image + np.float32(change) * lesion)
            assert other_than_said(ill) == {}


def test_a_brain_without_contrast_is_refused():
    scan = brain("T1w", 0)
    for image, mask in ((np.ones_like(scan.image), scan.brain), (scan.image, np.zeros_like(scan.brain))):
        with pytest.raises(BadInput, match="its brain is empty or constant; check the image and the brain mask"):
            features(scan.with_(image=image, brain=mask))


@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_the_table_of_the_package_knows_the_template(spacing):
    scan = preprocess.run(preprocess.preset("itermask3d", spacing=spacing), mni152())
    assert likeness(scan)["T1w"] > 0.9
    called = scan.with_(sequences=("T2w",))
    assert other_than_said(called) == ({"T2w": "T1w"} if likeness(scan)["T1w"] >= sequence.SURE else {})


def test_the_table_of_the_package_tells_phantoms_apart():
    for scan in healthy(2, sequences=tuple(BRIGHT), spacing=2.0):
        ready = preprocess.run(preprocess.preset("itermask3d", spacing=2.0), scan)
        for channel, name in enumerate(BRIGHT):
            assert likeness(ready, channel)[name] > 0.95


def test_the_table_of_the_package_knows_the_three_sequences():
    known = json.loads(TABLE.read_text())
    assert {*known["means"]} == {"T1w", "T2w", "FLAIR"}
    covariance = np.array(known["covariance"])
    assert covariance.shape == (16, 16)
    assert np.linalg.eigvalsh(covariance).min() > 0
