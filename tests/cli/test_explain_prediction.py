"""`groundup explain-prediction` on small models whose answers are known: columns, regions and words by name."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.small_models import image_model, small_tokenizer, table_model, text_model

import groundup
from groundup.cli.main import main
from groundup.errors import GroundupError
from groundup.models.heads import HeadOptions
from groundup.run.explaining import explain_prediction
from groundup.run.explaining_inputs import words_of
from groundup.run.explaining_page import overlay
from groundup.run.pictures import as_png
from groundup.text.tokenizer import Tokenizer

ROWS = "size,colour,weight\n2.0,red,10\n4.0,green,\n<b>,red,1\n6.0,green,30\n"
@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


def asked(words: list[Any], capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    assert main(["explain-prediction", *map(str, words), "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def amounts(found: dict[str, Any]) -> dict[str, float]:
    return {part["name"]: part["amount"] for part in found["parts"]}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS, encoding="utf-8")
    return path


def test_columns_of_a_table_add_what_their_features_add(
    tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = table_model(tmp_path / "model")
    found = asked([model, "--input", rows, "--row", 2, "--label", "yes"], capsys)
    # size (4 - 4) / 1, weight missing and filled with the mean, the indicator of it, and one-hot green
    assert amounts(found) == pytest.approx({"size": 0.0, "weight": 0.5, "colour": 3.0}, abs=1e-6)
    assert found["answer"]["label"] == "yes" and found["score"] == pytest.approx(3.5)
    assert [part["cell"] for part in found["parts"]] == ["4", "missing", "green"]
    assert abs(found["gap"]) < 1e-6 and not found["rough"]
    # the row in line 4 of the file cannot be used, so that the third one is in line 5
    third = asked([model, "--input", rows, "--row", 3], capsys)
    assert third["place"].endswith(":5") and third["parts"][0]["cell"] == "6"


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion", "saliency"])
def test_the_score_is_the_log_odds_whatever_the_label(
    method: str, tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = table_model(tmp_path / "model")
    yes, no = (
        amounts(asked([model, "--input", rows, "--label", label, "--method", method], capsys))
        for label in ("yes", "no")
    )
    sign = 1 if method == "saliency" else -1
    assert yes == pytest.approx({name: sign * amount for name, amount in no.items()}, abs=1e-6)
    expected = {"integrated_gradients": -4.0, "occlusion": -4.0, "saliency": 2.0}[method]
    assert yes["size"] == pytest.approx(expected)  # 2 x (2 - 4) / 1
    # of the saliency all features of a column, seen or not, are one size
    assert yes["colour"] == pytest.approx({"integrated_gradients": -3.0, "occlusion": -3.0, "saliency": 6.0}[method])


def test_a_number_is_explained_in_the_unit_of_the_table(
    tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = asked([table_model(tmp_path / "model", "regress"), "--input", rows], capsys)
    # (2 - 4) x 2 - 3, in deviations of 100 around 200
    assert amounts(found) == pytest.approx({"size": -400.0, "weight": 0.0, "colour": -300.0}, abs=1e-3)
    assert found["baseline_score"] == pytest.approx(200.0) and found["answer"]["value"] == pytest.approx(-500.0)
    assert found["label"] is None


def test_labels_that_do_not_exclude_each_other_are_scored_alone(
    tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = table_model(tmp_path / "model", "multilabel")
    assert asked([model, "--input", rows, "--row", 2, "--label", "no"], capsys)["score"] == 0.0
    assert asked([model, "--input", rows, "--row", 2], capsys)["label"] == "yes"


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_regions_of_an_image(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.zeros((1, 14, 14), dtype=np.uint8)
    image[:, :4, :4], image[:, 12:, 12:] = 200, 100
    (tmp_path / "image.png").write_bytes(as_png(image))
    words = [image_model(tmp_path / "model"), "--image", tmp_path / "image.png", "--method", method]
    found = asked([*words, "--out", tmp_path / "page.html"], capsys)
    heat = np.array(found["heat"])
    assert found["label"] == "top" and heat.shape == (14, 14)
    each = 200 / 255 / 0.5
    if method == "integrated_gradients":
        assert heat[:4, :4] == pytest.approx(each, rel=1e-5) and heat[12:, 12:] == pytest.approx(-each / 2, rel=1e-5)
        assert (heat[:4, 4:] == 0).all() and found["sum"] == pytest.approx(16 * each - 4 * each / 2, rel=1e-5)
    named = amounts(found)
    assert named["rows 1–2, columns 1–2"] > 0 > named["rows 13–14, columns 13–14"]
    assert len(named) == 49
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    drawn = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    assert len(drawn) == 2 and drawn[0] == as_png(image)
    assert 'alt="The image with each pixel coloured by what it adds to the label top. What counts most: rows' in page
    assert "http" not in re.sub(r"http-equiv", "", page) and "<script" not in page


def test_the_overlay_tells_the_two_signs_apart() -> None:
    heat = np.array([[1.0, -1.0, 0.0]])
    red, green, blue = overlay(np.zeros((1, 1, 3), dtype=np.uint8), heat).astype(int)[:, 0]
    assert red[0] > blue[0] + 100 and blue[1] > red[1] + 100 and red[2] == green[2] == blue[2]


@pytest.mark.parametrize("family", ["bert", "recurrent_text"])
@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion", "saliency"])
def test_words_of_a_text(
    family: str, method: str, tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    model = text_model(tmp_path / "model", tokenizer, family)
    text = "the waiter was good"
    found = asked([model, "--text", text, "--method", method], capsys)
    assert "".join(part["name"] for part in found["parts"]) == text and len(found["parts"]) == 4
    said = groundup.load(model).predict([text])[0]
    assert found["answer"]["label"] == said["label"] == found["label"]
    odds = np.log(said["probability"] / (1 - said["probability"]))
    assert found["score"] == pytest.approx(odds, abs=1e-4)
    assert any(abs(part["amount"]) > 1e-4 for part in found["parts"])
    if method == "integrated_gradients":
        assert found["sum"] == pytest.approx(sum(part["amount"] for part in found["parts"]), abs=1e-9)
        fine = asked([model, "--text", text, "--steps", 400], capsys)
        assert abs(fine["gap"]) < max(1e-5, abs(found["gap"]))


def test_occlusion_of_a_word_is_its_absence(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Against the model itself, its embeddings of the word set to 0 by hand."""
    loaded = groundup.load(text_model(tmp_path / "model", tokenizer), device="cpu")
    found = explain_prediction(loaded, text="the soup was good", label="good", method="occlusion")
    before = found.found.score
    ids = tokenizer.encode("the soup was good")
    ends = [end for _, end, _ in words_of(tokenizer, ids)]
    embedding = loaded.model.embedding.weight  # type: ignore[union-attr]
    with torch.no_grad():
        for id in set(ids[ends[2] : ends[3]]):
            assert id not in ids[: ends[2]]
            embedding[id] = 0.0
    after = explain_prediction(loaded, text="the soup was good", label="good", method="occlusion").found.score
    assert found.parts[3].amount == pytest.approx(before - after, abs=1e-5)


def test_characters_of_several_tokens_are_never_divided(tokenizer: Tokenizer) -> None:
    text = "the soup, 汤很好喝 😀 good"
    ids = tokenizer.encode(text)
    words = words_of(tokenizer, ids)
    assert "".join(word for _, _, word in words) == text
    assert [start for start, _, _ in words[1:]] == [end for _, end, _ in words[:-1]] and words[-1][1] == len(ids)
    assert " soup" in [word for _, _, word in words] and "�" not in text


def test_a_text_over_the_context_says_so(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    model = text_model(tmp_path / "model", tokenizer)
    assert main(["explain-prediction", str(model), "--text", "the soup was good " * 20]) == 0
    assert "did not fit into the context" in capsys.readouterr().out


def test_what_is_printed(tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, page = table_model(tmp_path / "model"), tmp_path / "new" / "page.html"
    words = ["explain-prediction", str(model), "--input", str(rows), "--row", "2", "--out", str(page)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^answer +yes \(97\.07%\)$", shown, re.MULTILINE)
    assert re.search(r"^colour +green +\+3\.0000", shown, re.MULTILINE)
    assert "every number at its training mean, no category anywhere" in shown and "gap" in shown
    text = page.read_text(encoding="utf-8")
    assert "the model says yes (97.1 %)" in text and "prefers-color-scheme" in text
    assert "default-src &#x27;none&#x27;" in text
    first = page.read_bytes()
    assert main(words) == 0 and page.read_bytes() == first


def test_text_from_data_cannot_leave_its_place(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = text_model(tmp_path / "model", tokenizer)
    words = ["explain-prediction", str(model), "--text", "<script>alert(1)</script> good"]
    assert main([*words, "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;" in page


def test_faults(tmp_path: Path, rows: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    table, text = table_model(tmp_path / "table"), text_model(tmp_path / "text", tokenizer)
    tagger = HeadOptions(kind="tag", labels=["a", "b"])
    cases: list[tuple[list[Any], str, str]] = [
        ([table], "E-USE-003", "--input"),
        ([table, "--input", rows, "--text", "x"], "E-USE-041", "--text"),
        ([text, "--text", "x", "--row", 2], "E-USE-041", "--row"),
        ([table, "--input", rows, "--method", "occlusion", "--steps", 9], "E-USE-041", "--steps"),
        ([table, "--input", rows, "--out", tmp_path / "page.pdf"], "E-USE-020", "page.pdf"),
        ([table, "--input", rows, "--method", "shap"], "E-USE-004", "integrated_gradients"),
        ([table, "--input", rows, "--row", 4], "E-EVAL-073", "there are 3"),
        ([table, "--input", rows, "--label", "yess"], "E-EVAL-072", "did you mean yes"),
        ([table_model(tmp_path / "number", "regress"), "--input", rows, "--label", "yes"], "E-EVAL-072", "--label"),
        ([table, "--text", "good"], "E-EVAL-074", "rows of a table"),
        ([text_model(tmp_path / "tags", tokenizer, head=tagger), "--text", "x"], "E-EVAL-070", "kind tag"),
    ]
    for words, code, said in cases:
        assert main(["explain-prediction", *map(str, words)]) == 2, words
        shown = capsys.readouterr()
        assert code in shown.err and said in shown.err and not shown.out, (words, shown.err)


def test_damaged_weights_are_refused(tmp_path: Path, rows: Path) -> None:
    loaded: Any = groundup.load(table_model(tmp_path / "model"), device="cpu")
    with torch.no_grad():
        for parameter in loaded.predictor.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(GroundupError, match="not finite"):
        explain_prediction(loaded, files=[str(rows)])
