"""pDDPM, Fig. 3 and 6 (right); cDDPM, Fig. 6; Fig. 4.2 of the thesis: the noise level at test time.

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
    anomri study run studies/t_test.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    The figures' curves are not in the text. Expected, in percent, are [DICE] and AUPRC at 500, from Table 2 of cDDPM,
    of whose cDDPM the encoder is pre-trained. pDDPM's text puts the peak on BraTS at 400. "[DICE]" is expected of
    "dice_best_scan_oracle" (see cddpm.py). Of one model and sequence all levels share the weights of 500.
"""

from __future__ import annotations

from typing import Any

from anomri.study import Case, Plot, Source, Study, Table
from anomri.study.papers import lines, part

METRICS = ("dice_best_scan_oracle", "voxel_auprc")
LEVELS = (100, 200, 300, 400, 500, 600, 700, 800, 900)
# Data set, sequence, and how many labelled scans it has to validate on.
DATA = {
    "BraTS21 (T2)": ("brats2021", "T2w", 100),
    "MSLUB (T2)": ("mslub", "T2w", 10),
    "ATLAS (T1)": ("atlas2", "T1w", 175),
    "WMH (T1)": ("wmh", "T1w", 15),
}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
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
            f"{data}: {model}, t {level}",
            f"{data}, test",
            facts={"data": data, "model": model, "t_test": level},
            only=[f"{model}, t {level}, {sequence}"],
        )
        for data, (_, sequence, _) in DATA.items()
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
        for data, (name, _, _) in DATA.items()
    ],
)
