"""Serving: the OpenAI-compatible HTTP server and its page.

The models come in as a `Shelf` (served.py); no network, tokenizer, engine or model file is known here. FastAPI may be
imported at the top of these files, because nothing but `groundup serve` imports this room.
"""
