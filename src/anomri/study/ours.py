"""What our own studies share: healthy scans of one scanner, phantoms of many, and a split of each that no study changes.

Of the real scans the last 12 are seen by no weights and by no choice.
"""

from __future__ import annotations

from collections.abc import Callable

from anomri.cohort import Cohort
from anomri.study.plan import Source

SPLIT = (34, 12, 12)
"""Real scans to fit on, to pick the best step and set thresholds on, and to look at."""
SPLIT_SEED = 20261120
MAPS = 20
"""Label maps that the phantoms are painted from, used in turn."""
PHANTOMS = {"fit": (0, 17), "validate": (17, 18), "choose": (18, 19), "other": (19, 20)}
"""Label maps, first and after the last, that phantoms of each use are painted from: to fit on, to pick the best step on, to choose
arguments by, to report on. No head is in two."""


def healthy_t1(index: int, sizes: tuple[int, ...] = SPLIT) -> Source:
    """Part `index` of 58 skull-stripped T1w of one scanner, OpenNeuro ds002748; the split depends on the subjects' ids alone."""
    return Source(
        title="OpenNeuro ds002748",
        variable="HEALTHY_T1",
        offered="https://openneuro.org/datasets/ds002748 (CC0)",
        layout="BIDS: sub-01/anat/sub-01_T1w.nii.gz",
        part=_part(index, sizes),
    )


def repainted(index: int, sequence: str, sizes: tuple[int, ...] = SPLIT) -> Source:
    """Part `index` of the same subjects as another sequence, or another scanner's T1w, would show them; the same split."""
    return Source(
        title="OpenNeuro ds002748, repainted",
        variable="REPAINTED",
        sequence=sequence,
        offered="made by 'anomri phantom --scans', as this study's docstring says",
        layout="BIDS: sub-01/anat/sub-01_T1w.nii.gz, _T2w, _FLAIR",
        part=_part(index, sizes),
    )


def phantoms(sequence: str, use: str, most: int | None = None) -> Source:
    """Phantoms of all ages and scanners, `anomri phantom --varied`, of one of the uses of `PHANTOMS`; no more than `most`."""
    first, after = PHANTOMS[use]

    def part(cohort: Cohort) -> Cohort:
        maps = [(int(name.removeprefix("sub-")) - 1) % MAPS for name in cohort.ids]
        return cohort.subset([i for i, number in enumerate(maps) if first <= number < after][:most])

    return Source(
        title="Phantoms of all ages and scanners",
        variable="VARIED",
        sequence=sequence,
        offered="made by 'anomri phantom --varied', as this study's docstring says",
        layout="BIDS: sub-001/anat/sub-001_T1w.nii.gz, _T2w, _FLAIR",
        part=part,
    )


def ms_patient(sequence: str) -> Source:
    """One sequence of one patient with multiple sclerosis, lesions drawn by hand: another scanner and another age than those above."""
    return Source(
        title="One MS patient of MSLUB",
        variable="MS_CASE",
        sequence=sequence,
        offered="https://lit.fe.uni-lj.si/en/research/resources/3D-MR-MS/ (CC-BY)",
        layout="a table with columns id, T1w, T2w, FLAIR, lesion",
    )


def _part(index: int, sizes: tuple[int, ...]) -> Callable[[Cohort], Cohort]:
    def part(cohort: Cohort) -> Cohort:
        return cohort.split(*sizes, seed=SPLIT_SEED)[index]

    return part
