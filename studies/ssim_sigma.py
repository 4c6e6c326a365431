"""SSIM-ens, Fig. 2, and Fig. 4.4 of the thesis: the window of SSIM as the score.

Data
    $IXI, $BRATS2021, $MSLUB, $ATLAS2, $WMH   as in cddpm.py

Split
    As in cddpm.py.

Command (not run here: no machine of ours has the data)
    anomri study run studies/ssim_sigma.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    The curves are not in the text; it puts the best sigma at 0.3 on MSLUB and 1.6 on BraTS. Expected, in percent, is
    Table 4.5's [DICE] of "cDDPM (SSIM)" at sigma 1. "[DICE]", the best possible Dice, is expected of
    "dice_best_scan_oracle" (see cddpm.py). All windows share the weights of sigma 1.
"""

from __future__ import annotations

from anomri.study import Case, Plot, Study, Table
from anomri.study.papers.behrendt import ENSEMBLE, LABELLED, ixi_to_fit, labelled, thesis_entrants

SIGMAS = tuple(tenths / 10 for tenths in range(3, 18))
MODELS = {
    f"sigma {sigma:g}": ("cddpm", {"pretrained": True, "t_test": ENSEMBLE, "score": "ssim", "sigma": sigma})
    for sigma in SIGMAS
}
SHARES = {line: "sigma 1" for line in MODELS if line != "sigma 1"}
# [DICE] at sigma 1.
PRINTED = {"BraTS21 (T2)": 65.78, "MSLUB (T2)": 13.34, "ATLAS (T1)": 23.88, "WMH (T1)": 16.91}


STUDY = Study(
    name="ssim-sigma",
    title="The window of SSIM",
    paper="Behrendt's thesis, Fig. 4.4",
    entrants=thesis_entrants(MODELS, SHARES, calibrate=False),
    sources={**ixi_to_fit(), **labelled(LABELLED, "test")},
    cases=[
        Case(
            f"{data}, sigma {sigma:g}",
            f"{data}, test",
            facts={"data": data, "sigma": sigma},
            only=[f"sigma {sigma:g}, {sequence}"],
        )
        for data, (_, sequence, _) in LABELLED.items()
        for sigma in SIGMAS
    ],
    measures=("oracle", "voxel"),
    tables=[
        Table(
            "sigma",
            "Segmentation over sigma (thesis, Fig. 4.4)",
            ("dice_best_scan_oracle", "voxel_auprc"),
            rows=("data",),
            across=("sigma",),
            expected={(data, "1.0", "dice_best_scan_oracle"): value for data, value in PRINTED.items()},
        )
    ],
    plots=[Plot("sigma", "Best Dice over sigma", "curve", y="dice_best_scan_oracle", x="sigma", by="data")],
)
