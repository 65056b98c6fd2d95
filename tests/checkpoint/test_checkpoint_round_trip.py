"""What is saved comes back exactly: every dtype and layout, every number of the state, tied tensors tied."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.checkpoint import (
    CheckpointOptions,
    load,
    pack_state,
    read_safetensors,
    save,
    strict_key_report,
    unpack_state,
)
from groundup.checkpoint.exact import decode_state, encode_state
from groundup.checkpoint.tensors import DTYPE_NAMES, safetensors_chunks
from groundup.errors import GroundupError

DTYPES = sorted(DTYPE_NAMES, key=str)


def from_bytes(raw: bytes, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor with exactly these bits, NaN payloads and denormals included."""
    if not raw:
        return torch.empty(shape, dtype=dtype)
    if dtype == torch.bool:
        raw = bytes(byte & 1 for byte in raw)
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(dtype).reshape(shape)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
    tensor = from_bytes(draw(st.binary(min_size=size, max_size=size)), shape, dtype)
    return tensor.transpose(0, -1) if len(shape) > 1 and draw(st.booleans()) else tensor


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    state=st.dictionaries(st.text(max_size=8).filter(lambda n: n != "__metadata__"), tensors(), max_size=5)
)
def test_any_tensors_come_back_bit_for_bit(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    state = {name.encode("utf-8", "replace").decode(): tensor for name, tensor in state.items()}
    path = tmp_path / "x.safetensors"
    stored, aliases = pack_state(state)
    path.write_bytes(b"".join(safetensors_chunks(stored, {"aliases": json.dumps(aliases)})))
    loaded = read_safetensors(path)
    assert set(loaded) == set(state)
    for name, tensor in state.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert bits(loaded[name]) == bits(tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_dtype_as_scalar_empty_and_strided(tmp_path: Path, dtype: torch.dtype) -> None:
    base = from_bytes(bytes(range(64)) * 2, (128 // torch.empty(0, dtype=dtype).element_size(),), dtype)
    parts = {"scalar": base[3], "empty": base[:0], "no_columns": torch.empty(3, 0, dtype=dtype)}
    parts |= {"skipping": base[::2], "repeated": base[:1].expand(5), "square": base[:16].reshape(4, 4).T}
    folder = save(tmp_path, step=0, tensors={"all": parts}, state={}, files={})
    loaded = load(folder).tensors["all"]
    for name, tensor in parts.items():
        assert (loaded[name].dtype, loaded[name].shape) == (dtype, tensor.shape)
        assert bits(loaded[name]) == bits(tensor)


def test_the_random_state_of_torch_continues(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(7)
    torch.rand(5, generator=generator)
    folder = save(tmp_path, step=1, tensors={"rng": {"torch": generator.get_state()}}, state={}, files={})
    expected = torch.rand(5, generator=generator)
    other = torch.Generator()
    other.set_state(load(folder).tensors["rng"]["torch"])
    assert torch.equal(torch.rand(5, generator=other), expected)


def test_changing_a_loaded_tensor_leaves_the_checkpoint_alone(tmp_path: Path) -> None:
    folder = save(tmp_path, step=1, tensors={"model": {"w": torch.zeros(5000)}}, state={}, files={})
    load(folder).tensors["model"]["w"].fill_(1.0)
    assert load(folder).tensors["model"]["w"].sum() == 0


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    content = {
        "tensors": {"model": {"b": torch.ones(3), "a": torch.zeros(2)}},
        "state": {"n": 1},
        "files": {"recipe.yaml": b"a: 1\n"},
    }
    first = save(tmp_path / "one", step=5, **content)
    second = save(tmp_path / "two", step=5, **content)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


numbers = st.integers(-(2**70), 2**70) | st.floats() | st.booleans() | st.none() | st.text(max_size=6)
keys = st.text(max_size=6) | st.integers(-(2**65), 2**65) | st.sampled_from(["$float", "$dict", "$tuple"])
values = st.recursive(
    numbers,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(state=st.dictionaries(st.text(max_size=6), values, max_size=4))
def test_any_state_comes_back_exactly(state: dict[str, object]) -> None:
    # repr tells 1 from 1.0 and True, 0.0 from -0.0, tuples from lists, shows nan, and the order of keys.
    assert repr(decode_state(encode_state(state))) == repr(state)


@pytest.mark.parametrize(
    "value", [b"bytes", {1, 2}, torch.zeros(1), object()], ids=lambda v: type(v).__name__
)
def test_a_value_that_would_come_back_as_something_else_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(GroundupError) as caught:
        save(tmp_path / "c", step=1, tensors={}, state={"loader": [0, {"cursor": value}]}, files={})
    assert caught.value.code == "E-CKPT-003"
    assert caught.value.where == "state.loader[1].cursor"
    assert not (tmp_path / "c").exists()


def test_sparse_and_meta_tensors_are_refused() -> None:
    for tensor in (torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta")):
        with pytest.raises(GroundupError) as caught:
            pack_state({"w": tensor})
        assert caught.value.code == "E-CKPT-004"


def test_R18_tied_weights_are_saved_once_and_restored_tied(tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(300, 16), "head": torch.nn.Linear(16, 300)})
    model["head"].weight = model["embed"].weight
    model["head"].bias.requires_grad_(False)
    folder = save(tmp_path, step=3, tensors={"model": model.state_dict()}, state={}, files={})
    assert (folder / "model.safetensors").stat().st_size < 300 * 16 * 4 + 300 * 4 + 1000
    loaded = load(folder).tensors["model"]
    assert loaded["head.weight"] is loaded["embed.weight"]
    assert torch.equal(loaded["head.weight"], model["embed"].weight)
    assert torch.equal(loaded["head.bias"], model["head"].bias)  # frozen, and saved all the same
    model.load_state_dict(loaded)


def test_R18_only_the_same_view_of_the_same_memory_is_tied() -> None:
    base = torch.arange(12.0)
    state = {
        "all": base,
        "again": base[:],
        "first": base[:6],
        "columns": base.view(3, 4),
        "copy": base.clone(),
    }
    tensors, aliases = pack_state(state)
    assert aliases == {"again": "all"}
    restored = unpack_state(tensors, aliases)
    assert set(restored) == set(state)
    assert all(torch.equal(restored[name], state[name]) for name in state)


def test_R18_a_strict_key_report_lists_all_differences_at_once() -> None:
    expected = {"embed.weight": (4, 2), "head.weight": (4, 2), "norm.weight": (2,)}
    strict_key_report(expected, {name: list(shape) for name, shape in expected.items()})
    found = {"embed.weight": (5, 2), "norm.weigth": (2,), "head.weight": (4, 2), "extra\x1b[31m": (1,)}
    with pytest.raises(GroundupError) as caught:
        strict_key_report(expected, found)
    error = caught.value
    assert error.code == "E-CKPT-010"
    assert "1 missing, 2 unexpected, 1 with another shape" in error.what
    for piece in (
        "norm.weight   (nearest unexpected: norm.weigth)",
        "expected [4, 2], found [5, 2]",
        "extra",
    ):
        assert piece in error.where
    assert "\x1b" not in str(error)


def test_R18_a_long_key_report_stays_readable() -> None:
    with pytest.raises(GroundupError) as caught:
        strict_key_report({f"a.{i}": (1,) for i in range(500)}, {})
    assert "missing (500):" in caught.value.where
    assert "… and 480 more" in caught.value.where


def test_only_the_parts_asked_for_are_loaded(tmp_path: Path) -> None:
    groups = {"model": {"w": torch.ones(2)}, "optimizer": {"m": torch.ones(2)}}
    folder = save(tmp_path, step=1, tensors=groups, state={"a": 1}, files={"chat.json": b"{}"})
    loaded = load(folder, names=("model",))
    assert set(loaded.tensors) == {"model"}
    assert (loaded.step, loaded.state, loaded.files) == (1, {"a": 1}, {"chat.json": b"{}"})
    with pytest.raises(GroundupError, match="no part named critic; there are model, optimizer"):
        load(folder, names=("critic",))
    with pytest.raises(GroundupError) as caught:
        load(tmp_path / "step-000009")
    assert caught.value.code == "E-CKPT-011"


@pytest.mark.parametrize(
    "name", ["../x", "a/b", ".hidden", "state.json", "manifest.json", "m.safetensors", ""]
)
def test_a_file_name_cannot_leave_the_folder_or_take_anothers_place(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain name"):
        save(tmp_path, step=1, tensors={}, state={}, files={name: b""})


def test_options_never_allow_fewer_than_two() -> None:
    assert CheckpointOptions().keep == 2
    with pytest.raises(ValueError, match="keep"):
        CheckpointOptions(keep=1)
