"""The data of `satpipe report` against plain counting; its sounds and pictures; errors."""

import io
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import soundfile
from audio import noise, write
from click.testing import CliRunner
from encoded import encode
from images import pixels, texts
from outputs import CHUNK_S, IDENTITY, RUN, scores_of, set_clock, set_files, write_output
from satpipe.jobs.commands.main import cli
from satpipe.jobs.report_data import (
    CERTAIN,
    NEAR,
    LabelTotal,
    Moment,
    ReportData,
    ReportOptions,
    collect,
    collection,
    count,
    excerpts,
    grid,
)
from satpipe.jobs.report_data.contents import NOT_TAGGED
from satpipe.pipeline.recordings import for_browsers
from satpipe.pipeline.storage import filesystem
from satpipe.pipeline.tables.dataframes import read_scores
from satpipe.reports import page
from satpipe.sat.errors import ConfigError, LabelError, OutputError
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import CLASSES, SAMPLE_RATE_HZ

START = datetime(2025, 5, 1, 22, 10, 0, tzinfo=UTC)
LARGEST_PAGE = 15_000_000


def sparse(seed: int, chunks: int) -> npt.NDArray[np.float32]:
    """Scores that are mostly near 0 and exact in half precision."""
    rng = np.random.default_rng(seed)
    return np.floor(rng.uniform(0, 1, (chunks, CLASSES)) ** 8 * 1024).astype(np.float32) / 1024


WAVES = {"b/x.wav": sparse(1, 700), "a/y.wav": sparse(2, 40), "a/x.wav": sparse(3, 1), "none.wav": sparse(4, 0)}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of several chunks and of one chunk; one is empty, the start of one is unknown."""
    folder = tmp_path_factory.mktemp("out")
    write_output(folder, {name: WAVES[name] for name in ("b/x.wav", "none.wav")})
    write_output(folder, {name: WAVES[name] for name in ("a/x.wav", "a/y.wav")})
    set_clock(folder, {"b/x.wav": (START, 2.0), "a/x.wav": (START + timedelta(hours=30), None)})
    return folder


def look(out: Path, **options: Any) -> ReportData:
    return collect(out, ReportOptions(**{"audio": False, **options}))


def scores_of_target(scores: pd.DataFrame, total: LabelTotal) -> npt.NDArray[np.float64]:
    """The scores of a class or group, from a frame of all scores."""
    names = [weak_labels()[column].name for column in total.target.columns]
    return np.asarray(scores[names].max(axis=1), np.float64)


def names(found: ReportData) -> list[str]:
    return [total.name for total in found.labels]


# Counts


def test_labels_and_their_lengths_are_those_of_the_scores(out: Path) -> None:
    found = look(out, threshold=0.75)
    assert found.levels == (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9)
    scores = read_scores(out)
    length_s = (scores.end_s - scores.start_s).to_numpy()
    classes = [total for total in found.labels if total.name in scores.columns]
    assert len(classes) == CLASSES
    for total in found.labels:
        highest = scores_of_target(scores, total)
        assert total.duration_s == pytest.approx([length_s[highest >= level].sum() for level in found.levels])
        assert total.peak == highest.max()
    folded = [total.group is not None for total in found.labels]
    at_threshold = np.array([total.duration_s[found.levels.index(0.75)] for total in found.labels])
    assert folded == sorted(folded)
    for some in (np.flatnonzero(folded), np.flatnonzero(~np.array(folded))):
        assert np.diff(at_threshold[some]).max() < 1e-3
    assert found.duration_s == pytest.approx(length_s.sum())
    assert found.statuses == {"ok": 3, "empty": 1}
    assert [problem.recording for problem in found.problems] == ["none.wav"]


def test_shares_by_the_clock_are_those_of_the_scores(out: Path) -> None:
    found = look(out, time_zone="Europe/Berlin")
    # 22:10 UTC is 00:10 of the next day in Berlin; by its clock, b/x.wav lasts twice as long as its samples.
    assert found.grid.columns == ("2025-05-02", "2025-05-03")
    assert found.grid.rows[:3] == ("00:00", "00:15", "00:30")
    scores = read_scores(out)
    scores = scores[scores.time.notna()]
    local = scores.time.dt.tz_convert("Europe/Berlin")
    row = local.dt.hour * 4 + local.dt.minute // 15
    column = (local.dt.day - 2).to_numpy()
    assert found.chunks.sum() == len(scores) == 701
    level = found.levels.index(0.3)
    for label in (0, 20, 47):
        reached = scores_of_target(scores, found.labels[label]) >= 0.3
        counts = pd.DataFrame({"row": row, "column": column, "reached": reached})
        for (r, c), share in counts.groupby(["row", "column"]).reached.mean().items():  # type: ignore[misc]
            assert (found.shares[label, level, r, c] / 255) ** 2 == pytest.approx(share, abs=1 / 255)
            assert (found.shares[label, level, r, c] > 0) == (share > 0)
    assert found.span == (np.datetime64("2025-05-02T00:10"), np.datetime64("2025-05-03T06:10:00.960"))
    assert found.notes == ("the start of 1 of 3 recordings is unknown: maps by date and time do not include them",)


def test_the_hour_that_comes_twice_holds_both_and_the_one_left_out_none(tmp_path: Path) -> None:
    chunks = int(5 * 3600 / CHUNK_S)
    days = {"autumn.wav": datetime(2025, 10, 25, 22, tzinfo=UTC), "spring.wav": datetime(2025, 3, 29, 23, tzinfo=UTC)}
    write_output(tmp_path, {name: scores_of(chunks, Owl=[0.9]) for name in days})
    set_clock(tmp_path, {name: (time, None) for name, time in days.items()})
    hour = 3600 / CHUNK_S
    autumn, spring = (look(tmp_path, recordings=name, time_zone="Europe/Berlin") for name in days)
    by_hour = autumn.chunks.sum(axis=1).reshape(24, -1).sum(axis=1)
    assert by_hour[:5] == pytest.approx([hour, hour, 2 * hour, hour, 0], abs=1)
    by_hour = spring.chunks.sum(axis=1).reshape(24, -1).sum(axis=1)
    assert by_hour[:7] == pytest.approx([hour, hour, 0, hour, hour, hour, 0], abs=1)


def test_without_times_cells_are_recordings_and_places(tmp_path: Path) -> None:
    write_output(tmp_path, {"b.wav": scores_of(96, Bird=[0, 0.6]), "a.wav": scores_of(10, Bird=[0.6] * 5)})
    found = look(tmp_path)
    assert found.grid.kind == "place"
    assert found.grid.rows == ("a.wav", "b.wav")
    assert len(found.grid.columns) == grid.MAX_PLACES
    assert found.chunks.sum(axis=1).tolist() == [10, 96]
    width_s = float(found.grid.columns[1])
    assert width_s == pytest.approx(95.5 * CHUNK_S / grid.MAX_PLACES)
    reached = (found.shares[0, found.levels.index(0.5)] / 255.0) ** 2 * found.chunks
    assert reached.sum(axis=1) == pytest.approx([5, 1], rel=0.02)


def test_many_recordings_and_days_become_few_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "MAX_ROWS", 5)
    monkeypatch.setattr(collection, "MAX_DETAILS", 4)
    recordings = [f"{n:02}.wav" for n in range(12)]
    write_output(tmp_path, {name: scores_of(3, Bird=[0.9]) for name in recordings})
    found = look(tmp_path)
    assert (found.grid.rows, found.grid.grouped) == (("00.wav", "03.wav", "06.wav", "09.wav"), 3)
    assert found.chunks.sum(axis=1).tolist() == [9, 9, 9, 9]
    assert [detail.recording for detail in found.details] == ["00.wav", "04.wav", "07.wav", "11.wav"]
    text = page.page(found)
    assert "4 of 12 recordings are shown" in text
    assert "Each row covers 3 recordings" in text
    # The clock of one recording was reset: dates without recordings have no column, or all would share one.
    times = [datetime(1970, 1, 1, tzinfo=UTC), *(datetime(2025, 1, 1 + day, tzinfo=UTC) for day in range(11))]
    set_clock(tmp_path, {name: (time, None) for name, time in zip(recordings, times, strict=True)})
    found = look(tmp_path)
    assert found.grid.columns == ("1970-01-01", *(f"2025-01-{day:02}" for day in range(1, 12)))
    assert "Dates without recordings are left out." in page.page(found)
    monkeypatch.setattr(grid, "MAX_DAYS", 6)
    found = look(tmp_path)
    assert (len(found.grid.columns), found.grid.grouped) == (6, 2)
    assert found.chunks.sum(axis=0).tolist() == [6] * 6


def test_a_recording_over_time_has_the_highest_score_of_each_part(out: Path) -> None:
    found = look(out)
    by_name = {detail.recording: detail for detail in found.details}
    assert list(by_name) == ["a/x.wav", "a/y.wav", "b/x.wav"]
    detail = by_name["b/x.wav"]
    assert detail.scores.shape == (collection.MAX_CURVES, count.MAX_PARTS)
    columns = [list(found.labels[label].target.columns) for label in detail.labels]
    values = np.stack([WAVES["b/x.wav"][:, some].max(axis=1) for some in columns], axis=1)
    part = np.arange(700) * count.MAX_PARTS // 700
    true = pd.DataFrame(np.floor(values * 200)).groupby(part).max().to_numpy().T
    np.testing.assert_array_equal(detail.scores, true)
    assert detail.time == np.datetime64("2025-05-01T22:10")
    assert by_name["a/y.wav"].scores.shape == (collection.MAX_CURVES, 40)
    assert np.isnat(by_name["a/y.wav"].time)


def test_pieces_do_not_show(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = look(out)
    monkeypatch.setattr("satpipe.pipeline.tables.open_folder.BLOCK_CHUNKS", 37)
    monkeypatch.setattr("satpipe.pipeline.tables.open_folder.THREADS", 1)
    cut = look(out)
    assert page._numbers(cut) == page._numbers(whole)
    for ours, theirs in zip(cut.labels, whole.labels, strict=True):
        assert (ours.target, ours.peak) == (theirs.target, theirs.peak)
        assert ours.duration_s == pytest.approx(theirs.duration_s)


def test_only_what_is_asked_for_is_shown(out: Path) -> None:
    found = look(out, labels=["Bird", "Speech"], recordings="a/*")
    assert set(names(found)) == {"Bird", "Speech"}
    assert found.recordings == 2
    assert [detail.recording for detail in found.details] == ["a/x.wav", "a/y.wav"]
    assert found.shares.shape[0] == 2


# Moments


def some(found: ReportData, kind: str, label: str) -> list[tuple[str, float, float]]:
    place = names(found).index(label)
    moments: list[Moment] = [each for each in found.moments if (each.kind, each.label) == (kind, place)]
    assert [each.rank for each in moments] == list(range(len(moments)))
    return [(each.recording, round(each.start_s / CHUNK_S), round(each.score, 2)) for each in moments]


def test_moments_are_peaks_of_runs_of_different_recordings(tmp_path: Path) -> None:
    a = [0.0] * 2 + [0.9, 0.7, 0.1] + [0.0] * 2 + [0.95, 0.95] + [0.0] * 3 + [0.52] + [0.0] * 3 + [0.31]
    b = [0.0, 0.6, 0.35, 0.2, 0.0, 0.0, 0.47, 0.0, 0.0, 0.0, 0.3]
    write_output(tmp_path, {"a.wav": scores_of(18, Bird=a, Owl=[0.25]), "b.wav": scores_of(12, Bird=b)})
    found = look(tmp_path, labels=["Bird", "Owl"])
    # The earlier of two equal chunks; then the best of b.wav, before 0.9 of a.wav.
    assert some(found, CERTAIN, "Bird") == [("a.wav", 7, 0.95), ("b.wav", 1, 0.6)]
    near = some(found, NEAR, "Bird")
    assert near[:2] == [("a.wav", 12, 0.52), ("b.wav", 6, 0.47)]  # those nearest to the threshold
    assert sorted(near[2:]) == [("a.wav", 2, 0.9), ("a.wav", 16, 0.31), ("b.wav", 10, 0.3)]  # those near others
    assert some(found, CERTAIN, "Owl") == [("a.wav", 0, 0.25)]
    assert some(found, NEAR, "Owl") == []  # no moment is both


def test_classes_that_are_one_sound_are_in_a_group(tmp_path: Path) -> None:
    rain = {"Rain": [0.7, 0.2], "Raindrop": [0.1, 0.6], "Thunder": [0.6, 0.2], "Drum": [0.6], "Owl": [0.3]}
    write_output(tmp_path, {"a.wav": scores_of(3, **rain)})
    found = look(tmp_path)
    in_groups = {total.name: found.labels[total.group].name for total in found.labels if total.group is not None}
    assert in_groups == {"Rain": "rain", "Raindrop": "rain"}  # a group needs two classes: neither thunder nor birds
    assert names(found)[0] == "rain"  # two chunks, of each class one
    assert found.labels[0].duration_s[found.levels.index(0.5)] == pytest.approx(2 * CHUNK_S)
    assert names(look(tmp_path, labels=["Rain", "Raindrop"])) == ["Rain", "Raindrop"]  # as asked for
    assert names(look(tmp_path, group="rain")) == ["rain"]


def test_the_time_zone_is_that_of_the_run_and_said(tmp_path: Path) -> None:
    for zone, option, shown, text in (
        (None, None, "22:10", "Times are in UTC: satpipe tag was given no --time-zone"),
        ("Europe/Berlin", None, "00:10", "Times are in the time zone Europe/Berlin, the --time-zone of satpipe tag."),
        ("Europe/Berlin", "Asia/Tokyo", "07:10", "in the time zone Asia/Tokyo, the --time-zone of satpipe report."),
    ):
        out = tmp_path / str(zone) / str(option)
        write_output(out, {"a.wav": scores_of(3, Owl=[0.9])}, run={**RUN, "clock": {"time_zone": zone}})
        set_clock(out, {"a.wav": (START, None)})
        found = look(out, time_zone=option)
        assert str(found.moments[0].time)[11:16] == shown
        assert text in page.page(found)


@pytest.mark.parametrize(
    ("every_min", "long_s", "rows"), [(10, 60, 48), (15, 60, 96), (60, 60, 24), (180, 600, 8), (60, 3600, 96)]
)
def test_a_recorder_that_pauses_regularly_leaves_no_row_empty(
    tmp_path: Path, every_min: int, long_s: int, rows: int
) -> None:
    count = 3 * 24 * 60 // every_min
    write_output(tmp_path, {f"{n:03}.wav": scores_of(int(long_s / CHUNK_S), Owl=[0.9]) for n in range(count)})
    start = datetime(2025, 5, 1, tzinfo=UTC)
    times = {f"{n:03}.wav": (start + timedelta(minutes=n * every_min), None) for n in range(count)}
    set_clock(tmp_path, times)
    found = look(tmp_path, labels="Owl")
    assert len(found.grid.rows) == rows
    assert (found.chunks > 0).all()


def test_between_two_times_only_that_part_is_counted(out: Path) -> None:
    found = look(out, since="2025-05-01T22:10:10", until="2025-05-01T22:11:10", recordings="b/x.wav")
    assert found.chunks.sum() == 17  # of 3.84 s by its clock, the first and last in part
    assert found.duration_s == pytest.approx(17 * CHUNK_S)
    (detail,) = found.details
    assert (detail.scores == NOT_TAGGED).any()
    assert (detail.scores != NOT_TAGGED).any()


# Sounds


@pytest.fixture
def heard(tmp_path: Path) -> Callable[..., ReportData]:
    """Write the tables of a recording with a bird from 9.6 s to 11.5 s, and collect the data of its report."""

    def look(given: str | Path, name: str, channels: str = "mix", status: Any = None, files: Any = None) -> ReportData:
        run = {**RUN, "inputs": [str(given)], "identity": {**IDENTITY, "channels": channels}}
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        write_output(out, {name: scores_of(10, Bird=[0.0] * 5 + [0.9])}, run=run)
        known = status or os.stat(given)
        set_files(out, {name: {"size_bytes": known.st_size, "modified": known.st_mtime_ns // 1000, "files": files}})
        return collect(out, ReportOptions())

    return look


def tones(rate_hz: int = 16_000) -> npt.NDArray[np.float32]:
    """19.2 s whose pitch shows the second: 400 Hz and 10 Hz more with each second."""
    seconds = np.arange(int(19.2 * rate_hz)) / rate_hz
    return (0.1 * np.sin(2 * np.pi * np.cumsum(400 + 10 * np.floor(seconds)) / rate_hz)).astype(np.float32)


def pitch_hz(samples: npt.NDArray[Any]) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 2**17))
    return float(np.argmax(spectrum) * SAMPLE_RATE_HZ / 2**17)


def decoded(moment: Moment) -> npt.NDArray[Any]:
    assert moment.excerpt.audio, moment.excerpt.silent
    samples, rate_hz = soundfile.read(io.BytesIO(moment.excerpt.audio))
    assert rate_hz == SAMPLE_RATE_HZ
    return np.asarray(samples)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.opus", "a.m4a", "a.aac"])
def test_a_moment_sounds_as_the_recording_there(heard: Callable[..., ReportData], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix in (".m4a", ".aac"):
        encode(path, tones(48_000), 48_000, {".m4a": "mp4", ".aac": "adts"}[path.suffix], "aac")
    else:
        options = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
        write(path, tones(48_000), 48_000, **options)
    (moment,) = heard(path, name).moments
    samples = decoded(moment)
    assert moment.excerpt.start_s == pytest.approx(9.6 - excerpts.MARGIN_S)
    assert len(samples) / SAMPLE_RATE_HZ == pytest.approx(CHUNK_S + 2 * excerpts.MARGIN_S, abs=0.01)
    for second in (9, 10, 11, 12):
        begin = max(0, int((second + 0.25 - moment.excerpt.start_s) * SAMPLE_RATE_HZ))
        assert pitch_hz(samples[begin : begin + SAMPLE_RATE_HZ // 2]) == pytest.approx(400 + 10 * second, abs=2)
    assert np.abs(samples).max() == pytest.approx(for_browsers.LOUDEST, rel=0.1)


def test_a_channel_is_heard_alone(heard: Callable[..., ReportData], tmp_path: Path) -> None:
    both = np.stack([tones(), 0.5 * noise(int(19.2 * 16_000))], axis=1)
    path = write(tmp_path / "two.wav", both)
    (moment,) = heard(path, "two.wav#ch1", channels="split").moments
    assert pitch_hz(decoded(moment)) == pytest.approx(500, abs=25)
    (moment,) = heard(path, "two.wav", channels="1").moments
    assert pitch_hz(decoded(moment)) == pytest.approx(500, abs=25)
    spread_hz = [
        pitch_hz(part) for part in np.split(decoded(heard(path, "two.wav#ch2", "split").moments[0])[:64_000], 8)
    ]
    assert np.std(spread_hz) > 100  # noise


def test_a_deployment_is_heard_across_its_files(heard: Callable[..., ReportData], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    cut_s = 9.0
    parts = np.split(tones(), [int(cut_s * 16_000)])
    first, second = (write(folder / f"{number}.wav", part) for number, part in enumerate(parts))
    files = [
        {"file": path.name, "start_s": start_s, "duration_s": 38.4, "size_bytes": path.stat().st_size,
         "modified": path.stat().st_mtime_ns // 1000, "header": None, "header_time": None}
        for path, start_s in ((first, 0.0), (second, cut_s))
    ]  # fmt: skip
    (moment,) = heard(folder, "0.wav", files=files).moments
    assert moment.excerpt.start_s == pytest.approx(9.6 - excerpts.MARGIN_S)  # in the file before
    assert len(decoded(moment)) / SAMPLE_RATE_HZ == pytest.approx(CHUNK_S + 2 * excerpts.MARGIN_S, abs=0.01)
    assert pitch_hz(decoded(moment)[:8_000]) == pytest.approx(480, abs=2)
    assert pitch_hz(decoded(moment)[17_600:25_600]) == pytest.approx(490, abs=2)
    second.unlink()
    (moment,) = heard(folder, "0.wav", files=files).moments
    assert moment.excerpt.silent == "its file no longer exists"


def test_a_recording_behind_a_url_is_heard(heard: Callable[..., ReportData], tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tones())
    store = filesystem("memory://x")
    store.put_file(str(path), "/bucket/a.wav")
    known = SimpleNamespace(st_size=path.stat().st_size, st_mtime_ns=0)
    (moment,) = heard("memory:///bucket", "a.wav", status=known).moments
    assert pitch_hz(decoded(moment)) == pytest.approx(500, abs=25)


def test_a_recording_that_changed_or_is_gone_is_said(heard: Callable[..., ReportData], tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tones())
    before = path.stat()
    write(path, tones()[:100_000])
    (moment,) = heard(path, "a.wav", status=before).moments
    assert (moment.excerpt.audio, moment.excerpt.silent) == (None, "its file has changed since it was tagged")
    (moment,) = heard(path, "a.wav").moments
    assert moment.excerpt.silent == "its file ends before this moment"
    path.write_bytes(b"x" * 1000)
    (moment,) = heard(path, "a.wav").moments
    assert "not audio" in moment.excerpt.silent
    path.unlink()
    (moment,) = heard(path, "a.wav", status=before).moments
    assert moment.excerpt.silent == "its file no longer exists"
    assert "its file no longer exists" in page.page(heard(path, "a.wav", status=before))


def test_the_page_is_the_same_bytes_again_with_sound(heard: Callable[..., ReportData], tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tones())
    assert page.page(heard(path, "a.wav")) == page.page(collect(tmp_path / "out", ReportOptions()))
    quiet = page.page(collect(tmp_path / "out", ReportOptions(audio=False)))
    assert '<script type="application/json" id="sounds">[]</script>' in quiet


def test_there_is_no_more_sound_than_there_may_be(
    heard: Callable[..., ReportData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excerpts, "MAX_BYTES", 1000)
    (moment,) = heard(write(tmp_path / "a.wav", tones()), "a.wav").moments
    assert moment.excerpt.audio is None
    assert moment.excerpt.silent.startswith("left out")


# Size


def test_whatever_a_folder_holds_the_page_stays_below_its_limit(out: Path) -> None:
    found = look(out)
    fixed = len(page.page(found)) - len(page.base64.b64encode(page.zlib.compress(page._numbers(found), 9)))
    cells = max(24 * grid.MAX_DAYS, grid.MAX_ROWS * grid.MAX_PLACES, 96 * grid.FEW_DAYS)
    shares = collection.MAX_LABELS * (len(collection.LEVELS) + 1) * cells
    details = collection.MAX_DETAILS * collection.MAX_CURVES * count.MAX_PARTS
    sound = excerpts.MAX_BYTES
    names = 1000 * (collection.MAX_DETAILS + grid.MAX_ROWS + collection.MAX_PROBLEMS + 4 * collection.MAX_LABELS)
    assert (4 * cells + shares + details + sound) * 4 / 3 + names + fixed < LARGEST_PAGE


# The command


def report(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


def test_the_command_writes_page_and_pictures(out: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "page.html"
    done = report(out, "-o", target, "--pictures", tmp_path / "pictures", "--labels", "Bird,Owl", "--no-audio")
    assert done.exit_code == 0, done.output
    assert str(target) in done.stdout
    assert "note: the start of 1 of 3 recordings is unknown" in done.stderr
    assert target.read_text().startswith("<!DOCTYPE html>")
    made = {path.relative_to(tmp_path / "pictures").with_suffix("").as_posix() for path in tmp_path.rglob("*.png")}
    assert made == {"labels_over_time", "when", "recordings/a/y.wav", "recordings/b/x.wav"}
    for name in made:
        pixels(tmp_path / "pictures" / f"{name}.png")
        written = texts(tmp_path / "pictures" / f"{name}.svg")
        assert any("Bird" in text for text in written)
    content = target.read_bytes()
    report(out, "-o", target, "--labels", "Bird,Owl", "--no-audio")
    assert target.read_bytes() == content


def refused(kind: type[Exception], message: str, out: Path, *arguments: object) -> None:
    done = report(out, *arguments)
    assert isinstance(done.exception, kind), done.output
    assert message in str(done.exception)
    assert not (out / "report.html").exists()


def test_what_cannot_be_reported_on_is_said(out: Path, tmp_path: Path) -> None:
    refused(OutputError, "has no run.json", tmp_path)
    refused(LabelError, "did you mean 'Bird'", out, "--labels", "Brid")
    refused(OutputError, "did you mean b/x.wav", out, "--recordings", "b/x.wave")
    refused(ConfigError, "did you mean Europe/Berlin?", out, "--time-zone", "berlin")
    refused(OutputError, "cannot be written", out, "-o", out / "run.json" / "page.html")
    refused(OutputError, "cannot be written", out, "-o", tmp_path)
    done = report(out, out)
    assert done.exit_code == 2
    assert "unexpected extra argument" in done.output


def test_without_scores_tags_are_shown_and_what_they_lack_is_said(tmp_path: Path) -> None:
    run = {**RUN, "identity": {**IDENTITY, "scores": False}}
    write_output(tmp_path / "out", {"a.wav": scores_of(2, Bird=[0.9, 0.4])}, run=run)  # tags are those from 0.5 on
    found = look(tmp_path / "out", labels="Bird")
    assert found.labels[0].duration_s[0] == pytest.approx(CHUNK_S)
    assert "has no scores, so tags are used" in found.notes[0]


def test_a_broken_table_is_named(out: Path, tmp_path: Path) -> None:
    for table in ("scores", "recordings"):
        copy = tmp_path / table
        shutil.copytree(out, copy)
        path = sorted((copy / table).glob("*.parquet"))[0]
        path.write_bytes(path.read_bytes()[:-100])
        refused(OutputError, str(path), copy, "--no-audio")


def test_an_unfinished_folder_is_noted_on_the_page(tmp_path: Path) -> None:
    run = {key: value for key, value in RUN.items() if key != "finished"}
    write_output(tmp_path / "out", {"a.wav": scores_of(3, Bird=[0.9])}, run=run)
    done = report(tmp_path / "out")
    assert done.exit_code == 0
    assert "is not finished" in done.stderr
    assert "is not finished" in (tmp_path / "out" / "report.html").read_text()


def test_a_name_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>.wav"
    write_output(tmp_path, {name: scores_of(3, Bird=[0.9]), f"x{name}": scores_of(0)})
    text = page.page(look(tmp_path))
    assert "<script>alert" not in text
    assert text.count("</script>") == 4
