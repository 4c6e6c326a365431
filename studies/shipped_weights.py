"""How the weights of the package are made, and what they do on scans that they never saw.

Data
    $HEALTHY_T1     OpenNeuro ds002748 (58 skull-stripped T1w; CC0), BIDS: https://openneuro.org/datasets/ds002748
    $VARIED         phantoms of all ages and scanners, painted from the label maps that SynthSeg publishes
                    (https://github.com/BBillot/SynthSeg, data/training_label_maps), about a quarter of an hour of one core:
                    anomri phantom --n 100 --sequence T1w,T2w,FLAIR --spacing 2 --label-maps training_label_maps/ --varied \\
                        --seed 20261121 --out varied/
    $REPAINTED      the real scans as other sequences and scanners would show them, five minutes:
                    anomri phantom --scans ds002748/ --sequence T1w,T2w,FLAIR --spacing 2 --seed 1 --out repainted/
    $LESION_MASKS   a folder of lesion masks in MNI space, `*.nii.gz` (made from OpenNeuro ds004889)
    $MS_CASE        a table with columns id, T1w, T2w, FLAIR, lesion of one MS patient (MSLUB, doi 10.1007/s12021-017-9348-7)

Split
    Real scans: 34 to fit, 6 to pick the best step on, 6 to choose by, 12 to look at, by a rule that depends on the subjects' ids
    alone. No weights that ship, and no choice that was made, ever saw the last 12. Phantoms by label map: 17 to fit, one to pick on,
    one to choose by, one to look at. What is chosen by is healthy, with lesions planted: where masks stop (the table "slopes": the
    slope with the highest Dice of the own mask, mean over both sources and contrasts), and what weights_ablation.py looks at.
    The MS patient is one example to look at: nothing was fitted to it.

Recipe
    That each sequence has its own model, what it learns from and what it is shown is what studies/weights_ablation.py found
    (docs/decisions/0008). T1w learns in two phases: real scans alone, then phantoms and repainted scans beside them. Each model is
    fitted here, in one to two hours of one core; models that are there already are given by --model, those of the package by their
    names. The weights of the package were made by this, on phantoms of revision 3; `SLOPE` was set after the table "slopes".

Command (two cores: four hours to learn, 20 minutes to look; a run that is stopped goes on)
    anomri study run studies/shipped_weights.py --out shipped/ --jobs 2 \\
        --data HEALTHY_T1=ds002748/ --data VARIED=varied/ --data REPAINTED=repainted/ \\
        --data LESION_MASKS=masks/ --data MS_CASE=ms.tsv
    studies/controlled.py looks at the T1w weights beside all other methods: artefacts, and random lesions.

Expected
    docs/results.md has the numbers of our run.
"""

from anomri.study import Case, Entrant, Plot, Study, Table
from anomri.study.changes import artefact, lesion, mask_of_mni
from anomri.study.ours import healthy_t1, ms_patient, phantoms, repainted

SEQUENCES = ("T1w", "T2w", "FLAIR")
LEARNED = {
    "network": "strided", "width": 16, "dropout": 0.0, "steps": 8000, "final": 0.02,
    "flip": 0.5, "rotation": 0.3, "whole_brain": 0.2, "contrast": 0.5, "thick": 0.3, "spots": 0.5, "moved": 1.0,
    "smooth_mm": 2.0,
}  # fmt: skip
SIXES = (34, 6, 6, 12)
"""Real scans to fit on, to pick the best step on, to choose slopes by, and to look at."""
SLOPES = (0.05, 0.1, 0.2, 0.3, 0.5)
"""`gamma_mask` to choose from: 0.05 is the paper's, for other grids, longer trainings and errors of single voxels."""
PRESETS = {
    "T1w": {"spacing": 2.0, "clip": (-3.0, 4.0)},
    "T2w": {"spacing": 2.0, "scale": "robust", "clip": (-3.0, 4.0)},
    "FLAIR": {"spacing": 2.0, "scale": "robust", "clip": (-3.0, 4.0)},
}
SLOPE = {"T1w": 0.1, "T2w": 0.2, "FLAIR": 0.3}
"""What was chosen of `SLOPES`, by the weights that ship. The score's slope lies as far below it as the paper's, a fifth."""
MODELS = {name: f"itermask3d-{name.lower()}-2mm" for name in SEQUENCES}
FIRST = "T1w, first phase"
LATER = {"contrast": 0.7, "steps": 3600, "lr": 6e-4}
"""What is other in the second phase of T1w."""


def weights(name: str) -> Entrant:
    """The model of a sequence; that of T1w has learned from real scans alone before, and keeps as many of them as there are phantoms."""
    fit, validate = ([f"{name}, {use}", f"{name}, repainted, {use}"] for use in ("fit", "validate"))
    if name == "T1w":
        fit, validate = ["real, fit"] * 3 + fit, ["real, validate", "T1w, repainted, validate"]
    return Entrant(
        "itermask3d",
        {**LEARNED, **(LATER if name == "T1w" else {}), "gamma_mask": SLOPE[name], "gamma_score": SLOPE[name] / 5},
        fit=fit,
        validate=validate,
        preset=PRESETS[name],
        start=FIRST if name == "T1w" else None,
        half=True,
    )


def first() -> Entrant:
    """What the model of T1w begins with, at the best slope of its own: real scans alone. With others beside them from the beginning it finds less."""
    arguments = {**LEARNED, "gamma_mask": 0.3, "gamma_score": 0.06}
    return Entrant(
        "itermask3d", arguments, fit="real, fit", validate="real, validate", preset=PRESETS["T1w"], half=True
    )


def sloped(name: str) -> dict[str, float]:
    """The model of a sequence with the other slopes at which its masks could stop, by what it is called then."""
    return {f"{name}, slope of {gamma:g}": gamma for gamma in SLOPES if gamma != SLOPE[name]}


ARTEFACTS = (
    "gaussian_noise",
    "chunk_middle",
    "chunk_top",
    "spike",
    "bias_field",
    "ghosting",
    "zipper",
    "susceptibility",
)
CHANGES = {"hyper": 3.0, "hypo": 2.0}
"""SD of the brain that a real stroke's mask lies above, or below, the tissue of its place."""
SIZES_ML = {"2 ml": (1.5, 3.0), "10 ml": (8.0, 12.0), "40 ml": (30.0, 60.0)}
"""Volumes in MNI space; the real brains are smaller, and so are the lesions in them."""


def looked_at(name: str, sources: dict[str, str]) -> list[Case]:
    """What the model of a sequence looks at, by source: nothing done, random lesions, and artefacts put into the preprocessed scan."""
    found = []
    for source, scans in sources.items():
        facts = {"sequence": name, "scans": scans}
        untouched = Case(f"{scans}, untouched", source, anomalous=False, only=[MODELS[name]], facts=facts)
        found.append(untouched)
        for contrast in CHANGES:
            for ml in (2.0, 10.0, 40.0):
                found.append(
                    Case(
                        f"{scans}, {contrast} {ml:g} ml",
                        source,
                        lesion(kind="stroke", contrast=contrast, ml=ml),
                        against=untouched.name,
                        only=[MODELS[name]],
                        facts={**facts, "contrast": contrast, "size": f"{ml:g} ml"},
                    )
                )
        for what in ARTEFACTS:
            found.append(
                Case(
                    f"{scans}, {what}",
                    source,
                    artefact(what),
                    prepared=True,
                    against=untouched.name,
                    only=[MODELS[name]],
                    facts={**facts, "artefact": what},
                )
            )
    return found


def chosen_by(name: str) -> list[Case]:
    """Healthy scans that slopes are chosen by: nothing done, and a bright and a dark lesion."""
    only = [MODELS[name], *sloped(name), *([FIRST] if name == "T1w" else [])]
    found = []
    for source in ("real, choose" if name == "T1w" else f"{name}, repainted, choose", f"{name}, choose"):
        facts = {"sequence": name, "choice": "yes"}
        untouched = Case(f"To choose by: {source}, untouched", source, anomalous=False, only=only, facts=facts)
        planted = (
            Case(
                f"To choose by: {source}, {contrast}",
                source,
                lesion(kind="stroke", contrast=contrast, ml=10.0),
                against=untouched.name,
                only=only,
                facts={**facts, "contrast": contrast},
            )
            for contrast in CHANGES
        )
        found += [untouched, *planted]
    return found


CASES = [
    *looked_at("T1w", {"real, test": "Real T1w", "T1w, other": "Other scanners, T1w"}),
    *looked_at("T2w", {"T2w, other": "Other scanners, T2w"}),
    *looked_at("FLAIR", {"FLAIR, other": "Other scanners, FLAIR"}),
    *(
        Case(
            f"Real T1w, real shape, {contrast} {size}",
            "real, test",
            mask_of_mni("LESION_MASKS", ml, contrast, change),
            against="Real T1w, untouched",
            only=[MODELS["T1w"]],
            facts={"sequence": "T1w", "scans": "Real T1w", "shape": "real", "contrast": contrast, "size": size},
        )
        for contrast, change in CHANGES.items()
        for size, ml in SIZES_ML.items()
    ),
    *(case for name in SEQUENCES for case in chosen_by(name)),
    *(Case(f"MS, {name}", f"MS, {name}", only=[MODELS[name]], facts={"sequence": name, "scans": "MS"}) for name in SEQUENCES),
]  # fmt: skip
CHOICE = [case.name for case in CASES if "choice" in case.facts]
UNTOUCHED = [case.name for case in CASES if not case.anomalous and case.name not in CHOICE]
RANDOM = [case.name for case in CASES if "size" in case.facts and "shape" not in case.facts]
REAL_SHAPES = [case.name for case in CASES if "shape" in case.facts]

STUDY = Study(
    name="shipped_weights",
    title="The weights of the package on scans that they never saw",
    paper="Ours",
    entrants={
        **{MODELS[name]: weights(name) for name in SEQUENCES},
        FIRST: first(),
        **{
            said: Entrant("itermask3d", shares=MODELS[name], set={"gamma_mask": gamma, "gamma_score": gamma / 5})
            for name in SEQUENCES
            for said, gamma in sloped(name).items()
        },
    },
    sources={
        "real, fit": healthy_t1(0, SIXES),
        "real, validate": healthy_t1(1, SIXES),
        "real, choose": healthy_t1(2, SIXES),
        "real, test": healthy_t1(3, SIXES),
        **{
            f"{name}, {use}": phantoms(name, use, 12 if use == "other" else None)
            for name in SEQUENCES
            for use in ("fit", "validate", "choose", "other")
        },
        **{
            f"{name}, repainted, {use}": repainted(index, name, SIXES)
            for name in SEQUENCES
            for index, use in enumerate(("fit", "validate", "choose"))
        },
        **{
            f"MS, {name}": ms_patient(name)
            for name in SEQUENCES
        },
    },
    cases=CASES,
    measures=("overlap", "voxel", "oracle", "surface", "lesions"),
    seed=20261120,
    tables=[
        Table(
            "slopes",
            "Where masks stop: on healthy scans that were learned from by none, or for the best step alone",
            ("dice", "dice_best_scan_oracle", "mask_ml", "mask_ml_median"),
            rows=("sequence", "entrant"),
            across=(),
            cases=CHOICE,
        ),
        Table(
            "lesions",
            "Random lesions by scans, contrast and size",
            ("dice", "missed", "dice_best_scan_oracle", "voxel_auroc", "lesion_f1", "assd_mm", "mask_ml", "AUROC"),
            rows=("scans", "contrast", "size"),
            across=(),
            cases=RANDOM,
            note="Dice of the own mask is label-free. The oracles' thresholds were found with the very labels: upper bounds.",
        ),
        Table(
            "shapes",
            "Shapes of real strokes in real T1w",
            ("dice", "missed", "dice_best_scan_oracle", "voxel_auroc", "lesion_ml", "mask_ml"),
            rows=("contrast", "size"),
            across=(),
            cases=REAL_SHAPES,
        ),
        Table(
            "untouched",
            "Scans that nothing was done to: what is marked falsely",
            ("mask_ml", "mask_ml_median", "mask_ml_p95", "volume_ml", "mean_error", "r2"),
            rows=("scans",),
            across=(),
            cases=UNTOUCHED,
        ),
        *(
            Table(
                f"artefacts_{score}",
                f"Artefacts, by {said}",
                ("AUROC",),
                rows=("artefact",),
                across=("scans",),
                cases=[case.name for case in CASES if "artefact" in case.facts],
                score=score,
            )
            for score, said in (("volume_ml", "the mask's volume"), ("mean_error", "the mean error"))
        ),
        Table(
            "ms",
            "One MS patient, another scanner",
            ("dice", "dice_best_scan_oracle", "lesion_ml", "mask_ml"),
            rows=("sequence",),
            across=(),
            cases=[case.name for case in CASES if case.facts.get("scans") == "MS"],
        ),
    ],
    plots=[
        Plot("dice", "Dice of the own mask", "box", y="dice", x="scans", cases=RANDOM),
        Plot("size", "Dice of the own mask against the lesion's volume", "scatter", x="lesion_ml", y="dice", by="scans", cases=RANDOM),
    ],
)  # fmt: skip
