"""Guarantee K11: GGUF files that lie. Each is refused by a typed error, at once, and before anything is allocated for
what it claims."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import GroundupError
from groundup.formats.gguf import read_gguf
from groundup.formats.gguf_header import MAX_HEADER, MAX_TEXTS

U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, ARRAY, U64, I64, F64 = range(13)
FORMS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
HUGE = 2**60


def text(value: str | bytes, length: int | None = None) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data) if length is None else length) + data


def key(name: str, kind: int, value: Any) -> bytes:
    """One piece of metadata."""
    if kind == TEXT:
        body = text(value)
    elif kind == ARRAY:
        inner, values = value
        packed = [text(v) if inner == TEXT else struct.pack("<" + FORMS[inner], v) for v in values]
        body = struct.pack("<IQ", inner, len(values)) + b"".join(packed)
    else:
        body = struct.pack("<" + FORMS[kind], value)
    return text(name) + struct.pack("<I", kind) + body


def tensor(name: str, sizes: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    """One entry of the table; `sizes` in the order of the file, rows last."""
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def file(
    keys: list[bytes],
    tensors: list[bytes] | None = None,
    data: int = 4096,
    *,
    magic: bytes = b"GGUF",
    version: bytes = struct.pack("<I", 3),
    counts: tuple[int, int] | None = None,
) -> bytes:
    entries = tensors or []
    tensor_count, key_count = counts or (len(entries), len(keys))
    head = magic + version + struct.pack("<QQ", tensor_count, key_count) + b"".join(keys) + b"".join(entries)
    return head + bytes(-len(head) % 32) + bytes(data)


TOKENS = ["a", "b", "c", "<s>"]
FACTS: dict[str, tuple[int, Any]] = {
    "general.architecture": (TEXT, "llama"),
    "llama.context_length": (U32, 16),
    "llama.embedding_length": (U32, 8),
    "llama.block_count": (U32, 1),
    "llama.feed_forward_length": (U32, 12),
    "llama.attention.head_count": (U32, 2),
    "llama.attention.head_count_kv": (U32, 1),
    "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
    "tokenizer.ggml.model": (TEXT, "gpt2"),
    "tokenizer.ggml.pre": (TEXT, "gpt-2"),
    "tokenizer.ggml.tokens": (ARRAY, (TEXT, TOKENS)),
    "tokenizer.ggml.token_type": (ARRAY, (I32, [1, 1, 1, 3])),
    "tokenizer.ggml.merges": (ARRAY, (TEXT, [])),
    "tokenizer.ggml.eos_token_id": (U32, 3),
}
SHAPES = {
    "token_embd.weight": (8, 4),
    "output_norm.weight": (8,),
    "blk.0.attn_norm.weight": (8,),
    "blk.0.attn_q.weight": (8, 8),
    "blk.0.attn_k.weight": (8, 4),
    "blk.0.attn_v.weight": (8, 4),
    "blk.0.attn_output.weight": (8, 8),
    "blk.0.ffn_norm.weight": (8,),
    "blk.0.ffn_gate.weight": (8, 12),
    "blk.0.ffn_up.weight": (8, 12),
    "blk.0.ffn_down.weight": (12, 8),
}


def model(
    facts: dict[str, tuple[int, Any] | None] | None = None,
    shapes: dict[str, tuple[int, ...] | None] | None = None,
    first_offset: int = 0,
) -> bytes:
    """A whole little model, with some of its claims changed; None takes one away."""
    keys = [key(name, *fact) for name, fact in {**FACTS, **(facts or {})}.items() if fact is not None]
    entries, offset = [], first_offset
    for name, sizes in {**SHAPES, **(shapes or {})}.items():
        if sizes is not None:
            entries.append(tensor(name, sizes, 0, offset))
            length = 4
            for size in sizes:
                length *= size
            offset += -(-length // 32) * 32
    return file(keys, entries, min(offset, 2**16))


FIRST = key("general.architecture", TEXT, "llama")
ALIGNED = [tensor("token_embd.weight", (8, 4))]

HOSTILE: dict[str, tuple[bytes, str]] = {
    # the first bytes
    "empty": (b"", "030"),
    "cut_after_magic": (b"GGUF", "030"),
    "wrong_magic": (file([FIRST], magic=b"PK\x03\x04"), "031"),
    "old_ggml": (file([FIRST], magic=b"tjgg"), "031"),
    "version_1": (file([FIRST], version=struct.pack("<I", 1)), "031"),
    "version_4_billion": (file([FIRST], version=b"\xff\xff\xff\xff"), "031"),
    "big_endian": (file([FIRST], version=struct.pack(">I", 3)), "031"),
    "big_endian_magic": (file([FIRST], magic=b"FUGG"), "031"),
    # counts
    "keys_2_63": (file([FIRST], counts=(0, 2**63)), "030"),
    "keys_more_than_room": (file([FIRST], counts=(0, 1000)), "030"),
    "tensors_2_64": (file([FIRST], counts=(2**64 - 1, 1)), "030"),
    "tensors_more_than_there_are": (file([FIRST], counts=(100, 1)), "030"),
    # metadata
    "key_longer_than_file": (file([text("general", HUGE)], counts=(0, 1)), "030"),
    "text_longer_than_file": (file([text("a") + struct.pack("<I", TEXT) + text("x", HUGE)]), "030"),
    "text_one_byte_too_long": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", TEXT) + text("x" * 20, 21),
        "030",
    ),
    "text_not_utf8": (file([text("a") + struct.pack("<I", TEXT) + text(b"\xff\xfe")]), "030"),
    "key_not_utf8": (file([text(b"\xc0\x80") + struct.pack("<IB", U8, 1)]), "030"),
    "unknown_value_type": (file([text("a") + struct.pack("<II", 99, 1)]), "030"),
    "array_of_arrays": (file([text("a") + struct.pack("<IIQ", ARRAY, ARRAY, HUGE)]), "030"),
    "array_nested_deep": (file([text("a") + struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * 1000]), "030"),
    "array_of_unknown": (file([text("a") + struct.pack("<IIQ", ARRAY, 77, 1)]), "030"),
    "array_of_2_60_numbers": (file([text("a") + struct.pack("<IIQ", ARRAY, F64, HUGE)]), "030"),
    "array_of_2_60_texts": (file([text("a") + struct.pack("<IIQ", ARRAY, TEXT, HUGE)]), "030"),
    "text_in_array_past_the_end": (
        file([text("a") + struct.pack("<IIQ", ARRAY, TEXT, 2) + text("x") + text("y", HUGE)]),
        "030",
    ),
    "text_in_array_not_utf8": (file([text("a") + struct.pack("<IIQ", ARRAY, TEXT, 1) + text(b"\xff")]), "030"),
    "empty_texts_without_end": (
        file([text("a") + struct.pack("<IIQ", ARRAY, TEXT, MAX_TEXTS + 1)], data=8 * MAX_TEXTS + 64),
        "030",
    ),
    "metadata_without_end": (
        file([text("a") + struct.pack("<IIQ", ARRAY, U8, MAX_HEADER)], data=MAX_HEADER + 64),
        "030",
    ),
    "key_twice": (file([FIRST, FIRST]), "030"),
    # tensors
    "tensor_twice": (file([FIRST], ALIGNED * 2), "030"),
    "no_dimensions": (file([FIRST], [text("t") + struct.pack("<IIQ", 0, 0, 0)]), "030"),
    "a_billion_dimensions": (file([FIRST], [text("t") + struct.pack("<IIQ", 10**9, 0, 0)]), "030"),
    "shape_2_60": (file([FIRST], [tensor("t", (HUGE,))]), "030"),
    "shape_product_wraps": (file([FIRST], [tensor("t", (2**32, 2**32))]), "030"),
    "shape_zero": (file([FIRST], [tensor("t", (0, 2**40))]), "030"),
    "rows_not_whole_blocks": (file([FIRST], [tensor("t", (33, 2), 8)]), "030"),
    "unknown_tensor_type": (file([FIRST], [tensor("t", (32,), 4711)]), "034"),
    "tensor_type_not_read": (file([FIRST], [tensor("t", (256,), 10)]), "034"),
    "offset_past_the_end": (file([FIRST], [tensor("t", (8,), 0, 2**20)]), "030"),
    "offset_wraps": (file([FIRST], [tensor("t", (8,), 0, 2**64 - 32)]), "030"),
    "offset_not_aligned": (file([FIRST], [tensor("t", (8,), 0, 4)]), "030"),
    "one_byte_short": (file([FIRST], [tensor("t", (8, 4))], data=127), "030"),
    "overlapping": (file([FIRST], [tensor("t", (8, 4)), tensor("u", (8, 4), 0, 96)]), "030"),
    "alignment_zero": (file([FIRST, key("general.alignment", U32, 0)], ALIGNED), "030"),
    "alignment_not_a_power": (file([FIRST, key("general.alignment", U32, 24)], ALIGNED), "030"),
    "alignment_2_63": (file([FIRST, key("general.alignment", U64, 2**63)], ALIGNED), "030"),
    "alignment_a_text": (file([FIRST, key("general.alignment", TEXT, "32")], ALIGNED), "030"),
    # what the metadata means
    "no_architecture": (file([key("a", U8, 1)], ALIGNED), "033"),
    "unknown_architecture": (model({"general.architecture": (TEXT, "mamba\x1b[2J")}), "032"),
    "architecture_a_number": (model({"general.architecture": (U32, 7)}), "033"),
    "no_tensors": (file([key(name, *fact) for name, fact in FACTS.items()]), "033"),
    "no_heads": (model({"llama.attention.head_count": (U32, 0)}), "033"),
    "heads_by_layer": (model({"llama.attention.head_count": (ARRAY, (U32, [2, 2]))}), "033"),
    "heads_of_nothing": (model({"llama.attention.head_count": (U32, 2**31 - 1)}), "033"),
    "a_billion_layers": (model({"llama.block_count": (U32, 10**9)}), "033"),
    "context_2_62": (model({"llama.context_length": (U64, 2**62)}), "033"),
    "context_2_20_and_one": (model({"llama.context_length": (U32, 2**20 + 1)}), "033"),
    "width_negative": (model({"llama.embedding_length": (I32, -8)}), "033"),
    "epsilon_nan": (model({"llama.attention.layer_norm_rms_epsilon": (F32, float("nan"))}), "033"),
    "epsilon_missing": (model({"llama.attention.layer_norm_rms_epsilon": None}), "033"),
    "rope_base_infinite": (model({"llama.rope.freq_base": (F32, float("inf"))}), "033"),
    "rope_scaling_unknown": (model({"llama.rope.scaling.type": (TEXT, "yarn")}), "033"),
    "rope_half_of_a_head": (model({"llama.rope.dimension_count": (U32, 2)}), "033"),
    "rope_factors_of_another": (model(shapes={"rope_freqs.weight": (2,)}), "033"),
    "experts_in_llama": (model({"llama.expert_count": (U32, 8)}), "033"),
    "tensor_missing": (model(shapes={"blk.0.ffn_up.weight": None}), "001"),
    "tensor_unexpected": (model(shapes={"blk.7.ffn_up.weight": (8, 12)}), "001"),
    "tensor_misshapen": (model(shapes={"blk.0.ffn_up.weight": (12, 8)}), "001"),
    # the tokenizer
    "pre_tokenizer_unknown": (model({"tokenizer.ggml.pre": (TEXT, "of-tomorrow")}), "035"),
    "pre_tokenizer_missing": (model({"tokenizer.ggml.pre": None}), "035"),
    "tokenizer_kind_unknown": (model({"tokenizer.ggml.model": (TEXT, "rwkv")}), "035"),
    "tokens_numbers": (model({"tokenizer.ggml.tokens": (ARRAY, (U32, [1, 2]))}), "035"),
    "tokens_more_than_rows": (model({"tokenizer.ggml.tokens": (ARRAY, (TEXT, list("abcde")))}), "035"),
    "token_twice": (model({"tokenizer.ggml.tokens": (ARRAY, (TEXT, ["a", "b", "a", "c"]))}), "035"),
    "types_too_few": (model({"tokenizer.ggml.token_type": (ARRAY, (I32, [1]))}), "035"),
    "merge_of_no_tokens": (model({"tokenizer.ggml.merges": (ARRAY, (TEXT, ["a z"]))}), "035"),
    "merge_of_one_part": (model({"tokenizer.ggml.merges": (ARRAY, (TEXT, [""]))}), "035"),
    "end_outside": (model({"tokenizer.ggml.eos_token_id": (U32, 4)}), "035"),
    "end_missing": (model({"tokenizer.ggml.eos_token_id": None}), "035"),
    "template_a_number": (model({"tokenizer.chat_template": (U32, 1)}), "035"),
    "scores_missing": (model({"tokenizer.ggml.model": (TEXT, "llama")}), "035"),
    "scores_nan": (
        model({"tokenizer.ggml.model": (TEXT, "llama"), "tokenizer.ggml.scores": (ARRAY, (F32, [float("nan")] * 4))}),
        "035",
    ),
    "whole_tokenizer_of_another": (model({"tokenizer.huggingface.json": (TEXT, '{"model":{"vocab":{"z":0}}}')}), "035"),
    "whole_tokenizer_nested": (model({"tokenizer.huggingface.json": (TEXT, "[" * 100_000)}), "035"),
}


def test_the_little_model_itself_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(model())
    found = read_gguf(tmp_path / "m.gguf")
    assert found.options["layers"] == 1 and found.options["tied"] and len(found.tensors) == 11
    assert found.tokenizer is not None and found.tokenizer.ends == ("<s>",)


@pytest.mark.parametrize("name", HOSTILE)
def test_K11_a_hostile_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    content, code = HOSTILE[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(GroundupError) as caught:
            read_gguf(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    error = caught.value
    assert error.code == f"E-FORMAT-{code}", str(error)
    assert error.what and error.where and error.why and error.fix
    assert str(error).isprintable() or "\x1b" not in str(error)
    assert time.process_time() - started < 2.0
    assert peak < 2 * 2**20, f"{peak:,} bytes"


def test_K11_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = model()
    path = tmp_path / "m.gguf"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(GroundupError) as caught:
            read_gguf(path)
        assert caught.value.code in ("E-FORMAT-030", "E-FORMAT-031")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(changes=st.lists(st.tuples(st.integers(0, len(model()) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_K11_changed_bytes_give_a_model_or_a_typed_error(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(model())
    for place, byte in changes:
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(content)
    try:
        found = read_gguf(path)
    except GroundupError as error:
        assert error.code.startswith("E-FORMAT-")
    else:
        assert all(tensor.numel() for tensor in found.tensors.values())


def test_K11_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.gguf", Path("/dev/zero")):
        with pytest.raises(GroundupError) as caught:
            read_gguf(path)
        assert caught.value.code == "E-FORMAT-030"


def test_K11_tokens_that_split_in_endless_ways_are_refused(tmp_path: Path) -> None:
    tokens = ["a" * length + end for length in range(1, 257) for end in ("", "b")]
    facts: dict[str, tuple[int, Any] | None] = {
        "tokenizer.ggml.model": (TEXT, "llama"),
        "tokenizer.ggml.tokens": (ARRAY, (TEXT, tokens)),
        "tokenizer.ggml.scores": (ARRAY, (F32, [0.0] * len(tokens))),
        "tokenizer.ggml.token_type": (ARRAY, (I32, [1] * len(tokens))),
    }
    path = tmp_path / "m.gguf"
    path.write_bytes(model(facts, {"token_embd.weight": (8, len(tokens))}))
    started = time.process_time()
    with pytest.raises(GroundupError, match="ways to make") as caught:
        read_gguf(path)
    assert caught.value.code == "E-FORMAT-035"
    assert time.process_time() - started < 2.0
