"""How llama.cpp's named pre-tokenizers cut text, said in the steps of a tokenizer.json.

A GGUF file names its pre-tokenizer (`tokenizer.ggml.pre`) and leaves out what it does. The expressions are those of
the models' own tokenizer.json files, which llama.cpp's src/llama-vocab.cpp follows. Only tables and their reading here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_QWEN35 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASES = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*",
)
_CASED_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"{_CASES[0]}|{_CASES[1]}|\p{{N}}{_CASED_REST}"
_GPT4O = rf"{_CASES[0]}{_CONTRACTIONS}?|{_CASES[1]}{_CONTRACTIONS}?|\p{{N}}{{1,3}}{_CASED_REST}"


class Pre(NamedTuple):
    """A pre-tokenizer.

    Attributes:
        cuts: expressions by which text is cut, one after the other; what is between matches stays too.
        whole: a piece that is a token is taken without merging.
        adds_begin: whether text begins with a token where the file does not say.
        composes: text is brought into Unicode form NFC first.
    """

    cuts: tuple[str, ...]
    whole: bool = False
    adds_begin: bool = False
    composes: bool = False


_DIGITS_FIRST = Pre((_DIGIT, _GPT2))

PRES = {
    "gpt-2": Pre((_GPT2,)),
    "mpt": Pre((_GPT2,)),
    "olmo": Pre((_GPT2,)),
    "jais": Pre((_GPT2,)),
    "phi-2": Pre((_GPT2,)),
    "roberta-bpe": Pre((_GPT2,)),
    "smollm": _DIGITS_FIRST,
    "starcoder": _DIGITS_FIRST,
    "refact": _DIGITS_FIRST,
    "codeshell": _DIGITS_FIRST,
    "command-r": _DIGITS_FIRST,
    "exaone": _DIGITS_FIRST,
    "minerva-7b": _DIGITS_FIRST,
    "dbrx": Pre((_LLAMA3,)),
    "smaug-bpe": Pre((_LLAMA3,)),
    "llama-bpe": Pre((_LLAMA3,), whole=True, adds_begin=True),
    "llama3": Pre((_LLAMA3,), whole=True, adds_begin=True),
    "llama-v3": Pre((_LLAMA3,), whole=True, adds_begin=True),
    "falcon3": Pre((_LLAMA3,), whole=True, adds_begin=True),
    "pixtral": Pre((_LLAMA3,), whole=True, adds_begin=True),
    "qwen2": Pre((_QWEN2,), composes=True),
    "deepseek-r1-qwen": Pre((_QWEN2,), composes=True),
    "megrez": Pre((_QWEN2,), composes=True),
    "stablelm2": Pre((_QWEN2,), composes=True),
    "qwen35": Pre((_QWEN35,), composes=True),
    "tekken": Pre((_TEKKEN,), whole=True, adds_begin=True),
    "gpt-4o": Pre((_GPT4O,)),
    "llama4": Pre((_GPT4O,)),
}
"""By the names of `tokenizer.ggml.pre`; of several with the same content, writing uses the first."""

NEAREST = "dbrx"
"""What is named where no pre-tokenizer of llama.cpp cuts as a tokenizer does: words with the sign before them, up to
three digits, runs of signs, line ends, spaces; as GPT-4, and groundup's own tokenizers, nearly do."""


def pre_tokenizer(pre: Pre) -> dict[str, Any]:
    """The `pre_tokenizer` of a tokenizer.json: the cuts, then each byte as a character."""
    splits = [{"type": "Split", "pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False} for cut in pre.cuts]
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*splits, last]}


def find_pre(document: dict[str, Any]) -> str | None:
    """The name of the pre-tokenizer that a byte-level tokenizer.json has, or None if llama.cpp has no such one.

    Whether text is composed first (NFC) does not count: llama.cpp never does it.
    """
    cuts = _cuts(document.get("pre_tokenizer"))
    whole = bool(document["model"].get("ignore_merges", False))
    if cuts is None:
        return None
    return next((name for name, pre in PRES.items() if pre.cuts == cuts and pre.whole == whole), None)


def _cuts(step: Any) -> tuple[str, ...] | None:
    """The expressions of a pre-tokenizer that ends in bytes, or None for any other."""
    steps = step.get("pretokenizers") if isinstance(step, dict) and step.get("type") == "Sequence" else [step]
    found: list[str] = []
    for part in steps if isinstance(steps, list) else []:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "Digits" and part.get("individual_digits"):
            found.append(_DIGIT)
        elif kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
            pattern = part.get("pattern")
            found.append(str(pattern.get("Regex")) if isinstance(pattern, dict) else "")
        elif kind == "ByteLevel" and not part.get("add_prefix_space"):
            if part.get("use_regex", True):
                found.append(_GPT2)
        else:
            return None
    return tuple(found)
