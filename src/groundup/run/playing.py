"""Board games as work for a run: a network learns to play from games against itself, in the manner of AlphaZero.

Here the parts are made to know each other: the stream plays with the present network through the tree search, and so
do the matches that measure it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contract import Objective, Source
from groundup.data.boards import Boards, Game, GameOptions, game_of
from groundup.data.self_play import SelfPlay
from groundup.evaluation.games import Played, Player, Solved, Tally, distinct, play_games, random_player
from groundup.evaluation.metrics import AnyScores, EpisodeScores, LabelScores
from groundup.functional import evaluating
from groundup.inference.tree_search import Evaluate, SearchOptions, search
from groundup.recipe.tree import GameData, Recipe
from groundup.run.measuring import evaluation_of
from groundup.run.network_work import AT_THE_END, WHILE_TRAINING, ExperienceWork, begin
from groundup.run.networks import NetworkSaid
from groundup.run.results import Scores
from groundup.run.work import Say

POSITIONS = "values of positions"
"""What the network's values are measured on is called this."""

LARGEST_BATCH = 4096
"""Positions that the network values at once."""


@dataclass(kw_only=True)
class PlayingWork(ExperienceWork):
    """A game and a network that plays it.

    Attributes:
        game: the rules.
        solved: what every position is worth, where the perfect player is met.
        closing: the matches of the last `score`, by the opponent and by the side of the network.
    """

    game: Game
    solved: Solved | None = None
    closing: dict[tuple[str, str], Played] = field(default_factory=dict)

    @property
    def data(self) -> GameData:
        """The section of the recipe."""
        assert isinstance(self.recipe.data, GameData)
        return self.recipe.data

    def learning(self, model: nn.Module) -> tuple[Objective, Source]:
        """Objective and stream that share the network."""
        evaluate = evaluate_with(model, self.device)

        def think(board_GHW: Boards, noise: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            with evaluating(model):
                return search(self.game, evaluate, board_GHW, self.data.search, noise)

        rows = self.recipe.budget.micro_batch or 1
        stream = SelfPlay(self.data.collect, self.game, search=think, rows=rows, seed=self.recipe.seed)
        return self.objective(model), stream

    def example(self) -> Tensor:
        """The planes of one board."""
        return torch.zeros(1, *self.said.shape, device=self.device)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Matches, always of the same seeds, and the values of the positions that came up in them."""
        by_data = self._scores(model, self._matches(model, self.data.games, WHILE_TRAINING))
        return {name: evaluation_of(scores, self.metric_names(scores)) for name, scores in by_data.items()}

    def score(self, model: nn.Module, *, final: bool) -> Scores:
        """Matches that no evaluation has played before."""
        self.closing = self._matches(model, self.data.final_games, AT_THE_END)
        return Scores(self._scores(model, self.closing))

    def results(self, model: nn.Module) -> dict[str, Any]:
        """`matches`, those of the last score: games won, drawn and lost by opponent and side, with 95 % intervals."""
        lines = []
        for (opponent, side), match in self.closing.items():
            tally = Tally.of(match.result_G if side == "first" else -match.result_G)
            shares = {name: share.as_dict() for name, share in tally.shares().items()}
            lines.append({"opponent": opponent, "side": side, **tally._asdict(), "shares": shares})
        return {"matches": lines}

    def metric_names(self, scores: Any) -> Sequence[str]:
        """The mean result of a game, and how often the sign of a value is right."""
        return ("accuracy",) if isinstance(scores, LabelScores) else ("return",)

    def _matches(self, model: nn.Module, games: int, apart: int) -> dict[tuple[str, str], Played]:
        """Matches on both sides, by the opponent and by the side of the network."""
        own = player_of(self.game, evaluate_with(model, self.device), self.data.search)
        found: dict[tuple[str, str], Played] = {}
        for opponent in self.data.opponents or []:
            other = self._opponent(opponent)
            for side, (first, second) in {"first": (own, other), "second": (other, own)}.items():
                seed = self.recipe.seed + apart + len(found)
                with evaluating(model):
                    found[opponent, side] = play_games(self.game, first, second, games, seed=seed)
        return found

    def _opponent(self, name: str) -> Player:
        if name == "random":
            return random_player(self.game)
        if self.solved is None:
            self.solved = Solved(self.game)
        return self.solved.player()

    def _scores(self, model: nn.Module, matches: dict[tuple[str, str], Played]) -> dict[str, AnyScores]:
        """By opponent the results of the network, 1, 0 or -1; and whether the sign of its value, without any search,
        is right in each position of these matches that is won or lost under perfect play."""
        by_data: dict[str, AnyScores] = {}
        for opponent in self.data.opponents or []:
            first, second = matches[opponent, "first"], matches[opponent, "second"]
            results_N = np.concatenate([first.result_G, -second.result_G]).astype(np.float64)
            lengths_N = np.concatenate([first.length_G, second.length_G]).astype(np.float64)
            by_data[f"against {opponent}"] = EpisodeScores(results_N, lengths_N)
        if self.solved is not None:
            board_NHW = distinct(np.concatenate([match.board_NHW for match in matches.values()]))
            exact_N = self.solved.value(board_NHW)
            board_NHW, exact_N = board_NHW[exact_N != 0], exact_N[exact_N != 0]
            if not len(exact_N):
                return by_data  # nobody made a mistake
            with evaluating(model):
                value_N = values_of(self.game, evaluate_with(model, self.device), board_NHW)
            right_N = (np.sign(value_N) == exact_N).astype(np.float64)
            error_N = np.square(value_N - exact_N, dtype=np.float64)
            by_data[POSITIONS] = LabelScores(error_N, np.ones_like(error_N), right_N)
        return by_data


def evaluate_with(model: nn.Module, device: torch.device) -> Evaluate:
    """What the tree search asks of a network, which must be in evaluation mode: putting it there for each of the many
    small batches would cost a tenth of the time. See inference.tree_search.Evaluate."""

    @torch.no_grad()
    def evaluate(planes_GCHW: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logit_GM, value_G = model(torch.from_numpy(planes_GCHW).to(device))
        return logit_GM.float().cpu().numpy(), value_G.float().cpu().numpy()

    return evaluate


def player_of(game: Game, evaluate: Evaluate, options: SearchOptions) -> Player:
    """How a network plays: the move that the search visits most. Nothing of it is random, so that a position that
    stands on several boards is searched once."""

    def choose(board_GHW: Boards, generator: np.random.Generator) -> NDArray[np.int64]:
        board_NHW, of_G = np.unique(board_GHW, axis=0, return_inverse=True)
        best_N = search(game, evaluate, board_NHW, options).policy_GM.argmax(axis=1)
        chosen_G: NDArray[np.int64] = best_N[of_G.ravel()]
        return chosen_G

    return choose


def values_of(game: Game, evaluate: Evaluate, board_NHW: Boards) -> NDArray[np.float32]:
    """What a network says that positions are worth, without any search, (N,)."""
    parts = [board_NHW[start : start + LARGEST_BATCH] for start in range(0, len(board_NHW), LARGEST_BATCH)]
    values = [evaluate(game.planes(part))[1] for part in parts]
    return np.concatenate([np.zeros(0, dtype=np.float32), *values])


def playing_work(recipe: Recipe, folder: Path, *, say: Say) -> PlayingWork:
    """Look at the game, and fill in every number that does not need a measurement of speed."""
    begun = begin(recipe)
    recipe = begun.recipe
    assert isinstance(recipe.data, GameData)
    game = game_of(recipe.data.game)
    said = NetworkSaid(
        family=begun.family,
        options=begun.options,
        shape=game.shape,
        outputs=game.moves,
        kind="moves",
        reads="planes_BCHW",
        preparation={
            "kind": "game",
            "game": GameOptions(name=recipe.data.game.name, rows=game.rows, columns=game.columns).model_dump(),
            "search": recipe.data.search.model_dump(),
        },
    )
    return PlayingWork(**begun.settled(said, {"game": recipe.data.game.model_dump()}), game=game)
