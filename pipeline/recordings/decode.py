"""Files of audio to samples at one rate, 16 kHz unless a tagger wants another, from any point on, in blocks."""

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
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.start_times.from_headers import HeaderTime
from satpipe.pipeline.storage import RemoteFile, is_remote
from satpipe.sat.errors import AudioError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from satpipe.pipeline.recordings.ffmpeg import AvFile

Samples = npt.NDArray[np.float32]

BLOCK_VALUES = 2**18  # samples times channels decoded at a time: 16 s of 16 kHz mono, 1 MB
LARGEST_SAMPLE = 1e9  # beyond it the power of a frame leaves the range of float32
CONTAINER_ROUNDING_S = 1.0  # containers count padding as length, and round it
# Others are no recordings, but damaged headers: from 1 Hz, a file of 1 MB would become 6 days of samples.
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 100, 10_000_000
PRIMING_SAMPLES = 1024  # at 16 kHz, more at higher rates; soxr's filters are shorter than 260 from 4 kHz upwards
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


def is_known_size(size_bytes: int) -> bool:
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
        stamp: When the recording started, as its metadata say.
        parts: The files of a deployment, in the order of time; none of a single file.
    """

    frames: int
    rate_hz: int
    channels: int
    exact_seek: bool
    problem: str
    container: str = ""
    header_time: HeaderTime | None = None
    parts: tuple["Part", ...] = ()

    @property
    def samples(self) -> int:
        """Samples at 16 kHz."""
        return resampled(self.frames, self.rate_hz)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate_hz


@dataclass(frozen=True)
class Part:
    """A file of several that are read as one recording.

    Attributes:
        source: The file.
        info: What its header says.
        begin: Frame of the recording that is its first.
    """

    source: Source
    info: AudioInfo
    begin: int

    @property
    def end(self) -> int:
        """The frame of the recording after its last one."""
        return self.begin + self.info.frames


def file_at(info: AudioInfo, second: float) -> Part | None:
    """Return which file of a deployment has a second of it; None of a single file."""
    frame = round(second * info.rate_hz)
    return next((part for part in reversed(info.parts) if part.begin <= frame), None)


def resampled(frames: int, rate_hz: int, to_hz: int = SAMPLE_RATE_HZ) -> int:
    """Return how many samples at `to_hz` so many frames at `rate_hz` become, as soxr counts them."""
    return (2 * frames * to_hz + rate_hz) // (2 * rate_hz)


def exact_ratio(rate_hz: int, to_hz: int = SAMPLE_RATE_HZ) -> bool:
    """Whether a file resampled from its middle gives the very samples that it gives from the start."""
    return min(rate_hz, to_hz) // gcd(rate_hz, to_hz) <= EXACT_RATIO and rate_hz >= EXACT_RATE_HZ


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
        exact_seek = file.format in EXACT_FORMATS and file.subtype in EXACT_SUBTYPES and exact_ratio(file.samplerate)
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
        from satpipe.pipeline.recordings.ffmpeg import AvFile
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
        if missing > 64 and is_known_size(int(claimed)):
            return f"the header announces {missing:,} bytes more than the file has"
    if _OPEN_END.search(log):
        return "the file ends without its end-of-stream mark"
    return ""


class Reader:
    """The samples of one recording from `start` on, decoded, mixed and resampled in blocks.

    Attributes:
        frames_read: Frames of the recording decoded so far, counted from its start.
        bad_s: Where the first NaN, infinite or absurdly large sample is, seconds; None when there was none. Such
            samples are replaced with silence.
        broken_s: Where decoding broke off before the end that the header announces; None when it did not.
        problem: Why a file of a deployment cannot be read on from there, or "".
    """

    def __init__(
        self, path: str, info: AudioInfo, channel: int | None = None, start: int = 0, rate_hz: int = SAMPLE_RATE_HZ
    ) -> None:
        """Open the file.

        Args:
            path: Of the file; of no meaning for a deployment.
            info: What `probe` returned, or what `satpipe.pipeline.recordings.deployments` made of that.
            channel: Channel to read, counted from 1; None for the mean of all.
            start: First sample wanted, at `rate_hz`. Without `info.exact_seek` and `exact_ratio`, another than 0 is not
                met exactly, and the samples are not quite those of a pass from the start: good enough to listen to.
            rate_hz: Sampling rate wanted.
        """
        self.frames_read = 0
        self.invalid_s: float | None = None
        self.broken_s: float | None = None
        self.problem = ""
        self._info = info
        self._parts = info.parts or (Part(Source("", path, 0, 0), info, 0),)
        self._channel = channel
        self._start = start
        self._rate_hz = rate_hz

    def blocks(self) -> Generator[Samples, None, None]:
        """Yield the samples up to the end of the recording, or up to where decoding breaks.

        Raises:
            AudioError: The file cannot be opened any more.
        """
        rate_hz = self._info.rate_hz
        step = gcd(rate_hz, self._rate_hz)
        up, down = self._rate_hz // step, rate_hz // step
        # Started at a multiple of the ratio and fed a little earlier than wanted, soxr gives the very samples that
        # it gives in a pass from the start.
        priming = PRIMING_SAMPLES * max(1, -(-self._rate_hz // SAMPLE_RATE_HZ))
        aligned = max(0, self._start - priming) // up
        skip = self._start - aligned * up
        self.frames_read = aligned * down
        resampler = (
            None if up == down else soxr.ResampleStream(rate_hz, self._rate_hz, 1, dtype="float32", quality=QUALITY)
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
            yield rest[skip : max(0, resampled(self.frames_read, rate_hz, self._rate_hz) - given)]

    def _decoded(self) -> Iterator[Samples]:
        """Yield mono blocks at the file's rate from frame `frames_read` on."""
        for part in self._parts:
            if self.broken_s is None and (self.frames_read < part.end or part is self._parts[-1]):
                yield from self._of_part(part)

    def _of_part(self, part: Part) -> Iterator[Samples]:
        info = part.info
        # As little as becomes BLOCK_VALUES at the rate wanted, should that be more.
        frames = max(1, min(BLOCK_VALUES // info.channels, BLOCK_VALUES * info.rate_hz // self._rate_hz))
        try:
            for block in self._from_container(part, frames) if info.container else self._from_file(part, frames):
                longer = bool(self._info.parts) and self.frames_read + len(block) > part.end
                if block.shape[1] != info.channels or longer:
                    raise AudioError("it has changed since it was looked at")
                yield mix(block) if self._channel is None else block[:, self._channel - 1]
        except AudioError as error:
            if not self._info.parts:
                raise
            self.problem, self.broken_s = str(error), self.frames_read / info.rate_hz

    def _from_container(self, part: Part, frames: int) -> Iterator[Samples]:
        """Yield blocks [n, channels] of a container."""
        with closing(_open_container(part.source.path, part.info.container)) as file:
            if self.frames_read:  # a container is never part of a deployment
                file.skip_to(self.frames_read)
            yield from file.blocks(frames)
        missing_s = part.info.duration_s - self.frames_read / part.info.rate_hz
        if file.broken or missing_s > CONTAINER_ROUNDING_S:
            self.broken_s = self.frames_read / part.info.rate_hz

    def _from_file(self, part: Part, frames: int) -> Iterator[Samples]:
        """Yield blocks [n, channels] of a file that libsndfile reads."""
        file = _open(part.source.path)
        try:
            if self.frames_read > part.begin:
                file.seek(self.frames_read - part.begin)
            while frames:
                try:
                    block = file.read(frames, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError:
                    file.check_source()
                    # The block holds the break: come nearer to it in smaller and smaller steps.
                    frames //= 2
                    file.close()
                    file = _open(part.source.path)
                    if self.frames_read > part.begin:
                        file.seek(self.frames_read - part.begin)
                    continue
                file.check_source()
                if not len(block):
                    break
                yield block
        except soundfile.LibsndfileError:
            frames = 0  # it does not even seek there: this is the break
        finally:
            file.close()
        if not frames or self.frames_read < part.end:
            self.broken_s = self.frames_read / part.info.rate_hz

    def _clean(self, block: Samples) -> Samples:
        """Count a block, and replace what is not a sample with silence."""
        block, bad = silence_invalid(block)
        if bad is not None and self.invalid_s is None:
            self.invalid_s = (self.frames_read + bad) / self._info.rate_hz
        self.frames_read += len(block)
        return block


def silence_invalid(block: Samples) -> tuple[Samples, int | None]:
    """Replace what is not a sample with silence; return the block [n], and where the first such place is."""
    good = np.abs(block) <= LARGEST_SAMPLE  # False for NaN
    bad = None if good.all() else int(np.argmin(good))
    block = block if bad is None else np.where(good, block, np.float32(0))
    return np.ascontiguousarray(block, dtype=np.float32), bad


def mix(block: Samples) -> Samples:
    """Mean over channels, [n, channels] -> [n]; numpy's own is ten times slower on so few columns."""
    mixed = block[:, 0].copy()
    with np.errstate(over="ignore", invalid="ignore"):  # `silence_invalid` tells of what is not a sample
        for channel in range(1, block.shape[1]):
            mixed += block[:, channel]
        return mixed / np.float32(block.shape[1])
