"""How well healthy tissue is kept: against plain loops, SciPy, scikit-image and MONAI; LPIPS on encoders made here."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from torch import Tensor, nn

from anomri.errors import BadCall
from anomri.metrics.perceptual import lpips
from anomri.metrics.reconstruction import (
    BINS,
    CONTRAST_SHIFTS,
    contrast_shift,
    contrast_sweep,
    entropy_difference,
    kl_divergence,
    l1,
    l1_ratio,
    psnr,
    ssim,
)
from anomri.scoring.ssim import ssim_map

SHAPE = (3, 4, 2)
IMAGES = hnp.arrays(np.float32, (2, *SHAPE), elements=st.floats(-4, 4, width=32))
MASKS = hnp.arrays(bool, SHAPE)
METRICS = [
    l1,
    lambda x, y, where: psnr(x, y, where, data_range=2.0),
    lambda x, y, where: ssim(x, y, where, data_range=2.0),
    entropy_difference,
    lambda x, y, where: kl_divergence(x, y, where, pseudo_count=0.5),
]


def volumes(shape=(9, 14, 11), seed=0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.random(shape)
    return x, x + 0.1 * rng.normal(size=shape), rng.random(shape[-3:]) < 0.4


def pairs(x, y, where):
    """Every value inside, of all channels, as plain numbers."""
    return [(float(x[(c, *i)]), float(y[(c, *i)])) for c in range(len(x)) for i in np.ndindex(where.shape) if where[i]]


@settings(deadline=None)
@given(IMAGES, IMAGES, MASKS)
def test_l1_and_psnr_are_the_slow_ones(x, y, where):
    inside = pairs(x, y, where)
    if not inside:
        assert math.isnan(l1(x, y, where))
        assert math.isnan(psnr(x, y, where, data_range=3))
        return
    assert l1(x, y, where) == pytest.approx(math.fsum(abs(a - b) for a, b in inside) / len(inside))
    assert l1(x, y, where) == l1(y, x, where)
    error = math.fsum((a - b) ** 2 for a, b in inside) / len(inside)
    expected = 10 * math.log10(9 / error) if error else math.inf
    assert psnr(x, y, where, data_range=3) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_only_what_is_inside_counts(metric):
    """What lies farther away than a window changes nothing; NaN there does no harm."""
    x, y, _ = volumes((12, 30, 9))
    where = np.zeros(x.shape, bool)
    where[3:8, 2:9, 1:7] = True
    found = metric(x, y, where)
    y[:, 20:] = np.nan
    assert metric(x, y, where) == found
    y[4, 5, 3] += 0.9
    assert metric(x, y, where) != found


@pytest.mark.parametrize("metric", METRICS)
def test_channels_scans_and_types(metric):
    x, y, where = volumes((2, 9, 14, 11))
    single = metric(x[0], y[0], where)
    assert metric(x[:1], y[:1], where) == single
    assert metric(torch.from_numpy(x[0]), torch.from_numpy(y[0]), torch.from_numpy(where)) == single
    assert metric(x[0].astype(np.float32), y[0], where) == pytest.approx(single, rel=1e-3, abs=1e-4)
    assert math.isnan(metric(x, y, np.zeros_like(where)))
    before = x.copy()
    metric(x, y, where)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("metric", [METRICS[0], METRICS[2]])
def test_channels_count_alike(metric):
    x, y, where = volumes((2, 9, 14, 11))
    assert metric(x, y, where) == pytest.approx(np.mean([metric(x[c], y[c], where) for c in range(2)]))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("x", "y", "where"),
    [
        ((3, 4, 5), (3, 5, 4), (3, 4, 5)),
        ((3, 4, 5), (3, 4, 5), (5, 4, 3)),
        ((4, 5), (4, 5), (4, 5)),
        ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5), (3, 4, 5)),
    ],
)
def test_other_shapes_are_refused(metric, x, y, where):
    with pytest.raises(BadCall, match="its reconstruction"):
        metric(np.zeros(x), np.zeros(y), np.zeros(where, bool))


def test_l1_ratio_by_hand():
    x, y = np.zeros(SHAPE), np.full(SHAPE, 0.5)
    brain, lesion = np.ones(SHAPE, bool), np.zeros(SHAPE, bool)
    brain[2], lesion[0, 1], lesion[2] = False, True, True
    y[0, 1], y[2] = 2.0, 77.0
    assert l1_ratio(x, y, lesion, brain) == 4
    assert l1_ratio(3 * x, 3 * y, lesion, brain) == 4
    assert l1_ratio(x, y * lesion, lesion, brain) == math.inf
    assert math.isnan(l1_ratio(x, x, lesion, brain))
    assert math.isnan(l1_ratio(x, y, np.zeros(SHAPE, bool), brain))
    assert math.isnan(l1_ratio(x, y, brain, brain))
    with pytest.raises(BadCall, match=r"lesion has shape \(4, 2\), brain \(3, 4, 2\)"):
        l1_ratio(x, y, lesion[0], brain)


def test_psnr_is_scikit_images_and_monais():
    x, y, where = volumes()
    everywhere = np.ones(x.shape, bool)
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is an oracle here, not needed otherwise")
    assert psnr(x, y, everywhere, data_range=1.7) == pytest.approx(
        skimage.peak_signal_noise_ratio(x, y, data_range=1.7)
    )
    assert psnr(x, y, where, data_range=1.7) == pytest.approx(
        skimage.peak_signal_noise_ratio(x[where], y[where], data_range=1.7)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monai = pytest.importorskip("monai.metrics.regression", reason="MONAI is an oracle here, not needed otherwise")
        theirs = monai.PSNRMetric(1.7)(torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None])
    assert psnr(x, y, everywhere, data_range=1.7) == pytest.approx(float(theirs))


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_ssim_is_the_mean_of_the_map_of_the_whole_scan(sigma):
    """It looks only at the box around the mask: nothing may change by that, at the grid's edge or inside."""
    x, y, _ = volumes((2, 30, 17, 26))
    whole = ssim_map(torch.from_numpy(x), torch.from_numpy(y), data_range=1.2, sigma=sigma).numpy()
    for corner in ((0, 0, 0), (12, 8, 10), (26, 14, 21)):
        where = np.zeros(x.shape[1:], bool)
        where[tuple(slice(c, c + 4) for c in corner)] = True
        where[corner] = False
        assert ssim(x, y, where, data_range=1.2, sigma=sigma) == pytest.approx(whole[:, where].mean(), abs=1e-12)


# --- histograms ----------------------------------------------------------------------------------------------------


def test_the_printed_divergence_is_a_difference_of_entropies():
    x, y, where = volumes((20, 30, 25))
    y = np.abs(y) * 0.7
    low, high = min(x[where].min(), y[where].min()), max(x[where].max(), y[where].max())
    p, q = (np.histogram(v[where], BINS, (low, high), density=True)[0] for v in (x, y))
    slow = [-sum(d * math.log(d) for d in density if d > 0) for density in (p, q)]
    assert entropy_difference(x, y, where) == pytest.approx(slow[0] - slow[1])
    assert entropy_difference(y, x, where) == pytest.approx(slow[1] - slow[0])


def test_the_true_divergence_is_scipys():
    x, y, where = volumes((20, 30, 25))
    limits = (-0.2, 1.2)
    p, q = (np.histogram(v[where].clip(*limits), 20, limits)[0] for v in (x, y))
    assert kl_divergence(y, x, where, bins=20, limits=limits) == math.inf
    assert kl_divergence(x, y, where, bins=20, limits=limits) == pytest.approx(stats.entropy(p, q))
    assert kl_divergence(y, x, where, bins=20, limits=limits, pseudo_count=0.5) == pytest.approx(
        stats.entropy(q + 0.5, p + 0.5)
    )
    assert 0 < kl_divergence(x, y, where, pseudo_count=0.5) < math.inf


def test_only_one_of_them_sees_a_shift():
    """Two histograms equally spread, apart: their entropies agree, and they share nothing."""
    x, _, where = volumes((20, 30, 25))
    x = np.round(x * 16) / 16
    arguments = {"bins": 64, "limits": (0.0, 4.0)}
    assert entropy_difference(x, x + 2, where, **arguments) == pytest.approx(0, abs=1e-9)
    assert kl_divergence(x, x + 2, where, **arguments) == math.inf
    assert kl_divergence(x, x, where) == entropy_difference(x, x, where) == 0


@settings(deadline=None)
@given(IMAGES, IMAGES, MASKS.filter(np.any), st.integers(1, 30))
def test_the_divergence_is_never_negative(x, y, where, bins):
    assert kl_divergence(x, y, where, bins=bins) >= 0
    assert kl_divergence(x, y, where, bins=bins, pseudo_count=1) < math.inf
    assert kl_divergence(x, x[::-1], where, bins=bins) == 0  # The same values, channels swapped.


def test_histograms_at_the_edges():
    flat, where = np.full(SHAPE, 0.7), np.ones(SHAPE, bool)
    assert kl_divergence(flat, flat, where) == 0
    # Values past the limits go to the outermost bins.
    assert kl_divergence(flat - 9, flat - 3, where, bins=4, limits=(0.0, 1.0)) == 0
    assert kl_divergence(flat - 9, flat + 3, where, bins=4, limits=(0.0, 1.0)) == math.inf
    for arguments, said in (({"bins": 0}, "bins of 1"), ({"limits": (1.0, 1.0)}, "rise"), ({"pseudo_count": -1}, "-1")):
        with pytest.raises(BadCall, match=said):
            kl_divergence(flat, flat, where, **arguments)


# --- contrast ------------------------------------------------------------------------------------------------------


def test_contrast_is_a_power():
    assert CONTRAST_SHIFTS == (0.3, 0.7, 1.0, 1.5, 2.0)
    x = np.array([0.0, 0.25, 1.0], np.float32)
    np.testing.assert_allclose(contrast_shift(x, 2.0), [0, 0.0625, 1])
    np.testing.assert_array_equal(contrast_shift(x, 1.0), x)
    np.testing.assert_allclose(contrast_shift(contrast_shift(x, 0.3), 1 / 0.3), x, atol=1e-6)
    assert contrast_shift(x, 0.3).dtype == np.float32
    assert contrast_shift(x, 0.3)[1] > 0.25 > contrast_shift(x, 1.5)[1]


@pytest.mark.parametrize(
    ("x", "cl", "said"),
    [
        ([-0.5, 1.0], 2.0, "from -0.5 to 1"),
        ([0.0, 1.5], 2.0, "to 1.5"),
        ([0.0, math.nan], 2.0, "nan"),
        ([0.5], 0.0, "is 0"),
    ],
)
def test_a_contrast_that_cannot_be_is_refused(x, cl, said):
    with pytest.raises(BadCall, match=said):
        contrast_shift(x, cl)


def test_the_sweep_restores_each_contrast_and_measures_it():
    x, _, where = volumes()
    found = contrast_sweep(x, lambda image: image + 0.1, lambda image, healthy: l1(image, healthy, where), (0.5, 2.0))
    assert found == {0.5: pytest.approx(0.1), 2.0: pytest.approx(0.1)}
    # A restoration that ignores contrast is the worse the farther the contrast is.
    blind = contrast_sweep(x, lambda _: x, lambda image, healthy: l1(image, healthy, where))
    assert list(blind) == list(CONTRAST_SHIFTS)
    assert blind[0.3] > blind[0.7] > blind[1.0] == 0 < blind[1.5] < blind[2.0]


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_a_data_range_is_above_0(metric):
    with pytest.raises(BadCall, match="data_range is 0"):
        metric(*volumes(), data_range=0)


# --- LPIPS ---------------------------------------------------------------------------------------------------------


class Layers(nn.Module):
    """Two convolutions, each with its features; dropout shows whether it is in evaluation mode."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.first, self.second = conv(1, 3, 3), conv(3, 5, 3, stride=2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.drop(self.first(x).relu())
        return [first, self.second(first)]


def slow_lpips(x: Tensor, y: Tensor, encoder: nn.Module, weights: list[Tensor]) -> float:
    """Layer by layer, place by place, channel by channel."""
    total = 0.0
    for image, other in zip(x, y, strict=True):
        for f, g, w in zip(encoder(image[None]), encoder(other[None]), weights, strict=True):
            places = list(np.ndindex(f.shape[2:]))
            for at in places:
                u, v = f[(0, slice(None), *at)], g[(0, slice(None), *at)]
                u, v = u / max(float(u.norm()), 1e-10), v / max(float(v.norm()), 1e-10)
                total += sum(float(w[c]) * float(u[c] - v[c]) ** 2 for c in range(len(u))) / len(places)
    return total / len(x)


@pytest.mark.parametrize("shape", [(3, 1, 7, 9), (2, 1, 6, 7, 8)])
def test_lpips_is_the_slow_one(shape):
    encoder = Layers(len(shape) - 2).eval()
    rng = torch.Generator().manual_seed(1)
    x, y = torch.rand(shape, generator=rng), torch.rand(shape, generator=rng)
    weights = [torch.rand(3, generator=rng), torch.rand(5, generator=rng)]
    with torch.no_grad():
        assert lpips(x, y, encoder, weights) == pytest.approx(slow_lpips(x, y, encoder, weights), rel=1e-4)
        ones = [torch.ones(3), torch.ones(5)]
        assert lpips(x, y, encoder) == pytest.approx(slow_lpips(x, y, encoder, ones), rel=1e-4)
    assert lpips(x, x, encoder) == 0
    assert lpips(x, y, encoder) == pytest.approx(lpips(y, x, encoder))
    assert lpips(x, y, encoder, [torch.zeros(3), torch.zeros(5)]) == 0


def test_lpips_sees_directions_of_features_not_their_lengths():
    class Direct(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x]

    x, y = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1), torch.tensor([8.0, -6.0]).reshape(1, 2, 1, 1)
    # At a right angle: |u - v|^2 is 2.
    assert lpips(x, y, Direct()) == pytest.approx(2)
    assert lpips(x, 9 * x, Direct()) == pytest.approx(0, abs=1e-9)
    assert lpips(x, 0 * x, Direct()) == pytest.approx(1)
    assert lpips(x, y, Direct(), [torch.tensor([1.0, 0.0])]) == pytest.approx(0.04)


def test_lpips_leaves_the_encoder_as_it_was():
    encoder = Layers(2).train()
    encoder.first.eval()
    x = torch.rand(2, 1, 7, 9)
    assert lpips(x, x + 1, encoder) == lpips(x, x + 1, encoder)
    assert encoder.training
    assert encoder.drop.training
    assert not encoder.first.training
    assert all(p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize(
    ("shapes", "weights", "said"),
    [
        (((2, 1, 7, 9), (2, 1, 9, 7)), None, r"\(2, 1, 7, 9\), y \(2, 1, 9, 7\)"),
        (((1, 7, 9), (1, 7, 9)), None, "needs"),
        (((0, 1, 7, 9), (0, 1, 7, 9)), None, "needs"),
        (((1, 1, 7, 9), (1, 1, 7, 9)), [torch.ones(3)], r"\[3, 5\] channels, the weights \[3\]"),
        (((1, 1, 7, 9), (1, 1, 7, 9)), [torch.ones(3), torch.ones(4)], r"\[3, 4\]"),
        (((1, 1, 7, 9), (1, 1, 7, 9)), [torch.ones(3), -torch.ones(5)], "negative"),
    ],
)
def test_what_lpips_cannot_take_is_refused(shapes, weights, said):
    with pytest.raises(BadCall, match=said):
        lpips(torch.zeros(shapes[0]), torch.zeros(shapes[1]), Layers(2), weights)
    with pytest.raises(BadCall, match="needs to return a list"):
        lpips(torch.zeros(1, 1, 7, 9), torch.zeros(1, 1, 7, 9), nn.Identity())
