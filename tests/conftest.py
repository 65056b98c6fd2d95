"""What makes every toy run of the suite short without changing what it proves."""

from __future__ import annotations

import gc

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """A run collects garbage to measure its memory; the libraries and the tests themselves are none, and looking
    through them took half of a toy run."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def short_rehearsals() -> object:
    """A budget in steps is timed for the plan's sake alone: three micro-batches say enough here."""
    import groundup.run.train as train

    gc.freeze()  # what that import brought
    kept, train.ENOUGH_SECONDS = train.ENOUGH_SECONDS, 0.0
    yield
    train.ENOUGH_SECONDS = kept
