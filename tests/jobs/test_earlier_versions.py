"""Output folders of earlier and later versions: read as they are, continued with nothing tagged again, or refused."""

import json
import os
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import satpipe as api
import soundfile
from conftest import Satpipe
from satpipe.pipeline.tables import schemas
from satpipe.pipeline.tables.files import PROGRESS, read_run
from satpipe.pipeline.tables.upgrade import upgrade
from satpipe.sat.errors import OutputError
from tag_tables import EXAMPLES

OLD = Path(__file__).parents[1] / "out_0_1_0"
FIRST, SECOND = "airport/20250501_120000.mp3", "night/20250501_213000.opus"
SOURCES = {FIRST: "airport/jet_landing_32k_stereo.mp3", SECOND: "night/thunder_48k_mono.opus"}
CHANGED_NS = 1_746_100_000_123_456_789
NEW = "night/20250502_010000.wav"
TABLES = ("tags", "scores", "embeddings", "recordings", "own/mine")
OLD_RUN = json.loads((OLD / "run.json").read_text())["id"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old") / "recordings"
    for name, source in SOURCES.items():
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(EXAMPLES / source, folder / name)
        os.utime(folder / name, ns=(CHANGED_NS, CHANGED_NS))
    soundfile.write(folder / NEW, 0.1 * np.random.default_rng(0).standard_normal(48_000), 16_000)
    return folder


def copied(folder: Path) -> Path:
    shutil.copytree(OLD, folder)
    return folder


@pytest.fixture(scope="module")
def continued(satpipe_here: Satpipe, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = copied(tmp_path_factory.mktemp("continued") / "out")
    done = satpipe_here("tag", recordings, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "found: 3 recordings; to tag: 1 (" in done.stdout
    assert "\ntagged 3 s in " in done.stdout
    assert "without tagging anything again" in done.stdout
    return out


@pytest.fixture(scope="module")
def halfway(continued: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of both versions in each table: all recordings, but those of 0.1.0 as it wrote them."""
    out = tmp_path_factory.mktemp("halfway") / "out"
    shutil.copytree(continued, out)
    for table in ("scores", "embeddings", "recordings", "own/mine"):
        shutil.copytree(OLD / table, out / table, dirs_exist_ok=True)
    return out


@pytest.fixture(params=["as it was", "continued", "halfway"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "as it was":
        return copied(tmp_path / "out")
    folder: Path = request.getfixturevalue(request.param)
    shutil.copytree(folder, tmp_path / "out")
    return tmp_path / "out"


def frame(out: Path, table: str) -> pd.DataFrame:
    """Return a table as any reader of Parquet sees it, in an order that does not depend on its files."""
    rows = pd.read_parquet(out / table)
    order = [name for name in ("recording", "chunk", "mid") if name in rows]
    return rows.astype({name: str for name in order if name != "chunk"}).sort_values(order, ignore_index=True)


def test_a_folder_of_0_1_0_is_continued_with_nothing_tagged_again(continued: Path) -> None:
    for table in TABLES:
        new, old = frame(continued, table), frame(OLD, table)
        kept = new[new.recording != NEW].reset_index(drop=True)
        assert set(kept.run_id.astype(str)) == {OLD_RUN}
        assert set(new[new.recording == NEW].run_id.astype(str)) == {read_run(continued)["id"]}
        assert set(new.model.astype(str)) == {"SAT_T_2s@57db588cd292"}
        same = [name for name in old if name not in ("scores", "embedding", "files", "warnings", "modified")]
        pd.testing.assert_frame_equal(kept[same], old[same])
        for name in {"scores", "embedding"} & set(old):
            np.testing.assert_array_equal(np.stack(kept[name]), np.stack(old[name]))
    kept = {path.stem: json.loads(path.read_text()) for path in (continued / "runs").iterdir()}
    assert set(kept) == {OLD_RUN, read_run(continued)["id"]}
    assert all(run["identity"] == read_run(OLD)["identity"] for run in kept.values())


def test_all_files_of_a_continued_folder_have_one_schema(continued: Path) -> None:
    for table in TABLES:
        paths = list((continued / table).iterdir())
        assert len(paths) == 2
        wanted = schemas.SCHEMAS.get(table, schemas.TAGS)
        for path in paths:
            assert pq.read_schema(path).equals(wanted)
            assert pq.read_metadata(path).metadata[b"satpipe.schema"] == b"2"


def test_pandas_duckdb_and_polars_read_a_continued_folder(continued: Path) -> None:
    for table in TABLES:
        rows, files = len(pd.read_parquet(continued / table)), str(continued / table / "*.parquet")
        names = pq.read_schema(next((continued / table).iterdir())).names
        assert list(pd.read_parquet(continued / table)) == names
        found = duckdb.sql(f"SELECT * FROM '{files}'")
        assert (found.columns, len(found.fetchall())) == (names, rows)
        assert pl.read_parquet(files).shape == (rows, len(names))
    changed = pd.read_parquet(continued / "recordings").set_index("recording").modified
    assert changed[FIRST] == pd.Timestamp(CHANGED_NS // 1000, unit="us", tz="UTC")
    scores = pl.read_parquet(str(continued / "scores" / "*.parquet"))["scores"]
    assert scores.dtype == pl.Array(pl.Float32, 527)


def test_commands_read_folders_of_either_version_and_of_both(
    satpipe_here: Satpipe, out: Path, recordings: Path
) -> None:
    truth = out.parent / "truth.tsv"
    truth.write_text(f"filename\tonset\toffset\tevent_label\n{SECOND}\t0.0\t9.0\tThunder\n{FIRST}\t0\t9\tAircraft\n")
    for command in (
        ("events", out, "-o", out.parent / "events.csv", "--threshold", 0.3),
        ("events", out, "-o", out.parent / "own.csv", "--own", "mine", "--threshold", 0.01),
        ("activity", out, "-o", out.parent / "activity.csv", "--by", "hour", "--threshold", 0.3),
        ("report", out, "-o", out.parent / "report.html", "--no-audio"),
        ("evaluate", out, "--strong", truth, "--classes", "527", "-o", out.parent / "results"),
        ("status", out, "--check"),
        ("search", out, "--like-recording", SECOND, "-n", 3, "-o", out.parent / "hits.csv"),
    ):
        done = satpipe_here(*command)
        assert done.returncode == 0, (command[0], done.stderr)
    events = pd.read_csv(out.parent / "events.csv")
    assert events.recording.nunique() >= 2
    assert "Thunder" in set(events[events.recording == SECOND].label)
    assert set(pd.read_csv(out.parent / "own.csv").label) == {"hiss", "siren"}
    assert pd.read_csv(out.parent / "hits.csv").recording[0] == FIRST


def test_data_frames_of_folders_of_either_version_and_of_both_are_the_same(out: Path) -> None:
    known = [FIRST, SECOND]
    scores, old = (api.read_scores(folder, recordings=known) for folder in (out, OLD))
    pd.testing.assert_frame_equal(scores, old)
    tags, old = (api.read_tags(folder, recordings=known) for folder in (out, OLD))
    pd.testing.assert_frame_equal(tags, old)
    own, old = (api.read_tags(folder, recordings=known, own="mine") for folder in (out, OLD))
    pd.testing.assert_frame_equal(own, old)
    embeddings, old = (api.read_embeddings(folder, recordings=known) for folder in (out, OLD))
    pd.testing.assert_frame_equal(embeddings, old)
    columns = ["recording", "duration_s", "status", "modified", "time", "tags", "chunks"]
    rows, old = (api.read_recordings(folder, recordings=known)[columns] for folder in (out, OLD))
    pd.testing.assert_frame_equal(rows, old)


def test_classify_brings_a_folder_to_the_present_version(satpipe_here: Satpipe, tmp_path: Path) -> None:
    out = copied(tmp_path / "out")
    other = shutil.copy(out / "own" / "mine.safetensors", tmp_path / "other.safetensors")
    done = satpipe_here("classify", out, "--own-classes", other)
    assert done.returncode == 0, done.stderr
    for table in (*TABLES, "own/other"):
        assert pq.read_metadata(next((out / table).iterdir())).metadata[b"satpipe.schema"] == b"2"
    (run_id,) = set(frame(out, "own/other").run_id)
    assert run_id != OLD_RUN
    kept = json.loads((out / "runs" / f"{run_id}.json").read_text())
    assert kept["own_classes"]["name"] == "other"
    runs = sorted((out / "runs").iterdir())
    assert satpipe_here("classify", out, "--own-classes", other).returncode == 0  # scores nothing, leaves nothing
    assert sorted((out / "runs").iterdir()) == runs


def test_a_change_of_version_that_was_interrupted_is_continued(continued: Path, halfway: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(halfway, out)
    upgrade(out, read_run(OLD) or {})
    for table in TABLES:
        pd.testing.assert_frame_equal(frame(out, table), frame(continued, table))


def test_a_run_that_tags_nothing_leaves_nothing(satpipe_here: Satpipe, continued: Path, recordings: Path) -> None:
    def files() -> dict[Path, bytes]:
        found = {path: path.read_bytes() for path in continued.rglob("*") if path.is_file()}
        return found | {continued / name: b"" for name in ("run.json", PROGRESS)}  # of the last run

    before = files()
    for _ in range(2):
        done = satpipe_here("tag", recordings, "-o", continued)
        assert done.returncode == 0, done.stderr
        assert "earlier version" not in done.stdout
    assert files() == before


def test_tables_of_a_newer_satpipe_are_refused_and_kept(
    satpipe_here: Satpipe, continued: Path, recordings: Path, tmp_path: Path
) -> None:
    for table in ("recordings", "scores"):
        out = tmp_path / table
        shutil.copytree(continued, out)
        path = sorted((out / table).iterdir())[0]
        content = pq.ParquetFile(path).read()
        newer = pa.array(["x"] * len(content))
        stated = {**content.schema.metadata, b"satpipe.schema": b"3"}
        pq.write_table(content.append_column("more", newer).replace_schema_metadata(stated), path)
        before = path.read_bytes()
        for command in (
            ("tag", recordings, "-o", out),
            ("events", out, "-o", tmp_path / "events.csv"),
            ("status", out, "--check"),
        ):
            done = satpipe_here(*command)
            assert done.returncode == 1, (command[0], done.stdout, done.stderr)
            assert f"{path} was written by a newer satpipe" in done.stderr
            assert "Install the newer satpipe, or name another folder" in done.stderr
        assert path.read_bytes() == before
        with pytest.raises(OutputError, match="newer satpipe"):
            api.read_scores(out)
