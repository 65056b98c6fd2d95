"""What a tokenizer does to a text: how many tokens it takes in each script, which are never used, whether
every text comes back, and what in the text looks like a special token.

Numbers only, and a plain rendering of them for the terminal; nothing here changes a tokenizer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from groundup.errors import GroundupError, printable
from groundup.text.tokenizer import Tokenizer

SPECIAL_LOOKING = re.compile(r"<\|[A-Za-z0-9_ ]{1,40}\|>|\[(?:INST|/INST|PAD|CLS|SEP|MASK|UNK)\]|</?s>|<(?:pad|unk)>")
IDEOGRAPHIC = ("Han", "Hiragana", "Katakana", "Hangul")
SCRIPTS = {
    "LATIN": "Latin",
    "CJK": "Han",
    "IDEOGRAPHIC": "Han",
    "HIRAGANA": "Hiragana",
    "KATAKANA": "Katakana",
    "HANGUL": "Hangul",
    "CYRILLIC": "Cyrillic",
    "GREEK": "Greek",
    "ARABIC": "Arabic",
    "HEBREW": "Hebrew",
    "DEVANAGARI": "Devanagari",
    "THAI": "Thai",
}
EXAMPLES = 10


def inspect(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Measure a tokenizer on texts, read once.

    Returns:
        a dictionary fit for JSON: `kind`, `vocabulary`, `digest`, `documents`, `bytes`, `characters`,
        `tokens`; `tokens_per_byte`, `tokens_per_character` (0 without text); `scripts`: for each script its words,
        characters, bytes, tokens and tokens_per_word (a word is a run of one script; every Chinese character
        counts as one), each run encoded by itself; `unused`: count and examples of ids that the texts never use;
        `longest`: the longest tokens with their bytes; `round_trip_failures`: document and character of each
        text that does not come back; `special_looking`: strings that look like special tokens, with counts.
    """
    used: Counter[int] = Counter()
    words: dict[str, Counter[str]] = {}
    special: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    documents = characters = size = 0
    for text in texts:
        documents += 1
        try:
            ids = tokenizer.encode(text)
        except GroundupError as error:
            failures.append({"document": documents, "character": None, "reason": error.what})
            continue
        used.update(ids)
        characters += len(text)
        size += len(text.encode("utf-8"))
        if (back := tokenizer.decode(ids)) != text:
            failures.append({"document": documents, "character": _first_difference(text, back), "reason": ""})
        special.update(SPECIAL_LOOKING.findall(text))
        for script, word in runs(text):
            words.setdefault(script, Counter())[word] += 1
    tokens = used.total()
    return {
        "kind": tokenizer.kind,
        "vocabulary": tokenizer.vocabulary,
        "digest": tokenizer.digest,
        "documents": documents,
        "bytes": size,
        "characters": characters,
        "tokens": tokens,
        "tokens_per_byte": tokens / max(1, size),
        "tokens_per_character": tokens / max(1, characters),
        "scripts": {script: _script(tokenizer, words[script]) for script in sorted(words)},
        "unused": _unused(tokenizer, used),
        "longest": _longest(tokenizer),
        "round_trip_failures": failures,
        "special_looking": dict(sorted(special.items())),
    }


def runs(text: str) -> list[tuple[str, str]]:
    """Cut a text into (script, word): runs of one script, ideographs one by one, white space left out."""
    found: list[tuple[str, str]] = []
    word, script = "", ""
    for character in text:
        own = script_of(character)
        if own == "mark" and word:
            own = script
        if own != script or own in IDEOGRAPHIC[:1]:
            if word and script != "space":
                found.append((script, word))
            word, script = "", own
        word += character
    if word and script != "space":
        found.append((script, word))
    return found


@lru_cache(maxsize=1 << 16)
def script_of(character: str) -> str:
    """A coarse script: a name of `SCRIPTS`, digits, space, mark, punctuation, symbols or other."""
    if character.isspace():
        return "space"
    category = unicodedata.category(character)
    if category[0] == "N":
        return "digits"
    if category[0] == "M":
        return "mark"
    if category[0] == "L":
        return SCRIPTS.get(unicodedata.name(character, "").split(" ")[0].split("-")[0], "other")
    return {"P": "punctuation", "S": "symbols"}.get(category[0], "other")


def _script(tokenizer: Tokenizer, words: Counter[str]) -> dict[str, Any]:
    distinct = sorted(words)
    tokens = sum(words[word] * len(ids) for word, ids in zip(distinct, tokenizer.encode_batch(distinct), strict=True))
    return {
        "words": words.total(),
        "characters": sum(len(word) * count for word, count in words.items()),
        "bytes": sum(len(word.encode("utf-8")) * count for word, count in words.items()),
        "tokens": tokens,
        "tokens_per_word": tokens / words.total(),
    }


def _unused(tokenizer: Tokenizer, used: Counter[int]) -> dict[str, Any]:
    specials = set(tokenizer.specials.values())
    unused = [id for id in range(tokenizer.vocabulary) if id not in used and id not in specials]
    learned = [id for id in unused if len(tokenizer.token_bytes(id)) > 1]
    return {
        "count": len(unused),
        "single_bytes": len(unused) - len(learned),
        "examples": [{"id": id, "token": _shown(tokenizer, id)} for id in learned[:EXAMPLES]],
    }


def _longest(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    specials = set(tokenizer.specials.values())
    ids = [id for id in range(tokenizer.vocabulary) if id not in specials]
    ids.sort(key=lambda id: (-len(tokenizer.token_bytes(id)), id))
    return [
        {"id": id, "bytes": len(tokenizer.token_bytes(id)), "token": _shown(tokenizer, id)} for id in ids[:EXAMPLES]
    ]


def _shown(tokenizer: Tokenizer, id: int) -> str:
    return tokenizer.token_bytes(id).decode("utf-8", errors="backslashreplace")


def _first_difference(text: str, back: str) -> int:
    pairs = enumerate(zip(text, back))
    return next((place for place, (a, b) in pairs if a != b), min(len(text), len(back)))


def describe(found: dict[str, Any]) -> str:
    """What `inspect` found, as lines for a terminal."""
    lines = [
        f"{found['kind']} tokenizer, {found['vocabulary']} tokens, digest {found['digest'][:12]}",
        f"{found['documents']} documents, {found['bytes']} bytes, {found['characters']} characters, "
        f"{found['tokens']} tokens",
        f"tokens per byte {found['tokens_per_byte']:.4f}, per character {found['tokens_per_character']:.4f}",
        "",
        f"{'script':12} {'words':>10} {'bytes':>10} {'tokens':>10} {'per word':>9} {'per byte':>9}",
    ]
    for script, row in found["scripts"].items():
        lines.append(
            f"{script:12} {row['words']:>10} {row['bytes']:>10} {row['tokens']:>10} "
            f"{row['tokens_per_word']:>9.3f} {row['tokens'] / row['bytes']:>9.3f}"
        )
    unused = found["unused"]
    lines += ["", f"unused ids: {unused['count']}, of which {unused['single_bytes']} are single bytes"]
    lines += [f"  {row['id']:>7}  {printable(row['token'], 60)!r}" for row in unused["examples"]]
    lines += ["longest tokens:"]
    lines += [f"  {row['id']:>7}  {printable(row['token'], 60)!r}" for row in found["longest"]]
    failures = found["round_trip_failures"]
    lines.append(f"texts that do not come back exactly: {len(failures)}")
    lines += [
        f"  document {row['document']}, character {row['character']} {row['reason']}" for row in failures[:EXAMPLES]
    ]
    if found["special_looking"]:
        lines.append("text that looks like special tokens (it is encoded as plain text):")
        for text, count in found["special_looking"].items():
            lines.append(f"  {count:>7}  {printable(text, 60)}")
    return "\n".join(lines)
