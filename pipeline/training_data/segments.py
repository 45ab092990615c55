"""The segments of clips that a teacher labels."""

import math
from dataclasses import dataclass
from typing import Annotated

from satpipe.pipeline.option import Option, Options
from satpipe.sat.model.config import CLASSES


@dataclass(frozen=True)
class SegmentOptions(Options):
    """Options that set how clips are cut into segments, and which scores are kept."""

    piece_s: Annotated[float, Option("Length of a segment in seconds: two chunks of the student.", minimum=0.5)] = 4.0
    hop_s: Annotated[
        float | None,
        Option("Seconds from the start of one segment to the start of the next; by default its length.", minimum=0.1),
    ] = None
    top_k: Annotated[int, Option("Maximum number of classes per segment.", minimum=1, maximum=CLASSES)] = 10
    min_score: Annotated[float, Option("Minimum score that is kept.", minimum=0, maximum=1)] = 0.0


def segment_starts_s(duration_s: float, options: SegmentOptions) -> list[float]:
    """Return the starts of the segments of a clip; the last one reaches the clip's end or extends past it."""
    hop_s = options.hop_s or options.piece_s
    count = 1 + max(0, math.ceil((duration_s - options.piece_s) / hop_s - 1e-6))
    return [number * hop_s for number in range(count)]
