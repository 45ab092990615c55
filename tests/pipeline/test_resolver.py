"""From what names and metadata tell to UTC: zones, summer time, clocks that went wrong."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from satpipe.pipeline.start_times.from_csv import read_clock_drifts, read_times
from satpipe.pipeline.start_times.from_headers import HeaderTime
from satpipe.pipeline.start_times.resolver import RecordedFile, StartTimeResolver, find_zone
from satpipe.sat.errors import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")


def told(clock: StartTimeResolver, *names: str, duration_s: float = 60.0) -> list[str | None]:
    """When files started, as hours and minutes of UTC, in the order of the names."""
    found = clock.resolve([RecordedFile(name, duration_s, None) for name in names])
    return [each and f"{each.time.astimezone(UTC):%H:%M}" for each in found]


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "stamp", "expected"),
    [
        ("20250510_052000.wav", None, ("name", "05:20:00")),
        ("20250510_052000.wav", HeaderTime("guano", "2025-05-10T05:21:00"), ("guano", "05:21:00")),
        ("20250510_052000.wav", HeaderTime("comment", "2025-05-10T05:21:00+02:00"), ("comment", "03:21:00")),
        ("20250510_052000.wav", HeaderTime("bext", "2026-01-01T00:00:00"), ("name", "05:20:00")),  # an editor wrote it
        ("250510_0520.wav", HeaderTime("bext", "2025-05-10T05:20:37"), ("bext", "05:20:37")),  # to the second
        ("250510_0520.wav", None, ("name", "05:20:00")),
        ("ZOOM0001.wav", HeaderTime("ixml", "2025-05-10T05:20:37"), ("ixml", "05:20:37")),
        ("ZOOM0001.wav", HeaderTime("bext", "1904-01-01T00:00:00"), None),  # a clock that was never set
        ("ZOOM0001.wav", None, None),
    ],
)
def test_what_tells_better_goes_first(name: str, stamp: HeaderTime | None, expected: tuple[str, str] | None) -> None:
    (found,) = StartTimeResolver().resolve([RecordedFile(name, 60.0, stamp)])
    assert (found and (found.source, f"{found.time:%H:%M:%S}")) == expected


def test_a_pattern_goes_before_headers_and_a_csv_before_all(tmp_path: Path) -> None:
    times = written(tmp_path / "times.csv", "recording,time", "b-20250510-03.wav,2025-05-10T11:00:00")
    clock = StartTimeResolver("?-%Y%m%d-%H*", None, read_times(times, find_zone(None)))
    stamp = HeaderTime("guano", "2025-05-10T05:21:00")
    names = ("a-20250510-03.wav", "b-20250510-03.wav", "20250510_052000.wav")
    found = clock.resolve([RecordedFile(name, 60.0, stamp) for name in names])
    assert [each and (each.source, each.time.hour) for each in found] == [("pattern", 3), ("csv", 11), ("guano", 5)]


def test_the_time_zone_is_that_of_the_name_else_the_one_given_else_utc() -> None:
    names = ("20250510_052000.wav", "2025-05-10T05-20-00+0500.wav", "20251110_052000.wav")
    clock = StartTimeResolver()
    assert told(clock, *names) == ["05:20", "00:20", "05:20"]
    assert clock.ambiguities.without_zone == [names[0], names[2]]
    clock = StartTimeResolver(zone="Europe/Berlin")
    assert told(clock, *names) == ["03:20", "00:20", "04:20"]
    assert clock.ambiguities.without_zone == []


@pytest.mark.parametrize(
    ("zone", "near"),
    [
        ("Europe/Berln", "Europe/Berlin"),
        ("Berlin", "Europe/Berlin"),
        ("europe/zurich", "Europe/Zurich"),
        ("new york", "America/New_York"),
    ],
)
def test_a_zone_that_is_none_is_an_error_with_the_nearest_names(zone: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"--time-zone {zone}: no such time zone; did you mean .*{near}"):
        StartTimeResolver(zone=zone)
    with pytest.raises(ConfigError, match="use a name such as Europe/Berlin"):
        StartTimeResolver(zone="../../etc/passwd")


# Summer time: in Berlin 2025 it begins on 30 March at 2:00 (1:00 UTC) and ends on 26 October at 3:00 (1:00 UTC).


def test_the_hour_that_comes_twice_is_told_by_the_order_of_the_files() -> None:
    names = ["0145", "0210", "0235", "0200", "0225", "0250", "0315"]  # 25 minutes each, without a break
    files = [f"20251026_{each}00.wav" for each in names]
    clock = StartTimeResolver(zone="Europe/Berlin")
    expected = ["23:45", "00:10", "00:35", "01:00", "01:25", "01:50", "02:15"]
    assert told(clock, *files, duration_s=25 * 60) == expected
    assert sorted(clock.ambiguities.repeated_hour) == sorted(files[1:-1])
    mixed = [3, 0, 6, 2, 5, 1, 4]
    assert told(clock, *(files[n] for n in mixed), duration_s=25 * 60) == [expected[n] for n in mixed]


def test_where_the_files_do_not_tell_it_is_the_first_of_the_two() -> None:
    clock = StartTimeResolver(zone="Europe/Berlin")
    assert told(clock, "20251026_021000.wav", "20251026_024000.wav") == ["00:10", "00:40"]
    other = ["b/20251026_015900.wav", "a/20251026_021000.wav", "b/20251026_024000.wav"]  # of two recorders
    assert told(clock, *other, duration_s=3600) == ["23:59", "00:10", "01:40"]
    for file in clock.ambiguities.repeated_hour:
        assert "20251026_02" in file


@given(
    minutes=st.integers(4, 50),
    start=st.integers(0, 180),
    number=st.integers(1, 60),
)
def test_files_without_a_break_never_overlap(minutes: int, start: int, number: int) -> None:
    """Unless two have the same name, or the first one is in the hour that comes twice: then nothing tells."""
    begin = datetime(2025, 10, 25, 21, 0, tzinfo=UTC) + timedelta(minutes=start)
    times = [begin + timedelta(minutes=minutes * n) for n in range(number)]
    names = [f"{time.astimezone(BERLIN):%Y%m%d_%H%M%S}.wav" for time in times]
    assume(len(set(names)) == number and "_02" not in names[0])
    found = StartTimeResolver(zone="Europe/Berlin").resolve(
        [RecordedFile(name, 60.0 * minutes, None) for name in names]
    )
    assert [each and each.time for each in found] == times


def test_an_hour_that_does_not_come_is_taken_as_if_the_clock_had_not_been_changed() -> None:
    clock = StartTimeResolver(zone="Europe/Berlin")
    assert told(clock, "20250330_013000.wav", "20250330_023000.wav", "20250330_033000.wav") == [
        "00:30",
        "01:30",
        "01:30",
    ]
    assert clock.ambiguities.skipped_hour == ["20250330_023000.wav"]
    assert clock.ambiguities.repeated_hour == []


# Clocks that went wrong


def test_the_end_of_a_recording_tells_how_fast_its_clock_was(tmp_path: Path) -> None:
    lines = [
        "recording,time,end_time",
        "a.wav,2025-05-10T05:20:00+02:00,2025-05-10T06:20:03.6+02:00",
        "b.wav,2025-05-10 05:20:00,",
        "c.wav,2025-05-10 05:20:00,2025-05-11 05:20:00",
    ]
    clock = StartTimeResolver(times=read_times(written(tmp_path / "times.csv", *lines), BERLIN))
    found = clock.resolve([RecordedFile(name, 3600.0, None) for name in ("a.wav", "b.wav", "c.wav")])
    assert [each and each.rate for each in found] == [pytest.approx(1.001), None, None]
    assert {each.time if each else None for each in found} == {datetime(2025, 5, 10, 3, 20, tzinfo=UTC)}
    assert clock.ambiguities.implausible_rates == ["c.wav"]  # no clock is wrong by so much


def test_marks_set_a_clock_right(tmp_path: Path) -> None:
    lines = [
        "recordings,recorded_time,true_time",
        "pond/*,2025-05-01T00:00:00,2025-05-01T00:00:10",
        "pond/*,2025-05-11T00:00:00,2025-05-11T00:01:50",  # 100 s slow in 10 days
        "street/*,2025-05-01T12:00:00+00:00,2025-05-01T11:00:00+00:00",
    ]
    clock = StartTimeResolver(drifts=read_clock_drifts(written(tmp_path / "marks.csv", *lines), find_zone(None)))
    names = ["pond/20250501_000000.wav", "pond/20250506_000000.wav", "pond/20250521_000000.wav"]
    found = clock.resolve(
        [RecordedFile(name, 60.0, None) for name in [*names, "street/20250601_050000.wav", "20250601_050000.wav"]]
    )
    assert [each and f"{each.time:%d %H:%M:%S}" for each in found] == [
        "01 00:00:10",
        "06 00:01:00",
        "21 00:03:30",
        "01 04:00:00",
        "01 05:00:00",
    ]
    slow = pytest.approx(1 + 100 / (10 * 86_400))
    assert [each and each.rate for each in found] == [slow, slow, slow, 1.0, None]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["recording;time", "a.wav;2025-05-10"], "times.csv has no column recording; it has recording;time"),
        (["recording,time", "a.wav,10.5.2025 5:20"], "line 2: '10.5.2025 5:20' is not a valid time; write it like"),
        (["recording,time", "a.wav,2025-05-10T05:20", "b.wav,"], "line 3: time is empty"),
        (["recording,time", "a.wav,2025-05-10T05", "a.wav,2025-05-10T06"], "line 3: a.wav is already in line 2"),
        (["recording,time,end_time", "a.wav,2025-05-10T05,2025-05-10T04"], "line 2: end_time 2025-05-10T04 is not"),
        (["recording,time", "a.wav,2025-10-26T02:30"], "line 2: .* occurs twice in Europe/Berlin"),
        (["recording,time", "a.wav,2025-03-30T02:30"], "line 2: .* does not occur in Europe/Berlin"),
        (["\x00\xff"], "times.csv"),
    ],
)
def test_a_line_that_is_not_right_is_named(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=f"--times .*{says}"):
        read_times(written(tmp_path / "times.csv", *lines), BERLIN)


def test_marks_that_cannot_be_are_an_error(tmp_path: Path) -> None:
    lines = ["recordings,recorded_time,true_time", "*,2025-05-01,2025-05-01", "*,2025-05-11,2025-05-12"]
    with pytest.raises(ConfigError, match=r"line 3: implausible clock error: 864,000 s .* are 950,400 true s"):
        read_clock_drifts(written(tmp_path / "marks.csv", *lines), BERLIN)
    with pytest.raises(ConfigError, match="--clock-marks .*gone.csv cannot be read: No such file"):
        read_clock_drifts(tmp_path / "gone.csv", BERLIN)
