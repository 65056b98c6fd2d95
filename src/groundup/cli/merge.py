"""`groundup merge MODEL … --out DIR`: adapters into their base, or several models into their average."""

from __future__ import annotations

import argparse
import json

from groundup.cli.export import show_proof
from groundup.cli.terminal import Painter
from groundup.errors import printable


def merge(arguments: argparse.Namespace) -> int:
    """Merge, load the result again, compare, print; 0 when done."""
    from groundup.run.exchange import merge_models
    from groundup.run.loaded_network import require_language

    for model in arguments.models:
        require_language(model, "merge")
    found = merge_models(arguments.models, arguments.out, weights=arguments.weights)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    painter = Painter()
    painter.print(painter.paint(printable(found["path"]), "bold") + f"  {found['what']}")
    show_proof(painter, found["proof"])
    painter.print(f"  go on     groundup export {printable(found['path'])} --to gguf --out FILE.gguf")
    return 0
