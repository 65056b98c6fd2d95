"""Ways of learning: (turn, batch) → a summed loss. One file each; `OBJECTIVES` is what a recipe may name."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel

from groundup.contract import Objective
from groundup.objectives.adversarial import Adversarial, AdversarialOptions
from groundup.objectives.classify import Choice, ChoiceOptions, Classify, ClassifyOptions, TagOptions
from groundup.objectives.contrast import Contrast, ContrastOptions
from groundup.objectives.masked_token import MaskedToken, MaskedTokenOptions
from groundup.objectives.multilabel import Multilabel, MultilabelOptions
from groundup.objectives.next_token import NextToken, NextTokenOptions
from groundup.objectives.policy import A2COptions, PolicyGradient, PPOOptions, ReinforceOptions
from groundup.objectives.reconstruct import Elbo, Reconstruct, ReconstructOptions, VaeOptions
from groundup.objectives.regress import Regress, RegressOptions
from groundup.objectives.self_play import SelfPlay, SelfPlayLossOptions
from groundup.objectives.soft_actor_critic import SAC, SACOptions
from groundup.objectives.translate import Translate, TranslateOptions
from groundup.objectives.value import DQN, DQNOptions

OBJECTIVES: dict[str, tuple[type[BaseModel], Callable[..., Objective]]] = {
    "next_token": (NextTokenOptions, NextToken),
    "masked_token": (MaskedTokenOptions, MaskedToken),
    "classify": (ClassifyOptions, Classify),
    "multilabel": (MultilabelOptions, Multilabel),
    "tag": (TagOptions, Classify),
    "regress": (RegressOptions, Regress),
    "contrast": (ContrastOptions, Contrast),
    "choice": (ChoiceOptions, Choice),
    "translate": (TranslateOptions, Translate),
    "reconstruct": (ReconstructOptions, Reconstruct),
    "elbo": (VaeOptions, Elbo),
    "adversarial": (AdversarialOptions, Adversarial),
    "dqn": (DQNOptions, DQN),
    "reinforce": (ReinforceOptions, PolicyGradient),
    "a2c": (A2COptions, PolicyGradient),
    "ppo": (PPOOptions, PolicyGradient),
    "sac": (SACOptions, SAC),
    "self_play": (SelfPlayLossOptions, SelfPlay),
}
