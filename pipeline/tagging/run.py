"""One run of `tag`: sources in, tables out, whatever happens in between."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple

from satpipe.pipeline.ray_engine import Engine, Lost
from satpipe.pipeline.recordings.audio_info import AudioInfo
from satpipe.pipeline.recordings.deployments import file_rows, header_columns, split
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.probing import PROBE_FILES, RETRIES, Unusable, probe_batch
from satpipe.pipeline.recordings.recording import Recording, recordings_of
from satpipe.pipeline.tables import schemas
from satpipe.pipeline.tables.output_folder import Finished, Output, TableOptions, new_name
from satpipe.pipeline.tables.staged import SpanKey, StagedSpan
from satpipe.pipeline.tagging.progress import Progress
from satpipe.pipeline.tagging.spans import Span, group, narrow, spans_of
from satpipe.pipeline.tagging.worker import WorkerOptions, publish, tag_and_stage
from satpipe.sat.errors import OutputError
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.taggers.interface import LoadedTagger

log = logging.getLogger("satpipe")


PUBLISH_CHUNKS = 60_000  # 32 h of SAT-2s: about 50 MB of scores in a file


PUBLISH_RECORDINGS = 20_000


SHORTEST_UNIT_S = 30.0  # what a unit of short recordings is worth at least, when there is little to share out


NOTE_EVERY_S = 10.0  # a line on progress in the log


class _Probe(NamedTuple):
    sources: list[Source]


class _Tag(NamedTuple):
    unit: list[Span]


class _Publish(NamedTuple):
    batch: list[Finished]


@dataclass
class _Open:
    """A recording whose spans are under way."""

    recording: Recording
    spans: dict[SpanKey, StagedSpan | Lost | None]


class TagRun:
    """Keeps workers busy until every source is in the tables."""

    def __init__(
        self,
        engine: Engine,
        output: Output,
        checkpoint: LoadedTagger,
        *,
        worker: WorkerOptions,
        table: TableOptions,
        channels: str,
        span_s: float,
    ) -> None:
        """Make a run ready; `go` starts it.

        Args:
            engine: Where work runs.
            output: Claimed for this run.
            checkpoint: The model.
            worker: What workers need to know.
            table: What decides on the rows of the tables.
            channels: As for `recordings_of`.
            span_s: Longest span.
        """
        self._engine = engine
        self._output = output
        self._config = checkpoint.config
        self._worker = worker
        self._table = table
        self._channels = channels
        self._span_s = span_s
        self._model = engine.share(checkpoint)
        self._staged = output.staged()
        self._probes = 0  # under way
        self._probed_s = 0.0
        self._probed_bytes = 0
        self._total_bytes = 0
        self._open: dict[str, _Open] = {}
        self._short: list[Span] = []  # recordings that wait for others to share a unit with
        self._planned: deque[list[Span]] = deque()  # units that wait for a worker
        self._ready: list[Finished] = []  # recordings that wait for others to share a file with
        self._ready_chunks = 0
        self._noted = monotonic()
        self.progress = Progress()

    def go(self, sources: Iterator[Source], files: int, size_bytes: int, report: Callable[[Progress], None]) -> None:
        """Tag all sources.

        Args:
            sources: What is to be tagged.
            files: How many there are.
            size_bytes: And how large, together.
            report: Called now and then.

        Raises:
            OutputError: The output cannot be written.
        """
        self.progress.files = files
        self._total_bytes = size_bytes
        try:
            while self._fill(sources):
                for ticket, result in self._engine.results(timeout_s=1.0):
                    self._take(ticket, result)
                self._publish(at_least=PUBLISH_RECORDINGS)
                report(self.progress)
                self._note_progress()
        except KeyboardInterrupt:
            # What is finished goes into the tables; what is staged waits for the next run.
            if self._ready:
                self._output.publish(self._ready, self._table, new_name())
            raise
        report(self.progress)
        self._output.finish()

    def _note_progress(self) -> None:
        if monotonic() - self._noted >= NOTE_EVERY_S:
            self._noted = monotonic()
            log.info("%.2f of %.2f h done", self.progress.done_s / 3600, self.progress.found_s / 3600)

    def _fill(self, sources: Iterator[Source]) -> bool:
        """Submit work until twice as much is under way as can run; return whether any is."""
        window = 2 * self._engine.width
        while self._engine.in_flight < window:
            if len(self._planned) < window and (batch := list(islice(sources, PROBE_FILES))):
                self._probe(batch)
                continue
            if not self._planned and not self._probes:
                self._group(last=True)
            if not self._planned:
                break
            self._submit(self._planned.popleft())
        if not self._engine.in_flight:
            self._publish(at_least=1)
        return self._engine.in_flight > 0

    def _probe(self, sources: list[Source]) -> None:
        self._probes += 1
        self._engine.submit(_Probe(sources), probe_batch, sources, retries=RETRIES if len(sources) == 1 else 0)

    def _submit(self, unit: list[Span]) -> None:
        # Several recordings whose worker dies are tried again apart, so that the one to blame is found.
        retries = RETRIES if len(unit) == 1 else 0
        spans = [narrow(span, self._config, self._worker.cut) for span in unit]
        self._engine.submit(_Tag(unit), tag_and_stage, spans, self._worker, self._model, retries=retries)

    def _group(self, *, last: bool) -> None:
        """Make units of the short recordings; the last unit waits for more of them unless these are the last."""
        fair_s = self.progress.found_s / (4 * self._engine.width)  # so that all workers have some
        unit_s = min(max(fair_s, SHORTEST_UNIT_S), self._span_s)
        units = list(group(self._short, self._config, self._worker.cut, unit_s))
        self._short = [] if last or not units else units.pop()
        self._planned += units

    def _take(self, ticket: _Probe | _Tag | _Publish, result: Any) -> None:
        match ticket:
            case _Probe(sources):
                self._take_headers(sources, result)
            case _Tag(unit):
                self._take_spans(unit, result)
            case _Publish(batch):
                if isinstance(result, Lost):
                    raise OutputError(f"{len(batch)} finished recordings could not be written: {result.reason}")

    def _take_headers(self, sources: list[Source], result: "list[AudioInfo | Unusable] | Lost") -> None:
        self._probes -= 1
        if isinstance(result, Lost):
            if len(sources) > 1:  # one of them is poison: look at each alone
                for source in sources:
                    self._probe([source])
                return
            result = [Unusable("worker died", result.reason)]
        for source, found in zip(sources, result, strict=True):
            self.progress.files_probed += 1
            self._probed_bytes += source.size_bytes
            if isinstance(found, Unusable):
                self._finish(source.recording, source, found.status, found.reason)
                continue
            for recording in recordings_of(source, found, self._channels):
                self._probed_s += found.duration_s
                if recording.channel and recording.channel > found.channels:
                    reason = f"it has {found.channels} channels, no channel {recording.channel}"
                    self._finish(recording.name, source, "unreadable", reason, files=file_rows(found))
                else:
                    self._plan(recording)
        unprobed = self.progress.files_probed < self.progress.files and self._probed_bytes
        self.progress.found_s = self._probed_s * (self._total_bytes / self._probed_bytes if unprobed else 1.0)
        self._group(last=False)

    def _plan(self, recording: Recording) -> None:
        """Cut a recording into spans, and take those that an earlier run has tagged."""
        spans = [Span(recording)]
        if spans[0].key not in self._staged:
            spans = spans_of(recording, self._config, self._worker.cut, self._span_s)
        self._open[recording.name] = _Open(recording, {span.key: None for span in spans})
        todo = [span for span in spans if span.key not in self._staged]
        if len(spans) > 1:
            self._planned += [[span] for span in todo]
        else:
            self._short += todo
        for span in spans:
            if span.key in self._staged:
                self.progress.resumed_s += span.duration_s(self._config, self._worker.cut)
                self._take_span(span, self._staged[span.key])

    def _take_spans(self, unit: list[Span], result: "tuple[list[StagedSpan], dict[str, float], str] | Lost") -> None:
        if isinstance(result, Lost):
            log.warning("lost %s: %s", _named(unit), result.reason)
        if isinstance(result, Lost) and len(unit) > 1:
            for span in unit:
                self._submit([span])
        elif isinstance(result, Lost):
            self._take_span(unit[0], result)
        else:
            staged, seconds, where = result
            self.progress.seconds.update(seconds)
            length_s = sum(span.duration_s(self._config, self._worker.cut) for span in unit)
            log.info("tagged %s: %.1f s of audio in %.2f s on %s", _named(unit), length_s, sum(seconds.values()), where)
            for span, done in zip(unit, staged, strict=True):
                self._take_span(span, done)

    def _take_span(self, span: Span, result: StagedSpan | Lost) -> None:
        """Note what became of a span, and whether that ends its recording."""
        name = span.recording.name
        current = self._open.get(name)
        if current is None or span.key not in current.spans:  # of a cut that was given up
            if isinstance(result, StagedSpan):
                self._output.discard([result.file])
            return
        self.progress.done_s += span.duration_s(self._config, self._worker.cut)
        if isinstance(result, StagedSpan) and result.outcome.broken and self._again(current, result):
            return
        current.spans[span.key] = result
        if None not in current.spans.values():
            del self._open[name]
            self._conclude(current)

    def _again(self, current: _Open, result: StagedSpan) -> bool:
        """Plan a recording anew that breaks off; return whether that was called for."""
        recording = current.recording
        behind = split(recording.info, result.outcome.file) if result.outcome.file else []
        if len(current.spans) == 1 and len(behind) < 2:
            return False
        staged = [each for each in [result, *current.spans.values()] if isinstance(each, StagedSpan)]
        self._output.discard(each.file for each in staged if each.spans == 1)
        if len(behind) > 1:  # the files behind the break are a deployment of their own
            del self._open[recording.name]
            for source, info in behind:
                made = recordings_of(source, info, self._channels)
                self._plan(next(each for each in made if each.channel == recording.channel))
            return True
        # The header is not to be believed: read it from start to break, in one go.
        whole = Span(recording)
        self._open[recording.name] = _Open(recording, {whole.key: None})
        self._planned.append([whole])
        return True

    def _conclude(self, current: _Open) -> None:
        """Make the row of a recording whose spans are all done."""
        recording, info = current.recording, current.recording.info
        staged = [span for span in current.spans.values() if isinstance(span, StagedSpan)]
        lost = [(key, span) for key, span in current.spans.items() if isinstance(span, Lost)]
        bad = [span.outcome for span in staged if span.outcome.status != "ok"]
        status, reason = (bad[0].status, bad[0].reason) if bad else ("ok", "")
        if lost:
            (_, _, _, start_chunk, stop_chunk), why = lost[0]
            chunk_s = self._table.chunk_samples / SAMPLE_RATE_HZ
            end_s = info.duration_s if stop_chunk is None else stop_chunk * chunk_s
            status = "worker died"
            first = info.file_at(start_chunk * chunk_s)
            place = f" ({first.source.recording})" if first else ""
            reason = f"nothing from {start_chunk * chunk_s:.2f} s{place} to {end_s:.2f} s: {why.reason}"
        frames = max((span.outcome.frames for span in staged if span.outcome.key[4] is None), default=info.frames)
        known = {
            "duration_s": frames / info.rate_hz if frames else None,
            "rate_hz": info.rate_hz,
            "channels": info.channels,
            "chunks": sum(span.outcome.chunks for span in staged),
            "files": file_rows(info),
            **header_columns(info),
        }
        self._finish(recording.name, recording.source, status, reason, staged, **known)

    def _finish(
        self, name: str, source: Source, status: str, reason: str, spans: Sequence[StagedSpan] = (), **known: Any
    ) -> None:
        row = schemas.recording_row(name, source.size_bytes, source.modified_ns, status, reason, **known)
        self.progress.recordings[status] += 1
        if status != "ok":
            log.warning("%s: %s: %s", name, status, reason)
        self._ready.append(Finished(row, list(spans)))
        self._ready_chunks += row["chunks"]

    def _publish(self, at_least: int) -> None:
        """Have what is finished written into the tables once it fills a file."""
        if self._ready_chunks >= PUBLISH_CHUNKS or len(self._ready) >= min(at_least, PUBLISH_RECORDINGS):
            args = (self._worker.folder, self._ready, self._table, new_name())
            log.info("publishing %d recordings, %d chunks", len(self._ready), self._ready_chunks)
            self._engine.submit(_Publish(self._ready), publish, *args, retries=RETRIES)
            self._ready, self._ready_chunks = [], 0


def _named(unit: list[Span]) -> str:
    first = unit[0]
    if len(unit) > 1:
        return f"{first.recording.name} and {len(unit) - 1} more"
    whole = first.start_chunk == 0 and first.stop_chunk is None
    return first.recording.name + ("" if whole else f" from chunk {first.start_chunk} to {first.stop_chunk}")
