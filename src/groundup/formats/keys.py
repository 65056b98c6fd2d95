"""One key map per family: groundup's tensor names and the names and layouts that Hugging Face uses.

The rules are tables. A rule names a module on both sides, without `.weight` or `.bias`; N stands for the number of a
layer, X for the number of an expert. Where the layouts differ too, the rule says how: GPT-2 stores its matrices as
(inputs, outputs), and Hugging Face stores each expert of a mixture by itself where ours are stacked.

Reading is strict: every missing, unexpected and misshapen name is reported at once, in the words of the file.
Nothing that opens a file may enter here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from groundup.errors import GroundupError, nearest, printable
from groundup.formats.shapes import Shape, expected_shapes

MAX_LISTED = 20
"""Names listed of each kind of difference; the counts are always complete."""


class Rule(NamedTuple):
    """One module on both sides. Hugging Face's name stands without the prefix of the family."""

    ours: str
    theirs: str
    transposed: bool = False


class KeyMap(NamedTuple):
    """The rules of one family.

    Attributes:
        prefix: what stands before the names of the body where a head stands beside it.
        rules: modules of the body, and the output matrix.
        harmless: patterns of buffers that old versions stored and that are computed anew.
    """

    prefix: str
    rules: tuple[Rule, ...]
    harmless: tuple[str, ...]


HEAD = Rule("head", "lm_head")

_ATTENTION = tuple(
    Rule(f"layers.N.attention.{name}", f"layers.N.self_attn.{name}")
    for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")
)
_DECODER = (
    Rule("embedding", "embed_tokens"),
    Rule("layers.N.input_norm", "layers.N.input_layernorm"),
    *_ATTENTION,
    Rule("layers.N.post_norm", "layers.N.post_attention_layernorm"),
    Rule("norm", "norm"),
    HEAD,
)
_MATRICES = ("gate_proj", "up_proj", "down_proj")

KEY_MAPS: dict[str, KeyMap] = {
    "llama": KeyMap(
        prefix="model.",
        rules=(*_DECODER, *(Rule(f"layers.N.feed_forward.{name}", f"layers.N.mlp.{name}") for name in _MATRICES)),
        harmless=(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),
    ),
    "moe": KeyMap(
        prefix="model.",
        rules=(
            *_DECODER,
            Rule("layers.N.feed_forward.router", "layers.N.mlp.gate"),
            *(Rule(f"layers.N.feed_forward.experts.{name}", f"layers.N.mlp.experts.X.{name}") for name in _MATRICES),
        ),
        harmless=(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),
    ),
    "gpt2": KeyMap(
        prefix="transformer.",
        rules=(
            Rule("embedding", "wte"),
            Rule("position_embedding", "wpe"),
            Rule("layers.N.attention_norm", "h.N.ln_1"),
            Rule("layers.N.attention.qkv_proj", "h.N.attn.c_attn", transposed=True),
            Rule("layers.N.attention.o_proj", "h.N.attn.c_proj", transposed=True),
            Rule("layers.N.feed_forward_norm", "h.N.ln_2"),
            Rule("layers.N.feed_forward.up_proj", "h.N.mlp.c_fc", transposed=True),
            Rule("layers.N.feed_forward.down_proj", "h.N.mlp.c_proj", transposed=True),
            Rule("norm", "ln_f"),
            HEAD,
        ),
        harmless=(r"h\.\d+\.attn\.(bias|masked_bias)",),
    ),
    "bert": KeyMap(
        prefix="bert.",
        rules=(
            Rule("embedding", "embeddings.word_embeddings"),
            Rule("position_embedding", "embeddings.position_embeddings"),
            Rule("segment_embedding", "embeddings.token_type_embeddings"),
            Rule("embedding_norm", "embeddings.LayerNorm"),
            Rule("layers.N.attention.q_proj", "encoder.layer.N.attention.self.query"),
            Rule("layers.N.attention.k_proj", "encoder.layer.N.attention.self.key"),
            Rule("layers.N.attention.v_proj", "encoder.layer.N.attention.self.value"),
            Rule("layers.N.attention.o_proj", "encoder.layer.N.attention.output.dense"),
            Rule("layers.N.attention_norm", "encoder.layer.N.attention.output.LayerNorm"),
            Rule("layers.N.feed_forward.up_proj", "encoder.layer.N.intermediate.dense"),
            Rule("layers.N.feed_forward.down_proj", "encoder.layer.N.output.dense"),
            Rule("layers.N.feed_forward_norm", "encoder.layer.N.output.LayerNorm"),
        ),
        harmless=(r"embeddings\.(position_ids|token_type_ids)",),
    ),
}

_OURS = {family: {rule.ours: rule for rule in keys.rules} for family, keys in KEY_MAPS.items()}
_THEIRS = {family: {rule.theirs: rule for rule in keys.rules} for family, keys in KEY_MAPS.items()}


class Renamed(NamedTuple):
    """Tensors in groundup's names and layouts, float32; `notes` are sentences about what was odd."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def module_to_hugging_face(family: str, module: str, *, bare: bool = False) -> str:
    """Hugging Face's name of one of our modules: `layers.0.attention.q_proj` -> `model.layers.0.self_attn.q_proj`.

    Args:
        bare: the body stands alone (LlamaModel, BertModel …), so that its names have no prefix.
    Raises:
        KeyError: the family has no such module under a single name (the stacked experts have none).
    """
    pattern, numbers = _pattern(module)
    theirs = _OURS[family][pattern].theirs
    if "X" in theirs.split("."):
        raise KeyError(f"{module} is one tensor per expert in Hugging Face's layout")
    return _prefix(family, theirs, bare) + _numbered(theirs, numbers)


def module_to_ours(family: str, module: str) -> str:
    """Our name of one of Hugging Face's modules, with or without the prefix of the family.

    Raises:
        KeyError: the family has no such module.
    """
    pattern, numbers = _pattern(module.removeprefix(KEY_MAPS[family].prefix))
    return _numbered(_THEIRS[family][pattern].ours, numbers)


def to_ours(family: str, tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Renamed:
    """Rename and rearrange the tensors of a file. They are float32 and contiguous afterwards.

    A head that is tied by `options` but stored anyway is left out if it equals the embedding; if it does not, it is
    kept and a note says so: the caller then builds an untied model.

    Args:
        tensors: by Hugging Face's names, with or without the prefix of the family.
        options: all fields of the family's options.
        where: the file or folder, for the error.
    Raises:
        GroundupError: E-FORMAT-001, all missing, unexpected and misshapen names and unfit data types together.
    """
    found, notes, faults = _normalise(family, tensors)
    head = f"{HEAD.theirs}.weight"
    if options.get("tied") and head in found:
        table = found.get(f"{_OURS[family]['embedding'].theirs}.weight")
        if table is not None and torch.equal(table, found[head]):
            del found[head]
        else:
            options = {**options, "tied": False}
            notes.append("the head is tied by the configuration, but another matrix is stored: read as untied")
    shapes = expected_shapes(family, options)
    foreign = {ours: _foreign(family, ours, shape) for ours, shape in shapes.items()}
    expected = {name: shape for parts in foreign.values() for name, shape in parts}
    require_keys(expected, {name: tuple(tensor.shape) for name, tensor in found.items()}, where, faults)
    result = {}
    for ours, parts in foreign.items():
        values = [found.pop(name).float() for name, _ in parts]
        pattern, _ = _pattern(ours.rpartition(".")[0])
        rule = _OURS[family][pattern]
        if "X" in rule.theirs.split("."):
            result[ours] = torch.stack(values)
        elif rule.transposed and values[0].dim() == 2:
            result[ours] = values[0].T.contiguous()
        else:
            result[ours] = values[0].contiguous()
    return Renamed(result, tuple(notes))


def to_hugging_face(family: str, tensors: Mapping[str, Tensor], *, bare: bool = False) -> dict[str, Tensor]:
    """The inverse of `to_ours`, data types kept; views of `tensors` where no copy is needed.

    Raises:
        KeyError: a name that no module of the family has.
    """
    result = {}
    for ours, tensor in tensors.items():
        module, _, parameter = ours.rpartition(".")
        pattern, numbers = _pattern(module)
        rule = _OURS[family][pattern]
        start = _prefix(family, rule.theirs, bare)
        if "X" in rule.theirs.split("."):
            for expert in range(tensor.shape[0]):
                result[f"{start}{_numbered(rule.theirs, [*numbers, expert])}.{parameter}"] = tensor[expert]
        else:
            turned = tensor.T if rule.transposed and tensor.dim() == 2 else tensor
            result[f"{start}{_numbered(rule.theirs, numbers)}.{parameter}"] = turned
    return result


def require_keys(
    expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]], where: str, faults: Iterable[str] = ()
) -> None:
    """Compare names and shapes of tensors, and list every difference at once.

    Args:
        expected: the shape of each tensor that the model has.
        found: the shape of each tensor that the file has.
        where: the file or folder.
        faults: what else is wrong with the tensors, one line each.
    Raises:
        GroundupError: E-FORMAT-001.
    """
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    misshapen = sorted(name for name in expected.keys() & found.keys() if [*expected[name]] != [*found[name]])
    others = list(faults)
    if not missing and not unexpected and not misshapen and not others:
        return

    def missing_line(name: str) -> str:
        close = nearest(name, unexpected) if len(unexpected) <= MAX_LISTED else None
        return name + (f"   (nearest unexpected: {printable(close)})" if close else "")

    lines = _listed("missing", [missing_line(name) for name in missing[:MAX_LISTED]], len(missing))
    lines += _listed("unexpected", [printable(name) for name in unexpected[:MAX_LISTED]], len(unexpected))
    shown = [f"{name}   expected {[*expected[name]]}, found {[*found[name]]}" for name in misshapen[:MAX_LISTED]]
    lines += _listed("misshapen", shown, len(misshapen))
    lines += _listed("not usable", others[:MAX_LISTED], len(others))
    raise GroundupError(
        "E-FORMAT-001",
        f"the weights do not fit the model that the file describes: {len(missing)} missing, "
        f"{len(unexpected)} unexpected, {len(misshapen)} with another shape, {len(others)} not usable",
        where="\n".join([printable(where), *lines]),
        why="a model that is only partly loaded runs, and answers nonsense",
        fix="fetch the files again, all from the same version of the model;\n"
        "weights of an adapter go to `adapters:` of a recipe, not to `groundup import`",
    )


def _listed(title: str, lines: list[str], count: int) -> list[str]:
    if not count:
        return []
    rest = [f"    … and {count - len(lines)} more"] if count > len(lines) else []
    return [f"{title} ({count}):", *(f"    {line}" for line in lines), *rest]


def _normalise(family: str, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The tensors under today's names without prefix; notes on what was left out; faults."""
    keys = KEY_MAPS[family]
    harmless = re.compile("|".join(keys.harmless))
    found: dict[str, Tensor] = {}
    left_out: list[str] = []
    faults: list[str] = []
    for name, tensor in tensors.items():
        plain = name.removeprefix(keys.prefix)
        if harmless.fullmatch(plain):
            left_out.append(name)
            continue
        # the names of the first BERT release
        plain = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", plain)
        plain = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", plain)
        if plain in found:
            faults.append(f"{printable(name)}   is there twice, with and without its prefix or under an old name")
        elif tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            kind = str(tensor.dtype).removeprefix("torch.")
            faults.append(f"{printable(name)}   has the data type {kind}: quantized weights are read from GGUF only")
        found[plain] = tensor
    notes = []
    if left_out:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        notes.append(f"buffers that are computed anew were left out: {printable(left_out[0])}{more}")
    return found, notes, faults


def _foreign(family: str, ours: str, shape: Shape) -> list[tuple[str, Shape]]:
    """The names (without prefix) and shapes of the tensors in a file that make up one of ours."""
    module, _, parameter = ours.rpartition(".")
    pattern, numbers = _pattern(module)
    rule = _OURS[family][pattern]
    if "X" in rule.theirs.split("."):
        return [(f"{_numbered(rule.theirs, [*numbers, expert])}.{parameter}", shape[1:]) for expert in range(shape[0])]
    turned = shape[::-1] if rule.transposed else shape
    return [(f"{_numbered(rule.theirs, numbers)}.{parameter}", turned)]


def _pattern(module: str) -> tuple[str, list[int]]:
    """`layers.3.norm` -> `layers.N.norm` and [3]. A number with a leading zero is not one."""
    parts = module.split(".")
    numbers: list[int] = []
    for index, part in enumerate(parts):
        if part.isascii() and part.isdigit() and len(part) < 7 and str(int(part)) == part:
            parts[index] = "NX"[len(numbers)] if len(numbers) < 2 else part
            numbers.append(int(part))
    return ".".join(parts), numbers


def _numbered(pattern: str, numbers: Sequence[int]) -> str:
    parts = pattern.split(".")
    rest = iter(numbers)
    return ".".join(str(next(rest)) if part in ("N", "X") else part for part in parts)


def _prefix(family: str, theirs: str, bare: bool) -> str:
    return "" if bare or theirs == HEAD.theirs else KEY_MAPS[family].prefix
