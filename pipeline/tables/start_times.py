"""The columns of the recordings table that say when: filled at the end of a run, whenever what it was told changed."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pyarrow as pa
from satpipe.pipeline.start_times.from_headers import HeaderTime
from satpipe.pipeline.start_times.resolver import Ambiguities, RecordedFile, StartTime, StartTimeResolver
from satpipe.pipeline.tables import schemas
from satpipe.pipeline.tables.output_folder import Output

COLUMNS = ("time", "clock_rate", "time_source")


@dataclass
class TimesKnown:
    """Of how many recordings it is known when they started.

    Attributes:
        sources: How many, by what told it.
        unknown: Names of those of which nothing tells.
        ambiguities: Names of those whose time rests on a rule.
    """

    sources: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    ambiguities: Ambiguities = field(default_factory=Ambiguities)


def set_times(output: Output, clock: StartTimeResolver, *, split: bool, gap_s: float) -> TimesKnown:
    """Fill the columns, and write those files of the table anew in which they change.

    Args:
        output: The folder, claimed.
        clock: Tells when files started.
        split: Whether channels are recordings of their own, called `NAME#ch1`, ...
        gap_s: How far the files of a deployment may be apart from where its samples put them before a clock rate says
            so.

    Raises:
        OutputError: A file cannot be read or written.
    """
    files = list(output.recordings_by_file())
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
            output.replace_recordings(name, changed)
    return known


_READ = ["recording", "duration_s", "header", "header_time", "files"]


def _files(row: dict[str, Any], split: bool) -> list[RecordedFile]:
    """What is known of the files of a recording."""
    if row["files"]:
        return [RecordedFile(each["file"], each["duration_s"], _stamp(each)) for each in row["files"]]
    file, mark, _ = row["recording"].rpartition("#ch") if split else ("", "", "")
    return [RecordedFile(file if mark else row["recording"], row["duration_s"] or 0.0, _stamp(row))]


def _stamp(row: dict[str, Any]) -> HeaderTime | None:
    return HeaderTime(row["header"], row["header_time"]) if row["header"] and row["header_time"] else None


def _of_deployment(files: list[dict[str, Any]], told: list[StartTime | None], gap_s: float) -> StartTime | None:
    """The time of the first file, and a rate where the later ones are not where its samples put them."""
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
