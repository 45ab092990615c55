"""Where the samples of a file really begin and end: sizes in headers are claims, and many are false.

Recorders that lose power leave a header that was never finished, or was last updated half way; sizes of 32 bits wrap
round after 4 GiB. The samples extend to the end of the file, unless what follows them is a sequence of chunks up to the
end of the file. Where the header states fewer samples, libsndfile reads the file behind another header.

Sources: Multimedia Programming Interface and Data Specifications 1.0 (RIFF), EBU Tech 3306 and ITU-R BS.2088 (RF64 and
BW64), the Wave64 specification of Sonic Foundry, AIFF-C of Apple (1991), Apple's Core Audio Format Specification, and
the manual page of Sun's audio files.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import IO, NamedTuple

from satpipe.pipeline.recording_warnings import warning
from satpipe.pipeline.recordings.audiomoth import expanded, may_be_triggered
from satpipe.pipeline.recordings.flac import examine_flac
from satpipe.pipeline.recordings.recording import is_known_size
from satpipe.pipeline.recordings.spliced import Contents, Layout, Piece

MAX_CHUNKS = 1000
MAX_HEADER_BYTES = 4096  # of a chunk that describes the samples
TAIL_BYTES = 2**20  # searched for the chunks after samples whose size is not known
MAX_STARTS = 100  # places in it where a chunk seems to begin
SLACK_BYTES = 64  # by which a header and the file may differ
WRAP = 2**32
_GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # the end of the names of Wave64's chunks
_NAMES = (
    b"LIST list id3  ID3  bext iXML axml bxml chna cue  smpl inst plst note labl ltxt fact PEAK JUNK junk PAD  FLLR "
    b"guan wamd _PMX DISP acid afsp levl umid minf elm1 regn ovwf DGDA SyLp Cr8r cart link "  # of WAV
    b"NAME AUTH (c)  ANNO COMT MARK INST APPL MIDI AESD CHAN FVER "  # of AIFF
    b"info uuid strg mark peak free midi edct ovvw kuki pakt chan"  # of CAF
)
_KNOWN = re.compile(b"|".join(re.escape(_NAMES[at : at + 4]) for at in range(0, len(_NAMES), 5)))
_KNOWN_W64 = re.compile(b"[ -~]{4}" + re.escape(_GUID))


class _Style(NamedTuple):
    """How a format writes the name and the size of a chunk."""

    header: struct.Struct
    align: int
    inclusive: bool = False  # the size includes the header
    names: re.Pattern[bytes] = re.compile(rb"[ -~]{4}")
    known: re.Pattern[bytes] = _KNOWN


_LITTLE = _Style(struct.Struct("<4sI"), 2)
_BIG = _Style(struct.Struct(">4sI"), 2)
_CAF = _Style(struct.Struct(">4sq"), 1)
_W64 = _Style(struct.Struct("<16sQ"), 8, inclusive=True, names=_KNOWN_W64, known=_KNOWN_W64)


class _Chunk(NamedTuple):
    name: bytes
    begin: int
    size: int


@dataclass(frozen=True)
class _Samples:
    """The samples of a file.

    Attributes:
        style: How its chunks are written; None for a format without chunks.
        begin: Where they begin.
        claimed: Their size according to the header, -1 if it does not state it.
        format: How they are coded.
        rewrite: True if libsndfile needs another header in any case.
    """

    style: _Style | None
    begin: int
    claimed: int
    format: "_Wave | _Sun"
    rewrite: bool = False

    @property
    def known(self) -> bool:
        """False if the header says that it does not know the size."""
        return self.claimed >= 0 and is_known_size(self.claimed)


@dataclass(frozen=True)
class _Wave:
    """A header as in WAV files, for the content of a chunk `fmt `."""

    description: bytes
    big: bool = False

    @property
    def is_pcm16_mono(self) -> bool:
        """True for 16-bit samples of one channel, as AudioMoths write them."""
        codec, channels, rate_hz, _, block, bits = struct.unpack("<HHIIHH", self.description[:16].ljust(16, b"\0"))
        return not self.big and rate_hz > 0 and (codec, channels, block, bits) == (1, 1, 2, 16)

    @property
    def rate_hz(self) -> int:
        """The sampling rate."""
        return int.from_bytes(self.description[4:8], "big" if self.big else "little")

    @property
    def block(self) -> int:
        """Bytes of a sample of all channels, or of a block of a codec."""
        return max(1, int.from_bytes(self.description[12:14], "big" if self.big else "little"))

    def head(self, size: int) -> bytes | None:
        """Return the header for samples of a size, in RF64 if 32 bits do not hold it."""
        style = _BIG if self.big else _LITTLE
        form = style.header.pack(b"fmt ", len(self.description)) + self.description
        form += bytes(len(form) % 2)
        if size + len(form) + 20 < 0x7FFFF000:
            magic, pieces = b"RIFX" if self.big else b"RIFF", [b"WAVE", form, style.header.pack(b"data", size)]
            return style.header.pack(magic, sum(map(len, pieces)) + size) + b"".join(pieces)
        if self.big:
            return None
        sizes = struct.pack("<4sIQQQI", b"ds64", 28, size + len(form) + 48, size, 0, 0)
        pieces = [style.header.pack(b"RF64", WRAP - 1), b"WAVE", sizes, form, style.header.pack(b"data", WRAP - 1)]
        return b"".join(pieces)


@dataclass(frozen=True)
class _Sun:
    """A header as in AU files, whose size may be unknown; `encoding` is one of theirs."""

    encoding: int
    rate_hz: float
    channels: int
    big: bool = True

    @property
    def block(self) -> int:
        """Bytes of a sample of all channels."""
        return max(1, _SUN_BYTES.get(self.encoding, 1) * self.channels)

    def head(self, size: int) -> bytes | None:
        """Return the header; None if it cannot describe the samples."""
        if not self.encoding or not 1 <= self.rate_hz < 2**31 or not self.channels:
            return None
        numbers = (24, WRAP - 1, self.encoding, round(self.rate_hz), self.channels)
        return struct.pack(">4s5I", b".snd", *numbers) if self.big else struct.pack("<4s5I", b"dns.", *numbers)


_SUN_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
_INTEGERS = {1: 2, 2: 3, 3: 4, 4: 5}  # encodings of AU by bytes per sample
_FLOATS = {4: 6, 8: 7}


def examine(file: IO[bytes], size_bytes: int, name: str) -> Contents:
    """Find out what a file holds; a file of another format, or one whose header is damaged, is left as it is.

    Raises:
        OSError: The file cannot be read.
        AudioError: It cannot be true what the file says.
    """
    file.seek(0)
    magic = file.read(4)
    if magic == b"fLaC":
        return examine_flac(file, size_bytes)
    find = _FINDERS.get(magic)
    found = find(file) if find else None
    if found is None or found.begin >= size_bytes:
        return Contents()
    return _expanded(file, found, _contents(file, found, size_bytes), size_bytes, name)


def _expanded(file: IO[bytes], found: _Samples, contents: Contents, size_bytes: int, name: str) -> Contents:
    """Add the quiet stretches that an AudioMoth left out."""
    if not isinstance(found.format, _Wave) or not found.format.is_pcm16_mono:
        return contents
    file.seek(0)
    if not may_be_triggered(name, file.read(min(found.begin, MAX_HEADER_BYTES))):
        return contents
    sound = contents.layouts[0].pieces[0].size if contents.layouts else min(found.claimed, size_bytes - found.begin)
    pieces = expanded(file, found.begin, found.begin + sound, found.format.rate_hz)
    head = found.format.head(sum(piece.size for piece in pieces)) if pieces else None
    if head is None:
        return contents
    layout = Layout(head, pieces)
    begins = zip(layout.begins, pieces, strict=False)
    quiet = tuple(
        ((at - len(head)) // 2, (at - len(head) + piece.size) // 2) for at, piece in begins if piece.begin is None
    )
    total_s = sum(end - begin for begin, end in quiet) / found.format.rate_hz
    details = f"the recorder left out {len(quiet):,}, {total_s:,.2f} s in all"
    return replace(
        contents, layouts=(layout,), quiet=quiet, warnings=(*contents.warnings, warning("quiet stretches", details))
    )


def _contents(file: IO[bytes], found: _Samples, size_bytes: int) -> Contents:
    next_sound, block = _next_sound(file, found, size_bytes), found.format.block
    end = found.begin + found.claimed if next_sound else _end(file, found, size_bytes)
    size = (end - found.begin) // block * block
    missing = found.begin + found.claimed - size_bytes if found.known else 0
    true = found.known and missing <= 0 and size == found.claimed // block * block
    # libsndfile may read chunks that follow the samples of a Wave64 file.
    as_it_is = true and not (found.rewrite or next_sound) and (found.style is not _W64 or end == size_bytes)
    head = None if as_it_is else found.format.head(size)
    layouts = (Layout(head, (Piece(found.begin, size),)),) if head else ()
    if next_sound:
        return Contents(layouts, problem=f"another sound follows in the file, at byte {next_sound:,}: split it there")
    if missing > SLACK_BYTES:
        return Contents(layouts, problem=f"the header announces {missing:,} bytes more than the file has")
    if true or missing > 0 or not found.known:
        return Contents(layouts)
    details = f"the header states {found.claimed:,} bytes of samples, the file holds {size:,}"
    if not layouts and size - found.claimed <= SLACK_BYTES:  # padding behind packets
        return Contents()
    if not layouts:
        return Contents(problem=f"{details}, which cannot be read without a correct header")
    return Contents(layouts, (warning("size corrected", details),))


def _next_sound(file: IO[bytes], found: _Samples, size_bytes: int) -> int:
    """Return where another file, or more samples, begin after the samples; 0 if other bytes or none follow."""
    end = found.begin + found.claimed
    if not found.known or not found.claimed or end >= size_bytes:
        return 0
    places = {end, end + -end % found.style.align if found.style else end}
    return next((at for at in sorted(places) if _content(file, at, 4) in (*_FINDERS, b"data", b"SSND")), 0)


def _end(file: IO[bytes], found: _Samples, size_bytes: int) -> int:
    """Return where the samples end."""
    end, style = found.begin + found.claimed, found.style
    if not found.known or end > size_bytes:
        return _tail(file, found, size_bytes)
    block = found.format.block
    if (size_bytes - found.begin) // block == found.claimed // block:
        return end
    if style:
        padded = end + -end % style.align
        if padded == size_bytes or any(_chunks_fill(file, style, at, size_bytes, lenient=True) for at in (end, padded)):
            return end
        for wrapped in range(end + WRAP, size_bytes + 1, WRAP):
            if size_bytes - wrapped < block or _chunks_fill(file, style, wrapped, size_bytes):
                return wrapped
    return _tail(file, found, size_bytes)


def _tail(file: IO[bytes], found: _Samples, size_bytes: int) -> int:
    """Return where the chunks at the end of a file begin; the end if there are none."""
    if found.style is None:
        return size_bytes
    begin = max(found.begin, size_bytes - TAIL_BYTES)
    file.seek(begin)
    tail = file.read(size_bytes - begin)
    starts = (begin + match.start() for match in islice(found.style.known.finditer(tail), MAX_STARTS))
    return next((at for at in starts if _chunks_fill(file, found.style, at, size_bytes)), size_bytes)


def _chunks_fill(file: IO[bytes], style: _Style, at: int, end: int, *, lenient: bool = False) -> bool:
    """Return True if a file is a sequence of chunks from a position to its end.

    If `lenient`, a known name of the first chunk is enough: the file may be cut off in its last chunk, or padded.
    """
    for chunk in _chunks(file, style, at):
        if lenient and style.known.match(chunk.name):
            return True
        if chunk.begin + chunk.size > end:
            return False
        if end - (chunk.begin + chunk.size) < style.align:
            return True
        lenient = False
    return False


def _chunks(file: IO[bytes], style: _Style, at: int) -> Iterator[_Chunk]:
    """Yield chunks from a position on, up to what cannot be one."""
    for _ in range(MAX_CHUNKS):
        if at >= 2**63:  # no position in a file
            return
        file.seek(at)
        packed = file.read(style.header.size)
        if len(packed) < style.header.size:
            return
        name, size = style.header.unpack(packed)
        if style.inclusive:
            size = max(0, size - style.header.size)
        if not style.names.match(name) or size < -1:
            return
        begin = at + style.header.size
        yield _Chunk(name, begin, size)
        at = begin + size
        if style.align == 2 and size % 2:  # the padding byte is zero, but some programs do not write it
            file.seek(at)
            at += file.read(1) == b"\0"
        else:
            at += -at % style.align


def _riff(file: IO[bytes]) -> _Samples | None:
    """Find the samples of a WAV, RIFX, RF64 or BW64 file."""
    file.seek(0)
    magic, _, form = struct.unpack("<4sI4s", file.read(12).ljust(12))
    style, large, description = _BIG if magic == b"RIFX" else _LITTLE, -1, b""
    for name, begin, size in _chunks(file, style, 12) if form == b"WAVE" else ():
        if name == b"ds64":
            large = int.from_bytes(_content(file, begin, 16)[8:], "little")
        elif name == b"fmt ":
            description = _content(file, begin, size)
        elif name == b"data" and len(description) >= 14:
            claimed = large if magic in (b"RF64", b"BW64") and size == WRAP - 1 else size
            # libsndfile expects the padding byte that some programs do not write.
            rewrite = magic == b"BW64" or begin % 2 == 1
            return _Samples(style, begin, claimed, _Wave(description, magic == b"RIFX"), rewrite)
    return None


def _w64(file: IO[bytes]) -> _Samples | None:
    """Find the samples of a Wave64 file."""
    description = b""
    for name, begin, size in _chunks(file, _W64, 40):
        if name.startswith(b"fmt "):
            description = _content(file, begin, size)
        elif name.startswith(b"data") and len(description) >= 14:
            return _Samples(_W64, begin, size, _Wave(description))
    return None


def _aiff(file: IO[bytes]) -> _Samples | None:
    """Find the samples of an AIFF or AIFF-C file."""
    file.seek(8)
    form, found, sound = file.read(4), b"", None
    for name, begin, size in _chunks(file, _BIG, 12) if form in (b"AIFF", b"AIFC") else ():
        if name == b"COMM":
            found = _content(file, begin, size)
        elif name == b"SSND":
            offset = 8 + int.from_bytes(_content(file, begin, 4), "big")
            sound = begin + offset, max(0, size - offset)
        if sound and len(found) >= 18:
            channels, _, bits, exponent, mantissa = struct.unpack(">HIHHQ", found[:18])
            codec = found[18:22].lower() if form == b"AIFC" else b"none"
            encoding = _codec(codec, -(-bits // 8), (b"none", b"twos", b"sowt", b"in24", b"in32"), (b"fl32", b"fl64"))
            rate_hz = mantissa * 2.0 ** (min(exponent, 16_383 + 64) - 16_383 - 63)
            return _Samples(_BIG, *sound, _Sun(encoding, rate_hz, channels, big=codec != b"sowt"))
    return None


def _caf(file: IO[bytes]) -> _Samples | None:
    """Find the samples of a Core Audio file."""
    description = b""
    for name, begin, size in _chunks(file, _CAF, 8):
        if name == b"desc":
            description = _content(file, begin, size)
        elif name == b"data" and len(description) >= 32:
            rate_hz, codec, flags, packet, _, channels, bits = struct.unpack(">d4s5I", description[:32])
            packed = packet == channels * bits // 8
            encoding = _codec(codec, bits // 8, (b"lpcm",) * (not flags & 1), (b"lpcm",) * (flags & 1)) * packed
            samples = _Sun(encoding, rate_hz, channels, big=not flags & 2)
            return _Samples(_CAF, begin + 4, -1 if size < 0 else max(0, size - 4), samples)
    return None


def _au(file: IO[bytes]) -> _Samples | None:
    """Find the samples of an AU file; it has no chunks."""
    file.seek(0)
    head = file.read(24)
    big = head[:4] == b".snd"
    begin, size, encoding, rate_hz, channels = struct.unpack(">5I" if big else "<5I", head[4:].ljust(20, b"\0"))
    return _Samples(None, begin, size, _Sun(encoding if encoding in _SUN_BYTES else 0, rate_hz, channels, big))


def _codec(codec: bytes, size: int, integers: tuple[bytes, ...], floats: tuple[bytes, ...]) -> int:
    """Return the encoding of AU for samples of AIFF or CAF; 0 if there is none."""
    if codec in integers:
        return _INTEGERS.get(size, 0)
    if codec in floats:
        return _FLOATS.get(size, 0)
    return {b"ulaw": 1, b"alaw": 27}.get(codec, 0)


def _content(file: IO[bytes], begin: int, size: int) -> bytes:
    file.seek(begin)
    return file.read(max(0, min(size, MAX_HEADER_BYTES)))  # -1 stands for an unknown size


_FINDERS = {
    b"RIFF": _riff,
    b"RIFX": _riff,
    b"RF64": _riff,
    b"BW64": _riff,
    b"riff": _w64,
    b"FORM": _aiff,
    b"caff": _caf,
    b".snd": _au,
    b"dns.": _au,
}
