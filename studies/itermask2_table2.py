"""IterMask², Table 2: segmenting stroke lesions in 2D slices of ISLES and ATLAS.

Data
    $ISLES2015   FLAIR of 28 subjects
    $ATLAS2      T1w of 655 subjects

Split
    The paper does not say which subjects and slices it tests on: here 28 subjects of ISLES and 139 of ATLAS, drawn by
    our seed, and of each the axial slice with the most lesion. It fits on lesion-free slices; a cohort here is of whole
    scans, so fit apart, in Python, with the preset "itermask2" and all slices (`preset_arguments = {"slices": None}`:
    70 to 89 are BraTS's), and give each model with `--model`.

Command (not run here: no machine of ours has the data)
    anomri study run studies/itermask2_table2.py --out OUT --data ISLES2015=/data/ISLES2015 --data ATLAS2=/data/ATLAS_2

Expected
    `WHITE` and `GREY`, in percent (SSIM, of healthy tissue, times 100). By the published code the white cells are at
    the one threshold on the error maps that is best for the labels of the test set. The grey ones are the best for each
    image: of DAE a threshold, of IterMask² the step of a mask whose tau rises, so that its SSIM is of that step, too.
    Only their DSC is expected, of "dice_best_scan_oracle", a threshold on our last map; no metric measures the rest.
    AE's Sens. and Prec. of ISLES are printed as 0.475 and 0.167 among percentages: 47.5 and 16.7 here. Cycl.UNet has no
    ATLAS numbers.
"""

from __future__ import annotations

from anomri.study import Case, Entrant, Source, Study
from anomri.study.papers import Models, part
from anomri.study.papers.itermask import BEST_THRESHOLD, best_threshold_table, grey_table, most_lesion

WHITE_METRICS = (*BEST_THRESHOLD, "ssim")
# tau is the 80th percentile of the healthy error, and the 70th for ATLAS.
MODELS: dict[str, Models] = {
    data: {
        "AE": ("ae", {}),
        "DDPM": ("latent_ddpm", {}),
        "AutoDDPM": ("autoddpm", {}),
        "Cycl.UNet": ("cyclic_unet", {}),
        "DAE": ("dae", {}),
        "IterMask²": ("itermask2", {"percentile": percentile}),
    }
    for data, percentile in (("ISLES FLAIR", 80.0), ("ATLAS T1", 70.0))
}

WHITE = {
    "ISLES FLAIR": {
        "AE": (21.5, 47.5, 16.7, 79.1),
        "DDPM": (44.0, 50.3, 43.9, 93.7),
        "AutoDDPM": (41.1, 52.6, 42.9, 86.2),
        "Cycl.UNet": (53.4, 50.5, 59.4, 84.2),
        "DAE": (51.8, 61.9, 52.5, 91.4),
        "IterMask²": (55.1, 59.8, 58.0, 96.4),
    },
    "ATLAS T1": {
        "AE": (11.9, 40.7, 8.6, 95.4),
        "DDPM": (20.2, 22.6, 26.5, 98.7),
        "AutoDDPM": (12.7, 47.4, 9.2, 89.2),
        "DAE": (11.1, 33.4, 32.7, 99.5),
        "IterMask²": (35.3, 34.3, 41.7, 99.6),
    },
}

GREY = {
    "ISLES FLAIR": {
        "DAE": (56.5, 66.8, 55.6, 90.5),
        "IterMask²": (59.6, 69.1, 61.7, 95.6),
    },
    "ATLAS T1": {
        "DAE": (11.1, 33.4, 32.7, 99.5),
        "IterMask²": (47.5, 57.7, 54.2, 98.9),
    },
}


CASES = [
    Case(
        f"{data}: {model}",
        data,
        most_lesion,
        prepared=True,
        facts={"data": data, "model": model},
        only=[f"{model}, {data}"],
    )
    for data, models in MODELS.items()
    for model in models
]
STUDY = Study(
    name="itermask2-table2",
    title="Stroke lesions in 2D slices, IterMask²",
    paper="Liang et al., IterMask², MICCAI 2024, Table 2",
    entrants={
        f"{model}, {data}": Entrant(method, arguments, pipeline="itermask2", preset={"slices": None})
        for data, models in MODELS.items()
        for model, (method, arguments) in models.items()
    },
    sources={
        "ISLES FLAIR": Source("isles2015", "FLAIR"),
        "ATLAS T1": Source("atlas2", "T1w", part(0, 139)),
    },
    cases=CASES,
    measures=("overlap", "oracle", "healthy"),
    tables=[
        best_threshold_table(
            "white",
            "Stroke lesions in 2D slices (IterMask², Table 2, white cells)",
            WHITE_METRICS,
            WHITE,
            rows=("model",),
            across=("data",),
        ),
        grey_table(
            GREY,
            rows=("model",),
            across=("data",),
            cases=[case.name for case in CASES if case.facts["model"] in GREY["ATLAS T1"]],
        ),
    ],
)
