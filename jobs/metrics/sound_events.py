"""Sound events as columns, and the way from chunk scores to events.

Clips and classes are numbers here: positions in the list of clips evaluated and in the class set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
SAME_S = 1e-9  # times that differ by less are equal


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


def rounded_up(threshold: float | npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the least number of a floating-point type that reaches the threshold: 0.3 is none in half precision."""
    exact = np.asarray(threshold, np.float64)
    rounded = exact.astype(dtype)
    return np.where(rounded < exact, np.nextafter(rounded, np.asarray(np.inf, dtype)), rounded)


@dataclass(frozen=True, eq=False)
class Runs:
    """Events made of chunks, and the scores of those chunks that reached a level. Two of a class do not overlap."""

    events: Events
    """Sorted by clip, class and onset, [n]."""
    peak: npt.NDArray[Any]
    """Highest score, as precise as the scores were, [n]."""
    total: Floats
    """Sum of the scores, [n]."""
    chunks: Ints
    """How many scores that is, [n]."""

    def __len__(self) -> int:
        """Number of events."""
        return len(self.chunks)

    def take(self, rows: npt.NDArray[Any]) -> "Runs":
        """Return some of them: by a boolean mask [n], or by rising positions."""
        return Runs(self.events.take(rows), self.peak[rows], self.total[rows], self.chunks[rows])

    @staticmethod
    def together(parts: Sequence["Runs"]) -> "Runs":
        """Return the runs of several parts of some clips."""
        columns = ((*vars(part.events).values(), part.peak, part.total, part.chunks) for part in parts)
        clip, label, onset_s, offset_s, *scores = map(np.concatenate, zip(*columns, strict=True))
        order = np.lexsort((onset_s, label, clip))
        return Runs(Events(clip, label, onset_s, offset_s), *scores).take(order)

    def joined(self, gap_s: float = 0.0) -> "Runs":
        """Return them with those of one class in one clip made one between which no more than a gap lies."""
        events = self.events
        if not len(events):
            return self
        starts = np.ones(len(events), bool)
        starts[1:] = (np.diff(events.clip) != 0) | (np.diff(events.label) != 0)
        starts[1:] |= events.onset_s[1:] - events.offset_s[:-1] > gap_s + SAME_S
        first = np.flatnonzero(starts)
        last = np.append(first[1:], len(events)) - 1
        return Runs(
            Events(events.clip[first], events.label[first], events.onset_s[first], events.offset_s[last]),
            np.maximum.reduceat(self.peak, first),
            np.add.reduceat(self.total, first),
            np.add.reduceat(self.chunks, first),
        )

    def lasting(self, min_s: float) -> "Runs":
        """Return those that last so long."""
        return self.take(self.events.offset_s - self.events.onset_s >= min_s - SAME_S)


def find_runs(
    clip: Ints, start_s: Floats, end_s: Floats, scores: npt.NDArray[Any], level: float | npt.NDArray[Any]
) -> Runs:
    """Return the runs of consecutive chunks that reach a level.

    Args:
        clip: Of each chunk, [n]; chunks of a clip lie together, in the order of time.
        start_s: Of each chunk, [n].
        end_s: Of each chunk, [n]: the start of the next one, unless some are missing in between.
        scores: Of each chunk and class, [n, K].
        level: Least score: one, or one for each class [K].
    """
    chunk, label, values = reaching(scores, rounded_up(level, scores.dtype))
    new = np.ones(len(label), bool)
    new[1:] = (np.diff(label) != 0) | (np.diff(chunk) != 1) | (np.diff(clip[chunk]) != 0)
    new[1:] |= start_s[chunk[1:]] - end_s[chunk[:-1]] > SAME_S
    first = np.flatnonzero(new)
    stop = np.append(first, len(label))[1:]
    order = np.lexsort((chunk[first], label[first], clip[chunk[first]]))
    return Runs(
        Events.of(clip[chunk[first]], label[first], start_s[chunk[first]], end_s[chunk[stop - 1]]),
        np.maximum.reduceat(values, first),
        np.add.reduceat(values, first, dtype=np.float64),
        (stop - first).astype(np.int32),
    ).take(order)


def detect(
    clip: Ints, start_s: Floats, end_s: Floats, scores: npt.NDArray[Any], threshold: float | npt.NDArray[Any]
) -> Events:
    """Return the events that scores of consecutive chunks make: see `find_runs`."""
    return find_runs(clip, start_s, end_s, scores, threshold).events


def reaching(scores: npt.NDArray[Any], level: npt.NDArray[Any]) -> tuple[Any, Any, Any]:
    """Return chunk, class and value of the scores [n, K] that reach a level, by class and chunk."""
    if scores.dtype == np.float16 and (level > 0).all():
        # Positive numbers are in the order of their bits, which are compared many times as fast.
        reaching = scores.view(np.int16) >= level.view(np.int16)
    else:
        reaching = scores >= level
    chunk, label = np.divmod(np.flatnonzero(reaching), max(scores.shape[1], 1))
    order = np.argsort(label.astype(np.uint16), kind="stable")
    order = order[~np.isnan(scores[chunk[order], label[order]])]
    chunk, label = chunk[order], label[order]
    return chunk, label, scores[chunk, label]
