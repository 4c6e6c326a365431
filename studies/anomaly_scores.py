"""Table 4.5 of the thesis: how the residual of a cDDPM is scored.

Data
    $IXI, $BRATS2021, $MSLUB, $ATLAS2, $WMH   as in cddpm.py

Split
    As in cddpm.py.

Command (not run here: no machine of ours has the data)
    anomri study run studies/anomaly_scores.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    `PRINTED`, in percent. "[DICE]", the best possible Dice, is expected of "dice_best_scan_oracle" (see cddpm.py). All
    maps are cleaned. Lines 1 to 3 share their weights, and so do 4 to 6, those of the cDDPM of the Mahalanobis paper
    (mahalanobis.py). Standard deviations over folds are left out.
"""

from __future__ import annotations

from anomri.study import Study, Table
from anomri.study.papers import Models, expected
from anomri.study.papers.behrendt import (
    ENSEMBLE,
    LABELLED,
    MAHALANOBIS,
    ixi_to_fit,
    labelled,
    thesis_cases,
    thesis_entrants,
)

METRICS = ("dice_best_scan_oracle",)
# Method and arguments of each line.
MODELS: Models = {
    "cDDPM (l1)": ("cddpm", {"pretrained": True, "t_test": ENSEMBLE, "score": "l1"}),
    "cDDPM (SSIM)": ("cddpm", {"pretrained": True, "t_test": ENSEMBLE, "score": "ssim"}),
    "cDDPM (SSIM-ens)": ("cddpm", {"pretrained": True, "t_test": ENSEMBLE, "score": "ssim_ens"}),
    "cDDPM S_mean": ("cddpm", {**MAHALANOBIS, "n": 10, "score": "ssim"}),
    "cDDPM S_MHD diag": ("cddpm", {**MAHALANOBIS, "n": 10, "score": "mhd_diag"}),
    "cDDPM S_MHD full": ("cddpm", {**MAHALANOBIS, "n": 10, "score": "mhd_full"}),
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


STUDY = Study(
    name="anomaly-scores",
    title="Scores of conditioned diffusion models",
    paper="Behrendt's thesis, Table 4.5",
    entrants=thesis_entrants(MODELS, SHARES),
    sources={**ixi_to_fit(), **labelled(LABELLED, "test")},
    cases=thesis_cases(MODELS),
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
