"""Tag one task: a plain function without Ray."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from time import perf_counter
from typing import Any

import pyarrow as pa
import torch
from satpipe.pipeline.recordings.decode import Reader
from satpipe.pipeline.recordings.levels import Levels
from satpipe.pipeline.recordings.recording import AudioInfo, Recording
from satpipe.pipeline.recordings.resample import resampled
from satpipe.pipeline.tables.schemas import staged_table
from satpipe.pipeline.tables.staged import SpanOutcome
from satpipe.pipeline.tagging.spans import Span
from satpipe.sat.errors import AudioError
from satpipe.sat.model.config import PATCH_SAMPLES, SAMPLE_RATE_HZ
from satpipe.sat.model.cutting import needed_chunks
from satpipe.sat.model.finite import check_finite
from satpipe.sat.taggers.interface import Tagger

STAGED_ROWS = 2048  # 4 MB of float32 scores


def tag_task(
    task: list[Span], tagger: Tagger, write: Callable[[pa.Table], None]
) -> tuple[list[SpanOutcome], dict[str, float]]:
    """Tag spans of recordings one after the other, their chunks sharing batches.

    A recording that cannot be read to its end gives an outcome with a status, never an exception; the audio before the
    break is tagged.

    Args:
        task: The spans.
        tagger: SAT, or any other tagger.
        write: Takes tables of scores and, if the tagger gives them, embeddings, schema `schemas.staged_schema`, a few
            thousand rows per call, in order.

    Raises:
        CheckpointError: A score is not a number; the message names the recording and the second.

    Returns:
        An outcome for each span, in order, and the time spent by stage: read (decode and resample), log_mel, model,
        write.
    """
    outcomes = [SpanOutcome(span.key) for span in task]
    seconds = dict.fromkeys(("read", "log_mel", "model", "write"), 0.0)
    rows = _Rows(task, tagger, write, seconds)
    begun = perf_counter()
    chunks = _chunks(task, outcomes, tagger, seconds)
    for (place, index), outputs in tagger.score_rows(chunks):
        if index >= task[place].start_chunk:
            rows.add(place, index, outputs)
            outcomes[place].chunks += 1
    rows.flush()
    seconds["model"] = perf_counter() - begun - sum(seconds.values())
    return outcomes, seconds


class _Rows:
    """Collects scores and writes them as tables, so that memory does not grow with a recording's length."""

    def __init__(
        self, task: list[Span], tagger: Tagger, write: Callable[[pa.Table], None], seconds: dict[str, float]
    ) -> None:
        self._task, self._tagger = task, tagger
        self._write = write
        self._seconds = seconds
        self._rows: list[tuple[int, int, torch.Tensor]] = []

    def add(self, place: int, index: int, outputs: torch.Tensor) -> None:
        self._rows.append((place, index, outputs))
        if len(self._rows) == STAGED_ROWS:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            with _clock(self._seconds, "write"):
                places, indices, outputs = zip(*self._rows, strict=True)
                together = torch.stack(outputs)
                check_finite(together, self._tagger.model, self._place)
                self._write(staged_table(list(places), list(indices), together.numpy()))
            self._rows = []

    def _place(self, row: int) -> str:
        """Return the recording and the second of a row."""
        place, index, _ = self._rows[row]
        second = index * self._tagger.chunk_samples / self._tagger.config.rate_hz
        return f"{self._task[place].recording.name}, second {second:.2f}"


def _chunks(
    task: list[Span], outcomes: list[SpanOutcome], tagger: Tagger, seconds: dict[str, float]
) -> Iterator[tuple[tuple[int, int], Any]]:
    """Yield ((place in the task, chunk number), chunk) for each span, including the warm-up chunks before it."""
    for place, (span, outcome) in enumerate(zip(task, outcomes, strict=True)):
        try:
            for chunk in _chunks_of(span, outcome, tagger, seconds):
                yield (place, chunk.index), chunk
        except AudioError as error:
            outcome.status, outcome.reason, outcome.broken = error.status, str(error), True


def _chunks_of(span: Span, outcome: SpanOutcome, tagger: Tagger, seconds: dict[str, float]) -> Iterator[Any]:
    recording, size = span.recording, tagger.chunk_samples
    begin, end = needed_chunks(tagger.config, span.start_chunk, span.stop_chunk or 0)
    start = begin * size - tagger.context_samples(begin)
    stop = None if span.stop_chunk is None else end * size + tagger.lookahead_samples
    stream = tagger.chunks(begin)
    levels = _levels(span, tagger)
    reader = Reader(recording.source.path, recording.info, recording.channel, start, tagger.config.rate_hz, levels)
    blocks = reader.blocks()
    at = start
    while stop is None or at < stop:
        with _clock(seconds, "read"):
            block = next(blocks, None)
        with _clock(seconds, "log_mel"):
            if block is None:
                chunks = stream.finish()
            else:
                block = block if stop is None else block[: stop - at]
                chunks = stream.push(torch.from_numpy(block))
        yield from (chunk for chunk in chunks if span.stop_chunk is None or chunk.index < span.stop_chunk)
        if block is None:
            break
        at += len(block)
    blocks.close()
    outcome.levels = asdict(levels)
    _conclude(outcome, recording, reader)


def _levels(span: Span, tagger: Tagger) -> Levels:
    """Return counts for the frames of a span's own chunks, so that every frame of a recording is counted once."""
    rate_hz = span.recording.info.rate_hz
    begin, end = (
        None if chunk is None else chunk * tagger.chunk_samples * rate_hz // tagger.config.rate_hz
        for chunk in (span.start_chunk, span.stop_chunk)
    )
    return Levels(rate_hz, begin or 0, end)


def _conclude(outcome: SpanOutcome, recording: Recording, reader: Reader) -> None:
    """Set the status of the recording at the end of the span: the most serious one that applies."""
    info = recording.info
    outcome.frames = reader.frames_read
    if reader.broken_s is not None and (part := info.file_at(reader.broken_s)):
        outcome.file = part.source.recording
    if reader.frames_read == 0:
        raise AudioError("it has a header, but nothing can be decoded")
    if reader.broken_s is not None:
        outcome.status, outcome.broken = "truncated", True
        announced = f" of {info.duration_s:.3f} s" if info.frames else ""
        outcome.reason = (
            f"decoding breaks off at {reader.broken_s:.3f} s{announced}{_place(info, reader, reader.broken_s)}"
        )
    elif info.problem:
        outcome.status = "truncated"
        outcome.reason = f"{info.problem}; it ends at {(info.frames or reader.frames_read) / info.rate_hz:.3f} s"
    elif reader.invalid_s is not None:
        outcome.status = "invalid samples"
        place = f"{reader.invalid_s:.3f} s{_place(info, reader, reader.invalid_s)}"
        outcome.reason = f"NaN, infinite or absurdly large samples, the first at {place}: treated as silence"
    elif resampled(reader.frames_read, info.rate_hz) < PATCH_SAMPLES:
        outcome.status = "short"
        outcome.reason = (
            f"{reader.frames_read / info.rate_hz:.3f} s is shorter than one patch ({PATCH_SAMPLES / SAMPLE_RATE_HZ} s)"
        )


def _place(info: AudioInfo, reader: Reader, second: float) -> str:
    """Return the file of a deployment, its second, and the problem there; "" for a single file."""
    part = info.file_at(second)
    if part is None:
        return ""
    problem = f": {reader.problem}" if reader.problem else ""
    return f", {second - part.begin / part.info.rate_hz:.3f} s of {part.source.recording}{problem}"


@contextmanager
def _clock(seconds: dict[str, float], stage: str) -> Iterator[None]:
    begun = perf_counter()
    yield
    seconds[stage] += perf_counter() - begun
