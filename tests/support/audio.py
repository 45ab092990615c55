"""Audio files for the tests of the pipeline: write them, read them, damage them."""

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
    """Return noise that uses most of the range without clipping, [frames, channels] or [frames]."""
    shape = (frames, channels) if channels > 1 else (frames,)
    return np.random.default_rng(seed).uniform(-0.9, 0.9, shape).astype(np.float32)


def write(path: Path, samples: npt.NDArray[Any], rate_hz: int = 16_000, **options: str) -> Path:
    """Write a file, in the format of its extension unless `options` name another one."""
    soundfile.write(path, samples, rate_hz, **options)
    return path


def shorten(path: Path, part: float) -> Path:
    """Truncate a file to a part of its length, as a full disk or a broken download does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    return path


def claim_flac_frames(path: Path, frames: int) -> Path:
    """Make the header of a FLAC file state a number of frames; 0 means that the length is unknown."""
    content = bytearray(path.read_bytes())
    rest = int.from_bytes(content[18:26], "big") >> 36  # rate, channels and bits in front of the 36 bits of the length
    content[18:26] = (rest << 36 | frames).to_bytes(8, "big")
    path.write_bytes(content)
    return path


def probed(path: Path) -> AudioInfo:
    """Return the content of a file's header."""
    return probe(str(path), path.stat().st_size)


def read(path: Path, channel: int | None = None, start: int = 0) -> tuple[Samples, Reader]:
    """Return the samples of a file at 16 kHz, and the reader that read them."""
    reader = Reader(str(path), probed(path), channel, start)
    return np.concatenate([np.empty(0, np.float32), *reader.blocks()]), reader


def recording_of(path: Path, channel: int | None = None, info: AudioInfo | None = None) -> Recording:
    """Return a file as a recording of the plan."""
    status = path.stat()
    source = Source(path.name, str(path), status.st_size, status.st_mtime_ns)
    return Recording(path.name, source, channel, info or probed(path))
