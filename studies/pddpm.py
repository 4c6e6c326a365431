"""Patched diffusion models (pDDPM), Table 1.

Data
    $IXI         T2w: to fit, to validate and to test on
    $BRATS2021   T2w: tumours
    $MSLUB       T2w: multiple sclerosis

Split
    IXI's T2w come with a skull: ROBEX takes it off (`pip install 'anomri[strip]'`), the papers used HD-BET. IXI: 358
    subjects to fit on, 44 to validate on, the rest to test on. BraTS 2021 and MSLUB: 100 and 10 labelled scans to
    validate on, the rest to test on. All drawn by our seed: the published lists of IXI have 7 to 9 of their test
    subjects among those to fit on. The paper prints means over five folds; this is one.

Command (not run here: no machine of ours has the data)
    anomri study run studies/pddpm.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB

Expected
    `PRINTED`, in percent, and `ERROR`: L1 of healthy scans, printed in thousandths. DICE is at the threshold that is
    best for labelled validation scans, "dice_labelled_validation"; "dice" is at one from healthy scans. Standard
    deviations over folds are left out.
"""

from __future__ import annotations

from anomri.study import Case, Entrant, Study, Table
from anomri.study.papers import Models, expected
from anomri.study.papers.behrendt import cleaned, ixi, labelled

METRICS = ("dice_labelled_validation", "voxel_auprc")
# Data set, sequence, and how many labelled scans it has to validate on.
DATA = {"BraTS21": ("brats2021", "T2w", 100), "MSLUB": ("mslub", "T2w", 10)}
# The network and the rate of this paper; the later ones have others.
PAPER = {"size": "pddpm", "lr": 1e-5}
# Method and arguments of each line.
MODELS: Models = {
    "Thresh": ("threshold", {}),
    "AE": ("ae", {}),
    "VAE": ("vae", {"beta": 0.001}),
    "SVAE": ("svae", {"beta": 0.001}),
    "DAE": ("dae", {}),
    "f-AnoGAN": ("fanogan", {"latent": 128, "lr": 1e-4}),
    "DDPM": ("anoddpm", {"t_test": 500, **PAPER}),
    "pDDPM + random sampling + L_rec": ("pddpm", {"patch": 48, "sampling": "random", "objective": "image", **PAPER}),
    "pDDPM + fixed sampling + L_rec": ("pddpm", {"patch": 48, "sampling": "fixed", "objective": "image", **PAPER}),
    "pDDPM + fixed sampling + L_p": ("pddpm", {"patch": 48, "sampling": "fixed", "objective": "patch", **PAPER}),
}

PRINTED = {
    "BraTS21": {
        "Thresh": (19.69, 20.27),
        "AE": (32.87, 31.07),
        "VAE": (31.11, 28.80),
        "SVAE": (33.32, 33.14),
        "DAE": (37.05, 44.99),
        "f-AnoGAN": (24.16, 22.05),
        "DDPM": (40.67, 49.78),
        "pDDPM + random sampling + L_rec": (44.47, 48.84),
        "pDDPM + fixed sampling + L_rec": (47.81, 52.38),
        "pDDPM + fixed sampling + L_p": (49.00, 54.07),
    },
    "MSLUB": {
        "Thresh": (6.21, 4.23),
        "AE": (7.10, 5.58),
        "VAE": (6.89, 5.00),
        "SVAE": (5.76, 5.04),
        "DAE": (3.56, 5.35),
        "f-AnoGAN": (4.18, 4.01),
        "DDPM": (6.42, 7.44),
        "pDDPM + random sampling + L_rec": (9.41, 9.13),
        "pDDPM + fixed sampling + L_rec": (10.47, 10.58),
        "pDDPM + fixed sampling + L_p": (10.35, 9.79),
    },
}

ERROR = {
    ("Thresh", "IXI", "l1"): 0.14512,
    ("AE", "IXI", "l1"): 0.03055,
    ("VAE", "IXI", "l1"): 0.03128,
    ("SVAE", "IXI", "l1"): 0.02808,
    ("DAE", "IXI", "l1"): 0.01012,
    ("f-AnoGAN", "IXI", "l1"): 0.0453,
    ("DDPM", "IXI", "l1"): 0.01346,
    ("pDDPM + random sampling + L_rec", "IXI", "l1"): 0.01408,
    ("pDDPM + fixed sampling + L_rec", "IXI", "l1"): 0.01212,
    ("pDDPM + fixed sampling + L_p", "IXI", "l1"): 0.01105,
}
EXPECTED = expected(PRINTED, METRICS)


STUDY = Study(
    name="pddpm",
    title="Patched diffusion models",
    paper="Behrendt et al., Patched diffusion models, MIDL 2023, Table 1",
    entrants={
        model: Entrant(
            method,
            arguments,
            fit="IXI, to fit",
            validate="IXI, to validate",
            calibrate="IXI, to validate",
            pipeline="behrendt",
        )
        for model, (method, arguments) in cleaned(MODELS).items()
    },
    sources={
        **{f"IXI, {use}": ixi("T2w", use) for use in ("to fit", "to validate", "test")},
        **labelled(DATA, "validation", "test"),
    },
    cases=[
        Case("IXI", "IXI, test", anomalous=False),
        *(Case(f"{data}, validation", f"{data}, validation") for data in DATA),
        *(Case(data, f"{data}, test", threshold_from=f"{data}, validation") for data in DATA),
    ],
    measures=("overlap", "oracle", "voxel", "healthy"),
    tables=[
        Table("table1", "Segmentation (pDDPM, Table 1)", ("dice", *METRICS), cases=list(DATA), expected=EXPECTED),
        Table("error", "L1 of healthy scans (pDDPM, Table 1)", ("l1",), cases=["IXI"], expected=ERROR),
    ],
)
