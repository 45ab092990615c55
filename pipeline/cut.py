"""Plan the work: recordings to spans, spans to units that one worker tags in one go."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.decode import AudioInfo, exact_ratio, resampled
from pipeline.find import Source
from sat.config import SAMPLE_RATE_HZ, ChunkConfig
from sat.stream import Cut, chunk_samples

SPAN_S = 600.0  # with 23 s of warm-up for SAT-2s: 4 % of work done twice
UNIT_SPANS = 256  # recordings that may share a unit, however short


@dataclass(frozen=True)
class Recording:
    """A recording as the tables know it: a file, or one channel of it.

    Attributes:
        name: Its name in the tables.
        source: The file.
        channel: Channel to read, counted from 1; None for the mean of all.
        info: What the file's header says.
    """

    name: str
    source: Source
    channel: int | None
    info: AudioInfo


@dataclass(frozen=True)
class Span:
    """A part of a recording that is tagged in one go.

    Attributes:
        recording: What it is a part of.
        start_chunk: First chunk wanted.
        stop_chunk: The chunk after the last one wanted; None: to the end of the recording.
    """

    recording: Recording
    start_chunk: int = 0
    stop_chunk: int | None = None

    @property
    def key(self) -> "SpanKey":
        """What tells it from every other span, and from the same span of a file that has changed since."""
        source = self.recording.source
        return (self.recording.name, source.size_bytes, source.modified_ns, self.start_chunk, self.stop_chunk)

    def duration_s(self, config: ChunkConfig, cut: Cut) -> float:
        """Length in seconds, as far as the header can be believed."""
        chunk_s = chunk_samples(config, cut) / SAMPLE_RATE_HZ
        end_s = self.recording.info.duration_s if self.stop_chunk is None else self.stop_chunk * chunk_s
        return max(0.0, end_s - self.start_chunk * chunk_s)


SpanKey = tuple[str, int, int, int, int | None]


def recordings_of(source: Source, info: AudioInfo, channels: str) -> list[Recording]:
    """Return what is to be tagged of a file.

    Args:
        source: The file.
        info: Its header.
        channels: `mix`, `split` (each channel is a recording of its own, called `name#ch1`, `name#ch2`, ...) or the
            number of a channel, counted from 1.
    """
    if channels == "mix" or (channels == "split" and info.channels == 1):
        return [Recording(source.recording, source, None, info)]
    if channels == "split":
        numbers = range(1, info.channels + 1)
        return [Recording(f"{source.recording}#ch{number}", source, number, info) for number in numbers]
    return [Recording(source.recording, source, int(channels), info)]


def spans_of(recording: Recording, config: ChunkConfig, cut: Cut, span_s: float = SPAN_S) -> list[Span]:
    """Cut a recording into spans of at most `span_s`; one that cannot be read exactly from its middle stays whole."""
    info, size = recording.info, chunk_samples(config, cut)
    samples = resampled(info.frames, info.rate_hz, config.rate_hz)
    chunks = -(-samples * SAMPLE_RATE_HZ // (size * config.rate_hz))
    per_span = max(1, int(span_s * SAMPLE_RATE_HZ) // size)
    if chunks <= per_span or not (info.exact_seek and exact_ratio(info.rate_hz, config.rate_hz)):
        return [Span(recording)]
    starts = range(0, chunks, per_span)
    return [Span(recording, start, start + per_span if start + per_span < chunks else None) for start in starts]


def group(spans: Iterable[Span], config: ChunkConfig, cut: Cut, unit_s: float) -> Iterator[list[Span]]:
    """Put short spans together into units of about `unit_s` seconds; order is kept."""
    unit: list[Span] = []
    total_s = 0.0
    for span in spans:
        duration_s = span.duration_s(config, cut)
        if unit and (total_s + duration_s > unit_s or len(unit) == UNIT_SPANS):
            yield unit
            unit, total_s = [], 0.0
        unit.append(span)
        total_s += duration_s
    if unit:
        yield unit
