"""Live audio from standard input and from growing files."""

import os
import sys
from collections.abc import Iterator
from time import monotonic, sleep
from typing import BinaryIO

from satpipe.pipeline.live.raw_samples import WAV_MAGIC, Pcm, read_wav_header
from satpipe.pipeline.live.source import Gap, SourceOptions
from satpipe.pipeline.recordings.recording import HIGHEST_RATE_HZ, LOWEST_RATE_HZ
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.errors import AudioError, ConfigError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

STDIN = "-"
DEFAULT_ENCODING = "s16le"
READ_BYTES = 2**16
POLL_S = 0.01  # how often a file is checked for growth


def _raw(options: SourceOptions, encoding: str) -> Pcm:
    rate_hz, channels = options.rate_hz or SAMPLE_RATE_HZ, options.channels or 1
    if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
        raise ConfigError(f"--rate-hz must be from {LOWEST_RATE_HZ:,} to {HIGHEST_RATE_HZ:,}, not {rate_hz:,}")
    return Pcm(encoding, rate_hz, channels)


class Pipe:
    """Samples on standard input: raw, or a WAV file."""

    def __init__(self, options: SourceOptions, file: BinaryIO | None = None) -> None:
        """Read the header, if any, of `file` or standard input.

        Raises:
            ConfigError: Standard input is closed or a terminal, or an option is wrong.
            AudioError: The header cannot be read.
        """
        self.name, self.live = STDIN, options.live
        if file is None and sys.stdin is None:
            raise ConfigError("standard input is closed: pipe samples into it, or name another source")
        self._descriptor = (file or sys.stdin.buffer).fileno()
        if os.isatty(self._descriptor):
            raise ConfigError("standard input is a terminal: pipe samples into it, or name another source")
        self._head = b""
        if options.encoding is None:
            self._head = self._exactly(4)
        self._left: int | None = None  # bytes of samples to come, if known
        if self._head in WAV_MAGIC:
            header = read_wav_header(self._exactly)
            self._pcm, self._left = header.pcm, header.data_bytes
        else:
            self._pcm = _raw(options, options.encoding or DEFAULT_ENCODING)
        self.rate_hz, self.channels = self._pcm.rate_hz, self._pcm.channels

    def _exactly(self, size: int) -> bytes:
        """Return this number of bytes, fewer at the end; those already read to detect the format come first."""
        content, self._head = self._head, b""
        while len(content) < size and (more := os.read(self._descriptor, size - len(content))):
            content += more
        return content

    def blocks(self) -> Iterator[Samples | Gap]:
        """Yield samples as soon as they arrive; an incomplete last frame is dropped."""
        pending = self._head
        # Not through sys.stdin, whose lock a thread that waits for input would hold when the program ends.
        while content := os.read(self._descriptor, READ_BYTES if self._left is None else min(READ_BYTES, self._left)):
            self._left = None if self._left is None else self._left - len(content)
            content = pending + content
            whole = len(content) // self._pcm.frame_bytes * self._pcm.frame_bytes
            if whole:
                yield self._pcm.decode(content[:whole])
            pending = content[whole:]

    def close(self) -> None:
        """Do nothing: the writer ends a pipe."""


class GrowingFile:
    """A WAV file or a file of raw samples that is still being written: followed until it stops growing."""

    def __init__(self, name: str, options: SourceOptions) -> None:
        """Open the file and read its header.

        Raises:
            ConfigError: The file cannot be opened, or an option is wrong.
            AudioError: The header cannot be read.
        """
        self.name, self.live = name, options.live
        self._idle_s, self._closed = options.idle_s, False
        raw = None if options.encoding is None else _raw(options, options.encoding)
        self._has_header = raw is None
        try:
            self._file = open(name, "rb", buffering=0)  # noqa: SIM115 - another thread reads it to the end
        except OSError as error:
            raise ConfigError(f"{name}: {error.strerror}") from error
        try:
            self._pcm, self._start = (raw, 0) if raw else self._header()
        except AudioError as error:
            self._file.close()
            raise AudioError(f"{name}: {error}; for raw samples, set --format") from error
        self.rate_hz, self.channels = self._pcm.rate_hz, self._pcm.channels

    def _header(self) -> tuple[Pcm, int]:
        """Read the header of a WAV file; wait for it if it is not complete."""
        begun = monotonic()
        while True:
            self._file.seek(0)
            try:
                header = read_wav_header(self._file.read)
                return header.pcm, header.data_start
            except AudioError:
                self._file.seek(0)
                head = self._file.read(4)
                never = head not in WAV_MAGIC and not WAV_MAGIC[0].startswith(head)
                if never or monotonic() - begun >= self._idle_s:
                    raise
            sleep(POLL_S)

    def blocks(self) -> Iterator[Samples | Gap]:
        """Yield the samples in the file, then those appended to it."""
        at, grown_s = self._start, monotonic()
        size_bytes = max(READ_BYTES, self._pcm.frame_bytes)
        try:
            while not self._closed:
                size = os.fstat(self._file.fileno()).st_size
                if size < at:
                    raise AudioError("the file became shorter while it was read")
                count = min(size_bytes, self._end(size) - at) // self._pcm.frame_bytes * self._pcm.frame_bytes
                if count > 0:
                    self._file.seek(at)
                    content = self._file.read(count)
                    at, grown_s = at + count, monotonic()
                    yield self._pcm.decode(content)
                elif monotonic() - grown_s >= self._idle_s:
                    return
                else:
                    sleep(POLL_S)
        finally:
            self._file.close()

    def _end(self, size: int) -> int:
        """Return the position at which the samples end in a file of this size.

        Programs write the sizes in a WAV file's header when they close it. Until then the header contains zeros, the
        largest number or the size of the first second; if the file is larger than the header states, it is unfinished.
        """
        if not self._has_header:
            return size
        self._file.seek(0)
        head = self._file.read(self._start)
        whole, samples = head[4:8], head[-4:]
        if head[12:16] == b"ds64":  # RF64, for more than 4 GB
            whole, samples = head[20:28], head[28:36]
        if int.from_bytes(whole, "little") + 8 < size:
            return size
        return min(size, self._start + int.from_bytes(samples, "little"))

    def close(self) -> None:
        """Stop following the file."""
        self._closed = True
