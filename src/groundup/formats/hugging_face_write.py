"""A folder that transformers loads (AutoModelForCausalLM, AutoModel, AutoModelForSequenceClassification …) and, for an
embedding model, sentence-transformers too.

What no architecture of transformers can hold is refused, never bent: the folder computes what the model computes.
config.json is written last, so that a folder whose writing was broken off does not look like a model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import tokenizers
import torch
from torch import Tensor

from groundup.errors import GroundupError, printable
from groundup.formats.foreign import ForeignTokenizer
from groundup.formats.hugging_face_tokenizer import TOKENIZER, load_library
from groundup.formats.keys import to_hugging_face

WriteTensors = Callable[[Path, Mapping[str, Tensor], Mapping[str, str]], None]
"""Writes a safetensors file: where, the tensors, the texts of its header."""

_TASKS = {
    "classify": "ForSequenceClassification",
    "multilabel": "ForSequenceClassification",
    "regress": "ForSequenceClassification",
    "tag": "ForTokenClassification",
    "choice": "ForMultipleChoice",
}
_PROBLEMS = {
    "classify": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regress": "regression",
}
_MODEL_TYPES = {
    "Llama": "llama",
    "Mistral": "mistral",
    "Qwen2": "qwen2",
    "Qwen3": "qwen3",
    "Qwen3Moe": "qwen3_moe",
    "GPT2": "gpt2",
    "Bert": "bert",
}


def write_hugging_face(
    folder: Path,
    family: str,
    options: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    tokenizer: ForeignTokenizer,
    head: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype,
    write_tensors: WriteTensors,
) -> None:
    """Write a model as a Hugging Face folder.

    Args:
        folder: new or empty.
        family: llama, moe, gpt2 or bert.
        options: all fields of the family's options, plain values.
        tensors: by the names of the network: with a head, `body.*` and `head.*`. A tied matrix may be there twice.
        tokenizer: goes into the folder as it is; see `written_tokenizer`.
        head: all fields of the head's options, plain values; None for a model that writes text.
        dtype: what floating tensors are stored as.
    Raises:
        GroundupError: E-FORMAT-011 if the folder holds anything, E-FORMAT-012 if no architecture of transformers
            computes the same.
    """
    maker = _maker(family, options)
    library = load_library(tokenizer.json, folder / TOKENIZER)
    config = {
        "architectures": [_architecture(maker, head)],
        "model_type": _MODEL_TYPES[maker],
        **_CONFIGS[family](options, maker),
        **_head_config(head),
        **_id_fields(tokenizer, library),
        "dtype": str(dtype).removeprefix("torch."),
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    named = _named(maker, family, options, tensors, head)
    _require_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        name: tensor.detach().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in named.items()
    }
    write_tensors(folder / "model.safetensors", stored, {"format": "pt"})
    _write_tokenizer(folder, tokenizer, library, family, options["context"])
    if head is None and family != "bert":
        _write(folder / "generation_config.json", _id_fields(tokenizer, library))
    if head is not None and head["kind"] == "embed":
        _write_modules(folder, head, options["width"])
    _write(folder / "config.json", config)


def _named(
    maker: str,
    family: str,
    options: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    head: Mapping[str, Any] | None,
) -> dict[str, Tensor]:
    """All tensors under their names there. Below a head, the body has no output matrix."""
    if head is None:
        body = {name: tensor for name, tensor in tensors.items() if name != "head.weight" or not options.get("tied")}
        return to_hugging_face(family, body, bare=family == "bert")
    body = {name.removeprefix("body."): tensor for name, tensor in tensors.items() if name.startswith("body.")}
    body.pop("head.weight", None)
    return {**to_hugging_face(family, body, bare=head["kind"] == "embed"), **_head_tensors(maker, head, tensors)}


def written_tokenizer(tokenizer: ForeignTokenizer, library: tokenizers.Tokenizer) -> str:
    """The tokenizer.json to write: one that puts the begin token in front by itself, where the model is used so."""
    begin = tokenizer.begin
    if begin is None or not tokenizer.adds_begin or library.token_to_id(begin) in library.encode("a").ids[:1]:
        return tokenizer.json
    content = json.loads(tokenizer.json)
    start, first, second = (
        {"SpecialToken": {"id": begin, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 0}},
    )
    adding = {
        "type": "TemplateProcessing",
        "single": [start, first],
        "pair": [start, first, start, second],
        "special_tokens": {begin: {"id": begin, "ids": [library.token_to_id(begin)], "tokens": [begin]}},
    }
    before = content.get("post_processor")
    both = {"type": "Sequence", "processors": [before, adding]}
    return json.dumps({**content, "post_processor": both if before else adding}, ensure_ascii=False)


def _maker(family: str, options: Mapping[str, Any]) -> str:
    """Whose layout holds these options."""
    if family != "llama":
        return {"moe": "Qwen3Moe", "gpt2": "GPT2", "bert": "Bert"}[family]
    bias, norm, window = options.get("attention_bias"), options.get("query_key_norm"), options.get("sliding_window")
    if norm and bias is True:
        _cannot("query-key norm together with attention_bias: true", 'no model there has both; "all" or false is held')
    if norm:
        return "Qwen3"
    if bias is True:
        return "Qwen2"
    if bias == "all" and window is not None:
        _cannot('attention_bias: "all" together with a sliding window', "no model there has both")
    # Llama of transformers refuses a width that the heads do not divide; Mistral is the same network without that
    uneven = options["width"] % options["heads"] != 0 and not bias
    return "Mistral" if window is not None or uneven else "Llama"


def _architecture(maker: str, head: Mapping[str, Any] | None) -> str:
    if head is None:
        return maker + {"GPT2": "LMHeadModel", "Bert": "Model"}.get(maker, "ForCausalLM")
    if head["kind"] == "embed":
        return f"{maker}Model"
    if head["kind"] == "masked":
        _cannot("a head that tells hidden tokens", "train a task's head on the model and export that one")
    if head["kind"] == "choice" and maker != "Bert":
        _cannot("a choice among candidates on a decoder", "only BERT has such a head there")
    return maker + _TASKS[head["kind"]]


def _head_tensors(maker: str, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the head under their names there; refuses a head that is built in another way there."""
    kind, pooling = head["kind"], head.get("pooling")
    if kind == "embed":
        if head.get("pooler"):
            _cannot("an embedding through a pooler", "embeddings there are pooled states, without another layer")
        return {}
    if kind != "tag":
        there = ("first", True) if maker == "Bert" else ("last", False)
        if (pooling or ("last" if maker != "Bert" else "first"), bool(head.get("pooler"))) != there:
            _cannot(
                f"a head with pooling {pooling} and {'a' if head.get('pooler') else 'no'} pooler",
                f"a head there reads the {there[0]} token {'through a pooler' if there[1] else 'directly'}",
            )
    weight, bias = tensors["head.output.weight"], tensors.get("head.output.bias")
    name = "classifier" if maker == "Bert" or (maker == "GPT2" and kind == "tag") else "score"
    named = {f"{name}.weight": weight}
    if bias is not None:
        named[f"{name}.bias"] = bias
    if head.get("pooler"):
        named |= {f"bert.pooler.dense.{part}": tensors[f"head.pooler.{part}"] for part in ("weight", "bias")}
    return named


def _head_config(head: Mapping[str, Any] | None) -> dict[str, Any]:
    if head is None or head["kind"] == "embed":
        return {}
    labels = list(head.get("labels") or ["LABEL_0"])
    found: dict[str, Any] = {"classifier_dropout": head.get("dropout", 0.0)}
    if head["kind"] in _PROBLEMS:
        found["problem_type"] = _PROBLEMS[head["kind"]]
    if head["kind"] != "choice":
        found["id2label"] = {str(number): label for number, label in enumerate(labels)}
        found["label2id"] = {label: number for number, label in enumerate(labels)}
    return found


def _decoder_config(options: Mapping[str, Any], maker: str) -> dict[str, Any]:
    """Llama, Mistral, Qwen2, Qwen3 and Qwen3-MoE."""
    rope: dict[str, Any] = {"rope_type": "default"}
    if scaling := options.get("rotary_scaling"):
        rope = {
            "rope_type": "llama3",
            "factor": scaling["factor"],
            "low_freq_factor": scaling["low_frequency_factor"],
            "high_freq_factor": scaling["high_frequency_factor"],
            "original_max_position_embeddings": scaling["original_context"],
        }
    base = options.get("rotary_base", 10000.0)
    config = {
        "vocab_size": options["vocabulary"],
        "max_position_embeddings": options["context"],
        "hidden_size": options["width"],
        "num_hidden_layers": options["layers"],
        "num_attention_heads": options["heads"],
        "num_key_value_heads": options["key_value_heads"],
        "head_dim": options["head_size"],
        "hidden_act": "silu",
        "rms_norm_eps": options["norm_epsilon"],
        "tie_word_embeddings": options["tied"],
        # both spellings: old versions of transformers read the first two, new ones the third
        "rope_theta": base,
        "rope_scaling": rope if scaling else None,
        "rope_parameters": {**rope, "rope_theta": base},
    }
    if maker == "Qwen3Moe":
        return {**config, **_experts_config(options)}
    config["intermediate_size"] = options["hidden"]
    window = options.get("sliding_window")
    if maker in ("Llama", "Qwen3"):
        config["attention_bias"] = options.get("attention_bias") == "all"
    if maker == "Mistral":
        config["sliding_window"] = window
    if maker in ("Qwen2", "Qwen3"):
        config |= {"use_sliding_window": window is not None, "sliding_window": window}
        config["max_window_layers"] = 0 if window is not None else options["layers"]
    return config


def _experts_config(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "intermediate_size": options["hidden"],
        "moe_intermediate_size": options["hidden"],
        "num_experts": options["experts"],
        "num_experts_per_tok": options["experts_per_token"],
        "norm_topk_prob": options["normalise_routes"],
        "router_aux_loss_coef": options["balance"],
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "attention_bias": False,
        "use_sliding_window": False,
    }


def _gpt2_config(options: Mapping[str, Any], maker: str) -> dict[str, Any]:
    return {
        "vocab_size": options["vocabulary"],
        "n_positions": options["context"],
        "n_embd": options["width"],
        "n_layer": options["layers"],
        "n_head": options["heads"],
        "n_inner": options["hidden"],
        "activation_function": "gelu_new",
        "layer_norm_epsilon": options["norm_epsilon"],
        "tie_word_embeddings": options["tied"],
    }


def _bert_config(options: Mapping[str, Any], maker: str) -> dict[str, Any]:
    return {
        "vocab_size": options["vocabulary"],
        "max_position_embeddings": options["context"],
        "hidden_size": options["width"],
        "num_hidden_layers": options["layers"],
        "num_attention_heads": options["heads"],
        "intermediate_size": options["hidden"],
        "type_vocab_size": options["segments"],
        "hidden_act": "gelu",
        "layer_norm_eps": options["norm_epsilon"],
        "hidden_dropout_prob": options.get("dropout", 0.0),
        "attention_probs_dropout_prob": options.get("dropout", 0.0),
        "position_embedding_type": "absolute",
    }


_CONFIGS: dict[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    "llama": _decoder_config,
    "moe": _decoder_config,
    "gpt2": _gpt2_config,
    "bert": _bert_config,
}


def _write_tokenizer(
    folder: Path, tokenizer: ForeignTokenizer, library: tokenizers.Tokenizer, family: str, context: int
) -> None:
    inputs = ["input_ids", "attention_mask"]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"] if family == "bert" else inputs,
        "pad_token": tokenizer.pad,
        "chat_template": tokenizer.template,
    }
    if family == "bert":
        config |= {"cls_token": tokenizer.begin, "sep_token": tokenizer.ends[0]}
        known = {"mask_token": "[MASK]", "unk_token": "[UNK]"}
        config |= {role: token for role, token in known.items() if library.token_to_id(token) is not None}
    else:
        config |= {"bos_token": tokenizer.begin, "eos_token": tokenizer.ends[0]}
    text = written_tokenizer(tokenizer, library)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8", newline="\n")
    _write(folder / "tokenizer_config.json", {name: value for name, value in config.items() if value is not None})


def _write_modules(folder: Path, head: Mapping[str, Any], width: int) -> None:
    """What sentence-transformers reads besides."""
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling")]
    if head.get("normalise") is not False:
        kinds.append(("Normalize", "2_Normalize"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(kinds)
    ]
    (folder / "1_Pooling").mkdir()
    modes = {"cls_token": "first", "mean_tokens": "mean", "lasttoken": "last"}
    pooling: dict[str, Any] = {f"pooling_mode_{mode}": head["pooling"] == ours for mode, ours in modes.items()}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **pooling})
    _write(folder / "modules.json", modules)


def _id_fields(tokenizer: ForeignTokenizer, library: tokenizers.Tokenizer) -> dict[str, Any]:
    ends = [id for name in tokenizer.ends if (id := library.token_to_id(name)) is not None]
    return {
        "bos_token_id": None if tokenizer.begin is None else library.token_to_id(tokenizer.begin),
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": library.token_to_id(tokenizer.pad),
    }


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def _require_empty(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    raise GroundupError(
        "E-FORMAT-011",
        f"{printable(folder.name)} is there already and is not an empty folder",
        where=printable(str(folder)),
        why="files of another model beside these would be read together with them",
        fix="choose another --out DIR, or move what is there away",
        exit_code=2,
    )


def _cannot(what: str, why: str) -> NoReturn:
    raise GroundupError(
        "E-FORMAT-012",
        f"Hugging Face's transformers has no architecture with {what}",
        where="groundup export --to huggingface",
        why=f"{why}; a folder that computes something else would be worth nothing",
        fix="groundup export --to onnx   (for other tools), or --to safetensors   (for groundup itself)",
        exit_code=2,
    )
