"""Audio files that libsndfile reads: WAV, FLAC, Ogg, MP3, AIFF and others."""

import os
import re
from collections.abc import Iterator

import numpy as np
import soundfile
from satpipe.pipeline.recordings.recording import is_known_size
from satpipe.pipeline.recordings.resample import Samples, exact_ratio
from satpipe.pipeline.recordings.silenced import silenced
from satpipe.pipeline.recordings.spliced import Layout, SplicedFile
from satpipe.pipeline.storage import RemoteFile, is_remote
from satpipe.sat.errors import AudioError

READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)  # Windows would translate line ends
EXACT_FORMATS = frozenset({"WAV", "WAVEX", "W64", "RF64", "AIFF", "AU", "CAF", "FLAC"})
EXACT_SUBTYPES = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"})
# A FLAC frame takes at least 8 bytes for at most 65,535 samples, an Opus packet 2 for 5,760, a MPEG frame 24 for 576;
# other codecs have at most 5 in a byte.
_MAX_FRAMES_PER_BYTE = {"FLAC": 8192, "OGG": 2880, "MP3": 24}
_OVERSTATED = re.compile(r"^ *(?:data|SSND|riff|Data Size|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_SHORT = np.float32(2**-15)
_OPEN_END = re.compile(r"File ended unexpectedly|lacks an end-of-stream bit")


class SndFile:
    """A file, decoded from its start or from `skip_to` on.

    Attributes:
        frames: Samples per channel, according to the header.
        broken: True if `blocks` met data that cannot be decoded.
    """

    def __init__(self, path: str, layout: Layout | None = None, block_bytes: int | None = None) -> None:
        """Open a file, to be read according to `layout` if given; `block_bytes` is that of `RemoteFile`.

        Raises:
            AudioError: The file cannot be opened, or is not audio that libsndfile reads.
        """
        self.broken = False
        self._path, self._layout, self._at = path, layout, 0
        self._file = _open(path, layout, block_bytes)
        self.frames, self.rate_hz, self.channels = self._file.frames, self._file.samplerate, self._file.channels
        # numpy converts samples of 16 bits to the same numbers several times as fast; a decoder gives what is wanted.
        self._short = self._file.subtype == "PCM_16" and self._file.format != "FLAC"

    @property
    def exact_seek(self) -> bool:
        """True if reading from the middle gives exactly the samples, at 16 kHz, of reading from the start."""
        exact = self._file.format in EXACT_FORMATS and self._file.subtype in EXACT_SUBTYPES
        return exact and exact_ratio(self.rate_hz)

    @property
    def max_frames_per_byte(self) -> int:
        """The most frames that a file of this format can hold per byte."""
        return _MAX_FRAMES_PER_BYTE.get(self._file.format, 8)

    @property
    def problem(self) -> str:
        """Why the file is shorter than its header states, or ""; libsndfile itself reads what exists."""
        log = self._file.extra_info
        for claimed, actual in _OVERSTATED.findall(log):
            missing = int(claimed) - int(actual)
            if missing > 64 and is_known_size(int(claimed)):
                return f"the header announces {missing:,} bytes more than the file has"
        return "the file ends without its end-of-stream mark" if _OPEN_END.search(log) else ""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def skip_to(self, frame: int) -> None:
        """Let `blocks` begin at a frame."""
        self._at = frame
        try:
            with silenced():
                self._file.seek(frame)
        except soundfile.LibsndfileError:
            self.broken = True

    def blocks(self, frames: int) -> Iterator[Samples]:
        """Yield blocks [n, channels] of up to `frames` samples, up to the end or to where decoding fails."""
        while not self.broken:
            try:
                with silenced():
                    block = self._file.read(frames, dtype="int16" if self._short else "float32", always_2d=True)
            except soundfile.LibsndfileError:
                self._file.check_source()
                # The break is within this block: approach it in smaller and smaller steps.
                frames //= 2
                self.broken = not frames
                self._file.close()
                self._file = _open(self._path, self._layout)
                if self._at:
                    self.skip_to(self._at)
                continue
            self._file.check_source()
            if not len(block):
                return
            self._at += len(block)
            yield np.multiply(block, _SHORT, dtype=np.float32) if self._short else block


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file without seeks between reads.

    After every read of a seekable file, soundfile seeks to its current position; in an MP3 file this lands in a
    slightly different place, and the samples after it differ.
    """

    def __init__(self, file: RemoteFile | SplicedFile | int) -> None:
        self._source = file  # first, since a file that cannot be opened is closed too
        with silenced():
            super().__init__(file)

    def seekable(self) -> bool:
        return False

    def check_source(self) -> None:
        """Raise an AudioError if the file seems to end only because its store cannot be read."""
        if not isinstance(self._source, int) and self._source.error:
            raise AudioError(f"its store could not be read: {self._source.error}")

    def close(self) -> None:
        super().close()
        if not isinstance(self._source, int):
            self._source.close()


def _open(path: str, layout: Layout | None, block_bytes: int | None = None) -> _SoundFile:
    try:
        if layout:
            return _SoundFile(SplicedFile(path, layout, block_bytes))
        # By descriptor: given a name, libsndfile treats any file called .au, .snd, .vox or .gsm as audio.
        return _SoundFile(RemoteFile(path, block_bytes) if is_remote(path) else os.open(path, READ_ONLY))
    except soundfile.LibsndfileError as error:
        raise AudioError(f"not audio that libsndfile reads: {error.error_string.strip()}") from error
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise AudioError(f"cannot be opened: {getattr(error, 'strerror', error)}") from error
