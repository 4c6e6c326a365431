"""Three-dimensional deep learning with spatial erasing, Fig. 5: the number of scans to fit on.

Data
    $MIXED_NORMALS, $BRATS2019, $ATLAS1   as in spatial_erasing.py, T1w

Split
    As in spatial_erasing.py.

Command (not run here: no machine of ours has the data)
    anomri study run studies/training_set_size.py --out OUT --data MIXED_NORMALS=/data/healthy \\
        --data BRATS2019=/data/BraTS2019 --data ATLAS1=/data/ATLAS_R1.1

Expected
    Nothing: the figure's values are not in the text. It is of the mean AUPRC over both test sets, at 10, 20, 60 and 100
    % of the scans to fit on; by the text a 3D VAE with 20 % is ahead of a 2D VAE with erasing and all. The paper does
    not name its lines: those of Fig. 6 here.
"""

from __future__ import annotations

from collections.abc import Callable

from anomri.cohort import Cohort
from anomri.study import Case, Entrant, Plot, Source, Study, Table
from anomri.study.papers import part
from anomri.study.papers.behrendt import erasing, mixed_normals

MODELS = ("2D-None", "2D-Patch-n", "3D-None", "3D-Cube-n")
PERCENT = (10, 20, 60, 100)
# Data set, and how many labelled scans it has to validate on.
DATA = {"BraTS 2019": ("brats2019", 133), "ATLAS (Stroke)": ("atlas1", 121)}


def share(percent: int) -> Callable[[Cohort], Cohort]:
    """So many percent of the scans to fit on; a smaller share is part of a larger one."""

    def taken(cohort: Cohort) -> Cohort:
        return part(0, 1807 * percent // 100)(part(0, 1807)(cohort))

    return taken


STUDY = Study(
    name="training-set-size",
    title="The number of scans to fit on",
    paper="Bengs et al., Three-dimensional deep learning with spatial erasing, 2021, Fig. 5",
    entrants={
        f"{model}, {percent} %": Entrant(
            *erasing(model),
            fit=f"MixedNormals, {percent} %",
            validate="MixedNormals, to validate",
            pipeline="bengs",
        )
        for model in MODELS
        for percent in PERCENT
    },
    sources={
        **{f"MixedNormals, {percent} %": mixed_normals(share(percent)) for percent in PERCENT},
        "MixedNormals, to validate": mixed_normals(part(1, 1807)),
        **{data: Source(name, "T1w", part(1, n)) for data, (name, n) in DATA.items()},
    },
    cases=[
        Case(
            f"{data}: {model}, {percent} %",
            data,
            facts={"data": data, "model": model, "percent": percent},
            only=[f"{model}, {percent} %"],
        )
        for data in DATA
        for model in MODELS
        for percent in PERCENT
    ],
    measures=("oracle", "voxel"),
    tables=[
        Table(
            "size",
            "AUPRC over the share of scans to fit on (Fig. 5)",
            ("voxel_auprc_pooled", "dice_best_scan_oracle"),
            rows=("model",),
            across=("percent", "data"),
            note="The paper draws the mean of the two test sets.",
        )
    ],
    plots=[
        Plot(
            name,
            f"AUPRC over the share of scans to fit on, {data}",
            "curve",
            y="voxel_auprc_pooled",
            x="percent",
            by="model",
            cases=[f"{data}: {model}, {percent} %" for model in MODELS for percent in PERCENT],
        )
        for data, (name, _) in DATA.items()
    ],
)
