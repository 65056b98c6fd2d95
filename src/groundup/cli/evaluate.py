"""`groundup evaluate MODEL --files …`: held-out metrics with intervals, alone or against another model; and
`groundup evaluate MODEL --episodes N`: what a model that acts brings home.

Only parsing and printing; the measuring is that of the loaded model.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from groundup.cli.arguments import require_fit
from groundup.cli.terminal import VERDICTS, Painter, format_bytes, format_interval, format_metric, table
from groundup.errors import GroundupError, printable


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when done."""
    from groundup import load

    playing = arguments.episodes is not None
    if arguments.files is None and not playing:
        raise GroundupError(
            "E-USE-003",
            "groundup evaluate needs --files, or --episodes for a model that acts",
            where="the command line",
            why="a model is measured on rows with answers, or in whole episodes",
            fix="groundup evaluate MODEL --files FILE\ngroundup evaluate MODEL --episodes 100",
            exit_code=2,
        )
    if playing:
        require_fit(arguments, ("files", "metric", "columns"), "rows of files, and --episodes plays without any")
    else:
        require_fit(arguments, ("environment", "sampled", "seed"), "a model that acts, with --episodes")
    loaded: Any = load(arguments.model)
    against = load(arguments.against) if arguments.against else None
    if playing:
        found = _play(arguments, loaded, against)
    else:
        more = {"columns": arguments.columns} if arguments.columns else {}
        if more:
            _require_translator(loaded, arguments)
        found = loaded.evaluate(arguments.files, arguments.metric or (), against, **more)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        (show_episodes if playing else show)(found, Painter())
    return 0


def _require_translator(loaded: Any, arguments: argparse.Namespace) -> None:
    from groundup.run.loaded_translator import LoadedTranslator

    if not isinstance(loaded, LoadedTranslator):
        require_fit(arguments, ("columns",), "a translator's files of pairs")


def _play(arguments: argparse.Namespace, loaded: Any, against: Any) -> dict[str, Any]:
    from groundup.api import LoadedModel

    if isinstance(loaded, LoadedModel):
        require_fit(arguments, ("episodes", "environment"), "a model that acts, and this is a language model")
    found: dict[str, Any] = loaded.play(
        arguments.episodes,
        arguments.seed or 0,
        not arguments.sampled,
        environment=arguments.environment,
        against=against,
    )
    return found


def show(found: dict[str, Any], painter: Painter) -> None:
    """Print what was measured, the metrics, and the comparison if there is one."""
    data = []
    if found["documents"]:
        data.append(f"{found['documents']} documents, {format_bytes(found['bytes'])}")
    if found["examples"]:
        data.append(f"{found['examples']} questions with answers")
    if found.get("rows"):
        data.append(f"{found['rows']} " + ("pairs" if "translated" in found else "labelled rows"))
    if found.get("translated", found.get("rows")) != found.get("rows"):
        data.append(f"chrF and BLEU on the first {found['translated']}")
    painter.print(painter.paint(printable(found["model"]), "bold") + "  on " + " and ".join(data))
    for reason, count in found["set_aside"].items():
        painter.print(f"  set aside: {count} rows: {printable(reason)}")
    painter.print()
    rows: list[list[object]] = [
        [name, format_metric(m["value"]), format_interval(m), m["unit"]] for name, m in found["metrics"].items()
    ]
    painter.print(table(rows, ["metric", "value", "95 % interval", "unit"], width=painter.width))
    if found["against"] is None:
        return
    painter.print()
    _show_comparison(found, painter)


def show_episodes(found: dict[str, Any], painter: Painter) -> None:
    """Print what was played, what it brought, and the other policy beside it."""
    how = "best actions" if found["greedy"] else "actions as drawn"
    painter.print(
        painter.paint(printable(found["model"]), "bold")
        + f"  in {printable(found['environment']['id'])}, {found['episodes']} episodes, {how}"
    )
    painter.print()
    rows: list[list[object]] = [
        [name, format_metric(m["value"]), format_interval(m), m["unit"]] for name, m in found["metrics"].items()
    ]
    painter.print(table(rows, ["metric", "mean", "95 % interval", "unit"], width=painter.width))
    painter.print()
    _show_comparison(found, painter)


def _show_comparison(found: dict[str, Any], painter: Painter) -> None:
    """The second model beside the first."""
    painter.print(painter.paint(f"against {printable(found['against'])}", "bold"))
    rows: list[list[object]] = [
        [
            c["metric"], format_metric(c["before"]["value"]), format_metric(c["after"]["value"]),
            f"{format_metric(c['difference']['value'], '+')} {format_interval(c['difference'], '+')}",
            painter.paint(c["verdict"], VERDICTS[c["verdict"]]),
        ]
        for c in found["comparison"]
    ]  # fmt: skip
    painter.print(table(rows, ["metric", "before", "after", "difference", "verdict"], width=painter.width))
    if found.get("not_compared"):
        names = ", ".join(found["not_compared"])
        painter.print(f"not compared: {names} (counted in tokens, and the tokenizers differ)")
