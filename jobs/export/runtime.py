"""Run files of `satpipe export`, and compare their scores with those of the Python model."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.find import Search, Source
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.errors import AudioError, ConfigError
from satpipe.sat.model.config import CLASSES, SAMPLE_RATE_HZ, ModelConfig
from satpipe.sat.model.exportable import BEFORE_SAMPLES, window_samples
from satpipe.sat.model.network import SAT
from satpipe.sat.model.streaming import StreamingTagger

Arrays = dict[str, npt.NDArray[Any]]
Call = Callable[[Arrays], list[npt.NDArray[np.float32]]]
"""An open file: maps inputs by name, in order, to scores and, if the model has one, the memory."""

_CHECKED_S = 600  # maximum length of audio per recording
_SYNTHETIC_S = 25


@dataclass(frozen=True)
class Difference:
    """Difference between the scores of a file and those of its model."""

    chunks: int
    """Number of chunks compared."""
    largest: float
    """Largest absolute difference of a score."""
    mean: float
    """Mean absolute difference of all scores."""
    same_top: float
    """Share of the chunks whose highest class is the same."""


def open_onnx(path: Path, threads: int = 0) -> Call:
    """Open an ONNX file in ONNX Runtime; with 0 `threads`, ONNX Runtime chooses their number."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def open_torchscript(path: Path) -> Call:
    """Open a TorchScript file."""
    with torchscript_deprecation_ignored():
        module = torch.jit.load(path)

    @torch.inference_mode()
    def call(inputs: Arrays) -> list[npt.NDArray[np.float32]]:
        return [output.numpy() for output in module(*map(torch.from_numpy, inputs.values()))]

    return call


@contextmanager
def torchscript_deprecation_ignored() -> Iterator[None]:
    """Ignore the deprecation of TorchScript: some programs load no other format."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]  # shapes are fixed
        yield


def score(call: Call, config: ModelConfig, samples: Samples) -> npt.NDArray[np.float32]:
    """Return the scores [C, 527] of a recording, chunk after chunk."""
    after = np.zeros(window_samples(config), np.float32)
    padded = np.concatenate([after[:BEFORE_SAMPLES], samples, after])
    memory = np.zeros((config.depth, config.memory_tokens, config.width), np.float32)
    scores = [np.empty((0, CLASSES), np.float32)]
    for chunk, start in enumerate(range(0, len(samples), config.chunk_samples)):
        inputs = {
            "samples": padded[start : start + len(after)],
            "length": np.array([len(samples) - start]),
            "chunk": np.array([chunk]),
        }
        if config.streaming:
            found, memory = call({**inputs, "memory": memory})
        else:
            (found,) = call(inputs)
        scores.append(found[None])
    return np.concatenate(scores)


def difference(call: Call, model: SAT, recordings: Iterable[Samples]) -> Difference:
    """Compare the scores of a file with those of the model on gapless chunks."""
    chunks, same_top, largest, total = 0, 0, 0.0, 0.0
    for samples in recordings:
        tagger = StreamingTagger(model)
        wanted = torch.cat([tagger.push(torch.from_numpy(samples)), tagger.finish()]).numpy()
        found = score(call, model.config, samples)
        distance = np.abs(found - wanted)
        chunks += len(wanted)
        largest = float(np.maximum(largest, distance.max(initial=0)))  # NaN if a score of the file is not a number
        total += float(distance.sum(dtype=np.float64))
        same_top += int((found.argmax(1) == wanted.argmax(1)).sum())
    if not chunks:
        raise ConfigError("the recordings of --check contain no audio")
    return Difference(chunks, largest, total / (chunks * CLASSES), same_top / chunks)


def read(inputs: tuple[str, ...]) -> Iterator[Samples]:
    """Yield the first ten minutes of each recording, 16 kHz mono; a recording is read when it is needed.

    Raises:
        ConfigError: No recordings are found.
        AudioError: A recording cannot be read; raised when it is needed.
    """
    sources = list(Search(inputs))
    if not sources:
        raise ConfigError(f"no recordings in {', '.join(inputs)}")
    return map(_read, sources)


def _read(source: Source) -> Samples:
    kept, missing = [np.empty(0, np.float32)], _CHECKED_S * SAMPLE_RATE_HZ
    try:
        for block in Reader(source.path, probe(source.path, source.size_bytes)).blocks():
            kept.append(block[:missing])
            missing -= len(kept[-1])
            if not missing:
                break
    except AudioError as error:
        raise AudioError(f"{source.path}: {error}", error.status) from error
    return np.concatenate(kept)


def synthetic_sound() -> Samples:
    """Return a sound for comparisons without recordings: a tone of varying pitch, bursts of noise, silence.

    The tone is always mixed with some noise: in bands that contain only rounding errors of a loud tone's Fourier
    transform, results depend on the method of computation.
    """
    generator = np.random.default_rng(0)
    seconds = np.arange(_SYNTHETIC_S * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tone = 0.2 * np.sin(2 * np.pi * 500 * (seconds + np.sin(2 * seconds)))
    loudness = np.repeat(generator.uniform(0.1, 1, _SYNTHETIC_S * 4), SAMPLE_RATE_HZ // 4) ** 3
    sound = tone + loudness * generator.normal(0, 0.2, len(seconds))
    return np.where((seconds > 8) & (seconds < 13), 0, sound).astype(np.float32)
