"""A headed model on rows from files: labels with probabilities, numbers, tags or embeddings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup.data.chat_records import read_records
from groundup.data.labelled_columns import TEXT_NAMES
from groundup.data.labelled_examples import Example, Piece
from groundup.data.labelled_stream import batches
from groundup.data.sources import ByteStream, open_sources
from groundup.errors import GroundupError, nearest, printable
from groundup.functional import evaluating
from groundup.models.heads import Headed
from groundup.models.predictor import Predictor
from groundup.text.rows import RowEncoder
from groundup.text.tokenizer import AnyTokenizer

ROWS_AT_ONCE = 64
MOST_LABELS = 5


def read_texts(
    files: Sequence[str | Path], column: str | None, usual: Sequence[str] = TEXT_NAMES["classify"]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The rows of files: [{file, line, text}], and how many were set aside for which reason. A plain text file has
    one row a line; of a table it is `column`, or the first of the `usual` ones.

    Raises:
        GroundupError: E-EVAL-020 no row has the column, or a column that is usual for a text.
    """
    rows: list[dict[str, Any]] = []
    aside: Counter[str] = Counter()
    seen: set[str] = set()
    for source in open_sources([str(file) for file in files], [])[0]:
        if source.format == "text":
            with ByteStream(source) as stream:
                content = b"".join(iter(lambda: stream.read(1 << 20), b""))
            lines = content.decode("utf-8-sig", errors="replace").split("\n")  # as everywhere, no other sign ends one
            rows += [
                {"file": source.name, "line": number, "text": line.removesuffix("\r")}
                for number, line in enumerate(lines, 1)
                if line.strip()
            ]
            continue
        for record in read_records(source):
            fields = record.fields
            if fields is None:
                aside[record.problem or "malformed"] += 1
                continue
            seen.update(fields)
            name = column or next((name for name in usual if name in fields), None)
            text = fields.get(name) if name is not None else None
            if not isinstance(text, str) or not text.strip():
                aside[f"no text in {name or 'a usual column'}"] += 1
                continue
            rows.append({"file": source.name, "line": record.line, "text": text})
    if not rows:
        raise _no_text(files, column, sorted(seen))
    return rows, dict(aside)


@torch.inference_mode()
def predict_rows(
    model: Headed,
    tokenizer: AnyTokenizer,
    texts: Sequence[str],
    *,
    device: torch.device,
    autocast: torch.dtype | None,
) -> list[dict[str, Any]]:
    """What the model says of each text: by kind of head {label, probability, probabilities}, {labels,
    probabilities}, {value}, {embedding} or {words, tags}.

    Raises:
        GroundupError: E-EVAL-021 for a head that chooses among candidates.
    """
    if model.kind == "choice":
        raise GroundupError(
            "E-EVAL-021",
            "a model that chooses among candidates cannot predict from texts alone",
            where="groundup predict",
            why="each row needs its own candidates",
            fix="groundup evaluate MODEL --files …   (rows with candidates)",
            exit_code=2,
        )
    encoder = RowEncoder(tokenizer)
    examples, words = [], []
    for text in texts:
        split = text.split()
        ids, segments = encoder.encode_words(split) if model.kind == "tag" else encoder.encode(text)
        if len(ids) > model.context:
            ids, segments = (_cut(row, model.context, encoder.closing) for row in (ids, segments or []))
        piece = Piece(np.array(ids, dtype=np.int64), None)
        examples.append(Example((piece,), None))
        words.append((split, segments))
    found: list[dict[str, Any]] = [{} for _ in texts]
    with evaluating(model), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        task: Any = "classify"  # any task with one text: the target is not looked at
        for batch, indices in batches(examples, task=task, rows=ROWS_AT_ONCE, pad_id=tokenizer.pad_id):
            answer = model({name: tensor.to(device) for name, tensor in batch.items()}).float().cpu()
            for index, row in zip(indices, answer, strict=True):
                found[int(index)] = answer_of(model, row, words[int(index)])
    return found


def _cut(row: list[int], longest: int, closing: int) -> list[int]:
    """The beginning of a row that is too long, and what closes it."""
    return [*row[: longest - closing], *row[len(row) - closing :]]


def answer_of(model: Headed | Predictor, answer: torch.Tensor, words: Any = None) -> dict[str, Any]:
    """One row's answer in words, by kind; see `predict_rows`. `words` is for tags."""
    if model.kind == "regress":
        return {"value": float(answer)}
    if model.kind == "embed":
        return {"embedding": answer.tolist()}
    if model.kind == "tag":
        split, number_of = words
        chosen = answer.argmax(dim=-1).tolist()
        first = {number: place for place, number in reversed(list(enumerate(number_of))) if number >= 0}
        places = [first.get(number, len(chosen)) for number in range(len(split))]
        return {"words": split, "tags": [model.labels[chosen[p]] if p < len(chosen) else None for p in places]}
    if model.kind == "multilabel":
        of_label = dict(zip(model.labels, answer.sigmoid().tolist()))
        return {"labels": [label for label, p in of_label.items() if p > 0.5], "probabilities": of_label}
    share = answer.softmax(dim=-1)
    order = share.argsort(descending=True)[:MOST_LABELS].tolist()
    return {
        "label": model.labels[order[0]],
        "probability": float(share[order[0]]),
        "probabilities": {model.labels[i]: float(share[i]) for i in order},
    }


def _no_text(files: Sequence[str | Path], column: str | None, seen: list[str]) -> GroundupError:
    near = nearest(column, seen) if column else None
    return GroundupError(
        "E-EVAL-020",
        f"no row has a text in {printable(column)!r}" if column else "no row has a column that is usual for a text",
        where=printable(", ".join(map(str, files))) + (f": columns {printable(', '.join(seen), 200)}" if seen else ""),
        why="there is nothing to predict from",
        fix=f"--text {near}" if near else "--text COLUMN   (names the column that holds the text)",
        exit_code=2,
    )
