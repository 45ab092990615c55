"""Select part of an output folder: recordings by name, chunks by seconds or time, classes, groups, scores."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from satpipe.pipeline.tables.open_folder import Floats, Ints, Part, Tables
from satpipe.pipeline.tables.targets import Groups, Labels, OwnNames, Target, choose_targets
from satpipe.sat.errors import ConfigError

Recordings = str | Iterable[str]
"""A name, a pattern such as `site1/*`, or several."""
Time = str | date | np.datetime64
"""A date, or a date and time; in UTC unless it has a time zone."""

PART_OF_CHUNK = 1e-9  # times this close to the border of two chunks are on it


@dataclass(frozen=True)
class Selection:
    """Part of an output folder; by default all of it.

    Attributes:
        recordings: A name, a pattern such as `site1/*`, or several; None: all, sorted by name.
        labels: One class or several; None: all 527, unless groups are chosen.
        group: One group or several.
        groups: A file of groups; without `group`, all of its groups are chosen.
        min_score: Minimum score.
        start_s: Only chunks that end after this many seconds of their recording.
        end_s: Only chunks that start before this many seconds of their recording.
        since: Only chunks that end after this time.
        until: Only chunks that start before this time.
        dated: Only recordings whose start is known.
        own: Own classes: names of tables, or `TABLE/CLASS`.
    """

    recordings: Recordings | None = None
    labels: Labels | None = None
    group: Groups | None = None
    groups: str | Path | None = None
    min_score: float = 0.0
    start_s: float | None = None
    end_s: float | None = None
    since: Time | None = None
    until: Time | None = None
    dated: bool = False
    own: OwnNames | None = None

    def targets(self, folder: Path | None = None) -> tuple[Target, ...]:
        """Return the classes, groups and own classes that are chosen; the latter are in tables of a folder.

        Raises:
            LabelError: A class or group is unknown, or the file of groups has an invalid line.
            ConfigError: The file of groups cannot be read, or a class and a group have the same name.
        """
        return choose_targets(self.labels, self.group, self.groups, self.own, folder)

    def part(self, tables: Tables) -> Part:
        """Return the chunks of a folder that are selected.

        Raises:
            OutputError: A recording does not exist.
            ConfigError: A time is not valid, or the start of no recording is known.
        """
        rows, low_s, high_s = self.within(tables)
        chunk_s, most = tables.model["chunk_s"], tables.slots[rows]
        begin = np.clip(np.floor(low_s / chunk_s + PART_OF_CHUNK), 0, most).astype(np.int32)
        end = np.clip(np.ceil(high_s / chunk_s - PART_OF_CHUNK), begin, most).astype(np.int32)
        return Part(rows, begin, end)

    def within(self, tables: Tables) -> tuple[Ints, Floats, Floats]:
        """Return the recordings with audio between the times, and the first and last second of that audio.

        Raises:
            OutputError: A recording does not exist.
            ConfigError: A time is not valid, or the start of no recording is known.
        """
        rows = tables.choose(self.recordings)
        if self._by_clock:
            known = ~np.isnat(tables.time[rows])
            if not known.any():
                others = "; --by recording, folder and label need none" if self.dated else ""
                raise ConfigError(
                    f"{tables.folder}: the start times of these recordings are unknown, so they have neither dates nor "
                    "times to select or sort them by; `satpipe tag` with --times or --time-pattern adds them" + others
                )
            rows = rows[known]
        low_s = np.full(len(rows), 0.0 if self.start_s is None else self.start_s)
        high_s = np.full(len(rows), np.inf if self.end_s is None else self.end_s)
        if self.since is not None:
            low_s = np.maximum(low_s, tables.seconds(rows, utc(self.since)))
        if self.until is not None:
            high_s = np.minimum(high_s, tables.seconds(rows, utc(self.until)))
        undecoded = np.isnan(tables.duration_s[rows]) & (low_s == 0) & (not self._by_clock)
        kept = (high_s > 0) & (undecoded | (low_s < tables.duration_s[rows]))
        return rows[kept], low_s[kept], high_s[kept]

    def notes(self, tables: Tables) -> Iterator[str]:
        """Yield warnings about the selection."""
        if self._by_clock:
            rows = tables.choose(self.recordings)
            unknown = np.count_nonzero(np.isnat(tables.time[rows]))
            if 0 < unknown < len(rows):
                yield f"{unknown:,} of {len(rows):,} recordings are left out: their start is not known"

    @property
    def _by_clock(self) -> bool:
        return self.dated or self.since is not None or self.until is not None


def utc(time: Time) -> np.datetime64:
    """Return a time in UTC.

    Raises:
        ConfigError: It is not valid.
    """
    import pandas as pd  # takes half a second

    try:
        stamp = pd.Timestamp(time)
    except ValueError as error:
        raise ConfigError(f"{time!r} is not a valid time: {error}") from error
    if pd.isna(stamp):
        raise ConfigError(f"{time!r} is not a valid time")
    return (stamp if stamp.tz is None else stamp.tz_convert(None)).to_datetime64()
