"""The time columns of the recordings table, filled at the end of a run and again when the time options change."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pyarrow as pa
from satpipe.pipeline.start_times.from_headers import HeaderTime
from satpipe.pipeline.start_times.resolver import Ambiguities, RecordedFile, StartTime, StartTimeResolver
from satpipe.pipeline.tables import schemas
from satpipe.pipeline.tables.batches import Batches

COLUMNS = ("time", "clock_rate", "time_source")


@dataclass
class TimesKnown:
    """For how many recordings the start is known.

    Attributes:
        sources: Number of recordings by the source of their start time.
        unknown: Names of the recordings whose start is not known.
        ambiguities: Names of the recordings whose start rests on an assumption.
    """

    sources: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    ambiguities: Ambiguities = field(default_factory=Ambiguities)


def set_times(batches: Batches, clock: StartTimeResolver, *, split: bool, gap_s: float) -> TimesKnown:
    """Fill the columns, and write the files of the table in which they change.

    Args:
        batches: The tables, in a claimed folder.
        clock: Gives the start of files.
        split: Whether channels are separate recordings, called `NAME#ch1`, ...
        gap_s: Maximum difference between the start of a deployment's last file and the place of its samples; above it,
            the deployment gets a clock rate.

    Raises:
        OutputError: A file cannot be read or written.
    """
    files = list(batches.recordings_by_file())
    rows = [row for _, table in files for row in table.select(_READ).to_pylist()]
    parts = [_files(row, split) for row in rows]
    by_name = {file.name: file for each in parts for file in each}  # channels of a file share it
    told = dict(zip(by_name, clock.resolve(list(by_name.values())), strict=True))
    known, times = TimesKnown(ambiguities=clock.ambiguities), []
    for row, each in zip(rows, parts, strict=True):
        of_files = [told[file.name] for file in each]
        time = _of_deployment(row["files"], of_files, gap_s) if row["files"] else of_files[0]
        times.append(time)
        known.sources.update([time.source] if time else [])
        known.unknown.extend([] if time else [row["recording"]])
    at = 0
    for name, table in files:
        changed = _with(table, times[at : at + len(table)])
        at += len(table)
        if not changed.equals(table):
            batches.commit(name, changed)
    return known


_READ = ["recording", "duration_s", "header", "header_time", "files"]


def _files(row: dict[str, Any], split: bool) -> list[RecordedFile]:
    """Return the files of a recording with what their headers give."""
    if row["files"]:
        return [RecordedFile(each["file"], each["duration_s"], _stamp(each)) for each in row["files"]]
    file, mark, _ = row["recording"].rpartition("#ch") if split else ("", "", "")
    return [RecordedFile(file if mark else row["recording"], row["duration_s"] or 0.0, _stamp(row))]


def _stamp(row: dict[str, Any]) -> HeaderTime | None:
    return HeaderTime(row["header"], row["header_time"]) if row["header"] and row["header_time"] else None


def _of_deployment(files: list[dict[str, Any]], told: list[StartTime | None], gap_s: float) -> StartTime | None:
    """Return the time of the first file, with a clock rate if the last file is not where its samples are."""
    first, last = told[0], told[-1]
    if first is None or last is None or not files[-1]["start_s"]:
        return first
    passed_s, start_s = (last.time - first.time) / timedelta(seconds=1), files[-1]["start_s"]
    if abs(passed_s - start_s * (first.rate or 1.0)) <= gap_s:
        return first
    return StartTime(first.time, first.source, passed_s / start_s)


def _with(table: pa.Table, times: list[StartTime | None]) -> pa.Table:
    values = {
        "time": [each.time if each else None for each in times],
        "clock_rate": [each.rate if each else None for each in times],
        "time_source": [each.source if each else None for each in times],
    }
    for name in COLUMNS:
        place, column = table.column_names.index(name), schemas.RECORDINGS.field(name)
        table = table.set_column(place, column, pa.array(values[name], column.type))
    return table
