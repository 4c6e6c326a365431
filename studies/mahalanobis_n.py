"""Leveraging the Mahalanobis distance, section 3: the number N of reconstructions.

Data
    $IXI, $BRATS2021, $MSLUB, $ATLAS2, $WMH   as in cddpm.py

Split
    As in cddpm.py.

Command (not run here: no machine of ours has the data)
    anomri study run studies/mahalanobis_n.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    The text tells of N = 5, 10, ..., 30: moderate gains up to 10, none after; no numbers but Table 1's at N = 10, in
    percent. "[DICE]", the best possible Dice, is expected of "dice_best_scan_oracle" (see cddpm.py). All N share the
    weights of N = 10. Maps are not cleaned.
"""

from __future__ import annotations

from anomri.study import Case, Plot, Study, Table
from anomri.study.papers.behrendt import LABELLED, MAHALANOBIS, ixi_to_fit, labelled, thesis_entrants

METRICS = ("dice_best_scan_oracle", "voxel_auprc")
NUMBERS = (5, 10, 15, 20, 25, 30)
MODELS = {f"N {n}": ("cddpm", {**MAHALANOBIS, "n": n, "score": "mhd_full"}) for n in NUMBERS}
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
    entrants=thesis_entrants(MODELS, SHARES, calibrate=False, cleaning="none"),
    sources={**ixi_to_fit(), **labelled(LABELLED, "test")},
    cases=[
        Case(f"{data}, N {n}", f"{data}, test", facts={"data": data, "N": n}, only=[f"N {n}, {sequence}"])
        for data, (_, sequence, _) in LABELLED.items()
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
