"""Embeddings of clips and of stretches of recordings: a plain function without Ray and without tables."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.recording import Recording
from satpipe.pipeline.tables.chunk_embeddings import size_of_embeddings
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.sat.errors import AudioError, CheckpointError, ConfigError
from satpipe.sat.model.config import CLASSES, find_config
from satpipe.sat.model.finite import check_finite
from satpipe.sat.model.outputs import split
from satpipe.sat.taggers.interface import Tagger
from satpipe.sat.weights.registry import resolve

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Stretch:
    """A stretch of a recording, in seconds from its start; `end_s` is None for its end."""

    recording: Recording
    start_s: float = 0.0
    end_s: float | None = None


@dataclass
class Embedded:
    """The outputs of a tagger for the n chunks of a stretch, with nothing carried over from the audio before it.

    Attributes:
        start_s: Of each chunk, from the recording's start, [n].
        end_s: [n]; that of the last chunk is the end of the stretch, or of the recording.
        embeddings: [n, D], see `satpipe.sat.model.outputs`.
        scores: [n, 527].
        peak: The largest absolute value of a sample; 0 for digital silence.
        problem: Why the stretch could not be read, or not to its end; "" if it could.
    """

    stretch: Stretch
    start_s: Floats
    end_s: Floats
    embeddings: Values
    scores: Values
    peak: float
    problem: str


@dataclass
class _Read:
    """The state of a stretch that is being read."""

    samples: int = 0
    peak: float = 0.0
    problem: str = ""
    chunks: list[int] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)


def recording_of(source: Source, channel: int | None = None) -> Recording:
    """Return a file as a recording: its mean over channels, or a channel counted from 1.

    Raises:
        AudioError: Its header cannot be read, or it has no such channel.
    """
    info = probe(source.path, source.size_bytes)
    if channel and channel > info.channels:
        raise AudioError(f"it has {info.channels} channels, no channel {channel}")
    return Recording(source.recording, source, channel, info)


def embed(stretches: Sequence[Stretch], tagger: Tagger) -> list[Embedded]:
    """Compute the embeddings of stretches; their chunks share batches, and each stretch begins with an empty memory.

    Args:
        stretches: Of any recordings, in any order.
        tagger: From `LoadedTagger.tagger(..., embeddings=True)`.

    Returns:
        The result for each stretch, in order. A stretch that cannot be read has a `problem`, and no chunks if it has
        no audio.

    Raises:
        CheckpointError: The model computes values that are not numbers; the message names the recording.
    """
    found = [_Read() for _ in stretches]
    for (place, chunk), outputs in tagger.score_rows(_chunks(stretches, found, tagger)):
        if chunk >= 0:  # not the silence that warms up the memory
            found[place].chunks.append(chunk)
            found[place].outputs.append(outputs)
    return [_embedded(stretch, read, tagger) for stretch, read in zip(stretches, found, strict=True)]


def _chunks(
    stretches: Sequence[Stretch], found: Sequence[_Read], tagger: Tagger
) -> Iterator[tuple[tuple[int, int], Any]]:
    for place, (stretch, read) in enumerate(zip(stretches, found, strict=True)):
        try:
            for chunk in _chunks_of(stretch, read, tagger):
                yield (place, chunk.index), chunk
            if not read.samples:
                raise AudioError("it has no audio there")
        except AudioError as error:
            read.problem = f"{stretch.recording.name}: {error}"


def _chunks_of(stretch: Stretch, read: _Read, tagger: Tagger) -> Iterator[Any]:
    recording, rate_hz, stream = stretch.recording, tagger.config.rate_hz, tagger.chunks()
    start = round(stretch.start_s * rate_hz)
    wanted = None if stretch.end_s is None else round(stretch.end_s * rate_hz) - start
    reader = Reader(recording.source.path, recording.info, recording.channel, start, rate_hz)
    with closing(reader.blocks()) as blocks:
        for block in blocks:
            block = block if wanted is None else block[: max(0, wanted - read.samples)]
            read.samples += len(block)
            read.peak = max(read.peak, float(np.abs(block).max(initial=0)))
            yield from stream.push(torch.from_numpy(block))
            if read.samples == wanted:
                break
    yield from stream.finish()
    if reader.broken_s is not None:
        read.problem = f"{recording.name}: decoding breaks off at {reader.broken_s:.3f} s"


def _embedded(stretch: Stretch, read: _Read, tagger: Tagger) -> Embedded:
    outputs = torch.stack(read.outputs) if read.outputs else torch.empty(0, CLASSES + tagger.embedding_size)
    check_finite(outputs, tagger.model, lambda row: f"{stretch.recording.name}, chunk {row}")
    scores, embeddings = split(outputs)
    rate_hz, size = tagger.config.rate_hz, tagger.chunk_samples
    samples = np.array(read.chunks, np.int64) * size
    start_s = stretch.start_s + samples / rate_hz
    end_s = stretch.start_s + np.minimum(samples + size, read.samples) / rate_hz
    return Embedded(stretch, start_s, end_s, embeddings.numpy(), scores.numpy(), read.peak, read.problem)


def tagger_of(tables: Tables, model: str | None = None) -> Tagger:
    """Return the tagger that computed the embeddings of a folder, on the CPU in float32.

    Args:
        tables: The folder.
        model: As for `satpipe tag --model`; by default what run.json names.

    Raises:
        OutputError: The folder has no embeddings.
        ConfigError: The model is another one, or unknown.
        CheckpointError: The model is not where it was.
    """
    size_of_embeddings(tables)
    about = tables.model
    name = model or tables.run.get("model", {}).get("name", "")
    try:
        loaded = resolve(name, about["arch"] if find_config(about["arch"]) else None)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; --model names the model of {tables.folder}") from error
    if loaded.sha256 != about["sha256"]:
        raise ConfigError(
            f"{name} (sha256 {loaded.sha256[:12]}) is not the model of {tables.folder}, {about['arch']} from "
            f"{about['source']} (sha256 {about['sha256'][:12]}); --model names it"
        )
    adapted = loaded.adapted(
        about["delay_s"], memory=about["memory"] == "on", grids=about["grids"], combine=about["combine"]
    )
    return adapted.tagger(about["cut"], embeddings=True)
