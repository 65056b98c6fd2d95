"""Exact and near duplicates: fingerprints made where documents are cleaned, decisions made over all of them.

A document's digest is a hash of its text without white space. Near duplicates are found by MinHash
(Broder 1997) over runs of five units, through rensa, and locality-sensitive hashing over bands of the
signature (Indyk and Motwani 1998): documents that share a band are compared by the estimated Jaccard
similarity of their runs. Documents of fewer than `shortest` units are compared exactly only: in short rows
("12 + 7 = 19", "Return the width.") a small difference is all there is.

Near-duplicate removal is on by default: it costs a fraction of tokenization, and repeated documents make a
model recite (Lee et al. 2022, arXiv:2107.06499) and let held-out text leak into training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from groundup.data.units import Units, batches, mix, units_of

PERMUTATIONS = 128
SEED = 20_231
WHITE_SPACE = b" \t\n\r\f\v"
BAND_BASE = np.uint64(0xA0761D6478BD642F)


class DeduplicateOptions(BaseModel):
    """Which repeated documents are set aside; the first one stays."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    exact: bool = Field(True, description="set aside documents that equal an earlier one, white space apart")
    near: bool = Field(True, description="set aside documents that nearly equal an earlier one")
    threshold: float = Field(
        0.85,
        ge=0.5,
        le=1,
        description="estimated Jaccard similarity from which documents are near duplicates, .5 to 1",
    )
    run: int = Field(
        5, ge=1, le=50, description="units (words, or characters of unspaced scripts) a run, 1 to 50"
    )
    shortest: int = Field(25, ge=1, description="units from which a document is compared for near duplicates")


def text_digest(encoded: bytes) -> bytes:
    """Sixteen bytes that name a document, given as UTF-8, whatever its (ASCII) white space."""
    return hashlib.blake2b(encoded.translate(None, WHITE_SPACE), digest_size=16).digest()


def band_rows(threshold: float) -> int:
    """Rows a band: as many as still find a pair at the threshold with a chance of 99 %."""
    for rows in range(16, 1, -1):
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= 0.99:
            return rows
    return 1


def signatures(texts: list[str], options: DeduplicateOptions) -> tuple[np.ndarray, np.ndarray]:
    """MinHash signatures, uint32 of shape (texts, PERMUTATIONS), and which texts are long enough to compare."""
    signature = np.zeros((len(texts), PERMUTATIONS), dtype=np.uint32)
    compared = np.zeros(len(texts), dtype=bool)
    first = 0
    for batch in batches(texts):
        units = units_of(batch)
        last = first + len(batch)
        signature[first:last] = _sign(units, options.run)
        compared[first:last] = units.counts() >= max(options.shortest, options.run)
        first = last
    return signature, compared


def _sign(units: Units, run: int) -> np.ndarray:
    from rensa import RMinHash

    runs, owner = units.runs(run)
    offsets = np.searchsorted(owner, np.arange(units.texts + 1)).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(runs, offsets, num_perm=PERMUTATIONS, seed=SEED)
    return np.asarray(matrix.to_rows(), dtype=np.uint32).reshape(units.texts, PERMUTATIONS)


def band_keys(signature: np.ndarray, threshold: float) -> np.ndarray:
    """One hash for each band of each signature, uint64, shape (texts, bands)."""
    rows = band_rows(threshold)
    bands = PERMUTATIONS // rows
    cut = signature[:, : bands * rows].reshape(-1, bands, rows).astype(np.uint64)
    key = np.zeros(cut.shape[:2], dtype=np.uint64)
    for row in range(rows):
        key = key * BAND_BASE + cut[:, :, row]
    return mix(key)


def first_equal(digests: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """For each document the one of equal digest that stays: lowest rank, then earliest. Its own index if alone.

    Args:
        digests: uint64, shape (documents, 2).
        rank: int64, shape (documents,).
    """
    count = len(digests)
    order = np.lexsort((np.arange(count), rank, digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    new = np.ones(count, dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    heads = order[np.flatnonzero(new)]
    keeper = np.empty(count, dtype=np.int64)
    keeper[order] = heads[np.cumsum(new) - 1]
    return keeper


def near_duplicates(
    band: Callable[[int], np.ndarray],
    bands: int,
    signatures_of: Callable[[np.ndarray], np.ndarray],
    candidates: np.ndarray,
    rank: np.ndarray,
    threshold: float,
) -> dict[int, int]:
    """Documents that nearly equal one that stays, each with that one.

    Only documents that share a band with another are looked at one by one, so memory follows the number of
    suspects instead of the number of documents.

    Args:
        band: the band keys of all documents for one band, uint64, shape (documents,).
        signatures_of: the signatures of some documents, given in ascending order.
        candidates: the documents that still stand and are long enough, ascending.
        rank: documents of lower rank are kept before others.
    """
    suspect = np.zeros(len(rank), dtype=bool)
    for number in range(bands):
        keys = band(number)[candidates]
        _, inverse, times = np.unique(keys, return_inverse=True, return_counts=True)
        suspect[candidates[times[inverse] > 1]] = True
    suspects = np.flatnonzero(suspect)
    if not suspects.size:
        return {}
    columns = np.stack([band(number)[suspects] for number in range(bands)], axis=1).tolist()
    signature = signatures_of(suspects)
    seen: list[dict[int, list[int]]] = [{} for _ in range(bands)]
    found: dict[int, int] = {}
    for place in np.lexsort((suspects, rank[suspects])).tolist():
        near = sorted(
            {other for number, key in enumerate(columns[place]) for other in seen[number].get(key, ())}
        )
        equal = (signature[near] == signature[place]).mean(axis=1) >= threshold
        if equal.any():
            found[int(suspects[place])] = int(suspects[near[int(np.argmax(equal))]])
            continue
        for number, key in enumerate(columns[place]):
            seen[number].setdefault(key, []).append(place)
    return found
