"""Fewer and larger files: the batches of many short runs become files of about 128 MB, each of one month.

Batches with recordings of several months are cut first, some of them at a time; then the small ones of each month are
put together, in the order of time. Rows are copied row group by row group, so memory does not grow with the tables.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from satpipe.pipeline.storage import is_remote
from satpipe.pipeline.tables.batches import read_recordings, write_recordings
from satpipe.pipeline.tables.damage import find_damage
from satpipe.pipeline.tables.files import (
    DELETE,
    REPAIR,
    TableWriter,
    new_name,
    open_run,
    open_table,
    own_names,
    promise,
    schema_of,
    table_writer,
    tables_of,
)
from satpipe.pipeline.tables.open_folder import Floats, codes
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.own_tables import own_table
from satpipe.pipeline.tables.swap import Swap, counted_files
from satpipe.pipeline.tables.upgrade import upgrade
from satpipe.sat.errors import DamageError, OutputError

FILE_BYTES = 128_000_000
"""Size of the largest file of a batch, approximately."""
_CUT_BYTES = 8 * FILE_BYTES  # of batches of several months that are rewritten at a time: space for twice that is needed
_CUT_ROWS = 65_536  # in memory while they are distributed to months
_UNKNOWN = -1  # the month of a recording whose start time is not known


@dataclass(frozen=True)
class _Batch:
    """A batch.

    Attributes:
        name: Of its files.
        recordings: Its rows of the recordings table.
        months: Month of each recording's start in UTC, [R]; `_UNKNOWN` if that is not known.
        size_bytes: Of its largest file.
    """

    name: str
    recordings: pa.Table
    months: npt.NDArray[np.int64]
    size_bytes: int

    @property
    def start(self) -> tuple[int, str]:
        """The start of its first recording, and that recording's name: the order of batches."""
        time = self.recordings["time"]
        first = pc.min(time.cast(pa.int64())).as_py() if time.null_count < len(time) else 0
        return first, pc.min(self.recordings["recording"]).as_py() or ""

    @property
    def recording_bytes(self) -> Floats:
        """Its share of the largest file for each recording, approximately, [R]."""
        chunks = self.recordings["chunks"].to_numpy()
        return np.asarray(chunks * (self.size_bytes / max(1, chunks.sum())), np.float64)


@dataclass(frozen=True)
class Compacted:
    """What `compact` did.

    Attributes:
        before: Number of files of each table before.
        after: Number of files of each table now.
        recordings: Number of recordings in the tables.
    """

    before: int
    after: int
    recordings: int


def compact(out: str | Path | None = None, *, report: Callable[[str], None] = lambda line: None) -> Compacted:
    """Put small files of the tables together, as `satpipe compact` does.

    >>> satpipe.compact("out")
    Compacted(before=1, after=1, recordings=2)

    The rows stay the same. A call that was stopped changes nothing, or is continued by the next one.

    Args:
        out: Output folder of `satpipe tag`, path or URL; by default SATPIPE_OUT, or `out` in the current folder.
        report: Called with a line about each step.

    Returns:
        The number of files of each table before and after, and the number of recordings.

    Raises:
        OutputError: `out` is not an output folder, cannot be written, or `satpipe tag` is writing to it.
        DamageError: A file is damaged; the message names it. The rows stay as they are.
    """
    folder, run = open_run(out)
    if is_remote(folder) and "finished" not in run:
        raise OutputError(
            f"{folder} is not finished, and perhaps another satpipe is writing to it, as object stores have no locks: "
            "first finish it with the same `satpipe tag` command"
        )
    output = Output(folder)
    with output.locked():
        output.batches.recover()
        upgrade(folder, run)
        problems = find_damage(folder, output.run() or run).problems
        if problems:
            raise DamageError(*problems)
        try:
            return _compact(output, report)
        except DamageError as error:  # inside a file, where `tag` does not look
            raise DamageError(f"{str(error).removesuffix(f': {REPAIR}')}: {DELETE}") from error


def _compact(output: Output, report: Callable[[str], None]) -> Compacted:
    before = len(output.batches.names)
    rewriter = _Rewriter(output)
    mixed = sorted((batch for batch in rewriter.batches() if len(set(batch.months)) > 1), key=lambda each: each.start)
    for some in _filled(mixed, _CUT_BYTES):
        report(f"{len(some)} files of several months are cut")
        rewriter.cut(some)
    by_month: dict[int, list[_Batch]] = {}
    for batch in rewriter.batches():
        if batch.size_bytes < FILE_BYTES / 2 and len(batch.months):
            by_month.setdefault(int(batch.months[0]), []).append(batch)
    for month, small in sorted(by_month.items()):
        for some in _filled(sorted(small, key=lambda each: each.start), FILE_BYTES):
            if len(some) > 1:
                report(f"{_named(month)}: {len(some)} files are put together")
                rewriter.write(some, [pa.concat_tables([batch.recordings for batch in some])])
    return Compacted(before, len(output.batches.names), len(output.batches.recordings(["recording"])))


def _named(month: int) -> str:
    return "start time not known" if month == _UNKNOWN else f"{(month - 1) // 12}-{(month - 1) % 12 + 1:02}"


def _filled(batches: Iterable[_Batch], size_bytes: float) -> Iterator[list[_Batch]]:
    """Yield batches together until they reach a size."""
    some: list[_Batch] = []
    for batch in batches:
        if some and sum(each.size_bytes for each in some) + batch.size_bytes > size_bytes:
            yield some
            some = []
        some.append(batch)
    if some:
        yield some


class _Rewriter:
    """Writes batches of an output folder again, with their recordings in other batches."""

    def __init__(self, output: Output) -> None:
        self._folder, self._run = output.folder, output.run() or {}
        self._swap = Swap(self._folder)
        self._tables = tables_of(self._run)

    def batches(self) -> list[_Batch]:
        """Return all batches."""
        return [self._batch(path) for path in counted_files(self._folder)]

    def _batch(self, path: Path) -> _Batch:
        recordings = read_recordings(path).replace_schema_metadata()
        time = recordings["time"]
        month = pc.add(pc.multiply(pc.year(time), 12), pc.month(time)).fill_null(_UNKNOWN)
        sizes = [(self._folder / table / path.name).stat().st_size for table in self._tables]
        return _Batch(path.name, recordings, month.to_numpy(), max(sizes))

    def cut(self, batches: Sequence[_Batch]) -> None:
        """Write batches again, each recording in one of its month."""
        recordings = pa.concat_tables([batch.recordings for batch in batches])
        months = np.concatenate([batch.months for batch in batches])
        sizes = np.concatenate([batch.recording_bytes for batch in batches])
        order = pc.sort_indices(recordings, [("time", "ascending"), ("recording", "ascending")]).to_numpy()
        parts = []
        for month in np.unique(months):
            rows = order[months[order] == month]
            piece = (np.cumsum(sizes[rows]) - sizes[rows]) // FILE_BYTES
            parts += [recordings.take(pa.array(rows[piece == each])) for each in np.unique(piece)]
        self.write(batches, parts)

    def write(self, old: Sequence[_Batch], parts: Sequence[pa.Table]) -> None:
        """Replace batches.

        Args:
            old: Batches.
            parts: The same recordings, as the rows of the recordings table of each new batch.
        """
        new = [new_name() for _ in parts]
        self._swap.clear()
        self._swap.prepare()
        try:
            self._copy(old, parts, new)
        except BaseException:
            self._swap.clear()  # may be gigabytes
            raise
        self._swap.commit(new, [batch.name for batch in old])

    def _copy(self, old: Sequence[_Batch], parts: Sequence[pa.Table], new: Sequence[str]) -> None:
        """Write the files of new batches, given their names."""
        place = {name: part for part, rows in enumerate(parts) for name in rows["recording"].to_pylist()}
        for table in self._tables:
            schema = schema_of(self._folder / table / old[0].name)
            files = (open_table(self._folder / table / batch.name, promise(batch.recordings)) for batch in old)
            writers = (table_writer(self._swap.place, table, name, schema) for name in new)
            counts = _distribute(files, writers, place)
            if any(promise(rows).get(table, count) != count for rows, count in zip(parts, counts, strict=True)):
                raise DamageError(f"{self._folder / table} has other rows than the recordings table states: {REPAIR}")
        for own in (own_table(self._folder, name) for name in own_names(self._folder)):
            if all(own.is_current(batch.name) for batch in old):  # or else `classify` has to write all of them
                files = (own.open(batch.name, promise(batch.recordings)["scores"]) for batch in old)
                _distribute(files, (own.writer(self._swap.place, name) for name in new), place)
        for name, rows in zip(new, parts, strict=True):
            write_recordings(self._swap.place, name, rows)


def _distribute(
    files: Iterable[AbstractContextManager[pq.ParquetFile]],
    opened: Iterable[AbstractContextManager[TableWriter]],
    place: Mapping[str, int],
) -> list[int]:
    """Copy the rows of files.

    Args:
        files: Files of one table.
        opened: Writers of the new files.
        place: The writer of each recording.

    Returns:
        The number of rows that each writer got.

    Raises:
        DamageError: A file cannot be read, or has rows of other recordings.
    """
    with ExitStack() as stack:
        writers = [stack.enter_context(each) for each in opened]
        counts = np.zeros(len(writers), np.int64)
        for rows in (rows for file in files for rows in _row_groups(file)):
            to = codes(rows["recording"], place)
            if (to < 0).any():
                raise DamageError("a file has rows of recordings of another one, which `satpipe status --check` names")
            counts += np.bincount(to, minlength=len(writers))
            for each in np.unique(to).tolist():
                writers[each].add(rows if len(writers) == 1 else rows.filter(to == each))
            if len(writers) > 1 and sum(writer.waiting for writer in writers) >= _CUT_ROWS:
                for writer in writers:
                    writer.flush()
    return [int(count) for count in counts]


def _row_groups(opened: AbstractContextManager[pq.ParquetFile]) -> Iterator[pa.Table]:
    """Yield a file row group by row group; an error of the one who writes them is not taken for one of the file."""
    with opened as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)
