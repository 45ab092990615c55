"""From scores to events: found ones at thresholds, and the best that the grid of chunks allows."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics import psds
from satpipe.jobs.metrics.sound_events import Events, Floats, Ints, detect
from satpipe.pipeline.tables.chunk_scores import ChunkScores
from satpipe.sat.model.config import SAMPLE_RATE_HZ


class Detector:
    """Events that scores make at a threshold."""

    def __init__(self, chunks: ChunkScores, places: Ints, min_s: float) -> None:
        self._chunks, self._places, self._min_s = chunks, places, min_s

    def at(self, threshold: float | Floats) -> Events:
        """Events at one threshold, or one for each class that has scores."""
        chunks = self._chunks
        events = detect(chunks.clip, chunks.start_s, chunks.end_s, chunks.scores, threshold)
        return self._placed(events.take(self._long_enough(events)))

    def at_all(self, thresholds: Floats) -> psds.Detections:
        """Events at each of many thresholds."""
        chunks = self._chunks
        found = psds.detections_at(chunks.clip, chunks.start_s, chunks.end_s, chunks.scores, thresholds)
        found = found.take(self._long_enough(found.events))
        return replace(found, events=self._placed(found.events))

    def _long_enough(self, events: Events) -> npt.NDArray[np.bool_]:
        long_enough: npt.NDArray[np.bool_] = events.offset_s - events.onset_s >= self._min_s - 1e-9
        return long_enough

    def _placed(self, events: Events) -> Events:
        """From columns of the scores to positions in the class set."""
        return replace(events, label=self._places[events.label])


def median_filtered(clip: Ints, values: npt.NDArray[Any], chunks: int) -> npt.NDArray[Any]:
    """Return scores [n, K] with each replaced by the median of itself and its neighbours in the clip.

    At the ends of a clip its first and last chunk stand in for what is not there.

    Args:
        clip: Of each chunk, [n]; chunks of a clip lie together.
        values: Scores, [n, K].
        chunks: Odd number of chunks to take the median of.
    """
    edges = np.flatnonzero(np.append(True, np.diff(clip) != 0))
    sizes = np.diff(np.append(edges, len(clip)))
    first, last = np.repeat(edges, sizes), np.repeat(edges + sizes - 1, sizes)
    here = np.arange(len(clip))
    near = [np.clip(here + shift, first, last) for shift in range(-(chunks // 2), chunks // 2 + 1)]
    out = np.empty_like(values)
    for column in range(values.shape[1]):
        out[:, column] = np.median(values[:, column][near], axis=0)
    return out


def on_grid(events: Events, chunk_samples: int, duration_s: Floats) -> Events:
    """Return what the best tagger could find: events from the start of a chunk to the end of one.

    Args:
        events: True events.
        chunk_samples: Length of a chunk at 16 kHz.
        duration_s: Of each clip, [clips]: where its last chunk ends.
    """
    chunks = int(np.ceil(duration_s.max(initial=0.0) * SAMPLE_RATE_HZ / chunk_samples)) + 1
    border_s = np.arange(chunks + 1) * chunk_samples / SAMPLE_RATE_HZ
    first = np.searchsorted(border_s, events.onset_s, "right") - 1
    stop = np.maximum(np.searchsorted(border_s, events.offset_s, "left"), first + 1)
    end_s = np.minimum(border_s[stop], duration_s[events.clip])
    return Events(events.clip, events.label, border_s[first], np.maximum(end_s, border_s[first])).merged()
