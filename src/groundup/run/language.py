"""Language: running text, conversations and labelled texts as work for a run. Of the three one is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.adapters import Growth, is_adapted, merge, unfreeze_at, unfreezing_steps
from groundup.contract import Batch, Objective, Source
from groundup.errors import GroundupError
from groundup.machine.ceiling import choose_precision, resolve_device
from groundup.machine.memory import steady_allocator
from groundup.models import READERS, FamilyOptions
from groundup.models.heads import HeadOptions
from groundup.models.recurrent_text import RecurrentTextOptions
from groundup.objectives import OBJECTIVES
from groundup.recipe.resolve import architecture, preset_difference, resolve
from groundup.recipe.tree import ChatData, LabelledData, Recipe, TextData
from groundup.run import measuring, models
from groundup.run.chats import PreparedChats, chat_stream, prepare_chats
from groundup.run.foreign import digest_of
from groundup.run.foresight import dry_batch, foresee
from groundup.run.growing import grown
from groundup.run.labels import PreparedLabels, head_options, label_stream, prepare_labels
from groundup.run.masked import hides_tokens
from groundup.run.results import Scores
from groundup.run.texts import PreparedTexts, own_tokenizer, prepare_texts, text_stream
from groundup.run.weights import model_is_tied
from groundup.run.work import Memory, Say, Work, by_part_and_layer
from groundup.text.chat import ChatTemplate
from groundup.text.foreign import ForeignTokenizer
from groundup.text.tokenizer import AnyTokenizer

LARGE_MODEL = 50_000_000
"""Parameters from which memory matters more than the seconds that it costs to give it back."""


@dataclass(kw_only=True)
class LanguageWork(Work):
    """A language model, or a head on one, and what it learns from."""

    family: str
    options: FamilyOptions
    tokenizer: AnyTokenizer
    template: ChatTemplate | None = None
    head: HeadOptions | None = None
    texts: PreparedTexts | None = None
    chats: PreparedChats | None = None
    labels: PreparedLabels | None = None
    base: models.Base | None = None
    growth: Growth | None = None

    def source(self) -> Source:
        """A fresh training stream."""
        if self.chats is not None:
            return chat_stream(self.recipe, self.chats)
        if self.labels is not None:
            return label_stream(self.recipe, self.labels)
        assert self.texts is not None
        return text_stream(self.recipe, self.texts)

    @property
    def rows_per_epoch(self) -> int:
        """Rows in one pass over the training data."""
        if self.labels is not None:
            return len(self.labels.parts["train"].examples)
        stream = self.source()
        return sum(packer.rows(0) for packer in stream.packers.values())  # type: ignore[attr-defined]

    def rehearsal_batch(self) -> Batch:
        """A micro-batch of the longest length."""
        return dry_batch(self.recipe, self.tokenizer, self.labels)

    def network(self) -> nn.Module:
        """The model with its first weights, adapted: drawn from the seed, or those of init_from."""
        recipe = self.recipe
        if self.init_from is None:
            model = models.initialised(self.family, self.options, self.device, recipe.seed, self.head)
        else:
            loaded = models.load(self.init_from, self.device)
            if is_adapted(loaded.model):
                merge(loaded.model)  # the base of this run is the model as it answers now
                own = models.body_of(loaded.model).options  # an adapted head is tied no more
                self.options = own.model_copy(update={"vocabulary": self.options.vocabulary})
            model = models.with_head(loaded, self.head, seed=recipe.seed).train()
        models.adapt(model, recipe.adapters, seed=recipe.seed, growth=self.growth)
        return model

    def stand_in(self) -> nn.Module:
        """A network of the run's sizes, adapted, with small random values and the most that is ever trained."""
        model = models.initialised(self.family, self.options, self.device, 0, self.head)
        models.adapt(model, self.recipe.adapters, seed=0, growth=self.growth)
        for options in self.freezing:
            unfreeze_at(model, options, unfreezing_steps(options)[-1])
        return model

    def meta_model(self) -> nn.Module:
        """The network without memory and without adapters, to count and to name."""
        with torch.device("meta"):
            return models.network(self.family, self.options, self.head)

    def objective(self, model: nn.Module) -> Objective:
        """The objective that the recipe names, on a model."""
        options = self.recipe.objective
        assert options is not None
        kind: Callable[..., Objective] = OBJECTIVES[options.kind][1]
        if options.kind in ("classify", "tag"):
            assert self.labels is not None
            return kind(options, model, self.labels.counts)
        return kind(options, model)

    def blocks(self, model: nn.Module) -> nn.ModuleList:
        """The layers of the body."""
        layers: nn.ModuleList = models.body_of(model).layers
        return layers

    @property
    def on_base(self) -> bool:
        """Whether checkpoints and the model keep only what is trained, and name the base they belong to."""
        return models.keeps_base(self.recipe.adapters)

    def kept_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """The tensors of a finished model: all of them, or those that were trained on a base."""
        return models.trained_tensors(model) if self.on_base else dict(model.state_dict())

    def described(self) -> models.Described:
        """What the model folder of this run says."""
        adapters = list(self.recipe.adapters) if self.on_base else []
        return models.Described(
            self.family, self.options, self.tokenizer, self.template, self.head, adapters, self.base
        )

    def small_files(self) -> dict[str, bytes]:
        """model.json, tokenizer.json and chat.json."""
        return models.model_files(self.described())

    def parameter_parts(self) -> list[dict[str, Any]]:
        """Parameters by part, adapters apart."""
        return by_part_and_layer(self.meta_model())

    def memory(self, process: int) -> Memory:
        """Peak memory of the run, without allocating it."""
        return foresee(self.recipe, self.family, self.options, self.precision, process, self.head)

    @property
    def unit(self) -> str:
        """Language is counted in tokens."""
        return "tokens"

    @property
    def units_per_row(self) -> float:
        """The tokens of a row."""
        return float(self.recipe.data.context or 1)

    def flops_per_unit(self, model: nn.Module) -> float:
        """Of one token, whose row is as long as the context."""
        return flops_per_token(model, self.recipe.data.context or 0)

    @property
    def bytes_per_target(self) -> float | None:
        """Text bytes for each trained target; None where targets are no text, or a share of it."""
        if self.head is not None:
            return None
        prepared = self.chats or self.texts
        return prepared.bytes_per_target if prepared is not None else None

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """The evaluation while training."""
        limit = self.recipe.events.evaluate_tokens
        if self.chats is not None:
            return measuring.evaluate_answers(model, self, limit=limit)
        if self.labels is not None:
            return measuring.evaluate_labels(model, self, limit=limit)
        return measuring.evaluate_texts(model, self, limit=limit)

    def score(self, model: nn.Module, *, final: bool) -> Scores:
        """Scores of the held-out data."""
        return measuring.score_all(model, self, final=final)

    def metric_names(self, scores: Any) -> Sequence[str]:
        """By what was scored, and with a head by its kind."""
        return measuring.metric_names(scores, self.head.kind if self.head is not None else "")

    def samples(self, model: nn.Module) -> list[dict[str, str]]:
        """What the model says to the fixed prompts."""
        return measuring.answers_of(
            model, self, measuring.sample_prompts(self), max_tokens=self.recipe.events.sample_tokens
        )

    def results(self, model: nn.Module) -> dict[str, Any]:
        """Of a headed model: its confusions, curves and mistakes."""
        return measuring.label_results(model, self)

    def data_ledger(self) -> dict[str, Any]:
        """What became of every row, by source for running text."""
        if self.texts is not None:
            return {name: card.get("ledger", card) for name, card in self.texts.cards.items()}
        prepared = self.chats or self.labels
        assert prepared is not None
        return prepared.ledger

    @property
    def cut_units(self) -> int:
        """Tokens of rows that were cut to the context."""
        prepared = self.chats or self.labels
        return prepared.ledger.get("cut_tokens", 0) if prepared is not None else 0

    def preset_difference(self) -> list[dict[str, Any]]:
        """Where the recipe departs from what its dial, data and budget alone would give."""
        return preset_difference(self.recipe, self.options if self.init_from is not None else None)


def language_work(recipe: Recipe, folder: Path, *, say: Say) -> LanguageWork:
    """Prepare the data and fill in every number that does not need a measurement of speed."""
    device = resolve_device(recipe.hardware.device)
    said, base_folder, base, growth = None, None, None, None
    if recipe.init_from is not None:
        said, base_folder = models.load_described(Path(recipe.init_from))
        require_family(recipe, said.family, f"model.init_from: {recipe.init_from}")
        said, growth = grown(said, recipe.adapters)
        if models.keeps_base(recipe.adapters):
            base = models.Base(str(base_folder.resolve()), digest_of(base_folder))
    base_options = said.options if said else None
    foreign = said is not None and isinstance(said.tokenizer, ForeignTokenizer)
    recipe = resolve(recipe, device=device.type, base=base_options, foreign=foreign)
    tokenizer: AnyTokenizer | None = said.tokenizer if said else None
    template = said.chat if said else None
    data_folder, context = folder / "data", recipe.data.context or 0
    if tokenizer is not None and base_options is not None:
        models.learn_prompt(tokenizer, base_options, recipe.adapters)
    texts = chats = labels = head = None
    family = said.family if said else recipe.language.family
    if isinstance(recipe.data, ChatData):
        tokenizer = tokenizer or tokenizer_of_chats(recipe, data_folder, say)
        chats = prepare_chats(recipe, tokenizer, template, context=context, folder=data_folder)
        template = chats.template
    elif isinstance(recipe.data, LabelledData):
        tokenizer = tokenizer or tokenizer_of_labels(recipe, data_folder, say)
        labels = prepare_labels(recipe, tokenizer, context=context, folder=data_folder)
        for line in labels.findings:
            say(f"note: {line}")
        head = head_options(recipe, labels.labels)
    else:
        assert isinstance(recipe.data, TextData)
        texts = prepare_texts(recipe, data_folder, tokenizer, say=say, workers=recipe.data.workers)
        tokenizer = texts.tokenizer
        head = HeadOptions(kind="masked") if hides_tokens(recipe) else None
    options = said.options if said else architecture(recipe.language, tokenizer.vocabulary)
    head = head.on(causal=reads_forward(family, options)) if head is not None else None
    precision = choose_precision(recipe.hardware.precision, device).name
    work = LanguageWork(
        recipe=recipe, device=device, precision=precision, init_from=base_folder, family=family, options=options,
        tokenizer=tokenizer, template=template, head=head, texts=texts, chats=chats, labels=labels, base=base,
        growth=growth,
    )  # fmt: skip
    if sum(parameter.numel() for parameter in work.meta_model().parameters()) >= LARGE_MODEL:
        steady_allocator()
    return work


def reads_forward(family: str, options: FamilyOptions) -> bool:
    """Whether the last state of a text is the one that has read all of it."""
    if isinstance(options, RecurrentTextOptions):
        return not options.bidirectional
    return family != "bert"


def require_family(recipe: Recipe, family: str, where: str) -> None:
    """Refuse an encoder for an objective that predicts the next token, and a decoder for hidden tokens."""
    if hides_tokens(recipe):
        if family != "bert":
            raise GroundupError(
                "E-RECIPE-049",
                f"a model of family {family} cannot tell hidden tokens",
                where=f"{where}, objective.kind: masked_token",
                why="a decoder sees only what stands before a hidden token",
                fix="start from a BERT, or leave objective out to predict the next token",
                exit_code=2,
            )
        return
    if isinstance(recipe.data, LabelledData) or family not in READERS:
        return
    raise GroundupError(
        "E-RECIPE-043",
        f"a model of family {family} cannot predict the next token: every position sees all others",
        where=f"{where}, data.kind: {recipe.data.kind}",
        why="the answer would stand in its own input, and the loss would fall to zero and mean nothing",
        fix="set data.kind=labelled to train a head on it, or start from a decoder"
        + (", or set objective.kind=masked_token" if family == "bert" and recipe.data.kind == "text" else ""),
        exit_code=2,
    )


def tokenizer_of_chats(recipe: Recipe, folder: Path, say: Say) -> AnyTokenizer:
    """A tokenizer for a chat model that starts from nothing: trained on the conversations themselves."""
    from groundup.data.chat_rows import ChatLedger, ChatOptions, Row, read_chat

    assert isinstance(recipe.data, ChatData)
    options = ChatOptions(**{name: dict(recipe.data)[name] for name in ChatOptions.model_fields})
    rows = [row for row in read_chat(recipe.data.files, options, ChatLedger()) if isinstance(row, Row)]
    say("tokenizer: training on the conversations")
    return _trained(recipe, folder, [m["content"] for row in rows for m in row.messages])


def tokenizer_of_labels(recipe: Recipe, folder: Path, say: Say) -> AnyTokenizer:
    """A tokenizer for a classifier that starts from nothing: trained on its training texts."""
    from groundup.data.labelled_options import LabelledOptions
    from groundup.data.labelled_set import read_labelled

    options = LabelledOptions(**{name: dict(recipe.data)[name] for name in LabelledOptions.model_fields})
    rows = read_labelled(options, []).side("train")
    say("tokenizer: training on the training texts")
    return _trained(recipe, folder, [text for row in rows for text in (row.text, row.other, *row.candidates) if text])


def _trained(recipe: Recipe, folder: Path, texts: list[str]) -> AnyTokenizer:
    tokenizer = own_tokenizer(texts, recipe)
    tokenizer.save(folder)
    return tokenizer


def flops_per_token(model: nn.Module, context: int) -> float:
    """Floating-point operations of forward and backward for one token: two for each weight of a matrix product
    in the forward pass, two for the gradient of its input and two for its own unless it is frozen; and the
    attention scores over half a context on average (Kaplan et al. 2020, arXiv:2001.08361)."""
    body = models.body_of(model)
    embedding = models.body_of(model).embedding.weight
    tied = model_is_tied(body)
    total = 0.0
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or ("embedding" in name and not (tied and parameter is embedding)):
            continue
        share = _share_of_experts(body, name)
        total += (6.0 if parameter.requires_grad else 4.0) * parameter.numel() * share
    return total + 6.0 * body.options.layers * body.options.width * context


def _share_of_experts(body: Any, name: str) -> float:
    return body.options.experts_per_token / body.options.experts if ".experts." in name else 1.0
