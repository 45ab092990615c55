"""Batches of finished recordings: adding rows to the tables and removing them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from satpipe.pipeline.storage import output_file
from satpipe.pipeline.tables import schemas
from satpipe.pipeline.tables.files import (
    COMPRESSION,
    OWN,
    REPAIR,
    RUNS,
    TableWriter,
    check_place,
    is_ours,
    keep_run,
    new_name,
    own_names,
    place_and_version,
    promise,
    read_run,
    reading,
    row_groups,
    schema_of,
    table_writer,
    version_of,
)
from satpipe.pipeline.tables.staged import StagedSpan, Staging
from satpipe.pipeline.tables.swap import Swap, counted_files, kinds
from satpipe.sat.errors import DamageError, OutputError
from satpipe.sat.own_classes import SUFFIX


@dataclass
class Finished:
    """A recording that is ready to be published.

    Attributes:
        row: Its row of the recordings table.
        spans: Its staged spans in chronological order; none for a recording without scores.
    """

    row: dict[str, Any]
    spans: list[StagedSpan] = field(default_factory=list)


@dataclass(frozen=True)
class TableOptions:
    """Options of the tables, and the run that writes them.

    Attributes:
        run_id: As in `run.json`.
        model: From `satpipe.pipeline.tables.schemas.model_name`.
        chunk_samples: From the start of a chunk to the start of the next, at 16 kHz.
        threshold: Minimum score of a row of the tags table.
        top_k: Maximum number of rows of the tags table per chunk.
        scores: True if the scores table is written.
        embedding_size: Number of values of an embedding; 0: the embeddings table is not written.
    """

    run_id: str
    model: str
    chunk_samples: int
    threshold: float
    top_k: int
    scores: bool
    embedding_size: int = 0

    @property
    def made(self) -> schemas.Made:
        """What makes the rows."""
        return schemas.Made(self.run_id, self.model)


class Batches:
    """The tables of an output folder, as batches: files of one name in the folder of each table."""

    def __init__(self, folder: Path) -> None:
        """Name the output folder; nothing is read or written yet."""
        self._folder = folder
        self._swap = Swap(folder)

    def publish(self, batch: list[Finished], options: TableOptions, name: str) -> None:
        """Write a batch of finished recordings into the tables and remove its staged files.

        Publishing twice under the same `name` (from `new_name`), as after the loss of a worker, counts once.

        Raises:
            OutputError: The folder cannot be written, for example because the disk is full; staged files stay.
        """
        staging = Staging(self._folder)
        spans = [(span, finished.row) for finished in batch for span in finished.spans]
        if not (self._folder / "recordings" / name).exists():
            run = self._run_of(options)
            keep_run(self._folder, run)
            kept: Counter[str] = Counter()  # rows of tags, by recording
            with ExitStack() as stack:
                writers = {
                    table: stack.enter_context(table_writer(self._folder, table, name, schema))
                    for table, schema in _written(options).items()
                }
                for owners, place, rows in staging.rows(spans):
                    kept.update(_add(owners, place, rows, options, writers))
                self._run_of(options)
            made = vars(options.made)
            rows = [{**finished.row, "tags": kept[finished.row["recording"]], **made} for finished in batch]
            self.commit(name, pa.Table.from_pylist(rows, schema=schemas.RECORDINGS))
        # Files with spans of later batches stay until those are published.
        held = Counter(span.file for span, _ in spans)
        staging.discard(span.file for span, _ in spans if held[span.file] == span.spans)

    @property
    def names(self) -> list[str]:
        """Names of the batches."""
        return [path.name for path in self._files()]

    def recordings(self, columns: list[str] | None = None) -> pa.Table:
        """Return the recordings table.

        Raises:
            OutputError: A file cannot be read; the message names it.
        """
        parts = [table for _, table in self.recordings_by_file()]
        none = pa.Table.from_batches([], schemas.RECORDINGS)  # not empty_table(), which imports pandas
        return pa.concat_tables([none, *parts]).select(columns or schemas.RECORDINGS.names)

    def recordings_by_file(self) -> Iterator[tuple[str, pa.Table]]:
        """Yield the files of the recordings table: name and content, with all columns.

        Raises:
            OutputError: A file cannot be read; the message names it.
        """
        for path in self._files():
            yield path.name, read_recordings(path)

    def commit(self, name: str, recordings: pa.Table) -> None:
        """Write the recordings file of a batch, with which it counts."""
        write_recordings(self._folder, name, recordings)

    def remove(self, recordings: set[str]) -> None:
        """Remove all rows of some recordings; batches that contain any of them are written again without them."""
        if not recordings:
            return
        names = pa.array(recordings, pa.string())
        for old, table in self.recordings_by_file():
            removed = pc.is_in(table["recording"], names)
            if not pc.any(removed).as_py():
                continue
            if pc.all(removed).as_py():
                self._swap.commit([], [old])
                continue
            new = new_name()
            self._swap.prepare()
            for kind in schemas.CHUNK_TABLES:
                if (path := self._folder / kind / old).exists():
                    with table_writer(self._swap.place, kind, new, schema_of(path)) as writer:
                        for rows in row_groups(path):
                            removed_rows = pc.is_in(pc.cast(rows["recording"], pa.string()), names)
                            writer.add(rows.filter(pc.invert(removed_rows)))
            write_recordings(self._swap.place, new, table.filter(pc.invert(removed)))
            self._swap.commit([new], [old])

    def clear(self) -> None:
        """Remove all rows."""
        self._swap.clear()
        for kind in schemas.SCHEMAS:
            for path in (self._folder / kind).glob("*"):
                if path.suffix == ".parquet" or is_ours(path):
                    path.unlink()
        for name in own_names(self._folder):
            for path in (self._folder / OWN / name).glob("*.parquet"):
                path.unlink()
            (self._folder / OWN / f"{name}{SUFFIX}").unlink()
        for path in (self._folder / RUNS).glob("*.json"):
            path.unlink()

    def drop(self, names: Iterable[str]) -> None:
        """Remove what is left of batches; files that satpipe has not written stay."""
        for path in (self._folder / kind / name for name in names for kind in kinds(self._folder)):
            if is_ours(path):
                path.unlink()

    def recover(self) -> None:
        """Put right what a killed run left behind: half an exchange of batches, and files that do not count."""
        self._swap.recover()
        names = set(self.names)
        for kind in kinds(self._folder):
            for path in (self._folder / kind).glob("*"):
                if path.name not in names and is_ours(path):
                    path.unlink()

    def _run_of(self, options: TableOptions) -> dict[str, Any]:
        """Return the content of `run.json`, provided that it is still that of the run with these options."""
        run = read_run(self._folder) or {}
        if run.get("id") != options.run_id:
            # A worker can outlive its killed run for a moment; its rows must not get into the next run's.
            raise OutputError(f"{self._folder} was taken over by another run")
        return run

    def _files(self) -> list[Path]:
        return counted_files(self._folder)


def _written(options: TableOptions) -> dict[str, pa.Schema]:
    """Return the schemas of the tables that a batch has a file of, apart from `recordings`."""
    return {
        "tags": schemas.TAGS,
        **({"scores": schemas.SCORES} if options.scores else {}),
        **({"embeddings": schemas.embeddings_schema(options.embedding_size)} if options.embedding_size else {}),
    }


def _add(
    owners: list[dict[str, Any]],
    place: npt.NDArray[np.int32],
    staged: pa.Table,
    options: TableOptions,
    writers: Mapping[str, TableWriter],
) -> dict[str, int]:
    """Add the staged rows of some recordings to the tables.

    Args:
        owners: Rows of the recordings table; a recording with several spans can occur several times.
        place: Place of each staged row's recording in `owners`, [n].
        staged: The staged rows.
        options: Options of the tables.
        writers: Write the tables.

    Returns:
        The number of rows added to tags, by recording.
    """
    number = {name: number for number, name in enumerate(dict.fromkeys(row["recording"] for row in owners))}
    of_owner = np.array([number[row["recording"]] for row in owners], np.int32)
    names = schemas.name_of_each(list(number), of_owner[place])
    chunks = staged["chunk"].to_numpy()
    values = _values(staged["scores"])
    durations_s = np.array([row["duration_s"] for row in owners], np.float64)
    times = schemas.chunk_times(chunks, options.chunk_samples, durations_s[place])
    made = options.made
    labels = schemas.tag_rows(names, chunks, values, times, made, threshold=options.threshold, top_k=options.top_k)
    writers["tags"].add(labels)
    if "scores" in writers:
        writers["scores"].add(schemas.score_rows(names, chunks, values, times, made))
    if "embeddings" in writers:
        embeddings = _values(staged["embedding"])
        writers["embeddings"].add(schemas.embedding_rows(names, chunks, embeddings, times, made))
    added = np.bincount(labels["recording"].combine_chunks().indices.to_numpy(), minlength=len(number))
    return dict(zip(number, added.tolist(), strict=True))


def _values(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Return the values of a column of lists, [n, size]."""
    values: npt.NDArray[np.float32] = column.combine_chunks().flatten().to_numpy().reshape(-1, column.type.list_size)
    return values


def write_recordings(folder: Path, name: str, recordings: pa.Table) -> None:
    """Write the recordings file of a batch, schema `RECORDINGS`."""
    place = folder / "recordings" / name
    with output_file(place, folder) as path:
        table = recordings.replace_schema_metadata(place_and_version(place))
        pq.write_table(table, path, compression=COMPRESSION, write_page_checksum=True)


def read_recordings(path: Path) -> pa.Table:
    """Read a file of the recordings table; columns that earlier versions did not write are null.

    Returns:
        The table; its schema has the metadata of the file.

    Raises:
        DamageError: The file is damaged, belongs elsewhere or is not such a table.
        OutputError: The file cannot be read for another reason.
    """
    with reading(path), path.open("rb") as file:
        # Not `pq.read_table`, which imports pandas.
        opened = pq.ParquetFile(file, page_checksum_verification=True)
        version = version_of(path, opened.metadata.metadata)
        table = schemas.complete(opened.read())
        if not set(schemas.RECORDINGS.names) <= set(table.column_names):
            remedy = REPAIR if is_ours(path) else "move it elsewhere"
            raise DamageError(f"{path} is not a recordings table of satpipe: {remedy}")
        stated = table.schema.metadata
        # Version 1 has nanoseconds.
        table = table.select(schemas.RECORDINGS.names).cast(schemas.RECORDINGS, safe=version == schemas.VERSION)
        check_place(path, stated, required="tags" in promise(table))
        return table.replace_schema_metadata(stated)
