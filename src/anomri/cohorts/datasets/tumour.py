"""Brain tumours: BraTS in the naming of 2019, 2020, 2021 and 2023. All are stripped, on one grid, and registered to SRI24."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from anomri.cohorts.datasets.layout import DataSet, Layout, tables

KINDS = {"t1": "T1w", "t2": "T2w", "flair": "FLAIR", "t1ce": "T1ce", "seg": "lesion"}
MISNAMED = "W39_1998.09.19_Segm"
"""The label of BraTS20_Training_355."""
LABELS = "Labels (necrosis, oedema, enhancing tumour) are merged to the whole tumour. Scans for validation come without labels."


def _grades(root: Path) -> Callable[[str, Mapping[str, str]], Mapping[str, str]]:
    """Grade, and the name in BraTS 2019, from name_mapping.csv."""
    rows = {row["BraTS_2020_subject_ID"]: row for row in tables(root, "BraTS_2020_subject_ID", "Grade")}

    def about(id: str, facts: Mapping[str, str]) -> Mapping[str, str]:
        row = rows.get(id, {})
        return {"grade": row.get("Grade", ""), "brats2019": row.get("BraTS_2019_subject_ID", "")} if rows else {}

    return about


_brats2019 = Layout(
    example="HGG/BraTS19_2013_10_1/BraTS19_2013_10_1_flair.nii.gz",
    pattern=r"(?:(?P<grade>HGG|LGG)/)?(?P<id>(?P<subject>BraTS19_(?P<site>[A-Za-z0-9]+)_[A-Za-z0-9]+)_\d+)/(?P=id)_(?P<kind>t1ce|t1|t2|flair|seg)",
    kinds=KINDS,
)
_brats2020 = Layout(
    example="BraTS20_Training_001/BraTS20_Training_001_flair.nii",
    pattern=r"(?P<id>BraTS20_(?P<part>Training|Validation)_\d{3})/(?:(?P=id)_)?(?P<kind>t1ce|t1|t2|flair|seg|W39_1998\.09\.19_Segm)",
    kinds={**KINDS, MISNAMED: "lesion"},
    about=_grades,
)
_brats2021 = Layout(
    example="BraTS2021_00000/BraTS2021_00000_flair.nii.gz",
    pattern=r"(?P<id>BraTS2021_\d{5})/(?P=id)_(?P<kind>t1ce|t1|t2|flair|seg)",
    kinds=KINDS,
)
_brats2023 = Layout(
    example="BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2f.nii.gz",
    pattern=r"(?P<id>(?P<subject>BraTS-(?P<tumour>GLI|MEN|MET|PED|SSA)-\d{5})-(?P<timepoint>\d{3}))/(?P=id)-(?P<kind>t1n|t1c|t2w|t2f|seg)",
    kinds={"t1n": "T1w", "t2w": "T2w", "t2f": "FLAIR", "t1c": "T1ce", "seg": "lesion"},
)

BRATS2019 = DataSet(
    name="brats2019",
    title="BraTS 2019",
    offered="https://www.med.upenn.edu/cbica/brats2019/data.html (registration)",
    licence="CC BY-SA 4.0 as far as stated; read its terms",
    sequences=_brats2019.sequences,
    layout=f"MICCAI_BraTS_2019_Data_Training/{_brats2019.example}\n(and _t1, _t1ce, _t2, _seg; LGG/ beside HGG/)",
    variable="BRATS2019",
    quirks=f"{LABELS} Most of its subjects are in BraTS 2020 and 2021 again, under other names.",
    open=_brats2019,
)
BRATS2020 = DataSet(
    name="brats2020",
    title="BraTS 2020",
    offered="https://www.med.upenn.edu/cbica/brats2020/data.html (registration)",
    licence="CC BY-SA 4.0 as far as stated; read its terms",
    sequences=_brats2020.sequences,
    layout=f"MICCAI_BraTS2020_TrainingData/{_brats2020.example}\n(and _t1, _t1ce, _t2, _seg)\nname_mapping.csv (grade, names in 2019)",
    variable="BRATS2020",
    quirks=f"The label of BraTS20_Training_355 is called {MISNAMED}.nii; it is taken as it is. {LABELS} "
    "Most of its subjects are in BraTS 2019 and 2021, under other names.",
    open=_brats2020,
)
BRATS2021 = DataSet(
    name="brats2021",
    title="BraTS 2021",
    offered="https://www.synapse.org/brats2021 (Synapse account, data use agreement); the training part also at TCIA, RSNA-ASNR-MICCAI-BraTS-2021",
    licence="CC BY 4.0 at TCIA",
    sequences=_brats2021.sequences,
    layout=f"TrainingData/{_brats2021.example}\n(and _t1, _t1ce, _t2, _seg)",
    variable="BRATS2021",
    quirks=f"{LABELS} It holds most of BraTS 2019 and 2020 under other names: do not train on one and test on the other.",
    open=_brats2021,
)
BRATS2023 = DataSet(
    name="brats2023",
    title="BraTS 2023",
    offered="https://www.synapse.org/brats2023 (Synapse account, data use agreement)",
    licence="CC BY 4.0 as far as stated; read its terms",
    sequences=_brats2023.sequences,
    layout=f"ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/{_brats2023.example}\n(and -t1n, -t1c, -t2w, -seg)",
    variable="BRATS2023",
    quirks=f"The first number is the subject, the second the time point: some subjects have several. {LABELS}",
    open=_brats2023,
)
