"""Scans that are made: healthy subjects from packaged templates or from label maps, and lesions with a truth in them.

No downloads, nothing private, free to show. A subject is an anatomy (a template or label map, smoothly deformed) seen by a
scanner (tissue means, resolution, texture, shading, another curve of intensities, noise), all drawn from a seed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from anomri.cohort import Cohort, Step
from anomri.cohorts.phantom import labels, repaint, template
from anomri.cohorts.phantom.scanner import checked
from anomri.corruptions.lesions import CONTRASTS, KINDS, blob, check_sizes, paste, plant
from anomri.errors import BadCall, unknown
from anomri.nets.device import pick_device
from anomri.preprocess import brain, space
from anomri.preprocess.space import mni152
from anomri.scan import Scan
from anomri.train import generator

__all__ = ["healthy", "planted", "repainted", "template_with_lesion"]

SPACING_MM = (0.5, 20.0)
"""Edges of voxels that phantoms are made with. The templates have 1 mm; finer ones take memory and show nothing more."""


def healthy(
    n: int,
    *,
    sequences: Sequence[str] = ("T1w",),
    seed: int = 0,
    spacing: float = 1.0,
    label_maps: str | Path | None = None,
    stripped: bool = True,
    varied: bool = False,
    device: str = "cpu",
) -> Cohort:
    """A cohort of healthy subjects, sub-01, sub-02, ..., each made when it is asked for.

    Parameters
    ----------
    n : how many
    sequences : T1w, T2w, FLAIR, or random (tissue means from anywhere, as SynthSeg has them); several become channels
    seed : the same seed, sequences and spacing give the same scans
    spacing : edge of a voxel in mm
    label_maps : a folder of label maps with FreeSurfer's numbers, used in turn; the MNI152 tissue maps of nilearn's package
        where it is None
    stripped : nothing but the brain is shown; only label maps have more
    varied : subjects of all ages and scanners of all kinds (`variety`): wide ventricles, caps, dots, thick slices, other curves; what
        weights for strangers' scans learn from. Only label maps have structures to vary
    device : where label maps are painted, as in `nets.device.pick_device`; what is drawn does not depend on it

    Raises `BadCall` for an unknown sequence or such a spacing, `BadInput` where the folder holds no image, or the device is not there.
    """
    if n < 1:
        raise BadCall(f"a cohort of {n} subjects cannot be made; ask for 1 or more")
    if not stripped and label_maps is None:
        raise BadCall("the packaged template has no skull; give a folder of label maps, or take the brain alone")
    if varied and label_maps is None:
        raise BadCall("the packaged template has no structures to vary; give a folder of label maps")
    _check_spacing(spacing)
    names = checked(sequences)
    pick_device(device)
    maps = None if label_maps is None else labels.found(label_maps)
    digits = max(2, len(str(n)))
    ids = [f"sub-{number:0{digits}d}" for number in range(1, n + 1)]
    draw = _Draw(names, seed, spacing, maps, stripped, device, varied)
    return Cohort([draw.blank(id) for id in ids], [draw])


def repainted(
    scans: Cohort, *, sequences: Sequence[str] = ("T2w", "FLAIR"), seed: int = 0, spacing: float = 1.0
) -> Cohort:
    """Real, healthy T1w scans as other sequences and other scanners would show them (`repaint`), each made when it is asked for.

    Parameters
    ----------
    scans : T1w, stripped or to be stripped, as they were read
    sequences, spacing : as in `healthy`; T1w is painted, too, as another scanner would show it
    seed : the same seed, sequences and spacing give the same phantoms of the same scans

    Raises `BadCall` for an unknown sequence, such a spacing, no scan, or ids that are no names of folders (`sub-01`).
    """
    _check_spacing(spacing)
    names = checked(sequences)
    odd = [id for id in scans.ids if not re.fullmatch(r"sub-[A-Za-z0-9]+", id)]
    if odd or not len(scans):
        raise BadCall(
            f"scan '{odd[0]}' cannot be a phantom's name; give a BIDS data set with one scan of each subject (sub-01), or a table with such ids"
            if odd
            else "no scan to repaint; name a folder that holds some"
        )
    return scans.map(
        space.reorient,
        brain.extract,
        partial(space.resample, spacing=spacing),
        partial(_repainted, sequences=names, seed=seed),
    )


def _repainted(scan: Scan, *, sequences: tuple[str, ...], seed: int) -> Scan:
    return repaint.subject(scan, sequences, generator("repaint", seed, scan.id))


def _check_spacing(spacing: float) -> None:
    low, high = SPACING_MM
    if not low <= spacing <= high:
        raise BadCall(f"a phantom's voxels cannot be {spacing:g} mm; use {low:g} to {high:g} mm, such as 1 or 2")


@dataclass(frozen=True)
class _Draw:
    """A step that makes the scan of a subject out of its name."""

    sequences: tuple[str, ...]
    seed: int
    spacing: float
    maps: tuple[Path, ...] | None
    stripped: bool
    device: str
    varied: bool = False

    def blank(self, id: str) -> Scan:
        """What stands for a subject in a cohort; its few voxels differ where the scan would, so hashes of inputs do, too."""
        key = (self.seed, id, *self.sequences, self.spacing, self.stripped, *(path.name for path in self.maps or ()))
        key += ("varied",) * self.varied
        voxels = torch.rand(len(self.sequences), 2, 2, 2, generator=generator("phantom", *key))
        return Scan(voxels.numpy(), np.eye(4), id=id, sequences=self.sequences)

    def __call__(self, blank: Scan) -> Scan:
        rng = generator("phantom", self.seed, blank.id)
        if self.maps is None:
            scan = template.subject(self.sequences, self.spacing, rng)
        else:
            path = self.maps[(int(blank.id.removeprefix("sub-")) - 1) % len(self.maps)]
            scan = labels.subject(
                path, self.sequences, self.spacing, rng, stripped=self.stripped, device=pick_device(self.device),
                other=generator("phantom", "varied", self.seed, blank.id) if self.varied else None,
            )  # fmt: skip
        return scan.with_(id=blank.id)


def planted(
    *,
    kind: str = "tumour",
    contrast: str | Sequence[str] = "hyper",
    ml: float = 10.0,
    mass_effect_mm: float = 0.0,
    seed: int = 0,
) -> Step:
    """A step that plants a lesion in a healthy scan, with its truth; see `corruptions.lesions.plant`.

    Where it lies and its shape follow from the seed and the scan's id. One contrast in a list holds for every channel.
    Raises `BadCall` for an unknown kind or contrast, or a size that is not above 0.
    """
    check_sizes(mass_effect_mm, ml=ml)
    if kind not in KINDS:
        raise unknown("lesion", kind, KINDS)
    contrasts = [contrast] if isinstance(contrast, str) else list(contrast)
    for name in contrasts:
        if name not in CONTRASTS:
            raise unknown("contrast", name, CONTRASTS)
    contrast = contrasts[0] if len(contrasts) == 1 else contrasts
    return partial(_planted, kind=kind, contrast=contrast, ml=ml, mass_effect_mm=mass_effect_mm, seed=seed)


def _planted(
    scan: Scan, *, kind: str, contrast: str | Sequence[str], ml: float, mass_effect_mm: float, seed: int
) -> Scan:
    image, lesion = plant(
        torch.tensor(scan.image), torch.tensor(scan.brain), scan.spacing, generator("lesion", seed, scan.id),
        kind=kind, contrast=contrast, ml=ml, mass_effect_mm=mass_effect_mm,
    )  # fmt: skip
    return scan.with_(image=image.numpy(), lesion=lesion.numpy())


def template_with_lesion(
    *, ml: float = 12.0, change: float = 2.5, mni_mm: Sequence[float] = (26.0, 34.0, 22.0), seed: int = 0
) -> Scan:
    """The MNI152 T1 template (1 mm, nilearn's) with a lesion planted in it, and its truth.

    Parameters
    ----------
    ml : the lesion's volume
    change : its intensity above the brain's mean, in SD of the brain
    mni_mm : its centre, in MNI coordinates (right, anterior, superior)
    """
    healthy = mni152()
    centre = np.linalg.inv(healthy.affine) @ np.array([*mni_mm, 1.0])
    shape = blob(healthy.grid.shape, list(centre[:3]), ml, healthy.spacing, torch.Generator().manual_seed(seed))
    image, lesion = paste(torch.tensor(healthy.image), torch.tensor(healthy.brain), shape, change, healthy.spacing)
    return healthy.with_(image=image.numpy(), lesion=lesion.numpy(), id="template")
