"""Leveraging the Mahalanobis distance, section 3: the number N of reconstructions.

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
    anomri study run studies/mahalanobis_n.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    The text tells of N = 5, 10, ..., 30: moderate gains up to 10, none after; no numbers but Table 1's at N = 10, in
    percent. "[DICE]", the best possible Dice, is expected of "dice_best_scan_oracle" (see cddpm.py). All N share the
    weights of N = 10.
"""

from __future__ import annotations

from anomri.study import Case, Plot, Source, Study, Table
from anomri.study.papers import lines, part

METRICS = ("dice_best_scan_oracle", "voxel_auprc")
NUMBERS = (5, 10, 15, 20, 25, 30)
# Data set, sequence, and how many labelled scans it has to validate on.
DATA = {
    "BraTS21 (T2)": ("brats2021", "T2w", 100),
    "MSLUB (T2)": ("mslub", "T2w", 10),
    "ATLAS (T1)": ("atlas2", "T1w", 175),
    "WMH (T1)": ("wmh", "T1w", 15),
}
MODELS = {f"N {n}": ("mahalanobis", {"n": n, "covariance": "full"}) for n in NUMBERS}
SHARES = {line: "N 10" for line in MODELS if line != "N 10"}
# At N = 10.
PRINTED = {
    "BraTS21 (T2)": (64.72, 68.55),
    "MSLUB (T2)": (15.44, 11.47),
    "ATLAS (T1)": (26.67, 24.61),
    "WMH (T1)": (16.65, 13.77),
}


STUDY = Study(
    name="mahalanobis-n",
    title="The number of reconstructions",
    paper="Behrendt et al., Leveraging the Mahalanobis distance, MICCAI 2024, section 3",
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
        Case(f"{data}, N {n}", f"{data}, test", facts={"data": data, "N": n}, only=[f"N {n}, {sequence}"])
        for data, (_, sequence, _) in DATA.items()
        for n in NUMBERS
    ],
    measures=("oracle", "voxel"),
    tables=[
        Table(
            "n",
            "Segmentation over N (Mahalanobis, section 3)",
            (*METRICS, "seconds_detect"),
            rows=("data",),
            across=("N",),
            expected={
                (data, "10", metric): value
                for data, values in PRINTED.items()
                for metric, value in zip(METRICS, values, strict=True)
            },
        )
    ],
    plots=[Plot("n", "Best Dice over N", "curve", y="dice_best_scan_oracle", x="N", by="data")],
)
