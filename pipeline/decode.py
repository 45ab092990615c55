"""Files of audio to 16 kHz samples, from any point on, in blocks."""

import os
import re
import stat
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from pipeline.location import RemoteFile, is_remote
from sat.config import SAMPLE_RATE_HZ
from sat.errors import AudioError

if TYPE_CHECKING:
    from pipeline.decode_av import AvFile

Samples = npt.NDArray[np.float32]

BLOCK_VALUES = 2**18  # samples times channels decoded at a time: 16 s of 16 kHz mono, 1 MB
LARGEST_SAMPLE = 1e9  # beyond it the power of a frame leaves the range of float32
CONTAINER_ROUNDING_S = 1.0  # containers count padding as length, and round it
# Others are no recordings, but damaged headers: from 1 Hz, a file of 1 MB would become 6 days of samples.
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 100, 10_000_000
PRIMING_SAMPLES = 1024  # at 16 kHz; soxr's filters are shorter than 260 from 4 kHz upwards
# In double precision a stream begun anywhere gives the same float32 samples; "HQ", in single precision, gives others
# by 1e-7, which a quiet band turns into 3e-5 of a score.
QUALITY = "VHQ"
# soxr keeps the phase of these ratios exactly; that of others drifts by 1e-4 within minutes.
EXACT_RATIO = 1000
EXACT_RATE_HZ = 4000
EXACT_FORMATS = frozenset({"WAV", "WAVEX", "W64", "RF64", "AIFF", "AU", "CAF", "FLAC"})
EXACT_SUBTYPES = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"})
# A FLAC frame takes 8 bytes or more and has at most 65,535 samples; other formats have fewer in as many bytes.
MOST_FRAMES_A_BYTE = 8192
# What a file begins with that FFmpeg reads, and the demuxer for it. FFmpeg's own guess would heed the name of the file
# too, and take a text for a playlist and open what it lists.
_CONTAINERS = {
    "mov": re.compile(rb".{4}(?:ftyp|moov|mdat|wide|free|skip)", re.DOTALL),
    "asf": re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    "matroska": re.compile(rb"\x1a\x45\xdf\xa3"),
    "aac": re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"),
    "ac3": re.compile(rb"\x0b\x77"),
    "amr": re.compile(rb"#!AMR"),
    "ape": re.compile(rb"MAC "),
    "wv": re.compile(rb"wvpk"),
}
_OVERSTATED = re.compile(r"^ *(?:data|SSND|riff|Data Size|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_OPEN_END = re.compile(r"File ended unexpectedly|lacks an end-of-stream bit")


def _tells_length(size_bytes: int) -> bool:
    """Whether a size in a header is one: programs that write to a pipe put the largest number there."""
    return not (0x7FFFF000 <= size_bytes <= 0x80000000 or 0xFFFFF000 <= size_bytes < 2**32 or size_bytes >= 2**62)


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a file says.

    Attributes:
        frames: Samples of one channel; 0 when the header does not tell. Of a container, within CONTAINER_ROUNDING_S.
        rate_hz: Sampling rate.
        channels: Number of channels.
        exact_seek: Reading from the middle gives the very samples that reading from the start gives.
        problem: Why the recording is known to be cut off, or "".
        container: FFmpeg's name of the demuxer that reads it; "" when libsndfile does.
    """

    frames: int
    rate_hz: int
    channels: int
    exact_seek: bool
    problem: str
    container: str = ""

    @property
    def samples(self) -> int:
        """Samples at 16 kHz."""
        return resampled(self.frames, self.rate_hz)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate_hz


def resampled(frames: int, rate_hz: int) -> int:
    """Return how many samples at 16 kHz so many frames at `rate_hz` become, as soxr counts them."""
    return (2 * frames * SAMPLE_RATE_HZ + rate_hz) // (2 * rate_hz)


def probe(path: str, size_bytes: int) -> AudioInfo:
    """Read the header of a file.

    Raises:
        AudioError: It cannot be opened (`unreadable`), or holds no sample (`empty`).
    """
    container = _container(path)
    info = _probe_container(path, container) if container else _probe_file(path)
    if not LOWEST_RATE_HZ <= info.rate_hz <= HIGHEST_RATE_HZ:
        raise AudioError(f"the header announces a sampling rate of {info.rate_hz:,} Hz")
    if info.frames > size_bytes * MOST_FRAMES_A_BYTE:
        problem = f"the header announces {info.duration_s:,.0f} s, more than the file can hold"
        if info.frames >= 2**62:  # what libsndfile says of a FLAC that was written to a pipe
            problem = info.problem
        return replace(info, frames=0, exact_seek=False, problem=problem)
    return info


def _probe_file(path: str) -> AudioInfo:
    with _open(path) as file:
        if file.frames == 0:
            raise AudioError("the file has a header but no samples", status="empty")
        ratio = min(file.samplerate, SAMPLE_RATE_HZ) // gcd(file.samplerate, SAMPLE_RATE_HZ)
        exact_seek = (
            file.format in EXACT_FORMATS
            and file.subtype in EXACT_SUBTYPES
            and ratio <= EXACT_RATIO
            and file.samplerate >= EXACT_RATE_HZ
        )
        return AudioInfo(file.frames, file.samplerate, file.channels, exact_seek, _cut_off(file))


def _probe_container(path: str, container: str) -> AudioInfo:
    with closing(_open_container(path, container)) as file:
        return AudioInfo(file.frames, file.rate_hz, file.channels, exact_seek=False, problem="", container=container)


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read on from where it stands.

    soundfile seeks after every read of a file that can seek, to where it is already; in an MP3 that is not quite the
    same place, and the samples after it are others.
    """

    def __init__(self, file: RemoteFile | int) -> None:
        self._source = file  # first, since a file that cannot be opened is closed too
        super().__init__(file)

    def seekable(self) -> bool:
        return False

    def check_source(self) -> None:
        """Raise an AudioError if the file seemed to end only because its store could not be read."""
        if isinstance(self._source, RemoteFile) and self._source.error:
            raise AudioError(f"its store could not be read: {self._source.error}")

    def close(self) -> None:
        super().close()
        if isinstance(self._source, RemoteFile):
            self._source.close()


def _container(path: str) -> str:
    """Return FFmpeg's demuxer for a file, told from how it begins, or ""; none of these is libsndfile's."""
    try:
        # Opening a named pipe would wait for someone to write into it.
        if not is_remote(path) and stat.S_ISFIFO(os.stat(path).st_mode):
            raise AudioError("a named pipe, not a file")
        with RemoteFile(path) if is_remote(path) else open(path, "rb") as file:
            head = file.read(16)
    except (OSError, ValueError) as error:
        raise AudioError(f"cannot be opened: {getattr(error, 'strerror', error)}") from error
    if not head:
        raise AudioError("the file is empty (0 bytes)")
    return next((name for name, magic in _CONTAINERS.items() if magic.match(head)), "")


def _open_container(path: str, container: str) -> "AvFile":
    try:
        from pipeline.decode_av import AvFile
    except ImportError as error:
        reason = f"not audio that libsndfile reads; with `pip install 'satpipe[ffmpeg]'` it is ({container})"
        raise AudioError(reason) from error
    return AvFile(path, container)


def _open(path: str) -> _SoundFile:
    try:
        # By descriptor: given a name, libsndfile takes any file called .au, .snd, .vox or .gsm for audio.
        return _SoundFile(RemoteFile(path) if is_remote(path) else os.open(path, os.O_RDONLY))
    except soundfile.LibsndfileError as error:
        raise AudioError(f"not audio that libsndfile reads: {error.error_string.strip()}") from error
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise AudioError(f"cannot be opened: {getattr(error, 'strerror', error)}") from error


def _cut_off(file: soundfile.SoundFile) -> str:
    """Return why a file is shorter than its header says, or ""; libsndfile itself trusts what is there."""
    log = file.extra_info
    for claimed, actual in _OVERSTATED.findall(log):
        missing = int(claimed) - int(actual)
        if missing > 64 and _tells_length(int(claimed)):
            return f"the header announces {missing:,} bytes more than the file has"
    if _OPEN_END.search(log):
        return "the file ends without its end-of-stream mark"
    return ""


class Reader:
    """The 16 kHz samples of one recording from `start` on, decoded, mixed and resampled in blocks.

    Attributes:
        frames_read: Frames of the file decoded so far, counted from its start.
        bad_s: Where the first NaN, infinite or absurdly large sample is, seconds; None when there was none. Such
            samples are replaced with silence.
        broken_s: Where decoding broke off before the end that the header announces; None when it did not.
    """

    def __init__(self, path: str, info: AudioInfo, channel: int | None = None, start: int = 0) -> None:
        """Open the file.

        Args:
            path: Of the file.
            info: What `probe` returned.
            channel: Channel to read, counted from 1; None for the mean of all.
            start: First sample wanted, at 16 kHz. Without `info.exact_seek`, another than 0 is not met exactly, and the
                samples are not quite those of a pass from the start: good enough to listen to.
        """
        self.frames_read = 0
        self.bad_s: float | None = None
        self.broken_s: float | None = None
        self._path = path
        self._info = info
        self._channel = channel
        self._start = start

    def blocks(self) -> Generator[Samples, None, None]:
        """Yield the samples up to the end of the recording, or up to where decoding breaks.

        Raises:
            AudioError: The file cannot be opened any more.
        """
        rate_hz = self._info.rate_hz
        step = gcd(rate_hz, SAMPLE_RATE_HZ)
        up, down = SAMPLE_RATE_HZ // step, rate_hz // step
        # Started at a multiple of the ratio and fed a little earlier than wanted, soxr gives the very samples that
        # it gives in a pass from the start.
        aligned = max(0, self._start - PRIMING_SAMPLES) // up
        skip = self._start - aligned * up
        self.frames_read = aligned * down
        resampler = (
            None if up == down else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality=QUALITY)
        )
        given = aligned * up
        for block in self._decoded():
            samples = self._clean(block)
            if resampler is not None:
                samples = resampler.resample_chunk(samples)
            given += len(samples)
            if len(samples) > skip:
                yield samples[skip:]
            skip = max(0, skip - len(samples))
        if resampler is not None:
            rest = resampler.resample_chunk(np.empty(0, np.float32), last=True)
            yield rest[skip : max(0, resampled(self.frames_read, rate_hz) - given)]

    def _decoded(self) -> Iterator[Samples]:
        """Yield mono blocks at the file's rate from frame `frames_read` on."""
        info = self._info
        # As little as becomes BLOCK_VALUES at 16 kHz, should that be more.
        frames = max(1, min(BLOCK_VALUES // info.channels, BLOCK_VALUES * info.rate_hz // SAMPLE_RATE_HZ))
        for block in self._from_container(frames) if info.container else self._from_file(frames):
            if block.shape[1] != info.channels:
                raise AudioError("it has changed since it was looked at")
            yield _mix(block) if self._channel is None else block[:, self._channel - 1]

    def _from_container(self, frames: int) -> Iterator[Samples]:
        """Yield blocks [n, channels] of a container."""
        with closing(_open_container(self._path, self._info.container)) as file:
            if self.frames_read:
                file.skip_to(self.frames_read)
            yield from file.blocks(frames)
        missing_s = self._info.duration_s - self.frames_read / self._info.rate_hz
        if file.broken or missing_s > CONTAINER_ROUNDING_S:
            self.broken_s = self.frames_read / self._info.rate_hz

    def _from_file(self, frames: int) -> Iterator[Samples]:
        """Yield blocks [n, channels] of a file that libsndfile reads."""
        file = _open(self._path)
        try:
            if self.frames_read:
                file.seek(self.frames_read)
            while frames:
                try:
                    block = file.read(frames, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError:
                    file.check_source()
                    # The block holds the break: come nearer to it in smaller and smaller steps.
                    frames //= 2
                    file.close()
                    file = _open(self._path)
                    if self.frames_read:
                        file.seek(self.frames_read)
                    continue
                file.check_source()
                if not len(block):
                    break
                yield block
        except soundfile.LibsndfileError:
            frames = 0  # it does not even seek there: this is the break
        finally:
            file.close()
        if not frames or self.frames_read < self._info.frames:
            self.broken_s = self.frames_read / self._info.rate_hz

    def _clean(self, block: Samples) -> Samples:
        """Count a block, and replace what is not a sample with silence."""
        good = np.abs(block) <= LARGEST_SAMPLE  # False for NaN
        if not good.all():
            if self.bad_s is None:
                self.bad_s = (self.frames_read + int(np.argmin(good))) / self._info.rate_hz
            block = np.where(good, block, np.float32(0))
        self.frames_read += len(block)
        return np.ascontiguousarray(block, dtype=np.float32)


def _mix(block: Samples) -> Samples:
    """Mean over channels, [n, channels] -> [n]; numpy's own is ten times slower on so few columns."""
    mixed = block[:, 0].copy()
    with np.errstate(over="ignore", invalid="ignore"):  # `_clean` tells of what is not a sample
        for channel in range(1, block.shape[1]):
            mixed += block[:, channel]
        return mixed / np.float32(block.shape[1])
