"""`satpipe search`: the nearest chunks to an example, compared with another way to find them."""

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import satpipe
import soundfile
import synthetic_year
import torch
import without_ray
from satpipe.jobs.ground_truth.strong_labels import read_strong
from satpipe.pipeline.tables.schemas import HITS
from satpipe.sat.model.outputs import split
from satpipe.sat.model.streaming import StreamingTagger
from satpipe.sat.printable import counted
from tag_tables import EXAMPLES, samples_16k

BIRDS, SPEECH = "birds_48k_stereo.opus", "speech_16k_mono.WAV"
Values = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, tagged with embeddings."""
    out = tmp_path_factory.mktemp("search") / "out"
    assert without_ray.satpipe("tag", EXAMPLES, "-o", out, "--embeddings").returncode == 0
    return out


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day of embeddings by rule, in two files with several row groups."""
    folder = tmp_path_factory.mktemp("day")
    synthetic_year.write_embeddings(folder, days=2, sites=("meadow",))
    return folder


def read(out: Path) -> tuple[pd.DataFrame, Values]:
    """All chunks, sorted, and the directions of their embeddings."""
    table = pd.read_parquet(out / "embeddings").astype({"recording": str})
    table = table.sort_values(["recording", "chunk"], ignore_index=True)
    vectors = np.stack(table.embedding).astype(np.float64)
    return table, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def direction(vectors: Values) -> Values:
    mean = vectors.mean(0)
    return np.asarray(mean / np.linalg.norm(mean))


def runs(table: pd.DataFrame, scores: Values, number: int) -> pd.DataFrame:
    """The hits for the similarity of each chunk, found chunk by chunk."""
    best = table.assign(score=scores).nlargest(number, "score").sort_values(["recording", "chunk"])
    hits: list[list[object]] = []
    before = ("", -2)
    for row in best.itertuples():
        if (row.recording, row.chunk) == (before[0], before[1] + 1):
            hits[-1][2:] = row.end_s, max(hits[-1][3], row.score)
        else:
            hits.append([row.recording, row.start_s, row.end_s, row.score])
        before = (row.recording, row.chunk)
    frame = pd.DataFrame(hits, columns=["recording", "start_s", "end_s", "score"])
    return frame.sort_values("score", ascending=False, ignore_index=True)


def assert_hits(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    columns = ["recording", "start_s", "end_s"]
    found = found.astype({"recording": str})
    pd.testing.assert_frame_equal(found[columns], expected[columns])
    np.testing.assert_allclose(found.score, expected.score, atol=1e-5)


@pytest.mark.parametrize("number", [1, 30, 2500])
def test_hits_are_those_of_a_comparison_of_everything(day: Path, number: int) -> None:
    table, vectors = read(day)
    name = "meadow/20250101_050000.WAV"
    own = ((table.recording == name) & (table.end_s > 100) & (table.start_s < 106)).to_numpy()
    assert 3 <= own.sum() <= 5
    scores = vectors @ direction(vectors[own])
    scores[own] = -1
    found = satpipe.search(day, like_recording=name, start_s=100, end_s=106, number=number)
    assert_hits(found, runs(table, scores, number))
    assert set(found.label) == {"20250101_050000"}
    first = found.iloc[0]
    hour = pd.Timestamp(str(first.recording)[7:22].replace("_", "T"), tz="UTC")
    assert first.time == (hour + pd.Timedelta(seconds=first.start_s)).round("us")


def test_only_what_is_selected_is_searched(day: Path) -> None:
    table, vectors = read(day)
    name = "meadow/20250101_050000.WAV"
    scores = vectors @ direction(vectors[((table.recording == name) & (table.chunk == 0)).to_numpy()])
    wanted = table.recording.str.match(r"meadow/20250101_.*") & (table.recording >= "meadow/20250101_220000.WAV")
    hits = runs(table[wanted], scores[wanted], 20)
    options = {"like_recording": name, "end_s": 1.5, "number": 20, "label": "frog"}
    found = satpipe.search(day, **options, recordings="meadow/20250101*", since="2025-01-01T22:00")
    assert_hits(found, hits)
    assert set(found.label) == {"frog"}
    assert len(satpipe.search(day, **options, until="2024-01-01")) == 0


def test_a_file_finds_the_recording_it_is_from(out: Path, tmp_path: Path) -> None:
    done = without_ray.satpipe("search", out, "--like", EXAMPLES / BIRDS, "-n", 6, "-o", tmp_path / "hits.csv")
    assert done.returncode == 0, done.stderr
    *lines, last, written = done.stdout.splitlines()
    assert lines[0].endswith(BIRDS)
    assert last == f"{counted(len(lines), 'hit')} with 6 of 61 chunks"
    assert written == str(tmp_path / "hits.csv")
    table, vectors = read(out)
    model = satpipe.load_model("bundled")
    tagger = StreamingTagger(model, embeddings=True)
    outputs = torch.cat([tagger.push(samples_16k(EXAMPLES / BIRDS)), tagger.finish()])
    example = split(outputs)[1].double().numpy()
    lengths = (table.end_s - table.start_s)[(table.recording == BIRDS).to_numpy()].to_numpy()
    weighted = direction(example / np.linalg.norm(example, axis=1, keepdims=True) * lengths[:, None])
    frame = pd.read_csv(tmp_path / "hits.csv")
    assert list(frame.columns) == HITS.names
    expected = runs(table, vectors @ weighted, 6)
    pd.testing.assert_frame_equal(frame[["recording", "start_s"]], expected[["recording", "start_s"]])
    np.testing.assert_allclose(frame.score, expected.score, atol=1e-3)
    satpipe_hits = satpipe.search(out, like=EXAMPLES / BIRDS, number=6)
    assert_hits(satpipe_hits.assign(score=satpipe_hits.score.round(4)), frame)


def test_hits_are_labelled_stretches(out: Path, tmp_path: Path) -> None:
    for ending in ("csv", "tsv", "parquet"):
        path = tmp_path / f"hits.{ending}"
        done = without_ray.satpipe("search", out, "--like-recording", SPEECH, "--label", "Speech", "-o", path)
        assert done.returncode == 0, done.stderr
    frame = pd.read_parquet(tmp_path / "hits.parquet")
    truth = read_strong(tmp_path / "hits.csv")
    assert len(truth.events) == len(frame) > 3
    assert SPEECH not in set(frame.recording)


def test_of_several_examples_the_nearest_one_counts_and_gives_the_label(out: Path) -> None:
    each = {name: satpipe.search(out, like=EXAMPLES / name, number=61) for name in (BIRDS, SPEECH)}
    both = satpipe.search(out, like=[EXAMPLES / BIRDS, EXAMPLES / SPEECH], number=4)
    assert set(both.label) == {"birds_48k_stereo", "speech_16k_mono"}
    assert both.score.iloc[0] == pytest.approx(max(frame.score.iloc[0] for frame in each.values()), abs=1e-6)
    assert {str(row.recording) for row in both.itertuples()} == {BIRDS, SPEECH}


def test_what_cannot_be_searched_for_is_an_error_that_says_why(out: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", samples_16k(EXAMPLES / SPEECH)[:8000], 16_000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(40_000), 16_000)
    (tmp_path / "noise.wav").write_bytes(b"noise")
    (tmp_path / "empty").mkdir()
    birds = EXAMPLES / BIRDS
    cases: list[tuple[tuple[object, ...], str]] = [
        ((), "ConfigError: search needs an example: --like FILE, or --like-recording NAME"),
        (("--like", birds, "--like-recording", BIRDS), "ConfigError: search needs an example"),
        (("--like", tmp_path / "short.wav"), "the example is 0.50 s long, but must be at least as"),
        (("--like", birds, "--start-s", 2, "--end-s", 3), "the example is 1.00 s long, but must be at least as"),
        (("--like", tmp_path / "silent.wav"), "silent.wav: the example is silent from 0.00 s to 2.50 s"),
        (("--like", tmp_path / "noise.wav"), "AudioError: " + str(tmp_path / "noise.wav")),
        (("--like", tmp_path / "none.wav"), "none.wav not found"),
        (("--like", tmp_path / "empty"), "ConfigError: no sound files in "),
        (("--like", birds, "--start-s", 900), "AudioError: " + str(birds) + ": it has no audio there"),
        (("--like", birds, "--start-s", 3, "--end-s", 2), "ConfigError: --end-s 2 must be after --start-s 3"),
        (("--like", birds, "--like", EXAMPLES / SPEECH, "--start-s", 1), "--start-s and --end-s apply to a single"),
        (("--like-recording", "owl.wav"), "has no recording owl.wav"),
        (("--like-recording", "*"), "ConfigError: --like-recording must be one recording, not *"),
        (("--like-recording", BIRDS, "--start-s", 900), "has no chunks of birds_48k_stereo.opus in this part"),
        (("--like", birds, "-o", tmp_path / "hits.txt"), "hits.txt: the name of a table must end in .parquet"),
        (("--like", birds, "--model", "bundled_1s"), "bundled_1s"),
    ]  # fmt: skip
    for arguments, message in cases:
        done = without_ray.satpipe("search", out, *arguments)
        assert (done.returncode, message in done.stderr) == (1, True), (arguments, done.stderr)


def test_a_folder_without_embeddings_or_of_another_model_is_an_error(out: Path, tmp_path: Path) -> None:
    other = shutil.copytree(out, tmp_path / "out")
    run = json.loads((other / "run.json").read_text())
    run["identity"]["model_sha256"] = "0" * 64
    (other / "run.json").write_text(json.dumps(run))
    with pytest.raises(
        satpipe.ConfigError, match=r"bundled \(sha256 \w{12}\) is not the model of .*; --model names it"
    ):
        satpipe.search(other, like=EXAMPLES / BIRDS)
    (other / "run.json").write_text(json.dumps(run | {"embeddings": 0}))
    shutil.rmtree(other / "embeddings")
    with pytest.raises(satpipe.OutputError, match="has no embeddings: `satpipe tag --embeddings` with the same"):
        satpipe.search(other, like=EXAMPLES / BIRDS)
