"""Times that a person gives in a CSV: of recordings, or marks that show how a clock went wrong."""

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

MAX_DRIFT = 0.01  # of a clock that is believed; quartzes have less than 0.0001
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class CsvTime(NamedTuple):
    """When a recording was made.

    Attributes:
        start: Its start, UTC.
        end: Its end, if known.
        line: Of the CSV.
    """

    start: datetime
    end: datetime | None
    line: int


@dataclass(frozen=True)
class ClockDrift:
    """What a recorder's clock said at true times; in between it went evenly, and so before and after.

    Attributes:
        recordings: Name or pattern of its recordings.
        recorded_us: What it said, in order, microseconds since 1970 [n].
        true_us: What it was [n].
    """

    recordings: str
    recorded_us: npt.NDArray[np.int64]
    true_us: npt.NDArray[np.int64]

    def true(self, recorded: datetime) -> tuple[datetime, float]:
        """Return the true time, and how many true seconds one of the recorder's is there."""
        at = (recorded - _EPOCH) // _MICROSECOND
        if len(self.recorded_us) == 1:
            return recorded + timedelta(microseconds=int(self.true_us[0] - self.recorded_us[0])), 1.0
        place = int(np.clip(np.searchsorted(self.recorded_us, at, "right") - 1, 0, len(self.recorded_us) - 2))
        (begin, end), (true, true_end) = (each[place : place + 2].tolist() for each in (self.recorded_us, self.true_us))
        rate = (true_end - true) / (end - begin)
        return _EPOCH + timedelta(microseconds=true + round((at - begin) * rate)), rate


def read_times(path: str | Path, zone: ZoneInfo) -> dict[str, CsvTime]:
    """Read a CSV of recordings and when they were made: columns recording, time and, if wanted, end_time.

    Args:
        path: Of the CSV, or its URL.
        zone: Of times that name none.

    Raises:
        ConfigError: It cannot be read, or a line is not right; it is named.
    """
    found: dict[str, CsvTime] = {}
    for line, row in _rows(path, "--times", ("recording", "time"), ("end_time",)):
        start = _time(row["time"], zone, line)
        end = _time(row["end_time"], zone, line) if row.get("end_time") else None
        if end and end <= start:
            raise line.error(f"it ends at {row['end_time']}, not after its start")
        if row["recording"] in found:
            raise line.error(f"{row['recording']} is in line {found[row['recording']].line} already")
        found[row["recording"]] = CsvTime(start, end, line.number)
    return found


def read_clock_drifts(path: str | Path, zone: ZoneInfo) -> list[ClockDrift]:
    """Read a CSV of marks: columns recordings (a name or pattern), recorded_time and true_time.

    Args:
        path: Of the CSV, or its URL.
        zone: Of times that name none.

    Raises:
        ConfigError: It cannot be read, or a line is not right; it is named.
    """
    marks: dict[str, list[tuple[datetime, datetime]]] = {}
    for line, row in _rows(path, "--clock-marks", ("recordings", "recorded_time", "true_time")):
        mark = (_time(row["recorded_time"], zone, line), _time(row["true_time"], zone, line))
        for recorded, true in marks.setdefault(row["recordings"], []):
            passed = (mark[0] - recorded).total_seconds()
            if not passed or abs((mark[1] - true).total_seconds() / passed - 1) > MAX_DRIFT:
                raise line.error(
                    f"no clock goes so wrong: {passed:,.0f} s between two marks of {row['recordings']} were "
                    f"{(mark[1] - true).total_seconds():,.0f} s"
                )
        marks[row["recordings"]].append(mark)
    drifts = []
    for recordings, pairs in marks.items():
        recorded, true = np.array([[(each - _EPOCH) // _MICROSECOND for each in pair] for pair in sorted(pairs)]).T
        drifts.append(ClockDrift(recordings, recorded, true))
    return drifts


@dataclass(frozen=True)
class _Line:
    """Where an error is."""

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
        lacking = [name for name in needed if name not in columns]
        if lacking:
            raise ConfigError(f"{option} {path} lacks the column {lacking[0]}; it has {', '.join(columns)}")
        for row in rows:
            line = _Line(path, option, rows.line_num)
            values = {name: (row.get(name) or "").strip() for name in (*needed, *more)}
            empty = [name for name in needed if not values[name]]
            if empty:
                raise line.error(f"it has no {empty[0]}")
            yield line, values
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{option} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _time(text: str, zone: ZoneInfo, line: _Line) -> datetime:
    """A time in UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise line.error(f"{text!r} is no time such as 2025-05-10T05:20:00+02:00") from None
    if time.tzinfo is None:
        first, second = (time.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
        if first.utcoffset() != second.utcoffset():
            what = "comes twice" if first.astimezone(UTC) < second.astimezone(UTC) else "does not come"
            raise line.error(f"{text} {what} in {zone.key}, where clocks change then: write the offset behind it")
        time = first
    return time.astimezone(UTC)
