"""The byte alphabet: one printable character for each of the 256 bytes, as byte-level tokenizers write it.

A tokenizer.json holds text, yet a token may be any run of bytes. The convention since GPT-2 (Radford et
al. 2019, `bytes_to_unicode`) keeps the printable bytes of Latin-1 and moves the others behind U+0100. The
map is one to one, so bytes come back exactly. Nothing here knows of a tokenizer.
"""

from __future__ import annotations


def _characters() -> tuple[str, ...]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(printable)]
    character = {byte: chr(byte) for byte in printable}
    character.update({byte: chr(256 + place) for place, byte in enumerate(moved)})
    return tuple(character[byte] for byte in range(256))


CHARACTER_OF_BYTE = _characters()
BYTE_OF_CHARACTER = {character: byte for byte, character in enumerate(CHARACTER_OF_BYTE)}

_AS_LATIN = dict.fromkeys(range(256), "\uffff") | {
    ord(character): chr(byte) for character, byte in BYTE_OF_CHARACTER.items()
}
"""Characters of the alphabet to those that Latin-1 writes as their bytes, others below 256 to one that it lacks."""


def spell(data: bytes) -> str:
    """`data` written in the byte alphabet."""
    return "".join([CHARACTER_OF_BYTE[byte] for byte in data])


def unspell(text: str) -> bytes | None:
    """The bytes that `text` spells, or None where it holds a character outside the byte alphabet."""
    try:
        return text.translate(_AS_LATIN).encode("latin-1")
    except UnicodeEncodeError:
        return None
