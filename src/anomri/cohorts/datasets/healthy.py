"""Data sets that healthy scans are taken from: IXI, OASIS-3, ADNI."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from anomri.cohort import Cohort, Entry
from anomri.cohorts.datasets.layout import DataSet, Layout, Rows, found, images_below, place_of, tables
from anomri.errors import BadCall

About = Callable[[str, Mapping[str, str]], Mapping[str, str]]

# --- IXI -------------------------------------------------------------------------------------------------------------

IXI_SCANNERS = {"HH": "Philips 3T", "Guys": "Philips 1.5T", "IOP": "GE 1.5T"}


def _ixi_about(root: Path) -> About:
    """Scanner; age and sex from IXI.csv. A subject with two rows that differ has neither."""
    people: dict[str, list[dict[str, str]]] = {}
    for row in tables(root, "IXI_ID", "AGE"):
        number = _number(row["IXI_ID"])
        if number is not None:
            people.setdefault(f"IXI{int(number):03d}", []).append(row)
    sex = {"1": "M", "2": "F"}

    def one(rows: list[dict[str, str]], column: str) -> str:
        said = {row.get(column, "") for row in rows} - {"", "0"}
        return said.pop() if len(said) == 1 else ""

    def about(id: str, facts: Mapping[str, str]) -> Mapping[str, str]:
        rows = people.get(facts["subject"], [])
        known = {"age": one(rows, "AGE"), "sex": sex.get(one(rows, "SEX_ID (1=m, 2=f)"), "")}
        return {"scanner": IXI_SCANNERS[facts["site"]], **(known if people else {})}

    return about


_ixi = Layout(
    example="IXI002-Guys-0828-T1.nii.gz",
    pattern=r"(?P<id>(?P<subject>IXI\d{3})-(?P<site>Guys|HH|IOP)-\d{4})-(?P<kind>T1|T2|PD)",
    kinds={"T1": "T1w", "T2": "T2w", "PD": "PDw"},
    about=_ixi_about,
)

IXI = DataSet(
    name="ixi",
    title="IXI",
    offered="https://brain-development.org/ixi-dataset/ (free download)",
    licence="CC BY-SA 3.0",
    sequences=_ixi.sequences,
    layout="IXI-T1/IXI002-Guys-0828-T1.nii.gz\nIXI-T2/IXI002-Guys-0828-T2.nii.gz\nIXI-PD/IXI002-Guys-0828-PD.nii.gz\nIXI.csv (IXI.xls, saved as CSV: ages)",
    variable="IXI",
    quirks="T1w lies on another grid than T2w and PDw: resample before they become channels of one scan. The table has several rows for "
    "some subjects; where they differ, age and sex are left empty. Some scans have no row.",
    open=_ixi,
)

# --- OASIS-3 ---------------------------------------------------------------------------------------------------------


def _oasis_about(root: Path) -> About:
    """CDR and age of the clinical visit nearest to the scan, and the highest CDR of all the subject's visits."""
    visits: dict[str, list[tuple[int, float, float | None]]] = {}
    for row in tables(root, "OASISID", "days_to_visit", "CDRTOT"):
        day, cdr = _number(row["days_to_visit"]), _number(row["CDRTOT"])
        if day is not None and cdr is not None:
            visits.setdefault(row["OASISID"], []).append((int(day), cdr, _number(row.get("age at visit", ""))))

    def about(id: str, facts: Mapping[str, str]) -> Mapping[str, str]:
        own, day = visits.get(facts["subject"], []), int(facts["day"])
        if not own:
            return {"cdr": "", "cdr_highest": "", "age": ""} if visits else {}
        at, cdr, age = min(own, key=lambda visit: (abs(visit[0] - day), visit[0]))
        then = "" if age is None else f"{age + (day - at) / 365.25:.1f}"
        return {"cdr": f"{cdr:g}", "cdr_highest": f"{max(v[1] for v in own):g}", "age": then}

    return about


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


_oasis = Layout(
    example="sub-OAS30001_ses-d0129_run-01_T1w.nii.gz",
    pattern=r"sub-(?P<id>(?P<subject>OAS3\d{4}))_sess?-(?P<id2>d(?P<day>\d{4}))(?:_(?:acq|run|echo)-[A-Za-z0-9]+)*_(?P<kind>T1w|T2w|FLAIR)",
    kinds={"T1w": "T1w", "T2w": "T2w", "FLAIR": "FLAIR"},
    earliest=True,
    about=_oasis_about,
)

OASIS3 = DataSet(
    name="oasis3",
    title="OASIS-3",
    offered="https://sites.wustl.edu/oasisbrains/ (application, data use agreement)",
    licence="OASIS data use agreement",
    sequences=_oasis.sequences,
    layout="OAS30001_MR_d0129/anat2/sub-OAS30001_ses-d0129_run-01_T1w.nii.gz (as its scripts download it; or as BIDS)\n"
    "OASIS3_UDSb4_cdr.csv (clinical visits: CDR and age)",
    variable="OASIS3",
    quirks="A subject has several sessions, a session several runs of one sequence: a scan is a session, with the first run by name. "
    "Clinical visits and scans are on different days: cdr is that of the nearest visit, and only cdr_highest 0 means never impaired.",
    open=_oasis,
)

# --- ADNI ------------------------------------------------------------------------------------------------------------

ADNI_PLACE = re.compile(
    r"(?:^|/)(?P<subject>\d{3}_S_\d{4,5})/(?P<series>[^/]+)/(?P<date>\d{4}-\d{2}-\d{2})[^/]*/(?P<image>[IS]\d+)/(?P<name>[^/]+)$"
)
ADNI_SERIES = {
    "FLAIR": re.compile("FLAIR", re.I),
    "T1w": re.compile(r"MP-?RAGE|^MPR(?![a-z])|SPGR", re.I),
    "T2w": re.compile(r"(?<![A-Za-z])T2(?![-_ ]?STAR)", re.I),
}
"""What a series' name must hold; the first that fits is meant."""
ADNI_EXAMPLE = "002_S_0295/MPRAGE/2006-04-18_08_20_30.0/I45108/ADNI_002_S_0295_MR_MPRAGE_I45108.nii"


def _adni(root: Path, sequences: tuple[str, ...]) -> Cohort:
    """A scan for each image of the first sequence, with the same day's first image of the others."""
    for name in sequences:
        if name not in ADNI_SERIES:
            raise BadCall(f"this data set has no sequence '{name}'; it has {', '.join(ADNI_SERIES)}")
    said = _collection(tables(root, "Image Data ID", "Subject", "Group"))
    days: dict[tuple[str, str], dict[str, dict[str, tuple[str, str]]]] = {}
    for id, sequence, path, facts in _adni_images(root):
        day = days.setdefault((facts["subject"], facts["date"]), {})
        day.setdefault(sequence, {})[id] = (path, facts["series"])
    entries = []
    for (subject, date), day in sorted(days.items()):
        if not {*sequences} <= {*day}:
            continue
        first, *others = sequences
        more = {s: min(day[s].items())[1][0] for s in others}
        for id, (path, series) in sorted(day[first].items()):
            facts = {"subject": subject, "date": date, "series": series, **said.get(id, {})}
            entries.append(Entry(f"{subject}_{id}", {first: path, **more}, facts=facts))
    return found(entries, root, sequences, ADNI_EXAMPLE)


def _adni_images(root: Path) -> Iterator[tuple[str, str, str, dict[str, str]]]:
    for path in images_below(root):
        match = ADNI_PLACE.search(place_of(path))
        if match is None or "mask" in match["series"].lower():
            continue
        sequence = next((s for s, sign in ADNI_SERIES.items() if sign.search(match["series"])), None)
        if sequence is not None:
            own = re.search(r"_(I\d+)$", match["name"])
            yield own[1] if own else match["image"], sequence, str(path), match.groupdict()


def _collection(rows: Rows) -> dict[str, dict[str, str]]:
    """What the collection's table says of each image."""
    names = {"Group": "group", "Sex": "sex", "Age": "age", "Visit": "visit"}
    return {
        f"I{row['Image Data ID'].removeprefix('I')}": {fact: row[n] for n, fact in names.items() if n in row}
        for row in rows
    }


ADNI = DataSet(
    name="adni",
    title="ADNI",
    offered="https://ida.loni.usc.edu (application, data use agreement)",
    licence="ADNI data use agreement",
    sequences=("T1w", "T2w", "FLAIR"),
    layout=f"ADNI/{ADNI_EXAMPLE}\nADNI_collection.csv (the collection's table: Image Data ID, Subject, Group, Sex, Age, ...)",
    variable="ADNI",
    quirks="One acquisition may come in several processed forms, and a subject has many visits: an image is a scan, the subject is known, "
    "the series tells the forms apart (--where series=...). Groups are CN, MCI, AD and others, as of the visit. The sequence is told from the series' name.",
    open=_adni,
)
