"""Reading the evaluation files whose text must not be trained on: every text in every record counts.

A row that cannot be read is an error here, because a question that was not looked at could leak unseen.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from groundup.data.columns import import_pyarrow
from groundup.data.options import PrepareOptions
from groundup.data.overlap import EvaluationIndex
from groundup.data.rows import BYTE_ORDER_MARK, parse_json
from groundup.data.sources import ByteStream, Source, broken, open_sources

LIMIT = 1 << 28


def evaluation_index(options: PrepareOptions) -> EvaluationIndex:
    """The runs of words of all files named in `options.overlap`."""
    index = EvaluationIndex(options.overlap)
    if options.overlap.files:
        for source in open_sources(options.overlap.files, [])[0]:
            index.add(source.name, _texts(source))
    index.close()
    return index


def _texts(source: Source) -> Iterator[str]:
    if source.format == "parquet":
        yield from _parquet_texts(source)
        return
    with ByteStream(source) as stream:
        data = stream.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise broken(source.path, f"an evaluation file is read whole, and this one is over {LIMIT:,} bytes")
    data = data.removeprefix(BYTE_ORDER_MARK)
    if source.format == "text":
        yield data.decode("utf-8", "replace")
    elif source.format == "csv":
        text = data.decode("utf-8", "replace")
        delimiter = max(",\t;", key=text.partition("\n")[0].count)
        try:
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
                yield from row
        except csv.Error as error:
            raise broken(source.path, f"not csv: {error}") from error
    else:
        for number, line in enumerate(data.split(b"\n") if source.format == "jsonl" else [data], start=1):
            if line.strip():
                value, problem = parse_json(line)
                if problem:
                    raise broken(source.path, f"line {number}: {problem}", "mend the line, or take it out")
                yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    """Every text within a JSON value, in order."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item.encode("utf-8", "replace").decode()
        elif isinstance(item, dict):
            waiting.extend(reversed(list(item.values())))
        elif isinstance(item, list):
            waiting.extend(reversed(item))


def _parquet_texts(source: Source) -> Iterator[str]:
    pyarrow = import_pyarrow(source.path)
    try:
        for batch in pyarrow.parquet.ParquetFile(source.path).iter_batches():
            for row in batch.to_pylist():
                yield from _strings(list(row.values()))
    except (pyarrow.ArrowException, OSError) as error:
        raise broken(source.path, f"not a whole parquet file: {error}") from error
