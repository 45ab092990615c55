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

QUEUE_S = 4.0  # for a source that can wait
LIVE_QUEUE_S = 60.0  # for a live source: HLS and radio stations send many seconds at once
POLL_S = 0.1
TOO_SLOW = "this machine is too slow: waiting audio was dropped"
UNEXPECTED = "an unexpected error ended the reader thread"


@dataclass(frozen=True)
class Block:
    """Samples of a stream at 16 kHz.

    Attributes:
        start: Position of the first sample in the stream, gaps included.
        read_s: Seconds of the stream read so far; because of the resampler, a little more than `start` and `samples`.
        time_s: Time at which they were read, in seconds since 1970.
        gap: Reason for the gap before the block, or "".
    """

    start: int
    samples: Samples
    read_s: float
    time_s: float
    gap: str = ""


class SourceReader:
    """Reads a source in a separate thread.

    A source that can wait is not read while more than QUEUE_S are in the queue. For a live source, the whole queue is
    dropped, as one gap, as soon as a part of it has waited longer than the maximum lag.

    Attributes:
        dropped_s: Seconds dropped so far.
        invalid_s: Position of the first invalid sample, which is replaced with silence; None if there is none.
        problem: Why reading broke off, or "".
    """

    def __init__(self, source: LiveSource, changed: Condition, max_lag_s: float) -> None:
        """Prepare the thread.

        Args:
            source: An open source.
            changed: Notified when something arrives.
            max_lag_s: Maximum seconds that audio of a live source may wait in the queue.
        """
        self.source = source
        self.invalid_s: float | None = None
        self.problem = ""
        self._changed = changed
        self._max_lag_s = max_lag_s
        self._queue: deque[tuple[float, Block]] = deque()  # with the time of arrival
        self._queued = 0  # samples at 16 kHz
        self.dropped_s = 0.0
        self._ended = False
        self._thread = Thread(target=self._run, name=f"reads {source.name}", daemon=True)

    @property
    def ready(self) -> bool:
        """True if there is a block to take, or the end is reached."""
        return bool(self._queue) or self._ended

    @property
    def finished(self) -> bool:
        """True if the queue is empty and stays empty."""
        return self._ended and not self._queue

    def start(self) -> None:
        """Start to read."""
        self._thread.start()

    def take(self) -> Block | None:
        """Return the next block; None if the queue is empty."""
        with self._changed:
            if not self._queue:
                return None
            _, block = self._queue.popleft()
            self._queued -= len(block.samples)
            self._changed.notify_all()
            return block

    def stop(self) -> None:
        """Stop reading; what has been read can still be taken."""
        self._end()
        self.source.close()

    def _end(self, problem: str = "") -> None:
        with self._changed:
            self.problem = self.problem if self._ended else problem
            self._ended = True
            self._changed.notify_all()

    def _run(self) -> None:
        problem = UNEXPECTED  # after an error that is not a SatpipeError; threading prints it
        try:
            for block in self._blocks():
                if not self._put(block):
                    break
            problem = ""
        except SatpipeError as error:
            problem = str(error)
        finally:
            self._end(problem)

    def _blocks(self) -> Iterator[Block]:
        """Yield what arrives, mixed and resampled like the samples of a file."""
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
            samples, invalid = silence_invalid(mix(block))
            if invalid is not None and self.invalid_s is None:
                self.invalid_s = (frames + invalid) / rate_hz
            frames += len(block)
            samples = resampler.push(samples)
            yield Block(start, samples, frames / rate_hz, time_s, gap)
            start, gap = start + len(samples), ""
        yield Block(start, resampler.finish(), frames / rate_hz, time_s, gap)

    def _put(self, block: Block) -> bool:
        """Append a block to the queue; return False if no more are wanted."""
        with self._changed:
            if self.source.live and self._lags():
                self.dropped_s += self._queued / SAMPLE_RATE_HZ
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
        too_long = self._queued > LIVE_QUEUE_S * SAMPLE_RATE_HZ
        return too_long or (bool(self._queue) and monotonic() - self._queue[0][0] > self._max_lag_s)
