"""Triggered recordings of AudioMoths: what was left out is there again, as silence that is not tagged."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from audio import noise, probed, read, recording_of
from audiomoth import BLOCK, FIRST, Pcm, write_triggered
from conftest import Satpipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from satpipe.pipeline.tables.dataframes import read_scores
from satpipe.pipeline.tagging.spans import spans_of
from satpipe.sat.errors import AudioError
from satpipe.sat.model.config import SAMPLE_RATE_HZ, get_config
from tag_tables import recordings, scores

NAME = "20250510_032000T.WAV"
CONFIG = get_config("SAT_T_2s")


def pcm(samples: int, seed: int = 0) -> Pcm:
    return (noise(samples, seed=seed) * 32_767).astype(np.int16)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stretches=st.lists(st.tuples(st.booleans(), st.integers(1, 300)), max_size=8),
    rest=st.integers(0, BLOCK - 1),
    start=st.floats(0, 1),
)
def test_what_was_left_out_is_silence_and_times_are_right(
    tmp_path: Path, stretches: list[tuple[bool, int]], rest: int, start: float
) -> None:
    parts = [number if left_out else pcm(number * BLOCK, at) for at, (left_out, number) in enumerate(stretches)]
    expected = write_triggered(tmp_path / NAME, [pcm(FIRST), *parts, pcm(rest)])
    info = probed(tmp_path / NAME)
    assert (info.frames, info.exact_seek, info.problem) == (len(expected), True, "")
    silent = np.zeros(len(expected), bool)
    for begin, end in info.quiet:
        silent[begin:end] = True
    at = FIRST
    for part in parts:
        size = part * BLOCK if isinstance(part, int) else len(part)
        assert silent[at : at + size].all() == isinstance(part, int)
        at += size
    for (_, before), (after, _) in pairwise(info.quiet):
        assert before < after
    assert bool(info.warnings) == any(left_out for left_out, _ in stretches)
    from_sample = int(start * len(expected))
    samples, _ = read(tmp_path / NAME, start=from_sample)
    np.testing.assert_array_equal(samples, expected[from_sample:].astype(np.float32) / 32_768)


def test_the_comment_of_a_renamed_recording_is_enough_and_other_files_are_left_alone(tmp_path: Path) -> None:
    expected = write_triggered(tmp_path / "pond.wav", [pcm(FIRST), 1000, pcm(BLOCK)])
    assert probed(tmp_path / "pond.wav").frames == len(expected)
    content = (tmp_path / "pond.wav").read_bytes()
    (tmp_path / "other.wav").write_bytes(content.replace(b"threshold", b"voltage__"))
    assert probed(tmp_path / "other.wav").frames == FIRST + 2 * BLOCK
    (tmp_path / NAME).write_bytes(content.replace(b"threshold", b"voltage__"))
    assert probed(tmp_path / NAME).frames == len(expected)


def test_more_silence_than_a_recorder_can_leave_out_is_refused(tmp_path: Path) -> None:
    write_triggered(tmp_path / NAME, [pcm(FIRST), 1, pcm(BLOCK)])
    content = bytearray((tmp_path / NAME).read_bytes())
    content[512 : 512 + 64] = np.ones(32, "<i2").tobytes()
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(AudioError, match="leave out 19,089 h of silence"):
        probed(tmp_path / NAME)


@settings(deadline=None)
@given(
    quiet=st.lists(st.tuples(st.integers(0, 10_000_000), st.integers(1, 3_000_000)), max_size=5),
    frames=st.integers(1, 10_000_000),
    span_s=st.sampled_from([10.0, 60.0, 600.0]),
    memory=st.booleans(),
)
def test_every_chunk_with_sound_is_in_one_span(
    tmp_path_factory: pytest.TempPathFactory, quiet: list[tuple[int, int]], frames: int, span_s: float, memory: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "spans.wav"
    if not path.exists():
        write_triggered(path, [pcm(FIRST)])
    stretches, at = [], 0
    for begin, length in sorted(quiet):
        if at <= begin < frames:
            at = min(frames, begin + length)
            stretches.append((begin, at))
    recording = recording_of(path)
    recording = replace(recording, info=replace(recording.info, frames=frames, quiet=tuple(stretches)))
    config = CONFIG if memory else CONFIG.without_memory()
    spans = spans_of(recording, config, "gapless", span_s)
    size, chunks = 30_720, -(-frames // 30_720)
    tagged = np.zeros(chunks, int)
    for span in spans:
        tagged[span.start_chunk : span.stop_chunk] += 1
    assert tagged.max() == 1
    sound = np.ones(frames, bool)
    for begin, end in stretches:
        sound[begin:end] = False
    with_sound = np.add.reduceat(sound, np.arange(0, frames, size)) > 0
    assert not (with_sound & (tagged == 0)).any()
    without = sum(max(0, end // size - -(-begin // size) - config.warmup_chunks - 1) > 0 for begin, end in stretches)
    assert bool((tagged == 0).any()) >= bool(without and with_sound.any())


def test_a_recording_without_any_sound_has_one_chunk(tmp_path: Path) -> None:
    write_triggered(tmp_path / NAME, [pcm(FIRST) * 0, 100_000])
    [span] = spans_of(recording_of(tmp_path / NAME), CONFIG, "gapless", 600)
    assert (span.start_chunk, span.stop_chunk) == (0, 1)


def test_what_was_left_out_is_not_tagged_and_changes_no_score(satpipe_here: Satpipe, tmp_path: Path) -> None:
    sound = [pcm(60_000 - 60_000 % BLOCK + (FIRST if at == 0 else 0), at) for at in range(4)]
    triggered, expanded = tmp_path / NAME, tmp_path / "expanded.wav"
    # 64 s, 64 s and 4 s: context takes 23 s
    samples = write_triggered(triggered, [sound[0], 4000, sound[1], 4000, sound[2], 250, sound[3]])
    soundfile.write(expanded, samples, SAMPLE_RATE_HZ)
    for span_s in (10, 600):
        out = tmp_path / f"out{span_s}"
        done = satpipe_here("tag", triggered, expanded, "-o", out, "--span-s", span_s)
        assert done.returncode == 0, done.stderr
        assert "1 quiet stretches" in done.stdout
        table = recordings(out).loc[[NAME, "expanded.wav"]]
        assert list(table.duration_s) == [len(samples) / SAMPLE_RATE_HZ] * 2
        assert list(table.warnings[NAME]) == ["quiet stretches: the recorder left out 3, 132.00 s in all"]
        assert table.time[NAME].isoformat() == "2025-05-10T03:20:00+00:00"
        rows = {name: each.set_index("chunk") for name, each in scores(out).groupby("recording")}
        ours, whole = rows[NAME], rows["expanded.wav"].loc[rows[NAME].index]
        assert len(ours) == table.chunks[NAME] < 15 < len(rows["expanded.wav"])
        pd.testing.assert_frame_equal(ours[["start_s", "end_s"]], whole[["start_s", "end_s"]])
        np.testing.assert_allclose(np.stack(ours.scores), np.stack(whole.scores), rtol=2**-10, atol=1e-5)
    assert list(read_scores(out, recordings=NAME, labels=["Speech"]).chunk) == list(ours.index)
    for command in (("events", out, "-o", tmp_path / "events.csv"), ("report", out, "-o", tmp_path / "r.html")):
        done = satpipe_here(*command)
        assert done.returncode == 0, done.stderr


def test_a_triggered_recording_joins_with_the_next(satpipe_here: Satpipe, tmp_path: Path) -> None:
    samples = write_triggered(tmp_path / NAME, [pcm(FIRST + 100 * BLOCK), 4000, pcm(BLOCK)])
    minutes, rest = divmod(len(samples) // SAMPLE_RATE_HZ, 60)
    after = tmp_path / f"20250510_032{minutes}{rest:02}T.WAV"
    write_triggered(after, [pcm(FIRST + 100 * BLOCK)], f"03:2{minutes}:{rest:02}")
    out = tmp_path / "out"
    done = satpipe_here("tag", tmp_path, "-o", out, "--join", "--join-gap-s", 2)
    assert done.returncode == 0, done.stderr
    [row] = recordings(out).reset_index().to_dict("records")
    assert row["duration_s"] == (len(samples) + FIRST + 100 * BLOCK) / SAMPLE_RATE_HZ
    assert list(row["warnings"]) == [f"quiet stretches: {NAME}: the recorder left out 1, 64.00 s in all"]
    assert row["chunks"] < 8
