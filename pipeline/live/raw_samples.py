"""Uncompressed samples as bytes: raw, or after the header of a WAV file that may be unfinished."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from satpipe.pipeline.recordings.recording import HIGHEST_RATE_HZ, LOWEST_RATE_HZ, is_known_size
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.errors import AudioError


class Encoding(NamedTuple):
    """One sample as bytes."""

    size_bytes: int
    numpy_type: str
    full_scale: int  # as in libsndfile


ENCODINGS = {
    "u8": Encoding(1, "u1", 2**7),
    "s16le": Encoding(2, "<i2", 2**15),
    "s16be": Encoding(2, ">i2", 2**15),
    "s24le": Encoding(3, "<i4", 2**31),  # in the upper three bytes of four
    "s32le": Encoding(4, "<i4", 2**31),
    "f32le": Encoding(4, "<f4", 1),
    "f64le": Encoding(8, "<f8", 1),
}
_INTEGER, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_IN_WAV = {
    (_INTEGER, 8): "u8",
    (_INTEGER, 16): "s16le",
    (_INTEGER, 24): "s24le",
    (_INTEGER, 32): "s32le",
    (_FLOAT, 32): "f32le",
    (_FLOAT, 64): "f64le",
}
WAV_MAGIC = (b"RIFF", b"RF64")
MAX_HEADER_BYTES = 2**20


@dataclass(frozen=True)
class Pcm:
    """Layout of samples in bytes, in one of `ENCODINGS`; channels are interleaved."""

    encoding: str
    rate_hz: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of each channel."""
        return ENCODINGS[self.encoding].size_bytes * self.channels

    def decode(self, content: bytes) -> Samples:
        """Return whole frames as samples from -1 to 1, [n, channels]."""
        encoding = ENCODINGS[self.encoding]
        if self.encoding == "s24le":
            padded = np.zeros((len(content) // 3, 4), np.uint8)
            padded[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
            content = padded.tobytes()
        samples = np.frombuffer(content, encoding.numpy_type).astype(np.float64)
        if self.encoding == "u8":
            samples -= encoding.full_scale
        with np.errstate(over="ignore", invalid="ignore"):  # a double may exceed float32
            return (samples / encoding.full_scale).astype(np.float32).reshape(-1, self.channels)


@dataclass(frozen=True)
class WavHeader:
    """The header of a WAV file up to its samples.

    Attributes:
        data_start: Position of the first sample, in bytes from the start of the file.
        data_bytes: Size of the samples; None if the header does not state it.
    """

    pcm: Pcm
    data_start: int
    data_bytes: int | None


def read_wav_header(read: Callable[[int], bytes]) -> WavHeader:
    """Read the header of a WAV file up to its samples with `read`, which returns a number of bytes, fewer at the end.

    Raises:
        AudioError: The file is not a WAV file, ends before its samples, or they are not plain integers or floats.
    """
    if not (head := read(12)).startswith(WAV_MAGIC) or head[8:] != b"WAVE":
        raise AudioError("not a WAV file")
    at, pcm = len(head), None
    while at < MAX_HEADER_BYTES:
        chunk = read(8)
        name, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        at += len(chunk)
        if name == b"data" and pcm:
            return WavHeader(pcm, at, size if size and is_known_size(size) else None)
        size += size % 2
        if len(chunk) < 8 or at + size > MAX_HEADER_BYTES:
            break
        content = read(size)
        at += len(content)
        if name == b"fmt " and len(content) >= 16:
            pcm = _format(content)
    raise AudioError("a WAV file whose header ends before its samples")


def _format(content: bytes) -> Pcm:
    kind, channels, rate_hz, bits = (
        int.from_bytes(content[a:b], "little") for a, b in ((0, 2), (2, 4), (4, 8), (14, 16))
    )
    if kind == _EXTENSIBLE and len(content) >= 26:
        kind = int.from_bytes(content[24:26], "little")
    encoding = _IN_WAV.get((kind, bits))
    if encoding is None:
        raise AudioError(f"a WAV file in format {kind} with {bits} bits, which cannot be read while it is written")
    if not (LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ and channels):
        raise AudioError(f"the header announces {channels} channels at a sampling rate of {rate_hz:,} Hz")
    return Pcm(encoding, rate_hz, channels)
