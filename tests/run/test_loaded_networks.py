"""`groundup.load` on networks that are no language models: predictors, translators, networks that draw or act."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.contract.toy_run import quick

import groundup
from groundup.errors import GroundupError
from groundup.evaluation.translation import translation_scores
from groundup.run.loaded_network import LoadedAutoencoder
from groundup.run.pictures import as_png, sheet, write_images

SIZE = 8
EVENTS = {"evaluate_every": 0, "sample_every": 0, "save_every": 0, "log_every": 5}
PAIRS = [("red cat", "ROT KATZE"), ("blue cat", "BLAU KATZE"), ("red dog", "ROT HUND"), ("blue dog", "BLAU HUND")]


def table_rows(number: int, seed: int = 0) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    rows = []
    for _ in range(number):
        size, colour = chance.uniform(-3, 3), chance.choice(["red", "blue"])
        value = 100 + 10 * size + (5 if colour == "red" else 0)
        rows.append({"size": round(size, 3), "colour": colour, "kind": "big" if size > 0 else "small", "price": value})
    return rows


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def pictures(number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bright on the left (label 0) or on the right (label 1), with noise."""
    chance = np.random.default_rng(seed)
    labels = np.arange(number) % 2
    images = chance.integers(0, 60, (number, SIZE, SIZE), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 4 * label : 4 * label + 4] += 180
    return images, labels.astype(np.int64)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module")
def trained(root: Path) -> Any:
    """Trains a kind of network once and gives its run folder."""
    write_table(root / "rows.csv", table_rows(80))
    images, labels = pictures(60)
    np.savez(root / "images.npz", images=images, labels=labels)
    pairs = "".join(json.dumps({"source": a, "target": b}) + "\n" for a, b in PAIRS * 12)
    (root / "pairs.jsonl").write_text(pairs, encoding="utf-8")
    table = {"kind": "table", "files": [str(root / "rows.csv")], "split": {"leaks": "allow"}}
    seen = {"kind": "images", "files": [str(root / "images.npz")], "split": {"leaks": "allow"}}
    usual = {"preprocessing": {"missing": "median"}}
    recipes: dict[str, dict[str, Any]] = {
        "table": {
            "model": {"family": "mlp", "hidden": [16]},
            "data": table | usual | {"columns": {"target": "kind", "ignore": ["price"]}},
            "budget": {"steps": 60, "rows_per_step": 16},
            "optim": {"model": {"kind": "adamw", "learning_rate": 0.03}},
        },
        "price": {
            "model": {"family": "linear"},
            "data": table | {"task": "regress", "columns": {"target": "price", "ignore": ["kind"]}},
            "budget": {"steps": 120, "rows_per_step": 32},
            "optim": {"model": {"kind": "adamw", "learning_rate": 0.1}},
        },
        "images": {
            "model": {"family": "mlp", "hidden": [16]},
            "data": seen,
            "budget": {"steps": 30, "rows_per_step": 16},
        },
        "vae": {
            "model": {"family": "vae", "hidden": [16], "latent": 4},
            "data": seen | {"task": "none"},
            "budget": {"steps": 5, "rows_per_step": 16},
        },
        "gan": {
            "model": {"family": "gan", "kind": "dense", "widths": [16], "latent": 4, "conditional": True},
            "data": seen,
            "budget": {"steps": 3, "rows_per_step": 16},
        },
        "pairs": {
            "model": {
                "family": "transformer", "width": 32, "encoder_layers": 1, "decoder_layers": 1, "hidden": 32,
                "heads": 2, "context": 24,
            },
            "tokenizer": {"kind": "char"},
            "data": {"kind": "pairs", "files": [str(root / "pairs.jsonl")],
                     "validation_files": [], "split": {"test": 0.0, "validation": 0.0}},
            "budget": {"steps": 40, "rows_per_step": 16},
            "optim": {"model": {"kind": "adamw", "learning_rate": 0.01}},
        },
        "acting": {
            "model": {"family": "actor_critic", "hidden": [8]},
            "data": {
                "kind": "environment", "environment": {"id": "CartPole-v1", "count": 2, "time_limit": 30},
                "collect": {"kind": "rollout", "horizon": 16, "minibatches": 1, "normalise_observations": True},
                "episodes": 2, "final_episodes": 2,
            },
            "budget": {"environment_steps": 64},
        },
    }  # fmt: skip
    done: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in done:
            with pytest.MonkeyPatch.context() as patch:
                quick(patch)
                groundup.train(recipes[kind] | {"name": kind, "events": EVENTS}, out=root / kind)
            done[kind] = root / kind
        return done[kind]

    return run


def refused(code: str, call: Any, *given: Any, **options: Any) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        call(*given, **options)
    assert caught.value.code == code
    assert all((caught.value.what, caught.value.where, caught.value.why, caught.value.fix))
    return caught.value


def test_rows_of_a_table_are_answered_alike_from_files_and_from_python(trained: Any, root: Path) -> None:
    model: Any = groundup.load(trained("table"))
    rows = table_rows(20, seed=1)
    path = write_table(root / "new.csv", [{"colour": r["colour"], "note": "x", "size": r["size"]} for r in rows])
    from_files, aside = model.predict_files([path])
    from_python = model.predict([{"size": r["size"], "colour": r["colour"]} for r in rows])
    assert not aside and [{k: r[k] for k in r if k not in ("file", "line")} for r in from_files] == from_python
    assert [row["line"] for row in from_files] == list(range(2, 22))
    right = sum(said["label"] == row["kind"] for said, row in zip(from_python, rows, strict=True))
    assert right >= 18, "it learned the sign of the size"
    assert all(sum(said["probabilities"].values()) == pytest.approx(1) for said in from_python)
    assert model.predict(str(path)) == from_files and model.predict([]) == []


def test_a_missing_column_an_unseen_category_and_text_among_numbers_are_named(trained: Any, root: Path) -> None:
    model: Any = groundup.load(trained("table"))
    fault = refused("E-DATA-116", model.predict, [{"size": 1.0}])
    assert "colour" in fault.what
    fault = refused("E-DATA-114", model.predict, [{"size": 1.0, "colour": "gren"}])
    assert "gren" in fault.where and "red" in fault.where
    path = write_table(root / "few.csv", [{"size": 1.0}])
    fault = refused("E-DATA-110", model.predict_files, [path])
    assert "colour" in fault.what and "recipe" not in fault.fix and "data." not in fault.fix
    path = write_table(root / "odd.csv", [{"size": "1,5", "colour": "red"}, {"size": "1.5", "colour": "red"}])
    rows, aside = model.predict_files([path])
    assert len(rows) == 1 and rows[0]["line"] == 3 and sum(aside.values()) == 1
    path = write_table(root / "none.csv", [{"size": "1,5", "colour": "red"}])
    assert "1,5" in refused("E-EVAL-064", model.predict_files, [path]).where
    assert model.predict([{"size": None, "colour": "red"}])[0]["label"], "missing cells are filled as in training"
    refused("E-EVAL-065", model.predict, np.zeros((2, 2)))
    refused("E-EVAL-065", model.predict_files, [root / "new.csv"], column="size")


def test_numbers_are_in_the_unit_of_the_table(trained: Any, root: Path) -> None:
    model: Any = groundup.load(trained("price"))
    rows = table_rows(30, seed=2)
    path = write_table(root / "prices.csv", rows)
    values = np.array([said["value"] for said in model.predict_files([path])[0]])
    truth = np.array([row["price"] for row in rows])
    assert np.abs(values - truth).max() < 3 and truth.mean() > 90
    found = model.evaluate([path])["metrics"]["squared_error"]
    assert found["value"] == pytest.approx(((values - truth) ** 2).mean(), rel=1e-4)
    assert found["low"] < found["value"] < found["high"]


def test_evaluation_of_a_table_counts_what_it_leaves_out_and_compares(trained: Any, root: Path) -> None:
    model: Any = groundup.load(trained("table"))
    rows = [row | {"kind": "huge"} if n == 3 else row for n, row in enumerate(table_rows(40, seed=3))]
    path = write_table(root / "labelled.csv", rows)
    found = model.evaluate([path], against=model)
    assert found["rows"] == found["compared_rows"] == 39 and found["set_aside"] == {"the model has no label huge": 1}
    said = model.predict([row for row in rows if row["kind"] != "huge"])
    right = np.mean([a["label"] == b["kind"] for a, b in zip(said, [r for r in rows if r["kind"] != "huge"])])
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(right)
    assert {line["verdict"] for line in found["comparison"]} == {"within noise"}
    refused("E-EVAL-002", model.evaluate, [path], ["return"])
    refused("E-EVAL-023", model.evaluate, [path], (), groundup.load(trained("price")))
    refused("E-EVAL-004", model.evaluate, [write_table(root / "huge.csv", [rows[3]])])


def test_images_are_answered_from_arrays_files_and_folders(trained: Any, root: Path) -> None:
    model: Any = groundup.load(trained("images"))
    images, labels = pictures(6, seed=5)
    said = model.predict(images)
    assert [one["label"] for one in said] == [str(label) for label in labels]
    assert model.predict(images[:, None]) == said
    larger = images.repeat(2, axis=1).repeat(2, axis=2)
    assert [one["label"] for one in model.predict(larger)] == [one["label"] for one in said]
    folder = root / "pictures"
    folder.mkdir()
    for number, image in enumerate(images):
        (folder / f"{number}.png").write_bytes(as_png(image[None]))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    rows, aside = model.predict_files([folder])
    assert [row["label"] for row in rows] == [one["label"] for one in said] and sum(aside.values()) == 1
    assert rows[0]["path"] == str(folder / "0.png")
    assert rows[0]["probability"] == pytest.approx(said[0]["probability"], abs=1e-6)
    refused("E-DATA-001", model.predict_files, [folder / "broken.png"])
    fault = refused("E-EVAL-065", model.predict, images.astype(np.float32))
    assert "float32" in fault.what
    refused("E-EVAL-065", model.predict, [{"size": 1.0}])


def test_evaluation_of_images_takes_the_test_part_of_a_folder(trained: Any, root: Path) -> None:
    model: Any = groundup.load(trained("images"))
    images, labels = pictures(12, seed=6)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / "sides" / ("train" if number < 4 else "test") / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_png(image[None]))
    found = model.evaluate([root / "sides"])
    assert found["rows"] == 8 and list(found["set_aside"].values()) == [4]
    assert found["metrics"]["accuracy"]["value"] == 1.0
    assert model.evaluate([root / "sides" / "train"])["rows"] == 4


def test_translations_line_by_line_and_their_scores(trained: Any, root: Path) -> None:
    model: Any = groundup.load(trained("pairs"))
    sources = [source for source, _ in PAIRS]
    said = model.translate(["", *sources], beams=2)
    assert said[0] == "" and all(said[1:])
    (root / "lines.txt").write_text("\n".join([*sources, "", "red cat " * 9]), encoding="utf-8")
    rows, _ = model.predict_files([root / "lines.txt"])
    assert [row["line"] for row in rows] == [1, 2, 3, 4, 6] and [row["cut"] for row in rows] == [False] * 4 + [True]
    assert [row["translation"] for row in rows[:4]] == model.translate(sources)
    tabbed = root / "pairs.tsv"
    tabbed.write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS), encoding="utf-8")
    assert [row["text"] for row in model.predict_files([tabbed], column="1")[0]] == sources
    found = model.evaluate([tabbed], columns=("1", "2"), against=model)
    assert set(found["metrics"]) == {"token_loss", "token_accuracy", "chrf", "bleu"} and found["rows"] == 4
    expected = translation_scores(model.translate(sources), [target for _, target in PAIRS]).headline
    for name in ("chrf", "bleu"):
        assert found["metrics"][name]["value"] == pytest.approx(expected[name].value)
        assert found["metrics"][name]["low"] == pytest.approx(expected[name].low)
    assert all(line["difference"]["value"] == 0 for line in found["comparison"]) and len(found["comparison"]) == 4
    assert set(model.evaluate([tabbed], ["chrf"], columns=("1", "2"))["metrics"]) == {"chrf"}
    assert "--columns" in refused("E-DATA-105", model.evaluate, [tabbed]).fix
    refused("E-EVAL-001", model.evaluate, [tabbed], ["chrff"], columns=("1", "2"))


def test_drawn_images_follow_the_seed_and_not_their_number(trained: Any) -> None:
    for kind in ("vae", "gan"):
        model: Any = groundup.load(trained(kind))
        many = model.sample(70, seed=3)
        assert many.shape == (70, 1, SIZE, SIZE) and many.dtype == np.uint8
        assert np.array_equal(model.sample(5, seed=3), many[:5])
        assert not np.array_equal(model.sample(5, seed=4), many[:5])
        refused("E-GEN-032", model.sample, 0)
    labelled: Any = groundup.load(trained("gan"))
    assert np.array_equal(labelled.sample(2, label="0")[0], labelled.sample(2)[0]), "labels come in turn"
    assert not np.array_equal(labelled.sample(2, label="0")[1], labelled.sample(2)[1])
    assert "0, 1" in refused("E-GEN-032", labelled.sample, 1, label="2").why
    refused("E-GEN-032", groundup.load(trained("vae")).sample, 1, label="0")
    with torch.no_grad():
        next(labelled.model.parameters()).fill_(float("nan"))
    refused("E-EVAL-046", labelled.sample, 2)


def test_png_files_are_what_pillow_reads(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 7), dtype=np.uint8)
    paths = write_images(images, tmp_path / "each")
    assert [path.name for path in paths] == [f"{n:04}.png" for n in range(1, 6)]
    for path, image in zip(paths, images, strict=True):
        assert np.array_equal(np.asarray(pillow.open(path)), image.transpose(1, 2, 0))
    (path,) = write_images(images[:, :1], tmp_path / "sheet.png")
    seen = np.asarray(pillow.open(path))
    assert np.array_equal(seen, sheet(images[:, :1])[0])
    assert seen.shape == (2 * (9 * 6 + 2) + 2, 3 * (9 * 7 + 2) + 2) and seen[2 + 9, 2] == images[0, 0, 1, 0]
    refused("E-GEN-033", write_images, images, tmp_path / "each")
    refused("E-GEN-033", write_images, images, tmp_path / "sheet.gif")


def test_a_policy_plays_beside_random_actions_and_beside_itself(trained: Any) -> None:
    pytest.importorskip("gymnasium")
    model: Any = groundup.load(trained("acting"))
    assert set(model.normalisation) == {"mean_O", "deviation_O"} and model.environment.time_limit == 30
    found = model.play(4, seed=2)
    assert found == model.play(4, seed=2) and found["returns"] != model.play(4, seed=3)["returns"]
    assert found["returns"] == found["lengths"] and max(found["lengths"]) <= 30, "one for each step, at most 30"
    assert found["metrics"]["return"]["value"] == pytest.approx(np.mean(found["returns"]))
    assert found["comparison"][0]["metric"] == "return" and found["against"] == "random actions"
    twice = model.play(4, seed=2, against=model)
    assert twice["comparison"][0]["difference"]["value"] == 0
    moved = {name: moment + 5 for name, moment in model.normalisation.items()}
    model.normalisation = moved
    assert model.play(4, seed=2)["returns"] != found["returns"], "observations are normalised as they were in training"
    assert "6" in refused("E-EVAL-063", model.play, 2, environment="Acrobot-v1").where
    refused("E-ENV-040", model.play, 0)
    refused("E-EVAL-023", model.play, 2, against=groundup.load(trained("table")))


def test_what_a_network_is_not_made_for_is_refused_with_what_it_is(trained: Any) -> None:
    table: Any = groundup.load(trained("table"))
    drawing: Any = groundup.load(trained("vae"))
    for call in (table.generate, table.stream, table.chat, table.stream_chat, drawing.generate):
        assert "groundup" in refused("E-GEN-030", call, "text").fix
    refused("E-GEN-030", drawing.require_chat)
    assert "predict" in refused("E-GEN-031", table.sample, 3).fix
    assert "generate" in refused("E-EVAL-061", drawing.predict, ["a"]).fix
    refused("E-EVAL-061", drawing.predict_files, ["a"])
    refused("E-EVAL-062", drawing.evaluate, ["a"])
    refused("E-EVAL-062", table.play, 3)
    anew = LoadedAutoencoder(drawing.model, device=torch.device("cpu"), name="anew")
    assert "vae" in refused("E-GEN-031", anew.sample, 3).fix


def test_a_malformed_preparation_is_named(trained: Any, tmp_path: Path) -> None:
    from groundup.run.loaded_policy import LoadedPolicy
    from groundup.run.loaded_rows import LoadedImagePredictor, LoadedTablePredictor
    from groundup.run.networks import LoadedNetwork, load_network

    cpu = torch.device("cpu")
    for kind, build in (("table", LoadedTablePredictor), ("images", LoadedImagePredictor), ("acting", LoadedPolicy)):
        loaded = load_network(trained(kind), cpu)
        more = {} if build is LoadedPolicy else {"autocast": None}
        for name in ("columns", "size", "id"):
            loaded.said.preparation.pop(name, None)
        fault = refused(
            "E-EVAL-060", build, LoadedNetwork(loaded.said, loaded.model, tmp_path), device=cpu, name="m", **more
        )
        assert "preparation.json" in fault.what
