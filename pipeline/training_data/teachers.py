"""Pseudo strong labels (paper section 4.4): a teacher's scores of the segments of a training set, in Parquet.

psl.json                       teacher, clips and options of the segments
psl-00000-of-00012.parquet     schemas.SEGMENTS, one file for each shard of clips
chunks-00000-of-00012.parquet  the same schema, if chunks are labelled: a row for each stretch that the teacher heard
                               for the label of its last chunk, the chunk itself and its context
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from satpipe.pipeline.storage import written_whole
from satpipe.pipeline.tables.schemas import SEGMENTS
from satpipe.pipeline.training_data.columns import Lists, Names
from satpipe.pipeline.training_data.segments import SegmentOptions, chunk_spans, segment_starts_s
from satpipe.pipeline.training_data.shards import Shards, numbered_files
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import CLASSES
from satpipe.sat.model.device import device_named
from satpipe.sat.model.finite import check_finite
from satpipe.sat.taggers.interface import CPU, Tagger
from satpipe.sat.weights.registry import resolve
from torch import Tensor

_SCORE = 4  # column in a file of labels
BATCH_SEGMENTS, GPU_BATCH_SEGMENTS = 16, 256
PREFIX, CHUNK_PREFIX = "psl", "chunks"  # of the names of files


@lru_cache(maxsize=1)
def load_teacher(model: str, device: torch.device = CPU) -> Tagger:
    """Load any tagger as a teacher; a streaming one labels a segment with the mean scores over its chunks.

    Raises:
        CheckpointError: Its weights cannot be used.
        ConfigError: The tagger does not exist.
    """
    return resolve(model).tagger(device=device)


def label_shard(
    folder: str, shard: int, teacher_path: str, options: SegmentOptions, location: Path, device: str = "auto"
) -> int:
    """Label the clips of one shard with a teacher, on a worker; return the number of segments.

    Labels of chunks, if `options` ask for them, are written to a file beside `location` first.
    """
    shards = Shards(folder, only=shard)
    teacher = load_teacher(teacher_path, device_named(device))
    numbers = np.arange(len(shards))
    audio = shards.audio(numbers)
    segments, chunks = _Labels(teacher), _Labels(teacher)
    for number in numbers.tolist():
        waveform = torch.from_numpy(shards.decode(number, audio[number], teacher.rate_hz))
        known: set[tuple[int, int]] = set()
        for start_s in segment_starts_s(len(waveform) / teacher.rate_hz, options):
            segments.add(shards.clips[number], waveform, start_s, options.piece_s)
            for span_s in options.chunk_spans_s(start_s):
                span_ms = _milliseconds(span_s)
                if span_ms not in known:  # overlapping segments share chunks
                    known.add(span_ms)
                    chunks.add(shards.clips[number], waveform, *span_s)
    if options.chunks:
        chunks.write(location.with_name(location.name.replace(PREFIX, CHUNK_PREFIX, 1)), options)
    return segments.write(location, options)


def _milliseconds(span_s: tuple[float, float]) -> tuple[int, int]:
    """Return the start and the length of a span in whole milliseconds."""
    return round(span_s[0] * 1000), round(span_s[1] * 1000)


class _Labels:
    """A teacher's scores of stretches of clips, of any lengths; those of one length are scored in batches."""

    def __init__(self, teacher: Tagger) -> None:
        self._teacher = teacher
        self._at_once = GPU_BATCH_SEGMENTS if teacher.device.type == "cuda" else BATCH_SEGMENTS
        self._clips: list[str] = []
        self._spans_s: list[tuple[float, float]] = []  # start and length of each stretch
        self._waiting: dict[int, dict[int, Tensor]] = {}  # stretches to score: by length in samples, by number
        self._scores: dict[int, npt.NDArray[np.float32]] = {}

    def add(self, clip: str, waveform: Tensor, start_s: float, length_s: float) -> None:
        """Add a stretch of a clip; past the clip's end, it is padded with silence."""
        rate_hz = self._teacher.rate_hz
        length, start = int(length_s * rate_hz), int(start_s * rate_hz)
        stretch = waveform[start : start + length]
        waiting = self._waiting.setdefault(length, {})
        waiting[len(self._clips)] = torch.nn.functional.pad(stretch, (0, length - len(stretch)))
        self._clips.append(clip)
        self._spans_s.append((start_s, length_s))
        if len(waiting) == self._at_once:
            self._score(waiting)

    def write(self, location: Path, options: SegmentOptions) -> int:
        """Write the table of all stretches in the order in which they were added; return their number."""
        for waiting in self._waiting.values():
            if waiting:
                self._score(waiting)
        together = np.stack([self._scores[number] for number in range(len(self._clips))])
        check_finite(
            torch.from_numpy(together),
            self._teacher.model,
            lambda row: f"{self._clips[row]}, second {self._spans_s[row][0]:.2f}",
        )
        starts_s, lengths_s = zip(*self._spans_s, strict=True)
        table = segment_table(self._clips, starts_s, together, options, lengths_s=lengths_s)
        with written_whole(location) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return len(table)

    def _score(self, waiting: dict[int, Tensor]) -> None:
        scores = self._teacher.scores(torch.stack(list(waiting.values()))).numpy()
        self._scores |= dict(zip(waiting, scores, strict=True))
        waiting.clear()


def segment_table(
    clips: list[str], starts_s: Sequence[float], scores: npt.NDArray[np.float32], options: SegmentOptions,
    above: float = -1.0, lengths_s: Sequence[float] = (),
) -> pa.Table:  # fmt: skip
    """Return a table of schemas.SEGMENTS with the highest scores of each segment that are above a limit.

    Shape:
        names [P], seconds [P], scores [P, 527]; lengths in seconds [P], by default those of `options`
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, : options.top_k]
    values = np.take_along_axis(scores, order, axis=1)
    kept = (values >= options.min_score) & (values > above)  # highest first: a prefix of each row
    offsets = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
    index = pa.ListArray.from_arrays(offsets, pa.array(order[kept].astype(np.int16)))
    score = pa.ListArray.from_arrays(offsets, pa.array(values[kept].astype(np.float32)))
    start = np.array(starts_s, np.float32)
    end = start + np.array(lengths_s or options.piece_s, np.float32)
    return pa.table([clips, start, end, index, score], schema=SEGMENTS)


def from_table(path: Path, clips: set[str], where: tuple[tuple[str, str], ...] = ()) -> tuple[pa.Table, list[str]]:
    """Read a teacher's table of scores.

    Args:
        path: A Parquet file or folder with columns clip (or path), start_s, end_s, index and score.
        clips: Names of the clips wanted.
        where: (column, value) pairs that rows must have.

    Returns:
        A table of schemas.SEGMENTS for the clips wanted, and the names of wanted clips that it does not contain.

    Raises:
        ConfigError: The table cannot be read, has other columns, or contains none of the clips.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{path} is not a readable Parquet table: {error}") from error
    if "clip" not in table.column_names and "path" in table.column_names:
        table = table.rename_columns(["clip" if name == "path" else name for name in table.column_names])
    missing = [name for name in (*SEGMENTS.names, *(name for name, _ in where)) if name not in table.column_names]
    if missing:
        raise ConfigError(f"{path} has no column {' or '.join(missing)}; it has {', '.join(table.column_names)}")
    for name, value in where:
        table = table.filter(pc.equal(pc.cast(table[name], pa.string()), value))
    table = table.select(SEGMENTS.names).cast(SEGMENTS)
    known = set(table["clip"].to_pylist())
    if not known & clips:
        raise ConfigError(f"{path} and the training set have no clip in common: {_example(known)}, {_example(clips)}")
    return table.filter(pc.is_in(table["clip"], pa.array(sorted(clips)))), sorted(clips - known)


def _example(names: set[str]) -> str:
    return repr(min(names)) if names else "nothing"


class _SoftLabels:
    """The rows of the files of one kind in folders of labels.

    Attributes:
        numbers: Number of each row's clip in the training set, [R].
        starts_s: Start of each row, [R].
        ends_s: End of each row, [R].
    """

    def __init__(self, folder: str, prefix: str, command: str, shards: Shards) -> None:
        files = numbered_files(folder, prefix, command)
        names, starts_s, ends_s, lengths = [], [], [], []
        sizes = [pq.read_metadata(file) for file in files]
        room = sum(part.row_group(n).column(_SCORE).num_values for part in sizes for n in range(part.num_row_groups))
        values, self._score, end = np.empty(room, np.int16), np.empty(room, np.float32), 0
        for file in files:
            table = pq.read_table(file).combine_chunks()
            index, score = (table[name].combine_chunks().flatten().to_numpy() for name in ("index", "score"))
            values[end : end + len(index)], self._score[end : end + len(score)] = index, score
            end += len(index)
            names.append(table["clip"].combine_chunks())
            starts_s.append(table["start_s"].to_numpy())
            ends_s.append(table["end_s"].to_numpy())
            lengths.append(np.asarray(pc.list_value_length(table["index"].combine_chunks())))
        given = Names(names)
        self.numbers = shards.clips.places(given)
        unknown = np.flatnonzero(self.numbers < 0)
        if len(unknown):
            apart = sorted({given[place] for place in unknown.tolist()})
            raise ConfigError(
                f"{folder} has labels of {len(apart):,} clips that are not in {shards.folder}, such as "
                f"{apart[0]!r}: the two do not belong together"
            )
        self.starts_s, self.ends_s = np.concatenate(starts_s), np.concatenate(ends_s)
        self._lists = Lists(np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)]), values[:end])
        if end and not 0 <= values[:end].min() <= values[:end].max() < CLASSES:
            raise ConfigError(f"{folder} has classes beyond the model's {CLASSES}")

    def __len__(self) -> int:
        return len(self.numbers)

    def labels(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the soft labels of rows by number.

        Shape:
            [n] -> [n, 527]
        """
        dense = np.zeros((len(rows), CLASSES), np.float32)
        offsets = self._lists.offsets
        for place, row in enumerate(rows):
            span = slice(offsets[row], offsets[row + 1])
            dense[place, self._lists.values[span]] = self._score[span]
        return dense

    def class_sums(self) -> npt.NDArray[np.float64]:
        """Return the sum of each class's scores over all rows, a measure of its frequency, [527]."""
        return self._lists.counts(self._score, classes=CLASSES)

    def weighted_sums(self, of: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the sum of each row's scores, each times the value that `of` [527] has for its class, [R]."""
        return self._lists.sums(of, self._score)


class Segments(_SoftLabels):
    """The labelled segments of a training set, one per row.

    Attributes:
        segment_s: Length of the segments.
    """

    def __init__(self, folder: str | Path, shards: Shards) -> None:
        """Read the labels.

        Args:
            folder: Folder of the labels; or several, separated by commas.
            shards: The training set that they belong to.

        Raises:
            ConfigError: The labels do not exist, are incomplete, or belong to other clips.
        """
        super().__init__(str(folder), PREFIX, "satpipe psl", shards)
        self.segment_s = float(self.ends_s[0] - self.starts_s[0]) if len(self) else 0.0


class ChunkLabels:
    """The labels of the chunks of labelled segments, each with the chunks before it that the teacher heard."""

    def __init__(
        self, folder: str | Path, shards: Shards, segments: Segments, *, chunk_s: float, chunks: int,
        context_chunks: int,
    ) -> None:  # fmt: skip
        """Read the labels.

        Args:
            folder: Folder of the labels of `segments`; or several, separated by commas.
            shards: The training set that they belong to.
            segments: The segments, each of which begins with its chunks.
            chunk_s: Length of a chunk.
            chunks: Number of chunks of a segment.
            context_chunks: Number of earlier chunks of the segment that the teacher heard with a chunk.

        Raises:
            ConfigError: The labels do not exist, or are of other chunks.
        """
        command = f"satpipe psl --piece-s {segments.segment_s:.5g} --chunk-s {chunk_s:g}"
        command += f" --context-chunks {context_chunks}"
        self._rows = _SoftLabels(str(folder), CHUNK_PREFIX, command, shards)
        known = _keys(self._rows.numbers, self._rows.starts_s, self._rows.ends_s)
        order = np.argsort(known)
        spans = np.array(chunk_spans(chunks, context_chunks)) * chunk_s  # [N, 2]
        begins, ends = (segments.starts_s[:, None] + spans[:, side] for side in (0, 1))
        wanted = _keys(segments.numbers[:, None], begins, ends)  # [P, N]
        places = np.searchsorted(known, wanted, sorter=order).clip(max=max(0, len(known) - 1))
        self._of_segment = order[places] if len(known) else places
        lacking = (known[self._of_segment] != wanted).any(1) if len(known) else np.ones(len(segments), bool)
        if lacking.any():
            first = int(np.argmax(lacking))
            raise ConfigError(
                f"{folder} has no labels of the chunks of {lacking.sum():,} segments, such as "
                f"{shards.clips[segments.numbers[first]]}, second {segments.starts_s[first]:g}, with {context_chunks} "
                f"chunks before: make them with `{command}`"
            )

    def labels(self, segments: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the soft labels of the N chunks of segments by number.

        Shape:
            [n] -> [n, N, 527]
        """
        rows = self._of_segment[segments]
        return self._rows.labels(rows.reshape(-1)).reshape(*rows.shape, CLASSES)


def _keys(
    numbers: npt.NDArray[np.int64], starts_s: npt.NDArray[np.floating], ends_s: npt.NDArray[np.floating]
) -> npt.NDArray[np.int64]:
    """Return a number for each clip, start and end, in milliseconds; clips are shorter than 1000 s."""
    start, end = (np.rint(np.asarray(side, np.float64) * 1000).astype(np.int64) for side in (starts_s, ends_s))
    keys: npt.NDArray[np.int64] = (numbers * 10**6 + start) * 10**6 + end
    return keys
