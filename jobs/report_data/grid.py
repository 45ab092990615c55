"""Cells of time that chunks are counted in: time of day and date if known, else recording and time in it."""

from typing import Protocol
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
from satpipe.pipeline.tables.open_folder import Ints, Tables

MOST_DAYS = 366  # columns
FEW_DAYS = 14  # up to this many days, hours are divided into quarters
HOUR_MINUTES, QUARTER_MINUTES = 60, 15
MOST_ROWS = 180  # recordings or groups of recordings
MOST_PLACES = 48  # columns of a recording
_DAY_MINUTES = 24 * 60
Times = npt.NDArray[np.datetime64]


class Grid(Protocol):
    """Cells of time, in rows and columns."""

    kind: str
    """"clock" or "place"."""
    rows: tuple[str, ...]
    """Times of day such as "05:00", or names of recordings."""
    columns: tuple[str, ...]
    """Dates such as "2025-05-01", or seconds from the start such as "120"."""
    grouped: int
    """Number of days per column, or of recordings per row."""

    def cells(self, recordings: Ints, start_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the number of each chunk's cell, row by row; rows times columns if it is in none.

        Args:
            recordings: The chunks' recordings, positions in `Tables.recordings`, [n].
            start_s: The chunks' starts, [n].
        """
        ...


def local(tables: Tables, zone: ZoneInfo, recordings: Ints | list[int], seconds: npt.ArrayLike) -> Times:
    """Return the local time a number of seconds after the start of recordings; NaT if unknown."""
    utc = pd.DatetimeIndex(tables.utc(np.asarray(recordings, np.int32), seconds), tz="UTC")
    return np.asarray(utc.tz_convert(zone).tz_localize(None).to_numpy())


def grid(tables: Tables, zone: ZoneInfo, recordings: Ints) -> Grid:
    """Return the cells for recordings, given as positions sorted by name."""
    tagged = recordings[tables.chunks[recordings] > 0]
    known = tagged[~np.isnat(tables.time[tagged])]
    return ClockGrid(tables, zone, known) if len(known) else PlaceGrid(tables, tagged)


class ClockGrid:
    """Time of day and date."""

    kind: str = "clock"

    def __init__(self, tables: Tables, zone: ZoneInfo, recordings: Ints) -> None:
        """Give each day a column; if the days span more than a year, only those with recordings."""
        self._tables, self._zone = tables, zone
        first, last = (
            local(tables, zone, recordings, seconds).astype("datetime64[D]")
            for seconds in (0, tables.duration_s[recordings])
        )
        days = np.arange(first.min(), last.max() + 1)
        if len(days) > MOST_DAYS:
            days = _between(first, last)
        self._days = days
        self._minutes = QUARTER_MINUTES if len(days) <= FEW_DAYS else HOUR_MINUTES
        self.grouped = -(-len(days) // MOST_DAYS)
        self.columns = tuple(map(str, days[:: self.grouped]))
        self.rows = tuple(f"{at // 60:02}:{at % 60:02}" for at in range(0, _DAY_MINUTES, self._minutes))

    def cells(self, recordings: Ints, start_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the cell of each chunk, see `Grid`."""
        cells = np.full(len(recordings), len(self.rows) * len(self.columns))
        known = np.flatnonzero(~np.isnat(self._tables.time[recordings]))
        time = local(self._tables, self._zone, recordings[known], start_s[known])
        day = time.astype("datetime64[D]")
        place = np.minimum(np.searchsorted(self._days, day), len(self._days) - 1)
        minute = ((time - day) // np.timedelta64(1, "m")).astype(np.int64)
        cells[known] = minute // self._minutes * len(self.columns) + place // self.grouped
        return cells


class PlaceGrid:
    """Recording and time in it."""

    kind: str = "place"

    def __init__(self, tables: Tables, recordings: Ints) -> None:
        """Give each recording a row; many recordings share rows."""
        self.grouped = max(1, -(-len(recordings) // MOST_ROWS))
        self._row = np.full(len(tables.recordings), -1)
        self._row[recordings] = np.arange(len(recordings)) // self.grouped
        self.rows = tuple(tables.recordings[row] for row in recordings[:: self.grouped])
        longest_s = float(tables.duration_s[recordings].max(initial=0))
        self._width_s = max(longest_s / MOST_PLACES, tables.model["chunk_s"])
        places = max(1, int(np.ceil(longest_s / self._width_s - 1e-9)))
        self.columns = tuple(f"{place * self._width_s:g}" for place in range(places))

    def cells(self, recordings: Ints, start_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the cell of each chunk, see `Grid`."""
        place = np.minimum((start_s / self._width_s + 1e-9).astype(np.int64), len(self.columns) - 1)
        return np.asarray(self._row[recordings] * len(self.columns) + place)


def _between(first: Times, last: Times) -> Times:
    """Return all days from each first to its last day, sorted, each once."""
    lengths = (last - first).astype(np.int64) + 1
    after = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.unique(np.repeat(first, lengths) + after)
