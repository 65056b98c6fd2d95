"""Before step 1: one batch of the longest length, timed, and the memory of a run foreseen without running it."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from groundup.adapters import apply, unfreeze_at, unfreezing_steps
from groundup.contract import IGNORE, Batch, Source
from groundup.data.labelled_stream import collate
from groundup.engine.precision import autocast
from groundup.errors import GroundupError
from groundup.functional import CHUNK_ELEMENTS
from groundup.machine.ceiling import synchronize
from groundup.machine.describe import memory
from groundup.machine.memory import PeakMemory, current_memory_bytes
from groundup.models import FamilyOptions
from groundup.models.heads import HeadOptions
from groundup.optim.groups import is_muons
from groundup.parallel.blocks import compile_blocks, recompute_blocks
from groundup.recipe.tree import LabelledData, Recipe
from groundup.run import models
from groundup.run.parts import Parts, objective_of, optimizers_of

ENOUGH_SECONDS = 1.6
"""How long the timing goes on, if a step is short."""


MEASURING_BYTES = 3 * 4 * CHUNK_ELEMENTS
"""An evaluation holds a chunk of logits, its softmax and its losses while the allocator still keeps what
training used."""


@dataclass(frozen=True)
class Rehearsal:
    """Measured times, in seconds, and the most memory that the process held meanwhile, in bytes."""

    micro_batch: float
    update: float
    peak: int

    def step(self, accumulate: int) -> float:
        """One optimizer step of `accumulate` micro-batches."""
        return self.micro_batch * accumulate + self.update


@dataclass(frozen=True)
class Memory:
    """Bytes that a run will hold at its peak, by part. `holes` is what an allocator keeps between its pieces beyond
    what can be counted: only a rehearsal can tell."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int
    process: int
    holes: int = 0

    @property
    def total(self) -> int:
        """All parts."""
        return sum(asdict(self).values())


def dry_batch(parts: Parts) -> Batch:
    """A micro-batch of the longest length. Language rows have two documents, so that the mask is there too;
    labelled rows are the longest ones that there are."""
    context, rows = parts.recipe.data.context or 1, parts.recipe.budget.micro_batch or 1
    if parts.labels is not None:
        longest = sorted(parts.labels.parts["train"].examples, key=lambda example: -example.length)
        return collate(longest[:rows], parts.labels.task, parts.labels.pad_id)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, parts.tokenizer.vocabulary, (rows, context + 1), generator=generator)
    prefix = torch.tensor(parts.tokenizer.prefix[:context], dtype=torch.int64)
    tokens[:, : len(prefix)] = prefix
    half = context // 2 if context > 3 else 0  # a document of one token has nothing to attend to
    position = torch.cat([torch.arange(half), torch.arange(context - half)])[None].expand(rows, -1)
    document = (torch.arange(context) >= half).long()[None].expand(rows, -1)
    return {
        "tokens_BT": tokens[:, :-1].contiguous(),
        "target_BT": tokens[:, 1:].masked_fill(tokens[:, 1:] >= parts.tokenizer.vocabulary, IGNORE),
        "position_BT": position.contiguous(),
        "document_BT": document.contiguous(),
    }


def rehearse(parts: Parts, *, seconds: float = ENOUGH_SECONDS) -> Rehearsal:
    """Run the dry batch through a network of the run's sizes, forward, backward and update, and time it.

    Raises:
        GroundupError: E-RUN-030 out of memory, with the fields to lower; E-RUN-031 parameters without a
            gradient, by name.
    """
    recipe, device = parts.recipe, parts.device
    needed, there = foresee_memory(parts, current_memory_bytes()), available_memory(device)
    if needed.total - needed.process > there:
        raise out_of_memory(recipe, f"needs {needed.total / 1e9:.1f} GB, {there / 1e9:.1f} GB are free")
    source = parts.source()  # which refuses data without a row
    try:
        with PeakMemory(device) as watched:
            micros, updates = _timed(parts, source, seconds)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(recipe, str(error)) from error
    gc.collect()
    # the first round pays for warming up
    peak = watched.peak if device.type == "cpu" else watched.accelerator_peak
    return Rehearsal(statistics.median(micros[1:]), statistics.median(updates[1:]), peak)


def _timed(parts: Parts, source: Source, seconds: float) -> tuple[list[float], list[float]]:
    """Seconds of each micro-batch and of each update: three of them, or as many as `seconds` allow."""
    device = parts.device
    batch = {name: tensor.to(device) for name, tensor in dry_batch(parts).items()}
    model = models_like(parts)
    objective = objective_of(parts, model)
    optimizer = optimizers_of(parts, model, steps=1)["model"]
    context = autocast(parts.precision, device)
    micros: list[float] = []
    updates: list[float] = []
    began = time.perf_counter()
    while len(micros) < 3 or (time.perf_counter() - began < seconds and len(micros) < 50):
        start = time.perf_counter()
        source.next("model")  # making a batch takes time as well
        with context():
            loss = objective.loss("model", batch)
        (loss.total / float(objective.weight("model", batch))).backward()
        synchronize(device)
        middle = time.perf_counter()
        if len(micros) == 1:  # in the first step a low-rank factor whose other factor is zero has none
            require_gradients(model)
        optimizer.step(0)
        optimizer.zero_grad()
        synchronize(device)
        micros.append(middle - start)
        updates.append(time.perf_counter() - middle)
    return micros, updates


def available_memory(device: torch.device) -> int:
    """Bytes that are free on the device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return memory()["available"]


def models_like(parts: Parts) -> nn.Module:
    """A network of the run's sizes, adapted, with small random values, to be thrown away."""
    model = models.initialised(parts.family, parts.options, parts.device, 0, parts.head)
    models.adapt(model, parts.recipe.adapters, seed=0)
    for options in parts.freezing:
        unfreeze_at(model, options, unfreezing_steps(options)[-1])  # the most that is ever trained
    blocks = models.body_of(model).layers
    if parts.recipe.hardware.recompute:
        recompute_blocks(blocks)
    if parts.recipe.hardware.compile == "on":
        compile_blocks(blocks)
    return model


def require_gradients(model: torch.nn.Module) -> None:
    """Refuse a model in which a trainable parameter gets no gradient (R3)."""
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not bool(parameter.grad.any()))
    ]
    if silent:
        raise GroundupError(
            "E-RUN-031",
            f"{len(silent)} trainable parameters get no gradient",
            where=", ".join(silent[:8]) + (" …" if len(silent) > 8 else ""),
            why="they would stay as they were drawn, and the run would look fine",
            fix="check that the model uses them, or freeze them on purpose",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "memory" in str(error).lower()


def out_of_memory(recipe: Recipe, detail: str = "") -> GroundupError:
    """The error that names the knobs, the cheapest first."""
    rows = recipe.budget.micro_batch or 1
    same = "other rows meet in a step" if isinstance(recipe.data, LabelledData) else "the result is the same"
    knobs = [f"budget.micro_batch={max(1, rows // 2)}   (halves the activations; {same})"]
    if not recipe.hardware.recompute:
        knobs.append("hardware.recompute=true   (less memory, about a third slower)")
    knobs.append(f"data.context={max(2, (recipe.data.context or 2) // 2)} or a smaller model.depth")
    return GroundupError(
        "E-RUN-030",
        "the longest batch does not fit into memory",
        where=f"micro_batch {rows} × context {recipe.data.context}" + (f": {detail[:120]}" if detail else ""),
        why="it was tried before step 1, so that the run does not die in the middle",
        fix="\n".join(knobs),
    )


def foresee_memory(parts: Parts, process: int) -> Memory:
    """Peak memory of the run, without allocating it. `process` is what the process holds without the run, in
    bytes."""
    return foresee(parts.recipe, parts.family, parts.options, parts.precision, process, parts.head)


def foresee(
    recipe: Recipe,
    family: str,
    options: FamilyOptions,
    precision: str,
    process: int,
    head: HeadOptions | None = None,
) -> Memory:
    """As `foresee_memory`, from a resolved recipe."""
    with counting_device(family, options, recipe) if recipe.adapters else torch.device("meta"):
        model = models.network(family, options, head)
        models.adapt(model, recipe.adapters, seed=0)
    rows, context = recipe.budget.micro_batch or 1, recipe.data.context or 1
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    stored = sum(t.nbytes for t in dict.fromkeys([*model.parameters(), *model.buffers()]))
    weights = sum(p.nbytes for p in trained.values())
    hidden = {name: p for name, p in trained.items() if is_muons(name, p)}
    of_muon = sum(p.nbytes for p in hidden.values())
    kind = recipe.optim["model"].kind
    optimizer = {"adamw": 2 * weights, "sgd": weights, "muon": 2 * weights - of_muon}[kind]
    largest = max(p.nbytes for p in trained.values())
    stacks: dict[tuple[int, ...], int] = {}
    for p in hidden.values():
        stacks[tuple(p.shape)] = stacks.get(tuple(p.shape), 0) + p.nbytes
    update = 5 * max(stacks.values(), default=0) if kind == "muon" else 0
    wide = 4 * rows * context * max(options.hidden, options.width * 2)
    loss = 0
    if head is None:
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
