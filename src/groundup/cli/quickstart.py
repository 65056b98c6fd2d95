"""`groundup quickstart`: the whole life of a model, and how to go on from there."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

from groundup.cli.terminal import Painter, format_duration


def free_folder() -> Path:
    """`quickstart`, or the first of `quickstart-2`, `quickstart-3` … that is not there yet."""
    names = itertools.chain(["quickstart"], (f"quickstart-{number}" for number in itertools.count(2)))
    return next(path for path in map(Path, names) if not path.exists())


def quickstart(arguments: argparse.Namespace) -> int:
    """Live it; 0 when done, 130 or 143 when stopped with a checkpoint."""
    from groundup.cli.train import Progress, show_evaluations
    from groundup.run.quickstart import quickstart as live
    from groundup.run.quickstart import sample_answers

    painter = Painter()
    progress = Progress(painter)
    life = live(
        Path(arguments.out).expanduser() if arguments.out else free_folder(),
        minutes=arguments.minutes,
        text=arguments.text,
        code=arguments.code,
        command=["groundup", *sys.argv[1:]],
        listener=progress,
        say=progress.say,
    )
    last = life.stages[-1]
    if last.exit_code:
        painter.print(f"stopped with a checkpoint in {last.folder}")
        return last.exit_code
    painter.print()
    for sample in sample_answers(life):
        painter.print(painter.paint(f"> {sample['question']}", "bold"))
        painter.print(f"  {sample['answer'].strip()}")
        painter.print(painter.paint(f"  (the documentation says: {sample['reference']})", "dim"))
    painter.print()
    show_evaluations(life.evaluations, painter)
    painter.print()
    painter.print(f"done in {format_duration(life.seconds)}; everything is in {life.folder}")
    painter.print(f"  read the report   {life.folder}/report.html")
    if life.questions is not None:
        painter.print(f"  ask it            groundup chat {last.folder}")
        painter.print(f"  on a page         groundup serve {last.folder} --runs {life.folder}")
    painter.print(f'  let it write      groundup generate {life.stages[0].folder} --prompt "function os.path"')
    painter.print(f"  measure it        groundup evaluate {life.stages[0].folder} --files YOUR.txt")
    painter.print("  train your own    groundup new text --out mine.yaml   then   groundup train mine.yaml")
    painter.print(f"  tune it further   groundup new chat --out tune.yaml   with model.init_from={last.folder}")
    return 0
