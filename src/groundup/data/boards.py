"""The rules of board games for two players, on many boards at once: pure functions of arrays. No player, no search and
no network enter here.

A board is int8 and is always seen by the player to move: 1 is an own stone, -1 one of the other player, 0 an empty
square. Row 0 is the top.

Shapes: G boards, H rows, W columns, S = H·W squares, M moves, L lines, Y symmetries, C planes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from groundup.errors import GroundupError

Boards = NDArray[np.int8]

PLANES = 3
"""Own stones, the other's stones, empty squares: where a convolution pads, none of them is 1."""

USUAL = {"tic_tac_toe": (3, 3), "connect_four": (6, 7)}
"""Rows and columns where nothing is said."""

IN_A_ROW = {"tic_tac_toe": 3, "connect_four": 4}


class GameOptions(BaseModel):
    """Which game, and on what board."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Literal["tic_tac_toe", "connect_four"] = Field(description="three, or four that fall, in a line")
    rows: int | None = Field(default=None, ge=1, le=12, description="of the board. None: 3, or 6 of connect_four")
    columns: int | None = Field(default=None, ge=1, le=12, description="of the board. None: 3, or 7 of connect_four")


class Symmetries(NamedTuple):
    """Turns and reflections that leave the rules as they are; the first is the identity.

    Attributes:
        square_YS: int64, the square that each square of the turned board is taken from.
        move_YM: int64, the move that each move on the turned board is.
    """

    square_YS: NDArray[np.int64]
    move_YM: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Game:
    """The rules of one game.

    Attributes:
        name: as in a recipe.
        rows, columns: of the board.
        in_a_row: own stones in a line that win.
        falls: a move is a column, and its stone falls to the lowest empty square; else a move is a square.
    """

    name: str
    rows: int
    columns: int
    in_a_row: int
    falls: bool

    @property
    def squares(self) -> int:
        """S."""
        return self.rows * self.columns

    @property
    def moves(self) -> int:
        """M, legal or not."""
        return self.columns if self.falls else self.squares

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the planes of a board."""
        return PLANES, self.rows, self.columns

    @cached_property
    def _line_SL(self) -> NDArray[np.float32]:
        """1 where a square belongs to a line."""
        number_HW = np.arange(self.rows * self.columns).reshape(self.rows, self.columns)
        lines = []
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            for row in range(self.rows):
                for column in range(self.columns):
                    end = row + down * (self.in_a_row - 1), column + right * (self.in_a_row - 1)
                    if end[0] < self.rows and 0 <= end[1] < self.columns:
                        steps = np.arange(self.in_a_row)
                        lines.append(number_HW[row + down * steps, column + right * steps])
        line_SL = np.zeros((number_HW.size, len(lines)), dtype=np.float32)
        for index, squares in enumerate(lines):
            line_SL[squares, index] = 1.0
        return line_SL

    def start(self, count: int) -> Boards:
        """Empty boards (count, H, W)."""
        return np.zeros((count, self.rows, self.columns), dtype=np.int8)

    def legal(self, board_GHW: Boards) -> NDArray[np.bool_]:
        """Which moves there are on boards of games that are not over, bool (G, M)."""
        empty_GHW = board_GHW == 0
        return empty_GHW[:, 0] if self.falls else empty_GHW.reshape(len(board_GHW), self.squares)

    def play(self, board_GHW: Boards, move_G: NDArray[np.int64]) -> Boards:
        """The boards after a legal move each, new arrays, as the other player sees them."""
        after_GHW = -board_GHW
        every_G = np.arange(len(board_GHW))
        if self.falls:
            row_G = (board_GHW[every_G, :, move_G] == 0).sum(axis=1) - 1
            after_GHW[every_G, row_G, move_G] = -1
        else:
            after_GHW.reshape(len(board_GHW), self.squares)[every_G, move_G] = -1
        return after_GHW

    def outcome(self, board_GHW: Boards) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which games are over, bool (G,), and what they are worth to the player to move, float32 (G,): -1 where the
        other player has just completed a line, else 0."""
        board_GS = board_GHW.reshape(len(board_GHW), self.squares)
        lost_G = (board_GS.astype(np.float32) @ self._line_SL == -self.in_a_row).any(axis=1)
        return lost_G | (board_GS != 0).all(axis=1), -lost_G.astype(np.float32)

    def planes(self, board_GHW: Boards) -> NDArray[np.float32]:
        """What a network sees, (G, C, H, W): own stones, the other's stones, empty squares."""
        return np.stack([board_GHW == 1, board_GHW == -1, board_GHW == 0], axis=1).astype(np.float32)

    @cached_property
    def symmetries(self) -> Symmetries:
        """All of them: 2 where stones fall, else 4, or 8 on a square board."""
        number_HW = np.arange(self.rows * self.columns).reshape(self.rows, self.columns)
        if self.falls:
            squares = [number_HW, number_HW[:, ::-1]]
            column_W = np.arange(self.columns)
            return Symmetries(_rows(squares), _rows([column_W, column_W[::-1]]))
        turned = [number_HW, np.rot90(number_HW, 2)]
        if self.rows == self.columns:
            turned += [np.rot90(number_HW), np.rot90(number_HW, 3)]
        square_YS = _rows([*turned, *(one[:, ::-1] for one in turned)])
        return Symmetries(square_YS, square_YS)


def _rows(arrays: list[NDArray[Any]]) -> NDArray[np.int64]:
    return np.stack([array.ravel() for array in arrays]).astype(np.int64)


def game_of(options: GameOptions) -> Game:
    """The rules that a recipe asks for.

    Raises:
        GroundupError: E-ENV-050 a board on which there is no line to complete.
    """
    usual, length = USUAL[options.name], IN_A_ROW[options.name]
    rows, columns = options.rows or usual[0], options.columns or usual[1]
    if max(rows, columns) < length:
        raise GroundupError(
            "E-ENV-050",
            f"a board of {rows}×{columns} squares has no line of {length}",
            where=f"data.game.rows: {rows}, data.game.columns: {columns}",
            why=f"{options.name} is won by {length} stones in a line, so that every game would be drawn",
            fix=f"data.game.rows: {usual[0]}, data.game.columns: {usual[1]}, or leave both out",
            exit_code=2,
        )
    return Game(name=options.name, rows=rows, columns=columns, in_a_row=length, falls=options.name == "connect_four")
