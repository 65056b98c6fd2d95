"""Questions and answers about the standard library, made from its docstrings, to fine-tune a model on.

Each documented thing gives several questions in several wordings; the answers are the first sentence of
its docstring, its signature, its name or its module. This file writes rows of messages and knows nothing
of templates, tokens or training.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup.data.python_docs import Entry, entries, held_out_module, write_rows
from groundup.data.sides import is_held_out

Row = dict[str, Any]

LONGEST_ANSWER = 300
"""Characters of the longest answer; a docstring's second sentence is added only well below it."""

LONGEST_SIGNATURE = 64
SHORTEST_SUMMARY = 16

WHAT = (
    "What does `{name}` do?",
    "Explain `{name}`.",
    "What is `{name}` for?",
    "Describe the {kind} `{name}` in a sentence.",
    "I found `{name}` in some code. What is it?",
    "Tell me about `{name}`.",
)
CALL = (
    "How do I call `{name}`?",
    "Which arguments does `{name}` take?",
    "What is the signature of `{name}`?",
)
REVERSED = (
    "Which {kind} of Python's standard library does this: {summary}",
    "{summary} What is that {kind} called?",
)
MODULE = (
    "In which module is `{last}`?",
    "Where in the standard library do I find `{last}`?",
)
FOLLOW_UP = "And how do I call it?"

RUBBISH = re.compile(
    r">>>|:param|@param|\bXXX\b|\bTODO\b|\bFIXME\b|^[A-Z]\.\w+\(|^exception \w+$"
    r"|^(See|Same|Like|Alias|Ditto|As above|Override[sn]?|Overridden|Internal|Deprecated|Undocumented"
    r"|Inherited|Not (implemented|documented|supported)|Initiali[sz]e self|Constructor|Return self|Helper for"
    r"|Abstract|Create and return a new object|Interface for|Subclass|This method)",
)
"""Sentences that say nothing by themselves, or that quote code."""

SIGNATURE_LINE = re.compile(r"^[\w.]+\(.*?\)?(\s*(->|--|=>|:|—).*)?$")
BESIDE_SIGNATURE = re.compile(r"\)(?: -- |: | -> [\w ]+\.\s+)(\w.*)$")
"""The description that follows a signature on its line: `fabs(x) -- the absolute value`."""
ABBREVIATION = re.compile(r"(\b(e\.g|i\.e|etc|vs|cf|resp|approx|incl|Inc|No|Jan)|\.\.)\.$")


def questions(*, seed: int = 0, stdlib: Path | None = None) -> list[Row]:
    """Rows of messages about the documented functions, methods, classes and modules.

    Each row has `messages`, `function` (the full name), `module`, `phrasing` (the number of the wording)
    and `split`, which is `"held_out"` for a tenth of the functions and for every function of a held-out
    module, else `"train"`: all wordings of a function stand on one side.

    Args:
        seed: which of the wordings each function is given.
        stdlib: the folder of the standard library; by default that of the running Python.
    """
    rows: list[Row] = []
    documented = entries(stdlib)
    homes = Counter(entry.name.rpartition(".")[2] for entry in documented)
    answered: set[str] = set()
    for entry in documented:
        answer = summary(entry)
        # one answer belongs to one function: copies would answer held-out questions from training rows
        if not answer or answer in answered:
            continue
        answered.add(answer)
        held_out = held_out_module(entry.module) or is_held_out(entry.full_name)
        for phrasing, turns in _conversations(entry, answer, homes, seed):
            rows.append(
                {
                    "messages": [
                        {"role": role, "content": content}
                        for turn in turns
                        for role, content in zip(("user", "assistant"), turn)
                    ],
                    "function": entry.full_name,
                    "module": entry.module,
                    "phrasing": phrasing,
                    "split": "held_out" if held_out else "train",
                }
            )
    # any first part of the rows is a fair sample of them
    rows.sort(key=lambda row: _digest(f"{row['function']}\0{row['phrasing']}"))
    return rows


def write_questions(folder: Path, *, seed: int = 0, stdlib: Path | None = None) -> tuple[Path, Path]:
    """Write `questions.train.jsonl` and `questions.held_out.jsonl` into `folder`; return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = questions(seed=seed, stdlib=stdlib)
    train, held_out = folder / "questions.train.jsonl", folder / "questions.held_out.jsonl"
    write_rows(train, (row for row in rows if row["split"] == "train"))
    write_rows(held_out, (row for row in rows if row["split"] == "held_out"))
    return train, held_out


def _conversations(
    entry: Entry, answer: str, homes: Counter[str], seed: int
) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """The numbered conversations about one thing, each a list of question and answer."""
    name, last = entry.full_name, entry.name.rpartition(".")[2]
    draw = _digest(f"{seed}\0{name}")

    def pick(wordings: tuple[str, ...], nth: int) -> tuple[int, str]:
        index = (draw // 7**nth + nth) % len(wordings)
        text = wordings[index].format(name=name, kind=entry.kind, summary=answer, last=last)
        return numbered.index(wordings[index]), text

    numbered = (*WHAT, *CALL, *REVERSED, *MODULE, FOLLOW_UP)
    first, second = draw % len(WHAT), (draw + 1 + draw // 7 % (len(WHAT) - 1)) % len(WHAT)
    for index in (first, second):
        yield index, [(WHAT[index].format(name=name, kind=entry.kind), answer)]
    call = f"`{name}{entry.signature}`"
    callable_ = entry.signature and len(call) <= LONGEST_SIGNATURE and entry.kind != "attribute"
    if callable_ and draw % 2:
        phrasing, question = pick(CALL, 1)
        yield phrasing, [(question, f"{call}.")]
    elif callable_:
        opening = WHAT[first].format(name=name, kind=entry.kind)
        yield numbered.index(FOLLOW_UP), [(opening, answer), (FOLLOW_UP, f"{call}.")]
    if entry.kind in ("function", "class") and name not in answer and last not in answer.split():
        phrasing, question = pick(REVERSED, 2)
        yield phrasing, [(question, f"`{name}`.")]
        if homes[last] == 1:
            phrasing, question = pick(MODULE, 3)
            yield phrasing, [(question, f"`{last}` is in the module `{entry.module}`.")]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def summary(entry: Entry) -> str:
    """The first sentence of a docstring as a clean answer, or "" where it makes none.

    A second sentence is added while the answer stays short. Signature lines, markup, doctests and
    parameter tables are left out.
    """
    paragraph = _first_paragraph(entry.text)
    paragraph = re.sub(r":[a-z:]+:`~?([^`]+)`", r"`\1`", paragraph).replace("``", "`")
    sentences = _sentences(paragraph)
    if not sentences:
        return ""
    answer = sentences[0]
    if len(sentences) > 1 and len(answer) < 60 and len(answer) + len(sentences[1]) < 200:
        both = f"{answer} {sentences[1]}"
        answer = both if _presentable(both) else answer
    if answer[0].islower() and re.match(r"[a-z]+[ ,]", answer):
        answer = answer[0].upper() + answer[1:]
    return answer if _presentable(answer) else ""


def _first_paragraph(text: str) -> str:
    """The first lines of running text, joined by blanks; signature lines above them are passed over."""
    kept: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if not kept and (not stripped or line[:1] == " "):
            continue
        if not kept and SIGNATURE_LINE.match(stripped):
            beside = BESIDE_SIGNATURE.search(stripped)
            kept += [beside[1]] if beside else []
            continue
        if not stripped or stripped.startswith((">>>", "- ", "* ", ":", "@", "|")) or line[:1] == " ":
            break
        kept.append(stripped)
    return " ".join(kept)


def _sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph, each with its full stop."""
    pieces = re.split(r"(?<=[.!?])\s+(?=[A-Z`*'\"(])", re.sub(r"\s+", " ", paragraph).strip())
    sentences: list[str] = []
    for piece in pieces:
        if sentences and ABBREVIATION.search(sentences[-1]):
            sentences[-1] += f" {piece}"
        elif piece:
            sentences.append(piece)
    if sentences and sentences[-1][-1] not in ".!?":
        last = sentences.pop().rstrip(" ,;-")
        if last and not last.endswith(":"):  # a colon announces what is not there
            sentences.append(f"{last}.")
    return sentences


def _presentable(answer: str) -> bool:
    """Whether a sentence can stand alone as an answer."""
    if not SHORTEST_SUMMARY <= len(answer) <= LONGEST_ANSWER or RUBBISH.search(answer):
        return False
    balanced = all(answer.count(a) == answer.count(b) for a, b in ("()", "[]", "{}"))
    letters = sum(character.isalpha() or character == " " for character in answer)
    return (
        balanced
        and answer.count("`") % 2 == 0
        and answer.count('"') % 2 == 0
        and letters > 0.75 * len(answer)
        and len(answer.split()) >= 3
        and (answer[0].isupper() or answer[0] in "`'\"(")
    )
