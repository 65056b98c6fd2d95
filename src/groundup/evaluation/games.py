"""How well a game is played: matches against other players, and the exact worth of positions, found by looking at
every position that there is. Rules and players are handed in; no network and no search enter here.

A board is seen by the player to move, and so is every value: 1 won, 0 drawn, -1 lost.

Shapes: G boards or games, H rows, W columns, S squares, M moves, N positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from groundup.errors import GroundupError
from groundup.evaluation.slices import wilson
from groundup.evaluation.statistics import Interval

Boards = NDArray[np.int8]
Moves = NDArray[np.int64]

Player = Callable[[Boards, np.random.Generator], Moves]
"""(board_GHW of games that are not over, generator) → a legal move in each, int64 (G,)."""

MOST_POSITIONS = 5_000_000
"""More positions than this are not looked at one by one: they would take gigabytes."""

MOST_SQUARES = 33
"""Squares of a board whose positions a float64 can number exactly."""

CHUNK = 1 << 16
"""Positions looked at together."""


class Rules(Protocol):
    """What is asked of a game."""

    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    def start(self, count: int) -> Boards: ...
    def legal(self, board_GHW: Boards) -> NDArray[np.bool_]: ...
    def play(self, board_GHW: Boards, move_G: Moves) -> Boards: ...
    def outcome(self, board_GHW: Boards) -> tuple[NDArray[np.bool_], NDArray[np.float32]]: ...


class Played(NamedTuple):
    """What G games brought.

    Attributes:
        result_G: for the player who began, int64: 1, 0 or -1.
        length_G: moves of both players, int64.
        board_NHW: every position in which a move was made, int8, in the order of play, with repetitions.
    """

    result_G: NDArray[np.int64]
    length_G: NDArray[np.int64]
    board_NHW: Boards


class Tally(NamedTuple):
    """Games won, drawn and lost, as one player sees them."""

    won: int
    drawn: int
    lost: int

    @classmethod
    def of(cls, result_G: NDArray[np.int64]) -> Tally:
        """From results of that player."""
        return cls(*(int((result_G == result).sum()) for result in (1, 0, -1)))

    def shares(self) -> dict[str, Interval]:
        """The share of each, with its 95 % interval of Wilson, which holds where nothing was lost too."""
        games = sum(self)
        return {name: Interval(n / games, *wilson(n, games)) for name, n in self._asdict().items()}


def random_player(rules: Rules) -> Player:
    """Every legal move equally likely."""

    def choose(board_GHW: Boards, generator: np.random.Generator) -> Moves:
        return _any_of(rules.legal(board_GHW), generator)

    return choose


def play_games(rules: Rules, first: Player, second: Player, games: int, *, seed: int) -> Played:
    """Play games side by side.

    Args:
        rules: of the game.
        first: makes the first move.
        second: makes the second.
        games: 1 or more.
        seed: of what the players draw.

    Raises:
        GroundupError: E-ENV-052 fewer than one game.
    """
    if games < 1:
        raise GroundupError(
            "E-ENV-052",
            f"{games} games are to be played",
            where=f"games: {games}",
            why="a share of games that were won needs one game at least",
            fix="data.final_games: 100",
            exit_code=2,
        )
    generator = np.random.default_rng(seed)
    board_GHW, game_G = rules.start(games), np.arange(games)
    result_G, length_G = np.zeros(games, dtype=np.int64), np.zeros(games, dtype=np.int64)
    seen: list[Boards] = []
    while len(game_G):
        seen.append(board_GHW)
        player = first if len(seen) % 2 else second
        board_GHW = rules.play(board_GHW, player(board_GHW, generator))
        over_G, worth_G = rules.outcome(board_GHW)
        to_move = -1 if len(seen) % 2 else 1  # whether the next to move is the one who began
        result_G[game_G[over_G]] = to_move * worth_G[over_G].astype(np.int64)
        length_G[game_G] += 1
        board_GHW, game_G = board_GHW[~over_G], game_G[~over_G]
    return Played(result_G, length_G, np.concatenate(seen))


class Solved:
    """What every position that can be reached is worth under perfect play, by looking at all of them: forward to list
    them, move by move, and backward to value them.

    Args:
        rules: of a game in which every move fills a square.

    Raises:
        GroundupError: E-ENV-053 there are too many positions.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        squares = rules.rows * rules.columns
        if squares > MOST_SQUARES:
            raise _too_many(rules, "more than can be numbered")
        self._power_S = 3.0 ** np.arange(squares)
        self._key_N, self._value_N = self._values(self._positions())

    @property
    def size(self) -> int:
        """Positions, those at the end of a game included."""
        return len(self._key_N)

    def value(self, board_GHW: Boards) -> NDArray[np.int8]:
        """What positions are worth, (G,); they must be such as can be reached in play."""
        return self._value_N[np.searchsorted(self._key_N, self._keys(board_GHW))]

    def best(self, board_GHW: Boards) -> NDArray[np.bool_]:
        """The moves that keep what a position is worth, bool (G, M); of games that are not over."""
        legal_GM = self.rules.legal(board_GHW)
        game_P, move_P = np.nonzero(legal_GM)
        value_GM = np.full(legal_GM.shape, -2, dtype=np.int8)
        value_GM[game_P, move_P] = -self.value(self.rules.play(board_GHW[game_P], move_P))
        return value_GM == value_GM.max(axis=1, keepdims=True)

    def player(self) -> Player:
        """A player who never spoils a position: any of the best moves, equally likely."""

        def choose(board_GHW: Boards, generator: np.random.Generator) -> Moves:
            return _any_of(self.best(board_GHW), generator)

        return choose

    def _keys(self, board_GHW: Boards) -> NDArray[np.int64]:
        """A number for each position. Whose stones are whose, and so who is to move, follows from the count."""
        return ((board_GHW.reshape(len(board_GHW), len(self._power_S)) + 1.0) @ self._power_S).astype(np.int64)

    def _positions(self) -> list[Boards]:
        """All different positions after 0, 1, 2 … moves."""
        layers, total = [self.rules.start(1)], 1
        while True:
            found = [self._different(self.rules.play(*_all_moves(self.rules, part))) for part in self._open(layers[-1])]
            if not found:
                return layers
            layers.append(self._different(np.concatenate(found)))
            total += len(layers[-1])
            if total > MOST_POSITIONS:
                raise _too_many(self.rules, f"more than {MOST_POSITIONS:,} after {len(layers) - 1} moves")

    def _open(self, board_NHW: Boards) -> Iterator[Boards]:
        """Those in which the game is not over, a part at a time."""
        for start in range(0, len(board_NHW), CHUNK):
            part_NHW = board_NHW[start : start + CHUNK]
            open_NHW = part_NHW[~self.rules.outcome(part_NHW)[0]]
            if len(open_NHW):
                yield open_NHW

    def _different(self, board_NHW: Boards) -> Boards:
        """Each position once, in the order of the keys."""
        return board_NHW[np.unique(self._keys(board_NHW), return_index=True)[1]]

    def _values(self, layers: list[Boards]) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """Keys, ascending, and values of all positions, from the last moves back to the first."""
        keys: list[NDArray[np.int64]] = []
        values: list[NDArray[np.int8]] = []
        for board_NHW in reversed(layers):
            value_N = np.empty(len(board_NHW), dtype=np.int8)
            for start in range(0, len(board_NHW), CHUNK):
                part = slice(start, start + CHUNK)
                over_N, worth_N = self.rules.outcome(board_NHW[part])
                value_N[part] = worth_N
                if not over_N.all():
                    value_N[part][~over_N] = self._backed_up(board_NHW[part][~over_N], keys[-1], values[-1])
            keys.append(self._keys(board_NHW))
            values.append(value_N)
        key_N = np.concatenate(keys)
        order_N = np.argsort(key_N)
        return key_N[order_N], np.concatenate(values)[order_N]

    def _backed_up(self, board_NHW: Boards, key_P: NDArray[np.int64], value_P: NDArray[np.int8]) -> NDArray[np.int8]:
        """The value of the best move of each position, from those of the positions after it."""
        after_PHW = self.rules.play(*_all_moves(self.rules, board_NHW))
        found_P = -value_P[np.searchsorted(key_P, self._keys(after_PHW))]
        count_N = self.rules.legal(board_NHW).sum(axis=1)
        best_N: NDArray[np.int8] = np.maximum.reduceat(found_P, np.cumsum(count_N) - count_N)
        return best_N


def distinct(board_NHW: Boards) -> Boards:
    """The different ones among boards, in an order that depends on nothing but them."""
    return np.unique(board_NHW, axis=0)


def _all_moves(rules: Rules, board_NHW: Boards) -> tuple[Boards, Moves]:
    """Every board with every legal move, by board."""
    board_P, move_P = np.nonzero(rules.legal(board_NHW))
    return board_NHW[board_P], move_P


def _any_of(chosen_GM: NDArray[np.bool_], generator: np.random.Generator) -> Moves:
    """One of the moves that are True, each equally likely."""
    moves: Moves = np.where(chosen_GM, generator.random(chosen_GM.shape), -1.0).argmax(axis=1)
    return moves


def _too_many(rules: Rules, count: str) -> GroundupError:
    return GroundupError(
        "E-ENV-053",
        f"{rules.name} on {rules.rows}×{rules.columns} squares has too many positions to look at all: {count}",
        where="data.opponents: perfect",
        why="a perfect player knows what every position is worth",
        fix="data.opponents=[random], or a smaller board (connect_four on 4×5 squares is small enough)",
        exit_code=2,
    )
