"""Data: preparation of files into token shards, and the resumable streams that read them.

Preparation (read, clean, deduplicate, split, tokenize) imports no torch, so that its worker processes start
fast; therefore this file imports nothing.
"""
