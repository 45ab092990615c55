"""Turn live sources into scores: a reader thread for each, one loop with the model for all.

Time is counted in samples from the first one of a source, gaps included. A gap of up to FILLED_S is filled with
digital silence. A longer one ends the recording: the incomplete chunk before it is scored as it is, and the chunk grid
and the memory restart where audio arrives again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Condition
from time import monotonic, time
from typing import Any

import torch
from satpipe.pipeline.live.reader_thread import POLL_S, Block, SourceReader
from satpipe.pipeline.live.source import MAX_LAG_S, LiveSource
from satpipe.sat.model.concurrent_streams import BatchTagger, Scored
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.model.cutting import chunk_samples
from satpipe.sat.model.finite import check_finite
from torch import Tensor

FILLED_S = 1.0
GATHER_S = 0.005  # how long a chunk waits for chunks of other sources, to share a batch


@dataclass(frozen=True)
class StreamChunk:
    """A scored chunk.

    Attributes:
        chunk: Its number, counted from 0 over the whole stream.
        start_s: Its start, in seconds from the stream's first sample.
        time_s: Time at which its last sample was read, in seconds since 1970.
        scores: [527].
        embedding: [D]; D is 0 unless the tagger gives embeddings.
    """

    source: LiveSource
    chunk: int
    start_s: float
    end_s: float
    time_s: float
    scores: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class StreamGap:
    """A gap in a stream.

    Attributes:
        start_s: Its start, in seconds from the stream's first sample.
        gap_s: Its length; 0 if unknown.
        filled: True if it is filled with silence; otherwise chunks and memory restart after it.
        time_s: Time at which audio arrived again, in seconds since 1970.
    """

    source: LiveSource
    start_s: float
    gap_s: float
    reason: str
    filled: bool
    time_s: float


@dataclass
class StreamEnd:
    """The end of a source.

    Attributes:
        end_s: Position of the end, in seconds from the stream's first sample.
        chunks: Number of chunks scored.
        missed_s: Total length of the gaps.
        dropped_s: The part of it for which this machine was too slow.
        invalid_s: Position of the first invalid sample, which was replaced with silence; None if there is none.
        problem: Why the source broke off, or "".
    """

    source: LiveSource
    end_s: float = 0.0
    chunks: int = 0
    gaps: int = 0
    missed_s: float = 0.0
    dropped_s: float = 0.0
    invalid_s: float | None = None
    problem: str = ""


def tag_sources(
    sources: Sequence[LiveSource],
    tagger: "BatchTagger[_Stream]",
    stopped: Callable[[], bool] = lambda: False,
    max_lag_s: float = MAX_LAG_S,
) -> Iterator[StreamChunk | StreamGap | StreamEnd]:
    """Tag sources until all have ended.

    Args:
        sources: Open sources; they are closed at the end.
        tagger: The model.
        stopped: Called repeatedly; when it returns True, what has been read is scored, and tagging ends.
        max_lag_s: Maximum seconds that audio of a live source may wait for the model; after that it is dropped.
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
                yield scored.stream.chunk(scored)
            for stream in [stream for stream in running if stream.finished]:
                running.remove(stream)
                yield stream.end()
    finally:
        for stream in streams:
            stream.reader.stop()


def _gather(running: "list[_Stream]", changed: Condition, stopped: Callable[[], bool]) -> Iterator[StreamGap]:
    """Push what has arrived until a chunk is ready, and a little longer for chunks of other streams."""
    deadline_s = None
    while not any(stream.finished for stream in running):
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
    """One source on its way through the model."""

    def __init__(self, reader: SourceReader, tagger: "BatchTagger[_Stream]") -> None:
        self.reader = reader
        self._tagger = tagger
        self._size = chunk_samples(tagger.model.config, tagger.cut)
        self._base = self._at = 0  # in samples: where the chunk grid starts, and where the pushed samples end
        self._read_s, self._time_s = 0.0, time()  # of the last block pushed
        self._pending: Block | None = None  # the first one after a gap
        self._flushed = False  # True if the incomplete chunk is pushed, before a gap or at the end
        self._summary = StreamEnd(reader.source)

    @property
    def ready(self) -> bool:
        """True if a chunk is waiting for the model."""
        return self._tagger.waits(self)

    @property
    def can_advance(self) -> bool:
        """True if `advance` has something to do."""
        return not self.ready and (self._pending is not None or self.reader.ready)

    @property
    def finished(self) -> bool:
        """True if everything has been scored."""
        return self.reader.finished and self._pending is None and self._flushed and not self.ready

    def advance(self) -> Iterator[StreamGap]:
        """Push what has arrived, but only until a chunk is ready: waiting audio counts as lag."""
        while not self.ready:
            block, self._pending = self._pending or self.reader.take(), None
            if block is None:
                if self.reader.finished and not self._flushed:
                    self._flush()
                    continue
                return
            if block.gap:
                gap = self._gap(block)
                if not gap.filled and not self._flushed:
                    self._flush()
                    self._pending = block
                    continue  # the chunk before the gap is scored first
                self._cross(gap, block)
                yield gap
            self._push(torch.from_numpy(block.samples))
            self._read_s, self._time_s = block.read_s, block.time_s

    def _gap(self, block: Block) -> StreamGap:
        gap_s = max(0, block.start - self._at) / SAMPLE_RATE_HZ
        filled = gap_s <= FILLED_S
        return StreamGap(self.reader.source, self._at / SAMPLE_RATE_HZ, gap_s, block.gap, filled, block.time_s)

    def _cross(self, gap: StreamGap, block: Block) -> None:
        self._summary.gaps += 1
        self._summary.missed_s += gap.gap_s
        if gap.filled:
            self._push(torch.zeros(max(0, block.start - self._at)))
        else:
            self._base = self._at = block.start

    def _push(self, samples: Tensor) -> None:
        if len(samples):
            self._tagger.push(self, samples)
            self._at += len(samples)
            self._flushed = False

    def _flush(self) -> None:
        self._tagger.finish(self)
        self._flushed = True

    def chunk(self, scored: Scored[Any]) -> StreamChunk:
        """Return a scored chunk with its position and time."""
        start = self._base + scored.index * self._size
        # An incomplete last chunk ends where reading ended or, if later audio was read and dropped, at the last sample.
        end_of_audio_s = min(self._read_s, (self._at + 1) / SAMPLE_RATE_HZ)
        end_s = min((start + self._size) / SAMPLE_RATE_HZ, end_of_audio_s)
        time_s = self._time_s - (self._read_s - end_s)
        place = f"{self.reader.source.name}, second {start / SAMPLE_RATE_HZ:.2f}"
        check_finite(scored.scores[None], self._tagger.model, lambda _: place)
        number, self._summary.chunks = self._summary.chunks, self._summary.chunks + 1
        start_s = start / SAMPLE_RATE_HZ
        return StreamChunk(self.reader.source, number, start_s, end_s, time_s, scored.scores, scored.embedding)

    def end(self) -> StreamEnd:
        """Return the summary of the source."""
        reader, summary = self.reader, self._summary
        summary.end_s, summary.problem = self._read_s, reader.problem
        summary.dropped_s, summary.invalid_s = reader.dropped_s, reader.invalid_s
        return summary
