"""Read embeddings from an output folder, row group by row group: a year of them does not fit into memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from satpipe.pipeline.tables.chunk_scores import CHUNK_COLUMNS, SAME_S, may_hold
from satpipe.pipeline.tables.files import DELETE, open_table
from satpipe.pipeline.tables.open_folder import Floats, Ints, Part, Tables, codes, side_by_side
from satpipe.pipeline.tables.schemas import embedding_size
from satpipe.sat.errors import DamageError, OutputError

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class ChunkEmbeddings:
    """Embeddings of some chunks of one file, in the order of the file: recordings one after the other, by time."""

    recording: Ints
    """Position of each chunk's recording in `Tables.recordings`, [n]."""
    chunk: Ints
    """Number of each chunk in its recording, from 0, [n]."""
    start_s: Floats
    """From the recording's start, [n]."""
    end_s: Floats
    """[n]"""
    embeddings: npt.NDArray[np.float32]
    """[n, D], see `satpipe.sat.model.outputs`; rounded to half precision."""

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self.chunk)


def size_of_embeddings(tables: Tables) -> int:
    """Return the number of values of an embedding.

    Raises:
        OutputError: The folder has no embeddings.
    """
    size: int = tables.run.get("embeddings", 0)
    if not size:
        raise OutputError(
            f"{tables.folder} has no embeddings: `satpipe tag --embeddings` with the same recordings and options adds "
            "them"
        )
    return size


def map_embeddings(tables: Tables, part: Part, function: Callable[[ChunkEmbeddings], Result]) -> Iterator[Result]:
    """Apply a function to the embeddings of a part of a folder, about 16,384 chunks at a time.

    Several files are read at the same time, and the function runs in their threads. The memory is that of a row group
    and of the results of a file for each thread.

    Args:
        tables: The folder.
        part: The chunks wanted.
        function: Takes the chunks of a row group.

    Yields:
        The results, file by file in the order of `Tables.by_file`.

    Raises:
        OutputError: The folder has no embeddings.
        DamageError: A file is damaged or incomplete; the message names it.
    """
    reader = _Reader(tables, part, function)
    for results in side_by_side(reader.of_file, [name for name, _ in tables.by_file(part.recordings)]):
        yield from results


class _Reader(Generic[Result]):
    def __init__(self, tables: Tables, part: Part, function: Callable[[ChunkEmbeddings], Result]) -> None:
        self._tables, self._function = tables, function
        self._size = size_of_embeddings(tables)
        self._begin, self._end = np.zeros((2, len(tables.recordings)), np.int32)
        self._begin[part.recordings], self._end[part.recordings] = part.begin, part.end
        self._lowest, self._highest = int(part.begin.min(initial=0)), int(part.end.max(initial=0))
        self._place = {name: number for number, name in enumerate(tables.recordings)}

    def of_file(self, name: str) -> list[Result]:
        """Return the results for the row groups of a file."""
        path = self._tables.folder / "embeddings" / name
        results: list[Result] = []
        with open_table(path, self._tables.promised[name]) as file:
            if embedding_size(file.schema_arrow) != self._size:
                raise DamageError(f"{path} does not have embeddings of {self._size} values: {DELETE}")
            for group in range(file.num_row_groups):
                if may_hold(file.metadata.row_group(group), self._lowest, self._highest):
                    chunks = self._chunks(file, group, path)
                    if len(chunks):
                        results.append(self._function(chunks))
        return results

    def _chunks(self, file: pq.ParquetFile, group: int, path: Path) -> ChunkEmbeddings:
        """Return the wanted chunks of a row group."""
        about = file.read_row_group(group, columns=CHUNK_COLUMNS)
        recording, chunk = codes(about["recording"], self._place), about["chunk"].to_numpy()
        start_s, end_s = about["start_s"].to_numpy(), about["end_s"].to_numpy()
        wrong = (recording < 0) | (chunk < 0) | (chunk >= self._tables.slots[recording])
        if wrong.any() or (np.abs(start_s - chunk * self._tables.model["chunk_s"]) > SAME_S).any():
            raise DamageError(f"{path} has other chunks than the recordings table: {DELETE}")
        if ((np.diff(recording) == 0) & (np.diff(chunk) <= 0)).any():
            raise DamageError(f"{path} has embeddings of a chunk twice: {DELETE}")
        wanted = (chunk >= self._begin[recording]) & (chunk < self._end[recording])
        embeddings = np.empty((0, self._size), np.float32)
        if wanted.any():
            column = file.read_row_group(group, columns=["embedding"])["embedding"].combine_chunks()
            embeddings = column.flatten().to_numpy().reshape(-1, self._size)
        if not np.isfinite(embeddings.sum()):
            raise DamageError(f"{path} has embeddings that are not numbers: {DELETE}")
        if wanted.all():
            return ChunkEmbeddings(recording, chunk, start_s, end_s, embeddings)
        embeddings = embeddings[wanted] if len(embeddings) else embeddings
        return ChunkEmbeddings(recording[wanted], chunk[wanted], start_s[wanted], end_s[wanted], embeddings)
