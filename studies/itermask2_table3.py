"""IterMask², Table 3: without frequency guidance, without mask refinement, and by the lesion's size.

Data
    $BRATS2021   FLAIR

Split
    As in itermask2_table1.py. Small lesions are below 200 pixels of the slice, large ones above 800, counted here on
    BraTS' 240 x 240 pixels; the paper's slices are 128 x 128, so pixels are scaled.

Command (not run here: no machine of ours has the data)
    anomri study run studies/itermask2_table3.py --out OUT --data BRATS2021=/data/BraTS2021

Expected
    `WHITE` and `GREY`, in percent. By the published code the white cells are at the one threshold that is best for the
    labels of the test set; the grey ones are the best for each image, and only their DSC is expected (see
    itermask2_table1.py). "-spat" is IterMask²'s first step, which has a network of its own, and takes its weights;
    "-freq" is fitted without frequencies, and in the paper keeps them in that first step. Of each size ours is the
    threshold that is best for its own scans; the paper does not say whose its is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from anomri.cohort import Cohort
from anomri.preprocess import space
from anomri.scan import Scan
from anomri.study import Case, Entrant, Source, Study
from anomri.study.papers import Printed, part
from anomri.study.papers.itermask import BEST_THRESHOLD, best_threshold_table, grey_table, largest_slice, most_lesion

# Pixels of 128 x 128.
SIZES = {"all": (0.0, float("inf")), "small": (0.0, 200.0), "medium": (200.0, 800.0), "large": (800.0, float("inf"))}

WHITE: Printed = {
    "all": {
        "-freq": (64.2, 69.4, 63.6),
        "-spat": (75.1, 73.8, 79.6),
        "DAE": (79.7, 79.1, 84.5),
        "IterMask²": (80.2, 81.3, 83.3),
    },
    "small": {
        "-freq": (20.7, None, None),
        "-spat": (46.6, None, None),
        "DAE": (47.3, None, None),
        "IterMask²": (55.6, None, None),
    },
    "medium": {
        "-freq": (63.4, None, None),
        "-spat": (77.9, None, None),
        "DAE": (81.5, None, None),
        "IterMask²": (80.8, None, None),
    },
    "large": {
        "-freq": (72.1, None, None),
        "-spat": (77.0, None, None),
        "DAE": (83.0, None, None),
        "IterMask²": (83.6, None, None),
    },
}
GREY: Printed = {
    "all": {"DAE": (84.2, 83.1, 87.0), "IterMask²": (85.9, 85.7, 87.4)},
    "small": {"DAE": (60.6, None, None), "IterMask²": (65.7, None, None)},
    "medium": {"DAE": (85.3, None, None), "IterMask²": (86.3, None, None)},
    "large": {"DAE": (87.0, None, None), "IterMask²": (88.7, None, None)},
}


def of_size(low: float, high: float) -> Callable[[Cohort], Cohort]:
    """The test subjects whose slice has from `low` to below `high` pixels of lesion, at 128 x 128."""

    def taken(cohort: Cohort) -> Cohort:
        tested = part(0, 139)(cohort)
        pixels = [_pixels(scan) for scan in tested]
        return tested.subset(i for i, n in enumerate(pixels) if low <= n < high)

    return taken


def _pixels(scan: Scan) -> float:
    chosen = largest_slice(space.reorient(scan), torch.Generator()).lesion
    assert chosen is not None
    return float(chosen.sum()) * 128**2 / (chosen.shape[0] * chosen.shape[1])


STUDY = Study(
    name="itermask2-table3",
    title="Ablation and lesion size, IterMask²",
    paper="Liang et al., IterMask², MICCAI 2024, Table 3",
    entrants={
        "-freq": Entrant("itermask2", {"frequency": False}, pipeline="itermask2"),
        "-spat": Entrant("itermask2", shares="IterMask²", set={"refine": False}),
        "DAE": Entrant("dae", {"noise_sign": "positive"}, pipeline="itermask2"),
        "IterMask²": Entrant("itermask2", pipeline="itermask2"),
    },
    sources={
        f"BraTS FLAIR, {name} lesions": Source("brats2021", "FLAIR", of_size(*range)) for name, range in SIZES.items()
    },
    cases=[Case(name, f"BraTS FLAIR, {name} lesions", most_lesion, prepared=True) for name in SIZES],
    measures=("overlap", "oracle"),
    tables=[
        best_threshold_table(
            "white",
            "Ablation and lesion size (IterMask², Table 3, white cells)",
            BEST_THRESHOLD,
            WHITE,
        ),
        grey_table(GREY, entrants=["DAE", "IterMask²"]),
    ],
)
