"""Cleaning one text: valid UTF-8, one kind of line break, no control characters, one normal form.

Whatever is done here is harmless to prose, poems, source code and every script; what remains is kept character
by character (no trimming), so that a text that is clean already comes out as it went in. Fast paths first:
most text is ASCII or already normal, and each test costs far less than the change it saves.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from groundup.data.options import PrepareOptions

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
WIDE_BREAKS = re.compile("[\x85\u2028\u2029]")
CONTROL_BYTES = bytes(code for code in (*range(0x20), 0x7F) if code not in b"\t\n")
WIDE_MARKS = (b"\xc2", b"\xe2\x80\xa8", b"\xe2\x80\xa9", b"\xef\xbb\xbf")
"""The UTF-8 of whatever CONTROLS and WIDE_BREAKS match beyond ASCII; U+0080 to U+009F begin with C2."""


class Cleaned(NamedTuple):
    """A cleaned text and its UTF-8, what was repaired, and why it cannot be used (empty if it can)."""

    text: str
    encoded: bytes
    repairs: tuple[str, ...]
    problem: str


def clean_text(value: str | bytes, options: PrepareOptions) -> Cleaned:
    """Clean one text as `options` say.

    Args:
        value: text, or bytes that still have to be decoded. Text may hold lone surrogates.
    """
    repairs: list[str] = []
    text, fault = _decode(value, repairs)
    if fault:
        if options.utf8 != "replace":
            return Cleaned("", b"", (), fault)
        repairs.append("invalid UTF-8 replaced")
    encoded = text.encode()
    if _looks_clean(encoded):
        changed = text
    else:
        changed = _unify_breaks(text) if options.newlines else text
        if changed is not text:
            repairs.append("line breaks unified")
        if options.control_characters == "remove":
            # A carriage return is a line break: if there are any left, they are to stay.
            without = CONTROLS.sub(lambda match: "\r" if match[0] == "\r" else "", changed)
            if len(without) != len(changed):
                repairs.append("control characters removed")
            changed = without
    if (
        options.normalize == "NFC"
        and len(encoded) != len(text)
        and not unicodedata.is_normalized("NFC", changed)
    ):
        changed = unicodedata.normalize("NFC", changed)
        repairs.append("normalised to NFC")
    if changed is not text:
        text, encoded = changed, changed.encode()
    return Cleaned(text, encoded, tuple(repairs), "")


def _looks_clean(encoded: bytes) -> bool:
    """Whether there is certainly no odd line break and no control character, in a few passes at memory speed."""
    if len(encoded.translate(None, CONTROL_BYTES)) != len(encoded):
        return False
    return encoded.isascii() or not any(mark in encoded for mark in WIDE_MARKS)


def _unify_breaks(text: str) -> str:
    changed = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    return WIDE_BREAKS.sub("\n", changed) if WIDE_BREAKS.search(changed) else changed


def _decode(value: str | bytes, repairs: list[str]) -> tuple[str, str]:
    """Text without lone surrogates, and what was wrong with it (empty if nothing)."""
    if isinstance(value, str):
        try:
            value.encode()
            return value, ""
        except UnicodeEncodeError as error:
            fault = f"invalid UTF-8: a lone surrogate at character {error.start + 1}"
        try:
            # Undecodable bytes travel through the csv and JSON parsers as surrogates.
            return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), fault
        except UnicodeEncodeError:
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), fault
    if value.startswith(BYTE_ORDER_MARK):
        value = value[3:]
        repairs.append("byte order mark removed")
    try:
        return value.decode(), ""
    except UnicodeDecodeError as error:
        fault = f"invalid UTF-8: byte 0x{value[error.start]:02x} at byte {error.start}"
        return value.decode("utf-8", "replace"), fault
