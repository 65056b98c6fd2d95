"""The trackers that a recipe names, following a run."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

from groundup.engine.events import EventLog
from groundup.recipe.difference import plain
from groundup.recipe.tree import Recipe
from groundup.tracking import Follower, open_tracker


class Trackers(ExitStack):
    """All trackers of a run; leaving the context ends them."""

    def follow(self, log: EventLog, recipe: Recipe, folder: Path) -> None:
        """From here on, tell every line of `log`; and first what it holds of earlier sessions."""
        for options in recipe.events.track:
            follower = Follower(
                open_tracker(options, folder, folder.resolve().name),
                kind=options.kind,
                config=plain(recipe),
                memory=folder / "tracking" / f"{options.kind}.json",
                history=log.path,
                length=log.offset,
                warn=lambda step, message: log.write("warning", step, message=message),
            )
            log.listeners = (*log.listeners, self.enter_context(closing(follower)))
