"""Every method on scans with artefacts and lesions of known truth, all trained alike; and what the shipped IterMask3D finds there.

Reproduces
    In the small, and on T1w instead of FLAIR: IterMask3D v2, Table 1 and 2 (artefacts), 4 (lesions), 6 and 7 (each scan's own
    threshold against a fixed one), and the order of methods in those tables, in IterMask2's Table 1 and in the thesis' Tables
    4.1 and 4.5. The papers' rows stand beside ours; they are of other scans (ADNI, FLAIR, 23 to 25 subjects).

Data
    $HEALTHY_T1     OpenNeuro ds002748 (58 skull-stripped T1w; CC0), BIDS: https://openneuro.org/datasets/ds002748

Split
    `Cohort.split(34, 12, 12, seed=20261120)`: the first 34 are learned from, the next 12 pick the best step and set the
    thresholds, the last 12 are looked at. The shipped weights saw the same 34 and 12.

Budget
    Each method that learns gets about 20 minutes of one core (its steps are those that took so long on an Intel Xeon
    with another such training beside it; IterMask2's two networks, and latent DDPM's, have ten minutes each), the same
    preprocessing to 2 mm, and a rate that falls to a fiftieth along a cosine. Widths are what a core bears, below the papers'. Arguments are the papers' else, and were
    fixed before any test scan was looked at. "IterMask3D" is the shipped model, which learned longer: 11,600 steps, two hours of a
    core; it is left out of the tables of methods.

Protocol
    Artefacts are put into the preprocessed scan, as the published run does; lesions and failed strips into the raw one. Each
    scan is its own control. Maps are cut at the value that 1 % of the brain voxels of the 12 validation scans exceed, where a
    method has no mask of its own. Scans are z-scored; SSIM's data range is the span of the scan's own brain.

Command (two cores, 2 mm: two hours to learn, an hour to look; a run that is stopped goes on)
    anomri study run studies/controlled.py --data HEALTHY_T1=ds002748/ --out controlled/ --jobs 2

Expected
    docs/comparison.md has the numbers of our run, docs/results.md those of the shipped weights.
"""

from anomri.methods.itermask3d import healthy_tau
from anomri.study import Case, Entrant, Plot, Study, Table
from anomri.study.changes import artefact, lesion
from anomri.study.ours import healthy_t1


def fixed(method, opened) -> None:
    """The threshold of IterMask2: the 80th percentile of the errors of other healthy scans under random masks."""
    method.tau = healthy_tau(method, opened("validate"))


def learned(method: str, **arguments) -> Entrant:
    """An entrant that is trained here."""
    return Entrant(method, arguments, fit="train", validate="validate", preset={"spacing": 2.0}, calibrate="validate")


def without_training(method: str, **arguments) -> Entrant:
    """An entrant without a network."""
    return Entrant(method, arguments, fit="train", preset={"spacing": 2.0}, calibrate="validate")


def variant(of: str, calibrate: str | None = "validate", **changed) -> Entrant:
    """An entrant with the weights of another, told to look or to score otherwise; one with a mask of its own needs no threshold."""
    return Entrant(METHODS[of].method, shares=of, set=changed, calibrate=calibrate)


FALL = {"lr": 1e-3, "final": 0.02}
DIFFUSION = {"size": "small", "batch": 16, "steps": 880, **FALL}
METHODS = {
    "IterMask3D, alike": learned(
        "itermask3d", width=8, dropout=0.0, flip=0.5, whole_brain=0.2, batch=2, steps=1560, **FALL
    ),
    "IterMask2": learned("itermask2", width=16, dropout=0.0, batch=16, steps=1020, **FALL),
    "AE, dense, 2D": learned("ae", batch=32, steps=6200, **FALL),
    "AE, spatial, 2D": learned("ae", dense=False, latent=16, batch=32, steps=7400, **FALL),
    "AE, IterMask3D's network, 3D": learned(
        "ae", dims=3, backbone="residual", width=8, dropout=0.0, batch=2, steps=3800, **FALL
    ),
    "VAE, 2D": learned("vae", batch=32, steps=5700, **FALL),
    "VAE, 3D": learned("vae", dims=3, width=16, batch=4, steps=1860, **FALL),
    "Spatial erasing, 3D": learned("spatial_erasing", width=16, batch=4, steps=1790, **FALL),
    "DAE, 2D": learned("dae", width=16, batch=16, steps=3400, lr=1e-3),
    "DAE, 3D": learned("dae", dims=3, width=8, batch=2, steps=1690, lr=1e-3),
    "DDPM, small, 2D": learned("ddpm", **DIFFUSION),
    "AnoDDPM, small, 2D": learned("anoddpm", **DIFFUSION),
    "pDDPM, small, 2D": learned("pddpm", **DIFFUSION),
    "cDDPM, small, 2D": learned("cddpm", augmented=False, **DIFFUSION),
    "AutoDDPM, small, 2D": learned("autoddpm", **DIFFUSION, sampler="ddim", ddim_steps=5, inpaint_steps=4, resamples=2),
    "Latent DDPM, small, 2D": learned(
        "latent_ddpm",
        factor=4,
        latent=4,
        autoencoder_width=32,
        autoencoder_steps=8000,
        t_every=10,
        inpaint_steps=50,
        **{**DIFFUSION, "steps": 2500},
    ),
    "Threshold, bright": without_training("threshold", sign="positive"),
    "Threshold, both sides": without_training("threshold", sign="both"),
    "Covariance model": without_training("covariance_model"),
}
SLOW = {
    "IterMask2, +thres": variant("IterMask2", calibrate=None, adaptive=True),
    "IterMask2, explored": variant("IterMask2", calibrate=None, explore=True),
    "AutoDDPM, small, 2D, healthy scale": variant("AutoDDPM, small, 2D", scale="healthy"),
    "AutoDDPM, small, 2D, share": variant("AutoDDPM, small, 2D", masking="share"),
}
"""Up to a hundred passes a scan, or a dozen more of a method that has them already: of what is changed, they look at lesions of 10 ml only."""
VARIANTS = {
    **SLOW,
    "IterMask2, -spat": variant("IterMask2", refine=False),
    "VAE, 2D, SSIM-ens": variant("VAE, 2D", score="ssim_ens"),
    "VAE, 3D, SSIM-ens": variant("VAE, 3D", score="ssim_ens"),
    "VAE, 2D, MHD": variant("VAE, 2D", score="mhd_diag", n=10),
    "VAE, 2D, MHD, full": variant("VAE, 2D", score="mhd_full", n=10),
    "VAE, 3D, MHD, full": variant("VAE, 3D", score="mhd_full", n=10),
    "DAE, 2D, SSIM-ens": variant("DAE, 2D", score="ssim_ens"),
    "DAE, 2D, cleaned": variant("DAE, 2D", cleaning="behrendt"),
    "cDDPM, small, 2D, ensemble": variant("cDDPM, small, 2D", t_test=(250, 500, 750)),
    "cDDPM, small, 2D, SSIM": variant("cDDPM, small, 2D", score="ssim"),
    "cDDPM, small, 2D, SSIM-ens": variant("cDDPM, small, 2D", score="ssim_ens"),
    "cDDPM, small, 2D, MHD": variant("cDDPM, small, 2D", score="mhd_diag", n=10),
    "cDDPM, small, 2D, MHD, full": variant("cDDPM, small, 2D", score="mhd_full", n=10),
}

SHIPPED = ("IterMask3D", "IterMask3D, fixed threshold")
QUICK = (*SHIPPED, *(name for name in {**METHODS, **VARIANTS} if name not in SLOW))

PREPARED = {
    "other_sequence": "Other sequence (T2-like)",
    "gaussian_noise": "Gaussian noise",
    "chunk_middle": "Chunk missing (middle)",
    "chunk_top": "Chunk missing (top)",
    "spike": "Spike noise",
    "bias_field": "Bias field",
    "ghosting": "Ghosting",
    "zipper": "Zipper",
    "susceptibility": "Susceptibility",
}
RAW = {"residual_tissue": "Failed skull strip"}
SIZES = {"2 ml": 2.0, "10 ml": 10.0, "40 ml": 40.0}
CONTRASTS = ("hyper", "hypo", "iso")

UNTOUCHED = Case("Untouched", "test", anomalous=False)
ARTEFACTS = [
    Case(
        title,
        "test",
        artefact(name),
        prepared=name in PREPARED,
        against="Untouched",
        facts={"artefact": name, "severity": 1.0},
        only=QUICK,
    )
    for name, title in {**PREPARED, **RAW}.items()
]
LESIONS = [
    Case(
        f"{contrast} {size}",
        "test",
        lesion(kind="stroke", contrast=contrast, ml=ml),
        against="Untouched",
        facts={"contrast": contrast, "size": size},
        only=("IterMask3D",) if size != "10 ml" else QUICK if contrast == "iso" else None,
    )
    for size, ml in SIZES.items()
    for contrast in CONTRASTS
]

V2 = {
    "Other sequence (T2-like)": (100.0, 100.0),
    "Gaussian noise": (100.0, 100.0),
    "Chunk missing (middle)": (95.5, 96.7),
    "Chunk missing (top)": (82.0, 87.5),
    "Spike noise": (97.2, 97.3),
    "Bias field": (96.2, 96.4),
    "Ghosting": (98.0, 99.0),
    "Zipper": (98.0, 98.1),
}
"""IterMask3D v2, Table 1: AUROC and AUPRC of IterMask3D, by the mask's volume."""
V2_REAL = {"Susceptibility": (99.7, 99.6), "Failed skull strip": (86.1, 87.5)}
V2_FIXED = {"Susceptibility": (89.3, 91.8), "Failed skull strip": (72.0, 76.6)}
"""IterMask3D v2, Table 7: each scan's own threshold, and a fixed one; by the mean error (section 5.2)."""


def printed(entrant: str, numbers: dict[str, tuple[float, float]]) -> dict[tuple[str, str, str], float]:
    """The paper's AUROC and AUPRC as a table's `expected`."""
    return {
        (f"{case}, {entrant}", "", metric): value
        for case, both in numbers.items()
        for metric, value in zip(("AUROC", "AUPRC"), both, strict=True)
    }


TEN = [case.name for case in LESIONS if case.facts["size"] == "10 ml"]
ALIKE = tuple(METHODS) + tuple(VARIANTS)
NAMES = [case.name for case in ARTEFACTS]
CASE = ("AUROC", "AUPRC", "FPR@TPR80", "FNR@FPR20")

STUDY = Study(
    name="controlled",
    title="Artefacts and lesions with a truth, in 12 unseen healthy T1w scans",
    paper="After IterMask3D v2 (Liang et al., 2025), Table 1, 2, 4, 6 and 7, on other data",
    entrants={
        "IterMask3D": Entrant("itermask3d", model="itermask3d-t1w-2mm"),
        "IterMask3D, fixed threshold": Entrant("itermask3d", shares="IterMask3D", then=fixed),
        **METHODS,
        **VARIANTS,
    },
    sources={
        "train": healthy_t1(0),
        "test": healthy_t1(2),
        "validate": healthy_t1(1),
    },
    cases=[UNTOUCHED, *ARTEFACTS, *LESIONS],
    measures=("overlap", "voxel", "oracle", "surface", "lesions", "healthy"),
    most=250,
    seed=20261120,
    tables=[
        Table(
            "artefacts",
            "Artefacts: scans with one against the same scans without",
            CASE,
            rows=("case", "entrant"),
            across=(),
            cases=NAMES,
            entrants=SHIPPED,
            expected=printed("IterMask3D", V2),
            note="The score is the volume of the mask at gamma 0.01. The paper's numbers are of FLAIR of other subjects, its other sequence "
            "is a real T2.",
        ),
        Table(
            "artefacts_mean_error",
            "Artefacts, by the mean error instead of the mask's volume",
            CASE,
            rows=("case", "entrant"),
            across=(),
            cases=NAMES,
            entrants=SHIPPED,
            score="mean_error",
            expected=printed("IterMask3D", V2_REAL) | printed("IterMask3D, fixed threshold", V2_FIXED),
            note="The mean error is what the paper scores every other method by, and all methods on real artefacts. Its susceptibility (T2) and "
            "failed strips (FLAIR) are real ones.",
        ),
        Table(
            "lesions",
            "Lesions by contrast and size",
            ("dice", "missed", "dice_best_scan_oracle", "dice_best_dataset_oracle", "voxel_auroc", "lesion_f1", "assd_mm", "AUROC"),
            rows=("contrast", "size"),
            across=(),
            cases=[case.name for case in LESIONS],
            entrants=("IterMask3D",),
            note="Dice of the own mask is label-free. The oracles' thresholds were found with the very labels: upper bounds.",
        ),
        Table(
            "threshold",
            "Each scan's own threshold against a fixed one",
            ("dice", "sensitivity", "precision", "AUROC"),
            cases=TEN,
            entrants=SHIPPED,
            reference="IterMask3D",
        ),
        Table(
            "healthy",
            "Scans that nothing was done to",
            ("mask_ml", "volume_ml", "mean_error", "r2", "psnr_db"),
            cases=["Untouched"],
            entrants=SHIPPED,
        ),
        Table(
            "methods",
            "All methods, alike: lesions of 10 ml",
            ("dice",),
            cases=["hyper 10 ml", "hypo 10 ml"],
            entrants=ALIKE,
            reference="IterMask3D, alike",
            note="Dice of the own mask is label-free: IterMask3D's and IterMask2's from each scan or slice, the others' from the validation "
            "scans. Tested against IterMask3D.",
        ),
        Table(
            "methods_oracles",
            "All methods, alike: what their maps could do if a threshold were known",
            ("dice", "dice_best_scan_oracle", "dice_best_dataset_oracle", "voxel_auroc"),
            cases=["hyper 10 ml", "hypo 10 ml"],
            entrants=ALIKE,
            note="The oracles' thresholds were found with the very labels: no results, so nothing is tested here.",
        ),
        Table(
            "methods_artefacts",
            "All methods, alike: scans with an artefact against the same scans without, by the mean error",
            ("AUROC",),
            cases=NAMES,
            entrants=ALIKE,
            score="mean_error",
        ),
        Table(
            "methods_iterations",
            "Which iteration a reader would have to pick",
            ("dice", "dice_best_iteration_oracle", "dice_best_scan_oracle"),
            cases=["hyper 10 ml", "hypo 10 ml"],
            entrants=("IterMask3D, alike", "IterMask2, explored"),
            note="IterMask2, section 3, \"Human-AI collaboration\": the iteration is picked with the labels, an upper bound.",
        ),
        Table(
            "methods_cost",
            "All methods: seconds of a scan, parameters, and what they mark of scans that nothing was done to",
            ("seconds_detect", "parameters_million", "mask_ml", "mean_error"),
            cases=["Untouched"],
            entrants=ALIKE,
        ),
    ],
    plots=[
        Plot("volume", "Volume of the mask at gamma 0.01", "box", y="score", cases=["Untouched", *NAMES], entrants=SHIPPED),
        Plot("roc", "Artefacts", "roc", cases=NAMES, entrants=SHIPPED),
        Plot("methods", "Dice of the own mask, all methods alike", "forest", y="dice", cases=["hyper 10 ml", "hypo 10 ml"], entrants=ALIKE),
        Plot("methods_oracle", "[DICE], all methods alike", "forest", y="dice_best_scan_oracle", cases=["hyper 10 ml", "hypo 10 ml"], entrants=ALIKE),
        Plot("dice", "Dice of the own mask", "box", y="dice", cases=[case.name for case in LESIONS], entrants=SHIPPED[:1]),
        Plot("size", "Dice of the own mask against the lesion's volume", "scatter", x="lesion_ml", y="dice", by="contrast", entrants=SHIPPED[:1]),
    ],
)  # fmt: skip
