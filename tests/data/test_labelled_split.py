"""Training, validation and test sides, and folds: what must hold for every table, checked on drawn ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data.labelled_options import LabelledSplit, SplitKind
from groundup.data.labelled_rows import LabelledRow
from groundup.data.labelled_split import assign_sides, folds
from groundup.errors import GroundupError

KINDS: list[SplitKind] = ["random", "stratified", "grouped"]


def row(text: str, label: str, group: str = "") -> LabelledRow:
    return LabelledRow(text=text, key=text.encode(), file="f", line=1, labels=(label,), group=group)


def sides(rows: list[LabelledRow], kind: SplitKind, test: float, validation: float, seed: int = 0) -> list[str]:
    split = LabelledSplit(seed=seed)
    return list(assign_sides(rows, split, kind, test=test, validation=validation))


distinct = st.lists(st.sampled_from("abcd"), min_size=2, max_size=120).map(
    lambda labels: [row(f"text {number}", label) for number, label in enumerate(labels)]
)
"""Rows of distinct texts."""

tables = st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc"), st.sampled_from(["", "g", "h", "i", "j"]))).map(
    lambda cells: [row(f"text {text}", label, group) for text, label, group in cells]
)
"""Rows of which some share a text or a group."""

small = settings(max_examples=60, deadline=None, derandomize=True)


@small
@given(distinct, st.integers(2, 7), st.integers(0, 3))
def test_stratified_folds_share_out_each_label_and_all_rows(rows: list[LabelledRow], k: int, seed: int) -> None:
    k = min(k, len(rows))
    made = folds(rows, k, seed=seed, kind="stratified")
    assert sorted(index for _, test in made for index in test.tolist()) == list(range(len(rows)))
    for label, total in Counter(one.labels[0] for one in rows).items():
        for _, test in made:
            assert abs(sum(rows[index].labels[0] == label for index in test) - total / k) < 1
    sizes = [len(test) for _, test in made]
    assert max(sizes) - min(sizes) <= 1


@small
@given(tables, st.integers(2, 5), st.sampled_from(KINDS))
def test_folds_hold_each_row_once_and_divide_no_unit(rows: list[LabelledRow], k: int, kind: SplitKind) -> None:
    name = [one.group or one.text if kind == "grouped" else one.text for one in rows]
    if len(set(name)) < k:
        with pytest.raises(GroundupError) as caught:
            folds(rows, k, kind=kind)
        assert caught.value.code == "E-DATA-104" and f"{len(set(name))} " in caught.value.what
        return
    made = folds(rows, k, kind=kind)
    assert len(made) == k and all(len(test) for _, test in made)
    assert sorted(index for _, test in made for index in test.tolist()) == list(range(len(rows)))
    for train, test in made:
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(rows)))
        assert not {name[index] for index in train} & {name[index] for index in test}


@small
@given(tables, st.sampled_from(KINDS), st.randoms(use_true_random=False))
def test_sides_and_folds_follow_from_the_rows_and_not_from_their_order(
    rows: list[LabelledRow], kind: SplitKind, chance: Any
) -> None:
    order = list(range(len(rows)))
    chance.shuffle(order)
    one, other = sides(rows, kind, 0.3, 0.2), sides([rows[index] for index in order], kind, 0.3, 0.2)
    assert [one[index] for index in order] == other
    if len({one.group or one.text if kind == "grouped" else one.text for one in rows}) >= 3:
        first = folds(rows, 3, kind=kind)
        again = folds([rows[index] for index in order], 3, kind=kind)
        for (_, test), (_, shuffled) in zip(first, again):
            assert sorted(order[index] for index in shuffled) == test.tolist()


@small
@given(distinct, st.floats(0, 0.5), st.floats(0, 0.4))
def test_stratified_sides_keep_the_shares_of_each_label(rows: list[LabelledRow], test: float, check: float) -> None:
    made = sides(rows, "stratified", test, check)
    for label, total in Counter(one.labels[0] for one in rows).items():
        count = Counter(side for one, side in zip(rows, made) if one.labels[0] == label)
        assert count["train"] >= 1
        assert total == 1 or (abs(count["test"] - total * test) <= 1 and abs(count["validation"] - total * check) <= 1)


@small
@given(tables, st.sampled_from(KINDS))
def test_rows_of_one_text_or_group_are_on_one_side(rows: list[LabelledRow], kind: SplitKind) -> None:
    made = sides(rows, kind, 0.3, 0.3)
    where: dict[str, set[str]] = {}
    for one, side in zip(rows, made):
        where.setdefault(one.group or one.text if kind == "grouped" else one.text, set()).add(side)
    assert all(len(found) == 1 for found in where.values())


def test_a_random_side_follows_from_the_text_alone() -> None:
    rows = [row(f"text {number}", "a") for number in range(2000)]
    made = sides(rows, "random", 0.1, 0.2)
    count = Counter(made)
    assert 150 < count["test"] < 250 and 330 < count["validation"] < 470
    assert sides(rows[::3], "random", 0.1, 0.2) == made[::3]
    assert sides(rows, "random", 0.1, 0.2, seed=1) != made


def test_grouped_sides_come_near_their_shares() -> None:
    rows = [row(f"text {number}", "a", f"group {number % 25}") for number in range(500)]
    count = Counter(sides(rows, "grouped", 0.2, 0.1))
    assert abs(count["test"] - 100) <= 10 and abs(count["validation"] - 50) <= 10
    few = [row(f"text {number}", "a", f"group {number % 3}") for number in range(30)]
    assert Counter(sides(few, "grouped", 0.1, 0.1)) == {"train": 10, "validation": 10, "test": 10}


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_unequal_size_are_placed_with_care(seed: int) -> None:
    sizes = [50, 10, 10, 10, 10, 10]
    rows = [row(f"{group} {number}", "a", f"group {group}") for group in range(6) for number in range(sizes[group])]
    assert [len(test) for _, test in folds(rows, 2, seed=seed, kind="grouped")] == [50, 50]
    # the large group would overshoot by far, so it is passed over
    assert Counter(sides(rows, "grouped", 0.1, 0.1, seed)) == {"train": 80, "validation": 10, "test": 10}


def test_small_labels_together_have_their_share() -> None:
    rows = [row(f"{label} {number}", f"label {label}") for label in range(20) for number in range(4)]
    assert Counter(sides(rows, "stratified", 0.1, 0.1)) == {"train": 64, "validation": 8, "test": 8}


def test_another_seed_draws_other_folds() -> None:
    rows = [row(f"text {number}", "ab"[number % 2]) for number in range(40)]
    one, same, other = (folds(rows, 4, seed=seed) for seed in (1, 1, 2))
    assert all((a[1] == b[1]).all() for a, b in zip(one, same))
    assert any((a[1] != b[1]).any() for a, b in zip(one, other))


@pytest.mark.parametrize("k", [0, 1, 6])
def test_too_many_or_too_few_folds_are_refused(k: int) -> None:
    with pytest.raises(GroundupError) as caught:
        folds([row(f"text {number}", "a") for number in range(5)], k)
    assert caught.value.code == "E-DATA-104" and "2 to 5 folds" in caught.value.fix


def test_a_row_of_several_labels_is_of_the_rarest() -> None:
    common = [LabelledRow(text=f"c{n}", key=b"c%d" % n, file="f", line=n, labels=("a",)) for n in range(30)]
    rare = [LabelledRow(text=f"r{n}", key=b"r%d" % n, file="f", line=n, labels=("a", "b")) for n in range(9)]
    for _, test in folds([*common, *rare], 3, kind="stratified"):
        assert sum(index >= 30 for index in test) == 3
