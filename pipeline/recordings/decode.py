"""Decode audio files to blocks of samples at one rate, 16 kHz unless a tagger needs another, from any point on."""

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.levels import Levels
from satpipe.pipeline.recordings.libsndfile import SndFile
from satpipe.pipeline.recordings.opening import open_file, open_unknown
from satpipe.pipeline.recordings.recording import AudioInfo, Part, check_rate
from satpipe.pipeline.recordings.resample import Samples, one_pass, ratio
from satpipe.sat.errors import AudioError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from satpipe.pipeline.recordings.chain import Chain
    from satpipe.pipeline.recordings.ffmpeg import AvFile

BLOCK_VALUES = 2**18  # samples times channels decoded per block: 16 s of 16 kHz mono, 1 MB
LARGEST_SAMPLE = 1e9  # above it the power of a frame exceeds the range of float32
CONTAINER_ROUNDING_S = 1.0  # containers count padding as length, and round it
PRIMING_SAMPLES = 1024  # at 16 kHz, more at higher rates; soxr's filters are shorter than 260 from 4 kHz upwards


def probe(path: str, size_bytes: int) -> AudioInfo:
    """Read the header of a file.

    Raises:
        AudioError: The file cannot be opened (`unreadable`), or has no samples (`empty`).
    """
    file, container, contents = open_unknown(path)
    with closing(file):
        info = AudioInfo(
            contents.frames or file.frames,
            file.rate_hz,
            file.channels,
            file.exact_seek,
            contents.problem or file.problem,
            container,
            warnings=contents.warnings,
            layouts=contents.layouts,
            quiet=contents.quiet,
        )
        held_bytes = sum(layout.size_bytes for layout in contents.layouts) or size_bytes
        most_frames = file.max_frames_per_byte * held_bytes
    if not info.frames and not container:
        raise AudioError("the file has a header but no samples", status="empty")
    check_rate(info.rate_hz)
    if info.frames > most_frames:
        problem = f"the header announces {info.duration_s:,.0f} s, more than the file can hold"
        if info.frames >= 2**62:  # what libsndfile gives for a FLAC file that was written to a pipe
            problem = info.problem
        return replace(info, frames=0, exact_seek=False, problem=problem)
    return info


class Reader:
    """The samples of one recording from `start` on, decoded, mixed and resampled block by block.

    Attributes:
        frames_read: Frame of the recording up to which it is decoded.
        invalid_s: Position of the first NaN, infinite or absurdly large sample, in seconds; None if there is none.
            Such samples are replaced with silence.
        broken_s: Position at which decoding failed before the end that the header announces; None if it did not.
        problem: Why a file of a deployment cannot be read beyond `broken_s`, or "".
        levels: Counts of the frames that are read, if they are wanted.
    """

    def __init__(
        self,
        path: str,
        info: AudioInfo,
        channel: int | None = None,
        start: int = 0,
        rate_hz: int = SAMPLE_RATE_HZ,
        levels: Levels | None = None,
        kept_open: dict[str, SndFile] | None = None,
    ) -> None:
        """Prepare to read; files are opened by `blocks`.

        Args:
            path: Path of the file; not used for a deployment.
            info: Header data of the file (from `probe`) or of the deployment.
            channel: Channel to read, counted from 1; None for the mean of all.
            start: First sample wanted, at `rate_hz`. Without `info.exact_seek` and `exact_ratio`, a start other than 0
                is approximate, and the samples differ slightly from those of a pass from the start: good enough to
                listen to.
            rate_hz: Sampling rate wanted.
            levels: Counts the frames of the channels that are read.
            kept_open: Files that stay open for the next reader, by path; the caller closes them. In a long MP3 file,
                seeking is several times as fast if the decoder has sought before.
        """
        self.frames_read = 0
        self.invalid_s: float | None = None
        self.broken_s: float | None = None
        self.problem = ""
        self.levels = levels
        self._info = info
        self._parts = info.parts or (Part(Source("", path, 0, 0), info, 0),)
        self._channel = channel
        self._start = start
        self._rate_hz = rate_hz
        self._kept_open = kept_open

    def blocks(self) -> Generator[Samples, None, None]:
        """Yield the samples up to the end of the recording, or up to where decoding fails.

        Raises:
            AudioError: The file can no longer be opened.
        """
        up, down = ratio(self._info.rate_hz, self._rate_hz)
        # Started at a multiple of the ratio and a little earlier than wanted, soxr gives exactly the samples of a pass
        # from the start.
        priming = PRIMING_SAMPLES * max(1, -(-self._rate_hz // SAMPLE_RATE_HZ))
        aligned = max(0, self._start - priming) // up
        skip = self._start - aligned * up
        self.frames_read = aligned * down
        resampler = one_pass(self._info.rate_hz, self._rate_hz, self.frames_read, aligned * up)
        for block in self._decoded():
            samples = resampler.push(self._clean(block))
            if len(samples) > skip:
                yield samples[skip:]
            skip = max(0, skip - len(samples))
        yield resampler.finish()[skip:]

    def _decoded(self) -> Iterator[Samples]:
        """Yield mono blocks at the file's rate from frame `frames_read` on."""
        for part in self._parts:
            if self.broken_s is None and (self.frames_read < part.end or part is self._parts[-1]):
                yield from self._of_part(part)

    def _of_part(self, part: Part) -> Iterator[Samples]:
        info, joined = part.info, bool(self._info.parts)
        # At most BLOCK_VALUES, also at the rate wanted.
        frames = max(1, min(BLOCK_VALUES // info.channels, BLOCK_VALUES * info.rate_hz // self._rate_hz))
        try:
            with self._open(part) as file:
                if self.frames_read > part.begin or self._kept_open is not None:
                    file.skip_to(self.frames_read - part.begin)
                for block in file.blocks(frames):
                    if block.shape[1] != info.channels or (joined and self.frames_read + len(block) > part.end):
                        raise AudioError("the file has changed since its header was read")
                    if self._channel is not None:
                        block = block[:, self._channel - 1 : self._channel]
                    if self.levels:
                        self.levels.add(block, self.frames_read)
                    yield mix(block)
        except AudioError as error:
            if not joined:
                raise
            self.problem, self.broken_s = str(error), self.frames_read / info.rate_hz
            return
        missing_s = (part.end - self.frames_read) / info.rate_hz
        if file.broken or missing_s > (CONTAINER_ROUNDING_S if info.container else 0):
            self.broken_s = self.frames_read / info.rate_hz

    @contextmanager
    def _open(self, part: Part) -> "Iterator[SndFile | Chain | AvFile]":
        path, kept = part.source.path, {} if self._kept_open is None else self._kept_open
        file = kept.pop(path, None) or open_file(path, part.info.container, part.info.layouts)
        try:
            yield file
        finally:
            if self._kept_open is not None and isinstance(file, SndFile) and not file.broken:
                kept[path] = file
            else:
                file.close()

    def _clean(self, block: Samples) -> Samples:
        """Replace invalid samples with silence, and count frames."""
        block, invalid = silence_invalid(block)
        if invalid is not None and self.invalid_s is None:
            self.invalid_s = (self.frames_read + invalid) / self._info.rate_hz
        self.frames_read += len(block)
        return block


def silence_invalid(block: Samples) -> tuple[Samples, int | None]:
    """Replace invalid samples with silence; return the block [n] and the position of the first invalid sample."""
    block = np.ascontiguousarray(block, dtype=np.float32)
    if np.vdot(block, block) <= LARGEST_SAMPLE**2:  # one fast pass; False for NaN
        return block, None
    valid = np.abs(block) <= LARGEST_SAMPLE
    first = None if valid.all() else int(np.argmin(valid))
    return (block if first is None else np.where(valid, block, np.float32(0))), first


def mix(block: Samples) -> Samples:
    """Return the mean over channels, [n, channels] -> [n]; numpy's own is ten times slower on so few columns."""
    if block.shape[1] == 1:
        return block[:, 0].copy()
    with np.errstate(over="ignore", invalid="ignore"):  # `silence_invalid` reports invalid samples
        mixed: Samples = block[:, 0] + block[:, 1]
        for channel in range(2, block.shape[1]):
            mixed += block[:, channel]
        mixed /= np.float32(block.shape[1])
    return mixed
