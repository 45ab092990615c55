"""Counts for PSDS: detected events at many operating points, compared with reference events."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Bools, Floats, Ints, Rows, blocks, repeats, run_starts
from satpipe.jobs.metrics.sound_events import Events
from satpipe.sat.errors import ConfigError
from scipy import sparse

_PAIRS = 1_000_000  # pairs of detected events and classes in memory: 100 MB
_CELL_S = 60.0  # long recordings are split into cells: a detected event is compared with nearby reference events only
_LABELS = 1 << 20  # more than the maximum number of classes
_NEAR = 1e-9  # sums of shares that differ by less from a criterion are added in psds-eval's order


@dataclass(frozen=True, eq=False)
class Detections:
    """Events with the range of operating points that detect them; one detected again after a gap has a second entry."""

    events: Events
    first: Ints
    """First operating point with the event, [n]."""
    stop: Ints
    """Operating point after the last, [n]."""
    points: Rows
    """Number of operating points: one for all classes, [], or of each class, [K]."""

    @staticmethod
    def of(points: Iterable[Events]) -> "Detections":
        """Return the events of given operating points.

        Raises:
            ConfigError: Two events of one class overlap, or an event ends before it starts.
        """
        valid = [_valid(events, f"events of operating point {point}") for point, events in enumerate(points)]
        columns = zip(*(vars(events).values() for events in [_NOTHING, *valid]), strict=True)
        first = np.repeat(np.arange(len(valid), dtype=np.int32), [len(events) for events in valid])
        return Detections(Events(*map(np.concatenate, columns)), first, first + np.int32(1), np.array(len(valid)))

    def take(self, rows: npt.NDArray[Any]) -> "Detections":
        """Return the entries selected by a boolean mask [n] or by position."""
        return Detections(self.events.take(rows), self.first[rows], self.stop[rows], self.points)


_NOTHING = Events.of([], [], [], [])


class Reference:
    """Reference events, sorted, in groups of one clip and class.

    Raises:
        ConfigError: Events of one class overlap, or one ends before it starts.
    """

    def __init__(self, events: Events, durations_s: Floats, classes: int, *, every_class: bool = False) -> None:
        events = _valid(events, "reference events")
        self.events, self.durations_s, self.classes = events, durations_s, classes
        self.length_s = events.offset_s - events.onset_s
        self.has_class = np.bincount(events.label, minlength=classes) > 0
        if every_class:  # detections of classes without a reference count, too
            self.has_class[:] = True
        where, shape = (events.label, events.clip), (classes, len(durations_s))
        self.events_of_class = sparse.csr_array((np.ones(len(events)), where), shape)
        self.seconds_of_class = sparse.csr_array((self.length_s, where), shape)
        key = _groups(events)
        self.group, begin = np.unique(key, return_index=True)
        group_of = np.repeat(np.arange(len(begin)), np.diff(np.append(begin, len(events))))
        self.group_clip, self.group_label = events.clip[begin], events.label[begin]
        # Both rise: NumPy compares complex numbers by their real part first.
        self._onsets, self._offsets = key + 1j * events.onset_s, key + 1j * events.offset_s

        self._cells = 1 + int(events.offset_s.max(initial=0) // _CELL_S)  # of a clip
        row, cell = self.cells_of(events)
        self.cell, self.cell_group = np.divmod(np.unique(cell * len(begin) + group_of[row]), len(begin))

    def cells_of(self, events: Events) -> tuple[Rows, Rows]:
        """Return which event is in which cell, by event; events that overlap share one."""
        times = (events.onset_s, events.offset_s)
        first, last = (np.clip(time // _CELL_S, 0, self._cells - 1).astype(np.int64) for time in times)
        row, within = repeats(last - first + 1)
        return row, events.clip[row].astype(np.int64) * self._cells + first[row] + within

    def meeting(self, group: Rows, events: Events) -> "_Pairs":
        """Return the pairs of these events and reference events of the given groups that overlap, not just touch."""
        begin = np.searchsorted(self._offsets, group + 1j * events.onset_s, side="right")
        end = np.searchsorted(self._onsets, group + 1j * events.offset_s, side="left")
        other, within = repeats(np.maximum(end - begin, 0))
        row = begin[other] + within
        offset_s = np.minimum(events.offset_s[other], self.events.offset_s[row])
        return _Pairs(other, row, offset_s - np.maximum(events.onset_s[other], self.events.onset_s[row]))


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs of other events and reference events."""

    other: Rows
    """Rising, [P]."""
    reference: Rows
    """Rising for each other event, [P]."""
    overlap_s: Floats
    """[P]."""

    def take(self, rows: npt.NDArray[Any]) -> "_Pairs":
        return _Pairs(self.other[rows], self.reference[rows], self.overlap_s[rows])


@dataclass(frozen=True, eq=False)
class Changes:
    """Changes from each operating point to the next: sparse matrices with a row for each (class, operating point)."""

    first: Rows
    """First row of each class, and the number of rows, [K + 1]."""
    tp: Any
    """Of detected reference events, [rows, clips]."""
    fp: Any
    """Of false positives, [rows, clips]."""
    ct: Any
    """Of cross-triggers, [rows, G], with a column for each group of reference events; None without a criterion."""

    def undominated(self) -> "Changes":
        """Return the changes between operating points that a staircase can depend on, however clips are weighted.

        A point matters if, compared with the next higher threshold, it has a true positive more or a false positive or
        cross-trigger less in some clip. Otherwise the next higher threshold is as good.
        """
        size = int(self.first[-1])
        better = np.zeros(size + 1, bool)  # the point before each row
        for matrix, sign in ((self.tp, -1), (self.fp, 1), (self.ct, 1)):
            if matrix is not None:
                row = np.repeat(np.arange(size), np.diff(matrix.indptr))
                better[row[matrix.data * sign > 0]] = True
        better[self.first] = True  # the last point of each class
        kept = np.flatnonzero(better[1:])
        new = np.searchsorted(kept, np.arange(size))

        def merged(matrix: Any) -> Any:
            table = matrix.tocoo()
            cells = new[table.coords[0]], table.coords[1]
            found = sparse.csr_array(sparse.coo_array((table.data, cells), shape=(len(kept), matrix.shape[1])))
            found.eliminate_zeros()
            return found

        ct = None if self.ct is None else merged(self.ct)
        return Changes(np.searchsorted(kept, self.first), merged(self.tp), merged(self.fp), ct)

    def of_class(self, matrix: Any, label: int) -> Any:
        """Return the rows of a class."""
        begin, end = self.first[label], self.first[label + 1]
        indptr = matrix.indptr[begin : end + 1]
        some = slice(indptr[0], indptr[-1])
        parts = matrix.data[some], matrix.indices[some], indptr - indptr[0]
        return sparse.csr_array(parts, shape=(end - begin, matrix.shape[1]))


@dataclass(frozen=True)
class Criteria:
    """Minimum parts, see `satpipe.jobs.metrics.psds.Setting`, and how they are compared."""

    dtc: float
    gtc: float
    cttc: float | None
    decimals: int | None
    """Decimals of a second to which times are compared; None: to the last bit of the shares, as psds-eval does."""

    def reached(self, share: Floats, criterion: float, length_s: Floats) -> Bools:
        """Return which shares of these lengths are at least the criterion."""
        if self.decimals is None:
            return np.asarray(share >= criterion)
        return np.asarray(np.round(share * length_s, self.decimals) >= np.round(criterion * length_s, self.decimals))


def compare(reference: Reference, detections: Detections, criteria: Criteria) -> Changes:
    """Apply the criteria; detections of classes without a reference are left out.

    If each class has operating points of its own, those that no score can depend on are left out, too.
    """
    events = detections.events
    detections = detections.take((events.offset_s > events.onset_s) & reference.has_class[events.label])
    events = detections.events
    detections = detections.take(np.lexsort((events.onset_s, events.label, events.clip)))
    events = detections.events
    points = np.broadcast_to(detections.points, reference.classes)
    rows = _Rows(np.concatenate([[0], np.cumsum(points, dtype=np.int64)]))
    pairs = reference.meeting(_groups(events), events)
    met, share = _shares(pairs, events)
    right = np.zeros(len(events), bool)
    right[met[criteria.reached(share, criteria.dtc, events.offset_s[met] - events.onset_s[met])]] = True
    duration_s = reference.durations_s[events.clip]
    false = detections.take(~right & (events.onset_s < duration_s) & (events.offset_s > 0) & (duration_s > 0))
    changes = Changes(
        rows.first,
        _true_positives(reference, detections, pairs.take(right[pairs.other]), criteria, rows),
        rows.lasting(false, false.events.clip, len(reference.durations_s)),
        None if criteria.cttc is None else _cross_triggers(reference, detections.take(~right), criteria, rows),
    )
    return changes if detections.points.ndim == 0 else changes.undominated()


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of the matrices of changes."""

    first: Rows
    """Of each class, and the number of rows, [K + 1]."""

    def changes(self, label: Ints, point: Rows, change: Ints, column: npt.NDArray[Any], columns: int) -> Any:
        """Return the matrix of changes; those after the last operating point of a class are left out."""
        row = self.first[label] + point
        inside = row < self.first[label.astype(np.int64) + 1]
        cells = change[inside], (row[inside], column[inside])
        return sparse.csr_array(sparse.coo_array(cells, shape=(int(self.first[-1]), columns)))

    def lasting(self, detections: Detections, column: npt.NDArray[Any], columns: int) -> Any:
        """Return changes that appear and disappear with detected events, each in a column."""
        label = np.tile(detections.events.label, 2)
        point = np.concatenate([detections.first, detections.stop])
        change = np.repeat(np.array([1, -1], np.int32), len(detections.first))
        return self.changes(label, point, change, np.tile(column, 2), columns)


def _true_positives(
    reference: Reference, detections: Detections, pairs: _Pairs, criteria: Criteria, rows: _Rows
) -> Any:
    """Return changes of which reference events are detected, given the pairs whose detected event is correct."""
    pairs = pairs.take(np.argsort(pairs.reference, kind="stable"))
    first, stop = detections.first[pairs.other], detections.stop[pairs.other]
    share = pairs.overlap_s / reference.length_s[pairs.reference]
    span = int(stop.max(initial=0)) + 1
    key = np.concatenate([pairs.reference * span + first, pairs.reference * span + stop])
    order = np.argsort(key, kind="stable")
    begin = run_starts(key[order])
    event, point = np.divmod(key[order][begin], span)
    # From each of these points to the next: the number of pairs of the event, and the sum of their shares.
    active = np.cumsum(_added(np.repeat([1, -1], len(first))[order], begin))
    covered = np.cumsum(_added(np.concatenate([share, -share])[order], begin))
    found = (active > 0) & criteria.reached(covered, criteria.gtc, reference.length_s[event])
    near = np.zeros(0, np.int64)
    if criteria.decimals is None:
        near = np.flatnonzero((active > 0) & (np.abs(covered - criteria.gtc) < _NEAR))
    for part in blocks(np.bincount(pairs.reference, minlength=len(reference.events))[event[near]], _PAIRS):
        some = near[part]
        low, high = (np.searchsorted(pairs.reference, event[some], side) for side in ("left", "right"))
        which, within = repeats(high - low)
        pair = low[which] + within
        at = point[some][which]
        lasts = (first[pair] <= at) & (at < stop[pair])
        found[some] = _sums(share[pair[lasts]], np.bincount(which[lasts], minlength=len(some))) >= criteria.gtc
    before = np.append(False, found[:-1])[: len(found)]
    before[run_starts(event)] = False
    changed = np.flatnonzero(found != before)
    true = reference.events.take(event[changed])
    change = np.where(found[changed], 1, -1).astype(np.int32)
    return rows.changes(true.label, point[changed], change, true.clip, len(reference.durations_s))


def _added(values: npt.NDArray[Any], begin: Rows) -> npt.NDArray[Any]:
    """Return the sums of runs of values that begin at these positions."""
    return np.add.reduceat(values, begin) if len(begin) else values


def _cross_triggers(reference: Reference, wrong: Detections, criteria: Criteria, rows: _Rows) -> Any:
    """Return changes of the cross-triggers of events that are not correct."""
    events, groups = wrong.events, len(reference.group)
    near, cell = reference.cells_of(events)
    begin = np.searchsorted(reference.cell, cell, side="left")
    number = np.searchsorted(reference.cell, cell, side="right") - begin
    triggers = [np.zeros(0, np.int64)]
    for part in blocks(number, _PAIRS):
        which, within = repeats(number[part])
        row, group = near[part][which], reference.cell_group[begin[part][which] + within]
        other = reference.group_label[group] != events.label[row]
        row, group = row[other], group[other]
        some = events.take(row)
        met, share = _shares(reference.meeting(reference.group[group], some), some)
        length_s = some.offset_s[met] - some.onset_s[met]
        met = met[criteria.reached(share, criteria.cttc or 0.0, length_s)]
        triggers.append(row[met] * groups + group[met])
    row, group = np.divmod(np.unique(np.concatenate(triggers)), max(groups, 1))
    return rows.lasting(wrong.take(row), group, groups)


def _shares(pairs: _Pairs, events: Events) -> tuple[Rows, Floats]:
    """Return which events are in pairs [M], and the part of each within the reference events of its pairs [M]."""
    met, counts = np.unique(pairs.other, return_counts=True)
    length_s = events.offset_s - events.onset_s
    return met, _sums(pairs.overlap_s / length_s[pairs.other], counts)


def _sums(values: Floats, counts: Rows) -> Floats:
    """Return the sums of consecutive values, `counts` of them each (at least one).

    They are added by Kahan's method in their order, as in pandas' `groupby().sum()`: for sums that equal a criterion,
    the last bit decides.
    """
    first = np.cumsum(counts) - counts
    total: Floats = values[first]
    lost = np.zeros_like(total)
    rows, place = np.flatnonzero(counts > 1), 1
    while len(rows):
        value = values[first[rows] + place] - lost[rows]
        more = total[rows] + value
        lost[rows] = more - total[rows] - value
        total[rows] = more
        place += 1
        rows = rows[counts[rows] > place]
    return total


def _groups(events: Events) -> Rows:
    """Return a number for each (clip, class), [n]."""
    return events.clip.astype(np.int64) * _LABELS + events.label


def _valid(events: Events, what: str) -> Events:
    """Return the events that have a duration, sorted."""
    if (events.offset_s < events.onset_s).any():
        raise ConfigError(f"{what}: an event ends before it starts")
    events = events.take(events.offset_s > events.onset_s).sorted()
    same = np.diff(_groups(events)) == 0
    equal = (np.diff(events.onset_s) == 0) & (np.diff(events.offset_s) == 0)  # psds-eval counts both
    if (same & ~equal & (events.onset_s[1:] < events.offset_s[:-1])).any():
        raise ConfigError(f"{what}: events of one class overlap; merge them first")
    return events
