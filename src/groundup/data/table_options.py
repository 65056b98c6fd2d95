"""What a table of numbers and categories is, and what becomes of it: the options.

Only options live here; reading, splitting, scaling and checking are in the other table files.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from groundup.data.labelled_options import LabelledSplit, SplitKind

TableTask = Literal["classify", "multilabel", "regress"]
Missing = Literal["refuse", "drop", "mean", "median", "most_frequent"]
Scaling = Literal["standard", "minmax", "robust", "none"]
Unseen = Literal["refuse", "zeros"]
Encoding = Literal["one_hot", "embed"]


class TableColumns(BaseModel):
    """Which columns hold what. A column that is not named is a feature; its cells say of which kind."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    target: str | list[str] | None = Field(
        None,
        description="what is predicted; task multilabel: also a list of columns that hold 0 or 1, one for each label; "
        "without it a usual name such as label, class or target",
    )
    numeric: list[str] = Field(default_factory=list, description="features that are numbers, whatever they look like")
    categorical: list[str] = Field(
        default_factory=list, description="features that are categories, such as codes written in digits"
    )
    ignore: list[str] = Field(default_factory=list, description="columns that are not features, such as row numbers")
    group: str | None = Field(None, description="split grouped: rows of equal value stay on one side; not a feature")
    time: str | None = Field(
        None, description="split time: when a row is from, as a number or an ISO date; not a feature"
    )


class TablePreprocessing(BaseModel):
    """How cells become numbers. All statistics are those of the training rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    missing: Missing = Field(
        "refuse",
        description="a feature that is empty, NaN or infinite: stop, drop the row, or fill in the training mean, "
        "median or most frequent value; a category always gets the most frequent one",
    )
    missing_indicator: bool = Field(
        False, description="add a column of 0 and 1 for each feature that has missing cells in training"
    )
    scaling: Scaling = Field(
        "standard",
        description="of numbers: standard (mean 0, deviation 1), minmax (0 to 1), robust (median 0, interquartile "
        "range 1), or none",
    )
    scale_target: bool | None = Field(
        None, description="task regress: train on the target at mean 0 and deviation 1; without it it is done"
    )
    unseen: Unseen = Field(
        "refuse", description="a category that training does not have: stop, or zeros in all columns of its feature"
    )
    categories: Encoding = Field(
        "one_hot",
        description="one_hot: a column of 0 and 1 for each category; embed: a vector for each that the network learns, "
        "of half as many numbers as the feature has categories, at most 50",
    )
    rare: int = Field(
        0, ge=0, description="categories that fewer training rows have are joined into one; 0 joins none, in rows"
    )


class TableOptions(BaseModel):
    """Tables of numbers and categories with a target, and what becomes of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: list[str] = Field(
        min_length=1,
        description="files, folders or globs: .csv .tsv .jsonl .json .parquet with named columns, each also .gz, "
        "parquet excepted; or a table that scikit-learn brings, such as sklearn:breast_cancer",
    )
    test_files: list[str] = Field(default_factory=list, description="the test set, if it has files of its own")
    validation_files: list[str] = Field(
        default_factory=list, description="the validation set, if it has files of its own"
    )
    task: TableTask = Field(
        "classify", description="classify: one label; multilabel: any number of labels; regress: a number"
    )
    columns: TableColumns = Field(default_factory=TableColumns, description="which columns hold what")
    labels: list[str] | None = Field(
        None, min_length=1, description="the labels in order of their numbers; without it those of training, sorted"
    )
    label_separator: str | None = Field(
        None, min_length=1, description="task multilabel with one target column: what divides the labels of one cell"
    )
    preprocessing: TablePreprocessing = Field(
        default_factory=TablePreprocessing, description="how cells become numbers"
    )
    noise: float = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="standard deviation of Gaussian noise that is added to the scaled numbers in training, 0 to 10; "
        "0 is off",
    )
    swap: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="share of the features of a row that training takes from another training row, 0 to 1; 0 is off",
    )
    balanced: bool = Field(False, description="draw all labels equally often, the rare ones repeatedly")
    split: LabelledSplit = Field(
        default_factory=LabelledSplit,
        description="training, validation and test; what is said there of texts holds for the features of a row",
    )
    malformed_limit: float = Field(
        0.01, ge=0.0, le=1.0, description="share of malformed rows (0 to 1) above which reading stops"
    )

    @property
    def split_kind(self) -> SplitKind:
        """The kind of split that applies."""
        return self.split.kind or ("stratified" if self.task == "classify" else "random")

    @property
    def scale_target(self) -> bool:
        """Whether the target is standardised."""
        asked = self.preprocessing.scale_target
        return self.task == "regress" if asked is None else asked
