"""Where live sound comes from: standard input and files that grow; devices and URLs have modules of their own."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from satpipe.pipeline.recordings.resample import Samples

STDIN = "-"


DEVICE = "device:"


REAL_TIME = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp"})  # schemes of what is made as it is sent


@dataclass(frozen=True)
class Gap:
    """In place of samples: sound that was made, and did not come.

    Attributes:
        frames: How much, at the source's rate; 0 where nobody knows.
        reason: Why, in words.
    """

    frames: int
    reason: str


class LiveSource(Protocol):
    """Something to listen to, opened.

    Attributes:
        name: As it was asked for.
        live: Its sound is made while it is read: it does not wait for a reader that is too slow.
        rate_hz: Sampling rate.
        channels: Number of channels.
    """

    name: str
    live: bool
    rate_hz: int
    channels: int

    def blocks(self) -> Iterator[Samples | Gap]:
        """Yield blocks [n, channels] as they come, to the end.

        Raises:
            AudioError: It broke off.
        """

    def close(self) -> None:
        """Have `blocks` end soon; another thread may be in it."""


@dataclass(frozen=True)
class SourceOptions:
    """How sources are to be read.

    Attributes:
        encoding: Of raw samples, one of `pcm.ENCODINGS`; None: WAV, or DEFAULT_ENCODING on standard input.
        rate_hz: Of raw samples, or asked of a device.
        channels: The same.
        live: Sources that could wait are taken for ones that cannot.
        idle_s: A file that does not grow for so long has ended; a URL or a device that is silent for so long is lost.
        reconnect_s: How long a live URL that is lost is tried again.
    """

    encoding: str | None = None
    rate_hz: int | None = None
    channels: int | None = None
    live: bool = False
    idle_s: float = 10.0
    reconnect_s: float = 30.0
