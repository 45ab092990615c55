"""Resampling to 16 kHz with as little delay as the filter allows."""

from math import gcd
from typing import Protocol

import numpy as np
import soxr
from satpipe.pipeline.recordings.decode import EXACT_RATE_HZ, EXACT_RATIO, QUALITY, Samples, resampled
from satpipe.sat.model.config import SAMPLE_RATE_HZ

# Half the length of soxr's filter, in samples of the slower of the two rates; measured: 129 to 137 from 4 to 384 kHz.
REACH_SAMPLES = 144


class Resampler(Protocol):
    """Samples of one channel at some rate in, at 16 kHz out."""

    def push(self, samples: Samples) -> Samples:
        """Take samples, return those at 16 kHz that are settled."""

    def finish(self) -> Samples:
        """Return the rest."""


def make_resampler(rate_hz: int) -> Resampler:
    """Return what gives the samples that `satpipe.pipeline.recordings.decode` gives of a recording at this rate."""
    if rate_hz == SAMPLE_RATE_HZ:
        return _AsItIs()
    step = gcd(rate_hz, SAMPLE_RATE_HZ)
    exact = min(rate_hz, SAMPLE_RATE_HZ) // step <= EXACT_RATIO and rate_hz >= EXACT_RATE_HZ
    return _InWindows(rate_hz) if exact else _InOnePass(rate_hz)


class _AsItIs:
    def push(self, samples: Samples) -> Samples:
        return samples

    def finish(self) -> Samples:
        return np.empty(0, np.float32)


class _InOnePass:
    """soxr's own stream. It works on long blocks, so that samples leave it up to 110 ms after they came."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._stream = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality=QUALITY)
        self._taken = self._given = 0

    def push(self, samples: Samples) -> Samples:
        out: Samples = self._stream.resample_chunk(samples)
        self._taken += len(samples)
        self._given += len(out)
        return out

    def finish(self) -> Samples:
        rest: Samples = self._stream.resample_chunk(np.empty(0, np.float32), last=True)
        return rest[: max(0, resampled(self._taken, self._rate_hz) - self._given)]


class _InWindows:
    """The samples of a pass from the start, each as soon as all it depends on is there.

    Every push resamples a window that begins where soxr keeps the phase, a filter's length before the first sample
    wanted, and gives what lies at least half a filter before its end: 9 ms late from 16 kHz upwards.
    """

    def __init__(self, rate_hz: int) -> None:
        step = gcd(rate_hz, SAMPLE_RATE_HZ)
        self._rate_hz = rate_hz
        self._up, self._down = SAMPLE_RATE_HZ // step, rate_hz // step
        self._reach = -(-REACH_SAMPLES * SAMPLE_RATE_HZ // min(rate_hz, SAMPLE_RATE_HZ))
        self._window = np.empty(0, np.float32)
        self._start = 0  # of the window, in steps of `up` samples at 16 kHz or `down` at the source's rate
        self._taken = self._given = 0

    def push(self, samples: Samples) -> Samples:
        self._taken += len(samples)
        self._window = np.concatenate([self._window, samples])
        out = self._until(self._taken * self._up // self._down - self._reach)
        # Twice the reach, since the samples half a filter after the window's start are not yet right.
        start = max(0, self._given - 2 * self._reach) // self._up
        self._window = self._window[(start - self._start) * self._down :].copy()
        self._start = start
        return out

    def finish(self) -> Samples:
        return self._until(resampled(self._taken, self._rate_hz))

    def _until(self, stop: int) -> Samples:
        if stop <= self._given:
            return np.empty(0, np.float32)
        offset = self._start * self._up
        out: Samples = soxr.resample(self._window, self._rate_hz, SAMPLE_RATE_HZ, quality=QUALITY)
        out = out[self._given - offset : stop - offset]
        self._given += len(out)
        return out
