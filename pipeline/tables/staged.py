"""Staged outputs: spans that are tagged but not yet in the tables, one file per task."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from satpipe.pipeline.storage import is_remote, output_file
from satpipe.pipeline.tables import schemas
from satpipe.pipeline.tables.files import COMPRESSION, metadata, new_name, row_groups, schema_of
from satpipe.pipeline.tables.schemas import staged_schema
from satpipe.sat.errors import OutputError

SpanKey = tuple[str, int, int, int, int | None]
"""Recording, size and time stamp of its file, first chunk, the chunk after the last one (None: to the end)."""

FOLDER = "_staged"
_OUTCOMES = b"satpipe.outcomes"
_Owner = TypeVar("_Owner")


@dataclass
class SpanOutcome:
    """The result of tagging a span, without its scores.

    Attributes:
        chunks: Number of its rows in the task's table.
        frames: Frame of the file up to which this span has read it.
        status: Status of the recording according to this span; one of `schemas.STATUSES`.
        reason: Explanation for the recordings table.
        broken: Decoding broke off before the end that the header announces, so that the header's length, and with it
            the number of spans, cannot be trusted.
        file: The file of a deployment in which decoding broke off; "" for a single file.
        levels: Attributes of the span's `satpipe.pipeline.recordings.levels.Levels`.
    """

    key: SpanKey
    chunks: int = 0
    frames: int = 0
    status: str = "ok"
    reason: str = ""
    broken: bool = False
    file: str = ""
    levels: dict[str, Any] | None = None


@dataclass
class StagedSpan:
    """A span whose scores are staged.

    Attributes:
        file: Name of the staged file.
        place: Position of the span in that file.
        spans: Number of spans in that file.
    """

    file: str
    place: int
    outcome: SpanOutcome
    spans: int


class StagedFile:
    """A staged file that is being written."""

    def __init__(self, name: str, writer: pq.ParquetWriter) -> None:
        self._name = name
        self._writer = writer

    def write(self, table: pa.Table) -> None:
        """Add rows, schema `schemas.staged_schema`."""
        self._writer.write_table(table)

    def conclude(self, outcomes: list[SpanOutcome]) -> list[StagedSpan]:
        """Add the outcomes of the task's spans, without which the file is useless."""
        self._writer.add_key_value_metadata({_OUTCOMES: json.dumps([vars(outcome) for outcome in outcomes])})
        return _spans(self._name, outcomes)


class Staging:
    """The staged files of an output folder."""

    def __init__(self, output: Path) -> None:
        """Name the output folder; nothing is read or written yet."""
        self._output = output
        self._folder = output / FOLDER

    @contextmanager
    def stage(self, embedding_size: int = 0) -> Iterator[StagedFile]:
        """Provide a file for the outputs of a task, which is kept until they are published.

        Args:
            embedding_size: Number of values of an embedding; 0: only scores are staged.

        Raises:
            OutputError: The folder cannot be written, for example because the disk is full.
        """
        name = new_name()
        options = {"compression": COMPRESSION, "use_dictionary": False, "write_statistics": False}
        with (
            output_file(self._folder / name, self._output) as path,
            pq.ParquetWriter(path, staged_schema(embedding_size), **options) as writer,
        ):
            yield StagedFile(name, writer)

    def spans(self, embedding_size: int = 0) -> dict[SpanKey, StagedSpan]:
        """Return the spans that are staged, by this run or earlier ones.

        Files are removed that are damaged, or whose embeddings have another size (0: none): their spans are tagged
        again.
        """
        found = {}
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                outcomes = json.loads(metadata(path).get(_OUTCOMES, b"[]"))
                usable = schemas.embedding_size(schema_of(path)) == embedding_size
            except OutputError:
                usable = False
            if not usable:
                path.unlink()
                continue
            made = [SpanOutcome(**{**outcome, "key": tuple(outcome["key"])}) for outcome in outcomes]
            found.update({span.outcome.key: span for span in _spans(path.name, made)})
        return found

    def count(self) -> int:
        """Return the number of staged files."""
        return sum(1 for _ in self._folder.glob("*.parquet"))

    def rows(
        self, wanted: Iterable[tuple[StagedSpan, _Owner]]
    ) -> Iterator[tuple[list[_Owner], npt.NDArray[np.int32], pa.Table]]:
        """Yield the rows of spans in their order, row group by row group.

        Yields:
            The owners of the spans in a row group, the place of each row's owner in this list, and the rows.

        Raises:
            OutputError: A staged file cannot be read; the message names it.
        """
        for name, together in groupby(wanted, key=lambda pair: pair[0].file):
            owners = {span.place: owner for span, owner in together}
            for rows in row_groups(self._folder / name):
                spans = rows["span"].to_numpy()
                ours = np.isin(spans, list(owners))
                places, place = np.unique(spans[ours], return_inverse=True)
                if len(places):
                    kept = rows if ours.all() else rows.filter(ours)
                    yield [owners[each] for each in places.tolist()], place.astype(np.int32), kept

    def discard(self, files: Iterable[str]) -> None:
        """Remove staged files."""
        for name in set(files):
            (self._folder / name).unlink(missing_ok=True)

    def recover(self) -> None:
        """Remove files that a killed run has left incomplete."""
        for path in self._folder.glob("*"):
            if path.suffix != ".parquet" or path.name.startswith("."):
                path.unlink()

    def clear(self) -> None:
        """Remove everything that is staged."""
        for path in self._folder.glob("*"):
            path.unlink(missing_ok=True)
        if not is_remote(self._folder) and self._folder.exists():
            self._folder.rmdir()


def _spans(name: str, outcomes: list[SpanOutcome]) -> list[StagedSpan]:
    return [StagedSpan(name, place, outcome, len(outcomes)) for place, outcome in enumerate(outcomes)]
