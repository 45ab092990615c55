"""Operating points of PSDS: the events in chunk scores at many thresholds, or at all at which anything changes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Bools, Floats, Ints, Rows, blocks, run_starts
from satpipe.jobs.metrics.psds_counts import Detections
from satpipe.jobs.metrics.sound_events import SAME_S, Events, reaching, rounded_up
from satpipe.sat.errors import ConfigError

HOUR_S = 3600.0
_ENTRIES = 1_000_000  # scores of several classes at once: 100 MB


def detections_at(
    clip: Ints, start_s: Floats, end_s: Floats, scores: npt.NDArray[Any], thresholds: npt.ArrayLike
) -> Detections:
    """Return what `detect` finds at each threshold: runs of chunks whose scores reach it.

    For a median filter over chunks, filter the scores: thresholding and the median can be exchanged. For a minimum
    duration, `take` the events that are long enough.

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
    chunk, label, values = reaching(scores, rounded_up(exact[0], scores.dtype))
    level = np.searchsorted(exact, values.astype(np.float64), side="right")  # thresholds reached
    return _detections(clip, start_s, end_s, chunk, label, level, np.array(len(exact)))


def all_detections(
    clip: Ints, start_s: Floats, end_s: Floats, scores: npt.NDArray[Any], lowest: npt.NDArray[Any]
) -> Iterator[Detections]:
    """Yield what is found at every score of a class as its threshold: some classes at a time.

    Args:
        clip: As for `detections_at`.
        start_s: As for `detections_at`.
        end_s: As for `detections_at`.
        scores: Of each chunk and class, [n, K].
        lowest: Lowest threshold of each class, in the type of the scores, [K]; see `lowest_thresholds`.
    """
    classes = scores.shape[1]
    number = np.array([np.count_nonzero(scores[:, k] >= lowest[k]) for k in range(classes)])
    for part in blocks(number, _ENTRIES):
        chunk, column, values = reaching(np.ascontiguousarray(scores[:, part]), lowest[part])
        begin = run_starts(column) if len(column) else column
        known = [np.unique(each, return_inverse=True) for each in np.split(values, begin[1:])]
        points = np.zeros(classes, np.int64)
        label = part[column]
        points[label[begin]] = [len(unique) for unique, _ in known][: len(begin)]
        level = np.concatenate([inverse for _, inverse in known]) + 1
        yield _detections(clip, start_s, end_s, chunk, label, level, points)


def lowest_thresholds(
    first: Rows, durations_s: Floats, scores: npt.NDArray[Any], free: Bools, max_efpr: float, weights: npt.ArrayLike
) -> npt.NDArray[Any]:
    """Return a threshold of each class [K] below which no operating point has an effective rate under the maximum.

    A clip without a reference event of a class, but with a score of it that reaches the threshold, has a false positive
    at this and every lower threshold. Where such clips alone make up the maximum rate, the operating points below
    contribute nothing to the score, to that of any sample of the clips, or to the staircases.

    Args:
        first: First chunk of each clip, and the number of chunks, [clips + 1].
        durations_s: Of each clip, [clips].
        scores: Of each chunk and class, [n, K].
        free: Whether a clip has no reference event of a class, [clips, K].
        max_efpr: Maximum effective false positives per hour.
        weights: Samples of the clips that matter, [B, clips], besides the clips themselves.
    """
    lowest = np.zeros(scores.shape[1], scores.dtype)
    filled = np.flatnonzero((np.diff(first) > 0) & (durations_s > 0))
    if not len(filled):
        return lowest
    peaks = np.maximum.reduceat(scores, first[filled], axis=0)
    often = np.concatenate([np.ones((1, len(durations_s))), np.asarray(weights, np.float64)])
    limit = often @ np.maximum(durations_s, 0) * (max_efpr / HOUR_S)
    for k in range(scores.shape[1]):
        clips = np.flatnonzero(free[filled, k])
        order = clips[np.argsort(-peaks[clips, k].astype(np.float32), kind="stable")]
        number = int(1.02 * limit.max()) + 1
        while number <= len(order):
            if (often[:, filled[order[:number]]].sum(axis=1) >= limit).all():
                lowest[k] = np.nextafter(peaks[order[number - 1], k], np.asarray(np.inf, scores.dtype))
                break
            number = int(1.05 * number) + 1
    return lowest


def _detections(
    clip: Ints, start_s: Floats, end_s: Floats, chunk: Rows, label: Any, level: Rows, points: Rows
) -> Detections:
    """Return the runs of entries at each threshold.

    Each is found at one of its entries with the lowest level, the first: it reaches to the next entries on both sides
    that are lower, and is part of a longer run at the thresholds that one of these reaches.

    Args:
        clip: Of each chunk, [n].
        start_s: Of each chunk, [n].
        end_s: Of each chunk, [n].
        chunk: Of each entry, a score of a chunk and a class, sorted by class and chunk, [m].
        label: Of each entry, [m].
        level: Number of thresholds that each entry reaches, at least 1, [m].
        points: Number of thresholds.
    """
    joined = np.zeros(len(chunk), bool)  # to the entry before: the previous chunk of the clip, same class
    joined[1:] = (np.diff(label) == 0) & (np.diff(chunk) == 1) & (np.diff(clip[chunk]) == 0)
    joined[1:] &= start_s[chunk[1:]] - end_s[chunk[:-1]] <= SAME_S
    entry = np.arange(len(chunk))
    before = _next(level, np.where(joined, entry - 1, -1), np.greater)
    first = np.flatnonzero((before < 0) | (level[before] < level))
    joined = np.append(joined[1:], False)[: len(chunk)]
    after = _next(level, np.where(joined, entry + 1, -1), np.greater_equal)[first]
    before = before[first]
    since = np.maximum(np.where(before < 0, 0, level[before]), np.where(after < 0, 0, level[after]))
    begin = _ends(first, before, joined, -1)
    end = _ends(first, after, joined, 1)
    events = Events.of(clip[chunk[begin]], label[begin], start_s[chunk[begin]], end_s[chunk[end]])
    return Detections(events, since.astype(np.int32), level[first].astype(np.int32), points)


def _ends(first: Rows, lower: Rows, joined: Bools, step: int) -> Rows:
    """Return the last entry of each run on one side: next to a lower one, or at the end of the joined entries."""
    if step > 0:
        stops = np.flatnonzero(~joined)
        edge = stops[np.searchsorted(stops, first)] if len(stops) else first
    else:
        starts = np.flatnonzero(~np.append(False, joined[:-1])[: len(joined)])
        edge = starts[np.searchsorted(starts, first, side="right") - 1] if len(starts) else first
    return np.where(lower < 0, edge, lower - step)


def _next(level: Rows, near: Rows, passes: Callable[[Any, Any], Bools]) -> Rows:
    """Return for each entry the next one on one side that it does not pass; -1 if there is none.

    Args:
        level: Of each entry, [m].
        near: The neighbour of each entry on this side; -1 if there is none, [m].
        passes: Whether an entry that is passed has a level high enough, given its level and that of the entry.
    """
    moving = np.flatnonzero(near >= 0)
    while len(moving):
        moving = moving[passes(level[near[moving]], level[moving])]
        near[moving] = near[near[moving]]  # what lies between is at least as high
        moving = moving[near[moving] >= 0]
    return near
