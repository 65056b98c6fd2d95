"""Games against oneself: whole rounds of games are played, every position is remembered, and batches are drawn from
what is remembered. How a position is searched is a callable that is handed in; no network and no loss enter here.

Shapes: B rows of a batch, G games, H and W rows and columns, S squares, M moves, N remembered positions, C planes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from groundup.contract import Batch
from groundup.data.boards import Boards, Game
from groundup.errors import GroundupError

Search = Callable[[Boards, np.random.Generator], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""(board_GHW, generator of its noise) → the policy that was found (G, M), and the value for the player to move (G,)."""

PLAY, DRAW = 0, 1
"""What a random number is for; part of its seed."""


class SelfPlayOptions(BaseModel):
    """How games are played, and how many positions are remembered."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["self_play"] = "self_play"
    games: int = Field(default=64, ge=1, description="games of a round, played side by side")
    batches_per_round: int = Field(default=16, ge=1, description="batches that are drawn before the next round")
    capacity: int = Field(default=20_000, ge=1, description="positions remembered; the oldest is forgotten first")
    augment: bool = Field(default=True, description="turn and reflect each row at random where the rules allow it")
    temperature: float = Field(
        default=1.0,
        gt=0.0,
        allow_inf_nan=False,
        description="moves are drawn in proportion to visits ^ (1 / temperature)",
    )
    temperature_moves: int = Field(
        default=30, ge=0, description="moves of a game, of both players, that are drawn; then the most visited is made"
    )
    search_value: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="share of the value that the search found in what the value learns; the rest is the outcome",
    )


class SelfPlay:
    """Batches of remembered positions, for ever; implements contract.Source.

    A round is played whole within `next`, so that no game is under way between batches. All randomness is a function
    of the seed and of the numbers of the round and of the batch.

    Args:
        options: of the games and of the memory.
        game: the rules.
        search: thinks about positions; see `Search`.
        rows: of a batch.
        seed: of moves, noise and draws.

    Attributes:
        epoch: rounds played.
        batch: batches drawn since the last of them.
        size: positions remembered now.
        ledger: rows so far: `seen` = `trained` + `masked` + `padded`, exactly.

    Raises:
        GroundupError: E-ENV-051 a batch larger than the memory.
    """

    def __init__(self, options: SelfPlayOptions, game: Game, *, search: Search, rows: int, seed: int) -> None:
        _check(options, rows)
        self.options, self.game, self.rows, self.seed = options, game, rows, seed
        self.batches_per_epoch = options.batches_per_round
        self._search = search
        self._board_NHW = np.zeros((options.capacity, game.rows, game.columns), dtype=np.int8)
        self._policy_NM = np.zeros((options.capacity, game.moves), dtype=np.float32)
        self._outcome_N = np.zeros(options.capacity, dtype=np.float32)
        self.epoch = self.batch = self._stored = self._drawn = 0
        self.ledger = {"seen": 0, "trained": 0, "masked": 0, "padded": 0}

    @property
    def size(self) -> int:
        """Positions remembered now."""
        return min(self._stored, self.options.capacity)

    def next(self, turn: str) -> Batch:
        """Play a round, where it is time, then draw a batch, with replacement.

        Returns:
            `planes_BCHW` float32; `policy_BM` float32, what the search found; `outcome_B` float32, what the game
            brought the player to move: 1, 0 or -1, mixed with the value of the search as `search_value` says.
        """
        if self.epoch == 0 or self.batch == self.options.batches_per_round:
            self._play_round()
            self.batch = 0
        while self.size < self.rows:
            self._play_round()
        batch = self._draw()
        self.batch += 1
        self._drawn += 1
        self.ledger["seen"] += self.rows
        self.ledger["trained"] += self.rows
        return batch

    def _play_round(self) -> None:
        """Play all games of a round to their ends, and remember what was thought in each position."""
        random = np.random.default_rng([self.seed, PLAY, self.epoch])
        board_GHW, game_G, sign = self.game.start(self.options.games), np.arange(self.options.games), 1.0
        result_G = np.zeros(self.options.games, dtype=np.float32)  # for the player who began
        kept: list[tuple[NDArray[np.int64], Boards, NDArray[np.float32], NDArray[np.float32], float]] = []
        while len(game_G):
            policy_GM, value_G = self._search(board_GHW, random)
            move_G = self._choose(policy_GM, len(kept), random)
            kept.append((game_G, board_GHW, policy_GM, value_G, sign))
            board_GHW = self.game.play(board_GHW, move_G)
            over_G, worth_G = self.game.outcome(board_GHW)
            sign = -sign
            result_G[game_G[over_G]] = sign * worth_G[over_G]
            board_GHW, game_G = board_GHW[~over_G], game_G[~over_G]
        share = self.options.search_value
        for game_G, board_GHW, policy_GM, value_G, sign in kept:
            self._remember(board_GHW, policy_GM, (1.0 - share) * sign * result_G[game_G] + share * value_G)
        self.epoch += 1

    def _choose(self, policy_GM: NDArray[np.float32], ply: int, random: np.random.Generator) -> NDArray[np.int64]:
        """The moves to make: drawn at first, later the most visited."""
        if ply >= self.options.temperature_moves:
            return policy_GM.argmax(axis=1)
        share_GM = policy_GM.astype(np.float64)
        share_GM /= share_GM.max(axis=1, keepdims=True)  # so that the largest is not rounded to nothing
        total_GM = (share_GM ** (1.0 / self.options.temperature)).cumsum(axis=1)
        drawn_G1 = random.random((len(policy_GM), 1)) * total_GM[:, -1:]
        return (total_GM > drawn_G1).argmax(axis=1)

    def _remember(self, board_GHW: Boards, policy_GM: NDArray[np.float32], outcome_G: NDArray[np.float32]) -> None:
        place_G = (self._stored + np.arange(len(board_GHW))) % self.options.capacity
        last = slice(-self.options.capacity, None)  # of more than there is room for
        self._board_NHW[place_G[last]] = board_GHW[last]
        self._policy_NM[place_G[last]] = policy_GM[last]
        self._outcome_N[place_G[last]] = outcome_G[last]
        self._stored += len(board_GHW)

    def _draw(self) -> Batch:
        random = np.random.default_rng([self.seed, DRAW, self._drawn])
        place_B = random.integers(0, self.size, self.rows)
        board_BHW, policy_BM = self._board_NHW[place_B], self._policy_NM[place_B]
        if self.options.augment:
            square_YS, move_YM = self.game.symmetries
            turn_B = random.integers(0, len(square_YS), self.rows)
            board_BS = np.take_along_axis(board_BHW.reshape(self.rows, self.game.squares), square_YS[turn_B], axis=1)
            board_BHW = board_BS.reshape(board_BHW.shape)
            policy_BM = np.take_along_axis(policy_BM, move_YM[turn_B], axis=1)
        return {
            "planes_BCHW": torch.from_numpy(self.game.planes(board_BHW)),
            "policy_BM": torch.from_numpy(policy_BM),
            "outcome_B": torch.from_numpy(self._outcome_N[place_B]),
        }

    def state_dict(self) -> dict[str, Any]:
        """Where everything stands, and what is remembered."""
        kept = slice(self.size)
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "stored": self._stored,
            "drawn": self._drawn,
            "ledger": dict(self.ledger),
            "board_NHW": torch.from_numpy(self._board_NHW[kept].copy()),
            "policy_NM": torch.from_numpy(self._policy_NM[kept].copy()),
            "outcome_N": torch.from_numpy(self._outcome_N[kept].copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch at which `state_dict` was taken."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self._stored, self._drawn = state["stored"], state["drawn"]
        self.ledger = dict(state["ledger"])
        kept = slice(self.size)
        self._board_NHW[kept] = state["board_NHW"].numpy()
        self._policy_NM[kept] = state["policy_NM"].numpy()
        self._outcome_N[kept] = state["outcome_N"].numpy()


def _check(options: SelfPlayOptions, rows: int) -> None:
    if rows > options.capacity:
        raise GroundupError(
            "E-ENV-051",
            f"a batch has {rows:,} positions, and at most {options.capacity:,} are remembered",
            where=f"budget.micro_batch: {rows:,}, data.collect.capacity: {options.capacity:,}",
            why="a batch that is larger than the memory would hold everything several times",
            fix=f"data.collect.capacity={rows} or more, or a smaller budget.rows_per_step",
            exit_code=2,
        )
