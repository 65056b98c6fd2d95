"""Ways of learning: (turn, batch) → a summed loss. One file each; `OBJECTIVES` is what a recipe may name."""

from __future__ import annotations

from groundup.objectives.next_token import NextToken, NextTokenOptions

OBJECTIVES = {"next_token": (NextTokenOptions, NextToken)}
