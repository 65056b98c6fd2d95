"""The tokenizer in the metadata of a GGUF file, to and from a tokenizer.json.

Two kinds are known: "gpt2", byte-level byte-pair encoding with its merges, and "llama", SentencePiece's byte pairs,
where the score of a token says when it is merged. Texts and ids come from outside: lengths are bounded, ids looked up
only after they are checked, and control tokens never come from text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from groundup.errors import GroundupError, printable
from groundup.formats.foreign import ForeignTokenizer
from groundup.formats.gguf_pre import PRES, Pre, pre_tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens, `tokenizer.ggml.token_type`."""

SPACE = "▁"
"""SentencePiece's spelling of a space."""

LONGEST_PIECE = 256
"""Characters of a token that is looked at for merges; the longest of published vocabularies has 128."""

MAX_MERGED = 2**23
"""Characters of all merges that scores imply together; the largest published vocabulary comes to half of it."""

MAX_CHARACTERS = 2**22
"""Characters of all tokens together; each is a place where a token might be split."""

TURN_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eom_id|>")
"""Control tokens that end a chat turn wherever they occur; llama.cpp looks for them too where the file names none."""


def read_tokenizer(
    path: Path, metadata: Mapping[str, Any], vocabulary: int
) -> tuple[ForeignTokenizer | None, tuple[str, ...]]:
    """The tokenizer of a file, and sentences about what is odd in it. None where the file brings none.

    Args:
        path: of the file, for errors.
        metadata: all of it.
        vocabulary: rows of the embedding.
    Raises:
        GroundupError: E-FORMAT-035 a kind that is not known, or contents that contradict each other.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model in (None, "none", "no_vocab"):
        return None, ("the file brings no tokenizer",)
    tokens, types = _tokens(path, metadata, vocabulary)
    notes = [f"{vocabulary - len(tokens)} rows of the embedding have no token"] if len(tokens) < vocabulary else []
    adds_begin = False
    if model == "gpt2":
        pre = _pre(path, metadata.get("tokenizer.ggml.pre"))
        adds_begin = pre.adds_begin
        text = _complete(path, metadata, tokens) or _byte_level(path, metadata, pre, tokens, types)
    elif model == "llama":
        adds_begin = True
        scores = metadata.get("tokenizer.ggml.scores")
        if not isinstance(scores, np.ndarray) or len(scores) != len(tokens) or not np.isfinite(scores).all():
            _refuse(path, f"tokenizer.ggml.scores is not one finite number for each of the {len(tokens):,} tokens")
        prefix = _truth(path, metadata, "tokenizer.ggml.add_space_prefix", True)
        document = bpe_from_scores(tokens, scores.tolist(), types, add_space_prefix=prefix, where=path)
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    else:
        _refuse(path, f'its kind is "{printable(str(model), 40)}"; known are gpt2 and llama')
    others = sorted(key for key in metadata if key.startswith("tokenizer.chat_template."))
    if others:
        notes.append(f"further chat templates are left out: {printable(', '.join(others))}")
    return _with_roles(path, metadata, text, tokens, types, adds_begin), tuple(notes)


def bpe_from_scores(
    tokens: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    *,
    add_space_prefix: bool = True,
    where: Path = Path("tokenizer"),
) -> dict[str, Any]:
    """A tokenizer.json, parsed, that encodes as SentencePiece's byte-pair model does.

    SentencePiece joins the neighbours whose token has the highest score; a list of merges says the same when every
    way to make a token is sorted by its score (the rule of transformers' `generate_merges`).

    Args:
        tokens: by id, no two alike; spaces are spelled "▁", bytes "<0x0A>".
        scores: one per token, higher is merged earlier.
        types: one per token, of NORMAL … BYTE above. Only normal tokens are made by merging.
        add_space_prefix: text is encoded as if a space stood before it.
        where: the file, for errors.
    Raises:
        GroundupError: E-FORMAT-035 tokens that can be made of each other in far more ways than any vocabulary's.
    """
    ids = {token: id for id, token in enumerate(tokens)}
    normal = {token: id for token, id in ids.items() if types[id] == NORMAL}
    merged = 0
    merges: list[tuple[float, int, int, int, int, str, str]] = []
    for token, id in normal.items():
        if len(token) > LONGEST_PIECE:
            continue
        for cut in range(1, len(token)):
            left = normal.get(token[:cut])
            right = normal.get(token[cut:]) if left is not None else None
            if left is not None and right is not None:
                merged += len(token)
                merges.append((-scores[id], -cut, cut - len(token), id, left, token[:cut], token[cut:]))
        if merged > MAX_MERGED:
            _refuse(where, f"there are more than {len(merges):,} ways to make its tokens of each other")
    merges.sort(key=lambda merge: merge[:5])  # among equals longer parts first, then the order of ids
    unknown = next((token for token, id in ids.items() if types[id] == UNKNOWN), None)
    steps: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if add_space_prefix:
        steps.insert(0, {"type": "Prepend", "prepend": SPACE})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        **_frame(tokens, types),
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            **_bpe(ids, [[left, right] for *_, left, right in merges]),
            "unk_token": unknown,
            "fuse_unk": True,
            "byte_fallback": True,
        },
    }


def _byte_level(path: Path, metadata: Mapping[str, Any], pre: Pre, tokens: list[str], types: list[int]) -> str:
    ids = {token: id for id, token in enumerate(tokens)}
    merges = []
    lines = metadata.get("tokenizer.ggml.merges", ())
    for number, line in enumerate(lines if isinstance(lines, list) else ()):
        left, _, right = line[1:].partition(" ")
        left = line[:1] + left  # the first character may be a space itself
        if left not in ids or right not in ids or left + right not in ids:
            _refuse(path, f'merge {number:,}, "{printable(line, 60)}", joins what are no tokens, or makes none')
        merges.append([left, right])
    document = {
        **_frame(tokens, types),
        "normalizer": {"type": "NFC"} if pre.composes else None,
        "pre_tokenizer": pre_tokenizer(pre),
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {**_bpe(ids, merges), "ignore_merges": pre.whole},
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _complete(path: Path, metadata: Mapping[str, Any], tokens: list[str]) -> str | None:
    """The whole tokenizer.json, where the file brings it (the specification's `tokenizer.huggingface.json`): how it
    cuts text is exact there. Its tokens must be those of the rest of the metadata."""
    text = metadata.get("tokenizer.huggingface.json")
    if text is None:
        return None
    try:
        document: Any = json.loads(text) if isinstance(text, str) else None
        found = {id: token for token, id in document["model"]["vocab"].items()}
        found |= {entry["id"]: entry["content"] for entry in document["added_tokens"]}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        _refuse(path, "tokenizer.huggingface.json is not a tokenizer with vocabulary and added tokens")
    if any(found.get(id) != token for id, token in enumerate(tokens[: len(found)])) or len(found) > len(tokens):
        _refuse(path, "tokenizer.huggingface.json has other tokens than tokenizer.ggml.tokens")
    return str(text)


def _frame(tokens: Sequence[str], types: Sequence[int]) -> dict[str, Any]:
    """What all kinds share; control tokens are special, user-defined ones are found in text as they stand."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": id, "content": token, **flags, "special": types[id] != USER_DEFINED}
        for id, token in enumerate(tokens)
        if types[id] in (UNKNOWN, CONTROL, USER_DEFINED) and token
    ]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "post_processor": None}


def _bpe(ids: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": ids,
        "merges": merges,
    }


def _tokens(path: Path, metadata: Mapping[str, Any], vocabulary: int) -> tuple[list[str], list[int]]:
    tokens, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list) or not tokens:
        _refuse(path, "tokenizer.ggml.tokens is not a list of texts")
    if len(tokens) > vocabulary:
        _refuse(path, f"{len(tokens):,} tokens for an embedding of {vocabulary:,} rows")
    if len(set(tokens)) != len(tokens):
        seen: set[str] = set()
        twice = next(token for token in tokens if token in seen or seen.add(token))  # type: ignore[func-returns-value]
        _refuse(path, f'the token "{printable(twice, 60)}" has more than one id')
    if sum(map(len, tokens)) > MAX_CHARACTERS:
        _refuse(path, f"the tokens have more than {MAX_CHARACTERS:,} characters together")
    if types is None:
        return tokens, [NORMAL] * len(tokens)
    if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu" or len(types) != len(tokens):
        _refuse(path, f"tokenizer.ggml.token_type is not one whole number for each of the {len(tokens):,} tokens")
    return tokens, types.tolist()


def _pre(path: Path, name: Any) -> Pre:
    if not isinstance(name, str) or name not in PRES:
        shown = "not named" if name is None else f'"{printable(str(name), 40)}"'
        _refuse(path, f"its pre-tokenizer is {shown}; known are {', '.join(sorted(PRES))}")
    return PRES[name]


def _truth(path: Path, metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    value = metadata.get(key, default)
    if not isinstance(value, bool):
        _refuse(path, f"{key} is {printable(repr(value), 40)}, not true or false")
    return value


def _with_roles(
    path: Path, metadata: Mapping[str, Any], text: str, tokens: list[str], types: list[int], adds_begin: bool
) -> ForeignTokenizer:
    """Which tokens begin, end and fill."""

    def role(name: str) -> str | None:
        id = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if id is None or id in (-1, 2**32 - 1):  # how some converters say "none"
            return None
        if type(id) is not int or not 0 <= id < len(tokens):
            _refuse(path, f"tokenizer.ggml.{name}_token_id is {printable(repr(id), 40)}, of {len(tokens):,} tokens")
        return tokens[id]

    turn = role("eot")
    if turn is None:
        control = {token for token, kind in zip(tokens, types) if kind == CONTROL}
        turn = next((token for token in TURN_ENDS if token in control), None)
    ends = tuple(dict.fromkeys(token for token in (turn, role("eom"), role("eos")) if token is not None))
    if not ends:
        _refuse(path, "no token ends a text: neither eos_token_id nor eot_token_id is set")
    begin = role("bos")
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        _refuse(path, "tokenizer.chat_template is not a text")
    return ForeignTokenizer(
        json=text,
        begin=begin,
        ends=ends,
        pad=role("padding") or ends[-1],
        adds_begin=begin is not None and _truth(path, metadata, "tokenizer.ggml.add_bos_token", adds_begin),
        template=template,
    )


def _refuse(path: Path, what: str) -> NoReturn:
    raise GroundupError(
        "E-FORMAT-035",
        f"the tokenizer of the file cannot be used: {what}",
        where=printable(str(path)),
        why="ids only mean something with the very tokenizer they were made with, so nothing is guessed",
        fix="import the model from its Hugging Face folder, which brings tokenizer.json itself,\n"
        "or convert it again with today's convert_hf_to_gguf.py",
        exit_code=2,
    )
