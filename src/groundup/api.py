"""A loaded model and what can be asked of it: text, answers, measurements.

This is where generation and evaluation meet a tokenizer, a chat template and files; the rooms themselves
know none of the others. `groundup.load(path)` makes the object; the command line calls the same methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from groundup.contract import LanguageModel
from groundup.errors import GroundupError, printable
from groundup.evaluation import (
    METRICS,
    AnswerExample,
    AnswerScores,
    TextScores,
    choose_metrics,
    compare,
    measure,
    parts_for,
    score_answers,
    score_documents,
    spread_bytes,
)
from groundup.inference import Piece, SampleOptions, generate, sample_options
from groundup.inference.answer import Ask
from groundup.inference.engine import Runner, stream
from groundup.inference.packed import Precision
from groundup.models.heads import Headed
from groundup.run.abilities import require_decoder, require_head
from groundup.run.engines import answer_prompts
from groundup.run.evaluation_texts import MALFORMED_LIMIT, Conversation, EvaluationData, read_evaluation_files
from groundup.text.rows import opening_ids
from groundup.text.tokenizer import AnyTokenizer, StreamDecoder

if TYPE_CHECKING:
    from groundup.run.models import Described
    from groundup.text.chat import ChatTemplate

Reader = Callable[[Sequence[str | Path]], EvaluationData]


class LoadedModel:
    """A model with everything it needs to read and write text.

    Args:
        model: any decoder of the contract, on `device`.
        tokenizer: the one it was trained with.
        chat_template: renders conversations; None for a model that was never taught to chat.
        device: where the model is.
        name: how messages and results call it, usually its path.
        said: what its folder says of it, if it has one.
        autocast: dtype of the matrix products when measuring, or None for the model's own.
    """

    def __init__(
        self,
        *,
        model: LanguageModel,
        tokenizer: AnyTokenizer,
        chat_template: ChatTemplate | None = None,
        device: torch.device | str = "cpu",
        name: str = "model",
        said: Described | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.device = torch.device(device)
        self.name = name
        self.said = said
        self.autocast = autocast
        self._runner: Runner | None = None

    def generate(self, prompt: str, **options: object) -> str:
        """The text that follows `prompt`, without it. `options` are the fields of SampleOptions.

        Raises:
            GroundupError: E-GEN-001 for options out of range, E-GEN-003 for a prompt over the context.
        """
        return "".join(piece.text for piece in self.stream(prompt, **options))

    def stream(self, prompt: str, **options: object) -> Iterator[Piece]:
        """As `generate`, piece by piece; the last piece says how it ended ("stop" or "length")."""
        return self._pieces(opening_ids(self.tokenizer, self.tokenizer.encode(prompt)), options)

    def chat(self, messages: Conversation, **options: object) -> str:
        """The assistant's next turn.

        Args:
            messages: `{"role": …, "content": …}` in order, the last one the user's.
            options: the fields of SampleOptions.

        Raises:
            GroundupError: as `generate`; E-GEN-007 for a model without a chat template.
        """
        return "".join(piece.text for piece in self.stream_chat(messages, **options))

    def stream_chat(self, messages: Conversation, **options: object) -> Iterator[Piece]:
        """As `chat`, piece by piece."""
        rendered = self.require_chat().render(messages, self.tokenizer, add_generation_prompt=True)
        return self._pieces(list(rendered.ids), options)

    def pack(self, precision: Precision) -> str:
        """Write answers on packed weights from now on, and say how that is done: "compiled, int8", or why it is not.

        Args:
            precision: "float32", "bfloat16", "int8" or "int4". Measuring goes on with the weights as they are.
        """
        from groundup.run.engines import runner_for

        require_decoder(self.model, self.name)
        self._runner, form = runner_for(self.model, precision)  # type: ignore[arg-type]
        return f"{form.kind}, {form.precision}" + (f" ({form.reason})" if form.reason else "")

    def _pieces(self, prompt: list[int], options: Mapping[str, object]) -> Iterator[Piece]:
        require_decoder(self.model, self.name)
        if self._runner is not None:
            ask = Ask(prompt, sample_options(options), self.tokenizer.end_ids, StreamDecoder(self.tokenizer))
            return stream(self._runner, ask)
        return generate(
            self.model,
            prompt,
            sample_options(options),
            end_ids=self.tokenizer.end_ids,
            decoder=StreamDecoder(self.tokenizer),
        )

    def require_chat(self) -> ChatTemplate:
        """The chat template. Raises E-GEN-007 for a model that was never taught to answer, E-GEN-008 for one that
        writes no text."""
        require_decoder(self.model, self.name)
        if self.chat_template is None:
            raise GroundupError(
                code="E-GEN-007",
                what="the model has no chat template",
                where=printable(self.name),
                why="it was pretrained only: it goes on with a text, it was never taught to answer",
                fix=f"groundup generate {printable(self.name)} --prompt TEXT   (goes on with a text)\n"
                "or fine-tune it on questions and answers first",
                exit_code=2,
            )
        return self.chat_template

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """What a headed model says of each text; see run/predicting.py for the fields by kind of head.

        Raises:
            GroundupError: E-EVAL-022 for a model that writes text and has no head.
        """
        from groundup.run.predicting import predict_rows

        head = require_head(self.model, self.name)
        return predict_rows(head, self.tokenizer, texts, device=self.device, autocast=self.autocast)

    def predict_files(
        self, files: Sequence[str | Path], *, column: str | None = None
    ) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """`predict` for the rows of files: [{file, line, text, …}], and how many rows were set aside for what."""
        from groundup.run.predicting import read_texts

        require_head(self.model, self.name)
        rows, aside = read_texts(files, column)
        said = self.predict([row["text"] for row in rows])
        return [row | answer for row, answer in zip(rows, said, strict=True)], aside

    def evaluate(
        self,
        files: Sequence[str | Path],
        metrics: Sequence[str] = (),
        against: LoadedModel | None = None,
        *,
        max_tokens: int = 256,
        seed: int = 0,
        read: Reader | None = None,
    ) -> dict[str, Any]:
        """Measure the model on files of texts, of questions with answers, or both.

        Args:
            files: text, .jsonl, .json, .csv or .parquet, each also .gz; folders and globs too. Rows with a
                field `text` are texts, rows in a layout for fine-tuning are questions with answers.
            metrics: names out of `groundup.evaluation.METRICS`; none means all that the files allow.
            against: an earlier model; each metric is judged better, worse or within noise beside it.
            max_tokens: longest greedy answer.
            seed: of the bootstrap.
            read: reads the files; the default is `read_evaluation_files`.

        Returns:
            `metrics` {name: {value, low, high, unit}}, `comparison` (a list, with `against`), and what was
            measured: `documents`, `bytes`, `examples`, `set_aside`, `not_compared`.

        Raises:
            GroundupError: E-EVAL-001, 002 for metrics, 004, 005 for files.
        """
        from groundup.run.measuring_rows import another_question, evaluate_rows

        if against is not None and not isinstance(against, LoadedModel):
            raise another_question(self.name, "a language model", against.name)
        if isinstance(self.model, Headed):
            return evaluate_rows(self, files, metrics, against, limit=MALFORMED_LIMIT, seed=seed)
        for model in filter(None, (self, against)):
            require_decoder(model.model, model.name)
        return self._evaluate_text(files, metrics, against, max_tokens, seed, read or read_evaluation_files)

    def _evaluate_text(
        self,
        files: Sequence[str | Path],
        metrics: Sequence[str],
        against: LoadedModel | None,
        max_tokens: int,
        seed: int,
        read: Reader,
    ) -> dict[str, Any]:
        data = read(files)
        kinds = [kind for kind, rows in (("text", data.texts), ("answers", data.conversations)) if rows]
        if not kinds:
            raise _nothing_to_measure(files, data)
        names = choose_metrics(metrics, kinds)
        models = [self] if against is None else [self, against]
        examples, too_long = _examples(models, data.conversations)
        if data.conversations and not examples[0] and not data.texts:
            raise _nothing_to_measure(files, data)
        found: dict[str, Any] = {
            "model": self.name,
            "against": None if against is None else against.name,
            "files": [str(file) for file in files],
            "documents": len(data.texts),
            "bytes": sum(len(text.encode()) for text in data.texts),
            "examples": len(examples[0]),
            "set_aside": dict(sorted(data.set_aside.items())),
            "metrics": {},
            "comparison": [],
            "not_compared": [],
        }
        if too_long:
            found["set_aside"]["prompt fills the context"] = too_long
        for kind in kinds:
            wanted = [name for name in names if METRICS[name].data == kind]
            if not wanted or (kind == "answers" and not examples[0]):
                continue
            write = wanted != ["answer_loss"]
            scores = [m._scores(kind, data.texts, e, max_tokens, write) for m, e in zip(models, examples)]
            one_tokenizer = len({model.tokenizer.digest for model in models}) == 1
            _enter(found, wanted, scores, one_tokenizer, seed)
        return found

    def _scores(
        self, kind: str, texts: list[str], examples: list[AnswerExample], max_tokens: int, write: bool
    ) -> TextScores | AnswerScores:
        if kind == "text":
            return self._score_texts(texts)
        return self._score_answers(examples, max_tokens, write)

    def _score_texts(self, texts: Sequence[str]) -> TextScores:
        sizes = [len(text.encode()) for text in texts]
        nats, targets = score_documents(
            self.model,
            [np.array(self.tokenizer.document_ids(ids)) for ids in self.tokenizer.encode_batch(list(texts))],
            context=self.model.context,
            stride=max(1, self.model.context // 2),
            parts=parts_for(sizes),
            device=self.device,
            autocast=self.autocast,
        )
        text_bytes = spread_bytes(sizes, targets)
        return TextScores(nats.ravel(), targets.ravel().astype(np.float64), text_bytes.ravel())

    def _score_answers(self, examples: Sequence[AnswerExample], max_tokens: int, write: bool) -> AnswerScores:
        def answer(prompts: list[list[int]]) -> list[tuple[str, bool]]:
            options = SampleOptions(max_tokens=max_tokens)
            results = answer_prompts(self.model, prompts, options, end_ids=self.tokenizer.end_ids)
            return [(self.tokenizer.decode(r.ids), r.finish == "stop") for r in results]

        return score_answers(
            self.model,
            examples,
            answer if write else None,
            context=self.model.context,
            device=self.device,
            autocast=self.autocast,
        )

    def _example(self, conversation: Conversation) -> AnswerExample:
        """The ids, mask and reference of a conversation that ends with the assistant's turn."""
        template = self.require_chat()
        whole = template.render(conversation, self.tokenizer)
        prompt = template.render(conversation[:-1], self.tokenizer, add_generation_prompt=True)
        learn = np.array([bool(value) for value in whole.trainable])
        return AnswerExample(list(prompt.ids), np.array(whole.ids), learn, str(conversation[-1]["content"]))


def _enter(
    found: dict[str, Any],
    names: list[str],
    scores: Sequence[TextScores | AnswerScores],
    one_tokenizer: bool,
    seed: int,
) -> None:
    """Enter the metrics of the first scores into `found`, and their comparison with the second, if any."""
    for name in names:
        value = measure(name, scores[0], seed=seed)
        found["metrics"][name] = value.as_dict() | {"unit": METRICS[name].unit}
    if len(scores) == 2:
        fair = [name for name in names if one_tokenizer or not METRICS[name].per_token]
        found["not_compared"] += [name for name in names if name not in fair]
        found["comparison"] += [row.as_dict() for row in compare(scores[1], scores[0], fair, seed=seed)]


def _examples(
    models: Sequence[LoadedModel], conversations: Sequence[Conversation]
) -> tuple[list[list[AnswerExample]], int]:
    """The conversations that every model has room to answer, for each model, and how many were left out."""
    examples = [[model._example(c) for c in conversations] for model in models]
    fits = [
        all(len(own[i].prompt) < model.model.context for model, own in zip(models, examples))
        for i in range(len(conversations))
    ]
    return [[e for e, fit in zip(own, fits) if fit] for own in examples], len(fits) - sum(fits)


def _nothing_to_measure(files: Sequence[str | Path], data: EvaluationData) -> GroundupError:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(data.set_aside.items()))
    return GroundupError(
        code="E-EVAL-004",
        what="the files hold nothing that can be measured",
        where=printable(", ".join(str(file) for file in files)),
        why=f"rows set aside: {reasons}" if reasons else "there is no text and no answer in them that fits",
        fix="groundup data check FILE   (shows what is in a file)",
    )
