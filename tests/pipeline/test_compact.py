"""`satpipe compact`: few large files with the same rows, whatever happens meanwhile."""

import json
import os
import shutil
import signal
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import synthetic_year
from conftest import Satpipe
from forked import Forked
from killed import compact_until
from outputs import RUN, scores_of, set_clock, write_output
from satpipe.pipeline.tables import compact as module
from satpipe.pipeline.tables.compact import compact
from satpipe.pipeline.tables.dataframes import read_embeddings, read_recordings, read_scores, read_tags
from satpipe.pipeline.tables.files import read_run
from satpipe.pipeline.tables.output_folder import Output
from satpipe.sat.errors import DamageError
from satpipe.sat.model.config import BUNDLED
from satpipe.sat.own_classes import OwnClasses, to_bytes
from satpipe.sat.weights.registry import load_checkpoint
from tag_tables import assert_same_tables

NIGHTS = 12  # from 27 May on: the fifth is of May and June
FIRST = datetime(2025, 5, 27, 20, tzinfo=UTC)
KILLS = 12


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder after nightly runs of two recorders; the last batch has a recording whose start is not known."""
    out = tmp_path_factory.mktemp("nights") / "out"
    clock, batches = {}, []
    for night in range(NIGHTS):
        batch = {}
        for site in ("pond", "hill"):
            for hour in (0, 5):
                name, values = f"{site}/{night:02}_{hour}.wav", np.linspace(0.9, 0.2, 3 + night % 4)
                batch[name] = scores_of(len(values), Bird=values.tolist(), Speech=[0.6])
                clock[name] = (FIRST + timedelta(days=night, hours=hour), None)
        batches.append(batch)
    batches[-1]["undated.wav"] = scores_of(2, Bird=[0.7])
    batches[-1]["empty.wav"] = scores_of(0)
    write_output(out, *batches)
    set_clock(out, clock)
    output = Output(out)
    output.note(RUN | {"batches": output.batches.names})
    return out


@pytest.fixture
def out(nights: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(nights, tmp_path / "out"))


def files(out: Path, table: str) -> set[str]:
    return {path.name for path in (out / table).iterdir()}


def test_many_files_become_one_for_each_month_with_the_same_rows(
    nights: Path, out: Path, satpipe_here: Satpipe
) -> None:
    done = satpipe_here("compact", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: files of each table: 12 before, 3 now\n"
    assert done.stderr.splitlines() == [
        "2 files of several months are cut",
        "2025-05: 5 files are put together",
        "2025-06: 7 files are put together",
    ]
    assert_same_tables(out, nights)
    assert files(out, "tags") == files(out, "scores") == files(out, "recordings") == set(read_run(out)["batches"])
    assert not (out / "_swap").exists()
    of_files = f"SELECT count(DISTINCT month(time)) FROM read_parquet('{out}/recordings/*.parquet', filename = true)"
    assert sorted(duckdb.sql(f"{of_files} GROUP BY filename").fetchall()) == [(0,), (1,), (1,)]
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*.parquet")}
    assert satpipe_here("compact", out, "-q").stdout == ""
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*.parquet")} == before
    assert satpipe_here("status", out, "--check").returncode == 0


def test_a_query_of_a_month_reads_its_files_only(nights: Path, out: Path) -> None:
    compact(out)
    june = "time >= '2025-06-01' AND time < '2025-07-01'"
    query = f"""
        SELECT recording, chunk, label FROM read_parquet('{{0}}/tags/*.parquet', filename = true) AS tags
        JOIN (
            SELECT recording, time, replace(filename, '/recordings/', '/tags/') AS filename
            FROM read_parquet('{{0}}/recordings/*.parquet', filename = true)
        ) AS recordings USING (recording, filename)
        WHERE {june} ORDER BY ALL"""
    wanted = duckdb.sql(query.format(nights)).fetchall()
    assert wanted
    plan = duckdb.sql("EXPLAIN ANALYZE " + query.format(out)).fetchall()[0][1]
    assert plan.count("Total Files Read: 1") == 1, plan
    assert duckdb.sql(query.format(out)).fetchall() == wanted


def test_files_are_large_but_not_too_large(nights: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size_bytes = 3 * max(path.stat().st_size for path in out.glob("[ts]*/*"))
    monkeypatch.setattr(module, "FILE_BYTES", size_bytes)
    done = compact(out)
    sizes = sorted(path.stat().st_size for path in out.glob("[ts]*/*"))
    assert 3 < done.after < done.before == NIGHTS
    assert sizes[-1] <= size_bytes
    assert_same_tables(out, nights)
    assert compact(out).after <= done.after


@pytest.mark.slow
def test_kills_at_any_change_to_a_file_change_nothing(nights: Path, tmp_path: Path) -> None:
    counted, places = tmp_path / "count", [tmp_path / str(number) for number in range(KILLS)]
    whole = shutil.copytree(nights, tmp_path / "whole")
    assert Forked(tmp_path / "printed", compact_until, None, whole, counted).ends() == 0
    moments = np.linspace(0, int(counted.read_text()) - 1, KILLS).astype(int)
    states = set()
    for moment, out in zip(moments.tolist(), places, strict=True):
        shutil.copytree(nights, out)
        assert Forked(tmp_path / "printed", compact_until, moment, out, counted).ends() == -signal.SIGKILL
        states.add((out / "_swap" / "swap.json").exists())
        pd.testing.assert_frame_equal(read_recordings(out), read_recordings(nights))
        pd.testing.assert_frame_equal(read_tags(out), read_tags(nights))
        pd.testing.assert_frame_equal(read_scores(out), read_scores(nights))
        assert compact(out).after == 3
        assert_same_tables(out, nights)
        assert files(out, "tags") == files(out, "scores") == files(out, "recordings")
    assert states == {True, False}


@pytest.mark.slow
def test_a_reader_in_the_middle_sees_all_rows_once(nights: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before many changes to files: satpipe's readers, and one that takes the names of the files from run.json."""
    tags = duckdb.sql(f"SELECT count(*) FROM '{nights}/tags/*.parquet'").fetchall()
    recordings, looks, changes = read_recordings(nights), [], count()

    def look() -> None:
        if next(changes) % 9:
            return
        pd.testing.assert_frame_equal(read_recordings(out), recordings)
        names = json.loads((out / "run.json").read_text())["batches"]
        paths = [str(out / "tags" / name) for name in names]
        assert duckdb.sql(f"SELECT count(*) FROM read_parquet({paths})").fetchall() == tags
        looks.append(len(names))

    replace, unlink = os.replace, Path.unlink
    monkeypatch.setattr(os, "replace", lambda *args: (look(), replace(*args))[1])
    monkeypatch.setattr(Path, "unlink", lambda *args, **given: (look(), unlink(*args, **given))[1])
    compact(out)
    assert max(looks) > min(looks) == 3


def test_a_folder_that_is_written_to_is_left_alone(out: Path, satpipe_here: Satpipe) -> None:
    before = files(out, "tags")
    with Output(out).locked():
        done = satpipe_here("compact", out)
    assert done.returncode == 1
    assert "is being written by another satpipe" in done.stderr
    assert files(out, "tags") == before


def test_damaged_tables_are_named_and_no_row_is_lost(out: Path) -> None:
    before, path = read_tags(out), max((out / "scores").iterdir())
    content = bytearray(path.read_bytes())
    content[100:400] = bytes(300)
    path.write_bytes(content)
    with pytest.raises(DamageError, match=str(path)):
        compact(out)
    pd.testing.assert_frame_equal(read_tags(out), before)
    path.unlink()
    with pytest.raises(DamageError, match=str(path)):
        compact(out)
    assert len(files(out, "tags")) == len(files(out, "recordings")) > 3


@pytest.mark.slow
def test_embeddings_and_own_classes_are_put_together_too(
    tmp_path: Path, satpipe_here: Satpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic_year, "HOURS_PER_FILE", 12)
    out, model = tmp_path / "out", load_checkpoint(BUNDLED)
    synthetic_year.write_embeddings(out, 1, ("meadow",))
    weight = np.random.default_rng(0).normal(0, 0.1, (2, model.embedding_size))
    classes = OwnClasses(("gate", "owl"), (0.5, 0.5), model.sha256, model.config.name, 1.92, weight, np.zeros(2))
    (tmp_path / "mine.safetensors").write_bytes(to_bytes(classes))
    done = satpipe_here("classify", out, "--own-classes", tmp_path / "mine.safetensors")
    assert done.returncode == 0, done.stderr
    scored, frame = read_tags(out, own="mine"), read_embeddings(out)
    now = compact(out)
    assert (now.before, now.after) == (2, 1)
    assert files(out, "own/mine") == files(out, "embeddings") == files(out, "tags")
    pd.testing.assert_frame_equal(read_tags(out, own="mine"), scored)
    pd.testing.assert_frame_equal(read_embeddings(out), frame)
    assert satpipe_here("status", out, "--check").stdout == f"{out} is undamaged\n"
