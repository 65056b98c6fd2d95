"""The 260K model of llama2.c comes in whole and says what it is known to say; damaged files are refused."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import pytest
import torch
from tests.shared import shared
from tokenizers import Tokenizer

from groundup.errors import GroundupError
from groundup.formats.foreign import ForeignModel
from groundup.formats.llama2c import HEADER, read_llama2c, read_sizes, read_tokenizer
from groundup.inference.cache import cache_for
from groundup.models.llama import Llama, LlamaOptions


def stories() -> ForeignModel:
    return read_llama2c(shared("models/stories260K.bin"), shared("models/tok512.bin"))


def greedy_by_score(text: str, pieces: list[tuple[str, float]]) -> list[int]:
    """llama2.c's own way to encode, as its run.c does it, with the begin token in front."""
    ids = {piece: id for id, (piece, _) in enumerate(pieces)}
    tokens = [1] + ([ids[" "]] if text else [])
    for character in text:
        if character in ids:
            tokens.append(ids[character])
        else:
            tokens += [byte + 3 for byte in character.encode("utf-8")]
    while True:
        best_score, best_id, best_place = -1e10, -1, -1
        for place in range(len(tokens) - 1):
            joined = ids.get(pieces[tokens[place]][0] + pieces[tokens[place + 1]][0], -1)
            if joined != -1 and pieces[joined][1] > best_score:
                best_score, best_id, best_place = pieces[joined][1], joined, place
        if best_place == -1:
            return tokens
        tokens[best_place : best_place + 2] = [best_id]


def pieces_of(path: Path) -> list[tuple[str, float]]:
    data, position, pieces = path.read_bytes(), 4, []
    while position < len(data):
        score, length = struct.unpack_from("<fi", data, position)
        pieces.append((data[position + 8 : position + 8 + length].decode("utf-8"), score))
        position += 8 + length
    return pieces


def test_the_260K_model_says_its_known_text() -> None:
    found = stories()
    expected = shared("models/stories260K_greedy.txt").read_text(encoding="utf-8").removesuffix("\n")
    assert found.tokenizer is not None
    assert found.oddities == ()
    model = Llama(LlamaOptions(**found.options)).eval()
    missing = model.load_state_dict(dict(found.tensors), strict=False).missing_keys
    assert missing == ["head.weight"]  # tied: the embedding's own matrix
    tokenizer = Tokenizer.from_str(found.tokenizer.json)
    ids, text = [1], ""
    cache = cache_for(model, batch=1, context=model.context)
    with torch.inference_mode():
        while len(text) < len(expected):
            ids.append(int(model(torch.tensor([ids[-1:]]), cache=cache)[0, -1].argmax()))
            text = tokenizer.decode(ids)
    assert text == expected


def test_the_tokenizer_encodes_as_llama2c_does() -> None:
    path = shared("models/tok512.bin")
    found, oddities = read_tokenizer(path, 512)
    assert oddities == []
    assert (found.begin, found.ends, found.adds_begin, found.template) == ("<s>", ("</s>",), True, None)
    tokenizer, pieces = Tokenizer.from_str(found.json), pieces_of(path)
    story = shared("models/stories260K_greedy.txt").read_text(encoding="utf-8")
    draw = random.Random(0)
    letters = sorted({character for piece, _ in pieces[259:] for character in piece})
    texts = ["", " ", "  two  spaces ", "naïve 中文 🙂 tab\t\n\n", story, "...!!!???", "ééé", "<0x41> a"]
    texts += ["".join(draw.choices(letters, k=draw.randrange(1, 60))) for _ in range(300)]
    texts += [story[(start := draw.randrange(len(story))) : start + 30] for _ in range(100)]
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert ids == greedy_by_score(text, pieces), repr(text)
        assert tokenizer.decode(ids) == text


def header(**changed: int) -> bytes:
    fields = {"dim": 8, "hidden": 12, "layers": 1, "heads": 2, "groups": 1, "vocabulary": 300, "context": 4}
    return HEADER.pack(*{**fields, **changed}.values())


def body(vocabulary: int = 300) -> bytes:
    return bytes(4 * (vocabulary * 8 + 8 + 64 + 2 * 32 + 64 + 8 + 3 * 96 + 8 + 2 * 8))


def test_a_negative_vocabulary_is_an_untied_head(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(header(vocabulary=-300) + body() + bytes(4 * 300 * 8))
    sizes = read_sizes(path)
    assert (sizes.vocabulary, sizes.tied) == (300, False)
    path.write_bytes(header() + body())
    assert read_sizes(path).tied


BROKEN = {
    "empty": b"",
    "cut_header": header()[:20],
    "cut_body": header() + body()[:-4],
    "longer": header() + body() + b"\0",
    "zero_width": header(dim=0) + body(),
    "negative_layers": header(layers=-1) + body(),
    "billion_layers": header(layers=10**9) + body(),
    "huge_everything": header(dim=2**17, hidden=2**21, layers=1024, vocabulary=10**7, context=2**20) + body(),
    "lying_vocabulary": header(vocabulary=2**31 - 1) + body(),
    "smallest_vocabulary": header(vocabulary=-(2**31)) + body(),
    "odd_heads": header(heads=3) + body(),
    "groups": header(heads=2, groups=4) + body(),
    "long_context": header(context=2**30) + body(),
    "later_version": struct.pack("<I", 0x616B3432) + header() + body(),
    "pickle": b"PK\x03\x04" + bytes(4000),
}


@pytest.mark.parametrize("name", BROKEN)
def test_K8_broken_checkpoints_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(BROKEN[name])
    began = time.monotonic()
    with pytest.raises(GroundupError) as caught:
        read_llama2c(path, tmp_path / "tok.bin")
    assert caught.value.code == "E-FORMAT-007" and time.monotonic() - began < 2.0
    assert caught.value.where and caught.value.why and caught.value.fix


def tokens(change: dict[int, tuple[float, bytes]] | None = None, count: int = 300) -> bytes:
    pieces = [(0.0, b"<unk>"), (0.0, b"\n<s>\n"), (0.0, b"\n</s>\n")]
    pieces += [(0.0, f"<0x{byte:02X}>".encode()) for byte in range(256)]
    pieces += [(-float(number), chr(0x100 + number).encode()) for number in range(count - len(pieces))]
    for id, piece in (change or {}).items():
        pieces[id] = piece
    return struct.pack("<i", 7) + b"".join(struct.pack("<fi", score, len(text)) + text for score, text in pieces)


BROKEN_TOKENS = {
    "empty": b"",
    "cut": tokens()[:-3],
    "longer": tokens() + b"xx",
    "fewer": tokens(count=290),
    "lying_length": tokens()[:4] + struct.pack("<fi", 0.0, 2**31 - 1) + tokens()[12:],
    "negative_length": tokens()[:4] + struct.pack("<fi", 0.0, -5) + tokens()[12:],
    "not_utf8": tokens({280: (-1.0, b"\xff\xfe")}),
    "not_a_number": tokens({280: (float("nan"), b"x")}),
    "twice": tokens({280: (-1.0, b"x"), 281: (-2.0, b"x")}),
    "no_bytes": tokens({3: (0.0, b"zero")}),
}


@pytest.mark.parametrize("name", BROKEN_TOKENS)
def test_K8_broken_tokenizer_files_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "tok.bin"
    path.write_bytes(BROKEN_TOKENS[name])
    began = time.monotonic()
    with pytest.raises(GroundupError) as caught:
        read_tokenizer(path, 300)
    assert caught.value.code == "E-FORMAT-007" and time.monotonic() - began < 2.0


def test_the_smallest_whole_tokenizer_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tok.bin"
    path.write_bytes(tokens())
    found, _ = read_tokenizer(path, 300)
    assert Tokenizer.from_str(found.json).get_vocab_size() == 300


def test_equal_scores_are_told(tmp_path: Path) -> None:
    path = tmp_path / "tok.bin"
    path.write_bytes(tokens({259: (-9.0, b"a"), 260: (-9.0, b"b"), 261: (-1.0, b"ab"), 262: (-1.0, b"ba")}))
    _, oddities = read_tokenizer(path, 300)
    assert len(oddities) == 1 and "share a score" in oddities[0]
