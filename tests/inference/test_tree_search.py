"""The tree search: one search by hand, wins and threats that it must see, side by side as alone, and its noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groundup.data.boards import Boards, GameOptions, game_of
from groundup.evaluation.games import Solved, play_games
from groundup.inference.tree_search import SearchOptions, search

GAME = game_of(GameOptions(name="tic_tac_toe"))
FOUR = game_of(GameOptions(name="connect_four", rows=4, columns=5))


def blank(planes: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A network that knows nothing."""
    moves = GAME.moves if planes.shape[2:] == (3, 3) else FOUR.moves
    return np.zeros((len(planes), moves), dtype=np.float32), np.zeros(len(planes), dtype=np.float32)


def drawn(*rows: str) -> Boards:
    return np.array([[{"o": 1, "x": -1, ".": 0}[square] for square in row] for row in rows], dtype=np.int8)[None]


class Reference:
    """The search of one game as the paper tells it, node by node."""

    def __init__(self, rules: Any, evaluate: Any, board: Boards, options: SearchOptions) -> None:
        self.rules, self.evaluate, self.options = rules, evaluate, options
        self.root: dict[str, Any] = {"board": board}
        self.expand(self.root)
        for _ in range(options.searches):
            self.simulate(self.root)

    def expand(self, node: dict[str, Any]) -> float:
        over, worth = self.rules.outcome(node["board"])
        node.update(visits=1, children={}, over=bool(over[0]), worth=float(worth[0]))
        if node["over"]:
            return node["worth"]
        logits, value = self.evaluate(self.rules.planes(node["board"]))
        legal = np.flatnonzero(self.rules.legal(node["board"])[0])
        share = np.exp(logits[0, legal] - logits[0, legal].max())
        node["edges"] = {int(m): [float(p), 0, 0.0] for m, p in zip(legal, share / share.sum())}
        return float(value[0])

    def simulate(self, node: dict[str, Any]) -> float:
        """The value of what was found, for the player to move in the node."""
        if node["over"]:
            return node["worth"]
        spent = node["visits"]
        rate = np.log((1 + spent + 19652) / 19652) + self.options.exploration

        def score(move: int) -> float:
            prior, visits, total = node["edges"][move]
            return (total / visits if visits else 0.0) + rate * prior * np.sqrt(spent) / (1 + visits)

        move = max(node["edges"], key=score)
        if move not in node["children"]:
            node["children"][move] = {"board": self.rules.play(node["board"], np.array([move]))}
            value = -self.expand(node["children"][move])
        else:
            value = -self.simulate(node["children"][move])
        node["visits"] += 1
        node["edges"][move][1] += 1
        node["edges"][move][2] += value
        return value

    def policy(self) -> NDArray[np.float64]:
        found = np.zeros(self.rules.moves)
        for move, (_, visits, _) in self.root["edges"].items():
            found[move] = visits / self.options.searches
        return found


def opinionated(planes: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and values that depend on the board, each row for itself."""
    flat = planes.reshape(len(planes), -1)
    weights = np.random.default_rng(7).normal(size=(flat.shape[1], blank(planes)[0].shape[1] + 1)) * 0.7
    # sums of few exact numbers, so that a row does not depend on those beside it
    said = np.array([(row[:, None] * weights).sum(axis=0) for row in flat], dtype=np.float32)
    return said[:, :-1], np.tanh(said[:, -1])


@pytest.mark.parametrize("rules", [GAME, FOUR], ids=lambda rules: rules.name)
def test_the_search_is_that_of_the_paper(rules: Any) -> None:
    options = SearchOptions(searches=60, exploration=1.4)
    boards = [rules.start(1)]
    for move in (0, 1, 0, 2):
        boards.append(rules.play(boards[-1], np.array([move if rules.legal(boards[-1])[0, move] else 3])))
    found = search(rules, opinionated, np.concatenate(boards), options)
    for board, policy_M, value in zip(boards, found.policy_GM, found.value_G):
        one = Reference(rules, opinionated, board, options)
        np.testing.assert_allclose(policy_M, one.policy(), atol=1e-6)
        total = sum(edge[2] for edge in one.root["edges"].values())
        assert value == pytest.approx(total / options.searches, abs=1e-5)


def test_a_win_is_taken_and_a_threat_is_met() -> None:
    win = drawn("oo.", "xx.", "...")
    threat = drawn("xx.", "o..", "..o")
    for board, square in ((win, 2), (threat, 2)):
        found = search(GAME, blank, board, SearchOptions(searches=200))
        assert found.policy_GM[0].argmax() == square
        assert found.policy_GM[0][board[0].ravel() != 0].sum() == 0
        assert found.policy_GM[0].sum() == pytest.approx(1.0)
    assert search(GAME, blank, win, SearchOptions(searches=200)).value_G[0] > 0.8


def test_values_are_those_of_perfect_play_with_enough_searches() -> None:
    solved = Solved(GAME)
    board_NHW = np.concatenate(
        [drawn("oox", "xx.", "o.."), drawn("x.o", ".x.", "..."), drawn("xo.", "ox.", "..."), drawn("o.x", "x.o", "..x")]
    )
    found = search(GAME, blank, board_NHW, SearchOptions(searches=600))
    exact_N = solved.value(board_NHW)
    assert np.abs(found.value_G - exact_N).max() < 0.35
    best_NM = solved.best(board_NHW)
    assert best_NM[np.arange(len(board_NHW)), found.policy_GM.argmax(axis=1)].all()


def test_noise_is_of_the_generator_and_only_on_legal_moves() -> None:
    board_GHW = np.repeat(drawn("x..", ".o.", "..."), 2, axis=0)
    options = SearchOptions(searches=30, noise_share=1.0, noise_alpha=0.3)
    plain = search(GAME, blank, board_GHW, options)
    assert np.array_equal(plain.policy_GM[0], plain.policy_GM[1])
    first, same, other = (search(GAME, blank, board_GHW, options, np.random.default_rng(n)) for n in (1, 1, 2))
    assert np.array_equal(first.policy_GM, same.policy_GM)
    assert not np.array_equal(first.policy_GM, other.policy_GM)
    assert not np.array_equal(first.policy_GM[0], first.policy_GM[1])
    assert first.policy_GM[:, [0, 4]].sum() == 0
    without = search(GAME, blank, board_GHW, SearchOptions(searches=30, noise_share=0.0), np.random.default_rng(1))
    assert np.array_equal(without.policy_GM, plain.policy_GM)


def test_it_plays_well_without_knowing_anything() -> None:
    solved = Solved(GAME)

    def searched(board_GHW: Boards, generator: np.random.Generator) -> NDArray[np.int64]:
        return search(GAME, blank, board_GHW, SearchOptions(searches=300)).policy_GM.argmax(axis=1)

    played = play_games(GAME, searched, solved.player(), 10, seed=0)
    assert (played.result_G < 0).sum() == 0
