"""What all restoring methods share: how many images they paint, on which grid, in which precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomri.cohort import Cohort
from anomri.errors import BadCall
from anomri.methods.ae import AE
from anomri.methods.itermask2 import IterMask2
from anomri.methods.spatial_erasing import SpatialErasing
from anomri.methods.vae import VAE
from anomri.nets.layers import Dropout
from anomri.restorer import absolute, largest, runtime_of
from anomri.scan import Scan


def scan(brain_edge: int, grid_edge: int, id: str = "one", seed: int = 0) -> Scan:
    brain = np.zeros((grid_edge,) * 3, dtype=bool)
    low = (grid_edge - brain_edge) // 2
    brain[(slice(low, low + brain_edge),) * 3] = True
    image = np.random.default_rng(seed).normal(size=(1, *brain.shape)).astype(np.float32) * brain
    return Scan(image, np.diag([3.0, 3.0, 3.0, 1.0]), brain=brain, id=id, sequences=("T1w",))


@pytest.mark.parametrize("method", [VAE, SpatialErasing])
def test_a_score_of_several_images_has_ten_where_nothing_is_said(method):
    assert method().paintings() == 1
    assert method(score="mhd_full").paintings() == 10
    assert method(score="mhd_diag", n=3).paintings() == 3
    assert method(score="l1", n=4).paintings() == 4
    with pytest.raises(BadCall, match="score 'mhd_diag' needs 2 reconstructions or more, n is 1"):
        method(score="mhd_diag", n=1)
    # A study sets the score of weights that others share.
    told = method()
    told.score = "mhd_full"
    assert told.paintings() == 10


def test_a_method_that_paints_one_image_refuses_such_a_score():
    with pytest.raises(BadCall, match="score 'mhd_full' needs several reconstructions of a scan, ae makes one"):
        AE(score="mhd_full")


def test_several_images_differ_and_one_does_not():
    of = scan(14, 16)
    method = VAE(dims=3, latent=4, width=2, levels=2, steps=1, batch=1, n=3).fit(Cohort([of]))
    three = method.restore(of, torch.Generator().manual_seed(0))
    assert three.shape == (3, *of.image.shape)
    assert not np.array_equal(three[0], three[1])
    assert np.array_equal(three, method.restore(of, torch.Generator().manual_seed(0)))
    method.n = None
    (one,) = method.restore(of, torch.Generator().manual_seed(0))
    assert np.array_equal(one, method.restore(of, torch.Generator().manual_seed(1))[0])


@pytest.mark.parametrize(
    ("brain", "grid", "wanted"), [(62, 64, 64), (58, 64, 64), (30, 64, 48), (64, 64, 64), (61, 62, 64)]
)
def test_a_network_of_one_size_is_no_larger_than_the_scans(brain, grid, wanted):
    assert largest([scan(brain, grid)], 3, 16, margin=4) == [wanted] * 3
    assert largest([scan(brain, grid)], 2, 16, margin=4) == [wanted] * 2


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (AE, {"dims": 2, "dense": False, "latent": 2, "levels": 2}),
        (AE, {"dims": 3, "dense": False, "latent": 2, "levels": 2}),
        (IterMask2, {"refine": False}),
    ],
)
def test_brains_of_all_sizes_make_a_batch(cls, arguments):
    """The box of a brain that is two cells of the coarsest grid smaller is smaller, too; not in training."""
    both = [scan(62, 64, "large"), scan(20, 64, "small", 1)]
    method = cls(width=2, steps=3, batch=2, **arguments).fit(Cohort(both))
    assert method.data["box"] == [64] * arguments.get("dims", 2)
    assert all(np.isfinite(method.detect(one).map).all() for one in both)


def test_images_are_painted_in_float32_unless_told_otherwise():
    method = AE()
    method.device = "cpu"
    assert runtime_of(method)[1] == torch.float32
    method.precision = "bfloat16"
    assert runtime_of(method)[1] == torch.bfloat16


def test_a_batch_without_brain_has_a_loss():
    nothing = {"x": torch.zeros(2, 1, 8, 8), "brain": torch.zeros(2, 1, 8, 8, dtype=torch.bool)}
    assert absolute(torch.ones(2, 1, 8, 8), nothing) == 0


def test_cubes_are_of_volumes():
    with pytest.raises(BadCall, match="erasing 'cube' is of volumes; take 'patch' for slices"):
        SpatialErasing(dims=2, erase="cube")
    of = scan(14, 16)
    for dims in (2, 3):
        method = SpatialErasing(dims=dims, latent=4, width=2, levels=2, steps=2, batch=2, p=1.0)
        assert np.isfinite(method.fit(Cohort([of])).detect(of).map).all()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"dims": 3, "backbone": "residual", "width": 2}, 0.2),
        ({"dims": 3, "backbone": "residual", "width": 2, "dropout": 0.0}, 0.0),
        ({"dims": 2}, 0.0),
        ({"dims": 2, "dropout": 0.1}, 0.1),
    ],
)
def test_an_autoencoder_drops_as_its_paper_does_unless_told_otherwise(arguments, wanted):
    net = AE(**arguments).network(1, (32,) * arguments["dims"])
    assert {layer.p for layer in net.modules() if isinstance(layer, Dropout)} == {wanted}
