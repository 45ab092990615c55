"""The tables of an output folder as data frames, for analysts: filtered while they are read.

    from satpipe.pipeline.tables.dataframes import read_recordings, read_scores, read_tags

    read_scores("out", labels=["Bird", "under:Insect"], recordings="pond/*", since="2025-05-01", until="2025-06-01")

Only those files, row groups and columns are read that hold what is asked for. A year of scores takes 17 GB:
`scan_scores` gives them in frames that fit into memory, one after the other. What a person should know of the folder,
such as that it is not finished, comes as a warning.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from satpipe.pipeline.tables.chunk_scores import read_chunks
from satpipe.pipeline.tables.open_folder import Floats, Ints, Part, Tables, side_by_side
from satpipe.pipeline.tables.output_folder import reading
from satpipe.pipeline.tables.schemas import TAGS
from satpipe.pipeline.tables.selection import Recordings, Time, select, within
from satpipe.sat.errors import ConfigError, OutputError
from satpipe.sat.labels import Key, choose, weak_labels

Labels = Key | Iterable[Key]
"""One class or several: a name, a mid, or `under:` and one of these for all below it, see `sat.labels.choose`."""

MOST_BYTES = 4 << 30  # of one data frame
_LESS = "choose labels, recordings or a time"
_ROW_BYTES = 8  # besides four for each column


def read_recordings(
    out: str | Path, *, recordings: Recordings | None = None, since: Time | None = None, until: Time | None = None
) -> pd.DataFrame:
    """Read which recordings there are.

    Args:
        out: Output folder of `satpipe tag`, path or URL.
        recordings: A name, a pattern such as `site1/*`, or several; by default all, sorted by name.
        since: Only recordings that end after this time, in UTC if it names no time zone.
        until: Only recordings that start before this time.

    Returns:
        The columns of the recordings table; `time` and `clock_rate` are missing where they are not known.

    Raises:
        OutputError: It is no output folder, is damaged (the file is named), or has no such recording.
        ConfigError: It is no time, or the time of no recording is known.
    """
    tables = _open(out, scores=False)
    chosen = within(tables, tables.choose(recordings), None, None, since, until)[0]
    frame: pd.DataFrame = tables.table.take(pa.array(chosen)).to_pandas()
    return frame


def read_tags(
    out: str | Path,
    *,
    labels: Labels | None = None,
    recordings: Recordings | None = None,
    min_score: float = 0.0,
    start_s: float | None = None,
    end_s: float | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> pd.DataFrame:
    """Read the labels that chunks were given.

    Args:
        out: Output folder of `satpipe tag`, path or URL.
        labels: One class or several: a name, a mid, or `under:` and one of these for a class and all below it in the
            ontology; by default all.
        recordings: A name, a pattern such as `site1/*`, or several; by default all, sorted by name.
        min_score: Least score.
        start_s: Only chunks that end after so many seconds of their recording.
        end_s: Only chunks that start before so many seconds of their recording.
        since: Only chunks that end after this time, in UTC if it names no time zone.
        until: Only chunks that start before this time.

    Returns:
        Columns `recording`, `chunk`, `start_s`, `end_s`, `time` (start of the chunk in UTC, missing where it is not
        known), `mid`, `label` and `score`, by recording and chunk, the highest score first.

    Raises:
        OutputError: It is no output folder, is damaged (the file is named), or has no such recording.
        LabelError: There is no such class.
        ConfigError: It is no time, the time of no recording is known, or the frame would be too large.
    """
    tables = _open(out, scores=False)
    part = select(tables, recordings, start_s, end_s, since, until)
    frames = _Frames(tables, part, labels)
    found, size = [frames.tags(TAGS.empty_table())], 0
    for frame in side_by_side(partial(frames.read_tags, min_score=min_score), tables.by_file(part.recordings)):
        found.append(frame)
        size += int(frame.memory_usage().sum())
        if size > MOST_BYTES:
            raise ConfigError(f"these are more than {MOST_BYTES / 2**30:.0f} GB of tags: {_LESS}")
    return _one(found)


def read_scores(
    out: str | Path,
    *,
    labels: Labels | None = None,
    recordings: Recordings | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> pd.DataFrame:
    """Read scores of chunks, a column for each class.

    Args:
        out: Output folder of `satpipe tag`, path or URL.
        labels: One class or several: a name, a mid, or `under:` and one of these for a class and all below it in the
            ontology; by default all 527.
        recordings: A name, a pattern such as `site1/*`, or several; by default all, sorted by name.
        start_s: Only chunks that end after so many seconds of their recording.
        end_s: Only chunks that start before so many seconds of their recording.
        since: Only chunks that end after this time, in UTC if it names no time zone.
        until: Only chunks that start before this time.

    Returns:
        Columns `recording`, `chunk`, `start_s`, `end_s`, `time` (start of the chunk in UTC, missing where it is not
        known) and the names of the classes in the order they are asked for; by recording and chunk.

    Raises:
        OutputError: It is no output folder, has no scores, is damaged (the file is named), or has no such recording.
        LabelError: There is no such class.
        ConfigError: It is no time, the time of no recording is known, or the frame would be too large.
    """
    tables = _open(out)
    part = select(tables, recordings, start_s, end_s, since, until)
    frames = _Frames(tables, part, labels)
    nothing = frames.scores(part.take(np.zeros(0, np.int32)))
    size = len(part) * (_ROW_BYTES + 4 * len(nothing.columns))
    if size > MOST_BYTES:
        raise ConfigError(f"these are {size / 2**30:.0f} GB of scores: {_LESS}, or take them in parts with scan_scores")
    return _one([nothing, *side_by_side(frames.scores, tables.pieces(part))])


def scan_scores(
    out: str | Path,
    *,
    labels: Labels | None = None,
    recordings: Recordings | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> Iterator[pd.DataFrame]:
    """Read what `read_scores` reads as frames of at most 65,536 chunks, one after the other.

    The chunks of a recording come in the order of time, and recordings file by file, nearly in the order of names.
    """
    tables = _open(out)
    part = select(tables, recordings, start_s, end_s, since, until)
    return side_by_side(_Frames(tables, part, labels).scores, tables.pieces(part))


def in_files(out: str | Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Say of chunks or events in which file they are; it is another one than the recording after `satpipe tag --join`.

    Args:
        out: Output folder of `satpipe tag`, path or URL.
        frame: Rows with `recording` and `start_s`.

    Returns:
        The same with the columns `file` and `file_s`, seconds from the start of that file.

    Raises:
        OutputError: It is no output folder, or is damaged; the file is named.
    """
    table = _open(out, scores=False).table
    rows = frame.groupby("recording", observed=True).indices
    file, file_s = frame["recording"].astype(object).to_numpy(copy=True), frame["start_s"].to_numpy(copy=True)
    for each in table.select(["recording", "files"]).filter(pc.is_valid(table["files"])).to_pylist():
        here = rows.get(each["recording"], [])
        starts = np.array([part["start_s"] for part in each["files"]])
        place = np.searchsorted(starts, file_s[here], "right") - 1
        file[here] = np.array([part["file"] for part in each["files"]], object)[place]
        file_s[here] -= starts[place]
    return frame.assign(file=file, file_s=file_s)


def _open(out: str | Path, *, scores: bool = True) -> Tables:
    tables = Tables(out, scores=scores)
    for note in tables.notes:
        warnings.warn(note, stacklevel=3)
    return tables


class _Frames:
    """Makes data frames of chunks of a part."""

    def __init__(self, tables: Tables, part: Part, labels: Labels | None) -> None:
        self._tables, self._part = tables, part
        self._columns = None if labels is None else list(choose(labels))
        self._recordings = pd.Index([tables.recordings[row] for row in part.recordings], dtype=object)
        self._mids = pd.Index([label.mid for label in weak_labels()])
        self._labels = pd.Index([label.name for label in weak_labels()])
        self._place = np.full(len(tables.recordings), -1, np.int32)  # in the part, of each recording
        self._place[part.recordings] = np.arange(len(part.recordings))

    def _about(self, clip: Any, chunk: Ints, start_s: Floats, end_s: Floats) -> pd.DataFrame:
        """The columns that say which chunk it is; `clip` is the place of its recording in the part."""
        time = pd.DatetimeIndex(self._tables.utc(self._part.recordings[clip], start_s), tz="UTC")
        recording = pd.Categorical.from_codes(clip, self._recordings)
        return pd.DataFrame({"recording": recording, "chunk": chunk, "start_s": start_s, "end_s": end_s, "time": time})

    def scores(self, piece: Part) -> pd.DataFrame:
        """A row for each chunk of a piece of the part."""
        chunks = read_chunks(self._tables, piece, self._columns)
        clip = self._place[piece.recordings][chunks.clip]
        about = self._about(clip, chunks.chunk, chunks.start_s, chunks.end_s)
        scores = pd.DataFrame(chunks.scores.astype(np.float32), columns=self._labels[chunks.columns])
        return pd.concat([about, scores], axis=1)

    def tags(self, table: pa.Table) -> pd.DataFrame:
        """A row for each row of a table of tags that is of the part."""
        clip = _codes(table["recording"], self._recordings)
        chunk = table["chunk"].to_numpy()
        kept = (chunk >= self._part.begin[clip]) & (chunk < self._part.end[clip])
        label = _codes(table["mid"], self._mids)[kept]
        start_s, end_s, score = (table[name].to_numpy()[kept] for name in ("start_s", "end_s", "score"))
        frame = self._about(clip[kept], chunk[kept], start_s, end_s)
        frame["mid"] = pd.Categorical.from_codes(label, self._mids)
        frame["label"] = pd.Categorical.from_codes(label, self._labels)
        frame["score"] = score
        return frame

    def read_tags(self, file: tuple[str, npt.NDArray[np.bool_]], min_score: float) -> pd.DataFrame:
        """The tags of a file, given by its name and which recordings of the part it holds."""
        name, here = file
        wanted = pc.field("recording").isin(self._recordings[here].tolist()) & (pc.field("score") >= min_score)
        wanted &= pc.field("chunk") >= self._part.begin[here].min()
        wanted &= pc.field("chunk") < self._part.end[here].max()
        if self._columns is not None:
            wanted &= pc.field("mid").isin(self._mids[self._columns].tolist())
        path = self._tables.folder / "tags" / name
        with reading(path), path.open("rb") as opened:
            if not pq.read_schema(opened).equals(TAGS):
                raise OutputError(f"{path} is not a table of tags as this version of satpipe writes it")
            opened.seek(0)
            return self.tags(pq.read_table(opened, filters=wanted))


def _codes(column: pa.ChunkedArray, names: pd.Index) -> npt.NDArray[np.intp]:
    """Positions of the values of a column, dictionary-coded, among names."""
    parts = [names.get_indexer(part.dictionary.to_pylist())[part.indices.to_numpy()] for part in column.chunks]
    return np.concatenate([np.empty(0, np.intp), *parts])


def _one(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One frame of several, by recording; categories that do not occur go. The first is used only if all are empty."""
    frame = pd.concat([each for each in frames if len(each)] or frames[:1], ignore_index=True)
    codes = frame["recording"].cat.codes.to_numpy()
    if (np.diff(codes) < 0).any():
        frame = frame.take(np.argsort(codes, kind="stable")).reset_index(drop=True)
    for column in frame.columns[frame.dtypes == "category"]:
        frame[column] = frame[column].cat.remove_unused_categories()
    return frame
