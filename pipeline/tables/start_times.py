"""The time columns of the recordings table, filled at the end of a run and again when the time options change."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
from satpipe.pipeline.recording_warnings import OFFSET_GUESSED, kind_of, of_file
from satpipe.pipeline.recordings.recording import file_and_channel
from satpipe.pipeline.start_times.from_headers import HeaderTime
from satpipe.pipeline.start_times.resolver import Ambiguities, RecordedFile, StartTime, StartTimeResolver
from satpipe.pipeline.tables import schemas
from satpipe.pipeline.tables.batches import Batches

COLUMNS = {"time": "time", "clock_rate": "rate", "time_source": "source"}  # attributes of a start time


@dataclass
class TimesKnown:
    """Recordings by what is known of their start.

    Attributes:
        sources: Number of recordings by the source of their start time.
        unknown: Names of the recordings without a start time.
    """

    sources: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    ambiguities: Ambiguities = field(default_factory=Ambiguities)


def set_times(batches: Batches, clock: StartTimeResolver, *, split: bool, gap_s: float) -> TimesKnown:
    """Fill the columns, and write the files of the table in which they change.

    Args:
        batches: The tables, in a claimed folder.
        clock: Resolves the start times of files.
        split: True if channels are separate recordings, named `NAME#ch1`, ...
        gap_s: Maximum difference between the start of a deployment's last file and the place of its samples; above it,
            the deployment gets a clock rate.

    Raises:
        OutputError: A file cannot be read or written.
    """
    files = list(batches.recordings_by_file())
    rows = [row for _, table in files for row in table.select(_READ).to_pylist()]
    parts = [_files(row, split) for row in rows]
    by_name = {file.name: file for each in parts for file in each}  # channels of a file share it
    starts = dict(zip(by_name, clock.resolve(list(by_name.values())), strict=True))
    known, times = TimesKnown(ambiguities=clock.ambiguities), []
    for row, each in zip(rows, parts, strict=True):
        of_files = [starts[file.name] for file in each]
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
    """Return the files of a recording with their times in headers."""
    if row["files"]:
        return [RecordedFile(each["file"], each["duration_s"], _stamp(each)) for each in row["files"]]
    file, _ = file_and_channel(row["recording"], split=split)
    return [RecordedFile(file, row["duration_s"] or 0.0, _stamp(row))]


def _stamp(row: dict[str, Any]) -> HeaderTime | None:
    return HeaderTime(row["header"], row["header_time"]) if row["header"] and row["header_time"] else None


def _of_deployment(files: list[dict[str, Any]], starts: list[StartTime | None], gap_s: float) -> StartTime | None:
    """Return the time of the first file, with a clock rate if the last file's time does not match its samples."""
    first, last = starts[0], starts[-1]
    if first is None:
        return None
    first = replace(first, warnings=[of_file(text, files[0]["file"]) for text in first.warnings])
    if last is None or not files[-1]["start_s"]:
        return first
    passed_s, start_s = (last.time - first.time) / timedelta(seconds=1), files[-1]["start_s"]
    if abs(passed_s - start_s * (first.rate or 1.0)) <= gap_s:
        return first
    return replace(first, rate=passed_s / start_s)


def _with(table: pa.Table, times: list[StartTime | None]) -> pa.Table:
    """Return the table with these times, and with their warnings instead of those of earlier times."""
    for name, attribute in COLUMNS.items():
        place, column = table.column_names.index(name), schemas.RECORDINGS.field(name)
        values = [getattr(each, attribute, None) for each in times]
        table = table.set_column(place, column, pa.array(values, column.type))
    place, column = table.column_names.index("warnings"), schemas.RECORDINGS.field("warnings")
    kept = [[text for text in texts if kind_of(text) != OFFSET_GUESSED] for texts in table["warnings"].to_pylist()]
    texts = [old + (each.warnings if each else []) for old, each in zip(kept, times, strict=True)]
    return table.set_column(place, column, pa.array(texts, column.type))
