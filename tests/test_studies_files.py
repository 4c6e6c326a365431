"""The studies of the papers: each loads, fits together, says what it needs, and holds the numbers as they were printed."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomri.cohort import Cohort, Entry
from anomri.cohorts.datasets import dataset
from anomri.corruptions.artefacts import artefact as known_artefact
from anomri.errors import BadInput
from anomri.methods import METHODS, make
from anomri.methods.itermask3d import IterMask3D, healthy_tau
from anomri.preprocess import describe
from anomri.scan import Scan
from anomri.study import METRICS, Study, Table, load, summarise
from anomri.study.changes import artefact
from anomri.study.measures import MEASURES
from conftest import grid, phantom

STUDIES = Path(__file__).parent.parent / "studies"
README = (STUDIES / "README.md").read_text()
LISTED = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) \|", README, re.M)
FILES = [STUDIES / f"{name}.py" for name in LISTED if f"[{name}.py]" not in README[: README.index("\n## ")]]
"""The studies of papers: those under a heading of the README. Above are those of our own."""
NEEDS = {
    "dice": "overlap",
    "sensitivity": "overlap",
    "precision": "overlap",
    "jaccard": "overlap",
    "voxel_auroc": "voxel",
    "voxel_auprc": "voxel",
    "dice_best_scan_oracle": "oracle",
    "dice_best_dataset_oracle": "oracle",
    "dice_best_pooled_oracle": "oracle",
    "dice_labelled_validation": "oracle",
    "assd_mm": "surface",
    "region_distance_mm": "region",
    "psnr_db": "healthy",
    "ssim": "healthy",
    "l1": "healthy",
    "l1_ratio": "healthy",
}


@cache
def study(name: str) -> Study:
    return load(STUDIES / f"{name}.py")


@cache
def module(name: str) -> dict[str, Any]:
    """A study file's own names."""
    names: dict[str, Any] = {"__name__": name}
    exec(compile((STUDIES / f"{name}.py").read_text(), f"{name}.py", "exec"), names)
    return names


def expected(name: str, table: str | None = None) -> dict[tuple[str, str, str], float]:
    tables = {t.name: t for t in study(name).tables}
    return dict((tables[table] if table else study(name).tables[0]).expected)


each_file = pytest.mark.parametrize("path", FILES, ids=[p.stem for p in FILES])


def test_every_study_is_listed_once() -> None:
    assert sorted(LISTED) == sorted(p.stem for p in STUDIES.glob("*.py"))


def test_every_paper_is_there() -> None:
    tables = {f"itermask3d_table{n}" for n in range(1, 8)} | {f"itermask2_table{n}" for n in range(1, 4)}
    sweeps = {
        "itermask3d_severity", "itermask2_tau", "itermask_radius", "t_test", "patch_size", "ssim_sigma", "mahalanobis_n",
        "training_set_size", "cleaning",
    }  # fmt: skip
    assert tables | sweeps | {"itermask3d_v1_table1", "spatial_erasing"} <= {p.stem for p in FILES}


@each_file
def test_is_named_after_its_file(path: Path) -> None:
    assert study(path.stem).name == path.stem.replace("_", "-")


@each_file
def test_says_what_it_needs(path: Path) -> None:
    said = str(module(path.stem)["__doc__"])
    for section in ("\nData\n", "\nSplit\n", "\nCommand", "\nExpected\n"):
        assert section in said
    command = said[said.index("\nCommand") : said.index("\nExpected")]
    assert f"anomri study run studies/{path.name} --out OUT" in command
    data = said[said.index("\nData\n") : said.index("\nSplit\n")]
    variables = {str(source.variable) for source in study(path.stem).sources.values()}
    assert set(re.findall(r"\$([A-Z0-9_]+)", data)) == variables
    assert set(re.findall(r"--data ([A-Z0-9_]+)=", command)) <= variables
    for source in study(path.stem).sources.values():
        assert source.missing()
        if source.dataset:
            assert source.sequence in dataset(source.dataset).sequences


@each_file
def test_measures_what_its_tables_show(path: Path) -> None:
    measures = study(path.stem).measures
    assert set(measures) <= set(MEASURES)
    shown = {m for t in study(path.stem).tables for m in t.metrics} | {p.y for p in study(path.stem).plots if p.y}
    assert {NEEDS[m] for m in shown if m in NEEDS} <= set(measures)


@each_file
def test_every_printed_number_has_its_cell(path: Path) -> None:
    for table in study(path.stem).tables:
        records = summarise(study(path.stem), table, [], lambda row: None)
        found = {
            (", ".join(map(str, r.line)), ", ".join(map(str, r.group)), r.metric): r.expected
            for r in records
            if r.expected is not None
        }
        assert found == table.expected
        assert "None" not in {part for r in records for part in map(str, (*r.line, *r.group))}


@each_file
def test_printed_numbers_are_in_the_unit_of_their_metric(path: Path) -> None:
    for table in study(path.stem).tables:
        for (line, group, name), value in table.expected.items():
            assert math.isfinite(value), (line, group, name)
            top = {"%": 100, "mm": 60, "dB": 60}.get(METRICS[name].unit, 8 if name == "l1_ratio" else 0.2)
            assert 0 <= value <= top, (line, group, name)
            if METRICS[name].kind == "case":
                assert study(path.stem).case(group).against if table.across == ("case",) else True


@each_file
def test_case_metrics_have_controls_and_plots_have_facts(path: Path) -> None:
    one = study(path.stem)
    for table in one.tables:
        for name in table.cases or [case.name for case in one.cases]:
            if any(METRICS[m].kind == "case" for m in table.metrics):
                control = one.case(str(one.case(name).against))
                assert not control.anomalous
                assert set(one.case(name).only or one.entrants) <= set(control.only or one.entrants)
            if "dice_labelled_validation" in table.metrics:
                other = one.case(str(one.case(name).threshold_from))
                assert other.source != one.case(name).source
                assert set(one.case(name).only or one.entrants) <= set(other.only or one.entrants)
    for plot in one.plots:
        for name in plot.cases or [case.name for case in one.cases]:
            facts = {"entrant", *one.case(name).facts}
            if plot.kind == "curve":
                assert plot.x in facts
                assert plot.by in facts
        assert re.fullmatch(r"[a-z0-9-]+", plot.name)
    assert all(re.fullmatch(r"[a-z0-9-]+", table.name) for table in one.tables)


@each_file
def test_no_test_scan_is_fitted_on(path: Path) -> None:
    for entrant in study(path.stem).entrants.values():
        looked_at = {case.source for case in study(path.stem).cases}
        assert not looked_at & {entrant.fit, entrant.validate, entrant.calibrate}


@each_file
def test_methods_that_are_there_take_their_arguments(path: Path) -> None:
    for entrant in study(path.stem).entrants.values():
        if entrant.method in {m.name for m in METHODS}:
            assert make(entrant.method, **entrant.arguments).name == entrant.method
    for case in study(path.stem).cases:
        if isinstance(case.change, artefact):
            assert known_artefact(case.change.name).name == case.change.name


@each_file
def test_readme_tells_of_it_and_of_what_it_waits_for(path: Path) -> None:
    line = next(line for line in README.splitlines() if line.startswith(f"| [{path.name}]"))
    *_, data, waits = line.strip("|").split("|")
    assert {str(s.variable) for s in study(path.stem).sources.values()} == set(re.findall(r"`([A-Z0-9_]+)`", data))
    missing = {e.method for e in study(path.stem).entrants.values()} - {m.name for m in METHODS}
    assert set(re.findall(r"`([a-z0-9_]+)`", waits)) == missing


FPR80, FNR80, FNR90 = "FPR80 (published code)", "FNR80 (published code)", "FNR90 (published code)"
BEST, DATASET, LABELLED = "dice_best_scan_oracle", "dice_best_dataset_oracle", "dice_labelled_validation"


@pytest.mark.parametrize(
    ("name", "table", "key", "value"),
    [
        ("itermask3d_table1", None, ("IterMask3D", "chunk missing (top)", FNR80), 43.5),
        ("itermask3d_table1", None, ("IterMask3D", "chunk missing (middle)", "AUROC"), 95.5),
        ("itermask3d_table1", None, ("DAE (orig)", "zipper", FNR90), 82.6),
        ("itermask3d_table1", None, ("AE", "ghosting", "AUPRC"), 45.8),
        ("itermask3d_table1", None, ("DDPM", "bias field", FPR80), 69.6),
        ("itermask3d_v1_table1", None, ("IterMask3D", "chunk missing (top)", "AUROC"), 76.8),
        ("itermask3d_v1_table1", None, ("AE", "periodic line artifact", FNR90), 44.8),
        ("itermask3d_table2", None, ("IterMask3D", "Failed skull-stripping (FLAIR)", "AUROC"), 90.0),
        ("itermask3d_table2", None, ("Cycl. Unet", "Magnetic Susceptibility Artifact (T2)", FPR80), 20.0),
        ("itermask3d_table3", None, ("IterMask²", "T1CE", "psnr_db"), 51.6),
        ("itermask3d_table3", None, ("IterMask² + thres", "T2", "precision"), 72.0),
        ("itermask3d_table3", None, ("AE", "T1", "ssim"), 95.3),
        ("itermask3d_table4", None, ("IterMask3D", "BraTS FLAIR", DATASET), 69.7),
        ("itermask3d_table4", None, ("IterMask3D", "BraTS FLAIR", "region_distance_mm"), 5.1),
        ("itermask3d_table4", None, ("DAE (tuned)", "BraTS T2", "psnr_db"), 1.0),
        ("itermask3d_table4", None, ("DAE (1.2std, v1)", "ISLES FLAIR", DATASET), 20.9),
        ("itermask3d_table4", None, ("DAE (orig)", "ISLES FLAIR", DATASET), 30.3),
        ("itermask3d_table4", None, ("Transformer", "BraTS FLAIR", DATASET), 61.7),
        ("itermask3d_table5", None, ("IterMask²", "3D BraTS FLAIR (3D Metric)", "precision"), 77.8),
        ("itermask3d_table5", None, ("spatial masking only", "3D BraTS FLAIR (3D Metric)", DATASET), 40.4),
        ("itermask3d_table6", None, ("IterMask² - adapt", "T2", "precision"), 70.2),
        ("itermask3d_table7", None, ("Itermask3D - fixed", "Failed skull-stripping", "AUPRC"), 76.6),
        ("itermask3d_severity", None, ("ghosting", "1.0", "AUROC"), 98.0),
        ("itermask2_table1", "white", ("IterMask²", "FLAIR", "ssim"), 98.5),
        ("itermask2_table1", "grey", ("IterMask²", "T1", BEST), 64.9),
        ("itermask2_table1", "white", ("DAE [-∞, +∞]", "T1CE", DATASET), 46.3),
        ("itermask2_table2", "white", ("IterMask²", "ATLAS T1", DATASET), 35.3),
        ("itermask2_table2", "grey", ("DAE", "ISLES FLAIR", "sensitivity"), 66.8),
        ("itermask2_table3", "white", ("-freq", "small", DATASET), 20.7),
        ("itermask2_table3", "grey", ("IterMask²", "large", BEST), 88.7),
        ("itermask2_tau", None, ("T1CE", "80", DATASET), 61.7),
        ("itermask_radius", None, ("FLAIR", "15", DATASET), 75.1),
        ("pddpm", None, ("pDDPM + fixed sampling + L_p", "BraTS21", LABELLED), 49.0),
        ("pddpm", "error", ("DAE", "IXI", "l1"), 0.01012),
        ("cddpm", None, ("cDDPM, SSL + ENS", "ATLAS (T1)", BEST), 24.22),
        ("cddpm", None, ("Thresh", "WMH (T1)", "voxel_auprc"), 4.72),
        ("cddpm", None, ("DDPM, ENS", "MSLUB (T2)", "voxel_auprc"), 6.27),
        ("cddpm_reconstruction", "similarity", ("DAE", "IXI (T2)", "psnr_db"), 36.69),
        ("cddpm_reconstruction", "error", ("RA", "WMH (T1)", "l1"), 0.04921),
        ("cddpm_reconstruction", "ratio", ("cDDPM", "MSLUB (T2)", "l1_ratio"), 4.49),
        ("cleaning", None, ("pDDPM, without median", "BraTS21 (T2)", "voxel_auprc"), 34.99),
        ("cleaning", None, ("DAE, without components", "ATLAS (T1)", "voxel_auprc"), 8.53),
        ("ssim_ens", None, ("DDPM (SSIM-ens)", "WMH (T1)", LABELLED), 13.16),
        ("ssim_sigma", None, ("ATLAS (T1)", "1.0", BEST), 23.88),
        ("anomaly_scores", None, ("cDDPM S_MHD full", "BraTS21 (T2)", BEST), 70.55),
        ("mahalanobis", None, ("cDDPM S_sMHD", "MSLUB (T2)", "voxel_auprc"), 11.47),
        ("mahalanobis_n", None, ("WMH (T1)", "10", BEST), 16.65),
        ("t_test", None, ("WMH (T1), DDPM", "500", BEST), 11.56),
        ("sadm", None, ("SADM_res, DRAEM", "ATLAS (real)", BEST), 27.78),
        ("sadm", None, ("Unet, ATLAS", "DRAEM (synthetic)", "voxel_auprc"), 24.55),
        ("spatial_erasing", None, ("3D-Cube-n", "BraTS 2019", LABELLED), 28.8),
        ("spatial_erasing", None, ("3D-Half-Volume-n", "ATLAS (Stroke)", "dice_best_pooled_oracle"), 33.05),
        ("spatial_erasing", "table2", ("3D-Cube-n", "BraTS 2019, T1ce", LABELLED), 33.4),
    ],
)
def test_numbers_are_as_printed(name: str, table: str | None, key: tuple[str, str, str], value: float) -> None:
    assert expected(name, table)[key] == value


@pytest.mark.parametrize(
    ("name", "table", "cells"),
    [
        ("itermask3d_table1", "table1", 8 * 7 * 6),
        ("itermask3d_v1_table1", "table1", 6 * 6 * 6),
        ("itermask3d_table2", "table2", 2 * 7 * 6),
        ("itermask3d_table4", "table4", 7 * (7 + 7 + 7 + 3) + 1),
        ("itermask2_table1", "white", 4 * 8 * 4),
        ("cddpm", "table2", 18 * 4 * 2),
        ("cleaning", "table3", 16 * 4),
        ("mahalanobis", "table1", 14 * 4 * 2),
        ("sadm", "table1", 22 * 3 * 2),
        ("spatial_erasing", "table1", 14 * 2 * 3),
    ],
)
def test_no_number_of_a_table_is_missing(name: str, table: str, cells: int) -> None:
    assert len(expected(name, table)) == cells


def test_an_oracles_dice_is_not_expected_of_a_label_free_mask() -> None:
    for path in FILES:
        for table in study(path.stem).tables:
            assert not {"dice", "dice_pooled", "assd_mm", "hd95_mm"} & {metric for _, _, metric in table.expected}


def people(n: int, scans: int = 1) -> Cohort:
    return Cohort([Entry(f"sub-{i:03d}_ses-{s}", {}) for i in range(n) for s in range(scans)])


@each_file
def test_parts_are_disjoint_and_take_one_scan_a_subject(path: Path) -> None:
    part, cohort = module(path.stem)["part"], people(9, scans=2)
    parts = [part(index, 2, 3)(cohort) for index in range(3)]
    assert [len(p) for p in parts] == [2, 3, 4]
    assert {id for p in parts for id in p.ids} == {f"sub-{i:03d}_ses-0" for i in range(9)}
    assert part(0, 2, 3)(people(9)).subjects == parts[0].subjects


@each_file
def test_the_skull_is_taken_off_where_there_is_one(path: Path) -> None:
    facts = {"group": "CN", "cdr_highest": "0"}
    cohort = Cohort([Entry(f"sub-{i:04d}", {}, facts=facts) for i in range(600)])
    for source in study(path.stem).sources.values():
        if source.dataset in ("adni", "oasis3") or (source.dataset == "ixi" and source.sequence != "T1w"):
            assert source.part is not None
            assert describe(source.part(cohort).steps) == ["reorient()", "extract(how='robex')"]
        elif source.dataset and source.part and "of_size" not in source.part.__qualname__:
            assert source.part(cohort).steps == ()


@pytest.mark.parametrize("name", [p.stem for p in FILES if "largest_slice" in p.read_text()])
def test_the_slice_with_the_most_lesion(name: str) -> None:
    scan = phantom(grid(shape=(6, 7, 100), spacing=(20.0, 21.0, 1.5)))
    lesion = np.zeros(scan.brain.shape, dtype=bool)
    lesion[2:4, 3, 74], lesion[1:5, 2:5, 81], lesion[:, :, 95] = True, True, True
    chosen = module(name)["largest_slice"](scan.with_(lesion=lesion), torch.Generator())
    # IterMask2's Table 2 is not of BraTS, and looks at all slices.
    k = 95 if name == "itermask2_table2" else 81
    assert chosen.image.shape == (1, 6, 7, 1)
    np.testing.assert_array_equal(chosen.image[..., 0], scan.image[..., k])
    np.testing.assert_array_equal(chosen.lesion[..., 0], lesion[..., k])
    np.testing.assert_allclose(chosen.affine[:3, 3], scan.affine[:3, 3] + k * scan.affine[:3, 2])
    with pytest.raises(BadInput, match="no lesion mask"):
        module(name)["largest_slice"](scan, torch.Generator())


def test_lesions_by_size_are_counted_at_128_x_128() -> None:
    of_size, scans = module("itermask2_table3")["of_size"], []
    for index, wide in enumerate([3, 9, 16, *([1] * 136)]):
        lesion = np.zeros((16, 8, 92), dtype=bool)
        lesion[:wide, :6, 75] = True
        scans.append(Scan(np.ones((1, 16, 8, 92), np.float32), np.eye(4), id=f"sub-{index:03d}", lesion=lesion))
    # One of these voxels is 128 pixels.
    assert of_size(128 * 18, 128 * 54)(Cohort(scans)).ids == ("sub-000",)
    assert of_size(128 * 18, math.inf)(Cohort(scans)).ids == ("sub-000", "sub-001", "sub-002")
    assert len(of_size(0, 128 * 18)(Cohort(scans))) == 136


def test_a_larger_share_of_the_scans_holds_the_smaller() -> None:
    names = module("training_set_size")
    cohort = people(2008)
    shares = {percent: set(names["share"](percent)(cohort).ids) for percent in names["PERCENT"]}
    assert [len(s) for s in shares.values()] == [180, 361, 1084, 1807]
    assert shares[10] < shares[20] < shares[60] < shares[100]
    assert not shares[100] & set(names["part"](1, 1807)(cohort).ids)


def test_the_fixed_threshold_is_found_on_healthy_scans() -> None:
    then = study("itermask3d_table7").entrants["Itermask3D - fixed, FLAIR"].then
    assert then is not None
    assert study("itermask3d_table7").entrants["Itermask3D - adapt, FLAIR"].then is None
    method, healthy = IterMask3D(width=2), Cohort([phantom(grid(shape=(16, 18, 20), spacing=(10.0, 10.5, 8.0)))])
    asked: list[str] = []

    def opened(source: str) -> Cohort:
        asked.append(source)
        return healthy

    then(method, opened)
    assert asked == ["healthy FLAIR, for tau"]
    assert method.tau == healthy_tau(method, healthy, percentile=80)


def test_the_ablations_of_table_5() -> None:
    arguments = {name: entrant.arguments for name, entrant in study("itermask3d_table5").entrants.items()}
    assert arguments["frequency masking only, 3D"] == {"refine": False, "whole_brain": 1.0, "steps": 93_600}
    assert arguments["spatial masking only, 3D"] == {"frequency": False, "steps": 93_600}
    assert study("itermask3d_table5").entrants["frequency masking only, 3D"].calibrate == "ADNI FLAIR, held out"


def test_erasing_is_read_from_its_name() -> None:
    entrants = study("spatial_erasing").entrants
    assert entrants["2D-None"].method == "vae"
    assert (entrants["3D-None"].method, entrants["3D-None"].arguments["latent"]) == ("vae3d", 512)
    half = entrants["3D-Half-Volume-n"].arguments
    assert (half["dims"], half["erase"], half["fill"]) == (3, "half-volume", "noise")
    assert entrants["2D-Patch-0"].arguments["fill"] == "zeros"


def test_tables_without_printed_numbers_say_nothing_of_the_paper() -> None:
    empty: list[Table] = [t for name in ("patch_size", "training_set_size") for t in study(name).tables]
    assert not any(t.expected for t in empty)
