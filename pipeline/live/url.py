"""Live audio from URLs, through FFmpeg. Importing it needs PyAV, the extra `ffmpeg`."""

from collections.abc import Iterator
from time import monotonic, sleep
from urllib.parse import urlsplit

import av
import numpy as np
from satpipe.pipeline.live.source import Gap, SourceOptions
from satpipe.pipeline.recordings.ffmpeg import ERRORS
from satpipe.pipeline.recordings.recording import check_rate
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.errors import AudioError

REAL_TIME = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp"})  # schemes of live streams
OPEN_TIMEOUT_S = 10.0
RETRY_S = 0.5
# Some containers round time stamps to milliseconds, some cameras more; a lost packet is 20 ms or longer.
MIN_JUMP_S = 0.015
OPTIONS = {"rtsp_transport": "tcp"}  # over UDP, FFmpeg's first choice, packets are lost needlessly


class Url:
    """The best audio stream of a URL that FFmpeg can open: RTSP, HTTP, HLS and others.

    A live URL that breaks off is opened again; the time until then is a gap.
    """

    def __init__(self, name: str, options: SourceOptions) -> None:
        """Open the URL and decode the first frame.

        Raises:
            AudioError: The URL cannot be reached, or has no audio.
        """
        self.name = name
        self.live = options.live or urlsplit(name).scheme in REAL_TIME
        self._options = options
        self._closed = False
        self._connection = _Connection(name, options.idle_s)
        self.rate_hz, self.channels = self._connection.rate_hz, self._connection.channels

    def blocks(self) -> Iterator[Samples | Gap]:
        """Yield samples as they arrive, and gaps where time stamps jump or the connection was lost."""
        while True:
            try:
                yield from self._connection.blocks()
            finally:
                self._connection.close()
            problem, arrived_s = self._connection.problem, self._connection.arrived_s
            if self._closed or not (self.live or problem):
                return
            if not self.live:
                raise AudioError(f"{self.name}: {problem}")
            if not self._reconnect():
                if not problem:
                    return
                tried = f"reconnecting failed for {self._options.reconnect_s:g} s"
                raise AudioError(f"{self.name}: {problem}, and {tried}")
            missed_s = monotonic() - arrived_s
            yield Gap(round(missed_s * self.rate_hz), f"the connection was lost: {problem or 'it ended'}")

    def _reconnect(self) -> bool:
        """Try to open the URL again; return True on success."""
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
            raise AudioError(f"{self.name}: after reconnecting, it has another rate or number of channels")
        return False

    def close(self) -> None:
        """Stop reading."""
        self._closed = self._connection.closed = True


class _Connection:
    """One connection to a URL.

    Attributes:
        problem: Why `blocks` ended before the stream did, or "".
        arrived_s: Time of the last frame, by the monotonic clock.
        closed: Set it to end `blocks`.
    """

    def __init__(self, url: str, idle_s: float) -> None:
        self.problem, self.arrived_s, self.closed = "", monotonic(), False
        try:
            self._container = av.open(
                url, "r", options=OPTIONS, timeout=(OPEN_TIMEOUT_S, max(idle_s, 1.0)), metadata_errors="replace"
            )
        except ERRORS as error:
            raise AudioError(f"{url}: {_reason(error)}") from error
        self._frames = self._decoded()
        first = next(self._frames, None)
        if first is None:
            self.close()
            raise AudioError(f"{url}: {self.problem or 'it has no audio'}")
        self._first = first
        self.rate_hz, self.channels = first.sample_rate, first.layout.nb_channels
        try:
            check_rate(self.rate_hz)
        except AudioError as error:
            self.close()
            raise AudioError(f"{url}: {error}") from None

    def blocks(self) -> Iterator[Samples | Gap]:
        """Yield samples as they arrive, up to the end or a problem."""
        packer = av.AudioResampler("flt")
        expected: int | None = None  # next frame, according to the stream's time stamps
        frame: av.AudioFrame | None = self._first
        while frame is not None and not self.closed:
            self.arrived_s = monotonic()
            if (frame.sample_rate, frame.layout.nb_channels) != (self.rate_hz, self.channels):
                self.problem = "rate or number of channels have changed"
                return
            at = None if frame.time is None else round(frame.time * self.rate_hz)
            expected = at if expected is None else expected
            if at is not None and expected is not None:
                if abs(at - expected) > MIN_JUMP_S * self.rate_hz:
                    yield _jump(at - expected, self.rate_hz)
                    expected = at
                expected += frame.samples
            for packed in packer.resample(frame):
                yield packed.to_ndarray().reshape(-1, self.channels).astype(np.float32, copy=False)
            frame = next(self._frames, None)

    def _decoded(self) -> Iterator[av.AudioFrame]:
        """Yield decodable frames; others cause a jump of the time stamps."""
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
            self.problem = _reason(error)

    def close(self) -> None:
        """Close the connection."""
        self._container.close()


def _jump(frames: int, rate_hz: int) -> Gap:
    if frames > 0:
        return Gap(frames, "time stamps jump ahead: packets were lost")
    return Gap(0, f"time stamps jump back by {-frames / rate_hz:.3f} s")


def _reason(error: Exception) -> str:
    if isinstance(error, av.ExitError):  # an interrupt, with which PyAV ends a wait
        return "nothing arrived for too long"
    return str(getattr(error, "strerror", None) or error)
