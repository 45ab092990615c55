"""The interface of live sources, and the options for reading them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Protocol

from satpipe.pipeline.option import Option, Options

if TYPE_CHECKING:
    from satpipe.pipeline.recordings.resample import Samples

MAX_LAG_S = 4.0


@dataclass(frozen=True)
class Gap:
    """Lost audio, yielded in place of samples; `frames` is its length at the source's rate, 0 if unknown."""

    frames: int
    reason: str


class LiveSource(Protocol):
    """An open source of audio.

    Attributes:
        name: Name under which it was opened.
        live: True if its audio is produced in real time, and is lost if the reader is too slow.
    """

    name: str
    live: bool
    rate_hz: int
    channels: int

    def blocks(self) -> "Iterator[Samples | Gap]":
        """Yield blocks [n, channels] as they arrive, until the source ends.

        Raises:
            AudioError: The source broke off.
        """

    def close(self) -> None:
        """Let `blocks` end soon; it may be running in another thread."""


@dataclass(frozen=True)
class SourceOptions(Options):
    """Options for reading live sources."""

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
