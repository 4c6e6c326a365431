"""IterMask², Table 1: segmenting tumours in 2D slices of BraTS, four sequences.

Data
    $BRATS2021   FLAIR, T1ce, T2w and T1w

Split
    139 subjects to test on, drawn by our seed (the paper's own are not listed in it); of each the slice with the most
    lesion. The paper fits its 2D methods on the tumour-free slices 70 to 89 of the other BraTS subjects; a cohort here
    is of whole scans, so fit them apart, with `--preset itermask2`, and give each with `--model`.

Command (not run here: no machine of ours has the data)
    anomri study run studies/itermask2_table1.py --out OUT --data BRATS2021=/data/BraTS2021

Expected
    `WHITE` and `GREY`, in percent (SSIM, of healthy tissue, times 100). By the published code the white cells are at
    the one threshold on the error maps that is best for the labels of the test set. The grey ones are the best for each
    image: of DAE a threshold, of IterMask² the step of a mask whose tau rises, so that its SSIM is of that step, too.
    Only their DSC is expected, of "dice_best_scan_oracle", a threshold on our last map; no metric measures the rest.
"""

from __future__ import annotations

from anomri.study import Entrant, Study
from anomri.study.papers import Models
from anomri.study.papers.itermask import BEST_THRESHOLD, SEQUENCES, best_threshold_table, brats, grey_table, slice_cases

WHITE_METRICS = (*BEST_THRESHOLD, "ssim")
# Method and arguments of each line; DAE's noise is bright, dark, or both.
MODELS: Models = {
    "AE": ("ae", {}),
    "DDPM": ("latent_ddpm", {}),
    "AutoDDPM": ("autoddpm", {}),
    "Cycl.UNet": ("cyclic_unet", {}),
    "DAE [0, +∞]": ("dae", {"noise_sign": "positive"}),
    "DAE [-∞, 0]": ("dae", {"noise_sign": "negative"}),
    "DAE [-∞, +∞]": ("dae", {"noise_sign": "both"}),
    "IterMask²": ("itermask2", {}),
}

WHITE = {
    "FLAIR": {
        "AE": (33.4, 54.0, 27.0, 94.1),
        "DDPM": (60.7, 57.8, 69.8, 98.0),
        "AutoDDPM": (55.5, 57.5, 58.7, 93.7),
        "Cycl.UNet": (65.0, 63.4, 73.9, 86.4),
        "DAE [0, +∞]": (79.7, 79.1, 84.5, 92.6),
        "DAE [-∞, 0]": (28.5, 94.9, 17.3, 87.5),
        "DAE [-∞, +∞]": (73.7, 72.9, 80.5, 92.6),
        "IterMask²": (80.2, 81.3, 83.3, 98.5),
    },
    "T1CE": {
        "AE": (32.3, 50.1, 26.4, 95.7),
        "DDPM": (37.9, 35.2, 46.2, 98.4),
        "AutoDDPM": (36.9, 58.9, 28.9, 90.3),
        "Cycl.UNet": (42.6, 47.5, 42.9, 92.3),
        "DAE [0, +∞]": (36.7, 42.0, 36.2, 84.4),
        "DAE [-∞, 0]": (34.7, 37.9, 39.3, 96.6),
        "DAE [-∞, +∞]": (46.3, 47.9, 51.5, 96.9),
        "IterMask²": (61.7, 59.1, 70.9, 99.7),
    },
    "T2": {
        "AE": (30.2, 62.8, 21.1, 93.7),
        "DDPM": (36.4, 33.6, 44.2, 98.4),
        "AutoDDPM": (29.7, 53.0, 22.3, 90.7),
        "Cycl.UNet": (49.5, 48.8, 53.4, 83.1),
        "DAE [0, +∞]": (69.6, 68.1, 75.3, 90.3),
        "DAE [-∞, 0]": (28.5, 94.9, 17.4, 88.5),
        "DAE [-∞, +∞]": (60.4, 58.5, 69.1, 89.7),
        "IterMask²": (71.2, 74.4, 72.9, 99.4),
    },
    "T1": {
        "AE": (28.5, 94.9, 17.4, 95.3),
        "DDPM": (29.4, 32.1, 31.5, 97.7),
        "AutoDDPM": (33.5, 61.1, 24.7, 91.0),
        "Cycl.UNet": (37.0, 45.8, 35.2, 92.6),
        "DAE [0, +∞]": (29.5, 61.2, 20.5, 86.0),
        "DAE [-∞, 0]": (47.9, 53.7, 50.9, 95.8),
        "DAE [-∞, +∞]": (44.5, 48.0, 47.5, 96.4),
        "IterMask²": (58.5, 56.6, 67.6, 99.6),
    },
}

GREY = {
    "FLAIR": {
        "DAE [0, +∞]": (84.2, 83.1, 87.0, 92.6),
        "IterMask²": (85.9, 85.7, 87.4, 99.1),
    },
    "T1CE": {
        "DAE [0, +∞]": (42.1, 52.5, 42.8, 84.4),
        "IterMask²": (67.7, 66.4, 76.4, 99.7),
    },
    "T2": {
        "DAE [0, +∞]": (74.5, 72.1, 80.1, 90.3),
        "IterMask²": (78.3, 75.6, 84.0, 99.5),
    },
    "T1": {
        "DAE [0, +∞]": (35.3, 64.3, 28.3, 86.0),
        "IterMask²": (64.9, 65.2, 71.4, 99.5),
    },
}


CASES = slice_cases(MODELS)
STUDY = Study(
    name="itermask2-table1",
    title="Tumours in 2D slices, IterMask²",
    paper="Liang et al., IterMask², MICCAI 2024, Table 1",
    entrants={
        f"{model}, {sequence}": Entrant(method, arguments, pipeline="itermask2")
        for model, (method, arguments) in MODELS.items()
        for sequence in SEQUENCES
    },
    sources=brats(),
    cases=CASES,
    measures=("overlap", "oracle", "healthy"),
    tables=[
        best_threshold_table(
            "white",
            "Tumours in 2D slices (IterMask², Table 1, white cells)",
            WHITE_METRICS,
            WHITE,
            rows=("model",),
            across=("sequence",),
        ),
        grey_table(
            GREY,
            rows=("model",),
            across=("sequence",),
            cases=[case.name for case in CASES if case.facts["model"] in GREY["FLAIR"]],
        ),
    ],
)
