"""A network that plays a board game, loaded and ready to be asked. `groundup.load(path)` makes it.

Shapes: G boards, H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.data.boards import Boards, GameOptions, game_of
from groundup.errors import printable
from groundup.evaluation import METRICS, compare, measure
from groundup.evaluation.games import Player, Tally, play_games, random_player
from groundup.evaluation.metrics import EpisodeScores
from groundup.evaluation.statistics import PerUnit, interval
from groundup.inference.tree_search import SearchOptions
from groundup.run.loaded_network import EPISODES, LoadedNetworkModel, malformed_preparation
from groundup.run.measuring_rows import another_question
from groundup.run.networks import LoadedNetwork
from groundup.run.playing import AT_THE_END, evaluate_with, player_of


class LoadedPlayer(LoadedNetworkModel):
    """A network that plays a board game with the tree search of its training.

    Attributes:
        game: the rules.
        search: how long it thinks.
    """

    does = "plays a board game"
    use = f"groundup evaluate {{}} --episodes {EPISODES}"

    def __init__(self, loaded: LoadedNetwork, *, device: torch.device, name: str) -> None:
        super().__init__(loaded.model, device=device, name=name)
        try:
            told = loaded.said.preparation
            self.game = game_of(GameOptions.model_validate(told["game"]))
            self.search = SearchOptions.model_validate(told["search"])
        except (KeyError, TypeError, ValueError) as error:
            raise malformed_preparation(loaded, error) from error

    @property
    def player(self) -> Player:
        """The move that the search visits most, without chance."""
        return player_of(self.game, evaluate_with(self.model, self.device), self.search)

    def moves(self, board_GHW: Boards) -> NDArray[np.int64]:
        """Its moves on boards of games that are not over, int64 (G,): columns where stones fall, else squares.

        Args:
            board_GHW: int8; 1 its own stones, -1 the other's, 0 empty; row 0 is the top.
        """
        return self.player(board_GHW, np.random.default_rng(0))

    def play(
        self,
        episodes: int = EPISODES,
        seed: int = 0,
        greedy: bool = True,
        *,
        environment: str | None = None,
        against: LoadedNetworkModel | None = None,
    ) -> dict[str, Any]:
        """Play whole games against random moves, half of them as the one who begins, and have another do the same.

        Args:
            episodes: how many, 1 or more.
            seed: of the random moves.
            greedy: always, for a player who searches.
            environment: refused: the rules of another game need another network.
            against: another player of this game; None compares with random moves.

        Returns:
            `metrics` {return, length: {value, low, high, unit}}, where a return is 1 for a game won, 0 drawn and -1
            lost; `games` {won, drawn, lost}; `comparison` with `against`, `returns` and `lengths`, what was played.

        Raises:
            GroundupError: E-ENV-052 fewer than one game, E-EVAL-023 `against` does not play this game, E-EVAL-062 an
                environment was named.
        """
        if environment is not None:
            what = f"the model does not act in {printable(environment)}"
            self._refuse("E-EVAL-062", what, "what it learned are the rules of one game")
        if against is None:
            other: Player = random_player(self.game)
        elif isinstance(against, LoadedPlayer) and against.game == self.game:
            other = against.player
        else:
            raise another_question(self.name, f"plays {self.game.name} on such a board", against.name)
        scores, beside = (self._scores(player, episodes, seed) for player in (self.player, other))
        lengths = interval(PerUnit.of(scores.lengths), seed=seed).as_dict() | {"unit": "moves"}
        returns = measure("return", scores, seed=seed).as_dict() | {"unit": METRICS["return"].unit}
        return {
            "model": self.name,
            "against": "random moves" if against is None else against.name,
            "environment": {"id": self.game.name, "rows": self.game.rows, "columns": self.game.columns},
            "episodes": len(scores.returns),
            "greedy": True,
            "seed": seed,
            "games": Tally.of(scores.returns.astype(np.int64))._asdict(),
            "metrics": {"return": returns, "length": lengths},
            "comparison": [line.as_dict() for line in compare(beside, scores, ["return"], seed=seed)],
            "returns": scores.returns.tolist(),
            "lengths": scores.lengths.tolist(),
        }

    def _scores(self, player: Player, games: int, seed: int) -> EpisodeScores:
        """What a player brings home against random moves, beginning in the first half of the games."""
        random = random_player(self.game)
        begun = play_games(self.game, player, random, games - games // 2, seed=seed + AT_THE_END)
        parts = [(begun.result_G, begun.length_G)]
        if games // 2:
            joined = play_games(self.game, random, player, games // 2, seed=seed + AT_THE_END + 1)
            parts.append((-joined.result_G, joined.length_G))
        results_N, lengths_N = (np.concatenate(column).astype(np.float64) for column in zip(*parts))
        return EpisodeScores(results_N, lengths_N)
