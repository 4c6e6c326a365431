"""What the shipped T1w weights do on scans that they never saw: real stroke shapes pasted in, and one real case of MS.

Data
    $HEALTHY_T1     OpenNeuro ds002748 (58 skull-stripped T1w; CC0), BIDS: https://openneuro.org/datasets/ds002748
    $LESION_MASKS   a folder of lesion masks in MNI space, `*.nii.gz` (made from OpenNeuro ds004889)
    $MS_CASE        a table with columns id, T1w, lesion of one MS patient (MSLUB, doi 10.1007/s12021-017-9348-7)

Split
    34 to fit, 12 to validate on, 12 to test on, by a rule that depends on the subjects' ids alone. No weights that ship, and no
    choice that was made, ever saw the last 12.

How the weights were made (two cores, about 65 minutes)
    anomri cohort split $HEALTHY_T1 --parts fit=34,validate=12,test=12 --seed 20261120 --out split.tsv
    anomri fit itermask3d --cohort $HEALTHY_T1 --split split.tsv --spacing 2 --out first \\
        --set width=8 --set dropout=0.0 --set whole_brain=0.2 --set flip=0.5 --set final=0.02 --set steps=4400
    anomri fit itermask3d --cohort $HEALTHY_T1 --split split.tsv --spacing 2 --out second --start first --half \\
        --set width=8 --set dropout=0.0 --set whole_brain=0.2 --set flip=0.5 --set final=0.02 --set steps=2000 \\
        --set lr=6e-4 --set contrast=0.7

Command (two cores: about 15 minutes; a run that is stopped goes on)
    anomri study run studies/shipped_weights.py --out shipped/ --jobs 2 \\
        --data HEALTHY_T1=ds002748/ --data LESION_MASKS=masks/ --data MS_CASE=ms.tsv

Expected
    docs/results.md has the numbers of our run.
"""

from anomri.study import Case, Entrant, Plot, Source, Study, Table
from anomri.study.changes import mask_of_mni

SIZES_ML = {"2 ml": (1.5, 3.0), "10 ml": (8.0, 12.0), "40 ml": (30.0, 60.0)}
"""Volumes in MNI space; these brains are smaller, and so are the lesions in them."""
CONTRASTS = {"hyper": 3.0, "hypo": 2.0}
"""SD of the brain that a lesion lies above, or below, the tissue of its place."""
LESIONS = [
    Case(
        f"{contrast} {size}",
        "test",
        mask_of_mni("LESION_MASKS", ml, contrast, change),
        against="untouched",
        facts={"contrast": contrast, "size": size},
    )
    for size, ml in SIZES_ML.items()
    for contrast, change in CONTRASTS.items()
]
NAMES = [case.name for case in LESIONS]

STUDY = Study(
    name="shipped_weights",
    title="The shipped T1w weights on 12 scans that they never saw",
    paper="Ours",
    entrants={"itermask3d-t1w-2mm": Entrant("itermask3d", model="itermask3d-t1w-2mm")},
    sources={
        "test": Source(
            title="OpenNeuro ds002748",
            variable="HEALTHY_T1",
            offered="https://openneuro.org/datasets/ds002748 (CC0)",
            layout="BIDS: sub-01/anat/sub-01_T1w.nii.gz",
            part=lambda cohort: cohort.split(34, 12, 12, seed=20261120)[2],
        ),
        "ms": Source(
            title="One MS patient of MSLUB",
            variable="MS_CASE",
            offered="https://lit.fe.uni-lj.si/en/research/resources/3D-MR-MS/ (CC-BY)",
            layout="a table with columns id, T1w, lesion",
        ),
    },
    cases=[Case("untouched", "test", anomalous=False), *LESIONS, Case("MS", "ms")],
    measures=("overlap", "voxel", "oracle", "surface", "lesions"),
    seed=20261120,
    tables=[
        Table(
            "lesions",
            "Lesions by contrast and size",
            ("dice", "missed", "dice_best_scan_oracle", "voxel_auroc", "assd_mm", "lesion_ml", "mask_ml", "AUROC"),
            rows=("contrast", "size"),
            across=(),
            cases=NAMES,
        ),
        Table("untouched", "Scans that nothing was done to", ("mask_ml", "volume_ml", "mean_error", "r2"), cases=["untouched"]),
        Table("ms", "One MS patient, another scanner", ("dice", "dice_best_scan_oracle", "lesion_ml", "mask_ml"), cases=["MS"]),
    ],
    plots=[
        Plot("dice", "Dice of the own mask", "box", y="dice", cases=NAMES),
        Plot("size", "Dice of the own mask against the lesion's volume", "scatter", x="lesion_ml", y="dice", by="contrast", cases=NAMES),
    ],
)  # fmt: skip
