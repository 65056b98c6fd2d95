"""Networks that are no language models, by what they were trained for; see opening.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from groundup.run import models
from groundup.run.loaded_network import LoadedAutoencoder, LoadedGenerator, LoadedNetworkModel
from groundup.run.loaded_player import LoadedPlayer
from groundup.run.loaded_policy import LoadedPolicy
from groundup.run.loaded_rows import LoadedImagePredictor, LoadedTablePredictor
from groundup.run.loaded_translator import LoadedTranslator
from groundup.run.networks import load_network
from groundup.run.translation import load_translator


def open_network(path: Path, place: torch.device, autocast: torch.dtype | None) -> LoadedNetworkModel:
    """A network that is no language model, by what it was trained for."""
    how: dict[str, Any] = {"device": place, "name": str(path)}
    if models.family_of(models.find_model(path)) == "transformer":
        return LoadedTranslator(load_translator(path, place), **how, autocast=autocast)
    loaded = load_network(path, place)
    if loaded.said.kind == "actions":
        return LoadedPolicy(loaded, **how)
    if loaded.said.kind == "moves":
        return LoadedPlayer(loaded, **how)
    if loaded.said.family == "autoencoder":
        return LoadedAutoencoder(loaded.model, **how)
    if loaded.said.kind == "images":
        return LoadedGenerator(loaded, **how)
    kind = LoadedImagePredictor if loaded.said.preparation.get("kind") == "images" else LoadedTablePredictor
    return kind(loaded, **how, autocast=autocast)
