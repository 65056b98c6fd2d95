"""Columns of csv and parquet files: finding the text's, and reading parquet row group by row group.

pyarrow is an optional extra, imported only when a parquet file is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from groundup.data.sources import BadFile, Source, broken
from groundup.errors import GroundupError, nearest, printable

ROWS_AT_ONCE = 1024


def csv_columns(
    source: Source, names: list[str], text_field: str, group_field: str | None
) -> tuple[int, int | None]:
    """The positions of the text's and the group's column.

    Raises:
        BadFile: there is no such column.
    """
    for field in filter(None, (text_field, group_field)):
        if field not in names:
            raise no_column(source, field, names)
    return names.index(text_field), None if group_field is None else names.index(group_field)


def no_column(source: Source, field: str, names: list[str]) -> BadFile:
    """The error for a column that a file does not have."""
    close = nearest(field, names) or (names[0] if len(names) == 1 else None)
    shown = ", ".join(printable(name, 40) for name in names[:12]) or "none"
    return BadFile(
        "E-DATA-010",
        f"{printable(source.path.name)} has no column {printable(field)!r}",
        where=f"{source.path}: its columns are {shown}",
        why="the text of each document is taken from one column",
        fix=f"set data.text_field={printable(close) if close else 'NAME'}\n"
        f"or look at the file first: groundup data check '{source.path}'",
    )


def import_pyarrow(path: Path) -> ModuleType:
    """pyarrow with its parquet reader, or the error that says how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise GroundupError(
            "E-DATA-014",
            "reading parquet files needs pyarrow, which is not installed",
            where=str(path),
            why="it is large, so it is an optional extra",
            fix="pip install 'groundup[parquet]'",
        ) from error
    return pyarrow


def parquet_names(source: Source, path: Path) -> list[str]:
    """The column names of a parquet file."""
    return list(_open(source, path)[1].schema_arrow.names)


def _open(source: Source, path: Path) -> tuple[ModuleType, Any]:
    pyarrow = import_pyarrow(source.path)
    try:
        return pyarrow, pyarrow.parquet.ParquetFile(path, memory_map=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise broken(source.path, f"not a whole parquet file: {error}") from error


def open_parquet(
    source: Source, path: Path, text_field: str, group_field: str | None
) -> list[tuple[int, int]]:
    """Rows and unpacked bytes of each row group, after the columns have been checked."""
    pyarrow, file = _open(source, path)
    schema = file.schema_arrow
    for field in filter(None, (text_field, group_field)):
        if field not in schema.names:
            raise no_column(source, field, list(schema.names))
    kind = schema.field(text_field).type
    types = pyarrow.types
    if not any(
        test(kind)
        for test in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    ):
        raise BadFile(
            "E-DATA-010",
            f"{printable(source.path.name)}: column {printable(text_field)!r} is {kind}, expected text",
            where=str(source.path),
            why="the text of each document is taken from one column",
            fix="set data.text_field to a column of text",
        )
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    return [(group.num_rows, group.total_byte_size) for group in groups]


def parquet_rows(
    source: Source, path: Path, row_group: int, text_field: str, group_field: str | None
) -> Iterator[tuple[bytes | None, str | None]]:
    """The text (undecoded) and the group of each row of one row group."""
    pyarrow, file = _open(source, path)
    columns = [text_field] if group_field in (None, text_field) else [text_field, group_field]
    try:
        for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[row_group], columns=columns):
            # As bytes, because a column that says it is text may not be valid UTF-8.
            texts = batch.column(text_field).cast(pyarrow.large_binary()).to_pylist()
            groups = [None] * len(texts) if group_field is None else batch.column(group_field).to_pylist()
            for text, group in zip(texts, groups):
                yield text, None if group is None else str(group)
    except (pyarrow.ArrowException, OSError) as error:
        raise broken(source.path, f"row group {row_group} is damaged: {error}") from error
