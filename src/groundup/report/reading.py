"""Reading what a run left behind, whatever state it is in.

A run folder may come from a crash, a full disk, an older version or a stranger. Nothing here raises because
of what a file contains: what cannot be read is left out and named in `notes`, which the report prints. No
meaning is given to any field in this file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

LONGEST_LINE = 4 << 20
LARGEST_FILE = 32 << 20
DEEPEST = 12
MOST_FIELDS = 2000


def read_text(path: Path, notes: list[str]) -> str:
    """The text of a file; "" when there is none, cut at 32 MiB, undecodable bytes replaced."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        notes.append(f"{path.name}: could not be read ({error.strerror})")
        return ""
    if len(content) > LARGEST_FILE:
        notes.append(f"{path.name}: larger than {LARGEST_FILE >> 20} MiB, the rest was left out")
    return content[:LARGEST_FILE].decode("utf-8-sig", errors="replace")


def read_object(path: Path, notes: list[str]) -> dict[str, Any]:
    """The JSON object in a file; {} when the file is missing, broken or holds something else."""
    text = read_text(path, notes)
    if not text.strip():
        return {}
    value, fault = parse_json(text)
    if isinstance(value, dict):
        return value
    notes.append(f"{path.name}: {fault or 'holds no JSON object'}")
    return {}


def read_lines(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file with one object a line, in bounded memory; broken lines are counted."""
    broken: list[int] = []
    fault = ""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                whole = line.endswith(b"\n") or len(line) < LONGEST_LINE
                while not line.endswith(b"\n") and len(line) == LONGEST_LINE:  # pass over the rest of it
                    line = file.readline(LONGEST_LINE)
                value, reason = parse_json(line.decode("utf-8", errors="replace")) if whole else (None, "too long")
                if isinstance(value, dict):
                    yield value
                elif line.strip():
                    broken.append(number)
                    fault = fault or reason or "not a JSON object"
    except FileNotFoundError:
        return
    except OSError as error:
        notes.append(f"{path.name}: could not be read to its end ({error.strerror})")
    if broken:
        shown = ", ".join(str(number) for number in broken[:5]) + (" …" if len(broken) > 5 else "")
        plural = "s" if len(broken) > 1 else ""
        notes.append(f"{path.name}: {len(broken)} unreadable line{plural} left out (line {shown}): {fault}")


def read_yaml(text: str, name: str, notes: list[str]) -> dict[str, Any]:
    """The mapping in a YAML text; {} when it is empty, broken or holds something else."""
    if not text.strip():
        return {}
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        notes.append(f"{name}: not readable as YAML ({str(error).splitlines()[0]})")
        return {}
    if isinstance(value, dict):
        return value
    notes.append(f"{name}: holds no mapping")
    return {}


def parse_json(text: str) -> tuple[Any, str]:
    """A parsed JSON value and "", or None and the reason."""
    try:
        return json.loads(text), ""
    except json.JSONDecodeError as error:
        return None, f"{error.msg} at column {error.colno}"
    except ValueError:  # an integer of thousands of digits
        return None, "a number with too many digits"
    except RecursionError:
        return None, "nested too deeply"


def number(value: object) -> float:
    """A finite or infinite number as it is; NaN for anything else, truth values and text included."""
    if isinstance(value, float):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def known(value: object) -> float | None:
    """A finite number, or None."""
    found = number(value)
    return found if math.isfinite(found) else None


def mapping(value: object) -> dict[str, Any]:
    """`value` if it is a mapping, with its keys as text, else {}."""
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def mappings(value: object) -> list[dict[str, Any]]:
    """The mappings in a list; [] if `value` is no list."""
    return [mapping(item) for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_of(value: object) -> str:
    """Text as it is, None as "", any other scalar or structure as compact JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return "(unreadable)"


def flatten(value: object, prefix: str = "", depth: int = 0) -> dict[str, str]:
    """A nested mapping as `{"data.files.0": "a.txt"}`, bounded in depth and in number of fields."""
    if isinstance(value, dict):
        pairs = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        pairs = [(str(index), item) for index, item in enumerate(value)]
    else:
        items = value if isinstance(value, list) else [value]
        return {prefix: ", ".join(text_of(item) for item in items)}
    if depth >= DEEPEST:
        return {prefix: "(nested too deeply)"}
    flat: dict[str, str] = {}
    for key, item in pairs:
        flat.update(flatten(item, f"{prefix}.{key}" if prefix else key, depth + 1))
        if len(flat) >= MOST_FIELDS:
            break
    return flat
