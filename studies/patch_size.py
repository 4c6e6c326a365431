"""pDDPM, Fig. 3 and 6 (left): the size of the patch.

Data
    $IXI, $BRATS2021, $MSLUB   as in pddpm.py

Split
    As in pddpm.py.

Command (not run here: no machine of ours has the data)
    anomri study run studies/patch_size.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB

Expected
    Nothing: the figures' sizes and curves are not in the text. It says that 60 x 60 is best on BraTS; Table 1's patches
    are 48 x 48 (see pddpm.py), and the text does not say which of its three rows the figures are of. Fixed positions
    and the patch's loss here. A patch of 96 x 96 is the whole slice.
"""

from __future__ import annotations

from anomri.study import Case, Entrant, Plot, Study, Table
from anomri.study.papers.behrendt import ixi, labelled

SIZES = (24, 36, 48, 60, 72, 84, 96)
# Data set, sequence, and how many labelled scans it has to validate on.
DATA = {"BraTS21": ("brats2021", "T2w", 100), "MSLUB": ("mslub", "T2w", 10)}


CASES = [
    Case(
        f"{data}, {use}, patch {size}",
        f"{data}, {use}",
        facts={"data": data, "patch": size},
        only=[f"patch {size}"],
        threshold_from=f"{data}, validation, patch {size}" if use == "test" else None,
    )
    for data in DATA
    for use in ("validation", "test")
    for size in SIZES
]
TESTED = [case.name for case in CASES if case.threshold_from]
STUDY = Study(
    name="patch-size",
    title="The patch of patched diffusion models",
    paper="Behrendt et al., Patched diffusion models, MIDL 2023, Fig. 3 and 6 (left)",
    entrants={
        f"patch {size}": Entrant(
            "pddpm",
            {
                "patch": size,
                "sampling": "fixed",
                "objective": "patch",
                "size": "pddpm",
                "lr": 1e-5,
                "cleaning": "behrendt",
            },
            fit="IXI, to fit",
            validate="IXI, to validate",
            pipeline="behrendt",
        )
        for size in SIZES
    },
    sources={
        **{f"IXI, {use}": ixi("T2w", use) for use in ("to fit", "to validate")},
        **labelled(DATA, "validation", "test"),
    },
    cases=CASES,
    measures=("oracle", "voxel"),
    tables=[
        Table(
            "patch-size",
            "Segmentation over the patch's size (pDDPM, Fig. 3 and 6)",
            ("dice_labelled_validation", "voxel_auprc"),
            rows=("data",),
            across=("patch",),
            cases=TESTED,
        )
    ],
    plots=[
        Plot(
            "patch-size",
            "Dice over the patch's size",
            "curve",
            y="dice_labelled_validation",
            x="patch",
            by="data",
            cases=TESTED,
        )
    ],
)
