"""One run of `tag`, from sources to tables."""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from time import monotonic

from satpipe.pipeline.ray_engine import RETRIES, Engine, Lost
from satpipe.pipeline.recordings.deployments import file_rows
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.probing import PROBE_FILES, Unusable, probe_batch
from satpipe.pipeline.recordings.recording import AudioInfo, Recording, name_of_whole, recordings_of
from satpipe.pipeline.tables.batches import Finished, TableOptions
from satpipe.pipeline.tables.files import new_name
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.staged import StagedSpan
from satpipe.pipeline.tagging.conclude import OpenRecording, row_of
from satpipe.pipeline.tagging.events import event
from satpipe.pipeline.tagging.planner import Planner
from satpipe.pipeline.tagging.progress import Progress
from satpipe.pipeline.tagging.spans import Span, narrow
from satpipe.pipeline.tagging.worker import WorkerOptions, publish, tag_and_stage
from satpipe.sat.errors import OutputError
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.printable import counted
from satpipe.sat.taggers.loaded import LoadedTagger

log = logging.getLogger("satpipe")

PUBLISH_CHUNKS = 60_000  # 32 h of SAT-2s: about 50 MB of scores in a file
PUBLISH_RECORDINGS = 20_000
NOTE_EVERY_S = 10.0  # seconds between lines on progress in the log


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
        span_s: float | None,
    ) -> None:
        """Prepare a run; `go` starts it.

        Args:
            engine: Runs the tasks.
            output: Claimed for this run.
            checkpoint: The model.
            worker: Options of the workers.
            table: Options of the tables.
            channels: As for `recordings_of`.
            span_s: Maximum length of a span; None: one with which workers get equal parts.
        """
        self._engine = engine
        self._output = output
        self._grid = (checkpoint.config, worker.cut)
        self._worker = worker
        self._table = table
        self._channels = channels
        self._model = engine.share(checkpoint)
        self._staged = output.staging.spans(table.embedding_size)
        self._planner = Planner(*self._grid, span_s, self._staged)
        self._unprobed = 0  # files whose headers are being read
        self._open: dict[str, OpenRecording] = {}
        self._ready: list[Finished] = []  # recordings that wait for others to share a file with
        self._ready_chunks = 0
        self._noted = monotonic()
        self.progress = Progress()
        engine.on_retry = self._note_retry

    def go(self, sources: Iterator[Source], files: int, size_bytes: int, report: Callable[[Progress], None]) -> None:
        """Tag all sources: `files` with `size_bytes` in total.

        Raises:
            OutputError: The output cannot be written.
        """
        self.progress.files, self.progress.size_bytes = files, size_bytes
        begun = monotonic()
        try:
            while self._fill(sources):
                for (take, items), result in self._engine.results(timeout_s=1.0):
                    take(items, result)
                self._publish(at_least=PUBLISH_RECORDINGS)
                self.progress.elapsed_s = monotonic() - begun
                report(self.progress)
                if monotonic() - self._noted >= NOTE_EVERY_S:
                    self._noted = monotonic()
                    log.info("done: %s", self.progress.text, extra=event("progress", **self.progress.figures()))
        except KeyboardInterrupt:
            # Finished recordings go into the tables; staged spans wait for the next run.
            if self._ready:
                self._output.batches.publish(self._ready, self._table, new_name())
            raise
        report(self.progress)
        self._output.finish()

    def _fill(self, sources: Iterator[Source]) -> bool:
        """Submit up to twice as many tasks as can run at the same time; return True if any is in flight."""
        window, tasks = self._engine.window, self._planner.tasks
        while self._engine.in_flight < window:
            if len(tasks) < window and (batch := list(islice(sources, PROBE_FILES))):
                self._unprobed += len(batch)
                self._engine.submit_items(self._take_headers, probe_batch, batch)
                continue
            if not tasks and not self._unprobed:
                self._group(last=True)
            if not tasks:
                break
            spans = [narrow(span, *self._grid) for span in tasks.popleft()]
            self._engine.submit_items(self._take_spans, tag_and_stage, spans, self._worker, self._model)
        if not self._engine.in_flight:
            self._publish(at_least=1)
        return self._engine.in_flight > 0

    def _group(self, *, last: bool) -> None:
        self._planner.group(self.progress.found_s / (4 * self._engine.width), last=last)

    def _take_headers(self, sources: list[Source], result: "list[AudioInfo | Unusable] | Lost") -> None:
        if isinstance(result, Lost):
            result = [Unusable("worker died", result.reason)]
        self._unprobed -= len(sources)
        for source, found in zip(sources, result, strict=True):
            self.progress.files_probed += 1
            self.progress.probed_bytes += source.size_bytes
            if isinstance(found, Unusable):
                self._finish(Finished(row_of(self._name(source), source, found.status, found.reason)))
                continue
            for recording in recordings_of(source, found, self._channels):
                if recording.channel and recording.channel > found.channels:
                    reason = f"it has {found.channels} channels, no channel {recording.channel}"
                    known = {"files": file_rows(found), "warnings": found.warnings}
                    row = row_of(recording.name, source, "unreadable", reason, **known)
                    self._finish(Finished(row))
                else:
                    spans = self._plan(recording)
                    self.progress.probed_s += sum(span.duration_s(*self._grid) for span in spans)
        self._group(last=False)

    def _name(self, source: Source) -> str:
        return name_of_whole(source.recording, split=self._channels == "split")

    def _plan(self, recording: Recording, *, whole: bool = False) -> list[Span]:
        """Plan a recording, and take spans that an earlier run has tagged; return all its spans."""
        spans = self._planner.add(recording, self._engine.width, whole=whole)
        self._open[recording.name] = OpenRecording(recording, {span.key: None for span in spans})
        for span in spans:
            if span.key in self._staged:
                self.progress.resumed_s += span.duration_s(*self._grid)
                self._take_span(span, self._staged[span.key])
        return spans

    def _take_spans(self, task: list[Span], result: "tuple[list[StagedSpan], dict[str, float], str] | Lost") -> None:
        if isinstance(result, Lost):
            log.warning("lost %s: %s", _named(task), result.reason)
            self._take_span(task[0], result)
            return
        staged, seconds, where = result
        self.progress.seconds.update(seconds)
        length_s = sum(span.duration_s(*self._grid) for span in task)
        log.info("tagged %s: %.1f s of audio in %.2f s on %s", _named(task), length_s, sum(seconds.values()), where)
        for span, done in zip(task, staged, strict=True):
            self._take_span(span, done)

    def _take_span(self, span: Span, result: StagedSpan | Lost) -> None:
        """Note the result of a span; with the last one its recording is finished."""
        name = span.recording.name
        current = self._open.get(name)
        if current is None or span.key not in current.spans:  # the recording was planned again
            if isinstance(result, StagedSpan):
                self._output.staging.discard([result.file])
            return
        self.progress.done_s += span.duration_s(*self._grid)
        current.spans[span.key] = result
        instead: list[Recording] = []
        if isinstance(result, StagedSpan) and result.outcome.broken:
            instead = current.instead(result.outcome.file, self._channels)
        if instead:
            self._note_retry([span], "decoding breaks off before the end that the header states")
            self._output.staging.discard(each.file for each in current.staged if each.spans == 1)
            del self._open[name]
            for recording in instead:
                self._plan(recording, whole=recording is current.recording)
        elif current.done:
            del self._open[name]
            self._finish(current.conclude(self._table.chunk_samples / SAMPLE_RATE_HZ))

    def _finish(self, finished: Finished) -> None:
        row = finished.row
        self.progress.recordings[row["status"]] += 1
        known = {name: row[name] for name in ("recording", "duration_s", "chunks", "status", "reason", "warnings")}
        if row["status"] == "ok":
            log.debug("%s: tagged", row["recording"], extra=event("recording_finished", **known))
        else:
            text = f"{row['status']}: {row['reason']}"
            log.warning("%s: %s", row["recording"], text, extra=event("recording_failed", **known))
        self._ready.append(finished)
        self._ready_chunks += row["chunks"]

    def _note_retry(self, items: Sequence[Source | Span], reason: str) -> None:
        """Note that files or spans are tried again."""
        for item in items:
            name = item.recording if isinstance(item.recording, str) else item.recording.name
            extra = event("recording_retried", recording=name, reason=reason)
            log.info("%s is tried again: %s", name, reason, extra=extra)

    def _publish(self, at_least: int) -> None:
        """Have finished recordings written into the tables when they fill a file."""
        if self._ready_chunks >= PUBLISH_CHUNKS or len(self._ready) >= min(at_least, PUBLISH_RECORDINGS):
            args = (self._worker.folder, self._ready, self._table, new_name())
            log.info("publishing %d recordings, %d chunks", len(self._ready), self._ready_chunks)
            self._engine.submit((_check_published, self._ready), publish, *args, retries=RETRIES)
            self._ready, self._ready_chunks = [], 0


def _check_published(batch: list[Finished], result: Lost | None) -> None:
    if isinstance(result, Lost):
        raise OutputError(f"could not be written: {counted(len(batch), 'finished recording')}: {result.reason}")


def _named(task: list[Span]) -> str:
    first = task[0]
    if len(task) > 1:
        return f"{first.recording.name} and {len(task) - 1} more"
    whole = first.start_chunk == 0 and first.stop_chunk is None
    return first.recording.name + ("" if whole else f" from chunk {first.start_chunk} to {first.stop_chunk}")
