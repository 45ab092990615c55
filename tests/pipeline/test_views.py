"""Views of clips: what a teacher and a model hear of them, and their labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from satpipe.pipeline.training_data.feed import Examples, labelled_segments
from satpipe.pipeline.training_data.shards import Shards, decode_clip
from satpipe.pipeline.training_data.teachers import Segments, load_teacher
from satpipe.pipeline.training_data.views import ClipCache, Views, resample
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.taggers.interface import CPU, Tagger
from training import make_clips, write_all, write_labels, write_teacher


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("clips")
    return write_all(make_clips(folder / "audio"), folder / "shards")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "full.safetensors")


@pytest.fixture(scope="module")
def pieces(shards: Shards, teacher: Path) -> Segments:
    return write_labels(shards, teacher.parent / "labels", teacher)


def test_views_are_the_same_each_time_they_are_made(shards: Shards, pieces: Segments, teacher: Path) -> None:
    views = Views(
        labelled_segments(shards, pieces, balance=1.0), load_teacher(str(teacher)), chunk_frames=192, batch=4,
        per_epoch=8, reuse=2, mix=0.5, seed=1, rank=0, world=1,
    )  # fmt: skip
    first, again, later = list(views.epoch(0)), list(views.epoch(0, first=2)), next(views.epoch(1))
    assert len(first) == 4
    assert first[0].inputs.shape == (4, 64, 384)
    assert bool((again[0].inputs == first[2].inputs).all())
    assert not bool((later.inputs == first[0].inputs).all())
    assert first[0].labels is not None
    assert 0 <= float(first[0].labels.min()) <= float(first[0].labels.max()) <= 1


def test_no_views_are_made_for_epochs_after_the_last(shards: Shards, pieces: Segments) -> None:
    sizes = {"chunk_frames": 96, "batch": 4, "per_epoch": 8, "reuse": 1, "mix": 0.5, "seed": 1, "rank": 0, "world": 1}
    for epochs, made in ((2, 2), (1, 1), (None, 2)):
        teacher = Listener()
        views = Views(labelled_segments(shards, pieces), teacher, **sizes, epochs=epochs)  # type: ignore[arg-type]
        assert len(list(views.epoch(0))) == 2
        views._maker.shutdown()
        assert sum(map(len, teacher.heard)) == made * 8


class Listener(Tagger):
    """A teacher that keeps what it hears; its first score is the peak."""

    def __init__(self) -> None:
        self.heard: list[torch.Tensor] = []

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        self.heard.append(waveforms)
        scores = torch.zeros(len(waveforms), 527)
        scores[:, 0] = waveforms.abs().amax(1)
        return scores


def listen(shards: Shards, pieces: Segments, **given: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return what a teacher heard of the views of an epoch, and their labels."""
    teacher = Listener()
    sizes = {"chunk_frames": 96, "batch": 4, "per_epoch": 32, "reuse": 1, "seed": 1, "rank": 0, "world": 1}
    _, labels = Views(labelled_segments(shards, pieces), teacher, **sizes, **given).make(0)
    return teacher.heard, labels


def test_each_chunk_of_a_view_is_labelled_with_its_context(shards: Shards, pieces: Segments) -> None:
    heard, labels = listen(shards, pieces, mix=0.5, join=0.5, chunks=3, context_chunks=1)
    whole, size = heard[0], 96 * 160
    assert whole.shape == (32, 3 * size)
    for part, (first, end) in zip(heard, [(0, 3), (0, 1), (0, 2), (1, 3)], strict=True):
        assert bool((part == whole[:, first * size : end * size]).all())
    assert labels.shape == (32, 4, 527)
    peaks = torch.stack([part.abs().amax(1) for part in heard], 1)
    torch.testing.assert_close(labels[..., 0].float(), peaks, atol=1e-3, rtol=0)
    again, _ = listen(shards, pieces, mix=0.5, join=0.5, chunks=3, context_chunks=1)
    assert bool((again[0] == whole).all())


def test_joined_clips_begin_and_end_within_a_view(tmp_path: Path) -> None:
    """Tones of 3.5 s, each of its own pitch: only in a joined view does the pitch change."""
    (tmp_path / "audio").mkdir()
    for number in range(8):
        tone = np.sin(2 * np.pi * (300 + 500 * number) * np.arange(56_000) / 16_000)
        soundfile.write(tmp_path / "audio" / f"{number}.flac", 0.5 * tone, 16_000)
    shards = write_all(tmp_path / "audio", tmp_path / "set")
    examples = Examples(shards, np.arange(8), np.zeros(8, np.float32), None, None)
    changes, silent = {}, {}
    for join in (0.0, 1.0):
        teacher = Listener()
        Views(
            examples, teacher, chunk_frames=96, chunks=5, batch=4, per_epoch=16, reuse=1, mix=0.0, join=join, seed=1,
            rank=0, world=1,
        ).make(0)  # fmt: skip
        views = torch.cat(teacher.heard).unflatten(1, (24, 3200))  # parts of 0.2 s
        sounds = views.abs().amax(2) > 0.05 * views.abs().amax((1, 2))[:, None]
        pitches = torch.fft.rfft(views).abs().argmax(2)
        changes[join] = np.mean([(p[s].max() - p[s].min() > 20) for p, s in zip(pitches, sounds, strict=True)])
        silent[join] = float((~sounds).float().mean())
        assert all(int(s.sum()) > 3 for s in sounds)
    assert changes[0.0] < 0.1  # the end of a reverberation may differ
    assert changes[1.0] > 0.8
    assert 0 < silent[1.0] < silent[0.0]  # of 4.8 s, a clip of 3.5 s leaves a quarter silent


def test_crops_are_what_the_clips_say_however_few_are_kept(shards: Shards) -> None:
    clips = np.array([3, 0, 9, 3])
    begins = np.array([0, -500, 2000, 100])
    wanted = []
    for clip, begin in zip(clips.tolist(), begins.tolist(), strict=True):
        samples = decode_clip(shards.audio(np.array([clip]))[clip], SAMPLE_RATE_HZ)[0]
        wanted.append(np.pad(samples, 8000)[8000 + begin : 16_000 + begin])
    for room_samples in (0, 30_000, 10**9):
        kept = ClipCache(shards, 8000, CPU, room_samples)
        for others in ([5, 6], [1], []):
            kept.load(np.array(others, np.int64))
            lengths = kept.load(clips)
            assert lengths.tolist() == [round(float(d) * SAMPLE_RATE_HZ) for d in shards.durations_s[clips]]
            np.testing.assert_allclose(kept.crops(clips, begins), wanted, atol=1 / 32767)


def test_resampling_for_a_teacher_keeps_a_tone() -> None:
    seconds = torch.arange(16_000) / 16_000
    doubled = resample(torch.sin(2 * torch.pi * 440 * seconds)[None], 32_000)[0]
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(32_000) / 32_000)
    torch.testing.assert_close(doubled, expected, atol=1e-3, rtol=0)
