"""`satpipe tag` and time: when recordings started, and deployments of several files."""

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from audio import noise, shorten, write
from guano import GuanoFile
from outputs import scores_of, write_output
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.messages import plan as plan_text
from satpipe.jobs.tag.plan import plan
from satpipe.pipeline.start_times.resolver import StartTimeResolver
from satpipe.pipeline.tables.dataframes import in_files, read_recordings, read_tags
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.start_times import set_times
from satpipe.sat.errors import ConfigError
from tag_tables import EXAMPLES, recordings, samples_16k, scores, tags
from without_ray import satpipe

RATE_HZ = 44_100


def utc(out: Path) -> dict[str, str | None]:
    """When recordings started, to the second."""
    times = recordings(out).time
    return {name: None if pd.isna(time) else f"{time:%Y-%m-%d %H:%M:%S}" for name, time in times.items()}


def state(out: Path, *names: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for name in names for path in (out / name).iterdir()}


@pytest.fixture(scope="module")
def garden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings; names tell when two of them started, and a header of one."""
    folder = tmp_path_factory.mktemp("garden")
    for name in ("20250510_032000.WAV", "pond_20251026_023000.wav", "2.wav", "nothing.wav"):
        write(folder / name, noise(40_000) / 10)
    file = GuanoFile(str(folder / "2.wav"))
    file["GUANO|Version"], file["Timestamp"] = 1.0, datetime.fromisoformat("2025-05-10T05:30:00+02:00")
    file.write(make_backup=False)
    return folder


@pytest.mark.slow
def test_times_follow_the_options_and_nothing_is_tagged_again_for_them(garden: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = satpipe("tag", garden, "-o", out)
    assert done.returncode == 0, done.stderr
    expected = {"20250510_032000.WAV": "2025-05-10 03:20:00", "2.wav": "2025-05-10 03:30:00", "nothing.wav": None}
    assert utc(out) == expected | {"pond_20251026_023000.wav": "2025-10-26 02:30:00"}
    assert dict(recordings(out).time_source.dropna()) == {
        "20250510_032000.WAV": "name", "2.wav": "guano", "pond_20251026_023000.wav": "name"
    }  # fmt: skip
    assert "start time known for 3 of 4 recordings (1 from guano, 2 from name)" in done.stdout
    assert "start time not known from name or header: 1, such as nothing.wav" in done.stdout
    assert "no time zone given: treated as UTC; --time-zone sets another: 2, such as" in done.stdout
    assert read_tags(out, recordings="2*", since="2025-05-10 03:25").recording.unique().tolist() == ["2.wav"]

    before = state(out, "tags", "scores")
    times = tmp_path / "times.csv"
    times.write_text("recording,time\nnothing.wav,2025-05-10 05:40:00\nstrange.wav,2025-05-10 05:40:00\n")
    arguments = ("tag", garden, "-o", out, "--time-zone", "Europe/Berlin", "--times", times)
    done = satpipe(*arguments)
    assert done.returncode == 0, done.stderr
    assert state(out, "tags", "scores") == before
    assert utc(out) == {
        "20250510_032000.WAV": "2025-05-10 01:20:00",
        "2.wav": "2025-05-10 03:30:00",
        "nothing.wav": "2025-05-10 03:40:00",
        "pond_20251026_023000.wav": "2025-10-26 00:30:00",
    }
    assert "recordings not found: 1, such as strange.wav (line 3)" in done.stdout
    assert (
        "in the repeated hour of Europe/Berlin: treated as the earliest time that follows the previous file: 1"
        in done.stdout
    )
    assert "no time zone given" not in done.stdout
    found = satpipe("status", out).stdout
    assert "start time known for 4 of 4 recordings (1 from csv, 1 from guano, 2 from name)" in found


def test_folders_of_before_there_were_times_get_them(tmp_path: Path) -> None:
    write_output(tmp_path, {"20250510_032000.wav": scores_of(3), "b.wav": scores_of(2)})
    (path,) = (tmp_path / "recordings").iterdir()
    table = pq.read_table(path)
    pq.write_table(table.drop(["time", "clock_rate", "time_source", "header", "header_time", "files"]), path)
    output = Output(tmp_path)
    assert output.batches.recordings(["recording", "time"])["time"].to_pylist() == [None, None]
    known = set_times(output.batches, StartTimeResolver(), split=False, gap_s=2)
    assert (known.sources, known.unknown) == ({"name": 1}, ["b.wav"])
    before = state(tmp_path, "recordings")
    set_times(output.batches, StartTimeResolver(), split=False, gap_s=2)
    assert state(tmp_path, "recordings") == before
    assert read_recordings(tmp_path).time.dt.hour.tolist()[0] == 3


def test_an_offset_that_may_be_a_count_is_said_as_long_as_it_is_used(tmp_path: Path) -> None:
    guessed, sure = "site_20140618_083000-0500.wav", "site_20140618_083000-05:00.wav"
    write_output(tmp_path, {guessed: scores_of(3), sure: scores_of(2)})
    output = Output(tmp_path)

    def warnings(pattern: str | None = None) -> list[list[str]]:
        set_times(output.batches, StartTimeResolver(pattern), split=False, gap_s=2)
        return output.batches.recordings(["recording", "warnings"])["warnings"].to_pylist()

    for _ in range(2):
        assert warnings() == [["offset guessed: -0500 in the name"], []]
        assert set(read_recordings(tmp_path).time.dt.hour) == {13}
    assert warnings("site_%Y%m%d_%H%M%S*") == [[], []]
    assert set(read_recordings(tmp_path).time.dt.hour) == {8}


def test_channels_have_the_time_of_their_file(tmp_path: Path) -> None:
    names = [f"20251026_02{minute}00.wav#ch{channel}" for minute in (10, 40) for channel in (1, 2)]
    write_output(tmp_path, {name: scores_of(500) for name in names})  # 16 minutes each
    set_times(Output(tmp_path).batches, StartTimeResolver(zone="Europe/Berlin"), split=True, gap_s=2)
    assert read_recordings(tmp_path).time.dt.strftime("%H:%M").tolist() == ["00:10", "00:10", "00:40", "00:40"]


@pytest.mark.slow
def test_a_deployment_has_the_scores_of_one_long_recording(tmp_path: Path) -> None:
    """Also after another file was added, and up to a file that breaks off."""
    folder, out = tmp_path / "in", tmp_path / "out"
    bird, speech = (samples_16k(EXAMPLES / name) for name in ("birds_48k_stereo.opus", "speech_16k_mono.WAV"))
    sound = np.resize(np.concatenate([bird, speech]), 65 * RATE_HZ)
    bounds = [0, 21 * RATE_HZ + 12_345, 40 * RATE_HZ + 7, len(sound)]
    names = ["20251026_015950.flac", "20251026_020011.flac", "20251026_020030.flac"]
    (folder / "pond").mkdir(parents=True)
    write(folder / "whole.flac", sound, RATE_HZ)
    parts = [write(tmp_path / name, sound[a:b], RATE_HZ) for name, a, b in zip(names, bounds, bounds[1:], strict=False)]
    for part in parts[:2]:
        shutil.copy(part, folder / "pond")
    everything = ("--threshold", 0, "--top-k", 527, "--span-s", 10)
    arguments = ("tag", folder, "-o", out, *everything, "--join", "--time-zone", "Europe/Berlin")
    done = satpipe(*arguments)
    assert done.returncode == 0, done.stderr
    assert "joined: 2 files to 1 deployment" in done.stdout
    first = f"pond/{names[0]}"
    assert utc(out) == {first: "2025-10-25 23:59:50", "whole.flac": None}

    shutil.copy(parts[2], folder / "pond")
    done = satpipe(*arguments)
    assert done.returncode == 0, done.stderr
    assert "joined: 3 files to 1 deployment" in done.stdout
    table = tags(out)
    ours, theirs = (table[table.recording == name].reset_index(drop=True) for name in (first, "whole.flac"))
    columns = ["chunk", "start_s", "end_s", "mid"]
    pd.testing.assert_frame_equal(ours[columns], theirs[columns])
    np.testing.assert_allclose(ours.score, theirs.score, rtol=0, atol=1e-6)
    row = recordings(out).loc[first]
    assert [each["file"] for each in row.files] == [f"pond/{name}" for name in names]
    assert [round(each["start_s"] * RATE_HZ) for each in row.files] == bounds[:-1]
    assert (row.duration_s, row.status) == (65.0, "ok")

    shorten(folder / "pond" / names[1], 0.5)
    done = satpipe(*arguments)
    assert done.returncode == 3
    rows = recordings(out)
    assert sorted(rows.index) == [first, f"pond/{names[2]}", "whole.flac"]
    assert rows.status[first] == "truncated"
    assert f"pond/{names[1]}: the header announces " in rows.reason[first]
    assert rows.duration_s[f"pond/{names[2]}"] == pytest.approx(25, abs=0.001)
    assert utc(out)[f"pond/{names[2]}"] == "2025-10-26 00:00:30"
    assert len(scores(out)) == rows.chunks.sum()
    again = plan(TagOptions((str(folder),), out, join=True, time_zone="Europe/Berlin"))
    assert (again.files, again.remaining, again.without_files) == (4, 0, frozenset())


def test_a_clock_that_runs_away_from_the_samples_of_a_deployment_gives_a_rate(tmp_path: Path) -> None:
    names = [f"20250510_{hour:02}0000.wav" for hour in range(5)]
    write_output(tmp_path, {names[0]: scores_of(9_375)})  # 5 h
    (path,) = (tmp_path / "recordings").iterdir()
    frame = pq.read_table(path).to_pandas()
    for step_s, rate in ((3_599.8, None), (3_599.0, 3_600 / 3_599)):
        rows = [
            {"file": name, "start_s": n * step_s, "duration_s": step_s, "size_bytes": 1, "modified": 0, "header": None}
            for n, name in enumerate(names)
        ]
        frame["files"] = [rows]
        pq.write_table(
            Output(tmp_path).batches.recordings().schema.empty_table().from_pandas(frame, pq.read_schema(path)), path
        )
        set_times(Output(tmp_path).batches, StartTimeResolver(), split=False, gap_s=2)
        (found,) = recordings(tmp_path).clock_rate
        assert found == (pytest.approx(rate) if rate else pytest.approx(np.nan, nan_ok=True))
    events = pd.DataFrame({"recording": [names[0], "x.wav", names[0]], "start_s": [3_599.5, 7.0, 4.5]}, index=[5, 3, 4])
    found = in_files(tmp_path, events)
    assert found.drop(columns="recording").to_dict("list") == {
        "start_s": [3_599.5, 7.0, 4.5],
        "file": [names[1], "x.wav", names[0]],
        "file_s": [0.5, 7.0, 4.5],
    }
    assert list(found.index) == [5, 3, 4]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"time_zone": "Europe/Berln"}, "Europe/Berln: no such time zone; did you mean Europe/Berlin"),
        ({"time_pattern": "x_%Y%m%d_%H*"}, r"does not match any of 4 names, such as 2.wav, 20250510_032000.WAV, "),
        ({"time_pattern": "x_%Y"}, "must have year, day and hour"),
        (
            {"times": "recording,time\nnothng.wav,2025-05-10T05"},
            r"nothng.wav \(line 2\); an existing name is nothing.wav",
        ),
        ({"times": "recording,time\nnothing.wav,soon"}, "line 2: 'soon' is not a valid time"),
        (
            {"clock_marks": "recordings,recorded_time,true_time\nx/*,2025-05-10,2025-05-10"},
            r"named x/\*; an existing name is",
        ),
    ],
)
def test_options_that_cannot_be_are_said_before_anything_is_done(
    garden: Path, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    for name in ("times", "clock_marks"):
        if name in options:
            (tmp_path / name).write_text(options[name])
            options = options | {name: tmp_path / name}
    with pytest.raises(ConfigError, match=says):
        plan(TagOptions((str(garden),), tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_names_that_a_pattern_does_not_fit_are_counted(garden: Path, tmp_path: Path) -> None:
    found = plan(TagOptions((str(garden),), tmp_path / "out", time_pattern="%Y%m%d_%H%M%S*"))
    said = "note: --time-pattern %Y%m%d_%H%M%S* does not match 3 of 4 names, such as 2.wav, nothing.wav, pond_20251026"
    assert said in "\n".join(plan_text(found, "out", prune=False))
