"""The log of a run as lines of JSON on standard error."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any


def json_line(level: str, event: str, message: str, **values: Any) -> str:
    """Return a line of the log as JSON; all characters that are not ASCII are escaped."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": time, "level": level, "event": event, **values, "message": message})


class JsonLog(logging.Handler):
    """Writes the events of a run, and all warnings, to standard error, with the id of the run."""

    def __init__(self, run_id: str) -> None:
        """Prepare to write."""
        super().__init__()
        self._run_id = run_id

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, unless it is of no interest outside this machine, such as which worker did what."""
        event = getattr(record, "event", "message" if record.levelno >= logging.WARNING else "")
        if event:
            values = {"run_id": self._run_id, **getattr(record, "values", {})}
            level = logging.getLevelName(max(record.levelno, logging.INFO)).lower()
            print(json_line(level, event, record.getMessage(), **values), file=sys.stderr, flush=True)
