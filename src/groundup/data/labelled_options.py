"""What a table of labelled rows is, and how it is divided: the options, and the usual names of columns.

Only options and tables of names live here; reading, splitting and checking are in the other labelled files.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["classify", "multilabel", "tag", "regress", "embed", "choice"]
Side = Literal["train", "validation", "test"]
SplitKind = Literal["random", "stratified", "grouped", "time"]

TEXT = (
    "text", "sentence", "review", "content", "comment", "message", "tweet", "utterance", "body", "document", "sms",
)  # fmt: skip
LABEL = (
    "label", "labels", "category", "categories", "class", "intent", "target", "sentiment", "topic", "emotion",
)  # fmt: skip
VALUE = ("score", "value", "rating", "stars", "star", "similarity")
WORDS = ("tokens", "words")
TAGS = ("ner_tags", "pos_tags", "tags")
QUESTION = ("question", "prompt", "context", "query")
ANSWER = ("answer", "answerkey", "correct")
CANDIDATES = ("candidates", "choices", "options", "endings")
TIME = ("time", "date", "timestamp", "datetime", "created_at")
GROUP = ("group", "group_id", "user", "user_id", "author", "author_id", "document_id")
PAIRS = (
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("anchor", "positive"),
    ("query", "positive"),
    ("query", "document"),
    ("query", "passage"),
    ("question", "answer"),
)
"""Names of a first and a second text that are used together."""


class LabelledColumns(BaseModel):
    """Which columns or fields hold what. What is None is recognised by the usual names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    text: str | None = Field(None, description="the text; task tag: the words, as a list or divided by spaces")
    label: str | None = Field(
        None, description="the label, labels, tags or number; task choice: the right candidate, by number from 0, "
        "by letter from A, or by its text",
    )  # fmt: skip
    other: str | None = Field(None, description="a second text that is read with the first; task embed: its match")
    group: str | None = Field(None, description="split grouped: rows of equal value stay on one side")
    time: str | None = Field(None, description="split time: when a row is from, as a number or an ISO date")
    candidates: list[str] = Field(
        default_factory=list, description="task choice: one column that holds a list, or one column for each candidate"
    )


class Fold(BaseModel):
    """One fold of a cross-validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    of: int = Field(ge=2, le=10_000, description="folds in all")
    number: int = Field(ge=0, description="the one that is the test set, from 0")
    share: float = Field(1.0, gt=0.0, le=1.0, description="share of the rows to train on that is kept, 0 to 1")


class LabelledSplit(BaseModel):
    """How rows are divided into training, validation and test. Rows of equal text always go together."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: SplitKind | None = Field(
        None,
        description="random: each row by the hash of its text, so that other rows do not move it; stratified: the "
        "shares hold within each label; grouped: by columns.group; time: the latest by columns.time are the test set, "
        "those before them validation; without it classify is stratified, the rest random",
    )
    test: float = Field(
        0.1, ge=0.0, lt=1.0, description="share of rows, 0 to 1, that is the test set, where test_files is empty"
    )
    validation: float = Field(
        0.1, ge=0.0, lt=1.0, description="share of rows, 0 to 1, that is measured while training, where "
        "validation_files is empty",
    )  # fmt: skip
    seed: int = Field(0, ge=0, lt=1 << 63, description="another number draws another split of the same size")
    leaks: Literal["refuse", "drop", "allow"] = Field(
        "refuse",
        description="a text of the test or validation set that is also trained on: stop, drop the trained row, or "
        "go on and say so",
    )
    folds: list[Fold] = Field(
        default_factory=list,
        description="instead of a share for test, one of several folds; a second entry divides the rows that the first "
        "trains on. Written by groundup cross-validate",
    )


class LabelledOptions(BaseModel):
    """Tables of texts with labels, and what becomes of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: list[str] = Field(
        description="files, folders or globs: .csv .tsv .jsonl .json .parquet with named columns, or .txt with "
        "`text<TAB>label` lines; each also .gz, parquet excepted"
    )
    test_files: list[str] = Field(default_factory=list, description="the test set, if it has files of its own")
    validation_files: list[str] = Field(
        default_factory=list, description="the validation set, if it has files of its own"
    )
    task: Task = Field(
        "classify",
        description="classify: one label; multilabel: any number; tag: one for each word; regress: a number; embed: "
        "pairs of texts that belong together; choice: one of several candidates",
    )
    columns: LabelledColumns = Field(default_factory=LabelledColumns, description="which columns hold what")
    labels: list[str] | None = Field(
        None, min_length=1, description="the labels in order of their numbers; without it those of training, sorted"
    )
    label_separator: str | None = Field(
        None, min_length=1, description="tasks multilabel and tag: what divides the labels of one cell; tags are "
        "divided by spaces without it",
    )  # fmt: skip
    minimum_rows_per_label: int = Field(
        0, ge=0, description="rows with a label that fewer training rows carry are set aside, on every side"
    )
    split: LabelledSplit = Field(default_factory=LabelledSplit, description="training, validation and test")
    max_length: int | None = Field(
        None, ge=1, description="longest row in tokens, special tokens included; without it the model's context"
    )
    over_long: Literal["cut", "drop", "refuse"] = Field(
        "cut", description="a longer row: cut its longer text, drop it, or stop; the card counts them"
    )
    malformed_limit: float = Field(
        0.01, ge=0.0, le=1.0, description="share of malformed rows (0 to 1) above which reading stops"
    )
    remove_duplicates: bool = Field(
        False, description="whether a training row that repeats an earlier one, label and all, is set aside"
    )

    @property
    def split_kind(self) -> SplitKind:
        """The kind of split that applies."""
        return self.split.kind or ("stratified" if self.task == "classify" else "random")
