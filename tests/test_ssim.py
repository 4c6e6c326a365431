"""The SSIM map, against plain loops, SciPy's filters, scikit-image and MONAI."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anomri.errors import BadCall
from anomri.scoring.ssim import BLOCK, radius, ssim_map

SHAPE = (5, 7, 4)


def images(shape: tuple[int, ...], seed: int = 0, noise: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=rng, dtype=torch.float64)
    return x, x + noise * torch.randn(shape, generator=rng, dtype=torch.float64)


def mirrored(i: int, n: int) -> int:
    """Index past an edge, turned back about the outermost voxel, as often as it takes."""
    while not 0 <= i < n:
        i = -i if i < 0 else 2 * (n - 1) - i
        if n == 1:
            return 0
    return i


def plain_ssim(x: np.ndarray, y: np.ndarray, sigma: float, span: float) -> np.ndarray:
    """The definition at every voxel: five weighted sums over a window of three axes."""
    reach = int(3.5 * sigma + 0.5)
    steps = range(-reach, reach + 1)
    weight = {
        (a, b, c): math.exp(-(a * a + b * b + c * c) / (2 * sigma**2)) for a in steps for b in steps for c in steps
    }
    total = sum(weight.values())
    out = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        seen = [
            (w / total, x[at], y[at])
            for step, w in weight.items()
            for at in [tuple(mirrored(i + s, n) for i, s, n in zip(index, step, x.shape, strict=True))]
        ]
        mx, my = sum(w * u for w, u, _ in seen), sum(w * v for w, _, v in seen)
        sxx, syy = sum(w * (u - mx) ** 2 for w, u, _ in seen), sum(w * (v - my) ** 2 for w, _, v in seen)
        sxy = sum(w * (u - mx) * (v - my) for w, u, v in seen)
        c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
        out[index] = (2 * mx * my + c1) * (2 * sxy + c2) / ((mx**2 + my**2 + c1) * (sxx + syy + c2))
    return out


def scipy_ssim(x: np.ndarray, y: np.ndarray, sigma: float, span: float) -> np.ndarray:
    """The same by SciPy's Gaussian filter, mirrored edges, five images."""

    def mean(image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image, sigma, truncate=3.5, mode="mirror")

    mx, my = mean(x), mean(y)
    sxx, syy, sxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return (2 * mx * my + c1) * (2 * sxy + c2) / ((mx**2 + my**2 + c1) * (sxx + syy + c2))


@pytest.mark.parametrize(("sigma", "span"), [(0.3, 1.0), (0.7, 2.5)])
def test_it_is_the_plain_one(sigma, span):
    x, y = images(SHAPE)
    found = ssim_map(x, y, data_range=span, sigma=sigma)
    np.testing.assert_allclose(found.numpy(), plain_ssim(x.numpy(), y.numpy(), sigma, span), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(2, 2 * BLOCK + 5), st.integers(1, 12)),
    st.sampled_from([0.3, 0.5, 1.0, 1.5, 1.7, 4.0]),
    st.integers(0, 99),
)
def test_every_shape_and_width_is_scipys(shape, sigma, seed):
    """Windows wider than the image, more than one block, axes of one voxel."""
    x, y = images(shape, seed)
    found = ssim_map(x, y, data_range=1.3, sigma=sigma)
    np.testing.assert_allclose(found.numpy(), scipy_ssim(x.numpy(), y.numpy(), sigma, 1.3), atol=1e-10)
    assert found.abs().max() <= 1


def test_the_windows_width_is_the_thesis():
    assert [2 * radius(s) + 1 for s in (0.3, 0.5, 0.7, 0.9, 1.0, 1.5, 1.7)] == [3, 5, 5, 7, 9, 11, 13]


def test_single_precision_is_near_even_far_from_zero():
    """Variances are differences of squares: an offset of many spans must not drown them."""
    x, y = images((11, 20, 17))
    exact = ssim_map(x + 5000, y + 5000, data_range=2.0)
    found = ssim_map((x + 5000).float(), (y + 5000).float(), data_range=2.0)
    assert found.dtype == torch.float32
    # What is left is how coarsely float32 holds 5000, not the filter.
    given = ssim_map((x + 5000).float().double(), (y + 5000).float().double(), data_range=2.0)
    np.testing.assert_allclose(found.numpy(), given.numpy(), atol=2e-4)
    np.testing.assert_allclose(exact.numpy(), given.numpy(), atol=5e-3)
    np.testing.assert_allclose(
        ssim_map(x.float(), y.float(), data_range=1.0).numpy(), ssim_map(x, y, data_range=1.0).numpy(), atol=2e-5
    )


def test_what_ssim_must_obey():
    x, y = images((6, 9, 13))
    found = ssim_map(x, y, data_range=1.0)
    torch.testing.assert_close(ssim_map(y, x, data_range=1.0), found)
    torch.testing.assert_close(ssim_map(7 * x, 7 * y, data_range=7.0), found)
    torch.testing.assert_close(ssim_map(x, x, data_range=1.0), torch.ones_like(x))
    torch.testing.assert_close(ssim_map(x.flip(1), y.flip(1), data_range=1.0).flip(1), found)
    torch.testing.assert_close(ssim_map(x.movedim(2, 0), y.movedim(2, 0), data_range=1.0).movedim(0, 2), found)
    assert ssim_map(x, 1 - x, data_range=1.0).mean() < -0.9


def test_leading_axes_are_images_of_their_own():
    x, y = images((2, 3, 6, 9, 5))
    found = ssim_map(x, y, data_range=1.0)
    for b in range(2):
        for c in range(3):
            np.testing.assert_allclose(
                found[b, c].numpy(), scipy_ssim(x[b, c].numpy(), y[b, c].numpy(), 1.5, 1.0), atol=1e-12
            )


def test_two_axes_leave_the_slices_apart():
    x, y = images((4, 9, 13))
    found = ssim_map(x, y, data_range=1.0, dims=2)
    for one, a, b in zip(found, x, y, strict=True):
        np.testing.assert_allclose(one.numpy(), scipy_ssim(a.numpy(), b.numpy(), 1.5, 1.0), atol=1e-12)
    assert not torch.allclose(found, ssim_map(x, y, data_range=1.0))


def test_a_data_range_for_each_image():
    x, y = images((2, 6, 9, 5))
    spans = torch.tensor([0.5, 3.0], dtype=torch.float64)
    found = ssim_map(x, y, data_range=spans[:, None, None, None])
    for one, a, b, span in zip(found, x, y, spans, strict=True):
        torch.testing.assert_close(one, ssim_map(a, b, data_range=float(span)))


def test_it_can_be_a_loss():
    x, y = images((4, 6, 5))
    y.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: ssim_map(x, v, data_range=1.0, sigma=0.7), (y,))


def test_the_mode_that_it_is_asked_in_changes_nothing():
    """Neither a window first made in inference mode nor a network's lower precision."""
    x, y = images((4, 19, 5))
    with torch.inference_mode():
        found = ssim_map(x, y, data_range=1.0, sigma=1.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssim_map(x, y, data_range=1.0, sigma=1.1), found)
        low = ssim_map(x.float(), y.float(), data_range=1.0, sigma=1.1)
    torch.testing.assert_close(low.double(), found, atol=1e-5, rtol=0)
    ssim_map(x, y.requires_grad_(), data_range=1.0, sigma=1.1).sum().backward()
    assert y.grad is not None


def test_the_inputs_stay_as_they_were():
    x, y = images((4, 6, 5))
    before = x.clone(), y.clone()
    ssim_map(x, y, data_range=1.0)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_whole_numbers_and_mixed_types_are_taken():
    x = torch.randint(0, 200, (4, 6, 5), generator=torch.Generator().manual_seed(0))
    found = ssim_map(x, x.double() + 3, data_range=200)
    torch.testing.assert_close(found, ssim_map(x.double(), x.double() + 3, data_range=200))


@pytest.mark.parametrize("dims", [2, 3])
def test_scikit_image_agrees_inside(dims):
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is an oracle here, not needed otherwise")
    x, y = images((14, 25, 19)[-dims:])
    mean, full = metrics.structural_similarity(
        x.numpy(), y.numpy(), data_range=1.7, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    found = ssim_map(x, y, data_range=1.7, dims=dims).numpy()
    inner = (slice(5, -5),) * dims
    np.testing.assert_allclose(found[inner], full[inner], atol=1e-12)
    assert found[inner].mean() == pytest.approx(mean)


def test_monai_agrees_inside():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = pytest.importorskip(
            "monai.metrics.regression", reason="MONAI is an oracle here, not needed otherwise"
        )
        x, y = images((14, 25, 19))
        theirs = metrics.SSIMMetric(3, data_range=1.7, win_size=11, kernel_sigma=1.5)(
            x[None, None].float(), y[None, None].float()
        )
    found = ssim_map(x, y, data_range=1.7)[5:-5, 5:-5, 5:-5].mean()
    assert float(found) == pytest.approx(float(theirs), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"y": torch.zeros(5, 4, 6)}, r"\(4, 6, 5\), y \(5, 4, 6\)"),
        ({"dims": 1}, "over 1 axes"),
        ({"sigma": 0.0}, r"sigma and data_range above 0, got 0\.0"),
        ({"data_range": 0.0}, r"1\.5 and 0\.0"),
        ({"data_range": float("nan")}, "nan"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said):
    x = torch.zeros(4, 6, 5)
    with pytest.raises(BadCall, match=said):
        ssim_map(**{"x": x, "y": x, "data_range": 1.0, **arguments})
