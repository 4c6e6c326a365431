"""A cohort reads late, and a split never puts one person on two sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomri import files
from anomri.cohort import Cohort, Entry
from anomri.errors import BadCall, BadInput
from anomri.scan import Scan
from conftest import grid, phantom


def entries(*ids: str, **facts: str) -> list[Entry]:
    return [Entry(id, {"T1w": f"/nowhere/{id}.nii.gz"}, facts=facts) for id in ids]


def people(n: int) -> Cohort:
    return Cohort(entries(*(f"sub-{i:02d}" for i in range(1, n + 1))))


def test_nothing_is_read_until_a_scan_is_asked_for() -> None:
    cohort = people(9).map(lambda scan: scan)
    some = cohort[2:8:2].only(["sub-07", "sub-03"])
    assert some.ids == ("sub-07", "sub-03")
    assert len(some.kept()) == 2
    assert [len(part) for part in cohort.split(3, 4)] == [3, 4]
    assert len(cohort.digest()) == 64
    assert "9 scans, 1 steps" in repr(cohort)
    with pytest.raises(BadInput, match=r"cannot read '/nowhere/sub-03.nii.gz': no such file"):
        some[-1]
    with pytest.raises(IndexError):
        some[2]


def test_steps_run_in_order_once_where_kept() -> None:
    calls: list[str] = []

    def step(name: str) -> Any:
        return lambda scan: (calls.append(name), scan.with_(id=scan.id + name))[1]

    cohort = Cohort([phantom(grid(), id="a"), phantom(grid(), id="b")]).map(step("x")).map(step("y"))
    assert [scan.id for scan in cohort] == ["axy", "bxy"]
    assert [[scan.id for scan in batch] for batch in cohort.batches(1)] == [["axy"], ["bxy"]]
    assert calls == ["x", "y"] * 4
    kept = cohort.kept()
    assert kept[0] is kept[-2]
    assert all(one is other for one, other in zip(kept, kept, strict=True))
    assert calls == ["x", "y"] * 6


def test_a_scan_is_read_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    scan = phantom(grid("LAS"))
    paths = {name: str(tmp_path / f"{name}.nii.gz") for name in ("image", "brain", "lesion")}
    for name, volume in (("image", scan.image[0]), ("brain", scan.brain), ("lesion", ~scan.brain)):
        files.write_image(paths[name], volume, scan.grid)
    read = Cohort([Entry("x", {"T1w": paths["image"]}, paths["brain"], paths["lesion"])])[0]
    assert read.id == "x"
    assert read.sequences == ("T1w",)
    assert np.array_equal(read.brain, scan.brain)
    assert np.array_equal(read.lesion, ~scan.brain)


def test_digest_follows_the_data(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"

    def digest() -> str:
        return Cohort([Entry("a", {"T1w": str(path)})]).digest()

    missing = digest()
    path.write_bytes(b"12")
    assert missing != digest() == digest()
    one, other = phantom(grid()), phantom(grid()).with_(image=phantom(grid()).image * 2)
    assert Cohort([one]).digest() != Cohort([other]).digest()


def test_ids_differ_and_are_known() -> None:
    with pytest.raises(BadCall, match="'b' occurs twice"):
        Cohort(entries("a", "b", "b"))
    with pytest.raises(BadInput, match=r"no scan 'x' in the cohort \(2 of 3 ids are missing\); it has a, b"):
        Cohort(entries("a", "b")).only(["x", "a", "y"])


def test_where() -> None:
    cohort = Cohort(
        [*entries("a", "b", group="control", sex="f"), *entries("c", group="patient", sex="f"), *entries("d")]
    )
    assert cohort.where(group="control").ids == ("a", "b")
    assert cohort.where(group="patient", sex="f").ids == ("c",)
    for facts, said in (
        ({"site": "1"}, "no column 'site' in the cohort's table; it has group, sex"),
        ({"group": "contrl"}, "no scan with group 'contrl'; group has control, patient"),
        ({"group": "patient", "sex": "m"}, "no scan with sex 'm'; sex has f"),
    ):
        with pytest.raises(BadInput, match=said):
            cohort.where(**facts)
    with pytest.raises(BadInput, match="no scan with x '1' and y '2'"):
        Cohort([*entries("a", x="1", y="1"), *entries("b", x="2", y="2")]).where(x="1", y="2")


# --- split ---------------------------------------------------------------------------------------------------------


GOLDEN = (
    ("sub-02", "sub-05", "sub-06", "sub-08", "sub-09", "sub-11"),
    ("sub-07", "sub-10", "sub-12"),
    ("sub-01", "sub-03", "sub-04"),
)


def test_split_is_the_one_that_was_drawn_once() -> None:
    """Golden: weights were trained on such parts, and must never see the others."""
    assert tuple(part.ids for part in people(12).split(6, 3, 3, seed=20261120)) == GOLDEN


@given(st.permutations(range(14)), st.lists(st.integers(0, 4), max_size=3), st.integers(0, 5))
def test_parts_are_disjoint_and_do_not_depend_on_order(order: list[int], sizes: list[int], seed: int) -> None:
    cohort = people(14)
    parts = cohort.split(*sizes, seed=seed)
    shuffled = cohort.subset(order).split(*sizes, seed=seed)
    assert [len(p) for p in parts] == sizes
    assert [set(p.ids) for p in parts] == [set(p.ids) for p in shuffled]
    together = [id for part in parts for id in part.ids]
    assert len(set(together)) == len(together)
    for part in shuffled:
        assert list(part.ids) == [id for id in cohort.subset(order).ids if id in part.ids], (
            "a part keeps the cohort's order"
        )


def test_seeds_draw_differently() -> None:
    assert len({people(30).split(10, seed=seed)[0].ids for seed in range(20)}) == 20


def sessions(*counts: int) -> list[Entry]:
    return [
        Entry(f"sub-{s:02d}_ses-{k}", {"T1w": "x"}, facts={"subject": f"sub-{s:02d}"})
        for s, n in enumerate(counts, start=1)
        for k in range(1, n + 1)
    ]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=9), st.data())
def test_no_subject_is_in_two_parts(counts: list[int], data: st.DataObject) -> None:
    cohort = Cohort(data.draw(st.permutations(sessions(*counts))))
    size = data.draw(st.integers(0, len(counts)))
    one, other = cohort.split(size, len(counts) - size)
    assert len(set(one.subjects)) == size
    assert not set(one.subjects) & set(other.subjects)
    assert sorted((*one.ids, *other.ids)) == sorted(cohort.ids), "every session of a subject comes along"


def test_a_later_session_leaves_the_draw_as_it_was() -> None:
    before = Cohort(sessions(*[1] * 12)).split(5, 7, seed=3)
    after = Cohort(sessions(*[1, 3] * 6)).split(5, 7, seed=3)
    assert [sorted(set(p.subjects)) for p in before] == [sorted(set(p.subjects)) for p in after]


def test_whose_scan_it_is() -> None:
    cohort = Cohort(
        [
            Entry("x", {"T1w": "a"}, facts={"subject": "s1"}),
            Entry("y", {"T1w": "b"}, facts={"participant_id": "s1"}),
            Entry("sub-07_ses-2_run-1", {"T1w": "c"}),
            Entry("sub-7x", {"T1w": "d"}),
            Entry("subject-8_a", {"T1w": "e"}),
            Scan(np.zeros((2, 3, 4)), np.eye(4), id="sub-07_ses-1"),
        ]
    )
    assert cohort.subjects == ("s1", "s1", "sub-07", "sub-7x", "subject-8_a", "sub-07")


def test_split_of_too_few() -> None:
    with pytest.raises(BadCall, match=r"3 subjects \(5 scans\) cannot be split into 2 \+ 2 = 4"):
        Cohort(sessions(2, 2, 1)).split(2, 2)
    with pytest.raises(BadCall, match="cannot be split"):
        people(5).split(6, -1)


def test_cohorts_are_joined_under_names_of_their_own() -> None:
    made = Cohort([phantom(grid()).with_(id="sub-01")])
    both = Cohort.joined({"files": people(2), "made": made})
    assert both.ids == ("files: sub-01", "files: sub-02", "made: sub-01")
    assert both.subjects == both.ids
    assert Cohort.joined({"files": people(2), "made": made.map()[:0]}).ids == ("sub-01", "sub-02")
    assert np.array_equal(both[2].image, made[0].image)
    assert both.digest() != people(2).digest()
    again = both.map(lambda scan: scan.with_(image=2 * scan.image))
    assert np.array_equal(again[2].image, 2 * made[0].image)
    with pytest.raises(
        BadCall, match="cohorts a, b have different steps and cannot be joined; join them first, then map"
    ):
        Cohort.joined({"a": made, "b": made.map(lambda scan: scan)})


def test_sessions_of_one_person_stay_one_person_where_cohorts_are_joined() -> None:
    a = Cohort([Entry("sub-1_ses-1", {"T1w": "a"}), Entry("sub-1_ses-2", {"T1w": "b"})])
    scan = phantom(grid())
    b = Cohort([scan.with_(id="sub-1_ses-1"), scan.with_(id="sub-1_ses-2")])
    assert Cohort.joined({"a": a, "b": b}).subjects == ("a: sub-1", "a: sub-1", "b: sub-1", "b: sub-1")


def test_what_is_in_memory_keeps_the_digest_of_its_files(tmp_path: Path) -> None:
    entries = []
    for n in range(3):
        path = tmp_path / f"{n}.nii.gz"
        files.write_image(path, phantom(grid()).image[0] * (n + 1), grid())
        entries.append(Entry(f"s{n}", {"T1w": str(path)}))
    cohort = Cohort(entries)
    whole, _ = cohort.usable()
    assert whole.digest() == whole.map(lambda scan: scan).kept().digest() == cohort.digest()
    (tmp_path / "1.nii.gz").write_bytes(b"")
    left, wrong = cohort.usable()
    assert list(wrong) == ["s1"]
    assert left.digest() == cohort.only(["s0", "s2"]).digest() != whole.digest()
    assert whole.subset([0, 1]).digest() != whole.digest()


def test_scans_that_cannot_be_used_are_left_out_and_told() -> None:
    def refuse(scan: Scan) -> Scan:
        if scan.id in ("b", "d"):
            raise BadInput(f"scan '{scan.id}' is odd")
        return scan.with_(image=2 * scan.image)

    scans = [phantom(grid()).with_(id=name) for name in "abcd"]
    tried: list[tuple[int, str]] = []
    usable, wrong = Cohort(scans).map(refuse).usable(lambda n, name: tried.append((n, name)))
    assert usable.ids == ("a", "c")
    assert wrong == {"b": "scan 'b' is odd", "d": "scan 'd' is odd"}
    assert tried == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    np.testing.assert_array_equal(usable[1].image, 2 * scans[2].image)
    assert usable[1] is usable[1]
    with pytest.raises(BadInput, match="none of the 2 scans can be used; the first: scan 'b' is odd"):
        Cohort(scans).only(["b", "d"]).map(refuse).usable()
    assert len(Cohort([]).usable()[0]) == 0
