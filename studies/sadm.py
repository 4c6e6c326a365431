"""Combining reconstruction-based anomaly detection with supervised segmentation (SADM), Table 1; Table 4.6 of the thesis.

Data
    $IXI         T1w: to fit and to validate on
    $BRATS2021   T1w: tumours
    $ATLAS2      T1w: stroke
    $IXI_DRAEM   T1w of IXI's test part with synthetic anomalies as DRAEM-Net makes them (its Perlin noise, opacity 0.2 to 1), each
                 with its mask; made by whoever runs this

Split
    IXI: 358 subjects to fit on, 44 to validate on, the rest to test on. BraTS 2021 and ATLAS: 100 and 66 labelled scans
    to fit SADM on, the rest (1151 and 589) to test on. All drawn by our seed: the published lists of IXI have 7 to 9 of
    their test subjects among those to fit on. The paper prints means over five folds; this is one.

Command (not run here: no machine of ours has the data)
    anomri study run studies/sadm.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data ATLAS2=/data/ATLAS_2 --data IXI_DRAEM=/data/IXI_DRAEM

Expected
    `PRINTED`, in percent. "[DICE]", the best possible Dice, is expected of "dice_best_scan_oracle" (see cddpm.py). All
    reconstructions are scored by SSIM with sigma 1. The lines ", BRATS" and ", ATLAS" learn from annotated scans, which
    a study does not hand out: fit their two SADM apart and give each with `--model`. A "Unet" has the weights of its
    SADM, and leaves the reconstruction's map out. The thesis's Table 4.6 has the same Dice. Standard deviations over
    folds are left out.
"""

from __future__ import annotations

from anomri.study import Case, Entrant, Source, Study, Table
from anomri.study.papers import Models, expected, part
from anomri.study.papers.behrendt import ENSEMBLE, cleaned, ixi

METRICS = ("dice_best_scan_oracle", "voxel_auprc")
# Method and arguments of each line; of SADM's own: where its anomalies come from, whether it sees the residual, whether the
# reconstruction's map counts.
MODELS: Models = {
    "AE": ("ae", {"latent": 128, "score": "ssim"}),
    "VAE": ("vae", {"latent": 128, "beta": 0.001, "score": "ssim"}),
    "DAE": ("dae", {"score": "ssim"}),
    "FAE": ("fae", {}),
    "RD": ("rd", {}),
    "DDPM": ("anoddpm", {"t_test": ENSEMBLE, "score": "ssim"}),
    "pDDPM": ("pddpm", {"t_test": ENSEMBLE, "score": "ssim"}),
    "cDDPM": ("cddpm", {"t_test": ENSEMBLE, "pretrained": True, "score": "ssim"}),
    "PII": ("pii", {}),
    "DRAEM-Net": ("draem", {}),
    "Unet, DRAEM": ("sadm", {"anomalies": "draem", "residual": False, "reconstruct": False}),
    "Unet_res, DRAEM": ("sadm", {"anomalies": "draem", "residual": True, "reconstruct": False}),
    "SADM, DRAEM": ("sadm", {"anomalies": "draem", "residual": False, "reconstruct": True}),
    "SADM_res, DRAEM": ("sadm", {"anomalies": "draem", "residual": True, "reconstruct": True}),
    "Unet, BRATS": ("sadm", {"anomalies": "brats", "residual": False, "reconstruct": False}),
    "Unet_res, BRATS": ("sadm", {"anomalies": "brats", "residual": True, "reconstruct": False}),
    "SADM, BRATS": ("sadm", {"anomalies": "brats", "residual": False, "reconstruct": True}),
    "SADM_res, BRATS": ("sadm", {"anomalies": "brats", "residual": True, "reconstruct": True}),
    "Unet, ATLAS": ("sadm", {"anomalies": "atlas", "residual": False, "reconstruct": False}),
    "Unet_res, ATLAS": ("sadm", {"anomalies": "atlas", "residual": True, "reconstruct": False}),
    "SADM, ATLAS": ("sadm", {"anomalies": "atlas", "residual": False, "reconstruct": True}),
    "SADM_res, ATLAS": ("sadm", {"anomalies": "atlas", "residual": True, "reconstruct": True}),
}
SHARES = {line: line.replace("Unet", "SADM") for line in MODELS if line.startswith("Unet")}

PRINTED = {
    "BRATS (real)": {
        "AE": (39.16, 35.95),
        "VAE": (39.25, 36.07),
        "DAE": (55.93, 56.42),
        "FAE": (43.04, 42.04),
        "RD": (32.90, 28.31),
        "DDPM": (48.65, 46.93),
        "pDDPM": (55.93, 55.44),
        "cDDPM": (58.55, 59.09),
        "PII": (30.38, 24.66),
        "DRAEM-Net": (24.78, 18.49),
        "Unet, DRAEM": (40.75, 37.64),
        "Unet_res, DRAEM": (45.80, 44.05),
        "SADM, DRAEM": (50.81, 49.81),
        "SADM_res, DRAEM": (60.53, 60.27),
        "Unet, BRATS": (64.81, 69.24),
        "Unet_res, BRATS": (67.01, 71.80),
        "SADM, BRATS": (69.01, 72.62),
        "SADM_res, BRATS": (69.68, 73.34),
        "Unet, ATLAS": (35.13, 32.87),
        "Unet_res, ATLAS": (36.82, 34.91),
        "SADM, ATLAS": (58.52, 57.17),
        "SADM_res, ATLAS": (58.85, 57.68),
    },
    "ATLAS (real)": {
        "AE": (14.14, 11.84),
        "VAE": (14.52, 12.18),
        "DAE": (19.95, 18.18),
        "FAE": (17.59, 13.91),
        "RD": (19.45, 15.51),
        "DDPM": (17.86, 14.70),
        "pDDPM": (21.79, 19.12),
        "cDDPM": (24.74, 21.76),
        "PII": (9.81, 7.31),
        "DRAEM-Net": (12.65, 9.51),
        "Unet, DRAEM": (16.91, 15.25),
        "Unet_res, DRAEM": (18.44, 16.81),
        "SADM, DRAEM": (23.82, 20.71),
        "SADM_res, DRAEM": (27.78, 24.57),
        "Unet, BRATS": (11.82, 10.32),
        "Unet_res, BRATS": (17.33, 15.55),
        "SADM, BRATS": (25.25, 21.03),
        "SADM_res, BRATS": (26.77, 23.22),
        "Unet, ATLAS": (46.30, 46.37),
        "Unet_res, ATLAS": (47.36, 47.61),
        "SADM, ATLAS": (46.40, 44.71),
        "SADM_res, ATLAS": (47.64, 46.13),
    },
    "DRAEM (synthetic)": {
        "AE": (9.91, 5.27),
        "VAE": (9.83, 5.28),
        "DAE": (12.50, 7.50),
        "FAE": (19.60, 13.68),
        "RD": (19.55, 13.17),
        "DDPM": (10.37, 6.04),
        "pDDPM": (14.59, 9.27),
        "cDDPM": (11.94, 7.31),
        "PII": (23.44, 15.09),
        "DRAEM-Net": (79.77, 83.39),
        "Unet, DRAEM": (76.03, 80.30),
        "Unet_res, DRAEM": (77.43, 81.93),
        "SADM, DRAEM": (73.77, 71.85),
        "SADM_res, DRAEM": (76.72, 75.45),
        "Unet, BRATS": (24.83, 20.96),
        "Unet_res, BRATS": (19.93, 16.41),
        "SADM, BRATS": (14.93, 11.65),
        "SADM_res, BRATS": (17.11, 14.47),
        "Unet, ATLAS": (29.11, 24.55),
        "Unet_res, ATLAS": (22.07, 17.94),
        "SADM, ATLAS": (16.10, 12.81),
        "SADM_res, ATLAS": (17.77, 14.49),
    },
}

EXPECTED = expected(PRINTED, METRICS)


def entrant(model: str) -> Entrant:
    """A line's method; a U-Net is that of its SADM, without the reconstruction's map. Maps are cleaned of what learns no anomalies."""
    method, arguments = (MODELS if "sadm" in MODELS[model] else cleaned(MODELS, "median"))[model]
    if model in SHARES:
        return Entrant(method, shares=SHARES[model], set={"reconstruct": False}, calibrate="IXI, to validate")
    fit = None if model.endswith((", BRATS", ", ATLAS")) else "IXI, to fit"
    return Entrant(
        method, arguments, fit=fit, validate="IXI, to validate", calibrate="IXI, to validate", pipeline="behrendt"
    )


STUDY = Study(
    name="sadm",
    title="Supervised anomaly detection with diffusion models",
    paper="Behrendt et al., Combining reconstruction-based unsupervised anomaly detection with supervised segmentation, MIDL 2024, Table 1",
    entrants={model: entrant(model) for model in MODELS},
    sources={
        **{f"IXI, {use}": ixi("T1w", use) for use in ("to fit", "to validate")},
        "BRATS (real)": Source("brats2021", "T1w", part(1, 100)),
        "ATLAS (real)": Source("atlas2", "T1w", part(1, 66)),
        "DRAEM (synthetic)": Source(
            sequence="T1w",
            title="IXI with DRAEM's synthetic anomalies",
            variable="IXI_DRAEM",
            offered="made from IXI (https://brain-development.org/ixi-dataset/), as the study's docstring says",
            layout="BIDS, each scan with its lesion mask",
        ),
    },
    cases=[Case(data, data) for data in PRINTED],
    measures=("overlap", "oracle", "voxel"),
    tables=[
        Table(
            "table1",
            "Segmentation (SADM, Table 1; thesis, Table 4.6)",
            ("dice", *METRICS),
            expected=EXPECTED,
            reference="cDDPM",
        )
    ],
)
