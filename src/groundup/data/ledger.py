"""The ledger: documents and bytes in = kept + cleaned away + set aside, reason by reason, always.

Bytes in are the bytes of the text as it was read (of the raw row where no text could be read), bytes kept the
UTF-8 of the cleaned text. What cleaning took away from kept documents is `cleaned_bytes`; it is negative where
replacement characters are longer than what they replace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Ledger:
    """What became of the documents of one file, or of all of them."""

    documents: int = 0
    bytes: int = 0
    kept_documents: int = 0
    kept_bytes: int = 0
    cleaned_bytes: int = 0
    malformed: int = 0
    set_aside: dict[str, list[int]] = field(default_factory=dict)

    def keep(self, raw_bytes: int, clean_bytes: int) -> None:
        """A document came in and is kept."""
        self.documents += 1
        self.bytes += raw_bytes
        self.kept_documents += 1
        self.kept_bytes += clean_bytes
        self.cleaned_bytes += raw_bytes - clean_bytes

    def reject(self, reason: str, raw_bytes: int, *, malformed: bool = False) -> None:
        """A document came in and is set aside."""
        self.documents += 1
        self.bytes += raw_bytes
        self.malformed += malformed
        self._count(reason, 1, raw_bytes)

    def withdraw(self, reason: str, raw_bytes: int, clean_bytes: int) -> None:
        """A document that was kept is set aside after all."""
        self.kept_documents -= 1
        self.kept_bytes -= clean_bytes
        self.cleaned_bytes -= raw_bytes - clean_bytes
        self._count(reason, 1, raw_bytes)

    def add(self, other: Ledger) -> None:
        """Take in the counts of another ledger."""
        self.documents += other.documents
        self.bytes += other.bytes
        self.kept_documents += other.kept_documents
        self.kept_bytes += other.kept_bytes
        self.cleaned_bytes += other.cleaned_bytes
        self.malformed += other.malformed
        for reason, (documents, size) in other.set_aside.items():
            self._count(reason, documents, size)

    def _count(self, reason: str, documents: int, size: int) -> None:
        entry = self.set_aside.setdefault(reason, [0, 0])
        entry[0] += documents
        entry[1] += size

    def check(self) -> None:
        """Raise AssertionError unless everything that came in is accounted for."""
        aside = sum(documents for documents, _ in self.set_aside.values())
        aside_bytes = sum(size for _, size in self.set_aside.values())
        if self.documents != self.kept_documents + aside:
            raise AssertionError(f"documents do not add up: {self.as_dict()}")
        if self.bytes != self.kept_bytes + self.cleaned_bytes + aside_bytes:
            raise AssertionError(f"bytes do not add up: {self.as_dict()}")

    def as_dict(self) -> dict[str, Any]:
        """For the data card; reasons in alphabetical order."""
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "kept": {"documents": self.kept_documents, "bytes": self.kept_bytes},
            "cleaned_bytes": self.cleaned_bytes,
            "malformed": self.malformed,
            "set_aside": {
                reason: {"documents": documents, "bytes": size}
                for reason, (documents, size) in sorted(self.set_aside.items())
            },
        }

    @staticmethod
    def from_dict(value: dict[str, Any]) -> Ledger:
        """The inverse of `as_dict`."""
        aside = {reason: [entry["documents"], entry["bytes"]] for reason, entry in value["set_aside"].items()}
        kept = value["kept"]
        return Ledger(
            value["documents"],
            value["bytes"],
            kept["documents"],
            kept["bytes"],
            value["cleaned_bytes"],
            value["malformed"],
            aside,
        )
