"""PSDS, the polyphonic sound detection score, counted on arrays for any number of operating points.

PSDS rates a system over a range of thresholds (operating points). A detected event is correct if a sufficient part of
it lies within reference events of its class (detection tolerance criterion, DTC). A reference event is detected if
correct ones cover a sufficient part of it (ground truth intersection criterion, GTC). A detected event that is not
correct is a false positive, and a cross-trigger of each other class whose reference events make up a sufficient part of
it (CTTC). The true positive ratio over the effective false positive rate is a staircase for each class; the score is
the area under the mean of the staircases minus their weighted standard deviation, up to a maximum rate.

Conventions: seconds; clips and classes by position; events as columns; operating points in the given order. Only
classes with reference events count; detected events of other classes are ignored, as in psds-eval unless it is given
more classes than its ground truth has. Two reference events of one class may touch but not overlap, and so may two
detected events of one operating point.

Source: Bilen et al., "A framework for the robust evaluation of sound event detection", ICASSP 2020, arXiv 1910.08440,
as psds-eval 0.5.3 implements it; tests compare the two. psds-eval itself loops over all pairs of classes for each
operating point and, from NumPy 2.4 on, fails when it is given a maximum rate.

An event detected at many thresholds is examined once. The changes from one operating point to the next are kept by clip
and class in sparse matrices, so resampling clips costs a multiplication.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Floats, Ints, Rows, blocks, ratio, repeats
from satpipe.jobs.metrics.sound_events import Events, rounded_up
from satpipe.sat.errors import ConfigError
from scipy import sparse

HOUR_S = 3600.0  # rates are per hour
_PAIRS = 1_000_000  # pairs of detected events and classes in memory: 100 MB
_SAMPLES = 32  # samples of the clips weighted together: 40 MB for AudioSet's strong evaluation set
_CELL_S = 60.0  # long recordings are split into cells: a detected event is compared with nearby reference events only
_LABELS = 1 << 20  # more than the maximum number of classes


@dataclass(frozen=True)
class Setting:
    """Parameters of the score, under the names of Bilen et al.

    Raises:
        ConfigError: A parameter is out of range, or cross-triggers have a weight but no criterion.
    """

    name: str
    dtc: float
    """Minimum part of a detected event within reference events of its class, for it to be correct."""
    gtc: float
    """Minimum part of a reference event that correct ones cover, for it to be detected."""
    cttc: float | None
    """Minimum part of a false positive within reference events of another class, for a cross-trigger; None: ignored."""
    alpha_ct: float
    """Weight of cross-triggers in the effective false positive rate."""
    alpha_st: float
    """Weight of the standard deviation over classes in the effective true positive ratio."""
    max_efpr: float = 100.0
    """Effective false positives per hour up to which the area is computed."""

    def __post_init__(self) -> None:
        ratios = (self.dtc, self.gtc, self.cttc or 0, self.alpha_ct)
        if not all(0 <= each <= 1 for each in ratios) or self.alpha_st < 0 or self.max_efpr <= 0:
            raise ConfigError(f"{self}: criteria and alpha_ct must be from 0 to 1, alpha_st and max_efpr from 0")
        if self.alpha_ct and self.cttc is None:
            raise ConfigError(f"{self}: alpha_ct gives cross-triggers a weight, so cttc must be set")

    @property
    def criteria(self) -> tuple[float, float, float | None]:
        """The parameters that counts depend on."""
        return self.dtc, self.gtc, self.cttc


# Task 4 of the DCASE challenges 2021 to 2023: scenario 1 rates fast reactions, scenario 2 the distinction of classes.
# https://dcase.community/challenge2021/task-sound-event-detection-and-separation-in-domestic-environments
PSDS1 = Setting("psds1", dtc=0.7, gtc=0.7, cttc=None, alpha_ct=0, alpha_st=1)
PSDS2 = Setting("psds2", dtc=0.1, gtc=0.1, cttc=0.3, alpha_ct=0.5, alpha_st=1)
PSDS1_NO_VARIANCE = Setting("psds1_no_variance", dtc=0.7, gtc=0.7, cttc=None, alpha_ct=0, alpha_st=0)
SETTINGS = (PSDS1, PSDS2, PSDS1_NO_VARIANCE)


@dataclass(frozen=True, eq=False)
class Detections:
    """Events with the range of operating points that detect them; one detected again after a gap has a second entry."""

    events: Events
    first: Ints
    """First operating point with the event, [n]."""
    stop: Ints
    """Operating point after the last, [n]."""
    points: int
    """Number of operating points, T."""

    @staticmethod
    def of(points: Iterable[Events]) -> "Detections":
        """Return the events of given operating points.

        Raises:
            ConfigError: Two events of one class overlap, or an event ends before it starts.
        """
        valid = [_valid(events, f"events of operating point {point}") for point, events in enumerate(points)]
        columns = zip(*(vars(events).values() for events in [_NOTHING, *valid]), strict=True)
        first = np.repeat(np.arange(len(valid), dtype=np.int32), [len(events) for events in valid])
        return Detections(Events(*map(np.concatenate, columns)), first, first + np.int32(1), len(valid))

    def take(self, rows: npt.NDArray[Any]) -> "Detections":
        """Return the entries selected by a boolean mask [n] or by position."""
        return Detections(self.events.take(rows), self.first[rows], self.stop[rows], self.points)


def detections_at(
    clip: Ints, start_s: Floats, end_s: Floats, scores: npt.NDArray[Any], thresholds: npt.ArrayLike
) -> Detections:
    """Return what `detect` finds at each threshold: runs of chunks whose scores reach it.

    A run is built at the highest threshold that has it. For a median filter over chunks, filter the scores:
    thresholding and the median can be exchanged. For a minimum duration, `take` the events that are long enough.

    Args:
        clip: Of each chunk, [n]; the chunks of a clip are adjacent and in order of time.
        start_s: Of each chunk, [n].
        end_s: Of each chunk, [n]: the start of the next one in the clip.
        scores: Of each chunk and class, [n, K].
        thresholds: Rising, [T].

    Raises:
        ConfigError: No threshold is given, or the thresholds do not rise.
    """
    exact = np.asarray(thresholds, np.float64)
    if not len(exact) or not (np.diff(exact) > 0).all():
        raise ConfigError("PSDS needs one or more thresholds, and they must rise")
    chunk, label = np.nonzero(scores >= rounded_up(exact[0], scores.dtype))
    order = np.argsort(label, kind="stable")
    chunk, label = chunk[order], label[order]
    level = np.searchsorted(exact, scores[chunk, label].astype(np.float64), side="right")  # thresholds reached
    joined = np.zeros(len(chunk) + 1, bool)  # to the entry before: the previous chunk of the clip, same class
    joined[1:-1] = (np.diff(label) == 0) & (np.diff(chunk) == 1) & (np.diff(clip[chunk]) == 0)
    neighbour = np.append(level, 0)
    runs = [np.zeros((4, 0), np.int64)]
    active = np.arange(len(chunk))
    for point in range(len(exact)):
        active = active[level[active] > point]
        if not len(active):
            break
        begins = np.flatnonzero(np.append(True, ~joined[active[1:]] | (np.diff(active) != 1)))
        ends = np.append(begins[1:], len(active)) - 1
        whole = np.minimum.reduceat(level[active], begins) == point + 1  # the next threshold breaks or ends the run
        first, last = active[begins[whole]], active[ends[whole]]
        # At the thresholds that a neighbour reaches, the run is part of a longer one.
        left = np.where(joined[first], neighbour[first - 1], 0)
        right = np.where(joined[last + 1], neighbour[last + 1], 0)
        runs.append(np.stack([first, last, np.maximum(left, right), np.full(len(first), point + 1)]))
    first, last, since, until = np.concatenate(runs, axis=1)
    events = Events.of(clip[chunk[first]], label[first], start_s[chunk[first]], end_s[chunk[last]])
    return Detections(events, since.astype(np.int32), until.astype(np.int32), len(exact))


@dataclass(frozen=True, eq=False)
class Psds:
    """A score, with the counts and curves that it is computed from."""

    setting: Setting
    value: float
    """0 to 1; NaN if no class has reference events, and 0 if only one has: psds-eval then gets NaN as the mean of the
    cross-trigger rate over the other classes, and discards every operating point whatever the weight."""
    efpr: Floats
    """Effective false positives per hour at the steps of the averaged curve: rising from 0, below `max_efpr`, [X]."""
    etpr: Floats
    """Effective true positive ratio from each step to the next, [X]."""
    class_efpr: Floats
    """Effective false positives per hour of each class at each operating point, [K, T]; NaN without a reference."""
    class_tpr: Floats
    """True positive ratio of each class at each operating point, [K, T]; NaN without a reference."""
    reference: Rows
    """Number of reference events of each class, [K]."""
    tp: Rows
    """Number of reference events that are detected at each operating point, [K, T]."""
    fp: Rows
    """Number of false positives, [K, T]; 0 for classes without a reference."""
    ct: Rows | None
    """Number of cross-triggers, [K, T]: a false positive counts once for each other class that it triggers."""

    def curve(self, label: int) -> tuple[Floats, Floats]:
        """Return the staircase of a class: effective rates, rising from 0, and the ratio from each to the next."""
        efpr, tpr = _staircases(self.class_efpr[[label]], self.class_tpr[[label]])
        last = np.append(efpr[0, 1:] > efpr[0, :-1], True)
        return efpr[0, last], tpr[0, last]


class Tally:
    """Counts of detected reference events, false positives and cross-triggers by clip, class and operating point."""

    def __init__(self, reference: "_Reference", detections: Detections, settings: Iterable[Setting]) -> None:
        self._reference = reference
        self._points = detections.points
        criteria = {setting.criteria for setting in settings}
        self._changes = {each: _compare(reference, detections, *each) for each in criteria}

    def psds(self, setting: Setting) -> Psds:
        """Return the score under one of the settings that were counted."""
        _, fp, ct = self._changes[setting.criteria]
        once = np.ones((len(self._reference.durations_s), 1))
        reference, tp, efpr = self._weighted(setting, once)
        scored = reference[:, 0] > 0
        class_efpr, class_tpr = np.full((2, len(scored), self._points), np.nan)
        class_efpr[scored], class_tpr[scored] = efpr[scored, :, 0], tp[scored, :, 0] / reference[scored]
        x, y = _average(class_efpr[scored], class_tpr[scored], setting)

        def whole(values: Floats) -> Rows:
            return values[..., 0].astype(np.int64)

        return Psds(
            setting,
            value=_area(x, y, setting),
            efpr=x,
            etpr=y,
            class_efpr=class_efpr,
            class_tpr=class_tpr,
            reference=whole(reference),
            tp=whole(tp),
            fp=whole(self._counted(fp, once)),
            ct=None if ct is None else whole(self._counted(ct, np.ones((ct.shape[1], 1)))),
        )

    def resampled(self, setting: Setting, weights: npt.ArrayLike) -> Floats:
        """Return the score [B] of each of B samples of the clips, for example for a bootstrap.

        Args:
            setting: One of those that were counted.
            weights: How often each clip is in each sample, [B, clips]. Classes without a reference in it do not count.
        """
        samples = np.asarray(weights, np.float64)
        values = []
        for begin in range(0, len(samples), _SAMPLES):
            some = samples[begin : begin + _SAMPLES]
            reference, tp, efpr = self._weighted(setting, np.ascontiguousarray(some.T))
            for k in range(len(some)):
                scored = reference[:, k] > 0
                curve = _average(efpr[scored, :, k], tp[scored, :, k] / reference[scored, k, None], setting)
                values.append(_area(*curve, setting))
        return np.array(values, np.float64)

    def _weighted(self, setting: Setting, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Count each clip as often as the weights [clips, B] state.

        Returns:
            Number of reference events, [K, B], number of those detected, [K, T, B], and effective false positives per
            hour, [K, T, B]. The cross-triggers of another class are per hour of its reference events, and their mean is
            over the other classes that have any.
        """
        reference = self._reference
        events, seconds = reference.events_of_class @ weights, reference.seconds_of_class @ weights
        tp, fp, ct = self._changes[setting.criteria]
        efpr = self._counted(fp, weights)
        efpr *= ratio(HOUR_S, np.maximum(reference.durations_s, 0) @ weights, undefined=0)
        if ct is not None:
            others = np.maximum((events > 0).sum(axis=0) - 1, 1)
            rate = ratio(HOUR_S, seconds * others, undefined=0)
            ct_rate = self._counted(ct, weights[reference.group_clip] * rate[reference.group_label])
            efpr += setting.alpha_ct * np.maximum(ct_rate, 0)  # changes that cancel may leave -1e-17
        return events, self._counted(tp, weights), efpr

    def _counted(self, changes: Any, weights: Floats) -> Floats:
        """Return counts at each operating point, [K, T, B]."""
        counts: Floats = (changes @ weights).reshape(self._reference.classes, self._points, -1)
        return np.cumsum(counts, axis=1, out=counts)


def count(
    reference: Events,
    durations_s: npt.ArrayLike,
    classes: int,
    detections: Detections,
    settings: Sequence[Setting] = SETTINGS,
) -> Tally:
    """Compare detections with the reference, for all settings.

    Args:
        reference: Reference events; those without duration are left out. `Events.merged` merges overlapping ones.
        durations_s: Of each clip, [clips]. A wrong event that lies outside its clip is not a false positive.
        classes: Number of classes, K.
        detections: Detected events of each operating point.
        settings: What to count for.

    Raises:
        ConfigError: Reference events of one class overlap, one ends before it starts, or no operating point is given.
    """
    if not detections.points:
        raise ConfigError("PSDS needs one or more operating points")
    known = _Reference(_valid(reference, "reference events"), np.asarray(durations_s, np.float64), classes)
    events = detections.events
    detections = detections.take((events.offset_s > events.onset_s) & known.has_class[events.label])
    events = detections.events
    return Tally(known, detections.take(np.lexsort((events.onset_s, events.label, events.clip))), settings)


_NOTHING = Events.of([], [], [], [])


class _Reference:
    """Reference events, sorted, in groups of one clip and class."""

    def __init__(self, events: Events, durations_s: Floats, classes: int) -> None:
        self.events, self.durations_s, self.classes = events, durations_s, classes
        self.length_s = events.offset_s - events.onset_s
        self.has_class = np.bincount(events.label, minlength=classes) > 0
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


_Changes = tuple[Any, Any, Any]
"""Changes from each operating point to the next, as sparse matrices with a row for each (class, operating point): of
detected reference events, [K * T, clips], of false positives, [K * T, clips], and of cross-triggers, [K * T, G], with a
column for each group of reference events, or None."""


def _compare(reference: _Reference, detections: Detections, dtc: float, gtc: float, cttc: float | None) -> _Changes:
    """Apply the criteria to detections that are sorted by clip, class and onset."""
    events = detections.events
    pairs = reference.meeting(_groups(events), events)
    met, share = _shares(pairs, events)
    right = np.zeros(len(events), bool)
    right[met[share >= dtc]] = True
    duration_s = reference.durations_s[events.clip]
    false = detections.take(~right & (events.onset_s < duration_s) & (events.offset_s > 0) & (duration_s > 0))
    return (
        _true_positives(reference, detections, pairs.take(right[pairs.other]), gtc),
        _lasting(reference, false, false.events.clip, len(reference.durations_s)),
        None if cttc is None else _cross_triggers(reference, detections.take(~right), cttc),
    )


def _true_positives(reference: _Reference, detections: Detections, pairs: _Pairs, gtc: float) -> Any:
    """Return changes of which reference events are detected, given the pairs whose detected event is correct."""
    pairs = pairs.take(np.argsort(pairs.reference, kind="stable"))
    first, stop = detections.first[pairs.other], detections.stop[pairs.other]
    share = pairs.overlap_s / reference.length_s[pairs.reference]
    before = np.zeros(len(reference.events), bool)
    rows, points, signs = [], [], []
    for point in range(detections.points):
        active = np.flatnonzero((first <= point) & (point < stop))
        row, counts = np.unique(pairs.reference[active], return_counts=True)
        now = np.zeros(len(reference.events), bool)
        now[row[_sums(share[active], counts) >= gtc]] = True
        rows.append(np.flatnonzero(now != before))
        points.append(np.full(len(rows[-1]), point))
        signs.append(np.where(now[rows[-1]], 1.0, -1.0))
        before = now
    changed = reference.events.take(np.concatenate(rows))
    row = changed.label * np.int64(detections.points) + np.concatenate(points)
    shape = (reference.classes * detections.points, len(reference.durations_s))
    return sparse.csr_array((np.concatenate(signs), (row, changed.clip)), shape)


def _cross_triggers(reference: _Reference, wrong: Detections, cttc: float) -> Any:
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
        met = met[share >= cttc]
        triggers.append(row[met] * groups + group[met])
    row, group = np.divmod(np.unique(np.concatenate(triggers)), groups)
    return _lasting(reference, wrong.take(row), group, groups)


def _lasting(reference: _Reference, detections: Detections, column: npt.NDArray[Any], columns: int) -> Any:
    """Return changes that appear and disappear with detected events, each in a column."""
    ending = np.flatnonzero(detections.stop < detections.points)
    label = np.concatenate([detections.events.label, detections.events.label[ending]]).astype(np.int64)
    row = label * detections.points + np.concatenate([detections.first, detections.stop[ending]])
    change = np.concatenate([np.ones(len(detections.first)), np.full(len(ending), -1.0)])
    cells = row, np.concatenate([column, column[ending]])
    return sparse.csr_array((change, cells), (reference.classes * detections.points, columns))


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


def _staircases(efpr: Floats, tpr: Floats) -> tuple[Floats, Floats]:
    """Return the steps of each class [C, T + 1]: rates rising from 0, and the best ratio up to each."""
    efpr, tpr = (np.pad(each, ((0, 0), (1, 0))) for each in (efpr, tpr))  # a system that detects nothing
    order = np.argsort(efpr, axis=1, kind="stable")
    best = np.maximum.accumulate(np.take_along_axis(tpr, order, axis=1), axis=1)
    return np.take_along_axis(efpr, order, axis=1), best


def _average(efpr: Floats, tpr: Floats, setting: Setting) -> tuple[Floats, Floats]:
    """Return the averaged staircase, [X] and [X], of classes at operating points, [C, T]."""
    if len(efpr) < 2:
        return np.zeros(1), np.full(1, 0.0 if len(efpr) else np.nan)
    x, y = _staircases(efpr, tpr)
    steps = np.unique(x)
    steps = steps[steps < setting.max_efpr]
    width = np.diff(np.searchsorted(steps, x), axis=1, append=len(steps))
    each = np.repeat(y.ravel(), width.ravel()).reshape(len(x), len(steps))
    average = each.mean(axis=0)
    if setting.alpha_st:
        average = np.maximum(average - setting.alpha_st * each.std(axis=0), 0)
    return steps, average


def _area(x: Floats, y: Floats, setting: Setting) -> float:
    return float(np.sum(np.diff(x, append=setting.max_efpr) * y) / setting.max_efpr)
