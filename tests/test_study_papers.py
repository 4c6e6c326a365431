"""What the studies of papers share: parts that do not overlap, the slice of a 2D test, lines that share weights, printed numbers; and
protocols whose entrants, sources and cases fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomri.cohort import Cohort, Entry
from anomri.errors import BadCall, BadInput
from anomri.preprocess import describe
from anomri.scan import Scan
from anomri.study import Case, Entrant, Study, load
from anomri.study.changes import artefact
from anomri.study.papers import expected, lines, part, robex
from anomri.study.papers.behrendt import (
    LABELLED,
    erasing,
    ixi,
    ixi_to_fit,
    labelled,
    mixed_normals,
    thesis_cases,
    thesis_entrants,
)
from anomri.study.papers.itermask import (
    BEST_THRESHOLD,
    FIT,
    HELD_OUT,
    SEQUENCES,
    artefact_cases,
    best_threshold_table,
    brats,
    fitted,
    grey_table,
    healthy,
    largest_slice,
    most_lesion,
    real_artefacts,
    slice_cases,
    slice_entrants,
    synthetic_cases,
)
from conftest import grid, phantom

STUDIES = Path(__file__).parent.parent / "studies"
GROUPS = ("CN", "AD", "CN")


def people(n: int, scans: int = 1) -> Cohort:
    """`n` subjects of some scans each; two of three are "CN"."""
    return Cohort([
        Entry(f"sub-{i:02d}_ses-{s}", {}, facts={"group": GROUPS[i % 3]}) for i in range(n) for s in range(scans)
    ])  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.integers(0, 5),
    st.integers(1, 3),
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
def test_the_parts_of_a_split_hold_every_subject_once(sizes, left, scans, seed, shuffled):
    cohort = people(sum(sizes) + left, scans)
    parts = [part(index, *sizes, seed=seed)(cohort) for index in range(len(sizes) + 1)]
    assert [len(p) for p in parts] == [*sizes, left]
    assert sorted(id for p in parts for id in p.ids) == sorted(id for id in cohort.ids if id.endswith("ses-0"))
    order = list(range(len(cohort)))
    shuffled.shuffle(order)
    again = [part(index, *sizes, seed=seed)(cohort.subset(order)) for index in range(len(parts))]
    assert [set(p.subjects) for p in again] == [set(p.subjects) for p in parts]


def test_another_seed_is_another_part():
    cohort = people(40)
    assert part(0, 20)(cohort).ids == part(0, 20, seed=0)(cohort).ids
    assert part(0, 20)(cohort).ids != part(0, 20, seed=1)(cohort).ids


def test_only_scans_of_which_a_fact_is_true_are_taken():
    parts = [part(index, 3, facts={"group": "CN"})(people(9)) for index in (0, 1)]
    assert [len(p) for p in parts] == [3, 3]
    assert {fact for p in parts for fact in p.column("group")} == {"CN"}
    with pytest.raises(BadInput, match="no scan with group 'MCI'"):
        part(0, 3, facts={"group": "MCI"})(people(9))


def test_too_few_subjects_are_told():
    with pytest.raises(BadCall, match=r"4 subjects .* 3 \+ 2 \+ 0 = 5"):
        part(0, 3, 2)(people(4))


def test_the_skull_is_taken_off_where_it_is_said():
    assert part(0, 2)(people(5)).steps == ()
    taken = part(1, 2, skull=True)(people(5))
    assert describe(taken.steps) == ["reorient()", "extract(how='robex')"]
    assert taken.ids == part(1, 2)(people(5)).ids


def test_robex_keeps_a_brain_mask_that_is_there_and_turns_it_to_ras():
    scan = phantom(grid("PSL", shape=(16, 18, 20), spacing=(10.0, 10.5, 8.0)))
    head = scan.with_(image=scan.image + 5)
    (found,) = robex(Cohort([head]))
    upright = phantom(grid("RAS", shape=(16, 18, 20), spacing=(10.0, 10.5, 8.0)))
    np.testing.assert_allclose(found.affine, upright.affine, atol=1e-4)
    np.testing.assert_array_equal(found.brain, upright.brain)
    np.testing.assert_allclose(found.image, np.where(upright.brain, upright.image + 5, 0), rtol=1e-6)


def lesioned(shape=(6, 7, 100), **voxels: tuple[slice, slice]) -> Scan:
    """A scan with a lesion in slices `k70=(slice, slice)`."""
    scan = phantom(grid(shape=shape, spacing=(20.0, 21.0, 1.5)))
    lesion = np.zeros(scan.brain.shape, dtype=bool)
    for name, where in voxels.items():
        lesion[(*where, int(name[1:]))] = True
    return scan.with_(lesion=lesion)


@pytest.mark.parametrize("k", [70, 81, 89])
def test_the_slice_with_the_most_lesion_of_those_from_70_to_89(k):
    small, large, all = (slice(2, 4), slice(3, 4)), (slice(1, 5), slice(2, 5)), (slice(None), slice(None))
    scan = lesioned(**{"k75": small, f"k{k}": large, "k69": all, "k90": all})
    chosen = largest_slice(scan, torch.Generator())
    assert chosen.image.shape == (1, 6, 7, 1)
    np.testing.assert_array_equal(chosen.image[..., 0], scan.image[..., k])
    np.testing.assert_array_equal(chosen.lesion[..., 0], scan.lesion[..., k])
    np.testing.assert_array_equal(chosen.brain[..., 0], scan.brain[..., k])
    np.testing.assert_allclose(chosen.affine[:3, 3], scan.affine[:3, 3] + k * scan.affine[:3, 2])


def test_of_slices_with_as_much_lesion_the_lowest():
    where = (slice(2, 4), slice(3, 5))
    chosen = largest_slice(lesioned(k84=where, k77=where), torch.Generator())
    np.testing.assert_array_equal(chosen.image[..., 0], lesioned().image[..., 77])


def test_a_scan_that_has_no_such_slice_is_told():
    with pytest.raises(BadInput, match="no lesion mask"):
        largest_slice(lesioned().with_(lesion=None), torch.Generator())
    with pytest.raises(BadInput, match="89 axial slices, the slice is one of 70 to 89"):
        largest_slice(lesioned(shape=(6, 7, 89)), torch.Generator())


MODELS = {
    "plain": ("cddpm", {"t_test": 500, "width": 8}),
    "more": ("cddpm", {"t_test": (250, 500), "width": 8, "score": None}),
    "other": ("ae", {}),
}


def test_lines_of_a_group_are_fitted_alike():
    found = lines(MODELS, "T2w", fit="fit", validate="validate", calibrate="calibrate")
    assert list(found) == ["plain, T2w", "more, T2w", "other, T2w"]
    for line, (method, arguments) in MODELS.items():
        same = Entrant(method, arguments, fit="fit", validate="validate", calibrate="calibrate")
        assert found[f"{line}, T2w"] == same


def test_a_line_that_shares_weights_sets_what_differs_and_fits_nothing():
    found = lines(MODELS, "T1w", shares={"more": "plain"}, fit="fit", validate="validate", calibrate="calibrate")
    assert found["more, T1w"] == Entrant(
        "cddpm", shares="plain, T1w", set={"t_test": (250, 500), "score": None}, calibrate="calibrate"
    )
    assert [found[f"{line}, T1w"].fit for line in MODELS] == ["fit", None, "fit"]
    assert lines(MODELS, "T1w")["plain, T1w"] == Entrant(*MODELS["plain"])


def test_printed_numbers_are_found_by_line_group_and_metric():
    printed = {"BraTS": {"AE": (16.0, None, 7.5), "DAE": (60.0, 98.7, 0.0)}, "ISLES": {"AE": (7.4, 93.3, 1.0)}}
    assert expected(printed, ("dice", "voxel_auroc", None)) == {
        ("AE", "BraTS", "dice"): 16.0,
        ("DAE", "BraTS", "dice"): 60.0,
        ("DAE", "BraTS", "voxel_auroc"): 98.7,
        ("AE", "ISLES", "dice"): 7.4,
        ("AE", "ISLES", "voxel_auroc"): 93.3,
    }
    assert expected(printed, (None, None, "ssim"))["DAE", "BraTS", "ssim"] == 0.0
    with pytest.raises(ValueError, match="argument 2 is"):
        expected(printed, ("dice", "voxel_auroc"))


def fits_together(entrants, sources, cases) -> Study:
    """A study of these, which raises where a name is of nothing, and cases that share no line of a table."""
    study = Study("one", "One", "a paper", entrants, sources, cases, measures=(), tables=())
    told = [(*case.facts.values(), case.name if not case.facts else "") for case in cases]
    assert len(set(told)) == len(told)
    for case in cases:
        for name in case.only or ():
            fit = entrants[study.weights_of(name)].fit
            assert fit is None or sources[fit].sequence == sources[case.source].sequence
        if case.against:
            assert sources[study.case(case.against).source].sequence == sources[case.source].sequence
    return study


def subjects(source, n: int = 600) -> set[str]:
    """Those of a source, of people of whom one in three is healthy by no table."""
    facts = [{"group": GROUPS[i % 3], "cdr_highest": "0" if i % 3 != 1 else "0.5"} for i in range(n)]
    cohort = Cohort([Entry(f"sub-{i:03d}", {}, facts=fact) for i, fact in enumerate(facts)])
    return set(source.part(cohort).subjects)


def test_tumours_are_of_the_same_139_subjects_in_every_sequence():
    sources = brats()
    assert {name: source.sequence for name, source in sources.items()} == {
        "BraTS FLAIR": "FLAIR",
        "BraTS T1CE": "T1ce",
        "BraTS T2": "T2w",
        "BraTS T1": "T1w",
    }
    first, *others = (subjects(source) for source in sources.values())
    assert len(first) == 139
    assert all(other == first for other in others)
    assert list(brats("T2", "FLAIR")) == ["BraTS T2", "BraTS FLAIR"]


def test_slices_are_looked_at_by_the_entrant_of_their_sequence():
    cases, entrants = slice_cases(MODELS), slice_entrants(MODELS, {"more": "plain"})
    fits_together(entrants, brats(), cases)
    assert len(cases) == len(entrants) == 3 * len(SEQUENCES)
    assert cases[4] == Case(
        "BraTS T1CE: more",
        "BraTS T1CE",
        most_lesion,
        prepared=True,
        facts={"sequence": "T1CE", "model": "more"},
        only=["more, T1CE"],
    )
    assert entrants["more, T1CE"].shares == "plain, T1CE"
    assert {entrant.fit for entrant in entrants.values()} == {None}


PRINTED = {"all": {"DAE": (79.7, 79.1, 84.5), "-freq": (64.2, None, None)}, "small": {"DAE": (47.3, None, 1.0)}}


def test_the_own_mask_stands_beside_an_oracles_numbers_and_nothing_is_expected_of_it():
    table = best_threshold_table("white", "White", BEST_THRESHOLD, PRINTED, rows=("model",), across=("size",))
    assert table.metrics == ("dice", "sensitivity", "precision", *BEST_THRESHOLD)
    assert (table.name, table.title, table.rows, table.across) == ("white", "White", ("model",), ("size",))
    assert table.expected == expected(PRINTED, BEST_THRESHOLD)
    assert best_threshold_table("a", "A", BEST_THRESHOLD, PRINTED).rows == ("entrant",)


def test_of_grey_cells_only_dice_is_expected():
    table = grey_table(PRINTED, across=("size",), cases=["all"], entrants=["DAE"])
    assert (table.rows, table.across, table.cases, table.entrants) == (("entrant",), ("size",), ["all"], ["DAE"])
    assert table.metrics == ("dice_best_scan_oracle",)
    assert table.expected == {
        ("DAE", "all", "dice_best_scan_oracle"): 79.7,
        ("-freq", "all", "dice_best_scan_oracle"): 64.2,
        ("DAE", "small", "dice_best_scan_oracle"): 47.3,
    }


@pytest.mark.parametrize(("sequence", "name"), [("FLAIR", "adni"), ("T2w", "oasis3")])
def test_of_healthy_subjects_25_are_held_out(sequence, name):
    sources = healthy(sequence, "to fit", "held out")
    assert list(sources) == [FIT[sequence], HELD_OUT[sequence]]
    assert {(source.dataset, source.sequence) for source in sources.values()} == {(name, sequence)}
    to_fit, held_out = (subjects(source) for source in sources.values())
    assert (len(to_fit), len(held_out), len(to_fit & held_out)) == (375, 25, 0)
    assert list(healthy(sequence, "held out")) == [HELD_OUT[sequence]]
    everyone = Cohort([Entry(f"sub-{i:02d}", {}, facts={"group": "CN", "cdr_highest": "0"}) for i in range(30)])
    for source in sources.values():
        assert describe(source.part(everyone).steps) == ["reorient()", "extract(how='robex')"]


@pytest.mark.parametrize(
    "table", ["itermask3d_table1", "itermask3d_table2", "itermask3d_table4", "itermask3d_v1_table1"]
)
def test_baselines_of_whole_scans_have_itermask3ds_network_and_steps(table):
    # v2, section 4.4: "AE, Cyclic UNet, and DAE using 3D architectures with the same network backbone as our method".
    study = load(STUDIES / f"{table}.py")
    alike = {name: e.arguments for name, e in study.entrants.items() if e.method in ("ae", "dae") and e.shares is None}
    ours = {e.arguments["steps"] for e in study.entrants.values() if e.method == "itermask3d"}
    assert {"ae", "dae"} == {study.entrants[name].method for name in alike}
    for name, arguments in alike.items():
        assert {"dims": 3, "width": 16, "batch": 2}.items() <= arguments.items(), name
        assert arguments["steps"] in ours, name
        assert study.entrants[name].method == "dae" or arguments["backbone"] == "residual", name


def test_itermask3d_is_fitted_for_its_steps():
    assert fitted("itermask3d", {"refine": False}, "FLAIR") == Entrant(
        "itermask3d", {"refine": False, "steps": 93_600}, fit="ADNI FLAIR, to fit"
    )
    assert fitted("itermask3d", {}, "T2w", score="mean_error").arguments == {"steps": 73_000}
    assert fitted("dae", {"noise": 1.2}, "T2w", score="mean_error") == Entrant(
        "dae", {"noise": 1.2}, fit="OASIS-3 T2w, to fit", score="mean_error"
    )


def test_artefacts_are_put_into_the_normal_scans():
    cases = synthetic_cases({"Ghosts": "ghosting", "zipper": "zipper"})
    entrants = {"AE": fitted("ae", {}, "FLAIR")}
    Study(
        "one", "One", "a paper", entrants,
        {**healthy("FLAIR", "to fit", "held out"), **healthy("T2w", "held out")},
        cases, measures=(), tables=(),
    )  # fmt: skip
    normal, other, ghosts, _ = cases
    assert (normal.anomalous, normal.against, normal.change) == (False, None, None)
    assert (other.source, other.against) == (HELD_OUT["T2w"], "normal")
    assert ghosts == Case("Ghosts", normal.source, artefact("ghosting"), prepared=True, against="normal")


def test_real_artefacts_have_controls_of_their_sequence():
    groups = {
        "metal": ("T2w", "T2w with metal", None),
        "strips": ("FLAIR", "ADNI FLAIR, failed strips", None),
        "zipper": ("FLAIR", HELD_OUT["FLAIR"], artefact("zipper")),
    }
    entrants = {f"{model}, {sequence}": fitted(model, {}, sequence) for model in ("ae", "dae") for sequence in FIT}
    sources = {
        **healthy("T2w", "to fit", "held out"),
        **healthy("FLAIR", "to fit", "held out"),
        **real_artefacts("this test"),
    }
    cases = artefact_cases(groups, HELD_OUT, ["ae", "dae"])
    fits_together(entrants, sources, cases)
    controls, changed = cases[:2], cases[2:]
    assert [(c.name, c.anomalous, c.only) for c in controls] == [
        ("normal T2w", False, ["ae, T2w", "dae, T2w"]),
        ("normal FLAIR", False, ["ae, FLAIR", "dae, FLAIR"]),
    ]
    assert len(changed) == 3 * 2
    assert changed[-1] == Case(
        "zipper: dae",
        HELD_OUT["FLAIR"],
        artefact("zipper"),
        prepared=True,
        against="normal FLAIR",
        facts={"artefact": "zipper", "model": "dae"},
        only=["dae, FLAIR"],
    )
    assert sources["ADNI FLAIR, failed strips"].offered.endswith("as this test says")
    # Stripped already, and failed.
    assert (sources["T2w with metal"].part, sources["ADNI FLAIR, failed strips"].part) == (robex, None)


def test_ixi_is_split_in_three():
    parts = [subjects(ixi("T1w", use)) for use in ("to fit", "to validate", "test")]
    assert [len(p) for p in parts] == [358, 44, 600 - 402]
    assert len(set().union(*parts)) == 600
    assert ixi("T1w", "test").part(people(403)).steps == ()
    assert describe(ixi("T2w", "test").part(people(403)).steps) == ["reorient()", "extract(how='robex')"]


def test_labelled_scans_are_for_validation_or_for_the_test():
    sources = labelled({"Sclerosis": ("mslub", "T2w", 10)}, "validation", "test")
    assert list(sources) == ["Sclerosis, validation", "Sclerosis, test"]
    validation, test = (subjects(source, 30) for source in sources.values())
    assert (len(validation), len(test), len(validation & test)) == (10, 20, 0)
    assert list(labelled(LABELLED, "test")) == [f"{data}, test" for data in LABELLED]


def test_a_table_of_the_thesis_fits_together():
    entrants, cases = thesis_entrants(MODELS, {"more": "plain"}), thesis_cases(MODELS)
    fits_together(entrants, {**ixi_to_fit(), **labelled(LABELLED, "test")}, cases)
    method, arguments = MODELS["plain"]
    assert entrants["plain, T2w"] == Entrant(
        method,
        {**arguments, "cleaning": "behrendt"},
        fit="IXI T2w, to fit",
        validate="IXI T2w, to validate",
        calibrate="IXI T2w, to validate",
        pipeline="behrendt",
    )
    assert (entrants["more, T1w"].shares, entrants["more, T1w"].calibrate) == ("plain, T1w", "IXI T1w, to validate")
    assert {entrant.calibrate for entrant in thesis_entrants(MODELS, {}, calibrate=False).values()} == {None}
    own = {"said": (method, {"cleaning": "median"}), "not said": (method, {})}
    made = thesis_entrants(own, {}, cleaning="none")
    assert [made[f"{line}, T1w"].arguments["cleaning"] for line in own] == ["median", "none"]
    assert [case.name for case in cases] == [f"{data}: {model}" for data in LABELLED for model in MODELS]
    assert cases[-1] == Case(
        "WMH (T1): other", "WMH (T1), test", facts={"data": "WMH (T1)", "model": "other"}, only=["other, T1w"]
    )


def test_erasing_is_told_by_the_name_of_a_line():
    alike = {"lr": 1e-3, "batch": 32, "cleaning": "median+erosion"}
    assert erasing("2D-None") == ("vae", {"dims": 2, **alike})
    assert erasing("3D-None") == ("vae", {"dims": 3, **alike})
    method, arguments = erasing("2D-Multi-Patch-0")
    assert method == "spatial_erasing"
    assert arguments == {"dims": 2, "erase": "multi", "fill": "zero", **alike}
    assert erasing("3D-Cube-n")[1]["fill"] == "noise"
    with pytest.raises(KeyError):
        erasing("3D-Cube-x")


def test_private_scans_say_what_can_stand_in():
    source = mixed_normals(part(0, 20))
    assert len(subjects(source)) == 20
    assert source.variable == "MIXED_NORMALS"
    assert "more than 1807" in source.missing()
