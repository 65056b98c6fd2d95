"""Random changes of images: exact where pixels only change places, and a function of the counters alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from groundup.data.image_augment import augment, augment_with, check_augment, maps_of, move
from groundup.data.image_decode import Form
from groundup.data.image_operations import AugmentOptions
from groundup.data.image_preview import contact_sheet
from groundup.data.image_set import ImagePart, Preparation
from groundup.data.image_stream import ImageStream, image_batches
from groundup.errors import GroundupError


def options(*operations: dict[str, Any]) -> AugmentOptions:
    return AugmentOptions.model_validate({"operations": list(operations)})


def pictures(rows: int = 6, channels: int = 3, height: int = 9, width: int = 12) -> Tensor:
    return torch.rand(rows, channels, height, width, generator=torch.Generator().manual_seed(3))


def random() -> np.random.Generator:
    return np.random.default_rng([1, 2, 3])


FLIP = {"kind": "flip_horizontal", "probability": 1.0}
ALL = [
    FLIP | {"probability": 0.5},
    {"kind": "flip_vertical"},
    {"kind": "crop", "padding": 2},
    {"kind": "rotate", "degrees": 20.0},
    {"kind": "affine", "shear": 10.0},
    {"kind": "colour", "saturation": 0.3},
    {"kind": "erase"},
    {"kind": "mixup", "alpha": 0.4},
    {"kind": "cutmix"},
]


def test_flips_are_exact_and_twice_is_once_less() -> None:
    images = pictures()
    for kind, dim in (("flip_horizontal", 3), ("flip_vertical", 2)):
        flip = {"kind": kind, "probability": 1.0}
        assert torch.equal(augment(images, options(flip), random())[0], images.flip(dim))
        assert torch.equal(augment(images, options(flip, flip), random())[0], images)


def test_a_crop_shifts_by_whole_pixels_and_is_black_outside() -> None:
    images = pictures(rows=120) + 0.1
    shifted, _ = augment(images, options({"kind": "crop", "padding": 3}), random())
    padded = torch.nn.functional.pad(images, (3, 3, 3, 3))
    seen = set()
    for row in range(120):
        windows = {(y, x): padded[row, :, y : y + 9, x : x + 12] for y in range(7) for x in range(7)}
        places = [place for place, window in windows.items() if torch.equal(window, shifted[row])]
        assert len(places) == 1
        seen.update(places)
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(7))


def test_no_turn_changes_nothing() -> None:
    images = pictures()
    assert torch.allclose(augment(images, options({"kind": "rotate", "degrees": 0.0}), random())[0], images, atol=1e-5)
    still = {"kind": "affine", "degrees": 0.0, "translate": 0.0, "scale": [1.0, 1.0]}
    assert torch.allclose(augment(images, options(still), random())[0], images, atol=1e-5)
    assert augment(images, options(), random())[0] is images


@pytest.mark.parametrize("size", [8, 9, 28])
def test_a_right_angle_equals_rot90(size: int) -> None:
    images = pictures(height=size, width=size)
    maps = np.broadcast_to(np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), (6, 3, 3))
    assert torch.allclose(move(images, maps, exact=False), torch.rot90(images, 1, (2, 3)), atol=1e-5)


def test_the_drawn_angle_turns_the_image_counter_clockwise() -> None:
    class Right(np.random.Generator):
        def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
            return np.full(size, 90.0)

    images = pictures(height=28, width=28)
    turned, _ = augment(images, options({"kind": "rotate", "degrees": 180.0}), Right(np.random.PCG64(0)))
    assert torch.allclose(turned, torch.rot90(images, 1, (2, 3)), atol=1e-5)


def test_several_changes_of_place_are_sampled_once_and_in_order() -> None:
    images = pictures(height=28, width=28)
    shift, turn = {"kind": "crop", "padding": 4}, {"kind": "rotate", "degrees": 0.0}
    moved, _ = augment(images, options(shift, FLIP, turn), random())
    expected, _ = augment(images, options(shift), random())
    assert torch.allclose(moved, expected.flip(3), atol=1e-5)


def test_a_larger_scale_enlarges() -> None:
    images = torch.zeros(1, 1, 16, 16)
    images[:, :, 6:10, 6:10] = 1.0
    twice = {"kind": "affine", "degrees": 0.0, "translate": 0.0, "scale": [2.0, 2.0]}
    assert float(augment(images, options(twice), random())[0].sum()) == pytest.approx(64.0, rel=0.05)


def test_boxes_and_masks_move_with_the_image_exactly() -> None:
    rows, height, width = 30, 11, 14
    images, masks = torch.zeros(rows, 1, height, width), torch.zeros(rows, height, width, dtype=torch.int64)
    boxes = []
    for row in range(rows):
        y, x = row % 6, row % 9
        images[row, 0, y : y + 4, x : x + 5] = 1.0
        masks[row, y : y + 4, x : x + 5] = row + 1
        boxes.append(torch.tensor([[x, y, x + 5, y + 4]], dtype=torch.float32))
    changes = options({"kind": "flip_horizontal"}, {"kind": "flip_vertical"}, {"kind": "crop", "padding": 6})
    moved = augment_with(images, changes, random(), boxes, masks)
    assert torch.equal(moved.images_BCHW, augment(images, changes, random())[0])
    assert moved.masks_BHW is not None and moved.masks_BHW.dtype == torch.int64
    gone = 0
    for row in range(rows):
        lit = moved.images_BCHW[row, 0] > 0
        assert torch.equal(moved.masks_BHW[row], lit.long() * (row + 1))
        assert bool(moved.visible[row][0]) == bool(lit.any())
        gone += not bool(lit.any())
        if lit.any():
            y, x = lit.nonzero().amin(0).tolist()
            bottom, right = (lit.nonzero().amax(0) + 1).tolist()
            assert moved.boxes[row].tolist() == [[x, y, right, bottom]]
    assert gone < rows


def test_a_turned_box_still_holds_its_pixels() -> None:
    images, boxes = torch.zeros(20, 1, 32, 32), [torch.tensor([[10.0, 12.0, 20.0, 18.0]])] * 20
    images[:, :, 12:18, 10:20] = 1.0
    moved = augment_with(images, options({"kind": "affine", "degrees": 40.0}), random(), boxes)
    for row in range(20):
        y, x = (moved.images_BCHW[row, 0] > 0.5).nonzero().unbind(1)
        low_x, low_y, high_x, high_y = moved.boxes[row][0].tolist()
        # a pixel that is lit by more than half may still stick out by half
        assert low_x - 0.5 <= x.min() and x.max() + 0.5 <= high_x
        assert low_y - 0.5 <= y.min() and y.max() + 0.5 <= high_y


def test_mixing_is_refused_with_boxes_and_without_labels() -> None:
    for raises in (
        lambda: augment_with(pictures(), options({"kind": "mixup"}), random()),
        lambda: check_augment(options({"kind": "cutmix"}), 3, labels=False),
        lambda: check_augment(options({"kind": "colour", "saturation": 0.5}), 1, labels=True),
        lambda: check_augment(options({"kind": "affine", "scale": [1.2, 0.8]}), 1, labels=True),
    ):
        with pytest.raises(GroundupError) as caught:
            raises()
        assert caught.value.code == "E-DATA-015" and caught.value.fix


def test_mixup_is_the_weighted_mean_of_two_rows() -> None:
    images = pictures(rows=32)
    result, mixed = augment(images, options({"kind": "mixup", "alpha": 0.7}), random())
    assert mixed is not None
    share = mixed.share_B[:, None, None, None]
    assert torch.allclose(result, share * images + (1 - share) * images[mixed.other_B], atol=1e-6)
    assert float(mixed.share_B.min()) >= 0.0 and float(mixed.share_B.std()) > 0.1


def test_the_share_of_cutmix_is_what_is_left_of_the_image() -> None:
    images = torch.arange(32.0)[:, None, None, None].expand(32, 1, 20, 20) / 32
    result, mixed = augment(images, options({"kind": "cutmix"}), random())
    assert mixed is not None
    own = (result == images).float().mean((1, 2, 3))
    apart = mixed.other_B != torch.arange(32)
    assert torch.allclose(own[apart], mixed.share_B[apart], atol=1e-6)
    assert float(mixed.share_B.std()) > 0.1


def test_some_images_are_left_unmixed() -> None:
    _, mixed = augment(pictures(rows=200), options({"kind": "mixup", "probability": 0.5}), random())
    assert mixed is not None and 60 < int((mixed.share_B == 1.0).sum()) < 140


def test_erasing_blackens_the_share_that_was_asked_for() -> None:
    images = torch.ones(200, 3, 40, 40)
    erased, _ = augment(images, options({"kind": "erase", "probability": 0.5, "area": [0.1, 0.2]}), random())
    share = 1 - erased.mean((1, 2, 3))
    changed = share > 0
    assert 60 < int(changed.sum()) < 140
    assert float(share[changed].min()) > 0.08 and float(share[changed].max()) < 0.22


def test_colour_keeps_the_range_and_grey_stays_grey() -> None:
    changes = options({"kind": "colour", "brightness": 0.5, "contrast": 0.5, "saturation": 0.5})
    result, _ = augment(pictures(), changes, random())
    assert float(result.min()) >= 0.0 and float(result.max()) <= 1.0 and not torch.equal(result, pictures())
    grey = pictures(channels=1).expand(-1, 3, -1, -1)
    result, _ = augment(grey, changes, random())
    assert torch.allclose(result[:, 0], result[:, 2], atol=1e-6)


def test_the_input_is_never_written_to() -> None:
    images = pictures()
    before = images.clone()
    augment(images, options(*ALL), random())
    assert torch.equal(images, before)


def part(rows: int = 50, size: int = 28) -> tuple[ImagePart, Preparation]:
    images = np.random.default_rng(0).integers(0, 256, (rows + 3, 3, size, size), dtype=np.uint8)
    answers = (np.arange(rows + 3) % 5 % 3).astype(np.int64)
    preparation = Preparation(Form(size, size, 3, "stretch"), "standard", (0.5,) * 3, (0.3,) * 3, ("a", "b", "c"))
    return ImagePart(images, np.arange(3, rows + 3), answers), preparation


@pytest.mark.parametrize("balanced", [False, True])
def test_a_resumed_stream_gives_the_same_bits(balanced: bool) -> None:
    images, preparation = part()

    def stream() -> ImageStream:
        return ImageStream(images, preparation, rows=16, seed=5, balanced=balanced, augment=options(*ALL))

    whole = stream()
    expected = [whole.next("model") for _ in range(11)]
    for stop in (1, 4, 7):
        first, second = stream(), stream()
        for _ in range(stop):
            first.next("model")
        second.load_state_dict(first.state_dict())
        for wanted in expected[stop:]:
            batch = second.next("model")
            assert batch.keys() == wanted.keys()
            assert all(torch.equal(batch[name], wanted[name]) for name in batch)
        assert second.ledger == whole.ledger and (second.epoch, second.batch) == (whole.epoch, whole.batch)


def test_each_image_comes_once_an_epoch_with_its_own_label() -> None:
    images, preparation = part()
    stream = ImageStream(images, preparation, rows=16, seed=0)
    batches = [stream.next("model") for _ in range(stream.batches_per_epoch)]
    rows = torch.cat([batch["row_B"] for batch in batches])
    assert sorted(rows.tolist()) == list(range(50)) and [len(batch["row_B"]) for batch in batches] == [16, 16, 16, 2]
    assert images.answers is not None
    assert torch.equal(torch.cat([batch["label_B"] for batch in batches]), torch.from_numpy(images.answers[3:])[rows])
    expected = (torch.from_numpy(images.images[3:])[rows].float() / 255 - 0.5) / 0.3
    assert torch.allclose(torch.cat([batch["image_BCHW"] for batch in batches]), expected, atol=1e-6)
    assert stream.ledger == {"seen": 50, "trained": 50, "masked": 0, "padded": 0}
    measured = list(image_batches(images, preparation, rows=20))
    assert [index for _, chosen in measured for index in chosen] == list(range(50))


def test_mixed_batches_carry_both_labels() -> None:
    images, preparation = part()
    batch = ImageStream(images, preparation, rows=50, seed=0, augment=options({"kind": "mixup"})).next("model")
    assert batch["other_label_B"].dtype == torch.int64 and batch["share_B"].dtype == torch.float32
    assert batch["other_label_B"].bincount().tolist() == batch["label_B"].bincount().tolist()


def test_balanced_draws_all_labels_equally_often() -> None:
    images, preparation = part()
    stream = ImageStream(images, preparation, rows=50, seed=0, balanced=True)
    counts = stream.next("m")["label_B"].bincount().tolist()
    assert len(counts) == 3 and max(counts) - min(counts) <= 1


def test_epochs_and_seeds_differ() -> None:
    images, preparation = part()
    stream = ImageStream(images, preparation, rows=50, seed=0, augment=options({"kind": "rotate"}))
    one, two = stream.next("m"), stream.next("m")
    assert not torch.equal(one["row_B"], two["row_B"])
    other = ImageStream(images, preparation, rows=50, seed=1, augment=options({"kind": "rotate"})).next("m")
    assert not torch.equal(one["row_B"], other["row_B"])
    changes = options(*ALL[:5])
    assert not np.array_equal(maps_of(changes, np.random.default_rng([0, 0, 0]), (4, 3, 9, 9)),
                              maps_of(changes, np.random.default_rng([0, 0, 1]), (4, 3, 9, 9)))  # fmt: skip


def test_a_batch_of_64_digits_is_changed_within_four_milliseconds() -> None:
    images = np.random.default_rng(0).integers(0, 256, (640, 1, 28, 28), dtype=np.uint8)
    preparation = Preparation(Form(28, 28, 1, "stretch"), "standard", (0.13,), (0.31,), ())
    changes = options({"kind": "crop", "padding": 2}, {"kind": "rotate", "degrees": 10.0})
    stream = ImageStream(ImagePart(images, np.arange(640), None), preparation, rows=64, seed=0, augment=changes)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(60):
            start = time.process_time()
            stream.next("model")
            times.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    # the best of many: others share the machine
    assert min(times) < 0.004


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 28), (3, 700)])
def test_the_contact_sheet_shows_what_went_in(tmp_path: Path, channels: int, size: int) -> None:
    image = pytest.importorskip("PIL.Image")
    before = torch.ones(3, channels, size, size)
    path = tmp_path / "folder" / "sheet.png"
    contact_sheet(path, before * 0.0, before * 0.5, ["cat", "狗\x1b[31m", "a very long label that has no room at all"])
    with image.open(path) as sheet:
        values = np.asarray(sheet.convert("L"))
    assert (values == 0).sum() >= 3 * min(size, 64) ** 2 and (values == 128).sum() >= 3 * min(size, 64) ** 2
    assert list(tmp_path.glob("**/*")) == [path.parent, path]
