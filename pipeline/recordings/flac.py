"""The true length of a FLAC file: its last frame says which samples it holds.

Source: RFC 9639.
"""

import re
import struct
from dataclasses import replace
from typing import IO, NamedTuple

from satpipe.pipeline.recording_warnings import warning
from satpipe.pipeline.recordings.spliced import Contents, Layout, Piece

WINDOWS_BYTES = (2**16, 2**22)  # searched from the end of the file; frames are rarely longer than 30 kB
MAX_FRAME_SAMPLES, MAX_FRAME_BYTES = 2**16, 2**18
MAX_BLOCKS = 128  # of metadata
MAX_FRAMES = 64  # examined from the end of the file
_HEAD = struct.Struct(">4s4sHH6sQ")  # up to the number of samples; the last 36 bits are that number
_MAGIC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # with the header of the block that must be the first one
_NUMBER = 2**36 - 1
_SYNC = re.compile(rb"\xff[\xf8\xf9][^\x00-\x0f]")


class _Frame(NamedTuple):
    at: int
    end: int
    """The sample after its last one."""


def examine_flac(file: IO[bytes], size_bytes: int, begin: int = 0) -> Contents:
    """Find out whether a FLAC file holds as many samples as its header states.

    Args:
        file: The file.
        size_bytes: Its size.
        begin: Where FLAC begins, behind a tag.

    Raises:
        OSError: The file cannot be read.
    """
    start = begin
    file.seek(begin)
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or head[4] & 0x7F:
        return Contents()  # the first block must be the one with the length
    begin += _HEAD.size
    *_, shortest, longest, sizes, numbers = _HEAD.unpack(head)
    stated = numbers & _NUMBER
    for window in WINDOWS_BYTES:
        at = max(begin, size_bytes - window)
        file.seek(at)
        held = _length(file.read(size_bytes - at), longest if shortest == longest else 0, stated)
        if held or at == begin:
            break
    most_bytes = int.from_bytes(sizes[3:], "big") * (held // max(1, shortest) + 2)
    too_large = most_bytes and size_bytes - _frames_begin(file, start) > most_bytes
    if (too_large or held != stated > 0) and (other := _next_file(file, begin)) and other < size_bytes:
        first = examine_flac(file, other, start)
        problem = f"another sound follows in the file, at byte {other:,}: split it there"
        layouts = first.layouts or (Layout(head, (Piece(begin, other - begin),)),)
        return replace(first, layouts=layouts, problem=problem)
    if not held or held == stated or held > _NUMBER or 0 < stated - held < MAX_FRAME_SAMPLES:
        return Contents()
    layout = Layout(head[:-8] + (numbers - stated + held).to_bytes(8, "big"), (Piece(begin, size_bytes - begin),))
    if stated > held:
        return Contents((layout,), problem=f"the header announces {stated - held:,} samples more than the file has")
    details = f"the header states {stated:,} samples, the file holds {held:,}"
    return Contents((layout,), (warning("size corrected", details),) if stated else ())


def _frames_begin(file: IO[bytes], begin: int) -> int:
    """Return where the frames begin, behind all blocks of metadata."""
    at = begin + 4
    for _ in range(MAX_BLOCKS):
        file.seek(at)
        header = file.read(4).ljust(4, b"\x80")
        at += 4 + int.from_bytes(header[1:], "big")
        if header[0] & 0x80:  # the last one
            break
    return at


def _next_file(file: IO[bytes], at: int) -> int:
    """Return where the next FLAC file begins at or after a position; 0 if there is none."""
    file.seek(at)
    before = b""
    while block := file.read(WINDOWS_BYTES[1]):
        if found := _MAGIC.search(before + block):
            return at - len(before) + found.start()
        before, at = block[-7:], at + len(block)
    return 0


def _length(tail: bytes, block: int, stated: int) -> int:
    """Return the number of samples up to the end of the last whole frame; 0 if there is none.

    Args:
        tail: The end of the file.
        block: Number of samples of every frame but the last; 0 if they differ.
        stated: The number of samples according to the header.
    """
    frames = [frame for match in _SYNC.finditer(tail) if (frame := _frame(tail, match.start(), block))]
    if frames and frames[-1].end == stated:
        return stated
    ends = {frame.at for frame in frames} | {len(tail)}
    return next((frame.end for frame in frames[: -MAX_FRAMES - 1 : -1] if _is_whole(tail, frame.at, ends)), 0)


def _frame(tail: bytes, at: int, block: int) -> _Frame | None:
    """Return the frame whose header is at a position; None if there is none."""
    header = tail[at : at + 16].ljust(16, b"\0")
    if header[3] & 1 or header[3] >> 4 > 10 or header[2] & 15 == 15:
        return None
    number, after = _coded_number(header)
    code = header[2] >> 4
    extra = {6: 1, 7: 2}.get(code, 0)
    if code == 1:
        samples = 192
    elif code < 6:
        samples = 576 << code - 2
    elif extra:
        samples = int.from_bytes(header[after : after + extra], "big") + 1
    else:
        samples = 256 << code - 8
    after += extra + {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    checksum = 0
    for byte in header[:after]:
        checksum = _CRC8[checksum ^ byte]
    if number < 0 or after > 15 or checksum != header[after]:
        return None
    return _Frame(at, number * (1 if header[1] & 1 else block or samples) + samples)  # the bit: samples are counted


def _coded_number(header: bytes) -> tuple[int, int]:
    """Return the number of a frame or sample in a frame's header, -1 if it is invalid, and the position after it."""
    first = header[4]
    more = 0 if first < 0x80 else 8 - (first ^ 0xFF).bit_length() - 1
    rest = header[5 : 5 + more]
    if first == 0xFF or (first >= 0x80 and not more) or any(byte >> 6 != 2 for byte in rest):
        return -1, 5
    number = first if first < 0x80 else first & (0x3F >> more)
    for byte in rest:
        number = number << 6 | byte & 0x3F
    return number, 5 + more


def _is_whole(tail: bytes, at: int, ends: set[int]) -> bool:
    """Return True if the checksum of the frame at a position is right at the next frame's start or the file's end."""
    checksum = 0
    for place in range(at, min(at + MAX_FRAME_BYTES, len(tail))):
        checksum = (checksum << 8 & 0xFFFF) ^ _CRC16[checksum >> 8 ^ tail[place]]
        if not checksum and place + 1 in ends:  # the checksum of a frame with its checksum is 0
            return True
    return False


def _table(polynomial: int, bits: int) -> tuple[int, ...]:
    """Return the table of a CRC for every byte."""
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value >> bits - 1 else 0)) & (1 << bits) - 1
        table.append(value)
    return tuple(table)


_CRC8, _CRC16 = _table(0x07, 8), _table(0x8005, 16)
