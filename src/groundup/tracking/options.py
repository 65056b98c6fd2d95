"""What a recipe may say about trackers. Nothing that tracks may enter: recipes are read without any of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    folder: str | None = Field(
        default=None,
        description="where its files are kept; default: tracking/tensorboard and so on in the run's folder",
    )


class TensorBoardOptions(_Options):
    """Event files that `tensorboard --logdir` reads."""

    kind: Literal["tensorboard"]


class TrackioOptions(_Options):
    """A local database that `trackio show` reads."""

    kind: Literal["trackio"]
    project: str = Field(default="groundup", pattern="^[A-Za-z0-9_-]+$", description="which the run belongs to")


class WandbOptions(_Options):
    """Weights & Biases."""

    kind: Literal["wandb"]
    project: str = Field(default="groundup", min_length=1, description="which the run belongs to")
    entity: str | None = Field(default=None, description="user or team, for mode online")
    mode: Literal["offline", "online"] = Field(
        default="offline", description="offline: files for a later `wandb sync`; online: sends everything at once"
    )


class MlflowOptions(_Options):
    """MLflow."""

    kind: Literal["mlflow"]
    experiment: str = Field(default="groundup", min_length=1, description="which the run belongs to")
    uri: str | None = Field(
        default=None, description="a tracking server or database, http://… or sqlite:///…, instead of files"
    )


TrackerOptions = Annotated[
    TensorBoardOptions | TrackioOptions | WandbOptions | MlflowOptions, Field(discriminator="kind")
]
