"""Sound event detection counted as sed_eval counts it, by segments and by events, on arrays.

Mesaros, Heittola and Virtanen, "Metrics for Polyphonic Sound Event Detection", Applied Sciences 6(6), 2016, as
sed_eval 0.2.1 implements it: `count_segments` equals `SegmentBasedMetrics`, `count_events` equals `EventBasedMetrics`
with optimal matching, evaluated clip by clip. `counts` computes the metrics from these counts.

Conventions: times in seconds from the start of the clip; clips and classes by position. The caller must leave out or
reject events of unknown classes. (sed_eval rejects them in segments; in events it counts them overall and in no class.)
"""

import functools
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Bools, Rows, blocks, repeats
from satpipe.jobs.metrics.counts import Counts
from satpipe.jobs.metrics.sound_events import Events

BLOCK_PAIRS = 2_000_000  # candidate pairs in memory: about 100 MB


@functools.cache
def load_sed_eval() -> Any:
    """Import sed_eval without the warning of its dcase_util about pkg_resources."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sed_eval  # type: ignore[import-untyped, unused-ignore]
    return sed_eval


def count_segments(reference: Events, detected: Events, *, clips: int, classes: int, segment_s: float) -> Counts:
    """Count the segments that are active in the reference, in the detections, or in both.

    An event is active from segment floor(onset / segment) up to, but not including, ceil(offset / segment), in floating
    point as in sed_eval (0.3 / 0.1 is less than 3, so an event from 0.3 s is active from segment 2). An event that ends
    on a border is not active in the segment after it; an event without duration is active in the segment that contains
    it, and nowhere if it lies on a border. Several events of a class in one segment count once. In each segment,
    substitutions are min(reference, detected) - both; deletions and insertions are the surplus of reference or detected
    classes.

    Args:
        reference: Reference events, in any order.
        detected: Detected events, in any order.
        clips: Number of clips, including those without events.
        classes: Number of classes.
        segment_s: Segment length, seconds.

    Raises:
        ValueError: The segment length is not positive, or an event has a time, clip or class out of range.
    """
    if not segment_s > 0:
        raise ValueError(f"segments of {segment_s} s: expected more than 0")
    for events in (reference, detected):
        _check(events, clips, classes)

    # A sweep through the borders of all activity. First class by class within each clip, for the counts of classes.
    borders = [_borders(events, classes, segment_s) for events in (reference, detected)]
    cell, at, step = (np.concatenate(columns) for columns in zip(*borders, strict=True))
    of_reference = np.arange(len(cell)) < len(borders[0][0])
    order = np.lexsort((at, cell))
    cell, at, step, of_reference = cell[order], at[order], step[order], of_reference[order]
    in_reference: Bools = np.cumsum(np.where(of_reference, step, 0)) > 0  # from this border to the next
    in_detected: Bools = np.cumsum(np.where(of_reference, 0, step)) > 0
    width = np.diff(at, append=0)  # meaningless at the last border of a cell, where nothing is active
    cells, row = np.unique(cell, return_inverse=True)
    clip, label = np.divmod(cells, max(classes, 1))

    # Then all classes of each clip together: how many are active in the reference, the detections and both.
    clip_of = clip[row]
    order = np.lexsort((at, clip_of))
    clip_of, width_of_all = clip_of[order], np.diff(at[order], append=0)

    def active_classes(active: Bools) -> Rows:
        return np.cumsum(np.diff(np.append(0, active))[order])

    def per_cell(active: Bools) -> Rows:
        return _sums(row, np.where(active, width, 0), len(cells))

    def per_clip(number: Rows) -> Rows:
        return _sums(clip_of, number * width_of_all, clips)

    n_reference, n_detected = active_classes(in_reference), active_classes(in_detected)
    return Counts(
        classes=classes,
        clip=clip.astype(np.int32),
        label=label.astype(np.int32),
        tp=per_cell(in_reference & in_detected),
        fp=per_cell(in_detected & ~in_reference),
        fn=per_cell(in_reference & ~in_detected),
        substitutions=per_clip(np.minimum(n_reference, n_detected) - active_classes(in_reference & in_detected)),
        deletions=per_clip(np.maximum(n_reference - n_detected, 0)),
        insertions=per_clip(np.maximum(n_detected - n_reference, 0)),
        reference=per_clip(n_reference),
    )


def count_events(
    reference: Events,
    detected: Events,
    *,
    clips: int,
    classes: int,
    collar_s: float = 0.2,
    offset_fraction: float | None = 0.5,
) -> Counts:
    """Count events by sed_eval's optimal matching of reference and detected events.

    Two events agree if their onsets differ by at most the collar and their offsets by at most the collar or a fraction
    of the reference event's length, whichever is larger. Onset-F1 ignores offsets.

    True positives are matched pairs of one class. Of the rest, each reference event in turn takes the first detected
    event that agrees with it, which has another class: a substitution. Which events remain depends on the choice
    between several largest matchings, so sed_eval's own function makes it, in its order, and the number of
    substitutions (hence the overall error rate, nothing else) depends on the order of events within a clip, as in
    sed_eval. Sort the events to make it independent of their original order.

    Args:
        reference: Reference events; those of one clip in sed_eval's order, clips in any order.
        detected: Detected events, ordered in the same way.
        clips: Number of clips, including those without events.
        classes: Number of classes.
        collar_s: Largest difference of onsets, seconds, and of offsets unless the fraction allows more.
        offset_fraction: Of a reference event's length, 0 to 1; None: offsets are ignored.

    Raises:
        ValueError: An option, or the time, clip or class of an event, is out of range.
    """
    if not collar_s > 0:
        raise ValueError(f"a collar of {collar_s} s: expected more than 0")
    if offset_fraction is not None and not 0 <= offset_fraction <= 1:
        raise ValueError(f"offset fraction {offset_fraction}: expected 0 to 1")
    for events in (reference, detected):
        _check(events, clips, classes)
    reference, detected = (events.take(np.argsort(events.clip, kind="stable")) for events in (reference, detected))

    agreeing = functools.partial(_agreeing, collar_s=collar_s, offset_fraction=offset_fraction)
    cell, detected_cell = _cell(reference, classes), _cell(detected, classes)
    pairs = list(agreeing(reference, cell, detected, detected_cell))
    right, hit = _match(pairs, len(reference), len(detected))
    left, wrong = reference.take(~right), detected.take(~hit)
    replaced = _first_come(agreeing(left, left.clip, wrong, wrong.clip))

    def per_clip(events: Events, rows: Bools | Rows | slice = np.s_[:]) -> Rows:
        return np.bincount(events.clip[rows], minlength=clips)

    substitutions = per_clip(left, replaced)
    explained = per_clip(reference, right) + substitutions
    cells, inverse = np.unique(np.concatenate([cell, detected_cell]), return_inverse=True)
    row, detected_row = inverse[: len(reference)], inverse[len(reference) :]
    clip, label = np.divmod(cells, max(classes, 1))
    return Counts(
        classes=classes,
        clip=clip.astype(np.int32),
        label=label.astype(np.int32),
        tp=np.bincount(row[right], minlength=len(cells)),
        fp=np.bincount(detected_row[~hit], minlength=len(cells)),
        fn=np.bincount(row[~right], minlength=len(cells)),
        substitutions=substitutions,
        deletions=per_clip(reference) - explained,
        insertions=per_clip(detected) - explained,
        reference=per_clip(reference),
    )


def _agreeing(
    reference: Events,
    group: npt.NDArray[Any],
    detected: Events,
    detected_group: npt.NDArray[Any],
    collar_s: float,
    offset_fraction: float | None,
) -> Iterator[tuple[Rows, Rows]]:
    """Yield the pairs of events of one group that agree: positions in the reference and in the detections.

    They are sorted by position in the reference, then in the detections; all pairs of a reference event come together.
    """
    # sed_eval compares rounded differences, so candidates are searched a little farther, then tested.
    reach_s = collar_s + 4 * np.spacing(reference.onset_s + collar_s)
    times_s, code = np.unique(detected.onset_s, return_inverse=True)
    base = len(times_s) + 1
    order = np.lexsort((code, detected_group))
    key = detected_group[order].astype(np.int64) * base + code[order]
    base_of = group.astype(np.int64) * base
    first = np.searchsorted(key, base_of + np.searchsorted(times_s, reference.onset_s - reach_s, "left"))
    last = np.searchsorted(key, base_of + np.searchsorted(times_s, reference.onset_s + reach_s, "right"))
    for rows in blocks(last - first, BLOCK_PAIRS):
        index, within = repeats((last - first)[rows])
        ref = rows[index]
        est = order[first[ref] + within]
        agree = np.abs(reference.onset_s[ref] - detected.onset_s[est]) <= collar_s
        if offset_fraction is not None:
            limit_s = np.maximum(collar_s, offset_fraction * (reference.offset_s[ref] - reference.onset_s[ref]))
            agree &= np.abs(reference.offset_s[ref] - detected.offset_s[est]) <= limit_s
        ref, est = ref[agree], est[agree]
        by_reference = np.lexsort((est, ref))
        yield ref[by_reference], est[by_reference]


def _match(pairs: list[tuple[Rows, Rows]], n_reference: int, n_detected: int) -> tuple[Bools, Bools]:
    """Return which reference and which detected events sed_eval's choice of a largest matching contains.

    sed_eval matches clip by clip. Pairs that share no event do not influence each other in its algorithm, so it can be
    given the pairs of all clips at once, without those that stand alone.
    """
    right, hit = np.zeros(n_reference, bool), np.zeros(n_detected, bool)
    ref, est = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
    alone = (np.bincount(ref)[ref] == 1) & (np.bincount(est)[est] == 1)
    right[ref[alone]], hit[est[alone]] = True, True
    graph: dict[int, list[int]] = {}
    for row, detected_row in zip(ref[~alone].tolist(), est[~alone].tolist(), strict=True):
        graph.setdefault(detected_row, []).append(row)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + len(graph))  # it recurses once for each pair of a chain that has to change
    try:
        matching = load_sed_eval().util.bipartite_match(graph)
    finally:
        sys.setrecursionlimit(limit)
    right[list(matching)], hit[list(matching.values())] = True, True
    return right, hit


def _first_come(pairs: Iterator[tuple[Rows, Rows]]) -> Rows:
    """Return the reference events that get a detected event if each in turn takes the first one left."""
    served: list[int] = []
    taken: set[int] = set()
    for ref, est in pairs:
        last = -1
        for row, detected_row in zip(ref.tolist(), est.tolist(), strict=True):
            if row != last and detected_row not in taken:
                last = row
                served.append(row)
                taken.add(detected_row)
    return np.array(served, np.int64)


def _borders(events: Events, classes: int, segment_s: float) -> tuple[Rows, Rows, Rows]:
    """Return where activity starts and ends: `_cell`, segment, and 1 or -1."""
    start = np.floor(events.onset_s / segment_s).astype(np.int64)
    end = np.ceil(events.offset_s / segment_s).astype(np.int64)
    active = start < end
    cell = _cell(events, classes)[active]
    return np.tile(cell, 2), np.concatenate([start[active], end[active]]), np.repeat([1, -1], len(cell))


def _cell(events: Events, classes: int) -> Rows:
    """Return one number for each (clip, class), [n]."""
    return events.clip.astype(np.int64) * classes + events.label


def _sums(group: Rows, values: Rows, groups: int) -> Rows:
    """Return the sum of the values of each group: exact below 2**53."""
    return np.bincount(group, values, groups).astype(np.int64)


def _check(events: Events, clips: int, classes: int) -> None:
    """Raise ValueError for events that sed_eval would count incorrectly or not at all."""
    for name, column, size in (("clip", events.clip, clips), ("class", events.label, classes)):
        if len(column) and not (column.min() >= 0 and column.max() < size):
            raise ValueError(f"{name} {column.min()} to {column.max()}: expected 0 to {size - 1}")
    valid = (events.onset_s >= 0) & (events.offset_s >= events.onset_s) & np.isfinite(events.offset_s)
    if not valid.all():
        row = int(np.argmin(valid))
        raise ValueError(
            f"an event from {events.onset_s[row]} to {events.offset_s[row]} s in clip {events.clip[row]}: expected"
            " 0 or later, and an end at or after the start"
        )
