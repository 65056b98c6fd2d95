"""Models in, merged and out again, as the verbs do it: the same answers each way, and nothing left after a fault."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from tests.formats.toy_models import TOYS, save_toy
from torch import Tensor, nn

import groundup
from groundup import checkpoint
from groundup.adapters import LoraOptions, QuantizeOptions, apply
from groundup.errors import CATALOGUE, GroundupError
from groundup.formats import gguf_write
from groundup.run import exchange, models, proof
from groundup.run.exchange import export_model, import_foreign, merge_models
from groundup.run.foreign import digest_of
from groundup.run.inspection import inspect_model
from groundup.run.weights import model_is_tied

CPU = torch.device("cpu")
TEXTS = ("Hello world", "def f(x): return x", "春眠不覺曉")
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a toy of transformers (`hf`), imported (`base`), another with other weights (`other`), a run
    that adapted the base (`lora`), and a classifier (`head`)."""
    room = tmp_path_factory.mktemp("room")
    kind, configuration, fields = TOYS["llama_tied"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TOYS, "words", (kind, configuration, {**fields, "vocab_size": 260}))  # an id for each token
        save_toy("words", room / "hf")
    save_toy("bert_classify", room / "hf-head")
    import_foreign(str(room / "hf"), str(room / "base"))
    import_foreign(str(room / "hf-head"), str(room / "head"))
    loaded = models.load(room / "base", CPU)
    tensors = {name: tensor * 0.5 for name, tensor in loaded.model.state_dict().items() if name != "head.weight"}
    tensors["head.weight"] = tensors["embedding.weight"]
    checkpoint.save_model(room / "other", tensors=tensors, files=models.model_files(loaded.said))
    texts = room / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"{n} cats and {n} dogs " * 4}) + "\n" for n in range(40)))
    recipe = {
        "model": {"init_from": str(room / "base")},
        "adapters": [{"kind": "lora", "rank": 2, "targets": ["*layers.*_proj"]}],
        "data": {"kind": "text", "files": [str(texts)], "context": 32, "workers": 1},
        "optim": {"model": {"kind": "adamw", "learning_rate": 0.05}},
        "budget": {"steps": 3, "tokens_per_step": 64},
        "events": {"evaluate_every": 0, "sample_every": 0, "save_every": 0},
        "hardware": {"precision": "float32", "compile": "off"},
    }
    groundup.train(recipe, out=room / "lora")
    return room


def ids(count: int = 20) -> Tensor:
    return torch.randint(4, 256, (2, count), generator=torch.Generator().manual_seed(5))


@torch.inference_mode()
def logits(path: Path) -> Tensor:
    return models.load(path, CPU).model(ids())


def batch() -> dict[str, Tensor]:
    """Two texts of different lengths."""
    document = torch.zeros(2, 20, dtype=torch.int64)
    document[1, 12:] = -1
    return {"tokens_BT": ids(), "position_BT": torch.arange(20).expand(2, -1), "document_BT": document}


def close(found: Tensor, expected: Tensor, limit: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= limit * max(1.0, float(expected.std()))


def refused(code: str, call: Callable[[], object], place: Path) -> GroundupError:
    """The call raises this and leaves the folder as it was."""
    before = sorted(path.name for path in place.iterdir())
    with pytest.raises(GroundupError) as caught:
        call()
    fault = caught.value
    assert fault.code == code and code in CATALOGUE, str(fault)
    assert fault.what and fault.where and fault.why and fault.fix
    assert sorted(path.name for path in place.iterdir()) == before
    return fault


def test_an_import_answers_as_its_source(room: Path) -> None:
    reference = transformers.AutoModelForCausalLM.from_pretrained(room / "hf").eval()
    with torch.inference_mode():
        close(logits(room / "base"), reference(ids()).logits)
    assert not checkpoint.verify(room / "base")
    model = models.load(room / "base", CPU).model
    assert model_is_tied(model)
    stored = checkpoint.read_header(room / "base" / "model.safetensors").tensors
    assert "head.weight" not in stored


def test_inspect_tells_what_each_kind_is(room: Path) -> None:
    base, adapted, foreign = (inspect_model(str(room / name)) for name in ("base", "lora", "hf"))
    assert (base["kind"], base["family"], foreign["kind"]) == ("groundup", "llama", "hugging_face")
    assert base["parameters"] == foreign["parameters"]
    assert adapted["adapters"][0]["rank"] == 2 and adapted["base"]["digest"]
    assert inspect_model(str(room / "head"))["head"]["labels"] == ["no", "yes", "perhaps"]


ROUNDING = {"f32": 1e-4, "f16": 2e-2, "bf16": 1.5e-1, "q8_0": 1.5e-1, "q4_0": 3.0}
"""What the type of the weights may cost a toy model's logits."""


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_G10_transformers_loads_the_hugging_face_export(room: Path, tmp_path: Path, dtype: str) -> None:
    found = export_model(str(room / "base"), str(tmp_path / "out"), to="huggingface", dtype=dtype)
    assert found["proof"]["exact"] == found["proof"]["tensors"] > 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.inference_mode():
        close(theirs(ids()).logits, logits(room / "base"), 1e-5 if dtype == "f32" else ROUNDING["bf16"])
    said = models.load(room / "base", CPU).said
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in TEXTS:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == said.tokenizer.encode(text)
    assert said.chat is not None
    rendered = tokenizer.apply_chat_template(MESSAGES, tokenize=True, return_dict=False)
    assert list(rendered) == said.chat.render(MESSAGES, said.tokenizer).ids


@pytest.mark.parametrize("dtype", exchange.TYPES["gguf"])
def test_G10_a_gguf_file_holds_exactly_the_rounded_weights(room: Path, tmp_path: Path, dtype: str) -> None:
    target = tmp_path / "out.gguf"
    found = export_model(str(room / "base"), str(target), to="gguf", dtype=dtype)
    assert found["proof"]["exact"] == found["proof"]["tensors"] > 0
    assert found["bytes"] == target.stat().st_size
    assert inspect_model(str(target))["kind"] == "gguf"
    close(logits(target), logits(room / "base"), max(1e-6, ROUNDING[dtype]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gguf", "out.gguf.proof.json"]


def test_G10_a_headed_model_answers_the_same_in_transformers(room: Path, tmp_path: Path) -> None:
    export_model(str(room / "head"), str(tmp_path / "out"), to="huggingface")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    rows = batch()
    with torch.inference_mode():
        ours = models.load(room / "head", CPU).model(rows)
        close(theirs(rows["tokens_BT"], attention_mask=(rows["document_BT"] >= 0).long()).logits, ours)
    assert theirs.config.id2label == {0: "no", 1: "yes", 2: "perhaps"}
    assert (
        "head of kind classify"
        in refused(
            "E-FORMAT-036", lambda: export_model(str(room / "head"), str(tmp_path / "m.gguf"), to="gguf"), tmp_path
        ).what
    )


def test_G10_merged_adapters_answer_as_they_did_at_run_time(room: Path, tmp_path: Path) -> None:
    expected = logits(room / "lora")
    assert float((expected - logits(room / "base")).abs().max()) > 1e-2, "the adapter does nothing"
    found = merge_models([str(room / "lora")], str(tmp_path / "whole"))
    assert found["proof"]["exact"] == found["proof"]["tensors"] > 0
    assert not checkpoint.verify(tmp_path / "whole")
    close(logits(tmp_path / "whole"), expected)
    assert models.load(tmp_path / "whole", CPU).said.base is None


def test_an_average_is_taken_tensor_by_tensor(room: Path, tmp_path: Path) -> None:
    merge_models([str(room / "base"), str(room / "other")], str(tmp_path / "mean"), weights=[1.0, 3.0])
    base, mean = (models.load(path, CPU).model.state_dict() for path in (room / "base", tmp_path / "mean"))
    for name, tensor in base.items():
        torch.testing.assert_close(mean[name], tensor * (0.25 + 0.75 * 0.5))
    merge_models([str(room / "lora"), str(room / "lora")], str(tmp_path / "same"))
    close(logits(tmp_path / "same"), logits(room / "lora"))  # adapters are folded in before


def test_G10_peft_loads_the_exported_adapter_and_the_way_back(room: Path, tmp_path: Path) -> None:
    found = export_model(str(room / "lora"), str(tmp_path / "adapter"), to="peft")
    assert found["proof"]["exact"] == found["proof"]["tensors"] > 0
    base = transformers.AutoModelForCausalLM.from_pretrained(room / "hf")
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.inference_mode():
        close(theirs(ids()).logits, logits(room / "lora"))
    assert inspect_model(str(tmp_path / "adapter"))["kind"] == "peft_adapter"
    import_foreign(str(tmp_path / "adapter"), str(tmp_path / "again"), base=str(room / "base"))
    close(logits(tmp_path / "again"), logits(room / "lora"), 0.0)
    source, out = str(tmp_path / "adapter"), str(tmp_path / "wrong")
    refused("E-FORMAT-052", lambda: import_foreign(source, out, base=str(room / "other")), tmp_path)
    refused("E-ADAPT-024", lambda: import_foreign(source, out, base=str(room / "lora")), tmp_path)
    refused("E-FORMAT-093", lambda: import_foreign(source, out), tmp_path)


@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_G10_an_adapter_that_was_trained_on_a_quantized_base_goes_to_peft(
    bits: str, room: Path, tmp_path: Path
) -> None:
    loaded = models.load(room / "base", CPU)
    adapters = [QuantizeOptions(kind="quantize", bits=bits), LoraOptions(kind="lora", rank=4, targets=["*_proj"])]
    models.adapt(loaded.model, adapters, seed=0)
    whole = models.Base(str(room / "base"), digest_of(room / "base"))
    said = replace(loaded.said, adapters=adapters, base=whole)
    checkpoint.save_model(
        tmp_path / "qlora", tensors=models.trained_tensors(loaded.model), files=models.model_files(said)
    )
    found = export_model(str(tmp_path / "qlora"), str(tmp_path / "adapter"), to="peft")
    assert found["proof"]["exact"] == found["proof"]["tensors"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["small", "head"])
def test_G10_onnx_graphs_keep_documents_and_padding_apart(kind: str, room: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from groundup.formats.onnx import open_onnx

    rows = batch()
    rows["document_BT"][0, 7:] = 1
    rows["position_BT"] = torch.where(rows["document_BT"] == 1, torch.arange(20) - 7, torch.arange(20))
    folder = room / "head"
    if kind == "small":
        folder = tmp_path / "small"
        said = models.load(room / "base", CPU).said
        options = said.options.model_copy(update={"layers": 1, "sliding_window": 6})
        small = models.initialised("llama", options, CPU, 0)
        files = models.model_files(models.Described("llama", options, said.tokenizer, None))
        checkpoint.save_model(folder, tensors=small.state_dict(), files=files)
    target = tmp_path / f"{kind}.onnx"
    export_model(str(folder), str(target), to="onnx")
    assert b"exchange.py" not in target.read_bytes(), "paths of this machine are in the file"
    other, loaded = open_onnx(target), models.load(folder, CPU)
    decodes = loaded.said.head is None
    with torch.inference_mode():
        for cut in (20, 9, 1):  # 20: two documents and padding; 1: the shortest there is
            part = {key: tensor[:, :cut].contiguous() for key, tensor in rows.items()}
            ours = loaded.model(*part.values()) if decodes else loaded.model(part)
            real = part["document_BT"] >= 0 if decodes else torch.ones(2, dtype=torch.bool)
            close(other(part)[real], ours[real])
        if decodes:
            close(other(ids()[:1, :5]), loaded.model(ids()[:1, :5]))


def swapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    one, two = "layers.0.attention.q_proj.weight", "layers.1.attention.q_proj.weight"
    return {**tensors, one: tensors[two], two: tensors[one]}


@pytest.mark.parametrize("dtype", ["f32", "q8_0", "q4_0"])
def test_G10_swapped_tensors_are_found_out(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    whole = exchange.write_gguf

    def write(path: Path, family: str, options: Any, tensors: Any, *rest: Any, **more: Any) -> Any:
        return whole(path, family, options, swapped(tensors), *rest, **more)

    monkeypatch.setattr(exchange, "write_gguf", write)
    call = lambda: export_model(str(room / "base"), str(tmp_path / "new" / "m.gguf"), to="gguf", dtype=dtype)  # noqa: E731
    assert "layers.0.attention.q_proj.weight" in refused("E-FORMAT-095", call, tmp_path).what


def test_G10_a_wrong_order_of_rows_is_found_out(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_write, "to_interleaved", lambda tensor, heads: tensor)
    call = lambda: export_model(str(room / "base"), str(tmp_path / "m.gguf"), to="gguf", dtype="q4_0")  # noqa: E731
    refused("E-FORMAT-095", call, tmp_path)


def test_G10_a_network_put_together_otherwise_is_found_out(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are right and the answers are not."""
    whole = exchange._read_back

    def read(place: Path) -> nn.Module:
        model = whole(place)
        model.cos_TR, model.sin_TR = model.sin_TR, model.cos_TR
        return model

    monkeypatch.setattr(exchange, "_read_back", read)
    for dtype in ("f32", "bf16"):
        call = lambda: export_model(str(room / "base"), str(tmp_path / "m"), to="huggingface", dtype=dtype)  # noqa: B023, E731
        assert "answers differ" in refused("E-FORMAT-095", call, tmp_path).what


@pytest.mark.parametrize("to", ["huggingface", "gguf", "safetensors", "peft"])
def test_a_full_disk_leaves_nothing(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")

    out = tmp_path / "new" / "deep" / "m"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises((OSError, GroundupError)):
            export_model(str(room / "lora"), str(out), to=to)
        assert not list(tmp_path.iterdir())
        with pytest.raises(GroundupError):
            import_foreign(str(room / "hf"), str(out))
        assert not list(tmp_path.iterdir())
    with monkeypatch.context() as patch:  # full when the comparison is kept
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError):
            export_model(str(room / "base"), str(out), to="safetensors")
        assert not list(tmp_path.iterdir())


def test_wrong_use_is_refused_in_five_parts(room: Path, tmp_path: Path) -> None:
    base, lora, out = str(room / "base"), str(room / "lora"), str(tmp_path / "out")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "pickle.bin").write_bytes(b"\x80\x02}q\x00.")
    taken, file = str(tmp_path / "taken"), str(tmp_path / "file")
    for code, call in {
        "E-FORMAT-094": lambda: export_model(base, out, to="onnx", dtype="q4_0"),
        "E-FORMAT-096": lambda: export_model(base, taken, to="huggingface"),
        "E-MODEL-004": lambda: export_model(str(tmp_path / "absent"), out, to="gguf"),
        "E-ADAPT-021": lambda: export_model(base, out, to="peft"),
        "E-ADAPT-020": lambda: merge_models([base], out),
        "E-ADAPT-023": lambda: merge_models([base, base], out, weights=[1.0]),
        "E-ADAPT-022": lambda: merge_models([base, str(room / "head")], out),
        "E-FORMAT-092": lambda: import_foreign(str(tmp_path / "absent"), out),
        "E-FORMAT-097": lambda: import_foreign(str(room / "hf"), out, base=base),
        "E-CKPT-009": lambda: import_foreign(str(tmp_path / "pickle.bin"), out),
    }.items():
        refused(code, call, tmp_path)
    for call in (
        lambda: import_foreign(str(room / "hf"), taken),
        lambda: merge_models([lora], file),
        lambda: export_model(base, file, to="gguf"),
    ):
        refused("E-FORMAT-096", call, tmp_path)
    refused("E-ADAPT-023", lambda: merge_models([lora], out, weights=[1.0, 2.0]), tmp_path)
    assert (tmp_path / "taken" / "note.txt").read_text() == "mine"


def test_two_adapters_are_not_one_peft_folder(room: Path, tmp_path: Path) -> None:
    loaded = models.load(room / "base", CPU)
    both = [LoraOptions(kind="lora", rank=1, name=name) for name in ("a", "b")]
    apply(loaded.model, both, seed=0)
    base = models.Base(str(room / "base"), models.digest_of(room / "base"))
    said = models.Described(loaded.said.family, loaded.said.options, loaded.said.tokenizer, None, None, both, base)
    place = tmp_path / "two"
    checkpoint.save_model(place, tensors=models.trained_tensors(loaded.model), files=models.model_files(said))
    refused("E-ADAPT-021", lambda: export_model(str(place), str(tmp_path / "x"), to="peft"), tmp_path)


def test_rows_alone_and_padded_are_both_compared(room: Path) -> None:
    loaded = models.load(room / "head", CPU)

    def blind(rows: dict[str, Tensor]) -> Tensor:
        """Takes padding for text."""
        return loaded.model({**rows, "document_BT": torch.zeros_like(rows["document_BT"])})

    with pytest.raises(GroundupError, match="answers differ"):
        proof.prove(loaded.model, blind, loaded.said, "f32").require(Path("x"))
    proof.prove(loaded.model, loaded.model, loaded.said, "f32").require(Path("x"))
