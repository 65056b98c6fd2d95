"""The text room: training tokenizers, text to ids and back, and chat templates.

`options` says what a tokenizer is made from, `train` makes it, `tokenizer` encodes and decodes, `foreign` does
so with one from elsewhere, `inspect` measures, `chat` turns conversations into ids. Neither data files nor
tensors enter this room. It imports nothing here, so that a recipe can be checked without loading a library of
tokenizers.
"""
