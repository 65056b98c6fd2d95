"""One file per model family, the whole forward in view.

A model knows nothing of parallelism, adapters, optimizers or files; a cache is an argument of its forward.
`FAMILIES` is the list of what a recipe's `model.family` may name.
"""

from __future__ import annotations

from groundup.models.llama import Llama, LlamaOptions

FAMILIES = {"llama": (LlamaOptions, Llama)}
