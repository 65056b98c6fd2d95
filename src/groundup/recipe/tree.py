"""The recipe: everything that a run is made from, as one frozen tree.

Sections are the option types of the parts that they configure; what is left out is derived (resolve.py) and
written into the resolved recipe, which is of this same type. Cross-field rules stand in check.py.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from groundup.adapters import AdapterOptions
from groundup.data.boards import GameOptions
from groundup.data.chat_rows import ChatOptions
from groundup.data.environments import EnvironmentOptions
from groundup.data.image_options import ImageOptions
from groundup.data.labelled_options import LabelledOptions
from groundup.data.options import PrepareOptions
from groundup.data.parallel_options import ParallelOptions
from groundup.data.replay import ReplayOptions
from groundup.data.rollout import RolloutOptions
from groundup.data.self_play import SelfPlayOptions
from groundup.data.table_options import TableOptions
from groundup.data.text_noise import TextNoiseOptions
from groundup.engine.options import BudgetOptions, EventOptions, GuardOptions, HardwareOptions
from groundup.inference.tree_search import SearchOptions
from groundup.models import NetworkOptions
from groundup.objectives.adversarial import AdversarialOptions
from groundup.objectives.classify import ChoiceOptions, ClassifyOptions, TagOptions
from groundup.objectives.contrast import ContrastOptions
from groundup.objectives.masked_token import MaskedTokenOptions
from groundup.objectives.multilabel import MultilabelOptions
from groundup.objectives.next_token import NextTokenOptions
from groundup.objectives.policy import A2COptions, PPOOptions, ReinforceOptions
from groundup.objectives.reconstruct import ReconstructOptions, VaeOptions
from groundup.objectives.regress import RegressOptions
from groundup.objectives.self_play import SelfPlayLossOptions
from groundup.objectives.soft_actor_critic import SACOptions
from groundup.objectives.translate import TranslateOptions
from groundup.objectives.value import DQNOptions
from groundup.optim.options import MuonOptions, OptimizerOptions
from groundup.text.options import TokenizerOptions
from groundup.tracking.options import TrackerOptions

DEFAULT_CONTEXT = 256
"""Tokens in a row where neither the data nor the model says it."""

LABELLED_CONTEXT = 128
"""Longest row of labelled data where the recipe says nothing."""


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelOptions(_Options):
    """The network: one dial (`depth`), explicit sizes, or the model of an earlier run (`init_from`)."""

    family: Literal["llama", "gpt2", "bert", "moe", "recurrent_text"] = Field(
        default="llama", description="which network; see models/"
    )
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
    cell: Literal["rnn", "lstm", "gru"] | None = Field(
        default=None, description="family recurrent_text: the equations of a step; derived: lstm"
    )
    bidirectional: bool | None = Field(
        default=None, description="family recurrent_text: each layer also reads backwards; derived: true"
    )
    dropout: float | None = Field(
        default=None, ge=0.0, lt=1.0, description="families bert, recurrent_text: share of features dropped; derived: 0"
    )


class TranslatorOptions(_Options):
    """The encoder-decoder Transformer. Its vocabulary is the tokenizer's."""

    family: Literal["transformer"] = "transformer"
    context: int = Field(default=64, ge=2, description="longest source and longest target, in tokens")
    width: int = Field(default=256, ge=1, description="size of the residual stream")
    encoder_layers: int = Field(default=3, ge=1, description="encoder blocks")
    decoder_layers: int = Field(default=3, ge=1, description="decoder blocks")
    heads: int = Field(default=4, ge=1, description="attention heads; divides width")
    hidden: int = Field(default=1024, ge=1, description="inner width of the feed-forward part")
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0, description="share of values dropped in training")
    positions: Literal["sinusoidal", "learned"] = Field(
        default="sinusoidal", description="sines of fixed wavelengths, or a table for each side"
    )
    norm: Literal["post", "pre"] = Field(
        default="pre", description="where a block normalises: the sum, as in the paper, or what goes into each part"
    )
    tied: bool = Field(default=True, description="source embedding, target embedding and output matrix are one")


ModelSection = Annotated[ModelOptions | TranslatorOptions | NetworkOptions, Field(discriminator="family")]


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
    augment: TextNoiseOptions = Field(
        default_factory=TextNoiseOptions, description="random changes of the training texts"
    )


class TableData(TableOptions):
    """A table of numbers and categories, and what to predict from them."""

    kind: Literal["table"]
    context: ClassVar[int] = 1


class ImageData(ImageOptions):
    """Images, with labels or numbers to predict, or to be generated."""

    kind: Literal["images"]
    context: ClassVar[int] = 1


class PairData(ParallelOptions):
    """Texts and their translations."""

    kind: Literal["pairs"]
    augment: TextNoiseOptions = Field(
        default_factory=TextNoiseOptions, description="random changes of the training sources, not of what is learned"
    )
    context: ClassVar[int] = 1


class EnvironmentData(_Options):
    """An environment to act in."""

    kind: Literal["environment"]
    environment: EnvironmentOptions = Field(description="which, and how many copies")
    collect: Annotated[RolloutOptions | ReplayOptions, Field(discriminator="kind")] | None = Field(
        default=None, description="how experience is collected; derived: what the objective needs"
    )
    episodes: int = Field(default=20, ge=1, description="episodes of an evaluation while training")
    final_episodes: int = Field(default=100, ge=1, description="episodes of the evaluations before and after")
    sampled: bool = Field(default=False, description="evaluate the policy as it draws, not what it likes best")
    context: ClassVar[int] = 1
    files: ClassVar[tuple[str, ...]] = ()


class GameData(_Options):
    """A board game to learn by playing against oneself."""

    kind: Literal["game"]
    game: GameOptions = Field(description="which, and on what board")
    collect: SelfPlayOptions = Field(default_factory=SelfPlayOptions, description="how games are played and remembered")
    search: SearchOptions = Field(
        default_factory=SearchOptions, description="how long each move is thought about, in training and in matches"
    )
    opponents: list[Literal["random", "perfect"]] | None = Field(
        default=None, description="whom matches are played against; derived: both, on large boards random alone"
    )
    games: int = Field(default=20, ge=1, description="games on each side against each opponent while training")
    final_games: int = Field(default=200, ge=1, description="such games before and after")
    context: ClassVar[int] = 1
    files: ClassVar[tuple[str, ...]] = ()


DataOptions = Annotated[
    TextData | ChatData | LabelledData | TableData | ImageData | PairData | EnvironmentData | GameData,
    Field(discriminator="kind"),
]

LANGUAGE = ("text", "chat", "labelled")
"""The kinds of data whose rows are counted in tokens; the others count rows, or steps of an environment."""

ObjectiveOptions = Annotated[
    NextTokenOptions
    | MaskedTokenOptions
    | ClassifyOptions
    | MultilabelOptions
    | TagOptions
    | RegressOptions
    | ContrastOptions
    | ChoiceOptions
    | TranslateOptions
    | ReconstructOptions
    | VaeOptions
    | AdversarialOptions
    | DQNOptions
    | ReinforceOptions
    | A2COptions
    | PPOOptions
    | SACOptions
    | SelfPlayLossOptions,
    Field(discriminator="kind"),
]


class EventSection(EventOptions):
    """What happens between steps, and who else is told of it."""

    track: list[TrackerOptions] = Field(
        default_factory=list, description="trackers that are told what the run writes down; none can stop it"
    )

    @model_validator(mode="after")
    def _each_tracker_once(self) -> Self:
        kinds = [options.kind for options in self.track]
        twice = [kind for kind in dict.fromkeys(kinds) if kinds.count(kind) > 1]
        if twice:
            raise ValueError(f"track names {', '.join(twice)} more than once")
        return self


def _usual_optimizer() -> dict[str, OptimizerOptions]:
    return {"model": MuonOptions(kind="muon")}


class Recipe(_Options):
    """A run, from data to model."""

    name: str = Field(default="run", min_length=1, max_length=80, description="shown in reports and lists")
    seed: int = Field(default=1, ge=0, lt=1 << 32, description="of initialisation, order and sampling")
    model: ModelSection = Field(default_factory=ModelOptions, description="the network")
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
    events: EventSection = Field(default_factory=EventSection, description="what happens between steps")
    guard: GuardOptions = Field(default_factory=GuardOptions, description="non-finite values and spikes")

    @model_validator(mode="before")
    @classmethod
    def _usual_family(cls, tree: Any) -> Any:
        """A model section without a family means a decoder, or whatever init_from holds."""
        model = tree.get("model") if isinstance(tree, dict) else None
        if not isinstance(model, dict) or "family" in model:
            return tree
        return {**tree, "model": {"family": "llama", **model}}

    @property
    def language(self) -> ModelOptions:
        """The model section of a recipe for a language model."""
        assert isinstance(self.model, ModelOptions)
        return self.model

    @property
    def init_from(self) -> str | None:
        """The model to go on with."""
        return self.model.init_from if isinstance(self.model, ModelOptions) else None

    @property
    def counts_rows(self) -> bool:
        """Whether a step is counted in rows (or steps of an environment) rather than in tokens."""
        return self.data.kind not in LANGUAGE

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step, of a resolved recipe."""
        if self.counts_rows:
            return self.budget.rows_per_step or 1
        return (self.budget.tokens_per_step or 1) // (self.data.context or 1)
