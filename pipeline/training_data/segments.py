"""The segments of clips that a teacher labels, and the chunks within them."""

import math
from dataclasses import asdict, dataclass
from typing import Annotated

from satpipe.pipeline.option import Option, Options
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import CLASSES


@dataclass(frozen=True)
class SegmentOptions(Options):
    """Options that set how clips are cut into segments, and which scores are kept."""

    piece_s: Annotated[float, Option("Length of a segment in seconds: two chunks of the student.", minimum=0.5)] = 4.0
    hop_s: Annotated[
        float | None,
        Option("Seconds from the start of one segment to the start of the next; by default its length.", minimum=0.1),
    ] = None
    chunk_s: Annotated[
        float | None,
        Option(
            "Also label each chunk of a segment: length of a chunk in seconds, 1.92 for 2 s models, 0.96 for 1 s "
            "models.",
            minimum=0.1,
        ),
    ] = None
    context_chunks: Annotated[
        int, Option("With --chunk-s: number of earlier chunks that the teacher hears with a chunk.", minimum=0)
    ] = 1
    top_k: Annotated[int, Option("Maximum number of classes per segment.", minimum=1, maximum=CLASSES)] = 10
    min_score: Annotated[float, Option("Minimum score that is kept.", minimum=0, maximum=1)] = 0.0

    def __post_init__(self) -> None:
        """Check that a segment has a whole chunk.

        Raises:
            ConfigError: It is shorter.
        """
        if self.chunk_s is not None and not self.chunks:
            raise ConfigError(f"--chunk-s must be at most --piece-s, {self.piece_s:g} s, not {self.chunk_s:g} s")

    @property
    def chunks(self) -> int:
        """Number of chunks of a segment that are labelled."""
        return 0 if self.chunk_s is None else int(self.piece_s / self.chunk_s + 1e-6)

    def described(self) -> dict[str, object]:
        """Return the options by name; without `context_chunks` if no chunks are labelled."""
        return {name: value for name, value in asdict(self).items() if self.chunks or name != "context_chunks"}

    def chunk_spans_s(self, start_s: float) -> list[tuple[float, float]]:
        """Return start and length of what the teacher hears for each chunk of a segment that starts at `start_s`."""
        size = self.chunk_s or 0.0
        spans = chunk_spans(self.chunks, self.context_chunks)
        return [(start_s + first * size, (end - first) * size) for first, end in spans]


def segment_starts_s(duration_s: float, options: SegmentOptions) -> list[float]:
    """Return the starts of the segments of a clip; the last one reaches the clip's end or extends past it."""
    hop_s = options.hop_s or options.piece_s
    count = 1 + max(0, math.ceil((duration_s - options.piece_s) / hop_s - 1e-6))
    return [number * hop_s for number in range(count)]


def chunk_spans(chunks: int, context_chunks: int) -> list[tuple[int, int]]:
    """Return what a teacher hears for each chunk of a sequence: the first chunk, and the end.

    That is the chunk and the given number of chunks before it, as far as the sequence has them.
    """
    return [(max(0, chunk - context_chunks), chunk + 1) for chunk in range(chunks)]
