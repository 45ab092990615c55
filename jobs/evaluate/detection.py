"""Events detected at thresholds, and the best events that the chunk grid allows."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from satpipe.jobs.ground_truth import ClassSet
from satpipe.jobs.metrics.arrays import Floats, Ints
from satpipe.jobs.metrics.psds_counts import Detections
from satpipe.jobs.metrics.psds_points import all_detections, detections_at, lowest_thresholds
from satpipe.jobs.metrics.sound_events import Events, find_runs, within
from satpipe.pipeline.tables.chunk_scores import ChunkScores
from satpipe.sat.model.config import SAMPLE_RATE_HZ


class Detector:
    """Detects events in chunk scores.

    Args:
        chunks: Scores of the classes that the model has.
        classes: The class set.
        min_s: Minimum duration of an event, seconds.
        judged: Stretches outside which detections do not count, as `Events.merged` returns them; None: all count.
    """

    def __init__(self, chunks: ChunkScores, classes: ClassSet, min_s: float, judged: Events | None = None) -> None:
        self._chunks, self._classes, self._min_s, self._judged = chunks, classes, min_s, judged

    def at(self, threshold: float | Floats) -> Events:
        """Return the events at one threshold, or at one for each class that has scores."""
        chunks = self._chunks
        runs = find_runs(chunks.clip, chunks.start_s, chunks.end_s, chunks.scores, threshold)
        events = self._in_class_set(runs.lasting(self._min_s).events)
        return events if self._judged is None else within(events, self._judged)[1]

    def at_each(self, thresholds: Floats) -> Detections:
        """Return the events at each of many thresholds."""
        chunks = self._chunks
        return self._counted(detections_at(chunks.clip, chunks.start_s, chunks.end_s, chunks.scores, thresholds))

    def at_all(self, reference: Events, durations_s: Floats, weights: Ints, max_efpr: float) -> Iterator[Detections]:
        """Yield the events at every score as a threshold that matters for the PSDS: some classes at a time.

        Args:
            reference: Of all clips.
            durations_s: Of all clips; 0 for those that are not counted.
            weights: Samples of the clips, [B, clips].
            max_efpr: Maximum effective false positives per hour.
        """
        chunks, scored = self._chunks, self._classes.scored
        lowest = np.zeros(len(scored), chunks.scores.dtype)
        if not self._min_s and self._judged is None:  # else a detection need not be a false positive in another clip
            free = np.ones((len(durations_s), len(self._classes.labels)), bool)
            free[reference.clip, reference.label] = False
            lowest = lowest_thresholds(chunks.first, durations_s, chunks.scores, free[:, scored], max_efpr, weights)
        for part in all_detections(chunks.clip, chunks.start_s, chunks.end_s, chunks.scores, lowest):
            points = np.zeros(len(self._classes.labels), np.int64)
            points[scored] = part.points
            yield self._counted(replace(part, points=points))

    def _counted(self, detections: Detections) -> Detections:
        """Return the detections that count, of the class set."""
        detections = detections.take(detections.events.lasting(self._min_s))
        detections = replace(detections, events=self._in_class_set(detections.events))
        if self._judged is None:
            return detections
        row, events = within(detections.events, self._judged)
        return replace(detections.take(row), events=events)

    def _in_class_set(self, events: Events) -> Events:
        """Replace columns of the scores by positions in the class set."""
        return replace(events, label=self._classes.scored[events.label])


def on_grid(events: Events, chunk_samples: int, duration_s: Floats) -> Events:
    """Return the events that a perfect tagger would detect: each from the start of a chunk to the end of a chunk.

    Args:
        events: Labelled events.
        chunk_samples: Length of a chunk at 16 kHz.
        duration_s: Of each clip, [clips]: where its last chunk ends.
    """
    chunks = int(np.ceil(duration_s.max(initial=0.0) * SAMPLE_RATE_HZ / chunk_samples)) + 1
    border_s = np.arange(chunks + 1) * chunk_samples / SAMPLE_RATE_HZ
    first = np.searchsorted(border_s, events.onset_s, "right") - 1
    stop = np.maximum(np.searchsorted(border_s, events.offset_s, "left"), first + 1)
    end_s = np.minimum(border_s[stop], duration_s[events.clip])
    return Events(events.clip, events.label, border_s[first], np.maximum(end_s, border_s[first])).merged()
