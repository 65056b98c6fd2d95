"""The memory that a run of a language model will take, foreseen without running it, and its longest batch."""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.adapters import GrowOptions, apply
from groundup.contract import IGNORE, Batch
from groundup.data.labelled_stream import collate
from groundup.functional import CHUNK_ELEMENTS
from groundup.models import FamilyOptions
from groundup.models.heads import HeadOptions
from groundup.objectives.masked_token import MaskedTokenOptions
from groundup.optim.groups import is_muons
from groundup.optim.options import OptimizerOptions, RMSpropOptions
from groundup.parallel.blocks import recompute_blocks
from groundup.recipe.tree import Recipe
from groundup.run import models
from groundup.run.labels import PreparedLabels
from groundup.run.work import Memory
from groundup.text.tokenizer import AnyTokenizer

MEASURING_BYTES = 3 * 4 * CHUNK_ELEMENTS
"""An evaluation holds a chunk of logits, its softmax and its losses while the allocator still keeps what
training used."""


def dry_batch(recipe: Recipe, tokenizer: AnyTokenizer, labels: PreparedLabels | None) -> Batch:
    """A micro-batch of the longest length. Language rows have two documents, so that the mask is there too;
    labelled rows are the longest ones that there are. A token that the recipe adds is among them: its row learns."""
    grows = any(isinstance(adapter, GrowOptions) for adapter in recipe.adapters)
    context, rows = recipe.data.context or 1, recipe.budget.micro_batch or 1
    if labels is not None:
        longest = sorted(labels.parts["train"].examples, key=lambda example: -example.length)
        batch = collate(longest[:rows], labels.task, labels.pad_id)  # type: ignore[arg-type]
        if grows:
            batch["tokens_BCT" if "tokens_BCT" in batch else "tokens_BT"][..., 0] = tokenizer.vocabulary - 1
        return batch
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, tokenizer.vocabulary, (rows, context + 1), generator=generator)
    prefix = torch.tensor(tokenizer.prefix[:context], dtype=torch.int64)
    tokens[:, : len(prefix)] = prefix
    if grows:
        tokens[:, len(prefix)] = tokenizer.vocabulary - 1
    target = tokens[:, 1:].masked_fill(tokens[:, 1:] >= tokenizer.vocabulary, IGNORE)
    if isinstance(recipe.objective, MaskedTokenOptions):
        target = target.masked_fill(torch.rand(target.shape, generator=generator) >= recipe.objective.share, IGNORE)
    half = context // 2 if context > 3 else 0  # a document of one token has nothing to attend to
    position = torch.cat([torch.arange(half), torch.arange(context - half)])[None].expand(rows, -1)
    document = (torch.arange(context) >= half).long()[None].expand(rows, -1)
    return {
        "tokens_BT": tokens[:, :-1].contiguous(),
        "target_BT": target,
        "position_BT": position.contiguous(),
        "document_BT": document.contiguous(),
    }


def copies_of(options: OptimizerOptions) -> int:
    """How many numbers an optimizer keeps for each weight; Muon's is by matrix and not here."""
    if isinstance(options, RMSpropOptions):
        return 1 + (options.momentum > 0) + options.centered
    return {"adamw": 2, "adam": 2, "sgd": 1, "adagrad": 1}[options.kind]


def foresee(
    recipe: Recipe,
    family: str,
    options: FamilyOptions,
    precision: str,
    process: int,
    head: HeadOptions | None = None,
) -> Memory:
    """Peak memory of a run of a language model, without allocating it.

    Args:
        recipe: resolved.
        process: bytes that the process holds without the run.
    """
    with counting_device(family, options, recipe) if recipe.adapters else torch.device("meta"):
        model = models.network(family, options, head)
        models.adapt(model, recipe.adapters, seed=0)
    rows, context = recipe.budget.micro_batch or 1, recipe.data.context or 1
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    stored = sum(t.nbytes for t in dict.fromkeys([*model.parameters(), *model.buffers()]))
    weights = sum(p.nbytes for p in trained.values())
    hidden = {name: p for name, p in trained.items() if is_muons(name, p)}
    of_muon = sum(p.nbytes for p in hidden.values())
    options_of = recipe.optim["model"]
    kind = options_of.kind
    optimizer = 2 * weights - of_muon if kind == "muon" else copies_of(options_of) * weights
    largest = max(p.nbytes for p in trained.values())
    stacks: dict[tuple[int, ...], int] = {}
    for p in hidden.values():
        stacks[tuple(p.shape)] = stacks.get(tuple(p.shape), 0) + p.nbytes
    update = 5 * max(stacks.values(), default=0) if kind == "muon" else 0
    inner = dict(options).get("hidden", 4 * options.width)  # a recurrent layer has four gates
    wide = 4 * rows * context * max(inner, options.width * 2)
    loss = 0
    if head is None or head.kind == "masked":
        logits = min(CHUNK_ELEMENTS, rows * context * options.vocabulary) * 4 * 2
        loss = logits + rows * context * options.width * 4 + 2 * options.vocabulary * options.width * 4
    activations = _saved_bytes(family, options, recipe, precision, head)
    return Memory(
        weights=stored,
        gradients=weights,
        optimizer=optimizer,
        activations=activations,
        workspace=max(loss, 4 * wide, update, largest) + MEASURING_BYTES,
        process=process,
    )


REAL_OPERATIONS = 2e10
"""Floating-point operations up to which the saved activations are counted on real tensors: a fraction of a
second, where the meta device would first import torch's compiler for three."""


def counting_device(family: str, options: FamilyOptions, recipe: Recipe) -> torch.device:
    """Where tensors are made only to be counted: on the CPU if one row is little work, else nowhere."""
    with torch.device("meta"):
        weights = sum(p.numel() for p in models.network(family, options).parameters())
    return torch.device("cpu" if 6 * weights * (recipe.data.context or 1) < REAL_OPERATIONS else "meta")


def _saved_bytes(family: str, options: FamilyOptions, recipe: Recipe, precision: str, head: HeadOptions | None) -> int:
    """Bytes that autograd keeps between forward and backward, parameters apart. What one row keeps in one
    layer and in two is counted; it grows by the same amount with every layer and every row. Adapters need the
    whole network, for their patterns may tell its layers apart."""
    rows = recipe.budget.micro_batch or 1
    if recipe.adapters:
        device = counting_device(family, options, recipe)
        return rows * _saved_by_one_row(family, options, recipe, precision, device, head)
    one, two = (options.model_copy(update={"layers": min(n, options.layers)}) for n in (1, 2))
    device = counting_device(family, two, recipe)
    first = _saved_by_one_row(family, one, recipe, precision, device)
    each = _saved_by_one_row(family, two, recipe, precision, device) - first
    return rows * (first + each * (options.layers - 1))


def _saved_by_one_row(
    family: str,
    options: FamilyOptions,
    recipe: Recipe,
    precision: str,
    device: torch.device,
    head: HeadOptions | None = None,
) -> int:
    """What the body keeps. A head is built too where adapters may name its parameters, and is not run."""
    with device:
        model = models.network(family, options, head)
        apply(model, [a for a in recipe.adapters if a.kind != "freeze"], seed=0)
    if device.type == "meta":
        for module in model.modules():  # tables are computed on the CPU, whatever the device
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, buffer.to(device), persistent=False)
    own = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
    seen: dict[int, int] = {}
    kept: list[Tensor] = []

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and storage._cdata not in seen:
            seen[storage._cdata] = storage.nbytes()
            kept.append(tensor)  # keeps the storage alive, so that its address is not used twice
        return tensor

    if recipe.hardware.recompute:
        recompute_blocks(models.body_of(model).layers)
    tokens = torch.zeros(1, recipe.data.context or 1, dtype=torch.int64, device=device)
    with (
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        models.body_of(model).hidden(tokens, tokens, tokens)
    return sum(seen.values())
