"""Uncompressed samples as bytes: raw, or behind the header of a WAV file that may still be written."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from satpipe.pipeline.recordings.audio_info import HIGHEST_RATE_HZ, LOWEST_RATE_HZ, is_known_size
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.errors import AudioError

# numpy's type and the value of full scale, as libsndfile takes it.
ENCODINGS = {
    "u8": ("u1", 2**7),
    "s16le": ("<i2", 2**15),
    "s16be": (">i2", 2**15),
    "s24le": ("<i4", 2**31),  # in the upper three bytes of four
    "s32le": ("<i4", 2**31),
    "f32le": ("<f4", 1),
    "f64le": ("<f8", 1),
}
_BYTES = {"u8": 1, "s16le": 2, "s16be": 2, "s24le": 3, "s32le": 4, "f32le": 4, "f64le": 8}
_INTEGER, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_IN_WAV = {
    (_INTEGER, 8): "u8",
    (_INTEGER, 16): "s16le",
    (_INTEGER, 24): "s24le",
    (_INTEGER, 32): "s32le",
    (_FLOAT, 32): "f32le",
    (_FLOAT, 64): "f64le",
}
WAV_MARKS = (b"RIFF", b"RF64")
LONGEST_HEADER_BYTES = 2**20


@dataclass(frozen=True)
class Pcm:
    """How samples lie in bytes: channels side by side.

    Attributes:
        encoding: One of `ENCODINGS`.
        rate_hz: Sampling rate.
        channels: Number of channels.
    """

    encoding: str
    rate_hz: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of each channel."""
        return _BYTES[self.encoding] * self.channels

    def decode(self, content: bytes) -> Samples:
        """Return whole frames as samples from -1 to 1, [n, channels]; full scale is that of libsndfile."""
        kind, full_scale = ENCODINGS[self.encoding]
        if self.encoding == "s24le":
            padded = np.zeros((len(content) // 3, 4), np.uint8)
            padded[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
            content = padded.tobytes()
        samples = np.frombuffer(content, kind).astype(np.float64)
        if self.encoding == "u8":
            samples -= full_scale
        with np.errstate(over="ignore", invalid="ignore"):  # of a double that no float32 holds
            return (samples / full_scale).astype(np.float32).reshape(-1, self.channels)


@dataclass(frozen=True)
class WavHeader:
    """The header of a WAV file up to its samples.

    Attributes:
        pcm: How the samples lie.
        data_start: Where they begin, in bytes from the start of the file.
        data_bytes: How much of them there is, if it is to be believed; None where the header does not tell.
    """

    pcm: Pcm
    data_start: int
    data_bytes: int | None


def read_wav_header(read: Callable[[int], bytes]) -> WavHeader:
    """Read the header of a WAV file up to its samples.

    Args:
        read: Gives so many bytes, fewer at the end.

    Raises:
        AudioError: It is none, it ends before the samples, or they are not plain integers or floats.
    """
    if not (head := read(12)).startswith(WAV_MARKS) or head[8:] != b"WAVE":
        raise AudioError("not a WAV file")
    at, pcm = len(head), None
    while at < LONGEST_HEADER_BYTES:
        chunk = read(8)
        name, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        at += len(chunk)
        if name == b"data" and pcm:
            return WavHeader(pcm, at, size if size and is_known_size(size) else None)
        size += size % 2
        if len(chunk) < 8 or at + size > LONGEST_HEADER_BYTES:
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
