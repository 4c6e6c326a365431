"""The data sets of the papers, each read from the tree in which its owners publish it. Nothing is downloaded, nothing is moved."""

from __future__ import annotations

import re
from pathlib import Path

from anomri.cohorts.datasets.healthy import ADNI, ADNI_PLACE, IXI, OASIS3
from anomri.cohorts.datasets.layout import SEQUENCES, DataSet, Layout, images_below, place_of
from anomri.cohorts.datasets.stroke import ATLAS1, ATLAS2, ISLES2015
from anomri.cohorts.datasets.tumour import BRATS2019, BRATS2020, BRATS2021, BRATS2023
from anomri.cohorts.datasets.white_matter import MSLUB, WMH
from anomri.errors import unknown

__all__ = ["DATASETS", "SEQUENCES", "DataSet", "dataset", "looks_like", "subject_of"]

DATASETS = (IXI, OASIS3, ADNI, BRATS2019, BRATS2020, BRATS2021, BRATS2023, ISLES2015, ATLAS1, ATLAS2, MSLUB, WMH)
SUBJECTS = re.compile(
    r"sub-[A-Za-z0-9]+|IXI\d{3}|OAS3\d{4}|\d{3}_S_\d{4,5}|BraTS-[A-Z]+-\d{5}|BraTS2021_\d{5}|BraTS20_[A-Za-z]+_\d{3}"
    r"|BraTS19_[A-Za-z0-9]+_[A-Za-z0-9]+|patient\d{2}"
)
"""How ids begin that tell their subject."""


def dataset(name: str) -> DataSet:
    """The data set of that name; raises `BadCall` for an unknown one."""
    for one in DATASETS:
        if one.name == name:
            return one
    raise unknown("data set", name, [one.name for one in DATASETS])


def looks_like(root: Path) -> DataSet | None:
    """The data set whose files lie below a folder, if any."""
    places = [place_of(path) for path in images_below(root)]
    for one in DATASETS:
        sign = one.open.ended if isinstance(one.open, Layout) else ADNI_PLACE
        if any(sign.search(place) for place in places):
            return one
    return None


def subject_of(id: str) -> str:
    """Whose scan it is by its name, in BIDS or a data set's own naming, such as IXI002 of IXI002-Guys-0828-T1; else the name."""
    begun = SUBJECTS.match(id)
    return begun[0] if begun and not id[begun.end() :][:1].isalnum() else id
