"""Open a file of any format: its first bytes, not its name, decide which decoder reads it, and how."""

import re
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from satpipe.pipeline.recordings.chain import Chain, readable
from satpipe.pipeline.recordings.container import examine
from satpipe.pipeline.recordings.flac import examine_flac
from satpipe.pipeline.recordings.libsndfile import SndFile
from satpipe.pipeline.recordings.mp3 import after_tags, examine_mpeg
from satpipe.pipeline.recordings.ogg import examine_ogg
from satpipe.pipeline.recordings.spliced import Contents, Layout
from satpipe.pipeline.storage import READ_BYTES, is_remote, opened
from satpipe.sat.errors import AudioError, install

if TYPE_CHECKING:
    from satpipe.pipeline.recordings.ffmpeg import AvFile

# FFmpeg's demuxers and the first bytes of the files they read. FFmpeg's own guess would also depend on the file's name,
# and could treat a text as a playlist and open the files that it lists.
_FFMPEG = {
    "mov": re.compile(rb".{4}(?:ftyp|moov|mdat|wide|free|skip)", re.DOTALL),
    "asf": re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    "matroska": re.compile(rb"\x1a\x45\xdf\xa3"),
    "aac": re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"),
    "ac3": re.compile(rb"\x0b\x77"),
    "amr": re.compile(rb"#!AMR"),
    "ape": re.compile(rb"MAC "),
    "wv": re.compile(rb"wvpk"),
}
# The same for files that libsndfile reads, unless they have a codec that it does not know.
_FFMPEG_AS_WELL = {
    "wav": re.compile(rb"(?:RIFF|RF64|BW64).{4}WAVE", re.DOTALL),
    "w64": re.compile(rb"riff\x2e\x91\xcf\x11"),
    "aiff": re.compile(rb"FORM.{4}AIF[FC]", re.DOTALL),
    "caf": re.compile(rb"caff"),
    "au": re.compile(rb"\.snd"),
    "ogg": re.compile(rb"OggS"),
}
_MPEG = re.compile(rb"ID3|\xff[\xe2-\xff]")


class Opened(NamedTuple):
    """An open file, FFmpeg's name of its container or "" if libsndfile reads it, and what it holds."""

    file: "SndFile | Chain | AvFile"
    container: str
    contents: Contents


def open_unknown(path: str) -> Opened:
    """Open a file of any format.

    Raises:
        AudioError: The file cannot be opened, or has no audio that can be read (`unreadable`), or no samples (`empty`).
    """
    head = _head(path)
    container = _matching(_FFMPEG, head)
    if container:
        return Opened(open_file(path, container, block_bytes=READ_BYTES), container, Contents())
    try:
        contents = _contents(path, head)
        return Opened(open_file(path, "", contents.layouts, READ_BYTES), "", contents)
    except AudioError as error:
        return _second_try(path, head, error)


def open_file(
    path: str, container: str, layouts: tuple[Layout, ...] = (), block_bytes: int | None = None
) -> "SndFile | Chain | AvFile":
    """Open a file with what `open_unknown` has found out; `block_bytes` is that of `RemoteFile`.

    Raises:
        AudioError: The file cannot be opened, or its container needs an extra that is not installed.
    """
    if container:
        return _ffmpeg(f"not audio that libsndfile reads, but {container}; to read it")(path, container, block_bytes)
    return Chain(path, layouts) if len(layouts) > 1 else SndFile(path, next(iter(layouts), None), block_bytes)


def _second_try(path: str, head: bytes, error: AudioError) -> Opened:
    """Open a file that libsndfile does not read as it is, or raise its error."""
    container = _matching(_FFMPEG_AS_WELL, head)
    if container:
        ffmpeg = _ffmpeg(f"{error}; FFmpeg may read it: for that")
        try:
            file = ffmpeg(path, container, READ_BYTES)
        except AudioError as second:
            raise AudioError(f"{error}; {second}") from second
        if file.codec.startswith("pcm_"):  # which libsndfile would read if the header were right
            file.close()
            raise error
        return Opened(file, container, Contents(problem=_examined(path, partial(examine, name=path)).problem))
    contents = _examined(path, examine_mpeg)
    if not contents.layouts:
        raise error
    return Opened(open_file(path, "", contents.layouts, READ_BYTES), "", contents)


def _ffmpeg(otherwise: str) -> "type[AvFile]":
    try:
        from satpipe.pipeline.recordings.ffmpeg import AvFile
    except ImportError as error:
        raise AudioError(f"{otherwise}, {install('ffmpeg')}") from error
    return AvFile


def _contents(path: str, head: bytes) -> Contents:
    if _FFMPEG_AS_WELL["ogg"].match(head):
        contents = _examined(path, examine_ogg)
        return readable(path, contents.layouts) if contents.layouts else contents
    return _examined(path, _tagged if _MPEG.match(head) else partial(examine, name=path))


def _tagged(file: IO[bytes], size_bytes: int) -> Contents:
    """Examine MPEG audio, or FLAC behind a tag."""
    begin = after_tags(file)
    file.seek(begin)
    return examine_flac(file, size_bytes, begin) if file.read(4) == b"fLaC" else examine_mpeg(file, size_bytes)


def _examined(path: str, how: Callable[[IO[bytes], int], Contents]) -> Contents:
    try:
        with opened(path) as file:
            return how(file, file.seek(0, 2))
    except OSError as error:
        raise AudioError(f"cannot be read: {error.strerror or error}") from error


def _head(path: str) -> bytes:
    try:
        # Opening a named pipe would wait until someone writes to it.
        if not is_remote(path) and stat.S_ISFIFO(Path(path).stat().st_mode):
            raise AudioError("a named pipe, not a file")
        with opened(path) as file:
            head = file.read(16)
    except (OSError, ValueError) as error:
        raise AudioError(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    if not head:
        raise AudioError("the file is empty (0 bytes)")
    return head


def _matching(formats: dict[str, re.Pattern[bytes]], head: bytes) -> str:
    return next((name for name, magic in formats.items() if magic.match(head)), "")
