"""Thresholds and median filters of classes, chosen for a measure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from satpipe.jobs.ground_truth import ClassSet
from satpipe.jobs.metrics import counts
from satpipe.jobs.metrics.arrays import Floats, Ints, blocks
from satpipe.jobs.metrics.counts import Counts
from satpipe.jobs.metrics.median import median_filtered
from satpipe.jobs.metrics.sound_events import Events, find_runs, within
from satpipe.pipeline.tables.chunk_scores import ChunkScores

GRID = np.unique(np.round(np.concatenate([np.arange(1, 10) / 1000, np.arange(1, 10) / 100, np.arange(2, 20) / 20]), 3))
"""Thresholds to choose from."""
DEFAULT = 0.5
_ENTRIES = 1_000_000  # scores of several classes at once


@dataclass(frozen=True, eq=False)
class Chosen:
    """The choice made for each class."""

    thresholds: Floats
    """`DEFAULT` for classes that are not known, [K]."""
    filters: Ints
    """Length of the median filter in chunks, [K]."""
    known: npt.NDArray[np.bool_]
    """True if a threshold gives the class an F1 above 0, [K]."""


def tuned(
    chunks: ChunkScores,
    classes: ClassSet,
    reference: Events,
    judged: Events | None,
    count: Callable[[Events, Events], Counts],
    filters: Sequence[int],
    min_s: float,
) -> Chosen:
    """Choose for each class the threshold and median filter with the highest F1; of equals the lowest and the shortest.

    Where F1 is 0 at every threshold, nothing can be chosen: the lowest one would detect the class everywhere.

    Args:
        chunks: Scores of the classes that have any.
        classes: The class set.
        reference: Reference events of the clips of the chunks.
        judged: Stretches outside which detections do not count; None: all count.
        count: Counts reference and detected events.
        filters: Lengths of the median filter in chunks.
        min_s: Minimum duration of an event, seconds.
    """
    number = len(classes.labels)
    best = np.zeros(number)
    chosen = Chosen(np.full(number, DEFAULT), np.ones(number, np.int32), np.zeros(number, bool))
    with_truth = np.bincount(reference.label, minlength=number) > 0
    columns = np.flatnonzero(with_truth[classes.scored])
    for length in sorted(filters):
        scores = chunks.scores if length == 1 else median_filtered(chunks.clip, chunks.scores, length)
        for part in _parts(scores, columns):
            labels = classes.scored[part]
            some = np.ascontiguousarray(scores[:, part])
            true = reference.take(np.isin(reference.label, labels))
            for threshold in GRID.tolist():
                runs = find_runs(chunks.clip, chunks.start_s, chunks.end_s, some, threshold).lasting(min_s)
                found = replace(runs.events, label=labels[runs.events.label])
                if judged is not None:
                    found = within(found, judged)[1]
                f1 = counts.class_rates(counts.totals(count(true, found))).zero_f1[0, labels]
                better = labels[f1 > best[labels]]
                best[better] = f1[f1 > best[labels]]
                chosen.thresholds[better], chosen.filters[better], chosen.known[better] = threshold, length, True
    return chosen


def _parts(scores: npt.NDArray[np.float16], columns: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield some of the columns at a time, which have about `_ENTRIES` scores to look at."""
    number = np.array([np.count_nonzero(scores[:, k] >= GRID[0]) for k in columns], np.int64)
    for part in blocks(number, _ENTRIES):
        if len(part):
            yield columns[part]
