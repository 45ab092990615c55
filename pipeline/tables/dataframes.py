"""The tables of an output folder as data frames, filtered while they are read.

    from satpipe.pipeline.tables.dataframes import read_recordings, read_scores, read_tags

    read_scores("out", labels=["Bird", "under:Insect"], recordings="pond/*", since="2025-05-01", until="2025-06-01")

Only the files, row groups and columns that contain the selection are read. A year of scores takes 17 GB: `scan_scores`
yields them in frames that fit into memory, one after the other. If the folder is not finished, for example, a warning
is issued.
"""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from satpipe.pipeline.tables.chunk_embeddings import ChunkEmbeddings, map_embeddings, size_of_embeddings
from satpipe.pipeline.tables.chunk_scores import read_exactly, read_targets
from satpipe.pipeline.tables.open_folder import Floats, Ints, Part, Tables, side_by_side
from satpipe.pipeline.tables.schemas import TAGS
from satpipe.pipeline.tables.selection import Recordings, Selection, Time
from satpipe.pipeline.tables.tag_rows import read_tag_rows
from satpipe.pipeline.tables.targets import Groups, Labels, OwnNames, all_classes
from satpipe.sat.errors import ConfigError
from satpipe.sat.labels import weak_labels

MOST_BYTES = 4 << 30  # of one data frame
_LESS = "choose labels, recordings or a time"
_ROW_BYTES = 16  # in addition to four for each column


def read_recordings(
    out: str | Path | None = None,
    *,
    recordings: Recordings | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> pd.DataFrame:
    """Read the recordings table.

    >>> satpipe.read_recordings("out")[["recording", "duration_s", "status"]]
        recording  duration_s status
    0   birds.wav         4.0     ok
    1  speech.wav         4.0     ok

    Args:
        out: Output folder of `satpipe tag`, path or URL; by default SATPIPE_OUT, or `out` in the current folder.
        recordings: A name, a pattern such as `site1/*`, or several; by default all, sorted by name.
        since: Only recordings that end after this time, in UTC unless it has a time zone.
        until: Only recordings that start before this time.

    Returns:
        The columns of the recordings table, and `time_local`, which is `time` in the time zone of the run; `time`,
        `time_local` and `clock_rate` are missing where they are not known.

    Raises:
        OutputError: `out` is not an output folder, is damaged (the message names the file) or has no such recording.
        ConfigError: A time is not valid, or the start of no recording is known.
    """
    selection = Selection(recordings, since=since, until=until)
    tables = _open(out, selection, scores=False)
    frame: pd.DataFrame = tables.table.take(pa.array(selection.within(tables)[0])).to_pandas()
    frame.insert(tables.table.column_names.index("time") + 1, "time_local", frame["time"].dt.tz_convert(tables.zone))
    return frame


def read_tags(
    out: str | Path | None = None,
    *,
    labels: Labels | None = None,
    group: Groups | None = None,
    groups: str | Path | None = None,
    own: OwnNames | None = None,
    recordings: Recordings | None = None,
    min_score: float = 0.0,
    start_s: float | None = None,
    end_s: float | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> pd.DataFrame:
    """Read the tags table: the labels of each chunk with their scores.

    >>> satpipe.read_tags("out", labels="under:Animal", min_score=0.6)[["recording", "chunk", "start_s", "label"]]
       recording  chunk  start_s                                    label
    0  birds.wav      0     0.00                                     Bird
    1  birds.wav      1     1.92                                     Bird
    2  birds.wav      1     1.92  Bird vocalization, bird call, bird song
    3  birds.wav      1     1.92                             Chirp, tweet
    4  birds.wav      2     3.84                                     Bird

    `min_score` is the minimum score; the other arguments are those of `read_scores`.

    Returns:
        Columns `recording`, `chunk`, `start_s`, `end_s`, `time` (start of the chunk in UTC, missing where it is not
        known), `time_local` (the same in the time zone of the run), `mid`, `label` and `score`, sorted by recording and
        chunk, the highest score first. A group has one row for each chunk with one of its classes, with the highest of
        their scores; its `mid` is `group/NAME`. An own class has a row for each chunk; its `mid` is `own/NAME`.

    Raises:
        OutputError: `out` is not an output folder, is damaged (the message names the file) or has no such recording.
        LabelError: A class or group does not exist.
        ConfigError: A time is not valid, the start of no recording is known, or the frame would be too large.
    """
    selection = Selection(recordings, labels, group, groups, min_score, start_s, end_s, since, until, own=own)
    frames = _Frames(_open(out, selection, scores=False), selection)
    found, size = [frames.tags(TAGS.empty_table())], 0
    for frame in frames.all_tags():
        found.append(frame)
        size += int(frame.memory_usage().sum())
        if size > MOST_BYTES:
            raise ConfigError(f"these are more than {MOST_BYTES / 2**30:.0f} GB of tags: {_LESS}")
    return _one(found)


def read_scores(
    out: str | Path | None = None,
    *,
    labels: Labels | None = None,
    group: Groups | None = None,
    groups: str | Path | None = None,
    own: OwnNames | None = None,
    recordings: Recordings | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> pd.DataFrame:
    """Read the scores of chunks, with one column per class.

    >>> satpipe.read_scores("out", labels=["Bird", "Speech"], recordings="birds.*").round(1)
       recording  chunk  start_s  end_s time time_local  Bird  Speech
    0  birds.wav      0      0.0    1.9  NaT        NaT   0.6     0.0
    1  birds.wav      1      1.9    3.8  NaT        NaT   0.8     0.0
    2  birds.wav      2      3.8    4.0  NaT        NaT   0.7     0.0

    Args:
        out: Output folder of `satpipe tag`, path or URL; by default SATPIPE_OUT, or `out` in the current folder.
        labels: One class or several: a name, a mid, or `under:` and one of these for a class and all below it in the
            ontology; by default all 527.
        group: One group or several: a name of `satpipe labels`, or a class for itself and all below it. The score of a
            group is the maximum over its classes.
        groups: A file of groups, with the columns group and label; without `group`, all of its groups are read.
        own: Tables of own classes, see `satpipe classify`: the name of one or several, or `TABLE/CLASS` for one class.
        recordings: A name, a pattern such as `site1/*`, or several; by default all, sorted by name.
        start_s: Only chunks that end after this many seconds of their recording.
        end_s: Only chunks that start before this many seconds of their recording.
        since: Only chunks that end after this time, in UTC unless it has a time zone.
        until: Only chunks that start before this time.

    Returns:
        Columns `recording`, `chunk`, `start_s`, `end_s`, `time` (start of the chunk in UTC, missing where it is not
        known), `time_local` (the same in the time zone of the run) and the names of the classes, groups and own
        classes in the order they are asked for; sorted by recording and chunk.

    Raises:
        OutputError: `out` is not an output folder, has no scores, is damaged (the message names the file) or has no
            such recording.
        LabelError: A class or group does not exist.
        ConfigError: A time is not valid, the start of no recording is known, or the frame would be too large.
    """
    selection = Selection(recordings, labels, group, groups, 0.0, start_s, end_s, since, until, own=own)
    frames = _Frames(_open(out, selection), selection)
    nothing = frames.scores(frames.part.take(np.zeros(0, np.int32)))
    size = len(frames.part) * (_ROW_BYTES + 4 * len(nothing.columns))
    if size > MOST_BYTES:
        raise ConfigError(
            f"these are {size / 2**30:.0f} GB of scores: {_LESS}, or read them in blocks with scan_scores"
        )
    return _one([nothing, *frames.blocks()])


def scan_scores(
    out: str | Path | None = None,
    *,
    labels: Labels | None = None,
    group: Groups | None = None,
    groups: str | Path | None = None,
    own: OwnNames | None = None,
    recordings: Recordings | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> Iterator[pd.DataFrame]:
    """Yield what `read_scores` returns in frames of at most 65,536 chunks, one after the other.

    >>> sum(len(scores) for scores in satpipe.scan_scores("out"))
    6

    Chunks of a recording are in order of time; recordings come file by file, nearly in the order of their names.
    """
    selection = Selection(recordings, labels, group, groups, 0.0, start_s, end_s, since, until, own=own)
    return _Frames(_open(out, selection), selection).blocks()


def read_embeddings(
    out: str | Path | None = None,
    *,
    recordings: Recordings | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> pd.DataFrame:
    """Read the embeddings of chunks, with one column per value.

    >>> embeddings = satpipe.read_embeddings("out", recordings="birds.*")
    >>> embeddings.loc[:, "e0":].to_numpy().shape
    (3, 192)

    The arguments are those of `read_scores`. `satpipe.sat.model.outputs` defines the embedding of a chunk.

    Returns:
        Columns `recording`, `chunk`, `start_s`, `end_s`, `time` (start of the chunk in UTC, missing where it is not
        known), `time_local` (the same in the time zone of the run) and `e0`, `e1`, ...; sorted by recording and chunk.

    Raises:
        OutputError: `out` is not an output folder, has no embeddings, is damaged (the message names the file) or has no
            such recording.
        ConfigError: A time is not valid, the start of no recording is known, or the frame would be too large.
    """
    selection = Selection(recordings, start_s=start_s, end_s=end_s, since=since, until=until)
    frames = _Frames(_open(out, selection, scores=False), selection)
    nothing = frames.no_embeddings()
    size = len(frames.part) * (_ROW_BYTES + 4 * len(nothing.columns))
    if size > MOST_BYTES:
        raise ConfigError(
            f"these are {size / 2**30:.0f} GB of embeddings: choose recordings or a time, or read them in blocks with "
            "scan_embeddings"
        )
    return _one([nothing, *map_embeddings(frames.tables, frames.part, frames.embeddings)])


def scan_embeddings(
    out: str | Path | None = None,
    *,
    recordings: Recordings | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> Iterator[pd.DataFrame]:
    """Yield what `read_embeddings` returns in frames of about 16,384 chunks, one after the other.

    >>> sum(len(embeddings) for embeddings in satpipe.scan_embeddings("out"))
    6

    Chunks of a recording are in order of time; recordings come file by file, nearly in the order of their names.
    """
    selection = Selection(recordings, start_s=start_s, end_s=end_s, since=since, until=until)
    frames = _Frames(_open(out, selection, scores=False), selection)
    return map_embeddings(frames.tables, frames.part, frames.embeddings)


def in_files(out: str | Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Add to chunks or events the file they are in, which after `satpipe tag --join` is not the recording's name.

    Args:
        out: Output folder of `satpipe tag`, path or URL.
        frame: Rows with `recording` and `start_s`.

    Returns:
        The same rows with the columns `file` and `file_s`, seconds from the start of that file.

    Raises:
        OutputError: `out` is not an output folder, or is damaged (the message names the file).
    """
    table = _open(out, Selection(), scores=False).table
    rows = frame.groupby("recording", observed=True).indices
    file, file_s = frame["recording"].astype(object).to_numpy(copy=True), frame["start_s"].to_numpy(copy=True)
    for each in table.select(["recording", "files"]).filter(pc.is_valid(table["files"])).to_pylist():
        here = rows.get(each["recording"], [])
        starts = np.array([part["start_s"] for part in each["files"]])
        place = np.searchsorted(starts, file_s[here], "right") - 1
        file[here] = np.array([part["file"] for part in each["files"]], object)[place]
        file_s[here] -= starts[place]
    return frame.assign(file=file, file_s=file_s)


def _open(out: str | Path | None, selection: Selection, *, scores: bool = True) -> Tables:
    tables = Tables(out, scores=scores)
    for note in (*tables.notes, *selection.notes(tables)):
        warnings.warn(note, stacklevel=3)
    return tables


class _Frames:
    """Makes data frames of the selected chunks, `part`."""

    def __init__(self, tables: Tables, selection: Selection) -> None:
        self.tables, self.part = tables, selection.part(tables)
        self._targets, self._min_score = selection.targets(tables.folder), selection.min_score
        self._recordings = pd.Index([tables.recordings[row] for row in self.part.recordings], dtype=object)
        self._mids = pd.Index([target.mid for target in self._targets])
        self._labels = pd.Index([target.label for target in self._targets])
        self._classes = pd.Index([label.mid for label in weak_labels()])
        self._place = np.full(len(tables.recordings), -1, np.int32)  # in the part, of each recording
        self._place[self.part.recordings] = np.arange(len(self.part.recordings))

    def _about(self, clip: Any, chunk: Ints, start_s: Floats, end_s: Floats) -> pd.DataFrame:
        """Return the columns that identify chunks; `clip` is the position of a chunk's recording in the part."""
        recording = pd.Categorical.from_codes(clip, self._recordings)
        frame = pd.DataFrame({"recording": recording, "chunk": chunk, "start_s": start_s, "end_s": end_s})
        frame["time"] = pd.DatetimeIndex(self.tables.utc(self.part.recordings[clip], start_s), tz="UTC")
        frame["time_local"] = frame["time"].dt.tz_convert(self.tables.zone)
        return frame

    def blocks(self) -> Iterator[pd.DataFrame]:
        """Yield the scores of the part, block by block."""
        return side_by_side(self.scores, self.tables.blocks(self.part))

    def scores(self, block: Part) -> pd.DataFrame:
        """Return a row for each chunk of a block of the part."""
        chunks = read_targets(self.tables, block, self._targets)
        clip = self._place[block.recordings][chunks.clip]
        about = self._about(clip, chunks.chunk, chunks.start_s, chunks.end_s)
        scores = pd.DataFrame(chunks.scores.astype(np.float32), columns=self._labels)
        return pd.concat([about, scores], axis=1)

    def embeddings(self, chunks: ChunkEmbeddings) -> pd.DataFrame:
        """Return a row for each of some chunks of the part."""
        about = self._about(self._place[chunks.recording], chunks.chunk, chunks.start_s, chunks.end_s)
        values = pd.DataFrame(chunks.embeddings, columns=[f"e{place}" for place in range(chunks.embeddings.shape[1])])
        return pd.concat([about, values], axis=1)

    def no_embeddings(self) -> pd.DataFrame:
        """Return what `embeddings` returns for no chunk."""
        none, size = np.empty(0, np.int32), size_of_embeddings(self.tables)
        return self.embeddings(ChunkEmbeddings(none, none, np.empty(0), np.empty(0), np.empty((0, size), np.float32)))

    def tags(self, table: pa.Table) -> pd.DataFrame:
        """Return a row for each row of a table of tags that belongs to the part; one for each chunk with a group."""
        clip = _codes(table["recording"], self._recordings)
        chunk, score = table["chunk"].to_numpy(), table["score"].to_numpy()
        rows = np.flatnonzero((chunk >= self.part.begin[clip]) & (chunk < self.part.end[clip]))
        rows, target = self._of_targets(rows, _codes(table["mid"], self._classes), clip, chunk, score)
        start_s, end_s = (table[name].to_numpy()[rows] for name in ("start_s", "end_s"))
        frame = self._about(clip[rows], chunk[rows], start_s, end_s)
        frame["mid"] = pd.Categorical.from_codes(target, self._mids)
        frame["label"] = pd.Categorical.from_codes(target, self._labels)
        frame["score"] = score[rows]
        return frame

    def _of_targets(self, rows: Any, label: Any, clip: Any, chunk: Ints, score: Any) -> tuple[Any, Any]:
        """Return the rows of each target and its number; of the classes of a group, the highest in each chunk."""
        if self._targets == all_classes():
            return rows, label[rows]
        best = rows[np.lexsort((-score[rows], chunk[rows], clip[rows]))]
        found = []
        for target in self._targets:
            ours = best[np.isin(label[best], () if target.own else target.columns)]
            first = np.ones(len(ours), bool)
            first[1:] = (np.diff(chunk[ours]) != 0) | (np.diff(clip[ours]) != 0)
            found.append(ours[first])
        rows, number = np.concatenate(found), np.repeat(np.arange(len(found)), list(map(len, found)))
        order = np.lexsort((-score[rows], chunk[rows], clip[rows]))
        return rows[order], number[order]

    def all_tags(self) -> Iterator[pd.DataFrame]:
        """Yield the tags of the part, those of classes and groups file by file, those of own classes block by block."""
        if not all(target.own for target in self._targets):
            yield from side_by_side(self.read_tags, self.tables.by_file(self.part.recordings))
        if any(target.own for target in self._targets):
            yield from side_by_side(self.own_tags, self.tables.blocks(self.part))

    def own_tags(self, block: Part) -> pd.DataFrame:
        """Return the tags of own classes in a block of the part."""
        numbers: Any = np.array([number for number, target in enumerate(self._targets) if target.own])
        chunks = read_exactly(self.tables, block, [self._targets[number] for number in numbers])
        row, column = np.nonzero(chunks.scores >= self._min_score)
        order = np.lexsort((-chunks.scores[row, column], row))
        row, column = row[order], column[order]
        clip = self._place[block.recordings][chunks.clip]
        frame = self._about(clip[row], chunks.chunk[row], chunks.start_s[row], chunks.end_s[row])
        frame["mid"] = pd.Categorical.from_codes(numbers[column], self._mids)
        frame["label"] = pd.Categorical.from_codes(numbers[column], self._labels)
        frame["score"] = chunks.scores[row, column]
        return frame

    def read_tags(self, file: tuple[str, npt.NDArray[np.bool_]]) -> pd.DataFrame:
        """Return the tags of a file, given its name and a mask of the part's recordings that it contains."""
        name, here = file
        columns = None
        if self._targets != all_classes():
            columns = sorted({column for each in self._targets for column in each.columns if not each.own})
        return self.tags(read_tag_rows(self.tables, self.part.take(here), name, columns, self._min_score))


def _codes(column: pa.ChunkedArray, names: pd.Index) -> npt.NDArray[np.intp]:
    """Return the positions of the values of a dictionary-coded column among names."""
    parts = [names.get_indexer(part.dictionary.to_pylist())[part.indices.to_numpy()] for part in column.chunks]
    return np.concatenate([np.empty(0, np.intp), *parts])


def _one(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join frames, sorted by recording, without unused categories. The first one is used only if all are empty."""
    frame = pd.concat([each for each in frames if len(each)] or frames[:1], ignore_index=True)
    codes = frame["recording"].cat.codes.to_numpy()
    if (np.diff(codes) < 0).any():
        frame = frame.take(np.argsort(codes, kind="stable")).reset_index(drop=True)
    for column in frame.columns[frame.dtypes == "category"]:
        frame[column] = frame[column].cat.remove_unused_categories()
    return frame
