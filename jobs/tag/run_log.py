"""The log of a run of `satpipe tag`: a file in its output folder, and JSON on standard error if wanted."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from satpipe.jobs.tag.json_lines import JsonLog
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tagging.events import event
from satpipe.pipeline.tagging.heartbeat import Heartbeat
from satpipe.sat.printable import printable

log = logging.getLogger("satpipe")


class _Line(logging.Formatter):
    """Makes one line of each message: a name in it cannot forge another."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _RunLog(logging.FileHandler):
    """A log in an output folder that may vanish: the run ends by itself, with an error about the tables."""

    def __init__(self, path: Path, heartbeat: Heartbeat) -> None:
        """Write to a file, and tell the heartbeat the last line."""
        super().__init__(path, encoding="utf-8")
        self.setLevel(logging.INFO)
        self.setFormatter(_Line("%(asctime)s %(levelname)s %(message)s"))
        self._heartbeat = heartbeat

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        self._heartbeat.log = super().format(record)
        return self._heartbeat.log

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Lose the line."""

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            super().close()


@contextmanager
def logged(
    output: Output, description: dict[str, Any], heartbeat: Heartbeat, *, in_file: bool, as_json: bool
) -> Iterator[None]:
    """Keep a log and the heartbeat of a run, from its start to its end.

    Args:
        output: The output folder, claimed by the run.
        description: The content of `run.json`.
        heartbeat: Of the run.
        in_file: Write a log into the folder.
        as_json: Write the events of the run to standard error.
    """
    log.setLevel(logging.DEBUG if as_json else logging.INFO)
    log.propagate = False
    with output.log(f"{description['id']}.log") if in_file else nullcontext() as path:
        handlers: list[logging.Handler] = [_RunLog(path, heartbeat)] if path else []
        handlers += [JsonLog(description["id"])] if as_json else []
        for handler in handlers:
            log.addHandler(handler)
        try:
            command, out = " ".join(description["command"]), str(output.folder)
            log.info("started: %s", command, extra=event("run_started", out=out, inputs=description["inputs"]))
            with heartbeat:
                yield
            log.info("finished", extra=event("run_finished", **heartbeat.progress.figures()))
        except BaseException as error:
            name = "run_stopped" if isinstance(error, KeyboardInterrupt) else "run_failed"
            extra = event(name, **heartbeat.progress.figures())
            log.error("ended by %s: %s", type(error).__name__, error, extra=extra)
            raise
        finally:
            for handler in handlers:
                log.removeHandler(handler)
                handler.close()
