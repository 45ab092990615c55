"""Where live sound comes from: standard input and files that grow; devices and URLs have modules of their own."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Protocol

from satpipe.pipeline.option import Option, Options

if TYPE_CHECKING:
    from satpipe.pipeline.recordings.resample import Samples

STDIN = "-"
MAX_LAG_S = 4.0


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

    def blocks(self) -> "Iterator[Samples | Gap]":
        """Yield blocks [n, channels] as they come, to the end.

        Raises:
            AudioError: It broke off.
        """

    def close(self) -> None:
        """Have `blocks` end soon; another thread may be in it."""


@dataclass(frozen=True)
class SourceOptions(Options):
    """How live sources are read."""

    encoding: Annotated[
        str | None,
        Option(
            "Encoding of raw samples: s16le, f32le, ...; by default WAV, or s16le from -.",
            metavar="NAME",
            flags=("--format",),
        ),
    ] = None
    rate_hz: Annotated[
        int | None, Option("Sampling rate of raw samples, by default 16000, or of a device.", minimum=1)
    ] = None
    channels: Annotated[
        int | None,
        Option("Channels of raw samples, by default 1, or of a device; their mean is tagged.", minimum=1),
    ] = None
    live: Annotated[
        bool, Option("Treat the input as live: timestamp it and drop audio when processing is too slow.")
    ] = False
    idle_s: Annotated[
        float,
        Option(
            "Treat a file as finished after this many seconds without growth, and a URL or device as lost after this "
            "many seconds without data.",
            minimum=0,
        ),
    ] = 10.0
    reconnect_s: Annotated[float, Option("Seconds during which a lost live URL is opened again.", minimum=0)] = 30.0
