"""Read scores of chunks from an output folder: only the selected chunks and classes are loaded into memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from satpipe.pipeline.tables.files import DELETE, open_table
from satpipe.pipeline.tables.open_folder import Floats, Ints, Part, Tables, all_numbers, codes, side_by_side
from satpipe.pipeline.tables.own_tables import OwnTable, own_table
from satpipe.pipeline.tables.schemas import chunk_times
from satpipe.pipeline.tables.score_pages import read_score_pages
from satpipe.pipeline.tables.tag_rows import read_tag_rows
from satpipe.pipeline.tables.targets import Target, all_classes
from satpipe.sat.errors import DamageError
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import CLASSES

SAME_S = 1e-6  # times that differ by less are the same
CHUNK_COLUMNS = ["recording", "chunk", "start_s", "end_s"]


@dataclass(frozen=True, eq=False)
class ChunkScores:
    """Scores of the chunks of some recordings, for some classes or targets.

    The chunks of a recording are adjacent, in the order of time; the recordings are in the order they were asked for.
    Where a worker died or a recorder left out a quiet stretch, chunks are missing.
    """

    recordings: tuple[str, ...]
    """Names, [R]."""
    first: npt.NDArray[np.int64]
    """Position of the first chunk of each recording, and the number of chunks, [R + 1]."""
    clip: Ints
    """Position of each chunk's recording in `recordings`, [n]."""
    chunk: Ints
    """Number of each chunk in its recording, from 0, [n]."""
    start_s: Floats
    """From the recording's start, [n]."""
    end_s: Floats
    """From the recording's start; that of the last chunk is the recording's end, [n]."""
    scores: npt.NDArray[np.floating]
    """From 0 to 1, in the order of the classes or targets asked for, [n, K]; in half precision, see `read_exactly`."""

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self.chunk)


def read_chunks(
    tables: Tables, wanted: Sequence[str] | Part | None = None, columns: npt.ArrayLike | None = None
) -> ChunkScores:
    """Read scores of chunks.

    Only files that contain a wanted recording are read, row group by row group, several at the same time.

    Args:
        tables: The folder.
        wanted: Names of recordings, each once, or a part of them; by default all. A recording without chunks adds none.
        columns: Positions of the classes wanted in the model's outputs, [K]; by default all.

    Raises:
        OutputError: A recording does not exist, or a file is damaged or incomplete; the message names it.
    """
    outputs = None if columns is None else [(int(column),) for column in np.asarray(columns)]
    return _read(tables, wanted, outputs)


def read_targets(
    tables: Tables, wanted: Sequence[str] | Part | None, targets: Sequence[Target], at_least: float = 0.0
) -> ChunkScores:
    """Read scores of chunks for classes and groups; that of a group is the maximum over its classes.

    If the folder has no table of scores, those in the table of tags are read; others are 0, see `Tables.check_scores`.

    Args:
        tables: The folder.
        wanted: Names of recordings, each once, or a part of them; None: all.
        targets: From `satpipe.pipeline.tables.targets.choose_targets`.
        at_least: Lower scores may be returned as 0, which is faster.

    Raises:
        OutputError: A recording does not exist, or a file is damaged or incomplete; the message names it.
    """
    if not any(target.own for target in targets):
        outputs = None if targets == all_classes() else [target.columns for target in targets]
        return _read(tables, wanted, outputs, at_least)
    part = wanted if isinstance(wanted, Part) else tables.part(tables.rows(wanted))
    chunks = read_exactly(tables, part, targets)
    return replace(chunks, scores=chunks.scores.astype(np.float16))


def read_exactly(tables: Tables, part: Part, targets: Sequence[Target]) -> ChunkScores:
    """Read scores as `read_targets` does, those of own classes in single precision, as in their tables."""
    read: list[tuple[ChunkScores, list[int]]] = []
    for name in dict.fromkeys(target.own for target in targets):
        places = [place for place, target in enumerate(targets) if target.own == name]
        outputs = [targets[place].columns for place in places]
        if name:
            filler: _Filler = _OwnFiller(tables, part, outputs, own_table(tables.folder, name))
            for _ in side_by_side(filler.fill, tables.by_file(part.recordings)):
                pass
            read.append((filler.filled(), places))
        else:
            read.append((_read(tables, part, outputs), places))
    first, _ = read[0]
    scores = np.empty((len(first), len(targets)), np.result_type(*(each.scores for each, _ in read)))
    for each, places in read:
        if not (np.array_equal(each.clip, first.clip) and np.array_equal(each.chunk, first.chunk)):
            raise DamageError(f"{tables.folder} has other chunks in its tables of own classes: run `satpipe classify`")
        scores[:, places] = each.scores
    return replace(first, scores=scores)


def _read(
    tables: Tables,
    wanted: Sequence[str] | Part | None,
    outputs: Sequence[tuple[int, ...]] | None,
    at_least: float = 0.0,
) -> ChunkScores:
    part = wanted if isinstance(wanted, Part) else tables.part(tables.rows(wanted))
    filler = _Filler(tables, part, outputs, at_least)
    for _ in side_by_side(filler.fill, tables.by_file(part.recordings)):
        pass
    return filler.filled()


class _Filler:
    """Puts the rows of files into their places."""

    def __init__(
        self, tables: Tables, part: Part, outputs: Sequence[tuple[int, ...]] | None, at_least: float = 0.0
    ) -> None:
        sizes = part.end - part.begin
        first = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
        count = int(first[-1])
        shape = count, CLASSES if outputs is None else len(outputs)
        self.read = ChunkScores(
            recordings=tuple(tables.recordings[row] for row in part.recordings),
            first=first,
            clip=np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
            chunk=(np.arange(count) - np.repeat(first[:-1] - part.begin, sizes)).astype(np.int32),
            start_s=np.empty(count),
            end_s=np.empty(count),
            scores=(np.empty if tables.has_scores else np.zeros)(shape, np.float16),
        )
        self._outputs, self._at_least = outputs, at_least
        self._columns = np.array([column for several in outputs or () for column in several], np.int64)
        self._begin = np.cumsum([0, *map(len, outputs or ())])[:-1]  # of each group in `_columns`
        self._tables, self._part = tables, part
        self._place = {name: number for number, name in enumerate(self.read.recordings)}
        self._filled = np.zeros(count, bool)

    def fill(self, file: tuple[str, npt.NDArray[np.bool_]]) -> None:
        """Take the selected rows of a file, given its name and a mask of the recordings that it contains."""
        name, here = file
        part = self._part.take(here)
        if not len(part):
            return
        if not self._tables.has_scores:
            self._fill_from_tags(part, name)
            return
        path = self._tables.folder / "scores" / name
        with open_table(path, self._tables.promised[name]) as table, path.open("rb") as opened:
            for group in range(table.num_row_groups):
                if may_hold(table.metadata.row_group(group), int(part.begin.min()), int(part.end.max())):
                    self._fill_group(table, opened, group, path)

    def _fill_from_tags(self, part: Part, name: str) -> None:
        """Take the scores of the tags of a file; those of all other classes stay 0."""
        tables, read = self._tables, self.read
        whole = tables.slots[part.recordings] == tables.chunks[part.recordings]
        table = read_tag_rows(tables, part, name, self._columns if self._outputs and whole.all() else None)
        recording, chunk = codes(table["recording"], self._place), table["chunk"].to_numpy()
        rows = np.flatnonzero(
            (recording >= 0) & (chunk >= self._part.begin[recording]) & (chunk < self._part.end[recording])
        )
        score = table["score"].to_numpy()[rows]
        rows, score = rows[np.argsort(score)], np.sort(score)  # the highest score of a group is written last
        to = read.first[recording[rows]] + chunk[rows] - self._part.begin[recording[rows]]
        column = codes(table["mid"], {label.mid: place for place, label in enumerate(weak_labels())})[rows]
        if self._outputs is None:
            read.scores[to, column] = score
        for place, columns in enumerate(self._outputs or ()):
            ours = np.isin(column, columns)
            read.scores[to[ours], place] = score[ours]
        clips = np.fromiter((self._place[tables.recordings[row]] for row in part.recordings), np.int64)
        for clip in clips[whole]:
            self._filled[read.first[clip] : read.first[clip + 1]] = True
        self._filled[to] = True
        ours = np.isin(read.clip, clips)
        duration_s = tables.duration_s[self._part.recordings][read.clip[ours]]
        times = chunk_times(read.chunk[ours], tables.model["chunk_samples"], duration_s)
        read.start_s[ours], read.end_s[ours] = times

    def filled(self) -> ChunkScores:
        """Return the scores after the last file.

        Raises:
            DamageError: Chunks are missing although no worker died.
        """
        read, filled = self.read, self._filled
        if filled.all():
            return read
        recordings = self._part.recordings
        whole = self._tables.slots[recordings] == self._tables.chunks[recordings]
        missing = ~filled & whole[read.clip]
        if missing.any():
            row = int(np.argmax(missing))
            path = self._tables.folder / "scores" / self._tables.by_file(recordings[read.clip[[row]]])[0][0]
            name = read.recordings[read.clip[row]]
            raise DamageError(f"{path} does not have chunk {read.chunk[row]} of {name}: {DELETE}")
        clip = read.clip[filled]
        return replace(
            read,
            first=np.searchsorted(clip, np.arange(len(recordings) + 1)),
            clip=clip,
            chunk=read.chunk[filled],
            start_s=read.start_s[filled],
            end_s=read.end_s[filled],
            scores=read.scores[filled],
        )

    def _places(self, about: pa.Table, path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return which rows of a file are selected, and their places; their times are taken, and each place only once.

        Raises:
            DamageError: The rows are not those of the recordings table.
        """
        recording, chunk = codes(about["recording"], self._place), about["chunk"].to_numpy()
        start_s = about["start_s"].to_numpy()
        known = recording >= 0
        if np.any(known & ((chunk < 0) | (chunk >= self._tables.slots[self._part.recordings][recording]))):
            raise DamageError(f"{path} has scores of more chunks than the recordings table: {DELETE}")
        if np.any(known & (np.abs(start_s - chunk * self._tables.model["chunk_s"]) > SAME_S)):
            raise DamageError(f"{path} has other chunks than run.json, it comes from another run: {DELETE}")
        rows = np.flatnonzero(known & (chunk >= self._part.begin[recording]) & (chunk < self._part.end[recording]))
        recording, chunk = recording[rows], chunk[rows]
        to = self.read.first[recording] + chunk - self._part.begin[recording]
        if not len(rows):
            return rows, to
        if self._filled[to].any() or np.bincount(to - to.min()).max() > 1:
            raise DamageError(f"{path} has scores of a chunk twice: {DELETE}")
        self._filled[to] = True
        self.read.start_s[to] = start_s[rows]
        self.read.end_s[to] = about["end_s"].to_numpy()[rows]
        return rows, to

    def _fill_group(self, table: pq.ParquetFile, file: IO[bytes], group: int, path: Path) -> None:
        rows, to = self._places(table.read_row_group(group, columns=CHUNK_COLUMNS), path)
        if not len(rows):
            return
        columns = None if self._outputs is None else self._columns
        scores = read_score_pages(file, table.metadata.row_group(group), columns, self._at_least)
        if scores is None:
            column = table.read_row_group(group, columns=["scores"])["scores"].combine_chunks()
            values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, CLASSES)
            scores = (values if columns is None else values[:, columns]).astype(np.float16, copy=False)
        if not all_numbers(scores):
            raise DamageError(f"{path} has scores that are not numbers: {DELETE}")
        self.read.scores[to] = self._of_outputs(scores if len(rows) == len(scores) else scores[rows])

    def _of_outputs(self, some: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
        """Return the scores that are wanted [n, K], from those of their classes, one after the other."""
        if self._outputs is None or len(self._columns) == len(self._outputs):
            return some
        if (some.view(np.int16) >= 0).all():  # positive numbers sort by their bits, and integers are compared faster
            return np.maximum.reduceat(some.view(np.int16), self._begin, axis=1).view(np.float16)
        return np.maximum.reduceat(some, self._begin, axis=1)


class _OwnFiller(_Filler):
    """Puts the rows of a table of own classes into their places."""

    def __init__(self, tables: Tables, part: Part, outputs: Sequence[tuple[int, ...]], own: OwnTable) -> None:
        super().__init__(tables, part, outputs)
        self._own = own
        self.read = replace(self.read, scores=np.empty(self.read.scores.shape, np.float32))

    def fill(self, file: tuple[str, npt.NDArray[np.bool_]]) -> None:
        """Take the selected rows of a file."""
        name, here = file
        part = self._part.take(here)
        if not len(part):
            return
        with self._own.open(name, self._tables.promised[name]["scores"]) as table:
            for group in range(table.num_row_groups):
                if may_hold(table.metadata.row_group(group), int(part.begin.min()), int(part.end.max())):
                    content = table.read_row_group(group)
                    scores = self._own.scores(content, name)
                    first_rows = pa.array(np.arange(0, len(content), scores.shape[1]))
                    about = content.select(CHUNK_COLUMNS).take(first_rows)
                    rows, to = self._places(about, self._own.path(name))
                    self.read.scores[to] = scores[rows][:, self._columns]


def may_hold(group: pq.RowGroupMetaData, begin: int, end: int) -> bool:
    """Return True if a row group can contain chunks of these numbers, according to its statistics, if it has any."""
    known = group.column(CHUNK_COLUMNS.index("chunk")).statistics
    return known is None or not known.has_min_max or (known.max >= begin and known.min < end)
