"""Audio files in containers that FFmpeg reads and libsndfile does not. Importing it needs PyAV, the extra `ffmpeg`."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain

import av
import numpy as np
from satpipe.pipeline.recordings.raw_aac import is_raw, raw_frames
from satpipe.pipeline.recordings.resample import Samples
from satpipe.pipeline.storage import RemoteFile, is_remote
from satpipe.sat.errors import AudioError

_GUESS_LENGTH = frozenset({"aac", "ac3", "amr", "wav", "w64", "au", "ogg"})  # FFmpeg may estimate it from the bit rate
ERRORS = (av.FFmpegError, OSError, ValueError, MemoryError, NotImplementedError)


class AvFile:
    """The best audio stream of a file, decoded from its start or from `skip_to` on.

    Attributes:
        frames: Approximate number of samples per channel, according to the container; 0 if it does not state it.
        codec: FFmpeg's name of the decoder.
        broken: True if `blocks` met data that cannot be decoded, or another rate or number of channels.
    """

    exact_seek, problem = False, ""
    max_frames_per_byte = 8192  # some containers hold FLAC

    def __init__(self, path: str, container: str, block_bytes: int | None = None) -> None:
        """Open a file with one of FFmpeg's demuxers and decode its first frame: the rate in headers is not reliable.

        `block_bytes` is that of `RemoteFile`.

        Raises:
            AudioError: The file has no audio (`unreadable`) or no samples (`empty`).
        """
        self.broken = False
        with ExitStack() as opened:
            try:
                # Without "file:" some names would be treated as addresses.
                file = opened.enter_context(RemoteFile(path, block_bytes)) if is_remote(path) else f"file:{path}"
                source = opened.enter_context(av.open(file, "r", container, metadata_errors="replace"))
                stream = source.streams.best("audio")
                if not isinstance(stream, av.AudioStream):
                    raise AudioError("it has no audio")
                raw = container == "wav" and is_raw(stream)
                self._frames = raw_frames(source, stream) if raw else source.decode(stream)
                first = next(self._frames, None)
            except ERRORS as error:
                raise AudioError(f"not audio that FFmpeg reads: {getattr(error, 'strerror', error)}") from error
            if first is None:
                raise AudioError("it has no samples", status="empty")
            self._source, self._stream, self._first, self._skip = source, stream, first, 0
            self._sought = container not in _GUESS_LENGTH
            self.codec = stream.codec_context.name
            self.rate_hz, self.channels = first.sample_rate, first.layout.nb_channels
            self.frames = int(_announced_s(source, stream, container) * self.rate_hz)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def skip_to(self, frame: int) -> None:
        """Let `blocks` begin at a frame, or near it: time stamps of containers are not always exact.

        Raises:
            AudioError: FFmpeg cannot seek to the frame, or the file ends before it.
        """
        at_s = 0.0
        if self._sought:
            try:
                self._source.seek(frame * av.time_base // self.rate_hz)
                self._frames = self._source.decode(self._stream)
                first = next(self._frames, None)
            except ERRORS as error:
                raise AudioError(f"FFmpeg cannot seek to frame {frame}: {getattr(error, 'strerror', error)}") from error
            if first is None:
                raise AudioError(f"it ends before frame {frame}")
            self._first, at_s = first, first.time or 0.0
        self._skip = max(0, frame - round(at_s * self.rate_hz))

    def blocks(self, frames: int) -> Iterator[Samples]:
        """Yield blocks [n, channels] of at least `frames` samples, up to the end or to where decoding fails."""
        joined = av.AudioFifo()  # since converting each of FFmpeg's short frames takes longer than decoding it
        packer = av.AudioResampler("flt")
        try:
            for frame in chain([self._first], self._frames):
                if (frame.sample_rate, frame.layout.nb_channels) != (self.rate_hz, self.channels):
                    self.broken = True
                    break
                frame.pts = None  # with time stamps, it would have to follow the one before
                joined.write(frame)
                if joined.samples >= frames:
                    yield from self._packed(joined, packer)
        except ERRORS:
            self.broken = True
        if joined.samples:
            yield from self._packed(joined, packer)

    def _packed(self, joined: av.AudioFifo, packer: av.AudioResampler) -> Iterator[Samples]:
        """Yield all samples, interleaved: PyAV reads beyond the planes of a frame that has 8 or more of them."""
        try:
            converted = packer.resample(joined.read())
        except ERRORS:  # a layout of channels that FFmpeg can decode but not convert
            self.broken = True
            return
        for packed in converted:
            samples = packed.to_ndarray().reshape(-1, self.channels).astype(np.float32, copy=False)
            if len(samples) > self._skip:
                yield samples[self._skip :]
            self._skip = max(0, self._skip - len(samples))


def _announced_s(source: av.container.InputContainer, stream: av.AudioStream, container: str) -> float:
    """Return the length of an audio stream according to the container, or 0."""
    if container in _GUESS_LENGTH:
        return 0.0
    if container == "mov" and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # With several streams, this would be the length of the longest.
    return (source.duration or 0) / av.time_base if len(source.streams) == 1 else 0.0
