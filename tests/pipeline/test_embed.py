"""Embeddings of clips and stretches of files, as the model gives them for the same samples alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from audio import noise, recording_of, shorten, write
from helpers import assert_same_scores, sound
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.tagging import embed
from satpipe.pipeline.tagging.embed import Stretch
from satpipe.sat.errors import AudioError
from satpipe.sat.model.outputs import split
from satpipe.sat.model.streaming import StreamingTagger
from satpipe.sat.taggers.sat import SATTagger
from small_models import TINY, model_of

CHUNK_S = TINY.chunk_samples / 16_000


def test_each_stretch_has_the_outputs_it_has_alone_and_its_times_in_the_recording(tmp_path: Path) -> None:
    samples = sound(60_000) / 4
    long = recording_of(write(tmp_path / "long.wav", samples.numpy(), subtype="FLOAT"))
    short = recording_of(write(tmp_path / "short.wav", samples[:3000].numpy(), subtype="FLOAT"))
    stretches = [Stretch(long, 1.0, 2.1), Stretch(short), Stretch(long, 3.0), Stretch(long, 0.5, 0.6)]
    found = embed.embed(stretches, SATTagger(model_of(TINY), embeddings=True, batch_chunks=3))
    for read, (start, end) in zip(found, ((16_000, 33_600), (0, 3000), (48_000, 60_000), (8000, 9600)), strict=True):
        stream = StreamingTagger(model_of(TINY), embeddings=True)
        own = (samples[:3000] if read.stretch.recording is short else samples)[start:end]
        scores, embeddings = split(torch.cat([stream.push(own), stream.finish()]))
        assert_same_scores(torch.from_numpy(read.embeddings), embeddings, 1e-4)
        assert_same_scores(torch.from_numpy(read.scores), scores, 1e-5)
        np.testing.assert_allclose(read.start_s, start / 16_000 + CHUNK_S * np.arange(len(scores)))
        assert read.end_s[-1] == pytest.approx(end / 16_000)
        assert read.peak == pytest.approx(float(own.abs().max()))
        assert read.problem == ""


def test_what_cannot_be_read_has_a_problem_and_the_others_their_embeddings(tmp_path: Path) -> None:
    whole = recording_of(write(tmp_path / "whole.wav", noise(20_000)))
    silent = recording_of(write(tmp_path / "silent.wav", np.zeros(20_000)))
    gone = recording_of(write(tmp_path / "gone.wav", noise(20_000)))
    Path(gone.source.path).unlink()
    broken = recording_of(write(tmp_path / "broken.flac", noise(100_000)))
    shorten(Path(broken.source.path), 0.5)
    stretches = [Stretch(gone), Stretch(whole, 9.0), Stretch(whole), Stretch(broken), Stretch(silent)]
    found = embed.embed(stretches, SATTagger(model_of(TINY), embeddings=True))
    assert [len(read.embeddings) for read in found[:3]] == [0, 0, 4]
    assert found[0].problem.startswith("gone.wav: ")
    assert found[1].problem == "whole.wav: it has no audio there"
    assert found[1].embeddings.shape == (0, TINY.width)
    assert "broken.flac: decoding breaks off at" in found[3].problem
    assert 0 < len(found[3].embeddings) < 20
    assert (found[4].peak, found[4].problem) == (0, "")


def test_a_file_without_a_channel_or_a_header_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1000, 2))
    source = Source("a.wav", str(path), path.stat().st_size, 0)
    assert embed.recording_of(source, 2).channel == 2
    with pytest.raises(AudioError, match="it has 2 channels, no channel 3"):
        embed.recording_of(source, 3)
    path.write_bytes(b"noise")
    with pytest.raises(AudioError):
        embed.recording_of(source)
