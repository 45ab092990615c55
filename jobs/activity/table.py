"""The table of activity, and the file that it is written to."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from satpipe.jobs.activity.cells import Cells
from satpipe.jobs.activity.count import Counter
from satpipe.jobs.events.finder import Finder
from satpipe.jobs.options.results import DAY, FOLDER, HOUR, RECORDING, ActivityOptions
from satpipe.pipeline.start_times.resolver import find_zone
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.local_time import local, with_offset
from satpipe.pipeline.tables.schemas import ACTIVITY
from satpipe.pipeline.tables.table_files import table_format, table_writer
from satpipe.pipeline.tables.targets import all_classes
from satpipe.sat.errors import ConfigError
from satpipe.sat.printable import counted

NAME = "activity.csv"
MOST_ROWS = 20_000_000
BLOCK_ROWS = 1_000_000  # made at a time
_ABOUT = b"satpipe.activity"


@dataclass(frozen=True)
class Written:
    """Counts of the written rows."""

    place: Path
    rows: int
    recorded_s: float
    events: int
    notes: tuple[str, ...]
    """Restrictions on the use of the table."""


class Activity:
    """The rows of an activity table.

    Attributes:
        schema: Of the rows, some columns of `satpipe.pipeline.tables.schemas.ACTIVITY`.
        notes: Restrictions on the use of the table.
        finder: The folder and the definition of events.
        recorded_s: Length of the tagged audio.
        events: Number of events.
        rows: Number of rows.
    """

    def __init__(self, finder: Finder, options: ActivityOptions) -> None:
        """Read the scores and count; raises the errors of `activity`."""
        self.finder, self.notes, self._by = finder, finder.notes, set(options.by)
        self._zone = find_zone(options.time_zone) if options.time_zone else finder.tables.zone
        self.schema = pa.schema([field for field in ACTIVITY if _NEEDS.get(field.name, self._by) & self._by])
        self._cells = Cells(finder.tables, options.selection, self._by, self._zone)
        self._targets = finder.levels.targets
        most = len(self._cells) * len(self._targets)
        if most > MOST_ROWS:
            raise ConfigError(
                f"the table would have {most:,} rows, {len(self._cells):,} for each of {len(self._targets):,} classes; "
                f"the maximum is {MOST_ROWS:,}: choose fewer classes with --labels or --group, or a coarser --by"
            )
        self._counter = Counter(finder, self._cells)
        self._kept = np.flatnonzero(self._counter.recorded_s > 0)
        found = self._counter.events.any(axis=0)
        self._shown = np.flatnonzero(found) if self._targets == all_classes() else np.arange(len(self._targets))
        self.recorded_s, self.events = float(self._counter.recorded_s.sum()), int(self._counter.events.sum())
        self.rows = len(self._kept) * len(self._shown)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows, sorted by place, time, and class or group as asked for."""
        step = max(BLOCK_ROWS // max(len(self._shown), 1), 1)
        for first in range(0, len(self._kept), step):
            yield self._table(self._kept[first : first + step])

    def _table(self, cells: Any) -> pa.Table:
        counter, shown = self._counter, self._shown
        place, time = self._cells.place_and_time(cells)
        recorded_s = counter.recorded_s[cells]
        active_s = np.minimum(counter.active_s[cells][:, shown], recorded_s[:, None])  # but for rounding
        columns: dict[str, Any] = {}
        if self._by & {RECORDING, FOLDER}:
            columns = {name: _coded(np.repeat(place, len(shown)), names) for name, names in self._places().items()}
        if self._by & {HOUR, DAY}:
            starts = self._cells.starts
            there = local(starts, self._zone)[time]
            columns |= {
                "time": np.repeat(starts[time], len(shown)),
                "time_local": _coded(np.repeat(time, len(shown)), with_offset(starts, self._zone)),
                "date": np.repeat(there.astype("datetime64[D]"), len(shown)),
                "hour": np.repeat(there.astype("datetime64[h]").astype(np.int64) % 24, len(shown)),
            }
        targets = [self._targets[k] for k in shown.tolist()]
        number = np.tile(np.arange(len(targets)), len(cells))
        columns |= {
            "mid": _coded(number, [target.mid for target in targets]),
            "label": _coded(number, [target.label for target in targets]),
            "recorded_s": np.repeat(recorded_s, len(shown)),
            "events": counter.events[cells][:, shown].ravel(),
            "active_s": active_s.ravel(),
            "share": (active_s / recorded_s[:, None]).ravel(),
            "peak_score": counter.peak[cells][:, shown].ravel(),
        }
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column).cast(field.type)
            for field, column in ((field, columns[field.name]) for field in self.schema)
        ]
        return pa.table(arrays, schema=self.schema)

    def _places(self) -> dict[str, list[str]]:
        names = self._cells.places.tolist()
        if RECORDING not in self._by:
            return {"folder": names}
        return {"recording": names, "folder": [name.rpartition("/")[0] for name in names]}


_NEEDS = {
    "recording": {RECORDING}, "folder": {FOLDER}, "time": {HOUR, DAY}, "time_local": {HOUR, DAY}, "date": {HOUR, DAY},
    "hour": {HOUR},
}  # fmt: skip
"""Columns that are there only if rows tell one of these apart."""


def rows_of(out: str | Path, options: ActivityOptions) -> Activity:
    """Return the activity of a folder; raises the errors of `satpipe.activity`."""
    return Activity(Finder(out, options), options)


def write(out: str | Path, options: ActivityOptions, to: str | Path | None = None) -> Written:
    """Write the activity of a folder.

    Args:
        out: Output folder of `satpipe tag`, path or URL.
        options: What is counted.
        to: A file that ends in .parquet, .csv or .tsv, path or URL; by default `activity.csv` in `out`.

    Raises:
        ConfigError: The file has another ending, or an option is not valid.
        OutputError: The folder cannot be read, or the file cannot be written.
        LabelError: A class or group is unknown.
        TruthError: The table of thresholds cannot be read, or has none for a class or group.
    """
    kind = table_format(to or NAME)
    found = rows_of(out, options)
    place = found.finder.tables.folder / NAME if to is None else locate(to)
    about = json.dumps(found.finder.about()).encode()
    with table_writer(place, kind, found.schema, {_ABOUT: about}) as add:
        for table in found.tables():
            add(table)
    return Written(place, found.rows, found.recorded_s, found.events, found.notes)


def text(written: Written) -> list[str]:
    """Return the closing lines of the command."""
    hours, events = f"{written.recorded_s / 3600:,.2f} h recorded", counted(written.events, "event")
    return [
        *(f"note: {note}" for note in written.notes),
        f"{counted(written.rows, 'row')}, {hours}, {events}: {written.place}",
    ]


def _coded(codes: Any, names: Any) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))
