"""`satpipe status`: how far the job of an output folder is, and what went wrong."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from satpipe.pipeline.tables.lock import is_locked
from satpipe.pipeline.tables.output_folder import Output
from satpipe.sat.errors import OutputError

PROBLEMS = 20  # recordings that are named


@dataclass(frozen=True)
class Status:
    """State of an output folder.

    Attributes:
        run: What `run.json` says.
        running: A run holds the folder at present.
        recordings: Recordings in the tables, by status.
        duration_s: Their length together.
        times: Of how many it is known when they started, by what told it.
        staged: Units of work that are tagged but not in the tables yet.
        problems: Recordings that are not ok, with status and reason; at most `PROBLEMS`.
        log: Last line of the latest log.
    """

    run: dict[str, Any]
    running: bool
    recordings: dict[str, int]
    duration_s: float
    times: dict[str, int]
    staged: int
    problems: dict[str, str]
    log: str


def status(folder: str | Path) -> Status:
    """Look at an output folder; nothing is changed.

    Raises:
        OutputError: It holds no tables of satpipe's, or they cannot be read.
    """
    output = Output(folder)
    run = output.run()
    if run is None:
        raise OutputError(f"{folder} is not an output folder of satpipe: it has no run.json")
    table = output.batches.recordings(["recording", "status", "reason", "duration_s", "time_source"])
    bad = table.filter(pc.not_equal(table["status"], "ok")).slice(length=PROBLEMS).to_pylist()
    return Status(
        run=run,
        running=is_locked(output.folder),
        recordings=_counts(table["status"]),
        duration_s=pc.sum(table["duration_s"]).as_py() or 0.0,
        times=_counts(table["time_source"].drop_null()),
        staged=output.staging.count(),
        problems={row["recording"]: f"{row['status']}: {row['reason']}" for row in bad},
        log=(output.last_log() or [""])[-1],
    )


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {each["values"]: each["counts"] for each in column.value_counts().to_pylist()}
