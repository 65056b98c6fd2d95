"""On which side of the split a named group stands: the rule of preparation, asked for one name at a time."""

from __future__ import annotations

import functools
import hashlib

import numpy as np

from groundup.data.split import SplitOptions, assign


def is_held_out(group: str, fraction: float = 0.1, salt: str = "") -> bool:
    """Whether preparation with `split: {kind: group, salt: …}` holds out the documents of `group`.

    Args:
        group: the name of the group, such as a module.
        fraction: the share of groups that is held out, 0 to 1.
        salt: as in `SplitOptions`.
    """
    return bool(assign(_options(fraction, salt), NO_DIGEST, group_hash(group), NO_FILE)[0])


def group_hash(group: str) -> np.ndarray:
    """The hash of one group's name as preparation takes it: uint64, shape (1,)."""
    digest = hashlib.blake2b(group.encode("utf-8", "replace"), digest_size=8).digest()
    return np.frombuffer(digest, dtype="<u8")


@functools.cache
def _options(fraction: float, salt: str) -> SplitOptions:
    return SplitOptions(kind="group", held_out={"held_out": fraction}, salt=salt)


NO_DIGEST = np.zeros((1, 2), dtype=np.uint64)
NO_FILE = np.zeros(1, dtype=bool)
