"""A small tree with everything a recipe may have: kinds, unions, lists, mappings, ranges, nested defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


class Constant(BaseModel):
    """The rate stays as it is."""

    model_config = STRICT
    kind: Literal["constant"] = "constant"


class Cosine(BaseModel):
    """The rate falls along half a cosine."""

    model_config = STRICT
    kind: Literal["cosine"] = "cosine"
    warmup: int = Field(0, ge=0, description="Steps over which the rate rises from zero.")


Schedule = Annotated[Constant | Cosine, Field(discriminator="kind")]


class AdamW(BaseModel):
    """Adam with decoupled weight decay."""

    model_config = STRICT
    kind: Literal["adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0, le=10, description="Largest step, in units of the weights.")
    betas: tuple[float, float] = (0.9, 0.95)
    schedule: Schedule = Constant()


class Sgd(BaseModel):
    """Plain gradient descent."""

    model_config = STRICT
    kind: Literal["sgd"] = "sgd"
    lr: float = Field(1e-2, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False


class Model(BaseModel):
    """The network."""

    model_config = STRICT
    family: Literal["llama"] = "llama"
    depth: int = Field(6, ge=1, le=96)
    heads: int = Field(4, ge=1, multiple_of=2)
    width: int | None = Field(None, ge=8)
    dropout: Literal["auto"] | Annotated[float, Field(ge=0, lt=1)] = "auto"

    @model_validator(mode="after")
    def _fits(self) -> Model:
        if self.width is not None and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Data(BaseModel):
    """Where the text comes from."""

    model_config = STRICT
    files: tuple[Path, ...] = Field(min_length=1, description="Files or patterns.")
    columns: dict[str, str] = {}
    clean: bool = True
    name: str = "corpus"


class Budget(BaseModel):
    """How long to go on."""

    model_config = STRICT
    steps: int | None = Field(None, ge=1, le=1_000_000)
    minutes: float | None = Field(None, gt=0)


class Toy(BaseModel):
    """A recipe in little."""

    model_config = STRICT
    model: Model = Model()
    data: Data
    optim: dict[str, Annotated[AdamW | Sgd, Field(discriminator="kind")]] = {}
    adapters: tuple[Annotated[AdamW | Sgd, Field(discriminator="kind")], ...] = ()
    budget: Budget = Budget(steps=100)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
