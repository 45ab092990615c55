"""Read start times and clock errors from CSVs that a user writes."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from satpipe.pipeline.storage import locate
from satpipe.sat.errors import ConfigError

MAX_DRIFT = 0.01  # maximum plausible clock error; quartz clocks have less than 0.0001
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class CsvTime(NamedTuple):
    """Start and, if known, end of a recording in UTC, and the line of the CSV that states them."""

    start: datetime
    end: datetime | None
    line: int


@dataclass(frozen=True)
class ClockDrift:
    """Readings of a recorder's clock; between two readings its rate is constant.

    Attributes:
        recordings: Name or pattern of the recorder's recordings.
        recorded_us: Readings in ascending order, in microseconds since 1970 [n].
        true_us: True times of the readings [n].
    """

    recordings: str
    recorded_us: npt.NDArray[np.int64]
    true_us: npt.NDArray[np.int64]

    def true(self, recorded: datetime) -> tuple[datetime, float]:
        """Return the true time of a reading, and the true seconds per second of the clock at that time."""
        at = (recorded - _EPOCH) // _MICROSECOND
        if len(self.recorded_us) == 1:
            return recorded + timedelta(microseconds=int(self.true_us[0] - self.recorded_us[0])), 1.0
        place = int(np.clip(np.searchsorted(self.recorded_us, at, "right") - 1, 0, len(self.recorded_us) - 2))
        (begin, end), (true, true_end) = (each[place : place + 2].tolist() for each in (self.recorded_us, self.true_us))
        rate = (true_end - true) / (end - begin)
        return _EPOCH + timedelta(microseconds=true + round((at - begin) * rate)), rate


def read_times(path: str | Path, zone: ZoneInfo) -> dict[str, CsvTime]:
    """Read a CSV of start times: columns recording, time and, optionally, end_time.

    `zone` is the time zone of times without an offset.

    Raises:
        ConfigError: The CSV cannot be read, or a line is wrong; the message names it.
    """
    found: dict[str, CsvTime] = {}
    for line, row in _rows(path, "--times", ("recording", "time"), ("end_time",)):
        start = _time(row["time"], zone, line)
        end = _time(row["end_time"], zone, line) if row.get("end_time") else None
        if end and end <= start:
            raise line.error(f"end_time {row['end_time']} is not after the start")
        if row["recording"] in found:
            raise line.error(f"{row['recording']} is already in line {found[row['recording']].line}")
        found[row["recording"]] = CsvTime(start, end, line.number)
    return found


def read_clock_drifts(path: str | Path, zone: ZoneInfo) -> list[ClockDrift]:
    """Read a CSV of clock readings: columns recordings (a name or pattern), recorded_time and true_time.

    `zone` is the time zone of times without an offset.

    Raises:
        ConfigError: The CSV cannot be read, or a line is wrong; the message names it.
    """
    readings: dict[str, list[tuple[datetime, datetime]]] = {}
    for line, row in _rows(path, "--clock-marks", ("recordings", "recorded_time", "true_time")):
        reading = (_time(row["recorded_time"], zone, line), _time(row["true_time"], zone, line))
        for recorded, true in readings.setdefault(row["recordings"], []):
            passed_s, true_s = (reading[0] - recorded).total_seconds(), (reading[1] - true).total_seconds()
            if not passed_s or abs(true_s / passed_s - 1) > MAX_DRIFT:
                raise line.error(
                    f"implausible clock error: {passed_s:,.0f} s by the clock of {row['recordings']} are "
                    f"{true_s:,.0f} true seconds"
                )
        readings[row["recordings"]].append(reading)
    drifts = []
    for recordings, pairs in readings.items():
        recorded, true = np.array([[(each - _EPOCH) // _MICROSECOND for each in pair] for pair in sorted(pairs)]).T
        drifts.append(ClockDrift(recordings, recorded, true))
    return drifts


@dataclass(frozen=True)
class _Line:
    """Where an error occurred."""

    path: str | Path
    option: str
    number: int

    def error(self, what: str) -> ConfigError:
        return ConfigError(f"{self.option} {self.path}, line {self.number}: {what}")


def _rows(
    path: str | Path, option: str, needed: tuple[str, ...], more: tuple[str, ...] = ()
) -> Iterator[tuple[_Line, dict[str, str]]]:
    try:
        text = locate(path).read_text(encoding="utf-8-sig")
        rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
        columns = rows.fieldnames or []
        missing = [name for name in needed if name not in columns]
        if missing:
            raise ConfigError(f"{option} {path} has no column {missing[0]}; it has {', '.join(columns)}")
        for row in rows:
            line = _Line(path, option, rows.line_num)
            values = {name: (row.get(name) or "").strip() for name in (*needed, *more)}
            empty = [name for name in needed if not values[name]]
            if empty:
                raise line.error(f"{empty[0]} is empty")
            yield line, values
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{option} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _time(text: str, zone: ZoneInfo, line: _Line) -> datetime:
    """Return a time in UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise line.error(f"{text!r} is not a valid time; write it like 2025-05-10T05:20:00+02:00") from None
    if time.tzinfo is None:
        first, second = (time.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
        if first.utcoffset() != second.utcoffset():
            what = "occurs twice" if first.astimezone(UTC) < second.astimezone(UTC) else "does not occur"
            raise line.error(f"{text} {what} in {zone.key}, since clocks change then: append the offset from UTC")
        time = first
    return time.astimezone(UTC)
