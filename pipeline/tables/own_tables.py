"""Tables of a user's own classes: `own/NAME` in an output folder, in the layout of `tags`, with all classes of a chunk.

A table has a file for each batch, as `scores` has, computed from the embeddings. The file of the classes is beside it,
as `own/NAME.safetensors`. Each file of the table states the sha256 of that file: scores of other classes, which a
`classify` that was stopped leaves behind, are never read together with those of the new ones.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from satpipe.pipeline.storage import output_file
from satpipe.pipeline.tables.files import (
    OWN,
    TableWriter,
    check_place,
    keep_run,
    metadata,
    open_table,
    own_names,
    reading,
    table_writer,
    version_of,
)
from satpipe.pipeline.tables.open_folder import Tables, all_numbers, side_by_side
from satpipe.pipeline.tables.schemas import CHUNK, TAGS, Made, is_of, model_name
from satpipe.sat.errors import DamageError, OutputError
from satpipe.sat.own_classes import SUFFIX, OwnClasses, parse, read_own_classes, table_name

_CLASSES = b"satpipe.own_classes"  # key in the metadata of a file: the sha256 of the classes
_ROWS = 2**18  # of a row group


@dataclass(frozen=True, eq=False)
class OwnTable:
    """A table of own classes in an output folder.

    Attributes:
        folder: The output folder.
        name: Of the table.
        classes: Its classes; a chunk has a row for each, in their order.
    """

    folder: Path
    name: str
    classes: OwnClasses

    @contextmanager
    def open(self, batch: str, chunks: int | None) -> Iterator[pq.ParquetFile]:
        """Open the file of a batch with so many chunks.

        Raises:
            DamageError: It is missing, damaged, or of other classes; the message names it.
        """
        path = self.path(batch)
        if not path.exists():
            raise DamageError(f"{path} is missing, so its recordings have no scores for these classes: {self._remedy}")
        with reading(path), path.open("rb") as opened:
            file = pq.ParquetFile(opened, page_checksum_verification=True)
            stated = file.metadata.metadata or {}
            version_of(path, stated)
            check_place(path, stated, required=True)
            if stated.get(_CLASSES, b"").decode() != self.classes.sha256:
                raise DamageError(f"{path} has scores for an earlier version of these classes: {self._remedy}")
            rows = None if chunks is None else chunks * len(self.classes.labels)
            if not is_of("tags", file.schema_arrow) or rows not in (None, file.metadata.num_rows):
                raise DamageError(f"{path} does not have a row for each class of each chunk: {self._remedy}")
            yield file

    def scores(self, rows: pa.Table, batch: str) -> npt.NDArray[np.float32]:
        """Return the scores [n, K] of the rows of a row group.

        Raises:
            DamageError: The rows of a chunk are not its classes in their order, or a score is not a number.
        """
        known = {mid: place for place, mid in enumerate(self.classes.mids)}
        mids = rows["mid"].combine_chunks()
        places = np.array([known.get(mid, -1) for mid in mids.dictionary.to_pylist()], np.int64)
        order = np.tile(np.arange(len(known)), len(rows) // len(known))
        values: npt.NDArray[np.float32] = rows["score"].to_numpy()
        if not np.array_equal(places[mids.indices.to_numpy()], order) or not all_numbers(values):
            raise DamageError(f"{self.path(batch)} has rows that are not scores of these classes: {self._remedy}")
        return values.reshape(-1, len(known))

    def update(self, tables: Tables, run: Mapping[str, Any]) -> int:
        """Write the files of the batches that have none of these classes yet; each appears when it is whole.

        Args:
            tables: The output folder.
            run: Description of the run that does this, with its `id`.

        Returns:
            The number of chunks scored.

        Raises:
            OutputError: The embeddings cannot be read, or the folder cannot be written.
        """
        missing = [batch for batch in tables.promised if not self.is_current(batch)]
        if missing:
            keep_run(self.folder, run)
        made = Made(run["id"], model_name(tables.run["identity"]))
        return sum(side_by_side(lambda batch: self._write(batch, tables.promised[batch], made), missing))

    def damage(self, tables: Tables) -> Iterator[str]:
        """Read all files, and yield a line for each problem."""
        for batch, promised in tables.promised.items():
            try:
                with self.open(batch, promised["scores"]) as file:
                    for group in range(file.num_row_groups):
                        self.scores(file.read_row_group(group), batch)
            except DamageError as error:
                yield str(error)

    @property
    def _remedy(self) -> str:
        return f"`satpipe classify OUT --own-classes {self.name}{SUFFIX}` repairs it"

    def path(self, batch: str) -> Path:
        """Return the file of a batch."""
        return self.folder / OWN / self.name / batch

    def is_current(self, batch: str) -> bool:
        """Return True if the file of a batch has scores for these classes."""
        try:
            return metadata(self.path(batch)).get(_CLASSES, b"").decode() == self.classes.sha256
        except OutputError:
            return False

    def writer(self, folder: Path, batch: str) -> AbstractContextManager[TableWriter]:
        """Provide a writer for the file of a batch, in the layout of the output folder but below another folder."""
        stated = {_CLASSES: self.classes.sha256.encode()}
        return table_writer(folder, f"{OWN}/{self.name}", batch, TAGS, stated)

    def _write(self, batch: str, promised: Mapping[str, int], made: Made) -> int:
        """Write the file of a batch; return its number of chunks."""
        chunks = 0
        step = max(1, _ROWS // len(self.classes.labels))
        with (
            open_table(self.folder / "embeddings" / batch, promised) as embeddings,
            self.writer(self.folder, batch) as writer,
        ):
            for group in range(embeddings.num_row_groups):
                rows = embeddings.read_row_group(group)
                about, values = rows.select(CHUNK), lists(rows["embedding"])
                for at in range(0, len(rows), step):
                    writer.add(self._rows(about.slice(at, step), self.classes.scores(values[at : at + step]), made))
                chunks += len(rows)
        return chunks

    def _rows(self, about: pa.Table, scores: npt.NDArray[np.float32], made: Made) -> pa.Table:
        """Return the rows of chunks, given the columns that identify them and their scores [n, K]."""
        count, classes = scores.shape
        repeated = about.combine_chunks().take(pa.array(np.repeat(np.arange(count), classes)))
        codes = np.tile(np.arange(classes, dtype=np.int32), count)
        mid, label = (
            pa.DictionaryArray.from_arrays(codes, list(each)) for each in (self.classes.mids, self.classes.labels)
        )
        columns = [*(repeated[name] for name in CHUNK), mid, label, scores.ravel(), *made.columns(scores.size)]
        return pa.table(columns, schema=TAGS)


def lists(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Return a column of lists of equal length, [n, length]."""
    values: npt.NDArray[np.float32] = column.combine_chunks().flatten().to_numpy()
    return values.reshape(-1, column.type.list_size)


def own_table(folder: Path, name: str) -> OwnTable:
    """Return a table by name.

    Raises:
        OutputError: The folder has no such table; the message names those that it has.
        CheckpointError: The file of its classes is damaged.
    """
    if name not in (known := own_names(folder)):
        there = f"it has {', '.join(known)}" if known else "`satpipe classify` makes one from a file of `satpipe learn`"
        raise OutputError(f"{folder} has no table {OWN}/{name}: {there}")
    path = folder / OWN / f"{name}{SUFFIX}"
    return OwnTable(folder, name, parse(path.read_bytes(), path))


def check_model(classes: OwnClasses, path: str | Path, tables: Tables) -> None:
    """Make sure that the tables are of the model that classes were learned with.

    Raises:
        ConfigError: They are of another model; the message names both.
    """
    classes.check_model(tables.model["sha256"], tables.model["arch"], path)


def put(folder: Path, path: Path) -> OwnTable:
    """Copy a file of classes into a folder, as that of a table; earlier scores in that table become invalid.

    Raises:
        CheckpointError: It is not a file of own classes.
        ConfigError: Its name cannot be that of a table.
        OutputError: The folder cannot be written.
    """
    name, classes = table_name(path), read_own_classes(path)
    place = folder / OWN / f"{name}{SUFFIX}"
    content: Any = path.read_bytes()
    with output_file(place) as temporary:
        temporary.write_bytes(content)
    return OwnTable(folder, name, classes)
