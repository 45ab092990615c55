"""Chunk scores out of an output folder: of the recordings and classes wanted, and no more of them in memory.

A file of the scores table counts once the recordings table has the file of the same name, see `pipeline.output`.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.metrics.events import Floats, Ints
from pipeline.output import Output, reading
from pipeline.tables import RECORDINGS, SCORES
from sat.config import CLASSES, SAMPLE_RATE_HZ, get_config
from sat.errors import ConfigError, OutputError
from sat.labels import weak_labels
from sat.stream import chunk_samples

THREADS = 8  # files read at a time; each takes the memory of a row group, about 20 MB
SHOWN = 5  # names in one message
_CHUNK = ["recording", "chunk", "start_s", "end_s"]


@dataclass(frozen=True, eq=False)
class ChunkScores:
    """Scores of the chunks of some recordings, for some classes.

    The chunks of a recording lie together, in the order of time, and the recordings in the order they were asked for.
    """

    recordings: tuple[str, ...]
    """Names, [R]."""
    first: npt.NDArray[np.int64]
    """Where the chunks of each recording begin, and where the last one's end, [R + 1]."""
    clip: Ints
    """Of each chunk: position of its recording in `recordings`, [n]."""
    chunk: Ints
    """Number in the recording, from 0, [n]."""
    start_s: Floats
    """From the recording's start, [n]."""
    end_s: Floats
    """From the recording's start; that of the last chunk is the recording's end, [n]."""
    columns: npt.NDArray[np.int64]
    """Positions of the classes in the model's outputs, [K]."""
    scores: npt.NDArray[np.float16]
    """From 0 to 1, [n, K]."""

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self.chunk)


class Tables:
    """An output folder that has scores.

    Attributes:
        folder: Where it is, a path or a URL.
        run: What `run.json` says.
        model: Of it, what made the scores: arch, source, sha256, cut, memory ("on" or "off"), delay_s, precision,
            chunk_samples (from the start of a chunk to the start of the next, at 16 kHz) and chunk_s.
        recordings: Names of all recordings in the tables, also of those that could not be tagged.
        duration_s: Of each recording; NaN where nothing could be decoded, [R].
        chunks: Of each recording; 0 where nothing could be tagged, [R].
        statuses: Of each recording, one of `pipeline.tables.STATUSES`.
        notes: What a person should know before relying on figures made of them.
    """

    def __init__(self, out: str | Path) -> None:
        """Look at them; scores are not read yet.

        Args:
            out: Output folder, path or URL.

        Raises:
            OutputError: It is none, has no scores, has other classes than this version's, or cannot be read.
        """
        output = Output(out)
        run = output.run()
        if run is None:
            raise OutputError(f"{out} is no output folder of satpipe's: it has no run.json")
        if not run.get("identity", {}).get("scores", False):
            raise OutputError(
                f"{out} has no scores of chunks: `satpipe tag ... --scores` into another folder makes them"
            )
        _check_labels(out, run.get("labels", []))
        paths = sorted((output.folder / "recordings").glob("*.parquet"), key=lambda path: path.name)
        with ThreadPoolExecutor(_threads()) as pool:
            parts = list(pool.map(_recordings, paths))
        table = pa.concat_tables(parts) if parts else RECORDINGS.empty_table()
        self.folder, self.run, self.model = output.folder, run, _model(out, run)
        self.recordings: tuple[str, ...] = tuple(table["recording"].to_pylist())
        self.duration_s: Floats = np.array(table["duration_s"].to_numpy(), np.float64)
        self.chunks: Ints = np.array(table["chunks"].to_numpy(), np.int32)
        self.statuses: tuple[str, ...] = tuple(table["status"].to_pylist())
        self.notes = _notes(output, run)
        self._files = [path.name for path in paths]
        self._file = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        self._place = {name: number for number, name in enumerate(self.recordings)}
        if len(self._place) < len(self.recordings):
            raise OutputError(f"{out} has recordings twice, as a killed run leaves them: run `satpipe tag` again")

    def read_scores(self, recordings: Sequence[str] | None = None, columns: npt.ArrayLike | None = None) -> ChunkScores:
        """Read scores of chunks.

        Files are read a row group at a time, several at once, and only those that hold a wanted recording.

        Args:
            recordings: Names of those wanted, each once; by default all. One without chunks adds none.
            columns: Positions of the classes wanted in the model's outputs, [K]; by default all.

        Raises:
            OutputError: There is no such recording, or rows are missing, doubled or not readable.
        """
        names = self.recordings if recordings is None else tuple(recordings)
        strangers = [name for name in names if name not in self._place]
        if strangers:
            more = f" and {len(strangers) - SHOWN} more" if len(strangers) > SHOWN else ""
            raise OutputError(f"{self.folder} has no recording {', '.join(strangers[:SHOWN])}{more}")
        rows = np.array([self._place[name] for name in names], np.int64)
        chunks = self.chunks[rows]
        wanted = np.arange(CLASSES) if columns is None else np.asarray(columns, np.int64)
        first = np.concatenate([np.zeros(1, np.int64), np.cumsum(chunks, dtype=np.int64)])
        count = int(first[-1])
        read = ChunkScores(
            recordings=names,
            first=first,
            clip=np.repeat(np.arange(len(names), dtype=np.int32), chunks),
            chunk=(np.arange(count) - np.repeat(first[:-1], chunks)).astype(np.int32),
            start_s=np.empty(count),
            end_s=np.empty(count),
            columns=wanted,
            scores=np.empty((count, len(wanted)), np.float16),
        )
        filler = _Filler(read, chunks)
        paths = [self.folder / "scores" / self._files[file] for file in np.unique(self._file[rows[chunks > 0]])]
        with ThreadPoolExecutor(_threads()) as pool:
            found = sum(pool.map(filler.fill, paths))
        if found != count or not filler.filled.all():
            raise OutputError(f"{self.folder} has {found} rows of scores where {count} chunks were tagged: tag anew")
        return read


def read_scores(
    out: str | Path, recordings: Sequence[str] | None = None, columns: npt.ArrayLike | None = None
) -> ChunkScores:
    """Read scores of chunks from an output folder: see `Tables`."""
    return Tables(out).read_scores(recordings, columns)


class _Filler:
    """Puts the rows of files where they belong."""

    def __init__(self, read: ChunkScores, chunks: Ints) -> None:
        self.filled = np.zeros(len(read), bool)
        self._read = read
        self._chunks = chunks
        self._place: Mapping[str, int] = {name: number for number, name in enumerate(read.recordings)}
        self._all = np.array_equal(read.columns, np.arange(CLASSES))

    def fill(self, path: Path) -> int:
        """Take what is wanted from a file; returns how many rows."""
        count = 0
        with reading(path), path.open("rb") as file:
            table = pq.ParquetFile(file)
            if not table.schema_arrow.equals(SCORES):
                raise OutputError(f"{path} is not a table of scores as this version of satpipe writes it")
            for group in range(table.num_row_groups):
                count += self._fill_group(table, group, path)
        return count

    def _fill_group(self, table: pq.ParquetFile, group: int, path: Path) -> int:
        about = table.read_row_group(group, columns=_CHUNK)
        recording = self._recordings(about["recording"])
        rows = np.flatnonzero(recording >= 0)
        if not len(rows):
            return 0
        recording, chunk = recording[rows], about["chunk"].to_numpy()[rows]
        if np.any((chunk < 0) | (chunk >= self._chunks[recording])):
            raise OutputError(f"{path} has scores of more chunks than the recordings table")
        to = self._read.first[recording] + chunk
        self.filled[to] = True
        self._read.start_s[to] = about["start_s"].to_numpy()[rows]
        self._read.end_s[to] = about["end_s"].to_numpy()[rows]
        before = 0
        for part in table.read_row_group(group, columns=["scores"])["scores"].chunks:
            here = slice(*np.searchsorted(rows, (before, before + len(part))))
            values = part.flatten() if part.offset or part.null_count else part.values  # `values`: without a copy
            scores = values.to_numpy(zero_copy_only=False).reshape(-1, CLASSES)
            chosen = scores if here.stop - here.start == len(scores) else scores[rows[here] - before]
            self._read.scores[to[here]] = chosen if self._all else chosen[:, self._read.columns]
            before += len(part)
        return len(rows)

    def _recordings(self, column: pa.ChunkedArray) -> Ints:
        """Position of each row's recording among those wanted; -1 for none."""
        parts = [np.empty(0, np.int32)]
        for part in column.chunks:
            names = np.array([self._place.get(name, -1) for name in part.dictionary.to_pylist()], np.int32)
            parts.append(names[part.indices.to_numpy()])
        return np.concatenate(parts)


def _threads() -> int:
    return min(THREADS, os.cpu_count() or 1)


def _recordings(path: Path) -> pa.Table:
    with reading(path), path.open("rb") as file:
        return pq.read_table(file, columns=["recording", "duration_s", "chunks", "status"])


def _check_labels(out: str | Path, labels: list[dict[str, Any]]) -> None:
    """See that the scores are in the order of this version's classes."""
    theirs = [label.get("mid") for label in labels]
    ours = [label.mid for label in weak_labels()]
    if theirs == ours:
        return
    where = next((n for n, (their, our) in enumerate(zip(theirs, ours, strict=False)) if their != our), None)
    if where is None:
        raise OutputError(f"{out} has scores of {len(theirs)} classes, this version of satpipe knows {len(ours)}")
    raise OutputError(
        f"{out} has other classes than this version of satpipe: index {where} is {theirs[where]}, not {ours[where]}"
    )


def _model(out: str | Path, run: dict[str, Any]) -> dict[str, Any]:
    """What made the scores; folders of satpipe 0.1 say less, and had memory where the model has one."""
    identity, model = run["identity"], run.get("model", {})
    try:
        config = get_config(identity["arch"])
        samples = model.get("chunk_samples") or chunk_samples(config, identity["cut"])
        return {
            "arch": identity["arch"],
            "source": model.get("source"),
            "sha256": identity["model_sha256"],
            "cut": identity["cut"],
            "memory": identity.get("memory", "on" if config.streaming else "off"),
            "delay_s": identity.get("delay_s", float(config.script_chunk_s)),
            "precision": identity["precision"],
            "chunk_samples": samples,
            "chunk_s": samples / SAMPLE_RATE_HZ,
        }
    except (KeyError, TypeError, ConfigError) as error:
        raise OutputError(f"{out}: run.json does not say what made the scores: {error}") from error


def _notes(output: Output, run: dict[str, Any]) -> tuple[str, ...]:
    staged = output.count_staged()
    if "finished" in run and not staged:
        return ()
    return (f"{output.folder} is not finished: recordings may be missing; the same `satpipe tag` command continues",)
