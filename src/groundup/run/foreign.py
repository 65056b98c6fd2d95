"""Models that come from elsewhere: recognised by what their files hold, read, and put into our own networks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from groundup import checkpoint
from groundup.data.files import file_sha256
from groundup.errors import GroundupError, printable
from groundup.formats.foreign import ForeignModel
from groundup.formats.gguf import read_gguf
from groundup.formats.hugging_face import hub_folder, read_hugging_face
from groundup.formats.llama2c import read_llama2c
from groundup.models import FAMILIES
from groundup.models.heads import HeadOptions
from groundup.text.chat import ChatTemplate
from groundup.text.foreign import ForeignTokenizer, TokenRoles

GGUF_MAGIC = b"GGUF"
HUB = "hf:"
PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How torch's own files begin: an archive, or a pickle of some protocol."""


def kind_of(path: Path) -> str | None:
    """What kind of foreign model lies at `path`: "hugging_face", "gguf", "llama2c", or None."""
    if path.is_dir():
        if (path / "config.json").is_file():
            return "hugging_face"
        return "gguf" if len(list(path.glob("*.gguf"))) == 1 else None
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(4)
    if head == GGUF_MAGIC or path.suffix == ".gguf":
        return "gguf"
    if path.suffix == ".bin" and head[:2] not in PICKLES:
        return "llama2c"
    return None


def locate(source: str) -> Path:
    """The local path of a source; `hf:ORG/NAME` is fetched from the hub first."""
    return hub_folder(source) if source.startswith(HUB) else Path(source).expanduser()


def read_foreign(path: Path, kind: str) -> ForeignModel:
    """Read a foreign model of a kind that `kind_of` gave.

    Raises:
        GroundupError: E-FORMAT errors for files that are malformed or not supported.
    """
    if kind == "hugging_face":
        return read_hugging_face(path, checkpoint.read_safetensors)
    if kind == "gguf":
        return read_gguf(next(path.glob("*.gguf")) if path.is_dir() else path)
    return read_llama2c(path, tokenizer_beside(path))


def tokenizer_beside(path: Path) -> Path:
    """The tokenizer file of a llama2.c checkpoint: the one *tok*.bin in its folder.

    Raises:
        GroundupError: E-FORMAT-090 if there is none, or more than one.
    """
    found = sorted(other for other in path.parent.glob("*tok*.bin") if other != path)
    if len(found) == 1:
        return found[0]
    raise GroundupError(
        "E-FORMAT-090",
        f"a llama2.c checkpoint needs its tokenizer beside it; there are {len(found)}",
        where=printable(str(path)),
        why="the weights of llama2.c say nothing about the text of their ids",
        fix="put exactly one tokenizer file (tok512.bin, tokenizer.bin …) into the folder",
    )


def described(found: ForeignModel, path: Path) -> dict[str, Any]:
    """The fields of a `Described` model."""
    said = found.tokenizer
    if said is None:
        raise GroundupError(
            "E-FORMAT-091",
            "the model brings no tokenizer",
            where=printable(str(path)),
            why="without it, text cannot be turned into the ids that the weights were trained with",
            fix="copy tokenizer.json into the folder, from where the weights came from",
        )
    roles = TokenRoles(begin=said.begin, ends=said.ends, pad=said.pad, adds_begin=said.adds_begin)
    tokenizer = ForeignTokenizer(said.json, roles)
    chat = ChatTemplate(said.template, names=tokenizer.roles) if said.template else None
    head = HeadOptions.model_validate(found.head) if found.head else None
    options = FAMILIES[found.family][0].model_validate(found.options)
    return {"family": found.family, "options": options, "tokenizer": tokenizer, "chat": chat, "head": head}


def digest_of(path: Path) -> str:
    """A SHA-256 that names a model by the content of its files. A folder of groundup's own has their hashes in its
    manifest, which loading compares with the files; anything else is read."""
    if (path / "manifest.json").is_file():
        hashes = {name: entry.sha256 for name, entry in checkpoint.read_manifest(path).files.items()}
    else:
        files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
        hashes = {file.name: file_sha256(file) for file in files}
    return hashlib.sha256("".join(f"{name}\0{hashes[name]}\n" for name in sorted(hashes)).encode()).hexdigest()
