"""What every reader of this room gives: a model in groundup's own names, whatever file it came from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ForeignTokenizer:
    """A tokenizer as its file tells it.

    Attributes:
        json: the text of a tokenizer.json that the `tokenizers` library reads.
        begin: the token that every text begins with, if there is one.
        ends: tokens that end a generation, the one that ends a chat turn first; never empty.
        pad: the token that fills rows.
        adds_begin: whether plain text is encoded with `begin` in front.
        template: the chat template (Jinja), if there is one.
    """

    json: str
    begin: str | None
    ends: tuple[str, ...]
    pad: str
    adds_begin: bool
    template: str | None


class MadeOnDemand(Mapping[str, Tensor]):
    """Tensors that take memory only when they are asked for, each time anew, in float32."""

    @abstractmethod
    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which is not made for it."""


@dataclass(frozen=True)
class ForeignModel:
    """A model out of a foreign file.

    Attributes:
        kind: "hugging_face", "gguf" or "llama2c".
        family: a name in `groundup.models.FAMILIES`.
        options: fields of that family's options.
        tensors: by groundup's own names, in float32; a tied head is left out.
        tokenizer: None where the files bring none.
        details: what `inspect` shows besides: the names and sizes of the files, data types, quantization.
        oddities: what a careful reader should know, one sentence each.
        head: for a body with a task head or a pooling: {"kind", "labels", "pooling", …}; see models/heads.py.
    """

    kind: str
    family: str
    options: dict[str, Any]
    tensors: Mapping[str, Tensor]
    tokenizer: ForeignTokenizer | None
    details: dict[str, Any] = field(default_factory=dict)
    oddities: tuple[str, ...] = ()
    head: dict[str, Any] | None = None
