"""Pseudo strong labels (paper section 4.4): a teacher's scores of the segments of a training set, in Parquet.

psl.json                    teacher, clips and options of the segments
psl-00000-of-00012.parquet  schemas.SEGMENTS, one file for each shard of clips
"""

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
from satpipe.pipeline.training_data.segments import SegmentOptions, segment_starts_s
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
    """Label the clips of one shard with a teacher, on a worker; return the number of segments."""
    shards = Shards(folder, only=shard)
    teacher = load_teacher(teacher_path, device_named(device))
    at_once = GPU_BATCH_SEGMENTS if teacher.device.type == "cuda" else BATCH_SEGMENTS
    numbers = np.arange(len(shards))
    audio = shards.audio(numbers)
    length = int(options.piece_s * teacher.rate_hz)
    clips: list[str] = []
    starts_s: list[float] = []
    segments: list[Tensor] = []
    scores: list[npt.NDArray[np.float32]] = []
    for number in numbers.tolist():
        waveform = torch.from_numpy(shards.decode(number, audio[number], teacher.rate_hz))
        for start_s in segment_starts_s(len(waveform) / teacher.rate_hz, options):
            start = int(start_s * teacher.rate_hz)
            segment = waveform[start : start + length]
            segments.append(torch.nn.functional.pad(segment, (0, length - len(segment))))
            clips.append(shards.clips[number])
            starts_s.append(start_s)
        while len(segments) >= at_once:
            scores.append(teacher.scores(torch.stack(segments[:at_once])).numpy())
            segments = segments[at_once:]
    if segments:
        scores.append(teacher.scores(torch.stack(segments)).numpy())
    together = np.concatenate(scores)
    check_finite(torch.from_numpy(together), teacher.model, lambda row: f"{clips[row]}, second {starts_s[row]:.2f}")
    table = segment_table(clips, starts_s, together, options)
    with written_whole(location) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return len(table)


def segment_table(
    clips: list[str], starts_s: list[float], scores: npt.NDArray[np.float32], options: SegmentOptions,
    above: float = -1.0,
) -> pa.Table:  # fmt: skip
    """Return a table of schemas.SEGMENTS with the highest scores of each segment that are above a limit.

    Shape:
        names [P], seconds [P], scores [P, 527]
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, : options.top_k]
    values = np.take_along_axis(scores, order, axis=1)
    kept = (values >= options.min_score) & (values > above)  # highest first: a prefix of each row
    offsets = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
    index = pa.ListArray.from_arrays(offsets, pa.array(order[kept].astype(np.int16)))
    score = pa.ListArray.from_arrays(offsets, pa.array(values[kept].astype(np.float32)))
    start = np.array(starts_s, np.float32)
    return pa.table([clips, start, start + np.float32(options.piece_s), index, score], schema=SEGMENTS)


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


class Segments:
    """The labelled segments of a training set.

    Attributes:
        numbers: Number of each segment's clip in the training set, [P].
        starts_s: Start of each segment, [P].
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
        files = numbered_files(str(folder), "psl", "satpipe psl")
        names, starts_s, lengths = [], [], []
        sizes = [pq.read_metadata(file) for file in files]
        room = sum(part.row_group(n).column(_SCORE).num_values for part in sizes for n in range(part.num_row_groups))
        values, self._score, end = np.empty(room, np.int16), np.empty(room, np.float32), 0
        self.segment_s = 0.0
        for file in files:
            table = pq.read_table(file).combine_chunks()
            index, score = (table[name].combine_chunks().flatten().to_numpy() for name in ("index", "score"))
            values[end : end + len(index)], self._score[end : end + len(score)] = index, score
            end += len(index)
            names.append(table["clip"].combine_chunks())
            starts_s.append(table["start_s"].to_numpy())
            lengths.append(np.asarray(pc.list_value_length(table["index"].combine_chunks())))
            if not self.segment_s and len(table):
                self.segment_s = float(table["end_s"][0].as_py() - table["start_s"][0].as_py())
        given = Names(names)
        self.numbers = shards.clips.places(given)
        unknown = np.flatnonzero(self.numbers < 0)
        if len(unknown):
            apart = sorted({given[place] for place in unknown.tolist()})
            raise ConfigError(
                f"{folder} has labels of {len(apart):,} clips that are not in {shards.folder}, such as "
                f"{apart[0]!r}: the two do not belong together"
            )
        self.starts_s = np.concatenate(starts_s)
        self._lists = Lists(np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)]), values[:end])
        if end and not 0 <= values[:end].min() <= values[:end].max() < CLASSES:
            raise ConfigError(f"{folder} has classes beyond the model's {CLASSES}")

    def __len__(self) -> int:
        return len(self.numbers)

    def labels(self, segments: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the soft labels of segments by number.

        Shape:
            [n] -> [n, 527]
        """
        dense = np.zeros((len(segments), CLASSES), np.float32)
        offsets = self._lists.offsets
        for row, segment in enumerate(segments):
            span = slice(offsets[segment], offsets[segment + 1])
            dense[row, self._lists.values[span]] = self._score[span]
        return dense

    def class_sums(self) -> npt.NDArray[np.float64]:
        """Return the sum of each class's scores over all segments, a measure of its frequency, [527]."""
        return self._lists.counts(self._score, classes=CLASSES)

    def weighted_sums(self, of: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the sum of each segment's scores, each times the value that `of` [527] has for its class, [P]."""
        return self._lists.sums(of, self._score)
