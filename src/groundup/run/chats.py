"""A recipe's conversations: read, rendered by the one chat template, fitted to the context, packed.

The same rendering serves training, evaluation and chat: a held-out question is rendered here exactly as the
command line renders it later.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.chat_layout import Message
from groundup.data.chat_rows import ChatLedger, ChatOptions, Row, SetAside, fit, read_chat
from groundup.data.pack import ChatPacker, Conversation
from groundup.data.stream import PackedStream
from groundup.errors import GroundupError
from groundup.evaluation.answers import AnswerExample
from groundup.recipe.tree import ChatData, Recipe
from groundup.run.cards import write_card, write_quarantine
from groundup.text.chat import DEFAULT_TEMPLATE, ChatTemplate, Rendered
from groundup.text.tokenizer import AnyTokenizer

Say = Callable[[str], None]


@dataclass
class PreparedChats:
    """Rendered conversations and what became of every row."""

    tokenizer: AnyTokenizer
    template: ChatTemplate
    train: list[Conversation]
    held_out: list[AnswerExample]
    questions: list[str]
    ledger: dict[str, Any]
    bytes_per_target: float
    shown: list[Rendered] = field(default_factory=list)


def chat_template(data: ChatData, model_template: ChatTemplate | None) -> ChatTemplate:
    """The recipe's template file, else the model's own, else groundup's."""
    if data.template is None:
        return model_template or ChatTemplate(DEFAULT_TEMPLATE)
    path = Path(data.template).expanduser()
    try:
        return ChatTemplate(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise GroundupError(
            "E-CHAT-020",
            f"the chat template cannot be read: {error}",
            where=f"data.template: {path}",
            why="without it conversations cannot be turned into ids",
            fix="set data.template to a Jinja file in UTF-8, or leave it out for the model's own template",
            exit_code=2,
        ) from error


def prepare_chats(
    recipe: Recipe,
    tokenizer: AnyTokenizer,
    model_template: ChatTemplate | None,
    *,
    context: int,
    folder: Path | None,
    show: int = 0,
) -> PreparedChats:
    """Read all rows and make them ready.

    Args:
        recipe: with chat data.
        tokenizer: of the model.
        model_template: of the model to go on with.
        context: longest row, in tokens.
        folder: where card.json and quarantine.jsonl go; None writes nothing.
        show: rendered training rows to keep for display.
    """
    data = recipe.data
    assert isinstance(data, ChatData)
    template = chat_template(data, model_template)
    options = ChatOptions(**{name: dict(data)[name] for name in ChatOptions.model_fields})
    ledger = ChatLedger()
    aside: list[SetAside] = []
    share = 0.0 if data.held_out_files else data.held_out
    train_rows, held_rows = _read(data.files, options, ledger, aside, share)
    if data.held_out_files:
        held_ledger = ChatLedger()
        both = _read(data.held_out_files, options, held_ledger, aside, 0.0)
        held_rows = [*both[0], *both[1]]
        train_rows = _without(train_rows, held_rows, ledger)
    outcomes: Counter[str] = Counter()
    rendered = template.render_batch([plain(row.messages) for row in train_rows], tokenizer, train_on=data.train_on)
    train, trained_bytes, targets, cut = [], 0, 0, 0
    for row, one in zip(train_rows, rendered, strict=True):
        where = f"{row.file}:{row.line}"
        ids, mask, outcome = fit(one.ids, one.trainable, context + 1, data.over_long, where)
        outcomes[outcome] += 1
        cut += len(one.ids) - len(ids)
        if ids:
            train.append(Conversation(np.array(ids, dtype=np.int64), np.array(mask)))
            targets += sum(mask)
            trained_bytes += sum(len(tokenizer.token_bytes(i)) for i, m in zip(ids, mask) if m)
    if not train:
        raise _nothing_left(outcomes, context)
    card = {"rows": ledger.as_dict(), "fit": dict(outcomes), "cut_tokens": cut, "held_out_rows": len(held_rows)}
    card |= {"template": template.digest, "tokenizer": tokenizer.digest, "files": data.files}
    if folder is not None:
        write_card(folder, card)
        write_quarantine(folder, aside)
    held, questions = _examples(held_rows, template, tokenizer, context)
    per_target = trained_bytes / max(1, targets)
    return PreparedChats(tokenizer, template, train, held, questions, card, per_target, rendered[:show])


def plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as the dicts that a template takes."""
    return [dict(message) for message in messages]


def _read(
    files: list[str], options: ChatOptions, ledger: ChatLedger, aside: list[SetAside], share: float
) -> tuple[list[Row], list[Row]]:
    train: list[Row] = []
    held: list[Row] = []
    for item in read_chat(files, options, ledger, held_out=share):
        if isinstance(item, SetAside):
            aside.append(item)
        else:
            (held if item.held_out else train).append(item)
    return train, held


def _without(rows: list[Row], held: list[Row], ledger: ChatLedger) -> list[Row]:
    """The training rows whose conversation is not among the held-out ones (D10)."""
    known = {json.dumps(row.messages, sort_keys=True) for row in held}
    kept = [row for row in rows if json.dumps(row.messages, sort_keys=True) not in known]
    if len(kept) < len(rows):
        ledger.set_aside["also stands in the held-out files"] += len(rows) - len(kept)
        ledger.kept -= len(rows) - len(kept)
    return kept


def _examples(
    rows: list[Row], template: ChatTemplate, tokenizer: AnyTokenizer, context: int
) -> tuple[list[AnswerExample], list[str]]:
    """Held-out conversations with their last answer as the reference, and what was asked last in each; those
    that do not fit are left out."""
    whole = template.render_batch([plain(row.messages) for row in rows], tokenizer, train_on="last")
    asked = template.render_batch([plain(row.messages[:-1]) for row in rows], tokenizer, add_generation_prompt=True)
    examples, questions = [], []
    for row, answered, question in zip(rows, whole, asked, strict=True):
        if len(answered.ids) <= context and any(answered.trainable):
            ids, learn = np.array(answered.ids, dtype=np.int64), np.array(answered.trainable)
            examples.append(AnswerExample(list(question.ids), ids, learn, row.messages[-1]["content"]))
            questions.append(row.messages[-2]["content"] if len(row.messages) > 1 else "")
    return examples, questions


def chat_stream(recipe: Recipe, prepared: PreparedChats) -> PackedStream:
    """The training stream of a resolved recipe."""
    packer = ChatPacker(
        prepared.train,
        context=recipe.data.context or 0,
        seed=recipe.seed,
        pad_id=prepared.tokenizer.pad_id,
    )
    rows = recipe.budget.micro_batch or 1
    return PackedStream({"main": packer}, weights={"main": 1.0}, rows=rows, seed=recipe.seed)


def _nothing_left(outcomes: Counter[str], context: int) -> GroundupError:
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(outcomes.items()))
    return GroundupError(
        "E-DATA-091",
        "no row is left to learn from after fitting to the context",
        where=f"data.context {context}: {counts}",
        why="rows longer than the context are dropped or cut, and a row without an answer teaches nothing",
        fix="set data.context to a larger number, or data.over_long=cut",
    )
