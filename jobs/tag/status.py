"""`satpipe status`: the progress and the problems of a run, read from its output folder."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from time import time
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from satpipe.pipeline.recording_warnings import count
from satpipe.pipeline.storage import is_remote
from satpipe.pipeline.tables.damage import find_damage
from satpipe.pipeline.tables.files import PROGRESS, open_run, own_names
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.own_tables import own_table
from satpipe.pipeline.tagging.heartbeat import PATIENCE_S, Beat, is_beating, modified_s, read_beat, started_here

EXAMPLES = 5  # problems or recordings listed by `satpipe tag`
PROBLEMS = 20  # by `satpipe status`
FAILED, OLD = 3, 4  # exit codes
State = Literal["running", "finished", "stopped", "failed", "died", "not finished"]


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
        run: The content of `run.json`.
        state: How the last run ended, or `running`; `died`: it ended without a word; `not finished`: that, or it is of
            a version of satpipe that wrote no progress.
        beat: Its last heartbeat; None if it has written none.
        age_s: Time since it finished, or since its last progress if it is running; None if that is not known.
        recordings: Number of recordings in the tables, by status.
        duration_s: Their total length.
        times: Number of recordings with a known start time, by its source.
        staged: Tasks that are tagged but not in the tables yet.
        reasons: Number of recordings that are not ok, by status and reason, the most frequent first.
        problems: Recordings that are not ok, with status and reason; all, or at most `PROBLEMS`.
        warnings: What is odd about recordings but did not stop them, with all examples, or at most `PROBLEMS`.
        log: Last line of the latest log.
    """

    run: dict[str, Any]
    state: State
    beat: Beat | None
    age_s: float | None
    recordings: dict[str, int]
    duration_s: float
    times: dict[str, int]
    staged: int
    reasons: dict[tuple[str, str], int]
    problems: dict[str, str]
    warnings: Warnings
    log: str

    def code(self, max_age_s: float | None = None) -> int:
        """Return the exit code of `satpipe status`: the first of 1, 4 and 3 that applies, or 0.

        Args:
            max_age_s: Maximum age; None: any.
        """
        if self.state not in ("running", "finished"):
            return 1
        if max_age_s is not None and (self.age_s is None or self.age_s > max_age_s):
            return OLD
        run = self.beat.figures.get("recordings", {}) if self.beat else {}
        not_searched = self.beat and self.beat.not_searched
        return FAILED if not_searched or (set(self.recordings) | set(run)) - {"ok"} else 0

    def as_json(self, out: str, max_age_s: float | None = None) -> dict[str, Any]:
        """Return the state for a program to read."""
        beat = self.beat
        figures = dict(beat.figures) if beat else {}
        for name in ("found_s", "done_s", "resumed_s"):
            figures[name.replace("_s", "_hours")] = round(figures.pop(name, 0.0) / 3600, 4)
        return {
            "out": out,
            "state": self.state,
            "exit_code": self.code(max_age_s),
            "age_s": None if self.age_s is None else round(self.age_s, 1),
            "run_id": self.run.get("id"),
            "started": self.run.get("started"),
            "finished": self.run.get("finished"),
            "host": beat and beat.host,
            "error": beat.error if beat else "",
            "model": self.run.get("identity", {}).get("arch"),
            "run": figures if beat else None,
            "tables": {
                "recordings": self.recordings,
                "hours": round(self.duration_s / 3600, 4),
                "staged_tasks": self.staged,
            },
            "failures": [
                {"status": status, "reason": reason, "recordings": number}
                for (status, reason), number in islice(self.reasons.items(), PROBLEMS)
            ],
            "not_searched": beat.not_searched if beat else [],
            "warnings": self.warnings.kinds,
            "log": self.log,
        }


def status(folder: str | Path, *, every_problem: bool = False) -> Status:
    """Return the state of an output folder; change nothing.

    Args:
        folder: The output folder.
        every_problem: List all recordings with a problem or a warning, not only the first `PROBLEMS`.

    Raises:
        OutputError: The folder has no tables of satpipe, or they cannot be read.
    """
    output = Output(folder)
    place = output.folder
    run, state, beat = _last_run(output, folder)
    table = output.batches.recordings(["recording", "status", "reason", "duration_s", "time_source", "warnings"])
    limit = None if every_problem else PROBLEMS
    return Status(
        run=run,
        state=state,
        beat=beat,
        age_s=_age_s(place, run, state, beat),
        recordings=counts(table["status"]),
        duration_s=pc.sum(table["duration_s"]).as_py() or 0.0,
        times=counts(table["time_source"].drop_null()),
        staged=output.staging.count(),
        reasons=_reasons(table),
        problems=problems(table, limit),
        warnings=warnings(table, limit),
        log=beat.log if beat and is_remote(place) and state in ("running", "died") else output.last_log(),
    )


def _last_run(output: Output, folder: str | Path) -> tuple[dict[str, Any], State, Beat | None]:
    """Return the content of `run.json`, the state of that run, and its last heartbeat."""
    while True:
        place, run = open_run(folder)
        beat = read_beat(place)
        if beat and beat.run_id != run.get("id"):  # the run is of a version that writes none, or has just begun
            beat = None
        state = _state(output, run, beat)
        again = read_beat(place)
        if beat is None or again is None or again == beat or state == again.state == "running":
            return run, state, again if beat else None
        # The run has ended, or another one has begun, between one look and the next.


def _state(output: Output, run: Mapping[str, Any], beat: Beat | None) -> State:
    """Return how the last run ended, or that it goes on.

    The lock of the folder proves that a run is on. That it is free proves the opposite only on the machine of the run:
    not all shared folders lock files for other machines, and object stores none.
    """
    if beat and beat.state in ("finished", "stopped", "failed"):
        return beat.state  # type: ignore[return-value]
    locked, over = output.is_locked(), "finished" in run
    if locked:
        return "running"
    if beat is None:
        begins = locked is None and not over and abs(time() - modified_s(output.folder / "run.json")) < PATIENCE_S
        return "running" if begins else "finished" if over else "not finished"
    if not (locked is False and started_here(beat)) and is_beating(output.folder, beat):
        return "running"
    return "finished" if over else "died"


def _age_s(folder: Path, run: Mapping[str, Any], state: State, beat: Beat | None) -> float | None:
    """Return the time since the last run finished, or since its last progress.

    A clock that is wrong must not make the tables look younger: of the time that the run has noted and the time that
    the store has noted, the earlier one counts.
    """
    if state == "running":
        if beat is None:
            return 0.0
        silent_s = time() - modified_s(folder / PROGRESS) if started_here(beat) else 0.0  # by the same clock
        return beat.idle_s + max(0.0, silent_s)
    try:
        finished = datetime.fromisoformat(run.get("finished", ""))
    except ValueError:
        return None
    finished_s = (finished if finished.tzinfo else finished.replace(tzinfo=UTC)).timestamp()
    return max(0.0, time() - min(finished_s, modified_s(folder / "run.json")))


def _reasons(recordings: pa.Table) -> dict[tuple[str, str], int]:
    """Return the number of recordings that are not ok, by status and reason, the most frequent first."""
    rows = _not_ok(recordings.select(["status", "reason"])).to_pylist()
    return dict(Counter((row["status"], row["reason"]) for row in rows).most_common())


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
    bad = _not_ok(recordings).slice(length=limit).to_pylist()
    return {row["recording"]: f"{row['status']}: {row['reason']}" for row in bad}


def _not_ok(recordings: pa.Table) -> pa.Table:
    ok = pc.match_like(recordings["status"], "ok")  # not `equal`, for which Arrow imports pandas
    return recordings.filter(pc.invert(ok))


def warnings(recordings: pa.Table, limit: int | None) -> Warnings:
    """Return the warnings in a table, with the first recordings that have any as examples."""
    columns = recordings.select(["recording", "warnings"])
    rows = columns.filter(pc.list_value_length(columns["warnings"]).cast(pa.bool_())).to_pylist()
    examples = {row["recording"]: "; ".join(row["warnings"]) for row in rows[:limit]}
    return Warnings(count(row["warnings"] for row in rows), len(rows), examples)


def counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value occurs."""
    return {each["values"]: each["counts"] for each in column.value_counts().to_pylist()}
