"""Chunks worth listening to: where a label is most certain, and where it could as well not be there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.sound_events import SAME_S, Floats, Ints

CERTAIN, DOUBTFUL = "certain", "doubtful"
KEPT = 24  # of each label while scores are read
_Places = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Peaks:
    """The highest chunks of runs of chunks."""

    label: Ints
    """Position in the list of classes, [n]."""
    recording: Ints
    """Position in `Tables.recordings`, [n]."""
    start_s: Floats
    """From the recording's start, [n]."""
    end_s: Floats
    """From the recording's start, [n]."""
    score: npt.NDArray[np.float16]
    """[n]."""

    def __len__(self) -> int:
        """How many."""
        return len(self.label)

    def take(self, rows: npt.NDArray[np.intp]) -> "Peaks":
        """Return some of them, by position."""
        return Peaks(*(column[rows] for column in vars(self).values()))

    @staticmethod
    def together(parts: Sequence["Peaks"]) -> "Peaks":
        """Return those of several parts."""
        return Peaks(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))

    def certain(self, threshold: float) -> "Peaks":
        """Return the highest of each label that reach the threshold, the highest first."""
        far = -self.score.astype(np.float64)
        return self.take(self._first(far, np.flatnonzero(self.score.astype(np.float64) >= threshold)))

    def doubtful(self, threshold: float) -> "Peaks":
        """Return those of each label that are nearest to the threshold, the nearest first."""
        far = np.abs(self.score.astype(np.float64) - threshold)
        return self.take(self._first(far, np.arange(len(self))))

    def _first(self, far: Floats, rows: _Places) -> _Places:
        """Positions of the first of each label among some: those with the least value, then the earliest."""
        order = rows[np.lexsort((self.start_s[rows], self.recording[rows], far[rows], self.label[rows]))]
        label = self.label[order]
        return order[np.arange(len(order)) - np.searchsorted(label, label) < KEPT]


def peaks(
    found: tuple[_Places, _Places, npt.NDArray[np.float16]], recording: Ints, start_s: Floats, end_s: Floats
) -> Peaks:
    """Return the highest chunk of each run of consecutive chunks.

    Args:
        found: Chunk, class and score of what reaches the level that makes a run, sorted by class and chunk.
        recording: Of each chunk, [n]; chunks of a recording lie together, in the order of time.
        start_s: Of each chunk, [n].
        end_s: Of each chunk, [n].
    """
    chunk, label, score = found
    new = np.ones(len(label), bool)
    new[1:] = (np.diff(label) != 0) | (np.diff(chunk) != 1) | (np.diff(recording[chunk]) != 0)
    new[1:] |= start_s[chunk[1:]] - end_s[chunk[:-1]] > SAME_S
    first = np.flatnonzero(new)
    run = np.cumsum(new) - 1
    highest = np.flatnonzero(score == np.maximum.reduceat(score, first)[run]) if len(first) else first
    at = highest[np.searchsorted(run[highest], np.arange(len(first)))]  # of several that are equal, the earliest
    place = chunk[at]
    return Peaks(label[at].astype(np.int32), recording[place], start_s[place], end_s[place], score[at])


@dataclass(frozen=True)
class Spot:
    """A moment that was chosen."""

    kind: str
    label: int
    """Rank of its label."""
    rank: int
    """Among the label's moments of that kind."""
    recording: int
    """Position in `Tables.recordings`."""
    start_s: float
    end_s: float
    score: float


def choose(certain: Peaks, doubtful: Peaks, labels: npt.NDArray[np.intp], most: int) -> list[Spot]:
    """Choose moments of labels: of each kind so many, from different recordings as far as there are.

    Args:
        certain: In order of preference, as `Peaks.certain` gives them.
        doubtful: In order of preference.
        labels: Positions in the list of classes, in the order wanted.
        most: Moments of each label and kind.
    """
    spots = []
    for rank, label in enumerate(labels):
        ours = _spread(certain.take(np.flatnonzero(certain.label == label)), most)
        others = doubtful.take(np.flatnonzero(doubtful.label == label))
        taken = {(peak.recording, peak.start_s) for peak in _rows(ours)}
        free = [n for n, peak in enumerate(_rows(others)) if (peak.recording, peak.start_s) not in taken]
        theirs = _spread(others.take(np.array(free, np.intp)), most)
        for kind, chosen in ((CERTAIN, ours), (DOUBTFUL, theirs)):
            spots += [replace(spot, kind=kind, label=rank) for spot in _rows(chosen)]
    return spots


def _rows(peaks: Peaks) -> list[Spot]:
    columns = (peaks.recording, peaks.start_s, peaks.end_s, peaks.score)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Spot("", 0, rank, *row) for rank, row in enumerate(rows)]


def _spread(peaks: Peaks, most: int) -> Peaks:
    """Return the first ones, but from different recordings as far as there are."""
    first = np.sort(np.unique(peaks.recording, return_index=True)[1])
    others = np.setdiff1d(np.arange(len(peaks)), first)
    return peaks.take(np.sort(np.concatenate([first, others])[:most]))
