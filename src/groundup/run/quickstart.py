"""The whole life of a model in one call: a corpus found on this machine, a tokenizer, a network trained from
nothing, fine-tuning to answer, measurements, one report."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.data.python_docs import write_corpus
from groundup.data.python_questions import write_questions
from groundup.engine.events import Listener
from groundup.errors import GroundupError
from groundup.report import write_report
from groundup.run.entry import read_recipe
from groundup.run.opening import load
from groundup.run.train import RESULTS_FILE, Result, train_recipe, write_json

Say = Callable[[str], None]

PRETRAIN_SHARE, FINETUNE_SHARE = 0.46, 0.36
"""Of the minutes asked for; the rest is reading, measuring and the report."""
USUAL_MINUTES, USUAL_DEPTH = 6.0, 4
SAMPLE_QUESTIONS = 3


@dataclass
class Life:
    """What the quickstart made."""

    folder: Path
    stages: list[Result] = field(default_factory=list)
    questions: Path | None = None
    seconds: float = 0.0

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The closing table, over all stages."""
        return [line for stage in self.stages for line in stage.evaluations]


def depth_for(minutes: float) -> int:
    """A larger budget trains a deeper network: compute grows with depth to the sixth (parameters times
    tokens), but this corpus is small, so a little faster than the sixth root."""
    return max(2, min(16, round(USUAL_DEPTH * (minutes / USUAL_MINUTES) ** 0.25)))


def pretraining(minutes: float, files: list[str], *, own_text: bool, depth: int | None = None) -> dict[str, Any]:
    """The recipe of the first stage."""
    split = {"kind": "hash"} if own_text else {"kind": "group", "group_field": "module"}
    return {
        "name": "pretrain",
        "model": {"depth": depth or depth_for(minutes)},
        "tokenizer": {"kind": "bpe", "vocabulary": 4096},
        "data": {
            "kind": "text",
            "files": files,
            "documents": "paragraph" if own_text and _is_one_file(files) else "file",
            "split": split,
            "context": 256,
        },
        "optim": {"model": {"kind": "muon"}},
        "budget": {"minutes": round(minutes * PRETRAIN_SHARE, 4), "tokens_per_step": 2048},
        "events": {"evaluate_tokens": 16384},
    }


def fine_tuning(minutes: float, base: Path, train: Path, held_out: Path) -> dict[str, Any]:
    """The recipe of the second stage."""
    return {
        "name": "finetune",
        "model": {"init_from": str(base)},
        "data": {"kind": "chat", "files": [str(train)], "held_out_files": [str(held_out)]},
        "optim": {"model": {"kind": "muon"}},
        "budget": {"minutes": round(minutes * FINETUNE_SHARE, 4), "tokens_per_step": 2048},
        "events": {"evaluate_tokens": 8192},
    }


def _is_one_file(files: list[str]) -> bool:
    return len(files) == 1 and Path(files[0]).expanduser().is_file()


def quickstart(
    folder: Path,
    *,
    minutes: float,
    text: str | None,
    code: bool,
    command: list[str],
    listener: Listener,
    say: Say,
) -> Life:
    """Live the whole life in `folder`.

    Args:
        folder: new or empty.
        minutes: of work, installation apart.
        text: the user's own files instead of Python's documentation; then there are no questions to learn.
        code: whether the standard library's sources are learnt too.
        command: the command line, for the report.
        listener: sees the events of each stage.
        say: receives lines of progress.

    Raises:
        GroundupError: E-USE-021, E-USE-022 for wishes that cannot be met; whatever a stage raises.
    """
    require_free(folder, text=text, code=code)
    began = time.perf_counter()
    life = Life(folder)
    files, questions = find_corpus(folder, text=text, code=code, say=say)

    def stage(name: str, recipe: dict[str, Any]) -> Result:
        made = train_recipe(
            read_recipe(recipe), folder / name, stage=name, command=command, listeners=(listener,), say=say
        )
        life.stages.append(made)
        return made

    say("2/4  pretraining from zero")
    first = stage("pretrain", pretraining(minutes, files, own_text=text is not None))
    if questions is not None and first.outcome == "finished":
        say("3/4  fine-tuning on questions and answers")
        life.questions = questions[1]
        stage("finetune", fine_tuning(minutes, first.folder, *questions))
    say("4/4  report")
    life.seconds = time.perf_counter() - began
    stages = [made.folder for made in life.stages]
    for one in stages:
        write_report(one)
    write_json(folder / RESULTS_FILE, {"command": shlex.join(command), "seconds": life.seconds})
    write_report(folder, title="groundup quickstart", stages=stages)
    return life


def require_free(folder: Path, *, text: str | None, code: bool) -> None:
    """Refuse a folder that holds something, and wishes that exclude each other."""
    if folder.exists() and any(folder.iterdir()):
        raise GroundupError(
            "E-USE-022",
            "the folder is not empty",
            where=str(folder),
            why="a quickstart begins from nothing and would write over what is there",
            fix=f"groundup quickstart --out {folder}-2   (or remove the folder)",
            exit_code=2,
        )
    if text is not None and code:
        raise GroundupError(
            "E-USE-021",
            "--code and --text were given together",
            where="groundup quickstart",
            why="--code adds the sources of Python's library to its documentation; with --text neither is read",
            fix="leave one of the two out",
            exit_code=2,
        )


def find_corpus(folder: Path, *, text: str | None, code: bool, say: Say) -> tuple[list[str], tuple[Path, Path] | None]:
    """The files to learn from, and the questions for training and for measuring if there are any."""
    if text is not None:
        say(f"1/4  corpus: {text}")
        return [text], None
    say("1/4  corpus: the documentation of this Python installation")
    corpus = write_corpus(folder / "corpus", code=code)
    size = sum(corpus.text_bytes.values()) / 1e6
    say(f"     {corpus.num_documents} documents, {size:.1f} MB")
    return [str(corpus.documents)], write_questions(folder / "corpus")


def sample_answers(life: Life) -> list[dict[str, str]]:
    """A few held-out questions with the fine-tuned model's answers beside the reference."""
    if life.questions is None:
        return []
    loaded = load(life.stages[-1].folder)
    rows = [json.loads(line) for line in life.questions.read_text(encoding="utf-8").splitlines()]
    answers = []
    for row in rows[:: max(1, len(rows) // SAMPLE_QUESTIONS)][:SAMPLE_QUESTIONS]:
        question, reference = row["messages"][0]["content"], row["messages"][1]["content"]
        said = loaded.chat([{"role": "user", "content": question}], max_tokens=120)
        answers.append({"question": question, "answer": said, "reference": reference})
    return answers
