"""`satpipe stream`: the scores of `satpipe tag` on live audio; gaps are reported."""

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from audio import Samples, noise, write
from click.testing import CliRunner
from conftest import COMMAND, ROOT, Satpipe
from helpers import assert_same_scores, model_by_rule, sound, stream
from live_servers import AudioServer
from rounding import assert_scores_of, exact_scores
from satpipe.jobs.commands.main import cli, run
from satpipe.jobs.stream import StreamOptions, lines
from satpipe.pipeline.live.reader_thread import TOO_SLOW
from satpipe.pipeline.live.source import Gap
from satpipe.pipeline.live.tag_live import StreamChunk, StreamEnd, StreamGap, tag_sources
from satpipe.pipeline.recordings.resample import resampled
from satpipe.sat.errors import AudioError
from satpipe.sat.model.concurrent_streams import BatchTagger
from satpipe.sat.model.config import ModelConfig, get_config
from satpipe.sat.model.network import SAT, Memory
from satpipe.sat.weights.published import save
from satpipe.sat.weights.registry import load_checkpoint, load_model
from small_models import TINY, CountingSAT
from torch import Tensor

RATE_HZ = 16_000
CHUNK = TINY.chunk_samples
EXAMPLES = ROOT / "examples" / "recordings"


class Fed:
    """A source of the items of a test: samples, gaps, errors; seconds to wait."""

    def __init__(self, *items: Any, rate_hz: int = RATE_HZ, live: bool = False, name: str = "fed") -> None:
        self.items, self.rate_hz, self.live, self.name, self.channels = items, rate_hz, live, name, 1
        self.closed = False

    def blocks(self) -> Iterator[Samples | Gap]:
        for item in self.items:
            if isinstance(item, Exception):
                raise item
            if isinstance(item, float):
                time.sleep(item)
            else:
                yield item if isinstance(item, Gap) else np.asarray(item, np.float32).reshape(-1, 1)

    def close(self) -> None:
        self.closed = True


class Slow(SAT):
    """Needs some seconds per call."""

    def __init__(self, config: ModelConfig, seconds: float) -> None:
        super().__init__(config)
        self.seconds = seconds

    def embeddings(self, log_mel: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory | None]:
        time.sleep(self.seconds)
        return super().embeddings(log_mel, memory)


@pytest.fixture(scope="module")
def model() -> SAT:
    return model_by_rule(TINY)


def listened(model: SAT, *sources: Fed) -> list[StreamChunk | StreamGap | StreamEnd]:
    found = list(tag_sources(sources, BatchTagger(model)))
    assert all(source.closed for source in sources)
    return found


def heard(found: list[StreamChunk | StreamGap | StreamEnd]) -> list[StreamChunk]:
    return [row for row in found if isinstance(row, StreamChunk)]


def missed(found: list[StreamChunk | StreamGap | StreamEnd]) -> list[StreamGap]:
    return [row for row in found if isinstance(row, StreamGap)]


def ended(found: list[StreamChunk | StreamGap | StreamEnd]) -> StreamEnd:
    assert isinstance(found[-1], StreamEnd)
    return found[-1]


def scores(rows: list[StreamChunk]) -> Tensor:
    return torch.stack([row.scores for row in rows])


def test_a_short_gap_is_silence_and_the_memory_goes_on(model: SAT) -> None:
    first, second = sound(20_000, 0), sound(9_000, 1)
    found = listened(model, Fed(first, Gap(16_000, "lost"), second))
    filled = torch.cat([first, torch.zeros(16_000), second])
    assert_same_scores(scores(heard(found)), stream(model, filled), 1e-4)  # the silence begins within a window
    assert [(gap.start_s, gap.gap_s, gap.reason, gap.filled) for gap in missed(found)] == [(1.25, 1.0, "lost", True)]
    assert (ended(found).end_s, ended(found).gaps, ended(found).missed_s) == (45_000 / RATE_HZ, 1, 1.0)


def test_after_a_long_gap_chunks_and_memory_restart_and_time_continues(model: SAT) -> None:
    first, second = sound(2 * CHUNK + 3_000, 0), sound(CHUNK + 500, 1)
    gap = 16_001
    found = listened(model, Fed(first, Gap(gap, "lost"), *second.split(700)))
    exact = [exact_scores(model, recording) for recording in (first, second)]
    assert_same_scores(scores(heard(found)), torch.cat([e for e, _ in exact]), max(within for _, within in exact))
    start = len(first) + gap
    bounds = [(round(row.start_s * RATE_HZ, 6), round(row.end_s * RATE_HZ, 6)) for row in heard(found)]
    before = [(0, CHUNK), (CHUNK, 2 * CHUNK), (2 * CHUNK, len(first))]
    assert bounds == [*before, (start, start + CHUNK), (start + CHUNK, start + len(second))]
    assert [row.chunk for row in heard(found)] == [0, 1, 2, 3, 4]
    assert [isinstance(row, StreamGap) for row in found] == [False] * 3 + [True] + [False] * 3
    assert [(row.gap_s, row.filled) for row in missed(found)] == [(gap / RATE_HZ, False)]


def test_a_gap_of_unknown_length_is_reported(model: SAT) -> None:
    first, second = sound(7_000, 0), sound(9_000, 1)
    found = listened(model, Fed(first, Gap(0, "overflow"), second))
    assert [(gap.gap_s, gap.reason, gap.filled) for gap in missed(found)] == [(0.0, "overflow", True)]
    assert_same_scores(scores(heard(found)), stream(model, torch.cat([first, second])), 1e-4)


def test_time_does_not_drift_whatever_the_rate_and_however_many_gaps(model: SAT) -> None:
    rate_hz, block, gap = 44_100, 4_411, 50_021
    items = [item for _ in range(40) for item in (np.zeros(block), Gap(gap, "lost"))]
    found = listened(model, Fed(*items, rate_hz=rate_hz))
    starts = [resampled(number * (block + gap), rate_hz) / RATE_HZ for number in range(40)]
    assert [row.start_s for row in heard(found)] == starts
    for number, row in enumerate(heard(found)):
        assert row.end_s == (number * (block + gap) + block) / rate_hz
    assert ended(found).end_s == 40 * (block + gap) / rate_hz


def test_of_a_live_source_what_the_machine_is_too_slow_for_is_dropped_and_counted() -> None:
    model = Slow(TINY, 0.25).eval()  # for a chunk of 0.32 s, of which one arrives every 0.08 s
    blocks = [item for _ in range(60) for item in (0.025, sound(1_600))]
    found = list(tag_sources([Fed(*blocks, live=True)], BatchTagger(model), max_lag_s=0.1))
    gaps, end = missed(found), ended(found)
    assert len(gaps) >= 3
    assert {gap.reason for gap in gaps} == {TOO_SLOW}
    assert end.end_s == 6.0
    assert end.dropped_s == pytest.approx(sum(gap.gap_s for gap in gaps)) == pytest.approx(end.missed_s)
    at = 0.0
    for row in found[:-1]:  # every second is in a chunk, or in a gap that is too long to be filled
        assert not isinstance(row, StreamEnd)
        if isinstance(row, StreamGap) and row.filled:
            assert row.start_s >= at
            continue
        assert row.start_s == pytest.approx(at, abs=1e-4)
        at = row.start_s + row.gap_s if isinstance(row, StreamGap) else row.end_s
    assert at == pytest.approx(6.0)


def test_what_a_live_source_sends_in_bursts_is_not_dropped(model: SAT) -> None:
    recording = sound(12 * RATE_HZ)
    found = listened(model, Fed(*recording.split(1_600), live=True))
    assert missed(found) == []
    assert_scores_of(model, recording, scores(heard(found)))


def test_a_source_that_can_wait_loses_nothing() -> None:
    model = Slow(TINY, 0.02).eval()
    recording = sound(8 * RATE_HZ)  # twice what the queue holds
    found = listened(model, Fed(*recording.split(1_600)))
    assert missed(found) == []
    assert_scores_of(model, recording, scores(heard(found)))
    assert ended(found).dropped_s == 0


def test_sources_share_batches_and_one_that_breaks_off_does_not_disturb_the_others() -> None:
    model = CountingSAT(TINY).eval()
    recordings = [sound(10 * CHUNK, seed) for seed in range(4)]
    sources = [Fed(*recording.split(2_000), name=str(seed)) for seed, recording in enumerate(recordings)]
    found = listened(model, *sources, Fed(recordings[0][: 2 * CHUNK], AudioError("it is broken"), name="bad"))
    for source, recording in zip(sources, recordings, strict=True):
        rows = [row for row in heard(found) if row.source is source]
        assert [row.chunk for row in rows] == list(range(10))
        assert_scores_of(model, recording, scores(rows))
    ends = {row.source.name: (row.chunks, row.problem) for row in found if isinstance(row, StreamEnd)}
    assert ends == {"bad": (2, "it is broken"), **{str(seed): (10, "") for seed in range(4)}}
    batches = model.batches[: -4 * 10]  # without those of `stream` above
    assert sum(batches) == 42
    assert max(batches) >= 4


def test_a_chunk_does_not_wait_for_a_stream_that_is_silent(model: SAT) -> None:
    silent = Fed(0.6, sound(2 * CHUNK), name="silent")
    found = listened(model, silent, Fed(sound(4 * CHUNK), name="quick"))
    assert [row.source.name for row in heard(found)] == ["quick"] * 4 + ["silent"] * 2


def test_invalid_samples_become_silence_and_are_reported(model: SAT) -> None:
    recording = sound(CHUNK)
    bad = recording.clone()
    bad[4_000:4_010] = torch.nan
    recording[4_000:4_010] = 0
    found = listened(model, Fed(*bad.split(1_000)))
    assert_scores_of(model, recording, scores(heard(found)))
    assert ended(found).invalid_s == 0.25


def test_a_stopped_source_is_scored_as_far_as_it_was_read(model: SAT) -> None:
    source = Fed(sound(CHUNK + 4_000), 60.0, live=True)
    begun = time.monotonic()
    found = list(tag_sources([source], BatchTagger(model), lambda: time.monotonic() > begun + 0.3))
    assert time.monotonic() - begun < 30
    assert [row.end_s for row in heard(found)] == [CHUNK / RATE_HZ, (CHUNK + 4_000) / RATE_HZ]
    assert ended(found).problem == ""


def test_nothing_at_all_is_no_chunk(model: SAT) -> None:
    for items in ([], [np.zeros(0)], [Gap(100_000, "lost")]):
        found = listened(model, Fed(*items))
        assert heard(found) == []
        assert ended(found).chunks == 0


def test_the_time_of_day_is_that_of_the_chunks_end() -> None:
    model = Slow(TINY, 0.0).eval()
    before_s = time.time()
    size_s = CHUNK / RATE_HZ
    rows = heard(listened(model, Fed(0.2, sound(CHUNK), size_s, sound(CHUNK), 0.2, live=True)))
    assert 0.19 < rows[0].time_s - before_s < time.time() - before_s - size_s - 0.19
    assert size_s - 0.01 < rows[1].time_s - rows[0].time_s < time.time() - before_s - 0.39


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 s of real audio at 16 kHz, as 44.1 kHz stereo and as 48 kHz stereo."""
    folder = tmp_path_factory.mktemp("recordings")
    for name in ("speech_16k_mono.WAV", "music_44k1_stereo.flac", "birds_48k_stereo.opus"):
        path = next(EXAMPLES.rglob(name.partition(".")[0] + "*"))
        content, rate_hz = soundfile.read(path, dtype="int16")
        soundfile.write(folder / f"{path.stem}.wav", content[: 6 * rate_hz], rate_hz)
    return folder


@pytest.mark.slow
def test_the_rows_are_those_of_the_tables(
    satpipe_here: Satpipe, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = satpipe_here("tag", recordings, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    tags = pd.read_parquet(tmp_path / "out" / "tags")
    names = sorted(path.name for path in recordings.iterdir())
    with AudioServer([(recordings / names[0]).read_bytes()]) as server:
        given = {server.url: names[0], "-": names[1], str(recordings / names[2]): names[2]}
        with (recordings / names[1]).open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            ran = satpipe_here("stream", *given, "--idle-s", "1")
    assert ran.returncode == 0, ran.stderr
    printed = [json.loads(line) for line in ran.stdout.splitlines()]
    assert sum(line.get("event") == "end" for line in printed) == 3
    for source, name in given.items():
        ours = [
            (line["chunk"], line["start_s"], line["end_s"], tag["mid"], tag["label"], tag["score"])
            for line in printed
            if line["source"] == source and "tags" in line
            for tag in line["tags"]
        ]
        table = tags[tags.recording == name].sort_values(["chunk", "score"], ascending=[True, False])
        columns = ["chunk", "start_s", "end_s", "mid", "label", "score"]
        expected = list(table[columns].itertuples(index=False, name=None))
        assert len(expected) > 5
        assert sorted(row[:5] for row in ours) == sorted(row[:5] for row in expected)
        np.testing.assert_allclose(
            sorted(row[5] for row in ours), sorted(row[5] for row in expected), rtol=0, atol=1e-5
        )


@pytest.fixture(scope="module")
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """The command, three times, started at once."""
    command, pipe = [str(COMMAND), "stream", "--live"], subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(3)]
    yield list(started)
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def started(processes: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """The command, reading its standard input, with its first line read."""
    process = processes.pop()
    assert process.stdin
    assert process.stdout
    process.stdin.write(bytes(2 * 64_000))  # 4 s of silence
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["event"] == "start"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_what_was_heard(number: signal.Signals, started: subprocess.Popen[bytes]) -> None:
    assert started.stdout
    first = json.loads(started.stdout.readline())
    assert (first["chunk"], first["end_s"]) == (0, 1.92)
    assert first["lag_s"] < 60
    assert first["time"].endswith("+00:00")
    second = json.loads(started.stdout.readline())
    started.send_signal(number)
    out, errors = started.communicate(timeout=60)
    assert (started.returncode, errors) == (0, b"")
    third, end = map(json.loads, out.splitlines())
    assert [second["end_s"], third["end_s"], end["end_s"]] == [3.84, 4.0, 4.0]
    assert (end["chunks"], end["problem"]) == (3, "")


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_it_without_a_word(started: subprocess.Popen[bytes]) -> None:
    assert started.stdout
    assert started.stdin
    started.stdout.close()
    try:
        for _ in range(100):
            started.stdin.write(bytes(64_000))
            started.stdin.flush()
            time.sleep(0.1)
    except BrokenPipeError:
        pass
    assert started.wait(60) == 0
    assert started.stderr
    assert started.stderr.read() == b""


def told(options: StreamOptions) -> list[dict[str, Any]]:
    return list(lines(options))


def test_all_scores_are_printed_to_the_last_bit_and_tags_follow_threshold_and_number(recordings: Path) -> None:
    path = str(recordings / "speech_16k_mono.wav")
    options = StreamOptions(sources=(path,), idle_s=0, threshold=0.01, top_k=3, scores=True, embeddings=True)
    start, *rows, end = told(options)
    assert (start["model"], start["delay_s"], start["chunk_s"], start["memory"]) == ("SAT_T_2s", 2.0, 1.92, True)
    assert (start["rate_hz"], start["channels"], start["live"]) == (RATE_HZ, 1, False)
    recording, _ = soundfile.read(path, dtype="float32")
    model = load_checkpoint("bundled").model()
    assert_scores_of(model, torch.from_numpy(recording), torch.tensor([row["scores"] for row in rows]))
    assert all("time" not in row and "lag_s" not in row for row in rows)
    embeddings = torch.tensor([row["embedding"] for row in rows])
    with torch.inference_mode():
        torch.testing.assert_close(
            model.scores(embeddings), torch.tensor([row["scores"] for row in rows]), atol=1e-6, rtol=0
        )
    for row in rows:
        best = sorted(row["scores"], reverse=True)[:3]
        assert [tag["score"] for tag in row["tags"]] == [score for score in best if score >= 0.01]
        assert all(np.float32(score) == score or str(np.float32(score)) == repr(score) for score in best)
    assert (end["event"], end["chunks"], end["end_s"]) == ("end", len(rows), len(recording) / RATE_HZ)


def test_options_of_the_model_are_those_of_tag(recordings: Path) -> None:
    path = str(recordings / "speech_16k_mono.wav")
    usual = told(StreamOptions(sources=(path,), idle_s=0, scores=True))
    alone = told(StreamOptions(sources=(path,), idle_s=0, scores=True, memory="off"))
    script = told(StreamOptions(sources=(path,), idle_s=0, cut="script", precision="bf16"))
    assert alone[0]["memory"] is False
    assert alone[1]["scores"] == usual[1]["scores"]
    assert alone[2]["scores"] != usual[2]["scores"]
    assert [(row["chunk"], row["start_s"]) for row in script[1:-1]] == [(n, 2.0 * n) for n in range(3)]


def test_with_several_grids_there_is_a_line_for_each_hop(recordings: Path) -> None:
    path = str(recordings / "speech_16k_mono.wav")
    start, *rows, end = told(StreamOptions(sources=(path,), idle_s=0, scores=True, grids=4))
    assert (start["delay_s"], start["chunk_s"], start["grids"], start["wait_s"]) == (2.0, 0.48, 4, pytest.approx(1.44))
    recording, _ = soundfile.read(path, dtype="float32")
    expected = stream(load_model("bundled", grids=4), torch.from_numpy(recording))
    assert_same_scores(torch.tensor([row["scores"] for row in rows]), expected)
    assert [row["start_s"] for row in rows] == [hop * 7680 / RATE_HZ for hop in range(len(expected))]
    assert [row["end_s"] for row in rows] == [*(row["start_s"] for row in rows[1:]), len(recording) / RATE_HZ]
    assert end["chunks"] == len(rows) == 13


def test_a_stretch_waits_for_the_chunks_that_cover_it_and_its_time_is_that_of_its_end() -> None:
    model = Slow(TINY.with_grids(2), 0.0).eval()
    begun_s = time.time()
    rows = []
    for found in tag_sources([Fed(sound(CHUNK), CHUNK / RATE_HZ, sound(CHUNK), 0.2, live=True)], BatchTagger(model)):
        if isinstance(found, StreamChunk):
            rows.append((found.start_s, found.end_s, found.time_s - begun_s, time.time() - begun_s))
    hop_s = CHUNK / RATE_HZ / 2
    assert [row[:2] for row in rows] == [(hop * hop_s, (hop + 1) * hop_s) for hop in range(4)]
    for (_, _, first_s, _), (_, _, second_s, _) in itertools.pairwise(rows[:2]):
        assert second_s - first_s == pytest.approx(hop_s, abs=0.02)
    assert rows[1][3] - rows[1][2] > hop_s - 0.01  # the second stretch waited for a chunk that ends a hop later


def test_a_model_without_memory_streams_with_its_delay(tmp_path: Path) -> None:
    save(model_by_rule(get_config("audiotransformer_tiny")), tmp_path / "full.safetensors")
    path = str(write(tmp_path / "sound.wav", noise(11 * RATE_HZ)))
    options = StreamOptions(sources=(path,), idle_s=0, model=str(tmp_path / "full.safetensors"))
    start, first, *_ = told(options)
    assert (start["delay_s"], start["memory"], first["end_s"]) == (10.0, False, 10.08)
    assert told(replace(options, delay_s=2.0))[1]["end_s"] == 1.92


def test_a_streaming_model_has_no_other_delay_than_its_own() -> None:
    done = CliRunner().invoke(cli, ["stream", "a.wav", "--delay-s", "3"])
    assert "SAT_T_2s has a delay of 2 s" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a.wav", "a.wav"], 1, "ConfigError: a source is named twice"),
        (["--format", "mp3"], 1, "ConfigError: --format must be one of u8, s16le"),
        (["nowhere.wav"], 1, "ConfigError: nowhere.wav: No such file"),
        (["README.md"], 1, "AudioError: README.md: not a WAV file"),
        (["http://127.0.0.1:9/"], 1, "AudioError: http://127.0.0.1:9/: Connection refused"),
        (["--model", "SAT_T_3s"], 1, "ConfigError"),
        (["--cut", "none"], 2, "Invalid value for '--cut'"),
    ],
)
def test_an_error_is_one_clear_line(
    arguments: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["satpipe", "stream", *arguments])
    monkeypatch.chdir(ROOT)
    ended = run()
    out, errors = capsys.readouterr()
    assert (ended, out) == (code, "")
    assert message in errors
    assert code == 2 or errors.count("\n") == 1


def test_a_source_that_breaks_off_is_reported_and_gives_exit_code_3(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = write(tmp_path / "sound.wav", noise(40_000), subtype="PCM_16").read_bytes()
    with AudioServer([content[:70_000]], missing=len(content) - 70_000) as server:
        done = CliRunner().invoke(cli, ["stream", server.url], standalone_mode=False)
    assert done.return_value == 3
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("end_s", 0) > 0 for line in printed] == [False, True, True, True]
    assert "Input/output error" in printed[-1]["problem"]
    assert f"{server.url}: it ended at {printed[-1]['end_s']:.3f} s: " in done.stderr
