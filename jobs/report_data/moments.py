"""Chunks worth listening to: the most certain and the most doubtful ones of each label."""

from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Floats, Ints
from satpipe.jobs.metrics.sound_events import SAME_S
from satpipe.jobs.report_data.grid import local
from satpipe.pipeline.tables.open_folder import Tables

CERTAIN, DOUBTFUL = "certain", "doubtful"
KEPT = 24  # peaks of each label that are kept while scores are read
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

    def certain(self, threshold: float) -> "Peaks":
        """Return the highest peaks of each label that reach the threshold, the highest first."""
        score = self.score.astype(np.float64)
        return self._first(-score, np.flatnonzero(score >= threshold))

    def doubtful(self, threshold: float) -> "Peaks":
        """Return the peaks of each label that are nearest to the threshold, the nearest first."""
        return self._first(np.abs(self.score.astype(np.float64) - threshold), np.arange(len(self.label)))

    def _first(self, far: Floats, rows: _Places) -> "Peaks":
        """Return the first peaks of each label among `rows`, sorted by `far`, recording and time."""
        order = rows[np.lexsort((self.start_s[rows], self.recording[rows], far[rows], self.label[rows]))]
        label = self.label[order]
        return self.take(order[np.arange(len(order)) - np.searchsorted(label, label) < KEPT])

    def of(self, label: int) -> list[_Chunk]:
        """Return the chunks of a label."""
        rows = self.take(np.flatnonzero(self.label == label))
        columns = (rows.recording, rows.start_s, rows.end_s, rows.score)
        return list(zip(*(column.tolist() for column in columns), strict=True))


NO_PEAKS = Peaks(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0), np.empty(0), np.empty(0, np.float16))


def peaks(
    found: tuple[_Places, _Places, npt.NDArray[np.float16]], recording: Ints, start_s: Floats, end_s: Floats
) -> Peaks:
    """Return the highest chunk of each run of consecutive chunks.

    Args:
        found: Chunk, class and score of the scores that are high enough for a run, sorted by class and chunk.
        recording: Of each chunk, [n]; the chunks of a recording are adjacent, in the order of time.
        start_s: Of each chunk, [n].
        end_s: Of each chunk, [n].
    """
    chunk, label, score = found
    if not len(label):
        return NO_PEAKS
    new = np.ones(len(label), bool)
    new[1:] = (np.diff(label) != 0) | (np.diff(chunk) != 1) | (np.diff(recording[chunk]) != 0)
    new[1:] |= start_s[chunk[1:]] - end_s[chunk[:-1]] > SAME_S
    first = np.flatnonzero(new)
    run = np.cumsum(new) - 1
    highest = np.flatnonzero(score == np.maximum.reduceat(score, first)[run])
    at = highest[np.searchsorted(run[highest], np.arange(len(first)))]  # the earliest if several are equal
    place = chunk[at]
    return Peaks(label[at].astype(np.int32), recording[place], start_s[place], end_s[place], score[at])


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
    """`CERTAIN` or `DOUBTFUL`."""
    label: int
    """Position in `ReportData.labels`."""
    rank: int
    """Position among the label's moments of that kind."""
    recording: str
    start_s: float
    end_s: float
    score: float
    time: np.datetime64
    """Start in local time; NaT if unknown."""
    excerpt: Excerpt = Excerpt()


def choose(
    tables: Tables, zone: ZoneInfo, certain: Peaks, doubtful: Peaks, labels: npt.NDArray[np.intp], most: int
) -> list[Moment]:
    """Choose moments of labels, from different recordings where possible; no moment is of both kinds.

    Args:
        tables: The folder.
        zone: Time zone of local times.
        certain: In order of preference, from `Peaks.certain`.
        doubtful: In order of preference.
        labels: Positions in the list of classes, in the order of the result.
        most: Maximum number of moments of each label and kind.
    """
    moments = []
    for number, label in enumerate(labels.tolist()):
        ours = _spread(certain.of(label), most)
        others = _spread([chunk for chunk in doubtful.of(label) if chunk not in ours], most)
        for kind, chosen in ((CERTAIN, ours), (DOUBTFUL, others)):
            for rank, (row, start_s, end_s, score) in enumerate(chosen):
                time = local(tables, zone, [row], [start_s])[0]
                moments.append(Moment(kind, number, rank, tables.recordings[row], start_s, end_s, score, time))
    return moments


def _spread(chunks: list[_Chunk], most: int) -> list[_Chunk]:
    """Return the first `most` chunks, from different recordings where possible."""
    first = {chunk[0]: chunk for chunk in reversed(chunks)}.values()
    chosen = sorted(chunks, key=lambda chunk: chunk not in first)[:most]
    return [chunk for chunk in chunks if chunk in chosen]
