"""A tokenizer.json as the metadata of a GGUF file: the inverse of gguf_tokenizer.py.

llama.cpp cuts text by built-in rules that a file can only name. Where none of them is the tokenizer's own, the nearest
is named, the whole tokenizer.json is put beside it, so that reading it back here is exact, and a sentence says so.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import numpy as np

from groundup.errors import GroundupError, printable
from groundup.formats.foreign import ForeignTokenizer
from groundup.formats.gguf_pre import NEAREST, find_pre
from groundup.formats.gguf_tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

Metadata = dict[str, Any]


def tokenizer_metadata(tokenizer: ForeignTokenizer, vocabulary: int) -> tuple[Metadata, tuple[str, ...]]:
    """The keys `tokenizer.*` for a tokenizer, and sentences about what llama.cpp will do differently.

    Args:
        vocabulary: rows of the embedding; rows without a token get an unused one.
    Raises:
        GroundupError: E-FORMAT-036 if it is no byte-pair tokenizer, or does not fit the vocabulary.
    """
    document = json.loads(tokenizer.json)
    model = document["model"]
    if model.get("type") != "BPE":
        _refuse(f"tokenizers of the kind {printable(str(model.get('type')), 40)} are not written, only BPE")
    tokens, types = _tokens(document, vocabulary)
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model.get("merges", [])]
    notes: list[str] = []
    facts: Metadata = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": np.array(types, dtype=np.int32)}
    if model.get("byte_fallback"):
        facts |= {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.scores": _scores(tokens, merges),
            "tokenizer.ggml.add_space_prefix": _adds_space(document),
        }
    elif '"ByteLevel"' in json.dumps(document.get("pre_tokenizer")):
        pre = find_pre(document) if merges else "gpt-2"
        if any(entry.get("word") for entry in document.get("added_tokens") or []):
            facts["tokenizer.huggingface.json"] = tokenizer.json  # it says that text may spell them
        if pre is None:
            pre = "llama-bpe" if model.get("ignore_merges") else NEAREST
            facts["tokenizer.huggingface.json"] = tokenizer.json
            notes.append(
                f'llama.cpp has no pre-tokenizer that cuts text as this tokenizer does; the nearest, "{pre}", is '
                "named, so that llama.cpp may split some words differently (contractions, long runs)"
            )
        facts |= {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.merges": [f"{left} {right}" for left, right in merges],
        }
    else:
        _refuse("the tokenizer works neither on bytes nor with bytes to fall back on")
    facts |= _roles(tokenizer, {token: id for id, token in enumerate(tokens)}, notes)
    return facts, tuple(notes)


def _tokens(document: dict[str, Any], vocabulary: int) -> tuple[list[str], list[int]]:
    """Tokens by id and their types."""
    model, added = document["model"], document.get("added_tokens") or []
    by_id = {id: token for token, id in model["vocab"].items()} | {entry["id"]: entry["content"] for entry in added}
    if max(by_id) >= vocabulary:
        _refuse(f"the tokenizer has ids up to {max(by_id):,}, the embedding {vocabulary:,} rows")
    tokens = [by_id.get(id, f"[PAD{id}]") for id in range(vocabulary)]
    types = [NORMAL if id in by_id else UNUSED for id in range(vocabulary)]
    if len(set(tokens)) != len(tokens):
        _refuse("the tokenizer has two ids for the same token, which llama.cpp cannot tell apart")
    if model.get("byte_fallback"):
        for id, token in enumerate(tokens):
            if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
                types[id] = BYTE
    for entry in added:
        types[entry["id"]] = CONTROL if entry.get("special") else USER_DEFINED
    unknown = model.get("unk_token")
    if unknown in model["vocab"]:
        types[model["vocab"][unknown]] = UNKNOWN
    return tokens, types


def _scores(tokens: list[str], merges: list[list[str]]) -> np.ndarray:
    """Scores by which SentencePiece merges in this order: the earlier a token is made, the higher."""
    ids = {token: id for id, token in enumerate(tokens)}
    scores = np.zeros(len(tokens), dtype=np.float32)
    for rank, (left, right) in reversed(list(enumerate(merges, start=1))):
        scores[ids[left + right]] = -float(rank)
    return scores


def _adds_space(document: dict[str, Any]) -> bool:
    cut = document.get("pre_tokenizer") or {}
    if cut.get("type") == "Metaspace":
        return bool(cut.get("prepend_scheme", "always") != "never")
    return '"Prepend"' in json.dumps(document.get("normalizer"))


def _roles(tokenizer: ForeignTokenizer, ids: dict[str, int], notes: list[str]) -> Metadata:
    named = {"bos": tokenizer.begin, "eot": tokenizer.ends[0], "eos": tokenizer.ends[-1], "padding": tokenizer.pad}
    if len(tokenizer.ends) > 2:
        named["eom"] = tokenizer.ends[1]
    if len(tokenizer.ends) > 3:
        notes.append(f"{len(tokenizer.ends)} tokens end a text, GGUF has room for three: others were left out")
    missing = sorted({token for token in named.values() if token is not None and token not in ids})
    if missing:
        _refuse(f"the tokenizer has no token {', '.join(printable(token, 40) for token in missing)}")
    facts: Metadata = {
        f"tokenizer.ggml.{name}_token_id": ids[token] for name, token in named.items() if token is not None
    }
    facts["tokenizer.ggml.add_bos_token"] = tokenizer.adds_begin
    if tokenizer.template is not None:
        facts["tokenizer.chat_template"] = tokenizer.template
    return facts


def _refuse(what: str) -> NoReturn:
    raise GroundupError(
        "E-FORMAT-036",
        f"this tokenizer cannot be written into a GGUF file: {what}",
        where="tokenizer.json",
        why="a file with another tokenizer would load in llama.cpp and answer nonsense",
        fix="export to Hugging Face's layout instead: groundup export MODEL --to huggingface --out DIR",
        exit_code=2,
    )
