"""`satpipe stream`: tag live audio and print lines of JSON."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import time
from types import FrameType
from typing import Any

import numpy as np
import torch
from satpipe.jobs.options.tag import StreamOptions
from satpipe.pipeline.live.open_source import open_source
from satpipe.pipeline.live.raw_samples import ENCODINGS
from satpipe.pipeline.live.source import LiveSource
from satpipe.pipeline.live.stdin_and_files import STDIN
from satpipe.pipeline.live.tag_live import StreamChunk, StreamEnd, StreamGap, tag_sources
from satpipe.pipeline.tables.schemas import best_labels
from satpipe.sat.errors import ConfigError
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.concurrent_streams import BatchTagger
from satpipe.sat.model.config import AUTO, MEL_BANDS, SAMPLE_RATE_HZ
from satpipe.sat.model.cutting import chunk_samples
from satpipe.sat.model.network import SAT
from satpipe.sat.model.precision import dtype_for
from satpipe.sat.own_classes import OwnClasses, read_own_classes
from satpipe.sat.printable import printable
from satpipe.sat.taggers.fastest import compare
from satpipe.sat.taggers.interface import CPU
from satpipe.sat.weights.checkpoint import Checkpoint
from satpipe.sat.weights.registry import resolve

Line = dict[str, Any]


def stream(options: StreamOptions) -> bool:
    """Print lines until all sources have ended, the user stops it, or its output is closed.

    Returns:
        True if no source broke off.

    Raises:
        ConfigError: A source or the model does not exist, or options contradict each other.
        AudioError: A source has no audio that can be read.
        CheckpointError: The model file cannot be used.
    """
    complete = True
    try:
        for line in lines(options):
            complete &= not line.get("problem")
            print(json.dumps(line), flush=True)
            if "event" in line:
                _report(line)
    except BrokenPipeError:
        # Discard the rest of the buffer, or Python would report an error when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return complete


def lines(options: StreamOptions) -> Iterator[Line]:
    """Yield the lines to print: tags of chunks, and events (`start`, `gap`, `end`).

    Raises:
        SatpipeError: As for `stream`.
    """
    names = options.sources or (STDIN,)
    if len(set(names)) < len(names):
        raise ConfigError("a source is named twice")
    if options.encoding is not None and options.encoding not in ENCODINGS:
        raise ConfigError(f"--format must be one of {', '.join(ENCODINGS)}, not {options.encoding}")
    checkpoint = resolve(options.model, options.arch).adapted(
        options.delay_s, memory=options.memory == "on", grids=options.grids, combine=options.combine
    )
    if not isinstance(checkpoint, Checkpoint):
        raise ConfigError(f"{checkpoint.config.name} cannot tag live audio: `satpipe stream` needs a SAT model")
    precision = _precision(checkpoint, options)
    model = _model(checkpoint, precision)
    own = _own_classes(checkpoint, options)
    tagger: BatchTagger[Any] = BatchTagger(model, options.cut, embeddings=options.embeddings or own is not None)
    sources = [open_source(name, options) for name in names]
    for source in sources:
        yield _start(source, checkpoint, options, precision)
    with _stoppable() as stopped:
        for found in tag_sources(sources, tagger, stopped, options.max_lag_s):
            match found:
                case StreamChunk():
                    yield _chunk(found, options, own)
                case StreamGap():
                    yield _gap(found)
                case StreamEnd():
                    yield {"event": "end", **vars(found), "source": found.source.name}


def _own_classes(checkpoint: Checkpoint, options: StreamOptions) -> OwnClasses | None:
    if options.own_classes is None:
        return None
    classes = read_own_classes(options.own_classes)
    classes.check_model(checkpoint.sha256, checkpoint.config.name, options.own_classes)
    return classes


def _precision(checkpoint: Checkpoint, options: StreamOptions) -> str:
    """Return the precision to use, and note on standard error which is the fastest, where it matters."""
    if options.precision == "fp32":
        return "fp32"
    found = compare(checkpoint, options.precision, options.cut, CPU, batch_chunks=1)
    if note := found.note(options.precision):
        print(f"note: {note}", file=sys.stderr)
    return found.fastest if options.precision == AUTO else options.precision


def _model(checkpoint: Checkpoint, precision: str) -> SAT:
    model = checkpoint.model().to_precision(dtype_for(precision, CPU))
    log_mel = torch.zeros(1, MEL_BANDS, checkpoint.config.chunk_frames)
    with torch.inference_mode():  # the first pass takes several times as long
        _, memory = model(log_mel)
        model(log_mel, memory)
    return model


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Provide a function that returns True after Ctrl-C or SIGTERM; a second signal ends the program at once."""
    received = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(source: LiveSource, checkpoint: Checkpoint, options: StreamOptions, precision: str) -> Line:
    config = checkpoint.config
    chunk_s = chunk_samples(config, options.cut) / SAMPLE_RATE_HZ
    return {
        "event": "start",
        "source": source.name,
        "model": config.name,
        "sha256": checkpoint.sha256,
        "delay_s": float(config.script_chunk_s),
        "chunk_s": chunk_s,  # that a line stands for
        "grids": config.grids,
        "wait_s": (config.grids - 1)
        * chunk_s,  # from the end of a line's audio to that of the last chunk that covers it
        "memory": config.streaming,
        "precision": precision,
        "rate_hz": source.rate_hz,
        "channels": source.channels,
        "live": source.live,
    }


def _chunk(chunk: StreamChunk, options: StreamOptions, own: OwnClasses | None) -> Line:
    scores = chunk.scores.numpy()
    labels = weak_labels()
    _, classes, values = best_labels(scores[None], options.threshold, options.top_k)
    line: Line = {
        "source": chunk.source.name,
        "chunk": chunk.chunk,
        "start_s": chunk.start_s,
        "end_s": chunk.end_s,
        **_when(chunk.source, chunk.time_s),
    }
    if chunk.source.live:
        line["lag_s"] = round(time() - chunk.time_s, 4)
    line["tags"] = [
        {"label": labels[place].name, "mid": labels[place].mid, "score": _shortest(value)}
        for place, value in zip(classes, values, strict=True)
    ]
    if own:
        line["own"] = [
            {"label": own.labels[place], "mid": own.mids[place], "score": _shortest(score)}
            for place, score in enumerate(own.scores(chunk.embedding.numpy()[None])[0])
            if score >= own.thresholds[place]
        ]
    if options.scores:
        line["scores"] = [_shortest(value) for value in scores]
    if options.embeddings:
        line["embedding"] = [_shortest(value) for value in chunk.embedding.numpy()]
    return line


def _gap(gap: StreamGap) -> Line:
    return {
        "event": "gap",
        "source": gap.source.name,
        "start_s": gap.start_s,
        "gap_s": gap.gap_s,
        **_when(gap.source, gap.time_s),
        "reason": gap.reason,
        "filled": gap.filled,
    }


def _when(source: LiveSource, time_s: float) -> Line:
    """Return the time in UTC of a live source, nothing for others."""
    return {"time": datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")} if source.live else {}


def _shortest(score: np.float32) -> float:
    """Return the number with the fewest decimals that is equal in single precision."""
    return float(str(score))


def _report(event: Line) -> None:
    """Print a gap or a problem on standard error."""
    if event["event"] == "gap":
        then = "filled with silence" if event["filled"] else "the memory restarts"
        message = f"{event['gap_s']:.3f} s missed at {event['start_s']:.3f} s: {event['reason']}; {then}"
    elif event["event"] == "end" and event["problem"]:
        message = f"it ended at {event['end_s']:.3f} s: {event['problem']}"
    else:
        return
    print(printable(f"{event['source']}: {message}"), file=sys.stderr)
