"""Diffusion: how noise is added to images, and how it is taken away again.

Forward, `x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e` with noise `e` of unit variance, where `a_t = prod (1 - beta_s)` over s = 1 ... t falls
from `a_0 = 1` to nearly 0 at T (Ho et al. 2020, equation 4; Behrendt, thesis, equation 2.14). Backward, a network says what `x_0` was;
with it the image goes to any earlier time (Song et al. 2021, equation 12)

    x_s = sqrt(a_s) x_0 + sqrt(1 - a_s - sigma^2) e + sigma z,  sigma = eta sqrt((1 - a_s) / (1 - a_t)) sqrt(1 - a_t / a_s)

which is a DDIM's step for `eta = 0`, and the ancestral step of a DDPM for `eta = 1` and `s = t - 1`; to `s = 0` it is what the network says.

How likely an image is to the network, the divergences of these steps say: `L_(t-1) = KL(q(x_(t-1) | x_t, x_0) || p(x_(t-1) | x_t))`,
two Gaussians of one variance (Ho et al. 2020, equation 5).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from anomri.errors import BadCall, unknown

SCHEDULES = ("linear", "cosine")
PREDICTIONS = ("x0", "noise")
SAMPLERS = ("one_step", "ddpm", "ddim")
T = 1000
"""Times of a schedule, the papers'."""

Denoise = Callable[[Tensor, Tensor], Tensor]
"""`x_t (B, C, ...)` and the times `(B,)` to what `x_0` was."""
Draw = Callable[[], Tensor]
"""Noise of the images' shape, with unit variance."""


@dataclass(frozen=True)
class Schedule:
    """How much of an image is left at each time: `a_t` for t = 0 ... T, from 1 down."""

    kept: tuple[float, ...]

    @property
    def times(self) -> int:
        """T, the last time."""
        return len(self.kept) - 1

    def at(self, t: Tensor, like: Tensor) -> Tensor:
        """`a_t` of times `(B,)` for images `like (B, ...)`, `(B, 1, ...)`: in double precision, so on the CPU, as not all devices have it.

        Raises `BadCall` for a time that is not one of 0 ... T.
        """
        if len(t) != len(like) or int(t.min()) < 0 or int(t.max()) > self.times:
            raise BadCall(f"times {t.tolist()} for {len(like)} images; give one each, from 0 to {self.times}")
        kept = torch.tensor(self.kept, dtype=torch.float64)[t.long().cpu()]
        return kept.reshape(-1, *[1] * (like.ndim - 1))

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`x_t` of images `(B, C, ...)`, with noise of their shape and unit variance (thesis, equation 2.14)."""
        a = self.at(t, x0)
        return (a.sqrt().to(x0) * x0).addcmul_((1 - a).sqrt().to(x0), noise)

    def clean_of(self, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`x_0`, where the noise in `x_t` is known; t is 1 or more, for a T with some of the image left."""
        a = self.at(t, x_t)
        return (x_t - (1 - a).sqrt().to(x_t) * noise) / a.sqrt().to(x_t)

    def noise_of(self, x_t: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """The noise in `x_t`, where `x_0` is known; t is 1 or more."""
        a = self.at(t, x_t)
        return (x_t - a.sqrt().to(x_t) * x0) / (1 - a).sqrt().to(x_t)

    def later(self, x_s: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`x_t` at times `t >= s` of the images `x_s`, with new noise: a draw of `q(x_t | x_s)`."""
        share = self.at(t, x_s) / self.at(s, x_s)
        return share.sqrt().to(x_s) * x_s + (1 - share).clamp(min=0).sqrt().to(x_s) * noise

    def earlier(self, x_t: Tensor, t: Tensor, s: Tensor, x0: Tensor, z: Tensor | None = None) -> Tensor:
        """`x_s` at times `s <= t` of the images `x_t`, whose `x_0` is said to be `x0`.

        Parameters
        ----------
        z : new noise, for `eta = 1`: a draw of the posterior `q(x_s | x_t, x_0)`; None is `eta = 0`, which draws nothing
        """
        a, b = self.at(t, x_t), self.at(s, x_t)
        sigma = torch.zeros_like(a) if z is None else ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
        left = (1 - b - sigma**2).clamp(min=0).sqrt()
        x_s = b.sqrt().to(x_t) * x0 + left.to(x_t) * self.noise_of(x_t, t, x0)
        return x_s if z is None else x_s + sigma.to(x_t) * z

    def divergence(self, x0: Tensor, t: Tensor, said: Tensor) -> Tensor:
        """`KL(q(x_(t-1) | x_t, x_0) || p(x_(t-1) | x_t))` in nats, for each element `(B, C, ...)`: 0 where the network is right.

        Parameters
        ----------
        t : times `(B,)`, 2 or more: to `t = 1` no noise is left that a divergence could be of
        said : what the network says that the images `x0` were

        With the variance of `q` for both it is `(SNR(t - 1) - SNR(t)) / 2 (x_0 - said)^2`, `SNR(t) = a_t / (1 - a_t)`, whatever `x_t` is.
        Raises `BadCall` for another time. Source: Ho et al. 2020, equations 5, 7 and 8; in this form Kingma et al. 2021, equation 13.
        """
        if int(t.min()) < 2:
            raise BadCall(f"divergences at times {t.tolist()}; give times from 2 to {self.times}")
        a, b = self.at(t, x0), self.at(t - 1, x0)
        weight = (b / (1 - b) - a / (1 - a)) / 2
        return weight.to(x0) * (x0 - said).square()


@lru_cache
def schedule(name: str = "linear", times: int = T) -> Schedule:
    """A schedule by name; raises `BadCall` for an unknown one, or one of no time.

    - linear: beta from 1e-4 to 2e-2 (Ho et al. 2020, section 4; pDDPM, section 4.2); of another T than 1000 so that as much is left
    - cosine: `a_t = cos^2((t / T + s) / (1 + s) pi / 2)`, s = 0.008, beta at most 0.999 (Nichol and Dhariwal 2021, equation 17)
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    if times < 1:
        raise BadCall(f"a schedule of {times} times, needs at least 1")
    if name == "linear":
        betas = torch.linspace(1e-4, 2e-2, times, dtype=torch.float64) * (T / times)
    else:
        at = torch.arange(times + 1, dtype=torch.float64) / times
        curve = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = 1 - curve[1:] / curve[:-1]
    left = torch.cumprod(1 - betas.clamp(max=0.999), dim=0)
    return Schedule((1.0, *left.tolist()))


def path(sampler: str, t: Sequence[int], steps: int = 50) -> Tensor:
    """The times that images go through on their way from t to 0, `(S + 1, B)` int64.

    Parameters
    ----------
    sampler : "one_step", from t to 0 at once; "ddpm", through every time between; "ddim", through `steps` times, evenly spaced
    t : of each image. Of a "ddpm", one that is at its t later than others stays where it is till then

    Raises `BadCall` for an unknown sampler, no image, a time below 1 or more steps than times.
    """
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    if len(t) == 0 or min(t) < 1:
        raise BadCall(f"images are noised to t = {', '.join(map(str, t)) or 'none'}; give 1 or more")
    start = torch.tensor(t)
    if sampler == "ddpm":
        return torch.minimum(torch.arange(max(t), -1, -1)[:, None], start)
    if sampler == "one_step":
        steps = 1
    if not 1 <= steps <= min(t):
        raise BadCall(f"{steps} steps from t = {min(t)} to 0; give 1 to {min(t)}")
    return torch.stack([(start * (steps - n) / steps).round().long() for n in range(steps + 1)])


def reverse(plan: Schedule, denoise: Denoise, x_t: Tensor, times: Tensor, draw: Draw | None = None) -> Tensor:
    """Noisy images back to `x_0`, all of a batch at once.

    Parameters
    ----------
    denoise : what the network says `x_0` was
    x_t : `(B, C, ...)`, at the first of its times
    times : `(S + 1, B)`, falling to 0, as `path` gives
    draw : noise for each step but the last, an ancestral DDPM; None for none, a DDIM

    One step, from t to 0, is what `denoise` says of `x_t`.
    """
    for t, s in itertools.pairwise(times):
        x0 = denoise(x_t, t)
        last = not bool(s.any())
        # At a time that does not change nothing does: sigma is 0 there.
        x_t = x0 if last else plan.earlier(x_t, t, s, x0, None if draw is None else draw().to(x_t))
    return x_t


def surprise(
    plan: Schedule, denoise: Denoise, x0: Tensor, times: Sequence[int], draw: Draw, at_once: int = 1
) -> Tensor:
    """How unlikely images `(B, C, ...)` are to the network, place by place: `(B, 1, ...)` nats, 0 or more.

    It is the divergence of a step, summed over channels, the mean over steps.

    Parameters
    ----------
    denoise : what the network says `x_0` was
    times : of the steps, each with noise of its own
    draw : noise of the shape of `x0`, once for each time
    at_once : times that the network is asked about at once; a number of them is the same to rounding

    Raises `BadCall` for no time, or one that has no divergence (`Schedule.divergence`).
    """
    if len(times) == 0 or at_once < 1:
        raise BadCall(f"divergences at {len(times)} times, {at_once} at once; give at least one of each")
    total = torch.zeros_like(x0[:, :1])
    for first in range(0, len(times), at_once):
        some = torch.tensor(times[first : first + at_once])
        t, clean = some.repeat_interleave(len(x0)), x0.repeat(len(some), *[1] * (x0.ndim - 1))
        x_t = plan.noised(clean, t, torch.cat([draw().to(x0) for _ in some]))
        found = plan.divergence(clean, t, denoise(x_t, t)).sum(dim=1, keepdim=True)
        total += found.reshape(len(some), *total.shape).sum(dim=0)
    return total / len(times)


def inpaint(
    plan: Schedule,
    denoise: Denoise,
    x_t: Tensor,
    times: Tensor,
    known: Tensor,
    mask: Tensor,
    draw: Draw,
    resamples: int = 1,
) -> Tensor:
    """Noisy images back to `x_0` where a mask is; elsewhere they are `known`, noised to the time of each step.

    Parameters
    ----------
    x_t, times : as in `reverse`, whose ancestral steps these are
    known : `(B, C, ...)`, images without noise: what comes back outside the mask, to the bit
    mask : bool, of a shape that fits theirs; what is painted
    draw : new noise, two or three times a step
    resamples : times that each step is made: after all but the last its noise is added again, so that what is painted and what is
        known come to fit each other

    Source: Lugmayr et al. 2022 (RePaint), algorithm 1.
    """
    for t, s in itertools.pairwise(times):
        for again in reversed(range(resamples)):
            painted = plan.earlier(x_t, t, s, denoise(x_t, t), draw().to(x_t))
            x_s = torch.where(mask, painted, plan.noised(known, s, draw().to(x_t)))
            x_t = plan.later(x_s, s, t, draw().to(x_t)) if again else x_s
    return x_t


def time_features(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of times `(B,)` as `(B, width)` float32: cosines, then sines, of frequencies from 1 to 1/10000.

    Raises `BadCall` for an odd width. Source: Ho et al. 2020, after Vaswani et al. 2017, section 3.5.
    """
    if width % 2:
        raise BadCall(f"a time embedding of {width} numbers; give an even number")
    rate = torch.exp(torch.arange(width // 2, device=t.device) * (-math.log(10_000) / (width // 2)))
    angle = t.float()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], dim=1)
