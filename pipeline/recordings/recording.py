"""A recording as the tables name it: a file, or one channel of a file."""

from dataclasses import dataclass

from satpipe.pipeline.recordings.audio_info import AudioInfo
from satpipe.pipeline.recordings.find import Source


@dataclass(frozen=True)
class Recording:
    """A recording as the tables name it.

    Attributes:
        name: Its name in the tables.
        source: Its file, or files.
        channel: Channel to read, counted from 1; None for the mean of all.
        info: What the header states.
    """

    name: str
    source: Source
    channel: int | None
    info: AudioInfo


def recordings_of(source: Source, info: AudioInfo, channels: str) -> list[Recording]:
    """Return the recordings to tag from a file.

    Args:
        source: The file.
        info: What its header states.
        channels: `mix`, `split` (each channel is a separate recording, named `NAME#ch1`, `NAME#ch2`, ...) or a channel
            number from 1.
    """
    if channels == "mix" or (channels == "split" and info.channels == 1):
        return [Recording(source.recording, source, None, info)]
    if channels == "split":
        numbers = range(1, info.channels + 1)
        return [Recording(f"{source.recording}#ch{number}", source, number, info) for number in numbers]
    return [Recording(source.recording, source, int(channels), info)]
