"""Live sound from URLs, by FFmpeg. Importing it needs PyAV, the extra `ffmpeg`."""

from collections.abc import Iterator
from time import monotonic, sleep
from urllib.parse import urlsplit

import av
import numpy as np
from satpipe.pipeline.live.source import REAL_TIME, Gap, SourceOptions
from satpipe.pipeline.recordings.ffmpeg import ERRORS
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.errors import AudioError

OPEN_TIMEOUT_S = 10.0
RETRY_S = 0.5
# Time stamps of some containers are whole milliseconds, those of some cameras worse; a lost packet is 20 ms or more.
LEAST_JUMP_S = 0.015
OPTIONS = {"rtsp_transport": "tcp"}  # over UDP, which is FFmpeg's first choice, packets are lost without need


class Url:
    """What FFmpeg plays of a URL: RTSP, HTTP, HLS and the like.

    A live one that breaks off is opened again, and the time that this took is a gap.
    """

    def __init__(self, name: str, options: SourceOptions) -> None:
        """Open it and decode the first piece.

        Raises:
            AudioError: It cannot be reached, or there is no audio in it.
        """
        self.name = name
        self.live = options.live or urlsplit(name).scheme in REAL_TIME
        self._options = options
        self._closed = False
        self._connection = _Connection(name, options.idle_s)
        self.rate_hz, self.channels = self._connection.rate_hz, self._connection.channels

    def blocks(self) -> Iterator[Samples | Gap]:
        """Yield what comes, and gaps where time stamps jump or the connection was lost."""
        while True:
            try:
                yield from self._connection.blocks()
            finally:
                self._connection.close()
            problem, heard_s = self._connection.problem, self._connection.heard_s
            if self._closed or not (self.live or problem):
                return
            if not self.live:
                raise AudioError(f"{self.name}: {problem}")
            if not self._again():
                if not problem:
                    return
                tried = f"could not be reached again in {self._options.reconnect_s:g} s"
                raise AudioError(f"{self.name}: {problem}, and {tried}")
            missed_s = monotonic() - heard_s
            yield Gap(round(missed_s * self.rate_hz), f"the connection was lost: {problem or 'it ended'}")

    def _again(self) -> bool:
        """Try to open the URL again; return whether it did."""
        lost_s = monotonic()
        while not self._closed and monotonic() - lost_s < self._options.reconnect_s:
            try:
                self._connection = _Connection(self.name, self._options.idle_s)
            except AudioError:
                sleep(RETRY_S)
                continue
            if (self._connection.rate_hz, self._connection.channels) == (self.rate_hz, self.channels):
                return True
            self._connection.close()
            raise AudioError(f"{self.name}: it came back with another rate or number of channels")
        return False

    def close(self) -> None:
        """Read no further."""
        self._closed = self._connection.closed = True


class _Connection:
    """One connection to a URL.

    Attributes:
        rate_hz: Sampling rate.
        channels: Number of channels.
        problem: Why `blocks` ended before the stream did, or "".
        heard_s: When the last frame came, by the monotonic clock.
        closed: Set to have `blocks` end.
    """

    def __init__(self, url: str, idle_s: float) -> None:
        self.problem, self.heard_s, self.closed = "", monotonic(), False
        try:
            self._container = av.open(
                url, "r", options=OPTIONS, timeout=(OPEN_TIMEOUT_S, max(idle_s, 1.0)), metadata_errors="replace"
            )
        except ERRORS as error:
            raise AudioError(f"{url}: {_told(error)}") from error
        self._frames = self._decoded()
        first = next(self._frames, None)
        if first is None:
            self.close()
            raise AudioError(f"{url}: {self.problem or 'no audio in it'}")
        self._first = first
        self.rate_hz, self.channels = first.sample_rate, first.layout.nb_channels

    def blocks(self) -> Iterator[Samples | Gap]:
        """Yield what comes up to the end or a problem."""
        packer = av.AudioResampler("flt")
        expected: int | None = None  # frame, by the stream's time stamps
        frame: av.AudioFrame | None = self._first
        while frame is not None and not self.closed:
            self.heard_s = monotonic()
            if (frame.sample_rate, frame.layout.nb_channels) != (self.rate_hz, self.channels):
                self.problem = "rate or number of channels have changed"
                return
            at = None if frame.time is None else round(frame.time * self.rate_hz)
            expected = at if expected is None else expected
            if at is not None and expected is not None:
                if abs(at - expected) > LEAST_JUMP_S * self.rate_hz:
                    yield _jump(at - expected, self.rate_hz)
                    expected = at
                expected += frame.samples
            for packed in packer.resample(frame):
                yield packed.to_ndarray().reshape(-1, self.channels).astype(np.float32, copy=False)
            frame = next(self._frames, None)

    def _decoded(self) -> Iterator[av.AudioFrame]:
        """Yield what can be decoded; what cannot shows as a jump of the time stamps."""
        try:
            stream = self._container.streams.best("audio")
            if not isinstance(stream, av.AudioStream):
                return
            for packet in self._container.demux(stream):
                try:
                    yield from packet.decode()
                except av.InvalidDataError:
                    continue
        except ERRORS as error:
            self.problem = _told(error)

    def close(self) -> None:
        """Close it."""
        self._container.close()


def _jump(frames: int, rate_hz: int) -> Gap:
    if frames > 0:
        return Gap(frames, "time stamps jump ahead: packets were lost")
    return Gap(0, f"time stamps jump back by {-frames / rate_hz:.3f} s")


def _told(error: Exception) -> str:
    if isinstance(error, av.ExitError):  # what FFmpeg makes of an interrupt, which is how PyAV ends a wait
        return "nothing came for too long"
    return str(getattr(error, "strerror", None) or error)
