"""ONNX files: a network as a graph that onnxruntime and its kin run without torch.

A file holds the network alone: the tokenizer is in the model folder. Every graph has the same inputs, int64, with any
number of rows and any length up to the context: tokens, the position of each in its document, and the document of
each (-1 is padding); an encoder's has the segment of each too. Their names are those of a batch: tokens_BT,
position_BT, document_BT, segment_BT, or tokens_BCT and so on for a choice among candidates.

Shapes: B rows, C candidates of a row, T positions, L labels, V vocabulary, D width.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from groundup.errors import GroundupError, printable

Kind = Literal["decoder", "body", "head", "choice"]
"""What a network is called with and gives: a decoder its logits (B, T, V), an encoder's body its final states
(B, T, D), a head what it says of each row, a choice its logits (B, C)."""

LARGEST = 2**31 - 2**24
"""Bytes of weights in one file: protobuf, which ONNX is made of, stops at 2 GiB; the graph needs room too."""

PARTS = ("tokens", "position", "document", "segment")
OUTPUT = "answer"


class _Graph(nn.Module):
    """A network with the inputs of the file, in order. The mask is always made from the documents: a graph cannot
    look whether it is needed."""

    def __init__(self, model: Any, kind: Kind) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, tokens: Tensor, position: Tensor, document: Tensor, segment: Tensor | None = None) -> Tensor:
        segments = {} if segment is None else {"segment_BT": segment}
        if self.kind == "decoder":
            answer: Tensor = self.model(tokens, position, document)
        elif self.kind == "body":
            answer = self.model.hidden(tokens, position, document, **segments)
        else:
            batch = {"tokens_BT": tokens, "position_BT": position, "document_BT": document, **segments}
            answer = self.model({_named(name.removesuffix("_BT"), self.kind): t for name, t in batch.items()})
        return answer


@torch.no_grad()
def write_onnx(path: Path, model: Any, *, kind: Kind, context: int) -> None:
    """Write a network as an ONNX file.

    Args:
        path: of the file.
        model: the network, on the CPU, in evaluation mode and without adapters.
        kind: what it is called with.
        context: the longest sequence.

    Raises:
        GroundupError: E-MACHINE-901 without the extra `onnx`; E-FORMAT-060 if no graph can hold the network.
    """
    _library("onnxscript")
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    if weights > LARGEST:
        _refuse(f"its weights take {weights:,} bytes", f"one ONNX file holds {LARGEST:,} at most")
    if any(".experts." in name for name, _ in model.named_parameters()):
        _refuse("it is a mixture of experts", "which expert reads which token is decided while it runs: no fixed graph")
    names = PARTS[: 3 if model.causal else 4]
    shape = (2, 2, min(4, context)) if kind == "choice" else (2, min(4, context))
    # a tensor of its own for each: the exporter takes one that is given twice for one input
    example = {name: torch.zeros(shape, dtype=torch.int64) for name in names}
    axes = [torch.export.Dim(name) for name in ("rows", "candidates")[: len(shape) - 1]]
    free = dict(enumerate([*axes, torch.export.Dim("length", max=context)]))
    with _quiet():
        try:
            program = torch.onnx.export(
                _Graph(model, kind).eval(),
                tuple(example[name] for name in names),
                input_names=[_named(name, kind) for name in names],
                output_names=[OUTPUT],
                dynamic_shapes=tuple(free for _ in names),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            _refuse("torch finds no graph for it", printable(" ".join(str(error).split()), 300))
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # the exporter's stack traces, with the paths of this machine
    program.model.metadata_props.update({"producer": "groundup", "kind": kind, "context": str(context)})
    program.save(path, external_data=False)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def open_onnx(path: Path) -> Callable[[Tensor | Mapping[str, Tensor]], Tensor]:
    """What an ONNX file of `write_onnx` computes, called like the network that it was made from: with tokens (B, T),
    or with a batch. Positions are counted and documents and segments are all 0 where a batch does not say.

    Raises:
        GroundupError: E-MACHINE-901 without the extra `onnx`.
    """
    runtime = _library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def call(given: Tensor | Mapping[str, Tensor]) -> Tensor:
        batch = {names[0]: given} if isinstance(given, Tensor) else given
        tokens = batch[names[0]]
        feeds = {}
        for name in names:
            default = torch.arange(tokens.shape[-1]).expand_as(tokens) if "position" in name else tokens * 0
            feeds[name] = batch.get(name, default).contiguous().numpy()
        [answer] = session.run([OUTPUT], feeds)
        return torch.from_numpy(answer)

    return call


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself: which libraries that nobody asked for are absent, and more."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _named(part: str, kind: Kind) -> str:
    return f"{part}_BCT" if kind == "choice" else f"{part}_BT"


def _library(name: str) -> ModuleType:
    """onnxscript or onnxruntime, or the error that says how to install them."""
    try:
        if name == "onnxruntime":
            import onnxruntime

            return onnxruntime
        import onnx  # noqa: F401 - torch's exporter looks for both itself, and fails late
        import onnxscript

        return onnxscript
    except ImportError as error:
        raise GroundupError(
            "E-MACHINE-901",
            f"ONNX files need {printable(str(error.name or name))}, which is not installed",
            where="groundup export --to onnx",
            why="it is large and needed for this format alone, so it is an optional extra",
            fix='pip install "groundup[onnx]"',
        ) from error


def _refuse(what: str, why: str) -> NoReturn:
    raise GroundupError(
        "E-FORMAT-060",
        f"this model cannot be written as an ONNX file: {what}",
        where="--to onnx",
        why=why,
        fix="groundup export MODEL --to huggingface --out DIR",
        exit_code=2,
    )
