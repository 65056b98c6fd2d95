"""The command line on networks that are no language models: flags that fit, what is printed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup import checkpoint
from groundup.cli.main import main
from groundup.cli.train import next_command
from groundup.models.convnet import ConvnetOptions
from groundup.models.gan import GanOptions
from groundup.models.q_network import QNetworkOptions
from groundup.run.networks import NetworkSaid, initialised, network_files

ROWS = "size,kind\n" + "".join(f"{n},{'big' if n > 29 else 'small'}\n" for n in range(60))


def saved(folder: Path, said: NetworkSaid) -> Path:
    """A model folder of a network that was never trained."""
    model = initialised(said, torch.device("cpu"), 0)
    checkpoint.save_model(folder, tensors=dict(model.state_dict()), files=network_files(said))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    images = {
        "kind": "images", "size": [8, 8], "channels": 1, "resize": "stretch", "normalise": "unit", "mean": [0.5],
        "deviation": [0.2], "labels": ["cat", "dog"],
    }  # fmt: skip
    environment = {"kind": "environment", "id": "CartPole-v1", "count": 1, "options": {}, "time_limit": 20}
    shape: dict[str, Any] = {"shape": (1, 8, 8), "outputs": 2, "labels": ["cat", "dog"], "reads": "image_BCHW"}
    said = {
        "convnet": NetworkSaid(
            family="convnet", options=ConvnetOptions(channels=[2], hidden=[4]), kind="classify", preparation=images,
            **shape,
        ),
        "gan": NetworkSaid(
            family="gan", options=GanOptions(kind="dense", widths=[8], latent=3), kind="images", preparation=images,
            **shape,
        ),
        "acting": NetworkSaid(
            family="q_network", options=QNetworkOptions(hidden=[4]), kind="actions", shape=(4,), outputs=2,
            reads="observation_BO", preparation=environment,
        ),
    }  # fmt: skip
    return {name: str(saved(root / name / "model", one).parent) for name, one in said.items()}


def refused(capsys: pytest.CaptureFixture[str], code: str, *words: str, exit_code: int = 2) -> dict[str, str]:
    assert main([*words, "--json"] if words[0] != "chat" else list(words)) == exit_code
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    if words[0] == "chat":
        assert code in shown.err
        return {}
    fault: dict[str, str] = json.loads(shown.out)["error"]
    assert fault["code"] == code and all(fault[part] for part in ("what", "where", "why", "fix"))
    return fault


def test_images_are_drawn_into_a_sheet_or_a_folder(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "drawn.png"
    assert main(["generate", models["gan"], "--out", str(out)]) == 0
    assert "16 images of 8 × 8 pixels" in capsys.readouterr().out and out.read_bytes().startswith(b"\x89PNG")
    words = ["generate", models["gan"], "--out", str(tmp_path / "each"), "--count", "3", "--seed", "5", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["seed"], len(found["files"])) == (3, 5, 3)
    assert all(Path(file).is_file() for file in found["files"])
    refused(capsys, "E-GEN-033", *words[:-1])
    refused(capsys, "E-GEN-033", "generate", models["gan"], "--out", str(tmp_path / "drawn.jpg"))
    refused(capsys, "E-GEN-032", "generate", models["gan"], "--out", str(out), "--label", "cat")
    fault = refused(capsys, "E-USE-041", "generate", models["gan"], "--out", str(out), "--prompt", "x", "--top-k", "3")
    assert fault["what"] == "--prompt, --top-k cannot be used here"
    refused(capsys, "E-USE-041", "generate", models["gan"], "--prompt", "x", "--count", "3")
    refused(capsys, "E-USE-003", "generate", models["gan"])


def test_a_policy_is_measured_by_playing(models: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gymnasium")
    words = ["evaluate", models["acting"], "--episodes", "3"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "CartPole-v1, 3 episodes" in shown and "against random actions" in shown and "return" in shown
    assert main([*words, "--seed", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seed"] == 4 and found["episodes"] == len(found["returns"]) == 3
    assert found["metrics"]["return"]["value"] == pytest.approx(np.mean(found["returns"]))
    refused(capsys, "E-ENV-001", *words, "--environment", "CartPole-v9")
    refused(capsys, "E-USE-041", *words, "--files", "a.csv")
    refused(capsys, "E-USE-041", "evaluate", models["convnet"], "--files", "a", "--sampled")
    refused(capsys, "E-USE-041", "evaluate", models["convnet"], "--files", "a", "--columns", "a", "b")
    refused(capsys, "E-EVAL-062", "evaluate", models["acting"], "--files", "a.csv")
    refused(capsys, "E-EVAL-062", "evaluate", models["gan"], "--episodes", "2")
    refused(capsys, "E-USE-003", "evaluate", models["acting"])


def test_verbs_for_language_models_say_what_to_do_instead(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--episodes" in refused(capsys, "E-GEN-030", "generate", models["acting"], "--prompt", "x")["fix"]
    refused(capsys, "E-GEN-030", "chat", models["convnet"])
    out = str(tmp_path / "out")
    fault = refused(capsys, "E-USE-040", "export", models["convnet"], "--to", "gguf", "--out", out)
    assert "safetensors" in fault["fix"] and "convnet" in fault["what"]
    refused(capsys, "E-USE-040", "merge", models["convnet"], "--out", out)
    assert "--out" in refused(capsys, "E-EVAL-061", "predict", models["gan"], "--files", "a.png")["fix"]
    assert "predict" in refused(capsys, "E-GEN-031", "generate", models["convnet"], "--out", "a.png")["fix"]
    assert not Path(out).exists()


def test_inspect_tells_what_goes_in_and_what_comes_out(
    models: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", models["convnet"]]) == 0
    shown = capsys.readouterr().out
    for part in ("convnet", "image_BCHW", "[1, 8, 8]", "classify", "cat, dog", "size [8, 8]", "body.head.weight"):
        assert part in shown, part
    assert main(["inspect", models["acting"], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["outputs"] == {"kind": "actions", "numbers": 2} and found["preparation"]["id"] == "CartPole-v1"
    assert found["inputs"] == {"reads": "observation_BO", "shape": [4]}


def test_the_closing_line_of_a_run_fits_the_model(models: dict[str, str], tmp_path: Path) -> None:
    assert next_command(Path(models["convnet"])).startswith("groundup predict ")
    assert "--out images.png" in next_command(Path(models["gan"]))
    assert "--episodes" in next_command(Path(models["acting"]))
    for family, verb in (("transformer", "predict"), ("llama", "generate")):
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "model.json").write_text(json.dumps({"family": family, "options": {}}))
        assert next_command(tmp_path).startswith(f"groundup {verb}")


def test_data_show_prints_the_numbers_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{family: mlp}}\ndata: {{kind: table, files: [{tmp_path / 'rows.csv'}], columns: {{target: kind}},"
        " split: {leaks: allow}}\nbudget: {steps: 1}\n"
    )
    assert main(["data", "show", str(recipe), "--rows", "2"]) == 0
    shown = capsys.readouterr().out
    assert "rows.csv:" in shown and "answer small" in shown and "size" in shown and "ledger" in shown
    assert main(["data", "show", str(recipe), "--rows", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (name, raw, number), *_ = found["rows"][0]["cells"]
    assert name == "size" and float(raw) < 10 and -2 < number < -1, "scaled by the training rows"
    refused(capsys, "E-USE-041", "data", "show", str(recipe), "--out", "a.png")


def test_data_show_draws_images_and_their_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("PIL")
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(40) % 2)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{family: mlp}}\ndata: {{kind: images, files: [{tmp_path / 'images.npz'}],"
        " augment: {operations: [{kind: rotate, degrees: 10}]}}\nbudget: {steps: 1}\n"
    )
    plain, changed = tmp_path / "plain.png", tmp_path / "changed.png"
    words = ["data", "show", str(recipe), "--rows", "2"]
    assert main([*words, "--out", str(plain)]) == 0
    shown = capsys.readouterr().out
    assert "8 × 8 pixels" in shown and "labels" in shown and str(plain) in shown
    assert main([*words, "--augment", "--out", str(changed), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"]) == 2 and found["facts"]["augment"] == "rotate"
    assert plain.read_bytes().startswith(b"\x89PNG") and plain.read_bytes() != changed.read_bytes()
    refused(capsys, "E-USE-003", *words, "--augment")
    refused(capsys, "E-GEN-033", *words, "--out", str(tmp_path / "folder"))


def test_data_show_steps_through_an_environment_and_marks_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gymnasium")
    recipe = tmp_path / "acting.yaml"
    recipe.write_text(
        "model: {family: q_network}\ndata: {kind: environment, environment: {id: CartPole-v1}}\n"
        "budget: {environment_steps: 100}\n"
    )
    assert main(["data", "show", str(recipe), "--rows", "2"]) == 0
    shown = capsys.readouterr().out
    assert "Discrete(2)" in shown and "500 steps" in shown and "step 2  reward 1" in shown
    (tmp_path / "pairs.tsv").write_text("".join(f"word {n}\tWORT {n}\n" for n in range(60)))
    recipe = tmp_path / "pairs.yaml"
    recipe.write_text(
        f"model: {{family: transformer}}\ntokenizer: {{kind: char}}\ndata: {{kind: pairs,"
        f" files: [{tmp_path / 'pairs.tsv'}], columns: {{source: 1, target: 2}}}}\nbudget: {{steps: 1}}\n"
    )
    assert main(["data", "show", str(recipe), "--rows", "1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    source = [token for token, learned in zip(row["tokens"], row["trainable"], strict=True) if not learned]
    target = [token for token, learned in zip(row["tokens"], row["trainable"], strict=True) if learned]
    assert "".join(source[:-1]).startswith("word ") and "".join(target[:-1]).startswith("WORT ")
    assert source[-1] == "<|begin|>" and target[-1] == "<|end|>"
