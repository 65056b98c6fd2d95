"""Changes to a file that keep most of its structure: what random bytes alone take hours to find.

A change is drawn from a seed and nothing else, so that what was found is found again.
"""

from __future__ import annotations

import json
import random
import struct
from typing import Any

RAW = "@raw@"
"""Stands in a JSON text where what cannot be written as a value is put in afterwards."""
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 0.5, -0.0, 1e-320, 2**31, 2**32, 2**53 + 1, -(2**63), 2**64, 10**30,
    "", "a", "0", "\x00", "\x1b[2J", "\ud800", "\udfff\ud800", "../../etc/passwd", "/dev/zero", "a/b", "x" * 300,
    "é" * 9, [], {}, [[]], [None], [1, 2], ["a", "b"], {"a": 1}, {"": None}, {"content": "<s>"}, [{}],
    "__class__", "layers.*",
]  # fmt: skip
RAWS = (
    "NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, "01", '"\\ud83d"', "[" * 3000, '{"a":' * 3000,
    "[" * 400 + "]" * 400,
)  # fmt: skip
SNIPPETS = (
    "{{ messages }}", "{% for m in messages %}{{ m }}{% endfor %}", "{{ 'a' * 1000000000 }}", "{{ ''.__class__ }}",
    "{% for i in range(1000000000) %}{% endfor %}", "{{ messages[0].content | tojson }}", "{{ 10 ** 10 ** 10 }}",
    "{{ raise_exception('no') }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% set x = namespace(a=1) %}",
    "{{ messages | map(attribute='role') | join(',') }}", "{{ messages[999] }}", "{{ messages.role.x.y }}", "{%",
    "{{ bos_token ~ eos_token }}", "{{ '%s' | format(messages) }}", "{{ messages | sort }}", "{{ strftime_now('%Y') }}",
    "{% generation %}", "{% include 'x' %}", "{{ 1 / 0 }}", "{{ 'a'.encode() }}", "{{ [1] | sum(start='a') }}", "\x00",
    "\ud800", "{{ messages[::-1] }}", "{{ messages | groupby('role') }}", "{{ 'x' | int | abs | round }}",
    "{{ none | length }}",
    "(a+)+$", "\\p{L}+|\\s", "(?<!x)[", "▁", "Ġ", "<0x0A>", "<s>", "</s>", "##",
)  # fmt: skip
NUMBERS = (
    0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 127, 128, 255, 256, 1000, 65535, 2**16,
    2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1,
)  # fmt: skip


def mutate(content: bytes, name: str, draw: random.Random) -> bytes:
    """The content of a file called so, changed in one to three places."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = _once(content, name, draw)
    return content


def _once(content: bytes, name: str, draw: random.Random) -> bytes:
    if name.endswith(".safetensors") and draw.random() < 0.7 and len(content) > 8:
        (length,) = struct.unpack_from("<Q", content)
        header = json_change(content[8 : 8 + length], draw)
        if header is not None:
            return struct.pack("<Q", len(header)) + header + content[8 + length :]
    if name.endswith(".json") and draw.random() < 0.8 and (changed := json_change(content, draw)) is not None:
        return changed
    if name.endswith(".jsonl") and draw.random() < 0.8 and (lines := content.split(b"\n")):
        place = draw.randrange(len(lines))
        if (changed := json_change(lines[place], draw)) is not None:
            return b"\n".join([*lines[:place], changed, *lines[place + 1 :]])
    if name.endswith((".json", ".jsonl", ".yaml", ".csv", ".tsv", ".jinja", ".txt")):
        return draw.choice((text_change, text_change, cut, double, flip))(content, draw)
    return draw.choice((number, number, length_of_text, length_of_text, counted_text, cut, double, flip))(content, draw)


def json_change(content: bytes, draw: random.Random) -> bytes | None:
    """One node of a JSON text made something else; None where it is no JSON text, or has no nodes."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return None
    places: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        few = list(items)
        if len(few) > 40:  # the tokens of a vocabulary are one kind of thing
            few = draw.sample(few, 10)
        places += [(node, key) for key, _ in few]
        waiting += [value for _, value in few]
    if not places:
        return None
    node, key = draw.choice(places)
    old, raw, kind = node[key], "", draw.randrange(10)
    if kind < 4:
        node[key] = draw.choice(VALUES)
    elif kind == 4:
        node[key], raw = RAW, draw.choice(RAWS)
    elif kind == 5:
        del node[key]
    elif kind == 6 and isinstance(old, int | float):
        node[key] = draw.choice((-old, old + 1, old - 1, old * 2, old * 1000, old / 3, str(old), [old], bool(old)))
    elif isinstance(old, str):
        node[key] = spliced(old, draw)
    elif kind == 7:
        other, place = draw.choice(places)
        node[key] = other.get(place) if isinstance(other, dict) else (other[place] if place < len(other) else None)
    elif isinstance(node, dict):
        node[draw.choice(["", "x", "\ud800", str(key) + "_", "__proto__", str(draw.choice(places)[1])])] = old
    else:
        node += [old] * draw.choice((1, 2, 50))
    try:
        return json.dumps(tree).replace(f'"{RAW}"', raw or "null").encode()
    except (ValueError, RecursionError):  # a branch was put into itself
        return None


def spliced(text: str, draw: random.Random) -> str:
    start = draw.randrange(len(text) + 1)
    end = min(len(text), start + draw.choice((0, 0, 1, 2, 10)))
    return text[:start] + draw.choice((*SNIPPETS, "", text[:20])) + text[end:]


def text_change(content: bytes, draw: random.Random) -> bytes:
    """A value, a snippet or a sign of the format put into a text."""
    start = draw.randrange(len(content) + 1)
    end = min(len(content), start + draw.choice((0, 1, 3, 8)))
    word = draw.choice(
        (
            *SNIPPETS,
            *map(str, VALUES),
            *RAWS,
            *"\n\t\r\",:-#&*!|>%@`[]{}'\0",
            '""',
            "\r\n",
            "\ufeff",
            "---\n",
            "&a [*a]",
            "!!python/object:x",
        )
    )
    return content[:start] + word.encode("utf-8", "surrogatepass") + content[end:]


def number(content: bytes, draw: random.Random) -> bytes:
    """A number of 1 to 8 bytes, in either order, written over what is there."""
    size, order = draw.choice((1, 2, 4, 4, 8, 8)), draw.choice(("little", "little", "big"))
    place = draw.randrange(max(1, min(len(content) - size, draw.choice((64, 512, 1 << 20)))))
    value = draw.choice(NUMBERS) % (1 << 8 * size)
    return content[:place] + value.to_bytes(size, order) + content[place + size :]


def length_of_text(content: bytes, draw: random.Random) -> bytes:
    """What looks like the length of what follows, made another."""
    found = _lengths(content, draw)
    if found is None:
        return number(content, draw)
    place, size, order, value = found
    value = draw.choice((value + 1, value - 1, value * 2, len(content), *NUMBERS)) % (1 << 8 * size)
    return content[:place] + value.to_bytes(size, order) + content[place + size :]


def counted_text(content: bytes, draw: random.Random) -> bytes:
    """A text whose length stands before it, made another one with its length right."""
    found = _lengths(content, draw)
    if found is None:
        return flip(content, draw)
    place, size, order, value = found
    start = place + size
    text = spliced(content[start : start + value].decode("utf-8", "replace"), draw).encode("utf-8", "surrogatepass")
    return content[:place] + len(text).to_bytes(size, order) + text + content[start + value :]


def _lengths(content: bytes, draw: random.Random) -> tuple[int, int, Any, int] | None:
    for _ in range(200):
        size, order = draw.choice(((8, "little"), (4, "little"), (4, "big")))
        place = draw.randrange(max(1, min(len(content) - size, draw.choice((512, 1 << 20)))))
        value = int.from_bytes(content[place : place + size], order)
        text = content[place + size : place + size + value]
        if 1 < value < 4096 and len(text) == value and b"\0" not in text:
            return place, size, order, value
    return None


def cut(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + (content[start + draw.choice((1, 4, 8, 100)) :] if draw.random() < 0.6 else b"")


def double(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    length = draw.choice((1, 4, 8, 40, 400))
    place = draw.choice((start + length, draw.randrange(len(content) + 1)))
    return content[:place] + content[start : start + length] * draw.choice((1, 1, 2, 50)) + content[place:]


def flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8)) if changed else 0):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)
