"""IterMask², Fig. 3, left: Dice over tau, the percentile of the healthy error at which the mask shrinks.

Data
    $BRATS2021   FLAIR, T1ce, T2w and T1w

Split
    As in itermask2_table1.py. Fit with `--preset itermask2`, and give each sequence's weights with
    `--model 'tau 80, FLAIR=FOLDER'`; all percentiles of a sequence have those of its 80th.

Command (not run here: no machine of ours has the data)
    anomri study run studies/itermask2_tau.py --out OUT --data BRATS2021=/data/BraTS2021

Expected
    The figure goes from the 60th to the 100th percentile; its curves are not in the text. Expected is Table 1's DSC at
    the 80th, which is at the threshold that is best for the test labels.
"""

from __future__ import annotations

from anomri.study import Case, Plot, Study, Table
from anomri.study.papers.itermask import SEQUENCES, brats, most_lesion, slice_entrants

PERCENTILES = (60, 65, 70, 75, 80, 85, 90, 95, 100)
MODELS = {f"tau {percentile}": ("itermask2", {"percentile": float(percentile)}) for percentile in PERCENTILES}
SHARES = {line: "tau 80" for line in MODELS if line != "tau 80"}
# DSC of IterMask² in Table 1.
PRINTED = {"FLAIR": 80.2, "T1CE": 61.7, "T2": 71.2, "T1": 58.5}


STUDY = Study(
    name="itermask2-tau",
    title="The threshold of IterMask²",
    paper="Liang et al., IterMask², MICCAI 2024, Fig. 3 (left)",
    entrants=slice_entrants(MODELS, SHARES),
    sources=brats(),
    cases=[
        Case(
            f"BraTS {sequence}, tau {percentile}",
            f"BraTS {sequence}",
            most_lesion,
            prepared=True,
            facts={"sequence": sequence, "percentile": percentile},
            only=[f"tau {percentile}, {sequence}"],
        )
        for sequence in SEQUENCES
        for percentile in PERCENTILES
    ],
    measures=("overlap", "oracle"),
    tables=[
        Table(
            "tau",
            "Dice over the percentile of tau (IterMask², Fig. 3)",
            ("dice", "dice_best_dataset_oracle"),
            rows=("sequence",),
            across=("percentile",),
            expected={(sequence, "80", "dice_best_dataset_oracle"): value for sequence, value in PRINTED.items()},
            note="The paper's Dice is at the threshold that is best for the test labels.",
        )
    ],
    plots=[
        Plot("tau", "Dice over tau", "curve", y="dice_best_dataset_oracle", x="percentile", by="sequence"),
        Plot("tau-own", "Dice of the own mask over tau", "curve", y="dice", x="percentile", by="sequence"),
    ],
)
