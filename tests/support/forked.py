"""Processes forked from one that has already imported everything: they start in a tenth of a second."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any

FORK = get_context("forkserver")
FORK.set_forkserver_preload(
    [
        "satpipe.jobs.commands.tag",
        "satpipe.jobs.tag.job",
        "satpipe.jobs.tag.messages",
        "satpipe.jobs.tag.progress",
        "satpipe.pipeline.tables.compact",
        "s3fs",
    ]
)


class Forked:
    """A process that runs a function, in its own process group.

    Attributes:
        pid: Id of the process and of its group.
    """

    def __init__(self, output: Path, function: Callable[..., Any], *args: Any, fresh: bool = False) -> None:
        """Start the process.

        Args:
            output: File that receives the output.
            function: The function, which must be importable by name; it returns the exit status.
            args: Its arguments, which must be picklable.
            fresh: Start a new interpreter with the present environment of this process: a Ray cluster that was started
                here accepts only processes with the same mode of authentication.
        """
        self._output = output
        self._process = (get_context("spawn") if fresh else FORK).Process(target=_run, args=(output, function, args))
        self._process.start()
        self.pid: int = self._process.pid or 0

    def ends(self, timeout_s: float = 200) -> int:
        """Wait until the process ends; return the exit status."""
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            self.kill()
            raise TimeoutError(f"it has not ended after {timeout_s} s")
        return self._process.exitcode

    @property
    def alive(self) -> bool:
        """True until the process has ended."""
        return self._process.is_alive()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and its group."""
        os.killpg(self.pid, number)

    def printed(self) -> str:
        """Return the output so far."""
        return self._output.read_text()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 120, every_s: float = 0.002) -> bool:
        """Wait until a condition holds; return False if the process ends first."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if condition():
                return True
            if not self.alive:
                return False
            time.sleep(every_s)
        raise TimeoutError(f"nothing happened in {timeout_s} s")


def _run(output: Path, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.setsid()
    with output.open("w", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        sys.exit(function(*args))
