"""Find the start times of recordings in UTC: from CSVs, names and headers, with time zones and clock errors."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from satpipe.pipeline.recording_warnings import OFFSET_GUESSED, warning
from satpipe.pipeline.start_times.from_csv import MAX_DRIFT, ClockDrift, CsvTime
from satpipe.pipeline.start_times.from_headers import HeaderTime
from satpipe.pipeline.start_times.from_names import YEARS, NameParser
from satpipe.sat.errors import ConfigError

SOURCES = ("csv", "pattern", "guano", "comment", "name", "bext", "ixml")
"""Possible sources of a start time; the first that has one counts, but a name without seconds comes last."""

_HOUR = timedelta(hours=1)
_OVERLAP = timedelta(seconds=1.5)  # names are rounded to the second: a file may seem to overlap the previous one


@dataclass(frozen=True)
class RecordedFile:
    """A file whose start time is wanted; `duration_s` is 0 if unknown."""

    name: str
    duration_s: float
    header_time: HeaderTime | None


@dataclass
class StartTime:
    """Start of a file.

    Attributes:
        time: UTC.
        source: One of `SOURCES`.
        rate: True seconds per second of the recording; None if unknown.
        warnings: From `satpipe.pipeline.recording_warnings`.
    """

    time: datetime
    source: str
    rate: float | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass
class Ambiguities:
    """Names of files whose start time is based on an assumption.

    Attributes:
        without_zone: No time zone is given; UTC is assumed.
        repeated_hour: In the hour that is repeated when summer time ends.
        skipped_hour: In the hour that is skipped when summer time begins.
        implausible_rates: Start and end imply a clock error of more than MAX_DRIFT: the end is ignored.
    """

    without_zone: list[str] = field(default_factory=list)
    repeated_hour: list[str] = field(default_factory=list)
    skipped_hour: list[str] = field(default_factory=list)
    implausible_rates: list[str] = field(default_factory=list)


def find_zone(name: str | None) -> ZoneInfo:
    """Return a time zone; UTC for None.

    Raises:
        ConfigError: The time zone does not exist; the message names similar ones.
    """
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        similar = _similar_zones(str(name))
        hint = f"did you mean {' or '.join(similar)}?" if similar else "use a name such as Europe/Berlin or UTC"
        raise ConfigError(f"--time-zone {name}: no such time zone; {hint}") from error


def _similar_zones(name: str) -> list[str]:
    """Return zones whose name, or its last part, is similar."""
    zones = sorted(available_timezones())
    cities = {zone.rpartition("/")[2].lower(): zone for zone in zones}
    similar = get_close_matches(name, zones, n=3, cutoff=0.75)
    similar += [cities[city] for city in get_close_matches(name.rpartition("/")[2].lower(), cities, n=2, cutoff=0.8)]
    return list(dict.fromkeys(similar))[:3]


class StartTimeResolver:
    """Resolves the start times of files.

    Attributes:
        names: Parser of the names passed to the last call of `resolve`.
        ambiguities: Files of the last call of `resolve` whose start time is based on an assumption.
    """

    def __init__(
        self,
        pattern: str | None = None,
        zone: str | None = None,
        times: dict[str, CsvTime] | None = None,
        drifts: Sequence[ClockDrift] = (),
    ) -> None:
        """Take the options.

        Args:
            pattern: Where names contain the time, see `NameParser`.
            zone: Time zone of times without an offset.
            times: Times of some files from a CSV, by name.
            drifts: Clock errors of recorders.

        Raises:
            ConfigError: The time zone does not exist, or the pattern is invalid.
        """
        self._pattern = pattern
        self.names = NameParser((), pattern)
        self._zone, self._zone_given = find_zone(zone), zone is not None
        self.times = times or {}
        self.drifts = drifts
        self.ambiguities = Ambiguities()

    def resolve(self, files: Sequence[RecordedFile]) -> list[StartTime | None]:
        """Return the start time of each file; None if it is unknown.

        A time in the repeated hour is the first one that is not before the end of the previous file of the same
        recorder. A time in the skipped hour is interpreted as if the clock had not been changed.
        """
        self.names, self.ambiguities = NameParser([file.name for file in files], self._pattern), Ambiguities()
        starts: list[StartTime | None] = []
        repeated: dict[str, list[tuple[RecordedFile, StartTime]]] = defaultdict(list)  # by recorder
        for file in files:
            found = self._local(file)
            start = StartTime(self._utc(found.time), found.source, warnings=found.warnings) if found else None
            starts.append(start)
            if start and found and found.time.tzinfo is None and self._is_repeated(file.name, found.time):
                repeated[self.names.recorder(file.name)].append((file, start))
        if repeated:
            self._order_repeated(files, starts, repeated)
        for file, start in zip(files, starts, strict=True):
            if start:
                self._correct(file, start)
        return starts

    def _local(self, file: RecordedFile) -> StartTime | None:
        """Return the start of a file; its time has no zone if it is in the recorder's."""
        if given := self.times.get(file.name):
            return StartTime(given.start, "csv")
        if time := self.names.by_pattern(file.name):
            return StartTime(time, "pattern")
        named = self.names.by_convention(file.name)
        if file.header_time:
            kind, time = file.header_time.kind, datetime.fromisoformat(file.header_time.time)
            of_recorder = kind in ("guano", "comment")  # no sound editor writes those
            if time.year in YEARS and (of_recorder or named is None or not named.to_the_second):
                return StartTime(time, kind)
        if named is None:
            return None
        guessed = [warning(OFFSET_GUESSED, f"{named.number} in the name")] if named.number and named.time.tzinfo else []
        return StartTime(named.time, "name", warnings=guessed)

    def _utc(self, local: datetime, fold: int = 0) -> datetime:
        return (local if local.tzinfo else local.replace(tzinfo=self._zone, fold=fold)).astimezone(UTC)

    def _is_repeated(self, name: str, local: datetime) -> bool:
        """Return True if a time without a zone occurs twice; note any ambiguity."""
        if not self._zone_given:
            self.ambiguities.without_zone.append(name)
            return False
        first, second = self._utc(local), self._utc(local, fold=1)
        if first == second:
            return False
        repeated = first < second  # in the skipped hour it is the other way round
        (self.ambiguities.repeated_hour if repeated else self.ambiguities.skipped_hour).append(name)
        return repeated

    def _order_repeated(
        self,
        files: Sequence[RecordedFile],
        starts: Sequence[StartTime | None],
        repeated: dict[str, list[tuple[RecordedFile, StartTime]]],
    ) -> None:
        """Choose between the first and the second time of the repeated hour."""
        unsure = {file.name for pairs in repeated.values() for file, _ in pairs}
        sure: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)  # starts and ends, by recorder
        for file, start in zip(files, starts, strict=True):
            if start and file.name not in unsure and (recorder := self.names.recorder(file.name)) in repeated:
                sure[recorder].append((start.time, start.time + timedelta(seconds=file.duration_s)))
        for recorder, pairs in repeated.items():
            nights = defaultdict(list)
            for file, start in pairs:
                nights[start.time.date()].append((file, start))
            for night in nights.values():
                first = min(start.time for _, start in night)
                end = max((end for begin, end in sure[recorder] if begin <= first), default=first)
                _in_order(night, end)

    def _correct(self, file: RecordedFile, start: StartTime) -> None:
        """Set the clock rate and, for a clock with a known error, correct the time."""
        if start.source == "csv":
            end = self.times[file.name].end
            if end and file.duration_s:
                rate = (end - start.time).total_seconds() / file.duration_s
                if abs(rate - 1) <= MAX_DRIFT:
                    start.rate = rate
                else:
                    self.ambiguities.implausible_rates.append(file.name)
            return
        drift = next((drift for drift in self.drifts if fnmatchcase(file.name, drift.recordings)), None)
        if drift:
            start.time, start.rate = drift.true(start.time)


def _in_order(night: list[tuple[RecordedFile, StartTime]], end: datetime) -> None:
    """Assign to each file of a repeated hour, in turn, the earliest time after the end of the previous file."""
    rest = sorted(night, key=lambda pair: pair[1].time)
    while rest:
        options = [
            (time, number)
            for number, (_, start) in enumerate(rest)
            for time in (start.time, start.time + _HOUR)
            if time >= end - _OVERLAP
        ]
        time, number = min(options, default=(rest[0][1].time, 0))
        file, start = rest.pop(number)
        start.time = time
        end = max(end, time + timedelta(seconds=file.duration_s))
