"""What a path names, ready to use. What trains is not imported here: a model that only answers is there sooner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from groundup.api import LoadedModel
from groundup.machine.ceiling import choose_precision, resolve_device
from groundup.run import models
from groundup.run.models import family_of

if TYPE_CHECKING:
    from groundup.run.loaded_network import LoadedNetworkModel


def load(path: str | Path, *, device: str = "auto") -> LoadedModel | LoadedNetworkModel:
    """The model that `path` names, ready to use."""
    place = resolve_device(device)
    if family_of(models.find_model(Path(path))) is not None:
        from groundup.run.opening_networks import open_network

        return open_network(Path(path), place, _autocast(place))
    loaded = models.load(Path(path), place)
    return LoadedModel(
        model=loaded.model,  # type: ignore[arg-type]
        tokenizer=loaded.said.tokenizer,
        chat_template=loaded.said.chat,
        device=place,
        name=str(path),
        said=loaded.said,
        autocast=_autocast(place),
    )


def _autocast(place: torch.device) -> torch.dtype | None:
    return torch.bfloat16 if choose_precision("auto", place).name == "bfloat16" else None
