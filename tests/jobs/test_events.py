"""`satpipe events`: from chunk scores to events, in tables and in files that other programs open."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import crowsetta
import jams
import numpy as np
import pandas as pd
import parselmouth
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Satpipe
from hypothesis import given, settings
from hypothesis import strategies as st
from outputs import CHUNK_S, IDENTITY, RUN, scores_of, set_clock, write_output
from parselmouth.praat import call
from satpipe.jobs.evaluate import EvaluateOptions, evaluate
from satpipe.jobs.events import FORMATS, EventOptions, events, write
from satpipe.jobs.events.formats import RENDERERS, Event, Found, textgrid
from satpipe.pipeline.tables import open_folder as results
from satpipe.pipeline.tables.files import PLACE
from satpipe.pipeline.tables.schemas import EVENTS
from satpipe.pipeline.tables.table_files import TABLE_FORMATS
from satpipe.sat.errors import ConfigError, LabelError, OutputError, TruthError
from satpipe.sat.labels import descendants, find, weak_labels
from upath import UPath

BIRD, DOG, BEEP = "Bird", "Dog", "Beep, bleep"


def rows(found: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Events as rows: recording, first chunk, end in chunks, label."""
    chunks = [round(start_s / CHUNK_S) for start_s in found.start_s], [end_s / CHUNK_S for end_s in found.end_s]
    return list(zip(found.recording, chunks[0], np.round(chunks[1], 3).tolist(), found.label, strict=True))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two recordings with events, one of them in a folder; one without events, one without chunks."""
    write_output(
        tmp_path / "out",
        {
            "pond/b.wav": scores_of(8, Bird=[0.3, 0.6, 0.4, 0.1, 0.1, 0.35, 0.9, 0.9], Dog=[0.9]),
            "pond/none.wav": scores_of(0),
        },
        {"a.wav": scores_of(4, Dog=[0, 0.4, 0.4], **{BEEP: [0.5, 0.1, 0.7, 0.7]}), "still.wav": scores_of(3)},
    )
    return tmp_path / "out"


def test_an_event_reaches_the_threshold_somewhere_and_the_lower_one_everywhere(out: Path) -> None:
    found = events(out)
    assert rows(found) == [
        ("a.wav", 0, 1, BEEP),
        ("a.wav", 2, 3.5, BEEP),
        ("pond/b.wav", 0, 1, DOG),
        ("pond/b.wav", 0, 3, BIRD),
        ("pond/b.wav", 5, 7.5, BIRD),
    ]
    birds = found[found.label == BIRD]
    np.testing.assert_allclose(birds.peak_score, [0.6, 0.9], atol=1e-3)
    np.testing.assert_allclose(birds.mean_score, [(0.3 + 0.6 + 0.4) / 3, (0.35 + 0.9 + 0.9) / 3], atol=1e-3)
    assert list(birds.mid) == [find(BIRD).mid] * 2
    assert list(found.columns) == EVENTS.names
    assert found.time.isna().all()


def test_without_a_lower_threshold_it_is_a_plain_one(out: Path) -> None:
    assert rows(events(out, threshold=0.5, low=0.5, labels=BIRD)) == [
        ("pond/b.wav", 1, 2, BIRD),
        ("pond/b.wav", 6, 7.5, BIRD),
    ]


def test_gaps_are_closed_before_short_events_are_left_out(out: Path) -> None:
    gap = {"labels": [BIRD, BEEP], "merge_gap_s": 2 * CHUNK_S}
    merged = [("a.wav", 0, 3.5, BEEP), ("pond/b.wav", 0, 7.5, BIRD)]
    assert rows(events(out, **gap)) == merged
    assert rows(events(out, **gap, min_s=3.5 * CHUNK_S)) == merged
    assert rows(events(out, **gap, min_s=3.6 * CHUNK_S)) == merged[1:]
    assert rows(events(out, labels=[BIRD, BEEP], merge_gap_s=1.9 * CHUNK_S)) == [
        merged[0],
        ("pond/b.wav", 0, 3, BIRD),
        ("pond/b.wav", 5, 7.5, BIRD),
    ]
    mean = events(out, **gap).mean_score
    assert mean[1] == pytest.approx((0.3 + 0.6 + 0.4 + 0.35 + 0.9 + 0.9) / 6, abs=1e-3)


def test_a_group_has_one_event_where_its_classes_take_turns(tmp_path: Path) -> None:
    turns = {"Bird": [0.2, 0.4], "Crow": [0, 0, 0.6], "Crowing, cock-a-doodle-doo": [0, 0, 0, 0.9, 0.2], "Dog": [0.7]}
    write_output(tmp_path / "out", {"a.wav": scores_of(6, **turns)})
    found = events(tmp_path / "out", group=["birds", "Bird"], low=0.3)
    assert rows(found) == [("a.wav", 1, 4, "birds"), ("a.wav", 1, 3, "Bird")]
    assert list(found.mid) == ["group/birds", "group/Bird"]
    np.testing.assert_allclose(found.peak_score, [0.9, 0.6], atol=1e-3)
    np.testing.assert_allclose(found.mean_score, [(0.4 + 0.6 + 0.9) / 3, 0.5], atol=1e-3)
    both = events(tmp_path / "out", labels="Dog", group="birds")
    assert list(both.label) == ["Dog", "birds"]


def test_groups_come_from_a_file_and_their_thresholds_too(tmp_path: Path, satpipe_here: Satpipe) -> None:
    write_output(tmp_path / "out", {"a.wav": scores_of(4, Frog=[0.4], Cricket=[0, 0, 0.6], Car=[0, 0.3])})
    (tmp_path / "own.csv").write_text("group,label\npond,Frog\npond,Cricket\nroad,Car\n")
    groups = {"groups": tmp_path / "own.csv"}
    assert rows(events(tmp_path / "out", **groups, threshold=0.3)) == [
        ("a.wav", 0, 1, "pond"), ("a.wav", 1, 2, "road"), ("a.wav", 2, 3, "pond"),
    ]  # fmt: skip
    pond = {"classes": [find("Frog").mid, find("Cricket").mid], "threshold": 0.5}
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps({"thresholds": {"group/birds": 0.1}, "groups": {"pond": pond}, "default": 0.2}))
    assert rows(events(tmp_path / "out", **groups, group=["pond", "birds", "road"], threshold=path)) == [
        ("a.wav", 1, 2, "road"), ("a.wav", 2, 3, "pond"),
    ]  # fmt: skip
    path.write_text(json.dumps({"groups": {"pond": pond}}))
    assert rows(events(tmp_path / "out", threshold=path)) == [("a.wav", 2, 3, "pond")]
    path.write_text(json.dumps({"groups": {"road": pond}}))
    with pytest.raises(TruthError, match="has its threshold of 'road' for a group of other classes"):
        events(tmp_path / "out", **groups, group="road", threshold=path)
    with pytest.raises(ConfigError, match="are both called 'Bird': choose one"):
        events(tmp_path / "out", labels="Bird", group="Bird")
    done = satpipe_here("events", tmp_path / "out", "--groups", tmp_path / "own.csv", "--group", "pond,birds")
    assert (done.returncode, "classes: pond (1)" in done.stdout) == (0, True)
    done = satpipe_here("events", tmp_path / "out", "--groups", tmp_path / "no.csv")
    assert f"ConfigError: the file of groups {tmp_path}/no.csv cannot be read: No such file" in done.stderr


def test_without_scores_the_events_are_those_of_the_tags(tmp_path: Path) -> None:
    rng, names = np.random.default_rng(2), ("b.wav", "a.wav", "died.wav")
    waves = {name: np.maximum(rng.random((30, 527), np.float32) * 2.5 - 1.5, 0) for name in names}
    bare = {"scores": False, "threshold": 0.2, "top_k": 400}
    died = {"died.wav": range(7, 12)}
    write_output(tmp_path / "scores", waves, {"one.wav": waves["a.wav"][:4]}, died=died)
    write_output(
        tmp_path / "tags", waves, {"one.wav": waves["a.wav"][:4]}, died=died, run=RUN | {"identity": IDENTITY | bare}
    )
    assert not (tmp_path / "tags" / "scores").exists()
    chosen = {"labels": ["Dog", "Purr"], "group": ["birds", "Cat"], "threshold": 0.4, "low": 0.2}
    with pytest.warns(UserWarning, match="no scores, so tags are used: scores below 0.2 and below the 400 highest of"):
        found = events(tmp_path / "tags", **chosen)
    expected = events(tmp_path / "scores", **chosen)
    assert len(expected) > 20
    pd.testing.assert_frame_equal(found.astype({"recording": str}), expected.astype({"recording": str}))
    with pytest.warns(UserWarning, match="in a recording with gaps, only chunks with tags count"):
        everything = events(tmp_path / "tags", threshold=0.3, low=0.3)
    pd.testing.assert_frame_equal(everything, events(tmp_path / "scores", threshold=0.3, low=0.3))


def test_events_between_two_times_end_there(out: Path) -> None:
    set_clock(out, {"pond/b.wav": (datetime(2025, 5, 1, 4, tzinfo=UTC), None)})
    with pytest.warns(UserWarning, match="are left out: their start is not known"):
        found = events(out, labels=BIRD, since="2025-05-01T04:00:02", until="2025-05-01T04:00:12")
    assert rows(found) == [("pond/b.wav", 1, 3, BIRD), ("pond/b.wav", 5, 7, BIRD)]


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Random scores of recordings whose names are not in the order of their files."""
    rng = np.random.default_rng(5)
    batches = []
    for names in (["d", "x", "b"], ["c"], ["a", "y"]):
        waves = [rng.random((int(rng.integers(1, 40)), 527), np.float32).round(1) for _ in names]
        batches.append({f"{name}.wav": wave for name, wave in zip(names, waves, strict=True)})
    folder = tmp_path_factory.mktemp("random")
    write_output(folder, *batches)
    return folder, dict(sorted({name: wave for batch in batches for name, wave in batch.items()}.items()))


def by_hand(waves: dict[str, Any], columns: list[int], threshold: float, low: float, min_s: float, gap_s: float) -> Any:
    """The events, found with plain loops: recording, column, start_s, end_s, peak, mean."""
    found = []
    for name, wave in waves.items():
        times = [min((n + 1), len(wave) - 0.5) * CHUNK_S for n in range(len(wave))]
        for column in columns:
            scores = wave[:, column].astype(np.float16).astype(np.float64)
            runs: list[list[int]] = []
            for n, score in enumerate(scores):
                if score >= low:
                    if runs and runs[-1][-1] == n - 1:
                        runs[-1].append(n)
                    else:
                        runs.append([n])
            merged: list[list[int]] = []
            for run in runs:
                if max(scores[run]) < threshold:
                    continue
                if merged and run[0] * CHUNK_S - times[merged[-1][-1]] <= gap_s + 1e-9:
                    merged[-1] += run
                else:
                    merged.append(run)
            for run in merged:
                start_s, end_s = run[0] * CHUNK_S, times[run[-1]]
                if end_s - start_s >= min_s - 1e-9:
                    found.append((name, start_s, column, end_s, max(scores[run]), np.mean(scores[run])))
    return sorted(found)


@settings(deadline=None, max_examples=25)
@given(
    threshold=st.sampled_from([0.1, 0.3, 0.55, 0.9, 1.0]),
    part=st.sampled_from([0.3, 0.6, 1.0]),
    min_s=st.sampled_from([0.0, 0.96, 1.92, 5.0]),
    gap_s=st.sampled_from([0.0, 1.92, 3.0, 5.76]),
    columns=st.lists(st.integers(0, 526), min_size=1, max_size=8, unique=True).map(sorted),
    piece=st.sampled_from([1, 5, 30, 1000]),
)
def test_events_are_those_of_plain_loops(
    random: tuple[Path, dict[str, Any]],
    threshold: float,
    part: float,
    min_s: float,
    gap_s: float,
    columns: list[int],
    piece: int,
) -> None:
    folder, waves = random
    low = threshold * part
    expected = by_hand(waves, columns, threshold, low, min_s, gap_s)
    with patch.object(results, "BLOCK_CHUNKS", piece):
        found = events(folder, labels=columns, threshold=threshold, low=low, min_s=min_s, merge_gap_s=gap_s)
    assert [(r, c) for r, _, c, *_ in expected] == [(row.recording, find(row.mid).index) for row in found.itertuples()]
    for place, column in ((1, "start_s"), (3, "end_s"), (4, "peak_score"), (5, "mean_score")):
        np.testing.assert_allclose(found[column], [each[place] for each in expected], rtol=1e-6)


def test_the_order_of_files_and_the_size_of_pieces_change_nothing(
    random: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, waves = random
    write_output(tmp_path, *({name: wave} for name, wave in reversed(waves.items())))
    one = events(folder, threshold=0.8).astype({"recording": str})
    with patch.object(results, "BLOCK_CHUNKS", 7):
        other = events(tmp_path, threshold=0.8).astype({"recording": str})
    pd.testing.assert_frame_equal(one, other, check_categorical=False)
    assert len(one) > 1000


def test_classes_are_chosen_and_have_thresholds_of_their_own(out: Path, tmp_path: Path) -> None:
    assert {row[3] for row in rows(events(out, labels="under:Animal"))} == {BIRD, DOG}
    assert DOG in {label.name for label in descendants("Animal")}
    table = tmp_path / "thresholds.csv"
    table.write_text(f'label,threshold\n{BIRD},0.95\n{DOG},0.35\n"{BEEP}",\nKettle whistle,0.5\n')
    own = [("a.wav", 1, 3, DOG), ("pond/b.wav", 0, 1, DOG)]
    assert rows(events(out, threshold=table)) == own
    assert rows(events(out, threshold=str(table), labels=[DOG])) == own
    with pytest.raises(TruthError, match="no threshold for 1 class: Beep, bleep"):
        events(out, threshold=table, labels=BEEP)
    table.write_text("label,threshold\nKettle whistle,0.5\n")
    with pytest.raises(ConfigError, match="no threshold for any of the model's classes"):
        events(out, threshold=table)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (
            {"low": 0.6},
            ConfigError,
            "--low .* above the threshold, which is 0.5 for 'Speech', not 0.6; by default it is 0.6 of",
        ),
        ({"threshold": 0}, ConfigError, "--threshold must be above 0 and at most 1, not 0"),
        ({"threshold": 1.5}, ConfigError, "--threshold must be above 0 and at most 1, not 1.5"),
        ({"threshold": float("nan")}, ConfigError, "--threshold must be above 0 and at most 1, not nan"),
        ({"low": 0.0}, ConfigError, "--low must be above 0 and at most 1, not 0"),
        ({"min_s": -1}, ConfigError, "--min-s must be at least 0, not -1"),
        ({"merge_gap_s": float("nan")}, ConfigError, "--merge-gap-s must be at least 0, not nan"),
        ({"labels": []}, ConfigError, "--labels, --group and --own select nothing"),
        ({"labels": ["Brid"]}, LabelError, "did you mean 'Bird'"),
        ({"threshold": "no/such.csv"}, TruthError, "no/such.csv cannot be read"),
        ({"recordings": "pond/c.wav"}, OutputError, "has no recording pond/c.wav; did you mean pond/b.wav"),
        ({"recordings": "lake/*"}, OutputError, r"has no recording lake/\*"),
    ],
)
def test_options_that_cannot_be_are_refused(out: Path, options: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        events(out, **options)


def test_recordings_are_chosen(out: Path) -> None:
    assert {row[0] for row in rows(events(out, recordings="pond/*"))} == {"pond/b.wav"}
    assert {row[0] for row in rows(events(out, recordings=["a.wav", "pond/b.wav"]))} == {"a.wav", "pond/b.wav"}


def test_where_a_worker_died_nothing_is_joined(tmp_path: Path) -> None:
    write_output(tmp_path, {"a.wav": scores_of(6, Bird=[0.9] * 6), "b.wav": scores_of(2)}, died={"a.wav": [2, 3]})
    assert rows(events(tmp_path, labels=BIRD)) == [("a.wav", 0, 2, BIRD), ("a.wav", 4, 5.5, BIRD)]
    joined = events(tmp_path, labels=BIRD, merge_gap_s=4)
    assert rows(joined) == [("a.wav", 0, 5.5, BIRD)]


def test_a_score_reaches_a_threshold_only_as_it_was_stored(tmp_path: Path) -> None:
    assert float(np.float16(0.1)) < 0.1
    assert float(np.float16(0.3)) > 0.3
    write_output(tmp_path, {"a.wav": scores_of(2, Bird=[0.1], Dog=[0.3])})
    assert rows(events(tmp_path, threshold=0.1, low=0.1)) == [("a.wav", 0, 1, DOG)]
    assert rows(events(tmp_path, threshold=0.3, low=0.3)) == [("a.wav", 0, 1, DOG)]


def test_absolute_times_follow_the_recordings_clock(out: Path) -> None:
    start = datetime(2025, 3, 30, 0, 59, 59, 500_000, tzinfo=UTC)
    set_clock(out, {"pond/b.wav": (start, 1.0001), "a.wav": (start, None)})
    found = events(out)
    rate = np.where(found.recording == "a.wav", 1.0, 1.0001)
    for column, seconds in (("time", found.start_s), ("end_time", found.end_s)):
        late_us = (found[column] - pd.Timestamp(start)) / pd.Timedelta("1us") - seconds * rate * 1e6
        assert late_us.abs().max() <= 0.5 + 1e-3
    set_clock(out, {"a.wav": (start, None)})
    assert events(out).time.isna().tolist() == [False, False, True, True, True]


# Files


def test_a_table_says_what_made_it(out: Path) -> None:
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    written = write(out, EventOptions(labels=[BIRD, DOG]))
    assert (written.place, written.recordings, written.with_events) == (out / "events.parquet", 3, 1)
    assert written.labels == {BIRD: 2, DOG: 1}
    table = pq.read_table(out / "events.parquet")
    assert table.schema.equals(EVENTS)
    about = json.loads(table.schema.metadata[b"satpipe.events"])
    assert (about["threshold"], about["low"], about["run"], about["model"]["arch"]) == (0.5, 0.3, "one", "SAT_T_2s")
    found = events(out, labels=[BIRD, DOG])
    read = pd.read_parquet(out / "events.parquet")
    pd.testing.assert_frame_equal(read.drop(columns="time_local"), found.drop(columns="time_local"))
    assert {path: path.read_bytes() for path in before} == before  # the tables are unchanged
    write_output(out, {"more.wav": scores_of(1)}, run={**RUN, "id": "one"})  # and tag can continue
    assert len(pd.read_parquet(out / "events.parquet")) == 3


def test_local_times_are_written_with_their_offset(tmp_path: Path) -> None:
    run = {**RUN, "clock": {"time_zone": "America/St_Johns"}}
    waves = {"a.wav": scores_of(3, Dog=[0.9], Bird=[0, 0.9]), "b.wav": scores_of(1, Dog=[0.9])}
    write_output(tmp_path / "out", waves, run=run)
    set_clock(tmp_path / "out", {"a.wav": (datetime(2025, 1, 1, 2, tzinfo=UTC), None)})
    written = ["2024-12-31T22:30:00.000-03:30", "2024-12-31T22:30:01.920-03:30", None]
    write(tmp_path / "out", EventOptions())
    write(tmp_path / "out", EventOptions(), tmp_path / "events.csv")
    for table in (pd.read_parquet(tmp_path / "out" / "events.parquet"), pd.read_csv(tmp_path / "events.csv")):
        assert table.time_local.replace({np.nan: None}).tolist() == written
    assert [pd.Timestamp(each) for each in written[:2]] == events(tmp_path / "out").time_local.tolist()[:2]


def test_a_table_as_text(out: Path, tmp_path: Path) -> None:
    set_clock(out, {"a.wav": (datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), None)})
    write(out, EventOptions(), tmp_path / "new" / "found.csv")
    read = pd.read_csv(tmp_path / "new" / "found.csv", parse_dates=["time", "end_time"])
    found = events(out)
    assert list(read.columns) == EVENTS.names
    assert rows(read) == rows(found)
    np.testing.assert_allclose(read.mean_score, found.mean_score, atol=5e-5)
    assert read.time.tolist()[:2] == found.time.tolist()[:2]
    assert "2025-01-02T03:04:05.000000Z" in (tmp_path / "new" / "found.csv").read_text()


def test_a_folder_without_events_gives_an_empty_table(tmp_path: Path) -> None:
    write_output(tmp_path / "out", {"still.wav": scores_of(3)})
    for name in ("none.parquet", "none.csv"):
        write(tmp_path / "out", EventOptions(), tmp_path / name)
    assert pq.read_table(tmp_path / "none.parquet").schema.equals(EVENTS)
    assert (tmp_path / "none.csv").read_text().count("\n") == 1
    assert len(events(tmp_path / "out")) == 0
    write_output(tmp_path / "nothing")
    assert list(events(tmp_path / "nothing").columns) == EVENTS.names


@pytest.fixture
def files(out: Path, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[pd.DataFrame, Path]:
    """Events, and the folder with their files in the format of the test."""
    set_clock(out, {"a.wav": (datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), None)})
    write(out, EventOptions(), tmp_path / "files", request.param)
    return events(out), tmp_path / "files"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("files", ["audacity"], indirect=True)
def test_audacity_labels(files: tuple[pd.DataFrame, Path]) -> None:
    found, folder = files
    assert names(folder) == ["a.wav.txt", "pond/b.wav.txt", "still.wav.txt"]
    assert (folder / "still.wav.txt").read_bytes() == b""
    assert (folder / "a.wav.txt").read_bytes() == (
        b"0.000000\t1.920000\tBeep, bleep 0.50\n3.840000\t6.720000\tBeep, bleep 0.70\n"
    )
    read = crowsetta.formats.by_name("aud-seq").from_file(folder / "pond" / "b.wav.txt")
    assert read.start_times.tolist() == found.start_s[2:].tolist()
    np.testing.assert_allclose(read.end_times, found.end_s[2:])
    assert list(read.labels) == [f"{e.label} {e.peak_score:.2f}" for e in found[2:].itertuples()]


@pytest.mark.parametrize("files", ["raven"], indirect=True)
def test_raven_selections(files: tuple[pd.DataFrame, Path]) -> None:
    found, folder = files
    suffix = ".wav.Table.1.selections.txt"
    assert names(folder) == [f"a{suffix}", f"pond/b{suffix}", f"still{suffix}"]
    read = crowsetta.formats.by_name("raven").from_file(folder / f"pond/b{suffix}", annot_col="Annotation").df
    read.columns = [str(column) for column in read.columns]
    raw = pd.read_csv(folder / f"pond/b{suffix}", sep="\t")
    assert len(read) == len(raw) == 3
    assert raw["Selection"].tolist() == [1, 2, 3]
    assert set(raw["View"]) == {"Spectrogram 1"}
    assert set(raw["Channel"]) == {1}
    assert (raw["Low Freq (Hz)"].max(), raw["High Freq (Hz)"].min()) == (0, 8000)
    np.testing.assert_allclose(raw["Begin Time (s)"], found.start_s[2:])
    np.testing.assert_allclose(raw["End Time (s)"], found.end_s[2:])
    assert raw["Annotation"].tolist() == found.label[2:].tolist()
    np.testing.assert_allclose(raw["Peak Score"], found.peak_score[2:], atol=5e-5)
    assert (folder / f"still{suffix}").read_text().count("\n") == 1


def test_raven_selections_of_a_channel_and_of_a_low_rate(tmp_path: Path) -> None:
    write_output(tmp_path / "out", {"a.wav#ch2": scores_of(1, Bird=[0.9])})
    path = next((tmp_path / "out" / "recordings").iterdir())
    table = pq.read_table(path)
    at = table.column_names.index("rate_hz")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array([8_000], pa.int32())), path)
    write(tmp_path / "out", EventOptions(), tmp_path / "files", "raven")
    (row,) = pd.read_csv(tmp_path / "files" / "a.wav#ch2.Table.1.selections.txt", sep="\t").to_dict("records")
    assert (row["Channel"], row["High Freq (Hz)"]) == (2, 4000)


def tiers(path: Path) -> dict[str, list[tuple[float, float, str]]]:
    """A TextGrid as Praat reads it."""
    grid = parselmouth.Data.read(str(path))
    read = {}
    for tier in range(1, call(grid, "Get number of tiers") + 1):
        read[call(grid, "Get tier name", tier)] = [
            (
                call(grid, "Get start time of interval", tier, n),
                call(grid, "Get end time of interval", tier, n),
                call(grid, "Get label of interval", tier, n),
            )
            for n in range(1, call(grid, "Get number of intervals", tier) + 1)
        ]
    return read


@pytest.mark.parametrize("files", ["textgrid"], indirect=True)
def test_praat_reads_the_textgrids(files: tuple[pd.DataFrame, Path]) -> None:
    found, folder = files
    assert names(folder) == ["a.wav.TextGrid", "pond/b.wav.TextGrid", "still.wav.TextGrid"]
    read = tiers(folder / "pond" / "b.wav.TextGrid")
    assert list(read) == [BIRD, DOG]
    ends_s = 7.5 * CHUNK_S
    for label, intervals in read.items():
        own = found[(found.recording == "pond/b.wav") & (found.label == label)]
        marked = [interval[:2] for interval in intervals if interval[2]]
        assert {interval[2] for interval in intervals} == {label, ""}
        np.testing.assert_allclose(marked, np.stack([own.start_s, own.end_s], axis=1))
        assert [each[0] for each in intervals] == [0, *(each[1] for each in intervals[:-1])]  # without a hole
        assert intervals[-1][1] == pytest.approx(ends_s)
    assert tiers(folder / "still.wav.TextGrid") == {"no events": [(0, 2.5 * CHUNK_S, "")]}


def test_praat_reads_labels_with_quotes_and_accents(tmp_path: Path) -> None:
    label = 'the "höhö" of a »bird«'
    found = Found("a.wav", 5.0, 16_000, None, {}, [Event(1.0, 2.5, "/m/015p6", label, 0.9, 0.8)])
    (tmp_path / "a.TextGrid").write_text(textgrid(found), encoding="utf-8")
    assert tiers(tmp_path / "a.TextGrid") == {label: [(0, 1, ""), (1, 2.5, label), (2.5, 5, "")]}


@pytest.mark.filterwarnings("ignore:Passing a schema to Validator:DeprecationWarning")  # in jams itself
@pytest.mark.parametrize("files", ["jams"], indirect=True)
def test_jams_files(files: tuple[pd.DataFrame, Path]) -> None:
    found, folder = files
    assert names(folder) == ["a.wav.jams", "pond/b.wav.jams", "still.wav.jams"]
    read = jams.load(str(folder / "pond" / "b.wav.jams"), validate=True, strict=True)
    (annotation,) = read.search(namespace="tag_audioset")
    data = annotation.to_dataframe()
    np.testing.assert_allclose(data["time"], found.start_s[2:])
    np.testing.assert_allclose(data["time"] + data["duration"], found.end_s[2:])
    assert data["value"].tolist() == found.label[2:].tolist()
    np.testing.assert_allclose(data["confidence"], found.peak_score[2:], atol=5e-5)
    assert read.file_metadata.duration == pytest.approx(7.5 * CHUNK_S)
    assert annotation.annotation_metadata.annotation_rules == "threshold 0.5, low 0.3, min_s 0.0, merge_gap_s 0.0"
    assert read.sandbox.time is None
    assert jams.load(str(folder / "a.wav.jams")).sandbox.time == "2025-01-02T03:04:05.000000Z"
    assert len(jams.load(str(folder / "still.wav.jams")).annotations[0].data) == 0


@pytest.mark.parametrize(
    ("to", "kind"), [("files", "audacity"), ("files", "raven"), ("all.txt", "raven"), ("events.tsv", None)]
)
def test_evaluate_reads_the_files_again(out: Path, tmp_path: Path, to: str, kind: str | None) -> None:
    write(out, EventOptions(threshold=0.5, low=0.5), tmp_path / to, kind)
    options = EvaluateOptions(strong=tmp_path / to, classes="527", threshold="0.5", bootstrap=0, psds_thresholds=0)
    card = evaluate(out, **vars(options))
    assert card["truth"]["strong"]["found"] == (3 if to == "files" else 2)  # one table has only recordings with events
    figures = {(each["name"], each["average"]): each["value"] for each in card["figures"]}
    assert figures["segment_f1", "micro"] == figures["onset_f1", "micro"] == figures["event_f1", "micro"] == 1


def test_a_raven_table_for_all_files_runs_through_them(tmp_path: Path) -> None:
    (tmp_path / "in" / "b").mkdir(parents=True)
    for name in ("a.wav", "b/c.wav"):
        (tmp_path / "in" / name).write_bytes(b"x")
    waves = {
        "b/c.wav": scores_of(4, Dog=[0, 0.9]),
        "a.wav": scores_of(8, Bird=[0.9]),
        "gone.wav": scores_of(1, Dog=[1]),
    }
    write_output(tmp_path / "out", waves, run={**RUN, "inputs": [str(tmp_path / "in")]})
    write(tmp_path / "out", EventOptions(), tmp_path / "all.selections.txt", "raven")
    table = pd.read_csv(tmp_path / "all.selections.txt", sep="\t", keep_default_na=False)
    assert table["Selection"].tolist() == [1, 2, 3]
    assert table["Begin File"].tolist() == ["a.wav", "c.wav", "gone.wav"]
    assert table["Begin Path"].tolist() == [f"{tmp_path}/in/a.wav", f"{tmp_path}/in/b/c.wav", "gone.wav"]
    np.testing.assert_allclose(table["File Offset (s)"], [0, CHUNK_S, 0])
    np.testing.assert_allclose(table["Begin Time (s)"] / CHUNK_S, [0, 7.5 + 1, 7.5 + 3.5])
    np.testing.assert_allclose((table["End Time (s)"] - table["Begin Time (s)"]) / CHUNK_S, [1, 1, 0.5])


def test_in_a_raven_table_joined_files_have_their_own_names_and_channels_share_one(tmp_path: Path) -> None:
    waves = {"d.wav#ch1": scores_of(4, Dog=[0, 0, 0.9]), "d.wav#ch2": scores_of(4, Dog=[0.9])}
    run = {**RUN, "identity": {**IDENTITY, "channels": "split"}}
    (path,) = (write_output(tmp_path / "out", waves, run=run).folder / "recordings").iterdir()
    table = pq.read_table(path)
    part = {"size_bytes": 1, "modified": 0, "header": None, "header_time": None}
    files = [part | {"file": name, "start_s": start_s, "duration_s": 3.36} for name, start_s in (("d", 0), ("e", 3.36))]
    at = table.column_names.index("files")
    joined = pa.array([files, None]).cast(table.schema.field("files").type)
    pq.write_table(table.set_column(at, table.schema.field("files"), joined), path)
    write(tmp_path / "out", EventOptions(), tmp_path / "all.txt", "raven")
    found = pd.read_csv(tmp_path / "all.txt", sep="\t")
    assert found["Channel"].tolist() == [1, 2]
    assert found["Begin File"].tolist() == ["e", "d.wav"]
    np.testing.assert_allclose(found["File Offset (s)"], [2 * CHUNK_S - 3.36, 0])
    np.testing.assert_allclose(found["Begin Time (s)"], [2 * CHUNK_S, 3.5 * CHUNK_S])


@pytest.mark.parametrize(
    ("name", "format", "says"),
    [
        (
            "x.xlsx",
            None,
            r"x.xlsx: the name of a table must end in .parquet, .csv or .tsv; for files of other programs",
        ),
        ("x", None, "must end in .parquet, .csv or .tsv; .* add --format audacity, raven, textgrid, jams"),
        ("x.txt", "csv", "must end in .parquet, .csv or .tsv$"),
        ("x.csv", "raven", "x.csv is a name for a table, but --format raven writes a file for each recording"),
        ("x.TSV", "csv", "x.TSV is not a name for --format csv: leave out --format, or end the name in .csv"),
    ],
)
def test_a_table_is_what_its_ending_says_or_refused(
    out: Path, tmp_path: Path, name: str, format: Any, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        write(out, EventOptions(), tmp_path / name, format)
    assert not (tmp_path / name).exists()
    write(out, EventOptions(), tmp_path / "x.TSV")
    assert (tmp_path / "x.TSV").read_text().startswith("recording\tstart_s\t")
    assert rows(pd.read_csv(tmp_path / "x.TSV", sep="\t")) == rows(events(out))


def test_recordings_of_one_name_have_files_of_their_own(tmp_path: Path) -> None:
    write_output(tmp_path / "out", {name: scores_of(1) for name in ("x/a.wav", "x/a.flac", "a.wav")})
    write(tmp_path / "out", EventOptions(), format="audacity")
    assert names(tmp_path / "out" / "events_audacity") == ["a.wav.txt", "x/a.flac.txt", "x/a.wav.txt"]


@pytest.mark.parametrize("kind", RENDERERS)
def test_no_name_of_a_recording_keeps_the_others_from_being_written(tmp_path: Path, kind: str) -> None:
    long = ["x" * (bytes_ - 4) + ".wav" for bytes_ in range(244, 256)]
    odd = ["", ".", "..", "a//b.wav", "../b.wav", "a.wav.txt/b.wav", "~0123456789abcdef"]
    everyone = {name: scores_of(1) for name in (*long, *odd, "a.wav", "b.wav")}
    write_output(tmp_path / "out", everyone)
    write(tmp_path / "out", EventOptions(), tmp_path / "files", kind)
    written = names(tmp_path / "files")
    assert len(written) == len(everyone)
    assert {f"{name}{RENDERERS[kind][1]}" for name in ("a.wav", "b.wav")} <= set(written)
    assert sum(name.startswith("x" * 200) for name in written) == len(long)
    assert names(tmp_path) == sorted(
        [f"files/{name}" for name in written] + [f"out/{name}" for name in names(tmp_path / "out")]
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_folders_in_an_object_store(kind: str) -> None:
    folder = f"memory://events_{kind}"
    write_output(folder, {"x/a.wav": scores_of(2, Bird=[0.9])})
    place = write(folder, EventOptions(), None, kind).place
    written = [UPath(place)] if kind in TABLE_FORMATS else list(UPath(place).rglob("a.wav.*"))
    assert [path.is_file() for path in written] == [True]


# Errors


def test_a_damaged_file_is_named_and_leaves_what_was_written_before(out: Path) -> None:
    write(out, EventOptions())
    before = (out / "events.parquet").read_bytes()
    damaged = sorted((out / "scores").iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(OutputError, match=f"{damaged.name} cannot be read"):
        write(out, EventOptions())
    assert (out / "events.parquet").read_bytes() == before
    assert names(out)[:1] == [".lock"]
    assert not [name for name in names(out) if "events" in name and name != "events.parquet"]


def test_chunks_of_another_run_are_refused(out: Path, tmp_path: Path) -> None:
    (source,) = (write_output(tmp_path / "o", {"z.wav": scores_of(3)}).folder / "scores").iterdir()
    table = pq.read_table(source)
    at = table.column_names.index("start_s")
    short = table.set_column(at, table.schema.field(at), [table["start_s"].to_numpy() / 2])
    for kind in ("recordings", "tags"):
        shutil.copy(tmp_path / "o" / kind / source.name, out / kind / source.name)
    place = f"scores/{source.name}"
    pq.write_table(short.replace_schema_metadata({PLACE: place}), out / place)
    with pytest.raises(OutputError, match=f"{source.name} has other chunks than run.json, it comes from another run"):
        events(out)


def test_what_cannot_be_written_is_said(out: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/events.parquet cannot be written"):
        write(out, EventOptions(), tmp_path / "file" / "events.parquet")
    with pytest.raises(OutputError, match=r"file/a.wav.Table.1.selections.txt cannot be written"):
        write(out, EventOptions(), tmp_path / "file", "raven")
    with pytest.raises(ConfigError, match="one of parquet, csv, tsv, audacity, raven, textgrid, jams, not 'elan'"):
        write(out, EventOptions(), format="elan")


def test_a_folder_that_is_not_finished_is_a_warning(tmp_path: Path) -> None:
    write_output(tmp_path, {"a.wav": scores_of(1, Bird=[0.9])}, run={k: v for k, v in RUN.items() if k != "finished"})
    with pytest.warns(UserWarning, match="is not finished: recordings may be missing"):
        assert len(events(tmp_path)) == 1


@pytest.mark.slow
def test_the_command(satpipe: Satpipe, out: Path) -> None:
    done = satpipe("events", out, "--labels", BEEP, "--labels", "under:Bird", "--merge-gap-s", 4, "--format", "raven")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"2 events in 2 of 3 recordings: {out / 'events_raven'}\nclasses: Beep, bleep (1), Bird (1)\n"
    )


def test_a_wrong_label_is_one_clear_message(satpipe_here: Satpipe, out: Path) -> None:
    wrong = satpipe_here("events", out, "--labels", "Brid")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("LabelError: label 'Brid' not found; did you mean 'Bird' (/m/015p6)")


def test_what_is_no_output_folder_is_said(out: Path) -> None:
    with pytest.raises(OutputError, match="tags is not an output folder of satpipe: it has no run.json"):
        events(out / "tags")


def test_the_command_offers_the_formats_there_are() -> None:
    from satpipe.jobs.commands.main import cli

    (option,) = [each for each in cli.commands["events"].params if each.name == "format"]
    assert option.type.choices == FORMATS  # type: ignore[attr-defined]


def test_all_classes_are_looked_for(tmp_path: Path) -> None:
    scores = np.full((1, 527), 0.9, np.float32)
    write_output(tmp_path, {"a.wav": scores})
    assert list(events(tmp_path).label) == [label.name for label in weak_labels()]
    assert replace(EventOptions(), labels=(3,)).labels == (3,)
