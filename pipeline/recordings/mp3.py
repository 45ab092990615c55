"""What an MPEG audio file (MP3, MP2) contains: its frames, counted, whatever its headers state.

libsndfile reads as many frames as the header `Xing` or `Info` in the first frame states, without one as many as there
would be at the bit rate of the first frame, and does not look far for a frame between other bytes. A file whose header
is wrong or missing, or that has other bytes between frames, is therefore given to it as a stream of frames alone, with
a correct header in front.

Sources: http://www.mp3-tech.org/programmer/frame_header.html, http://gabriel.mp3-tech.org/mp3infotag.html and, for
`VBRI`, https://www.codeproject.com/Articles/8295/MPEG-Audio-Frame-Header.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice, pairwise
from typing import IO, NamedTuple

from satpipe.pipeline.recording_warnings import warning
from satpipe.pipeline.recordings.spliced import Contents, Layout, Piece

_MPEG_1, _MPEG_2, _MPEG_2_5 = 3, 2, 0
_RATES_HZ = (44_100, 48_000, 32_000)  # of MPEG 1
_DIVISORS = {_MPEG_1: 1, _MPEG_2: 2, _MPEG_2_5: 4}
_LOW_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KBIT_S = {  # by MPEG 1 or not, and layer
    (True, 1): tuple(range(32, 449, 32)),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): _LOW_RATES,
    (False, 3): _LOW_RATES,
}
_LARGEST_FRAME = 2881  # bytes: layer II, 160 kbit/s, 8 kHz, padded
_IN_A_ROW = 4  # frames that other bytes do not resemble by chance
_BLOCK_BYTES = 2**20
_FIRST_BYTES = 2**14  # where frames usually begin
_FIRST_WITHIN = 2**24  # bytes in which the first frame must begin
_SYNC = re.compile(rb"\xff[\xe2-\xff][^\xf0-\xff]", re.DOTALL)
_VBRI_AT = 36  # in the first frame
_MAX_RUNS = 2**18  # of frames without a gap; a captured web radio with titles may have 100,000 a day
_LAME_BYTES = 36  # of encoder, delay, padding and others, which follow the header's fields


class _Format(NamedTuple):
    """What the frames of a recording have in common."""

    version: int
    layer: int
    rate: int  # place in _RATES_HZ
    mono: bool

    @property
    def rate_hz(self) -> int:
        return _RATES_HZ[self.rate] // _DIVISORS[self.version]

    @property
    def samples(self) -> int:
        """Samples of a frame, per channel."""
        if self.layer == 1:
            return 384
        return 576 if self.layer == 3 and self.version != _MPEG_1 else 1152

    def bit_s(self, third: int) -> int:
        """Bits per second, by the third byte of a frame's header."""
        return 1000 * _KBIT_S[self.version == _MPEG_1, self.layer][(third >> 4) - 1]

    @property
    def header_at(self) -> int:
        """Where in the first frame a header begins."""
        sides = (17, 32) if self.version == _MPEG_1 else (9, 17)
        return 4 + sides[not self.mono]

    def __str__(self) -> str:
        return f"layer {self.layer}, {self.rate_hz:,} Hz, {2 - self.mono} channels"


class _Claims(NamedTuple):
    """What the header in the first frame states."""

    frames: int | None = None
    size_bytes: int = 0  # 0: not stated
    vbri: bool = False  # a header that libsndfile does not read
    constant: bool = False  # bit rate
    lame: bytes = b""


class _Run(NamedTuple):
    """Whole frames of one format without a gap; `after` is where to look for more."""

    form: _Format
    begin: int
    end: int
    after: int
    frames: int


@dataclass
class _Skipped:
    """Bytes that are neither frames nor tags."""

    size: int = 0
    begin: int = 0  # of the first ones

    def add(self, begin: int, end: int) -> None:
        self.begin = self.begin if self.size else begin
        self.size += end - begin


def examine_mpeg(file: IO[bytes], size_bytes: int) -> Contents:
    """Find the frames of an MPEG audio file.

    Raises:
        OSError: The file cannot be read.
    """
    skipped = _Skipped()
    found = _next(file, 0, skipped, _FIRST_WITHIN)
    if found is None:
        return Contents()
    begin, form = found
    first = _read(file, begin, 2 * _LARGEST_FRAME)
    claims = _claims(form, first)
    end = size_bytes - _id3v1_bytes(file, size_bytes)
    if claims and not skipped.size and _is_proved(claims, form, first, end - begin):
        return _without_tags(begin, end, size_bytes)
    runs = list(islice(_runs(file, begin, form, skipped), _MAX_RUNS))
    right = claims and claims.frames == runs[0].frames - 1 and not claims.vbri
    if right and len(runs) == 1 and not skipped.size:
        return _without_tags(begin, runs[0].end, size_bytes)
    return _contents(first, claims, runs, skipped)


def _without_tags(begin: int, end: int, size_bytes: int) -> Contents:
    """Return the contents of a file whose header is right; with large tags, libsndfile prints that its size is not."""
    return Contents() if (begin, end) == (0, size_bytes) else Contents((Layout(b"", (Piece(begin, end - begin),)),))


def _contents(first: bytes, claims: _Claims | None, runs: list[_Run], skipped: _Skipped) -> Contents:
    form, begin = runs[0].form, runs[0].begin
    same = [run for run in runs if run.form == form]
    frames = sum(run.frames for run in same) - (claims is not None)
    stated = claims or _Claims()
    missing_bytes = stated.size_bytes - (same[-1].end - begin)
    problem, warnings = "", []
    if len(runs) == _MAX_RUNS:
        problem = f"its MPEG frames are interrupted more than {_MAX_RUNS:,} times"
    elif len(same) < len(runs):
        problem = f"MPEG frames of another format follow ({runs[-1].form})"
    elif missing_bytes > _LARGEST_FRAME:
        problem = f"the header announces {missing_bytes:,} bytes more than the file has"
    elif stated.frames is not None and not stated.size_bytes and stated.frames > frames:
        problem = f"the header announces {stated.frames - frames:,} frames more than the file has"
    elif stated.frames not in (None, frames):
        text = f"the header states {stated.frames:,} MPEG frames, the file has {frames:,}"
        warnings.append(warning("size corrected", text))
    if skipped.size:
        text = f"{skipped.size:,} that are no MPEG frames, the first of them at byte {skipped.begin:,}"
        warnings.append(warning("bytes skipped", text))
    begins = [run.begin for run in same]
    if claims:
        begins[0] += _size(form, first[2])
    pieces = tuple(Piece(at, run.end - at) for at, run in zip(begins, same, strict=True))
    # The padding is that of the end that the header knew.
    padded = len(runs) == 1 and abs(missing_bytes) <= _LARGEST_FRAME
    head = _header(form, first, frames, stated.lame if padded else _unpadded(stated.lame)) if form.layer == 3 else b""
    # With a header, libsndfile leaves out what its decoder adds.
    known = 0 if head else frames * form.samples
    return Contents((Layout(head, pieces),), tuple(warnings), problem, frames=known)


def _claims(form: _Format, first: bytes) -> _Claims | None:
    """Return what the header in the first frame states; None if the frame has none."""
    if form.layer != 3:
        return None
    size = _size(form, first[2])
    fields = first[form.header_at : size]
    if fields[:4] in (b"Xing", b"Info"):
        has = [bool(fields[7] >> place & 1) for place in range(4)] if len(fields) > 7 else [False] * 4
        ends = list(accumulate((size * here for size, here in zip((4, 4, 100, 4), has, strict=True)), initial=8))
        count, size_bytes = (int.from_bytes(fields[begin:end], "big") for begin, end in pairwise(ends[:3]))
        lame = fields[ends[4] : ends[4] + _LAME_BYTES]
        return _Claims(count if has[0] else None, size_bytes, constant=fields[:4] == b"Info", lame=lame)
    fields = first[_VBRI_AT:size]
    if fields[:4] == b"VBRI":
        return _Claims(int.from_bytes(fields[14:18], "big"), int.from_bytes(fields[10:14], "big"), vbri=True)
    return None


def _is_proved(claims: _Claims, form: _Format, first: bytes, size_bytes: int) -> bool:
    """Return True if a header states the size, and frames of a constant bit rate that add up to it."""
    header_bytes = _size(form, first[2])
    second = first[header_bytes : header_bytes + 4]
    if _format(second) != form or not claims.constant or claims.size_bytes != size_bytes:
        return False
    frame_bytes = form.samples * form.bit_s(second[2]) / (8 * form.rate_hz)
    return abs(header_bytes + (claims.frames or 0) * frame_bytes - size_bytes) < frame_bytes


def _header(form: _Format, first: bytes, frames: int, lame: bytes) -> bytes:
    """Return a frame with a header, as it would be in front of a number of frames."""
    # The largest frame without a checksum.
    start = bytes([0xFF, first[1] | 1, 0xE0 | first[2] & 0x0D, first[3]])
    fields = b"Info" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big") + lame
    return (start.ljust(form.header_at, b"\0") + fields).ljust(_size(form, start[2]), b"\0")


def _unpadded(lame: bytes) -> bytes:
    """Return the fields of LAME without the padding at the end: 12 bits from the middle of byte 22 on."""
    return lame[:22] + bytes([lame[22] & 0xF0, 0]) + lame[24:] if len(lame) == _LAME_BYTES else b""


def _format(head: bytes) -> _Format | None:
    """Return the format of the frame that begins with 4 bytes or more; None if they begin none."""
    if len(head) < 4:
        return None
    sync, version, layer = head[0] << 3 | head[1] >> 5, head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    if sync != 0x7FF or version == 1 or layer == 4 or head[2] >> 4 in (0, 15) or head[2] >> 2 & 3 == 3:
        return None
    return _Format(version, layer, head[2] >> 2 & 3, head[3] >> 6 == 3)


def _size(form: _Format, third: int) -> int:
    """Return the size of a frame of a format, in bytes, by the third byte of its header."""
    slot_bytes = 4 if form.layer == 1 else 1
    return (form.samples * form.bit_s(third) // (8 * slot_bytes * form.rate_hz) + (third >> 1 & 1)) * slot_bytes


@lru_cache(maxsize=8)
def _sizes(form: _Format) -> list[int]:
    """Return the sizes of the frames of a format by the second and third byte of their header; 0: none of this format.

    A table, since a day has three million frames.
    """
    fourth = 0xC0 if form.mono else 0
    heads = (bytes([0xFF, place >> 8, place & 0xFF, fourth]) for place in range(2**16))
    return [_size(form, head[2]) if _format(head) == form else 0 for head in heads]


def _runs(file: IO[bytes], begin: int, form: _Format, skipped: _Skipped) -> Iterator[_Run]:
    """Yield the runs of frames from the position of one on, up to the first run of another format."""
    found: tuple[int, _Format] | None = begin, form
    while found:
        run = _run(file, *found)
        yield run
        found = _next(file, run.after, skipped) if run.form == form else None


def _run(file: IO[bytes], begin: int, form: _Format) -> _Run:
    sizes, mono = _sizes(form), form.mono
    end, frames, size = begin, 0, 0
    while True:
        block = _read(file, end, _BLOCK_BYTES)
        at, last = 0, len(block) - 4
        while at <= last and block[at] == 0xFF and (block[at + 3] >= 0xC0) == mono:
            following = sizes[block[at + 1] << 8 | block[at + 2]]
            if not following:
                break
            size = following
            at += size
            frames += 1
        end += at
        if at <= last or len(block) < _BLOCK_BYTES:
            break
    if at > len(block):  # the last frame is cut off
        return _Run(form, begin, end - size, end, frames - 1)
    return _Run(form, begin, end, end, frames)


def _next(file: IO[bytes], at: int, skipped: _Skipped, within: int | None = None) -> tuple[int, _Format] | None:
    """Return where the next frames begin, and their format, or None; note bytes that are neither frames nor tags."""
    at = after_tags(file, at)
    begin, form, size = at, None, _FIRST_BYTES
    while not form and (block := _read(file, at, size + _IN_A_ROW * _LARGEST_FRAME)):
        if within and at - begin > within:
            return None
        places = (match.start() for match in _SYNC.finditer(block, 0, size + 2))
        place, form = next(
            ((place, form) for place in places if (form := _format_of_frames(block, place))),
            (min(len(block), size), None),
        )
        at, size = at + place, _BLOCK_BYTES
    if at - begin >= 4:
        skipped.add(begin, at)
    return (at, form) if form else None


def after_tags(file: IO[bytes], at: int = 0) -> int:
    """Return the position after the tags that begin at a position."""
    while tag := _tag_bytes(_read(file, at, 16)):
        at += tag
    return at


def _format_of_frames(block: bytes, at: int) -> _Format | None:
    """Return the format of frames that follow each other, as many as other bytes do not resemble; None otherwise."""
    form = _format(block[at : at + 4])
    for number in range(_IN_A_ROW):
        if number and (at == len(block) or _tag_bytes(block[at : at + 16])):
            return form
        if len(block) - at < 4:
            return form if number == _IN_A_ROW - 1 else None
        if not form or _format(block[at : at + 4]) != form:
            return None
        at += _size(form, block[at + 2])
    return form


def _tag_bytes(head: bytes) -> int:
    """Return the size of the ID3 or APE tag that begins with 16 bytes; 0 if none does."""
    if head[:3] == b"ID3" and len(head) >= 10:
        size = sum(byte << 7 * place for place, byte in enumerate(reversed(head[6:10])))
        return 20 + size if head[5] & 0x10 else 10 + size
    if head[:3] == b"TAG":
        return 128
    return 32 + int.from_bytes(head[12:16], "little") if head[:8] == b"APETAGEX" else 0


def _id3v1_bytes(file: IO[bytes], size_bytes: int) -> int:
    return 128 if _read(file, max(0, size_bytes - 128), 3) == b"TAG" else 0


def _read(file: IO[bytes], at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)
