"""Monte-Carlo tree search guided by a network's policy and value, for many games side by side: AlphaZero's (Silver et
al. 2018, "A general reinforcement learning algorithm that masters chess, shogi, and Go through self-play", methods:
search). The rules of the game and the network are handed in; nothing of torch enters here.

One tree for each game. A search adds one leaf to every tree, and the network evaluates all new leaves as one batch;
that takes the place of the virtual loss, by which the paper fills a batch from a single tree.

Shapes: G games, N nodes of a tree, M moves, A games in which the descent still goes on, F new leaves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]

Evaluate = Callable[[Floats], tuple[Floats, Floats]]
"""planes (F, C, H, W) → logits of the moves (F, M) and the value for the player to move (F,), in -1 … 1."""

BASE = 19_652
"""Searches after which exploration begins to weigh more (the paper's c_base)."""


class SearchOptions(BaseModel):
    """How long a position is thought about, and how widely."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    searches: int = Field(default=64, ge=1, le=65_536, description="leaves that are looked at for each move")
    exploration: float = Field(
        default=1.25, gt=0.0, allow_inf_nan=False, description="weight of the policy against the values found (c_init)"
    )
    noise_share: float = Field(
        default=0.25, ge=0.0, le=1.0, description="share of noise in the policy of the first move, in self-play alone"
    )
    noise_alpha: float = Field(
        default=1.0,
        gt=0.0,
        allow_inf_nan=False,
        description="evenness of that Dirichlet noise; about 10 / legal moves of a position",
    )


class Rules(Protocol):
    """What the search asks of a game. Boards are seen by the player to move."""

    @property
    def moves(self) -> int: ...
    def legal(self, board_GHW: Any) -> NDArray[np.bool_]: ...
    def play(self, board_GHW: Any, move_G: Whole) -> Any: ...
    def outcome(self, board_GHW: Any) -> tuple[NDArray[np.bool_], Floats]: ...
    def planes(self, board_GHW: Any) -> Floats: ...


class Found(NamedTuple):
    """What a search found.

    Attributes:
        policy_GM: shares of the visits of each move, float32; 0 for illegal ones.
        value_G: mean value of the visited leaves for the player to move, float32, in -1 … 1.
    """

    policy_GM: Floats
    value_G: Floats


def search(
    rules: Rules,
    evaluate: Evaluate,
    board_GHW: NDArray[np.int8],
    options: SearchOptions,
    noise: np.random.Generator | None = None,
) -> Found:
    """Search every board for `options.searches` leaves.

    Args:
        rules: of the game.
        evaluate: the network.
        board_GHW: of games that are not over, one at least.
        options: of the search.
        noise: what the noise of the first move is drawn from; without it there is none, and nothing is random.
    """
    trees = _Trees(rules, board_GHW, options)
    trees.begin(evaluate, noise)
    for _ in range(options.searches):
        trees.visit(evaluate)
    visits_GM, total_GM = trees.visits[:, 0], trees.total[:, 0]
    policy_GM = (visits_GM / options.searches).astype(np.float32)
    return Found(policy_GM, (total_GM.sum(axis=1) / options.searches).astype(np.float32))


class _Trees:
    """The trees, as arrays. Node 0 is the root. What belongs to a move stands with the node that it is made in."""

    def __init__(self, rules: Rules, board_GHW: NDArray[np.int8], options: SearchOptions) -> None:
        self.rules, self.options = rules, options
        games, nodes, moves = len(board_GHW), options.searches + 1, rules.moves
        self.board = np.zeros((games, nodes, *board_GHW.shape[1:]), dtype=np.int8)
        self.board[:, 0] = board_GHW
        self.prior = np.zeros((games, nodes, moves), dtype=np.float32)  # -infinity where a move is illegal
        self.visits = np.zeros((games, nodes, moves), dtype=np.int32)
        self.total = np.zeros((games, nodes, moves))  # of the values, for the player who makes the move
        self.child = np.full((games, nodes, moves), -1, dtype=np.int32)
        self.over = np.zeros((games, nodes), dtype=np.bool_)
        self.worth = np.zeros((games, nodes), dtype=np.float32)  # of games that are over, for the player to move
        self.size = 1

    def begin(self, evaluate: Evaluate, noise: np.random.Generator | None) -> None:
        """The priors of the roots, mixed with Dirichlet noise over the legal moves."""
        board_GHW = self.board[:, 0]
        logit_GM, _ = evaluate(self.rules.planes(board_GHW))
        prior_GM = _priors(logit_GM, self.rules.legal(board_GHW))
        if noise is not None:
            share = self.options.noise_share
            # gamma variates of the legal moves, normalised, are Dirichlet's
            gamma_GM = noise.standard_gamma(self.options.noise_alpha, prior_GM.shape) + 1e-9
            legal_GM = self.rules.legal(board_GHW)
            gamma_GM /= np.where(legal_GM, gamma_GM, 0.0).sum(axis=1, keepdims=True)
            mixed_GM = (1.0 - share) * np.where(legal_GM, prior_GM, 0.0) + share * gamma_GM
            prior_GM = np.where(legal_GM, mixed_GM, -math.inf).astype(np.float32)
        self.prior[:, 0] = prior_GM

    def visit(self, evaluate: Evaluate) -> None:
        """Go down every tree to a new leaf, or to the end of the game, and carry its value up again."""
        games = len(self.board)
        value_G = np.zeros(games)
        path: list[tuple[Whole, Whole, Whole]] = []
        leaves: list[tuple[Whole, Whole, Whole]] = []
        game_A, node_A = np.arange(games), np.zeros(games, dtype=np.int64)
        while len(game_A):
            move_A = self._select(game_A, node_A)
            path.append((game_A, node_A, move_A))
            child_A = self.child[game_A, node_A, move_A].astype(np.int64)
            new_A = child_A < 0
            ended_A = self.over[game_A, child_A] & ~new_A
            leaves.append((game_A[new_A], node_A[new_A], move_A[new_A]))
            value_G[game_A[ended_A]] = self.worth[game_A[ended_A], child_A[ended_A]]
            on_A = ~(new_A | ended_A)
            game_A, node_A = game_A[on_A], child_A[on_A]
        game_F, node_F, move_F = (np.concatenate(parts) for parts in zip(*leaves))
        if len(game_F):
            value_G[game_F] = self._grow(game_F, node_F, move_F, evaluate)
        self.size += 1
        for game_A, node_A, move_A in reversed(path):
            value_G[game_A] *= -1.0  # what is good for the player to move in a node is bad for the one who led there
            self.visits[game_A, node_A, move_A] += 1
            self.total[game_A, node_A, move_A] += value_G[game_A]

    def _select(self, game_A: Whole, node_A: Whole) -> Whole:
        """The moves of the largest mean value plus U(s, a) = c(s) P(s, a) sqrt(N(s)) / (1 + N(s, a)), where c(s) =
        log((1 + N(s) + c_base) / c_base) + c_init. A move that was never made has the value 0."""
        visits_AM = self.visits[game_A, node_A]
        spent_A1 = visits_AM.sum(axis=1, keepdims=True) + 1  # and the visit in which the node was new
        weight_A1 = (np.log((1 + spent_A1 + BASE) / BASE) + self.options.exploration) * np.sqrt(spent_A1)
        mean_AM = self.total[game_A, node_A] / np.maximum(visits_AM, 1)
        best_A: Whole = (mean_AM + weight_A1 * self.prior[game_A, node_A] / (1 + visits_AM)).argmax(axis=1)
        return best_A

    def _grow(self, game_F: Whole, node_F: Whole, move_F: Whole, evaluate: Evaluate) -> Floats:
        """New nodes, one for each of these moves; their values for the player to move in them, (F,)."""
        board_FHW = self.rules.play(self.board[game_F, node_F], move_F)
        over_F, value_F = self.rules.outcome(board_FHW)
        self.child[game_F, node_F, move_F] = self.size
        self.board[game_F, self.size] = board_FHW
        self.over[game_F, self.size], self.worth[game_F, self.size] = over_F, value_F
        open_F = ~over_F
        if open_F.any():
            open_FHW = board_FHW[open_F]
            logit_FM, value_F[open_F] = evaluate(self.rules.planes(open_FHW))
            self.prior[game_F[open_F], self.size] = _priors(logit_FM, self.rules.legal(open_FHW))
        return value_F


def _priors(logit_GM: Floats, legal_GM: NDArray[np.bool_]) -> Floats:
    """Probabilities over the legal moves, and -infinity for the others."""
    masked_GM = np.where(legal_GM, logit_GM, -math.inf)
    weight_GM = np.exp(masked_GM - masked_GM.max(axis=1, keepdims=True))
    share_GM = weight_GM / weight_GM.sum(axis=1, keepdims=True)
    return np.where(legal_GM, share_GM, -math.inf).astype(np.float32)
