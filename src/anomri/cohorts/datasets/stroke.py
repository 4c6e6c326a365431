"""Strokes: ISLES 2015 (SISS), ATLAS 1 and 2."""

from __future__ import annotations

from anomri.cohorts.datasets.layout import DataSet, Layout

_isles2015 = Layout(
    example="SISS2015_Training/1/VSD.Brain.XX.O.MR_Flair.70614/VSD.Brain.XX.O.MR_Flair.70614.nii",
    pattern=r"(?:SISS2015_(?P<id>Training|Testing)/)?(?P<id2>\d{1,2})/(?:[^/]+/)?VSD\.Brain(?:_3more)?\.XX\.(?:O|XX)\.(?P<kind>MR_Flair|MR_T1|MR_T2|MR_DWI|OT)\.\d+",
    kinds={"MR_T1": "T1w", "MR_T2": "T2w", "MR_Flair": "FLAIR", "MR_DWI": "DWI", "OT": "lesion"},
)

ISLES2015 = DataSet(
    name="isles2015",
    title="ISLES 2015 (SISS)",
    offered="https://www.isles-challenge.org/ISLES2015/ (SMIR account)",
    licence="open data of the challenge; read its terms",
    sequences=_isles2015.sequences,
    layout=f"{_isles2015.example}\n(and MR_T1, MR_T2, MR_DWI, OT: the lesion)",
    variable="ISLES2015",
    quirks="Folders of training and testing have the same numbers: keep the names of the folders above them. Labels of "
    "testing were not published. Stripped, on the FLAIR's grid at 1 mm. The other task of 2015 (SPES) is not read.",
    open=_isles2015,
)

_atlas1 = Layout(
    example="Site1/031768/t01/031768_t1w_deface_stx.nii.gz",
    pattern=r"(?:(?P<site>Site\d+)/)?(?P<id>(?P<subject>\d{6}))/(?P<id2>t\d{2})/(?P=id)_(?P<kind>t1w|LesionSmooth)(?:_deface|_\d+)?_stx",
    kinds={"t1w": "T1w", "LesionSmooth": "lesion"},
)

ATLAS1 = DataSet(
    name="atlas1",
    title="ATLAS R1.1 and R1.2",
    offered="https://fcon_1000.projects.nitrc.org/indi/retro/atlas.html (data use agreement)",
    licence="ATLAS data use agreement",
    sequences=_atlas1.sequences,
    layout=f"ATLAS_R1.1/{_atlas1.example}\nATLAS_R1.1/Site1/031768/t01/031768_LesionSmooth_stx.nii.gz (and _LesionSmooth_1_stx, ...)",
    variable="ATLAS1",
    quirks="A scan may have several lesion masks, one a lesion; they are merged. A few subjects have two sessions. "
    "Read is the part in standard space (_stx). Most of its subjects are in ATLAS 2, under other names.",
    open=_atlas1,
)

_atlas2 = Layout(
    example="sub-r001s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz",
    pattern=r"(?:(?P<part>Training|Testing)/(?:[^/]+/){4})?(?P<id>(?P<subject>sub-(?P<site>r\d{3})s\d{3}))_(?P<id2>ses-\d+)_space-MNI152NLin2009aSym_(?P<kind>T1w|label-[LR]_desc-T1lesion_mask)",
    kinds={"T1w": "T1w", "label-L_desc-T1lesion_mask": "lesion", "label-R_desc-T1lesion_mask": "lesion"},
)

ATLAS2 = DataSet(
    name="atlas2",
    title="ATLAS R2.0",
    offered="https://fcon_1000.projects.nitrc.org/indi/retro/atlas.html (data use agreement, password)",
    licence="ATLAS data use agreement",
    sequences=_atlas2.sequences,
    layout="ATLAS_2/Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz\n"
    "ATLAS_2/Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym_label-L_desc-T1lesion_mask.nii.gz",
    variable="ATLAS2",
    quirks="In standard space, not stripped. Labels of the Testing part were not published. "
    "It holds most of ATLAS 1 under other names.",
    open=_atlas2,
)
