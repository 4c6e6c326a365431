"""Table 4.5 of the thesis: how the residual of a cDDPM is scored.

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
    anomri study run studies/anomaly_scores.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    `PRINTED`, in percent. "[DICE]", the best possible Dice, is expected of "dice_best_scan_oracle" (see cddpm.py). All
    maps are cleaned. Lines 1 to 3 share their weights, and so do 4 to 6. Standard deviations over folds are left out.
"""

from __future__ import annotations

from typing import Any

from anomri.study import Case, Source, Study, Table
from anomri.study.papers import expected, lines, part

METRICS = ("dice_best_scan_oracle",)
# Data set, sequence, and how many labelled scans it has to validate on.
DATA = {
    "BraTS21 (T2)": ("brats2021", "T2w", 100),
    "MSLUB (T2)": ("mslub", "T2w", 10),
    "ATLAS (T1)": ("atlas2", "T1w", 175),
    "WMH (T1)": ("wmh", "T1w", 15),
}
# Method and arguments of each line.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "cDDPM (l1)": ("cddpm", {"pretrained": True, "t_test": (250, 500, 750), "score": "l1"}),
    "cDDPM (SSIM)": ("cddpm", {"pretrained": True, "t_test": (250, 500, 750), "score": "ssim"}),
    "cDDPM (SSIM-ens)": ("cddpm", {"pretrained": True, "t_test": (250, 500, 750), "score": "ssim_ens"}),
    "cDDPM S_mean": ("mahalanobis", {"n": 10, "covariance": None}),
    "cDDPM S_MHD diag": ("mahalanobis", {"n": 10, "covariance": "diagonal"}),
    "cDDPM S_MHD full": ("mahalanobis", {"n": 10, "covariance": "full"}),
}
SHARES = {
    "cDDPM (SSIM)": "cDDPM (l1)",
    "cDDPM (SSIM-ens)": "cDDPM (l1)",
    "cDDPM S_MHD diag": "cDDPM S_mean",
    "cDDPM S_MHD full": "cDDPM S_mean",
}

PRINTED = {
    "BraTS21 (T2)": {
        "cDDPM (l1)": (56.30,),
        "cDDPM (SSIM)": (65.78,),
        "cDDPM (SSIM-ens)": (67.30,),
        "cDDPM S_mean": (68.19,),
        "cDDPM S_MHD diag": (68.57,),
        "cDDPM S_MHD full": (70.55,),
    },
    "MSLUB (T2)": {
        "cDDPM (l1)": (14.04,),
        "cDDPM (SSIM)": (13.34,),
        "cDDPM (SSIM-ens)": (13.93,),
        "cDDPM S_mean": (13.29,),
        "cDDPM S_MHD diag": (13.64,),
        "cDDPM S_MHD full": (15.55,),
    },
    "ATLAS (T1)": {
        "cDDPM (l1)": (24.22,),
        "cDDPM (SSIM)": (23.88,),
        "cDDPM (SSIM-ens)": (25.07,),
        "cDDPM S_mean": (24.16,),
        "cDDPM S_MHD diag": (24.15,),
        "cDDPM S_MHD full": (27.73,),
    },
    "WMH (T1)": {
        "cDDPM (l1)": (11.59,),
        "cDDPM (SSIM)": (16.91,),
        "cDDPM (SSIM-ens)": (16.55,),
        "cDDPM S_mean": (17.18,),
        "cDDPM S_MHD diag": (17.53,),
        "cDDPM S_MHD full": (17.79,),
    },
}

EXPECTED = expected(PRINTED, METRICS)


CASES = [
    Case(
        f"{data}: {model}",
        f"{data}, test",
        facts={"data": data, "model": model},
        only=[f"{model}, {sequence}"],
    )
    for data, (_, sequence, _) in DATA.items()
    for model in MODELS
]
STUDY = Study(
    name="anomaly-scores",
    title="Scores of conditioned diffusion models",
    paper="Behrendt's thesis, Table 4.5",
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
        **{f"{data}, test": Source(name, sequence, part(1, n)) for data, (name, sequence, n) in DATA.items()},
    },
    cases=CASES,
    measures=("overlap", "oracle", "voxel"),
    tables=[
        Table(
            "table4-5",
            "Anomaly scores (thesis, Table 4.5)",
            ("dice", *METRICS),
            rows=("model",),
            across=("data",),
            expected=EXPECTED,
        )
    ],
)
