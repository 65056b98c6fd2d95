"""The recipe: everything that a run is made from, as one frozen tree.

Sections are the option types of the parts that they configure; what is left out is derived (resolve.py) and
written into the resolved recipe, which is of this same type. Cross-field rules stand in check.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from groundup.adapters import AdapterOptions
from groundup.data.chat_rows import ChatOptions
from groundup.data.labelled_options import LabelledOptions
from groundup.data.options import PrepareOptions
from groundup.engine.options import BudgetOptions, EventOptions, GuardOptions, HardwareOptions
from groundup.objectives.classify import ChoiceOptions, ClassifyOptions, TagOptions
from groundup.objectives.contrast import ContrastOptions
from groundup.objectives.multilabel import MultilabelOptions
from groundup.objectives.next_token import NextTokenOptions
from groundup.objectives.regress import RegressOptions
from groundup.optim.options import MuonOptions, OptimizerOptions
from groundup.text.options import TokenizerOptions

DEFAULT_CONTEXT = 256
"""Tokens in a row where neither the data nor the model says it."""

LABELLED_CONTEXT = 128
"""Longest row of labelled data where the recipe says nothing."""


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelOptions(_Options):
    """The network: one dial (`depth`), explicit sizes, or the model of an earlier run (`init_from`)."""

    family: Literal["llama", "gpt2", "bert", "moe"] = Field(default="llama", description="which network; see models/")
    init_from: str | None = Field(
        default=None, description="run, checkpoint or model folder to start from; it brings its own sizes"
    )
    depth: int | None = Field(
        default=None, ge=1, le=256, description="the dial: layers = depth, width = 64 · depth, and so on"
    )
    context: int | None = Field(default=None, ge=1, description="longest sequence; derived: data.context")
    width: int | None = Field(default=None, ge=1, description="residual stream; derived: 64 · depth")
    layers: int | None = Field(default=None, ge=1, description="blocks; derived: depth")
    heads: int | None = Field(default=None, ge=1, description="query heads; derived: width / head_size")
    key_value_heads: int | None = Field(default=None, ge=1, description="divides heads; derived: heads")
    head_size: int | None = Field(default=None, ge=2, multiple_of=2, description="derived: 64, or width / heads")
    hidden: int | None = Field(default=None, ge=1, description="feed-forward width; derived: 8/3 · width")
    rotary_base: float | None = Field(default=None, gt=1.0, description="of rotary positions; derived: 10000")
    norm_epsilon: float | None = Field(default=None, gt=0.0, lt=0.1, description="in RMSNorm; derived: 1e-5")
    query_key_norm: bool | None = Field(default=None, description="RMSNorm on queries and keys; derived: true")
    sliding_window: int | None = Field(default=None, ge=1, description="how far back a query sees; null: all")
    tied: bool | None = Field(default=None, description="one matrix for embedding and head; derived: true")
    experts: int | None = Field(
        default=None, ge=2, le=4096, description="family moe: feed-forward networks of a block; derived: 8"
    )
    experts_per_token: int | None = Field(
        default=None, ge=1, description="family moe: how many of them each token goes through; derived: 2"
    )


class HeadSettings(_Options):
    """The task head of a labelled run; its kind and labels follow from the data."""

    pooling: Literal["first", "last", "mean"] | None = Field(
        default=None, description="how the states of a text become one; derived: last on a decoder, else mean"
    )
    pooler: bool = Field(default=False, description="BERT's dense layer and tanh before the head")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="share of the head's inputs dropped in training")
    normalise: bool | None = Field(default=None, description="embeddings have length 1; derived: true")


class TextSource(PrepareOptions):
    """One of several sources of a mixture: files, how they are cleaned, and their share."""

    weight: float = Field(default=1.0, gt=0.0, allow_inf_nan=False, description="share of the rows")


class TextData(PrepareOptions):
    """Running text: cleaned, tokenized, packed into rows of `context` tokens."""

    kind: Literal["text"]
    files: list[str] = Field(default_factory=list, description="files, folders and globs")
    sources: dict[str, TextSource] = Field(
        default_factory=dict, description="a mixture by name and weight, instead of `files`"
    )
    prepared: str | None = Field(
        default=None, description="a folder made by `groundup prepare`, used as it is, instead of `files`"
    )
    context: int | None = Field(
        default=None, ge=2, le=1 << 20, description="tokens in a row; derived: 256, or the model's context"
    )
    workers: int = Field(default=0, ge=0, description="processes that prepare; 0: all usable cores")


class ChatData(ChatOptions):
    """Conversations: rendered by the chat template, loss on the assistant's part."""

    kind: Literal["chat"]
    files: list[str] = Field(min_length=1, description="files, folders and globs of rows")
    held_out_files: list[str] = Field(default_factory=list, description="rows to measure on; else a share")
    held_out: float = Field(
        default=0.05, ge=0.0, lt=1.0, description="share of the prompts held out when no files are named"
    )
    template: str | None = Field(default=None, description="a Jinja file; default: the model's, or groundup's")
    train_on: Literal["all", "last"] = Field(
        default="all", description="every turn of the assistant, or the last alone"
    )
    over_long: Literal["drop", "cut", "refuse"] = Field(default="drop", description="rows longer than the context")
    context: int | None = Field(
        default=None, ge=2, le=1 << 20, description="tokens in a row; derived: the model's context"
    )


class LabelledData(LabelledOptions):
    """Texts with answers to predict: labels, numbers, pairs that belong together, the right candidate."""

    kind: Literal["labelled"]
    files: list[str] = Field(
        min_length=1, description="files, folders and globs: .csv .tsv .jsonl .json .parquet with named columns"
    )
    context: int | None = Field(
        default=None, ge=2, le=1 << 20, description="longest row in tokens; derived: 128, or less if the model's is"
    )
    balanced: bool = Field(default=False, description="draw all labels equally often, the rare ones repeatedly")


DataOptions = Annotated[TextData | ChatData | LabelledData, Field(discriminator="kind")]

ObjectiveOptions = Annotated[
    NextTokenOptions
    | ClassifyOptions
    | MultilabelOptions
    | TagOptions
    | RegressOptions
    | ContrastOptions
    | ChoiceOptions,
    Field(discriminator="kind"),
]


def _usual_optimizer() -> dict[str, OptimizerOptions]:
    return {"model": MuonOptions(kind="muon")}


class Recipe(_Options):
    """A run, from data to model."""

    name: str = Field(default="run", min_length=1, max_length=80, description="shown in reports and lists")
    seed: int = Field(default=1, ge=0, lt=1 << 32, description="of initialisation, order and sampling")
    model: ModelOptions = Field(default_factory=ModelOptions, description="the network")
    tokenizer: TokenizerOptions | None = Field(
        default=None, description="how text becomes ids; derived: byte-level BPE, or that of init_from"
    )
    data: DataOptions = Field(description="what to learn from")
    adapters: list[AdapterOptions] = Field(
        default_factory=list, description="what is changed about the model of init_from before training"
    )
    head: HeadSettings = Field(default_factory=HeadSettings, description="what stands on the body for labelled data")
    objective: ObjectiveOptions | None = Field(
        default=None, description="what to learn; derived: next_token, or what data.task needs"
    )
    optim: dict[str, OptimizerOptions] = Field(default_factory=_usual_optimizer, description="one optimizer per player")
    budget: BudgetOptions = Field(description="how long")
    hardware: HardwareOptions = Field(default_factory=HardwareOptions, description="on what")
    events: EventOptions = Field(default_factory=EventOptions, description="what happens between steps")
    guard: GuardOptions = Field(default_factory=GuardOptions, description="non-finite values and spikes")
