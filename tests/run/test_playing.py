"""Self-play from a recipe to a model: a run, its resume, what it measures, and its network and loss by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import groundup
from groundup.errors import GroundupError
from groundup.models.board_network import PolicyValue, PolicyValueOptions
from groundup.objectives.self_play import SelfPlay, SelfPlayLossOptions
from groundup.run.loaded_player import LoadedPlayer
from groundup.run.networks import load_network


def recipe(**more: Any) -> dict[str, Any]:
    return {
        "name": "toy",
        "model": {"family": "policy_value", "width": 4, "blocks": 1},
        "data": {
            "kind": "game",
            "game": {"name": "tic_tac_toe"},
            "search": {"searches": 4},
            "collect": {"kind": "self_play", "games": 3, "batches_per_round": 2, "capacity": 100},
            "games": 2,
            "final_games": 4,
        },
        "budget": {"steps": 6, "rows_per_step": 8},
        "events": {"save_every": 3, "evaluate_every": 3},
        **more,
    }


def test_a_run_is_measured_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = groundup.train(recipe(), out=tmp_path / "whole")
    assert (whole.outcome, whole.steps) == ("finished", 6)
    report = json.loads((whole.folder / "report.json").read_text(encoding="utf-8"))
    counts = report["ledger"]["tokens"]
    assert counts["seen"] == counts["trained"] == 48
    lines = {(line["data"], line["metric"]) for line in report["evaluations"]}
    assert lines == {
        ("against random", "return"), ("against perfect", "return"), ("values of positions", "accuracy")
    }  # fmt: skip
    results = json.loads((whole.folder / "results.json").read_text(encoding="utf-8"))
    assert [(m["opponent"], m["side"], m["won"] + m["drawn"] + m["lost"]) for m in results["matches"]] == [
        (opponent, side, 4) for opponent in ("random", "perfect") for side in ("first", "second")
    ]
    shutil.copytree(whole.folder, tmp_path / "cut", symlinks=True)
    saved = sorted((tmp_path / "cut" / "checkpoints").glob("step-*"))
    assert len(saved) == 2
    shutil.rmtree(saved[-1])
    again = groundup.train(recipe(), out=tmp_path / "cut", resume=True)
    assert again.steps == 6
    model = "model/model.safetensors"
    assert (whole.folder / model).read_bytes() == (again.folder / model).read_bytes()


@pytest.mark.parametrize(
    "changes, code",
    [
        ({"model": {"family": "mlp"}}, "E-RECIPE-065"),
        ({"objective": {"kind": "dqn"}}, "E-RECIPE-047"),
        ({"budget": {"epochs": 1}}, "E-RECIPE-"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(changes: dict[str, Any], code: str, tmp_path: Path) -> None:
    with pytest.raises(GroundupError, match=code):
        groundup.train(recipe(**changes), out=tmp_path / "run")


def test_the_network_gives_logits_and_values_and_every_parameter_learns() -> None:
    model = PolicyValue(PolicyValueOptions(width=6, blocks=2), (3, 4, 5), 5)
    model.initialise(torch.Generator().manual_seed(1))
    twin = PolicyValue(PolicyValueOptions(width=6, blocks=2), (3, 4, 5), 5)
    twin.initialise(torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values()))
    planes_BCHW = torch.rand(7, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    logit_BM, value_B = model(planes_BCHW)
    assert logit_BM.shape == (7, 5) and value_B.shape == (7,) and bool((value_B.abs() < 1).all())
    (logit_BM.square().sum() + value_B.square().sum()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
    model.eval()
    with torch.no_grad():
        alone = torch.cat([model(row[None])[1] for row in planes_BCHW])
        torch.testing.assert_close(alone, model(planes_BCHW)[1])
    with pytest.raises(GroundupError, match="E-MODEL-150"):
        PolicyValue(PolicyValueOptions(), (9,), 9)


class Fixed(torch.nn.Module):
    """Says the same of every board."""

    def __init__(self, logits: list[list[float]], values: list[float]) -> None:
        super().__init__()
        self.logits, self.values = torch.nn.Parameter(torch.tensor(logits)), torch.nn.Parameter(torch.tensor(values))

    def forward(self, planes_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits, self.values


def test_the_loss_by_hand() -> None:
    logits, values = [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]], [0.5, -0.25]
    policy = [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    batch = {
        "planes_BCHW": torch.zeros(2, 3, 3, 3),
        "policy_BM": torch.tensor(policy),
        "outcome_B": torch.tensor([1.0, 0.0]),
    }
    model = Fixed(logits, values)
    objective = SelfPlay(SelfPlayLossOptions(value_weight=2.0), model)
    loss = objective.loss("model", batch)
    log_share = np.array(logits) - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    cross = -(np.array(policy) * log_share).sum()
    assert float(loss.total.detach()) == pytest.approx(cross + 2.0 * (0.25 + 0.0625), rel=1e-6)
    assert float(loss.metrics["value_error"]) == pytest.approx(0.3125)
    assert float(loss.metrics["policy_divergence"]) == pytest.approx(cross - np.log(2), rel=1e-6)
    assert int(objective.weight("model", batch)) == int(loss.metrics["rows"]) == 2
    loss.total.backward()
    share = np.exp(log_share)
    torch.testing.assert_close(model.logits.grad, torch.tensor(share - policy, dtype=torch.float32))


def test_a_trained_player_is_loaded_and_asked(tmp_path: Path) -> None:
    run = groundup.train(recipe(budget={"steps": 1, "rows_per_step": 8}), out=tmp_path / "run")
    loaded = load_network(run.folder / "model", torch.device("cpu"))
    player = LoadedPlayer(loaded, device=torch.device("cpu"), name="toy")
    board_GHW = np.array([[[1, 1, 0], [-1, -1, 0], [0, 0, 0]]], dtype=np.int8)
    assert player.moves(board_GHW).tolist()[0] in (2, 5, 6, 7, 8)
    found = player.play(5, 3)
    assert found["episodes"] == 5 == sum(found["games"].values())
    assert sum(found["returns"]) == found["games"]["won"] - found["games"]["lost"]
    assert found["comparison"][0]["metric"] == "return"
    assert player.play(5, 3) == found
    for given, code in (({"environment": "CartPole-v1"}, "E-EVAL-062"), ({"episodes": 0}, "E-ENV-052")):
        with pytest.raises(GroundupError, match=code):
            player.play(**given)
    with pytest.raises(GroundupError, match="E-EVAL-061"):
        player.predict([])
