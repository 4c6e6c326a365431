"""Splits are by subject, seeded, in proportion where asked, and come back from their table as they were."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomri import files
from anomri.cli.choosing import parts_of
from anomri.cohort import BINS, Cohort, Entry
from anomri.cohorts import splits
from anomri.cohorts.splits import Member, Split
from anomri.errors import BadCall, BadInput


def people(n: int, *, scans: int = 1, **facts: list[str]) -> Cohort:
    """N subjects with so many scans each; facts by subject."""
    return Cohort(
        Entry(f"sub-{i:03d}_ses-{k}", {"T1w": f"/no/{i}.nii"}, facts={name: said[i] for name, said in facts.items()})
        for i in range(n)
        for k in range(scans)
    )


def same(one: Cohort, other: Cohort) -> bool:
    return one.ids == other.ids


# --- drawing -------------------------------------------------------------------------------------------------------


def test_golden_draws():
    cohort = people(9, site=["a", "b", "b"] * 3)

    def short(parts: tuple[Cohort, ...]) -> list[str]:
        return [" ".join(id[6] for id in part.ids) for part in parts]

    assert short(cohort.split(3, 2, 4, seed=5)) == ["1 2 6", "7 8", "0 3 4 5"]
    assert short(cohort.split(3, 6, seed=2)) == ["5 7 8", "0 1 2 3 4 6"]
    assert short(cohort.split(3, 6, seed=2, stratify="site")) == ["0 7 8", "1 2 3 4 5 6"]


@given(st.integers(2, 25), st.integers(1, 3), st.integers(0, 9), st.data())
def test_parts_are_disjoint_by_subject_and_do_not_depend_on_order(n, scans, seed, data):
    said = data.draw(st.lists(st.sampled_from(["a", "b", ""]), min_size=n, max_size=n).filter(any))
    cohort = people(n, scans=scans, site=said)
    sizes = data.draw(st.lists(st.integers(0, n), max_size=3).filter(lambda s: sum(s) <= n))
    shuffled = cohort.subset(data.draw(st.permutations(range(len(cohort)))))
    for stratify in (None, "site"):
        parts = cohort.split(*sizes, seed=seed, stratify=stratify)
        assert [len(set(part.subjects)) for part in parts] == sizes
        assert [len(part) for part in parts] == [size * scans for size in sizes]
        assert len({s for part in parts for s in part.subjects}) == sum(sizes)
        assert [{*part.ids} for part in parts] == [
            {*p.ids} for p in shuffled.split(*sizes, seed=seed, stratify=stratify)
        ]


@given(st.integers(0, 1000), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_strata_are_in_proportion(seed, counts):
    said = [str(k) for k, count in enumerate(counts) for _ in range(count)]
    n = len(said)
    cohort = people(n, site=said)
    for part in cohort.split(n // 2, n // 4, seed=seed, stratify="site"):
        found = Counter(part.column("site")) if len(part) else Counter()
        for k, count in enumerate(counts):
            # Each class is off by less than one by itself, and by its share of how far the others are off.
            assert abs(found[str(k)] - len(part) * count / n) <= 2 + 2 * len(counts) * count / n


def test_a_single_of_its_kind_may_go_anywhere():
    cohort = people(20, site=["odd", *["usual"] * 19])
    parts = [cohort.split(5, 10, 5, seed=seed, stratify="site") for seed in range(80)]
    where = Counter(k for drawn in parts for k, part in enumerate(drawn) if "sub-000_ses-0" in part.ids)
    assert min(where[0], where[2]) > 10
    assert where[1] > 25


def test_numbers_are_cut_into_fifths():
    ages = [str(20 + i) for i in range(50)]
    half, other = people(50, age=ages).split(25, 25, seed=3, stratify="age")
    for part in (half, other):
        fifths = Counter((int(age or 0) - 20) // 10 for age in part.column("age"))
        assert all(4 <= fifths[k] <= 6 for k in range(BINS))
    # Few different numbers are classes as they stand, and so is a column with a word in it.
    for said in (["1", "2"] * 25, [*ages[:49], "old"]):
        part, _ = people(50, age=said).split(25, 25, stratify="age")
        assert len(part) == 25


def test_a_missing_number_is_a_class_of_its_own():
    said = [*(str(i) for i in range(30)), *[""] * 10]
    part, rest = people(40, age=said).split(20, 20, seed=1, stratify="age")
    assert 4 <= Counter(part.column("age"))[""] <= 6
    with pytest.raises(BadInput, match="no column 'sex' in the cohort's table; it has age"):
        part.split(1, stratify="sex")
    with pytest.raises(BadCall, match="cannot be split into 9 \\+ 12 = 21"):
        rest.split(9, 12, stratify="age")


@given(st.integers(2, 20), st.integers(2, 7), st.integers(1, 2), st.sampled_from([None, "site"]))
def test_folds_hold_out_every_subject_once(n, k, scans, stratify):
    cohort = people(n, scans=scans, site=["a", "b"] * 10)
    if k > n:
        with pytest.raises(BadCall, match=f"cannot be cut into {k} folds; use 2 to {n}"):
            cohort.folds(k, stratify=stratify)
        return
    folds = cohort.folds(k, seed=4, stratify=stratify)
    sizes = [len(set(test.subjects)) for _, test in folds]
    assert len(folds) == k
    assert max(sizes) - min(sizes) <= 1
    assert sorted(id for _, test in folds for id in test.ids) == sorted(cohort.ids)
    for train, test in folds:
        assert sorted((*train.ids, *test.ids)) == sorted(cohort.ids)
        assert not {*train.subjects} & {*test.subjects}
        assert list(train.ids) == sorted(train.ids)


def test_one_fold_is_none():
    with pytest.raises(BadCall, match="cannot be cut into 1 folds"):
        people(5).folds(1)


# --- tables --------------------------------------------------------------------------------------------------------


def test_a_split_comes_back(tmp_path):
    cohort = people(12, scans=2, site=["a", "b", "c"] * 4)
    drawn = splits.draw(cohort, {"fit": 6, "validate": 2}, seed=7, stratify="site")
    splits.write(tmp_path / "s.tsv", drawn)
    assert splits.read(tmp_path / "s.tsv") == drawn
    assert (tmp_path / "s.tsv").read_text().splitlines()[0] == "id\tsubject\tsplit"
    fit, validate = cohort.split(6, 2, seed=7, stratify="site")
    assert {name: sorted(ids) for name, ids in drawn.parts().items()} == {"fit": sorted(fit.ids), "validate": sorted(validate.ids)}  # fmt: skip
    assert len(drawn.members) == 16


def test_folds_beside_a_fixed_test_part(tmp_path):
    cohort = people(14)
    drawn = splits.draw(cohort, {"test": 4}, folds=5, seed=2)
    splits.write(tmp_path / "s.tsv", drawn)
    back = splits.read(tmp_path / "s.tsv")
    assert back == drawn
    assert len(back.members) == 14
    (test,) = cohort.split(4, seed=2)
    seen: list[str] = []
    for fold in range(1, 6):
        parts = back.parts(fold)
        assert set(parts) == {"train", "validate", "test"}
        assert {*parts["test"]} == {*test.ids}
        assert [len(parts[name]) for name in ("train", "validate")] == [8, 2]
        seen += parts["validate"]
    assert sorted((*seen, *test.ids)) == sorted(cohort.ids)
    with pytest.raises(BadCall, match=r"folds 1 to 5; say which one is held out"):
        back.parts()
    with pytest.raises(BadCall, match=r"no fold 6; it has 1, 2, 3, 4, 5"):
        back.parts(6)
    with pytest.raises(BadCall, match=r"no fold 1; it has none"):
        splits.draw(cohort, {"test": 4}).parts(1)


def test_folds_alone_are_held_out_for_tests():
    cohort = people(6)
    drawn = splits.draw(cohort, {}, folds=3, seed=2)
    for fold, (train, test) in enumerate(cohort.folds(3, seed=2), start=1):
        parts = drawn.parts(fold)
        assert {*parts["train"]} == {*train.ids}
        assert {*parts["test"]} == {*test.ids}
        assert len(parts) == 2


def test_tables_of_others(tmp_path):
    (tmp_path / "train.csv").write_text(
        ",img_name,age,label,img_path\n0,IXI002-Guys-0828_t1.nii.gz,35.8,0,/Train/a\n1,mine.nii,4,0,/Train/b\n"
    )
    assert splits.read(tmp_path / "train.csv", "train").members == (
        Member("IXI002-Guys-0828_t1", "IXI002", "train"),
        Member("mine", "mine", "train"),
    )
    (tmp_path / "people.tsv").write_text("participant_id\tsplit\nsub-01\ttest\n")
    assert splits.read(tmp_path / "people.tsv") == Split((Member("sub-01", "sub-01", "test"),))
    # What the command line says of a table comes before what the table says.
    assert splits.read(tmp_path / "people.tsv", "fit").members[0].part == "fit"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,split\na,fit\n", "no column id; it needs columns id and split, and has name, split"),
        ("id,split\n", "no column id; .* has no lines"),
        ("id,age\na,3\n", "no column split; it needs columns id and split, or the name of the part that it is: train="),
        ("id,split\na,\n", "scan 'a' is in ''; each line needs"),
        ("id,split\n,fit\n", "scan '' is in 'fit'"),
        ("id,fold\na,one\n", "scan 'a' has fold 'one'"),
        ("id,split\na,fit,1\n", "line 2: 3 cells"),
    ],
)
def test_tables_that_are_no_split(tmp_path, text, said):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(BadInput, match=said):
        splits.read(tmp_path / "s.csv")


def test_the_parts_that_a_fit_takes(tmp_path):
    cohort = people(9)
    splits.write(tmp_path / "s.tsv", splits.draw(cohort, {"train": 4, "validate": 2, "test": 1}))
    parts = parts_of(cohort, tmp_path / "s.tsv", 0, 0)
    assert [(name, len(part)) for name, part in parts.items()] == [("fit", 4), ("validate", 2), ("test", 1)]
    assert len({id for part in parts.values() for id in part.ids}) == 7
    splits.write(tmp_path / "f.tsv", splits.draw(cohort, {"test": 3}, folds=3))
    parts = parts_of(cohort, tmp_path / "f.tsv", 0, 0, 2)
    assert [(name, len(part)) for name, part in parts.items()] == [("fit", 4), ("validate", 2), ("test", 3)]
    files.write_table(tmp_path / "odd.tsv", [{"id": "sub-000_ses-0", "split": "dev"}])
    with pytest.raises(BadInput, match="scan 'sub-000_ses-0' is in 'dev'; it needs columns id and split"):
        parts_of(cohort, tmp_path / "odd.tsv", 0, 0)
    fit, validate = (parts_of(cohort, None, 3, 5)[name] for name in ("fit", "validate"))
    assert all(same(a, b) for a, b in zip((fit, validate), cohort.split(6, 3, seed=5), strict=True))


def test_other_seeds_give_other_splits():
    draws = [splits.draw(people(30), {"fit": 15}, seed=seed) for seed in range(5)]
    assert all(one != other for one, other in pairwise(draws))
