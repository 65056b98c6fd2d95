"""Overlap with evaluation files: a document that shares a long run of words with one is set aside.

A model that has read the test is not measured by it. As in GPT-3 (Brown et al. 2020, appendix C) a run of 13
words in common counts, whatever the punctuation and case; for scripts without spaces a run of characters. An
evaluation text that is shorter than such a run counts when the whole of it equals a whole document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from groundup.data.deduplicate import text_digest
from groundup.data.units import CHARACTER, WORD, Units, batches, units_of


class OverlapOptions(BaseModel):
    """The evaluation files that no document may share a long run with."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: list[str] = Field(
        default_factory=list, description="evaluation files, folders or globs; every text in a record counts"
    )
    words: int = Field(13, ge=3, le=100, description="words a run, 3 to 100")
    characters: int = Field(
        20, ge=5, le=500, description="characters a run in scripts without spaces, 5 to 500"
    )


class EvaluationIndex:
    """The runs of all evaluation texts, and for each the file it came from."""

    def __init__(self, options: OverlapOptions) -> None:
        self.options = options
        self.names: list[str] = []
        self._runs: list[np.ndarray] = []
        self._files: list[np.ndarray] = []
        self._whole: dict[bytes, int] = {}
        self.runs = np.zeros(0, dtype=np.uint64)
        self.files = np.zeros(0, dtype=np.int64)

    def add(self, name: str, texts: Iterable[str]) -> None:
        """Take in the texts of one evaluation file."""
        number = len(self.names)
        self.names.append(name)
        for batch in batches(list(texts)):
            units = units_of(batch)
            covered = np.zeros(len(batch), dtype=bool)
            for runs, owner in self._all_runs(units):
                covered[owner] = True
                self._runs.append(runs)
                self._files.append(np.full(len(runs), number))
            for text, is_covered in zip(batch, covered):
                if not is_covered and text.strip():
                    self._whole.setdefault(text_digest(text.lower().encode()), number)

    def close(self) -> None:
        """Sort what was added; afterwards texts can be looked up."""
        if self._runs:
            self.runs, first = np.unique(np.concatenate(self._runs), return_index=True)
            self.files = np.concatenate(self._files)[first]
        self._runs, self._files = [], []

    def digest(self) -> str:
        """Changes with anything that a lookup could find."""
        content = hashlib.sha256(self.runs.tobytes())
        for whole in sorted(self._whole):
            content.update(whole)
        return content.hexdigest()

    def find(self, texts: list[str]) -> dict[int, str]:
        """The texts that overlap an evaluation file, each with the name of the file."""
        found: dict[int, str] = {}
        first = 0
        for batch in batches(texts):
            for runs, owner in self._all_runs(units_of(batch)):
                if not self.runs.size:
                    continue
                place = np.minimum(np.searchsorted(self.runs, runs), self.runs.size - 1)
                for hit in np.flatnonzero(self.runs[place] == runs):
                    found.setdefault(first + int(owner[hit]), self.names[int(self.files[place[hit]])])
            for position, text in enumerate(batch):
                number = self._whole.get(text_digest(text.lower().encode())) if self._whole else None
                if number is not None:
                    found.setdefault(first + position, self.names[number])
            first += len(batch)
        return found

    def _all_runs(self, units: Units) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        words = units.of_kind(WORD).runs(self.options.words)
        return words, units.of_kind(CHARACTER).runs(self.options.characters)
