"""The contract of masked-token pretraining: a resume continues bit for bit, accumulation is exact, the loss is that of
the chosen tokens alone, and what it makes can be fine-tuned and nothing else."""

from __future__ import annotations

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
    events,
    kill,
    killed_run,
    labelled_file,
    labelled_recipe,
    outcome,
    parts_of,
    quick,
    run,
    text_file,
    text_recipe,
)
from torch import Tensor
from torch.nn import functional as F

import groundup
from groundup.contract import IGNORE
from groundup.engine.guard import Guard
from groundup.engine.loop import Run, update
from groundup.engine.options import GuardOptions
from groundup.engine.state import State
from groundup.engine.stop import Stop
from groundup.errors import GroundupError
from groundup.functional import chunked_cross_entropy
from groundup.models.gpt2 import GPT2, GPT2Options
from groundup.models.heads import Headed, HeadOptions, MaskedHead
from groundup.run import models
from groundup.run.entry import read_recipe
from groundup.run.language import LanguageWork
from groundup.run.preview import preview_rows
from groundup.text.options import MASK


def masked_recipe(file: Path, **changes: Any) -> Options:
    """A toy BERT with dropout that learns to tell hidden tokens."""
    model = {"family": "bert", "width": 16, "layers": 2, "heads": 2, "dropout": 0.1}
    recipe = text_recipe(file, model=model, objective={"kind": "masked_token"}, events__sample_every=None)
    return changed(recipe, **changes)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Options, Path]:
    """A recipe and an uninterrupted run of it."""
    root = tmp_path_factory.mktemp("straight")
    recipe = masked_recipe(text_file(root))
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        assert run(recipe, root / "run").outcome == "finished"
    return recipe, root / "run"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> LanguageWork:
    root = tmp_path_factory.mktemp("parts")
    return parts_of(masked_recipe(text_file(root), model__dropout=0.0), root / "run")


@pytest.mark.parametrize(("event", "step"), [("step", 4), ("save", 10), ("step", 11)])
def test_G2_killed_and_resumed_is_bitwise_equal(
    straight: tuple[Options, Path], tmp_path: Path, event: str, step: int
) -> None:
    recipe, folder = straight
    killed_run(recipe, tmp_path / "run", at(event, step, kill))
    run(recipe, tmp_path / "run", resume=True)
    assert_same(outcome(tmp_path / "run"), outcome(folder))


def test_another_seed_hides_other_tokens(straight: tuple[Options, Path], tmp_path: Path) -> None:
    recipe, folder = straight
    run(changed(recipe, seed=2), tmp_path / "other")
    with pytest.raises(AssertionError):
        assert_same(outcome(tmp_path / "other"), outcome(folder))


def gradients(parts: LanguageWork, folder: Path, micro: int, accumulate: int) -> dict[str, Tensor]:
    budget = parts.recipe.budget.model_copy(update={"micro_batch": micro})
    work = LanguageWork(**{**vars(parts), "recipe": parts.recipe.model_copy(update={"budget": budget})})
    model = work.network()
    captured = Captured(model)
    state = State(model, {"model": captured}, work.source(), work.objective(model))
    guard = Guard(GuardOptions(), report=lambda *arguments: None, folder=folder)
    whole = Run(state, 3, accumulate, {"model": None}, [], guard, Stop(), work.device, nullcontext)
    for _ in range(3):
        update(whole, "model")
    return captured.gradients


@pytest.mark.parametrize(("micro", "accumulate"), [(4, 2), (1, 8)])
def test_accumulation_is_exact(parts: LanguageWork, tmp_path: Path, micro: int, accumulate: int) -> None:
    whole = gradients(parts, tmp_path, 8, 1)
    split = gradients(parts, tmp_path, micro, accumulate)
    assert whole and list(whole) == list(split)
    assert {"head.dense.weight", "head.norm.weight", "head.bias", "body.embedding.weight"} <= set(whole)
    for name, gradient in whole.items():
        assert torch.allclose(split[name], gradient, rtol=0.0, atol=1e-6), name


def test_the_loss_is_of_the_chosen_tokens_alone(parts: LanguageWork) -> None:
    model = parts.network().eval()
    objective, batch = parts.objective(model), parts.source().next("model")
    chosen = batch["target_BT"] != IGNORE
    assert 0 < int(objective.weight("model", batch)) == int(chosen.sum()) < 0.2 * chosen.numel()
    expected = F.cross_entropy(model(batch)[chosen], batch["target_BT"][chosen], reduction="sum")
    torch.testing.assert_close(objective.loss("model", batch).total, expected, rtol=1e-5, atol=1e-5)
    special = torch.tensor(list(parts.tokenizer.specials.values()))
    assert not torch.isin(batch["target_BT"], special).any()
    assert (batch["tokens_BT"][chosen] == parts.tokenizer.specials[MASK]).float().mean() > 0.5


def test_the_bias_of_the_chunked_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.functional.CHUNK_ELEMENTS", 60)
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(*shape, generator=generator, requires_grad=True) for shape in ((9, 4), (20, 4), (20,))]
    target = torch.tensor([3, IGNORE, 19, 0, 7, 7, IGNORE, 1, 2])
    chunked = torch.autograd.grad(2 * chunked_cross_entropy(made[0], made[1], target, made[2]), made)
    logits = made[0] @ made[1].T + made[2]
    plain = torch.autograd.grad(2 * F.cross_entropy(logits, target, reduction="sum", ignore_index=IGNORE), made)
    for ours, expected in zip(chunked, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_evaluations_are_named_for_what_they_are(straight: tuple[Options, Path], tmp_path: Path) -> None:
    recipe, folder = straight
    on_the_way = events(folder, "evaluate")
    assert [sorted(line["metrics"]) for line in on_the_way] == [["loss", "masked_accuracy"]] * 3
    again = run(recipe, tmp_path / "run")
    assert [line["metric"] for line in again.evaluations] == ["masked_loss", "masked_accuracy"]
    assert all(line["bits_per_byte"] is None for line in events(folder, "step"))
    stopping = changed(recipe, events__early_stopping={"metric": "masked_accuracy"})
    assert read_recipe(stopping).events.early_stopping is not None
    refused(changed(recipe, events__early_stopping={"metric": "perplexity"}), "E-RECIPE-040")


def test_what_it_makes_writes_nothing_and_has_no_task(straight: tuple[Options, Path]) -> None:
    model = groundup.load(straight[1])
    with pytest.raises(GroundupError) as fault:
        model.generate("the cat", max_tokens=2)
    assert fault.value.code == "E-GEN-008" and "init_from" in fault.value.fix
    for ask in (lambda: model.predict(["the cat"]), lambda: model.evaluate([straight[0]["data"]["files"][0]])):
        with pytest.raises(GroundupError) as fault:
            ask()
        assert fault.value.code == "E-EVAL-022"


def test_a_classifier_takes_its_body(straight: tuple[Options, Path], tmp_path: Path) -> None:
    recipe = labelled_recipe(labelled_file(tmp_path, "classify"), "classify", model={"init_from": str(straight[1])})
    recipe.pop("tokenizer")
    work = parts_of(recipe, tmp_path / "run")
    network, before = work.network(), models.load(straight[1], torch.device("cpu")).model
    assert isinstance(network, Headed) and network.kind == "classify"
    for name, tensor in models.body_of(before).state_dict().items():
        assert torch.equal(network.body.state_dict()[name], tensor), name  # type: ignore[attr-defined]
    assert not isinstance(network.head, MaskedHead)
    assert run(recipe, tmp_path / "run").outcome == "finished"


def test_going_on_keeps_the_head(straight: tuple[Options, Path], tmp_path: Path) -> None:
    recipe, folder = straight
    more = changed(recipe, model={"init_from": str(folder)}, tokenizer=None)
    network = parts_of(more, tmp_path / "run").network()
    for name, tensor in models.load(folder, torch.device("cpu")).model.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_data_that_are_prepared_with_the_recipe(straight: tuple[Options, Path], tmp_path: Path) -> None:
    recipe, folder = straight
    data = {"kind": "text", "prepared": str(folder / "data"), "context": 32}
    run(changed(recipe, data=data, tokenizer=None), tmp_path / "run")
    assert events(tmp_path / "run", "evaluate") == events(folder, "evaluate")


def test_what_is_shown_of_the_data(straight: tuple[Options, Path], tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "model: {family: bert, width: 16, layers: 1}\nobjective: {kind: masked_token}\nbudget: {steps: 1}\n"
        f"tokenizer: {{kind: char}}\ndata: {{kind: text, context: 32, files: [{straight[0]['data']['files'][0]}]}}\n"
    )
    shown, tokenizer, *_ = preview_rows(str(file), 3, [])
    assert len(shown) == 3 and tokenizer.mask_id is not None
    assert any(MASK in one.text for one in shown) and all(0 < sum(one.trainable) < len(one.trainable) for one in shown)


def refused(recipe: Options, code: str) -> None:
    with pytest.raises(GroundupError) as fault:
        read_recipe(recipe)
    assert code in str(fault.value)


def test_recipes_that_cannot_be(straight: tuple[Options, Path], tmp_path: Path) -> None:
    recipe = straight[0]
    refused(changed(recipe, model__family="gpt2", model__dropout=None), "E-RECIPE-049")
    refused(changed(recipe, objective=None), "E-RECIPE-043")
    refused(changed(recipe, tokenizer={"kind": "char", "mask": False}), "E-TOKEN-009")
    refused(changed(recipe, events__prompts=["the cat"]), "E-RECIPE-030")
    refused(labelled_recipe(tmp_path / "rows", "classify", objective={"kind": "masked_token"}), "E-RECIPE-047")


def test_models_and_data_that_do_not_fit(straight: tuple[Options, Path], tmp_path: Path) -> None:
    recipe, folder = straight
    decoder = text_recipe(Path(recipe["data"]["files"][0]), budget__steps=1)
    run(decoder, tmp_path / "decoder")
    data = {"kind": "text", "prepared": str(tmp_path / "decoder" / "data"), "context": 32}
    faults = {
        "E-TOKEN-009": changed(recipe, data=data, tokenizer=None),
        "E-RECIPE-049": changed(recipe, model={"init_from": str(tmp_path / "decoder")}, tokenizer=None),
        "E-RECIPE-043": changed(decoder, model={"init_from": str(folder)}, tokenizer=None),
    }
    for code, wrong in faults.items():
        with pytest.raises(GroundupError) as fault:
            parts_of(wrong, tmp_path / code)
        assert fault.value.code == code
    sizes = {"vocabulary": 8, "context": 8, "width": 8, "layers": 1, "heads": 2, "hidden": 8}
    body = GPT2(GPT2Options(**sizes))
    with pytest.raises(GroundupError) as fault:
        Headed(body, HeadOptions(kind="masked"))
    assert fault.value.code == "E-MODEL-020"
