"""Engines for generation, made of loaded models: which form computes, in which precision, with which limits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from groundup.contract import LanguageModel
from groundup.errors import GroundupError
from groundup.inference import kernels
from groundup.inference.answer import Ask, Step
from groundup.inference.engine import Engine, EngineOptions, Runner
from groundup.inference.generate import Result, generate_batch
from groundup.inference.packed import GROUP, Precision
from groundup.inference.runners import CompiledRunner, Layer, Parts, PlainRunner
from groundup.inference.sample import SampleOptions
from groundup.inference.speculate import Drafter
from groundup.models.llama import Block, Llama

ROWS_TOGETHER = 32
"""Answers written at once where many are wanted and nobody waits for one of them."""

COPIED_BYTES = 128 * 2**20
"""The compiled form copies the weights. Beside a training run, whose memory was foreseen without the copy, larger ones
are not worth it."""


@dataclass(frozen=True)
class Form:
    """How an engine computes, in words for people: `compiled` or `plain`, the precision, and why not compiled."""

    kind: str
    precision: str
    reason: str
    weight_bytes: int


def engine_for(
    model: nn.Module,
    *,
    precision: Precision | None = None,
    options: EngineOptions | None = None,
    drafter: Drafter | None = None,
    compiled: bool = True,
) -> tuple[Engine, Form]:
    """An engine, not started.

    Args:
        model: a decoder in evaluation mode. The compiled form copies its weights; the caller may let go of it.
        precision: of the weights in the compiled form; float32 by default. The plain form takes them as they are.
        options: limits.
        drafter: guesses ahead; None: nothing is guessed.
        compiled: False takes the plain form.
    """
    runner, form = runner_for(model, precision or "float32", compiled=compiled)
    return Engine(runner, options or EngineOptions(), drafter), form


def answer_prompts(
    model: LanguageModel,
    prompts: Sequence[list[int]],
    options: SampleOptions,
    *,
    end_ids: Collection[int],
    compiled: bool = True,
) -> list[Result]:
    """Answers to many prompts, in their order, by an engine where a small model has a compiled form, in which an
    answer that ends makes room for the next; else as `generate_batch`, whose arguments and errors these are.
    `compiled=False` takes the plain form."""
    module = cast("nn.Module", model)
    small = sum(parameter.nbytes for parameter in module.parameters()) <= COPIED_BYTES
    room = all(len(prompt) < model.context for prompt in prompts)  # an engine asks for one, a batch answers nothing
    if not (compiled and small and room) or options.stop or why_plain(module, "float32") or kernels.why_not():
        return generate_batch(model, prompts, options, end_ids=end_ids)
    memory = max(EngineOptions().cache_tokens, model.context)
    limits = EngineOptions(rows=ROWS_TOGETHER, waiting=len(prompts), cache_tokens=memory)
    engine, _ = engine_for(module, options=limits)
    kept = [_Kept() for _ in prompts]
    for number, (prompt, sink) in enumerate(zip(prompts, kept, strict=True)):
        seeded = options.model_copy(update={"seed": (options.seed + number) % 2**63})
        engine.ask(Ask(prompt, seeded, end_ids, _NoText()), sink)
    engine.finish()
    return [one.result for one in kept]


class _Kept:
    """A sink that keeps the ids."""

    def __init__(self) -> None:
        self.result = Result([], "length", [])

    def __call__(self, step: Step | GroundupError) -> None:
        if isinstance(step, GroundupError):
            raise step
        if step.token is not None and step.token.logprob is not None:
            self.result.ids.append(step.token.id)
            self.result.logprobs.append(step.token.logprob)
        if step.finish is not None:
            self.result = self.result._replace(finish=step.finish)


class _NoText:
    """A decoder for those who want ids alone."""

    def push(self, token_id: int) -> str:
        return ""

    def flush(self) -> str:
        return ""


def runner_for(model: nn.Module, precision: Precision, *, compiled: bool = True) -> tuple[Runner, Form]:
    """What computes: compiled where the model and the machine allow it."""
    reason = "asked for" if not compiled else (why_plain(model, precision) or kernels.why_not() or "")
    if not reason and isinstance(model, Llama):
        runner = CompiledRunner(parts_of(model), precision, torch.get_num_threads())
        return runner, Form("compiled", precision, "", runner.weight_bytes)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    size = sum(parameter.nbytes for parameter in model.parameters())
    return PlainRunner(model), Form("plain", dtype, reason, size)  # type: ignore[arg-type]


def why_plain(model: nn.Module, precision: Precision) -> str | None:
    """Why a model has no compiled form; None if it has one."""
    if type(model) is not Llama:
        return f"written for the Llama family, and this is {type(model).__name__}"
    if next(model.parameters()).device.type != "cpu":
        return "written for CPUs"
    matrices = [model.head, *(matrix for block in model.layers for matrix in _projections(block))]
    if type(model.embedding) is not nn.Embedding or any(type(matrix) is not nn.Linear for matrix in matrices):
        return "adapters are not merged: groundup merge MODEL --out DIR"
    options = model.options
    queries = options.heads * options.head_size
    if precision in ("int8", "int4") and any(size % GROUP for size in (options.width, options.hidden, queries)):
        return f"widths are not multiples of {GROUP}"
    return None


def parts_of(model: Llama) -> Parts:
    """The tensors of the model, those with one input side by side."""
    options = model.options
    sizes = {
        "layers": options.layers,
        "width": options.width,
        "heads": options.heads,
        "key_heads": options.key_value_heads,
        "head_size": options.head_size,
        "hidden": options.hidden,
        "window": options.sliding_window or 0,
    }
    return Parts(
        options.context,
        sizes,
        options.norm_epsilon,
        model.cos_TR,  # type: ignore[arg-type]
        model.sin_TR,  # type: ignore[arg-type]
        model.embedding.weight,
        model.head.weight,
        model.norm.weight,
        lambda number: _layer(model.layers[number]),  # type: ignore[arg-type]
    )


def _layer(block: Block) -> Layer:
    attention, inner = block.attention, block.feed_forward
    query_norm, key_norm = attention.q_norm, attention.k_norm
    three = (attention.q_proj, attention.k_proj, attention.v_proj)
    biases: list[Tensor] = [one.bias for one in three if one.bias is not None]
    return Layer(
        input_norm=block.input_norm.weight,
        post_norm=block.post_norm.weight,
        query_norm=None if isinstance(query_norm, nn.Identity) else query_norm.weight,
        key_norm=None if isinstance(key_norm, nn.Identity) else key_norm.weight,
        qkv_OI=_side_by_side(*(one.weight for one in three)),
        qkv_bias=torch.cat(biases) if biases else None,
        out_OI=attention.o_proj.weight,
        out_bias=attention.o_proj.bias,
        gate_up_OI=_side_by_side(inner.gate_proj.weight, inner.up_proj.weight),
        down_OI=inner.down_proj.weight,
    )


def _side_by_side(*weights: Tensor) -> Tensor:
    return torch.cat([weight.detach() for weight in weights])


def _projections(block: nn.Module) -> list[nn.Module]:
    assert isinstance(block, Block)
    attention, inner = block.attention, block.feed_forward
    return [
        attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
        inner.gate_proj, inner.up_proj, inner.down_proj,
    ]  # fmt: skip
