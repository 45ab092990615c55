"""`satpipe tag --embeddings` as a person uses it: the table, how it is added to a folder, and who reads it."""

import json
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import satpipe
import torch
import without_ray
from satpipe.pipeline.tables import schemas
from satpipe.pipeline.tables.dataframes import read_embeddings, scan_embeddings
from satpipe.pipeline.tables.output_folder import Output
from satpipe.sat.errors import ConfigError, OutputError
from satpipe.sat.model.config import BUNDLED
from satpipe.sat.model.outputs import split
from satpipe.sat.model.streaming import StreamingTagger
from satpipe.sat.weights.external import EXTERNAL_TAGGERS
from satpipe.sat.weights.registry import load_checkpoint
from tag_tables import EXAMPLES, assert_same_tables, embeddings, make_recordings, samples_16k, scores


def tag(*arguments: object, code: int = 0) -> str:
    """What `satpipe tag` prints."""
    done = without_ray.satpipe("tag", *arguments)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings, `in`, tagged with embeddings, `out`, and without, `bare`."""
    folder = tmp_path_factory.mktemp("made")
    make_recordings(folder / "in", 3, 5)
    tag(folder / "in", "-o", folder / "out", "--embeddings")
    tag(folder / "in", "-o", folder / "bare")
    return folder


def test_the_table_holds_what_the_head_reads_in_half_precision(made: Path) -> None:
    table = embeddings(made / "out")
    model = load_checkpoint(BUNDLED).model()
    for name, rows in table.groupby("recording"):
        tagger = StreamingTagger(model, embeddings=True)
        samples = samples_16k(made / "in" / str(name))
        expected = split(torch.cat([tagger.push(samples), tagger.finish()]))[1].numpy()
        values = np.stack(rows.embedding)
        np.testing.assert_allclose(values, expected, rtol=2**-10, atol=1e-4)
        np.testing.assert_array_equal(values, values.astype(np.float16))
        assert np.abs(expected).max() > 0.5
    columns = ["recording", "chunk", "start_s", "end_s"]
    pd.testing.assert_frame_equal(table[columns], scores(made / "out")[columns])
    assert_same_tables(made / "out", made / "bare")
    assert not (made / "bare" / "embeddings").exists()
    [path] = (made / "out" / "embeddings").iterdir()
    file = pq.ParquetFile(path)
    assert file.schema_arrow.equals(schemas.EMBEDDINGS)
    column = file.metadata.row_group(0).column(4)
    assert (column.compression, "BYTE_STREAM_SPLIT" in column.encodings) == ("ZSTD", True)
    assert column.total_compressed_size / file.metadata.num_rows < 2.5 * 192  # of 4 bytes each


def test_pandas_duckdb_and_polars_read_the_table(made: Path) -> None:
    expected = np.stack(embeddings(made / "out").embedding)
    query = f"SELECT embedding FROM '{made / 'out' / 'embeddings' / '*.parquet'}' ORDER BY recording, chunk"
    np.testing.assert_array_equal(np.array([row[0] for row in duckdb.sql(query).fetchall()]), expected)
    table = pl.read_parquet(made / "out" / "embeddings")
    table = table.with_columns(pl.col("recording").cast(pl.String)).sort("recording", "chunk")
    np.testing.assert_array_equal(table["embedding"].to_numpy(), expected)


def test_the_readers_give_the_selected_chunks(made: Path) -> None:
    expected = embeddings(made / "out")
    frame = satpipe.read_embeddings(made / "out")
    assert list(frame.columns[:7]) == ["recording", "chunk", "start_s", "end_s", "time", "time_local", "e0"]
    np.testing.assert_array_equal(frame.loc[:, "e0":].to_numpy(), np.stack(expected.embedding))
    some = read_embeddings(made / "out", recordings=["002.wav", "000.wav"], start_s=2, end_s=3)
    assert some[["recording", "chunk"]].astype(str).values.tolist() == [["002.wav", "1"], ["000.wav", "1"]]
    np.testing.assert_array_equal(some.loc[0, "e0":], expected[expected.recording == "002.wav"].embedding.iloc[1])
    assert sum(map(len, scan_embeddings(made / "out", recordings="00[12].wav"))) == 6
    assert read_embeddings(made / "out", start_s=9).shape == (0, 6 + 192)
    with pytest.raises(OutputError, match=r"has no embeddings: `satpipe tag --embeddings` with the same recordings"):
        read_embeddings(made / "bare")


def test_a_folder_without_embeddings_gets_them_by_tagging_everything_again(made: Path, tmp_path: Path) -> None:
    out = shutil.copytree(made / "bare", tmp_path / "out")
    before = {path: path.read_bytes() for path in out.rglob("*.parquet")}
    said = "3 recordings (15 s) without embeddings: tagged again"
    assert said in tag(made / "in", "-o", out, "--embeddings", "--dry-run")
    error = tag(made / "in" / "000.wav", "-o", out, "--embeddings", code=1)
    assert "embeddings cannot be added without recordings that are not given here: 001.wav, 002.wav" in error
    assert {path: path.read_bytes() for path in out.rglob("*.parquet")} == before
    assert said in tag(made / "in", "-o", out, "--embeddings")
    assert_same_tables(out, made / "out")
    assert without_ray.satpipe("status", out, "--check").stdout == f"{out} is undamaged\n"
    assert "to tag: 0" in tag(made / "in", "-o", out, "--embeddings", "--dry-run")


def test_a_folder_with_embeddings_keeps_getting_them(made: Path, tmp_path: Path) -> None:
    out = shutil.copytree(made / "out", tmp_path / "out")
    more = shutil.copytree(made / "in", tmp_path / "in")
    shutil.copy(more / "000.wav", more / "003.wav")
    printed = tag(more, "-o", out)
    assert "to tag: 1 " in printed
    assert "note: the tables have embeddings: they are also written for what is tagged now" in printed
    table = embeddings(out)
    assert len(table) == len(scores(out)) == 12
    first, last = (np.stack(table[table.recording == name].embedding) for name in ("000.wav", "003.wav"))
    np.testing.assert_allclose(first, last, rtol=2**-10, atol=1e-4)
    (more / "001.wav").unlink()
    tag(more, "-o", out, "--prune")
    assert set(embeddings(out).recording) == {"000.wav", "002.wav", "003.wav"}
    assert without_ray.satpipe("status", out, "--check").returncode == 0
    tag(more, "-o", out, "--overwrite")
    assert not list((out / "embeddings").iterdir())
    assert json.loads((out / "run.json").read_text())["embeddings"] == 0


@pytest.mark.parametrize("at", [0, 1, 3])
def test_adding_embeddings_can_be_killed_at_any_time(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    out = shutil.copytree(made / "bare", tmp_path / "out")
    remaining, unlink = at, Path.unlink

    def die(path: Path, missing_ok: bool = False) -> None:
        nonlocal remaining
        remaining -= path.suffix == ".parquet"
        if remaining < 0:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        assert without_ray.satpipe("tag", made / "in", "-o", out, "--embeddings").returncode == 130
    tag(made / "in", "-o", out, "--embeddings")
    assert_same_tables(out, made / "out")
    assert without_ray.satpipe("status", out, "--check").returncode == 0


def test_what_was_staged_without_embeddings_is_tagged_again(tmp_path: Path) -> None:
    output = Output(tmp_path)
    with output.claim({"identity": {}}):
        with output.staging.stage() as file:
            file.conclude([])
        with output.staging.stage(8) as file:
            file.write(schemas.staged_table([0], [0], np.zeros((1, 535), np.float32)))
            file.conclude([])
        output.staging.spans(8)
        assert output.staging.count() == 1
        output.staging.spans()
        assert output.staging.count() == 0


def test_a_model_without_embeddings_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES.parent / "tagger")
    monkeypatch.setitem(EXTERNAL_TAGGERS, "loudness", "loudness:Loudness")
    make_recordings(tmp_path / "in", 1, 1)
    with pytest.raises(ConfigError, match="loudness has no embeddings"):
        satpipe.tag(tmp_path / "in", out=tmp_path / "out", model="loudness", embeddings=True)
    assert not (tmp_path / "out").exists()
