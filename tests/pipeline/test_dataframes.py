"""Tables as data frames: the rows that are asked for, and no others are read."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import synthetic_year
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from outputs import CHUNK_S, IDENTITY, RUN, set_clock, write_output
from satpipe.pipeline.tables import dataframes as read
from satpipe.pipeline.tables import open_folder as results
from satpipe.pipeline.tables.dataframes import read_recordings, read_scores, read_tags, scan_scores
from satpipe.pipeline.tables.schemas import MADE
from satpipe.pipeline.tables.selection import PART_OF_CHUNK
from satpipe.sat.errors import ConfigError, LabelError, OutputError
from satpipe.sat.labels import choose, weak_labels

START = datetime(2025, 5, 1, 4, 0, 0, tzinfo=UTC)
TIMES = ["time", "time_local"]
ABOUT = ["recording", "chunk", "start_s", "end_s", *TIMES]


def wave(seed: int, chunks: int) -> Any:
    """Scores that are exact in half precision."""
    return np.random.default_rng(seed).integers(0, 1024, (chunks, 527)).astype(np.float32) / 1024


WAVES = {"pond/b.wav": wave(1, 30), "pond/a.wav": wave(2, 4), "street/a.wav": wave(3, 7), "none.wav": wave(4, 0)}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings whose files are not in the order of names; one is empty, of one nobody knows when it started."""
    folder = tmp_path_factory.mktemp("out")
    with patch("satpipe.pipeline.tables.files.ROW_GROUP_CHUNKS", 4):
        write_output(folder, {name: WAVES[name] for name in ("pond/b.wav", "none.wav")})
        write_output(folder, {name: WAVES[name] for name in ("street/a.wav", "pond/a.wav")})
    set_clock(folder, {"pond/a.wav": (START, None), "pond/b.wav": (START + timedelta(hours=1), 1.5)})
    return folder


@pytest.fixture(scope="module")
def everything(out: Path) -> pd.DataFrame:
    """All scores, as pandas alone reads them."""
    frame = pd.read_parquet(out / "scores").astype({"recording": str}).sort_values(["recording", "chunk"])
    scores = pd.DataFrame(np.stack(frame.scores), columns=[label.name for label in weak_labels()], dtype=np.float32)
    return pd.concat([frame.drop(columns=["scores", *MADE]).reset_index(drop=True), scores], axis=1)


def test_scores_are_columns_under_the_names_of_their_classes(out: Path, everything: pd.DataFrame) -> None:
    found = read_scores(out)
    assert list(found.columns) == ABOUT + [label.name for label in weak_labels()]
    pd.testing.assert_frame_equal(found.drop(columns=TIMES).astype({"recording": str}), everything)
    found = read_scores(out, labels=["Dog", "under:Speech"], recordings="pond/*")
    assert list(found.columns)[6:9] == ["Dog", "Speech", "Male speech, man speaking"]
    pond = everything[everything.recording.str.startswith("pond/")].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[["Dog", "Speech"]], pond[["Dog", "Speech"]])
    assert found.recording.cat.categories.tolist() == ["pond/a.wav", "pond/b.wav"]


def test_tags_are_those_of_the_table(out: Path) -> None:
    table = pd.read_parquet(out / "tags").astype({name: str for name in ("recording", "mid", "label")})
    table = table.sort_values(["recording", "chunk", "score"], ascending=[True, True, False], kind="stable")
    found = read_tags(out)
    assert list(found.columns) == [*ABOUT, "mid", "label", "score"]
    plain = found.drop(columns=TIMES).astype({name: str for name in ("recording", "mid", "label")})
    pd.testing.assert_frame_equal(plain, table.drop(columns=MADE).reset_index(drop=True))
    several = [table.label.iloc[0], "under:Music"]
    wanted = table[table.label.isin([weak_labels()[n].name for n in choose(several)]) & (table.score >= 0.999)]
    found = read_tags(out, labels=several, min_score=0.999)
    assert list(zip(found.recording, found.chunk, found.label, strict=True)) == list(
        zip(wanted.recording, wanted.chunk, wanted.label, strict=True)
    )
    assert set(found.label.cat.categories) == set(found.label)


def test_a_group_has_the_highest_score_of_its_classes(out: Path, everything: pd.DataFrame, tmp_path: Path) -> None:
    birds = [weak_labels()[column].name for column in choose(["under:Bird", "under:Fowl"])]
    expected = everything[birds].max(axis=1)
    found = read_scores(out, labels="Dog", group=["birds", "Cat"])
    assert list(found.columns) == [*ABOUT, "Dog", "birds", "Cat"]
    np.testing.assert_array_equal(found.birds, expected)
    tags = read_tags(out)
    best = tags[tags.label.isin(birds)].groupby(["recording", "chunk"], observed=True).score.max().reset_index()
    found = read_tags(out, group="birds")
    assert len(found) == len(best) > 0
    assert (set(found.mid), set(found.label)) == ({"group/birds"}, {"birds"})
    np.testing.assert_array_equal(found.score, best.score)
    (tmp_path / "own.csv").write_text("group,label\nmine,Dog\n")
    assert list(next(scan_scores(out, groups=tmp_path / "own.csv")).columns) == [*ABOUT, "mine"]


def test_recordings_with_their_clock(out: Path) -> None:
    found = read_recordings(out)
    assert found.recording.tolist() == sorted(WAVES)
    assert found.time.isna().tolist() == [True, False, False, True]
    assert found.clock_rate.tolist()[2] == 1.5
    assert read_recordings(out, recordings=["street/a.wav", "pond/*"]).recording.tolist() == [
        "street/a.wav",
        "pond/a.wav",
        "pond/b.wav",
    ]


def test_folders_of_before_there_were_clocks(tmp_path: Path) -> None:
    write_output(tmp_path, {"a.wav": wave(0, 2)})
    (path,) = (tmp_path / "recordings").iterdir()
    table = pq.read_table(path)
    pq.write_table(table.drop([name for name in ("time", "clock_rate") if name in table.column_names]), path)
    assert read_recordings(tmp_path).time.isna().all()
    assert read_tags(tmp_path).time.isna().all()
    assert str(read_scores(tmp_path, labels="Dog").time.dtype) == "datetime64[us, UTC]"


def test_times_of_chunks(out: Path) -> None:
    found = read_scores(out, labels="Dog").set_index(["recording", "chunk"]).time
    assert found["pond/a.wav", 3] == pd.Timestamp(START) + pd.Timedelta(seconds=3 * CHUNK_S)
    assert found["pond/b.wav", 20] == pd.Timestamp(START) + pd.Timedelta(hours=1, seconds=20 * CHUNK_S * 1.5)
    assert found["street/a.wav"].isna().all()


def test_local_times_are_those_of_the_runs_time_zone(tmp_path: Path) -> None:
    run = {**RUN, "clock": {"time_zone": "Europe/Berlin"}}
    write_output(tmp_path, {"a.wav": wave(0, 3), "b.wav": wave(0, 1)}, run=run)
    change = datetime(2025, 10, 26, 0, 59, 58, tzinfo=UTC)  # 2 s later, at 03:00, clocks are set back to 02:00
    set_clock(tmp_path, {"a.wav": (change, None)})
    for frame in (read_scores(tmp_path, labels="Dog"), read_tags(tmp_path).drop_duplicates(["recording", "chunk"])):
        assert [each.isoformat() for each in frame.time_local[:3]] == [
            "2025-10-26T02:59:58+02:00", "2025-10-26T02:59:59.920000+02:00", "2025-10-26T02:00:01.840000+01:00",
        ]  # fmt: skip
        assert frame.time_local.isna().tolist() == [False, False, False, True]
    found = read_recordings(tmp_path)
    assert list(found.columns).index("time_local") == list(found.columns).index("time") + 1
    assert found.time_local[0].isoformat() == "2025-10-26T02:59:58+02:00"
    assert str(read_recordings(tmp_path, recordings="b.wav").time_local.dtype) == "datetime64[us, Europe/Berlin]"


SECONDS = st.none() | st.floats(-5, 70) | st.integers(-2, 32).map(lambda chunk: chunk * CHUNK_S)


@settings(deadline=None, max_examples=25)
@given(start_s=SECONDS, end_s=SECONDS)
@example(start_s=None, end_s=2**-24)
@pytest.mark.parametrize("read_some", [read_tags, read_scores], ids=["tags", "scores"])
def test_seconds_choose_the_chunks_that_overlap(
    out: Path, read_some: Callable[..., pd.DataFrame], start_s: float | None, end_s: float | None
) -> None:
    labels = ["Dog", "Speech"]
    every = read_some(out, labels=labels)
    overlap_s = np.minimum(every.end_s - (start_s or 0), (np.inf if end_s is None else end_s) - every.start_s)
    # A time this close to the border of two chunks is on the border; times up to 62 s are rounded by less than 1e-13 s.
    assume(not overlap_s.between(1e-12, 1.01 * PART_OF_CHUNK * CHUNK_S).any())
    found = read_some(out, labels=labels, start_s=start_s, end_s=end_s)
    expected = every[overlap_s > 1e-12].reset_index(drop=True)
    assert found[["chunk", "start_s"]].equals(expected[["chunk", "start_s"]])
    assert found.recording.tolist() == expected.recording.tolist()


def test_times_choose_recordings_and_chunks(out: Path) -> None:
    since = "2025-05-01 05:00:20"
    with pytest.warns(UserWarning, match="2 of 4 recordings are left out: their start is not known"):
        found = read_scores(out, labels="Dog", since=since, until=pd.Timestamp("2025-05-01T07:00:40+02:00"))
    assert set(found.recording) == {"pond/b.wav"}
    assert found.start_s.iloc[0] * 1.5 <= 20 < found.end_s.iloc[0] * 1.5
    assert found.start_s.iloc[-1] * 1.5 < 40 <= found.end_s.iloc[-1] * 1.5
    pond = {"recordings": "pond/*"}
    assert len(read_tags(out, since=date(2025, 5, 2), **pond)) == 0
    assert set(read_tags(out, until="2025-05-01 04:30", **pond).recording) == {"pond/a.wav"}
    assert read_recordings(out, since=START + timedelta(seconds=5), **pond).recording.tolist() == list(
        read_recordings(out, **pond).recording
    )
    assert read_recordings(out, since=START + timedelta(hours=0.5), **pond).recording.tolist() == ["pond/b.wav"]
    assert read_recordings(out, until=np.datetime64("2025-05-01T04"), **pond).recording.tolist() == []


def test_a_year_goes_by_in_parts(out: Path, everything: pd.DataFrame) -> None:
    with patch.object(results, "BLOCK_CHUNKS", 8):
        parts = list(scan_scores(out, labels=["Dog", "Cat"], start_s=CHUNK_S))
        whole = read_scores(out, labels=["Dog", "Cat"], start_s=CHUNK_S)
    assert max(map(len, parts)) == 8
    together = pd.concat(parts).astype({"recording": str}).sort_values(["recording", "chunk"], ignore_index=True)
    pd.testing.assert_frame_equal(together, whole.astype({"recording": str}))
    expected = everything[everything.chunk > 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(whole[["chunk", "Dog", "Cat"]], expected[["chunk", "Dog", "Cat"]])


def test_what_would_not_fit_into_memory_is_refused(out: Path) -> None:
    with patch.object(read, "MOST_BYTES", 50_000):
        with pytest.raises(ConfigError, match="GB of scores: choose labels, recordings or a time, or .* scan_scores"):
            read_scores(out)
        assert len(read_scores(out, labels="Dog")) == 41
    with (
        patch.object(read, "MOST_BYTES", 1_000),
        pytest.raises(ConfigError, match="GB of tags: choose labels, recordings or a time"),
    ):
        read_tags(out)


def test_nothing_is_still_a_table(tmp_path: Path, out: Path) -> None:
    assert len(read_scores(out, labels="Dog", start_s=1e6)) == 0
    assert list(read_tags(out, min_score=2.0).columns) == [*ABOUT, "mid", "label", "score"]
    assert list(scan_scores(out, recordings="none.wav")) == []
    write_output(tmp_path)
    assert list(read_scores(tmp_path, labels="Dog").columns) == [*ABOUT, "Dog"]
    assert len(read_recordings(tmp_path)) == len(read_tags(tmp_path)) == 0


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    with patch("satpipe.pipeline.tables.files.ROW_GROUP_CHUNKS", 4):
        write_output(tmp_path, {"a.wav": wave(1, 3)}, {"b.wav": wave(2, 3)})
    for table in ("tags", "scores"):
        for path in (tmp_path / table).iterdir():
            if "b.wav" in pq.read_table(path, columns=["recording"])["recording"].to_pylist():
                path.write_bytes(b"damaged")
    assert len(read_scores(tmp_path, recordings="a.wav")) == 3
    assert set(read_tags(tmp_path, recordings="a.wav").recording) == {"a.wav"}
    for read_some in (read_scores, read_tags):
        with pytest.raises(OutputError, match=r"\.parquet cannot be read, or is not a satpipe table"):
            read_some(tmp_path)


def test_scores_and_tags_in_an_object_store() -> None:
    write_output("memory://read", {"a.wav": wave(1, 3)})
    assert read_scores("memory://read", labels=0).Speech.tolist() == WAVES["pond/b.wav"][:0, 0].tolist() + [
        float(score) for score in wave(1, 3)[:, 0]
    ]
    assert set(read_tags("memory://read").recording) == {"a.wav"}


def test_where_a_worker_died_chunks_are_missing(tmp_path: Path) -> None:
    write_output(tmp_path, {"a.wav": wave(1, 10), "b.wav": wave(2, 2)}, died={"a.wav": range(2, 7)})
    assert read_scores(tmp_path, labels="Dog").chunk.tolist() == [0, 1, 7, 8, 9, 0, 1]
    assert sorted(set(read_tags(tmp_path, recordings="a.wav").chunk)) == [0, 1, 7, 8, 9]
    assert read_scores(tmp_path, labels="Dog", start_s=6 * CHUNK_S).chunk.tolist() == [7, 8, 9]


# What goes wrong


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"labels": "Brid"}, LabelError, "label 'Brid' not found; did you mean 'Bird'"),
        ({"recordings": "pond/c.wav"}, OutputError, "has no recording pond/c.wav; did you mean pond/"),
        ({"recordings": ["pond/a.wav", "lake/*"]}, OutputError, r"has no recording lake/\*"),
        ({"since": "dawn"}, ConfigError, "'dawn' is not a valid time"),
        ({"until": pd.NaT, "recordings": "pond/a.wav"}, ConfigError, "NaT is not a valid time"),
        ({"since": "2025", "recordings": "street/*"}, ConfigError, "start times of these recordings are unknown"),
    ],
)
@pytest.mark.parametrize("read_some", [read_tags, read_scores, scan_scores], ids=["tags", "scores", "parts"])
@pytest.mark.filterwarnings("ignore:2 of 4 recordings are left out")
def test_what_is_not_there_is_said(
    out: Path, read_some: Callable[..., Any], options: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        read_some(out, **options)


def test_folders_that_are_none_or_not_finished(tmp_path: Path) -> None:
    for read_some in (read_recordings, read_tags, read_scores):
        with pytest.raises(OutputError, match="is not an output folder of satpipe: it has no run.json"):
            read_some(tmp_path)
    bare = {**RUN, "identity": {**IDENTITY, "scores": False}}
    write_output(tmp_path / "bare", run=bare)
    assert len(read_tags(tmp_path / "bare")) == 0
    with pytest.raises(OutputError, match="has no scores of chunks"):
        read_scores(tmp_path / "bare")
    write_output(tmp_path / "out", {"a.wav": wave(0, 1)}, run={k: v for k, v in RUN.items() if k != "finished"})
    for read_some in (read_recordings, read_tags, read_scores):
        with pytest.warns(UserWarning, match="is not finished: recordings may be missing"):
            assert len(read_some(tmp_path / "out")) > 0


@pytest.mark.parametrize("table", ["tags", "scores", "recordings"])
def test_a_damaged_file_is_named(tmp_path: Path, table: str) -> None:
    write_output(tmp_path, {"a.wav": wave(0, 2)}, {"b.wav": wave(1, 2)})
    path = sorted((tmp_path / table).iterdir())[1]
    read_some: Callable[..., Any] = {"tags": read_tags, "scores": read_scores, "recordings": read_recordings}[table]
    content = path.read_bytes()
    for damage in (b"", content[:-20], content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :]):
        path.write_bytes(damage)
        with pytest.raises(OutputError, match=re.escape(f"{path} ")):
            read_some(tmp_path)
    path.write_bytes(content)
    other = pq.read_table(path)
    pq.write_table(other.drop([other.column_names[0]]), path)
    with pytest.raises(OutputError, match=re.escape(f"{path} is ")):
        read_some(tmp_path)


def test_tables_of_two_runs_are_refused(tmp_path: Path) -> None:
    for number in (0, 1):
        write_output(tmp_path / str(number), {"a.wav": wave(number, 2)})
    for table in ("tags", "scores", "recordings"):
        for path in (tmp_path / "1" / table).iterdir():
            path.rename(tmp_path / "0" / table / path.name)
    for read_some in (read_recordings, read_tags, read_scores):
        with pytest.raises(OutputError, match="has recordings that .* has, too"):
            read_some(tmp_path / "0")


def test_the_synthetic_year_is_as_it_says(tmp_path: Path) -> None:
    synthetic_year.write_output(tmp_path, days=1, sites=("street",), hours_of_day=(3, 8))
    found = read_scores(tmp_path, labels=["Vehicle", "Church bell"])
    assert found.recording.cat.categories.tolist() == ["street/20250101_030000.WAV", "street/20250101_080000.WAV"]
    night, morning = (part for _, part in found.groupby("recording", observed=True))
    assert len(night) == len(morning) == 1875
    assert morning.Vehicle.mean() > 3 * night.Vehicle.mean()
    assert morning["Church bell"][morning.start_s < 20].mean() > 0.5 > night["Church bell"].max()
