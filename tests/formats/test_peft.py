"""Adapter folders: ours in peft, peft's in ours, and folders that belong elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.adapters import toy

from groundup.adapters import GrowOptions, LoraOptions, adapter_tensors, grow, load_adapter_tensors, lora
from groundup.checkpoint.tensors import read_safetensors
from groundup.errors import GroundupError
from groundup.formats.peft import CONFIG, OWN, WEIGHTS, ForeignAdapter, peft_files, read_adapter, write_adapter
from groundup.models.llama import Llama

CASES: dict[str, dict[str, Any]] = {
    "lora": {"targets": ["*.q_proj", "*.down_proj"]},
    "rslora": {"targets": ["*.q_proj"], "variant": "rslora", "rank_by": {"layers.1.*": 6}},
    "dora": {"targets": ["*.v_proj", "embedding"], "variant": "dora"},
    "some layers": {"targets": ["layers.1.*_proj"], "rank_by": {"*.q_proj": 7}, "alpha_by": {"*.up_proj": 2.5}},
    "trained norm": {"targets": ["*.k_proj"], "train": ["norm.weight"]},
    "trained tokens": {"targets": ["*.k_proj"], "train": ["embedding.weight"]},
}


def shapes(model: Llama) -> dict[str, tuple[int, ...]]:
    tied = {"head.weight"} if model.options.tied else set()
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in tied}


def save(folder: Path, model: Llama, options: LoraOptions, base: Llama, **more: Any) -> None:
    tensors, files = peft_files(
        adapter_tensors(model, options.name), dict(options), family="llama", shapes=shapes(base),
        base_name=str(folder / "base"), base_digest="0123", **more,
    )  # fmt: skip
    write_adapter(folder, tensors, files, lambda path, values, metadata: save_file(dict(values), path, metadata))


def load(folder: Path, base: Llama, **more: Any) -> ForeignAdapter:
    return read_adapter(folder, family="llama", shapes=shapes(base), read_tensors=read_safetensors, **more)


def adapted(case: dict[str, Any], *, tied: bool = True) -> tuple[Llama, LoraOptions]:
    options = LoraOptions(**{"kind": "lora", "rank": 4, "alpha": 8.0, **case})
    model = toy.llama(tied=tied)
    lora(model, options, seed=0)
    toy.perturb(model)
    with torch.no_grad():
        for name in options.train:
            model.get_parameter(name).mul_(1.1)
    return model.eval(), options


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_peft_loads_ours(case: dict[str, Any], tied: bool, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model, options = adapted(case, tied=tied)
    save(tmp_path, model, options, toy.llama(tied=tied))
    theirs = peft.PeftModel.from_pretrained(toy.their_llama(toy.llama(tied=tied)), tmp_path).eval()
    torch.testing.assert_close(theirs(toy.tokens()).logits, model(toy.tokens()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_ours_comes_back(case: dict[str, Any], tmp_path: Path) -> None:
    model, options = adapted(case)
    save(tmp_path, model, options, toy.llama(), details={"name": "poet"})
    found = load(tmp_path, toy.llama(), base_digest="0123")
    assert found.details["name"] == "poet"
    again = toy.llama().eval()
    lora(again, LoraOptions(kind="lora", **found.options), seed=9)
    load_adapter_tensors(again, "default", found.tensors)
    assert torch.equal(again(toy.tokens()), model(toy.tokens()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1},
        {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
        {"target_modules": "all-linear", "use_rslora": True, "rank_pattern": {"^model.layers.0.self_attn.q_proj": 9}},
        {"target_modules": ["up_proj"], "alpha_pattern": {"layers.1.mlp.up_proj": 3}, "modules_to_save": ["lm_head"]},
        {"target_modules": r".*\.(k|o)_proj"},
    ],
    ids=str,
)
def test_ours_loads_peft(fields: dict[str, Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = toy.llama(tied=False)
    theirs = peft.get_peft_model(toy.their_llama(base), peft.LoraConfig(r=4, lora_alpha=12, **fields)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    theirs.save_pretrained(tmp_path)
    found = load(tmp_path, base)
    assert not found.details
    lora(base, LoraOptions(kind="lora", **found.options), seed=0)
    load_adapter_tensors(base, "default", found.tensors)
    torch.testing.assert_close(base.eval()(toy.tokens()), theirs(toy.tokens()).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_added_tokens_travel_with_the_adapter(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    options = LoraOptions(kind="lora", rank=4, targets=["*.q_proj"], train=["embedding.weight"])
    base, model = toy.llama(), toy.llama()
    for grown in (base, model):
        grow(grown, GrowOptions(kind="grow", words=["a", "b", "c"]), seed=0)
    lora(model, options, seed=0)
    toy.perturb(model)
    with torch.no_grad():
        model.embedding.weight[97:] += 0.3
    save(tmp_path, model, options, base)
    tokens = torch.cat([toy.tokens(), torch.tensor([[97], [98], [99]])], dim=1)
    found = load(tmp_path, base)
    lora(base, LoraOptions(kind="lora", **found.options), seed=1)
    load_adapter_tensors(base, "default", found.tensors)
    assert torch.equal(base(tokens), model(tokens))
    theirs = toy.their_llama(toy.llama())
    theirs.resize_token_embeddings(100)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
    torch.testing.assert_close(theirs(tokens).logits, model(tokens), atol=1e-5, rtol=1e-5)


def test_config_reads_as_people_write_it(tmp_path: Path) -> None:
    model, options = adapted({"targets": ["*.q_proj", "*.v_proj"]})
    save(tmp_path, model, options, toy.llama())
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"] and config["r"] == 4 and config["lora_alpha"] == 8
    assert json.loads((tmp_path / OWN).read_text())["base_digest"] == "0123"
    model, options = adapted({"targets": ["layers.1.*.q_proj"]})
    save(tmp_path, model, options, toy.llama())
    assert json.loads((tmp_path / CONFIG).read_text())["target_modules"] == ["model.layers.1.self_attn.q_proj"]


def test_gpt2_and_bert_names() -> None:
    for family, module, theirs in (
        ("gpt2", "layers.0.attention.qkv_proj", "transformer.h.0.attn.c_attn"),
        ("bert", "body.layers.1.feed_forward.up_proj", "bert.encoder.layer.1.intermediate.dense"),
    ):
        tensors = {f"{module}.lora_a": torch.zeros(2, 4), f"{module}.lora_b": torch.zeros(12, 2),
                   "head.output.weight": torch.zeros(3, 4)}  # fmt: skip
        options = {"alpha": 4.0, "alpha_by": {}, "dropout": 0.0, "variant": "lora"}
        found, files = peft_files(
            tensors, options, family=family, shapes={f"{module}.weight": (12, 4), "head.output.weight": (3, 4)},
            base_name="x", base_digest="", task="SEQ_CLS", others={"head.output": "classifier"},
        )  # fmt: skip
        assert set(found) == {f"base_model.model.{theirs}.lora_{kind}.weight" for kind in "AB"} | {
            "base_model.model.classifier.weight"
        }
        config = json.loads(files[CONFIG])
        assert config["fan_in_fan_out"] == (family == "gpt2") and config["modules_to_save"] == ["classifier"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, options = adapted(CASES["dora"])
    save(tmp_path / "whole", model, options, toy.llama())
    return shutil.copytree(tmp_path / "whole", tmp_path / "copy")


def test_another_base_is_refused(folder: Path) -> None:
    with pytest.raises(GroundupError, match="another base") as caught:
        load(folder, toy.llama(), base_digest="4567")
    assert caught.value.code == "E-FORMAT-052" and "0123" in str(caught.value) and "4567" in str(caught.value)
    other = Llama(toy.OPTIONS.model_copy(update={"width": 40, "layers": 1}))
    with pytest.raises(GroundupError, match="another base") as caught:
        load(folder, other)
    text = str(caught.value)
    assert "layers.0.attention.v_proj.lora_a: (4, 32), the base needs (4, 40)" in text
    assert "layers.1.attention.v_proj" in text and "embedding.lora_b: (32, 4), the base needs (40, 4)" in text


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"peft_type": "IA3"}, "E-FORMAT-051"),
        ({"bias": "all"}, "E-FORMAT-051"),
        ({"init_lora_weights": "pissa_niter_4"}, "E-FORMAT-051"),
        ({"init_lora_weights": ["x"]}, "E-FORMAT-051"),
        ({"layer_replication": [[0, 4]]}, "E-FORMAT-051"),
        ({"r": "four"}, "E-FORMAT-050"),
        ({"r": True}, "E-FORMAT-050"),
        ({"lora_alpha": 1e999}, "E-FORMAT-050"),
        ({"lora_alpha": float("nan")}, "E-FORMAT-050"),
        ({"lora_dropout": 1.5}, "E-FORMAT-050"),
        ({"use_dora": "yes"}, "E-FORMAT-050"),
        ({"use_dora": False}, "E-FORMAT-050"),
        ({"alpha_pattern": []}, "E-FORMAT-050"),
        ({"alpha_pattern": {"(a+)+b": 3}}, "E-FORMAT-050"),
        ({"alpha_pattern": {"q_proj": "x"}}, "E-FORMAT-050"),
        ({"base_model_name_or_path": 7}, "E-FORMAT-050"),
    ],
    ids=str,
)
def test_K11_descriptions_that_mislead(folder: Path, change: dict[str, Any], code: str) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **change}))
    with pytest.raises(GroundupError) as caught:
        load(folder, toy.llama())
    assert caught.value.code == code


@pytest.mark.parametrize(
    "text", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' + b" " * (2 << 20) + b"1}"], ids=len
)
def test_K11_descriptions_that_are_no_json(folder: Path, text: bytes) -> None:
    for name in (CONFIG, OWN):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(text)
        with pytest.raises(GroundupError) as caught:
            load(folder, toy.llama())
        assert caught.value.code == "E-FORMAT-050"
        (folder / name).write_bytes(kept)


def test_K11_missing_files_and_tensors_that_mislead(folder: Path) -> None:
    tensors = read_safetensors(folder / WEIGHTS)
    name = "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight"
    changes = [
        {name: torch.zeros(4)}, {name: torch.zeros(0, 32)}, {name: torch.zeros(5, 32)}, {name: None},
        {"base_model.model.model.layers.0.self_attn.\x1b[31m.lora_A.weight": torch.zeros(1, 1)},
        {"base_model.model.model.layers.77.input_layernorm.weight": torch.zeros(32)}, {"": torch.zeros(1)},
        {"base_model.model.lm_head.weight": torch.zeros(97, 32)},
    ]  # fmt: skip
    for change in changes:
        mixed = {key: value for key, value in {**tensors, **change}.items() if value is not None}
        with pytest.raises(GroundupError) as caught:
            read_adapter(folder, family="llama", shapes=shapes(toy.llama()), read_tensors=lambda path, m=mixed: m)
        assert caught.value.code == "E-FORMAT-052" and "\x1b" not in str(caught.value), change
    (folder / CONFIG).unlink()
    with pytest.raises(GroundupError) as caught:
        load(folder, toy.llama())
    assert caught.value.code == "E-FORMAT-050"
