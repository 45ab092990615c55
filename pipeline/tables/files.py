"""Files of an output folder: written whole or not at all, and named in the error when they cannot be read."""

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from satpipe.pipeline.option import default_out
from satpipe.pipeline.storage import locate, output_file
from satpipe.pipeline.tables.schemas import SCHEMAS
from satpipe.sat.errors import OutputError

COMPRESSION = "zstd"
ROW_GROUP_CHUNKS = 16_384  # 17 MB of half-precision scores


def new_name() -> str:
    """Return a file name that no other file has."""
    return f"{uuid.uuid4().hex}.parquet"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file when reading a table fails.

    Raises:
        OutputError: The file cannot be read or is not a table.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise OutputError(f"{path} cannot be read, or is not a satpipe table: {error}") from error


def read_run(folder: Path) -> dict[str, Any] | None:
    """Return the content of `run.json`, or None if the file does not exist.

    Raises:
        OutputError: The file cannot be read.
    """
    try:
        run = json.loads((folder / "run.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder / 'run.json'} cannot be read: {error}") from error
    return run if isinstance(run, dict) else {}


def open_run(out: str | Path | None) -> tuple[Path, dict[str, Any]]:
    """Return the location of an output folder and the content of its `run.json`.

    Raises:
        OutputError: `out` is not an output folder.
    """
    out = default_out() if out is None else out
    folder = locate(out)
    run = read_run(folder)
    if run is None:
        raise OutputError(
            f"{out} is not an output folder of satpipe: it has no run.json. `satpipe tag RECORDINGS` writes to "
            f"{default_out()}; OUT or SATPIPE_OUT names another folder"
        )
    return folder, run


def write_run(folder: Path, run: dict[str, Any]) -> None:
    """Write `run.json`.

    Raises:
        OutputError: The folder cannot be written.
    """
    with output_file(folder / "run.json", folder) as path:
        path.write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n")


def metadata(path: Path) -> dict[bytes, bytes]:
    """Return the key-value metadata of a file."""
    with reading(path), path.open("rb") as file:
        return dict(pq.read_metadata(file).metadata or {})


def row_groups(path: Path) -> Iterator[pa.Table]:
    """Yield a file row group by row group."""
    with ExitStack() as stack:
        with reading(path):
            table = pq.ParquetFile(stack.enter_context(path.open("rb")))
        for group in range(table.num_row_groups):
            with reading(path):
                rows = table.read_row_group(group)
            yield rows


class TableWriter:
    """Writes rows in row groups of a useful size."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._tables: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Add rows."""
        self._tables.append(table)
        self._rows += len(table)
        if self._rows >= ROW_GROUP_CHUNKS:
            self.flush()

    def flush(self) -> None:
        """Write the rows added so far as a row group."""
        if self._tables:
            table = pa.concat_tables(self._tables).unify_dictionaries()
            self._writer.write_table(table, row_group_size=max(1, len(table)))
            self._tables, self._rows = [], 0


@contextmanager
def table_writer(folder: Path, table: str, name: str) -> Iterator[TableWriter]:
    """Give a writer for a file of one of the tables `tags` and `scores`; the file appears when it is whole."""
    schema = SCHEMAS[table]
    compact = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    with (
        output_file(folder / table / name, folder) as path,
        pq.ParquetWriter(path, schema, compression=COMPRESSION, use_dictionary=compact) as writer,
    ):
        rows = TableWriter(writer)
        yield rows
        rows.flush()
