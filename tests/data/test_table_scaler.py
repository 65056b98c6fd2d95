"""Cells to numbers beside scikit-learn, what is refused at prediction, and the stream of batches."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from groundup.data.table_options import Scaling, TablePreprocessing, TableTask
from groundup.data.table_scaler import Preprocessor
from groundup.data.table_set import TablePart
from groundup.data.table_stream import TableStream, table_batches
from groundup.errors import CATALOGUE, GroundupError

random = np.random.default_rng(7)
NUMBERS = random.standard_normal((40, 3)) * [1, 1000, 1e-4] + [5, -300, 0]
NUMBERS[:, 2] = 0.1  # constant, though 40 × 0.1 is not exactly 4
CITIES = [["Rome", "Oslo", "Bern", "Rome"][number % 4] for number in range(39)] + ["Kyiv"]
ROWS: list[dict[str, Any]] = [
    {"a": row[0], "b": row[1], "c": row[2], "city": city} for row, city in zip(NUMBERS.tolist(), CITIES)
]


def fitted(rows: list[dict[str, Any]] = ROWS, **given: Any) -> Preprocessor:
    return Preprocessor.fit(
        rows, numeric=["a", "b", "c"], categorical=["city"], options=TablePreprocessing.model_validate(given)
    )


def refused(preprocessor: Preprocessor, *rows: dict[str, Any]) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        preprocessor.transform(rows)
    for fault in (caught.value, *caught.value.others):
        assert fault.code in CATALOGUE and fault.where and fault.why and fault.fix
    return caught.value


@pytest.mark.parametrize(
    ("scaling", "reference"), [("standard", "StandardScaler"), ("minmax", "MinMaxScaler"), ("robust", "RobustScaler")]
)
def test_scaling_equals_scikit_learn(scaling: Scaling, reference: str) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    scaler = vars(preprocessing)[reference]().fit(NUMBERS[:25])
    made = fitted(ROWS[:25], scaling=scaling, unseen="zeros")
    expected = scaler.transform(NUMBERS)
    assert np.allclose(made.transform(ROWS)[:, :3], expected, rtol=1e-6, atol=1e-6)
    assert np.abs(made.transform(ROWS)[:, 2]).max() < 1e-12  # the constant column


@pytest.mark.parametrize("rare", [0, 2, 11])
def test_one_hot_equals_scikit_learn(rare: int) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    encoder = preprocessing.OneHotEncoder(min_frequency=rare or None, handle_unknown="ignore", sparse_output=False)
    expected = encoder.fit_transform([[city] for city in CITIES])
    made = fitted(unseen="zeros", rare=rare)
    assert np.array_equal(made.transform(ROWS)[:, 3:], expected)
    assert len(made.names) == made.transform(ROWS).shape[1]
    assert (
        made.names[3:]
        == {
            0: ["city=Bern", "city=Kyiv", "city=Oslo", "city=Rome"],
            2: ["city=Bern", "city=Oslo", "city=Rome", "city=(rare)"],
            11: ["city=Rome", "city=(rare)"],
        }[rare]
    )
    assert (made.transform([ROWS[0] | {"city": "Lima"}])[0, 3:] == 0).all()


@pytest.mark.parametrize("missing", ["mean", "median", "most_frequent"])
@pytest.mark.parametrize("scaling", ["standard", "robust"])
def test_filling_in_equals_scikit_learn(missing: str, scaling: str) -> None:
    impute, preprocessing = pytest.importorskip("sklearn.impute"), pytest.importorskip("sklearn.preprocessing")
    pipeline = pytest.importorskip("sklearn.pipeline")
    holes = np.round(NUMBERS, 0)
    holes[::7, 0] = np.nan
    holes[3:9, 1] = np.nan
    rows = [row | {"a": a, "b": b, "c": c} for row, (a, b, c) in zip(ROWS, holes.tolist())]
    scaler = {"standard": preprocessing.StandardScaler, "robust": preprocessing.RobustScaler}[scaling]()
    reference = pipeline.make_pipeline(impute.SimpleImputer(strategy=missing), scaler).fit(holes)
    indicator = impute.MissingIndicator().fit_transform(holes)
    made = fitted(rows, missing=missing, scaling=scaling, missing_indicator=True)
    assert made.names[:5] == ["a", "b", "c", "a is missing", "b is missing"]
    features = made.transform(rows)
    assert np.allclose(features[:, :3], reference.transform(holes), rtol=1e-6, atol=1e-6)
    assert np.array_equal(features[:, 3:5], indicator)


def test_a_missing_category_becomes_the_most_frequent_one() -> None:
    rows = [row | ({"city": ""} if number == 2 else {}) for number, row in enumerate(ROWS)]
    made = fitted(rows, missing="mean", missing_indicator=True)
    features = dict(zip(made.names, made.transform(rows)[2]))
    assert features["city=Rome"] == 1 and features["city is missing"] == 1 and features["city=Bern"] == 0


def test_what_is_saved_gives_the_same_bits() -> None:
    rows = [row | {"a": None if number == 4 else row["a"]} for number, row in enumerate(ROWS)]
    made = Preprocessor.fit(
        rows,
        numeric=["a", "b", "c"],
        categorical=["city"],
        options=TablePreprocessing(missing="median", missing_indicator=True, rare=3, scaling="robust"),
        values_N=NUMBERS[:, 1].tolist(),
    )
    again = Preprocessor.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made and again.names == made.names
    assert np.array_equal(again.transform(rows), made.transform(rows))
    assert np.array_equal(again.restore_target([0.5]), made.restore_target([0.5]))


@pytest.mark.parametrize(
    ("path", "value"),
    [(("numbers", 0, "scale"), 0.0), (("numbers", 0, "center"), "1"), (("unseen",), "guess"), (("categories",), None)],
)
def test_D8_saved_preprocessing_that_was_damaged_is_refused(path: tuple[Any, ...], value: Any) -> None:
    saved = fitted().to_dict()
    place = saved
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(GroundupError) as caught:
        Preprocessor.from_dict(saved)
    assert caught.value.code == "E-DATA-120" and ".".join(map(str, path)) in caught.value.where


def test_D8_every_bad_cell_at_prediction_is_named_by_row_and_column() -> None:
    good = ROWS[0]
    without = {name: cell for name, cell in good.items() if name != "b"} | {"B": 1.0}
    fault = refused(
        fitted(), good, without, good | {"a": "12 kg"}, good | {"city": "Osloo"}, good | {"c": float("nan")},
        good | {"b": None},
    )  # fmt: skip
    found = {one.code: one for one in (fault, *fault.others)}
    assert list(found) == ["E-DATA-116", "E-DATA-115", "E-DATA-112", "E-DATA-114"]
    assert "row 2: no column 'b'" in found["E-DATA-116"].where and "city" in found["E-DATA-116"].where
    assert "row 3: column 'a': '12 kg'" in found["E-DATA-115"].where
    assert "row 4: column 'city': 'Osloo'" in found["E-DATA-114"].where
    assert "'Osloo' may be 'Oslo'" in found["E-DATA-114"].fix
    assert "row 5: column 'c': empty or NaN" in found["E-DATA-112"].where and "row 6" in found["E-DATA-112"].where


def test_D8_a_number_too_large_once_it_is_scaled_is_refused() -> None:
    assert refused(fitted([row | {"a": row["a"] * 1e-9} for row in ROWS]), ROWS[0] | {"a": 3e38}).code == "E-DATA-112"


def test_D8_columns_that_cannot_be_fitted_are_named() -> None:
    for given, code in (({"missing": "mean"}, "E-DATA-113"), ({}, "E-DATA-112")):
        with pytest.raises(GroundupError) as caught:
            fitted([row | {"b": None} for row in ROWS], **given)
        assert caught.value.code == code and "b" in caught.value.where
    many = [row | {"city": str(number)} for number, row in enumerate(ROWS * 251)]
    with pytest.raises(GroundupError) as caught:
        fitted(many)
    assert caught.value.code == "E-DATA-118" and "'city' has 10,040 categories" in caught.value.what


# ---------------------------------------------------------------- codes of categories that are embedded


@pytest.mark.parametrize("rare", [0, 2, 11])
def test_codes_say_what_the_one_hot_says(rare: int) -> None:
    """Code k is the k-th column; 0 is a row of zeros, of a category that training does not have."""
    codes, one_hot = (fitted(unseen="zeros", rare=rare, categories=kind) for kind in ("embed", "one_hot"))
    rows = [*ROWS, {"a": 1, "b": 2, "c": 3, "city": "Lima"}]
    found = codes.codes_of(rows)
    assert found is not None and found.dtype == np.int64 and found.shape == (41, 1) and found[-1] == 0
    columns = one_hot.transform(rows)[:, 3:]
    assert np.array_equal(np.eye(codes.codes[0])[found[:, 0], 1:], columns) and (found[:-1] > 0).all()
    assert codes.names == ["a", "b", "c"] and np.array_equal(codes.transform(rows), one_hot.transform(rows)[:, :3])
    assert one_hot.codes == [] and one_hot.embedded == () and one_hot.codes_of(rows) is None
    assert np.array_equal(codes.one_hot().transform(rows), one_hot.transform(rows))
    assert [one.removesuffix(" (embedded)") for one in codes.meanings] == one_hot.names == one_hot.meanings
    again = Preprocessor.from_dict(json.loads(json.dumps(codes.to_dict())))
    assert again == codes and np.array_equal(again.codes_of(rows), found)  # type: ignore[arg-type]


def test_what_was_saved_before_there_were_codes_is_one_hot() -> None:
    saved = fitted().to_dict()
    del saved["encoding"]
    assert Preprocessor.from_dict(saved) == fitted()


def test_missing_and_unseen_categories_follow_their_policies_as_codes_too() -> None:
    stranger, hole = ({"a": 1.0, "b": 1.0, "c": 1.0, "city": city} for city in ("Lima", None))
    strict = fitted(categories="embed")
    assert refused(strict, stranger).code == "E-DATA-114" and refused(strict, hole).code == "E-DATA-112"
    filled = fitted([*ROWS, hole], categories="embed", missing="most_frequent", missing_indicator=True)
    found = filled.codes_of([hole, {**hole, "city": "Rome"}])
    assert found is not None and found[0] == found[1] > 0, "Rome is the most frequent one"
    assert filled.names[-1] == "city is missing" and filled.transform([hole])[0, -1] == 1


def test_a_table_of_nothing_but_codes_has_no_columns_of_numbers() -> None:
    made = Preprocessor.fit(
        ROWS, numeric=[], categorical=["city"], options=TablePreprocessing(categories="embed", rare=2)
    )
    assert made.transform(ROWS).shape == (40, 0) and made.codes == [5]


def test_more_categories_than_columns_can_be_are_embedded() -> None:
    rows = [{"a": 1.0, "b": 2.0, "c": 3.0, "city": f"city {number}"} for number in range(10_001)]
    with pytest.raises(GroundupError) as caught:
        fitted(rows)
    assert caught.value.code == "E-DATA-118" and "categories=embed" in str(caught.value.fix)
    assert fitted(rows, categories="embed").codes == [10_002]


def part(rows: int = 23, task: TableTask = "classify") -> TablePart:
    features = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    number = np.arange(rows)
    target: dict[TableTask, NDArray[Any]] = {
        "classify": (number % 5 == 0).astype(np.int64),
        "multilabel": np.stack([number % 2, number % 3 == 0], axis=1).astype(np.float32),
        "regress": number.astype(np.float32) / 2,
    }
    return TablePart([], features, target[task])


@pytest.mark.parametrize(
    ("task", "name", "dtype"),
    [
        ("classify", "label_B", torch.int64),
        ("multilabel", "label_BL", torch.float32),
        ("regress", "value_B", torch.float32),
    ],
)
def test_an_epoch_holds_every_row_once(task: TableTask, name: str, dtype: torch.dtype) -> None:
    given = part(task=task)
    stream = TableStream(given, task=task, rows=5, seed=3)
    epochs = [[stream.next("model") for _ in range(stream.batches_per_epoch)] for _ in range(2)]
    assert [len(batch["row_B"]) for batch in epochs[0]] == [5, 5, 5, 5, 3]
    orders = [torch.cat([batch["row_B"] for batch in epoch]).tolist() for epoch in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(23)) and orders[0] != orders[1]
    for batch in epochs[0]:
        assert set(batch) == {"features_BF", "row_B", name} and batch[name].dtype == dtype
        assert np.array_equal(batch["features_BF"].numpy(), given.features_NF[batch["row_B"]])
        assert given.target is not None and np.array_equal(batch[name].numpy(), given.target[batch["row_B"]])
    assert stream.ledger == {"seen": 46, "trained": 46, "masked": 0, "padded": 0}


def test_the_stream_resumes_bit_for_bit_noise_included() -> None:
    def made(seed: int = 3) -> TableStream:
        return TableStream(part(), task="classify", rows=4, seed=seed, noise=0.5, numeric=2)

    one, other, resumed = made(), made(4), made()
    for _ in range(8):
        one.next("model")
    resumed.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for _ in range(9):
        left, right = one.next("model"), resumed.next("model")
        assert all(torch.equal(left[name], right[name]) for name in left)
    assert one.state_dict() == resumed.state_dict()
    assert other.indices(0, 0).tolist() != one.indices(0, 0).tolist()


def test_noise_is_gaussian_on_the_numbers_alone_and_leaves_the_table_as_it_was() -> None:
    given = TablePart([], np.ones((4000, 3), dtype=np.float32), np.zeros(4000, dtype=np.int64))
    stream = TableStream(given, task="classify", rows=1000, seed=0, noise=0.2, numeric=2)
    seen = torch.cat([stream.next("model")["features_BF"] for _ in range(8)])
    noise = seen[:, :2].double() - 1
    assert (
        abs(noise.mean()) < 0.01
        and abs(noise.std() - 0.2) < 0.01
        and abs((noise.abs() > 0.4).double().mean() - 0.0455) < 0.01
    )
    assert not torch.equal(seen[:4000], seen[4000:]) and (seen[:, 2] == 1).all() and (given.features_NF == 1).all()
    assert all((batch["features_BF"] == 1).all() for batch in table_batches(given, task="classify", rows=999))


def test_noise_leaves_codes_as_they_are_and_they_come_with_their_rows() -> None:
    codes = np.arange(4000, dtype=np.int64)[:, None] % 7
    given = TablePart([], np.ones((4000, 1), dtype=np.float32), None, codes)
    stream = TableStream(given, task="classify", rows=1000, seed=0, noise=0.2, numeric=1)
    for batch in (stream.next("model") for _ in range(4)):
        assert np.array_equal(batch["category_BK"].numpy(), codes[batch["row_B"]])
        assert (batch["features_BF"] != 1).any()
    assert np.array_equal(given.first(3).category_NK, codes[:3]) and given.first(3).target is None  # type: ignore[arg-type]


def test_each_column_and_code_knows_its_feature() -> None:
    holes = [row | ({"a": None} if number == 3 else {}) for number, row in enumerate(ROWS)]
    assert fitted().feature_of == [0, 1, 2, 3, 3, 3, 3]
    filled = fitted(holes, missing="mean", missing_indicator=True, rare=2)
    assert filled.names == ["a", "b", "c", "a is missing", *(f"city={city}" for city in ("Bern", "Oslo", "Rome")),
                            "city=(rare)"]  # fmt: skip
    assert filled.feature_of == [0, 1, 2, 0, 3, 3, 3, 3]
    embedded = fitted(holes, missing="mean", missing_indicator=True, categories="embed")
    assert len(embedded.names) == 4 and embedded.feature_of == [0, 1, 2, 0, 3]


def swapped(share: float = 0.3, rows: int = 1000, seed: int = 0, **given: Any) -> TableStream:
    """Row number n holds n in every column, so that each cell says where it is from; columns 0 and 2 are one
    feature."""
    features = np.tile(np.arange(4000, dtype=np.float32)[:, None], 3)
    part = TablePart([], features, np.arange(4000), np.arange(4000)[:, None])
    return TableStream(part, task="classify", rows=rows, seed=seed, swap=share, feature_of=[0, 1, 0, 2], **given)


def test_swapped_features_are_whole_and_those_of_another_row() -> None:
    stream = swapped()
    for batch in (stream.next("model") for _ in range(4)):
        cells = torch.cat([batch["features_BF"].long(), batch["category_BK"]], dim=1)
        taken = cells != batch["row_B"][:, None]
        assert torch.equal(cells[:, 0], cells[:, 2]), "what was made of one feature is taken together"
        assert torch.equal(batch["label_B"], batch["row_B"]), "the answer stays"
        assert (taken.double().mean(dim=0) - 0.3).abs().max() < 0.06
        both = taken[:, 0] & taken[:, 1]
        assert both.any() and (cells[both, 0] != cells[both, 1]).double().mean() > 0.9, "each of a row of its own"
    assert (stream.part.features_NF == np.arange(4000)[:, None]).all()
    for batch in table_batches(stream.part, task="classify", rows=999):
        assert (batch["features_BF"] == batch["row_B"][:, None]).all()
        assert (batch["category_BK"] == batch["row_B"][:, None]).all()


def test_no_swap_changes_nothing_and_noise_is_the_same_with_it() -> None:
    plain = swapped(0.0).next("model")
    assert (plain["features_BF"] == plain["row_B"][:, None]).all()
    noise = swapped(0.0, noise=0.1, numeric=3).next("model")["features_BF"] - plain["features_BF"]
    both = swapped(noise=0.1, numeric=3).next("model")["features_BF"]
    assert torch.allclose(both - both.round(), noise, atol=1e-3), "it is drawn before, and added after"


def test_swapping_resumes_bit_for_bit() -> None:
    one, resumed = swapped(rows=300, noise=0.1, numeric=2), swapped(rows=300, noise=0.1, numeric=2)
    for _ in range(5):
        one.next("model")
    resumed.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for _ in range(15):
        left, right = one.next("model"), resumed.next("model")
        assert all(torch.equal(left[name], right[name]) for name in left)
    alone = TablePart([], np.ones((1, 2), dtype=np.float32), np.zeros(1, dtype=np.int64))
    assert (TableStream(alone, task="classify", rows=1, seed=0, swap=0.9).next("model")["features_BF"] == 1).all()


def test_balanced_draws_give_each_label_equally_often() -> None:
    stream = TableStream(part(), task="classify", rows=23, seed=1, balanced=True)
    batches = [stream.next("model") for _ in range(5)]
    for batch in batches:
        counts = Counter(batch["label_B"].tolist())
        assert sorted(counts.values()) == [11, 12]
    assert set(torch.cat([batch["row_B"] for batch in batches]).tolist()) == set(range(23))


def test_D8_fewer_rows_than_a_batch_are_refused_before_training() -> None:
    with pytest.raises(GroundupError) as caught:
        TableStream(part(), task="classify", rows=24, seed=0)
    assert caught.value.code == "E-DATA-117" and "23 training rows" in caught.value.what
    with pytest.raises(GroundupError) as caught:
        TableStream(part(task="regress"), task="regress", rows=2, seed=0, balanced=True)
    assert caught.value.code == "E-DATA-015"


def test_rows_without_a_target_come_in_order() -> None:
    batches = list(table_batches(part()._replace(target=None), task="classify", rows=10))
    assert [set(batch) for batch in batches] == [{"features_BF", "row_B"}] * 3
    assert torch.cat([batch["row_B"] for batch in batches]).tolist() == list(range(23))
