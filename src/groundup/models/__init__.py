"""One file per model family, the whole forward in view.

A model knows nothing of parallelism, adapters, optimizers or files; a cache is an argument of its forward.
`FAMILIES` is the list of what a recipe's `model.family` may name.
"""

from __future__ import annotations

from torch import nn

from groundup.models.bert import Bert, BertOptions
from groundup.models.gpt2 import GPT2, GPT2Options
from groundup.models.llama import Llama, LlamaOptions
from groundup.models.moe import Moe, MoeOptions

FamilyOptions = LlamaOptions | GPT2Options | BertOptions | MoeOptions

FAMILIES: dict[str, tuple[type[FamilyOptions], type[nn.Module]]] = {
    "llama": (LlamaOptions, Llama),
    "gpt2": (GPT2Options, GPT2),
    "bert": (BertOptions, Bert),
    "moe": (MoeOptions, Moe),
}
