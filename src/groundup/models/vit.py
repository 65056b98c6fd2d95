"""The vision transformer: an image as a sequence of patches, read by pre-norm encoder blocks (Dosovitskiy et al. 2020,
arXiv:2010.11929, equations 1 to 4). Encoders of text stand in bert.py.

Shapes: B rows, C channels, I and J height and width of an image, T positions (patches, and a class token), D width,
H heads, K head size.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.models.layers import Fault, initialise_layers, not_an_image, refuse


class VitOptions(BaseModel):
    """The sizes of a vision transformer. Inputs and outputs follow from the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["vit"] = "vit"
    patch: int = Field(default=4, ge=1, description="side of the square patches, in pixels; divides the image's sides")
    width: int = Field(default=64, ge=1, description="size of the residual stream")
    layers: int = Field(default=4, ge=1, description="number of blocks")
    heads: int = Field(default=4, ge=1, description="attention heads; divides `width`")
    hidden: int | None = Field(
        default=None, ge=1, description="inner width of the feed-forward part; None: 4 times `width`"
    )
    pooling: Literal["class", "mean"] = Field(
        default="class", description="what the head reads: a class token of its own, or the mean of the patches"
    )
    norm_epsilon: float = Field(default=1e-6, gt=0.0, description="added to the variance in LayerNorm")
    dropout: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="probability, in training, of dropping a value of what blocks add"
    )


class Attention(nn.Module):
    """Every position sees every other one. Queries, keys and values come out of one matrix, in that order."""

    def __init__(self, options: VitOptions) -> None:
        super().__init__()
        self.head_size = options.width // options.heads
        self.qkv_proj = nn.Linear(options.width, 3 * options.width)
        self.o_proj = nn.Linear(options.width, options.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        rows, length, _ = x_BTD.shape
        query_BHTK, key_BHTK, value_BHTK = (
            part.view(rows, length, -1, self.head_size).transpose(1, 2) for part in self.qkv_proj(x_BTD).chunk(3, -1)
        )
        mixed_BHTK = F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK)
        return self.o_proj(mixed_BHTK.transpose(1, 2).reshape(rows, length, -1))


class Block(nn.Module):
    """Equations 2 and 3, with an exact GELU."""

    def __init__(self, options: VitOptions) -> None:
        super().__init__()
        hidden = options.hidden or 4 * options.width
        self.attention_norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.attention = Attention(options)
        self.feed_forward_norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.up_proj = nn.Linear(options.width, hidden)
        self.down_proj = nn.Linear(hidden, options.width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD)))
        inner = self.dropout(F.gelu(self.up_proj(self.feed_forward_norm(x_BTD))))
        return x_BTD + self.dropout(self.down_proj(inner))


class Vit(nn.Module):
    """The network.

    Args:
        shape: (C, I, J) of one image.
        outputs: logits or values of an image.

    Raises:
        GroundupError: E-MODEL-100 the input is no image, the patches do not divide it, or the heads not the width.
    """

    def __init__(self, options: VitOptions, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        refuse("vit", _faults(options, shape))
        self.options = options
        patches = (shape[1] // options.patch) * (shape[2] // options.patch)
        with_class = options.pooling == "class"
        self.patch_proj = nn.Conv2d(shape[0], options.width, options.patch, stride=options.patch)
        self.class_embedding = nn.Parameter(torch.empty(options.width)) if with_class else None
        self.position_embedding = nn.Parameter(torch.empty(patches + with_class, options.width))
        self.dropout = nn.Dropout(options.dropout)
        self.layers = nn.ModuleList(Block(options) for _ in range(options.layers))
        self.norm = nn.LayerNorm(options.width, options.norm_epsilon)
        self.head = nn.Linear(options.width, outputs)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw everything anew, in the order of the names.

        | parameter                          | distribution                                                      |
        |------------------------------------|-------------------------------------------------------------------|
        | class embedding                    | zero                                                              |
        | position embedding                 | normal, deviation 0.02                                            |
        | patches, matrices                  | uniform, deviation sqrt(2 / (inputs + outputs)), a patch as one   |
        |                                    | row of inputs, queries, keys and values as three matrices         |
        |                                    | (Glorot & Bengio 2010)                                            |
        | head                               | zero                                                              |
        | weights, biases of norms           | one, zero                                                         |
        | biases                             | zero                                                              |

        Much as the released code has it (google-research/vision_transformer, models_vit.py), which draws the
        feed-forward biases too.
        """
        with torch.no_grad():
            if self.class_embedding is not None:
                self.class_embedding.zero_()
            self.position_embedding.normal_(0.0, 0.02, generator=generator)
            initialise_layers(self, "xavier_uniform", "identity", generator)
            nn.init.xavier_uniform_(self.patch_proj.weight.flatten(1), generator=generator)
            for name, parameter in self.named_parameters():
                if name.endswith("qkv_proj.weight"):
                    for part in parameter.chunk(3):
                        nn.init.xavier_uniform_(part, generator=generator)
            self.head.weight.zero_()

    def forward(self, image_BCIJ: Tensor) -> Tensor:
        """Logits or values (B, outputs) of images (B, C, I, J)."""
        x_BTD = self.patch_proj(image_BCIJ).flatten(2).transpose(1, 2)
        if self.class_embedding is not None:
            x_BTD = torch.cat([self.class_embedding.expand(x_BTD.shape[0], 1, -1).to(x_BTD.dtype), x_BTD], dim=1)
        x_BTD = self.dropout(x_BTD + self.position_embedding)
        for block in self.layers:
            x_BTD = block(x_BTD)
        x_BTD = self.norm(x_BTD)
        return self.head(x_BTD.mean(dim=1) if self.class_embedding is None else x_BTD[:, 0])


def _faults(options: VitOptions, shape: tuple[int, ...]) -> list[Fault]:
    faults = not_an_image("vit", shape)
    if options.width % options.heads:
        fits = ", ".join(str(n) for n in range(1, options.width + 1) if options.width % n == 0)
        faults.append(Fault("heads", f"heads {options.heads} does not divide width {options.width}", f"one of {fits}"))
    if len(shape) == 3 and (shape[1] % options.patch or shape[2] % options.patch):
        fits = ", ".join(str(n) for n in range(1, min(shape[1:]) + 1) if shape[1] % n == 0 and shape[2] % n == 0)
        text = f"patches of {options.patch}×{options.patch} pixels do not divide an image of {shape[1]}×{shape[2]}"
        faults.append(Fault("patch", text, f"one of {fits}"))
    return faults
