"""Streams that follow each other in a file, decoded by libsndfile as one recording."""

from collections.abc import Iterator, Sequence
from contextlib import closing

from satpipe.pipeline.recording_warnings import warning
from satpipe.pipeline.recordings.libsndfile import SndFile
from satpipe.pipeline.recordings.resample import Samples
from satpipe.pipeline.recordings.spliced import Contents, Layout
from satpipe.pipeline.storage import READ_BYTES
from satpipe.sat.errors import AudioError


class Chain:
    """Streams of one rate and number of channels, decoded from the first one or from `skip_to` on.

    Attributes:
        broken: True if `blocks` met data that cannot be decoded.
    """

    frames, exact_seek, problem = 0, False, ""

    def __init__(self, path: str, streams: Sequence[Layout]) -> None:
        """Open the first stream.

        Raises:
            AudioError: It cannot be opened.
        """
        self.broken = False
        self._path, self._streams, self._skip = path, streams, 0
        with closing(SndFile(path, streams[0], READ_BYTES)) as file:
            self.rate_hz, self.channels = file.rate_hz, file.channels
            self.max_frames_per_byte = file.max_frames_per_byte

    def close(self) -> None:
        """Do nothing: `blocks` closes the streams that it opens."""

    def skip_to(self, frame: int) -> None:
        """Let `blocks` begin at a frame."""
        self._skip = frame

    def blocks(self, frames: int) -> Iterator[Samples]:
        """Yield blocks [n, channels] of up to `frames` samples, up to the end or to where decoding fails.

        Raises:
            AudioError: A stream can no longer be opened.
        """
        for stream in self._streams:
            with closing(SndFile(self._path, stream)) as file:
                if self._skip >= file.frames:
                    self._skip -= file.frames
                    continue
                if self._skip:
                    file.skip_to(self._skip)
                    self._skip = 0
                yield from file.blocks(frames)
                self.broken = file.broken
            if self.broken:
                return


def readable(path: str, streams: Sequence[Layout]) -> Contents:
    """Return those of several streams that can be decoded as one recording, and their length.

    Streams that libsndfile cannot read are left out. A stream of another rate or number of channels ends the recording.

    Raises:
        AudioError: No stream can be read.
    """
    kept: list[Layout] = []
    unreadable: list[str] = []
    frames, problem, form = 0, "", None
    for stream in streams:
        try:
            with closing(SndFile(path, stream, READ_BYTES)) as file:
                found = file.rate_hz, file.channels
                form = form or found
                problem = file.problem
                if found != form:
                    problem = f"a stream of {found[0]:,} Hz and {found[1]} channels follows"
                    break
                frames += file.frames
                kept.append(stream)
        except AudioError as error:
            unreadable.append(f"the one at byte {stream.pieces[0].begin:,} cannot be read: {error}")
    if not kept:
        raise AudioError(unreadable[0])
    details = "; ".join([f"{len(streams):,} follow each other in the file", *unreadable[:1]])
    return Contents(tuple(kept), (warning("chained streams", details),), problem, frames=frames)
