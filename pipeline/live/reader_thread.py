"""A thread that reads a live source, and the queue in which its samples wait for the model."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from threading import Condition, Thread
from time import monotonic, time

from satpipe.pipeline.live.source import Gap, LiveSource
from satpipe.pipeline.recordings.decode import mix, silence_invalid
from satpipe.pipeline.recordings.resample import Samples, low_delay, resampled
from satpipe.sat.errors import SatpipeError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

QUEUE_S = 4.0  # of a source that can wait
LIVE_QUEUE_S = 60.0  # of one that cannot: HLS and radio stations send many seconds at once
POLL_S = 0.1
TOO_SLOW = "this machine is too slow: what waited was dropped"
UNFORESEEN = "reading it ended in a way that nobody foresaw"


@dataclass(frozen=True)
class Block:
    """Samples of a stream.

    Attributes:
        start: The first one's place in the stream, at 16 kHz, gaps included.
        samples: At 16 kHz.
        read_s: Seconds of the stream read so far; a little more than `start` and `samples`, for the resampler.
        time_s: When that was, seconds since 1970.
        gap: Why there is a gap before it, or "".
    """

    start: int
    samples: Samples
    read_s: float
    time_s: float
    gap: str = ""


class SourceReader:
    """Reads a source in a thread of its own.

    A source that can wait, waits while more than QUEUE_S are in the queue. Of one that cannot, all that is in the queue
    is dropped, which is one gap, once some of it has waited for longer than the largest lag wanted.

    Attributes:
        source: What is read.
        invalid_s: Where the first sample was that is none, and is taken for silence; None: nowhere.
        problem: Why reading broke off, or "".
    """

    def __init__(self, source: LiveSource, changed: Condition, max_lag_s: float) -> None:
        """Make it ready.

        Args:
            source: Opened.
            changed: Notified of whatever comes.
            max_lag_s: How long what comes from a source that cannot wait may wait here.
        """
        self.source = source
        self.invalid_s: float | None = None
        self.problem = ""
        self._changed = changed
        self._max_lag_s = max_lag_s
        self._queue: deque[tuple[float, Block]] = deque()  # with the time at which it came
        self._queued = self._dropped = 0  # samples at 16 kHz
        self._ended = False
        self._thread = Thread(target=self._run, name=f"reads {source.name}", daemon=True)

    @property
    def dropped_s(self) -> float:
        """Seconds dropped so far."""
        return self._dropped / SAMPLE_RATE_HZ

    @property
    def waiting(self) -> bool:
        """Whether there is something to take, or the end is reached."""
        return bool(self._queue) or self._ended

    @property
    def over(self) -> bool:
        """Whether nothing is left, and nothing will come."""
        return self._ended and not self._queue

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def take(self) -> Block | None:
        """Return the next block; None where there is none yet, or no more."""
        with self._changed:
            if not self._queue:
                return None
            _, block = self._queue.popleft()
            self._queued -= len(block.samples)
            self._changed.notify_all()
            return block

    def stop(self) -> None:
        """Read no further; what has been read can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self.source.close()

    def _run(self) -> None:
        problem = UNFORESEEN  # an error that is none of ours is shown by threading, and ends the source with this
        try:
            for block in self._pieces():
                if not self._put(block):
                    break
            problem = ""
        except SatpipeError as error:
            problem = str(error)
        finally:
            with self._changed:
                self.problem = "" if self._ended else problem
                self._ended = True
                self._changed.notify_all()

    def _pieces(self) -> Iterator[Block]:
        """Yield what comes, mixed and resampled as `satpipe.pipeline.recordings.decode` does it."""
        rate_hz = self.source.rate_hz
        frames = start = 0
        gap, resampler, time_s = "", low_delay(rate_hz), time()
        for block in self.source.blocks():
            if isinstance(block, Gap):
                yield Block(start, resampler.finish(), frames / rate_hz, time_s, gap)
                frames += block.frames
                start, gap, resampler = resampled(frames, rate_hz), block.reason, low_delay(rate_hz)
                continue
            time_s = time()
            samples, bad = silence_invalid(mix(block))
            if bad is not None and self.invalid_s is None:
                self.invalid_s = (frames + bad) / rate_hz
            frames += len(block)
            samples = resampler.push(samples)
            yield Block(start, samples, frames / rate_hz, time_s, gap)
            start, gap = start + len(samples), ""
        yield Block(start, resampler.finish(), frames / rate_hz, time_s, gap)

    def _put(self, block: Block) -> bool:
        """Let a block wait for the model; return whether another one is wanted."""
        with self._changed:
            if self.source.live and self._lags():
                self._dropped += self._queued
                self._queue.clear()
                self._queued = 0
                block = replace(block, gap=TOO_SLOW)
            while not self.source.live and self._queued > QUEUE_S * SAMPLE_RATE_HZ and not self._ended:
                self._changed.wait(POLL_S)
            if self._ended:
                return False
            self._queue.append((monotonic(), block))
            self._queued += len(block.samples)
            self._changed.notify_all()
            return True

    def _lags(self) -> bool:
        too_much = self._queued > LIVE_QUEUE_S * SAMPLE_RATE_HZ
        return too_much or (bool(self._queue) and monotonic() - self._queue[0][0] > self._max_lag_s)
