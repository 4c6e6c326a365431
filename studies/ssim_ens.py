"""Diffusion models with ensembled structure-based anomaly scoring (SSIM-ens), Table 1.

Data
    $IXI, $BRATS2021, $MSLUB, $ATLAS2, $WMH   as in cddpm.py

Split
    As in cddpm.py.

Command (not run here: no machine of ours has the data)
    anomri study run studies/ssim_ens.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    `PRINTED`, in percent: DICE at the threshold that is best for labelled validation scans. SSIM-ens weighs SSIM of
    eight windows, sigma 0.3 to 1.7. Both scores of one model share its weights. Standard deviations over folds are left
    out.
"""

from __future__ import annotations

from anomri.study import Case, Study, Table
from anomri.study.papers import Models, expected
from anomri.study.papers.behrendt import LABELLED, ixi_to_fit, labelled, thesis_entrants

METRICS = ("dice_labelled_validation",)
# Method and arguments of each line.
MODELS: Models = {
    "AE (l1)": ("ae", {"score": "l1"}),
    "AE (SSIM-ens)": ("ae", {"score": "ssim_ens"}),
    "DAE (l1)": ("dae", {"score": "l1"}),
    "DAE (SSIM-ens)": ("dae", {"score": "ssim_ens"}),
    "DDPM (l1)": ("anoddpm", {"score": "l1", "lr": 1e-5, "t_test": 500}),
    "DDPM (SSIM-ens)": ("anoddpm", {"score": "ssim_ens", "lr": 1e-5, "t_test": 500}),
}
SHARES = {f"{model} (SSIM-ens)": f"{model} (l1)" for model in ("AE", "DAE", "DDPM")}

PRINTED = {
    "BraTS21 (T2)": {
        "AE (l1)": (31.51,),
        "AE (SSIM-ens)": (25.88,),
        "DAE (l1)": (45.37,),
        "DAE (SSIM-ens)": (59.24,),
        "DDPM (l1)": (44.25,),
        "DDPM (SSIM-ens)": (57.44,),
    },
    "MSLUB (T2)": {
        "AE (l1)": (7.23,),
        "AE (SSIM-ens)": (3.57,),
        "DAE (l1)": (3.88,),
        "DAE (SSIM-ens)": (1.83,),
        "DDPM (l1)": (4.80,),
        "DDPM (SSIM-ens)": (6.10,),
    },
    "ATLAS (T1)": {
        "AE (l1)": (14.91,),
        "AE (SSIM-ens)": (8.23,),
        "DAE (l1)": (8.53,),
        "DAE (SSIM-ens)": (15.03,),
        "DDPM (l1)": (12.90,),
        "DDPM (SSIM-ens)": (14.81,),
    },
    "WMH (T1)": {
        "AE (l1)": (4.53,),
        "AE (SSIM-ens)": (6.53,),
        "DAE (l1)": (7.31,),
        "DAE (SSIM-ens)": (8.76,),
        "DDPM (l1)": (10.03,),
        "DDPM (SSIM-ens)": (13.16,),
    },
}

EXPECTED = expected(PRINTED, METRICS)


CASES = [
    Case(
        f"{data}, {use}: {model}",
        f"{data}, {use}",
        facts={"data": data, "model": model},
        only=[f"{model}, {sequence}"],
        threshold_from=f"{data}, validation: {model}" if use == "test" else None,
    )
    for data, (_, sequence, _) in LABELLED.items()
    for use in ("validation", "test")
    for model in MODELS
]
STUDY = Study(
    name="ssim-ens",
    title="Ensembled SSIM as the score",
    paper="Behrendt et al., Diffusion models with ensembled structure-based anomaly scoring, ISBI 2024, Table 1",
    entrants=thesis_entrants(MODELS, SHARES),
    sources={**ixi_to_fit(), **labelled(LABELLED, "validation", "test")},
    cases=CASES,
    measures=("overlap", "oracle", "voxel"),
    tables=[
        Table(
            "table1",
            "Segmentation (SSIM-ens, Table 1)",
            ("dice", *METRICS, "voxel_auprc"),
            rows=("model",),
            across=("data",),
            cases=[case.name for case in CASES if case.threshold_from],
            expected=EXPECTED,
        )
    ],
)
