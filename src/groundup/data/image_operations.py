"""The random changes that images can go through, and their numbers: options alone.

What they do to an image is in image_augment.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Factor = Annotated[float, Field(gt=0.0, le=10.0)]


class _Operation(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Sometimes(_Operation):
    probability: float = Field(0.5, ge=0.0, le=1.0, description="share of the images that it changes")


class FlipHorizontal(_Sometimes):
    """Left becomes right."""

    kind: Literal["flip_horizontal"]


class FlipVertical(_Sometimes):
    """Top becomes bottom."""

    kind: Literal["flip_vertical"]


class Crop(_Operation):
    """A window of the image's own size out of the image with a black edge: a shift by whole pixels."""

    kind: Literal["crop"]
    padding: int = Field(4, ge=0, le=1 << 12, description="pixels of black on each side")


class Rotate(_Operation):
    """A turn around the centre."""

    kind: Literal["rotate"]
    degrees: float = Field(15.0, ge=0.0, le=180.0, description="largest angle in degrees, either way")


class Affine(_Operation):
    """A turn, a shift, a change of size and a shear at once, around the centre."""

    kind: Literal["affine"]
    degrees: float = Field(10.0, ge=0.0, le=180.0, description="largest angle in degrees, either way")
    translate: float = Field(0.1, ge=0.0, le=1.0, description="largest shift, as a share of height and of width")
    scale: Annotated[list[Factor], Field(min_length=2, max_length=2)] = Field(
        default_factory=lambda: [0.9, 1.1], description="smallest and largest factor of its size"
    )
    shear: float = Field(0.0, ge=0.0, le=60.0, description="largest shear along x in degrees, either way")


class Colour(_Operation):
    """Factors drawn from 1 - s to 1 + s: of all values, of their distance from the mean grey, and from grey."""

    kind: Literal["colour"]
    brightness: float = Field(0.2, ge=0.0, le=1.0, description="s of the brightness")
    contrast: float = Field(0.2, ge=0.0, le=1.0, description="s of the contrast")
    saturation: float = Field(0.0, ge=0.0, le=1.0, description="s of the saturation; needs three channels")


class Erase(_Sometimes):
    """A rectangle of black (Zhong et al. 2017, arXiv:1708.04896)."""

    kind: Literal["erase"]
    area: Annotated[list[Share], Field(min_length=2, max_length=2)] = Field(
        default_factory=lambda: [0.02, 0.2], description="smallest and largest share of the image"
    )
    aspect: float = Field(3.0, ge=1.0, le=10.0, description="largest ratio of its sides, either way")


class _Mix(_Operation):
    alpha: float = Field(1.0, gt=0.0, le=100.0, description="the share of an image follows Beta(alpha, alpha)")
    probability: float = Field(1.0, ge=0.0, le=1.0, description="share of the images that are mixed")


class Mixup(_Mix):
    """A weighted mean of two images (Zhang et al. 2017, arXiv:1710.09412)."""

    kind: Literal["mixup"]


class Cutmix(_Mix):
    """A rectangle of another image (Yun et al. 2019, arXiv:1905.04899)."""

    kind: Literal["cutmix"]


Operation = Annotated[
    FlipHorizontal | FlipVertical | Crop | Rotate | Affine | Colour | Erase | Mixup | Cutmix,
    Field(discriminator="kind"),
]
Moving = (FlipHorizontal, FlipVertical, Crop, Rotate, Affine)
Mixing = (Mixup, Cutmix)


class AugmentOptions(BaseModel):
    """Random changes of the training images, in this order: changes of place, then of values, then mixing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    operations: list[Operation] = Field(
        default_factory=list,
        description="each with its kind: flip_horizontal, flip_vertical, crop, rotate, affine, colour, erase, mixup or "
        "cutmix; of several that mix, each batch draws one",
    )

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, so that the batch has a second label and a share."""
        return any(isinstance(operation, Mixing) for operation in self.operations)
