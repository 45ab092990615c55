"""Files of audio to 16 kHz samples, from any point on, in blocks."""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from sat.config import SAMPLE_RATE_HZ
from sat.errors import AudioError

Samples = npt.NDArray[np.float32]

BLOCK_VALUES = 2**18  # samples times channels decoded at a time: 16 s of 16 kHz mono, 1 MB
LARGEST_SAMPLE = 1e9  # beyond it the power of a frame leaves the range of float32
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
_OVERSTATED = re.compile(r"^ *(?:data|SSND|riff|Data Size|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_OPEN_END = re.compile(r"File ended unexpectedly|lacks an end-of-stream bit")


def _tells_length(size_bytes: int) -> bool:
    """Whether a size in a header is one: programs that write to a pipe put the largest number there."""
    return not 0x7FFFF000 <= size_bytes <= 0x80000000 and size_bytes < 0xFFFFF000


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a file says.

    Attributes:
        frames: Samples of one channel; 0 when the header does not tell.
        rate_hz: Sampling rate.
        channels: Number of channels.
        exact_seek: Reading from the middle gives the very samples that reading from the start gives.
        problem: Why the recording is known to be cut off, or "".
    """

    frames: int
    rate_hz: int
    channels: int
    exact_seek: bool
    problem: str

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
    with _open(path) as file:
        if file.frames == 0:
            raise AudioError("the file has a header but no samples", status="empty")
        frames, problem = file.frames, _cut_off(file)
        if frames > size_bytes * MOST_FRAMES_A_BYTE:
            if frames < 2**62:  # what libsndfile says of a FLAC that was written to a pipe
                problem = f"the header announces {frames / file.samplerate:,.0f} s, more than the file can hold"
            frames = 0
        ratio = min(file.samplerate, SAMPLE_RATE_HZ) // gcd(file.samplerate, SAMPLE_RATE_HZ)
        exact_seek = (
            file.format in EXACT_FORMATS
            and file.subtype in EXACT_SUBTYPES
            and ratio <= EXACT_RATIO
            and file.samplerate >= EXACT_RATE_HZ
            and frames > 0
        )
        return AudioInfo(frames, file.samplerate, file.channels, exact_seek, problem)


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read on from where it stands.

    soundfile seeks after every read of a file that can seek, to where it is already; in an MP3 that is not quite the
    same place, and the samples after it are others.
    """

    def seekable(self) -> bool:
        return False


def _open(path: str) -> _SoundFile:
    try:
        return _SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise AudioError(_reason(path, error)) from error
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise AudioError(f"cannot be opened: {error}") from error


def _reason(path: str, error: soundfile.LibsndfileError) -> str:
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                return "the file is empty (0 bytes)"
    except OSError as os_error:
        return f"cannot be opened: {os_error.strerror}"
    return f"not audio that libsndfile reads: {error.error_string.strip()}"


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
            start: First sample wanted, at 16 kHz; more than 0 needs `info.exact_seek`.
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
        frames = max(1, BLOCK_VALUES // self._info.channels)
        file = _open(self._path)
        try:
            if self.frames_read:
                file.seek(self.frames_read)
            while frames:
                try:
                    block = file.read(frames, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError:
                    # The block holds the break: come nearer to it in smaller and smaller steps.
                    frames //= 2
                    file.close()
                    file = _open(self._path)
                    if self.frames_read:
                        file.seek(self.frames_read)
                    continue
                if not len(block):
                    break
                yield _mix(block) if self._channel is None else block[:, self._channel - 1]
        except soundfile.LibsndfileError:
            pass  # it does not even seek there: this is the break
        finally:
            file.close()
        if self.frames_read < self._info.frames:
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
    for channel in range(1, block.shape[1]):
        mixed += block[:, channel]
    return mixed / np.float32(block.shape[1])
