"""Diffusion models with ensembled structure-based anomaly scoring (SSIM-ens), Table 1.

Data
    $IXI         T1w and T2w: to fit and to validate on
    $BRATS2021   T2w: tumours
    $MSLUB       T2w: multiple sclerosis
    $ATLAS2      T1w: stroke
    $WMH         T1w: white matter hyperintensities

Split
    IXI's T2w come with a skull: ROBEX takes it off (`pip install 'anomri[strip]'`), the papers used HD-BET. IXI: 358
    subjects to fit on, 44 to validate on, the rest to test on. BraTS 2021, MSLUB, ATLAS and WMH: 100, 10, 175 and 15
    labelled scans to validate on, the rest to test on. All drawn by our seed: the published lists of IXI have 7 to 9 of
    their test subjects among those to fit on. The thesis prints means over five folds; this is one.

Command (not run here: no machine of ours has the data)
    anomri study run studies/ssim_ens.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    `PRINTED`, in percent: DICE at the threshold that is best for labelled validation scans. SSIM-ens weighs SSIM of
    eight windows, sigma 0.3 to 1.7. Both scores of one model share its weights. Standard deviations over folds are left
    out.
"""

from __future__ import annotations

from typing import Any

from anomri.study import Case, Source, Study, Table
from anomri.study.papers import expected, lines, part

METRICS = ("dice_labelled_validation",)
# Data set, sequence, and how many labelled scans it has to validate on.
DATA = {
    "BraTS21 (T2)": ("brats2021", "T2w", 100),
    "MSLUB (T2)": ("mslub", "T2w", 10),
    "ATLAS (T1)": ("atlas2", "T1w", 175),
    "WMH (T1)": ("wmh", "T1w", 15),
}
# Method and arguments of each line.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
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
    for data, (_, sequence, _) in DATA.items()
    for use in ("validation", "test")
    for model in MODELS
]
STUDY = Study(
    name="ssim-ens",
    title="Ensembled SSIM as the score",
    paper="Behrendt et al., Diffusion models with ensembled structure-based anomaly scoring, ISBI 2024, Table 1",
    entrants={
        name: entrant
        for sequence in ("T1w", "T2w")
        for name, entrant in lines(
            MODELS,
            sequence,
            shares=SHARES,
            fit=f"IXI {sequence}, to fit",
            validate=f"IXI {sequence}, to validate",
            calibrate=f"IXI {sequence}, to validate",
        ).items()
    },
    sources={
        **{
            f"IXI {sequence}, {use}": Source("ixi", sequence, part(index, 358, 44, skull=sequence == "T2w"))
            for sequence in ("T1w", "T2w")
            for index, use in enumerate(("to fit", "to validate"))
        },
        **{
            f"{data}, {use}": Source(name, sequence, part(index, n))
            for data, (name, sequence, n) in DATA.items()
            for index, use in enumerate(("validation", "test"))
        },
    },
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
