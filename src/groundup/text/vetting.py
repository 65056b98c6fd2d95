"""The check of a tokenizer.json from elsewhere, whatever its kind, and the form of it that reads plain text.

Unlike `layout`, which knows groundup's own files, this accepts any normalizer, cut and model that the known
families use, because a model only understands the ids that its own tokenizer gives. What is refused is what
could loop, take memory without bound, crash the library, or make encoding depend on chance. Nothing is
encoded here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from groundup.errors import GroundupError
from groundup.text.alphabet import BYTE_OF_CHARACTER, unspell
from groundup.text.layout import is_word, malformed
from groundup.text.options import LARGEST_VOCABULARY
from groundup.text.patterns import Refused, check_regex

LARGEST_FOREIGN_FILE = 64 * 2**20  # bytes; the largest known, of models in two hundred languages, have half of it
LONGEST_NAME = 1000  # characters of a token
LONGEST_INSERT = 8  # characters that a normalizer may put in place of others
MOST_INSERTS = 8  # steps that may do so: their effects multiply
MOST_STEPS = 64
LONGEST_WORD = 1024  # characters of a word that WordPiece searches

NORMALIZERS = frozenset(
    ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Prepend", "Replace", "Strip", "StripAccents")
)
CUTS = frozenset(
    (
        *("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation", "Split"),
        *("UnicodeScripts", "Whitespace", "WhitespaceSplit"),
    )
)
DECODERS = frozenset(("BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"))
_PARTS = (("normalizer", "normalizers", NORMALIZERS), ("pre_tokenizer", "pretokenizers", CUTS))
_BYTE = re.compile("<0x[0-9A-F]{2}>")


class Vetted(NamedTuple):
    """A tokenizer.json that may be used.

    Attributes:
        found: all that it says.
        document: what of it makes ids and text; without cutting off, padding and added begins and ends.
        tokens: every token in the order of the ids, added ones included.
        controls: added tokens by name: those that text is not to spell.
        spaces: added tokens that are runs of white space: ordinary text, whoever writes it.
        words: added tokens that are marked as ordinary text, see `layout.WORD`.
    """

    found: dict[str, Any]
    document: dict[str, Any]
    tokens: list[str]
    controls: dict[str, int]
    spaces: dict[str, int]
    words: dict[str, int]

    @property
    def plain(self) -> dict[str, int]:
        """The added tokens that text may spell."""
        return self.spaces | self.words


def vet(text: str, roles: tuple[str, ...], where: str) -> Vetted:
    """Read and check a tokenizer.json.

    Args:
        text: the content of the file.
        roles: names of the tokens that the model's settings give a role; each is a control, declared or not.
        where: the file's name, for errors.
    Raises:
        GroundupError: E-TOKEN-006 with what is wrong.
    """
    if len(text) > LARGEST_FOREIGN_FILE:
        raise unusable(where, f"{len(text)} characters, at most {LARGEST_FOREIGN_FILE} are read")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unusable(where, f"not JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise unusable(where, "it has no model")
    try:
        for part, steps, known in (*_PARTS, ("decoder", "decoders", DECODERS)):
            _check_steps(list(walk(found.get(part), steps)), part, known)
        ids = _model_ids(found["model"])
        _check_model(found["model"], ids, [step["type"] for step in walk(found.get("pre_tokenizer"), "pretokenizers")])
        added = _added(found.get("added_tokens", []), ids, roles)
        tokens = _in_order(ids | {entry["content"]: entry["id"] for entry in added})
        "".join(tokens).encode("utf-8")  # half of a surrogate pair is no text
    except (_Fault, UnicodeEncodeError) as fault:
        raise unusable(where, str(fault)) from fault
    names = ("normalizer", "pre_tokenizer", "decoder", "model")
    document = {"version": "1.0"} | {name: found.get(name) for name in names} | {"added_tokens": added}
    spaces = {e["content"]: e["id"] for e in added if e["content"].isspace() and not e["special"]}
    words = {e["content"]: e["id"] for e in added if is_word(e) and e["content"] not in roles}
    controls = {e["content"]: e["id"] for e in added if e["content"] not in spaces | words}
    return Vetted(found, document, tokens, controls, spaces, words)


def unusable(where: str, what: str) -> GroundupError:
    """The error for a tokenizer.json from elsewhere that is not used."""
    return malformed(
        where,
        what,
        "copy tokenizer.json again from where the model comes from\n"
        "or take a model whose tokenizer is a BPE, WordPiece or unigram model of the usual kinds",
    )


def plain_document(vetted: Vetted) -> dict[str, Any]:
    """The same tokenizer for text in which no control token is recognised.

    It is not enough to declare no added token: a model may hold the name of a control as a token that its own
    search finds (a unigram piece, a word of WordPiece). So the names leave the model, ids staying in place.
    A single character stays, for the alphabet may need it, and so does the unknown token.
    """
    model = dict(vetted.document["model"])
    names = {name for name in vetted.controls if len(name) > 1}
    if model["type"] == "Unigram":
        model["vocab"] = _without_pieces(model["vocab"], names, model.get("unk_id"))
    else:
        if model["type"] == "BPE":
            model["merges"] = [merge for merge in model["merges"] if not _names(merge, names)]
        kept = {
            token: id for token, id in model["vocab"].items() if token not in names or token == model.get("unk_token")
        }
        model["vocab"] = kept | vetted.plain
    added = [entry for entry in vetted.document["added_tokens"] if entry["content"] in vetted.plain]
    return vetted.document | {"added_tokens": added, "model": model}


def spelling(vetted: Vetted) -> tuple[Callable[[str], bytes] | None, bool]:
    """How tokens spell bytes, where the decoder is one that does so token by token.

    Returns:
        the bytes of a token, or None where text cannot be put together from bytes; and whether one space at
        the beginning of a text is dropped.
    """
    steps = list(walk(vetted.document["decoder"], "decoders"))
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return lambda token: unspell(token) or token.encode("utf-8"), False
    drops = kinds[-1:] == ["Strip"]
    if kinds[: len(kinds) - drops] != ["Replace", "ByteFallback", "Fuse"] or "String" not in steps[0]["pattern"]:
        return None, False
    if drops and (steps[-1]["content"], steps[-1]["start"]) != (" ", 1):
        return None, False
    old, new = steps[0]["pattern"]["String"], steps[0]["content"]

    def fall_back(token: str) -> bytes:
        return bytes([int(token[3:5], 16)]) if _BYTE.fullmatch(token) else token.replace(old, new).encode("utf-8")

    return fall_back, drops


class _Fault(ValueError):
    """What is wrong with the file."""


def walk(part: Any, inner: str, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The steps of a part, those of sequences within sequences included, in order."""
    if part is None:
        return
    if not isinstance(part, dict) or not isinstance(part.get("type"), str) or depth > MOST_STEPS:
        raise _Fault(f"a step of {inner} has no type, or too many steps around it")
    if part["type"] != "Sequence":
        yield part
        return
    if not isinstance(part.get(inner), list):
        raise _Fault(f"a sequence has no list of {inner}")
    for step in part[inner]:
        yield from walk(step, inner, depth + 1)


def _check_steps(steps: list[dict[str, Any]], part: str, known: frozenset[str]) -> None:
    if len(steps) > MOST_STEPS:
        raise _Fault(f"{part} has {len(steps)} steps, at most {MOST_STEPS} are run")
    inserts = 0
    for step in steps:
        kind = step["type"]
        if kind not in known:
            raise _Fault(f"the step {kind!r} of {part} is none of {', '.join(sorted(known))}")
        if kind in ("Replace", "Split"):
            _check_pattern(step.get("pattern"), part)
        if kind in ("Replace", "Prepend"):
            put = step.get("content" if kind == "Replace" else "prepend")
            if not isinstance(put, str) or len(put) > LONGEST_INSERT:
                raise _Fault(f"a {kind} of {part} puts in more than {LONGEST_INSERT} characters")
            inserts += len(put) > 1
        if kind == "Strip" and part == "decoder" and not (step.get("start") in (0, 1) and step.get("stop") == 0):
            raise _Fault("a Strip of the decoder takes more than one character from the beginning")
    if inserts > MOST_INSERTS:
        raise _Fault(f"{inserts} steps of {part} lengthen the text, at most {MOST_INSERTS} may")


def _check_pattern(pattern: Any, part: str) -> None:
    if not isinstance(pattern, dict) or len(pattern) != 1:
        raise _Fault(f"a pattern of {part} is neither String nor Regex")
    [(kind, value)] = pattern.items()
    if kind not in ("String", "Regex") or not isinstance(value, str) or not value:
        raise _Fault(f"a pattern of {part} is neither String nor Regex")
    if kind == "Regex":
        try:
            check_regex(value)
        except Refused as error:
            raise _Fault(f"the regular expression of {part} could run without end: {error}") from error


def _model_ids(model: dict[str, Any]) -> dict[str, int]:
    kind, vocabulary = model.get("type"), model.get("vocab")
    if kind == "Unigram":
        if not isinstance(vocabulary, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in vocabulary
        ):
            raise _Fault("model.vocab is not a list of [piece, score]")
        ids = {pair[0]: id for id, pair in enumerate(vocabulary)}
        if len(ids) != len(vocabulary):
            raise _Fault("model.vocab names a piece twice")
        return ids
    if kind not in ("BPE", "WordPiece"):
        raise _Fault(f"model.type {kind!r} is none of BPE, WordPiece, Unigram")
    if not isinstance(vocabulary, dict) or not all(type(id) is int for id in vocabulary.values()):
        raise _Fault("model.vocab does not map tokens to whole numbers")
    return vocabulary


def _check_model(model: dict[str, Any], ids: dict[str, int], cuts: list[str]) -> None:
    """What the library would only find out, by an exception or a crash, in the midst of a text."""
    if model.get("dropout"):
        raise _Fault("model.dropout is set: encoding would not be repeatable")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if not isinstance(model.get(name) or "", str) or len(model.get(name) or "") > LONGEST_INSERT:
            raise _Fault(f"model.{name} is not a text of at most {LONGEST_INSERT} characters")
    if model["type"] == "Unigram":
        unknown = model.get("unk_id")
        whole = cuts[-1:] == ["ByteLevel"] and all(character in ids for character in BYTE_OF_CHARACTER)
        if not (type(unknown) is int and 0 <= unknown < len(ids)) and not (unknown is None and whole):
            raise _Fault(f"model.unk_id {unknown!r} is not the id of a piece")
        return
    unknown = model.get("unk_token")
    if not (isinstance(unknown, str) and unknown in ids) and (unknown is not None or model["type"] == "WordPiece"):
        raise _Fault(f"model.unk_token {unknown!r} is not in model.vocab")
    longest = model.get("max_input_chars_per_word", 100)
    if model["type"] == "WordPiece" and (type(longest) is not int or not 0 < longest <= LONGEST_WORD):
        raise _Fault(f"model.max_input_chars_per_word is {longest!r}, legal is 1 to {LONGEST_WORD}")
    if model["type"] == "BPE":
        if not isinstance(model.get("merges"), list):
            raise _Fault("model.merges is not a list")
        prefix = model.get("continuing_subword_prefix") or ""
        if prefix and not all(_second(merge).startswith(prefix) for merge in model["merges"]):
            raise _Fault(f"a merge joins what does not continue a word: it lacks {prefix!r}")


def _added(found: Any, ids: dict[str, int], roles: tuple[str, ...]) -> list[dict[str, Any]]:
    """The added tokens, those that have a role without being declared included; checked against the model's."""
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise _Fault("added_tokens is not a list of objects")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    declared = {entry["content"] for entry in found if isinstance(entry.get("content"), str)}
    undeclared = [{"id": ids[name], "content": name} for name in dict.fromkeys(roles) if name in ids]
    added = [flags | entry for entry in [*found, *(e for e in undeclared if e["content"] not in declared)]]
    names = set()
    for entry in added:
        id, name = entry.get("id"), entry.get("content")
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or name in names:
            raise _Fault(f"an added token has no name, a name of over {LONGEST_NAME} characters, or another's name")
        if type(id) is not int or id < 0 or ids.get(name, id) != id:
            raise _Fault(f"added token {name!r} has the id {id!r}, in model.vocab {ids.get(name)!r}")
        if not all(isinstance(entry[flag], bool) for flag in flags):
            raise _Fault(f"a flag of the added token {name!r} is not true or false")
        names.add(name)
    if missing := [name for name in roles if name not in names]:
        raise _Fault(f"it has no token {', '.join(map(repr, missing))}, which the model's settings name")
    return sorted(added, key=lambda entry: entry["id"])  # the library gives new ids in this order


def _in_order(ids: dict[str, int]) -> list[str]:
    if not 0 < len(ids) <= LARGEST_VOCABULARY:
        raise _Fault(f"it has {len(ids)} tokens, legal is 1 to {LARGEST_VOCABULARY}")
    tokens = sorted(ids, key=lambda token: ids[token])
    for place, token in enumerate(tokens):
        if ids[token] != place:
            raise _Fault(
                f"its {len(ids)} ids do not run from 0 without a hole or a repetition: {token!r} is {ids[token]}"
            )
        if len(token) > LONGEST_NAME:
            raise _Fault(f"a token has {len(token)} characters, at most {LONGEST_NAME} are read")
    return tokens


def _second(merge: Any) -> str:
    """The right part of a merge; empty where it has none."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    return parts[1] if isinstance(parts, list) and len(parts) > 1 and isinstance(parts[1], str) else ""


def _names(merge: Any, names: set[str]) -> bool:
    """Whether a merge takes or makes one of the names; what is not a merge is left to the library to refuse."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    try:
        return parts[0] in names or parts[1] in names or "".join(parts) in names
    except (TypeError, LookupError):
        return False


def _without_pieces(pieces: list[list[Any]], names: set[str], unknown: int | None) -> list[list[Any]]:
    """Unigram pieces without some names, each other piece at its id.

    A piece's id is its place, so a name cannot be taken out; it becomes a copy of an ordinary piece behind
    it. Of two equal pieces the library takes the one behind.
    """
    kept: list[list[Any]] = []
    ordinary: list[Any] | None = None
    for id in range(len(pieces) - 1, -1, -1):
        if pieces[id][0] not in names or id == unknown:
            ordinary = pieces[id]
        if ordinary is not None:
            kept.append(pieces[id] if pieces[id] is ordinary else ordinary)
    return kept[::-1]
