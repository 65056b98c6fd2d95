"""Which held-out rows are explained, and what of it is kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from groundup.run.deciding import Held, chosen


def held(said: Any, target: Any, rows: Any = None) -> Held:
    said, target = np.asarray(said, dtype=np.float64), np.asarray(target)

    def never(index: int) -> Any:
        raise AssertionError("choosing makes nothing ready")

    return Held("test", said, target, range(len(said)) if rows is None else rows, never, never)


def test_the_surest_mistakes_and_right_answers_come_by_turns() -> None:
    said = [[0, 1], [3, 0], [0, 9], [5, 0], [0, 2], [800, 0], [900, 0]]
    target = [0, 1, 1, 1, 1, 0, 0]
    # of two answers that are both sure to the last digit of a probability, the one with the higher odds comes first
    assert chosen(held(said, target)) == [(3, False), (6, True), (1, False), (5, True)]


def test_there_may_be_none_of_a_sort_and_rows_that_are_not_asked_for() -> None:
    said = [[0, 1, 0], [3, 0, 0], [0, 0, 4]]
    assert chosen(held(said, [1, 0, 2])) == [(2, True), (1, True)]
    assert chosen(held(said, [0, 2, 1], rows=[0, 1])) == [(1, False), (0, False)]
    assert chosen(held(said, [0, 2, 1], rows=[])) == []


def test_numbers_are_chosen_by_their_distance() -> None:
    said, target = [0.0, 5.0, -7.0, 2.0, 1.0, 3.0], [0.5, 0.0, 0.0, 2.0, 1.1, 0.0]
    assert chosen(held(said, target)) == [(2, False), (3, True), (1, False), (4, True)]
    assert chosen(held(said[:3], target[:3])) == [(2, False), (0, True), (1, False)]
    assert chosen(held(said[:1], target[:1])) == [(0, False)]
