"""Run commands without Ray: their tasks run one after another in the calling process."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from operator import itemgetter
from tempfile import TemporaryFile
from typing import Any
from unittest.mock import patch

from satpipe.pipeline import ray_engine
from satpipe.pipeline.ray_engine import Engine
from satpipe.pipeline.tagging import worker


class EngineWithoutRay(Engine):
    """Runs the oldest task when a result is requested."""

    width, window = 2, 4

    def _start(self, function: Callable[..., Any], args: tuple[Any, ...], retries: int) -> Any:
        return partial(function, *args)

    def results(self, timeout_s: float) -> Iterator[tuple[Any, Any]]:
        if self._pending:
            task = next(iter(self._pending))
            ticket, _ = self._pending.pop(task)
            yield ticket, task()

    def share(self, value: Any) -> list[Any]:
        return [value]


@contextmanager
def without_ray() -> Iterator[None]:
    """Make `ray_engine.start` return an engine that does not use Ray."""

    @contextmanager
    def start(*_: object) -> Iterator[Engine]:
        yield EngineWithoutRay(0, None)

    with (
        patch.object(ray_engine, "start", start),
        patch.object(ray_engine, "prepare", lambda *_: None),
        patch.object(worker, "fetch", itemgetter(0)),
    ):
        yield


def main(*arguments: object) -> int:
    """Run the command `satpipe` with these arguments in this process; return its exit status."""
    from satpipe.jobs.commands.main import run

    with patch.object(sys, "argv", ["satpipe", *map(str, arguments)]):
        return run()


def satpipe(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command without Ray; return its exit status and output."""
    # Not in memory: `faulthandler` writes to the descriptor of `sys.stderr`.
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        with without_ray(), redirect_stdout(stdout), redirect_stderr(stderr):
            status = main(*arguments)
        printed = [(file.seek(0), file.read())[1] for file in (stdout, stderr)]
    return subprocess.CompletedProcess(list(map(str, arguments)), status, *printed)
