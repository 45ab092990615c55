"""Headers of recordings, read by workers: one can bring a decoder down, and a hundred thousand take their time."""

import faulthandler
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from satpipe.pipeline.ray_engine import Engine, Lost
from satpipe.pipeline.recordings.decode import AudioInfo, probe
from satpipe.pipeline.recordings.deployments import Deployment
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.start_times.from_headers import read_header_time
from satpipe.sat.errors import AudioError

PROBE_FILES = 64  # headers read in one go
PROBE_LIMIT_S = 60.0  # for a header
RETRIES = 2  # of a recording that brings its worker down, once it is alone


class Unusable(NamedTuple):
    """Why a file cannot be tagged."""

    status: str
    reason: str


def probe_batch(sources: list[Source]) -> list[AudioInfo | Unusable]:
    """Read the headers of some files; runs on a worker, since a header can bring a decoder down."""
    found: list[AudioInfo | Unusable] = []
    for source in sources:
        with deadline(PROBE_LIMIT_S):
            try:
                found.append(source.info if isinstance(source, Deployment) else _header(source))
            except AudioError as error:
                found.append(Unusable(error.status, str(error)))
    return found


def _header(source: Source) -> AudioInfo:
    return replace(probe(source.path, source.size_bytes), header_time=read_header_time(source.path))


def probe_each(engine: Engine, sources: Iterable[Source]) -> Iterator[tuple[Source, AudioInfo | Unusable]]:
    """Have workers read the headers of files; yield them in no order.

    Args:
        engine: Has no other work at the time.
        sources: The files.
    """
    files = list(sources)
    waiting = deque(files[at : at + PROBE_FILES] for at in range(0, len(files), PROBE_FILES))
    while waiting or engine.in_flight:
        while waiting and engine.in_flight < 2 * engine.width:
            batch = waiting.popleft()
            engine.submit(batch, probe_batch, batch, retries=RETRIES if len(batch) == 1 else 0)
        for batch, found in engine.results(timeout_s=1.0):
            if not isinstance(found, Lost):
                yield from zip(batch, found, strict=True)
            elif len(batch) > 1:  # one of them is poison: look at each alone
                waiting += [[source] for source in batch]
            else:
                yield batch[0], Unusable("worker died", found.reason)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End this process if it has not come out of here by then, whatever it hangs in."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
