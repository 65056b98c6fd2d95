"""A frozen base in 8 or 4 bits per weight.

int8 keeps one scale for each row. nf4 (Dettmers et al. 2023, arXiv:2305.14314) keeps one for each group of weights
in the order of memory; its sixteen values cut the normal distribution into parts of equal probability, because
trained weights are nearly normal. The codes are buffers: they are saved, moved with the model, and never trained.
Each product makes the matrix from the codes again, in forward and in backward, so that nothing else is kept.
Adapters on top of the base may not enter here.

Shapes: N positions (any leading dimensions), I inputs, O outputs, G weights in a group.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from groundup.adapters.linear import compute_dtype, frozen_product
from groundup.adapters.paths import Whole, freeze_base, replace, targets, token_embedding

SCALES_IN_GROUP = 256
"""Scales that share one scale themselves under double quantization."""


class QuantizeOptions(BaseModel):
    """Store the base in few bits and freeze it; an adapter is trained on top."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["quantize"]
    bits: Literal["int8", "nf4"] = Field(
        default="nf4", description="int8: 8 bits and a scale for each row; nf4: 4 bits and a scale for each group"
    )
    targets: list[str] = Field(
        default=["*layers.*_proj"], min_length=1, description="patterns of linear layers to store in few bits"
    )
    group: int = Field(default=64, ge=8, le=4096, multiple_of=2, description="nf4: weights that share a scale")
    double: bool = Field(default=True, description="nf4: store the scales in 8 bits too (double quantization)")
    embedding: Literal["float32", "int8"] = Field(
        default="int8", description="how the token embedding, and a head tied to it, is stored"
    )


def nf4_values() -> list[float]:
    """The sixteen values of NormalFloat4, ascending from -1 to 1, zero among them.

    With Q the quantile function of the standard normal distribution and d = (1/30 + 1/32) / 2 (section 3 and
    appendix E of the paper): the eight positive values are Q at eight of nine even steps from 1 - d down to 1/2,
    the seven negative ones -Q at seven of eight such steps, all divided by Q(1 - d).
    """
    quantile, top = NormalDist().inv_cdf, 1.0 - (1 / 30 + 1 / 32) / 2
    positive = [quantile(top + (0.5 - top) * step / 8) for step in range(8)]
    negative = [-quantile(top + (0.5 - top) * step / 7) for step in range(7)]
    return [value / positive[0] for value in sorted([*negative, 0.0, *positive])]


NF4_VALUES = nf4_values()


class Matrix(nn.Module):
    """A matrix (O, I) that is stored as codes and scales."""

    codes: Tensor

    @property
    def num_weights(self) -> int:
        """How many weights it stands for."""
        raise NotImplementedError

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The matrix in that data type, made anew on each call."""
        raise NotImplementedError


class Int8Matrix(Matrix):
    """Signed 8-bit codes and the largest magnitude of each row, / 127."""

    scales: Tensor

    def __init__(self, weight_OI: Tensor) -> None:
        super().__init__()
        weight_OI = weight_OI.detach().float()
        scales_O1 = weight_OI.abs().amax(dim=1, keepdim=True) / 127
        codes_OI = (weight_OI / scales_O1.clamp(min=torch.finfo(torch.float32).tiny)).round().to(torch.int8)
        self.register_buffer("codes", codes_OI)
        self.register_buffer("scales", scales_O1)

    @property
    def num_weights(self) -> int:
        return self.codes.numel()

    def dense(self, dtype: torch.dtype) -> Tensor:
        return self.codes.to(dtype).mul_(self.scales.to(dtype))

    def rows(self, ids_N: Tensor) -> Tensor:
        """The rows of these numbers, float32 (N, I)."""
        return self.codes[ids_N].float().mul_(self.scales[ids_N])


class NF4Matrix(Matrix):
    """Two 4-bit codes in a byte, groups of G weights in the order of memory, a scale for each group.

    Under double quantization a scale is its mean plus an 8-bit code times the scale of its own group.
    """

    scales: Tensor
    scale_scales: Tensor
    scale_mean: Tensor
    pairs: Tensor

    def __init__(self, weight_OI: Tensor, *, group: int, double: bool) -> None:
        super().__init__()
        self.shape, self.group, self.doubled = tuple(weight_OI.shape), group, double
        flat = weight_OI.detach().float().reshape(-1)
        groups_NG = nn.functional.pad(flat, (0, -flat.numel() % group)).view(-1, group)
        scales_N = groups_NG.abs().amax(dim=1)
        if double:
            mean = scales_N.mean()
            rest = nn.functional.pad(scales_N - mean, (0, -scales_N.numel() % SCALES_IN_GROUP))
            matrix = Int8Matrix(rest.view(-1, SCALES_IN_GROUP))
            self.register_buffer("scales", matrix.codes.view(-1)[: scales_N.numel()].clone())
            self.register_buffer("scale_scales", matrix.scales.view(-1))
            self.register_buffer("scale_mean", mean)
            scales_N = self.group_scales()  # the codes are chosen for the scales that will be used
        else:
            self.register_buffer("scales", scales_N)
        values = torch.tensor(NF4_VALUES, device=flat.device)
        middle = (values[1:] + values[:-1]) / 2
        ratio_NG = groups_NG / scales_N.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
        code = torch.bucketize(ratio_NG, middle).to(torch.uint8).view(-1, 2)
        self.register_buffer("codes", code[:, 0] * 16 + code[:, 1])
        self.register_buffer("pairs", torch.cartesian_prod(values, values), persistent=False)

    @property
    def num_weights(self) -> int:
        return math.prod(self.shape)

    def group_scales(self) -> Tensor:
        """The scale of each group, float32."""
        if not self.doubled:
            return self.scales
        own = self.scale_scales.repeat_interleave(SCALES_IN_GROUP)[: self.scales.numel()]
        return torch.addcmul(self.scale_mean, self.scales.float(), own).clamp(min=0.0)

    def dense(self, dtype: torch.dtype) -> Tensor:
        # One look-up gives both weights of a byte: `pairs` (256, 2) is what each byte stands for, seen as one number
        # of twice the width. That is ten times as fast as to look up rows of two (measured on a CPU).
        if dtype.itemsize not in (2, 4):
            return self.dense(torch.float32).to(dtype)
        table = self.pairs.to(dtype)
        wide = torch.int64 if dtype.itemsize == 4 else torch.int32
        pairs = torch.index_select(table.view(wide).view(-1), 0, self.codes.int())
        groups_NG = pairs.view(dtype).view(-1, self.group)
        groups_NG.mul_(self.group_scales().to(dtype)[:, None])
        return groups_NG.view(-1)[: math.prod(self.shape)].view(self.shape)


class QuantizedLinear(Whole):
    """A linear layer whose matrix is stored in few bits. `weight` makes it dense."""

    matrix: Matrix
    bias: nn.Parameter | None

    def __init__(self, matrix: Matrix, in_features: int, out_features: int, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.matrix = matrix
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:
        """The matrix (O, I), made from the codes on each call, in autocast's data type where that is on."""
        return self.matrix.dense(compute_dtype(torch.empty(0, device=self.matrix.codes.device)))

    def forward(self, x_NI: Tensor) -> Tensor:
        return frozen_product(x_NI, self.matrix.dense, self.bias)


class QuantizedEmbedding(Whole):
    """An embedding with 8-bit rows. `weight` makes the table dense."""

    matrix: Int8Matrix

    def __init__(self, matrix: Int8Matrix, padding_idx: int | None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = matrix.codes.shape
        self.padding_idx = padding_idx
        self.matrix = matrix

    @property
    def weight(self) -> Tensor:
        """The table (V, D), made from the codes on each call."""
        return self.matrix.dense(torch.float32)

    def forward(self, ids_N: Tensor) -> Tensor:
        return self.matrix.rows(ids_N)


def quantize(model: nn.Module, options: QuantizeOptions, *, seed: int) -> None:
    """Store the weights that the options name in few bits, in place. All of the base is frozen.

    The weights must be there already. A head that is tied to the embedding shares its codes.

    Args:
        seed: unused; every adapter has it.

    Raises:
        GroundupError: E-ADAPT-001, a pattern matches nothing; E-ADAPT-002, a target is no linear layer.
    """
    found = targets(model, options.targets, (nn.Linear,), field="quantize.targets")
    freeze_base(model, [], field="quantize")
    for name, module in found.items():
        assert isinstance(module, nn.Linear)
        matrix = _store(module.weight, options)
        replace(model, name, QuantizedLinear(matrix, module.in_features, module.out_features, module.bias))
    if options.embedding == "int8":
        _store_embedding(model)


def _store(weight_OI: Tensor, options: QuantizeOptions) -> Matrix:
    if options.bits == "int8":
        return Int8Matrix(weight_OI)
    return NF4Matrix(weight_OI, group=options.group, double=options.double)


def _store_embedding(model: nn.Module) -> None:
    """The token embedding with 8-bit rows, and every linear layer that is tied to it."""
    name = token_embedding(model)
    table = targets(model, [name], (nn.Embedding,), field="quantize.embedding")[name]
    assert isinstance(table, nn.Embedding)
    matrix = Int8Matrix(table.weight)
    for key, linear in list(model.named_modules()):
        if isinstance(linear, nn.Linear) and linear.weight is table.weight:
            replace(model, key, QuantizedLinear(matrix, linear.in_features, linear.out_features, linear.bias))
    replace(model, name, QuantizedEmbedding(matrix, table.padding_idx))


def dequantize(model: nn.Module) -> None:
    """Put plain float32 layers back in place of the quantized ones, tied ones tied. The frozen values stay those
    of the codes: what quantization rounded away does not come back."""
    weights: dict[Matrix, nn.Parameter] = {}
    for name, module in list(model.named_modules()):
        if not isinstance(module, (QuantizedLinear, QuantizedEmbedding)):
            continue
        if module.matrix not in weights:
            weights[module.matrix] = nn.Parameter(module.matrix.dense(torch.float32), requires_grad=False)
        dense = weights[module.matrix]
        if isinstance(module, QuantizedEmbedding):
            plain: nn.Module = nn.Embedding.from_pretrained(dense, padding_idx=module.padding_idx)
            plain.weight = dense
        else:
            plain = plain_linear(dense, module.bias)
        replace(model, name, plain)


def plain_linear(weight_OI: nn.Parameter, bias_O: nn.Parameter | None) -> nn.Linear:
    """A linear layer of these very parameters. Made without torch's own draw, which would advance its generator."""
    linear = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(linear)
    linear.out_features, linear.in_features = weight_OI.shape
    linear.weight = weight_OI
    linear.register_parameter("bias", bias_O)
    return linear


def base_bytes(model: nn.Module) -> int:
    """Memory of the frozen parameters and of the buffers that are saved, in bytes; tied ones once."""
    saved = set(model.state_dict())
    tensors: list[Tensor] = [p for p in model.parameters() if not p.requires_grad]
    tensors += [buffer for name, buffer in model.named_buffers() if name in saved]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
