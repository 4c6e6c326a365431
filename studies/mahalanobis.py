"""Leveraging the Mahalanobis distance, Table 1.

Data
    $IXI, $BRATS2021, $MSLUB, $ATLAS2, $WMH   as in cddpm.py

Split
    As in cddpm.py.

Command (not run here: no machine of ours has the data)
    anomri study run studies/mahalanobis.py --out OUT --data IXI=/data/IXI --data BRATS2021=/data/BraTS2021 \\
        --data MSLUB=/data/MSLUB --data ATLAS2=/data/ATLAS_2 --data WMH=/data/WMH

Expected
    `PRINTED`, in percent. "[DICE]", the best possible Dice, is expected of "dice_best_scan_oracle" (see cddpm.py). Maps
    are not cleaned in this paper; the thesis's Table 4.5 cleans them (anomaly_scores.py). S_mean is SSIM of the mean of
    ten reconstructions, S_MHD times the Mahalanobis distance with a diagonal covariance, S_sMHD with a full one (the
    table's caption calls the two as one); all three are scores of the line "cDDPM", by its weights. Standard deviations
    over folds are left out.
"""

from __future__ import annotations

from anomri.study import Study, Table
from anomri.study.papers import Models, expected
from anomri.study.papers.behrendt import LABELLED, MAHALANOBIS, ixi_to_fit, labelled, thesis_cases, thesis_entrants

METRICS = ("dice_best_scan_oracle", "voxel_auprc")
# Method and arguments of each line.
MODELS: Models = {
    "CM": ("covariance_model", {}),
    "AE": ("ae", {"latent": 128, "score": "ssim"}),
    "VAE": ("vae", {"latent": 128, "beta": 0.001, "score": "ssim"}),
    "FAE": ("fae", {}),
    "RD": ("rd", {}),
    "DAE": ("dae", {"score": "ssim"}),
    "DRAEM": ("draem", {}),
    "PII": ("pii", {}),
    "DDPM": ("anoddpm", {"t_test": 500, "score": "ssim"}),
    "pDDPM": ("pddpm", {"t_test": 500, "score": "ssim"}),
    "cDDPM": ("cddpm", {**MAHALANOBIS, "score": "ssim"}),
    "cDDPM S_mean": ("cddpm", {**MAHALANOBIS, "n": 10, "score": "ssim"}),
    "cDDPM S_MHD": ("cddpm", {**MAHALANOBIS, "n": 10, "score": "mhd_diag"}),
    "cDDPM S_sMHD": ("cddpm", {**MAHALANOBIS, "n": 10, "score": "mhd_full"}),
}
SHARES = {"cDDPM S_mean": "cDDPM", "cDDPM S_MHD": "cDDPM", "cDDPM S_sMHD": "cDDPM"}

PRINTED = {
    "BraTS21 (T2)": {
        "CM": (20.47, 14.03),
        "AE": (36.69, 33.58),
        "VAE": (36.04, 32.84),
        "FAE": (44.60, 43.75),
        "RD": (32.57, 27.13),
        "DAE": (62.93, 64.76),
        "DRAEM": (32.75, 26.38),
        "PII": (40.83, 36.49),
        "DDPM": (49.46, 47.57),
        "pDDPM": (54.26, 53.39),
        "cDDPM": (54.39, 54.31),
        "cDDPM S_mean": (58.53, 59.14),
        "cDDPM S_MHD": (58.47, 61.28),
        "cDDPM S_sMHD": (64.72, 68.55),
    },
    "MSLUB (T2)": {
        "CM": (5.24, 2.59),
        "AE": (6.22, 3.55),
        "VAE": (6.33, 3.67),
        "FAE": (6.85, 4.02),
        "RD": (6.48, 3.66),
        "DAE": (8.35, 5.64),
        "DRAEM": (5.78, 2.66),
        "PII": (9.46, 5.21),
        "DDPM": (9.97, 6.03),
        "pDDPM": (10.37, 6.40),
        "cDDPM": (11.58, 7.76),
        "cDDPM S_mean": (11.75, 7.75),
        "cDDPM S_MHD": (12.25, 7.99),
        "cDDPM S_sMHD": (15.44, 11.47),
    },
    "ATLAS (T1)": {
        "CM": (12.52, 9.31),
        "AE": (14.03, 11.68),
        "VAE": (14.48, 12.09),
        "FAE": (17.76, 13.97),
        "RD": (19.69, 15.65),
        "DAE": (19.42, 17.73),
        "DRAEM": (12.80, 9.63),
        "PII": (9.73, 7.26),
        "DDPM": (15.09, 11.85),
        "pDDPM": (18.83, 15.92),
        "cDDPM": (19.85, 16.99),
        "cDDPM S_mean": (21.06, 18.17),
        "cDDPM S_MHD": (20.34, 17.51),
        "cDDPM S_sMHD": (26.67, 24.61),
    },
    "WMH (T1)": {
        "CM": (5.59, 2.70),
        "AE": (9.44, 5.60),
        "VAE": (9.52, 5.71),
        "FAE": (8.81, 4.97),
        "RD": (7.48, 4.22),
        "DAE": (11.14, 7.92),
        "DRAEM": (6.25, 3.23),
        "PII": (6.59, 3.49),
        "DDPM": (13.91, 9.15),
        "pDDPM": (15.31, 10.70),
        "cDDPM": (16.03, 12.15),
        "cDDPM S_mean": (17.09, 13.15),
        "cDDPM S_MHD": (16.82, 13.34),
        "cDDPM S_sMHD": (16.65, 13.77),
    },
}

EXPECTED = expected(PRINTED, METRICS)


STUDY = Study(
    name="mahalanobis",
    title="The Mahalanobis distance as the score",
    paper="Behrendt et al., Leveraging the Mahalanobis distance, MICCAI 2024, Table 1",
    entrants=thesis_entrants(MODELS, SHARES, cleaning="none"),
    sources={**ixi_to_fit(), **labelled(LABELLED, "test")},
    cases=thesis_cases(MODELS),
    measures=("overlap", "oracle", "voxel"),
    tables=[
        Table(
            "table1",
            "Segmentation (Mahalanobis, Table 1)",
            ("dice", *METRICS),
            rows=("model",),
            across=("data",),
            expected=EXPECTED,
        )
    ],
)
