"""Subjects from label maps with FreeSurfer's numbers: every structure is painted with an intensity of its own.

Source: Billot et al., SynthSeg: segmentation of brain MRI scans of any contrast and resolution without retraining, Medical
Image Analysis 2023, section 3.2; their files of classes and priors are read where they lie beside the maps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label
from torch import Tensor

from anomri import files
from anomri.cohorts.phantom import variety
from anomri.cohorts.phantom.scanner import RANDOM, anatomy, means, scanned
from anomri.corruptions.spatial import warp
from anomri.errors import BadInput
from anomri.preprocess.space import between, box, crop_or_pad, reorient, resample
from anomri.scan import Scan

Priors = tuple[Tensor, Tensor, Tensor, Tensor]

CSF, GREY, WHITE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
STRUCTURES: tuple[tuple[tuple[int, ...], tuple[float, float, float]], ...] = (
    ((4, 5, 14, 15, 24, 43, 44, 72), CSF),
    ((2, 41, 25, 57, 77, 78, 79, 85, *range(250, 256), *range(3000, 5003)), WHITE),
    ((3, 42, *range(1000, 3000)), GREY),
    ((7, 46), (0.0, 0.1, 0.9)),  # white matter of the cerebellum
    ((8, 47), (0.05, 0.95, 0.0)),  # its cortex
    ((10, 49), (0.0, 0.5, 0.5)),  # thalamus
    ((11, 50), (0.0, 0.95, 0.05)),  # caudate
    ((12, 51), (0.0, 0.8, 0.2)),  # putamen
    ((13, 52), (0.0, 0.25, 0.75)),  # pallidum
    ((16,), (0.0, 0.25, 0.75)),  # brain stem
    ((17, 53), GREY),  # hippocampus
    ((18, 54), GREY),  # amygdala
    ((26, 58), GREY),  # accumbens
    ((28, 60), (0.0, 0.4, 0.6)),  # ventral diencephalon
    ((30, 62), (0.6, 0.4, 0.0)),  # vessel
    ((31, 63), (0.6, 0.4, 0.0)),  # choroid plexus
    ((136, 137, 163, 164), (0.0, 0.5, 0.5)),
)
"""FreeSurfer's numbers, left and right, and what share of CSF, grey and white matter each structure looks like. White-matter
hypointensities are painted as white matter: the subjects are healthy."""
AROUND = 24
"""The number of the CSF around the brain, down to the spine."""
BRAIN = [number for numbers, _ in STRUCTURES for number in numbers if number != AROUND]
RIM_MM = 8.0
"""Folds of up to twice this width count as inside the brain."""
MARGIN = 20
"""Voxels kept around a brain that is to be deformed."""
PRIORS = {"T1w": "t1", "T2w": "t2", "FLAIR": "flair"}
PRIORS_UNIT = 200.0
"""The intensity in SynthSeg's priors of what is 1 here."""
SPREAD = 0.04
"""SD by which the means of CSF, grey and white matter differ between scanners, where variety is asked for."""
IRON = 0.4
IRON_RICH = (((13, 52), 1.0), ((12, 51), 0.4))
"""Iron takes up to `IRON` of the pallidum's T2w and FLAIR, and so much of that from the putamen, more of some people than of others (Hallgren and
Sourander, J. Neurochem. 3, 1958)."""
LONGEST_MM = 190.0
"""No brain is longer; one that is drawn so is drawn again, `DRAWS` times at most."""
DRAWS = 20
LABELS = 20000
"""Numbers of a label map lie below this."""


def found(folder: str | Path) -> tuple[Path, ...]:
    """The label maps of a folder, in order; raises `BadInput` where there is none."""
    with files.reading(folder) as place:
        paths = tuple(sorted(path for path in place.iterdir() if path.name.lower().endswith(files.NIFTI)))
    if not paths:
        raise BadInput(f"folder '{folder}' holds no label map (.nii, .nii.gz); name one that does")
    return paths


def subject(
    path: Path,
    sequences: Sequence[str],
    spacing: float,
    rng: torch.Generator,
    *,
    stripped: bool,
    device: torch.device,
    other: torch.Generator | None = None,
) -> Scan:
    """A healthy subject, painted on the map's own grid and then resampled.

    `other` draws the variety of age and of scanners (`variety`); without it there is none, and the rest is the same. Raises `BadInput` for a map without FreeSurfer's numbers.
    """
    labels = _read(path)
    if stripped:
        size = np.subtract(*box(labels.brain)[::-1]) + 2 * MARGIN
        labels = crop_or_pad(labels, size * labels.spacing)
    map = torch.tensor(labels.image, device=device)
    for _ in range(DRAWS):
        shift = anatomy(labels.grid.shape, labels.spacing, rng, device=device)
        numbers = warp(map, shift, labels.spacing, nearest=True)[0].long()
        low, high = box(np.isin(numbers.cpu().numpy(), BRAIN))
        if max((high - low) * labels.spacing) <= LONGEST_MM:
            break
    if other is not None:
        numbers = variety.aged(numbers, labels.spacing, variety.age(other), other)
    tissue = np.isin(numbers.cpu().numpy(), BRAIN)
    brain = _brain(tissue, labels.spacing)
    if stripped:
        # What else lies between the folds, such as veins, looks like the fluid there.
        numbers = numbers.masked_fill(torch.from_numpy(brain & ~tissue).to(device), AROUND)
        if other is not None:
            veins = variety.sinuses(brain, labels.spacing, other)
            numbers, brain = numbers.masked_fill(torch.from_numpy(veins).to(device), variety.SINUS), brain | veins
    channels = []
    for sequence in sequences:
        tables = _intensities(sequence, path.parent, rng)
        if other is not None:
            _spread(tables[0], sequence, other)
        mean, sd = (table.to(device)[numbers] for table in tables)
        x = mean + sd * torch.randn(numbers.shape, generator=rng).to(device)
        x = scanned(x, labels.spacing, rng)
        channels.append(x if other is None else variety.rescanned(x, labels.spacing, other))
    head = Scan(torch.stack(channels).cpu().numpy(), labels.affine, sequences=tuple(sequences))
    if stripped:
        if other is None:
            image = head.image * brain
        else:
            brain = variety.shaved(brain, labels.spacing, other)
            image, brain = variety.rimmed(head.image, brain, labels.spacing, other)
        return resample(head.with_(image=image, brain=brain), spacing).with_(history=())
    # Of a scan whose brain is known, resampling would keep nothing else.
    moved = resample(head, spacing)
    return moved.with_(brain=between(brain, head.grid, moved.grid, "mask"), history=())


def _read(path: Path) -> Scan:
    """A label map in RAS, as an image, with the brain's structures for its brain; raises `BadInput` where it is none."""
    volume, grid, _ = files.read_image(path)
    if volume.min() < 0 or volume.max() >= LABELS or (volume % 1).any():
        raise BadInput(
            f"'{path}' is no label map: it holds {volume.min():g} to {volume.max():g}, needs whole numbers from 0 to {LABELS - 1}"
        )
    known = np.isin(volume.astype(np.int32), BRAIN)
    if not known.any():
        raise BadInput(f"label map '{path}' has none of FreeSurfer's numbers of the brain, such as 2, 3, 41 and 42")
    return reorient(Scan(volume, grid.affine, id=path.name, brain=known))


def _brain(tissue: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.bool_]:
    """The largest piece of the brain, its folds closed."""
    # Room around it, so that the border of the array is no tissue to close up to.
    room = [math.ceil(RIM_MM / mm) + 1 for mm in spacing]
    grown = _near(np.pad(tissue, [(r, r) for r in room]), RIM_MM, spacing)
    closed = ~_near(~grown, RIM_MM, spacing)
    pieces, n = label(tissue | closed[tuple(slice(r, -r) for r in room)])
    sizes = np.bincount(pieces.ravel(), minlength=n + 1)
    return np.asarray(pieces == 1 + sizes[1:].argmax())


def _near(mask: NDArray[np.bool_], mm: float, spacing: Sequence[float]) -> NDArray[np.bool_]:
    return np.asarray(distance_transform_edt(~mask, sampling=tuple(spacing)) <= mm)


def _intensities(sequence: str, folder: Path, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mean and SD of every number, two tables `(LABELS,)`; left and right are alike.

    What is no structure of the brain is drawn from anywhere, and the background is 0.
    """
    mean, sd = 0.05 + 0.75 * torch.rand(LABELS, generator=rng), torch.full((LABELS,), 0.05)
    mean[0] = sd[0] = 0
    tissues = means(sequence, rng)
    for numbers, shares in STRUCTURES:
        drawn = torch.rand(3, generator=rng)
        at = list(numbers)
        own = (torch.tensor(shares) * tissues).sum() + 0.03 * (drawn[0] - 0.5)
        mean[at] = 0.1 + 0.8 * drawn[1] if sequence == RANDOM else own
        sd[at] = 0.01 + 0.03 * drawn[2]
    priors = _priors(folder, sequence)
    if priors is not None:
        known, classes, *columns = priors
        for table, (middle, spread) in zip((mean, sd), columns, strict=True):
            drawn = middle + spread * torch.randn(len(middle), generator=rng)
            table[known] = (drawn / PRIORS_UNIT).clamp(min=0)[classes]
    return mean, sd


def _spread(mean: Tensor, sequence: str, rng: torch.Generator) -> None:
    """Moves the structures' means `(LABELS,)` further apart, in place, in their sequence's order, and darkens what holds iron; caps and dots follow
    white matter."""
    drawn = torch.randn(3, generator=rng)
    for numbers, shares in STRUCTURES:
        at = list(numbers)
        mean[at] = (mean[at] + float((torch.tensor(shares) * drawn).sum()) * SPREAD).clamp(min=0.02)
    if sequence in ("T2w", "FLAIR"):
        taken = IRON * float(torch.rand(1, generator=rng))
        for numbers, part in IRON_RICH:
            mean[list(numbers)] *= 1 - part * taken
    mean[variety.SINUS] = variety.vein(sequence, rng)
    mean[variety.SPOT] = (mean[variety.WHITE[0]] + variety.spot_contrast(sequence, rng)).clamp(min=0.02)


def _priors(folder: Path, sequence: str) -> Priors | None:
    """Numbers and the class of each; then, `(2, classes)`, mean and SD of what means, and of what SDs, are drawn from.

    None where SynthSeg's files for this sequence do not lie beside the maps, or where they do not belong together: priors
    have a column for each class, and the classes that set left and right apart have none.
    """
    tables = [folder / f"prior_{part}_{PRIORS.get(sequence)}.npy" for part in ("means", "stds")]
    numbers = folder / "generation_labels.npy"
    if not all(path.exists() for path in (*tables, numbers)):
        return None
    at = files.read_array(numbers)
    middles, spreads = (torch.from_numpy(files.read_array(path)).float() for path in tables)
    for name in ("generation_classes_contrast_specific.npy", "generation_classes.npy"):
        classes = files.read_array(folder / name) if (folder / name).exists() else np.array([])
        if len(classes) == len(at) and classes.max() + 1 == middles.shape[-1] == spreads.shape[-1]:
            return torch.from_numpy(at).long(), torch.from_numpy(classes).long(), middles, spreads
    return None
