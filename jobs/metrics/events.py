"""Sound events as columns, and the way from chunk scores to events.

Clips and classes are numbers here: positions in the list of clips evaluated and in the class set.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Events:
    """Sound events of many clips, true ones or found ones: one entry of each column for each event."""

    clip: Ints
    """Position in the list of clips, [n]."""
    label: Ints
    """Position in the class set, [n]."""
    onset_s: Floats
    """From the clip's start, [n]."""
    offset_s: Floats
    """From the clip's start, at or after the onset, [n]."""

    def __len__(self) -> int:
        """Number of events."""
        return len(self.clip)

    @staticmethod
    def of(clip: Any, label: Any, onset_s: Any, offset_s: Any) -> "Events":
        """Make events from anything that becomes four columns."""
        return Events(
            np.asarray(clip, np.int32),
            np.asarray(label, np.int32),
            np.asarray(onset_s, np.float64),
            np.asarray(offset_s, np.float64),
        )

    def take(self, rows: npt.NDArray[Any]) -> "Events":
        """Return some events: by a boolean mask [n], or by position."""
        return Events(self.clip[rows], self.label[rows], self.onset_s[rows], self.offset_s[rows])

    def sorted(self) -> "Events":
        """Return them by clip, class, onset and offset."""
        return self.take(np.lexsort((self.offset_s, self.onset_s, self.label, self.clip)))

    def merged(self, *, touching: bool = True) -> "Events":
        """Return them, sorted, with events of one class in one clip made one where they overlap, or touch if asked."""
        events = self.sorted()
        if not len(events):
            return events
        group = np.empty(len(events), np.int64)  # one number for each (clip, class)
        changes = (np.diff(events.clip) != 0) | (np.diff(events.label) != 0)
        group[0], group[1:] = 0, np.cumsum(changes)
        # The latest offset so far within the group, by ranks: those of a later group are higher.
        order = np.lexsort((events.offset_s, group))
        rank = np.empty(len(events), np.int64)
        rank[order] = np.arange(len(events))
        latest = events.offset_s[order[np.maximum.accumulate(rank)]]
        starts = np.ones(len(events), bool)
        apart = np.greater if touching else np.greater_equal
        starts[1:] = changes | apart(events.onset_s[1:], latest[:-1])
        first = np.flatnonzero(starts)
        last = np.append(first[1:], len(events)) - 1
        return Events(events.clip[first], events.label[first], events.onset_s[first], latest[last])


def least(threshold: float | npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the least number of a floating-point type that reaches the threshold: 0.3 is none in half precision."""
    exact = np.asarray(threshold, np.float64)
    rounded = exact.astype(dtype)
    return np.where(rounded < exact, np.nextafter(rounded, np.asarray(np.inf, dtype)), rounded)


def detect(
    clip: Ints, start_s: Floats, end_s: Floats, scores: npt.NDArray[Any], threshold: float | npt.NDArray[Any]
) -> Events:
    """Return the events that scores of consecutive chunks make: runs of chunks that reach the threshold.

    Args:
        clip: Of each chunk, [n]; chunks of a clip lie together, in the order of time.
        start_s: Of each chunk, [n].
        end_s: Of each chunk, [n]: the start of the next one, if there is one in the clip.
        scores: Of each chunk and class, [n, K].
        threshold: Least score of an active chunk: one, or one for each class [K].
    """
    label, chunk = np.nonzero((scores >= least(threshold, scores.dtype)).T)
    if not len(label):
        return Events.of([], [], [], [])
    new = np.ones(len(label), bool)
    new[1:] = (np.diff(label) != 0) | (np.diff(chunk) != 1) | (np.diff(clip[chunk]) != 0)
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(label)) - 1
    return Events.of(clip[chunk[first]], label[first], start_s[chunk[first]], end_s[chunk[last]]).sorted()
