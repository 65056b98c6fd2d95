"""`groundup generate MODEL --prompt TEXT`: go on with a text. Only parsing and printing."""

from __future__ import annotations

import argparse
import json
import time

from groundup.cli.sampling import sampling_options
from groundup.cli.terminal import Painter


def generate(arguments: argparse.Namespace) -> int:
    """Print the prompt and what follows as it is written, or one JSON object; 0 when done."""
    from groundup import load

    loaded = load(arguments.model)
    started = time.monotonic()
    painter = Painter()
    pieces = []
    stream = loaded.stream(arguments.prompt, **sampling_options(arguments))  # refuses before anything is shown
    if not arguments.json:
        painter.print(painter.paint(arguments.prompt, "dim"), end="")
    for piece in stream:
        pieces.append(piece)
        if not arguments.json:
            painter.print(piece.text, end="")
    if not arguments.json:
        painter.print()
        return 0
    result = {
        "model": arguments.model,
        "prompt": arguments.prompt,
        "text": "".join(piece.text for piece in pieces),
        "finish": pieces[-1].finish,
        "ids": [piece.id for piece in pieces[:-1]],
        "logprobs": [piece.logprob for piece in pieces[:-1]],
        "seconds": round(time.monotonic() - started, 3),
    }
    print(json.dumps(result, ensure_ascii=False))
    return 0
