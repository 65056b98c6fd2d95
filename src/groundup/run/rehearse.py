"""Before step 1: one batch of the longest length, timed, and the memory of a run foreseen without running it."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from groundup.contract import Batch
from groundup.engine.precision import autocast
from groundup.errors import GroundupError
from groundup.functional import CHUNK_ELEMENTS
from groundup.machine.ceiling import synchronize
from groundup.machine.describe import memory
from groundup.machine.memory import current_memory_bytes
from groundup.models.llama import Llama, LlamaOptions
from groundup.objectives import OBJECTIVES
from groundup.optim.optimizer import Optimizer, is_hidden_matrix
from groundup.parallel.blocks import compile_blocks, recompute_blocks
from groundup.recipe.tree import Recipe
from groundup.run.assemble import Parts

ENOUGH_SECONDS = 2.0
"""How long the timing goes on, if a step is short."""


MEASURING_BYTES = 3 * 4 * CHUNK_ELEMENTS
"""An evaluation holds a chunk of logits, its softmax and its losses while the allocator still keeps what
training used."""


@dataclass(frozen=True)
class Rehearsal:
    """Measured times, in seconds."""

    micro_batch: float
    update: float

    def step(self, accumulate: int) -> float:
        """One optimizer step of `accumulate` micro-batches."""
        return self.micro_batch * accumulate + self.update


@dataclass(frozen=True)
class Memory:
    """Bytes that a run will hold at its peak, by part."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int
    process: int

    @property
    def total(self) -> int:
        """All parts."""
        return sum(asdict(self).values())


def dry_batch(parts: Parts) -> Batch:
    """A micro-batch of the longest length, two documents in each row, so that the mask is there too."""
    context, rows = parts.recipe.data.context or 1, parts.recipe.budget.micro_batch or 1
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, parts.options.vocabulary, (rows, context + 1), generator=generator)
    half = context // 2 if context > 3 else 0  # a document of one token has nothing to attend to
    position = torch.cat([torch.arange(half), torch.arange(context - half)])[None].expand(rows, -1)
    document = (torch.arange(context) >= half).long()[None].expand(rows, -1)
    return {
        "tokens_BT": tokens[:, :-1].contiguous(),
        "target_BT": tokens[:, 1:].contiguous(),
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
    batch = {name: tensor.to(device) for name, tensor in dry_batch(parts).items()}
    try:
        model = models_like(parts)
        _, objective_class = OBJECTIVES[recipe.objective.kind]
        objective = objective_class(recipe.objective, model)
        optimizer = Optimizer(model, recipe.optim["model"], steps=1)
        context = autocast(parts.precision, device)
        source = parts.source()
        micros: list[float] = []
        updates: list[float] = []
        began = time.perf_counter()
        while len(micros) < 3 or (time.perf_counter() - began < seconds and len(micros) < 50):
            start = time.perf_counter()
            source.next("model")  # making a batch takes time as well
            with context():
                loss = objective.loss("model", batch)
            (loss.total / batch["target_BT"].numel()).backward()
            synchronize(device)
            middle = time.perf_counter()
            if not micros:
                require_gradients(model)
            optimizer.step(0)
            optimizer.zero_grad()
            synchronize(device)
            micros.append(middle - start)
            updates.append(time.perf_counter() - middle)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(recipe, str(error)) from error
    del model, objective, optimizer, loss
    gc.collect()
    # the first round pays for warming up
    return Rehearsal(statistics.median(micros[1:]), statistics.median(updates[1:]))


def available_memory(device: torch.device) -> int:
    """Bytes that are free on the device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return memory()["available"]


def models_like(parts: Parts) -> Llama:
    """A network of the run's sizes with small random values, to be thrown away."""
    from groundup.run.models import initialised

    model = initialised(parts.options, parts.device, seed=0)
    if parts.recipe.hardware.recompute:
        recompute_blocks(model.layers)
    if parts.recipe.hardware.compile == "on":
        compile_blocks(model.layers)
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
    knobs = [f"budget.micro_batch={max(1, rows // 2)}   (halves the activations; the result is the same)"]
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
    """Peak memory of the run, without allocating it: the saved activations are counted on the meta device.
    `process` is what the process holds without the run, in bytes."""
    return foresee(parts.recipe, parts.options, parts.precision, process)


def foresee(recipe: Recipe, options: LlamaOptions, precision: str, process: int) -> Memory:
    """As `foresee_memory`, from a resolved recipe."""
    with torch.device("meta"):
        model = Llama(options)
    rows, context = recipe.budget.micro_batch or 1, recipe.data.context or 1
    weights = sum(p.numel() * 4 for p in model.parameters())
    hidden = sum(p.numel() * 4 for name, p in model.named_parameters() if is_hidden_matrix(name, p))
    kind = recipe.optim["model"].kind
    optimizer = {"adamw": 2 * weights, "sgd": weights, "muon": 2 * weights - hidden}[kind]
    largest = max(p.numel() * 4 for p in model.parameters())
    stacks: dict[tuple[int, ...], int] = {}
    for name, p in model.named_parameters():
        if is_hidden_matrix(name, p):
            stacks[tuple(p.shape)] = stacks.get(tuple(p.shape), 0) + p.numel() * 4
    update = 5 * max(stacks.values(), default=0) if kind == "muon" else 0
    wide = 4 * rows * context * max(options.hidden, options.width * 2)
    logits = min(CHUNK_ELEMENTS, rows * context * options.vocabulary) * 4 * 2
    loss = logits + rows * context * options.width * 4 + 2 * options.vocabulary * options.width * 4
    activations = _saved_bytes(model, rows, context, recipe.hardware.recompute, precision)
    return Memory(
        weights=weights,
        gradients=weights,
        optimizer=optimizer,
        activations=activations,
        workspace=max(loss, 4 * wide, update, largest) + MEASURING_BYTES,
        process=process,
    )


def _saved_bytes(model: Llama, rows: int, context: int, recompute: bool, precision: str) -> int:
    """Bytes that autograd keeps between forward and backward, parameters apart."""
    own = {id(p) for p in model.parameters()}
    seen: dict[int, int] = {}
    kept: list[Tensor] = []

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(tensor) not in own and storage._cdata not in seen:
            seen[storage._cdata] = storage.nbytes()
            kept.append(tensor)  # keeps the storage alive, so that its address is not used twice
        return tensor

    if recompute:
        recompute_blocks(model.layers)
    model = model.to("meta")
    tokens = torch.zeros(rows, context, dtype=torch.int64, device="meta")
    document = torch.zeros(rows, context, dtype=torch.int64, device="meta")
    model.cos_TR, model.sin_TR = model.cos_TR.to("meta"), model.sin_TR.to("meta")
    with (
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        model.hidden(tokens, tokens, document)
    return sum(seen.values())
