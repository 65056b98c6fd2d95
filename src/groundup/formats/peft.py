"""Adapters in the layout of Hugging Face's PEFT: `adapter_config.json` and `adapter_model.safetensors`, and beside
them `groundup.json` with the digest of the base, so that an adapter is not put on another one.

Low-rank adapters (LoRA, rsLoRA, DoRA) are read and written, with base parameters that were trained in full
(`modules_to_save`). Tensors come and go by groundup's names: `layers.0.attention.q_proj.lora_a`. The model itself
may not enter here, nor how safetensors files are read and written: those functions are arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from groundup.errors import GroundupError, printable
from groundup.formats.keys import module_to_hugging_face, module_to_ours

CONFIG, WEIGHTS, OWN = "adapter_config.json", "adapter_model.safetensors", "groundup.json"
START = "base_model.model."
MAX_JSON = 1 << 20
"""Bytes of a description that are read; real ones have a few thousand."""
MAX_LISTED = 20

OUR_PARTS = {"lora_A.weight": "lora_a", "lora_B.weight": "lora_b", "lora_magnitude_vector": "lora_magnitude"}
OUR_PARTS |= {
    "lora_embedding_A": "lora_a",
    "lora_embedding_B": "lora_b",
    "lora_magnitude_vector.weight": "lora_magnitude",
}
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights that leave the base as it is; PiSSA and its like change it."""
NOT_READ = (
    "lora_bias", "layer_replication", "trainable_token_indices", "target_parameters", "use_qalora", "use_bdlora",
    "arrow_config", "alora_invocation_tokens", "megatron_config", "corda_config", "velora_config",
)  # fmt: skip
"""Fields that change what an adapter computes, in ways that are not built here."""


@dataclass(frozen=True)
class ForeignAdapter:
    """An adapter as its folder tells it.

    Attributes:
        options: fields of a low-rank adapter: rank, alpha, targets (full module names), rank_by, alpha_by,
            dropout, variant, train.
        tensors: `MODULE.lora_a`, `MODULE.lora_b`, `MODULE.lora_magnitude`, and parameters trained in full; float32.
        base_name: where the base comes from, as the folder says.
        details: what groundup.json says; empty for an adapter that another tool wrote.
    """

    options: dict[str, Any]
    tensors: dict[str, Tensor]
    base_name: str | None
    details: dict[str, Any] = field(default_factory=dict)


def peft_files(
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    *,
    family: str,
    shapes: Mapping[str, Sequence[int]],
    base_name: str,
    base_digest: str,
    task: str | None = "CAUSAL_LM",
    bare: bool = False,
    others: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    """What goes into the folder of an adapter: the tensors of WEIGHTS, and the other files by name.

    Args:
        tensors: as the adapters room gives them, without the name of the adapter.
        options: alpha, alpha_by, dropout and variant of the adapter; the rest is read off the tensors.
        shapes: of all tensors of the base by our names; a head that is tied to the embedding is left out.
        base_name: what `peft` loads the base from.
        base_digest: what tells the base's weights from others.
        task: PEFT's word for the head, such as CAUSAL_LM, SEQ_CLS or FEATURE_EXTRACTION.
        bare: the base in Hugging Face's form is a body without a head.
        others: Hugging Face's names of modules that the key map of the family lacks, such as a task head.
        details: more for groundup.json.
    """
    names = others or {}

    def theirs(module: str) -> str:
        return names.get(module) or module_to_hugging_face(family, module.removeprefix("body."), bare=bare)

    ranks = {name.removesuffix(".lora_a"): len(tensor) for name, tensor in tensors.items() if name.endswith(".lora_a")}
    parts = [name.rpartition(".") for name in tensors]
    full = dict.fromkeys(module for module, _, part in parts if part not in OUR_PARTS.values())
    copied = "embedding" in full and "head.weight" not in shapes and task == "CAUSAL_LM"
    result = _foreign_tensors(tensors, theirs, copy_head=copied)
    alphas = {module: _alpha(module, options) for module in ranks}
    modules = {theirs(module): module for module in ranks}
    rank, alpha = _commonest(list(ranks.values())), options["alpha"]
    config = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _number(alpha),
        "lora_dropout": options["dropout"],
        "target_modules": _target_modules(list(modules), _all_modules(shapes, theirs)),
        "rank_pattern": {key: ranks[ours] for key, ours in modules.items() if ranks[ours] != rank},
        "alpha_pattern": {key: _number(alphas[ours]) for key, ours in modules.items() if alphas[ours] != alpha},
        "modules_to_save": [*map(theirs, full), *(["lm_head"] if copied else [])] or None,
        "use_rslora": options["variant"] == "rslora",
        "use_dora": options["variant"] == "dora",
        "fan_in_fan_out": family == "gpt2",
        "bias": "none",
        "init_lora_weights": True,
    }
    own = {"format": 1, "family": family, "base_digest": base_digest, **(details or {})}
    return result, {name: json.dumps(value, indent=2).encode() for name, value in ((CONFIG, config), (OWN, own))}


def _foreign_tensors(
    tensors: Mapping[str, Tensor], theirs: Callable[[str], str], *, copy_head: bool
) -> dict[str, Tensor]:
    """The tensors by PEFT's names. It trains copies of whole modules: a tied head needs one of its own."""
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        if part not in OUR_PARTS.values():
            suffix = part
        elif part == "lora_magnitude":
            suffix = "lora_magnitude_vector"
        elif module.rpartition(".")[2].endswith("embedding"):
            suffix = f"lora_embedding_{part[-1].upper()}"
        else:
            suffix = f"lora_{part[-1].upper()}.weight"
        result[f"{START}{theirs(module)}.{suffix}"] = tensor
    if copy_head:
        result[f"{START}lm_head.weight"] = tensors["embedding.weight"].clone()
    return result


def write_adapter(
    folder: Path,
    tensors: Mapping[str, Tensor],
    files: Mapping[str, bytes],
    write_tensors: Callable[[Path, Mapping[str, Tensor], Mapping[str, str]], None],
) -> None:
    """Write what `peft_files` gave into a folder.

    Args:
        write_tensors: writes a safetensors file: path, tensors, metadata.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    for name, content in files.items():
        (folder / name).write_bytes(content)


def read_adapter(
    folder: Path,
    *,
    family: str,
    shapes: Mapping[str, Sequence[int]],
    read_tensors: Callable[[Path], dict[str, Tensor]],
    base_digest: str | None = None,
    others: Mapping[str, str] | None = None,
) -> ForeignAdapter:
    """Read an adapter folder that groundup or PEFT wrote, for this base.

    Args:
        family: of the base.
        shapes: of all tensors of the base by our names; a head that is tied to the embedding is left out.
        read_tensors: reads a safetensors file and refuses one that is damaged.
        base_digest: of the base; compared where the folder says one.
        others: our names of modules that the key map of the family lacks, by Hugging Face's.

    Raises:
        GroundupError: E-FORMAT-050, the description is missing or malformed; E-FORMAT-051, an adapter of a kind
            that is not read; E-FORMAT-052, it belongs to another base.
    """
    config, details = _read_json(folder / CONFIG), _read_json(folder / OWN, optional=True)
    _require_readable(config, folder)
    said = details.get("base_digest")
    if base_digest is not None and said is not None and said != base_digest:
        _another_base([f"made for the base {printable(str(said))}", f"this one is {base_digest}"], folder)
    body = "body." if any(name.startswith("body.") for name in shapes) else ""
    tensors, names, faults = _rename(read_tensors(folder / WEIGHTS), family, body, others or {})
    table, head = (tensors.get(f"{body}{name}.weight") for name in ("embedding", "head"))
    if head is not None and table is not None and f"{body}head.weight" not in shapes and torch.equal(table, head):
        del tensors[f"{body}head.weight"]  # the copy of a tied head
    faults += _misfits(tensors, shapes)
    if faults:
        _another_base(faults, folder)
    options = _options(config, tensors, names, folder)
    return ForeignAdapter(options, tensors, config["base_model_name_or_path"], details)


def _rename(
    found: Mapping[str, Tensor], family: str, body: str, others: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """The tensors by our names, the foreign name of each of our modules, and what is wrong with the names."""
    result: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    faults = []
    for key, tensor in found.items():
        if ".base_layer." in key:
            continue  # a copy of the base, which PEFT adds where an embedding is adapted
        plain = key.removeprefix(START)
        suffix = next((s for s in OUR_PARTS if plain.endswith(f".{s}")), plain.rpartition(".")[2])
        module = plain.removesuffix(f".{suffix}")
        try:
            ours = others.get(module) or body + module_to_ours(family, module)
        except KeyError:
            faults.append(f"{printable(key)}: a {family} has no such module")
            continue
        names[ours] = module
        result[f"{ours}.{OUR_PARTS.get(suffix, suffix)}"] = tensor.float()
    return result, names, faults


def _misfits(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Every tensor that does not fit the base, and every half of an adapter without the other."""
    faults = []
    modules = dict.fromkeys(name.rpartition(".")[0] for name in tensors if name.endswith((".lora_a", ".lora_b")))
    expected: dict[str, tuple[int, ...]] = {}
    for module in modules:
        weight = shapes.get(f"{module}.weight")
        if weight is None and module.endswith("head"):
            weight = shapes.get(f"{module.removesuffix('head')}embedding.weight")
        a, b = tensors.get(f"{module}.lora_a"), tensors.get(f"{module}.lora_b")
        if weight is None or len(weight) != 2 or a is None or b is None or a.dim() != 2 or a.shape[0] < 1:
            faults.append(f"{printable(module)}: A, B or the weight that they change is missing or no matrix")
            continue
        outputs, inputs = weight[::-1] if module.rpartition(".")[2].endswith("embedding") else weight
        expected[f"{module}.lora_a"], expected[f"{module}.lora_b"] = (a.shape[0], inputs), (outputs, a.shape[0])
        expected[f"{module}.lora_magnitude"] = (outputs,)
    for name, tensor in tensors.items():
        if name.rpartition(".")[0] in modules and name.rpartition(".")[2] in OUR_PARTS.values():
            shape = expected.get(name)
        else:
            found = shapes.get(name)
            shape = None if found is None else tuple(found)
            if shape is None:
                faults.append(f"{printable(name)}: the base has no such tensor")
        if shape is not None and tuple(tensor.shape) != shape:
            faults.append(f"{printable(name)}: {tuple(tensor.shape)}, the base needs {shape}")
    return faults


def _options(
    config: dict[str, Any], tensors: Mapping[str, Tensor], names: dict[str, str], folder: Path
) -> dict[str, Any]:
    """The fields of a low-rank adapter that does what the configuration says."""
    ranks = {
        name.removesuffix(".lora_a"): tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".lora_a")
    }
    alphas = dict.fromkeys(ranks, float(config["lora_alpha"]))
    for pattern, value in reversed(list(config["alpha_pattern"].items())):
        plain = pattern.removeprefix("^").replace("\\.", ".")
        if not re.fullmatch(r"[\w.]+", plain) or type(value) not in (int, float) or not 0 < value < 1e9:
            _malformed(folder, f'alpha_pattern "{printable(pattern)}" is no name of a module with a number')
        for module in ranks:
            if names[module] == plain or names[module].endswith(f".{plain}"):
                alphas[module] = float(value)
    rank, alpha = config["r"], float(config["lora_alpha"])
    magnitudes = {name.rpartition(".")[0] for name in tensors if name.endswith(".lora_magnitude")}
    if not ranks or magnitudes != (set(ranks) if config["use_dora"] else set()):
        _malformed(
            folder, f"{len(ranks)} adapted modules, {len(magnitudes)} with the magnitudes that use_dora asks for"
        )
    return {
        "rank": rank,
        "alpha": alpha,
        "targets": list(ranks),
        "rank_by": {module: value for module, value in ranks.items() if value != rank},
        "alpha_by": {module: value for module, value in alphas.items() if value != alpha},
        "dropout": float(config["lora_dropout"]),
        "variant": "dora" if config["use_dora"] else "rslora" if config["use_rslora"] else "lora",
        "train": [name for name in tensors if name.rpartition(".")[2] not in OUR_PARTS.values()],
    }


def _require_readable(config: dict[str, Any], folder: Path) -> None:
    """Fill in what PEFT fills in, check the types, and refuse what is not built here."""
    defaults = {
        "peft_type": "LORA", "r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "alpha_pattern": {}, "bias": "none",
        "use_rslora": False, "use_dora": False, "base_model_name_or_path": None, "init_lora_weights": True,
    }  # fmt: skip
    for key, value in defaults.items():
        config.setdefault(key, value)
    odd = [f"{key} = {printable(str(config[key]), 60)}" for key in NOT_READ if config.get(key)]
    if config["peft_type"] != "LORA":
        odd.append(f"peft_type = {printable(str(config['peft_type']), 60)}")
    if config["bias"] != "none":
        odd.append(f"bias = {printable(str(config['bias']), 60)}")
    if config["init_lora_weights"] not in PLAIN_STARTS:
        odd.append(f"init_lora_weights = {printable(str(config['init_lora_weights']), 60)}")
    if config["use_dora"] and config["use_rslora"]:
        odd.append("use_dora and use_rslora at once")
    if odd:
        raise GroundupError(
            "E-FORMAT-051",
            "the adapter is of a kind that is not read",
            where="\n".join([printable(str(folder / CONFIG)), *odd]),
            why="it would compute something else than it was trained to",
            fix="merge it into its base with peft (merge_and_unload) and import the merged model",
        )
    numbers = [config["r"], config["lora_alpha"], config["lora_dropout"]]
    fine = all(type(value) in (int, float) for value in numbers) and type(config["r"]) is int
    fine = fine and 0 < config["r"] < 1e6 and 0 < config["lora_alpha"] < 1e9 and 0 <= config["lora_dropout"] < 1
    fine = fine and all(type(config[key]) is bool for key in ("use_dora", "use_rslora"))
    fine = fine and type(config["alpha_pattern"]) is dict
    if not fine or not isinstance(config["base_model_name_or_path"], str | None):
        _malformed(folder, "r, lora_alpha, lora_dropout, alpha_pattern, use_dora or use_rslora has an impossible value")


def _read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if optional and not path.exists():
        return {}
    try:
        with path.open("rb") as file:
            text = file.read(MAX_JSON + 1)
        value = json.loads(text) if len(text) <= MAX_JSON else None
    except (OSError, ValueError, RecursionError) as error:
        _malformed(path.parent, f"{path.name} cannot be read: {printable(str(error))}")
    if not isinstance(value, dict):
        _malformed(path.parent, f"{path.name} is no JSON object of at most {MAX_JSON:,} bytes")
    return value


def _malformed(folder: Path, what: str) -> NoReturn:
    raise GroundupError(
        "E-FORMAT-050",
        what,
        where=printable(str(folder)),
        why=f"an adapter is a folder with {CONFIG} and {WEIGHTS}, as groundup and PEFT write them",
        fix="name such a folder, or fetch or save the adapter again",
    )


def _another_base(faults: list[str], folder: Path) -> NoReturn:
    more = [f"… and {len(faults) - MAX_LISTED} more"] if len(faults) > MAX_LISTED else []
    raise GroundupError(
        "E-FORMAT-052",
        "the adapter belongs to another base model",
        where="\n".join([printable(str(folder)), *faults[:MAX_LISTED], *more]),
        why="an adapter holds changes of the very weights that it was trained on",
        fix=f"use it with its own base; {CONFIG} names it in base_model_name_or_path",
    )


def _target_modules(chosen: list[str], known: list[str]) -> list[str]:
    """The last parts of the names where they name exactly the chosen modules, as PEFT users write them; else the
    full names."""
    last = dict.fromkeys(name.rpartition(".")[2] for name in chosen)
    named = {name for name in known if name.rpartition(".")[2] in last}
    return list(last) if named == set(chosen) else chosen


def _all_modules(shapes: Mapping[str, Sequence[int]], theirs: Callable[[str], str]) -> list[str]:
    """Hugging Face's names of all matrices of the base; what the key map lacks cannot be meant by a target."""
    found = []
    for name in (name for name, shape in shapes.items() if len(shape) == 2):
        with suppress(KeyError):
            found.append(theirs(name.rpartition(".")[0]))
    return found


def _alpha(module: str, options: Mapping[str, Any]) -> float:
    alphas: dict[str, float] = options["alpha_by"]
    return next((value for pattern, value in alphas.items() if fnmatchcase(module, pattern)), options["alpha"])


def _commonest(values: list[int]) -> int:
    return max(dict.fromkeys(values), key=values.count)


def _number(value: float) -> int | float:
    return int(value) if value == int(value) else value
