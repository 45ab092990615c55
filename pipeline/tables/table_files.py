"""Tables that commands write to a file of the user's choice, whose ending names the format."""

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
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
        schema: Of the rows. As text, times are in ISO 8601, scores (float32) have up to four decimals, seconds
            (float64) up to six.
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
        separator = _SEPARATORS[kind]
        with path.open("wb") as file:
            file.write((separator.join(schema.names) + "\n").encode())
            yield lambda rows: _write_text(file, rows, separator)


def _write_text(file: IO[bytes], table: pa.Table, separator: str) -> None:
    """Write rows as text, with quotes only around texts that need them."""
    for rows in table.to_batches(ROW_GROUP):
        texts = pa.table(list(map(_text, rows.columns)), rows.schema.names)
        special = rf'["\r\n{separator}]'
        free = [texts.column(n) for n, field in enumerate(rows.schema) if not pa.types.is_primitive(field.type)]
        if any(pc.any(pc.match_substring_regex(column, special)).as_py() for column in free):
            buffer = io.StringIO(newline="")
            lines = csv.writer(buffer, delimiter=separator, lineterminator="\n")
            lines.writerows(zip(*(column.to_pylist() for column in texts.columns), strict=True))
            file.write(buffer.getvalue().encode())
        else:  # ten times as fast, but Arrow can only quote all texts or none
            plain = arrow_csv.WriteOptions(include_header=False, delimiter=separator, quoting_style="none")
            arrow_csv.write_csv(texts, file, plain)


def _text(column: pa.Array) -> pa.Array:
    """Return the values as text; missing ones stay so."""
    if pa.types.is_timestamp(column.type):
        return pc.replace_substring(column.cast(pa.string()), " ", "T")
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        decimals = 4 if pa.types.is_float32(column.type) else 6  # a score has no more, in half precision
        text = pc.round(column.cast(pa.float64()), decimals).cast(pa.string())
        return pc.if_else(pc.match_substring_regex(text, r"^-?\d+$"), pc.binary_join_element_wise(text, ".0", ""), text)
    if pa.types.is_string(column.type) or pa.types.is_integer(column.type):
        return column.cast(pa.string())
    return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
