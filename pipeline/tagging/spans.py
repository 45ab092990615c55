"""Spans: the parts of recordings that are tagged in one call, and their grouping into tasks."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil

from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.recording import Recording
from satpipe.pipeline.recordings.resample import exact_ratio, resampled
from satpipe.pipeline.tables.staged import SpanKey
from satpipe.sat.model.config import SAMPLE_RATE_HZ, ChunkConfig, Cut
from satpipe.sat.model.cutting import chunk_samples, needed_chunks

_MARGIN_S = 1.0  # for resampling and for frames that reach beyond a chunk
SPAN_S = 600.0
WARMED_UP = 0.01  # maximum share of a long span, if workers are few
TASK_SPANS = 256  # maximum number of recordings per task


@dataclass(frozen=True)
class Span:
    """A part of a recording that is tagged in one call; `stop_chunk` is None for the recording's end."""

    recording: Recording
    start_chunk: int = 0
    stop_chunk: int | None = None

    @property
    def key(self) -> SpanKey:
        """Key of the span, which changes when the file changes."""
        source = self.recording.source
        return (self.recording.name, source.size_bytes, source.modified_ns, self.start_chunk, self.stop_chunk)

    def duration_s(self, config: ChunkConfig, cut: Cut) -> float:
        """Length in seconds, according to the header."""
        chunk_s = chunk_samples(config, cut) / SAMPLE_RATE_HZ
        end_s = self.recording.info.duration_s if self.stop_chunk is None else self.stop_chunk * chunk_s
        return max(0.0, end_s - self.start_chunk * chunk_s)


def fair_span_s(recording: Recording, config: ChunkConfig, cut: Cut, workers: int) -> float:
    """Return the length of spans with which workers get equal parts of a recording.

    Spans of 10 minutes; if these are more than there are workers, then longer ones, until they have to be warmed up for
    1 % of their length.
    """
    duration_s, chunk_s = recording.info.duration_s, chunk_samples(config, cut) / SAMPLE_RATE_HZ
    spans = ceil(duration_s / SPAN_S)
    if spans > workers:
        warm_up_s = config.grids * config.warmup_chunks * chunk_s
        spans = workers * ceil(duration_s / (workers * max(SPAN_S, warm_up_s / WARMED_UP)))
    return max(SPAN_S, duration_s / max(1, spans) + chunk_s)  # a chunk more, or the rest would be a span


def spans_of(
    recording: Recording,
    config: ChunkConfig,
    cut: Cut,
    span_s: float,
    tagged: Iterable[tuple[int, int | None]] = (),
) -> list[Span]:
    """Cut a recording into spans of at most `span_s`, unless it cannot be read exactly from its middle.

    Chunks within a quiet stretch belong to no span, if it is longer than the context of the chunk after it.

    Args:
        recording: The recording.
        config: Configuration of the model.
        cut: The chunking mode.
        span_s: Maximum length.
        tagged: Spans that are tagged, first chunk and the chunk after the last; they are kept as they are.
    """
    info, size = recording.info, chunk_samples(config, cut)
    samples = resampled(info.frames, info.rate_hz, config.rate_hz)
    chunks = -(-samples * SAMPLE_RATE_HZ // (size * config.rate_hz))
    per_span = max(1, int(span_s * SAMPLE_RATE_HZ) // size)
    if not (info.exact_seek and exact_ratio(info.rate_hz, config.rate_hz)):
        return [Span(recording)]
    sounding, at = [], 0
    for begin, end in info.quiet:
        first = -(-begin * SAMPLE_RATE_HZ // (size * info.rate_hz))
        last = end * SAMPLE_RATE_HZ // (size * info.rate_hz) if end < info.frames else chunks
        if needed_chunks(config, last, 0)[0] > needed_chunks(config, 0, first)[1]:
            sounding.append((at, first))
            at = last
    sounding.append((at, chunks))
    kept = sorted((start, chunks if stop is None else stop) for start, stop in tagged)
    bounds = [bound for begin, stop in sounding for bound in _around(kept, begin, stop, per_span)] or [
        (0, min(1, chunks))
    ]
    return [Span(recording, start, None if stop == chunks else stop) for start, stop in bounds]


def _around(kept: list[tuple[int, int]], at: int, stop: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield bounds from one chunk to another: those kept, and between them equal ones of at most `most` chunks."""
    for start, end in [*kept, (stop, stop)]:
        if at <= start <= end <= stop:
            between, parts = start - at, ceil((start - at) / most)
            yield from ((at + between * n // parts, at + between * (n + 1) // parts) for n in range(parts))
            if start < end:
                yield start, end
            at = end


def group(spans: Iterable[Span], config: ChunkConfig, cut: Cut, task_s: float) -> Iterator[list[Span]]:
    """Group short spans into tasks of about `task_s` seconds; order is kept."""
    task: list[Span] = []
    total_s = 0.0
    for span in spans:
        duration_s = span.duration_s(config, cut)
        if task and (total_s + duration_s > task_s or len(task) == TASK_SPANS):
            yield task
            task, total_s = [], 0.0
        task.append(span)
        total_s += duration_s
    if task:
        yield task


def narrow(span: Span, config: ChunkConfig, cut: Cut) -> Span:
    """Return the span with only those files of its deployment that it needs: a deployment can have thousands."""
    recording, info = span.recording, span.recording.info
    if not info.parts:
        return span
    chunk_s = chunk_samples(config, cut) / SAMPLE_RATE_HZ
    begin, end = needed_chunks(config, span.start_chunk, span.stop_chunk or 0)
    from_frame = (begin * chunk_s - _MARGIN_S) * info.rate_hz
    to_frame = info.frames if span.stop_chunk is None else (end * chunk_s + _MARGIN_S) * info.rate_hz
    first = max(0, bisect_right(info.parts, from_frame, key=lambda part: part.begin) - 1)
    last = bisect_left(info.parts, to_frame, key=lambda part: part.begin)
    few = replace(info, parts=info.parts[first:last])
    source = recording.source
    plain = Source(source.recording, source.path, source.size_bytes, source.modified_ns)
    return replace(span, recording=replace(recording, source=plain, info=few))
