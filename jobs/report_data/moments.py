"""Chunks worth listening to: the most certain ones of each label, and some that score near each threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Floats, Ints
from satpipe.jobs.report_data.grid import local_time
from satpipe.pipeline.tables.open_folder import Tables

CERTAIN, NEAR = "certain", "near"
KEPT = 24  # highest peaks of each label that are kept while scores are read
NEIGHBOURS = 3  # chunks before and after a peak that do not score higher
_BINS = 50  # of scores, in each of which some peaks of each label are kept
_KEPT_IN_BIN = 2
_Places = npt.NDArray[np.intp]
_Chunk = tuple[int, float, float, float]  # recording, start, end, score


@dataclass(frozen=True, eq=False)
class Peaks:
    """The chunk with the highest score in each run of chunks, [n] each."""

    label: Ints
    """Position in the list of classes."""
    recording: Ints
    """Position in `Tables.recordings`."""
    start_s: Floats
    end_s: Floats
    score: npt.NDArray[np.float16]

    def take(self, rows: npt.NDArray[np.intp]) -> "Peaks":
        """Return the peaks at these positions."""
        return Peaks(*(column[rows] for column in vars(self).values()))

    @staticmethod
    def together(parts: Sequence["Peaks"]) -> "Peaks":
        """Return the peaks of several parts."""
        return Peaks(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))

    def certain(self) -> "Peaks":
        """Return the highest peaks of each label, the highest first."""
        order = np.lexsort((self.start_s, self.recording, -self.score, self.label))
        label = self.label[order]
        return self.take(order[np.arange(len(order)) - np.searchsorted(label, label) < KEPT])

    def spread(self) -> "Peaks":
        """Return some peaks of each label from all over the range of scores, so that some are near any threshold.

        Which ones is left to chance, but the same for the same tables.
        """
        step = np.minimum(self.score.astype(np.float64) * _BINS, _BINS - 1).astype(np.int32)
        mixed = (self.recording.astype(np.uint64) << np.uint64(32)) + (1000 * self.start_s).astype(np.uint64)
        mixed = (mixed + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio
        order = np.lexsort((mixed >> np.uint64(20), step, self.label))
        key = self.label[order].astype(np.int64) * _BINS + step[order]
        return self.take(order[np.arange(len(order)) - np.searchsorted(key, key) < _KEPT_IN_BIN])

    def of(self, label: int) -> list[_Chunk]:
        """Return the chunks of a label."""
        rows = self.take(np.flatnonzero(self.label == label))
        columns = (rows.recording, rows.start_s, rows.end_s, rows.score)
        return list(zip(*(column.tolist() for column in columns), strict=True))


NO_PEAKS = Peaks(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0), np.empty(0), np.empty(0, np.float16))


def peaks(
    found: tuple[_Places, _Places, npt.NDArray[np.float16]], recording: Ints, start_s: Floats, end_s: Floats
) -> Peaks:
    """Return the chunks that score highest among themselves and `NEIGHBOURS` chunks before and after.

    Args:
        found: Chunk, class and score of the scores that count, sorted by class and chunk.
        recording: Of each chunk, [n]; the chunks of a recording are adjacent, in the order of time.
        start_s: Of each chunk, [n].
        end_s: Of each chunk, [n].
    """
    chunk, label, score = found
    high = np.ones(len(label), bool)
    for step in range(1, NEIGHBOURS + 1):
        first, second = slice(None, -step), slice(step, None)
        near = (label[first] == label[second]) & (chunk[second] - chunk[first] <= NEIGHBOURS)
        near &= recording[chunk[first]] == recording[chunk[second]]
        high[first] &= ~(near & (score[second] > score[first]))
        high[second] &= ~(near & (score[first] >= score[second]))  # of equal ones, the earliest
    place = chunk[high]
    return Peaks(label[high].astype(np.int32), recording[place], start_s[place], end_s[place], score[high])


@dataclass(frozen=True)
class Excerpt:
    """The sound of a moment."""

    audio: bytes | None = None
    """MP3; None without sound."""
    start_s: float = 0.0
    """Start in the recording."""
    silent: str = ""
    """Reason why the sound is missing; "" if it is not missing, or was not requested."""


@dataclass(frozen=True, eq=False)
class Moment:
    """One chunk worth listening to."""

    kind: str
    """`CERTAIN`: one of the highest scores of its label; `NEAR`: near one of the levels."""
    label: int
    """Position in `ReportData.labels`."""
    rank: int
    """Position among the label's moments of that kind: of the certain ones by score, of the others by the distance of
    their level from the threshold."""
    recording: str
    start_s: float
    end_s: float
    score: float
    time: np.datetime64
    """Start in local time; NaT if unknown."""
    excerpt: Excerpt = Excerpt()


def choose(
    tables: Tables,
    zone: ZoneInfo,
    certain: Peaks,
    near: Peaks,
    labels: npt.NDArray[np.intp],
    levels: Sequence[float],
    most: int,
) -> list[Moment]:
    """Choose moments of labels, from different recordings where possible; no moment is of both kinds.

    Args:
        tables: The folder.
        zone: Time zone of local times.
        certain: In order of preference, from `Peaks.certain`.
        near: From `Peaks.spread`.
        labels: Positions in the list of targets, in the order of the result.
        levels: Thresholds that the page offers, the most important first.
        most: Maximum number of moments of each label that are certain, or near each level.
    """
    moments = []
    for number, label in enumerate(labels.tolist()):
        ours = _spread(certain.of(label), most)
        others: dict[_Chunk, None] = {}
        left = [chunk for chunk in near.of(label) if chunk not in ours]
        for level in levels:
            closest = sorted(left, key=lambda chunk: abs(chunk[3] - level))[: 2 * most]
            others.update(dict.fromkeys(_spread(closest, most)))
        for kind, chosen in ((CERTAIN, ours), (NEAR, list(others))):
            for rank, (row, start_s, end_s, score) in enumerate(chosen):
                time = local_time(tables, zone, [row], [start_s])[0]
                moments.append(Moment(kind, number, rank, tables.recordings[row], start_s, end_s, score, time))
    return moments


def _spread(chunks: list[_Chunk], most: int) -> list[_Chunk]:
    """Return the first `most` chunks, from different recordings where possible."""
    first = {chunk[0]: chunk for chunk in reversed(chunks)}.values()
    chosen = sorted(chunks, key=lambda chunk: chunk not in first)[:most]
    return [chunk for chunk in chunks if chunk in chosen]
