"""Files made to mislead: safetensors headers that lie, names that look like paths, pickles."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.checkpoint import load_model, read_safetensors, refuse_pickle, save_model
from groundup.checkpoint.tensors import safetensors_chunks
from groundup.errors import GroundupError

GOOD = b"".join(safetensors_chunks({"a": torch.arange(6.0), "b": torch.arange(4)}, {"format": "pt"}))


def with_header(text: bytes | str, data: bytes = bytes(24)) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype: object = "F32", shape: object = (6,), offsets: object = (0, 24)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def one(**changes: object) -> str:
    return json.dumps({"w": entry(**changes)})


HOSTILE = {
    "empty": (b"", "too few"),
    "seven bytes": (b"1234567", "too few"),
    "huge header": (b"\xff" * 8 + b"{}", "the header claims 18,446,744,073,709,551,615 bytes"),
    "header past the end": ((100).to_bytes(8, "little") + b"{}", "claims 100 bytes, the file has 10"),
    "not an object": (with_header("[]"), "does not start with {"),
    "cut JSON": (with_header('{"w": {"dtype"'), "not valid JSON"),
    "bad UTF-8": (with_header(b'{"\xff": 1}'), "not valid JSON"),
    "deep nesting": (with_header('{"w":' + "[" * 100_000), "not valid JSON"),
    "NaN": (with_header('{"w": NaN}'), "NaN is not a JSON value"),
    "a number of 5000 digits": (with_header('{"w": ' + "9" * 5000 + "}"), "not valid JSON"),
    "twice": (with_header('{"w": 1, "w": 2}'), 'the name "w" occurs twice'),
    "lone surrogate": (with_header(json.dumps({"\ud800": entry()})), "not valid Unicode"),
    "entry is a list": (with_header('{"w": []}'), "exactly the fields"),
    "unknown field": (with_header(json.dumps({"w": entry() | {"x": 1}})), "exactly the fields"),
    "metadata not texts": (with_header('{"__metadata__": {"a": 1}}'), "__metadata__"),
    "unknown dtype": (with_header(one(dtype="Q4\x1b[31m")), "unknown dtype"),
    "dtype is a list": (with_header(one(dtype=[[]])), "unknown dtype of type list"),
    "lying dtype": (with_header(one(dtype="F64")), "need 48 bytes, it has 24"),
    "2^60 shape": (with_header(one(shape=[2**60])), "no memory can hold"),
    "2^60 beside 0": (with_header(one(shape=[0, 2**60, 2**60], offsets=[0, 0])), "no memory can hold"),
    "overflowing shape": (with_header(one(shape=[2**32, 2**32, 6])), "no memory can hold"),
    "negative shape": (with_header(one(shape=[-6])), "a shape that is not"),
    "true as a size": (with_header(one(shape=[True, 6])), "a shape that is not"),
    "fraction as a size": (with_header(one(shape=[6.0])), "a shape that is not"),
    "65 dimensions": (with_header(one(shape=[1] * 64 + [6])), "a shape that is not"),
    "three offsets": (with_header(one(offsets=[0, 12, 24])), "data_offsets"),
    "negative offset": (with_header(one(offsets=[-24, 0])), "data_offsets"),
    "backwards": (with_header(one(offsets=[24, 0])), "outside the file"),
    "past the end": (with_header(one(offsets=[24, 48])), "outside the file"),
    "far past the end": (with_header(one(offsets=[0, 10**400])), "outside the file"),
    "overlap": (
        with_header(json.dumps({"a": entry(), "b": entry(shape=[3], offsets=[12, 24])})),
        'tensor "b" overlaps',
    ),
    "gap": (with_header(one(shape=[3], offsets=[12, 24])), "leaves a gap"),
    "hidden data": (with_header(one(shape=[3], offsets=[0, 12])), "the file has 24 bytes of data"),
    "tie to nothing": (
        with_header(json.dumps({"__metadata__": {"aliases": '{"x": "y"}'}, "w": entry()})),
        'the tied name "x"',
    ),
    "tie over a tensor": (
        with_header(json.dumps({"__metadata__": {"aliases": '{"w": "w"}'}, "w": entry()})),
        'the tied name "w"',
    ),
    "ties not an object": (
        with_header(json.dumps({"__metadata__": {"aliases": "[]"}, "w": entry()})),
        "not an object",
    ),
}


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_K8_a_header_that_lies_is_a_typed_error_without_allocation(tmp_path: Path, case: str) -> None:
    content, expected = HOSTILE[case]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(GroundupError) as caught:
            read_safetensors(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.code == "E-CKPT-008"
    assert expected in caught.value.what
    assert "\x1b" not in str(caught.value)
    assert peak < 4_000_000


def test_K8_a_header_over_the_limit_is_not_read_even_if_the_file_is_as_large(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((2**30).to_bytes(8, "little") + b"{")
        file.truncate(2**31)  # sparse: takes no space
    with pytest.raises(GroundupError, match="at most 16,777,216 are read"):
        read_safetensors(path)


def test_K8_what_the_cases_are_made_from_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_header(one()))
    assert read_safetensors(path)["w"].tolist() == [0.0] * 6
    path.write_bytes(GOOD)
    assert read_safetensors(path)["b"].tolist() == [0, 1, 2, 3]


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 20),
)
def test_K8_any_mutation_loads_or_is_a_typed_error(
    tmp_path: Path, edits: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(GOOD)
    for position, value in edits:
        content[position] = value
    path = tmp_path / "x.safetensors"
    path.write_bytes(content[: len(content) - cut])
    try:
        loaded = read_safetensors(path)
    except GroundupError as error:
        assert error.code in ("E-CKPT-008", "E-CKPT-009")
    else:
        assert sum(tensor.numel() * tensor.element_size() for tensor in loaded.values()) == 56


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=5)
    | st.sampled_from(["F32", "BOOL"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
entries = st.fixed_dictionaries({"dtype": json_values, "shape": json_values, "data_offsets": json_values})


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.dictionaries(st.text(max_size=4) | st.just("__metadata__"), entries | json_values, max_size=3)
)
def test_K8_any_json_header_loads_or_is_a_typed_error(tmp_path: Path, header: dict[str, object]) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_header(json.dumps(header)))
    try:
        read_safetensors(path)
    except GroundupError as error:
        assert error.code == "E-CKPT-008"


def test_K9_names_are_keys_and_never_paths(tmp_path: Path) -> None:
    names = ["../../x", "/etc/passwd", "a\x00b", "<script>alert(1)</script>", "\x1b[2Jclear"]
    state = {name: torch.full((2,), float(index)) for index, name in enumerate(names)}
    folder = tmp_path / "deep" / "model"
    save_model(folder, tensors=state, files={})
    loaded, _ = load_model(folder)
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {
        n: t.tolist() for n, t in state.items()
    }
    everything = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert everything == ["deep/model/manifest.json", "deep/model/model.safetensors"]


def test_K9_terminal_escapes_in_names_are_shown_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_header(json.dumps({"../\x1b[31m\r\n<b>": entry(dtype="F64")})))
    with pytest.raises(GroundupError) as caught:
        read_safetensors(path)
    assert r"../\x1b[31m\r\n<b>" in caught.value.what
    assert "\x1b" not in str(caught.value)
    assert "\r" not in str(caught.value)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("the pickle ran",)


@pytest.mark.parametrize(
    "name", ["model.pt", "pytorch_model.bin", "x.CKPT", "x.pkl", "disguised.safetensors"]
)
def test_K7_a_pickle_is_never_opened_and_the_error_says_how_to_convert(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(GroundupError) as caught:
        read_safetensors(path)
    assert caught.value.code == "E-CKPT-009"
    assert "safetensors.torch.save_file" in caught.value.fix
    assert capsys.readouterr().out == ""


def test_K7_a_model_folder_that_holds_only_pickles(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(GroundupError, match=r"pytorch_model.bin is a pickle"):
        load_model(tmp_path)
    with pytest.raises(GroundupError) as caught:
        refuse_pickle(tmp_path / "pytorch_model.bin")
    assert "pytorch_model.safetensors" in caught.value.fix


def test_K7_a_pickle_beside_a_whole_model_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(folder, tensors={"w": torch.ones(2)}, files={})
    (folder / "optimizer.pt").write_bytes(b"\x80\x04")
    with pytest.raises(GroundupError) as caught:
        load_model(folder)
    assert "optimizer.pt: does not belong here" in caught.value.where


def test_K7_a_safetensors_file_whose_length_looks_like_a_pickle_is_not_refused(tmp_path: Path) -> None:
    header = json.dumps({"w": entry()}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_header(header.ljust(0x0280)))  # starts with the bytes 80 02
    assert read_safetensors(path)["w"].shape == (6,)
