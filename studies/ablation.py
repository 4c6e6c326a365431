"""What the two halves of IterMask3D are worth: frequencies alone, space alone, and both, learned equally briefly.

Reproduces
    In the small, on T1w and with pasted lesions instead of gliomas: IterMask3D v2, Table 5, 3D part. The arms differ in nothing
    but what the table names: the same scans, seed, network and 1,500 steps of batch 2 (the shipped ones took 11,600).

Data
    $HEALTHY_T1     OpenNeuro ds002748 (58 skull-stripped T1w; CC0), BIDS: https://openneuro.org/datasets/ds002748

Split
    As in studies/controlled.py: 34 scans to fit, 12 to pick the best step and set thresholds on, 12 to look at.

Command (two cores, 2 mm: three fits of about 14 minutes, then 12 minutes; a run that is stopped goes on)
    anomri study run studies/ablation.py --data HEALTHY_T1=ds002748/ --out ablation/ --jobs 2

Expected
    docs/results.md has the numbers of our run. The paper's Dice is at the threshold that is best on the test labels.
"""

from anomri.study import Case, Entrant, Plot, Study, Table
from anomri.study.changes import lesion
from anomri.study.ours import healthy_t1

COMMON = {"width": 8, "dropout": 0.0, "flip": 0.5, "steps": 1500}


def arm(**arguments) -> Entrant:
    """An entrant that is fitted here, and calibrated on the validation scans where it has no mask of its own."""
    given = {"whole_brain": 0.2, **COMMON, **arguments}
    calibrate = None if given.get("refine", True) else "validate"
    return Entrant("itermask3d", given, fit="fit", validate="validate", preset={"spacing": 2.0}, calibrate=calibrate)


CASES = ("hyper 10 ml", "hypo 10 ml")
PAPER = {
    "Both": (69.7, 72.7, 71.1),
    "Frequency masking only": (60.8, 65.9, 64.8),
    "Spatial masking only": (40.4, 43.7, 42.2),
}
"""IterMask3D v2, Table 5, 3D BraTS FLAIR: Dice, sensitivity, precision, at the best threshold of the test set."""

STUDY = Study(
    name="ablation",
    title="IterMask3D without its spatial masks, and without its frequencies",
    paper="After IterMask3D v2 (Liang et al., 2025), Table 5, on other data",
    entrants={
        "Both": arm(),
        "Frequency masking only": arm(whole_brain=1.0, refine=False),
        "Spatial masking only": arm(frequency=False),
    },
    sources={name: healthy_t1(index) for index, name in enumerate(("fit", "validate", "test"))},
    cases=[
        Case("Untouched", "test", anomalous=False),
        *(Case(name, "test", lesion(contrast=name.split()[0], ml=10.0), against="Untouched") for name in CASES),
    ],
    measures=("overlap", "voxel", "oracle"),
    seed=0,
    tables=[
        Table(
            "ablation",
            "Both, and each alone",
            ("dice_best_dataset_oracle", "dice_best_scan_oracle", "dice", "voxel_auroc", "mask_ml"),
            cases=CASES,
            expected={(name, case, "dice_best_dataset_oracle"): values[0] for name, values in PAPER.items() for case in CASES},
            reference="Both",
            note="Frequency masking alone has no mask of its own: its mask is the map above the value that 1 % of the brain voxels "
            "of the validation scans exceed. The paper's lesions are gliomas in FLAIR.",
        ),
        Table("untouched", "Scans that nothing was done to", ("mask_ml", "mean_error"), cases=["Untouched"]),
    ],
    plots=[Plot("dice", "Best Dice of each scan (an oracle)", "box", y="dice_best_scan_oracle", cases=CASES)],
)  # fmt: skip
