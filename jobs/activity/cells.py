"""Cells of an activity table: places (recordings or folders) and hours or days of local time."""

from collections.abc import Collection
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from satpipe.jobs.metrics.arrays import Floats, Ints, Rows, repeats
from satpipe.jobs.options.results import DAY, FOLDER, HOUR, RECORDING
from satpipe.pipeline.tables.local_time import Times, local
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.pipeline.tables.selection import Selection

_STEP = np.timedelta64(15, "m")  # offsets from UTC are multiples of it
_DAY = np.timedelta64(1, "D")


class Pieces(NamedTuple):
    """Contributions of stretches of recordings to cells, [m] each."""

    stretch: Rows
    """Position of the stretch."""
    nth: Rows
    """Number of the piece in its stretch, from 0."""
    cell: Rows
    """Position of the cell."""
    seconds: Floats
    """Length."""


class Cells:
    """The cells that the chosen part of a folder lies in.

    Attributes:
        codes: Place and time of each cell, as one number, ascending, [C].
        places: Names of the recordings or folders; empty if these are not told apart.
        starts: Starts of the hours or days in UTC, [H]; empty if times are not told apart.
    """

    def __init__(self, tables: Tables, selection: Selection, by: Collection[str], zone: ZoneInfo) -> None:
        """Find the cells.

        Args:
            tables: The folder.
            selection: Its chosen part; by hour or day, only recordings whose start is known.
            by: What is told apart, of `satpipe.jobs.options.results.BY`; hours imply days, recordings imply folders.
            zone: Time zone of hours and days.
        """
        self._tables = tables
        names = list(tables.recordings)
        if RECORDING not in by:
            names = [name.rpartition("/")[0] if FOLDER in by else "" for name in names]
        self.places, place = np.unique(np.array(names, object), return_inverse=True)
        self._place = place.astype(np.int64)
        recordings, low_s, high_s = selection.within(tables)
        end_s = np.minimum(high_s, np.nan_to_num(tables.duration_s[recordings]))
        self._begin_s, self._end_s = np.full((2, len(tables.recordings)), 0.0)
        self._begin_s[recordings], self._end_s[recordings] = low_s, end_s
        self.starts: Times = np.empty(0, "datetime64[us]")
        if len(recordings) and (HOUR in by or DAY in by):
            first, last = tables.utc(recordings, low_s).min(), tables.utc(recordings, end_s).max()
            self.starts = _starts(first, last, zone, HOUR in by)
        self.codes: Rows = np.unique(self._pieces(recordings, low_s, end_s)[2])

    def __len__(self) -> int:
        """Number of cells."""
        return len(self.codes)

    def place_and_time(self, cells: Rows) -> tuple[Rows, Rows]:
        """Return the positions of places, and of hours or days, of cells given by position."""
        place, time = np.divmod(self.codes[cells], max(len(self.starts), 1))
        return place, time

    def divided(self, recordings: Ints, begin_s: Floats, end_s: Floats) -> Pieces:
        """Divide the chosen part of stretches of recordings, positions in the tables, among cells, [n] each."""
        stretch, nth, codes, seconds = self._pieces(recordings, begin_s, end_s)
        return Pieces(stretch, nth, np.searchsorted(self.codes, codes), seconds)

    def _pieces(self, recordings: Ints, begin_s: Floats, end_s: Floats) -> tuple[Rows, Rows, Rows, Floats]:
        begin_s = np.maximum(begin_s, self._begin_s[recordings])
        end_s = np.minimum(end_s, self._end_s[recordings])
        chosen = np.flatnonzero(end_s > begin_s)
        recordings, begin_s, end_s = recordings[chosen], begin_s[chosen], end_s[chosen]
        place = self._place[recordings]
        if not len(self.starts):
            return chosen, np.zeros(len(place), np.int64), place, end_s - begin_s
        first = np.searchsorted(self.starts, self._tables.utc(recordings, begin_s), "right") - 1
        last = np.searchsorted(self.starts, self._tables.utc(recordings, end_s), "left") - 1
        last = np.maximum(first, last)
        stretch, nth = repeats(last - first + 1)
        time = first[stretch] + nth
        # Both sides of a border use the same second, so that the pieces add up to the stretch.
        border_s = self._tables.seconds(recordings[stretch], self.starts[time])
        low_s = np.where(nth > 0, border_s, begin_s[stretch])
        high_s = np.where(time < last[stretch], np.roll(border_s, -1), end_s[stretch])
        return chosen[stretch], nth, place[stretch] * len(self.starts) + time, high_s - low_s


def _starts(first: np.datetime64, last: np.datetime64, zone: ZoneInfo, hours: bool) -> Times:
    """Return when the local hours or days between two times start, in UTC.

    A day has 23 or 25 hours where clocks change. An hour that comes twice is two hours.
    """
    steps = np.arange(first.astype("datetime64[D]") - 2 * _DAY, last + _STEP, _STEP)
    there = local(steps, zone)
    offset = there - steps
    if hours:
        changes = (np.diff(there.astype("datetime64[h]")) != 0) | (np.diff(offset) != 0)
    else:
        changes = np.diff(there.astype("datetime64[D]")) != 0
    starts = steps[1:][changes].astype("datetime64[us]")
    return np.asarray(starts[np.searchsorted(starts, first, "right") - 1 :])
