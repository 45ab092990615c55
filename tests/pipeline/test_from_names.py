"""When a recording started, and of which recorder it is, by its name."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from satpipe.pipeline.start_times.from_names import OFFSETS, NameParser, NameTime
from satpipe.sat.errors import ConfigError

EAST = timezone(timedelta(hours=2))
MOMENT = datetime(2025, 5, 10, 5, 20)


def named(name: str, *others: str) -> NameTime | None:
    return NameParser([name, *others]).by_convention(name)


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("20250510_052000.WAV", MOMENT),  # AudioMoth
        ("a/20250510_052000T.WAV", MOMENT),  # set off by a sound
        ("20250510_052000_250.WAV", MOMENT.replace(microsecond=250_000)),
        ("24E144085F256D6B_20250510_052000.WAV", MOMENT),
        ("5CB2F3A0.WAV", datetime(2019, 4, 14, 8, 47, 28, tzinfo=UTC)),
        ("SITE1_20250510_052000.wav", MOMENT),  # Song Meter
        ("SITE1_+1_20250510_052000.wav", MOMENT),
        ("2MM01234_20250510_052000.wav", MOMENT),
        ("240510-052000.WAV", MOMENT.replace(year=2024)),  # Zoom
        ("2025-05-10T05:20:00Z.flac", MOMENT.replace(tzinfo=UTC)),
        ("2025-05-10T05-20-00+0200.flac", MOMENT.replace(tzinfo=EAST)),
        ("2025-05-10T05:20:00.5-02:30.wav", datetime.fromisoformat("2025-05-10T05:20:00.500-02:30")),
        ("20250510T052000Z.wav", MOMENT.replace(tzinfo=UTC)),
        ("pond 2025-05-10 05.20.00.wav", MOMENT),
        ("20250510052000.wav", MOMENT),
        ("2025-05-10_05-20-00.wav", MOMENT),
        ("S20250510T052000.5+0200_E20250510T0620+0200_-2.8+1.7.flac", MOMENT.replace(tzinfo=EAST, microsecond=500_000)),
        ("S20250510T052000676+0200_E20250510T062000501+0200_-02.8+001.7.wav",  # Frontier Labs
         MOMENT.replace(tzinfo=EAST, microsecond=676_000)),
        ("S20250510T052000.982648+0200_E20250510T062000.967555+0200.wav",
         MOMENT.replace(tzinfo=EAST, microsecond=982_648)),
        ("2025-05-10T05:20:00.9826489+02:00.wav", MOMENT.replace(tzinfo=EAST, microsecond=982_648)),
        ("SM304472_0+1_20250510$052000.wav", MOMENT),  # Song Meter with GPS
        ("24E1_20250510_052000_000123.wav", MOMENT.replace(microsecond=123)),
        ("site_20250510_052000-05:00.wav", MOMENT.replace(tzinfo=timezone(timedelta(hours=-5)))),
    ],
)  # fmt: skip
def test_recorders_write_the_time_into_names(name: str, time: datetime) -> None:
    found = named(name)
    assert found
    assert (found.time, found.to_the_second) == (time, True)
    assert found.time.utcoffset() == time.utcoffset()


def test_a_name_without_seconds_says_so() -> None:
    assert named("240510_0520.WAV") == NameTime(MOMENT.replace(year=2024), to_the_second=False)
    assert named("20250510_0520_Tr1.WAV") == NameTime(MOMENT, to_the_second=False)


@pytest.mark.parametrize(
    "name",
    [
        "birds_48k_stereo.opus",
        "000.wav",
        "ZOOM0001.WAV",
        "YTID_30000.wav",
        "-9DpfakhxAU_30.000_40.000.wav",
        "20251340_052000.wav",  # no month
        "20250510_256000.wav",  # no hour
        "19700101_000000.WAV",  # a clock that was never set
        "120250510_052000.wav",
        "freesound/50000000.wav",  # a number; in a folder of an AudioMoth it would be a time
        "DEADBEEF.WAV",
    ],
)
def test_what_is_no_time_is_not_taken_for_one(name: str) -> None:
    assert named(name) is None


def offset_of(name: str, *others: str) -> tuple[timedelta | None, str]:
    """The offset from UTC, and its number if that might also be a count."""
    found = named(name, *others)
    assert found
    assert found.time.replace(tzinfo=None) == MOMENT
    return found.time.utcoffset(), found.number


@given(
    minutes=st.integers(-15 * 60, 15 * 60).filter(bool), colon=st.sampled_from(["", ":"]), gap=st.sampled_from("_T$ ")
)
@example(minutes=-300, colon="", gap="_")
@example(minutes=-200, colon="", gap="_")
def test_an_offset_is_one_that_some_place_on_earth_uses(minutes: int, colon: str, gap: str) -> None:
    """A hyphen may also come before a count, unless the rest of the name says that it is a sign."""
    sign, number = "-" if minutes < 0 else "+", f"{abs(minutes) // 60:02}{colon}{abs(minutes) % 60:02}"
    offset, number_said = offset_of(f"SITE_20250510{gap}052000{sign}{number}.wav")
    assert offset == (timedelta(minutes=minutes) if timedelta(minutes=minutes) in OFFSETS else None)
    assert bool(number_said) == (offset is not None and sign == "-" and not colon and gap != "T")


def test_the_offsets_are_those_of_the_time_zone_database() -> None:
    moments = [datetime(year, month, 1) for year in range(2005, 2027) for month in (1, 7)]
    zones = map(ZoneInfo, available_timezones())
    used = {zone.utcoffset(moment) for zone in zones for moment in moments}
    assert used == OFFSETS


def test_a_number_that_counts_something_is_no_offset() -> None:
    assert offset_of("SITE_20250510_052000+0001.wav") == (None, "")
    assert offset_of("SITE_20250510_052000-0000.wav") == (None, "")
    name = "a/SITE_20250510_052000-0100.wav"
    assert offset_of(name) == offset_of(name, "b/x_20250510_052000-0101.wav") == (timedelta(hours=-1), "-0100")
    assert offset_of(name, "a/SITE_20250510_052000-0101.wav") == (None, "")  # one of them counts: so do all
    assert named("20250510_0500-0600.wav") == NameTime(MOMENT.replace(minute=0), to_the_second=False)  # from 5 to 6


def test_hexadecimal_digits_that_happen_to_be_decimal_are_known_by_the_files_beside() -> None:
    assert named("a/59000000.WAV") is None
    assert named("a/59000000.WAV", "b/5CB2F3A0.WAV") is None
    found = named("a/59000000.WAV", "a/5CB2F3A0.WAV")
    assert found
    assert found.time.timestamp() == 0x59000000


def test_the_folder_tells_the_time_of_its_only_recording() -> None:
    assert named("240510_0520/ZOOM0001.WAV") == NameTime(MOMENT.replace(year=2024), to_the_second=False)
    assert named("240510_0520/ZOOM0001.WAV", "240510_0520/ZOOM0002.WAV") is None
    assert named("240510_0520/x/ZOOM0001.WAV") is None


@given(
    time=st.datetimes(datetime(1990, 1, 1), datetime(2079, 12, 31)),
    form=st.sampled_from(["%Y%m%d_%H%M%S", "%Y-%m-%dT%H-%M-%S", "%Y_%m_%d %H.%M.%S", "%Y%m%d%H%M%S"]),
    before=st.sampled_from(["", "site_", "S4A-", "3_"]),
    behind=st.sampled_from(["", "_+1", "-x", " (2)"]),
)
def test_every_time_comes_back(time: datetime, form: str, before: str, behind: str) -> None:
    assert named(f"folder/{before}{time:{form}}{behind}.wav") == NameTime(
        time.replace(microsecond=0), to_the_second=True
    )


@given(
    time=st.datetimes(datetime(1990, 1, 1), datetime(2079, 12, 31)),
    fraction=st.sampled_from(["{}.{:06}", "{},{:06}", "{}_{:06}"]),
    form=st.sampled_from(["%Y%m%dT%H%M%S", "%Y-%m-%d_%H-%M-%S", "%Y%m%d$%H%M%S"]),
    zone=st.sampled_from(sorted(OFFSETS)),
)
def test_microseconds_and_offsets_come_back(time: datetime, fraction: str, form: str, zone: timedelta) -> None:
    time = time.replace(tzinfo=timezone(zone))
    found = named("S" + fraction.format(f"{time:{form}}", time.microsecond) + f"{time:%z}_E.wav")
    assert found
    assert (found.time, found.time.utcoffset()) == (time, zone)


@pytest.mark.parametrize(
    ("pattern", "name", "time"),
    [
        ("rec-%d%m%y-%H%M*", "site/rec-100525-0520-x.wav", MOMENT),
        ("*_%d.%b.%Y_%I%M%p.wav", "a_10.May.2025_0520AM.wav", MOMENT),
        ("%Y-%m-%d/??_%H%M%S.wav", "x/2025-05-10/ab_052000.wav", MOMENT),
        ("%Y%j-%H*", "2025130-05.wav", MOMENT.replace(minute=0)),
        ("100%%_%Y%m%d%H%M%S%z*", "100%_20250510052000+0200.wav", MOMENT.replace(tzinfo=EAST)),
        ("rec-%d%m%y-%H%M*", "site/rec-320525-0520-x.wav", None),  # no day
        ("rec-%d%m%y-%H%M", "a/rec-100525-0520.wav", MOMENT),  # an extension needs no *
        ("rec-%d%m%y-%H%M.wav", "rec-100525-0520.flac", None),
        ("rec-%d%m%y-%H%M", "rec-100525-0520-x.wav", None),  # it has an end
        ("*%Y%m%d%H*", "a/b.wav", None),
    ],
)
def test_a_pattern_says_where_the_time_is(pattern: str, name: str, time: datetime | None) -> None:
    names = NameParser([], pattern)
    assert names.by_pattern(name) == time
    if time:
        assert names.recorder(name) == names.recorder(name.replace("25", "24"))


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("%Q_%Y", "unknown directive %Q; use %Y %y %m"),
        ("%Y%m%d", "must have year, day and hour"),
        ("%H%M%S", "must have year, day and hour"),
        ("rec-%", "unknown directive %;"),
        ("%Y%m%d-%H-%Y", "has %Y twice"),
    ],
)
def test_a_pattern_that_is_none_is_an_error(pattern: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        NameParser([], pattern)


def test_files_of_one_recorder_have_the_rest_of_the_name_in_common() -> None:
    names = NameParser([])
    for same in (
        ["a/20250510_052000.WAV", "a/20250511_052000T.WAV", "a/20250511_052000_250.wav"],
        ["SITE1_20250510_052000.wav", "SITE1_20250510_062000.wav"],
        ["x/ZOOM0001.WAV", "x/ZOOM0002.WAV"],
        ["5CB2F3A0.WAV", "5CB2FFFF.WAV"],
    ):
        assert len({names.recorder(name) for name in same}) == 1
    for other in (
        ["a/20250510_052000.WAV", "b/20250510_052000.WAV"],
        ["SITE1_20250510_052000.wav", "SITE2_20250510_062000.wav"],
        ["240510_0520_Tr1.WAV", "240510_0520_Tr2.WAV"],
        ["20250510_052000.wav", "20250510_062000.flac"],
    ):
        assert len({names.recorder(name) for name in other}) == 2
