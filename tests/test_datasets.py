"""Each data set of the papers is read from the tree in which its owners publish it; the trees here are tiny."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anomri import files
from anomri.cli.choosing import scans_of
from anomri.cohort import Cohort, Entry
from anomri.cohorts import open_cohort
from anomri.cohorts.datasets import DATASETS, SEQUENCES, dataset, looks_like, subject_of
from anomri.errors import BadCall, BadInput

NAMES = ("ixi", "oasis3", "adni", "brats2019", "brats2020", "brats2021", "brats2023", "isles2015", "atlas1", "atlas2", "mslub", "wmh")  # fmt: skip


def tree(root: Path, *names: str) -> Path:
    """Empty files, which are enough to be found."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def entries(cohort: Cohort) -> dict[str, Entry]:
    return {e.id: e for e in cohort.entries if isinstance(e, Entry)}


def taken(entry: Entry, root: Path) -> tuple[dict[str, str], str | None, tuple[str, ...]]:
    """Images, brain and lesions of a scan, as paths below the tree."""

    def short(path: str) -> str:
        return Path(path).relative_to(root).as_posix()

    images = {name: short(path) for name, path in entry.images.items()}
    return images, entry.brain and short(entry.brain), tuple(map(short, entry.lesions))


def volume(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values), np.diag([2.0, 2.5, 3.0, 1.0])), path)


# --- all of them ---------------------------------------------------------------------------------------------------


def test_the_list_is_complete_and_says_what_one_needs_to_know():
    assert tuple(d.name for d in DATASETS) == NAMES
    assert len({d.variable for d in DATASETS}) == len({d.title for d in DATASETS}) == len(DATASETS)
    for one in DATASETS:
        assert dataset(one.name) is one
        assert set(one.sequences) <= set(SEQUENCES)
        assert one.sequences
        assert re.fullmatch("[A-Z0-9]+", one.variable)
        assert "https://" in one.offered
        assert one.licence
        assert one.quirks.endswith(".")


def test_the_page_says_the_same():
    text = (Path(__file__).parent.parent / "docs/datasets.md").read_text()
    for one in DATASETS:
        assert (
            f"| `{one.name}` | {one.title} | {', '.join(one.sequences)} | `{one.variable}` | {one.offered} | {one.licence} |"
            in text
        )
        assert f"**{one.title}.** {one.quirks}\n" in text


def test_an_unknown_one_names_the_known():
    with pytest.raises(BadCall, match="unknown data set 'brats'; known: adni, atlas1"):
        dataset("brats")
    with pytest.raises(BadCall, match="unknown data set 'brats'"):
        open_cohort(".", dataset="brats")


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_of_each_layout_is_read_and_recognised(tmp_path, name):
    one = dataset(name)
    place = one.layout.splitlines()[0].split(" (")[0]
    tree(tmp_path, place)
    (sequence,) = [s for s in one.sequences if not _refused(one, tmp_path, s)]
    (entry,) = entries(one.open(tmp_path, (sequence,))).values()
    assert entry.images == {sequence: str(tmp_path / place)}
    assert looks_like(tmp_path) is one
    # The nearest folder that holds it will do as well.
    assert len(one.open((tmp_path / place).parent, (sequence,))) == 1


def _refused(one: Any, root: Path, sequence: str) -> bool:
    try:
        one.open(root, (sequence,))
    except BadInput:
        return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_nothing_there_and_no_such_sequence(tmp_path, name):
    one = dataset(name)
    tree(tmp_path, "a.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz", ".hidden/x.nii.gz")
    with pytest.raises(BadInput, match=rf"holds no scan with {one.sequences[0]}; it needs files such as "):
        one.open(tmp_path, (one.sequences[0],))
    with pytest.raises(BadCall, match=r"no sequence 'bold'; it has .*T1w"):
        one.open(tmp_path, ("bold",))


# --- BraTS ---------------------------------------------------------------------------------------------------------


def test_brats2019(tmp_path):
    a, b = "HGG/BraTS19_CBICA_AAP_1/BraTS19_CBICA_AAP_1", "LGG/BraTS19_2013_10_1/BraTS19_2013_10_1"
    tree(tmp_path, *(f"{p}_{k}.nii.gz" for p in (a, b) for k in ("flair", "t1", "t1ce", "t2", "seg")))
    found = entries(open_cohort(tmp_path, sequence="FLAIR,T1ce,T1w", dataset="brats2019"))
    assert list(found) == ["BraTS19_2013_10_1", "BraTS19_CBICA_AAP_1"]
    entry = found["BraTS19_CBICA_AAP_1"]
    assert list(entry.images) == ["FLAIR", "T1ce", "T1w"]
    assert taken(entry, tmp_path) == (
        {"FLAIR": f"{a}_flair.nii.gz", "T1ce": f"{a}_t1ce.nii.gz", "T1w": f"{a}_t1.nii.gz"},
        None,
        (f"{a}_seg.nii.gz",),
    )
    assert entry.facts == {"grade": "HGG", "subject": "BraTS19_CBICA_AAP", "site": "CBICA"}
    assert open_cohort(tmp_path, dataset="brats2019", where={"grade": "LGG"}).ids == ("BraTS19_2013_10_1",)


def test_brats2020_with_its_misnamed_label(tmp_path):
    one, bad = "BraTS20_Training_001/BraTS20_Training_001", "BraTS20_Training_355/"
    tree(tmp_path, *(f"in/{one}_{k}.nii" for k in ("flair", "seg")), f"in/{bad}BraTS20_Training_355_flair.nii")
    tree(tmp_path, f"in/{bad}W39_1998.09.19_Segm.nii", "in/BraTS20_Validation_001/BraTS20_Validation_001_flair.nii.gz")
    (tmp_path / "in/name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
        "HGG,Brats17_CBICA_AAB_1,BraTS19_CBICA_AAB_1,BraTS20_Training_001\n"
    )
    found = entries(open_cohort(tmp_path / "in", sequence="FLAIR", dataset="brats2020"))
    assert {id: taken(e, tmp_path / "in")[2] for id, e in found.items()} == {
        "BraTS20_Training_001": (f"{one}_seg.nii",),
        "BraTS20_Training_355": (f"{bad}W39_1998.09.19_Segm.nii",),
        "BraTS20_Validation_001": (),
    }
    assert found["BraTS20_Training_001"].facts["grade"] == "HGG"
    assert found["BraTS20_Training_001"].facts["brats2019"] == "BraTS19_CBICA_AAB_1"
    assert found["BraTS20_Training_355"].facts["grade"] == ""
    assert found["BraTS20_Validation_001"].facts["part"] == "Validation"


def test_brats2021_takes_only_scans_with_all_sequences(tmp_path):
    for n in (0, 17):
        tree(tmp_path, *(f"BraTS2021_{n:05d}/BraTS2021_{n:05d}_{k}.nii.gz" for k in ("flair", "t1", "seg")))
    tree(tmp_path, "BraTS2021_00017/BraTS2021_00017_t2.nii.gz", "BraTS2021_00017/._BraTS2021_00017_t2.nii.gz")
    assert open_cohort(tmp_path, sequence="FLAIR", dataset="brats2021").ids == ("BraTS2021_00000", "BraTS2021_00017")
    assert open_cohort(tmp_path, sequence="T2w,T1w", dataset="brats2021").ids == ("BraTS2021_00017",)


def test_brats2023_subjects_have_several_time_points(tmp_path):
    for id in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-MEN-00005-000"):
        tree(tmp_path, *(f"{id}/{id}-{k}.nii.gz" for k in ("t1n", "t1c", "t2w", "t2f", "seg")))
    cohort = open_cohort(tmp_path, sequence="T1w,T1ce,T2w,FLAIR", dataset="brats2023")
    assert cohort.subjects == ("BraTS-GLI-00005", "BraTS-GLI-00005", "BraTS-MEN-00005")
    first = entries(cohort)["BraTS-GLI-00005-001"]
    assert [Path(p).name[-10:-7] for p in first.images.values()] == ["t1n", "t1c", "t2w", "t2f"]
    assert first.facts["timepoint"] == "001"
    assert sorted(len(part) for part in cohort.split(1, 1)) == [1, 2]


def test_labels_of_a_tumour_are_merged(tmp_path):
    rng = np.random.default_rng(0)
    seg = rng.choice([0, 0, 1, 2, 4], size=(5, 6, 7)).astype(np.uint8)
    place = tmp_path / "BraTS2021_00003/BraTS2021_00003"
    volume(Path(f"{place}_t1.nii.gz"), rng.normal(size=(5, 6, 7)).astype(np.float32))
    volume(Path(f"{place}_seg.nii.gz"), seg)
    (scan,) = open_cohort(tmp_path, dataset="brats2021")
    assert np.array_equal(scan.lesion, seg > 0)


def test_one_image_twice_is_refused(tmp_path):
    tree(tmp_path, "a/BraTS2021_00000/BraTS2021_00000_t1.nii.gz", "b/BraTS2021_00000/BraTS2021_00000_t1.nii")
    with pytest.raises(
        BadInput, match=r"holds T1w of scan 'BraTS2021_00000' twice: '(a|b)/.*' and '(a|b)/.*'; name the"
    ):
        open_cohort(tmp_path, dataset="brats2021")


# --- strokes -------------------------------------------------------------------------------------------------------


def test_isles2015_training_and_testing_have_the_same_numbers(tmp_path):
    def place(part: str, number: int, kind: str, code: int) -> str:
        return f"SISS2015_{part}/{number}/VSD.Brain.XX.O.{kind}.{code}/VSD.Brain.XX.O.{kind}.{code}.nii"

    names = [place("Training", n, k, 70600 + 10 * n + c) for n in (1, 12) for c, k in enumerate(("MR_DWI", "MR_Flair", "MR_T1", "MR_T2", "OT"))]  # fmt: skip
    tree(tmp_path, *names, place("Testing", 1, "MR_Flair", 90001), "SPES2015_Training/Nr1/VSD.Brain.XX.O.MR_T2.1/VSD.Brain.XX.O.MR_T2.1.nii")  # fmt: skip
    found = entries(open_cohort(tmp_path, sequence="FLAIR", dataset="isles2015"))
    assert list(found) == ["Testing_1", "Training_1", "Training_12"]
    assert taken(found["Training_1"], tmp_path) == ({"FLAIR": names[1]}, None, (names[4],))
    assert taken(found["Testing_1"], tmp_path)[2] == ()
    assert open_cohort(tmp_path, sequence="DWI,T2w", dataset="isles2015").ids == ("Training_1", "Training_12")
    # Folders of other names are told by number alone.
    (tmp_path / "SISS2015_Training").rename(tmp_path / "mine")
    assert open_cohort(tmp_path / "mine", sequence="T1w", dataset="isles2015").ids == ("1", "12")


def test_atlas1_merges_the_masks_of_a_scan(tmp_path):
    one, two = "Site1/031768/t01/031768", "Site8/031916/t02/031916"
    rng = np.random.default_rng(1)
    masks = [np.zeros((5, 6, 7), np.uint8) for _ in range(3)]
    for i, mask in enumerate(masks):
        mask[i, 2 * i, 3] = 255
    for name, mask in zip(("LesionSmooth", "LesionSmooth_1", "LesionSmooth_2"), masks, strict=True):
        volume(tmp_path / f"{one}_{name}_stx.nii.gz", mask)
    volume(tmp_path / f"{one}_t1w_deface_stx.nii.gz", rng.normal(size=(5, 6, 7)).astype(np.float32))
    tree(tmp_path, f"{two}_t1w_deface_stx.nii.gz", f"{two}_LesionSmooth_stx.nii.gz", "Site8/031916/t01/031916_t1w_deface_stx.nii.gz")  # fmt: skip
    cohort = open_cohort(tmp_path, dataset="atlas1")
    found = entries(cohort)
    assert list(found) == ["031768_t01", "031916_t01", "031916_t02"]
    assert cohort.subjects == ("031768", "031916", "031916")
    assert len(found["031768_t01"].lesions) == 3
    assert isinstance(found["031916_t02"].lesion, str)
    assert found["031916_t01"].lesion is None
    assert found["031768_t01"].facts["site"] == "Site1"
    scan = cohort[0]
    assert np.array_equal(scan.lesion, np.logical_or.reduce([m > 0 for m in masks]))
    assert scan.lesion.sum() == 3


def test_atlas2(tmp_path):
    stem = "sub-r001s001_ses-1_space-MNI152NLin2009aSym"
    where = f"Training/R001/sub-r001s001/ses-1/anat/{stem}"
    test = "Testing/R040/sub-r040s002/ses-1/anat/sub-r040s002_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz"
    tree(tmp_path, f"{where}_T1w.nii.gz", f"{where}_label-L_desc-T1lesion_mask.nii.gz", test)
    found = entries(open_cohort(tmp_path, dataset="atlas2"))
    assert list(found) == ["sub-r001s001_ses-1", "sub-r040s002_ses-1"]
    assert taken(found["sub-r001s001_ses-1"], tmp_path) == (
        {"T1w": f"{where}_T1w.nii.gz"},
        None,
        (f"{where}_label-L_desc-T1lesion_mask.nii.gz",),
    )
    assert found["sub-r001s001_ses-1"].facts == {"subject": "sub-r001s001", "site": "r001", "part": "Training"}
    assert found["sub-r040s002_ses-1"].facts["part"] == "Testing"


# --- white matter --------------------------------------------------------------------------------------------------


def test_mslub_takes_what_lies_on_the_labels_grid(tmp_path):
    kinds = ("T1W", "T1WKS", "T2W", "FLAIR", "brainmask", "consensus_gt")
    tree(tmp_path, *(f"patient03/patient03_{k}.nii.gz" for k in kinds))
    tree(tmp_path, *(f"patient03/raw/patient03_{k}.nii.gz" for k in kinds[:4]))
    (entry,) = entries(open_cohort(tmp_path, sequence="FLAIR,T1w,T1ce,T2w", dataset="mslub")).values()
    assert taken(entry, tmp_path) == (
        {s: f"patient03/patient03_{k}.nii.gz" for s, k in (("FLAIR", "FLAIR"), ("T1w", "T1W"), ("T1ce", "T1WKS"), ("T2w", "T2W"))},
        "patient03/patient03_brainmask.nii.gz",
        ("patient03/patient03_consensus_gt.nii.gz",),
    )  # fmt: skip


def test_wmh_other_pathology_is_not_lesion(tmp_path):
    rng = np.random.default_rng(2)
    truth = rng.choice([0, 1, 2], size=(5, 6, 7)).astype(np.uint8)
    volume(tmp_path / "training/Amsterdam/GE3T/100/pre/FLAIR.nii.gz", rng.normal(size=(5, 6, 7)).astype(np.float32))
    volume(tmp_path / "training/Amsterdam/GE3T/100/wmh.nii.gz", truth)
    (scan,) = open_cohort(tmp_path, sequence="FLAIR", dataset="wmh")
    assert np.array_equal(scan.lesion, truth == 1)
    assert (truth == 2).any()


def test_wmh_scanners_and_parts(tmp_path):
    places = ("training/Utrecht/0", "training/Singapore/50", "training/Amsterdam/GE3T/100", "test/Amsterdam/GE1T5/151",
              "test/Amsterdam/Philips_VU .PETMR_01./160")  # fmt: skip
    tree(tmp_path, *(f"{p}/{k}.nii.gz" for p in places for k in ("pre/FLAIR", "pre/T1", "pre/3DT1", "orig/FLAIR", "orig/T1", "wmh")))  # fmt: skip
    tree(tmp_path, "additional_annotations/observer_o3/training/Utrecht/0/result.nii.gz")
    cohort = open_cohort(tmp_path, sequence="T1w,FLAIR", dataset="wmh")
    assert cohort.ids == ("GE1T5_151", "GE3T_100", "Philips_VU_160", "Singapore_50", "Utrecht_0")
    assert cohort.column("scanner") == ("GE1T5", "GE3T", "Philips_VU", "Singapore", "Utrecht")
    assert cohort.column("part") == ("test", "training", "test", "training", "training")
    assert taken(entries(cohort)["Utrecht_0"], tmp_path) == (
        {"T1w": "training/Utrecht/0/pre/T1.nii.gz", "FLAIR": "training/Utrecht/0/pre/FLAIR.nii.gz"},
        None,
        ("training/Utrecht/0/wmh.nii.gz",),
    )
    assert entries(cohort)["Utrecht_0"].lesion_labels == (1,)


# --- healthy -------------------------------------------------------------------------------------------------------

IXI_TABLE = """IXI_ID,"SEX_ID (1=m, 2=f)",HEIGHT,AGE
2,2,164,35.8
12.0,1,175,38.78
13,1,182,46.71
13,1,182,49.02
33,1,0,31.10
33,1,190,31.10
"""


def test_ixi(tmp_path):
    ids = ("IXI002-Guys-0828", "IXI012-HH-1211", "IXI013-HH-1212", "IXI033-IOP-0900", "IXI035-IOP-0873")
    tree(tmp_path, *(f"IXI-T1/{id}-T1.nii.gz" for id in ids), *(f"IXI-T2/{id}-T2.nii.gz" for id in ids[:2]))
    tree(tmp_path, "IXI-MRA/IXI002-Guys-0828-MRA.nii.gz", "IXI-DTI/IXI002-Guys-0828-DTI-00.nii.gz")
    cohort = open_cohort(tmp_path, dataset="ixi")
    assert cohort.ids == ids
    assert cohort.subjects == tuple(id[:6] for id in ids)
    assert cohort.column("scanner") == ("Philips 1.5T", "Philips 3T", "Philips 3T", "GE 1.5T", "GE 1.5T")
    with pytest.raises(BadInput, match="no column 'age'"):
        cohort.column("age")
    (tmp_path / "IXI.csv").write_text(IXI_TABLE)
    cohort = open_cohort(tmp_path / "IXI-T1", dataset="ixi")
    assert cohort.column("age") == ("35.8", "38.78", "", "31.10", "")
    assert cohort.column("sex") == ("F", "M", "M", "M", "")
    assert open_cohort(tmp_path, sequence="T1w,T2w", dataset="ixi").ids == ids[:2]


def test_oasis3_takes_the_first_run_of_a_session(tmp_path):
    names = ("OAS30001_MR_d0129/anat3/sub-OAS30001_ses-d0129_run-02_T1w.nii.gz",
             "OAS30001_MR_d0129/anat4/sub-OAS30001_ses-d0129_run-01_T1w.nii.gz",
             "OAS30001_MR_d0129/anat1/sub-OAS30001_sess-d0129_acq-TSE_T2w.nii.gz",
             "OAS30001_MR_d0757/anat2/sub-OAS30001_ses-d0757_T1w.nii.gz",
             "sub-OAS30002/ses-d0371/anat/sub-OAS30002_ses-d0371_T1w.nii.gz",
             "sub-OAS30002/ses-d0371/func/sub-OAS30002_ses-d0371_task-rest_bold.nii.gz")  # fmt: skip
    tree(tmp_path, *names)
    cohort = open_cohort(tmp_path, dataset="oasis3")
    assert cohort.ids == ("OAS30001_d0129", "OAS30001_d0757", "OAS30002_d0371")
    assert cohort.subjects == ("OAS30001", "OAS30001", "OAS30002")
    assert taken(entries(cohort)["OAS30001_d0129"], tmp_path)[0] == {"T1w": names[1]}
    both = entries(open_cohort(tmp_path, sequence="T1w,T2w", dataset="oasis3"))
    assert taken(both["OAS30001_d0129"], tmp_path)[0] == {"T1w": names[1], "T2w": names[2]}
    assert len(both) == 1
    (tmp_path / "OASIS3_UDSb4_cdr.csv").write_text(
        "OASISID,OASIS_session_label,days_to_visit,age at visit,CDRTOT\n"
        "OAS30001,OAS30001_UDSb4_d0000,0000,65.15,0.0\nOAS30001,OAS30001_UDSb4_d0722,722,67.13,0.5\n"
    )
    cohort = open_cohort(tmp_path, dataset="oasis3")
    assert cohort.column("cdr") == ("0", "0.5", "")
    assert cohort.column("cdr_highest") == ("0.5", "0.5", "")
    assert cohort.column("age") == ("65.5", "67.2", "")


def test_adni(tmp_path):
    def place(subject: str, series: str, day: str, code: str) -> str:
        return f"ADNI/{subject}/{series}/{day}_08_20_30.0/{code}/ADNI_{subject}_MR_{series}_Br_2006_S13408_{code}.nii"

    a, b = "002_S_0295", "941_S_10001"
    names = [place(a, "MPR__GradWarp__B1_Correction__N3__Scaled", "2006-04-18", "I45108"), place(a, "MP-RAGE", "2006-04-18", "I13722"),
             place(a, "Axial_T2_STAR", "2006-04-18", "I1"), place(a, "Axial_PD_T2_FSE", "2006-04-18", "I13720"),
             place(a, "MPRAGE", "2007-01-02", "I50000"), place(b, "Sagittal_3D_FLAIR", "2018-01-02", "I99"),
             place(b, "Accelerated_Sagittal_IR-FSPGR", "2018-01-02", "I98"), place(a, "MPR_Mask", "2006-04-18", "I7")]  # fmt: skip
    tree(tmp_path, *names, "ADNI/readme.nii", "ADNI/002_S_0295/MPRAGE/2006-04-18_08/I77/._ADNI_I77.nii")
    (tmp_path / "collection.csv").write_text(
        '"Image Data ID","Subject","Group","Sex","Age","Visit","Modality"\n'
        '"I45108","002_S_0295","CN","M","84","1","MRI"\n"98","941_S_10001","AD","F","71","1","MRI"\n'
    )
    cohort = open_cohort(tmp_path / "ADNI", dataset="adni")
    ids = ("002_S_0295_I13722", "002_S_0295_I45108", "002_S_0295_I50000", "941_S_10001_I98")
    assert cohort.ids == ids
    assert cohort.subjects == (a, a, a, b)
    assert entries(cohort)[ids[1]].facts == {
        "subject": a, "date": "2006-04-18", "series": "MPR__GradWarp__B1_Correction__N3__Scaled",
        "group": "CN", "sex": "M", "age": "84", "visit": "1",
    }  # fmt: skip
    assert cohort.where(group="AD").ids == ids[3:]
    pairs = entries(open_cohort(tmp_path, sequence="T1w,T2w", dataset="adni"))
    assert list(pairs) == list(ids[:2])
    assert {Path(e.images["T2w"]).name for e in pairs.values()} == {Path(names[3]).name}
    assert open_cohort(tmp_path, sequence="FLAIR", dataset="adni").ids == ("941_S_10001_I99",)


# --- choosing one --------------------------------------------------------------------------------------------------


def test_an_error_names_the_data_set_that_a_folder_looks_like(tmp_path):
    tree(tmp_path, "BraTS2021_00000/BraTS2021_00000_flair.nii.gz")
    with pytest.raises(BadInput, match=r"holds no scan with T1w.*it looks like BraTS 2021: use --dataset brats2021"):
        open_cohort(tmp_path)
    tree(tmp_path / "b", "sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz")
    with pytest.raises(BadInput, match=r"BIDS data set .* has no scan.*use --dataset atlas2"):
        open_cohort(tmp_path / "b")
    with pytest.raises(BadInput, match="is a file; name the folder that BraTS 2021 lies in"):
        open_cohort(tmp_path / "BraTS2021_00000/BraTS2021_00000_flair.nii.gz", dataset="brats2021")


def test_the_command_line_s_option(tmp_path):
    tree(tmp_path, "BraTS2021_00000/BraTS2021_00000_flair.nii.gz")
    assert scans_of(None, None, tmp_path, "FLAIR", None, None, None, "brats2021").ids == ("BraTS2021_00000",)
    with pytest.raises(BadCall, match="--dataset says how a --cohort is laid out"):
        scans_of([tmp_path / "a.nii"], None, None, None, None, None, None, "brats2021")


def test_subjects_by_name():
    told = {"sub-01_ses-2": "sub-01", "IXI002-Guys-0828-T1": "IXI002", "IXI002-Guys-0828_t1": "IXI002", "OAS30001_d0129": "OAS30001",
            "002_S_0295_I45108": "002_S_0295", "BraTS-GLI-00005-001": "BraTS-GLI-00005", "BraTS2021_00001_t1": "BraTS2021_00001",
            "BraTS20_Training_001": "BraTS20_Training_001", "BraTS19_CBICA_AAP_1": "BraTS19_CBICA_AAP", "patient03_FLAIR": "patient03",
            "patient031": "patient031", "scan 7": "scan 7", "my_IXI002": "my_IXI002"}  # fmt: skip
    assert {id: subject_of(id) for id in told} == told


# --- lesion masks --------------------------------------------------------------------------------------------------


def test_a_scan_with_several_masks_and_labels(tmp_path):
    rng = np.random.default_rng(3)
    image = rng.normal(size=(4, 5, 6)).astype(np.float32)
    one, two = (rng.integers(0, 4, size=(4, 5, 6)).astype(np.uint8) for _ in range(2))
    for name, data in (("x", image), ("a", one), ("b", two)):
        volume(tmp_path / f"{name}.nii.gz", data)
    paths = {name: str(tmp_path / f"{name}.nii.gz") for name in "xab"}

    def lesion(masks: Any, labels: tuple[int, ...] = ()) -> Any:
        return Entry("x", {"T1w": paths["x"]}, lesion=masks, lesion_labels=labels).read().lesion

    assert lesion(None) is None
    assert lesion(()) is None
    assert np.array_equal(lesion(paths["a"]), one > 0)
    assert np.array_equal(lesion((paths["a"], paths["b"])), (one > 0) | (two > 0))
    assert np.array_equal(lesion((paths["a"], paths["b"]), (1, 3)), np.isin(one, (1, 3)) | np.isin(two, (1, 3)))
    assert np.array_equal(files.read_scan({"T1w": paths["x"]}, lesion=tmp_path / "a.nii.gz").lesion, one > 0)
    entry = Entry("x", {"T1w": paths["x"]}, paths["a"], (paths["a"], paths["b"]))
    assert entry.paths == (paths["x"], paths["a"], paths["a"], paths["b"])
    volume(tmp_path / "c.nii.gz", np.zeros((5, 4, 6), np.uint8))
    with pytest.raises(BadInput, match=r"lesion mask .*c.nii.gz' has grid \(5, 4, 6\)"):
        lesion((paths["a"], str(tmp_path / "c.nii.gz")))
