"""IterMask3D, second version, Table 6: IterMask² with a threshold for all scans and with each scan's own.

Data
    $BRATS2021   FLAIR, T1ce, T2w and T1w

Split
    As in itermask2_table1.py. Give each sequence's weights with `--model 'IterMask² - fixed, FLAIR=FOLDER'`; the row "-
    adapt" has the same ones.

Command (not run here: no machine of ours has the data)
    anomri study run studies/itermask3d_table6.py --out OUT --data BRATS2021=/data/BraTS2021

Expected
    `PRINTED`, in percent, by the published code at the one threshold that is best for the test labels; what is fixed or
    adapted is tau, at which the mask shrinks. The rows have lost their method's name before "- fixed" and "- adapt"; by
    the text it is IterMask². The precision of T2, adapt, is 70.2 here and 72.0 in v1's Table 3.
"""

from __future__ import annotations

from anomri.study import Study
from anomri.study.papers import Models
from anomri.study.papers.itermask import BEST_THRESHOLD, best_threshold_table, brats, slice_cases, slice_entrants

MODELS: Models = {
    "IterMask² - fixed": ("itermask2", {"percentile": 80.0}),
    "IterMask² - adapt": ("itermask2", {"adaptive": True, "schedule": "exact"}),
}
SHARES = {"IterMask² - adapt": "IterMask² - fixed"}

PRINTED = {
    "FLAIR": {"IterMask² - fixed": (80.2, 81.3, 83.3), "IterMask² - adapt": (80.4, 80.6, 83.1)},
    "T1CE": {"IterMask² - fixed": (61.7, 59.1, 70.9), "IterMask² - adapt": (64.3, 62.6, 69.8)},
    "T2": {"IterMask² - fixed": (71.2, 74.4, 72.9), "IterMask² - adapt": (71.4, 72.2, 70.2)},
    "T1": {"IterMask² - fixed": (58.5, 56.6, 67.6), "IterMask² - adapt": (59.6, 57.7, 67.6)},
}


STUDY = Study(
    name="itermask3d-table6",
    title="Fixed against adaptive threshold, 2D",
    paper="Liang et al., IterMask3D, second version, Table 6",
    entrants=slice_entrants(MODELS, SHARES),
    sources=brats(),
    cases=slice_cases(MODELS),
    measures=("overlap", "oracle"),
    tables=[
        best_threshold_table(
            "table6",
            "Fixed against adaptive threshold (IterMask3D v2, Table 6)",
            BEST_THRESHOLD,
            PRINTED,
            rows=("model",),
            across=("sequence",),
        )
    ],
)
