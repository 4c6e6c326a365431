"""What weights for a stranger's scan should learn from, and how: short trainings that differ from one of them in one thing.

Data
    $HEALTHY_T1     OpenNeuro ds002748 (58 skull-stripped T1w; CC0), BIDS: https://openneuro.org/datasets/ds002748
    $VARIED, $REPAINTED     phantoms of all ages and scanners, and the real scans as other sequences and scanners would show them: made
                    as studies/shipped_weights.py says
    $MS_CASE        a table with columns id, T1w, T2w, FLAIR, lesion of one MS patient (MSLUB, doi 10.1007/s12021-017-9348-7)

Split
    Real scans as in studies/controlled.py: 34 to fit; of the 12 that are not tested on, 6 to pick the best step on and 6 to look at.
    The last 12 are not looked at here. Phantoms by their label map, of which there are 20, used in turn: 17 to fit, the 18th to pick
    the best step on; those of the 19th stand for other scanners. Those of the 20th are not looked at. The MS patient is shown, for
    what is marked in tissue of another scanner and age; nothing is chosen by one patient.

Budget
    Each arm has about ten minutes of one of two busy cores: 800 steps of the strided network, 375 of the paper's. The best step is
    picked on real scans and phantoms alike, whatever an arm learns from; that of registered scans, which cost half a minute each, on
    real ones alone.

Command (two cores: five hours; a run that is stopped goes on)
    anomri study run studies/weights_ablation.py --data HEALTHY_T1=ds002748/ --data VARIED=varied/ \\
        --data REPAINTED=repainted/ --data MS_CASE=ms.tsv --out weights_ablation/ --jobs 2

Expected
    docs/decisions/0008 has the numbers of our run. Lesions of 10 ml are planted; masks and Dice are the methods' own, without labels.
"""

from anomri.study import Case, Entrant, Plot, Study, Table
from anomri.study.changes import lesion
from anomri.study.ours import healthy_t1, ms_patient, phantoms, repainted

SEQUENCES = ("T1w", "T2w", "FLAIR")
SIXES = (34, 6, 6, 12)
SOURCES = {
    "real": healthy_t1(0, SIXES),
    "real, validate": healthy_t1(1, SIXES),
    "real, other": healthy_t1(2, SIXES),
}
for name in SEQUENCES:
    SOURCES |= {
        f"{name}": phantoms(name, "fit"),
        f"{name}, validate": phantoms(name, "validate"),
        f"{name}, other": phantoms(name, "choose"),
        f"{name}, repainted": repainted(0, name, SIXES),
        f"{name}, repainted, other": repainted(2, name, SIXES),
        f"MS, {name}": ms_patient(name),
    }

STRIDED = {
    "network": "strided",
    "width": 16,
    "dropout": 0.0,
    "steps": 800,
    "final": 0.02,
    "smooth_mm": 2.0,
    "gamma_mask": 0.2,
}
SHOWN = {"flip": 0.5, "rotation": 0.3, "whole_brain": 0.2, "contrast": 0.5, "thick": 0.3, "moved": 1.0}
BOTH = ("real", "T1w")
CLIP = (-3.0, 4.0)
MEANS = (-2.0536, -1.3395, -0.93, -0.6105, -0.314, -0.0102, 0.3025, 0.6283, 0.9742, 1.3534, 1.9303)
"""`preprocess.intensity.landmarks_of` the 34 real scans."""


def arm(fit=BOTH, validate=("real, validate", "T1w, validate"), preset=None, **changed) -> Entrant:
    """An entrant that is fitted here."""
    preset = {"spacing": 2.0, **(preset or {})}
    return Entrant("itermask3d", {**STRIDED, **SHOWN, **changed}, fit=fit, validate=validate, preset=preset)


ARMS = {
    "Base": arm(),
    "The paper's network": arm(network="residual", width=8, steps=375),
    "Half the width": arm(width=8),
    "Real scans alone": arm(fit="real"),
    "Phantoms alone": arm(fit="T1w"),
    "Repainted, too": arm(fit=(*BOTH, "T1w, repainted")),
    "Nothing randomised": arm(contrast=0.0, thick=0.0, moved=0.0),
    "Contrast as it is": arm(contrast=0.0),
    "Always another contrast": arm(contrast=1.0),
    "No whole-brain masks": arm(whole_brain=0.0),
    "Half whole-brain masks": arm(whole_brain=0.5),
    "Spots": arm(spots=0.5),
    "Real scans alone, spots": arm(fit="real", spots=0.5),
    "Real and repainted scans, spots": arm(fit=("real", "T1w, repainted"), spots=0.5),
    "Less of the image's frequencies": arm(cutoff=25 / 192),
    "Real scans alone, contrast as it is": arm(fit="real", contrast=0.0),
    "Clipped": arm(preset={"clip": CLIP}),
    "Robust scale, clipped": arm(preset={"scale": "robust", "clip": CLIP}),
    "Landmarks": arm(preset={"landmarks": MEANS}),
    "N4": arm(preset={"n4": True}),
    "Real scans alone, registered": arm(fit="real", validate="real, validate", preset={"register": True}),
    **{
        f"Errors over {mm} mm": Entrant("itermask3d", shares="Base", set={"smooth_mm": float(mm)})
        for mm in (0, 1, 3, 4)
    },
}
SHARED = {
    "All sequences in one": arm(
        fit=(*BOTH, "T2w", "FLAIR"), validate=("real, validate", *(f"{name}, validate" for name in SEQUENCES))
    ),
    "All sequences in one, three times as long": arm(
        fit=(*BOTH, "T2w", "FLAIR"),
        validate=("real, validate", *(f"{name}, validate" for name in SEQUENCES)),
        steps=3 * STRIDED["steps"],
    ),
}
for name in ("T2w", "FLAIR"):
    own = {"fit": name, "validate": f"{name}, validate"}
    SHARED |= {
        f"{name} alone": arm(**own),
        f"{name}, repainted, too": arm(**{**own, "fit": (name, f"{name}, repainted")}),
        f"{name}, clipped": arm(**own, preset={"clip": CLIP}),
        f"{name}, robust scale, clipped": arm(**own, preset={"scale": "robust", "clip": CLIP}),
        f"{name}, robust scale, clipped, contrast as it is": arm(
            **own, preset={"scale": "robust", "clip": CLIP}, contrast=0.0
        ),
    }
LOOK_AT = {
    "real, other": "Real T1w",
    **{f"MS, {name}": f"MS, {name}" for name in SEQUENCES},
    **{f"{name}, other": f"Other scanners, {name}" for name in SEQUENCES},
    **{f"{name}, repainted, other": f"Repainted, {name}" for name in SEQUENCES},
}
"""Sources to their names: real scans, phantoms of other heads, and real heads as other scanners would show them."""


def lookers(source: str) -> tuple[str, ...]:
    """Who looks at the scans of a source: arms of their sequence, and the one of all."""
    name = source.removeprefix("MS, ").partition(",")[0]
    return (
        "All sequences in one",
        "All sequences in one, three times as long",
        *(ARMS if name in ("real", "T1w") else (one for one in SHARED if one.startswith(name))),
    )


def looked_at(source: str, title: str) -> list[Case]:
    """The cases of a source: a patient as he is; healthy scans untouched, and with a bright and a dark lesion."""
    facts, only = {"scans": title}, lookers(source)
    if source.startswith("MS"):
        return [Case(title, source, only=only, facts=facts)]
    untouched = Case(f"{title}, untouched", source, anomalous=False, only=only, facts=facts)
    return [
        untouched,
        *(
            Case(
                f"{title}, {contrast}",
                source,
                lesion(kind="stroke", contrast=contrast, ml=10.0),
                against=untouched.name,
                only=only,
                facts={**facts, "contrast": contrast},
            )
            for contrast in ("hyper", "hypo")
        ),
    ]


CASES = [case for source, title in LOOK_AT.items() for case in looked_at(source, title)]
MS = [case.name for case in CASES if case.name.startswith("MS")]
ILL = [case.name for case in CASES if case.anomalous and case.name not in MS]
T1 = [name for name in ILL if "T1w" in name]

STUDY = Study(
    name="weights_ablation",
    title="What weights for a stranger's scan should learn from",
    paper="Ours",
    entrants={**ARMS, **SHARED},
    sources=SOURCES,
    cases=CASES,
    measures=("overlap", "voxel", "oracle"),
    seed=20261121,
    tables=[
        Table(
            "arms",
            "Lesions of 10 ml, T1w",
            ("dice", "dice_best_scan_oracle", "voxel_auroc", "mask_ml"),
            cases=T1,
            entrants=(*ARMS, "All sequences in one"),
            reference="Base",
            note="Dice of the own mask is label-free. The oracle's thresholds were found with the very labels: upper bounds.",
        ),
        Table(
            "untouched",
            "Scans that nothing was done to: what is marked falsely",
            ("mask_ml", "mask_ml_median", "volume_ml", "mean_error"),
            cases=[case.name for case in CASES if not case.anomalous],
        ),
        Table(
            "sequences",
            "One network for each sequence, or one for all",
            ("dice", "dice_best_scan_oracle", "mask_ml"),
            cases=ILL,
            entrants=("Base", *SHARED),
        ),
        Table(
            "ms",
            "One MS patient, another scanner",
            ("dice", "dice_best_scan_oracle", "lesion_ml", "mask_ml"),
            cases=MS,
        ),
    ],
    plots=[
        Plot("dice", "Dice of the own mask", "forest", y="dice", cases=T1, entrants=(*ARMS, "All sequences in one")),
        Plot("oracle", "[DICE]", "forest", y="dice_best_scan_oracle", cases=T1, entrants=(*ARMS, "All sequences in one")),
    ],
)  # fmt: skip
