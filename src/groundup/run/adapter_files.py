"""Low-rank adapters as folders in the PEFT layout, with the base's digest inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup import checkpoint
from groundup.adapters import (
    GrowOptions,
    LoraOptions,
    QuantizeOptions,
    adapter_tensors,
    apply,
    load_adapter_tensors,
    lora,
)
from groundup.adapters.lora import LoraQuantizedLinear
from groundup.adapters.quantize import QuantizedEmbedding, QuantizedLinear
from groundup.errors import GroundupError, printable
from groundup.formats.peft import peft_files, read_adapter, write_adapter
from groundup.run import models
from groundup.run.models import Described, Loaded
from groundup.run.weights import model_is_tied

TASKS = {"classify": "SEQ_CLS", "multilabel": "SEQ_CLS", "regress": "SEQ_CLS", "tag": "TOKEN_CLS"}
HEAD_MODULES = {
    "classify": {"llama": "score", "gpt2": "score", "moe": "score", "bert": "classifier"},
    "tag": {"llama": "score", "gpt2": "classifier", "moe": "score", "bert": "classifier"},
}
"""What Hugging Face calls our head's output layer."""


def base_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of the base's tensors, adapters and a tied head left out; quantized ones as they were before."""
    parts = (".lora_a.", ".lora_b.", ".lora_magnitude.", ".matrix.")
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items() if not any(part in n for part in parts)}
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear | LoraQuantizedLinear):
            shapes[f"{name}.weight"] = (module.out_features, module.in_features)
        elif isinstance(module, QuantizedEmbedding):
            shapes[f"{name}.weight"] = (module.num_embeddings, module.embedding_dim)
    if model_is_tied(model):
        shapes.pop("head.weight", None)
    return shapes


def head_modules(said: Described) -> dict[str, str]:
    """Hugging Face's names of the modules of a task head, by ours."""
    if said.head is None or said.head.kind == "embed":
        return {}
    kind = "tag" if said.head.kind == "tag" else "classify"
    return {"head.output": HEAD_MODULES[kind][said.family], "head.pooler": "bert.pooler.dense"}


def exported_adapter(loaded: Loaded) -> LoraOptions:
    """The one low-rank adapter of a model, to be written as a PEFT folder.

    Raises:
        GroundupError: E-ADAPT-021 if the model has none, or has more than the layout holds.
    """
    kinds = [adapter.kind for adapter in loaded.said.adapters if adapter.kind not in ("freeze", "quantize")]
    found = [adapter for adapter in loaded.said.adapters if isinstance(adapter, LoraOptions)]
    if loaded.said.base is not None and len(found) == len(kinds) == 1:
        return found[0]
    grows = any(isinstance(adapter, GrowOptions) for adapter in loaded.said.adapters)
    raise GroundupError(
        "E-ADAPT-021",
        "the model has new tokens: their rows belong to a larger base than the one that the adapter names"
        if grows
        else f"the model has {len(kinds)} adapters ({', '.join(kinds)}): a PEFT folder holds one, and a low-rank one"
        if kinds
        else "the model has no low-rank adapter to write in the PEFT layout",
        where=printable(loaded.folder.as_posix()),
        why="what else was trained would be lost; the layout holds one LoRA, rsLoRA or DoRA adapter",
        fix="groundup export MODEL --to huggingface --out DIR   (the whole model)",
        exit_code=2,
    )


def on_own_base(path: Path, loaded: Loaded) -> tuple[nn.Module, str]:
    """The adapter in a PEFT folder on the base of the model that it was written from, and the adapter's name."""
    said = loaded.said
    assert said.base is not None
    model = models.load(loaded.folder, torch.device("cpu"), adapters=False).model
    apply(model, [adapter for adapter in said.adapters if isinstance(adapter, QuantizeOptions)], seed=0)
    options = read_peft_adapter(path, model, said, said.base.digest)
    return model.eval(), options.name


def write_peft_adapter(target: Path, model: nn.Module, said: Described, options: LoraOptions) -> None:
    """Write the low-rank adapter of a model.

    Args:
        target: the folder; new.
        model: adapted.
        said: what the model's files say, its base included.
        options: of the adapter.
    """
    assert said.base is not None
    bare = said.family == "bert" and (said.head is None or said.head.kind == "embed")
    task = TASKS.get(said.head.kind, "FEATURE_EXTRACTION") if said.head else None if bare else "CAUSAL_LM"
    tensors, files = peft_files(
        adapter_tensors(model, options.name),
        options.model_dump(),
        family=said.family,
        shapes=base_shapes(model),
        base_name=said.base.path,
        base_digest=said.base.digest,
        task=task,
        bare=bare,
        others=head_modules(said),
    )
    write_adapter(target, tensors, files, checkpoint.write_safetensors)


def read_peft_adapter(path: Path, model: nn.Module, said: Described, digest: str) -> LoraOptions:
    """Adapt a base with the adapter in a PEFT folder, in place; returns the adapter's options.

    Raises:
        GroundupError: E-FORMAT-050 to 052, the folder is malformed, of another kind, or of another base.
    """
    found = read_adapter(
        path,
        family=said.family,
        shapes=base_shapes(model),
        read_tensors=checkpoint.read_safetensors,
        base_digest=digest,
        others={theirs: ours for ours, theirs in head_modules(said).items()},
    )
    fields: dict[str, Any] = {"kind": "lora", **found.options}
    options = LoraOptions.model_validate(fields)
    lora(model, options, seed=0)
    load_adapter_tensors(model, options.name, found.tensors)
    return options
