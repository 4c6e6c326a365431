"""Other curves of intensities: a power, and a look-alike of T2."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anomri.corruptions.artefacts.signals import SPATIAL, level


def gamma(x: Tensor, log_gamma: float = 0.3) -> Tensor:
    """A signal `(C, I, J, K)` along a power curve with exponent `exp(log_gamma)`; 0 and the maximum stay.

    0.3 is the upper end of TorchIO's `RandomGamma`, by which Behrendt's thesis augments; TorchIO does not scale to the maximum.
    """
    top = x.amax(dim=SPATIAL, keepdim=True).clamp(min=1e-12)
    return top * (x / top).clamp(min=0) ** math.exp(log_gamma)


def other_sequence(x: Tensor, brain: Tensor) -> Tensor:
    """A T1-weighted signal as if it were T2-weighted: fluid bright, white matter dark, air black.

    Parameters
    ----------
    x, brain : `(C, I, J, K)` signal, 0 in air, and `(I, J, K)` bool

    An approximation, by one curve: `1.3 exp(-1.5 t) (1 - exp(-t / 0.03))`, t the signal over mean + 2 SD of the brain. It has no lesions, vessels
    or iron that a real T2 has: where the patient's other sequence is there, as in IterMask3D (v2, section 5.1), show that instead.
    """
    mean, sd = level(x, brain)
    top = (mean + 2 * sd).clamp(min=1e-12)
    t = x / top
    return top * 1.3 * torch.exp(-1.5 * t) * -torch.expm1(-t / 0.03)
