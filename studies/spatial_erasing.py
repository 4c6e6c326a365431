"""Three-dimensional deep learning with spatial erasing, Tables 1 and 2; Table 4.1 of the thesis.

Data
    $MIXED_NORMALS   T1w of 2008 healthy subjects of 22 scanners: the authors' own, private. Any large set of healthy T1w scans of
                     many scanners serves
    $BRATS2019       T1w and T1ce: tumours
    $ATLAS1          T1w: stroke

Split
    1807 healthy scans to fit on, the rest (201) to validate on; the paper stratifies by scanner, this does not. BraTS
    2019: 133 labelled scans to validate on, 202 to test on; ATLAS: 121 and 183. All drawn by our seed.

Command (not run here: no machine of ours has the data)
    anomri study run studies/spatial_erasing.py --out OUT --data MIXED_NORMALS=/data/healthy \\
        --data BRATS2019=/data/BraTS2019 --data ATLAS1=/data/ATLAS_R1.1

Expected
    `PRINTED`, in percent. DICE_S, the mean over subjects at the threshold that is best for labelled validation scans,
    is expected of "dice_labelled_validation", and DICE_D, all subjects' voxels together at that same threshold, of
    "dice_pooled_labelled_validation". AUPRC is of all voxels together, "voxel_auprc_pooled". "dice_best_pooled_oracle",
    beside them, is an upper bound of DICE_D, and "dice" is at a threshold from healthy scans. Table 4.1 heads BRATS
    (T2); text and paper say T1. Fig. 6's slice-wise AUPRC (71.2 for 3D-Cube-n) has no column here. "2D-Patch-n" and
    "3D-Cube-n" look at T1ce with the weights of T1 in Table 2. Standard deviations over subjects are left out.
"""

from __future__ import annotations

from anomri.study import Case, Entrant, Plot, Study, Table
from anomri.study.papers import expected, part
from anomri.study.papers.behrendt import erasing, labelled, mixed_normals

METRICS = ("dice_pooled_labelled_validation", "dice_labelled_validation", "voxel_auprc_pooled")
# Data set, sequence, and how many labelled scans it has to validate on.
DATA = {
    "BraTS 2019": ("brats2019", "T1w", 133),
    "ATLAS (Stroke)": ("atlas1", "T1w", 121),
    "BraTS 2019, T1ce": ("brats2019", "T1ce", 133),
}

PRINTED = {
    "BraTS 2019": {
        "2D-None": (26.80, 25.30, 21.19),
        "3D-None": (28.14, 26.93, 24.69),
        "2D-Patch-0": (27.96, 26.52, 22.53),
        "2D-Patch-n": (27.99, 26.58, 22.54),
        "3D-Cube-0": (29.24, 27.90, 26.18),
        "3D-Cube-n": (30.10, 28.80, 27.85),
        "2D-Multi-Patch-0": (28.10, 26.44, 22.54),
        "2D-Multi-Patch-n": (28.51, 27.24, 22.81),
        "3D-Multi-Cube-0": (28.88, 27.67, 25.82),
        "3D-Multi-Cube-n": (29.52, 28.33, 26.18),
        "2D-Half-Slice-0": (26.86, 25.44, 21.77),
        "2D-Half-Slice-n": (27.97, 26.45, 22.84),
        "3D-Half-Volume-0": (28.49, 27.51, 25.47),
        "3D-Half-Volume-n": (28.99, 27.92, 26.07),
    },
    "ATLAS (Stroke)": {
        "2D-None": (24.72, 11.23, 16.86),
        "3D-None": (30.68, 14.42, 23.74),
        "2D-Patch-0": (27.68, 12.23, 18.65),
        "2D-Patch-n": (27.42, 12.36, 18.20),
        "3D-Cube-0": (31.50, 15.59, 23.47),
        "3D-Cube-n": (32.68, 15.53, 25.11),
        "2D-Multi-Patch-0": (26.99, 11.82, 18.72),
        "2D-Multi-Patch-n": (28.06, 12.88, 19.49),
        "3D-Multi-Cube-0": (31.83, 15.23, 24.51),
        "3D-Multi-Cube-n": (32.37, 14.99, 25.13),
        "2D-Half-Slice-0": (27.54, 11.05, 18.60),
        "2D-Half-Slice-n": (28.99, 12.13, 20.37),
        "3D-Half-Volume-0": (31.00, 15.21, 23.14),
        "3D-Half-Volume-n": (33.05, 15.27, 25.58),
    },
    "BraTS 2019, T1ce": {
        "2D-Patch-n": (31.80, 29.08, 24.28),
        "3D-Cube-n": (36.67, 33.40, 31.12),
    },
}

EXPECTED = expected(PRINTED, METRICS)


CASES = [
    Case(
        data if use == "test" else f"{data}, validation",
        f"{data}, {use}",
        only=list(PRINTED[data]),
        threshold_from=f"{data}, validation" if use == "test" else None,
    )
    for data in DATA
    for use in ("validation", "test")
]
STUDY = Study(
    name="spatial-erasing",
    title="2D and 3D VAEs with spatial erasing",
    paper="Bengs et al., Three-dimensional deep learning with spatial erasing, 2021, Tables 1 and 2; Behrendt's thesis, Table 4.1",
    entrants={
        model: Entrant(
            *erasing(model),
            fit="MixedNormals, to fit",
            validate="MixedNormals, to validate",
            calibrate="MixedNormals, to validate",
            pipeline="bengs",
        )
        for model in PRINTED["BraTS 2019"]
    },
    sources={
        "MixedNormals, to fit": mixed_normals(part(0, 1807)),
        "MixedNormals, to validate": mixed_normals(part(1, 1807)),
        **labelled(DATA, "validation", "test"),
    },
    cases=CASES,
    measures=("overlap", "oracle", "voxel"),
    tables=[
        Table(
            "table1",
            "Spatial erasing (Table 1; thesis, Table 4.1)",
            ("dice", *METRICS, "dice_best_pooled_oracle"),
            cases=["BraTS 2019", "ATLAS (Stroke)"],
            expected={key: value for key, value in EXPECTED.items() if "T1ce" not in key[1]},
            reference="2D-None",
        ),
        Table(
            "table2",
            "T1 and T1ce (Table 2)",
            ("dice", *METRICS, "dice_best_pooled_oracle"),
            cases=["BraTS 2019", "BraTS 2019, T1ce"],
            entrants=["2D-Patch-n", "3D-Cube-n"],
            expected={
                key: value
                for key, value in EXPECTED.items()
                if key[0] in PRINTED["BraTS 2019, T1ce"] and key[1] != "ATLAS (Stroke)"
            },
        ),
    ],
    plots=[
        Plot(
            "size",
            "Dice over lesion volume (Fig. 4)",
            "scatter",
            y="dice",
            x="lesion_ml",
            cases=["BraTS 2019", "ATLAS (Stroke)"],
        )
    ],
)
