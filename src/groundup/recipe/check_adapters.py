"""The rules between adapters: their order, and what they need of the rest of the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from groundup.adapters import QuantizeOptions
from groundup.errors import GroundupError
from groundup.objectives.masked_token import MaskedTokenOptions
from groundup.recipe.tree import LabelledData, TextData

if TYPE_CHECKING:
    from groundup.recipe.check import Check


def check_adapters(check: Check) -> Iterator[GroundupError]:
    """Adapters belong to a model that exists, and a schedule of theirs to the length of the run."""
    adapters = check.recipe.adapters
    behind = [adapter for adapter in adapters if adapter.kind != "grow"]
    if adapters and check.recipe.init_from is None:
        yield check.fault(
            "E-RECIPE-045", "adapters", "adapters change a model that exists, and this recipe starts from nothing",
            "frozen or low-rank weights of a network that knows nothing would learn nothing",
            "set model.init_from=MODEL, or remove the adapters section",
        )  # fmt: skip
    for number, adapter in enumerate(adapters):
        if isinstance(adapter, QuantizeOptions) and adapter.bits == "int8":
            for name in ("group", "double"):
                if check.given(adapter, name):
                    yield check.unused(f"adapters.{number}.{name}", "it is for bits: nf4", f"remove {name}")
    yield from check.unfreezing()
    yield from _growing(check)
    if any(adapter.kind == "prompt" for adapter in adapters) and isinstance(check.recipe.data, TextData):
        yield check.fault(
            "E-RECIPE-048", "adapters", "a learned prompt stands in front of a text, and running text has no front",
            "rows of running text begin anywhere, so that most of them would not see it",
            "use data.kind=chat or labelled, or another adapter",
        )  # fmt: skip
    if behind and behind[0].kind != "quantize" and any(adapter.kind == "quantize" for adapter in behind):
        yield check.fault(
            "E-RECIPE-046", "adapters", "quantize stands behind another adapter",
            "the base is stored in few bits first, and adapters are put on top of it",
            "move the quantize entry to the front",
        )  # fmt: skip
    if len(adapters) == 1 and adapters[0].kind == "quantize" and not isinstance(check.recipe.data, LabelledData):
        yield check.fault(
            "E-RECIPE-046", "adapters", "a quantized base alone has nothing to train",
            "weights in few bits stand still; an adapter on top of them learns",
            "add {kind: lora} behind it",
        )  # fmt: skip


def _growing(check: Check) -> Iterator[GroundupError]:
    """New tokens come first, once, and before anything is made of text."""
    recipe = check.recipe
    for number, adapter in enumerate(recipe.adapters):
        if adapter.kind == "grow" and number:
            yield check.fault(
                "E-RECIPE-053", f"adapters.{number}", "grow stands behind another adapter",
                "the rows of new tokens are added first, and all else is put on the larger model",
                "move the grow entry to the front; one entry names all new tokens",
            )  # fmt: skip
    if not recipe.adapters or recipe.adapters[0].kind != "grow":
        return
    for number, adapter in enumerate(recipe.adapters):
        if adapter.kind == "prompt":
            yield check.fault(
                "E-RECIPE-053", f"adapters.{number}", "a learned prompt stands behind grow",
                "both add ids above the vocabulary of the base, and one would be taken for the other",
                "train {kind: grow} with {kind: lora} first, merge, and learn the prompt on the result",
            )  # fmt: skip
        if isinstance(adapter, QuantizeOptions) and adapter.embedding == "int8":
            yield check.fault(
                "E-RECIPE-053", f"adapters.{number}.embedding", "the embedding that grows is to be stored in 8 bits",
                "the rows of the new tokens are trained, and stand beside a table of floating-point numbers",
                f"set adapters.{number}.embedding=float32",
            )  # fmt: skip
    if isinstance(recipe.data, TextData) and recipe.data.prepared is not None:
        yield check.fault(
            "E-RECIPE-053", "data.prepared", "the data was tokenized before the new tokens were there",
            "they would never occur in it, and never be trained",
            "name the texts in data.files: they are tokenized with the new tokens",
        )  # fmt: skip
    if isinstance(recipe.objective, MaskedTokenOptions):
        yield check.fault(
            "E-RECIPE-053", "objective.kind", "a vocabulary cannot grow while hidden tokens are told",
            "the head of this objective has a number of its own for each token of the base",
            "grow with data.kind=labelled, or remove the grow entry",
        )  # fmt: skip
