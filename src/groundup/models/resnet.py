"""Residual networks in the two layouts of He et al. 2015 (arXiv:1512.03385): for small images (section 4.2) and for
ImageNet (table 1). Parameters have the names that torchvision published its weights under, except that the last layer
is called `head`.

Shapes: B rows, C channels, H and W height and width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.models.layers import BatchNorm2d, Fault, initialise_layers, not_an_image, refuse

CIFAR = (8, 14, 20, 32, 44, 56, 110)
"""Depths of the layout for small images: 6n + 2, three stages of n basic blocks."""

IMAGENET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of each of the four stages, by depth; from 50 on they are bottlenecks."""


class ResnetOptions(BaseModel):
    """The sizes of a residual network. Inputs and outputs follow from the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["resnet"] = "resnet"
    layout: Literal["cifar", "imagenet"] = Field(
        default="cifar",
        description="cifar: three stages at full, half and quarter size, for small images. imagenet: four stages "
        "behind a 7×7 convolution and a pooling that leave a quarter of the size",
    )
    depth: int = Field(
        default=20,
        description="layers with weights: 8, 14, 20, 32, 44, 56 or 110 (cifar); 18, 34, 50, 101 or 152 (imagenet)",
    )
    width: int | None = Field(
        default=None, ge=1, description="channels of the first stage, doubled in each; None: 16 (cifar), 64 (imagenet)"
    )
    zero_last_norm: bool = Field(
        default=True, description="blocks begin as the identity: the weight of each block's last norm begins at zero"
    )
    dropout: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="probability, in training, of dropping an input of the head"
    )


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution padded to keep its size but for the stride; a batch norm after it brings the bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The shortcut: the identity, or a 1×1 convolution where size or channels change (section 3.3, option B)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(conv(inputs, outputs, 1, stride), BatchNorm2d(outputs))


class Basic(nn.Module):
    """Two 3×3 convolutions and the shortcut around them (figure 2)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = BatchNorm2d(width)
        self.downsample = projection(inputs, width, stride)

    @property
    def last_norm(self) -> BatchNorm2d:
        return self.bn2

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x_BCHW)))
        return F.relu(self.bn2(self.conv2(inner)) + self.downsample(x_BCHW))


class Bottleneck(nn.Module):
    """1×1 to a quarter of the channels, 3×3 there, 1×1 back (figure 5). The stride is in the 3×3 convolution, as in
    torchvision's weights."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = BatchNorm2d(4 * width)
        self.downsample = projection(inputs, 4 * width, stride)

    @property
    def last_norm(self) -> BatchNorm2d:
        return self.bn3

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x_BCHW)))
        inner = F.relu(self.bn2(self.conv2(inner)))
        return F.relu(self.bn3(self.conv3(inner)) + self.downsample(x_BCHW))


def stage(block: type[Basic | Bottleneck], inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks of one width; the first of them changes size and channels."""
    outputs = block.expansion * width
    first = block(inputs, width, stride)
    return nn.Sequential(first, *(block(outputs, width, 1) for _ in range(blocks - 1)))


class Resnet(nn.Module):
    """The network.

    Args:
        shape: (C, H, W) of one image.
        outputs: logits or values of an image.

    Raises:
        GroundupError: E-MODEL-100 a depth that the layout does not have, an input that is no image, or one smaller
            than the first kernel can use.
    """

    def __init__(self, options: ResnetOptions, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        refuse("resnet", _faults(options, shape))
        self.options = options
        small = options.layout == "cifar"
        width = options.width or (16 if small else 64)
        block = Bottleneck if not small and options.depth >= 50 else Basic
        blocks: tuple[int, ...] = ((options.depth - 2) // 6,) * 3 if small else IMAGENET[options.depth]
        self.conv1 = conv(shape[0], width, 3) if small else conv(shape[0], width, 7, 2)
        self.bn1 = BatchNorm2d(width)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        grown = block.expansion * width
        self.layer1 = stage(block, width, width, blocks[0], 1)
        self.layer2 = stage(block, grown, 2 * width, blocks[1], 2)
        self.layer3 = stage(block, 2 * grown, 4 * width, blocks[2], 2)
        self.layer4 = nn.Identity() if small else stage(block, 4 * grown, 8 * width, blocks[3], 2)
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear((4 if small else 8) * grown, outputs)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw everything anew, in the order of the names.

        | parameter or buffer              | distribution                                                       |
        |----------------------------------|--------------------------------------------------------------------|
        | convolutions                     | normal, deviation sqrt(2 / inputs) (He et al. 2015, 1502.01852)    |
        | head                             | normal, deviation 1 / sqrt(inputs); its bias zero                  |
        | weight of the last norm of a     | zero with `zero_last_norm` (Goyal et al. 2017, arXiv:1706.02677,   |
        | block                            | section 5.1), else one                                             |
        | weights, biases of other norms   | one, zero                                                          |
        | running mean, variance, count    | zero, one, zero                                                    |
        """
        initialise_layers(self, "he_normal", "relu", generator)
        for module in self.modules():
            if self.options.zero_last_norm and isinstance(module, Basic | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Logits or values (B, outputs) of images (B, C, H, W)."""
        x_BCHW = self.maxpool(F.relu(self.bn1(self.conv1(image_BCHW))))
        x_BCHW = self.layer4(self.layer3(self.layer2(self.layer1(x_BCHW))))
        return self.head(self.dropout(x_BCHW.mean(dim=(2, 3))))


def _faults(options: ResnetOptions, shape: tuple[int, ...]) -> list[Fault]:
    faults = not_an_image("resnet", shape)
    depths = CIFAR if options.layout == "cifar" else tuple(IMAGENET)
    if options.depth not in depths:
        text = f"the {options.layout} layout has no depth {options.depth}"
        faults.append(Fault("depth", text, "one of " + ", ".join(map(str, depths))))
    if not faults and options.layout == "imagenet" and min(shape[1:]) < 4:
        text = f"the first kernel is 7×7, and an image {shape[1]}×{shape[2]} pixels"
        faults.append(Fault("layout", text, "cifar, or images of at least 4×4 pixels"))
    return faults
