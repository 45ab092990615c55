"""`satpipe status`: the progress and the problems of a run, read from its output folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from satpipe.pipeline.recording_warnings import count
from satpipe.pipeline.tables.damage import find_damage
from satpipe.pipeline.tables.files import open_run, own_names
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.own_tables import own_table

EXAMPLES = 5  # problems or recordings listed by `satpipe tag`
PROBLEMS = 20  # by `satpipe status`


@dataclass(frozen=True)
class Warnings:
    """What is odd about recordings but did not stop them.

    Attributes:
        kinds: Number of recordings with each kind of warning.
        recordings: Number of recordings with warnings.
        examples: Recordings that have warnings, with their warnings.
    """

    kinds: dict[str, int]
    recordings: int
    examples: dict[str, str]


@dataclass(frozen=True)
class Status:
    """State of an output folder.

    Attributes:
        run: The contents of `run.json`.
        running: True if a run is using the folder.
        recordings: Number of recordings in the tables, by status.
        duration_s: Their total length.
        times: Number of recordings with a known start time, by its source.
        staged: Tasks that are tagged but not in the tables yet.
        problems: Recordings that are not ok, with status and reason; all, or at most `PROBLEMS`.
        warnings: What is odd about recordings but did not stop them, with all examples, or at most `PROBLEMS`.
        log: Last line of the latest log.
    """

    run: dict[str, Any]
    running: bool
    recordings: dict[str, int]
    duration_s: float
    times: dict[str, int]
    staged: int
    problems: dict[str, str]
    warnings: Warnings
    log: str


def status(folder: str | Path, *, every_problem: bool = False) -> Status:
    """Return the state of an output folder; change nothing.

    Args:
        folder: The output folder.
        every_problem: List all recordings with a problem or a warning, not only the first `PROBLEMS`.

    Raises:
        OutputError: The folder has no tables of satpipe, or they cannot be read.
    """
    output = Output(folder)
    _, run = open_run(folder)
    table = output.batches.recordings(["recording", "status", "reason", "duration_s", "time_source", "warnings"])
    limit = None if every_problem else PROBLEMS
    return Status(
        run=run,
        running=output.is_locked(),
        recordings=counts(table["status"]),
        duration_s=pc.sum(table["duration_s"]).as_py() or 0.0,
        times=counts(table["time_source"].drop_null()),
        staged=output.staging.count(),
        problems=problems(table, limit),
        warnings=warnings(table, limit),
        log=(output.last_log() or [""])[-1],
    )


def check(folder: str | Path) -> tuple[str, ...]:
    """Read all tables of an output folder, and return a line for each problem, which names the file.

    Raises:
        OutputError: The folder has no tables of satpipe, or they cannot be read for another reason than damage.
    """
    place, run = open_run(folder)
    problems = find_damage(place, run, contents=True).problems
    if problems:
        return problems
    return tuple(
        line for name in own_names(place) for line in own_table(place, name).damage(Tables(folder, scores=False))
    )


def problems(recordings: pa.Table, limit: int | None) -> dict[str, str]:
    """Return the first recordings of a table that are not ok, with status and reason."""
    ok = pc.match_like(recordings["status"], "ok")  # not `equal`, for which Arrow imports pandas
    bad = recordings.filter(pc.invert(ok)).slice(length=limit).to_pylist()
    return {row["recording"]: f"{row['status']}: {row['reason']}" for row in bad}


def warnings(recordings: pa.Table, limit: int | None) -> Warnings:
    """Return the warnings in a table, with the first recordings that have any as examples."""
    columns = recordings.select(["recording", "warnings"])
    rows = columns.filter(pc.list_value_length(columns["warnings"]).cast(pa.bool_())).to_pylist()
    examples = {row["recording"]: "; ".join(row["warnings"]) for row in rows[:limit]}
    return Warnings(count(row["warnings"] for row in rows), len(rows), examples)


def counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value occurs."""
    return {each["values"]: each["counts"] for each in column.value_counts().to_pylist()}
