"""From what names and metadata tell to UTC: time zones, summer time, clocks that go wrong."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from satpipe.pipeline.start_times.from_csv import MAX_DRIFT, ClockDrift, CsvTime
from satpipe.pipeline.start_times.from_headers import HeaderTime
from satpipe.pipeline.start_times.from_names import YEARS, NameParser
from satpipe.sat.errors import ConfigError

SOURCES = ("csv", "pattern", "guano", "comment", "name", "bext", "ixml")
"""Where a time may be from; the first of them that knows one counts, but a name that has no seconds is the last."""

_EARLY = timedelta(seconds=1.5)  # a name is rounded to the second: by so much a file may seem to overlap the last one


@dataclass(frozen=True)
class RecordedFile:
    """What there is to know of when a file was recorded.

    Attributes:
        name: Its name in the tables.
        duration_s: Its length; 0 where that is not known.
        header_time: What its metadata say.
    """

    name: str
    duration_s: float
    header_time: HeaderTime | None


@dataclass
class StartTime:
    """When a file started.

    Attributes:
        time: UTC.
        source: One of `SOURCES`.
        rate: True seconds for each second of the recording; None where nothing is known of that.
    """

    time: datetime
    source: str
    rate: float | None = None


@dataclass
class Ambiguities:
    """Names of files whose time rests on a rule.

    Attributes:
        without_zone: Nothing named their time zone, and so it was taken for UTC.
        repeated_hour: In the hour that comes twice when summer time ends.
        skipped_hour: In the hour that is left out when summer time begins.
        implausible_rates: Start and end say that the clock was wrong by more than 1 %: the end is ignored.
    """

    without_zone: list[str] = field(default_factory=list)
    repeated_hour: list[str] = field(default_factory=list)
    skipped_hour: list[str] = field(default_factory=list)
    implausible_rates: list[str] = field(default_factory=list)


def find_zone(name: str | None) -> ZoneInfo:
    """Return a time zone; UTC for none.

    Raises:
        ConfigError: There is none of that name; the nearest ones are named.
    """
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        near = _nearest(str(name))
        hint = f"did you mean {' or '.join(near)}?" if near else "it takes one such as Europe/Berlin or UTC"
        raise ConfigError(f"--time-zone {name}: there is no such time zone; {hint}") from error


def _nearest(name: str) -> list[str]:
    """Names of zones like it, as a whole or in their last part."""
    zones = sorted(available_timezones())
    cities = {zone.rpartition("/")[2].lower(): zone for zone in zones}
    near = get_close_matches(name, zones, n=3, cutoff=0.75)
    near += [cities[city] for city in get_close_matches(name.rpartition("/")[2].lower(), cities, n=2, cutoff=0.8)]
    return list(dict.fromkeys(near))[:3]


class StartTimeResolver:
    """Tells when files started.

    Attributes:
        names: Reads the names of the files that were asked for.
        times: True times of some files, by name.
        drifts: How clocks of recorders went wrong.
        ambiguities: What of the answers rests on a rule; filled by `resolve`.
    """

    def __init__(
        self,
        pattern: str | None = None,
        zone: str | None = None,
        times: dict[str, CsvTime] | None = None,
        drifts: Sequence[ClockDrift] = (),
    ) -> None:
        """Take what was asked for.

        Args:
            pattern: Where names have the time, see `Names`.
            zone: Time zone of what names none.
            times: True times of some files, by name.
            drifts: How clocks of recorders went wrong.

        Raises:
            ConfigError: There is no such time zone, or the pattern is none.
        """
        self._pattern = pattern
        self.names = NameParser((), pattern)
        self._zone, self._named_zone = find_zone(zone), zone is not None
        self.times = times or {}
        self.drifts = drifts
        self.ambiguities = Ambiguities()

    def resolve(self, files: Sequence[RecordedFile]) -> list[StartTime | None]:
        """Return when each of all files started, or None where nothing tells.

        A time of the hour that comes twice is the first one that is not before the end of the file before it of the
        same recorder. One of the hour that is left out is taken as if the clock had not been changed.
        """
        self.names, self.ambiguities = NameParser([file.name for file in files], self._pattern), Ambiguities()
        told: list[StartTime | None] = [None] * len(files)
        twice: dict[str, list[int]] = defaultdict(list)
        for place, file in enumerate(files):
            known = self._local(file)
            if known is None:
                continue
            local, source = known
            told[place] = StartTime(self._utc(local), source)
            if local.tzinfo is None and self._doubt(file.name, local):
                twice[self.names.recorder(file.name)].append(place)
        if twice:
            self._resolve(files, told, twice)
        for file, each in zip(files, told, strict=True):
            if each is not None:
                self._correct(file, each)
        return told

    def _local(self, file: RecordedFile) -> tuple[datetime, str] | None:
        """The time of a file, in the recorder's zone or with its own, and where it is from."""
        if true := self.times.get(file.name):
            return true.start, "csv"
        if given := self.names.by_pattern(file.name):
            return given, "pattern"
        found = self.names.by_convention(file.name)
        stamp = datetime.fromisoformat(file.header_time.time) if file.header_time else None
        if file.header_time and stamp and stamp.year in YEARS:
            of_recorder = file.header_time.kind in ("guano", "comment")  # no sound editor writes those
            if of_recorder or found is None or not found.to_the_second:
                return stamp, file.header_time.kind
        return (found.time, "name") if found else None

    def _utc(self, local: datetime, fold: int = 0) -> datetime:
        return (local if local.tzinfo else local.replace(tzinfo=self._zone, fold=fold)).astimezone(UTC)

    def _doubt(self, name: str, local: datetime) -> bool:
        """Note what is doubtful about a time without a zone; return whether it comes twice."""
        if not self._named_zone:
            self.ambiguities.without_zone.append(name)
            return False
        first, second = self._utc(local), self._utc(local, fold=1)
        if first == second:
            return False
        comes_twice = first < second  # in the hour left out it is the other way round
        (self.ambiguities.repeated_hour if comes_twice else self.ambiguities.skipped_hour).append(name)
        return comes_twice

    def _resolve(
        self, files: Sequence[RecordedFile], told: list[StartTime | None], twice: dict[str, list[int]]
    ) -> None:
        """Choose between the first and the second time of the hour that comes twice."""
        sure: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)  # starts and ends, by recorder
        unsure = {place for places in twice.values() for place in places}
        for place, (file, each) in enumerate(zip(files, told, strict=True)):
            if each is not None and place not in unsure and (recorder := self.names.recorder(file.name)) in twice:
                sure[recorder].append((each.time, each.time + timedelta(seconds=file.duration_s)))
        for recorder, places in twice.items():
            nights = defaultdict(list)
            for place in places:
                if (each := told[place]) is not None:
                    nights[each.time.date()].append((place, each))
            for night in nights.values():
                before = min(each.time for _, each in night)
                end = max((end for start, end in sure[recorder] if start <= before), default=before)
                _in_order([(files[place], each) for place, each in night], end)

    def _correct(self, file: RecordedFile, told: StartTime) -> None:
        """Set clock rate and, for a clock with known errors, the time right."""
        if told.source == "csv":
            end = self.times[file.name].end
            if end and file.duration_s:
                rate = (end - told.time).total_seconds() / file.duration_s
                if abs(rate - 1) <= MAX_DRIFT:
                    told.rate = rate
                else:
                    self.ambiguities.implausible_rates.append(file.name)
            return
        drift = next((drift for drift in self.drifts if fnmatchcase(file.name, drift.recordings)), None)
        if drift:
            told.time, told.rate = drift.true(told.time)


def _in_order(night: list[tuple[RecordedFile, StartTime]], end: datetime) -> None:
    """Of files in the hour that comes twice, one after the other takes the earliest time that `end` leaves."""
    hour = timedelta(hours=1)
    rest = sorted(night, key=lambda pair: pair[1].time)
    while rest:
        options = [
            (time, number)
            for number, (_, told) in enumerate(rest)
            for time in (told.time, told.time + hour)
            if time >= end - _EARLY
        ]
        time, number = min(options, default=(rest[0][1].time, 0))
        file, told = rest.pop(number)
        told.time = time
        end = max(end, time + timedelta(seconds=file.duration_s))
