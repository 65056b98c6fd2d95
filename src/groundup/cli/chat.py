"""`groundup chat MODEL`: a conversation in the terminal. Only reading lines and printing answers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from groundup.cli.generate import pack
from groundup.cli.sampling import sampling_options
from groundup.cli.terminal import Painter
from groundup.errors import GroundupError

if TYPE_CHECKING:
    from groundup.api import LoadedModel

HELP = """/reset         forget the conversation, keep the system text
/system TEXT   set the system text and begin anew; without TEXT, remove it
/help          this list
/quit          leave (or Ctrl-D); Ctrl-C stops an answer"""
TOO_LONG = "E-GEN-003"


def chat(arguments: argparse.Namespace) -> int:
    """Talk until /quit or the end of the input; 0 when done."""
    from groundup import load

    loaded: Any = load(arguments.model)
    loaded.require_chat()
    pack(arguments, loaded)
    talk = Talk(loaded, arguments.system or "", sampling_options(arguments), Painter())
    return talk.run(input)


class Talk:
    """One conversation: the messages so far, and what the user may type."""

    def __init__(self, loaded: LoadedModel, system: str, options: dict[str, object], painter: Painter) -> None:
        self.loaded, self.options, self.painter = loaded, options, painter
        self.system = system
        self.turns: list[dict[str, str]] = []

    def run(self, read_line: Callable[[str], str]) -> int:
        """Read and answer lines until /quit or the end of the input."""
        if self.painter.interactive:
            self._note(f"{self.loaded.name}: type a message, /help for the commands")
        while True:
            try:
                line = read_line("> " if self.painter.interactive else "").strip()
            except EOFError:
                self.painter.print()
                return 0
            except KeyboardInterrupt:
                self.painter.print()
                self._note("/quit or Ctrl-D leaves")
                continue
            if line == "/quit":
                return 0
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._answer(line)

    def _command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "/reset":
            self.turns = []
            self._note("the conversation is forgotten")
        elif word == "/system":
            self.system, self.turns = rest.strip(), []
            self._note("system text set, conversation begun anew" if self.system else "system text removed")
        elif word == "/help":
            self.painter.print(HELP)
        else:
            self._note(f"{word} is no command; /help lists them")

    def _answer(self, line: str) -> None:
        """Ask, print the answer as it comes, and keep the turn if there was one."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = [*system, *self.turns, {"role": "user", "content": line}]
        text, ending = "", ""
        try:
            for piece in self.loaded.stream_chat(messages, **self.options):
                text, ending = text + piece.text, piece.finish or ending
                self.painter.print(piece.text, end="")
        except KeyboardInterrupt:
            ending = "interrupted"
        except GroundupError as error:
            if error.code != TOO_LONG:
                raise
            self._note(f"{error.what}: /reset begins anew" + ("" if self.turns else ", or ask in fewer words"))
            return
        self.painter.print()
        if ending == "length":
            self._note("(cut off: the answer reached --max-tokens or the end of the context; /reset makes room)")
        if ending == "interrupted":
            self._note("(stopped)")
        if text:
            self.turns += [messages[-1], {"role": "assistant", "content": text}]

    def _note(self, text: str) -> None:
        self.painter.print(self.painter.paint(text, "dim"))
