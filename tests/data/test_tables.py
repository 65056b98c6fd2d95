"""Tables of numbers and categories: what is read and set aside, what is refused, and the sides."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.data.builtin_tables import BUILTIN, read_builtin
from groundup.data.chat_rows import SetAside
from groundup.data.table_cells import category_of, number_of
from groundup.data.table_options import TableOptions
from groundup.data.table_set import TableSet, fit_preprocessor, make_part, read_rows_to_predict, read_table
from groundup.errors import CATALOGUE, GroundupError

WHOLE = {"test": 0.0, "validation": 0.0}
"""A split that leaves all rows in training."""


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def options(*files: Path | str, **given: Any) -> TableOptions:
    given.setdefault("split", WHOLE)
    for name in ("test_files", "validation_files"):
        given[name] = [str(file) for file in given.get(name, [])]
    return TableOptions.model_validate({"files": [str(file) for file in files], **given})


def read(*files: Path | str, **given: Any) -> tuple[TableSet, list[SetAside]]:
    aside: list[SetAside] = []
    made = read_table(options(*files, **given), aside)
    counts = made.card["rows"]
    assert counts["rows"] == counts["kept"] + sum(counts["set_aside"].values())
    assert (counts["kept"], sum(counts["set_aside"].values())) == (len(made.rows), len(aside))
    assert sum(made.card["sides"].values()) == len(made.rows)
    assert counts["rows"] == sum(file["rows"] for file in counts["files"].values())
    assert all(np.isfinite(part.features_NF).all() for part in made.parts.values())
    json.dumps(made.card)
    return made, aside


def refused(*files: Path | str, **given: Any) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        read(*files, **given)
    for fault in (caught.value, *caught.value.others):
        assert fault.code in CATALOGUE and fault.where and fault.why and fault.fix
    return caught.value


ROWS = [
    {"age": 31, "height": 1.75, "city": "Rome", "label": "yes"},
    {"age": 45.5, "height": 1.6, "city": "Oslo", "label": "no"},
    {"age": -2, "height": 1e-3, "city": "Rome", "label": "yes"},
    {"age": 60, "height": 0.1 + 0.2, "city": "Bern", "label": "no"},
]


def written(folder: Path, suffix: str, rows: list[dict[str, Any]], order: list[str]) -> Path:
    """The same rows in any format, their columns in the order asked for."""
    path = folder / f"rows{suffix}"
    rows = [{name: row[name] for name in order} for row in rows]
    if suffix == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({name: [row[name] for row in rows] for name in order}), path)
    elif suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="," if suffix == ".csv" else "\t")
            writer.writerows([order, *([row[name] for name in order] for row in rows)])
    elif suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        jsonl(path, rows)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows = [row | {"age": float(row["age"])} for row in ROWS]  # a parquet column has one type
    made, aside = read(written(tmp_path, suffix, rows, list(ROWS[0])))
    assert [dict(row.cells) | {"label": row.labels[0]} for row in made.rows] == rows
    assert made.columns == (("label",), ("age", "height"), ("city",), None, None) and not aside and not made.findings
    assert made.labels == ["no", "yes"] and made.parts["train"].target.tolist() == [1, 0, 1, 0]
    assert made.preprocessor.names == ["age", "height", "city=Bern", "city=Oslo", "city=Rome"]


def test_breast_cancer_is_the_same_from_csv_jsonl_and_parquet(tmp_path: Path) -> None:
    rows = [dict(record.fields or {}) for record in read_builtin("sklearn:breast_cancer").records]
    order = list(rows[0])
    split = {"test": 0.2, "validation": 0.1}
    found = {suffix: read(written(tmp_path, suffix, rows, order), split=split)[0] for suffix in (".csv", ".parquet")}
    # other order of columns: the split stays, the columns follow the file
    found[".jsonl"] = read(written(tmp_path, ".jsonl", rows, order[::-1]), split=split)[0]
    built = read("sklearn:breast_cancer", split=split)[0]
    for suffix, made in found.items():
        for side, part in made.parts.items():
            features = part.features_NF[:, ::-1] if suffix == ".jsonl" else part.features_NF
            assert np.array_equal(features, built.parts[side].features_NF), (suffix, side)
            assert np.array_equal(part.target, built.parts[side].target)


def test_breast_cancer_is_scaled_by_its_training_rows_alone() -> None:
    made, aside = read("sklearn:breast_cancer", split={"test": 0.2, "validation": 0.1})
    assert len(made.rows) == 569 and len(made.preprocessor.names) == 30 and not aside
    assert made.card["sides"] == {"train": 398, "validation": 57, "test": 114}
    assert made.labels == ["benign", "malignant"] and sum(made.counts.values()) == 398
    raw = np.array([list(row.cells.values()) for row in made.rows])
    train = raw[[row.side == "train" for row in made.rows]]
    centers = np.array([number.center for number in made.preprocessor.numbers])
    assert np.allclose(centers, train.mean(axis=0), rtol=1e-12)
    assert (np.abs(centers / raw.mean(axis=0) - 1) > 1e-5).all()
    features = made.parts["train"].features_NF
    assert np.allclose(features.mean(axis=0), 0, atol=1e-5) and np.allclose(features.std(axis=0), 1, atol=1e-5)
    assert np.abs(made.parts["test"].features_NF.mean(axis=0)).max() > 0.01


@pytest.mark.parametrize(("name", "rows", "columns"), [("iris", 150, 4), ("wine", 178, 13), ("digits", 1797, 64)])
def test_built_in_tables(name: str, rows: int, columns: int) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    loaded = {"iris": datasets.load_iris, "wine": datasets.load_wine, "digits": datasets.load_digits}[name]()
    made, _ = read(f"sklearn:{name}", preprocessing={"scaling": "none"})
    assert made.parts["train"].features_NF.shape == (rows, columns)
    assert np.array_equal(made.parts["train"].features_NF, loaded.data.astype(np.float32))
    names = [made.labels[number] for number in made.parts["train"].target]
    assert names == [str(loaded.target_names[number]) for number in loaded.target]


def test_diabetes_is_a_regression_whose_target_is_scaled_and_restored() -> None:
    made, _ = read("sklearn:diabetes", task="regress", split={"test": 0.2})
    part = made.parts["test"]
    values = np.array([row.value for row in part.rows])
    assert len(made.rows) == 442 and len(made.preprocessor.names) == 10 and made.labels == []
    assert np.allclose(made.preprocessor.restore_target(part.target), values, rtol=1e-5)
    assert abs(made.parts["train"].target.mean()) < 1e-5 and abs(made.parts["train"].target.std() - 1) < 1e-5
    plain, _ = read("sklearn:diabetes", task="regress", split={"test": 0.2}, preprocessing={"scale_target": False})
    assert np.array_equal(plain.parts["test"].target, values.astype(np.float32))
    assert np.array_equal(plain.preprocessor.restore_target(plain.parts["test"].target), values)


def test_D8_an_unknown_built_in_table_is_named_with_the_nearest() -> None:
    fault = refused("sklearn:breast_cancers")
    assert fault.code == "E-DATA-119" and "sklearn:breast_cancer\n" in fault.fix
    assert all(f"sklearn:{name}" in fault.fix for name in BUILTIN)


def test_numbers_are_parsed_strictly() -> None:
    for written_as, value in {" 3.5 ": 3.5, "-1e3": -1000.0, ".5": 0.5, "7.": 7.0, "+2": 2.0}.items():
        assert number_of(written_as) == value
    for empty in (None, "", "  ", "NaN", "n/a", "NA", "null", float("nan")):
        assert np.isnan(number_of(empty))
    for infinite in ("inf", "-Infinity", "1e999", 1e39, 10**400, float("inf")):
        assert np.isinf(number_of(infinite))
    for none in ("1,000", "3,5", "5 kg", "0x10", "1_000", "٣", "one", True, [1], {}, b"1"):
        with pytest.raises(ValueError, match="not a number"):
            number_of(none)
    assert [category_of(cell) for cell in (" a ", "", None, 1, 1.0, True)] == ["a", None, None, "1", "1.0", "true"]


def test_malformed_rows_are_set_aside_with_place_and_reason(tmp_path: Path) -> None:
    file = text(tmp_path / "a.csv", "x,kind,label\n1,a,yes\n2 kg,b,no\n3,b\n4,a,\n5,a,no\n6,b,yes\n")
    made, aside = read(file, malformed_limit=0.5)
    assert [(item.line, item.reason, item.malformed) for item in aside] == [
        (3, "column \"x\" is not a number: '2 kg'", True),
        (4, "2 fields, the header has 3", True),
        (5, "the label is empty", False),
    ]
    assert made.columns.numeric == ("x",) and len(made.rows) == 3
    assert any("set aside, the label is empty; first" in finding and ":5" in finding for finding in made.findings)
    fault = refused(file)
    assert fault.code == "E-DATA-003" and "2 of 6 rows" in fault.what and "a.csv:3" in fault.where


def test_columns_are_of_the_kind_that_is_named(tmp_path: Path) -> None:
    file = text(tmp_path / "a.csv", "id,zip,x,Class\n1,007,1,p\n2,010,2,q\n3,007,3,p\n")
    made, _ = read(file, columns={"categorical": ["zip"], "ignore": ["id"]})
    assert made.preprocessor.names == ["x", "zip=007", "zip=010"] and made.columns.target == ("Class",)


def test_D8_columns_that_are_missing_are_all_named_at_once(tmp_path: Path) -> None:
    file = text(tmp_path / "a.csv", "width,height,kind\n1,2,a\n")
    fault = refused(file, columns={"target": "kinds", "ignore": ["id"]})
    assert fault.code == "E-DATA-110" and "'kinds'" in fault.where and "'id'" in fault.where
    assert "width, height, kind" in fault.where and "'kinds' may be 'kind'" in fault.fix
    assert "none is known as the target" in refused(file).what
    other = text(tmp_path / "b.csv", "width,kind\n1,a\n")
    fault = refused(file, columns={"target": "kind"}, test_files=[other])
    assert fault.code == "E-DATA-110" and "b.csv has no column 'height'" in fault.where
    assert "plain text" in refused(text(tmp_path / "c.txt", "1\t2\n")).what


def test_D8_nan_and_infinite_features_are_refused_by_row_and_column(tmp_path: Path) -> None:
    rows = [row | {} for row in ROWS]
    rows[1]["age"], rows[2]["height"], rows[3]["city"] = float("nan"), float("inf"), ""
    fault = refused(jsonl(tmp_path / "a.jsonl", rows))
    assert fault.code == "E-DATA-112" and "3 cells of 3 rows (of 4)" in fault.what
    for said in (
        "a.jsonl:2: column 'age': empty or NaN",
        "a.jsonl:3: column 'height': inf",
        "a.jsonl:4: column 'city'",
    ):
        assert said in fault.where
    made, aside = read(tmp_path / "a.jsonl", preprocessing={"missing": "median"})
    assert any("'height': 1 of 4 cells are missing, 1 of them infinite" in finding for finding in made.findings)
    dropped, aside = read(
        jsonl(tmp_path / "b.jsonl", [*rows, ROWS[1]]), preprocessing={"missing": "drop"}, malformed_limit=0.0
    )
    assert len(dropped.rows) == 2 and [item.reason for item in aside] == [
        f"a feature is missing: {name}" for name in ("age", "height", "city")
    ]


def test_D8_labels_out_of_range_are_malformed(tmp_path: Path) -> None:
    rows = [{"x": number, "label": number % 2} for number in range(20)]
    rows[7]["label"] = 5
    fault = refused(jsonl(tmp_path / "a.jsonl", rows), labels=["0", "1"])
    assert fault.code == "E-DATA-003" and "the label is not in data.labels: '5' (" in fault.where
    assert "a.jsonl:8" in fault.where
    columns = {"target": ["red", "blue"]}
    rows = [{"x": number, "red": number % 2, "blue": number == 3} for number in range(5)] + [
        {"x": 9, "red": 2, "blue": 0}
    ]
    fault = refused(jsonl(tmp_path / "b.jsonl", rows), task="multilabel", columns=columns)
    assert fault.code == "E-DATA-003" and 'label column "red" holds neither 0 nor 1: 2' in fault.where
    rows[5]["red"] = 0
    made, _ = read(jsonl(tmp_path / "b.jsonl", rows), task="multilabel", columns=columns)
    assert made.labels == ["red", "blue"] and made.parts["train"].target.dtype == np.float32
    assert made.parts["train"].target.tolist() == [[0, 0], [1, 0], [0, 0], [1, 1], [0, 0], [0, 0]]


def test_several_labels_in_one_cell(tmp_path: Path) -> None:
    rows = [{"x": 1, "labels": ["b", "a"]}, {"x": 2, "labels": []}, {"x": 3, "labels": "b| c"}]
    made, _ = read(jsonl(tmp_path / "a.jsonl", rows), task="multilabel", label_separator="|")
    assert made.labels == ["a", "b", "c"]
    assert made.parts["train"].target.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 1]]


def test_D8_a_single_class_or_value_is_refused(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [{"x": number, "label": 1} for number in range(9)])
    for task in ("classify", "regress"):
        fault = refused(file, task=task)
        assert fault.code == "E-DATA-103" and "all 9 training rows have the answer '1'" in fault.what
    mixed = jsonl(tmp_path / "b.jsonl", [{"x": number + 50, "label": number % 2} for number in range(9)])
    made, _ = read(mixed, test_files=[file])
    assert any("all 9 rows of the test set have the answer '1'" in finding for finding in made.findings)


def test_D8_a_label_unseen_in_training_is_refused(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "a.jsonl", [{"x": number, "label": "ab"[number % 2]} for number in range(6)])
    test = jsonl(tmp_path / "b.jsonl", [{"x": 10, "label": "a"}, {"x": 11, "label": "A"}])
    fault = refused(train, test_files=[test])
    assert fault.code == "E-DATA-102" and "'A': 1 in test, first" in fault.where and "b.jsonl:2" in fault.where


def test_D8_all_faults_of_a_table_come_together(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "a.jsonl", [{"x": number or None, "label": "a"} for number in range(6)])
    test = jsonl(tmp_path / "b.jsonl", [{"x": 3, "label": "b"}])
    fault = refused(train, test_files=[test])
    assert [one.code for one in (fault, *fault.others)] == ["E-DATA-112", "E-DATA-111", "E-DATA-102", "E-DATA-103"]


def test_D10_rows_shared_with_the_test_set_are_named_and_refused_removed_or_allowed(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "a.jsonl", [{"x": number, "y": 0.5, "label": "ab"[number % 2]} for number in range(8)])
    test = text(tmp_path / "b.csv", "y,x,label\n0.5,3.0,b\n0.50,4,b\n1,3,a\n")
    fault = refused(train, test_files=[test])
    assert fault.code == "E-DATA-111" and fault.what.startswith("2 rows have the same features")
    assert "a.jsonl:4 (train) = " in fault.where and 'b.csv:2 (test): "x=3.0, y=0.5"' in fault.where
    made, aside = read(train, test_files=[test], split=WHOLE | {"leaks": "drop"})
    assert made.card["sides"] == {"train": 6, "validation": 0, "test": 3}
    assert {item.line for item in aside} == {4, 5}
    made, _ = read(train, test_files=[test], split=WHOLE | {"leaks": "allow"})
    assert len(made.rows) == 11 and made.card["leaks"]["count"] == 2
    assert any("2 rows share their features with a set" in finding for finding in made.findings)


def test_equal_rows_stay_on_one_side_and_contradictions_are_counted(tmp_path: Path) -> None:
    rows = [{"x": number // 2, "label": "ab"[number // 2 % 2]} for number in range(200)]
    rows[1]["label"] = "b"
    made, _ = read(jsonl(tmp_path / "a.jsonl", rows), split={"test": 0.3, "validation": 0.2})
    sides: dict[Any, set[str]] = {}
    for row in made.rows:
        sides.setdefault(row.cells["x"], set()).add(row.side)
    assert all(len(here) == 1 for here in sides.values()) and made.card["leaks"]["count"] == 0
    assert made.card["contradictions"]["count"] == 1
    assert any(finding.startswith("1 sets of equal features stand with different answers") for finding in made.findings)
    # of each value that is trained on the second row repeats the first, except the contradiction
    trained = sum(here == {"train"} for here in sides.values())
    assert made.card["repeated_training_rows"] == trained - (sides[0.0] == {"train"})


def test_groups_are_not_divided_and_are_no_feature(tmp_path: Path) -> None:
    rows = [{"x": number, "user": f"u{number % 10}", "label": number % 3} for number in range(60)]
    made, _ = read(jsonl(tmp_path / "a.jsonl", rows), split={"kind": "grouped", "test": 0.2}, columns={"group": "user"})
    sides = {row.group: {other.side for other in made.rows if other.group == row.group} for row in made.rows}
    assert len(sides) == 10 and all(len(here) == 1 for here in sides.values())
    assert made.preprocessor.names == ["x"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"split": {"test": 0.5, "validation": 0.5}}, "leave nothing to train"),
        ({"labels": ["a", "a"]}, "names twice: a"),
        ({"columns": {"target": ["p", "q"]}}, "has one target"),
        ({"columns": {"target": "x", "ignore": ["x"]}}, "more than one part to: x"),
        ({"task": "regress", "labels": ["1"]}, "data.labels is set"),
        ({"label_separator": "|"}, "data.label_separator is set"),
        ({"columns": {"group": "g"}}, "data.columns.group is set"),
        ({"task": "regress", "split": {"kind": "stratified"}}, "no labels to keep the shares of"),
        ({"task": "multilabel", "balanced": True}, "data.balanced is set"),
        ({"preprocessing": {"missing_indicator": True}}, "missing_indicator is set"),
        ({"preprocessing": {"scale_target": True}}, "scale_target is set"),
        ({"preprocessing": {"rare": 2}}, "no categorical feature"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    file = jsonl(tmp_path / "a.jsonl", [{"x": number, "label": number % 2} for number in range(4)])
    fault = refused(file, **given)
    assert fault.code == "E-DATA-015" and said in fault.where


def test_rows_to_predict_need_no_target_but_every_feature(tmp_path: Path) -> None:
    made, _ = read(jsonl(tmp_path / "a.jsonl", ROWS))
    asked = options("a.jsonl")
    aside: list[SetAside] = []
    file = text(tmp_path / "b.csv", "city,height,age\nRome,1.75,31\nRome,tall,31\n")
    rows, ledger = read_rows_to_predict([str(file)], made.preprocessor, asked, aside)
    assert len(rows) == 1 and ledger.rows == 2 and aside[0].reason == "column \"height\" is not a number: 'tall'"
    part = make_part(rows, made.preprocessor, "classify", made.labels, labelled=False)
    assert part.target is None and np.array_equal(part.features_NF[0], made.parts["train"].features_NF[0])
    with pytest.raises(GroundupError) as caught:
        read_rows_to_predict([str(text(tmp_path / "c.csv", "city,age\nRome,3\n"))], made.preprocessor, asked, aside)
    assert caught.value.code == "E-DATA-110" and "c.csv has no column 'height'" in caught.value.where
    stranger = text(tmp_path / "d.csv", "city,height,age\nRoma,1.75,31\n")
    rows, _ = read_rows_to_predict([str(stranger)], made.preprocessor, asked, aside)
    with pytest.raises(GroundupError) as caught:
        make_part(rows, made.preprocessor, "classify", made.labels, labelled=False)
    assert caught.value.code == "E-DATA-114" and "d.csv:2: column 'city': 'Roma'" in caught.value.where


def test_preprocessing_is_fitted_anew_in_each_fold() -> None:
    from groundup.data.labelled_split import folds

    made, _ = read("sklearn:iris")
    centers = set()
    for train, test in folds(made.rows, 5):
        rows = [made.rows[index] for index in train]
        preprocessor = fit_preprocessor(rows, made.columns, options("sklearn:iris"))
        part = make_part([made.rows[index] for index in test], preprocessor, "classify", made.labels)
        assert part.features_NF.shape == (30, 4) and np.bincount(part.target).tolist() == [10, 10, 10]
        centers.add(preprocessor.numbers[0].center)
    assert len(centers) == 5
