"""cDDPM, Table 1 and Table 4 of its supplement; Tables 4.2 and 4.3 of the thesis: how well healthy tissue is given back.

Data
    $IXI, $BRATS2021, $MSLUB, $ATLAS2, $WMH   as in cddpm.py; of IXI the test part, too

Split
    As in cddpm.py.

Command (not run here: no machine of ours has the data)
    anomri study run studies/cddpm_reconstruction.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    `SIMILARITY` (SSIM in percent, PSNR in dB), `ERROR` (L1 of healthy tissue; printed in thousandths) and `RATIO` (L1
    of lesions over L1 of healthy tissue). LPIPS is left out: it needs an encoder that the tool does not ship. The
    papers scale intensities to [0, 1] by percentiles. Standard deviations over folds are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from anomri.study import Case, Entrant, Study, Table
from anomri.study.papers import Models, Printed, expected
from anomri.study.papers.behrendt import ENSEMBLE, LABELLED, ixi, ixi_to_fit, labelled

# Data sets, the healthy ones first, and their sequences.
IXI = {"IXI (T2)": "T2w", "IXI (T1)": "T1w"}
DATA = {**IXI, **{data: sequence for data, (_, sequence, _) in LABELLED.items()}}
# Method and arguments of each line.
MODELS: Models = {
    "VAE": ("vae", {"beta": 0.001}),
    "SVAE": ("svae", {"beta": 0.001}),
    "AE": ("ae", {}),
    "RA": ("ra", {}),
    "PHANES": ("phanes", {}),
    "DAE": ("dae", {}),
    "DDPM": ("anoddpm", {"t_test": ENSEMBLE}),
    "pDDPM": ("pddpm", {"t_test": ENSEMBLE}),
    "cDDPM": ("cddpm", {"t_test": ENSEMBLE, "pretrained": True}),
}

SIMILARITY = {
    "IXI (T2)": {
        "VAE": (74.98, 23.38),
        "SVAE": (77.87, 23.94),
        "AE": (76.11, 23.41),
        "RA": (75.46, 23.92),
        "PHANES": (69.04, 21.39),
        "DAE": (98.69, 36.69),
        "DDPM": (93.96, 31.79),
        "pDDPM": (96.62, 34.58),
        "cDDPM": (96.80, 34.87),
    },
}

ERROR = {
    "IXI (T2)": {
        "VAE": (0.03232,),
        "SVAE": (0.02908,),
        "AE": (0.03167,),
        "RA": (0.03436,),
        "PHANES": (0.0387,),
        "DAE": (0.00814,),
        "DDPM": (0.01429,),
        "pDDPM": (0.0097,),
        "cDDPM": (0.00968,),
    },
    "BraTS21 (T2)": {
        "VAE": (0.03152,),
        "SVAE": (0.02833,),
        "AE": (0.03095,),
        "RA": (0.03409,),
        "PHANES": (0.03519,),
        "DAE": (0.01152,),
        "DDPM": (0.01801,),
        "pDDPM": (0.01214,),
        "cDDPM": (0.01226,),
    },
    "MSLUB (T2)": {
        "VAE": (0.03678,),
        "SVAE": (0.03321,),
        "AE": (0.03577,),
        "RA": (0.03789,),
        "PHANES": (0.04164,),
        "DAE": (0.01074,),
        "DDPM": (0.01654,),
        "pDDPM": (0.01152,),
        "cDDPM": (0.01154,),
    },
    "IXI (T1)": {
        "VAE": (0.03947,),
        "SVAE": (0.03965,),
        "AE": (0.03904,),
        "RA": (0.04066,),
        "PHANES": (0.04403,),
        "DAE": (0.00984,),
        "DDPM": (0.01603,),
        "pDDPM": (0.01121,),
        "cDDPM": (0.01136,),
    },
    "ATLAS (T1)": {
        "VAE": (0.04912,),
        "SVAE": (0.05151,),
        "AE": (0.04818,),
        "RA": (0.04825,),
        "PHANES": (0.05514,),
        "DAE": (0.01572,),
        "DDPM": (0.0234,),
        "pDDPM": (0.01903,),
        "cDDPM": (0.01683,),
    },
    "WMH (T1)": {
        "VAE": (0.05122,),
        "SVAE": (0.05446,),
        "AE": (0.05008,),
        "RA": (0.04921,),
        "PHANES": (0.05831,),
        "DAE": (0.01492,),
        "DDPM": (0.02378,),
        "pDDPM": (0.01916,),
        "cDDPM": (0.01686,),
    },
}

RATIO = {
    "BraTS21 (T2)": {
        "VAE": (3.52,),
        "SVAE": (3.90,),
        "AE": (3.84,),
        "RA": (3.10,),
        "PHANES": (3.54,),
        "DAE": (7.17,),
        "DDPM": (6.16,),
        "pDDPM": (7.16,),
        "cDDPM": (7.43,),
    },
    "MSLUB (T2)": {
        "VAE": (2.92,),
        "SVAE": (3.13,),
        "AE": (3.26,),
        "RA": (2.56,),
        "PHANES": (2.73,),
        "DAE": (2.69,),
        "DDPM": (3.37,),
        "pDDPM": (4.34,),
        "cDDPM": (4.49,),
    },
    "ATLAS (T1)": {
        "VAE": (4.43,),
        "SVAE": (3.38,),
        "AE": (4.40,),
        "RA": (3.93,),
        "PHANES": (4.01,),
        "DAE": (4.51,),
        "DDPM": (5.00,),
        "pDDPM": (5.58,),
        "cDDPM": (5.69,),
    },
    "WMH (T1)": {
        "VAE": (2.36,),
        "SVAE": (2.07,),
        "AE": (2.36,),
        "RA": (2.42,),
        "PHANES": (2.20,),
        "DAE": (2.99,),
        "DDPM": (3.16,),
        "pDDPM": (3.00,),
        "cDDPM": (3.12,),
    },
}


CASES = [
    Case(
        f"{data}: {model}",
        f"{data}, test",
        anomalous=data not in IXI,
        facts={"data": data, "model": model},
        only=[f"{model}, {sequence}"],
    )
    for data, sequence in DATA.items()
    for model in MODELS
]


def table(name: str, title: str, metrics: Sequence[str], printed: Printed) -> Table:
    """A table of the data sets that numbers are printed of."""
    cases = [case.name for case in CASES if case.facts["data"] in printed]
    numbers = expected(printed, metrics)
    return Table(name, title, metrics, rows=("model",), across=("data",), cases=cases, expected=numbers)


STUDY = Study(
    name="cddpm-reconstruction",
    title="Reconstruction of healthy tissue",
    paper="Behrendt et al., Guided reconstruction with conditioned diffusion models, 2025, Table 1 and Table 4 (supplement)",
    entrants={
        f"{model}, {sequence}": Entrant(
            method,
            arguments,
            fit=f"IXI {sequence}, to fit",
            validate=f"IXI {sequence}, to validate",
            pipeline="behrendt",
        )
        for model, (method, arguments) in MODELS.items()
        for sequence in ("T1w", "T2w")
    },
    sources={
        **ixi_to_fit(),
        **{f"{data}, test": ixi(sequence, "test") for data, sequence in IXI.items()},
        **labelled(LABELLED, "test"),
    },
    cases=CASES,
    measures=("healthy",),
    tables=[
        table("similarity", "Healthy scans (cDDPM, Table 1; thesis, Table 4.2)", ("ssim", "psnr_db"), SIMILARITY),
        table("error", "L1 of healthy tissue (cDDPM, supplement, Table 4)", ("l1",), ERROR),
        table("ratio", "L1 ratio (cDDPM, Table 1; thesis, Table 4.3)", ("l1_ratio",), RATIO),
    ],
)
