"""Cells of time: by time of day and date if start times are known, else by recording and time in the recording."""

from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
from satpipe.pipeline.tables.open_folder import Ints, Tables

MAX_DAYS = 366  # columns
FEW_DAYS = 14  # up to this number of days, rows are quarters of an hour
HOUR_MINUTES, QUARTER_MINUTES = 60, 15
MAX_ROWS = 180  # recordings or groups of recordings
MAX_PLACES = 48  # columns of a recording
_DAY_MINUTES = 24 * 60
Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True, eq=False)
class Grid:
    """Cells of time, in rows and columns."""

    kind: str
    """"clock" or "place"."""
    rows: tuple[str, ...]
    """Times of day such as "05:00", or names of recordings."""
    columns: tuple[str, ...]
    """Dates such as "2025-05-01", or seconds from the start such as "120"."""
    grouped: int
    """Number of days per column, or of recordings per row."""
    cells: Callable[[Ints, npt.NDArray[np.float64]], npt.NDArray[np.int64]]
    """Returns the number of each chunk's cell, counted row by row, from the position of its recording in
    `Tables.recordings` and its start in seconds, [n] each; the number of cells for a chunk outside all cells."""


def local(tables: Tables, zone: ZoneInfo, recordings: Ints | list[int], seconds: npt.ArrayLike) -> Times:
    """Return the local times at given numbers of seconds after the start of recordings; NaT if unknown."""
    utc = pd.DatetimeIndex(tables.utc(np.asarray(recordings, np.int32), seconds), tz="UTC")
    return np.asarray(utc.tz_convert(zone).tz_localize(None).to_numpy())


def grid(tables: Tables, zone: ZoneInfo, recordings: Ints) -> Grid:
    """Return the cells for recordings, given as positions sorted by name."""
    tagged = recordings[tables.chunks[recordings] > 0]
    known = tagged[~np.isnat(tables.time[tagged])]
    return _clock_grid(tables, zone, known) if len(known) else _place_grid(tables, tagged)


def _clock_grid(tables: Tables, zone: ZoneInfo, recordings: Ints) -> Grid:
    """Give each day a column; if the days span more than a year, only days with recordings get one."""
    first, last = (
        local(tables, zone, recordings, seconds).astype("datetime64[D]")
        for seconds in (0, tables.duration_s[recordings])
    )
    days = np.arange(first.min(), last.max() + 1)
    if len(days) > MAX_DAYS:
        days = _between(first, last)
    minutes = QUARTER_MINUTES if len(days) <= FEW_DAYS else HOUR_MINUTES
    rows = tuple(f"{at // 60:02}:{at % 60:02}" for at in range(0, _DAY_MINUTES, minutes))
    grouped = -(-len(days) // MAX_DAYS)
    columns = tuple(map(str, days[::grouped]))

    def cells(recordings: Ints, start_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        found = np.full(len(recordings), len(rows) * len(columns))
        known = np.flatnonzero(~np.isnat(tables.time[recordings]))
        time = local(tables, zone, recordings[known], start_s[known])
        day = time.astype("datetime64[D]")
        place = np.minimum(np.searchsorted(days, day), len(days) - 1)
        minute = ((time - day) // np.timedelta64(1, "m")).astype(np.int64)
        found[known] = minute // minutes * len(columns) + place // grouped
        return found

    return Grid("clock", rows, columns, grouped, cells)


def _place_grid(tables: Tables, recordings: Ints) -> Grid:
    """Give each recording a row; many recordings share rows."""
    grouped = max(1, -(-len(recordings) // MAX_ROWS))
    row = np.full(len(tables.recordings), -1)
    row[recordings] = np.arange(len(recordings)) // grouped
    longest_s = float(tables.duration_s[recordings].max(initial=0))
    width_s = max(longest_s / MAX_PLACES, tables.model["chunk_s"])
    columns = tuple(f"{place * width_s:g}" for place in range(max(1, int(np.ceil(longest_s / width_s - 1e-9)))))

    def cells(recordings: Ints, start_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        place = np.minimum((start_s / width_s + 1e-9).astype(np.int64), len(columns) - 1)
        return np.asarray(row[recordings] * len(columns) + place)

    return Grid("place", tuple(tables.recordings[first] for first in recordings[::grouped]), columns, grouped, cells)


def _between(first: Times, last: Times) -> Times:
    """Return all days from each first day to its last day, sorted, each once."""
    lengths = (last - first).astype(np.int64) + 1
    after = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.unique(np.repeat(first, lengths) + after)
