"""Training sets: audio and label tables in, Parquet shards out, batches from them."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from audio import noise, write
from conftest import Satpipe
from satpipe.jobs.train.prepare import label, prepare
from satpipe.pipeline.training_data.feed import Feed, labelled_segments, whole_clips
from satpipe.pipeline.training_data.listing import list_clips
from satpipe.pipeline.training_data.shards import Shards, ShardWriter, decode_clip, write_shard
from satpipe.pipeline.training_data.teachers import (
    ChunkLabels,
    SegmentOptions,
    Segments,
    from_table,
    load_teacher,
    segment_starts_s,
)
from satpipe.sat.errors import CheckpointError, ConfigError, OutputError
from small_models import efficientat_state
from training import make_clips, write_all, write_labels, write_teacher


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips") / "audio")


@pytest.fixture(scope="module")
def table(audio: Path) -> Path:
    path = audio.parent / "labels.csv"
    rows = [f'{n:03}.flac,"{("Speech", "Dog;Bark", "/m/0jbk,137")[n % 3]}"' for n in range(12)]
    path.write_text("path,labels\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def shards(audio: Path, table: Path) -> Shards:
    return write_all(audio, audio.parent / "shards", table=table)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "full.safetensors")


@pytest.fixture(scope="module")
def psl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("psl") / "labels"


@pytest.fixture(scope="module")
def pieces(shards: Shards, teacher: Path, psl: Path) -> Segments:
    return write_labels(shards, psl, teacher)


def test_every_clip_is_in_one_shard_as_it_was(audio: Path, shards: Shards) -> None:
    assert sorted(shards.clips) == sorted(path.name for path in audio.iterdir())
    assert Counter(shards.places[:, 0].tolist()) == {0: 4, 1: 4, 2: 4}
    data = shards.audio(np.array([5, 0, 11]))
    assert data[5] == (audio / shards.clips[5]).read_bytes()
    assert shards.labels[shards.by_name["001.flac"]] == [74, 75]
    assert shards.labels[shards.by_name["002.flac"]] == [72, 137]  # Animal; Music


def test_shards_are_about_equally_large(tmp_path: Path) -> None:
    folder = make_clips(tmp_path / "audio", 40, 1.0)
    writer = ShardWriter(tmp_path / "out", list_clips(str(folder)), 10)
    sizes = [sum(item.size_bytes for item in shard) for shard in writer.shards]
    assert [len(shard) for shard in writer.shards] == [10] * 4
    assert max(sizes) < 1.1 * min(sizes)


def test_broken_and_missing_clips_are_counted_and_listed(tmp_path: Path) -> None:
    folder = make_clips(tmp_path / "audio", 3)
    (folder / "noise.wav").write_bytes(b"no audio")
    whole = (folder / "000.flac").read_bytes()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    table = tmp_path / "labels.tsv"
    names = ["000.flac", "noise.wav", "cut.flac", "gone.wav"]
    table.write_text("file\tlabels\tsplit\n" + "".join(f"{n}\tSpeech;Spech\ta\n" for n in names) + "001.flac\tDog\tb\n")
    listing = list_clips(str(folder), table, where=[("split", "a")])
    assert listing.missing == ["gone.wav"]
    assert listing.unknown == {"Spech": 3}
    assert listing.unlabelled == 2
    writer = ShardWriter(tmp_path / "out", listing, 10)
    clips, problems = write_shard(writer.shards[0], writer.location(0))
    assert clips == 1
    assert problems.keys() == {"noise.wav", "cut.flac"}
    assert Shards(tmp_path / "out").problems == problems


def test_long_files_are_cut(tmp_path: Path) -> None:
    folder = make_clips(tmp_path / "audio", 1, 24.0)
    shards = write_all(folder, tmp_path / "out")
    assert list(shards.clips) == ["000.flac#0", "000.flac#10", "000.flac#20"]
    assert shards.durations_s.tolist() == [10.0, 10.0, 4.0]
    original, _ = soundfile.read(folder / "000.flac", dtype="float32")
    samples, rate_hz = decode_clip(shards.audio(np.array([1]))[1])
    assert rate_hz == 16_000
    np.testing.assert_allclose(samples, original[160_000:320_000], atol=1e-4)


def test_a_clip_whose_header_is_wrong_is_whole(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    content = write(tmp_path / "audio" / "a.mp3", noise(4 * 16_000)).read_bytes()
    at = content.index(b"Xing") + 8
    (tmp_path / "audio" / "a.mp3").write_bytes(content[:at] + (20).to_bytes(4, "big") + content[at + 4 :])
    shards = write_all(tmp_path / "audio", tmp_path / "out")
    samples, rate_hz = decode_clip(shards.audio(np.array([0]))[0])
    assert len(samples) == 4 * rate_hz


def test_audiosets_csvs(tmp_path: Path) -> None:
    folder = make_clips(tmp_path / "audio", 3)
    (folder / "000.flac").rename(folder / "--aE2O5G5WE.flac")
    (folder / "001.flac").rename(folder / "Y_bcdefghij_.flac")
    (folder / "002.flac").rename(folder / "abc_efghijk_30.000_40.000.flac")
    segments = tmp_path / "eval_segments.csv"
    segments.write_text(
        "# Segments csv created Sun Mar  5 10:54:25 2017\n# num_ytids=4\n# YTID, start_seconds, ..., positive_labels\n"
        '--aE2O5G5WE, 0.000, 10.000, "/m/03fwl,/m/04rlf"\n_bcdefghij_, 30.000, 40.000, "/m/09x0r"\n'
        'abc_efghijk, 30.000, 40.000, "/m/0bt9lr"\nnot_there__, 0.000, 10.000, "/m/09x0r"\n'
    )
    listing = list_clips(str(folder), segments=segments)
    assert {item.name: item.labels for item in listing.clips} == {
        "--aE2O5G5WE": (95, 137), "_bcdefghij_": (0,), "abc_efghijk": (74,)
    }  # fmt: skip
    assert listing.missing == ["not_there__"]


def test_what_does_not_match_is_said(audio: Path, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("path,labels\nelsewhere/a.wav,Dog\n")
    with pytest.raises(ConfigError, match=r"has 1 clip, of which .* has none: .* is 'elsewhere/a.wav'.*000.flac"):
        list_clips(str(audio), tmp_path / "other.csv")
    (tmp_path / "no.csv").write_text("name,labels\na.wav,Dog\n")
    with pytest.raises(ConfigError, match="has no column of paths .* it has name, labels"):
        list_clips(str(audio), tmp_path / "no.csv")
    (tmp_path / "twice.csv").write_text("path,labels\n000.flac,Dog\n000.flac,Dog\n")
    with pytest.raises(ConfigError, match="names 1 clip more than once"):
        list_clips(str(audio), tmp_path / "twice.csv")
    with pytest.raises(ConfigError, match="has no column fold"):
        list_clips(str(audio), tmp_path / "other.csv", where=[("fold", "1")])
    with pytest.raises(ConfigError, match="run `satpipe prepare` first"):
        Shards(tmp_path)


def test_other_clips_need_another_folder(audio: Path, tmp_path: Path) -> None:
    write_all(audio, tmp_path / "out")
    with pytest.raises(OutputError, match="contains shards of other clips"):
        ShardWriter(tmp_path / "out", list_clips(str(make_clips(tmp_path / "audio", 2))), 5)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_run_that_was_stopped_makes_only_the_missing_shards(audio: Path, tmp_path: Path) -> None:
    first = prepare(str(audio), tmp_path / "out", clips_per_shard=5)
    files = Shards(tmp_path / "out").files
    before = {path: path.stat().st_mtime_ns for path in files}
    files[1].unlink()
    with pytest.raises(ConfigError, match="has only 2 of 3 files"):
        Shards(tmp_path / "out")
    made = []
    again = prepare(str(audio), tmp_path / "out", clips_per_shard=5, report=lambda *n: made.append(n))
    assert made[-1] == (1, 1)
    assert again.clips == first.clips == 12
    assert [path for path in files if path.stat().st_mtime_ns != before[path]] == [files[1]]


@pytest.mark.slow
def test_the_commands(audio: Path, table: Path, teacher: Path, satpipe_here: Satpipe, tmp_path: Path) -> None:
    done = satpipe_here("prepare", audio, "-o", "set", "--table", table, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 clips in" in done.stdout
    assert "522 of the model's classes never occur" in done.stdout
    label = ("psl", "set", "-o", "psl", "--teacher", teacher, "--top-k", 5)
    assert "psl contains the labels of" in satpipe_here(*label, cwd=tmp_path).stdout
    assert satpipe_here(*label, cwd=tmp_path).returncode == 0  # nothing is left to do
    other = satpipe_here(*label, "--piece-s", 2, cwd=tmp_path)
    assert other.returncode == 1
    assert "contains labels made with another piece_s: 4.0, not 2.0" in other.stderr
    assert json.loads((tmp_path / "psl" / "psl.json").read_text())["top_k"] == 5


def test_pieces_cover_a_clip() -> None:
    options = SegmentOptions(piece_s=4, hop_s=2)
    assert segment_starts_s(1.0, options) == [0]
    assert segment_starts_s(4.0, options) == [0]
    assert segment_starts_s(4.1, options) == [0, 2]
    assert segment_starts_s(10.0, options) == [0, 2, 4, 6]


def test_a_teachers_scores_come_back_as_soft_labels(shards: Shards, pieces: Segments, teacher: Path) -> None:
    assert pieces.segment_s == 4.0
    number = int(np.nonzero(pieces.starts_s == 2.0)[0][0])
    samples, _ = decode_clip(shards.audio(pieces.numbers[[number]])[int(pieces.numbers[number])], 16_000)
    piece = torch.from_numpy(samples[32_000:96_000])[None]
    expected = load_teacher(str(teacher)).scores(torch.nn.functional.pad(piece, (0, 64_000 - piece.shape[1])))[0]
    expected[expected < expected.topk(10).values.min()] = 0
    np.testing.assert_allclose(pieces.labels(np.array([number]))[0], expected.numpy(), atol=1e-4)


def test_each_chunk_of_a_segment_is_labelled_with_the_chunks_before_it(shards: Shards, tmp_path: Path) -> None:
    weights = tmp_path / "teacher.pt"
    torch.save(efficientat_state(), weights)
    options = SegmentOptions(piece_s=2.88, hop_s=0.96, chunk_s=0.96, context_chunks=1, top_k=527)
    segments = write_labels(shards, tmp_path / "labels", weights, options)
    assert segments.segment_s == pytest.approx(2.88)
    chunks = ChunkLabels(tmp_path / "labels", shards, segments, chunk_s=0.96, chunks=3, context_chunks=1)
    rows = pq.read_table(tmp_path / "labels" / "chunks-00000-of-00003.parquet").to_pandas()
    assert not rows.duplicated(["clip", "start_s", "end_s"]).any()  # segments share the labels of their chunks
    assert sorted({round(float(length), 2) for length in rows["end_s"] - rows["start_s"]}) == [0.96, 1.92]
    number = int(np.nonzero(segments.starts_s > 1.9)[0][0])
    clip = int(segments.numbers[number])
    samples = torch.from_numpy(shards.decode(clip, shards.audio(np.array([clip]))[clip], 32_000))
    found = chunks.labels(np.array([number]))[0]
    for chunk, (first, end) in enumerate([(0, 1), (0, 2), (1, 3)]):
        begin = float(segments.starts_s[number]) + first * 0.96
        heard = samples[round(begin * 32_000) : round((begin + (end - first) * 0.96) * 32_000)]
        np.testing.assert_allclose(found[chunk], load_teacher(str(weights)).scores(heard[None])[0], atol=2e-3)
    both = labelled_segments(shards, segments, chunks=chunks).labels
    assert both is not None
    np.testing.assert_array_equal(both(np.array([number]))[0], [*segments.labels(np.array([number])), *found])
    with pytest.raises(ConfigError, match=r"no labels of the chunks of .* segments, .*`satpipe psl --piece-s 2.88 "):
        ChunkLabels(tmp_path / "labels", shards, segments, chunk_s=0.96, chunks=3, context_chunks=0)


def test_labels_without_chunks_say_how_chunks_are_labelled(shards: Shards, pieces: Segments, psl: Path) -> None:
    with pytest.raises(ConfigError, match="run `satpipe psl --piece-s 4 --chunk-s 1.92 --context-chunks 1` first"):
        ChunkLabels(psl, shards, pieces, chunk_s=1.92, chunks=2, context_chunks=1)
    with pytest.raises(ConfigError, match="--chunk-s must be at most --piece-s, 4 s, not 5 s"):
        SegmentOptions(chunk_s=5)


def test_a_table_can_be_the_teacher(shards: Shards, tmp_path: Path) -> None:
    import pandas as pd

    rows = [
        {"path": clip, "kind": kind, "start_s": 0.0, "end_s": 4.0, "index": [3, 1], "score": [0.9, 0.2]}
        for clip in [*shards.clips[:11], "other.wav"]
        for kind in ("window", "clip")
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "scores.parquet")
    table, lacking = from_table(tmp_path / "scores.parquet", set(shards.clips), (("kind", "window"),))
    assert len(table) == 11
    assert lacking == [shards.clips[11]]
    with pytest.raises(ConfigError, match="has no column split"):
        from_table(tmp_path / "scores.parquet", set(shards.clips), (("split", "a"),))
    with pytest.raises(ConfigError, match="have no clip in common"):
        from_table(tmp_path / "scores.parquet", {"x.wav"})
    with pytest.raises(
        ConfigError, match="--chunk-s needs a teacher that hears the clips; .*scores.parquet is a table"
    ):
        label(shards.folder, tmp_path / "psl", str(tmp_path / "scores.parquet"), SegmentOptions(chunk_s=1.92))


def test_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="checkpoint .* not found"):
        load_teacher(str(tmp_path / "none.pt"))
    (tmp_path / "noise.pt").write_bytes(b"noise")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_teacher(str(tmp_path / "noise.pt"))


def test_a_teacher_is_not_given_more_than_it_reads(shards: Shards, tmp_path: Path) -> None:
    torch.save(efficientat_state(), tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match="the delay of efficientat must be 0.16 s to 10 s, not 12 s"):
        label(str(shards.folder), str(tmp_path / "labels"), str(tmp_path / "weights.pt"), SegmentOptions(piece_s=12))


def feed(shards: Shards, *, rank: int = 0, world: int = 1, balance: float = 0.0, per_epoch: int = 0) -> Feed:
    examples = whole_clips(shards, labelled=True, balance=balance)
    return Feed(examples, crop_samples=48_000, batch=2, per_epoch=per_epoch, seed=7, rank=rank, world=world)


def test_an_epoch_draws_every_clip_once_over_all_workers(shards: Shards) -> None:
    drawn = [clip for rank in range(2) for batch in feed(shards, rank=rank, world=2).epoch(0) for clip in batch.clips]
    assert sorted(drawn) == sorted(shards.clips)
    other = [clip for rank in range(2) for batch in feed(shards, rank=rank, world=2).epoch(1) for clip in batch.clips]
    assert other != drawn


def test_an_epoch_continues_on_the_same_batches(shards: Shards) -> None:
    whole = list(feed(shards).epoch(3))
    rest = list(feed(shards).epoch(3, first=4))
    assert [batch.clips for batch in rest] == [batch.clips for batch in whole[4:]]
    assert all(bool((a.inputs == b.inputs).all()) for a, b in zip(rest, whole[4:], strict=True))
    assert whole[0].inputs.shape == (2, 48_000)
    assert whole[0].labels is not None


def test_rare_labels_are_drawn_more_often(tmp_path: Path) -> None:
    folder = make_clips(tmp_path / "audio", 12, 0.3)
    table = tmp_path / "labels.csv"
    table.write_text("path,labels\n" + "".join(f"{n:03}.flac,{'Dog' if n == 5 else 'Speech'}\n" for n in range(12)))
    shards = write_all(folder, tmp_path / "out", table=table)
    rare = feed(shards, balance=1.0, per_epoch=2)
    drawn = Counter(clip for epoch in range(60) for batch in rare.epoch(epoch) for clip in batch.clips)
    assert drawn["005.flac"] > 2.5 * max(count for clip, count in drawn.items() if clip != "005.flac")
    assert all(batch.clips[0] != batch.clips[1] for epoch in range(60) for batch in rare.epoch(epoch))
    for per_epoch in (0, 12, 24):  # the whole set, or more: drawn with replacement
        repeated = feed(shards, balance=1.0, per_epoch=per_epoch)
        assert repeated.steps == (per_epoch or 12) // 2
        drawn = Counter(clip for epoch in range(20) for batch in repeated.epoch(epoch) for clip in batch.clips)
        assert drawn["005.flac"] > 0.35 * sum(drawn.values())


def test_too_few_examples_for_a_batch(shards: Shards) -> None:
    with pytest.raises(ConfigError, match="an epoch has 4 examples, fewer than a batch of 6: lower batch"):
        feed(shards, world=3, per_epoch=4)


def test_labels_of_other_clips_are_refused(pieces: Segments, tmp_path: Path, teacher: Path, shards: Shards) -> None:
    others = write_all(make_clips(tmp_path / "audio", 2), tmp_path / "out")
    write_labels(shards, tmp_path / "labels", teacher)
    with pytest.raises(ConfigError, match="labels of 10 clips that are not in .*: the two do not belong together"):
        Segments(tmp_path / "labels", others)


def test_bytes_that_are_no_audio() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(100), 8000, format="WAV")
    assert decode_clip(file.getvalue(), 16_000)[0].shape == (200,)
