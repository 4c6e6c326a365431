"""Artefacts and lesions with a truth, put into scans that no weights have seen: what the shipped IterMask3D finds of them.

Reproduces
    In the small, and on T1w instead of FLAIR: IterMask3D v2, Table 1 and 2 (artefacts), 4 (lesions), 6 and 7 (each scan's own
    threshold against a fixed one). The paper's rows stand beside ours; they are of other scans (ADNI, FLAIR, 23 to 25 subjects).

Data
    $HEALTHY_T1     OpenNeuro ds002748 (58 skull-stripped T1w; CC0), BIDS: https://openneuro.org/datasets/ds002748

Split
    `Cohort.split(34, 12, 12, seed=20261120)`: the last 12 are looked at, the 12 before them set the fixed threshold; the weights
    have seen the first 34, and their best step was picked on the 12 before the last.

Protocol
    Artefacts are put into the preprocessed scan, as the published run does; lesions and failed strips into the raw one. Each
    scan is its own control. 240 detections for IterMask3D, 168 for the fixed threshold.

Command (two cores, 2 mm: about 50 minutes; a run that is stopped goes on)
    anomri study run studies/controlled.py --data HEALTHY_T1=ds002748/ --out controlled/ --jobs 2

Expected
    docs/results.md has the numbers of our run.
"""

from anomri.cohort import Cohort
from anomri.methods.itermask3d import healthy_tau
from anomri.study import Case, Entrant, Plot, Source, Study, Table
from anomri.study.changes import artefact, lesion

DATA = {
    "title": "OpenNeuro ds002748",
    "variable": "HEALTHY_T1",
    "offered": "https://openneuro.org/datasets/ds002748 (CC0)",
    "layout": "BIDS: sub-01/anat/sub-01_T1w.nii.gz",
}


def part(index: int):
    """One part of the fixed split."""

    def take(cohort: Cohort) -> Cohort:
        return cohort.split(34, 12, 12, seed=20261120)[index]

    return take


def fixed(method, opened) -> None:
    """The threshold of IterMask2: the 80th percentile of the errors of other healthy scans under random masks."""
    method.tau = healthy_tau(method, opened("validate"))


PREPARED = {
    "other_sequence": "Other sequence (T2-like)",
    "gaussian_noise": "Gaussian noise",
    "chunk_middle": "Chunk missing (middle)",
    "chunk_top": "Chunk missing (top)",
    "spike": "Spike noise",
    "bias_field": "Bias field",
    "ghosting": "Ghosting",
    "zipper": "Zipper",
    "susceptibility": "Susceptibility",
}
RAW = {"residual_tissue": "Failed skull strip"}
SIZES = {"2 ml": 2.0, "10 ml": 10.0, "40 ml": 40.0}
CONTRASTS = ("hyper", "hypo", "iso")

UNTOUCHED = Case("Untouched", "test", anomalous=False)
ARTEFACTS = [
    Case(
        title,
        "test",
        artefact(name),
        prepared=name in PREPARED,
        against="Untouched",
        facts={"artefact": name, "severity": 1.0},
    )
    for name, title in {**PREPARED, **RAW}.items()
]
LESIONS = [
    Case(
        f"{contrast} {size}",
        "test",
        lesion(kind="stroke", contrast=contrast, ml=ml),
        against="Untouched",
        facts={"contrast": contrast, "size": size},
        only=("IterMask3D",) if size != "10 ml" else None,
    )
    for size, ml in SIZES.items()
    for contrast in CONTRASTS
]

V2 = {
    "Other sequence (T2-like)": (100.0, 100.0),
    "Gaussian noise": (100.0, 100.0),
    "Chunk missing (middle)": (95.5, 96.7),
    "Chunk missing (top)": (82.0, 87.5),
    "Spike noise": (97.2, 97.3),
    "Bias field": (96.2, 96.4),
    "Ghosting": (98.0, 99.0),
    "Zipper": (98.0, 98.1),
}
"""IterMask3D v2, Table 1: AUROC and AUPRC of IterMask3D, by the mask's volume."""
V2_REAL = {"Susceptibility": (99.7, 99.6), "Failed skull strip": (86.1, 87.5)}
V2_FIXED = {"Susceptibility": (89.3, 91.8), "Failed skull strip": (72.0, 76.6)}
"""IterMask3D v2, Table 7: each scan's own threshold, and a fixed one; by the mean error (section 5.2)."""


def printed(entrant: str, numbers: dict[str, tuple[float, float]]) -> dict[tuple[str, str, str], float]:
    """The paper's AUROC and AUPRC as a table's `expected`."""
    return {
        (f"{case}, {entrant}", "", metric): value
        for case, both in numbers.items()
        for metric, value in zip(("AUROC", "AUPRC"), both, strict=True)
    }


NAMES = [case.name for case in ARTEFACTS]
CASE = ("AUROC", "AUPRC", "FPR@TPR80", "FNR@FPR20")

STUDY = Study(
    name="controlled",
    title="Artefacts and lesions with a truth, in 12 unseen healthy T1w scans",
    paper="After IterMask3D v2 (Liang et al., 2025), Table 1, 2, 4, 6 and 7, on other data",
    entrants={
        "IterMask3D": Entrant("itermask3d", model="itermask3d-t1w-2mm"),
        "IterMask3D, fixed threshold": Entrant("itermask3d", shares="IterMask3D", then=fixed),
    },
    sources={
        "test": Source(**DATA, part=part(2)),
        "validate": Source(**DATA, part=part(1)),
    },
    cases=[UNTOUCHED, *ARTEFACTS, *LESIONS],
    measures=("overlap", "voxel", "oracle", "surface", "lesions", "healthy"),
    most=250,
    seed=20261120,
    tables=[
        Table(
            "artefacts",
            "Artefacts: scans with one against the same scans without",
            CASE,
            rows=("case", "entrant"),
            across=(),
            cases=NAMES,
            expected=printed("IterMask3D", V2),
            note="The score is the volume of the mask at gamma 0.01. The paper's numbers are of FLAIR of other subjects, its other sequence "
            "is a real T2.",
        ),
        Table(
            "artefacts_mean_error",
            "Artefacts, by the mean error instead of the mask's volume",
            CASE,
            rows=("case", "entrant"),
            across=(),
            cases=NAMES,
            score="mean_error",
            expected=printed("IterMask3D", V2_REAL) | printed("IterMask3D, fixed threshold", V2_FIXED),
            note="The mean error is what the paper scores every other method by, and all methods on real artefacts. Its susceptibility (T2) and "
            "failed strips (FLAIR) are real ones.",
        ),
        Table(
            "lesions",
            "Lesions by contrast and size",
            ("dice", "missed", "dice_best_scan_oracle", "dice_best_dataset_oracle", "voxel_auroc", "lesion_f1", "assd_mm", "AUROC"),
            rows=("contrast", "size"),
            across=(),
            cases=[case.name for case in LESIONS],
            entrants=("IterMask3D",),
            note="Dice of the own mask is label-free. The oracles' thresholds were found with the very labels: upper bounds.",
        ),
        Table(
            "threshold",
            "Each scan's own threshold against a fixed one",
            ("dice", "sensitivity", "precision", "AUROC"),
            cases=[case.name for case in LESIONS if case.facts["size"] == "10 ml"],
            reference="IterMask3D",
        ),
        Table(
            "healthy",
            "Scans that nothing was done to",
            ("mask_ml", "volume_ml", "mean_error", "r2", "psnr_db"),
            cases=["Untouched"],
        ),
    ],
    plots=[
        Plot("volume", "Volume of the mask at gamma 0.01", "box", y="score", cases=["Untouched", *NAMES]),
        Plot("roc", "Artefacts", "roc", cases=NAMES),
        Plot("dice", "Dice of the own mask", "box", y="dice", cases=[case.name for case in LESIONS]),
        Plot("size", "Dice of the own mask against the lesion's volume", "scatter", x="lesion_ml", y="dice", by="contrast"),
    ],
)  # fmt: skip
