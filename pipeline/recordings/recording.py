"""A recording as the tables name it: a file, or one channel of a file."""

from dataclasses import dataclass

from satpipe.pipeline.recordings.decode import AudioInfo
from satpipe.pipeline.recordings.find import Source


@dataclass(frozen=True)
class Recording:
    """A recording as the tables know it: a file, or one channel of it.

    Attributes:
        name: Its name in the tables.
        source: The file.
        channel: Channel to read, counted from 1; None for the mean of all.
        info: What the file's header says.
    """

    name: str
    source: Source
    channel: int | None
    info: AudioInfo


def recordings_of(source: Source, info: AudioInfo, channels: str) -> list[Recording]:
    """Return what is to be tagged of a file.

    Args:
        source: The file.
        info: Its header.
        channels: `mix`, `split` (each channel is a recording of its own, called `name#ch1`, `name#ch2`, ...) or the
            number of a channel, counted from 1.
    """
    if channels == "mix" or (channels == "split" and info.channels == 1):
        return [Recording(source.recording, source, None, info)]
    if channels == "split":
        numbers = range(1, info.channels + 1)
        return [Recording(f"{source.recording}#ch{number}", source, number, info) for number in numbers]
    return [Recording(source.recording, source, int(channels), info)]
