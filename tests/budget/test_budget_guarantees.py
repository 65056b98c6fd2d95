"""Every case of the list of faults and bad input that this stage answers for has a test with its name."""

from __future__ import annotations

import re

import pytest
from sources import ROOT

CASES = (
    [f"D{number}" for number in range(1, 13)]
    + [f"T{number}" for number in range(1, 5)]
    + [f"R{number}" for number in (1, 2, 3, 4, 5, 6, 9, 10, 11, 13, 17, 18)]
    + [f"K{number}" for number in (1, 2, 3, 4, 7, 8, 9)]
    + [f"U{number}" for number in range(1, 7)]
    + [f"S{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 14, 15, 16, 17, 18)]
    + [f"C{number}" for number in range(1, 26)]
)

NOT_YET: dict[str, str] = {
    # case: the reason why nothing can show it yet
}


def covered() -> set[str]:
    """The cases that the tests are named after: `def test_D4_jsonl_cut_mid_record`."""
    names = re.compile(r"^\s*def test_([A-Z][0-9]+)_", re.MULTILINE)
    return {case for path in (ROOT / "tests").rglob("test_*.py") for case in names.findall(path.read_text("utf-8"))}


@pytest.mark.parametrize("case", CASES)
def test_the_case_has_a_test(case: str) -> None:
    if case in NOT_YET:
        pytest.skip(NOT_YET[case])
    assert case in covered(), f"no test is named test_{case}_…"
