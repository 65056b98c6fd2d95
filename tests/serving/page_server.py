"""The page's server for tests and for looking at it: the real application around models that are made up.

python tests/serving/page_server.py RUNS     serves the page over a folder of runs, at port 8321
"""

from __future__ import annotations

import base64
import io
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image

from groundup.run.library import RunsLibrary
from groundup.serving.app import build
from groundup.serving.options import ServerOptions
from groundup.serving.served import Served, Wanted
from groundup.serving.specimen import Lengths, Specimen, Specimens

DIGITS = tuple("0123456789")
ANSWER = (
    "A learning rate says how far each step moves the weights. Too large a rate makes the loss jump and diverge; too "
    "small a one wastes the budget. A schedule that warms up first and decays later gets the best of both.\n\n"
    "Try a few values for a hundred steps each: groundup find-lr does this for you."
)


def script(prompt: str, wanted: Wanted) -> str:
    """Short words are repeated; a question gets an answer of some length."""
    said = prompt.rsplit("user\n", 1)[-1].split("\n<turn>")[0]
    return ANSWER if "?" in said else f"You said: {said}"


class Strokes:
    """A `Classifier` of images that takes a narrow bright shape for a 1 and a wide one for a 0."""

    kind: Any = "image"
    labels = DIGITS
    columns: tuple[str, ...] = ()

    def predict(self, inputs: Sequence[str | bytes | Mapping[str, Any]]) -> list[dict[str, Any]]:
        found = []
        for item in inputs:
            assert isinstance(item, bytes)
            box = Image.open(io.BytesIO(item)).convert("L").point(lambda value: 255 * (value > 127)).getbbox()
            narrow = box is not None and (box[2] - box[0]) < (box[3] - box[1]) / 2
            sure, label = 0.9, "1" if narrow else "0"
            others = (1 - sure) / (len(DIGITS) - 1)
            found.append({"label": label, "probabilities": {one: sure if one == label else others for one in DIGITS}})
        return found

    def explain(self, item: str | bytes | Mapping[str, Any], target: str | None = None) -> dict[str, Any]:
        assert isinstance(item, bytes)
        picture = Image.open(io.BytesIO(item)).convert("RGB").resize((28, 28))
        out = io.BytesIO()
        picture.save(out, "PNG")
        address = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
        return {"target": target or "1", "picture": address, "method": "occlusion"}


class Judge(Lengths):
    """A `Classifier` of texts whose grounds have both signs."""

    def explain(self, item: str | bytes | Mapping[str, Any], target: str | None = None) -> dict[str, Any]:
        words = item.split(" ") if isinstance(item, str) else []
        pieces = [{"text": f"{word} ", "weight": (len(word) - 4) / 4} for word in words]
        if isinstance(item, Mapping):
            pieces = [{"text": f"{name} = {item[name]}", "weight": 0.8 - index} for index, name in enumerate(item)]
        return {"target": target or "long", "pieces": pieces, "method": "leave_one_out"}


def served(runs: Path, language: Specimen) -> Specimens:
    """Two models that write, and one judge of each kind."""
    made = 1_700_000_000

    def card(*abilities: str, **more: Any) -> dict[str, Any]:
        return {"family": "specimen", "format": "groundup", "abilities": list(abilities), "labels": [], **more}

    where = {"path": str(runs / "sums"), "context": 4096, "precision": "float32", "parameters": 133_056}
    return Specimens(
        Served("sums", made, card("chat", "complete", **where), language=language),
        Served("second", made, card("chat", "complete", context=4096), language=language),
        Served("plain", made, card("complete", context=4096), language=language),
        Served("digits", made, card("classify:image", labels=list(DIGITS)), classifier=Strokes()),
        Served("judge", made, card("classify:text"), classifier=Judge()),
        Served("rows", made, card("classify:table", columns=["age", "name"]), classifier=Judge("table")),
    )


@contextmanager
def serving(
    runs: Path, *, language: Specimen | None = None, keys: tuple[str, ...] = (), port: int = 0
) -> Iterator[str]:
    """The server in a thread of this process; gives its address."""
    listener = socket.create_server(("127.0.0.1", port))
    number = listener.getsockname()[1]
    shelf = served(runs, language or Specimen(script=script))
    app = build(shelf, ServerOptions(port=number, keys=keys), library=RunsLibrary(runs))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{number}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


if __name__ == "__main__":
    slow = Specimen(script=script, before_token=lambda count: time.sleep(0.02))
    with serving(Path(sys.argv[1]), language=slow, port=8321) as address:
        print(address, flush=True)
        threading.Event().wait()
