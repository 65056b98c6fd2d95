"""A run that nobody follows, made once for all tests of trackers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contract.toy_run import Options, quick, run, text_file, text_recipe


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """A run of six steps, of which the third and the sixth are evaluated, sampled and saved."""
    every = {f"events__{name}_every": 3 for name in ("save", "evaluate", "sample")}
    short = {"events__sample_tokens": 4, "events__evaluate_tokens": 100, "budget__steps": 6}
    return text_recipe(text_file(tmp_path_factory.mktemp("texts"), 60), **every, **short)


@pytest.fixture(scope="session")
def plain(recipe: Options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody follows."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        assert run(recipe, folder).outcome == "finished"
    return folder
