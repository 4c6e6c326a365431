"""cDDPM, supplement, Table 3: what each step of cleaning a map is worth.

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
    anomri study run studies/cleaning.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    `PRINTED`: AUPRC in percent. MF is a median filter of 5 x 5 x 5 voxels, BE an erosion of the brain mask by three
    voxels, CC drops components of fewer than seven voxels. Of one model all four lines share their weights: those of
    "all three". Standard deviations over folds are left out.
"""

from __future__ import annotations

from typing import Any

from anomri.study import Case, Source, Study, Table
from anomri.study.papers import expected, lines, part

METRICS = ("voxel_auprc",)
ENSEMBLE = (250, 500, 750)
# Data set, sequence, and how many labelled scans it has to validate on.
DATA = {
    "BraTS21 (T2)": ("brats2021", "T2w", 100),
    "MSLUB (T2)": ("mslub", "T2w", 10),
    "ATLAS (T1)": ("atlas2", "T1w", 175),
    "WMH (T1)": ("wmh", "T1w", 15),
}
CLEANING = {
    "all three": ("median", "erosion", "components"),
    "without components": ("median", "erosion"),
    "without median": ("erosion", "components"),
    "without erosion": ("median", "components"),
}
# Method and arguments of each line.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{model}, {kept}": (method, {**arguments, "cleaning": steps})
    for model, method, arguments in (
        ("DAE", "dae", {}),
        ("DDPM", "anoddpm", {"t_test": ENSEMBLE}),
        ("pDDPM", "pddpm", {"t_test": ENSEMBLE}),
        ("cDDPM", "cddpm", {"t_test": ENSEMBLE, "pretrained": True}),
    )
    for kept, steps in CLEANING.items()
}
SHARES = {line: f"{line.split(', ')[0]}, all three" for line in MODELS if not line.endswith("all three")}

PRINTED = {
    "BraTS21 (T2)": {
        "DAE, all three": (49.38,),
        "DAE, without components": (49.38,),
        "DAE, without median": (39.69,),
        "DAE, without erosion": (48.79,),
        "DDPM, all three": (50.61,),
        "DDPM, without components": (50.68,),
        "DDPM, without median": (35.93,),
        "DDPM, without erosion": (50.47,),
        "pDDPM, all three": (55.08,),
        "pDDPM, without components": (55.07,),
        "pDDPM, without median": (34.99,),
        "pDDPM, without erosion": (54.10,),
        "cDDPM, all three": (58.82,),
        "cDDPM, without components": (58.84,),
        "cDDPM, without median": (39.70,),
        "cDDPM, without erosion": (58.52,),
    },
    "MSLUB (T2)": {
        "DAE, all three": (4.47,),
        "DAE, without components": (4.47,),
        "DAE, without median": (3.92,),
        "DAE, without erosion": (3.84,),
        "DDPM, all three": (6.27,),
        "DDPM, without components": (6.25,),
        "DDPM, without median": (5.40,),
        "DDPM, without erosion": (5.60,),
        "pDDPM, all three": (10.02,),
        "pDDPM, without components": (10.06,),
        "pDDPM, without median": (7.35,),
        "pDDPM, without erosion": (8.63,),
        "cDDPM, all three": (10.97,),
        "cDDPM, without components": (11.22,),
        "cDDPM, without median": (8.31,),
        "cDDPM, without erosion": (10.03,),
    },
    "ATLAS (T1)": {
        "DAE, all three": (13.37,),
        "DAE, without components": (8.53,),
        "DAE, without median": (9.21,),
        "DAE, without erosion": (8.77,),
        "DDPM, all three": (17.77,),
        "DDPM, without components": (14.65,),
        "DDPM, without median": (12.02,),
        "DDPM, without erosion": (15.11,),
        "pDDPM, all three": (17.84,),
        "pDDPM, without components": (12.14,),
        "pDDPM, without median": (13.35,),
        "pDDPM, without erosion": (13.71,),
        "cDDPM, all three": (22.22,),
        "cDDPM, without components": (19.92,),
        "cDDPM, without median": (16.56,),
        "cDDPM, without erosion": (20.41,),
    },
    "WMH (T1)": {
        "DAE, all three": (8.54,),
        "DAE, without components": (7.31,),
        "DAE, without median": (7.01,),
        "DAE, without erosion": (6.80,),
        "DDPM, all three": (8.89,),
        "DDPM, without components": (10.27,),
        "DDPM, without median": (8.80,),
        "DDPM, without erosion": (9.89,),
        "pDDPM, all three": (7.52,),
        "pDDPM, without components": (7.33,),
        "pDDPM, without median": (7.62,),
        "pDDPM, without erosion": (7.3,),
        "cDDPM, all three": (9.26,),
        "cDDPM, without components": (9.86,),
        "cDDPM, without median": (8.34,),
        "cDDPM, without erosion": (9.36,),
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
    name="cleaning",
    title="What each step of cleaning is worth",
    paper="Behrendt et al., Guided reconstruction with conditioned diffusion models, 2025, supplement, Table 3",
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
    measures=("voxel",),
    tables=[
        Table(
            "table3",
            "Cleaning (cDDPM, supplement, Table 3)",
            METRICS,
            rows=("model",),
            across=("data",),
            expected=EXPECTED,
        )
    ],
)
