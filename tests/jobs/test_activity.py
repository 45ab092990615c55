"""`satpipe activity`: events and their length in hours, days, recordings and folders, beside the time recorded."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import satpipe
from conftest import Satpipe
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from outputs import CHUNK_S, IDENTITY, RUN, scores_of, set_clock, write_output
from satpipe.pipeline.tables.schemas import ACTIVITY
from satpipe.sat.errors import ConfigError, LabelError
from satpipe.sat.labels import find

BERLIN = "Europe/Berlin"
HOUR_CHUNKS = 1875
COUNTED = ["recorded_s", "events", "active_s", "share", "peak_score"]
Wave = Any


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours in a meadow from 04:30 with a bird across 05:00; ten minutes at a pond with a frog; an undated hour."""
    folder = tmp_path_factory.mktemp("out")
    bird = np.zeros(2 * HOUR_CHUNKS)
    bird[100:102], bird[930:945] = 0.6, 0.8  # the second one from 04:59:45.6 to 05:00:14.4
    waves = {
        "meadow/a.wav": scores_of(2 * HOUR_CHUNKS, Owl=bird.tolist(), Dog=[0.2]),
        "meadow/b.wav": scores_of(0),
        "pond/c.wav": scores_of(313, Frog=[0.9, 0.9]),
    }
    write_output(folder, waves, {"pond/d.wav": scores_of(HOUR_CHUNKS, Frog=[0.7])})
    set_clock(
        folder,
        {
            "meadow/a.wav": (datetime(2025, 5, 1, 2, 30, tzinfo=UTC), None),
            "pond/c.wav": (datetime(2025, 5, 1, 5, 10, tzinfo=UTC), None),
        },
    )
    return folder


@pytest.mark.filterwarnings("ignore:.*start is not known")
def test_hours_have_their_part_of_events_and_of_the_recorded_time(out: Path) -> None:
    found = satpipe.activity(out, group=["birds", "frogs"], time_zone=BERLIN)
    assert list(found.columns) == [name for name in ACTIVITY.names if name not in ("recording", "folder")]
    birds = found[found.label == "birds"]
    assert birds.time_local.tolist() == [f"2025-05-01T0{hour}:00:00.000+02:00" for hour in (4, 5, 6, 7)]
    assert birds.time.dt.hour.tolist() == [2, 3, 4, 5]
    assert (birds.hour.tolist(), set(birds.date.astype(str))) == ([4, 5, 6, 7], {"2025-05-01"})
    np.testing.assert_allclose(birds.recorded_s, [1800, 3600, 1800 - CHUNK_S / 2, 312.5 * CHUNK_S])
    assert birds.events.tolist() == [2, 0, 0, 0]  # an event counts where it begins
    np.testing.assert_allclose(birds.active_s, [2 * CHUNK_S + 14.4, 14.4, 0, 0])
    np.testing.assert_allclose(birds.share, birds.active_s / birds.recorded_s)
    np.testing.assert_allclose(birds.peak_score, [0.8, 0.8, 0, 0], atol=1e-3)
    assert set(birds.mid) == {"group/birds"}
    frogs = found[found.label == "frogs"]
    np.testing.assert_allclose(frogs[["events", "peak_score"]], [[0, 0], [0, 0], [0, 0], [1, 0.9]], atol=1e-3)


def test_places_need_no_start_time(out: Path) -> None:
    found = satpipe.activity(out, labels=["Owl", "Frog"], by=["folder", "label"])
    assert list(found.columns) == ["folder", "mid", "label", *COUNTED]
    lengths_s = [(2 * HOUR_CHUNKS - 0.5) * CHUNK_S, (312.5 + HOUR_CHUNKS - 0.5) * CHUNK_S]
    np.testing.assert_allclose(found.recorded_s, np.repeat(lengths_s, 2))
    assert list(zip(found.folder, found.label, found.events, strict=True)) == [
        ("meadow", "Owl", 2), ("meadow", "Frog", 0), ("pond", "Owl", 0), ("pond", "Frog", 2),
    ]  # fmt: skip
    found = satpipe.activity(out, group="frogs", by="recording,folder")
    assert found[["recording", "folder", "events"]].to_numpy().tolist() == [
        ["meadow/a.wav", "meadow", 0], ["pond/c.wav", "pond", 1], ["pond/d.wav", "pond", 1],
    ]  # fmt: skip
    (total,) = satpipe.activity(out, labels="Frog", by="label").itertuples()
    assert (total.label, total.events) == ("Frog", 2)
    found = satpipe.activity(out, by="label")
    assert set(found.label) == {"Owl", "Frog"}  # of all classes those that were found
    assert satpipe.activity(out, by="label", threshold=0.95).empty


@pytest.mark.filterwarnings("ignore:.*start is not known")
def test_days_and_hours_of_places_and_a_part_of_the_time(out: Path) -> None:
    found = satpipe.activity(out, group="birds", by=["day", "recording"], time_zone="Pacific/Auckland")
    assert found[["recording", "time_local", "events"]].to_numpy().tolist() == [
        ["meadow/a.wav", "2025-05-01T00:00:00.000+12:00", 2], ["pond/c.wav", "2025-05-01T00:00:00.000+12:00", 0],
    ]  # fmt: skip
    found = satpipe.activity(out, group="birds", until="2025-05-01 03:00", recordings="meadow/*")
    np.testing.assert_allclose(found.recorded_s, [1800])
    assert found.time_local.tolist() == ["2025-05-01T02:00:00.000+00:00"]


def by_hand(waves: dict[str, Wave], starts: dict[str, datetime], zone: str, low: float) -> dict[tuple[str, str], Any]:
    """Seconds recorded and at or above a score, and its maximum, by recording and local hour, in steps of 1/25 s."""
    cells: dict[tuple[str, str], list[float]] = {}
    for name, wave in waves.items():
        for chunk, score in enumerate(wave):
            ticks = 48 if chunk < len(wave) - 1 else 24
            for tick in range(chunk * 48, chunk * 48 + ticks):
                there = (starts[name] + timedelta(seconds=tick / 25)).astimezone(ZoneInfo(zone))
                cell = cells.setdefault((name, f"{there:%Y-%m-%dT%H}:00:00.000{there.isoformat()[-6:]}"), [0, 0, 0.0])
                cell[0] += 1
                cell[1] += score >= low
                cell[2] = max(cell[2], score)
    return cells


@settings(max_examples=8, deadline=None, phases=[Phase.generate])
@given(data=st.data())
def test_whatever_the_hours_effort_adds_up_to_the_recorded_seconds(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    changes = {
        BERLIN: datetime(2025, 10, 26, 1, tzinfo=UTC),
        "Australia/Lord_Howe": datetime(2025, 4, 5, 15, tzinfo=UTC),
    }
    zone = data.draw(st.sampled_from(sorted(changes)))
    levels = st.lists(st.sampled_from([0.0, 0.25, 0.75]), min_size=1, max_size=60)
    waves = data.draw(st.dictionaries(st.sampled_from(["a.wav", "b/c.wav", "b/d.wav"]), levels, min_size=1))
    shifts = {name: timedelta(seconds=data.draw(st.integers(-130, 130)) / 25 * 25) for name in waves}
    starts = {name: changes[zone] + shift for name, shift in shifts.items()}
    write_output(folder, {name: scores_of(len(wave), Dog=wave) for name, wave in waves.items()})
    set_clock(folder, {name: (start, None) for name, start in starts.items()})
    options = {"labels": "Dog", "threshold": 0.5, "low": 0.5, "time_zone": zone}
    expected = by_hand(waves, starts, zone, 0.5)
    found = satpipe.activity(folder, by=["hour", "recording"], **options)
    cells = {(row.recording, row.time_local): row for row in found.itertuples()}
    assert cells.keys() == {(name, _hour_start(time, zone)) for name, time in expected}
    for (name, time), (ticks, active, peak) in expected.items():
        row = cells[name, _hour_start(time, zone)]
        assert (row.recorded_s, row.active_s) == pytest.approx((ticks / 25, active / 25), abs=1e-5)
        assert row.peak_score == peak
    for by in ("hour", "day,folder", "label"):
        found = satpipe.activity(folder, by=by, **options)
        assert found.recorded_s.sum() == pytest.approx(sum((len(wave) - 0.5) * CHUNK_S for wave in waves.values()))
        assert found.events.sum() == len(satpipe.events(folder, labels="Dog", threshold=0.5, low=0.5))
        assert found.share.between(0, 1).all()


def _hour_start(time: str, zone: str) -> str:
    """The half hour at Lord Howe Island that comes twice starts at half past."""
    return time.replace("01:00:00.000+10:30", "01:30:00.000+10:30") if zone.endswith("Howe") else time


@pytest.mark.slow
def test_days_on_which_clocks_change_are_as_long_as_they_are(tmp_path: Path) -> None:
    write_output(tmp_path, {"a.wav": np.zeros((26 * HOUR_CHUNKS, 527), np.float32)})
    for month, day, hours in ((3, 30, 23), (10, 26, 25), (7, 1, 24)):
        midnight = datetime(2025, month, day, tzinfo=ZoneInfo(BERLIN)).astimezone(UTC)
        set_clock(tmp_path, {"a.wav": (midnight - timedelta(minutes=30), None)})
        found = satpipe.activity(tmp_path, labels="Bird", time_zone=BERLIN)
        here = found[found.date.astype(str) == f"2025-{month:02}-{day:02}"]
        assert (len(here), here.time_local.nunique()) == (hours, hours)
        np.testing.assert_allclose(here.recorded_s, 3600)
        days = satpipe.activity(tmp_path, labels="Bird", time_zone=BERLIN, by="day")
        np.testing.assert_allclose(days.recorded_s.iloc[:2], [1800, hours * 3600])


def test_chunks_that_are_missing_are_no_effort(tmp_path: Path) -> None:
    waves = {"a.wav": scores_of(20, Dog=[0.9] * 20)}
    write_output(tmp_path / "scores", waves, died={"a.wav": range(5, 12)})
    (row,) = satpipe.activity(tmp_path / "scores", labels="Dog", by="recording").itertuples()
    assert (row.recorded_s, row.active_s, row.events) == pytest.approx((12.5 * CHUNK_S, 12.5 * CHUNK_S, 2))
    write_output(tmp_path / "tags", waves, run=RUN | {"identity": IDENTITY | {"scores": False}})
    with pytest.warns(UserWarning, match="has no scores, so tags are used: scores below"):
        (row,) = satpipe.activity(tmp_path / "tags", labels="Dog", by="recording").itertuples()
    assert (row.recorded_s, row.events) == pytest.approx((19.5 * CHUNK_S, 1))


def test_the_command_writes_what_the_ending_says(out: Path, tmp_path: Path, satpipe_here: Satpipe) -> None:
    expected = satpipe.activity(out, labels=["Owl", "Frog"], by=["recording"], threshold=0.7)
    options = ("--labels", "Owl", "--labels", "Frog", "--by", "recording,label", "--threshold", "0.7")
    for name, read in (("a.csv", pd.read_csv), ("a.tsv", pd.read_table), ("a.parquet", pd.read_parquet)):
        done = satpipe_here("activity", out, *options, "-o", tmp_path / name)
        assert done.stdout == f"6 rows, 3.17 h recorded, 3 events: {tmp_path / name}\n"
        columns = {name: str for name in ("recording", "mid", "label")}
        found = read(tmp_path / name).astype(columns)
        pd.testing.assert_frame_equal(found, expected.astype(columns), check_dtype=False, atol=1e-4)
    done = satpipe_here("activity", out, *options, "-o", tmp_path / "a.xlsx")
    assert (done.returncode, "the name of a table must end in .parquet, .csv or .tsv" in done.stderr) == (1, True)
    done = satpipe_here("activity", out, "--by", "week")
    assert "ConfigError: --by must be hour, day, recording, folder or label, or several of them" in done.stderr
    done = satpipe_here("activity", out, "--group", "frogs")
    assert (out / "activity.csv").read_text().startswith("time,time_local,date,hour,mid,label,recorded_s,events,")
    assert "note: 1 of 3 recordings are left out: their start is not known" in done.stdout.replace("2 of 4", "1 of 3")


def test_what_cannot_be_counted_is_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no group and no class is called 'brids'; did you mean 'birds'"):
        satpipe.activity(out, group="brids")
    with pytest.raises(
        ConfigError, match="start times of these recordings are unknown.*--by recording, folder and label need none"
    ):
        satpipe.activity(out, recordings="pond/d.wav")
    with pytest.raises(ConfigError, match="--time-zone Berlin: no such time zone; did you mean Europe/Berlin"):
        satpipe.activity(out, time_zone="Berlin")
    write_output(tmp_path, {})
    assert satpipe.activity(tmp_path, by="recording").empty
    assert find("Owl").index is not None
