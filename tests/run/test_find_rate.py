"""The learning-rate range test: a sane suggestion, the same each time, and nothing left behind."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tests.contract.toy_run import changed, labelled_file, labelled_recipe, quick, text_file, text_recipe

from groundup.cli.main import main
from groundup.errors import GroundupError
from groundup.objectives.next_token import NextToken
from groundup.recipe.yaml import dump
from groundup.run.find_rate import HIGHEST, LOWEST, find_rate


@pytest.fixture(autouse=True)
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


def test_a_sane_rate_is_suggested_and_again_the_same(tmp_path: Path) -> None:
    recipe = text_recipe(text_file(tmp_path, 60), optim={"model": {"kind": "adamw"}})
    found = find_rate(recipe, steps=30)
    rates = [point["rate"] for point in found["points"]]
    assert rates == sorted(rates) and rates[-1] / rates[0] <= HIGHEST / LOWEST * 1.001
    assert 3e-4 < found["suggested"] < 0.3 and found["nearest"] in rates and found["at_lowest"] in rates
    assert found["suggested"] == pytest.approx(found["at_lowest"] / 3, rel=0.05)
    nearest = min(rates, key=lambda rate: abs(math.log(rate / (found["at_lowest"] / 3))))
    assert found["nearest"] == nearest
    assert (found["diverged"] is None) == (len(rates) == 30)
    torch.manual_seed(99)
    assert find_rate(recipe, steps=30) == found


def test_dropout_is_drawn_from_the_seed_of_the_recipe(tmp_path: Path) -> None:
    recipe = labelled_recipe(labelled_file(tmp_path, "classify"), "classify", head={"dropout": 0.5})
    first = find_rate(recipe, steps=10)
    torch.manual_seed(99)
    assert find_rate(recipe, steps=10) == first
    assert find_rate(changed(recipe, seed=2), steps=10) != first


def test_the_command_prints_well_formed_json_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(text_recipe(text_file(tmp_path, 60))))
    before = sorted(tmp_path.iterdir())
    assert main(["find-lr", str(path), "--steps", "12", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"points", "suggested", "nearest", "at_lowest", "diverged"}
    assert all(set(point) == {"rate", "loss", "smooth"} for point in found["points"])
    assert main(["find-lr", str(path), "--steps", "12"]) == 0
    assert "optim.model.learning_rate=" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == before


def test_a_loss_that_falls_at_no_rate_or_is_no_number_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = text_recipe(text_file(tmp_path, 60))
    plain = NextToken.loss
    for change, said in ((lambda total: total * math.nan, "not a finite number"), (lambda total: -total, "none of")):

        def loss(objective, turn, batch, change=change):  # type: ignore[no-untyped-def]
            found = plain(objective, turn, batch)
            return found._replace(total=change(found.total))

        if said == "none of":  # a loss that only grows, whatever the rate

            def loss(objective, turn, batch, count=[0]):  # type: ignore[no-untyped-def]  # noqa: B006
                count[0] += 1
                found = plain(objective, turn, batch)
                return found._replace(total=found.total * 0 + count[0] * objective.weight(turn, batch))

        monkeypatch.setattr(NextToken, "loss", loss)
        with pytest.raises(GroundupError) as caught:
            find_rate(recipe, steps=10)
        assert caught.value.code == "E-RUN-040" and said in caught.value.what and caught.value.fix
