"""Live sources to scores: a thread that reads for each, one loop with the model for all.

Time is counted in samples, from the first one of a source on, gaps included. A gap of up to FILLED_S is filled with
digital silence. After a longer one the source is a new recording: what was heard of the chunk before it is scored as
it is, and the grid of chunks and the memory begin anew where sound comes again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Condition
from time import monotonic, time

import torch
from satpipe.pipeline.live.reader_thread import POLL_S, Block, SourceReader
from satpipe.pipeline.live.source import MAX_LAG_S, LiveSource
from satpipe.sat.model.concurrent_streams import BatchTagger
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.model.streaming import chunk_samples
from torch import Tensor

FILLED_S = 1.0
GATHER_S = 0.005  # a chunk waits so long for those of other sources, to share a batch


@dataclass(frozen=True)
class StreamChunk:
    """Scores of a chunk.

    Attributes:
        source: Where it was heard.
        chunk: Its number, counted from 0 over the whole stream.
        start_s: Where it starts, seconds from the stream's first sample on.
        end_s: Where it ends.
        time_s: When its last sample was read, seconds since 1970.
        scores: [527].
    """

    source: LiveSource
    chunk: int
    start_s: float
    end_s: float
    time_s: float
    scores: Tensor


@dataclass(frozen=True)
class StreamGap:
    """A gap.

    Attributes:
        source: Where it was.
        start_s: Where it starts, seconds from the stream's first sample on.
        gap_s: How long it is; 0 where nobody knows.
        reason: Why, in words.
        filled: With silence; else chunks and memory begin anew after it.
        time_s: When sound came again, seconds since 1970.
    """

    source: LiveSource
    start_s: float
    gap_s: float
    reason: str
    filled: bool
    time_s: float


@dataclass(frozen=True)
class StreamEnd:
    """The end of a source.

    Attributes:
        source: Which one.
        end_s: Where, seconds from the stream's first sample on.
        chunks: Chunks scored.
        gaps: Gaps in it.
        missed_s: Their length together.
        dropped_s: The part of it that this machine was too slow for.
        invalid_s: Where the first sample is that is none, and was taken for silence; None: nowhere.
        problem: Why it broke off, or "".
    """

    source: LiveSource
    end_s: float
    chunks: int
    gaps: int
    missed_s: float
    dropped_s: float
    invalid_s: float | None
    problem: str


def tag_sources(
    sources: Sequence[LiveSource],
    tagger: "BatchTagger[_Stream]",
    stopped: Callable[[], bool] = lambda: False,
    max_lag_s: float = MAX_LAG_S,
) -> Iterator[StreamChunk | StreamGap | StreamEnd]:
    """Tag sources until all have ended.

    Args:
        sources: Opened; they are closed at the end.
        tagger: The model.
        stopped: Asked now and then: once it is true, what is here is scored, and that is the end.
        max_lag_s: How long sound of a source that cannot wait may wait for the model before it is dropped.
    """
    changed = Condition()
    streams = [_Stream(SourceReader(source, changed, max_lag_s), tagger) for source in sources]
    running = list(streams)
    try:
        for stream in streams:
            stream.reader.start()
        while running:
            yield from _gather(running, changed, stopped)
            for scored in tagger.step():
                yield scored.stream.heard(scored.index, scored.scores)
            for stream in [stream for stream in running if stream.over]:
                running.remove(stream)
                yield stream.end()
    finally:
        for stream in streams:
            stream.reader.stop()


def _gather(running: "list[_Stream]", changed: Condition, stopped: Callable[[], bool]) -> Iterator[StreamGap]:
    """Take in what has come until a chunk is ready, and a little longer for those of other streams."""
    deadline_s = None
    while not any(stream.over for stream in running):
        if stopped():
            for stream in running:
                stream.reader.stop()
        for stream in running:
            yield from stream.advance()
        ready = [stream.ready for stream in running]
        if any(ready) and deadline_s is None:
            deadline_s = monotonic() + GATHER_S
        if all(ready) or (deadline_s is not None and monotonic() >= deadline_s):
            return
        with changed:
            if not any(stream.can_advance for stream in running):
                changed.wait(POLL_S if deadline_s is None else GATHER_S)


class _Stream:
    """One source's way through the model."""

    def __init__(self, reader: SourceReader, tagger: "BatchTagger[_Stream]") -> None:
        self.reader = reader
        self._tagger = tagger
        self._size = chunk_samples(tagger.model.config, tagger.cut)
        self._base = self._at = 0  # in samples: where the grid of chunks starts, and what is pushed ends
        self._read_s, self._time_s = 0.0, time()  # of the block pushed last
        self._pending: Block | None = None  # after a gap that has been come to
        self._finished = False  # the recording, for a gap or for good
        self._chunks = self._gaps = 0
        self._missed_s = 0.0

    @property
    def ready(self) -> bool:
        """Whether a chunk waits for the model."""
        return self._tagger.waits(self)

    @property
    def can_advance(self) -> bool:
        """Whether `advance` would find something to do."""
        return not self.ready and (self._pending is not None or self.reader.waiting)

    @property
    def over(self) -> bool:
        """Whether all that will come has been scored."""
        return self.reader.over and self._pending is None and self._finished and not self.ready

    def advance(self) -> Iterator[StreamGap]:
        """Push what has come until a chunk is ready; no more than that, so that what waits is counted as waiting."""
        while not self.ready:
            block, self._pending = self._pending or self.reader.take(), None
            if block is None:
                if self.reader.over and not self._finished:
                    self._finish()
                    continue
                return
            if block.gap:
                missed = self._gap(block)
                if not missed.filled and not self._finished:
                    self._finish()
                    self._pending = block
                    continue  # the chunk before the gap comes first
                self._cross(missed, block)
                yield missed
            self._push(torch.from_numpy(block.samples))
            self._read_s, self._time_s = block.read_s, block.time_s

    def _gap(self, block: Block) -> StreamGap:
        gap_s = max(0, block.start - self._at) / SAMPLE_RATE_HZ
        filled = gap_s <= FILLED_S
        return StreamGap(self.reader.source, self._at / SAMPLE_RATE_HZ, gap_s, block.gap, filled, block.time_s)

    def _cross(self, missed: StreamGap, block: Block) -> None:
        self._gaps += 1
        self._missed_s += missed.gap_s
        if missed.filled:
            self._push(torch.zeros(max(0, block.start - self._at)))
        else:
            self._base = self._at = block.start

    def _push(self, samples: Tensor) -> None:
        if len(samples):
            self._tagger.push(self, samples)
            self._at += len(samples)
            self._finished = False

    def _finish(self) -> None:
        self._tagger.finish(self)
        self._finished = True

    def heard(self, index: int, scores: Tensor) -> StreamChunk:
        """Say where and when a chunk was."""
        start = self._base + index * self._size
        # Of a last chunk that is not full, where reading ended; where reading went on and what came was dropped, here.
        heard_s = min(self._read_s, (self._at + 1) / SAMPLE_RATE_HZ)
        end_s = min((start + self._size) / SAMPLE_RATE_HZ, heard_s)
        time_s = self._time_s - (self._read_s - end_s)
        self._chunks += 1
        return StreamChunk(self.reader.source, self._chunks - 1, start / SAMPLE_RATE_HZ, end_s, time_s, scores)

    def end(self) -> StreamEnd:
        """Say how it went."""
        reader = self.reader
        return StreamEnd(
            reader.source, self._read_s, self._chunks, self._gaps, self._missed_s, reader.dropped_s,
            reader.invalid_s, reader.problem,
        )  # fmt: skip
