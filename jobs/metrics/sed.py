"""Sound event detection counted as sed_eval counts it: by segments and by events, on arrays.

Mesaros, Heittola and Virtanen, "Metrics for Polyphonic Sound Event Detection", Applied Sciences 6(6), 2016, and
sed_eval 0.2.1, whose own metric objects produce the figures from the counts made here: `count_segments`, then
`segment_metrics`, then `figures` equals `SegmentBasedMetrics.evaluate` clip by clip, then `results`; with events the
same.

Classes are positions in a class set, so there are no events of unknown labels here: who reads the labels has to leave
them out or to refuse them. (sed_eval refuses them by segments. By events it counts them overall and in no class.)
"""

import functools
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.counts import Counts, Numbers, totals
from satpipe.jobs.metrics.sound_events import Events, Floats

Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

BLOCK_PAIRS = 2_000_000  # candidates looked at in one go: about 100 MB


@functools.cache
def load_sed_eval() -> Any:
    """Import sed_eval, whose dcase_util warns of pkg_resources."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sed_eval  # type: ignore[import-untyped, unused-ignore]
    return sed_eval


def count_segments(
    truth: Events, found: Events, *, clips: int, labels: int, segment_s: float, length_s: Floats | None = None
) -> Counts:
    """Count segments that are active in truth, in what was found, or in both.

    An event is active from the segment that it starts in to the one it ends in: floor(onset / segment) up to, not
    including, ceil(offset / segment), in floating point as sed_eval has it (0.3 / 0.1 is less than 3, so an event from
    0.3 s is active from segment 2). An event that ends on a border is not active in the segment after it; an event of
    no length is active in the segment that it lies in, and nowhere if it lies on a border. Events of a class that share
    a segment are one there. Substitutions, deletions and insertions are those of each segment: min(true, found) - both,
    and what the true classes are more, or the found ones.

    Args:
        truth: True events, in any order.
        found: Events found, in any order.
        clips: Number of clips, those without events among them.
        labels: Number of classes.
        segment_s: Length of a segment, seconds.
        length_s: Length evaluated of each clip, seconds [clips]: segments up to ceil(length / segment), what lies
            behind is not counted. Up to the clip's last event, true or found, if None (as sed_eval does by default).
            The length decides about true negatives alone, unless it cuts events off.
    """
    if not segment_s > 0:
        raise ValueError(f"segments of {segment_s} s: expected more than 0")
    for events in (truth, found):
        _check(events, clips, labels)
    if length_s is None:
        length_s = np.maximum(_last_offset_s(truth, clips), _last_offset_s(found, clips))
    if length_s.shape != (clips,):
        raise ValueError(f"lengths of shape {length_s.shape}, expected one for each of {clips} clips")
    segments = np.ceil(length_s / segment_s).astype(np.int64)

    # A sweep through the borders of all activity. First class by class within each clip, for the classes' own counts.
    borders = [_borders(events, labels, segment_s, segments) for events in (truth, found)]
    cell, at, step = (np.concatenate(columns) for columns in zip(*borders, strict=True))
    of_truth = np.arange(len(cell)) < len(borders[0][0])
    order = np.lexsort((at, cell))
    cell, at, step, of_truth = cell[order], at[order], step[order], of_truth[order]
    in_truth: Mask = np.cumsum(np.where(of_truth, step, 0)) > 0  # from this border to the next
    in_found: Mask = np.cumsum(np.where(of_truth, 0, step)) > 0
    width = np.diff(at, append=0)  # of no meaning at a cell's last border: nothing is active there
    cells, row = np.unique(cell, return_inverse=True)
    clip, label = np.divmod(cells, max(labels, 1))

    # Then all classes of each clip together: how many are active in truth, in what was found, in both.
    clip_of = clip[row]
    order = np.lexsort((at, clip_of))
    clip_of, width_of_all = clip_of[order], np.diff(at[order], append=0)

    def classes(active: Mask) -> Numbers:
        change = np.diff(np.append(0, active))
        return np.cumsum(change[order])

    n_true, n_found, n_both = classes(in_truth), classes(in_found), classes(in_truth & in_found)

    def per_cell(active: Mask) -> Numbers:
        return _sums(row, active * width, len(cells))

    def per_clip(number: Numbers) -> Numbers:
        return _sums(clip_of, number * width_of_all, clips)

    return Counts(
        labels=labels,
        clip=clip.astype(np.int32),
        label=label.astype(np.int32),
        tp=per_cell(in_truth & in_found),
        fp=per_cell(in_found & ~in_truth),
        fn=per_cell(in_truth & ~in_found),
        substitutions=per_clip(np.minimum(n_true, n_found) - n_both),
        deletions=per_clip(np.maximum(n_true - n_found, 0)),
        insertions=per_clip(np.maximum(n_found - n_true, 0)),
        reference=per_clip(n_true),
        segments=segments,
        length_s=length_s,
    )


def count_events(
    truth: Events,
    found: Events,
    *,
    clips: int,
    labels: int,
    collar_s: float = 0.2,
    onset: bool = True,
    offset: bool = True,
    offset_fraction: float = 0.5,
) -> Counts:
    """Count events that are true and found, by sed_eval's optimal matching: as many pairs as there can be.

    A true event and one found agree if their onsets differ by the collar at most (where `onset`) and their offsets by
    the collar or a fraction of the true event's length, whichever is more (where `offset`). Onset-F1 is that without
    offsets.

    True positives are pairs of one class that agree. Of what is left, each true event in turn takes the first event
    found that agrees with it, necessarily of another class: a substitution. Which events are left depends on the
    matching where several are largest, so this is done by sed_eval's own function and in its order, and the number of
    substitutions (the overall error rate, nothing else) depends on the order of events within a clip, as it does in
    sed_eval. Sort the events for a figure that does not depend on the order they came in.

    Args:
        truth: True events; those of one clip in sed_eval's order, clips in any.
        found: Events found; the same.
        clips: Number of clips, those without events among them.
        labels: Number of classes.
        collar_s: Largest difference of onsets, seconds, and of offsets unless the fraction allows more.
        onset: Whether onsets have to agree.
        offset: Whether offsets have to agree.
        offset_fraction: Of a true event's length, 0 to 1.
    """
    if not collar_s > 0:
        raise ValueError(f"a collar of {collar_s} s: expected more than 0")
    if not 0 <= offset_fraction <= 1:
        raise ValueError(f"offset fraction {offset_fraction}: expected 0 to 1")
    if not (onset or offset):
        raise ValueError("onsets or offsets have to agree, or both")
    for events in (truth, found):
        _check(events, clips, labels)
    truth, found = (events.take(np.argsort(events.clip, kind="stable")) for events in (truth, found))
    agreement = _Agreement(collar_s, onset, offset, offset_fraction)

    true_cell, found_cell = _cell(truth, labels), _cell(found, labels)
    right, hit = _match(list(agreement.pairs(truth, true_cell, found, found_cell)), len(truth), len(found))
    left = truth.take(~right)
    replaced = _first_come(agreement.pairs(left, left.clip, found.take(~hit), found.clip[~hit]))

    def per_clip(events: Events, which: Mask | Rows | slice = np.s_[:]) -> Numbers:
        return np.bincount(events.clip[which], minlength=clips)

    reference = per_clip(truth)
    substitutions = per_clip(left, replaced)
    explained = per_clip(truth, right) + substitutions
    cells, inverse = np.unique(np.concatenate([true_cell, found_cell]), return_inverse=True)
    true_row, found_row = inverse[: len(truth)], inverse[len(truth) :]
    clip, label = np.divmod(cells, max(labels, 1))
    return Counts(
        labels=labels,
        clip=clip.astype(np.int32),
        label=label.astype(np.int32),
        tp=np.bincount(true_row[right], minlength=len(cells)),
        fp=np.bincount(found_row[~hit], minlength=len(cells)),
        fn=np.bincount(true_row[~right], minlength=len(cells)),
        substitutions=substitutions,
        deletions=reference - explained,
        insertions=per_clip(found) - explained,
        reference=reference,
        segments=np.zeros(clips, np.int64),
        length_s=_last_offset_s(truth, clips),
    )


def segment_metrics(counts: Counts, labels: Sequence[str], segment_s: float) -> Any:
    """Return sed_eval's `SegmentBasedMetrics` as if it had evaluated the clips one by one.

    Args:
        counts: From `count_segments`.
        labels: Names of the classes, [K].
        segment_s: The segment that was counted with, seconds.
    """
    _check_names(labels, counts)
    metrics = load_sed_eval().sound_event.SegmentBasedMetrics(list(labels), time_resolution=float(segment_s))
    total = totals(counts)
    segments = float(counts.segments.sum())
    metrics.evaluated_length_seconds = float(counts.length_s.sum())
    metrics.evaluated_files = counts.clips
    for name, tp, fp, fn in _rows(labels, total.tp[0], total.fp[0], total.fn[0]):
        metrics.class_wise[name].update(_intermediate(tp, fp, fn), Ntn=segments - tp - fp - fn)
    tp, fp, fn = (float(values.sum()) for values in (total.tp, total.fp, total.fn))
    metrics.overall.update(
        _intermediate(tp, fp, fn),
        Ntn=segments * len(labels) - tp - fp - fn,
        S=float(total.substitutions[0]),
        D=float(total.deletions[0]),
        I=float(total.insertions[0]),
    )
    return metrics


def event_metrics(
    counts: Counts,
    labels: Sequence[str],
    *,
    collar_s: float = 0.2,
    onset: bool = True,
    offset: bool = True,
    offset_fraction: float = 0.5,
) -> Any:
    """Return sed_eval's `EventBasedMetrics` as if it had evaluated the clips one by one.

    Args:
        counts: From `count_events`.
        labels: Names of the classes, [K].
        collar_s: As it was counted with; and so for what follows. The object says them in its report.
        onset: Whether onsets had to agree.
        offset: Whether offsets had to agree.
        offset_fraction: Of a true event's length.
    """
    _check_names(labels, counts)
    metrics = load_sed_eval().sound_event.EventBasedMetrics(
        list(labels),
        evaluate_onset=onset,
        evaluate_offset=offset,
        t_collar=float(collar_s),
        percentage_of_length=float(offset_fraction),
    )
    total = totals(counts)
    metrics.evaluated_length = float(counts.length_s.sum())
    metrics.evaluated_files = counts.clips
    for name, tp, fp, fn in _rows(labels, total.tp[0], total.fp[0], total.fn[0]):
        metrics.class_wise[name].update(_intermediate(tp, fp, fn))
    tp, fp, fn = (float(values.sum()) for values in (total.tp, total.fp, total.fn))
    metrics.overall.update(
        _intermediate(tp, fp, fn),
        Nsubs=float(total.substitutions[0]),
        Nfn=float(total.deletions[0]),  # those that are no substitutions, unlike a class's
        Nfp=float(total.insertions[0]),
    )
    return metrics


def figures(metrics: Any) -> dict[str, Any]:
    """Return a sed_eval metric object's `results()`, without NumPy's warning where an average is over no class."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        results: dict[str, Any] = metrics.results()
    return results


@dataclass(frozen=True)
class _Agreement:
    """When a true event and one found agree."""

    collar_s: float
    onset: bool
    offset: bool
    offset_fraction: float

    def pairs(
        self, truth: Events, true_group: npt.NDArray[Any], found: Events, found_group: npt.NDArray[Any]
    ) -> Iterator[tuple[Rows, Rows]]:
        """Yield the pairs of events that agree and are of one group: positions in truth and in found.

        They are ordered by position in truth, then in found; all pairs of a true event come together.
        """
        # Candidates lie within reach by onset, or by offset if onsets need not agree. The rounding of a difference is
        # sed_eval's, so the reach is made a little longer here, and the test done on the candidates.
        true_s, found_s = (truth.onset_s, found.onset_s) if self.onset else (truth.offset_s, found.offset_s)
        reach_s = np.full(len(truth), self.collar_s) if self.onset else self._offset_reach_s(truth, np.s_[:])
        reach_s = reach_s + 4 * np.spacing(true_s + reach_s)
        times_s, code = np.unique(found_s, return_inverse=True)
        base = len(times_s) + 1
        order = np.lexsort((code, found_group))
        key = found_group[order].astype(np.int64) * base + code[order]
        base_of = true_group.astype(np.int64) * base
        first = np.searchsorted(key, base_of + np.searchsorted(times_s, true_s - reach_s, "left"))
        last = np.searchsorted(key, base_of + np.searchsorted(times_s, true_s + reach_s, "right"))
        number = last - first
        block = np.cumsum(number) // BLOCK_PAIRS
        for rows in np.split(np.arange(len(truth)), np.flatnonzero(np.diff(block)) + 1):
            n = number[rows]
            ref = np.repeat(rows, n)
            est = order[np.arange(len(ref)) + np.repeat(first[rows] - (np.cumsum(n) - n), n)]
            agree = np.ones(len(ref), bool)
            if self.onset:
                agree &= np.abs(truth.onset_s[ref] - found.onset_s[est]) <= self.collar_s
            if self.offset:
                agree &= np.abs(truth.offset_s[ref] - found.offset_s[est]) <= self._offset_reach_s(truth, ref)
            ref, est = ref[agree], est[agree]
            order_of_rows = np.lexsort((est, ref))
            yield ref[order_of_rows], est[order_of_rows]

    def _offset_reach_s(self, truth: Events, rows: Rows | slice) -> Floats:
        return np.maximum(self.collar_s, self.offset_fraction * (truth.offset_s[rows] - truth.onset_s[rows]))


def _match(pairs: list[tuple[Rows, Rows]], n_true: int, n_found: int) -> tuple[Mask, Mask]:
    """Return which true events and which found ones a largest matching of the pairs holds: sed_eval's own choice.

    sed_eval matches clip by clip. Pairs that share no event do not influence each other in its algorithm, so it may be
    given those of all clips at once, and need not be given those that stand alone.
    """
    right, hit = np.zeros(n_true, bool), np.zeros(n_found, bool)
    ref, est = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
    alone = (np.bincount(ref)[ref] == 1) & (np.bincount(est)[est] == 1)
    right[ref[alone]], hit[est[alone]] = True, True
    graph: dict[int, list[int]] = {}
    for true_row, found_row in zip(ref[~alone].tolist(), est[~alone].tolist(), strict=True):
        graph.setdefault(found_row, []).append(true_row)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + len(graph))  # it calls itself once for each pair of a chain that has to change
    try:
        matching = load_sed_eval().util.bipartite_match(graph)
    finally:
        sys.setrecursionlimit(limit)
    for true_row, found_row in matching.items():
        right[true_row], hit[found_row] = True, True
    return right, hit


def _first_come(pairs: Iterator[tuple[Rows, Rows]]) -> Rows:
    """Return the true events that get an event found, if each in turn takes the first one that is left."""
    served: list[int] = []
    taken: set[int] = set()
    for ref, est in pairs:
        last = -1
        for true_row, found_row in zip(ref.tolist(), est.tolist(), strict=True):
            if true_row != last and found_row not in taken:
                last = true_row
                served.append(true_row)
                taken.add(found_row)
    return np.array(served, np.intp)


def _borders(events: Events, labels: int, segment_s: float, segments: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return where activity starts and ends: (clip, class) as one number, segment, and 1 or -1."""
    start = np.floor(events.onset_s / segment_s).astype(np.int64)
    end = np.minimum(np.ceil(events.offset_s / segment_s).astype(np.int64), segments[events.clip])
    active = start < end
    cell = _cell(events, labels)[active]
    return np.tile(cell, 2), np.concatenate([start[active], end[active]]), np.repeat([1, -1], len(cell))


def _cell(events: Events, labels: int) -> Numbers:
    """Return one number for each (clip, class)."""
    return events.clip.astype(np.int64) * labels + events.label


def _sums(group: npt.NDArray[Any], values: npt.NDArray[Any], groups: int) -> Numbers:
    """Return the sum of values for each group: exact below 2**53."""
    return np.bincount(group, values, groups).astype(np.int64)


def _last_offset_s(events: Events, clips: int) -> Floats:
    """Return where the last event of each clip ends, zero without one."""
    last_s = np.zeros(clips)
    np.maximum.at(last_s, events.clip, events.offset_s)
    return last_s


def _rows(labels: Sequence[str], *columns: Floats) -> Iterator[tuple[Any, ...]]:
    return zip(labels, *(column.tolist() for column in columns), strict=True)


def _intermediate(tp: float, fp: float, fn: float) -> dict[str, float]:
    return {"Ntp": tp, "Nfp": fp, "Nfn": fn, "Nref": tp + fn, "Nsys": tp + fp}


def _check(events: Events, clips: int, labels: int) -> None:
    """Raise ValueError for what sed_eval would count wrong or not at all."""
    for name, column, size in (("clip", events.clip, clips), ("class", events.label, labels)):
        if len(column) and not (column.min() >= 0 and column.max() < size):
            raise ValueError(f"{name} {column.min()} to {column.max()}: expected 0 to {size - 1}")
    sound = (events.onset_s >= 0) & (events.offset_s >= events.onset_s) & np.isfinite(events.offset_s)
    if not sound.all():
        row = int(np.argmin(sound))
        raise ValueError(
            f"an event from {events.onset_s[row]} to {events.offset_s[row]} s in clip {events.clip[row]}: expected"
            " 0 or later, and an end at or after the start"
        )


def _check_names(labels: Sequence[str], counts: Counts) -> None:
    if len(labels) != counts.labels or len(set(labels)) != len(labels):
        raise ValueError(f"{len(set(labels))} different names of classes, expected {counts.labels}")
