"""SSIM-ens, Fig. 2, and Fig. 4.4 of the thesis: the window of SSIM as the score.

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
    anomri study run studies/ssim_sigma.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    The curves are not in the text; it puts the best sigma at 0.3 on MSLUB and 1.6 on BraTS. Expected, in percent, is
    Table 4.5's [DICE] of "cDDPM (SSIM)" at sigma 1. "[DICE]", the best possible Dice, is expected of
    "dice_best_scan_oracle" (see cddpm.py). All windows share the weights of sigma 1.
"""

from __future__ import annotations

from anomri.study import Case, Plot, Source, Study, Table
from anomri.study.papers import lines, part

SIGMAS = tuple(tenths / 10 for tenths in range(3, 18))
# Data set, sequence, and how many labelled scans it has to validate on.
DATA = {
    "BraTS21 (T2)": ("brats2021", "T2w", 100),
    "MSLUB (T2)": ("mslub", "T2w", 10),
    "ATLAS (T1)": ("atlas2", "T1w", 175),
    "WMH (T1)": ("wmh", "T1w", 15),
}
MODELS = {
    f"sigma {sigma:g}": ("cddpm", {"pretrained": True, "t_test": (250, 500, 750), "score": "ssim", "sigma": sigma})
    for sigma in SIGMAS
}
SHARES = {line: "sigma 1" for line in MODELS if line != "sigma 1"}
# [DICE] at sigma 1.
PRINTED = {"BraTS21 (T2)": 65.78, "MSLUB (T2)": 13.34, "ATLAS (T1)": 23.88, "WMH (T1)": 16.91}


STUDY = Study(
    name="ssim-sigma",
    title="The window of SSIM",
    paper="Behrendt's thesis, Fig. 4.4",
    entrants={
        name: entrant
        for sequence in ("T1w", "T2w")
        for name, entrant in lines(
            MODELS,
            sequence,
            shares=SHARES,
            fit=f"IXI {sequence}, to fit",
            validate=f"IXI {sequence}, to validate",
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
    cases=[
        Case(
            f"{data}, sigma {sigma:g}",
            f"{data}, test",
            facts={"data": data, "sigma": sigma},
            only=[f"sigma {sigma:g}, {sequence}"],
        )
        for data, (_, sequence, _) in DATA.items()
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
