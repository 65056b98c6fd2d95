"""What a recipe may say about an optimizer; every derived number may be left out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from groundup.optim.groups import GroupOptions
from groundup.optim.schedules import ScheduleOptions


class _Common(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    learning_rate: float | None = Field(
        default=None, gt=0.0, le=10.0, allow_inf_nan=False, description="peak rate; derived from the width"
    )
    weight_decay: float = Field(
        default=0.1, ge=0.0, le=1.0, description="decoupled decay; spares norms, biases and embeddings"
    )
    l1: float = Field(
        default=0.0,
        ge=0.0,
        le=10.0,
        description="each step moves a weight towards 0 by l1 · rate; spares what decay does",
    )
    schedule: ScheduleOptions = Field(default_factory=ScheduleOptions, description="how the rate moves")
    clip: float | None = Field(default=1.0, gt=0.0, description="largest gradient norm; null: no clipping")
    layer_decay: float | None = Field(
        default=None, gt=0.0, lt=1.0, description="each layer learns at this share of the rate of the one above it"
    )
    groups: list[GroupOptions] = Field(
        default_factory=list, description="other rates and decays by parameter path; the first match counts"
    )


class AdamWOptions(_Common):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    kind: Literal["adamw"]
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0, description="decay of the mean gradient")
    beta2: float = Field(default=0.95, ge=0.0, lt=1.0, description="decay of the mean squared gradient")
    epsilon: float = Field(default=1e-8, gt=0.0, description="added to the root of the mean square")


class SGDOptions(_Common):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"]
    weight_decay: float = Field(
        default=0.1, ge=0.0, le=1.0, description="L2 in the gradient; spares norms, biases and embeddings"
    )
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0, description="share of the last update kept")
    nesterov: bool = Field(default=False, description="look ahead along the momentum")


class _Coupled(_Common):
    """Optimizers whose decay is the gradient of a penalty, and passes through all that they do with gradients."""

    weight_decay: float = Field(
        default=0.0, ge=0.0, le=1.0, description="L2: this times the weight is added to its gradient; spares as l1 does"
    )


class AdamOptions(_Coupled):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980)."""

    kind: Literal["adam"]
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0, description="decay of the mean gradient")
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0, description="decay of the mean squared gradient")
    epsilon: float = Field(default=1e-8, gt=0.0, description="added to the root of the mean square")


class RMSpropOptions(_Coupled):
    """RMSprop (Tieleman & Hinton 2012, lecture 6e), centered as in Graves 2013 (arXiv:1308.0850), equation 38."""

    kind: Literal["rmsprop"]
    alpha: float = Field(default=0.99, ge=0.0, lt=1.0, description="decay of the mean squared gradient")
    epsilon: float = Field(default=1e-8, gt=0.0, description="added to the root of the mean square")
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0, description="share of the last update kept")
    centered: bool = Field(default=False, description="divide by the deviation, not the root of the mean square")


class AdagradOptions(_Coupled):
    """Adagrad (Duchi, Hazan & Singer 2011, JMLR 12)."""

    kind: Literal["adagrad"]
    epsilon: float = Field(default=1e-10, gt=0.0, description="added to the root of the summed squares")


class MuonOptions(_Common):
    """Muon for the hidden matrices, AdamW for embeddings, head, norms, biases and kernels of convolutions."""

    kind: Literal["muon"]
    momentum: float = Field(default=0.95, ge=0.0, lt=1.0, description="share of the last update kept")
    iterations: int = Field(default=5, ge=1, le=20, description="Newton–Schulz steps")
    adamw_scale: float = Field(default=2.0, gt=0.0, description="the AdamW part's rate, as a multiple of learning_rate")
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0, description="AdamW part: decay of the mean gradient")
    beta2: float = Field(default=0.95, ge=0.0, lt=1.0, description="AdamW part: decay of the mean square")


OptimizerOptions = Annotated[
    AdamWOptions | SGDOptions | MuonOptions | AdamOptions | RMSpropOptions | AdagradOptions,
    Field(discriminator="kind"),
]
