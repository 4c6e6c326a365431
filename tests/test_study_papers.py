"""What the studies of papers share: parts that do not overlap, the slice of a 2D test, lines that share weights, printed numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomri.cohort import Cohort, Entry
from anomri.errors import BadCall, BadInput
from anomri.preprocess import describe
from anomri.scan import Scan
from anomri.study import Entrant
from anomri.study.papers import expected, largest_slice, lines, part, robex
from conftest import grid, phantom

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
