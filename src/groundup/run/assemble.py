"""A resolved recipe and its data → everything that the loop needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup import checkpoint
from groundup.contract import Source
from groundup.engine.events import Evaluate, EventLog, Listener, LogSteps, Sample, Save
from groundup.engine.guard import Guard
from groundup.engine.loop import Run
from groundup.engine.precision import autocast
from groundup.engine.state import Average, State
from groundup.engine.stop import Stop
from groundup.machine.ceiling import choose_precision, matrix_ceiling, resolve_device
from groundup.machine.describe import describe
from groundup.machine.memory import current_memory_bytes
from groundup.models.llama import Llama, LlamaOptions
from groundup.objectives import OBJECTIVES
from groundup.optim.optimizer import Optimizer
from groundup.parallel.blocks import compile_blocks, recompute_blocks
from groundup.recipe import to_yaml
from groundup.recipe.resolve import architecture, resolve
from groundup.recipe.tree import ChatData, Recipe
from groundup.run import models
from groundup.run.chats import PreparedChats, chat_stream, prepare_chats
from groundup.run.measuring import answers_of, evaluate_answers, evaluate_texts, sample_prompts
from groundup.run.texts import PreparedTexts, Say, prepare_texts, text_stream
from groundup.text.chat import ChatTemplate
from groundup.text.tokenizer import Tokenizer

RECIPE_FILE, SOURCE_FILE = "recipe.yaml", "recipe.source.yaml"


@dataclass
class Parts:
    """What a recipe turns into before the length of the run is known."""

    recipe: Recipe
    device: torch.device
    precision: str
    options: LlamaOptions
    tokenizer: Tokenizer
    template: ChatTemplate | None
    texts: PreparedTexts | None
    chats: PreparedChats | None
    init_from: Path | None

    @property
    def base(self) -> LlamaOptions | None:
        """The architecture of the model to go on with, if there is one."""
        return self.options if self.init_from is not None else None

    def source(self) -> Source:
        """A fresh training stream."""
        if self.chats is not None:
            return chat_stream(self.recipe, self.chats)
        assert self.texts is not None
        return text_stream(self.recipe, self.texts)

    @property
    def rows_per_epoch(self) -> int:
        """Packed rows in one pass over the training data."""
        stream = self.source()
        return sum(packer.rows(0) for packer in stream.packers.values())  # type: ignore[attr-defined]

    @property
    def bytes_per_target(self) -> float:
        """Text bytes for each trained target."""
        prepared = self.chats or self.texts
        assert prepared is not None
        return prepared.bytes_per_target

    def network(self) -> Llama:
        """The model with its first weights: drawn from the seed, or those of init_from."""
        if self.init_from is None:
            return models.initialised(self.options, self.device, self.recipe.seed)
        model = models.build(self.options, self.device)
        loaded = models.load(self.init_from, self.device)
        models.load_weights(model, loaded.model.state_dict())
        return model

    def meta_model(self) -> Llama:
        """The network without memory, to count and to name."""
        with torch.device("meta"):
            return Llama(self.options)

    def hardware(self, folder: Path) -> dict[str, Any]:
        """What this machine is, for the results."""
        return {**describe(folder), "device": str(self.device), "precision": self.precision}

    def small_files(self) -> dict[str, bytes]:
        """model.json, tokenizer.json and chat.json."""
        return models.model_files(self.options, self.tokenizer, self.template, self.recipe.model.family)


def gather(recipe: Recipe, folder: Path, *, say: Say) -> Parts:
    """Prepare the data and fill in every number that does not need a measurement of speed."""
    device = resolve_device(recipe.hardware.device)
    if recipe.hardware.threads is not None:
        torch.set_num_threads(recipe.hardware.threads)
    base, base_folder = None, None
    if recipe.model.init_from is not None:
        base, base_folder = models.load_described(Path(recipe.model.init_from))
    recipe = resolve(recipe, device=device.type, base=base.options if base else None)
    tokenizer = base.tokenizer if base else None
    template = base.chat if base else None
    data_folder = folder / "data"
    texts = chats = None
    if isinstance(recipe.data, ChatData):
        if tokenizer is None:
            tokenizer = tokenizer_of_chats(recipe, data_folder, say)
        context = recipe.data.context or 0
        chats = prepare_chats(recipe, tokenizer, template, context=context, folder=data_folder)
        template = chats.template
    else:
        texts = prepare_texts(recipe, data_folder, tokenizer, say=say, workers=recipe.data.workers)
        tokenizer = texts.tokenizer
    options = base.options if base else architecture(recipe.model, tokenizer.vocabulary)
    precision = choose_precision(recipe.hardware.precision, device).name
    return Parts(recipe, device, precision, options, tokenizer, template, texts, chats, base_folder)


def tokenizer_of_chats(recipe: Recipe, folder: Path, say: Say) -> Tokenizer:
    """A tokenizer for a chat model that starts from nothing: trained on the conversations themselves."""
    from groundup.data.chat_rows import ChatLedger, ChatOptions, Row, read_chat
    from groundup.run.texts import DEFAULT_VOCABULARY
    from groundup.text.options import TokenizerOptions
    from groundup.text.train import train_tokenizer

    assert isinstance(recipe.data, ChatData)
    options = ChatOptions(**{name: dict(recipe.data)[name] for name in ChatOptions.model_fields})
    rows = [row for row in read_chat(recipe.data.files, options, ChatLedger()) if isinstance(row, Row)]
    say("tokenizer: training on the conversations")
    wanted = recipe.tokenizer or TokenizerOptions(kind="bpe", vocabulary=DEFAULT_VOCABULARY)
    tokenizer = train_tokenizer((m["content"] for row in rows for m in row.messages), wanted)
    tokenizer.save(folder)
    return tokenizer


def new_state(parts: Parts) -> State:
    """The state before the first step."""
    recipe = parts.recipe
    model = parts.network()
    torch.manual_seed(recipe.seed)
    steps = recipe.budget.steps or 1
    average = Average(model, recipe.events.average) if recipe.events.average is not None else None
    optimizers = {name: Optimizer(model, options, steps=steps) for name, options in recipe.optim.items()}
    _, objective = OBJECTIVES[recipe.objective.kind]
    return State(
        module=model,
        optimizers=dict(optimizers),
        source=parts.source(),
        objective=objective(recipe.objective, model),
        average=average,
    )


def assemble(
    parts: Parts, folder: Path, *, listeners: tuple[Listener, ...], stop: Stop
) -> tuple[Run, EventLog, Saver]:
    """The run, its event log, and what saves a checkpoint now."""
    recipe, device = parts.recipe, parts.device
    state = new_state(parts)
    model = state.module
    assert isinstance(model, Llama)
    if recipe.hardware.recompute:
        recompute_blocks(model.layers)
    if recipe.hardware.compile == "on":
        compile_blocks(model.layers)
    log = EventLog(folder / "events.jsonl", listeners)

    def report(kind: str, step: int, detail: dict[str, Any]) -> None:
        log.write("guard", step, kind=kind, detail=detail)

    run = Run(
        state=state,
        steps=recipe.budget.steps or 1,
        accumulate=accumulate(recipe),
        clip={name: options.clip for name, options in recipe.optim.items()},
        events=[],
        guard=Guard(recipe.guard, report=report, folder=folder / "faults"),
        stop=stop,
        device=device,
        autocast=autocast(parts.precision, device),
    )
    save = Saver(run, parts, folder, log)
    run.events = _events(run, parts, log, save)
    return run, log, save


def _events(run: Run, parts: Parts, log: EventLog, save: Saver) -> list[Any]:
    """The fixed list, in the order in which they are called."""
    recipe, state = parts.recipe, run.state
    events, model = recipe.events, state.module
    assert isinstance(model, Llama)
    dtype = torch.bfloat16 if parts.precision == "bfloat16" else None

    def averaged(work: Callable[[], Any]) -> Callable[[], Any]:
        def inside() -> Any:
            if state.average is None:
                return work()
            with state.average.applied():
                return work()

        return inside

    def evaluate() -> dict[str, Any]:
        limit = events.evaluate_tokens
        if parts.chats is not None:
            return evaluate_answers(model, parts, limit=limit, autocast=dtype)
        return evaluate_texts(model, parts, limit=limit, autocast=dtype)

    def sample() -> list[dict[str, str]]:
        return answers_of(model, parts, sample_prompts(parts), max_tokens=events.sample_tokens)

    stream = state.source
    return [
        LogSteps(
            log,
            every=events.log_every or 1,
            steps=run.steps,
            ledger=lambda: stream.ledger,  # type: ignore[attr-defined]
            bytes_per_target=parts.bytes_per_target,
            flops_per_token=flops_per_token(parts.options, recipe.data.context or 0),
            ceiling=matrix_ceiling(
                parts.device, torch.bfloat16 if dtype is not None else torch.float32, seconds=0.2
            ),
            memory=current_memory_bytes,
        ),
        Evaluate(
            log,
            every=events.evaluate_every or 0,
            evaluate=averaged(evaluate),
            stopping=events.early_stopping,
            stop=run.stop,
        ),
        Sample(log, every=events.sample_every or 0, sample=averaged(sample)),
        Save(every=events.save_every or 0, save=save),
    ]


class Saver:
    """Writes a checkpoint of the present moment and the `save` line after it.

    A checkpoint that a stop asked for is not planned: an uninterrupted run would not have made it, so its
    line vanishes with the resume.
    """

    def __init__(self, run: Run, parts: Parts, folder: Path, log: EventLog) -> None:
        self.run, self.folder, self.log, self.events = run, folder, log, parts.recipe.events
        self.files = {**parts.small_files(), RECIPE_FILE: to_yaml(parts.recipe).encode()}
        self.saved = -1  # the step of the newest planned checkpoint

    def __call__(self, *, planned: bool = True) -> None:
        """Save, unless this step has its planned checkpoint already."""
        run = self.run
        if self.saved == run.state.step:
            return
        numbers = {**run.state.numbers(), "guard": run.guard.state_dict(), "planned": planned}
        numbers["events"] = [event.state_dict() for event in run.events]
        numbers["log_offset"] = self.log.offset
        path = checkpoint.save(
            self.folder / "checkpoints",
            step=run.state.step,
            tensors=run.state.tensors(),
            state=numbers,
            files=self.files,
            keep=self.events.keep,
            keep_every=self.events.keep_every,
        )
        self.saved = run.state.step if planned else -1
        self._note(path)

    def resumed(self, saved: checkpoint.Checkpoint, path: Path) -> None:
        """Put the log back to the moment of a checkpoint, with its line if it was planned."""
        self.log.cut(saved.state["log_offset"])
        if saved.state["planned"]:
            self.saved = saved.step
            self._note(path)

    def _note(self, path: Path) -> None:
        self.log.write("save", self.run.state.step, path=os.fspath(path.relative_to(self.folder)))


def restore(run: Run, saved: checkpoint.Checkpoint) -> None:
    """Put a run back to the moment of a checkpoint."""
    run.state.load_tensors(saved.tensors)
    run.state.load_numbers(saved.state)
    run.guard.load_state_dict(saved.state["guard"])
    for event, state in zip(run.events, saved.state["events"], strict=True):
        event.load_state_dict(state)


def accumulate(recipe: Recipe) -> int:
    """Micro-batches of one step."""
    rows = (recipe.budget.tokens_per_step or 1) // (recipe.data.context or 1)
    return rows // (recipe.budget.micro_batch or 1)


def flops_per_token(options: LlamaOptions, context: int) -> float:
    """Floating-point operations of forward and backward for one token: six for each weight of a matrix
    product, and the attention scores over half a context on average (Kaplan et al. 2020, arXiv:2001.08361)."""
    per_layer = options.width * options.head_size * (2 * options.heads + 2 * options.key_value_heads)
    per_layer += 3 * options.width * options.hidden
    weights = options.layers * per_layer + options.width * options.vocabulary
    attention = options.layers * options.heads * options.head_size * context
    return 6.0 * weights + 6.0 * attention
