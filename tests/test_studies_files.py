"""The studies: each loads, fits together, says what it needs, fits nothing twice, and holds numbers as they were printed."""

from __future__ import annotations

import contextlib
import math
import re
from functools import cache
from itertools import product
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
from anomri.preprocess import describe, preset, run
from anomri.scan import Scan
from anomri.study import METRICS, Entrant, Study, Table, load, summarise
from anomri.study.changes import artefact, mask_of_mni
from anomri.study.measures import MEASURES
from anomri.study.papers.itermask import most_lesion
from anomri.study.plan import named
from conftest import grid, phantom

STUDIES = Path(__file__).parent.parent / "studies"
README = (STUDIES / "README.md").read_text()
LISTED = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) \|", README, re.M)
FILES = [STUDIES / f"{name}.py" for name in LISTED]
PAPERS = [path for path in FILES if f"[{path.name}]" not in README[: README.index("\n## ")]]
"""The studies of papers: those under a heading of the README. Above are those of our own."""
NEEDS = {
    "dice": "overlap",
    "sensitivity": "overlap",
    "precision": "overlap",
    "jaccard": "overlap",
    "missed": "overlap",
    "dice_pooled": "overlap",
    "voxel_auroc": "voxel",
    "voxel_auprc": "voxel",
    "dice_best_scan_oracle": "oracle",
    "dice_best_iteration_oracle": "oracle",
    "dice_best_dataset_oracle": "oracle",
    "dice_best_pooled_oracle": "oracle",
    "dice_labelled_validation": "oracle",
    "dice_pooled_labelled_validation": "oracle",
    "sensitivity_best_dataset_oracle": "oracle",
    "precision_best_dataset_oracle": "oracle",
    "jaccard_best_dataset_oracle": "oracle",
    "voxel_auroc_pooled": "oracle",
    "voxel_auprc_pooled": "oracle",
    "assd_mm": "surface",
    "hd95_mm": "surface",
    "lesion_f1": "lesions",
    "lesion_sensitivity": "lesions",
    "lesion_precision": "lesions",
    "region_distance_mm": "region",
    "slice_auprc": "slices",
    "psnr_db": "healthy",
    "ssim": "healthy",
    "l1": "healthy",
    "l1_ratio": "healthy",
}
ALWAYS = {"mask_ml", "lesion_ml", "volume_ml", "mean_error", "r2", "seconds_detect", "parameters_million"}
OWN_MASK = {metric for metric, measure in NEEDS.items() if measure in ("overlap", "surface", "region", "lesions")}
"""What is measured of a method's own mask, which saw no label."""


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


def variables(name: str) -> set[str]:
    """The variables with the data of a study: of its sources, and of changes that draw from a folder."""
    changed = {case.change.variable for case in study(name).cases if isinstance(case.change, mask_of_mni)}
    return {str(source.variable) for source in study(name).sources.values()} | changed


each_file = pytest.mark.parametrize("path", FILES, ids=[p.stem for p in FILES])


def test_every_study_is_listed_once() -> None:
    assert sorted(LISTED) == sorted(p.stem for p in STUDIES.glob("*.py"))


def test_every_paper_is_there() -> None:
    tables = {f"itermask3d_table{n}" for n in range(1, 8)} | {f"itermask2_table{n}" for n in range(1, 4)}
    sweeps = {
        "itermask3d_severity", "itermask2_tau", "itermask_radius", "t_test", "patch_size", "ssim_sigma", "mahalanobis_n",
        "training_set_size", "cleaning",
    }  # fmt: skip
    assert tables | sweeps | {"itermask3d_v1_table1", "spatial_erasing"} <= {p.stem for p in PAPERS}


def test_it_is_known_what_each_metric_is_measured_by() -> None:
    assert set(NEEDS) | ALWAYS == {metric.column or name for name, metric in METRICS.items() if metric.kind != "case"}
    assert set(NEEDS.values()) <= set(MEASURES)


@each_file
def test_is_named_after_its_file(path: Path) -> None:
    assert study(path.stem).name.replace("-", "_") == path.stem


@each_file
def test_says_what_it_needs(path: Path) -> None:
    said = str(module(path.stem)["__doc__"])
    for section in ("\nData\n", "\nSplit\n", "\nCommand", "\nExpected\n"):
        assert section in said
    command = said[said.index("\nCommand") : said.index("\nExpected")]
    assert re.search(rf"anomri study run studies/{path.name}\b[^#]*--out \S+", command)
    data = said[said.index("\nData\n") : said.index("\nSplit\n")]
    assert set(re.findall(r"\$([A-Z0-9_]+)", data)) == variables(path.stem)
    assert set(re.findall(r"--data ([A-Z0-9_]+)=", command)) <= variables(path.stem)
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
            if any("labelled_validation" in metric for metric in table.metrics):
                other = one.case(str(one.case(name).threshold_from))
                assert other.source != one.case(name).source
                assert set(one.case(name).only or one.entrants) <= set(other.only or one.entrants)
    for plot in one.plots:
        for name in plot.cases or [case.name for case in one.cases]:
            facts = {"entrant", *one.case(name).facts}
            if plot.kind == "curve":
                assert plot.x in facts
                assert plot.by in facts
    names = [thing.name for thing in (*one.tables, *one.plots)]
    assert all(re.fullmatch(r"[a-z0-9_-]+", name) for name in names)


def learned_from(one: Study, entrant: Entrant) -> tuple[set[str], set[str]]:
    """The sources that an entrant is fitted on, and those that pick its weights and set its thresholds."""
    origin, asked = one.entrants[entrant.shares] if entrant.shares else entrant, set()

    def opened(source: str) -> Cohort:
        asked.add(source)
        raise LookupError

    if entrant.then is not None:
        with contextlib.suppress(LookupError):
            entrant.then(IterMask3D(width=2), opened)
    return {*named(origin.fit)}, asked | {*named(origin.validate), *named(entrant.calibrate)}


@each_file
def test_what_is_looked_at_is_never_learned_from(path: Path) -> None:
    one, looked_at = study(path.stem), {case.source for case in study(path.stem).cases}

    @cache
    def subjects(name: str) -> set[str]:
        source = one.sources[name]
        cohort = everyone({"HEALTHY_T1": 58, "MIXED_NORMALS": 2008}.get(str(source.variable), 600))
        return set((source.part(cohort) if source.part else cohort).subjects)

    for entrant in one.entrants.values():
        fitted, others = learned_from(one, entrant)
        for name, held_out in {*product(fitted, looked_at | others), *product(others, looked_at)}:
            if one.sources[name].variable == one.sources[held_out].variable:
                assert not subjects(name) & subjects(held_out), (name, held_out)
    for case in one.cases:
        if case.threshold_from:
            assert not subjects(case.source) & subjects(one.case(case.threshold_from).source), case.name


@each_file
def test_what_shares_weights_says_nothing_else_of_them(path: Path) -> None:
    entrants = study(path.stem).entrants
    for entrant in entrants.values():
        if entrant.shares:
            origin = entrants[entrant.shares]
            assert (origin.shares, origin.method) == (None, entrant.method)
            assert not any((entrant.arguments, entrant.preset, entrant.model, entrant.fit, entrant.validate))
            assert entrant.pipeline == "itermask3d", "not said, its origin's holds"
            # Version 1 printed other numbers of the same DAE.
            assert entrant.set or entrant.then or path.stem == "itermask3d_table4"
            assert all(
                name not in origin.arguments or origin.arguments[name] != entrant.set[name] for name in entrant.set
            )


@each_file
def test_nothing_is_fitted_twice(path: Path) -> None:
    fitted = [
        (e.method, e.arguments, e.pipeline, e.preset, e.fit, e.validate)
        for e in study(path.stem).entrants.values()
        if e.fit
    ]
    assert all(fitted.count(one) == 1 for one in fitted)


BEHRENDT = [path.stem for path in PAPERS if f"[{path.name}]" in README[README.index("## Behrendt's thesis") :]]
PIPELINES = {
    **dict.fromkeys(BEHRENDT, "behrendt"),
    **dict.fromkeys(("spatial_erasing", "training_set_size"), "bengs"),
    **{path.stem: "itermask2" for path in PAPERS if path.stem.startswith("itermask2_")},
}
"""The preset of the paper that a study is of; IterMask3D's for the others."""


@each_file
def test_what_is_fitted_is_preprocessed_as_in_its_paper(path: Path) -> None:
    fitted = [entrant for entrant in study(path.stem).entrants.values() if entrant.fit]
    assert {entrant.pipeline for entrant in fitted} <= {PIPELINES.get(path.stem, "itermask3d")}


def test_the_papers_of_each_preset() -> None:
    """Written by hand, where the lists above are read off the README."""
    of = {preset: {name for name, said in PIPELINES.items() if said == preset} for preset in set(PIPELINES.values())}
    assert of["bengs"] == {"spatial_erasing", "training_set_size"}
    assert of["itermask2"] == {"itermask2_table1", "itermask2_table2", "itermask2_table3", "itermask2_tau"}
    assert of["behrendt"] == {
        "pddpm", "patch_size", "t_test", "cddpm", "cddpm_reconstruction", "cleaning", "ssim_ens", "ssim_sigma", "anomaly_scores",
        "mahalanobis", "mahalanobis_n", "sadm",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["itermask2_table2", "itermask2_tau", "itermask3d_table3", "itermask3d_table6"])
def test_what_looks_at_slices_is_fitted_apart_with_the_preset_of_itermask2(name: str) -> None:
    """The slice is chosen of what that preset gives: alone it would not pass for a brain, nor have slices 70 to 89."""
    own = [entrant for entrant in study(name).entrants.values() if not entrant.shares]
    assert {(entrant.fit, entrant.pipeline) for entrant in own} == {(None, "itermask2")}
    slices = None if name == "itermask2_table2" else (70, 89)
    assert {entrant.preset.get("slices", (70, 89)) for entrant in own} == {slices}
    assert all(case.prepared and case.change is most_lesion for case in study(name).cases)


@each_file
def test_methods_that_are_there_take_their_arguments(path: Path) -> None:
    for entrant in study(path.stem).entrants.values():
        if entrant.method in {m.name for m in METHODS}:
            assert make(entrant.method, **entrant.arguments).name == entrant.method
            assert set(entrant.set) <= set(make(entrant.method).arguments)
    for case in study(path.stem).cases:
        if isinstance(case.change, artefact):
            assert known_artefact(case.change.name).name == case.change.name


@each_file
def test_readme_tells_of_it_and_of_what_it_waits_for(path: Path) -> None:
    line = next(line for line in README.splitlines() if line.startswith(f"| [{path.name}]"))
    *_, data, waits = line.strip("|").split("|")
    assert variables(path.stem) == set(re.findall(r"`([A-Z0-9_]+)`", data))
    missing = {e.method for e in study(path.stem).entrants.values()} - {m.name for m in METHODS}
    assert set(re.findall(r"`([a-z0-9_]+)`", waits)) == missing


def test_readme_says_what_each_waiting_method_is() -> None:
    told = re.findall(r"^\| `(\w+)` \|", README, re.M)
    asked = {entrant.method for path in FILES for entrant in study(path.stem).entrants.values()}
    assert sorted(told) == sorted(asked - {m.name for m in METHODS})


FPR80, FNR80, FNR90 = "FPR80 (published code)", "FNR80 (published code)", "FNR90 (published code)"
BEST, DATASET, LABELLED = "dice_best_scan_oracle", "dice_best_dataset_oracle", "dice_labelled_validation"
SENSITIVITY, PRECISION = "sensitivity_best_dataset_oracle", "precision_best_dataset_oracle"


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
        ("itermask3d_table3", None, ("IterMask² + thres", "T2", PRECISION), 72.0),
        ("itermask3d_table3", None, ("AE", "T1", "ssim"), 95.3),
        ("itermask3d_table4", None, ("IterMask3D", "BraTS FLAIR", DATASET), 69.7),
        ("itermask3d_table4", None, ("IterMask3D", "BraTS FLAIR", "jaccard_best_dataset_oracle"), 56.7),
        ("itermask3d_table4", None, ("DAE (tuned)", "BraTS T2", "psnr_db"), 1.0),
        ("itermask3d_table4", None, ("DAE (1.2std, v1)", "ISLES FLAIR", DATASET), 20.9),
        ("itermask3d_table4", None, ("DAE (orig)", "ISLES FLAIR", DATASET), 30.3),
        ("itermask3d_table4", None, ("Transformer", "BraTS FLAIR", DATASET), 61.7),
        ("itermask3d_table5", None, ("IterMask²", "3D BraTS FLAIR (3D Metric)", PRECISION), 77.8),
        ("itermask3d_table5", None, ("spatial masking only", "3D BraTS FLAIR (3D Metric)", DATASET), 40.4),
        ("itermask3d_table6", None, ("IterMask² - adapt", "T2", PRECISION), 70.2),
        ("itermask3d_table7", None, ("Itermask3D - fixed", "Failed skull-stripping", "AUPRC"), 76.6),
        ("itermask3d_severity", None, ("ghosting", "1.0", "AUROC"), 98.0),
        ("itermask2_table1", "white", ("IterMask²", "FLAIR", "ssim"), 98.5),
        ("itermask2_table1", "grey", ("IterMask²", "T1", BEST), 64.9),
        ("itermask2_table1", "white", ("DAE [-∞, +∞]", "T1CE", DATASET), 46.3),
        ("itermask2_table2", "white", ("IterMask²", "ATLAS T1", DATASET), 35.3),
        ("itermask2_table2", "white", ("AE", "ISLES FLAIR", SENSITIVITY), 47.5),
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
        ("spatial_erasing", None, ("3D-Half-Volume-n", "ATLAS (Stroke)", "dice_pooled_labelled_validation"), 33.05),
        ("spatial_erasing", None, ("2D-None", "BraTS 2019", "voxel_auprc_pooled"), 21.19),
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
        ("itermask3d_table4", "table4", 6 * (7 + 7 + 7 + 3) + 1),
        ("itermask3d_table3", "table3", 4 * (8 * 5 + 4)),
        ("itermask3d_table5", "table5", 3 * (3 + 4)),
        ("itermask3d_table6", "table6", 4 * 2 * 3),
        ("itermask2_table1", "white", 4 * 8 * 4),
        ("itermask2_table1", "grey", 4 * 2),
        ("cddpm", "table2", 18 * 4 * 2),
        ("cleaning", "table3", 16 * 4),
        ("mahalanobis", "table1", 14 * 4 * 2),
        ("sadm", "table1", 22 * 3 * 2),
        ("spatial_erasing", "table1", 14 * 2 * 3),
    ],
)
def test_no_number_of_a_table_is_missing(name: str, table: str, cells: int) -> None:
    assert len(expected(name, table)) == cells


@each_file
def test_an_oracles_numbers_are_not_expected_of_a_label_free_mask_which_stands_beside_them(path: Path) -> None:
    for table in study(path.stem).tables:
        assert not OWN_MASK & {metric for _, _, metric in table.expected}
        for metric in table.metrics:
            if metric.endswith("_best_dataset_oracle") and "overlap" in study(path.stem).measures:
                assert metric.removesuffix("_best_dataset_oracle") in table.metrics


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("itermask3d_table3", 8 * 4),
        ("itermask3d_table4", 8 * 2),
        ("itermask3d_table5", 6),
        ("itermask3d_table6", 4),
        ("itermask3d_table7", 2),
        ("itermask2_table3", 3),
        ("itermask2_tau", 4),
        ("itermask_radius", 6 * 5),
        ("t_test", 3 * 2),
        ("cddpm", 15 * 2),
        ("cleaning", 4 * 2),
        ("ssim_ens", 3 * 2),
        ("ssim_sigma", 2),
        ("anomaly_scores", 2 * 2),
        ("mahalanobis", 11 * 2),
        ("mahalanobis_n", 2),
        ("sadm", 22 - 6),
    ],
)
def test_lines_that_differ_at_test_time_only_share_their_weights(name: str, fits: int) -> None:
    entrants = study(name).entrants
    assert len({study(name).weights_of(entrant) for entrant in entrants}) == fits


@pytest.mark.parametrize(
    ("name", "cleaning"),
    [
        *(
            (name, "behrendt")
            for name in ("cddpm", "pddpm", "patch_size", "t_test", "ssim_ens", "ssim_sigma", "anomaly_scores")
        ),
        *((name, "none") for name in ("mahalanobis", "mahalanobis_n")),
        *((name, "median+erosion") for name in ("spatial_erasing", "training_set_size")),
        ("sadm", "median"),
    ],
)
def test_maps_are_cleaned_as_the_paper_says(name: str, cleaning: str) -> None:
    """The thesis, section 3.1.2, and its papers; that of the Mahalanobis distance has them as they are."""
    entrants = study(name).entrants
    for line, entrant in entrants.items():
        if entrant.method != "sadm":
            own = {**entrants[study(name).weights_of(line)].arguments, **entrant.set}
            assert own.get("cleaning", "none") == cleaning, line


@cache
def everyone(n: int) -> Cohort:
    """People who are all healthy by the tables of the data sets."""
    facts = {"group": "CN", "cdr_highest": "0"}
    return Cohort([Entry(f"sub-{i:04d}", {}, facts=facts) for i in range(n)])


@each_file
def test_the_skull_is_taken_off_where_there_is_one(path: Path) -> None:
    cohort = everyone(600)
    for source in study(path.stem).sources.values():
        if source.dataset in ("adni", "oasis3") or (source.dataset == "ixi" and source.sequence != "T1w"):
            assert source.part is not None
            assert describe(source.part(cohort).steps) == ["reorient()", "extract(how='robex')"]
        elif source.dataset and source.part and "of_size" not in source.part.__qualname__:
            assert source.part(cohort).steps == ()


def test_of_the_slices_of_the_preset_the_one_with_the_most_lesion() -> None:
    scan = phantom(grid(shape=(40, 42, 155), spacing=(5.0, 4.5, 1.0)))
    lesion = np.zeros(scan.brain.shape, dtype=bool)
    # Not all of a slice in the brain's box, and more of one that the preset leaves out.
    lesion[14:24, 16:24, 81], lesion[14:20, 16:20, 75], lesion[:, :, 95] = True, True, True
    seen = run(preset("itermask2"), scan.with_(lesion=lesion))
    slice = most_lesion(seen, torch.Generator())
    assert slice.image.shape == (1, 128, 128, 1)
    np.testing.assert_array_equal(slice.image[..., 0], seen.image[..., 11])
    np.testing.assert_array_equal(slice.lesion[..., 0], seen.lesion[..., 11])
    whole = run(preset("itermask2", slices=None), scan.with_(lesion=lesion))
    np.testing.assert_array_equal(most_lesion(whole, torch.Generator()).image[..., 0], whole.image[..., 95])
    with pytest.raises(BadInput, match="no lesion mask"):
        most_lesion(scan, torch.Generator())


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
    cohort = everyone(2008)
    shares = {percent: set(names["share"](percent)(cohort).ids) for percent in names["PERCENT"]}
    assert [len(s) for s in shares.values()] == [180, 361, 1084, 1807]
    assert shares[10] < shares[20] < shares[60] < shares[100]
    assert not shares[100] & set(names["part"](1, 1807)(cohort).ids)


def test_the_fixed_threshold_is_found_on_healthy_scans() -> None:
    entrant = study("itermask3d_table7").entrants["Itermask3D - fixed, FLAIR"]
    then = entrant.then
    assert then is not None
    assert (entrant.shares, entrant.score) == ("Itermask3D - adapt, FLAIR", "mean_error")
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
    entrants = study("itermask3d_table5").entrants
    arguments = {name: entrant.arguments for name, entrant in entrants.items()}
    assert arguments["frequency masking only, 3D"] == {"refine": False, "whole_brain": 1.0, "steps": 93_600}
    assert arguments["spatial masking only, 3D"] == {"frequency": False, "steps": 93_600}
    assert entrants["frequency masking only, 3D"].calibrate == "ADNI FLAIR, held out"
    assert entrants["frequency masking only, 2D"].shares == "IterMask², 2D"
    assert entrants["frequency masking only, 2D"].set == {"refine": False}


def test_tables_without_printed_numbers_say_nothing_of_the_paper() -> None:
    empty: list[Table] = [t for name in ("patch_size", "training_set_size") for t in study(name).tables]
    assert not any(t.expected for t in empty)
