"""The tokenizer of a Hugging Face folder: tokenizer.json, and the small files that say which tokens play which part.

Only the fast form (tokenizer.json) is read. The parts are taken from where transformers takes them, in its order:
tokenizer_config.json, special_tokens_map.json, generation_config.json, config.json; a template in a file of its own
comes before one in tokenizer_config.json. No text is encoded here but the one that shows whether the tokenizer puts
its begin token in front, and no template is rendered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from groundup.errors import GroundupError, printable
from groundup.formats.foreign import ForeignTokenizer
from groundup.formats.outside import parse_json, read_json, read_text

TOKENIZER, TOKENIZER_CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
SLOW = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Files of tokenizers in forms that are not read."""


class FoundTokenizer(NamedTuple):
    """A tokenizer, None where there is none; how many ids it has; what kind it is; and what was odd."""

    tokenizer: ForeignTokenizer | None
    vocabulary: int
    kind: str
    oddities: tuple[str, ...]


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> FoundTokenizer:
    """Read the tokenizer of a folder.

    Args:
        config: the content of config.json, whose token ids stand in where other files are silent.
    Raises:
        GroundupError: E-FORMAT-004 for malformed files, E-FORMAT-008 for a tokenizer that does not work or names
            no token that ends a text.
    """
    if not (folder / TOKENIZER).exists():
        slow = [name for name in SLOW if (folder / name).exists()]
        lack = f"only {', '.join(slow)}, a form that is not read" if slow else "none"
        return FoundTokenizer(None, 0, "", (f"the folder has no tokenizer.json ({lack}): texts cannot be encoded",))
    text, oddities = _plain(folder / TOKENIZER)
    library = load_library(text, folder / TOKENIZER)
    said = _optional(folder / TOKENIZER_CONFIG)
    names = {**_optional(folder / "special_tokens_map.json"), **{k: v for k, v in said.items() if v is not None}}
    generation = _optional(folder / "generation_config.json")
    _compare_added(said, library, oddities)

    def named(role: str) -> str | None:
        """The token of a role, by name or by id."""
        token = _content(names.get(f"{role}_token"), folder)
        if token is None:
            token = _by_id(library, config.get(f"{role}_token_id"))
        if token is not None and library.token_to_id(token) is None:
            oddities.append(f"the {role} token {printable(token, 40)} is not in the vocabulary and was not used")
            return None
        return token

    template, about = _template(folder, said)
    oddities += about
    begin = named("bos") or named("cls")
    ends = _ends(named("eos"), library, generation, config, template) or tuple(filter(None, [named("sep")]))
    if not ends:
        raise _unfit(folder, "no token is named that ends a text (eos_token)")
    pad = named("pad")
    if pad is None:
        oddities.append(f"no padding token is named: {printable(ends[-1], 40)} fills rows")
        pad = ends[-1]
    adds, against = _adds_begin(library, begin, said)
    kind = type(library.model).__name__
    found = ForeignTokenizer(text, begin, ends, pad, adds, template)
    largest = max(library.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    return FoundTokenizer(found, largest, kind, (*oddities, *against))


def _plain(path: Path) -> tuple[str, list[str]]:
    """The text of tokenizer.json without the cutting and padding that somebody left switched on in it: both are
    settings of a call, which transformers resets in every call."""
    text = read_text(path)
    content = parse_json(text, path)
    model = content.get("model")
    if not isinstance(model, dict) or not isinstance(content.get("added_tokens", []), list):
        raise _unfit(path, "it has no object named model, or its added_tokens are no list")
    if content.get("truncation") is None and content.get("padding") is None:
        return text, []
    content |= {"truncation": None, "padding": None}
    note = "tokenizer.json had cutting or padding to a fixed length switched on; both were taken out"
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")), [note]


def load_library(text: str, path: Path) -> tokenizers.Tokenizer:
    """The tokenizer that `text` describes, as the tokenizers library runs it; `path` is for the error.

    Raises:
        GroundupError: E-FORMAT-008 where the library refuses it.
    """
    try:
        # from_buffer tells a bad file by ValueError, from_str by the bare Exception
        return tokenizers.Tokenizer.from_buffer(text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise _unfit(path, f"the tokenizers library refuses it: {printable(str(error))}") from error


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _content(value: Any, folder: Path) -> str | None:
    """The text of a token, written plainly or as an object with flags."""
    if isinstance(value, dict):
        value = value.get("content")
    if value is not None and not isinstance(value, str):
        raise _unfit(folder / TOKENIZER_CONFIG, f"a special token is {printable(str(value), 40)}, expected a text")
    return value or None


def _by_id(library: tokenizers.Tokenizer, value: Any) -> str | None:
    if type(value) is not int or not 0 <= value < 2**32:
        return None
    token: str | None = library.id_to_token(value)
    return token


def _ends(
    eos: str | None,
    library: tokenizers.Tokenizer,
    generation: Mapping[str, Any],
    config: Mapping[str, Any],
    template: str | None,
) -> tuple[str, ...]:
    """The end tokens: the tokenizer's own, then those that end a generation. One that the chat template writes by
    name ends a turn, and comes first unless the template writes the tokenizer's own as `eos_token`."""
    listed = generation.get("eos_token_id")
    listed = config.get("eos_token_id") if listed is None else listed
    ids = listed if isinstance(listed, list) else [listed]
    others = [_by_id(library, id) for id in ids]
    ends = list(dict.fromkeys(token for token in [eos, *others] if token is not None))
    if template is not None and "eos_token" not in template:
        ends.sort(key=lambda token: token not in template)
    return tuple(ends)


def _template(folder: Path, said: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """The chat template; where there are several, the one named default."""
    if (folder / TEMPLATE).exists():
        return read_text(folder / TEMPLATE), []
    template = said.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        others = sorted(str(name) for name in named if name != "default")
        note = f"chat templates besides the default were left out: {printable(', '.join(others))}"
        return _text(named.get("default"), folder), [note] if others else []
    return _text(template, folder), []


def _text(template: Any, folder: Path) -> str | None:
    if template is not None and not isinstance(template, str):
        raise _unfit(folder / TOKENIZER_CONFIG, "chat_template is neither a text nor a list of named texts")
    return template


def _adds_begin(
    library: tokenizers.Tokenizer, begin: str | None, said: Mapping[str, Any]
) -> tuple[bool, tuple[str, ...]]:
    """Whether plain text gets the begin token in front: by what the tokenizer does, unless its configuration says
    otherwise, which transformers obeys."""
    if begin is None:
        return False, ()
    ids = library.encode("a").ids
    does = (
        bool(ids) and ids[0] == library.token_to_id(begin) and library.encode("a", add_special_tokens=False).ids != ids
    )
    told = said.get("add_bos_token")
    if isinstance(told, bool) and told != does:
        return told, (f"add_bos_token is {told}, against what tokenizer.json does: the setting was followed",)
    return does, ()


def _compare_added(said: Mapping[str, Any], library: tokenizers.Tokenizer, oddities: list[str]) -> None:
    added = said.get("added_tokens_decoder")
    if not isinstance(added, dict):
        return
    tokens = {id: entry.get("content") for id, entry in added.items() if isinstance(entry, dict)}
    strange = [
        token for id, token in tokens.items() if not isinstance(token, str) or str(library.token_to_id(token)) != id
    ]
    if strange:
        shown = printable(str(strange[0]), 40)
        oddities.append(f"{len(strange)} added tokens of {TOKENIZER_CONFIG} are not so in {TOKENIZER}: {shown} …")


def _unfit(path: Path, what: str) -> GroundupError:
    return GroundupError(
        "E-FORMAT-008",
        f"the tokenizer cannot be used: {what}",
        where=printable(str(path)),
        why="a tokenizer that is nearly right gives ids that the weights were not trained with",
        fix="fetch tokenizer.json and tokenizer_config.json again, from where the weights came from",
    )
