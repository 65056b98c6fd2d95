"""Ways of learning: (turn, batch) → a summed loss. One file each; `OBJECTIVES` is what a recipe may name."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel

from groundup.contract import Objective
from groundup.objectives.classify import Choice, ChoiceOptions, Classify, ClassifyOptions, TagOptions
from groundup.objectives.contrast import Contrast, ContrastOptions
from groundup.objectives.multilabel import Multilabel, MultilabelOptions
from groundup.objectives.next_token import NextToken, NextTokenOptions
from groundup.objectives.regress import Regress, RegressOptions

OBJECTIVES: dict[str, tuple[type[BaseModel], Callable[..., Objective]]] = {
    "next_token": (NextTokenOptions, NextToken),
    "classify": (ClassifyOptions, Classify),
    "multilabel": (MultilabelOptions, Multilabel),
    "tag": (TagOptions, Classify),
    "regress": (RegressOptions, Regress),
    "contrast": (ContrastOptions, Contrast),
    "choice": (ChoiceOptions, Choice),
}
