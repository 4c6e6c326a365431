"""Lesions of the white matter: MSLUB (multiple sclerosis), the WMH challenge (vascular)."""

from __future__ import annotations

from anomri.cohorts.datasets.layout import DataSet, Layout

_mslub = Layout(
    example="patient01/patient01_FLAIR.nii.gz",
    pattern=r"(?P<id>patient\d{2})/(?:(?P=id)_)?(?P<kind>T1WKS|T1W|T2W|FLAIR|brainmask|consensus_gt)",
    kinds={
        "T1W": "T1w",
        "T2W": "T2w",
        "FLAIR": "FLAIR",
        "T1WKS": "T1ce",
        "brainmask": "brain",
        "consensus_gt": "lesion",
    },
)

MSLUB = DataSet(
    name="mslub",
    title="MSLUB",
    offered="https://lit.fe.uni-lj.si/en/research/resources/3D-MR-MS/ (free download)",
    licence="CC BY-NC-SA 4.0; an older release CC BY; read the terms of yours",
    sequences=_mslub.sequences,
    layout="patient01/patient01_FLAIR.nii.gz (and _T1W, _T1WKS, _T2W, _brainmask, _consensus_gt)\npatient01/raw/ (not read)",
    variable="MSLUB",
    quirks="Read are the images that were brought onto the FLAIR's grid, where the labels lie; those in raw/ lie on their own grids. "
    "T1WKS is T1w with contrast agent. Not stripped; a brain mask comes with it.",
    open=_mslub,
)

_wmh = Layout(
    example="Utrecht/0/pre/FLAIR.nii.gz",
    pattern=r"(?:(?P<part>training|test)/)?(?:Amsterdam/)?(?P<id>(?P<scanner>Utrecht|Singapore|GE3T|GE1T5|Philips_VU)) ?(?:\.PETMR_01\.?)?/(?P<id2>\d+)/(?P<kind>pre/FLAIR|pre/T1|wmh)",
    kinds={"pre/T1": "T1w", "pre/FLAIR": "FLAIR", "wmh": "lesion"},
    labels=(1,),
)

WMH = DataSet(
    name="wmh",
    title="WMH segmentation challenge",
    offered="https://doi.org/10.34894/AECRSD (free download)",
    licence="CC BY-NC 4.0",
    sequences=_wmh.sequences,
    layout="training/Utrecht/0/pre/FLAIR.nii.gz (and pre/T1.nii.gz, wmh.nii.gz)\ntraining/Singapore/50/...\n"
    "training/Amsterdam/GE3T/100/...\ntest/Amsterdam/GE1T5/..., test/Amsterdam/Philips_VU .PETMR_01./...",
    variable="WMH",
    quirks="Label 1 is white matter hyperintensity; label 2 is other pathology, which the challenge ignores and which is not lesion here. "
    "Read are the bias-corrected images (pre/), T1w brought onto the FLAIR's grid. Slices are 3 mm thick. Training has three scanners, test five.",
    open=_wmh,
)
