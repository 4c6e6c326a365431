"""Artefacts with a truth: what goes wrong in a scanner, and in brain extraction, from nothing to far too much.

Severity is one number for all: 0 changes nothing, 1 is the paper's constant where it has one (IterMask3D v2, Table 1), more is
worse. The same seed draws the same artefact at every severity. The constants stand with the functions of the
modules here; what severity scales is said in `ARTEFACTS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from anomri.corruptions.artefacts import bands, fields, intensity, kspace
from anomri.corruptions.artefacts.signals import READOUT, level, signal_of, surface_voxel
from anomri.corruptions.artefacts.strip import failed_strip, strip_disagreement
from anomri.errors import BadCall, unknown
from anomri.scan import Scan

__all__ = ["ARTEFACTS", "SWEEP", "Artefact", "Local", "artefact", "corrupt", "corrupt_scan", "strip_disagreement"]

SWEEP = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Severities of a sweep, as in the paper's Fig. 5."""
MOST = 100.0
"""The largest severity: nothing of the scan is left, and what is blurred would need more memory than there is."""
SEEN = 0.25
"""Metal's truth is where the signal changes by this share of the brain's mean."""


class Local(NamedTuple):
    """An artefact that lies somewhere: `image (C, I, J, K)`, the `brain` mask that comes with it, `where` it is, `(I, J, K)` bool."""

    image: Tensor
    brain: Tensor
    where: Tensor


Apply = Callable[[Tensor, Tensor, Sequence[float], torch.Generator, float], Tensor]
ApplyLocal = Callable[[Tensor, Tensor, Sequence[float], torch.Generator, float], Local]


@dataclass(frozen=True)
class Artefact:
    """One kind of artefact.

    Parameters
    ----------
    name, title, source : for the command line; for tables; the paper's section, or "ours"
    apply : `(x, brain, spacing, rng, severity)` to an image like `x`, which is `(C, I, J, K)` or `(B, C, I, J, K)` in RAS order, raw
        or normalised; brain `(I, J, K)` or `(B, I, J, K)` bool; spacing in mm. Each scan of a batch has its own draw
    local : the same for one scan, where the artefact lies somewhere and so has a truth; None where it is everywhere
    """

    name: str
    title: str
    source: str
    apply: Apply
    local: ApplyLocal | None = None


def _everywhere(name: str, title: str, source: str, change: Apply) -> Artefact:
    """An artefact of the acquisition: `change` takes and gives a signal. Outside the brain a stripped image is not touched."""

    def one(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, severity: float) -> Tensor:
        signal, image_of = signal_of(x, brain)
        return image_of(change(signal, brain, spacing, rng, severity))

    return Artefact(name, title, source, _each(one))


def _somewhere(name: str, title: str, source: str, place: ApplyLocal) -> Artefact:
    def local(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, severity: float) -> Local:
        _check(x, brain, spacing, severity)
        if severity == 0:
            return Local(x.clone(), brain, torch.zeros_like(brain))
        out = place(x.float(), brain, spacing, rng, severity)
        return Local(out.image.to(x.dtype), out.brain, out.where)

    return Artefact(name, title, source, _each(lambda *given: local(*given).image), local)


def _each(change: Apply) -> Apply:
    """`change` for one scan or a batch."""

    def apply(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, severity: float) -> Tensor:
        _check(x, brain, spacing, severity)
        if severity == 0:
            return x.clone()
        if x.ndim == 5:
            pairs = zip(x.float(), brain, strict=True)
            return torch.stack([change(a, b, spacing, rng, severity) for a, b in pairs]).to(x.dtype)
        return change(x.float(), brain, spacing, rng, severity).to(x.dtype)

    return apply


def _check(x: Tensor, brain: Tensor, spacing: Sequence[float], severity: float) -> None:
    if not (math.isfinite(severity) and 0 <= severity <= MOST):
        raise BadCall(f"severity {severity:g} is not 0 to {MOST:g}; 0 changes nothing, 1 is the paper's constant")
    if x.ndim not in (4, 5) or brain.shape != x.shape[:-4] + x.shape[-3:] or len(spacing) != 3:
        raise BadCall(
            f"an artefact needs an image (C, I, J, K) or (B, C, I, J, K), a brain mask without C, and 3 spacings; got {tuple(x.shape)}, "
            f"{tuple(brain.shape)} and {len(spacing)}"
        )


# --- what severity scales ------------------------------------------------------------------------------------------


def _covering(share: Callable[[Tensor, Sequence[float], float], Tensor], noise: bool = False) -> ApplyLocal:
    """Signal that gives way, where `share` says how far, to nothing or to noise."""

    def place(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, severity: float) -> Local:
        signal, image_of = signal_of(x, brain)
        gone = share(brain, spacing, severity)
        instead = bands.interference(signal, rng) if noise else torch.zeros_like(signal)
        return Local(image_of(signal + gone * (instead - signal)), brain, (gone > 0) & brain)

    return place


def _chunk(where: bands.Place) -> ApplyLocal:
    def place(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, severity: float) -> Local:
        width = 30.0 * severity
        gone = bands.chunk(brain, spacing, READOUT, where, width)
        return Local(bands.missing_chunk(x, brain, spacing, READOUT, where, width), brain, gone & brain)

    return place


def _metal(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, severity: float) -> Local:
    signal, image_of = signal_of(x, brain)
    out = fields.susceptibility(signal, spacing, surface_voxel(brain, rng), chi=900e-6 * severity)
    seen = ((out - signal).abs() > SEEN * level(signal, brain)[0]).any(dim=0)
    return Local(image_of(out), brain, seen & brain)


def _strip(residual_mm: float = 0.0, missing_ml: float = 0.0) -> ApplyLocal:
    def place(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, severity: float) -> Local:
        # A lens whose width and thickness both grow by the cube root has a volume that grows with the severity.
        thick, ml = residual_mm * severity ** (1 / 3), missing_ml * severity
        image, mask = failed_strip(x, brain, spacing, rng, residual_mm=thick, missing_ml=ml)
        return Local(image, mask, mask ^ brain)

    return place


def _spike(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, severity: float) -> Tensor:
    # The height counts from the k-space of the z-scored brain, which the papers' images are. The largest value of a signal's is its
    # mean, and four times that hides the brain.
    contrast = torch.where(brain, x - level(x, brain)[0], 0.0)
    return x + kspace.spike(contrast, spacing, intensity=4.0 * severity) - contrast


def _bias(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, severity: float) -> Tensor:
    return x * fields.bias_field(x.shape[1:], torch.full((20,), 0.1 * severity, device=x.device))


def _other(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, severity: float) -> Tensor:
    return (x + severity * (intensity.other_sequence(x, brain) - x)).clamp(min=0)


def _motion(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, severity: float) -> Tensor:
    drawn = 10.0 * (2 * torch.rand(2, 2, 3, generator=rng).to(x.device) - 1)
    return kspace.motion(x, spacing, drawn[0], drawn[1], still=(1 / 3) ** severity)


def _gibbs(x: Tensor, brain: Tensor, spacing: Sequence[float], rng: torch.Generator, severity: float) -> Tensor:
    return kspace.gibbs(x, spacing, [spacing[0] + severity, spacing[1] + severity])


V1, V2 = "IterMask3D v1, section 4.2", "IterMask3D v2, section 5.1"
THESIS = "Behrendt's thesis, augmentation"

ARTEFACTS: tuple[Artefact, ...] = (
    # Severity scales the width (30 mm).
    _somewhere("chunk_top", "Missing chunk (top)", V2, _chunk("top")),
    _somewhere("chunk_middle", "Missing chunk (middle)", V2, _chunk("middle")),
    # The SD of the noise.
    _everywhere("gaussian_noise", "Gaussian noise", V2, lambda x, brain, mm, rng, s: kspace.gaussian_noise(x, mm, rng, share=0.003 * s)),
    # The height of the spike (4).
    _everywhere("spike", "Spike", V2, _spike),
    # The coefficients (0.1).
    _everywhere("bias_field", "Bias field", V2, _bias),
    # The intensity of the ghosts (2).
    _everywhere("ghosting", "Ghosting", V2, lambda x, brain, mm, rng, s: kspace.ghosting(x, mm, intensity=2.0 * s)),
    # The number of stripes (3), as in the paper's Fig. 5.
    _somewhere("zipper", "Zipper", V2, _covering(lambda brain, mm, s: bands.zipper(brain, mm, stripes=3.0 * s)[None, None], noise=True)),
    # The share of the way to the other contrast; beyond 1 it is exaggerated, down to no signal.
    _everywhere("other_sequence", "Other sequence", f"{V2}; the curve is ours", _other),
    # The width (3 mm, 2 mm).
    _somewhere("ring", "Ring", f"{V1}; the numbers are ours", _covering(lambda brain, mm, s: bands.ring(brain, mm, width_mm=3.0 * s))),
    _somewhere("periodic_line", "Periodic line", f"{V1}; the numbers are ours", _covering(lambda brain, mm, s: bands.periodic_line(brain, mm, width_mm=2.0 * s))),
    # The susceptibility (900 ppm).
    _somewhere("susceptibility", "Metallic susceptibility", "IterMask3D v2, section 5.2 (real scans); the physics is ours", _metal),
    # The volume.
    _somewhere("residual_tissue", "Residual tissue", "IterMask3D v2, section 5.2 (real scans); the tissue is ours", _strip(residual_mm=10.0)),
    _somewhere("missing_brain", "Missing brain", "IterMask3D v2, section 5.2 (real scans); the shape is ours", _strip(missing_ml=40.0)),
    # The SD (2 mm); log gamma (0.3).
    _everywhere("blur", "Blur", THESIS, lambda x, brain, mm, rng, s: kspace.blur(x, mm, 2.0 * s)),
    _everywhere("gamma", "Gamma", THESIS, lambda x, brain, mm, rng, s: intensity.gamma(x, 0.3 * s)),
    # How near to the centre of k-space the head moves; rotations up to 10 degrees and shifts up to 10 mm stay.
    _everywhere("motion", "Motion", "Shaw et al. 2019; ours", _motion),
    # By how much the acquired voxel is larger than the grid's (1 mm).
    _everywhere("gibbs", "Gibbs ringing", "ours", _gibbs),
)  # fmt: skip
"""All artefacts; the comments say what severity scales, from which value at 1."""


def artefact(name: str) -> Artefact:
    """The artefact of that name; raises `BadCall` with the known ones where there is none."""
    found = next((a for a in ARTEFACTS if a.name == name), None)
    if found is None:
        raise unknown("artefact", name, (a.name for a in ARTEFACTS))
    return found


def corrupt(
    x: Tensor, brain: Tensor, spacing: Sequence[float], name: str, rng: torch.Generator, severity: float = 1.0
) -> Tensor:
    """An image with an artefact.

    Parameters
    ----------
    x, brain, spacing : as in `Artefact`
    name : one of `ARTEFACTS`
    severity : 0 changes nothing, 1 is the paper's, more is worse

    Returns an image like `x`, on its device. A stripped image (one value outside the brain) keeps that value there, save for residual
    tissue. Raises `BadCall` for an unknown name or a negative severity, `BadInput` where a brain mask is needed and says nothing.
    """
    return artefact(name).apply(x, brain, spacing, rng, severity)


def corrupt_scan(scan: Scan, name: str, rng: torch.Generator, severity: float = 1.0) -> Scan:
    """A scan with an artefact, in RAS order; as `corrupt`.

    Where the artefact lies somewhere (`Artefact.local`), `lesion` is its truth, with that of the scan, and `brain` is the mask that comes with it,
    which differs where brain extraction is what failed.
    """
    chosen = artefact(name)
    x, brain = torch.tensor(scan.image), torch.tensor(scan.brain)
    if chosen.local is None:
        return scan.with_(image=chosen.apply(x, brain, scan.spacing, rng, severity).numpy())
    out = chosen.local(x, brain, scan.spacing, rng, severity)
    truth = out.where.numpy() if scan.lesion is None else out.where.numpy() | scan.lesion
    return scan.with_(image=out.image.numpy(), brain=out.brain.numpy(), lesion=truth)
