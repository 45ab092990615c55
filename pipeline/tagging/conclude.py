"""Combine the results of spans into the row of their recording."""

from dataclasses import dataclass
from typing import Any

from satpipe.pipeline.ray_engine import Lost
from satpipe.pipeline.recordings.deployments import file_rows, header_columns, split
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.levels import Levels, together
from satpipe.pipeline.recordings.recording import Recording, recordings_of
from satpipe.pipeline.tables.batches import Finished
from satpipe.pipeline.tables.schemas import recording_row
from satpipe.pipeline.tables.staged import SpanKey, StagedSpan


@dataclass
class OpenRecording:
    """A recording whose spans are being tagged.

    Attributes:
        spans: The result of each span, in chronological order; None while it is being tagged.
    """

    recording: Recording
    spans: dict[SpanKey, StagedSpan | Lost | None]

    @property
    def done(self) -> bool:
        """True if all spans have a result."""
        return None not in self.spans.values()

    @property
    def staged(self) -> list[StagedSpan]:
        """The spans that are tagged, in chronological order."""
        return [span for span in self.spans.values() if isinstance(span, StagedSpan)]

    def instead(self, broken: str, channels: str) -> list[Recording]:
        """Return the recordings to plan instead of this one, since decoding breaks off; [] to keep this one.

        A deployment is split after the `broken` file. The header of a single file cannot be trusted: the file is read
        again from its start to the break, in one task. `channels` is that of `recordings_of`.
        """
        made = split(self.recording.info, broken) if broken else []
        if len(made) < 2:
            return [self.recording] if len(self.spans) > 1 else []
        each = (recording for source, info in made for recording in recordings_of(source, info, channels))
        return [recording for recording in each if recording.channel == self.recording.channel]

    def conclude(self, chunk_s: float) -> Finished:
        """Return the recording for the tables; all its spans must have a result.

        `chunk_s` is the time from the start of a chunk to the start of the next.
        """
        info, staged = self.recording.info, self.staged
        bad = [span.outcome for span in staged if span.outcome.status != "ok"]
        status, reason = (bad[0].status, bad[0].reason) if bad else ("ok", "")
        lost = [(key, span) for key, span in self.spans.items() if isinstance(span, Lost)]
        if lost:
            (_, _, _, start_chunk, stop_chunk), why = lost[0]
            start_s, end_s = start_chunk * chunk_s, info.duration_s if stop_chunk is None else stop_chunk * chunk_s
            first = info.file_at(start_s)
            place = f" ({first.source.recording})" if first else ""
            status, reason = "worker died", f"nothing from {start_s:.2f} s{place} to {end_s:.2f} s: {why.reason}"
        frames = max((span.outcome.frames for span in staged if span.outcome.key[4] is None), default=info.frames)
        known = {
            "duration_s": frames / info.rate_hz if frames else None,
            "rate_hz": info.rate_hz,
            "channels": info.channels,
            "chunks": sum(span.outcome.chunks for span in staged),
            "files": file_rows(info),
            "warnings": self._warnings(),
            **header_columns(info),
        }
        return Finished(row_of(self.recording.name, self.recording.source, status, reason, **known), staged)

    def _warnings(self) -> list[str]:
        """Return the warnings from the header and about the samples."""
        levels = together(Levels(**span.outcome.levels) for span in self.staged if span.outcome.levels)
        return [*self.recording.info.warnings, *(levels.warnings() if levels else ())]


def row_of(name: str, source: Source, status: str, reason: str, **known: Any) -> dict[str, Any]:
    """Return the row of a recording; unknown columns are null."""
    return recording_row(name, source.size_bytes, source.modified_us, status, reason, **known)
