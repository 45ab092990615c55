"""A recording: header data, files, channel."""

import re
from dataclasses import dataclass

from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.resample import resampled
from satpipe.pipeline.recordings.spliced import Layout
from satpipe.pipeline.start_times.from_headers import HeaderTime
from satpipe.sat.errors import AudioError

# Other rates come from damaged headers: at 1 Hz, a file of 1 MB would become 6 days of samples.
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 100, 10_000_000
_CHANNEL = re.compile(r"#ch([0-9]+)\Z")


@dataclass(frozen=True)
class AudioInfo:
    """Header data of a file.

    Attributes:
        frames: Samples per channel; 0 if the header does not state it. Approximate for containers.
        exact_seek: True if reading from the middle gives exactly the samples that reading from the start gives.
        problem: Why the recording is known to be cut off, or "".
        container: FFmpeg's name of the demuxer that reads the file; "" if libsndfile reads it.
        header_time: Start time in the file's metadata.
        parts: The files of a deployment in chronological order; empty for a single file.
        warnings: From `satpipe.pipeline.recording_warnings`.
        layouts: What libsndfile should read of the file, one after the other; empty for the file as it is.
        quiet: Stretches of silence that the recorder left out, from a frame to a frame, in chronological order.
    """

    frames: int
    rate_hz: int
    channels: int
    exact_seek: bool
    problem: str
    container: str = ""
    header_time: HeaderTime | None = None
    parts: tuple["Part", ...] = ()
    warnings: tuple[str, ...] = ()
    layouts: tuple[Layout, ...] = ()
    quiet: tuple[tuple[int, int], ...] = ()

    @property
    def samples(self) -> int:
        """Number of samples at 16 kHz."""
        return resampled(self.frames, self.rate_hz)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate_hz

    def file_at(self, second: float) -> "Part | None":
        """Return the file of a deployment that contains a second of it; None for a single file."""
        frame = round(second * self.rate_hz)
        return next((part for part in reversed(self.parts) if part.begin <= frame), None)


@dataclass(frozen=True)
class Part:
    """One of several files that are read as one recording; `begin` is the frame of the recording at which it begins."""

    source: Source
    info: AudioInfo
    begin: int

    @property
    def end(self) -> int:
        """Frame of the recording after the file's last one."""
        return self.begin + self.info.frames


@dataclass(frozen=True)
class Recording:
    """A recording to tag.

    Attributes:
        name: Its name in the tables.
        source: Its file, or deployment.
        channel: Channel to read, counted from 1; None for the mean of all.
    """

    name: str
    source: Source
    channel: int | None
    info: AudioInfo


def recordings_of(source: Source, info: AudioInfo, channels: str) -> list[Recording]:
    """Return the recordings to tag from a file.

    `channels` is `mix`, `split` (each channel is a recording, named `NAME#ch1`, `NAME#ch2`, ...) or a number from 1.
    """
    if channels == "mix" or (channels == "split" and info.channels == 1):
        return [Recording(name_of_whole(source.recording, split=channels == "split"), source, None, info)]
    if channels == "split":
        numbers = range(1, info.channels + 1)
        return [Recording(f"{source.recording}#ch{number}", source, number, info) for number in numbers]
    return [Recording(source.recording, source, int(channels), info)]


def name_of_whole(file: str, *, split: bool) -> str:
    """Return the name of a recording that is a whole file: the file's name.

    If channels are split, a file called `NAME#ch2` gets the name `NAME#ch2#ch1`, since `NAME#ch2` is a channel of NAME.
    """
    return f"{file}#ch1" if split and _CHANNEL.search(file) else file


def file_and_channel(recording: str, *, split: bool) -> tuple[str, int | None]:
    """Return the file of a recording and, if channels are split, the channel in the name, counted from 1."""
    channel = _CHANNEL.search(recording) if split else None
    return (recording[: channel.start()], int(channel[1])) if channel else (recording, None)


def check_rate(rate_hz: int) -> None:
    """Check a sampling rate from a header.

    Raises:
        AudioError: No recording has it.
    """
    if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
        raise AudioError(f"the header announces a sampling rate of {rate_hz:,} Hz")


def is_known_size(size_bytes: int) -> bool:
    """Return False for the very large sizes that programs put into a header when they write to a pipe."""
    return not (0x7FFFF000 <= size_bytes <= 0x80000000 or 0xFFFFF000 <= size_bytes < 2**32 or size_bytes >= 2**62)
