"""Toy models made with transformers, their folders, and our networks built from what was read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from groundup.checkpoint.tensors import read_safetensors
from groundup.formats.foreign import ForeignModel
from groundup.formats.hugging_face import read_hugging_face
from groundup.models import FAMILIES
from groundup.models.heads import Headed, HeadOptions

VOCABULARY = 300
TEMPLATE = "{% for message in messages %}<s>{{ message.content }}</s>{% endfor %}"

DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 16}
LABELS = {"id2label": {0: "no", 1: "yes", 2: "perhaps"}, "label2id": {"no": 0, "yes": 1, "perhaps": 2}}
PAD = {"pad_token_id": 0}

TOYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # name: (transformers' class, its configuration class, the fields)
    "llama": ("LlamaForCausalLM", "LlamaConfig", DECODER),
    "llama_tied": ("LlamaForCausalLM", "LlamaConfig", {**DECODER, "tie_word_embeddings": True, "head_dim": 16}),
    "llama3": ("LlamaForCausalLM", "LlamaConfig", {**DECODER, "rope_parameters": LLAMA3, "attention_bias": True}),
    "llama_body": ("LlamaModel", "LlamaConfig", {**DECODER, "tie_word_embeddings": True}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**DECODER, "sliding_window": 5}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {**DECODER, "tie_word_embeddings": True}),
    "qwen2_window": (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {**DECODER, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
    ),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**DECODER, "head_dim": 16, "attention_bias": True}),
    "moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", {**DECODER, **EXPERTS, "norm_topk_prob": True}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "bert": ("BertModel", "BertConfig", BERT),
    "bert_words": ("BertForMaskedLM", "BertConfig", BERT),
}
HEADED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert_classify": ("BertForSequenceClassification", "BertConfig", {**BERT, **LABELS}),
    "bert_multilabel": (
        "BertForSequenceClassification",
        "BertConfig",
        {**BERT, **LABELS, "problem_type": "multi_label_classification"},
    ),
    "bert_regress": (
        "BertForSequenceClassification",
        "BertConfig",
        {**BERT, "id2label": {0: "LABEL_0"}, "problem_type": "regression"},
    ),
    "bert_tag": ("BertForTokenClassification", "BertConfig", {**BERT, **LABELS}),
    "bert_choice": ("BertForMultipleChoice", "BertConfig", BERT),
    "llama_classify": ("LlamaForSequenceClassification", "LlamaConfig", {**DECODER, **LABELS, **PAD}),
    "qwen2_tag": ("Qwen2ForTokenClassification", "Qwen2Config", {**DECODER, **LABELS, **PAD}),
    "gpt2_tag": ("GPT2ForTokenClassification", "GPT2Config", {**GPT2, **LABELS, **PAD}),
}


def toy(name: str) -> nn.Module:
    """A model of transformers with drawn weights, norms and biases included."""
    kind, configuration, fields = {**TOYS, **HEADED}[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, configuration)(**fields)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 256 bytes and four special tokens, which begins a text with <s>."""
    specials = ["<pad>", "<s>", "</s>", "<unk>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: id for id, token in enumerate([*specials, *letters])}
    library = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(specials)
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=library, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=TEMPLATE
    )


def save_toy(name: str, folder: Path, **options: Any) -> nn.Module:
    """Write a toy with its tokenizer, as its publisher would, and return it."""
    model = toy(name)
    model.save_pretrained(folder, **options)
    toy_tokenizer().save_pretrained(folder)
    return model


def read(folder: Path) -> ForeignModel:
    return read_hugging_face(folder, read_safetensors)


def build(found: ForeignModel) -> nn.Module:
    """Our network with the weights that were read, every name accounted for."""
    options, network = FAMILIES[found.family]
    model = network(options.model_validate(found.options))
    if found.head is not None:
        model = Headed(model, HeadOptions.model_validate(found.head))
    tensors = dict(found.tensors)
    prefix = "body." if found.head is not None else ""
    if found.options.get("tied"):
        assert f"{prefix}head.weight" not in tensors
        tensors[f"{prefix}head.weight"] = tensors[f"{prefix}embedding.weight"]
    model.load_state_dict(tensors)
    return model.eval()


def change_config(folder: Path, **fields: Any) -> None:
    """Edit config.json; None takes a field out."""
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, dict(metadata))
