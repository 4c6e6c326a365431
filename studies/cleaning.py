"""cDDPM, supplement, Table 3: what each step of cleaning a map is worth.

Data
    $IXI, $BRATS2021, $MSLUB, $ATLAS2, $WMH   as in cddpm.py

Split
    As in cddpm.py.

Command (not run here: no machine of ours has the data)
    anomri study run studies/cleaning.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    `PRINTED`: AUPRC in percent. MF is a median filter of 5 x 5 x 5 voxels, BE an erosion of the brain mask by three
    voxels, CC drops components of fewer than seven voxels. Of one model all four lines share their weights: those of
    "all three". Standard deviations over folds are left out.
"""

from __future__ import annotations

from anomri.study import Study, Table
from anomri.study.papers import Models, expected
from anomri.study.papers.behrendt import ENSEMBLE, LABELLED, ixi_to_fit, labelled, thesis_cases, thesis_entrants

METRICS = ("voxel_auprc",)
CLEANING = {
    "all three": "median+erosion+components",
    "without components": "median+erosion",
    "without median": "erosion+components",
    "without erosion": "median+components",
}
# Method and arguments of each line.
MODELS: Models = {
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


STUDY = Study(
    name="cleaning",
    title="What each step of cleaning is worth",
    paper="Behrendt et al., Guided reconstruction with conditioned diffusion models, 2025, supplement, Table 3",
    entrants=thesis_entrants(MODELS, SHARES),
    sources={**ixi_to_fit(), **labelled(LABELLED, "test")},
    cases=thesis_cases(MODELS),
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
