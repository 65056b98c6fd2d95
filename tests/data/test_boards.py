"""The rules of the board games: against another implementation over random games, by hand, and under symmetry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from groundup.data.boards import Boards, Game, GameOptions, game_of
from groundup.errors import GroundupError

GAMES = [
    GameOptions(name="tic_tac_toe"),
    GameOptions(name="connect_four"),
    GameOptions(name="connect_four", rows=4, columns=5),
]
names = pytest.mark.parametrize("options", GAMES, ids=lambda o: f"{o.name}-{o.rows or ''}{o.columns or ''}")


def drawn(rows: list[str]) -> Boards:
    """A board from a drawing: o own, x the other's."""
    return np.array([[{"o": 1, "x": -1, ".": 0}[square] for square in row] for row in rows], dtype=np.int8)[None]


def random_positions(game: Game, count: int, seed: int = 0) -> list[Boards]:
    """Boards of `count` games under random moves, after each number of moves, games that are over left out."""
    random, board_GHW, found = np.random.default_rng(seed), game.start(count), []
    while len(board_GHW):
        found.append(board_GHW)
        legal_GM = game.legal(board_GHW)
        board_GHW = game.play(board_GHW, np.where(legal_GM, random.random(legal_GM.shape), -1).argmax(axis=1))
        board_GHW = board_GHW[~game.outcome(board_GHW)[0]]
    return found


@names
def test_rules_against_open_spiel(options: GameOptions) -> None:
    pyspiel: Any = pytest.importorskip("pyspiel")
    game = game_of(options)
    sized = "" if game.name == "tic_tac_toe" else f"(rows={game.rows},columns={game.columns})"
    other, random = pyspiel.load_game(game.name + sized), np.random.default_rng(3)
    endings = set()
    for _ in range(150):
        state, board_GHW = other.new_initial_state(), game.start(1)
        while not state.is_terminal():
            player = state.current_player()
            assert np.flatnonzero(game.legal(board_GHW)[0]).tolist() == state.legal_actions()
            move = int(random.choice(state.legal_actions()))
            state.apply_action(move)
            board_GHW = game.play(board_GHW, np.array([move]))
            over_G, worth_G = game.outcome(board_GHW)
            assert bool(over_G[0]) == state.is_terminal()
            assert worth_G[0] == state.returns()[1 - player]
        stones = {1: "o", -1: "x", 0: "."} if player == 1 else {-1: "o", 1: "x", 0: "."}
        if game.name == "tic_tac_toe":  # there x begins
            stones = {value: {"o": "x", "x": "o", ".": "."}[sign] for value, sign in stones.items()}
        whole = "\n".join("".join(stones[int(square)] for square in row) for row in board_GHW[0])
        assert whole.count("x") + whole.count("o") == str(state).count("x") + str(state).count("o")
        endings.add(float(state.returns()[0]))
    assert {1.0, -1.0} <= endings


@pytest.mark.parametrize("name, module", [("tic_tac_toe", "tictactoe_v3"), ("connect_four", "connect_four_v3")])
def test_rules_against_pettingzoo(name: Any, module: str) -> None:
    classic: Any = pytest.importorskip(f"pettingzoo.classic.{module}")
    game, random = game_of(GameOptions(name=name)), np.random.default_rng(5)
    other = classic.env()
    for number in range(15):
        other.reset(seed=number)
        board_GHW = game.start(1)
        for agent in other.agent_iter():
            observation, _, over, *_ = other.last()
            if over:
                break
            mask = observation["action_mask"].astype(bool)
            if name == "tic_tac_toe":  # its squares go down the columns
                mask = mask.reshape(3, 3).T.ravel()
            assert np.array_equal(mask, game.legal(board_GHW)[0]), agent
            seen = np.moveaxis(observation["observation"], -1, 0)
            if name == "tic_tac_toe":
                seen = seen.transpose(0, 2, 1)
            assert np.array_equal(seen, game.planes(board_GHW)[0, :2]), agent
            move = int(random.choice(np.flatnonzero(mask)))
            other.step(move % 3 * 3 + move // 3 if name == "tic_tac_toe" else move)
            board_GHW = game.play(board_GHW, np.array([move]))
            assert game.outcome(board_GHW)[0][0] == all(other.terminations.values())
        worth = game.outcome(board_GHW)[1][0]
        rewards = [other.rewards[name] for name in other.possible_agents]
        assert sorted(rewards) == sorted([worth, -worth])


def test_lines_by_hand() -> None:
    game = game_of(GameOptions(name="connect_four", rows=4, columns=5))
    for rows, worth in (
        ([".....", ".....", ".....", ".xxxx"], -1),
        (["x....", "x....", "x....", "x...."], -1),
        (["...x.", "..x..", ".x...", "x...."], -1),
        (["x....", ".x...", "..x..", "...x."], -1),
        ([".....", ".....", "x....", ".xxx."], 0),
        (["...xx", "xx...", ".....", "....."], 0),  # no line goes on in the next row
    ):
        over_G, worth_G = game.outcome(drawn(rows))
        assert (bool(over_G[0]), worth_G[0]) == (worth != 0, worth), rows


def test_stones_fall_and_the_view_changes() -> None:
    game = game_of(GameOptions(name="connect_four", rows=4, columns=5))
    board_GHW = drawn([".....", ".....", "o....", "x.x.."])
    before = board_GHW.copy()
    after_GHW = game.play(board_GHW, np.array([0]))
    assert np.array_equal(after_GHW, drawn([".....", "x....", "x....", "o.o.."]))
    assert np.array_equal(board_GHW, before)
    assert game.legal(drawn(["o...x", "xxx.x", "ooo.o", "xxo.x"])).tolist() == [[False, True, True, True, False]]


@names
def test_symmetries_leave_the_rules_as_they_are(options: GameOptions) -> None:
    game = game_of(options)
    square_YS, move_YM = game.symmetries
    assert len(square_YS) == (8 if game.name == "tic_tac_toe" else 2)
    assert len({tuple(row) for row in square_YS}) == len(square_YS)
    assert square_YS[0].tolist() == list(range(game.rows * game.columns))

    def turned(board_GHW: Boards, square_S: Any) -> Boards:
        return board_GHW.reshape(len(board_GHW), game.squares)[:, square_S].reshape(board_GHW.shape)

    for board_GHW in random_positions(game, 20):
        for square_S, move_M in zip(square_YS, move_YM):
            other_GHW = turned(board_GHW, square_S)
            assert np.array_equal(game.legal(other_GHW), game.legal(board_GHW)[:, move_M])
            for move in range(game.moves):
                rows_G = game.legal(other_GHW)[:, move]
                after_GHW = game.play(other_GHW[rows_G], np.full(int(rows_G.sum()), move))
                before_GHW = game.play(board_GHW[rows_G], np.full(int(rows_G.sum()), move_M[move]))
                assert np.array_equal(after_GHW, turned(before_GHW, square_S))
                assert np.array_equal(game.outcome(after_GHW)[1], game.outcome(before_GHW)[1])


def test_a_board_without_a_line_is_refused() -> None:
    with pytest.raises(GroundupError, match="E-ENV-050") as caught:
        game_of(GameOptions(name="connect_four", rows=3, columns=3))
    assert "3×3" in caught.value.what
