"""What a person can say about preparing data; the nested options live beside the parts they steer."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from groundup.data.deduplicate import DeduplicateOptions
from groundup.data.filters import FilterOptions
from groundup.data.overlap import OverlapOptions
from groundup.data.split import SplitOptions


class PrepareOptions(BaseModel):
    """Which files become documents, how they are cleaned, and what is set aside."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: list[str] = Field(
        min_length=1,
        description="files, folders and globs: .txt .md .rst .py .jsonl .json .csv .tsv .parquet, each also .gz",
    )
    text_field: str = Field(
        "text", description="the field or column that holds the text, in files of records"
    )
    documents: Literal["file", "paragraph", "line"] = Field(
        "file",
        description="what one document is in plain text: a whole file, a paragraph (up to a blank line), a line",
    )
    max_document_bytes: int = Field(
        1 << 22,
        ge=64,
        le=1 << 28,
        description="bytes, 64 to 2^28; a longer plain file is cut at a blank line or newline, a longer line or "
        "record is set aside",
    )
    utf8: Literal["replace", "set_aside", "error"] = Field(
        "replace",
        description="text that is not valid UTF-8: write U+FFFD in its place, set the document aside, or stop",
    )
    newlines: bool = Field(True, description="write every kind of line break as a single line feed")
    control_characters: Literal["remove", "keep"] = Field(
        "remove", description="control characters other than tab and line feed, and byte order marks"
    )
    normalize: Literal["NFC", "none"] = Field(
        "NFC", description="the Unicode normal form of the cleaned text"
    )
    malformed_limit: float = Field(
        0.01, ge=0, le=1, description="largest share of malformed rows before preparation stops, 0 to 1"
    )
    on_bad_file: Literal["stop", "skip"] = Field(
        "stop", description="a file that cannot be read to its end: stop, or go on with what can be read"
    )
    filters: FilterOptions = Field(default_factory=FilterOptions, description="quality filters")
    deduplicate: DeduplicateOptions = Field(
        default_factory=DeduplicateOptions, description="exact and near-duplicate removal"
    )
    overlap: OverlapOptions = Field(
        default_factory=OverlapOptions, description="removal of what also stands in evaluation files"
    )
    split: SplitOptions = Field(default_factory=SplitOptions, description="which documents are held out")
