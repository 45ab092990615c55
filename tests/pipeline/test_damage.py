"""Damaged tables: found by `satpipe status --check`, refused by readers, repaired by `satpipe tag`."""

import json
import re
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import without_ray
from satpipe.pipeline.tables import batches
from satpipe.pipeline.tables.dataframes import (
    read_embeddings,
    read_recordings,
    read_scores,
    read_tags,
    scan_embeddings,
    scan_scores,
)
from satpipe.pipeline.tables.files import PLACE, is_ours
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.sat.errors import OutputError
from tag_tables import assert_same_tables, make_recordings, recordings, scores

TABLES = ("tags", "scores", "recordings", "embeddings")
FIRST, SECOND = ("000.wav", "001.wav"), ("002.wav", "003.wav")  # recordings of the two batches


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings, `in`, tagged into two batches, `out`."""
    folder = tmp_path_factory.mktemp("made")
    make_recordings(folder / "in", 4, 4.5)
    (folder / "some").mkdir()
    for name in FIRST:
        (folder / "some" / name).hardlink_to(folder / "in" / name)
    for source in ("some", "in"):
        assert without_ray.satpipe("tag", folder / source, "-o", folder / "out", "--embeddings").returncode == 0
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of the output folder."""
    shutil.copytree(made / "out", tmp_path / "out")
    return tmp_path / "out"


def file_of(out: Path, table: str, recording: str) -> Path:
    """The file of the batch that contains a recording."""
    [found] = [p for p in (out / "recordings").iterdir() if recording in pq.read_table(p)["recording"].to_pylist()]
    return out / table / found.name


def cut_off(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def emptied(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def missing(path: Path, _: Path) -> None:
    path.unlink()


def swapped(path: Path, other: Path) -> None:
    path.rename(path.with_suffix(".kept"))
    other.rename(path)
    path.with_suffix(".kept").rename(other)


def copied(path: Path, _: Path) -> None:
    shutil.copy(path, path.with_name("copy of it.parquet"))


def rewritten(path: Path, _: Path) -> None:
    """As by another program, with a row less."""
    table = pq.read_table(path)
    pq.write_table(table.slice(1).replace_schema_metadata({}), path)


DAMAGES = (cut_off, emptied, missing, swapped, copied, rewritten)
Damage = Callable[[Path, Path], None]


def tagged_again(out: Path, before: dict[str, set[str]]) -> set[str]:
    """The recordings in files that were not there before."""
    new = [path for path in (out / "recordings").iterdir() if path.name not in before]
    return {name for path in new for name in pq.read_table(path)["recording"].to_pylist()}


def held(out: Path) -> dict[str, set[str]]:
    return {p.name: set(pq.read_table(p)["recording"].to_pylist()) for p in (out / "recordings").iterdir()}


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/*.parquet")}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found_refused_and_repaired(made: Path, out: Path, table: str, damage: Damage) -> None:
    path, other = file_of(out, table, FIRST[0]), file_of(out, table, SECOND[0])
    untouched, before = files(out), held(out)
    damage(path, other)
    named = path.with_name("copy of it.parquet") if damage is copied else path

    done = without_ray.satpipe("status", out, "--check")
    assert done.returncode == 3
    *lines, last = done.stdout.splitlines()
    assert last == f"{len(lines)} problem{'s' if len(lines) > 1 else ''}"
    assert any(line.startswith(f"{named} ") for line in lines), lines
    assert (damage is swapped) == any(line.startswith(f"{other} ") for line in lines)

    reads_rows = {
        "tags": (read_tags,),
        "scores": (read_scores, lambda out: list(scan_scores(out))),
        "embeddings": (read_embeddings, lambda out: list(scan_embeddings(out))),
    }
    all_readers = (*(read for some in reads_rows.values() for read in some), read_recordings)
    for read in all_readers if damage in (missing, copied) else reads_rows.get(table, all_readers):
        with pytest.raises(OutputError, match=f"^({re.escape(str(named))}|{re.escape(str(other))}) "):
            read(out)

    done = without_ray.satpipe("tag", made / "in", "-o", out)
    assert done.returncode == 0, done.stderr
    assert f"damaged: {named} " in done.stdout
    assert_same_tables(out, made / "out")
    again = {copied: set(), swapped: {*FIRST, *SECOND}}.get(damage, set(FIRST))
    assert tagged_again(out, before) == again
    assert {path for path, time in files(out).items() if untouched.get(path) == time} == {
        path for path in untouched if not before[path.name] & again
    }
    assert without_ray.satpipe("status", out, "--check").returncode == 0
    assert "to tag: 0" in without_ray.satpipe("tag", made / "in", "-o", out, "--dry-run").stdout


def reported(out: Path) -> list[str]:
    """The problems that `status --check` lists."""
    done = without_ray.satpipe("status", out, "--check")
    lines = done.stdout.splitlines()
    assert done.returncode == (3 if len(lines) > 1 else 0), done.stderr
    return lines[:-1]


def flip_bits(path: Path, _: pa.Table) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def not_a_number(path: Path, table: pa.Table) -> None:
    field = table.schema.field(4)
    values = table[field.name].combine_chunks().flatten().to_numpy().copy()
    values[300] = float("nan")
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values), type=field.type)
    rewrite(path, table.set_column(4, field, lists))


def row_twice(path: Path, table: pa.Table) -> None:
    rewrite(path, table.take([0, *range(len(table) - 1)]))


def other_recording(path: Path, table: pa.Table) -> None:
    names = pa.array(["002.wav", *table["recording"].to_pylist()[1:]])
    rewrite(path, table.set_column(0, table.schema.field("recording"), names.cast(table.schema.field(0).type)))


def rewrite(path: Path, table: pa.Table) -> None:
    """As if satpipe had written it."""
    place = f"{path.parent.name}/{path.name}"
    pq.write_table(table.replace_schema_metadata({PLACE: place}), path, write_page_checksum=True)


@pytest.mark.parametrize(
    ("table", "damage", "problem"),
    [
        ("scores", flip_bits, "cannot be read"),
        ("scores", not_a_number, "has scores that are not numbers"),
        ("scores", row_twice, "has rows twice"),
        ("scores", other_recording, "has rows of recordings of another batch"),
        ("embeddings", flip_bits, "cannot be read"),
        ("embeddings", not_a_number, "has embeddings that are not numbers"),
        ("embeddings", row_twice, "has rows twice"),
    ],
)
def test_damage_within_a_file_is_found_by_a_check(
    made: Path, out: Path, table: str, damage: Callable[[Path, pa.Table], None], problem: str
) -> None:
    path = file_of(out, table, FIRST[0])
    damage(path, pq.read_table(path))
    [line] = reported(out)
    assert line.startswith(f"{path} {problem}")
    assert line.endswith("delete it, then `satpipe tag` with the same recordings repairs the tables")
    with pytest.raises(OutputError, match=f"^{re.escape(str(path))} "):
        {"scores": read_scores, "embeddings": read_embeddings}[table](out)
    path.unlink()
    before = held(out)
    assert without_ray.satpipe("tag", made / "in", "-o", out).returncode == 0
    assert_same_tables(out, made / "out")
    assert tagged_again(out, before) == set(FIRST)


def test_tags_of_unknown_classes_are_found_by_a_check(out: Path) -> None:
    path = file_of(out, "tags", FIRST[0])
    table = pq.read_table(path)
    column = table.schema.get_field_index("mid")
    mids = pa.array(["/m/none", *table["mid"].to_pylist()[1:]]).cast(table.schema.field(column).type)
    rewrite(path, table.set_column(column, table.schema.field(column), mids))
    assert reported(out)[0].startswith(f"{path} has rows of unknown classes: delete it")


def as_the_version_before(out: Path) -> None:
    """Tables as they were before files stated their place."""
    for path in out.glob("*/*.parquet"):
        table = pq.read_table(path).replace_schema_metadata({})
        pq.write_table(table.drop_columns(["tags"]) if path.parent.name == "recordings" else table, path)
    run_json = json.loads((out / "run.json").read_text())
    del run_json["batches"]
    (out / "run.json").write_text(json.dumps(run_json))


def test_tables_of_the_version_before_are_read_and_continued(made: Path, out: Path) -> None:
    as_the_version_before(out)
    assert reported(out) == []
    assert len(read_scores(out)) == len(scores(made / "out"))
    before = set(files(out))
    done = without_ray.satpipe("tag", made / "in", "-o", out)
    assert "to tag: 0" in done.stdout
    assert set(files(out)) == before
    assert reported(out) == []
    path, before = file_of(out, "scores", SECOND[0]), held(out)
    path.unlink()
    assert [line.startswith(f"{path} is missing") for line in reported(out)] == [True]
    assert without_ray.satpipe("tag", made / "in", "-o", out).returncode == 0
    assert tagged_again(out, before) == set(SECOND)
    ours, theirs = (recordings(each).drop(columns=["run_id", "tags"]) for each in (out, made / "out"))
    pd.testing.assert_frame_equal(ours, theirs)
    assert reported(out) == []


def test_recordings_that_are_not_given_are_not_given_up(made: Path, out: Path) -> None:
    """Damaged tables are repaired only if nothing in them is lost by it."""
    path = file_of(out, "tags", SECOND[0])
    path.unlink()
    before = files(out)
    done = without_ray.satpipe("tag", made / "some", "-o", out)
    assert done.returncode == 1
    assert f"{path} is missing" in done.stderr
    assert "without recordings that are not given here: 002.wav, 003.wav" in done.stderr
    assert files(out) == before
    assert without_ray.satpipe("tag", made / "some", "-o", out, "--prune").returncode == 0
    assert set(recordings(out).index) == set(FIRST)
    assert reported(out) == []


def test_a_batch_that_is_lost_as_a_whole_is_noticed(made: Path, out: Path) -> None:
    paths = [file_of(out, table, FIRST[0]) for table in TABLES]
    before = held(out)
    for path in paths:
        path.unlink()
    assert reported(out) == [f"{paths[2]} is missing: `satpipe tag` with the same recordings repairs it"]
    with pytest.raises(OutputError, match=f"{paths[2]} is missing"):
        Tables(out)
    assert without_ray.satpipe("tag", made / "in", "-o", out).returncode == 0
    assert tagged_again(out, before) == set(FIRST)
    assert_same_tables(out, made / "out")


def test_what_satpipe_did_not_write_stays_and_is_named(made: Path, out: Path) -> None:
    shutil.copytree(out / "tags", out / "tags" / "backup")
    (out / "scores" / "notes.txt").write_text("mine")
    (out / "tags" / ".DS_Store").write_text("the system's")
    expected = [
        f"{out}/{name} is not a file of satpipe: move it elsewhere" for name in ("tags/backup", "scores/notes.txt")
    ]
    assert reported(out) == expected
    done = without_ray.satpipe("tag", made / "in", "-o", out)
    assert (done.returncode, "damaged" in done.stdout) == (0, False)
    assert reported(out) == expected
    assert len(list((out / "tags" / "backup").iterdir())) == 2
    assert len(read_tags(out)) == len(pd.read_parquet(made / "out" / "tags"))
    mine = out / "tags" / "mine.parquet"
    pq.write_table(pa.table({"a": [1]}), mine)
    with pytest.raises(OutputError, match=f"{mine} has no file of this name in {out}/recordings: move it elsewhere"):
        read_tags(out)
    without_ray.satpipe("tag", made / "in", "-o", out)
    assert mine.exists()


def test_what_a_running_run_is_writing_is_no_damage(out: Path) -> None:
    about = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({key: value for key, value in about.items() if key != "finished"}))
    shutil.copy(file_of(out, "tags", FIRST[0]), out / "tags" / f"{'0' * 32}.parquet")
    assert reported(out) == []
    with pytest.warns(UserWarning, match="is not finished"):
        assert len(read_tags(out))


@pytest.mark.parametrize(
    "content",
    [
        b"[1, 2]",
        b"7",
        b"\xff",
        b'{"identity": 3}',
        b'{"labels": [1]}',
        b'{"model": []}',
        b'{"batches": "a"}',
        b'{"batches": [1]}',
        b"",
    ],
)
def test_a_run_file_of_another_kind_is_named(made: Path, out: Path, content: bytes) -> None:
    (out / "run.json").write_bytes(content)
    before = files(out)
    for arguments in (("status", out), ("status", out, "--check"), ("tag", made / "in", "-o", out), ("events", out)):
        done = without_ray.satpipe(*arguments)
        assert done.returncode == 1, arguments
        assert done.stderr.startswith(f"OutputError: {out / 'run.json'} ")
        assert len(done.stderr.splitlines()) == 1
    assert files(out) == before


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_repair_that_is_killed_is_continued(made: Path, out: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    file_of(out, "tags", FIRST[0]).unlink()
    before, asked = held(out), count()

    def die(path: Path) -> bool:
        if next(asked) == at:
            raise KeyboardInterrupt
        return is_ours(path)

    with monkeypatch.context() as patch:
        patch.setattr(batches, "is_ours", die)
        assert without_ray.satpipe("tag", made / "in", "-o", out).returncode != 0
    assert without_ray.satpipe("tag", made / "in", "-o", out).returncode == 0
    assert tagged_again(out, before) == set(FIRST)
    assert_same_tables(out, made / "out")
    assert reported(out) == []


def test_commands_that_read_scores_refuse_them(made: Path, out: Path, tmp_path: Path) -> None:
    path, other = (file_of(out, "scores", name) for name in (FIRST[0], SECOND[0]))
    swapped(path, other)
    truth = tmp_path / "truth.tsv"
    truth.write_text("filename\tonset\toffset\tevent_label\n000.wav\t0\t1\tSpeech\n002.wav\t1\t2\tSpeech\n")
    for arguments in (("events", out), ("report", out), ("evaluate", out, "--strong", truth)):
        done = without_ray.satpipe(*arguments)
        assert done.returncode == 1, arguments
        [error] = [line for line in done.stderr.splitlines() if line.startswith("DamageError: ")]
        assert str(path) in error or str(other) in error
        assert "originally" in error
