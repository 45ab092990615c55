"""Tables that commands write to a file of the user's choice, whose ending names the format."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from satpipe.pipeline.storage import output_file
from satpipe.pipeline.tables.files import COMPRESSION
from satpipe.sat.errors import ConfigError

TABLE_FORMATS = ("parquet", "csv", "tsv")
"""Formats of tables; a file's ending is `.` and one of these."""
ROW_GROUP = 100_000
_SEPARATORS = {"csv": ",", "tsv": "\t"}


def table_format(place: str | Path, hint: str = "") -> str:
    """Return the format of a table from the ending of its file's name, one of `TABLE_FORMATS`.

    Args:
        place: Path or URL of the file.
        hint: What else the user may have meant, at the end of the message.

    Raises:
        ConfigError: The name has another ending or none.
    """
    kind = Path(str(place)).suffix.lower().removeprefix(".")
    if kind not in TABLE_FORMATS:
        endings = f"{', '.join(f'.{each}' for each in TABLE_FORMATS[:-1])} or .{TABLE_FORMATS[-1]}"
        raise ConfigError(f"{place}: the name of a table must end in {endings}{hint}")
    return kind


@contextmanager
def table_writer(
    location: Any, kind: str, schema: pa.Schema, metadata: dict[bytes, bytes] | None = None
) -> Iterator[Callable[[pa.Table], None]]:
    """Provide a function that appends rows to a table; the file appears when all are written, or not at all.

    Args:
        location: The file.
        kind: One of `TABLE_FORMATS`.
        schema: Of the rows. As text, times are in ISO 8601, scores (float32) have four decimals, seconds (float64) six.
        metadata: Of the Parquet file.

    Raises:
        OutputError: The file cannot be written.
    """
    with output_file(location) as path:
        if kind == "parquet":
            described = schema.with_metadata(metadata)
            with pq.ParquetWriter(path, described, compression=COMPRESSION) as writer:
                yield lambda rows: writer.write_table(rows.replace_schema_metadata(metadata), ROW_GROUP)
            return
        with path.open("w", encoding="utf-8", newline="") as file:
            file.write(_SEPARATORS[kind].join(schema.names) + "\n")
            # Arrow would quote every text, which readers of TSV do not expect.
            writer = csv.writer(file, delimiter=_SEPARATORS[kind], lineterminator="\n")
            yield lambda rows: writer.writerows(_plain(rows))


def _plain(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table, as text and numbers."""
    for rows in table.to_batches(ROW_GROUP):
        yield from zip(*map(_cells, rows.columns), strict=True)


def _cells(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")
    elif pa.types.is_float32(column.type):
        column = pc.round(column.cast(pa.float64()), 4)  # as half precision allows
    elif pa.types.is_float64(column.type):
        column = pc.round(column, 6)
    cells: list[Any] = column.to_pylist()
    return cells
