"""The tokenizer.json of this project: what it looks like for each kind, and the check of one from outside.

All kinds share one plan, so that one rule holds for all of them: text is cut into bounded pieces by a
regular expression, each piece is spelled in the byte alphabet, and the model finds tokens inside a piece.
Every single byte is a token, therefore nothing is ever unknown and every text comes back exactly. The
check is strict, because a tokenizer that normalises, truncates or adds tokens changes the user's text in
silence. Training does not enter this file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from groundup.errors import GroundupError, printable
from groundup.text.alphabet import CHARACTER_OF_BYTE
from groundup.text.options import MASK, SPECIALS

_IDEOGRAPHS = r"\p{Han}\p{Hiragana}\p{Katakana}"
_LETTER = rf"[\p{{L}}\p{{M}}&&[^{_IDEOGRAPHS}]]"

WORDS = "|".join(
    [
        rf"[{_IDEOGRAPHS}]{{1,16}}",
        rf"[^\r\n\p{{L}}\p{{N}}\p{{M}}]?{_LETTER}{{1,32}}(?:'(?i:s|t|re|ve|m|ll|d)(?!{_LETTER}))?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]{1,16}[\r\n]{0,16}",
        r"\s{0,32}[\r\n]{1,32}",
        r"\s{1,32}(?!\S)",
        r"\s{1,32}",
    ]
)
"""How text is cut before tokens are found in it: as GPT-4 does it (tiktoken, cl100k_base), with contractions
kept at their word, writing without spaces apart from writing with them, numbers in groups of up to three
digits, and each run bounded, so that time stays linear in a text without a single space."""

CHARACTERS = r"[\x00-\x7f&&[^<]]{1,64}|[\s\S]"
"""Single characters, except that runs of ASCII stay together: their bytes are characters already. The `<`
stands alone so that no run can spell a special token."""

BYTES = r"[\s\S]{1,256}"

CONTINUED = "‿"
"""What marks a WordPiece token inside a word. The usual `##` may also be what a text says."""

LARGEST_FILE = 256 * 2**20


def document(model: dict[str, Any], pattern: str) -> dict[str, Any]:
    """The content of a tokenizer.json around a trained model, whose first ids are `SPECIALS`."""
    decoders: list[dict[str, Any]] = [{"type": "ByteLevel"} | _BYTE_LEVEL]
    if model["type"] == "WordPiece":
        decoders.insert(0, {"type": "Replace", "pattern": {"String": CONTINUED}, "content": ""})
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, "content": name} | _FLAGS for id, name in enumerate(SPECIALS)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split, {"type": "ByteLevel"} | _BYTE_LEVEL],
        },
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }


def add_mask(found: dict[str, Any]) -> dict[str, Any]:
    """The content of a tokenizer.json with the mask token behind all others."""
    return add_tokens(found, [], [MASK])


def add_tokens(found: dict[str, Any], words: Sequence[str], controls: Sequence[str]) -> dict[str, Any]:
    """The content of a tokenizer.json with words and then controls behind all others.

    Every added token gets a place in the model as well: there its id is certain, whoever reads the file.
    """
    model, added = dict(found["model"]), list(found.get("added_tokens") or [])
    held = model["vocab"] if model["type"] != "Unigram" else [piece for piece, _ in model["vocab"]]
    names = set(held)
    missing = sorted((e for e in added if e["content"] not in names), key=lambda entry: entry["id"])
    first = len(names) + len(missing)
    flags = [_FLAGS | WORD for _ in words] + [_FLAGS for _ in controls]
    new = [{"id": first + n, "content": name} | flags[n] for n, name in enumerate([*words, *controls])]
    ids = {entry["content"]: entry["id"] for entry in [*missing, *new]}
    if model["type"] == "Unigram":
        lowest = min(score for _, score in model["vocab"])
        model["vocab"] = [*model["vocab"], *([name, lowest] for name in ids)]
    else:
        model["vocab"] = {**model["vocab"], **ids}
    return {**found, "model": model, "added_tokens": [*added, *new]}


WORD = {"special": False, "word": True}
"""What marks an added token that is ordinary text. Others read the first; the second tells it from the tokens of
models that are not called special and yet are commands to the model, such as `<think>`."""


def is_word(entry: dict[str, Any]) -> bool:
    """Whether an added token is one that any text may spell; one that takes the spaces beside it would lose them."""
    eats = entry.get("lstrip") or entry.get("rstrip")
    return entry.get("word") is True and entry.get("special") is False and not eats


_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
_BYTE_LEVEL = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def bpe_model(vocabulary: dict[str, int], merges: list[list[str]], *, whole: bool = False) -> dict[str, Any]:
    """A byte-pair model; with `whole`, a piece that is itself a token is taken without looking for merges."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": whole,
        "vocab": vocabulary,
        "merges": merges,
    }


def wordpiece_model(vocabulary: dict[str, int]) -> dict[str, Any]:
    """A WordPiece model. Its unknown token has no id and needs none, because every byte has one."""
    return {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": CONTINUED,
        "max_input_chars_per_word": 4 * 256,
        "vocab": vocabulary,
    }


def unigram_model(pieces: list[list[Any]]) -> dict[str, Any]:
    """A unigram model: pieces in the order of their ids, with log-probabilities in nats."""
    return {"type": "Unigram", "unk_id": None, "vocab": pieces, "byte_fallback": False}


def parse(text: str, where: str) -> tuple[dict[str, Any], list[str]]:
    """Read and check a tokenizer.json.

    Args:
        text: the content of the file.
        where: its name, for errors.
    Returns:
        the parsed document and its tokens in the order of their ids.
    Raises:
        GroundupError: E-TOKEN-006 with what is wrong.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise malformed(where, f"not JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise malformed(where, "it has no model")
    for name in ("normalizer", "truncation", "padding", "post_processor"):
        if found.get(name) is not None:
            raise malformed(where, f"{name} is set: it would change the text or the ids in silence")
    _check_cut(found.get("pre_tokenizer"), where)
    tokens = _tokens(found["model"], where)
    _check_specials(found.get("added_tokens"), tokens, where)
    known = set(tokens)
    bare = found["model"].get("type") != "WordPiece"
    for prefix in ("",) if bare else ("", found["model"].get("continuing_subword_prefix")):
        missing = [byte for byte, spelled in enumerate(CHARACTER_OF_BYTE) if f"{prefix}{spelled}" not in known]
        if missing:
            raise malformed(where, f"{len(missing)} of 256 bytes have no token, first 0x{missing[0]:02x}")
    return found, tokens


def malformed(where: str, what: str, fix: str = "") -> GroundupError:
    """The error for a tokenizer.json that cannot be used; `fix` where it is not one of groundup's own."""
    return GroundupError(
        code="E-TOKEN-006",
        what=f"this is not a tokenizer that can be used here: {printable(what)}",
        where=printable(where),
        why="ids only mean something with the very tokenizer they were made with, so nothing is guessed",
        fix=fix
        or "groundup tokenizer train --files … --vocab N --out DIR   (makes a new one)\n"
        "or copy tokenizer.json again from the run that it belongs to",
    )


def _check_cut(cut: Any, where: str) -> None:
    """A pre-tokenizer that keeps every byte: isolating splits, then bytes."""
    steps = cut.get("pretokenizers") if isinstance(cut, dict) else None
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise malformed(where, "pre_tokenizer is not a sequence of steps")
    *splits, last = steps
    for split in splits:
        if split.get("type") != "Split" or split.get("behavior") != "Isolated":
            raise malformed(where, f"the pre_tokenizer step {split.get('type')!r} may lose text")
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") or last.get("use_regex"):
        raise malformed(where, "the last step of pre_tokenizer is not a plain ByteLevel")


def _tokens(model: dict[str, Any], where: str) -> list[str]:
    """The model's tokens by id; ids must run from 0 without a hole."""
    kind, vocabulary = model.get("type"), model.get("vocab")
    if kind == "Unigram":
        if not isinstance(vocabulary, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in vocabulary
        ):
            raise malformed(where, "model.vocab is not a list of [piece, score]")
        tokens = [pair[0] for pair in vocabulary]
        if len(set(tokens)) != len(tokens):
            raise malformed(where, "model.vocab names a piece twice")
        return tokens
    if kind not in ("BPE", "WordPiece"):
        raise malformed(where, f"model.type {kind!r} is none of BPE, WordPiece, Unigram")
    if not isinstance(vocabulary, dict) or not all(type(id) is int for id in vocabulary.values()):
        raise malformed(where, "model.vocab does not map tokens to whole numbers")
    if model.get("dropout"):
        raise malformed(where, "model.dropout is set: encoding would not be repeatable")
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
        raise malformed(where, f"the {len(tokens)} ids of model.vocab do not run from 0 without a hole")
    return tokens


def _check_specials(added: Any, tokens: list[str], where: str) -> None:
    if not isinstance(added, list) or not all(isinstance(entry, dict) for entry in added):
        raise malformed(where, "added_tokens is not a list")
    for entry in added:
        id, content = entry.get("id"), entry.get("content")
        if type(id) is not int or not 0 <= id < len(tokens) or tokens[id] != content:
            raise malformed(where, f"added token {content!r} with id {id!r} is not in model.vocab")
        if entry.get("special") is not True and not is_word(entry):
            raise malformed(where, f"added token {content!r} is not special: user text could spell it")
    names = [entry["content"] for entry in added]
    missing = [name for name in SPECIALS if name not in names]
    if missing:
        raise malformed(where, f"special tokens are missing: {' '.join(missing)}")
