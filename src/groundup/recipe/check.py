"""The rules between fields: what no single type can say. Every fault is gathered and told at once.

A field that is set but has no effect in this recipe is a fault like any other: whoever wrote it expects it to
do something.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from groundup.adapters import FreezeOptions
from groundup.data.options import PrepareOptions
from groundup.errors import GroundupError, nearest
from groundup.models import FAMILIES
from groundup.recipe.check_adapters import check_adapters
from groundup.recipe.check_optim import check_optim
from groundup.recipe.check_reading import check_reading, learned_by
from groundup.recipe.check_rows import check_rows
from groundup.recipe.faults import Places, raise_all
from groundup.recipe.measured import METRICS, measured_as
from groundup.recipe.tree import (
    DEFAULT_CONTEXT,
    LABELLED_CONTEXT,
    ChatData,
    ImageData,
    LabelledData,
    ModelOptions,
    PairData,
    Recipe,
    TableData,
    TextData,
)

SIZES = (
    "depth", "width", "layers", "heads", "key_value_heads", "head_size", "hidden", "context",
    "rotary_base", "norm_epsilon", "query_key_norm", "sliding_window", "tied", "family",
    "experts", "experts_per_token", "cell", "bidirectional", "dropout",
)  # fmt: skip

BUDGETS = ("steps", "tokens", "minutes", "epochs", "environment_steps")


class Check:
    """Carries the places, so that each rule is one line of logic and one of words."""

    def __init__(self, recipe: Recipe, places: Places) -> None:
        self.recipe, self.places = recipe, places

    def fault(self, code: str, path: str, what: str, why: str, fix: str) -> GroundupError:
        """A fault at a dotted path."""
        steps = tuple(path.split("."))
        return GroundupError(code, what, where=f"{path} ({self.places.of(steps)})", why=why, fix=fix, exit_code=2)

    def unused(self, path: str, because: str, fix: str) -> GroundupError:
        """A field that is set and would do nothing."""
        why = "a field that is set but does nothing is more likely a mistake than a wish"
        return self.fault("E-RECIPE-030", path, f"{path} has no effect: {because}", why, fix)

    @staticmethod
    def given(options: BaseModel, name: str) -> bool:
        """Whether a field was set to something other than its default."""
        return _given(options, name)

    def all(self) -> Iterator[GroundupError]:
        """Every cross-field fault."""
        if self.recipe.counts_rows:
            yield from check_rows(self)
            yield from self.lengths()
            yield from check_optim(self)
            yield from self.watching()
            return
        if not isinstance(self.recipe.model, ModelOptions):
            yield self.fault(
                "E-RECIPE-065", "model.family",
                f"a network of family {self.recipe.model.family} does not read {self.recipe.data.kind} data",
                f"language models: {', '.join(FAMILIES)}", "set model.family=llama",
            )  # fmt: skip
            return
        yield from self.model()
        yield from self.family()
        yield from check_reading(self)
        yield from check_adapters(self)
        yield from self.data()
        yield from self.labelled()
        yield from self.budget()
        yield from self.optim()
        yield from self.events()

    def model(self) -> Iterator[GroundupError]:
        model, tokenizer = self.recipe.language, self.recipe.tokenizer
        if model.init_from is not None:
            for name in SIZES:
                if _given(model, name) and name != "context":
                    yield self.unused(
                        f"model.{name}",
                        "model.init_from brings the sizes of its model",
                        f"remove model.{name}",
                    )
            if tokenizer is not None:
                yield self.unused(
                    "tokenizer", "model.init_from brings its tokenizer, which its weights belong to",
                    "remove the tokenizer section",
                )  # fmt: skip
            return
        if model.depth is None and (model.width is None or model.layers is None):
            yield self.fault(
                "E-RECIPE-031", "model", "the size of the model is not said",
                "one dial derives the rest: depth N gives N layers of width 64 N",
                "set model.depth=4   (or model.width and model.layers, or model.init_from=RUN)",
            )  # fmt: skip
            return
        yield from self.heads()

    def family(self) -> Iterator[GroundupError]:
        """Fields of another family, and experts that cannot be."""
        model = self.recipe.language
        if model.init_from is not None:
            return
        known = {*FAMILIES[model.family][0].model_fields, "depth", "family"}
        for name in SIZES:
            if _given(model, name) and name not in known:
                yield self.unused(
                    f"model.{name}", f"the family {model.family} has no such part", f"remove model.{name}"
                )
        if model.family == "moe" and (model.experts_per_token or 2) > (model.experts or 8):
            yield self.fault(
                "E-RECIPE-044", "model.experts_per_token",
                f"model.experts_per_token {model.experts_per_token or 2} > model.experts {model.experts or 8}",
                "a token cannot go through more experts than there are", "lower model.experts_per_token",
            )  # fmt: skip

    def labelled(self) -> Iterator[GroundupError]:
        """The objective must be the one of the data, and a head needs labelled data."""
        data, objective, head = self.recipe.data, self.recipe.objective, self.recipe.head
        wanted = learned_by(self.recipe)
        if isinstance(data, LabelledData):
            if head.normalise is not None and data.task != "embed":
                yield self.unused("head.normalise", "it is for task embed", "remove it")
            if data.balanced and data.task != "classify":
                yield self.unused("data.balanced", "it is for task classify", "remove it")
            for name in ("drop", "move"):
                if data.task == "tag" and name in data.augment.chosen:
                    yield self.fault(
                        "E-RECIPE-015", f"data.augment.{name}", f"data.augment.{name} does not fit task tag",
                        "the tags of a span would no longer follow each other", "use mask and replace instead",
                    )  # fmt: skip
            for name in ("pooling", "pooler"):
                if data.task == "tag" and _given(head, name):
                    yield self.unused(f"head.{name}", "a head for task tag reads every token", f"remove head.{name}")
            longest = data.context or self.recipe.language.context or LABELLED_CONTEXT
            if data.max_length is not None and data.max_length > longest:
                yield self.unused(
                    "data.max_length", f"rows end at data.context, which is {longest}",
                    f"set data.context={data.max_length}",
                )  # fmt: skip
        else:
            for name in type(head).model_fields:
                if _given(head, name):
                    yield self.unused(f"head.{name}", f"{data.kind} data has no head", f"remove head.{name}")
        if objective is not None and objective.kind != wanted:
            yield self.fault(
                "E-RECIPE-047", "objective.kind", f"objective {objective.kind} does not fit the data",
                f"these rows are learned by {wanted}", f"set objective.kind={wanted}, or leave objective out",
            )  # fmt: skip

    def heads(self) -> Iterator[GroundupError]:
        model = self.recipe.language
        width = model.width or 64 * (model.depth or 1)
        if model.heads and not model.head_size and (width % model.heads or (width // model.heads) % 2):
            yield self.fault(
                "E-RECIPE-032", "model.heads",
                f"model.heads {model.heads} does not divide the width {width} into even parts",
                "each head takes an equal, even share of the width",
                f"set model.heads={_divisor(width, model.heads)} or set model.head_size",
            )  # fmt: skip
        if not model.heads and width % (model.head_size or 64) and model.head_size:
            yield self.fault(
                "E-RECIPE-032", "model.head_size",
                f"model.head_size {model.head_size} does not divide the width {width}",
                "the number of heads is derived as width / head_size", "set model.heads too, or another size",
            )  # fmt: skip
        heads = model.heads or max(1, width // (model.head_size or 64))
        if model.key_value_heads and heads % model.key_value_heads:
            yield self.fault(
                "E-RECIPE-033", "model.key_value_heads",
                f"model.key_value_heads {model.key_value_heads} does not divide the {heads} query heads",
                "each key-value head serves an equal group of query heads",
                f"set model.key_value_heads={_divisor(heads, model.key_value_heads)}",
            )  # fmt: skip
        context, longest = self.recipe.data.context, model.context
        if context and longest and context > longest:
            yield self.fault(
                "E-RECIPE-034", "data.context", f"data.context {context} > model.context {longest}",
                "the model has no positions beyond its context",
                f"set model.context={context} or data.context={longest}",
            )  # fmt: skip

    def data(self) -> Iterator[GroundupError]:
        data = self.recipe.data
        if isinstance(data, ChatData):
            if data.held_out_files and _given(data, "held_out"):
                yield self.unused("data.held_out", "data.held_out_files names the rows", "remove data.held_out")
            return
        if not isinstance(data, TextData):
            return
        given = [name for name in ("files", "sources", "prepared") if _given(data, name)]
        if len(given) != 1:
            said = "none is" if not given else " and ".join(f"data.{name}" for name in given) + " are"
            yield self.fault(
                "E-RECIPE-035", "data" if not given else f"data.{given[1]}",
                f"exactly one of data.files, data.sources and data.prepared says what to learn from; {said} set",
                "more than one would leave open which text is meant", "keep one of the three",
            )  # fmt: skip
        elif given != ["files"]:
            for name in [n for n in PrepareOptions.model_fields if n != "files" and _given(data, n)]:
                yield self.unused(
                    f"data.{name}", f"it belongs to data.files, and this recipe uses data.{given[0]}",
                    f"move it into each of data.{given[0]}" if given == ["sources"] else f"remove data.{name}",
                )  # fmt: skip
        for name, source in data.sources.items():
            if not source.files:
                yield self.fault(
                    "E-RECIPE-035", f"data.sources.{name}", f"data.sources.{name} names no files",
                    "a source without files gives no rows", f"set data.sources.{name}.files=[…]",
                )  # fmt: skip
        if given == ["prepared"] and self.recipe.tokenizer is not None:
            yield self.unused(
                "tokenizer", "data.prepared brings the tokenizer that its ids were made with", "remove it"
            )
        if given == ["prepared"] and data.workers:
            yield self.unused("data.workers", "data.prepared is already prepared", "remove data.workers")

    def lengths(self) -> Iterator[GroundupError]:
        """Exactly one field says how long."""
        budget = self.recipe.budget
        given = [name for name in BUDGETS if _given(budget, name)]
        if len(given) != 1:
            yield self.fault(
                "E-RECIPE-036", "budget",
                f"exactly one of {', '.join(BUDGETS)} says how long to train; "
                + (f"{', '.join(given)} are set" if given else "none is set"),
                "the number of steps is derived from it",
                " ".join(f"budget.{name}=null" for name in given[:-1]) + f"   (keeps budget.{given[-1]})"
                if given
                else "set budget.minutes=10",
            )  # fmt: skip

    def budget(self) -> Iterator[GroundupError]:
        """Steps are whole micro-batches of whole rows."""
        yield from self.lengths()
        budget = self.recipe.budget
        for name in ("rows_per_step", "environment_steps"):
            if _given(budget, name):
                yield self.unused(f"budget.{name}", f"{self.recipe.data.kind} data is counted in tokens", "remove it")
        context, rows = self.context(), budget.micro_batch
        tokens = budget.tokens_per_step
        if tokens and context and tokens % (context * (rows or 1)):
            unit = context * (rows or 1)
            near = max(unit, round(tokens / unit) * unit)
            yield self.fault(
                "E-RECIPE-037", "budget.tokens_per_step",
                f"budget.tokens_per_step {tokens} is not a multiple of {unit} "
                f"(context {context} × micro_batch {rows or 1})",
                "a step is made of whole micro-batches of whole rows", f"set budget.tokens_per_step={near}",
            )  # fmt: skip

    def context(self) -> int | None:
        """Tokens in a row, as resolve derives them; None if only the model of init_from knows."""
        model = self.recipe.language
        said = self.recipe.data.context or model.context
        usual = LABELLED_CONTEXT if isinstance(self.recipe.data, LabelledData) else DEFAULT_CONTEXT
        return said or (None if model.init_from is not None else usual)

    def optim(self) -> Iterator[GroundupError]:
        if set(self.recipe.optim) != {"model"}:
            yield self.fault(
                "E-RECIPE-038", "optim", f"optim names the players {sorted(self.recipe.optim)}",
                "next_token has one player, the model", "give optim one entry: model",
            )  # fmt: skip
        yield from check_optim(self)

    def unfreezing(self) -> Iterator[GroundupError]:
        """What is unfrozen on the way must be so before the end."""
        steps = self.recipe.budget.steps
        for number, adapter in enumerate(self.recipe.adapters):
            for entry in adapter.unfreeze if isinstance(adapter, FreezeOptions) and steps is not None else ():
                if steps is not None and entry.step >= steps:
                    yield self.unused(
                        f"adapters.{number}.unfreeze",
                        f"step {entry.step} lies behind the end of the run at {steps}",
                        "lower the step, or raise budget.steps",
                    )

    def watching(self) -> Iterator[GroundupError]:
        """What stops a run, lowers its rates by a metric, or takes it back."""
        events, guard = self.recipe.events, self.recipe.guard
        if guard.rewind and events.save_every == 0:
            yield self.unused(
                "guard.rewind", "events.save_every is 0, so there is no checkpoint to go back to",
                "set events.save_every",
            )  # fmt: skip
        for name in ("early_stopping", "plateau"):
            if dict(events)[name] is not None and events.evaluate_every == 0:
                yield self.unused(f"events.{name}", "events.evaluate_every is 0", "set events.evaluate_every")
        yield from self.stopping()

    def events(self) -> Iterator[GroundupError]:
        yield from self.watching()
        events = self.recipe.events
        if events.evaluate_every == 0 and _given(events, "evaluate_tokens"):
            yield self.unused("events.evaluate_tokens", "events.evaluate_every is 0", "remove one of the two")
        if isinstance(self.recipe.data, LabelledData) or learned_by(self.recipe) == "masked_token":
            for name in ("prompts", "sample_every", "sample_tokens"):
                if _given(events, name) and dict(events)[name]:
                    yield self.unused(f"events.{name}", "a headed model writes no text", f"remove events.{name}")
        elif events.sample_every == 0 and events.prompts:
            yield self.unused("events.prompts", "events.sample_every is 0", "remove one of the two")

    def stopping(self) -> Iterator[GroundupError]:
        """What watches a metric needs one that is measured while training, and something to measure it on."""
        if self.recipe.data.kind == "images" and isinstance(self.recipe.model, ModelOptions):
            return  # what is measured depends on the network of init_from: see fits_network
        for field in ("early_stopping", "plateau"):
            watching = dict(self.recipe.events)[field]
            if watching is not None:
                yield from self.watched(f"events.{field}", watching.metric)

    def watched(self, path: str, metric: str) -> Iterator[GroundupError]:
        """One metric that decides something while training."""
        data = self.recipe.data
        known = METRICS[measured_as(self.recipe)]
        if metric not in known:
            yield self.fault(
                "E-RECIPE-040", f"{path}.metric",
                f"{metric!r} is not measured while training on {data.kind} data",
                f"the evaluations while training measure {', '.join(known) or 'nothing that is a number'}",
                f"set {path}.metric={nearest(metric, known) or known[0]}" if known else f"remove {path}",
            )  # fmt: skip
        nothing = "nothing is held out to measure on"
        if isinstance(data, ChatData):
            if not data.held_out_files and not data.held_out:
                yield self.unused(path, nothing, "set data.held_out")
        elif isinstance(data, LabelledData | TableData | ImageData | PairData):
            if not data.validation_files and not data.split.validation:
                yield self.unused(path, nothing, "set data.split.validation")
        elif isinstance(data, TextData) and data.files and data.split.kind == "none":
            yield self.unused(path, nothing, "set data.split.kind=hash")


def check(recipe: Recipe, places: Places | None = None) -> None:
    """Raise every cross-field fault of the recipe as one error."""
    raise_all(list(Check(recipe, places or Places("recipe")).all()))


def _given(options: BaseModel, name: str) -> bool:
    """Whether a field was set to something other than its default."""
    field = type(options).model_fields[name]
    return name in options.model_fields_set and dict(options)[name] != field.get_default(call_default_factory=True)


def _divisor(whole: int, near: int) -> int:
    """The divisor of `whole` nearest to `near`."""
    return min((d for d in range(1, whole + 1) if whole % d == 0), key=lambda d: (abs(d - near), d))
