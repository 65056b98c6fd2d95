"""Random changes of training images: flips, crops, rotations, colour, erasing, and mixing two images.

All changes of place of an image are one affine map, so it is sampled once however many there are; boxes and masks
move by the same map. Every number is drawn from a generator that is handed in. Files and labels do not enter here.

Shapes: B images, C channels, H height, W width, K boxes of one image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from groundup.data.image_operations import (
    Affine,
    AugmentOptions,
    Colour,
    Crop,
    Cutmix,
    Erase,
    FlipHorizontal,
    FlipVertical,
    Mixing,
    Mixup,
    Moving,
    Rotate,
)
from groundup.errors import GroundupError

GREY = (0.299, 0.587, 0.114)
"""How much red, green and blue count towards brightness (ITU-R recommendation BT.601)."""

Maps = NDArray[np.float64]
"""(B, 3, 3): where in the image each pixel of the result comes from, in pixels (x, y, 1) from its centre."""


class Mixed(NamedTuple):
    """What was mixed: the other row of each, int64 (B,), and the share of the row itself, float32 (B,)."""

    other_B: Tensor
    share_B: Tensor


class Augmented(NamedTuple):
    """Images that were moved, with all that belongs to them.

    Attributes:
        images_BCHW: float32.
        boxes: for each image (K, 4): x and y of two corners in pixels, cut to the image.
        visible: for each image bool (K,): False where nothing of the box is left in it.
        masks_BHW: of the dtype that was given; 0 where the image has none.
    """

    images_BCHW: Tensor
    boxes: list[Tensor]
    visible: list[Tensor]
    masks_BHW: Tensor | None


def check_augment(options: AugmentOptions, channels: int, *, labels: bool) -> None:
    """E-DATA-015 with every operation that does not fit the images, or contradicts itself."""
    wrong = []
    for number, operation in enumerate(options.operations):
        name = f"data.augment.operations[{number}] {operation.kind}"
        if isinstance(operation, Colour) and operation.saturation and channels == 1:
            wrong.append(f"{name}: saturation {operation.saturation:g}, but the images are grey")
        if isinstance(operation, Mixing) and not labels:
            wrong.append(f"{name}: mixes labels, but the images have none")
        for field, bounds in _ranges(operation):
            if bounds[0] > bounds[1]:
                wrong.append(f"{name}: {field} from {bounds[0]:g} to {bounds[1]:g} is empty")
    if wrong:
        raise GroundupError(
            "E-DATA-015",
            wrong[0] if len(wrong) == 1 else f"{len(wrong)} operations of data.augment do not fit",
            where="\n".join(wrong),
            why="a change that cannot be made would be left out in silence",
            fix="take these operations out, or give them other numbers",
            exit_code=2,
        )


def _ranges(operation: object) -> list[tuple[str, list[float]]]:
    if isinstance(operation, Affine):
        return [("scale", operation.scale)]
    return [("area", operation.area)] if isinstance(operation, Erase) else []


def augment(images_BCHW: Tensor, options: AugmentOptions, random: np.random.Generator) -> tuple[Tensor, Mixed | None]:
    """Change a batch.

    Args:
        images_BCHW: float32, 0 (black) to 1; never written to.
        options: which changes.
        random: what is drawn depends on its state, the options and the shape alone.

    Returns:
        Images of the same shape, and what was mixed if the options mix.
    """
    return _change(images_BCHW, options, random, maps_of(options, random, images_BCHW.shape))


def _change(
    images_BCHW: Tensor, options: AugmentOptions, random: np.random.Generator, maps: Maps
) -> tuple[Tensor, Mixed | None]:
    images = move(images_BCHW, maps, exact=_whole_pixels(options))
    mixed: Mixed | None = None
    for operation in options.operations:
        if isinstance(operation, Colour):
            images = _colour(images, operation, random)
        elif isinstance(operation, Erase):
            chosen = torch.from_numpy(random.random(len(images)) < operation.probability)
            inside_BHW = _rectangles(images.shape, random, operation.area, operation.aspect)
            images = images.masked_fill((inside_BHW & chosen[:, None, None])[:, None], 0.0)
    mixing = [operation for operation in options.operations if isinstance(operation, Mixing)]
    if mixing:
        images, mixed = _mix(images, mixing[int(random.integers(len(mixing)))], random)
    return images, mixed


def augment_with(
    images_BCHW: Tensor,
    options: AugmentOptions,
    random: np.random.Generator,
    boxes: Sequence[Tensor] = (),
    masks_BHW: Tensor | None = None,
) -> Augmented:
    """Change a batch together with its boxes and masks, which flips and crops move exactly. A box that is turned
    becomes the smallest upright one around it; a mask is sampled from its nearest pixel, so it stays whole numbers.

    Args:
        images_BCHW: float32, 0 to 1.
        options: without mixing.
        random: as for `augment`; the images are the same as there.
        boxes: for each image float32 (K, 4), x and y of two corners; the left edge of the image is 0, its right W.
        masks_BHW: whole numbers below 2^24, any dtype.

    Raises:
        GroundupError: E-DATA-015 if the options mix images.
    """
    if options.mixes:
        raise GroundupError(
            "E-DATA-015",
            "images with boxes or masks cannot be mixed",
            where="data.augment.operations: mixup, cutmix",
            why="a pixel of a mixed image belongs to two images at once, and a box or mask to one",
            fix="take mixup and cutmix out",
            exit_code=2,
        )
    maps = maps_of(options, random, images_BCHW.shape)
    images, _ = _change(images_BCHW, options, random, maps)
    height, width = images_BCHW.shape[-2:]
    moved = [_move_boxes(box_K4, map_33, height, width) for box_K4, map_33 in zip(boxes, maps)]
    if masks_BHW is not None:
        exact = _whole_pixels(options)
        moved_masks = move(masks_BHW[:, None].float(), maps, exact=exact, nearest=True)[:, 0].to(masks_BHW.dtype)
    return Augmented(
        images,
        [box_K4 for box_K4, _ in moved],
        [visible_K for _, visible_K in moved],
        None if masks_BHW is None else moved_masks,
    )


def maps_of(options: AugmentOptions, random: np.random.Generator, shape: Sequence[int]) -> Maps:
    """Draw where every pixel of a batch of this shape (B, C, H, W) comes from, float64 (B, 3, 3)."""
    rows, _, height, width = shape
    maps = np.broadcast_to(np.eye(3), (rows, 3, 3)).copy()
    for operation in options.operations:
        if isinstance(operation, Moving):
            maps = maps @ _map(operation, random, rows, height, width)
    return maps


def _map(operation: object, random: np.random.Generator, rows: int, height: int, width: int) -> Maps:
    maps = np.broadcast_to(np.eye(3), (rows, 3, 3)).copy()
    if isinstance(operation, FlipHorizontal | FlipVertical):
        axis = 0 if isinstance(operation, FlipHorizontal) else 1
        maps[:, axis, axis] = np.where(random.random(rows) < operation.probability, -1.0, 1.0)
    elif isinstance(operation, Crop):
        maps[:, :2, 2] = random.integers(-operation.padding, operation.padding, size=(rows, 2), endpoint=True)
    elif isinstance(operation, Rotate):
        maps[:, :2, :2] = _turns(random.uniform(-operation.degrees, operation.degrees, rows))
    elif isinstance(operation, Affine):
        turn = _turns(random.uniform(-operation.degrees, operation.degrees, rows))
        scale = random.uniform(operation.scale[0], operation.scale[1], rows)
        shear = np.broadcast_to(np.eye(2), (rows, 2, 2)).copy()
        shear[:, 0, 1] = np.tan(np.radians(random.uniform(-operation.shear, operation.shear, rows)))
        shift = random.uniform(-operation.translate, operation.translate, (rows, 2)) * (width, height)
        maps[:, :2, :2] = turn @ shear / scale[:, None, None]
        maps[:, :2, 2] = -(maps[:, :2, :2] @ shift[:, :, None])[:, :, 0]
    return maps


def _turns(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, 2, 2) that turn the image counter-clockwise; y points down."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)


def _whole_pixels(options: AugmentOptions) -> bool:
    """Whether pixels only change places, so that none has to be mixed from its neighbours."""
    return not any(isinstance(operation, Rotate | Affine) for operation in options.operations)


def move(images_BCHW: Tensor, maps: Maps, *, exact: bool, nearest: bool = False) -> Tensor:
    """Sample a batch where its maps say, black outside: bit for bit if `exact` (flips and whole shifts alone), else
    between four pixels (or from the nearest)."""
    height, width = images_BCHW.shape[-2:]
    if exact and np.array_equal(maps, np.broadcast_to(np.eye(3), maps.shape)):
        return images_BCHW
    if exact:
        y_BH, inside_y = _sources(maps[:, 1, 1], maps[:, 1, 2], height)
        x_BW, inside_x = _sources(maps[:, 0, 0], maps[:, 0, 2], width)
        place_BHW = (y_BH[:, :, None] * width + x_BW[:, None, :]).flatten(1)
        moved = images_BCHW.flatten(2).gather(2, place_BHW[:, None].expand(-1, images_BCHW.shape[1], -1))
        inside = (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
        return moved.view_as(images_BCHW) * inside
    # grid_sample counts from -1 to 1 across each side
    theta = maps[:, :2].copy()
    theta[:, 0] *= (1.0, height / width, 2.0 / width)
    theta[:, 1] *= (width / height, 1.0, 2.0 / height)
    grid = F.affine_grid(torch.from_numpy(theta).float(), list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid, "nearest" if nearest else "bilinear", "zeros", align_corners=False)


def _sources(sign: NDArray[np.float64], shift: NDArray[np.float64], length: int) -> tuple[Tensor, Tensor]:
    """Along one side: the pixel that each comes from, int64 (B, length), and whether there is one."""
    centre = (length - 1) / 2
    place = sign[:, None] * (np.arange(length) - centre) + shift[:, None] + centre
    whole = torch.from_numpy(np.rint(place).astype(np.int64))
    return whole.clamp(0, length - 1), (whole >= 0) & (whole < length)


def _move_boxes(box_K4: Tensor, map_33: NDArray[np.float64], height: int, width: int) -> tuple[Tensor, Tensor]:
    back = torch.from_numpy(np.linalg.inv(map_33))
    centre = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    corners = box_K4.double()[:, [0, 1, 2, 1, 2, 3, 0, 3]].view(-1, 4, 2) - centre
    corners = corners @ back[:2, :2].T + back[:2, 2] + centre
    limit = torch.tensor([width, height], dtype=torch.float64)
    low, high = (corners.amin(1).clamp_min(0).minimum(limit), corners.amax(1).clamp_min(0).minimum(limit))
    return torch.cat([low, high], dim=1).to(box_K4.dtype), (high > low).all(dim=1)


def _colour(images: Tensor, options: Colour, random: np.random.Generator) -> Tensor:
    def factors(spread: float) -> Tensor:
        return torch.from_numpy(random.uniform(1 - spread, 1 + spread, len(images))).float()[:, None, None, None]

    weights = torch.tensor(GREY if images.shape[1] == 3 else (1.0,))[:, None, None]
    if options.brightness:
        images = (images * factors(options.brightness)).clamp(0, 1)
    if options.contrast:
        mean = (images * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        images = torch.lerp(mean, images, factors(options.contrast)).clamp(0, 1)
    if options.saturation:
        grey = (images * weights).sum(1, keepdim=True)
        images = torch.lerp(grey, images, factors(options.saturation)).clamp(0, 1)
    return images


def _rectangles(shape: Sequence[int], random: np.random.Generator, area: Sequence[float], aspect: float) -> Tensor:
    """One rectangle in each image, bool (B, H, W), of a share of it and a ratio of its sides as asked."""
    rows, _, height, width = shape
    size = random.uniform(area[0], area[1], rows) * height * width
    ratio = np.exp(random.uniform(-math.log(aspect), math.log(aspect), rows))
    high = np.clip(np.rint(np.sqrt(size * ratio)), 1, height)
    wide = np.clip(np.rint(np.sqrt(size / ratio)), 1, width)
    top = np.floor(random.random(rows) * (height - high + 1))
    left = np.floor(random.random(rows) * (width - wide + 1))
    return _inside(top, top + high, left, left + wide, height, width)


def _inside(
    top: NDArray[np.float64],
    bottom: NDArray[np.float64],
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    height: int,
    width: int,
) -> Tensor:
    y, x = np.arange(height), np.arange(width)
    in_y = (y >= top[:, None]) & (y < bottom[:, None])
    in_x = (x >= left[:, None]) & (x < right[:, None])
    return torch.from_numpy(in_y[:, :, None] & in_x[:, None, :])


def _mix(images: Tensor, options: Mixup | Cutmix, random: np.random.Generator) -> tuple[Tensor, Mixed]:
    """Each image with that of another row: their order shuffled."""
    rows, _, height, width = images.shape
    other_B = torch.from_numpy(random.permutation(rows))
    share = random.beta(options.alpha, options.alpha, rows)
    share = np.where(random.random(rows) < options.probability, share, 1.0)
    if isinstance(options, Mixup):
        share_B = torch.from_numpy(share).float()
        return torch.lerp(images[other_B], images, share_B[:, None, None, None]), Mixed(other_B, share_B)
    y, x = random.random(rows) * height, random.random(rows) * width
    half_high, half_wide = np.sqrt(1 - share) * height / 2, np.sqrt(1 - share) * width / 2
    top, bottom = np.rint(np.clip([y - half_high, y + half_high], 0, height))
    left, right = np.rint(np.clip([x - half_wide, x + half_wide], 0, width))
    inside_BHW = _inside(top, bottom, left, right, height, width)
    # at the edge a rectangle is cut, so the share is what of the image is left
    share_B = 1.0 - inside_BHW.float().mean((1, 2))
    return torch.where(inside_BHW[:, None], images[other_B], images), Mixed(other_B, share_B)
