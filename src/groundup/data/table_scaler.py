"""Cells to numbers: missing values filled, numbers scaled, categories one-hot or as codes, by statistics of the
training rows.

What is fitted is data, written as JSON beside the model and read again to predict. Files and tensors do not enter.

Shapes: N rows, F columns of features, K columns of codes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from groundup.data.table_cells import LARGEST, Cell, category_of, is_missing, number_of
from groundup.data.table_faults import (
    SHOWN,
    BadCell,
    absent_fault,
    barren_fault,
    crowded_fault,
    missing_fault,
    not_numbers_fault,
    unseen_fault,
)
from groundup.data.table_options import Encoding, Missing, Scaling, TablePreprocessing, Unseen
from groundup.errors import GroundupError, printable

UNFILLED = ("refuse", "drop")
"""The policies under which a missing cell is an error by the time rows become numbers."""

MOST_CATEGORIES = 10_000
"""Of one feature, one-hot: each is a column of its own."""

Array = NDArray[np.float64]
Cells = Mapping[str, Any]


class _Fitted(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class FittedNumber(_Fitted):
    """A numeric feature: what is filled in, and how it is scaled: (x - center) / scale."""

    name: str
    fill: float | None
    center: float
    scale: float = Field(gt=0.0)
    indicator: bool


class FittedCategory(_Fitted):
    """A categorical feature: what is filled in, the categories with a column or code each, and those that share the
    last."""

    name: str
    fill: str | None
    categories: list[str]
    rare: list[str]
    indicator: bool

    @property
    def size(self) -> int:
        """Columns of its one-hot; codes of it that training has."""
        return len(self.categories) + bool(self.rare)


class FittedTarget(_Fitted):
    """How the target of a regression is scaled: (y - center) / scale."""

    center: float
    scale: float = Field(gt=0.0)


class Preprocessor(_Fitted):
    """How cells become numbers, fitted once on training rows and the same ever after."""

    missing: Missing
    unseen: Unseen
    numbers: list[FittedNumber]
    categories: list[FittedCategory]
    target: FittedTarget | None = None
    encoding: Encoding = "one_hot"

    @classmethod
    def fit(
        cls,
        rows: Sequence[Cells],
        *,
        numeric: Sequence[str],
        categorical: Sequence[str],
        options: TablePreprocessing,
        places: Sequence[str] = (),
        values_N: Sequence[float] | None = None,
    ) -> Preprocessor:
        """Statistics of these rows alone; equal to scikit-learn's SimpleImputer followed by the scaler.

        Args:
            rows: cells by column, those of training and no others.
            numeric, categorical: the features in the order in which the model shall see them.
            options: the policies.
            places: how rows are named in messages; `row 1` and so on without it.
            values_N: the targets of a regression, if they shall be standardised.

        Raises:
            GroundupError: E-DATA-112 missing cells, where they are refused or nothing can be filled in; -115 text
                among numbers; -116 a row lacks a column; -118 too many categories; all together.
        """
        numbers, words, gaps, faults = _parsed(rows, places, numeric, categorical)
        if options.missing in UNFILLED:
            faults += [missing_fault(gaps, len(rows))] if gaps else []
        else:
            barren = [name for name, column in numbers.items() if not np.isfinite(column).any()]
            barren += [name for name, column in words.items() if not any(column)]
            faults += [barren_fault(barren, len(rows))] if barren else []
        _raise(faults)
        categories = [_fit_category(name, column, options) for name, column in words.items()]
        crowded = [one for one in categories if len(one.categories) > MOST_CATEGORIES]
        crowded = [] if options.categories == "embed" else crowded
        _raise([crowded_fault(one.name, len(one.categories), MOST_CATEGORIES) for one in crowded])
        target = None
        if values_N is not None:
            center, scale = _location(np.asarray(values_N, dtype=np.float64), "standard")
            target = FittedTarget(center=center, scale=scale)
        return cls(
            missing=options.missing,
            unseen=options.unseen,
            numbers=[_fit_number(name, column, options) for name, column in numbers.items()],
            categories=categories,
            target=target,
            encoding=options.categories,
        )

    @property
    def numeric(self) -> tuple[str, ...]:
        """The numeric features; theirs are the first columns that come out."""
        return tuple(one.name for one in self.numbers)

    @property
    def categorical(self) -> tuple[str, ...]:
        """The categorical features."""
        return tuple(one.name for one in self.categories)

    @property
    def names(self) -> list[str]:
        """The F columns that come out: numbers, indicators of missing cells, and, one-hot, the categories of each
        feature."""
        both: list[FittedNumber | FittedCategory] = [*self.numbers, *self.categories]
        names = [*self.numeric, *(f"{one.name} is missing" for one in both if one.indicator)]
        return names + (self._kinds if self.encoding == "one_hot" else [])

    @property
    def embedded(self) -> tuple[str, ...]:
        """The K features that come out as codes."""
        return self.categorical if self.encoding == "embed" else ()

    @property
    def codes(self) -> list[int]:
        """How many codes each of the K features has: 0 for what training does not have, and one for each category."""
        return [one.size + 1 for one in self.categories] if self.embedded else []

    @property
    def feature_of(self) -> list[int]:
        """For each of the F columns, then each of the K codes, the number of the feature that it was made of: numbers
        first, then categories."""
        both: list[FittedNumber | FittedCategory] = [*self.numbers, *self.categories]
        found = [*range(len(self.numbers)), *(number for number, one in enumerate(both) if one.indicator)]
        for number, category in enumerate(self.categories, start=len(self.numbers)):
            found += [number] * (1 if self.embedded else category.size)
        return found

    @property
    def meanings(self) -> list[str]:
        """What each weight of a first layer and each row of an embedding belongs to."""
        return self.names + [f"{kind} (embedded)" for kind in self._kinds if self.embedded]

    @property
    def _kinds(self) -> list[str]:
        """The categories of all features, named with their features."""
        names = []
        for one in self.categories:
            names += [f"{one.name}={category}" for category in one.categories]
            names += [f"{one.name}=(rare)"] if one.rare else []
        return names

    def transform(self, rows: Sequence[Cells], places: Sequence[str] = ()) -> NDArray[np.float32]:
        """Rows as numbers, float32 (N, F), finite throughout, in the order of `names`.

        Args:
            rows: cells by column; more columns than needed do no harm.
            places: how rows are named in messages; `row 1` and so on without it.

        Raises:
            GroundupError: E-DATA-112 missing cells that are not filled in, -114 unseen categories, -115 text among
                numbers, -116 a row lacks a column; all that apply, with the first rows of each.
        """
        places = places or [f"row {number}" for number in range(1, len(rows) + 1)]
        numbers, words, missing, faults = _parsed(rows, places, self.numeric, self.categorical)
        gaps = missing if self.missing in UNFILLED else []
        blocks: list[Array] = []
        for number in self.numbers:
            column = numbers[number.name]
            filled = np.where(np.isfinite(column), column, 0.0 if number.fill is None else number.fill)
            blocks.append((filled - number.center) / number.scale)
            far = np.flatnonzero(np.abs(blocks[-1]) > LARGEST).tolist()
            gaps += [BadCell(places[row], number.name, float(column[row])) for row in far]
        blocks += [~np.isfinite(numbers[one.name]) * 1.0 for one in self.numbers if one.indicator]
        absent = {name: np.array([cell is None for cell in column]) for name, column in words.items()}
        blocks += [absent[one.name] * 1.0 for one in self.categories if one.indicator]
        unseen: list[BadCell] = []
        for category in self.categories:
            code_N, strangers = _coded(category, words[category.name])
            if self.encoding == "one_hot":
                block, known = np.zeros((len(rows), category.size)), np.flatnonzero(code_N)
                block[known, code_N[known] - 1] = 1.0
                blocks += list(block.T)
            unseen += [BadCell(places[row], category.name, words[category.name][row]) for row in strangers]
        if gaps:
            faults.append(missing_fault(gaps, len(rows)))
        if unseen and self.unseen == "refuse":
            faults.append(unseen_fault(unseen, {one.name: one.categories + one.rare for one in self.categories}))
        _raise(faults)
        features = np.stack(blocks, axis=1) if blocks else np.zeros((len(rows), 0))  # nothing but codes
        return features.astype(np.float32)

    def one_hot(self) -> Preprocessor:
        """The same with a column for each category, for methods that learn no embeddings."""
        return self.model_copy(update={"encoding": "one_hot"})

    def codes_of(self, rows: Sequence[Cells]) -> NDArray[np.int64] | None:
        """The codes of rows that `transform` takes, int64 (N, K); None where none are embedded."""
        if not self.embedded:
            return None
        _, words, _, _ = _parsed(rows, [], (), self.embedded)
        return np.stack([_coded(one, words[one.name])[0] for one in self.categories], axis=1)

    def scaled_target(self, values_N: Iterable[float]) -> NDArray[np.float32]:
        """Targets as the model learns them, float32 (N,)."""
        values = np.array(list(values_N), dtype=np.float64)
        return (values if self.target is None else (values - self.target.center) / self.target.scale).astype(np.float32)

    @property
    def unit(self) -> float:
        """How much of the table's unit one of the model's numbers is."""
        return 1.0 if self.target is None else self.target.scale

    def restore_target(self, predictions: Any) -> Array:
        """What the model says in the unit of the table, float64 of the same shape."""
        said = np.asarray(predictions, dtype=np.float64)
        return said if self.target is None else said * self.target.scale + self.target.center

    def to_dict(self) -> dict[str, Any]:
        """JSON values from which `from_dict` makes the same again, bit for bit."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, saved: Any) -> Preprocessor:
        """What `to_dict` gave.

        Raises:
            GroundupError: E-DATA-120 it is something else.
        """
        try:
            return cls.model_validate(saved)
        except ValidationError as error:
            wrong = [
                printable(f"{'.'.join(map(str, one['loc'])) or 'whole'}: {one['msg']}")
                for one in error.errors()[:SHOWN]
            ]
            raise GroundupError(
                "E-DATA-120",
                f"the saved preprocessing of a table is malformed in {error.error_count()} places",
                where="\n".join(wrong),
                why="without the means, scales and categories of training the model would see other numbers",
                fix="take the file from the run again, or train again",
            ) from error


def _parsed(
    rows: Sequence[Cells], places: Sequence[str], numeric: Sequence[str], categorical: Sequence[str]
) -> tuple[dict[str, Array], dict[str, list[str | None]], list[BadCell], list[GroundupError]]:
    """Columns of numbers and of categories, the cells that are missing, and what is wrong; a wrong cell is NaN or None
    here."""
    places = places or [f"row {number}" for number in range(1, len(rows) + 1)]
    absent: list[BadCell] = []
    wrong: list[BadCell] = []
    gaps: list[BadCell] = []

    def read(name: str, parse: Callable[[Any], Any], instead: Cell) -> list[Any]:
        column = []
        for row, place in zip(rows, places, strict=True):
            cell = instead
            if name not in row:
                absent.append(BadCell(place, name, None))
            else:
                try:
                    cell = parse(row[name])
                except ValueError:
                    wrong.append(BadCell(place, name, row[name]))
                else:
                    if is_missing(cell):
                        gaps.append(BadCell(place, name, row[name]))
            column.append(cell)
        return column

    numbers = {name: np.array(read(name, number_of, math.nan), dtype=np.float64) for name in numeric}
    words = {name: read(name, category_of, None) for name in categorical}
    faults = [absent_fault(absent, rows)] if absent else []
    faults += [not_numbers_fault(wrong)] if wrong else []
    return numbers, words, gaps, faults


def _fit_number(name: str, column: Array, options: TablePreprocessing) -> FittedNumber:
    there = np.isfinite(column)
    fill = None
    if options.missing == "mean":
        fill = float(column[there].mean())
    elif options.missing == "median":
        fill = float(np.median(column[there]))
    elif options.missing == "most_frequent":
        values, counts = np.unique(column[there], return_counts=True)
        fill = float(values[counts.argmax()])
    filled = column if fill is None else np.where(there, column, fill)
    center, scale = _location(filled, options.scaling)
    indicator = options.missing_indicator and not bool(there.all())
    return FittedNumber(name=name, fill=fill, center=center, scale=scale, indicator=indicator)


def _location(column: Array, scaling: Scaling) -> tuple[float, float]:
    """Centre and scale of a column; the scale of one that is constant but for rounding is 1, as in scikit-learn."""
    epsilon = float(np.finfo(np.float64).eps)
    if scaling == "none":
        return 0.0, 1.0
    if scaling == "standard":
        center, variance, rows = float(column.mean()), float(column.var()), len(column)
        # what the two-pass algorithm may be off by (Chan, Golub and LeVeque 1983)
        constant = variance <= rows * epsilon * variance + (rows * center * epsilon) ** 2
        return center, 1.0 if constant else variance**0.5
    if scaling == "minmax":
        center, scale = float(column.min()), float(column.max() - column.min())
    else:
        low, center, high = (float(one) for one in np.percentile(column, [25, 50, 75]))
        scale = high - low
    return center, 1.0 if scale < 10 * epsilon else scale


def _fit_category(name: str, column: Sequence[str | None], options: TablePreprocessing) -> FittedCategory:
    count = Counter(cell for cell in column if cell is not None)
    fill = None
    if options.missing not in ("refuse", "drop"):
        fill = min(count, key=lambda category: (-count[category], category))
        count[fill] += sum(cell is None for cell in column)
    rare = sorted(category for category in count if count[category] < options.rare)
    kept = sorted(set(count) - set(rare))
    indicator = options.missing_indicator and None in column
    return FittedCategory(name=name, fill=fill, categories=kept, rare=rare, indicator=indicator)


def _coded(fitted: FittedCategory, column: Sequence[str | None]) -> tuple[NDArray[np.int64], list[int]]:
    """The number of each cell's category, from 1, the rare ones sharing the last; and the rows of unseen categories.
    What is unseen, or missing and not filled in, has 0."""
    number = {category: index for index, category in enumerate(fitted.categories, start=1)}
    number |= dict.fromkeys(fitted.rare, fitted.size)
    filled = [fitted.fill if cell is None else cell for cell in column]  # None is reported as missing
    unseen = [row for row, category in enumerate(filled) if category is not None and category not in number]
    return np.array([number.get(category or "", 0) for category in filled], dtype=np.int64), unseen


def _raise(faults: list[GroundupError]) -> None:
    if faults:
        faults[0].others = faults[1:]
        raise faults[0]
