"""What every page is: one HTML file that needs nothing else, neither a network nor a script of others.

A content policy in the page allows exactly the style and the script that were written into it, by their hashes: even a
text that slipped through the escaping could not run or load anything.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from groundup.report.markup import Markup, tag


def document(title: str, body: Markup, style: Markup, script: Markup | None = None) -> str:
    """A page as HTML text, with a content policy that allows its style, the script in its body if there is one, and
    the images that it holds, and nothing else."""
    policy = f"default-src 'none'; style-src '{sha256(style)}'"
    if script is not None:
        policy += f"; script-src '{sha256(script)}'"
    policy += "; base-uri 'none'; form-action 'none'"
    if "<img " in body:  # escaped text holds no such thing
        policy += "; img-src data:"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", style),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def asset(name: str) -> Markup:
    """A style or script of this package, as it goes into the page."""
    return Markup(files("groundup.report").joinpath(name).read_text(encoding="utf-8"))


def sha256(content: str) -> str:
    """The hash of an inline style or script in the form that a content policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
