"""Files of audio for the tests of the pipeline: written, planned, broken."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.recording import AudioInfo, Recording

Samples = npt.NDArray[np.float32]


def noise(frames: int, channels: int = 1, seed: int = 0) -> Samples:
    """Noise that uses most of the range without leaving it, [frames, channels] or [frames]."""
    shape = (frames, channels) if channels > 1 else (frames,)
    return np.random.default_rng(seed).uniform(-0.9, 0.9, shape).astype(np.float32)


def write(path: Path, samples: npt.NDArray[Any], rate_hz: int = 16_000, **options: str) -> Path:
    """Write a file, in the format its extension stands for unless `options` name another."""
    soundfile.write(path, samples, rate_hz, **options)
    return path


def shorten(path: Path, part: float) -> Path:
    """Cut a file off, as a full disk or a broken download does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    return path


def claim_flac_frames(path: Path, frames: int) -> Path:
    """Have the header of a FLAC file announce so many frames; 0 means that the length is not known."""
    content = bytearray(path.read_bytes())
    rest = int.from_bytes(content[18:26], "big") >> 36  # rate, channels and bits in front of the 36 bits of the length
    content[18:26] = (rest << 36 | frames).to_bytes(8, "big")
    path.write_bytes(content)
    return path


def probed(path: Path) -> AudioInfo:
    """What the header of a file says."""
    return probe(str(path), path.stat().st_size)


def read(path: Path, channel: int | None = None, start: int = 0) -> tuple[Samples, Reader]:
    """The 16 kHz samples of a file, and the reader that gave them."""
    reader = Reader(str(path), probed(path), channel, start)
    return np.concatenate([np.empty(0, np.float32), *reader.blocks()]), reader


def recording_of(path: Path, channel: int | None = None, info: AudioInfo | None = None) -> Recording:
    """A file as the plan knows it."""
    status = path.stat()
    source = Source(path.name, str(path), status.st_size, status.st_mtime_ns)
    return Recording(path.name, source, channel, info or probed(path))
