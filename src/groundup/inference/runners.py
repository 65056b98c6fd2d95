"""What computes logits for the engine: any decoder in its plain form, or a Llama-like one by compiled functions.

Both extend the memories of the segments and give the logits asked for. The compiled form is for CPUs; its numbers do
not depend on what shares a pass. The plain form runs on every device; there the kernels of torch choose their order
of summing by the shape of a pass, so that each sequence goes through it alone where `alone` is set.

Shapes: N new tokens, M positions asked for, D width, V vocabulary, O outputs, I inputs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.contract import LanguageModel
from groundup.functional import evaluating
from groundup.inference import kernels
from groundup.inference.packed import KINDS, LANES, Packed, Precision, pack
from groundup.inference.sequences import FlatCache, Segment, Shape, shape_of


class PlainRunner:
    """A decoder of any family.

    Args:
        model: in evaluation mode.
        alone: pass each segment by itself, so that no answer depends on what it shares a pass with.
    """

    def __init__(self, model: LanguageModel, *, alone: bool = True) -> None:
        self.model, self.alone = model, alone
        self.context, self.vocabulary = model.context, model.vocabulary
        self.shape = shape_of(model)

    def run(self, segments: Sequence[Segment]) -> Tensor:
        """See engine.Runner."""
        if self.alone and len(segments) > 1:
            return torch.cat([self.run([segment]) for segment in segments])
        device = self.shape.device
        tokens = torch.tensor([token for s in segments for token in s.tokens], device=device)
        position = torch.cat([torch.arange(s.memory.length, s.memory.length + len(s.tokens)) for s in segments])
        with torch.inference_mode(), evaluating(self.model):
            hidden_ND = self.model.hidden(
                tokens[None], position_BT=position[None].to(device), cache=FlatCache(segments)
            )[0]
            wanted = torch.tensor(_wanted(segments), device=device)
            return F.linear(hidden_ND[wanted], self.model.head_weight()).float().cpu()


@dataclass(frozen=True)
class Layer:
    """The tensors of one block: norms (D), and matrices with the projections that share an input side by side."""

    input_norm: Tensor
    post_norm: Tensor
    query_norm: Tensor | None
    key_norm: Tensor | None
    qkv_OI: Tensor
    qkv_bias: Tensor | None
    out_OI: Tensor
    out_bias: Tensor | None
    gate_up_OI: Tensor
    down_OI: Tensor


@dataclass(frozen=True)
class Parts:
    """A Llama-like decoder taken apart.

    context: the longest sequence.
    sizes: layers, width, heads, key_heads, head_size, hidden and window (0: none).
    epsilon: of the norms.
    cosine, sine: of the rotary angles, (positions, head_size / 2).
    embedding_OI, head_OI: (V, D); one tensor if they are tied.
    norm: the last one, (D,).
    layer: the tensors of a block by its number, made when they are asked for.
    """

    context: int
    sizes: dict[str, int]
    epsilon: float
    cosine: Tensor
    sine: Tensor
    embedding_OI: Tensor
    head_OI: Tensor
    norm: Tensor
    layer: Callable[[int], Layer]


class CompiledRunner:
    """A Llama-like decoder on packed weights.

    Args:
        parts: its sizes and tensors; see `Parts`.
        precision: of the weights; activations are float32.
        threads: how many.

    Raises:
        kernels.Unavailable: see kernels.functions.
        ValueError: a matrix does not divide into groups.
    """

    def __init__(self, parts: Parts, precision: Precision, threads: int) -> None:
        self._library = kernels.functions()
        self.precision, self.threads = precision, threads
        self.context, self.vocabulary = parts.context, parts.head_OI.shape[0]
        sizes = parts.sizes
        self.shape = Shape(
            sizes["layers"], sizes["key_heads"], sizes["head_size"], torch.float32, torch.device("cpu")
        )
        self._kept: list[Tensor | Packed] = []
        layers = (kernels.LayerStruct * sizes["layers"])()
        for number in range(sizes["layers"]):
            layers[number] = self._layer(parts.layer(number))
        embedding = self._matrix(parts.embedding_OI, None)
        head = embedding if parts.head_OI is parts.embedding_OI else self._matrix(parts.head_OI, None)
        self._layers = layers
        self._model = kernels.ModelStruct(
            *(sizes[n] for n in ("layers", "width", "heads", "key_heads", "head_size", "hidden", "window")),
            parts.epsilon,
            self._vector(parts.cosine),
            self._vector(parts.sine),
            layers,
            embedding,
            head,
            self._vector(parts.norm),
        )
        self._scratch = torch.empty(0)

    @property
    def weight_bytes(self) -> int:
        """Bytes of everything that was packed."""
        return sum(one.bytes if isinstance(one, Packed) else one.nbytes for one in self._kept)

    def run(self, segments: Sequence[Segment]) -> Tensor:
        """See engine.Runner."""
        tokens = torch.tensor([token for s in segments for token in s.tokens], dtype=torch.int64)
        if int(tokens.min()) < 0 or int(tokens.max()) >= self.vocabulary:
            raise IndexError(f"a token outside 0 to {self.vocabulary - 1}")
        given = (kernels.SegmentStruct * len(segments))()
        wanted, longest = 0, 0
        for place, (new, memory, last) in enumerate(segments):
            end = memory.length + len(new)
            if end > memory.capacity or end > self.context:
                raise IndexError(f"{end} positions do not fit {min(memory.capacity, self.context)}")
            pointers = (memory.keys_LGSK.data_ptr(), memory.values_LGSK.data_ptr())
            given[place] = kernels.SegmentStruct(len(new), memory.length, memory.capacity, last, *pointers)
            wanted, longest = wanted + (1 if last else len(new)), max(longest, end)
        longest = -(-longest // 256) * 256  # so that the scratch memory is not made anew with each token
        model = ctypes.byref(self._model)
        size = self._library.scratch_floats(
            model, *(ctypes.c_int64(n) for n in (len(tokens), wanted, longest, self.threads))
        )
        if self._scratch.numel() < size:
            self._scratch = torch.empty(size)
        logits = torch.empty(wanted, -(-self.vocabulary // LANES) * LANES)
        self._library.run(
            model,
            ctypes.c_void_p(tokens.data_ptr()),
            given,
            ctypes.c_int64(len(segments)),
            ctypes.c_void_p(self._scratch.data_ptr()),
            ctypes.c_int64(longest),
            ctypes.c_void_p(logits.data_ptr()),
            ctypes.c_int(self.threads),
        )
        for new, memory, _ in segments:
            memory.tokens.extend(new)
        return logits[:, : self.vocabulary]

    def _layer(self, layer: Layer) -> kernels.LayerStruct:
        return kernels.LayerStruct(
            self._vector(layer.input_norm),
            self._vector(layer.post_norm),
            self._vector(layer.query_norm),
            self._vector(layer.key_norm),
            self._matrix(layer.qkv_OI, layer.qkv_bias),
            self._matrix(layer.out_OI, layer.out_bias),
            self._matrix(layer.gate_up_OI, None),
            self._matrix(layer.down_OI, None),
        )

    def _vector(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        kept = tensor.detach().float().cpu().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def _matrix(self, weight_OI: Tensor, bias_O: Tensor | None) -> kernels.MatrixStruct:
        packed = pack(weight_OI, self.precision, bias_O, self._library)
        self._kept.append(packed)
        tensors = (packed.values, packed.scales_PC16, packed.bias_O)
        pointers = (None if one is None else one.data_ptr() for one in tensors)
        return kernels.MatrixStruct(KINDS[self.precision], packed.outputs, packed.inputs, *pointers)


def _wanted(segments: Sequence[Segment]) -> list[int]:
    """The places in the row of all new tokens after which logits are asked for."""
    places: list[int] = []
    start = 0
    for tokens, _, last in segments:
        places += [start + len(tokens) - 1] if last else range(start, start + len(tokens))
        start += len(tokens)
    return places
