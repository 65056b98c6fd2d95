"""Text to ids and back: what everything else in the project encodes and decodes with.

A thin, strict layer over the `tokenizers` library. What it adds are promises: special tokens come from ids
alone and never from text, bytes come back exactly, a file from outside is checked before use, and the
digest names the tokenizer whatever version of the library reads it. Importing this needs no torch.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tokenizers

from groundup.errors import GroundupError, printable
from groundup.text.alphabet import unspell
from groundup.text.layout import LARGEST_FILE, is_word, malformed, parse
from groundup.text.options import BEGIN, END, FOREIGN_MASKS, MASK, PAD, SPECIALS, TokenizerOptions

__all__ = [
    "FILE",
    "OWN_ROLES",
    "SPECIALS",
    "AnyTokenizer",
    "StreamDecoder",
    "TokenRoles",
    "Tokenizer",
    "TokenizerOptions",
    "read_file",
    "refuse_surrogates",
]

FILE = "tokenizer.json"


LONG_TEXT = 20_000
"""Characters from which on a text is encoded as a batch of one."""


@dataclass(frozen=True)
class TokenRoles:
    """Which tokens of a tokenizer stand where text begins and ends.

    Attributes:
        begin: the token that every text begins with, if there is one.
        ends: the tokens that end a generation, the one that ends a chat turn first; never empty.
        pad: the token that fills rows.
        adds_begin: whether plain text is given to the model with `begin` in front.
    """

    begin: str | None
    ends: tuple[str, ...]
    pad: str
    adds_begin: bool

    def names(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys((*((self.begin,) if self.begin else ()), *self.ends, self.pad)))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        return asdict(self) | {"ends": list(self.ends)}

    @classmethod
    def from_dict(cls, found: Any, where: str = "roles") -> TokenRoles:
        """What `to_dict` gave. Raises E-TOKEN-006 where it is something else."""
        if not isinstance(found, dict) or set(found) != {"begin", "ends", "pad", "adds_begin"}:
            raise malformed(where, "the roles of tokens are not begin, ends, pad and adds_begin")
        begin, ends, pad, adds_begin = (found[name] for name in ("begin", "ends", "pad", "adds_begin"))
        named = isinstance(ends, list) and ends and all(isinstance(name, str) and name for name in [*ends, pad])
        if not named or not (begin is None or (isinstance(begin, str) and begin)) or not isinstance(adds_begin, bool):
            raise malformed(where, "begin, ends or pad is no name of a token, or adds_begin not true or false")
        return cls(begin, tuple(ends), pad, adds_begin)


OWN_ROLES = TokenRoles(BEGIN, (END,), PAD, adds_begin=True)


class AnyTokenizer:
    """What a tokenizer offers, wherever it comes from (`groundup.contract.TextEncoder`).

    `Tokenizer` and `groundup.text.foreign.ForeignTokenizer` fill in the fields. Ids are whole numbers in
    [0, `vocabulary`).

    Attributes:
        specials: the tokens that text never spells, with their ids.
        words: the tokens that were added as they stand, with their ids: whoever writes one gets its id.
        digest: names the tokenizer, 64 hexadecimal digits.
        kind: how it finds tokens: "bpe", "unigram", "wordpiece", "char" or "byte".
        roles: the tokens at which text begins and ends.
        exact: whether ids spell bytes one by one, so that text is put together from them.
        prefix: ids above the vocabulary that stand in front of every text: a prompt that was learned.
        dropped: what is dropped from the beginning of a decoded text: a space, or nothing.
        unknown_id: the id of what has no token, if there is one.
    """

    vocabulary: int
    specials: dict[str, int]
    words: dict[str, int]
    digest: str
    kind: str
    roles: TokenRoles
    exact: bool = True
    dropped: str = ""
    prefix: tuple[int, ...] = ()
    unknown_id: int | None = None
    _library: tokenizers.Tokenizer
    _document: dict[str, Any]
    _bytes: list[bytes]
    _hidden: frozenset[int]  # what is left out of a decoded text

    def to_json(self) -> str:
        """The content of tokenizer.json, readable by the `tokenizers` library."""
        return json.dumps(self._document, ensure_ascii=False, separators=(",", ":"))

    def save(self, folder: Path) -> Path:
        """Write tokenizer.json into `folder`, whole or not at all, and return its path."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{FILE}.tmp-{os.getpid()}"
        temporary.write_text(self.to_json() + "\n", encoding="utf-8", newline="\n")
        temporary.replace(folder / FILE)
        return folder / FILE

    @property
    def pad_id(self) -> int:
        """The id that fills rows; it is never a target."""
        return self.specials[self.roles.pad]

    @property
    def begin_id(self) -> int | None:
        """The id that every text begins with, if there is one."""
        return None if self.roles.begin is None else self.specials[self.roles.begin]

    @property
    def end_id(self) -> int:
        """The id after every document and every chat turn."""
        return self.specials[self.roles.ends[0]]

    @property
    def mask_id(self) -> int | None:
        """The id that stands for a hidden token, if there is one."""
        return next((self.specials[name] for name in (MASK, *FOREIGN_MASKS) if name in self.specials), None)

    @property
    def end_ids(self) -> frozenset[int]:
        """The ids at which generation stops."""
        return frozenset(self.specials[name] for name in self.roles.ends)

    def document_ids(self, ids: list[int]) -> list[int]:
        """What a document is stored as: its ids behind the beginning, if there is one, and before the end."""
        begin = self.begin_id if self.roles.adds_begin else None
        return [*self.prefix, *(() if begin is None else (begin,)), *ids, self.end_id]

    def encode(self, text: str) -> list[int]:
        """Ids of `text`. No special token is added, and text that spells one is plain text.

        Raises:
            GroundupError: E-TOKEN-004 for a lone surrogate, which has no bytes in UTF-8.
        """
        if len(text) > LONG_TEXT:  # a batch is encoded without the lock of the interpreter: others go on meanwhile
            return self.encode_batch([text])[0]
        try:
            ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        except TypeError as error:
            refuse_surrogates([text])
            raise error
        return ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """`encode` of each text, on all cores that the library was given."""
        try:
            found = self._library.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError as error:
            refuse_surrogates(texts)
            raise error
        return [encoding.ids for encoding in found]

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for; a special token stands for its name."""
        if not 0 <= id < self.vocabulary:
            raise GroundupError(
                code="E-TOKEN-007",
                what=f"id {id} is not a token: ids run from 0 to {self.vocabulary - 1}",
                where="ids to decode",
                why="the ids were made by another tokenizer, or a model's vocabulary is larger than its own",
                fix="use the tokenizer.json beside the model that made the ids",
            )
        return self._bytes[id]

    def decode_bytes(self, ids: Iterable[int], *, skip_specials: bool = True) -> bytes:
        """The exact bytes of `ids`, valid UTF-8 or not (a sequence may end inside a character)."""
        skipped = self._hidden if skip_specials else frozenset()
        return b"".join([self.token_bytes(id) for id in ids if id not in skipped])

    def decode(self, ids: Iterable[int], *, skip_specials: bool = True) -> str:
        """The text of `ids`: exactly what was encoded, if the tokenizer changes no text.

        Bytes that are no UTF-8 (a model may produce such) become U+FFFD. A character whose bytes are cut
        off by the end is left out, as a stream would leave it out; `decode_bytes` keeps it.
        """
        return _utf8().decode(self.decode_bytes(ids, skip_specials=skip_specials)).removeprefix(self.dropped)


class Tokenizer(AnyTokenizer):
    """A tokenizer that was trained here, in groundup's own layout.

    Made by `load`, `from_json` or `train_tokenizer`.
    """

    def __init__(self, text: str, where: str = FILE) -> None:
        document, tokens = parse(text, where)
        try:
            # from_buffer tells a bad file by ValueError, from_str by the bare Exception
            self._library = tokenizers.Tokenizer.from_buffer(text.encode("utf-8"))
        except ValueError as error:
            raise malformed(where, str(error)) from error
        self._library.encode_special_tokens = True
        self._document = document
        canonical = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        self.digest = hashlib.sha256(canonical.encode("utf-8")).hexdigest()
        self.vocabulary = len(tokens)
        added = document["added_tokens"]
        self.words = {entry["content"]: entry["id"] for entry in added if is_word(entry)}
        self.specials = {entry["content"]: entry["id"] for entry in added if not is_word(entry)}
        self.roles = OWN_ROLES
        self.kind = _kind(document["model"])
        self._bytes = _byte_table(tokens, self.specials | self.words, document["model"], where)
        self._hidden = frozenset(self.specials.values())
        for name in self.specials:
            if not self._hidden.isdisjoint(self.encode(name)):
                raise malformed(where, f"the plain text {name!r} would be encoded as the special token")

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a tokenizer.json, or the one in a folder.

        Raises:
            GroundupError: E-TOKEN-005 where there is none to read, E-TOKEN-006 where it is malformed.
        """
        return cls(*read_file(path))

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """The tokenizer that `to_json` wrote. Raises E-TOKEN-006 where the text is malformed."""
        return cls(text)

    @property
    def begin_id(self) -> int:
        """The id of `<|begin|>`, the first of every document and conversation."""
        return self.specials[BEGIN]

    def __reduce__(self) -> tuple[Callable[..., Tokenizer], tuple[str]]:
        return (Tokenizer, (self.to_json(),))  # worker processes receive a tokenizer as its JSON


class StreamDecoder:
    """Text from ids that come one at a time, with no character shown before all its bytes are there.

    The pieces joined equal `AnyTokenizer.decode` of all ids.
    """

    def __init__(self, tokenizer: AnyTokenizer, *, skip_specials: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_specials = skip_specials
        self._begin()

    def _begin(self) -> None:
        self._decoder = _utf8()
        self._ids: list[int] = []
        self._shown = ""

    def push(self, id: int) -> str:
        """The text that became whole with this id; often empty inside a character."""
        if not self._tokenizer.exact:
            self._ids.append(id)
            return self._grown("\ufffd")
        text = self._decoder.decode(self._tokenizer.decode_bytes([id], skip_specials=self._skip_specials))
        if not self._shown and text:
            self._shown = text
            return text.removeprefix(self._tokenizer.dropped)
        return text

    def flush(self) -> str:
        """End the stream: an unfinished character is dropped, never shown as U+FFFD. Starts anew."""
        rest = "" if self._tokenizer.exact else self._grown("")
        self._begin()
        return rest

    def _grown(self, unfinished: str) -> str:
        """What the text of all ids has more than what was shown, for a decoder that joins words by rules."""
        whole = self._tokenizer.decode(self._ids, skip_specials=self._skip_specials)
        whole = whole.rstrip(unfinished) if unfinished else whole
        if not whole.startswith(self._shown):
            return ""
        shown, self._shown = self._shown, whole
        return whole[len(shown) :]


def read_file(path: Path, largest: int = LARGEST_FILE) -> tuple[str, str]:
    """The text of a tokenizer.json, or of the one in a folder, and the file's name.

    Raises:
        GroundupError: E-TOKEN-005 where there is none to read, E-TOKEN-006 where it is too large or not UTF-8.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    try:
        size = file.stat().st_size
        if size > largest:
            raise malformed(str(file), f"{size} bytes, at most {largest} are read")
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise malformed(str(file), f"not UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise GroundupError(
            code="E-TOKEN-005",
            what=f"no tokenizer can be read here: {error.strerror or error}",
            where=printable(str(file)),
            why="text cannot be turned into ids, nor ids into text, without it",
            fix="groundup tokenizer train --files … --vocab N --out DIR   (makes one)\n"
            "or name the folder that holds tokenizer.json: a run, a checkpoint or a model",
        ) from error
    return text, str(file)


def refuse_surrogates(texts: Iterable[str]) -> None:
    """Refuse a text with a lone surrogate: half of a UTF-16 pair, which is not a character.

    Raises:
        GroundupError: E-TOKEN-004 with the place.
    """
    for number, text in enumerate(texts):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise GroundupError(
                code="E-TOKEN-004",
                what=f"lone surrogate U+{ord(text[error.start]):04X} at character {error.start}",
                where=f"text {number}: {printable(text[max(0, error.start - 20) : error.start + 20])}",
                why="it is half of a UTF-16 pair and has no bytes in UTF-8, so it cannot come back exactly",
                fix="replace it before encoding: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')",
            ) from error


def _utf8() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


def _kind(model: dict[str, Any]) -> str:
    if model["type"] != "BPE":
        return {"Unigram": "unigram", "WordPiece": "wordpiece"}[model["type"]]
    if model.get("ignore_merges"):
        return "char"
    return "bpe" if model["merges"] else "byte"


def _byte_table(tokens: list[str], added: dict[str, int], model: dict[str, Any], where: str) -> list[bytes]:
    prefix = model["continuing_subword_prefix"] if model["type"] == "WordPiece" else ""
    table = []
    for token in tokens:
        data = token.encode("utf-8") if token in added else unspell(token.removeprefix(prefix))
        if data is None:
            raise malformed(where, f"the token {token!r} is not spelled in the byte alphabet")
        table.append(data)
    return table
