"""How a brain of known tissues looks in a scanner: tissue means for each sequence, then all that a scanner adds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from anomri.corruptions.contrast import bias_field, rician
from anomri.corruptions.spatial import blur, foldless, smooth_field
from anomri.errors import BadCall, unknown

T1W = (0.22, 0.56, 0.82)
"""Mean intensity of CSF, grey and white matter on T1w; 1 is the brightest. Their order is the sequence's, values are ours."""
T1W_SD = 0.02
"""How much these means differ between subjects (SD)."""
PROTON_DENSITY = (1.0, 0.82, 0.70)
"""Of CSF, grey and white matter, against water (Tofts, Quantitative MRI of the brain, 2003, chapter 4)."""
T1_MS = {1.5: (4300.0, 1124.0, 884.0), 3.0: (4300.0, 1331.0, 832.0)}
T2_MS = {1.5: (2000.0, 95.0, 72.0), 3.0: (2000.0, 110.0, 79.6)}
"""Relaxation times of CSF, grey and white matter by field strength in tesla: Stanisz et al., Magn. Reson. Med. 54 (2005), table 1, and Wansapura
et al., J. Magn. Reson. Imaging 9 (1999), table 1; of CSF, the usual ones."""
TRANSFER = (0.0, 0.16, 0.24)
"""Share of the signal of CSF, grey and white matter that magnetisation transfer takes, at most: a fast spin echo's pulses for other slices
saturate what is bound in tissue (Melki and Mulkern, Magn. Reson. Med. 24, 1992)."""
TE_MS = {"T2w": (80.0, 130.0), "FLAIR": (50.0, 120.0)}
TR_MS = {"T2w": (3000.0, 7000.0), "FLAIR": (6000.0, 11000.0)}
"""Echo and repetition times; those of FLAIR shorter by a third than scanners say: the refocusing pulses of its long echo trains keep some
of what T2 takes."""
MISSED = 0.03
"""FLAIR's inversion time is what nulls CSF, missed by up to this share."""
BRIGHTEST = {"T2w": 0.95, "FLAIR": 0.66}
"""Intensity of the brightest tissue."""
SEQUENCES = ("T1w", *BRIGHTEST)
RANDOM = "random"
"""The sequence whose tissue means are drawn anew, from anywhere, for each subject."""
UNIT = 1000.0
"""Intensity in the image of what is 1 here."""


def checked(sequences: Sequence[str]) -> tuple[str, ...]:
    """Known sequences, each once; raises `BadCall`."""
    for name in sequences:
        if name not in (*SEQUENCES, RANDOM):
            raise unknown("sequence", name, (*SEQUENCES, RANDOM))
    if not sequences or len(set(sequences)) < len(sequences):
        raise BadCall(f"sequences '{', '.join(sequences)}': name one or several, each once")
    return tuple(sequences)


def means(sequence: str, rng: torch.Generator) -> Tensor:
    """`(3,)`: this subject's means of CSF, grey and white matter; those of T2w and FLAIR from a scanner's field and times (`signal`)."""
    if sequence == RANDOM:
        return 0.1 + 0.8 * torch.rand(3, generator=rng)
    if sequence == "T1w":
        return torch.tensor(T1W) + T1W_SD * torch.randn(3, generator=rng)
    field, te, tr, missed, transfer = torch.rand(5, generator=rng).tolist()
    te_ms, tr_ms = (low + (high - low) * share for share, (low, high) in ((te, TE_MS[sequence]), (tr, TR_MS[sequence])))
    found = signal(sequence, 1.5 + 1.5 * field, te_ms, tr_ms, missed=MISSED * (2 * missed - 1), transfer=transfer)
    return BRIGHTEST[sequence] * found / found.max()


def signal(
    sequence: str, tesla: float, te_ms: float, tr_ms: float, *, missed: float = 0.0, transfer: float = 0.0
) -> Tensor:
    """`(3,)`: what a spin echo (T2w), or one after an inversion that nulls CSF (FLAIR), shows of CSF, grey and white matter.

    `PD (1 - exp(-TR / T1)) exp(-TE / T2)`, and `PD |1 - 2 exp(-TI / T1) + exp(-TR / T1)| exp(-TE / T2)`, less what is transferred.

    Parameters
    ----------
    tesla : 1.5 to 3; relaxation times in between are straight between those of `T1_MS` and `T2_MS`
    te_ms, tr_ms : echo and repetition time
    missed : share by which the inversion time is longer than the one that nulls CSF
    transfer : how much of `TRANSFER` is taken, 0 to 1

    Source: the signal equations of spin echo and inversion recovery (Bernstein et al., Handbook of MRI pulse sequences, 2004, 14.2 and 14.3).
    """
    part = (tesla - 1.5) / 1.5
    t1, t2 = ((1 - part) * torch.tensor(of[1.5]) + part * torch.tensor(of[3.0]) for of in (T1_MS, T2_MS))
    back = torch.exp(-tr_ms / t1)
    left = 1 - back
    if sequence == "FLAIR":
        ti = t1[0] * (math.log(2) - torch.log1p(back[0])) * (1 + missed)
        left = (1 - 2 * torch.exp(-ti / t1) + back).abs()
    kept = 1 - transfer * torch.tensor(TRANSFER)
    return torch.tensor(PROTON_DENSITY) * left * torch.exp(-te_ms / t2) * kept


def anatomy(
    shape: Sequence[int], spacing: Sequence[float], rng: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """A subject's way from the template, `(3, I, J, K)` in mm: its size along each axis, broad and fine differences."""
    grown = 0.04 * torch.randn(3, generator=rng)
    axes = [(torch.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True)]
    shift = torch.stack(torch.meshgrid(*axes, indexing="ij")).to(device) * grown[:, None, None, None].to(device)
    for sd_mm, every_mm in ((3.0, 60.0), (1.0, 25.0)):
        shift += sd_mm * smooth_field(shape, spacing, every_mm, rng, channels=3, device=device)
    return foldless(shift, spacing)


def scanned(x: Tensor, spacing: Sequence[float], rng: torch.Generator) -> Tensor:
    """An image `(I, J, K)` of tissue means as a scanner of its own would show it, in raw units: texture, resolution, shading,
    curve, noise. Source: the steps of Billot et al., SynthSeg (2023), section 3.2; noise is Rician, the ranges are ours."""
    drawn = torch.rand(4, generator=rng).tolist()
    x = x * (1 + 0.03 * smooth_field(x.shape, spacing, 5.0, rng, device=x.device)[0])
    width_mm = 0.4 + 0.4 * drawn[0]
    x = blur(x[None, None], [width_mm / mm for mm in spacing])[0, 0].clamp(min=0)
    x = x * bias_field(x.shape, spacing, rng, sd=0.05 + 0.1 * drawn[1], device=x.device)
    x = x ** float(torch.exp(torch.tensor(0.3 * (drawn[2] - 0.5))))
    return UNIT * rician(x, 0.01 + 0.02 * drawn[3], rng)
