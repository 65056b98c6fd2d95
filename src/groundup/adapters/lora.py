"""Low-rank adapters: LoRA (Hu et al. 2021, arXiv:2106.09685), rsLoRA (Kalajdzievski 2023, arXiv:2312.03732) and
DoRA (Liu et al. 2024, arXiv:2402.09353) on linear layers, plain or quantized, and on embeddings.

A layer W (O, I) becomes W + s·B·A with A (R, I), B (O, R) and s = alpha / rank (rsLoRA: alpha / sqrt(rank)). DoRA
also learns the length of each row: m / ‖W + s·B·A‖ · (W + s·B·A), the norm a constant to the gradient (its
section 4.3). With several adapters on, their changes of W are summed by weight. The base weight keeps its name
and stands still; files may not enter here.

Shapes: N positions (any leading dimensions), I inputs, O outputs, R rank. An embedding of V rows of width D is
the linear map of one-hot vectors: I = V, O = D.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.adapters.linear import add_low_rank, frozen_product
from groundup.adapters.paths import Adapted, first_match, freeze_base, matching, replace, targets
from groundup.adapters.quantize import QuantizedLinear
from groundup.errors import GroundupError


class LoraOptions(BaseModel):
    """A low-rank adapter beside frozen weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["lora"]
    rank: int = Field(default=16, ge=1, description="rank of the change of each weight")
    alpha: float = Field(
        default=32.0, gt=0.0, allow_inf_nan=False, description="strength: the change is scaled by alpha / rank"
    )
    targets: list[str] = Field(
        default=["*layers.*_proj"], min_length=1, description="patterns of modules: linear layers and embeddings"
    )
    rank_by: dict[str, int] = Field(default={}, description="rank by pattern; the first match counts")
    alpha_by: dict[str, float] = Field(default={}, description="alpha by pattern; the first match counts")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="share of inputs dropped in training")
    variant: Literal["lora", "rslora", "dora"] = Field(
        default="lora", description="rslora: scaled by alpha / sqrt(rank); dora: learns row lengths besides"
    )
    name: str = Field(default="default", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="name of the adapter")
    train: list[str] = Field(
        default=[], description="patterns of base parameters trained in full and kept with the adapter"
    )

    @field_validator("name")
    @classmethod
    def _usable(cls, name: str) -> str:
        if name in dir(nn.ParameterDict()):
            raise ValueError(f"{name} is a word of torch's and cannot name an adapter")
        return name

    @field_validator("rank_by", "alpha_by")
    @classmethod
    def _positive(cls, table: dict[str, float]) -> dict[str, float]:
        if any(not 0 < value < float("inf") for value in table.values()):
            raise ValueError("ranks and alphas are above zero")
        return table


class LowRank(Adapted):
    """What all low-rank layers have in common: their parameters by adapter name.

    Attributes:
        draws_b: whether B is drawn and A zero, as loralib does for embeddings; else A is drawn.
        lora_a: A (R, I) of each adapter.
        lora_b: B (O, R) of each adapter.
        lora_magnitude: the row lengths m (O) of each DoRA adapter.
        scaling: s of each adapter.
        dropout: of each adapter; where several are on, the largest counts.
    """

    draws_b = False

    def prepare(self) -> None:
        """An empty set of adapters; the base's tensors are already there."""
        self.lora_a, self.lora_b = nn.ParameterDict(), nn.ParameterDict()
        self.lora_magnitude = nn.ParameterDict()
        self.scaling: dict[str, float] = {}
        self.dropout: dict[str, float] = {}
        self.mixing: dict[str, float] = {}

    def base_matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The frozen map W (O, I)."""
        raise NotImplementedError

    def base_tensor(self) -> Tensor:
        """A tensor that lies where the base lies."""
        raise NotImplementedError

    def adapters(self) -> list[str]:
        return list(self.scaling)

    def add(self, name: str, rank: int, scaling: float, options: LoraOptions, generator: torch.Generator) -> None:
        """Add an adapter that changes nothing yet, and turn it on."""
        outputs, inputs = self.base_matrix().shape
        a_RI, b_OR = torch.zeros(rank, inputs), torch.zeros(outputs, rank)
        if self.draws_b:
            b_OR.normal_(generator=generator)
        else:
            bound = inputs**-0.5  # Kaiming's uniform distribution with a = sqrt(5), as Hu et al. published it
            a_RI.uniform_(-bound, bound, generator=generator)
        device = self.base_tensor().device
        self.lora_a[name] = nn.Parameter(a_RI.to(device))
        self.lora_b[name] = nn.Parameter(b_OR.to(device))
        self.scaling[name], self.dropout[name] = scaling, options.dropout
        if options.variant == "dora":
            self.lora_magnitude[name] = nn.Parameter(self.norm(name))
        self.mixing = {**self.mixing, name: 1.0}

    @torch.no_grad()
    def norm(self, name: str) -> Tensor:
        """The row lengths (O) of W + s·B·A, float32."""
        device = self.base_tensor().device.type
        with torch.autocast("cpu" if device == "meta" else device, enabled=False):  # meta has no autocast
            product = torch.addmm(self.base_matrix(), self.lora_b[name], self.lora_a[name], alpha=self.scaling[name])
            return torch.linalg.vector_norm(product, dim=1)

    def factors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """A (R, I) and B (O, R) of all adapters that are on, and the factor (O) on the rows of W or None.

        The adapted map is factor · W + B·A, however many adapters are mixed and of whatever variant.
        """
        parts_a, parts_b, factor = [], [], None
        for name, weight in self.mixing.items():
            b_OR = self.lora_b[name] * (self.scaling[name] * weight)
            if name in self.lora_magnitude:
                gain = self.lora_magnitude[name] / self.norm(name)
                b_OR = b_OR * gain[:, None]
                factor = (1.0 if factor is None else factor) + weight * (gain - 1.0)
            parts_a.append(self.lora_a[name])
            parts_b.append(b_OR)
        if len(parts_a) == 1:
            return parts_a[0], parts_b[0], factor
        return torch.cat(parts_a), torch.cat(parts_b, dim=1), factor

    @torch.no_grad()
    def merged(self) -> Tensor:
        """The adapted map (O, I) in float32, of the adapters that are on."""
        matrix = self.base_matrix()
        if not self.mixing:
            return matrix.clone()
        a_RI, b_OR, factor = self.factors()
        if factor is not None:
            matrix = matrix * factor[:, None]
        return torch.addmm(matrix, b_OR, a_RI)

    def dropped(self, x: Tensor) -> Tensor:
        """The inputs of the low-rank part."""
        share = max(self.dropout[name] for name in self.mixing)
        return F.dropout(x, share) if self.training and share else x


class LowRankLinear(LowRank):
    """The forward of a linear map, whatever its weights are stored as."""

    bias: nn.Parameter | None

    @property
    def weight(self) -> Tensor:
        """The adapted matrix (O, I), for those that compute logits in chunks: what is learned of it reaches A and B.
        Nothing is dropped out there."""
        matrix = self.base_matrix()
        if not self.mixing:
            return matrix
        a_RI, b_OR, factor_O = self.factors()
        if factor_O is not None:
            matrix = matrix * factor_O[:, None]
        with torch.autocast(matrix.device.type, enabled=False):
            return torch.addmm(matrix, b_OR, a_RI)

    def forward(self, x_NI: Tensor) -> Tensor:
        if not self.mixing:
            return frozen_product(x_NI, self.base_matrix, self.bias)
        a_RI, b_OR, factor_O = self.factors()
        if factor_O is None:
            return add_low_rank(frozen_product(x_NI, self.base_matrix, self.bias), self.dropped(x_NI), a_RI, b_OR)
        y_NO = frozen_product(x_NI, self.base_matrix)
        y_NO = y_NO * factor_O.to(y_NO.dtype)
        if self.bias is not None:
            y_NO = y_NO + self.bias.to(y_NO.dtype)
        return add_low_rank(y_NO, self.dropped(x_NI), a_RI, b_OR)


class LoraLinear(LowRankLinear):
    """A linear layer with low-rank adapters; the parameters `weight` and `bias` are the layer's own, frozen."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        # under its canonical name, as everywhere; who asks for it by that name is answered by the property
        self._parameters["weight"] = base.get_parameter("weight")
        self.register_parameter("bias", base.bias)
        self.prepare()

    def base_matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.base_tensor().detach().to(dtype)

    def base_tensor(self) -> Tensor:
        parameter = self._parameters["weight"]
        assert parameter is not None
        return parameter


class LoraQuantizedLinear(LowRankLinear):
    """A quantized linear layer with low-rank adapters (QLoRA: Dettmers et al. 2023, arXiv:2305.14314)."""

    def __init__(self, base: QuantizedLinear) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.matrix = base.matrix
        self.register_parameter("bias", base.bias)
        self.prepare()

    def base_matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.matrix.dense(dtype)

    def base_tensor(self) -> Tensor:
        return self.matrix.codes


class LoraEmbedding(LowRank):
    """An embedding with low-rank adapters. A head that is tied to the table keeps the table of the base."""

    draws_b = True

    def __init__(self, base: nn.Embedding) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = (
            base.num_embeddings, base.embedding_dim, base.padding_idx,
        )  # fmt: skip
        self.weight = base.weight
        self.prepare()

    def base_matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.weight.detach().to(dtype).T

    def base_tensor(self) -> Tensor:
        return self.weight

    def forward(self, ids_N: Tensor) -> Tensor:
        states_ND = F.embedding(ids_N, self.weight, self.padding_idx)
        if not self.mixing:
            return states_ND
        a_RV, b_DR, factor_D = self.factors()
        if factor_D is not None:
            states_ND = states_ND * factor_D
        return states_ND + F.linear(self.dropped(F.embedding(ids_N, a_RV.T)), b_DR).to(states_ND.dtype)


KINDS: dict[type[nn.Module], type[LowRank]] = {
    nn.Linear: LoraLinear,
    QuantizedLinear: LoraQuantizedLinear,
    nn.Embedding: LoraEmbedding,
}
"""What can take a low-rank adapter, and what it becomes."""


def lora(model: nn.Module, options: LoraOptions, *, seed: int) -> None:
    """Add a low-rank adapter in place. All of the base is frozen but what `options.train` names.

    The weights of the base must be there already: DoRA starts from their row lengths. A model may take several
    adapters of different names; each is on after it was added (see `set_adapter`).

    Args:
        seed: of the draw of A (of B in embeddings), in the order of the modules' names in the model.

    Raises:
        GroundupError: E-ADAPT-001, a pattern matches nothing; E-ADAPT-002, a target cannot take an adapter;
            E-ADAPT-005, the name is taken.
    """
    found = targets(model, options.targets, (*KINDS, *KINDS.values()), field="lora.targets")
    for field, table in (("lora.rank_by", options.rank_by), ("lora.alpha_by", options.alpha_by)):
        matching(list(table), found, field=field)
    taken = [name for name, module in found.items() if isinstance(module, LowRank) and options.name in module.scaling]
    if taken:
        raise GroundupError(
            "E-ADAPT-005",
            f'there is already an adapter named "{options.name}" in {len(taken)} of the targets',
            where=f"lora.name; first in {taken[0]}",
            why="two adapters of one name could not be told apart in a saved model",
            fix="give the second adapter another `name`",
            exit_code=2,
        )
    generator = torch.Generator().manual_seed(seed)
    for name, module in found.items():
        layer = module if isinstance(module, LowRank) else KINDS[type(module)](module)
        rank = int(first_match(name, options.rank_by, options.rank))
        alpha = first_match(name, options.alpha_by, options.alpha)
        scaling = alpha / (rank**0.5 if options.variant == "rslora" else rank)
        layer.add(options.name, rank, scaling, options, generator)
        if layer is not module:
            replace(model, name, layer)
    freeze_base(model, options.train, field="lora.train")
