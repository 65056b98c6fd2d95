"""Small models whose answers are known, written as model folders: of a table, of images, of texts, and one that writes.

Shapes are tiny and weights set by hand or drawn from a fixed seed, so that a test takes milliseconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup import checkpoint
from groundup.data.table_options import TableOptions
from groundup.data.table_scaler import Preprocessor
from groundup.models import NETWORKS
from groundup.models.bert import BertOptions
from groundup.models.heads import HeadOptions
from groundup.models.llama import LlamaOptions
from groundup.models.recurrent_text import RecurrentTextOptions
from groundup.run.models import Described, initialised, model_files
from groundup.run.networks import NetworkSaid, network, network_files
from groundup.text.chat import ChatTemplate
from groundup.text.options import TokenizerOptions
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train_tokenizer

WEIGHTS = {"size": 2.0, "weight": -1.0, "weight is missing": 0.5, "colour=green": 3.0, "colour=red": -3.0}


def save(folder: Path, said: NetworkSaid, model: nn.Module) -> Path:
    checkpoint.save_model(folder, tensors=model.state_dict(), files=network_files(said))
    return folder


def table_model(folder: Path, kind: str = "classify") -> Path:
    """A linear network over size, weight and colour: for labels the second logit is known, the first is 0."""
    labels = {"classify": ["no", "yes"], "multilabel": ["no", "yes"], "regress": []}[kind]
    fitted = Preprocessor.fit(
        [{"size": 3.0, "weight": 10.0, "colour": "red"}, {"size": 5.0, "weight": None, "colour": "green"}],
        numeric=["size", "weight"],
        categorical=["colour"],
        options=TableOptions(files=["-"], preprocessing={"missing": "mean", "missing_indicator": True}).preprocessing,
        values_N=[100.0, 300.0] if kind == "regress" else None,
    )
    assert fitted.names == list(WEIGHTS)
    said = NetworkSaid(
        family="mlp",
        options=NETWORKS["mlp"][0](hidden=[]),
        shape=(5,),
        outputs=len(labels) or 1,
        kind=kind,
        labels=labels,
        reads="features_BF",
        preparation={
            "kind": "table",
            "columns": fitted.to_dict(),
            "target": ["answer"],
            "options": TableOptions(files=["-"], task=kind).model_dump(),  # type: ignore[arg-type]
        },
    )
    model = network(said)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        next(p for p in model.parameters() if p.dim() == 2)[-1] = torch.tensor(list(WEIGHTS.values()))
    return save(folder, said, model)


def image_model(folder: Path) -> Path:
    """A linear network that looks at the top left quarter for one label, at the bottom right for the other."""
    said = NetworkSaid(
        family="mlp",
        options=NETWORKS["mlp"][0](hidden=[]),
        shape=(1, 14, 14),
        outputs=2,
        kind="classify",
        labels=["top", "bottom"],
        reads="image_BCHW",
        preparation={
            "kind": "images", "size": [14, 14], "channels": 1, "resize": "stretch", "normalise": "standard",
            "mean": [0.3], "deviation": [0.5], "labels": ["top", "bottom"],
        },
    )  # fmt: skip
    model = network(said)
    weight = torch.zeros(2, 1, 14, 14)
    weight[0, :, :7, :7] = weight[1, :, 7:, 7:] = 1.0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        next(p for p in model.parameters() if p.dim() == 2).copy_(weight.flatten(1))
    return save(folder, said, model)


def text_model(folder: Path, tokenizer: Tokenizer, family: str = "bert", head: HeadOptions | None = None) -> Path:
    head = head or HeadOptions(kind="classify", labels=["bad", "good"], pooling="mean")
    options: Any = RecurrentTextOptions(vocabulary=tokenizer.vocabulary, context=64, width=16, layers=1)
    if family == "bert":
        options = BertOptions(vocabulary=tokenizer.vocabulary, context=24, width=16, layers=1, heads=2, hidden=16)
    model = initialised(family, options, torch.device("cpu"), 3, head)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8.0)
    files = model_files(Described(family, options, tokenizer, None, head))
    checkpoint.save_model(folder, tensors=model.state_dict(), files=files)
    return folder


def small_tokenizer() -> Tokenizer:
    """Byte-level, with merges for a few English words, and Chinese in bytes."""
    texts = ["the soup was good and the waiter was rude 汤很好喝\n"] * 20
    return train_tokenizer(iter(texts), TokenizerOptions(kind="bpe", vocabulary=295, minimum_frequency=2))


def writing_model(folder: Path, tokenizer: Tokenizer, *, chats: bool = True, context: int = 96) -> Path:
    """A Llama-like decoder of random weights, spread enough that its answers differ between prompts."""
    options = LlamaOptions(
        vocabulary=tokenizer.vocabulary, context=context, width=32, layers=2, heads=4, key_value_heads=2, head_size=8,
        hidden=64, tied=False,
    )  # fmt: skip
    model = initialised("llama", options, torch.device("cpu"), 5)
    with torch.no_grad():
        model.get_parameter("embedding.weight").mul_(50)
        model.get_parameter("head.weight").mul_(4)
    chat = ChatTemplate() if chats else None
    files = model_files(Described("llama", options, tokenizer, chat))
    checkpoint.save_model(folder, tensors=model.state_dict(), files=files)
    return folder
