"""What becomes of each cleaned document: the one step of preparation that sees all of them at once.

It sees fingerprints, never texts: about sixty bytes a document in memory, and one band of the near-duplicate
index at a time. Documents are numbered in the order of the files, so the outcome depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from groundup.data.deduplicate import PERMUTATIONS, band_rows, first_equal, near_duplicates
from groundup.data.options import PrepareOptions
from groundup.data.parts import Part, part_path
from groundup.data.sources import Source
from groundup.data.split import Piece, assign, cut_tail
from groundup.data.units import mix
from groundup.errors import GroundupError

KEPT, EXACT, NEAR, EXACT_ACROSS, NEAR_ACROSS = range(5)
REASONS = (
    "",
    "exact duplicate",
    "near duplicate",
    "duplicate of a held-out document",
    "near duplicate of a held-out document",
)


@dataclass
class Documents:
    """All cleaned documents of all parts, as columns of shape (documents,).

    Attributes:
        first: the number of the first document of each part, and last the total.
        side: the set that each belongs to, as an index into `SplitOptions.names`.
        verdict: KEPT, or why it is set aside, as an index into `REASONS`.
        twin: the document that one set aside as a duplicate repeats; otherwise -1.
        pieces: documents that a border between sets runs through.
        across: documents that equalled or nearly equalled one of another set.
    """

    first: np.ndarray
    digests: np.ndarray
    groups: np.ndarray
    source: np.ndarray
    line: np.ndarray
    raw_bytes: np.ndarray
    clean_bytes: np.ndarray
    characters: np.ndarray
    side: np.ndarray
    verdict: np.ndarray
    twin: np.ndarray
    pieces: dict[int, list[Piece]] = field(default_factory=dict)
    across: set[int] = field(default_factory=set)

    @property
    def kept(self) -> np.ndarray:
        """Which documents stand, bool."""
        return self.verdict == KEPT

    def of_part(self, number: int) -> slice:
        """The documents of one part."""
        return slice(int(self.first[number]), int(self.first[number + 1]))


def decide(folder: Path, parts: int, options: PrepareOptions, sources: list[Source]) -> Documents:
    """Split, find duplicates within and across sets, and say what stays.

    Raises:
        GroundupError: training documents equal held-out ones and `split.overlap` is "refuse".
    """
    documents = _gather(folder, parts)
    held_out = np.array([source.held_out for source in sources], dtype=bool)[documents.source]
    documents.side = assign(options.split, documents.digests, documents.groups, held_out)
    _exact_across(documents, options, sources)
    if options.deduplicate.exact:
        _exact_within(documents)
    if options.deduplicate.near:
        _near(documents, folder, parts, options, sources)
    if options.split.kind == "tail":
        documents.side, documents.pieces = cut_tail(options.split, documents.characters, documents.kept)
        _exact_across(documents, options, sources)
    return documents


def _gather(folder: Path, parts: int) -> Documents:
    counts, digests, groups, numbers, lengths = [0], [], [], [], []
    for part in _each(folder, parts):
        digests.append(part["digests"])
        groups.append(part["groups"])
        numbers.append(part["numbers"][:, [Part.SOURCE, Part.LINE, Part.RAW, Part.CHARACTERS]])
        lengths.append(np.diff(part["ends"], prepend=0))
        counts.append(len(lengths[-1]))
    columns = np.concatenate([np.zeros((0, 4), np.int64), *numbers])
    total = len(columns)
    return Documents(
        first=np.cumsum(counts),
        digests=np.concatenate([np.zeros((0, 2), np.uint64), *digests]),
        groups=np.concatenate([np.zeros(0, np.uint64), *groups]),
        source=columns[:, 0],
        line=columns[:, 1],
        raw_bytes=columns[:, 2],
        characters=columns[:, 3],
        clean_bytes=np.concatenate([np.zeros(0, np.int64), *lengths]),
        side=np.zeros(total, dtype=np.int64),
        verdict=np.full(total, KEPT, dtype=np.int8),
        twin=np.full(total, -1, dtype=np.int64),
    )


def _each(folder: Path, parts: int) -> Iterator[Part]:
    for number in range(parts):
        with closing(Part(part_path(folder, number))) as part:
            yield part


def _exact_within(documents: Documents) -> None:
    """Of equal documents in one set the first stays."""
    standing = np.flatnonzero(documents.kept)
    apart = documents.digests[standing].copy()
    apart[:, 1] ^= mix(documents.side[standing].astype(np.uint64))
    keeper = standing[first_equal(apart, np.zeros(len(standing), dtype=np.int64))]
    repeated = keeper != standing
    documents.verdict[standing[repeated]] = EXACT
    documents.twin[standing[repeated]] = keeper[repeated]


def _exact_across(documents: Documents, options: PrepareOptions, sources: list[Source]) -> None:
    """Equal documents in different sets: the later set keeps its copy, so that held-out sets stay whole."""
    standing = np.flatnonzero(documents.kept)
    keeper = standing[first_equal(documents.digests[standing], -documents.side[standing])]
    crossing = documents.side[keeper] != documents.side[standing]
    pairs = dict(zip(standing[crossing].tolist(), keeper[crossing].tolist()))
    _across(documents, pairs, EXACT_ACROSS, options, sources)


def _near(
    documents: Documents, folder: Path, parts: int, options: PrepareOptions, sources: list[Source]
) -> None:
    threshold = options.deduplicate.threshold
    compared = np.concatenate([np.zeros(0, bool), *(part["compared"] for part in _each(folder, parts))])

    def band(number: int) -> np.ndarray:
        empty = np.zeros(0, dtype=np.uint64)
        return np.concatenate([empty, *(part[f"band_{number}"] for part in _each(folder, parts))])

    def signatures_of(chosen: np.ndarray) -> np.ndarray:
        rows = [np.zeros((0, PERMUTATIONS), dtype=np.uint32)]
        for number, part in enumerate(_each(folder, parts)):
            here = documents.of_part(number)
            local = chosen[(chosen >= here.start) & (chosen < here.stop)] - here.start
            if local.size:
                rows.append(part["signature"][local])
        return np.concatenate(rows)

    candidates = np.flatnonzero(documents.kept & compared)
    bands = PERMUTATIONS // band_rows(threshold)
    found = near_duplicates(band, bands, signatures_of, candidates, -documents.side, threshold)
    across = {one: other for one, other in found.items() if documents.side[one] != documents.side[other]}
    _across(documents, across, NEAR_ACROSS, options, sources)
    for one, other in found.items():
        if one not in across:
            documents.verdict[one] = NEAR
            documents.twin[one] = other


def _across(
    documents: Documents, pairs: dict[int, int], verdict: int, options: PrepareOptions, sources: list[Source]
) -> None:
    documents.across.update(pairs)
    if pairs and options.split.overlap == "refuse":
        one, other = next(iter(sorted(pairs.items())))
        raise GroundupError(
            "E-DATA-011",
            f"{len(pairs):,} training documents equal or nearly equal held-out ones",
            where=f"first: {place(documents, sources, one)}\nlike:  {place(documents, sources, other)}",
            why="what is measured on held-out text that was trained on is memory, not learning",
            fix="set data.split.overlap=remove to take them out of training (the default)",
        )
    if options.split.overlap == "remove":
        for one, other in pairs.items():
            documents.verdict[one] = verdict
            documents.twin[one] = other


def place(documents: Documents, sources: list[Source], document: int) -> str:
    """Where a document stands in its file."""
    return f"{sources[int(documents.source[document])].name}:{int(documents.line[document])}"
