"""The flags by which `generate` and `chat` choose how text is drawn, as options of `groundup.inference`."""

from __future__ import annotations

import argparse

FLAGS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_tokens", "stop", "seed")


def sampling_options(arguments: argparse.Namespace) -> dict[str, object]:
    """What was given on the command line; the legal ranges are checked where the options are made."""
    given = vars(arguments)
    return {name: given[name] for name in FLAGS if given[name] is not None}
