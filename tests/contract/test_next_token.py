"""The contract of every way of learning, for next_token: a resume continues bit for bit, accumulation is
exact, and what the optimizers and schedules do is what their papers say."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.toy_run import (
    Captured,
    Options,
    assert_same,
    at,
    changed,
    chat_file,
    chat_recipe,
    events,
    kill,
    killed_run,
    outcome,
    parts_of,
    run,
    saved,
    terminate,
    text_file,
    text_recipe,
)
from torch import Tensor, nn
from torch.nn import functional as F

from groundup import functional
from groundup.contract import IGNORE
from groundup.engine.guard import Guard
from groundup.engine.loop import Run, update
from groundup.engine.options import GuardOptions
from groundup.engine.state import Average, State
from groundup.engine.stop import Stop
from groundup.functional import chunked_cross_entropy, global_norm
from groundup.objectives.next_token import NextToken, NextTokenOptions
from groundup.optim.groups import is_hidden_matrix
from groundup.optim.muon import COEFFICIENTS, orthogonalise
from groundup.optim.optimizer import Optimizer
from groundup.optim.options import AdamWOptions, MuonOptions, SGDOptions
from groundup.optim.schedules import ScheduleOptions, factor
from groundup.parallel.blocks import recompute_blocks
from groundup.run.language import LanguageWork

# ---------------------------------------------------------------- resume


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Options, Path]:
    """A recipe whose text is already prepared, and an uninterrupted run of it."""
    root = tmp_path_factory.mktemp("straight")
    recipe = text_recipe(text_file(root), events__sample_every=6, events__sample_tokens=5)
    run(recipe, root / "run")
    return recipe, root / "run"


def prepared(straight: tuple[Options, Path], **changes: Any) -> Options:
    """The recipe on the text that the straight run has prepared."""
    recipe, folder = straight
    data = {"kind": "text", "prepared": str(folder / "data"), "context": 32}
    return changed(recipe, data=data, tokenizer=None, **changes)


def test_G1_the_same_recipe_twice_is_bitwise_equal(straight: tuple[Options, Path], tmp_path: Path) -> None:
    recipe, folder = straight
    run(recipe, tmp_path / "run")
    assert_same(outcome(tmp_path / "run"), outcome(folder))
    run(changed(recipe, seed=2), tmp_path / "other")
    with pytest.raises(AssertionError):
        assert_same(outcome(tmp_path / "other"), outcome(folder))


def test_G2_stopped_and_resumed_is_bitwise_equal(straight: tuple[Options, Path], tmp_path: Path) -> None:
    recipe, folder = straight
    stopped = run(recipe, tmp_path / "run", listeners=(at("step", 7, terminate),))
    assert (stopped.outcome, stopped.exit_code, stopped.steps) == ("stopped", 143, 7)
    assert events(tmp_path / "run")[-1]["event"] == "end"
    assert run(recipe, tmp_path / "run", resume=True).outcome == "finished"
    assert_same(outcome(tmp_path / "run"), outcome(folder))


@pytest.mark.parametrize("step", [10, 12])
def test_G2_stopped_where_a_checkpoint_is_due_anyway(straight: tuple[Options, Path], tmp_path: Path, step: int) -> None:
    recipe, folder = straight
    run(recipe, tmp_path / "run", listeners=(at("step", step, terminate),))
    run(recipe, tmp_path / "run", resume=True)
    assert_same(outcome(tmp_path / "run"), outcome(folder))


KILLS = [("start", 0), ("step", 4), ("save", 5), ("save", 10), ("save", 12), ("end", 12)]


@pytest.mark.parametrize(("event", "step"), KILLS)
def test_G2_killed_and_resumed_is_bitwise_equal(
    straight: tuple[Options, Path], tmp_path: Path, event: str, step: int
) -> None:
    recipe, folder = straight
    killed_run(recipe, tmp_path / "run", at(event, step, kill))
    run(recipe, tmp_path / "run", resume=True)
    assert_same(outcome(tmp_path / "run"), outcome(folder))


def test_G2_killed_again_and_again(straight: tuple[Options, Path], tmp_path: Path) -> None:
    recipe, folder = straight
    killed_run(recipe, tmp_path / "run", at("step", 6, kill))
    for step in (8, 8, 11):
        killed_run(recipe, tmp_path / "run", at("step", step, kill), resume=True)
    run(recipe, tmp_path / "run", resume=True)
    assert_same(outcome(tmp_path / "run"), outcome(folder))


def test_resuming_a_finished_run_changes_nothing(straight: tuple[Options, Path], tmp_path: Path) -> None:
    recipe, folder = straight
    run(recipe, tmp_path / "run")
    for _ in range(2):
        assert run(recipe, tmp_path / "run", resume=True).outcome == "finished"
    assert_same(outcome(tmp_path / "run"), outcome(folder))


KINDS = ["adamw", "sgd", "muon"]
SCHEDULES = ["constant", "linear", "cosine", "warmup_stable_decay"]


@pytest.mark.parametrize(("kind", "schedule"), list(zip([*KINDS, "muon"], SCHEDULES)))
def test_every_optimizer_and_schedule_resumes_bitwise(
    straight: tuple[Options, Path], tmp_path: Path, kind: str, schedule: str
) -> None:
    optimizer = {"kind": kind, "learning_rate": 0.01, "schedule": {"kind": schedule, "warmup": 3}}
    recipe = prepared(
        straight, optim={"model": optimizer}, budget__steps=7, events={"save_every": 4, "evaluate_every": 0}
    )
    run(recipe, tmp_path / "straight")
    killed_run(changed(recipe), tmp_path / "killed", at("save", 4, kill))
    run(recipe, tmp_path / "killed", resume=True)
    assert_same(outcome(tmp_path / "killed"), outcome(tmp_path / "straight"))
    optimizer_state = [name for name in outcome(tmp_path / "killed").tensors if name.startswith("optimizer/")]
    assert optimizer_state


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_chat_and_mixtures_resume_bitwise(tmp_path: Path, kind: str) -> None:
    if kind == "chat":
        recipe = chat_recipe(chat_file(tmp_path), budget__steps=9)
    else:
        sources = {
            name: {"files": [str(text_file(tmp_path, 60, seed))], "weight": weight}
            for name, weight, seed in (("plain", 3.0, 1), ("other", 1.0, 2))
        }
        data = {"kind": "text", "sources": sources, "context": 32, "workers": 1}
        recipe = changed(text_recipe(tmp_path / "-", budget__steps=9), data=data)
    run(recipe, tmp_path / "straight")
    killed_run(recipe, tmp_path / "killed", at("step", 7, kill))
    run(recipe, tmp_path / "killed", resume=True)
    assert_same(outcome(tmp_path / "killed"), outcome(tmp_path / "straight"))


# ---------------------------------------------------------------- accumulation and order


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> LanguageWork:
    root = tmp_path_factory.mktemp("chats")
    return parts_of(chat_recipe(chat_file(root)), root / "run")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> LanguageWork:
    root = tmp_path_factory.mktemp("texts")
    return parts_of(text_recipe(text_file(root)), root / "run")


def gradients(
    parts: LanguageWork,
    tmp_path: Path,
    micro: int,
    accumulate: int,
    *,
    steps: int = 1,
    clip: float | None = None,
    recompute: bool = False,
) -> dict[str, Tensor]:
    """Of the last of `steps` steps of `micro` x `accumulate` rows each."""
    recipe = parts.recipe
    budget = recipe.budget.model_copy(update={"micro_batch": micro})
    stream = LanguageWork(**{**vars(parts), "recipe": recipe.model_copy(update={"budget": budget})}).source()
    model = parts.network()
    if recompute:
        recompute_blocks(model.layers)
    captured = Captured(model)
    state = State(model, {"model": captured}, stream, NextToken(NextTokenOptions(), model))
    guard = Guard(GuardOptions(), report=lambda *arguments: None, folder=tmp_path)
    whole = Run(state, steps, accumulate, {"model": clip}, [], guard, Stop(), parts.device, nullcontext)
    for _ in range(steps):
        update(whole, "model")
    return captured.gradients


@pytest.mark.parametrize("data", ["texts", "chats"])
@pytest.mark.parametrize(("micro", "accumulate"), [(4, 2), (2, 4), (1, 8)])
def test_accumulation_is_exact(
    request: pytest.FixtureRequest, tmp_path: Path, data: str, micro: int, accumulate: int
) -> None:
    parts = request.getfixturevalue(data)
    whole = gradients(parts, tmp_path, 8, 1, steps=3)
    split = gradients(parts, tmp_path, micro, accumulate, steps=3)
    assert whole and list(whole) == list(split)
    for name, gradient in whole.items():
        assert torch.allclose(split[name], gradient, rtol=0.0, atol=1e-6), name
        assert gradient.abs().max() > 1e-5, name


def test_the_masks_of_the_chats_are_ragged(chats: LanguageWork) -> None:
    batch = chats.source().next("model")
    counts = (batch["target_BT"] != IGNORE).sum(dim=1).tolist()
    assert len(set(counts)) > 1 and min(counts) < batch["target_BT"].shape[1]


@pytest.mark.parametrize("data", ["texts", "chats"])
def test_R8_the_order_of_samples_does_not_depend_on_the_micro_batch(request: pytest.FixtureRequest, data: str) -> None:
    parts = request.getfixturevalue(data)
    seen = []
    for micro in (1, 2, 8):
        budget = parts.recipe.budget.model_copy(update={"micro_batch": micro})
        stream = LanguageWork(**{**vars(parts), "recipe": parts.recipe.model_copy(update={"budget": budget})}).source()
        seen.append(torch.cat([stream.next("model")["tokens_BT"] for _ in range(80 // micro)]))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])


def test_recompute_changes_no_gradient(texts: LanguageWork, tmp_path: Path) -> None:
    kept = gradients(texts, tmp_path, 4, 2)
    again = gradients(texts, tmp_path, 4, 2, recompute=True)
    for name, gradient in kept.items():
        assert torch.equal(again[name], gradient), name


def test_clipping_scales_all_gradients_to_the_limit(texts: LanguageWork, tmp_path: Path) -> None:
    free = gradients(texts, tmp_path, 4, 2)
    norm = float(global_norm(list(free.values())))
    clipped = gradients(texts, tmp_path, 4, 2, clip=norm / 3)
    assert float(global_norm(list(clipped.values()))) == pytest.approx(norm / 3, rel=1e-5)
    for name, gradient in free.items():
        assert torch.allclose(clipped[name], gradient / 3, rtol=1e-5, atol=1e-9), name
    loose = gradients(texts, tmp_path, 4, 2, clip=norm * 3)
    assert all(torch.equal(loose[name], gradient) for name, gradient in free.items())


# ---------------------------------------------------------------- averages and early stopping


def test_the_average_is_the_written_recurrence() -> None:
    module = nn.Linear(3, 2)
    average = Average(module, 0.9)
    expected = module.weight.detach().double().clone()
    for number in range(40):
        with torch.no_grad():
            module.weight += torch.randn_like(module.weight, dtype=torch.float32)
        average.update()
        decay = min(0.9, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * module.weight.detach().double()
    assert torch.allclose(average.shadow["weight"].double(), expected, atol=1e-5)
    live = module.weight.detach().clone()
    with average.applied():
        assert torch.equal(module.weight, average.shadow["weight"])
    assert torch.equal(module.weight, live)


def test_the_averaged_weights_are_handed_out_and_survive_a_resume(
    straight: tuple[Options, Path], tmp_path: Path
) -> None:
    recipe = prepared(straight, events__average=0.8)
    run(recipe, tmp_path / "straight")
    killed_run(recipe, tmp_path / "killed", at("step", 8, kill))
    run(recipe, tmp_path / "killed", resume=True)
    assert_same(outcome(tmp_path / "killed"), outcome(tmp_path / "straight"))
    tensors = outcome(tmp_path / "straight").tensors
    name = "layers.0.feed_forward.up_proj.weight"
    assert torch.equal(tensors[f"final/{name}"], tensors[f"average/{name}"])
    plain = outcome(straight[1]).tensors
    assert not torch.equal(tensors[f"final/{name}"], plain[f"final/{name}"])


EARLY = {"metric": "loss", "patience": 2, "minimum_change": 1e9}
"""The first evaluation, after step 2, stays the best: the run ends with the third, after step 6."""


def early_recipe(straight: tuple[Options, Path], **changes: Any) -> Options:
    given = {"log_every": 1, "save_every": 3, "keep_every": 1, "evaluate_every": 2, "evaluate_tokens": 400}
    return changed(prepared(straight, events={**given, "early_stopping": EARLY}), **changes)


@pytest.mark.parametrize("average", [None, 0.7])
def test_early_stopping_hands_out_the_best_weights(
    straight: tuple[Options, Path], tmp_path: Path, average: float | None
) -> None:
    recipe = early_recipe(straight, events__save_every=2, events__average=average)
    result = run(recipe, tmp_path / "run")
    assert (result.outcome, result.steps) == ("early_stopped", 6)
    assert events(tmp_path / "run")[-1] | {"reason": ""} == {
        "event": "end", "step": 6, "outcome": "early_stopped", "reason": "",
    }  # fmt: skip
    then, now = saved(tmp_path / "run", step=2).tensors, outcome(tmp_path / "run").tensors
    for name, tensor in then["model" if average is None else "average"].items():
        assert torch.equal(now[f"final/{name}"], tensor), name


@pytest.mark.parametrize(("event", "step"), [("step", 4), ("save", 3), ("save", 6), ("end", 6)])
def test_early_stopping_survives_a_resume(
    straight: tuple[Options, Path], tmp_path: Path, event: str, step: int
) -> None:
    recipe = early_recipe(straight)
    run(recipe, tmp_path / "straight")
    killed_run(recipe, tmp_path / "killed", at(event, step, kill))
    assert run(recipe, tmp_path / "killed", resume=True).outcome == "early_stopped"
    assert_same(outcome(tmp_path / "killed"), outcome(tmp_path / "straight"))


# ---------------------------------------------------------------- optimizers against references


class Small(nn.Module):
    """Parameters of every kind that the groups tell apart."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.embedding = nn.Embedding(7, 6)
        self.wide, self.tall = nn.Linear(6, 9), nn.Linear(9, 6, bias=False)
        self.twin = nn.Linear(6, 9, bias=False)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0.0, 0.5, generator=generator)

    def set_gradients(self, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        for parameter in self.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)


CONSTANT = ScheduleOptions(kind="constant", warmup=0)
STEPS = 12


def groups_of(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    named = list(module.named_parameters())
    return [
        {"params": [p for n, p in named if is_hidden_matrix(n, p)], "weight_decay": decay},
        {"params": [p for n, p in named if not is_hidden_matrix(n, p)], "weight_decay": 0.0},
    ]


def compare_steps(ours: Optimizer, mine: Small, theirs: torch.optim.Optimizer, yours: Small) -> None:
    for step in range(STEPS):
        mine.set_gradients(step)
        yours.set_gradients(step)
        for group in theirs.param_groups:
            group["lr"] = ours.learning_rate(step)
        ours.step(step)
        theirs.step()
        for (name, parameter), other in zip(mine.named_parameters(), yours.parameters(), strict=True):
            assert torch.allclose(parameter, other, rtol=1e-5, atol=1e-6), (step, name)


def test_adamw_is_torchs_step_by_step() -> None:
    mine, yours = Small(), Small()
    schedule = ScheduleOptions(kind="cosine", warmup=3)
    options = AdamWOptions(kind="adamw", learning_rate=0.05, weight_decay=0.2, schedule=schedule, epsilon=1e-7)
    theirs = torch.optim.AdamW(groups_of(yours, 0.2), lr=0.05, betas=(0.9, 0.95), eps=1e-7, fused=False)
    compare_steps(Optimizer(mine, options, steps=STEPS), mine, theirs, yours)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs_step_by_step(nesterov: bool) -> None:
    mine, yours = Small(), Small()
    options = SGDOptions(
        kind="sgd", learning_rate=0.05, weight_decay=0.2, schedule=CONSTANT, momentum=0.8, nesterov=nesterov
    )
    theirs = torch.optim.SGD(groups_of(yours, 0.2), lr=0.05, momentum=0.8, nesterov=nesterov, foreach=False)
    compare_steps(Optimizer(mine, options, steps=STEPS), mine, theirs, yours)


def plain_muon(weight: Tensor, gradients: list[Tensor], *, rate: float, momentum: float, decay: float) -> Tensor:
    """Muon for one matrix, written down as in the two papers, one line for each sentence."""
    a, b, c = 3.4445, -4.7750, 2.0315
    weight, buffer = weight.clone(), torch.zeros_like(weight)
    for gradient in gradients:
        buffer = momentum * buffer + gradient
        x = gradient + momentum * buffer
        transposed = x.shape[0] > x.shape[1]
        x = x.T if transposed else x
        x = x / (x.norm() + 1e-7)
        for _ in range(5):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        x = x.T if transposed else x
        weight = weight - rate * decay * weight - rate * 0.2 * math.sqrt(max(weight.shape)) * x
    return weight


def test_muon_is_the_plain_reference_for_matrices_and_adamw_for_the_rest() -> None:
    mine, yours = Small(), Small()
    options = MuonOptions(
        kind="muon", learning_rate=0.02, weight_decay=0.1, schedule=CONSTANT, momentum=0.9, adamw_scale=0.5
    )
    optimizer = Optimizer(mine, options, steps=STEPS)
    history: dict[str, list[Tensor]] = {name: [] for name, _ in mine.named_parameters()}
    rest = [p for n, p in yours.named_parameters() if not is_hidden_matrix(n, p)]
    adamw = torch.optim.AdamW(rest, lr=0.01, betas=(0.9, 0.95), weight_decay=0.0, fused=False)
    start = {name: p.detach().clone() for name, p in mine.named_parameters()}
    for step in range(STEPS):
        mine.set_gradients(step)
        yours.set_gradients(step)
        for name, parameter in mine.named_parameters():
            assert parameter.grad is not None
            history[name].append(parameter.grad.clone())
        optimizer.step(step)
        adamw.step()
    for (name, parameter), other in zip(mine.named_parameters(), yours.parameters(), strict=True):
        if is_hidden_matrix(name, parameter):
            expected = plain_muon(start[name], history[name], rate=0.02, momentum=0.9, decay=0.1)
            assert torch.allclose(parameter, expected, rtol=1e-4, atol=1e-5), name
        else:
            assert torch.allclose(parameter, other, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 6, 20), (3, 20, 6)])
def test_orthogonalise_brings_singular_values_near_one(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert (values > 0.3).all() and (values < 1.3).all()
    assert COEFFICIENTS == (3.4445, -4.7750, 2.0315)


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_put_back_goes_on_as_if_nothing_had_been(kind: str) -> None:
    options = {"adamw": AdamWOptions, "sgd": SGDOptions, "muon": MuonOptions}[kind]
    given = options(kind=kind, learning_rate=0.02, schedule=ScheduleOptions(kind="linear", warmup=2))
    one, other = Small(), Small()
    first, second = Optimizer(one, given, steps=STEPS), Optimizer(other, given, steps=STEPS)
    for step in range(STEPS):
        if step == 5:
            other.load_state_dict({name: tensor.clone() for name, tensor in one.state_dict().items()})
            second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})
        for module, optimizer in ((one, first), (other, second))[: 1 if step < 5 else 2]:
            module.set_gradients(step)
            optimizer.step(step)
    for parameter, twin in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter, twin)


# ---------------------------------------------------------------- schedules


def closed_form(kind: str, step: int, steps: int, warmup: int, final: float, decay: float) -> float:
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / (steps - warmup)
    match kind:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 + done * (final - 1.0)
        case "cosine":
            return final + (1.0 - final) * math.cos(math.pi * done / 2) ** 2
    falls_from = max(warmup, steps - math.ceil(decay * steps))
    if step <= falls_from:
        return 1.0
    return 1.0 - (1.0 - final) * (step - falls_from) / (steps - falls_from)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(
    ("steps", "warmup", "final", "decay"), [(100, 10, 0.1, 0.5), (7, 0, 0.0, 0.3), (5, 5, 0.2, 1.0)]
)
def test_schedules_are_their_closed_forms(kind: str, steps: int, warmup: int, final: float, decay: float) -> None:
    options = ScheduleOptions(
        kind=kind, warmup=warmup, final=final, decay=decay if kind == "warmup_stable_decay" else None
    )
    for step in range(steps):
        expected = closed_form(kind, step, steps, warmup, final, decay)
        assert factor(options, step, steps) == pytest.approx(expected, abs=1e-12), step
    assert factor(options, 0, steps) > 0.0
    assert max(factor(options, step, steps) for step in range(steps)) == 1.0


# ---------------------------------------------------------------- the loss


CASES = {"none masked": 0.0, "some masked": 0.4, "all masked": 1.0}


@pytest.mark.parametrize("masked", CASES.values(), ids=CASES)
@pytest.mark.parametrize("chunk", [1, 40, 1 << 22])
def test_chunked_cross_entropy_is_cross_entropy(monkeypatch: pytest.MonkeyPatch, masked: float, chunk: int) -> None:
    monkeypatch.setattr(functional, "CHUNK_ELEMENTS", chunk)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 7, 5, generator=generator, requires_grad=True)
    weight = torch.randn(11, 5, generator=generator, requires_grad=True)
    target = torch.randint(0, 11, (3, 7), generator=generator)
    target[torch.rand(3, 7, generator=generator) < masked] = IGNORE
    expected = F.cross_entropy(
        (hidden @ weight.T).reshape(-1, 11), target.reshape(-1), reduction="sum", ignore_index=IGNORE
    )
    wanted = torch.autograd.grad(expected * 0.3, (hidden, weight))
    loss = chunked_cross_entropy(hidden, weight, target)
    found = torch.autograd.grad(loss * 0.3, (hidden, weight))
    assert loss.dtype == torch.float32 and loss.shape == ()
    assert torch.allclose(loss, expected, rtol=1e-6, atol=1e-6)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(chunked_cross_entropy(hidden, weight, target), expected, rtol=1e-6, atol=1e-6)


def test_chunked_cross_entropy_does_not_overflow() -> None:
    hidden = torch.full((1, 2, 1), 200.0, requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]])
    loss = chunked_cross_entropy(hidden, weight, torch.tensor([[0, 1]]))
    assert loss.item() == pytest.approx(400.0)
