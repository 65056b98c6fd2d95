"""Overrides that know the recipe: a budget on the command line takes the place of the file's."""

from __future__ import annotations

import pytest

from groundup.errors import GroundupError
from groundup.run.entry import read_recipe

RECIPE = "model: {depth: 1}\ndata: {kind: text, files: [a.txt]}\nbudget: {minutes: 3}\n"


def test_a_budget_override_replaces_the_other_kind() -> None:
    budget = read_recipe(RECIPE, ["budget.steps=5"]).budget
    assert (budget.steps, budget.minutes) == (5, None)


def test_other_budget_fields_leave_the_kind_alone() -> None:
    budget = read_recipe(RECIPE, ["budget.micro_batch=2"]).budget
    assert (budget.minutes, budget.micro_batch) == (3.0, 2)


def test_two_kinds_on_the_command_line_are_still_a_fault() -> None:
    with pytest.raises(GroundupError) as caught:
        read_recipe(RECIPE, ["budget.steps=5", "budget.tokens=100"])
    assert caught.value.code == "E-RECIPE-036"
