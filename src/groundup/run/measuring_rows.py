"""`groundup evaluate` on a headed model: labelled rows of files, each metric with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.data.chat_rows import SetAside
from groundup.data.labelled_examples import encode_rows
from groundup.data.labelled_options import LabelledOptions
from groundup.data.labelled_rows import LabelledLedger, LabelledRow, read_rows
from groundup.errors import GroundupError, printable
from groundup.evaluation import METRICS, choose_metrics, compare, measure
from groundup.evaluation.metrics import LabelScores
from groundup.models.heads import Headed
from groundup.run.abilities import require_head
from groundup.run.answers import METRICS_OF, score_rows
from groundup.run.labels import TextRows
from groundup.text.rows import RowEncoder

if TYPE_CHECKING:
    from groundup.api import LoadedModel


def evaluate_rows(
    loaded: LoadedModel,
    files: Sequence[str | Path],
    metrics: Sequence[str],
    against: LoadedModel | None,
    *,
    limit: float,
    seed: int,
) -> dict[str, Any]:
    """What `LoadedModel.evaluate` returns, for a model with a head.

    Args:
        loaded: the model.
        files: tables with the columns of the head's task.
        metrics: names; none means all that the head allows.
        against: an earlier model with a head of the same kind and labels.
        limit: the largest share of malformed rows.
        seed: of the bootstrap.

    Raises:
        GroundupError: E-EVAL-001, 002 for metrics; E-EVAL-004 nothing to measure; E-EVAL-005 too many malformed
            rows; E-EVAL-023 the other model answers another question; E-DATA-100 for unknown columns.
    """
    head = require_head(loaded.model, loaded.name)
    if against is not None and not _alike(head, against.model):
        raise another_question(loaded.name, head.kind, against.name)
    own = METRICS_OF[head.kind]
    names = choose_metrics(metrics, [METRICS[own[0]].data]) if metrics else list(own)
    aside: Counter[str] = Counter()
    rows = _rows(head, files, aside, limit)
    scores = [_scores(model, rows) for model in (loaded, against) if model is not None]
    found = measured(loaded.name, against.name if against else None, files, len(rows), aside)
    found["metrics"] = {n: measure(n, scores[0], seed=seed).as_dict() | {"unit": METRICS[n].unit} for n in names}
    if against is not None:
        found["comparison"] = [row.as_dict() for row in compare(scores[1], scores[0], names, seed=seed)]
    return found


def measured(
    name: str, against: str | None, files: Sequence[str | Path], rows: int, aside: Mapping[str, int]
) -> dict[str, Any]:
    """What an evaluation of labelled rows begins with, before anything is measured."""
    return {
        "model": name,
        "against": against,
        "files": [str(file) for file in files],
        "documents": 0,
        "bytes": 0,
        "examples": 0,
        "rows": rows,
        "set_aside": dict(sorted(aside.items())),
        "metrics": {},
        "comparison": [],
        "not_compared": [],
    }


def another_question(name: str, kind: str, other: str) -> GroundupError:
    """E-EVAL-023: two models that cannot be compared row by row."""
    return GroundupError(
        "E-EVAL-023",
        "these two models do not answer the same question",
        where=f"{printable(name)}: {kind}; against {printable(other)}",
        why="only models of one kind, with the same labels if they have any, can be compared row by row",
        fix="name a model that was trained for the same, or leave --against out",
        exit_code=2,
    )


def _alike(head: Headed, other: object) -> bool:
    return isinstance(other, Headed) and (other.kind, list(other.labels)) == (head.kind, list(head.labels))


def _task(head: Headed) -> Any:
    """The task of a head. Which tokens are hidden is none: see `require_head`."""
    return head.kind


def _rows(head: Headed, files: Sequence[str | Path], aside: Counter[str], limit: float) -> list[LabelledRow]:
    ledger, rows = LabelledLedger(), list[LabelledRow]()
    options = LabelledOptions(files=[str(file) for file in files], task=_task(head))
    for item in read_rows(options.files, options, ledger, side="test"):
        if isinstance(item, SetAside):
            continue
        if unknown := sorted(set(item.labels) - set(head.labels)) if head.labels else []:
            aside[f"the model has no label {printable(unknown[0])}"] += 1
        else:
            rows.append(item)
    aside.update(ledger.set_aside)
    require_measurable(options.files, len(rows), ledger, aside, limit)
    return rows


def require_measurable(
    files: Sequence[str], kept: int, ledger: LabelledLedger, aside: Mapping[str, int], limit: float
) -> None:
    """Enough of the rows are there to stand for their files.

    Raises:
        GroundupError: E-EVAL-005 more malformed rows than the share `limit`, E-EVAL-004 none is left.
    """
    shown = ", ".join(f"{count} {reason}" for reason, count in sorted(aside.items()))
    if ledger.malformed > limit * ledger.rows:
        raise GroundupError(
            "E-EVAL-005",
            f"{ledger.malformed} of {ledger.rows} rows are malformed (limit {limit:.0%})",
            where=printable(", ".join(files)) + f": {shown}",
            why="a number measured on part of a file would be taken for the whole",
            fix="groundup data check FILE   (shows the rows)",
        )
    if not kept:
        raise GroundupError(
            "E-EVAL-004",
            "the files hold nothing that can be measured",
            where=printable(", ".join(files)),
            why=f"rows set aside: {shown}" if shown else "there is no row in them",
            fix="groundup inspect MODEL   (shows the head's labels), groundup data check FILE",
        )


def _scores(loaded: LoadedModel, rows: Sequence[LabelledRow]) -> LabelScores:
    head, encoder = loaded.model, RowEncoder(loaded.tokenizer)
    assert isinstance(head, Headed)
    encoded = encode_rows(
        rows,
        task=_task(head),
        labels=head.labels,
        encode=encoder.encode,
        encode_words=encoder.encode_words,
        max_length=head.context,
        keep_last=encoder.closing,
    )
    chosen = TextRows(encoded.examples, head.kind, loaded.tokenizer.pad_id)
    return score_rows(head, chosen, device=loaded.device, autocast=loaded.autocast)
