"""`groundup generate MODEL --prompt TEXT`: go on with a text; `… --out FILE.png`: draw images. Only parsing and
printing."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from groundup.cli.arguments import require_fit
from groundup.cli.sampling import FLAGS, sampling_options
from groundup.cli.terminal import Painter
from groundup.errors import GroundupError, printable

FOR_IMAGES, FOR_TEXT = ("out", "count", "label"), ("prompt", "precision", *(name for name in FLAGS if name != "seed"))


def generate(arguments: argparse.Namespace) -> int:
    """Print the prompt and what follows as it is written, or write images; 0 when done."""
    from groundup import load

    if arguments.prompt is None and arguments.out is None:
        raise GroundupError(
            "E-USE-003",
            "groundup generate needs --prompt, or --out for a model that draws images",
            where="the command line",
            why="a model goes on with a text, or draws images into files",
            fix="groundup generate MODEL --prompt TEXT\ngroundup generate MODEL --out FILE.png",
            exit_code=2,
        )
    if arguments.prompt is None or arguments.out is not None:
        require_fit(arguments, FOR_TEXT, "a text, and --out writes images")
        return draw(arguments, load(arguments.model))
    require_fit(arguments, FOR_IMAGES, "images, and --prompt goes on with a text")
    loaded = load(arguments.model)
    pack(arguments, loaded)
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


def pack(arguments: argparse.Namespace, loaded: Any) -> None:
    """Take the precision that was asked for; what comes of it is said on stderr, for a plain form is no faster."""
    if arguments.precision is not None and (form := loaded.pack(arguments.precision)).startswith("plain"):
        print(f"--precision {arguments.precision}: {form}", file=sys.stderr)


def draw(arguments: argparse.Namespace, loaded: Any) -> int:
    """Write images; 0 when done."""
    from groundup.api import LoadedModel
    from groundup.run.pictures import described, require_place, write_images

    if isinstance(loaded, LoadedModel):
        raise GroundupError(
            "E-GEN-031",
            "the model draws no images: it is a language model",
            where=printable(arguments.model),
            why="images are drawn by a network that was trained to, such as model.family vae or gan",
            fix=f"groundup generate {printable(arguments.model)} --prompt TEXT",
            exit_code=2,
        )
    require_place(arguments.out)
    images = loaded.sample(arguments.count or 16, arguments.seed or 0, label=arguments.label)
    found = described(write_images(images, arguments.out), images)
    if arguments.json:
        print(json.dumps({"model": arguments.model, "seed": arguments.seed or 0, **found}, ensure_ascii=False))
        return 0
    size = f"{found['images']} images of {found['height']} × {found['width']} pixels"
    Painter().print(f"{size} in {printable(arguments.out)}")
    return 0
