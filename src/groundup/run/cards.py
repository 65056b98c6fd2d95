"""The card of the data and the rows that were set aside, beside a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.data.chat_rows import SetAside
from groundup.data.corpus import CARD, QUARANTINE


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """card.json: what was read and what became of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_quarantine(folder: Path, aside: Sequence[SetAside]) -> None:
    """quarantine.jsonl: every row that was set aside, with its reason."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / QUARANTINE).open("w", encoding="utf-8") as file:
        for item in aside:
            file.write(json.dumps(item._asdict(), ensure_ascii=False, default=repr) + "\n")
