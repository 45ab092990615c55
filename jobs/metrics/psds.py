"""PSDS, the polyphonic sound detection score, counted on arrays for any number of operating points.

Task: how well a system finds sound events over a range of thresholds (operating points). A found event is right if
enough of it lies within true events of its class (detection tolerance criterion, DTC). A true event counts as found if
right ones cover enough of it (ground truth intersection criterion, GTC). A found event that is not right is a false
positive, and a cross-trigger of each other class whose true events make up enough of it (CTTC). The true positive ratio
over the effective false positive rate is a staircase for each class; the score is the area under the mean of the
staircases, less their spread, up to the highest rate that counts.

Conventions: seconds; clips and classes by position; events as columns; operating points in the order in which they
were given. Only classes with truth count, and found events of other classes are left out, as psds-eval does where it is
not told of more classes than its ground truth has. Two true events of one class may touch, not overlap, and so may two
found ones of an operating point.

Source: Bilen et al., "A framework for the robust evaluation of sound event detection", ICASSP 2020, arXiv 1910.08440,
as psds-eval 0.5.3 understands it: tests hold the two equal. psds-eval itself walks through all pairs of classes for
each operating point and, from NumPy 2.4 on, fails when it is given a highest rate.

An event found at many thresholds is looked at once. What changes from one operating point to the next is kept by clip
and class in sparse matrices, so that resampling clips costs a multiplication.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.sound_events import Events, Floats, Ints, rounded_up
from satpipe.sat.errors import ConfigError
from scipy import sparse

Rows = npt.NDArray[np.int64]

HOUR_S = 3600.0  # rates are per hour
_PAIRS = 1_000_000  # of found events and classes looked at together: 100 MB
_SAMPLES = 32  # of the clips, weighted together: 40 MB at the size of AudioSet's strong evaluation set
_CELL_S = 60.0  # long recordings are cut into cells, so that a found event is held only against what is near
_LABELS = 1 << 20  # more than there can be classes


@dataclass(frozen=True)
class Setting:
    """What there is to choose, under the names of Bilen et al."""

    name: str
    dtc: float
    """Least part of a found event within true events of its class, for it to be right."""
    gtc: float
    """Least part of a true event that right ones cover, for it to be found."""
    cttc: float | None
    """Least part of a wrong one within true events of another class, for a cross-trigger; None: none are counted."""
    alpha_ct: float
    """Weight of cross-triggers in the effective false positive rate."""
    alpha_st: float
    """Weight of the standard deviation over classes in the effective true positive ratio."""
    max_efpr: float = 100.0
    """Effective false positives per hour up to which the area is taken."""

    def __post_init__(self) -> None:
        ratios = (self.dtc, self.gtc, self.cttc or 0, self.alpha_ct)
        if not all(0 <= ratio <= 1 for ratio in ratios) or self.alpha_st < 0 or self.max_efpr <= 0:
            raise ConfigError(f"{self}: criteria and alpha_ct go from 0 to 1, alpha_st and max_efpr from 0")
        if self.alpha_ct and self.cttc is None:
            raise ConfigError(f"{self}: cross-triggers have a weight, and no cttc to count them by")


# DCASE challenges 2021 to 2023, task 4: scenario 1 is about reacting fast, scenario 2 about telling classes apart. From
# https://dcase.community/challenge2021/task-sound-event-detection-and-separation-in-domestic-environments
PSDS1 = Setting("psds1", dtc=0.7, gtc=0.7, cttc=None, alpha_ct=0, alpha_st=1)
PSDS2 = Setting("psds2", dtc=0.1, gtc=0.1, cttc=0.3, alpha_ct=0.5, alpha_st=1)
PSDS1_NO_VARIANCE = Setting("psds1_without_variance", dtc=0.7, gtc=0.7, cttc=None, alpha_ct=0, alpha_st=0)
SETTINGS = (PSDS1, PSDS2, PSDS1_NO_VARIANCE)


@dataclass(frozen=True, eq=False)
class Detections:
    """Events found at operating points, each with a range of them; one found again after a gap is another entry."""

    events: Events
    first: Ints
    """The first operating point that has the event, [n]."""
    stop: Ints
    """The one after the last, [n]."""
    points: int
    """Number of operating points, T."""

    @staticmethod
    def of(points: Iterable[Events]) -> "Detections":
        """Gather the events of each operating point; the more neighbours have in common, the fewer entries.

        Raises:
            ConfigError: Two events of one class overlap, or one ends before it starts.
        """
        new, first, stop = [_NOTHING], [], np.zeros(0, np.int32)
        before, keys, entry, point = _NOTHING, _keys(_NOTHING), np.zeros(0, np.int64), -1
        for point, given in enumerate(points):
            events = _proper(given, f"events of operating point {point}")
            last_keys, keys = keys, _keys(events)
            place = np.searchsorted(last_keys, keys)
            old = place < len(before)
            old[old] = last_keys[place[old]] == keys[old]
            old[old] = before.offset_s[place[old]] == events.offset_s[old]
            old[1:] &= keys[1:] != keys[:-1]  # an event given twice counts twice
            last_entry, entry = entry, np.empty(len(events), np.int64)
            entry[old] = last_entry[place[old]]
            entry[~old] = len(stop) + np.arange(np.count_nonzero(~old))
            new.append(events.take(~old))
            first.append(np.full(len(new[-1]), point, np.int32))
            stop = np.append(stop, first[-1])
            stop[entry] = point + 1
            before = events
        gathered = Events(
            np.concatenate([part.clip for part in new]),
            np.concatenate([part.label for part in new]),
            np.concatenate([part.onset_s for part in new]),
            np.concatenate([part.offset_s for part in new]),
        )
        return Detections(gathered, np.concatenate([stop[:0], *first]), stop, point + 1)

    def take(self, rows: npt.NDArray[Any]) -> "Detections":
        """Return some of them, such as those that are long enough: by a boolean mask [n], or by position."""
        return Detections(self.events.take(rows), self.first[rows], self.stop[rows], self.points)

    def at(self, point: int) -> Events:
        """Return the events of one operating point, sorted."""
        return self.events.take((self.first <= point) & (point < self.stop)).sorted()


def detections_at(
    clip: Ints, start_s: Floats, end_s: Floats, scores: npt.NDArray[Any], thresholds: npt.ArrayLike
) -> Detections:
    """Return what `detect` finds at each threshold: runs of chunks that reach it.

    A run is made at the highest threshold that has it. With a median filter over chunks, filter the scores: the median
    of what reaches a threshold is what of the median reaches it. For a least duration, `take` what is long enough.

    Args:
        clip: Of each chunk, [n]; chunks of a clip lie together, in the order of time.
        start_s: Of each chunk, [n].
        end_s: Of each chunk, [n]: the start of the next one, if there is one in the clip.
        scores: Of each chunk and class, [n, K].
        thresholds: Rising, [T].

    Raises:
        ConfigError: There is no threshold, or they do not rise.
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
    """A score, and what it comes from."""

    setting: Setting
    value: float
    """From 0 to 1; NaN where no class has truth, and 0 where a single one has: in psds-eval its cross-trigger rate, a
    mean over no other class, is undefined, which whatever its weight takes every operating point away."""
    efpr: Floats
    """Effective false positives per hour at the steps of the averaged curve: rising from 0, below `max_efpr`, [X]."""
    etpr: Floats
    """Effective true positive ratio from each of these to the next one, [X]."""
    class_efpr: Floats
    """Effective false positives per hour of each class at each operating point, [K, T]; NaN without truth."""
    class_tpr: Floats
    """True positive ratio of each class at each operating point, [K, T]; NaN without truth."""
    truth: Rows
    """Number of true events of each class, [K]."""
    tp: Rows
    """Number of these that are found at each operating point, [K, T]."""
    fp: Rows
    """Number of found events that are not right, [K, T]; of classes without truth, 0."""
    ct: Rows | None
    """Number of cross-triggers, [K, T]: a wrong event counts for each other class that it is taken for."""

    def curve(self, label: int) -> tuple[Floats, Floats]:
        """Return the staircase of a class: effective rates, rising from 0, and the ratio from each to the next."""
        efpr, tpr = _staircases(self.class_efpr[[label]], self.class_tpr[[label]])
        last = np.append(efpr[0, 1:] > efpr[0, :-1], True)
        return efpr[0, last], tpr[0, last]


class Tally:
    """What was counted: true events found, false positives and cross-triggers, by clip, class and operating point."""

    def __init__(self, truth: "_Truth", found: Detections, settings: Iterable[Setting]) -> None:
        self._truth = truth
        self._points = found.points
        self._changes = {criteria: _compare(truth, found, *criteria) for criteria in {_criteria(s) for s in settings}}

    def psds(self, setting: Setting) -> Psds:
        """Return the score under a setting that was counted for."""
        changes = self._changes[_criteria(setting)]
        once = np.ones((len(self._truth.durations_s), 1))
        counts = self._weighted(changes, once)
        scored, efpr, tpr = counts.rates(setting, 0)
        class_efpr, class_tpr = np.full((2, len(scored), self._points), np.nan)
        class_efpr[scored], class_tpr[scored] = efpr, tpr
        x, y = _average(efpr, tpr, setting)
        ct = None if changes.ct is None else self._counted(changes.ct, np.ones((changes.ct.shape[1], 1)))
        return Psds(
            setting,
            value=_area(x, y, setting),
            efpr=x,
            etpr=y,
            class_efpr=class_efpr,
            class_tpr=class_tpr,
            truth=_only(counts.truth),
            tp=_only(counts.tp),
            fp=_only(self._counted(changes.fp, once)),
            ct=None if ct is None else _only(ct),
        )

    def resampled(self, setting: Setting, weights: npt.ArrayLike) -> Floats:
        """Return the score [B] of each of B samples of the clips, as for a bootstrap.

        Args:
            setting: One that was counted for.
            weights: How often each clip is in each sample, [B, clips]. Classes without truth in it do not count.
        """
        changes = self._changes[_criteria(setting)]
        samples = np.asarray(weights, np.float64)
        values = []
        for begin in range(0, len(samples), _SAMPLES):
            some = samples[begin : begin + _SAMPLES]
            counts = self._weighted(changes, np.ascontiguousarray(some.T))
            for sample in range(len(some)):
                _, efpr, tpr = counts.rates(setting, sample)
                values.append(_area(*_average(efpr, tpr, setting), setting))
        return np.array(values, np.float64)

    def _weighted(self, changes: "_Changes", weights: Floats) -> "_Weighted":
        """Count clips as often as weights [clips, B] say."""
        truth = self._truth
        events, seconds = truth.events_of_class @ weights, truth.seconds_of_class @ weights
        heard_s = np.maximum(truth.durations_s, 0) @ weights
        fp_rate = self._counted(changes.fp, weights) * np.divide(HOUR_S, heard_s, where=heard_s > 0, out=0 * heard_s)
        ct_rate = np.zeros_like(fp_rate)
        if changes.ct is not None:
            others = np.maximum((events > 0).sum(axis=0) - 1, 1)
            rate = np.divide(HOUR_S, seconds * others, where=seconds > 0, out=0 * seconds)
            ct_rate = self._counted(changes.ct, weights[truth.group_clip] * rate[truth.group_label])
            ct_rate = np.maximum(ct_rate, 0)  # where changes cancel, -1e-17 may be left
        return _Weighted(events, self._counted(changes.tp, weights), fp_rate, ct_rate)

    def _counted(self, changes: Any, weights: Floats) -> Floats:
        """Return counts at each operating point, [K, T, B]."""
        counts: Floats = (changes @ weights).reshape(self._truth.classes, self._points, -1)
        return np.cumsum(counts, axis=1, out=counts)


def count(
    truth: Events, durations_s: npt.ArrayLike, classes: int, found: Detections, settings: Sequence[Setting] = SETTINGS
) -> Tally:
    """Compare what was found with the truth, for all settings.

    Args:
        truth: True events; those without length are left out. `Events.merged` makes one of those that overlap.
        durations_s: Of each clip, [clips]. A wrong event that lies outside its clip is no false positive.
        classes: Number of classes, K.
        found: At each operating point.
        settings: What to count for.

    Raises:
        ConfigError: True events of one class overlap, one ends before it starts, or there is no operating point.
    """
    if not found.points:
        raise ConfigError("PSDS needs one or more operating points")
    known = _Truth(_proper(truth, "true events"), np.asarray(durations_s, np.float64), classes)
    found = found.take((found.events.offset_s > found.events.onset_s) & known.has_class[found.events.label])
    return Tally(known, found.take(np.argsort(_keys(found.events), kind="stable")), settings)


_NOTHING = Events.of([], [], [], [])
_Criteria = tuple[float, float, float | None]


def _criteria(setting: Setting) -> _Criteria:
    """Return what counts depend on."""
    return setting.dtc, setting.gtc, setting.cttc


def _only(counts: Floats) -> Rows:
    """Return counts of one sample as whole numbers, without its axis."""
    return counts[..., 0].astype(np.int64)


class _Truth:
    """True events, sorted, in groups of one clip and class."""

    def __init__(self, events: Events, durations_s: Floats, classes: int) -> None:
        self.events, self.durations_s, self.classes = events, durations_s, classes
        self.length_s = events.offset_s - events.onset_s
        self.has_class = np.bincount(events.label, minlength=classes) > 0
        where, shape = (events.label, events.clip), (classes, len(durations_s))
        self.events_of_class = sparse.csr_array((np.ones(len(events)), where), shape)
        self.seconds_of_class = sparse.csr_array((self.length_s, where), shape)
        key = _groups(events)
        self.group, begin = np.unique(key, return_index=True)
        self.group_of = np.repeat(np.arange(len(begin)), np.diff(np.append(begin, len(events))))
        self.group_clip, self.group_label = events.clip[begin], events.label[begin]
        self._onsets, self._offsets = key + 1j * events.onset_s, key + 1j * events.offset_s  # rising, both

        self._cells = 1 + int(events.offset_s.max(initial=0) // _CELL_S)  # of a clip
        row, cell = self.cells_of(events)
        self.cell, self.cell_group = np.divmod(np.unique(cell * len(begin) + self.group_of[row]), len(begin))

    def cells_of(self, events: Events) -> tuple[Rows, Rows]:
        """Return which event is in which cell, by event; events that overlap share one."""
        times = (events.onset_s, events.offset_s)
        first, last = (np.clip(time // _CELL_S, 0, self._cells - 1).astype(np.int64) for time in times)
        row, within = _ranges(last - first + 1)
        return row, events.clip[row].astype(np.int64) * self._cells + first[row] + within

    def meeting(self, group: Rows, events: Events) -> "_Pairs":
        """Return pairs of these events and true ones of the groups given, that overlap more than by touching."""
        begin = np.searchsorted(self._offsets, group + 1j * events.onset_s, side="right")
        end = np.searchsorted(self._onsets, group + 1j * events.offset_s, side="left")
        other, within = _ranges(np.maximum(end - begin, 0))
        true = begin[other] + within
        offset_s = np.minimum(events.offset_s[other], self.events.offset_s[true])
        return _Pairs(other, true, offset_s - np.maximum(events.onset_s[other], self.events.onset_s[true]))


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs of other events and true ones."""

    other: Rows
    """Rising, [P]."""
    true: Rows
    """Rising for each other event, [P]."""
    overlap_s: Floats
    """[P]."""

    def take(self, rows: npt.NDArray[Any]) -> "_Pairs":
        return _Pairs(self.other[rows], self.true[rows], self.overlap_s[rows])


@dataclass(frozen=True, eq=False)
class _Changes:
    """Changes from each operating point to the next, as sparse matrices: a row for each (class, operating point)."""

    tp: Any
    """Of true events found, [K * T, clips]."""
    fp: Any
    """Of wrong events, [K * T, clips]."""
    ct: Any
    """Of cross-triggers, [K * T, G], a column for each group of true events; None: not counted."""


@dataclass(frozen=True, eq=False)
class _Weighted:
    """Counts and rates of B samples of the clips."""

    truth: Floats
    """Number of true events, [K, B]."""
    tp: Floats
    """Number of them that are found, [K, T, B]."""
    fp_rate: Floats
    """False positives per hour, [K, T, B]."""
    ct_rate: Floats
    """Cross-triggers of another class per hour of its truth, mean over the other classes with truth, [K, T, B]."""

    def rates(self, setting: Setting, sample: int) -> tuple[npt.NDArray[np.bool_], Floats, Floats]:
        """Return which classes have truth [K], and their effective false positive rates and ratios, [C, T]."""
        scored = self.truth[:, sample] > 0
        efpr = self.fp_rate[scored, :, sample] + setting.alpha_ct * self.ct_rate[scored, :, sample]
        return scored, efpr, self.tp[scored, :, sample] / self.truth[scored, sample, None]


def _compare(truth: _Truth, found: Detections, dtc: float, gtc: float, cttc: float | None) -> _Changes:
    """Apply criteria to what was found, sorted by clip, class and onset."""
    events = found.events
    pairs = truth.meeting(_groups(events), events)
    met, share = _shares(pairs, events)
    right = np.zeros(len(events), bool)
    right[met[share >= dtc]] = True
    duration_s = truth.durations_s[events.clip]
    false = found.take(~right & (events.onset_s < duration_s) & (events.offset_s > 0) & (duration_s > 0))
    return _Changes(
        tp=_true_positives(truth, found, pairs.take(right[pairs.other]), gtc),
        fp=_lasting(truth, false, false.events.clip, len(truth.durations_s)),
        ct=None if cttc is None else _cross_triggers(truth, found.take(~right), cttc),
    )


def _true_positives(truth: _Truth, found: Detections, pairs: _Pairs, gtc: float) -> Any:
    """Return changes of which true events are found, given those pairs of which the found event is right."""
    pairs = pairs.take(np.argsort(pairs.true, kind="stable"))
    first, stop = found.first[pairs.other], found.stop[pairs.other]
    share = pairs.overlap_s / truth.length_s[pairs.true]
    before = np.zeros(len(truth.events), bool)
    changed, points, signs = [], [], []
    for point in range(found.points):
        there = np.flatnonzero((first <= point) & (point < stop))
        true, counts = np.unique(pairs.true[there], return_counts=True)
        now = np.zeros(len(truth.events), bool)
        now[true[_sums(share[there], counts) >= gtc]] = True
        changed.append(np.flatnonzero(now != before))
        points.append(np.full(len(changed[-1]), point))
        signs.append(np.where(now[changed[-1]], 1.0, -1.0))
        before = now
    true = np.concatenate(changed)
    label, clip = truth.events.label[true], truth.events.clip[true]
    return _matrix(
        truth, found.points, label, np.concatenate(points), clip, np.concatenate(signs), len(truth.durations_s)
    )


def _cross_triggers(truth: _Truth, wrong: Detections, cttc: float) -> Any:
    """Return changes of the cross-triggers of events that are not right."""
    events, groups = wrong.events, len(truth.group)
    near, cell = truth.cells_of(events)
    begin = np.searchsorted(truth.cell, cell, side="left")
    number = np.searchsorted(truth.cell, cell, side="right") - begin
    found = [np.zeros(0, np.int64)]
    for part in np.split(np.arange(len(cell)), np.flatnonzero(np.diff(np.cumsum(number) // _PAIRS)) + 1):
        which, within = _ranges(number[part])
        row, group = near[part][which], truth.cell_group[begin[part][which] + within]
        other = truth.group_label[group] != events.label[row]
        row, group = row[other], group[other]
        some = events.take(row)
        met, share = _shares(truth.meeting(truth.group[group], some), some)
        met = met[share >= cttc]
        found.append(row[met] * groups + group[met])
    row, group = np.divmod(np.unique(np.concatenate(found)), groups)
    return _lasting(truth, wrong.take(row), group, groups)


def _lasting(truth: _Truth, found: Detections, column: npt.NDArray[Any], columns: int) -> Any:
    """Return changes that come with found events and go with them."""
    going = np.flatnonzero(found.stop < found.points)
    label = np.concatenate([found.events.label, found.events.label[going]])
    point = np.concatenate([found.first, found.stop[going]])
    column = np.concatenate([column, column[going]])
    change = np.concatenate([np.ones(len(found.first)), np.full(len(going), -1.0)])
    return _matrix(truth, found.points, label, point, column, change, columns)


def _matrix(
    truth: _Truth,
    points: int,
    label: npt.NDArray[Any],
    point: npt.NDArray[Any],
    column: npt.NDArray[Any],
    values: Floats,
    columns: int,
) -> Any:
    return sparse.csr_array((values, (label * points + point, column)), (truth.classes * points, columns))


def _shares(pairs: _Pairs, events: Events) -> tuple[Rows, Floats]:
    """Return which events are in pairs [M], and what part of each lies within the true events of its pairs [M]."""
    met, counts = np.unique(pairs.other, return_counts=True)
    length_s = events.offset_s - events.onset_s
    return met, _sums(pairs.overlap_s / length_s[pairs.other], counts)


def _sums(values: Floats, counts: Rows) -> Floats:
    """Return the sums of so many consecutive values each, at least one.

    As pandas' `groupby().sum()` adds them up, by Kahan's method in their order: for sums that equal a criterion, the
    last bit decides.
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


def _ranges(counts: npt.NDArray[Any]) -> tuple[Rows, Rows]:
    """Return 0 0 0 1 2 2 ... and 0 1 2 0 0 1 ... for counts 3 1 2 ...."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - (np.cumsum(counts) - counts)[which]


def _groups(events: Events) -> Rows:
    """Return a number for each clip and class, [n]."""
    return events.clip.astype(np.int64) * _LABELS + events.label


def _keys(events: Events) -> npt.NDArray[np.complex128]:
    """Return keys that sort by clip, class and onset, [n]: NumPy compares real parts first."""
    keys: npt.NDArray[np.complex128] = _groups(events) + 1j * events.onset_s
    return keys


def _proper(events: Events, what: str) -> Events:
    """Return events that have a length, sorted."""
    if (events.offset_s < events.onset_s).any():
        raise ConfigError(f"{what}: one ends before it starts")
    events = events.take(events.offset_s > events.onset_s).sorted()
    same = np.diff(_groups(events)) == 0
    equal = (np.diff(events.onset_s) == 0) & (np.diff(events.offset_s) == 0)  # psds-eval counts both
    if (same & ~equal & (events.onset_s[1:] < events.offset_s[:-1])).any():
        raise ConfigError(f"{what}: some of one class overlap; merge them first")
    return events


def _staircases(efpr: Floats, tpr: Floats) -> tuple[Floats, Floats]:
    """Return steps of each class [C, T + 1]: rates rising from 0, and the best ratio up to each."""
    efpr, tpr = (np.pad(each, ((0, 0), (1, 0))) for each in (efpr, tpr))  # a system that finds nothing
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
