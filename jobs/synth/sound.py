"""Decoded sound: cached, read in blocks of any size, repeated."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from threading import Lock

import numpy as np
from satpipe.jobs.synth.inputs import CROSS_FADE_SAMPLES, Background, Clip
from satpipe.pipeline.recordings.decode import Reader
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.errors import AudioError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

CACHE_BYTES = 64 * 2**20
CACHED_SAMPLES = 300 * SAMPLE_RATE_HZ  # 19 MB; a longer background is decoded for each use


class Stream:
    """Reads any number of samples at a time from blocks of any size."""

    def __init__(self, blocks: Iterable[Samples]) -> None:
        self._blocks = iter(blocks)
        self._rest = np.empty(0, np.float32)

    def take(self, samples: int) -> Samples:
        """Return the next samples; callers must not change them.

        Raises:
            AudioError: Fewer samples are left.
        """
        parts, have = [self._rest], len(self._rest)
        while have < samples:
            try:
                parts.append(next(self._blocks))
            except StopIteration:
                raise AudioError("a source has changed since it was first read") from None
            have += len(parts[-1])
        joined = np.concatenate(parts) if len(parts) > 1 else parts[0]
        self._rest = joined[samples:]
        return joined[:samples]


class Library:
    """Decoded parts of recordings; the most recently used are cached. Threads share it."""

    def __init__(self) -> None:
        self._parts: OrderedDict[tuple[str, int, int], Samples] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def part(self, sound: Clip | Background, start: int, stop: int) -> Samples:
        """Return the samples from `start` up to `stop`; callers must not change them."""
        key = (sound.source.path, start, stop)
        with self._lock:
            if key in self._parts:
                self._parts.move_to_end(key)
                return self._parts[key]
        samples = Stream(_decoded(sound, start)).take(stop - start).copy()  # a view would keep whole blocks in memory
        with self._lock:
            if key not in self._parts:  # another thread may have been faster
                self._parts[key] = samples
                self._bytes += samples.nbytes
            while self._bytes > CACHE_BYTES:
                self._bytes -= self._parts.popitem(last=False)[1].nbytes
        return samples

    def repeated(self, background: Background, start: int) -> Iterator[Samples]:
        """Yield a background endlessly, the end of each pass cross-faded into the beginning of the next."""
        angle: Samples = np.linspace(0, math.pi / 2, CROSS_FADE_SAMPLES, dtype=np.float32)
        rise: Samples = np.sin(angle)
        fall: Samples = np.cos(angle)  # the powers of both add up to one
        end: Samples | None = None
        while True:
            sound = Stream(self._once(background, start))
            left = background.samples - start - CROSS_FADE_SAMPLES
            if end is not None:
                yield rise * sound.take(CROSS_FADE_SAMPLES) + fall * end
                left -= CROSS_FADE_SAMPLES
            for done in range(0, left, SAMPLE_RATE_HZ):
                yield sound.take(min(SAMPLE_RATE_HZ, left - done))
            end, start = sound.take(CROSS_FADE_SAMPLES), 0

    def _once(self, background: Background, start: int) -> Iterator[Samples]:
        if background.samples > CACHED_SAMPLES:
            return _decoded(background, start)
        return iter([self.part(background, 0, background.samples)[start:]])


def _decoded(sound: Clip | Background, start: int) -> Iterator[Samples]:
    """Yield the samples of a recording from `start` on."""
    skip = 0 if sound.info.exact_seek else start
    try:
        for block in Reader(sound.source.path, sound.info, start=start - skip).blocks():
            yield block[skip:]
            skip = max(0, skip - len(block))
    except AudioError as error:
        raise AudioError(f"{sound.source.path}: {error}", error.status) from error


def noise(rng: np.random.Generator, level_db: float) -> Iterator[Samples]:
    """Yield endless white noise."""
    while True:
        yield rng.standard_normal(SAMPLE_RATE_HZ, np.float32) * np.float32(10 ** (level_db / 20))
