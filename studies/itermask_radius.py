"""IterMask², Fig. 3, right: Dice over the radius r of the frequency mask; and the same for IterMask3D.

The methods paint the whole brain once from its high frequencies alone ("-spat", "frequency masking only"): what the network sees
of the frequencies is all that it sees.

Data
    $BRATS2021   FLAIR, T1ce, T2w and T1w, to test on
    $ADNI        FLAIR of cognitively normal subjects, to fit IterMask3D on

Split
    ADNI comes with a skull: ROBEX takes it off, as in the paper (`pip install 'anomri[strip]'`). 139 subjects to test
    on, drawn by our seed (the paper's own are not listed in it): whole scans in 3D, the slice with the most lesion of
    each in 2D. IterMask3D is fitted on all healthy subjects but 25, once a radius. The paper fits its 2D methods on the
    tumour-free slices 70 to 89 of the other BraTS subjects; a cohort here is of whole scans, so fit them apart and give
    each with `--model`.

Command (not run here: no machine of ours has the data)
    anomri study run studies/itermask_radius.py --out OUT --data BRATS2021=/data/BraTS2021 --data ADNI=/data/ADNI

Expected
    r is in steps of the discrete spectrum: r/128 cycles per pixel in 2D, r/192 cycles per mm in 3D. The figure's curves
    are not in the text, which calls the result stable from 10 to 25. Expected are, at r = 15, Table 3's DSC of "-spat"
    in 2D (FLAIR), and v2's Table 5 "frequency masking only" in 3D, both at the threshold that is best for the test
    labels.
"""

from __future__ import annotations

from anomri.study import Case, Entrant, Plot, Study, Table
from anomri.study.papers.itermask import SEQUENCES, brats, fitted, healthy, most_lesion

RADII = (5, 10, 15, 20, 25, 30)
THREE_D = "FLAIR, 3D"


STUDY = Study(
    name="itermask-radius",
    title="The radius of the frequency mask",
    paper="Liang et al., IterMask², MICCAI 2024, Fig. 3 (right)",
    entrants={
        **{
            f"r {radius}, {sequence}": Entrant("itermask2", {"refine": False, "radius": radius}, pipeline="itermask2")
            for sequence in SEQUENCES
            for radius in RADII
        },
        **{
            f"r {radius}, {THREE_D}": fitted(
                "itermask3d", {"refine": False, "whole_brain": 1.0, "cutoff": radius / 192}, "FLAIR"
            )
            for radius in RADII
        },
    },
    sources={**healthy("FLAIR", "to fit"), **brats()},
    cases=[
        Case(
            f"{column}, r {radius}",
            f"BraTS {column.removesuffix(', 3D')}",
            None if column == THREE_D else most_lesion,
            prepared=column != THREE_D,
            facts={"sequence": column, "radius": radius},
            only=[f"r {radius}, {column}"],
        )
        for column in (*SEQUENCES, THREE_D)
        for radius in RADII
    ],
    measures=("oracle", "voxel"),
    tables=[
        Table(
            "radius",
            "Dice over r (IterMask², Fig. 3)",
            ("dice_best_dataset_oracle", "voxel_auprc"),
            rows=("sequence",),
            across=("radius",),
            expected={
                ("FLAIR", "15", "dice_best_dataset_oracle"): 75.1,
                (THREE_D, "15", "dice_best_dataset_oracle"): 60.8,
            },
            note="The paper's Dice is at the threshold that is best for the test labels.",
        )
    ],
    plots=[Plot("radius", "Dice over r", "curve", y="dice_best_dataset_oracle", x="radius", by="sequence")],
)
