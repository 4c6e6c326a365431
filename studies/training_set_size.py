"""Three-dimensional deep learning with spatial erasing, Fig. 5: the number of scans to fit on.

Data
    $MIXED_NORMALS   T1w of 2008 healthy subjects of 22 scanners: the authors' own, private. Any large set of healthy T1w scans of
                     many scanners serves
    $BRATS2019       T1w: tumours
    $ATLAS1          T1w: stroke

Split
    1807 healthy scans to fit on, the rest (201) to validate on; the paper stratifies by scanner, this does not. BraTS
    2019: 133 labelled scans to validate on, 202 to test on; ATLAS: 121 and 183. All drawn by our seed.

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
from typing import Any

from anomri.cohort import Cohort
from anomri.study import Case, Entrant, Plot, Source, Study, Table
from anomri.study.papers import part

MODELS = ("2D-None", "2D-Patch-n", "3D-None", "3D-Cube-n")
PERCENT = (10, 20, 60, 100)
MIXED_NORMALS = {
    "sequence": "T1w",
    "title": "MixedNormals",
    "variable": "MIXED_NORMALS",
    "offered": "nowhere: private to jung diagnostics GmbH; take healthy T1w scans of many scanners, more than 1807",
    "layout": "BIDS, sub-01/anat/sub-01_T1w.nii.gz",
}
# Data set, and how many labelled scans it has to validate on.
DATA = {"BraTS 2019": ("brats2019", 133), "ATLAS (Stroke)": ("atlas1", 121)}


def share(percent: int) -> Callable[[Cohort], Cohort]:
    """So many percent of the scans to fit on; a smaller share is part of a larger one."""

    def taken(cohort: Cohort) -> Cohort:
        return part(0, 1807 * percent // 100)(part(0, 1807)(cohort))

    return taken


def entrant(model: str, **more: Any) -> Entrant:
    """A line such as 3D-Half-Volume-n: dimensions, what is erased, and zeros (0) or noise (n) in its place."""
    dims, *erased = model.split("-")
    arguments: dict[str, Any] = {"latent": 128 if dims == "2D" else 512}
    method = "vae" if dims == "2D" else "vae3d"
    if erased != ["None"]:
        fill = {"0": "zeros", "n": "noise"}[erased.pop()]
        method, arguments = (
            "spatial_erasing",
            {**arguments, "dims": int(dims[0]), "erase": "-".join(erased).lower(), "fill": fill},
        )
    return Entrant(method, {**arguments, "lr": 1e-3, "batch": 32}, **more)


STUDY = Study(
    name="training-set-size",
    title="The number of scans to fit on",
    paper="Bengs et al., Three-dimensional deep learning with spatial erasing, 2021, Fig. 5",
    entrants={
        f"{model}, {percent} %": entrant(model, fit=f"MixedNormals, {percent} %", validate="MixedNormals, to validate")
        for model in MODELS
        for percent in PERCENT
    },
    sources={
        **{f"MixedNormals, {percent} %": Source(**MIXED_NORMALS, part=share(percent)) for percent in PERCENT},
        "MixedNormals, to validate": Source(**MIXED_NORMALS, part=part(1, 1807)),
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
