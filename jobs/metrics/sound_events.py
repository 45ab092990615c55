"""Sound events as columns, and the detection of events in chunk scores.

Clips and classes are numbers here: positions in the list of clips and in the class set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Bools, Floats, Ints, repeats, run_starts

SAME_S = 1e-9  # times that differ by less are equal


@dataclass(frozen=True, eq=False)
class Events:
    """Sound events of many clips, labelled or detected: one entry of each column for each event."""

    clip: Ints
    """Position in the list of clips, [n]."""
    label: Ints
    """Position in the class set, [n]."""
    onset_s: Floats
    """Seconds from the start of the clip, [n]."""
    offset_s: Floats
    """Seconds from the start of the clip, at or after the onset, [n]."""

    def __len__(self) -> int:
        """Number of events."""
        return len(self.clip)

    @staticmethod
    def of(clip: Any, label: Any, onset_s: Any, offset_s: Any) -> "Events":
        """Return events from four columns of any array-like type."""
        return Events(
            np.asarray(clip, np.int32),
            np.asarray(label, np.int32),
            np.asarray(onset_s, np.float64),
            np.asarray(offset_s, np.float64),
        )

    def take(self, rows: npt.NDArray[Any]) -> "Events":
        """Return the events selected by a boolean mask [n] or by position."""
        return Events(self.clip[rows], self.label[rows], self.onset_s[rows], self.offset_s[rows])

    def sorted(self) -> "Events":
        """Return the events sorted by clip, class, onset and offset."""
        return self.take(np.lexsort((self.offset_s, self.onset_s, self.label, self.clip)))

    def lasting(self, min_s: float) -> Bools:
        """Return a mask [n] of the events that last at least `min_s` seconds."""
        return np.asarray(self.offset_s - self.onset_s >= min_s - SAME_S)

    def merged(self, *, touching: bool = True) -> "Events":
        """Return the events, sorted, after merging those of one class in one clip that overlap (or touch)."""
        events = self.sorted()
        if not len(events):
            return events
        new = np.zeros(len(events), bool)
        new[run_starts(events.clip, events.label)] = True
        # The latest offset so far within the (clip, class): NumPy compares complex numbers by their real part first.
        latest = np.maximum.accumulate(np.cumsum(new) + 1j * events.offset_s).imag
        apart = np.greater if touching else np.greater_equal
        new[1:] |= apart(events.onset_s[1:], latest[:-1])
        first = np.flatnonzero(new)
        last = np.append(first[1:], len(events)) - 1
        return Events(events.clip[first], events.label[first], events.onset_s[first], latest[last])


def within(events: Events, stretches: Events) -> tuple[npt.NDArray[np.int64], Events]:
    """Return the parts of events that lie within stretches of their class, and the event of each part, [m].

    Args:
        events: In any order.
        stretches: As `Events.merged` returns them: sorted, those of one class in one clip do not touch.
    """
    classes = 1 + max(events.label.max(initial=0), stretches.label.max(initial=0))
    key, of = (each.clip.astype(np.int64) * classes + each.label for each in (events, stretches))
    # Both rise: NumPy compares complex numbers by their real part first.
    begin = np.searchsorted(of + 1j * stretches.offset_s, key + 1j * events.onset_s, side="right")
    end = np.searchsorted(of + 1j * stretches.onset_s, key + 1j * events.offset_s, side="left")
    row, nth = repeats(np.maximum(end - begin, 0))
    stretch = begin[row] + nth
    onset_s = np.maximum(events.onset_s[row], stretches.onset_s[stretch])
    offset_s = np.minimum(events.offset_s[row], stretches.offset_s[stretch])
    return row, Events(events.clip[row], events.label[row], onset_s, offset_s)


def rounded_up(threshold: float | npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the smallest number of a floating-point type that is not below the threshold.

    Scores are compared in their own type, in which the threshold may not exist (half precision has no 0.3).
    """
    exact = np.asarray(threshold, np.float64)
    rounded = exact.astype(dtype)
    return np.where(rounded < exact, np.nextafter(rounded, np.asarray(np.inf, dtype)), rounded)


@dataclass(frozen=True, eq=False)
class Runs:
    """Events detected in chunks, with the scores of those chunks. Events of one class do not overlap."""

    events: Events
    """Sorted by clip, class and onset, [n]."""
    peak: npt.NDArray[Any]
    """Highest score, in the type of the scores, [n]."""
    total: Floats
    """Sum of the scores, [n]."""
    chunks: Ints
    """Number of scores, [n]."""

    def __len__(self) -> int:
        """Number of events."""
        return len(self.chunks)

    def take(self, rows: npt.NDArray[Any]) -> "Runs":
        """Return the runs selected by a boolean mask [n] or by rising positions."""
        return Runs(self.events.take(rows), self.peak[rows], self.total[rows], self.chunks[rows])

    @staticmethod
    def together(parts: Sequence["Runs"]) -> "Runs":
        """Return the runs of several parts of some clips."""
        columns = ((*vars(part.events).values(), part.peak, part.total, part.chunks) for part in parts)
        clip, label, onset_s, offset_s, *scores = map(np.concatenate, zip(*columns, strict=True))
        order = np.lexsort((onset_s, label, clip))
        return Runs(Events(clip, label, onset_s, offset_s), *scores).take(order)

    def joined(self, gap_s: float = 0.0) -> "Runs":
        """Return the runs after joining those of one class in one clip that are at most `gap_s` seconds apart."""
        events = self.events
        if not len(events):
            return self
        new = np.zeros(len(events), bool)
        new[run_starts(events.clip, events.label)] = True
        new[1:] |= events.onset_s[1:] - events.offset_s[:-1] > gap_s + SAME_S
        first = np.flatnonzero(new)
        last = np.append(first[1:], len(events)) - 1
        return Runs(
            Events(events.clip[first], events.label[first], events.onset_s[first], events.offset_s[last]),
            np.maximum.reduceat(self.peak, first),
            np.add.reduceat(self.total, first),
            np.add.reduceat(self.chunks, first),
        )

    def lasting(self, min_s: float) -> "Runs":
        """Return the runs that last at least `min_s` seconds."""
        return self.take(self.events.lasting(min_s))


def find_runs(
    clip: Ints, start_s: Floats, end_s: Floats, scores: npt.NDArray[Any], level: float | npt.NDArray[Any]
) -> Runs:
    """Return the runs of consecutive chunks whose scores reach a level.

    Args:
        clip: Of each chunk, [n]; the chunks of a clip are adjacent and in order of time.
        start_s: Of each chunk, [n].
        end_s: Of each chunk, [n]: the start of the next one, unless chunks are missing in between.
        scores: Of each chunk and class, [n, K].
        level: Minimum score, one for all classes or one for each, [K].
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
    """Return the events in chunk scores: the runs of `find_runs` without their scores."""
    return find_runs(clip, start_s, end_s, scores, threshold).events


def reaching(scores: npt.NDArray[Any], level: npt.NDArray[Any]) -> tuple[Any, Any, Any]:
    """Return chunk, class and value of the scores [n, K] that reach a level, sorted by class and chunk."""
    if scores.dtype == np.float16 and (level > 0).all():
        # Positive numbers sort by their bits, and integers are compared many times as fast.
        reaching = scores.view(np.int16) >= level.view(np.int16)
    else:
        reaching = scores >= level
    chunk, label = np.divmod(np.flatnonzero(reaching), max(scores.shape[1], 1))
    order = np.argsort(label.astype(np.uint16), kind="stable")
    order = order[~np.isnan(scores[chunk[order], label[order]])]
    chunk, label = chunk[order], label[order]
    return chunk, label, scores[chunk, label]
