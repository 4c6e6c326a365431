"""pDDPM, Fig. 3 and 6 (right); cDDPM, Fig. 6; Fig. 4.2 of the thesis: the noise level at test time.

Data
    $IXI, $BRATS2021, $MSLUB, $ATLAS2, $WMH   as in cddpm.py

Split
    As in cddpm.py.

Command (not run here: no machine of ours has the data)
    anomri study run studies/t_test.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    The figures' curves are not in the text. Expected, in percent, are [DICE] and AUPRC at 500, from Table 2 of cDDPM,
    of whose cDDPM the encoder is pre-trained. pDDPM's text puts the peak on BraTS at 400. "[DICE]" is expected of
    "dice_best_scan_oracle" (see cddpm.py). Of one model and sequence all levels share the weights of 500.
"""

from __future__ import annotations

from anomri.study import Case, Plot, Study, Table
from anomri.study.papers import Models
from anomri.study.papers.behrendt import LABELLED, ixi_to_fit, labelled, thesis_entrants

METRICS = ("dice_best_scan_oracle", "voxel_auprc")
LEVELS = (100, 200, 300, 400, 500, 600, 700, 800, 900)
METHODS: Models = {
    "DDPM": ("anoddpm", {}),
    "pDDPM": ("pddpm", {}),
    "cDDPM": ("cddpm", {"pretrained": True}),
}
MODELS = {
    f"{model}, t {level}": (method, {**arguments, "t_test": level})
    for model, (method, arguments) in METHODS.items()
    for level in LEVELS
}
SHARES = {f"{model}, t {level}": f"{model}, t 500" for model in METHODS for level in LEVELS if level != 500}

# At t_test = 500.
PRINTED = {
    "BraTS21 (T2)": {"DDPM": (49.43, 50.00), "pDDPM": (53.25, 54.73), "cDDPM": (55.67, 58.14)},
    "MSLUB (T2)": {"DDPM": (9.63, 6.81), "pDDPM": (12.40, 10.14), "cDDPM": (13.52, 10.89)},
    "ATLAS (T1)": {"DDPM": (17.57, 15.64), "pDDPM": (19.20, 17.31), "cDDPM": (22.66, 20.85)},
    "WMH (T1)": {"DDPM": (11.56, 8.65), "pDDPM": (10.14, 7.78), "cDDPM": (11.15, 9.03)},
}


STUDY = Study(
    name="t-test",
    title="The noise level at test time",
    paper="Behrendt's thesis, Fig. 4.2",
    entrants=thesis_entrants(MODELS, SHARES, calibrate=False),
    sources={**ixi_to_fit(), **labelled(LABELLED, "test")},
    cases=[
        Case(
            f"{data}: {model}, t {level}",
            f"{data}, test",
            facts={"data": data, "model": model, "t_test": level},
            only=[f"{model}, t {level}, {sequence}"],
        )
        for data, (_, sequence, _) in LABELLED.items()
        for model in METHODS
        for level in LEVELS
    ],
    measures=("oracle", "voxel"),
    tables=[
        Table(
            "t-test",
            "Segmentation over t_test (thesis, Fig. 4.2)",
            METRICS,
            rows=("data", "model"),
            across=("t_test",),
            expected={
                (f"{data}, {model}", "500", metric): value
                for data, lines in PRINTED.items()
                for model, values in lines.items()
                for metric, value in zip(METRICS, values, strict=True)
            },
        )
    ],
    plots=[
        Plot(
            name,
            f"AUPRC over t_test, {data}",
            "curve",
            y="voxel_auprc",
            x="t_test",
            by="model",
            cases=[f"{data}: {model}, t {level}" for model in METHODS for level in LEVELS],
        )
        for data, (name, _, _) in LABELLED.items()
    ],
)
