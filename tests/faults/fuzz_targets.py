"""Every reader of files that come from outside: little whole folders to begin with, and what is done with them.

A seed is a folder; what is fuzzed is one of its files at a time, among the others as they were.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import io
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tests.checkpoint.test_checkpoint_corruption import reseal
from tests.formats import test_gguf_hostile as hostile
from tests.report.example_run import example_events, write_lines
from tests.small_models import image_model, small_tokenizer, table_model, text_model

from groundup import checkpoint
from groundup.adapters import LoraOptions, apply
from groundup.cli.inspect import inspect
from groundup.data.chat_rows import ChatLedger, ChatOptions, SetAside, read_chat
from groundup.data.image_options import ImageOptions
from groundup.data.image_set import read_images
from groundup.data.labelled_options import LabelledOptions
from groundup.data.labelled_set import read_labelled
from groundup.data.options import PrepareOptions
from groundup.data.prepare import clean_corpus
from groundup.data.table_options import TableOptions
from groundup.data.table_set import read_table
from groundup.errors import GroundupError
from groundup.models.heads import HeadOptions
from groundup.models.llama import LlamaOptions
from groundup.report.write import write_report
from groundup.run import models, opening
from groundup.run.entry import read_recipe
from groundup.run.exchange import export_model, import_foreign
from groundup.run.foreign import digest_of
from groundup.run.library_events import read_piece
from groundup.run.models import Described, initialised, model_files
from groundup.text.chat import ChatTemplate
from groundup.text.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
TEMPLATE = (
    "{% for message in messages %}{{ bos_token if loop.first }}[{{ message.role }}]{{ message.content }}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
MESSAGES = [{"role": "user", "content": "the soup"}, {"role": "assistant", "content": "was good"}]
LOST = {"malformed_limit": 1.0}
HEAD = HeadOptions(kind="classify", labels=["bad", "good"], pooling="first", pooler=True)


class Target(NamedTuple):
    """What writes the seeds, each a folder, which files of them are changed, and what reads one."""

    seeds: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path, Path], None]


def tried(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """What it returns; None where it refuses as it should."""
    try:
        return call(*given, **named)
    except GroundupError as error:
        for one in (error, *error.others):
            if "\x1b" in str(one) or not (one.what and one.where and one.why and one.fix):
                raise AssertionError(f"a refusal that cannot be shown: {one.code} {str(one)!r}") from error
        return None


def looked_at(path: Path) -> None:
    """`groundup inspect`, as it is printed and as JSON."""
    for as_json in (False, True):
        with contextlib.redirect_stdout(io.StringIO()):
            tried(inspect, argparse.Namespace(path=str(path), json=as_json))


def imported(path: Path, out: Path, base: Path | None = None) -> None:
    """`groundup import`; what came in is opened again, and its tokenizer and template are used."""
    if tried(import_foreign, str(path), str(out), base=str(base) if base else None) is not None:
        loaded = models.load(out, CPU)  # what was written must be read
        used(loaded.said.tokenizer, loaded.said.chat)


def used(tokenizer: Any, chat: ChatTemplate | None) -> None:
    ids = tried(tokenizer.encode, "the soup <s> 汤 \x00 and")
    if ids is not None:
        tried(tokenizer.decode, ids)
    if chat is not None:
        tried(chat.render, MESSAGES, tokenizer)
        tried(chat.render, MESSAGES[:1], tokenizer, add_generation_prompt=True)


# ------------------------------------------------------------------------------------------------ models


def little_model(folder: Path) -> Path:
    tokenizer = small_tokenizer()
    options = LlamaOptions(
        vocabulary=tokenizer.vocabulary,
        context=16,
        width=8,
        layers=1,
        heads=2,
        key_value_heads=1,
        head_size=4,
        hidden=12,
        tied=True,
    )
    model = initialised("llama", options, CPU, 5)
    checkpoint.save_model(
        folder, tensors=model.state_dict(), files=model_files(Described("llama", options, tokenizer, ChatTemplate()))
    )
    return folder


def gguf_seeds(folder: Path) -> None:
    base = little_model(folder.parent / "base")
    texts = hostile.TEXT
    scores = (hostile.ARRAY, (hostile.F32, [0.0, -1.0, -2.0, 0.0]))
    files = {
        "plain": hostile.model({"tokenizer.chat_template": (texts, TEMPLATE)}),
        "scores": hostile.model(
            {
                "tokenizer.ggml.model": (texts, "llama"),
                "tokenizer.ggml.scores": scores,
                "tokenizer.ggml.bos_token_id": (hostile.U32, 3),
            }
        ),
        "qwen2": hostile.model(
            {
                "general.architecture": (texts, "qwen2"),
                **{"qwen2" + name[5:]: fact for name, fact in hostile.FACTS.items() if name.startswith("llama.")},
            }
        ),
    }
    for name, content in files.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "model.gguf").write_bytes(content)
    (folder / "whole").mkdir()
    export_model(str(base), str(folder / "whole" / "model.gguf"), to="gguf", dtype="f16")


def gguf(folder: Path, out: Path) -> None:
    looked_at(folder / "model.gguf")
    imported(folder / "model.gguf", out)


CONFIGS: dict[str, dict[str, Any]] = {
    "rope": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8,
        }
    },
    "rope5": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}},
    "window": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 0,
        "layer_types": ["sliding_attention"],
    },
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 5},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
    "moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 8,
        "norm_topk_prob": True,
    },
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": 8,
        "n_layer": 1,
        "n_head": 2,
        "n_positions": 16,
    },
    "labels": {
        "architectures": ["LlamaForSequenceClassification"],
        "id2label": {"0": "no", "1": "yes"},
        "label2id": {"no": 0, "yes": 1},
        "pad_token_id": 0,
        "problem_type": "single_label_classification",
    },
}


def hugging_face_seeds(folder: Path) -> None:
    base = little_model(folder.parent / "base")
    folder.mkdir(parents=True, exist_ok=True)
    export_model(str(base), str(folder / "llama"), to="huggingface")
    head = text_model(folder.parent / "head", small_tokenizer(), head=HEAD)
    export_model(str(head), str(folder / "bert"), to="huggingface")
    for name, fields in CONFIGS.items():
        shutil.copytree(folder / "llama", folder / name)
        content = json.loads((folder / name / "config.json").read_bytes())
        (folder / name / "config.json").write_text(json.dumps({**content, **fields}))
    said = json.loads((folder / "rope" / "tokenizer_config.json").read_bytes())
    said["chat_template"] = TEMPLATE
    (folder / "rope" / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "rope" / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "rope5" / "chat_template.jinja").write_text(TEMPLATE)
    sharded = folder / "rope5"
    (sharded / "model.safetensors").rename(sharded / "model-00001-of-00001.safetensors")
    names = checkpoint.read_header(sharded / "model-00001-of-00001.safetensors").tensors
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))


def hugging_face(folder: Path, out: Path) -> None:
    looked_at(folder)
    imported(folder, out)


def llama2c_seeds(folder: Path) -> None:
    (folder / "a").mkdir(parents=True)
    rows, width, hidden, size = 262, 4, 4, 2
    numbers = rows * width + width + 4 * width * width + width + 3 * hidden * width + width + 2 * 8 * size // 2
    header = struct.pack("<7i", width, hidden, 1, 2, 2, rows, 8)
    (folder / "a" / "model.bin").write_bytes(header + np.zeros(numbers, "<f4").tobytes())
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % byte for byte in range(256)), b"a", b"b", b"ab"]
    content = b"".join(struct.pack("<fi", -float(id), len(piece)) + piece for id, piece in enumerate(pieces))
    (folder / "a" / "tok.bin").write_bytes(struct.pack("<i", 8) + content)


def llama2c(folder: Path, out: Path) -> None:
    looked_at(folder / "model.bin")
    imported(folder / "model.bin", out)


def peft_seeds(folder: Path) -> None:
    base = little_model(folder / "a" / "base")
    loaded = models.load(base, CPU)
    options = LoraOptions(kind="lora", rank=2, targets=["*.q_proj", "*.down_proj"], rank_by={"*.down_proj": 3})
    apply(loaded.model, [options], seed=0)
    loaded.said.adapters, loaded.said.base = [options], models.Base(str(base), digest_of(base))
    lora = folder.parent / "lora"
    checkpoint.save_model(lora, tensors=models.trained_tensors(loaded.model), files=model_files(loaded.said))
    export_model(str(lora), str(folder / "a" / "adapter"), to="peft")


def peft(folder: Path, out: Path) -> None:
    looked_at(folder / "adapter")
    imported(folder / "adapter", out, folder / "base")


def resealed(folder: Path, out: Path) -> None:
    """A copy whose hashes and seal fit what is in it; where its manifest is beyond that, it stays as it is."""
    shutil.copytree(folder, out)
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        reseal(out)


def own_seeds(folder: Path) -> None:
    little_model(folder / "llama")
    text_model(folder / "bert", small_tokenizer())
    table_model(folder / "table")
    image_model(folder / "image")


def own(folder: Path, out: Path) -> None:
    """A model folder of ours as it is, and with its manifest made to fit, as a tool that knows the format would."""
    looked_at(folder)
    tried(opening.load, folder, device="cpu")
    resealed(folder, out)
    looked_at(out)
    loaded = tried(opening.load, out, device="cpu")
    if isinstance(loaded, opening.LoadedModel):
        used(loaded.tokenizer, loaded.chat_template)


def checkpoint_seeds(folder: Path) -> None:
    tensors = {"model": {"w": torch.ones(20)}, "optimizer": {"m": torch.ones(20)}}
    state = {"step": 1, "random": torch.zeros(3, dtype=torch.uint8).tolist(), "rate": 0.1, "nested": [{"a": None}]}
    checkpoint.save(folder / "a", step=1, tensors=tensors, state=state, files={"recipe.yaml": b"a: 1\n"})


def checkpoints(folder: Path, out: Path) -> None:
    place = folder / "step-000001"
    tried(checkpoint.load, place)
    tried(checkpoint.newest, folder)
    resealed(place, out)
    tried(checkpoint.load, out)


def tokenizer_seeds(folder: Path) -> None:
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "tokenizer.json").write_text(small_tokenizer().to_json())


def own_tokenizer(folder: Path, out: Path) -> None:
    tokenizer = tried(Tokenizer.load, folder / "tokenizer.json")
    if tokenizer is not None:
        used(tokenizer, ChatTemplate())


# ------------------------------------------------------------------------------------- recipes, data, events


def recipe_seeds(folder: Path) -> None:
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        (folder / path.stem).mkdir(parents=True)
        shutil.copy(path, folder / path.stem / "recipe.yaml")


def recipes(folder: Path, out: Path) -> None:
    tried(read_recipe, folder / "recipe.yaml")


def table_files(folder: Path, rows: list[dict[str, Any]]) -> None:
    """The same rows in every format."""
    import pyarrow
    from pyarrow import parquet

    for kind in ("jsonl", "json", "csv", "parquet", "gz"):
        (folder / kind).mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "jsonl" / "rows.jsonl").write_text(lines)
    (folder / "json" / "rows.json").write_text(json.dumps(rows))
    (folder / "gz" / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "parquet" / "rows.parquet")
    with (folder / "csv" / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {k: v if isinstance(v, str | int | float) else json.dumps(v) for k, v in r.items()} for r in rows
        )


def only_file(folder: Path) -> str:
    [path] = [path for path in folder.iterdir() if path.name.startswith("rows")]
    return str(path)


def chat_seeds(folder: Path) -> None:
    table_files(
        folder / "pairs", [{"prompt": f"What is {n}?", "response": f"It is {n}.", "system": "s"} for n in range(4)]
    )
    table_files(folder / "messages", [{"messages": MESSAGES} for _ in range(3)])
    table_files(
        folder / "turns", [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}] * 2
    )
    flat(folder)


def flat(folder: Path) -> None:
    """A seed is a folder without folders between."""
    for group in list(folder.iterdir()):
        for one in list(group.iterdir()):
            one.rename(folder / f"{group.name}-{one.name}")
        group.rmdir()


def all_rows(folder: Path, options: ChatOptions) -> None:
    for _ in read_chat([only_file(folder)], options, ChatLedger(), held_out=0.3):
        pass


def chat(folder: Path, out: Path) -> None:
    for once in (True, False):
        options = ChatOptions.model_validate({"remove_duplicates": once, **LOST})
        tried(all_rows, folder, options)


def labelled_seeds(folder: Path) -> None:
    rows = [
        {"text": f"soup {n}", "label": ["yes", "no"][n % 2], "group": f"g{n}", "time": f"2024-01-0{n + 1}"}
        for n in range(6)
    ]
    table_files(folder, rows)


def labelled(folder: Path, out: Path) -> None:
    for task in ("classify", "multilabel", "regress", "tag"):
        for kind in ("random", "grouped", "time"):
            given = {"files": [only_file(folder)], "task": task, "split": {"kind": kind}, **LOST}
            tried(read_labelled, LabelledOptions.model_validate(given), list[SetAside]())


def tables_seeds(folder: Path) -> None:
    rows = [
        {
            "size": n * 1.5,
            "colour": ["red", "green"][n % 2],
            "when": f"2024-01-0{n + 1}",
            "label": ["a", "b"][n % 2],
            "target": n,
        }
        for n in range(8)
    ]
    table_files(folder, rows)


def tables(folder: Path, out: Path) -> None:
    for task in ("classify", "regress", "multilabel"):
        options = TableOptions.model_validate({"files": [only_file(folder)], "task": task, **LOST})
        tried(read_table, options, list[SetAside]())


def text_seeds(folder: Path) -> None:
    table_files(folder, [{"text": f"the soup number {n} was good " * 5, "source": f"s{n}"} for n in range(6)])
    (folder / "plain").mkdir()
    (folder / "plain" / "rows.txt").write_text("the soup\n\nwas good\n" * 10)


def texts(folder: Path, out: Path) -> None:
    options = PrepareOptions.model_validate({"files": [only_file(folder)], **LOST})
    tried(clean_corpus, options, out, workers=1)


def image_seeds(folder: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 5, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "gif", "bmp", "webp", "tiff"):
        for label in ("cat", "dog"):
            (folder / suffix / label).mkdir(parents=True)
            for number in range(2):
                Image.fromarray(pixels[number + 2 * (label == "dog")]).save(
                    folder / suffix / label / f"{number}.{suffix}"
                )
    (folder / "idx").mkdir()
    for name, count in (("train", 6), ("t10k", 2)):
        images = bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 4, 5) + pixels[:count, :, :, 0].tobytes()
        (folder / "idx" / f"{name}-images-idx3-ubyte").write_bytes(images)
        labels = bytes([0, 0, 8, 1]) + struct.pack(">I", count) + bytes(number % 2 for number in range(count))
        (folder / "idx" / f"{name}-labels-idx1-ubyte").write_bytes(labels)
    (folder / "npz").mkdir()
    np.savez(
        folder / "npz" / "images.npz",
        x_train=pixels[:6],
        y_train=np.arange(6) % 2,
        x_test=pixels[6:],
        y_test=np.arange(2),
    )
    (folder / "list").mkdir()
    Image.fromarray(pixels[0]).save(folder / "list" / "0.png")
    (folder / "list" / "rows.csv").write_text("path,label\n0.png,cat\n0.png,dog\n")


def images(folder: Path, out: Path) -> None:
    files = (
        [str(path) for path in folder.glob("rows.csv")] or [str(path) for path in folder.glob("*.npz")] or [str(folder)]
    )
    for given in ({}, {"size": [3, 3], "task": "none"}):
        options = ImageOptions.model_validate(
            {"files": files, "split": {"test": 0.0, "validation": 0.0}, "limits": LOST, **given}
        )
        tried(read_images, options, list[SetAside](), out)


def event_seeds(folder: Path) -> None:
    (folder / "a").mkdir(parents=True)
    write_lines(folder / "a" / "events.jsonl", example_events(steps=6))
    (folder / "a" / "results.json").write_text(
        json.dumps(
            {
                "evaluations": [{"step": 1, "metric": "loss", "value": 1.0, "low": 0.5, "high": 2.0}],
                "classification": [{"name": "a", "labels": ["x", "y"], "confusion": [[1, 0, 2]]}],
                "finish": "done",
            }
        )
    )
    (folder / "a" / "plan.json").write_text(json.dumps({"parameters": 10, "memory": {"total": 5}, "tokens": 3}))
    (folder / "a" / "sessions.jsonl").write_text(json.dumps({"began": "2024-01-01T00:00:00", "ended": None}) + "\n")
    (folder / "a" / "recipe.yaml").write_text("name: x\nmodel: {family: llama}\n")


def events(folder: Path, out: Path) -> None:
    piece = tried(read_piece, folder / "events.jsonl", 0, "")
    if piece is not None:
        json.dumps(asdict(piece), allow_nan=False).encode()
        tried(read_piece, folder / "events.jsonl", piece.next, piece.mark)
    shutil.copytree(folder, out)
    tried(write_report, out)


TARGETS: dict[str, Target] = {
    "gguf": Target(gguf_seeds, ("*.gguf",), gguf),
    "hf_config": Target(hugging_face_seeds, ("config.json",), hugging_face),
    "hf_tokenizer": Target(hugging_face_seeds, ("token*.json", "spec*.json", "gen*.json", "*.jinja"), hugging_face),
    "hf_weights": Target(hugging_face_seeds, ("*.safetensors", "*.index.json", "modules.json"), hugging_face),
    "llama2c": Target(llama2c_seeds, ("*.bin",), llama2c),
    "peft": Target(peft_seeds, ("adapter/*",), peft),
    "own": Target(own_seeds, ("*",), own),
    "checkpoint": Target(checkpoint_seeds, ("*/*",), checkpoints),
    "tokenizer": Target(tokenizer_seeds, ("*",), own_tokenizer),
    "recipe": Target(recipe_seeds, ("*",), recipes),
    "chat": Target(chat_seeds, ("*",), chat),
    "labelled": Target(labelled_seeds, ("*",), labelled),
    "table": Target(tables_seeds, ("*",), tables),
    "text": Target(text_seeds, ("*",), texts),
    "image": Target(image_seeds, ("*", "*/*"), images),
    "events": Target(event_seeds, ("*",), events),
}
