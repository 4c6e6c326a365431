"""The protocol of IterMask² and IterMask3D (Liang et al., 2024 and 2025).

IterMask3D is fitted on cognitively normal subjects, ADNI's FLAIR and OASIS-3's T2w, stripped by ROBEX. Lesions are those of 139 subjects
of BraTS: whole scans in 3D, one slice of each in 2D. The papers list no subjects: ours are drawn by our seed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from anomri.errors import BadInput
from anomri.preprocess import space
from anomri.scan import Scan
from anomri.study.changes import artefact
from anomri.study.papers import Models, Printed, expected, lines, part, robex
from anomri.study.plan import Case, Change, Entrant, Source, Table

RATES = (
    "AUROC",
    "AUPRC",
    "FPR80 (published code)",
    "FPR90 (published code)",
    "FNR80 (published code)",
    "FNR90 (published code)",
)
"""What is printed of case scores (IterMask3D v2 and v1, Tables 1 and 2)."""
BEST_THRESHOLD = ("dice_best_dataset_oracle", "sensitivity_best_dataset_oracle", "precision_best_dataset_oracle")
"""What is printed of masks: by the published code at the one threshold that is best for the test labels."""
SEQUENCES = {"FLAIR": "FLAIR", "T1CE": "T1ce", "T2": "T2w", "T1": "T1w"}
"""BraTS' sequences, as the tables of 2D methods head them."""
HEALTHY = {"T2w": ("OASIS-3 T2w", "oasis3", {"cdr_highest": "0"}), "FLAIR": ("ADNI FLAIR", "adni", {"group": "CN"})}
"""Sequence to the title and the data set of the healthy scans, and the fact that says who is healthy."""
FIT = {sequence: f"{title}, to fit" for sequence, (title, _, _) in HEALTHY.items()}
HELD_OUT = {sequence: f"{title}, held out" for sequence, (title, _, _) in HEALTHY.items()}
STEPS = {"T2w": 73_000, "FLAIR": 93_600}
"""IterMask3D's: 200 epochs of 730 and of 936 scans, two at a time."""
VOLUMES: Mapping[str, Any] = {"dims": 3, "width": 16, "batch": 2, "lr": 1e-3}
"""Arguments of the baselines that have IterMask3D's network, rate and batch (v1, section 4.1; v2, section 4.4); AE and DAE differ in dropout
and in what their own papers say of the optimiser."""
AE = ("ae", {**VOLUMES, "backbone": "residual"})
"""IterMask3D's network without skips."""
DAES = {
    "DAE (orig)": ("dae", {**VOLUMES, "noise": 1.2}),
    "DAE (tuned)": ("dae", {**VOLUMES, "noise": 3.0}),
}
"""Noise in SD of the z-scored brain: the original 0.2 of [0, 1] comes to 1.2 SD."""
MODELS: Models = {
    "AE": AE,
    "DDPM": ("latent_ddpm", {}),
    "Auto DDPM": ("autoddpm", {}),
    "Cycl. Unet": ("cyclic_unet", {}),
    **DAES,
    "IterMask3D": ("itermask3d", {}),
}
"""The lines of v2's Tables 1 and 2."""


def largest_slice(scan: Scan, rng: torch.Generator) -> Scan:
    """Of the axial slices 70 to 89 of BraTS' grid the one with the most lesion, alone (IterMask2's test).

    Raises `BadInput` where there is no lesion mask, or the grid has no such slices.
    """
    if scan.lesion is None:
        raise BadInput(f"scan '{scan.id}' has no lesion mask; the slice is chosen by it")
    if scan.grid.shape[2] < 90:
        raise BadInput(
            f"scan '{scan.id}' has {scan.grid.shape[2]} axial slices, the slice is one of 70 to 89; give it as BraTS has it (155 slices)"
        )
    k = 70 + int(scan.lesion[:, :, 70:90].sum(axis=(0, 1)).argmax())
    return space.crop_slices(scan, bottom=k, top=scan.grid.shape[2] - k - 1)


def most_lesion(scan: Scan, rng: torch.Generator) -> Scan:
    """Of a scan's axial slices the one with the most lesion, alone: of one that the preset "itermask2" has made, of 70 to 89.

    Raises `BadInput` where there is no lesion mask.
    """
    if scan.lesion is None:
        raise BadInput(f"scan '{scan.id}' has no lesion mask; the slice is chosen by it")
    k = int(scan.lesion.sum(axis=(0, 1)).argmax())
    return space.crop_slices(scan, bottom=k, top=scan.grid.shape[2] - k - 1)


def brats(*sequences: str) -> dict[str, Source]:
    """The 139 subjects of BraTS to test on, "BraTS FLAIR" and so on, of all `SEQUENCES` unless some are named."""
    return {f"BraTS {name}": Source("brats2021", SEQUENCES[name], part(0, 139)) for name in sequences or SEQUENCES}


def slice_entrants(models: Models, shares: Mapping[str, str]) -> dict[str, Entrant]:
    """A table's lines on every sequence of BraTS, "line, sequence"; `shares` as in `lines`. They are fitted apart."""
    found: dict[str, Entrant] = {}
    for sequence in SEQUENCES:
        found |= lines(models, sequence, shares=shares, pipeline="itermask2")
    return found


def slice_cases(models: Collection[str]) -> list[Case]:
    """Every line on its sequence of `brats`, in the slice with the most lesion (IterMask², Table 1), taken of what the preset
    "itermask2" gives: a slice alone is no brain to strip."""
    return [
        Case(
            f"BraTS {sequence}: {model}",
            f"BraTS {sequence}",
            most_lesion,
            prepared=True,
            facts={"sequence": sequence, "model": model},
            only=[f"{model}, {sequence}"],
        )
        for sequence in SEQUENCES
        for model in models
    ]


def best_threshold_table(
    name: str,
    title: str,
    metrics: Sequence[str],
    printed: Printed,
    *,
    rows: Sequence[str] = ("entrant",),
    across: Sequence[str] = ("case",),
) -> Table:
    """A table whose numbers are at `BEST_THRESHOLD`; a method's own mask stands beside them.

    Parameters
    ----------
    metrics, printed : as in `expected`
    name, title, rows, across : as in `Table`
    """
    return Table(
        name,
        title,
        ("dice", "sensitivity", "precision", *metrics),
        rows=rows,
        across=across,
        expected=expected(printed, metrics),
        note="The paper's Dice, sensitivity and precision are at the threshold that is best for the test labels.",
    )


def grey_table(
    printed: Printed,
    *,
    rows: Sequence[str] = ("entrant",),
    across: Sequence[str] = ("case",),
    cases: Sequence[str] | None = None,
    entrants: Sequence[str] | None = None,
) -> Table:
    """The grey cells of IterMask²'s tables, best for each image; of what was printed only the first, Dice, has a metric.

    Parameters
    ----------
    printed : as in `expected`
    rows, across, cases, entrants : as in `Table`
    """
    dice = {group: {line: values[:1] for line, values in found.items()} for group, found in printed.items()}
    return Table(
        "grey",
        "The same at each image's best threshold (grey cells)",
        ("dice_best_scan_oracle",),
        rows=rows,
        across=across,
        cases=cases,
        entrants=entrants,
        expected=expected(dice, ("dice_best_scan_oracle",)),
        note="The paper's Dice is at the threshold, or the step, that is best for each image's labels.",
    )


def healthy(sequence: str, *uses: str) -> dict[str, Source]:
    """Healthy scans of a sequence, named as in `FIT` and `HELD_OUT`: 25 subjects "held out", the rest "to fit" on (v2, section 4.1)."""
    title, name, facts = HEALTHY[sequence]
    return {
        f"{title}, {use}": Source(name, sequence, part(("held out", "to fit").index(use), 25, skull=True, facts=facts))
        for use in uses
    }


def fitted(method: str, arguments: Mapping[str, Any], sequence: str, *, score: str | None = None) -> Entrant:
    """A method fitted on the healthy scans of a sequence, IterMask3D and what is trained alike for its `STEPS`; `score` as in `Entrant`."""
    steps = {"steps": STEPS[sequence]} if method == "itermask3d" or arguments.get("dims") == 3 else {}
    return Entrant(method, {**arguments, **steps}, fit=FIT[sequence], score=score)


def synthetic_cases(artefacts: Mapping[str, str]) -> list[Case]:
    """IterMask3D's Table 1: normal FLAIR scans, T2w scans, and the normal ones with each artefact (heading to its name)."""
    return [
        Case("normal", HELD_OUT["FLAIR"], anomalous=False),
        Case("different MRI sequence (T2)", HELD_OUT["T2w"], against="normal"),
        *(
            Case(heading, HELD_OUT["FLAIR"], artefact(name), prepared=True, against="normal")
            for heading, name in artefacts.items()
        ),
    ]


def real_artefacts(told: str) -> dict[str, Source]:
    """The scans with real artefacts (IterMask3D v2, Table 2); `told` says where it stands how the failed strips are made."""
    return {
        "T2w with metal": Source(
            sequence="T2w",
            title="T2w scans with susceptibility artefacts",
            variable="SUSCEPTIBILITY",
            offered="nowhere: private to the authors; take T2w scans of your own with metal in or near the head",
            layout="BIDS, sub-01/anat/sub-01_T2w.nii.gz",
            part=robex,
        ),
        "ADNI FLAIR, failed strips": Source(
            sequence="FLAIR",
            title="ADNI FLAIR with failed brain masks",
            variable="ADNI_FAILED_STRIPS",
            offered=f"made from ADNI (https://ida.loni.usc.edu), as {told} says",
            layout="BIDS, each scan with its failed brain mask",
        ),
    }


def artefact_cases(
    groups: Mapping[str, tuple[str, str, Change | None]], held_out: Mapping[str, str], models: Collection[str]
) -> list[Case]:
    """The healthy controls of each sequence, and every line on every group of columns against them.

    Parameters
    ----------
    groups : group to its sequence, its source, and what is done to the preprocessed scans
    held_out : sequence to the source of its controls
    models : lines, of the entrants "line, sequence"
    """
    controls = [
        Case(f"normal {sequence}", source, anomalous=False, only=[f"{model}, {sequence}" for model in models])
        for sequence, source in held_out.items()
    ]
    changed = [
        Case(
            f"{group}: {model}",
            source,
            change,
            prepared=True,
            against=f"normal {sequence}",
            facts={"artefact": group, "model": model},
            only=[f"{model}, {sequence}"],
        )
        for group, (sequence, source, change) in groups.items()
        for model in models
    ]
    return [*controls, *changed]
