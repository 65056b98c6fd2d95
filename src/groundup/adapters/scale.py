"""IA3 (Liu et al. 2022, arXiv:2205.05638): trained vectors that scale keys, values and the inner activations of
the feed-forward part, about a hundredth of the parameters of LoRA. The weights stand still.

Shapes: N positions (any leading dimensions), I inputs, O outputs.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from groundup.adapters.linear import frozen_product
from groundup.adapters.paths import Adapted, freeze_base, replace, targets


class ScaleOptions(BaseModel):
    """Scale the outputs of some linear layers and the inputs of others by trained vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["scale"]
    outputs: list[str] = Field(default=["*.k_proj", "*.v_proj"], description="patterns: their outputs are scaled")
    inputs: list[str] = Field(default=["*.down_proj"], description="patterns: their inputs are scaled")
    train: list[str] = Field(default=[], description="patterns of base parameters trained in full besides")


class ScaledLinear(Adapted):
    """A linear layer with a factor on each input or each output: `scale` starts at one."""

    bias: nn.Parameter | None

    def __init__(self, base: nn.Linear, *, inputs: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.inputs = base.in_features, base.out_features, inputs
        self.weight: nn.Parameter = base.get_parameter("weight")
        self.register_parameter("bias", base.bias)
        size = self.in_features if inputs else self.out_features
        self.scale = nn.Parameter(torch.ones(size, device=base.weight.device))
        self.mixing = {"scale": 1.0}

    def adapters(self) -> list[str]:
        return ["scale"]

    def factor(self) -> Tensor:
        """The vector, mixed with one by the weight of the adapter."""
        return 1.0 + self.mixing["scale"] * (self.scale - 1.0)

    def forward(self, x_NI: Tensor) -> Tensor:
        factor = self.factor().to(x_NI.dtype) if self.mixing else None
        if factor is not None and self.inputs:
            x_NI = x_NI * factor
        y_NO = frozen_product(x_NI, self.weight.detach().to, self.bias)
        return y_NO if factor is None or self.inputs else y_NO * factor.to(y_NO.dtype)

    @torch.no_grad()
    def merged(self) -> tuple[nn.Parameter, nn.Parameter | None]:
        """The matrix (O, I) and the bias that do the same without the vector."""
        if not self.mixing:
            return self.weight, self.bias
        if self.inputs:
            return nn.Parameter(self.weight * self.factor()), self.bias
        bias = None if self.bias is None else nn.Parameter(self.bias * self.factor())
        return nn.Parameter(self.weight * self.factor()[:, None]), bias


def scale(model: nn.Module, options: ScaleOptions, *, seed: int) -> None:
    """Add the vectors in place; all else is frozen but what `options.train` names.

    Args:
        seed: unused, the vectors start at one.

    Raises:
        GroundupError: E-ADAPT-001, a pattern matches nothing; E-ADAPT-002, a target is no plain linear layer.
    """
    for field, patterns in (("outputs", options.outputs), ("inputs", options.inputs)):
        for name, module in targets(model, patterns, (nn.Linear,), field=f"scale.{field}").items():
            assert isinstance(module, nn.Linear)
            replace(model, name, ScaledLinear(module, inputs=field == "inputs"))
    freeze_base(model, options.train, field="scale.train")
