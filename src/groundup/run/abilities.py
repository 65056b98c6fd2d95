"""What a loaded model can be asked for: text of a decoder, answers of a task head."""

from __future__ import annotations

from groundup.contract import LanguageModel
from groundup.errors import GroundupError, printable
from groundup.models.heads import Headed


def require_decoder(model: LanguageModel | Headed, name: str) -> None:
    """Refuse a model that writes no text. Raises E-GEN-008 for one with a task head and for an encoder."""
    if not isinstance(model, Headed) and model.causal:
        return
    hidden = isinstance(model, Headed) and model.kind == "masked"
    kind = f"a head of kind {model.kind}" if isinstance(model, Headed) else "an encoder's body"
    raise GroundupError(
        code="E-GEN-008",
        what=f"the model writes no text: it has {kind}",
        where=printable(name),
        why="only a decoder with its output matrix can say which token comes next",
        fix=_train_a_head(name) if hidden else f"groundup predict {printable(name)} --files FILE",
        exit_code=2,
    )


def require_head(model: LanguageModel | Headed, name: str) -> Headed:
    """The model with its task head. Raises E-EVAL-022 for a model without one; to tell hidden tokens is no task."""
    if isinstance(model, Headed) and model.kind != "masked":
        return model
    raise GroundupError(
        code="E-EVAL-022",
        what="the model has no head: it gives no labels, numbers or embeddings",
        where=printable(name),
        why="predictions are made by a head that was trained on labelled rows",
        fix=_train_a_head(name),
        exit_code=2,
    )


def _train_a_head(name: str) -> str:
    return f"train one on it: a recipe with data.kind=labelled and model.init_from={printable(name)}"
