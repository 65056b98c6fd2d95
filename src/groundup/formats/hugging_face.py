"""Folders in the layout of Hugging Face's transformers and sentence-transformers, read without either.

A folder is config.json, model*.safetensors with or without an index, tokenizer.json and the small files beside it.
Everything in it comes from outside: sizes are checked before anything of that size is made, names of files may not
lead out of the folder, a pickle is never opened, and no code in the folder is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from groundup.errors import GroundupError, printable
from groundup.formats import hugging_face_config as configuration
from groundup.formats.foreign import ForeignModel
from groundup.formats.hugging_face_config import Described, read_config
from groundup.formats.hugging_face_tokenizer import FoundTokenizer, read_tokenizer
from groundup.formats.keys import KEY_MAPS, to_ours
from groundup.formats.outside import read_json, read_list

WEIGHTS, INDEX, MODULES = "model.safetensors", "model.safetensors.index.json", "modules.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_SHARDS = 10_000

HUB_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.txt"]
"""What is fetched from the hub: no code, and nothing that could run any."""

_POOLER = {"pooler.dense.weight": "pooler.weight", "pooler.dense.bias": "pooler.bias"}
_OUTPUT = {
    "classifier.weight": "output.weight",
    "classifier.bias": "output.bias",
    "score.weight": "output.weight",
    "score.bias": "output.bias",
}


def read_hugging_face(folder: Path, read_tensors: Callable[[Path], dict[str, Tensor]]) -> ForeignModel:
    """Read a folder whole.

    Args:
        folder: a local folder; see `hub_folder` for the hub.
        read_tensors: reads one safetensors file, with distrust.
    Returns:
        The model. Where it has a head, the names of its tensors begin with `body.` or `head.`, as those of the
        network that its family, options and head describe.
    Raises:
        GroundupError: E-FORMAT-001 tensors that do not fit, 002 an unknown architecture, 003 fields of config.json,
            004 malformed JSON, 005 weights that are missing or contradict their index, 006 pickles alone, 008 an
            unusable tokenizer; and what `read_tensors` raises.
    """
    folder, transforms = sentence_modules(folder)
    described = read_config(folder)
    files = weight_files(folder)
    tokenizer = read_tokenizer(folder, described.content)
    _require_room(folder, tokenizer, described)
    tensors = _read_weights(files, folder, read_tensors)
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    oddities = [*described.oddities, *tokenizer.oddities]
    head = head_of(described, transforms, folder)
    top = _split_head(described, head, tensors, folder, oddities)
    options = dict(described.options)
    if _has_no_output(described, tensors) and not options.get("tied", True):
        options["tied"] = True
        oddities.append("the files hold no output matrix: the embedding stands in for it")
    renamed = to_ours(described.family, tensors, options, str(folder))
    if "tied" in options:
        options["tied"] = "head.weight" not in renamed.tensors
    ours = renamed.tensors
    if head is not None:
        ours = {**{f"body.{name}": tensor for name, tensor in ours.items()}, **top}
    details = {
        "architecture": described.architecture,
        "files": [{"name": file.name, "bytes": file.stat().st_size} for file in sorted(files)],
        "dtypes": dtypes,
        "tokenizer": tokenizer.kind,
        "tokens": tokenizer.vocabulary,
    }
    return ForeignModel(
        kind="hugging_face",
        family=described.family,
        options=options,
        tensors=ours,
        tokenizer=tokenizer.tokenizer,
        details=details,
        oddities=(*oddities, *renamed.notes, *padding_note(tokenizer, described)),
        head=head,
    )


def hub_folder(source: str) -> Path:
    """Fetch `hf:ORG/NAME` (or `hf:ORG/NAME@REVISION`) and return the local folder; what is there already is not
    fetched again.

    Raises:
        GroundupError: E-MACHINE-901 without the extra `hub`, E-FORMAT-010 if the model cannot be fetched.
    """
    name, _, revision = source.removeprefix("hf:").partition("@")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise GroundupError(
            "E-MACHINE-901",
            "huggingface_hub is not installed",
            where=printable(source),
            why="models are fetched from the hub with it",
            fix='pip install "groundup[hub]"   (or fetch the folder in another way and name its path)',
        ) from error
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=HUB_PATTERNS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        lines = str(error).strip().splitlines()
        raise GroundupError(
            "E-FORMAT-010",
            f"{printable(source, 120)} cannot be fetched: {printable(lines[0]) if lines else type(error).__name__}",
            where="the Hugging Face hub",
            why="there is no network here, no such model, or it asks for a licence to be accepted first",
            fix="check the name at https://huggingface.co, or fetch the folder elsewhere, copy it here,\n"
            "and name its path: groundup import PATH",
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, in the order of their names.

    Raises:
        GroundupError: E-FORMAT-005 for none, or an index that names others; E-FORMAT-006 for pickles alone.
    """
    if (folder / INDEX).exists():
        names = sorted(set(_weight_map(folder).values()))
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise _weights(folder, f"{len(absent)} of {len(names)} shards are missing: {printable(absent[0])}")
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if found:
        raise _weights(folder, f"there are {len(found)} safetensors files and no {INDEX} that says how they belong")
    pickles = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICKLES)
    if pickles:
        raise _pickled(pickles[0])
    raise _weights(folder, f"there is no {WEIGHTS}")


def sentence_modules(folder: Path) -> tuple[Path, list[tuple[str, Path]]]:
    """The folder of the transformer, and the modules after it (type, folder), of a sentence-transformers folder.
    Any other folder is itself, without modules."""
    path = folder / MODULES
    if not path.exists():
        return folder, []
    modules = []
    for entry in read_list(path):
        kind, place = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(place, str) or (place and not _is_plain(place)):
            raise _unknown_modules(path, f"an entry is {printable(str(entry), 80)}")
        modules.append((kind.rpartition(".")[2], folder / place if place else folder))
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise _unknown_modules(path, f"the modules are {printable(', '.join(kinds)) or 'none'}")
    return modules[0][1], modules[1:]


def head_of(described: Described, transforms: list[tuple[str, Path]], folder: Path) -> dict[str, Any] | None:
    """The options of the head that the folder describes; see models/heads.py."""
    task, bert = described.task, described.family == "bert"
    if transforms:
        return {"kind": "embed", "pooling": _pooling(transforms[0][1]), "normalise": len(transforms) > 1}
    if task not in (configuration.CLASSIFY, configuration.TAG, configuration.CHOICE):
        return None
    rate = described.content.get("classifier_dropout")
    rate = described.content.get("hidden_dropout_prob", 0.1 if bert else 0.0) if rate is None else rate
    head: dict[str, Any] = {"dropout": float(rate) if isinstance(rate, int | float) and 0 <= rate < 1 else 0.0}
    if task == configuration.TAG:
        return {**head, "kind": "tag", "labels": list(described.labels)}
    head |= {"pooling": "first", "pooler": True} if bert else {"pooling": "last"}
    if task == configuration.CHOICE:
        return {**head, "kind": "choice"}
    if described.problem == "regression" or (described.problem is None and len(described.labels) == 1):
        return {**head, "kind": "regress"}
    several = described.problem == "multi_label_classification"
    return {**head, "kind": "multilabel" if several else "classify", "labels": list(described.labels)}


def padding_note(tokenizer: FoundTokenizer, described: Described) -> tuple[str, ...]:
    """A sentence where the model has more rows than the tokenizer has ids, as many published models do."""
    rows = described.options["vocabulary"]
    if tokenizer.tokenizer is None or rows == tokenizer.vocabulary:
        return ()
    return (f"the model has {rows:,} rows for {tokenizer.vocabulary:,} tokens; the others are padding, never used",)


def _pooling(folder: Path) -> str:
    said = read_json(folder / "config.json")
    modes = {name: value for name, value in said.items() if name.startswith("pooling_mode") and value}
    names = [value if isinstance(value, str) else name for name, value in modes.items()]
    known = {
        "pooling_mode_mean_tokens": "mean",
        "mean": "mean",
        "pooling_mode_cls_token": "first",
        "cls": "first",
        "pooling_mode_lasttoken": "last",
        "lasttoken": "last",
    }
    if len(names) != 1 or names[0] not in known:
        raise _unknown_modules(folder / "config.json", f"the pooling is {printable(', '.join(names), 80) or 'none'}")
    return known[names[0]]


def _split_head(
    described: Described, head: dict[str, Any] | None, tensors: dict[str, Tensor], folder: Path, oddities: list[str]
) -> dict[str, Tensor]:
    """Take what does not belong to the body out of `tensors`; return the head's part under our names."""
    prefix = KEY_MAPS[described.family].prefix
    wanted = {} if head is None or head["kind"] == "embed" else dict(_OUTPUT)
    if head is not None and head.get("pooler"):
        wanted |= _POOLER
    top = {f"head.{wanted[plain]}": tensors.pop(name).float().contiguous()
           for name in list(tensors) if (plain := name.removeprefix(prefix)) in wanted}  # fmt: skip
    unused = [name for name in tensors if _is_unused(described, name.removeprefix(prefix))]
    for name in unused:
        del tensors[name]
    if unused:
        oddities.append(f"{len(unused)} tensors of a head that is not built were left out: {printable(unused[0])} …")
    if head is not None and head["kind"] != "embed":
        _require_head(described, head, top, folder)
    return top


def _is_unused(described: Described, name: str) -> bool:
    """The masked-word head of BERT's pretraining, and a pooler that no head reads."""
    return described.family == "bert" and name.startswith(("cls.", "pooler.dense."))


def _require_head(
    described: Described, head: dict[str, Any], top: dict[str, Tensor], folder: Path
) -> None:
    """Every tensor of the head is there in its shape. The head on a decoder's last token has no bias."""
    width, rows = described.options["width"], len(head.get("labels", ())) or 1
    expected: dict[str, tuple[int, ...]] = {"head.output.weight": (rows, width)}
    if described.family == "bert" or head["kind"] == "tag":
        expected["head.output.bias"] = (rows,)
    if head.get("pooler"):
        expected |= {"head.pooler.weight": (width, width), "head.pooler.bias": (width,)}
    wrong = [f"{name} expected {list(shape)}, found {list(top[name].shape) if name in top else 'nothing'}"
             for name, shape in expected.items() if name not in top or tuple(top[name].shape) != shape]  # fmt: skip
    if wrong:
        raise GroundupError(
            "E-FORMAT-001",
            f"the weights do not fit the head that config.json describes: {len(wrong)} tensors",
            where="\n".join([printable(str(folder)), *(f"    {line}" for line in wrong)]),
            why="a head that is only partly loaded answers, and means nothing",
            fix="check id2label in config.json, and fetch the files again, all from the same version of the model",
        )


def _has_no_output(described: Described, tensors: Mapping[str, Tensor]) -> bool:
    """A body without the output matrix, as it stands alone or below another head."""
    return described.task != configuration.CAUSAL and "lm_head.weight" not in tensors


def _require_room(folder: Path, tokenizer: FoundTokenizer, described: Described) -> None:
    rows = described.options["vocabulary"]
    if tokenizer.vocabulary <= rows:
        return
    raise GroundupError(
        "E-FORMAT-008",
        f"the tokenizer has {tokenizer.vocabulary:,} ids, the model only {rows:,} rows for them",
        where=printable(str(folder)),
        why="they do not belong together: some texts would have ids that the model does not know",
        fix="fetch the tokenizer and the weights again, from the same version of the model",
    )


def _read_weights(
    files: list[Path], folder: Path, read_tensors: Callable[[Path], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """All tensors of all files; with an index, exactly those that it names, where it names them."""
    tensors: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    for file in files:
        for name, tensor in read_tensors(file).items():
            if name in tensors:
                raise _weights(folder, f"{printable(name)} is in {printable(places[name])} and in {file.name} too")
            tensors[name], places[name] = tensor, file.name
    if (folder / INDEX).exists():
        told = _weight_map(folder)
        wrong = sorted(name for name in told.keys() | places.keys() if told.get(name) != places.get(name))
        if wrong:
            said, found = told.get(wrong[0], "no file"), places.get(wrong[0], "no file")
            what = f"{len(wrong)} tensors are not where {INDEX} says: {printable(wrong[0])} in {printable(said)}"
            raise _weights(folder, f"{what}, found in {printable(found)}")
    return tensors


def _weight_map(folder: Path) -> dict[str, str]:
    told = read_json(folder / INDEX).get("weight_map")
    if not isinstance(told, dict) or not told or not all(isinstance(file, str) for file in told.values()):
        raise _weights(folder, f"{INDEX} has no weight_map of names to files")
    outside = sorted({file for file in told.values() if not _is_plain(file) or not file.endswith(".safetensors")})
    if outside or len(set(told.values())) > MAX_SHARDS:
        raise _weights(
            folder, f"{INDEX} names what is no safetensors file of the folder: {printable(str(outside[:1]))}"
        )
    return told


def _is_plain(name: str) -> bool:
    """Whether a name is that of an entry of the folder itself."""
    return name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def _weights(folder: Path, what: str) -> GroundupError:
    return GroundupError(
        "E-FORMAT-005",
        f"the weights cannot be read: {what}",
        where=printable(str(folder)),
        why="a model is loaded from whole files that agree with each other, or not at all",
        fix="fetch the folder again, with every model*.safetensors and its index",
    )


def _pickled(path: Path) -> GroundupError:
    return GroundupError(
        "E-FORMAT-006",
        f"the weights are there only as a pickle, {printable(path.name)}, which is not opened",
        where=printable(str(path)),
        why="opening a pickle can run any program that its author put into it",
        fix="take model.safetensors if its publisher offers one; or, if you trust the file, convert it:\n"
        "in Python, read it with torch's own loader (weights_only=True, map_location='cpu')\n"
        "and write the dict with safetensors.torch.save_file(weights, 'model.safetensors', {'format': 'pt'})",
    )


def _unknown_modules(path: Path, what: str) -> GroundupError:
    return GroundupError(
        "E-FORMAT-003",
        f"this sentence-embedding model is built in a way that is not read: {what}",
        where=printable(str(path)),
        why="read are a Transformer, a Pooling (mean, cls or lasttoken), and perhaps Normalize, in this order",
        fix="choose a model of this form",
    )
