"""Resample blocks of one channel: as one pass over a recording, or with as little delay as the filter allows."""

from math import gcd

import numpy as np
import numpy.typing as npt
import soxr
from satpipe.sat.model.config import SAMPLE_RATE_HZ

Samples = npt.NDArray[np.float32]

# In double precision a stream that begins anywhere gives the same float32 samples; "HQ", in single precision, differs
# by 1e-7, which a quiet band turns into 3e-5 of a score.
QUALITY = "VHQ"
# soxr keeps the phase of these ratios exactly; the phase of others drifts by 1e-4 within minutes.
EXACT_RATIO = 1000
EXACT_RATE_HZ = 4000
# Half the length of soxr's filter, in samples of the lower of the two rates; measured: 129 to 137 from 4 to 384 kHz.
REACH_SAMPLES = 144
# Above it, windows of that length have so many frames that resampling them takes longer than they last.
LOW_DELAY_RATE_HZ = 1_000_000


def resampled(frames: int, rate_hz: int, to_hz: int = SAMPLE_RATE_HZ) -> int:
    """Return the number of samples at `to_hz` that soxr makes from frames at `rate_hz`."""
    return (2 * frames * to_hz + rate_hz) // (2 * rate_hz)


def ratio(rate_hz: int, to_hz: int = SAMPLE_RATE_HZ) -> tuple[int, int]:
    """Return (up, down): `down` frames at `rate_hz` last as long as `up` samples at `to_hz`."""
    step = gcd(rate_hz, to_hz)
    return to_hz // step, rate_hz // step


def exact_ratio(rate_hz: int, to_hz: int = SAMPLE_RATE_HZ) -> bool:
    """Return True if resampling from the middle of a file gives exactly the samples of a pass from its start."""
    return min(ratio(rate_hz, to_hz)) <= EXACT_RATIO and rate_hz >= EXACT_RATE_HZ


class Resampler:
    """Resamples one channel; this class leaves the rate as it is."""

    def push(self, samples: Samples) -> Samples:
        """Take samples; return the resampled ones that are final."""
        return samples

    def finish(self) -> Samples:
        """Return the rest."""
        return np.empty(0, np.float32)


def one_pass(rate_hz: int, to_hz: int = SAMPLE_RATE_HZ, taken: int = 0, given: int = 0) -> Resampler:
    """Return a resampler for a pass that begins after `taken` frames, which are `given` samples at `to_hz`."""
    return Resampler() if rate_hz == to_hz else _OnePass(rate_hz, to_hz, taken, given)


def low_delay(rate_hz: int) -> Resampler:
    """Return a resampler to 16 kHz: the samples of `one_pass`, with less delay if the ratio of rates allows it."""
    windows = rate_hz != SAMPLE_RATE_HZ and exact_ratio(rate_hz) and rate_hz <= LOW_DELAY_RATE_HZ
    return _Windows(rate_hz) if windows else one_pass(rate_hz)


class _OnePass(Resampler):
    """soxr's own stream, whose long blocks delay samples by up to 110 ms."""

    def __init__(self, rate_hz: int, to_hz: int, taken: int, given: int) -> None:
        self._rate_hz, self._to_hz = rate_hz, to_hz
        self._stream = soxr.ResampleStream(rate_hz, to_hz, 1, dtype="float32", quality=QUALITY)
        self._taken, self._given = taken, given

    def push(self, samples: Samples) -> Samples:
        out: Samples = self._stream.resample_chunk(samples)
        self._taken += len(samples)
        self._given += len(out)
        return out

    def finish(self) -> Samples:
        rest: Samples = self._stream.resample_chunk(np.empty(0, np.float32), last=True)
        return rest[: max(0, resampled(self._taken, self._rate_hz, self._to_hz) - self._given)]


class _Windows(Resampler):
    """The samples of a pass from the start, each as soon as all samples it depends on have arrived.

    Every push resamples a window that begins where soxr keeps the phase, a filter's length before the first sample
    wanted, and returns the samples up to half a filter before its end: a delay of 9 ms from 16 kHz upwards.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._up, self._down = ratio(rate_hz)
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
