"""Read the headers of recordings on workers: a header can crash a decoder, and many headers take long to read."""

import faulthandler
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import NamedTuple

from satpipe.pipeline.ray_engine import Engine, Lost
from satpipe.pipeline.recordings.decode import probe
from satpipe.pipeline.recordings.deployments import Deployment
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.recording import AudioInfo
from satpipe.pipeline.start_times.from_headers import read_header_time
from satpipe.sat.errors import AudioError

PROBE_FILES = 64  # headers per task
PROBE_LIMIT_S = 60.0  # per header
PROBE_SLACK_S = 1.0  # by which a limit may be exceeded: setting it anew starts a thread, and waits for another
PROBE_BYTES_PER_S = 5e6  # frames of MP3 and pages of Ogg may have to be counted up to the end


class Unusable(NamedTuple):
    """Why a file cannot be tagged."""

    status: str
    reason: str


def probe_batch(sources: list[Source]) -> list[AudioInfo | Unusable]:
    """Read the headers of files; runs on a worker."""
    found: list[AudioInfo | Unusable] = []
    end = 0.0
    try:
        for source in sources:
            limit_s, now = PROBE_LIMIT_S + source.size_bytes / PROBE_BYTES_PER_S, monotonic()
            if not now + limit_s <= end <= now + limit_s + PROBE_SLACK_S:
                end = now + limit_s + PROBE_SLACK_S
                faulthandler.dump_traceback_later(end - now, exit=True)
            try:
                found.append(source.info if isinstance(source, Deployment) else _header(source))
            except AudioError as error:
                found.append(Unusable(error.status, str(error)))
    finally:
        faulthandler.cancel_dump_traceback_later()
    return found


def _header(source: Source) -> AudioInfo:
    return replace(probe(source.path, source.size_bytes), header_time=read_header_time(source.path))


def probe_each(engine: Engine, sources: Iterable[Source]) -> Iterator[tuple[Source, AudioInfo | Unusable]]:
    """Let the workers of an engine without other tasks read the headers of files; yield the files in any order."""
    files = list(sources)
    waiting = deque(files[at : at + PROBE_FILES] for at in range(0, len(files), PROBE_FILES))
    while waiting or engine.in_flight:
        while waiting and engine.in_flight < engine.window:
            engine.submit_items("probe", probe_batch, waiting.popleft())
        for (_, batch), found in engine.results(timeout_s=1.0):
            if isinstance(found, Lost):
                yield batch[0], Unusable("worker died", found.reason)
            else:
                yield from zip(batch, found, strict=True)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, even if it hangs in C code."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
