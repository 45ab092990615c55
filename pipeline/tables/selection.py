"""Which recordings and chunks of an output folder are meant: by name, by seconds, by time of day."""

import warnings
from collections.abc import Iterable
from datetime import date

import numpy as np
import pandas as pd
from satpipe.pipeline.tables.open_folder import Floats, Ints, Part, Tables
from satpipe.sat.errors import ConfigError

Recordings = str | Iterable[str]
"""A name, a pattern such as `site1/*`, or several."""
Time = str | date | np.datetime64
"""A date, or a date and time; in UTC if it names no time zone."""

_PART_OF_CHUNK = 1e-9  # times this close to the border of two chunks are on it


def select(
    tables: Tables,
    recordings: Recordings | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> Part:
    """Return the chunks that are asked for.

    Args:
        tables: Where they are.
        recordings: Names, each may be a pattern such as `site1/*`; by default all, sorted by name.
        start_s: Only chunks that end after so many seconds of their recording.
        end_s: Only chunks that start before so many seconds of their recording.
        since: Only chunks that end after this time.
        until: Only chunks that start before this time.

    Raises:
        OutputError: There is no such recording.
        ConfigError: It is no time, or the time of no recording is known.
    """
    rows, low_s, high_s = within(tables, tables.choose(recordings), start_s, end_s, since, until)
    chunk_s, most = tables.model["chunk_s"], tables.slots[rows]
    begin = np.clip(np.floor(low_s / chunk_s + _PART_OF_CHUNK), 0, most).astype(np.int32)
    end = np.clip(np.ceil(high_s / chunk_s - _PART_OF_CHUNK), begin, most).astype(np.int32)
    return Part(rows, begin, end)


def within(
    tables: Tables, rows: Ints, start_s: float | None, end_s: float | None, since: Time | None, until: Time | None
) -> tuple[Ints, Floats, Floats]:
    """Return those recordings of some that have something between the times, and from and to which second that is."""
    low_s = np.full(len(rows), 0.0 if start_s is None else start_s)
    high_s = np.full(len(rows), np.inf if end_s is None else end_s)
    if since is None and until is None:
        kept = (high_s > 0) & ((low_s == 0) | (low_s < tables.duration_s[rows]))
        return rows[kept], low_s[kept], high_s[kept]
    unknown = np.isnat(tables.time[rows])
    if unknown.all():
        raise ConfigError(f"{tables.folder} does not say when these recordings started: no row of them has a time")
    if unknown.any():
        note = f"{unknown.sum():,} of {len(rows):,} recordings are left out: when they started is not known"
        warnings.warn(note, stacklevel=4)
    rows, low_s, high_s = rows[~unknown], low_s[~unknown], high_s[~unknown]
    if since is not None:
        low_s = np.maximum(low_s, tables.seconds(rows, _utc(since)))
    if until is not None:
        high_s = np.minimum(high_s, tables.seconds(rows, _utc(until)))
    kept = (high_s > 0) & (low_s < tables.duration_s[rows])
    return rows[kept], low_s[kept], high_s[kept]


def _utc(time: Time) -> np.datetime64:
    try:
        stamp = pd.Timestamp(time)
    except ValueError as error:
        raise ConfigError(f"{time!r} is no time: {error}") from error
    if pd.isna(stamp):
        raise ConfigError(f"{time!r} is no time")
    return (stamp if stamp.tz is None else stamp.tz_convert(None)).to_datetime64()
