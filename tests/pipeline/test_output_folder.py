"""The output folder: what is in the tables, who can read them, and that they are whole whatever happened."""

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Satpipe
from hypothesis import given, settings
from hypothesis import strategies as st
from satpipe.pipeline.tables import batches, files, schemas
from satpipe.pipeline.tables.batches import Finished, TableOptions
from satpipe.pipeline.tables.files import new_name
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.staged import SpanKey, SpanOutcome, StagedSpan
from satpipe.sat.errors import OutputError
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import CLASSES, SAMPLE_RATE_HZ

CHUNK_SAMPLES = 30_720
CHUNK_S = 1.92
OPTIONS = TableOptions(
    run_id="one", model="SAT_T_2s@abc", chunk_samples=CHUNK_SAMPLES, threshold=0.5, top_k=3, scores=True
)
IDENTITY = {"model_sha256": "abc", "cut": "gapless", "threshold": 0.5, "top_k": 3, "scores": True}
RUN = {"id": "one", "identity": IDENTITY}
TABLES = ("tags", "scores", "recordings")
HALF_PRECISION = 2**-11


def scores_by_rule(name: str, chunks: int) -> npt.NDArray[np.float32]:
    seed = int.from_bytes(name.encode(), "big") % 2**32
    return np.random.default_rng(seed).random((chunks, CLASSES), np.float32) ** 100


def row_of(name: str, chunks: int, **known: Any) -> dict[str, Any]:
    duration_s = (chunks - 0.5) * CHUNK_S if chunks else None  # the last chunk is half full
    known = {"duration_s": duration_s, "rate_hz": SAMPLE_RATE_HZ, "channels": 1, "chunks": chunks, **known}
    return schemas.recording_row(name, 100, 1_700_000_000_123_456, known.pop("status", "ok"), "", **known)


def stage(output: Output, **chunks: int) -> dict[str, StagedSpan]:
    """Stage a unit of whole recordings, each with so many chunks."""
    places = [place for place, each in enumerate(chunks.values()) for _ in range(each)]
    indices = [index for each in chunks.values() for index in range(each)]
    outcomes = [SpanOutcome(key_of(name), each, 100) for name, each in chunks.items()]
    with output.staging.stage() as file:
        if places:
            scores = np.concatenate([scores_by_rule(name, each) for name, each in chunks.items()])
            file.write(schemas.staged_table(places, indices, scores))
        return dict(zip(chunks, file.conclude(outcomes), strict=True))


def key_of(name: str) -> SpanKey:
    return (name, 100, 0, 0, None)


def finished(output: Output, **chunks: int) -> list[Finished]:
    staged = stage(output, **chunks)
    return [Finished(row_of(name, each), [staged[name]]) for name, each in chunks.items()]


def publish(output: Output, options: TableOptions = OPTIONS, **chunks: int) -> str:
    """Stage and publish a batch of recordings; returns its name."""
    name = new_name()
    output.batches.publish(finished(output, **chunks), options, name)
    return name


@contextmanager
def claimed(folder: Path, run: dict[str, Any] = RUN, *, overwrite: bool = False) -> Iterator[Output]:
    output = Output(folder)
    with output.claim(run, overwrite=overwrite):
        yield output


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with two batches of recordings: a, b and c, d."""
    with claimed(tmp_path / "out") as output:
        publish(output, a=3, b=5)
        publish(output, c=1, d=20)
        output.finish()
    return tmp_path / "out"


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a table, in an order that does not depend on the files."""
    found = [row for path in (folder / table).glob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()]
    return sorted(found, key=lambda row: (row["recording"], row.get("chunk", 0), -row.get("score", 0)))


def contents(folder: Path, *, without: str = "") -> dict[str, list[dict[str, Any]]]:
    return {table: [row for row in rows(folder, table) if row["recording"] != without] for table in TABLES}


def files_of(folder: Path) -> dict[str, set[str]]:
    return {table: {path.name for path in (folder / table).iterdir()} for table in TABLES}


# What is in the tables


def test_every_file_has_the_schema_that_the_tables_module_defines(out: Path) -> None:
    for table, schema in (("tags", schemas.TAGS), ("scores", schemas.SCORES), ("recordings", schemas.RECORDINGS)):
        paths = list((out / table).iterdir())
        assert len(paths) == 2
        for path in paths:
            assert pq.read_schema(path).equals(schema)


def test_a_chunk_starts_where_the_one_before_ended_and_the_last_ends_with_the_recording(out: Path) -> None:
    for name, chunks in (("a", 3), ("b", 5), ("c", 1), ("d", 20)):
        times = [
            (row["chunk"], row["start_s"], row["end_s"]) for row in rows(out, "scores") if row["recording"] == name
        ]
        duration_s = (chunks - 0.5) * CHUNK_S
        bounds_s = [index * CHUNK_SAMPLES / SAMPLE_RATE_HZ for index in range(chunks)] + [duration_s]
        assert times == [(index, bounds_s[index], bounds_s[index + 1]) for index in range(chunks)]
        by_chunk = {chunk: (start_s, end_s) for chunk, start_s, end_s in times}
        for row in rows(out, "tags"):
            if row["recording"] == name:
                assert (row["start_s"], row["end_s"]) == by_chunk[row["chunk"]]


def test_the_scores_are_those_that_were_staged_in_half_precision(out: Path) -> None:
    for name, chunks in (("a", 3), ("b", 5), ("c", 1), ("d", 20)):
        got = np.array([row["scores"] for row in rows(out, "scores") if row["recording"] == name])
        np.testing.assert_array_equal(got, scores_by_rule(name, chunks).astype(np.float16))


def test_the_tags_are_the_best_labels_that_reach_the_threshold(out: Path) -> None:
    got = [(row["recording"], row["chunk"], row["mid"], row["label"], row["score"]) for row in rows(out, "tags")]
    expected = []
    for name, chunks in (("a", 3), ("b", 5), ("c", 1), ("d", 20)):
        for chunk, scores in enumerate(scores_by_rule(name, chunks)):
            for index in sorted(range(CLASSES), key=lambda i, s=scores: -s[i])[:3]:
                if scores[index] >= 0.5:
                    expected.append((name, chunk, weak_labels()[index].mid, weak_labels()[index].name, scores[index]))
    assert got == expected
    per_chunk = {(name, chunk): 0 for name, chunk, *_ in got}
    for name, chunk, *_ in got:
        per_chunk[name, chunk] += 1
    assert set(per_chunk.values()) >= {2, 3}  # both rules had something to leave out


def test_tags_and_scores_agree(out: Path) -> None:
    index = {label.mid: label.index for label in weak_labels()}
    scores = {(row["recording"], row["chunk"]): row["scores"] for row in rows(out, "scores")}
    for row in rows(out, "tags"):
        half = scores[row["recording"], row["chunk"]][index[row["mid"]]]
        assert half == pytest.approx(row["score"], rel=HALF_PRECISION)


@settings(max_examples=50, deadline=None)
@given(chunks=st.integers(0, 6), top_k=st.integers(1, 600), threshold=st.floats(0, 1), seed=st.integers(0, 99))
def test_no_label_is_kept_that_is_worse_than_one_left_out(chunks: int, top_k: int, threshold: float, seed: int) -> None:
    scores = scores_by_rule(str(seed), chunks).round(1)  # with many ties
    index = np.arange(chunks, dtype=np.int32)
    names = schemas.name_of_each(["a"], np.zeros(chunks, np.int32))
    times = schemas.chunk_times(index, CHUNK_SAMPLES, CHUNK_S * chunks)
    table = schemas.tag_rows(names, index, scores, times, OPTIONS.made, threshold=threshold, top_k=top_k)
    by_mid = {label.mid: label.index for label in weak_labels()}
    kept: list[list[int]] = [[] for _ in index]
    for row in table.to_pylist():
        kept[row["chunk"]].append(by_mid[row["mid"]])
        assert row["score"] == scores[row["chunk"], by_mid[row["mid"]]]
    for chunk, classes in enumerate(kept):
        reach = np.count_nonzero(scores[chunk] >= np.float32(threshold))
        assert len(classes) == len(set(classes)) == min(top_k, reach)
        values = scores[chunk, classes]
        assert (np.diff(values) <= 0).all()
        left_out = np.delete(scores[chunk], classes)
        if len(classes) == top_k and len(left_out):
            assert left_out.max() <= values[-1]


def test_a_recording_without_scores_has_its_row_and_no_others(out: Path) -> None:
    with claimed(out) as output:
        bad = Finished(row_of("bad", 0, status="unreadable", rate_hz=None, channels=None))
        output.batches.publish([bad], OPTIONS, new_name())
    [row] = [row for row in rows(out, "recordings") if row["recording"] == "bad"]
    assert row["status"] == "unreadable"
    assert row["duration_s"] is row["rate_hz"] is row["channels"] is None
    assert schemas.since_1970_us(row["modified"]) == 1_700_000_000_123_456
    assert "bad" not in {row["recording"] for row in rows(out, "tags") + rows(out, "scores")}


def test_spans_of_a_recording_are_put_together_from_several_units(tmp_path: Path) -> None:
    scores = scores_by_rule("long", 9)
    with claimed(tmp_path) as output:
        spans = []
        for start in (6, 3, 0):  # the last one was ready first
            other = SpanOutcome(key_of("other"))
            outcome = SpanOutcome(("long", 100, 0, start, start + 3 if start < 6 else None), 3, 100)
            with output.staging.stage() as file:
                file.write(schemas.staged_table([1] * 3, list(range(start, start + 3)), scores[start : start + 3]))
                spans.append(file.conclude([other, outcome])[1])
        output.batches.publish([Finished(row_of("long", 9), spans[::-1])], OPTIONS, new_name())
    [path] = (tmp_path / "scores").iterdir()
    table = pq.read_table(path)
    assert table["chunk"].to_pylist() == list(range(9))
    np.testing.assert_array_equal(np.array(table["scores"].to_pylist()), scores.astype(np.float16))


def test_a_batch_may_be_larger_than_a_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROW_GROUP_CHUNKS", 4)
    with claimed(tmp_path) as output:
        tasks = [finished(output, **{f"recording {n}": 3, f"recording {n + 1}": 3}) for n in (0, 2, 4)]
        output.batches.publish([each for task in tasks for each in task], OPTIONS, name := new_name())
    assert pq.ParquetFile(tmp_path / "scores" / name).num_row_groups == 3
    assert [row["recording"] for row in rows(tmp_path, "scores")] == [
        f"recording {n}" for n in range(6) for _ in range(3)
    ]


def test_spans_of_a_recording_in_one_file_are_counted_together(tmp_path: Path) -> None:
    with claimed(tmp_path) as output:
        spans = stage(output, first=2, second=3, other=4)
        batch = [
            Finished(row_of("both", 5), [spans["first"], spans["second"]]),
            Finished(row_of("other", 4), [spans["other"]]),
        ]
        output.batches.publish(batch, OPTIONS, new_name())
    (both, other) = rows(tmp_path, "recordings")
    found = Counter(row["recording"] for row in rows(tmp_path, "tags"))
    assert (both["tags"], other["tags"]) == (found["both"], found["other"])
    assert min(found.values()) > 0


def test_the_scores_table_can_be_left_out(tmp_path: Path) -> None:
    run = {"id": "one", "identity": {**IDENTITY, "scores": False}}
    with claimed(tmp_path, run) as output:
        publish(output, replace(OPTIONS, scores=False), a=3)
    assert not (tmp_path / "scores").exists()
    assert {row["recording"] for row in rows(tmp_path, "tags")} == {"a"}


# Who can read them


@cache
def expected_tags() -> int:
    best = [np.sort(scores_by_rule(name, n), axis=1)[:, -3:] for name, n in (("a", 3), ("b", 5), ("c", 1), ("d", 20))]
    return int(sum(np.count_nonzero(each >= np.float32(0.5)) for each in best))


def test_pandas_reads_the_tables(out: Path) -> None:
    tags = pd.read_parquet(out / "tags")
    assert list(tags.columns) == schemas.TAGS.names
    assert len(tags) == expected_tags()
    for column in ("recording", "mid", "label"):
        assert isinstance(tags[column].dtype, pd.CategoricalDtype)
    assert set(tags["recording"]) == {"a", "b", "c", "d"}
    assert tags.groupby("recording", observed=True)["chunk"].max().to_dict() == {"a": 2, "b": 4, "c": 0, "d": 19}
    scores = pd.read_parquet(out / "scores")
    assert np.stack(list(scores["scores"])).shape == (29, CLASSES)
    recordings = pd.read_parquet(out / "recordings")
    assert sorted(recordings["recording"]) == ["a", "b", "c", "d"]
    assert recordings["modified"].astype("int64").unique().tolist() == [1_700_000_000_123_456]


def test_duckdb_reads_the_tables(out: Path) -> None:
    tags = f"'{out}/tags/*.parquet'"
    assert duckdb.sql(f"SELECT count(*) FROM {tags}").fetchall() == [(expected_tags(),)]
    counted = duckdb.sql(f"SELECT recording, max(chunk) FROM {tags} GROUP BY 1 ORDER BY 1").fetchall()
    assert counted == [("a", 2), ("b", 4), ("c", 0), ("d", 19)]
    joined = duckdb.sql(
        f"SELECT count(*) FROM {tags} t JOIN '{out}/recordings/*.parquet' r USING (recording) "
        f"JOIN '{out}/scores/*.parquet' s USING (recording, chunk) "
        f"WHERE t.end_s <= r.duration_s AND len(s.scores) = {CLASSES} AND abs(list_max(s.scores) - t.score) < 1"
    )
    assert joined.fetchall() == [(expected_tags(),)]


def test_polars_reads_the_tables(out: Path) -> None:
    tags = pl.read_parquet(out / "tags")
    assert len(tags) == expected_tags()
    assert set(tags["label"].cast(pl.String)) <= {label.name for label in weak_labels()}
    deepest = tags.group_by(pl.col("recording").cast(pl.String)).agg(pl.col("chunk").max()).sort("recording")
    assert deepest.rows() == [("a", 2), ("b", 4), ("c", 0), ("d", 19)]
    assert pl.read_parquet(out / "recordings")["chunks"].sum() == 29
    scores = pl.read_parquet(out / "scores").filter(pl.col("recording").cast(pl.String) == "d").sort("chunk")["scores"]
    np.testing.assert_array_equal(np.array(scores.to_list()), scores_by_rule("d", 20).astype(np.float16))


# Whole whatever happens


def test_publishing_twice_under_one_name_counts_once(tmp_path: Path) -> None:
    with claimed(tmp_path) as output:
        batch = finished(output, a=3, b=5)
        shutil.copytree(tmp_path / "_staged", tmp_path / "kept")
        name = new_name()
        output.batches.publish(batch, OPTIONS, name)
        once = contents(tmp_path)
        shutil.copytree(tmp_path / "kept", tmp_path / "_staged", dirs_exist_ok=True)  # the first died before this
        output.batches.publish(batch, OPTIONS, name)
        output.batches.publish(batch, OPTIONS, name)
        assert list((tmp_path / "_staged").iterdir()) == []
    assert contents(tmp_path) == once
    assert files_of(tmp_path) == {table: {name} for table in TABLES}


def test_what_is_staged_is_known_to_the_next_run(tmp_path: Path) -> None:
    with claimed(tmp_path) as output:
        before = stage(output, a=3, b=0)
        stage(output, c=1)
    with claimed(tmp_path) as output:
        staged = output.staging.spans()
        assert staged.keys() == {key_of("a"), key_of("b"), key_of("c")}
        assert [staged[key_of(name)] for name in ("a", "b")] == [before["a"], before["b"]]
        output.batches.publish([Finished(row_of("a", 3), [staged[key_of("a")]])], OPTIONS, new_name())
    assert [row["chunk"] for row in rows(tmp_path, "scores")] == [0, 1, 2]


def test_a_unit_that_fails_while_it_is_staged_leaves_nothing(tmp_path: Path) -> None:
    def fail(output: Output) -> None:
        with output.staging.stage() as file:
            file.write(schemas.staged_table([0], [0], scores_by_rule("a", 1)))
            raise ZeroDivisionError

    with claimed(tmp_path) as output:
        with pytest.raises(ZeroDivisionError):
            fail(output)
        assert list((tmp_path / "_staged").iterdir()) == []
        assert output.staging.spans() == {}


@pytest.mark.parametrize("full_at", TABLES)
def test_a_disk_that_fills_up_while_publishing_costs_nothing_that_was_staged(
    out: Path, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    before = contents(out)
    move = os.replace

    def fill_up(source: Path, target: Path) -> None:
        if Path(target).parent.name == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        move(source, target)

    with claimed(out) as output:
        batch = finished(output, e=4)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fill_up)
            with pytest.raises(OutputError, match=f"{out} cannot be written: No space left"):
                output.batches.publish(batch, OPTIONS, new_name())
    with claimed(out) as output:
        assert contents(out) == before
        assert files_of(out)["tags"] == files_of(out)["scores"] == files_of(out)["recordings"]
        [span] = output.staging.spans().values()
        assert span == batch[0].spans[0]
        output.batches.publish([Finished(row_of("e", 4), [span])], OPTIONS, new_name())
    assert contents(out, without="e") == before
    assert [row["chunk"] for row in rows(out, "scores") if row["recording"] == "e"] == [0, 1, 2, 3]


def test_a_batch_without_its_recordings_file_does_not_count_and_is_published_again_from_what_is_staged(
    tmp_path: Path,
) -> None:
    with claimed(tmp_path) as output:
        publish(output, a=3)
        before = contents(tmp_path)
        stage(output, b=5)
        shutil.copytree(tmp_path / "_staged", tmp_path / "kept")
        [span] = output.staging.spans().values()
        name = new_name()
        output.batches.publish([Finished(row_of("b", 5), [span])], OPTIONS, name)
        complete = contents(tmp_path)
    (tmp_path / "recordings" / name).unlink()
    shutil.copytree(tmp_path / "kept", tmp_path / "_staged", dirs_exist_ok=True)
    with claimed(tmp_path) as output:
        assert contents(tmp_path) == before
        [span] = output.staging.spans().values()
        output.batches.publish([Finished(row_of("b", 5), [span])], OPTIONS, new_name())
    assert contents(tmp_path) == complete


def test_removing_recordings_leaves_the_others_as_they_were(out: Path) -> None:
    before = contents(out, without="d")
    untouched = {path: path.read_bytes() for path in out.glob("*/*.parquet") if holds(out, path.name, "a")}
    assert len(untouched) == 3
    with claimed(out) as output:
        output.batches.remove({"d", "never heard of"})
    assert contents(out) == before
    for path, content in untouched.items():
        assert path.read_bytes() == content
    for table, schema in (("tags", schemas.TAGS), ("scores", schemas.SCORES), ("recordings", schemas.RECORDINGS)):
        for path in (out / table).iterdir():
            assert pq.read_schema(path).equals(schema)
            assert pq.read_schema(path).field(0) == schema.field(0)


def holds(folder: Path, name: str, recording: str) -> bool:
    return recording in pq.read_table(folder / "recordings" / name)["recording"].to_pylist()


def test_removing_all_recordings_of_a_batch_leaves_the_other_batch(out: Path) -> None:
    before = [row for row in rows(out, "tags") if row["recording"] in "ab"]
    with claimed(out) as output:
        output.batches.remove({"c", "d"})
        output.batches.remove(set())
    assert rows(out, "tags") == before
    with claimed(out) as output:
        assert sorted(output.batches.recordings(["recording"])["recording"].to_pylist()) == ["a", "b"]
    assert len(pd.read_parquet(out / "tags")) == len(before)


@pytest.mark.slow
@pytest.mark.parametrize("new", ["0.parquet", "z.parquet"], ids=["new name first", "old name first"])
def test_a_run_that_dies_while_it_removes_recordings_has_removed_all_or_nothing(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: str
) -> None:
    whole = Path(shutil.copytree(out, tmp_path / "whole"))
    before, after = contents(out), contents(out, without="b")
    monkeypatch.setattr(batches, "new_name", lambda: new)
    seen = Counter[bool]()
    for moment in range(100):
        out = Path(shutil.copytree(whole, tmp_path / str(moment)))
        with suppress(Dies), claimed(out) as output, dying_at(moment):
            output.batches.remove({"b"})
            break
        removed = "b" not in Tables(out, scores=False).recordings  # before another run has put things right
        with claimed(out) as output:
            assert contents(out) == after or (contents(out) == before and not removed)
            seen[contents(out) == after] += 1
            assert files_of(out)["tags"] == files_of(out)["scores"] == files_of(out)["recordings"]
            assert not (out / "_swap").exists()
            output.batches.remove({"b"})
        assert contents(out) == after
    assert seen[False] > 3
    assert seen[True] > 3


class Dies(BaseException):
    """Raised in the place of a kill."""


@contextmanager
def dying_at(moment: int) -> Iterator[None]:
    """Raise `Dies` before the change to a file with this number, from 0; files are moved, or removed."""
    changes = count()

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **given: Any) -> Any:
            if next(changes) == moment:
                raise Dies
            return function(*args, **given)

        return change

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", before(os.replace))
        patch.setattr(Path, "unlink", before(Path.unlink))
        yield


def test_temporary_files_of_a_run_that_died_are_removed(out: Path) -> None:
    before = files_of(out)
    for table in TABLES:
        (out / table / ".abc.parquet.12345678").write_bytes(b"half a table")
    (out / "_staged").mkdir()
    (out / "_staged" / ".abc.parquet.12345678").write_bytes(b"half a table")
    assert len(pd.read_parquet(out / "tags")) == expected_tags()  # nobody sees them meanwhile
    with claimed(out) as output:
        assert files_of(out) == before
        assert list((out / "_staged").iterdir()) == []
        assert output.staging.spans() == {}


def test_finishing_leaves_nothing_but_the_tables(out: Path) -> None:
    with claimed(out) as output:
        stage(output, e=1)
        output.finish()
    assert {path.name for path in out.iterdir()} - {".lock"} == {"run.json", "runs", *TABLES}


def test_a_worker_that_outlives_its_run_stages_nothing(out: Path) -> None:
    with claimed(out) as output:
        output.finish()
    with pytest.raises(OutputError, match=f"{out} cannot be written"):
        stage(output, e=1)
    assert {path.name for path in out.iterdir()} - {".lock"} == {"run.json", "runs", *TABLES}


def test_rows_of_a_run_that_was_overtaken_are_refused(out: Path) -> None:
    before = contents(out)
    with claimed(out, {"id": "two", "identity": IDENTITY}) as output:
        with pytest.raises(OutputError, match="taken over by another run"):
            output.batches.publish(finished(output, e=1), OPTIONS, new_name())
        publish(output, replace(OPTIONS, run_id="two"), f=1)
    with claimed(out):
        assert contents(out, without="f") == before


# Whose folder it is


def test_a_run_is_written_down(out: Path) -> None:
    assert json.loads((out / "run.json").read_text()) == RUN == Output(out).run()


def test_a_folder_without_a_run_has_none(tmp_path: Path) -> None:
    assert Output(tmp_path / "nowhere").run() is None
    assert len(Output(tmp_path / "nowhere").batches.recordings()) == 0


@pytest.mark.parametrize(("key", "value"), [("model_sha256", "def"), ("threshold", 0.1), ("scores", False), ("new", 1)])
def test_tables_of_another_model_or_other_options_are_an_error_that_says_what_differs(
    out: Path, key: str, value: object
) -> None:
    before = contents(out)
    other = {"id": "two", "identity": {**IDENTITY, key: value}}
    with pytest.raises(OutputError) as caught, claimed(out, other):
        pass
    assert f"{key} {IDENTITY.get(key)!r}, now {value!r}" in str(caught.value)
    assert not any(f"{same} " in str(caught.value) for same in IDENTITY if same != key)
    assert contents(out) == before
    assert Output(out).run() == RUN


def test_tables_of_other_options_can_be_overwritten(out: Path) -> None:
    other = {"id": "two", "identity": {**IDENTITY, "threshold": 0.9}}
    with claimed(out) as output:
        stage(output, left=1)
    with claimed(out, other, overwrite=True) as output:
        assert contents(out) == {table: [] for table in TABLES}
        assert output.staging.spans() == {}
        publish(output, replace(OPTIONS, run_id="two"), e=2)
    assert {row["recording"] for row in rows(out, "recordings")} == {"e"}
    assert Output(out).run() == other


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_tables_but_no_run_is_not_touched(out: Path, overwrite: bool) -> None:
    (out / "run.json").unlink()
    before = contents(out)
    reason = r"tags and scores and recordings but no run\.json"
    with pytest.raises(OutputError, match=reason), claimed(out, overwrite=overwrite):
        pass
    assert contents(out) == before


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with claimed(tmp_path) as output:
        publish(output, a=1)
        output.finish()
    with claimed(tmp_path, overwrite=True):
        pass
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_can_be_claimed_once_at_a_time(out: Path) -> None:
    held = pytest.raises(OutputError, match="is being written by another satpipe")
    with claimed(out), held, claimed(out):
        pass
    with claimed(out):
        assert len(rows(out, "recordings")) == 4


def test_a_claim_ends_with_an_error_too(out: Path) -> None:
    with pytest.raises(ZeroDivisionError), claimed(out):
        raise ZeroDivisionError
    with claimed(out):
        assert len(rows(out, "recordings")) == 4


@pytest.mark.parametrize("below", ["", "out", "out/deeper"])
def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"), claimed(tmp_path / "file" / below):
        pass
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="run as a user other than root, who may write everywhere")
def test_a_folder_that_may_not_be_written_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot be written: Permission denied"), claimed(tmp_path):
            pass
    finally:
        tmp_path.chmod(0o700)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"no table" * 10, "cut off": content[: len(content) // 2]}[how])


@pytest.mark.parametrize("how", ["empty", "text", "cut off"])
def test_a_recordings_file_that_cannot_be_read_is_named(out: Path, how: str) -> None:
    path = sorted((out / "recordings").iterdir())[1]
    damage(path, how)
    with pytest.raises(OutputError, match=str(path)):
        Output(out).batches.recordings()
    with pytest.raises(OutputError, match=str(path)), claimed(out):
        pass


@pytest.mark.parametrize("table", ["tags", "scores"])
@pytest.mark.parametrize("how", ["empty", "text", "cut off"])
def test_a_table_that_cannot_be_rewritten_is_named(out: Path, table: str, how: str) -> None:
    [path] = [path for path in (out / table).iterdir() if holds(out, path.name, "a")]
    damage(path, how)
    with claimed(out) as output, pytest.raises(OutputError, match=str(path)):
        output.batches.remove({"a"})
    with claimed(out) as output:
        assert sorted(output.batches.recordings()["recording"].to_pylist()) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("how", ["empty", "text", "cut off"])
def test_a_staged_file_that_cannot_be_read_is_named_and_then_done_without(out: Path, how: str) -> None:
    with claimed(out) as output:
        batch = finished(output, e=4)
        [path] = (out / "_staged").iterdir()
        damage(path, how)
        with pytest.raises(OutputError, match=str(path)):
            output.batches.publish(batch, OPTIONS, new_name())
        assert output.staging.spans() == {}
        assert not path.exists()


def test_bytes_that_changed_within_a_table_are_an_error_that_names_it(out: Path) -> None:
    [path] = [path for path in (out / "scores").iterdir() if holds(out, path.name, "d")]
    content = bytearray(path.read_bytes())
    content[1000:3000] = bytes(2000)
    path.write_bytes(content)
    with claimed(out) as output, pytest.raises(OutputError, match=str(path)):
        output.batches.remove({"c"})


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "{}"])
def test_a_run_file_that_is_not_one_is_an_error(out: Path, content: str) -> None:
    (out / "run.json").write_text(content)
    with pytest.raises(OutputError), claimed(out):
        pass
    assert len(rows(out, "recordings")) == 4


def test_tables_of_a_version_without_warnings_are_read_and_continued(out: Path) -> None:
    for path in (out / "recordings").iterdir():
        table = pq.ParquetFile(path).read().drop_columns(["warnings", *schemas.MADE])
        pq.write_table(table.replace_schema_metadata({files.PLACE: f"recordings/{path.name}"}), path)
    assert Tables(out, scores=False).table["warnings"].to_pylist() == [[]] * 4
    warning = "size corrected: the header states 44 bytes"
    with claimed(out) as output:
        [e] = finished(output, e=2)
        e.row["warnings"] = [warning]
        output.batches.publish([e], OPTIONS, new_name())
    for path in (out / "recordings").iterdir():
        assert pq.read_schema(path).equals(schemas.RECORDINGS)
    known = pd.read_parquet(out / "recordings").set_index("recording").warnings
    assert {name: list(texts) for name, texts in known.items()} == {"a": [], "b": [], "c": [], "d": [], "e": [warning]}


def test_warnings_are_shown_by_status(out: Path, satpipe_here: Satpipe) -> None:
    for path in (out / "recordings").iterdir():
        table = pq.ParquetFile(path).read()
        texts = [["size corrected: a: 44 bytes", "size corrected: b: 0 bytes"], []]
        place = table.column_names.index("warnings")
        schema = schemas.RECORDINGS.with_metadata(table.schema.metadata)
        pq.write_table(table.set_column(place, "warnings", pa.array(texts)).cast(schema), path)
    lines = satpipe_here("status", out).stdout.splitlines()
    assert "recordings with warnings: 2 size corrected; all texts are in the column warnings" in lines[-3]
    assert sorted(lines[-2:]) == [f"  {name}: size corrected: a: 44 bytes; size corrected: b: 0 bytes" for name in "ac"]


def test_a_table_is_empty_until_something_is_published(tmp_path: Path) -> None:
    with claimed(tmp_path) as output:
        assert output.batches.recordings().schema.equals(schemas.RECORDINGS)
        assert output.batches.recordings(["recording", "status"]).schema.names == ["recording", "status"]
        assert isinstance(output.batches.recordings(), pa.Table)


def test_recordings_of_one_unit_can_be_published_in_two_batches(out: Path) -> None:
    with claimed(out) as output:
        first, second = finished(output, e=4, f=5)
        output.batches.publish([first], OPTIONS, new_name())
        output.batches.publish([second], OPTIONS, new_name())
        output.finish()
    table = pd.read_parquet(out / "scores").astype({"recording": str})
    assert dict(table.groupby("recording").size().loc[["e", "f"]]) == {"e": 4, "f": 5}
    assert not (out / "_staged").exists()
