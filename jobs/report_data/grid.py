"""Cells of time: by time of day and date if start times are known, else by recording and time in the recording."""

from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from satpipe.pipeline.tables.local_time import Times, local
from satpipe.pipeline.tables.open_folder import Ints, Part, Tables

MAX_DAYS = 366  # columns
FEW_DAYS = 14  # up to this number of days, rows may be shorter than an hour
HOUR_MINUTES = 60
ROW_MINUTES = (15, 30, HOUR_MINUTES, 120, 180, 240, 360)  # divisors of a day
SHARE_OF_PAUSES = 0.95  # that are shorter than a row, so that a recorder that pauses regularly leaves no row empty
MAX_ROWS = 180  # recordings or groups of recordings
MAX_PLACES = 48  # columns of a recording
_DAY_MINUTES = 24 * 60


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
    minutes: int
    """Length of a row of a clock; 0 for other rows."""
    cells: Callable[[Ints, npt.NDArray[np.float64]], npt.NDArray[np.int64]]
    """Returns the number of each chunk's cell, counted row by row, from the position of its recording in
    `Tables.recordings` and its start in seconds, [n] each; the number of cells for a chunk outside all cells."""


def local_time(tables: Tables, zone: ZoneInfo, recordings: Ints | list[int], seconds: npt.ArrayLike) -> Times:
    """Return the local times at given numbers of seconds after the start of recordings; NaT if unknown."""
    return local(tables.utc(np.asarray(recordings, np.int32), seconds), zone)


def ends_s(tables: Tables, part: Part) -> npt.NDArray[np.float64]:
    """Return where the chunks of each recording end, in seconds from its start, [R]."""
    return np.asarray(np.fmin(part.end * tables.model["chunk_s"], tables.duration_s[part.recordings]))


def grid(tables: Tables, zone: ZoneInfo, part: Part) -> Grid:
    """Return the cells for some chunks of recordings, which are sorted by name."""
    tagged = part.take((tables.chunks[part.recordings] > 0) & (part.end > part.begin))
    known = tagged.take(~np.isnat(tables.time[tagged.recordings]))
    return _clock_grid(tables, zone, known) if len(known.recordings) else _place_grid(tables, tagged.recordings)


def _clock_grid(tables: Tables, zone: ZoneInfo, part: Part) -> Grid:
    """Give each day a column; if the days span more than a year, only days with recordings get one."""
    begin, end = (
        local_time(tables, zone, part.recordings, seconds)
        for seconds in (part.begin * tables.model["chunk_s"], ends_s(tables, part))
    )
    first, last = begin.astype("datetime64[D]"), (end - np.timedelta64(1, "us")).astype("datetime64[D]")
    days = np.arange(first.min(), last.max() + 1)
    if len(days) > MAX_DAYS:
        days = _between(first, last)
    minutes = _row_minutes(begin, end, HOUR_MINUTES if len(days) > FEW_DAYS else ROW_MINUTES[0])
    rows = tuple(f"{at // 60:02}:{at % 60:02}" for at in range(0, _DAY_MINUTES, minutes))
    grouped = -(-len(days) // MAX_DAYS)
    columns = tuple(map(str, days[::grouped]))

    def cells(recordings: Ints, start_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        found = np.full(len(recordings), len(rows) * len(columns))
        known = np.flatnonzero(~np.isnat(tables.time[recordings]))
        time = local_time(tables, zone, recordings[known], start_s[known])
        day = time.astype("datetime64[D]")
        place = np.minimum(np.searchsorted(days, day), len(days) - 1)
        minute = ((time - day) // np.timedelta64(1, "m")).astype(np.int64)
        found[known] = minute // minutes * len(columns) + place // grouped
        return found

    return Grid("clock", rows, columns, grouped, minutes, cells)


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

    return Grid("place", tuple(tables.recordings[first] for first in recordings[::grouped]), columns, grouped, 0, cells)


def _row_minutes(begin: Times, end: Times, least: int) -> int:
    """Return the length of rows in minutes.

    Regular pauses of a recorder leave no row without a recording, and rows have about as many recordings each.
    """
    order = np.argsort(begin)
    pauses = _minutes(np.maximum.accumulate(end[order])[:-1], begin[order][1:])
    usual = pauses <= ROW_MINUTES[-1]  # longer ones are breaks
    if not usual.any():
        return least
    pause = max(0.0, float(np.quantile(pauses[usual], SHARE_OF_PAUSES)))
    period = max(pause, float(np.median(_minutes(begin[order][:-1], begin[order][1:])[usual])), 1.0)
    for minutes in ROW_MINUTES:
        even = pause < minutes / 10 or minutes % period < 0.1 or minutes >= 4 * period
        if minutes >= max(least, pause) and even:
            return minutes
    return ROW_MINUTES[-1]


def _minutes(since: Times, until: Times) -> npt.NDArray[np.float64]:
    return np.asarray((until - since).astype("timedelta64[us]").astype(np.int64) / 60e6)


def _between(first: Times, last: Times) -> Times:
    """Return all days from each first day to its last day, sorted, each once."""
    lengths = (last - first).astype(np.int64) + 1
    after = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.unique(np.repeat(first, lengths) + after)
