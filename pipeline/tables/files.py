"""Files of an output folder: written whole or not at all, and named in the error when they cannot be read."""

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from satpipe.pipeline.option import default_out
from satpipe.pipeline.storage import described, errors, locate, output_file, write_text
from satpipe.pipeline.tables.schemas import CHUNK_TABLES, VERSION, is_of
from satpipe.sat.errors import DamageError, OutputError
from satpipe.sat.own_classes import SUFFIX

COMPRESSION = "zstd"
PLACE = b"satpipe.file"
"""Key in the metadata of a file whose value is its place in the output folder, such as `tags/ID.parquet`."""
SCHEMA = b"satpipe.schema"
"""Key in the metadata of a file whose value is the version of its schema."""
DELETE = "delete it, then `satpipe tag` with the same recordings repairs the tables"
PROGRESS = "_progress.json"
"""Progress of the run; readers of tables skip names that begin with an underscore."""
OWN = "own"
"""Folder of the tables of own classes."""
RUNS = "runs"
"""Folder of the descriptions of all runs that wrote rows."""
REPAIR = "`satpipe tag` with the same recordings repairs it"
_OURS = re.compile(r"[0-9a-f]{32}\.parquet|\.[0-9a-f]{32}|\..+\.parquet\.[0-9a-f]{8}")  # tables, and unfinished files
_RUN = {"identity": dict, "model": dict, "labels": list, "batches": list, "embeddings": int}  # in run.json
_LISTED = {"labels": dict, "batches": str}  # in its lists
ROW_GROUP_CHUNKS = 16_384  # 17 MB of half-precision scores
_PAGE_BYTES = {"embeddings": 1 << 24}  # with small pages, Arrow takes a third longer to read them
ROW_GROUP_TAGS = 131_072  # 7 MB; DuckDB gives each thread a row group


def new_name() -> str:
    """Return a file name that no other file has."""
    return f"{uuid.uuid4().hex}.parquet"


def new_run_id() -> str:
    """Return an identifier that no other run has; identifiers sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file when reading a table fails.

    Raises:
        DamageError: The file is missing, damaged or not a table.
        OutputError: The file cannot be read for another reason, such as its permissions.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise DamageError(f"{path} is missing: {REPAIR}") from error
    except errors(pa.ArrowException) as error:
        failed = not _content(error)
        kind = OutputError if failed else DamageError
        raise kind(f"{path} cannot be read, or is not a satpipe table: {error}") from error


def _content(error: Exception) -> bool:
    """Return True if the content of a file is at fault, not the access to it."""
    if isinstance(error, pa.ArrowException | IsADirectoryError):
        return True
    return type(error) is OSError and error.errno is None  # as Arrow raises it for content


def read_run(folder: Path) -> dict[str, Any] | None:
    """Return the content of `run.json`, or None if the file does not exist.

    Raises:
        OutputError: The file cannot be read.
    """
    try:
        run = json.loads((folder / "run.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except errors(ValueError) as error:
        raise OutputError(f"{folder / 'run.json'} cannot be read: {described(error)}") from error
    wrong = not isinstance(run, dict) or any(not isinstance(run.get(key, kind()), kind) for key, kind in _RUN.items())
    if wrong or any(not isinstance(each, kind) for key, kind in _LISTED.items() for each in run.get(key, [])):
        raise OutputError(
            f"{folder / 'run.json'} is not the file that `satpipe tag` wrote: restore it, or choose another folder"
        )
    return dict(run)


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


def keep_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Keep the description of a run before it writes its first rows, as `runs/ID.json`.

    The labels, and what the model's file states of itself, are those in `run.json`.

    Raises:
        OutputError: The folder cannot be written.
    """
    place = folder / RUNS / f"{run['id']}.json"
    if not place.exists():
        kept = {key: value for key, value in run.items() if key not in ("labels", "batches")}
        kept["model"] = {key: value for key, value in run.get("model", {}).items() if key != "metadata"}
        write_text(place, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


def promise(recordings: pa.Table) -> dict[str, int]:
    """Return how many rows a batch's files of each table must have, given its rows of the recordings table.

    Earlier versions did not note the number of tags.
    """
    counted = {"scores": recordings["chunks"], "embeddings": recordings["chunks"]}
    if len(recordings) and not recordings["tags"].null_count:
        counted["tags"] = recordings["tags"]
    return {table: pc.sum(column).as_py() or 0 for table, column in counted.items()}


@contextmanager
def open_table(path: Path, promised: Mapping[str, int]) -> Iterator[pq.ParquetFile]:
    """Open a file of one of `CHUNK_TABLES`, after a comparison of its footer with what its batch has promised.

    Raises:
        DamageError: The file is missing, damaged, or of another batch, table or version; the message names it.
    """
    with reading(path), path.open("rb") as opened:
        file = pq.ParquetFile(opened, page_checksum_verification=True)
        table, rows = path.parent.name, promised.get(path.parent.name)
        version_of(path, file.metadata.metadata)
        if not is_of(table, file.schema_arrow):
            raise DamageError(f"{path} is not a table of {table} of this version of satpipe: {REPAIR}")
        check_place(path, file.metadata.metadata, required="tags" in promised)
        if rows is not None and file.metadata.num_rows != rows:
            raise DamageError(f"{path} has {file.metadata.num_rows:,} rows instead of {rows:,}: {REPAIR}")
        yield file


def version_of(path: Path, stated: Mapping[bytes, bytes] | None) -> int:
    """Return the version of the schema of a file, given its metadata; it is one that this satpipe knows.

    Raises:
        OutputError: A newer satpipe wrote it.
        DamageError: The metadata is damaged.
    """
    text = (stated or {}).get(SCHEMA, b"1").decode(errors="replace")
    if not text.isdecimal():
        raise DamageError(f"{path} is of a version {text!r}: {REPAIR}")
    if int(text) > VERSION:
        raise OutputError(
            f"{path} was written by a newer satpipe: its tables are of version {text}, and this satpipe knows versions "
            f"up to {VERSION}. Install the newer satpipe, or name another folder"
        )
    return int(text)


def check_place(path: Path, stated: Mapping[bytes, bytes] | None, *, required: bool) -> None:
    """Check that a file is where its metadata states that it belongs.

    Raises:
        DamageError: It belongs elsewhere, or states nothing although it is `required`; the message names it.
    """
    here, there = f"{path.parent.name}/{path.name}", (stated or {}).get(PLACE, b"").decode(errors="replace")
    if there not in (here, "") or (required and not there):
        raise DamageError(f"{path} was {f'{there} originally' if there else 'replaced'}: {REPAIR}")


def tables_of(run: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the tables, apart from `recordings`, that each batch has a file of."""
    wanted = {"scores": run.get("identity", {}).get("scores", False), "embeddings": run.get("embeddings", 0)}
    return tuple(table for table in CHUNK_TABLES if wanted.get(table, True))


def place_and_version(path: Path) -> dict[bytes, bytes]:
    """Return the metadata that every file of a table has."""
    return {PLACE: f"{path.parent.name}/{path.name}".encode(), SCHEMA: str(VERSION).encode()}


def own_names(folder: Path) -> list[str]:
    """Return the names of the tables of own classes in an output folder."""
    return sorted(path.name.removesuffix(SUFFIX) for path in (folder / OWN).glob(f"[!.]*{SUFFIX}"))


def is_ours(path: Path) -> bool:
    """Return True if satpipe has written a file, or what it is a copy of."""
    if _OURS.fullmatch(path.name):
        return path.is_file()
    try:
        return path.suffix == ".parquet" and PLACE in metadata(path)
    except OutputError:
        return False


def metadata(path: Path) -> dict[bytes, bytes]:
    """Return the key-value metadata of a file."""
    with reading(path), path.open("rb") as file:
        return dict(pq.read_metadata(file).metadata or {})


def schema_of(path: Path) -> pa.Schema:
    """Return the schema of a file, without its metadata."""
    with reading(path), path.open("rb") as file:
        return pq.read_schema(file).remove_metadata()


def row_groups(path: Path) -> Iterator[pa.Table]:
    """Yield a file row group by row group."""
    with ExitStack() as stack:
        with reading(path):
            table = pq.ParquetFile(stack.enter_context(path.open("rb")), page_checksum_verification=True)
        for group in range(table.num_row_groups):
            with reading(path):
                rows = table.read_row_group(group)
            yield rows


class TableWriter:
    """Writes rows in row groups of a useful size."""

    def __init__(self, writer: pq.ParquetWriter, row_group: int) -> None:
        self._writer = writer
        self._row_group = row_group
        self._tables: list[pa.Table] = []
        self.waiting = 0
        """Number of rows that are not written yet."""

    def add(self, table: pa.Table) -> None:
        """Add rows."""
        self._tables.append(table)
        self.waiting += len(table)
        if self.waiting >= self._row_group:
            self.flush()

    def flush(self) -> None:
        """Write the rows added so far as a row group."""
        if self._tables:
            table = pa.concat_tables(self._tables).unify_dictionaries()
            self._writer.write_table(table, row_group_size=max(1, len(table)))
            self._tables, self.waiting = [], 0


@contextmanager
def table_writer(
    folder: Path, table: str, name: str, schema: pa.Schema, stated: Mapping[bytes, bytes] | None = None
) -> Iterator[TableWriter]:
    """Provide a writer for the file of a batch; the file appears when it is whole.

    Args:
        folder: The output folder.
        table: One of `CHUNK_TABLES`, or `own/NAME`.
        name: Of the batch.
        schema: Of the rows.
        stated: Metadata of the file, besides its place and the version of the schema.

    Raises:
        OutputError: The folder cannot be written.
    """
    place = folder / table / name
    compact = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    # The bytes of a number apart: half the size of plain values, the lowest bytes of rounded ones are all 0.
    vectors = [field.name for field in schema if pa.types.is_fixed_size_list(field.type)]
    options: dict[str, Any] = {
        "column_encoding": {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in vectors},
        "data_page_size": _PAGE_BYTES.get(table),
    }
    with (
        output_file(place, None if table.startswith(OWN) else folder) as path,
        pq.ParquetWriter(
            path, schema, compression=COMPRESSION, use_dictionary=compact, write_page_checksum=True, **options
        ) as writer,
    ):
        writer.add_key_value_metadata({**(stated or {}), **place_and_version(place)})
        rows = TableWriter(writer, ROW_GROUP_TAGS if "mid" in schema.names else ROW_GROUP_CHUNKS)
        yield rows
        rows.flush()
