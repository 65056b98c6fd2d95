"""The source of self-play: what is remembered of a game, how rows are drawn, and resume."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from groundup.data.boards import Boards, GameOptions, game_of
from groundup.data.self_play import SelfPlay, SelfPlayOptions
from groundup.errors import GroundupError

GAME = game_of(GameOptions(name="tic_tac_toe"))


def evenly(board_GHW: Boards, noise: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Every legal move alike, but for a little noise; every position worth 1/4."""
    weight_GM = GAME.legal(board_GHW) * (1.0 + 0.01 * noise.random((len(board_GHW), GAME.moves)))
    policy_GM = (weight_GM / weight_GM.sum(axis=1, keepdims=True)).astype(np.float32)
    return policy_GM, np.full(len(board_GHW), 0.25, dtype=np.float32)


def first_square(board_GHW: Boards, noise: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Always the first empty square: the one who begins gets the squares 0, 2, 4 and, with 6, a diagonal."""
    legal_GM = GAME.legal(board_GHW)
    policy_GM = np.eye(GAME.moves, dtype=np.float32)[legal_GM.argmax(axis=1)]
    return policy_GM, np.full(len(board_GHW), 0.5, dtype=np.float32)


def source(search: Any = evenly, *, rows: int = 8, seed: int = 0, **options: Any) -> SelfPlay:
    chosen = SelfPlayOptions(**{"games": 4, "batches_per_round": 3, "capacity": 200, **options})
    return SelfPlay(chosen, GAME, search=search, rows=rows, seed=seed)


def test_a_game_is_remembered_by_hand() -> None:
    one = source(first_square, games=1, rows=1, augment=False, temperature_moves=0)
    one.next("model")
    state = one.state_dict()
    assert one.size == 7 and one.epoch == 1
    # squares 0 1 2 3 4 5 6 in turn: the first player has 0, 2, 4, 6 and with 2, 4, 6 a diagonal
    assert state["outcome_N"].tolist() == [1, -1, 1, -1, 1, -1, 1]
    assert state["policy_NM"].argmax(dim=1).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert state["board_NHW"][2].flatten().tolist() == [1, -1, 0, 0, 0, 0, 0, 0, 0]
    assert state["board_NHW"][3].flatten().tolist() == [-1, 1, -1, 0, 0, 0, 0, 0, 0]


def test_the_value_of_the_search_is_mixed_in() -> None:
    one = source(first_square, games=1, rows=1, temperature_moves=0, search_value=0.25)
    one.next("model")
    expected = [0.75 * z + 0.25 * 0.5 for z in (1, -1, 1, -1, 1, -1, 1)]
    assert one.state_dict()["outcome_N"].tolist() == expected


def test_rows_are_turned_with_their_policies() -> None:
    turned = source(first_square, games=1, rows=64, temperature_moves=0, capacity=64)
    batch = turned.next("model")
    firsts = batch["planes_BCHW"][:, 2].flatten(1).sum(dim=1) == 9
    # the first move is square 0, in any of the four corners once turned
    assert set(batch["policy_BM"][firsts].argmax(dim=1).tolist()) == {0, 2, 6, 8}
    for planes, policy in zip(batch["planes_BCHW"], batch["policy_BM"]):
        assert planes[2].flatten()[policy.argmax()] == 1, "the move goes to an empty square"
    plain = source(first_square, games=1, rows=64, temperature_moves=0, capacity=64, augment=False).next("model")
    assert set(plain["policy_BM"].argmax(dim=1).tolist()) <= set(range(7))


def test_shapes_rounds_and_ledger() -> None:
    one = source(rows=8, games=4, batches_per_round=3)
    rounds = []
    for _ in range(7):
        batch = one.next("model")
        rounds.append((one.epoch, one.batch))
    assert rounds == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1)]
    assert batch["planes_BCHW"].shape == (8, 3, 3, 3) and batch["planes_BCHW"].dtype == torch.float32
    assert batch["policy_BM"].shape == (8, 9) and batch["policy_BM"].dtype == torch.float32
    assert batch["outcome_B"].shape == (8,) and set(batch["outcome_B"].tolist()) <= {-1.0, 0.0, 1.0}
    torch.testing.assert_close(batch["policy_BM"].sum(dim=1), torch.ones(8))
    assert one.ledger == {"seen": 56, "trained": 56, "masked": 0, "padded": 0}


def test_moves_are_drawn_at_first_and_then_the_most_visited() -> None:
    search_seen: list[Boards] = []

    def leaning(board_GHW: Boards, noise: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        search_seen.append(board_GHW)
        weight_GM = GAME.legal(board_GHW) * np.linspace(1.0, 0.5, GAME.moves, dtype=np.float32)
        return weight_GM / weight_GM.sum(axis=1, keepdims=True), np.zeros(len(board_GHW), dtype=np.float32)

    source(leaning, games=40, rows=1, temperature_moves=1).next("model")
    first = {tuple(board.ravel()) for board in search_seen[1]}
    second = {tuple(board.ravel()) for board in search_seen[2]}
    assert len(first) > 5 and len(second) == len(first), "one drawn move, and then always the same"
    search_seen.clear()
    source(leaning, games=40, rows=1, temperature_moves=9, temperature=0.01).next("model")
    assert len({tuple(board.ravel()) for board in search_seen[1]}) <= 2, "a low temperature hardly draws"


def test_rounds_are_played_until_there_is_a_batch_and_the_oldest_is_forgotten() -> None:
    one = source(rows=60, games=2, capacity=64)
    one.next("model")
    assert one.epoch > 3 and 60 <= one.size <= 64
    small = source(rows=4, games=20, capacity=16)
    small.next("model")
    assert small.size == 16 and len(small.state_dict()["board_NHW"]) == 16


@pytest.mark.parametrize("after", [1, 3, 4])
def test_D5_a_resume_draws_the_same_batches(after: int) -> None:
    whole = source(seed=4)
    for _ in range(after):
        whole.next("model")
    saved = whole.state_dict()
    expected = [whole.next("model") for _ in range(5)]
    again = source(seed=4)
    again.load_state_dict(saved)
    for batch in expected:
        found = again.next("model")
        assert all(torch.equal(batch[name], found[name]) for name in batch)
    assert again.ledger == whole.ledger and (again.epoch, again.batch) == (whole.epoch, whole.batch)
    other = source(seed=5).next("model")
    assert not torch.equal(other["policy_BM"], source(seed=4).next("model")["policy_BM"])


def test_a_memory_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(GroundupError, match="E-ENV-051") as caught:
        source(rows=300)
    assert "300" in caught.value.what and "200" in caught.value.what
