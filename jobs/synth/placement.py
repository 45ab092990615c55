"""Draw the events of a scene and their positions."""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass

import numpy as np
from satpipe.jobs.options.measure import MIN_SAMPLES, SynthOptions
from satpipe.jobs.synth.inputs import MAX_EVENT_SAMPLES, Clip
from satpipe.sat.model.config import SAMPLE_RATE_HZ

GAP_SAMPLES = SAMPLE_RATE_HZ // 4  # between events of a class: more than the usual collar of 200 ms
TRIES = 20


@dataclass(frozen=True)
class Event:
    """A clip at its place in a scene."""

    onset: int
    """First sample in the scene."""
    offset: int
    """The sample after the last one in the scene."""
    clip: Clip
    snr_db: float
    """Requested ratio of the event's power to the power of the background during the event."""


def draw_events(rng: np.random.Generator, clips: list[list[Clip]], options: SynthOptions) -> tuple[list[Event], int]:
    """Draw the events of a scene from the clips of each label.

    Returns:
        The events in the order of their onsets, and the number of events that did not fit.
    """
    count = int(rng.poisson(options.events_per_minute / 60 * options.samples / SAMPLE_RATE_HZ))
    events: list[Event] = []
    for _ in range(count):
        for _ in range(TRIES):
            of_label = clips[rng.integers(len(clips))]
            clip = of_label[rng.integers(len(of_label))]
            length = clip.stop - clip.start
            onset = int(rng.integers(options.samples - min(length, MIN_SAMPLES) + 1))
            snr_db = float(rng.uniform(*options.snr_db))
            event = Event(onset, min(onset + length, options.samples), clip, snr_db)
            if _fits(event, events, options.max_polyphony):
                insort(events, event, key=_onset)
                break
    return events, count - len(events)


def crowd(event: Event, events: list[Event]) -> int:
    """Return the maximum number of simultaneous events during an event, including the event itself.

    Args:
        event: One of `events`, or another event.
        events: In the order of their onsets.
    """
    others = [other for other in _near(event, events, 0) if other is not event]
    onsets, offsets = [other.onset for other in others], sorted(other.offset for other in others)
    moments = [event.onset, *(onset for onset in onsets if onset > event.onset)]
    return 1 + max(bisect_right(onsets, moment) - bisect_right(offsets, moment) for moment in moments)


def _fits(event: Event, events: list[Event], max_polyphony: int | None) -> bool:
    if any(other.clip.label == event.clip.label for other in _near(event, events, GAP_SAMPLES)):
        return False
    return max_polyphony is None or crowd(event, events) <= max_polyphony


def _near(event: Event, events: list[Event], gap: int) -> list[Event]:
    """Return the events that overlap with this one or are less than `gap` samples away."""
    first = bisect_left(events, event.onset - gap - MAX_EVENT_SAMPLES, key=_onset)
    last = bisect_left(events, event.offset + gap, key=_onset)
    return [other for other in events[first:last] if other.offset > event.onset - gap]


def _onset(event: Event) -> int:
    return event.onset
