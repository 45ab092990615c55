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

An event detected at many thresholds is examined once, and the changes from one operating point to the next are kept
by clip and class in sparse matrices (`satpipe.jobs.metrics.psds_counts`), so resampling clips costs a product. Every
class has its own operating points: the score needs the staircase of each class, not points that classes share. So all
thresholds at which anything changes can be counted (Ebbers et al., "Threshold independent evaluation of sound event
detection scores", ICASSP 2022, arXiv 2201.13148), which gives the exact score.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Floats, Rows, ratio
from satpipe.jobs.metrics.psds_counts import Changes, Criteria, Detections, Reference, compare
from satpipe.jobs.metrics.sound_events import Events
from satpipe.pipeline.tables.open_folder import side_by_side
from satpipe.sat.errors import ConfigError

HOUR_S = 3600.0  # rates are per hour
DECIMALS = 6  # of a second, to which sed_scores_eval compares
_SAMPLES = 32  # samples of the clips weighted together: 40 MB for AudioSet's strong evaluation set
_ROUNDING = 1e-16  # of a variance
_STEPS = 4096  # of the averaged staircase at once


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
class Psds:
    """A score, with the counts and curves that it is computed from."""

    setting: Setting
    value: float
    """0 to 1; NaN if no class has reference events. With a single class there is no other to be triggered and no
    variance: the score is the area under its staircase, as in sed_scores_eval. psds-eval 0.5.3 gives 0 then: the mean
    rate of cross-triggers over no other class is NaN there, and discards every operating point, whatever its weight."""
    efpr: Floats
    """Effective false positives per hour at the steps of the averaged curve: rising from 0, below `max_efpr`, [X]."""
    etpr: Floats
    """Effective true positive ratio from each step to the next, [X]."""
    first: Rows
    """Position of the first operating point of each class in the following arrays, and their length, [K + 1]."""
    class_efpr: Floats
    """Effective false positives per hour at each operating point, [P]."""
    class_tpr: Floats
    """True positive ratio at each operating point, [P]; NaN without a reference."""
    reference: Rows
    """Number of reference events of each class, [K]."""
    tp: Rows
    """Number of reference events that are detected at each operating point, [P]."""
    fp: Rows
    """Number of false positives, [P]; 0 for classes without a reference."""
    ct: Rows | None
    """Number of cross-triggers, [P]: a false positive counts once for each other class that it triggers."""

    def curve(self, label: int) -> tuple[Floats, Floats]:
        """Return the staircase of a class: effective rates, rising from 0, and the ratio from each to the next."""
        points = slice(*self.first[label : label + 2])
        (efpr,), (tpr,) = _staircases(self.class_efpr[None, points], self.class_tpr[None, points])
        last = np.append(efpr[1:] > efpr[:-1], True)
        return efpr[last], tpr[last]


@dataclass(frozen=True, eq=False)
class _Weighted:
    """Counts of the operating points of a class in B samples of the clips."""

    label: int
    reference: Floats
    """Number of reference events, [B]."""
    tp: Floats
    """Number of those detected, [T, B]."""
    fp: Floats
    """Number of false positives, [T, B]."""
    ct: Floats | None
    """Number of cross-triggers per hour of the reference of the other classes, mean over these classes, [T, B]."""
    efpr: Floats
    """Effective false positives per hour, [T, B]."""


class Tally:
    """Counts of detected reference events, false positives and cross-triggers by clip, class and operating point."""

    def __init__(
        self, reference: Reference, parts: Iterable[Detections], settings: Iterable[Setting], decimals: int | None
    ) -> None:
        self._reference = reference
        self._changes: dict[Any, list[Changes]] = {setting.criteria: [] for setting in settings}
        for detections in parts:
            for (dtc, gtc, cttc), changes in self._changes.items():
                changes.append(compare(reference, detections, Criteria(dtc, gtc, cttc, decimals)))

    def psds(self, setting: Setting) -> Psds:
        """Return the score under one of the settings that were counted."""
        reference = self._reference
        counted = {each.label: each for each in self._classes(setting, np.ones((len(reference.durations_s), 1)))}
        number = reference.events_of_class @ np.ones(len(reference.durations_s))
        stairs = [_steps(each, setting, number[label]) for label, each in sorted(counted.items())]
        stairs += [(np.zeros(1), np.zeros(1))] * (np.count_nonzero(number) - len(counted))
        x, y = _average(stairs, setting)
        sizes = np.array([sum(int(np.diff(part.first)[label]) for part in self._parts(setting, label))
                          for label in range(reference.classes)], np.int64)  # fmt: skip
        first = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

        def flat(name: str, undefined: float) -> Floats:
            empty = [np.full(size, undefined) for size in sizes]
            return np.concatenate(
                [getattr(counted[k], name)[:, 0] if k in counted else empty[k] for k in range(len(sizes))]
                or [np.zeros(0)]
            )

        tp = flat("tp", 0)
        ct = None
        if setting.cttc is not None:
            ct = np.concatenate(
                [self._cross_triggers(setting, k) for k in range(len(sizes))] or [np.zeros(0, np.int64)]
            )
        return Psds(
            setting,
            value=_area(x, y, setting),
            efpr=x,
            etpr=y,
            first=first,
            class_efpr=flat("efpr", np.nan),
            class_tpr=ratio(tp, np.repeat(number, sizes)),
            reference=number.astype(np.int64),
            tp=tp.astype(np.int64),
            fp=flat("fp", 0).astype(np.int64),
            ct=ct,
        )

    def resampled(self, settings: Sequence[Setting], weights: npt.ArrayLike) -> dict[str, Floats]:
        """Return by setting the scores [B] of B samples of the clips, for example for a bootstrap.

        Args:
            settings: Some of those that were counted.
            weights: How often each clip is in each sample, [B, clips]. Classes without a reference in it do not count.
        """
        samples = np.asarray(weights, np.float64)
        values: dict[str, list[Floats]] = {setting.name: [np.zeros(0)] for setting in settings}
        blocks = (samples[begin : begin + _SAMPLES] for begin in range(0, len(samples), _SAMPLES))
        for part in side_by_side(partial(self._sampled, settings), blocks):
            for name, areas in part.items():
                values[name].append(areas)
        return {name: np.concatenate(parts) for name, parts in values.items()}

    def _sampled(self, settings: Sequence[Setting], samples: Floats) -> dict[str, Floats]:
        """Return by setting the scores [B] of a few samples [B, clips]."""
        weights = np.ascontiguousarray(samples.T)
        scored = np.count_nonzero(self._reference.events_of_class @ weights, axis=0)
        values: dict[str, Floats] = {}
        rules = {(each.criteria, each.alpha_ct, each.max_efpr): each for each in settings}
        for rule, curves in rules.items():
            steps = self._sampled_steps(curves, weights)
            for setting in settings:
                if (setting.criteria, setting.alpha_ct, setting.max_efpr) == rule:
                    values[setting.name] = _sampled_areas(steps, scored, setting)
        return values

    def _sampled_steps(self, setting: Setting, weights: Floats) -> list[Floats]:
        """Return the steps of all classes in each sample, [4, S]: rate, and class's ratio before, after it."""
        found: list[tuple[Any, ...]] = []
        for each in self._classes(setting, weights):
            part = ratio(each.tp, np.broadcast_to(each.reference, each.tp.shape), 0.0)
            x, y = _staircases(each.efpr.T, part.T)
            before = np.concatenate([np.zeros((len(y), 1)), y[:, :-1]], axis=1)
            sample, point = np.nonzero((y > before) & (x < setting.max_efpr))
            found.append((sample, x[sample, point], before[sample, point], y[sample, point]))
        if not found:
            return [np.zeros((3, 0))] * weights.shape[1]
        sample, *columns = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.lexsort((columns[0], sample))
        steps = np.stack(columns)[:, order]
        return np.split(steps, np.searchsorted(sample[order], np.arange(1, weights.shape[1])), axis=1)

    def _parts(self, setting: Setting, label: int) -> Iterator[Changes]:
        for part in self._changes[setting.criteria]:
            if part.first[label + 1] > part.first[label]:
                yield part

    def _cross_triggers(self, setting: Setting, label: int) -> Rows:
        counts = [np.zeros(0, np.int64)]
        for part in self._parts(setting, label):
            counts.append(np.cumsum(part.of_class(part.ct, label).sum(axis=1, dtype=np.int64)))
        return np.concatenate(counts)

    def _classes(self, setting: Setting, weights: Floats) -> Iterator[_Weighted]:
        """Count each clip as often as the weights [clips, B] state.

        The cross-triggers of another class are per hour of its reference events, and their mean is over the other
        classes that have any.
        """
        reference = self._reference
        events, seconds = reference.events_of_class @ weights, reference.seconds_of_class @ weights
        per_hour = ratio(HOUR_S, np.maximum(reference.durations_s, 0) @ weights, undefined=0)
        trigger_rate = None
        if setting.alpha_ct:
            others = np.maximum((events > 0).sum(axis=0) - 1, 1)
            rate = ratio(HOUR_S, seconds * others, undefined=0)
            trigger_rate = weights[reference.group_clip] * rate[reference.group_label]
        for part in self._changes[setting.criteria]:
            for label in np.flatnonzero((np.diff(part.first) > 0) & reference.has_class).tolist():
                fp = np.cumsum(part.of_class(part.fp, label) @ weights, axis=0)
                tp = np.cumsum(part.of_class(part.tp, label) @ weights, axis=0)
                efpr, ct = fp * per_hour, None
                if trigger_rate is not None:
                    ct = np.cumsum(part.of_class(part.ct, label) @ trigger_rate, axis=0)
                    efpr = efpr + setting.alpha_ct * np.maximum(ct, 0)  # changes that cancel may leave -1e-17
                yield _Weighted(label, events[label], tp, fp, ct, efpr)


def count(
    reference: Events,
    durations_s: npt.ArrayLike,
    classes: int,
    detections: Detections | Iterable[Detections],
    settings: Sequence[Setting] = SETTINGS,
    *,
    decimals: int | None = None,
) -> Tally:
    """Compare detections with the reference, for all settings.

    Args:
        reference: Reference events; those without duration are left out. `Events.merged` merges overlapping ones.
        durations_s: Of each clip, [clips]. A wrong event that lies outside its clip is not a false positive.
        classes: Number of classes, K.
        detections: Detected events of each operating point; all at once, or in parts of some classes each, of which one
            at a time is in memory.
        settings: What to count for.
        decimals: Decimals of a second to which overlaps are compared with the criteria, 6 in sed_scores_eval; None: the
            last bit decides, as in psds-eval.

    Raises:
        ConfigError: Reference events of one class overlap, one ends before it starts, or no operating point is given.
    """
    if isinstance(detections, Detections):
        if not detections.points.any():
            raise ConfigError("PSDS needs one or more operating points")
        detections = [detections]
    return Tally(Reference(reference, np.asarray(durations_s, np.float64), classes), detections, settings, decimals)


def _staircases(efpr: Floats, tpr: Floats) -> tuple[Floats, Floats]:
    """Return the steps of a class in samples [B, T + 1]: rates rising from 0, and the best ratio up to each."""
    efpr, tpr = (np.pad(each, ((0, 0), (1, 0))) for each in (efpr, tpr))  # a system that detects nothing
    order = np.argsort(efpr, axis=1)
    best = np.maximum.accumulate(np.take_along_axis(tpr, order, axis=1), axis=1)
    return np.take_along_axis(efpr, order, axis=1), best


def _steps(counted: _Weighted, setting: Setting, reference: float) -> tuple[Floats, Floats]:
    """Return the staircase of a class below the maximum rate: rates, and the ratio from each to the next."""
    (x,), (y,) = _staircases(counted.efpr.T, counted.tp.T / reference)
    last = np.append(x[1:] > x[:-1], True) & (x < setting.max_efpr)
    return x[last], y[last]


def _average(stairs: Sequence[tuple[Floats, Floats]], setting: Setting) -> tuple[Floats, Floats]:
    """Return the averaged staircase, [X] and [X], of classes."""
    if not stairs:
        return np.zeros(1), np.full(1, np.nan)
    steps = np.unique(np.concatenate([x for x, _ in stairs]))
    averages = []
    for begin in range(0, len(steps), _STEPS):
        some = steps[begin : begin + _STEPS]
        each = np.stack([y[np.searchsorted(x, some, side="right") - 1] for x, y in stairs])
        average = each.mean(axis=0)
        if setting.alpha_st:
            average = np.maximum(average - setting.alpha_st * each.std(axis=0), 0)
        averages.append(average)
    return steps, np.concatenate(averages)


def _sampled_areas(samples: Sequence[Floats], classes: Rows, setting: Setting) -> Floats:
    """Return the score of each sample, given its steps [3, S] sorted by rate, and its number of classes."""
    areas = []
    for (x, before, after), number in zip(samples, classes, strict=True):
        if not number:
            areas.append(np.nan)
            continue
        # Extended precision, since the variance is a small difference.
        average = np.cumsum(after - before, dtype=np.longdouble) / number
        if setting.alpha_st:
            squares = np.cumsum((after - before) * (after + before), dtype=np.longdouble) / number
            variance = squares - average**2
            variance[variance < _ROUNDING] = 0
            average = np.maximum(average - setting.alpha_st * np.sqrt(variance), 0)
        areas.append(_area(x, average.astype(np.float64), setting))
    return np.array(areas, np.float64)


def _area(x: Floats, y: Floats, setting: Setting) -> float:
    return float(np.sum(np.diff(x, append=setting.max_efpr) * y) / setting.max_efpr) if len(x) else 0.0
