"""`satpipe stream`: live sound in, lines of JSON out."""

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
from satpipe.pipeline.live.source import STDIN, LiveSource
from satpipe.pipeline.live.tag_live import StreamChunk, StreamEnd, StreamGap, tag_sources
from satpipe.pipeline.tables.schemas import best_labels
from satpipe.sat.errors import ConfigError
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.concurrent_streams import BatchTagger
from satpipe.sat.model.config import MEL_BANDS, SAMPLE_RATE_HZ
from satpipe.sat.model.network import SAT
from satpipe.sat.model.precision import dtype_for
from satpipe.sat.model.streaming import chunk_samples
from satpipe.sat.taggers.interface import CPU
from satpipe.sat.weights.checkpoint import Checkpoint
from satpipe.sat.weights.registry import resolve

Line = dict[str, Any]


def stream(options: StreamOptions) -> bool:
    """Print lines until all sources have ended, the person stops it, or nobody reads on.

    Returns:
        Whether no source broke off.

    Raises:
        ConfigError: There is no such source or model, or options contradict one another.
        AudioError: A source has no sound that can be read.
        CheckpointError: The model's file is not what it should be.
    """
    complete = True
    try:
        for line in lines(options):
            complete &= not line.get("problem")
            print(json.dumps(line), flush=True)
            if "event" in line:
                _tell(line)
    except BrokenPipeError:
        # What is left in the buffer goes nowhere, or Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return complete


def lines(options: StreamOptions) -> Iterator[Line]:
    """Yield what is printed: tags of chunks, and events (`start`, `gap`, `end`).

    Raises:
        SatpipeError: As `stream`.
    """
    names = options.sources or (STDIN,)
    if len(set(names)) < len(names):
        raise ConfigError("a source is named twice")
    if options.encoding is not None and options.encoding not in ENCODINGS:
        raise ConfigError(f"--format {options.encoding}: it takes {', '.join(ENCODINGS)}")
    checkpoint = resolve(options.model, options.arch).adapted(options.delay_s, memory=options.memory == "on")
    if not isinstance(checkpoint, Checkpoint):
        raise ConfigError(f"{checkpoint.config.name} cannot tag live sound: `satpipe stream` takes models of satpipe")
    tagger: BatchTagger[Any] = BatchTagger(_model(checkpoint, options.precision), options.cut)
    sources = [open_source(name, options) for name in names]
    for source in sources:
        yield _start(source, checkpoint, options)
    with _stoppable() as stopped:
        for found in tag_sources(sources, tagger, stopped, options.max_lag_s):
            match found:
                case StreamChunk():
                    yield _heard(found, options)
                case StreamGap():
                    yield _missed(found)
                case StreamEnd():
                    yield _ended(found)


def _model(checkpoint: Checkpoint, precision: str) -> SAT:
    model = checkpoint.model().with_precision(dtype_for(precision, CPU))
    log_mel = torch.zeros(1, MEL_BANDS, checkpoint.config.chunk_frames)
    with torch.inference_mode():  # the first time takes several times as long
        _, memory = model(log_mel)
        model(log_mel, memory)
    return model


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C or SIGTERM came; a second one ends the program at once."""
    came = []

    def stop(number: int, _: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(source: LiveSource, checkpoint: Checkpoint, options: StreamOptions) -> Line:
    config = checkpoint.config
    return {
        "event": "start",
        "source": source.name,
        "model": config.name,
        "sha256": checkpoint.sha256,
        "delay_s": float(config.script_chunk_s),
        "chunk_s": chunk_samples(config, options.cut) / SAMPLE_RATE_HZ,
        "memory": config.streaming,
        "rate_hz": source.rate_hz,
        "channels": source.channels,
        "live": source.live,
    }


def _heard(heard: StreamChunk, options: StreamOptions) -> Line:
    scores = heard.scores.numpy()
    labels = weak_labels()
    _, classes, values = best_labels(scores[None], options.threshold, options.top_k)
    line: Line = {
        "source": heard.source.name,
        "chunk": heard.chunk,
        "start_s": heard.start_s,
        "end_s": heard.end_s,
        **_when(heard.source, heard.time_s),
    }
    if heard.source.live:
        line["lag_s"] = round(time() - heard.time_s, 4)
    line["tags"] = [
        {"label": labels[place].name, "mid": labels[place].mid, "score": _shortest(value)}
        for place, value in zip(classes, values, strict=True)
    ]
    if options.scores:
        line["scores"] = [_shortest(value) for value in scores]
    return line


def _missed(missed: StreamGap) -> Line:
    return {
        "event": "gap",
        "source": missed.source.name,
        "start_s": missed.start_s,
        "gap_s": missed.gap_s,
        **_when(missed.source, missed.time_s),
        "reason": missed.reason,
        "filled": missed.filled,
    }


def _ended(ended: StreamEnd) -> Line:
    return {
        "event": "end",
        "source": ended.source.name,
        "end_s": ended.end_s,
        "chunks": ended.chunks,
        "gaps": ended.gaps,
        "missed_s": ended.missed_s,
        "dropped_s": ended.dropped_s,
        "invalid_s": ended.invalid_s,
        "problem": ended.problem,
    }


def _when(source: LiveSource, time_s: float) -> Line:
    """The time of day, where it means something."""
    if not source.live:
        return {}
    return {"time": datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")}


def _shortest(score: np.float32) -> float:
    """The shortest decimal that is this very number in single precision."""
    return float(str(score))


def _tell(event: Line) -> None:
    """Tell a person of what went wrong."""
    if event["event"] == "gap":
        then = "filled with silence" if event["filled"] else "the memory begins anew"
        told = f"{event['gap_s']:.3f} s missed at {event['start_s']:.3f} s: {event['reason']}; {then}"
    elif event["event"] == "end" and event["problem"]:
        told = f"it ended at {event['end_s']:.3f} s: {event['problem']}"
    else:
        return
    print(f"{event['source']}: {told}", file=sys.stderr)
