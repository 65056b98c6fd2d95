"""Tables that scikit-learn brings along, by names that stand where the name of a file may stand.

They are read from the installed package, never fetched. scikit-learn is an extra, imported when one is asked for.
"""

from __future__ import annotations

import hashlib
import sys
from typing import NamedTuple

from groundup.data.chat_records import Record
from groundup.errors import GroundupError, nearest, printable

PREFIX = "sklearn:"
BUILTIN = ("breast_cancer", "diabetes", "digits", "iris", "wine")
TARGET = "target"
"""The column that holds the answer."""


class BuiltinTable(NamedTuple):
    """The rows of a table with the bytes and the digest of its values."""

    records: list[Record]
    size: int
    sha256: str


def is_builtin(name: str) -> bool:
    """Whether a name is that of a table rather than of a file."""
    return name.startswith(PREFIX)


def read_builtin(name: str) -> BuiltinTable:
    """The rows of `sklearn:NAME`: features under their own names, and the answer under `target`.

    Labels are the names that the package gives them, those of digits the digits. The values of diabetes are the
    measured ones, not those that scikit-learn centres by statistics of all rows.

    Raises:
        GroundupError: E-DATA-119 there is no such table; E-MACHINE-901 without scikit-learn.
    """
    short = name.removeprefix(PREFIX)
    if short not in BUILTIN:
        close = nearest(short, BUILTIN)
        raise GroundupError(
            "E-DATA-119",
            f"there is no built-in table {printable(short, 60)!r}",
            where=f"data.files: {printable(name, 80)}",
            why="a name that begins with sklearn: stands for a table of scikit-learn, and only some are small enough "
            "to be in the package",
            fix=(f"perhaps you meant {PREFIX}{close}\n" if close else "")
            + f"built in are: {', '.join(PREFIX + one for one in BUILTIN)}",
            exit_code=2,
        )
    try:
        from sklearn import datasets
    except ImportError as error:
        raise GroundupError(
            "E-MACHINE-901",
            "the built-in tables come with scikit-learn, which is not installed",
            where=printable(sys.executable),
            why="it is large, so it is an optional extra",
            fix='pip install "groundup[classify]"',
        ) from error
    loaded = {
        "breast_cancer": datasets.load_breast_cancer,
        "diabetes": lambda: datasets.load_diabetes(scaled=False),
        "digits": datasets.load_digits,
        "iris": datasets.load_iris,
        "wine": datasets.load_wine,
    }[short]()
    names = [str(name) for name in loaded.feature_names]
    features = loaded.data.astype("<f8")
    if short == "diabetes":
        answers: list[float | str] = loaded.target.astype("<f8").tolist()
    else:
        answers = [str(loaded.target_names[number]) for number in loaded.target]
    records = [
        Record(line, dict(zip(names, row)) | {TARGET: answer})
        for line, (row, answer) in enumerate(zip(features.tolist(), answers), start=1)
    ]
    content = features.tobytes() + repr((names, answers)).encode()
    return BuiltinTable(records, len(content), hashlib.sha256(content).hexdigest())
