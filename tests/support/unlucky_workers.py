"""The functions of a Ray worker, except that recordings with certain names crash it when they are probed or tagged."""

import os
import signal
from collections.abc import Iterable
from typing import Any

from satpipe.pipeline.recordings import probing
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.tagging import worker
from satpipe.pipeline.tagging.spans import Span

HOG_BYTES, HOGS = 2**28, 40  # 10 GB


def probe_batch(sources: list[Source]) -> Any:
    _meet("probe", (source.recording for source in sources))
    return probing.probe_batch(sources)


def tag_and_stage(task: list[Span], *more: Any) -> Any:
    _meet("tag", (span.recording.name for span in task))
    return worker.tag_and_stage(task, *more)


def _meet(stage: str, names: Iterable[str]) -> None:
    for name in names:
        if f"{stage}-crash" in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        if f"{stage}-error" in name:
            raise MemoryError("no more")
        if f"{stage}-hog" in name:
            hoard = [b"x" * HOG_BYTES for _ in range(HOGS)]
            raise AssertionError(f"{len(hoard)} times {HOG_BYTES} bytes are no problem here")
