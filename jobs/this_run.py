"""Describe the present run, for the tables that it writes."""

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from satpipe.pipeline.tables.files import new_run_id

VERSIONS_OF = ("satpipe", "torch", "ray", "pyarrow", "numpy", "soundfile", "soxr")


def now() -> str:
    """Return the present time, in UTC and ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def this_run() -> dict[str, Any]:
    """Return a new `id`, and `started`, `command` and `versions` of this run."""
    return {
        "id": new_run_id(),
        "started": now(),
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS_OF}},
    }
