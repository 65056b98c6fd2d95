"""config.json of Hugging Face's transformers, read as groundup's options.

Every field that decides what a network computes is checked; what no family here does is an error that names the field
and its value. Fields that matter in training alone or to transformers itself are known by name, and any other field
is reported as an oddity: nothing is passed over in silence. Old and new spellings are read (rope_theta and
rope_scaling, or rope_parameters). Nothing here opens a file but config.json itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from groundup.errors import GroundupError, nearest, printable
from groundup.formats.outside import Fields, read_json

CONFIG = "config.json"

MAX_VOCABULARY, MAX_WIDTH, MAX_LAYERS, MAX_HEADS, MAX_HIDDEN = 10_000_000, 2**17, 1024, 4096, 2**21
MAX_CONTEXT, MAX_EXPERTS, MAX_LABELS = 2**20, 1024, 100_000
"""Plain limits, several times what the largest published models of these families have."""

BARE, CAUSAL, PRETRAINING, CLASSIFY, TAG, CHOICE = "bare", "causal", "pretraining", "classify", "tag", "choice"

_FAMILY = {
    "Llama": "llama",
    "Mistral": "llama",
    "Qwen2": "llama",
    "Qwen3": "llama",
    "Qwen3Moe": "moe",
    "GPT2": "gpt2",
    "Bert": "bert",
}
_TASK = {
    "Model": BARE,
    "ForCausalLM": CAUSAL,
    "LMHeadModel": CAUSAL,
    "ForMaskedLM": PRETRAINING,
    "ForPreTraining": PRETRAINING,
    "ForSequenceClassification": CLASSIFY,
    "ForTokenClassification": TAG,
    "ForMultipleChoice": CHOICE,
}
_TASKS = {
    "GPT2": ("Model", "LMHeadModel", "ForSequenceClassification", "ForTokenClassification"),
    "Bert": (
        "Model",
        "ForMaskedLM",
        "ForPreTraining",
        "ForSequenceClassification",
        "ForTokenClassification",
        "ForMultipleChoice",
    ),
}
ARCHITECTURES: dict[str, tuple[str, str]] = {
    maker + task: (maker, _TASK[task])
    for maker in _FAMILY
    for task in _TASKS.get(maker, ("Model", "ForCausalLM", "ForSequenceClassification", "ForTokenClassification"))
}
"""Every architecture that is read: whose layout it has, and what stands on the body."""

_MODEL_TYPES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "bert": "BertModel",
}

# fmt: off
_NO_EFFECT = (
    "_name_or_path", "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache",
    "initializer_range", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id",
    "cls_token_id", "unk_token_id", "gradient_checkpointing", "attn_pdrop", "embd_pdrop", "resid_pdrop",
    "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
    "task_specific_params", "n_ctx", "label2id", "num_labels", "classifier_dropout", "finetuning_task",
    "output_attentions", "output_hidden_states", "return_dict", "pretraining_tp", "output_router_logits",
    "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
    "pooler_size_per_head", "pooler_type", "is_llama_config", "transformers.js_config",
    "attention_probs_dropout_prob", "reorder_and_upcast_attn",
)
# fmt: on
"""Fields that do not change what a loaded model computes."""


class Described(NamedTuple):
    """What config.json says.

    Attributes:
        architecture: Hugging Face's name of the class.
        family: groundup's family.
        options: all fields of that family's options that the file decides.
        task: what stands on the body: one of the names above.
        labels: for a task with labels, their names in the order of their ids.
        problem: transformers' problem_type: None where it is left to be guessed from the data.
        oddities: sentences.
        content: the whole file.
    """

    architecture: str
    family: str
    options: dict[str, Any]
    task: str
    labels: tuple[str, ...]
    problem: str | None
    oddities: tuple[str, ...]
    content: dict[str, Any]


def read_config(folder: Path) -> Described:
    """Read and check config.json in `folder`.

    Raises:
        GroundupError: E-FORMAT-002 for an architecture that is not read, 003 for fields, 004 for a bad file.
    """
    path = folder / CONFIG
    content = read_json(path)
    architecture = _architecture(content, path)
    maker, task = ARCHITECTURES[architecture]
    fields = Fields(content, str(path))
    if content.get("quantization_config"):
        fields.fault("quantization_config", "set", "none: quantized weights are read from GGUF files")
    options = _READERS[maker](fields)
    labels = _labels(fields) if task in (CLASSIFY, TAG) else ()
    fields.only("problem_type", ("regression", "single_label_classification", "multi_label_classification"))
    fields.settle()
    oddities = []
    if "auto_map" in content:
        oddities.append("the folder brings Python code of its own (auto_map), which is not run")
    unread = [name for name in fields.unread((*_NO_EFFECT, "auto_map", "id2label")) if content[name] is not None]
    if unread:
        shown = ", ".join(printable(name, 40) for name in unread[:10])
        oddities.append(f"config.json has {len(unread)} fields that are not known here and were not used: {shown}")
    return Described(
        architecture, _FAMILY[maker], options, task, labels, content.get("problem_type"), tuple(oddities), content
    )


def _architecture(content: dict[str, Any], path: Path) -> str:
    named = content.get("architectures")
    if named is None and isinstance(content.get("model_type"), str):
        return _MODEL_TYPES.get(content["model_type"]) or _unsupported(f"model_type {content['model_type']}", path)
    if named is None:
        raise GroundupError(
            "E-FORMAT-002",
            "config.json names no architecture",
            where=printable(str(path)),
            why="`architectures` or `model_type` says which network the weights belong to; parts of a model, such as a "
            "pooling layer, have a config.json without them",
            fix="name the folder of the whole model; if this is it, copy config.json from where it comes from",
        )
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        return _unsupported(f"architectures {named}", path)
    return named[0] if named[0] in ARCHITECTURES else _unsupported(named[0], path)


def _unsupported(name: str, path: Path) -> str:
    close = nearest(name, list(ARCHITECTURES))
    raise GroundupError(
        "E-FORMAT-002",
        f"the architecture is not supported: {printable(name, 80)}",
        where=printable(str(path)),
        why="each architecture computes something else, and only these are built here and proved equal:\n"
        + ", ".join(ARCHITECTURES),
        fix="choose a model of one of these architectures" + (f"; the nearest is {close}" if close else ""),
    )


def _labels(fields: Fields) -> tuple[str, ...]:
    """The names of the labels by id; transformers leaves out its default, LABEL_0 and LABEL_1."""
    named = fields.raw("id2label")
    if named is None:
        count = fields.whole("num_labels", 1, MAX_LABELS, default=2)
        return tuple(f"LABEL_{number}" for number in range(count))
    if not isinstance(named, dict) or not 1 <= len(named) <= MAX_LABELS:
        fields.fault("id2label", named, f"an object of 1 to {MAX_LABELS:,} names by id")
        return ()
    labels = [named.get(str(number)) for number in range(len(named))]
    if not all(isinstance(label, str) for label in labels) or len(set(labels)) != len(labels):
        fields.fault("id2label", sorted(named)[:5], "ids from 0 without gaps, each with another text")
        return ()
    return tuple(str(label) for label in labels)


def _decoder(fields: Fields, *, head_size: int | None = None, tied: bool = False) -> dict[str, Any]:
    """What Llama, Mistral, Qwen2, Qwen3 and Qwen3-MoE have in common."""
    width = fields.whole("hidden_size", 1, MAX_WIDTH)
    heads = fields.whole("num_attention_heads", 1, MAX_HEADS)
    groups = fields.whole("num_key_value_heads", 1, MAX_HEADS, default=heads)
    if heads % groups:
        fields.fault("num_key_value_heads", groups, f"a divisor of the {heads} heads")
    size = fields.whole("head_dim", 2, MAX_WIDTH, default=head_size or max(width // heads, 1))
    if size % 2 or (fields.raw("head_dim") is None and head_size is None and width % heads):
        fields.fault("head_dim", fields.raw("head_dim"), f"an even size; hidden_size / heads is {width}/{heads}")
    context = fields.whole("max_position_embeddings", 1, MAX_CONTEXT)
    fields.only("hidden_act", ("silu", "swish"))
    return {
        "vocabulary": fields.whole("vocab_size", 2, MAX_VOCABULARY),
        "context": context,
        "width": width,
        "layers": fields.whole("num_hidden_layers", 1, MAX_LAYERS),
        "heads": heads,
        "key_value_heads": groups,
        "head_size": size,
        "norm_epsilon": fields.number("rms_norm_eps", 0.0, 1.0, default=1e-6),
        "tied": fields.flag("tie_word_embeddings", tied),
        **_rotary(fields, context),
    }


def _rotary(fields: Fields, context: int) -> dict[str, Any]:
    """The base and the stretching of rotary positions, in the old or the new spelling."""
    fields.only("partial_rotary_factor", (1, 1.0))
    fields.only("rope_interleaved", (False,))
    base = fields.number("rope_theta", 1.0, 1e12, default=10000.0)
    original = fields.whole("original_max_position_embeddings", 1, MAX_CONTEXT, default=context)
    old, new = fields.raw("rope_scaling"), fields.raw("rope_parameters")
    given = old or new or {}
    if not isinstance(given, dict):
        fields.fault("rope_parameters", given, "an object")
        given = {}
    inner = Fields(given, "")
    for name in ("rope_type", "type"):
        inner.only(name, ("default", "llama3"))
    inner.only("partial_rotary_factor", (1, 1.0))
    kind = given.get("rope_type") or given.get("type") or "default"
    options: dict[str, Any] = {"rotary_base": inner.number("rope_theta", 1.0, 1e12, default=base)}
    if kind == "llama3":
        low = inner.number("low_freq_factor", 0.0, 1e6)
        high = inner.number("high_freq_factor", 0.0, 1e6)
        factor = inner.number("factor", 0.0, 1e6)
        if factor < 1.0 or high <= low:
            inner.fault("factor", factor, f"at least 1, with high_freq_factor {high:g} above low_freq_factor {low:g}")
        options["rotary_scaling"] = {
            "factor": factor,
            "low_frequency_factor": low,
            "high_frequency_factor": high,
            "original_context": inner.whole("original_max_position_embeddings", 1, MAX_CONTEXT, default=original),
        }
    for name in inner.unread(("original_max_position_embeddings",)):
        inner.fault(name, given[name], f"no such field for the type {printable(str(kind), 20)}")
    fields.faults += [f"{'rope_scaling' if old else 'rope_parameters'}.{fault}" for fault in inner.faults]
    return options


def _window(fields: Fields, layers: int) -> int | None:
    """Qwen's sliding window: in all layers or in none."""
    window = fields.whole("sliding_window", 1, MAX_CONTEXT, default=4096)
    full_layers = fields.whole("max_window_layers", 0, 10**9, default=28)
    kinds = fields.raw("layer_types")
    if not fields.flag("use_sliding_window", False):
        if isinstance(kinds, list) and any(kind != "full_attention" for kind in kinds):
            fields.fault("layer_types", kinds[:5], "full_attention alone, as use_sliding_window is false")
        return None
    if kinds is None:
        kinds = ["full_attention" if layer < full_layers else "sliding_attention" for layer in range(layers)]
    if kinds == ["sliding_attention"] * layers:
        return window
    if kinds != ["full_attention"] * layers:
        fields.fault("layer_types", str(kinds)[:50], "the same kind of attention in every layer")
    return None


def _llama(fields: Fields) -> dict[str, Any]:
    fields.only("mlp_bias", (False,))
    return {
        **_decoder(fields),
        "hidden": fields.whole("intermediate_size", 1, MAX_HIDDEN),
        "attention_bias": "all" if fields.flag("attention_bias", False) else False,
    }


def _mistral(fields: Fields) -> dict[str, Any]:
    options = {**_decoder(fields), "hidden": fields.whole("intermediate_size", 1, MAX_HIDDEN)}
    if fields.raw("sliding_window") is not None:
        options["sliding_window"] = fields.whole("sliding_window", 1, MAX_CONTEXT)
    return options


def _qwen2(fields: Fields) -> dict[str, Any]:
    options = {**_decoder(fields), "hidden": fields.whole("intermediate_size", 1, MAX_HIDDEN), "attention_bias": True}
    return {**options, "sliding_window": _window(fields, options["layers"])}


def _qwen3(fields: Fields) -> dict[str, Any]:
    options = {**_decoder(fields, head_size=128), "hidden": fields.whole("intermediate_size", 1, MAX_HIDDEN)}
    bias = "all" if fields.flag("attention_bias", False) else False
    return {
        **options,
        "query_key_norm": True,
        "attention_bias": bias,
        "sliding_window": _window(fields, options["layers"]),
    }


def _qwen3_moe(fields: Fields) -> dict[str, Any]:
    for name in ("attention_bias", "use_sliding_window"):
        fields.only(name, (False,))
    fields.only("decoder_sparse_step", (1,))
    fields.only("mlp_only_layers", ([],))
    for name in ("intermediate_size", "sliding_window", "max_window_layers"):
        fields.raw(name)  # without meaning while every block has experts and no window
    options = _decoder(fields)
    if "rotary_scaling" in options:
        fields.fault("rope_parameters", "llama3", 'the type "default" for this architecture')
    count = "num_local_experts" if fields.raw("num_local_experts") is not None else "num_experts"
    experts = fields.whole(count, 1, MAX_EXPERTS)
    return {
        **options,
        "hidden": fields.whole("moe_intermediate_size", 1, MAX_HIDDEN),
        "experts": experts,
        "experts_per_token": fields.whole("num_experts_per_tok", 1, experts),
        "normalise_routes": fields.flag("norm_topk_prob", False),
        "balance": fields.number("router_aux_loss_coef", -1e-9, 1e6, default=0.001),
    }


def _gpt2(fields: Fields) -> dict[str, Any]:
    fields.only("activation_function", ("gelu_new", "gelu_pytorch_tanh"))
    fields.only("scale_attn_weights", (True,))
    for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        fields.only(name, (False,))
    width, heads = fields.whole("n_embd", 1, MAX_WIDTH), fields.whole("n_head", 1, MAX_HEADS)
    if width % heads:
        fields.fault("n_head", heads, f"a divisor of n_embd {width}")
    return {
        "vocabulary": fields.whole("vocab_size", 2, MAX_VOCABULARY),
        "context": fields.whole("n_positions", 1, MAX_CONTEXT),
        "width": width,
        "layers": fields.whole("n_layer", 1, MAX_LAYERS),
        "heads": heads,
        "hidden": fields.whole("n_inner", 1, MAX_HIDDEN, default=4 * width),
        "norm_epsilon": fields.number("layer_norm_epsilon", 0.0, 1.0, default=1e-5),
        "tied": fields.flag("tie_word_embeddings", True),
    }


def _bert(fields: Fields) -> dict[str, Any]:
    fields.only("hidden_act", ("gelu",))
    fields.only("position_embedding_type", ("absolute",))
    for name in ("is_decoder", "add_cross_attention"):
        fields.only(name, (False,))
    fields.only("tie_word_embeddings", (True, False))
    width, heads = fields.whole("hidden_size", 1, MAX_WIDTH), fields.whole("num_attention_heads", 1, MAX_HEADS)
    if width % heads:
        fields.fault("num_attention_heads", heads, f"a divisor of hidden_size {width}")
    return {
        "vocabulary": fields.whole("vocab_size", 2, MAX_VOCABULARY),
        "context": fields.whole("max_position_embeddings", 1, MAX_CONTEXT),
        "width": width,
        "layers": fields.whole("num_hidden_layers", 1, MAX_LAYERS),
        "heads": heads,
        "hidden": fields.whole("intermediate_size", 1, MAX_HIDDEN),
        "segments": fields.whole("type_vocab_size", 1, 1024, default=2),
        "norm_epsilon": fields.number("layer_norm_eps", 0.0, 1.0, default=1e-12),
        "dropout": fields.number("hidden_dropout_prob", -1e-9, 0.99, default=0.1),
    }


_READERS: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "Llama": _llama,
    "Mistral": _mistral,
    "Qwen2": _qwen2,
    "Qwen3": _qwen3,
    "Qwen3Moe": _qwen3_moe,
    "GPT2": _gpt2,
    "Bert": _bert,
}
