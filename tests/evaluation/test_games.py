"""Matches and exact values: known counts of positions, perfect play, tallies and the signs of values."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.data.boards import Game, GameOptions, game_of
from groundup.errors import GroundupError
from groundup.evaluation.games import Solved, Tally, distinct, play_games, random_player

GAME = game_of(GameOptions(name="tic_tac_toe"))


def minimax(game: Game, board: np.ndarray, memo: dict[bytes, int]) -> int:
    """What a position is worth, one position after the other."""
    key = board.tobytes()
    if key not in memo:
        over, worth = game.outcome(board)
        moves = np.flatnonzero(game.legal(board)[0])
        memo[key] = (
            int(worth[0])
            if over[0]
            else max(-minimax(game, game.play(board, np.array([move])), memo) for move in moves)
        )
    return memo[key]


def test_tic_tac_toe_is_solved() -> None:
    solved, memo = Solved(GAME), {}
    assert solved.size == 5478  # the known number of positions
    assert minimax(GAME, GAME.start(1), memo) == 0
    board_NHW = np.stack([np.frombuffer(key, dtype=np.int8).reshape(3, 3) for key in memo])
    assert len(board_NHW) == 5478
    assert solved.value(board_NHW).tolist() == list(memo.values())


def test_connect_four_on_4x4_is_solved() -> None:
    game = game_of(GameOptions(name="connect_four", rows=4, columns=4))
    solved = Solved(game)
    assert solved.size == 161_029  # Tromp, "John's Connect Four Playground"
    assert solved.value(game.start(1)).tolist() == [0]
    played = play_games(game, random_player(game), random_player(game), 3, seed=0)
    memo: dict[bytes, int] = {}
    late_NHW = played.board_NHW[(played.board_NHW != 0).sum(axis=(1, 2)) >= 9]
    expected = [minimax(game, board[None], memo) for board in late_NHW]
    assert len(expected) > 3 and solved.value(late_NHW).tolist() == expected


def test_perfect_players_draw_and_never_lose() -> None:
    solved = Solved(GAME)
    perfect, random = solved.player(), random_player(GAME)
    assert Tally.of(play_games(GAME, perfect, perfect, 50, seed=1).result_G) == (0, 50, 0)
    first, second = (play_games(GAME, *pair, 200, seed=2) for pair in ((perfect, random), (random, perfect)))
    assert Tally.of(first.result_G).lost == 0 and Tally.of(-second.result_G).lost == 0
    assert Tally.of(first.result_G).won > 150 and Tally.of(-second.result_G).won > 120


def test_results_lengths_and_positions_of_games() -> None:
    def leftmost(board_GHW: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return GAME.legal(board_GHW).argmax(axis=1)

    def rightmost(board_GHW: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return 8 - GAME.legal(board_GHW)[:, ::-1].argmax(axis=1)

    won = play_games(GAME, leftmost, rightmost, 3, seed=0)  # 0 8 1 7 2
    assert won.result_G.tolist() == [1, 1, 1] and won.length_G.tolist() == [5, 5, 5]
    assert won.board_NHW.shape == (15, 3, 3) and len(distinct(won.board_NHW)) == 5
    one, same, other = (play_games(GAME, *[random_player(GAME)] * 2, 50, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.board_NHW, same.board_NHW)
    assert not np.array_equal(one.result_G, other.result_G)
    assert set(one.result_G.tolist()) == {-1, 0, 1}


def test_tallies_have_intervals_even_where_nothing_was_lost() -> None:
    tally = Tally.of(np.array([1] * 900 + [0] * 100))
    assert tally == (900, 100, 0)
    shares = tally.shares()
    assert shares["won"].value == 0.9 and shares["won"].low < 0.9 < shares["won"].high
    assert shares["lost"].value == shares["lost"].low == 0.0
    assert shares["lost"].high == pytest.approx(0.0038, abs=1e-4)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(GroundupError, match="E-ENV-053"):
        Solved(game_of(GameOptions(name="connect_four")))
    with pytest.raises(GroundupError, match="E-ENV-052"):
        play_games(GAME, random_player(GAME), random_player(GAME), 0, seed=0)


def test_a_game_with_too_many_positions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.evaluation.games.MOST_POSITIONS", 1000)
    with pytest.raises(GroundupError, match="E-ENV-053") as caught:
        Solved(GAME)
    assert "1,000" in caught.value.what
