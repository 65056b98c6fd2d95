"""What files of texts and their translations are, and how they are divided: the options alone."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ParallelColumns(BaseModel):
    """Which columns hold the two sides. A number counts from 1 and says that the file has no line of names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: int | str | None = Field(
        None, description="the text to translate: a column's name, or in tab-separated lines without names its number "
        "from 1; without it the usual names are looked for",
    )  # fmt: skip
    target: int | str | None = Field(None, description="its translation, likewise")


class ParallelSplit(BaseModel):
    """How pairs are divided. Pairs of one source always go together, so nothing measured on was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    test: float = Field(
        0.1, ge=0.0, lt=1.0, description="share of sources, 0 to 1, that is the test set, where test_files is empty"
    )
    validation: float = Field(
        0.1, ge=0.0, lt=1.0, description="share of sources, 0 to 1, that is measured while training, where "
        "validation_files is empty",
    )  # fmt: skip
    seed: int = Field(0, ge=0, lt=1 << 63, description="another number draws another split of the same size")


class ParallelOptions(BaseModel):
    """Files of pairs, and what becomes of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: list[str] = Field(
        min_length=1,
        description="files, folders or globs: .csv .tsv .jsonl .json .parquet with named columns, or .tsv .txt of "
        "tab-separated lines without names; each also .gz, parquet excepted",
    )
    test_files: list[str] = Field(default_factory=list, description="the test set, if it has files of its own")
    validation_files: list[str] = Field(
        default_factory=list, description="the validation set, if it has files of its own"
    )
    columns: ParallelColumns = Field(default_factory=ParallelColumns, description="which columns hold what")
    split: ParallelSplit = Field(default_factory=ParallelSplit, description="training, validation and test")
    max_length: int | None = Field(
        None, ge=2, description="longest source and longest target in tokens, special tokens included; without it the "
        "model's context",
    )  # fmt: skip
    over_long: Literal["drop", "cut", "refuse"] = Field(
        "drop", description="a longer pair: drop it, cut its longer sides, or stop; the card counts them"
    )
    malformed_limit: float = Field(
        0.01, ge=0.0, le=1.0, description="share of malformed rows (0 to 1) above which reading stops"
    )
    remove_duplicates: bool = Field(
        False, description="whether a training pair that repeats an earlier one on both sides is set aside"
    )
