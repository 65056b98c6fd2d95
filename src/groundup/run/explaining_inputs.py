"""One row, image or text made ready to be explained: prepared exactly as for a prediction, with what stands for
"nothing there" and with the columns, regions or words that its numbers belong to.

Shapes: F features, C channels, H height, W width, T tokens, D width of an embedding, N points, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.data.image_set import Preparation
from groundup.data.table_cells import Cell, is_missing
from groundup.data.table_rows import TableRow
from groundup.data.table_scaler import Preprocessor
from groundup.data.table_set import make_part
from groundup.data.table_stream import collate
from groundup.models.heads import Headed
from groundup.models.predictor import Predictor
from groundup.run.networks import NetworkSaid
from groundup.text.rows import RowEncoder
from groundup.text.tokenizer import AnyTokenizer, StreamDecoder

REGIONS = 7
"""Squares along the longer side of an image that are named."""

ZERO_OF = {
    "standard": "every number at its training mean",
    "minmax": "every number at its least training value",
    "robust": "every number at its training median",
    "none": "every number at 0",
}
WIDE = "\u2e80"
"""From here on scripts write no spaces between words."""


class Input(NamedTuple):
    """One input, ready.

    Attributes:
        kind: "table", "image" or "text".
        place: where it stands.
        input_X: what goes in.
        baseline_X: what stands for nothing there; `baseline` says so in words.
        answers: the network, from inputs (N, *X) to logits (N, L) or values (N,).
        group_X: int64, the number of the part that each number belongs to, -1 none; it broadcasts to the input.
        names: of the parts: a name, and the cell of a column.
        side: pixels of the side of a region of an image.
        image_CHW: uint8, in the form that the model was trained on.
        cut: tokens of a text that did not fit into the context.
    """

    kind: str
    place: str
    input_X: Tensor
    baseline_X: Tensor
    baseline: str
    answers: Callable[[Tensor], Tensor]
    group_X: Tensor
    names: list[tuple[str, str | None]]
    side: int = 0
    image_CHW: NDArray[np.uint8] | None = None
    cut: int = 0


def table_input(
    model: Predictor, said: NetworkSaid, fitted: Preprocessor, scaling: str, row: TableRow, device: torch.device
) -> Input:
    """A row of a table: a part is a column of the table, whatever columns of features were made of it.

    Args:
        model: the network; `said` is what its folder says of it.
        fitted: how cells become numbers; `scaling` is the kind of it.
        row: with its cells.
        device: of the network.

    Raises:
        GroundupError: what reading the cells raises.
    """
    part = make_part([row], fitted, said.kind, said.labels, labelled=False)  # type: ignore[arg-type]
    columns = [*fitted.numeric, *fitted.categorical]
    zero = [ZERO_OF[scaling]] if fitted.numeric else []
    zero += ["no category anywhere"] if fitted.categorical else []
    batch = collate(part, np.zeros(1, dtype=np.int64), said.kind)  # type: ignore[arg-type]
    with torch.no_grad():  # of a category that is embedded, what goes in is its vector, and that of no category is zero
        input_F = model.inputs({name: one.to(device) for name, one in batch.items()})[0]
    return Input(
        "table",
        row.place,
        input_F,
        torch.zeros_like(input_F),
        ", ".join(zero),
        model.answers,
        torch.tensor([columns.index(owner) for owner in _owners(fitted, said.embeddings)]),
        [(name, _shown(row.cells[name])) for name in columns],
    )


def image_input(
    model: Predictor, prepare: Preparation, image_CHW: NDArray[np.uint8], place: str, device: torch.device
) -> Input:
    """An image in the form that the model was trained on: parts are squares of a grid."""
    input_CHW = prepare.to_model(prepare.to_unit(image_CHW[None]))[0].to(device)
    _, height, width = image_CHW.shape
    side = -(-max(height, width) // REGIONS)
    down, across = torch.arange(height)[:, None] // side, torch.arange(width) // side
    tops, lefts = range(0, height, side), range(0, width, side)
    return Input(
        "image",
        place,
        input_CHW,
        prepare.to_model(prepare.to_unit(np.zeros_like(image_CHW[None])))[0].to(device),
        "a black image",
        lambda points_NCHW: model({model.reads: points_NCHW}),
        (down * len(lefts) + across)[None],
        [
            (f"rows {_span(top, side, height)}, columns {_span(left, side, width)}", None)
            for top in tops
            for left in lefts
        ],
        side,
        image_CHW,
    )


def text_input(
    model: Headed,
    tokenizer: AnyTokenizer,
    text: str,
    place: str,
    device: torch.device,
    *,
    longest: int | None = None,
) -> Input:
    """A text: what goes in are the embeddings of its tokens, and a part is a word. The tokens around the text, which
    its tokenizer adds, are the same in the baseline. Of a text with more than `longest` tokens (without it the model's
    context) the beginning is kept."""
    encoder, inner = RowEncoder(tokenizer), tokenizer.encode(text)
    ids, _ = encoder.encode(text)
    opening = len(ids) - len(inner) - encoder.closing
    kept = inner[: max(0, (longest or model.context) - opening - encoder.closing)]
    ids = [*ids[:opening], *kept, *ids[len(ids) - encoder.closing :]]
    tokens_1T = torch.tensor([ids], device=device)
    with torch.no_grad():
        input_TD = model.embedding(tokens_1T)[0]
    words = words_of(tokenizer, kept)
    group_T = torch.full((len(ids),), -1)
    for number, (start, end, _) in enumerate(words):
        group_T[opening + start : opening + end] = number
    baseline_TD = input_TD.clone()
    baseline_TD[opening : opening + len(kept)] = 0.0
    return Input(
        "text",
        place,
        input_TD,
        baseline_TD,
        "tokens of the text whose embeddings are all 0",
        lambda points_NTD: _headed(model, tokens_1T, points_NTD),
        group_T[:, None],
        [(word, None) for _, _, word in words],
        cut=len(inner) - len(kept),
    )


def words_of(tokenizer: AnyTokenizer, ids: Sequence[int]) -> list[tuple[int, int, str]]:
    """The words that tokens spell: first token, token behind the last, text with the space before it.

    A character whose bytes are several tokens is never divided; a script without spaces has a word for each token.
    """
    decoder = StreamDecoder(tokenizer)
    words: list[tuple[int, int, str]] = []
    start = 0
    for place, id in enumerate(ids):
        piece = decoder.push(id)
        if not piece and place + 1 < len(ids):
            continue
        if words and piece and _goes_on(words[-1][2][-1:], piece[0]):
            words[-1] = (words[-1][0], place + 1, words[-1][2] + piece)
        else:
            words.append((start, place + 1, piece))
        start = place + 1
    return words


def _goes_on(before: str, after: str) -> bool:
    return before.isalnum() and after.isalnum() and max(before, after) < WIDE


def _headed(model: Headed, tokens_1T: Tensor, points_NTD: Tensor) -> Tensor:
    """The model's answers where the embeddings of its tokens are these."""
    count, length, _ = points_NTD.shape
    position_T = torch.arange(length, device=tokens_1T.device)
    batch = {
        "tokens_BT": tokens_1T.expand(count, length),
        "position_BT": position_T.expand(count, length),
        "document_BT": torch.zeros_like(tokens_1T).expand(count, length),
    }
    hook = model.embedding.register_forward_hook(lambda *_: points_NTD)
    # cuDNN has no backward pass for recurrent networks in evaluation mode
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    try:
        with torch.backends.cudnn.flags(enabled=not recurrent):
            answer: Tensor = model(batch)
            return answer
    finally:
        hook.remove()


def _owners(fitted: Preprocessor, embeddings: Sequence[tuple[int, int]]) -> list[str]:
    """The column of the table that each number comes from: in the order of `Preprocessor.names`, then those of the
    embeddings."""
    owners = [*fitted.numeric]
    owners += [number.name for number in fitted.numbers if number.indicator]
    owners += [category.name for category in fitted.categories if category.indicator]
    sizes = [width for _, width in embeddings] or [category.size for category in fitted.categories]
    for category, size in zip(fitted.categories, sizes, strict=True):
        owners += [category.name] * size
    return owners


def _shown(cell: Cell) -> str:
    return "missing" if is_missing(cell) else f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _span(start: int, side: int, most: int) -> str:
    """Lines of an image, from 1."""
    last = min(start + side, most)
    return f"{start + 1}–{last}" if last > start + 1 else f"{last}"
