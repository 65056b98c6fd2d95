"""`groundup predict MODEL --files …`: labels with probabilities, values, vectors or translations, row by row."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from groundup.cli.terminal import Painter
from groundup.errors import printable


def predict(arguments: argparse.Namespace) -> int:
    """Predict and print, or write JSON lines; 0 when done."""
    from groundup import load

    loaded = load(arguments.model)
    rows, set_aside = loaded.predict_files(arguments.files, column=arguments.text)
    if arguments.out:
        path = Path(arguments.out).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        temporary.replace(path)
    summary = {"model": arguments.model, "rows": len(rows), "set_aside": set_aside, "out": arguments.out}
    if arguments.json:
        print(json.dumps(summary | ({} if arguments.out else {"predictions": rows}), ensure_ascii=False))
        return 0
    painter = Painter()
    if not arguments.out:
        for row in rows:
            painter.print(json.dumps(row, ensure_ascii=False))
    where = f" in {printable(arguments.out)}" if arguments.out else ""
    print(f"{len(rows)} rows{where}", file=sys.stderr)
    for reason, count in set_aside.items():
        print(f"  set aside: {count} rows: {printable(reason)}", file=sys.stderr)
    return 0
